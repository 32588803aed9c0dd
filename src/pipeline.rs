//! The pipeline: threads, channels, batches, routing by key, and the order of shutdown.
//!
//! ```text
//! intake: read, decode, clock, hash ─batches─► shard: table ─record batches─► exporter, one a destination
//! ```
//!
//! Batches cross channels, not packets, and empty ones come back to be used again. A full channel makes
//! its sender wait, so that memory is bounded and nothing is lost on the way; live, the kernel's ring is the one
//! place where packets are dropped, and counted. Shutdown runs down the path: the intake ends, the shards drain their
//! tables, the exporters flush and close. With no shards all of it happens on the calling thread, without a channel.
//!
//! Files and a single capture thread are one intake, [`Pipeline`]; several capture threads are one each, [`spread`].

pub mod spread;

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use thiserror::Error;

use self::spread::{Heard, Sweep};
use crate::capture::{CaptureDrops, Frame};
use crate::decode::FragmentTable;
use crate::decode::{self, Fragment};
use crate::export::{Exporter, MeteringStatistics};
use crate::flow::{
    ClockStep, FlowRecord, FlowTable, KeyHasher, Observation, ObservationClock, TableError, TableOptions,
};
use crate::stats::{DestinationReport, FrameCounts, RecordCounts, RunReport};
use crate::time::Timestamp;

/// Packets in a batch.
const BATCH: usize = 256;
/// Batches that may wait for a shard.
const WAITING_BATCHES: usize = 16;
/// Records in a batch.
const RECORD_BATCH: usize = 256;
/// Record batches that may wait for an exporter.
const WAITING_RECORD_BATCHES: usize = 64;
/// How often an exporter looks at the clock while no records come.
const EXPORTER_TICK: Duration = Duration::from_millis(200);

/// Which threads do the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// All on the calling thread.
    Inline,
    /// The calling thread reads and decodes, this many shard threads meter, each exporter has its own thread.
    Shards(usize),
}

impl Layout {
    /// The layout that is fastest on this machine for capture files.
    pub fn for_files(cores: usize) -> Layout {
        match cores {
            0 | 1 => Layout::Inline,
            // Reading and decoding cost about what one shard costs; a third busy thread on two cores loses.
            2 | 3 => Layout::Shards(1),
            4..=7 => Layout::Shards(2),
            _ => Layout::Shards(3),
        }
    }

    /// The layout that is best on this machine for a live interface.
    pub fn for_live(cores: usize) -> Layout {
        match cores {
            0..=2 => Layout::Inline,
            3..=5 => Layout::Shards(1),
            _ => Layout::Shards(2),
        }
    }

    /// The layout in words.
    pub fn describe(self) -> String {
        match self {
            Layout::Inline => "inline, 1 thread".to_string(),
            Layout::Shards(1) => "1 shard".to_string(),
            Layout::Shards(n) => format!("{n} shards"),
        }
    }

    /// Flow tables in this layout.
    pub fn tables(self) -> usize {
        match self {
            Layout::Inline => 1,
            Layout::Shards(n) => n.max(1),
        }
    }
}

/// The settings of a pipeline.
#[derive(Clone, Copy, Debug)]
pub struct PipelineOptions {
    /// The threads.
    pub layout: Layout,
    /// Timeouts and size of all tables together.
    pub table: TableOptions,
    /// Whether packets are arriving now: records then go out as they come, and the exporters go by the wall clock.
    pub live: bool,
}

/// Why a pipeline could not run to its end.
#[derive(Debug, Error)]
pub enum PipelineError {
    /// A table could not be made.
    #[error(transparent)]
    Table(#[from] TableError),
    /// A thread could not be started.
    #[error("starting the {thread} thread")]
    Spawn {
        /// The thread's name.
        thread: String,
        /// The system's word.
        source: std::io::Error,
    },
    /// A thread died: a defect of flowtap.
    #[error("the {0} thread died")]
    Died(String),
}

/// One destination and its exporter.
pub struct Destination {
    /// The destination as it was given.
    pub name: String,
    /// What exports to it.
    pub exporter: Box<dyn Exporter>,
    /// The time the exporter goes by.
    pub clock: ExporterClock,
}

/// The time that an exporter is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExporterClock {
    /// The system's: messages that cross a network (RFC 7011 §3.1, Export Time).
    Wall,
    /// The packets' own, so that the same capture gives the same octets.
    Packet,
}

impl ExporterClock {
    fn now(self, clock: Timestamp) -> Timestamp {
        match self {
            ExporterClock::Wall => Timestamp::now(),
            ExporterClock::Packet => clock,
        }
    }
}

