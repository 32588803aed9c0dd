//! Frames in, a file with nanoseconds out: pcap (draft-ietf-opsawg-pcap, section 4), which has one link type, or pcapng
//! (draft-ietf-opsawg-pcapng, section 4), which has one for each interface.
//!
//! Where the path is `-` that is standard output, in pcap, for a program that reads captures from a pipe.
//!
//! One file for all capture threads. Each thread gathers the records of its frames in a [`FrameLog`] and appends them
//! whole, so that the threads wait for each other only for as long as a write takes.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use log::error;

use crate::capture::{Frame, LinkType};
use crate::export::destination::STANDARD_OUTPUT;

/// Marks nanoseconds, in the byte order of the machine that writes.
const MAGIC_NANOSECONDS: u32 = 0xa1b2_3c4d;
/// Marks the byte order of a pcapng section.
const MAGIC_SECTION: u32 = 0x1a2b_3c4d;

/// Block types of pcapng.
mod block {
    pub const SECTION_HEADER: u32 = 0x0a0d_0d0a;
    pub const INTERFACE_DESCRIPTION: u32 = 1;
    pub const ENHANCED_PACKET: u32 = 6;
}

/// Options of an Interface Description Block.
mod option {
    pub const END: u16 = 0;
    pub const NAME: u16 = 2;
    /// Units of a timestamp: ten to the power of minus this.
    pub const TIME_RESOLUTION: u16 = 9;
}

/// Records are written when they come to so many octets, or when there are no more to come for now.
const WRITE_AT: usize = 256 << 10;

/// A file that frames are written to; clones are the same file.
#[derive(Clone, Debug)]
pub struct FrameFile {
    /// Names and link types.
    interfaces: Arc<[(String, LinkType)]>,
    form: Form,
    inner: Arc<Mutex<Inner>>,
}

/// How frames are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Pcap,
    Pcapng,
}

#[derive(Debug)]
struct Inner {
    /// The path, or what stands for it.
    name: String,
    file: File,
    failure: Option<String>,
}

