//! The pipeline: threads, channels, batches, routing by key, and the order of shutdown.
//!
//! ```text
//! intake: read, decode, clock, hash ─batches─► shard: table ─record batches─► exporter, one a destination
//! ```
//!
//! Batches cross channels, not packets, and empty ones come back to be used again. A full channel makes
//! its sender wait, so that memory is bounded and nothing is lost on the way; live, the kernel's ring is the one
//! place where packets are dropped, and counted. Shutdown runs down the path: the intake ends, the shards drain their
//! tables, the exporters flush and close. With no shards all of it happens on the calling thread, without a channel; with one,
//! its exporters run on its thread if all are light ([`Exporter::is_light`]).
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
use crate::flow::record::RecordSink;
use crate::flow::{
    ClockStep, FlowRecord, FlowTable, KeyHasher, ObservationClock, Observations, TableError, TableOptions,
};
use crate::gauges::{ExporterGauges, Gauges, IntakeGauges, ShardGauges, Shown};
use crate::stats::{DestinationReport, FrameCounts, RecordCounts, RunReport};
use crate::time::Timestamp;

/// Packets in a batch that crosses to a shard: so many that waking it up costs little.
const BATCH: usize = 2048;
/// Packets in a batch that stays on its thread: so few that it stays in the first cache.
const INLINE_BATCH: usize = 256;
/// Batches that may wait for a shard.
const WAITING_BATCHES: usize = 16;
/// Empty batches that a busy shard gives back at once: an intake that waits for one is then woken up for several.
const GIVEN_BACK: usize = 4;
/// Records in a batch that crosses to an exporter's thread.
const RECORD_BATCH: usize = 256;
/// Records in a batch that stays on its thread, and in the first cache.
const INLINE_RECORD_BATCH: usize = 64;
/// Record batches that may wait for an exporter.
const WAITING_RECORD_BATCHES: usize = 64;
/// How often an exporter looks at the clock while no records come.
const EXPORTER_TICK: Duration = Duration::from_millis(200);

/// Which threads do the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// All on the calling thread.
    Inline,
    /// The calling thread reads and decodes, this many shard threads meter, each exporter has its own thread; light ones
    /// ([`Exporter::is_light`]) of a single shard run on its thread.
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
    /// The packets' own, so that the same capture gives the same octets, with one table; with more, the same records.
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

/// Records that wait to be a batch: slots that the table writes in place, filled from the front.
struct RecordSlots {
    records: Box<[FlowRecord]>,
    filled: usize,
}

impl RecordSlots {
    /// `length` empty slots, at least one.
    fn new(length: usize) -> RecordSlots {
        RecordSlots { records: vec![FlowRecord::default(); length].into(), filled: 0 }
    }

    fn filled(&self) -> &[FlowRecord] {
        &self.records[..self.filled]
    }
}

/// Takes a table's records into slots, counts them, and hands the slots to `full` whenever there is no room left.
struct Reported<'a, F> {
    slots: &'a mut RecordSlots,
    counts: &'a mut RecordCounts,
    full: F,
}

impl<F: FnMut(&mut RecordSlots)> RecordSink for Reported<'_, F> {
    #[inline(always)]
    fn put(&mut self, write: impl FnOnce(&mut FlowRecord)) {
        let record = &mut self.slots.records[self.slots.filled];
        write(record);
        self.counts.add(record);
        self.slots.filled += 1;
        if self.slots.filled == self.slots.records.len() {
            (self.full)(self.slots);
            self.slots.filled = 0;
        }
    }
}

/// What stands at the end of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BatchEnd {
    /// Nothing: more packets may wait to be read.
    More,
    /// There was nothing more to read.
    Dry,
    /// All Flows end here: time has jumped back, or the input is at its end.
    Drain,
}

/// Packets on their way to a shard.
struct Batch {
    observations: Observations,
    /// The intake it comes from, from 0.
    intake: usize,
    /// How often time had jumped back for that intake.
    era: u64,
    /// The clock at the end of the batch.
    clock: Timestamp,
    end: BatchEnd,
    metering: MeteringStatistics,
}

