//! Flow Records in; messages out for a protocol with templates, IPFIX or NetFlow v9: the [`TemplateExporter`].
//!
//! It fills messages, sends templates before the data and again when they are due (RFC 7011 §8, RFC 3954 §7),
//! reports its statistics, and stamps each message with the time. How a message is framed is the [`Framing`]'s.

use std::time::Duration;

use crate::export::clock::{ExportClock, last_done};
use crate::export::message::{Message, Pending};
use crate::export::outlet::{Outlet, Ready};
use crate::export::statistics::{OptionsRecord, Row, Statistics};
use crate::export::template::{self, Dialect, Kind, Layout};
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
    /// How often they were sent.
    sent: u64,
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
            pending: Pending::new(layouts, F::HEADER, F::ALIGNMENT),
            clock,
            templates: Templates {
                interval: options.template_refresh,
                messages: options.template_refresh_packets,
                due: true,
                messages_since: 0,
                last: None,
                sent: 0,
            },
            message_delay: options.message_delay,
            statistics_interval: options.statistics_interval,
            waiting_since: None,
            last_statistics: None,
        };
        // At once: the first message can only be filled when the path's limit is known.
        exporter.ready(Timestamp::EPOCH);
        exporter
    }

    /// Begins a session if there is none and one is due; a new one starts with its numbering and its templates.
    fn ready(&mut self, now: Timestamp) -> Ready {
        let ready = self.outlet.ready(now);
        if ready == Ready::New {
            self.framing.begin_session();
            self.templates.due = true;
            self.limit = self.outlet.limit();
        }
        ready
    }

    /// Whether there is a session for data. Templates that are due go out before.
    fn ready_for_data(&mut self, time: Timestamp) -> bool {
        let mut ready = self.ready(time);
        // A session that ends with its templates is followed by one with the next address of the host, if it has several.
        while ready != Ready::Down && self.templates.due {
            self.send_templates(time);
            ready = self.ready(time);
            if ready == Ready::Same {
                break;
            }
        }
        ready != Ready::Down
    }

    /// Adds records to the message until it takes no more, and gives how many it took. With `begun` the message is empty and
    /// was begun with the first of them, which it takes whatever it holds.
    fn fill(&mut self, records: &[FlowRecord], mut begun: bool) -> usize {
        let mut tally = Tally::default();
        let mut newest = Timestamp::EPOCH;
        let mut rest = records;
        while let Some(record) = rest.first() {
            let kind = Kind::of(record);
            let room = self.pending.room(kind, self.limit, rest.len());
            let framing = &mut self.framing;
            let boot_millis = framing.boot_millis();
            let written = template::write(kind, F::DIALECT, rest, boot_millis, room, |record| {
                if !std::mem::take(&mut begun) && !framing.admits(record) {
                    return false;
                }
                framing.add(record);
                tally.add_counts(record);
                newest = newest.max(record.ended);
                true
            });
            if written == 0 {
                break;
            }
            self.pending.add(kind, written);
            tally.records += written as u64;
            rest = &rest[written..];
        }
        if tally.records > 0 {
            self.pending.count(tally);
            self.clock.see(newest);
        }
        tally.records as usize
    }

    /// Sends the records that wait.
    #[inline(never)]
    fn flush(&mut self) {
        if !self.pending.is_empty() {
            let time = self.clock.stamp();
            if self.ready_for_data(time) {
                let mut message = self.pending.take();
                let tally = self.pending.tally();
                // No message holds more records than octets.
                let contents = Contents { templates: 0, data_records: tally.records as u32 };
                self.send(&mut message, Part::Flows, contents, tally, time);
                self.pending.clear(Some(message));
            } else {
                self.outlet.lose(self.pending.tally(), time);
                self.pending.clear(None);
            }
        }
        self.waiting_since = None;
        self.framing.end_message();
        self.clock.end_message();
    }

    fn send(
        &mut self,
        message: &mut Message,
        part: Part,
        contents: Contents,
        tally: Tally,
        time: Timestamp,
    ) -> bool {
        self.framing.seal(message, part, contents, time);
        let sent = self.outlet.send(message, tally, time);
        self.limit = self.outlet.limit();
        self.templates.messages_since += 1;
        if self.outlet.forgets_templates() && self.templates.messages_since >= self.templates.messages {
            self.templates.due = true;
        }
        sent
    }

    /// Sends the templates of both parts, in messages of their own before the data (RFC 7011 §8).
    fn send_templates(&mut self, time: Timestamp) {
        self.templates.sent += 1;
        let layouts = self.pending.layouts().to_vec();
        let flows = self.send_set(Part::Flows, F::TEMPLATE_SET, &layouts, time, F::template);
        let options = self.framing.options(Statistics::default());
        let statistics =
            self.send_set(Part::Statistics, F::OPTIONS_TEMPLATE_SET, &options, time, F::options_template);
        self.templates.messages_since = 0;
        // Data means nothing to a collector that missed them: what did not go out goes out before the next.
        self.templates.due = !(flows && statistics);
    }

    /// Sends Template Records in a Set, Options Template Records in a Set each, and as many messages as that takes.
    fn send_set<T>(
        &mut self,
        part: Part,
        set: u16,
        records: &[T],
        time: Timestamp,
        write: fn(&F, &mut Message, &T),
    ) -> bool {
        // nfacctd looks for a second Options Template of a Set in the wrong place, and calls the Set malformed.
        let alone = set == F::OPTIONS_TEMPLATE_SET;
        let mut records = records.iter().peekable();
        let mut all_sent = true;
        let mut message = Message::default();
        while records.peek().is_some() {
            message.begin(F::HEADER);
            let mut templates = 0;
            while let Some(record) = records.peek() {
                let before = message.len();
                if templates == 0 || alone {
                    message.open_set(set);
                }
                write(&self.framing, &mut message, record);
                // A single record goes out whatever its length: there is no other way to send it.
                if message.len().next_multiple_of(F::ALIGNMENT) > self.limit && templates > 0 {
                    message.truncate(before);
                    break;
                }
                if alone {
                    message.close_set(F::ALIGNMENT);
                }
                templates += 1;
                records.next();
            }
            message.close_set(F::ALIGNMENT);
            let contents = Contents { templates, data_records: 0 };
            all_sent &= self.send(&mut message, part, contents, Tally::default(), time);
        }
        all_sent
    }

    /// Sends the statistics as they stand.
    fn send_statistics(&mut self, metering: &MeteringStatistics) {
        let time = self.clock.stamp();
        if !self.ready_for_data(time) {
            return;
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
        let mut message = Message::default();
        message.begin(F::HEADER);
        for record in &records {
            message.open_set(self.framing.options_template_id(record));
            for Row { element, value } in record.scope.iter().chain(&record.values) {
                message.put_uint(*value, element.length);
            }
            message.close_set(F::ALIGNMENT);
        }
        let contents = Contents { templates: 0, data_records: records.len() as u32 };
        self.send(&mut message, Part::Statistics, contents, Tally::default(), time);
    }
}

