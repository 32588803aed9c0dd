//! Real collectors and independent readers, fed by the built binary over loopback: every record arrives, and each field
//! that they show is the expected one.
//!
//! A file a collector. The expected records stand beside the captures in `pcaps/`; for the captures of public test suites
//! the reference program makes them.

#[path = "../common/mod.rs"]
mod common;
#[path = "../support/mod.rs"]
mod support;

mod fixbuf;
mod netflow_parser;
mod nfdump;
mod pmacct;
mod print;
mod tshark;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use support::record::{self, Record};
use support::words;

/// Captures to be read in one run, and the records expected of them.
struct Case {
    name: String,
    captures: Vec<PathBuf>,
    records: Vec<Record>,
}

/// Every recording in `pcaps/`.
fn recordings() -> Vec<Case> {
    let captures = common::captures(&common::root().join("pcaps"));
    assert!(captures.len() > 15, "{} recordings", captures.len());
    captures.into_iter().map(|capture| recording(&capture)).collect()
}

fn recording(capture: &Path) -> Case {
    Case { name: record::stem(capture), captures: vec![capture.to_owned()], records: record::beside(capture) }
}

/// The recording that has most kinds of traffic.
fn office() -> Case {
    recording(&common::root().join("pcaps/office.pcap"))
}

/// All captures of public test suites, merged by time into one run: every link type, clocks that jump by decades, IPv6,
/// SCTP, flags that no standard names.
fn public_captures() -> Option<Case> {
    let shared = common::shared()?;
    let captures = common::captures(&shared.join("captures"));
    let records = record::by_reference(&shared, &captures);
    Some(Case { name: "all public captures".to_owned(), captures, records })
}

impl Case {
    /// Fails unless the run read and exported everything; damaged inputs are a case's own business.
    fn assert_exported(&self, output: &Output) -> serde_json::Value {
        let summary = common::summary(output);
        let said = words(&output.stderr);
        for destination in summary["destinations"].as_array().expect("destinations") {
            assert_eq!(destination["failure"], serde_json::Value::Null, "{}: {said}", self.name);
            assert_eq!(destination["lost"], 0, "{}: {said}", self.name);
        }
        let clean = summary["damaged"].as_array().is_some_and(Vec::is_empty);
        assert_eq!(output.status.code(), Some(if clean { 0 } else { 1 }), "{}: {said}", self.name);
        assert_eq!(summary["records"], self.records.len() as u64, "{}: {said}", self.name);
        summary
    }
}

/// Runs one of these tests again, by itself, with an environment of its own; whether it passes, and what is said.
fn again(test: &str, environment: &[(&str, &str)]) -> (bool, String) {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["--exact", test]).env_remove("CI").env_remove("RUST_TEST_NOCAPTURE");
    let output = command.envs(environment.iter().copied()).output().expect("this program runs");
    let said = words(&output.stdout) + &words(&output.stderr);
    assert!(said.contains("running 1 test\n"), "{said}");
    (output.status.success(), said)
}

#[test]
fn a_test_without_its_collector_passes_and_says_that_it_was_skipped() {
    let (passed, said) = again("fixbuf::ipfixdump_shows_every_element_of_every_recording", &[("PATH", "")]);
    assert!(passed, "{said}");
    assert!(
        said.contains("SKIPPED: ") && said.contains("ipfixDump (Debian: libfixbuf-tools) is not"),
        "{said}"
    );
}

#[test]
fn a_test_without_its_collector_fails_in_continuous_integration() {
    let environment = [("PATH", ""), ("CI", "true")];
    let (passed, said) = again("fixbuf::ipfixdump_shows_every_element_of_every_recording", &environment);
    assert!(!passed, "{said}");
    assert!(said.contains("in continuous integration this must not be missing: ipfixDump"), "{said}");
}

#[test]
fn a_test_without_the_shared_folder_says_so_and_passes_in_continuous_integration_too() {
    let test = "print::print_of_an_ipfix_file_gives_the_rows_of_direct_csv_for_the_public_captures";
    let environment = [("FLOWTAP_SHARED", "/nowhere"), ("CI", "true")];
    let (passed, said) = again(test, &environment);
    assert!(passed, "{said}");
    assert!(said.contains("SKIPPED: ") && said.contains("no reference program in /nowhere;"), "{said}");
}
