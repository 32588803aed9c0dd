//! Living on a host: the configuration file, signals, the service manager, metrics, rights given away, the package.

mod common;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use common::metrics::{self, get, metric};
use common::namespace::{Network, TAP};
use common::{flowtap, installed, root, skip, system};

/// How long anything here may take.
const LIMIT: Duration = Duration::from_secs(30);

/// Asks until there is an answer.
fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < LIMIT, "{what} did not happen within {LIMIT:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// A running flowtap, ended with the test.
struct Run {
    child: Child,
    errors: PathBuf,
}

impl Run {
    fn start(mut command: Command, folder: &Path) -> Run {
        let errors = folder.join("stderr");
        command.stderr(File::create(&errors).unwrap());
        Run { child: command.spawn().expect("flowtap runs"), errors }
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    fn errors(&self) -> String {
        fs::read_to_string(&self.errors).unwrap()
    }

    fn ends(&mut self) -> (Option<i32>, String) {
        let status = until("the end", || self.child.try_wait().unwrap());
        (status.code(), self.errors())
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn capture() -> PathBuf {
    root().join("pcaps/office.pcap")
}

fn words(output: &Output) -> (Option<i32>, String, String) {
    let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Whether an interface can be captured on; else the reason is printed.
fn can_capture() -> bool {
    if !is_root() {
        skip("capturing needs root");
    }
    is_root()
}

fn fifo(folder: &Path) -> PathBuf {
    let path = folder.join("fifo");
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    path
}

const SIGHUP: u32 = 1;
const SIGTERM: u32 = 15;

/// Waits until a process catches this signal and sleeps.
fn until_it_waits(process: u32, signal: u32) {
    until("waiting", || {
        let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"))?;
        let caught = u64::from_str_radix(caught.trim(), 16).ok()?;
        (caught >> (signal - 1) & 1 == 1 && status.contains("State:\tS")).then_some(())
    });
}

// The configuration file.

#[test]
fn keys_of_the_file_are_flags_and_flags_win() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.toml");
    fs::write(&file, "to = [\"json:-\"]\nsummary = \"none\"\nidle-timeout = \"0s\"\n").unwrap();
    let read = |flags: &[&str]| {
        let output =
            flowtap().args(["read", "--config"]).arg(&file).args(flags).arg(capture()).output().unwrap();
        words(&output)
    };
    let (status, json, errors) = read(&[]);
    assert_eq!((status, errors.as_str()), (Some(0), ""));
    assert!(json.starts_with('{'));
    let (_, csv, errors) = read(&["--to", "csv:-", "--summary", "json"]);
    assert!(csv.starts_with("src,"), "{csv}");
    let frames: serde_json::Value = serde_json::from_str(&errors).unwrap();
    // The file's idle timeout is still in force: each packet has a record of its own.
    assert_eq!(frames["records"], frames["metered"]);
    assert_eq!(json.lines().count(), csv.lines().count() - 1);
}

#[test]
fn a_wrong_file_is_refused_with_file_line_and_what_is_allowed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.toml");
    let refused = |text: &str| {
        fs::write(&file, text).unwrap();
        let (status, out, errors) = words(&flowtap().arg("check-config").arg(&file).output().unwrap());
        assert_eq!((status, out.as_str()), (Some(2), ""), "{errors}");
        errors.replace(&format!("{}/", folder.path().display()), "")
    };
    let errors = refused("# settings\nsnaplan = 96\nby = 'weight'\nactive-timeout = 30\n");
    assert!(errors.contains("a.toml:2: unknown key \"snaplan\", allowed are active-timeout, "), "{errors}");
    assert!(errors.contains("a.toml:3: invalid value 'weight'") && errors.contains("octets, packets, flows"));
    assert!(errors.contains("a.toml:4: ") && errors.contains("500ms, 15s, 5min"), "{errors}");
    // What only the checks find.
    let errors = refused("\n\nsnaplen = 1\n");
    assert!(errors.contains("a.toml:3: --snaplen: 1 is not allowed, it must be from "), "{errors}");
    let errors = refused("write = 'a'\nto = 'csv:./a'\n");
    assert!(errors.contains("a.toml:2: --to: csv:./a and --write a are the same file"), "{errors}");
    let errors = refused("write = 'a'\nlog-file = 'a'\n");
    assert!(errors.contains("a.toml:1: --write: a and --log-file a are the same file"), "{errors}");
    let errors = refused("to = [\n  'csv:a',\n  'xml:b',\n]\n");
    assert!(errors.contains("a.toml:1: ") && errors.contains("ipfix+udp://HOST:PORT"), "{errors}");
    let errors = refused("snaplen = 100\nsnaplen = 100\n");
    assert!(errors.contains("a.toml:2: "), "{errors}");
    // What `live` would meet as it starts.
    for (line, refusal) in [
        ("filter = 'xyz('", "--filter `xyz(`: "),
        ("user = 'no-such-user'", "--user: there is no user \"no-such-user\""),
        ("to = 'csv:/nowhere/x'", "--to: /nowhere/x cannot be written, there is no folder /nowhere"),
        ("to = ['ipfix+file:/nowhere/x']", "--to: /nowhere/x cannot be written, there is no folder /nowhere"),
        ("write = '/dev/null/x'", "--write: /dev/null/x cannot be written, there is no folder /dev/null"),
        ("log-file = '/nowhere/x'", "--log-file: /nowhere/x cannot be written, there is no folder /nowhere"),
    ] {
        let errors = refused(&format!("snaplen = 100\n{line}\n"));
        assert!(errors.contains(&format!("a.toml:2: {refusal}")), "{errors}");
    }
    let (status, _, errors) = words(&flowtap().args(["check-config", "/nowhere/a.toml"]).output().unwrap());
    assert!(status == Some(2) && errors.contains("/nowhere/a.toml"), "{errors}");
}

#[test]
fn a_good_file_is_summed_up_in_its_keys_and_destinations() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.toml");
    let csv = format!("to = 'csv:{}/x'\n", folder.path().display());
    for (text, summary) in [
        ("", "0 keys, no destination, so a table on standard output"),
        (csv.as_str(), "1 key, 1 destination"),
        // What the unit makes as it starts, and names without a folder.
        ("to = ['csv:/var/lib/flowtap/x', 'json:x']\nutc = true\n", "2 keys, 2 destinations"),
        ("user = 'no-such-user'\nsandbox = false\n", "2 keys, no destination, so a table on standard output"),
    ] {
        fs::write(&file, text).unwrap();
        let (status, out, errors) = words(&flowtap().arg("check-config").arg(&file).output().unwrap());
        assert_eq!((status, errors.as_str()), (Some(0), ""));
        assert_eq!(out, format!("{}: {summary}\n", file.display()));
    }
}

#[test]
fn the_packaged_example_has_every_flag_and_is_good_as_it_is_and_with_all_of_it_in_force() {
    let example = fs::read_to_string(root().join("packaging/flowtap.toml")).unwrap();
    let is_setting = |line: &str| {
        let key = line.split(" = ").next().unwrap_or_default();
        line.contains(" = ") && key.chars().all(|c| c.is_ascii_lowercase() || c == '-')
    };
    let all: Vec<&str> = example
        .lines()
        .map(|line| line.strip_prefix("# ").filter(|line| is_setting(line)).unwrap_or(line))
        .collect();
    let (_, help, _) = words(&flowtap().args(["live", "--help"]).output().unwrap());
    let flags: Vec<&str> = help
        .split_whitespace()
        .filter_map(|word| word.strip_prefix("--"))
        .map(|word| word.trim_end_matches(|c: char| !c.is_ascii_lowercase()))
        .filter(|word| !["help", "version", "config", ""].contains(word))
        .collect();
    assert!(flags.len() > 25, "{flags:?}");
    for flag in flags {
        assert!(
            all.iter().any(|line| line.starts_with(&format!("{flag} = "))),
            "{flag} is not in the example"
        );
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("all.toml");
    // The one pair that excludes each other.
    let all: Vec<&str> = all.into_iter().filter(|line| !line.starts_with("quiet")).collect();
    // The package makes the user.
    fs::write(&file, all.join("\n").replace("user = \"flowtap\"", "user = \"nobody\"")).unwrap();
    for file in [file, root().join("packaging/flowtap.toml")] {
        let (status, out, errors) = words(&flowtap().arg("check-config").arg(&file).output().unwrap());
        assert_eq!(status, Some(0), "{out}{errors}");
    }
}

// The terminal.

#[test]
fn live_says_on_a_terminal_that_it_captures_and_how_it_ends() {
    if !can_capture() {
        return;
    }
    if !installed("script") {
        return skip("script (bsdutils) is not installed");
    }
    for (flags, greeting) in [("", "flowtap: capturing on lo, Ctrl-C ends it\r\n"), ("-q", "")] {
        let folder = tempfile::tempdir().unwrap();
        let fifo = fifo(folder.path());
        // Its reader leaves when the first row has come, and the run ends as no one listens.
        let line = format!(
            "{} live -i lo --summary none --idle-timeout 0 {flags} --to csv:{fifo} & head -n 1 {fifo} > /dev/null; wait",
            env!("CARGO_BIN_EXE_flowtap"),
            fifo = fifo.display()
        );
        let mut script = Command::new("script");
        script.args(["-qec", &line, "/dev/null"]).env_remove("RUST_LOG").stdin(Stdio::null());
        let child = script.stdout(Stdio::piped()).spawn().unwrap();
        let mut run = Run { child, errors: PathBuf::from("/dev/null") };
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        until("the end", || {
            sender.send_to(b"a packet", "127.0.0.1:9").unwrap();
            run.child.try_wait().unwrap()
        });
        let mut said = String::new();
        run.child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(said, greeting);
    }
}

// Standard output.

#[test]
fn frames_written_to_standard_output_are_a_capture_and_nothing_besides() {
    if !can_capture() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let mut command = flowtap();
    command.args(["live", "-i", "lo", "--write", "-", "--to", "csv:records"]).current_dir(folder.path());
    command.stdout(File::create(path("frames")).unwrap());
    let mut run = Run::start(command, folder.path());
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    until("a frame", || {
        sender.send_to(b"a packet", "127.0.0.1:9").unwrap();
        (fs::metadata(path("frames")).unwrap().len() > 24).then_some(())
    });
    run.signal("-TERM");
    let (status, summary) = run.ends();
    assert_eq!(status, Some(0), "{summary}");
    assert!(!path("-").exists());
    let mut again = flowtap();
    again.args(["read", "--to", "csv:-", "--summary", "none"]).arg(path("frames"));
    let (status, csv, errors) = words(&again.output().unwrap());
    assert_eq!((status, errors.as_str()), (Some(0), ""));
    let records = common::rows(&fs::read_to_string(path("records")).unwrap());
    assert!(!records.is_empty());
    assert_eq!(common::rows(&csv), records);
}

// Signals.

#[test]
fn sighup_opens_moved_files_and_the_log_again_and_sigusr1_logs_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let mut command = flowtap();
    command.args(["-v", "--log-file"]).arg(path("log")).args(["read", "--summary", "none", "--shards", "1"]);
    for (scheme, name) in [("csv", "a.csv"), ("json", "a.json"), ("ipfix+file", "a.ipfix")] {
        command.args(["--to", &format!("{scheme}:{}", path(name).display())]);
    }
    command.arg("-").stdin(Stdio::piped());
    let mut run = Run::start(command, folder.path());
    let mut pipe = run.child.stdin.take().unwrap();
    let octets = fs::read(capture()).unwrap();
    pipe.write_all(&octets[..24]).unwrap();
    let names = ["a.csv", "a.json", "a.ipfix"];
    until("the files", || names.iter().all(|name| path(name).exists()).then_some(()));
    // Where the handlers are not there yet, the first signal would end it; the log tells when they are.
    pipe.write_all(&octets[24..octets.len() - 1]).unwrap();
    until("the pipe read", || {
        let threads = fs::read_dir(format!("/proc/{}/task", run.child.id())).unwrap();
        let names = threads.filter_map(|one| fs::read_to_string(one.ok()?.path().join("comm")).ok());
        names.into_iter().any(|name| name.trim() == "signals").then_some(())
    });
    for name in names.iter().chain(&["log"]) {
        fs::rename(path(name), path(&format!("{name}.1"))).unwrap();
    }
    run.signal("-HUP");
    until("files opened again", || {
        names.iter().chain(&["log"]).all(|name| path(name).exists()).then_some(())
    });
    run.signal("-USR1");
    let log =
        until("the summary", || fs::read_to_string(path("log")).ok().filter(|log| log.contains(" frames, ")));
    assert_eq!(log.lines().filter(|line| line.contains(" frames, ")).count(), 1, "{log}");
    assert!(log.contains("live flows") && log.contains("a.csv") && log.contains(" sent, 0 lost"), "{log}");
    assert!(!fs::read_to_string(path("log.1")).unwrap().contains(" frames, "));
    pipe.write_all(&octets[octets.len() - 1..]).unwrap();
    drop(pipe);
    let (status, errors) = run.ends();
    assert_eq!((status, errors.as_str()), (Some(0), ""));
    // Old and new together hold each record once, and each stands for itself: with titles, with templates.
    let whole =
        flowtap().args(["read", "--to", "csv:-", "--summary", "none"]).arg(capture()).output().unwrap();
    let expected = common::rows(&String::from_utf8_lossy(&whole.stdout));
    let both = |name: &str| {
        [format!("{name}.1"), name.to_string()].map(|name| fs::read_to_string(path(&name)).unwrap())
    };
    let csv = both("a.csv");
    assert!(csv.iter().all(|text| text.starts_with("src,")), "{csv:?}");
    let mut rows: Vec<String> = csv.iter().flat_map(|text| common::rows(text)).collect();
    rows.sort();
    assert_eq!(rows, expected);
    assert_eq!(both("a.json").concat().lines().count(), expected.len());
    let mut records = 0;
    for name in ["a.ipfix.1", "a.ipfix"] {
        let print = flowtap().args(["print", "--to", "json:-"]).arg(path(name)).output().unwrap();
        let (status, json, errors) = words(&print);
        assert_eq!((status, errors.as_str()), (Some(0), ""));
        records += json.lines().filter(|line| line.contains("flowEndReason")).count();
    }
    assert_eq!(records, expected.len());
}

#[test]
fn one_signal_ends_live_where_it_waits_for_the_reader_of_a_fifo() {
    if !can_capture() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let fifo = fifo(folder.path());
    let csv = format!("csv:{}", fifo.display());
    for flags in [["--to", csv.as_str()], ["--write", fifo.to_str().unwrap()]] {
        let mut command = flowtap();
        command.args(["live", "-i", "lo", "--summary", "none"]).args(flags).stdout(Stdio::null());
        let mut run = Run::start(command, folder.path());
        until_it_waits(run.child.id(), SIGTERM);
        run.signal("-TERM");
        assert_eq!(run.ends(), (Some(0), String::new()), "{flags:?}");
    }
}

#[test]
fn a_fifo_without_a_reader_is_waited_for_before_the_capture_is_opened() {
    let folder = tempfile::tempdir().unwrap();
    let fifo = fifo(folder.path());
    for (flag, form) in [("--to", "csv:"), ("--to", "ipfix+file:"), ("--write", "")] {
        let mut command = flowtap();
        // An interface that cannot be opened: what ends it is the signal all the same.
        command.args(["live", "-i", "no-such-one", "--summary", "none"]).stdout(Stdio::null());
        command.args([flag, &format!("{form}{}", fifo.display())]);
        let mut run = Run::start(command, folder.path());
        until_it_waits(run.child.id(), SIGTERM);
        run.signal("-TERM");
        assert_eq!(run.ends(), (Some(0), String::new()), "{flag} {form}");
    }
}

#[test]
fn a_reader_of_written_frames_that_leaves_is_told_and_holds_up_nothing() {
    if !can_capture() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let fifo = fifo(folder.path());
    let mut command = flowtap();
    command.args(["live", "-i", "lo", "--summary", "none", "--to", "csv:/dev/null", "--write"]).arg(&fifo);
    let mut run = Run::start(command, folder.path());
    // It leaves with the file's header.
    let mut reader =
        Command::new("head").args(["-c", "24"]).arg(&fifo).stdout(Stdio::null()).spawn().unwrap();
    until("the header", || reader.try_wait().unwrap());
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    until("the failure", || {
        sender.send_to(&[0; 1000], "127.0.0.1:9").unwrap();
        run.errors().contains("Broken pipe").then_some(())
    });
    run.signal("-TERM");
    let (status, errors) = run.ends();
    assert!(status == Some(1) && errors.contains("writing frames to "), "{errors}");
}

#[test]
fn a_terminal_that_hangs_up_ends_the_wait_for_the_reader_of_a_fifo() {
    if !installed("script") {
        return skip("script (bsdutils) is not installed");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let fifo = fifo(folder.path());
    let line = format!(
        "{} read --summary none --to csv:{} {} & echo $! > {}; wait $!; echo $? > {}",
        env!("CARGO_BIN_EXE_flowtap"),
        fifo.display(),
        capture().display(),
        path("process").display(),
        path("status").display()
    );
    let mut script = Command::new("script");
    script.args(["-qec", &line, "/dev/null"]).env_remove("RUST_LOG").stdin(Stdio::null());
    let mut run = Run::start(script, folder.path());
    let number = |name| fs::read_to_string(path(name)).ok()?.trim().parse::<u32>().ok();
    let process = until("the start", || number("process"));
    until_it_waits(process, SIGHUP);
    // The shell's and the kernel's.
    for _ in 0..2 {
        let _ = Command::new("kill").args(["-HUP", &process.to_string()]).status();
    }
    assert_eq!(until("the end", || number("status")), 130);
    run.ends();
}

#[test]
fn without_a_terminal_sighup_opens_the_log_again_while_a_fifo_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let mut command = flowtap();
    command.args(["--log-file"]).arg(path("log")).args(["read", "--summary", "none", "--to"]);
    command.arg(format!("csv:{}", fifo(folder.path()).display())).arg(capture());
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let mut run = Run::start(command, folder.path());
    until_it_waits(run.child.id(), SIGHUP);
    fs::rename(path("log"), path("log.1")).unwrap();
    run.signal("-HUP");
    until("the log opened again", || path("log").exists().then_some(()));
    run.signal("-USR1");
    let log = until("the answer", || fs::read_to_string(path("log")).ok().filter(|log| log.ends_with('\n')));
    assert!(log.contains("waiting for a reader of ") && log.lines().count() == 1, "{log}");
    run.signal("-TERM");
    assert_eq!(run.ends().0, Some(130));
}

/// A stand-in for the service manager.
struct Manager {
    socket: UnixDatagram,
    name: String,
}

impl Manager {
    fn on_path(folder: &Path) -> Manager {
        let path = folder.join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        Manager { socket, name: path.display().to_string() }
    }

