//! SIGINT and SIGTERM: the first asks for an orderly end, a second one ends the process at once.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// Exit status after SIGINT: 128 + its number, as shells have it.
pub const INTERRUPTED: i32 = 130;

/// Whether an orderly end was asked for, and by which signal.
#[derive(Clone, Debug, Default)]
pub struct StopRequest {
    asked: Arc<AtomicBool>,
    signal: Arc<AtomicUsize>,
}

impl StopRequest {
    /// A request that SIGINT and SIGTERM make.
    ///
    /// # Errors
    /// When the handlers cannot be installed.
    pub fn on_signals() -> io::Result<StopRequest> {
        let stop = StopRequest::default();
        for signal in [SIGINT, SIGTERM] {
            // Order matters: the second signal finds the flag set by the first.
            flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&stop.asked))?;
            flag::register(signal, Arc::clone(&stop.asked))?;
            flag::register_usize(signal, Arc::clone(&stop.signal), signal as usize)?;
        }
        Ok(stop)
    }

    /// Asks for an orderly end.
    pub fn ask(&self) {
        self.asked.store(true, Ordering::Relaxed);
    }

    /// The flag that is raised when an orderly end is asked for.
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.asked)
    }

    /// Whether an orderly end was asked for.
    #[inline]
    pub fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// Whether it was SIGINT that asked.
    pub fn by_interrupt(&self) -> bool {
        self.signal.load(Ordering::Relaxed) == SIGINT as usize
    }
}