impl Destination {
    fn tick(&mut self, clock: Timestamp, metering: &MeteringStatistics) {
        self.exporter.tick(self.clock.now(clock), metering);
    }

    fn finish(mut self, clock: Timestamp, metering: &MeteringStatistics) -> DestinationReport {
        self.exporter.finish(self.clock.now(clock), metering);
        DestinationReport {
            destination: self.name,
            delivery: self.exporter.delivery(),
            failure: self.exporter.failure().map(str::to_string),
        }
    }
}

/// Packets on their way to a shard.
struct Batch {
    observations: Vec<Observation>,
    /// The intake they come from, from 0.
    intake: usize,
    /// The clock at the end of the batch.
    clock: Timestamp,
    /// The intake's last read found nothing more to read.
    dry: bool,
    /// All Flows end after this batch: time has jumped back.
    drain: bool,
    metering: MeteringStatistics,
}

/// Records on their way to the exporters.
struct RecordBatch {
    records: Vec<FlowRecord>,
    clock: Timestamp,
    metering: MeteringStatistics,
}

/// The front of the pipeline: frames in, batches out to the shards.
pub struct Pipeline {
    intake: Intake,
    stage: Stage,
    options: PipelineOptions,
    began: Instant,
    /// Packets that were dropped before they could be read, as far as told.
    dropped: u64,
}

/// Decoding, and all state that must see every packet in order.
struct Intake {
    counts: FrameCounts,
    fragments: FragmentTable,
    clock: ObservationClock,
    hasher: KeyHasher,
}

/// Where batches go.
enum Stage {
    Inline(Box<Inline>),
    Sharded(Sharded),
}

struct Inline {
    batch: Vec<Observation>,
    meter: Meter,
    records: Vec<FlowRecord>,
    destinations: Vec<Destination>,
    last_tick: Instant,
}

struct Sharded {
    lanes: Lanes,
    threads: Threads,
}

/// The ways of one intake to all shards.
struct Lanes {
    lanes: Vec<Lane>,
    intake: usize,
    /// Packets read since every shard last heard the clock.
    since_clock: usize,
}

/// The way to one shard.
struct Lane {
    batch: Vec<Observation>,
    to: Sender<Batch>,
    back: Receiver<Vec<Observation>>,
}

/// The threads behind the intakes.
struct Threads {
    shards: Vec<JoinHandle<RecordCounts>>,
    exporters: Vec<(String, JoinHandle<DestinationReport>)>,
}

/// A table and the counts of what it reported.
struct Meter {
    table: FlowTable,
    counts: RecordCounts,
}

impl Meter {
    #[inline]
    fn take(
        &mut self,
        observations: &[Observation],
        clock: Timestamp,
        drain: bool,
        mut sink: impl FnMut(FlowRecord),
    ) {
        let counts = &mut self.counts;
        let mut sink = |record: FlowRecord| {
            counts.add(&record);
            sink(record);
        };
        self.table.observe(observations, &mut sink);
        if drain {
            self.table.drain(clock, &mut sink);
        } else {
            self.table.expire(clock, &mut sink);
        }
        self.counts.evicted = self.table.evicted();
    }
}

impl Pipeline {
    /// Makes the tables and starts the threads.
    ///
    /// # Errors
    /// When the memory or the threads cannot be had.
    pub fn start(
        options: PipelineOptions,
        destinations: Vec<Destination>,
    ) -> Result<Pipeline, PipelineError> {
        let tables = options.layout.tables();
        // A shard's share is rounded up: the sum is never less than what was asked for.
        let share = TableOptions { max_flows: options.table.max_flows.div_ceil(tables), ..options.table };
        let meter = || -> Result<Meter, PipelineError> {
            Ok(Meter { table: FlowTable::new(&share)?, counts: RecordCounts::default() })
        };
        let stage = match options.layout {
            Layout::Inline => Stage::Inline(Box::new(Inline {
                batch: Vec::with_capacity(BATCH),
                meter: meter()?,
                records: Vec::with_capacity(RECORD_BATCH),
                destinations,
                last_tick: Instant::now(),
            })),
            Layout::Shards(_) => {
                let meters = (0..tables).map(|_| meter()).collect::<Result<Vec<_>, _>>()?;
                let (threads, mut lanes) = Threads::start(meters, destinations, options.live, 1)?;
                let lanes = lanes.pop().expect("as many lanes as intakes, one");
                Stage::Sharded(Sharded { lanes, threads })
            }
        };
        let intake = Intake {
            counts: FrameCounts::default(),
            fragments: FragmentTable::new(),
            clock: ObservationClock::new(options.table.timeouts.active),
            hasher: KeyHasher::new(),
        };
        Ok(Pipeline { intake, stage, options, began: Instant::now(), dropped: 0 })
    }

