//! The octets of a file as they lie on disk or come through a pipe: in, a path; out, a `Read` that counts what it
//! gives for a progress bar, and that can close a regular file and go on later where it stood.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::STANDARD_INPUT;
use super::lookahead::Identity;

/// How much of a file has been read, seen from outside the thread that reads it.
#[derive(Debug)]
pub(super) struct Progress {
    /// Octets of this file so far; reading a stretch again does not count.
    file: AtomicU64,
    /// Octets of all files so far.
    total: Arc<AtomicU64>,
    /// Set from outside: what is waited for then ends where it stands.
    stop: Arc<AtomicBool>,
}

impl Progress {
    pub fn new(total: Arc<AtomicU64>, stop: Arc<AtomicBool>) -> Progress {
        Progress { file: AtomicU64::new(0), total, stop }
    }

    /// Whether reading is to end.
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// The file has been read up to `position`.
    pub fn reach(&self, position: u64) {
        // A thread that reads ahead may still run while the reader, done with the file, counts all of it.
        let before = self.file.fetch_max(position, Ordering::Relaxed);
        if position > before {
            self.total.fetch_add(position - before, Ordering::Relaxed);
        }
    }
}

/// Octets that tell formats and compressions apart.
const MAGIC: usize = 4;
/// How long a pipe is waited for before a look at whether to go on.
const WAIT: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// Waits until there is something to read, its end included, but no longer than [`WAIT`]; false if there is not. What cannot
/// be polled always has something.
fn has_something(file: &File) -> bool {
    !matches!(poll(&mut [PollFd::new(file, PollFlags::IN)], Some(&WAIT)), Ok(0) | Err(Errno::INTR))
}

/// Opens a file. A FIFO is opened whether it has a writer or not: waiting for one in open(2) no signal would end, waiting
/// for what it writes is [`read_stream`]'s.
fn open(path: &Path) -> io::Result<File> {
    if !fs::metadata(path)?.file_type().is_fifo() {
        return File::open(path);
    }
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    rustix::io::ioctl_fionbio(&file, false)?;
    Ok(file)
}

/// Reads from what may keep its reader waiting: 0 octets at its end, or once reading is to end.
fn read_stream(file: &mut File, octets: &mut [u8], progress: &Progress) -> io::Result<usize> {
    // A signal does not end a read that waits, so the waiting is done here.
    loop {
        let is_ready = has_something(file);
        if progress.is_stopped() {
            return Ok(0);
        }
        if is_ready {
            return file.read(octets);
        }
    }
}

/// What a path leads to, opened for reading.
pub(super) struct Source {
    path: PathBuf,
    file: Option<File>,
    /// Device and inode of a regular file; none for what can be read only once.
    identity: Option<Identity>,
    position: u64,
    /// The file's first octets, read ahead to tell what it is.
    magic: [u8; MAGIC],
    magic_length: usize,
    progress: Arc<Progress>,
}

impl Source {
    /// Opens `path`, `-` being standard input, and reads its first octets.
    pub fn open(path: &Path, progress: Arc<Progress>) -> io::Result<Source> {
        let mut file = if path == Path::new(STANDARD_INPUT) {
            File::from(io::stdin().as_fd().try_clone_to_owned()?)
        } else {
            open(path)?
        };
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        // Standard input may be a regular file and still not be opened again: it has no name.
        let reopens = metadata.is_file() && path != Path::new(STANDARD_INPUT);
        let identity = reopens.then(|| (metadata.dev(), metadata.ino()));
        let (mut magic, mut magic_length) = ([0; MAGIC], 0);
        while magic_length < MAGIC {
            let rest = &mut magic[magic_length..];
            let read = if reopens { file.read(rest) } else { read_stream(&mut file, rest, &progress) };
            match read {
                Ok(0) => break,
                Ok(read) => magic_length += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Source {
            path: path.to_path_buf(),
            file: Some(file),
            identity,
            position: 0,
            magic,
            magic_length,
            progress,
        })
    }

    /// The first octets, fewer than 4 if the file has no more.
    pub fn magic(&self) -> &[u8] {
        &self.magic[..self.magic_length]
    }

    /// Device and inode of a regular file; none for what can be read only once.
    pub fn identity(&self) -> Option<Identity> {
        self.identity
    }

    /// Whether the file can be closed and read on later.
    pub fn reopens(&self) -> bool {
        self.identity.is_some()
    }

    /// Whether a pipe had nothing to read for [`WAIT`].
    pub fn is_dry(&self) -> bool {
        let may_wait = self.identity.is_none() && self.position >= self.magic_length as u64;
        may_wait && self.file.as_ref().is_some_and(|file| !has_something(file))
    }

    /// Closes the file until the next read, which goes on at `position` or, by default, where the last one ended.
    pub fn close(&mut self, position: Option<u64>) {
        self.position = position.unwrap_or(self.position);
        self.file = None;
    }

    /// The open file, what it is, and where in it the octet is that is read next; none of what can be read only once,
    /// which has no such place.
    pub fn whereabouts(&self) -> Option<(Identity, &File, u64)> {
        Some((self.identity?, self.file.as_ref()?, self.position))
    }

    fn reopened(&self) -> io::Result<File> {
        let changed =
            |what: &str| io::Error::other(format!("the file changed while it was being read: {what}"));
        let mut file = File::open(&self.path)?;
        let metadata = file.metadata()?;
        if self.identity != Some((metadata.dev(), metadata.ino())) {
            return Err(changed("another one has its name now"));
        }
        let position = self.position.max(self.magic_length as u64);
        if metadata.len() < position {
            return Err(changed(&format!("{} octets long, {position} were read", metadata.len())));
        }
        file.seek(SeekFrom::Start(position))?;
        Ok(file)
    }
}

impl Read for Source {
    fn read(&mut self, octets: &mut [u8]) -> io::Result<usize> {
        let known =
            usize::try_from(self.position).ok().and_then(|at| self.magic().get(at..)).unwrap_or_default();
        let read = if !known.is_empty() {
            let read = known.len().min(octets.len());
            octets[..read].copy_from_slice(&known[..read]);
            read
        } else {
            let file = match &mut self.file {
                Some(file) => file,
                None => {
                    let file = self.reopened()?;
                    self.file.insert(file)
                }
            };
            match self.identity {
                Some(_) => file.read(octets)?,
                None => read_stream(file, octets, &self.progress)?,
            }
        };
        self.position += read as u64;
        self.progress.reach(self.position);
        Ok(read)
    }
}