    fn abstract_name() -> Manager {
        let name = format!("flowtap-test-{}", std::process::id());
        let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        socket.set_nonblocking(true).unwrap();
        Manager { socket, name: format!("@{name}") }
    }

    /// All that was told and not yet heard.
    fn hears(&self) -> Vec<String> {
        let mut heard = Vec::new();
        let mut buffer = [0; 1000];
        while let Ok(length) = self.socket.recv(&mut buffer) {
            heard.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
        }
        heard
    }

    fn waits_for(&self, words: &str) -> Vec<String> {
        let mut heard = Vec::new();
        until(words, || {
            heard.extend(self.hears());
            heard.iter().any(|one| one.lines().any(|line| line == words)).then_some(())
        });
        heard
    }
}

fn live(manager: Option<&Manager>, watchdog: Duration, flags: &[&str]) -> Command {
    let mut command = flowtap();
    command.env_remove("NOTIFY_SOCKET").env_remove("WATCHDOG_USEC").env_remove("WATCHDOG_PID");
    if let Some(manager) = manager {
        command.env("NOTIFY_SOCKET", &manager.name).env("WATCHDOG_USEC", watchdog.as_micros().to_string());
    }
    command.args(["live", "--interface", "lo", "--summary", "json"]).args(flags);
    command
}

#[test]
fn readiness_is_told_once_capture_runs_and_the_watchdog_is_fed_until_the_end() {
    if !can_capture() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for manager in [Manager::on_path(folder.path()), Manager::abstract_name()] {
        let command = live(
            Some(&manager),
            Duration::from_millis(500),
            &["--to", "csv:/dev/null", "--filter", "udp port 9"],
        );
        let mut run = Run::start(command, folder.path());
        let heard = manager.waits_for("READY=1");
        assert!(heard.iter().flat_map(|one| one.lines()).any(|line| line == "STATUS=capturing on lo"));
        for _ in 0..3 {
            manager.waits_for("WATCHDOG=1");
        }
        run.signal("-TERM");
        manager.waits_for("STOPPING=1");
        let (status, errors) = run.ends();
        assert_eq!(status, Some(0), "{errors}");
    }
}

#[test]
fn readiness_is_not_told_where_capture_cannot_run() {
    let folder = tempfile::tempdir().unwrap();
    let manager = Manager::on_path(folder.path());
    let mut command = flowtap();
    command.env("NOTIFY_SOCKET", &manager.name).args([
        "live",
        "--interface",
        "absent0",
        "--to",
        "csv:/dev/null",
    ]);
    let (status, _) = Run::start(command, folder.path()).ends();
    assert_eq!(status, Some(1));
    assert_eq!(manager.hears(), Vec::<String>::new());
}

/// Sends datagrams of `octets` to a socket that is there, and gives its port.
struct Sender {
    to: UdpSocket,
    from: UdpSocket,
}

impl Sender {
    fn new() -> Sender {
        let to = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let from = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        from.connect(to.local_addr().unwrap()).unwrap();
        Sender { to, from }
    }

