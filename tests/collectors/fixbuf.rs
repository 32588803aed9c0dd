//! libfixbuf's ipfixDump over the IPFIX files that flowtap writes: every element of every record.

use std::process::Command;

use crate::common::{flowtap, installed, skip};
use crate::support::record::{Record, assert_same};
use crate::support::words;
use crate::{Case, public_captures, recordings};

/// What ipfixDump said of one Data Record: element by number as text.
#[derive(Default)]
struct Dumped {
    elements: Vec<(String, String)>,
}

impl Dumped {
    fn text(&self, id: &str) -> Option<&str> {
        self.elements.iter().find(|(found, _)| found == id).map(|(_, value)| value.as_str())
    }

    fn number(&self, id: &str) -> u64 {
        let text = self.text(id).unwrap_or_else(|| panic!("no element {id} among {:?}", self.elements));
        text.parse().unwrap_or_else(|error| panic!("element {id}: {error} in {text:?}"))
    }

    fn is_flow(&self) -> bool {
        self.text("(2)").is_some()
    }

    fn record(&self) -> Record {
        let either = |ipv4: &str, ipv6: &str| {
            let text = self.text(ipv4).or_else(|| self.text(ipv6)).expect("an address");
            text.parse().unwrap_or_else(|error| panic!("{error} in {text:?}"))
        };
        let vlan = self.number("(58)") as u16;
        if let Some(tag) = self.text("(243)") {
            assert_eq!(tag.parse(), Ok(vlan), "dot1qVlanId beside vlanId");
        }
        let destination_port = self.number("(11)") as u16;
        for icmp in ["(32)", "(139)"] {
            if let Some(code) = self.text(icmp) {
                assert_eq!(code.parse(), Ok(destination_port), "element {icmp} beside the destination port");
            }
        }
        let record = Record {
            source: either("(8)", "(27)"),
            destination: either("(12)", "(28)"),
            protocol: self.number("(4)") as u8,
            source_port: self.number("(7)") as u16,
            destination_port,
            packets: self.number("(2)"),
            octets: self.number("(1)"),
            start_ms: millis(self.text("(152)").expect("a start")),
            end_ms: millis(self.text("(153)").expect("an end")),
            flags: self.number("(6)") as u16,
            initial_flags: self.number("(6871/14)") as u16,
            later_flags: self.number("(6871/15)") as u16,
            counts: ["(219)", "(218)", "(220)", "(221)", "(222)", "(223)"].map(|id| self.number(id)),
            reason: self.number("(136)") as u8,
            vlan,
            tos: self.number("(5)") as u8,
        };
        assert_eq!(self.number("(60)"), if record.is_ipv4() { 4 } else { 6 }, "ipVersion of {record}");
        for id in ["(14)", "(61)"] {
            assert_eq!(self.number(id), 0, "element {id} of {record}");
        }
        record
    }
}

/// `2026-11-22 02:44:50.505` in milliseconds since 1970.
fn millis(text: &str) -> u64 {
    let time: jiff::civil::DateTime = text.parse().unwrap_or_else(|error| panic!("{error} in {text:?}"));
    let zoned = time.to_zoned(jiff::tz::TimeZone::UTC).expect("a time in UTC");
    zoned.timestamp().as_millisecond() as u64
}

fn dump(text: &str) -> Vec<Dumped> {
    let mut records: Vec<Dumped> = Vec::new();
    for line in text.lines() {
        if line.starts_with("--- data record") {
            records.push(Dumped::default());
        }
        let (Some(record), true) = (records.last_mut(), line.starts_with("\t(")) else { continue };
        let (name, value) = line.split_once(" : ").unwrap_or_else(|| panic!("no value in {line:?}"));
        let id = name.split_whitespace().next().unwrap_or_default();
        record.elements.push((id.to_owned(), value.trim().to_owned()));
    }
    records
}

fn assert_file_is_read(case: &Case) {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = folder.path().join("flows.ipfix");
    let output = flowtap()
        .args(["read", "--summary", "json", "--to", &format!("ipfix+file:{}", path.display())])
        .args(&case.captures)
        .output()
        .expect("flowtap runs");
    case.assert_exported(&output);
    let output = Command::new("ipfixDump")
        .args(["--data", "--yaf", "--in"])
        .arg(&path)
        .env("TZ", "UTC")
        .output()
        .expect("ipfixDump runs");
    let what = format!("{} in ipfixDump", case.name);
    let complaints = words(&output.stderr);
    assert!(output.status.success() && complaints.is_empty(), "{what}: {complaints}");
    let dumped = dump(&words(&output.stdout));
    let (flows, options): (Vec<&Dumped>, Vec<&Dumped>) = dumped.iter().partition(|record| record.is_flow());
    let found: Vec<Record> = flows.iter().map(|flow| flow.record()).collect();
    assert_same(&what, &case.records, &found);
    let exported = options.iter().rev().find_map(|record| record.text("(42)"));
    assert_eq!(exported, Some(&*case.records.len().to_string()), "{what}: exportedFlowRecordTotalCount");
    let lost = options.iter().rev().find_map(|record| record.text("(166)"));
    assert_eq!(lost, Some("0"), "{what}: notSentFlowTotalCount");
}

fn missing() -> bool {
    let missing = !installed("ipfixDump");
    if missing {
        skip("ipfixDump (Debian: libfixbuf-tools) is not installed");
    }
    missing
}

#[test]
fn ipfixdump_shows_every_element_of_every_recording() {
    if missing() {
        return;
    }
    for case in recordings() {
        assert_file_is_read(&case);
    }
}

#[test]
fn ipfixdump_shows_every_element_of_the_public_captures() {
    if missing() {
        return;
    }
    if let Some(case) = public_captures() {
        assert_file_is_read(&case);
    }
}
