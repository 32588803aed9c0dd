//! The command line as a script meets it: what is read, what is refused, what is said and returned.

mod common;
mod support;

use std::fs;
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use common::{captures, flowtap, root, rows, summary};
use support::capture::{
    self, ACK, Capture, ETHERNET, RAW_IP, SYN, ethernet, flow_port, flow_source, ipv4, tcp, udp,
};
use support::process::{signal, wait_until_it_waits};
use support::record::{self, Record, assert_same, from_csv};
use support::{wait_for, words};

/// 2023-11-14 22:13:20 UTC in nanoseconds.
const START: u64 = 1_700_000_000 * 1_000_000_000;

/// Octets of the last record in `ping.pcap`, its header included.
const LAST_PING_RECORD: usize = 16 + 166;

fn pcaps(name: &str) -> PathBuf {
    root().join("pcaps").join(name)
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn read() -> Command {
    let mut command = flowtap();
    command.args(["read", "--summary", "json", "--to", "csv:-"]).stdin(Stdio::null());
    command
}

fn run(command: &mut Command) -> Output {
    command.output().expect("flowtap runs")
}

/// Gives `octets` on standard input.
fn run_with_input(command: &mut Command, octets: &[u8]) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("flowtap runs");
    let mut pipe = child.stdin.take().expect("a pipe");
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // A run that ends early closes the pipe.
            let _ = pipe.write_all(octets);
        });
        child.wait_with_output().expect("an end")
    })
}

fn assert_clean(output: &Output) -> serde_json::Value {
    assert_eq!(output.status.code(), Some(0), "{}", words(&output.stderr));
    summary(output)
}

#[test]
fn a_directory_means_the_captures_in_it_by_their_first_octets() {
    let folder = folder();
    for (from, to) in [("ping.pcap", "b.pcap"), ("dns.pcap.gz", "no-suffix"), ("web-https.pcapng", "c.dat")] {
        fs::copy(pcaps(from), folder.path().join(to)).expect("room on the disk");
    }
    fs::write(folder.path().join("notes.txt"), "not a capture").expect("room on the disk");
    fs::create_dir(folder.path().join("below")).expect("a directory");
    fs::copy(pcaps("ssh.pcap"), folder.path().join("below/ssh.pcap")).expect("room on the disk");
    let output = run(read().arg(folder.path()));
    let report = assert_clean(&output);
    assert_eq!(report["frames"], 20 + 32 + 70, "frames of the three captures, not of the one below");
    let said = words(&output.stderr);
    assert!(said.contains("notes.txt"), "what is no capture is named in a note: {said}");
    let direct = run(read().args([pcaps("ping.pcap"), pcaps("dns.pcap.gz"), pcaps("web-https.pcapng")]));
    assert_eq!(rows(&words(&output.stdout)), rows(&words(&direct.stdout)));
}

#[test]
fn standard_input_is_read_whatever_its_format() {
    for capture in captures(&root().join("pcaps")) {
        let octets = fs::read(&capture).expect("the capture");
        let output = run_with_input(read().arg("-"), &octets);
        assert_clean(&output);
        let name = capture.display();
        assert_same(
            &format!("{name} on standard input"),
            &record::beside(&capture),
            &from_csv(&words(&output.stdout)),
        );
    }
}

#[test]
fn standard_input_and_a_file_are_merged_by_time() {
    let dns = fs::read(pcaps("dns.pcap.gz")).expect("the capture");
    let output = run_with_input(read().arg("-").arg(pcaps("ping.pcap")), &dns);
    assert_clean(&output);
    let files = run(read().args([pcaps("dns.pcap.gz"), pcaps("ping.pcap")]));
    assert_eq!(rows(&words(&output.stdout)), rows(&words(&files.stdout)));
}

