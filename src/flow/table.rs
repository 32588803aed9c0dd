//! The Flow table of one shard: batches of packets in, Flow Records out.
//!
//! Each packet goes through three steps, some packets apart: ask for its index line; probe the index and ask for the entry;
//! update. So the memory of many packets is on its way at once, while others are worked on. Nothing is allocated
//! per packet or per record once the table is warm.
//!
//! What is in a record does not depend on how packets are cut into batches nor on when the table sweeps:
//! each packet is judged by the clock it carries, and a Flow that is swept late ended at its deadline all the same.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use ahash::RandomState;
use bytemuck::Zeroable;
use thiserror::Error;

use crate::decode::{IpVersion, tcp_flags};
use crate::flow::entry::{AddressPair, FlowEntry, WideCounts};
use crate::flow::expiry::Deadlines;
use crate::flow::index::{Index, MOST_SLOTS};
use crate::flow::memory::{HUGE_PAGE, Region, prefetch};
use crate::flow::observation::{Observation, Seen};
use crate::flow::record::RecordSink;
use crate::flow::upcoming::{Progress, UpcomingMemory};
use crate::flow::wheel::{NO_TIMER, Place, Taken, Wheel};
use crate::flow::{EndReason, Observations, Timeouts};
use crate::time::Timestamp;

/// Packets between asking for a packet's index line and probing it, and between that and its update.
const AHEAD: usize = 32;
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

