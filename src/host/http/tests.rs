//! Time is an argument here too: the sockets are real, on loopback, and nobody's time runs out by waiting.

use std::net::{Ipv4Addr, SocketAddr};

use super::*;

const TIMEOUT: Duration = Duration::from_secs(5);
/// How long the kernel may take for what it does at once.
const LIMIT: Duration = Duration::from_secs(30);
const HALF: &[u8] = b"GET /small HTTP/1.1\r\nHost: localhost\r\n";
const WHOLE: &[u8] = b"GET /small HTTP/1.1\r\nHost: localhost\r\n\r\n";
/// More than the kernel keeps for both ends together.
const LARGE: usize = 32 << 20;

fn resources(path: &str) -> Answer {
    let (status, body) = match path {
        "/small" => (200, "small\n".to_string()),
        "/large" => (200, "x".repeat(LARGE)),
        _ => (404, "no\n".to_string()),
    };
    Answer { status, kind: PLAIN, body }
}

/// A server that is driven by hand.
struct Driven {
    server: Server<fn(&str) -> Answer>,
    address: SocketAddr,
    stopped: PipeReader,
    _stop: PipeWriter,
}

impl Driven {
    fn new() -> Driven {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let (stopped, _stop) = io::pipe().unwrap();
        let server = Server::new(listener, TIMEOUT, resources as fn(&str) -> Answer).unwrap();
        Driven { server, address, stopped, _stop }
    }

    /// A client that has sent `octets`.
    fn client(&self, octets: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.write_all(octets).unwrap();
        stream
    }

    /// Serves at `now`, as often as there is something to do, until this is so.
    fn serves_until(&mut self, now: Instant, what: &str, mut is_so: impl FnMut(&Self) -> bool) {
        let start = Instant::now();
        loop {
            self.server.turn(now);
            if is_so(self) {
                return;
            }
            assert!(start.elapsed() < LIMIT, "{what} did not happen");
            if self.server.open.is_empty() {
                thread::yield_now();
            } else {
                // Until the first deadline at the latest.
                self.server.wait(&self.stopped, now).unwrap();
            }
        }
    }

    /// What this client is sent until the end, served at `now`.
    fn sent_to(&mut self, mut client: TcpStream, now: Instant) -> String {
        client.set_nonblocking(true).unwrap();
        let mut octets = Vec::new();
        self.serves_until(now, "the end of an answer", |_| match client.read_to_end(&mut octets) {
            Ok(_) => true,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock, "after {octets:?}: {error}");
                false
            }
        });
        String::from_utf8(octets).unwrap()
    }

    /// So many clients that have sent half a request, accepted at `now`.
    fn half_sent(&mut self, count: usize, now: Instant) -> Vec<TcpStream> {
        let before = self.server.open.len();
        let clients = (0..count).map(|_| self.client(HALF)).collect();
        self.serves_until(now, "accepting", |driven| driven.server.open.len() == before + count);
        clients
    }
}

fn responded(head: &[u8]) -> Option<String> {
    respond(head, &mut resources).map(|octets| String::from_utf8(octets).unwrap())
}

/// Without the time of day, which it must have.
fn dateless(answer: &str) -> String {
    let (before, rest) = answer.split_once("Date: ").expect("a Date");
    let (date, after) = rest.split_once("\r\n").unwrap();
    assert!(date.len() == 29 && date.ends_with(" GMT"), "{date}");
    format!("{before}{after}")
}

#[test]
fn a_request_is_answered_with_status_type_length_and_content() {
    let answered = |head: &[u8]| dateless(&responded(head).unwrap());
    let fields = "Content-Type: text/plain; charset=utf-8\r\nContent-Length: 6\r\nConnection: close\r\n\r\n";
    assert_eq!(answered(WHOLE), format!("HTTP/1.1 200 OK\r\n{fields}small\n"));
    assert_eq!(
        answered(b"GET /small?a=b HTTP/1.0\n\n"),
        format!("HTTP/1.1 200 OK\r\n{fields}small\n"),
        "HTTP/1.0, bare line feeds (RFC 9112 \u{a7}2.2), a query"
    );
    assert_eq!(
        answered(b"HEAD /small HTTP/1.1\r\nHost: a\r\n\r\n"),
        format!("HTTP/1.1 200 OK\r\n{fields}"),
        "as with GET, and no content"
    );
    assert!(answered(b"GET /none HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404 Not Found\r\n"));
    assert_eq!(date(Timestamp::from_nanos(784_111_777_999_999_999)), "Sun, 06 Nov 1994 08:49:37 GMT");
}

