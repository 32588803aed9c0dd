//! Bad input: captures cut at every octet and seeded mutants of them never make the meter panic or hang, and the
//! sums close. Built with overflow checks and debug assertions.

mod common;

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{captures, root};
use flowtap::capture::file::{CaptureFiles, FileOptions};
use flowtap::export::{Delivery, Exporter, MeteringStatistics};
use flowtap::flow::{FlowRecord, TableOptions, Timeouts};
use flowtap::pipeline::{Destination, ExporterClock, Layout, Pipeline, PipelineOptions};
use flowtap::stats::RunReport;
use flowtap::time::Timestamp;

const MUTANTS: u64 = 200;
const PACKETS: usize = 100;

/// Adds up the records it is given.
#[derive(Default)]
struct Sum {
    delivery: Delivery,
}

impl Exporter for Sum {
    fn export(&mut self, records: &[FlowRecord]) {
        for record in records {
            assert!(record.packets > 0, "{record:?}");
            assert!(record.end >= record.start, "{record:?}");
            self.delivery.sent.add(record);
        }
    }
    fn tick(&mut self, _: Timestamp, _: &MeteringStatistics) {}
    fn send_waiting(&mut self, _: flowtap::time::Timestamp) {}
    fn finish(&mut self, _: Timestamp, _: &MeteringStatistics) {}
    fn delivery(&self) -> Delivery {
        self.delivery
    }
    fn failure(&self) -> Option<&str> {
        None
    }
}

fn meter(path: &Path) -> RunReport {
    let mut files = CaptureFiles::open(&[path.to_path_buf()], &FileOptions::default()).expect("no filter");
    let table = TableOptions { timeouts: Timeouts::default(), max_flows: 500 };
    let options = PipelineOptions { layout: Layout::Inline, table, live: false };
    let destination = Destination {
        name: "sum".to_string(),
        exporter: Box::new(Sum::default()),
        clock: ExporterClock::Packet,
    };
    let mut pipeline = Pipeline::start(options, vec![destination], None).expect("a small table");
    while let Some(frames) = files.next_run() {
        pipeline.frames(frames);
    }
    pipeline.finish().expect("no threads that could die")
}

/// Meters a file and checks that every frame is counted once.
fn check(path: &Path, what: &dyn Fn() -> String) -> u64 {
    let report = meter(path);
    let sent = report.destinations[0].delivery.sent;
    let ignored: u64 = report.frames.ignored.iter().sum();
    assert_eq!(report.frames.frames, sent.packets + ignored, "{}", what());
    assert_eq!(sent.octets, report.records.octets, "{}", what());
    report.frames.frames
}

/// The octets of a recording, decompressed: what is cut and mutated are captures, not gzip streams.
fn octets(path: &Path) -> Vec<u8> {
    let mut octets = fs::read(path).expect("a recording");
    if path.extension().is_some_and(|extension| extension == "gz") {
        let mut plain = Vec::new();
        flate2::read::MultiGzDecoder::new(&octets[..]).read_to_end(&mut plain).expect("sound gzip");
        octets = plain;
    }
    octets
}

/// Where the first hundred packets end: a capture cut there gives at least that many, or is whole.
fn end_of_first_packets(octets: &[u8], path: &Path) -> usize {
    let (mut low, mut high) = (0, octets.len());
    fs::write(path, octets).expect("a writable file");
    if check(path, &|| "whole".to_string()) <= PACKETS as u64 {
        return high;
    }
    while low < high {
        let middle = low.midpoint(high);
        fs::write(path, &octets[..middle]).expect("a writable file");
        if check(path, &|| format!("cut at {middle}")) >= PACKETS as u64 {
            high = middle
        } else {
            low = middle + 1
        }
    }
    low
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % limit
    }
}

fn mutated(octets: &[u8], seed: u64) -> Vec<u8> {
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let mut mutant = octets.to_vec();
    for _ in 0..=random.below(20) {
        let at = random.below(mutant.len());
        match random.below(5) {
            0 => mutant[at] ^= 1 << random.below(8),
            1 => mutant[at] = [0x00, 0xFF, 0x7F, 0x80][random.below(4)],
            2 => mutant[at] = random.below(256) as u8,
            3 => {
                mutant.remove(at);
            }
            _ => mutant.insert(at, random.below(256) as u8),
        }
    }
    mutant
}

/// Runs `work` over all recordings, two at a time, each with a scratch file of its own in memory if that can be had.
fn over_recordings(work: impl Fn(&Path, &[u8], &Path) + Sync) {
    let recordings: Vec<PathBuf> = captures(&root().join("pcaps"));
    assert!(recordings.len() > 15, "{} recordings", recordings.len());
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    let folder = folder.expect("a scratch folder");
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for worker in 0..2 {
            let (folder, next, recordings, work) = (&folder, &next, &recordings, &work);
            scope.spawn(move || {
                let scratch = folder.path().join(format!("{worker}.pcap"));
                while let Some(recording) = recordings.get(next.fetch_add(1, Ordering::Relaxed)) {
                    work(recording, &octets(recording), &scratch);
                }
            });
        }
    });
}

#[test]
fn a_capture_cut_at_any_octet_gives_what_came_before_and_sums_that_close() {
    over_recordings(|recording, octets, scratch| {
        let end = end_of_first_packets(octets, scratch);
        let mut last = 0;
        for cut in 0..=end {
            fs::write(scratch, &octets[..cut]).expect("a writable file");
            let frames = check(scratch, &|| format!("{} cut at {cut}", recording.display()));
            assert!(frames >= last, "{} cut at {cut}: {frames} frames after {last}", recording.display());
            last = frames;
        }
        assert!(last >= 1, "{}", recording.display());
    });
}

#[test]
fn mutants_of_a_capture_never_break_the_meter() {
    over_recordings(|recording, octets, scratch| {
        for seed in 0..MUTANTS {
            fs::write(scratch, mutated(octets, seed)).expect("a writable file");
            check(scratch, &|| format!("{} mutant {seed}", recording.display()));
        }
    });
}
