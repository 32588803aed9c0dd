//! The sandbox, tried: each thing that must be denied is done, inside it, and said how it went.
//!
//! A child enters the sandbox and tries; the parent counts what the child says, so that a child which is ended, or replaced
//! by the program it was not to run, does not pass.

use std::fmt;
use std::fs::{DirBuilder, Permissions};
use std::io::{self, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, fchown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use caps::{CapSet, Capability};
use nix::sched::CloneFlags;
use nix::unistd::{Pid, Uid, User};
use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketType};

use crate::capture::live::{LiveCapture, LiveOptions};
use crate::host::sandbox::{Sandbox, user_to_become};

/// What the child prints before its list, to stand for the whole of it.
const DENIED: &str = "denied ";
const ALLOWED: &str = "allowed ";
const WRONG: &str = "WRONG ";

/// The file it may write.
const OWN: &str = "own.csv";

/// How it went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// What the child held.
    pub held: String,
    /// What was tried, one line each.
    pub lines: Vec<String>,
    /// How many went as they must.
    pub right: usize,
}

impl Outcome {
    /// Whether all went as it must.
    pub fn is_clean(&self) -> bool {
        self.right == self.lines.len() && self.right > 0
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.held)?;
        for line in &self.lines {
            writeln!(f, "{line}")?;
        }
        writeln!(f, "{} of {} as they must be", self.right, self.lines.len())
    }
}

/// Runs the child, with a new folder in `temporary` as the one in which it may write.
///
/// # Errors
/// When it cannot be run, or ends before it has tried everything.
pub fn run(user: Option<&str>, temporary: &Path) -> io::Result<Outcome> {
    let becomes = user_to_become(user).map_err(io::Error::other)?;
    let folder = new_folder(temporary)?;
    let outcome = hand_over(&folder, becomes.as_ref()).and_then(|()| run_in(user, &folder));
    std::fs::remove_dir_all(&folder)?;
    outcome
}

/// Makes a folder that is the caller's alone; what stands in its place already is left alone, and an error.
fn new_folder(temporary: &Path) -> io::Result<PathBuf> {
    let folder = temporary.join(format!("flowtap-self-test-{}", std::process::id()));
    DirBuilder::new().mode(0o700).create(&folder)?;
    Ok(folder)
}

/// Makes the file in that new folder, and gives both to the user whom the child becomes.
///
/// Through descriptors, the folder's last: who else may write beside the folder, or as that user in it, cannot have another
/// file given away.
fn hand_over(folder: &Path, user: Option<&User>) -> io::Result<()> {
    let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = rustix::fs::open(folder, flags | OFlags::DIRECTORY, Mode::empty())?;
    let new = flags | OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
    let own = rustix::fs::openat(&folder, OWN, new, Mode::RUSR | Mode::WUSR)?;
    if let Some(user) = user {
        for made in [own, folder] {
            fchown(made, Some(user.uid.as_raw()), Some(user.gid.as_raw()))?;
        }
    }
    Ok(())
}

fn run_in(user: Option<&str>, folder: &Path) -> io::Result<Outcome> {
    let mut child = Command::new(std::env::current_exe()?);
    child.args(["self-test", "--inside"]).arg(folder).stdin(Stdio::null()).stderr(Stdio::inherit());
    if let Some(user) = user {
        child.args(["--user", user]);
    }
    let output = child.output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines: Vec<String> = text.lines().map(str::to_string).collect();
    if lines.pop().as_deref() != Some("end") {
        return Err(io::Error::other(format!(
            "the self-test ended before its end ({}): {text}",
            output.status
        )));
    }
    let held = lines.iter().position(|line| line.starts_with(DENIED) || line.starts_with(WRONG));
    let tried = lines.split_off(held.unwrap_or(lines.len()));
    let right = tried.iter().filter(|line| !line.starts_with(WRONG)).count();
    Ok(Outcome { held: lines.join(" "), lines: tried, right })
}

