//! Messages in, datagrams out (RFC 7011 §10.3): whole within the path's MTU, and no faster than the collector takes them.
//!
//! One connected socket, so one source port and one Transport Session as long as the exporter lives, and the kernel tells
//! when the collector's host refuses.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::num::NonZeroU32;
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::sockopt;

use crate::export::transport::{Attempts, Failure, Lost, REFUSAL_WAIT, Session, Transport, connect_any};
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
    socket: Option<UdpSocket>,
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
            socket: None,
            most_mtu: options.mtu.map_or(MOST_MTU, usize::from),
            limit: limit(LEAST_MTU, IPV6_HEADER),
            pace: options.rate.map(Pace::new),
            attempts: Attempts::new(options.reconnect_interval),
            unheard: false,
        }
    }

    fn connect(&mut self) -> io::Result<()> {
        let socket = connect_any(&self.endpoint, |address| {
            let any: SocketAddr = match address {
                SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
                SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
            };
            let socket = UdpSocket::bind(any)?;
            // No datagram is fragmented (RFC 7011 §10.3.3): too long a one is refused here, or an ICMP message comes back.
            match address {
                SocketAddr::V4(_) => {
                    sockopt::set_ip_mtu_discover(&socket, sockopt::Ipv4PathMtuDiscovery::DO)?
                }
                SocketAddr::V6(_) => {
                    sockopt::set_ipv6_mtu_discover(&socket, sockopt::Ipv6PathMtuDiscovery::DO)?
                }
            }
            socket.connect(address)?;
            Ok(socket)
        })?;
        self.limit = self.path_limit(&socket);
        self.socket = Some(socket);
        Ok(())
    }

    /// The longest message on the path as the kernel knows it now.
    fn path_limit(&self, socket: &UdpSocket) -> usize {
        let is_ipv4 = socket.peer_addr().is_ok_and(|peer| peer.is_ipv4());
        let known = if is_ipv4 { sockopt::ip_mtu(socket) } else { sockopt::ipv6_mtu(socket) };
        let mtu = known.map_or(LEAST_MTU, |mtu| mtu as usize).min(self.most_mtu);
        limit(mtu, if is_ipv4 { IPV4_HEADER } else { IPV6_HEADER })
    }

    fn send_on(&mut self, socket: &UdpSocket, message: &[u8]) -> Result<bool, Failure> {
        let error = match socket.send(message) {
            Ok(_) => return Ok(true),
            Err(error) => error,
        };
        match error.kind() {
            // What the socket tells here is of an earlier message, and this one it has not sent.
            io::ErrorKind::ConnectionRefused => match socket.send(message) {
                Ok(_) => Err(Failure { error, lost: Lost::Earlier }),
                Err(error) => Err(Failure { error, lost: Lost::Both }),
            },
            _ => {
                // The path may have become narrower. This message cannot be made shorter, the next ones are.
                self.limit = self.path_limit(socket);
                Err(Failure { error, lost: Lost::This })
            }
        }
    }
}

/// What is left of an MTU for a message.
fn limit(mtu: usize, ip_header: usize) -> usize {
    mtu.max(LEAST_MTU) - ip_header - UDP_HEADER
}

impl Transport for Udp {
    fn session(&mut self) -> io::Result<Session> {
        if self.socket.is_some() {
            return Ok(Session::Same);
        }
        if !self.attempts.take(Instant::now()) {
            return Ok(Session::Down);
        }
        self.connect()?;
        Ok(Session::New)
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
        let sent = self.send_on(&socket, message);
        self.unheard = true;
        self.socket = Some(socket);
        sent
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

    #[test]
    fn a_host_that_cannot_be_reached_is_not_tried_again_at_once() {
        let endpoint = Endpoint { host: "no host".to_owned(), port: 1 };
        let mut udp = Udp::new(endpoint, &ExportOptions::default());
        assert!(udp.session().is_err());
        assert_eq!(udp.session().expect("no attempt"), Session::Down);
    }
}
