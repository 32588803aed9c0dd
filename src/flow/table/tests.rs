//! What a table is to do, in small and beside a plain one.

mod room;

use super::*;
use crate::decode::{Fragment, IpVersion, Packet};
use crate::flow::slot::SECOND;
use crate::flow::wheel::NO_TIMER;
use crate::flow::{ClockStep, FlowRecord, KeyHasher, ObservationClock};
use crate::time::Timestamp;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::time::Duration;

const S: u64 = 1_000_000_000;

/// A TCP packet of 40 octets between two numbered hosts.
pub(crate) fn packet(nanos: u64, ip_version: IpVersion, source: u8, destination: u8) -> Packet {
    let address = |host: u8| {
        let mut address = [0; 16];
        match ip_version {
            IpVersion::V4 => address[..4].copy_from_slice(&[192, 0, 2, host]),
            IpVersion::V6 => (address[0], address[1], address[15]) = (0x20, 1, host),
        }
        address
    };
    Packet {
        timestamp: Timestamp::from_nanos(nanos),
        source: address(source),
        destination: address(destination),
        octets: 40,
        interface: 0,
        fragment_id: 0,
        source_port: 1000,
        destination_port: 80,
        tcp_flags: 0,
        vlan: 0,
        protocol: 6,
        tos: 0,
        ip_version,
        fragment: Fragment::Whole,
    }
}

/// Packets that each begin a Flow, numbered from `first`.
fn flood(first: u32, packets: u32) -> Observations {
    let hasher = KeyHasher::with_seed(1);
    let mut batch = Observations::with_capacity(packets as usize);
    for number in first..first + packets {
        let mut packet = packet(S, IpVersion::V4, 1, 2);
        packet.source[..4].copy_from_slice(&number.to_be_bytes());
        batch.push(&packet, packet.timestamp, hasher.hash(&packet));
    }
    batch
}

#[test]
fn a_flood_of_new_flows_asks_for_the_memory_of_the_next() {
    let options = TableOptions { timeouts: seconds(60, 15, 1), max_flows: 1 << 20 };
    let mut table = FlowTable::new(&options).unwrap();
    let mut upcoming = table.upcoming();
    let mut records = Vec::new();
    let mut sink = |record: FlowRecord| records.push(record);
    let (page, batch) = (LINES_PER_PAGE as u32, 1024);
    let mut flows = 0;
    let mut fill = |table: &mut FlowTable, upto: u32, again: u32| {
        while flows < upto {
            for _ in 0..=again {
                table.observe(&flood(flows, batch), &mut sink);
            }
            flows += batch;
        }
    };
    // Each Flow has three packets.
    fill(&mut table, 3 * page, 2);
    assert!(!table.is_flooded);
    while upcoming.make_ready() {} // the index, if it happens to grow
    // Each has one, and a huge page has been filled with such.
    fill(&mut table, 4 * page + batch, 0);
    assert!(table.is_flooded);
    assert!(upcoming.make_ready());
    fill(&mut table, 6 * page + batch, 2);
    assert!(!table.is_flooded);
    fill(&mut table, 8 * page + batch, 0);
    assert!(table.is_flooded);
    // No more of them, and it is over.
    let again = flood(0, 1024);
    for _ in 0..=CALM_AFTER / 1024 {
        table.observe(&again, &mut sink);
    }
    assert!(!table.is_flooded);
    table.drain(Timestamp::from_nanos(2 * S), &mut sink);
    assert_eq!(records.len() as u32, flows);
    assert_eq!(records.iter().map(|record| record.packets).sum::<u64>(), table.metered);
}

