//! tshark's dissector over captures that the tests make of the messages they receive: no malformed Set, no trouble with the
//! sequence, every record as expected.

use std::path::Path;
use std::process::Command;

use serde_json::{Map, Value};

use crate::common::{flowtap, installed, skip};
use crate::support::capture::{Capture, RAW_IP, ipv4, tcp, udp};
use crate::support::record::{Record, assert_same};
use crate::support::sink::UdpSink;
use crate::support::words;
use crate::{Case, office, public_captures, recordings};

/// Where the dissector is told to look.
const PORT: u16 = 4739;
const LOOPBACK: std::net::Ipv4Addr = std::net::Ipv4Addr::LOCALHOST;

fn missing() -> bool {
    let missing = !installed("tshark");
    if missing {
        skip("tshark is not installed");
    }
    missing
}

/// Each layer `cflow` of a capture, as JSON.
fn dissect(capture: &Path, transport: &str) -> Vec<Value> {
    let output = Command::new("tshark")
        .args([
            "-n",
            "-d",
            &format!("{transport}.port=={PORT},cflow"),
            "-T",
            "json",
            "--no-duplicate-keys",
            "-r",
        ])
        .arg(capture)
        .env("TZ", "UTC")
        .output()
        .expect("tshark runs");
    assert!(output.status.success(), "tshark: {}", words(&output.stderr));
    let text = words(&output.stdout);
    // Where something is amiss it adds a layer or an item of its own.
    for trouble in
        ["_ws.malformed", "_ws.expert", "_ws.short", "sequence_analysis", "cflow.no_template_found"]
    {
        if let Some(at) = text.find(trouble) {
            let context: String = text[at..].chars().take(600).collect();
            panic!("tshark shows {trouble}: {context}");
        }
    }
    let frames: Vec<Value> = serde_json::from_str(&text).expect("JSON");
    let mut layers = Vec::new();
    for frame in &frames {
        match &frame["_source"]["layers"]["cflow"] {
            Value::Array(several) => layers.extend(several.iter().cloned()),
            Value::Null => {}
            one => layers.push(one.clone()),
        }
    }
    layers
}

/// Text in seconds, `86432.089000000`, in milliseconds.
fn millis(text: &str) -> i64 {
    let (seconds, nanos) = text.split_once('.').unwrap_or_else(|| panic!("no fraction in {text:?}"));
    let part = |digits: &str| digits.parse::<i64>().unwrap_or_else(|error| panic!("{error} in {text:?}"));
    assert_eq!(part(nanos) % 1_000_000, 0, "{text:?}");
    part(seconds) * 1000 + part(nanos) / 1_000_000
}

/// `Nov 22, 2026 02:45:02.453000000 UTC` in milliseconds since 1970.
fn date_millis(text: &str) -> i64 {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let words: Vec<&str> = text.split_whitespace().collect();
    let [month, day, year, time, "UTC"] = words[..] else { panic!("no date in {text:?}") };
    let month = MONTHS.iter().position(|name| *name == month).expect("a month") + 1;
    let day: u8 = day.trim_end_matches(',').parse().expect("a day");
    let iso = format!("{year}-{month:02}-{day:02}T{time}Z");
    let timestamp: jiff::Timestamp = iso.parse().unwrap_or_else(|error| panic!("{error} in {iso:?}"));
    timestamp.as_millisecond()
}

fn text<'a>(flow: &'a Map<String, Value>, name: &str) -> &'a str {
    flow.get(name).and_then(Value::as_str).unwrap_or_else(|| panic!("no {name} in {flow:?}"))
}

fn number(flow: &Map<String, Value>, name: &str) -> u64 {
    let text = text(flow, name);
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.unwrap_or_else(|error| panic!("{name}: {error} in {text:?}"))
}

fn record(layer: &Value, flow: &Map<String, Value>) -> Record {
    let address = |ipv4: &str, ipv6: &str| {
        let name = if flow.contains_key(ipv4) { ipv4 } else { ipv6 };
        text(flow, name).parse().unwrap_or_else(|error| panic!("{name}: {error}"))
    };
    let times = flow["cflow.timedelta_tree"].as_object().expect("times");
    let (start, end) = if times.contains_key("cflow.abstimestart") {
        (date_millis(text(times, "cflow.abstimestart")), date_millis(text(times, "cflow.abstimeend")))
    } else {
        let seconds = layer["cflow.timestamp_tree"]["cflow.unix_secs"].as_str().expect("UNIX Secs");
        let boot = seconds.parse::<i64>().expect("a number") * 1000
            - millis(layer["cflow.sysuptime"].as_str().expect("sysUpTime"));
        (boot + millis(text(times, "cflow.timestart")), boot + millis(text(times, "cflow.timeend")))
    };
    // Elements 14 and 15 of enterprise 6871, in this order.
    let private = |at: usize| -> u16 {
        let Some(entries) = flow.get("cflow.enterprise_private_entry") else { return 0 };
        let octets = entries[at].as_str().expect("octets").replace(':', "");
        u16::from_str_radix(&octets, 16).expect("two octets")
    };
    let flags = if flow.contains_key("cflow.tcpflags") { "cflow.tcpflags" } else { "cflow.tcpflags16" };
    let count = |name: &str| number(flow, &format!("cflow.total_tcp_{name}"));
    Record {
        source: address("cflow.srcaddr", "cflow.srcaddrv6"),
        destination: address("cflow.dstaddr", "cflow.dstaddrv6"),
        protocol: number(flow, "cflow.protocol") as u8,
        source_port: number(flow, "cflow.srcport") as u16,
        destination_port: number(flow, "cflow.dstport") as u16,
        packets: number(flow, "cflow.packets"),
        octets: number(flow, "cflow.octets"),
        start_ms: start as u64,
        end_ms: end as u64,
        flags: number(flow, flags) as u16,
        initial_flags: private(0),
        later_flags: private(1),
        counts: ["fin", "syn", "rst", "psh", "ack", "urg"].map(count),
        reason: number(flow, "cflow.flow_end_reason") as u8,
        vlan: number(flow, "cflow.vlanid") as u16,
        tos: number(flow, "cflow.tos") as u8,
    }
}