    fn filter(&self) -> String {
        format!("udp dst port {}", self.to.local_addr().unwrap().port())
    }

    fn send(&self, datagrams: usize, octets: usize) {
        for _ in 0..datagrams {
            self.from.send(&vec![0; octets]).unwrap();
        }
    }
}

/// The address that the log says metrics are at.
fn metrics_address(run: &Run) -> SocketAddr {
    until("the metrics", || metrics::address(&run.errors()))
}

#[test]
fn the_metrics_add_up_and_equal_the_final_report() {
    if !can_capture() {
        return;
    }
    for shards in ["0", "2"] {
        let folder = tempfile::tempdir().unwrap();
        let sender = Sender::new();
        let csv = format!("csv:{}", folder.path().join("a.csv").display());
        let flags =
            ["-v", "--metrics=127.0.0.1:0", "--to", &csv, "--filter", &sender.filter(), "--shards", shards];
        let mut run = Run::start(live(None, LIMIT, &flags), folder.path());
        let address = metrics_address(&run);
        until("capture", || run.errors().contains("capturing on lo").then_some(()));
        sender.send(500, 100);
        let text = until("500 packets metered", || {
            let (status, text) = get(address, "/metrics");
            assert_eq!(status, 200);
            (metric(&text, "flowtap_packets_total", &["outcome=\"metered\""]) == 500
                && metric(&text, "flowtap_flows", &[]) == 1)
                .then_some(text)
        });
        assert_eq!(
            metric(&text, "flowtap_octets_total", &["outcome=\"metered\""]),
            500 * (14 + 20 + 8 + 100)
        );
        assert_eq!(metric(&text, "flowtap_packets_total", &["outcome=\"ignored\""]), 0);
        assert!(metric(&text, "flowtap_flows_limit", &[]) >= 1000);
        assert_eq!(metric(&text, "flowtap_records_total", &[]), 0);
        let (status, json) = get(address, "/status");
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!((status, &json["metered"], &json["healthy"]), (200, &500.into(), &true.into()));
        assert!(json["rights"].as_str().unwrap().contains("no_new_privs"), "{json}");
        assert_eq!(get(address, "/health"), (200, "ok\n".to_string()));
        assert_eq!(get(address, "/etc/passwd").0, 404);
        run.signal("-TERM");
        let (status, errors) = run.ends();
        assert_eq!(status, Some(0), "{errors}");
        let report: serde_json::Value = serde_json::from_str(errors.lines().last().unwrap()).unwrap();
        assert_eq!((&report["metered"], &report["records"]), (&500.into(), &1.into()));
    }
}

#[test]
fn half_sent_requests_and_a_want_of_descriptors_do_not_end_the_metrics() {
    if !can_capture() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let flags = ["-v", "--metrics=127.0.0.1:0", "--to", "csv:/dev/null", "--filter", "udp port 9"];
    let mut command = live(None, LIMIT, &flags);
    // Who limits a process of another user needs CAP_SYS_RESOURCE, which root in a container may lack.
    command.args(["--sandbox", "no"]);
    let mut run = Run::start(command, folder.path());
    let address = metrics_address(&run);
    until("capture", || run.errors().contains("capturing on lo").then_some(()));
    assert_eq!(get(address, "/health").0, 200);
    let held = |what: &str| fs::read_dir(format!("/proc/{}/{what}", run.child.id())).unwrap().count();
    let (threads, descriptors) = (held("task"), held("fd"));
    let send = |head: &str| {
        let mut stream = TcpStream::connect(address).unwrap();
        // The oldest are closed while others still come.
        let _ = stream.write_all(head.as_bytes());
        stream
    };
    let half: Vec<TcpStream> = (0..300).map(|_| send("GET /health HTTP/1.1\r\n")).collect();
    assert_eq!(get(address, "/health"), (200, "ok\n".to_string()));
    assert_eq!(held("task"), threads);
    // The connections it may hold, and one more while the oldest makes room.
    assert!(held("fd") <= descriptors + 17, "{} descriptors, {descriptors} before", held("fd"));
    drop(half);

    let process = rustix::process::Pid::from_child(&run.child);
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let limited = |current| {
        let limit = rustix::process::Rlimit { current, maximum: limit.maximum };
        rustix::process::prlimit(Some(process), rustix::process::Resource::Nofile, limit).unwrap()
    };
    // What is open stays open; nothing more can be.
    limited(Some(3));
    let failure = "accepting connections for the metrics: Too many open files";
    let mut waiting = send("GET /health HTTP/1.1\r\n\r\n");
    until("a failure to accept", || run.errors().contains(failure).then_some(()));
    limited(limit.current);
    let mut answer = String::new();
    waiting.set_read_timeout(Some(LIMIT)).unwrap();
    waiting.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\nok\n"), "{answer}");
    run.signal("-TERM");
    let (status, errors) = run.ends();
    assert_eq!((status, errors.matches(failure).count()), (Some(0), 1), "{errors}");
}

#[test]
fn a_stuck_thread_is_told_within_ten_seconds_and_starves_the_watchdog_until_it_gets_on() {
    if !can_capture() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    // Open for both, so that nobody waits for anybody; what is written stays in the pipe until it is full.
    let mut reader = File::options().read(true).write(true).open(&pipe).unwrap();
    let manager = Manager::on_path(folder.path());
    let sender = Sender::new();
    let to = format!("json:{}", pipe.display());
    let flags = [
        "-v",
        "--metrics=127.0.0.1:0",
        "--to",
        &to,
        "--filter",
        &sender.filter(),
        "--shards",
        "1",
        "--idle-timeout",
        "0",
    ];
    let mut run = Run::start(live(Some(&manager), Duration::from_secs(1), &flags), folder.path());
    let address = metrics_address(&run);
    manager.waits_for("WATCHDOG=1");
    sender.send(1000, 1);
    let start = Instant::now();
    let stuck = until("a stuck thread", || match get(address, "/health") {
        (503, words) => Some(words),
        _ => None,
    });
    let noticed = start.elapsed();
    assert!(stuck.starts_with("stuck: exporter json:"), "{stuck}");
    assert!(noticed < Duration::from_secs(11), "{noticed:?}");
    assert!(run.errors().contains("is stuck: no progress for 7 s"), "{}", run.errors());
    let (_, text) = get(address, "/metrics");
    assert_eq!(metric(&text, "flowtap_thread_stuck", &[]), 1);
    manager.hears();
    // Three times the interval, in which nothing may come: there is no event to wait for.
    let silence = Instant::now();
    while silence.elapsed() < Duration::from_millis(1500) {
        assert_eq!(manager.hears(), Vec::<String>::new());
        thread::sleep(Duration::from_millis(50));
    }
    // The reader wakes up, and reads until the end.
    let read = thread::spawn(move || {
        let mut buffer = [0; 65536];
        while let Ok(length) = reader.read(&mut buffer) {
            if buffer[..length].ends_with(b"the end of the test\n") {
                return;
            }
        }
    });
    manager.waits_for("WATCHDOG=1");
    assert_eq!(get(address, "/health").0, 200);
    run.signal("-TERM");
    let (status, errors) = run.ends();
    assert_eq!(status, Some(0), "{errors}");
    assert!(errors.contains("gets on again"), "{errors}");
    File::options().write(true).open(&pipe).unwrap().write_all(b"the end of the test\n").unwrap();
    read.join().unwrap();
    eprintln!("a stuck thread was told of after {:.1} s", noticed.as_secs_f64());
}

#[test]
fn in_the_journal_a_line_has_a_priority_and_neither_time_nor_name() {
    let folder = tempfile::tempdir().unwrap();
    let file = File::create(folder.path().join("journal")).unwrap();
    let stat = rustix::fs::fstat(&file).unwrap();
    let mut command = flowtap();
    command.env("JOURNAL_STREAM", format!("{}:{}", stat.st_dev, stat.st_ino));
    command.args(["live", "--interface", "absent0", "--to", "csv:/dev/null"]).stderr(file);
    assert_eq!(command.status().unwrap().code(), Some(1));
    let journal = fs::read_to_string(folder.path().join("journal")).unwrap();
    assert!(journal.starts_with("<3>"), "{journal}");
    // The variable alone, as a shell inherits it, changes nothing.
    command.env("JOURNAL_STREAM", "1:1");
    let (_, _, errors) = words(&command.stderr(Stdio::piped()).output().unwrap());
    assert!(errors.starts_with("flowtap: "), "{errors}");
}

// Rights.

#[test]
fn the_self_test_is_denied_all_that_must_be() {
    let (status, out, errors) = words(&flowtap().arg("self-test").output().unwrap());
    let last = out.lines().last().unwrap_or_default();
    let [right, of, tried, ..] = last.split(' ').collect::<Vec<_>>()[..] else { panic!("{out}{errors}") };
    assert!(status == Some(0) && right == tried && of == "of", "{out}{errors}");
    assert!(out.matches("denied ").count() >= 18, "{out}");
    println!("{out}");
}

#[test]
fn after_the_start_every_thread_has_cap_net_raw_alone() {
    if !can_capture() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let flags =
        ["-v", "--metrics=127.0.0.1:0", "--to", "csv:/dev/null", "--filter", "udp port 9", "--shards", "2"];
    let mut run = Run::start(live(None, LIMIT, &flags), folder.path());
    until("capture", || run.errors().contains("capturing on lo").then_some(()));
    get(metrics_address(&run), "/health");
    let mut threads = 0;
    for task in fs::read_dir(format!("/proc/{}/task", run.child.id())).unwrap() {
        let status = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.split_whitespace().map(str::to_string).collect::<Vec<_>>()
        };
        let uids = field("Uid:");
        assert!(uids.iter().all(|uid| uid == &uids[0]) && uids[0] != "0", "{status}");
        assert_eq!(field("Groups:"), Vec::<String>::new());
        for set in ["CapPrm:", "CapEff:"] {
            assert_eq!(field(set), ["0000000000002000"], "{set}");
        }
        for set in ["CapInh:", "CapAmb:"] {
            assert_eq!(field(set), ["0000000000000000"], "{set}");
        }
        assert_eq!((field("NoNewPrivs:"), field("Seccomp:")), (vec!["1".into()], vec!["2".into()]));
        threads += 1;
    }
    assert!(threads >= 6, "{threads} threads");
    run.signal("-TERM");
    assert_eq!(run.ends().0, Some(0));
}