#[test]
fn addresses_are_made_ready_where_ipv6_flows_are_a_real_share() {
    let hasher = KeyHasher::with_seed(1);
    for (one_in, expected) in [(1, true), (20, true), (1000, false)] {
        let mut table =
            FlowTable::new(&TableOptions { timeouts: seconds(60, 15, 1), max_flows: 1 << 20 }).unwrap();
        for first in (0..2 * LINES_PER_PAGE as u32).step_by(1024) {
            let mut batch = Observations::with_capacity(1024);
            for number in first..first + 1024 {
                let version = if number % one_in == 0 { IpVersion::V6 } else { IpVersion::V4 };
                let mut packet = packet(S, version, 1, 2);
                packet.source[..4].copy_from_slice(&number.to_be_bytes());
                batch.push(&packet, packet.timestamp, hasher.hash(&packet));
            }
            table.observe(&batch, &mut |_| panic!("none has ended"));
        }
        assert!(table.is_flooded && (one_in > 1 || table.used as usize == table.live()));
        assert_eq!(table.progress.used(Array::Entries), table.used as usize * size_of::<FlowEntry>());
        let pairs = if expected { table.used as usize * size_of::<AddressPair>() } else { 0 };
        assert_eq!(table.progress.used(Array::Pairs), pairs, "one in {one_in}");
    }
}

pub(crate) fn seconds(active: u64, idle: u64, linger: u64) -> Timeouts {
    Timeouts {
        active: Duration::from_secs(active),
        idle: Duration::from_secs(idle),
        linger: Duration::from_secs(linger),
    }
}

/// A table, its clock and hasher: packets in, records out.
struct Bench {
    table: FlowTable,
    clock: ObservationClock,
    hasher: KeyHasher,
    records: Vec<FlowRecord>,
    /// Before which batches a flood is said to have begun or to be over, one bit each; none if left to the table.
    floods: Option<u64>,
}

/// What there is in a table, found by going through all of its slots.
#[derive(Debug, Default, PartialEq, Eq)]
struct Census {
    short: usize,
    whole: usize,
    free_short: usize,
    free_whole: usize,
}

/// Counts what is in each slot, and checks that what the table knows of them is so.
fn census(table: &FlowTable) -> Census {
    let mut census = Census::default();
    let mut slot = 0;
    while line(slot) < table.used as usize {
        let head = table.entries.head(slot);
        match (head.is_live(), head.is_short()) {
            (true, true) => census.short += 1,
            (true, false) => census.whole += 1,
            (false, true) => census.free_short += 1,
            (false, false) => census.free_whole += 1,
        }
        assert!(head.is_short() || slot & SECOND == 0, "slot {slot} is not in a line of its own");
        assert!(!head.is_live() || head.timer != NO_TIMER, "slot {slot} never ends");
        slot = table.entries.after(slot);
    }
    assert_eq!(slot, table.used);
    assert_eq!(census.short + census.free_short, 2 * table.used_short as usize);
    assert!(table.used as usize <= lines_of(table.max_flows));
    assert_eq!(census.short + census.whole, table.live());
    let listed = |first: u32, is_short: bool| {
        let mut slots = 0;
        let mut next = first;
        while next != NO_SLOT {
            let head = table.entries.head(next);
            assert!(!head.is_live() && head.is_short() == is_short, "slot {next} is not free");
            (slots, next) = (slots + 1, head.next_free());
        }
        slots
    };
    assert_eq!(listed(table.free_short, true), census.free_short);
    assert_eq!(listed(table.free, false), census.free_whole);
    assert!(census.short + census.free_short <= table.max_flows + 1, "{census:?}");
    assert!(census.whole + census.free_whole <= table.max_flows, "{census:?}");
    census
}

impl Bench {
    fn new(timeouts: Timeouts, max_flows: usize) -> Bench {
        Bench {
            table: FlowTable::new(&TableOptions { timeouts, max_flows }).unwrap(),
            clock: ObservationClock::new(timeouts.active),
            hasher: KeyHasher::with_seed(7),
            records: Vec::new(),
            floods: None,
        }
    }

    fn meter(&mut self, batch: &Observations) {
        if let Some(floods) = &mut self.floods {
            *floods = floods.rotate_right(1);
            self.table.set_flooded(*floods & 1 != 0);
        }
        self.table.observe(batch, &mut |r: FlowRecord| self.records.push(r));
    }

