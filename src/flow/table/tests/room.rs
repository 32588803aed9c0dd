//! Whether a table has room for the Flows it may hold, whatever lines they are in.

use super::*;

/// Fills a table with Flows of one packet, numbered from where those of the rounds before end, that a flood begins or calmer
/// traffic does.
fn fill(bench: &mut Bench, round: u32, flood: bool) {
    let max_flows = bench.table.max_flows as u32;
    let packets: Vec<_> = (0..max_flows)
        .map(|number| numbered(round * max_flows + number, begun_in(round) + u64::from(number), 0))
        .collect();
    bench.floods = Some(if flood { u64::MAX } else { 0 });
    // A packet a batch: before each the table is told which it is; the very first, too, which in earnest begins a whole entry,
    // so that of an odd number of Flows the last line would not be reached.
    bench.observe(&packets, 1);
    census(&bench.table);
    assert_eq!(bench.table.live(), max_flows as usize);
}

/// When the Flows of a round begin, ns.
fn begun_in(round: u32) -> u64 {
    (1 + u64::from(round) * 100) * S
}

/// Has them all end.
fn empty(bench: &mut Bench, round: u32) {
    let clock = Timestamp::from_nanos(begun_in(round) + 20 * S);
    bench.table.expire(clock, &mut |r: FlowRecord| bench.records.push(r));
    assert_eq!(bench.table.live(), 0);
}

/// Checks that no Flow was evicted and that all of those that filled the table in so many rounds have given their records, of
/// so many packets each.
fn check_records(mut bench: Bench, rounds: u32, packets: u64) {
    assert_eq!(bench.table.evicted(), 0);
    let max_flows = bench.table.max_flows as u32;
    bench.records.sort_by_key(|record| record.source);
    let records = bench.records.iter().map(|record| {
        let number = u32::from_be_bytes(record.source[..4].try_into().unwrap());
        (number, record.packets, record.end_reason)
    });
    let expected = (0..rounds * max_flows).map(|number| (number, packets, EndReason::Idle));
    assert!(records.eq(expected), "{max_flows} flows");
}

#[test]
fn a_flood_and_calmer_traffic_after_it_that_each_fill_the_table_use_its_last_line_and_none_behind() {
    for max_flows in [1, 2, 3, 7, 8, 1000, 1001] {
        let mut bench = Bench::new(seconds(60, 15, 1), max_flows);
        fill(&mut bench, 0, true);
        let shorts = max_flows.div_ceil(2);
        assert_eq!((bench.table.used as usize, bench.table.used_short as usize), (shorts, shorts));
        empty(&mut bench, 0);
        // A line stays what it was first used for.
        for (round, flood) in [(1, false), (2, true), (3, true), (4, false)] {
            fill(&mut bench, round, flood);
            assert_eq!(bench.table.used as usize, max_flows + shorts, "round {round} of {max_flows}");
            assert_eq!(bench.table.used as usize, bench.table.entries.lines().len());
            assert_eq!(census(&bench.table).short, if flood { max_flows } else { 0 });
            empty(&mut bench, round);
        }
        check_records(bench, 5, 1);
    }
}

#[test]
fn floods_after_calmer_traffic_that_filled_the_table_use_no_more_lines() {
    for max_flows in [1, 2, 7, 8, 1001] {
        let mut bench = Bench::new(seconds(60, 15, 1), max_flows);
        for (round, flood) in [(0, false), (1, true), (2, true), (3, false)] {
            fill(&mut bench, round, flood);
            // Whole entries that lie idle are taken first.
            assert_eq!((bench.table.used as usize, bench.table.used_short), (max_flows, 0), "round {round}");
            empty(&mut bench, round);
        }
        check_records(bench, 4, 1);
    }
}

#[test]
fn the_flows_of_a_flood_that_fill_the_table_and_all_go_on_use_its_last_line_and_none_behind() {
    for max_flows in [1, 2, 7, 8, 1001] {
        let mut bench = Bench::new(seconds(60, 15, 1), max_flows);
        for round in [0, 1] {
            fill(&mut bench, round, true);
            let first = round * max_flows as u32;
            let seconds: Vec<_> =
                (first..first + max_flows as u32).map(|n| numbered(n, begun_in(round) + S, 0)).collect();
            bench.observe(&seconds, 1);
            // Each moves to a whole entry while the others are as they were.
            let (census, shorts) = (census(&bench.table), max_flows.div_ceil(2));
            assert_eq!((census.whole, census.free_short), (max_flows, 2 * shorts));
            assert_eq!(bench.table.used as usize, bench.table.entries.lines().len());
            empty(&mut bench, round);
        }
        check_records(bench, 2, 2);
    }
}
