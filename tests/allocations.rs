//! Nothing is allocated per packet nor per record once the meter is warm.
//!
//! The allocator counts what the test's own thread asks for; what it asks for in one turn of the workload is compared
//! after turns that have brought every buffer to its size.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::Path;

use flowtap::capture::{Frame, LinkType};
use flowtap::decode::{IpVersion, Packet, tcp_flags};
use flowtap::export::text::{self, TextFormat, TextOptions};
use flowtap::export::{self, Destination, ExportOptions, Exporter, MeteringStatistics};
use flowtap::flow::{FlowRecord, FlowTable, KeyHasher, Observations, TableOptions, Timeouts};
use flowtap::pipeline::{self, ExporterClock, Pipeline, PipelineOptions};
use flowtap::time::Timestamp;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count() {
    // No destructor and no lazy part: it can be had while a thread begins and ends.
    ALLOCATIONS.with(|allocations| allocations.set(allocations.get() + 1));
}

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Allocations of this thread while `work` runs.
fn allocations(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

const SECOND: u64 = 1_000_000_000;
const BEGIN: u64 = 1_700_000_000 * SECOND;
/// A turn is longer than the idle timeout, so that all flows of the turn before have ended.
const TURN: u64 = 20 * SECOND;
const FLOWS: u32 = 2_000;
const WARM_UP_TURNS: u64 = 4;
const TURNS: u64 = 3;

/// Packet `step` of `flow`: some flows are IPv6, some end with FIN, some flags are counted past 127.
fn packet(turn: u64, step: u64, flow: u32) -> Packet {
    let mut source = [0; 16];
    source[..4].copy_from_slice(&flow.to_be_bytes());
    let nanos = BEGIN + turn * TURN + step * SECOND / 100 + u64::from(flow) * 1_000;
    Packet {
        timestamp: Timestamp::from_nanos(nanos),
        source,
        destination: [9; 16].map(|octet| if flow.is_multiple_of(5) { octet } else { 0 }),
        octets: 100,
        source_port: flow as u16,
        destination_port: 443,
        tcp_flags: match step {
            0 => tcp_flags::SYN,
            7 if flow.is_multiple_of(2) => tcp_flags::FIN | tcp_flags::ACK,
            _ => tcp_flags::ACK | tcp_flags::PSH,
        },
        protocol: 6,
        ip_version: if flow.is_multiple_of(5) { IpVersion::V6 } else { IpVersion::V4 },
        ..Packet::default()
    }
}

/// Packets of a flow in a turn: flow 0 has many.
fn packets_of(flow: u32) -> u64 {
    if flow == 0 { 300 } else { 8 }
}

fn each_packet(turn: u64, mut take: impl FnMut(Packet)) {
    for step in 0..300 {
        for flow in (0..FLOWS).filter(|&flow| step < packets_of(flow)) {
            take(packet(turn, step, flow));
        }
    }
}

fn ipfix() -> Box<dyn Exporter> {
    let options = ExportOptions { packet_clock: true, ..ExportOptions::default() };
    export::open(&Destination::IpfixFile("/dev/null".into()), &options).expect("it can be written to")
}

fn text(format: TextFormat) -> Box<dyn Exporter> {
    let options = TextOptions { utc: true, sort_limit: 0, ..TextOptions::default() };
    Box::new(text::open(format, Path::new("/dev/null"), &options).expect("it can be written to"))
}

fn exporters() -> Vec<(&'static str, Box<dyn Exporter>)> {
    vec![
        ("IPFIX", ipfix()),
        ("CSV", text(TextFormat::Csv)),
        ("JSON", text(TextFormat::Json)),
        ("table", text(TextFormat::Table)),
    ]
}

#[test]
fn a_warm_table_and_warm_exporters_allocate_nothing() {
    let options = TableOptions { timeouts: Timeouts::default(), max_flows: 10_000 };
    let mut table = FlowTable::new(&options).expect("memory for 10,000 flows");
    let hasher = KeyHasher::with_seed(1);
    let mut exporters = exporters();
    let mut batch = Observations::with_capacity(256);
    let mut records: Vec<FlowRecord> = Vec::with_capacity(2 * FLOWS as usize);
    let (mut by_table, mut by_exporters) = (0, [0; 4]);
    let (mut packets, mut packets_out, mut records_out) = (0, 0, 0);
    for turn in 0..WARM_UP_TURNS + TURNS {
        let warm = turn >= WARM_UP_TURNS;
        let mut meter = |batch: &mut Observations, records: &mut Vec<FlowRecord>| {
            let clock = batch.clock().expect("at least one packet");
            let allocated = allocations(|| {
                table.observe(batch, &mut |record: FlowRecord| records.push(record));
                table.expire(clock, &mut |record: FlowRecord| records.push(record));
            });
            by_table += if warm { allocated } else { 0 };
            for (count, (_, exporter)) in by_exporters.iter_mut().zip(&mut exporters) {
                let allocated = allocations(|| exporter.export(records));
                *count += if warm { allocated } else { 0 };
            }
            packets_out += records.iter().map(|record| record.packets).sum::<u64>();
            records_out += records.len();
            records.clear();
            batch.clear();
        };
        each_packet(turn, |packet| {
            packets += 1;
            batch.push(&packet, packet.timestamp, hasher.hash(&packet));
            if batch.len() == 256 {
                meter(&mut batch, &mut records);
            }
        });
        meter(&mut batch, &mut records);
    }
    table.drain(Timestamp::from_nanos(BEGIN + 100 * TURN), &mut |record: FlowRecord| {
        packets_out += record.packets
    });
    assert_eq!(packets_out, packets, "the work was done");
    assert!(records_out as u64 >= (WARM_UP_TURNS + TURNS - 1) * u64::from(FLOWS), "{records_out} records");
    assert_eq!(by_table, 0, "allocations by the table");
    for (count, (name, _)) in by_exporters.iter().zip(&exporters) {
        assert_eq!(*count, 0, "allocations by the {name} exporter");
    }
}

/// An Ethernet frame of a packet made by [`packet`].
fn frame(packet: &Packet, octets: &mut [u8; 96]) -> usize {
    octets[..12].fill(2);
    let tcp = match packet.ip_version {
        IpVersion::V4 => {
            octets[12..14].copy_from_slice(&[0x08, 0x00]);
            octets[14..26].copy_from_slice(&[0x45, 0, 0, 100, 0, 0, 0x40, 0, 64, packet.protocol, 0, 0]);
            octets[26..30].copy_from_slice(&packet.source[..4]);
            octets[30..34].copy_from_slice(&packet.destination[..4]);
            34
        }
        IpVersion::V6 => {
            octets[12..14].copy_from_slice(&[0x86, 0xDD]);
            octets[14..22].copy_from_slice(&[0x60, 0, 0, 0, 0, 60, packet.protocol, 64]);
            octets[22..38].copy_from_slice(&packet.source);
            octets[38..54].copy_from_slice(&packet.destination);
            54
        }
    };
    octets[tcp..tcp + 2].copy_from_slice(&packet.source_port.to_be_bytes());
    octets[tcp + 2..tcp + 4].copy_from_slice(&packet.destination_port.to_be_bytes());
    octets[tcp + 4..tcp + 12].fill(1);
    octets[tcp + 12] = 0x50;
    octets[tcp + 13] = packet.tcp_flags as u8;
    octets[tcp + 14..tcp + 20].fill(0);
    tcp + 20
}

fn start(layout: pipeline::Layout) -> Pipeline {
    let destinations = exporters()
        .into_iter()
        .map(|(name, exporter)| pipeline::Destination {
            name: name.to_owned(),
            exporter,
            clock: ExporterClock::Packet,
        })
        .collect();
    // Statistics, which come by the minute, allocate; they are neither a packet's nor a record's.
    let table = TableOptions { timeouts: Timeouts::default(), max_flows: 10_000 };
    Pipeline::start(PipelineOptions { layout, table, live: false }, destinations, None).expect("threads")
}

/// Runs the workload through a pipeline and gives the allocations of the calling thread once warm, and the packets they
/// were for.
fn run(layout: pipeline::Layout) -> (u64, u64) {
    let mut pipeline = start(layout);
    let mut octets = [0; 96];
    let (mut allocated, mut packets) = (0, 0);
    for turn in 0..WARM_UP_TURNS + TURNS {
        each_packet(turn, |packet| {
            let length = frame(&packet, &mut octets);
            let frame = Frame {
                timestamp: packet.timestamp,
                wire_length: 114,
                link_type: LinkType::ETHERNET,
                interface: 0,
                data: &octets[..length],
            };
            let count = allocations(|| pipeline.frames(std::iter::once(frame)));
            if turn >= WARM_UP_TURNS {
                allocated += count;
                packets += 1;
            }
        });
    }
    let report = pipeline.finish().expect("no thread died");
    assert!(report.is_clean());
    assert_eq!((report.frames.ignored, report.frames.metered()), ([0; 4], report.records.packets));
    assert!(report.records.records >= (WARM_UP_TURNS + TURNS) * u64::from(FLOWS));
    (allocated, packets)
}

#[test]
fn a_warm_inline_pipeline_allocates_nothing_from_frame_to_message() {
    assert_eq!(run(pipeline::Layout::Inline).0, 0);
}

#[test]
fn with_shards_reading_allocates_at_most_a_batch_now_and_then() {
    // Batches come back to be used again; while all are on their way a new one is made.
    for shards in [1, 2] {
        let (allocated, packets) = run(pipeline::Layout::Shards(shards));
        assert!(allocated <= packets / 100, "{allocated} allocations for {packets} packets");
    }
}

/// The counter itself: a test that cannot fail proves nothing.
#[test]
fn an_allocation_is_counted() {
    assert_eq!(allocations(|| drop(std::hint::black_box(Box::new(7)))), 1);
    assert!(allocations(|| ipfix().finish(Timestamp::EPOCH, &MeteringStatistics::default())) > 0);
}
