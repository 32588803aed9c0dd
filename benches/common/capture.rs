//! Capture files: traffic of three kinds, written as pcap or pcapng, compressed or not.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use flowtap::decode::{IpVersion, tcp_flags};

use super::frames::{self, Extra, Link, SNAPLEN, Spec, TCP, UDP, Written};
use super::packets::BEGIN;
use super::{Keys, Random, imix};

/// What the traffic is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Many conversations, few of which have most of the packets, both directions, TCP from SYN to FIN and one in
    /// eight UDP, one in five IPv6, frame sizes of the simple Internet mix.
    Mixed,
    /// Five hundred conversations of full frames and their acknowledgments.
    Elephants,
    /// A SYN flood: every packet a new flow.
    SynFlood,
}

impl Kind {
    pub const ALL: [Kind; 3] = [Kind::Mixed, Kind::Elephants, Kind::SynFlood];

    pub fn file_name(self) -> &'static str {
        match self {
            Kind::Mixed => "mixed.pcap",
            Kind::Elephants => "elephants.pcap",
            Kind::SynFlood => "syn-flood.pcap",
        }
    }
}

/// What a capture holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    pub frames: u64,
    pub wire_octets: u64,
    /// By the IP headers.
    pub octets: u64,
}

/// Traffic of one kind, frame by frame.
pub struct Traffic {
    kind: Kind,
    random: Random,
    /// For each conversation that is open: its number and how many packets it had.
    open: Vec<(u32, u32)>,
    next_flow: u32,
}

impl Traffic {
    /// `packets` is how many will be asked for: the number of conversations goes by it.
    pub fn new(kind: Kind, packets: u64) -> Traffic {
        let open = match kind {
            Kind::Mixed => (packets / 60).clamp(100, 200_000) as u32,
            Kind::Elephants => 500,
            Kind::SynFlood => 0,
        };
        Traffic {
            kind,
            random: Random::new(42),
            open: (0..open).map(|flow| (flow, 0)).collect(),
            next_flow: open,
        }
    }

    /// Writes the next frame into `out`.
    pub fn next(&mut self, out: &mut Vec<u8>) -> Written {
        let spec = match self.kind {
            Kind::Mixed => self.mixed(),
            Kind::Elephants => {
                let flow = self.random.below(self.open.len() as u64) as u32;
                let back = self.random.percent(20);
                Spec { back, ..Spec::new(IpVersion::V4, flow, if back { 60 } else { 1514 }) }
            }
            Kind::SynFlood => {
                self.next_flow += 1;
                Spec { flags: tcp_flags::SYN, ..Spec::new(IpVersion::V4, self.next_flow, 60) }
            }
        };
        frames::write(Link::Ethernet, &spec, out)
    }

    fn mixed(&mut self) -> Spec {
        let count = self.open.len() as u64;
        // Half by rank, half evenly: the heaviest do not have nearly everything.
        let keys = if self.random.percent(50) { Keys::Zipf } else { Keys::Uniform };
        let at = self.random.draw(keys, count) as usize;
        let (flow, seen) = self.open[at];
        let version = if flow.is_multiple_of(5) { IpVersion::V6 } else { IpVersion::V4 };
        let protocol = if flow.is_multiple_of(8) { UDP } else { TCP };
        let ends = seen > 1 && self.random.below(20) == 0;
        let flags = match (protocol, seen) {
            (TCP, 0) => tcp_flags::SYN,
            (TCP, 1) => tcp_flags::SYN | tcp_flags::ACK,
            (TCP, _) if ends => tcp_flags::FIN | tcp_flags::ACK,
            (TCP, _) => tcp_flags::ACK,
            _ => 0,
        };
        self.open[at].1 += 1;
        if ends {
            self.open[at] = (self.next_flow, 0);
            self.next_flow += 1;
        }
        let back = if seen < 2 { seen == 1 } else { self.random.percent(45) };
        let size = if seen < 2 { 60 } else { imix(&mut self.random) };
        Spec { version, flow, back, protocol, flags, extra: Extra::None, size }
    }
}

/// How a capture is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    PcapMicros,
    PcapNanos,
    Pcapng,
}

/// Time between two frames, so that any capture is 20 s long.
fn gap(packets: u64) -> u64 {
    (20_000_000_000 / packets.max(1)).max(1)
}

/// Writes a capture of `packets` frames; of `parts` files that share the traffic in turn, this is number `part`.
pub fn write_part(
    out: &mut dyn Write,
    format: Format,
    kind: Kind,
    packets: u64,
    (part, parts): (u64, u64),
) -> io::Result<Sums> {
    let mut traffic = Traffic::new(kind, packets);
    let mut sums = Sums::default();
    let mut frame = Vec::with_capacity(SNAPLEN);
    header(out, format)?;
    for number in 0..packets {
        let written = traffic.next(&mut frame);
        if number % parts != part {
            continue;
        }
        sums.frames += 1;
        sums.wire_octets += u64::from(written.wire_length);
        sums.octets += u64::from(written.octets);
        record(out, format, BEGIN + number * gap(packets), written.wire_length, &frame)?;
    }
    Ok(sums)
}

/// Writes a capture file.
pub fn write_file(path: &Path, format: Format, kind: Kind, packets: u64) -> io::Result<Sums> {
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let sums = write_part(&mut out, format, kind, packets, (0, 1))?;
    out.flush()?;
    Ok(sums)
}

fn header(out: &mut dyn Write, format: Format) -> io::Result<()> {
    if format == Format::Pcapng {
        // Section Header Block and one Interface Description Block: Ethernet, timestamps in ns.
        for word in [0x0A0D_0D0A_u32, 28, 0x1A2B_3C4D, 1, u32::MAX, u32::MAX, 28] {
            out.write_all(&word.to_le_bytes())?;
        }
        for word in [1, 32, 1, SNAPLEN as u32, 0x0001_0009, 9, 0, 32] {
            out.write_all(&word.to_le_bytes())?;
        }
        return Ok(());
    }
    let magic: u32 = if format == Format::PcapNanos { 0xA1B2_3C4D } else { 0xA1B2_C3D4 };
    for word in [magic, 0x0004_0002, 0, 0, SNAPLEN as u32, 1] {
        out.write_all(&word.to_le_bytes())?;
    }
    Ok(())
}

fn record(out: &mut dyn Write, format: Format, nanos: u64, wire_length: u32, data: &[u8]) -> io::Result<()> {
    let captured = data.len() as u32;
    let mut words = |words: &[u32]| words.iter().try_for_each(|word| out.write_all(&word.to_le_bytes()));
    let (seconds, rest) = ((nanos / 1_000_000_000) as u32, (nanos % 1_000_000_000) as u32);
    match format {
        Format::PcapMicros => words(&[seconds, rest / 1000, captured, wire_length])?,
        Format::PcapNanos => words(&[seconds, rest, captured, wire_length])?,
        Format::Pcapng => {
            let total = 32 + captured.next_multiple_of(4);
            words(&[6, total, 0, (nanos >> 32) as u32, nanos as u32, captured, wire_length])?;
        }
    }
    out.write_all(data)?;
    if format == Format::Pcapng {
        let padding = captured.next_multiple_of(4) - captured;
        out.write_all(&[0; 3][..padding as usize])?;
        out.write_all(&(32 + captured.next_multiple_of(4)).to_le_bytes())?;
    }
    Ok(())
}
