//! The IP header and IPv6's extension headers.
//!
//! In: a [`Frame`] and where its IP header begins. Out: a [`Packet`], complete but for a later fragment's ports. IPv4 is
//! RFC 791, IPv6 and its extension headers are RFC 8200, AH is RFC 4302, an atomic fragment is RFC 6946.
//!
//! The fixed headers are read through etherparse's header slices; where one refuses, the octets are looked at again out
//! of line, for a slice's error and the reason a frame is ignored for are not the same thing.

use etherparse::{IpNumber, Ipv4HeaderSlice, Ipv6FragmentHeaderSlice, Ipv6HeaderSlice};

use super::transport::{self, ICMP, ICMPV6, TCP, Transport, UDP};
use super::{Fragment, Ignored, IpVersion, Packet};
use crate::capture::Frame;

/// Octets of an IPv4 header without options, RFC 791 §3.1.
const IPV4_LEAST: usize = etherparse::Ipv4Header::MIN_LEN;
/// Octets of the fixed IPv6 header, which its payload length does not count, RFC 8200 §3.
const IPV6_FIXED: usize = etherparse::Ipv6Header::LEN;
/// No extension header is shorter, RFC 8200 §4.
const EXTENSION_LEAST: usize = 8;

const HOP_BY_HOP: u8 = IpNumber::IPV6_HEADER_HOP_BY_HOP.0;
const ROUTING: u8 = IpNumber::IPV6_ROUTE_HEADER.0;
const FRAGMENT: u8 = IpNumber::IPV6_FRAGMENTATION_HEADER.0;
const AUTHENTICATION: u8 = IpNumber::AUTHENTICATION_HEADER.0;
const DESTINATION_OPTIONS: u8 = IpNumber::IPV6_DESTINATION_OPTIONS.0;
const MOBILITY: u8 = IpNumber::MOBILITY_HEADER.0;
const HIP: u8 = IpNumber::HIP.0;
const SHIM6: u8 = IpNumber::SHIM6.0;

/// Decodes the IPv4 packet that begins `at` octets into the frame.
#[inline(always)]
pub(super) fn ipv4(frame: &Frame<'_>, at: usize, vlan: u16, packet: &mut Packet) -> Result<(), Ignored> {
    let octets = frame.data.get(at..).ok_or(Ignored::Truncated)?;
    let Ok(header) = Ipv4HeaderSlice::from_slice(octets) else {
        return Err(why_no_ipv4_header(frame, at, octets));
    };
    let total = match header.total_len() {
        0 => length_on_wire(frame, at)?,
        total => u32::from(total),
    };
    let header_length = header.slice().len();
    if (total as usize) < header_length {
        return Err(Ignored::Malformed);
    }
    let end = octets.len().min(total as usize);
    let protocol = header.protocol().0;
    let (mut fragment, mut fragment_id) = (Fragment::Whole, 0);
    let offset = header.fragments_offset().value();
    if offset != 0 || header.more_fragments() {
        fragment = if offset == 0 { Fragment::First } else { Fragment::Later };
        fragment_id = u32::from(header.identification());
    }
    let transport = match (fragment, octets.get(header_length..end)) {
        (Fragment::Whole | Fragment::First, Some(payload)) => transport::read(protocol, ICMP, payload),
        _ => Transport::default(),
    };
    *packet = Packet {
        timestamp: frame.timestamp,
        source: widened(header.source()),
        destination: widened(header.destination()),
        octets: total,
        interface: frame.interface,
        fragment_id,
        source_port: transport.source_port,
        destination_port: transport.destination_port,
        tcp_flags: transport.tcp_flags,
        vlan,
        protocol,
        tos: header.slice()[1],
        ip_version: IpVersion::V4,
        fragment,
    };
    Ok(())
}

/// Decodes the IPv6 packet that begins `at` octets into the frame.
#[inline(always)]
pub(super) fn ipv6(frame: &Frame<'_>, at: usize, vlan: u16, packet: &mut Packet) -> Result<(), Ignored> {
    let octets = frame.data.get(at..).ok_or(Ignored::Truncated)?;
    let Ok(header) = Ipv6HeaderSlice::from_slice(octets) else {
        return Err(why_no_header(octets, IpVersion::V6));
    };
    let total = match header.payload_length() {
        // A jumbogram (RFC 2675), or a packet that segmentation offload has not cut yet.
        0 => length_on_wire(frame, at)?,
        payload => IPV6_FIXED as u32 + u32::from(payload),
    };
    if (total as usize) < IPV6_FIXED {
        return Err(Ignored::Malformed);
    }
    let end = octets.len().min(total as usize);
    let mut reached = Reached {
        protocol: header.next_header().0,
        octets: octets.get(IPV6_FIXED..end).unwrap_or_default(),
        fragment: Fragment::Whole,
        fragment_id: 0,
    };
    if !matches!(reached.protocol, TCP | UDP | ICMPV6) {
        reached = extension_headers(reached);
    }
    let transport = match reached.fragment {
        Fragment::Whole | Fragment::First => transport::read(reached.protocol, ICMPV6, reached.octets),
        Fragment::Later => Transport::default(),
    };
    *packet = Packet {
        timestamp: frame.timestamp,
        source: header.source(),
        destination: header.destination(),
        octets: total,
        interface: frame.interface,
        fragment_id: reached.fragment_id,
        source_port: transport.source_port,
        destination_port: transport.destination_port,
        tcp_flags: transport.tcp_flags,
        vlan,
        protocol: reached.protocol,
        tos: header.traffic_class(),
        ip_version: IpVersion::V6,
        fragment: reached.fragment,
    };
    Ok(())
}

