//! The IP header and IPv6's extension headers.
//!
//! In: a [`Frame`] and where its IP header begins. Out: a packet in its [`Place`], complete but for a later fragment's ports.
//! IPv4 is RFC 791, IPv6 and its extension headers are RFC 8200, AH is RFC 4302, an atomic fragment is RFC 6946.
//!
//! What nearly every packet is does not come here but is read by `plain`. Of the two ways through here the short one is that of
//! packets without options that are no fragment, behind any link header. The long one, out of line, reads every packet there
//! is and names the reason where it cannot, and so is also what the tests hold the others against.

use etherparse::{IpNumber, Ipv4HeaderSlice, Ipv6FragmentHeaderSlice, Ipv6HeaderSlice};

use super::transport::{self, ICMP, ICMPV6, TCP, UDP};
use super::{Fields, Fragment, Ignored, IpVersion, Place};
use crate::capture::Frame;

/// Octets of an IPv4 header without options, RFC 791 §3.1.
pub(super) const IPV4_LEAST: usize = etherparse::Ipv4Header::MIN_LEN;
/// Octets of the fixed IPv6 header, which its payload length does not count, RFC 8200 §3.
pub(super) const IPV6_FIXED: usize = etherparse::Ipv6Header::LEN;
/// No extension header is shorter, RFC 8200 §4.
const EXTENSION_LEAST: usize = 8;

/// First octet of an IPv4 header without options: version 4, five words, RFC 791 §3.1.
pub(super) const IPV4_PLAIN: u8 = 0x45;
/// More fragments, and the fragment offset: all 0 in a packet that is no fragment, RFC 791 §3.1.
pub(super) const IPV4_FRAGMENT: u16 = 0x3FFF;

const HOP_BY_HOP: u8 = IpNumber::IPV6_HEADER_HOP_BY_HOP.0;
const ROUTING: u8 = IpNumber::IPV6_ROUTE_HEADER.0;
const FRAGMENT: u8 = IpNumber::IPV6_FRAGMENTATION_HEADER.0;
const AUTHENTICATION: u8 = IpNumber::AUTHENTICATION_HEADER.0;
const DESTINATION_OPTIONS: u8 = IpNumber::IPV6_DESTINATION_OPTIONS.0;
const MOBILITY: u8 = IpNumber::MOBILITY_HEADER.0;
const HIP: u8 = IpNumber::HIP.0;
const SHIM6: u8 = IpNumber::SHIM6.0;

/// What an IP header says of the packet, and what it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Carried<'a> {
    /// IP total length.
    total: u32,
    /// The protocol of `payload`; of a later fragment, what its last header names.
    protocol: u8,
    /// The octets from the transport header on, as far as they were captured and belong to the packet; none where a
    /// later fragment has only its middle.
    payload: &'a [u8],
    fragment: Fragment,
    fragment_id: u32,
}

impl Carried<'_> {
    /// What there is to be said of the packet besides its addresses; `icmp` is the version's ICMP.
    #[inline(always)]
    fn fields(self, frame: &Frame<'_>, icmp: u8, vlan: u16, tos: u8) -> Fields {
        let transport = transport::read(self.protocol, icmp, self.payload);
        Fields {
            timestamp: frame.timestamp,
            octets: self.total,
            interface: frame.interface,
            fragment_id: self.fragment_id,
            source_port: transport.source_port,
            destination_port: transport.destination_port,
            tcp_flags: transport.tcp_flags,
            vlan,
            protocol: self.protocol,
            tos,
            fragment: self.fragment,
        }
    }
}

