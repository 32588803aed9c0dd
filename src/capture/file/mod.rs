//! Capture files: in, paths of pcap and pcapng files, compressed or not, directories of them, and standard input; out,
//! their frames as one stream in order of time ([`CaptureFiles`]).
//!
//! The rule (it makes a run over rotated captures give the same records every time): the file whose next frame is
//! earliest always goes next, ties to the one named first, and within a file nothing is reordered. A file is read as
//! far as it is whole: damage ends that file with a [`FileError`], and the others go on.
//!
//! ```text
//! source ─► decompress ─► buffer ─► pcap, pcapng ─► reader ─► CaptureFiles
//!   └──────── input ────────┘
//!               └ lookahead
//! ```

mod buffer;
mod decompress;
mod error;
mod input;
mod lookahead;
mod pcap;
mod pcapng;
mod reader;
mod source;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

pub use error::{FileError, Reason};

use self::buffer::Octets;
use self::decompress::Permit;
use self::input::Input;
use self::lookahead::Lookahead;
pub use self::lookahead::UpcomingWindows;
#[cfg(all(test, target_os = "linux", target_arch = "x86_64"))]
pub(crate) use self::lookahead::tests::possible as can_look_ahead;
use self::reader::{Head, Reader};
use self::source::Progress;
use crate::capture::filter::{Filter, FilterError};
use crate::capture::{Frame, LinkType};

/// The longest frame a record may hold, in octets: the largest snaplen that libpcap allows (its MAXIMUM_SNAPLEN).
pub const LONGEST_FRAME: u32 = 262_144;

/// The path that means standard input.
const STANDARD_INPUT: &str = "-";

/// Files open at once, beyond streams; the usual limit of a process is 1,024 and the rest of it needs some.
const MOST_OPEN: usize = 200;

/// Frames gathered at once.
const RUN: usize = 64;

/// Threads that decompress at once.
const MOST_AHEAD: usize = 4;

/// How capture files are read.
#[derive(Clone, Debug)]
pub struct FileOptions {
    /// A filter expression in libpcap's language: frames that it does not match are counted, not given out.
    pub filter: Option<String>,
    /// Takes the place of [`Frame::interface`] in every frame.
    pub interface: Option<u32>,
    /// Octets read from a file at a time.
    pub buffer_octets: usize,
    /// Once this is set, a pipe that has nothing to read ends where it stands, and is not damaged for that.
    pub stop: Arc<AtomicBool>,
}

impl Default for FileOptions {
    fn default() -> FileOptions {
        FileOptions { filter: None, interface: None, buffer_octets: 128 * 1024, stop: Arc::default() }
    }
}

/// Capture files as one stream of frames, merged by time.
pub struct CaptureFiles {
    readers: Vec<Reader>,
    /// The reader whose turn it is.
    current: usize,
    /// It goes on as long as its next timestamp, in ns, lies below this: nobody else's turn comes before.
    bound: u64,
    /// Frames of the current reader whose turn has come, `end` of them, all in its buffer. Gathering them apart keeps
    /// parser, merge and filter out of the caller's loop.
    run: Box<[Head; RUN]>,
    end: usize,
    /// The current reader's frame behind the run, if another's turn comes before it.
    beyond: Option<Head>,
    /// The other readers that hold a frame, by its time and their place in the order of names.
    waiting: BinaryHeap<Reverse<(u64, usize)>>,
    /// The readers that hold an open file.
    open: Vec<usize>,
    begun: bool,
    filter: Option<Filter>,
    filtered: u64,
    /// Link types that the filter cannot be asked of, by reader.
    refused: HashSet<(usize, LinkType)>,
    failures: Vec<FileError>,
    notes: Vec<String>,
    octets_read: Arc<AtomicU64>,
    octets_total: Option<u64>,
    lookahead: Lookahead,
    ahead: Permit,
    most_ahead: usize,
    most_open: usize,
}

/// Frames that follow each other, borrowed from the buffer of the file they are in.
pub struct Run<'a> {
    heads: std::slice::Iter<'a, Head>,
    octets: Octets<'a>,
}

impl<'a> Iterator for Run<'a> {
    type Item = Frame<'a>;

