//! The frames of real captures, and of mutated ones, against a reader that shares no code with this one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::captures::{Random, mutate, pcap_of_both_lengths, pcapng_of_everything};
use super::{Owned, read_files, read_octets, written};
use crate::capture::file::{CaptureFiles, FileError, FileOptions};
use crate::needs::shared;

const ORACLE: &str = "
import sys, zlib
sys.path.insert(0, sys.argv[1])
sys.dont_write_bytecode = True
import flows
for path in sys.argv[2:]:
    frames = [(ts, wire, link, len(data), zlib.crc32(data)) for ts, wire, link, data in flows.packets(path)]
    damaged = [at for name, at in flows.DAMAGED if name == path]
    print('file', len(frames), damaged[0] if damaged else 'whole')
    for frame in frames:
        print(*frame)
";

/// What the oracle says of each file, in lines: how many frames and where it is damaged, then the frames.
fn oracle(shared: &Path, paths: &[PathBuf]) -> Vec<Vec<String>> {
    let output = Command::new("python3")
        .arg("-c")
        .arg(ORACLE)
        .arg(shared.join("oracle"))
        .args(paths)
        .output()
        .expect("python3 runs the oracle");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut answers: Vec<Vec<String>> = Vec::new();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        match line.strip_prefix("file ") {
            Some(head) => answers.push(vec![head.to_string()]),
            None => answers.last_mut().unwrap().push(line.to_string()),
        }
    }
    assert_eq!(answers.len(), paths.len(), "it reads every file");
    answers
}

fn in_the_oracles_words(frames: &[Owned], failure: Option<&FileError>) -> Vec<String> {
    let damaged = failure.map_or("whole".to_string(), |failure| failure.offset.unwrap().to_string());
    let mut lines = vec![format!("{} {damaged}", frames.len())];
    lines.extend(frames.iter().map(|frame| {
        let mut crc = flate2::Crc::new();
        crc.update(&frame.data);
        let Owned { nanos, wire_length, link_type, data, .. } = frame;
        format!("{nanos} {wire_length} {link_type} {} {}", data.len(), crc.sum())
    }));
    lines
}

fn sorted_captures(shared: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(shared.join("captures")).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension != "tsv"));
    paths.sort();
    assert!(!paths.is_empty(), "{} holds no captures", shared.display());
    paths
}

#[test]
fn real_captures_give_the_frames_and_the_damage_that_the_oracle_finds() {
    let Some(shared) = shared() else { return };
    let paths = sorted_captures(&shared);
    for (path, expected) in paths.iter().zip(oracle(&shared, &paths)) {
        for buffer_octets in [256 * 1024, 1_000] {
            let options = FileOptions { buffer_octets, ..FileOptions::default() };
            let mut files = CaptureFiles::open(std::slice::from_ref(path), &options).unwrap();
            let frames = read_files(&mut files);
            let found = in_the_oracles_words(&frames, files.failures().first());
            assert_eq!(found, expected, "{}", path.display());
            assert_eq!(Some(files.octets_read()), files.octets_total());
        }
    }
}

#[test]
fn mutated_captures_end_where_the_oracle_ends_them() {
    let Some(shared) = shared() else { return };
    let folder = TempDir::new().unwrap();
    let mut random = Random(0x5EED_0001);
    let mut seeds = vec![pcapng_of_everything().0, pcap_of_both_lengths().0];
    for path in sorted_captures(&shared) {
        let octets = fs::read(path).unwrap();
        if octets.len() < 5_000 {
            seeds.push(octets);
        }
    }
    let mut paths = Vec::new();
    for number in 0..1_500 {
        let mut octets = seeds[random.below(seeds.len())].clone();
        mutate(&mut octets, &mut random);
        paths.push(written(&folder, &format!("{number:04}"), &octets));
    }
    for (path, expected) in paths.iter().zip(oracle(&shared, &paths)) {
        let octets = fs::read(path).unwrap();
        let (frames, failure) = read_octets(&octets);
        let found = in_the_oracles_words(&frames, failure.as_ref());
        assert_eq!(found, expected, "{octets:02x?}");
    }
}
