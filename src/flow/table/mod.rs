//! The Flow table of one shard: batches of packets in, Flow Records out.
//!
//! Each packet goes through three steps, some packets apart: ask for its index line; probe the index and ask for the entry;
//! update. So the memory of many packets is on its way at once, while others are worked on. A group of packets takes the
//! second step together, so that what it needs stays in registers. The first is taken with the updates of others, packet by packet:
//! a processor fetches some twenty lines at once; asked for more together, it waits, and then updates with none under way.
//! Nothing is allocated per packet or per record once the table is warm. Where most packets begin Flows that no other
//! follows, as in a scan or a SYN flood, a Flow begins with half an entry (see the `entry` module).
//!
//! What is in a record does not depend on how packets are cut into batches nor on when the table sweeps:
//! each packet is judged by the clock it carries, and a Flow that is swept late ended at its deadline all the same.

mod beginning;
mod ending;

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use ahash::RandomState;
use thiserror::Error;

use crate::decode::tcp_flags;
use crate::flow::entry::{AddressPair, Entries, FlowEntry, WideCounts};
use crate::flow::expiry::Deadlines;
use crate::flow::index::Index;
use crate::flow::memory::{HUGE_PAGE, Region};
use crate::flow::observation::{GROUP, Observation, Seen};
use crate::flow::record::RecordSink;
use crate::flow::slot::{MOST_LINES, NO_SLOT, line};
use crate::flow::upcoming::{Array, Progress, UpcomingMemory};
use crate::flow::wheel::Wheel;
use crate::flow::{EndReason, Observations, Timeouts};
use crate::prefetch::prefetch;

/// Packets between asking for a packet's index line and probing it, and between that and its update, give or take a group.
const AHEAD: usize = 32;
/// The same in groups.
const GROUPS_AHEAD: usize = AHEAD / GROUP;
const _: () = assert!(AHEAD.is_multiple_of(GROUP));
/// Lines in a huge page of entries: of a whole entry each, or of two short ones.
const LINES_PER_PAGE: usize = HUGE_PAGE / size_of::<FlowEntry>();
/// A flood that fills no more huge pages of entries, for its Flows end as fast as they come, is looked at again after so many
/// packets.
const CALM_AFTER: u64 = 64 * LINES_PER_PAGE as u64;
/// A turn of the wheel is no longer than this, whatever the timeouts: a Flow then ends within a tenth of a second or two of
/// its deadline. Timers further ahead are put back when they come up.
const LONGEST_TURN_NANOS: u64 = 400_000_000_000;

/// The settings of one shard's table.
#[derive(Clone, Copy, Debug)]
pub struct TableOptions {
    /// The timeouts.
    pub timeouts: Timeouts,
    /// The most Flows that are live at once, at least 1.
    pub max_flows: usize,
}

/// Flows a meter holds at once unless told otherwise.
pub const DEFAULT_MAX_FLOWS: usize = 4_000_000;

/// The most Flows one table can be told to hold.
pub const MOST_FLOWS: usize = MOST_LINES / 3 * 2;
const _: () = assert!(lines_of(MOST_FLOWS) <= MOST_LINES);

/// The lines that a table of so many Flows may come to use. A line holds short entries or a whole one for good, and a fresh one is
/// taken when no slot of the kind is free: at worst the Flows of a flood fill as many short entries as there may be Flows, and
/// those of calmer days as many whole ones.
const fn lines_of(max_flows: usize) -> usize {
    max_flows + max_flows.div_ceil(2)
}

/// Why a table could not be made.
#[derive(Debug, Error)]
pub enum TableError {
    /// The kernel does not give the address space.
    #[error("--max-flows: reserving memory for {max_flows} flows")]
    Memory {
        /// The Flows asked for.
        max_flows: usize,
        /// The kernel's word.
        source: io::Error,
    },
}

/// Whether `slot` holds the Flow of this packet.
#[inline(always)]
fn holds(entries: &Entries, pairs: &Region<AddressPair>, slot: u32, seen: Seen<'_>) -> bool {
    line(slot) < entries.lines().len()
        && entries.head(slot).is_like(seen.packet)
        && (!seen.packet.is_ipv6() || pairs.as_slice()[line(slot)] == seen.pair())
}

