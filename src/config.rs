//! The flags, checked and turned into one small struct for each stage. Every refusal names its flag, what was found
//! and what is allowed.

use std::io::IsTerminal;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::time::Duration;

use humantime::format_duration;
use thiserror::Error;

use crate::capture::file::FileOptions;
use crate::capture::live::{ANY, LiveOptions};
use crate::cli::{By, HostArgs, LiveArgs, MeterArgs, PrintArgs, ReadArgs, Summary, TextArgs};
use crate::export::ExportOptions;
use crate::export::destination::Destination;
use crate::export::text::TextOptions;
use crate::flow::expiry::LONGEST_TIMEOUT;
use crate::flow::table::MOST_FLOWS;
use crate::flow::{TableOptions, Timeouts};
use crate::host::HostOptions;
use crate::pipeline::{Layout, PipelineOptions};
use crate::sensor::SensorOptions;

/// A flag whose value is not allowed.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ConfigError {
    /// A duration out of range.
    #[error("{flag}: {} is too {direction}, the {limit} is {}", format_duration(*found), format_duration(*allowed))]
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
    /// Two destinations are one file.
    #[error("--to: {first} and {second} are the same file, each destination needs its own")]
    SameFile {
        /// The first of them.
        first: String,
        /// The second of them.
        second: String,
    },
    /// A destination is an input too, which opening it would empty.
    #[error("--to: {destination} is also read, and would be overwritten: {}", input.display())]
    Overwritten {
        /// The destination.
        destination: String,
        /// The input.
        input: PathBuf,
    },
    /// Standard input named twice.
    #[error("FILE: standard input (-) is named {0} times, it can be read only once")]
    StandardInputTwice(usize),
    /// An interface named twice, or besides all of them.
    #[error("--interface: {0} is named twice, its packets would be metered twice; `any` is all interfaces")]
    InterfaceTwice(String),
    /// Messages, which are not text, on a terminal.
    #[error(
        "--to: {0} would write binary messages to the terminal; name a file (ipfix+file:PATH), or send standard output \
         to a file or a pipe"
    )]
    BinaryOnTerminal(String),
    /// A measure for a list that was not asked for.
    #[error("--by: says what --top goes by, and there is no --top: give both, or neither")]
    ByWithoutTop,
    /// A destination that `print` cannot write.
    #[error("--to: {0} is not a text form; allowed are table:PATH, csv:PATH and json:PATH")]
    NotText(String),
}

