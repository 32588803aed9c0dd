//! The flags as a user types them: names, help, units. Checking them is [`crate::config`]'s.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::capture::live::LiveOptions;
use crate::config::{
    CAPTURE_THREADS, MAX_FLOWS, MTUS, OBSERVATION_DOMAINS, REFRESH_MESSAGES, SHARDS, SNAPLENS, TOPS,
    in_words, typed,
};
use crate::export::ExportOptions;
use crate::export::destination::Destination;
use crate::export::text::TopBy;
use crate::flow::Timeouts;
use crate::flow::table::DEFAULT_MAX_FLOWS;

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold());

/// A packet-capture flow meter: packets in, exact flow records out.
#[derive(Debug, Parser)]
#[command(name = "flowtap", version, styles = STYLES, max_term_width = 110, subcommand_required = true,
    arg_required_else_help = true, after_help = "\
Examples:
  flowtap read office.pcap                       the flows of a capture
  flowtap read --top 10 captures/                the heaviest talkers of many
  flowtap read --to csv:flows.csv *.pcap.gz      many captures as one, to CSV
  flowtap read --to ipfix+udp://192.0.2.1 a.pcap      to a collector
  sudo flowtap live -i eth0 --to ipfix+udp://192.0.2.1     a tap or SPAN port
  flowtap print flows.ipfix                      an IPFIX file as a table

`flowtap COMMAND -h` lists the options of a command, `--help` explains them.")]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Say nothing but errors: no warnings, no progress, no summary
    #[arg(short, long, global = true, conflicts_with = "verbose", display_order = 900)]
    pub quiet: bool,
    /// Log more: what begins and what recovers; -vv: each capture thread, too
    #[arg(short, long, global = true, action = clap::ArgAction::Count, display_order = 901)]
    pub verbose: u8,
    /// Write the log to this file, not to standard error; SIGHUP opens it again
    #[arg(long, global = true, value_name = "FILE", display_order = 902)]
    pub log_file: Option<PathBuf>,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Meter capture files: pcap and pcapng, also gzip, zstd and lz4 compressed
    Read(ReadArgs),
    /// Meter network interfaces until Ctrl-C or SIGTERM
    Live(LiveArgs),
    /// List the interfaces that `live` can capture on
    Interfaces,
    /// Show IPFIX files, of any exporter, as a table, CSV or JSON
    Print(PrintArgs),
    /// Check a configuration file as `live --config` would read it
    CheckConfig {
        /// The TOML file
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Test that the sandbox of `live` denies what it must
    SelfTest {
        /// The user to become, as in `live`
        #[arg(long, value_name = "NAME")]
        user: Option<String>,
        /// The child's part: enter the sandbox and try, writing in this folder.
        #[arg(long, hide = true)]
        inside: Option<PathBuf>,
    },
    /// Write the man pages or the shell completions, which are made of these flags
    #[command(hide = true)]
    Generate {
        /// What to write
        what: Generated,
        /// The folder to write to
        folder: PathBuf,
    },
    /// List the fields (Information Elements) of exported records
    ListElements {
        /// As a Markdown table
        #[arg(long)]
        markdown: bool,
    },
}

