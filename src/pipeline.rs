//! The pipeline: threads, channels, batches, routing by key, and the order of shutdown.
//!
//! ```text
//! intake: read, decode, clock, hash, deal ─batches─► shard: table ─record batches─► exporter, one a destination
//! ```
//!
//! Batches cross channels, not packets, and empty ones come back to be used again. A full channel makes
//! its sender wait, so that memory is bounded and nothing is lost on the way; live, the kernel's ring is the one
//! place where packets are dropped, and counted. Shutdown runs down the path: the intake ends, the shards drain their
//! tables, the exporters flush and close. With no shards all of it happens on the calling thread, without a channel; with one,
//! its exporters run on its thread if all are light ([`crate::export::Exporter::is_light`]), and it hashes the packets as long as
//! it has less to do than the intake. An intake that has less to do than its shard has the kernel find the memory that the
//! shard's table will use next ([`crate::flow::upcoming`]).
//!
//! Files and a single capture thread are one intake, [`Pipeline`]; several capture threads are one each, [`spread`].

mod exporters;
mod meter;
mod shards;
pub mod spread;

use std::sync::Arc;
use std::thread::{self, JoinHandle};

use thiserror::Error;

use self::exporters::shown;
pub use self::exporters::{Destination, ExporterClock};
use self::meter::{Inline, Meter};
use self::shards::{Lane, Threads};
use crate::capture::{CaptureDrops, Frame};
use crate::decode::{self, Fragment, FragmentTable};
use crate::export::MeteringStatistics;
use crate::flow::observation::DEALT;
use crate::flow::{ClockStep, KeyHasher, ObservationClock, Observations, TableError, TableOptions};
use crate::gauges::{Gauges, IntakeGauges};
use crate::stats::{FrameCounts, RunReport};
use crate::time::Timestamp;

/// Packets in a batch that crosses to a shard: so many that waking it up costs little.
const BATCH: usize = 2048;
/// Packets in a batch that stays on its thread: so few that it stays in the first cache.
const INLINE_BATCH: usize = 256;

/// Which threads do the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// All on the calling thread.
    Inline,
    /// The calling thread reads and decodes, this many shard threads meter, each exporter has its own thread; light ones
    /// ([`crate::export::Exporter::is_light`]) of a single shard run on its thread.
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

/// The front of the pipeline: frames in, batches out to the shards.
pub struct Pipeline {
    intake: Intake,
    /// Packets as they are read.
    read: Observations,
    /// So many of them go on together: to the only table, or to be dealt out.
    most_read: usize,
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

/// What an intake stops at.
enum Filled {
    /// There are no more frames.
    Ended,
    /// The batch is full.
    Batch,
    /// Time has jumped back from `before` with a packet that is put into the batch and not kept there.
    Jumped { before: Timestamp },
}

impl Intake {
    /// Takes frames until the batch has as many packets as it may have, or it stops at something else.
    #[inline(always)]
    fn fill<'a>(
        &mut self,
        batch: &mut Observations,
        most: usize,
        frames: &mut impl ExactSizeIterator<Item = Frame<'a>>,
    ) -> Filled {
        let mut room = batch.room(most, &self.hasher);
        let (free, left, mut wire_octets) = (room.len(), frames.len(), 0);
        // Each frame is decoded where its packet stays, at least where there is one table.
        let filled = 'places: loop {
            let Some(mut place) = room.next() else { break Filled::Batch };
            loop {
                let Some(frame) = frames.next() else { break 'places Filled::Ended };
                wire_octets += u64::from(frame.wire_length);
                let fragment = match decode::decode_into(&frame, || place.again()) {
                    Ok(fragment) => fragment,
                    Err(reason) => {
                        self.counts.ignore(reason, frame.timestamp, frame.wire_length);
                        continue;
                    }
                };
                match self.clock.observe(frame.timestamp) {
                    ClockStep::At(clock) => place.set_clock(clock),
                    ClockStep::Jumped { before, .. } => break 'places Filled::Jumped { before },
                }
                if fragment != Fragment::Whole {
                    place.again().resolve(|packet| self.fragments.resolve(packet));
                }
                break;
            }
        };
        let kept = match filled {
            Filled::Batch => free,
            // The place that is not filled has been taken out of the room.
            _ => free - room.len() - 1,
        };
        batch.keep(kept);
        self.counts.frames += (left - frames.len()) as u64;
        self.counts.wire_octets += wire_octets;
        filled
    }
}

