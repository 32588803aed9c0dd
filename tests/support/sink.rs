//! Collectors of our own: sockets of the test, which keep every message just as it came.

use std::io::Read;
use std::net::{TcpListener, UdpSocket};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// How long a receive waits before it looks whether the sender has ended.
const LOOK: Duration = Duration::from_millis(20);

/// A UDP socket on loopback with room for much.
pub struct UdpSink {
    socket: UdpSocket,
}

impl UdpSink {
    pub fn new(host: &str) -> UdpSink {
        let socket = UdpSocket::bind((host, 0)).unwrap_or_else(|error| panic!("binding {host}: {error}"));
        // The kernel gives what it allows; the test's thread reads at once besides.
        rustix::net::sockopt::set_socket_recv_buffer_size(&socket, 8 << 20).expect("a larger buffer");
        socket.set_read_timeout(Some(LOOK)).expect("a timeout");
        UdpSink { socket }
    }

    pub fn port(&self) -> u16 {
        self.socket.local_addr().expect("its address").port()
    }

    /// Runs a program and gives what it printed and the datagrams that came while it ran.
    pub fn run(&self, command: &mut Command) -> (Output, Vec<Vec<u8>>) {
        let ended = AtomicBool::new(false);
        thread::scope(|scope| {
            let datagrams = scope.spawn(|| self.receive(&ended));
            let output = command.stdin(Stdio::null()).output();
            ended.store(true, Ordering::Release);
            let output = output.expect("flowtap runs");
            (output, datagrams.join().expect("no panic"))
        })
    }

    fn receive(&self, ended: &AtomicBool) -> Vec<Vec<u8>> {
        let mut datagrams = Vec::new();
        let mut buffer = vec![0; 1 << 16];
        loop {
            let last = ended.load(Ordering::Acquire);
            match self.socket.recv(&mut buffer) {
                Ok(length) => datagrams.push(buffer[..length].to_vec()),
                // On loopback what was sent before the sender ended is there by now.
                Err(_) if last => return datagrams,
                Err(_) => {}
            }
        }
    }
}

/// A TCP listener on loopback.
pub struct TcpSink {
    listener: TcpListener,
}

impl TcpSink {
    pub fn new() -> TcpSink {
        TcpSink { listener: TcpListener::bind("127.0.0.1:0").expect("a port") }
    }

    pub fn port(&self) -> u16 {
        self.listener.local_addr().expect("its address").port()
    }

    /// Runs a program and gives what it printed and the octets of its one connection, to the end or until `most`
    /// octets came, when the connection is dropped with whatever came after unread.
    pub fn run(&self, command: &mut Command, most: usize) -> (Output, Vec<u8>) {
        self.listener.set_nonblocking(true).expect("a socket that can be asked");
        let ended = AtomicBool::new(false);
        thread::scope(|scope| {
            let octets = scope.spawn(|| {
                let mut octets = Vec::new();
                loop {
                    let last = ended.load(Ordering::Acquire);
                    match self.listener.accept() {
                        Ok((stream, _)) => {
                            stream.set_nonblocking(false).expect("a stream that waits");
                            stream.take(most as u64).read_to_end(&mut octets).expect("a stream to its end");
                            return octets;
                        }
                        Err(_) if last => return octets,
                        Err(_) => thread::sleep(Duration::from_millis(2)),
                    }
                }
            });
            let output = command.stdin(Stdio::null()).output();
            ended.store(true, Ordering::Release);
            (output.expect("flowtap runs"), octets.join().expect("no panic"))
        })
    }
}
