//! Flow Records in; messages out for a protocol with templates, IPFIX or NetFlow v9: the [`TemplateExporter`].
//!
//! It fills messages, sends templates before the data and again when they are due (RFC 7011 §8, RFC 3954 §7),
//! reports its statistics, and stamps each message with the time. How a message is framed is the [`Framing`]'s.

use std::time::Duration;

use crate::export::clock::ExportClock;
use crate::export::message::{Message, Pending};
use crate::export::outlet::{Outlet, Ready};
use crate::export::statistics::{OptionsRecord, Row, Statistics};
use crate::export::template::{Dialect, Kind, Layout};
use crate::export::{Delivery, ExportOptions, Exporter, MeteringStatistics, Tally};
use crate::flow::FlowRecord;
use crate::time::Timestamp;

/// What a message is about: it decides the Observation Domain, each with its own templates and sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Flow Records and their templates.
    Flows,
    /// What the exporter says of itself. In a domain of its own, for nfcapd takes its records for gaps in the flows'
    /// sequence if they are counted there, and ipfixcol2 and libfixbuf do if they are not.
    Statistics,
}

impl Part {
    /// How many parts there are.
    pub const COUNT: usize = 2;
}

/// How many records a message has.
#[derive(Clone, Copy, Debug, Default)]
pub struct Contents {
    /// Template and Options Template Records.
    pub templates: u32,
    /// Data Records.
    pub data_records: u32,
}

/// The octets around the records that one protocol asks for.
pub trait Framing: Send {
    /// Which fields it has.
    const DIALECT: Dialect;
    /// Octets of its message header.
    const HEADER: usize;
    /// The Set ID of Template Sets.
    const TEMPLATE_SET: u16;
    /// The Set ID of Options Template Sets.
    const OPTIONS_TEMPLATE_SET: u16;
    /// Sets are padded to a multiple of so many octets.
    const ALIGNMENT: usize;

    /// Starts numbering again.
    fn begin_session(&mut self);

    /// Whether the message being filled can take this record.
    #[inline]
    fn admits(&self, _record: &FlowRecord) -> bool {
        true
    }

    /// Begins a message with this record, which the one before did not take.
    fn begin_message(&mut self, _record: &FlowRecord) {}

    /// Takes note of a record added to the message.
    #[inline]
    fn add(&mut self, _record: &FlowRecord) {}

    /// The message is sent or given up.
    fn end_message(&mut self) {}

    /// Where sysUpTime is 0, in milliseconds since 1970.
    #[inline]
    fn boot_millis(&self) -> u64 {
        0
    }

    /// Writes a Template Record.
    fn template(&self, message: &mut Message, layout: &Layout);

    /// Writes an Options Template Record.
    fn options_template(&self, message: &mut Message, record: &OptionsRecord);

    /// The Template ID of an options record.
    fn options_template_id(&self, record: &OptionsRecord) -> u16;

    /// What is reported, as this protocol reports it.
    fn options(&self, statistics: Statistics) -> Vec<OptionsRecord>;

    /// Fills in the header.
    fn seal(&mut self, message: &mut Message, part: Part, contents: Contents, time: Timestamp);
}

/// An exporter of IPFIX or NetFlow v9.
pub struct TemplateExporter<F> {
    framing: F,
    outlet: Outlet,
    pending: Pending,
    message: Message,
    clock: ExportClock,
    /// The longest message, as the outlet said last.
    limit: usize,
    templates: Templates,
    message_delay: Duration,
    statistics_interval: Duration,
    /// When it was first seen that records wait.
    waiting_since: Option<Timestamp>,
    /// When the last statistics were sent, or the first tick came.
    last_statistics: Option<Timestamp>,
}

/// When templates are sent again.
struct Templates {
    interval: Duration,
    messages: u64,
    due: bool,
    messages_since: u64,
    last: Option<Timestamp>,
}

impl<F: Framing> TemplateExporter<F> {
    /// An exporter that frames messages by `framing`, stamps them by `clock` and gives them to `outlet`.
    pub fn new(
        framing: F,
        outlet: Outlet,
        clock: ExportClock,
        options: &ExportOptions,
    ) -> TemplateExporter<F> {
        let mut kinds = Kind::all();
        let layouts = std::array::from_fn(|_| {
            let kind = kinds.next().expect("as many kinds as layouts");
            Layout::new(kind, F::DIALECT)
        });
        let mut exporter = TemplateExporter {
            framing,
            limit: outlet.limit(),
            outlet,
            pending: Pending::new(layouts, F::ALIGNMENT),
            message: Message::default(),
            clock,
            templates: Templates {
                interval: options.template_refresh,
                messages: options.template_refresh_packets,
                due: true,
                messages_since: 0,
                last: None,
            },
            message_delay: options.message_delay,
            statistics_interval: options.statistics_interval,
            waiting_since: None,
            last_statistics: None,
        };
        // At once: the first message can only be filled when the path's limit is known.
        exporter.ready();
        exporter
    }

    /// Whether there is a session; a new one starts with its numbering and its templates.
    fn ready(&mut self) -> bool {
        let ready = self.outlet.ready();
        if ready == Ready::New {
            self.framing.begin_session();
            self.templates.due = true;
            self.limit = self.outlet.limit();
        }
        ready != Ready::Down
    }

