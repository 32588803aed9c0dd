//! Decoding: a [`Frame`] in; a [`Packet`], or the one reason why it is not metered, out.
//!
//! The octets are the network's: nothing here fails loudly, allocates or panics, whatever they are. What is sound is
//! kept: a packet whose transport header was cut off is metered without ports, not refused.
//!
//! What nearly every packet is, `plain` reads at once. Of any other the layers are walked in the order they are met: `link`
//! down to the IP header, `network` through it and its extension headers, `transport` for ports and flags. A later fragment
//! carries no ports; [`FragmentTable`] gives it those of the first one.

mod fragment;
mod link;
mod network;
mod plain;
mod transport;

#[cfg(test)]
mod differential;

pub use fragment::FragmentTable;
pub(crate) use transport::{TCP, has_ports};

use self::link::NO_VLAN;
use crate::capture::{Frame, LinkType};
use crate::time::Timestamp;

/// The nine named TCP flags of RFC 9293 §3.1 and RFC 9768, FIN (bit 0) first.
pub mod tcp_flags {
    /// No more data from sender.
    pub const FIN: u16 = 0x001;
    /// Synchronize sequence numbers.
    pub const SYN: u16 = 0x002;
    /// Reset the connection.
    pub const RST: u16 = 0x004;
    /// Push function.
    pub const PSH: u16 = 0x008;
    /// The acknowledgment field is significant.
    pub const ACK: u16 = 0x010;
    /// The urgent pointer field is significant.
    pub const URG: u16 = 0x020;
    /// ECN-Echo.
    pub const ECE: u16 = 0x040;
    /// Congestion Window Reduced.
    pub const CWR: u16 = 0x080;
    /// Accurate ECN, once Nonce Sum.
    pub const AE: u16 = 0x100;
}

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, bytemuck::NoUninit)]
#[repr(u8)]
pub enum IpVersion {
    /// IPv4.
    #[default]
    V4 = 4,
    /// IPv6.
    V6 = 6,
}

impl IpVersion {
    /// The protocol number of the ICMP that belongs to this version.
    #[inline(always)]
    pub(crate) const fn icmp(self) -> u8 {
        match self {
            IpVersion::V4 => transport::ICMP,
            IpVersion::V6 => transport::ICMPV6,
        }
    }
}

/// What a packet is a part of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Fragment {
    /// A whole packet (an IPv6 atomic fragment included).
    #[default]
    Whole,
    /// The first fragment: offset 0, more to come. It has the ports.
    First,
    /// A later fragment: its ports are those of the first one, see [`FragmentTable`].
    Later,
}

/// A decoded packet: what the Metering Process needs to know of it, and no octets of the frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packet {
    /// When it was captured.
    pub timestamp: Timestamp,
    /// Source address; IPv4 in the first four octets, the others 0.
    pub source: [u8; 16],
    /// Destination address; IPv4 in the first four octets, the others 0.
    pub destination: [u8; 16],
    /// IP total length in octets, IP header included.
    pub octets: u32,
    /// The interface it came in by.
    pub interface: u32,
    /// IP identification, meaningful for fragments only.
    pub fragment_id: u32,
    /// Source port; 0 where there is none.
    pub source_port: u16,
    /// Destination port; ICMP type × 256 + code; 0 where there is none.
    pub destination_port: u16,
    /// TCP flags: the twelve bits below the data offset; 0 for other protocols.
    pub tcp_flags: u16,
    /// The outermost VLAN identifier other than 0; 0 for none.
    pub vlan: u16,
    /// IP protocol; over IPv6 the last next-header value reached.
    pub protocol: u8,
    /// Type of service / traffic class octet.
    pub tos: u8,
    /// IPv4 or IPv6.
    pub ip_version: IpVersion,
    /// Whole, first or later fragment.
    pub fragment: Fragment,
}

/// What a packet has besides its addresses, as decoding finds it; the fields are those of [`Packet`].
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct Fields {
    pub timestamp: Timestamp,
    pub octets: u32,
    pub interface: u32,
    pub fragment_id: u32,
    pub source_port: u16,
    pub destination_port: u16,
    pub tcp_flags: u16,
    pub vlan: u16,
    pub protocol: u8,
    pub tos: u8,
    pub fragment: Fragment,
}

