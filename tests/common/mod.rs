//! What the tests share: the built binary, what they need beside it, and how its output is read.

#![allow(dead_code)] // each test file uses its part

pub mod chatter;
pub mod metrics;
pub mod namespace;
pub mod needs;
pub mod system;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

pub use needs::*;

/// The built binary, not reading the environment's log settings.
pub fn flowtap() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flowtap"));
    command.env_remove("RUST_LOG");
    command
}

/// The root of the repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The last line on standard error, which `--summary json` makes the report.
pub fn summary(output: &Output) -> serde_json::Value {
    let text = String::from_utf8_lossy(&output.stderr);
    let last = text.lines().last().unwrap_or_default();
    serde_json::from_str(last).unwrap_or_else(|error| panic!("{error} in {last:?} of {text:?}"))
}

/// The columns that the reference program writes.
pub const COLUMNS: usize = 24;

/// Rows of CSV without the header, cut to the reference program's columns, sorted.
pub fn rows(csv: &str) -> Vec<String> {
    let mut rows: Vec<String> = csv
        .lines()
        .skip(1)
        .map(|row| row.splitn(COLUMNS + 1, ',').take(COLUMNS).collect::<Vec<_>>().join(","))
        .collect();
    rows.sort();
    rows
}

/// The captures in `folder`, sorted by name.
pub fn captures(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            [".pcap", ".pcapng", ".pcap.gz", ".pcapng.gz", ".pcap.zst", ".pcap.lz4"]
                .iter()
                .any(|e| name.ends_with(e))
        })
        .collect();
    paths.sort();
    paths
}
