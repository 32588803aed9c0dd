use super::*;
use crate::capture::LinkType;
use crate::decode::{Ignored, IpVersion, Packet};
use crate::export::Exporter;
use crate::export::testing::HandsTo;
use crate::flow::table::tests::twin::{plain_twin, sorted, traffic};
use crate::flow::table::tests::{packet, seconds};
use crate::flow::{FlowRecord, Timeouts};
use proptest::prelude::*;
use std::sync::Mutex;

/// The octets of a frame that decodes to `packet`.
fn octets(packet: &Packet) -> Vec<u8> {
    let mut frame = vec![0; 12];
    let ip_length = packet.octets as u16;
    if packet.vlan != 0 {
        frame.extend([0x81, 0x00]);
        frame.extend(packet.vlan.to_be_bytes());
    }
    match packet.ip_version {
        IpVersion::V4 => {
            frame.extend([0x08, 0x00, 0x45, packet.tos]);
            frame.extend(ip_length.to_be_bytes());
            frame.extend([0, 0, 0, 0, 64, packet.protocol, 0, 0]);
            frame.extend(&packet.source[..4]);
            frame.extend(&packet.destination[..4]);
        }
        IpVersion::V6 => {
            frame.extend([0x86, 0xdd, 0x60 | packet.tos >> 4, packet.tos << 4, 0, 0]);
            frame.extend((ip_length - 40).to_be_bytes());
            frame.extend([packet.protocol, 64]);
            frame.extend(&packet.source);
            frame.extend(&packet.destination);
        }
    }
    frame.extend(packet.source_port.to_be_bytes());
    frame.extend(packet.destination_port.to_be_bytes());
    frame.extend([0; 8]);
    frame.extend((0x5000 | packet.tcp_flags).to_be_bytes());
    frame
}

fn run(
    packets: &[Packet],
    layout: Layout,
    is_light: bool,
    timeouts: Timeouts,
) -> (Vec<FlowRecord>, RunReport) {
    let kept: Arc<Mutex<Vec<FlowRecord>>> = Arc::default();
    let keeps = Arc::clone(&kept);
    let take = move |records: &[FlowRecord]| keeps.lock().unwrap().extend_from_slice(records);
    let report = run_to(HandsTo { take, tick: |_, _: &_| {}, is_light }, packets, layout, timeouts);
    let records = std::mem::take(&mut *kept.lock().unwrap());
    (records, report)
}

fn run_to(
    exporter: impl Exporter + 'static,
    packets: &[Packet],
    layout: Layout,
    timeouts: Timeouts,
) -> RunReport {
    let destination = Destination {
        name: "memory".to_string(),
        exporter: Box::new(exporter),
        clock: ExporterClock::Packet,
    };
    let table = TableOptions { timeouts, max_flows: 10_000 };
    let options = PipelineOptions { layout, table, live: false };
    let mut pipeline = Pipeline::start(options, vec![destination], None).unwrap();
    // Runs of one frame and of many, longer than what a batch has room for; in each a frame that is ignored.
    let (mut left, mut length) = (packets, 1);
    while !left.is_empty() {
        let (now, later) = left.split_at(length.min(left.len()));
        (left, length) = (later, length * 3 % 1009);
        let mut data: Vec<_> = now.iter().map(|packet| (packet, octets(packet))).collect();
        data.insert(now.len() / 2, (&now[0], vec![0; 13]));
        pipeline.frames(data.iter().map(|(packet, data)| Frame {
            timestamp: packet.timestamp,
            wire_length: data.len() as u32,
            link_type: LinkType::ETHERNET,
            interface: packet.interface,
            data,
        }));
    }
    pipeline.finish().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn every_layout_gives_the_records_of_the_plain_twin_and_sums_that_close(
        seed: u64,
        count in 1..9_000usize,
        timeouts in prop::sample::select(vec![(60, 15, 1), (5, 1, 0), (1800, 300, 5), (60, 0, 1)]),
    ) {
        let timeouts = seconds(timeouts.0, timeouts.1, timeouts.2);
        let packets: Vec<Packet> = traffic(seed, count)
            .into_iter()
            .map(|packet| Packet { octets: packet.octets.max(60), ..packet })
            .collect();
        let wire_octets: u64 = packets.iter().map(|packet| octets(packet).len() as u64).sum();
        let expected = sorted(plain_twin(&packets, &timeouts));
        let layouts = [Layout::Inline, Layout::Shards(1), Layout::Shards(2), Layout::Shards(3), Layout::Shards(8)];
        // A single shard exports on its own thread where that is light.
        for (layout, is_light) in layouts.map(|layout| (layout, false)).into_iter().chain([(Layout::Shards(1), true)]) {
            let (records, report) = run(&packets, layout, is_light, timeouts);
            let cut = report.frames.ignored[Ignored::Truncated as usize];
            prop_assert!(cut > 0);
            prop_assert_eq!(report.frames.frames, count as u64 + cut);
            prop_assert_eq!(report.frames.wire_octets, wire_octets + 13 * cut);
            prop_assert_eq!(report.frames.metered(), count as u64);
            prop_assert_eq!(report.records.packets, count as u64);
            prop_assert_eq!(report.records.records, records.len() as u64);
            prop_assert_eq!(sorted(records), expected.clone(), "{:?}, light {}", layout, is_light);
        }
    }
}

