//! Memory for big arrays that are touched at random: reserved whole, resident only where touched, in huge pages or small ones.
//!
//! A [`Region`] of a hundred million entries costs address space and nothing else until it is used, moves and copies only if it
//! is told to grow, and its zeroed pages come from the kernel. At ten million Flows huge pages take some 40 % off an
//! update. This is the one file of the table with `unsafe`: the view of a mapping as an array, its way to another
//! thread, its memory given back, and the comparison of sixteen numbers at once.

use std::alloc::Layout;
use std::io;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;

use bytemuck::Pod;
#[cfg(target_os = "linux")]
use memmap2::{Advice, UncheckedAdvice};
use memmap2::{MmapOptions, MmapRaw};

/// An array of `T`, all zero bits at first.
pub(super) struct Region<T> {
    pages: Pages,
    /// Where they are.
    start: NonNull<T>,
    length: usize,
}

// SAFETY: it owns its elements, as a `Vec` does; others that have the pages cannot reach what is in them.
unsafe impl<T: Send> Send for Region<T> {}

impl<T: Pod> Region<T> {
    /// Reserves room for `length` elements.
    ///
    /// # Errors
    /// The kernel's word when it does not give that much address space.
    pub(super) fn reserve(length: usize) -> io::Result<Region<T>> {
        const { assert!(align_of::<T>() <= PAGE, "a mapping is aligned to a page, not more") };
        let octets = length.checked_mul(size_of::<T>()).ok_or(io::ErrorKind::OutOfMemory)?.max(1);
        let map = MmapRaw::from(MmapOptions::new().len(octets).no_reserve_swap().map_anon()?);
        let start = NonNull::new(map.as_mut_ptr().cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Region { pages: Pages(Arc::new(map)), start, length })
    }

    #[inline]
    pub(super) fn as_slice(&self) -> &[T] {
        // SAFETY: the mapping holds `length` elements, is page-aligned (`reserve` refuses types that want more), lives as
        // long as `self`, and any octets are a valid `T: Pod`. Others that have the pages cannot reach what is in them.
        // bytemuck's checked cast does the same and was rejected for its checks on each access.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }

    #[inline]
    pub(super) fn as_mut_slice(&mut self) -> &mut [T] {
        // SAFETY: as above, and `&mut self` makes the borrow the only one.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.length) }
    }

    /// Twice as many elements: they move, and those who have the [`Pages`] keep the old ones.
    #[cold]
    pub(super) fn grow(&mut self) {
        let length = 2 * self.length;
        let Ok(mut grown) = Region::reserve(length) else {
            // As a `Vec` ends where there is no memory.
            std::alloc::handle_alloc_error(Layout::array::<T>(length).unwrap_or(Layout::new::<T>()));
        };
        grown.as_mut_slice()[..self.length].copy_from_slice(self.as_slice());
        *self = grown;
    }

    /// Zeroes the first `used` elements, behind which all are zero, and gives their memory back if it is worth while.
    pub(super) fn clear(&mut self, used: usize) {
        #[cfg(target_os = "linux")]
        if used * size_of::<T>() > KEPT_OCTETS {
            let pages = &self.pages.0;
            // SAFETY: what is given back reads as zero bits from then on, which any `T: Pod` may be, and `&mut self` makes sure
            // that nobody looks at it meanwhile.
            if unsafe { pages.unchecked_advise_range(UncheckedAdvice::DontNeed, 0, pages.len()) }.is_ok() {
                return;
            }
        }
        self.as_mut_slice()[..used].fill(T::zeroed());
    }

    /// Whether what begins with element `from` is to come in huge pages, as far as it is not there yet; until this is said, it
    /// comes as the system likes, which is in small ones unless it was told otherwise.
    ///
    /// Huge pages are good for what is looked up often. What is written once, one element after the other, costs no more in
    /// small ones, and a virtual machine's host that takes free memory back takes what huge pages are made of, to
    /// return it slowly: a SYN flood that fills huge pages took up to twice as long.
    pub(super) fn use_huge_pages(&self, from: usize, huge: bool) {
        #[cfg(target_os = "linux")]
        {
            let map = &self.pages.0;
            let from = self.pages.huge_page_after(from * size_of::<T>());
            if from < map.len() {
                let advice = if huge { Advice::HugePage } else { Advice::NoHugePage };
                // A kernel without huge pages is slower, not wrong.
                let _ = map.advise_range(advice, from, map.len() - from);
            }
        }
        #[cfg(not(target_os = "linux"))]
        let _ = (from, huge);
    }

    /// The pages, for another thread to make ready.
    pub(super) fn pages(&self) -> Pages {
        self.pages.clone()
    }
}

/// What is cleared is kept if it is no more than this.
const KEPT_OCTETS: usize = 64 << 10;
pub(super) const PAGE: usize = 4096;
pub(super) const HUGE_PAGE: usize = 2 << 20;

/// The pages of a region, without what is in them.
#[derive(Clone)]
pub(super) struct Pages(Arc<MmapRaw>);

impl Pages {
    pub(super) fn octets(&self) -> usize {
        self.0.len()
    }