impl FrameFile {
    /// Whether a file of this name may hold several link types: one whose name ends in `.pcapng`.
    pub fn takes_link_types(path: &Path) -> bool {
        path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("pcapng"))
    }

    /// Makes a file, or takes standard output, for frames of these interfaces, named and with their link types, cut at
    /// `snaplen` octets. Where the file does not take several link types, the first one's counts.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn create(path: &Path, interfaces: &[(&str, LinkType)], snaplen: u32) -> io::Result<FrameFile> {
        let form = if FrameFile::takes_link_types(path) { Form::Pcapng } else { Form::Pcap };
        let header = match form {
            Form::Pcap => pcap_header(interfaces.first().map_or(LinkType::ETHERNET, |one| one.1), snaplen),
            Form::Pcapng => pcapng_header(interfaces, snaplen),
        };
        let (name, mut file) = if path == Path::new(STANDARD_OUTPUT) {
            // The descriptor itself: `io::Stdout` would look for line ends.
            ("standard output".to_string(), File::from(io::stdout().as_fd().try_clone_to_owned()?))
        } else {
            (path.display().to_string(), File::create(path)?)
        };
        file.write_all(&header)?;
        let inner = Inner { name, file, failure: None };
        let interfaces =
            interfaces.iter().map(|(name, link_type)| ((*name).to_string(), *link_type)).collect();
        Ok(FrameFile { interfaces, form, inner: Arc::new(Mutex::new(inner)) })
    }

    /// What went wrong first, after which nothing more was written.
    pub fn failure(&self) -> Option<String> {
        self.lock().failure.clone()
    }

    /// A log for one thread, which captures on this one of the file's interfaces.
    pub fn log(&self, interface: &str) -> FrameLog {
        let number = self.interfaces.iter().position(|(name, _)| name == interface);
        let number = number.expect("one of those that the file was made for");
        FrameLog {
            link_type: self.interfaces[number].1,
            interface: number as u32,
            file: self.clone(),
            records: Vec::with_capacity(WRITE_AT + 4096),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // No step in there can leave it in pieces.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn pcap_header(link_type: LinkType, snaplen: u32) -> Vec<u8> {
    let mut header = Vec::with_capacity(24);
    header.extend(MAGIC_NANOSECONDS.to_ne_bytes());
    header.extend(2_u16.to_ne_bytes()); // version 2.4
    header.extend(4_u16.to_ne_bytes());
    header.extend([0; 8]);
    header.extend(snaplen.to_ne_bytes());
    header.extend(u32::from(link_type.0).to_ne_bytes());
    header
}

fn pcapng_header(interfaces: &[(&str, LinkType)], snaplen: u32) -> Vec<u8> {
    let mut header = Vec::new();
    push_block(&mut header, block::SECTION_HEADER, |body| {
        body.extend(MAGIC_SECTION.to_ne_bytes());
        body.extend(1_u16.to_ne_bytes()); // version 1.0
        body.extend(0_u16.to_ne_bytes());
        body.extend(u64::MAX.to_ne_bytes()); // the section's length is not given
    });
    for (name, link_type) in interfaces {
        push_block(&mut header, block::INTERFACE_DESCRIPTION, |body| {
            body.extend(link_type.0.to_ne_bytes());
            body.extend(0_u16.to_ne_bytes());
            body.extend(snaplen.to_ne_bytes());
            for (code, value) in
                [(option::NAME, name.as_bytes()), (option::TIME_RESOLUTION, &[9]), (option::END, &[])]
            {
                body.extend(code.to_ne_bytes());
                body.extend((value.len() as u16).to_ne_bytes());
                push_padded(body, value);
            }
        });
    }
    header
}

/// Writes a block whose body is what `write` writes: whole words.
#[inline]
fn push_block(octets: &mut Vec<u8>, kind: u32, write: impl FnOnce(&mut Vec<u8>)) {
    let start = octets.len();
    octets.extend_from_slice(&kind.to_ne_bytes());
    octets.extend_from_slice(&[0; 4]);
    write(octets);
    let length = (octets.len() - start + size_of::<u32>()) as u32;
    octets[start + 4..start + 8].copy_from_slice(&length.to_ne_bytes());
    octets.extend_from_slice(&length.to_ne_bytes());
}

#[inline]
fn push_words<const N: usize>(octets: &mut Vec<u8>, words: [u32; N]) {
    for word in words {
        octets.extend_from_slice(&word.to_ne_bytes());
    }
}

/// Writes octets and as many zeros as make whole words of them.
#[inline]
fn push_padded(octets: &mut Vec<u8>, value: &[u8]) {
    octets.extend_from_slice(value);
    octets.resize(octets.len() + value.len().wrapping_neg() % 4, 0);
}

impl Inner {
    fn fail(&mut self, reason: String) {
        if self.failure.is_none() {
            let words = format!("writing frames to {}: {reason}", self.name);
            error!("{words}; no more are written");
            self.failure = Some(words);
        }
    }
}

/// The frames of one thread on their way to the file.
#[derive(Debug)]
pub struct FrameLog {
    file: FrameFile,
    interface: u32,
    link_type: LinkType,
    records: Vec<u8>,
}

impl FrameLog {
    /// Takes a frame.
    #[inline]
    pub fn push(&mut self, frame: &Frame<'_>) {
        if frame.link_type != self.link_type {
            return self.refuse(frame.link_type);
        }
        let nanos = frame.timestamp.nanos();
        // A frame is never longer than its snaplen.
        let (captured, wire) = (frame.data.len() as u32, frame.wire_length);
        match self.file.form {
            Form::Pcap => {
                // Seconds fit until 2106.
                let (seconds, rest) = ((nanos / 1_000_000_000) as u32, (nanos % 1_000_000_000) as u32);
                push_words(&mut self.records, [seconds, rest, captured, wire]);
                self.records.extend_from_slice(frame.data);
            }
            Form::Pcapng => push_block(&mut self.records, block::ENHANCED_PACKET, |body| {
                push_words(body, [self.interface, (nanos >> 32) as u32, nanos as u32, captured, wire]);
                push_padded(body, frame.data);
            }),
        }
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
        let wanted = self.link_type.0;
        self.file.lock().fail(format!(
            "an interface came back with link type {}, and in the file it has {wanted}",
            found.0
        ));
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
        let file = FrameFile::create(&path, &[("eth0", LinkType::ETHERNET)], 256).unwrap();
        let (mut one, mut two) = (file.log("eth0"), file.log("eth0"));
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
        let path = folder.path().join("a.pcap");
        let file = FrameFile::create(&path, &[("tun0", LinkType::RAW)], 256).unwrap();
        file.log("tun0").push(&frame(5, &[2; 60]));
        assert!(file.failure().unwrap().contains("link type 1, and in the file it has 101"));
    }

    #[test]
    fn pcapng_keeps_the_link_type_of_each_interface() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.pcapng");
        let interfaces = [("tun0", LinkType::RAW), ("eth0", LinkType::ETHERNET)];
        let file = FrameFile::create(&path, &interfaces, 256).unwrap();
        let (mut tun, mut eth) = (file.log("tun0"), file.log("eth0"));
        // A time above 32 bits, and data that fill no whole words.
        eth.push(&frame(1_700_000_000_123_456_789, &[1; 61]));
        tun.push(&Frame { link_type: LinkType::RAW, ..frame(5, &[2; 256]) });
        eth.flush();
        tun.flush();
        assert_eq!(file.failure(), None);
        let mut files = CaptureFiles::open(std::slice::from_ref(&path), &FileOptions::default()).unwrap();
        let mut read = Vec::new();
        while let Some(run) = files.next_run() {
            for frame in run {
                read.push((frame.timestamp.nanos(), frame.link_type, frame.wire_length, frame.data.to_vec()));
            }
        }
        assert_eq!(
            read,
            [
                (1_700_000_000_123_456_789, LinkType::ETHERNET, 1500, vec![1; 61]),
                (5, LinkType::RAW, 1500, vec![2; 256])
            ]
        );
        assert!(files.failures().is_empty());
        // By hand, as this machine's words lie: of the first interface, its name, the resolution, the end.
        let words: Vec<u32> = std::fs::read(&path)
            .unwrap()
            .chunks(4)
            .map(|word| u32::from_ne_bytes(word.try_into().unwrap()))
            .collect();
        if cfg!(target_endian = "little") {
            assert_eq!(words[..7], [0x0a0d_0d0a, 28, 0x1a2b_3c4d, 1, u32::MAX, u32::MAX, 28]);
            let name = u32::from_le_bytes(*b"tun0");
            assert_eq!(words[7..17], [1, 40, 101, 256, 2 | 4 << 16, name, 9 | 1 << 16, 9, 0, 40]);
            // The first frame: 61 octets in 16 words.
            assert_eq!(words[27..34], [6, 96, 1, 395_812_094, 1_032_178_965, 61, 1500]);
        }
    }

    #[test]
    fn a_disk_that_is_full_is_told_and_nothing_is_written_after_it() {
        let full = Path::new("/dev/full");
        assert!(FrameFile::create(full, &[("eth0", LinkType::ETHERNET)], 256).is_err());
        // One that fills up after the header, and has room again later.
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.pcap");
        let file = FrameFile::create(&path, &[("eth0", LinkType::ETHERNET)], 256).unwrap();
        let with_room = std::mem::replace(&mut file.lock().file, File::create(full).unwrap());
        let mut log = file.log("eth0");
        log.push(&frame(5, &[2; 60]));
        log.flush();
        let failure = file.failure().expect("it is kept");
        assert!(failure.contains(&path.display().to_string()), "{failure}");
        file.lock().file = with_room;
        log.push(&frame(6, &[2; 60]));
        log.flush();
        assert_eq!(std::fs::read(&path).unwrap().len(), 24, "a hole would not be seen");
        assert_eq!(file.failure(), Some(failure));
    }
}
