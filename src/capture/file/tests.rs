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
    let (mut frames, mut run) = (Vec::new(), [Head::NONE; 5]);
    while let Some(head) = reader.advance() {
        frames.push(head.frame(reader.octets()).into());
        let (end, beyond) = reader.gather(u64::MAX, &mut run, 0);
        assert!(beyond.is_none());
        frames.extend(run[..end].iter().map(|head| Owned::from(head.frame(reader.octets()))));
    }
    (frames, reader.finish())
}

fn read_octets(octets: &[u8]) -> (Vec<Owned>, Option<FileError>) {
    read_stream(io::Cursor::new(octets.to_vec()), 256 * 1024)
}

fn read_files(files: &mut CaptureFiles) -> Vec<Owned> {
    let mut frames = Vec::new();
    while let Some(run) = files.next_run() {
        frames.extend(run.map(Owned::from));
    }
    assert!(files.next_run().is_none(), "the end stays the end");
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

// ---------------------------------------------------------------- formats

#[test]
fn pcap_is_read_in_both_byte_orders_and_both_units() {
    for (order, magic, fraction_nanos) in [
        (LITTLE, 0xA1B2_C3D4, 1_000),
        (BIG, 0xA1B2_C3D4, 1_000),
        (LITTLE, 0xA1B2_3C4D, 1),
        (BIG, 0xA1B2_3C4D, 1),
    ] {
        let file = [order.pcap_header(magic, 228), order.record(u32::MAX, 999_999, 70_000, b"abc")].concat();
        let (frames, failure) = read_octets(&file);
        let nanos = u64::from(u32::MAX) * 1_000_000_000 + 999_999 * fraction_nanos;
        let expected =
            Owned { nanos, wire_length: 70_000, link_type: 228, interface: 0, data: b"abc".to_vec() };
        assert_eq!(frames, [expected]);
        assert!(failure.is_none());
    }
}

#[test]
fn the_first_octets_on_disk_are_those_of_the_format() {
    // Written out, so that the helpers above are not only right with each other.
    let file = [
        0xD4, 0xC3, 0xB2, 0xA1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0, 0, 1, 0, 0,
        0, // file header
        1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 60, 0, 0, 0, 7, 8, 9, // one record
    ];
    let expected =
        Owned { nanos: 1_000_002_000, wire_length: 60, link_type: 1, interface: 0, data: vec![7, 8, 9] };
    assert_eq!(read_octets(&file).0, [expected]);

    let file = [
        0x0A, 0x0D, 0x0D, 0x0A, 0, 0, 0, 28, 0x1A, 0x2B, 0x3C, 0x4D, 0, 1, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF,
        0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 28, // section header
        0, 0, 0, 1, 0, 0, 0, 32, 0, 101, 0, 0, 0, 0, 0, 0, 0, 9, 0, 1, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32,
        0, 0, 0, 6, 0, 0, 0, 36, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 9, 0x45, 0, 0, 0,
        0, 0, 0, 36, // a packet of one octet
    ];
    let nanos = ((1 << 32) + 2) * 1_000_000;
    let expected = Owned { nanos, wire_length: 9, link_type: 101, interface: 0, data: vec![0x45] };
    let (frames, failure) = read_octets(&file);
    assert!(failure.is_none(), "{failure:?}");
    assert_eq!(frames, [expected]);
}

#[test]
fn the_link_type_is_the_low_half_of_its_field_and_a_snaplen_shows_in_the_wire_length() {
    let (file, expected) = pcap_of_both_lengths();
    let (frames, failure) = read_octets(&file);
    assert_eq!(frames, expected);
    assert!(failure.is_none());
}

#[test]
fn pcapng_sections_interfaces_and_every_kind_of_packet_block_are_read() {
    let (file, expected) = pcapng_of_everything();
    let (frames, failure) = read_octets(&file);
    assert!(failure.is_none(), "{failure:?}");
    assert_eq!(frames, expected);
}

#[test]
fn any_size_of_read_and_of_buffer_gives_the_same_frames() {
    for (file, expected) in [pcapng_of_everything(), pcap_of_both_lengths()] {
        for most in [1, 2, 3, 5, 7, 64, 4_096] {
            for buffer_octets in [0, 1, 17, 100, 1 << 18] {
                let (frames, failure) =
                    read_stream(Short(io::Cursor::new(file.clone()), most), buffer_octets);
                assert!(failure.is_none(), "{failure:?}");
                assert_eq!(frames, expected);
            }
        }
    }
}

#[test]
fn a_file_cut_at_any_octet_gives_what_was_whole_and_names_the_record_that_is_not() {
    for (file, expected) in [pcapng_of_everything(), pcap_of_both_lengths()] {
        // A record ends where one frame more, or none, is read without an error.
        let mut last_end = 0;
        for cut in 1..=file.len() {
            let (frames, failure) = read_octets(&file[..cut]);
            assert_eq!(frames, expected[..frames.len()]);
            match failure {
                None => last_end = cut as u64,
                Some(failure) => {
                    assert_eq!(failure.offset, Some(last_end), "cut at {cut}: {failure}");
                    assert!(matches!(failure.reason, Reason::CutOff { .. } | Reason::NotACapture(_)));
                }
            }
        }
        assert_eq!(last_end, file.len() as u64);
    }
}

#[test]
fn a_pcap_file_of_a_header_alone_is_whole() {
    let (frames, failure) = read_octets(&LITTLE.pcap_header(0xA1B2_C3D4, 1));
    assert!(frames.is_empty() && failure.is_none());
}

#[test]
fn ticks_become_nanoseconds_at_any_resolution_and_offset() {
    const MOST: u64 = i64::MAX as u64;
    let cases: [(u8, i64, u64, u64); 25] = [
        (0, 0, 7, 7_000_000_000),
        (0, 0, u64::MAX, MOST),
        (3, 0, 1_500, 1_500_000_000),
        (6, 0, 1, 1_000),
        (6, 0, u64::MAX / 2, MOST),
        (6, 5, 1, 5_000_001_000),
        (6, -1, 1_000_001, 1_000),
        (6, -1, 999_999, 0),
        (6, i64::MIN, u64::MAX, 0),
        (6, i64::MAX, 0, MOST),
        (9, 0, u64::MAX, MOST),
        (9, 0, MOST, MOST),
        (9, 0, MOST - 1, MOST - 1),
        (10, 0, 19, 1),
        (12, 0, 1_999, 1),
        (28, 0, u64::MAX, 1),
        (28, 0, 9_999_999_999_999_999_999, 0),
        (29, 0, u64::MAX, 0),
        (127, 0, u64::MAX, 0),
        (127, 3, u64::MAX, 3_000_000_000),
        (0x80, 0, 2, 2_000_000_000),
        (0x8A, 0, 1_536, 1_500_000_000),
        (0x80 | 32, 0, 1 << 31, 500_000_000),
        (0x80 | 93, 0, u64::MAX, 1),
        (0xFF, 2, u64::MAX, 2_000_000_000),
    ];
    for (tsresol, tsoffset, ticks, nanos) in cases {
        for order in [LITTLE, BIG] {
            let tsoffset = if order.big { tsoffset.to_be_bytes() } else { tsoffset.to_le_bytes() };
            let options = [order.option(9, &[tsresol]), order.option(14, &tsoffset)].concat();
            let file = [order.section(), order.interface(1, 0, &options), order.enhanced(0, ticks, 0, &[])];
            let (frames, _) = read_octets(&file.concat());
            assert_eq!(frames[0].nanos, nanos, "{tsresol:#x} {ticks}");
        }
    }
}

#[test]
fn the_longest_frame_is_read_through_any_buffer_and_a_longer_one_is_damage() {
    let longest = vec![0xAB; LONGEST_FRAME as usize];
    let pcap = |data: &[u8]| [LITTLE.pcap_header(0xA1B2_C3D4, 1), LITTLE.record(0, 0, 0, data)].concat();
    let pcapng =
        |data: &[u8]| [BIG.section(), BIG.interface(1, 0, &[]), BIG.enhanced(0, 0, 0, data)].concat();
    for (whole, record) in [(pcap(&longest), 24), (pcapng(&longest), 28 + 20)] {
        for buffer_octets in [1, 1 << 18] {
            let (frames, failure) = read_stream(io::Cursor::new(whole.clone()), buffer_octets);
            assert!(failure.is_none(), "{failure:?}");
            assert!(frames.len() == 1 && frames[0].data == longest);
        }
        let more = [&longest[..], &[1]].concat();
        let longer = if record == 24 { pcap(&more) } else { pcapng(&more) };
        let (frames, failure) = read_octets(&longer);
        assert!(frames.is_empty());
        let told = format!("stream: offset {record}: captured length 262145, at most 262144");
        assert_eq!(failure.unwrap().to_string(), told);
    }
}

#[test]
fn blocks_larger_than_the_buffer_are_stepped_over_without_being_held() {
    let long = vec![3; 3_000_000];
    let options = [LITTLE.option(2_988, &long[..65_000]).repeat(20), LITTLE.option(9, &[9])].concat();
    // An enhanced packet block whose options are longer than the buffer, too.
    let fixed = LITTLE.u32s(&[0, 0, 77, 3, 3]);
    let packet = [fixed, vec![1, 2, 3, 0], long.clone()].concat();
    let file = [
        LITTLE.section(),
        LITTLE.block(0x4000_0000, &long),
        LITTLE.interface(1, 0, &options),
        LITTLE.block(6, &packet),
        LITTLE.enhanced(0, 78, 3, &[4, 5, 6]),
        LITTLE.block(5, &long),
    ];
    for most in [1_000, 4_096, 1 << 20] {
        let mut reader = Reader::new(Input::stream(Short(io::Cursor::new(file.concat()), most)), None, 8_192);
        for (nanos, data) in [(77, [1, 2, 3]), (78, [4, 5, 6])] {
            let head = reader.advance().unwrap();
            let frame = head.frame(reader.octets());
            assert_eq!((frame.timestamp.nanos(), frame.data), (nanos, &data[..]));
        }
        assert!(reader.advance().is_none());
        assert!(reader.buffer_capacity() <= 66_000, "{}", reader.buffer_capacity());
        let failure = reader.finish();
        assert!(failure.is_none(), "{failure:?}");
    }
    // And their second length is still looked at.
    let mut wrong = file[..2].concat();
    let last = wrong.len() - 1;
    wrong[last] ^= 1;
    let (_, failure) = read_stream(io::Cursor::new(wrong), 8_192);
    assert!(matches!(failure.unwrap().reason, Reason::BlockLengths { .. }));
}

#[test]
fn a_length_field_alone_takes_no_memory() {
    let mut file = [LITTLE.section(), LITTLE.u32s(&[5, u32::MAX, 0, 0, 0])].concat();
    file.extend([0; 1_000]);
    let mut reader = Reader::new(Input::stream(io::Cursor::new(file)), None, 1 << 18);
    assert!(reader.advance().is_none());
    assert!(reader.buffer_capacity() <= 1 << 18);
    let told = "stream: offset 28: block cut off: 4294967295 octets needed, 1020 left";
    assert_eq!(reader.finish().unwrap().to_string(), told);
}

#[test]
fn each_kind_of_damage_names_offset_found_and_allowed() {
    let section = LITTLE.section();
    let interface = LITTLE.interface(1, 0, &[]);
    let with = |block: Vec<u8>| [section.clone(), interface.clone(), block].concat();
    let mut magic = section.clone();
    magic[8] = 0;
    for (file, told) in [
        (vec![], "offset 0: empty, not a capture"),
        (b"PK\x03\x04zip".to_vec(), "offset 0: no capture: begins with 50 4b 03 04, neither pcap nor pcapng"),
        (b"\n\r".to_vec(), "offset 0: no capture: begins with 0a 0d, neither pcap nor pcapng"),
        (
            LITTLE.pcap_header(0xA1B2_C3D4, 1)[..23].to_vec(),
            "offset 0: pcap file header cut off: 24 octets needed, 23 left",
        ),
        (magic, "offset 0: section of unknown byte order: magic 00 3c 2b 1a"),
        (with(LITTLE.u32s(&[9, 11, 11])), "offset 48: block length 11, at least 12"),
        (with(LITTLE.u32s(&[9, 16, 0, 20])), "offset 48: block length 16 at its beginning, 20 at its end"),
        (with(LITTLE.enhanced(1, 0, 0, &[])), "offset 48: interface 1, its section has described 1"),
        (
            with(LITTLE.block(6, &LITTLE.u32s(&[0, 0, 0, 5, 5, 0]))),
            "offset 48: packet block of 36 octets, 37 needed for its fields",
        ),
        (with(LITTLE.block(6, &[0; 16])), "offset 48: packet block of 28 octets, 32 needed for its fields"),
        (
            with(LITTLE.simple(9, &[0; 8])),
            "offset 48: simple packet block of 24 octets, 25 needed for its fields",
        ),
        (
            with(LITTLE.block(1, &[0; 4])),
            "offset 48: interface description block of 16 octets, 20 needed for its fields",
        ),
        (
            [section.clone(), LITTLE.simple(1, &[0])].concat(),
            "offset 28: interface 0, its section has described 0",
        ),
    ] {
        let (frames, failure) = read_octets(&file);
        assert!(frames.is_empty());
        assert_eq!(failure.unwrap().to_string(), format!("stream: {told}"));
    }
}

#[test]
fn a_read_that_fails_ends_the_file_where_it_failed() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("the disk is gone"))
        }
    }
    let (file, expected) = pcap_of_both_lengths();
    let length = file.len();
    let (frames, failure) = read_stream(io::Cursor::new(file).chain(Broken), 1 << 18);
    assert_eq!(frames, expected);
    assert_eq!(
        failure.unwrap().to_string(),
        format!("stream: offset {length}: reading failed: the disk is gone")
    );
}