    #[inline(always)]
    fn next(&mut self) -> Option<Frame<'a>> {
        let head = self.heads.next()?;
        self.octets.look_ahead(head.place, head.captured);
        Some(head.frame(self.octets))
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        self.heads.size_hint()
    }
}

impl ExactSizeIterator for Run<'_> {}

impl CaptureFiles {
    /// Takes up the captures named: files, directories of them, `-` for standard input. No file is read yet but the
    /// first octets of those in a directory; one that cannot be opened becomes a failure when its turn comes.
    ///
    /// # Errors
    ///
    /// A filter that libpcap does not compile.
    pub fn open(paths: &[PathBuf], options: &FileOptions) -> Result<CaptureFiles, FilterError> {
        let filter = options.filter.as_deref().map(Filter::new).transpose()?;
        let mut files = CaptureFiles {
            readers: Vec::new(),
            current: 0,
            bound: u64::MAX,
            run: Box::new([Head::NONE; RUN]),
            end: 0,
            beyond: None,
            waiting: BinaryHeap::new(),
            open: Vec::new(),
            begun: false,
            filter,
            filtered: 0,
            refused: HashSet::new(),
            failures: Vec::new(),
            notes: Vec::new(),
            octets_read: Arc::default(),
            octets_total: Some(0),
            lookahead: Lookahead::default(),
            ahead: Permit::default(),
            // On a single core a thread more only adds its switches.
            most_ahead: if std::thread::available_parallelism().is_ok_and(|cores| cores.get() > 1) {
                MOST_AHEAD
            } else {
                0
            },
            most_open: MOST_OPEN,
        };
        for path in paths {
            if path != Path::new(STANDARD_INPUT) && path.is_dir() {
                files.add_directory(path, options);
            } else {
                files.add(path.clone(), options);
            }
        }
        // Past any index: the first call of all takes the long way, which begins.
        files.current = files.readers.len();
        Ok(files)
    }

    fn add(&mut self, path: PathBuf, options: &FileOptions) {
        let mut length = 0;
        if path == Path::new(STANDARD_INPUT) {
            self.octets_total = None;
        } else if let Ok(metadata) = fs::metadata(&path) {
            if metadata.is_file() {
                length = metadata.len();
                self.octets_total = self.octets_total.map(|total| total.saturating_add(length));
            } else {
                self.octets_total = None;
            }
        }
        let progress = Progress::new(Arc::clone(&self.octets_read), Arc::clone(&options.stop));
        let input = Input::new(path, length, progress).looking_ahead(self.lookahead.clone());
        self.readers.push(Reader::new(input, options.interface, options.buffer_octets));
    }

