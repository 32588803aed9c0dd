//! The Flow table of one shard: batches of packets in, Flow Records out.
//!
//! Each packet goes through three steps, some packets apart: ask for its index line; probe the index and ask for the entry;
//! update. So the memory of many packets is on its way at once, while others are worked on. A group of packets takes each
//! step together, so that what a step needs stays in registers. Nothing is allocated per packet or per record once the
//! table is warm. Where most packets begin Flows that no other follows, as in a scan or a SYN flood, a Flow begins with half
//! an entry (see the `entry` module).
//!
//! What is in a record does not depend on how packets are cut into batches nor on when the table sweeps:
//! each packet is judged by the clock it carries, and a Flow that is swept late ended at its deadline all the same.

mod ending;

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use ahash::RandomState;
use thiserror::Error;

use crate::decode::tcp_flags;
use crate::flow::entry::{AddressPair, Entries, FlowEntry, WideCounts, fits_short};
use crate::flow::expiry::Deadlines;
use crate::flow::index::Index;
use crate::flow::memory::{FRESH_AHEAD, HUGE_PAGE, Region};
use crate::flow::observation::{GROUP, Observation, Seen};
use crate::flow::record::RecordSink;
use crate::flow::slot::{MOST_LINES, NO_SLOT, SECOND, line};
use crate::flow::upcoming::{Array, Progress, UpcomingMemory};
use crate::flow::wheel::{NO_TIMER, Place, Wheel};
use crate::flow::{EndReason, Observations, Timeouts};
use crate::prefetch::{prefetch, prefetch_behind_to_write};
use crate::time::Timestamp;

/// Packets between asking for a packet's index line and probing it, and between that and its update.
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

/// A slot for the next Flow.
#[derive(Clone, Copy)]
struct Vacancy {
    slot: u32,
    /// It was never used.
    is_fresh: bool,
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
            if let Some(group) = groups.get(ahead.wrapping_sub(2 * GROUPS_AHEAD)) {
                let first = (ahead - 2 * GROUPS_AHEAD) * GROUP;
                let group = &group[..GROUP.min(batch.len() - first)];
                for (number, (packet, &candidate)) in group.iter().zip(&*candidates).enumerate() {
                    let at = first + number;
                    if !self.continues(Seen { packet, pairs: batch.pairs(), at }, candidate)
                        && (candidate != NO_SLOT || !self.begins_at(batch, packet, at))
                    {
                        self.observe_any(batch, at, candidate, sink);
                    }
                }
            }
            self.look_ahead(batch, ahead, candidates);
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

