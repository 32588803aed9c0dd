//! Reading capture files: formats, compression, many files merged by time.
//!
//! An iteration is a whole file of 200,000 frames from the page cache.

mod common;

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use common::capture::{Format, Kind, Sums, write_file, write_part};
use common::check;
use divan::{Bencher, counter::ItemsCount};
use flowtap::capture::file::{CaptureFiles, FileOptions};

fn main() {
    divan::main();
}

const FRAMES: u64 = 200_000;

/// Reads everything; sums wire octets and looks at the ends of each frame, as a decoder would.
fn read(paths: &[PathBuf], options: &FileOptions) -> (u64, u64) {
    let mut files = CaptureFiles::open(paths, options).expect("no filter to refuse");
    let (mut frames, mut wire_octets) = (0, 0);
    let mut looked_at = 0u64;
    while let Some(run) = files.next_run() {
        for frame in run {
            frames += 1;
            wire_octets += u64::from(frame.wire_length);
            looked_at ^= u64::from(frame.data[0]) ^ frame.timestamp.nanos();
        }
    }
    divan::black_box(looked_at);
    assert!(files.failures().is_empty(), "{:?}", files.failures());
    (frames, wire_octets)
}

fn read_rounds(bencher: Bencher<'_, '_>, paths: &[PathBuf], sums: Sums) {
    let options = FileOptions::default();
    bencher.counter(ItemsCount::new(sums.frames)).bench_local(|| {
        check("frames and octets", read(paths, &options), (sums.frames, sums.wire_octets));
    });
}

#[divan::bench(args = [Format::PcapMicros, Format::PcapNanos, Format::Pcapng], sample_count = 30, min_time = 0.3, max_time = 2)]
fn plain(bencher: Bencher<'_, '_>, format: Format) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("capture");
    let sums = write_file(&path, format, Kind::Mixed, FRAMES).expect("room for a capture");
    read_rounds(bencher, &[path], sums);
}

#[divan::bench(args = ["gzip", "zstd", "lz4"], sample_count = 20, min_time = 0.3, max_time = 3)]
fn compressed(bencher: Bencher<'_, '_>, how: &str) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let plain = folder.path().join("capture");
    let sums = write_file(&plain, Format::PcapMicros, Kind::Mixed, FRAMES).expect("room for a capture");
    let path = folder.path().join("compressed");
    compress(how, &plain, &path);
    read_rounds(bencher, &[path], sums);
}

fn compress(how: &str, plain: &Path, path: &Path) {
    let octets = fs::read(plain).expect("the capture just written");
    let file = BufWriter::new(File::create(path).expect("room for a capture"));
    match how {
        "gzip" => {
            let mut out = flate2::write::GzEncoder::new(file, flate2::Compression::default());
            out.write_all(&octets).and_then(|()| out.finish()?.flush()).expect("room for a capture");
        }
        "zstd" => zstd::stream::copy_encode(&octets[..], file, 3).expect("room for a capture"),
        "lz4" => {
            let mut out = lz4_flex::frame::FrameEncoder::new(file);
            out.write_all(&octets).expect("room for a capture");
            out.finish().expect("room for a capture").flush().expect("room for a capture");
        }
        _ => unreachable!("one of the three"),
    }
}

/// Files whose frames lie in turn: the worst case, every frame hands the turn to another file.
#[divan::bench(args = [2, 8], sample_count = 20, min_time = 0.3, max_time = 3)]
fn merged_frame_by_frame(bencher: Bencher<'_, '_>, parts: u64) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (mut paths, mut all) = (Vec::new(), Sums::default());
    for part in 0..parts {
        let path = folder.path().join(format!("part-{part}"));
        let mut out = BufWriter::new(File::create(&path).expect("room for a capture"));
        let sums = write_part(&mut out, Format::PcapMicros, Kind::Mixed, FRAMES, (part, parts))
            .and_then(|sums| out.flush().map(|()| sums))
            .expect("room for a capture");
        all.frames += sums.frames;
        all.wire_octets += sums.wire_octets;
        paths.push(path);
    }
    read_rounds(bencher, &paths, all);
}

/// A filter that every frame passes: what asking it costs.
#[divan::bench(sample_count = 20, min_time = 0.3, max_time = 2)]
fn filtered(bencher: Bencher<'_, '_>) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("capture");
    let sums = write_file(&path, Format::PcapMicros, Kind::Mixed, FRAMES).expect("room for a capture");
    let options = FileOptions { filter: Some("ip or ip6".to_owned()), ..FileOptions::default() };
    bencher.counter(ItemsCount::new(sums.frames)).bench_local(|| {
        check(
            "frames and octets",
            read(std::slice::from_ref(&path), &options),
            (sums.frames, sums.wire_octets),
        );
    });
}