/// The program where any user can run it.
fn copy_for_all(folder: &Path) -> PathBuf {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    let program = folder.join("flowtap");
    fs::copy(env!("CARGO_BIN_EXE_flowtap"), &program).unwrap();
    program
}

#[test]
fn cap_net_raw_alone_is_enough_and_without_it_the_message_says_what_to_do() {
    if !can_capture() {
        return;
    }
    if !installed("setpriv") {
        return skip("setpriv is not installed");
    }
    let folder = tempfile::tempdir().unwrap();
    let program = copy_for_all(folder.path());
    let as_nobody = |capabilities: &str| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--no-new-privs"]);
        command
            .args([format!("--inh-caps=-all{capabilities}"), format!("--ambient-caps=-all{capabilities}")]);
        command.arg(format!("--bounding-set=-all{capabilities}")).arg(&program);
        command.env_remove("NOTIFY_SOCKET");
        command.args(["-v", "live", "--interface", "lo", "--to", "csv:/dev/null", "--filter", "udp port 9"]);
        command
    };
    let mut run = Run::start(as_nobody(",+net_raw"), folder.path());
    until("capture", || run.errors().contains("capturing on lo").then_some(()));
    assert!(run.errors().contains("with CAP_NET_RAW; no_new_privs, Landlock"), "{}", run.errors());
    run.signal("-TERM");
    assert_eq!(run.ends().0, Some(0));
    let (status, errors) = Run::start(as_nobody(""), folder.path()).ends();
    assert_eq!(status, Some(1));
    let (path, once) = (program.display(), "sudo setcap cap_net_raw+ep ");
    for way in [
        format!("`{once}{path}`"),
        "`sudo systemctl start flowtap@lo.service`".to_string(),
        format!("`sudo {path} live -i lo`"),
    ] {
        assert!(errors.contains("CAP_NET_RAW") && errors.contains(&way), "no {way} in {errors}");
    }
    // The first way is one: the file's capability, of a user who has none.
    if !installed("setcap") {
        return skip("setcap (Debian: libcap2-bin) is not installed");
    }
    let ignores_capabilities = rustix::fs::StatVfsMountFlags::NOSUID;
    if rustix::fs::statvfs(&program).unwrap().f_flag.contains(ignores_capabilities) {
        return skip("the temporary folder is on a file system that is mounted nosuid");
    }
    assert!(Command::new("setcap").arg("cap_net_raw+ep").arg(&program).status().unwrap().success());
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--inh-caps=-all"]).arg(&program);
    command.args(["-v", "live", "--interface", "lo", "--to", "csv:/dev/null", "--filter", "udp port 9"]);
    command.env_remove("NOTIFY_SOCKET");
    let mut run = Run::start(command, folder.path());
    until("capture", || run.errors().contains("capturing on lo").then_some(()));
    run.signal("-TERM");
    assert_eq!(run.ends().0, Some(0));
}

