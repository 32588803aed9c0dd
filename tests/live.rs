//! The live sensor in network namespaces of its own: what it captures is what was sent, to the packet.
//!
//! `FLOWTAP_CYCLES` sets how often the link goes and comes (5 unless told otherwise, in continuous integration 20).

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use common::metrics;
use common::namespace::{Network, PEER, TAP};
use common::{chatter, flowtap, in_ci, installed, rows, shared, skip};
use rustix::process::{Pid, Signal, kill_process};

/// How long anything here is waited for: only a run that fails takes so long, on a machine with other work too.
const LIMIT: Duration = Duration::from_secs(30);

/// A sensor that runs in a namespace.
struct Sensor {
    child: Child,
    stderr: Arc<Mutex<String>>,
    readers: (Option<JoinHandle<String>>, Option<JoinHandle<()>>),
}

/// What a sensor left behind.
struct Ended {
    stdout: String,
    stderr: String,
    counts: serde_json::Value,
    code: Option<i32>,
    took: Duration,
    /// The most memory it held, in MiB.
    memory: u64,
}

impl Sensor {
    /// Starts `flowtap live` on `interfaces` and waits until it captures.
    fn start(network: &Network, interfaces: &str, flags: &[&str]) -> Sensor {
        let mut child = network
            .command(&network.near, env!("CARGO_BIN_EXE_flowtap"))
            .args(["live", "-i", interfaces, "-vv", "--summary", "json"])
            .args(flags)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("ip runs");
        let mut out = child.stdout.take().expect("a pipe");
        let out = thread::spawn(move || {
            let mut text = String::new();
            out.read_to_string(&mut text).expect("text");
            text
        });
        let stderr = Arc::new(Mutex::new(String::new()));
        let error = BufReader::new(child.stderr.take().expect("a pipe"));
        let to = Arc::clone(&stderr);
        let error = thread::spawn(move || {
            for line in error.lines() {
                *to.lock().unwrap() += &(line.expect("text") + "\n");
            }
        });
        let sensor = Sensor { child, stderr, readers: (Some(out), Some(error)) };
        sensor.wait_for("capturing on", 1);
        sensor
    }

    fn log(&self) -> String {
        self.stderr.lock().unwrap().clone()
    }

    /// Waits until `words` have been logged so many times.
    fn wait_for(&self, words: &str, times: usize) {
        let what = format!("{words:?} {times} times in the log");
        until(&what, || {
            let log = self.log();
            (log.matches(words).count() >= times).then_some(()).ok_or(log)
        });
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it runs");
    }

    /// Does something while the sensor runs for 5 ms in 200 only, as a CPU quota has it; without control groups, which
    /// not every machine lets a test make.
    fn with_quota<T>(&self, work: impl FnOnce() -> T) -> T {
        let done = AtomicBool::new(false);
        let began = Instant::now();
        thread::scope(|scope| {
            scope.spawn(|| {
                // The limit is for work that panics.
                while !done.load(Ordering::Acquire) && began.elapsed() < Duration::from_secs(60) {
                    self.signal(Signal::STOP);
                    thread::sleep(Duration::from_millis(195));
                    self.signal(Signal::CONT);
                    thread::sleep(Duration::from_millis(5));
                }
            });
            let result = work();
            done.store(true, Ordering::Release);
            result
        })
    }

    /// Ends it by a signal.
    fn end(mut self, signal: Signal) -> Ended {
        let memory = self.memory();
        let began = Instant::now();
        self.signal(signal);
        let code = self.child.wait().expect("a child").code();
        let took = began.elapsed();
        let stdout = self.readers.0.take().expect("until now").join().expect("no panic");
        self.readers.1.take().expect("until now").join().expect("no panic");
        let stderr = self.log();
        let last = stderr.lines().last().unwrap_or_default();
        let counts = serde_json::from_str(last).unwrap_or_else(|error| panic!("{error} in {stderr}"));
        Ended { stdout, stderr, counts, code, took, memory }
    }

    /// The most memory it has held so far, in MiB.
    fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
        peak.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") / 1024
    }
}