/// Counters that outgrew their octet, by slot.
type Wide = HashMap<u32, WideCounts, RandomState>;

/// The live Flows of one shard.
pub struct FlowTable {
    deadlines: Deadlines,
    entries: Entries,
    pairs: Region<AddressPair>,
    index: Index,
    wheel: Wheel,
    wide: Wide,
    /// Lines that were ever used.
    used: u32,
    /// Those that hold short entries.
    used_short: u32,
    /// Those that an IPv6 Flow was the first in.
    used_ipv6: u32,
    /// The first free slot of a whole entry.
    free: u32,
    /// The first free slot of a short one, as the second of a fresh line is.
    free_short: u32,
    max_flows: usize,
    evicted: u64,
    /// Packets of the batches before this one.
    metered: u64,
    /// The same when it was last looked at whether most packets begin Flows.
    metered_before: u64,
    /// Flows that have begun since.
    begun: u64,
    /// Most packets begin Flows.
    is_flooded: bool,
    /// What others are told of it.
    progress: Arc<Progress>,
}

impl FlowTable {
    /// An empty table.
    ///
    /// # Errors
    /// When the kernel does not give the address space for so many Flows.
    pub fn new(options: &TableOptions) -> Result<FlowTable, TableError> {
        let max_flows = options.max_flows.clamp(1, MOST_FLOWS);
        let lines = lines_of(max_flows);
        let failed = |source| TableError::Memory { max_flows, source };
        let deadlines = Deadlines::new(&options.timeouts);
        let table = FlowTable {
            deadlines,
            entries: Entries::reserve(lines).map_err(failed)?,
            pairs: Region::reserve(lines).map_err(failed)?,
            index: Index::new(max_flows, lines).map_err(failed)?,
            wheel: Wheel::new(deadlines.nearest_nanos().min(LONGEST_TURN_NANOS), max_flows)
                .map_err(failed)?,
            wide: HashMap::with_hasher(RandomState::new()),
            used: 0,
            used_short: 0,
            used_ipv6: 0,
            free: NO_SLOT,
            free_short: NO_SLOT,
            max_flows,
            evicted: 0,
            metered: 0,
            metered_before: 0,
            begun: 0,
            is_flooded: false,
            progress: Arc::default(),
        };
        table.use_huge_pages(1, true);
        Ok(table)
    }

    /// Live Flows.
    pub fn live(&self) -> usize {
        self.index.live()
    }

    /// Flows that ended for want of room in the table.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Octets of memory that the table uses, as far as they grow with the Flows: entries and hashes ever used,
    /// index, timers.
    pub fn octets(&self) -> usize {
        self.used as usize * (size_of::<FlowEntry>() + size_of::<u32>())
            + self.used_short as usize * size_of::<u32>()
            + self.index.octets()
            + self.wheel.octets()
            + self.wide.capacity() * size_of::<(u32, WideCounts)>()
    }

    /// The memory that its next Flows will take, for another thread to make ready.
    pub fn upcoming(&self) -> UpcomingMemory {
        let arrays = [
            (self.entries.region().pages(), size_of::<FlowEntry>()),
            (self.pairs.pages(), size_of::<AddressPair>()),
            (self.index.hashes().pages(), size_of::<u32>()),
            (self.index.hashes().pages(), size_of::<u32>()),
            (self.wheel.pages(), Wheel::OCTETS_PER_FLOW),
        ];
        UpcomingMemory::new(Arc::clone(&self.progress), arrays, self.index.pages())
    }

