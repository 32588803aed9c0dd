//! Memory that a table will use next, made ready by a thread that would else wait for the table.
//!
//! In: how far the table has come, which it tells once a batch. Out: pages that the kernel has found and cleared before the
//! table writes to them. Finding one costs about what metering a packet costs, and many times that where the host of a virtual
//! machine has to find it first; so in a flood of new Flows the table's thread did little else.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::flow::memory::{HUGE_PAGE, PAGE, Pages};

/// Lines of entries that are made ready before they are used, in a flood, and as much of what goes with them.
const LINES_AHEAD: usize = 1 << 16;
/// Octets that are made ready at once: a tenth of a millisecond's work in small pages. A huge page comes whole with the first of
/// its octets, and takes twice to four times that.
const AT_ONCE: usize = 1 << 18;

/// The arrays of a table that are used from the front.
#[derive(Clone, Copy, Debug)]
pub(super) enum Array {
    /// The entries.
    Entries,
    /// The addresses of IPv6 Flows.
    Pairs,
    /// The hash of each slot, of those that are the first in their line or alone there.
    Hashes,
    /// The hash of each slot that is the second in its line, as there are in a flood.
    SecondHashes,
    /// The timers.
    Timers,
}

/// How many those are.
const ARRAYS: usize = 5;

/// How far a table has come.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Octets that were ever used of each [`Array`].
    used: [AtomicUsize; ARRAYS],
    /// Most packets begin Flows, and the arrays come in small pages.
    is_flooded: AtomicBool,
    growth_from: AtomicUsize,
    growth_to: AtomicUsize,
}

/// What an index grows into.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Growth {
    /// The first octet.
    pub from: usize,
    /// The one behind the last that has not been reached: it is used from the end down to the first.
    pub to: usize,
}

impl Progress {
    /// Tells how many octets of an array were ever used.
    #[inline]
    pub(super) fn set_used(&self, array: Array, octets: usize) {
        self.used[array as usize].store(octets, Ordering::Relaxed);
    }

    #[cfg(test)]
    pub(super) fn used(&self, array: Array) -> usize {
        self.used[array as usize].load(Ordering::Relaxed)
    }

    /// Tells whether most packets begin Flows.
    #[inline]
    pub(super) fn set_flooded(&self, flooded: bool) {
        self.is_flooded.store(flooded, Ordering::Relaxed);
    }

    /// Tells what the index grows into.
    #[inline]
    pub(super) fn set_growth(&self, growth: Option<Growth>) {
        let Growth { from, to } = growth.unwrap_or_default();
        self.growth_from.store(from, Ordering::Relaxed);
        self.growth_to.store(to, Ordering::Relaxed);
    }

    /// Tells that what comes next will be less, if anything.
    pub(super) fn reset(&self) {
        for used in &self.used {
            used.store(0, Ordering::Relaxed);
        }
        self.set_flooded(false);
        self.set_growth(None);
    }
}

/// Memory that a table will use next.
pub struct UpcomingMemory {
    progress: Arc<Progress>,
    arrays: [UpcomingArray; ARRAYS],
    index: Pages,
    /// Where the index grows to: octets from here on are ready.
    index_ready: usize,
    /// The kernel does not do that.
    is_refused: bool,
}

/// An array that is used from the front.
struct UpcomingArray {
    pages: Pages,
    /// Octets of it that are made ready before they are used, in a flood.
    ahead: usize,
    /// Octets that are ready.
    ready: usize,
}

impl UpcomingArray {
    /// What is to be made ready next, when so many octets were used; none for now.
    fn next(&self, used: usize, is_flooded: bool) -> Option<Range<usize>> {
        let (from, to) = if is_flooded {
            // Not the page that is being written to.
            (used.next_multiple_of(PAGE), used + self.ahead)
        } else {
            // The huge page behind the one that is being written to, once that is half full.
            let next = self.pages.huge_page_after(used);
            (next, if next < used + HUGE_PAGE / 2 { next + HUGE_PAGE } else { next })
        };
        let from = self.ready.max(from);
        let end = to.min(from + AT_ONCE).min(self.pages.octets());
        (used > 0 && from < end).then_some(from..end)
    }
}

impl UpcomingMemory {
    /// The memory of a table that tells its `progress`: its arrays, in the order of [`Array`], with the octets that a line of
    /// entries takes there, and its index.
    pub(super) fn new(
        progress: Arc<Progress>,
        arrays: [(Pages, usize); ARRAYS],
        index: Pages,
    ) -> UpcomingMemory {
        let arrays =
            arrays.map(|(pages, octets)| UpcomingArray { pages, ahead: LINES_AHEAD * octets, ready: 0 });
        UpcomingMemory { progress, arrays, index, index_ready: 0, is_refused: false }
    }

    /// Makes some of it ready, which takes a fraction of a millisecond, or some where a host is slow; false if nothing more is
    /// to be done for now.
    pub fn make_ready(&mut self) -> bool {
        !self.is_refused && (self.make_arrays_ready() || self.make_index_ready())
    }

