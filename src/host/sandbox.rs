//! Rights given away (Linux): a process with one thread and open sockets in; one that can do little but what it is for out.
//!
//! In this order, because each step needs what a later one takes: the user (setresuid), capabilities (at most CAP_NET_RAW, and
//! that only if an interface may have to be opened again), no_new_privs, Landlock (files and TCP ports), seccomp (system
//! calls). Threads started afterwards inherit all of it; one started before would keep its rights, which is why that is
//! refused. Becoming the user must succeed; what the kernel does not know is told and gone without.

use std::fmt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use caps::{CapSet, Capability, CapsHashSet};
use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, NetPort, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetStatus, Scope,
};
use nix::unistd::{Uid, User};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};
use thiserror::Error;

/// The user that the package makes.
const OWN_USER: &str = "flowtap";
/// The user that owns nothing, on every system.
const NOBODY: &str = "nobody";
/// What is made use of; an older kernel gives what it has.
const LANDLOCK: ABI = ABI::V6;
/// DNS (RFC 1035 §4.2): names of collectors are resolved again when they are connected again.
const DNS_PORT: u16 = 53;

/// What may be read once all is open: libraries and settings that names are resolved with, the time zone, and what libpcap
/// looks at when it opens an interface.
const READS: [&str; 18] = [
    "/usr",
    "/lib",
    "/lib64",
    "/etc/hosts",
    "/etc/host.conf",
    "/etc/resolv.conf",
    "/etc/nsswitch.conf",
    "/etc/gai.conf",
    "/etc/services",
    "/etc/protocols",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/run/systemd/resolve",
    "/run/resolvconf",
    "/sys/class/net",
    "/sys/devices",
    "/proc/self",
    "/proc/net",
];

/// Why rights could not be given away.
#[derive(Debug, Error)]
pub enum SandboxError {
    /// No such user.
    #[error("--user: there is no user {0:?}")]
    NoUser(String),
    /// Not the user's to become.
    #[error("--user: becoming {user:?} needs root, this is user {now}")]
    NotRoot {
        /// The user wanted.
        user: String,
        /// The user it is.
        now: u32,
    },
    /// The system refused.
    #[error("giving up rights: {doing}")]
    Refused {
        /// What was being done.
        doing: &'static str,
        /// The system's word.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A defect of flowtap.
    #[error("giving up rights: {0} threads run already, which would keep theirs")]
    Threads(usize),
}

/// What is to be kept.
#[derive(Clone, Copy, Debug)]
pub struct Sandbox<'a> {
    /// The user to become. Without: as root `flowtap`, or where there is none `nobody`; else the one it is.
    pub user: Option<&'a str>,
    /// Files that are written: they may be made again in their folders.
    pub writes: &'a [PathBuf],
    /// TCP ports that may be connected to.
    pub connects: &'a [u16],
    /// Whether an interface may have to be opened again.
    pub reopens_interface: bool,
}

/// What a process still holds, and what the kernel could not take.
#[derive(Clone, Debug)]
pub struct Held {
    user: String,
    capabilities: Vec<String>,
    layers: Vec<String>,
    missing: Vec<String>,
}

impl Held {
    /// What the kernel could not give.
    pub fn missing(&self) -> &[String] {
        &self.missing
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let capabilities = match self.capabilities.is_empty() {
            true => "no capabilities".to_string(),
            false => self.capabilities.join(", "),
        };
        write!(f, "runs as {} with {capabilities}; {}", self.user, self.layers.join(", "))?;
        if !self.missing.is_empty() {
            write!(f, "; not given by this kernel: {}", self.missing.join(", "))?;
        }
        Ok(())
    }
}

fn refused<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
    doing: &'static str,
) -> impl FnOnce(E) -> SandboxError {
    move |source| SandboxError::Refused { doing, source: source.into() }
}