impl<F: Framing> Exporter for TemplateExporter<F> {
    fn export(&mut self, records: &[FlowRecord]) {
        let mut rest = records;
        let mut begun = false;
        loop {
            rest = &rest[self.fill(rest, begun)..];
            let Some(record) = rest.first() else { break };
            begun = !self.framing.admits(record);
            self.flush();
            if begun {
                self.framing.begin_message(record);
            }
        }
    }

    fn is_light(&self) -> bool {
        self.outlet.is_file()
    }

    fn tick(&mut self, now: Timestamp, metering: &MeteringStatistics) {
        self.clock.tick(now);
        if !self.clock.runs() {
            return;
        }
        if !self.pending.is_empty() {
            let since = last_done(&mut self.waiting_since, now);
            if now.since(since) >= self.message_delay {
                self.flush();
                self.outlet.flush(now);
            }
        }
        // Also when no flows come: a collector may start late.
        let last = last_done(&mut self.templates.last, now);
        if self.outlet.forgets_templates() && now.since(last) >= self.templates.interval {
            self.templates.last = Some(now);
            self.templates.due = true;
        }
        if self.templates.due {
            let time = self.clock.stamp();
            self.ready_for_data(time);
        }
        let last = last_done(&mut self.last_statistics, now);
        if now.since(last) >= self.statistics_interval {
            self.last_statistics = Some(now);
            self.send_statistics(metering);
        }
    }

    fn send_waiting(&mut self, now: Timestamp) {
        self.flush();
        self.outlet.flush(now);
    }

    fn reopen(&mut self, now: Timestamp) {
        self.flush();
        self.outlet.reopen(now);
    }