/// Where batches go.
enum Stage {
    Inline(Box<Inline>),
    Sharded(Sharded),
}

struct Sharded {
    lanes: Vec<Lane>,
    /// What waits for each of several tables; nothing with one, which takes what was read as it is.
    dealt: Vec<Observations>,
    /// The clock as it stood with the last packet that was dealt out. A table that heard a later one could end Flows that packets
    /// still to be dealt belong to.
    dealt_clock: Timestamp,
    /// Batches sent since every shard last heard the clock.
    since_clock: usize,
    threads: Threads,
}

impl Sharded {
    fn new(lanes: Vec<Lane>, threads: Threads) -> Sharded {
        let several = lanes.iter().filter(|_| lanes.len() > 1);
        let dealt = several.map(|_| Observations::with_capacity(BATCH)).collect();
        Sharded { lanes, dealt, dealt_clock: Timestamp::EPOCH, since_clock: 0, threads }
    }

    /// Hands on what was read, or deals it out.
    fn send(&mut self, read: &mut Observations, clock: Timestamp, metering: &MeteringStatistics) {
        let [lane] = &mut *self.lanes else { return self.deal(read, metering) };
        let has_time = lane.is_caught_up();
        lane.send(read, clock, BatchEnd::More, metering);
        if has_time && self.threads.hashes {
            // The shard keeps up: it hashes the next batch, and what is read comes that much faster.
            read.leave_unhashed();
        }
    }

    /// Hands all that waits to the tables.
    fn flush(
        &mut self,
        read: &mut Observations,
        clock: Timestamp,
        end: BatchEnd,
        metering: &MeteringStatistics,
    ) {
        let [lane] = &mut *self.lanes else {
            self.deal(read, metering);
            return self.send_all(clock, end, metering);
        };
        lane.send(read, clock, end, metering);
    }

    /// Deals packets, no more than are dealt together, out to the tables; full batches are sent.
    fn deal(&mut self, read: &mut Observations, metering: &MeteringStatistics) {
        for (lane, dealt) in self.lanes.iter_mut().zip(&mut self.dealt) {
            if dealt.len() + read.len() > BATCH {
                lane.send(dealt, self.dealt_clock, BatchEnd::More, metering);
                self.since_clock += 1;
            }
        }
        self.dealt_clock = read.clock().unwrap_or(self.dealt_clock);
        read.deal(&mut self.dealt);
        if self.since_clock >= 4 * self.lanes.len() {
            // A shard whose Flows are quiet must still hear that time goes on.
            self.send_all(self.dealt_clock, BatchEnd::More, metering);
        }
    }

    fn send_all(&mut self, clock: Timestamp, end: BatchEnd, metering: &MeteringStatistics) {
        for (lane, dealt) in self.lanes.iter_mut().zip(&mut self.dealt) {
            lane.send(dealt, clock, end, metering);
        }
        self.since_clock = 0;
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
        // Rounded down: all tables together hold no more than was asked for.
        let share = TableOptions { max_flows: (options.table.max_flows / tables).max(1), ..options.table };
        let names = destinations.iter().map(|one| one.name.clone()).collect();
        let gauges = Arc::new(Gauges::new(1, tables, names, options.layout != Layout::Inline));
        let destinations = shown(destinations, &gauges);
        let meter = |number: usize| Meter::new(&share, &gauges.shards[number]);
        let hasher = KeyHasher::new();
        let stage = match options.layout {
            Layout::Inline => Stage::Inline(Box::new(Inline::new(meter(0)?, destinations, options.live))),
            Layout::Shards(_)
                if tables == 1
                    && !options.live
                    && destinations.iter().all(|destination| destination.exporter.is_light()) =>
            {
                let inline = Inline::new(meter(0)?, destinations, options.live);
                let (threads, lane) = Threads::start_one(inline, hasher.clone())?;
                Stage::Sharded(Sharded::new(vec![lane], threads))
            }
            Layout::Shards(_) => {
                let meters = (0..tables).map(meter).collect::<Result<Vec<_>, _>>()?;
                let (threads, mut lanes) = Threads::start(meters, destinations, &gauges, options.live)?;
                let lanes = lanes.pop().expect("as many as intakes, one");
                Stage::Sharded(Sharded::new(lanes, threads))
            }
        };
        let intake = Intake {
            counts: FrameCounts::default(),
            fragments: FragmentTable::new(),
            clock: ObservationClock::new(options.table.timeouts.active),
            hasher,
        };
        let most_read = match options.layout {
            Layout::Inline => INLINE_BATCH,
            Layout::Shards(_) if tables == 1 => BATCH,
            Layout::Shards(_) => DEALT,
        };
        let read = Observations::with_capacity(most_read);
        Ok(Pipeline { intake, read, most_read, stage, options, gauges, dropped: 0 })
    }