    /// Meters a batch of packets, in order; the records of Flows that end go to `sink`.
    pub fn observe(&mut self, batch: &Observations, sink: &mut impl RecordSink) {
        debug_assert!(!batch.is_unhashed());
        let groups = batch.groups();
        // Of the groups that are between the second step and the third.
        let mut candidates = [[NO_SLOT; GROUP]; GROUPS_AHEAD];
        for ahead in 0..groups.len() + 2 * GROUPS_AHEAD {
            let candidates = &mut candidates[ahead % GROUPS_AHEAD];
            let asked = groups.get(ahead);
            let homes = self.index.homes_of(asked.into_iter().flatten().map(|packet| packet.hash));
            if let Some(group) = groups.get(ahead.wrapping_sub(2 * GROUPS_AHEAD)) {
                let first = (ahead - 2 * GROUPS_AHEAD) * GROUP;
                // Where none are left to ask for, these are once more, which spares each packet the question. The last group alone
                // may be short, and there none are left.
                let asked = asked.unwrap_or(group);
                let group = &group[..GROUP.min(batch.len() - first)];
                for (number, ((packet, &candidate), later)) in
                    group.iter().zip(&*candidates).zip(asked).enumerate()
                {
                    let at = first + number;
                    homes.prefetch(later.hash);
                    if !self.continues(Seen { packet, pairs: batch.pairs(), at }, candidate)
                        && (candidate != NO_SLOT || !self.begins_at(batch, packet, at))
                    {
                        self.observe_any(batch, at, candidate, sink);
                    }
                }
            } else if let Some(asked) = asked {
                asked.iter().for_each(|packet| homes.prefetch(packet.hash));
            }
            self.probe_group(batch, ahead, candidates);
        }
        self.metered += batch.len() as u64;
        if self.is_flooded && self.metered - self.metered_before > CALM_AFTER {
            self.look_for_flood();
            if !self.is_flooded {
                // The pages that are there become huge in the kernel's own time.
                self.use_huge_pages(0, true);
            }
        }
        self.tell_progress();
    }

    /// Tells how far it has come, for its upcoming memory to be made ready.
    #[inline]
    fn tell_progress(&self) {
        let used = self.used as usize;
        if used < LINES_PER_PAGE / 2 {
            return; // so few are not worth while
        }
        self.progress.set_used(Array::Entries, used * size_of::<FlowEntry>());
        // A page has 128 places of addresses: with fewer IPv6 Flows many pages are never touched.
        let pairs = if self.used_ipv6 as usize >= used / 64 { used } else { 0 };
        self.progress.set_used(Array::Pairs, pairs * size_of::<AddressPair>());
        self.progress.set_used(Array::Hashes, used * size_of::<u32>());
        let seconds = if self.is_flooded { self.entries.lines().len() + used } else { 0 };
        self.progress.set_used(Array::SecondHashes, seconds * size_of::<u32>());
        self.progress.set_used(Array::Timers, self.wheel.octets_used());
        self.progress.set_flooded(self.is_flooded);
        self.progress.set_growth(self.index.growth());
    }

    /// Finds the slots that the Flows of a group's packets are probably in, and asks for their entries: of the group
    /// [`GROUPS_AHEAD`] before the one numbered `ahead`, whose buckets were asked for then. And asks for the packets of a later one.
    ///
    /// A function of its own, for the sake of the registers: it is called once a group.
    #[inline(never)]
    fn probe_group(&self, batch: &Observations, ahead: usize, candidates: &mut [u32; GROUP]) {
        let groups = batch.groups();
        if let Some(group) = groups.get(ahead + GROUPS_AHEAD) {
            // The packets themselves may come from another core's cache.
            for one in 0..GROUP {
                prefetch(group, one);
            }
        }
        let nearer = ahead.wrapping_sub(GROUPS_AHEAD);
        let Some(group) = groups.get(nearer) else { return };
        let (entries, pairs, batch_pairs) = (self.entries.lines(), self.pairs.as_slice(), batch.pairs());
        for (number, (packet, candidate)) in group.iter().zip(candidates).enumerate() {
            let slot = self.index.candidate(packet.hash).unwrap_or(NO_SLOT);
            *candidate = slot;
            if slot != NO_SLOT {
                prefetch(entries, line(slot));
            }
            if packet.is_ipv6() {
                prefetch(batch_pairs, nearer * GROUP + number);
                if slot != NO_SLOT {
                    prefetch(pairs, line(slot));
                }
            }
        }
    }

    /// Adds a packet to the live Flow in `slot` if it is simply one more of that Flow, whose entry is whole; else does nothing
    /// and says so. What nearly every packet is.
    #[inline(always)]
    fn continues(&mut self, seen: Seen<'_>, slot: u32) -> bool {
        let Some(entry) = self.entries.get_whole_mut(slot) else { return false };
        let packet = seen.packet;
        if !entry.is_flow_of(seen, || self.pairs.as_slice().get(line(slot))) {
            return false;
        }
        let (first, last, closing) = (entry.head.first, entry.tail.last, entry.head.is_closing());
        if !self.deadlines.are_ahead(first, last, closing, packet.clock.nanos())
            || !entry.is_plain_next(packet)
        {
            return false;
        }
        entry.add_plain_next(packet);
        true
    }