#[test]
fn what_cannot_be_read_is_named_and_the_other_files_are_complete() {
    let folder = folder();
    let write = |name: &str, octets: &[u8]| {
        fs::write(folder.path().join(name), octets).expect("room on the disk");
    };
    write("empty.pcap", &[]);
    write("garbage.pcap", b"this is no capture, whatever its name says, and long enough for a header");
    let ping = fs::read(pcaps("ping.pcap")).expect("the capture");
    write("cut.pcap", &ping[..ping.len() - 5]);
    write("short.pcap", &ping[..20]);
    for (name, frames) in
        [("missing.pcap", 0), ("empty.pcap", 0), ("garbage.pcap", 0), ("short.pcap", 0), ("cut.pcap", 19)]
    {
        let bad = folder.path().join(name);
        let output = run(read().arg(&bad).arg(pcaps("dns.pcap.gz")));
        let said = words(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{name}: {said}");
        let line = said.lines().find(|line| line.starts_with("flowtap: ") && line.contains(name));
        assert!(line.is_some(), "{name} is not named: {said}");
        let report = summary(&output);
        assert_eq!(report["frames"], frames + 32, "{name}: {report}");
        assert_eq!(report["damaged"].as_array().map(Vec::len), Some(1), "{name}: {report}");
        if frames == 0 {
            let found = from_csv(&words(&output.stdout));
            assert_same(&format!("beside {name}"), &record::beside(&pcaps("dns.pcap.gz")), &found);
        } else {
            // The last frame begins where its record header does.
            let offset = (ping.len() - LAST_PING_RECORD).to_string();
            assert!(
                line.is_some_and(|line| line.contains(&offset)),
                "{name}: no offset {offset} in {line:?}"
            );
        }
    }
}

#[test]
fn a_file_that_another_program_reads_first_is_refused_with_what_to_do() {
    let folder = folder();
    for (octets, advice) in [
        (
            &b"\xfd7zXZ\0\0"[..],
            "no capture: xz compressed, decompress it first (xz -dc FILE | flowtap read -)",
        ),
        (
            b"BZh91AY&SY",
            "no capture: bzip2 compressed, decompress it first (bzip2 -dc FILE | flowtap read -)",
        ),
        (&[0, 10, 0, 64, 0x65, 0x53], "no capture: begins as IPFIX does, which `flowtap print FILE` shows"),
        (b"words", "no capture: begins with 77 6f 72 64, neither pcap nor pcapng"),
    ] {
        let file = folder.path().join("file");
        fs::write(&file, octets).expect("room on the disk");
        let said = words(&run(read().arg(&file)).stderr);
        assert!(said.contains(&format!("{}: offset 0: {advice}\n", file.display())), "{said}");
    }
}

#[test]
fn of_many_strangers_in_a_folder_the_first_are_named_and_the_rest_counted() {
    let folder = folder();
    for number in 0..1300 {
        fs::write(folder.path().join(format!("{number:04}.txt")), "words").expect("room on the disk");
    }
    fs::create_dir(folder.path().join("below")).expect("a directory");
    for (command, kind) in [("read", "no capture"), ("print", "no IPFIX file")] {
        let said = words(&run(flowtap().arg(command).arg(folder.path())).stderr);
        let place = folder.path().display();
        let lines: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("flowtap: warn: ")).collect();
        let named = "0000.txt, 0001.txt, 0002.txt, 0003.txt, 0004.txt, and 1295 more";
        assert_eq!(
            lines,
            [format!("{place}: left out what is {kind}: {named}"), format!("{place}: not entered: below")],
            "{said}"
        );
    }
}

#[test]
fn a_log_file_that_cannot_be_opened_is_named() {
    let output = run(read().args(["--log-file", "/nowhere/x"]).arg(pcaps("ping.pcap")));
    assert_eq!(output.status.code(), Some(2));
    let said = words(&output.stderr);
    assert!(said.contains("--log-file: opening /nowhere/x: No such file"), "{said}");
}

#[test]
fn every_bad_file_is_named_where_there_are_several() {
    let output = run(read().args(["/nowhere/a.pcap", "/nowhere/b.pcap"]).arg(pcaps("ping.pcap")));
    let said = words(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("/nowhere/a.pcap") && said.contains("/nowhere/b.pcap"), "{said}");
    assert_eq!(summary(&output)["frames"], 20);
}

#[test]
fn a_filter_leaves_out_frames_and_counts_them_apart() {
    let office = record::beside(&pcaps("office.pcap"));
    let output = run(read().args(["--filter", "tcp"]).arg(pcaps("office.pcap")));
    let report = assert_clean(&output);
    let expected: Vec<Record> = office.into_iter().filter(|record| record.protocol == 6).collect();
    let found = from_csv(&words(&output.stdout));
    // Other packets do not move the clock now, so only what a record counts is compared, not why it ended.
    let sum = |records: &[Record]| records.iter().map(|record| record.packets).sum::<u64>();
    assert_eq!(sum(&found), sum(&expected) - vlan_packets(&expected), "packets of TCP without a tag");
    let frames = report["frames"].as_u64().expect("a count");
    assert_eq!(frames + report["filtered"].as_u64().expect("a count"), 703, "frames read and left out");
    assert_eq!(frames, report["metered"].as_u64().expect("a count"), "frames that pass are metered");
}

/// `tcp` alone does not look behind a VLAN tag.
fn vlan_packets(records: &[Record]) -> u64 {
    records.iter().filter(|record| record.vlan != 0).map(|record| record.packets).sum()
}

#[test]
fn a_filter_by_length_sees_the_length_on_the_wire() {
    let folder = folder();
    let mut capture = Capture::create(&folder.path().join("cut.pcap"), ETHERNET);
    let (a, b) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(198, 51, 100, 1));
    // Of each frame 54 octets were captured; on the wire two are longer than 100.
    for (port, payload) in [(1, 0), (2, 40), (3, 46), (4, 1400)] {
        capture.cut_frame(START, &ethernet(&ipv4(a, b, 6, &tcp(port, 80, ACK, payload))), 54);
    }
    let capture = capture.finish();
    for (filter, ports) in [("greater 100", [3, 4]), ("less 99", [1, 2])] {
        let output = run(read().args(["--filter", filter]).arg(&capture));
        let report = assert_clean(&output);
        let mut found: Vec<u16> =
            from_csv(&words(&output.stdout)).iter().map(|record| record.source_port).collect();
        found.sort();
        assert_eq!(found, ports, "{filter}");
        assert_eq!(report["filtered"], 2, "{filter}");
    }
}