    fn add_directory(&mut self, directory: &Path, options: &FileOptions) {
        let listed = fs::read_dir(directory)
            .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect());
        let mut paths: Vec<PathBuf> = match listed {
            Ok(paths) => paths,
            Err(error) => return self.fail(directory, Reason::Open(error)),
        };
        paths.sort();
        let (captures, others): (Vec<_>, Vec<_>) = paths.into_iter().partition(|path| may_be_capture(path));
        if captures.is_empty() {
            self.fail(directory, Reason::NoCaptures);
        }
        self.notes.extend(left_out(directory, "no capture", &others));
        for path in captures {
            self.add(path, options);
        }
    }

    fn fail(&mut self, path: &Path, reason: Reason) {
        self.failures.push(FileError { path: path.to_path_buf(), offset: None, decompressed: false, reason });
    }

    /// Part of the work of reading, for threads that have nothing else to do; without them it is done by who reads.
    pub fn upcoming(&self) -> UpcomingWindows {
        self.lookahead.upcoming()
    }

    /// The next frames, in order; none once all is read. Frames that the filter leaves out are counted and passed over; where it
    /// leaves out all and the next has to be waited for, a run is empty.
    #[inline]
    pub fn next_run(&mut self) -> Option<Run<'_>> {
        if !self.gather() {
            return None;
        }
        let reader = self.readers.get(self.current)?;
        Some(Run { heads: self.run[..self.end].iter(), octets: reader.octets() })
    }

    /// Whether the next frame has to be waited for: it comes by a pipe that had nothing to read for a tenth of a second. What was
    /// made of the frames so far may then go on its way.
    pub fn is_dry(&self) -> bool {
        self.may_wait() && self.readers[self.current].is_dry()
    }

    /// Whether the next frame may have to be waited for, as it comes by a pipe.
    pub fn may_wait(&self) -> bool {
        self.beyond.is_none() && self.readers.get(self.current).is_some_and(Reader::may_wait)
    }

    /// Gathers the next run; false once all is read.
    #[inline(never)]
    fn gather(&mut self) -> bool {
        loop {
            // The frames that need no reading: a pipe is not waited for while one is at hand.
            (self.end, self.beyond) = match (self.beyond.take(), self.readers.get_mut(self.current)) {
                (None, Some(reader)) => reader.gather(self.bound, &mut *self.run, 0),
                (beyond, _) => (0, beyond),
            };
            if self.end == 0 {
                let head = match self.beyond.take() {
                    Some(head) => self.turn(Some(head)),
                    None => match self.readers.get_mut(self.current).and_then(Reader::advance) {
                        Some(head) if head.timestamp.nanos() < self.bound => Some(head),
                        head => self.turn(head),
                    },
                };
                let Some(head) = head else { return false };
                self.run[0] = head;
                (self.end, self.beyond) = self.readers[self.current].gather(self.bound, &mut *self.run, 1);
            }
            if self.filter.is_some() {
                self.sift();
            }
            if self.end > 0 || self.may_wait() {
                return true;
            }
        }
    }

    /// Takes the frames that the filter does not match out of the run, and those of a link type that it cannot be asked of:
    /// these are a failure, one for each file and link type, and what is around them is read on.
    fn sift(&mut self) {
        let (Some(filter), Some(reader)) = (&mut self.filter, self.readers.get(self.current)) else {
            return;
        };
        let mut kept = 0;
        for place in 0..self.end {
            let head = self.run[place];
            let frame = head.frame(reader.octets());
            match filter.passes(frame.link_type, frame.wire_length, frame.data) {
                Ok(true) => {
                    self.run[kept] = head;
                    kept += 1;
                }
                Ok(false) => self.filtered += 1,
                Err(refusal) => {
                    self.filtered += 1;
                    if self.refused.insert((self.current, head.link_type)) {
                        let reason = Reason::Filter { link_type: head.link_type, refusal };
                        self.failures.push(reader.failure_at(&head, reason));
                    }
                }
            }
        }
        self.end = kept;
    }

    /// Hands the turn to the reader whose next frame is earliest, `head` being the current one's, if it has one.
    #[cold]
    #[inline(never)]
    fn turn(&mut self, head: Option<Head>) -> Option<Head> {
        if !self.begun {
            self.begun = true;
            return self.begin();
        }
        let next = match head {
            Some(head) => {
                let own = (head.timestamp.nanos(), self.current);
                self.readers[self.current].hold(head);
                // The first of those that wait changes places with the current one, if it is before it.
                match self.waiting.peek_mut() {
                    Some(mut first) if first.0 < own => std::mem::replace(&mut first.0, own),
                    _ => own,
                }
            }
            None => {
                self.finish(self.current);
                self.waiting.pop()?.0
            }
        };
        self.give_turn(next.1)
    }

    /// Reads the first frame of every file, which tells when its turn comes.
    fn begin(&mut self) -> Option<Head> {
        if self.readers.len() == 1 {
            self.current = 0;
            self.go_ahead();
            let head = self.readers[0].advance();
            if head.is_none() {
                self.finish(0);
            }
            return head;
        }
        for number in 0..self.readers.len() {
            let reader = &mut self.readers[number];
            match reader.advance() {
                Some(head) => {
                    reader.hold(head);
                    reader.park();
                    self.waiting.push(Reverse((head.timestamp.nanos(), number)));
                }
                None => self.finish(number),
            }
        }
        let Reverse((_, first)) = self.waiting.pop()?;
        self.give_turn(first)
    }

    fn give_turn(&mut self, number: usize) -> Option<Head> {
        self.current = number;
        self.bound = match self.waiting.peek() {
            Some(&Reverse((timestamp, other))) => timestamp + u64::from(number < other),
            None => u64::MAX,
        };
        if self.readers[number].is_parked() {
            self.open.push(number);
            self.park_others();
            self.go_ahead();
        }
        self.readers[number].release()
    }

    /// Closes files until no more than the most allowed are open. Of those that wait, the one whose turn comes last
    /// goes first: with more files than may be open taking turns, the one used longest ago would be the next needed.
    fn park_others(&mut self) {
        while self.open.len() > self.most_open {
            let others = self.open.iter().enumerate().filter(|&(_, &number)| number != self.current);
            let last = others.max_by_key(|&(_, &number)| (self.readers[number].waits_for(), number));
            let Some((place, &number)) = last else { return };
            // One that a thread is decompressing stays open and is no longer counted: those are few.
            self.readers[number].park();
            self.open.swap_remove(place);
        }
    }

    fn go_ahead(&mut self) {
        let input = self.readers[self.current].input_mut();
        if input.could_go_ahead() && Arc::strong_count(&self.ahead) <= self.most_ahead {
            input.go_ahead(Arc::clone(&self.ahead));
        }
    }

    fn finish(&mut self, number: usize) {
        if let Some(reader) = self.readers.get_mut(number) {
            self.failures.extend(reader.finish());
            self.open.retain(|&open| open != number);
        }
    }

    /// Frames that the filter left out so far.
    pub fn filtered(&self) -> u64 {
        self.filtered
    }

    /// What was wrong with files so far, in the order it was met.
    pub fn failures(&self) -> &[FileError] {
        &self.failures
    }

    /// What a user may want to know and is no failure: the files of a directory that are no captures.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Octets read from files so far, compressed ones counted as they are stored; a file that has ended counts whole.
    pub fn octets_read(&self) -> u64 {
        self.octets_read.load(Ordering::Relaxed)
    }

    /// Octets of all files as they are stored; none if one of them is a stream, whose length nobody knows.
    pub fn octets_total(&self) -> Option<u64> {
        self.octets_total
    }
}

