//! Messages in, datagrams out (RFC 7011 §10.3): whole within the path's MTU, and no faster than the collector takes them.
//!
//! One connected socket is one source port and one Transport Session, and lets the kernel tell when the collector's host
//! refuses. A refusal comes after the datagram it is of, so an error that a socket holds is booked on what was sent before.
//!
//! A host name may have several addresses (`localhost`: ::1 and 127.0.0.1) of which the collector listens on one. The
//! first message of a session goes to one after the other until one does not refuse it; a refusal later on ends the
//! session, and the next one tries them all again. An address that answers nothing cannot be told from one that listens.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::num::NonZeroU32;
use std::thread;
use std::time::{Duration, Instant};

use log::debug;
use rustix::net::sockopt;

use crate::export::transport::{
    Attempts, Failure, Lost, NoSession, REFUSAL_WAIT, Session, Transport, connect_any, resolve,
};
use crate::export::{Endpoint, ExportOptions};

/// The largest path MTU made use of, unless the user says otherwise: Ethernet's. Loopback's is 65,536, and nfacctd reads 10,000 octets.
const MOST_MTU: usize = 1500;

/// The smallest path MTU reckoned with, and the one taken where it is not known (RFC 7011 §10.3.3).
const LEAST_MTU: usize = 512;

/// Octets of an IPv4 header (RFC 791 §3.1), of an IPv6 header (RFC 8200 §3) and of a UDP header (RFC 768).
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
const UDP_HEADER: usize = 8;

/// Messages that may leave at once after a pause. Debian's default receive buffer (212,992 octets) holds some 90
/// datagrams of 1,472 octets.
const BURST: u32 = 16;

/// A UDP socket to one collector.
pub struct Udp {
    endpoint: Endpoint,
    /// The host's addresses, once they are known.
    addresses: Vec<SocketAddr>,
    socket: Option<UdpSocket>,
    /// Whether the session's first message is sent.
    begun: bool,
    most_mtu: usize,
    limit: usize,
    pace: Option<Pace>,
    attempts: Attempts,
    /// Whether a message left after which no refusal was looked for.
    unheard: bool,
}

impl Udp {
    /// A transport to `endpoint`, which the first [`Transport::session`] connects.
    pub fn new(endpoint: Endpoint, options: &ExportOptions) -> Udp {
        Udp {
            endpoint,
            addresses: Vec::new(),
            socket: None,
            begun: false,
            most_mtu: options.mtu.map_or(MOST_MTU, usize::from),
            limit: limit(LEAST_MTU, IPV6_HEADER),
            pace: options.rate.map(Pace::new),
            attempts: Attempts::new(options.reconnect_interval),
            unheard: false,
        }
    }

    /// Connects to the first address that can be, from the one at `first` on.
    fn connect(&mut self, first: usize) -> io::Result<UdpSocket> {
        let socket = connect_any(self.addresses.get(first..).unwrap_or_default(), connected)?;
        self.limit = self.path_limit(&socket);
        Ok(socket)
    }

    /// The longest message on the path as the kernel knows it now.
    fn path_limit(&self, socket: &UdpSocket) -> usize {
        let is_ipv4 = socket.peer_addr().is_ok_and(|peer| peer.is_ipv4());
        let known = if is_ipv4 { sockopt::ip_mtu(socket) } else { sockopt::ipv6_mtu(socket) };
        let mtu = known.map_or(LEAST_MTU, |mtu| mtu as usize).min(self.most_mtu);
        // A message for one of several addresses may have to go to another.
        let is_for_ipv4 = self.addresses.iter().all(SocketAddr::is_ipv4);
        limit(mtu, if is_for_ipv4 { IPV4_HEADER } else { IPV6_HEADER })
    }