    /// Asks for the buckets that the look-ups of a group's packets begin at; and, some groups before it, finds the slots that
    /// the packets' Flows are probably in, and asks for their entries.
    ///
    /// A function of its own, for the sake of the registers: it is called once a group.
    #[inline(never)]
    fn look_ahead(&self, batch: &Observations, ahead: usize, candidates: &mut [u32; GROUP]) {
        let groups = batch.groups();
        if let Some(group) = groups.get(ahead + GROUPS_AHEAD) {
            // They may come from another core's cache.
            for one in 0..GROUP {
                prefetch(group, one);
            }
        }
        if let Some(group) = groups.get(ahead) {
            self.index.prefetch_all(group.iter().map(|packet| packet.hash));
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

    /// Begins the Flow of a packet that no candidate was found for if it simply is a new Flow: the packet does not close it, no
    /// Flow with its tag has come since, and there is room as it is; else does nothing and says so. What nearly every packet is
    /// that begins a Flow.
    #[inline(always)]
    fn begins_at(&mut self, batch: &Observations, packet: &Observation, at: usize) -> bool {
        if packet.is_ipv6() {
            self.begins_ipv6(batch, at)
        } else if self.is_flooded && self.is_short_enough(packet) {
            self.begins_short(packet)
        } else {
            self.begins(packet, None)
        }
    }

    /// [`FlowTable::begins_at`] over IPv6. Where the addresses are is worked out here, for the sake of the caller's registers.
    #[inline(never)]
    fn begins_ipv6(&mut self, batch: &Observations, at: usize) -> bool {
        let Seen { packet, pairs, .. } = Seen::of(batch, at);
        self.begins(packet, Some(&pairs[at]))
    }

    /// [`FlowTable::begins_at`] with the addresses, over IPv6. A function of its own, so that it has the registers to itself.
    #[inline(never)]
    fn begins(&mut self, packet: &Observation, pair: Option<&AddressPair>) -> bool {
        if packet.tcp_flags & (tcp_flags::FIN | tcp_flags::RST) != 0 {
            return false;
        }
        self.begins_in::<false>(packet, pair)
    }

    /// [`FlowTable::begins_at`] where a short entry will do.
    #[inline(never)]
    fn begins_short(&mut self, packet: &Observation) -> bool {
        self.begins_in::<true>(packet, None)
    }

    /// Whether a short entry will do for the Flow that this packet begins: it fits, and no whole one lies idle.
    #[inline(always)]
    fn is_short_enough(&self, packet: &Observation) -> bool {
        fits_short(packet) && (self.free_short != NO_SLOT || self.free == NO_SLOT)
    }

    /// [`FlowTable::begins`] in a short entry or a whole one.
    #[inline(always)]
    fn begins_in<const SHORT: bool>(&mut self, packet: &Observation, pair: Option<&AddressPair>) -> bool {
        let Vacancy { slot, is_fresh } = self.vacancy::<SHORT>();
        // Two ways, each with what it knows.
        if !is_fresh {
            return self.begins_in_vacant::<SHORT>(Vacancy { slot, is_fresh: false }, packet, pair);
        }
        !(slot as usize).is_multiple_of(LINES_PER_PAGE)
            && self.begins_in_vacant::<SHORT>(Vacancy { slot, is_fresh: true }, packet, pair)
    }

    #[inline(always)]
    fn begins_in_vacant<const SHORT: bool>(
        &mut self,
        vacancy: Vacancy,
        packet: &Observation,
        pair: Option<&AddressPair>,
    ) -> bool {
        let Vacancy { slot, is_fresh } = vacancy;
        if !self.index.insert_plainly(packet.hash, slot) {
            return false;
        }
        let timer = self.take::<SHORT>(vacancy);
        if let Some(pair) = pair {
            self.pairs.as_mut_slice()[line(slot)] = *pair;
            self.used_ipv6 += u32::from(is_fresh);
        }
        self.begin_timed::<SHORT>(slot, packet, timer, false);
        true
    }

    /// The slot of a short entry or of a whole one that would be taken next, if the table is not full.
    #[inline(always)]
    fn vacancy<const SHORT: bool>(&self) -> Vacancy {
        let free = if SHORT { self.free_short } else { self.free };
        if free != NO_SLOT {
            return Vacancy { slot: free, is_fresh: false };
        }
        Vacancy { slot: self.used, is_fresh: true }
    }

    /// Takes a vacant slot; gives the place of the timer that it has already.
    #[inline(always)]
    fn take<const SHORT: bool>(&mut self, Vacancy { slot, is_fresh }: Vacancy) -> Place {
        if !is_fresh {
            let head = self.entries.head(slot);
            let free = if SHORT { &mut self.free_short } else { &mut self.free };
            *free = head.next_free();
            return head.timer;
        }
        if (slot as usize).is_multiple_of(LINES_PER_PAGE) {
            self.look_for_flood();
        }
        self.used = slot + 1;
        self.ask_for_fresh(slot);
        if SHORT {
            self.used_short += 1;
            self.entries.head_mut(slot | SECOND).begin_free(self.free_short);
            self.free_short = slot | SECOND;
        }
        NO_TIMER
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

    /// Frees a slot, whose entry is short or not.
    #[inline(always)]
    fn free(&mut self, slot: u32, is_short: bool) {
        let free = if is_short { &mut self.free_short } else { &mut self.free };
        let next = std::mem::replace(free, slot);
        self.entries.head_mut(slot).free(next);
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

    /// The slot of this packet's Flow; begins the Flow if there is none, or reports it alone, and gives nothing.
    #[inline(always)]
    fn find_or_begin(&mut self, seen: Seen<'_>, sink: &mut impl RecordSink) -> Option<u32> {
        let packet = seen.packet;
        let hash = packet.hash;
        // Full, or empty: one branch for both.
        if self.live().wrapping_sub(1) >= self.max_flows - 1 {
            let holds = |slot| holds(&self.entries, &self.pairs, slot, seen);
            if let Some(slot) = self.index.find(hash, holds) {
                return Some(slot);
            }
            self.make_ready(packet.clock, sink);
        }
        if self.is_flooded && self.is_short_enough(packet) {
            self.find_or_begin_in::<true>(seen, sink)
        } else {
            self.find_or_begin_in::<false>(seen, sink)
        }
    }

    /// [`FlowTable::find_or_begin`] in a table that has room, in a short entry or a whole one.
    #[inline(always)]
    fn find_or_begin_in<const SHORT: bool>(
        &mut self,
        seen: Seen<'_>,
        sink: &mut impl RecordSink,
    ) -> Option<u32> {
        let packet = seen.packet;
        let vacancy = self.vacancy::<SHORT>();
        let Vacancy { slot, is_fresh } = vacancy;
        let holds = |slot| holds(&self.entries, &self.pairs, slot, seen);
        match self.index.find_or_insert(packet.hash, slot, holds) {
            Ok(None) => {}
            Ok(Some(slot)) => return Some(slot),
            Err(_) => {
                self.report_alone(seen, sink);
                return None;
            }
        }
        let timer = self.take::<SHORT>(vacancy);
        if SHORT {
            self.begin_timed::<true>(slot, packet, timer, false);
            return None;
        }
        if packet.is_ipv6() {
            self.pairs.as_mut_slice()[line(slot)] = seen.pair();
            self.used_ipv6 += u32::from(is_fresh);
        }
        self.begin_in(slot, packet, timer, sink);
        None
    }

    /// Asks for what will be written for the first time some Flows after the fresh one in `slot`: the processor's own look-ahead
    /// begins anew with each page.
    #[inline(always)]
    fn ask_for_fresh(&mut self, slot: u32) {
        prefetch_behind_to_write::<_, FRESH_AHEAD>(self.entries.whole_mut(slot));
        self.index.ask_for_fresh(slot);
    }

    /// Sees whether most packets begin Flows: then few of those to come will be looked up again.
    #[cold]
    #[inline(never)]
    fn look_for_flood(&mut self) {
        let packets = self.metered - std::mem::replace(&mut self.metered_before, self.metered);
        let begun = std::mem::take(&mut self.begun);
        self.set_flooded(self.used > 0 && packets < 2 * begun);
    }

    fn set_flooded(&mut self, flooded: bool) {
        if flooded != std::mem::replace(&mut self.is_flooded, flooded) {
            // The first few stay in small ones: a little traffic needs no more.
            self.use_huge_pages(self.used.max(1), !flooded);
        }
    }

    /// Whether the lines from this one on are to be in huge pages.
    fn use_huge_pages(&self, from: u32, huge: bool) {
        self.entries.region().use_huge_pages(from as usize, huge);
        self.pairs.use_huge_pages(from as usize, huge);
        self.index.hashes().use_huge_pages(from as usize, huge);
    }

    /// Makes a table that is full or empty ready for one more Flow.
    #[cold]
    #[inline(never)]
    fn make_ready(&mut self, clock: Timestamp, sink: &mut impl RecordSink) {
        if self.live() >= self.max_flows {
            self.make_room(clock, sink);
        }
        if self.live() == 0 && self.wheel.soonest().is_none() {
            self.wheel.restart(clock.nanos());
        }
    }

    /// Begins a Flow in a whole entry whose slot has a timer at the place `timer`.
    #[inline(always)]
    fn begin_in(&mut self, slot: u32, packet: &Observation, timer: Place, sink: &mut impl RecordSink) {
        let closing = packet.tcp_flags & (tcp_flags::FIN | tcp_flags::RST) != 0;
        if closing && self.deadlines.ends_at_once() {
            self.entries.whole_mut(slot).begin(packet, timer);
            return self.end(slot, EndReason::End, packet.clock, sink);
        }
        self.begin_timed::<false>(slot, packet, timer, closing);
    }

    /// [`FlowTable::begin_in`], or in a short entry, for a Flow that does not end at once; `closing` says whether it will soon.
    #[inline(always)]
    fn begin_timed<const SHORT: bool>(
        &mut self,
        slot: u32,
        packet: &Observation,
        timer: Place,
        closing: bool,
    ) {
        self.begun += 1;
        let tick = self.wheel.tick(packet.timestamp.nanos() + self.deadlines.of_one_packet(closing));
        let is_sooner = self.wheel.is_sooner(tick, timer);
        let timer = if is_sooner { tick.place() } else { timer };
        if SHORT {
            self.entries.head_mut(slot).begin(packet, timer);
        } else {
            self.entries.whole_mut(slot).begin(packet, timer);
        }
        if is_sooner {
            self.wheel.insert(tick, slot);
        }
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
