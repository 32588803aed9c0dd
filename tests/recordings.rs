//! The captures in `pcaps/` give the flows that stand beside them.

mod common;

use std::fs;

use common::{captures, flowtap, root, rows, summary};

#[test]
fn every_recording_gives_the_flows_beside_it() {
    let captures = captures(&root().join("pcaps"));
    assert!(captures.len() > 15, "{} recordings", captures.len());
    for capture in captures {
        let name = capture.file_name().unwrap().to_string_lossy().into_owned();
        let stem = name.split(".pcap").next().unwrap();
        let expected = fs::read_to_string(capture.with_file_name(format!("{stem}.flows.csv")))
            .unwrap_or_else(|error| panic!("{name}: the expected flows: {error}"));
        for shards in ["0", "1", "3"] {
            let output = flowtap()
                .args(["read", "--to", "csv:-", "--summary", "json", "--shards", shards])
                .arg(&capture)
                .output()
                .expect("flowtap runs");
            assert_eq!(output.status.code(), Some(0), "{name}: {}", String::from_utf8_lossy(&output.stderr));
            assert_eq!(
                rows(&String::from_utf8_lossy(&output.stdout)),
                rows(&expected),
                "{name}, {shards} shards"
            );
            let counts = summary(&output);
            let sum = |column: usize| -> u64 {
                rows(&expected)
                    .iter()
                    .map(|row| row.split(',').nth(column).unwrap().parse::<u64>().unwrap())
                    .sum()
            };
            assert_eq!(counts["metered"], sum(5), "{name}: packets");
            assert_eq!(counts["octets"], sum(6), "{name}: octets");
        }
    }
}
