//! What a run did: the counts each stage keeps, added up, and the report whose sums close.
//!
//! `frames = metered + ignored`, and `metered` is the sum of the packets of all records. Records given to a
//! destination are sent, lost or unsupported there.

use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::capture::CaptureDrops;
use crate::decode::Ignored;
use crate::export::{Delivery, MeteringStatistics};
use crate::flow::{EndReason, FlowRecord};
use crate::printable::printable;
use crate::time::Timestamp;

/// What became of the frames that were read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameCounts {
    /// Frames read, without those that a filter left out.
    pub frames: u64,
    /// Their octets on the wire.
    pub wire_octets: u64,
    /// Frames that are not, by reason, in the order of [`Ignored::ALL`].
    pub ignored: [u64; Ignored::ALL.len()],
    /// What the Metering Process Reliability record tells (RFC 7011 §4.2).
    pub metering: MeteringStatistics,
}

impl FrameCounts {
    /// Frames that are counted in a record: all that are not ignored.
    pub fn metered(&self) -> u64 {
        self.frames - self.ignored.iter().sum::<u64>()
    }

    /// Counts a frame that is not metered.
    #[cold]
    pub fn ignore(&mut self, reason: Ignored, timestamp: Timestamp, wire_octets: u32) {
        self.ignored[reason as usize] += 1;
        self.metering.ignored_packets += 1;
        self.metering.ignored_octets += u64::from(wire_octets);
        self.metering.first_ignored.get_or_insert(timestamp);
        self.metering.last_ignored = Some(timestamp);
    }

    /// Adds what another intake counted.
    pub fn merge(&mut self, other: &FrameCounts) {
        self.frames += other.frames;
        self.wire_octets += other.wire_octets;
        for (sum, more) in self.ignored.iter_mut().zip(other.ignored) {
            *sum += more;
        }
        self.metering.merge(&other.metering);
    }
}

/// What became of the packets that were metered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecordCounts {
    /// Flow Records.
    pub records: u64,
    /// The sum of their packets.
    pub packets: u64,
    /// The sum of their octets.
    pub octets: u64,
    /// Records by flowEndReason, 1 to 5.
    pub by_reason: [u64; 5],
    /// Flows ended for want of room in the table.
    pub evicted: u64,
}

impl RecordCounts {
    /// Counts a record.
    #[inline]
    pub fn add(&mut self, record: &FlowRecord) {
        self.records += 1;
        self.packets += record.packets;
        self.octets += record.octets;
        self.by_reason[record.end_reason as usize - 1] += 1;
    }

    /// Adds what another shard counted.
    pub fn merge(&mut self, other: &RecordCounts) {
        self.records += other.records;
        self.packets += other.packets;
        self.octets += other.octets;
        for (sum, more) in self.by_reason.iter_mut().zip(other.by_reason) {
            *sum += more;
        }
        self.evicted += other.evicted;
    }
}

/// One destination's share of the report.
#[derive(Clone, Debug)]
pub struct DestinationReport {
    /// The destination as it was given.
    pub destination: String,
    /// What became of the records.
    pub delivery: Delivery,
    /// What went wrong first, if anything did.
    pub failure: Option<String>,
}

/// A whole run.
#[derive(Clone, Debug, Default)]
pub struct RunReport {
    /// The frames.
    pub frames: FrameCounts,
    /// Frames that a filter left out.
    pub filtered: u64,
    /// The records.
    pub records: RecordCounts,
    /// How often the clock jumped back.
    pub clock_resets: u64,
    /// The threads that did the work, in words.
    pub layout: String,
    /// Each destination.
    pub destinations: Vec<DestinationReport>,
    /// Live only: what the kernel says.
    pub capture: Option<CaptureDrops>,
    /// Input that could not be read to its end, one line each.
    pub damaged: Vec<String>,
    /// How long it took.
    pub elapsed: Duration,
    /// It was ended by a signal.
    pub interrupted: bool,
    /// What kept the run from its end, or from its beginning.
    pub failure: Option<String>,
}

#[derive(Serialize)]
struct JsonReport<'a> {
    frames: u64,
    wire_octets: u64,
    metered: u64,
    packets: u64,
    octets: u64,
    ignored: JsonIgnored,
    filtered: u64,
    records: u64,
    records_by_end_reason: JsonReasons,
    clock_resets: u64,
    evicted: u64,
    layout: &'a str,
    seconds: f64,
    interrupted: bool,
    damaged: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    capture: Option<CaptureDrops>,
    destinations: Vec<JsonDestination<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<&'a str>,
}

/// A count for each reason, by its name.
struct JsonIgnored([u64; Ignored::ALL.len()]);

impl Serialize for JsonIgnored {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(Ignored::ALL.map(Ignored::name).iter().zip(self.0))
    }
}

#[derive(Serialize)]
struct JsonReasons {
    idle: u64,
    active: u64,
    end: u64,
    forced: u64,
    lack_of_resources: u64,
}

#[derive(Serialize)]
struct JsonDestination<'a> {
    destination: &'a str,
    sent: u64,
    lost: u64,
    unsupported: u64,
    messages: u64,
    message_octets: u64,
    failure: Option<&'a str>,
}

impl RunReport {
    /// Whether all input was read to its end and no destination failed. One that lost records failed, unless it is a
    /// pipe whose reader had enough.
    pub fn is_clean(&self) -> bool {
        self.failure.is_none()
            && self.damaged.is_empty()
            && self.destinations.iter().all(|d| d.failure.is_none())
    }

