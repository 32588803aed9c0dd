//! Export as seen from outside: what is on the wire and in files, and what a run says and returns when a destination
//! fails.

mod common;
mod support;

use std::collections::HashSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use common::{flowtap, root, rows, summary};
use support::capture::{ACK, Capture, ETHERNET, FIN, RAW_IP, SYN, distinct_flows, ethernet, ipv4, tcp, udp};
use support::process::free_udp_port;
use support::record::{self, Record, assert_same};
use support::sink::{TcpSink, UdpSink};
use support::wire::{DataRecord, Message, frames, read_session};
use support::{wait_for, words};

/// 2023-11-14 22:13:20 UTC in nanoseconds.
const START: u64 = 1_700_000_000 * SECOND;
const SECOND: u64 = 1_000_000_000;
const CERT: u32 = 6871;

fn office() -> PathBuf {
    root().join("pcaps/office.pcap")
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn read(capture: &Path, arguments: &[&str]) -> Command {
    let mut command = flowtap();
    command.args(["read", "--summary", "json"]).args(arguments).arg(capture);
    command
}

fn run(capture: &Path, arguments: &[&str]) -> Output {
    read(capture, arguments).stdin(Stdio::null()).output().expect("flowtap runs")
}

/// The messages of a clean run to a socket of the test.
fn messages_over(scheme: &str, host: &str, capture: &Path, arguments: &[&str]) -> Vec<Vec<u8>> {
    let sink = UdpSink::new(host.trim_matches(['[', ']']));
    let to = format!("{scheme}://{host}:{}", sink.port());
    let (output, messages) = sink.run(read(capture, &["--to", &to]).args(arguments));
    assert_eq!(output.status.code(), Some(0), "{}", words(&output.stderr));
    let sent = &summary(&output)["destinations"][0];
    assert_eq!(sent["messages"], messages.len() as u64, "messages that arrived of those sent");
    let octets: usize = messages.iter().map(Vec::len).sum();
    assert_eq!(sent["message_octets"], octets as u64, "octets that arrived of those sent");
    messages
}

fn flows(records: &[DataRecord]) -> Vec<&DataRecord> {
    records.iter().filter(|record| record.domain == 1).collect()
}

fn destination<'a>(summary: &'a serde_json::Value, name: &str) -> &'a serde_json::Value {
    let all = summary["destinations"].as_array().expect("destinations");
    let found = all.iter().find(|one| one["destination"].as_str().is_some_and(|text| text.contains(name)));
    found.unwrap_or_else(|| panic!("no destination {name} in {summary}"))
}

fn assert_sums_close(summary: &serde_json::Value) {
    for one in summary["destinations"].as_array().expect("destinations") {
        let sum: u64 = ["sent", "lost", "unsupported"].iter().filter_map(|name| one[*name].as_u64()).sum();
        assert_eq!(summary["records"], sum, "sent, lost and unsupported of {one}");
    }
}

