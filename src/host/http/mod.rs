//! HTTP/1.1 for a few small resources (RFC 9110, RFC 9112): a GET or HEAD request in, an answer out, one to a connection.
//!
//! There is no login, so that whoever reaches the socket may try to use up what the process has. One thread holds all
//! connections, at most 16, each with a bounded head and a deadline that no octet puts off. When one more
//! comes, the oldest is closed: clients that send nothing keep nobody out, not even until their time is up. To leave
//! newcomers in the listen queue was rejected: behind a hundred idle ones they would wait for many deadlines. What fails
//! in accepting is tried again: descriptors come back.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, PipeReader, PipeWriter, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use log::{info, warn};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::time::Timestamp;

/// The connections that are open at once.
const CONNECTIONS: usize = 16;
/// The octets of a request line and its fields together.
const HEAD_OCTETS: usize = 8192;
/// The fields of a request.
const FIELDS: usize = 64;
/// How long accepting rests after it has failed.
const REST: Duration = Duration::from_millis(100);
/// How long accepting must not have failed until the log says so: with few descriptors it fails now and then.
const STEADY: Duration = Duration::from_secs(10);

/// Text in UTF-8.
pub const PLAIN: &str = "text/plain; charset=utf-8";

/// What is sent back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status code (RFC 9110 §15).
    pub status: u16,
    /// The Content-Type.
    pub kind: &'static str,
    /// The content; of a HEAD request its length only is sent.
    pub body: String,
}

/// A server at work. Dropping it ends its thread and closes its sockets.
#[derive(Debug)]
pub struct Serving {
    stop: Option<PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Serving {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // If it has panicked, the panic has been printed.
            let _ = thread.join();
        }
    }
}

/// Serves on `listener` in a thread called `name`: `answer` is given a path without its query. A client has `timeout` for
/// its request and as long again to take the answer.
///
/// # Errors
/// When the thread cannot be started.
pub fn serve(
    listener: TcpListener,
    name: &str,
    timeout: Duration,
    answer: impl FnMut(&str) -> Answer + Send + 'static,
) -> io::Result<Serving> {
    let (stopped, stop) = io::pipe()?;
    let server = Server::new(listener, timeout, answer)?;
    let thread = thread::Builder::new().name(name.to_string()).spawn(move || server.run(&stopped))?;
    Ok(Serving { stop: Some(stop), thread: Some(thread) })
}

struct Server<F> {
    listener: TcpListener,
    timeout: Duration,
    answer: F,
    /// The oldest first.
    open: VecDeque<Connection>,
    /// While accepting fails: when it failed last.
    failed: Option<Instant>,
}

impl<F: FnMut(&str) -> Answer> Server<F> {
    fn new(listener: TcpListener, timeout: Duration, answer: F) -> io::Result<Server<F>> {
        listener.set_nonblocking(true)?;
        Ok(Server { listener, timeout, answer, open: VecDeque::with_capacity(CONNECTIONS), failed: None })
    }

    /// Serves until the other end of `stopped` is closed.
    fn run(mut self, stopped: &PipeReader) {
        loop {
            let now = Instant::now();
            self.turn(now);
            match self.wait(stopped, now) {
                Ok(true) => return,
                Ok(false) | Err(rustix::io::Errno::INTR) => {}
                // No memory, or more to wait for than a lowered limit of descriptors lets poll take.
                Err(_) => thread::sleep(REST),
            }
        }
    }

    /// Waits until something can be done; whether that is to end.
    fn wait(&self, stopped: &PipeReader, now: Instant) -> rustix::io::Result<bool> {
        let rest = self.rests_until(now);
        let mut events = vec![PollFd::new(stopped, PollFlags::IN)];
        if rest.is_none() {
            events.push(PollFd::new(&self.listener, PollFlags::IN));
        }
        events.extend(self.open.iter().map(|one| PollFd::new(&one.stream, one.phase.waits_for())));
        let end = self.open.iter().map(|one| one.deadline).chain(rest).min();
        let left = end.and_then(|end| Timespec::try_from(end.saturating_duration_since(now)).ok());
        poll(&mut events, left.as_ref())?;
        Ok(!events[0].revents().is_empty())
    }

    /// While accepting rests: until when.
    fn rests_until(&self, now: Instant) -> Option<Instant> {
        self.failed.map(|failed| failed + REST).filter(|end| *end > now)
    }

    /// Does all that can be done without waiting. With so few connections each is tried, whatever the kernel said of it.
    fn turn(&mut self, now: Instant) {
        self.open.retain_mut(|one| one.goes_on(&mut self.answer, self.timeout, now));
        if self.rests_until(now).is_some() {
            return;
        }
        // Then those that are open have their turn again.
        for _ in 0..CONNECTIONS {
            let accepted = self.listener.accept().map(|(stream, _)| stream);
            if !self.take(accepted, now) {
                break;
            }
        }
    }

