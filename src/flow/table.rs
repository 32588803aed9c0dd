//! The Flow table of one shard: batches of packets in, Flow Records out.
//!
//! Each packet goes through three steps, some packets apart: ask for its index line; probe the index and ask for the entry;
//! update. So the memory of many packets is on its way at once, while others are worked on. A group of packets takes each
//! step together, so that what a step needs stays in registers. Nothing is allocated per packet or per record once the
//! table is warm.
//!
//! What is in a record does not depend on how packets are cut into batches nor on when the table sweeps:
//! each packet is judged by the clock it carries, and a Flow that is swept late ended at its deadline all the same.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use ahash::RandomState;
use bytemuck::Zeroable;
use thiserror::Error;

use crate::decode::tcp_flags;
use crate::flow::entry::{AddressPair, FlowEntry, WideCounts};
use crate::flow::expiry::Deadlines;
use crate::flow::index::{Index, MOST_SLOTS};
use crate::flow::memory::{FRESH_AHEAD, HUGE_PAGE, Region, prefetch, prefetch_behind_to_write};
use crate::flow::observation::{GROUP, Observation, Seen};
use crate::flow::record::{FlowRecord, RecordSink, WriteRecord};
use crate::flow::upcoming::{Array, Progress, UpcomingMemory};
use crate::flow::wheel::{NO_TIMER, Place, Taken, Wheel};
use crate::flow::{EndReason, Observations, Timeouts};
use crate::time::Timestamp;

/// Packets between asking for a packet's index line and probing it, and between that and its update.
const AHEAD: usize = 32;
/// The same in groups.
const GROUPS_AHEAD: usize = AHEAD / GROUP;
const _: () = assert!(AHEAD.is_multiple_of(GROUP));
/// Entries in a huge page.
const ENTRIES_PER_PAGE: usize = HUGE_PAGE / size_of::<FlowEntry>();
/// A flood is over when so many packets have not filled a huge page of entries.
const CALM_AFTER: u64 = 64 * ENTRIES_PER_PAGE as u64;
const NO_SLOT: u32 = u32::MAX;
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
pub const MOST_FLOWS: usize = MOST_SLOTS;

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
fn holds(entries: &Region<FlowEntry>, pairs: &Region<AddressPair>, slot: u32, seen: Seen<'_>) -> bool {
    let slot = slot as usize;
    let entry = entries.as_slice().get(slot);
    entry.is_some_and(|entry| entry.is_flow_of(seen, || pairs.as_slice().get(slot)))
}

/// Why and when a Flow ended that a drain finds past its deadline, which few are.
#[cold]
#[inline(never)]
fn due(deadlines: Deadlines, first: u64, last: u64, closing: bool) -> (EndReason, Timestamp) {
    (deadlines.reason(first, last, closing), deadlines.deadline_timestamp(first, last, closing))
}

/// Counters that outgrew their octet, by slot.
type Wide = HashMap<u32, WideCounts, RandomState>;

/// A Flow that has ended for `reason` when the clock was `ended`, in its slot.
struct EndedFlow<'a> {
    entry: &'a FlowEntry,
    slot: u32,
    /// By slot; an IPv6 Flow has one.
    pairs: &'a [AddressPair],
    wide: &'a mut Wide,
    reason: EndReason,
    ended: Timestamp,
}

impl WriteRecord for EndedFlow<'_> {
    #[inline(always)]
    fn write(self, record: &mut FlowRecord) {
        let EndedFlow { entry, slot, pairs, wide, reason, ended } = self;
        entry.report(|| pairs[slot as usize], reason, ended, record);
        if entry.is_wide() {
            add_wide(wide, slot, record);
        }
    }
}

/// Adds to a record, and takes away, the counts of its slot that outgrew their octet.
#[cold]
#[inline(never)]
fn add_wide(wide: &mut Wide, slot: u32, record: &mut FlowRecord) {
    wide.remove(&slot).unwrap_or_default().add_to(record);
}

