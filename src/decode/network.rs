//! The IP header and IPv6's extension headers.
//!
//! In: a [`Frame`] and where its IP header begins. Out: a [`Packet`], complete but for a later fragment's ports. IPv4 is
//! RFC 791, IPv6 and its extension headers are RFC 8200, AH is RFC 4302, an atomic fragment is RFC 6946.
//!
//! Each version has two ways through it. What nearly every packet is (no options, no fragment, a length that is there) is
//! read in a few steps in line; the other way, out of line, reads every packet there is and names the reason where it
//! cannot, and so is also what the tests hold the first against.

use etherparse::{IpNumber, Ipv4HeaderSlice, Ipv6FragmentHeaderSlice, Ipv6HeaderSlice};

use super::transport::{self, ICMP, ICMPV6, TCP, UDP};
use super::{Fragment, Ignored, IpVersion, Packet};
use crate::capture::Frame;

/// Octets of an IPv4 header without options, RFC 791 §3.1.
const IPV4_LEAST: usize = etherparse::Ipv4Header::MIN_LEN;
/// Octets of the fixed IPv6 header, which its payload length does not count, RFC 8200 §3.
const IPV6_FIXED: usize = etherparse::Ipv6Header::LEN;
/// No extension header is shorter, RFC 8200 §4.
const EXTENSION_LEAST: usize = 8;

/// First octet of an IPv4 header without options: version 4, five words, RFC 791 §3.1.
const IPV4_PLAIN: u8 = 0x45;
/// More fragments, and the fragment offset: all 0 in a packet that is no fragment, RFC 791 §3.1.
const IPV4_FRAGMENT: u16 = 0x3FFF;

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

/// Decodes the IPv4 packet that begins `at` octets into the frame.
#[inline(always)]
pub(super) fn ipv4(frame: &Frame<'_>, at: usize, vlan: u16, packet: &mut Packet) -> Result<(), Ignored> {
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
    let transport = transport::read(carried.protocol, ICMP, carried.payload);
    *packet = Packet {
        timestamp: frame.timestamp,
        source: widened([s0, s1, s2, s3]),
        destination: widened([d0, d1, d2, d3]),
        octets: carried.total,
        interface: frame.interface,
        fragment_id: carried.fragment_id,
        source_port: transport.source_port,
        destination_port: transport.destination_port,
        tcp_flags: transport.tcp_flags,
        vlan,
        protocol: carried.protocol,
        tos,
        ip_version: IpVersion::V4,
        fragment: carried.fragment,
    };
    Ok(())
}

/// Decodes the IPv6 packet that begins `at` octets into the frame.
#[inline(always)]
pub(super) fn ipv6(frame: &Frame<'_>, at: usize, vlan: u16, packet: &mut Packet) -> Result<(), Ignored> {
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
    let transport = transport::read(carried.protocol, ICMPV6, carried.payload);
    *packet = Packet {
        timestamp: frame.timestamp,
        source: header.source(),
        destination: header.destination(),
        octets: carried.total,
        interface: frame.interface,
        fragment_id: carried.fragment_id,
        source_port: transport.source_port,
        destination_port: transport.destination_port,
        tcp_flags: transport.tcp_flags,
        vlan,
        protocol: carried.protocol,
        tos: header.traffic_class(),
        ip_version: IpVersion::V6,
        fragment: carried.fragment,
    };
    Ok(())
}

/// An IPv4 address as a [`Packet`] holds it, in one number so that it is stored in wide pieces: the hash of the key
/// reads it back at once, and a wide read of what was written in narrow pieces waits for them.
#[inline(always)]
fn widened(address: [u8; 4]) -> [u8; 16] {
    u128::from(u32::from_le_bytes(address)).to_le_bytes()
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
