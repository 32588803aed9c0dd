//! Captures for the tests: written by hand, octet by octet, compressed, and mutated.

use std::io::Write;

use flate2::Compression as Level;
use flate2::write::GzEncoder;

use super::Owned;

/// Writes numbers in the byte order of the capture.
#[derive(Clone, Copy)]
pub struct Order {
    pub big: bool,
}

impl Order {
    pub fn u16(self, number: u16) -> Vec<u8> {
        if self.big { number.to_be_bytes().to_vec() } else { number.to_le_bytes().to_vec() }
    }

    pub fn u32(self, number: u32) -> Vec<u8> {
        if self.big { number.to_be_bytes().to_vec() } else { number.to_le_bytes().to_vec() }
    }

    pub fn u32s(self, numbers: &[u32]) -> Vec<u8> {
        numbers.iter().flat_map(|&number| self.u32(number)).collect()
    }

    pub fn pcap_header(self, magic: u32, link_type: u32) -> Vec<u8> {
        [self.u32(magic), self.u16(2), self.u16(4), self.u32s(&[0, 0, 65_535, link_type])].concat()
    }

    pub fn record(self, seconds: u32, fraction: u32, wire_length: u32, data: &[u8]) -> Vec<u8> {
        [self.u32s(&[seconds, fraction, data.len() as u32, wire_length]), data.to_vec()].concat()
    }

    pub fn block(self, kind: u32, body: &[u8]) -> Vec<u8> {
        let mut body = body.to_vec();
        body.resize(body.len().next_multiple_of(4), 0);
        let length = self.u32(body.len() as u32 + 12);
        [self.u32(kind), length.clone(), body, length].concat()
    }

    pub fn section(self) -> Vec<u8> {
        self.block(0x0A0D_0D0A, &[self.u32(0x1A2B_3C4D), self.u16(1), self.u16(0), vec![0xFF; 8]].concat())
    }

    pub fn option(self, code: u16, value: &[u8]) -> Vec<u8> {
        let mut option = [self.u16(code), self.u16(value.len() as u16), value.to_vec()].concat();
        option.resize(option.len().next_multiple_of(4), 0);
        option
    }

    pub fn interface(self, link_type: u16, snaplen: u32, options: &[u8]) -> Vec<u8> {
        self.block(1, &[self.u16(link_type), self.u16(0), self.u32(snaplen), options.to_vec()].concat())
    }

    pub fn enhanced(self, interface: u32, ticks: u64, wire_length: u32, data: &[u8]) -> Vec<u8> {
        let fixed = [interface, (ticks >> 32) as u32, ticks as u32, data.len() as u32, wire_length];
        self.block(6, &[self.u32s(&fixed), data.to_vec()].concat())
    }

    pub fn obsolete(self, interface: u16, ticks: u64, wire_length: u32, data: &[u8]) -> Vec<u8> {
        let fixed = [(ticks >> 32) as u32, ticks as u32, data.len() as u32, wire_length];
        self.block(2, &[self.u16(interface), self.u16(9), self.u32s(&fixed), data.to_vec()].concat())
    }

    pub fn simple(self, wire_length: u32, data: &[u8]) -> Vec<u8> {
        self.block(3, &[self.u32(wire_length), data.to_vec()].concat())
    }
}

pub const LITTLE: Order = Order { big: false };
pub const BIG: Order = Order { big: true };

/// A microsecond pcap file of Ethernet frames at these ns, whose octets say which they are.
pub fn pcap_at(nanos: &[u64], mark: u8) -> Vec<u8> {
    let mut file = LITTLE.pcap_header(0xA1B2_3C4D, 1);
    for (number, nanos) in nanos.iter().enumerate() {
        let (seconds, fraction) = ((nanos / 1_000_000_000) as u32, (nanos % 1_000_000_000) as u32);
        file.extend(LITTLE.record(seconds, fraction, 60, &[mark, number as u8]));
    }
    file
}