    /// Meters any packet at all. A function of its own, so that what nearly every packet is has the registers to itself.
    #[inline(never)]
    fn observe_any(&mut self, batch: &Observations, at: usize, candidate: u32, sink: &mut impl RecordSink) {
        let seen = Seen::of(batch, at);
        let packet = seen.packet;
        let slot = if holds(&self.entries, &self.pairs, candidate, seen) {
            candidate
        } else {
            match self.find_or_begin(seen, sink) {
                Some(slot) => slot,
                None => return,
            }
        };
        let was_short = self.entries.head(slot).is_short();
        let slot = if was_short { self.expand(slot) } else { slot };
        let entry = self.entries.whole_mut(slot);
        let closing = entry.head.is_closing();
        let deadline = self.deadlines.deadline(entry.head.first, entry.tail.last, closing);
        let reused = closing && packet.tcp_flags & tcp_flags::SYN != 0;
        if deadline <= packet.clock.nanos() || reused || entry.is_full() {
            return self.restart(slot, packet, sink);
        }
        if entry.counts_are_full() {
            self.move_counts(slot);
        }
        let entry = self.entries.whole_mut(slot);
        let nearer = entry.add(packet);
        let closed = entry.head.is_closing() && !closing;
        if closed && self.deadlines.ends_at_once() {
            self.end(slot, EndReason::End, packet.clock, sink);
        } else if closed || nearer || was_short {
            let (first, last, closing) = (entry.head.first, entry.tail.last, entry.head.is_closing());
            let deadline = self.deadlines.deadline(first, last, closing);
            self.set_timer(slot, deadline);
        }
    }

    /// Moves the Flow in a short entry, which has one more packet, to a whole one; gives its slot, which may have no timer yet
    /// that comes up in time.
    ///
    /// Its tail beside, by slot, would have spared the move, but made each of its packets one that is not simply added.
    #[inline(never)]
    fn expand(&mut self, slot: u32) -> u32 {
        let vacancy = self.vacancy::<false>();
        let timer = self.take::<false>(vacancy);
        *self.entries.whole_mut(vacancy.slot) = self.entries.head(slot).whole(timer);
        self.index.replace(slot, vacancy.slot);
        self.free(slot, true);
        vacancy.slot
    }

    #[cold]
    #[inline(never)]
    fn move_counts(&mut self, slot: u32) {
        let wide = self.wide.entry(slot).or_default();
        self.entries.whole_mut(slot).move_counts(wide);
    }

    /// The live Flow in `slot`, a whole entry, has ended before this packet, which begins the next one in the same slot.
    #[cold]
    #[inline(never)]
    fn restart(&mut self, slot: u32, packet: &Observation, sink: &mut impl RecordSink) {
        let (first, last, closing) = self.entries.times(slot);
        let (reason, ended) = if self.deadlines.deadline(first, last, closing) <= packet.clock.nanos() {
            (
                self.deadlines.reason(first, last, closing),
                self.deadlines.deadline_timestamp(first, last, closing),
            )
        } else if closing && packet.tcp_flags & tcp_flags::SYN != 0 {
            (EndReason::End, packet.clock)
        } else {
            (EndReason::LackOfResources, packet.clock)
        };
        let timer = self.entries.head(slot).timer;
        self.report(slot, reason, ended, sink);
        self.begin_in(slot, packet, timer, sink);
    }

    /// Whether the lines from this one on are to be in huge pages.
    fn use_huge_pages(&self, from: u32, huge: bool) {
        self.entries.region().use_huge_pages(from as usize, huge);
        self.pairs.use_huge_pages(from as usize, huge);
        self.index.hashes().use_huge_pages(from as usize, huge);
    }

    /// Sees to it that the timer that counts comes up no later than the deadline, ns.
    #[inline]
    fn set_timer(&mut self, slot: u32, deadline: u64) {
        let tick = self.wheel.tick(deadline);
        let head = self.entries.head_mut(slot);
        if self.wheel.is_sooner(tick, head.timer) {
            head.timer = tick.place();
            self.wheel.insert(tick, slot);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
