//! nfcapd, a stock one with its defaults, and nfdump to read back what it stored.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{flowtap, installed, skip};
use crate::support::capture::{distinct_flows, flow_port, flow_source};
use crate::support::process::{Program, free_udp_port, missed_when_read, wait_for_listener, wait_until_read};
use crate::support::record::{Record, assert_same};
use crate::support::words;
use crate::{Case, public_captures, recordings};

fn missing() -> bool {
    let missing = !installed("nfcapd") || !installed("nfdump");
    if missing {
        skip("nfcapd and nfdump (Debian: nfdump) are not installed");
    }
    missing
}

/// A running nfcapd.
struct Nfcapd {
    folder: tempfile::TempDir,
    program: Program,
    port: u16,
}

/// What nfcapd stored, and what it says of it.
struct Stored {
    folder: tempfile::TempDir,
    flows: u64,
    sequence_errors: u64,
    bad_packets: u64,
    log: String,
}

impl Nfcapd {
    fn start() -> Nfcapd {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let port = free_udp_port();
        let files = folder.path().join("files");
        std::fs::create_dir(&files).expect("a new directory");
        let mut command = Command::new("nfcapd");
        // `-l` is `-w` in newer versions, which still take it.
        command.args(["-p", &port.to_string(), "-b", "127.0.0.1", "-t", "60", "-l"]).arg(&files);
        let program = Program::start(&mut command, &folder.path().join("log"));
        wait_for_listener(port);
        Nfcapd { folder, program, port }
    }

    /// Ends it when it has read all that came.
    fn stop(mut self) -> Stored {
        wait_until_read(self.port);
        self.program.end("TERM");
        let log = std::fs::read_to_string(self.folder.path().join("log")).expect("its log");
        // A line for each file it closed.
        let sum = |name: &str| -> u64 {
            log.lines()
                .filter(|line| line.starts_with("Ident:"))
                .filter_map(|line| line.split(name).nth(1))
                .map(|rest| rest.trim_start_matches([':', ' ']).split([',', ' ']).next().unwrap_or_default())
                .map(|number| number.parse::<u64>().unwrap_or_else(|error| panic!("{error} in {log}")))
                .sum()
        };
        assert!(log.contains("Sequence Errors"), "no account of what it stored: {log}");
        let (flows, sequence_errors, bad_packets) =
            (sum("Flows"), sum("Sequence Errors"), sum("Bad Packets"));
        Stored { folder: self.folder, flows, sequence_errors, bad_packets, log }
    }
}

impl Stored {
    fn files(&self) -> PathBuf {
        self.folder.path().join("files")
    }

    fn assert_whole(&self, name: &str, records: usize) {
        assert_eq!(self.sequence_errors, 0, "{name}: sequence failures: {}", self.log);
        assert_eq!(self.bad_packets, 0, "{name}: bad packets: {}", self.log);
        assert_eq!(self.flows, records as u64, "{name}: flows: {}", self.log);
    }

    fn dump(&self, form: &str) -> String {
        let output = Command::new("nfdump")
            .arg("-R")
            .arg(self.files())
            .args(["-q", "-o", form])
            .env("TZ", "UTC")
            .output()
            .expect("nfdump runs");
        assert!(output.status.success(), "nfdump: {}", words(&output.stderr));
        words(&output.stdout)
    }

    /// The records as `nfdump -o raw` shows them: every field, numbers unscaled.
    fn records(&self) -> Vec<Record> {
        let mut records: Vec<Record> = Vec::new();
        for line in self.dump("raw").lines() {
            if line.trim() == "Flow Record:" {
                records.push(Record::empty());
                continue;
            }
            let (Some(record), Some((name, value))) = (records.last_mut(), line.split_once(" = ")) else {
                continue;
            };
            set(record, name.trim(), value.trim());
        }
        records
    }
}

fn set(record: &mut Record, name: &str, value: &str) {
    let first = value.split_whitespace().next().unwrap_or_default();
    let number = || -> u64 {
        let parsed = match first.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16),
            None => first.parse(),
        };
        parsed.unwrap_or_else(|error| panic!("{name}: {error} in {value:?}"))
    };
    let address = || first.parse().unwrap_or_else(|error| panic!("{name}: {error} in {value:?}"));
    match name {
        "first" => record.start_ms = number(),
        "last" => record.end_ms = number(),
        "proto" => record.protocol = number() as u8,
        "tcp flags" => record.flags = number() as u16,
        "src port" => record.source_port = number() as u16,
        "dst port" => record.destination_port = number() as u16,
        "ICMP" => {
            let (of_type, code) = first.split_once('.').expect("type.code");
            let octet = |text: &str| {
                text.parse::<u16>().unwrap_or_else(|error| panic!("{name}: {error} in {value:?}"))
            };
            record.destination_port = octet(of_type) << 8 | octet(code);
        }
        "src tos" => record.tos = number() as u8,
        "in packets" => record.packets = number(),
        "in bytes" => record.octets = number(),
        "src addr" => record.source = address(),
        "dst addr" => record.destination = address(),
        "end reason" => record.reason = number() as u8,
        "src vlan" => record.vlan = number() as u16,
        _ => {}
    }
}