/// `flowtap read`.
#[derive(Debug, Args)]
pub struct ReadArgs {
    /// Captures; `-` is standard input; a folder means the captures in it
    ///
    /// Several files are one stream, merged by the time of their packets. Of a folder those files are read that begin as a
    /// capture does, whatever their names; folders in it are not entered.
    ///
    /// Compressed files whose times overlap are decompressed side by side, each in memory of its own: half a MiB for gzip, 5 MiB
    /// for lz4, 3 MiB for zstd as it compresses unless told otherwise, and 129 MiB, the most, where it was told --long.
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Number the interface (ingressInterface) [default: pcapng's, else 0]
    #[arg(long, value_name = "N", value_parser = whole::<u32>(ANY_NUMBER), allow_negative_numbers = true)]
    pub interface: Option<u32>,
    /// Options that `read` and `live` share.
    #[command(flatten)]
    pub meter: MeterArgs,
}

/// `flowtap live`.
#[derive(Debug, Args)]
pub struct LiveArgs {
    /// The interfaces to capture on, repeatable or with commas between; `any` for all
    #[arg(short, long, value_name = "INTERFACE", required = true, value_delimiter = ',')]
    pub interface: Vec<String>,
    /// Threads that share the work of each interface, conversation by conversation
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = whole::<usize>(CAPTURE_THREADS), allow_negative_numbers = true)]
    pub capture_threads: usize,
    /// Octets to capture of each frame
    #[arg(long, value_name = "OCTETS", default_value_t = LiveOptions::default().snaplen.into(),
        value_parser = whole::<u64>(SNAPLENS), allow_negative_numbers = true)]
    pub snaplen: u64,
    /// Whether to capture frames for other hosts, too
    #[arg(long, value_name = "yes|no", default_value = "yes", value_parser = yes_or_no,
        action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "yes")]
    pub promiscuous: bool,
    /// Size of the kernel's ring, for each capture thread: 16M, 1G
    #[arg(long, value_name = "SIZE", default_value = "64M", value_parser = size, allow_hyphen_values = true)]
    pub buffer: u64,
    /// Also write the frames to this pcap file (pcapng if it ends in .pcapng), each cut at the snaplen; `-` is standard
    /// output; interfaces of several link types take pcapng. Metering waits for the reader of a pipe
    #[arg(long, value_name = "FILE")]
    pub write: Option<PathBuf>,
    /// Meter this host's own export, too, where it passes a captured interface
    #[arg(long)]
    pub meter_own_export: bool,
    /// What a service needs.
    #[command(flatten)]
    pub host: HostArgs,
    /// Options that `read` and `live` share.
    #[command(flatten)]
    pub meter: MeterArgs,
}

/// What a service needs.
#[derive(Debug, Args)]
pub struct HostArgs {
    /// Serve /metrics, /status and /health over HTTP, on 127.0.0.1:9469 unless told otherwise
    #[arg(long, value_name = "ADDRESS:PORT", num_args = 0..=1, default_missing_value = "127.0.0.1:9469",
        value_parser = socket_address, help_heading = "Service")]
    pub metrics: Option<SocketAddr>,
    /// The user that root becomes once all is open [default: flowtap, else nobody]
    #[arg(long, value_name = "NAME", help_heading = "Service")]
    pub user: Option<String>,
    /// Whether to give up, once all is open, the rights no longer needed
    #[arg(long, value_name = "yes|no", default_value = "yes", value_parser = yes_or_no,
        action = clap::ArgAction::Set, help_heading = "Service")]
    pub sandbox: bool,
}

/// What `generate` writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Generated {
    /// A man page for each subcommand.
    Man,
    /// Completions for bash, zsh and fish.
    Completions,
}

/// `flowtap print`.
#[derive(Debug, Args)]
pub struct PrintArgs {
    /// IPFIX files; `-` is standard input; a folder means the IPFIX files in it
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// table:PATH, csv:PATH or json:PATH; PATH `-` is standard output
    ///
    /// A table and CSV show flows. JSON shows every record as its exporter sent it, each field by its IANA name
    /// (sourceIPv4Address), where `read --to json:PATH` has the names of the CSV columns (src).
    #[arg(long, value_name = "DESTINATION", default_value = "table:-")]
    pub to: Destination,
    /// Options of the text forms.
    #[command(flatten)]
    pub text: TextArgs,
}

