//! The flow table: updates by number of live flows and how packets are spread over them, and a SYN flood.
//!
//! An iteration is a batch of 1,000 packets, followed by the look at the timers that the pipeline makes:
//! a time of 1 µs is 1 ns a packet. The packets are made outside of what is timed. At the end the octets
//! a live flow are printed, and no figure stands if they are more than [`MOST_OCTETS`].

mod common;

use std::sync::Mutex;

use common::packets::{BEGIN, Draws};
use common::{Keys, Mix, check};
use divan::{AllocProfiler, Bencher, counter::ItemsCount};
use flowtap::export::Tally;
use flowtap::flow::{FlowRecord, FlowTable, Observations, TableOptions, Timeouts};
use flowtap::time::Timestamp;
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

/// Packets in a batch.
const ROUND: usize = 1_000;

/// Octets a live flow may cost, index and timers included, where there are many.
const MOST_OCTETS: usize = 160;
/// What many is: below, the wheel's fixed part weighs.
const MANY: u32 = 100_000;

/// Lines for the end, since the table of results is printed as it goes.
static MEMORY: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn main() {
    divan::main();
    for line in MEMORY.lock().expect("no bench panicked with it").iter() {
        println!("{line}");
    }
}

const SIZES: [u32; 4] = [10_000, 100_000, 1_000_000, 10_000_000];

#[divan::bench(args = SIZES, min_time = 1, skip_ext_time = true)]
fn uniform(bencher: Bencher<'_, '_>, flows: u32) {
    update(bencher, "uniform", Mix::V4, Keys::Uniform, flows);
}

/// Live Flows that leave the index in the midst of growing, which only Flows that begin take further: just begun, half done.
const GROWING: [u32; 2] = [1_573_000, 1_606_000];

#[divan::bench(args = GROWING, min_time = 1, skip_ext_time = true)]
fn uniform_in_a_growing_index(bencher: Bencher<'_, '_>, flows: u32) {
    update(bencher, "uniform, index growing", Mix::V4, Keys::Uniform, flows);
}

#[divan::bench(args = SIZES, min_time = 1, skip_ext_time = true)]
fn zipf(bencher: Bencher<'_, '_>, flows: u32) {
    update(bencher, "zipf", Mix::V4, Keys::Zipf, flows);
}

#[divan::bench(args = [10_000, 1_000_000], min_time = 1, skip_ext_time = true)]
fn uniform_ipv6(bencher: Bencher<'_, '_>, flows: u32) {
    update(bencher, "IPv6", Mix::V6, Keys::Uniform, flows);
}

#[divan::bench(args = [10_000, 1_000_000], min_time = 1, skip_ext_time = true)]
fn uniform_one_in_five_ipv6(bencher: Bencher<'_, '_>, flows: u32) {
    update(bencher, "one in five IPv6", Mix::Both, Keys::Uniform, flows);
}

/// Octets of this process in memory; 0 where the system does not tell.
fn resident_octets() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<usize>().ok());
    kib.unwrap_or(0) * 1024
}

/// A batch with the sum of its octets.
type Round = (Observations, u64);

/// A table, what it was given, and what came out.
struct Metered {
    table: FlowTable,
    given: Tally,
    out: Tally,
}

impl Metered {
    fn new(max_flows: usize, timeouts: Timeouts) -> Metered {
        let table = FlowTable::new(&TableOptions { timeouts, max_flows }).expect("memory for the table");
        Metered { table, given: Tally::default(), out: Tally::default() }
    }

    #[inline]
    fn take(&mut self, (observations, octets): &Round) {
        let out = &mut self.out;
        let mut sink = |record: FlowRecord| out.add(&record);
        self.table.observe(observations, &mut sink);
        self.table.expire(observations.clock().expect("a round of packets"), &mut sink);
        self.given.packets += observations.len() as u64;
        self.given.octets += octets;
    }

