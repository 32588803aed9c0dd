//! A system of a test's own: what it installs nobody else sees, and it is gone when the test ends.

use std::fs;
use std::process::{Command, Stdio};

use super::{installed, skip};

/// Set for the run inside.
const INSIDE: &str = "FLOWTAP_INSIDE";

/// Namespaces of its own for mounts and processes. Programs look at all processes: of a user who has one, say, before
/// they remove him.
const NAMESPACES: [&str; 5] = ["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"];

/// Does a test's work where it may install: the test of this name runs itself again, as the first process in there.
/// Skipped, with the reason printed, where that cannot be.
///
/// # Panics
/// When the work does.
pub fn inside(test: &str, work: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        // What follows is for namespaces that nobody else is in.
        assert_eq!(std::process::id(), 1, "{INSIDE} is for the tests to set");
        cover();
        return work();
    }
    if !installed("unshare") {
        return skip("unshare (Debian: util-linux) is not installed");
    }
    let tried = Command::new("unshare").args(NAMESPACES).arg("true").output().expect("unshare runs");
    if !tried.status.success() {
        let words = String::from_utf8_lossy(&tried.stderr).into_owned();
        return skip(&format!("no namespaces of mounts and processes: {}", words.trim()));
    }
    let output = Command::new("unshare")
        .args(NAMESPACES)
        .arg(std::env::current_exe().expect("this program"))
        .args(["--exact", test, "--show-output"])
        .env(INSIDE, "1")
        // What is skipped inside is said there.
        .stderr(Stdio::inherit())
        .output()
        .expect("unshare runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    println!("{said}");
}

/// Lays memory over the folders that a package writes to. In /run it hides the service manager, whose files are not
/// those in here, and the names of others' network namespaces.
fn cover() {
    mount(&["-t", "tmpfs", "tmpfs", "/run"]);
    for folder in ["etc", "usr", "var"] {
        let [upper, work] = ["upper", "work"].map(|part| format!("/run/{folder}/{part}"));
        for path in [&upper, &work] {
            fs::create_dir_all(path).expect("room in memory");
        }
        let layers = format!("lowerdir=/{folder},upperdir={upper},workdir={work}");
        mount(&["-t", "overlay", "overlay", "-o", &layers, &format!("/{folder}")]);
    }
}

fn mount(arguments: &[&str]) {
    let output = Command::new("mount").args(arguments).output().expect("mount runs");
    assert!(output.status.success(), "mount {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}