/// Records on their way to the exporters.
struct RecordBatch {
    records: RecordSlots,
    clock: Timestamp,
    metering: MeteringStatistics,
}

/// The front of the pipeline: frames in, batches out to the shards.
pub struct Pipeline {
    intake: Intake,
    /// What waits for each table.
    waiting: Vec<Observations>,
    /// Packets in a batch.
    batch: usize,
    stage: Stage,
    options: PipelineOptions,
    gauges: Arc<Gauges>,
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

/// A table and its exporters on one thread: the calling one, or that of the one shard.
struct Inline {
    meter: Meter,
    records: RecordSlots,
    destinations: Vec<Destination>,
    last_tick: Instant,
}

struct Sharded {
    lanes: Vec<Lane>,
    /// Batches sent since every shard last heard the clock.
    since_clock: usize,
    threads: Threads,
}

/// The way of one intake to one shard.
struct Lane {
    intake: usize,
    /// How often time has jumped back for it.
    era: u64,
    to: Sender<Batch>,
    back: Receiver<Observations>,
    /// Batches that were made for this lane, the one being filled included.
    made: usize,
    gauges: Arc<ShardGauges>,
}

/// The threads behind the intakes.
struct Threads {
    /// With the reports of the exporters that run on their threads.
    shards: Vec<JoinHandle<(RecordCounts, Vec<DestinationReport>)>>,
    exporters: Vec<(String, JoinHandle<DestinationReport>)>,
}

/// A table and the counts of what it reported.
struct Meter {
    table: FlowTable,
    counts: RecordCounts,
    gauges: Arc<ShardGauges>,
}

impl Meter {
    fn new(options: &TableOptions, gauges: &Arc<ShardGauges>) -> Result<Meter, PipelineError> {
        gauges.set_capacity(options.max_flows);
        let table = FlowTable::new(options)?;
        Ok(Meter { table, counts: RecordCounts::default(), gauges: Arc::clone(gauges) })
    }

    #[inline]
    fn take(
        &mut self,
        observations: &Observations,
        clock: Timestamp,
        drain: bool,
        slots: &mut RecordSlots,
        full: impl FnMut(&mut RecordSlots),
    ) {
        let mut sink = Reported { slots, counts: &mut self.counts, full };
        self.table.observe(observations, &mut sink);
        if drain {
            self.table.drain(clock, &mut sink);
        } else {
            self.table.expire(clock, &mut sink);
        }
        self.counts.evicted = self.table.evicted();
        self.gauges.set(&self.counts, self.table.live());
    }
}

/// The destinations, each showing itself in its gauges.
fn shown(destinations: Vec<Destination>, gauges: &Gauges) -> Vec<Destination> {
    let show = |(one, (_, gauges)): (Destination, &(String, Arc<ExporterGauges>))| Destination {
        exporter: Box::new(Shown::new(one.exporter, gauges)),
        ..one
    };
    destinations.into_iter().zip(&gauges.exporters).map(show).collect()
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
        // Rounded down: all tables together hold no more than was asked for.
        let share = TableOptions { max_flows: (options.table.max_flows / tables).max(1), ..options.table };
        let names = destinations.iter().map(|one| one.name.clone()).collect();
        let gauges = Arc::new(Gauges::new(1, tables, names, options.layout != Layout::Inline));
        let destinations = shown(destinations, &gauges);
        let meter = |number: usize| Meter::new(&share, &gauges.shards[number]);
        let stage = match options.layout {
            Layout::Inline => Stage::Inline(Box::new(Inline::new(meter(0)?, destinations))),
            Layout::Shards(_)
                if tables == 1
                    && !options.live
                    && destinations.iter().all(|destination| destination.exporter.is_light()) =>
            {
                let inline = Inline::new(meter(0)?, destinations);
                let (threads, lane) = Threads::start_one(inline)?;
                Stage::Sharded(Sharded { lanes: vec![lane], since_clock: 0, threads })
            }
            Layout::Shards(_) => {
                let meters = (0..tables).map(meter).collect::<Result<Vec<_>, _>>()?;
                let (threads, mut lanes) = Threads::start(meters, destinations, &gauges, options.live)?;
                let lanes = lanes.pop().expect("as many as intakes, one");
                Stage::Sharded(Sharded { lanes, since_clock: 0, threads })
            }
        };
        let intake = Intake {
            counts: FrameCounts::default(),
            fragments: FragmentTable::new(),
            clock: ObservationClock::new(options.table.timeouts.active),
            hasher: KeyHasher::new(),
        };
        let batch = if options.layout == Layout::Inline { INLINE_BATCH } else { BATCH };
        let waiting = (0..tables).map(|_| Observations::with_capacity(batch)).collect();
        Ok(Pipeline { intake, waiting, batch, stage, options, gauges, dropped: 0 })
    }

