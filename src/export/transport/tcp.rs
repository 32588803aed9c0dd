//! Messages in, a TCP stream of them out (RFC 7011 §10.4): framed by their own lengths, nothing between them.
//!
//! A message is written whole or the connection is given up: what follows a part of one could not be read. A
//! new connection is a new Transport Session, and tried at most once an interval (§10.4.4). Whether the collector has
//! closed its side is asked before a message is made: what it would have held then goes into the next session's first. A
//! reset instead says that the last message may not have been read, which then counts as lost.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use log::info;
use rustix::net::RecvFlags;

use crate::export::message::Message;
use crate::export::transport::{
    Attempts, Failure, Lost, NoSession, REFUSAL_WAIT, STREAM_LIMIT, Session, Transport, connect_any, resolve,
};
use crate::export::{Endpoint, ExportOptions};

/// A TCP connection to one collector.
pub struct Tcp {
    endpoint: Endpoint,
    stream: Option<TcpStream>,
    connect_timeout: Duration,
    write_timeout: Duration,
    attempts: Attempts,
}

impl Tcp {
    /// A transport to `endpoint`, which the first [`Transport::session`] connects.
    pub fn new(endpoint: Endpoint, options: &ExportOptions) -> Tcp {
        Tcp {
            endpoint,
            stream: None,
            connect_timeout: options.connect_timeout,
            write_timeout: options.write_timeout,
            attempts: Attempts::new(options.reconnect_interval),
        }
    }
}

/// Writes all of `message` before `until`.
fn write(stream: &mut TcpStream, mut message: &[u8], until: Instant) -> io::Result<()> {
    while !message.is_empty() {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the collector does not read"));
        }
        stream.set_write_timeout(Some(left))?;
        match stream.write(message) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => message = &message[written..],
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted => {}
                _ => return Err(error),
            },
        }
    }
    Ok(())
}