#[test]
fn a_filter_is_compiled_for_each_link_type_met() {
    let names = ["ping.pcap", "cooked.pcap"];
    let output = run(read().args(["--filter", "icmp or icmp6"]).args(names.map(pcaps)));
    let report = assert_clean(&output);
    let expected: u64 = names
        .iter()
        .flat_map(|name| record::beside(&pcaps(name)))
        .filter(|record| record.protocol == 1 || record.protocol == 58)
        .map(|record| record.packets)
        .sum();
    assert_eq!(report["metered"], expected, "{report}");
}

#[test]
fn top_gives_the_heaviest_talkers_and_no_flows() {
    let folder = folder();
    let mut capture = Capture::create(&folder.path().join("top.pcap"), RAW_IP);
    let server = Ipv4Addr::new(198, 51, 100, 1);
    // Host n sends n packets; the fewer, the longer.
    for host in 1..=5_u8 {
        for packet in 0..host {
            let octets = ipv4(
                Ipv4Addr::new(192, 0, 2, host),
                server,
                6,
                &tcp(1000 + u16::from(packet), 80, SYN, 1400 / (usize::from(host) * usize::from(host))),
            );
            capture.frame(START, &octets);
        }
    }
    let capture = capture.finish();
    for (by, first) in [("octets", "192.0.2.1"), ("packets", "192.0.2.5"), ("flows", "192.0.2.5")] {
        let output = run(flowtap()
            .args(["read", "--summary", "json", "--utc", "--top", "3", "--by", by])
            .arg(&capture));
        assert_clean(&output);
        let table = words(&output.stdout);
        let order: Vec<&str> = table
            .lines()
            .filter_map(|line| line.split_whitespace().find(|word| word.starts_with("192.0.2.")))
            .collect();
        assert_eq!(order.first().copied(), Some(first), "by {by}:\n{table}");
        assert!(order.len() <= 3, "by {by}:\n{table}");
    }
}

#[test]
fn summary_json_is_the_last_line_on_standard_error_whatever_happens() {
    let cases: [(&[&str], i32); 3] = [
        (&["--to", "csv:-"], 0),
        (&["--to", "csv:-", "/nowhere/a.pcap"], 1),
        (&["--to", "csv:/nowhere/at/all", "--to", "json:-", "-vv"], 1),
    ];
    for (arguments, status) in cases {
        let output = run(flowtap()
            .args(["read", "--summary", "json"])
            .args(arguments)
            .arg(pcaps("office.pcap"))
            .stdin(Stdio::null()));
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {}", words(&output.stderr));
        let report = summary(&output);
        for name in ["frames", "metered", "octets", "filtered", "records", "clock_resets", "evicted"] {
            assert!(report[name].is_u64(), "{arguments:?}: no {name} in {report}");
        }
        let ignored = &report["ignored"];
        let mut sum = report["metered"].as_u64().expect("a count");
        for reason in ["link_type", "non_ip", "truncated", "malformed"] {
            sum +=
                ignored[reason].as_u64().unwrap_or_else(|| panic!("{arguments:?}: no {reason} in {report}"));
        }
        assert_eq!(report["frames"], sum, "{arguments:?}: {report}");
        assert_eq!(report["frames"], 703, "{arguments:?}: {report}");
    }
}

#[test]
fn summary_none_and_quiet_say_nothing() {
    for arguments in [&["--summary", "none"][..], &["--quiet"]] {
        let output = run(flowtap().args(["read", "--to", "csv:-"]).args(arguments).arg(pcaps("office.pcap")));
        assert_eq!(output.status.code(), Some(0));
        assert_eq!(words(&output.stderr), "", "{arguments:?}");
    }
}