impl Drop for Sensor {
    fn drop(&mut self) {
        // Already gone, but for a test that failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Ended {
    fn number(&self, pointer: &str) -> u64 {
        self.counts.pointer(pointer).and_then(serde_json::Value::as_u64).unwrap_or_else(|| {
            panic!("no number {pointer} in {}", self.counts);
        })
    }

    fn ignored(&self) -> u64 {
        ["link_type", "non_ip", "truncated", "malformed"]
            .iter()
            .map(|reason| self.number(&format!("/ignored/{reason}")))
            .sum()
    }

    /// Sent = metered + ignored + dropped, and what was received is what was read or dropped.
    fn accounts_for(&self, sent: u64) {
        let ignored = self.ignored();
        let dropped = self.number("/capture/dropped_by_kernel");
        let words = format!("{}", self.counts);
        assert_eq!(self.number("/frames"), self.number("/metered") + ignored, "{words}");
        assert_eq!(self.number("/capture/received"), self.number("/frames") + dropped, "{words}");
        assert_eq!(self.number("/metered") + ignored + dropped, sent, "{words}");
    }

    /// The figures of a run in one line.
    fn figures(&self, sent: u64) -> String {
        format!(
            "{sent} frames = {} metered + {} ignored + {} dropped; {} records, {} MiB of memory at most, ended {:.2} s \
             after the signal",
            self.number("/metered"),
            self.ignored(),
            self.number("/capture/dropped_by_kernel"),
            self.number("/records"),
            self.memory,
            self.took.as_secs_f64()
        )
    }
}

/// Polls until `done` is.
fn until(what: &str, mut done: impl FnMut() -> Result<(), String>) {
    let began = Instant::now();
    loop {
        match done() {
            Ok(()) => return,
            Err(found) => assert!(began.elapsed() < LIMIT, "no {what} within {LIMIT:?}: {found}"),
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// A capture file of UDP packets over IPv4: `conversations` times `packets`, taking turns, and one frame in
/// `arp_every` that is no IP.
fn traffic(path: &Path, conversations: u32, packets: u32, arp_every: u32) -> u32 {
    let mut file = Vec::new();
    for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, 1] {
        file.extend(word.to_le_bytes());
    }
    let mut count = 0_u32;
    let mut push = |frame: &[u8]| {
        for word in [1_700_000_000 + count / 1_000_000, count % 1_000_000] {
            file.extend(word.to_le_bytes());
        }
        for _ in 0..2 {
            file.extend((frame.len() as u32).to_le_bytes());
        }
        file.extend(frame);
        count += 1;
    };
    for round in 0..packets {
        for conversation in 0..conversations {
            let payload = 18 + (conversation % 5 * 60) as usize;
            let mut frame = vec![0_u8; 14 + 28 + payload];
            frame[..14].copy_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0]);
            frame[14..24].copy_from_slice(&[0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17]);
            frame[16..18].copy_from_slice(&((28 + payload) as u16).to_be_bytes());
            frame[26..30].copy_from_slice(&(0x0a10_0000 + conversation / 50_000).to_be_bytes());
            frame[30..34].copy_from_slice(&[10, 9, 0, 77]);
            frame[34..36].copy_from_slice(&((1_024 + conversation % 50_000) as u16).to_be_bytes());
            frame[36..38].copy_from_slice(&53_u16.to_be_bytes());
            frame[38..40].copy_from_slice(&((8 + payload) as u16).to_be_bytes());
            if round % 2 == 1 {
                // The other direction.
                let (source, destination) = (frame[26..30].to_vec(), frame[30..34].to_vec());
                frame[26..30].copy_from_slice(&destination);
                frame[30..34].copy_from_slice(&source);
                let (source, destination) = (frame[34..36].to_vec(), frame[36..38].to_vec());
                frame[34..36].copy_from_slice(&destination);
                frame[36..38].copy_from_slice(&source);
            }
            push(&frame);
            if arp_every > 0 && (round * conversations + conversation).is_multiple_of(arp_every) {
                let mut arp = [0_u8; 60];
                arp[..14].copy_from_slice(&[255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 2, 8, 6]);
                push(&arp);
            }
        }
    }
    fs::write(path, file).expect("room on the disk");
    count
}

/// What must be the same however the work was spread: per key packets and octets.
fn sums(csv: &str) -> BTreeMap<String, (u64, u64)> {
    let mut sums = BTreeMap::new();
    for row in csv.lines().skip(1) {
        let fields: Vec<&str> = row.split(',').collect();
        let sum: &mut (u64, u64) = sums.entry(fields[..5].join(",")).or_default();
        sum.0 += fields[5].parse::<u64>().expect("packets");
        sum.1 += fields[6].parse::<u64>().expect("octets");
    }
    sums
}

/// The records that the reference program finds in a file, or flowtap itself where there is none.
fn expected_rows(file: &Path, timeouts: &[(&str, &str)]) -> Vec<String> {
    let output = match shared() {
        Some(shared) => {
            let mut command = Command::new("python3");
            command.arg(shared.join("oracle/flows.py"));
            for (name, seconds) in timeouts {
                command.args([
                    format!("--{}", name.split('-').next_back().unwrap_or(name)),
                    (*seconds).to_string(),
                ]);
            }
            command.arg(file).output().expect("python3 runs")
        }
        None => flowtap().args(["read", "--to", "csv:-"]).arg(file).output().expect("flowtap runs"),
    };
    rows(&String::from_utf8_lossy(&output.stdout))
}

fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("frames.pcap");
    (folder, path)
}

