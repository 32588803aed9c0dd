//! Captures written by hand, octet by octet, and read back; and the frames of real ones against a reader that shares no
//! code with this one.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use flate2::Compression as Level;
use flate2::write::GzEncoder;
use tempfile::TempDir;

use super::*;
use crate::capture::LinkType;

/// A frame, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Owned {
    nanos: u64,
    wire_length: u32,
    link_type: u16,
    interface: u32,
    data: Vec<u8>,
}

impl From<Frame<'_>> for Owned {
    fn from(frame: Frame<'_>) -> Owned {
        Owned {
            nanos: frame.timestamp.nanos(),
            wire_length: frame.wire_length,
            link_type: frame.link_type.0,
            interface: frame.interface,
            data: frame.data.to_vec(),
        }
    }
}

// ---------------------------------------------------------------- captures by hand

/// Writes numbers in the byte order of the capture.
#[derive(Clone, Copy)]
struct Order {
    big: bool,
}

const LITTLE: Order = Order { big: false };
const BIG: Order = Order { big: true };

impl Order {
    fn u16(self, number: u16) -> Vec<u8> {
        if self.big { number.to_be_bytes().to_vec() } else { number.to_le_bytes().to_vec() }
    }

    fn u32(self, number: u32) -> Vec<u8> {
        if self.big { number.to_be_bytes().to_vec() } else { number.to_le_bytes().to_vec() }
    }

    fn u32s(self, numbers: &[u32]) -> Vec<u8> {
        numbers.iter().flat_map(|&number| self.u32(number)).collect()
    }

    fn pcap_header(self, magic: u32, link_type: u32) -> Vec<u8> {
        [self.u32(magic), self.u16(2), self.u16(4), self.u32s(&[0, 0, 65_535, link_type])].concat()
    }

    fn record(self, seconds: u32, fraction: u32, wire_length: u32, data: &[u8]) -> Vec<u8> {
        [self.u32s(&[seconds, fraction, data.len() as u32, wire_length]), data.to_vec()].concat()
    }

    fn block(self, kind: u32, body: &[u8]) -> Vec<u8> {
        let mut body = body.to_vec();
        body.resize(body.len().next_multiple_of(4), 0);
        let length = self.u32(body.len() as u32 + 12);
        [self.u32(kind), length.clone(), body, length].concat()
    }

    fn section(self) -> Vec<u8> {
        self.block(0x0A0D_0D0A, &[self.u32(0x1A2B_3C4D), self.u16(1), self.u16(0), vec![0xFF; 8]].concat())
    }

    fn option(self, code: u16, value: &[u8]) -> Vec<u8> {
        let mut option = [self.u16(code), self.u16(value.len() as u16), value.to_vec()].concat();
        option.resize(option.len().next_multiple_of(4), 0);
        option
    }

    fn interface(self, link_type: u16, snaplen: u32, options: &[u8]) -> Vec<u8> {
        self.block(1, &[self.u16(link_type), self.u16(0), self.u32(snaplen), options.to_vec()].concat())
    }

    fn enhanced(self, interface: u32, ticks: u64, wire_length: u32, data: &[u8]) -> Vec<u8> {
        let fixed = [interface, (ticks >> 32) as u32, ticks as u32, data.len() as u32, wire_length];
        self.block(6, &[self.u32s(&fixed), data.to_vec()].concat())
    }

    fn obsolete(self, interface: u16, ticks: u64, wire_length: u32, data: &[u8]) -> Vec<u8> {
        let fixed = [(ticks >> 32) as u32, ticks as u32, data.len() as u32, wire_length];
        self.block(2, &[self.u16(interface), self.u16(9), self.u32s(&fixed), data.to_vec()].concat())
    }

    fn simple(self, wire_length: u32, data: &[u8]) -> Vec<u8> {
        self.block(3, &[self.u32(wire_length), data.to_vec()].concat())
    }
}

/// A microsecond pcap file of Ethernet frames at these ns, whose octets say which they are.
fn pcap_at(nanos: &[u64], mark: u8) -> Vec<u8> {
    let mut file = LITTLE.pcap_header(0xA1B2_3C4D, 1);
    for (number, nanos) in nanos.iter().enumerate() {
        let (seconds, fraction) = ((nanos / 1_000_000_000) as u32, (nanos % 1_000_000_000) as u32);
        file.extend(LITTLE.record(seconds, fraction, 60, &[mark, number as u8]));
    }
    file
}