#[test]
fn a_target_may_be_a_path_or_a_whole_address() {
    for target in [
        "/small",
        "http://localhost:9469/small",
        "HTTP://[::1]:9469/small?a=http://b/",
        "http://other.example/small",
    ] {
        let answer = responded(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).unwrap();
        assert!(
            answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\nsmall\n"),
            "{target}: {answer}"
        );
    }
    for (target, path) in [
        ("http://localhost", "/"),
        ("http://localhost?/small", "/"),
        ("http:///small", "/small"),
        ("http:/small", "http:/small"),
        ("https://localhost/small", "https://localhost/small"),
        ("/http://localhost/small", "/http://localhost/small"),
        ("/?a/b?c", "/"),
        ("", ""),
    ] {
        assert_eq!(super::path(target), path, "{target}");
    }
}

#[test]
fn what_is_no_request_for_a_resource_is_refused_with_its_status() {
    let long = format!("GET /{} HTTP/1.1\r\n", "a".repeat(HEAD_OCTETS));
    let fields = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(FIELDS + 1));
    for (head, status) in [
        (&b"POST /small HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab"[..], "405 Method Not Allowed"),
        (b"garbage\r\n\r\n", "400 Bad Request"),
        (b"GET /small\r\n\r\n", "400 Bad Request"),
        (b"GET /small HTTP/1.1\r\n: a\r\n\r\n", "400 Bad Request"),
        (b"\x16\x03\x01\x02\0\x01\0", "400 Bad Request"),
        (b"GET /small HTTP/3.0\r\n\r\n", "505 HTTP Version Not Supported"),
        (&long.as_bytes()[..HEAD_OCTETS], "431 Request Header Fields Too Large"),
        (fields.as_bytes(), "431 Request Header Fields Too Large"),
    ] {
        let answer = dateless(&responded(head).unwrap());
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{head:?}: {answer}");
        assert_eq!(answer.contains("\r\nAllow: GET, HEAD\r\n"), status.starts_with("405"), "{answer}");
        let (fields, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(fields.contains(&format!("\r\nContent-Length: {}\r\n", body.len())), "{answer}");
    }
}

#[test]
fn a_head_may_come_octet_by_octet_and_have_all_octets_that_it_may_have() {
    for length in 0..WHOLE.len() {
        assert_eq!(responded(&WHOLE[..length]), None, "{length} octets");
    }
    let mut largest = b"GET /small HTTP/1.1\r\nA: ".to_vec();
    largest.resize(HEAD_OCTETS - 4, b'a');
    assert_eq!(responded(&largest), None);
    largest.extend_from_slice(b"\r\n\r\n");
    let now = Instant::now();
    let mut driven = Driven::new();
    let client = driven.client(&largest);
    assert!(driven.sent_to(client, now).starts_with("HTTP/1.1 200 "));
}

#[test]
fn who_sends_too_long_a_head_reads_why_it_is_refused() {
    let now = Instant::now();
    let mut driven = Driven::new();
    let client = driven.client(&[b'a'; 10 * HEAD_OCTETS]);
    let answer = driven.sent_to(client.try_clone().unwrap(), now);
    assert!(answer.starts_with("HTTP/1.1 431 ") && answer.ends_with(" fields\n"), "{answer}");
    // A reset, which over a longer way takes the answer with it.
    assert!(client.take_error().unwrap().is_none());
    drop(client);
    driven.serves_until(now, "the end", |driven| driven.server.open.is_empty());
}

#[test]
fn who_has_sent_half_a_request_keeps_nobody_out_and_the_oldest_makes_room() {
    let now = Instant::now();
    let mut driven = Driven::new();
    let mut idle = driven.half_sent(CONNECTIONS, now);
    let whole = driven.client(WHOLE);
    assert!(driven.sent_to(whole, now).ends_with("\r\n\r\nsmall\n"));
    assert!(driven.server.open.len() <= CONNECTIONS);
    assert_eq!(idle.remove(0).read(&mut [0]).unwrap(), 0);
    let mut heard = idle.remove(0);
    heard.write_all(b"\r\n").unwrap();
    assert!(driven.sent_to(heard, now).ends_with("\r\n\r\nsmall\n"));
}

