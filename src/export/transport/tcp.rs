//! Messages in, a TCP stream of them out (RFC 7011 §10.4): framed by their own lengths, nothing between them.
//!
//! A message is written whole or the connection is given up: what follows a part of one could not be read. A
//! new connection is a new Transport Session, and tried at most once an interval (§10.4.4). Whether the collector has
//! closed its side is asked before a message is made: what it would have held then goes into the next session's first.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use log::info;
use rustix::net::RecvFlags;

use crate::export::transport::{
    Attempts, Failure, Lost, REFUSAL_WAIT, STREAM_LIMIT, Session, Transport, connect_any, resolve,
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
fn closed_by_collector(stream: &TcpStream) -> io::Result<bool> {
    match rustix::net::recv(stream, &mut [0][..], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
        Ok((length, _)) => Ok(length == 0),
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

impl Transport for Tcp {
    fn session(&mut self) -> io::Result<Session> {
        let closed = match self.stream.as_ref().map(closed_by_collector) {
            Some(Ok(false)) => return Ok(Session::Same),
            Some(Ok(true)) => {
                let words = "the collector closed the connection";
                Some(io::Error::new(io::ErrorKind::ConnectionAborted, words))
            }
            Some(Err(error)) => Some(error),
            None => None,
        };
        self.stream = None;
        if !self.attempts.take(Instant::now()) {
            return closed.map_or(Ok(Session::Down), Err);
        }
        if let Some(error) = closed {
            info!("{}: {error}; connecting again", self.endpoint);
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

    fn send(&mut self, message: &[u8]) -> Result<bool, Failure> {
        let lost = |error| Failure { error, lost: Lost::This };
        let Some(stream) = &mut self.stream else {
            return Err(lost(io::ErrorKind::NotConnected.into()));
        };
        match write(stream, message, Instant::now() + self.write_timeout) {
            Ok(()) => Ok(true),
            Err(error) => {
                self.stream = None;
                Err(lost(error))
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
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
            tcp.send(&vec![number as u8; 10_000]).expect("a collector that reads");
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
        let failure = (0..10_000).find_map(|_| tcp.send(&[0; 10_000]).err()).expect("full buffers");
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
            tcp.send(&[7; 100]).expect("a collector");
            accepted.read_exact(&mut [0; 100]).expect("the message");
        };
        served(&mut tcp);
        assert_eq!(tcp.session().expect_err("closed").kind(), io::ErrorKind::ConnectionAborted);
        assert_eq!(tcp.session().expect("no attempt so soon"), Session::Down);
        // Where the last attempt is long ago, the next session begins at once and nothing is lost.
        tcp.attempts = Attempts::new(Duration::ZERO);
        served(&mut tcp);
        served(&mut tcp);
    }

    #[test]
    fn a_refused_connection_is_an_error_once() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let mut tcp = to(&listener, Duration::from_secs(1));
        drop(listener);
        assert_eq!(tcp.session().expect_err("nobody listens").kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(tcp.session().expect("no attempt"), Session::Down);
    }
}