    /// Takes frames, in the order they were captured.
    #[inline]
    pub fn frames<'a>(&mut self, frames: impl Iterator<Item = Frame<'a>>) {
        self.take(frames);
        self.gauges.intakes[0].set(&self.intake.counts);
    }

    /// Takes one frame. It shows in the gauges only after a read that found no more, or when the drops are told.
    #[inline]
    pub fn frame(&mut self, frame: &Frame<'_>) {
        self.take(std::iter::once(*frame));
    }

    #[inline(always)]
    fn take<'a>(&mut self, frames: impl Iterator<Item = Frame<'a>>) {
        let tables = self.waiting.len();
        let (mut read, mut wire_octets) = (0, 0);
        for frame in frames {
            read += 1;
            wire_octets += u64::from(frame.wire_length);
            // Decoded where it stays, at least where there is one table.
            let mut next = self.waiting[0].next_place();
            if let Err(reason) = decode::decode_into(&frame, &mut next) {
                self.intake.counts.ignore(reason, frame.timestamp, frame.wire_length);
                continue;
            }
            let clock = match self.intake.clock.observe(next.timestamp()) {
                ClockStep::At(clock) => clock,
                ClockStep::Jumped { before, now } => {
                    let packet = next.packet();
                    self.jump(before);
                    next = self.waiting[0].next_place();
                    packet.put_into(&mut next);
                    now
                }
            };
            next.set_clock(clock);
            if next.fragment() != Fragment::Whole {
                let mut fragment = next.packet();
                self.intake.fragments.resolve(&mut fragment);
                fragment.put_into(&mut next);
            }
            let hash = next.hash(&self.intake.hasher);
            let table = if tables > 1 { hash.shard(tables) } else { 0 };
            if table == 0 {
                self.waiting[0].keep();
            } else if let [first, others @ ..] = &mut self.waiting[..] {
                others[table - 1].keep_next_of(first);
            }
            if self.waiting[table].len() == self.batch {
                self.send(table);
            }
        }
        self.intake.counts.frames += read;
        self.intake.counts.wire_octets += wire_octets;
    }

    /// Time has jumped back: all Flows end as of `before`, and no first fragment is remembered.
    #[cold]
    #[inline(never)]
    fn jump(&mut self, before: Timestamp) {
        self.intake.fragments.clear();
        self.flush(before, true);
    }

    /// Hands a full batch to its table.
    #[inline(never)]
    fn send(&mut self, table: usize) {
        let clock = self.intake.clock.now();
        let metering = self.intake.counts.metering;
        match &mut self.stage {
            Stage::Inline(inline) => {
                inline.take(&mut self.waiting[0], clock, false, &metering, self.options.live);
            }
            Stage::Sharded(sharded) => {
                sharded.lanes[table].send(&mut self.waiting[table], clock, BatchEnd::More, &metering);
                sharded.since_clock += 1;
                if sharded.since_clock >= 4 * self.waiting.len() && self.waiting.len() > 1 {
                    // A shard whose Flows are quiet must still hear that time goes on.
                    self.flush(clock, false);
                }
            }
        }
    }

    /// Hands all that waits to the tables, and the time with it.
    fn flush(&mut self, clock: Timestamp, drain: bool) {
        let metering = self.intake.counts.metering;
        match &mut self.stage {
            Stage::Inline(inline) => {
                inline.take(&mut self.waiting[0], clock, drain, &metering, self.options.live);
            }
            Stage::Sharded(sharded) => {
                let end = if drain { BatchEnd::Drain } else { BatchEnd::More };
                for (lane, waiting) in sharded.lanes.iter_mut().zip(&mut self.waiting) {
                    lane.send(waiting, clock, end, &metering);
                }
                sharded.since_clock = 0;
            }
        }
    }

    /// Hands on all that waits and lets every table and exporter know the time: after a read that brought nothing. The
    /// observation clock goes on to `clock` if that is given.
    pub fn quiet(&mut self, clock: Option<Timestamp>) {
        if let Some(clock) = clock {
            self.intake.clock.advance(clock);
        }
        self.flush(self.intake.clock.now(), false);
        self.gauges.intakes[0].set(&self.intake.counts);
    }

    /// What the threads show while they run.
    pub fn gauges(&self) -> &Arc<Gauges> {
        &self.gauges
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
        count_drops(&mut self.intake.counts, &mut self.dropped, drops, &self.gauges.intakes[0]);
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
        self.flush(clock, true);
        let metering = self.intake.counts.metering;
        let (records, destinations) = match self.stage {
            Stage::Inline(inline) => inline.finish(clock, &metering),
            Stage::Sharded(Sharded { lanes, threads, .. }) => {
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
            elapsed: self.gauges.began.elapsed(),
            ..RunReport::default()
        })
    }
}