/// What `read` and `live` share.
#[derive(Debug, Args)]
pub struct MeterArgs {
    /// The configuration file.
    #[command(flatten)]
    pub file: ConfigArgs,
    /// Where the records go, repeatable [default: table:-]
    ///
    ///   ipfix+udp://HOST:PORT      IPFIX, to port 4739 unless given
    ///   ipfix+tcp://HOST:PORT      the same over TCP
    ///   netflow9+udp://HOST:PORT   NetFlow v9, to port 2055 unless given
    ///   netflow5+udp://HOST:PORT   NetFlow v5, which has no IPv6
    ///   ipfix+file:PATH            an IPFIX file
    ///   table:PATH                 aligned columns for a person
    ///   csv:PATH, json:PATH        a line a flow for scripts
    ///
    /// PATH `-` is standard output. An IPv6 address stands in brackets.
    #[arg(
        long,
        value_name = "DESTINATION",
        verbatim_doc_comment,
        display_order = 0,
        help = "Where the records go, repeatable; --help lists the forms [default: table:-]"
    )]
    pub to: Vec<Destination>,
    /// Report a flow at the latest this long after its first packet
    #[arg(long, value_name = "TIME", value_parser = duration, allow_hyphen_values = true, help_heading = "Metering",
        default_value = DefaultTime(Timeouts::default().active))]
    pub active_timeout: Duration,
    /// End a flow that had no packet for this long; 0 gives each packet a record of its own
    #[arg(long, value_name = "TIME", value_parser = duration, allow_hyphen_values = true, help_heading = "Metering",
        default_value = DefaultTime(Timeouts::default().idle))]
    pub idle_timeout: Duration,
    /// Wait this long for stragglers after a FIN or RST; 0 ends the flow at once
    #[arg(long, value_name = "TIME", value_parser = duration, allow_hyphen_values = true, help_heading = "Metering",
        default_value = DefaultTime(Timeouts::default().linger))]
    pub tcp_linger: Duration,
    /// Flows open at once; where there are more, the one nearest its end makes room
    #[arg(long, value_name = "N", default_value_t = DEFAULT_MAX_FLOWS, help_heading = "Metering",
        value_parser = whole::<usize>(MAX_FLOWS), allow_negative_numbers = true)]
    pub max_flows: usize,
    /// Meter only the frames that this BPF expression selects
    #[arg(long, value_name = "BPF EXPRESSION", help_heading = "Metering")]
    pub filter: Option<String>,
    /// Metering threads; 0 does everything on one thread [default: by the machine]
    #[arg(long, value_name = "N", help_heading = "Metering", value_parser = whole::<usize>(SHARDS),
        allow_negative_numbers = true)]
    pub shards: Option<usize>,
    /// Observation Domain of the flows (NetFlow v9: Source ID)
    #[arg(long, value_name = "N", help_heading = "Export",
        default_value_t = ExportOptions::default().observation_domain, value_parser = whole::<u32>(OBSERVATION_DOMAINS),
        allow_negative_numbers = true)]
    pub observation_domain: u32,
    /// Over UDP, send the templates again after this long
    #[arg(long, value_name = "TIME", value_parser = duration, allow_hyphen_values = true, help_heading = "Export",
        default_value = DefaultTime(ExportOptions::default().template_refresh))]
    pub template_refresh: Duration,
    /// Over UDP, send the templates again after this many messages
    #[arg(long, value_name = "N", help_heading = "Export",
        default_value_t = ExportOptions::default().template_refresh_packets, value_parser = whole::<u64>(REFRESH_MESSAGES),
        allow_negative_numbers = true)]
    pub template_refresh_messages: u64,
    /// Send records of the exporter's own statistics this often
    #[arg(long, value_name = "TIME", value_parser = duration, allow_hyphen_values = true, help_heading = "Export",
        default_value = DefaultTime(ExportOptions::default().statistics_interval))]
    pub statistics_interval: Duration,
    /// Over UDP, the longest packet, IP header included [default: the path's, at most 1500]
    #[arg(long, value_name = "OCTETS", help_heading = "Export", value_parser = whole::<u64>(MTUS),
        allow_negative_numbers = true)]
    pub mtu: Option<u64>,
    /// Messages a second that UDP export is held to when reading files; 0 for no limit.
    #[arg(long, value_name = "N", help_heading = "Export", value_parser = whole::<u32>(ANY_NUMBER),
        allow_negative_numbers = true, help = rate_help())]
    pub export_rate: Option<u32>,
    /// How the run is summed up, on standard error
    #[arg(long, value_name = "FORM", default_value = "text", help_heading = "Output")]
    pub summary: Summary,
    /// Options of the text forms.
    #[command(flatten)]
    pub text: TextArgs,
}

