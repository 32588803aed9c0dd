//! Messages in, datagrams out (RFC 7011 §10.3): whole within the path's MTU, and no faster than the collector takes them.
//!
//! One connected socket is one source port and one Transport Session, and lets the kernel tell when the collector's host
//! refuses. A refusal comes after the datagram it is of, so an error that a socket holds is booked on what was sent before.
//!
//! A host name may have several addresses (`localhost`: ::1 and 127.0.0.1) of which the collector listens on one. A
//! refusal ends the session, and the next one is with the next address; when each has refused there is none for [`REST`].
//! Nothing waits for a refusal, for records may leave on the thread that captures. On loopback it is there when the send
//! returns: the first message of a session goes to one address after the other, and nothing is lost. From further away it
//! comes later, and what was sent meanwhile is lost. An address that answers nothing cannot be told from one that listens.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::num::NonZeroU32;
use std::thread;
use std::time::{Duration, Instant};

use log::debug;
use rustix::net::sockopt;

use crate::export::message::Message;
use crate::export::transport::{
    Attempts, Failure, Lost, NoSession, REFUSAL_WAIT, Session, Transport, resolve,
};
use crate::export::{Endpoint, ExportOptions};

/// The largest path MTU made use of, unless the user says otherwise: Ethernet's. Loopback's is 65,536, and nfacctd reads
/// 10,000 octets.
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

/// How long a host is left alone all of whose several addresses refused.
const REST: Duration = Duration::from_secs(5);

