//! Decoding, by link type, IP version and what stands between the headers.
//!
//! An iteration is 1,000 frames out of 16,000: a time of 1 µs is 1 ns a frame.

mod common;

use std::cell::Cell;

use common::frames::{Extra, Frames, Link, Spec, UDP};
use common::{Random, check, imix};
use divan::{AllocProfiler, Bencher, black_box, counter::ItemsCount};
use flowtap::decode::{self, IpVersion, Packet};

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

const FRAMES: usize = 16_000;
const ROUND: usize = 1_000;

fn main() {
    divan::main();
}

const LINKS: [Link; 9] = [
    Link::Ethernet,
    Link::Vlan,
    Link::QinQ,
    Link::Mpls,
    Link::Pppoe,
    Link::Null,
    Link::Raw,
    Link::Sll,
    Link::Sll2,
];

fn decode_rounds(bencher: Bencher<'_, '_>, link: Link, make: impl FnMut(&mut Random) -> Spec) {
    let frames = Frames::new(link, FRAMES, make);
    let at = Cell::new(0);
    let decode = |from| {
        let (mut metered, mut octets) = (0, 0);
        let mut packet = Packet::default();
        for frame in frames.range(from, ROUND) {
            if decode::decode_into(black_box(&frame), || &mut packet).is_ok() {
                metered += 1;
                octets += u64::from(black_box(&packet).octets);
            }
        }
        (metered, octets)
    };
    for from in (0..FRAMES).step_by(ROUND) {
        check("packets and octets", decode(from), (ROUND, frames.octets(from, ROUND)));
    }
    bencher.counter(ItemsCount::new(ROUND)).bench_local(|| {
        let from = at.get();
        at.set((from + ROUND) % frames.len());
        decode(from)
    });
}

#[divan::bench(args = LINKS, min_time = 0.3)]
fn ipv4_tcp(bencher: Bencher<'_, '_>, link: Link) {
    decode_rounds(bencher, link, |random| Spec::new(IpVersion::V4, random.next() as u32, imix(random)));
}

#[divan::bench(args = LINKS, min_time = 0.3)]
fn ipv6_tcp(bencher: Bencher<'_, '_>, link: Link) {
    decode_rounds(bencher, link, |random| Spec::new(IpVersion::V6, random.next() as u32, imix(random)));
}

/// One in five IPv6, one in eight UDP, in no order: what a tap on Ethernet sees.
#[divan::bench(min_time = 0.3)]
fn mixed(bencher: Bencher<'_, '_>) {
    decode_rounds(bencher, Link::Ethernet, |random| {
        let version = if random.percent(20) { IpVersion::V6 } else { IpVersion::V4 };
        let spec = Spec::new(version, random.next() as u32, imix(random));
        if random.below(8) == 0 { Spec { protocol: UDP, ..spec } } else { spec }
    });
}

/// IPv4 options, and hop-by-hop, destination and routing headers of IPv6.
#[divan::bench(args = [IpVersion::V4, IpVersion::V6], min_time = 0.3)]
fn options(bencher: Bencher<'_, '_>, version: IpVersion) {
    decode_rounds(bencher, Link::Ethernet, |random| Spec {
        extra: Extra::Options,
        ..Spec::new(version, random.next() as u32, 1514)
    });
}

#[divan::bench(args = [IpVersion::V4, IpVersion::V6], min_time = 0.3)]
fn later_fragment(bencher: Bencher<'_, '_>, version: IpVersion) {
    decode_rounds(bencher, Link::Ethernet, |random| Spec {
        extra: Extra::Fragment,
        ..Spec::new(version, random.next() as u32, 1514)
    });
}