/// What a user is told of the entries of a directory that are not read, as they are not of this `kind` or directories
/// themselves: a line each, which names the first few.
pub fn left_out(directory: &Path, kind: &str, others: &[PathBuf]) -> Vec<String> {
    const NAMED: usize = 5;
    let (directories, files): (Vec<&PathBuf>, Vec<&PathBuf>) = others.iter().partition(|path| path.is_dir());
    let line = |what: &str, paths: &[&PathBuf]| {
        let mut words: Vec<String> = paths
            .iter()
            .take(NAMED)
            .filter_map(|path| path.file_name())
            .map(|name| name.to_string_lossy().into_owned())
            .collect();
        if paths.len() > NAMED {
            words.push(format!("and {} more", paths.len() - NAMED));
        }
        format!("{}: {what}: {}", directory.display(), words.join(", "))
    };
    let lines = [(format!("left out what is {kind}"), files), ("not entered".to_string(), directories)];
    lines.iter().filter(|(_, paths)| !paths.is_empty()).map(|(what, paths)| line(what, paths)).collect()
}

/// Whether a directory's entry is to be read: its first octets, decompressed if need be, are those of a capture. One
/// that cannot be opened is to be, so that it is reported as a failure rather than passed over.
pub fn may_be_capture(path: &Path) -> bool {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => {}
        // Neither is a pipe opened, which could wait for its other end for ever, nor a directory entered.
        Ok(_) => return false,
        Err(_) => return true,
    }
    let mut input = Input::new(path.to_path_buf(), 0, Progress::new(Arc::default(), Arc::default()));
    let (mut magic, mut length) = ([0; 4], 0);
    while length < magic.len() {
        match input.read(&mut magic[length..]) {
            Ok(0) => return false,
            Ok(read) => length += read,
            Err(Reason::Open(_) | Reason::Read(_)) => return true,
            Err(_) => return false,
        }
    }
    magic == pcapng::SECTION_HEADER || pcap::recognise(magic).is_some()
}