#[test]
fn a_usage_error_returns_2_and_names_the_flag() {
    let cases: [(&[&str], &str); 15] = [
        (&["--to", "csv:-", "--to", "json:-"], "--to"),
        (&["--to", "table:-", "--to", "ipfix+file:-"], "--to"),
        (&["--active-timeout", "0"], "--active-timeout"),
        (&["--active-timeout", "60"], "--active-timeout"),
        (&["--idle-timeout", "soon"], "--idle-timeout"),
        (&["--to", "carrier+pigeon://127.0.0.1"], "--to"),
        (&["--to", "out.csv"], "--to"),
        (&["--to", "ipfix+udp://127.0.0.1:99999"], "--to"),
        (&["--filter", "this is no filter"], "filter"),
        (&["--observation-domain", "0"], "--observation-domain"),
        (&["--max-flows", "3", "--shards", "8"], "--max-flows"),
        (&["--shards", "many"], "--shards"),
        (&["--summary", "xml"], "--summary"),
        (&["--top", "5", "--by", "colour"], "--by"),
        (&["--no-such-flag"], "--no-such-flag"),
    ];
    for (arguments, named) in cases {
        let output = run(flowtap().arg("read").args(arguments).arg(pcaps("ping.pcap")).stdin(Stdio::null()));
        let said = words(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains(named), "{arguments:?}: {named} is not named: {said}");
        assert_eq!(words(&output.stdout), "", "{arguments:?}: something on standard output");
    }
    let output = run(flowtap().arg("read"));
    assert_eq!(output.status.code(), Some(2), "no files: {}", words(&output.stderr));
    let output = run(flowtap().args(["read", "-", "-"]).stdin(Stdio::null()));
    assert_eq!(output.status.code(), Some(2), "standard input twice: {}", words(&output.stderr));
}

#[test]
fn what_is_refused_for_its_file_leaves_that_as_it_was() {
    let folder = folder();
    let at = folder.path().display();
    fs::copy(pcaps("ping.pcap"), folder.path().join("a.pcap")).expect("room on the disk");
    let before = fs::read(folder.path().join("a.pcap")).expect("the capture");
    let cases = [
        (format!("read {at}/a.pcap --log-file {at}/x --to csv:{at}/x"), "--to: csv:", " and --log-file "),
        (format!("live -i lo --write {at}/x --to csv:{at}/x"), "--to: csv:", " and --write "),
        (format!("live -i lo --write {at}/x --log-file {at}/x"), "--write: ", " and --log-file "),
        (format!("read {at}/a.pcap --log-file {at}/a.pcap"), "--log-file: ", "must not be written to: FILE "),
    ];
    for (arguments, first, second) in cases {
        let output = run(flowtap().args(arguments.split(' ')).stdin(Stdio::null()));
        let said = words(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments}: {said}");
        assert!(said.contains(first) && said.contains(second), "{arguments}: {said}");
        assert!(!folder.path().join("x").exists(), "{arguments}");
        assert_eq!(fs::read(folder.path().join("a.pcap")).expect("the capture"), before, "{arguments}");
    }
}

#[test]
fn zero_is_taken_where_it_has_a_meaning() {
    let output = run(read().args(["--idle-timeout", "0", "--tcp-linger", "0"]).arg(pcaps("office.pcap")));
    let report = assert_clean(&output);
    assert_eq!(report["records"], report["metered"], "idle 0 gives each packet a record of its own");
}

/// A run that reads a pipe into a CSV file.
struct Piped {
    folder: tempfile::TempDir,
    child: std::process::Child,
    pipe: std::process::ChildStdin,
}

impl Piped {
    fn start(shards: &str) -> Piped {
        Piped::start_with(shards, &[])
    }

    fn start_with(shards: &str, options: &[&str]) -> Piped {
        let folder = folder();
        let mut child = flowtap()
            .args(["read", "--summary", "json", "--shards", shards, "-"])
            .args(options)
            .args(["--to", &format!("csv:{}", folder.path().join("flows.csv").display())])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("flowtap runs");
        let pipe = child.stdin.take().expect("a pipe");
        Piped { folder, child, pipe }
    }

    /// Fails unless the run was interrupted in order and each flow, a packet each, is a row; gives their number.
    fn assert_interrupted(self, what: &str) -> u64 {
        drop(self.pipe);
        let output = self.child.wait_with_output().expect("an end");
        assert_eq!(output.status.code(), Some(130), "{what}: {}", words(&output.stderr));
        let report = summary(&output);
        let csv = fs::read_to_string(self.folder.path().join("flows.csv")).expect("the CSV");
        let found = csv.lines().count() as u64 - 1;
        assert_eq!(report["interrupted"], true, "{what}: {report}");
        assert_eq!(report["records"], found, "{what}: rows of the CSV: {report}");
        assert_eq!(report["metered"], found, "{what}: packets: {report}");
        found
    }
}

/// Frames of flows that all differ, from the `first` on.
fn flow_frames(first: u32, flows: u32) -> Vec<u8> {
    let to = Ipv4Addr::new(198, 51, 100, 1);
    let mut octets = Vec::new();
    for number in first..first + flows {
        let packet = ipv4(flow_source(number), to, 17, &udp(flow_port(number), 53, &[]));
        octets.extend(capture::frame(START + u64::from(number) * 1_000_000, &packet, packet.len()));
    }
    octets
}

