//! Where text goes: one buffer, written in large pieces, and what became of the records in it.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use log::{error, warn};

use super::TextError;
use crate::export::clock::last_done;
use crate::export::transport::file::moved_away;
use crate::export::{Delivery, Tally};
use crate::flow::FlowRecord;
use crate::time::Timestamp;

/// Text waits until this many octets are together: fewer system calls than a page at a time, and still in the cache.
const PIECE_OCTETS: usize = 256 * 1024;

/// How long text waits at most where records come slowly.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// A buffered text destination.
pub(crate) struct Output {
    writer: Option<Box<dyn Write + Send>>,
    /// A handle of the file and where it stood, if it can be opened again.
    place: Option<(File, PathBuf)>,
    name: String,
    buffer: Vec<u8>,
    waiting: Tally,
    last_flush: Option<Timestamp>,
    delivery: Delivery,
    failure: Option<String>,
    pipe_closed: Arc<AtomicBool>,
}

impl Output {
    /// Creates the file at `path`; `-` is standard output.
    pub(crate) fn open(path: &Path) -> Result<Output, TextError> {
        let cannot = |source| TextError::Create { path: path.to_owned(), source };
        if path == Path::new("-") {
            // The descriptor itself: `io::Stdout` would look for the last line end in every piece.
            let descriptor = io::stdout().as_fd().try_clone_to_owned().map_err(cannot)?;
            Ok(Output::to("standard output", Box::new(File::from(descriptor))))
        } else {
            let file = File::create(path).map_err(cannot)?;
            let place = Some((file.try_clone().map_err(cannot)?, path.to_owned()));
            Ok(Output { place, ..Output::to(path.display().to_string(), Box::new(file)) })
        }
    }

    /// Writes to `writer`, which a failure calls `name`.
    pub(crate) fn to(name: impl Into<String>, writer: Box<dyn Write + Send>) -> Output {
        Output {
            writer: Some(writer),
            place: None,
            name: name.into(),
            buffer: Vec::with_capacity(PIECE_OCTETS + 4096),
            waiting: Tally::default(),
            last_flush: None,
            delivery: Delivery::default(),
            failure: None,
            pipe_closed: Arc::new(AtomicBool::new(false)),
        }
    }

    /// Where the next text is put; what is in it is written with the next piece.
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    /// Appends the text of one record, made by `row`.
    #[inline]
    pub(crate) fn record(&mut self, record: &FlowRecord, row: impl FnOnce(&mut Vec<u8>)) {
        if self.writer.is_some() {
            row(&mut self.buffer);
            self.waiting.add(record);
            self.write_when_full();
        } else {
            self.delivery.lost.add(record);
        }
    }

    /// Appends the text of something that is not a Flow Record, made by `row`; it is counted as a record of nothing.
    pub(crate) fn line(&mut self, row: impl FnOnce(&mut Vec<u8>)) {
        if self.writer.is_some() {
            row(&mut self.buffer);
            self.waiting.records += 1;
            self.write_when_full();
        } else {
            self.delivery.lost.records += 1;
        }
    }

    /// Writes the buffer if a piece is together.
    #[inline]
    fn write_when_full(&mut self) {
        if self.buffer.len() >= PIECE_OCTETS {
            self.flush();
        }
    }

    /// Counts records that have no text of their own (they stand in sums).
    pub(crate) fn count(&mut self, records: Tally) {
        if self.writer.is_some() { self.waiting += records } else { self.delivery.lost += records }
    }

    /// Writes what has waited long enough.
    pub(crate) fn tick(&mut self, now: Timestamp) {
        let last = last_done(&mut self.last_flush, now);
        if now.since(last) >= LONGEST_WAIT {
            self.last_flush = Some(now);
            self.flush();
        }
    }

    /// Writes all that is in the buffer.
    pub(crate) fn flush(&mut self) {
        let written = match &mut self.writer {
            Some(writer) => writer.write_all(&self.buffer).and_then(|()| writer.flush()),
            None => Ok(()),
        };
        let waiting = std::mem::take(&mut self.waiting);
        match written {
            Ok(()) if self.writer.is_some() => {
                self.delivery.message_octets += self.buffer.len() as u64;
                self.delivery.sent += waiting;
            }
            // Part of the piece may have been written; no one can say which records that was, so all count as lost.
            Ok(()) => self.delivery.lost += waiting,
            Err(error) => {
                self.delivery.lost += waiting;
                self.writer = None;
                if error.kind() == ErrorKind::BrokenPipe {
                    self.pipe_closed.store(true, Ordering::Relaxed);
                } else {
                    let failure = format!("cannot write {}: {error}", self.name);
                    error!("{failure}");
                    self.failure = Some(failure);
                }
            }
        }
        self.buffer.clear();
    }

    /// Writes what is in the buffer and opens the file again if another one or none stands at its path. Gives whether the
    /// file written to from now on is a new and empty one.
    pub(crate) fn reopen(&mut self) -> bool {
        self.flush();
        let Some((file, path)) = &mut self.place else { return false };
        let opened = moved_away(file, path).and_then(|new| match new {
            Some(new) => Ok(Some((new.try_clone()?, new.metadata()?.len() == 0, new))),
            None => Ok(None),
        });
        match opened {
            Ok(Some((writer, empty, new))) => {
                *file = new;
                self.writer = Some(Box::new(writer));
                empty
            }
            Ok(None) => false,
            Err(error) => {
                warn!("opening {} again, the old file stays in use: {error}", self.name);
                false
            }
        }
    }

    /// Writes what is left and lets the destination go.
    pub(crate) fn close(&mut self) {
        self.flush();
        self.writer = None;
    }

    pub(crate) fn delivery(&self) -> Delivery {
        self.delivery
    }

    pub(crate) fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    pub(crate) fn pipe_closed(&self) -> Arc<AtomicBool> {
        self.pipe_closed.clone()
    }
}
