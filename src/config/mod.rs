//! The flags, checked and turned into one small struct for each stage. Every refusal names its flag, what was found
//! and what is allowed.

mod files;

use std::error::Error;
use std::io::IsTerminal;
use std::num::{NonZeroU32, NonZeroUsize};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::slice;
use std::time::Duration;

use humantime::format_duration;

pub use self::files::check_files;
use self::files::in_a_folder;
use crate::capture::file::FileOptions;
use crate::capture::filter::Filter;
use crate::capture::live::{ANY, LiveOptions};
use crate::cli::{By, HostArgs, LiveArgs, MeterArgs, PrintArgs, ReadArgs, Summary, TextArgs};
use crate::export::ExportOptions;
use crate::export::destination::{Destination, STANDARD_OUTPUT};
use crate::export::text::TextOptions;
use crate::flow::expiry::LONGEST_TIMEOUT;
use crate::flow::table::MOST_FLOWS;
use crate::flow::{TableOptions, Timeouts};
use crate::host::{HostOptions, sandbox};
use crate::pipeline::{Layout, PipelineOptions};
use crate::sensor::SensorOptions;

/// A flag whose value is not allowed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigError {
    /// A duration out of range.
    #[error("{flag}: {} is too {direction}, the {limit} is {}", typed(*found), typed(*allowed))]
    Time {
        /// The flag.
        flag: &'static str,
        /// Its value.
        found: Duration,
        /// `short` or `long`.
        direction: &'static str,
        /// `least` or `most`.
        limit: &'static str,
        /// What is allowed.
        allowed: Duration,
    },
    /// A number out of range.
    #[error("{flag}: {found} is not allowed, it must be {allowed}")]
    Number {
        /// The flag.
        flag: &'static str,
        /// Its value.
        found: u64,
        /// What is allowed.
        allowed: String,
    },
    /// Two destinations on standard output.
    #[error("--to: {first} and {second} both go to standard output, only one can")]
    StandardOutputTwice {
        /// The first of them.
        first: String,
        /// The second of them.
        second: String,
    },
    /// Two files that are written are one.
    #[error("{flag}: {value} and {other} are the same file, each needs one of its own")]
    SameFile {
        /// The flag of one.
        flag: &'static str,
        /// Its value.
        value: String,
        /// The other one, flag and value.
        other: String,
    },
    /// What is written is an input, too.
    #[error("{flag}: {value} is also read, and must not be written to: FILE {}", input.display())]
    AlsoRead {
        /// The flag.
        flag: &'static str,
        /// Its value.
        value: String,
        /// The input.
        input: PathBuf,
    },
    /// Standard input named twice.
    #[error("FILE: standard input (-) is named {0} times, it can be read only once")]
    StandardInputTwice(usize),
    /// An interface named twice.
    #[error("--interface: {0} is named twice, its packets would be metered twice")]
    InterfaceTwice(String),
    /// An interface named besides all of them.
    #[error("--interface: any is all interfaces, and {0} besides would have its packets metered twice")]
    InterfaceBesidesAll(String),
    /// A comma without a name on both sides.
    #[error(
        "--interface: a name is empty, allowed are the names of interfaces with a comma between two of them"
    )]
    InterfaceWithoutName,
    /// Messages, which are not text, on a terminal.
    #[error(
        "--to: {0} would write binary messages to the terminal; name a file (ipfix+file:PATH), or send standard output \
         to a file or a pipe"
    )]
    BinaryOnTerminal(String),
    /// Frames and records on standard output.
    #[error(
        "--write: - is standard output, to which {0} goes, too, and only one can; write the frames to a file, or send \
         the records elsewhere with --to"
    )]
    WriteOnStandardOutput(String),
    /// Frames, which are not text, on a terminal.
    #[error(
        "--write: - would write frames, which are no text, to the terminal; name a file, or send standard output to a \
         file or a pipe"
    )]
    FramesOnTerminal,
    /// `-` for what is no stream.
    #[error("{flag}: - is standard input or output, where {what} cannot be; a file of that name is ./-")]
    NoStream {
        /// The flag.
        flag: &'static str,
        /// What it names.
        what: &'static str,
    },
    /// A measure for a list that was not asked for.
    #[error("--by: says what --top goes by, and there is no --top: give both, or neither")]
    ByWithoutTop,
    /// A file in a folder that is not there.
    #[error("{flag}: {} cannot be written, there is no folder {}", path.display(), folder.display())]
    NoFolder {
        /// The flag.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// Its folder, in full.
        folder: PathBuf,
    },
    /// A destination that `print` cannot write.
    #[error("--to: {0} is not a text form; allowed are table:PATH, csv:PATH and json:PATH")]
    NotText(String),
}

