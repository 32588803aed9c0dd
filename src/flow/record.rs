//! A Flow Record (RFC 7011 §2): the finished measurement of one unidirectional Flow.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::decode::IpVersion;
use crate::flow::EndReason;
use crate::time::Timestamp;

/// Index of each flag in [`FlowRecord::flag_counts`]: the bit number of the flag, FIN = 0 … AE = 8.
pub const FLAG_COUNTS: usize = 9;

/// A finished Flow. Plain data; each field is measured over the packets of this record alone.
///
/// Times, ports, flags and the like stand in runs as they do in a table's entry, so that several are copied at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
    /// Source port; 0 where there is none.
    pub source_port: u16,
    /// Destination port; ICMP type × 256 + code; 0 where there is none.
    pub destination_port: u16,
    /// The interface the first packet came in by.
    pub interface: u32,
    /// TCP flags of the first packet read.
    pub initial_flags: u16,
    /// The OR of the TCP flags of all other packets.
    pub later_flags: u16,
    /// The outermost VLAN identifier of the first packet; 0 for none.
    pub vlan: u16,
    /// IP protocol.
    pub protocol: u8,
    /// Type of service / traffic class of the first packet.
    pub tos: u8,
    /// IPv4 or IPv6.
    pub ip_version: IpVersion,
    /// Why it ended.
    pub end_reason: EndReason,
}

impl FlowRecord {
    /// The OR of the TCP flags of all packets (tcpControlBits, RFC 9565).
    #[inline]
    pub fn tcp_flags(&self) -> u16 {
        self.initial_flags | self.later_flags
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

/// Where a table puts the records of Flows that end.
pub trait RecordSink {
    /// Takes a record, which `write` writes, every field of it, where it is to stay: a record that is copied on its way
    /// costs as much again, for its narrow fields must have come to rest before they can be read in wide pieces.
    fn put(&mut self, write: impl FnOnce(&mut FlowRecord));
}

impl<F: FnMut(FlowRecord)> RecordSink for F {
    #[inline]
    fn put(&mut self, write: impl FnOnce(&mut FlowRecord)) {
        let mut record = FlowRecord::default();
        write(&mut record);
        self(record);
    }
}
