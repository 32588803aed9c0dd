//! The Exporting Process (RFC 7011 §2): Flow Records in, messages or text out.
//!
//! Every destination is an [`Exporter`]: it is given batches of records and the time, and keeps a [`Delivery`] of
//! what became of them. [`open`] makes one of a [`Destination`]. For the message formats the path of a record is
//!
//! ```text
//!  FlowRecord ─► template (Data Record) ─► message (Sets) ─► ipfix | netflow9 | netflow5 (header)
//!                                                     ─► outlet (account of sent and lost) ─► transport
//! ```
//!
//! where `exporter` decides when a message, a template or statistics are sent.

mod clock;
pub mod destination;
#[doc(hidden)] // for benches/encode.rs
pub mod discard;
pub mod element;
mod exporter;
pub mod fifo;
mod ipfix;
mod message;
mod netflow5;
mod netflow9;
mod outlet;
mod statistics;
mod template;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
pub mod text;
mod transport;
mod uptime;

use std::io;
use std::num::NonZeroU32;
use std::ops::{AddAssign, SubAssign};
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

use crate::flow::FlowRecord;
use crate::time::Timestamp;

pub use destination::{Destination, DestinationError, Endpoint};

/// How records are exported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportOptions {
    /// The Observation Domain of the flows; in NetFlow v9 the Source ID, in v5 the engine ID (its low octet). Not 0,
    /// which is for what the exporter says of itself (RFC 7011 §3.1).
    pub observation_domain: u32,
    /// Whether records come from capture files: times of messages are then on the packet clock, except for IPFIX over a
    /// network.
    pub packet_clock: bool,
    /// Over UDP templates are sent again after this time (templateRefreshTimeout, RFC 6728 §4.4.2).
    pub template_refresh: Duration,
    /// Over UDP templates are sent again after so many messages (templateRefreshPacket, RFC 6728 §4.4.2).
    pub template_refresh_packets: u64,
    /// How often statistics are sent besides at the end; never before it into a file made from captures.
    pub statistics_interval: Duration,
    /// How long a record waits at most for a message to fill.
    pub message_delay: Duration,
    /// The largest MTU made use of, over UDP: 1500 where it is not given. The path's own, which the kernel is asked for,
    /// is kept to where it is less; less than 512 counts as 512 (RFC 7011 §10.3.3).
    pub mtu: Option<u16>,
    /// Messages a second at most, over UDP; `None` for as many as can be.
    pub rate: Option<NonZeroU32>,
    /// How long connecting may take, over TCP.
    pub connect_timeout: Duration,
    /// How long a message may take to be written, over TCP.
    pub write_timeout: Duration,
    /// The least time between two attempts to reach a collector (RFC 7011 §10.4.4).
    pub reconnect_interval: Duration,
}

/// Messages a second that a stock nfcapd on the same machine takes whole, with its default receive buffer of 212,992
/// octets. Measured with a million records to nfcapd 1.7.1 on loopback, two cores: nothing is lost at 5,000, 8,000, 12,000,
/// 20,000 and 40,000 a second on a quiet machine, two thirds are without a limit; with every core kept busy by others 1.3 %
/// at 10,000 and 0.07 % at 4,000. So a tenth of what a quiet machine takes: some 48,000 records a second.
const DEFAULT_RATE: NonZeroU32 = NonZeroU32::new(4_000).unwrap();

impl Default for ExportOptions {
    fn default() -> ExportOptions {
        ExportOptions {
            observation_domain: 1,
            packet_clock: false,
            template_refresh: Duration::from_secs(60),
            template_refresh_packets: 1_000,
            statistics_interval: Duration::from_secs(60),
            message_delay: Duration::from_secs(1),
            mtu: None,
            rate: Some(DEFAULT_RATE),
            connect_timeout: Duration::from_secs(5),
            write_timeout: Duration::from_secs(10),
            reconnect_interval: Duration::from_secs(60),
        }
    }
}