/// Beyond this they make no sense on any machine.
pub(crate) const SHARDS: RangeInclusive<u64> = 0..=256;
/// The same, for each interface.
pub(crate) const CAPTURE_THREADS: RangeInclusive<u64> = 1..=64;
/// Each table holds one at least.
pub(crate) const MAX_FLOWS: RangeInclusive<u64> = 1..=MOST_FLOWS as u64;
/// 0 is the statistics' own.
pub(crate) const OBSERVATION_DOMAINS: RangeInclusive<u64> = 1..=u32::MAX as u64;
pub(crate) const REFRESH_MESSAGES: RangeInclusive<u64> = 1..=u64::MAX;
/// Live, an unfilled message is sent after at most one second: this, and two looks at the clock.
const LIVE_MESSAGE_DELAY: Duration = Duration::from_millis(550);
const LEAST_ACTIVE: Duration = Duration::from_millis(1);
/// The least IPv6 MTU (RFC 8200 §5) would be 1280; IPv4 hosts must take 576 octets (RFC 791 §3.1).
pub(crate) const MTUS: RangeInclusive<u64> = 576..=u16::MAX as u64;
/// Nobody reads a longer list.
pub(crate) const TOPS: RangeInclusive<u64> = 1..=u32::MAX as u64;
const LEAST_REFRESH: Duration = Duration::from_secs(1);
pub(crate) const SNAPLENS: RangeInclusive<u64> = 64..=262_144;
/// libpcap takes one octet less than the most, as it counts in an `int`.
const BUFFERS: RangeInclusive<u64> = 1 << 16..=1 << 31;

/// What `read` and `live` run with.
#[derive(Clone, Debug)]
pub struct MeterConfig {
    /// Threads and tables.
    pub pipeline: PipelineOptions,
    /// Where the records go, at least one.
    pub destinations: Vec<Destination>,
    /// Of the destinations that are messages.
    pub export: ExportOptions,
    /// Of the destinations that are text.
    pub text: TextOptions,
    /// The closing report.
    pub summary: Summary,
}

/// What `read` runs with.
#[derive(Clone, Debug)]
pub struct ReadConfig {
    /// The captures.
    pub files: Vec<PathBuf>,
    /// How they are read.
    pub file: FileOptions,
    /// The rest.
    pub meter: MeterConfig,
}

/// What `live` runs with.
#[derive(Clone, Debug)]
pub struct LiveConfig {
    /// The interfaces and how they are captured.
    pub sensor: SensorOptions,
    /// How it lives on the host.
    pub host: HostOptions,
    /// The rest.
    pub meter: MeterConfig,
}

/// What `print` runs with.
#[derive(Clone, Debug)]
pub struct PrintConfig {
    /// The IPFIX files.
    pub files: Vec<PathBuf>,
    /// The text form.
    pub to: Destination,
    /// How it looks.
    pub text: TextOptions,
}

impl ReadConfig {
    /// Checks the flags of `read`.
    ///
    /// # Errors
    /// The first flag whose value is not allowed.
    pub fn check(args: ReadArgs) -> Result<ReadConfig, ConfigError> {
        standard_input_once(&args.files)?;
        let file = FileOptions {
            filter: args.meter.filter.clone(),
            interface: args.interface,
            ..FileOptions::default()
        };
        let meter = check_meter(args.meter, false)?;
        Ok(ReadConfig { files: args.files, file, meter })
    }
}

