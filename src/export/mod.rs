//! The Exporting Process (RFC 7011 §2): Flow Records in, messages or text out.
//!
//! Every destination is an [`Exporter`]: it is given batches of records and the time, and keeps a [`Delivery`] of
//! what became of them.

pub mod element;
pub mod text;

use crate::flow::FlowRecord;
use crate::time::Timestamp;

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

/// A destination of Flow Records. Not one method fails: what goes wrong is counted in the [`Delivery`], logged once
/// a change of state, and told by [`Exporter::failure`].
pub trait Exporter: Send {
    /// Takes a batch of finished records.
    fn export(&mut self, records: &[FlowRecord]);

    /// Tells the exporter the time: wall clock over a network or live, the observation clock for a file made from
    /// captures. Sends what has waited long enough, templates that are due, statistics.
    fn tick(&mut self, now: Timestamp, metering: &MeteringStatistics);

    /// Sends all that is left, the last statistics, and closes the destination.
    fn finish(&mut self, now: Timestamp, metering: &MeteringStatistics);

    /// What became of the records so far.
    fn delivery(&self) -> Delivery;

    /// What went wrong first, for the report and the exit status: names the destination and the reason.
    fn failure(&self) -> Option<&str>;
}
