//! The records and counts of every capture equal those of the reference program, whatever the timeouts and shards.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{captures, flowtap, rows, shared, summary};

/// Active, idle, linger in seconds.
const TIMEOUTS: [(u32, u32, u32); 4] = [(60, 15, 1), (5, 1, 0), (1800, 300, 5), (60, 0, 1)];
const SHARDS: [&str; 5] = ["0", "1", "2", "3", "8"];

struct Reference {
    rows: Vec<String>,
    counts: serde_json::Value,
}

fn reference(oracle: &Path, files: &[PathBuf], timeouts: (u32, u32, u32)) -> Reference {
    let (active, idle, linger) = timeouts;
    let output = Command::new("python3")
        .arg(oracle)
        .args(["--active", &active.to_string(), "--idle", &idle.to_string(), "--linger", &linger.to_string()])
        .args(files)
        .output()
        .expect("python3 runs");
    Reference { rows: rows(&String::from_utf8_lossy(&output.stdout)), counts: summary(&output) }
}

/// Compares one run with the reference; the words say what differs.
fn compare(
    reference: &Reference,
    files: &[PathBuf],
    timeouts: (u32, u32, u32),
    shards: &str,
) -> Result<(), String> {
    let (active, idle, linger) = timeouts;
    let output = flowtap()
        .args(["read", "--to", "csv:-", "--summary", "json", "--shards", shards])
        .args([format!("--active-timeout={active}s"), format!("--idle-timeout={idle}s")])
        .arg(format!("--tcp-linger={linger}s"))
        .args(files)
        .output()
        .expect("flowtap runs");
    let what = format!("{files:?} {timeouts:?} with {shards} shards");
    let counts = summary(&output);
    let csv = String::from_utf8_lossy(&output.stdout);
    let found = rows(&csv);
    if found != reference.rows {
        let missing: Vec<_> = reference.rows.iter().filter(|row| !found.contains(row)).take(3).collect();
        let extra: Vec<_> = found.iter().filter(|row| !reference.rows.contains(row)).take(3).collect();
        return Err(format!("{what}: records differ\n  missing {missing:#?}\n  extra {extra:#?}"));
    }
    let expected = &reference.counts;
    for name in ["frames", "metered", "clock_resets", "records"] {
        if counts[name] != expected[name] {
            return Err(format!("{what}: {name} is {}, not {}", counts[name], expected[name]));
        }
    }
    let mut ignored = 0;
    for name in ["link_type", "non_ip", "truncated", "malformed"] {
        let count = expected[name].as_u64().unwrap_or(0);
        ignored += count;
        if counts["ignored"][name] != count {
            return Err(format!("{what}: ignored {name} is {}, not {count}", counts["ignored"][name]));
        }
    }
    let number = |name: &str| counts[name].as_u64().unwrap_or(u64::MAX);
    if number("frames") != number("metered") + ignored || number("packets") != number("metered") {
        return Err(format!("{what}: the sums do not close: {counts}"));
    }
    let octets: u64 = reference
        .rows
        .iter()
        .map(|row| row.split(',').nth(6).expect("octets").parse::<u64>().expect("a number"))
        .sum();
    for (name, count) in [("octets", octets), ("filtered", 0), ("evicted", 0)] {
        if counts[name] != count {
            return Err(format!("{what}: {name} is {}, not {count}", counts[name]));
        }
    }
    let damaged = expected["damaged"].as_array().map_or(0, Vec::len);
    if counts["damaged"].as_array().map_or(0, Vec::len) != damaged {
        return Err(format!("{what}: damaged is {}, not {}", counts["damaged"], expected["damaged"]));
    }
    let status = if damaged > 0 { 1 } else { 0 };
    if output.status.code() != Some(status) {
        return Err(format!("{what}: exit status {:?}, not {status}", output.status.code()));
    }
    Ok(())
}

/// Runs `check` on every item, two at a time, and fails with all that went wrong.
fn all_of<T: Sync>(items: &[T], check: impl Fn(&T) -> Result<(), String> + Sync) {
    let next = AtomicUsize::new(0);
    let failures = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(words) = check(item) {
                        failures.lock().unwrap().push(words);
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{} of {} differ:\n{}", failures.len(), items.len(), failures.join("\n"));
}

#[test]
fn every_public_capture_gives_the_records_of_the_reference_program() {
    let Some(shared) = shared() else { return };
    let oracle = shared.join("oracle/flows.py");
    let captures = captures(&shared.join("captures"));
    assert!(captures.len() >= 79, "{} captures", captures.len());
    let mut cases = Vec::new();
    for capture in &captures {
        for timeouts in TIMEOUTS {
            cases.push((capture.clone(), timeouts));
        }
    }
    all_of(&cases, |(capture, timeouts)| {
        let files = [capture.clone()];
        let reference = reference(&oracle, &files, *timeouts);
        SHARDS.iter().try_for_each(|shards| compare(&reference, &files, *timeouts, shards))
    });
}

#[test]
fn captures_together_are_merged_by_time_as_the_reference_program_does() {
    let Some(shared) = shared() else { return };
    let oracle = shared.join("oracle/flows.py");
    let captures = captures(&shared.join("captures"));
    let sets: Vec<Vec<PathBuf>> = vec![
        captures.clone(),
        captures.iter().rev().cloned().collect(),
        captures.iter().filter(|path| path.extension().is_some_and(|e| e == "pcapng")).cloned().collect(),
        vec![captures[0].clone(), captures[0].clone(), captures[1].clone()],
    ];
    all_of(&sets, |files| {
        let reference = reference(&oracle, files, TIMEOUTS[0]);
        SHARDS.iter().try_for_each(|shards| compare(&reference, files, TIMEOUTS[0], shards))
    });
}
