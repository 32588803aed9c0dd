//! Messages in, octets on a network or in a file out: the transports of RFC 7011 §10 and RFC 5655.

pub mod file;
pub mod tcp;
pub mod udp;

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::{Duration, Instant};

use crate::export::Endpoint;
use crate::export::message::Message;

/// The longest message on a stream. Less than the 65,535 octets a message may have (RFC 7011 §3.1), so that little is lost
/// where one is cut; a longer one saves nothing worth having.
const STREAM_LIMIT: usize = 16 * 1024;

/// How long a collector's refusal may take: it is waited for after the last message of all.
const REFUSAL_WAIT: Duration = Duration::from_millis(200);

/// Whether there is a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Session {
    /// The one of the last call.
    Same,
    /// One that began with this call.
    New,
    /// None, and it is not yet time to try again.
    Down,
}

/// Why there is no session.
#[derive(Debug)]
pub enum NoSession {
    /// An attempt was made and failed; until the next one, [`Session::Down`].
    NotBegun(io::Error),
    /// The collector ended it in order, and it is not yet time to begin another.
    Ended(io::Error),
    /// It broke off, and what was sent since the transport last vouched for it is lost. The next call may begin another.
    Broken(io::Error),
}

impl From<io::Error> for NoSession {
    fn from(error: io::Error) -> NoSession {
        NoSession::NotBegun(error)
    }
}

/// A message was not sent as it should.
#[derive(Debug)]
pub struct Failure {
    /// Why.
    pub error: io::Error,
    /// What is lost by it.
    pub lost: Lost,
}

/// What a failure loses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// The message given.
    This,
    /// What was sent since the transport last vouched for it, but not the message given.
    Earlier,
    /// The message given, and what was sent since the transport last vouched for it.
    Both,
}

/// One way to a collector or into a file.
pub trait Transport: Send {
    /// Begins a session if there is none and one is due.
    ///
    /// # Errors
    ///
    /// If there is none, and that is news.
    fn session(&mut self) -> Result<Session, NoSession>;

    /// The longest message, in octets.
    fn limit(&self) -> usize;

    /// Whether a collector may have missed templates sent before.
    fn forgets_templates(&self) -> bool;

    /// Sends a message. Gives whether those before it are out of its hands; this one may still turn out lost.
    ///
    /// A transport that holds messages back keeps this one as it stands, without a copy of its octets, and leaves another in
    /// its place, which is of no meaning.
    ///
    /// # Errors
    ///
    /// If something was lost.
    fn send(&mut self, message: &mut Message) -> Result<bool, Failure>;

    /// Sends on what is held back, after which it is out of its hands.
    ///
    /// # Errors
    ///
    /// If what was sent since the transport last vouched for it is lost.
    fn flush(&mut self) -> io::Result<()>;

    /// Whether a flush that succeeded vouches for what was sent: not over a network, where a refusal or a reset comes later.
    fn flush_vouches(&self) -> bool {
        true
    }

    /// Whether messages go to a file, where they are never waited for long.
    fn is_file(&self) -> bool {
        false
    }

    /// Opens a file again if another one or none stands at its path; the session that begins then has its own templates.
    ///
    /// # Errors
    ///
    /// If the file cannot be opened: the old one stays in use.
    fn reopen(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Ends the session in order.
    ///
    /// # Errors
    ///
    /// As [`Transport::flush`].
    fn close(&mut self) -> io::Result<()>;

    /// Whether this error is no failure but the reader's wish.
    fn ends_quietly(&self, _error: &io::Error) -> bool {
        false
    }
}

/// When a collector that was not reached may be tried again (RFC 7011 §10.4.4).
#[derive(Debug)]
struct Attempts {
    interval: Duration,
    last: Option<Instant>,
}

impl Attempts {
    fn new(interval: Duration) -> Attempts {
        Attempts { interval, last: None }
    }

    /// Whether an attempt may be made at `now`, which is then the last.
    fn take(&mut self, now: Instant) -> bool {
        let due = self.last.is_none_or(|last| now.saturating_duration_since(last) >= self.interval);
        if due {
            self.last = Some(now);
        }
        due
    }
}

/// The addresses of a host, each once, in the resolver's order.
fn resolve(endpoint: &Endpoint) -> io::Result<Vec<SocketAddr>> {
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for address in (endpoint.host.as_str(), endpoint.port).to_socket_addrs()? {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    Ok(addresses)
}

/// Tries each of a host's addresses until `connect` succeeds with one.
fn connect_any<T>(
    addresses: &[SocketAddr],
    mut connect: impl FnMut(SocketAddr) -> io::Result<T>,
) -> io::Result<T> {
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for address in addresses {
        match connect(*address) {
            Ok(connection) => return Ok(connection),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_are_an_interval_apart() {
        let start = Instant::now();
        let mut attempts = Attempts::new(Duration::from_secs(60));
        assert!(attempts.take(start));
        assert!(!attempts.take(start + Duration::from_secs(59)));
        assert!(attempts.take(start + Duration::from_secs(60)));
        assert!(!attempts.take(start + Duration::from_secs(61)));
    }
}