    fn send_on(&mut self, socket: &UdpSocket, message: &[u8]) -> Result<(), Failure> {
        // What the socket holds is of an earlier message; a send would report it and send nothing.
        let mut earlier = socket.take_error().ok().flatten();
        let mut sent = socket.send(message);
        if let Err(error) = sent {
            // It may have come in just now: then this finds nothing in its way. What is of this message comes again.
            sent = socket.send(message);
            if sent.is_ok() || error.kind() == io::ErrorKind::ConnectionRefused {
                earlier.get_or_insert(error);
            }
        }
        match (earlier, sent) {
            (None, Ok(_)) => Ok(()),
            (Some(error), Ok(_)) => Err(Failure { error: in_words(error), lost: Lost::Earlier }),
            (earlier, Err(error)) => {
                // The path may have become narrower. This message cannot be made shorter, the next ones are.
                self.limit = self.path_limit(socket);
                let lost = if earlier.is_some() { Lost::Both } else { Lost::This };
                Err(Failure { error: in_words(earlier.unwrap_or(error)), lost })
            }
        }
    }

    /// Sends the first message of a session to the first of several addresses that does not refuse it; gives the socket.
    fn begin(&mut self, socket: UdpSocket, message: &[u8]) -> io::Result<UdpSocket> {
        let mut sent = socket.send(message).and_then(|_| refusal(&socket)).map(|()| socket);
        for next in 1..self.addresses.len() {
            if sent.is_ok() {
                break;
            }
            sent = self.connect(next).and_then(|socket| {
                socket.send(message)?;
                refusal(&socket)?;
                Ok(socket)
            });
        }
        if let Ok(address) =
            sent.as_ref().map_err(|_| ()).and_then(|socket| socket.peer_addr().map_err(|_| ()))
        {
            debug!("{}: sending to {}", self.endpoint, address.ip());
        }
        sent.map_err(in_words)
    }
}

fn connected(address: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any)?;
    // No datagram is fragmented (RFC 7011 §10.3.3): too long a one is refused here, or an ICMP message comes back.
    match address {
        SocketAddr::V4(_) => sockopt::set_ip_mtu_discover(&socket, sockopt::Ipv4PathMtuDiscovery::DO)?,
        SocketAddr::V6(_) => sockopt::set_ipv6_mtu_discover(&socket, sockopt::Ipv6PathMtuDiscovery::DO)?,
    }
    socket.connect(address)?;
    Ok(socket)
}

/// Waits [`REFUSAL_WAIT`] for a refusal of what was sent.
///
/// # Errors
///
/// The refusal.
fn refusal(socket: &UdpSocket) -> io::Result<()> {
    // A receive is the way to wait for an error. What a collector might send is nothing to us.
    let until = Instant::now() + REFUSAL_WAIT;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        socket.set_read_timeout(Some(left))?;
        match socket.recv(&mut [0]) {
            Ok(_) => {}
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => return Ok(()),
                io::ErrorKind::Interrupted => {}
                _ => return Err(error),
            },
        }
    }
}

/// A refusal by what it means here: the system's words are of connections.
fn in_words(error: io::Error) -> io::Error {
    match error.kind() {
        kind @ io::ErrorKind::ConnectionRefused => {
            io::Error::new(kind, "nobody listens on this port, its host says")
        }
        _ => error,
    }
}

/// What is left of an MTU for a message.
fn limit(mtu: usize, ip_header: usize) -> usize {
    mtu.max(LEAST_MTU) - ip_header - UDP_HEADER
}

impl Transport for Udp {
    fn session(&mut self) -> Result<Session, NoSession> {
        if self.socket.is_some() {
            return Ok(Session::Same);
        }
        if self.attempts.take(Instant::now()) {
            self.addresses.clear();
            self.addresses = resolve(&self.endpoint)?;
        } else if self.addresses.is_empty() {
            return Ok(Session::Down);
        }
        match self.connect(0) {
            Ok(socket) => {
                (self.socket, self.begun) = (Some(socket), false);
                Ok(Session::New)
            }
            Err(error) => {
                // No attempt with these before the next is due.
                self.addresses.clear();
                Err(error.into())
            }
        }
    }

    fn limit(&self) -> usize {
        self.limit
    }