    /// Sends the records that wait.
    #[inline(never)]
    fn flush(&mut self) {
        if !self.pending.is_empty() {
            let time = self.clock.stamp();
            if self.ready() {
                if self.templates.due {
                    self.send_templates(time);
                }
                self.message.begin(F::HEADER);
                self.pending.write(&mut self.message);
                let tally = self.pending.tally();
                // No message holds more records than octets.
                let contents = Contents { templates: 0, data_records: tally.records as u32 };
                self.send(Part::Flows, contents, tally, time);
            } else {
                self.outlet.lose(self.pending.tally(), time);
            }
            self.pending.clear();
        }
        self.waiting_since = None;
        self.framing.end_message();
        self.clock.end_message();
    }

    fn send(&mut self, part: Part, contents: Contents, tally: Tally, time: Timestamp) {
        self.framing.seal(&mut self.message, part, contents, time);
        self.outlet.send(self.message.octets(), tally, time);
        self.limit = self.outlet.limit();
        self.templates.messages_since += 1;
        if self.outlet.forgets_templates() && self.templates.messages_since >= self.templates.messages {
            self.templates.due = true;
        }
    }

    /// Sends the templates of both parts, in messages of their own before the data (RFC 7011 §8).
    fn send_templates(&mut self, time: Timestamp) {
        self.templates.due = false;
        let layouts = self.pending.layouts().to_vec();
        self.send_set(Part::Flows, F::TEMPLATE_SET, &layouts, time, F::template);
        let options = self.framing.options(Statistics::default());
        self.send_set(Part::Statistics, F::OPTIONS_TEMPLATE_SET, &options, time, F::options_template);
        self.templates.messages_since = 0;
    }

    /// Sends one Set of Template Records, and as many messages as that takes.
    fn send_set<T>(
        &mut self,
        part: Part,
        set: u16,
        records: &[T],
        time: Timestamp,
        write: fn(&F, &mut Message, &T),
    ) {
        let mut records = records.iter().peekable();
        while records.peek().is_some() {
            self.message.begin(F::HEADER);
            self.message.open_set(set);
            let mut templates = 0;
            while let Some(record) = records.peek() {
                let before = self.message.len();
                write(&self.framing, &mut self.message, record);
                // A single record goes out whatever its length: there is no other way to send it.
                if self.message.len().next_multiple_of(F::ALIGNMENT) > self.limit && templates > 0 {
                    self.message.truncate(before);
                    break;
                }
                templates += 1;
                records.next();
            }
            self.message.close_set(F::ALIGNMENT);
            self.send(part, Contents { templates, data_records: 0 }, Tally::default(), time);
        }
    }

    /// Sends the statistics as they stand.
    fn send_statistics(&mut self, metering: &MeteringStatistics) {
        if !self.ready() {
            return;
        }
        let time = self.clock.stamp();
        if self.templates.due {
            self.send_templates(time);
        }
        let (first_lost, last_lost) = self.outlet.lost_between();
        let statistics = Statistics {
            observation_domain: 0,
            metering: *metering,
            delivery: self.outlet.delivery(),
            first_lost,
            last_lost,
        };
        let records = self.framing.options(statistics);
        self.message.begin(F::HEADER);
        for record in &records {
            self.message.open_set(self.framing.options_template_id(record));
            for Row { element, value } in record.scope.iter().chain(&record.values) {
                self.message.put_uint(*value, element.length);
            }
            self.message.close_set(F::ALIGNMENT);
        }
        let contents = Contents { templates: 0, data_records: records.len() as u32 };
        self.send(Part::Statistics, contents, Tally::default(), time);
    }
}

impl<F: Framing> Exporter for TemplateExporter<F> {
    fn export(&mut self, records: &[FlowRecord]) {
        for record in records {
            if !self.framing.admits(record) {
                self.flush();
                self.framing.begin_message(record);
            }
            let kind = Kind::of(record);
            if F::HEADER + self.pending.length_with(kind) > self.limit {
                self.flush();
            }
            self.framing.add(record);
            self.clock.see(record);
            self.pending.push(kind, record, self.framing.boot_millis());
        }
    }

    fn tick(&mut self, now: Timestamp, metering: &MeteringStatistics) {
        self.clock.tick(now);
        if !self.clock.runs() {
            return;
        }
        if !self.pending.is_empty() {
            let since = *self.waiting_since.get_or_insert(now);
            if now.since(since) >= self.message_delay {
                self.flush();
                self.outlet.flush(now);
            }
        }
        // Also when no flows come: a collector may start late.
        let last = *self.templates.last.get_or_insert(now);
        if self.outlet.forgets_templates() && now.since(last) >= self.templates.interval {
            self.templates.last = Some(now);
            self.templates.due = true;
        }
        if self.templates.due && self.ready() {
            let time = self.clock.stamp();
            self.send_templates(time);
        }
        let last = *self.last_statistics.get_or_insert(now);
        if now.since(last) >= self.statistics_interval {
            self.last_statistics = Some(now);
            self.send_statistics(metering);
        }
    }

    fn finish(&mut self, now: Timestamp, metering: &MeteringStatistics) {
        self.clock.tick(now);
        self.flush();
        self.send_statistics(metering);
        self.outlet.close(now);
    }

    fn delivery(&self) -> Delivery {
        self.outlet.delivery()
    }

    fn failure(&self) -> Option<&str> {
        self.outlet.failure()
    }
}
