//! Captures made on the spot: a pcap file of nanosecond timestamps, octet by octet.

use std::fs;
use std::io::{BufWriter, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

/// The link type of Ethernet, and of IP without a link layer.
pub const ETHERNET: u32 = 1;
pub const RAW_IP: u32 = 101;

/// TCP flags.
pub const FIN: u16 = 0x001;
pub const SYN: u16 = 0x002;
pub const ACK: u16 = 0x010;

/// A pcap file being written.
pub struct Capture {
    path: PathBuf,
    out: BufWriter<fs::File>,
}

impl Capture {
    pub fn create(path: &Path, link_type: u32) -> Capture {
        let file = fs::File::create(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut out = BufWriter::new(file);
        out.write_all(&header(link_type)).expect("room on the disk");
        Capture { path: path.to_owned(), out }
    }

    /// Adds a frame whole.
    pub fn frame(&mut self, nanos: u64, octets: &[u8]) {
        self.cut_frame(nanos, octets, octets.len());
    }

    /// Adds a frame of which only the first `captured` octets were captured.
    pub fn cut_frame(&mut self, nanos: u64, octets: &[u8], captured: usize) {
        self.out.write_all(&frame(nanos, &octets[..captured], octets.len())).expect("room on the disk");
    }

    pub fn finish(mut self) -> PathBuf {
        self.out.flush().expect("room on the disk");
        self.path
    }
}

/// The octets at the beginning of a pcap file.
pub fn header(link_type: u32) -> Vec<u8> {
    let mut octets = Vec::new();
    octets.extend(0xA1B2_3C4D_u32.to_le_bytes());
    octets.extend(2_u16.to_le_bytes());
    octets.extend(4_u16.to_le_bytes());
    octets.extend([0; 8]);
    octets.extend(262_144_u32.to_le_bytes());
    octets.extend(link_type.to_le_bytes());
    octets
}

/// The octets of one frame in a pcap file.
pub fn frame(nanos: u64, captured: &[u8], wire_length: usize) -> Vec<u8> {
    let mut octets = Vec::with_capacity(16 + captured.len());
    for value in [nanos / 1_000_000_000, nanos % 1_000_000_000, captured.len() as u64, wire_length as u64] {
        octets.extend((value as u32).to_le_bytes());
    }
    octets.extend(captured);
    octets
}

/// An IPv4 packet.
pub fn ipv4(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let total = (20 + payload.len()) as u16;
    let mut octets = vec![0x45, 0];
    octets.extend(total.to_be_bytes());
    octets.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
    octets.extend(source.octets());
    octets.extend(destination.octets());
    octets.extend(payload);
    octets
}

/// An IPv6 packet.
pub fn ipv6(
    source: std::net::Ipv6Addr,
    destination: std::net::Ipv6Addr,
    protocol: u8,
    payload: &[u8],
) -> Vec<u8> {
    let mut octets = vec![0x60, 0, 0, 0];
    octets.extend((payload.len() as u16).to_be_bytes());
    octets.extend([protocol, 64]);
    octets.extend(source.octets());
    octets.extend(destination.octets());
    octets.extend(payload);
    octets
}

/// A packet over the version of IP that its addresses have.
pub fn packet(source: IpAddr, destination: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => ipv4(source, destination, protocol, payload),
        (IpAddr::V6(source), IpAddr::V6(destination)) => ipv6(source, destination, protocol, payload),
        _ => panic!("{source} and {destination} are of two versions"),
    }
}

/// A TCP header with twelve bits of flags, and `payload` octets of nothing.
pub fn tcp(source: u16, destination: u16, flags: u16, payload: usize) -> Vec<u8> {
    let mut octets = Vec::new();
    octets.extend(source.to_be_bytes());
    octets.extend(destination.to_be_bytes());
    octets.extend([0; 8]);
    octets.extend((0x5000 | flags).to_be_bytes());
    octets.extend([0xFF, 0xFF, 0, 0, 0, 0]);
    octets.resize(20 + payload, 0);
    octets
}

/// A UDP datagram of `payload`.
pub fn udp(source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
    let mut octets = Vec::new();
    octets.extend(source.to_be_bytes());
    octets.extend(destination.to_be_bytes());
    octets.extend(((8 + payload.len()) as u16).to_be_bytes());
    octets.extend([0, 0]);
    octets.extend(payload);
    octets
}

/// Ethernet around an IP packet.
pub fn ethernet(packet: &[u8]) -> Vec<u8> {
    let mut octets = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    octets.extend(if packet[0] >> 4 == 4 { [0x08, 0x00] } else { [0x86, 0xDD] });
    octets.extend(packet);
    octets
}

/// A capture of `flows` flows over IPv4 that all differ, a UDP packet each, `gap` nanoseconds apart.
pub fn distinct_flows(path: &Path, flows: u32, start: u64, gap: u64) -> PathBuf {
    let mut capture = Capture::create(path, RAW_IP);
    for number in 0..flows {
        let octets =
            ipv4(flow_source(number), Ipv4Addr::new(198, 51, 100, 1), 17, &udp(flow_port(number), 53, &[]));
        capture.frame(start + u64::from(number) * gap, &octets);
    }
    capture.finish()
}

/// The source of a flow of [`distinct_flows`].
pub fn flow_source(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x0A00_0000 + number / 1000)
}

/// The source port of a flow of [`distinct_flows`].
pub fn flow_port(number: u32) -> u16 {
    1024 + (number % 1000) as u16
}