impl Sandbox<'_> {
    /// Gives away everything else, for ever.
    ///
    /// # Errors
    /// When the user cannot be become, or a right that must go stays.
    pub fn enter(&self) -> Result<Held, SandboxError> {
        let threads = std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
        if threads > 1 {
            return Err(SandboxError::Threads(threads));
        }
        let user = user_to_become(self.user)?;
        let capabilities = self.capabilities(user.as_ref())?;
        rustix::thread::set_no_new_privs(true).map_err(refused("setting no_new_privs"))?;
        let mut held = Held {
            user: user_name(),
            capabilities,
            layers: vec!["no_new_privs".to_string()],
            missing: Vec::new(),
        };
        match self.landlock() {
            Ok((RulesetStatus::FullyEnforced, folders)) => held.layers.push(format!("Landlock ({folders})")),
            Ok((RulesetStatus::PartiallyEnforced, folders)) => {
                held.layers.push(format!("Landlock ({folders})"));
                held.missing.push("Landlock's newer rules".to_string());
            }
            Ok((RulesetStatus::NotEnforced, _)) => held.missing.push("Landlock".to_string()),
            Err(error) => held.missing.push(format!("Landlock ({error})")),
        }
        match self.seccomp() {
            Ok(calls) => held.layers.push(format!("seccomp ({calls} system calls)")),
            Err(error) => held.missing.push(format!("seccomp ({error})")),
        }
        Ok(held)
    }

    /// Becomes the user and drops all capabilities that are not needed. Gives those that are left.
    fn capabilities(&self, user: Option<&User>) -> Result<Vec<String>, SandboxError> {
        let of = |set| caps::read(None, set).map_err(refused("reading capabilities"));
        let wanted: CapsHashSet = match self.reopens_interface {
            true => [Capability::CAP_NET_RAW].into(),
            false => CapsHashSet::new(),
        };
        let keep: CapsHashSet = of(CapSet::Permitted)?.intersection(&wanted).copied().collect();
        if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP).unwrap_or(false) {
            for capability in of(CapSet::Bounding)?.difference(&keep) {
                caps::drop(None, CapSet::Bounding, *capability)
                    .map_err(refused("dropping capabilities from the bounding set"))?;
            }
        }
        if let Some(user) = user {
            caps::securebits::set_keepcaps(true).map_err(refused("keeping capabilities"))?;
            nix::unistd::setgroups(&[]).map_err(refused("leaving all groups"))?;
            nix::unistd::setresgid(user.gid, user.gid, user.gid).map_err(refused("changing the group"))?;
            nix::unistd::setresuid(user.uid, user.uid, user.uid).map_err(refused("changing the user"))?;
            caps::securebits::set_keepcaps(false).map_err(refused("keeping capabilities"))?;
        }
        // An old kernel may not know ambient capabilities; then there are none to clear.
        let _ = caps::clear(None, CapSet::Ambient);
        caps::set(None, CapSet::Effective, &keep).map_err(refused("dropping capabilities"))?;
        caps::set(None, CapSet::Permitted, &keep).map_err(refused("dropping capabilities"))?;
        caps::clear(None, CapSet::Inheritable).map_err(refused("dropping capabilities"))?;
        Ok(of(CapSet::Permitted)?.iter().map(ToString::to_string).collect())
    }

    fn landlock(&self) -> Result<(RulesetStatus, String), landlock::RulesetError> {
        let mut rules = Ruleset::default()
            .handle_access(AccessFs::from_all(LANDLOCK))?
            .handle_access(AccessNet::from_all(LANDLOCK))?
            .scope(Scope::from_all(LANDLOCK))?
            .create()?;
        let reading = AccessFs::ReadFile | AccessFs::ReadDir;
        for path in READS {
            rules = allow(rules, Path::new(path), reading)?;
        }
        let mut folders: Vec<String> = Vec::new();
        for path in self.writes {
            let is_plain = std::fs::metadata(path)
                .map_or(true, |there| !(there.file_type().is_char_device() || there.file_type().is_fifo()));
            if !is_plain {
                rules = allow(rules, path, AccessFs::WriteFile.into())?;
                continue;
            }
            // A rule for a file alone would not let it be made again after it was moved away.
            let folder = match path.parent() {
                Some(folder) if folder != Path::new("") => folder,
                _ => Path::new("."),
            };
            rules = allow(rules, folder, AccessFs::WriteFile | AccessFs::MakeReg | AccessFs::Truncate)?;
            let name = folder.display().to_string();
            if !folders.contains(&name) {
                folders.push(name);
            }
        }
        for port in self.connects.iter().chain([&DNS_PORT]) {
            rules = rules.add_rule(NetPort::new(*port, AccessNet::ConnectTcp))?;
        }
        let words = match folders.is_empty() {
            true => "writes no files".to_string(),
            false => format!("writes in {}", folders.join(", ")),
        };
        Ok((rules.restrict_self()?.ruleset, words))
    }

    /// Refuses with EPERM all system calls but those that are needed. Gives their number.
    fn seccomp(&self) -> Result<usize, Box<dyn std::error::Error>> {
        let rules = system_calls(self.reopens_interface)?;
        let number = rules.len();
        let allow = SeccompFilter::new(
            rules.into_iter().collect(),
            SeccompAction::Errno(libc::EPERM as u32),
            SeccompAction::Allow,
            std::env::consts::ARCH.try_into()?,
        )?;
        // The C library starts a thread by clone, whose flags can be looked at, if there is no clone3, whose flags cannot.
        let no_clone3 = SeccompFilter::new(
            [(libc::SYS_clone3, Vec::new())].into(),
            SeccompAction::Allow,
            SeccompAction::Errno(libc::ENOSYS as u32),
            std::env::consts::ARCH.try_into()?,
        )?;
        let [allow, no_clone3]: [BpfProgram; 2] = [allow.try_into()?, no_clone3.try_into()?];
        // The second filter first: the other one lets clone3 pass but not the call that adds filters.
        seccompiler::apply_filter(&no_clone3)?;
        seccompiler::apply_filter(&allow)?;
        Ok(number)
    }
}

