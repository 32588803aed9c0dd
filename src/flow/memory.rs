//! Memory for big arrays that are touched at random: reserved whole, resident only where touched, in huge pages.
//!
//! A [`Region`] of a hundred million entries costs address space and nothing else until it is used, never moves and
//! never copies, and its zeroed pages come from the kernel. At ten million Flows huge pages take some 40 % off an
//! update. This is the one file of the table with `unsafe`: the view of a mapping as an array, prefetches to read and to
//! write, and the comparison of sixteen numbers at once.

use std::io;
use std::marker::PhantomData;

use bytemuck::Pod;
use memmap2::{MmapMut, MmapOptions};

/// An array of `T`, all zero bits at first.
pub(super) struct Region<T> {
    map: MmapMut,
    length: usize,
    element: PhantomData<T>,
}

impl<T: Pod> Region<T> {
    /// Reserves room for `length` elements.
    ///
    /// # Errors
    /// The kernel's word when it does not give that much address space.
    pub(super) fn reserve(length: usize) -> io::Result<Region<T>> {
        const { assert!(align_of::<T>() <= 4096, "a mapping is aligned to a page, not more") };
        let octets = length.checked_mul(size_of::<T>()).ok_or(io::ErrorKind::OutOfMemory)?.max(1);
        let map = MmapOptions::new().len(octets).no_reserve_swap().map_anon()?;
        // Small regions would waste a huge page, and a kernel without them is slower, not wrong.
        #[cfg(target_os = "linux")]
        if octets >= HUGE_PAGE {
            let _ = map.advise(memmap2::Advice::HugePage);
        }
        Ok(Region { map, length, element: PhantomData })
    }

    #[inline]
    pub(super) fn as_slice(&self) -> &[T] {
        // SAFETY: the mapping holds `length` elements, is page-aligned (`reserve` refuses types that want more), lives as
        // long as `self`, and any octets are a valid `T: Pod`. bytemuck's checked cast does the same and was rejected
        // for its checks on each access.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().cast(), self.length) }
    }

    #[inline]
    pub(super) fn as_mut_slice(&mut self) -> &mut [T] {
        // SAFETY: as above, and `&mut self` makes the borrow the only one.
        unsafe { std::slice::from_raw_parts_mut(self.map.as_mut_ptr().cast(), self.length) }
    }
}

#[cfg(target_os = "linux")]
const HUGE_PAGE: usize = 2 << 20;

/// Asks for the cache line of `slice[at]`; a position outside asks for nothing.
#[inline(always)]
pub(super) fn prefetch<T>(slice: &[T], at: usize) {
    if let Some(element) = slice.get(at) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a prefetch reads nothing that the program could see, and the address is that of a live reference.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(element).cast());
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = element;
    }
}

/// Asks for the cache line of `slice[at]` to be written, which takes it away from other cores; a position outside asks for
/// nothing.
#[inline(always)]
pub(super) fn prefetch_to_write<T>(slice: &mut [T], at: usize) {
    if let Some(element) = slice.get_mut(at) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: it changes nothing that the program could see, and the address is that of a live reference. Processors of
        // before 2014 that do not know the instruction take it for none. The intrinsic would become a
        // prefetch to read where the instruction is not promised at compile time.
        unsafe {
            std::arch::asm!("prefetchw [{}]", in(reg) std::ptr::from_mut(element), options(nostack, preserves_flags, readonly));
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = element;
    }
}

/// A bit for each of the numbers that equals `number`.
#[inline(always)]
pub(super) fn which_equal(numbers: &[u16; 16], number: u16) -> u32 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: SSE2 is part of every x86-64, and the values are plain numbers. Left to the compiler, the loop below becomes
    // five times as many instructions.
    unsafe {
        use std::arch::x86_64::{
            __m128i, _mm_cmpeq_epi16, _mm_movemask_epi8, _mm_packs_epi16, _mm_set1_epi16,
        };
        let [low, high]: [__m128i; 2] = bytemuck::cast(*numbers);
        let number = _mm_set1_epi16(number.cast_signed());
        let equal = _mm_packs_epi16(_mm_cmpeq_epi16(low, number), _mm_cmpeq_epi16(high, number));
        _mm_movemask_epi8(equal).cast_unsigned()
    }
    #[cfg(not(target_arch = "x86_64"))]
    numbers.iter().enumerate().fold(0, |bits, (at, one)| bits | u32::from(*one == number) << at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_equal_number_has_its_bit() {
        let numbers = [7, 0, 7, 1, u16::MAX, 2, 3, 7, 0x8000, 8, 9, 7, 1, 2, 256, 263];
        assert_eq!(which_equal(&numbers, 7), 0b1000_1000_0101);
        assert_eq!(which_equal(&numbers, u16::MAX), 0b1_0000);
        assert_eq!(which_equal(&numbers, 263), 1 << 15);
        assert_eq!(which_equal(&[7; 16], 6), 0);
        assert_eq!(which_equal(&[7; 16], 7), 0xffff);
    }

    #[test]
    fn a_region_is_zero_at_first_and_keeps_what_is_written() {
        let mut region: Region<u64> = Region::reserve(1 << 20).unwrap();
        assert!(region.as_slice().iter().step_by(4099).all(|number| *number == 0));
        region.as_mut_slice()[(1 << 20) - 1] = 5;
        assert_eq!(region.as_slice()[(1 << 20) - 1], 5);
        assert_eq!(region.as_slice().len(), 1 << 20);
    }
}