// The package.

#[test]
fn man_pages_and_completions_are_those_of_the_flags() {
    for (what, kept) in [("man", "packaging/man"), ("completions", "packaging/completions")] {
        let folder = tempfile::tempdir().unwrap();
        let (status, _, errors) =
            words(&flowtap().args(["generate", what]).arg(folder.path()).output().unwrap());
        assert_eq!(status, Some(0), "{errors}");
        let names = |folder: &Path| {
            let mut names: Vec<_> =
                fs::read_dir(folder).unwrap().map(|one| one.unwrap().file_name()).collect();
            names.sort();
            names
        };
        let made = names(folder.path());
        assert_eq!(made, names(&root().join(kept)), "run `flowtap generate {what} {kept}`");
        for name in made {
            let fresh = fs::read_to_string(folder.path().join(&name)).unwrap();
            let old = fs::read_to_string(root().join(kept).join(&name)).unwrap();
            assert!(fresh == old, "{name:?} is old: run `flowtap generate {what} {kept}`");
        }
    }
}

#[test]
fn systemd_finds_no_fault_in_the_unit() {
    if !installed("systemd-analyze") {
        return skip("systemd-analyze is not installed");
    }
    let folder = tempfile::tempdir().unwrap();
    let unit = fs::read_to_string(root().join("packaging/flowtap@.service")).unwrap();
    // Only where the program is differs here.
    let unit = unit.replace("/usr/bin/flowtap", env!("CARGO_BIN_EXE_flowtap"));
    let path = folder.path().join("flowtap@lo.service");
    fs::write(&path, unit).unwrap();
    let (status, out, errors) =
        words(&Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&path).output().unwrap());
    // Other units of the machine are none of its business.
    let ours: Vec<&str> = errors.lines().filter(|line| line.contains("flowtap")).collect();
    assert!(status == Some(0) && ours.is_empty(), "{out}{errors}");
}