    fn observe(&mut self, packets: &[Packet], batch: usize) {
        let mut waiting = Observations::with_capacity(batch);
        for packet in packets {
            let clock = match self.clock.observe(packet.timestamp) {
                ClockStep::At(clock) => clock,
                ClockStep::Jumped { before, now } => {
                    self.meter(&waiting);
                    waiting.clear();
                    self.table.drain(before, &mut |r: FlowRecord| self.records.push(r));
                    now
                }
            };
            waiting.push(packet, clock, self.hasher.hash(packet));
            if waiting.len() >= batch {
                self.meter(&waiting);
                self.table.expire(clock, &mut |r: FlowRecord| self.records.push(r));
                waiting.clear();
            }
        }
        self.meter(&waiting);
    }

    fn finish(mut self) -> Vec<FlowRecord> {
        self.table.drain(self.clock.now(), &mut |r: FlowRecord| self.records.push(r));
        self.records
    }
}

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

/// A packet of the numbered Flow, over IPv4.
fn numbered(number: u32, nanos: u64, tcp_flags: u16) -> Packet {
    let mut packet = packet(nanos, IpVersion::V4, 1, 2);
    packet.source[..4].copy_from_slice(&number.to_be_bytes());
    packet.tcp_flags = tcp_flags;
    packet
}

#[test]
fn a_flood_takes_half_the_memory_and_flows_in_it_that_go_on_are_metered_as_ever() {
    let timeouts = seconds(60, 15, 1);
    let mut packets = Vec::new();
    let flows = 8 * LINES_PER_PAGE as u32;
    for number in 0..flows {
        let nanos = S + u64::from(number) * 1000;
        packets.push(numbered(number, nanos, tcp_flags::SYN));
        // Thousands of packets later, in and out of order, and some to their end.
        if number > 20_000 && number % 10 == 0 {
            let number = number - 20_000;
            packets.push(numbered(number, nanos, tcp_flags::ACK));
            match number / 10 % 5 {
                0 => packets.push(numbered(number, nanos, tcp_flags::ACK | tcp_flags::FIN)),
                1 => packets.push(numbered(number, nanos - S / 2, tcp_flags::ACK)),
                2 => packets.push(numbered(number, nanos, tcp_flags::RST)),
                _ => {}
            }
        }
    }
    let mut bench = Bench::new(timeouts, 1 << 20);
    bench.observe(&packets, 1024);
    let census = census(&bench.table);
    assert!(bench.table.is_flooded);
    assert!(census.short > 6 * LINES_PER_PAGE && census.free_short < 2, "{census:?}");
    // The first few were not known to be of a flood.
    assert!(bench.table.used < flows / 8 * 5, "{}", bench.table.used);
    let by_source = |mut records: Vec<FlowRecord>| {
        records.sort_by_key(|record| record.source);
        records
    };
    let (mut records, expected) = (by_source(bench.finish()), by_source(plain_twin(&packets, &timeouts)));
    records.iter_mut().for_each(|record| record.ended = Timestamp::EPOCH); // the twin does not say
    assert!(records == expected);
}

#[test]
fn a_flow_that_began_short_is_whole_from_its_second_packet_on() {
    let mut bench = Bench::new(seconds(60, 15, 1), 10);
    // The very first begins before it can be a flood.
    bench.observe(&[numbered(0, S, 0)], 1);
    bench.floods = Some(u64::MAX);
    bench.observe(&[numbered(1, S, tcp_flags::SYN), numbered(2, S, 0)], 8);
    assert_eq!(census(&bench.table), Census { short: 2, whole: 1, ..Census::default() });
    bench.observe(&[numbered(1, S + 1, 0)], 1);
    let expected = Census { short: 1, whole: 2, free_short: 1, free_whole: 0 };
    assert_eq!(census(&bench.table), expected);
    assert_eq!(bench.table.used, 3);
    // Where the first one was, a third.
    bench.observe(&[numbered(3, S, 0)], 1);
    assert_eq!(census(&bench.table), Census { free_short: 0, short: 2, ..expected });
    // Its counter is the whole one's.
    bench.table.entries.whole_mut(2).fill_up();
    bench.observe(&[numbered(1, S + 2, 0), numbered(1, S + 3, 0)], 1);
    let records = bench.finish();
    let of_first: Vec<_> =
        records.iter().filter(|r| r.source[3] == 1).map(|r| (r.packets, r.end_reason)).collect();
    let full = u64::from(u32::MAX);
    assert_eq!(of_first, [(full, EndReason::LackOfResources), (1, EndReason::Forced)]);
    assert_eq!(records.len(), 5);
}