    /// The report as one line of JSON.
    pub fn to_json(&self) -> String {
        let reason = |reason: EndReason| self.records.by_reason[reason as usize - 1];
        let report = JsonReport {
            frames: self.frames.frames,
            wire_octets: self.frames.wire_octets,
            metered: self.frames.metered(),
            packets: self.records.packets,
            octets: self.records.octets,
            ignored: JsonIgnored(self.frames.ignored),
            filtered: self.filtered,
            records: self.records.records,
            records_by_end_reason: JsonReasons {
                idle: reason(EndReason::Idle),
                active: reason(EndReason::Active),
                end: reason(EndReason::End),
                forced: reason(EndReason::Forced),
                lack_of_resources: reason(EndReason::LackOfResources),
            },
            clock_resets: self.clock_resets,
            evicted: self.records.evicted,
            layout: &self.layout,
            seconds: (self.elapsed.as_secs_f64() * 1e6).round() / 1e6,
            interrupted: self.interrupted,
            damaged: &self.damaged,
            capture: self.capture,
            destinations: self
                .destinations
                .iter()
                .map(|d| JsonDestination {
                    destination: &d.destination,
                    sent: d.delivery.sent.records,
                    lost: d.delivery.lost.records,
                    unsupported: d.delivery.unsupported.records,
                    messages: d.delivery.messages,
                    message_octets: d.delivery.message_octets,
                    failure: d.failure.as_deref(),
                })
                .collect(),
            failure: self.failure.as_deref(),
        };
        serde_json::to_string(&report).unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}"))
    }

    /// The report for a person: a few lines.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, words: String| {
            text.push_str(&format!("{name:<10} {words}\n"));
        };
        if self.layout.is_empty() {
            line("frames", "none read, the run did not begin".to_string());
            return text;
        }
        let seconds = self.elapsed.as_secs_f64();
        let rate = if seconds > 0.0 { self.frames.frames as f64 / seconds } else { 0.0 };
        line(
            "frames",
            format!(
                "{} read in {}, {} packets/s ({})",
                grouped(self.frames.frames),
                duration(self.elapsed),
                scaled(rate),
                self.layout
            ),
        );
        let mut metered = format!("{} packets", grouped(self.frames.metered()));
        let ignored: Vec<String> = Ignored::ALL
            .iter()
            .zip(self.frames.ignored)
            .filter(|(_, count)| *count > 0)
            .map(|(reason, count)| format!("{} {}", grouped(count), reason.words()))
            .collect();
        if ignored.is_empty() {
            metered.push_str(", none ignored");
        } else {
            metered.push_str(&format!(", ignored {}", ignored.join(", ")));
        }
        if self.filtered > 0 {
            metered.push_str(&format!("; {} filtered out", grouped(self.filtered)));
        }
        line("metered", metered);
        if let Some(capture) = self.capture {
            line(
                "capture",
                format!(
                    "{} received, {} dropped by the kernel, {} by the interface",
                    grouped(capture.received),
                    grouped(capture.dropped_by_kernel),
                    grouped(capture.dropped_by_interface)
                ),
            );
        }
        let reasons = ["idle", "active", "end of flow", "forced", "lack of resources"];
        let ended: Vec<String> = reasons
            .iter()
            .zip(self.records.by_reason)
            .filter(|(_, count)| *count > 0)
            .map(|(name, count)| format!("{name} {}", grouped(count)))
            .collect();
        let mut records = format!(
            "{} flow{}, {} octets",
            grouped(self.records.records),
            plural(self.records.records),
            grouped(self.records.octets)
        );
        if !ended.is_empty() {
            records.push_str(&format!("; ended by {}", ended.join(", ")));
        }
        line("records", records);
        if self.clock_resets > 0 {
            line(
                "clock",
                format!("jumped back {} time{}", grouped(self.clock_resets), plural(self.clock_resets)),
            );
        }
        for one in &self.destinations {
            let d = &one.delivery;
            let mut words = format!("{} records to {}", grouped(d.sent.records), printable(&one.destination));
            if d.messages > 0 {
                words.push_str(&format!(
                    " in {} messages, {} octets",
                    grouped(d.messages),
                    grouped(d.message_octets)
                ));
            }
            if d.lost.records > 0 {
                words.push_str(&format!(", {} LOST", grouped(d.lost.records)));
            }
            if d.unsupported.records > 0 {
                words.push_str(&format!(", {} the format cannot carry", grouped(d.unsupported.records)));
            }
            line("exported", words);
        }
        text
    }
}

/// A count with thin groups of three: `1,234,567`.
pub fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The ending of what is counted.
pub fn plural(count: u64) -> &'static str {
    if count == 1 { "" } else { "s" }
}

fn scaled(value: f64) -> String {
    match value {
        v if v >= 1e6 => format!("{:.1} M", v / 1e6),
        v if v >= 1e4 => format!("{:.0} k", v / 1e3),
        v => format!("{v:.0}"),
    }
}

fn duration(elapsed: Duration) -> String {
    match elapsed.as_secs_f64() {
        s if s >= 1.0 => format!("{s:.1} s"),
        s => format!("{:.1} ms", s * 1e3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_grouped_by_three() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1000), "1,000");
        assert_eq!(grouped(1234567), "1,234,567");
    }

    #[test]
    fn the_text_of_a_run_that_did_not_begin_says_so() {
        assert_eq!(RunReport::default().to_text(), "frames     none read, the run did not begin\n");
    }

    #[test]
    fn the_json_report_has_every_reason_even_when_nothing_happened() {
        let json: serde_json::Value = serde_json::from_str(&RunReport::default().to_json()).unwrap();
        for key in ["frames", "metered", "octets", "filtered", "records", "clock_resets", "evicted"] {
            assert_eq!(json[key], 0, "{key}");
        }
        for key in ["link_type", "non_ip", "truncated", "malformed"] {
            assert_eq!(json["ignored"][key], 0, "{key}");
        }
    }
}
