//! A live Flow: its counters, and what one packet adds to them (RFC 7011 §2; tcpControlBits as RFC 9565 asks).
//!
//! An entry is one cache line: a [`Head`], which is all there is to say of a Flow of one packet, and a [`Tail`] behind it. In a
//! flood of new Flows, few of which have a second packet, a Flow begins as a head alone, a *short* entry, and two of them
//! share the line; with its second packet it moves to a *whole* entry. So a flood writes half as much memory. IPv4
//! addresses are in the head; those of an IPv6 Flow, whose entry is always whole, stand beside it in an array of
//! [`AddressPair`]s that stays untouched (and so costs no memory) where there is no IPv6.
//!
//! [`Entries`] are numbered by slots ([`super::slot`]).

use std::io;

use bytemuck::{Pod, Zeroable};

use crate::decode::{IpVersion, tcp_flags, widened};
use crate::flow::EndReason;
use crate::flow::key::{FlowKey, SHORT};
use crate::flow::memory::Region;
use crate::flow::observation::{Observation, Seen};
use crate::flow::record::{FLAG_COUNTS, FlowRecord};
use crate::flow::slot::{SECOND, line};
use crate::flow::wheel::{NO_TIMER, Place};
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

/// A live Flow, or a free slot: of a short entry, all of it.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C, align(32))]
pub(super) struct Head {
    /// With the bits of the entry's own state; the source of a free slot is the next free slot.
    key: FlowKey,
    /// Smallest packet timestamp, ns.
    pub(super) first: u64,
    /// Where on the wheel the timer that counts is; [`NO_TIMER`] for none. A free slot keeps
    /// it; in one that was never used it means nothing.
    pub(super) timer: u16,
    initial_flags: u16,
    /// The interface; of a short entry, what [`OnePacket`] says.
    rest: u32,
}

/// What a Flow of more than one packet needs besides.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C, align(32))]
pub(super) struct Tail {
    /// Largest packet timestamp, ns.
    pub(super) last: u64,
    octets: u64,
    /// Eight counts of an octet each: FIN in the lowest … CWR in the highest. What passes 127 moves to
    /// the table's [`WideCounts`]; one addition and one test a packet serve all eight.
    flag_counts: u64,
    packets: u32,
    later_flags: u16,
    ae_count: u8,
    tos: u8,
}

/// A whole entry.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C, align(64))]
pub(super) struct FlowEntry {
    pub(super) head: Head,
    pub(super) tail: Tail,
}

/// What of a short entry's packet stands in [`Head::rest`]: octets and interface, of 12 bits each, and type of service.
#[derive(Clone, Copy)]
struct OnePacket(u32);

impl OnePacket {
    #[inline(always)]
    fn of(packet: &Observation) -> OnePacket {
        OnePacket(packet.octets << 20 | packet.interface << 8 | u32::from(packet.tos))
    }

    #[inline(always)]
    fn octets(self) -> u64 {
        u64::from(self.0 >> 20)
    }

    #[inline(always)]
    fn interface(self) -> u32 {
        self.0 >> 8 & 0xfff
    }

    #[inline(always)]
    fn tos(self) -> u8 {
        self.0 as u8
    }
}

