//! What the threads of a run show while it runs: the counts each keeps, copied out once a batch.
//!
//! In: each thread's own counts, stored into atomics that no other thread writes, on cache lines of their own. Out: a
//! reading of all of them, for the metrics, the status, the log and the watchdog. A store a batch with relaxed order costs the
//! packet path nothing that can be measured; counts read at one moment may be a batch apart from each other.
//!
//! Every thread also beats: a number that goes up while it gets on with its work, or has none. One that does not is stuck.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use crate::capture::CaptureDrops;
use crate::decode::Ignored;
use crate::export::{Delivery, Exporter, MeteringStatistics, Tally};
use crate::flow::FlowRecord;
use crate::stats::{FrameCounts, RecordCounts};
use crate::time::Timestamp;

/// All gauges of a run.
#[derive(Debug)]
pub struct Gauges {
    /// The threads that read and decode.
    pub intakes: Vec<Arc<IntakeGauges>>,
    /// The flow tables.
    pub shards: Vec<Arc<ShardGauges>>,
    /// The destinations, by name.
    pub exporters: Vec<(String, Arc<ExporterGauges>)>,
    /// Whether tables and exporters have threads of their own.
    pub threaded: bool,
    /// When the run began.
    pub began: Instant,
}

/// What a thread that reads and decodes has counted.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct IntakeGauges {
    beat: AtomicU64,
    frames: AtomicU64,
    octets: AtomicU64,
    metered: AtomicU64,
    ignored: [AtomicU64; Ignored::ALL.len()],
    ignored_octets: AtomicU64,
    received: AtomicU64,
    dropped_by_kernel: AtomicU64,
    dropped_by_interface: AtomicU64,
}

/// What a flow table has counted.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct ShardGauges {
    beat: AtomicU64,
    live: AtomicU64,
    capacity: AtomicU64,
    records: AtomicU64,
    packets: AtomicU64,
    octets: AtomicU64,
    by_reason: [AtomicU64; 5],
    evicted: AtomicU64,
    /// Batches that wait for it.
    pub channel: Channel,
}

/// What an exporter has counted.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct ExporterGauges {
    beat: AtomicU64,
    sent: TallyGauge,
    lost: TallyGauge,
    unsupported: TallyGauge,
    messages: AtomicU64,
    message_octets: AtomicU64,
    template_refreshes: AtomicU64,
    /// The one thing that is told here and not asked: the file is to be opened again.
    reopen: AtomicBool,
    /// Record batches that wait for it.
    pub channel: Channel,
}

/// How full a channel is. Its senders write this, so it has a cache line of its own, and a stuck receiver shows.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Channel {
    waiting: AtomicU64,
    capacity: AtomicU64,
}

#[derive(Debug, Default)]
struct TallyGauge {
    records: AtomicU64,
    packets: AtomicU64,
    octets: AtomicU64,
}

/// Everything that all intakes have counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IntakeReading {
    /// Frames read.
    pub frames: u64,
    /// Their octets on the wire.
    pub octets: u64,
    /// Frames that are metered.
    pub metered: u64,
    /// Frames that are not, in the order of [`Ignored::ALL`].
    pub ignored: [u64; Ignored::ALL.len()],
    /// The octets of those that are not.
    pub ignored_octets: u64,
    /// What the kernel and the interface say.
    pub capture: CaptureDrops,
}

/// What a flow table has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardReading {
    /// Live Flows.
    pub live: u64,
    /// The most Flows that may be live.
    pub capacity: u64,
    /// Records, and what is in them.
    pub counts: RecordCounts,
}

/// What an exporter has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExporterReading {
    /// What became of the records.
    pub delivery: Delivery,
    /// How often templates were sent, the first time included.
    pub template_refreshes: u64,
}

fn set(gauge: &AtomicU64, value: u64) {
    gauge.store(value, Ordering::Relaxed);
}

fn get(gauge: &AtomicU64) -> u64 {
    gauge.load(Ordering::Relaxed)
}

/// One writer, so no read-modify-write is needed.
fn beat(gauge: &AtomicU64) {
    set(gauge, get(gauge).wrapping_add(1));
}

impl IntakeGauges {
    /// Stores what the intake has counted so far.
    pub fn set(&self, counts: &FrameCounts) {
        beat(&self.beat);
        set(&self.frames, counts.frames);
        set(&self.octets, counts.wire_octets);
        set(&self.metered, counts.metered());
        for (gauge, count) in self.ignored.iter().zip(counts.ignored) {
            set(gauge, count);
        }
        set(&self.ignored_octets, counts.metering.ignored_octets);
    }