/// The configuration file.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// A TOML file of these flags, without their dashes; a flag given here wins
    ///
    /// Repeatable: the first of the files that exists is read. `flowtap check-config FILE` checks one.
    #[arg(long, value_name = "FILE")]
    pub config: Vec<PathBuf>,
}

/// Options of the text forms.
#[derive(Debug, Args)]
pub struct TextArgs {
    /// Show the N source addresses that sent most, instead of the flows
    #[arg(long, value_name = "N", help_heading = "Output", value_parser = whole::<u64>(TOPS),
        allow_negative_numbers = true)]
    pub top: Option<u64>,
    /// With --top: what counts [default: octets]
    #[arg(long, value_name = "MEASURE", help_heading = "Output")]
    pub by: Option<By>,
    /// In tables, times in UTC, not in local time
    #[arg(long, help_heading = "Output")]
    pub utc: bool,
}

/// All numbers that the element behind the flag can hold.
const ANY_NUMBER: RangeInclusive<u64> = 0..=u32::MAX as u64;

/// What `--top` goes by.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum By {
    /// Octets sent.
    Octets,
    /// Packets sent.
    Packets,
    /// Flow records.
    Flows,
}

impl From<By> for TopBy {
    fn from(by: By) -> TopBy {
        match by {
            By::Octets => TopBy::Octets,
            By::Packets => TopBy::Packets,
            By::Flows => TopBy::Flows,
        }
    }
}

/// The form of the closing report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Summary {
    /// A few lines for a person.
    Text,
    /// One line of JSON.
    Json,
    /// Nothing.
    None,
}

/// A default duration.
struct DefaultTime(Duration);

impl From<DefaultTime> for clap::builder::OsStr {
    fn from(time: DefaultTime) -> clap::builder::OsStr {
        typed(time.0).into()
    }
}

fn rate_help() -> String {
    let rate = ExportOptions::default().rate.map_or(0, NonZeroU32::get);
    format!("Over UDP, from files, at most so many messages a second; 0: no limit [default: {rate}]")
}

fn duration(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    humantime::parse_duration(text)
        .map_err(|_| "a number of 0 or more with its unit is wanted, such as 500ms, 15s, 5min".to_string())
}

/// A whole number; that it is one of those `allowed` is checked in [`crate::config`], what is none hears of them here.
fn whole<T: TryFrom<u64>>(
    allowed: RangeInclusive<u64>,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static {
    move |text| {
        let digits = !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_digit());
        let number = if digits { text.parse::<u64>().ok() } else { None };
        number
            .and_then(|number| T::try_from(number).ok())
            .ok_or_else(|| format!("a whole number {} is wanted", in_words(&allowed)))
    }
}

fn socket_address(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| "an IP address and a port are wanted, such as 127.0.0.1:9469 or [::1]:9469".to_string())
}

fn yes_or_no(text: &str) -> Result<bool, String> {
    match text {
        "yes" | "true" | "on" => Ok(true),
        "no" | "false" | "off" => Ok(false),
        _ => Err("yes or no is wanted".to_string()),
    }
}

fn size(text: &str) -> Result<u64, String> {
    let wanted = || "a number with a unit is wanted, such as 2M, 64M, 1G".to_string();
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = match text[digits.len()..].trim_start().to_ascii_uppercase().as_str() {
        "" | "B" => 1,
        "K" | "KB" | "KIB" => 1 << 10,
        "M" | "MB" | "MIB" => 1 << 20,
        "G" | "GB" | "GIB" => 1 << 30,
        _ => return Err(wanted()),
    };
    let number: u64 = digits.parse().map_err(|_| wanted())?;
    number.checked_mul(unit).ok_or_else(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_flags_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(size("64M"), Ok(64 << 20));
        assert_eq!(size("512"), Ok(512));
        assert_eq!(size("1 GiB"), Ok(1 << 30));
        assert!(size("M").is_err() && size("5X").is_err() && size("").is_err());
    }

    #[test]
    fn zero_needs_no_unit_and_other_numbers_do() {
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        assert_eq!(duration("0s"), Ok(Duration::ZERO));
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        assert!(duration("15").unwrap_err().contains("15s"));
    }
}
