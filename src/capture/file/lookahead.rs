//! Asking the processor for a file's octets before the kernel copies them.
//!
//! In: a file that is read from its beginning to its end. Out: where in memory the page cache holds what the next read
//! will give, so that its cache lines can be asked for while the frames of the last read are decoded; the copy then waits
//! for memory no more, which is most of what it costs.
//!
//! The mapping lends its addresses and is never read: the octets of a file that is cut off, replaced or overwritten
//! meanwhile are what `read` says they are, and a page that is no longer there is a line asked for in vain, no SIGBUS.
//! Reading from the mapping itself saves the copy too, some 3 to 5 ns more a frame of 80 octets, and was rejected for these two.
//! Where something of this is not to be had, the file is read as it would be without.

use std::fs::File;

use memmap2::{Mmap, MmapOptions};

/// Octets of an open file mapped at once: few mappings for a long file, and no more of it counted as this process's memory.
const WINDOW: usize = 4 << 20;
/// Windows begin at multiples of this, which is one of every page size there is.
const ALIGNMENT: u64 = 64 << 10;
/// Octets that one request brings.
const CACHE_LINE: usize = 64;

/// A window of a file, mapped.
#[derive(Default)]
pub(super) struct Lookahead {
    window: Option<(u64, Mmap)>,
    given_up: bool,
}

impl Lookahead {
    /// The address of the octet of `file` at `position`, where the `length` from there on are mapped; none if that cannot
    /// be done, as for the last octets of a file.
    pub fn address(&mut self, file: &File, position: u64, length: usize) -> Option<usize> {
        if self.given_up {
            return None;
        }
        let address = self.mapped(file, position, length);
        if address.is_none() {
            *self = Lookahead { window: None, given_up: true };
        }
        address
    }

    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    fn mapped(&mut self, file: &File, position: u64, length: usize) -> Option<usize> {
        let inside = |from: u64| usize::try_from(position.checked_sub(from)?).ok();
        let fits = |&at: &usize| at.checked_add(length).is_some_and(|end| end <= WINDOW);
        let kept = self.window.take().filter(|&(from, _)| inside(from).filter(fits).is_some());
        let (from, map) = match kept {
            Some(window) => window,
            None => {
                let from = position - position % ALIGNMENT;
                // SAFETY: whoever changes the file changes the mapped octets, which nothing here ever reads.
                (from, unsafe { MmapOptions::new().offset(from).len(WINDOW).map(file) }.ok()?)
            }
        };
        let at = inside(from).filter(fits)?;
        // A page that is not in the table of this process is not asked for either. Refused where the file ends before.
        map.advise_range(memmap2::Advice::PopulateRead, at, length).ok()?;
        let address = map.as_ptr().addr() + at;
        self.window = Some((from, map));
        Some(address)
    }

    #[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
    fn mapped(&mut self, _: &File, _: u64, _: usize) -> Option<usize> {
        None
    }
}

/// Asks for the cache lines that the `length` octets from `address` on lie in, wherever that is; those of the first
/// [`USUAL`] in any case.
#[inline(always)]
pub(super) fn ask_for(address: usize, length: usize) {
    ask_for_line(address);
    ask_for_line(address.wrapping_add(CACHE_LINE));
    if length > USUAL {
        ask_for_more(address, length);
    }
}

/// Two lines are asked for without a look at the length: of a frame cut to its headers there is no more.
const USUAL: usize = 2 * CACHE_LINE;

#[inline(never)]
fn ask_for_more(address: usize, length: usize) {
    for from in (USUAL..length).step_by(CACHE_LINE) {
        ask_for_line(address.wrapping_add(from));
    }
}

#[inline(always)]
fn ask_for_line(address: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: a prefetch reads nothing that the program could see and faults nowhere, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(std::ptr::without_provenance(address)) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

#[cfg(all(test, target_os = "linux", target_arch = "x86_64"))]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn the_address_is_that_of_the_octet_in_whichever_window_it_lies() {
        let mut file = tempfile::tempfile().expect("a temporary file");
        let octets: Vec<u8> = (0..9_000_000u32).map(|at| (at / 1_000) as u8).collect();
        file.write_all(&octets).expect("room for it");
        let mut lookahead = Lookahead::default();
        for position in (24..8_900_000).step_by(70_001) {
            let Some(address) = lookahead.address(&file, position, 65_536) else {
                // Before Linux 5.14, or on a file system that maps nothing.
                eprintln!("not tested: the mapping was refused");
                return;
            };
            let (from, map) = lookahead.window.as_ref().expect("mapped");
            assert_eq!(address, map.as_ptr().addr() + (position - from) as usize);
            assert_eq!(map[(position - from) as usize], octets[position as usize], "octet {position}");
        }
    }

    #[test]
    fn a_file_that_ends_before_is_no_longer_looked_ahead_in() {
        let mut file = tempfile::tempfile().expect("a temporary file");
        file.write_all(&[1; 300_000]).expect("room for it");
        let mut lookahead = Lookahead::default();
        let _ = lookahead.address(&file, 0, 65_536);
        file.set_len(100_000).expect("a file may be cut off");
        assert_eq!(lookahead.address(&file, 65_536, 65_536), None);
        assert!(lookahead.window.is_none());
        assert_eq!(lookahead.address(&file, 0, 1), None);
        ask_for(usize::MAX - 100, 1_000);
        ask_for(0, 1_000);
    }

    #[test]
    fn what_is_longer_than_a_window_is_not_mapped() {
        let file = tempfile::tempfile().expect("a temporary file");
        file.set_len(3 * WINDOW as u64).expect("a file may have holes");
        assert_eq!(Lookahead::default().address(&file, 0, WINDOW + 1), None);
    }
}