/// Decodes the IPv4 packet that begins `at` octets into the frame.
#[inline(always)]
pub(super) fn ipv4<P: Place>(frame: &Frame<'_>, at: usize, vlan: u16, place: P) -> Result<P::Put, Ignored> {
    let octets = frame.data.get(at..).unwrap_or_default();
    let Some(&header) = octets.first_chunk::<IPV4_LEAST>() else {
        return Err(why_no_header(octets, IpVersion::V4));
    };
    let [first, tos, t, u, _, _, f, g, _, protocol, _, _, s0, s1, s2, s3, d0, d1, d2, d3] = header;
    let total = u16::from_be_bytes([t, u]);
    let carried = match octets.get(IPV4_LEAST..octets.len().min(usize::from(total))) {
        Some(payload) if first == IPV4_PLAIN && u16::from_be_bytes([f, g]) & IPV4_FRAGMENT == 0 => {
            Carried { total: u32::from(total), protocol, payload, fragment: Fragment::Whole, fragment_id: 0 }
        }
        _ => any_ipv4(octets, at, frame.wire_length)?,
    };
    let fields = carried.fields(frame, ICMP, vlan, tos);
    Ok(place.put_ipv4([s0, s1, s2, s3], [d0, d1, d2, d3], fields))
}

/// Decodes the IPv6 packet that begins `at` octets into the frame.
#[inline(always)]
pub(super) fn ipv6<P: Place>(frame: &Frame<'_>, at: usize, vlan: u16, place: P) -> Result<P::Put, Ignored> {
    let octets = frame.data.get(at..).unwrap_or_default();
    let Ok(header) = Ipv6HeaderSlice::from_slice(octets) else {
        return Err(why_no_header(octets, IpVersion::V6));
    };
    let total = IPV6_FIXED + usize::from(header.payload_length());
    let protocol = header.next_header().0;
    let carried = match octets.get(IPV6_FIXED..octets.len().min(total)) {
        Some(payload) if total != IPV6_FIXED && matches!(protocol, TCP | UDP | ICMPV6) => {
            Carried { total: total as u32, protocol, payload, fragment: Fragment::Whole, fragment_id: 0 }
        }
        _ => any_ipv6(octets, at, frame.wire_length)?,
    };
    let fields = carried.fields(frame, ICMPV6, vlan, header.traffic_class());
    Ok(place.put_ipv6(header.source(), header.destination(), fields))
}

/// Any IPv4 packet: with options, a fragment, without a length, or none at all.
#[cold]
#[inline(never)]
fn any_ipv4(octets: &[u8], at: usize, wire_length: u32) -> Result<Carried<'_>, Ignored> {
    let Some(&[first, _, t, u, ..]) = octets.first_chunk::<IPV4_LEAST>() else {
        return Err(why_no_header(octets, IpVersion::V4));
    };
    let header_length = usize::from(first & 0x0F) * 4;
    let total = match u16::from_be_bytes([t, u]) {
        0 => length_on_wire(wire_length, at)?,
        total => u32::from(total),
    };
    // Checked before the slice is made: a header that cannot be is malformed even where its options were cut off.
    if first >> 4 != IpVersion::V4 as u8 || header_length < IPV4_LEAST || (total as usize) < header_length {
        return Err(Ignored::Malformed);
    }
    let header = Ipv4HeaderSlice::from_slice(octets).map_err(|_| Ignored::Truncated)?;
    let payload = octets.get(header_length..octets.len().min(total as usize)).unwrap_or_default();
    let carried =
        Carried { total, protocol: header.protocol().0, payload, fragment: Fragment::Whole, fragment_id: 0 };
    let fragment_id = u32::from(header.identification());
    Ok(if header.fragments_offset().value() != 0 {
        Carried { payload: &[], fragment: Fragment::Later, fragment_id, ..carried }
    } else if header.more_fragments() {
        Carried { fragment: Fragment::First, fragment_id, ..carried }
    } else {
        carried
    })
}

/// Any IPv6 packet: with extension headers, without a length, or none at all.
#[cold]
#[inline(never)]
fn any_ipv6(octets: &[u8], at: usize, wire_length: u32) -> Result<Carried<'_>, Ignored> {
    let Ok(header) = Ipv6HeaderSlice::from_slice(octets) else {
        return Err(why_no_header(octets, IpVersion::V6));
    };
    let total = match header.payload_length() {
        // A jumbogram (RFC 2675), or a packet that segmentation offload has not cut yet.
        0 => length_on_wire(wire_length, at)?,
        payload => IPV6_FIXED as u32 + u32::from(payload),
    };
    if (total as usize) < IPV6_FIXED {
        return Err(Ignored::Malformed);
    }
    let payload = octets.get(IPV6_FIXED..octets.len().min(total as usize)).unwrap_or_default();
    Ok(extension_headers(Carried {
        total,
        protocol: header.next_header().0,
        payload,
        fragment: Fragment::Whole,
        fragment_id: 0,
    }))
}

