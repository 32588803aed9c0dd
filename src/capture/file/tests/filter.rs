//! Filters: what they see, what they cannot be asked of, and what they leave out.

use std::path::PathBuf;

use tempfile::TempDir;

use super::captures::{LITTLE, pcap_of_both_lengths};
use super::{read_files, written};
use crate::capture::LinkType;
use crate::capture::file::{CaptureFiles, FileOptions, Reason};

#[test]
fn a_filter_sees_the_wire_length_and_what_it_leaves_out_is_counted() {
    let folder = TempDir::new().unwrap();
    let path = written(&folder, "a", &pcap_of_both_lengths().0);
    let options = FileOptions { filter: Some("greater 1000".to_string()), ..FileOptions::default() };
    let mut files = CaptureFiles::open(&[path], &options).unwrap();
    let frames = read_files(&mut files);
    assert_eq!(frames.len(), 1);
    assert_eq!((frames[0].wire_length, frames[0].data.len()), (1_500, 96));
    assert_eq!(files.filtered(), 2);
}

#[test]
fn frames_of_a_link_type_that_the_filter_cannot_be_asked_of_are_one_failure_and_the_others_are_read() {
    let folder = TempDir::new().unwrap();
    let file = [
        LITTLE.pcap_header(0xA1B2_C3D4, 9_999),
        LITTLE.record(0, 0, 60, &[0; 60]),
        LITTLE.record(0, 0, 60, &[0; 60]),
    ];
    let path = written(&folder, "a", &file.concat());
    let other = written(&folder, "b", &pcap_of_both_lengths().0);
    let options = FileOptions { filter: Some("greater 1000".to_string()), ..FileOptions::default() };
    let mut files = CaptureFiles::open(&[path, other], &options).unwrap();
    assert_eq!(read_files(&mut files).len(), 1);
    let [failure] = files.failures() else { panic!("{:?}", files.failures()) };
    let LinkType(number) = match &failure.reason {
        Reason::Filter { link_type, .. } => *link_type,
        other => panic!("{other}"),
    };
    assert_eq!((number, failure.offset), (9_999, Some(24 + 16)));
    assert_eq!(files.filtered(), 2 + 2);
}

#[test]
fn a_filter_that_does_not_compile_is_refused_before_any_file_is_read() {
    let options = FileOptions { filter: Some("tcp prot 80".to_string()), ..FileOptions::default() };
    let refused = CaptureFiles::open(&[PathBuf::from("missing")], &options).map(|_| ()).unwrap_err();
    assert!(refused.to_string().starts_with("--filter `tcp prot 80`: "), "{refused}");
    assert!(!refused.refusal.0.is_empty());
}
