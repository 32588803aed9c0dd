//! How Flows end: when their timers come up, for want of room, or all at once; and their records.

use bytemuck::Zeroable;

use super::{AHEAD, FlowTable, Wide};
use crate::flow::EndReason;
use crate::flow::entry::{AddressPair, FlowEntry, Head};
use crate::flow::expiry::Deadlines;
use crate::flow::observation::Seen;
use crate::flow::record::{FlowRecord, RecordSink, WriteRecord};
use crate::flow::slot::{NO_SLOT, line};
use crate::flow::wheel::{NO_TIMER, Place, Taken};
use crate::prefetch::prefetch;
use crate::time::Timestamp;

/// Why and when a Flow ended that a drain finds past its deadline, which few are.
#[cold]
#[inline(never)]
fn due(deadlines: Deadlines, first: u64, last: u64, closing: bool) -> (EndReason, Timestamp) {
    (deadlines.reason(first, last, closing), deadlines.deadline_timestamp(first, last, closing))
}

/// A Flow that has ended for `reason` when the clock was `ended`, in its slot.
struct EndedFlow<'a> {
    entry: &'a FlowEntry,
    slot: u32,
    /// By line; an IPv6 Flow has one.
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
        if entry.head.is_wide() {
            add_wide(wide, slot, record);
        }
    }
}

/// The same of one in a short entry.
struct EndedShort<'a> {
    head: &'a Head,
    reason: EndReason,
    ended: Timestamp,
}

impl WriteRecord for EndedShort<'_> {
    #[inline(always)]
    fn write(self, record: &mut FlowRecord) {
        self.head.report_short(self.reason, self.ended, record);
    }
}

/// Adds to a record, and takes away, the counts of its slot that outgrew their octet.
#[cold]
#[inline(never)]
fn add_wide(wide: &mut Wide, slot: u32, record: &mut FlowRecord) {
    wide.remove(&slot).unwrap_or_default().add_to(record);
}

impl FlowTable {
    /// Hands the record of a live Flow to the sink.
    #[inline(always)]
    pub(super) fn report(
        &mut self,
        slot: u32,
        reason: EndReason,
        ended: Timestamp,
        sink: &mut impl RecordSink,
    ) {
        let head = self.entries.head(slot);
        if head.is_short() {
            return sink.put(EndedShort { head, reason, ended });
        }
        let (entry, pairs) = (self.entries.whole(slot), self.pairs.as_slice());
        sink.put(EndedFlow { entry, slot, pairs, wide: &mut self.wide, reason, ended });
    }

    /// Ends a live Flow and frees its slot.
    #[inline(never)]
    pub(super) fn end(&mut self, slot: u32, reason: EndReason, ended: Timestamp, sink: &mut impl RecordSink) {
        self.report(slot, reason, ended, sink);
        self.index.remove(slot);
        self.free(slot, self.entries.head(slot).is_short());
    }

    /// Frees a slot, whose entry is short or not.
    #[inline(always)]
    pub(super) fn free(&mut self, slot: u32, is_short: bool) {
        let free = if is_short { &mut self.free_short } else { &mut self.free };
        let next = std::mem::replace(free, slot);
        self.entries.head_mut(slot).free(next);
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
        self.wheel.ask_for_next();
        if self.wheel.wants_cleaning(self.live()) {
            let entries = &mut self.entries;
            self.wheel.clean(|place, taken| {
                for &slot in taken.timers() {
                    prefetch(entries.lines(), line(slot));
                }
                taken.retain(|slot| {
                    let head = entries.head_mut(slot);
                    let counts = head.timer == place && head.is_live();
                    if head.timer == place && !counts {
                        head.timer = NO_TIMER;
                    }
                    counts
                });
            });
        }
    }

    /// Asks for what is known of a slot.
    #[inline(always)]
    fn ask_for_entry(&self, slot: u32) {
        prefetch(self.entries.lines(), line(slot));
        self.index.prefetch_hash(slot);
    }

    /// Asks for what it takes to end the Flow in `slot`, whose timer comes up from `place`.
    #[inline(always)]
    fn ask_for_bucket(&self, slot: u32, place: Place) {
        let head = self.entries.head(slot);
        if head.is_live() && head.timer == place {
            self.index.prefetch_bucket(slot);
            if head.is_ipv6() {
                prefetch(self.pairs.as_slice(), line(slot));
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
        let head = self.entries.head_mut(slot);
        if head.timer != place {
            return false; // a nearer timer took its place
        }
        head.timer = NO_TIMER;
        if !head.is_live() {
            return false;
        }
        let (first, last, closing) = self.entries.times(slot);
        let deadline = self.deadlines.deadline(first, last, closing);
        if deadline > clock.nanos() {
            self.set_timer(slot, deadline);
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
    pub(super) fn make_room(&mut self, clock: Timestamp, sink: &mut impl RecordSink) {
        self.expire(clock, sink);
        while self.live() >= self.max_flows {
            // A live Flow always has a timer, so a full table has a soonest place.
            let Some(place) = self.wheel.soonest() else { return };
            let Some(slot) = self.wheel.take_one(place) else { return };
            if self.timer_came_up(slot, place, clock, sink) {
                return;
            }
            let head = self.entries.head(slot);
            if !head.is_live() || head.timer == NO_TIMER {
                continue;
            }
            let (first, last, closing) = self.entries.times(slot);
            let deadline = self.deadlines.deadline(first, last, closing);
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
        let end = |first, last, closing| {
            if deadlines.deadline(first, last, closing) <= clock.nanos() {
                due(deadlines, first, last, closing)
            } else {
                (EndReason::Forced, clock)
            }
        };
        let (lines, pairs) = (&self.entries.lines()[..self.used as usize], self.pairs.as_slice());
        for (slot, entry) in lines.iter().enumerate() {
            prefetch(lines, slot + AHEAD);
            if let Some(heads) = entry.short() {
                for head in heads.iter().filter(|head| head.is_live()) {
                    let (reason, ended) = end(head.first, head.first, false);
                    sink.put(EndedShort { head, reason, ended });
                }
            } else if entry.head.is_live() {
                let (reason, ended) = end(entry.head.first, entry.tail.last, entry.head.is_closing());
                let slot = slot as u32;
                sink.put(EndedFlow { entry, slot, pairs, wide: &mut self.wide, reason, ended });
            }
        }
        self.used = 0;
        self.used_short = 0;
        self.used_ipv6 = 0;
        self.set_flooded(false);
        (self.free, self.free_short) = (NO_SLOT, NO_SLOT);
        self.wide.clear();
        self.wheel.restart(clock.nanos());
        self.index.clear();
    }

    /// Too many hashes crowd in one place of the index: the packet gets a record of its own rather than being counted nowhere.
    #[cold]
    #[inline(never)]
    pub(super) fn report_alone(&mut self, seen: Seen<'_>, sink: &mut impl RecordSink) {
        let mut entry = FlowEntry::zeroed();
        entry.begin(seen.packet, NO_TIMER);
        let (reason, ended) = (EndReason::LackOfResources, seen.packet.clock);
        let pair = if entry.head.is_ipv6() { seen.pair() } else { AddressPair::zeroed() };
        sink.put(EndedFlow { entry: &entry, slot: 0, pairs: &[pair], wide: &mut self.wide, reason, ended });
        self.evicted += 1;
    }
}