/// The flow records of all layers: whatever has a protocol.
fn flows(layers: &[Value]) -> Vec<Record> {
    fn walk(layer: &Value, value: &Value, found: &mut Vec<Record>) {
        match value {
            Value::Object(object) if object.contains_key("cflow.protocol") => {
                found.push(record(layer, object))
            }
            Value::Object(object) => object.values().for_each(|value| walk(layer, value, found)),
            Value::Array(array) => array.iter().for_each(|value| walk(layer, value, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    layers.iter().for_each(|layer| walk(layer, layer, &mut found));
    found
}

/// Exports all cases to a socket and dissects the datagrams at once, each case a session from a port of its own.
fn assert_datagrams_dissect(cases: &[Case], scheme: &str, as_sent: fn(&Record) -> Record) {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let mut capture = Capture::create(&folder.path().join("export.pcap"), RAW_IP);
    let (mut expected, mut messages) = (Vec::new(), 0);
    for (case, port) in cases.iter().zip(40_000..) {
        let sink = UdpSink::new("127.0.0.1");
        let to = format!("{scheme}://127.0.0.1:{}", sink.port());
        let (output, datagrams) =
            sink.run(flowtap().args(["read", "--summary", "json", "--to", &to]).args(&case.captures));
        case.assert_exported(&output);
        for datagram in &datagrams {
            capture.frame(messages * 1_000_000, &ipv4(LOOPBACK, LOOPBACK, 17, &udp(port, PORT, datagram)));
            messages += 1;
        }
        expected.extend(case.records.iter().map(as_sent));
    }
    let layers = dissect(&capture.finish(), "udp");
    assert_eq!(layers.len() as u64, messages, "messages over {scheme} that tshark dissects");
    assert_same(&format!("{scheme} in tshark"), &expected, &flows(&layers));
}

#[test]
fn tshark_dissects_every_recording_over_ipfix() {
    if !missing() {
        assert_datagrams_dissect(&recordings(), "ipfix+udp", Record::clone);
    }
}

#[test]
fn tshark_dissects_every_recording_over_netflow9() {
    if !missing() {
        assert_datagrams_dissect(&recordings(), "netflow9+udp", Record::without_initial_flags);
    }
}

#[test]
fn tshark_dissects_the_public_captures_over_ipfix_and_netflow9() {
    if missing() {
        return;
    }
    let Some(case) = public_captures() else { return };
    let cases = [case];
    assert_datagrams_dissect(&cases, "ipfix+udp", Record::clone);
    assert_datagrams_dissect(&cases, "netflow9+udp", Record::without_initial_flags);
}

#[test]
fn tshark_dissects_an_ipfix_file_sent_as_a_tcp_stream() {
    if missing() {
        return;
    }
    let case = office();
    let folder = tempfile::tempdir().expect("a temporary directory");
    let file = folder.path().join("flows.ipfix");
    let to = format!("ipfix+file:{}", file.display());
    let output = flowtap()
        .args(["read", "--summary", "json", "--to", &to])
        .args(&case.captures)
        .output()
        .expect("flowtap runs");
    case.assert_exported(&output);
    let stream = std::fs::read(&file).expect("the file");
    let mut capture = Capture::create(&folder.path().join("stream.pcap"), RAW_IP);
    // Segments that end where no message does.
    for (number, part) in stream.chunks(1447).enumerate() {
        let mut segment = tcp(40_000, PORT, 0x018, 0);
        segment[4..8].copy_from_slice(&(1 + number as u32 * 1447).to_be_bytes());
        segment[8..12].copy_from_slice(&1_u32.to_be_bytes());
        segment.extend(part);
        capture.frame(number as u64 * 1_000_000, &ipv4(LOOPBACK, LOOPBACK, 6, &segment));
    }
    let layers = dissect(&capture.finish(), "tcp");
    assert_same("an IPFIX file as a stream in tshark", &case.records, &flows(&layers));
}
