//! How Flows begin: a packet that no live Flow was found for in; its entry out, in a slot that was free, with a timer and a
//! place in the index.
//!
//! Nearly all begin by [`FlowTable::begins_at`], a few steps that leave alone whatever takes more. What is left to
//! [`FlowTable::find_or_begin`] may need room made for it, end at once, or be of a Flow that is there after all. While most
//! packets begin Flows, those that fit begin with half an entry.

use super::{FlowTable, LINES_PER_PAGE, holds};
use crate::decode::tcp_flags;
use crate::flow::entry::{AddressPair, fits_short};
use crate::flow::memory::FRESH_AHEAD;
use crate::flow::observation::{Observation, Seen};
use crate::flow::record::RecordSink;
use crate::flow::slot::{NO_SLOT, SECOND, line};
use crate::flow::wheel::{NO_TIMER, Place};
use crate::flow::{EndReason, Observations};
use crate::prefetch::prefetch_behind_to_write;
use crate::time::Timestamp;

/// A slot for the next Flow.
#[derive(Clone, Copy)]
pub(super) struct Vacancy {
    pub(super) slot: u32,
    /// It was never used.
    is_fresh: bool,
}

impl FlowTable {
    /// Begins the Flow of a packet that no candidate was found for if it simply is a new Flow: the packet does not close it, no
    /// Flow with its tag has come since, and there is room as it is; else does nothing and says so. What nearly every packet is
    /// that begins a Flow.
    #[inline(always)]
    pub(super) fn begins_at(&mut self, batch: &Observations, packet: &Observation, at: usize) -> bool {
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
    pub(super) fn vacancy<const SHORT: bool>(&self) -> Vacancy {
        let free = if SHORT { self.free_short } else { self.free };
        if free != NO_SLOT {
            return Vacancy { slot: free, is_fresh: false };
        }
        Vacancy { slot: self.used, is_fresh: true }
    }

    /// Takes a vacant slot; gives the place of the timer that it has already.
    #[inline(always)]
    pub(super) fn take<const SHORT: bool>(&mut self, Vacancy { slot, is_fresh }: Vacancy) -> Place {
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

    /// Asks for what will be written for the first time some Flows after the fresh one in `slot`: the processor's own look-ahead
    /// begins anew with each page.
    #[inline(always)]
    fn ask_for_fresh(&mut self, slot: u32) {
        prefetch_behind_to_write::<_, FRESH_AHEAD>(self.entries.whole_mut(slot));
        self.index.ask_for_fresh(slot);
    }

    /// The slot of this packet's Flow; begins the Flow if there is none, or reports it alone, and gives nothing.
    #[inline(always)]
    pub(super) fn find_or_begin(&mut self, seen: Seen<'_>, sink: &mut impl RecordSink) -> Option<u32> {
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
    pub(super) fn begin_in(
        &mut self,
        slot: u32,
        packet: &Observation,
        timer: Place,
        sink: &mut impl RecordSink,
    ) {
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

    /// Sees whether most packets begin Flows: then few of those to come will be looked up again.
    #[cold]
    #[inline(never)]
    pub(super) fn look_for_flood(&mut self) {
        let packets = self.metered - std::mem::replace(&mut self.metered_before, self.metered);
        let begun = std::mem::take(&mut self.begun);
        self.set_flooded(self.used > 0 && packets < 2 * begun);
    }

    pub(super) fn set_flooded(&mut self, flooded: bool) {
        if flooded != std::mem::replace(&mut self.is_flooded, flooded) {
            // The first few stay in small ones: a little traffic needs no more.
            self.use_huge_pages(self.used.max(1), !flooded);
        }
    }
}