#[test]
fn slots_keep_their_kind_and_are_used_again() {
    let mut bench = Bench::new(seconds(60, 15, 0), 1000);
    let reset = |from: u32| (from..from + 3).map(|n| numbered(n, S, tcp_flags::RST)).collect::<Vec<_>>();
    let begin = |from: u32| (from..from + 3).map(|n| numbered(n, S, 0)).collect::<Vec<_>>();
    let observe = |bench: &mut Bench, flood: bool, packets: &[Packet]| {
        bench.floods = Some(if flood { u64::MAX } else { 0 });
        bench.observe(packets, 100);
        (census(&bench.table), bench.table.used)
    };
    let counts = |short, whole, free_short, free_whole| Census { short, whole, free_short, free_whole };
    let bench = &mut bench;
    assert_eq!(observe(bench, false, &[numbered(99, S, 0)]), (counts(0, 1, 0, 0), 1));
    assert_eq!(observe(bench, true, &begin(0)), (counts(3, 1, 1, 0), 3));
    assert_eq!(observe(bench, false, &begin(10)), (counts(3, 4, 1, 0), 6));
    assert_eq!(observe(bench, false, &reset(10)), (counts(3, 1, 1, 3), 6));
    assert_eq!(observe(bench, true, &begin(20)), (counts(4, 3, 0, 1), 6));
    assert_eq!(observe(bench, false, &begin(30)), (counts(4, 6, 0, 0), 8));
    // Each moves to a whole slot, and ends there.
    assert_eq!(observe(bench, true, &reset(0)), (counts(1, 6, 3, 1), 9));
    let (clock, mut ended) = (Timestamp::from_nanos(20 * S), 0);
    bench.table.expire(clock, &mut |_: FlowRecord| ended += 1);
    assert_eq!((ended, census(&bench.table)), (7, counts(0, 0, 4, 7)));
    bench.table.drain(clock, &mut |_: FlowRecord| panic!("none is left"));
    assert_eq!((bench.table.used, census(&bench.table)), (0, Census::default()));
}

#[test]
fn a_flood_whose_flows_end_as_fast_as_they_come_stays_one_and_takes_no_more_memory() {
    let mut bench = Bench::new(seconds(1, 1, 1), 1 << 20);
    let mut used = 0;
    for round in 0..CALM_AFTER / 1024 + 600 {
        bench.records.clear();
        let first = round as u32 * 1024;
        let packets: Vec<_> = (first..first + 1024).map(|n| numbered(n, S + round * S / 150, 2)).collect();
        bench.observe(&packets, 1024);
        if round == 500 {
            assert!(bench.table.is_flooded);
            used = bench.table.used;
        }
    }
    assert!(bench.table.is_flooded);
    assert!(bench.table.used <= used, "{} {used}", bench.table.used);
}

