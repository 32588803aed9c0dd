//! End to end: capture file, decoding, metering, IPFIX to `/dev/null`, by traffic and by layout.
//!
//! An iteration is a whole capture of a million frames from the page cache; Mitem/s are Mpps. With `--generate DIR
//! [FRAMES]` instead of a filter it writes the captures for `compare.py` and measures nothing.

mod common;

use std::path::Path;
use std::sync::Mutex;

use common::capture::{Format, Kind, Sums, write_file};
use common::check;
use divan::{Bencher, counter::ItemsCount};
use flowtap::capture::file::{CaptureFiles, FileOptions};
use flowtap::export::{self, ExportOptions};
use flowtap::flow::table::DEFAULT_MAX_FLOWS;
use flowtap::flow::{TableOptions, Timeouts};
use flowtap::pipeline::{Destination, ExporterClock, Layout, Pipeline, PipelineOptions};

const FRAMES: u64 = 1_000_000;
/// What `--generate` writes unless told otherwise.
const FRAMES_TO_COMPARE: u64 = 5_000_000;

fn main() {
    let mut arguments = std::env::args().skip_while(|argument| argument != "--generate").skip(1);
    if let Some(folder) = arguments.next() {
        let frames = match arguments.next().filter(|argument| !argument.starts_with('-')) {
            Some(number) => number.parse().expect("FRAMES is a number"),
            None => FRAMES_TO_COMPARE,
        };
        return generate(Path::new(&folder), frames);
    }
    divan::main();
}

fn generate(folder: &Path, frames: u64) {
    std::fs::create_dir_all(folder).expect("a folder to write to");
    for kind in Kind::ALL {
        let path = folder.join(kind.file_name());
        let sums = write_file(&path, Format::PcapMicros, kind, frames).expect("room for a capture");
        println!("{}: {} frames, {} octets by their IP headers", path.display(), sums.frames, sums.octets);
    }
}

const LAYOUTS: [Layout; 3] = [Layout::Inline, Layout::Shards(1), Layout::Shards(2)];

#[divan::bench(args = LAYOUTS, sample_count = 15, sample_size = 1, max_time = 4)]
fn mixed(bencher: Bencher<'_, '_>, layout: Layout) {
    run_rounds(bencher, Kind::Mixed, layout);
}

#[divan::bench(args = LAYOUTS, sample_count = 15, sample_size = 1, max_time = 4)]
fn elephants(bencher: Bencher<'_, '_>, layout: Layout) {
    run_rounds(bencher, Kind::Elephants, layout);
}

#[divan::bench(args = LAYOUTS, sample_count = 15, sample_size = 1, max_time = 4)]
fn syn_flood(bencher: Bencher<'_, '_>, layout: Layout) {
    run_rounds(bencher, Kind::SynFlood, layout);
}

/// Records of the first run of each kind: every layout must come to the same.
static RECORDS: Mutex<Vec<(Kind, u64)>> = Mutex::new(Vec::new());

fn run_rounds(bencher: Bencher<'_, '_>, kind: Kind, layout: Layout) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join(kind.file_name());
    let sums = write_file(&path, Format::PcapMicros, kind, FRAMES).expect("room for a capture");
    let expected = {
        let mut records = RECORDS.lock().expect("no bench panicked with it");
        match records.iter().find(|(of, _)| *of == kind) {
            Some(&(_, expected)) => expected,
            None => {
                let inline = run(&path, Layout::Inline, sums);
                records.push((kind, inline));
                inline
            }
        }
    };
    if kind == Kind::SynFlood {
        check("records of a flood", expected, sums.frames);
    }
    bencher
        .counter(ItemsCount::new(sums.frames))
        .bench_local(|| check("records", run(&path, layout, sums), expected));
}

/// One run, as `flowtap read --to ipfix+file:/dev/null` makes it; the records it gave.
fn run(path: &Path, layout: Layout, sums: Sums) -> u64 {
    let mut files = CaptureFiles::open(&[path.to_path_buf()], &FileOptions::default()).expect("no filter");
    let destination = export::Destination::IpfixFile("/dev/null".into());
    let options = ExportOptions { packet_clock: true, ..ExportOptions::default() };
    let exporter = export::open(&destination, &options).expect("it can be written to");
    let destination = Destination { name: destination.to_string(), exporter, clock: ExporterClock::Packet };
    let table = TableOptions { timeouts: Timeouts::default(), max_flows: DEFAULT_MAX_FLOWS };
    // As the program has it.
    let upcoming = (layout != Layout::Inline).then(|| files.upcoming());
    let options = PipelineOptions { layout, table, live: false };
    let mut pipeline = Pipeline::start(options, vec![destination], upcoming).expect("threads");
    while let Some(frames) = files.next_run() {
        pipeline.frames(frames);
    }
    let report = pipeline.finish().expect("no thread died");
    assert!(report.is_clean() && files.failures().is_empty(), "{report:?}");
    check("frames", report.frames.frames, sums.frames);
    check("wire octets", report.frames.wire_octets, sums.wire_octets);
    check("metered", report.frames.metered(), sums.frames);
    check("packets in records", report.records.packets, sums.frames);
    check("octets in records", report.records.octets, sums.octets);
    check("records sent", report.destinations[0].delivery.sent.records, report.records.records);
    report.records.records
}
