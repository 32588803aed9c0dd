//! Captures read back, a file a subject: [`captures`] writes them, and here is how they are read.

mod captures;
mod decompress;
mod filter;
mod input;
mod merge;
mod oracle;
mod pcap;
mod pcapng;
mod reader;

use std::fs;
use std::io::{self, Read};
use std::path::PathBuf;

use tempfile::TempDir;

use super::input::Input;
use super::reader::{Head, Reader};
use super::{CaptureFiles, FileError, FileOptions};
use crate::capture::Frame;

/// A frame, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Owned {
    nanos: u64,
    wire_length: u32,
    link_type: u16,
    interface: u32,
    data: Vec<u8>,
}

impl From<Frame<'_>> for Owned {
    fn from(frame: Frame<'_>) -> Owned {
        Owned {
            nanos: frame.timestamp.nanos(),
            wire_length: frame.wire_length,
            link_type: frame.link_type.0,
            interface: frame.interface,
            data: frame.data.to_vec(),
        }
    }
}

fn read_stream(stream: impl Read + Send + 'static, buffer_octets: usize) -> (Vec<Owned>, Option<FileError>) {
    let mut reader = Reader::new(Input::stream(stream), None, buffer_octets);
    let (mut frames, mut run) = (Vec::new(), [Head::NONE; 5]);
    while let Some(head) = reader.advance() {
        frames.push(head.frame(reader.octets()).into());
        let (end, beyond) = reader.gather(u64::MAX, &mut run, 0);
        assert!(beyond.is_none());
        frames.extend(run[..end].iter().map(|head| Owned::from(head.frame(reader.octets()))));
    }
    (frames, reader.finish())
}

fn read_octets(octets: &[u8]) -> (Vec<Owned>, Option<FileError>) {
    read_stream(io::Cursor::new(octets.to_vec()), 256 * 1024)
}

fn read_files(files: &mut CaptureFiles) -> Vec<Owned> {
    let mut frames = Vec::new();
    while let Some(run) = files.next_run() {
        frames.extend(run.map(Owned::from));
    }
    assert!(files.next_run().is_none(), "the end stays the end");
    frames
}

fn open(paths: &[PathBuf]) -> CaptureFiles {
    CaptureFiles::open(paths, &FileOptions::default()).unwrap()
}

fn read_paths(paths: &[PathBuf]) -> (Vec<Owned>, Vec<String>) {
    let mut files = open(paths);
    let frames = read_files(&mut files);
    (frames, files.failures().iter().map(FileError::to_string).collect())
}

fn written(folder: &TempDir, name: &str, octets: &[u8]) -> PathBuf {
    let path = folder.path().join(name);
    fs::write(&path, octets).unwrap();
    path
}

/// Gives `most` octets a read.
struct Short<R>(R, usize);

impl<R: Read> Read for Short<R> {
    fn read(&mut self, octets: &mut [u8]) -> io::Result<usize> {
        let most = octets.len().min(self.1);
        self.0.read(&mut octets[..most])
    }
}
