//! The log: where it goes, how a line looks there, and opening its file again.
//!
//! On standard error a line is `flowtap: LEVEL: WORDS`. The journal stamps and names each line itself, so there it is `<N>WORDS`
//! with a priority of syslog(3); a file has no other clock, so there a time stands first.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

use env_logger::Target;
use log::Level;

use crate::printable::printable;

/// What the user has asked for is logged whatever the level.
pub const SUMMARY: &str = "flowtap::summary";

/// The file, if there is one.
static FILE: OnceLock<LogFile> = OnceLock::new();

/// Where the log goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    StandardError,
    Journal,
    File,
}

#[derive(Clone)]
struct LogFile {
    path: PathBuf,
    file: Arc<Mutex<File>>,
}

impl LogFile {
    fn open(path: &Path) -> io::Result<File> {
        File::options().append(true).create(true).open(path)
    }
}

impl Write for LogFile {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.file.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).write(octets)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Starts the log: down to `level` unless `RUST_LOG` says otherwise, on standard error or in the file at `path`.
///
/// # Errors
/// When the file cannot be opened.
pub fn start(level: &str, path: Option<&Path>) -> io::Result<()> {
    let mut log = env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(level));
    log.filter_module(SUMMARY, log::LevelFilter::Info);
    let place = match path {
        Some(path) => {
            let file = LogFile { path: path.to_owned(), file: Arc::new(Mutex::new(LogFile::open(path)?)) };
            let _ = FILE.set(file.clone());
            log.target(Target::Pipe(Box::new(file)));
            Place::File
        }
        None if is_journal() => Place::Journal,
        None => Place::StandardError,
    };
    log.format(move |line, record| {
        if place == Place::File {
            let time = line.timestamp_millis();
            write!(line, "{time} ")?;
        }
        writeln!(line, "{}{}", prefix(place, record.level()), printable(&record.args().to_string()))
    });
    log.init();
    Ok(())
}

/// Whether errors that are logged are to be seen on standard error, where telling them again would be once too often.
pub fn errors_are_on_standard_error() -> bool {
    FILE.get().is_none() && log::log_enabled!(Level::Error)
}

/// Opens the file again at its path: it was moved away.
///
/// # Errors
/// When it cannot be opened; the old one stays in use.
pub fn reopen() -> io::Result<()> {
    if let Some(log) = FILE.get() {
        let file = LogFile::open(&log.path)?;
        *log.file.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = file;
    }
    Ok(())
}

/// What stands before an error that ends the run, which goes to standard error in any case.
pub fn error_prefix() -> String {
    prefix(if is_journal() { Place::Journal } else { Place::StandardError }, Level::Error)
        .replace("error: ", "")
}

fn prefix(place: Place, level: Level) -> String {
    let name = level.as_str().to_ascii_lowercase();
    match place {
        Place::StandardError => format!("flowtap: {name}: "),
        Place::File => format!("{name}: "),
        Place::Journal => {
            let priority = match level {
                Level::Error => 3,
                Level::Warn => 4,
                Level::Info => 6,
                Level::Debug | Level::Trace => 7,
            };
            format!("<{priority}>")
        }
    }
}

/// Whether standard error is the journal: its device and inode are the ones that `JOURNAL_STREAM` names (systemd.exec(5)).
/// The variable alone is inherited by shells whose standard error is something else.
fn is_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    let Some((device, inode)) = stream.split_once(':') else { return false };
    rustix::fs::fstat(io::stderr())
        .is_ok_and(|stat| device.parse() == Ok(stat.st_dev) && inode.parse() == Ok(stat.st_ino))
}