/// Every kind of block, in two sections of opposite byte order.
fn pcapng_of_everything() -> (Vec<u8>, Vec<Owned>) {
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

fn pcap_of_both_lengths() -> (Vec<u8>, Vec<Owned>) {
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

// ---------------------------------------------------------------- reading them back

fn read_stream(stream: impl Read + Send + 'static, buffer_octets: usize) -> (Vec<Owned>, Option<FileError>) {
    let mut reader = Reader::new(Input::stream(stream), None, buffer_octets);
    let mut frames = Vec::new();
    while let Some(head) = reader.advance() {
        frames.push(reader.frame(head).into());
    }
    (frames, reader.finish())
}

fn read_octets(octets: &[u8]) -> (Vec<Owned>, Option<FileError>) {
    read_stream(io::Cursor::new(octets.to_vec()), 256 * 1024)
}

fn read_files(files: &mut CaptureFiles) -> Vec<Owned> {
    let mut frames = Vec::new();
    while let Some(frame) = files.next_frame() {
        frames.push(frame.into());
    }
    assert!(files.next_frame().is_none(), "the end stays the end");
    frames
}

fn open(paths: &[PathBuf]) -> CaptureFiles {
    CaptureFiles::open(paths, &FileOptions::default()).unwrap()
}

fn read_paths(paths: &[PathBuf]) -> (Vec<Owned>, Vec<String>) {
    let mut files = open(paths);
    let frames = read_files(&mut files);
    (frames, files.failures().iter().map(FileError::to_string).collect())
}

fn written(folder: &TempDir, name: &str, octets: &[u8]) -> PathBuf {
    let path = folder.path().join(name);
    fs::write(&path, octets).unwrap();
    path
}

fn gzip(octets: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Level::fast());
    encoder.write_all(octets).unwrap();
    encoder.finish().unwrap()
}

fn lz4(octets: &[u8]) -> Vec<u8> {
    let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
    encoder.write_all(octets).unwrap();
    encoder.finish().unwrap()
}

fn zstd_frame(octets: &[u8]) -> Vec<u8> {
    zstd::encode_all(octets, 1).unwrap()
}

/// Gives `most` octets a read.
struct Short<R>(R, usize);

impl<R: Read> Read for Short<R> {
    fn read(&mut self, octets: &mut [u8]) -> io::Result<usize> {
        let most = octets.len().min(self.1);
        self.0.read(&mut octets[..most])
    }
}

// ---------------------------------------------------------------- against the oracle

/// Where the captures and the oracle lie, if they are here.
fn shared() -> Option<PathBuf> {
    let folder = std::env::var_os("FLOWTAP_SHARED").map_or_else(|| PathBuf::from("../shared"), PathBuf::from);
    if folder.join("oracle/flows.py").exists() && folder.join("captures").is_dir() {
        return Some(folder);
    }
    eprintln!(
        "skipped: {} holds no oracle and captures; FLOWTAP_SHARED names another folder",
        folder.display()
    );
    None
}

const ORACLE: &str = "
import sys, zlib
sys.path.insert(0, sys.argv[1])
sys.dont_write_bytecode = True
import flows
for path in sys.argv[2:]:
    frames = [(ts, wire, link, len(data), zlib.crc32(data)) for ts, wire, link, data in flows.packets(path)]
    damaged = [at for name, at in flows.DAMAGED if name == path]
    print('file', len(frames), damaged[0] if damaged else 'whole')
    for frame in frames:
        print(*frame)
";

/// What the oracle says of each file, in lines: how many frames and where it is damaged, then the frames.
fn oracle(shared: &Path, paths: &[PathBuf]) -> Vec<Vec<String>> {
    let output = Command::new("python3")
        .arg("-c")
        .arg(ORACLE)
        .arg(shared.join("oracle"))
        .args(paths)
        .output()
        .expect("python3 runs the oracle");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut answers: Vec<Vec<String>> = Vec::new();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        match line.strip_prefix("file ") {
            Some(head) => answers.push(vec![head.to_string()]),
            None => answers.last_mut().unwrap().push(line.to_string()),
        }
    }
    answers
}

fn in_the_oracles_words(frames: &[Owned], failure: Option<&FileError>) -> Vec<String> {
    let damaged = failure.map_or("whole".to_string(), |failure| failure.offset.unwrap().to_string());
    let mut lines = vec![format!("{} {damaged}", frames.len())];
    lines.extend(frames.iter().map(|frame| {
        let mut crc = flate2::Crc::new();
        crc.update(&frame.data);
        let Owned { nanos, wire_length, link_type, data, .. } = frame;
        format!("{nanos} {wire_length} {link_type} {} {}", data.len(), crc.sum())
    }));
    lines
}

fn sorted_captures(shared: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(shared.join("captures")).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension != "tsv"));
    paths.sort();
    paths
}

#[test]
fn real_captures_give_the_frames_and_the_damage_that_the_oracle_finds() {
    let Some(shared) = shared() else { return };
    let paths = sorted_captures(&shared);
    for (path, expected) in paths.iter().zip(oracle(&shared, &paths)) {
        for buffer_octets in [256 * 1024, 1_000] {
            let options = FileOptions { buffer_octets, ..FileOptions::default() };
            let mut files = CaptureFiles::open(std::slice::from_ref(path), &options).unwrap();
            let frames = read_files(&mut files);
            let found = in_the_oracles_words(&frames, files.failures().first());
            assert_eq!(found, expected, "{}", path.display());
            assert_eq!(Some(files.octets_read()), files.octets_total());
        }
    }
}

#[test]
fn mutated_captures_end_where_the_oracle_ends_them() {
    let Some(shared) = shared() else { return };
    let folder = TempDir::new().unwrap();
    let mut random = Random(0x5EED_0001);
    let mut seeds = vec![pcapng_of_everything().0, pcap_of_both_lengths().0];
    for path in sorted_captures(&shared) {
        let octets = fs::read(path).unwrap();
        if octets.len() < 5_000 {
            seeds.push(octets);
        }
    }
    let mut paths = Vec::new();
    for number in 0..1_500 {
        let mut octets = seeds[random.below(seeds.len())].clone();
        mutate(&mut octets, &mut random);
        paths.push(written(&folder, &format!("{number:04}"), &octets));
    }
    for (path, expected) in paths.iter().zip(oracle(&shared, &paths)) {
        let octets = fs::read(path).unwrap();
        let (frames, failure) = read_octets(&octets);
        let found = in_the_oracles_words(&frames, failure.as_ref());
        assert_eq!(found, expected, "{octets:02x?}");
    }
}

/// A small generator of numbers that look random: xorshift64*.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

fn mutate(octets: &mut Vec<u8>, random: &mut Random) {
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
