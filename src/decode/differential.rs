//! Decoding compared with the reference answer, `oracle/flows.py`, which shares no code with it.
//!
//! Compared are every frame of the shared captures, mutations and truncations of frames of every link type, frames that
//! a seeded generator stacks up from plausible and implausible headers, and sequences of fragments. The reference lies
//! in the folder that `FLOWTAP_SHARED` names (default `../shared`); where it or Python is missing, these tests are
//! skipped.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::process::{Command, Stdio};

use super::{Fragment, FragmentTable, Ignored, IpVersion, Packet, decode};
use crate::capture::{Frame, LinkType};
use crate::needs::shared;
use crate::time::Timestamp;

/// Writes out every frame of every capture: wire length, link type, captured length, octets.
const ENUMERATE: &str = r#"
import flows, os, struct, sys
folder = os.path.join(sys.argv[1], "captures")
for name in sorted(os.listdir(folder)):
    for ts, wire, link, b in flows.packets(os.path.join(folder, name)):
        sys.stdout.buffer.write(struct.pack("<IHI", wire, link, len(b)) + b)
"#;

/// Reads frames in that form; writes a line for each: the decoded fields, or the reason why not.
const DECODE: &str = r#"
import flows, struct, sys
data, at, out = sys.stdin.buffer.read(), 0, []
while at < len(data):
    wire, link, size = struct.unpack_from("<IHI", data, at)
    at += 10
    try:
        p = flows.decode(wire, link, data[at:at + size])
        fragment = "whole"
        if p.fragment is not None:
            key, offset = p.fragment
            assert key[0] == p.src and key[1] == p.dst and key[2] in (p.proto, None)
            fragment = ("later " if offset else "first ") + str(key[3])
        out.append(" ".join(map(str, (p.src.hex(), p.dst.hex(), p.proto, p.sport, p.dport, p.octets, p.flags, p.vlan,
                                      p.tos, fragment))))
    except flows.Ignored as why:
        out.append(str(why))
    at += size
print("\n".join(out))
"#;

/// Reads fragments, a line each; writes what each has after `give_ports`.
const GIVE_PORTS: &str = r#"
import flows, sys
from collections import OrderedDict
fragments, out = OrderedDict(), []
for line in sys.stdin:
    ts, version, src, dst, proto, sport, dport, ident, offset = line.split()
    if ident == "clear":
        fragments.clear()
        continue
    p = flows.Packet()
    p.src, p.dst = bytes.fromhex(src), bytes.fromhex(dst)
    p.proto, p.sport, p.dport = int(proto), int(sport), int(dport)
    p.fragment = (p.src, p.dst, p.proto if version == "4" else None, int(ident)), int(offset)
    flows.give_ports(p, int(ts), fragments)
    out.append("%d %d %d" % (p.proto, p.sport, p.dport))
print("\n".join(out), len(fragments), sep="\n")
"#;