/// Whether a packet that begins a Flow fits into a short entry: over IPv4, not too long, from one of the first interfaces, and
/// the Flow goes on.
#[inline(always)]
pub(super) fn fits_short(packet: &Observation) -> bool {
    (packet.octets >> 12) | (packet.interface >> 12) == 0
        && !packet.is_ipv6()
        && packet.tcp_flags & (tcp_flags::FIN | tcp_flags::RST) == 0
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

#[inline(always)]
fn ae_count(flags: u16) -> u8 {
    u8::from(flags & tcp_flags::AE != 0)
}

/// The counts of an entry one by one. They are read where they lie: octets next to each other in memory, which are widened
/// eight at once, as those of a number are not.
#[inline(always)]
fn small_counts(counts: &u64, ae_count: u8) -> [u32; FLAG_COUNTS] {
    let octets: &[u8; 8] = bytemuck::cast_ref(counts);
    let mut counts = [0; FLAG_COUNTS];
    for (bit, count) in counts[..8].iter_mut().enumerate() {
        *count = u32::from(octets[if cfg!(target_endian = "little") { bit } else { 7 - bit }]);
    }
    counts[8] = u32::from(ae_count);
    counts
}

const OUTGROWN: u64 = 0x8080_8080_8080_8080;

impl Head {
    #[inline(always)]
    pub(super) fn is_live(&self) -> bool {
        self.key.is_live()
    }

    #[inline(always)]
    pub(super) fn is_short(&self) -> bool {
        self.key.state & SHORT != 0
    }

    /// Never of a short entry.
    #[inline]
    pub(super) fn is_closing(&self) -> bool {
        self.key.state & CLOSING != 0
    }

    /// When the first and the last packet were, ns, and whether the Flow is closing; `tail` is read if the entry is whole.
    #[inline(always)]
    pub(super) fn times(&self, tail: &Tail) -> (u64, u64, bool) {
        (self.first, if self.is_short() { self.first } else { tail.last }, self.is_closing())
    }

    #[inline]
    pub(super) fn is_wide(&self) -> bool {
        self.key.state & WIDE != 0
    }

    #[inline]
    pub(super) fn is_ipv6(&self) -> bool {
        self.key.is_ipv6()
    }

    /// Whether this is the live Flow of a packet, as far as is told without the IPv6 addresses.
    #[inline(always)]
    pub(super) fn is_like(&self, packet: &Observation) -> bool {
        self.key.is_like_packet(&packet.key)
    }

    /// The head of a whole entry of a packet's Flow, less its state.
    #[inline(always)]
    fn of(packet: &Observation, timer: Place) -> Head {
        Head {
            key: packet.key,
            first: packet.timestamp.nanos(),
            timer,
            initial_flags: packet.tcp_flags,
            rest: packet.interface,
        }
    }

    /// Begins a Flow in this short entry with a packet that [`fits_short`] and the place of its timer, whatever was there.
    #[inline(always)]
    pub(super) fn begin(&mut self, packet: &Observation, timer: Place) {
        *self = Head { rest: OnePacket::of(packet).0, ..Head::of(packet, timer) };
        // Not in the key before, which is copied whole.
        self.key.state |= SHORT;
    }

    /// Makes this a free short entry that was never used.
    pub(super) fn begin_free(&mut self, next: u32) {
        *self = Head { timer: NO_TIMER, ..Head::zeroed() };
        self.key.state = SHORT;
        self.free(next);
    }

    /// A short entry as a whole one, whose timer is at the place `timer`.
    pub(super) fn whole(&self, timer: Place) -> FlowEntry {
        let packet = OnePacket(self.rest);
        let mut head = Head { timer, rest: packet.interface(), ..*self };
        head.key.state &= !SHORT;
        FlowEntry { head, tail: Tail::of_one(self.first, packet.octets(), self.initial_flags, packet.tos()) }
    }

    /// Frees the slot; `next` is the free slot after it. The timer is kept: it still stands on the wheel.
    #[inline]
    pub(super) fn free(&mut self, next: u32) {
        self.key.state &= SHORT;
        self.key.source = next.to_ne_bytes();
    }

    /// The free slot after this free one.
    #[inline]
    pub(super) fn next_free(&self) -> u32 {
        u32::from_ne_bytes(self.key.source)
    }

    /// Writes the record of this Flow, in a short entry, which ended for `end_reason` when the clock was `ended`.
    #[inline(always)]
    pub(super) fn report_short(&self, end_reason: EndReason, ended: Timestamp, record: &mut FlowRecord) {
        let (packet, flags) = (OnePacket(self.rest), self.initial_flags);
        self.report_head(end_reason, ended, record);
        record.end = Timestamp::again(self.first);
        record.octets = packet.octets();
        record.packets = 1;
        record.flag_counts = small_counts(&SPREAD[usize::from(flags & 0xff)], ae_count(flags));
        record.later_flags = 0;
        record.tos = packet.tos();
        record.interface = packet.interface();
    }

    /// Writes of a record what the head of any entry says, the addresses those of IPv4.
    #[inline(always)]
    fn report_head(&self, end_reason: EndReason, ended: Timestamp, record: &mut FlowRecord) {
        record.source = widened(self.key.source);
        record.destination = widened(self.key.destination);
        record.ip_version = IpVersion::V4;
        record.start = Timestamp::again(self.first);
        record.ended = ended;
        record.source_port = self.key.source_port;
        record.destination_port = self.key.destination_port;
        record.initial_flags = self.initial_flags;
        record.vlan = self.key.vlan;
        record.protocol = self.key.protocol;
        record.end_reason = end_reason;
    }
}

impl Tail {
    /// Of a Flow of one packet.
    #[inline(always)]
    fn of_one(nanos: u64, octets: u64, flags: u16, tos: u8) -> Tail {
        Tail {
            last: nanos,
            octets,
            flag_counts: SPREAD[usize::from(flags & 0xff)],
            packets: 1,
            later_flags: 0,
            ae_count: ae_count(flags),
            tos,
        }
    }
}

impl FlowEntry {
    /// The two short entries of this line, if it is of those.
    #[inline(always)]
    pub(super) fn short(&self) -> Option<&[Head; 2]> {
        self.head.is_short().then(|| bytemuck::cast_ref(self))
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
        let FlowEntry { head, tail } = self;
        head.report_head(end_reason, ended, record);
        if head.is_ipv6() {
            let pair = pair();
            record.source = pair.source;
            record.destination = pair.destination;
            record.ip_version = IpVersion::V6;
        }
        record.end = Timestamp::again(tail.last);
        record.octets = tail.octets;
        record.packets = u64::from(tail.packets);
        record.flag_counts = small_counts(&tail.flag_counts, tail.ae_count);
        record.later_flags = tail.later_flags;
        record.tos = tail.tos;
        record.interface = head.rest;
    }

    /// Whether no more packets fit into the counters.
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        // Octets cannot be full before packets: 2³²−1 packets of at most 2³²−1 octets fit 64 bits.
        self.tail.packets == u32::MAX
    }

    /// Whether this is the live Flow of a packet, and not a short entry; `pair` gives the address pair beside it, and is asked
    /// over IPv6 alone, as [`Seen::pair`] is.
    #[inline(always)]
    pub(super) fn is_flow_of<'a>(
        &self,
        seen: Seen<'_>,
        pair: impl FnOnce() -> Option<&'a AddressPair>,
    ) -> bool {
        let packet = seen.packet;
        self.head.key.is_like(&packet.key)
            && (!packet.is_ipv6() || pair().is_some_and(|pair| *pair == seen.pair()))
    }

    /// Begins a Flow in this entry with its first packet and the place of its timer, whatever is in it. The caller
    /// looks after the pair.
    #[inline(always)]
    pub(super) fn begin(&mut self, packet: &Observation, timer: Place) {
        let flags = packet.tcp_flags;
        *self = FlowEntry {
            head: Head::of(packet, timer),
            tail: Tail::of_one(packet.timestamp.nanos(), u64::from(packet.octets), flags, packet.tos),
        };
        // Not in the key before, which is copied whole.
        if flags & (tcp_flags::FIN | tcp_flags::RST) != 0 {
            self.head.key.state |= CLOSING;
        }
    }

    /// Whether `packet` of this live Flow changes nothing but its counters and its end, as far as is easily told: it has no flag
    /// that closes the Flow, reuses its ports or is counted apart, comes in order, and every other counter has room.
    #[inline(always)]
    pub(super) fn is_plain_next(&self, packet: &Observation) -> bool {
        const NOTABLE: u16 = tcp_flags::FIN | tcp_flags::SYN | tcp_flags::RST | tcp_flags::AE;
        packet.tcp_flags & NOTABLE == 0
            && packet.timestamp.nanos() >= self.tail.last
            && self.tail.flag_counts & OUTGROWN == 0
            && !self.is_full()
    }

    /// [`FlowEntry::add`]s a packet that [`FlowEntry::is_plain_next`].
    #[inline(always)]
    pub(super) fn add_plain_next(&mut self, packet: &Observation) {
        self.tail.last = packet.timestamp.nanos();
        self.count(packet);
    }

    /// Whether some flag count has no room for one more: [`FlowEntry::move_counts`] is due before the next packet.
    #[inline]
    pub(super) fn counts_are_full(&self) -> bool {
        self.tail.flag_counts & OUTGROWN != 0 || self.tail.ae_count & 0x80 != 0
    }

    /// Adds a packet of this Flow; true if it is the earliest so far, so that the active timeout has come nearer.
    #[inline]
    pub(super) fn add(&mut self, packet: &Observation) -> bool {
        let nanos = packet.timestamp.nanos();
        let earlier = nanos < self.head.first;
        self.head.first = self.head.first.min(nanos);
        self.tail.last = self.tail.last.max(nanos);
        self.count(packet);
        self.tail.ae_count += ae_count(packet.tcp_flags);
        if packet.tcp_flags & (tcp_flags::FIN | tcp_flags::RST) != 0 {
            self.head.key.state |= CLOSING;
        }
        earlier
    }

    /// Counts a packet, its octets and its flags but AE.
    #[inline(always)]
    fn count(&mut self, packet: &Observation) {
        let tail = &mut self.tail;
        tail.packets += 1;
        tail.octets += u64::from(packet.octets);
        tail.later_flags |= packet.tcp_flags;
        tail.flag_counts += SPREAD[usize::from(packet.tcp_flags & 0xff)];
    }

    /// Moves the flag counts to `wide`, so that they begin again at 0.
    pub(super) fn move_counts(&mut self, wide: &mut WideCounts) {
        self.head.key.state |= WIDE;
        for (count, more) in wide.0.iter_mut().zip(small_counts(&self.tail.flag_counts, self.tail.ae_count)) {
            *count += more;
        }
        self.tail.flag_counts = 0;
        self.tail.ae_count = 0;
    }

    #[cfg(test)]
    pub(super) fn fill_up(&mut self) {
        self.tail.packets = u32::MAX - 1;
    }
}