#[test]
fn sigint_while_packets_come_returns_130_and_exports_what_was_metered() {
    for shards in ["0", "1", "3"] {
        let mut run = Piped::start(shards);
        run.pipe.write_all(&capture::header(RAW_IP)).expect("a reader");
        // Far more than a pipe holds, so much of it has been read.
        run.pipe.write_all(&flow_frames(0, 20_000)).expect("a reader");
        signal(&run.child, "INT");
        // It goes on until the run has ended and closed the pipe.
        let mut next = 20_000;
        wait_for("the end of the run", || {
            let frames = flow_frames(next, 10_000);
            next += 10_000;
            run.pipe.write_all(&frames).is_err().then_some(())
        });
        let rows = run.assert_interrupted(&format!("{shards} shards"));
        assert!(rows > 10_000, "{shards} shards: {rows} rows");
    }
}

#[test]
fn sigint_while_a_pipe_is_silent_returns_130_and_exports_what_was_metered() {
    for shards in ["0", "1", "3"] {
        for flows in [10, 50_000] {
            let mut run = Piped::start(shards);
            run.pipe.write_all(&capture::header(RAW_IP)).expect("a reader");
            run.pipe.write_all(&flow_frames(0, flows)).expect("a reader");
            wait_for("flowtap to read what was written", || {
                (rustix::io::ioctl_fionread(&run.pipe).expect("a pipe that can be asked") == 0).then_some(())
            });
            signal(&run.child, "INT");
            wait_for("the end after SIGINT, the pipe still open", || run.child.try_wait().expect("a child"));
            let rows = run.assert_interrupted(&format!("{flows} flows, {shards} shards"));
            assert!(rows > 0, "{flows} flows, {shards} shards: nothing was exported");
        }
    }
}

/// A pcapng block.
fn block(kind: u32, body: &[&[u8]]) -> Vec<u8> {
    let mut body = body.concat();
    body.resize(body.len().next_multiple_of(4), 0);
    let length = (body.len() as u32 + 12).to_le_bytes();
    [&kind.to_le_bytes()[..], &length, &body, &length].concat()
}

/// The frames of a pcap file as a pcapng section, with a block that is no packet before each and behind the last.
fn section(frames: &[u8]) -> Vec<u8> {
    let names = block(4, &[&[0; 4]]);
    let mut octets = block(0x0A0D_0D0A, &[&0x1A2B_3C4D_u32.to_le_bytes(), &[1, 0, 0, 0], &[0xff; 8]]);
    octets.extend(block(1, &[&RAW_IP.to_le_bytes(), &[0; 4]]));
    let mut rest = frames;
    while let [header @ .., _] = &rest[..rest.len().min(17)]
        && let [a, b, captured, wire] =
            [0, 4, 8, 12].map(|at| u32::from_le_bytes(*header[at..].first_chunk().unwrap()))
    {
        let (frame, after) = rest[16..].split_at(captured as usize);
        let micros = u64::from(a) * 1_000_000 + u64::from(b) / 1000;
        let words = [0, (micros >> 32) as u32, micros as u32, captured, wire].map(u32::to_le_bytes);
        octets.extend_from_slice(&names);
        octets.extend(block(6, &[words.as_flattened(), frame]));
        rest = after;
    }
    octets.extend_from_slice(&names);
    octets
}

#[test]
fn records_of_a_pipe_that_falls_silent_go_out_before_it_speaks_again() {
    // A packet every 20 s: each ends the flow before it.
    let frames = |number: u32| (0..number).flat_map(|at| flow_frames(20_000 * at, 1)).collect::<Vec<u8>>();
    let pcap = |number: u32| [capture::header(RAW_IP), frames(number)].concat();
    let tcp = ipv4(flow_source(1), Ipv4Addr::LOCALHOST, 6, &tcp(1, 80, ACK, 0));
    let tcp = capture::frame(START + 5_000_000_000_000, &tcp, tcp.len());
    let half = frames(1)[..30].to_vec();
    let udp_alone = ["--filter", "udp"];
    for (what, octets, flows, options) in [
        ("10 frames", pcap(10), 10, &[][..]),
        ("64 frames", pcap(64), 64, &[]),
        ("128 frames", pcap(128), 128, &[]),
        ("half a frame behind", [pcap(10), half].concat(), 10, &[]),
        ("a filter that the last frames do not pass", [pcap(10), tcp.repeat(3)].concat(), 10, &udp_alone),
        ("pcapng", section(&frames(10)), 10, &[]),
        ("two sections", [section(&frames(5)), section(&frames(10)[5 * 44..])].concat(), 10, &[]),
    ] {
        for shards in ["0", "1", "3"] {
            let mut run = Piped::start_with(shards, options);
            run.pipe.write_all(&octets).expect("a reader");
            let csv = run.folder.path().join("flows.csv");
            let all_but_the_last = format!("{what}, {shards} shards: all records but the last");
            wait_for(&all_but_the_last, || {
                let rows = fs::read_to_string(&csv).map_or(0, |text| text.lines().count().saturating_sub(1));
                (rows >= flows - 1).then_some(())
            });
            signal(&run.child, "INT");
            assert_eq!(run.assert_interrupted(what), flows as u64, "{what}, {shards} shards");
        }
    }
}