/// Runs a sensor while `traffic` does what it does: its records must be those of the frames that it wrote.
fn compare_with_written(
    network: &Network,
    interfaces: &str,
    threads: &str,
    path: &Path,
    traffic: impl FnOnce(),
) -> Written {
    let write = path.to_string_lossy();
    let mut flags = vec!["--to", "csv:-", "--write", &write, "--capture-threads", threads];
    flags.extend(["--tcp-linger", "1s", "--buffer", "16M"]);
    let sensor = Sensor::start(network, interfaces, &flags);
    let began = Instant::now();
    traffic();
    let seconds = began.elapsed().as_secs_f64();
    let ended = sensor.end(Signal::TERM);
    let what = format!("{threads} threads on {interfaces}: {}", ended.stderr);
    assert_eq!(ended.code, Some(0), "{what}");
    let frames = ended.number("/frames");
    ended.accounts_for(frames);
    assert_eq!(ended.number("/capture/dropped_by_kernel"), 0, "{what}");
    let expected = expected_rows(path, &[("active", "60"), ("idle", "15"), ("linger", "1")]);
    assert_eq!(rows(&ended.stdout), expected, "{what}");
    eprintln!(
        "{threads} capture threads on {interfaces}, {seconds:.1} s of programs: {}; the records are the {} over what \
         was written",
        ended.figures(frames),
        expected.len()
    );
    Written(expected)
}

/// The records of what a sensor wrote.
struct Written(Vec<String>);

impl Written {
    /// Each program has left its mark: a record that begins with each of these.
    fn has(&self, beginnings: &[&str]) {
        for beginning in beginnings {
            assert!(
                self.0.iter().any(|row| row.starts_with(beginning)),
                "no record {beginning} in {:#?}",
                self.0
            );
        }
    }
}

/// Address, address, protocol and, where it is the server's, port of what [`chatter::talk`] brings about.
const CHATTER: [&str; 6] = [
    "10.9.0.1,10.9.0.2,6,8080,",
    "fd09::1,fd09::2,6,8080,",
    "10.9.0.1,10.9.0.2,17,53,",
    "fd09::1,fd09::2,6,53,",
    "10.9.0.1,10.9.0.2,6,5201,",
    "fd09::1,fd09::2,6,5201,",
];

#[test]
fn records_are_those_of_the_frames_written_at_the_same_time() {
    for threads in ["1", "2"] {
        for interfaces in [TAP, "tap0,lo"] {
            let Some(network) = Network::new() else { return };
            if !chatter::possible() {
                return;
            }
            let (_folder, path) = folder();
            let written =
                compare_with_written(&network, interfaces, threads, &path, || chatter::talk(&network));
            written.has(&CHATTER);
        }
    }
}

#[test]
fn any_takes_in_each_interface_and_its_records_are_those_of_the_frames_written() {
    let Some(network) = Network::new() else { return };
    if !chatter::possible() {
        return;
    }
    network.plug_second();
    let (_folder, path) = folder();
    let written = compare_with_written(&network, "any", "1", &path, || {
        network.far("ping -q -c 3 -i 0.05 10.10.0.1");
        network.near("ping -q -c 2 -i 0.05 127.0.0.1");
        chatter::talk(&network);
    });
    // Linux cooked capture, where an interface's own link type cannot stand (draft-ietf-opsawg-pcap, section 4).
    let header = fs::read(&path).expect("the file");
    assert_eq!(header[20..24], 276_u32.to_ne_bytes(), "LINKTYPE_LINUX_SLL2");
    written.has(&CHATTER);
    // Two directions of three each on the second cable; on loopback each packet counts once.
    written.has(&[
        "10.10.0.2,10.10.0.1,1,0,2048,3,",
        "10.10.0.1,10.10.0.2,1,0,0,3,",
        "127.0.0.1,127.0.0.1,1,0,2048,2,",
    ]);
}