/// The IP packet's octets where its length field is 0: what was on the wire less what precedes the IP header. A wire
/// length that ends before the IP header is shorter than any header, and so malformed.
fn length_on_wire(wire_length: u32, at: usize) -> Result<u32, Ignored> {
    u32::try_from(at).ok().and_then(|at| wire_length.checked_sub(at)).ok_or(Ignored::Malformed)
}

/// Why there is no fixed header of `version` in `octets`, which may still be long enough for one.
#[cold]
fn why_no_header(octets: &[u8], version: IpVersion) -> Ignored {
    match octets.first() {
        Some(first) if first >> 4 != version as u8 => Ignored::Malformed,
        _ => Ignored::Truncated,
    }
}

/// Walks extension headers as far as they lie wholly inside the octets that are there.
///
/// A chain may hold several fragment headers, though no sender makes such: the packet is a fragment if one of them is
/// more than an atomic one (which is a whole packet, RFC 6946 §4), the last such gives the identification, and the last of
/// all the offset. Behind an offset other than 0 lie the octets of a packet's middle, so the walk ends there.
fn extension_headers(mut carried: Carried<'_>) -> Carried<'_> {
    while let Some(&[next, length, ..]) = carried.payload.first_chunk::<EXTENSION_LEAST>() {
        let header_length = match carried.protocol {
            // In units of eight octets, not counting the first: RFC 8200 §4.3, 4.4, 4.6, RFC 6275 §6.1.1,
            // RFC 7401 §5.1, RFC 5533 §5.1.
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS | MOBILITY | HIP | SHIM6 => {
                (usize::from(length) + 1) * 8
            }
            // In units of four octets, less two: RFC 4302 §2.2.
            AUTHENTICATION => (usize::from(length) + 2) * 4,
            // Always eight octets, the second reserved: RFC 8200 §4.5.
            FRAGMENT => EXTENSION_LEAST,
            _ => break,
        };
        let Some(rest) = carried.payload.get(header_length..) else {
            break;
        };
        if carried.protocol == FRAGMENT
            && let Ok(header) = Ipv6FragmentHeaderSlice::from_slice(carried.payload)
        {
            let later = header.fragment_offset().value() != 0;
            if later || header.more_fragments() {
                carried.fragment_id = header.identification();
                carried.fragment = Fragment::First;
            }
            if later {
                return Carried { protocol: next, payload: &[], fragment: Fragment::Later, ..carried };
            }
        }
        carried.protocol = next;
        carried.payload = rest;
    }
    carried
}

#[cfg(test)]
mod tests {
    use super::super::differential::{Random, stacked};
    use super::super::{Packet, decode, link};
    use super::*;
    use crate::capture::LinkType;
    use crate::time::Timestamp;

    /// UDP from port 1000 to port 53, eight octets of header and two of data.
    const UDP_HEADER: [u8; 10] = [0x03, 0xE8, 0x00, 0x35, 0x00, 0x0A, 0, 0, 0xAB, 0xCD];

    /// 10.0.0.1 to 192.0.2.2, type of service 0xB8, identification 0x1234.
    fn ipv4_packet(protocol: u8, fragment: [u8; 2], options: &[u8], payload: &[u8]) -> Vec<u8> {
        let total = (20 + options.len() + payload.len()) as u8;
        let mut octets = vec![0x45 + (options.len() / 4) as u8, 0xB8, 0, total, 0x12, 0x34];
        octets.extend(fragment);
        octets.extend([64, protocol, 0, 0, 10, 0, 0, 1, 192, 0, 2, 2]);
        octets.extend(options);
        octets.extend(payload);
        octets
    }

    /// 2001:db8::1 to 2001:db8::2, traffic class 0xB8.
    fn ipv6_packet(next_header: u8, payload: &[u8]) -> Vec<u8> {
        let mut octets = vec![0x6B, 0x80, 0, 0, 0, payload.len() as u8, next_header, 64];
        octets.extend([0x20, 0x01, 0x0D, 0xB8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        octets.extend([0x20, 0x01, 0x0D, 0xB8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
        octets.extend(payload);
        octets
    }

    /// A fragment header: identification 0x01020304.
    fn fragment_header(next_header: u8, offset_and_more: [u8; 2]) -> Vec<u8> {
        vec![next_header, 0, offset_and_more[0], offset_and_more[1], 1, 2, 3, 4]
    }

    fn decode_wire(link_type: LinkType, wire_length: u32, data: &[u8]) -> Result<Packet, Ignored> {
        let timestamp = Timestamp::from_nanos(5);
        decode(&Frame { timestamp, wire_length, link_type, interface: 3, data })
    }

    fn decode_raw(data: &[u8]) -> Result<Packet, Ignored> {
        decode_wire(LinkType::RAW, data.len() as u32, data)
    }

    /// Protocol, ports and what of a packet it is.
    fn upper(packet: Result<Packet, Ignored>) -> (u8, u16, u16, Fragment, u32) {
        let packet = packet.expect("it is metered");
        (packet.protocol, packet.source_port, packet.destination_port, packet.fragment, packet.fragment_id)
    }

    const WHOLE: (u8, u16, u16, Fragment, u32) = (UDP, 1000, 53, Fragment::Whole, 0);

    #[test]
    fn an_ipv4_packet_fills_every_field() {
        let packet = decode_raw(&ipv4_packet(UDP, [0x40, 0], &[], &UDP_HEADER));
        let expected = Packet {
            timestamp: Timestamp::from_nanos(5),
            source: [10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            destination: [192, 0, 2, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            octets: 30,
            interface: 3,
            fragment_id: 0,
            source_port: 1000,
            destination_port: 53,
            tcp_flags: 0,
            vlan: 0,
            protocol: UDP,
            tos: 0xB8,
            ip_version: IpVersion::V4,
            fragment: Fragment::Whole,
        };
        assert_eq!(packet, Ok(expected));
    }

    #[test]
    fn an_ipv6_packet_fills_every_field() {
        let packet = decode_raw(&ipv6_packet(UDP, &UDP_HEADER));
        let expected = Packet {
            timestamp: Timestamp::from_nanos(5),
            source: [0x20, 1, 0x0D, 0xB8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
            destination: [0x20, 1, 0x0D, 0xB8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2],
            octets: 50,
            interface: 3,
            fragment_id: 0,
            source_port: 1000,
            destination_port: 53,
            tcp_flags: 0,
            vlan: 0,
            protocol: UDP,
            tos: 0xB8,
            ip_version: IpVersion::V6,
            fragment: Fragment::Whole,
        };
        assert_eq!(packet, Ok(expected));
    }

    #[test]
    fn a_fixed_header_that_was_cut_is_truncated_unless_its_version_is_wrong() {
        for whole in [ipv4_packet(UDP, [0, 0], &[], &[]), ipv6_packet(UDP, &[])] {
            for length in 0..whole.len() {
                assert_eq!(decode_wire(LinkType::RAW, 60, &whole[..length]), Err(Ignored::Truncated));
            }
        }
        assert_eq!(decode_wire(LinkType::IPV4, 60, &[]), Err(Ignored::Truncated));
        assert_eq!(decode_wire(LinkType::IPV4, 60, &[0x60]), Err(Ignored::Malformed));
        assert_eq!(decode_wire(LinkType::IPV6, 60, &[0x45]), Err(Ignored::Malformed));
        assert_eq!(decode_wire(LinkType::NULL, 60, &[2, 0, 0, 0, 0x60]), Err(Ignored::Malformed));
    }

    #[test]
    fn a_version_other_than_the_link_layer_names_is_malformed() {
        let (v4, v6) = (ipv4_packet(UDP, [0, 0], &[], &UDP_HEADER), ipv6_packet(UDP, &UDP_HEADER));
        let types = [0; 12];
        for (kind, packet) in [([0x08, 0x00], &v6), ([0x86, 0xDD], &v4)] {
            let frame = [&types[..], &kind, packet].concat();
            assert_eq!(decode_wire(LinkType::ETHERNET, 64, &frame), Err(Ignored::Malformed));
        }
    }

    #[test]
    fn an_ipv4_header_shorter_than_five_words_or_longer_than_its_packet_is_malformed() {
        let mut octets = ipv4_packet(UDP, [0, 0], &[], &UDP_HEADER);
        octets[0] = 0x44;
        assert_eq!(decode_raw(&octets), Err(Ignored::Malformed));
        octets[0] = 0x45;
        octets[3] = 19;
        assert_eq!(decode_raw(&octets), Err(Ignored::Malformed));
        octets[3] = 20;
        assert_eq!(decode_raw(&octets).map(|packet| packet.octets), Ok(20));
    }

    #[test]
    fn ipv4_options_that_were_cut_are_truncated_but_malformed_comes_first() {
        let mut octets = ipv4_packet(UDP, [0, 0], &[1; 8], &UDP_HEADER);
        assert_eq!(upper(decode_raw(&octets)), WHOLE);
        assert_eq!(decode_wire(LinkType::RAW, 38, &octets[..28]).map(|packet| packet.source_port), Ok(0));
        assert_eq!(decode_wire(LinkType::RAW, 38, &octets[..27]), Err(Ignored::Truncated));
        octets[3] = 27;
        assert_eq!(decode_wire(LinkType::RAW, 38, &octets[..27]), Err(Ignored::Malformed));
    }

    #[test]
    fn octets_are_the_total_length_whatever_was_captured() {
        let octets = ipv4_packet(UDP, [0, 0], &[], &UDP_HEADER);
        assert_eq!(decode_wire(LinkType::RAW, 30, &octets[..20]).map(|packet| packet.octets), Ok(30));
        let octets = ipv6_packet(UDP, &UDP_HEADER);
        assert_eq!(decode_wire(LinkType::RAW, 50, &octets[..40]).map(|packet| packet.octets), Ok(50));
    }

    #[test]
    fn a_length_of_0_counts_as_the_wire_length_less_what_precedes_the_ip_header() {
        let mut v4 = ipv4_packet(UDP, [0, 0], &[], &UDP_HEADER);
        v4[3] = 0;
        let mut v6 = ipv6_packet(UDP, &UDP_HEADER);
        v6[5] = 0;
        for (kind, packet, least) in [([0x08, 0x00], v4, 20), ([0x86, 0xDD], v6, 40)] {
            let frame = [&[0; 12][..], &kind, &packet].concat();
            for (wire_length, octets) in [(70_014, 70_000), (u32::MAX, u32::MAX - 14), (least + 14, least)] {
                let decoded = decode_wire(LinkType::ETHERNET, wire_length, &frame);
                assert_eq!(decoded.map(|packet| packet.octets), Ok(octets));
            }
            for wire_length in [0, 13, 14, least + 13] {
                assert_eq!(decode_wire(LinkType::ETHERNET, wire_length, &frame), Err(Ignored::Malformed));
            }
        }
    }

    #[test]
    fn the_transport_header_is_looked_for_inside_the_total_length_so_padding_is_never_read() {
        let mut v4 = ipv4_packet(UDP, [0, 0], &[], &UDP_HEADER);
        v4[3] = 23;
        assert_eq!(upper(decode_raw(&v4)), (UDP, 0, 0, Fragment::Whole, 0));
        v4[3] = 24;
        assert_eq!(upper(decode_raw(&v4)), WHOLE);
        let mut v6 = ipv6_packet(UDP, &UDP_HEADER);
        v6[5] = 3;
        assert_eq!(upper(decode_raw(&v6)), (UDP, 0, 0, Fragment::Whole, 0));
        v6[5] = 4;
        assert_eq!(upper(decode_raw(&v6)), WHOLE);
    }

    #[test]
    fn the_transport_header_is_looked_for_inside_what_was_captured() {
        let v4 = ipv4_packet(UDP, [0, 0], &[], &UDP_HEADER);
        assert_eq!(upper(decode_wire(LinkType::RAW, 30, &v4[..23])), (UDP, 0, 0, Fragment::Whole, 0));
        assert_eq!(upper(decode_wire(LinkType::RAW, 30, &v4[..24])), WHOLE);
    }

    #[test]
    fn every_extension_header_is_walked_to_the_last_next_header() {
        for kind in [0, 43, 60, 135, 139, 140] {
            let long = [&[UDP, 1][..], &[0; 14], &UDP_HEADER].concat();
            assert_eq!(upper(decode_raw(&ipv6_packet(kind, &long))), WHOLE, "header {kind}");
        }
        // AH counts in words, less two: four words here.
        let authenticated = [&[UDP, 2][..], &[0; 14], &UDP_HEADER].concat();
        assert_eq!(upper(decode_raw(&ipv6_packet(51, &authenticated))), WHOLE);
        let chain = [&[60, 0, 0, 0, 0, 0, 0, 0][..], &[43, 0, 0, 0, 0, 0, 0, 0], &[UDP, 0, 0, 0, 0, 0, 0, 0]];
        let chain = [&chain.concat()[..], &UDP_HEADER].concat();
        assert_eq!(upper(decode_raw(&ipv6_packet(0, &chain))), WHOLE);
    }

    #[test]
    fn an_extension_header_that_does_not_lie_wholly_inside_is_not_walked() {
        let whole = ipv6_packet(0, &[&[60, 0, 0, 0, 0, 0, 0, 0][..], &[UDP, 1], &[0; 14]].concat());
        assert_eq!(decode_raw(&whole).map(|packet| packet.protocol), Ok(UDP));
        for (captured, protocol) in [(63, 60), (56, 60), (48, 60), (47, 0), (40, 0)] {
            let packet = decode_wire(LinkType::RAW, 64, &whole[..captured]);
            assert_eq!(packet.map(|packet| packet.protocol), Ok(protocol), "{captured} octets");
        }
        // The same by the packet's own length, though the octets are there.
        let mut short = whole.clone();
        short[5] = 23;
        assert_eq!(decode_raw(&short).map(|packet| packet.protocol), Ok(60));
    }

    #[test]
    fn over_ipv4_the_protocol_is_the_headers_own() {
        for protocol in [0, 43, 44, 51, 60, 41, 4, 47] {
            let octets = ipv4_packet(protocol, [0, 0], &[], &[UDP; 24]);
            assert_eq!(upper(decode_raw(&octets)), (protocol, 0, 0, Fragment::Whole, 0));
        }
    }

    #[test]
    fn a_tunnel_is_metered_by_its_outer_header() {
        let inner = ipv4_packet(UDP, [0, 0], &[], &UDP_HEADER);
        assert_eq!(upper(decode_raw(&ipv4_packet(4, [0, 0], &[], &inner))).0, 4);
        assert_eq!(upper(decode_raw(&ipv6_packet(4, &inner))).0, 4);
        assert_eq!(upper(decode_raw(&ipv6_packet(41, &ipv6_packet(UDP, &UDP_HEADER)))).0, 41);
    }

    #[test]
    fn an_ipv4_first_fragment_is_metered_like_a_whole_packet() {
        let first = decode_raw(&ipv4_packet(UDP, [0x20, 0], &[], &UDP_HEADER));
        assert_eq!(upper(first), (UDP, 1000, 53, Fragment::First, 0x1234));
    }

    #[test]
    fn a_later_fragment_has_neither_ports_nor_flags_of_its_own() {
        let later = decode_raw(&ipv4_packet(TCP, [0x00, 1], &[], &[0xFF; 20])).expect("it is metered");
        assert_eq!(upper(Ok(later)), (TCP, 0, 0, Fragment::Later, 0x1234));
        assert_eq!(later.tcp_flags, 0);
        let more = decode_raw(&ipv4_packet(TCP, [0x20, 1], &[], &[0xFF; 20]));
        assert_eq!(upper(more), (TCP, 0, 0, Fragment::Later, 0x1234));
        let octets = [fragment_header(TCP, [0x00, 0x08]), vec![0xFF; 20]].concat();
        let later = decode_raw(&ipv6_packet(FRAGMENT, &octets)).expect("it is metered");
        assert_eq!(upper(Ok(later)), (TCP, 0, 0, Fragment::Later, 0x0102_0304));
        assert_eq!(later.tcp_flags, 0);
    }

    #[test]
    fn the_evil_bit_and_do_not_fragment_make_no_fragment() {
        for bits in [[0x80, 0], [0x40, 0], [0xC0, 0]] {
            assert_eq!(upper(decode_raw(&ipv4_packet(UDP, bits, &[], &UDP_HEADER))), WHOLE);
        }
    }

    #[test]
    fn an_ipv6_first_fragment_is_metered_like_a_whole_packet() {
        let octets = [fragment_header(UDP, [0, 1]), UDP_HEADER.to_vec()].concat();
        let first = decode_raw(&ipv6_packet(FRAGMENT, &octets));
        assert_eq!(upper(first), (UDP, 1000, 53, Fragment::First, 0x0102_0304));
    }

    #[test]
    fn an_ipv6_atomic_fragment_is_a_whole_packet() {
        let octets = [fragment_header(UDP, [0, 0]), UDP_HEADER.to_vec()].concat();
        assert_eq!(upper(decode_raw(&ipv6_packet(FRAGMENT, &octets))), WHOLE);
    }

    #[test]
    fn the_walk_ends_behind_the_header_of_a_later_fragment() {
        let octets = [fragment_header(60, [0, 8]), vec![UDP, 0, 0, 0, 0, 0, 0, 0]].concat();
        let later = decode_raw(&ipv6_packet(FRAGMENT, &octets));
        assert_eq!(upper(later), (60, 0, 0, Fragment::Later, 0x0102_0304));
    }

    #[test]
    fn of_several_fragment_headers_an_atomic_one_takes_nothing_back() {
        let mut atomic = fragment_header(UDP, [0, 0]);
        atomic[4..].copy_from_slice(&[9, 9, 9, 9]);
        let octets = [fragment_header(FRAGMENT, [0, 1]), atomic, UDP_HEADER.to_vec()].concat();
        let first = decode_raw(&ipv6_packet(FRAGMENT, &octets));
        assert_eq!(upper(first), (UDP, 1000, 53, Fragment::First, 0x0102_0304));
        let mut later = fragment_header(UDP, [0, 8]);
        later[4..].copy_from_slice(&[9, 9, 9, 9]);
        let octets = [fragment_header(FRAGMENT, [0, 1]), later, UDP_HEADER.to_vec()].concat();
        let later = decode_raw(&ipv6_packet(FRAGMENT, &octets));
        assert_eq!(upper(later), (UDP, 0, 0, Fragment::Later, 0x0909_0909));
    }

    #[test]
    fn the_short_way_and_the_long_way_give_the_same_packet() {
        let mut random = Random(7);
        let mut both = 0;
        for _ in 0..50_000 {
            let stack = stacked(&mut random);
            let frame = stack.frame();
            let (Ok(packet), Ok(at)) = (decode(&frame), link::walk(frame.link_type, frame.data)) else {
                continue;
            };
            let octets = &frame.data[at.at..];
            let (long, icmp) = match at.version {
                IpVersion::V4 => (any_ipv4(octets, at.at, frame.wire_length), ICMP),
                IpVersion::V6 => (any_ipv6(octets, at.at, frame.wire_length), ICMPV6),
            };
            let long = long.expect("the short way took it");
            let transport = transport::read(long.protocol, icmp, long.payload);
            let expected = Packet {
                octets: long.total,
                protocol: long.protocol,
                fragment: long.fragment,
                fragment_id: long.fragment_id,
                source_port: transport.source_port,
                destination_port: transport.destination_port,
                tcp_flags: transport.tcp_flags,
                vlan: at.vlan,
                ..packet
            };
            assert_eq!(packet, expected, "{:02x?}", frame.data);
            both += 1;
        }
        assert!(both > 20_000, "{both} packets");
    }
}