    /// `resident_before` is what the process had in memory before the table was filled.
    fn check_memory(&self, name: &str, flows: u32, resident_before: usize) {
        let live = self.table.live();
        let each = self.table.octets().div_ceil(live);
        // What the table says, and what the kernel says: address space that is only reserved costs nothing.
        let resident = resident_octets().saturating_sub(resident_before).div_ceil(live);
        let line = format!("memory: {name}, {live} live flows: {each} octets each, {resident} resident");
        MEMORY.lock().expect("no bench panicked with it").push(line);
        if flows >= MANY {
            assert!(each <= MOST_OCTETS, "{each} octets a live flow at {live} {name} flows");
        }
        if flows >= MANY * 10 {
            assert!(resident <= MOST_OCTETS, "{resident} octets resident a live flow at {live} {name} flows");
        }
    }

    fn check_sums(mut self, clock: u64, records: Option<u64>) {
        let out = &mut self.out;
        self.table.drain(Timestamp::from_nanos(clock), &mut |record: FlowRecord| out.add(&record));
        check("packets in records", self.out.packets, self.given.packets);
        check("octets in records", self.out.octets, self.given.octets);
        check("evicted flows", self.table.evicted(), 0);
        if let Some(records) = records {
            check("records", self.out.records, records);
        }
    }
}

fn update(bencher: Bencher<'_, '_>, name: &str, mix: Mix, keys: Keys, flows: u32) {
    let mut metered = Metered::new(flows as usize, Timeouts::default());
    let mut clock = BEGIN;
    let mut each = Draws::each(mix, flows);
    let resident_before = resident_octets();
    for _ in 0..flows as usize / ROUND {
        let mut batch = Observations::with_capacity(ROUND);
        let octets = each.fill(&mut batch, ROUND, &mut clock, 1);
        let round = (batch, octets);
        // Three packets a flow: one each is a flood, which a table takes into memory that suits it.
        for _ in 0..3 {
            metered.take(&round);
        }
    }
    check("live flows", metered.table.live(), flows as usize);
    metered.check_memory(name, flows, resident_before);
    drop(each);
    // So many that caches do not keep what one turn touched until the next.
    let mut draws = Draws::new(mix, keys, flows, 4 * flows.clamp(250_000, 1_000_000) as usize);
    bencher
        .counter(ItemsCount::new(ROUND))
        .with_inputs(|| {
            let mut batch = Observations::with_capacity(ROUND);
            // A nanosecond a packet: no timeout is reached, so that the number of flows stays.
            let octets = draws.fill(&mut batch, ROUND, &mut clock, 1);
            (batch, octets)
        })
        .bench_local_refs(|round: &mut Round| metered.take(round));
    metered.check_sums(clock, Some(u64::from(flows)));
}

/// Every packet a new flow, a million a second; each ends a second later: a million are live, and for each that begins
/// another one ends.
#[divan::bench(min_time = 2, skip_ext_time = true)]
fn syn_flood_1m_live(bencher: Bencher<'_, '_>) {
    const LIVE: u32 = 1_000_000;
    let timeouts = Timeouts { idle: Duration::from_secs(1), ..Timeouts::default() };
    let mut metered = Metered::new(2 * LIVE as usize, timeouts);
    let mut clock = BEGIN;
    // When a flow comes again, it has long ended.
    let mut draws = Draws::each(Mix::V4, 4 * LIVE);
    let resident_before = resident_octets();
    let mut round = move || {
        let mut batch = Observations::with_capacity(ROUND);
        let octets = draws.fill(&mut batch, ROUND, &mut clock, 1_000);
        (batch, octets)
    };
    for _ in 0..2 * LIVE as usize / ROUND {
        metered.take(&round());
    }
    assert!(metered.table.live().abs_diff(LIVE as usize) < LIVE as usize / 50, "{}", metered.table.live());
    metered.check_memory("SYN flood", LIVE, resident_before);
    bencher
        .counter(ItemsCount::new(ROUND))
        .with_inputs(round)
        .bench_local_refs(|round: &mut Round| metered.take(round));
    // One record a packet.
    let records = metered.given.packets;
    metered.check_sums(BEGIN, Some(records));
}