#[test]
fn a_slow_client_is_closed_when_its_time_is_up_however_often_it_sends() {
    let start = Instant::now();
    let mut driven = Driven::new();
    let mut slow = driven.half_sent(1, start).remove(0);
    let asked = |driven: &Driven| match driven.server.open.front().map(|one| &one.phase) {
        Some(Phase::Asking(head)) => head.len(),
        _ => 0,
    };
    let last = start + TIMEOUT - Duration::from_nanos(1);
    for now in [start + Duration::from_secs(1), start + Duration::from_secs(4), last] {
        let before = asked(&driven);
        slow.write_all(b"A").unwrap();
        driven.serves_until(now, "an octet", |driven| asked(driven) == before + 1);
    }
    driven.server.turn(start + TIMEOUT);
    assert!(driven.server.open.is_empty());
    assert_eq!(slow.read(&mut [0]).unwrap(), 0);
}

#[test]
fn who_does_not_take_the_answer_is_closed_when_its_time_is_up() {
    let start = Instant::now();
    let mut driven = Driven::new();
    let mut client = driven.client(b"GET /large HTTP/1.1\r\n\r");
    driven.serves_until(start, "accepting", |driven| driven.server.open.len() == 1);
    // The time for the answer begins when the request is there.
    let asked = start + TIMEOUT - Duration::from_secs(1);
    client.write_all(b"\n").unwrap();
    let is_answering =
        |driven: &Driven| matches!(driven.server.open[0].phase, Phase::Answering(_, sent) if sent > 0);
    driven.serves_until(asked, "an answer", is_answering);
    driven.server.turn(asked + TIMEOUT - Duration::from_nanos(1));
    assert!(is_answering(&driven));
    driven.server.turn(asked + TIMEOUT);
    assert!(driven.server.open.is_empty());
}

#[test]
fn who_goes_on_sending_after_the_answer_is_closed_when_its_time_is_up() {
    let start = Instant::now();
    let mut driven = Driven::new();
    let mut client = driven.client(WHOLE);
    let is_ending =
        |driven: &Driven| matches!(driven.server.open.front().map(|one| &one.phase), Some(Phase::Ending));
    driven.serves_until(start, "the answer", is_ending);
    client.write_all(&[0; 100]).unwrap();
    driven.server.turn(start + TIMEOUT - Duration::from_nanos(1));
    assert!(is_ending(&driven));
    driven.server.turn(start + TIMEOUT);
    assert!(driven.server.open.is_empty());
}

#[test]
fn accepting_that_fails_rests_and_is_tried_again() {
    let start = Instant::now();
    let mut driven = Driven::new();
    for (number, error) in [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::ECONNABORTED].iter().enumerate() {
        let now = start + Duration::from_secs(number as u64);
        assert!(!driven.server.take(Err(io::Error::from_raw_os_error(*error)), now));
        let client = driven.client(WHOLE);
        let mut events = [PollFd::new(&driven.server.listener, PollFlags::IN)];
        assert_eq!(poll(&mut events, Some(&Timespec::try_from(LIMIT).unwrap())), Ok(1), "it waits");
        driven.server.turn(now + REST - Duration::from_nanos(1));
        assert!(driven.server.open.is_empty(), "it is left to wait");
        assert!(driven.sent_to(client, now + REST).ends_with("\r\n\r\nsmall\n"));
        driven.serves_until(now + REST, "the end", |driven| driven.server.open.is_empty());
    }
    // The log has one state for all of it until it is steady again.
    assert!(driven.server.failed.is_some());
    let client = driven.client(WHOLE);
    assert!(driven.sent_to(client, start + Duration::from_secs(3) + STEADY).ends_with("small\n"));
    assert!(driven.server.failed.is_none());
}

#[test]
fn dropping_it_ends_the_thread_and_closes_its_sockets() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let serving = serve(listener, "served", TIMEOUT, resources).unwrap();
    let mut client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(LIMIT)).unwrap();
    client.write_all(WHOLE).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("\r\n\r\nsmall\n"), "{answer}");
    drop(serving);
    assert_eq!(TcpStream::connect(address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
}