    /// Takes one frame.
    #[inline]
    pub fn frame(&mut self, frame: &Frame<'_>) {
        let intake = &mut self.intake;
        intake.counts.frames += 1;
        intake.counts.wire_octets += u64::from(frame.wire_length);
        let mut packet = match decode::decode(frame) {
            Ok(packet) => packet,
            Err(reason) => return intake.counts.ignore(reason, frame.timestamp, frame.wire_length),
        };
        intake.counts.metered += 1;
        let clock = match intake.clock.observe(packet.timestamp) {
            ClockStep::At(clock) => clock,
            ClockStep::Jumped { before, now } => {
                intake.fragments.clear();
                self.stage.flush(before, true, &intake.counts.metering, self.options.live);
                now
            }
        };
        if packet.fragment != Fragment::Whole {
            intake.fragments.resolve(&mut packet);
        }
        let hash = intake.hasher.hash(&packet);
        let observation = Observation { packet, clock, hash };
        match &mut self.stage {
            Stage::Inline(inline) => {
                inline.batch.push(observation);
                if inline.batch.len() == BATCH {
                    inline.flush(clock, false, &intake.counts.metering, self.options.live);
                }
            }
            Stage::Sharded(sharded) => sharded.lanes.route(observation, &intake.counts.metering),
        }
    }

    /// Hands on all that waits and lets every shard and exporter know the time: after a read that brought nothing.
    /// `quiet_since` is the time by which packets that are still on their way are allowed for.
    pub fn quiet(&mut self, clock: Option<Timestamp>) {
        if let Some(clock) = clock {
            self.intake.clock.advance(clock);
        }
        let now = self.intake.clock.now();
        self.stage.flush(now, false, &self.intake.counts.metering, self.options.live);
    }

    /// The observation clock.
    pub fn clock(&self) -> Timestamp {
        self.intake.clock.now()
    }

    /// What became of the frames so far.
    pub fn counts(&self) -> &FrameCounts {
        &self.intake.counts
    }

    /// Tells what was dropped so far before it could be read, so that the collectors hear of it (RFC 7011 §4.2).
    pub fn dropped(&mut self, drops: CaptureDrops) {
        count_drops(&mut self.intake.counts, &mut self.dropped, drops);
    }

    /// Whether a thread has died, so that there is nothing left but to end.
    pub fn is_broken(&self) -> bool {
        match &self.stage {
            Stage::Inline(_) => false,
            Stage::Sharded(sharded) => sharded.threads.is_broken(),
        }
    }

    /// Ends all Flows, flushes and closes the destinations and says what happened.
    ///
    /// # Errors
    /// When a thread had died.
    pub fn finish(mut self) -> Result<RunReport, PipelineError> {
        let clock = self.intake.clock.now();
        let metering = self.intake.counts.metering;
        self.stage.flush(clock, true, &metering, self.options.live);
        let (records, destinations) = match self.stage {
            Stage::Inline(inline) => inline.finish(clock, &metering),
            Stage::Sharded(Sharded { lanes, threads }) => {
                drop(lanes);
                threads.finish()?
            }
        };
        Ok(RunReport {
            frames: self.intake.counts,
            records,
            clock_resets: self.intake.clock.jumps(),
            layout: self.options.layout.describe(),
            destinations,
            elapsed: self.began.elapsed(),
            ..RunReport::default()
        })
    }
}

/// Counts what was dropped since `before`, which then stands at the sum of `drops`, as ignored.
fn count_drops(counts: &mut FrameCounts, before: &mut u64, drops: CaptureDrops) {
    let dropped = drops.dropped_by_kernel + drops.dropped_by_interface;
    let metering = &mut counts.metering;
    if dropped > *before {
        metering.ignored_packets += dropped - *before;
        *before = dropped;
        let now = Timestamp::now();
        metering.first_ignored.get_or_insert(now);
        metering.last_ignored = Some(now);
    }
}

impl Stage {
    fn flush(&mut self, clock: Timestamp, drain: bool, metering: &MeteringStatistics, live: bool) {
        match self {
            Stage::Inline(inline) => inline.flush(clock, drain, metering, live),
            Stage::Sharded(sharded) => sharded.lanes.flush(clock, false, drain, metering),
        }
    }
}