#[test]
fn a_burst_is_metered_to_the_packet_and_two_threads_give_the_records_of_one() {
    let Some(network) = Network::new() else { return };
    network.silence();
    let (_folder, path) = folder();
    let once = traffic(&path, 1_000, 100, 1_000);
    let times = 10;
    let mut found = Vec::new();
    for threads in ["1", "2"] {
        let flags = [
            "--to",
            "csv:-",
            "--capture-threads",
            threads,
            "--idle-timeout",
            "5min",
            "--active-timeout",
            "1h",
        ];
        let sensor = Sensor::start(&network, TAP, &flags);
        let began = Instant::now();
        let sent = network.replay(&path, times);
        let seconds = began.elapsed().as_secs_f64();
        let ended = sensor.end(Signal::INT);
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        assert_eq!(sent, u64::from(once * times), "the cable itself dropped some");
        ended.accounts_for(sent);
        assert_eq!(ended.number("/capture/dropped_by_kernel"), 0, "{}", ended.stderr);
        assert_eq!(ended.number("/ignored/non_ip"), sent / 1_001, "{}", ended.stderr);
        let shares: Vec<u64> = ended
            .stderr
            .lines()
            .filter_map(|line| line.strip_suffix(" frames")?.split(": ").last()?.parse().ok())
            .collect();
        assert_eq!(shares.len().to_string(), threads, "{}", ended.stderr);
        assert!(shares.iter().all(|share| *share > sent / 10), "a thread stood idle: {shares:?}");
        let sums = sums(&ended.stdout);
        let counted: u64 = sums.values().map(|(packets, _)| packets).sum();
        assert_eq!(counted, ended.number("/metered"), "the sum of the records' packets");
        eprintln!(
            "{threads} capture threads, a burst of {seconds:.2} s, its loading included, {:.0} frames a second: {}; shares \
             {shares:?}",
            sent as f64 / seconds,
            ended.figures(sent)
        );
        found.push((ended.number("/records"), sums));
    }
    assert_eq!(found[0].0, 2_000, "two directions each");
    assert!(found[0] == found[1], "one thread and two differ");
}

#[test]
fn what_a_full_ring_drops_is_in_the_sums_the_log_the_metrics_and_the_records_of_both_collectors() {
    let Some(network) = Network::new() else { return };
    network.silence();
    let (folder, path) = folder();
    let once = traffic(&path, 100, 500, 0);
    // A ring of 13 MiB or more is left alone while it fills, and asked for its drops meanwhile.
    let small = ("1M", 2);
    let gathering = ("16M", 8);
    for (threads, is_stopped, (buffer, times)) in [
        ("1", true, small),
        ("2", true, small),
        ("1", false, small),
        ("2", false, small),
        ("1", true, gathering),
        ("2", true, gathering),
    ] {
        let messages = folder.path().join("records.ipfix");
        let to = format!("ipfix+file:{}", messages.display());
        let collector = network.inside(|| UdpSocket::bind("127.0.0.1:0").expect("a port"));
        let to_other = format!("netflow9+udp://{}", collector.local_addr().expect("bound"));
        let mut flags = vec!["--to", &to, "--to", &to_other, "--metrics=127.0.0.1:0"];
        flags.extend(["--buffer", buffer, "--statistics-interval", "1s", "--capture-threads", threads]);
        let sensor = Sensor::start(&network, TAP, &flags);
        let address = metrics::address(&sensor.log()).expect("metrics, before it captures");
        let began = Instant::now();
        let mut sent = if is_stopped {
            // A reader that does not come to read: deterministic, whatever the sender's speed.
            sensor.signal(Signal::STOP);
            let sent = network.replay(&path, times);
            sensor.signal(Signal::CONT);
            sent
        } else {
            sensor.with_quota(|| network.replay(&path, times))
        };
        sensor.wait_for("packets dropped in", 1);
        // And goes on afterwards.
        sent += network.replay(&path, 1);
        let seconds = began.elapsed().as_secs_f64();
        let mut shown = String::new();
        until("sum of what was sent in the metrics", || {
            shown = network.inside(move || metrics::get(address, "/metrics").1);
            // The kernel is asked for its counts now and then, so they come later than the others.
            let (sum, received) = ("flowtap_packets_total", "flowtap_capture_received_packets_total");
            let found = [sum, received].map(|name| metrics::metric(&shown, name, &[]));
            (found == [sent; 2]).then_some(()).ok_or_else(|| format!("{found:?} of {sent}"))
        });
        let ended = sensor.end(Signal::TERM);
        assert_eq!(sent, u64::from((times + 1) * once));
        ended.accounts_for(sent);
        let dropped = ended.number("/capture/dropped_by_kernel");
        // How many a quota drops is the machine's to say.
        assert!(dropped > if is_stopped { sent / 10 } else { 0 }, "{}", ended.stderr);
        let lines: Vec<&str> =
            ended.stderr.lines().filter(|line| line.contains("packets dropped in")).collect();
        let logged: u64 = lines
            .iter()
            .map(|line| {
                let words: Vec<&str> = line.split(' ').collect();
                let at = words.iter().position(|word| *word == "by").expect("by the kernel's ring");
                words[at - 1].replace(',', "").parse::<u64>().expect("a number")
            })
            .sum();
        assert_eq!(logged, dropped, "{lines:?}");
        // One an interval of a second, and one at the end.
        assert!(lines.len() as u64 <= began.elapsed().as_secs() + 2, "{lines:?}");
        let by_kernel = ["outcome=\"dropped\"", "reason=\"kernel\""];
        assert_eq!(metrics::metric(&shown, "flowtap_packets_total", &by_kernel), dropped, "{shown}");
        let told = ignored_packets(&fs::read(&messages).expect("the file"));
        assert_eq!(told.last(), Some(&dropped), "the last of {told:?}");
        let other_told = ignored_packets_netflow9(&waiting_at(&collector));
        assert_eq!(other_told.last(), Some(&dropped), "the last of {other_told:?}");
        eprintln!(
            "{threads} capture threads, a ring of {buffer} {}, {seconds:.1} s: {}; dropped in {} lines of \
             the log {logged}, in the metrics {dropped}, in the last of {} IPFIX records {dropped} and of {} NetFlow v9 \
             records {dropped}",
            if is_stopped { "not read for a while" } else { "read 5 ms in 200" },
            ended.figures(sent),
            lines.len(),
            told.len(),
            other_told.len(),
        );
    }
}