/// An IPv4 address as a [`Packet`] holds it.
#[inline(always)]
fn widened(address: [u8; 4]) -> [u8; 16] {
    u128::from(u32::from_le_bytes(address)).to_le_bytes()
}

/// The IP packet's octets where its length field is 0: what was on the wire less what precedes the IP header. A wire
/// length that ends before the IP header is shorter than any header, and so malformed.
#[cold]
fn length_on_wire(frame: &Frame<'_>, at: usize) -> Result<u32, Ignored> {
    u32::try_from(at).ok().and_then(|at| frame.wire_length.checked_sub(at)).ok_or(Ignored::Malformed)
}

/// Why there is no fixed header of `version` in `octets`, which may still be long enough for one.
#[cold]
fn why_no_header(octets: &[u8], version: IpVersion) -> Ignored {
    match octets.first() {
        Some(first) if first >> 4 != version as u8 => Ignored::Malformed,
        _ => Ignored::Truncated,
    }
}

/// Why there is no IPv4 header in `octets`: a header that cannot be is malformed even where its options were cut off.
#[cold]
fn why_no_ipv4_header(frame: &Frame<'_>, at: usize, octets: &[u8]) -> Ignored {
    let Some(&[first, _, high, low, ..]) = octets.first_chunk::<IPV4_LEAST>() else {
        return why_no_header(octets, IpVersion::V4);
    };
    let header_length = usize::from(first & 0x0F) * 4;
    let total = match u16::from_be_bytes([high, low]) {
        0 => length_on_wire(frame, at),
        total => Ok(u32::from(total)),
    };
    match total {
        Ok(total)
            if first >> 4 == IpVersion::V4 as u8
                && header_length >= IPV4_LEAST
                && total as usize >= header_length =>
        {
            Ignored::Truncated
        }
        _ => Ignored::Malformed,
    }
}

/// How far an IPv6 packet's chain of headers has been walked.
#[derive(Clone, Copy)]
struct Reached<'a> {
    /// The last next-header value.
    protocol: u8,
    /// The octets from the header of that value on, as far as they were captured and belong to the packet.
    octets: &'a [u8],
    fragment: Fragment,
    fragment_id: u32,
}

/// Walks extension headers as far as they lie wholly inside the octets that are there.
///
/// A chain may hold several fragment headers, though no sender makes such: the packet is a fragment if one of them is
/// more than an atomic one (which is a whole packet, RFC 6946 §4), the last such gives the identification, and the last of
/// all the offset. Behind an offset other than 0 lie the octets of a header's middle, so the walk ends there.
#[inline(never)]
fn extension_headers(mut reached: Reached<'_>) -> Reached<'_> {
    while let Some(&[next, length, ..]) = reached.octets.first_chunk::<EXTENSION_LEAST>() {
        let header_length = match reached.protocol {
            // In units of eight octets, not counting the first: RFC 8200 §4.3, 4.4, 4.6, RFC 6275 §6.1.1, RFC 7401 §5.1,
            // RFC 5533 §5.1.
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS | MOBILITY | HIP | SHIM6 => {
                (usize::from(length) + 1) * 8
            }
            // In units of four octets, less two: RFC 4302 §2.2.
            AUTHENTICATION => (usize::from(length) + 2) * 4,
            FRAGMENT => EXTENSION_LEAST,
            _ => break,
        };
        let Some(rest) = reached.octets.get(header_length..) else {
            break;
        };
        if reached.protocol == FRAGMENT
            && let Ok(header) = Ipv6FragmentHeaderSlice::from_slice(reached.octets)
        {
            let later = header.fragment_offset().value() != 0;
            if later || header.more_fragments() {
                reached.fragment_id = header.identification();
                reached.fragment = Fragment::First;
            }
            if later {
                return Reached { protocol: next, octets: rest, fragment: Fragment::Later, ..reached };
            }
        }
        reached.protocol = next;
        reached.octets = rest;
    }
    reached
}