/// What a Python script that imports the reference writes when it reads `input`.
fn ask(folder: &std::path::Path, script: &str, input: Vec<u8>) -> Vec<u8> {
    let mut child = Command::new("python3")
        .args(["-c", script])
        .arg(folder)
        .env("PYTHONPATH", folder.join("oracle"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 starts");
    let mut stdin = child.stdin.take().expect("it was piped");
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let mut output = Vec::new();
    child.stdout.take().expect("it was piped").read_to_end(&mut output).expect("the pipe is ours");
    writer.join().expect("it does not panic").expect("the script reads all of its input");
    assert!(child.wait().expect("it was started").success(), "the reference failed");
    output
}

/// A frame that owns its octets.
#[derive(Clone, Debug)]
pub(super) struct Owned {
    wire_length: u32,
    link_type: u16,
    data: Vec<u8>,
}

impl Owned {
    pub(super) fn frame(&self) -> Frame<'_> {
        Frame {
            timestamp: Timestamp::EPOCH,
            wire_length: self.wire_length,
            link_type: LinkType(self.link_type),
            interface: 0,
            data: &self.data,
        }
    }
}

fn written(frames: &[Owned]) -> Vec<u8> {
    let mut octets = Vec::new();
    for frame in frames {
        octets.extend(frame.wire_length.to_le_bytes());
        octets.extend(frame.link_type.to_le_bytes());
        octets.extend(u32::try_from(frame.data.len()).expect("frames are short").to_le_bytes());
        octets.extend(&frame.data);
    }
    octets
}

fn read(mut octets: &[u8]) -> Vec<Owned> {
    let mut frames = Vec::new();
    while let Some((&[a, b, c, d, l, k, e, f, g, h], rest)) = octets.split_first_chunk::<10>() {
        let (data, rest) = rest.split_at(u32::from_le_bytes([e, f, g, h]) as usize);
        frames.push(Owned {
            wire_length: u32::from_le_bytes([a, b, c, d]),
            link_type: u16::from_le_bytes([l, k]),
            data: data.to_vec(),
        });
        octets = rest;
    }
    frames
}

fn address(version: IpVersion, octets: &[u8; 16]) -> String {
    let (used, unused) = octets.split_at(if version == IpVersion::V4 { 4 } else { 16 });
    assert!(unused.iter().all(|octet| *octet == 0), "what an IPv4 address leaves is 0");
    used.iter().map(|octet| format!("{octet:02x}")).collect()
}

/// The line that the reference writes for such a result.
fn line(result: &Result<Packet, Ignored>) -> String {
    match result {
        Ok(p) => format!(
            "{} {} {} {} {} {} {} {} {} {}",
            address(p.ip_version, &p.source),
            address(p.ip_version, &p.destination),
            p.protocol,
            p.source_port,
            p.destination_port,
            p.octets,
            p.tcp_flags,
            p.vlan,
            p.tos,
            match p.fragment {
                Fragment::Whole => "whole".to_string(),
                Fragment::First => format!("first {}", p.fragment_id),
                Fragment::Later => format!("later {}", p.fragment_id),
            }
        ),
        Err(reason) => reason.name().to_string(),
    }
}

/// Asserts that the reference decodes each frame as we do; gives how often each outcome came up.
fn compare(folder: &std::path::Path, frames: &[Owned]) -> [usize; 5] {
    let answers = String::from_utf8(ask(folder, DECODE, written(frames))).expect("it writes ASCII");
    assert!(!frames.is_empty(), "nothing to compare");
    let mut seen = [0; 5];
    let mut lines = answers.lines();
    for frame in frames {
        let ours = decode(&frame.frame());
        assert_eq!(line(&ours), lines.next().unwrap_or_default(), "{frame:02x?}");
        seen[match ours {
            Ok(_) => 0,
            Err(reason) => reason as usize + 1,
        }] += 1;
    }
    assert_eq!(lines.next(), None, "a line for each frame");
    seen
}

/// A seeded generator of numbers (SplitMix64): the same in each run.
pub(super) struct Random(pub(super) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    fn octets(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }
}

/// Cuts a frame, flips some of its octets, or lies about its length.
fn damage(random: &mut Random, frame: &mut Owned) {
    if random.one_in(2) && !frame.data.is_empty() {
        let head = frame.data.len().min(if random.one_in(2) { 96 } else { 40 });
        for _ in 0..=random.below(3) {
            let at = random.below(head);
            frame.data[at] = match random.below(4) {
                0 => 0,
                1 => frame.data[at] ^ 1 << random.below(8),
                2 => random.pick(&[
                    1, 4, 6, 8, 17, 43, 44, 51, 58, 60, 0x45, 0x60, 0x81, 0x86, 0x88, 0xAA, 0xDD, 0xFF,
                ]),
                _ => random.next() as u8,
            };
        }
    }
    if random.one_in(3) {
        let longest = if random.one_in(3) { frame.data.len() } else { frame.data.len().min(120) };
        frame.data.truncate(random.below(longest + 1));
    }
    if random.one_in(8) {
        frame.wire_length = random.pick(&[0, 1, 4, 13, 14, 18, 33, 34, 53, 54, 60, 1500, 70_000, u32::MAX]);
    }
    if random.one_in(30) {
        frame.link_type = random.pick(&LINK_TYPES);
    }
}

/// Those that are decoded, Ethernet more than once, and one that is not.
const LINK_TYPES: [u16; 13] = [1, 113, 276, 0, 108, 12, 14, 101, 228, 229, 1, 1, 105];
const PROTOCOLS: [u8; 18] = [6, 17, 136, 132, 33, 1, 58, 0, 43, 60, 135, 139, 140, 44, 51, 47, 59, 253];

/// What follows an IP header: extension headers over IPv6, then a transport header.
fn payload(random: &mut Random, version: IpVersion) -> (u8, Vec<u8>) {
    let mut headers: Vec<u8> = Vec::new();
    let transport = random.pick(&PROTOCOLS);
    let mut next = transport;
    headers.extend({
        let length = random.pick(&[0, 1, 2, 3, 4, 8, 12, 13, 14, 20, 32]);
        random.octets(length)
    });
    if version == IpVersion::V4 && !random.one_in(10) {
        return (next, headers);
    }
    for _ in 0..random.pick(&[0, 0, 1, 1, 2, 3, 5]) {
        let kind = random.pick(&[0, 43, 60, 135, 139, 140, 44, 44, 44, 51]);
        let units = random.pick(&[0, 0, 0, 1, 1, 2, 3, 30]);
        let length = match kind {
            44 => 8,
            51 => (units + 2) * 4,
            _ => (units + 1) * 8,
        };
        let mut header = random.octets(length);
        header[0] = next;
        header[1] = units as u8;
        if kind == 44 {
            let bits = random.pick(&[0x0000, 0x0001, 0x0001, 0x0000, 0x00B8, 0x00B9, 0x0006, 0xFFF8]) as u16;
            header[2..4].copy_from_slice(&bits.to_be_bytes());
        }
        headers.splice(0..0, header);
        next = kind;
    }
    (next, headers)
}

fn ip_packet(random: &mut Random, version: IpVersion) -> Vec<u8> {
    let (protocol, payload) = payload(random, version);
    let mut packet;
    match version {
        IpVersion::V4 => {
            let words = random.pick(&[5, 5, 5, 5, 5, 6, 8, 15, 4]);
            packet = random.octets(words.max(5) * 4);
            packet[0] = 0x40 | words as u8;
            let total = match random.below(12) {
                0 => 0,
                1 => random.below(80),
                2 => 1500,
                _ => packet.len() + payload.len(),
            };
            packet[2..4].copy_from_slice(&(total as u16).to_be_bytes());
            let bits = random
                .pick(&[0x0000u16, 0x4000, 0x4000, 0x4000, 0x2000, 0x2000, 0x0017, 0x2017, 0x8000, 0xFFFF]);
            packet[6..8].copy_from_slice(&bits.to_be_bytes());
            packet[9] = protocol;
        }
        IpVersion::V6 => {
            packet = random.octets(40);
            packet[0] = 0x60 | packet[0] & 0x0F;
            let length = match random.below(12) {
                0 => 0,
                1 => random.below(80),
                2 => 1460,
                _ => payload.len(),
            };
            packet[4..6].copy_from_slice(&(length as u16).to_be_bytes());
            packet[6] = protocol;
        }
    }
    packet.extend(payload);
    if random.one_in(4) {
        let padding = random.below(20);
        packet.extend(random.octets(padding));
    }
    packet
}

/// A frame stacked up from the inside out, and its link type.
pub(super) fn stacked(random: &mut Random) -> Owned {
    let version = random.pick(&[IpVersion::V4, IpVersion::V6]);
    let mut data = ip_packet(random, version);
    let mut kind: u16 = if version == IpVersion::V4 { 0x0800 } else { 0x86DD };
    if random.one_in(20) {
        kind = random.pick(&[0x0806, 0x88CC, 0x0800, 0x86DD, 1501, 1535, 1536, 0x8848]);
    }
    let link_type = random.pick(&LINK_TYPES);
    let before = |data: &mut Vec<u8>, header: Vec<u8>| drop(data.splice(0..0, header));
    if matches!(link_type, 1 | 113 | 276) {
        match random.below(8) {
            0 => {
                let mut header = random.octets(6);
                let ppp: u16 = match kind {
                    0x0800 => 0x0021,
                    0x86DD => 0x0057,
                    _ => random.pick(&[0xC021, 0x0020, 0x0121]),
                };
                let octets = ppp.to_be_bytes();
                header.extend(if random.one_in(2) { &octets[1..] } else { &octets[..] });
                before(&mut data, header);
                kind = 0x8864;
            }
            1 => {
                for depth in 0..=random.below(4) {
                    let mut label = random.octets(4);
                    label[2] = label[2] & 0xFE | u8::from(depth == 0);
                    before(&mut data, label);
                }
                kind = random.pick(&[0x8847, 0x8848]);
            }
            _ => {}
        }
        for _ in 0..random.pick(&[0, 0, 0, 1, 1, 2, 3, 6]) {
            let mut header = match random.below(5) {
                0 => {
                    let mut snap = vec![0xAA, 0xAA, 3, 0, 0, 0];
                    if random.one_in(6) {
                        let at = random.below(6);
                        snap[at] ^= 1;
                    }
                    snap
                }
                1 => random.octets(4),
                _ => (random.pick(&[0u16, 0x2000, 0xF000, 1, 0x0FFF, 0x6064]) | random.below(3) as u16)
                    .to_be_bytes()
                    .to_vec(),
            };
            let outer = match header.len() {
                6 => random.pick(&[0, 46, 1499, 1500]),
                4 => 0x8926,
                _ => random.pick(&[0x8100, 0x88A8, 0x9100]),
            };
            header.extend(kind.to_be_bytes());
            before(&mut data, header);
            kind = outer;
        }
    }
    match link_type {
        1 => {
            before(&mut data, kind.to_be_bytes().to_vec());
            before(&mut data, random.octets(12));
        }
        113 => {
            before(&mut data, kind.to_be_bytes().to_vec());
            before(&mut data, random.octets(14));
        }
        276 => {
            before(&mut data, random.octets(18));
            before(&mut data, kind.to_be_bytes().to_vec());
        }
        0 | 108 => {
            let family: u32 = match version {
                IpVersion::V4 => random.pick(&[2, 2, 2, 10, 0, 7, 0x10002]),
                IpVersion::V6 => random.pick(&[10, 24, 28, 30, 2, 31, 0x0A0A]),
            };
            let octets = if random.one_in(2) { family.to_le_bytes() } else { family.to_be_bytes() };
            before(&mut data, octets.to_vec());
        }
        _ => {}
    }
    let longer = if random.one_in(5) { random.below(2000) } else { 0 };
    Owned { wire_length: (data.len() + longer) as u32, link_type, data }
}

#[test]
fn every_frame_of_the_shared_captures_decodes_as_the_reference_says() {
    let Some(folder) = shared() else { return };
    let octets = ask(&folder, ENUMERATE, Vec::new());
    let frames = read(&octets);
    let seen = compare(&folder, &frames);
    println!(
        "{} frames of captures: metered, link_type, non_ip, truncated, malformed {seen:?}",
        frames.len()
    );
}

#[test]
fn damaged_frames_of_captures_decode_as_the_reference_says() {
    let Some(folder) = shared() else { return };
    let octets = ask(&folder, ENUMERATE, Vec::new());
    let frames = read(&octets);
    let mut random = Random(1);
    // Each link type and each length has its share, however many frames of it the captures hold.
    let mut by_link: std::collections::BTreeMap<u16, Vec<&Owned>> = std::collections::BTreeMap::new();
    for frame in &frames {
        by_link.entry(frame.link_type).or_default().push(frame);
    }
    let mut damaged = Vec::new();
    for (link_type, frames) in &by_link {
        let share = if LINK_TYPES[..12].contains(link_type) { 5_000 } else { 100 };
        for _ in 0..share {
            let mut frame = random.pick(frames).clone();
            damage(&mut random, &mut frame);
            frame.data.truncate(2_000);
            damaged.push(frame);
        }
    }
    let seen = compare(&folder, &damaged);
    println!("{} damaged frames: metered, link_type, non_ip, truncated, malformed {seen:?}", damaged.len());
}

#[test]
fn stacks_of_headers_whole_and_damaged_decode_as_the_reference_says() {
    let Some(folder) = shared() else { return };
    let mut random = Random(2);
    let frames: Vec<Owned> = (0..100_000)
        .map(|_| {
            let mut frame = stacked(&mut random);
            if random.one_in(2) {
                damage(&mut random, &mut frame);
            }
            frame
        })
        .collect();
    let seen = compare(&folder, &frames);
    println!("{} stacks: metered, link_type, non_ip, truncated, malformed {seen:?}", frames.len());
    assert!(seen.iter().all(|count| *count > 500), "each outcome comes up: {seen:?}");
}

#[test]
fn every_truncation_of_a_stack_decodes_as_the_reference_says() {
    let Some(folder) = shared() else { return };
    let mut random = Random(3);
    let mut frames = Vec::new();
    for _ in 0..400 {
        let whole = stacked(&mut random);
        for length in 0..=whole.data.len().min(160) {
            frames.push(Owned { data: whole.data[..length].to_vec(), ..whole });
        }
    }
    let seen = compare(&folder, &frames);
    println!("{} truncations: metered, link_type, non_ip, truncated, malformed {seen:?}", frames.len());
}

/// Compares `count` fragments of eight packets (two sources; three protocols over IPv4, one over IPv6) to each of
/// `identifications`, one in `later_one_in` a
/// later one, less than `step_ns` after one another; the table is cleared half-way where `clears`.
fn compare_fragments(
    seed: u64,
    count: usize,
    identifications: usize,
    later_one_in: usize,
    step_ns: u64,
    clears: bool,
) {
    let Some(folder) = shared() else { return };
    let mut random = Random(seed);
    let (mut table, mut input, mut ours) = (FragmentTable::new(), String::new(), Vec::new());
    let mut now = 1_000_000_000_000u64;
    for number in 0..count {
        if clears && number == count / 2 {
            table.clear();
            input.push_str("0 4 00 00 0 0 0 clear 0\n");
        }
        now += random.next() % step_ns;
        // Now and then a packet of the past, and ages of exactly thirty seconds.
        let at = match random.below(10) {
            0 => now - random.next() % 40_000_000_000,
            1 => now / 10_000_000_000 * 10_000_000_000,
            _ => now,
        };
        let ip_version = random.pick(&[IpVersion::V4, IpVersion::V6]);
        let mut source = [0; 16];
        source[3] = random.below(2) as u8;
        let mut packet = Packet {
            timestamp: Timestamp::from_nanos(at),
            source,
            destination: [0; 16],
            octets: 1500,
            interface: 0,
            fragment_id: random.below(identifications) as u32,
            source_port: 0,
            destination_port: 0,
            tcp_flags: 0,
            vlan: 0,
            protocol: random.pick(&[6, 17, 60]),
            tos: 0,
            ip_version,
            fragment: if random.one_in(later_one_in) { Fragment::Later } else { Fragment::First },
        };
        if packet.fragment == Fragment::First {
            packet.source_port = random.next() as u16;
            packet.destination_port = random.next() as u16;
        }
        writeln!(
            input,
            "{at} {} {} {} {} {} {} {} {}",
            ip_version as u8,
            address(ip_version, &packet.source),
            address(ip_version, &packet.destination),
            packet.protocol,
            packet.source_port,
            packet.destination_port,
            packet.fragment_id,
            u8::from(packet.fragment == Fragment::Later),
        )
        .expect("a String takes all");
        table.resolve(&mut packet);
        ours.push(format!("{} {} {}", packet.protocol, packet.source_port, packet.destination_port));
    }
    ours.push(table.len().to_string());
    let answers = ask(&folder, GIVE_PORTS, input.into_bytes());
    let answers = String::from_utf8(answers).expect("it writes ASCII");
    for (number, (ours, theirs)) in ours.iter().zip(answers.lines()).enumerate() {
        assert_eq!(ours, theirs, "fragment {number} of seed {seed}");
    }
    assert_eq!(ours.len(), answers.lines().count());
    println!("{count} fragments, {} remembered at the end", table.len());
}

#[test]
fn fragments_take_the_ports_that_the_reference_gives_them() {
    compare_fragments(4, 60_000, 40, 2, 2_000_000_000, true);
    compare_fragments(5, 60_000, 2_000, 2, 20_000_000, false);
}

#[test]
fn a_full_table_forgets_what_the_reference_forgets() {
    // 144,000 keys, of which the table holds half at a time; some come again and so become the newest.
    compare_fragments(6, 400_000, 18_000, 4, 1_000, false);
}