/// Tries everything; to be called in the child.
///
/// # Errors
/// When the sandbox cannot be entered.
pub fn inside(user: Option<&str>, folder: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let own = folder.join(OWN);
    let elsewhere = folder.with_extension("elsewhere");
    let parent = Pid::parent();
    let writes = [own.clone()];
    let sandbox = Sandbox { user, writes: &writes, connects: &[4739], reopens_interface: true };
    let held = sandbox.enter()?;
    let mut out = io::stdout().lock();
    writeln!(out, "{held}")?;
    let mut denied = |what: &str, tried: io::Result<()>| match tried {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            writeln!(out, "{DENIED} {what} ({error})")
        }
        Err(error) => writeln!(out, "{WRONG}   {what} failed, and was not denied ({error})"),
        Ok(()) => writeln!(out, "{WRONG}   {what} was not denied"),
    };
    denied("making a file outside its folders", done(std::fs::File::create(&elsewhere)))?;
    denied("writing to /etc/passwd", done(std::fs::File::options().append(true).open("/etc/passwd")))?;
    denied("reading /etc/shadow", done(std::fs::File::open("/etc/shadow")))?;
    denied("listing /root", done(std::fs::read_dir("/root")))?;
    denied("removing a file, even its own", done(std::fs::remove_file(&own)))?;
    denied("changing a file's mode", done(std::fs::set_permissions(&own, Permissions::from_mode(0o777))))?;
    denied("starting a process", done(Command::new("/bin/true").spawn()))?;
    denied(
        "a raw IP socket",
        done(rustix::net::socket(AddressFamily::INET, SocketType::RAW, Some(rustix::net::ipproto::ICMP))),
    )?;
    denied("a Bluetooth socket", done(rustix::net::socket(AddressFamily::BLUETOOTH, SocketType::RAW, None)))?;
    denied("listening on a TCP port", done(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))))?;
    denied("sending a signal to its parent", done(nix::sys::signal::kill(parent, None)))?;
    denied("tracing its parent", done(nix::sys::ptrace::attach(parent)))?;
    denied(
        "becoming root",
        done(nix::unistd::setresuid(Uid::from_raw(0), Uid::from_raw(0), Uid::from_raw(0))),
    )?;
    denied(
        "regaining CAP_SYS_ADMIN",
        raised(caps::raise(None, CapSet::Effective, Capability::CAP_SYS_ADMIN)),
    )?;
    denied(
        "regaining CAP_NET_ADMIN",
        raised(caps::raise(None, CapSet::Permitted, Capability::CAP_NET_ADMIN)),
    )?;
    denied("a user namespace of its own", done(nix::sched::unshare(CloneFlags::CLONE_NEWUSER)))?;
    denied("a network namespace of its own", done(nix::sched::unshare(CloneFlags::CLONE_NEWNET)))?;
    denied("running a program in its place", Err(Command::new("/bin/false").exec()))?;
    let elsewhere = done(TcpStream::connect((Ipv4Addr::LOCALHOST, 22)));
    if held.missing().is_empty() {
        denied("connecting to a TCP port that is no collector's", elsewhere)?;
    }
    let mut allowed = |what: &str, tried: io::Result<()>| match tried {
        Ok(()) => writeln!(out, "{ALLOWED}{what}"),
        Err(error) => writeln!(out, "{WRONG}   {what} failed ({error})"),
    };
    allowed("making a file in its folder", done(std::fs::File::create(&own)))?;
    allowed("a UDP socket", done(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))))?;
    allowed("a thread", done(std::thread::Builder::new().spawn(|| {}).map(std::thread::JoinHandle::join)))?;
    allowed("resolving a name", done(std::net::ToSocketAddrs::to_socket_addrs(&("localhost", 4739))))?;
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_NET_RAW)? {
        // What a link that comes back takes.
        let opened = LiveCapture::open("lo", &LiveOptions::default(), 0, None);
        allowed("opening an interface again", opened.map(drop).map_err(io::Error::other))?;
    }
    allowed("reading where interfaces are listed", done(std::fs::read_dir("/sys/class/net")))?;
    writeln!(out, "end")?;
    Ok(())
}

fn done<T, E: Into<io::Error>>(tried: Result<T, E>) -> io::Result<()> {
    tried.map(drop).map_err(Into::into)
}

/// The library gives the kernel's word only.
fn raised(tried: Result<(), caps::errors::CapsError>) -> io::Result<()> {
    tried.map_err(|error| io::Error::new(io::ErrorKind::PermissionDenied, error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, symlink};

    #[test]
    fn what_the_child_writes_in_belongs_to_its_user_and_nobody_else_can_write_there() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = new_folder(temporary.path()).unwrap();
        // Who is not root can give to himself only, which goes the same way.
        let user = user_to_become(None)
            .unwrap()
            .unwrap_or_else(|| User::from_uid(Uid::effective()).unwrap().unwrap());
        hand_over(&folder, Some(&user)).unwrap();
        for (path, mode) in [(folder.clone(), 0o700), (folder.join(OWN), 0o600)] {
            let there = std::fs::symlink_metadata(&path).unwrap();
            assert_eq!((there.uid(), there.mode() & 0o7777), (user.uid.as_raw(), mode), "{path:?}");
        }
    }

    #[test]
    fn what_others_put_in_the_way_is_neither_followed_nor_given_away() {
        let temporary = tempfile::tempdir().unwrap();
        let user = user_to_become(None).unwrap();
        let target = temporary.path().join("target");
        std::fs::write(&target, "kept").unwrap();
        let folder = new_folder(temporary.path()).unwrap();
        symlink(&target, folder.join(OWN)).unwrap();
        assert!(hand_over(&folder, user.as_ref()).is_err());
        std::fs::remove_file(folder.join(OWN)).unwrap();
        let in_its_place = temporary.path().join("link");
        symlink(&folder, &in_its_place).unwrap();
        assert!(hand_over(&in_its_place, user.as_ref()).is_err());
        let mine = Uid::effective().as_raw();
        for path in [target.as_path(), &folder] {
            assert_eq!(std::fs::metadata(path).unwrap().uid(), mine, "{path:?}");
        }
        assert_eq!(std::fs::read(&target).unwrap(), b"kept");
        assert!(!folder.join(OWN).exists());
    }
}