/// The values of ignoredPacketTotalCount (164) in the data records of IPFIX messages (RFC 7011 §3).
fn ignored_packets(mut messages: &[u8]) -> Vec<u64> {
    let word = |octets: &[u8], at: usize| u16::from_be_bytes([octets[at], octets[at + 1]]);
    let mut found = Vec::new();
    // Of a template: where the element lies in a record.
    let mut places: BTreeMap<u16, (usize, usize)> = BTreeMap::new();
    while messages.len() >= 16 {
        let (message, rest) = messages.split_at(usize::from(word(messages, 2)));
        messages = rest;
        let mut sets = &message[16..];
        while sets.len() >= 4 {
            let id = word(sets, 0);
            let (set, others) = sets.split_at(usize::from(word(sets, 2)));
            sets = others;
            let mut records = &set[4..];
            if id == 3 {
                while records.len() > 6 {
                    let (template, fields) = (word(records, 0), usize::from(word(records, 2)));
                    let mut offset = 0;
                    records = &records[6..];
                    for _ in 0..fields {
                        let (element, length) = (word(records, 0), usize::from(word(records, 2)));
                        if element == 164 {
                            places.insert(template, (offset, length));
                        }
                        offset += length;
                        records = &records[4..];
                    }
                }
            } else if let Some(&(offset, length)) = places.get(&id) {
                found.push(
                    records[offset..offset + length].iter().fold(0, |sum, one| sum << 8 | u64::from(*one)),
                );
            }
        }
    }
    found
}

/// The datagrams that wait at a socket: all that was sent, where the sender has ended.
fn waiting_at(socket: &UdpSocket) -> Vec<Vec<u8>> {
    socket.set_nonblocking(true).expect("a socket that can be asked");
    let mut datagrams = Vec::new();
    let mut buffer = [0; 2_000];
    while let Ok(length) = socket.recv(&mut buffer) {
        datagrams.push(buffer[..length].to_vec());
    }
    datagrams
}