#[test]
fn damage_in_a_pipe_that_falls_silent_is_told_at_once() {
    let mut damaged = flow_frames(10, 1);
    damaged[8..12].fill(0xff);
    let mut run = Piped::start("1");
    run.pipe.write_all(&[capture::header(RAW_IP), flow_frames(0, 10), damaged].concat()).expect("a reader");
    let status =
        wait_for("the end of the run, the pipe still open", || run.child.try_wait().expect("a child"));
    assert_eq!(status.code(), Some(1));
}

fn fifo(folder: &Path) -> PathBuf {
    let path = folder.join("fifo");
    assert!(Command::new("mkfifo").arg(&path).status().expect("mkfifo runs").success());
    path
}

#[test]
fn one_signal_ends_the_wait_for_the_other_end_of_a_fifo_with_130() {
    let folder = folder();
    let fifo = fifo(folder.path()).display().to_string();
    let ping = pcaps("ping.pcap").display().to_string();
    let to = |scheme: &str| format!("{scheme}:{fifo}");
    for arguments in
        [["--to", "csv:/dev/null", &fifo], ["--to", &to("csv"), &ping], ["--to", &to("ipfix+file"), &ping]]
    {
        for name in ["INT", "TERM"] {
            let mut child = flowtap()
                .args(["read", "--summary", "json"])
                .args(arguments)
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .expect("flowtap runs");
            wait_until_it_waits(child.id());
            signal(&child, name);
            wait_for("the end after one signal", || child.try_wait().expect("a child"));
            let output = child.wait_with_output().expect("an end");
            assert_eq!(output.status.code(), Some(130), "{arguments:?}: {}", words(&output.stderr));
            assert_eq!(summary(&output)["interrupted"], true, "{arguments:?}");
        }
    }
}

#[test]
fn what_goes_through_fifos_is_what_goes_through_files() {
    let folder = folder();
    let fifo = fifo(folder.path());
    let ping = pcaps("ping.pcap");
    let direct = words(&run(read().arg(&ping)).stdout);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| run(read().arg(&fifo)));
        fs::write(&fifo, fs::read(&ping).expect("the capture")).expect("a reader");
        assert_eq!(words(&reader.join().expect("a run").stdout), direct);
        let text = scope.spawn(|| fs::read_to_string(&fifo).expect("text"));
        let to = format!("csv:{}", fifo.display());
        assert_clean(&run(flowtap().args(["read", "--summary", "json", "--to", &to]).arg(&ping)));
        assert_eq!(text.join().expect("text"), direct);
    });
}

#[test]
fn the_words_of_help_and_version_go_to_standard_output() {
    for (arguments, word) in
        [(&["--help"][..], "read"), (&["read", "--help"], "--active-timeout"), (&["--version"], "flowtap")]
    {
        let output = run(flowtap().args(arguments));
        assert_eq!(output.status.code(), Some(0));
        assert!(words(&output.stdout).contains(word), "{arguments:?}");
    }
}

#[test]
fn a_capture_makes_the_same_table_twice() {
    let table = |shards: &str| {
        let output = run(flowtap()
            .args(["read", "--summary", "none", "--utc", "--shards", shards])
            .arg(pcaps("office.pcap")));
        assert_eq!(output.status.code(), Some(0), "{}", words(&output.stderr));
        words(&output.stdout)
    };
    let first = table("0");
    assert!(first.lines().count() > 160, "a line a flow:\n{first}");
    let sorted = |text: &str| -> Vec<String> {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&first), sorted(&table("3")), "the same rows with 3 shards");
}

#[test]
fn many_files_are_merged_without_as_many_open_files() {
    let folder = folder();
    let (a, b) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(198, 51, 100, 1));
    const FILES: u64 = 1500;
    for number in 0..FILES {
        let path = folder.path().join(format!("{number:04}.pcap"));
        let mut capture = Capture::create(&path, RAW_IP);
        capture.frame(START + number * 1_000_000, &ipv4(a, b, 6, &tcp(1000, 80, ACK, 0)));
        capture.finish();
    }
    // The shell holds the run to 64 open files.
    let words_of = format!(
        "ulimit -n 64; exec '{}' read --summary json --to csv:- '{}'",
        env!("CARGO_BIN_EXE_flowtap"),
        folder.path().display()
    );
    let output = run(Command::new("sh").args(["-c", &words_of]).stdin(Stdio::null()));
    let report = assert_clean(&output);
    assert_eq!(report["frames"], FILES);
    let found = from_csv(&words(&output.stdout));
    assert_eq!(found.len(), 1, "one flow across all files: {report}");
    assert_eq!(found[0].packets, FILES);
}

