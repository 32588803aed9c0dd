//! A Flow Record (RFC 7011 §2): the finished measurement of one unidirectional Flow.

use std::mem::offset_of;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytemuck::NoUninit;

use crate::decode::IpVersion;
use crate::flow::EndReason;
use crate::time::Timestamp;

/// Index of each flag in [`FlowRecord::flag_counts`]: the bit number of the flag, FIN = 0 … AE = 8.
pub const FLAG_COUNTS: usize = 9;

/// A finished Flow. Plain data; each field is measured over the packets of this record alone.
///
/// The order is chosen. Times stand as they do in a table's entry, so that they are copied at once. Two numbers that are sent
/// one after the other stand the other way round, so that their octets are put in network order together, and octets that are
/// sent one after the other stand as they are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, NoUninit)]
#[repr(C)]
pub struct FlowRecord {
    /// Source address; IPv4 in the first four octets, the others 0.
    pub source: [u8; 16],
    /// Destination address; IPv4 in the first four octets, the others 0.
    pub destination: [u8; 16],
    /// Timestamp of the earliest packet.
    pub start: Timestamp,
    /// Timestamp of the latest packet.
    pub end: Timestamp,
    /// Octets of the packets, IP headers included.
    pub octets: u64,
    /// Packets.
    pub packets: u64,
    /// When on the observation clock the record was due: its deadline, or the clock where it was ended early.
    pub ended: Timestamp,
    /// For each named TCP flag, by its bit number (FIN 0 … AE 8), the packets that carried it.
    pub flag_counts: [u32; FLAG_COUNTS],
    /// Destination port; ICMP type × 256 + code; 0 where there is none.
    pub destination_port: u16,
    /// Source port; 0 where there is none.
    pub source_port: u16,
    /// The OR of the TCP flags of all other packets than the first.
    pub later_flags: u16,
    /// TCP flags of the first packet read.
    pub initial_flags: u16,
    /// The outermost VLAN identifier of the first packet; 0 for none.
    pub vlan: u16,
    /// IP protocol.
    pub protocol: u8,
    /// IPv4 or IPv6.
    pub ip_version: IpVersion,
    /// Type of service / traffic class of the first packet.
    pub tos: u8,
    /// Why it ended.
    pub end_reason: EndReason,
    /// Always 0, so that all octets of a record are of some field, and several are read as one.
    pub padding: [u8; 2],
    /// The interface the first packet came in by.
    pub interface: u32,
}

impl FlowRecord {
    /// The OR of the TCP flags of all packets (tcpControlBits, RFC 9565).
    #[inline]
    pub fn tcp_flags(&self) -> u16 {
        self.initial_flags | self.later_flags
    }

    /// Both ports as one number, the source port above.
    #[inline(always)]
    pub(crate) fn ports(&self) -> u32 {
        if cfg!(target_endian = "big") {
            return u32::from(self.source_port) << 16 | u32::from(self.destination_port);
        }
        u32::from_le_bytes(self.octets_at(offset_of!(FlowRecord, destination_port)))
    }

    /// The initial TCP flags above the later ones.
    #[inline(always)]
    pub(crate) fn both_flags(&self) -> u32 {
        if cfg!(target_endian = "big") {
            return u32::from(self.initial_flags) << 16 | u32::from(self.later_flags);
        }
        u32::from_le_bytes(self.octets_at(offset_of!(FlowRecord, later_flags)))
    }

    /// The IP version above the protocol above the VLAN.
    #[inline(always)]
    pub(crate) fn vlan_protocol_version(&self) -> u32 {
        if cfg!(target_endian = "big") {
            return (self.ip_version as u32) << 24 | u32::from(self.protocol) << 16 | u32::from(self.vlan);
        }
        u32::from_le_bytes(self.octets_at(offset_of!(FlowRecord, vlan)))
    }

    /// Protocol, IP version, type of service, and an octet of no meaning.
    #[inline(always)]
    pub(crate) fn protocol_version_tos(&self) -> [u8; 4] {
        self.octets_at(offset_of!(FlowRecord, protocol))
    }

    #[inline(always)]
    fn octets_at<const COUNT: usize>(&self, at: usize) -> [u8; COUNT] {
        *bytemuck::bytes_of(self)[at..].first_chunk().expect("a field lies within its record")
    }

    /// The source address.
    pub fn source_address(&self) -> IpAddr {
        address(self.ip_version, &self.source)
    }

    /// The destination address.
    pub fn destination_address(&self) -> IpAddr {
        address(self.ip_version, &self.destination)
    }
}

fn address(version: IpVersion, octets: &[u8; 16]) -> IpAddr {
    match version {
        IpVersion::V4 => IpAddr::V4(Ipv4Addr::new(octets[0], octets[1], octets[2], octets[3])),
        IpVersion::V6 => IpAddr::V6(Ipv6Addr::from(*octets)),
    }
}

/// What there is to be said of a Flow that has ended.
pub trait WriteRecord {
    /// Writes every field of the record but its padding.
    fn write(self, record: &mut FlowRecord);
}

/// Where a table puts the records of Flows that end.
pub trait RecordSink {
    /// Takes the record of this Flow, written where it is to stay: a record that is copied on its way costs as much again, for
    /// its narrow fields must have come to rest before they can be read in wide pieces.
    fn put(&mut self, flow: impl WriteRecord);
}

impl<F: FnMut(FlowRecord)> RecordSink for F {
    #[inline]
    fn put(&mut self, flow: impl WriteRecord) {
        let mut record = FlowRecord::default();
        flow.write(&mut record);
        self(record);
    }
}
