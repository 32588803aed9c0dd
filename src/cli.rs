//! The flags as a user types them: names, help, units. Checking them is [`crate::config`]'s.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::capture::live::LiveOptions;
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
  flowtap read office.pcap                              the flows of a capture, as a table
  flowtap read --to csv:flows.csv *.pcap.gz             many captures, one flow table, to a CSV file
  flowtap read --to ipfix+udp://127.0.0.1:4739 a.pcap   to a collector
  flowtap live -i eth0 --to netflow9+udp://192.0.2.1    a tap or SPAN port, until Ctrl-C
  flowtap interfaces                                    what can be captured on")]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Say less: nothing but errors, and no progress
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Say more on standard error (-vv: most)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// The log goes to this file, not to standard error; SIGHUP opens it again
    #[arg(long, global = true, value_name = "FILE")]
    pub log_file: Option<PathBuf>,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Meter capture files: pcap and pcapng, also gzip, zstd and lz4 compressed
    Read(ReadArgs),
    /// Meter network interfaces until Ctrl-C or SIGTERM
    Live(LiveArgs),
    /// List what can be captured on
    Interfaces,
    /// Show an IPFIX file, from any exporter, as a table, CSV or JSON
    Print(PrintArgs),
    /// Check a configuration file as `live --config` would read it
    CheckConfig {
        /// The TOML file
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Try what the sandbox of `live` must deny, and say how it went
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
    /// List the Information Elements that records are exported with
    ListElements {
        /// As a Markdown table
        #[arg(long)]
        markdown: bool,
    },
}