#[test]
fn a_flood_of_new_flows_pushes_out_itself_before_conversations_that_go_on() {
    let mut bench = Bench::new(seconds(600, 15, 1), 1000);
    let talk = |nanos| packet(nanos, IpVersion::V4, 200, 201);
    bench.observe(&[talk(0)], 1);
    let mut packets = Vec::new();
    for i in 0..200_000u64 {
        let nanos = i * S / 10_000;
        let mut one = packet(nanos, IpVersion::V4, i as u8, 1);
        one.source_port = (i >> 8) as u16;
        packets.push(one);
        if i % 500 == 0 {
            packets.push(talk(nanos));
        }
    }
    bench.observe(&packets, 256);
    assert!(bench.table.evicted() > 100_000);
    let records = bench.finish();
    let talk: Vec<_> = records.iter().filter(|r| r.source[3] == 200 && r.destination[3] == 201).collect();
    assert_eq!(talk.len(), 1, "the conversation was cut");
    assert_eq!(talk[0].packets, 401);
}

#[test]
fn a_counter_that_would_wrap_ends_the_record() {
    let mut bench = Bench::new(seconds(60, 15, 1), 10);
    let one = packet(S, IpVersion::V6, 1, 2);
    bench.observe(&[one], 1);
    bench.table.entries.whole_mut(0).fill_up();
    bench.observe(&[one, one, one], 1);
    let records = bench.finish();
    let reasons: Vec<_> = records.iter().map(|r| (r.packets, r.end_reason)).collect();
    let full = u64::from(u32::MAX);
    assert_eq!(reasons, [(full, EndReason::LackOfResources), (2, EndReason::Forced)]);
}

#[test]
fn timers_and_slots_do_not_pile_up_when_flows_come_and_go() {
    let mut bench = Bench::new(seconds(60, 15, 0), 1000);
    for round in 0..2000u64 {
        let packets: Vec<Packet> = (0..100)
            .map(|i| {
                let mut p = packet(round * S / 1000, IpVersion::V4, i, (round % 256) as u8);
                p.tcp_flags = if i % 2 == 0 { 4 } else { 0x11 };
                p
            })
            .collect();
        bench.observe(&packets, 100);
    }
    assert!(bench.table.used <= 1, "{}", bench.table.used);
    assert_eq!(bench.records.len(), 200_000);
    assert!(bench.table.octets() < 1 << 20, "{}", bench.table.octets());
}

#[test]
fn flows_that_reset_together_leave_no_timers_to_be_cleaned_again_and_again() {
    let mut bench = Bench::new(seconds(60, 15, 0), 200_000);
    let of = |number: u32, flags: u16| {
        let mut p = packet(S, IpVersion::V4, (number % 250) as u8, 1);
        (p.source_port, p.destination_port) = ((number / 250) as u16, 80);
        p.tcp_flags = flags;
        p
    };
    let (open, reset): (Vec<_>, Vec<_>) = (0..150_000).map(|n| (of(n, 2), of(n, 4))).unzip();
    bench.observe(&open, 1024);
    bench.observe(&reset, 1024);
    assert_eq!((bench.table.live(), bench.records.len()), (0, 150_000));
    assert!(!bench.table.wheel.wants_cleaning(bench.table.live()), "cleaned, and nothing went");
}

#[test]
fn a_long_idle_timeout_does_not_make_the_active_one_late() {
    let mut bench = Bench::new(seconds(60, 86_400, 1), 10);
    bench.observe(&[packet(S, IpVersion::V4, 1, 2)], 1);
    bench.table.expire(Timestamp::from_nanos(61 * S + S / 4), &mut |r: FlowRecord| bench.records.push(r));
    assert_eq!(bench.records.len(), 1);
    assert_eq!(bench.records[0].end_reason, EndReason::Active);
}

#[test]
fn closing_flows_leave_no_heap_of_stale_timers() {
    let mut bench = Bench::new(seconds(3600, 1800, 1), 100_000);
    for round in 0..100u64 {
        let packets: Vec<Packet> = (0..=255u8)
            .flat_map(|i| {
                let mut p = packet(round * 2 * S, IpVersion::V4, i, 1);
                p.tcp_flags = 0x10;
                let mut fin = p;
                fin.tcp_flags = 0x11;
                (0..10u16).flat_map(move |port| {
                    [p, fin].map(|mut p| {
                        p.source_port = port;
                        p
                    })
                })
            })
            .collect();
        bench.observe(&packets, 1000);
    }
    assert_eq!(bench.table.live(), 2560);
    assert!(bench.table.octets() < 2 << 20, "{}", bench.table.octets());
}

