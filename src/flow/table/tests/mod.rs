//! What a table is to do: the bench it is tried on, and what it is tried for by subject.

mod flood;
mod room;
mod timers;
pub(crate) mod twin;

use super::*;
use crate::decode::{Fragment, IpVersion, Packet};
use crate::flow::slot::SECOND;
use crate::flow::wheel::NO_TIMER;
use crate::flow::{ClockStep, FlowRecord, KeyHasher, ObservationClock};
use crate::time::Timestamp;
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

/// A packet of the numbered Flow, over IPv4.
fn numbered(number: u32, nanos: u64, tcp_flags: u16) -> Packet {
    let mut packet = packet(nanos, IpVersion::V4, 1, 2);
    packet.source[..4].copy_from_slice(&number.to_be_bytes());
    packet.tcp_flags = tcp_flags;
    packet
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