/// A UDP socket to one collector.
pub struct Udp {
    endpoint: Endpoint,
    /// The host's addresses, once they are known.
    addresses: Vec<SocketAddr>,
    /// Which of them is tried first: the last one that did not refuse.
    first: usize,
    /// How many from there on have refused since, or could not be connected to.
    tried: usize,
    /// When they may be tried again after all of them refused.
    rested: Option<Instant>,
    socket: Option<UdpSocket>,
    /// When the session's first message left.
    begun: Option<Instant>,
    /// The largest MTU that may be made use of.
    most_mtu: usize,
    /// The least of the MTUs to several addresses, when they were resolved: a message filled for one may have to go to another.
    common_mtu: usize,
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
            first: 0,
            tried: 0,
            rested: None,
            socket: None,
            begun: None,
            most_mtu: options.mtu.map_or(MOST_MTU, usize::from),
            common_mtu: usize::MAX,
            limit: limit(LEAST_MTU, IPV6_HEADER),
            pace: options.rate.map(Pace::new),
            attempts: Attempts::new(options.reconnect_interval),
            unheard: false,
        }
    }

    /// Takes the addresses that the host has now.
    fn adopt(&mut self, addresses: Vec<SocketAddr>) {
        self.addresses = addresses;
        self.common_mtu = usize::MAX;
        if self.has_several() {
            // Connecting sends nothing: it asks the routing table.
            let sockets = self.addresses.iter().filter_map(|address| connected(*address).ok());
            self.common_mtu = sockets.map(|socket| path_mtu(&socket)).min().unwrap_or(usize::MAX);
        }
    }

    /// Connects to the first address that can be of those that are still to be tried.
    fn connect(&mut self) -> io::Result<UdpSocket> {
        let mut failure = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
        while self.tried < self.addresses.len() {
            match connected(self.addresses[(self.first + self.tried) % self.addresses.len()]) {
                Ok(socket) => {
                    self.limit = self.path_limit(&socket);
                    return Ok(socket);
                }
                Err(error) => failure = error,
            }
            self.tried += 1;
        }
        Err(failure)
    }

    /// Whether there is another address where one refuses.
    fn has_several(&self) -> bool {
        self.addresses.len() > 1
    }

    /// Whether a refusal of the session's first message would be there by now.
    fn has_lasted(&self) -> bool {
        self.begun.is_some_and(|begun| begun.elapsed() >= REFUSAL_WAIT)
    }

    /// All addresses have refused.
    fn rest(&mut self) {
        self.tried = 0;
        self.rested = Some(Instant::now() + REST);
    }

    /// Whether the session with one of several addresses goes on.
    ///
    /// # Errors
    ///
    /// What became of the messages sent, if that is known now.
    fn look(&mut self, socket: UdpSocket) -> io::Result<()> {
        let held = socket.take_error()?;
        if held.as_ref().is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
            self.tried += 1;
        } else {
            if held.is_some() {
                self.limit = self.path_limit(&socket);
            } else if self.tried > 0 && self.has_lasted() {
                self.first = (self.first + self.tried) % self.addresses.len();
                self.tried = 0;
            }
            self.socket = Some(socket);
        }
        held.map_or(Ok(()), |error| Err(in_words(error)))
    }

    /// The longest message on the path as the kernel knows it now.
    fn path_limit(&self, socket: &UdpSocket) -> usize {
        let mtu = path_mtu(socket).min(self.common_mtu).min(self.most_mtu);
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

    /// Sends the first message of a session to the first of several addresses that does not refuse it at once.
    fn begin(&mut self, mut socket: UdpSocket, message: &[u8]) -> io::Result<()> {
        loop {
            let sent = socket.send(message).and_then(|_| socket.take_error()?.map_or(Ok(()), Err));
            let Err(error) = sent else { break };
            if error.raw_os_error() == Some(libc::EMSGSIZE) {
                // No refusal: the path has become narrower since this message was filled. The next ones are shorter.
                self.limit = self.path_limit(&socket);
                self.socket = Some(socket);
                return Err(error);
            }
            self.tried += 1;
            socket = self.connect().map_err(|_| {
                self.rest();
                in_words(error)
            })?;
        }
        if let Ok(address) = socket.peer_addr() {
            debug!("{}: sending to {}", self.endpoint, address.ip());
        }
        self.begun = Some(Instant::now());
        self.socket = Some(socket);
        Ok(())
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

/// The MTU of the path as the kernel knows it now.
fn path_mtu(socket: &UdpSocket) -> usize {
    let is_ipv4 = socket.peer_addr().is_ok_and(|peer| peer.is_ipv4());
    let known = if is_ipv4 { sockopt::ip_mtu(socket) } else { sockopt::ipv6_mtu(socket) };
    known.map_or(LEAST_MTU, |mtu| mtu as usize)
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
        if self.has_several()
            && let Some(socket) = self.socket.take()
        {
            self.look(socket).map_err(NoSession::Broken)?;
        }
        if self.socket.is_some() {
            return Ok(Session::Same);
        }
        let now = Instant::now();
        if self.rested.is_some_and(|rested| now < rested) {
            return Ok(Session::Down);
        }
        let is_first = self.tried == 0;
        if is_first && self.attempts.take(now) {
            let before = std::mem::take(&mut self.addresses);
            self.adopt(resolve(&self.endpoint)?);
            if self.addresses != before {
                self.first = 0;
            }
        } else if self.addresses.is_empty() {
            return Ok(Session::Down);
        }
        match self.connect() {
            Ok(socket) => {
                (self.socket, self.begun) = (Some(socket), None);
                Ok(Session::New)
            }
            Err(error) if is_first => {
                // No attempt with these before the next is due.
                self.addresses.clear();
                self.tried = 0;
                Err(error.into())
            }
            // The refusals have been told.
            Err(_) => {
                self.rest();
                Ok(Session::Down)
            }
        }
    }

    fn limit(&self) -> usize {
        self.limit
    }

    fn forgets_templates(&self) -> bool {
        true
    }

    fn send(&mut self, message: &mut Message) -> Result<bool, Failure> {
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
        let message = message.octets();
        if self.has_several() && self.begun.is_none() {
            self.begin(socket, message).map_err(|error| Failure { error, lost: Lost::This })?;
            return Ok(false);
        }
        match self.send_on(&socket, message) {
            // Another address may take the next session. What went to this one meanwhile is lost.
            Err(Failure { error, .. })
                if self.has_several() && error.kind() == io::ErrorKind::ConnectionRefused =>
            {
                self.tried += 1;
                Err(Failure { error, lost: Lost::Both })
            }
            sent => {
                self.socket = Some(socket);
                // One of several addresses may yet refuse all that it was sent.
                sent.map(|()| !self.has_several() || self.has_lasted())
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
    use crate::export::Tally;
    use crate::export::outlet::{Outlet, Ready};
    use crate::export::testing::{after, message};

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
            assert!(udp.send(&mut message(&[number; 1472])).expect("a collector that listens"));
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
        assert!(udp.send(&mut message(&[1])).is_ok());
        assert_eq!(udp.send(&mut message(&[2])).expect_err("nobody listens").lost, Lost::Earlier);
        assert_eq!(udp.close().expect_err("nobody listens").kind(), io::ErrorKind::ConnectionRefused);
    }

    /// A transport to a host that has both addresses.
    fn to_both(port: u16) -> Udp {
        let mut udp = to(port);
        udp.attempts.take(Instant::now());
        udp.adopt(vec![(Ipv6Addr::LOCALHOST, port).into(), (Ipv4Addr::LOCALHOST, port).into()]);
        udp
    }

    #[test]
    fn a_first_message_that_is_too_long_is_no_refusal() {
        let collector = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let mut udp = to_both(collector.local_addr().expect("its address").port());
        assert_eq!(udp.session().expect("a session"), Session::New);
        let failure = udp.send(&mut message(&[0; 70_000])).expect_err("longer than any datagram");
        assert_eq!(failure.lost, Lost::This);
        assert_eq!(udp.session().expect("it goes on"), Session::Same);
        udp.send(&mut message(&[1])).expect("one that listens");
        let mut buffer = [0; 10];
        assert_eq!(collector.recv(&mut buffer).expect("a datagram"), 1);
    }

    #[test]
    fn a_message_for_one_of_several_addresses_fits_the_path_to_each() {
        // In a network of its own, which ends with the thread.
        let alone = thread::spawn(|| {
            let made = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).is_ok()
                && ["link set lo up", "route replace table local local 127.9.0.1 dev lo scope host mtu 600"]
                    .iter()
                    .all(|line| {
                        let ran = std::process::Command::new("ip").args(line.split(' ')).status();
                        ran.is_ok_and(|status| status.success())
                    });
            if !made {
                return crate::needs::skip_even_in_ci("a network of its own needs root and ip (iproute2)");
            }
            let collector = UdpSocket::bind("127.9.0.1:0").expect("a port");
            let port = collector.local_addr().expect("its address").port();
            let mut udp = to(port);
            udp.attempts.take(Instant::now());
            udp.adopt(vec![(Ipv4Addr::LOCALHOST, port).into(), (Ipv4Addr::new(127, 9, 0, 1), port).into()]);
            assert_eq!(udp.session().expect("a session"), Session::New);
            assert_eq!(udp.limit(), 572, "the way to the first address takes 1472");
            udp.send(&mut message(&[1; 572])).expect("the second one, as the first refuses");
            let mut buffer = [0; 1000];
            assert_eq!(collector.recv(&mut buffer).expect("a datagram"), 572);
            assert_eq!(udp.limit(), 572);
        });
        alone.join().expect("no panic inside");
    }

    #[test]
    fn of_several_addresses_the_one_that_listens_gets_every_message() {
        for host in ["127.0.0.1", "::1"] {
            let Ok(open) = UdpSocket::bind((host, 0)) else {
                crate::needs::skip_even_in_ci(&format!("this machine has no address {host}"));
                continue;
            };
            let port = open.local_addr().expect("its address").port();
            let mut buffer = [0; 10];
            let mut udp = to_both(port);
            assert_eq!(udp.session().expect("a session"), Session::New);
            assert_eq!(udp.limit(), 1452, "what fits both");
            for number in 0..3 {
                assert!(!udp.send(&mut message(&[number])).expect("one that listens"), "it may yet refuse");
                assert_eq!(open.recv(&mut buffer).expect("a datagram"), 1);
                assert_eq!(buffer[0], number);
                assert_eq!(udp.session().expect("one that listens"), Session::Same);
            }
            last_a_while(&mut udp);
            assert!(
                udp.send(&mut message(&[3])).expect("one that listens"),
                "nothing sent before is refused any more"
            );
            // It goes, and none is left: that is said once, and then they are left alone.
            drop(open);
            assert!(udp.send(&mut message(&[4])).is_ok(), "nobody knows yet");
            assert_refused(udp.session());
            assert_eq!(udp.session().expect("the other address"), Session::New);
            assert_eq!(udp.send(&mut message(&[5])).expect_err("refused by both").lost, Lost::This);
            assert_eq!(udp.session().expect("no attempt"), Session::Down);
            // It is back: the next round begins with it.
            let back = UdpSocket::bind((host, port)).expect("the port");
            udp.rested = udp.rested.map(|rested| rested - REST);
            assert_eq!(udp.session().expect("at once"), Session::New);
            assert!(udp.send(&mut message(&[6])).is_ok());
            assert_eq!(back.recv(&mut buffer).expect("a datagram"), 1);
            assert_eq!(buffer[0], 6);
            last_a_while(&mut udp);
            // It goes, and comes back where the other address is.
            drop(back);
            assert!(udp.send(&mut message(&[7])).is_ok(), "nobody knows yet");
            assert_eq!(udp.send(&mut message(&[8])).expect_err("refused").lost, Lost::Both);
            let other = UdpSocket::bind((if host == "::1" { "127.0.0.1" } else { "::1" }, port)).expect("it");
            assert_eq!(udp.session().expect("the other address"), Session::New);
            assert!(udp.send(&mut message(&[9])).is_ok());
            assert_eq!(other.recv(&mut buffer).expect("a datagram"), 1);
            assert_eq!(buffer[0], 9);
        }
    }

    /// As if the session's first message had left a while ago, and no refusal had come.
    fn last_a_while(udp: &mut Udp) {
        udp.begun = udp.begun.map(|begun| begun - REFUSAL_WAIT);
        assert_eq!(udp.session().expect("no refusal"), Session::Same);
    }

    fn assert_refused(session: Result<Session, NoSession>) {
        let Err(NoSession::Broken(error)) = session else { panic!("{session:?}") };
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn of_an_address_that_refuses_late_all_is_lost_and_the_next_one_takes_what_comes() {
        // A refusal from afar: the port closes only when the first messages are there.
        let first = UdpSocket::bind("[::1]:0").expect("a port");
        let port = first.local_addr().expect("its address").port();
        let second = UdpSocket::bind(("127.0.0.1", port)).expect("the same port");
        let mut outlet = Outlet::new("both".to_owned(), Box::new(to_both(port)));
        const ONE: Tally = Tally { records: 1, packets: 2, octets: 3 };
        assert_eq!(outlet.ready(after(0)), Ready::New);
        for number in 0..3 {
            assert!(outlet.send(&mut message(&[number]), ONE, after(1)));
        }
        drop(first);
        assert!(outlet.send(&mut message(&[3]), ONE, after(2)), "nobody knows yet");
        assert_eq!(outlet.ready(after(3)), Ready::New);
        assert_eq!((outlet.delivery().sent.records, outlet.delivery().lost.records), (0, 4));
        assert!(outlet.failure().expect("it is told").starts_with("sending to both: nobody listens"));
        assert!(outlet.send(&mut message(&[4]), ONE, after(4)));
        let mut buffer = [0; 10];
        assert_eq!(second.recv(&mut buffer).expect("a datagram"), 1);
        assert_eq!(buffer[0], 4);
        assert_eq!((outlet.delivery().sent.records, outlet.delivery().lost.records), (1, 4));
    }

    #[test]
    fn an_error_that_the_socket_holds_is_of_the_message_before() {
        let collector = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let port = collector.local_addr().expect("its address").port();
        let mut udp = to(port);
        udp.session().expect("a session");
        drop(collector);
        assert!(udp.send(&mut message(&[1])).is_ok());
        let collector = UdpSocket::bind(("127.0.0.1", port)).expect("the port");
        assert_eq!(udp.send(&mut message(&[2])).expect_err("the refusal of 1").lost, Lost::Earlier);
        let mut buffer = [0; 10];
        assert_eq!(collector.recv(&mut buffer).expect("a datagram"), 1);
        assert_eq!(buffer[0], 2, "sent all the same");
        let failure = udp.send(&mut message(&[0; 70_000])).expect_err("longer than any datagram");
        assert_eq!(failure.lost, Lost::This);
        assert!(udp.send(&mut message(&[3])).is_ok());
    }

    #[test]
    fn a_host_that_cannot_be_reached_is_not_tried_again_at_once() {
        let endpoint = Endpoint { host: "no host".to_owned(), port: 1 };
        let mut udp = Udp::new(endpoint, &ExportOptions::default());
        assert!(udp.session().is_err());
        assert_eq!(udp.session().expect("no attempt"), Session::Down);
    }
}
