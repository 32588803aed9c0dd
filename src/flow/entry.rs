//! A live Flow: its counters, and what one packet adds to them (RFC 7011 §2; tcpControlBits as RFC 9565 asks).
//!
//! An entry is one cache line. IPv4 addresses are in it; those of an IPv6 Flow stand beside it in an array of
//! [`AddressPair`]s that stays untouched (and so costs no memory) where there is no IPv6.

use bytemuck::{Pod, Zeroable};

use crate::decode::{IpVersion, tcp_flags, widened};
use crate::flow::EndReason;
use crate::flow::key::FlowKey;
use crate::flow::observation::{Observation, Seen};
use crate::flow::record::{FLAG_COUNTS, FlowRecord};
use crate::flow::wheel::Place;
use crate::time::Timestamp;

/// Source and destination address of an IPv6 Flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C, align(32))]
pub(super) struct AddressPair {
    pub(super) source: [u8; 16],
    pub(super) destination: [u8; 16],
}

/// Counters of one entry that outgrew their octet.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct WideCounts([u32; FLAG_COUNTS]);

impl WideCounts {
    /// Adds them to those of the record of the same Flow.
    pub(super) fn add_to(&self, record: &mut FlowRecord) {
        for (count, more) in record.flag_counts.iter_mut().zip(self.0) {
            *count += more;
        }
    }
}

/// A live Flow, or a free slot.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C, align(64))]
pub(super) struct FlowEntry {
    /// With the bits of the entry's own state; the source of a free slot is the next free slot.
    key: FlowKey,
    /// Smallest packet timestamp, ns.
    pub(super) first: u64,
    /// Largest packet timestamp, ns.
    pub(super) last: u64,
    octets: u64,
    /// Eight counts of an octet each: FIN in the lowest … CWR in the highest. What passes 127 moves to
    /// the table's [`WideCounts`]; one addition and one test a packet serve all eight.
    flag_counts: u64,
    packets: u32,
    interface: u32,
    // In a record's order, so that both are copied at once.
    later_flags: u16,
    initial_flags: u16,
    /// Where on the wheel the timer that counts is; [`NO_TIMER`](crate::flow::wheel::NO_TIMER) for none. A free slot keeps
    /// it; in one that was never used it means nothing.
    pub(super) timer: u16,
    tos: u8,
    ae_count: u8,
}

/// In the state: a FIN or a RST was seen.
const CLOSING: u8 = 1;
/// In the state: some flag counts stand in the table's [`WideCounts`].
const WIDE: u8 = 2;

/// For each value of the flags' low octet, a one in the octet of each flag that is set.
static SPREAD: [u64; 256] = spread();

const fn spread() -> [u64; 256] {
    let mut table = [0; 256];
    let mut flags = 0;
    while flags < 256 {
        let mut bit = 0;
        while bit < 8 {
            table[flags] |= ((flags as u64 >> bit) & 1) << (8 * bit);
            bit += 1;
        }
        flags += 1;
    }
    table
}

const OUTGROWN: u64 = 0x8080_8080_8080_8080;

impl FlowEntry {
    #[inline]
    pub(super) fn is_live(&self) -> bool {
        self.key.is_live()
    }

    #[inline]
    pub(super) fn is_closing(&self) -> bool {
        self.key.state & CLOSING != 0
    }

    #[inline]
    pub(super) fn is_wide(&self) -> bool {
        self.key.state & WIDE != 0
    }

    #[inline]
    pub(super) fn is_ipv6(&self) -> bool {
        self.key.is_ipv6()
    }

