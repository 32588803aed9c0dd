//! Counters in; the records an exporter reports on itself and on the Metering Process with, out: RFC 7011 §4.1 to §4.3.

use crate::export::element::{self, Element};
use crate::export::{Delivery, MeteringStatistics};
use crate::time::Timestamp;

/// The identifier of the Exporting Process: a run has one (RFC 7011 §4.3).
const EXPORTING_PROCESS: u64 = 1;

/// A record described by an Options Template. Template and data are both read off the rows, as with flow records.
#[derive(Clone, Debug)]
pub struct OptionsRecord {
    /// Which of the Options Templates of its protocol describes it, from 0.
    pub number: u16,
    /// The scope (RFC 7011 §3.4.2.1): what the record is about.
    pub scope: Vec<Row>,
    /// What it says.
    pub values: Vec<Row>,
}

/// An element and its value; a time is in milliseconds since 1970. Its length on the wire is the element's.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The element.
    pub element: &'static Element,
    /// Its value.
    pub value: u64,
}

fn row(element: &'static Element, value: u64) -> Row {
    Row { element, value }
}

fn time(timestamp: Option<Timestamp>) -> Row {
    row(&element::OBSERVATION_TIME_MILLISECONDS, timestamp.unwrap_or_default().millis())
}

/// All that is reported.
#[derive(Clone, Copy, Debug, Default)]
pub struct Statistics {
    /// The Observation Domain the flows are of.
    pub observation_domain: u32,
    /// What the Metering Process did.
    pub metering: MeteringStatistics,
    /// What the exporter did, without the message that carries this.
    pub delivery: Delivery,
    /// When the first record was lost.
    pub first_lost: Option<Timestamp>,
    /// When the last record was lost.
    pub last_lost: Option<Timestamp>,
}

impl Statistics {
    fn domain(&self) -> Row {
        row(&element::OBSERVATION_DOMAIN_ID, u64::from(self.observation_domain))
    }

    fn exported(&self) -> [Row; 3] {
        [
            row(&element::EXPORTED_MESSAGE_TOTAL_COUNT, self.delivery.messages),
            row(&element::EXPORTED_FLOW_RECORD_TOTAL_COUNT, self.delivery.sent.records),
            row(&element::EXPORTED_OCTET_TOTAL_COUNT, self.delivery.message_octets),
        ]
    }

    fn ignored(&self) -> [Row; 2] {
        [
            row(&element::IGNORED_PACKET_TOTAL_COUNT, self.metering.ignored_packets),
            row(&element::IGNORED_OCTET_TOTAL_COUNT, self.metering.ignored_octets),
        ]
    }

    fn not_sent(&self) -> [Row; 3] {
        let (lost, unsupported) = (self.delivery.lost, self.delivery.unsupported);
        [
            row(&element::NOT_SENT_FLOW_TOTAL_COUNT, lost.records + unsupported.records),
            row(&element::NOT_SENT_PACKET_TOTAL_COUNT, lost.packets + unsupported.packets),
            row(&element::NOT_SENT_OCTET_TOTAL_COUNT, lost.octets + unsupported.octets),
        ]
    }

    /// The Metering Process Statistics (RFC 7011 §4.1), the Metering Process Reliability Statistics (§4.2) and the
    /// Exporting Process Reliability Statistics (§4.3). The two observation times of the latter two are of one element:
    /// the first and the last loss, both 0 where there was none.
    pub fn ipfix(&self) -> [OptionsRecord; 3] {
        let metering =
            OptionsRecord { number: 0, scope: vec![self.domain()], values: self.exported().to_vec() };
        let mut ignored = self.ignored().to_vec();
        ignored.extend([time(self.metering.first_ignored), time(self.metering.last_ignored)]);
        let mut not_sent = self.not_sent().to_vec();
        not_sent.extend([time(self.first_lost), time(self.last_lost)]);
        let process = row(&element::EXPORTING_PROCESS_ID, EXPORTING_PROCESS);
        [
            metering,
            OptionsRecord { number: 1, scope: vec![self.domain()], values: ignored },
            OptionsRecord { number: 2, scope: vec![process], values: not_sent },
        ]
    }

    /// The same counts in one NetFlow v9 options record (RFC 3954 §6.1), which has no rule for an element that occurs
    /// twice, so without the times.
    pub fn netflow9(&self) -> [OptionsRecord; 1] {
        let values = [&self.exported()[..], &self.ignored(), &self.not_sent()].concat();
        [OptionsRecord { number: 0, scope: vec![self.domain()], values }]
    }
}
