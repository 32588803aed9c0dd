//! `flowtap print` of an IPFIX file gives the same rows as CSV written directly.

use std::fs;

use crate::common::{COLUMNS, flowtap, rows};
use crate::support::words;
use crate::{Case, public_captures, recordings};

fn assert_printed_alike(case: &Case) {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let (file, csv) = (folder.path().join("flows.ipfix"), folder.path().join("flows.csv"));
    let output = flowtap()
        .args(["read", "--summary", "json"])
        .args(["--to", &format!("ipfix+file:{}", file.display()), "--to", &format!("csv:{}", csv.display())])
        .args(&case.captures)
        .output()
        .expect("flowtap runs");
    case.assert_exported(&output);
    let output = flowtap().args(["print", "--to", "csv:-"]).arg(&file).output().expect("flowtap runs");
    assert_eq!(output.status.code(), Some(0), "{}: {}", case.name, words(&output.stderr));
    let (printed, direct) = (words(&output.stdout), fs::read_to_string(&csv).expect("the CSV"));
    let header = |text: &str| -> Vec<String> {
        text.lines().next().unwrap_or_default().split(',').take(COLUMNS).map(str::to_owned).collect()
    };
    assert_eq!(header(&printed), header(&direct), "{}: columns", case.name);
    // The export has no counts of ECE, CWR and AE, for which there is no element.
    let comparable = |text: &str| -> Vec<String> {
        let mut rows: Vec<String> = rows(text)
            .iter()
            .map(|row| {
                let mut columns: Vec<&str> = row.split(',').collect();
                columns.drain(18..21);
                columns.join(",")
            })
            .collect();
        rows.sort();
        rows
    };
    let (printed, direct) = (comparable(&printed), comparable(&direct));
    for (printed, direct) in printed.iter().zip(&direct) {
        assert_eq!(printed, direct, "{}: a row printed, and written directly", case.name);
    }
    assert_eq!(printed.len(), direct.len(), "{}: rows", case.name);
}

#[test]
fn print_of_an_ipfix_file_gives_the_rows_of_direct_csv_for_every_recording() {
    for case in recordings() {
        assert_printed_alike(&case);
    }
}

#[test]
fn print_of_an_ipfix_file_gives_the_rows_of_direct_csv_for_the_public_captures() {
    if let Some(case) = public_captures() {
        assert_printed_alike(&case);
    }
}