impl LiveConfig {
    /// Checks the flags of `live`.
    ///
    /// # Errors
    /// The first flag whose value is not allowed.
    pub fn check(args: LiveArgs) -> Result<LiveConfig, ConfigError> {
        in_range("--snaplen", args.snaplen, SNAPLENS)?;
        if !BUFFERS.contains(&args.buffer) {
            let allowed = format!("from {}K to {}G", BUFFERS.start() >> 10, BUFFERS.end() >> 30);
            return Err(ConfigError::Number { flag: "--buffer", found: args.buffer, allowed });
        }
        in_range("--capture-threads", args.capture_threads as u64, CAPTURE_THREADS)?;
        interfaces_once(&args.interface)?;
        let live = LiveOptions {
            snaplen: args.snaplen as u32,
            promiscuous: args.promiscuous,
            buffer_octets: args.buffer.min(i32::MAX as u64) as u32,
            filter: args.meter.filter.clone().unwrap_or_default(),
            leave_out: String::new(),
        };
        let intakes = args.interface.len() * args.capture_threads;
        if intakes > 1 && args.meter.shards == Some(0) {
            let allowed = format!("at least 1 with {intakes} capture threads");
            return Err(ConfigError::Number { flag: "--shards", found: 0, allowed });
        }
        let is_default = args.meter.to.is_empty();
        let mut meter = check_meter(args.meter, true)?;
        if args.write.as_deref().is_some_and(is_standard_output) {
            if let Some(other) = meter.destinations.iter().find(|to| to.is_standard_output()) {
                let default = if is_default { " (where no --to is given)" } else { "" };
                return Err(ConfigError::WriteOnStandardOutput(format!("{other}{default}")));
            }
            if std::io::stdout().is_terminal() {
                return Err(ConfigError::FramesOnTerminal);
            }
        }
        if intakes > 1 {
            // What several threads capture meets in a shard of its own.
            meter.pipeline.layout = Layout::Shards(meter.pipeline.layout.tables());
        }
        let collectors = match args.meter_own_export {
            true => Vec::new(),
            false => meter.destinations.clone(),
        };
        let mut host = host_options(args.host, &meter.destinations);
        host.writes.extend(args.write.clone().filter(|path| !is_standard_output(path)));
        let sensor = SensorOptions {
            interfaces: args.interface,
            live,
            capture_threads: args.capture_threads,
            write: args.write,
            statistics_interval: meter.export.statistics_interval,
            collectors,
        };
        Ok(LiveConfig { sensor, host, meter })
    }

    /// Checks what `live` meets only as it starts and that is the same whoever starts it: whether the filter compiles,
    /// there is such a user, and the folders of the files it writes are there. Whether it may write in them is not
    /// asked: a service runs as another user.
    ///
    /// # Errors
    /// The first of them that `live` would be refused.
    pub fn check_host(&self, log_file: Option<&Path>) -> Result<(), Box<dyn Error>> {
        if !self.sensor.live.filter.is_empty() {
            Filter::new(&self.sensor.live.filter)?;
        }
        if let Some(user) = self.host.user.as_deref().filter(|_| self.host.sandbox) {
            sandbox::user_named(user)?;
        }
        for to in self.meter.destinations.iter().filter(|to| !to.is_standard_output()) {
            to.path().map_or(Ok(()), |path| in_a_folder("--to", path))?;
        }
        self.sensor.write.as_deref().map_or(Ok(()), |path| in_a_folder("--write", path))?;
        log_file.map_or(Ok(()), |path| in_a_folder("--log-file", path))?;
        Ok(())
    }
}

impl PrintConfig {
    /// Checks the flags of `print`.
    ///
    /// # Errors
    /// The first flag whose value is not allowed.
    pub fn check(args: PrintArgs) -> Result<PrintConfig, ConfigError> {
        standard_input_once(&args.files)?;
        if !matches!(args.to, Destination::Table(_) | Destination::Csv(_) | Destination::Json(_)) {
            return Err(ConfigError::NotText(args.to.to_string()));
        }
        let text = text_options(&args.text, slice::from_ref(&args.to), false)?;
        Ok(PrintConfig { files: args.files, to: args.to, text })
    }
}

