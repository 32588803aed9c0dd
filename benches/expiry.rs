//! Ending flows: by the idle timeout all at once, by a drain, and looking when nothing is due.

mod common;

use std::time::Duration;

use common::packets::{BEGIN, Draws};
use common::{Mix, check};
use divan::{AllocProfiler, Bencher, counter::ItemsCount};
use flowtap::export::Tally;
use flowtap::flow::{FlowRecord, FlowTable, Observations, TableOptions, Timeouts};
use flowtap::time::Timestamp;

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

fn main() {
    divan::main();
}

const ROUND: usize = 1_000;

/// A table of `flows` flows of one packet each, all within a second, and the octets of those packets.
fn filled(draws: &mut Draws, flows: usize) -> (FlowTable, u64) {
    let options = TableOptions { timeouts: Timeouts::default(), max_flows: flows };
    let mut table = FlowTable::new(&options).expect("memory for the table");
    let (mut batch, mut clock, mut octets) = (Observations::with_capacity(ROUND), BEGIN, 0);
    for _ in 0..flows / ROUND {
        octets += draws.fill(&mut batch, ROUND, &mut clock, 1_000_000_000 / flows as u64);
        table.observe(&batch, &mut |_: FlowRecord| unreachable!("nothing ends while the table is filled"));
    }
    check("live flows", table.live(), flows);
    (table, octets)
}

fn end_all(
    bencher: Bencher<'_, '_>,
    flows: usize,
    end: impl Fn(&mut FlowTable, &mut dyn FnMut(flowtap::flow::FlowRecord)),
) {
    let mut draws = Draws::each(Mix::Both, flows as u32);
    bencher.counter(ItemsCount::new(flows)).with_inputs(|| filled(&mut draws, flows)).bench_local_values(
        |(mut table, octets)| {
            let mut out = Tally::default();
            end(&mut table, &mut |record| out.add(&record));
            let flows = flows as u64;
            check("records", out, Tally { records: flows, packets: flows, octets });
            check("live flows", table.live(), 0);
            // Given back, so that unmapping it is not timed.
            table
        },
    );
}

/// Every flow at once. The time divided by the flows is what ending one costs.
#[divan::bench(args = [100_000, 1_000_000], sample_count = 12, sample_size = 1)]
fn idle_timeout(bencher: Bencher<'_, '_>, flows: usize) {
    let later = Timestamp::from_nanos(BEGIN).plus(Duration::from_secs(60));
    end_all(bencher, flows, |table, sink| table.expire(later, &mut |record: FlowRecord| sink(record)));
}

/// A second in a thousand steps, as batches of a busy link come: a thousandth of the flows is due at each.
#[divan::bench(args = [100_000, 1_000_000], sample_count = 12, sample_size = 1)]
fn idle_timeout_in_1000_steps(bencher: Bencher<'_, '_>, flows: usize) {
    end_all(bencher, flows, |table, sink| {
        for step in 0..=1_100 {
            let clock = Timestamp::from_nanos(BEGIN).plus(Duration::from_millis(15_000 + step));
            table.expire(clock, &mut |record: FlowRecord| sink(record));
        }
    });
}

#[divan::bench(args = [100_000, 1_000_000], sample_count = 12, sample_size = 1)]
fn drain(bencher: Bencher<'_, '_>, flows: usize) {
    let now = Timestamp::from_nanos(BEGIN).plus(Duration::from_secs(2));
    end_all(bencher, flows, |table, sink| table.drain(now, &mut |record: FlowRecord| sink(record)));
}

/// What every batch of packets pays when no flow ends: one look.
#[divan::bench(args = [100_000, 1_000_000], min_time = 0.3)]
fn nothing_due(bencher: Bencher<'_, '_>, flows: usize) {
    let mut draws = Draws::each(Mix::Both, flows as u32);
    let (mut table, _) = filled(&mut draws, flows);
    let mut clock = BEGIN + 1_000_000_000;
    bencher.bench_local(|| {
        clock += 1;
        table.expire(Timestamp::from_nanos(clock), &mut |_: FlowRecord| unreachable!("nothing is due"));
    });
    check("live flows", table.live(), flows);
}