    fn make_arrays_ready(&mut self) -> bool {
        let is_flooded = self.progress.is_flooded.load(Ordering::Relaxed);
        for (array, used) in self.arrays.iter_mut().zip(&self.progress.used) {
            if let Some(octets) = array.next(used.load(Ordering::Relaxed), is_flooded) {
                array.ready = octets.end;
                self.is_refused = !array.pages.make_ready(octets);
                return !self.is_refused;
            }
        }
        false
    }

    fn make_index_ready(&mut self) -> bool {
        let load = |octets: &AtomicUsize| octets.load(Ordering::Relaxed);
        let (from, to) = (load(&self.progress.growth_from), load(&self.progress.growth_to));
        if to <= from {
            self.index_ready = 0; // what was ready may have been given back
            return false;
        }
        // Not the huge page that is being written to.
        let reached = self.index.huge_page_before(to);
        if self.index_ready < from || self.index_ready > reached {
            self.index_ready = reached;
        }
        let start = self.index_ready.saturating_sub(HUGE_PAGE);
        if start < from {
            return false;
        }
        self.is_refused = !self.index.make_ready(start..self.index_ready);
        self.index_ready = start;
        !self.is_refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::memory::Region;

    const OCTETS: usize = 64 << 20;
    const ENTRY: usize = 64;
    /// Of entries.
    const AHEAD: usize = LINES_AHEAD * ENTRY;

    fn upcoming() -> (Arc<Progress>, UpcomingMemory) {
        let progress = Arc::<Progress>::default();
        let pages = || Region::<u64>::reserve(OCTETS / 8).unwrap().pages();
        let upcoming = UpcomingMemory::new(
            Arc::clone(&progress),
            [ENTRY, 32, 4, 4, 8].map(|octets| (pages(), octets)),
            pages(),
        );
        (progress, upcoming)
    }

    fn times(upcoming: &mut UpcomingMemory) -> usize {
        std::iter::from_fn(|| upcoming.make_ready().then_some(())).take(1000).count()
    }

    #[test]
    fn in_a_flood_an_array_is_made_ready_so_far_ahead_and_no_further() {
        let (progress, mut upcoming) = upcoming();
        progress.set_flooded(true);
        assert_eq!(times(&mut upcoming), 0, "none is used");
        progress.set_used(Array::Entries, 64);
        assert_eq!(times(&mut upcoming), AHEAD / AT_ONCE);
        assert_eq!(times(&mut upcoming), 0);
        progress.set_used(Array::Entries, 64 + 2 * AT_ONCE);
        progress.set_used(Array::Timers, 128);
        assert_eq!(times(&mut upcoming), 2 + AHEAD / 8 / AT_ONCE);
        // Used faster than made ready: what is in use is left alone.
        progress.set_used(Array::Entries, OCTETS / 2);
        assert_eq!(times(&mut upcoming), AHEAD / AT_ONCE);
        // And not beyond the end.
        progress.set_used(Array::Entries, OCTETS - PAGE);
        assert_eq!(times(&mut upcoming), 1);
        progress.set_used(Array::Entries, OCTETS - 1);
        assert_eq!(times(&mut upcoming), 0);
        assert!(!upcoming.is_refused);
    }

    #[test]
    fn else_it_is_the_next_huge_page_when_half_of_one_is_used() {
        let (progress, mut upcoming) = upcoming();
        let first = upcoming.arrays[Array::Pairs as usize].pages.huge_page_after(1);
        progress.set_used(Array::Pairs, first + HUGE_PAGE / 2);
        assert_eq!(times(&mut upcoming), 0);
        progress.set_used(Array::Pairs, first + HUGE_PAGE / 2 + 1);
        assert_eq!(times(&mut upcoming), HUGE_PAGE / AT_ONCE);
        assert_eq!(upcoming.arrays[Array::Pairs as usize].ready, first + 2 * HUGE_PAGE);
        progress.set_used(Array::Pairs, first + 3 * HUGE_PAGE / 2);
        assert_eq!(times(&mut upcoming), 0);
        progress.reset();
        assert_eq!(times(&mut upcoming), 0);
    }

    #[test]
    fn what_an_index_grows_into_is_made_ready_from_its_end() {
        let (progress, mut upcoming) = upcoming();
        let end = upcoming.index.huge_page_after(4 * HUGE_PAGE);
        let grows = |from: usize, to: usize| progress.set_growth(Some(Growth { from, to }));
        let from = end - 3 * HUGE_PAGE + 64;
        grows(from, end + 64);
        assert_eq!(times(&mut upcoming), 2, "neither the page in use nor the one with what was there before");
        assert_eq!(upcoming.index_ready, end - 2 * HUGE_PAGE);
        grows(from, end - 2 * HUGE_PAGE);
        assert_eq!(times(&mut upcoming), 0);
        // Once more, into twice as much.
        grows(end + 64, end + 4 * HUGE_PAGE);
        assert_eq!(times(&mut upcoming), 3);
        // All Flows have ended, and others follow.
        progress.set_growth(None);
        assert_eq!(times(&mut upcoming), 0);
        grows(from, end);
        assert_eq!(times(&mut upcoming), 2);
    }
}