fn host_options(args: HostArgs, destinations: &[Destination]) -> HostOptions {
    let mut host = HostOptions {
        metrics: args.metrics,
        user: args.user,
        sandbox: args.sandbox,
        reopens_interface: true,
        ..HostOptions::default()
    };
    for destination in destinations {
        match destination {
            Destination::IpfixTcp(endpoint) => host.connects.push(endpoint.port),
            Destination::IpfixFile(path)
            | Destination::Table(path)
            | Destination::Csv(path)
            | Destination::Json(path) => {
                if !destination.is_standard_output() {
                    host.writes.push(path.clone());
                }
            }
            Destination::IpfixUdp(_) | Destination::NetFlow9Udp(_) | Destination::NetFlow5Udp(_) => {}
        }
    }
    host
}

fn check_meter(args: MeterArgs, live: bool) -> Result<MeterConfig, ConfigError> {
    let timeouts = Timeouts { active: args.active_timeout, idle: args.idle_timeout, linger: args.tcp_linger };
    at_least("--active-timeout", timeouts.active, LEAST_ACTIVE)?;
    for (flag, timeout) in [
        ("--active-timeout", timeouts.active),
        ("--idle-timeout", timeouts.idle),
        ("--tcp-linger", timeouts.linger),
    ] {
        if timeout > LONGEST_TIMEOUT {
            return Err(ConfigError::Time {
                flag,
                found: timeout,
                direction: "long",
                limit: "most",
                allowed: LONGEST_TIMEOUT,
            });
        }
    }
    at_least("--template-refresh", args.template_refresh, LEAST_REFRESH)?;
    at_least("--statistics-interval", args.statistics_interval, LEAST_REFRESH)?;
    in_range("--template-refresh-messages", args.template_refresh_messages, REFRESH_MESSAGES)?;
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let layout = match args.shards {
        None if live => Layout::for_live(cores),
        None => Layout::for_files(cores),
        Some(0) => Layout::Inline,
        Some(shards) => {
            in_range("--shards", shards as u64, SHARDS)?;
            Layout::Shards(shards)
        }
    };
    in_range("--max-flows", args.max_flows as u64, layout.tables() as u64..=*MAX_FLOWS.end())?;
    if args.observation_domain == 0 {
        return Err(ConfigError::Number {
            flag: "--observation-domain",
            found: 0,
            allowed: format!("{}; 0 is the statistics' own", in_words(&OBSERVATION_DOMAINS)),
        });
    }
    if let Some(mtu) = args.mtu {
        in_range("--mtu", mtu, MTUS)?;
    }
    let mut destinations = args.to;
    if destinations.is_empty() {
        destinations.push(Destination::Table(PathBuf::from("-")));
    }
    let mut on_standard_output = destinations.iter().filter(|to| to.is_standard_output());
    if let (Some(first), Some(second)) = (on_standard_output.next(), on_standard_output.next()) {
        return Err(ConfigError::StandardOutputTwice {
            first: first.to_string(),
            second: second.to_string(),
        });
    }
    if let Some(binary) = destinations.iter().find(|to| to.text().is_none() && to.is_standard_output())
        && std::io::stdout().is_terminal()
    {
        return Err(ConfigError::BinaryOnTerminal(binary.to_string()));
    }
    let mut export = ExportOptions {
        observation_domain: args.observation_domain,
        template_refresh: args.template_refresh,
        template_refresh_packets: args.template_refresh_messages,
        statistics_interval: args.statistics_interval,
        mtu: args.mtu.map(|mtu| mtu as u16),
        ..ExportOptions::default()
    };
    match args.export_rate {
        Some(rate) => export.rate = NonZeroU32::new(rate),
        // Live, records come at the pace of the traffic: holding them back could only lose them.
        None if live => export.rate = None,
        None => {}
    }
    export.packet_clock = !live;
    if live {
        export.message_delay = LIVE_MESSAGE_DELAY;
    }
    let text = text_options(&args.text, &destinations, live)?;
    let table = TableOptions { timeouts, max_flows: args.max_flows };
    Ok(MeterConfig {
        pipeline: PipelineOptions { layout, table, live },
        destinations,
        export,
        text,
        summary: args.summary,
    })
}

