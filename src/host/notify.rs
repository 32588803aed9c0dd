//! What a service manager is told (sd_notify(3)): that capture runs, that it ends, and that no thread is stuck.
//!
//! In: `NOTIFY_SOCKET` and `WATCHDOG_USEC` of the environment. Out: datagrams. The socket is connected once, before the
//! rights are given away, and kept: a library that connects for each word would be refused by the sandbox, which is why this is
//! written here.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use log::warn;

/// The way to the service manager; without one, nothing is told.
#[derive(Debug, Default)]
pub struct Notify {
    socket: Option<UnixDatagram>,
    /// How often the watchdog wants to hear: half of what it waits (sd_watchdog_enabled(3)).
    ping: Option<Duration>,
    pinged: Mutex<Option<Instant>>,
}

impl Notify {
    /// The way that the environment names.
    ///
    /// # Errors
    /// When there is no such socket.
    pub fn from_environment() -> io::Result<Notify> {
        let Some(name) = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
            return Ok(Notify::default());
        };
        let address = match name.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            path => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(path))?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.connect_addr(&address)?;
        // A manager that does not read must not hold up capture.
        socket.set_nonblocking(true)?;
        let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let for_us = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let ping = number("WATCHDOG_USEC")
            .filter(|micros| for_us && *micros > 0)
            .map(|micros| Duration::from_micros(micros) / 2);
        Ok(Notify { socket: Some(socket), ping, pinged: Mutex::default() })
    }

    /// How often [`Notify::watchdog`] wants to be called; for ever if not at all.
    pub fn interval(&self) -> Duration {
        self.ping.unwrap_or(Duration::MAX)
    }

    /// Capture runs.
    pub fn ready(&self, words: &str) {
        self.tell(&format!("READY=1\nSTATUS={words}"));
    }

    /// The end has begun.
    pub fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=exporting what is live");
    }

    /// Pings when it is time and all is well.
    pub fn watchdog(&self, healthy: bool) {
        let Some(interval) = self.ping else { return };
        let mut pinged = self.pinged.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        // A little early: the next look may be a little late.
        let due = pinged.is_none_or(|at| at.elapsed() + interval / 10 >= interval);
        if healthy && due {
            *pinged = Some(Instant::now());
            self.tell("WATCHDOG=1");
        }
    }

    fn tell(&self, words: &str) {
        if let Some(Err(error)) = self.socket.as_ref().map(|socket| socket.send(words.as_bytes())) {
            warn!("telling the service manager {:?}: {error}", words.lines().next().unwrap_or_default());
        }
    }
}