/// The values of field type 164 in the options data records of NetFlow v9 packets (RFC 3954 §5, §6).
fn ignored_packets_netflow9(packets: &[Vec<u8>]) -> Vec<u64> {
    let word = |octets: &[u8], at: usize| u16::from_be_bytes([octets[at], octets[at + 1]]);
    let mut found = Vec::new();
    // Of an options template: where the field lies in a record.
    let mut places: BTreeMap<u16, (usize, usize)> = BTreeMap::new();
    for packet in packets {
        assert_eq!(word(packet, 0), 9, "the version");
        let mut sets = &packet[20..];
        while sets.len() >= 4 {
            let id = word(sets, 0);
            let (set, others) = sets.split_at(usize::from(word(sets, 2)));
            sets = others;
            let mut records = &set[4..];
            if id == 1 {
                // A template's own number, and the lengths in octets of its scope and of its options; up to three octets
                // pad the FlowSet.
                while records.len() >= 6 {
                    let (template, octets) =
                        (word(records, 0), usize::from(word(records, 2) + word(records, 4)));
                    let (fields, rest) = records[6..].split_at(octets);
                    records = rest;
                    let mut offset = 0;
                    for field in fields.chunks(4) {
                        let (kind, length) = (word(field, 0), usize::from(word(field, 2)));
                        if kind == 164 {
                            places.insert(template, (offset, length));
                        }
                        offset += length;
                    }
                }
            } else if let Some(&(offset, length)) = places.get(&id) {
                found.push(
                    records[offset..offset + length].iter().fold(0, |sum, one| sum << 8 | u64::from(*one)),
                );
            }
        }
    }
    found
}

#[test]
fn a_link_that_goes_and_comes_is_told_once_each_and_its_flows_go_on() {
    let Some(network) = Network::new() else { return };
    let usual = if in_ci() { 20 } else { 5 };
    let cycles: usize = std::env::var("FLOWTAP_CYCLES").ok().and_then(|n| n.parse().ok()).unwrap_or(usual);
    for threads in ["1", "2"] {
        let timeouts = ["--idle-timeout", "5min", "--active-timeout", "1h"];
        let flags = [&["--to", "csv:-", "--capture-threads", threads], &timeouts[..]].concat();
        let sensor = Sensor::start(&network, TAP, &flags);
        let ping = || network.far("ping -q -c 1 -W 2 10.9.0.1");
        ping();
        let mut slowest = Duration::ZERO;
        for cycle in 1..=cycles {
            network.near(&format!("ip link set {TAP} down"));
            sensor.wait_for("the link is down", cycle);
            network.near(&format!("ip link set {TAP} up"));
            sensor.wait_for("the link is up", cycle);
            ping();
            network.unplug();
            sensor.wait_for("is gone", cycle);
            network.plug();
            let began = Instant::now();
            sensor.wait_for("is back", cycle);
            slowest = slowest.max(began.elapsed());
            // The first thread tells for all; the others may be a moment behind it.
            sensor.wait_for("is open again", cycle * threads.parse::<usize>().expect("a number"));
            ping();
        }
        let ended = sensor.end(Signal::TERM);
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        ended.accounts_for(ended.number("/frames"));
        assert!(slowest < Duration::from_secs(5), "back after {slowest:?}");
        for words in ["the link is down", "the link is up", "is gone", "is back"] {
            assert_eq!(ended.stderr.matches(words).count(), cycles, "{words}: {}", ended.stderr);
        }
        let requests: Vec<&str> =
            ended.stdout.lines().filter(|row| row.starts_with("10.9.0.2,10.9.0.1,1,0,2048,")).collect();
        let packets = format!(",2048,{},", 1 + 2 * cycles);
        assert!(requests.len() == 1 && requests[0].contains(&packets), "{requests:#?}\n{}", ended.stderr);
        eprintln!(
            "{threads} capture threads, {cycles} times link down and up and interface away and back: back within {:.2} s; {}",
            slowest.as_secs_f64(),
            ended.figures(ended.number("/frames"))
        );
    }
}