/// The entries of a table, by slot.
pub(super) struct Entries(Region<FlowEntry>);

impl Entries {
    /// Room for so many lines.
    ///
    /// # Errors
    /// The kernel's word when it does not give the address space.
    pub(super) fn reserve(lines: usize) -> io::Result<Entries> {
        Ok(Entries(Region::reserve(lines)?))
    }

    /// The lines, as if each held a whole entry.
    #[inline(always)]
    pub(super) fn lines(&self) -> &[FlowEntry] {
        self.0.as_slice()
    }

    /// The head of a slot that was used before.
    #[inline(always)]
    pub(super) fn head(&self, slot: u32) -> &Head {
        let heads: &[Head; 2] = bytemuck::cast_ref(&self.lines()[line(slot)]);
        &heads[usize::from(slot & SECOND != 0)]
    }

    #[inline(always)]
    pub(super) fn head_mut(&mut self, slot: u32) -> &mut Head {
        let heads: &mut [Head; 2] = bytemuck::cast_mut(&mut self.0.as_mut_slice()[line(slot)]);
        &mut heads[usize::from(slot & SECOND != 0)]
    }

    /// The tail of the line of this slot, which is one if its entry is whole.
    #[inline(always)]
    pub(super) fn tail(&self, slot: u32) -> &Tail {
        &self.lines()[line(slot)].tail
    }