/// The user that [`Sandbox::enter`] becomes where `name` is asked for, if that is another one.
///
/// # Errors
/// When there is no such user, or it cannot be become.
pub fn user_to_become(name: Option<&str>) -> Result<Option<User>, SandboxError> {
    let now = Uid::effective();
    let user = match name {
        Some(name) => Some(user_named(name)?),
        None if now.is_root() => match look_up(OWN_USER)? {
            Some(user) => Some(user),
            None => look_up(NOBODY)?,
        },
        None => None,
    };
    match user {
        Some(user) if user.uid == now => Ok(None),
        Some(user) if !now.is_root() => Err(SandboxError::NotRoot { user: user.name, now: now.as_raw() }),
        user => Ok(user),
    }
}

fn look_up(name: &str) -> Result<Option<User>, SandboxError> {
    User::from_name(name).map_err(refused("looking up a user"))
}

/// The user of this name.
///
/// # Errors
/// There is none, or the system's list of users cannot be read.
pub fn user_named(name: &str) -> Result<User, SandboxError> {
    look_up(name)?.ok_or_else(|| SandboxError::NoUser(name.to_string()))
}

fn user_name() -> String {
    let now = Uid::effective();
    match User::from_uid(now) {
        Ok(Some(user)) => user.name,
        _ => format!("user {now}"),
    }
}

/// A path that is not there, or cannot be reached, needs no rule.
fn allow(
    rules: landlock::RulesetCreated,
    path: &Path,
    access: BitFlags<AccessFs>,
) -> Result<landlock::RulesetCreated, landlock::RulesetError> {
    let Ok(opened) = PathFd::new(path) else { return Ok(rules) };
    // What only folders have is refused for a file.
    let access = if path.is_dir() { access } else { access & AccessFs::from_file(LANDLOCK) };
    rules.add_rule(PathBeneath::new(opened, access))
}

type Rules = Vec<(libc::c_long, Vec<SeccompRule>)>;

