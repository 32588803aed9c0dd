//! Real programs that talk across the cable of a [`Network`]: curl, dig, iperf3 and ping, over both IP versions.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::namespace::Network;
use super::{installed, root, skip};

/// The addresses of the near end.
const SERVERS: [&str; 2] = ["10.9.0.1", "fd09::1"];

/// Whether all of the programs are there; else the reason is printed.
pub fn possible() -> bool {
    for (program, package) in
        [("python3", "python3"), ("curl", "curl"), ("dig", "bind9-dnsutils"), ("iperf3", "iperf3")]
    {
        if !installed(program) {
            skip(&format!("{program} (Debian: {package}) is not installed"));
            return false;
        }
    }
    true
}

/// Lets the programs talk: TCP short and long, DNS over UDP and TCP, UDP in fragments, echoes whole and in fragments.
///
/// The last packet comes more than a second after the last connection has ended.
pub fn talk(network: &Network) {
    fetch(network);
    resolve(network);
    transfer(network);
    network.far("ping -q -c 4 -i 0.05 -s 4000 10.9.0.1");
    network.far("ping -q -c 4 -i 0.05 -s 4000 fd09::1");
    network.far("ping -q -c 8 -i 0.2 10.9.0.1");
}

/// Pages by curl, two connections a round.
fn fetch(network: &Network) {
    let mut server = network.command(&network.near, "python3");
    server.args(["-u", "-m", "http.server", "--bind", "::", "8080"]).current_dir(root().join("pcaps"));
    let mut server = Server::start(&mut server);
    let pages = SERVERS.map(|host| format!("http://{}:8080/README.md", bracketed(host)));
    let line = format!("curl -sS -o /dev/null {} {}", pages[0], pages[1]);
    server.answers(|| run(network, &line));
    for _ in 0..5 {
        network.far(&line);
    }
}

fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_string() }
}

/// Questions by dig, each over UDP and over TCP.
fn resolve(network: &Network) {
    let (datagrams, connections) = network.inside(|| {
        let datagrams = UdpSocket::bind("[::]:53").expect("port 53");
        (datagrams, TcpListener::bind("[::]:53").expect("port 53"))
    });
    // Of each transport as many as are asked below; a datagram may be asked for again, and dig tries once.
    let asked = SERVERS.len() * ANSWERS.len();
    thread::scope(|scope| {
        scope.spawn(|| serve_datagrams(&datagrams, asked));
        scope.spawn(|| serve_connections(&connections, asked));
        for server in SERVERS {
            for (kind, expected) in [("A", "192.0.2.53"), ("AAAA", "2001:db8::53")] {
                for transport in ["+notcp", "+tcp"] {
                    let line =
                        format!("dig +short +tries=1 +time=10 {transport} @{server} tap.example {kind}");
                    let answer = network.far(&line).stdout;
                    assert_eq!(String::from_utf8_lossy(&answer).trim(), expected, "{line}");
                }
            }
        }
    });
}

/// How long the name server waits for a question, so that a test that fails ends.
const LIMIT: Duration = Duration::from_secs(20);

/// Types of records and their data (RFC 1035 §3.4.1, RFC 3596 §2.2).
const ANSWERS: [(u16, &[u8]); 2] =
    [(1, &[192, 0, 2, 53]), (28, &[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x53])];

fn serve_datagrams(socket: &UdpSocket, times: usize) {
    socket.set_read_timeout(Some(LIMIT)).expect("a timeout");
    let mut query = [0; 512];
    for _ in 0..times {
        let (length, from) = socket.recv_from(&mut query).expect("a question");
        socket.send_to(&answer(&query[..length]), from).expect("it is sent");
    }
}

/// A message on a stream is preceded by its length (RFC 1035 §4.2.2).
fn serve_connections(listener: &TcpListener, times: usize) {
    listener.set_nonblocking(true).expect("a listener that can be asked");
    for _ in 0..times {
        let began = Instant::now();
        let mut stream: TcpStream = loop {
            match listener.accept() {
                Ok((stream, _)) => break stream,
                Err(error) => assert!(began.elapsed() < LIMIT, "no connection within {LIMIT:?}: {error}"),
            }
            thread::sleep(Duration::from_millis(2));
        };
        stream.set_nonblocking(false).expect("a stream that waits");
        stream.set_read_timeout(Some(LIMIT)).expect("a timeout");
        let mut length = [0; 2];
        stream.read_exact(&mut length).expect("a length");
        let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut query).expect("a question");
        let answer = answer(&query);
        let length = u16::try_from(answer.len()).expect("a short answer").to_be_bytes();
        stream.write_all(&[&length[..], &answer].concat()).expect("it is sent");
    }
}

/// The answer to a query of one question (RFC 1035 §4.1).
fn answer(query: &[u8]) -> Vec<u8> {
    let labels = query[12..].iter().position(|octet| *octet == 0).expect("the root label");
    let question = &query[12..12 + labels + 5];
    let kind = u16::from_be_bytes([question[labels + 1], question[labels + 2]]);
    let (_, data) = ANSWERS.iter().find(|(known, _)| *known == kind).expect("a type that is known");
    let mut answer = query[..2].to_vec();
    answer.extend([0x84, 0, 0, 1, 0, 1, 0, 0, 0, 0]); // an authoritative answer; one question, one record
    answer.extend(question);
    answer.extend([0xc0, 12]); // the name: that of the question
    answer.extend(&question[labels + 1..]);
    answer.extend(60_u32.to_be_bytes());
    answer.extend(u16::try_from(data.len()).expect("16 at most").to_be_bytes());
    answer.extend(*data);
    answer
}

/// Octets by iperf3: over TCP, and over UDP in datagrams that are longer than the path's MTU.
fn transfer(network: &Network) {
    let mut server = Server::start(network.command(&network.near, "iperf3").args(["-s", "-p", "5201"]));
    for host in SERVERS {
        for flags in ["-n 2M", "-u -l 4000 -n 400K -b 200M"] {
            // It serves one at a time, and is busy for a moment after each.
            server.answers(|| run(network, &format!("iperf3 -c {host} -p 5201 {flags}")));
        }
    }
}

/// A command line where the traffic comes from, which may fail.
fn run(network: &Network, line: &str) -> Output {
    let mut words = line.split(' ');
    let program = words.next().expect("a program");
    network.command(&network.far, program).args(words).output().expect("ip runs")
}

/// A program that serves and ends with the test.
pub struct Server(pub Child);

impl Server {
    /// Starts it; what it says is not kept.
    pub fn start(command: &mut Command) -> Server {
        Server(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("ip runs"))
    }

    /// Asks until the answer is good; it fails when the server has ended or never gives one.
    fn answers(&mut self, mut ask: impl FnMut() -> Output) {
        let began = Instant::now();
        loop {
            let output = ask();
            if output.status.success() {
                return;
            }
            let words = [output.stdout, output.stderr].map(|one| String::from_utf8_lossy(&one).into_owned());
            assert!(self.0.try_wait().expect("a child").is_none(), "the server ended: {words:?}");
            assert!(began.elapsed() < LIMIT, "no good answer within {LIMIT:?}: {words:?}");
            thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Already gone, but for a test that failed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