/// `flowtap read`.
#[derive(Debug, Args)]
pub struct ReadArgs {
    /// Capture files; `-` is standard input; a directory means the captures in it
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// The number for ingressInterface [default: the pcapng interface, else 0]
    #[arg(long, value_name = "N")]
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
    /// Threads that each interface is spread over, conversation by conversation
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub capture_threads: usize,
    /// Octets to capture of each frame
    #[arg(long, value_name = "OCTETS", default_value_t = LiveOptions::default().snaplen)]
    pub snaplen: u32,
    /// Whether to take in frames for other hosts
    #[arg(long, value_name = "yes|no", default_value = "yes", value_parser = yes_or_no,
        action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "yes")]
    pub promiscuous: bool,
    /// Size of the kernel's ring for each capture thread, with a unit: 16M, 1G
    #[arg(long, value_name = "SIZE", default_value = "64M", value_parser = size)]
    pub buffer: u64,
    /// Write the frames to a pcap file, or a pcapng file if its name ends in .pcapng, as they are metered, with nanoseconds
    /// and cut at the snaplen; interfaces of several link types take a pcapng file
    #[arg(long, value_name = "FILE")]
    pub write: Option<PathBuf>,
    /// Meter what this host exports to the collectors, too, when it passes a captured interface
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
    /// Serve metrics (/metrics), a status (/status) and /health over HTTP; without an address, on 127.0.0.1:9469
    #[arg(long, value_name = "ADDRESS:PORT", num_args = 0..=1, default_missing_value = "127.0.0.1:9469",
        value_parser = socket_address, help_heading = "Service")]
    pub metrics: Option<SocketAddr>,
    /// The user to become when all is open [default: as root `flowtap`, or `nobody` where there is none]
    #[arg(long, value_name = "NAME", help_heading = "Service")]
    pub user: Option<String>,
    /// Whether to give away, when all is open, all rights that are no longer needed
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
    /// IPFIX files; `-` is standard input
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Where to, and in which form: table:PATH, csv:PATH, json:PATH; PATH `-` is standard output
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
    /// Where the records go; repeatable [default: table:-]
    ///
    /// ipfix+udp://HOST:PORT, ipfix+tcp://HOST:PORT, ipfix+file:PATH, netflow9+udp://HOST:PORT,
    /// netflow5+udp://HOST:PORT (IPv4 only), table:PATH, csv:PATH, json:PATH. PATH `-` is standard output; IPv6
    /// hosts stand in brackets; ports default to 4739 (IPFIX) and 2055 (NetFlow).
    #[arg(long, value_name = "DESTINATION")]
    pub to: Vec<Destination>,
    /// Report a flow at the latest this long after its first packet
    #[arg(long, value_name = "TIME", value_parser = duration, help_heading = "Metering",
        default_value = DefaultTime(Timeouts::default().active))]
    pub active_timeout: Duration,
    /// End a flow that had no packet for this long; 0 gives each packet a record of its own
    #[arg(long, value_name = "TIME", value_parser = duration, help_heading = "Metering",
        default_value = DefaultTime(Timeouts::default().idle))]
    pub idle_timeout: Duration,
    /// Wait this long for stragglers after a FIN or RST; 0 ends the flow at once
    #[arg(long, value_name = "TIME", value_parser = duration, help_heading = "Metering",
        default_value = DefaultTime(Timeouts::default().linger))]
    pub tcp_linger: Duration,
    /// Flows that may be open at once; when there are more, the one nearest its end makes room
    #[arg(long, value_name = "N", default_value_t = DEFAULT_MAX_FLOWS, help_heading = "Metering")]
    pub max_flows: usize,
    /// Meter only the frames that this BPF expression selects
    #[arg(long, value_name = "BPF EXPRESSION", help_heading = "Metering")]
    pub filter: Option<String>,
    /// Metering threads; 0 does everything on one thread [default: what suits the machine]
    #[arg(long, value_name = "N", help_heading = "Metering")]
    pub shards: Option<usize>,
    /// Observation Domain of the flows (NetFlow v9: Source ID)
    #[arg(long, value_name = "N", help_heading = "Export",
        default_value_t = ExportOptions::default().observation_domain)]
    pub observation_domain: u32,
    /// Send the templates again after this long
    #[arg(long, value_name = "TIME", value_parser = duration, help_heading = "Export",
        default_value = DefaultTime(ExportOptions::default().template_refresh))]
    pub template_refresh: Duration,
    /// Send the templates again after this many messages
    #[arg(long, value_name = "N", help_heading = "Export",
        default_value_t = ExportOptions::default().template_refresh_packets)]
    pub template_refresh_messages: u64,
    /// Send the statistics records this often
    #[arg(long, value_name = "TIME", value_parser = duration, help_heading = "Export",
        default_value = DefaultTime(ExportOptions::default().statistics_interval))]
    pub statistics_interval: Duration,
    /// The most octets of an export packet, IP header included [default: the path's MTU, at most 1500]
    #[arg(long, value_name = "OCTETS", help_heading = "Export")]
    pub mtu: Option<u16>,
    /// Hold UDP export to this many messages a second when reading files; 0 for as fast as it goes
    /// [default: what a collector on the same machine can receive]
    #[arg(long, value_name = "N", help_heading = "Export")]
    pub export_rate: Option<u32>,
    /// The counts of the run, on standard error
    #[arg(long, value_name = "FORM", default_value = "text", help_heading = "Output")]
    pub summary: Summary,
    /// Options of the text forms.
    #[command(flatten)]
    pub text: TextArgs,
}

/// The configuration file.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// A TOML file whose keys are these flags without their dashes; flags win; of several, the first that exists
    #[arg(long, value_name = "FILE")]
    pub config: Vec<PathBuf>,
}

/// Options of the text forms.
#[derive(Debug, Args)]
pub struct TextArgs {
    /// Instead of the flows, the N heaviest talkers
    #[arg(long, value_name = "N", help_heading = "Output")]
    pub top: Option<usize>,
    /// What makes a talker heavy
    #[arg(long, value_name = "MEASURE", default_value = "octets", help_heading = "Output")]
    pub by: By,
    /// Times in UTC, not local time, in tables
    #[arg(long, help_heading = "Output")]
    pub utc: bool,
}

/// What `--top` goes by.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum By {
    /// The sum of octets.
    Octets,
    /// The sum of packets.
    Packets,
    /// The number of flows.
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

/// A default duration, shown as the user would type it.
struct DefaultTime(Duration);

impl From<DefaultTime> for clap::builder::OsStr {
    fn from(time: DefaultTime) -> clap::builder::OsStr {
        match time.0.subsec_nanos() {
            0 => format!("{}s", time.0.as_secs()).into(),
            _ => humantime::format_duration(time.0).to_string().replace(' ', "").into(),
        }
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    humantime::parse_duration(text)
        .map_err(|error| format!("{error}; a number with a unit is wanted, such as 500ms, 15s, 5min"))
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