/// The live Flows of one shard.
pub struct FlowTable {
    deadlines: Deadlines,
    entries: Region<FlowEntry>,
    pairs: Region<AddressPair>,
    index: Index,
    wheel: Wheel,
    wide: Wide,
    /// Slots that were ever used.
    used: u32,
    /// Those of them that an IPv6 Flow was the first in.
    used_ipv6: u32,
    free: u32,
    max_flows: usize,
    evicted: u64,
    /// Packets of the batches before this one.
    metered: u64,
    /// The same when the last huge page of entries was begun.
    metered_before_page: u64,
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
        let failed = |source| TableError::Memory { max_flows, source };
        let deadlines = Deadlines::new(&options.timeouts);
        let table = FlowTable {
            deadlines,
            entries: Region::reserve(max_flows).map_err(failed)?,
            pairs: Region::reserve(max_flows).map_err(failed)?,
            index: Index::new(max_flows).map_err(failed)?,
            wheel: Wheel::new(deadlines.nearest_nanos().min(LONGEST_TURN_NANOS), max_flows)
                .map_err(failed)?,
            wide: HashMap::with_hasher(RandomState::new()),
            used: 0,
            used_ipv6: 0,
            free: NO_SLOT,
            max_flows,
            evicted: 0,
            metered: 0,
            metered_before_page: 0,
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
            + self.index.octets()
            + self.wheel.octets()
            + self.wide.capacity() * size_of::<(u32, WideCounts)>()
    }

