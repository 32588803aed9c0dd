//! What a table gives for any traffic, beside a plain one.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// The metering rules once more, on a page, a packet at a time.
pub(crate) fn plain_twin(packets: &[Packet], timeouts: &Timeouts) -> Vec<FlowRecord> {
    let (active, idle) = (timeouts.active.as_nanos() as u64, timeouts.idle.as_nanos() as u64);
    let linger = idle.min(timeouts.linger.as_nanos() as u64);
    type Key = (bool, [u8; 16], [u8; 16], u8, u16, u16);
    let mut flows: BTreeMap<Key, (FlowRecord, bool)> = BTreeMap::new();
    let mut records = Vec::new();
    let mut clock = 0;
    let ended = |flow: &(FlowRecord, bool), now: u64| {
        let quiet = flow.0.end.nanos() + if flow.1 { linger } else { idle };
        let old = flow.0.start.nanos() + active;
        if quiet.min(old) > now {
            None
        } else if quiet > old {
            Some(EndReason::Active)
        } else if flow.1 {
            Some(EndReason::End)
        } else {
            Some(EndReason::Idle)
        }
    };
    let mut report = |mut flow: (FlowRecord, bool), reason| {
        flow.0.end_reason = reason;
        records.push(flow.0);
    };
    for p in packets {
        let now = p.timestamp.nanos();
        if now + active < clock {
            for (_, flow) in std::mem::take(&mut flows) {
                let reason = ended(&flow, clock).unwrap_or(EndReason::Forced);
                report(flow, reason);
            }
            clock = now;
        }
        clock = clock.max(now);
        let v6 = p.ip_version == IpVersion::V6;
        let key = (v6, p.source, p.destination, p.protocol, p.source_port, p.destination_port);
        if let Some(flow) = flows.get(&key) {
            let reason = ended(flow, clock);
            if let Some(reason) = reason.or((flow.1 && p.tcp_flags & 2 != 0).then_some(EndReason::End)) {
                report(flows.remove(&key).unwrap(), reason);
            }
        }
        let flow = flows.entry(key).or_insert_with(|| {
            let record = FlowRecord {
                source: p.source,
                destination: p.destination,
                start: p.timestamp,
                end: p.timestamp,
                ended: Timestamp::EPOCH,
                packets: 0,
                octets: 0,
                flag_counts: [0; 9],
                interface: p.interface,
                source_port: p.source_port,
                destination_port: p.destination_port,
                initial_flags: p.tcp_flags,
                later_flags: 0,
                vlan: p.vlan,
                protocol: p.protocol,
                tos: p.tos,
                ip_version: p.ip_version,
                end_reason: EndReason::Forced,
                padding: [0; 2],
            };
            (record, false)
        });
        if flow.0.packets > 0 {
            flow.0.later_flags |= p.tcp_flags;
        }
        flow.0.packets += 1;
        flow.0.octets += u64::from(p.octets);
        flow.0.start = flow.0.start.min(p.timestamp);
        flow.0.end = flow.0.end.max(p.timestamp);
        for bit in 0..9 {
            flow.0.flag_counts[bit] += u32::from(p.tcp_flags >> bit & 1);
        }
        if p.tcp_flags & 5 != 0 {
            flow.1 = true;
            if linger == 0 {
                report(flows.remove(&key).unwrap(), EndReason::End);
            }
        }
    }
    for (_, flow) in flows {
        let reason = ended(&flow, clock).unwrap_or(EndReason::Forced);
        report(flow, reason);
    }
    records
}

pub(crate) fn sorted(mut records: Vec<FlowRecord>) -> Vec<FlowRecord> {
    for record in &mut records {
        record.ended = Timestamp::EPOCH; // the twin does not say
    }
    records.sort_by_key(|r| format!("{r:?}"));
    records
}

/// Traffic between few hosts, with every flag, late packets, gaps longer than each timeout and clock jumps.
pub(crate) fn traffic(seed: u64, count: usize) -> Vec<Packet> {
    let mut state = seed | 1;
    let mut random = |below: u64| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) % below
    };
    let mut now = 1_000_000 * S;
    let mut packets = Vec::new();
    for _ in 0..count {
        now += match random(400) {
            0 => 20 * S,
            1 => 70 * S,
            2 => 3 * S,
            3 => 15 * S,
            _ => random(S / 4),
        };
        if random(2000) == 0 {
            now -= 200 * S;
        }
        let late = if random(20) == 0 { random(10 * S) } else { 0 };
        let version = if random(4) == 0 { IpVersion::V6 } else { IpVersion::V4 };
        let mut p = packet(now - late, version, random(4) as u8, random(4) as u8);
        p.source_port = random(3) as u16;
        p.octets = 40 + random(1460) as u32;
        p.protocol = [6, 6, 17][random(3) as usize];
        p.vlan = random(3) as u16;
        p.tos = random(3) as u8;
        p.interface = random(2) as u32;
        if p.protocol == 6 {
            p.tcp_flags = [0x10, 0x18, 0x10, 0x02, 0x11, 0x04, 0x1c2, 0xfff][random(8) as usize];
            if random(3) > 0 {
                p.tcp_flags &= !5;
            }
        }
        packets.push(p);
    }
    packets
}

/// [`traffic`] of whose packets some are too long, or from an interface with too big a number, for a short entry.
fn odd_traffic(seed: u64, count: usize) -> Vec<Packet> {
    let mut packets = traffic(seed, count);
    for packet in &mut packets {
        if packet.octets % 20 == 7 {
            packet.interface = [255, 256, 1 << 24][packet.octets as usize % 3];
        }
        if packet.octets.is_multiple_of(50) {
            packet.octets = 65_530 + packet.octets / 50 % 12;
        }
    }
    packets
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn records_are_those_of_the_plain_twin_whatever_the_batches(
        seed: u64,
        count in 1..3000usize,
        batch in 1..300usize,
        floods: Option<u64>,
        timeouts in prop::sample::select(vec![
            (60, 15, 1), (5, 1, 0), (1800, 300, 5), (60, 0, 1), (1, 60, 60), (10, 10, 10),
        ]),
    ) {
        let timeouts = seconds(timeouts.0, timeouts.1, timeouts.2);
        let packets = odd_traffic(seed, count);
        let mut bench = Bench::new(timeouts, 10_000);
        bench.floods = floods;
        bench.observe(&packets, batch);
        census(&bench.table);
        prop_assert_eq!(sorted(bench.finish()), sorted(plain_twin(&packets, &timeouts)));
    }

    #[test]
    fn a_small_table_counts_every_packet_and_never_holds_more_flows_than_allowed(
        seed: u64, max_flows in 1..9usize, linger in 0..2u64, floods: Option<u64>,
    ) {
        let packets = odd_traffic(seed, 2000);
        let mut bench = Bench::new(seconds(60, 15, linger), max_flows);
        bench.floods = floods;
        for batch in packets.chunks(50) {
            bench.observe(batch, 50);
            prop_assert!(bench.table.live() <= max_flows);
            census(&bench.table);
        }
        let evicted = bench.table.evicted();
        let records = bench.finish();
        prop_assert_eq!(records.iter().map(|r| r.packets).sum::<u64>(), 2000);
        prop_assert_eq!(records.iter().map(|r| r.octets).sum::<u64>(),
            packets.iter().map(|p| u64::from(p.octets)).sum::<u64>());
        let lacking = records.iter().filter(|r| r.end_reason == EndReason::LackOfResources).count();
        prop_assert_eq!(lacking as u64, evicted);
    }
}