#[test]
fn print_names_a_file_that_is_no_ipfix_and_shows_the_others() {
    let folder = folder();
    let file = folder.path().join("flows.ipfix");
    let output = run(flowtap()
        .args(["read", "-q", "--to", &format!("ipfix+file:{}", file.display())])
        .arg(pcaps("ping.pcap")));
    assert_eq!(output.status.code(), Some(0), "{}", words(&output.stderr));
    let print = |bad: &Path| run(flowtap().args(["print", "--to", "csv:-"]).arg(bad).arg(&file));
    for bad in [pcaps("office.pcap"), PathBuf::from("/nowhere/a.ipfix")] {
        let output = print(&bad);
        let said = words(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(&*bad.to_string_lossy()), "{} is not named: {said}", bad.display());
        if bad.exists() {
            assert!(said.contains("is no IPFIX file but a pcap capture; `flowtap read "), "{said}");
            let alone = run(flowtap().arg("print").arg(&bad));
            assert_eq!((alone.status.code(), words(&alone.stdout)), (Some(1), String::new()));
        }
        assert_same(
            "the file beside it",
            &record::beside(&pcaps("ping.pcap")),
            &from_csv(&words(&output.stdout)),
        );
    }
}

/// Runs a command line with a terminal for all three streams; what it wrote there. `script` is in every Debian.
fn on_a_terminal(words: &[&str]) -> Option<(String, Option<i32>)> {
    if !common::installed("script") {
        common::skip("script (bsdutils) is not installed");
        return None;
    }
    let line: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
    let output = run(Command::new("script")
        .args(["-qec", &format!("'{}' {}", env!("CARGO_BIN_EXE_flowtap"), line.join(" ")), "/dev/null"])
        .env("NO_COLOR", "1")
        .env_remove("RUST_LOG")
        .stdin(Stdio::null()));
    Some((self::words(&output.stdout), output.status.code()))
}

#[test]
fn binary_messages_go_to_a_pipe_and_not_to_a_terminal() {
    let ping = pcaps("ping.pcap");
    let piped = run(flowtap().args(["read", "-q", "--to", "ipfix+file:-"]).arg(&ping));
    assert_eq!(piped.status.code(), Some(0), "{}", words(&piped.stderr));
    assert_eq!(piped.stdout[..2], [0, 10], "a Message");
    if let Some((said, status)) = on_a_terminal(&["read", "--to", "ipfix+file:-", &ping.to_string_lossy()]) {
        assert_eq!(status, Some(2), "{said}");
        assert!(said.contains("--to: ipfix+file:- would write binary messages to the terminal"), "{said}");
        assert!(said.contains("ipfix+file:PATH") && said.contains("Usage: flowtap read"), "{said}");
    }
    if let Some((said, status)) = on_a_terminal(&["read", "--to", "csv:-", &ping.to_string_lossy()]) {
        assert_eq!(status, Some(0), "text is for a terminal, too: {said}");
    }
}

#[test]
fn a_refused_value_comes_with_what_is_allowed_and_the_usage_of_its_subcommand() {
    let cases: [(&[&str], &str); 15] = [
        (&["read", "--mtu", "70000"], "--mtu: 70000 is not allowed, it must be from 576 to 65535"),
        (&["read", "--mtu", "-1"], "a whole number from 576 to 65535 is wanted"),
        (&["read", "--max-flows", "4M"], "a whole number from 1 to 1431655764 is wanted"),
        (&["read", "--top", "-1"], "a whole number from 1 to 4294967295 is wanted"),
        (&["read", "--template-refresh-messages", "x"], "a whole number from 1 up is wanted"),
        (&["read", "--idle-timeout", "-1s"], "a number of 0 or more with its unit is wanted, such as 500ms"),
        (&["read", "--idle-timeout", "5"], "a number of 0 or more with its unit is wanted, such as 500ms"),
        (&["read", "--shards", "-2"], "'-2' for '--shards <N>': a whole number from 0 to 256 is wanted"),
        (&["read", "--top", "0"], "--top: 0 is not allowed, it must be from 1"),
        (&["read", "--by", "flows"], "--by: says what --top goes by, and there is no --top"),
        (&["read", "--filter", "no filter"], "filter"),
        (&["live", "-i", "lo", "--snaplen", "5000000000"], "it must be from 64 to 262144"),
        (&["live", "-i", "lo", "--buffer", "-5M"], "a number with a unit is wanted"),
        (&["print", "--to", "ipfix+file:x"], "is not a text form"),
        (&["print", "--by", "octets"], "--by: says what --top goes by"),
    ];
    for (arguments, expected) in cases {
        let mut command = flowtap();
        command.args(arguments);
        if arguments[0] != "live" {
            command.arg(pcaps("ping.pcap"));
        }
        let output = run(command.stdin(Stdio::null()));
        let said = words(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains(expected), "{arguments:?}: {said}");
        // A value that does not parse is refused by the parser, which shows no usage.
        if !said.contains("invalid value") {
            assert!(said.contains(&format!("Usage: flowtap {} ", arguments[0])), "{arguments:?}: {said}");
        }
    }
}