/// Lines of short entries: in how many none is live, the first, the second, both.
fn lines_by_live(table: &FlowTable) -> [usize; 4] {
    let mut lines = [0; 4];
    for first in (0..table.used).filter(|&slot| table.entries.head(slot).is_short()) {
        let [first, second] = [first, first | SECOND].map(|slot| table.entries.head(slot).is_live());
        lines[usize::from(first) + 2 * usize::from(second)] += 1;
    }
    lines
}

#[test]
fn cleaning_the_wheel_keeps_the_timers_of_live_flows_in_either_slot_of_a_line_and_no_others() {
    let mut bench = Bench::new(seconds(60, 15, 0), 200_000);
    let observe = |bench: &mut Bench, packets: Vec<Packet>| {
        // In one batch, after which nothing expires.
        bench.observe(&packets, packets.len() + 1);
    };
    // The very first, in a whole entry; then two in each line, the even ones second.
    observe(&mut bench, vec![numbered(0, 10 * S, 0)]);
    bench.floods = Some(u64::MAX);
    observe(&mut bench, (1..=150_000).map(|n| numbered(n, 10 * S, tcp_flags::SYN)).collect());
    // Of twenty, two remain alone in their line, one first and one second, two together, and one goes on in a whole entry.
    let next = |number: u32| match number % 20 {
        3 | 8 | 11 | 12 => None,
        15 => Some(numbered(number, 10 * S, tcp_flags::ACK)),
        _ => Some(numbered(number, 10 * S, tcp_flags::RST)),
    };
    observe(&mut bench, (1..=150_000).filter_map(next).collect());
    // Where some were that were reset, Flows that came late: they end before the timers that are there.
    observe(&mut bench, (200_000..210_000).map(|n| numbered(n, 5 * S, tcp_flags::SYN)).collect());
    let live = 1 + 150_000 / 20 * 5 + 10_000;
    assert_eq!(bench.table.live(), live);
    assert_eq!(bench.table.wheel.timers(), 1 + 150_000 + 150_000 / 20 + 10_000);
    assert!(bench.table.wheel.wants_cleaning(live));
    let [_, first, second, both] = lines_by_live(&bench.table);
    assert!(first.min(second).min(both) > 5_000, "{first} {second} {both}");

    let reset = std::mem::take(&mut bench.records);
    assert_eq!(reset.len(), 150_000 / 20 * 15);
    let ended_at = |bench: &mut Bench, nanos| {
        let mut records = Vec::new();
        bench.table.expire(Timestamp::from_nanos(nanos), &mut |r: FlowRecord| records.push(r));
        census(&bench.table);
        records.iter().map(|r| (r.ended.nanos(), r.end_reason)).collect::<Vec<_>>()
    };
    assert_eq!(ended_at(&mut bench, 10 * S), []);
    assert_eq!((bench.table.live(), bench.table.wheel.timers()), (live, live));
    // Slots that were cleaned are as good as any.
    observe(&mut bench, (300_000..310_000).map(|n| numbered(n, 10 * S, tcp_flags::SYN)).collect());
    assert_eq!(bench.table.wheel.timers(), live + 10_000);
    assert_eq!(ended_at(&mut bench, 20 * S - 1), []);
    assert!(ended_at(&mut bench, 20 * S + S / 4) == [(20 * S, EndReason::Idle)].repeat(10_000));
    assert_eq!(ended_at(&mut bench, 25 * S - 1), []);
    assert!(ended_at(&mut bench, 25 * S + S / 4) == [(25 * S, EndReason::Idle)].repeat(live));
    assert_eq!((bench.table.live(), bench.table.wheel.timers()), (0, 0));
}