impl Inline {
    fn flush(&mut self, clock: Timestamp, drain: bool, metering: &MeteringStatistics, live: bool) {
        let (records, destinations) = (&mut self.records, &mut self.destinations);
        let mut hand_over = |records: &mut Vec<FlowRecord>| {
            for destination in destinations.iter_mut() {
                destination.exporter.export(records);
            }
            records.clear();
        };
        self.meter.take(&self.batch, clock, drain, |record| {
            records.push(record);
            if records.len() == RECORD_BATCH {
                hand_over(records);
            }
        });
        self.batch.clear();
        if live && !records.is_empty() {
            hand_over(records);
        }
        let wall_tick = self.last_tick.elapsed() >= EXPORTER_TICK;
        for destination in &mut self.destinations {
            if wall_tick || destination.clock == ExporterClock::Packet {
                destination.tick(clock, metering);
            }
        }
        if wall_tick {
            self.last_tick = Instant::now();
        }
    }

    fn finish(
        mut self: Box<Self>,
        clock: Timestamp,
        metering: &MeteringStatistics,
    ) -> (RecordCounts, Vec<DestinationReport>) {
        let reports = self
            .destinations
            .drain(..)
            .map(|mut destination| {
                destination.exporter.export(&self.records);
                destination.finish(clock, metering)
            })
            .collect();
        (self.meter.counts, reports)
    }
}

fn spawn<T: Send + 'static>(
    name: String,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, PipelineError> {
    thread::Builder::new()
        .name(name.clone())
        .spawn(work)
        .map_err(|source| PipelineError::Spawn { thread: name, source })
}

impl Threads {
    /// Starts the threads; gives the lanes of each intake.
    fn start(
        meters: Vec<Meter>,
        destinations: Vec<Destination>,
        live: bool,
        intakes: usize,
    ) -> Result<(Threads, Vec<Lanes>), PipelineError> {
        let mut exporters = Vec::new();
        let mut to_exporters = Vec::new();
        let (give_back, record_buffers) = bounded(2 * WAITING_RECORD_BATCHES);
        for destination in destinations {
            let (to, from) = bounded(WAITING_RECORD_BATCHES);
            let give_back = give_back.clone();
            let name = destination.name.clone();
            let thread =
                spawn(format!("exporter {name}"), move || run_exporter(destination, &from, &give_back))?;
            to_exporters.push(to);
            exporters.push((name, thread));
        }
        let mut lanes: Vec<Lanes> =
            (0..intakes).map(|intake| Lanes { lanes: Vec::new(), intake, since_clock: 0 }).collect();
        let mut shards = Vec::new();
        for (number, meter) in meters.into_iter().enumerate() {
            let (to, from) = bounded(WAITING_BATCHES);
            // As many as there can be: waiting, in work here, and being filled at each intake.
            let (give_back, back) = bounded(WAITING_BATCHES + 1 + intakes);
            let out = RecordLane {
                to: to_exporters.clone(),
                buffers: record_buffers.clone(),
                records: Vec::with_capacity(RECORD_BATCH),
            };
            let heard = Heard::new(intakes);
            shards.push(spawn(format!("shard {number}"), move || {
                run_shard(meter, heard, &from, &give_back, out, live)
            })?);
            for lanes in &mut lanes {
                let batch = Vec::with_capacity(BATCH);
                lanes.lanes.push(Lane { batch, to: to.clone(), back: back.clone() });
            }
        }
        Ok((Threads { shards, exporters }, lanes))
    }

    /// Whether a thread has ended before its time.
    fn is_broken(&self) -> bool {
        self.shards.iter().any(JoinHandle::is_finished)
            || self.exporters.iter().any(|(_, thread)| thread.is_finished())
    }

    /// Waits for the threads, whose lanes must be gone.
    fn finish(self) -> Result<(RecordCounts, Vec<DestinationReport>), PipelineError> {
        let mut counts = RecordCounts::default();
        for (number, thread) in self.shards.into_iter().enumerate() {
            let shard = thread.join().map_err(|_| PipelineError::Died(format!("shard {number}")))?;
            counts.merge(&shard);
        }
        let mut reports = Vec::new();
        for (name, thread) in self.exporters {
            let died = PipelineError::Died(format!("exporter {name}"));
            reports.push(thread.join().map_err(|_| died)?);
        }
        Ok((counts, reports))
    }
}