#[test]
fn a_failure_is_told_once() {
    let folder = folder();
    let log = folder.path().join("log").display().to_string();
    for to in ["csv:/nowhere/at/all", "ipfix+file:/nowhere/at/all", "ipfix+file:/dev/full", "csv:/dev/full"] {
        for flags in [&["-q"][..], &["-v"], &["--summary", "none"], &["-q", "--log-file", &log]] {
            let output = run(flowtap()
                .args(["read", "--to", to])
                .args(flags)
                .arg(pcaps("office.pcap"))
                .env("RUST_LOG_STYLE", "never"));
            let said = words(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{to} {flags:?}: {said}");
            let told: Vec<&str> = said.lines().filter(|line| line.starts_with("flowtap: ")).collect();
            assert_eq!(told.len(), 1, "{to} {flags:?}: {said}");
        }
    }
}

#[test]
fn a_name_from_outside_cannot_move_the_cursor() {
    let folder = folder();
    let bad = folder.path().join("a\x1b[2J\nflowtap: all is well.pcap");
    fs::write(&bad, "no capture").expect("room on the disk");
    let shown = "a\\x1b[2J\\nflowtap: all is well.pcap";
    let folder_path = folder.path().to_path_buf();
    let csv = format!("csv:{}", folder.path().join("\x1b]0;title\x07").display());
    for command in [
        flowtap().arg("read").arg(&bad),
        flowtap().arg("read").arg(&folder_path),
        flowtap().arg("print").arg(&bad),
        flowtap().arg("print").arg(&folder_path),
        flowtap().arg("read").args(["--to", &csv]).arg(&bad),
        flowtap().arg("read").args(["--to", &csv, "--to", &csv]).arg(&bad),
    ] {
        let output = run(command.stdin(Stdio::null()));
        let said = words(&output.stderr);
        assert!(!said.contains(['\x1b', '\x07']), "{command:?}: {said:?}");
        assert!(!said.lines().any(|line| line.starts_with("flowtap: all is well")), "{command:?}: {said:?}");
        assert!(said.contains(shown) || said.contains("\\x1b]0;title\\x07"), "{command:?}: {said:?}");
    }
}

#[test]
fn print_takes_a_folder_and_says_what_it_left_out() {
    let folder = folder();
    for name in ["ping", "ssh"] {
        let to = format!("ipfix+file:{}", folder.path().join(name).display());
        let output = run(flowtap().args(["read", "-q", "--to", &to]).arg(pcaps(&format!("{name}.pcap"))));
        assert_eq!(output.status.code(), Some(0), "{}", words(&output.stderr));
    }
    fs::write(folder.path().join("notes.txt"), "not flows").expect("room on the disk");
    let of = |paths: &[PathBuf]| {
        let output = run(flowtap().args(["print", "--to", "csv:-"]).args(paths));
        assert_eq!(output.status.code(), Some(0), "{}", words(&output.stderr));
        (rows(&words(&output.stdout)), words(&output.stderr))
    };
    let (whole, said) = of(&[folder.path().to_path_buf()]);
    assert!(said.contains("left out what is no IPFIX file: notes.txt"), "{said}");
    let (each, _) = of(&[folder.path().join("ping"), folder.path().join("ssh")]);
    assert_eq!(whole, each);
    let output = run(flowtap().arg("print").arg(root().join("src")));
    assert_eq!(output.status.code(), Some(1));
    assert!(words(&output.stderr).contains("no IPFIX files in this folder"), "{}", words(&output.stderr));
}

#[test]
fn a_time_zone_that_is_not_known_is_not_called_local() {
    let titles = |zone: &str| {
        let output = run(flowtap().args(["read", "-q"]).arg(pcaps("ping.pcap")).env("TZ", zone));
        words(&output.stdout).lines().next().unwrap_or_default().to_owned()
    };
    assert_eq!(titles("No/Such_Place"), "Flows by start, times in UTC (the local time zone is not known)");
    assert_eq!(titles("Asia/Kolkata"), "Flows by start, times in local time (Asia/Kolkata)");
}

#[test]
fn a_run_that_cannot_begin_still_ends_with_its_summary() {
    // The shell gives the run less memory than the table asks for.
    let words_of = format!(
        "ulimit -v 4000000; exec '{}' read --summary json --max-flows 700000000 --to csv:- '{}'",
        env!("CARGO_BIN_EXE_flowtap"),
        pcaps("ping.pcap").display()
    );
    let output = run(Command::new("sh").args(["-c", &words_of]).stdin(Stdio::null()));
    let said = words(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let report = summary(&output);
    let failure = report["failure"].as_str().unwrap_or_else(|| panic!("no failure in {report}"));
    assert!(said.lines().any(|line| line == format!("flowtap: {failure}")), "{said}");
    assert_eq!(report["frames"], 0);
    let output = run(read().arg(pcaps("ping.pcap")));
    assert!(summary(&output)["failure"].is_null(), "a run that went well has none");
}
