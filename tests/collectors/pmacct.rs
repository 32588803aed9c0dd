//! nfacctd of pmacct, with its print plugin: each record as a JSON object.

use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::common::{flowtap, installed, skip};
use crate::support::process::{Program, free_udp_port, wait_for_listener, wait_until_read};
use crate::support::record::{Record, assert_same};
use crate::support::{wait_for, words};
use crate::{Case, office, public_captures};

/// Elements it has no name for; it takes them from here.
const PRIMITIVES: &str = "\
name=protocol_number field_type=4 len=1 semantics=u_int
name=end_reason field_type=136 len=1 semantics=u_int
name=syn_count field_type=218 len=8 semantics=u_int
name=fin_count field_type=219 len=8 semantics=u_int
name=rst_count field_type=220 len=8 semantics=u_int
name=psh_count field_type=221 len=8 semantics=u_int
name=ack_count field_type=222 len=8 semantics=u_int
name=urg_count field_type=223 len=8 semantics=u_int
";

fn number(object: &Value, name: &str) -> u64 {
    match &object[name] {
        Value::String(text) => text.parse().unwrap_or_else(|error| panic!("{name}: {error} in {object}")),
        value => value.as_u64().unwrap_or_else(|| panic!("{name}: no number in {object}")),
    }
}

/// `1795315490.505000` in milliseconds; nothing below them may be there.
fn millis(object: &Value, name: &str) -> u64 {
    let text = object[name].as_str().unwrap_or_else(|| panic!("{name}: no text in {object}"));
    let (seconds, micros) = text.split_once('.').unwrap_or_else(|| panic!("{name}: no fraction in {object}"));
    let part =
        |digits: &str| digits.parse::<u64>().unwrap_or_else(|error| panic!("{name}: {error} in {object}"));
    assert_eq!(part(micros) % 1000, 0, "{name} in {object}");
    part(seconds) * 1000 + part(micros) / 1000
}

fn record(object: &Value) -> Record {
    let address = |name: &str| {
        let text = object[name].as_str().unwrap_or_else(|| panic!("{name}: no text in {object}"));
        text.parse().unwrap_or_else(|error| panic!("{name}: {error} in {object}"))
    };
    Record {
        source: address("ip_src"),
        destination: address("ip_dst"),
        protocol: number(object, "protocol_number") as u8,
        source_port: number(object, "port_src") as u16,
        destination_port: number(object, "port_dst") as u16,
        packets: number(object, "packets"),
        octets: number(object, "bytes"),
        start_ms: millis(object, "timestamp_start"),
        end_ms: millis(object, "timestamp_end"),
        flags: number(object, "tcp_flags") as u16,
        initial_flags: 0,
        later_flags: 0,
        counts: ["fin_count", "syn_count", "rst_count", "psh_count", "ack_count", "urg_count"]
            .map(|name| number(object, name)),
        reason: number(object, "end_reason") as u8,
        vlan: number(object, "vlan") as u16,
        tos: number(object, "tos") as u8,
    }
}

/// In NetFlow v9 it takes whole seconds of uptime off the header's seconds, and so shows the second that a time ends in.
fn to_the_second(record: &Record) -> Record {
    let up = |millis: u64| millis.next_multiple_of(1000);
    Record { start_ms: up(record.start_ms), end_ms: up(record.end_ms), ..record.clone() }
}

/// Records alike in all that it is asked to tell apart are one to nfacctd, their packets and octets summed. And it shows
/// no flags where they come in two octets.
fn as_aggregated(records: &[Record]) -> Vec<Record> {
    let mut all: Vec<Record> = Vec::new();
    let mut sorted: Vec<Record> = records.iter().map(Record::without_initial_flags).collect();
    sorted.sort();
    for mut record in sorted {
        if record.flags > 0xFF {
            record.flags = 0;
        }
        let alike = |other: &&mut Record| {
            Record { packets: 0, octets: 0, ..(*other).clone() }
                == Record { packets: 0, octets: 0, ..record.clone() }
        };
        match all.iter_mut().find(alike) {
            Some(one) => {
                one.packets += record.packets;
                one.octets += record.octets;
            }
            None => all.push(record),
        }
    }
    all
}

