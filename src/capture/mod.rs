//! The Observation Point (RFC 5470 §2): where frames come from.
//!
//! In: capture files ([`mod@file`]) or an interface ([`live`]). Out: a [`Frame`] at a time, borrowed from the source's
//! buffer, in the order they are to be metered.

pub mod file;
pub mod filter;
pub mod live;

use serde::Serialize;

use crate::time::Timestamp;

/// One frame as it was captured.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// When it was captured.
    pub timestamp: Timestamp,
    /// Octets it had on the wire, link-layer header included; `data` may be shorter (a snaplen cut it) or even longer.
    pub wire_length: u32,
    /// What its first header is.
    pub link_type: LinkType,
    /// The interface it came in by: the pcapng interface number, ifIndex on a live interface, else 0.
    pub interface: u32,
    /// The captured octets, from the link-layer header on.
    pub data: &'a [u8],
}

/// A link-layer header type, by its number in capture files (LINKTYPE_ values of the pcap format).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LinkType(pub u16);

impl LinkType {
    /// BSD loopback: a 4-octet address family in the capturing host's byte order.
    pub const NULL: LinkType = LinkType(0);
    /// Ethernet.
    pub const ETHERNET: LinkType = LinkType(1);
    /// Raw IP, as some BSDs number it.
    pub const RAW_BSD: LinkType = LinkType(12);
    /// Raw IP, as OpenBSD numbers it.
    pub const RAW_OPENBSD: LinkType = LinkType(14);
    /// Raw IP: the version nibble tells IPv4 from IPv6.
    pub const RAW: LinkType = LinkType(101);
    /// OpenBSD loopback: a 4-octet address family in network byte order.
    pub const LOOP: LinkType = LinkType(108);
    /// Linux "cooked" capture, version 1.
    pub const LINUX_SLL: LinkType = LinkType(113);
    /// Raw IPv4.
    pub const IPV4: LinkType = LinkType(228);
    /// Raw IPv6.
    pub const IPV6: LinkType = LinkType(229);
    /// Linux "cooked" capture, version 2.
    pub const LINUX_SLL2: LinkType = LinkType(276);
}

/// What the kernel and the interface say of a live capture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CaptureDrops {
    /// Packets that the kernel handed over or dropped for want of room in its ring.
    pub received: u64,
    /// Packets that the kernel dropped for want of room in its ring.
    pub dropped_by_kernel: u64,
    /// Packets that the interface or its driver dropped.
    pub dropped_by_interface: u64,
}