/// Every kind of block, in two sections of opposite byte order.
pub fn pcapng_of_everything() -> (Vec<u8>, Vec<Owned>) {
    let first = [
        BIG.section(),
        BIG.interface(1, 4, &[]),
        BIG.simple(3, &[1, 2, 3]),
        BIG.interface(113, 0, &[BIG.option(2, b"eth7"), BIG.option(9, &[9]), BIG.option(0, &[])].concat()),
        BIG.enhanced(1, 5_000_000_007, 90, &[4; 9]),
        BIG.block(0x0BAD, &[7; 45]),
        BIG.simple(99, &[5; 4]),
        BIG.obsolete(0, 8, 64, &[6; 7]),
    ];
    let second = [
        LITTLE.section(),
        LITTLE.interface(
            276,
            0,
            &[LITTLE.option(9, &[0x8A]), LITTLE.option(14, &(-1_i64).to_le_bytes())].concat(),
        ),
        LITTLE.enhanced(0, 3 * 1024 + 512, 20, &[]),
        LITTLE.simple(2, &[8, 9]),
    ];
    let frame = |nanos, wire_length, link_type, interface, data: &[u8]| Owned {
        nanos,
        wire_length,
        link_type,
        interface,
        data: data.to_vec(),
    };
    let frames = vec![
        frame(0, 3, 1, 0, &[1, 2, 3]),
        frame(5_000_000_007, 90, 113, 1, &[4; 9]),
        frame(5_000_000_007, 99, 1, 0, &[5; 4]),
        frame(8_000, 64, 1, 0, &[6; 7]),
        frame(2_500_000_000, 20, 276, 0, &[]),
        frame(2_500_000_000, 2, 276, 0, &[8, 9]),
    ];
    (first.into_iter().chain(second).flatten().collect(), frames)
}

pub fn pcap_of_both_lengths() -> (Vec<u8>, Vec<Owned>) {
    let file = [
        BIG.pcap_header(0xA1B2_C3D4, 0xF400_0001),
        BIG.record(1, 2, 60, &[1; 60]),
        BIG.record(3, 4, 1_500, &[2; 96]),
        BIG.record(0, 0, 0, &[]),
    ];
    let frame =
        |nanos, wire_length, data: Vec<u8>| Owned { nanos, wire_length, link_type: 1, interface: 0, data };
    let frames = vec![
        frame(1_000_002_000, 60, vec![1; 60]),
        frame(3_000_004_000, 1_500, vec![2; 96]),
        frame(0, 0, vec![]),
    ];
    (file.concat(), frames)
}

/// Some 5 MB of frames.
pub fn pcap_of_many() -> (Vec<u8>, Vec<Owned>) {
    let mut random = Random(0x5EED_0002);
    let mut file = LITTLE.pcap_header(0xA1B2_C3D4, 1);
    let mut frames = Vec::new();
    for number in 0..10_000_u32 {
        let data = vec![number as u8; random.below(1_000)];
        file.extend(LITTLE.record(number, 0, 1_514, &data));
        let nanos = u64::from(number) * 1_000_000_000;
        frames.push(Owned { nanos, wire_length: 1_514, link_type: 1, interface: 0, data });
    }
    (file, frames)
}

pub fn gzip(octets: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Level::fast());
    encoder.write_all(octets).unwrap();
    encoder.finish().unwrap()
}

pub fn lz4(octets: &[u8]) -> Vec<u8> {
    let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
    encoder.write_all(octets).unwrap();
    encoder.finish().unwrap()
}

pub fn zstd_frame(octets: &[u8]) -> Vec<u8> {
    zstd::encode_all(octets, 1).unwrap()
}

/// A small generator of numbers that look random: xorshift64*.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

pub fn mutate(octets: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.below(4) {
        let at = random.below(octets.len());
        match random.below(6) {
            0 => octets.truncate(at),
            1 if !octets.is_empty() => octets[at] ^= 1 << random.below(8),
            2 if !octets.is_empty() => octets[at] = [0, 1, 0x7F, 0x80, 0xFF][random.below(5)],
            3 => octets.insert(at, random.next() as u8),
            4 if !octets.is_empty() => drop(octets.remove(at)),
            5 if at + 4 <= octets.len() => {
                let number = [0, 11, 12, 28, 32, 262_144, 262_145, u32::MAX][random.below(8)];
                octets[at..at + 4].copy_from_slice(&number.to_le_bytes());
            }
            _ => {}
        }
    }
}
