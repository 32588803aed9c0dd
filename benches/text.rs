//! CSV, JSON and the table, to `/dev/null`.
//!
//! An iteration is 1,000 records: a time of 1 µs is 1 ns a record, and 1 Mitem/s a million records a second.

mod common;

use std::path::Path;

use common::records::records;
use common::{Mix, check};
use divan::{AllocProfiler, Bencher, counter::ItemsCount};
use flowtap::export::text::{self, TextFormat, TextOptions};
use flowtap::export::{Exporter, MeteringStatistics};
use flowtap::time::Timestamp;

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

fn main() {
    divan::main();
}

const ROUND: usize = 1_000;
const FORMATS: [TextFormat; 3] = [TextFormat::Csv, TextFormat::Json, TextFormat::Table];

/// Row by row as records come.
#[divan::bench(args = FORMATS, min_time = 1)]
fn rows(bencher: Bencher<'_, '_>, format: TextFormat) {
    let (records, once) = records(Mix::Both, 4 * ROUND);
    let options = TextOptions { utc: true, sort_limit: 0, ..TextOptions::default() };
    check_rows(format, &options);
    let mut exporter = text::open(format, Path::new("/dev/null"), &options).expect("it can be written to");
    let mut rounds = records.chunks(ROUND).cycle();
    let mut given = 0;
    bencher.counter(ItemsCount::new(ROUND)).bench_local(|| {
        exporter.export(rounds.next().expect("a cycle has no end"));
        given += ROUND as u64;
    });
    exporter.finish(Timestamp::EPOCH, &MeteringStatistics::default());
    check("failure", exporter.failure(), None);
    let sent = exporter.delivery().sent;
    check("records", sent.records, given);
    if given.is_multiple_of(once.records) {
        check("octets", sent.octets, once.octets * (given / once.records));
    }
}

/// A row a record, with its octets in it.
fn check_rows(format: TextFormat, options: &TextOptions) {
    let (records, sums) = records(Mix::Both, ROUND);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("rows");
    let mut exporter = text::open(format, &path, options).expect("it can be written to");
    exporter.export(&records);
    exporter.finish(Timestamp::EPOCH, &MeteringStatistics::default());
    let written = std::fs::read_to_string(&path).expect("text");
    match format {
        TextFormat::Csv => {
            let mut rows = written.lines().map(|row| row.split(','));
            let title = rows.next().and_then(|mut titles| titles.position(|title| title == "octets"));
            let column = title.expect("a column of octets");
            let octets: Vec<u64> = rows
                .map(|mut row| row.nth(column).and_then(|octets| octets.parse().ok()).expect("a number"))
                .collect();
            check("rows", octets.len(), records.len());
            check("octets in rows", octets.iter().sum(), sums.octets);
        }
        TextFormat::Json => {
            let octets: Vec<u64> = written
                .lines()
                .map(|row| serde_json::from_str::<serde_json::Value>(row).expect("a JSON object"))
                .map(|row| row["octets"].as_u64().expect("a number"))
                .collect();
            check("rows", octets.len(), records.len());
            check("octets in rows", octets.iter().sum(), sums.octets);
        }
        TextFormat::Table => {
            let rows = written.lines().filter(|row| row.contains(":443")).count();
            assert!(rows >= records.len(), "{rows} rows of {} records", records.len());
        }
    }
}

/// The table as `read` makes it: held, sorted by start, widths fitted, 100,000 records.
#[divan::bench(sample_count = 12, sample_size = 1)]
fn sorted_table_of_100k(bencher: Bencher<'_, '_>) {
    let (records, sums) = records(Mix::Both, 100_000);
    let options = TextOptions { utc: true, ..TextOptions::default() };
    bencher.counter(ItemsCount::new(records.len())).bench_local(|| {
        let mut exporter =
            text::open(TextFormat::Table, Path::new("/dev/null"), &options).expect("it can be written to");
        for batch in records.chunks(256) {
            exporter.export(batch);
        }
        exporter.finish(Timestamp::EPOCH, &MeteringStatistics::default());
        check("sums", exporter.delivery().sent, sums);
    });
}