/// `count` packets of some thousand Flows in turn, a microsecond apart.
fn steady(count: u64) -> Vec<Packet> {
    let one = |number: u64| Packet {
        timestamp: Timestamp::from_nanos(2_000_000_000_000 + number * 1_000),
        source_port: (number % 3_001) as u16,
        destination_port: 1,
        ..packet(0, if number.is_multiple_of(5) { IpVersion::V6 } else { IpVersion::V4 }, 1, 2)
    };
    (0..count).map(one).map(|packet| Packet { octets: 60, ..packet }).collect()
}

#[test]
fn time_that_jumps_back_leaves_no_packet_unhashed() {
    let timeouts = seconds(60, 15, 1);
    // So many that a shard that keeps up is left batches to hash; then time jumps, and two packets of one Flow follow.
    for before in [BATCH, BATCH + 7, 3 * BATCH, 5 * BATCH + 100] {
        let mut packets = steady(before as u64);
        for nanos in [0, 1_000_000] {
            let timestamp = Timestamp::from_nanos(1_000_000_000_000 + nanos);
            packets.push(Packet { timestamp, source_port: 7, destination_port: 9, ..packets[1] });
        }
        let expected = sorted(plain_twin(&packets, &timeouts));
        let (records, report) = run(&packets, Layout::Shards(1), true, timeouts);
        assert_eq!(report.clock_resets, 1);
        assert_eq!(sorted(records), expected, "{before} packets before");
    }
}

#[test]
fn exporters_hear_the_time_go_on_after_it_jumped_back() {
    // 2000 s, then ten seconds from 1000 s on, in which no Flow ends.
    let mut packets = steady(1);
    packets.extend(steady(100_000).into_iter().zip(0..).map(|(packet, number)| Packet {
        timestamp: Timestamp::from_nanos(1_000_000_000_000 + number * 100_000),
        ..packet
    }));
    for layout in [Layout::Shards(1), Layout::Shards(2), Layout::Shards(3)] {
        let told: Arc<Mutex<Vec<u64>>> = Arc::default();
        let tells = Arc::clone(&told);
        let tick = move |now: Timestamp, _: &_| tells.lock().unwrap().push(now.seconds());
        let exporter = HandsTo { take: |_: &[_]| {}, tick, is_light: false };
        let report = run_to(exporter, &packets, layout, seconds(60, 15, 1));
        assert_eq!(report.clock_resets, 1);
        let told = told.lock().unwrap();
        let jump = told.iter().position(|seconds| *seconds < 2000).unwrap();
        assert!(told[..jump].iter().all(|seconds| *seconds == 2000), "{layout:?}: {told:?}");
        let after = &told[jump..];
        assert!(after[0] <= 1002, "{layout:?}: {told:?}");
        assert!(after.windows(2).all(|two| two[0] <= two[1] && two[1] <= two[0] + 3), "{layout:?}: {told:?}");
        assert!(after.last() >= Some(&1009), "{layout:?}: {told:?}");
    }
}

#[test]
fn batches_that_are_held_for_a_shard_are_not_forgotten() {
    let timeouts = seconds(60, 15, 1);
    for packets in [1, BATCH - 1, BATCH, 2 * BATCH, 3 * BATCH + 1, 4 * BATCH, 9 * BATCH + 5]
        .map(|count| steady(count as u64))
    {
        let (records, report) = run(&packets, Layout::Shards(1), true, timeouts);
        assert_eq!(report.records.packets, packets.len() as u64);
        assert_eq!(sorted(records), sorted(plain_twin(&packets, &timeouts)));
    }
}

#[test]
fn layouts_follow_the_cores() {
    assert_eq!(Layout::for_files(1), Layout::Inline);
    assert_eq!(Layout::for_files(2), Layout::Shards(1));
    assert_eq!(Layout::for_live(2), Layout::Inline);
}