    fn forgets_templates(&self) -> bool {
        true
    }

    fn send(&mut self, message: &[u8]) -> Result<bool, Failure> {
        let Some(socket) = self.socket.take() else {
            let error = io::Error::from(io::ErrorKind::NotConnected);
            return Err(Failure { error, lost: Lost::This });
        };
        if let Some(pace) = &mut self.pace {
            let wait = pace.take(Instant::now());
            if !wait.is_zero() {
                thread::sleep(wait);
            }
        }
        self.unheard = true;
        let several = self.addresses.len() > 1;
        if several && !std::mem::replace(&mut self.begun, true) {
            self.socket =
                Some(self.begin(socket, message).map_err(|error| Failure { error, lost: Lost::This })?);
            return Ok(true);
        }
        match self.send_on(&socket, message) {
            // Another address may take the next session. What went to this one meanwhile is lost.
            Err(Failure { error, .. }) if several && error.kind() == io::ErrorKind::ConnectionRefused => {
                Err(Failure { error, lost: Lost::Both })
            }
            sent => {
                self.socket = Some(socket);
                sent.map(|()| true)
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
        let Some(socket) = &self.socket else { return Ok(()) };
        if !std::mem::take(&mut self.unheard) {
            return Ok(());
        }
        refusal(socket).map_err(in_words)
    }
}

/// A token bucket: on average a message an interval, at most [`BURST`] at once.
///
/// A collector's receive buffer is small, and a file is read a hundred times faster than traffic comes.
#[derive(Debug)]
struct Pace {
    interval: Duration,
    /// When the bucket would be full again.
    full: Option<Instant>,
}

impl Pace {
    fn new(rate: NonZeroU32) -> Pace {
        Pace { interval: Duration::from_secs(1) / rate.get(), full: None }
    }

    /// Takes a message out of the bucket at `now`; how long to wait before it may leave.
    ///
    /// Where it must wait, it waits until half the bucket is full: one sleep for many messages, for a sleep is never as
    /// short as asked for.
    fn take(&mut self, now: Instant) -> Duration {
        let full = self.full.map_or(now, |full| full.max(now)) + self.interval;
        self.full = Some(full);
        let owed = full - now;
        if owed > self.interval * BURST { owed - self.interval * (BURST / 2) } else { Duration::ZERO }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_and_its_headers_fit_the_mtu() {
        assert_eq!(limit(1500, IPV4_HEADER), 1472);
        assert_eq!(limit(1500, IPV6_HEADER), 1452);
        assert_eq!(limit(1280, IPV6_HEADER), 1232);
        assert_eq!(limit(0, IPV4_HEADER), 484);
    }

    #[test]
    fn the_pace_holds_the_rate_and_lets_a_burst_through() {
        let mut pace = Pace::new(NonZeroU32::new(1000).expect("not zero"));
        let start = Instant::now();
        let mut now = start;
        let mut at_once = 0;
        for _ in 0..5000 {
            let wait = pace.take(now);
            at_once += u32::from(now == start && wait.is_zero());
            now += wait;
        }
        assert_eq!(at_once, BURST);
        let taken = now - start;
        assert!(taken > Duration::from_millis(4970) && taken <= Duration::from_millis(5000), "{taken:?}");
        // After a pause a burst again, and no more for a longer pause.
        now += Duration::from_secs(3600);
        let again = (0..5000).take_while(|_| pace.take(now).is_zero()).count();
        assert_eq!(again, BURST as usize);
    }

    fn to(port: u16) -> Udp {
        Udp::new(Endpoint { host: "127.0.0.1".to_owned(), port }, &ExportOptions::default())
    }

    #[test]
    fn a_datagram_is_a_message_and_comes_from_one_port() {
        let collector = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let mut udp = to(collector.local_addr().expect("its address").port());
        assert_eq!(udp.session().expect("a session"), Session::New);
        assert_eq!(udp.limit(), 1472, "not loopback's 65,536");
        let mut buffer = [0; 2000];
        let mut source = None;
        for number in 0..3 {
            assert!(udp.send(&[number; 1472]).expect("a collector that listens"));
            let (length, from) = collector.recv_from(&mut buffer).expect("a datagram");
            assert_eq!(buffer[..length], [number; 1472]);
            assert_eq!(*source.get_or_insert(from), from);
        }
        udp.close().expect("no refusal");
    }

    #[test]
    fn a_refusal_loses_the_message_before() {
        let port = UdpSocket::bind("127.0.0.1:0").expect("a port").local_addr().expect("its address").port();
        let mut udp = to(port);
        udp.session().expect("connecting asks nobody");
        assert!(udp.send(&[1]).is_ok());
        assert_eq!(udp.send(&[2]).expect_err("nobody listens").lost, Lost::Earlier);
        assert_eq!(udp.close().expect_err("nobody listens").kind(), io::ErrorKind::ConnectionRefused);
    }

    /// A transport to a host that has both addresses.
    fn to_both(port: u16) -> Udp {
        let mut udp = to(port);
        udp.attempts.take(Instant::now());
        udp.addresses = vec![(Ipv6Addr::LOCALHOST, port).into(), (Ipv4Addr::LOCALHOST, port).into()];
        udp
    }

    #[test]
    fn of_several_addresses_the_one_that_listens_gets_every_message() {
        for host in ["127.0.0.1", "::1"] {
            let Ok(open) = UdpSocket::bind((host, 0)) else {
                eprintln!("SKIPPED: no {host} here");
                continue;
            };
            let port = open.local_addr().expect("its address").port();
            let mut buffer = [0; 10];
            let mut udp = to_both(port);
            assert_eq!(udp.session().expect("a session"), Session::New);
            assert_eq!(udp.limit(), 1452, "what fits both");
            for number in 0..3 {
                assert!(udp.send(&[number]).expect("one that listens"));
                assert_eq!(open.recv(&mut buffer).expect("a datagram"), 1);
                assert_eq!(buffer[0], number);
            }
            // It goes, and none is left: each session that begins then says so, until one is back.
            drop(open);
            assert!(udp.send(&[3]).is_ok(), "nobody knows yet");
            assert_eq!(udp.send(&[4]).expect_err("refused").lost, Lost::Both);
            assert_eq!(udp.session().expect("at once"), Session::New);
            assert_eq!(udp.send(&[5]).expect_err("refused by both").lost, Lost::This);
            let back = UdpSocket::bind((host, port)).expect("the port");
            assert_eq!(udp.session().expect("at once"), Session::New);
            assert!(udp.send(&[6]).is_ok());
            assert_eq!(back.recv(&mut buffer).expect("a datagram"), 1);
            assert_eq!(buffer[0], 6);
        }
    }

    #[test]
    fn an_error_that_the_socket_holds_is_of_the_message_before() {
        let collector = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let port = collector.local_addr().expect("its address").port();
        let mut udp = to(port);
        udp.session().expect("a session");
        drop(collector);
        assert!(udp.send(&[1]).is_ok());
        let collector = UdpSocket::bind(("127.0.0.1", port)).expect("the port");
        assert_eq!(udp.send(&[2]).expect_err("the refusal of 1").lost, Lost::Earlier);
        let mut buffer = [0; 10];
        assert_eq!(collector.recv(&mut buffer).expect("a datagram"), 1);
        assert_eq!(buffer[0], 2, "sent all the same");
        let failure = udp.send(&[0; 70_000]).expect_err("longer than any datagram");
        assert_eq!(failure.lost, Lost::This);
        assert!(udp.send(&[3]).is_ok());
    }

    #[test]
    fn a_host_that_cannot_be_reached_is_not_tried_again_at_once() {
        let endpoint = Endpoint { host: "no host".to_owned(), port: 1 };
        let mut udp = Udp::new(endpoint, &ExportOptions::default());
        assert!(udp.session().is_err());
        assert_eq!(udp.session().expect("no attempt"), Session::Down);
    }
}