/// The system calls of a running sensor: reading the ring, sending, files, threads, time, memory, resolving names, answering
/// for the metrics. Not among them: running or tracing programs, signals to others, changing users, modes or mounts,
/// removing files, and sockets other than UDP, TCP and what name resolution and capture need.
fn system_calls(reopens_interface: bool) -> Result<Rules, seccompiler::BackendError> {
    let equals = |argument, value: i32| {
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value as u64)
    };
    // The flags beside a socket's type are harmless.
    let is_type = |value: i32| {
        SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(0xf), value as u64)
    };
    let mut sockets = Vec::new();
    for domain in [libc::AF_INET, libc::AF_INET6, libc::AF_UNIX] {
        for kind in [libc::SOCK_STREAM, libc::SOCK_DGRAM] {
            sockets.push(SeccompRule::new(vec![equals(0, domain)?, is_type(kind)?])?);
        }
    }
    for protocol in [libc::NETLINK_ROUTE, libc::NETLINK_GENERIC] {
        sockets.push(SeccompRule::new(vec![equals(0, libc::AF_NETLINK)?, equals(2, protocol)?])?);
    }
    if reopens_interface {
        sockets.push(SeccompRule::new(vec![equals(0, libc::AF_PACKET)?])?);
    }
    let threads_only = SeccompCondition::new(
        0,
        SeccompCmpArgLen::Qword,
        SeccompCmpOp::MaskedEq(libc::CLONE_THREAD as u64),
        libc::CLONE_THREAD as u64,
    )?;
    let mut prctl = Vec::new();
    for option in [libc::PR_SET_NAME, libc::PR_GET_NAME, libc::PR_SET_VMA] {
        prctl.push(SeccompRule::new(vec![equals(0, option)?])?);
    }
    let mut rules: Rules = SYSTEM_CALLS.iter().map(|call| (*call, Vec::new())).collect();
    #[cfg(target_arch = "x86_64")]
    rules.extend(OLD_SYSTEM_CALLS.iter().map(|call| (*call, Vec::new())));
    rules.push((libc::SYS_socket, sockets));
    rules.push((libc::SYS_socketpair, vec![SeccompRule::new(vec![equals(0, libc::AF_UNIX)?])?]));
    rules.push((libc::SYS_clone, vec![SeccompRule::new(vec![threads_only])?]));
    rules.push((libc::SYS_prctl, prctl));
    Ok(rules)
}

const SYSTEM_CALLS: &[libc::c_long] = &[
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_brk,
    libc::SYS_capget,
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_clone3,
    libc::SYS_close,
    libc::SYS_connect,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_eventfd2,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fadvise64,
    libc::SYS_fcntl,
    libc::SYS_fdatasync,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_fsync,
    libc::SYS_ftruncate,
    libc::SYS_futex,
    libc::SYS_get_robust_list,
    libc::SYS_getcpu,
    libc::SYS_getdents64,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getpeername,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_getrusage,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_gettid,
    libc::SYS_gettimeofday,
    libc::SYS_getuid,
    libc::SYS_ioctl,
    libc::SYS_lseek,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_nanosleep,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_pipe2,
    libc::SYS_ppoll,
    libc::SYS_pread64,
    libc::SYS_prlimit64,
    libc::SYS_pselect6,
    libc::SYS_pwrite64,
    libc::SYS_read,
    libc::SYS_readlinkat,
    libc::SYS_readv,
    libc::SYS_recvfrom,
    libc::SYS_recvmmsg,
    libc::SYS_recvmsg,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_yield,
    libc::SYS_sendmmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_set_robust_list,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    libc::SYS_sigaltstack,
    libc::SYS_statx,
    libc::SYS_sysinfo,
    libc::SYS_tgkill,
    libc::SYS_uname,
    libc::SYS_write,
    libc::SYS_writev,
];

/// What newer architectures do by one of the above.
#[cfg(target_arch = "x86_64")]
const OLD_SYSTEM_CALLS: &[libc::c_long] = &[
    libc::SYS_access,
    libc::SYS_arch_prctl,
    libc::SYS_epoll_wait,
    libc::SYS_getrlimit,
    libc::SYS_lstat,
    libc::SYS_open,
    libc::SYS_poll,
    libc::SYS_readlink,
    libc::SYS_select,
    libc::SYS_stat,
    libc::SYS_time,
];
