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
//! shard's table will use next ([`crate::flow::upcoming`]); a shard that has less to do than the intake has it map what of a file is read
//! next ([`UpcomingWindows`]).
//!
//! Each thread that reads frames has an [`Intake`]; what is behind all of them is the [`Backend`]. Files are read by one
//! thread, and [`Pipeline`] is both. How several intakes share the shards is told in `pipeline/several.rs`.

mod exporters;
mod intake;
mod meter;
mod several;
mod shards;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use thiserror::Error;

use self::exporters::shown;
pub use self::exporters::{Destination, ExporterClock};
pub use self::intake::Intake;
use self::intake::{Decoder, Sharded, Stage};
use self::meter::{Inline, Meter};
use self::shards::Threads;
use crate::capture::Frame;
use crate::capture::file::UpcomingWindows;
use crate::export::MeteringStatistics;
use crate::flow::observation::DEALT;
use crate::flow::{KeyHasher, ObservationClock, Observations, TableError, TableOptions};
use crate::gauges::{Gauges, IntakeGauges};
use crate::stats::{FrameCounts, RecordCounts, RunReport};
use crate::time::Timestamp;

/// Packets in a batch that crosses to a shard: so many that waking it up costs little.
const BATCH: usize = 2048;
/// Packets in a batch that stays on its thread: so few that it stays in the first cache, and so many that few are at its beginning,
/// which the table waits for, having had no others to update meanwhile.
const INLINE_BATCH: usize = 512;

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

/// A time on the observation clock. Each jump back begins an era, all of which is later than all of the one before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Moment {
    /// How often time had jumped back.
    era: u64,
    clock: Timestamp,
}

impl Moment {
    /// Whether time has gone on by so much since `earlier`, or has jumped back since.
    fn is_later_by(self, step: Duration, earlier: Moment) -> bool {
        self.era > earlier.era || self.clock.since(earlier.clock) >= step
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
    /// The clock of that intake at the end of the batch.
    now: Moment,
    end: BatchEnd,
    metering: MeteringStatistics,
}

/// One intake and what is behind it: frames in, a report out.
pub struct Pipeline {
    intake: Intake,
    backend: Backend,
}

/// What is behind the intakes: the shards and the exporters.
pub struct Backend {
    threads: Threads,
    /// How often time has jumped back.
    eras: Arc<AtomicU64>,
    layout: String,
    gauges: Arc<Gauges>,
}

impl Pipeline {
    /// Makes the tables and starts the threads; shards that wait make ready what is `upcoming` of the files.
    ///
    /// # Errors
    /// When the memory or the threads cannot be had.
    pub fn start(
        options: PipelineOptions,
        destinations: Vec<Destination>,
        upcoming: Option<UpcomingWindows>,
    ) -> Result<Pipeline, PipelineError> {
        let (backend, mut intakes) = Backend::start(options, 1, destinations, upcoming)?;
        let intake = intakes.pop().expect("as many as asked for, one");
        Ok(Pipeline { intake, backend })
    }

    /// Takes frames, in the order they were captured.
    #[inline]
    pub fn frames<'a>(&mut self, frames: impl ExactSizeIterator<Item = Frame<'a>>) {
        self.intake.frames(frames);
    }

    /// [`Intake::quiet`].
    pub fn quiet(&mut self, clock: Option<Timestamp>) {
        // The time of the look is of use to several intakes alone.
        self.intake.quiet(clock, Instant::now());
    }

    /// What the threads show while they run.
    pub fn gauges(&self) -> &Arc<Gauges> {
        self.backend.gauges()
    }

    /// What became of the frames so far.
    pub fn counts(&self) -> &FrameCounts {
        self.intake.counts()
    }

    /// Whether a thread has died, so that there is nothing left but to end.
    pub fn is_broken(&self) -> bool {
        self.backend.is_broken()
    }

    /// Ends all Flows, flushes and closes the destinations and says what happened.
    ///
    /// # Errors
    /// When a thread had died.
    pub fn finish(self) -> Result<RunReport, PipelineError> {
        self.backend.finish(vec![self.intake])
    }
}