/// Shards beyond this make no sense on any machine.
const MOST_SHARDS: usize = 256;
/// So are capture threads on one interface.
const MOST_CAPTURE_THREADS: u64 = 64;
/// Live, an unfilled message is sent after at most one second: this, and two looks at the clock.
const LIVE_MESSAGE_DELAY: Duration = Duration::from_millis(550);
const LEAST_ACTIVE: Duration = Duration::from_millis(1);
/// The least IPv6 MTU (RFC 8200 §5) would be 1280; IPv4 hosts must take 576 octets (RFC 791 §3.1).
const MTUS: std::ops::RangeInclusive<u64> = 576..=u16::MAX as u64;
/// Nobody reads a longer list.
const TOPS: std::ops::RangeInclusive<u64> = 1..=u32::MAX as u64;
const LEAST_REFRESH: Duration = Duration::from_secs(1);
const SNAPLENS: std::ops::RangeInclusive<u64> = 64..=262_144;
const BUFFERS: std::ops::RangeInclusive<u64> = 1 << 16..=(i32::MAX as u64);

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
        not_overwritten(&meter.destinations, &args.files)?;
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
        in_range("--buffer", args.buffer, BUFFERS)?;
        in_range("--capture-threads", args.capture_threads as u64, 1..=MOST_CAPTURE_THREADS)?;
        interfaces_once(&args.interface)?;
        let live = LiveOptions {
            snaplen: args.snaplen as u32,
            promiscuous: args.promiscuous,
            buffer_octets: args.buffer as u32,
            filter: args.meter.filter.clone().unwrap_or_default(),
            leave_out: String::new(),
        };
        let intakes = args.interface.len() * args.capture_threads;
        if intakes > 1 && args.meter.shards == Some(0) {
            let allowed = format!("at least 1 with {intakes} capture threads");
            return Err(ConfigError::Number { flag: "--shards", found: 0, allowed });
        }
        let mut meter = check_meter(args.meter, true)?;
        if intakes > 1 {
            // What several threads capture meets in a shard of its own.
            meter.pipeline.layout = Layout::Shards(meter.pipeline.layout.tables());
        }
        let collectors = match args.meter_own_export {
            true => Vec::new(),
            false => meter.destinations.clone(),
        };
        let mut host = host_options(args.host, &meter.destinations);
        host.writes.extend(args.write.clone());
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
        not_overwritten(std::slice::from_ref(&args.to), &args.files)?;
        let text = text_options(&args.text, std::slice::from_ref(&args.to), false)?;
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
    in_range("--template-refresh-messages", args.template_refresh_messages, 1..=u64::MAX)?;
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let layout = match args.shards {
        None if live => Layout::for_live(cores),
        None => Layout::for_files(cores),
        Some(0) => Layout::Inline,
        Some(shards) => {
            in_range("--shards", shards as u64, 0..=MOST_SHARDS as u64)?;
            Layout::Shards(shards)
        }
    };
    in_range("--max-flows", args.max_flows as u64, layout.tables() as u64..=MOST_FLOWS as u64)?;
    if args.observation_domain == 0 {
        return Err(ConfigError::Number {
            flag: "--observation-domain",
            found: 0,
            allowed: "from 1 to 4294967295; 0 is the statistics' own".to_string(),
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
    different_files(&destinations)?;
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

/// The regular file that a path is or will be, whatever way it is written; none for devices, pipes and standard output.
fn file_of(path: &Path) -> Option<PathBuf> {
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => std::fs::canonicalize(path).ok(),
        Ok(_) => None,
        Err(_) => {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            let folder = std::fs::canonicalize(folder.unwrap_or(Path::new("."))).ok()?;
            Some(folder.join(path.file_name()?))
        }
    }
}

fn files_of(destinations: &[Destination]) -> impl Iterator<Item = (&Destination, PathBuf)> {
    let on_disk = destinations.iter().filter(|destination| !destination.is_standard_output());
    on_disk.filter_map(|destination| Some((destination, file_of(destination.path()?)?)))
}

fn different_files(destinations: &[Destination]) -> Result<(), ConfigError> {
    let mut seen: Vec<(&Destination, PathBuf)> = Vec::new();
    for (destination, file) in files_of(destinations) {
        if let Some((first, _)) = seen.iter().find(|(_, before)| *before == file) {
            return Err(ConfigError::SameFile { first: first.to_string(), second: destination.to_string() });
        }
        seen.push((destination, file));
    }
    Ok(())
}

fn not_overwritten(destinations: &[Destination], inputs: &[PathBuf]) -> Result<(), ConfigError> {
    for (destination, file) in files_of(destinations).filter(|(_, file)| file.exists()) {
        let read = |input: &&PathBuf| {
            let input = std::fs::canonicalize(input).unwrap_or_default();
            input == file || (input.is_dir() && file.parent() == Some(&input))
        };
        if let Some(input) = inputs.iter().find(read) {
            return Err(ConfigError::Overwritten {
                destination: destination.to_string(),
                input: input.clone(),
            });
        }
    }
    Ok(())
}

fn standard_input_once(files: &[PathBuf]) -> Result<(), ConfigError> {
    match files.iter().filter(|path| path.as_os_str() == "-").count() {
        0 | 1 => Ok(()),
        times => Err(ConfigError::StandardInputTwice(times)),
    }
}

fn interfaces_once(interfaces: &[String]) -> Result<(), ConfigError> {
    for (at, interface) in interfaces.iter().enumerate() {
        if interfaces[..at].contains(interface) || (interface == ANY && interfaces.len() > 1) {
            return Err(ConfigError::InterfaceTwice(interface.clone()));
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

fn in_range(flag: &'static str, found: u64, range: std::ops::RangeInclusive<u64>) -> Result<(), ConfigError> {
    if range.contains(&found) {
        return Ok(());
    }
    let allowed = match *range.end() {
        u64::MAX => format!("at least {}", range.start()),
        most => format!("from {} to {most}", range.start()),
    };
    Err(ConfigError::Number { flag, found, allowed })
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
        assert!(refusal(&["--idle-timeout", "101days"]).starts_with("--idle-timeout: 3months 9days"));
        assert_eq!(
            refusal(&["--to", "csv:-", "--to", "json:-"]),
            "--to: csv:- and json:- both go to standard output, only one can"
        );
    }

    #[test]
    fn interfaces_are_named_once_and_with_commas_or_again() {
        let live = |flags: &[&str]| {
            let words = ["flowtap", "live"].iter().chain(flags);
            match Cli::try_parse_from(words).unwrap().command {
                Command::Live(args) => LiveConfig::check(args),
                _ => unreachable!("the words say live"),
            }
        };
        let config = live(&["-i", "a,b", "-i", "c", "--capture-threads", "2"]).unwrap();
        assert_eq!(config.sensor.interfaces, ["a", "b", "c"]);
        assert_ne!(
            config.meter.pipeline.layout,
            Layout::Inline,
            "six capture threads need a shard of their own"
        );
        for twice in [&["-i", "a,a"], &["-i", "any,a"]] {
            assert!(live(twice).unwrap_err().to_string().contains("named twice"));
        }
        assert_eq!(
            live(&["-i", "a,b", "--shards", "0"]).unwrap_err().to_string(),
            "--shards: 0 is not allowed, it must be at least 1 with 2 capture threads"
        );
        assert!(live(&["-i", "a", "--capture-threads", "0"]).is_err());
    }

    #[test]
    fn a_destination_is_neither_another_one_nor_an_input() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let (csv, json) = (format!("csv:{}", path("a")), format!("json:{}/./a", folder.path().display()));
        assert!(refusal(&["--to", &csv, "--to", &json]).contains("are the same file"));
        assert!(read(&["--to", "csv:/dev/null", "--to", "json:/dev/null"]).is_ok());
        std::fs::write(path("capture"), "octets").unwrap();
        for input in [path("capture"), folder.path().display().to_string()] {
            let to = format!("csv:{}", path("capture"));
            assert!(refusal(&["--to", &to, &input]).contains("would be overwritten"), "{input}");
        }
        assert!(read(&["--to", &csv, &path("capture")]).is_ok());
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