/// What nfdump shows of a record: flags in one octet and no counts of them; with ICMP no type of service.
fn as_shown(record: &Record) -> Record {
    let is_icmp = record.protocol == 1 || record.protocol == 58;
    let tos = if is_icmp { 0 } else { record.tos };
    Record { flags: record.flags & 0xFF, tos, ..record.without_counts() }
}

/// nfcapd reads no end reason in NetFlow v9.
fn as_shown_of_netflow9(record: &Record) -> Record {
    Record { reason: 0, ..as_shown(record) }
}

fn as_shown_of_netflow5(record: &Record) -> Record {
    as_shown(&record.as_netflow5())
}

fn expected(case: &Case, scheme: &str) -> Vec<Record> {
    let records = case.records.iter();
    match scheme {
        "ipfix+udp" => records.map(as_shown).collect(),
        "netflow9+udp" => records.map(as_shown_of_netflow9).collect(),
        "netflow5+udp" => records.filter(|record| record.is_ipv4()).map(as_shown_of_netflow5).collect(),
        _ => panic!("no collector for {scheme}"),
    }
}

fn export(case: &Case, scheme: &str) -> (serde_json::Value, Stored) {
    let collector = Nfcapd::start();
    let output = flowtap()
        .args(["read", "--summary", "json", "--to", &format!("{scheme}://127.0.0.1:{}", collector.port)])
        .args(&case.captures)
        .output()
        .expect("flowtap runs");
    let summary = case.assert_exported(&output);
    (summary, collector.stop())
}

fn assert_all_arrive(case: &Case, scheme: &str) {
    let expected = expected(case, scheme);
    let what = format!("{} over {scheme} in nfdump", case.name);
    let (summary, stored) = export(case, scheme);
    let destination = &summary["destinations"][0];
    assert_eq!(destination["sent"], expected.len() as u64, "{what}");
    assert_eq!(destination["unsupported"], (case.records.len() - expected.len()) as u64, "{what}");
    stored.assert_whole(&what, expected.len());
    assert_same(&what, &expected, &stored.records());
}

fn assert_every_recording_arrives(scheme: &str) {
    if missing() {
        return;
    }
    for case in recordings() {
        assert_all_arrive(&case, scheme);
    }
}

#[test]
fn nfdump_shows_every_recording_exported_over_ipfix() {
    assert_every_recording_arrives("ipfix+udp");
}

#[test]
fn nfdump_shows_every_recording_exported_over_netflow9() {
    assert_every_recording_arrives("netflow9+udp");
}

#[test]
fn nfdump_shows_the_ipv4_flows_of_every_recording_exported_over_netflow5() {
    assert_every_recording_arrives("netflow5+udp");
}

#[test]
fn nfdump_shows_the_public_captures_over_ipfix_netflow9_and_netflow5() {
    if missing() {
        return;
    }
    let Some(case) = public_captures() else { return };
    for scheme in ["ipfix+udp", "netflow9+udp", "netflow5+udp"] {
        assert_all_arrive(&case, scheme);
    }
}

/// How often a replay is tried: where other work holds up nfcapd for longer than its small receive buffer lasts, the
/// kernel drops datagrams and says so, and no rate would have helped. What is not dropped must be there every time.
const TRIES: u32 = 4;

fn assert_replay_is_whole(capture: &Path, scheme: &str, flows: u32) {
    for attempt in 1..=TRIES {
        let collector = Nfcapd::start();
        let output = flowtap()
            .args(["read", "--summary", "json", "--to", &format!("{scheme}://127.0.0.1:{}", collector.port)])
            .arg(capture)
            .output()
            .expect("flowtap runs");
        assert_eq!(output.status.code(), Some(0), "{}", words(&output.stderr));
        match missed_when_read(collector.port) {
            0 => return assert_is_whole(collector, scheme, flows),
            missed => eprintln!("{scheme}: the kernel dropped {missed} datagrams at nfcapd, try {attempt}"),
        }
    }
    panic!("{scheme}: nfcapd missed datagrams in each of {TRIES} tries");
}

fn assert_is_whole(collector: Nfcapd, scheme: &str, flows: u32) {
    let stored = collector.stop();
    stored.assert_whole(scheme, flows as usize);
    let mut found: Vec<String> =
        stored.dump("fmt:%sa,%sp,%pkt,%byt").lines().map(|line| line.replace(' ', "")).collect();
    found.retain(|line| line.starts_with("10."));
    found.sort();
    let mut expected: Vec<String> =
        (0..flows).map(|number| format!("{},{},1,28", flow_source(number), flow_port(number))).collect();
    expected.sort();
    assert!(found == expected, "{scheme}: {} records of {flows}, or others than were sent", found.len());
}

#[test]
fn a_replay_of_250_000_flows_reaches_a_stock_nfcapd_whole() {
    if missing() {
        return;
    }
    const FLOWS: u32 = 250_000;
    let folder = tempfile::tempdir().expect("a temporary directory");
    let capture =
        distinct_flows(&folder.path().join("flows.pcap"), FLOWS, 1_700_000_000_000_000_000, 1_000_000);
    assert_replay_is_whole(&capture, "ipfix+udp", FLOWS);
    assert_replay_is_whole(&capture, "netflow9+udp", FLOWS);
}