impl Backend {
    /// Makes the tables, starts the threads and gives so many intakes, one for each thread that reads. Where there are
    /// several, a layout without shard threads gets one.
    ///
    /// # Errors
    /// When the memory or the threads cannot be had.
    pub fn start(
        options: PipelineOptions,
        intakes: usize,
        destinations: Vec<Destination>,
        upcoming: Option<UpcomingWindows>,
    ) -> Result<(Backend, Vec<Intake>), PipelineError> {
        let tables = options.layout.tables();
        let layout = if intakes == 1 { options.layout } else { Layout::Shards(tables) };
        // Rounded down: all tables together hold no more than was asked for.
        let share = TableOptions { max_flows: (options.table.max_flows / tables).max(1), ..options.table };
        let names = destinations.iter().map(|one| one.name.clone()).collect();
        let gauges = Arc::new(Gauges::new(intakes, tables, names, layout != Layout::Inline));
        let destinations = shown(destinations, &gauges);
        let meter = |number: usize| Meter::new(&share, &gauges.shards[number]);
        let hasher = KeyHasher::new();
        let (threads, stages) = match layout {
            Layout::Inline => {
                let inline = Inline::new(meter(0)?, destinations, options.live);
                (Threads::default(), vec![Stage::Inline(Box::new(inline))])
            }
            Layout::Shards(_)
                if (intakes, tables) == (1, 1)
                    && !options.live
                    && destinations.iter().all(|destination| destination.exporter.is_light()) =>
            {
                let inline = Inline::new(meter(0)?, destinations, options.live);
                let (threads, lane) = Threads::start_one(inline, hasher.clone(), upcoming)?;
                (threads, vec![Stage::Sharded(Sharded::new(vec![lane]))])
            }
            Layout::Shards(_) => {
                let meters = (0..tables).map(meter).collect::<Result<Vec<_>, _>>()?;
                let (threads, lanes) = Threads::start(meters, destinations, &gauges, options.live, upcoming)?;
                let stage = |lanes| Stage::Sharded(Sharded::new(lanes));
                (threads, lanes.into_iter().map(stage).collect())
            }
        };
        let decoder = Decoder {
            counts: FrameCounts::default(),
            fragments: Arc::default(),
            clock: ObservationClock::new(options.table.timeouts.active),
            hasher,
        };
        let eras = Arc::default();
        let most_read = match layout {
            Layout::Inline => INLINE_BATCH,
            Layout::Shards(_) if tables == 1 => BATCH,
            Layout::Shards(_) => DEALT,
        };
        let of_stage = |(stage, gauges): (Stage, &Arc<IntakeGauges>)| Intake {
            decoder: decoder.clone(),
            read: Observations::with_capacity(most_read),
            most_read,
            stage,
            // Of several none knows that it is the last: the shards find that out.
            last: if intakes == 1 { BatchEnd::Drain } else { BatchEnd::Dry },
            eras: Arc::clone(&eras),
            era: 0,
            ahead: None,
            dropped: 0,
            gauges: Arc::clone(gauges),
        };
        let all = stages.into_iter().zip(&gauges.intakes).map(of_stage).collect();
        let layout = match intakes {
            1 => layout.describe(),
            several => format!("{several} capture threads, {}", layout.describe()),
        };
        Ok((Backend { threads, eras, layout, gauges }, all))
    }

    /// What the threads show while they run.
    pub fn gauges(&self) -> &Arc<Gauges> {
        &self.gauges
    }

    /// Whether a thread has died, so that there is nothing left but to end.
    pub fn is_broken(&self) -> bool {
        self.threads.is_broken()
    }

    /// Ends all intakes and all Flows, flushes and closes the destinations and says what happened.
    ///
    /// # Errors
    /// When a thread had died.
    pub fn finish(self, intakes: Vec<Intake>) -> Result<RunReport, PipelineError> {
        let (mut frames, mut records, mut destinations) = <(FrameCounts, RecordCounts, Vec<_>)>::default();
        for intake in intakes {
            let (counts, metered, delivered) = intake.end();
            frames.merge(&counts);
            records.merge(&metered);
            destinations.extend(delivered);
        }
        let (metered, delivered) = self.threads.finish()?;
        records.merge(&metered);
        destinations.extend(delivered);
        Ok(RunReport {
            frames,
            records,
            clock_resets: self.eras.load(Ordering::Relaxed),
            layout: self.layout,
            destinations,
            elapsed: self.gauges.began.elapsed(),
            ..RunReport::default()
        })
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
