//! Programs that the tests start: on free ports, waited for until they listen, ended by their process number.

use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;

use super::wait_for;

/// A running program; ended with all that it started when it is dropped.
pub struct Program {
    name: String,
    child: Child,
    ended: bool,
}

impl Program {
    /// Starts a program whose two outputs go to `log`, in a process group of its own.
    pub fn start(command: &mut Command, log: &Path) -> Program {
        let name = command.get_program().to_string_lossy().into_owned();
        let file = fs::File::create(log).unwrap_or_else(|error| panic!("{}: {error}", log.display()));
        let other = file.try_clone().expect("a second handle");
        let child = command
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(other)
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("starting {name}: {error}"));
        Program { name, child, ended: false }
    }

    /// Ends the program by a signal and waits until it is gone.
    pub fn end(&mut self, signal: &str) -> ExitStatus {
        self::signal(&self.child, signal);
        self.wait()
    }

    /// Waits until the program ends.
    pub fn wait(&mut self) -> ExitStatus {
        let name = format!("the end of {}", self.name);
        let status = wait_for(&name, || self.child.try_wait().expect("a child of ours"));
        self.ended = true;
        status
    }

    /// Whether it runs still.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().expect("a child of ours").is_none()
    }
}

/// Sends a signal, `INT` or `TERM`, to a child of ours.
pub fn signal(child: &Child, signal: &str) {
    let sent = kill(&[&format!("-{signal}"), &child.id().to_string()]);
    assert!(sent, "sending {signal} to process {}", child.id());
}

/// Waits until a flowtap has its handlers of SIGINT and SIGTERM, the later of which is that of SIGTERM, and sleeps.
pub fn wait_until_it_waits(process: u32) {
    const SIGTERM: u32 = 15;
    wait_for("flowtap to wait", || {
        let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
        let of = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let caught = u64::from_str_radix(of("SigCgt:")?, 16).ok()?;
        (caught >> (SIGTERM - 1) & 1 == 1 && of("State:")?.starts_with('S')).then_some(())
    });
}

fn kill(arguments: &[&str]) -> bool {
    // The shell's own: every system has it, and the standard library can only kill.
    let words = format!("kill {}", arguments.join(" "));
    Command::new("sh")
        .args(["-c", &words])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

impl Drop for Program {
    fn drop(&mut self) {
        if !self.ended {
            // What it forked is in its group, and nothing else is.
            kill(&["-KILL", &format!("-{}", self.child.id())]);
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Of each port that was given out: a TCP listener with its number, which keeps it from other runs of the tests, too. UDP
/// has ports of its own, so it is in no collector's way.
static KEPT: Mutex<Vec<TcpListener>> = Mutex::new(Vec::new());

/// A UDP port on loopback that nobody listens on.
pub fn free_udp_port() -> u16 {
    // Those that sockets get which name none: one of them could be gone before its collector has it.
    let file = "/proc/sys/net/ipv4/ip_local_port_range";
    let range = fs::read_to_string(file).expect("a Linux with /proc");
    let limits: Vec<u16> = range.split_whitespace().map(|limit| limit.parse().expect("a port")).collect();
    let [first, last] = limits[..] else { panic!("{file}: {range:?}") };
    let mut kept = KEPT.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    // Where they are nearly all there are, one of them has to do.
    for port in (1024..first).rev().chain(last.saturating_add(1)..=u16::MAX).chain(first..=last) {
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port))
            && UdpSocket::bind(("127.0.0.1", port)).is_ok()
        {
            kept.push(listener);
            return port;
        }
    }
    panic!("no port is free");
}

/// A socket as the kernel lists it.
#[derive(Clone, Copy, Debug)]
pub struct Listed {
    /// Octets that wait to be read.
    pub waiting: u64,
    /// Datagrams that found no room.
    pub dropped: u64,
}

/// The UDP socket over IPv4 that is bound to this port, if there is one.
pub fn udp_socket(port: u16) -> Option<Listed> {
    let table = fs::read_to_string("/proc/net/udp").expect("a Linux with /proc");
    let bound = format!(":{port:04X}");
    let line = table.lines().skip(1).find(|line| {
        let mut columns = line.split_whitespace().skip(1);
        columns.next().is_some_and(|local| local.ends_with(&bound))
            && columns.next().is_some_and(|remote| remote.ends_with(":0000"))
    })?;
    let columns: Vec<&str> = line.split_whitespace().collect();
    let (_, waiting) = columns[4].split_once(':').expect("tx:rx");
    Some(Listed {
        waiting: u64::from_str_radix(waiting, 16).expect("a number"),
        dropped: columns.last().expect("a last column").parse().expect("a number"),
    })
}

/// Waits until a collector listens on this port.
pub fn wait_for_listener(port: u16) {
    wait_for(&format!("a collector on port {port}"), || udp_socket(port));
}

/// Waits until a collector has taken all that came to its port; the datagrams it missed for want of room.
pub fn missed_when_read(port: u16) -> u64 {
    wait_for(&format!("the collector on port {port} to read what came"), || {
        let socket = udp_socket(port).unwrap_or_else(|| panic!("the collector on port {port} has gone"));
        (socket.waiting == 0).then_some(socket.dropped)
    })
}

/// Waits until a collector has taken all that came to its port; it must not have missed a datagram.
pub fn wait_until_read(port: u16) {
    assert_eq!(missed_when_read(port), 0, "datagrams that found no room at port {port}");
}
