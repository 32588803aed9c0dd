//! FIFOs that records are written to: a path in; out, that it has a reader, so that opening it does not wait.

use std::fs::{self, File};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::thread;
use std::time::Duration;

/// How often a FIFO is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// If `path` is a FIFO, waits until it has a reader or `is_over`; gives the FIFO, which must be kept until it is opened:
/// a reader that finds no writer any more would leave, and if it leaves all the same, the opening does not wait for another.
/// After that it must go: writing would not fail for want of a reader as long as it is there.
///
/// Waiting for a reader in open(2) no signal would end: its handler only asks for the end, and the call goes on. Other
/// failures are left to the opening itself, which names them.
pub fn wait_for_reader(path: &Path, mut is_over: impl FnMut() -> bool) -> Option<File> {
    if !fs::metadata(path).is_ok_and(|there| there.file_type().is_fifo()) {
        return None;
    }
    while !is_over() {
        match File::options().write(true).custom_flags(libc::O_NONBLOCK).open(path) {
            // A reader, too (Linux allows it, where one may read it); with one that leaves, writing fails in good time.
            Ok(fifo) => return Some(File::options().read(true).write(true).open(path).unwrap_or(fifo)),
            // fifo(7): nobody has it open for reading.
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) => thread::sleep(LOOK_EVERY),
            Err(_) => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;
    use std::sync::mpsc::channel;

    #[test]
    fn a_reader_that_leaves_before_the_fifo_is_opened_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fifo");
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        let reader = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(&path).unwrap();
        let kept = wait_for_reader(&path, || false).expect("it has a reader");
        drop(reader);
        let (tell, told) = channel();
        thread::spawn(move || tell.send(File::create(path).is_ok()));
        assert_eq!(told.recv_timeout(Duration::from_secs(30)), Ok(true));
        drop(kept);
    }
}