    /// Stores what the kernel says of this capture so far.
    pub fn set_capture(&self, drops: CaptureDrops) {
        set(&self.received, drops.received);
        set(&self.dropped_by_kernel, drops.dropped_by_kernel);
        set(&self.dropped_by_interface, drops.dropped_by_interface);
    }
}

impl ShardGauges {
    /// Stores what the table has counted so far.
    pub fn set(&self, counts: &RecordCounts, live: usize) {
        beat(&self.beat);
        set(&self.live, live as u64);
        set(&self.records, counts.records);
        set(&self.packets, counts.packets);
        set(&self.octets, counts.octets);
        for (gauge, count) in self.by_reason.iter().zip(counts.by_reason) {
            set(gauge, count);
        }
        set(&self.evicted, counts.evicted);
    }

    /// Stores how many Flows the table may hold.
    pub fn set_capacity(&self, flows: usize) {
        set(&self.capacity, flows as u64);
    }

    /// What is stored.
    pub fn read(&self) -> ShardReading {
        ShardReading {
            live: get(&self.live),
            capacity: get(&self.capacity),
            counts: RecordCounts {
                records: get(&self.records),
                packets: get(&self.packets),
                octets: get(&self.octets),
                by_reason: std::array::from_fn(|at| get(&self.by_reason[at])),
                evicted: get(&self.evicted),
            },
        }
    }
}

impl ExporterGauges {
    /// Stores what became of the records so far.
    pub fn set(&self, delivery: &Delivery, template_refreshes: u64) {
        self.sent.set(&delivery.sent);
        self.lost.set(&delivery.lost);
        self.unsupported.set(&delivery.unsupported);
        set(&self.messages, delivery.messages);
        set(&self.message_octets, delivery.message_octets);
        set(&self.template_refreshes, template_refreshes);
    }

    /// Whether the file is to be opened again; asking once takes the wish away.
    pub fn takes_reopen(&self) -> bool {
        self.reopen.load(Ordering::Relaxed) && self.reopen.swap(false, Ordering::Relaxed)
    }

    /// What is stored.
    pub fn read(&self) -> ExporterReading {
        ExporterReading {
            delivery: Delivery {
                sent: self.sent.read(),
                lost: self.lost.read(),
                unsupported: self.unsupported.read(),
                messages: get(&self.messages),
                message_octets: get(&self.message_octets),
            },
            template_refreshes: get(&self.template_refreshes),
        }
    }
}

/// An exporter whose counts are shown and whose ticks are beats: it ticks after each batch and, live, several times a second.
pub struct Shown {
    exporter: Box<dyn Exporter>,
    gauges: Arc<ExporterGauges>,
}

impl Shown {
    /// `exporter`, showing itself in `gauges`.
    pub fn new(exporter: Box<dyn Exporter>, gauges: &Arc<ExporterGauges>) -> Shown {
        Shown { exporter, gauges: Arc::clone(gauges) }
    }

    fn show(&self) {
        self.gauges.set(&self.exporter.delivery(), self.exporter.template_refreshes());
    }
}

impl Exporter for Shown {
    fn export(&mut self, records: &[FlowRecord]) {
        self.exporter.export(records);
    }

    fn is_light(&self) -> bool {
        self.exporter.is_light()
    }

    fn tick(&mut self, now: Timestamp, metering: &MeteringStatistics) {
        if self.gauges.takes_reopen() {
            self.exporter.reopen(now);
        }
        self.exporter.tick(now, metering);
        self.show();
        beat(&self.gauges.beat);
    }

    fn send_waiting(&mut self, now: Timestamp) {
        self.exporter.send_waiting(now);
        self.show();
    }

    fn reopen(&mut self, now: Timestamp) {
        self.exporter.reopen(now);
    }

    fn finish(&mut self, now: Timestamp, metering: &MeteringStatistics) {
        self.exporter.finish(now, metering);
        self.show();
    }

    fn delivery(&self) -> Delivery {
        self.exporter.delivery()
    }

    fn template_refreshes(&self) -> u64 {
        self.exporter.template_refreshes()
    }

    fn failure(&self) -> Option<&str> {
        self.exporter.failure()
    }
}

impl TallyGauge {
    fn set(&self, tally: &Tally) {
        set(&self.records, tally.records);
        set(&self.packets, tally.packets);
        set(&self.octets, tally.octets);
    }

    fn read(&self) -> Tally {
        Tally { records: get(&self.records), packets: get(&self.packets), octets: get(&self.octets) }
    }
}

