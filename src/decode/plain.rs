//! What nearly every packet is, a whole TCP or UDP packet in untagged Ethernet, read in a few steps in line; a second copy of
//! them, out of line, takes one VLAN tag and protocols without ports.
//!
//! In: an Ethernet frame. Out: a packet, as `link`, `network` and `transport` would have given it layer by layer; or nothing, and
//! they are to say what it is.

use etherparse::Ethernet2Header;

use super::network::{IPV4_FRAGMENT, IPV4_LEAST, IPV4_PLAIN, IPV6_FIXED};
use super::transport::{self, ICMP, ICMPV6, Transport};
use super::{Fields, Fragment, Place};
use crate::capture::Frame;

/// Ethernet type and first octet of a plain IPv4 packet, the type of service left out.
const IPV4_BEGINS: u32 = u32::from_ne_bytes([0x08, 0x00, IPV4_PLAIN, 0]);
const IPV4_BEGINS_MASK: u32 = u32::from_ne_bytes([0xFF, 0xFF, 0xFF, 0]);
/// Ethernet type and version of an IPv6 packet, the traffic class left out.
const IPV6_BEGINS: u32 = u32::from_ne_bytes([0x86, 0xDD, 0x60, 0]);
const IPV6_BEGINS_MASK: u32 = u32::from_ne_bytes([0xFF, 0xFF, 0xF0, 0]);
/// Where the type field of an Ethernet frame lies, the last of its header.
const TYPE: usize = Ethernet2Header::LEN - 2;
/// Octets of an Ethernet frame without tags in which all lies that is read of a plain IPv4 packet.
const PLAIN_IPV4: usize = Ethernet2Header::LEN + IPV4_LEAST + transport::READ;
/// The same for IPv6.
const PLAIN_IPV6: usize = Ethernet2Header::LEN + IPV6_FIXED + transport::READ;

/// A packet of the kind that nearly every one is.
pub(super) enum Plain {
    V4 { source: [u8; 4], destination: [u8; 4], fields: Fields },
    V6 { source: [u8; 16], destination: [u8; 16], fields: Fields },
}

impl Plain {
    #[inline(always)]
    pub(super) fn put_into<P: Place>(self, place: P) -> P::Put {
        match self {
            Plain::V4 { source, destination, fields } => place.put_ipv4(source, destination, fields),
            Plain::V6 { source, destination, fields } => place.put_ipv6(source, destination, fields),
        }
    }
}

/// The packet in an Ethernet frame, if it is whole, without options or extension headers, of a protocol that has ports (or,
/// if `ANY`, of another), and all that is read of it was captured and belongs to it. Nothing is said of any other. `untagged`
/// is the frame's data, but for a tag; of what precedes the type field, nothing is read.
#[inline(always)]
pub(super) fn read<const ANY: bool>(frame: &Frame<'_>, untagged: &[u8], vlan: u16) -> Option<Plain> {
    let octets = untagged.first_chunk::<PLAIN_IPV4>()?;
    let fields = |total, protocol, tos, transport: Transport| Fields {
        timestamp: frame.timestamp,
        octets: total,
        interface: frame.interface,
        fragment_id: 0,
        source_port: transport.source_port,
        destination_port: transport.destination_port,
        tcp_flags: transport.tcp_flags,
        vlan,
        protocol,
        tos,
        fragment: Fragment::Whole,
    };
    // The type, and the two octets behind it with version, header length and type of service: one comparison.
    let begins = u32::from_ne_bytes(part(octets, TYPE)?);
    if begins & IPV4_BEGINS_MASK == IPV4_BEGINS {
        let header = part::<IPV4_LEAST>(octets, Ethernet2Header::LEN)?;
        let total = u16::from_be_bytes(part(&header, 2)?);
        let fragment = u16::from_ne_bytes(part(&header, 6)?);
        if fragment & IPV4_FRAGMENT.to_be() != 0 || usize::from(total) < IPV4_LEAST + transport::READ {
            return None;
        }
        let (tos, protocol) = (header[1], header[9]);
        let octets = part(octets, Ethernet2Header::LEN + IPV4_LEAST)?;
        let transport = match transport::with_ports(protocol, &octets) {
            Some(transport) => transport,
            None if ANY => transport::without_ports(protocol, ICMP, &octets),
            None => return None,
        };
        let fields = fields(total.into(), protocol, tos, transport);
        return Some(Plain::V4 { source: part(&header, 12)?, destination: part(&header, 16)?, fields });
    }
    if begins & IPV6_BEGINS_MASK == IPV6_BEGINS {
        let octets = untagged.first_chunk::<PLAIN_IPV6>()?;
        let header = part::<IPV6_FIXED>(octets, Ethernet2Header::LEN)?;
        let payload = u16::from_be_bytes(part(&header, 4)?);
        if usize::from(payload) < transport::READ {
            return None;
        }
        let (tos, protocol) = ((u16::from_be_bytes(part(&header, 0)?) >> 4) as u8, header[6]);
        let octets = part(octets, Ethernet2Header::LEN + IPV6_FIXED)?;
        let transport = match transport::with_ports(protocol, &octets) {
            Some(transport) => transport,
            // Another one may be an extension header.
            None if ANY && protocol == ICMPV6 => transport::without_ports(protocol, ICMPV6, &octets),
            None => return None,
        };
        let fields = fields(IPV6_FIXED as u32 + u32::from(payload), protocol, tos, transport);
        return Some(Plain::V6 { source: part(&header, 8)?, destination: part(&header, 24)?, fields });
    }
    None
}

/// The `N` octets at `at`, if they are there.
#[inline(always)]
fn part<const N: usize>(octets: &[u8], at: usize) -> Option<[u8; N]> {
    octets.get(at..)?.first_chunk().copied()
}