#[test]
fn a_quiet_link_exports_on_time() {
    let Some(network) = Network::new() else { return };
    network.silence();
    let (_folder, path) = folder();
    // More records than a message holds: the first one leaves with the records, the last one after its own delay.
    let flows = traffic(&path, 100, 1, 0);
    for (interfaces, threads, shards) in
        [(TAP, "1", "0"), (TAP, "1", "3"), (TAP, "2", "1"), ("tap0,lo", "1", "1")]
    {
        let collector = network.inside(|| UdpSocket::bind("127.0.0.1:0").expect("a port"));
        collector.set_read_timeout(Some(Duration::from_millis(2_500))).expect("a timeout");
        let to = format!("ipfix+udp://{}", collector.local_addr().expect("bound"));
        let flags = ["--to", &to, "--idle-timeout", "1s", "--capture-threads", threads, "--shards", shards];
        let sensor = Sensor::start(&network, interfaces, &flags);
        let sent = network.replay(&path, 1);
        let began = Instant::now(); // no earlier than the last packet
        assert_eq!(sent, u64::from(flows));
        let mut arrived = Vec::new();
        let mut message = [0; 2_000];
        while let Ok((length, _)) = collector.recv_from(&mut message) {
            // Of the flows' domain, and not a template set, which has number 2 (RFC 7011 §3.3.2).
            if length > 20 && message[12..16] == [0, 0, 0, 1] && message[16] != 0 {
                arrived.push(began.elapsed());
            }
        }
        let (record, last) = (arrived[0], arrived[arrived.len() - 1]);
        assert!(record > Duration::from_millis(800), "too early: {record:?}");
        assert!(record < Duration::from_secs(2), "deadline and a second: {record:?}");
        assert!(last < Duration::from_secs(3), "and at most a second more: {last:?}");
        let ended = sensor.end(Signal::TERM);
        assert_eq!(ended.number("/records_by_end_reason/idle"), sent, "{}", ended.counts);
        eprintln!(
            "{threads} capture threads on {interfaces}, {shards} shards, quiet, idle timeout 1 s: first records after {:.2} s, the last \
             message of {} after {:.2} s; {}",
            record.as_secs_f64(),
            arrived.len(),
            last.as_secs_f64(),
            ended.figures(sent)
        );
    }
}

#[test]
fn with_a_million_live_flows_sigusr1_counts_sighup_opens_the_file_again_and_sigterm_exports_every_one() {
    let Some(network) = Network::new() else { return };
    network.silence();
    let (folder, path) = folder();
    let flows = 1_000_000;
    traffic(&path, flows, 1, 0);
    // Once it captures it is nobody, who is to make the file anew.
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).expect("its own folder");
    let (file, moved) = (folder.path().join("records.ipfix"), folder.path().join("records.ipfix.1"));
    let to = format!("ipfix+file:{}", file.display());
    let sensor = Sensor::start(&network, TAP, &["--to", &to, "--idle-timeout", "5min", "--buffer", "256M"]);
    let began = Instant::now();
    let sent = network.replay(&path, 1);
    let seconds = began.elapsed().as_secs_f64();
    // A line of counts a signal, until it has read all that was sent.
    let mut asked = 0;
    until("a million live flows", || {
        sensor.signal(Signal::USR1);
        asked += 1;
        sensor.wait_for(" live flows, ", asked);
        let log = sensor.log();
        let line = log.lines().rfind(|line| line.contains(" live flows, ")).expect("just found");
        line.contains("; 1,000,000 live flows, ").then_some(()).ok_or_else(|| line.to_string())
    });
    fs::rename(&file, &moved).expect("the file is there");
    sensor.signal(Signal::HUP);
    until("the file again", || file.exists().then_some(()).ok_or_else(|| sensor.log()));
    let ended = sensor.end(Signal::TERM);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    ended.accounts_for(sent);
    assert_eq!(sent, u64::from(flows));
    assert_eq!(ended.number("/records_by_end_reason/forced"), sent, "{}", ended.counts);
    assert_eq!(ended.number("/destinations/0/sent"), sent, "{}", ended.counts);
    let octets = [&file, &moved].map(|one| fs::metadata(one).expect("both are there").len());
    assert!(octets[0] > 40 * sent, "the new file has not all records: {octets:?}");
    eprintln!(
        "{sent} live flows, sent within {seconds:.1} s, their loading included: {}; {} octets in the file",
        ended.figures(sent),
        octets[0]
    );
    assert!(ended.took < Duration::from_secs(5), "it took {:?}", ended.took);
}

#[test]
fn own_export_is_not_metered_unless_asked_for() {
    let Some(network) = Network::new() else { return };
    for (scheme, flag, threads) in [
        ("ipfix+udp", None, "1"),
        ("netflow9+udp", None, "2"),
        ("ipfix+udp", Some("--meter-own-export"), "1"),
    ] {
        let collector = network.inside(|| UdpSocket::bind("127.0.0.1:0").expect("a port"));
        collector.set_read_timeout(Some(LIMIT)).expect("a timeout");
        let to = format!("{scheme}://{}", collector.local_addr().expect("bound"));
        let mut flags =
            vec!["--to", to.as_str(), "--statistics-interval", "1s", "--capture-threads", threads];
        flags.extend(flag);
        let sensor = Sensor::start(&network, "lo", &flags);
        // What else passes there is metered.
        network.near("ping -q -c 1 127.0.0.1");
        for _ in 0..4 {
            collector.recv_from(&mut [0; 2_000]).expect("a message");
        }
        let ended = sensor.end(Signal::TERM);
        // On loopback each packet counts once, though it goes out and comes in; a ping is two.
        ended.accounts_for(ended.number("/frames"));
        match flag {
            None => assert_eq!(ended.number("/frames"), 2, "{}", ended.counts),
            Some(_) => assert!(ended.number("/frames") >= 2 + 4, "{}", ended.counts),
        }
        let meters = if flag.is_some() { "metered" } else { "left out" };
        eprintln!("{scheme} on lo, own export {meters}: {}", ended.figures(ended.number("/frames")));
    }
}

