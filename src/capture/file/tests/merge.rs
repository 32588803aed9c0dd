//! Several files as one stream: whose turn it is, how few are open meanwhile, and that a damaged one ends alone.

use std::path::PathBuf;

use tempfile::TempDir;

use super::captures::{Random, gzip, lz4, pcap_at, pcap_of_many, zstd_frame};
use super::{Owned, open, read_files, read_paths, written};
use crate::capture::file::{CaptureFiles, MOST_OPEN};

/// The rule of the merge, plainly.
fn merged(mut files: Vec<Vec<Owned>>) -> Vec<Owned> {
    files.iter_mut().for_each(|frames| frames.reverse());
    let mut merged = Vec::new();
    loop {
        let ready = files.iter_mut().filter(|frames| !frames.is_empty());
        // Of equals, `min_by_key` gives the first.
        let Some(earliest) = ready.min_by_key(|frames| frames.last().unwrap().nanos) else { return merged };
        merged.extend(earliest.pop());
    }
}

fn frames_of(paths: &[PathBuf]) -> Vec<Vec<Owned>> {
    paths.iter().map(|path| read_paths(std::slice::from_ref(path)).0).collect()
}

#[test]
fn files_are_merged_by_time_with_ties_to_the_one_named_first_and_nothing_reordered_within() {
    let folder = TempDir::new().unwrap();
    let a = written(&folder, "a", &pcap_at(&[10, 30, 30, 5, 40], b'a'));
    let b = written(&folder, "b", &pcap_at(&[10, 20, 30, 31], b'b'));
    let c = written(&folder, "c", &pcap_at(&[], b'c'));
    let marks = |paths: &[PathBuf]| -> Vec<(u64, u8, u8)> {
        let (frames, failures) = read_paths(paths);
        assert!(failures.is_empty());
        frames.iter().map(|frame| (frame.nanos, frame.data[0], frame.data[1])).collect()
    };
    assert_eq!(
        marks(&[a.clone(), c, b.clone()]),
        [
            (10, b'a', 0),
            (10, b'b', 0),
            (20, b'b', 1),
            (30, b'a', 1),
            (30, b'a', 2),
            (5, b'a', 3),
            (30, b'b', 2),
            (31, b'b', 3),
            (40, b'a', 4)
        ]
    );
    assert_eq!(marks(&[b, a])[..2], [(10, b'b', 0), (10, b'a', 0)]);
}

#[test]
fn any_files_merge_as_the_plain_rule_says_with_few_of_them_open() {
    let folder = TempDir::new().unwrap();
    let mut random = Random(0x5EED_0004);
    for most_open in [1, 2, 5, MOST_OPEN] {
        let paths: Vec<_> = (0..30)
            .map(|number| {
                let count = random.below(60);
                let nanos: Vec<_> = (0..count).map(|_| random.next() % 200).collect();
                let octets = pcap_at(&nanos, number);
                let octets = match number % 5 {
                    0 => gzip(&octets),
                    1 => zstd_frame(&octets),
                    2 => lz4(&octets),
                    _ => octets,
                };
                written(&folder, &number.to_string(), &octets)
            })
            .collect();
        let mut files = CaptureFiles { most_open, ..open(&paths) };
        let frames = read_files(&mut files);
        assert!(files.failures().is_empty(), "{:?}", files.failures());
        assert_eq!(frames, merged(frames_of(&paths)));
    }
}

#[test]
fn more_overlapping_files_than_may_be_open_are_put_down_and_taken_up_again() {
    let folder = TempDir::new().unwrap();
    let count = MOST_OPEN as u64 + 60;
    let paths: Vec<_> = (0..count)
        .map(|number| {
            let nanos: Vec<_> = (0..20).map(|turn| turn * 1_000 + number).collect();
            written(&folder, &format!("{number:03}"), &pcap_at(&nanos, number as u8))
        })
        .collect();
    let mut files = open(&paths);
    let mut last = None;
    let mut read = 0;
    while let Some(run) = files.next_run() {
        for frame in run {
            let now = frame.timestamp;
            assert!(last.is_none_or(|last| last < now));
            last = Some(now);
            read += 1;
        }
        assert!(files.open.len() <= MOST_OPEN);
    }
    assert_eq!(read, count * 20);
    assert!(files.failures().is_empty(), "{:?}", files.failures());
    assert_eq!(Some(files.octets_read()), files.octets_total());
}

#[test]
fn compressed_files_read_far_into_are_put_down_too() {
    let folder = TempDir::new().unwrap();
    let (file, expected) = pcap_of_many();
    let compressions = [gzip as fn(&[u8]) -> Vec<u8>, zstd_frame, lz4, |octets| octets.to_vec()];
    let paths: Vec<_> = compressions
        .iter()
        .enumerate()
        .map(|(number, compress)| written(&folder, &number.to_string(), &compress(&file)))
        .collect();
    for most_ahead in [0, 1, 4] {
        let mut files = CaptureFiles { most_open: 1, most_ahead, ..open(&paths) };
        let frames = read_files(&mut files);
        assert!(files.failures().is_empty(), "{:?}", files.failures());
        let expected: Vec<_> = expected.iter().flat_map(|frame| vec![frame; paths.len()]).collect();
        assert!(frames.iter().eq(expected));
    }
}

#[test]
fn rotated_files_are_open_one_at_a_time() {
    let folder = TempDir::new().unwrap();
    let paths: Vec<_> = (0..1_200_u64)
        .map(|number| written(&folder, &number.to_string(), &pcap_at(&[number * 10, number * 10 + 5], 0)))
        .collect();
    let mut files = open(&paths);
    let mut read = 0;
    while let Some(run) = files.next_run() {
        read += run.len();
        assert!(files.open.len() <= 1);
    }
    assert_eq!(read, 2_400);
}

#[test]
fn a_damaged_or_missing_file_is_reported_and_the_others_go_on() {
    let folder = TempDir::new().unwrap();
    let whole = pcap_at(&[1, 4], b'w');
    let mut damaged = pcap_at(&[2, 3, 5], b'd');
    damaged.truncate(damaged.len() - 1);
    let paths = [
        written(&folder, "damaged", &damaged),
        folder.path().join("missing"),
        written(&folder, "whole", &whole),
        written(&folder, "empty", &[]),
    ];
    let (frames, failures) = read_paths(&paths);
    assert_eq!(frames.iter().map(|frame| frame.nanos).collect::<Vec<_>>(), [1, 2, 3, 4]);
    let shown = |number: usize| paths[number].display().to_string();
    assert_eq!(
        failures,
        [
            format!("{}: cannot be opened: No such file or directory (os error 2)", shown(1)),
            format!("{}: offset 0: empty, not a capture", shown(3)),
            format!("{}: offset 60: packet record cut off: 18 octets needed, 17 left", shown(0)),
        ]
    );
}
