//! What the tests of export share: expected records, collectors of our own and others' as processes, captures made on
//! the spot, and a reader of message headers and Sets that shares no code with flowtap.

#![allow(dead_code)] // each test file uses its part

pub mod capture;
pub mod process;
pub mod record;
pub mod sink;
pub mod wire;

use std::time::{Duration, Instant};

/// The longest any condition is waited for: only a run that fails takes so long.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Looks again and again whether something has come about; fails with `what` if it does not.
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "waited {PATIENCE:?} in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The words of a process, for messages.
pub fn words(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).into_owned()
}