/// Where a decoded packet is put: a [`Packet`], or a place that keeps less of it. Each call sets all that the place keeps of
/// addresses and fields.
pub trait Place {
    /// What is told of a packet that was put there.
    type Put;
    /// Puts an IPv4 packet.
    fn put_ipv4(self, source: [u8; 4], destination: [u8; 4], fields: Fields) -> Self::Put;
    /// Puts an IPv6 packet.
    fn put_ipv6(self, source: [u8; 16], destination: [u8; 16], fields: Fields) -> Self::Put;
}

impl Packet {
    fn new(ip_version: IpVersion, source: [u8; 16], destination: [u8; 16], fields: Fields) -> Packet {
        Packet {
            timestamp: fields.timestamp,
            source,
            destination,
            octets: fields.octets,
            interface: fields.interface,
            fragment_id: fields.fragment_id,
            source_port: fields.source_port,
            destination_port: fields.destination_port,
            tcp_flags: fields.tcp_flags,
            vlan: fields.vlan,
            protocol: fields.protocol,
            tos: fields.tos,
            ip_version,
            fragment: fields.fragment,
        }
    }

    /// Puts this packet somewhere else.
    pub fn put_into<P: Place>(&self, place: P) -> P::Put {
        let fields = Fields {
            timestamp: self.timestamp,
            octets: self.octets,
            interface: self.interface,
            fragment_id: self.fragment_id,
            source_port: self.source_port,
            destination_port: self.destination_port,
            tcp_flags: self.tcp_flags,
            vlan: self.vlan,
            protocol: self.protocol,
            tos: self.tos,
            fragment: self.fragment,
        };
        let head = |address: [u8; 16]| [address[0], address[1], address[2], address[3]];
        match self.ip_version {
            IpVersion::V4 => place.put_ipv4(head(self.source), head(self.destination), fields),
            IpVersion::V6 => place.put_ipv6(self.source, self.destination, fields),
        }
    }
}

impl Place for &mut Packet {
    type Put = ();

    #[inline]
    fn put_ipv4(self, source: [u8; 4], destination: [u8; 4], fields: Fields) {
        *self = Packet::new(IpVersion::V4, widened(source), widened(destination), fields);
    }

    #[inline]
    fn put_ipv6(self, source: [u8; 16], destination: [u8; 16], fields: Fields) {
        *self = Packet::new(IpVersion::V6, source, destination, fields);
    }
}

/// An IPv4 address as [`Packet`] and the records hold it.
#[inline(always)]
pub(crate) fn widened(address: [u8; 4]) -> [u8; 16] {
    u128::from(u32::from_le_bytes(address)).to_le_bytes()
}

/// Why a frame is not metered. Every frame that is not metered has exactly one reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Ignored {
    /// A link type that is not decoded.
    LinkType,
    /// Neither IPv4 nor IPv6 inside.
    NonIp,
    /// The captured octets end inside a link header, a tag or the IP header.
    Truncated,
    /// A wrong version nibble or an impossible length.
    Malformed,
}

impl Ignored {
    /// All reasons, each at the place of its own number: what is counted by reason is in this order.
    pub const ALL: [Ignored; 4] = [Ignored::LinkType, Ignored::NonIp, Ignored::Truncated, Ignored::Malformed];

    /// What it is called in reports and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Ignored::LinkType => "link_type",
            Ignored::NonIp => "non_ip",
            Ignored::Truncated => "truncated",
            Ignored::Malformed => "malformed",
        }
    }

    /// What it is called where a person reads it.
    pub const fn words(self) -> &'static str {
        match self {
            Ignored::LinkType => "link type not decoded",
            Ignored::NonIp => "not IP",
            Ignored::Truncated => "truncated",
            Ignored::Malformed => "malformed",
        }
    }
}

/// Decodes one frame.
///
/// # Errors
/// The one reason why the frame is not metered.
#[inline]
pub fn decode(frame: &Frame<'_>) -> Result<Packet, Ignored> {
    let mut packet = Packet::default();
    decode_into(frame, || &mut packet)?;
    Ok(packet)
}

/// Decodes one frame into the place where the packet is to stay, such as the next slot of a batch: a packet that is copied
/// costs twice. If the frame is not metered, the place is left as it was.
///
/// What nearly every frame of most taps is, is recognised here; all else is decoded out of line. Each way asks for the
/// place itself, so that on the short one nothing of it need be in memory.
///
/// # Errors
/// The one reason why the frame is not metered.
#[inline(always)] // the frame is then never put together in memory
pub fn decode_into<P: Place>(frame: &Frame<'_>, place: impl FnOnce() -> P) -> Result<P::Put, Ignored> {
    if frame.link_type == LinkType::ETHERNET
        && let Some(packet) = plain::read::<false>(frame, frame.data, NO_VLAN)
    {
        return Ok(packet.put_into(place()));
    }
    let &Frame { timestamp, wire_length, link_type, interface, data } = frame;
    decode_other(timestamp, wire_length, link_type, interface, data, place())
}