fn assert_all_arrive(case: &Case, scheme: &str) {
    let what = format!("{} over {scheme} in nfacctd", case.name);
    let folder = tempfile::tempdir().expect("a temporary directory");
    let port = free_udp_port();
    let at = |name: &str| folder.path().join(name);
    let config = format!(
        "daemonize: false\n\
         nfacctd_ip: 127.0.0.1\n\
         nfacctd_port: {port}\n\
         plugins: print\n\
         print_output: json\n\
         print_output_file: {}\n\
         print_output_file_append: true\n\
         print_refresh_time: 1\n\
         aggregate_primitives: {}\n\
         aggregate: src_host, dst_host, src_port, dst_port, tcpflags, tos, vlan, timestamp_start, timestamp_end, \
         protocol_number, end_reason, syn_count, fin_count, rst_count, psh_count, ack_count, urg_count\n\
         timestamps_since_epoch: true\n",
        at("records.json").display(),
        at("primitives").display(),
    );
    fs::write(at("config"), config).expect("room on the disk");
    fs::write(at("primitives"), PRIMITIVES).expect("room on the disk");
    let mut command = Command::new("nfacctd");
    command.arg("-f").arg(at("config"));
    let mut collector = Program::start(&mut command, &at("log"));
    wait_for_listener(port);
    // Its plugin, a process of its own, misses the end if it comes while it starts.
    wait_for(&format!("{what}: the plugin's first round"), || {
        let log = fs::read_to_string(at("log")).unwrap_or_default();
        log.contains("Purging cache - END").then_some(())
    });
    let output = flowtap()
        .args(["read", "--summary", "json", "--to", &format!("{scheme}://127.0.0.1:{port}")])
        .args(&case.captures)
        .output()
        .expect("flowtap runs");
    case.assert_exported(&output);
    wait_until_read(port);
    let expected = match scheme {
        "netflow9+udp" => as_aggregated(&case.records.iter().map(to_the_second).collect::<Vec<_>>()),
        _ => as_aggregated(&case.records),
    };
    // Its core process holds records back until more come, or it is told to end; the plugin then writes them, on its own.
    collector.end("INT");
    let packets: u64 = case.records.iter().map(|record| record.packets).sum();
    let found = wait_for(&format!("{what}: all {packets} packets"), || {
        let text = fs::read_to_string(at("records.json")).unwrap_or_default();
        let whole = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let records: Vec<Record> = whole.map(|object| record(&object)).collect();
        let sum: u64 = records.iter().map(|record| record.packets).sum();
        (sum >= packets).then_some(records)
    });
    let log = words(&fs::read(at("log")).expect("its log"));
    assert_same(&what, &expected, &as_aggregated(&found));
    for complaint in ["malformed", "incomplete", "unknown template", "discarded", "ERROR", "WARN"] {
        assert!(!log.contains(complaint), "{what}: it says {complaint:?}:\n{log}");
    }
}

fn missing() -> bool {
    let missing = !installed("nfacctd");
    if missing {
        skip("nfacctd (Debian: pmacct) is not installed");
    }
    missing
}

#[test]
fn nfacctd_shows_the_office_over_ipfix_and_netflow9() {
    if missing() {
        return;
    }
    for scheme in ["ipfix+udp", "netflow9+udp"] {
        assert_all_arrive(&office(), scheme);
    }
}

#[test]
fn nfacctd_shows_the_public_captures_over_ipfix_and_netflow9() {
    if missing() {
        return;
    }
    let Some(case) = public_captures() else { return };
    for scheme in ["ipfix+udp", "netflow9+udp"] {
        assert_all_arrive(&case, scheme);
    }
}