// ---------------------------------------------------------------- compression

#[test]
fn compressed_captures_of_several_members_are_read() {
    let folder = TempDir::new().unwrap();
    for (format, (file, expected)) in
        [("pcapng", pcapng_of_everything()), ("pcap", pcap_of_both_lengths()), ("pcap", pcap_of_many())]
    {
        for (compression, compress) in
            [("gz", gzip as fn(&[u8]) -> Vec<u8>), ("zst", zstd_frame), ("lz4", lz4)]
        {
            let (first, second) = file.split_at(file.len() / 3);
            let skippable = if compression == "zst" { &b"\x50\x2A\x4D\x18\x02\0\0\0ab"[..] } else { &[] };
            let compressed = [skippable, &compress(first), &compress(second)].concat();
            let path = written(&folder, &format!("{format}.{compression}"), &compressed);
            let alone = open(std::slice::from_ref(&path));
            let without_threads = CaptureFiles { most_ahead: 0, ..alone };
            for mut files in [open(std::slice::from_ref(&path)), without_threads] {
                assert_eq!(read_files(&mut files), expected);
                assert!(files.failures().is_empty(), "{:?}", files.failures());
                assert_eq!(Some(files.octets_read()), files.octets_total());
            }
        }
    }
}

/// Some 5 MB of frames.
fn pcap_of_many() -> (Vec<u8>, Vec<Owned>) {
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

#[test]
fn a_compressed_stream_that_is_cut_off_or_damaged_gives_what_it_can_and_says_where_it_stopped() {
    let folder = TempDir::new().unwrap();
    let (file, expected) = pcap_of_many();
    for (name, compressed) in [("gzip", gzip(&file)), ("zstd", zstd_frame(&file)), ("lz4", lz4(&file))] {
        let mut damaged = compressed.clone();
        let half = damaged.len() / 2;
        damaged[half..half + 64].iter_mut().for_each(|octet| *octet ^= 0x5A);
        for octets in [&compressed[..half], &compressed[..compressed.len() - 1], &damaged] {
            let path = written(&folder, name, octets);
            let mut files = open(&[path]);
            let frames = read_files(&mut files);
            assert!(frames[..frames.len().min(100)] == expected[..frames.len().min(100)]);
            let [failure] = files.failures() else { panic!("{name}: {:?}", files.failures()) };
            assert!(failure.decompressed);
            if octets.len() < compressed.len() {
                assert_eq!(frames, expected[..frames.len()]);
                assert!(failure.to_string().contains(" of the decompressed stream: "), "{failure}");
                let told = format!("decompressing {name} failed: ");
                assert!(failure.to_string().contains(&told), "{failure}");
            }
        }
    }
}

#[test]
fn mutated_compressed_captures_neither_panic_nor_hang() {
    let folder = TempDir::new().unwrap();
    let mut random = Random(0x5EED_0003);
    let file = [pcapng_of_everything().0, pcapng_of_everything().0].concat();
    let seeds = [gzip(&file), zstd_frame(&file), lz4(&file), [lz4(&file), lz4(&file)].concat()];
    for _ in 0..600 {
        let mut octets = seeds[random.below(seeds.len())].clone();
        mutate(&mut octets, &mut random);
        let path = written(&folder, "mutated", &octets);
        let mut files = open(&[path.clone(), path]);
        read_files(&mut files);
    }
}

// ---------------------------------------------------------------- several files

/// The rule of the merge, plainly.
fn merged(mut files: Vec<Vec<Owned>>) -> Vec<Owned> {
    files.iter_mut().for_each(|frames| frames.reverse());
    let mut merged = Vec::new();
    loop {
        let ready = files.iter_mut().filter(|frames| !frames.is_empty());
        // Of equals, `min_by_key` gives the first.
        let Some(earliest) = ready.min_by_key(|frames| frames.last().unwrap().nanos) else { return merged };
        merged.extend(earliest.pop());
    }
}

fn frames_of(paths: &[PathBuf]) -> Vec<Vec<Owned>> {
    paths.iter().map(|path| read_paths(std::slice::from_ref(path)).0).collect()
}

#[test]
fn files_are_merged_by_time_with_ties_to_the_one_named_first_and_nothing_reordered_within() {
    let folder = TempDir::new().unwrap();
    let a = written(&folder, "a", &pcap_at(&[10, 30, 30, 5, 40], b'a'));
    let b = written(&folder, "b", &pcap_at(&[10, 20, 30, 31], b'b'));
    let c = written(&folder, "c", &pcap_at(&[], b'c'));
    let marks = |paths: &[PathBuf]| -> Vec<(u64, u8, u8)> {
        let (frames, failures) = read_paths(paths);
        assert!(failures.is_empty());
        frames.iter().map(|frame| (frame.nanos, frame.data[0], frame.data[1])).collect()
    };
    assert_eq!(
        marks(&[a.clone(), c, b.clone()]),
        [
            (10, b'a', 0),
            (10, b'b', 0),
            (20, b'b', 1),
            (30, b'a', 1),
            (30, b'a', 2),
            (5, b'a', 3),
            (30, b'b', 2),
            (31, b'b', 3),
            (40, b'a', 4)
        ]
    );
    assert_eq!(marks(&[b, a])[..2], [(10, b'b', 0), (10, b'a', 0)]);
}

#[test]
fn any_files_merge_as_the_plain_rule_says_with_few_of_them_open() {
    let folder = TempDir::new().unwrap();
    let mut random = Random(0x5EED_0004);
    for most_open in [1, 2, 5, MOST_OPEN] {
        let paths: Vec<_> = (0..30)
            .map(|number| {
                let count = random.below(60);
                let nanos: Vec<_> = (0..count).map(|_| random.next() % 200).collect();
                let octets = pcap_at(&nanos, number);
                let octets = match number % 5 {
                    0 => gzip(&octets),
                    1 => zstd_frame(&octets),
                    2 => lz4(&octets),
                    _ => octets,
                };
                written(&folder, &number.to_string(), &octets)
            })
            .collect();
        let mut files = CaptureFiles { most_open, ..open(&paths) };
        let frames = read_files(&mut files);
        assert!(files.failures().is_empty(), "{:?}", files.failures());
        assert_eq!(frames, merged(frames_of(&paths)));
    }
}

#[test]
fn more_overlapping_files_than_may_be_open_are_put_down_and_taken_up_again() {
    let folder = TempDir::new().unwrap();
    let count = MOST_OPEN as u64 + 60;
    let paths: Vec<_> = (0..count)
        .map(|number| {
            let nanos: Vec<_> = (0..20).map(|turn| turn * 1_000 + number).collect();
            written(&folder, &format!("{number:03}"), &pcap_at(&nanos, number as u8))
        })
        .collect();
    let mut files = open(&paths);
    let mut last = None;
    let mut read = 0;
    while let Some(run) = files.next_run() {
        for frame in run {
            let now = frame.timestamp;
            assert!(last.is_none_or(|last| last < now));
            last = Some(now);
            read += 1;
        }
        assert!(files.open.len() <= MOST_OPEN);
    }
    assert_eq!(read, count * 20);
    assert!(files.failures().is_empty(), "{:?}", files.failures());
    assert_eq!(Some(files.octets_read()), files.octets_total());
}

#[test]
fn compressed_files_read_far_into_are_put_down_too() {
    let folder = TempDir::new().unwrap();
    let (file, expected) = pcap_of_many();
    let compressions = [gzip as fn(&[u8]) -> Vec<u8>, zstd_frame, lz4, |octets| octets.to_vec()];
    let paths: Vec<_> = compressions
        .iter()
        .enumerate()
        .map(|(number, compress)| written(&folder, &number.to_string(), &compress(&file)))
        .collect();
    for most_ahead in [0, 1, 4] {
        let mut files = CaptureFiles { most_open: 1, most_ahead, ..open(&paths) };
        let frames = read_files(&mut files);
        assert!(files.failures().is_empty(), "{:?}", files.failures());
        let expected: Vec<_> = expected.iter().flat_map(|frame| vec![frame; paths.len()]).collect();
        assert!(frames.iter().eq(expected));
    }
}

#[test]
fn rotated_files_are_open_one_at_a_time() {
    let folder = TempDir::new().unwrap();
    let paths: Vec<_> = (0..1_200_u64)
        .map(|number| written(&folder, &number.to_string(), &pcap_at(&[number * 10, number * 10 + 5], 0)))
        .collect();
    let mut files = open(&paths);
    let mut read = 0;
    while let Some(run) = files.next_run() {
        read += run.len();
        assert!(files.open.len() <= 1);
    }
    assert_eq!(read, 2_400);
}

#[test]
fn a_damaged_or_missing_file_is_reported_and_the_others_go_on() {
    let folder = TempDir::new().unwrap();
    let whole = pcap_at(&[1, 4], b'w');
    let mut damaged = pcap_at(&[2, 3, 5], b'd');
    damaged.truncate(damaged.len() - 1);
    let paths = [
        written(&folder, "damaged", &damaged),
        folder.path().join("missing"),
        written(&folder, "whole", &whole),
        written(&folder, "empty", &[]),
    ];
    let (frames, failures) = read_paths(&paths);
    assert_eq!(frames.iter().map(|frame| frame.nanos).collect::<Vec<_>>(), [1, 2, 3, 4]);
    let shown = |number: usize| paths[number].display().to_string();
    assert_eq!(
        failures,
        [
            format!("{}: cannot be opened: No such file or directory (os error 2)", shown(1)),
            format!("{}: offset 0: empty, not a capture", shown(3)),
            format!("{}: offset 60: packet record cut off: 18 octets needed, 17 left", shown(0)),
        ]
    );
}

#[test]
fn a_file_that_changes_while_others_have_their_turn_is_an_error() {
    let folder = TempDir::new().unwrap();
    let octets = pcap_at(&[1, 2, 3], b'a');
    for (name, change) in [
        (
            "replaced",
            Box::new(|path: &Path| fs::rename(path.with_extension("new"), path).unwrap())
                as Box<dyn Fn(&Path)>,
        ),
        (
            "shorter",
            Box::new(|path: &Path| {
                fs::OpenOptions::new().write(true).open(path).unwrap().set_len(30).unwrap()
            }),
        ),
        ("gone", Box::new(|path: &Path| fs::remove_file(path).unwrap())),
    ] {
        for compress in [(|octets| octets.to_vec()) as fn(&[u8]) -> Vec<u8>, gzip] {
            let path = written(&folder, name, &compress(&octets));
            written(&folder, &format!("{name}.new"), &compress(&octets));
            let first = written(&folder, "first", &pcap_at(&[0], b'f'));
            let mut files = open(&[path.clone(), first]);
            let times = |files: &mut CaptureFiles| -> Vec<u64> {
                files.next_run().unwrap().map(|frame| frame.timestamp.nanos()).collect()
            };
            assert_eq!(times(&mut files), [0]);
            change(&path);
            // The frame read before is still there.
            assert_eq!(times(&mut files), [1]);
            assert!(files.next_run().is_none());
            assert_eq!(files.failures().len(), 1, "{name}");
        }
    }
}

#[test]
fn a_file_cut_off_while_it_is_read_gives_what_was_read_and_ends() {
    // Long enough to be looked ahead in, and frames of one line, of a few and of many.
    let data: Vec<u8> = (0..5_000u32).map(|at| at as u8).collect();
    let mut octets = LITTLE.pcap_header(0xA1B2_3C4D, 1);
    let mut written_frames = Vec::new();
    for number in 0..30_000u32 {
        let data = &data[..[60, 300, 1_500, 0, 5_000][number as usize % 5]];
        octets.extend(LITTLE.record(number, 0, 60, data));
        written_frames.push((u64::from(number) * 1_000_000_000, data));
    }
    let folder = TempDir::new().unwrap();
    for (left, frames_read) in [(octets.len(), 0), (octets.len() / 2, 10_000), (0, 10_000), (0, 1)] {
        let path = written(&folder, "cut.pcap", &octets);
        let mut files = open(std::slice::from_ref(&path));
        let (mut read, mut cut) = (0, false);
        while let Some(run) = files.next_run() {
            for frame in run {
                // Whatever becomes of the file: what is given out is what was in it.
                let (nanos, data) = written_frames[read];
                assert!(frame.timestamp.nanos() == nanos && frame.data == data, "frame {read}");
                read += 1;
            }
            if read >= frames_read && !cut {
                cut = true;
                fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(left as u64).unwrap();
            }
        }
        assert_eq!(read == written_frames.len(), left == octets.len(), "cut to {left} octets");
        assert!(read >= frames_read);
        let failures: Vec<_> = files.failures().iter().map(FileError::to_string).collect();
        assert!(failures.iter().all(|failure| failure.contains("packet record cut off")), "{failures:?}");
    }
}

#[test]
fn a_directory_means_the_captures_in_it() {
    let folder = TempDir::new().unwrap();
    written(&folder, "b.pcap", &pcap_at(&[1], b'b'));
    written(&folder, "a.dump.gz", &gzip(&pcap_at(&[1], b'a')));
    written(&folder, "c", &pcapng_of_everything().0);
    written(&folder, "notes.txt", b"no capture");
    written(&folder, "empty.pcap", b"");
    written(&folder, "text.gz", &gzip(b"no capture"));
    fs::create_dir(folder.path().join("deeper")).unwrap();
    let mut files = open(&[folder.path().to_path_buf()]);
    let frames = read_files(&mut files);
    assert!(files.failures().is_empty(), "{:?}", files.failures());
    assert_eq!(frames.len(), 2 + pcapng_of_everything().1.len());
    let marks: Vec<_> = frames.iter().filter(|frame| frame.nanos == 1).map(|frame| frame.data[0]).collect();
    assert_eq!(marks, b"ab");
    let shown = folder.path().display();
    let note = format!("{shown}: left out what is no capture: deeper, empty.pcap, notes.txt, text.gz");
    assert_eq!(files.notes(), [note]);

    let (_, failures) = read_paths(&[folder.path().join("deeper")]);
    assert_eq!(failures, [format!("{shown}/deeper: a directory without any capture")]);
}

#[test]
fn a_named_pipe_is_read_once_and_never_put_down() {
    let folder = TempDir::new().unwrap();
    for (name, compress) in
        [("plain", (|octets| octets.to_vec()) as fn(&[u8]) -> Vec<u8>), ("gz", gzip), ("lz4", lz4)]
    {
        let pipe = folder.path().join(format!("pipe.{name}"));
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let (file, expected) = pcap_of_many();
        let other = written(&folder, "other", &file);
        let octets = compress(&file);
        let writer = std::thread::spawn({
            let pipe = pipe.clone();
            move || fs::OpenOptions::new().write(true).open(pipe).unwrap().write_all(&octets).unwrap()
        });
        let mut files = CaptureFiles { most_open: 1, ..open(&[pipe, other]) };
        let frames = read_files(&mut files);
        writer.join().unwrap();
        assert!(files.failures().is_empty(), "{:?}", files.failures());
        assert_eq!(files.octets_total(), None);
        assert!(frames.iter().eq(expected.iter().flat_map(|frame| [frame, frame])));
    }
}

#[test]
fn an_interface_given_takes_the_place_of_those_in_the_files() {
    let folder = TempDir::new().unwrap();
    let paths = [written(&folder, "a", &pcapng_of_everything().0), written(&folder, "b", &pcap_at(&[1], 0))];
    let options = FileOptions { interface: Some(42), ..FileOptions::default() };
    let mut files = CaptureFiles::open(&paths, &options).unwrap();
    assert!(read_files(&mut files).iter().all(|frame| frame.interface == 42));
}

#[test]
fn nothing_named_gives_nothing() {
    let mut files = open(&[]);
    assert!(files.next_run().is_none());
    assert!(files.next_run().is_none());
    assert_eq!(files.octets_total(), Some(0));
}

// ---------------------------------------------------------------- filters

#[test]
fn a_filter_sees_the_wire_length_and_what_it_leaves_out_is_counted() {
    let folder = TempDir::new().unwrap();
    let path = written(&folder, "a", &pcap_of_both_lengths().0);
    let options = FileOptions { filter: Some("greater 1000".to_string()), ..FileOptions::default() };
    let mut files = CaptureFiles::open(&[path], &options).unwrap();
    let frames = read_files(&mut files);
    assert_eq!(frames.len(), 1);
    assert_eq!((frames[0].wire_length, frames[0].data.len()), (1_500, 96));
    assert_eq!(files.filtered(), 2);
}

#[test]
fn frames_of_a_link_type_that_the_filter_cannot_be_asked_of_are_one_failure_and_the_others_are_read() {
    let folder = TempDir::new().unwrap();
    let file = [
        LITTLE.pcap_header(0xA1B2_C3D4, 9_999),
        LITTLE.record(0, 0, 60, &[0; 60]),
        LITTLE.record(0, 0, 60, &[0; 60]),
    ];
    let path = written(&folder, "a", &file.concat());
    let other = written(&folder, "b", &pcap_of_both_lengths().0);
    let options = FileOptions { filter: Some("greater 1000".to_string()), ..FileOptions::default() };
    let mut files = CaptureFiles::open(&[path, other], &options).unwrap();
    assert_eq!(read_files(&mut files).len(), 1);
    let [failure] = files.failures() else { panic!("{:?}", files.failures()) };
    let LinkType(number) = match &failure.reason {
        Reason::Filter { link_type, .. } => *link_type,
        other => panic!("{other}"),
    };
    assert_eq!((number, failure.offset), (9_999, Some(24 + 16)));
    assert_eq!(files.filtered(), 2 + 2);
}

#[test]
fn a_filter_that_does_not_compile_is_refused_before_any_file_is_read() {
    let options = FileOptions { filter: Some("tcp prot 80".to_string()), ..FileOptions::default() };
    let refused = CaptureFiles::open(&[PathBuf::from("missing")], &options).map(|_| ()).unwrap_err();
    assert!(refused.to_string().starts_with("--filter `tcp prot 80`: "), "{refused}");
    assert!(!refused.refusal.0.is_empty());
}
