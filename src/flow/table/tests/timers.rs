//! That Flows end when their timers come up, and that no timers pile up that nothing waits for.

use super::*;

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