/// [`decode_into`] for the frames that come next: of a trunk, with one VLAN tag, and those of protocols without ports. The
/// same few steps take both.
///
/// It takes the parts of the frame and not the frame, which can so stay in registers on the path that does not come here.
#[inline(never)]
fn decode_other<P: Place>(
    timestamp: Timestamp,
    wire_length: u32,
    link_type: LinkType,
    interface: u32,
    data: &[u8],
    place: P,
) -> Result<P::Put, Ignored> {
    if link_type == LinkType::ETHERNET {
        let frame = &Frame { timestamp, wire_length, link_type, interface, data };
        let (vlan, untagged) = link::one_tag(data).unwrap_or((NO_VLAN, data));
        if let Some(packet) = plain::read::<true>(frame, untagged, vlan) {
            return Ok(packet.put_into(place));
        }
    }
    decode_any(&Frame { timestamp, wire_length, link_type, interface, data }, place)
}

/// [`decode_into`], whatever the frame is.
#[inline(never)]
fn decode_any<P: Place>(frame: &Frame<'_>, place: P) -> Result<P::Put, Ignored> {
    let link::Carried { at, vlan, version } = link::find(frame.link_type, frame.data)?;
    match version {
        IpVersion::V4 => network::ipv4(frame, at, vlan, place),
        IpVersion::V6 => network::ipv6(frame, at, vlan, place),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_stands_at_the_place_of_its_number_under_a_name_of_its_own() {
        let places = Ignored::ALL.map(|reason| reason as usize);
        assert_eq!(places, std::array::from_fn(|place| place));
        let names = Ignored::ALL.map(Ignored::name);
        assert_eq!(names, ["link_type", "non_ip", "truncated", "malformed"]);
    }

    /// 802.1Q with VLAN 100, then IPv4, then TCP from port 1000 to port 80 with SYN and AE.
    const TAGGED: [u8; 52] = [
        2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x81, 0x00, 0x00, 0x64, 0x08, 0x00, // Ethernet, tag
        0x45, 0, 0, 34, 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, // IPv4
        0x03, 0xE8, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0, 0x51, 0x02, // the first octets of TCP
    ];

    fn frame(data: &[u8]) -> Frame<'_> {
        Frame {
            timestamp: Timestamp::from_nanos(1),
            wire_length: 60,
            link_type: LinkType::ETHERNET,
            interface: 0,
            data,
        }
    }

    #[test]
    fn a_packet_is_one_cache_line() {
        assert_eq!(size_of::<Packet>(), 64);
        assert_eq!(size_of::<Result<Packet, Ignored>>(), 64);
    }

    #[test]
    fn a_tagged_frame_gives_its_vlan_its_ports_and_all_twelve_flag_bits() {
        let packet = decode(&frame(&TAGGED)).expect("it is metered");
        assert_eq!((packet.vlan, packet.octets, packet.protocol), (100, 34, 6));
        assert_eq!((packet.source_port, packet.destination_port), (1000, 80));
        assert_eq!(packet.tcp_flags, tcp_flags::SYN | tcp_flags::AE);
    }

    #[test]
    fn decoding_into_a_place_sets_every_field_or_none() {
        let expected = decode(&frame(&TAGGED)).expect("it is metered");
        let used = Packet {
            timestamp: Timestamp::MAX,
            source: [0xFF; 16],
            destination: [0xFF; 16],
            octets: u32::MAX,
            interface: u32::MAX,
            fragment_id: u32::MAX,
            source_port: u16::MAX,
            destination_port: u16::MAX,
            tcp_flags: u16::MAX,
            vlan: u16::MAX,
            protocol: u8::MAX,
            tos: u8::MAX,
            ip_version: IpVersion::V6,
            fragment: Fragment::Later,
        };
        let mut place = used;
        assert_eq!(decode_into(&frame(&TAGGED), || &mut place), Ok(()));
        assert_eq!(place, expected);
        place = used;
        for length in 0..38 {
            assert_eq!(decode_into(&frame(&TAGGED[..length]), || &mut place), Err(Ignored::Truncated));
            assert_eq!(place, used);
        }
    }

    /// Without the short ways of `plain`.
    fn decode_slowly(frame: &Frame<'_>) -> Result<Packet, Ignored> {
        let mut packet = Packet::default();
        decode_any(frame, &mut packet)?;
        Ok(packet)
    }

    #[test]
    fn the_short_ways_say_what_the_long_one_says_of_any_protocol_length_cut_and_first_octet() {
        const TAGS: [&[u8]; 5] = [
            &[],
            &[0x81, 0x00, 0x00, 0x64],
            &[0x81, 0x00, 0xF0, 0x00],
            &[0x88, 0xA8, 0x00, 0x07],
            &[0x81, 0x00, 0x00, 0x00, 0x81, 0x00, 0x00, 0x07],
        ];
        let (mut metered, mut ignored) = (0, 0);
        for (tag, version) in TAGS.iter().flat_map(|tag| [(tag, 4), (tag, 6)]) {
            let kind: &[u8] = if version == 4 { &[0x08, 0x00] } else { &[0x86, 0xDD] };
            let before = [&[2; 12][..], tag, kind].concat();
            let header = if version == 4 { 20 } else { 40 };
            let mut packet: Vec<u8> = (1..=header + 20).collect();
            packet[0] = if version == 4 { 0x45 } else { 0x6A };
            let length = if version == 4 { 2..4 } else { 4..6 };
            let whole = if version == 4 { header + 16 } else { 16 };
            packet[length.clone()].copy_from_slice(&[0, whole]);
            packet[6..8].copy_from_slice(&[0x40, 0]);
            let mut compare = |packet: &[u8], captured: usize, wire_length: u32| {
                let octets = [&before[..], packet].concat();
                let frame = Frame { wire_length, ..frame(&octets[..captured.min(octets.len())]) };
                let decoded = decode(&frame);
                assert_eq!(decoded, decode_slowly(&frame), "wire length {wire_length}, {:02x?}", frame.data);
                *(if decoded.is_ok() { &mut metered } else { &mut ignored }) += 1;
            };
            for protocol in 0..=255 {
                packet[if version == 4 { 9 } else { 6 }] = protocol;
                for captured in 0..=before.len() + packet.len() {
                    compare(&packet, captured, 200);
                }
                for length_field in (0..80).chain([255]) {
                    let mut packet = packet.clone();
                    packet[length.end - 1] = length_field;
                    for wire_length in [0, before.len() as u32 + 30, 1500] {
                        compare(&packet, usize::MAX, wire_length);
                    }
                }
                for first in 0..=255 {
                    compare(&[&[first], &packet[1..]].concat(), usize::MAX, 200);
                }
                for bits in [[0, 0], [0x20, 0], [0, 1], [0x20, 1], [0x80, 0], [0x1F, 0xFF]] {
                    let mut packet = packet.clone();
                    // Over IPv6 the protocol and the hop limit: the long way says what becomes of it there, too.
                    packet[6..8].copy_from_slice(&bits);
                    compare(&packet, usize::MAX, 200);
                }
            }
        }
        assert!(metered > 100_000 && ignored > 100_000, "{metered} metered, {ignored} ignored");
    }

    #[test]
    fn a_length_of_0_behind_a_tag_counts_as_the_wire_length_less_18() {
        let mut octets = TAGGED;
        octets[21] = 0;
        let with = |wire_length| decode(&Frame { wire_length, ..frame(&octets) }).map(|packet| packet.octets);
        assert_eq!((with(70_018), with(38), with(37)), (Ok(70_000), Ok(20), Err(Ignored::Malformed)));
    }

    #[test]
    fn a_first_and_a_later_fragment_come_to_the_same_flow() {
        let mut octets = TAGGED;
        octets[24] = 0x20;
        let mut table = FragmentTable::new();
        let mut first = decode(&frame(&octets)).expect("it is metered");
        table.resolve(&mut first);
        octets[24..26].copy_from_slice(&[0, 2]);
        let mut later = decode(&frame(&octets)).expect("it is metered");
        assert_eq!((later.fragment, later.source_port, later.tcp_flags), (Fragment::Later, 0, 0));
        table.resolve(&mut later);
        assert_eq!((later.source_port, later.destination_port, later.tcp_flags), (1000, 80, 0));
    }
}
