//! Floods of new Flows: when one is on, the half entries that its Flows begin in, and the memory it asks for.

use super::twin::plain_twin;
use super::*;

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