    /// Where the first huge page begins that lies behind these first octets.
    pub(super) fn huge_page_after(&self, octets: usize) -> usize {
        let start = self.0.as_ptr().addr();
        (start + octets).next_multiple_of(HUGE_PAGE) - start
    }

    /// Where the huge page begins that the one behind these first octets lies in.
    pub(super) fn huge_page_before(&self, octets: usize) -> usize {
        octets.saturating_sub((self.0.as_ptr().addr() + octets) % HUGE_PAGE)
    }

    /// Has the kernel find memory for these octets before they are used; false if it does not do that.
    pub(super) fn make_ready(&self, octets: Range<usize>) -> bool {
        #[cfg(target_os = "linux")]
        return octets.end <= self.octets()
            && self.0.advise_range(Advice::PopulateWrite, octets.start, octets.len()).is_ok();
        #[cfg(not(target_os = "linux"))]
        {
            let _ = octets;
            false
        }
    }
}

/// Elements between one that is written for the first time and one that is asked for: entries of a page.
pub(super) const FRESH_AHEAD: usize = 64;

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
pub(crate) mod tests {
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

    /// How many of the pages that begin at this address are in memory.
    #[cfg(target_os = "linux")]
    pub(crate) fn resident(address: usize, pages: usize) -> usize {
        use std::io::{Read, Seek, SeekFrom};
        let mut pagemap = std::fs::File::open("/proc/self/pagemap").unwrap();
        pagemap.seek(SeekFrom::Start((address / PAGE * 8) as u64)).unwrap();
        let mut entries = vec![0; pages * 8];
        pagemap.read_exact(&mut entries).unwrap();
        // Bit 63 of each entry of eight octets.
        entries.iter().skip(7).step_by(8).filter(|octet| *octet & 0x80 != 0).count()
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn pages_made_ready_are_in_memory_and_what_is_cleared_is_not() {
        // Less than a huge page, so that it comes in small ones.
        let mut region: Region<u64> = Region::reserve(100 * PAGE / 8).unwrap();
        let address = region.as_slice().as_ptr().addr();
        region.as_mut_slice()[0] = 7;
        assert_eq!(resident(address, 100), 1);
        assert!(region.pages().make_ready(8 * PAGE..72 * PAGE));
        assert_eq!(resident(address, 100), 65);
        assert_eq!(resident(address + 8 * PAGE, 64), 64);
        region.as_mut_slice()[8 * PAGE / 8] = 7;
        region.clear(100 * PAGE / 8);
        assert_eq!(resident(address, 100), 0);
        assert!(region.as_slice().iter().all(|number| *number == 0));
        assert!(!region.pages().make_ready(99 * PAGE..101 * PAGE), "more than there is");
    }

    /// Whether the mapping that this address is in has a flag.
    #[cfg(target_os = "linux")]
    fn has(address: usize, flag: &str) -> bool {
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let holds = |line: &str| {
            let range = line.split_whitespace().next().and_then(|range| range.split_once('-'));
            let number = |hexadecimal| usize::from_str_radix(hexadecimal, 16).ok();
            range.is_some_and(|(start, end)| {
                number(start).is_some_and(|start| start <= address)
                    && number(end).is_some_and(|end| address < end)
            })
        };
        let mut flags =
            smaps.lines().skip_while(|line| !holds(line)).filter_map(|line| line.strip_prefix("VmFlags:"));
        flags.next().unwrap().split_whitespace().any(|one| one == flag)
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn an_array_goes_on_in_huge_pages_in_small_ones_and_in_huge_ones_again() {
        if !std::path::Path::new("/sys/kernel/mm/transparent_hugepage").exists() {
            return crate::needs::skip_even_in_ci("this kernel has no huge pages");
        }
        let mut region: Region<u64> = Region::reserve(8 * HUGE_PAGE / 8).unwrap();
        let start = region.as_slice().as_ptr().addr();
        let second = (start + 1).next_multiple_of(HUGE_PAGE);
        region.as_mut_slice()[0] = 7;
        region.use_huge_pages(1, true);
        assert!(!has(start, "hg"));
        assert!(has(second, "hg"));
        let third = second + HUGE_PAGE;
        region.use_huge_pages((second - start) / 8 + 1, false);
        assert!(has(second, "hg") && has(third, "nh"));
        region.use_huge_pages((second - start) / 8 + 1, true);
        assert!(has(third, "hg"));
        // Behind the last huge page there is nothing to be said.
        region.use_huge_pages(8 * HUGE_PAGE / 8, false);
        assert!(has(third, "hg"));
    }
}