/// Why a destination cannot be opened.
#[derive(Debug, Error)]
pub enum ExportError {
    /// A file cannot be written.
    #[error("opening {path:?} for writing")]
    File {
        /// Its path.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// A text format, which has its own constructor.
    #[error("{0} is a text format, not one of messages")]
    Text(Destination),
}

/// Opens a destination of messages.
///
/// A collector that cannot be reached is no error here: the exporter counts what it loses, tries again, and tells by
/// [`Exporter::failure`]. So one dead collector does not keep records from the others.
///
/// # Errors
///
/// If a file cannot be opened, or the destination is one of the text formats.
pub fn open(destination: &Destination, options: &ExportOptions) -> Result<Box<dyn Exporter>, ExportError> {
    use clock::ExportClock;
    use exporter::TemplateExporter;
    use transport::{file::File, tcp::Tcp, udp::Udp};

    let name = destination.to_string();
    let wall = || ExportClock::wall(Timestamp::now);
    // The 32 bits of a NetFlow clock do not reach from an old capture to now.
    let netflow = || if options.packet_clock { ExportClock::packets_of_message() } else { wall() };
    let ipfix = || ipfix::Ipfix::new(options.observation_domain);
    Ok(match destination {
        Destination::IpfixUdp(endpoint) => {
            let outlet = outlet::Outlet::new(name, Box::new(Udp::new(endpoint.clone(), options)));
            Box::new(TemplateExporter::new(ipfix(), outlet, wall(), options))
        }
        Destination::IpfixTcp(endpoint) => {
            let outlet = outlet::Outlet::new(name, Box::new(Tcp::new(endpoint.clone(), options)));
            Box::new(TemplateExporter::new(ipfix(), outlet, wall(), options))
        }
        Destination::IpfixFile(path) => {
            let file = match destination.is_standard_output() {
                true => File::standard_output(),
                false => File::create(path),
            };
            let file = file.map_err(|source| ExportError::File { path: path.clone(), source })?;
            let clock = if options.packet_clock { ExportClock::packets() } else { wall() };
            let outlet = outlet::Outlet::new(name, Box::new(file));
            Box::new(TemplateExporter::new(ipfix(), outlet, clock, options))
        }
        Destination::NetFlow9Udp(endpoint) => {
            let outlet = outlet::Outlet::new(name, Box::new(Udp::new(endpoint.clone(), options)));
            let framing = netflow9::NetFlow9::new(options.observation_domain);
            Box::new(TemplateExporter::new(framing, outlet, netflow(), options))
        }
        Destination::NetFlow5Udp(endpoint) => {
            let outlet = outlet::Outlet::new(name, Box::new(Udp::new(endpoint.clone(), options)));
            Box::new(netflow5::NetFlow5::new(outlet, netflow(), options))
        }
        Destination::Table(_) | Destination::Csv(_) | Destination::Json(_) => {
            return Err(ExportError::Text(destination.clone()));
        }
    })
}

/// The table of all fields that records are exported with, as aligned text or as Markdown.
pub fn list_elements(markdown: bool) -> String {
    let listed = template::listed();
    if markdown { text::elements_as_markdown(listed) } else { text::elements_as_text(listed) }
}

/// What became of the records given to one exporter. `sent + lost + unsupported` is all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delivery {
    /// Records handed to the transport whole.
    pub sent: Tally,
    /// Records that did not reach the transport, or whose message the transport reported lost.
    pub lost: Tally,
    /// Records the format cannot carry (IPv6 in NetFlow v5).
    pub unsupported: Tally,
    /// Messages (or export packets) sent.
    pub messages: u64,
    /// Octets of the messages, or of the text, sent.
    pub message_octets: u64,
}

/// A number of records and what they hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Flow Records.
    pub records: u64,
    /// The sum of their packets.
    pub packets: u64,
    /// The sum of their octets.
    pub octets: u64,
}

impl Tally {
    /// Adds one record.
    #[inline]
    pub fn add(&mut self, record: &FlowRecord) {
        self.records += 1;
        self.add_counts(record);
    }

    /// Adds what is in one record, which is counted apart.
    #[inline]
    fn add_counts(&mut self, record: &FlowRecord) {
        self.packets = self.packets.saturating_add(record.packets);
        self.octets = self.octets.saturating_add(record.octets);
    }
}

// Sums of 64-bit counts that a test may set to anything: held, never wrapped.
impl AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.records = self.records.saturating_add(other.records);
        self.packets = self.packets.saturating_add(other.packets);
        self.octets = self.octets.saturating_add(other.octets);
    }
}

impl SubAssign for Tally {
    fn sub_assign(&mut self, other: Tally) {
        self.records = self.records.saturating_sub(other.records);
        self.packets = self.packets.saturating_sub(other.packets);
        self.octets = self.octets.saturating_sub(other.octets);
    }
}

/// What the Metering Process did so far, for the statistics records (RFC 7011 §4.1, §4.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MeteringStatistics {
    /// Packets that were not metered: ignored frames and, live, what the kernel or the interface dropped.
    pub ignored_packets: u64,
    /// Octets of the ignored packets, as far as known (wire length).
    pub ignored_octets: u64,
    /// When the first packet was ignored.
    pub first_ignored: Option<Timestamp>,
    /// When the last packet was ignored.
    pub last_ignored: Option<Timestamp>,
}

impl MeteringStatistics {
    /// Adds what another intake of the same Metering Process counted.
    pub fn merge(&mut self, other: &MeteringStatistics) {
        self.ignored_packets += other.ignored_packets;
        self.ignored_octets += other.ignored_octets;
        self.first_ignored = match (self.first_ignored, other.first_ignored) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        self.last_ignored = self.last_ignored.max(other.last_ignored);
    }
}

/// A destination of Flow Records. Not one method fails: what goes wrong is counted in the [`Delivery`], logged once
/// a change of state, and told by [`Exporter::failure`].
pub trait Exporter: Send {
    /// Takes a batch of finished records.
    fn export(&mut self, records: &[FlowRecord]);

    /// Tells the exporter the time: wall clock over a network or live, the observation clock for a file made from
    /// captures. Sends what has waited long enough, templates that are due, statistics.
    fn tick(&mut self, now: Timestamp, metering: &MeteringStatistics);

    /// Sends what waits, however short a time it has: there may be no more for long.
    fn send_waiting(&mut self, now: Timestamp);

    /// Whether a record costs less here than handing it to another thread: binary records to a file.
    fn is_light(&self) -> bool {
        false
    }

    /// Opens its file again, by its path, if another one or none stands there: the old one was moved away. Does nothing where
    /// records do not go to a file.
    fn reopen(&mut self, _now: Timestamp) {}

    /// How often templates were sent, the first time included; 0 where there are none.
    fn template_refreshes(&self) -> u64 {
        0
    }

    /// Sends all that is left, the last statistics, and closes the destination.
    fn finish(&mut self, now: Timestamp, metering: &MeteringStatistics);

    /// What became of the records so far.
    fn delivery(&self) -> Delivery;

    /// What went wrong first, for the report and the exit status: names the destination and the reason.
    fn failure(&self) -> Option<&str>;
}