/// The live Flows of one shard.
pub struct FlowTable {
    deadlines: Deadlines,
    entries: Region<FlowEntry>,
    pairs: Region<AddressPair>,
    index: Index,
    wheel: Wheel,
    wide: HashMap<u32, WideCounts, RandomState>,
    live: usize,
    /// Slots that were ever used.
    used: u32,
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
            wheel: Wheel::new(deadlines.nearest_nanos().min(LONGEST_TURN_NANOS)),
            wide: HashMap::with_hasher(RandomState::new()),
            live: 0,
            used: 0,
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
        self.live
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
        let slots = vec![
            (size_of::<FlowEntry>(), self.entries.pages()),
            (size_of::<u32>(), self.index.hashes().pages()),
        ];
        UpcomingMemory::new(Arc::clone(&self.progress), slots, self.index.pages())
    }

    /// Meters a batch of packets, in order; the records of Flows that end go to `sink`.
    pub fn observe(&mut self, batch: &Observations, sink: &mut impl RecordSink) {
        debug_assert!(!batch.is_unhashed());
        let (packets, pairs) = (batch.packets(), batch.pairs());
        let mut candidates = [NO_SLOT; AHEAD];
        for packet in packets.iter().take(2 * AHEAD) {
            self.index.prefetch(packet.hash);
        }
        for (packet, candidate) in packets.iter().zip(&mut candidates) {
            *candidate = self.candidate(packet);
        }
        for (at, packet) in packets.iter().enumerate() {
            let candidate = candidates[at % AHEAD];
            // They may come from another core's cache.
            prefetch(packets, at + 3 * AHEAD);
            if let Some(ahead) = packets.get(at + 2 * AHEAD) {
                self.index.prefetch(ahead.hash);
            }
            if let Some(ahead) = packets.get(at + AHEAD) {
                candidates[at % AHEAD] = self.candidate(ahead);
                if ahead.ip_version == IpVersion::V6 {
                    prefetch(pairs, at + AHEAD);
                }
            }
            let seen = Seen { packet, pairs, at };
            if !self.continues(seen, candidate) {
                self.observe_any(seen, candidate, sink);
            }
        }
        self.metered += packets.len() as u64;
        if self.is_flooded && self.metered - self.metered_before_page > CALM_AFTER {
            // Those that are there become huge in the kernel's own time.
            self.set_flooded(false);
            self.use_huge_pages(0, true);
        }
        let used = if self.is_flooded { self.used } else { 0 };
        self.progress.set(used, self.index.growth());
    }

    /// The slot that this packet's Flow is probably in, and its entry asked for.
    #[inline(always)]
    fn candidate(&self, packet: &Observation) -> u32 {
        let Some(slot) = self.index.find(packet.hash, |_| true) else { return NO_SLOT };
        prefetch(self.entries.as_slice(), slot as usize);
        if packet.ip_version == IpVersion::V6 {
            prefetch(self.pairs.as_slice(), slot as usize);
        }
        slot
    }

    /// Adds a packet to the live Flow in `slot` if it is simply one more of that Flow; else does nothing and says so. What
    /// nearly every packet is.
    #[inline(always)]
    fn continues(&mut self, seen: Seen<'_>, slot: u32) -> bool {
        let slot = slot as usize;
        let Some(entry) = self.entries.as_mut_slice().get_mut(slot) else { return false };
        let packet = seen.packet;
        if !entry.is_flow_of(seen, || self.pairs.as_slice().get(slot)) || !entry.is_plain_next(packet) {
            return false;
        }
        if self.deadlines.deadline(entry.first, entry.last, entry.is_closing()) <= packet.clock.nanos() {
            return false;
        }
        entry.add(packet);
        true
    }

    /// Meters any packet at all.
    #[inline(always)]
    fn observe_any(&mut self, seen: Seen<'_>, candidate: u32, sink: &mut impl RecordSink) {
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
        if self.live.wrapping_sub(1) >= self.max_flows - 1 {
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
            NO_TIMER
        } else {
            let entry = &self.entries.as_slice()[slot as usize];
            self.free = entry.next_free();
            entry.timer
        };
        self.live += 1;
        if packet.ip_version == IpVersion::V6 {
            self.pairs.as_mut_slice()[slot as usize] = seen.pair();
        }
        self.begin_in(slot, packet, timer, sink);
        None
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
        if self.live >= self.max_flows {
            self.make_room(clock, sink);
        }
        if self.live == 0 && self.wheel.soonest().is_none() {
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
        sink.put(|record| entry.report(|| seen.pair(), reason, ended, record));
        self.evicted += 1;
    }

    /// Begins a Flow in a slot that has its key already, and a timer at the place `timer`.
    #[inline(always)]
    fn begin_in(&mut self, slot: u32, packet: &Observation, timer: Place, sink: &mut impl RecordSink) {
        let entry = &mut self.entries.as_mut_slice()[slot as usize];
        let closing = packet.tcp_flags & (tcp_flags::FIN | tcp_flags::RST) != 0;
        if closing && self.deadlines.ends_at_once() {
            entry.begin(packet, timer);
            return self.end(slot, EndReason::End, packet.clock, sink);
        }
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
    #[inline]
    fn report(&mut self, slot: u32, reason: EndReason, ended: Timestamp, sink: &mut impl RecordSink) {
        let entry = &self.entries.as_slice()[slot as usize];
        sink.put(|record| {
            entry.report(|| self.pairs.as_slice()[slot as usize], reason, ended, record);
            if entry.is_wide() {
                self.wide.remove(&slot).unwrap_or_default().add_to(record);
            }
        });
    }

    /// Ends a live Flow and frees its slot.
    #[inline]
    fn end(&mut self, slot: u32, reason: EndReason, ended: Timestamp, sink: &mut impl RecordSink) {
        self.report(slot, reason, ended, sink);
        self.index.remove(slot);
        self.entries.as_mut_slice()[slot as usize].free(self.free);
        self.free = slot;
        self.live -= 1;
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
        if self.wheel.wants_cleaning(self.live) {
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
        while self.live >= self.max_flows {
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
    pub fn drain(&mut self, clock: Timestamp, sink: &mut impl RecordSink) {
        // What comes next will be less, if anything.
        self.progress.set(0, None);
        for slot in 0..self.used {
            prefetch(self.entries.as_slice(), slot as usize + AHEAD);
            let entry = &self.entries.as_slice()[slot as usize];
            if !entry.is_live() {
                continue;
            }
            let (first, last, closing) = (entry.first, entry.last, entry.is_closing());
            if self.deadlines.deadline(first, last, closing) <= clock.nanos() {
                let ended = self.deadlines.deadline_timestamp(first, last, closing);
                self.report(slot, self.deadlines.reason(first, last, closing), ended, sink);
            } else {
                self.report(slot, EndReason::Forced, clock, sink);
            }
        }
        self.live = 0;
        self.used = 0;
        self.set_flooded(false);
        self.free = NO_SLOT;
        self.wide.clear();
        self.wheel.restart(clock.nanos());
        self.index.clear();
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::decode::{Fragment, Packet};
    use crate::flow::{ClockStep, FlowRecord, KeyHasher, ObservationClock};
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::time::Duration;

    const S: u64 = 1_000_000_000;

    /// A TCP packet of 40 octets between two numbered hosts.
    pub(crate) fn packet(nanos: u64, ip_version: IpVersion, source: u8, destination: u8) -> Packet {
        let address = |host: u8| {
            let mut address = [0; 16];
            match ip_version {
                IpVersion::V4 => address[..4].copy_from_slice(&[192, 0, 2, host]),
                IpVersion::V6 => (address[0], address[1], address[15]) = (0x20, 1, host),
            }
            address
        };
        Packet {
            timestamp: Timestamp::from_nanos(nanos),
            source: address(source),
            destination: address(destination),
            octets: 40,
            interface: 0,
            fragment_id: 0,
            source_port: 1000,
            destination_port: 80,
            tcp_flags: 0,
            vlan: 0,
            protocol: 6,
            tos: 0,
            ip_version,
            fragment: Fragment::Whole,
        }
    }

    /// Packets that each begin a Flow, numbered from `first`.
    fn flood(first: u32, packets: u32) -> Observations {
        let hasher = KeyHasher::with_seed(1);
        let mut batch = Observations::with_capacity(packets as usize);
        for number in first..first + packets {
            let mut packet = packet(S, IpVersion::V4, 1, 2);
            packet.source[..4].copy_from_slice(&number.to_be_bytes());
            batch.push(&packet, packet.timestamp, hasher.hash(&packet));
        }
        batch
    }

    #[test]
    fn a_flood_of_new_flows_asks_for_the_memory_of_the_next() {
        let options = TableOptions { timeouts: seconds(60, 15, 1), max_flows: 1 << 20 };
        let mut table = FlowTable::new(&options).unwrap();
        let mut upcoming = table.upcoming();
        let mut records = Vec::new();
        let mut sink = |record: FlowRecord| records.push(record);
        let (page, batch) = (ENTRIES_PER_PAGE as u32, 1024);
        let mut flows = 0;
        let mut fill = |table: &mut FlowTable, upto: u32, again: u32| {
            while flows < upto {
                for _ in 0..=again {
                    table.observe(&flood(flows, batch), &mut sink);
                }
                flows += batch;
            }
        };
        // Each Flow has three packets.
        fill(&mut table, 3 * page, 2);
        assert!(!table.is_flooded);
        while upcoming.make_ready() {} // the index, if it happens to grow
        // Each has one, and a huge page has been filled with such.
        fill(&mut table, 4 * page + batch, 0);
        assert!(table.is_flooded);
        assert!(upcoming.make_ready());
        fill(&mut table, 6 * page + batch, 2);
        assert!(!table.is_flooded);
        fill(&mut table, 8 * page + batch, 0);
        assert!(table.is_flooded);
        // No more of them, and it is over.
        let again = flood(0, 1024);
        for _ in 0..=CALM_AFTER / 1024 {
            table.observe(&again, &mut sink);
        }
        assert!(!table.is_flooded);
        table.drain(Timestamp::from_nanos(2 * S), &mut sink);
        assert_eq!(records.len() as u32, flows);
        assert_eq!(records.iter().map(|record| record.packets).sum::<u64>(), table.metered);
    }

    pub(crate) fn seconds(active: u64, idle: u64, linger: u64) -> Timeouts {
        Timeouts {
            active: Duration::from_secs(active),
            idle: Duration::from_secs(idle),
            linger: Duration::from_secs(linger),
        }
    }

    /// A table, its clock and hasher: packets in, records out.
    struct Bench {
        table: FlowTable,
        clock: ObservationClock,
        hasher: KeyHasher,
        records: Vec<FlowRecord>,
    }

    impl Bench {
        fn new(timeouts: Timeouts, max_flows: usize) -> Bench {
            Bench {
                table: FlowTable::new(&TableOptions { timeouts, max_flows }).unwrap(),
                clock: ObservationClock::new(timeouts.active),
                hasher: KeyHasher::with_seed(7),
                records: Vec::new(),
            }
        }

        fn observe(&mut self, packets: &[Packet], batch: usize) {
            let mut waiting = Observations::with_capacity(batch);
            for packet in packets {
                let clock = match self.clock.observe(packet.timestamp) {
                    ClockStep::At(clock) => clock,
                    ClockStep::Jumped { before, now } => {
                        self.table.observe(&waiting, &mut |r: FlowRecord| self.records.push(r));
                        waiting.clear();
                        self.table.drain(before, &mut |r: FlowRecord| self.records.push(r));
                        now
                    }
                };
                waiting.push(packet, clock, self.hasher.hash(packet));
                if waiting.len() >= batch {
                    self.table.observe(&waiting, &mut |r: FlowRecord| self.records.push(r));
                    self.table.expire(clock, &mut |r: FlowRecord| self.records.push(r));
                    waiting.clear();
                }
            }
            self.table.observe(&waiting, &mut |r: FlowRecord| self.records.push(r));
        }

        fn finish(mut self) -> Vec<FlowRecord> {
            self.table.drain(self.clock.now(), &mut |r: FlowRecord| self.records.push(r));
            self.records
        }
    }

    /// The metering rules once more, on a page, a packet at a time.
    pub(crate) fn plain_twin(packets: &[Packet], timeouts: &Timeouts) -> Vec<FlowRecord> {
        let (active, idle) = (timeouts.active.as_nanos() as u64, timeouts.idle.as_nanos() as u64);
        let linger = idle.min(timeouts.linger.as_nanos() as u64);
        type Key = (bool, [u8; 16], [u8; 16], u8, u16, u16);
        let mut flows: BTreeMap<Key, (FlowRecord, bool)> = BTreeMap::new();
        let mut records = Vec::new();
        let mut clock = 0;
        let ended = |flow: &(FlowRecord, bool), now: u64| {
            let quiet = flow.0.end.nanos() + if flow.1 { linger } else { idle };
            let old = flow.0.start.nanos() + active;
            if quiet.min(old) > now {
                None
            } else if quiet > old {
                Some(EndReason::Active)
            } else if flow.1 {
                Some(EndReason::End)
            } else {
                Some(EndReason::Idle)
            }
        };
        let mut report = |mut flow: (FlowRecord, bool), reason| {
            flow.0.end_reason = reason;
            records.push(flow.0);
        };
        for p in packets {
            let now = p.timestamp.nanos();
            if now + active < clock {
                for (_, flow) in std::mem::take(&mut flows) {
                    let reason = ended(&flow, clock).unwrap_or(EndReason::Forced);
                    report(flow, reason);
                }
                clock = now;
            }
            clock = clock.max(now);
            let v6 = p.ip_version == IpVersion::V6;
            let key = (v6, p.source, p.destination, p.protocol, p.source_port, p.destination_port);
            if let Some(flow) = flows.get(&key) {
                let reason = ended(flow, clock);
                if let Some(reason) = reason.or((flow.1 && p.tcp_flags & 2 != 0).then_some(EndReason::End)) {
                    report(flows.remove(&key).unwrap(), reason);
                }
            }
            let flow = flows.entry(key).or_insert_with(|| {
                let record = FlowRecord {
                    source: p.source,
                    destination: p.destination,
                    start: p.timestamp,
                    end: p.timestamp,
                    ended: Timestamp::EPOCH,
                    packets: 0,
                    octets: 0,
                    flag_counts: [0; 9],
                    interface: p.interface,
                    source_port: p.source_port,
                    destination_port: p.destination_port,
                    initial_flags: p.tcp_flags,
                    later_flags: 0,
                    vlan: p.vlan,
                    protocol: p.protocol,
                    tos: p.tos,
                    ip_version: p.ip_version,
                    end_reason: EndReason::Forced,
                };
                (record, false)
            });
            if flow.0.packets > 0 {
                flow.0.later_flags |= p.tcp_flags;
            }
            flow.0.packets += 1;
            flow.0.octets += u64::from(p.octets);
            flow.0.start = flow.0.start.min(p.timestamp);
            flow.0.end = flow.0.end.max(p.timestamp);
            for bit in 0..9 {
                flow.0.flag_counts[bit] += u32::from(p.tcp_flags >> bit & 1);
            }
            if p.tcp_flags & 5 != 0 {
                flow.1 = true;
                if linger == 0 {
                    report(flows.remove(&key).unwrap(), EndReason::End);
                }
            }
        }
        for (_, flow) in flows {
            let reason = ended(&flow, clock).unwrap_or(EndReason::Forced);
            report(flow, reason);
        }
        records
    }

    pub(crate) fn sorted(mut records: Vec<FlowRecord>) -> Vec<FlowRecord> {
        for record in &mut records {
            record.ended = Timestamp::EPOCH; // the twin does not say
        }
        records.sort_by_key(|r| format!("{r:?}"));
        records
    }

    /// Traffic between few hosts, with every flag, late packets, gaps longer than each timeout and clock jumps.
    pub(crate) fn traffic(seed: u64, count: usize) -> Vec<Packet> {
        let mut state = seed | 1;
        let mut random = |below: u64| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) % below
        };
        let mut now = 1_000_000 * S;
        let mut packets = Vec::new();
        for _ in 0..count {
            now += match random(400) {
                0 => 20 * S,
                1 => 70 * S,
                2 => 3 * S,
                3 => 15 * S,
                _ => random(S / 4),
            };
            if random(2000) == 0 {
                now -= 200 * S;
            }
            let late = if random(20) == 0 { random(10 * S) } else { 0 };
            let version = if random(4) == 0 { IpVersion::V6 } else { IpVersion::V4 };
            let mut p = packet(now - late, version, random(4) as u8, random(4) as u8);
            p.source_port = random(3) as u16;
            p.octets = 40 + random(1460) as u32;
            p.protocol = [6, 6, 17][random(3) as usize];
            p.vlan = random(3) as u16;
            p.tos = random(3) as u8;
            p.interface = random(2) as u32;
            if p.protocol == 6 {
                p.tcp_flags = [0x10, 0x18, 0x10, 0x02, 0x11, 0x04, 0x1c2, 0xfff][random(8) as usize];
                if random(3) > 0 {
                    p.tcp_flags &= !5;
                }
            }
            packets.push(p);
        }
        packets
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn records_are_those_of_the_plain_twin_whatever_the_batches(
            seed: u64,
            count in 1..3000usize,
            batch in 1..300usize,
            timeouts in prop::sample::select(vec![
                (60, 15, 1), (5, 1, 0), (1800, 300, 5), (60, 0, 1), (1, 60, 60), (10, 10, 10),
            ]),
        ) {
            let timeouts = seconds(timeouts.0, timeouts.1, timeouts.2);
            let packets = traffic(seed, count);
            let mut bench = Bench::new(timeouts, 10_000);
            bench.observe(&packets, batch);
            prop_assert_eq!(sorted(bench.finish()), sorted(plain_twin(&packets, &timeouts)));
        }

        #[test]
        fn a_small_table_counts_every_packet_and_never_holds_more_flows_than_allowed(
            seed: u64, max_flows in 1..9usize, linger in 0..2u64,
        ) {
            let packets = traffic(seed, 2000);
            let mut bench = Bench::new(seconds(60, 15, linger), max_flows);
            for batch in packets.chunks(50) {
                bench.observe(batch, 50);
                prop_assert!(bench.table.live() <= max_flows);
            }
            let evicted = bench.table.evicted();
            let records = bench.finish();
            prop_assert_eq!(records.iter().map(|r| r.packets).sum::<u64>(), 2000);
            prop_assert_eq!(records.iter().map(|r| r.octets).sum::<u64>(),
                packets.iter().map(|p| u64::from(p.octets)).sum::<u64>());
            let lacking = records.iter().filter(|r| r.end_reason == EndReason::LackOfResources).count();
            prop_assert_eq!(lacking as u64, evicted);
        }
    }

    #[test]
    fn a_flood_of_new_flows_pushes_out_itself_before_conversations_that_go_on() {
        let mut bench = Bench::new(seconds(600, 15, 1), 1000);
        let talk = |nanos| packet(nanos, IpVersion::V4, 200, 201);
        bench.observe(&[talk(0)], 1);
        let mut packets = Vec::new();
        for i in 0..200_000u64 {
            let nanos = i * S / 10_000;
            let mut one = packet(nanos, IpVersion::V4, i as u8, 1);
            one.source_port = (i >> 8) as u16;
            packets.push(one);
            if i % 500 == 0 {
                packets.push(talk(nanos));
            }
        }
        bench.observe(&packets, 256);
        assert!(bench.table.evicted() > 100_000);
        let records = bench.finish();
        let talk: Vec<_> = records.iter().filter(|r| r.source[3] == 200 && r.destination[3] == 201).collect();
        assert_eq!(talk.len(), 1, "the conversation was cut");
        assert_eq!(talk[0].packets, 401);
    }

    #[test]
    fn a_counter_that_would_wrap_ends_the_record() {
        let mut bench = Bench::new(seconds(60, 15, 1), 10);
        let one = packet(S, IpVersion::V6, 1, 2);
        bench.observe(&[one], 1);
        bench.table.entries.as_mut_slice()[0].fill_up();
        bench.observe(&[one, one, one], 1);
        let records = bench.finish();
        let reasons: Vec<_> = records.iter().map(|r| (r.packets, r.end_reason)).collect();
        let full = u64::from(u32::MAX);
        assert_eq!(reasons, [(full, EndReason::LackOfResources), (2, EndReason::Forced)]);
    }

    #[test]
    fn timers_and_slots_do_not_pile_up_when_flows_come_and_go() {
        let mut bench = Bench::new(seconds(60, 15, 0), 1000);
        for round in 0..2000u64 {
            let packets: Vec<Packet> = (0..100)
                .map(|i| {
                    let mut p = packet(round * S / 1000, IpVersion::V4, i, (round % 256) as u8);
                    p.tcp_flags = if i % 2 == 0 { 4 } else { 0x11 };
                    p
                })
                .collect();
            bench.observe(&packets, 100);
        }
        assert!(bench.table.used <= 1, "{}", bench.table.used);
        assert_eq!(bench.records.len(), 200_000);
        assert!(bench.table.octets() < 1 << 20, "{}", bench.table.octets());
    }

    #[test]
    fn flows_that_reset_together_leave_no_timers_to_be_cleaned_again_and_again() {
        let mut bench = Bench::new(seconds(60, 15, 0), 200_000);
        let of = |number: u32, flags: u16| {
            let mut p = packet(S, IpVersion::V4, (number % 250) as u8, 1);
            (p.source_port, p.destination_port) = ((number / 250) as u16, 80);
            p.tcp_flags = flags;
            p
        };
        let (open, reset): (Vec<_>, Vec<_>) = (0..150_000).map(|n| (of(n, 2), of(n, 4))).unzip();
        bench.observe(&open, 1024);
        bench.observe(&reset, 1024);
        assert_eq!((bench.table.live(), bench.records.len()), (0, 150_000));
        assert!(!bench.table.wheel.wants_cleaning(bench.table.live), "cleaned, and nothing went");
    }

    #[test]
    fn a_long_idle_timeout_does_not_make_the_active_one_late() {
        let mut bench = Bench::new(seconds(60, 86_400, 1), 10);
        bench.observe(&[packet(S, IpVersion::V4, 1, 2)], 1);
        bench.table.expire(Timestamp::from_nanos(61 * S + S / 4), &mut |r: FlowRecord| bench.records.push(r));
        assert_eq!(bench.records.len(), 1);
        assert_eq!(bench.records[0].end_reason, EndReason::Active);
    }

    #[test]
    fn closing_flows_leave_no_heap_of_stale_timers() {
        let mut bench = Bench::new(seconds(3600, 1800, 1), 100_000);
        for round in 0..100u64 {
            let packets: Vec<Packet> = (0..=255u8)
                .flat_map(|i| {
                    let mut p = packet(round * 2 * S, IpVersion::V4, i, 1);
                    p.tcp_flags = 0x10;
                    let mut fin = p;
                    fin.tcp_flags = 0x11;
                    (0..10u16).flat_map(move |port| {
                        [p, fin].map(|mut p| {
                            p.source_port = port;
                            p
                        })
                    })
                })
                .collect();
            bench.observe(&packets, 1000);
        }
        assert_eq!(bench.table.live(), 2560);
        assert!(bench.table.octets() < 2 << 20, "{}", bench.table.octets());
    }
}