    /// Takes what accepting gave; whether there may be more.
    fn take(&mut self, accepted: io::Result<TcpStream>, now: Instant) -> bool {
        match accepted {
            Ok(stream) => {
                if self.failed.is_some_and(|failed| now.saturating_duration_since(failed) >= STEADY) {
                    self.failed = None;
                    info!("connections for the metrics are accepted again");
                }
                if stream.set_nonblocking(true).is_err() {
                    return true;
                }
                let mut one = Connection::new(stream, now + self.timeout);
                if one.goes_on(&mut self.answer, self.timeout, now) {
                    if self.open.len() == CONNECTIONS {
                        self.open.pop_front();
                    }
                    self.open.push_back(one);
                }
                true
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            Err(error) if error.kind() == ErrorKind::Interrupted => true,
            Err(error) => {
                if self.failed.replace(now).is_none() {
                    let rest = REST.as_millis();
                    warn!("accepting connections for the metrics: {error}; trying again every {rest} ms");
                }
                false
            }
        }
    }
}

struct Connection {
    stream: TcpStream,
    deadline: Instant,
    phase: Phase,
}

enum Phase {
    /// The head as far as it has come.
    Asking(Vec<u8>),
    /// The answer, and how many of its octets are sent.
    Answering(Vec<u8>, usize),
    /// The answer is sent and its end told. What still comes is read and thrown away: closing a socket with octets that
    /// nobody has read resets the connection, and the client may lose the answer (RFC 9112 §9.6).
    Ending,
}

impl Phase {
    fn waits_for(&self) -> PollFlags {
        match self {
            Phase::Asking(_) | Phase::Ending => PollFlags::IN,
            Phase::Answering(..) => PollFlags::OUT,
        }
    }
}

impl Connection {
    fn new(stream: TcpStream, deadline: Instant) -> Connection {
        Connection { stream, deadline, phase: Phase::Asking(Vec::new()) }
    }

    /// Gets on as far as it can without waiting; whether the connection is still needed.
    fn goes_on(&mut self, answer: &mut impl FnMut(&str) -> Answer, timeout: Duration, now: Instant) -> bool {
        now < self.deadline
            && match self.advance(answer, now + timeout) {
                Ok(needed) => needed,
                Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
            }
    }

    fn advance(
        &mut self,
        answer: &mut impl FnMut(&str) -> Answer,
        answered_until: Instant,
    ) -> io::Result<bool> {
        let mut buffer = [0; HEAD_OCTETS];
        loop {
            match &mut self.phase {
                Phase::Asking(head) => {
                    let length = self.stream.read(&mut buffer[head.len()..])?;
                    if length == 0 {
                        return Ok(false);
                    }
                    let from = head.len();
                    head.extend_from_slice(&buffer[from..from + length]);
                    if let Some(octets) = respond(head, answer) {
                        self.phase = Phase::Answering(octets, 0);
                        self.deadline = answered_until;
                    }
                }
                Phase::Answering(octets, sent) => {
                    *sent += self.stream.write(&octets[*sent..])?;
                    if *sent == octets.len() {
                        self.stream.shutdown(Shutdown::Write)?;
                        self.phase = Phase::Ending;
                    }
                }
                // Once: a client that goes on sending does not keep the thread from the others.
                Phase::Ending => return Ok(self.stream.read(&mut buffer)? > 0),
            }
        }
    }
}

/// The octets to send to who has sent `head`; nothing while more of it has to come.
fn respond(head: &[u8], answer: &mut impl FnMut(&str) -> Answer) -> Option<Vec<u8>> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    let refuse =
        |status, words: &str| Some(octets(&Answer { status, kind: PLAIN, body: format!("{words}\n") }, true));
    match request.parse(head) {
        Ok(httparse::Status::Complete(_)) => {
            let method = request.method.unwrap_or_default();
            if !["GET", "HEAD"].contains(&method) {
                return refuse(405, "only GET and HEAD are answered");
            }
            Some(octets(&answer(path(request.path.unwrap_or_default())), method == "GET"))
        }
        Ok(httparse::Status::Partial) if head.len() < HEAD_OCTETS => None,
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            let words = format!("a request's head may have {HEAD_OCTETS} octets and {FIELDS} fields");
            refuse(431, &words)
        }
        Err(httparse::Error::Version) => refuse(505, "only HTTP/1.0 and HTTP/1.1 are spoken"),
        Err(error) => refuse(400, &format!("this is not HTTP: {error}")),
    }
}

/// The path that a request's target asks for, in origin-form or in absolute-form (RFC 9112 §3.2): whatever host the latter
/// names, there is one server here.
fn path(target: &str) -> &str {
    const SCHEME: &str = "http://";
    let path = match target.get(..SCHEME.len()) {
        // No path at all is the path `/` (RFC 9110 §4.2.3).
        Some(scheme) if scheme.eq_ignore_ascii_case(SCHEME) => {
            match target[SCHEME.len()..].find(['/', '?']) {
                Some(end) if target[SCHEME.len() + end..].starts_with('/') => &target[SCHEME.len() + end..],
                _ => "/",
            }
        }
        _ => target,
    };
    path.split('?').next().unwrap_or_default()
}

/// An answer as it is sent, now.
fn octets(answer: &Answer, with_body: bool) -> Vec<u8> {
    let Answer { status, kind, body } = answer;
    let reason = match status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        // It may be empty (RFC 9112 §4).
        _ => "",
    };
    // RFC 9110 §10.2.1.
    let allow = if *status == 405 { "Allow: GET, HEAD\r\n" } else { "" };
    let (date, length) = (date(Timestamp::now()), body.len());
    let body = if with_body { body } else { "" };
    format!(
        "HTTP/1.1 {status} {reason}\r\nDate: {date}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\
         {allow}Connection: close\r\n\r\n{body}"
    )
    .into_bytes()
}

/// A point in time as a Date field has it, to the second (RFC 9110 §5.6.7).
fn date(time: Timestamp) -> String {
    let time = jiff::Timestamp::from_second(time.seconds() as i64).unwrap_or_default();
    // It fails for years before 0 and after 9999 only.
    jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&time).unwrap_or_default()
}

#[cfg(test)]
mod tests;