#[test]
fn the_package_has_its_files_and_is_gone_when_purged() {
    if !is_root() {
        return skip("installing a package needs root");
    }
    for program in ["dpkg", "dpkg-deb", "cargo-deb"] {
        let by_cargo =
            PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cargo/bin").join(program);
        if !installed(program) && !by_cargo.is_file() {
            return skip(&format!("{program} is not installed"));
        }
    }
    if Path::new("/usr/bin/flowtap").exists() {
        return skip("flowtap is installed on this machine, and the test is of a first installation");
    }
    // The user is one whom every flowtap becomes that root starts, other tests' too, and dpkg has one lock.
    system::inside("the_package_has_its_files_and_is_gone_when_purged", install_and_purge);
}

fn install_and_purge() {
    let folder = tempfile::tempdir().unwrap();
    let built = folder.path().join("target/release");
    fs::create_dir_all(&built).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_flowtap"), built.join("flowtap")).unwrap();
    let package = folder.path().join("flowtap.deb");
    let made = Command::new(env!("CARGO"))
        .args(["deb", "--no-build", "--fast", "--output"])
        .arg(&package)
        .env("CARGO_TARGET_DIR", folder.path().join("target"))
        .current_dir(root())
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let listed = Command::new("dpkg-deb").arg("-c").arg(&package).output().unwrap();
    let (_, listed, _) = words(&listed);
    let files: Vec<&str> = listed
        .lines()
        .filter(|line| line.starts_with('-'))
        .filter_map(|line| line.split_whitespace().last()?.strip_prefix('.'))
        .collect();
    for file in [
        "/usr/bin/flowtap",
        "/usr/lib/systemd/system/flowtap@.service",
        "/usr/lib/sysusers.d/flowtap.conf",
        "/etc/flowtap/flowtap.toml",
        "/usr/share/doc/flowtap/examples/flowtap.toml",
        "/usr/share/doc/flowtap/changelog.Debian.gz",
        "/usr/share/man/man1/flowtap.1.gz",
        "/usr/share/man/man1/flowtap-live.1.gz",
        "/usr/share/bash-completion/completions/flowtap",
        "/usr/share/zsh/vendor-completions/_flowtap",
        "/usr/share/fish/vendor_completions.d/flowtap.fish",
    ] {
        assert!(files.contains(&file), "{file} is not in {listed}");
    }
    let dpkg = |arguments: &[&std::ffi::OsStr]| {
        let (status, out, errors) = words(&Command::new("dpkg").args(arguments).output().unwrap());
        assert_eq!(status, Some(0), "dpkg {arguments:?}: {out}{errors}");
        out
    };
    dpkg(&["--install".as_ref(), package.as_os_str()]);
    let user = || Command::new("getent").args(["passwd", "flowtap"]).output().unwrap().status.success();
    assert!(user(), "the user was not made");
    let (status, out, errors) = words(
        &Command::new("/usr/bin/flowtap")
            .args(["check-config", "/etc/flowtap/flowtap.toml"])
            .output()
            .unwrap(),
    );
    assert_eq!(status, Some(0), "{out}{errors}");
    let enabled = "/etc/systemd/system/multi-user.target.wants/flowtap@nosuch0.service";
    if installed("systemctl") {
        // It makes a link, systemd or no systemd.
        let (status, out, errors) =
            words(&Command::new("systemctl").args(["enable", "flowtap@nosuch0.service"]).output().unwrap());
        assert!(status == Some(0) && Path::new(enabled).is_symlink(), "{out}{errors}");
    } else {
        skip("systemctl (Debian: systemd) is not installed, so the package's unit was not enabled");
    }
    service_as_the_unit_has_it(folder.path());
    let purge = || {
        let out = dpkg(&["--purge".as_ref(), "flowtap".as_ref()]);
        for path in ["/usr/bin/flowtap", "/etc/flowtap", "/var/lib/flowtap", "/usr/share/doc/flowtap"] {
            assert!(!Path::new(path).exists(), "{path} is still there");
        }
        out
    };
    purge();
    assert!(!Path::new(enabled).is_symlink(), "{enabled} is still there");
    assert!(!user(), "the user is still there");

    // One that root started by hand is no service, and runs on.
    dpkg(&["--install".as_ref(), package.as_os_str()]);
    let mut run = Run::start(live(None, LIMIT, &["-v", "--to", "csv:/dev/null"]), folder.path());
    until("capture", || run.errors().contains("capturing on lo").then_some(()));
    assert!(run.errors().contains("runs as flowtap "), "{}", run.errors());
    let said = purge();
    assert!(user() && said.contains("the user flowtap stays"), "{said}");
    run.signal("-TERM");
    assert_eq!(run.ends().0, Some(0));
    assert!(Command::new("userdel").arg("flowtap").status().unwrap().success() && !user());
}