impl Channel {
    /// Stores how many batches wait of how many that may.
    pub fn set(&self, waiting: usize, capacity: Option<usize>) {
        set(&self.waiting, waiting as u64);
        set(&self.capacity, capacity.unwrap_or(0) as u64);
    }

    /// Batches that wait, and that may.
    pub fn read(&self) -> (u64, u64) {
        (get(&self.waiting), get(&self.capacity))
    }
}

impl Gauges {
    /// Gauges at zero.
    pub fn new(intakes: usize, tables: usize, exporters: Vec<String>, threaded: bool) -> Gauges {
        Gauges {
            intakes: (0..intakes).map(|_| Arc::default()).collect(),
            shards: (0..tables).map(|_| Arc::default()).collect(),
            exporters: exporters.into_iter().map(|name| (name, Arc::default())).collect(),
            threaded,
            began: Instant::now(),
        }
    }

    /// The sum of what the intakes have counted.
    pub fn intake(&self) -> IntakeReading {
        let mut sum = IntakeReading::default();
        for one in &self.intakes {
            sum.frames += get(&one.frames);
            sum.octets += get(&one.octets);
            sum.metered += get(&one.metered);
            for (sum, gauge) in sum.ignored.iter_mut().zip(&one.ignored) {
                *sum += get(gauge);
            }
            sum.ignored_octets += get(&one.ignored_octets);
            sum.capture.received += get(&one.received);
            sum.capture.dropped_by_kernel += get(&one.dropped_by_kernel);
            sum.capture.dropped_by_interface += get(&one.dropped_by_interface);
        }
        sum
    }

    /// The sum of what the tables have counted.
    pub fn records(&self) -> RecordCounts {
        let mut sum = RecordCounts::default();
        for shard in &self.shards {
            sum.merge(&shard.read().counts);
        }
        sum
    }

    /// Flows so far: those that have ended and those that are open.
    pub fn flows(&self) -> u64 {
        self.shards.iter().map(|shard| shard.read()).map(|shard| shard.counts.records + shard.live).sum()
    }

    /// Each thread's name and its beat.
    pub fn beats(&self) -> Vec<(String, u64)> {
        let intakes = self.intakes.iter().enumerate().map(|(number, one)| match self.intakes.len() {
            1 => ("intake".to_string(), get(&one.beat)),
            _ => (format!("intake {number}"), get(&one.beat)),
        });
        let mut beats: Vec<_> = intakes.collect();
        if self.threaded {
            let shards = self.shards.iter().enumerate();
            beats.extend(shards.map(|(number, one)| (format!("shard {number}"), get(&one.beat))));
            beats.extend(
                self.exporters.iter().map(|(name, one)| (format!("exporter {name}"), get(&one.beat))),
            );
        }
        beats
    }

    /// Asks every exporter to open its file again.
    pub fn ask_reopen(&self) {
        for (_, exporter) in &self.exporters {
            exporter.reopen.store(true, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_read_and_summed() {
        let gauges = Gauges::new(2, 2, vec!["csv:-".to_string()], true);
        let counts =
            FrameCounts { frames: 10, wire_octets: 900, ignored: [1, 2, 0, 0], ..Default::default() };
        gauges.intakes[0].set(&counts);
        gauges.intakes[1].set(&counts);
        let reading = gauges.intake();
        assert_eq!((reading.frames, reading.metered, reading.ignored), (20, 14, [2, 4, 0, 0]));
        assert_eq!(reading.ignored_octets, 0);
        let records =
            RecordCounts { records: 3, packets: 5, octets: 7, by_reason: [1, 1, 1, 0, 0], evicted: 1 };
        gauges.shards[1].set(&records, 9);
        assert_eq!(gauges.records(), records);
        assert_eq!(gauges.shards[1].read().live, 9);
    }

    #[test]
    fn a_thread_that_counts_beats_and_one_that_does_not_stands_still() {
        let gauges = Gauges::new(1, 1, vec!["csv:-".to_string()], true);
        let before = gauges.beats();
        assert_eq!(
            before.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
            ["intake", "shard 0", "exporter csv:-"]
        );
        gauges.shards[0].set(&RecordCounts::default(), 0);
        let after = gauges.beats();
        assert_eq!(after[0], before[0]);
        assert_ne!(after[1], before[1]);
    }

    #[test]
    fn a_wish_to_reopen_is_taken_once() {
        let gauges = Gauges::new(1, 1, vec!["csv:-".to_string()], true);
        assert!(!gauges.exporters[0].1.takes_reopen());
        gauges.ask_reopen();
        assert!(gauges.exporters[0].1.takes_reopen());
        assert!(!gauges.exporters[0].1.takes_reopen());
    }
}
