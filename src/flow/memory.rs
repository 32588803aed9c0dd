//! Memory for big arrays that are touched at random: reserved whole, resident only where touched, in huge pages.
//!
//! A [`Region`] of a hundred million entries costs address space and nothing else until it is used, never moves and
//! never copies, and its zeroed pages come from the kernel. At ten million Flows huge pages take some 40 % off an
//! update. This is the one file of the table with `unsafe`: the view of a mapping as an array, and the prefetch.

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
