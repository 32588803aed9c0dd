//! Messages in, an IPFIX File out (RFC 5655 §7.2): one message after the other, nothing between them.
//!
//! The path is written to directly, so that `/dev/null` and named pipes work. Messages are written several at once, from
//! where they were made.

use std::fs;
use std::io::{self, IoSlice, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::export::message::Message;
use crate::export::transport::{Failure, Lost, NoSession, STREAM_LIMIT, Session, Transport};

/// Messages written at once: 256 KiB where they are full. On ext4 a write a message takes some 45 ns for the 112 octets of a
/// record, four at once 38, these 30.
const TOGETHER: usize = 16;

/// A file, a pipe or standard output.
pub struct File {
    file: fs::File,
    /// Where it stands, if it can be opened again.
    path: Option<PathBuf>,
    /// Messages that wait to be written, and behind them the room of others, which changes places with those that come.
    messages: [Message; TOGETHER],
    waiting: usize,
    is_standard_output: bool,
    /// Whether the session has begun.
    begun: bool,
    /// Whether a write failed. What was written may end inside a message, and nothing written after that could be read.
    broken: bool,
}

impl File {
    /// Creates a file, or opens a pipe or a device.
    ///
    /// # Errors
    ///
    /// As [`fs::File::create`].
    pub fn create(path: &Path) -> io::Result<File> {
        Ok(File { path: Some(path.to_owned()), ..File::over(fs::File::create(path)?) })
    }

    /// Writes to standard output.
    ///
    /// # Errors
    ///
    /// If standard output is closed.
    pub fn standard_output() -> io::Result<File> {
        // Not through `io::stdout`, which looks for line ends in what it is given.
        let file = fs::File::from(rustix::io::dup(rustix::stdio::stdout())?);
        Ok(File { is_standard_output: true, ..File::over(file) })
    }

    fn over(file: fs::File) -> File {
        File {
            file,
            path: None,
            messages: Default::default(),
            waiting: 0,
            is_standard_output: false,
            begun: false,
            broken: false,
        }
    }

    fn write_out(&mut self) -> io::Result<()> {
        let waiting = std::mem::take(&mut self.waiting);
        if waiting == 0 {
            return Ok(());
        }
        let written = write_all(&mut self.file, &self.messages[..waiting]);
        self.broken = written.is_err();
        written
    }
}

/// Writes all of up to [`TOGETHER`] messages.
fn write_all(file: &mut fs::File, messages: &[Message]) -> io::Result<()> {
    let mut left = [IoSlice::new(&[]); TOGETHER];
    for (slice, message) in left.iter_mut().zip(messages) {
        *slice = IoSlice::new(message.octets());
    }
    let mut left = &mut left[..messages.len()];
    while !left.is_empty() {
        match file.write_vectored(left) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut left, written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The file that now belongs at `path`, if `file` no longer stands there. What stands there is added to, never cut off:
/// rotation moves files and makes new, empty ones. A pipe or a device stays as it is.
///
/// # Errors
///
/// As [`fs::File::open`], for writing.
pub fn moved_away(file: &fs::File, path: &Path) -> io::Result<Option<fs::File>> {
    let now = file.metadata()?;
    if !now.is_file() {
        return Ok(None);
    }
    match fs::metadata(path) {
        Ok(there) if (there.dev(), there.ino()) == (now.dev(), now.ino()) => Ok(None),
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => fs::OpenOptions::new().append(true).create(true).open(path).map(Some),
    }
}

impl Transport for File {
    fn is_file(&self) -> bool {
        true
    }

    fn session(&mut self) -> Result<Session, NoSession> {
        Ok(match (self.broken, std::mem::replace(&mut self.begun, true)) {
            (true, _) => Session::Down,
            (false, false) => Session::New,
            (false, true) => Session::Same,
        })
    }

    fn limit(&self) -> usize {
        STREAM_LIMIT
    }

    fn forgets_templates(&self) -> bool {
        false
    }

    fn send(&mut self, message: &mut Message) -> Result<bool, Failure> {
        let full = self.waiting == TOGETHER;
        if full {
            self.write_out().map_err(|error| Failure { error, lost: Lost::Both })?;
        }
        std::mem::swap(&mut self.messages[self.waiting], message);
        self.waiting += 1;
        Ok(full)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.write_out()
    }

    fn reopen(&mut self) -> io::Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        if let Some(file) = moved_away(&self.file, path)? {
            (self.file, self.begun, self.broken) = (file, false, false);
        }
        Ok(())
    }

    fn close(&mut self) -> io::Result<()> {
        self.write_out()
    }

    fn ends_quietly(&self, error: &io::Error) -> bool {
        // `flowtap … --to ipfix+file:- | head`: the reader has what it wanted.
        self.is_standard_output && error.kind() == io::ErrorKind::BrokenPipe
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::testing::message;

    #[test]
    fn what_is_sent_is_in_the_file_in_order_and_nothing_else() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("a.ipfix");
        let mut file = File::create(&path).expect("a new file");
        assert_eq!(file.session().expect("a session"), Session::New);
        let mut expected = Vec::new();
        let mut written_before = 0;
        for number in 0..40_u8 {
            let octets = vec![number; 1_000 * usize::from(number % 7 + 1)];
            expected.extend_from_slice(&octets);
            let full = file.send(&mut message(&octets)).expect("a whole disk is not needed");
            written_before += usize::from(full);
            assert_eq!(file.session().expect("a session"), Session::Same);
        }
        file.close().expect("room for it");
        assert_eq!(fs::read(&path).expect("the file"), expected);
        assert_eq!(written_before, 2, "two times sixteen before the end");
    }

    #[test]
    fn a_full_disk_loses_what_was_held_back_and_all_that_follows() {
        let mut file = File::create(Path::new("/dev/full")).expect("a device");
        file.session().expect("a session");
        for number in 0..TOGETHER as u8 {
            assert!(!file.send(&mut message(&[number])).expect("held back"));
        }
        assert_eq!(file.send(&mut message(&[1])).expect_err("a full device").lost, Lost::Both);
        assert_eq!(file.session().expect("no attempt, no error"), Session::Down);
    }

    #[test]
    fn a_file_that_was_moved_away_is_made_anew_and_one_that_was_not_is_kept() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (path, old) = (directory.path().join("a.ipfix"), directory.path().join("a.ipfix.1"));
        let mut file = File::create(&path).expect("a new file");
        assert_eq!(file.session().expect("a session"), Session::New);
        file.send(&mut message(&[1])).expect("room");
        file.flush().expect("room");
        file.reopen().expect("nothing to do");
        assert_eq!(file.session().expect("a session"), Session::Same);
        fs::rename(&path, &old).expect("the same folder");
        file.reopen().expect("a new file");
        assert_eq!(file.session().expect("templates go first"), Session::New);
        file.send(&mut message(&[2])).expect("room");
        file.close().expect("room");
        assert_eq!(fs::read(&old).expect("the old file"), [1]);
        assert_eq!(fs::read(&path).expect("the new file"), [2]);
    }

    #[test]
    fn an_unwritable_path_is_an_error() {
        assert!(File::create(Path::new("/nowhere/at/all")).is_err());
    }
}