    /// Whether no more packets fit into the counters.
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        // Octets cannot be full before packets: 2³²−1 packets of at most 2³²−1 octets fit 64 bits.
        self.packets == u32::MAX
    }

    /// Whether this is the live Flow of a packet; `pair` gives the address pair beside it, and is asked over IPv6 alone, as
    /// [`Seen::pair`] is.
    #[inline(always)]
    pub(super) fn is_flow_of<'a>(
        &self,
        seen: Seen<'_>,
        pair: impl FnOnce() -> Option<&'a AddressPair>,
    ) -> bool {
        let packet = seen.packet;
        self.key.is_like(&packet.key)
            && (!packet.is_ipv6() || pair().is_some_and(|pair| *pair == seen.pair()))
    }

    /// Begins a Flow in this slot with its first packet and the place of its timer, whatever is in the slot. The caller
    /// looks after the pair.
    #[inline(always)]
    pub(super) fn begin(&mut self, packet: &Observation, timer: Place) {
        let nanos = packet.timestamp.nanos();
        let flags = packet.tcp_flags;
        *self = FlowEntry {
            key: packet.key,
            first: nanos,
            last: nanos,
            octets: u64::from(packet.octets),
            flag_counts: SPREAD[usize::from(flags & 0xff)],
            packets: 1,
            interface: packet.interface,
            initial_flags: flags,
            later_flags: 0,
            timer,
            tos: packet.tos,
            ae_count: u8::from(flags & tcp_flags::AE != 0),
        };
        // Not in the key before, which is copied whole.
        if flags & (tcp_flags::FIN | tcp_flags::RST) != 0 {
            self.key.state |= CLOSING;
        }
    }

    /// Whether `packet` of this live Flow changes nothing but its counters and its end, as far as is easily told: it has no flag
    /// that closes the Flow, reuses its ports or is counted apart, comes in order, and every other counter has room.
    #[inline(always)]
    pub(super) fn is_plain_next(&self, packet: &Observation) -> bool {
        const NOTABLE: u16 = tcp_flags::FIN | tcp_flags::SYN | tcp_flags::RST | tcp_flags::AE;
        packet.tcp_flags & NOTABLE == 0
            && packet.timestamp.nanos() >= self.last
            && self.flag_counts & OUTGROWN == 0
            && !self.is_full()
    }

    /// [`FlowEntry::add`]s a packet that [`FlowEntry::is_plain_next`].
    #[inline(always)]
    pub(super) fn add_plain_next(&mut self, packet: &Observation) {
        self.last = packet.timestamp.nanos();
        self.count(packet);
    }

    /// Whether some flag count has no room for one more: [`FlowEntry::move_counts`] is due before the next packet.
    #[inline]
    pub(super) fn counts_are_full(&self) -> bool {
        self.flag_counts & OUTGROWN != 0 || self.ae_count & 0x80 != 0
    }

    /// Adds a packet of this Flow; true if it is the earliest so far, so that the active timeout has come nearer.
    #[inline]
    pub(super) fn add(&mut self, packet: &Observation) -> bool {
        let nanos = packet.timestamp.nanos();
        let earlier = nanos < self.first;
        self.first = self.first.min(nanos);
        self.last = self.last.max(nanos);
        self.count(packet);
        self.ae_count += u8::from(packet.tcp_flags & tcp_flags::AE != 0);
        if packet.tcp_flags & (tcp_flags::FIN | tcp_flags::RST) != 0 {
            self.key.state |= CLOSING;
        }
        earlier
    }

    /// Counts a packet, its octets and its flags but AE.
    #[inline(always)]
    fn count(&mut self, packet: &Observation) {
        self.packets += 1;
        self.octets += u64::from(packet.octets);
        self.later_flags |= packet.tcp_flags;
        self.flag_counts += SPREAD[usize::from(packet.tcp_flags & 0xff)];
    }

    /// Moves the flag counts to `wide`, so that they begin again at 0.
    pub(super) fn move_counts(&mut self, wide: &mut WideCounts) {
        self.key.state |= WIDE;
        for (count, more) in wide.0.iter_mut().zip(self.small_counts()) {
            *count += more;
        }
        self.flag_counts = 0;
        self.ae_count = 0;
    }

    #[inline]
    fn small_counts(&self) -> [u32; FLAG_COUNTS] {
        // Octets next to each other in memory, and not a number's: those are widened eight at once.
        let octets: &[u8; 8] = bytemuck::cast_ref(&self.flag_counts);
        let mut counts = [0; FLAG_COUNTS];
        for (bit, count) in counts[..8].iter_mut().enumerate() {
            *count = u32::from(octets[if cfg!(target_endian = "little") { bit } else { 7 - bit }]);
        }
        counts[8] = u32::from(self.ae_count);
        counts
    }

    /// Frees the slot; `next` is the free slot after it. The timer is kept: it still stands on the wheel.
    #[inline]
    pub(super) fn free(&mut self, next: u32) {
        self.key.state = 0;
        self.key.source = next.to_ne_bytes();
    }

    /// The free slot after this free one.
    #[inline]
    pub(super) fn next_free(&self) -> u32 {
        u32::from_ne_bytes(self.key.source)
    }

    /// Writes the record of this Flow, which ended for `end_reason` when the clock was `ended`, with the counts that are here:
    /// [`WideCounts`] are the caller's to add. `pair` gives the address pair beside it, and is asked over IPv6 alone.
    #[inline(always)]
    pub(super) fn report(
        &self,
        pair: impl FnOnce() -> AddressPair,
        end_reason: EndReason,
        ended: Timestamp,
        record: &mut FlowRecord,
    ) {
        record.source = widened(self.key.source);
        record.destination = widened(self.key.destination);
        record.ip_version = IpVersion::V4;
        if self.is_ipv6() {
            let pair = pair();
            record.source = pair.source;
            record.destination = pair.destination;
            record.ip_version = IpVersion::V6;
        }
        record.start = Timestamp::again(self.first);
        record.end = Timestamp::again(self.last);
        record.octets = self.octets;
        record.packets = u64::from(self.packets);
        record.ended = ended;
        record.flag_counts = self.small_counts();
        record.source_port = self.key.source_port;
        record.destination_port = self.key.destination_port;
        record.interface = self.interface;
        record.initial_flags = self.initial_flags;
        record.later_flags = self.later_flags;
        record.vlan = self.key.vlan;
        record.protocol = self.key.protocol;
        record.tos = self.tos;
        record.end_reason = end_reason;
    }

    #[cfg(test)]
    pub(super) fn fill_up(&mut self) {
        self.packets = u32::MAX - 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::wheel::NO_TIMER;

    #[test]
    fn an_entry_is_one_cache_line() {
        assert_eq!(size_of::<FlowEntry>(), 64);
        assert_eq!(size_of::<AddressPair>(), 32);
    }

    #[test]
    fn every_flag_is_counted_past_what_an_octet_holds() {
        for bits in [0x1ff, 0x155, 0x0aa, 0x010, 0xe00] {
            let mut entry = FlowEntry::zeroed();
            let mut wide = WideCounts::default();
            let one = Observation { tcp_flags: bits, ..Observation::default() };
            entry.begin(&one, NO_TIMER);
            for _ in 1..1000 {
                if entry.counts_are_full() {
                    entry.move_counts(&mut wide);
                }
                entry.add(&one);
            }
            let mut record = FlowRecord::default();
            entry.report(AddressPair::zeroed, EndReason::Idle, Timestamp::EPOCH, &mut record);
            wide.add_to(&mut record);
            for bit in 0..FLAG_COUNTS {
                assert_eq!(record.flag_counts[bit], u32::from(bits >> bit & 1) * 1000, "{bits:#x} {bit}");
            }
            assert_eq!((record.initial_flags, record.later_flags), (bits, bits));
        }
    }
}
