//! Memory that a table will use next, made ready by a thread that would else wait for the table.
//!
//! In: how far the table has come, which it tells once a batch. Out: pages that the kernel has found and cleared before the
//! table writes to them. Finding one costs about what metering a packet costs, and many times that where the host of a virtual
//! machine has to find it first; so in a flood of new Flows the table's thread did little else.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::flow::memory::{HUGE_PAGE, PAGE, Pages};

/// Slots that are made ready before they are used.
const SLOTS_AHEAD: usize = 1 << 16;
/// Slots that are made ready at once: a tenth of a millisecond's work.
const SLOTS_AT_ONCE: usize = 1 << 12;

/// How far a table has come.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Slots that were ever used; 0 where no flood asks for more.
    used: AtomicU64,
    growth_from: AtomicU64,
    growth_to: AtomicU64,
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
    /// Tells how far the table has come.
    #[inline]
    pub(super) fn set(&self, used: u32, growth: Option<Growth>) {
        let Growth { from, to } = growth.unwrap_or_default();
        self.used.store(u64::from(used), Ordering::Relaxed);
        self.growth_from.store(from as u64, Ordering::Relaxed);
        self.growth_to.store(to as u64, Ordering::Relaxed);
    }
}

/// Memory that a table will use next.
pub struct UpcomingMemory {
    progress: Arc<Progress>,
    /// Arrays with a place for each slot, and the octets of one.
    slots: Vec<(usize, Pages)>,
    /// Slots whose places are ready.
    ready: usize,
    index: Pages,
    /// Where the index grows to: octets from here on are ready.
    index_ready: usize,
    /// The kernel does not do that.
    is_refused: bool,
}

impl UpcomingMemory {
    pub(super) fn new(progress: Arc<Progress>, slots: Vec<(usize, Pages)>, index: Pages) -> UpcomingMemory {
        UpcomingMemory { progress, slots, ready: 0, index, index_ready: 0, is_refused: false }
    }

    /// Makes some of it ready, which takes a fraction of a millisecond, or some where a host is slow; false if nothing more is to be
    /// done for now.
    pub fn make_ready(&mut self) -> bool {
        !self.is_refused && (self.make_slots_ready() || self.make_index_ready())
    }

    fn make_slots_ready(&mut self) -> bool {
        let used = self.progress.used.load(Ordering::Relaxed) as usize;
        if used == 0 || self.ready >= used + SLOTS_AHEAD {
            return false;
        }
        let from = self.ready.max(used);
        self.ready = from + SLOTS_AT_ONCE;
        for (octets, pages) in &self.slots {
            // Not the page that is being written to, and not more than there is.
            let end = (self.ready * octets).next_multiple_of(PAGE).min(pages.octets());
            let start = (from * octets).next_multiple_of(PAGE);
            if start < end && !pages.make_ready(start..end) {
                self.is_refused = true;
            }
        }
        !self.is_refused
    }

    fn make_index_ready(&mut self) -> bool {
        let load = |octets: &AtomicU64| octets.load(Ordering::Relaxed) as usize;
        let (from, to) = (load(&self.progress.growth_from), load(&self.progress.growth_to));
        if to <= from {
            return false;
        }
        // Not the huge page that is being written to.
        let reached = to / HUGE_PAGE * HUGE_PAGE;
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

    const SLOTS: usize = 1 << 20;

    fn upcoming() -> (Arc<Progress>, UpcomingMemory) {
        let progress = Arc::<Progress>::default();
        let pages = Region::<u64>::reserve(SLOTS).unwrap().pages();
        let index = Region::<u64>::reserve(2 * SLOTS).unwrap().pages();
        (Arc::clone(&progress), UpcomingMemory::new(progress, vec![(8, pages)], index))
    }

    fn times(upcoming: &mut UpcomingMemory) -> usize {
        std::iter::from_fn(|| upcoming.make_ready().then_some(())).take(1000).count()
    }

    #[test]
    fn slots_are_made_ready_so_far_ahead_and_no_further() {
        let (progress, mut upcoming) = upcoming();
        assert_eq!(times(&mut upcoming), 0, "none is used");
        progress.set(1000, None);
        assert_eq!(times(&mut upcoming), SLOTS_AHEAD / SLOTS_AT_ONCE);
        assert_eq!(times(&mut upcoming), 0);
        progress.set(1000 + 2 * SLOTS_AT_ONCE as u32, None);
        assert_eq!(times(&mut upcoming), 2);
        // Used faster than made ready: what is in use is left alone.
        progress.set(SLOTS as u32 / 2, None);
        assert_eq!(times(&mut upcoming), SLOTS_AHEAD / SLOTS_AT_ONCE);
        // And not beyond the end.
        progress.set(SLOTS as u32 - 1, None);
        times(&mut upcoming);
        assert!(!upcoming.is_refused);
    }

    #[test]
    fn what_an_index_grows_into_is_made_ready_from_its_end() {
        let (progress, mut upcoming) = upcoming();
        let at = |to| Some(Growth { from: HUGE_PAGE + 64, to });
        progress.set(0, at(4 * HUGE_PAGE - 64));
        assert_eq!(times(&mut upcoming), 1, "neither the page in use nor the one with what was there before");
        assert_eq!(upcoming.index_ready, 2 * HUGE_PAGE);
        progress.set(0, at(2 * HUGE_PAGE));
        assert_eq!(times(&mut upcoming), 0);
        progress.set(0, None);
        assert_eq!(times(&mut upcoming), 0);
        // Once more, into twice as much.
        progress.set(0, Some(Growth { from: 4 * HUGE_PAGE + 64, to: 8 * HUGE_PAGE }));
        assert_eq!(times(&mut upcoming), 3);
    }
}