impl Lanes {
    #[inline]
    fn route(&mut self, observation: Observation, metering: &MeteringStatistics) {
        let shards = self.lanes.len();
        let lane = &mut self.lanes[observation.hash.shard(shards)];
        lane.batch.push(observation);
        if lane.batch.len() == BATCH {
            lane.send(self.intake, observation.clock, false, false, metering);
        }
        self.since_clock += 1;
        if self.since_clock == BATCH * 4 * shards {
            // A shard whose Flows are quiet must still hear that time goes on.
            self.since_clock = 0;
            if shards > 1 {
                self.flush(observation.clock, false, false, metering);
            }
        }
    }

    fn flush(&mut self, clock: Timestamp, dry: bool, drain: bool, metering: &MeteringStatistics) {
        for lane in &mut self.lanes {
            lane.send(self.intake, clock, dry, drain, metering);
        }
    }
}

impl Lane {
    fn send(
        &mut self,
        intake: usize,
        clock: Timestamp,
        dry: bool,
        drain: bool,
        metering: &MeteringStatistics,
    ) {
        let empty = self.back.try_recv().unwrap_or_else(|_| Vec::with_capacity(BATCH));
        let observations = std::mem::replace(&mut self.batch, empty);
        // A shard hangs up only when it has died; `finish` finds that out and says so.
        let _ = self.to.send(Batch { observations, intake, clock, dry, drain, metering: *metering });
    }
}

/// The way from a shard to the exporters.
struct RecordLane {
    to: Vec<Sender<Arc<RecordBatch>>>,
    buffers: Receiver<Vec<FlowRecord>>,
    records: Vec<FlowRecord>,
}

impl RecordLane {
    fn send(&mut self, clock: Timestamp, metering: &MeteringStatistics) {
        let empty = self.buffers.try_recv().unwrap_or_else(|_| Vec::with_capacity(RECORD_BATCH));
        let records = std::mem::replace(&mut self.records, empty);
        let batch = Arc::new(RecordBatch { records, clock, metering: *metering });
        for exporter in &self.to {
            let _ = exporter.send(Arc::clone(&batch));
        }
    }
}

fn run_shard(
    mut meter: Meter,
    mut heard: Heard,
    from: &Receiver<Batch>,
    give_back: &Sender<Vec<Observation>>,
    mut out: RecordLane,
    live: bool,
) -> RecordCounts {
    let mut last_sent = Timestamp::EPOCH;
    for mut batch in from {
        let Sweep { clock, metering } = heard.hear(&batch);
        meter.take(&batch.observations, clock, batch.drain, |record| {
            out.records.push(record);
            if out.records.len() == RECORD_BATCH {
                out.send(clock, &metering);
            }
        });
        // Live, records do not wait for a batch to fill; in a replay the exporters still hear that time goes on.
        let waited = clock.since(last_sent) >= Duration::from_secs(1);
        if (live && !out.records.is_empty()) || batch.drain || waited {
            out.send(clock, &metering);
            last_sent = clock;
        }
        batch.observations.clear();
        let _ = give_back.try_send(batch.observations);
    }
    // A single intake has ended all Flows itself; of several none knows that it is the last.
    if heard.is_several() {
        let Sweep { clock, metering } = heard.last();
        meter.take(&[], clock, true, |record| {
            out.records.push(record);
            if out.records.len() == RECORD_BATCH {
                out.send(clock, &metering);
            }
        });
        out.send(clock, &metering);
    }
    meter.counts
}

fn run_exporter(
    mut destination: Destination,
    from: &Receiver<Arc<RecordBatch>>,
    give_back: &Sender<Vec<FlowRecord>>,
) -> DestinationReport {
    let mut clock = Timestamp::EPOCH;
    let mut metering = MeteringStatistics::default();
    let mut last_tick = Instant::now();
    loop {
        match from.recv_timeout(EXPORTER_TICK) {
            Ok(batch) => {
                destination.exporter.export(&batch.records);
                clock = clock.max(batch.clock);
                metering = batch.metering;
                if let Ok(RecordBatch { mut records, .. }) = Arc::try_unwrap(batch) {
                    records.clear();
                    let _ = give_back.try_send(records);
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return destination.finish(clock, &metering),
        }
        match destination.clock {
            // Every batch brings the time, and nothing else does: runs repeat.
            ExporterClock::Packet => destination.tick(clock, &metering),
            ExporterClock::Wall if last_tick.elapsed() >= EXPORTER_TICK => {
                destination.tick(clock, &metering);
                last_tick = Instant::now();
            }
            ExporterClock::Wall => {}
        }
    }
}