/// The records of the CSV that a run wrote.
fn csv(path: &Path) -> Vec<String> {
    rows(&fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
}

fn expected_office() -> Vec<String> {
    rows(&fs::read_to_string(root().join("pcaps/office.flows.csv")).expect("the expected flows"))
}

#[test]
fn there_is_one_sequence_however_many_shards() {
    let folder = folder();
    let capture = distinct_flows(&folder.path().join("flows.pcap"), 3000, START, 1_000_000);
    for scheme in ["ipfix+udp", "netflow9+udp"] {
        for shards in ["0", "1", "3", "8"] {
            // `read_session` fails where a number does not continue the one before, or data comes before its template.
            let (records, session) =
                read_session(&messages_over(scheme, "127.0.0.1", &capture, &["--shards", shards]));
            assert_eq!(session.data_records[&1], 3000, "{scheme} with {shards} shards");
            let ports: HashSet<(Vec<u8>, u64)> = flows(&records)
                .iter()
                .map(|flow| (flow.get(0, 8).expect("a source").to_vec(), flow.value(7)))
                .collect();
            assert_eq!(ports.len(), 3000, "{scheme} with {shards} shards: each flow once");
        }
    }
}

#[test]
fn netflow5_numbers_the_flows_however_many_shards() {
    let folder = folder();
    let capture = distinct_flows(&folder.path().join("flows.pcap"), 1000, START, 1_000_000);
    for shards in ["1", "3", "8"] {
        let mut next = 0;
        for packet in messages_over("netflow5+udp", "127.0.0.1", &capture, &["--shards", shards]) {
            assert_eq!(support::wire::number(&packet, 0, 2), 5);
            assert_eq!(support::wire::number(&packet, 16, 4), next, "flow_sequence with {shards} shards");
            let count = support::wire::number(&packet, 2, 2);
            assert_eq!(packet.len() as u64, 24 + 48 * count, "a packet of {count} flows");
            next += count;
        }
        assert_eq!(next, 1000);
    }
}

#[test]
fn templates_go_before_data_and_again_after_so_many_messages() {
    let folder = folder();
    let capture = distinct_flows(&folder.path().join("flows.pcap"), 2000, START, 1_000_000);
    for scheme in ["ipfix+udp", "netflow9+udp"] {
        let messages = messages_over(scheme, "127.0.0.1", &capture, &["--template-refresh-messages", "20"]);
        let read: Vec<Message> = messages.iter().map(|message| Message::read(message)).collect();
        assert!(read[0].has_templates() && !read[0].has_data(), "{scheme}: templates open the session");
        let mut since = 0;
        let mut rounds = 0;
        for message in &read {
            if message.has_templates() && message.domain == 1 {
                rounds += 1;
                since = 0;
            }
            since += 1;
            assert!(since <= 22, "{scheme}: {since} messages without templates");
        }
        assert!(rounds >= 3, "{scheme}: templates sent {rounds} times in {} messages", read.len());
        read_session(&messages);
    }
}

#[test]
fn templates_are_sent_again_after_so_long_even_when_no_flows_come() {
    let sink = UdpSocket::bind("127.0.0.1:0").expect("a port");
    sink.set_read_timeout(Some(support::PATIENCE)).expect("a timeout");
    let to = format!("ipfix+udp://127.0.0.1:{}", sink.local_addr().expect("its address").port());
    let mut child = read(Path::new("-"), &["--to", &to, "--template-refresh", "1s", "--shards", "1"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("flowtap runs");
    // A capture that has begun and holds nothing yet.
    let mut pipe = child.stdin.take().expect("a pipe");
    pipe.write_all(&support::capture::header(RAW_IP)).expect("a reader");
    let mut messages = Vec::new();
    let mut rounds = 0;
    let mut buffer = [0; 65536];
    while rounds < 3 {
        let length = sink.recv(&mut buffer).expect("templates again");
        let message = Message::read(&buffer[..length]);
        rounds += usize::from(message.domain == 1 && message.has_templates());
        messages.push(buffer[..length].to_vec());
    }
    drop(pipe);
    let output = child.wait_with_output().expect("an end");
    assert_eq!(output.status.code(), Some(0), "{}", words(&output.stderr));
    read_session(&messages);
}

#[test]
fn no_message_is_longer_than_ethernet_carries() {
    for (host, most) in [("127.0.0.1", 1472), ("[::1]", 1452)] {
        for scheme in ["ipfix+udp", "netflow9+udp", "netflow5+udp"] {
            let messages = messages_over(scheme, host, &office(), &[]);
            let longest = messages.iter().map(Vec::len).max().unwrap_or_default();
            assert!(longest <= most, "{scheme} to {host}: a message of {longest} octets");
            assert!(longest > most / 2, "{scheme} to {host}: the longest message has {longest} octets only");
        }
    }
}

#[test]
fn an_mtu_that_is_asked_for_is_kept() {
    for mtu in [576, 1280] {
        let messages = messages_over("ipfix+udp", "127.0.0.1", &office(), &["--mtu", &mtu.to_string()]);
        let longest = messages.iter().map(Vec::len).max().unwrap_or_default();
        assert!(longest <= mtu - 28, "a message of {longest} octets with an MTU of {mtu}");
        let (records, _) = read_session(&messages);
        assert_eq!(flows(&records).len(), expected_office().len());
    }
}

#[test]
fn statistics_are_in_domain_0_and_say_what_was_sent_and_ignored() {
    let messages = messages_over("ipfix+udp", "127.0.0.1", &office(), &["--observation-domain", "7"]);
    let (records, session) = read_session(&messages);
    let domains: HashSet<u32> = session.data_records.keys().copied().collect();
    assert_eq!(domains, HashSet::from([0, 7]), "domains");
    let statistics: Vec<&DataRecord> = records.iter().filter(|record| record.domain == 0).collect();
    assert_eq!(statistics.len(), 3, "statistics records");
    assert!(records.iter().filter(|record| record.domain == 7).all(|record| record.get(0, 2).is_some()));
    let metering = statistics.iter().find(|record| record.get(0, 42).is_some()).expect("metering statistics");
    assert_eq!(metering.value(149), 7, "the domain they are about");
    assert_eq!(metering.value(42), expected_office().len() as u64, "exportedFlowRecordTotalCount");
    assert_eq!(metering.value(41), messages.len() as u64 - 1, "exportedMessageTotalCount, without this one");
    let before: usize = messages[..messages.len() - 1].iter().map(Vec::len).sum();
    assert_eq!(metering.value(40), before as u64, "exportedOctetTotalCount, without this one");
    let ignored =
        statistics.iter().find(|record| record.get(0, 164).is_some()).expect("reliability statistics");
    assert_eq!(ignored.value(164), 2, "ignoredPacketTotalCount: the two ARP frames");
    let exporting = statistics.iter().find(|record| record.get(0, 166).is_some()).expect("exporting process");
    assert_eq!(exporting.value(166), 0, "notSentFlowTotalCount");
}

#[test]
fn the_source_id_of_netflow9_is_the_domain_and_statistics_have_0() {
    let messages = messages_over("netflow9+udp", "127.0.0.1", &office(), &["--observation-domain", "9"]);
    let (records, session) = read_session(&messages);
    assert_eq!(session.data_records[&9] as usize, expected_office().len());
    let statistics: Vec<&DataRecord> = records.iter().filter(|record| record.domain == 0).collect();
    assert_eq!(statistics.last().expect("statistics").value(42), expected_office().len() as u64);
}

#[test]
fn a_dead_udp_collector_is_named_and_the_others_are_complete() {
    let folder = folder();
    let beside = folder.path().join("flows.csv");
    for scheme in ["ipfix+udp", "netflow9+udp", "netflow5+udp"] {
        let dead = format!("{scheme}://127.0.0.1:{}", free_udp_port());
        let sink = UdpSink::new("127.0.0.1");
        let alive = format!("ipfix+udp://127.0.0.1:{}", sink.port());
        let to = format!("csv:{}", beside.display());
        let (output, messages) =
            sink.run(&mut read(&office(), &["--to", &dead, "--to", &alive, "--to", &to]));
        let said = words(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{scheme}: {said}");
        let told: Vec<&str> =
            said.lines().filter(|line| line.starts_with("flowtap: ") && line.contains(&dead)).collect();
        assert_eq!(told.len(), 1, "{dead} is to be named once: {said}");
        assert!(told[0].ends_with("nobody listens on this port, its host says"), "{said}");
        let report = summary(&output);
        assert!(destination(&report, &dead)["failure"].is_string(), "{report}");
        assert_sums_close(&report);
        assert_eq!(csv(&beside), expected_office(), "{scheme}: the CSV beside it");
        let (records, _) = read_session(&messages);
        assert_eq!(flows(&records).len(), expected_office().len(), "{scheme}: the collector beside it");
    }
}

#[test]
fn of_the_addresses_of_a_host_name_the_one_that_listens_is_found() {
    let folder = folder();
    let hosts = folder.path().join("hosts");
    fs::write(&hosts, "::1 both.test\n127.0.0.1 both.test\n").expect("room on the disk");
    // A mount namespace of its own has a hosts file in which one name stands for both loopback addresses.
    let inside = |rest: &str| {
        let mut command = Command::new("unshare");
        let words = format!("mount --bind '{}' /etc/hosts && {rest}", hosts.display());
        command.args(["-rm", "sh", "-c", &words]).env_remove("RUST_LOG").stdin(Stdio::null());
        command
    };
    let known =
        inside("getent ahosts both.test").output().map(|output| words(&output.stdout)).unwrap_or_default();
    if !known.contains("::1 ") || !known.contains("127.0.0.1 ") {
        return common::skip("a mount namespace in which a name has two addresses cannot be had");
    }
    for (host, scheme) in [("127.0.0.1", "ipfix+udp"), ("::1", "ipfix+udp"), ("127.0.0.1", "netflow9+udp")] {
        let sink = UdpSink::new(host);
        let to = format!("{scheme}://both.test:{}", sink.port());
        let (output, messages) = sink.run(&mut inside(&format!(
            "exec '{}' read --summary json --to {to} '{}'",
            env!("CARGO_BIN_EXE_flowtap"),
            office().display()
        )));
        assert_eq!(output.status.code(), Some(0), "{scheme}, {host}: {}", words(&output.stderr));
        let (records, _) = read_session(&messages);
        assert_eq!(flows(&records).len(), expected_office().len(), "{scheme}, {host}");
        let report = summary(&output);
        assert_eq!(destination(&report, &to)["lost"], 0, "{scheme}, {host}: {report}");
        assert_eq!(
            destination(&report, &to)["messages"],
            messages.len() as u64,
            "{scheme}, {host}: {report}"
        );
    }
    // Nobody listens on either: told once, all lost, and nothing waits for anybody.
    let to = format!("ipfix+udp://both.test:{}", free_udp_port());
    let output = inside(&format!(
        "exec '{}' read --summary json --to {to} '{}'",
        env!("CARGO_BIN_EXE_flowtap"),
        office().display()
    ))
    .output()
    .expect("flowtap runs");
    let said = words(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let told = |line: &&str| line.starts_with("flowtap: ") && line.contains("nobody listens on this port");
    assert_eq!(said.lines().filter(told).count(), 1, "{said}");
    let report = summary(&output);
    assert_sums_close(&report);
    assert_eq!(destination(&report, &to)["sent"], 0, "{report}");
    assert_eq!(destination(&report, &to)["lost"], expected_office().len() as u64, "{report}");
}

#[test]
fn a_dead_tcp_collector_is_named_its_records_lost_and_the_others_complete() {
    let folder = folder();
    let beside = folder.path().join("flows.csv");
    let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its address").port();
    let dead = format!("ipfix+tcp://127.0.0.1:{port}");
    let output = run(&office(), &["--to", &dead, "--to", &format!("csv:{}", beside.display())]);
    let said = words(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.lines().any(|line| line.starts_with("flowtap: ") && line.contains(&dead)), "{said}");
    let report = summary(&output);
    assert_eq!(destination(&report, &dead)["lost"], expected_office().len() as u64, "{report}");
    assert_eq!(destination(&report, &dead)["sent"], 0, "{report}");
    assert_sums_close(&report);
    assert_eq!(csv(&beside), expected_office());
}

#[test]
fn a_tcp_collector_that_closes_midway_loses_what_follows_and_it_is_counted() {
    let folder = folder();
    let beside = folder.path().join("flows.csv");
    const FLOWS: u32 = 100_000;
    let capture = distinct_flows(&folder.path().join("flows.pcap"), FLOWS, START, 1_000_000);
    let sink = TcpSink::new();
    let to = format!("ipfix+tcp://127.0.0.1:{}", sink.port());
    let csv_to = format!("csv:{}", beside.display());
    let (output, stream) = sink.run(&mut read(&capture, &["--to", &to, "--to", &csv_to]), 100_000);
    assert_eq!(stream.len(), 100_000, "octets read before the close");
    let said = words(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.lines().any(|line| line.starts_with("flowtap: ") && line.contains(&to)), "{said}");
    let report = summary(&output);
    assert_sums_close(&report);
    assert!(destination(&report, &to)["lost"].as_u64() > Some(0), "{report}");
    assert!(destination(&report, &to)["sent"].as_u64() > Some(0), "{report}");
    assert_eq!(csv(&beside).len(), FLOWS as usize, "the CSV beside it");
}

#[test]
fn two_destinations_at_once_are_both_complete() {
    let folder = folder();
    let path = folder.path().join("flows.ipfix");
    let sink = TcpSink::new();
    let to = format!("ipfix+tcp://127.0.0.1:{}", sink.port());
    let file = format!("ipfix+file:{}", path.display());
    let (output, stream) = sink.run(
        &mut read(&office(), &["--to", &to, "--to", &file, "--to", "csv:-", "--shards", "3"]),
        usize::MAX,
    );
    assert_eq!(output.status.code(), Some(0), "{}", words(&output.stderr));
    assert_eq!(rows(&words(&output.stdout)), expected_office());
    for (what, octets) in [("TCP", stream), ("file", fs::read(&path).expect("the file"))] {
        let (records, session) = read_session(&frames(&octets));
        assert_eq!(flows(&records).len(), expected_office().len(), "{what}");
        assert_eq!(session.data_records[&0], 3, "{what}: statistics");
    }
    assert_sums_close(&summary(&output));
}

#[test]
fn the_same_capture_gives_the_same_octets_in_a_file() {
    let folder = folder();
    let mut files = Vec::new();
    for name in ["a.ipfix", "b.ipfix"] {
        let path = folder.path().join(name);
        let output = run(&office(), &["--shards", "0", "--to", &format!("ipfix+file:{}", path.display())]);
        assert_eq!(output.status.code(), Some(0), "{}", words(&output.stderr));
        files.push(fs::read(&path).expect("the file"));
    }
    assert!(files[0] == files[1], "two runs over one capture wrote different octets");
    let seconds: Vec<u32> = frames(&files[0]).iter().map(|message| Message::read(message).seconds).collect();
    assert!(seconds.is_sorted(), "Export Times {seconds:?}");
    assert!(*seconds.last().expect("messages") < 1_795_316_000, "Export Times are the packets': {seconds:?}");
}

#[test]
fn a_closed_pipe_ends_quietly() {
    let folder = folder();
    let capture = distinct_flows(&folder.path().join("flows.pcap"), 200_000, START, 1_000_000);
    for to in ["csv:-", "json:-", "table:-", "ipfix+file:-"] {
        let mut child = read(&capture, &["--to", to, "--shards", "1"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("flowtap runs");
        let mut pipe = child.stdout.take().expect("a pipe");
        pipe.read_exact(&mut [0; 16]).expect("some octets");
        drop(pipe);
        let output = child.wait_with_output().expect("an end");
        let said = words(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{to}: {said}");
        assert_eq!(said.lines().count(), 1, "{to}: it says more than its summary: {said}");
    }
}

#[test]
fn a_path_that_cannot_be_written_is_named_and_the_others_are_complete() {
    for scheme in ["csv", "json", "table", "ipfix+file"] {
        let bad = format!("{scheme}:/nowhere/at/all");
        let output = run(&office(), &["--to", &bad, "--to", "csv:-"]);
        let said = words(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{bad}: {said}");
        assert!(said.contains("/nowhere/at/all"), "the path is not named: {said}");
        assert_eq!(rows(&words(&output.stdout)), expected_office(), "beside {bad}");
    }
}

#[test]
fn a_full_device_is_named_and_its_records_counted_as_lost() {
    for scheme in ["csv", "json", "ipfix+file"] {
        let bad = format!("{scheme}:/dev/full");
        let output = run(&office(), &["--to", &bad, "--to", "csv:-"]);
        let said = words(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{bad}: {said}");
        assert!(said.contains("/dev/full"), "the path is not named: {said}");
        let report = summary(&output);
        assert_eq!(destination(&report, "/dev/full")["lost"], expected_office().len() as u64, "{report}");
        assert_sums_close(&report);
        assert_eq!(rows(&words(&output.stdout)), expected_office(), "beside {bad}");
    }
}

#[test]
fn netflow5_counts_what_it_cannot_carry() {
    let sink = UdpSink::new("127.0.0.1");
    let to = format!("netflow5+udp://127.0.0.1:{}", sink.port());
    let (output, _) = sink.run(&mut read(&office(), &["--to", &to]));
    assert_eq!(output.status.code(), Some(0), "{}", words(&output.stderr));
    let report = summary(&output);
    let ipv6 = record::beside(&office()).iter().filter(|record| !record.is_ipv4()).count();
    assert_eq!(destination(&report, &to)["unsupported"], ipv6 as u64);
    assert_sums_close(&report);
}

/// One TCP packet that has all twelve flags, one that has six.
fn all_flags(path: &Path) -> PathBuf {
    let mut capture = Capture::create(path, ETHERNET);
    let (a, b) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(198, 51, 100, 1));
    capture.frame(START, &ethernet(&ipv4(a, b, 6, &tcp(1000, 80, 0xFFF, 0))));
    capture.frame(START + SECOND, &ethernet(&ipv4(a, b, 6, &tcp(1001, 80, SYN | ACK | FIN, 0))));
    capture.finish()
}

#[test]
fn flags_beyond_one_octet_go_out_under_a_sibling_template() {
    let folder = folder();
    let capture = all_flags(&folder.path().join("flags.pcap"));
    for scheme in ["ipfix+udp", "netflow9+udp"] {
        let (records, _) = read_session(&messages_over(scheme, "127.0.0.1", &capture, &[]));
        let of = |port| -> &DataRecord {
            records
                .iter()
                .find(|record| record.domain == 1 && record.value(7) == port)
                .unwrap_or_else(|| panic!("{scheme}: no flow from port {port}"))
        };
        let (wide, plain) = (of(1000), of(1001));
        assert_eq!(wide.get(0, 6), Some(&[0x0F, 0xFF][..]), "{scheme}: tcpControlBits in two octets");
        assert_eq!(plain.get(0, 6), Some(&[0x13][..]), "{scheme}: tcpControlBits in one octet");
        assert_ne!(wide.template, plain.template, "{scheme}: templates");
        if scheme == "ipfix+udp" {
            assert_eq!(wide.get(CERT, 14), Some(&[0x0F, 0xFF][..]), "initialTCPFlags");
            assert_eq!(wide.get(CERT, 15), Some(&[0, 0][..]), "unionTCPFlags");
        } else {
            assert_eq!(wide.get(CERT, 14), None, "no enterprise elements in NetFlow v9");
        }
    }
    // In NetFlow v5 there is one octet and no more.
    let messages = messages_over("netflow5+udp", "127.0.0.1", &capture, &[]);
    assert_eq!(messages[0][24 + 37], 0xFF, "tcp_flags of NetFlow v5");
}

/// What a NetFlow v9 collector makes of the times: the header's clock plus first and last switched.
fn netflow9_times(messages: &[Vec<u8>]) -> Vec<(u64, u64, u64)> {
    let mut session = support::wire::Session::default();
    let mut times = Vec::new();
    for octets in messages {
        let message = Message::read(octets);
        for flow in session.take(&message).iter().filter(|record| record.domain == 1) {
            let boot = message.boot_millis() as u64;
            assert!(flow.value(21) <= u64::from(message.sys_up_time), "a flow that ends after its header");
            times.push((flow.value(7), boot + flow.value(22), boot + flow.value(21)));
        }
    }
    times.sort();
    times
}

#[test]
fn the_clock_of_netflow9_does_not_move_within_a_session() {
    let folder = folder();
    // An hour and a half of flows, at odd milliseconds.
    let gap = 2_777_000_000;
    let capture = distinct_flows(&folder.path().join("flows.pcap"), 2000, START + 123_456_789, gap);
    let messages =
        messages_over("netflow9+udp", "127.0.0.1", &capture, &["--template-refresh-messages", "10"]);
    let boots: HashSet<i64> = messages.iter().map(|message| Message::read(message).boot_millis()).collect();
    // The first templates leave before any flow has told the time.
    let with_data: HashSet<i64> = messages
        .iter()
        .map(|message| Message::read(message))
        .filter(Message::has_data)
        .map(|message| message.boot_millis())
        .collect();
    assert_eq!(with_data.len(), 1, "boot times of messages with data: {with_data:?}");
    assert_eq!(boots, with_data, "boot times of all messages");
    let times = netflow9_times(&messages);
    assert_eq!(times.len(), 2000);
    let mut starts: Vec<u64> = times.iter().map(|(_, start, _)| *start).collect();
    starts.sort();
    let expected: Vec<u64> =
        (0..2000).map(|number| (START + 123_456_789 + number * gap) / 1_000_000).collect();
    assert_eq!(starts, expected, "starts to the millisecond");
}

#[test]
fn netflow9_and_netflow5_hold_captures_that_are_decades_apart() {
    let folder = folder();
    let (a, b) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(198, 51, 100, 1));
    // 1970, 1998, 2024, 2004, 2038 and a day later, in seconds; a clock that goes back is a clock that jumps.
    let days = [3, 900_000_000, 1_710_000_000, 1_080_000_000, 2_150_000_000, 2_150_086_401];
    let mut capture = Capture::create(&folder.path().join("decades.pcap"), RAW_IP);
    for (port, second) in (2000..).zip(days) {
        capture.frame(second * SECOND + 7_000_000, &ipv4(a, b, 17, &udp(port, 53, &[1, 2])));
        capture.frame(second * SECOND + 2_500_000_000, &ipv4(a, b, 17, &udp(port, 53, &[1, 2])));
    }
    let capture = capture.finish();
    let expected: Vec<(u64, u64, u64)> =
        (2000..).zip(days).map(|(port, second)| (port, second * 1000 + 7, second * 1000 + 2500)).collect();
    for shards in ["0", "3"] {
        let messages = messages_over("netflow9+udp", "127.0.0.1", &capture, &["--shards", shards]);
        assert_eq!(netflow9_times(&messages), expected, "NetFlow v9 with {shards} shards");
    }
    let mut times = Vec::new();
    for packet in messages_over("netflow5+udp", "127.0.0.1", &capture, &[]) {
        let field = |at, length| support::wire::number(&packet, at, length);
        let boot = field(8, 4) * 1000 - field(4, 4);
        for flow in 0..field(2, 2) as usize {
            let at = 24 + 48 * flow;
            times.push((field(at + 32, 2), boot + field(at + 24, 4), boot + field(at + 28, 4)));
        }
    }
    times.sort();
    assert_eq!(times, expected, "NetFlow v5");
}

#[test]
fn ipfix_over_a_network_is_stamped_with_the_time_of_sending() {
    let now = || jiff::Timestamp::now().as_second() as u32;
    let before = now();
    let messages = messages_over("ipfix+udp", "127.0.0.1", &office(), &[]);
    let after = now();
    for message in &messages {
        let seconds = Message::read(message).seconds;
        assert!(
            (before..=after).contains(&seconds),
            "Export Time {seconds} of a run from {before} to {after}"
        );
    }
}

#[test]
fn every_record_over_ipv6_is_the_one_in_the_file() {
    let (records, _) = read_session(&messages_over("ipfix+udp", "[::1]", &office(), &[]));
    let found: Vec<Record> = flows(&records).iter().map(|flow| flow_record(flow)).collect();
    assert_same("IPFIX over IPv6", &record::beside(&office()), &found);
}

fn flow_record(flow: &DataRecord) -> Record {
    let address = |ipv4: u16, ipv6: u16| -> std::net::IpAddr {
        match (flow.get(0, ipv4), flow.get(0, ipv6)) {
            (Some(octets), None) => <[u8; 4]>::try_from(octets).expect("four octets").into(),
            (None, Some(octets)) => <[u8; 16]>::try_from(octets).expect("sixteen octets").into(),
            _ => panic!("one address is wanted in {flow:?}"),
        }
    };
    let cert = |id| support::wire::number(flow.get(CERT, id).expect("flags"), 0, 2) as u16;
    Record {
        source: address(8, 27),
        destination: address(12, 28),
        protocol: flow.value(4) as u8,
        source_port: flow.value(7) as u16,
        destination_port: flow.value(11) as u16,
        packets: flow.value(2),
        octets: flow.value(1),
        start_ms: flow.value(152),
        end_ms: flow.value(153),
        flags: flow.value(6) as u16,
        initial_flags: cert(14),
        later_flags: cert(15),
        counts: [219, 218, 220, 221, 222, 223].map(|id| flow.value(id)),
        reason: flow.value(136) as u8,
        vlan: flow.value(58) as u16,
        tos: flow.value(5) as u8,
    }
}

#[test]
fn a_collector_that_starts_late_gets_what_comes_after() {
    let folder = folder();
    let path = distinct_flows(&folder.path().join("flows.pcap"), 8000, START, 100_000_000);
    let capture = fs::read(path).expect("the capture");
    let (first, second) = capture.split_at(capture.len() / 2);
    let port = free_udp_port();
    let to = format!("ipfix+udp://127.0.0.1:{port}");
    let mut child =
        read(Path::new("-"), &["--to", &to, "--template-refresh-messages", "20", "--shards", "1"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("flowtap runs");
    let mut pipe = child.stdin.take().expect("a pipe");
    pipe.write_all(first).expect("a reader");
    // The kernel lists its socket, connected to the port where nobody listens yet.
    let remote = format!(":{port:04X}");
    wait_for("flowtap to send", || {
        let table = fs::read_to_string("/proc/net/udp").expect("a Linux with /proc");
        let to_port = |line: &str| line.split_whitespace().nth(2).is_some_and(|to| to.ends_with(&remote));
        table.lines().any(to_port).then_some(())
    });
    let sink = UdpSocket::bind(("127.0.0.1", port)).expect("the port");
    rustix::net::sockopt::set_socket_recv_buffer_size(&sink, 8 << 20).expect("a larger buffer");
    sink.set_read_timeout(Some(std::time::Duration::from_millis(50))).expect("a timeout");
    pipe.write_all(second).expect("a reader");
    drop(pipe);
    let mut messages = Vec::new();
    let mut buffer = [0; 65536];
    loop {
        let ended = child.try_wait().expect("a child").is_some();
        match sink.recv(&mut buffer) {
            Ok(length) => messages.push(Message::read(&buffer[..length])),
            Err(_) if ended => break,
            Err(_) => {}
        }
    }
    let report = summary(&child.wait_with_output().expect("an end"));
    assert_sums_close(&report);
    let templates = messages.iter().position(|message| message.domain == 1 && message.has_templates());
    let templates = templates.unwrap_or_else(|| panic!("no templates in {} messages", messages.len()));
    let after = messages[templates..].iter().filter(|message| message.domain == 1 && message.has_data());
    assert!(after.count() > 100, "data after templates that can be read: {report}");
}