fn text_options(
    args: &TextArgs,
    destinations: &[Destination],
    live: bool,
) -> Result<TextOptions, ConfigError> {
    let top = match (args.top, args.by) {
        (None, Some(_)) => return Err(ConfigError::ByWithoutTop),
        (None, None) => None,
        (Some(most), by) => {
            in_range("--top", most, TOPS)?;
            Some((usize::try_from(most).unwrap_or(usize::MAX), by.unwrap_or(By::Octets).into()))
        }
    };
    let on_terminal =
        destinations.iter().any(Destination::is_standard_output) && std::io::stdout().is_terminal();
    let width = || rustix::termios::tcgetwinsize(std::io::stdout()).ok().map(|size| size.ws_col);
    let defaults = TextOptions::default();
    Ok(TextOptions {
        utc: args.utc,
        top,
        terminal_width: if on_terminal { width().filter(|columns| *columns > 0) } else { None },
        sort_limit: if live { 0 } else { defaults.sort_limit },
    })
}

/// Whether frames are written there.
fn is_standard_output(write: &Path) -> bool {
    write == Path::new(STANDARD_OUTPUT)
}

fn standard_input_once(files: &[PathBuf]) -> Result<(), ConfigError> {
    match files.iter().filter(|path| path.as_os_str() == "-").count() {
        0 | 1 => Ok(()),
        times => Err(ConfigError::StandardInputTwice(times)),
    }
}

fn interfaces_once(interfaces: &[String]) -> Result<(), ConfigError> {
    let all = interfaces.iter().any(|interface| interface == ANY);
    for (at, interface) in interfaces.iter().enumerate() {
        if interface.is_empty() {
            return Err(ConfigError::InterfaceWithoutName);
        }
        if interfaces[..at].contains(interface) {
            return Err(ConfigError::InterfaceTwice(interface.clone()));
        }
        if all && interface != ANY {
            return Err(ConfigError::InterfaceBesidesAll(interface.clone()));
        }
    }
    Ok(())
}

fn at_least(flag: &'static str, found: Duration, least: Duration) -> Result<(), ConfigError> {
    if found >= least {
        return Ok(());
    }
    Err(ConfigError::Time { flag, found, direction: "short", limit: "least", allowed: least })
}

fn in_range(flag: &'static str, found: u64, range: RangeInclusive<u64>) -> Result<(), ConfigError> {
    if range.contains(&found) {
        return Ok(());
    }
    Err(ConfigError::Number { flag, found, allowed: in_words(&range) })
}

/// `from 1 to 64`, `from 1 up`.
pub(crate) fn in_words(range: &RangeInclusive<u64>) -> String {
    match *range.end() {
        u64::MAX => format!("from {} up", range.start()),
        most => format!("from {} to {most}", range.start()),
    }
}

