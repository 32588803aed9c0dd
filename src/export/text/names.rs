//! Words for numbers: protocols, TCP flags, ICMP types, end reasons.

use crate::decode::IpVersion;
use crate::flow::{EndReason, FlowRecord};

/// The nine named TCP flags by their bit number, as CSV and JSON call their counts.
pub const FLAG_NAMES: [&str; 9] = ["fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr", "ae"];

/// Letters of the twelve flag bits, FIN last. The last eight are the usual `CEUAPRSF`; before them `e` is AE (as
/// tcpdump writes it), and `1`, `2`, `3` are the unassigned bits 0x200, 0x400 and 0x800.
const FLAG_LETTERS: &[u8; 12] = b"321eCEUAPRSF";

/// Appends TCP flags as letters, a dot for each that is not set, FIN rightmost: `...AP.SF`. Eight places, and more in
/// front only where AE or an unassigned bit is set: `e..A....`.
#[inline]
pub fn flag_letters(out: &mut Vec<u8>, flags: u16) {
    let flags = flags & 0xfff;
    let places = (16 - flags.leading_zeros() as usize).max(8);
    for bit in (0..places).rev() {
        out.push(if flags >> bit & 1 == 1 { FLAG_LETTERS[11 - bit] } else { b'.' });
    }
}

/// Why a record ended, in a word.
#[inline]
pub fn end_reason(reason: EndReason) -> &'static str {
    match reason {
        EndReason::Idle => "idle",
        EndReason::Active => "active",
        EndReason::End => "end",
        EndReason::Forced => "forced",
        EndReason::LackOfResources => "resources",
    }
}

/// The ICMP type and code of a record of ICMP over IPv4 or ICMPv6 over IPv6, from its destination port.
#[inline]
pub fn icmp(record: &FlowRecord) -> Option<(u8, u8)> {
    let [icmp_type, code] = record.destination_port.to_be_bytes();
    (record.protocol == record.ip_version.icmp()).then_some((icmp_type, code))
}

/// The name of an ICMP (IPv4) or ICMPv6 (IPv6) type, where it is one often seen.
#[inline]
pub fn icmp_type(version: IpVersion, icmp_type: u8) -> Option<&'static str> {
    Some(match (version, icmp_type) {
        (IpVersion::V4, 0) => "echo reply",
        (IpVersion::V4, 3) => "unreachable",
        (IpVersion::V4, 4) => "source quench",
        (IpVersion::V4, 5) => "redirect",
        (IpVersion::V4, 8) => "echo request",
        (IpVersion::V4, 9) => "router advert",
        (IpVersion::V4, 10) => "router solicit",
        (IpVersion::V4, 11) => "time exceeded",
        (IpVersion::V4, 12) => "bad parameter",
        (IpVersion::V4, 13) => "timestamp",
        (IpVersion::V4, 14) => "timestamp reply",
        (IpVersion::V6, 1) => "unreachable",
        (IpVersion::V6, 2) => "too big",
        (IpVersion::V6, 3) => "time exceeded",
        (IpVersion::V6, 4) => "bad parameter",
        (IpVersion::V6, 128) => "echo request",
        (IpVersion::V6, 129) => "echo reply",
        (IpVersion::V6, 130) => "mld query",
        (IpVersion::V6, 131) => "mld report",
        (IpVersion::V6, 132) => "mld done",
        (IpVersion::V6, 133) => "router solicit",
        (IpVersion::V6, 134) => "router advert",
        (IpVersion::V6, 135) => "neighbor solicit",
        (IpVersion::V6, 136) => "neighbor advert",
        (IpVersion::V6, 137) => "redirect",
        (IpVersion::V6, 143) => "mld2 report",
        _ => return None,
    })
}

/// The name of an IP protocol (IANA's Assigned Internet Protocol Numbers), in lower case.
#[inline]
pub fn protocol(number: u8) -> Option<&'static str> {
    Some(match number {
        0 => "hopopt",
        1 => "icmp",
        2 => "igmp",
        4 => "ipip",
        6 => "tcp",
        8 => "egp",
        9 => "igp",
        17 => "udp",
        27 => "rdp",
        33 => "dccp",
        41 => "ipv6",
        43 => "route6",
        44 => "frag6",
        46 => "rsvp",
        47 => "gre",
        50 => "esp",
        51 => "ah",
        58 => "icmp6",
        59 => "nonxt6",
        60 => "opts6",
        88 => "eigrp",
        89 => "ospf",
        94 => "ipip94",
        97 => "etherip",
        98 => "encap",
        103 => "pim",
        108 => "ipcomp",
        112 => "vrrp",
        113 => "pgm",
        115 => "l2tp",
        124 => "isis",
        132 => "sctp",
        133 => "fc",
        135 => "mh6",
        136 => "udplite",
        137 => "mpls",
        138 => "manet",
        139 => "hip",
        140 => "shim6",
        143 => "ethernet",
        _ => return None,
    })
}

/// `part` of `whole` in per cent with one decimal place.
pub(crate) fn share(part: u64, whole: u64) -> String {
    let per_cent = if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 };
    format!("{per_cent:.1}%")
}