    /// Takes frames, in the order they were captured.
    #[inline]
    pub fn frames<'a>(&mut self, frames: impl ExactSizeIterator<Item = Frame<'a>>) {
        self.take(frames);
        self.gauges.intakes[0].set(&self.intake.counts);
    }

    /// Takes one frame. It shows in the gauges only after a read that found no more, or when the drops are told.
    #[inline]
    pub fn frame(&mut self, frame: &Frame<'_>) {
        self.take(std::iter::once(*frame));
    }

    // Out of line: the loop has all registers to itself.
    #[inline(never)]
    fn take<'a>(&mut self, frames: impl ExactSizeIterator<Item = Frame<'a>>) {
        let mut frames = frames;
        loop {
            match self.intake.fill(&mut self.read, self.most_read, &mut frames) {
                Filled::Ended => return,
                Filled::Batch => self.send(),
                Filled::Jumped { before } => self.jump(before),
            }
        }
    }

    /// Time has jumped back: all Flows end as of `before`, and no first fragment is remembered. The packet that it jumped with
    /// is the first of what comes then.
    #[cold]
    #[inline(never)]
    fn jump(&mut self, before: Timestamp) {
        let mut packet = self.read.unkept();
        self.intake.fragments.clear();
        self.flush(before, BatchEnd::Drain);
        self.intake.fragments.resolve(&mut packet);
        let hash = self.intake.hasher.hash(&packet);
        self.read.push(&packet, self.intake.clock.now(), hash);
    }

    /// Hands on what was read.
    #[inline(never)]
    fn send(&mut self) {
        let clock = self.intake.clock.now();
        let metering = self.intake.counts.metering;
        match &mut self.stage {
            Stage::Inline(inline) => inline.take(&mut self.read, clock, BatchEnd::More, &metering),
            Stage::Sharded(sharded) => sharded.send(&mut self.read, clock, &metering),
        }
    }

    /// Hands all that waits to the tables, and the time with it.
    fn flush(&mut self, clock: Timestamp, end: BatchEnd) {
        let metering = self.intake.counts.metering;
        match &mut self.stage {
            Stage::Inline(inline) => inline.take(&mut self.read, clock, end, &metering),
            Stage::Sharded(sharded) => sharded.flush(&mut self.read, clock, end, &metering),
        }
    }

    /// Hands on all that waits and lets every table and exporter know the time: after a read that brought nothing. The
    /// observation clock goes on to `clock` if that is given.
    pub fn quiet(&mut self, clock: Option<Timestamp>) {
        if let Some(clock) = clock {
            self.intake.clock.advance(clock);
        }
        self.flush(self.intake.clock.now(), BatchEnd::Dry);
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
        self.flush(clock, BatchEnd::Drain);
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

fn spawn<T: Send + 'static>(
    name: String,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, PipelineError> {
    thread::Builder::new()
        .name(name.clone())
        .spawn(work)
        .map_err(|source| PipelineError::Spawn { thread: name, source })
}

#[cfg(test)]
mod tests;
