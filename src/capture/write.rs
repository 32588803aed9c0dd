//! Frames in, a pcap file with nanoseconds out (draft-ietf-opsawg-pcap, section 4).
//!
//! One file for all capture threads, one link type for all frames. Each thread gathers the records of its frames in a
//! [`FrameLog`] and appends them whole, so that the threads wait for each other only for as long as a write takes.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use log::error;

use crate::capture::{Frame, LinkType};

/// Marks nanoseconds, in the byte order of the machine that writes.
const MAGIC_NANOSECONDS: u32 = 0xa1b2_3c4d;
/// Records are written when they come to so many octets, or when there are no more to come for now.
const WRITE_AT: usize = 256 << 10;

/// A file that frames are written to; clones are the same file.
#[derive(Clone, Debug)]
pub struct FrameFile {
    link_type: LinkType,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    file: File,
    failure: Option<String>,
}

impl FrameFile {
    /// Makes a file for frames of one link type, cut at `snaplen` octets.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn create(path: &Path, link_type: LinkType, snaplen: u32) -> io::Result<FrameFile> {
        let mut file = File::create(path)?;
        let mut header = Vec::with_capacity(24);
        header.extend(MAGIC_NANOSECONDS.to_ne_bytes());
        header.extend(2_u16.to_ne_bytes()); // version 2.4
        header.extend(4_u16.to_ne_bytes());
        header.extend([0; 8]);
        header.extend(snaplen.to_ne_bytes());
        header.extend(u32::from(link_type.0).to_ne_bytes());
        file.write_all(&header)?;
        let inner = Inner { path: path.to_path_buf(), file, failure: None };
        Ok(FrameFile { link_type, inner: Arc::new(Mutex::new(inner)) })
    }

    /// The link type of its frames.
    pub fn link_type(&self) -> LinkType {
        self.link_type
    }

    /// What went wrong first, after which nothing more was written.
    pub fn failure(&self) -> Option<String> {
        self.lock().failure.clone()
    }

    /// A log for one thread.
    pub fn log(&self) -> FrameLog {
        FrameLog { file: self.clone(), records: Vec::with_capacity(WRITE_AT + 4096) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // No step in there can leave it in pieces.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn fail(&mut self, reason: String) {
        if self.failure.is_none() {
            let words = format!("writing frames to {}: {reason}", self.path.display());
            error!("{words}; no more are written");
            self.failure = Some(words);
        }
    }
}

/// The frames of one thread on their way to the file.
#[derive(Debug)]
pub struct FrameLog {
    file: FrameFile,
    records: Vec<u8>,
}

impl FrameLog {
    /// Takes a frame.
    #[inline]
    pub fn push(&mut self, frame: &Frame<'_>) {
        if frame.link_type != self.file.link_type {
            return self.refuse(frame.link_type);
        }
        let nanos = frame.timestamp.nanos();
        // Seconds fit until 2106; a frame is never longer than its snaplen.
        for field in [
            (nanos / 1_000_000_000) as u32,
            (nanos % 1_000_000_000) as u32,
            frame.data.len() as u32,
            frame.wire_length,
        ] {
            self.records.extend_from_slice(&field.to_ne_bytes());
        }
        self.records.extend_from_slice(frame.data);
        if self.records.len() >= WRITE_AT {
            self.flush();
        }
    }

    /// Writes what has been taken.
    pub fn flush(&mut self) {
        if self.records.is_empty() {
            return;
        }
        let mut inner = self.file.lock();
        if inner.failure.is_none()
            && let Err(error) = inner.file.write_all(&self.records)
        {
            inner.fail(error.to_string());
        }
        drop(inner);
        self.records.clear();
    }

    #[cold]
    fn refuse(&mut self, found: LinkType) {
        self.flush();
        let wanted = self.file.link_type.0;
        self.file
            .lock()
            .fail(format!("an interface came back with link type {}, and the file's is {wanted}", found.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::file::{CaptureFiles, FileOptions};
    use crate::time::Timestamp;

    fn frame(nanos: u64, data: &[u8]) -> Frame<'_> {
        Frame {
            timestamp: Timestamp::from_nanos(nanos),
            wire_length: 1500,
            link_type: LinkType::ETHERNET,
            interface: 3,
            data,
        }
    }

    #[test]
    fn what_is_written_is_read_back_to_the_nanosecond() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.pcap");
        let file = FrameFile::create(&path, LinkType::ETHERNET, 256).unwrap();
        let (mut one, mut two) = (file.log(), file.log());
        one.push(&frame(1_700_000_000_123_456_789, &[1; 60]));
        two.push(&frame(5, &[2; 256]));
        one.flush();
        two.flush();
        assert_eq!(file.failure(), None);
        let mut files = CaptureFiles::open(&[path], &FileOptions::default()).unwrap();
        let mut read = Vec::new();
        while let Some(run) = files.next_run() {
            for frame in run {
                assert_eq!((frame.wire_length, frame.link_type), (1500, LinkType::ETHERNET));
                read.push((frame.timestamp.nanos(), frame.data.to_vec()));
            }
        }
        assert_eq!(read, [(1_700_000_000_123_456_789, vec![1; 60]), (5, vec![2; 256])]);
        assert!(files.failures().is_empty());
    }

    #[test]
    fn a_frame_of_another_link_type_ends_the_writing_and_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let file = FrameFile::create(&folder.path().join("a.pcap"), LinkType::RAW, 256).unwrap();
        file.log().push(&frame(5, &[2; 60]));
        assert!(file.failure().unwrap().contains("link type 1, and the file's is 101"));
    }

    #[test]
    fn a_full_disk_is_told_once() {
        let Ok(file) = FrameFile::create(Path::new("/dev/full"), LinkType::ETHERNET, 256) else { return };
        let mut log = file.log();
        for _ in 0..3 {
            log.push(&frame(5, &[2; 60]));
            log.flush();
        }
        assert!(file.failure().unwrap().contains("/dev/full"));
    }
}
