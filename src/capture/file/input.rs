//! What a reader reads from: a file as it is, or decompressed, whichever its first octets call for.
//!
//! In: a path. Out: the octets of the capture, and what it takes to put one down and take it up again later.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::decompress::{Ahead, Compression, Decompressor, Permit};
use super::error::Reason;
use super::lookahead::{Identity, Lookahead};
use super::source::{Progress, Source};

/// Up to how much of a compressed file is decompressed anew rather than its decompressor kept in memory (some tens of
/// KiB for gzip, up to 128 MiB for zstd).
const CHEAP_TO_REPEAT: u64 = 256 * 1024;

enum State {
    Unopened,
    Plain(Source),
    Decompressing(Compression, Decompressor),
    DecompressingAhead(Compression, Ahead),
    /// To be decompressed anew, up to this offset for nothing.
    PutDown(u64),
    Closed,
    /// A stream that is no file.
    #[cfg(test)]
    Stream(Box<dyn Read + Send>),
}

/// The octets of one capture.
pub(super) struct Input {
    path: PathBuf,
    state: State,
    /// Octets of the file when the run began.
    length: u64,
    progress: Arc<Progress>,
    compressed: bool,
    /// Device and inode it had when it was first opened, if it is one that can be opened again.
    identity: Option<Identity>,
    lookahead: Lookahead,
    permit: Option<Permit>,
}

impl Input {
    /// `path`, to be opened when it is first read; `length` octets long as far as is known.
    pub fn new(path: PathBuf, length: u64, progress: Progress) -> Input {
        Input {
            path,
            state: State::Unopened,
            length,
            progress: Arc::new(progress),
            compressed: false,
            identity: None,
            lookahead: Lookahead::default(),
            permit: None,
        }
    }

    #[cfg(test)]
    pub fn stream(stream: impl Read + Send + 'static) -> Input {
        let progress = Progress::new(Arc::default(), Arc::default());
        Input { state: State::Stream(Box::new(stream)), ..Input::new(PathBuf::from("stream"), 0, progress) }
    }

    /// Has it share windows with the others that are given this one.
    pub fn looking_ahead(self, lookahead: Lookahead) -> Input {
        Input { lookahead, ..self }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it ended because reading was to end: it is no damage then.
    pub fn is_stopped(&self) -> bool {
        self.identity.is_none() && self.progress.is_stopped()
    }

    /// Whether its offsets count decompressed octets.
    pub fn is_compressed(&self) -> bool {
        self.compressed
    }

    /// Whether decompressing it on a thread of its own would help.
    pub fn could_go_ahead(&self) -> bool {
        let decompressing =
            matches!(self.state, State::Unopened | State::Decompressing(..) | State::PutDown(_));
        decompressing && self.permit.is_none()
    }

    /// Has it decompressed on a thread of its own, if it is compressed, from the next read on.
    pub fn go_ahead(&mut self, permit: Permit) {
        self.permit = Some(permit);
    }

    /// Reads some of what is next; 0 octets at the end.
    pub fn read(&mut self, octets: &mut [u8]) -> Result<usize, Reason> {
        loop {
            let (result, compression) = match &mut self.state {
                State::Unopened => {
                    self.state = self.opened()?;
                    continue;
                }
                State::PutDown(offset) => {
                    let offset = *offset;
                    self.state = self.taken_up(offset)?;
                    continue;
                }
                State::Decompressing(..) if self.permit.is_some() => {
                    self.move_ahead();
                    continue;
                }
                State::Plain(source) => (source.read(octets), None),
                State::Decompressing(compression, decompressor) => {
                    (decompressor.read(octets), Some(*compression))
                }
                State::DecompressingAhead(compression, ahead) => (ahead.read(octets), Some(*compression)),
                State::Closed => return Ok(0),
                #[cfg(test)]
                State::Stream(stream) => (stream.read(octets), None),
            };
            match result {
                Ok(read) => return Ok(read),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(compression, error)),
            }
        }
    }

    /// Whether it is a pipe, and not a compressed one: its decompressor may still have something, of which nothing is known here.
    pub fn is_stream(&self) -> bool {
        matches!(&self.state, State::Plain(source) if !source.reopens())
    }

    /// Whether it is such a pipe and had nothing to read for a tenth of a second.
    pub fn is_dry(&self) -> bool {
        matches!(&self.state, State::Plain(source) if source.is_dry())
    }

    /// Where in memory the `length` octets that are read next can be asked for, if they are a file's as they are.
    pub fn look_ahead(&self, length: usize) -> Option<usize> {
        let State::Plain(source) = &self.state else { return None };
        let (identity, file, position) = source.whereabouts()?;
        self.lookahead.address(identity, file, position, length)
    }

    fn look_ahead_no_more(&self) {
        if let Some(identity) = self.identity {
            self.lookahead.close(identity);
        }
    }

    fn opened(&mut self) -> Result<State, Reason> {
        let source = Source::open(&self.path, Arc::clone(&self.progress)).map_err(Reason::Open)?;
        if self.identity.is_some() && self.identity != source.identity() {
            return Err(Reason::Changed("another one has its name now"));
        }
        self.identity = source.identity();
        let Some(compression) = Compression::recognise(source.magic()) else {
            self.permit = None;
            return Ok(State::Plain(source));
        };
        self.compressed = true;
        let decompressor =
            Decompressor::new(compression, source).map_err(|cause| failed(Some(compression), cause))?;
        Ok(State::Decompressing(compression, decompressor))
    }

    fn taken_up(&mut self, offset: u64) -> Result<State, Reason> {
        let mut state = self.opened()?;
        let State::Decompressing(compression, decompressor) = &mut state else {
            return Err(Reason::Changed("it was compressed"));
        };
        let repeated = io::copy(&mut decompressor.take(offset), &mut io::sink());
        if repeated.map_err(|cause| failed(Some(*compression), cause))? < offset {
            return Err(Reason::Changed("it ends before what was read of it"));
        }
        Ok(state)
    }

    fn move_ahead(&mut self) {
        let state = std::mem::replace(&mut self.state, State::Closed);
        self.state = match (state, self.permit.take()) {
            (State::Decompressing(compression, decompressor), Some(permit)) => {
                match Ahead::spawn(decompressor, permit) {
                    Ok(ahead) => State::DecompressingAhead(compression, ahead),
                    Err(decompressor) => State::Decompressing(compression, decompressor),
                }
            }
            (state, _) => state,
        };
    }

    /// Closes the file until it is read again. `offset` is that of the next octet not yet consumed: true if reading
    /// will go on there, false if it goes on where it stands; none if it cannot be closed.
    pub fn park(&mut self, offset: u64) -> Option<bool> {
        match &mut self.state {
            State::Plain(source) if source.reopens() => {
                source.close(Some(offset));
                self.look_ahead_no_more();
                Some(true)
            }
            State::Decompressing(_, decompressor) => {
                let source = decompressor.source_mut();
                if !source.reopens() {
                    return None;
                }
                if offset <= CHEAP_TO_REPEAT {
                    self.state = State::PutDown(offset);
                    return Some(true);
                }
                source.close(None);
                Some(false)
            }
            _ => None,
        }
    }

    /// Closes the file for good; all of it counts as read.
    pub fn close(&mut self) {
        self.state = State::Closed;
        self.permit = None;
        self.look_ahead_no_more();
        self.progress.reach(self.length);
    }
}

fn failed(compression: Option<Compression>, cause: io::Error) -> Reason {
    match compression {
        Some(compression) => Reason::Decompress { format: compression.name(), cause },
        None => Reason::Read(cause),
    }
}
