//! SIGINT and SIGTERM: the first asks for an orderly end, a second one ends the process at once. SIGHUP asks for files to
//! be opened again, SIGUSR1 for a summary.

use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::flag;
use signal_hook::iterator::Signals;

/// Exit status after SIGINT: 128 + its number, as shells have it.
pub const INTERRUPTED: i32 = 130;

/// Whether an orderly end was asked for.
#[derive(Clone, Debug, Default)]
pub struct StopRequest {
    asked: Arc<AtomicBool>,
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
        }
        Ok(stop)
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
}

/// What a signal asks of a run that goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// SIGHUP: open files and the log again.
    Reopen,
    /// SIGUSR1: log a summary.
    Summary,
}

/// SIGHUP and SIGUSR1, caught from here on. Who waits before there is much to answer with looks at them; after that they have
/// a thread of their own: a reader that waits for a pipe could not look.
///
/// SIGHUP has two meanings. To a process without a terminal it is a request; to one that runs in a terminal it says that the
/// terminal is gone, and asks for an orderly end. A second one asks for no more: a shell and the kernel each send one.
#[derive(Debug)]
pub struct Requests {
    signals: Signals,
}

impl Requests {
    /// Catches the signals.
    ///
    /// # Errors
    /// When the handlers cannot be installed.
    pub fn on_signals(stop: &StopRequest) -> io::Result<Requests> {
        let in_terminal =
            io::stdin().is_terminal() || io::stdout().is_terminal() || io::stderr().is_terminal();
        let signals = if in_terminal {
            flag::register(SIGHUP, stop.flag())?;
            Signals::new([SIGUSR1])?
        } else {
            Signals::new([SIGHUP, SIGUSR1])?
        };
        Ok(Requests { signals })
    }

    /// Gives each request made since the last look to `answer`.
    pub fn look(&mut self, answer: impl FnMut(Request)) {
        self.signals.pending().map(request).for_each(answer);
    }

    /// Starts the thread, which gives each request to `answer`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn serve(mut self, answer: impl FnMut(Request) + Send + 'static) -> io::Result<()> {
        let serve = move || self.signals.forever().map(request).for_each(answer);
        thread::Builder::new().name("signals".to_string()).spawn(serve)?;
        Ok(())
    }
}

fn request(signal: i32) -> Request {
    match signal {
        SIGHUP => Request::Reopen,
        _ => Request::Summary,
    }
}