/// Whether the collector has closed its side. A write would be taken by the kernel and answered by a reset, and the message
/// counted as sent; a collector has nothing else to say.
///
/// # Errors
///
/// If the connection broke off.
fn closed_by_collector(stream: &TcpStream) -> io::Result<bool> {
    match rustix::net::recv(stream, &mut [0][..], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
        Ok((0, _)) => {
            // A reset that comes after the close stands behind it, and nowhere else.
            stream.take_error()?.map_or(Ok(true), Err)
        }
        Ok(_) => Ok(false),
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

impl Transport for Tcp {
    fn session(&mut self) -> Result<Session, NoSession> {
        let was_closed = match self.stream.as_ref().map(closed_by_collector) {
            Some(Ok(false)) => return Ok(Session::Same),
            Some(Ok(true)) => true,
            Some(Err(error)) => {
                self.stream = None;
                return Err(NoSession::Broken(error));
            }
            None => false,
        };
        self.stream = None;
        let words = "the collector closed the connection";
        if !self.attempts.take(Instant::now()) {
            return match was_closed {
                true => Err(NoSession::Ended(io::Error::new(io::ErrorKind::ConnectionAborted, words))),
                false => Ok(Session::Down),
            };
        }
        if was_closed {
            info!("{}: {words}; connecting again", self.endpoint);
        }
        let timeout = self.connect_timeout;
        let addresses = resolve(&self.endpoint)?;
        self.stream = Some(connect_any(&addresses, |address| TcpStream::connect_timeout(&address, timeout))?);
        Ok(Session::New)
    }

    fn limit(&self) -> usize {
        STREAM_LIMIT
    }

    fn forgets_templates(&self) -> bool {
        false
    }

    fn send(&mut self, message: &mut Message) -> Result<bool, Failure> {
        let Some(stream) = &mut self.stream else {
            return Err(Failure { error: io::ErrorKind::NotConnected.into(), lost: Lost::This });
        };
        match write(stream, message.octets(), Instant::now() + self.write_timeout) {
            Ok(()) => Ok(true),
            Err(error) => {
                self.stream = None;
                // What waits for a collector that does not read may still be read; after a reset it will not be.
                let lost = if error.kind() == io::ErrorKind::TimedOut { Lost::This } else { Lost::Both };
                Err(Failure { error, lost })
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn flush_vouches(&self) -> bool {
        false
    }

    fn close(&mut self) -> io::Result<()> {
        let Some(mut stream) = self.stream.take() else { return Ok(()) };
        stream.shutdown(Shutdown::Write)?;
        // A collector closes in turn when it has read all; one that had gone before then answers with a reset.
        let until = Instant::now() + REFUSAL_WAIT;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            stream.set_read_timeout(Some(left))?;
            match stream.read(&mut [0; 256]) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => return Ok(()),
                    io::ErrorKind::Interrupted => {}
                    _ => return Err(error),
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;
    use crate::export::Tally;
    use crate::export::outlet::{Outlet, Ready};
    use crate::export::testing::{after, message};

    fn to(listener: &TcpListener, write_timeout: Duration) -> Tcp {
        let port = listener.local_addr().expect("its address").port();
        let options = ExportOptions { write_timeout, ..ExportOptions::default() };
        Tcp::new(Endpoint { host: "127.0.0.1".to_owned(), port }, &options)
    }

    #[test]
    fn the_stream_is_the_messages_and_nothing_else() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let mut tcp = to(&listener, Duration::from_secs(10));
        let collector = thread::spawn(move || {
            let mut read = Vec::new();
            listener.accept().expect("a connection").0.read_to_end(&mut read).expect("all of it");
            read
        });
        assert_eq!(tcp.session().expect("a connection"), Session::New);
        // More than the socket's buffers hold, so that writes are cut.
        for number in 0..1000 {
            tcp.send(&mut message(&vec![number as u8; 10_000])).expect("a collector that reads");
            assert_eq!(tcp.session().expect("the same"), Session::Same);
        }
        tcp.close().expect("an orderly end");
        let expected: Vec<u8> = (0..1000).flat_map(|number| vec![number as u8; 10_000]).collect();
        assert!(collector.join().expect("no panic") == expected);
    }

    #[test]
    fn a_collector_that_does_not_read_is_given_up_after_the_timeout() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let mut tcp = to(&listener, Duration::from_millis(50));
        tcp.session().expect("a connection");
        let failure =
            (0..10_000).find_map(|_| tcp.send(&mut message(&[0; 10_000])).err()).expect("full buffers");
        assert_eq!(failure.error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(failure.lost, Lost::This);
        assert_eq!(tcp.session().expect("no attempt so soon"), Session::Down);
    }

    #[test]
    fn a_collector_that_closes_is_noticed_before_the_next_message() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let mut tcp = to(&listener, Duration::from_secs(1));
        let served = |tcp: &mut Tcp| {
            assert_eq!(tcp.session().expect("a connection"), Session::New);
            let (mut accepted, _) = listener.accept().expect("a connection");
            tcp.send(&mut message(&[7; 100])).expect("a collector");
            accepted.read_exact(&mut [0; 100]).expect("the message");
        };
        served(&mut tcp);
        assert!(matches!(tcp.session(), Err(NoSession::Ended(_))));
        assert_eq!(tcp.session().expect("no attempt so soon"), Session::Down);
        // Where the last attempt is long ago, the next session begins at once and nothing is lost.
        tcp.attempts = Attempts::new(Duration::ZERO);
        served(&mut tcp);
        served(&mut tcp);
    }

    /// What ends the collector's side.
    #[derive(Debug)]
    enum End {
        /// It closes when it has read all.
        Close,
        /// It closes in the middle of a message: what was not read makes that a reset.
        Reset,
        /// It closes, and then a message comes: the answer is a reset.
        CloseBeforeAMessage,
    }

    #[test]
    fn a_reset_takes_the_last_message_back_and_is_told_and_a_close_is_not() {
        const ONE: Tally = Tally { records: 1, packets: 2, octets: 3 };
        for (end, lost) in [(End::Close, 0), (End::Reset, 1), (End::CloseBeforeAMessage, 1)] {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
            let mut tcp = to(&listener, Duration::from_secs(1));
            // As where the last attempt is long ago.
            tcp.attempts = Attempts::new(Duration::ZERO);
            let mut outlet = Outlet::new("the collector".to_owned(), Box::new(tcp));
            assert_eq!(outlet.ready(after(0)), Ready::New);
            let (mut accepted, _) = listener.accept().expect("a connection");
            let mut read = |octets| accepted.read_exact(&mut vec![0; octets]).expect("so many");
            assert!(outlet.send(&mut message(&[1; 100]), ONE, after(1)));
            read(100);
            if !matches!(end, End::CloseBeforeAMessage) {
                assert!(outlet.send(&mut message(&[2; 100]), ONE, after(2)));
                read(if matches!(end, End::Close) { 100 } else { 50 });
            }
            drop(accepted);
            if matches!(end, End::CloseBeforeAMessage) {
                assert!(outlet.send(&mut message(&[2; 100]), ONE, after(2)), "nobody knows yet");
            }
            // No flush can say that it was read.
            outlet.flush(after(3));
            assert_eq!(outlet.ready(after(4)), Ready::New, "{end:?}");
            let delivery = outlet.delivery();
            assert_eq!((delivery.sent.records, delivery.lost.records), (2 - lost, lost), "{end:?}");
            assert_eq!(outlet.lost_between().0, (lost > 0).then(|| after(4)), "{end:?}");
            match outlet.failure() {
                None => assert_eq!(lost, 0, "{end:?}"),
                Some(words) => {
                    assert!(words.starts_with("sending to the collector: ") && lost > 0, "{words}")
                }
            }
        }
    }

    #[test]
    fn a_refused_connection_is_an_error_once() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let mut tcp = to(&listener, Duration::from_secs(1));
        drop(listener);
        let Err(NoSession::NotBegun(error)) = tcp.session() else { panic!("nobody listens") };
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(tcp.session().expect("no attempt"), Session::Down);
    }
}
