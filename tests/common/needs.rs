//! What a test needs and may not find. A test in which something is missing is skipped, and says why.
//!
//! The crate's unit tests include this file too, so that there is one way to be skipped.

use std::io::Write;
use std::path::{Path, PathBuf};

/// Whether this is a run of continuous integration, where nothing that can be installed may be missing.
pub fn in_ci() -> bool {
    std::env::var("CI").is_ok_and(|ci| ci == "true")
}

/// Says why a test is skipped for want of a program or a privilege.
///
/// # Panics
/// In continuous integration, which must not pass on what it did not test.
#[track_caller]
pub fn skip(reason: &str) {
    assert!(!in_ci(), "in continuous integration this must not be missing: {reason}");
    skip_even_in_ci(reason);
}

/// Says why a test is skipped for want of something that nobody can install: the kernel's own, or the shared folder.
pub fn skip_even_in_ci(reason: &str) {
    let thread = std::thread::current();
    let line = format!("SKIPPED: {}: {reason}\n", thread.name().unwrap_or("a thread of a test"));
    // What the macros print of a test that passes nobody sees; and it is one write, not to be mixed with another's.
    std::io::stderr().write_all(line.as_bytes()).expect("standard error takes it");
}

/// Whether a program is there to be run.
pub fn installed(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(program).is_file()))
        || Path::new("/usr/sbin").join(program).is_file()
}

/// The folder with the reference program and the captures of public test suites, if it is there and Python to run it.
pub fn shared() -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared");
    let folder = std::env::var_os("FLOWTAP_SHARED").map_or_else(beside, PathBuf::from);
    if !folder.join("oracle/flows.py").is_file() {
        // It is no part of the repository.
        skip_even_in_ci(&format!(
            "no reference program in {}; FLOWTAP_SHARED names its folder",
            folder.display()
        ));
        return None;
    }
    if !installed("python3") {
        skip("python3, which runs the reference program, is not installed");
        return None;
    }
    Some(folder)
}