    /// The whole entry of this slot. None or one with the head of a short one if that is what it is.
    #[inline(always)]
    pub(super) fn get_whole_mut(&mut self, slot: u32) -> Option<&mut FlowEntry> {
        self.0.as_mut_slice().get_mut(slot as usize)
    }

    /// The whole entry of this slot.
    #[inline(always)]
    pub(super) fn whole(&self, slot: u32) -> &FlowEntry {
        &self.lines()[slot as usize]
    }

    /// The same, to be changed.
    #[inline(always)]
    pub(super) fn whole_mut(&mut self, slot: u32) -> &mut FlowEntry {
        &mut self.0.as_mut_slice()[slot as usize]
    }

    /// The slot after this one, in the order of memory.
    #[cfg(test)]
    pub(super) fn after(&self, slot: u32) -> u32 {
        let is_first_of_two = slot & SECOND == 0 && self.head(slot).is_short();
        if is_first_of_two { slot | SECOND } else { line(slot) as u32 + 1 }
    }

    /// When the first and the last packet of the Flow in this slot were, ns, and whether it is closing.
    #[inline(always)]
    pub(super) fn times(&self, slot: u32) -> (u64, u64, bool) {
        self.head(slot).times(self.tail(slot))
    }

    /// Their memory.
    pub(super) fn region(&self) -> &Region<FlowEntry> {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_one_cache_line_and_a_short_one_half_of_it() {
        assert_eq!(size_of::<FlowEntry>(), 64);
        assert_eq!((size_of::<Head>(), size_of::<Tail>()), (32, 32));
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

    #[test]
    fn a_short_entry_says_what_a_whole_one_does() {
        let (reason, ended) = (EndReason::Active, Timestamp::from_nanos(9));
        for (octets, interface, tos, tcp_flags) in
            [(0, 0, 0, 0), (4095, 4095, 255, 0xffa), (40, 1, 2, 2), (1500, 128, 0, 0x1c2), (256, 0, 1, 0x18)]
        {
            let key = FlowKey {
                vlan: 4094,
                state: FlowKey::state(IpVersion::V4),
                protocol: 6,
                source_port: 1,
                destination_port: 2,
                source: [192, 0, 2, 1],
                destination: [192, 0, 2, 2],
            };
            let timestamp = Timestamp::from_nanos(7);
            let packet =
                Observation { timestamp, key, octets, interface, tos, tcp_flags, ..Observation::default() };
            assert!(fits_short(&packet));
            let (mut short, mut whole) = (Head::zeroed(), FlowEntry::zeroed());
            short.begin(&packet, 5);
            whole.begin(&packet, NO_TIMER);
            assert!(short.is_like(&packet) && whole.head.is_like(&packet));
            assert!(!short.key.is_like(&packet.key), "else a packet would be added to it as it is");
            let (mut record, mut other) = (FlowRecord::default(), FlowRecord::default());
            short.report_short(reason, ended, &mut record);
            whole.report(AddressPair::zeroed, reason, ended, &mut other);
            assert_eq!(record, other);
            assert_eq!((record.octets, record.interface, record.tos), (octets.into(), interface, tos));
            let expanded = short.whole(NO_TIMER);
            assert_eq!(bytemuck::bytes_of(&expanded), bytemuck::bytes_of(&whole));
            short.free(8);
            assert!(short.is_short() && !short.is_live() && (short.timer, short.next_free()) == (5, 8));
        }
    }

    #[test]
    fn what_does_not_fit_a_short_entry_is_told() {
        let fits = |octets, interface, tcp_flags, ip_version| {
            let key = FlowKey { state: FlowKey::state(ip_version), ..FlowKey::default() };
            fits_short(&Observation { key, octets, interface, tcp_flags, ..Observation::default() })
        };
        assert!(fits(4095, 4095, 0xffa, IpVersion::V4));
        assert!(!fits(4096, 0, 2, IpVersion::V4));
        assert!(!fits(40, 4096, 2, IpVersion::V4) && !fits(40, 1 << 24, 2, IpVersion::V4));
        assert!(!fits(40, 0, 1, IpVersion::V4) && !fits(40, 0, 4, IpVersion::V4));
        assert!(!fits(40, 0, 2, IpVersion::V6));
    }
}
