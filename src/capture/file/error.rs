//! What can be wrong with a capture file: in, what a parser or a decompressor met; out, a [`FileError`] that names file,
//! offset and reason.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::buffer::Buffer;
use super::pcapng::MOST_INTERFACES;
use super::{LONGEST_FRAME, STANDARD_INPUT};
use crate::capture::LinkType;
use crate::capture::filter::Refusal;

/// Why a capture file ended before its time; what was read before it stands.
#[derive(Debug)]
pub struct FileError {
    /// The file as it was named; `-` is standard input.
    pub path: PathBuf,
    /// Octets from the beginning to the record at fault, to where reading failed, or, if the filter was the reason, to
    /// the frame; none if the file never opened.
    pub offset: Option<u64>,
    /// Whether `offset` counts in the decompressed stream instead of in the file itself.
    pub decompressed: bool,
    /// What was wrong.
    pub reason: Reason,
}

/// What was wrong with a capture file.
#[derive(Debug, Error)]
pub enum Reason {
    /// The file could not be opened; among others, it does not exist.
    #[error("cannot be opened: {0}")]
    Open(io::Error),
    /// A directory in which no file is a capture.
    #[error("a directory without any capture")]
    NoCaptures,
    /// The operating system reported an error.
    #[error("reading failed: {0}")]
    Read(io::Error),
    /// The compressed stream is damaged or cut off.
    #[error("decompressing {format} failed: {cause}")]
    Decompress {
        /// The compression's name.
        format: &'static str,
        /// What the decompressor said.
        cause: io::Error,
    },
    /// The file is not the one that was opened before, or is shorter than it was.
    #[error("the file changed while it was being read: {0}")]
    Changed(&'static str),
    /// There is not one octet.
    #[error("empty, not a capture")]
    Empty,
    /// The first octets are those of no format known here.
    #[error("no capture: {}", kind(.0))]
    NotACapture(Vec<u8>),
    /// The file ends inside a header, record or block.
    #[error("{what} cut off: {needed} octets needed, {found} left")]
    CutOff {
        /// What was being read.
        what: &'static str,
        /// Its length in octets, as far as it is known.
        needed: u64,
        /// How many octets the file still had.
        found: u64,
    },
    /// A captured length past what any capture program writes.
    #[error("captured length {0}, at most {LONGEST_FRAME}")]
    CapturedLength(u32),
    /// A pcapng block too short for its own frame.
    #[error("block length {0}, at least 12")]
    BlockLength(u32),
    /// A pcapng block whose two lengths differ.
    #[error("block length {leading} at its beginning, {trailing} at its end")]
    BlockLengths {
        /// The length before the body.
        leading: u32,
        /// The length after the body.
        trailing: u32,
    },
    /// A pcapng block whose fields do not fit into it.
    #[error("{what} of {length} octets, {needed} needed for its fields")]
    Fields {
        /// The kind of block.
        what: &'static str,
        /// Its length in octets.
        length: u32,
        /// What its fields take, in octets.
        needed: u64,
    },
    /// More interface description blocks in a pcapng section than are kept; this is the number of the one at fault.
    #[error("interface description block number {0} of its section, at most {MOST_INTERFACES} are allowed")]
    TooManyInterfaces(usize),
    /// A packet block whose interface no block of its section describes.
    #[error("interface {found}, its section has described {described}")]
    Interface {
        /// The interface named.
        found: u32,
        /// How many interfaces there are.
        described: usize,
    },
    /// A section header whose byte-order magic is neither order's.
    #[error("section of unknown byte order: magic {}", Hexadecimal(.0))]
    ByteOrder([u8; 4]),
    /// The filter cannot be asked about frames of this link type.
    #[error("the filter cannot be compiled for link type {}: {refusal}", link_type.0)]
    Filter {
        /// The link type met.
        link_type: LinkType,
        /// What libpcap said.
        refusal: Refusal,
    },
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path == Path::new(STANDARD_INPUT) {
            write!(f, "standard input: ")?;
        } else {
            write!(f, "{}: ", self.path.display())?;
        }
        match self.offset {
            Some(offset) if self.decompressed => write!(f, "offset {offset} of the decompressed stream: ")?,
            Some(offset) => write!(f, "offset {offset}: ")?,
            None => {}
        }
        write!(f, "{}", self.reason)
    }
}

// The cause is part of the one line above: a source besides would print it twice.
impl std::error::Error for FileError {}

/// What a file is that is no capture, by its first octets, and what to do with it, if there is something.
fn kind(magic: &[u8]) -> String {
    let compressed = |by: &str, program: &str| {
        format!("{by} compressed, decompress it first ({program} -dc FILE | flowtap read -)")
    };
    match *magic {
        [0xFD, b'7', b'z', b'X', ..] => compressed("xz", "xz"),
        [b'B', b'Z', b'h', ..] => compressed("bzip2", "bzip2"),
        // Version 10 (RFC 7011 §3.1).
        [0, 10, ..] => "begins as IPFIX does, which `flowtap print FILE` shows".to_string(),
        _ => format!("begins with {}, neither pcap nor pcapng", Hexadecimal(magic)),
    }
}

struct Hexadecimal<'a>(&'a [u8]);

impl fmt::Display for Hexadecimal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, octet) in self.0.iter().enumerate() {
            write!(f, "{}{octet:02x}", if place == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}

/// Where a file ends for good, and why.
#[derive(Debug)]
pub(super) struct Damage {
    pub offset: u64,
    pub reason: Reason,
}

/// What stops a parser inside a record that it has begun.
#[derive(Debug)]
pub(super) enum Stop {
    /// Reading failed, at an offset of its own.
    Input(Damage),
    /// The stream ended; this many octets, counted from the record's beginning, were needed.
    CutOff { what: &'static str, needed: u64 },
    /// The record itself is at fault.
    Record(Reason),
}

impl From<Damage> for Stop {
    fn from(damage: Damage) -> Stop {
        Stop::Input(damage)
    }
}

impl From<Reason> for Stop {
    fn from(reason: Reason) -> Stop {
        Stop::Record(reason)
    }
}

impl Stop {
    /// The damage this is in the record that began at `offset`.
    pub fn in_record_at(self, offset: u64, buffer: &Buffer) -> Damage {
        let reason = match self {
            Stop::Input(damage) => return damage,
            Stop::CutOff { what, needed } => {
                Reason::CutOff { what, needed, found: buffer.end_offset().saturating_sub(offset) }
            }
            Stop::Record(reason) => reason,
        };
        Damage { offset, reason }
    }
}
