//! Frames: headers written octet by octet around a payload that is never looked at.

use flowtap::capture::LinkType;
use flowtap::decode::{IpVersion, tcp_flags};

use super::Random;

/// Octets of a frame that are captured, as taps that do not keep payload do.
pub const SNAPLEN: usize = 96;

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;

/// What precedes the IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    Ethernet,
    Vlan,
    QinQ,
    Mpls,
    Pppoe,
    Null,
    Raw,
    Sll,
    Sll2,
}

impl Link {
    pub fn link_type(self) -> LinkType {
        match self {
            Link::Ethernet | Link::Vlan | Link::QinQ | Link::Mpls | Link::Pppoe => LinkType::ETHERNET,
            Link::Null => LinkType::NULL,
            Link::Raw => LinkType::RAW,
            Link::Sll => LinkType::LINUX_SLL,
            Link::Sll2 => LinkType::LINUX_SLL2,
        }
    }

    fn write(self, version: IpVersion, out: &mut Vec<u8>) {
        const MACS: [u8; 12] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        let ether_type: [u8; 2] = if version == IpVersion::V4 { [0x08, 0x00] } else { [0x86, 0xDD] };
        match self {
            Link::Ethernet => {
                out.extend(MACS);
                out.extend(ether_type);
            }
            Link::Vlan => {
                out.extend(MACS);
                out.extend([0x81, 0x00, 0x00, 0x64]);
                out.extend(ether_type);
            }
            Link::QinQ => {
                out.extend(MACS);
                out.extend([0x88, 0xA8, 0x00, 0x64, 0x81, 0x00, 0x00, 0x65]);
                out.extend(ether_type);
            }
            Link::Mpls => {
                out.extend(MACS);
                out.extend([0x88, 0x47, 0x00, 0x10, 0x00, 0x40, 0x00, 0x20, 0x01, 0x40]);
            }
            Link::Pppoe => {
                out.extend(MACS);
                out.extend([0x88, 0x64, 0x11, 0, 0, 1, 0, 60]);
                out.extend(if version == IpVersion::V4 { [0, 0x21] } else { [0, 0x57] });
            }
            Link::Null => out.extend([if version == IpVersion::V4 { 2 } else { 30 }, 0, 0, 0]),
            Link::Raw => {}
            Link::Sll => {
                out.extend([0, 0, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0]);
                out.extend(ether_type);
            }
            Link::Sll2 => {
                out.extend(ether_type);
                out.extend([0, 0, 0, 0, 0, 2, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0]);
            }
        }
    }
}

/// What stands between the IP header and the transport header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extra {
    None,
    /// Eight octets of IPv4 options, or the three commonest IPv6 extension headers.
    Options,
    /// A later fragment.
    Fragment,
}

/// One packet in words.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    pub version: IpVersion,
    /// Numbers the flow: addresses and ports are made of it.
    pub flow: u32,
    /// Whether the packet goes from the flow's second end to its first.
    pub back: bool,
    pub protocol: u8,
    pub flags: u16,
    pub extra: Extra,
    /// Octets of the frame on the wire, as Ethernet without tags counts them; headers that need more get more.
    pub size: u32,
}

impl Spec {
    pub fn new(version: IpVersion, flow: u32, size: u32) -> Spec {
        let flags = tcp_flags::ACK;
        Spec { version, flow, back: false, protocol: TCP, flags, extra: Extra::None, size }
    }
}

/// Both ends of a flow: addresses (IPv4 in the first four octets) and ports. Flows of different numbers differ.
pub fn ends(version: IpVersion, flow: u32) -> [([u8; 16], u16); 2] {
    let (mut source, mut destination) = ([0; 16], [0; 16]);
    // An odd factor gives every number another address; which one looks like nothing in particular.
    let (near, far) = (flow.wrapping_mul(0x9E37_79B1), flow.wrapping_mul(0x85EB_CA6B) >> 4 | 0x4000_0000);
    let port = 1024 + (flow.wrapping_mul(0xC2B2_AE35) >> 17) as u16;
    match version {
        IpVersion::V4 => {
            source[..4].copy_from_slice(&near.to_be_bytes());
            destination[..4].copy_from_slice(&far.to_be_bytes());
        }
        IpVersion::V6 => {
            source[..4].copy_from_slice(&[0x20, 0x01, 0x0D, 0xB8]);
            destination[..4].copy_from_slice(&[0x20, 0x01, 0x0D, 0xB8]);
            source[12..].copy_from_slice(&near.to_be_bytes());
            destination[12..].copy_from_slice(&far.to_be_bytes());
        }
    }
    [(source, port), (destination, 443)]
}

/// A frame as written: its captured octets are in the caller's buffer.
#[derive(Clone, Copy, Debug)]
pub struct Written {
    /// Octets on the wire.
    pub wire_length: u32,
    /// Octets by the IP header, which is what a record counts.
    pub octets: u32,
}