    fn template_refreshes(&self) -> u64 {
        self.templates.sent
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::export::ipfix::Ipfix;
    use crate::export::netflow9::NetFlow9;
    use crate::export::testing::{Collector, after, collector, record_v4, record_v6, wall};

    const QUIET: MeteringStatistics =
        MeteringStatistics { ignored_packets: 0, ignored_octets: 0, first_ignored: None, last_ignored: None };

    fn over(limit: usize, udp: bool, clock: ExportClock) -> (TemplateExporter<Ipfix>, Collector) {
        let (outlet, collector) = collector(limit, udp);
        (TemplateExporter::new(Ipfix::new(1), outlet, clock, &ExportOptions::default()), collector)
    }

    /// Of each message its first Set ID, its sequence number and its Export Time.
    fn seen(collector: &Collector) -> Vec<(u16, u32, u32)> {
        let messages = collector.messages.lock().expect("no panic");
        let u32_at = |m: &[u8], at: usize| u32::from_be_bytes(m[at..at + 4].try_into().expect("four"));
        messages.iter().map(|m| (u16::from_be_bytes([m[16], m[17]]), u32_at(m, 8), u32_at(m, 4))).collect()
    }

    fn set_ids(collector: &Collector) -> Vec<u16> {
        seen(collector).iter().map(|message| message.0).collect()
    }

    fn later(seconds: u64) -> Timestamp {
        wall().plus(Duration::from_secs(seconds))
    }

    #[test]
    fn templates_go_out_before_the_first_flow_and_again_when_no_flows_come() {
        let (mut exporter, collector) = over(1472, true, ExportClock::wall(wall));
        exporter.tick(later(0), &QUIET);
        assert_eq!(set_ids(&collector), [2, 3]);
        exporter.tick(later(59), &QUIET);
        assert_eq!(set_ids(&collector).len(), 2);
        exporter.tick(later(60), &QUIET);
        assert_eq!(set_ids(&collector), [2, 3, 2, 3, 268], "templates, and the first statistics");
    }

    #[test]
    fn templates_that_are_refused_go_out_in_the_next_session_before_the_flows() {
        for refusals in 1..4 {
            let (mut exporter, collector) = over(1472, true, ExportClock::wall(wall));
            collector.refusals.store(refusals, Ordering::Relaxed);
            exporter.export(&[record_v4()]);
            exporter.finish(later(1), &QUIET);
            assert_eq!(set_ids(&collector), [2, 3, 256, 268], "{refusals} refused");
            assert_eq!((exporter.delivery().sent.records, exporter.delivery().lost.records), (1, 0));
        }
    }

    #[test]
    fn over_a_connection_templates_are_sent_once() {
        let (mut exporter, collector) = over(1472, false, ExportClock::wall(wall));
        for minute in 0..3 {
            exporter.tick(later(60 * minute), &QUIET);
            exporter.export(&[record_v4(); 2000]);
        }
        assert_eq!(set_ids(&collector).iter().filter(|id| **id == 2).count(), 1);
    }

    #[test]
    fn templates_that_do_not_fit_one_message_go_out_in_several() {
        let (mut exporter, collector) = over(484, true, ExportClock::wall(wall));
        exporter.tick(later(0), &QUIET);
        assert_eq!(set_ids(&collector), [2, 2, 2, 3]);
    }

    #[test]
    fn a_record_does_not_wait_longer_than_the_delay() {
        let (mut exporter, collector) = over(1472, true, ExportClock::wall(wall));
        exporter.tick(later(0), &QUIET);
        exporter.export(&[record_v4()]);
        exporter.tick(later(1), &QUIET);
        assert_eq!(set_ids(&collector), [2, 3], "first seen waiting");
        exporter.tick(later(2), &QUIET);
        assert_eq!(set_ids(&collector), [2, 3, 256]);
    }

    #[test]
    fn what_waits_is_sent_when_it_is_asked_for_and_nothing_else() {
        for clock in [ExportClock::wall(wall), ExportClock::packets()] {
            let (mut exporter, collector) = over(1472, true, clock);
            exporter.send_waiting(later(0));
            assert!(set_ids(&collector).is_empty(), "nothing waits");
            exporter.export(&[record_v4(); 2]);
            assert!(set_ids(&collector).is_empty(), "they fill no message");
            exporter.send_waiting(later(0));
            exporter.send_waiting(later(0));
            assert_eq!(set_ids(&collector), [2, 3, 256]);
            assert_eq!(exporter.delivery().sent.records, 2);
            exporter.export(&[record_v4()]);
            exporter.finish(later(1), &QUIET);
            let sequences: Vec<_> =
                seen(&collector).iter().map(|(id, sequence, _)| (*id, *sequence)).collect();
            assert_eq!(sequences[2..4], [(256, 0), (256, 2)]);
            assert_eq!((exporter.delivery().sent.records, exporter.delivery().lost.records), (3, 0));
        }
    }

    #[test]
    fn a_new_session_starts_at_0_with_templates_and_what_came_between_is_lost() {
        let (mut exporter, collector) = over(1472, false, ExportClock::wall(wall));
        exporter.export(&[record_v4(); 13]);
        assert_eq!(set_ids(&collector), [2, 3, 256]);
        collector.gone.store(true, Ordering::Relaxed);
        exporter.export(&[record_v4(); 24]);
        assert_eq!(exporter.delivery().lost.records, 24);
        collector.gone.store(false, Ordering::Relaxed);
        collector.messages.lock().expect("no panic").clear();
        exporter.finish(later(0), &QUIET);
        let sequences: Vec<_> = seen(&collector).iter().map(|(id, sequence, _)| (*id, *sequence)).collect();
        assert_eq!(sequences, [(2, 0), (3, 0), (256, 0), (268, 0)]);
        let delivery = exporter.delivery();
        assert_eq!((delivery.sent.records, delivery.lost.records), (13, 24));
        // The Exporting Process Reliability Statistics tell: template 270, behind its scope.
        let messages = collector.messages.lock().expect("no panic");
        let last = &messages[3][88..];
        assert_eq!(last[..16], [1, 14, 0, 48, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 24]);
        assert_eq!(exporter.failure(), Some("sending to test: connection reset"));
    }

    #[test]
    fn on_the_packet_clock_ticks_and_batches_do_not_show() {
        let mut records: Vec<_> = (0..100)
            .map(|n| FlowRecord {
                ended: after(n * 977),
                ..if n % 3 == 0 { record_v6() } else { record_v4() }
            })
            .collect();
        // A clock jump back.
        records[70].ended = after(0);
        let run = |batch: usize| {
            let (mut exporter, collector) = over(1472, false, ExportClock::packets());
            for (number, records) in (1..).zip(records.chunks(batch)) {
                exporter.export(records);
                exporter.tick(later(61 * number), &QUIET);
            }
            exporter.finish(later(0), &QUIET);
            collector
        };
        let (one, other) = (run(7), run(100));
        assert_eq!(*one.messages.lock().expect("no panic"), *other.messages.lock().expect("no panic"));
        assert!(seen(&one).is_sorted_by_key(|message| message.2), "Export Time never goes back");
        assert_eq!(seen(&one).last().map(|m| u64::from(m.2)), Some(after(99 * 977).seconds()));
    }

    #[test]
    fn netflow9_records_more_than_a_day_apart_are_in_different_packets() {
        let (outlet, collector) = collector(1472, true);
        let clock = ExportClock::packets_of_message();
        let mut exporter = TemplateExporter::new(NetFlow9::new(1), outlet, clock, &ExportOptions::default());
        exporter.tick(later(0), &QUIET);
        assert!(collector.messages.lock().expect("no panic").is_empty(), "the time is not known yet");
        let years_later = |record: FlowRecord| FlowRecord {
            start: record.start.plus(Duration::from_secs(400_000_000)),
            end: record.end.plus(Duration::from_secs(400_000_000)),
            ended: record.ended.plus(Duration::from_secs(400_000_000)),
            ..record
        };
        exporter.export(&[record_v4(), record_v4(), years_later(record_v4()), record_v4()]);
        exporter.finish(later(0), &QUIET);
        let messages = collector.messages.lock().expect("no panic");
        let counts: Vec<_> = messages.iter().map(|m| (m[8..12].to_vec(), m[3])).collect();
        let (early, late) = (1_700_000_003_u32.to_be_bytes(), 2_100_000_003_u32.to_be_bytes());
        let expected = [(early, 12), (early, 1), (early, 2), (late, 1), (early, 1), (early, 1)];
        assert_eq!(counts, expected.map(|(seconds, count)| (seconds.to_vec(), count)));
    }

    #[test]
    fn a_record_longer_than_the_clock_of_netflow9_begins_a_packet() {
        let (outlet, collector) = collector(1472, true);
        let clock = ExportClock::packets_of_message();
        let mut exporter = TemplateExporter::new(NetFlow9::new(1), outlet, clock, &ExportOptions::default());
        let longest = FlowRecord { start: Timestamp::EPOCH, ..record_v4() };
        exporter.export(&[record_v4(), longest, longest, record_v4()]);
        exporter.finish(later(0), &QUIET);
        let messages = collector.messages.lock().expect("no panic");
        let data = messages.iter().filter(|m| m[20..22] == [1, 0]);
        assert_eq!(data.map(|m| m[3]).collect::<Vec<_>>(), [1, 1, 2]);
        assert_eq!(exporter.delivery().sent.records, 4);
    }
}
