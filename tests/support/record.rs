//! Flow records as the tests compare them, and the expected ones: from the files in `pcaps/` and from the reference
//! program.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A flow record, as far as a collector may show it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Record {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub protocol: u8,
    pub source_port: u16,
    pub destination_port: u16,
    pub packets: u64,
    pub octets: u64,
    pub start_ms: u64,
    pub end_ms: u64,
    pub flags: u16,
    pub initial_flags: u16,
    pub later_flags: u16,
    /// FIN, SYN, RST, PSH, ACK, URG.
    pub counts: [u64; 6],
    pub reason: u8,
    pub vlan: u16,
    pub tos: u8,
}

impl Record {
    /// A record with nothing in it.
    pub fn empty() -> Record {
        let nowhere = IpAddr::from([0, 0, 0, 0]);
        Record {
            source: nowhere,
            destination: nowhere,
            protocol: 0,
            source_port: 0,
            destination_port: 0,
            packets: 0,
            octets: 0,
            start_ms: 0,
            end_ms: 0,
            flags: 0,
            initial_flags: 0,
            later_flags: 0,
            counts: [0; 6],
            reason: 0,
            vlan: 0,
            tos: 0,
        }
    }

    pub fn is_ipv4(&self) -> bool {
        self.source.is_ipv4()
    }

    /// The record without what only IPFIX carries.
    pub fn without_initial_flags(&self) -> Record {
        Record { initial_flags: 0, later_flags: 0, ..self.clone() }
    }

    /// The record without the counts of each flag as well.
    pub fn without_counts(&self) -> Record {
        Record { counts: [0; 6], ..self.without_initial_flags() }
    }

    /// What NetFlow v5 carries of it.
    pub fn as_netflow5(&self) -> Record {
        Record { reason: 0, vlan: 0, flags: self.flags & 0xFF, ..self.without_counts() }
    }

    fn from_row(row: &str) -> Record {
        let columns: Vec<&str> = row.split(',').collect();
        let text = |at: usize| columns.get(at).copied().unwrap_or_else(|| panic!("column {at} of {row:?}"));
        let number = |at: usize| -> u64 {
            let text = text(at);
            let parsed = match text.strip_prefix("0x") {
                Some(digits) => u64::from_str_radix(digits, 16),
                None => text.parse(),
            };
            parsed.unwrap_or_else(|error| panic!("column {at} of {row:?}: {error}"))
        };
        let address =
            |at: usize| text(at).parse().unwrap_or_else(|error| panic!("column {at} of {row:?}: {error}"));
        Record {
            source: address(0),
            destination: address(1),
            protocol: number(2) as u8,
            source_port: number(3) as u16,
            destination_port: number(4) as u16,
            packets: number(5),
            octets: number(6),
            start_ms: number(7),
            end_ms: number(8),
            flags: number(9) as u16,
            initial_flags: number(10) as u16,
            later_flags: number(11) as u16,
            counts: std::array::from_fn(|at| number(12 + at)),
            reason: number(21) as u8,
            vlan: number(22) as u16,
            tos: number(23) as u8,
        }
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Record { source, destination, protocol, source_port, destination_port, .. } = self;
        write!(
            f,
            "{source} port {source_port} to {destination} port {destination_port} protocol {protocol}: {} packets \
             {} octets {} to {} flags {:#05x} ({:#05x} then {:#05x}) counts {:?} reason {} vlan {} tos {}",
            self.packets,
            self.octets,
            self.start_ms,
            self.end_ms,
            self.flags,
            self.initial_flags,
            self.later_flags,
            self.counts,
            self.reason,
            self.vlan,
            self.tos
        )
    }
}

/// The records in CSV of the reference program's columns, or more.
pub fn from_csv(csv: &str) -> Vec<Record> {
    csv.lines().skip(1).map(Record::from_row).collect()
}

/// The records that stand beside a capture in `pcaps/`.
pub fn beside(capture: &Path) -> Vec<Record> {
    let path = capture.with_file_name(format!("{}.flows.csv", stem(capture)));
    let csv = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    from_csv(&csv)
}

/// The name of a capture without what tells its format.
pub fn stem(capture: &Path) -> String {
    let name = capture.file_name().unwrap_or_default().to_string_lossy().into_owned();
    name.split(".pcap").next().unwrap_or_default().to_owned()
}

/// What the reference program in `shared` makes of captures together.
pub fn by_reference(shared: &Path, captures: &[PathBuf]) -> Vec<Record> {
    let output = Command::new("python3")
        .arg(shared.join("oracle/flows.py"))
        .args(captures)
        .output()
        .expect("python3 runs");
    let records = from_csv(&String::from_utf8_lossy(&output.stdout));
    assert!(!records.is_empty(), "no records: {}", String::from_utf8_lossy(&output.stderr));
    records
}

/// Compares two lists whatever their order; the message says which records are missing and which are too many.
pub fn assert_same(what: &str, expected: &[Record], found: &[Record]) {
    let mut balance: BTreeMap<&Record, i64> = BTreeMap::new();
    for record in expected {
        *balance.entry(record).or_default() += 1;
    }
    for record in found {
        *balance.entry(record).or_default() -= 1;
    }
    balance.retain(|_, count| *count != 0);
    if balance.is_empty() {
        return;
    }
    let some = |missing: bool| -> String {
        let side = balance.iter().filter(|(_, count)| (**count > 0) == missing);
        let lines: Vec<String> =
            side.take(5).map(|(record, count)| format!("  {count:+} {record}")).collect();
        lines.join("\n")
    };
    panic!(
        "{what}: expected {} records, found {}\n missing:\n{}\n too many:\n{}",
        expected.len(),
        found.len(),
        some(true),
        some(false)
    );
}
