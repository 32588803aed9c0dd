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
use std::process::Output;

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