/// Writes the frame of `spec`, cut at [`SNAPLEN`] octets, into `out`, which it empties first.
pub fn write(link: Link, spec: &Spec, out: &mut Vec<u8>) -> Written {
    out.clear();
    link.write(spec.version, out);
    let link_length = out.len();
    let transport_length = if spec.protocol == TCP { 20 } else { 8 };
    let header_length = match (spec.version, spec.extra) {
        (IpVersion::V4, Extra::Options) => 28,
        (IpVersion::V4, _) => 20,
        (IpVersion::V6, Extra::None) => 40,
        (IpVersion::V6, Extra::Options) => 64,
        (IpVersion::V6, Extra::Fragment) => 48,
    };
    let octets = (spec.size as usize - 14).max(header_length + transport_length);
    let [mut source, mut destination] = ends(spec.version, spec.flow);
    if spec.back {
        std::mem::swap(&mut source, &mut destination);
    }
    match spec.version {
        IpVersion::V4 => {
            let more = if spec.extra == Extra::Fragment { [0x00, 0xB9] } else { [0x40, 0] };
            out.push(0x40 | (header_length / 4) as u8);
            out.push(0);
            out.extend((octets as u16).to_be_bytes());
            out.extend((spec.flow as u16).to_be_bytes());
            out.extend(more);
            out.extend([64, spec.protocol, 0, 0]);
            out.extend(&source.0[..4]);
            out.extend(&destination.0[..4]);
            if spec.extra == Extra::Options {
                out.extend([0x94, 4, 0, 0, 1, 1, 1, 0]);
            }
        }
        IpVersion::V6 => {
            let next = match spec.extra {
                Extra::None => spec.protocol,
                Extra::Options => 0,
                Extra::Fragment => 44,
            };
            out.extend([0x60, 0, 0, 0]);
            out.extend(((octets - 40) as u16).to_be_bytes());
            out.extend([next, 64]);
            out.extend(source.0);
            out.extend(destination.0);
            match spec.extra {
                Extra::None => {}
                Extra::Options => {
                    out.extend([60, 0, 5, 2, 0, 0, 1, 0]); // hop-by-hop: router alert
                    out.extend([43, 0, 1, 4, 0, 0, 0, 0]); // destination options: padding
                    out.extend([spec.protocol, 0, 4, 0, 0, 0, 0, 0]); // routing, no segments left
                }
                Extra::Fragment => {
                    out.extend([spec.protocol, 0, 0x05, 0xC8]);
                    out.extend(spec.flow.to_be_bytes());
                }
            }
        }
    }
    out.extend(source.1.to_be_bytes());
    out.extend(destination.1.to_be_bytes());
    if spec.protocol == TCP {
        out.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50 | (spec.flags >> 8) as u8, spec.flags as u8]);
        out.extend([0xFF, 0xFF, 0, 0, 0, 0]);
    } else {
        out.extend(((octets - header_length) as u16).to_be_bytes());
        out.extend([0, 0]);
    }
    let wire_length = (link_length + octets).max(out.len());
    out.resize(wire_length.min(SNAPLEN), 0xA5);
    Written { wire_length: wire_length as u32, octets: octets as u32 }
}

/// Frames one after the other in one piece of memory, as a reader's buffer holds them.
pub struct Frames {
    octets: Vec<u8>,
    places: Vec<(u32, u32, u32)>,
    link_type: LinkType,
    /// What the IP headers say, summed up, frame by frame.
    lengths: Vec<u32>,
}

impl Frames {
    /// `count` frames that `make` describes.
    pub fn new(link: Link, count: usize, mut make: impl FnMut(&mut Random) -> Spec) -> Frames {
        let mut random = Random::new(7);
        let (mut octets, mut one) = (Vec::new(), Vec::new());
        let (mut places, mut lengths) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let written = write(link, &make(&mut random), &mut one);
            places.push((octets.len() as u32, one.len() as u32, written.wire_length));
            lengths.push(written.octets);
            octets.extend_from_slice(&one);
            // A record header's distance, so that frames lie as in a file.
            octets.resize(octets.len() + 16, 0);
        }
        Frames { octets, places, link_type: link.link_type(), lengths }
    }

    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// The frames from number `from` on, `count` of them.
    pub fn range(&self, from: usize, count: usize) -> impl Iterator<Item = flowtap::capture::Frame<'_>> {
        self.places[from..from + count].iter().map(|&(at, length, wire_length)| flowtap::capture::Frame {
            timestamp: flowtap::time::Timestamp::from_nanos(1_700_000_000_000_000_000),
            wire_length,
            link_type: self.link_type,
            interface: 0,
            data: &self.octets[at as usize..(at + length) as usize],
        })
    }

    /// The sum of the IP lengths of those frames.
    pub fn octets(&self, from: usize, count: usize) -> u64 {
        self.lengths[from..from + count].iter().map(|&length| u64::from(length)).sum()
    }
}