#[test]
fn interfaces_are_listed_with_link_type_state_and_addresses() {
    let Some(network) = Network::new() else { return };
    let list =
        || String::from_utf8(network.near(&format!("{} interfaces", env!("CARGO_BIN_EXE_flowtap"))).stdout);
    let text = list().expect("text");
    let row = text.lines().find(|line| line.starts_with(TAP)).unwrap_or_else(|| panic!("no {TAP} in {text}"));
    for words in ["Ethernet", " up ", "10.9.0.1/24", "fd09::1/64"] {
        assert!(row.contains(words), "no {words:?} in {row}");
    }
    assert!(text.lines().last().is_some_and(|line| line.starts_with("any ")), "{text}");
    network.far(&format!("ip link set {PEER} down"));
    assert!(list().expect("text").contains("no carrier"), "{text}");
}

#[test]
fn interfaces_of_two_link_types_are_written_into_a_pcapng_file_and_not_into_a_pcap_file() {
    let Some(network) = Network::new() else { return };
    if !installed("python3") {
        return skip("python3 is not installed");
    }
    // An interface without link headers, up for as long as somebody holds it (TUNSETIFF: IFF_TUN, IFF_NO_PI).
    const HOLD_TUN: &str = "import fcntl, os, struct, time; \
        tun = os.open('/dev/net/tun', os.O_RDWR); \
        fcntl.ioctl(tun, 0x400454ca, struct.pack('16sH22x', b'tun0', 0x1001)); \
        time.sleep(600)";
    let mut holder = chatter::Server::start(network.command(&network.near, "python3").args(["-c", HOLD_TUN]));
    let mut gone = false;
    until("tun interface", || {
        gone = holder.0.try_wait().expect("a child").is_some();
        let shown =
            network.command(&network.near, "ip").args(["link", "show", "tun0"]).output().expect("ip runs");
        (gone || shown.status.success()).then_some(()).ok_or_else(|| "not yet".to_string())
    });
    if gone {
        return skip("no tun interface");
    }
    network.near("ip link set tun0 up");
    let (_folder, path) = folder();
    let output = network
        .command(&network.near, env!("CARGO_BIN_EXE_flowtap"))
        .args(["live", "-i", "tap0,tun0", "--write"])
        .arg(&path)
        .output()
        .expect("ip runs");
    assert_eq!(output.status.code(), Some(1));
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(words.contains("tap0 has link type 1 and tun0 has 101") && words.contains(".pcapng"), "{words}");
    assert!(!path.exists(), "nothing was written");

    // What is sent into tun0 leaves by it, and nobody answers.
    network.near("ip addr add 10.11.0.1/24 dev tun0");
    let path = path.with_extension("pcapng");
    let written = compare_with_written(&network, "tap0,tun0", "2", &path, || {
        network.far("ping -q -c 3 -i 0.05 10.9.0.1");
        let unanswered = network
            .command(&network.near, "ping")
            .args(["-q", "-c", "2", "-i", "0.05", "-W", "1", "10.11.0.2"])
            .output();
        assert_eq!(unanswered.expect("ip runs").status.code(), Some(1), "nobody answers");
    });
    written.has(&[
        "10.9.0.2,10.9.0.1,1,0,2048,3,",
        "10.9.0.1,10.9.0.2,1,0,0,3,",
        "10.11.0.1,10.11.0.2,1,0,2048,2,",
    ]);
}

#[test]
fn an_interface_that_does_not_exist_is_an_error_that_names_it() {
    let Some(network) = Network::new() else { return };
    let output = network
        .command(&network.near, env!("CARGO_BIN_EXE_flowtap"))
        .args(["live", "-i", "nosuch0"])
        .output()
        .expect("ip runs");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("nosuch0"));
}