/// Where systemd does not run: the unit's `ExecStart` on a veth pair, as its user, with its capability and its
/// environment, its settings those that the package brought; a stock nfcapd receives the flows.
fn service_as_the_unit_has_it(folder: &Path) {
    for program in ["nfcapd", "nfdump", "setpriv"] {
        if !installed(program) {
            return skip(&format!("{program} is not installed, so the service of the package was not run"));
        }
    }
    let Some(network) = Network::new() else { return };
    let (of_collector, flows) = (folder.join("nfcapd"), folder.join("nfcapd/flows"));
    fs::create_dir_all(&flows).unwrap();
    let mut collector = network.command(&network.near, "nfcapd");
    collector.args(["-p", "4739", "-b", "127.0.0.1", "-t", "60", "-l"]).arg(&flows);
    let mut collector = Run::start(collector, &of_collector);
    // As the kernel lists sockets: local address, and what waits to be read.
    let waiting = || {
        let sockets = network.near("cat /proc/net/udp").stdout;
        let sockets = String::from_utf8(sockets).unwrap();
        let columns: Vec<&str> =
            sockets.lines().find(|line| line.contains(" 0100007F:1283 "))?.split_whitespace().collect();
        Some(u64::from_str_radix(columns[4].split_once(':')?.1, 16).unwrap())
    };
    until("a collector", waiting);

    let unit = fs::read_to_string("/usr/lib/systemd/system/flowtap@.service").unwrap();
    let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap().replace("%i", TAP);
    let manager = Manager::on_path(folder);
    let mut command = network.command(&network.near, "setpriv");
    command.args(["--reuid=flowtap", "--regid=flowtap", "--clear-groups", "--no-new-privs"]);
    command.args([
        "--inh-caps=-all,+net_raw",
        "--ambient-caps=-all,+net_raw",
        "--bounding-set=-all,+net_raw",
    ]);
    command.args(start.split(' ')).env("NOTIFY_SOCKET", &manager.name).env("WATCHDOG_USEC", "1000000");
    for path in [folder.to_path_buf(), PathBuf::from(&manager.name)] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
    }
    let mut run = Run::start(command, folder);
    manager.waits_for("READY=1");
    manager.waits_for("WATCHDOG=1");
    network.far("ping -q -c 5 -i 0.05 10.9.0.1");
    network.far("ping -q -c 3 -i 0.05 fd09::1");
    run.signal("-TERM");
    let (status, errors) = run.ends();
    assert_eq!(status, Some(0), "{errors}");
    assert!(errors.contains("runs as flowtap with CAP_NET_RAW; "), "{errors}");
    until("the collector to read what came", || (waiting()? == 0).then_some(()));
    collector.signal("-TERM");
    let (_, words_of_collector) = collector.ends();

    let dump = Command::new("nfdump")
        .args(["-q", "-o", "fmt:%sa,%da,%pr,%ipkt,%ibyt", "-6", "-R"])
        .arg(&flows)
        .output()
        .unwrap();
    let (_, dumped, complaint) = words(&dump);
    let rows: Vec<String> = dumped.lines().map(|line| line.replace(' ', "")).collect();
    let found = format!("{rows:#?}\n{complaint}{words_of_collector}{errors}");
    for row in [
        "10.9.0.2,10.9.0.1,ICMP,5,420",
        "10.9.0.1,10.9.0.2,ICMP,5,420",
        "fd09::2,fd09::1,ICMP6,3,312",
        "fd09::1,fd09::2,ICMP6,3,312",
    ] {
        assert!(rows.iter().any(|one| one == row), "no flow {row}: {found}");
    }
    let exported = format!("exported   {} records to ipfix+udp://127.0.0.1:4739 ", rows.len());
    assert!(errors.contains(&exported), "{exported:?} is not what was said: {found}");
    eprintln!("the service on {TAP}: {} records exported, and nfcapd has stored all of them", rows.len());
}