/// A duration as one would type it.
pub(crate) fn typed(time: Duration) -> String {
    const DAY: u64 = 86_400;
    match (time.as_secs(), time.subsec_nanos()) {
        (seconds, 0) if seconds >= DAY && seconds.is_multiple_of(DAY) => format!("{}d", seconds / DAY),
        (seconds, 0) => format!("{seconds}s"),
        _ => format_duration(time).to_string().replace(' ', ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser;

    fn read(flags: &[&str]) -> Result<ReadConfig, ConfigError> {
        let words = ["flowtap", "read", "a.pcap"].iter().chain(flags);
        match Cli::try_parse_from(words).unwrap().command {
            Command::Read(args) => ReadConfig::check(args),
            _ => unreachable!("the words say read"),
        }
    }

    fn refusal(flags: &[&str]) -> String {
        read(flags).unwrap_err().to_string()
    }

    #[test]
    fn every_refusal_names_its_flag_what_was_found_and_what_is_allowed() {
        assert_eq!(
            refusal(&["--active-timeout", "0"]),
            "--active-timeout: 0s is too short, the least is 1ms"
        );
        assert_eq!(
            refusal(&["--shards", "4", "--max-flows", "3"]),
            "--max-flows: 3 is not allowed, it must be from 4 to 1431655764"
        );
        assert!(refusal(&["--observation-domain", "0"]).contains("from 1 to 4294967295"));
        assert_eq!(refusal(&["--mtu", "70000"]), "--mtu: 70000 is not allowed, it must be from 576 to 65535");
        assert!(refusal(&["--top", "0"]).starts_with("--top: 0 is not allowed, it must be from 1"));
        assert!(refusal(&["--by", "flows"]).starts_with("--by: says what --top goes by"));
        assert!(refusal(&["--idle-timeout", "101days"]).ends_with(": 101d is too long, the most is 100d"));
        assert_eq!(
            refusal(&["--to", "csv:-", "--to", "json:-"]),
            "--to: csv:- and json:- both go to standard output, only one can"
        );
    }

    fn live(flags: &[&str]) -> Result<LiveConfig, ConfigError> {
        let words = ["flowtap", "live"].iter().chain(flags);
        match Cli::try_parse_from(words).unwrap().command {
            Command::Live(args) => LiveConfig::check(args),
            _ => unreachable!("the words say live"),
        }
    }

    #[test]
    fn standard_output_takes_frames_or_records() {
        let with = |to: &[&str]| live(&[&["-i", "a", "--write", "-"], to].concat());
        let rest = "and only one can; write the frames to a file, or send the records elsewhere with --to";
        for (to, named) in
            [(&[][..], "table:- (where no --to is given)"), (&["--to", "ipfix+file:-"], "ipfix+file:-")]
        {
            // A terminal, where the tests run in one, refuses messages before that.
            if to.is_empty() || !std::io::stdout().is_terminal() {
                let said = with(to).unwrap_err().to_string();
                assert_eq!(
                    said,
                    format!("--write: - is standard output, to which {named} goes, too, {rest}")
                );
            }
        }
        match with(&["--to", "csv:a"]) {
            Ok(config) => assert_eq!(config.host.writes, [PathBuf::from("a")], "no file of the name -"),
            Err(refusal) => {
                assert!(std::io::stdout().is_terminal());
                assert_eq!(refusal, ConfigError::FramesOnTerminal);
            }
        }
        assert!(live(&["-i", "a", "--write", "./-"]).is_ok());
    }

    #[test]
    fn interfaces_are_named_once_and_with_commas_or_again() {
        let config = live(&["-i", "a,b", "-i", "c", "--capture-threads", "2"]).unwrap();
        assert_eq!(config.sensor.interfaces, ["a", "b", "c"]);
        assert_ne!(
            config.meter.pipeline.layout,
            Layout::Inline,
            "six capture threads need a shard of their own"
        );
        for (names, refusal) in [
            ("a,a", "--interface: a is named twice"),
            ("any,any", "--interface: any is named twice"),
            ("any,a", "--interface: any is all interfaces, and a besides"),
            ("a,any", "--interface: any is all interfaces, and a besides"),
            ("a,", "--interface: a name is empty"),
            ("", "--interface: a name is empty"),
        ] {
            let said = live(&["-i", names]).unwrap_err().to_string();
            assert!(said.starts_with(refusal), "{said}");
        }
        let said = live(&["-i", "a", "--buffer", "64"]).unwrap_err().to_string();
        assert_eq!(said, "--buffer: 64 is not allowed, it must be from 64K to 2G");
        assert_eq!(live(&["-i", "a", "--buffer", "2G"]).unwrap().sensor.live.buffer_octets, i32::MAX as u32);
        assert_eq!(
            live(&["-i", "a,b", "--shards", "0"]).unwrap_err().to_string(),
            "--shards: 0 is not allowed, it must be at least 1 with 2 capture threads"
        );
        assert!(live(&["-i", "a", "--capture-threads", "0"]).is_err());
    }

    #[test]
    fn zero_is_allowed_where_it_has_a_meaning() {
        let config = read(&["--idle-timeout", "0", "--tcp-linger", "0s", "--shards", "0"]).unwrap();
        assert_eq!(config.meter.pipeline.table.timeouts.idle, Duration::ZERO);
        assert_eq!(config.meter.pipeline.layout, Layout::Inline);
    }

    #[test]
    fn without_a_destination_there_is_a_table_on_standard_output() {
        let config = read(&[]).unwrap();
        assert_eq!(config.meter.destinations, [Destination::Table(PathBuf::from("-"))]);
    }
}
