//! Finished Flow Records for the exporters.

use flowtap::decode::{IpVersion, tcp_flags};
use flowtap::export::Tally;
use flowtap::flow::{EndReason, FlowRecord};
use flowtap::time::Timestamp;

use super::frames::{TCP, UDP, ends};
use super::packets::BEGIN;
use super::{Mix, Random};

/// `count` records, the kinds of `mix` in an order that no branch predictor learns, one in six UDP, and their sums.
pub fn records(mix: Mix, count: usize) -> (Vec<FlowRecord>, Tally) {
    let mut random = Random::new(23);
    let mut tally = Tally::default();
    let records: Vec<FlowRecord> = (0..count as u32)
        .map(|number| {
            let ip_version = match mix {
                Mix::V4 => IpVersion::V4,
                Mix::V6 => IpVersion::V6,
                Mix::Both if random.percent(20) => IpVersion::V6,
                Mix::Both => IpVersion::V4,
            };
            let [source, destination] = ends(ip_version, number);
            let start = BEGIN + u64::from(number) * 100_000;
            let end = start + random.below(2_000_000_000);
            let packets = 1 + random.below(60);
            let protocol = if random.below(6) == 0 { UDP } else { TCP };
            let mut flag_counts = [0; 9];
            if protocol == TCP {
                (flag_counts[0], flag_counts[1], flag_counts[4]) = (1, 1, packets as u32);
            }
            let tcp = |flags| if protocol == TCP { flags } else { 0 };
            FlowRecord {
                source: source.0,
                destination: destination.0,
                start: Timestamp::from_nanos(start),
                end: Timestamp::from_nanos(end),
                ended: Timestamp::from_nanos(end + 1_000_000_000),
                packets,
                octets: packets * (40 + random.below(1400)),
                flag_counts,
                interface: 0,
                source_port: source.1,
                destination_port: destination.1,
                initial_flags: tcp(tcp_flags::SYN),
                later_flags: tcp(tcp_flags::ACK | tcp_flags::PSH | tcp_flags::FIN),
                vlan: 0,
                protocol,
                tos: 0,
                ip_version,
                end_reason: if protocol == TCP { EndReason::End } else { EndReason::Idle },
                padding: [0; 2],
            }
        })
        .collect();
    for record in &records {
        tally.add(record);
    }
    (records, tally)
}

/// The sums of `times` rounds of records whose sums are `once`.
pub fn times(once: Tally, times: u64) -> Tally {
    Tally { records: once.records * times, packets: once.packets * times, octets: once.octets * times }
}