/// Counts what was dropped since `before`, which then stands at the sum of `drops`, as ignored; shows all counts.
fn count_drops(counts: &mut FrameCounts, before: &mut u64, drops: CaptureDrops, gauges: &IntakeGauges) {
    gauges.set_capture(drops);
    gauges.set(counts);
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

impl Inline {
    fn new(meter: Meter, destinations: Vec<Destination>) -> Inline {
        Inline {
            meter,
            records: RecordSlots::new(INLINE_RECORD_BATCH),
            destinations,
            last_tick: Instant::now(),
        }
    }

    fn take(
        &mut self,
        observations: &mut Observations,
        clock: Timestamp,
        drain: bool,
        metering: &MeteringStatistics,
        live: bool,
    ) {
        let (records, destinations) = (&mut self.records, &mut self.destinations);
        let mut hand_over = |records: &mut RecordSlots| {
            for destination in destinations.iter_mut() {
                destination.exporter.export(records.filled());
            }
            records.filled = 0;
        };
        self.meter.take(observations, clock, drain, records, &mut hand_over);
        observations.clear();
        if live && records.filled > 0 {
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
        mut self,
        clock: Timestamp,
        metering: &MeteringStatistics,
    ) -> (RecordCounts, Vec<DestinationReport>) {
        let reports = self
            .destinations
            .drain(..)
            .map(|mut destination| {
                destination.exporter.export(self.records.filled());
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

/// The channels between intakes and a shard. They hold all batches there can be, so that sending never waits: an intake waits
/// for an empty batch instead.
fn to_shard(intakes: usize, gauges: &Arc<ShardGauges>) -> (Vec<Lane>, FromIntakes) {
    // Of each intake: those that wait, the one in work, and the one being filled.
    let most = intakes * (WAITING_BATCHES + 2);
    let (to, from) = bounded(most);
    let (give_back, back) = bounded(most);
    let lane = |intake| Lane {
        intake,
        era: 0,
        to: to.clone(),
        back: back.clone(),
        made: 1,
        gauges: Arc::clone(gauges),
    };
    let lanes = (0..intakes).map(lane).collect();
    (lanes, FromIntakes { from, give_back, empty: Vec::with_capacity(GIVEN_BACK) })
}

/// A shard's end of the channels.
struct FromIntakes {
    from: Receiver<Batch>,
    give_back: Sender<Observations>,
    /// Done with, and not given back yet.
    empty: Vec<Observations>,
}

impl FromIntakes {
    /// The next batch; none once no intake is left.
    fn next(&mut self) -> Option<Batch> {
        self.from.try_recv().ok().or_else(|| {
            self.give_back();
            self.from.recv().ok()
        })
    }

    fn done(&mut self, mut observations: Observations) {
        observations.clear();
        self.empty.push(observations);
        if self.empty.len() == GIVEN_BACK {
            self.give_back();
        }
    }

    fn give_back(&mut self) {
        for empty in self.empty.drain(..) {
            // There is room for all there are; an intake that has ended takes no more.
            let _ = self.give_back.try_send(empty);
        }
    }
}

impl Threads {
    /// Starts the thread of a single shard with its exporters on it, for one intake.
    fn start_one(inline: Inline) -> Result<(Threads, Lane), PipelineError> {
        let (mut lanes, from) = to_shard(1, &inline.meter.gauges);
        let lane = lanes.pop().expect("as many as intakes, one");
        let shard = spawn("shard 0".to_string(), move || run_one_shard(inline, from))?;
        Ok((Threads { shards: vec![shard], exporters: Vec::new() }, lane))
    }

    /// Starts the threads; gives each intake its lanes, one to a shard.
    fn start(
        meters: Vec<Meter>,
        destinations: Vec<Destination>,
        gauges: &Gauges,
        live: bool,
    ) -> Result<(Threads, Vec<Vec<Lane>>), PipelineError> {
        let intakes = gauges.intakes.len();
        let mut exporters = Vec::new();
        let mut to_exporters = Vec::new();
        let (give_back, record_buffers) = bounded(2 * WAITING_RECORD_BATCHES);
        for (destination, (_, shown)) in destinations.into_iter().zip(&gauges.exporters) {
            let (to, from) = bounded(WAITING_RECORD_BATCHES);
            let give_back = give_back.clone();
            let name = destination.name.clone();
            let thread =
                spawn(format!("exporter {name}"), move || run_exporter(destination, &from, &give_back))?;
            to_exporters.push((to, Arc::clone(shown)));
            exporters.push((name, thread));
        }
        let mut lanes: Vec<Vec<Lane>> = (0..intakes).map(|_| Vec::new()).collect();
        let mut shards = Vec::new();
        for (number, meter) in meters.into_iter().enumerate() {
            let (to_it, from) = to_shard(intakes, &meter.gauges);
            for (lanes, lane) in lanes.iter_mut().zip(to_it) {
                lanes.push(lane);
            }
            let out = RecordLane { to: to_exporters.clone(), buffers: record_buffers.clone() };
            let heard = Heard::new(intakes);
            shards.push(spawn(format!("shard {number}"), move || {
                (run_shard(meter, heard, from, &out, live), Vec::new())
            })?);
        }
        Ok((Threads { shards, exporters }, lanes))
    }

    /// Whether a thread has ended before its time.
    fn is_broken(&self) -> bool {
        self.shards.iter().any(JoinHandle::is_finished)
            || self.exporters.iter().any(|(_, thread)| thread.is_finished())
    }

    /// Waits for the threads, to which no lane may lead any more.
    fn finish(self) -> Result<(RecordCounts, Vec<DestinationReport>), PipelineError> {
        let (mut counts, mut reports) = (RecordCounts::default(), Vec::new());
        for (number, thread) in self.shards.into_iter().enumerate() {
            let (shard, its_own) =
                thread.join().map_err(|_| PipelineError::Died(format!("shard {number}")))?;
            counts.merge(&shard);
            reports.extend(its_own);
        }
        for (name, thread) in self.exporters {
            let died = PipelineError::Died(format!("exporter {name}"));
            reports.push(thread.join().map_err(|_| died)?);
        }
        Ok((counts, reports))
    }
}

impl Lane {
    fn send(
        &mut self,
        observations: &mut Observations,
        clock: Timestamp,
        end: BatchEnd,
        metering: &MeteringStatistics,
    ) {
        let empty = self.empty();
        let observations = std::mem::replace(observations, empty);
        // A shard hangs up only when it has died; `finish` finds that out and says so.
        let _ = self.to.send(Batch {
            observations,
            intake: self.intake,
            era: self.era,
            clock,
            end,
            metering: *metering,
        });
        self.gauges.channel.set(self.to.len(), self.to.capacity());
    }

    /// An empty batch: one that came back, or a new one as long as there are not too many, or one that is waited for.
    fn empty(&mut self) -> Observations {
        let waited_for = || match self.made {
            ..=WAITING_BATCHES => None,
            // None where the shard has died.
            _ => self.back.recv().ok(),
        };
        self.back.try_recv().ok().or_else(waited_for).unwrap_or_else(|| {
            self.made += 1;
            Observations::with_capacity(BATCH)
        })
    }
}

/// The way from a shard to the exporters.
struct RecordLane {
    to: Vec<(Sender<Arc<RecordBatch>>, Arc<ExporterGauges>)>,
    buffers: Receiver<RecordSlots>,
}

impl RecordLane {
    /// Sends the records on; empty slots take their place.
    fn send(&self, records: &mut RecordSlots, clock: Timestamp, metering: &MeteringStatistics) {
        let empty = self.buffers.try_recv().unwrap_or_else(|_| RecordSlots::new(RECORD_BATCH));
        let records = std::mem::replace(records, empty);
        let batch = Arc::new(RecordBatch { records, clock, metering: *metering });
        for (exporter, gauges) in &self.to {
            let _ = exporter.send(Arc::clone(&batch));
            gauges.channel.set(exporter.len(), exporter.capacity());
        }
    }
}

fn run_shard(
    mut meter: Meter,
    mut heard: Heard,
    mut from: FromIntakes,
    out: &RecordLane,
    live: bool,
) -> RecordCounts {
    let mut records = RecordSlots::new(RECORD_BATCH);
    let mut last_sent = Timestamp::EPOCH;
    while let Some(batch) = from.next() {
        let Sweep { clock, metering } = heard.hear(&batch);
        let drain = batch.end == BatchEnd::Drain;
        let full = |records: &mut RecordSlots| out.send(records, clock, &metering);
        meter.take(&batch.observations, clock, drain, &mut records, full);
        // Live, records do not wait for a batch to fill; in a replay the exporters still hear that time goes on.
        let waited = clock.since(last_sent) >= Duration::from_secs(1);
        if (live && records.filled > 0) || drain || waited {
            out.send(&mut records, clock, &metering);
            last_sent = clock;
        }
        from.done(batch.observations);
    }
    // A single intake has ended all Flows itself; of several none knows that it is the last.
    if heard.is_several() {
        let Sweep { clock, metering } = heard.last();
        let full = |records: &mut RecordSlots| out.send(records, clock, &metering);
        meter.take(&Observations::with_capacity(0), clock, true, &mut records, full);
        out.send(&mut records, clock, &metering);
    }
    meter.counts
}

/// [`run_shard`] for the one shard of one intake, with its exporters.
fn run_one_shard(mut inline: Inline, mut from: FromIntakes) -> (RecordCounts, Vec<DestinationReport>) {
    let (mut clock, mut metering) = (Timestamp::EPOCH, MeteringStatistics::default());
    while let Some(mut batch) = from.next() {
        (clock, metering) = (batch.clock, batch.metering);
        inline.take(&mut batch.observations, clock, batch.end == BatchEnd::Drain, &metering, false);
        from.done(batch.observations);
    }
    inline.finish(clock, &metering)
}

fn run_exporter(
    mut destination: Destination,
    from: &Receiver<Arc<RecordBatch>>,
    give_back: &Sender<RecordSlots>,
) -> DestinationReport {
    let mut clock = Timestamp::EPOCH;
    let mut metering = MeteringStatistics::default();
    let mut last_tick = Instant::now();
    loop {
        match from.recv_timeout(EXPORTER_TICK) {
            Ok(batch) => {
                destination.exporter.export(batch.records.filled());
                clock = clock.max(batch.clock);
                metering = batch.metering;
                if let Ok(RecordBatch { mut records, .. }) = Arc::try_unwrap(batch) {
                    records.filled = 0;
                    let _ = give_back.try_send(records);
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return destination.finish(clock, &metering),
        }
        match destination.clock {
            // Every batch brings the time, and nothing else does: runs with one table repeat.
            ExporterClock::Packet => destination.tick(clock, &metering),
            ExporterClock::Wall if last_tick.elapsed() >= EXPORTER_TICK => {
                destination.tick(clock, &metering);
                last_tick = Instant::now();
            }
            ExporterClock::Wall => {}
        }
    }
}

#[cfg(test)]
mod tests;
