//! Network namespaces that a test makes for itself: two, with a veth pair between them, gone when it ends.

use std::fs::File;
use std::os::fd::AsFd;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// The interface of the sensor, in the namespace [`Network::near`].
pub const TAP: &str = "tap0";
/// The other end of the cable, in the namespace [`Network::far`].
pub const PEER: &str = "peer0";

/// Two namespaces and a cable between them.
pub struct Network {
    /// Where the sensor runs: 10.9.0.1 and fd09::1.
    pub near: String,
    /// Where traffic comes from: 10.9.0.2 and fd09::2.
    pub far: String,
    /// One test at a time: each wants the machine for itself.
    _alone: MutexGuard<'static, ()>,
}

static ALONE: Mutex<()> = Mutex::new(());

impl Network {
    /// Makes the namespaces; none, with the reason printed, where that cannot be done.
    pub fn new() -> Option<Network> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        for program in ["ip", "tcpreplay", "ping"] {
            if !super::installed(program) {
                super::skip(&format!("{program} is not installed"));
                return None;
            }
        }
        let unique = format!("ft{}x{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let network = Network { near: format!("{unique}n"), far: format!("{unique}f"), _alone: alone };
        for name in [&network.near, &network.far] {
            let made = Command::new("ip").args(["netns", "add", name]).output().expect("ip runs");
            if !made.status.success() {
                super::skip(&format!(
                    "no network namespace: {}",
                    String::from_utf8_lossy(&made.stderr).trim()
                ));
                return None;
            }
        }
        network.near("ip link set lo up");
        network.far("ip link set lo up");
        network.plug();
        Some(network)
    }

    /// Makes the veth pair, with addresses, up.
    pub fn plug(&self) {
        self.near(&format!("ip link add {TAP} type veth peer name {PEER} netns {}", self.far));
        self.near(&format!("ip addr add 10.9.0.1/24 dev {TAP}"));
        self.near(&format!("ip addr add fd09::1/64 dev {TAP} nodad"));
        self.far(&format!("ip addr add 10.9.0.2/24 dev {PEER}"));
        self.far(&format!("ip addr add fd09::2/64 dev {PEER} nodad"));
        self.near(&format!("ip link set {TAP} up"));
        self.far(&format!("ip link set {PEER} up"));
    }

    /// Makes a second veth pair beside the first, with 10.10.0.1 at the near end and 10.10.0.2 at the far one.
    pub fn plug_second(&self) {
        self.near(&format!("ip link add tap1 type veth peer name peer1 netns {}", self.far));
        self.near("ip addr add 10.10.0.1/24 dev tap1");
        self.far("ip addr add 10.10.0.2/24 dev peer1");
        self.near("ip link set tap1 up");
        self.far("ip link set peer1 up");
    }

    /// Takes the veth pair away.
    pub fn unplug(&self) {
        self.near(&format!("ip link del {TAP}"));
    }

    /// No IPv6 of its own on the cable, so that every frame on it is the test's.
    pub fn silence(&self) {
        for (namespace, interface) in [(&self.near, TAP), (&self.far, PEER)] {
            self.run(namespace, &format!("sysctl -qw net.ipv6.conf.{interface}.disable_ipv6=1"));
            self.run(namespace, &format!("ip link set {interface} arp off"));
        }
    }

    /// A command in a namespace.
    pub fn command(&self, namespace: &str, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace, program]).env_remove("RUST_LOG").stdin(Stdio::null());
        command
    }

    /// Runs a command line where the sensor is; it must succeed.
    pub fn near(&self, line: &str) -> Output {
        self.run(&self.near, line)
    }

    /// Runs a command line where the traffic comes from; it must succeed.
    pub fn far(&self, line: &str) -> Output {
        self.run(&self.far, line)
    }

    fn run(&self, namespace: &str, line: &str) -> Output {
        let mut words = line.split(' ');
        let program = words.next().expect("a program");
        let output = self.command(namespace, program).args(words).output().expect("ip runs");
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        output
    }

    /// Does something in the namespace of the sensor: a socket made there stays there.
    pub fn inside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let namespace = File::open(format!("/run/netns/{}", self.near)).expect("the namespace's file");
        // Of a thread that ends with it: a thread cannot leave a namespace without knowing the way back.
        let thread = std::thread::spawn(move || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).expect("root");
            work()
        });
        thread.join().expect("no panic inside")
    }

    /// A count of an interface, as the kernel has it.
    pub fn statistic(&self, namespace: &str, interface: &str, name: &str) -> u64 {
        let path = format!("/sys/class/net/{interface}/statistics/{name}");
        let output = self.run(namespace, &format!("cat {path}"));
        String::from_utf8_lossy(&output.stdout).trim().parse().expect("a number")
    }

    /// Sends a capture file `times` times from the far end, as fast as it goes; gives the frames that arrived.
    pub fn replay(&self, file: &std::path::Path, times: u32) -> u64 {
        let before = self.statistic(&self.near, TAP, "rx_packets");
        let output = self
            .command(&self.far, "tcpreplay")
            .args(["--preload-pcap", "--topspeed", "--quiet", "--intf1", PEER, "--loop", &times.to_string()])
            .arg(file)
            .output()
            .expect("tcpreplay runs");
        assert!(output.status.success(), "tcpreplay: {}", String::from_utf8_lossy(&output.stderr));
        self.statistic(&self.near, TAP, "rx_packets") - before
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for name in [&self.near, &self.far] {
            // It may never have come to be.
            let _ = Command::new("ip").args(["netns", "del", name]).stderr(Stdio::null()).status();
        }
    }
}