    /// The memory that its next Flows will take, for another thread to make ready.
    pub fn upcoming(&self) -> UpcomingMemory {
        let arrays = [
            (self.entries.pages(), size_of::<FlowEntry>()),
            (self.pairs.pages(), size_of::<AddressPair>()),
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
        if self.is_flooded && self.metered - self.metered_before_page > CALM_AFTER {
            // The pages that are there become huge in the kernel's own time.
            self.is_flooded = false;
            self.use_huge_pages(0, true);
        }
        self.tell_progress();
    }

    /// Tells how far it has come, for its upcoming memory to be made ready.
    #[inline]
    fn tell_progress(&self) {
        let used = self.used as usize;
        if used < ENTRIES_PER_PAGE / 2 {
            return; // so few are not worth while
        }
        self.progress.set_used(Array::Entries, used * size_of::<FlowEntry>());
        // A page has 128 places of addresses: with fewer IPv6 Flows many pages are never touched.
        let pairs = if self.used_ipv6 as usize >= used / 64 { used } else { 0 };
        self.progress.set_used(Array::Pairs, pairs * size_of::<AddressPair>());
        self.progress.set_used(Array::Hashes, used * size_of::<u32>());
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
        let (entries, pairs, batch_pairs) = (self.entries.as_slice(), self.pairs.as_slice(), batch.pairs());
        for (number, (packet, candidate)) in group.iter().zip(candidates).enumerate() {
            let slot = self.index.candidate(packet.hash).unwrap_or(NO_SLOT);
            *candidate = slot;
            if slot != NO_SLOT {
                prefetch(entries, slot as usize);
            }
            if packet.is_ipv6() {
                prefetch(batch_pairs, nearer * GROUP + number);
                if slot != NO_SLOT {
                    prefetch(pairs, slot as usize);
                }
            }
        }
    }

    /// Adds a packet to the live Flow in `slot` if it is simply one more of that Flow; else does nothing and says so. What
    /// nearly every packet is.
    #[inline(always)]
    fn continues(&mut self, seen: Seen<'_>, slot: u32) -> bool {
        let slot = slot as usize;
        let Some(entry) = self.entries.as_mut_slice().get_mut(slot) else { return false };
        let packet = seen.packet;
        let (first, last, closing) = (entry.first, entry.last, entry.is_closing());
        if !entry.is_flow_of(seen, || self.pairs.as_slice().get(slot))
            || !self.deadlines.are_ahead(first, last, closing, packet.clock.nanos())
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
        if packet.is_ipv6() { self.begins_ipv6(batch, at) } else { self.begins(packet, None) }
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
        if self.free == NO_SLOT {
            let slot = self.used;
            if (slot as usize).is_multiple_of(ENTRIES_PER_PAGE)
                || !self.index.insert_plainly(packet.hash, slot)
            {
                return false;
            }
            self.used = slot + 1;
            self.used_ipv6 += u32::from(pair.is_some());
            self.ask_for_fresh(slot);
            self.begin_new(slot, packet, pair, NO_TIMER);
        } else {
            let slot = self.free;
            if !self.index.insert_plainly(packet.hash, slot) {
                return false;
            }
            let entry = &self.entries.as_slice()[slot as usize];
            let timer = entry.timer;
            self.free = entry.next_free();
            self.begin_new(slot, packet, pair, timer);
        }
        true
    }

    /// Begins a Flow that does not end at once, in a slot that was free.
    #[inline(always)]
    fn begin_new(&mut self, slot: u32, packet: &Observation, pair: Option<&AddressPair>, timer: Place) {
        if let Some(pair) = pair {
            self.pairs.as_mut_slice()[slot as usize] = *pair;
        }
        self.begin_timed(slot, packet, timer, false);
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
        let entry = &mut self.entries.as_mut_slice()[slot as usize];
        let closing = entry.is_closing();
        let deadline = self.deadlines.deadline(entry.first, entry.last, closing);
        let reused = closing && packet.tcp_flags & tcp_flags::SYN != 0;
        if deadline <= packet.clock.nanos() || reused || entry.is_full() {
            return self.restart(slot, packet, sink);
        }
        if entry.counts_are_full() {
            self.move_counts(slot);
        }
        let entry = &mut self.entries.as_mut_slice()[slot as usize];
        let nearer = entry.add(packet);
        let closed = entry.is_closing() && !closing;
        if closed && self.deadlines.ends_at_once() {
            self.end(slot, EndReason::End, packet.clock, sink);
        } else if closed || nearer {
            self.set_timer(slot);
        }
    }

    #[cold]
    #[inline(never)]
    fn move_counts(&mut self, slot: u32) {
        let wide = self.wide.entry(slot).or_default();
        self.entries.as_mut_slice()[slot as usize].move_counts(wide);
    }

    /// The live Flow in `slot` has ended before this packet, which begins the next one in the same slot.
    #[cold]
    #[inline(never)]
    fn restart(&mut self, slot: u32, packet: &Observation, sink: &mut impl RecordSink) {
        let entry = &self.entries.as_slice()[slot as usize];
        let (first, last, closing) = (entry.first, entry.last, entry.is_closing());
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
        let timer = entry.timer;
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
        let is_fresh = self.free == NO_SLOT;
        let slot = if is_fresh { self.used } else { self.free };
        let holds = |slot| holds(&self.entries, &self.pairs, slot, seen);
        match self.index.find_or_insert(hash, slot, holds) {
            Ok(None) => {}
            Ok(Some(slot)) => return Some(slot),
            Err(_) => {
                self.report_alone(seen, sink);
                return None;
            }
        }
        let timer = if is_fresh {
            if (slot as usize).is_multiple_of(ENTRIES_PER_PAGE) {
                self.begin_page();
            }
            self.used += 1;
            self.ask_for_fresh(slot);
            NO_TIMER
        } else {
            let entry = &self.entries.as_slice()[slot as usize];
            self.free = entry.next_free();
            entry.timer
        };
        if packet.is_ipv6() {
            self.pairs.as_mut_slice()[slot as usize] = seen.pair();
            self.used_ipv6 += u32::from(is_fresh);
        }
        self.begin_in(slot, packet, timer, sink);
        None
    }

    /// Asks for what will be written for the first time some Flows after the fresh one in `slot`: the processor's own look-ahead
    /// begins anew with each page.
    #[inline(always)]
    fn ask_for_fresh(&mut self, slot: u32) {
        prefetch_behind_to_write::<_, FRESH_AHEAD>(&mut self.entries.as_mut_slice()[slot as usize]);
        self.index.ask_for_fresh(slot);
    }

    /// The next slot begins as many entries as a huge page holds. Where most packets begin Flows, few of these will be looked
    /// up again.
    #[cold]
    #[inline(never)]
    fn begin_page(&mut self) {
        let packets = self.metered - std::mem::replace(&mut self.metered_before_page, self.metered);
        self.set_flooded(self.used > 0 && packets < 2 * ENTRIES_PER_PAGE as u64);
    }

    fn set_flooded(&mut self, flooded: bool) {
        if flooded != std::mem::replace(&mut self.is_flooded, flooded) {
            // The first few stay in small ones: a little traffic needs no more.
            self.use_huge_pages(self.used.max(1), !flooded);
        }
    }

    /// Whether the slots from this one on are to be in huge pages.
    fn use_huge_pages(&self, from: u32, huge: bool) {
        self.entries.use_huge_pages(from as usize, huge);
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

    /// Too many hashes crowd in one place of the index: the packet gets a record of its own rather than being counted nowhere.
    #[cold]
    #[inline(never)]
    fn report_alone(&mut self, seen: Seen<'_>, sink: &mut impl RecordSink) {
        let mut entry = FlowEntry::zeroed();
        entry.begin(seen.packet, NO_TIMER);
        let (reason, ended) = (EndReason::LackOfResources, seen.packet.clock);
        let pair = if entry.is_ipv6() { seen.pair() } else { AddressPair::zeroed() };
        sink.put(EndedFlow { entry: &entry, slot: 0, pairs: &[pair], wide: &mut self.wide, reason, ended });
        self.evicted += 1;
    }

    /// Begins a Flow in a slot that has its key already, and a timer at the place `timer`.
    #[inline(always)]
    fn begin_in(&mut self, slot: u32, packet: &Observation, timer: Place, sink: &mut impl RecordSink) {
        let closing = packet.tcp_flags & (tcp_flags::FIN | tcp_flags::RST) != 0;
        if closing && self.deadlines.ends_at_once() {
            self.entries.as_mut_slice()[slot as usize].begin(packet, timer);
            return self.end(slot, EndReason::End, packet.clock, sink);
        }
        self.begin_timed(slot, packet, timer, closing);
    }

    /// [`FlowTable::begin_in`] for a Flow that does not end at once; whether it is closing.
    #[inline(always)]
    fn begin_timed(&mut self, slot: u32, packet: &Observation, timer: Place, closing: bool) {
        let entry = &mut self.entries.as_mut_slice()[slot as usize];
        let tick = self.wheel.tick(packet.timestamp.nanos() + self.deadlines.of_one_packet(closing));
        if self.wheel.is_sooner(tick, timer) {
            entry.begin(packet, tick.place());
            self.wheel.insert(tick, slot);
        } else {
            entry.begin(packet, timer);
        }
    }

    /// Sees to it that the timer that counts comes up no later than the deadline.
    #[inline]
    fn set_timer(&mut self, slot: u32) {
        let entry = &mut self.entries.as_mut_slice()[slot as usize];
        let deadline = self.deadlines.deadline(entry.first, entry.last, entry.is_closing());
        let tick = self.wheel.tick(deadline);
        if self.wheel.is_sooner(tick, entry.timer) {
            entry.timer = tick.place();
            self.wheel.insert(tick, slot);
        }
    }

    /// Hands the record of a live Flow to the sink.
    #[inline(always)]
    fn report(&mut self, slot: u32, reason: EndReason, ended: Timestamp, sink: &mut impl RecordSink) {
        let entry = &self.entries.as_slice()[slot as usize];
        let pairs = self.pairs.as_slice();
        sink.put(EndedFlow { entry, slot, pairs, wide: &mut self.wide, reason, ended });
    }

    /// Ends a live Flow and frees its slot.
    #[inline(never)]
    fn end(&mut self, slot: u32, reason: EndReason, ended: Timestamp, sink: &mut impl RecordSink) {
        self.report(slot, reason, ended, sink);
        self.index.remove(slot);
        self.entries.as_mut_slice()[slot as usize].free(self.free);
        self.free = slot;
    }

    /// Ends the Flows whose deadline `clock` has reached, save those of the last ticks of the wheel.
    pub fn expire(&mut self, clock: Timestamp, sink: &mut impl RecordSink) {
        let mut taken = Taken::default();
        while let Some(place) = self.wheel.next_due(clock.nanos()) {
            self.wheel.take(place, &mut taken);
            let timers = taken.timers();
            for &slot in timers.iter().take(2 * AHEAD) {
                self.ask_for_entry(slot);
            }
            for &slot in timers.iter().take(AHEAD) {
                self.ask_for_bucket(slot, place);
            }
            for (at, &slot) in timers.iter().enumerate() {
                if let Some(&ahead) = timers.get(at + 2 * AHEAD) {
                    self.ask_for_entry(ahead);
                }
                if let Some(&ahead) = timers.get(at + AHEAD) {
                    self.ask_for_bucket(ahead, place);
                }
                self.timer_came_up(slot, place, clock, sink);
            }
        }
        if self.wheel.wants_cleaning(self.live()) {
            let entries = self.entries.as_mut_slice();
            self.wheel.clean(|place, taken| {
                for &slot in taken.timers() {
                    prefetch(entries, slot as usize);
                }
                taken.retain(|slot| {
                    let entry = &mut entries[slot as usize];
                    let counts = entry.timer == place && entry.is_live();
                    if entry.timer == place && !counts {
                        entry.timer = NO_TIMER;
                    }
                    counts
                });
            });
        }
    }

    /// Asks for what is known of a slot.
    #[inline(always)]
    fn ask_for_entry(&self, slot: u32) {
        prefetch(self.entries.as_slice(), slot as usize);
        self.index.prefetch_hash(slot);
    }

    /// Asks for what it takes to end the Flow in `slot`, whose timer comes up from `place`.
    #[inline(always)]
    fn ask_for_bucket(&self, slot: u32, place: Place) {
        let entry = &self.entries.as_slice()[slot as usize];
        if entry.is_live() && entry.timer == place {
            self.index.prefetch_bucket(slot);
            if entry.is_ipv6() {
                prefetch(self.pairs.as_slice(), slot as usize);
            }
        }
    }

    /// Whether the timer's Flow was still there and has now ended.
    #[inline]
    fn timer_came_up(
        &mut self,
        slot: u32,
        place: Place,
        clock: Timestamp,
        sink: &mut impl RecordSink,
    ) -> bool {
        let entry = &mut self.entries.as_mut_slice()[slot as usize];
        if entry.timer != place {
            return false; // a nearer timer took its place
        }
        entry.timer = NO_TIMER;
        if !entry.is_live() {
            return false;
        }
        let (first, last, closing) = (entry.first, entry.last, entry.is_closing());
        if self.deadlines.deadline(first, last, closing) > clock.nanos() {
            self.set_timer(slot);
            return false;
        }
        let reason = self.deadlines.reason(first, last, closing);
        self.end(slot, reason, self.deadlines.deadline_timestamp(first, last, closing), sink);
        true
    }

    /// Makes room for one Flow in a full table: ends those whose deadline has come or, if there are none, the one whose
    /// deadline is nearest, give or take a tick of the wheel.
    #[cold]
    #[inline(never)]
    fn make_room(&mut self, clock: Timestamp, sink: &mut impl RecordSink) {
        self.expire(clock, sink);
        while self.live() >= self.max_flows {
            // A live Flow always has a timer, so a full table has a soonest place.
            let Some(place) = self.wheel.soonest() else { return };
            let Some(slot) = self.wheel.take_one(place) else { return };
            if self.timer_came_up(slot, place, clock, sink) {
                return;
            }
            let entry = &mut self.entries.as_mut_slice()[slot as usize];
            if !entry.is_live() || entry.timer == NO_TIMER {
                continue;
            }
            let deadline = self.deadlines.deadline(entry.first, entry.last, entry.is_closing());
            if self.wheel.tick(deadline).place() == place {
                // Its deadline is the nearest. The timer that was just put back stays behind for the slot's next Flow.
                self.end(slot, EndReason::LackOfResources, clock, sink);
                self.evicted += 1;
            }
        }
    }

    /// Ends all Flows: those whose deadline `clock` has reached for their own reason, the others by force.
    // Apart, so that a batch that drains nothing has the registers to itself.
    #[inline(never)]
    pub fn drain(&mut self, clock: Timestamp, sink: &mut impl RecordSink) {
        // What comes next will be less, if anything.
        self.progress.reset();
        let deadlines = self.deadlines;
        let entries = &self.entries.as_slice()[..self.used as usize];
        let pairs = self.pairs.as_slice();
        for (slot, entry) in entries.iter().enumerate() {
            prefetch(entries, slot + AHEAD);
            if !entry.is_live() {
                continue;
            }
            let (first, last, closing) = (entry.first, entry.last, entry.is_closing());
            let (reason, ended) = if deadlines.deadline(first, last, closing) <= clock.nanos() {
                due(deadlines, first, last, closing)
            } else {
                (EndReason::Forced, clock)
            };
            let slot = slot as u32;
            sink.put(EndedFlow { entry, slot, pairs, wide: &mut self.wide, reason, ended });
        }
        self.used = 0;
        self.used_ipv6 = 0;
        self.set_flooded(false);
        self.free = NO_SLOT;
        self.wide.clear();
        self.wheel.restart(clock.nanos());
        self.index.clear();
    }
}

#[cfg(test)]
pub(crate) mod tests;
