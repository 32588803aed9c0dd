//! What is named: a directory, a pipe, nothing, a file that changes while it is read; and the interface that is given with it.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::captures::{LITTLE, gzip, lz4, pcap_at, pcap_of_many, pcapng_of_everything};
use super::{open, read_files, read_paths, written};
use crate::capture::file::{CaptureFiles, FileError, FileOptions};

#[test]
fn a_directory_means_the_captures_in_it() {
    let folder = TempDir::new().unwrap();
    written(&folder, "b.pcap", &pcap_at(&[1], b'b'));
    written(&folder, "a.dump.gz", &gzip(&pcap_at(&[1], b'a')));
    written(&folder, "c", &pcapng_of_everything().0);
    written(&folder, "notes.txt", b"no capture");
    written(&folder, "empty.pcap", b"");
    written(&folder, "text.gz", &gzip(b"no capture"));
    fs::create_dir(folder.path().join("deeper")).unwrap();
    let mut files = open(&[folder.path().to_path_buf()]);
    let frames = read_files(&mut files);
    assert!(files.failures().is_empty(), "{:?}", files.failures());
    assert_eq!(frames.len(), 2 + pcapng_of_everything().1.len());
    let marks: Vec<_> = frames.iter().filter(|frame| frame.nanos == 1).map(|frame| frame.data[0]).collect();
    assert_eq!(marks, b"ab");
    let shown = folder.path().display();
    let note = format!("{shown}: left out what is no capture: empty.pcap, notes.txt, text.gz");
    assert_eq!(files.notes(), [note, format!("{shown}: not entered: deeper")]);

    let (_, failures) = read_paths(&[folder.path().join("deeper")]);
    assert_eq!(failures, [format!("{shown}/deeper: a directory without any capture")]);
}

#[test]
fn a_named_pipe_is_read_once_and_never_put_down() {
    let folder = TempDir::new().unwrap();
    for (name, compress) in
        [("plain", (|octets| octets.to_vec()) as fn(&[u8]) -> Vec<u8>), ("gz", gzip), ("lz4", lz4)]
    {
        let pipe = folder.path().join(format!("pipe.{name}"));
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let (file, expected) = pcap_of_many();
        let other = written(&folder, "other", &file);
        let octets = compress(&file);
        let writer = std::thread::spawn({
            let pipe = pipe.clone();
            move || fs::OpenOptions::new().write(true).open(pipe).unwrap().write_all(&octets).unwrap()
        });
        let mut files = CaptureFiles { most_open: 1, ..open(&[pipe, other]) };
        let frames = read_files(&mut files);
        writer.join().unwrap();
        assert!(files.failures().is_empty(), "{:?}", files.failures());
        assert_eq!(files.octets_total(), None);
        assert!(frames.iter().eq(expected.iter().flat_map(|frame| [frame, frame])));
    }
}

#[test]
fn nothing_named_gives_nothing() {
    let mut files = open(&[]);
    assert!(files.next_run().is_none());
    assert!(files.next_run().is_none());
    assert_eq!(files.octets_total(), Some(0));
}

#[test]
fn an_interface_given_takes_the_place_of_those_in_the_files() {
    let folder = TempDir::new().unwrap();
    let paths = [written(&folder, "a", &pcapng_of_everything().0), written(&folder, "b", &pcap_at(&[1], 0))];
    let options = FileOptions { interface: Some(42), ..FileOptions::default() };
    let mut files = CaptureFiles::open(&paths, &options).unwrap();
    assert!(read_files(&mut files).iter().all(|frame| frame.interface == 42));
}

#[test]
fn a_file_that_changes_while_others_have_their_turn_is_an_error() {
    let folder = TempDir::new().unwrap();
    let octets = pcap_at(&[1, 2, 3], b'a');
    for (name, change) in [
        (
            "replaced",
            Box::new(|path: &Path| fs::rename(path.with_extension("new"), path).unwrap())
                as Box<dyn Fn(&Path)>,
        ),
        (
            "shorter",
            Box::new(|path: &Path| {
                fs::OpenOptions::new().write(true).open(path).unwrap().set_len(30).unwrap()
            }),
        ),
        ("gone", Box::new(|path: &Path| fs::remove_file(path).unwrap())),
    ] {
        for compress in [(|octets| octets.to_vec()) as fn(&[u8]) -> Vec<u8>, gzip] {
            let path = written(&folder, name, &compress(&octets));
            written(&folder, &format!("{name}.new"), &compress(&octets));
            let first = written(&folder, "first", &pcap_at(&[0], b'f'));
            let mut files = open(&[path.clone(), first]);
            let times = |files: &mut CaptureFiles| -> Vec<u64> {
                files.next_run().unwrap().map(|frame| frame.timestamp.nanos()).collect()
            };
            assert_eq!(times(&mut files), [0]);
            change(&path);
            // The frame read before is still there.
            assert_eq!(times(&mut files), [1]);
            assert!(files.next_run().is_none());
            assert_eq!(files.failures().len(), 1, "{name}");
        }
    }
}

#[test]
fn a_file_cut_off_while_it_is_read_gives_what_was_read_and_ends() {
    // Long enough to be looked ahead in, and frames of one line, of a few and of many.
    let data: Vec<u8> = (0..5_000u32).map(|at| at as u8).collect();
    let mut octets = LITTLE.pcap_header(0xA1B2_3C4D, 1);
    let mut written_frames = Vec::new();
    for number in 0..30_000u32 {
        let data = &data[..[60, 300, 1_500, 0, 5_000][number as usize % 5]];
        octets.extend(LITTLE.record(number, 0, 60, data));
        written_frames.push((u64::from(number) * 1_000_000_000, data));
    }
    let folder = TempDir::new().unwrap();
    for (left, frames_read) in [(octets.len(), 0), (octets.len() / 2, 10_000), (0, 10_000), (0, 1)] {
        let path = written(&folder, "cut.pcap", &octets);
        let mut files = open(std::slice::from_ref(&path));
        let (mut read, mut cut) = (0, false);
        while let Some(run) = files.next_run() {
            for frame in run {
                // Whatever becomes of the file: what is given out is what was in it.
                let (nanos, data) = written_frames[read];
                assert!(frame.timestamp.nanos() == nanos && frame.data == data, "frame {read}");
                read += 1;
            }
            if read >= frames_read && !cut {
                cut = true;
                fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(left as u64).unwrap();
            }
        }
        assert_eq!(read == written_frames.len(), left == octets.len(), "cut to {left} octets");
        assert!(read >= frames_read);
        let failures: Vec<_> = files.failures().iter().map(FileError::to_string).collect();
        assert!(failures.iter().all(|failure| failure.contains("packet record cut off")), "{failures:?}");
    }
}
