//! Tables on threads of their own: batches of packets to them through channels, and empty ones back.
//!
//! An intake that has no empty batch left waits for one, so that memory is bounded and nothing is lost on the way; live,
//! the kernel's ring is the one place where packets are dropped, and counted.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};

use super::exporters::{Destination, ExporterThreads, RecordLane};
use super::meter::{Inline, Meter, RecordSlots};
use super::several::{Heard, Sweep};
use super::{BATCH, Batch, BatchEnd, Moment, PipelineError, spawn};
use crate::capture::file::UpcomingWindows;
use crate::export::MeteringStatistics;
use crate::flow::{KeyHasher, Observations, UpcomingMemory};
use crate::gauges::{Gauges, ShardGauges};
use crate::stats::{DestinationReport, RecordCounts};
use crate::time::Timestamp;

/// Batches that may wait for a shard.
const WAITING_BATCHES: usize = 24;
/// Empty batches that a busy shard gives back at once: an intake that waits for one is then woken up for several.
const GIVEN_BACK: usize = 12;

/// Batches of capture files that a shard with nothing to do is woken up for: where reading takes longer than metering, waking
/// the shard for each batch would cost the reader a tenth of its time.
const WOKEN_FOR: usize = 4;
// Or an intake would wait for empty batches while it holds all that could become empty, or the shard does.
const _: () = assert!(WOKEN_FOR + GIVEN_BACK < WAITING_BATCHES);

/// The way of one intake to one shard.
pub(super) struct Lane {
    intake: usize,
    /// Whether the shard takes batches whose packets are not hashed.
    pub hashes: bool,
    to: Sender<Batch>,
    back: Receiver<Observations>,
    /// Batches that were made for this lane, the one being filled included.
    made: usize,
    /// Batches that a shard that has nothing to do is woken up for.
    together: usize,
    /// Those of them that there are.
    held: Vec<Batch>,
    /// What this intake makes ready for the shard while it waits for it.
    upcoming: Option<UpcomingMemory>,
    gauges: Arc<ShardGauges>,
}

/// The threads behind the intakes.
#[derive(Default)]
pub(super) struct Threads {
    /// With the reports of the exporters that run on their threads.
    shards: Vec<JoinHandle<(RecordCounts, Vec<DestinationReport>)>>,
    exporters: ExporterThreads,
}

/// The channels between intakes and a shard. They hold all batches there can be, so that sending never waits: an intake waits
/// for an empty batch instead.
fn to_shard(intakes: usize, meter: &Meter) -> (Vec<Lane>, FromIntakes) {
    // Of each intake: those that wait, the one in work, and the one being filled.
    let most = intakes * (WAITING_BATCHES + 2);
    let (to, from) = bounded(most);
    let (give_back, back) = bounded(most);
    let lane = |intake| Lane {
        intake,
        hashes: false,
        to: to.clone(),
        back: back.clone(),
        made: 1,
        together: 1,
        held: Vec::new(),
        // One intake is enough, and files have no more; of several live ones the first helps when it waits.
        upcoming: (intake == 0).then(|| meter.upcoming()),
        gauges: Arc::clone(&meter.gauges),
    };
    let lanes = (0..intakes).map(lane).collect();
    (lanes, FromIntakes { from, give_back, empty: Vec::with_capacity(GIVEN_BACK), upcoming: None })
}

/// A shard's end of the channels.
struct FromIntakes {
    from: Receiver<Batch>,
    give_back: Sender<Observations>,
    /// Done with, and not given back yet.
    empty: Vec<Observations>,
    /// What this shard makes ready for the intake while it waits for it.
    upcoming: Option<UpcomingWindows>,
}

impl FromIntakes {
    /// The next batch; none once no intake is left.
    fn next(&mut self) -> Option<Batch> {
        self.from.try_recv().ok().or_else(|| {
            self.give_back();
            // The intake has more to do than this shard, which helps it.
            while self.upcoming.as_mut().is_some_and(UpcomingWindows::make_ready) {
                match self.from.try_recv() {
                    Err(TryRecvError::Empty) => {}
                    batch => return batch.ok(),
                }
            }
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
    pub fn start_one(
        inline: Inline,
        hasher: KeyHasher,
        upcoming: Option<UpcomingWindows>,
    ) -> Result<(Threads, Lane), PipelineError> {
        let (mut lanes, from) = to_shard(1, &inline.meter);
        let from = FromIntakes { upcoming, ..from };
        let lane = lanes.pop().expect("as many as intakes, one");
        let lane = Lane { hashes: true, together: WOKEN_FOR, ..lane };
        let shard = spawn("shard 0".to_string(), move || run_one_shard(inline, &hasher, from))?;
        Ok((Threads { shards: vec![shard], exporters: ExporterThreads::default() }, lane))
    }

    /// Starts the threads; gives each intake its lanes, one to a shard.
    pub fn start(
        meters: Vec<Meter>,
        destinations: Vec<Destination>,
        gauges: &Gauges,
        live: bool,
        upcoming: Option<UpcomingWindows>,
    ) -> Result<(Threads, Vec<Vec<Lane>>), PipelineError> {
        let intakes = gauges.intakes.len();
        let (exporters, out) = ExporterThreads::start(destinations, gauges)?;
        let mut lanes: Vec<Vec<Lane>> = (0..intakes).map(|_| Vec::new()).collect();
        let mut shards = Vec::new();
        for (number, meter) in meters.into_iter().enumerate() {
            let (to_it, from) = to_shard(intakes, &meter);
            for (lanes, lane) in lanes.iter_mut().zip(to_it) {
                lanes.push(lane);
            }
            let from = FromIntakes { upcoming: upcoming.clone(), ..from };
            let (out, heard) = (out.clone(), Heard::new(intakes));
            shards.push(spawn(format!("shard {number}"), move || {
                (run_shard(meter, heard, from, &out, live), Vec::new())
            })?);
        }
        Ok((Threads { shards, exporters }, lanes))
    }

    /// Whether a thread has ended before its time.
    pub fn is_broken(&self) -> bool {
        self.shards.iter().any(JoinHandle::is_finished) || self.exporters.is_broken()
    }

    /// Waits for the threads, to which no lane may lead any more.
    pub fn finish(self) -> Result<(RecordCounts, Vec<DestinationReport>), PipelineError> {
        let (mut counts, mut reports) = (RecordCounts::default(), Vec::new());
        for (number, thread) in self.shards.into_iter().enumerate() {
            let (shard, its_own) =
                thread.join().map_err(|_| PipelineError::Died(format!("shard {number}")))?;
            counts.merge(&shard);
            reports.extend(its_own);
        }
        reports.extend(self.exporters.finish()?);
        Ok((counts, reports))
    }
}

impl Lane {
    /// Whether the shard has taken all that was sent to it: it waits, or is about to.
    pub fn is_caught_up(&self) -> bool {
        self.to.is_empty()
    }

    /// Sends a batch without waiting, and leaves one without room; [`Lane::empty`] gives the next.
    pub fn send(
        &mut self,
        observations: &mut Observations,
        now: Moment,
        end: BatchEnd,
        metering: &MeteringStatistics,
    ) {
        let observations = std::mem::replace(observations, Observations::with_capacity(0));
        let (intake, metering) = (self.intake, *metering);
        self.held.push(Batch { observations, intake, now, end, metering });
        if self.held.len() >= self.together || end != BatchEnd::More || !self.to.is_empty() {
            for batch in self.held.drain(..) {
                // A shard hangs up only when it has died; `finish` finds that out and says so.
                let _ = self.to.send(batch);
            }
        }
        self.gauges.channel.set(self.to.len(), self.to.capacity());
    }

    /// An empty batch: one that came back, or a new one as long as there are not too many, or one that is waited for.
    pub fn empty(&mut self) -> Observations {
        loop {
            if let Ok(empty) = self.back.try_recv() {
                return empty;
            }
            if self.made > WAITING_BATCHES {
                // The shard has more to do than this intake, which helps it.
                if self.upcoming.as_mut().is_some_and(UpcomingMemory::make_ready) {
                    continue;
                }
                if let Ok(empty) = self.back.recv() {
                    return empty;
                }
                // The shard has died.
            }
            self.made += 1;
            return Observations::with_capacity(BATCH);
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
    let mut records = RecordLane::slots();
    let mut last_sent = Moment::default();
    while let Some(batch) = from.next() {
        let Sweep { now, metering } = heard.hear(&batch);
        let drain = batch.end == BatchEnd::Drain;
        let full = |records: &mut RecordSlots| out.send(records, now, &metering);
        meter.take(&batch.observations, now.clock, drain, &mut records, full);
        // Live, records do not wait for a batch to fill; in a replay the exporters still hear that time goes on, and where packets
        // have to be waited for, what there is goes out.
        let waited = now.is_later_by(Duration::from_secs(1), last_sent);
        if !live && batch.end == BatchEnd::Dry {
            out.send_last(&mut records, now, &metering);
            last_sent = now;
        } else if (live && !records.is_empty()) || drain || waited {
            out.send(&mut records, now, &metering);
            last_sent = now;
        }
        from.done(batch.observations);
    }
    // A single intake has ended all Flows itself; of several none knows that it is the last.
    if heard.is_several() {
        let Sweep { now, metering } = heard.last();
        let full = |records: &mut RecordSlots| out.send(records, now, &metering);
        meter.take(&Observations::with_capacity(0), now.clock, true, &mut records, full);
        out.send(&mut records, now, &metering);
    }
    meter.counts
}

/// [`run_shard`] for the one shard of one intake, with its exporters.
fn run_one_shard(
    mut inline: Inline,
    hasher: &KeyHasher,
    mut from: FromIntakes,
) -> (RecordCounts, Vec<DestinationReport>) {
    let (mut clock, mut metering) = (Timestamp::EPOCH, MeteringStatistics::default());
    while let Some(mut batch) = from.next() {
        (clock, metering) = (batch.now.clock, batch.metering);
        batch.observations.hash(hasher);
        inline.take(&mut batch.observations, clock, batch.end, &metering);
        from.done(batch.observations);
    }
    inline.finish(clock, &metering)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::capture::file::{CaptureFiles, FileOptions};
    use crate::decode::IpVersion;
    use crate::flow::observation::DEALT;
    use crate::flow::table::tests::{packet, seconds};
    use crate::flow::{KeyHash, TableOptions};
    use crate::pipeline::intake::Sharded;

    const TABLES: usize = 3;

    /// One of two intakes: packets of one Flow, each a nanosecond after the one before, to [`TABLES`] tables whose batches
    /// are looked at.
    struct Busy {
        sharded: Sharded,
        shards: Vec<FromIntakes>,
        hash: KeyHash,
        nanos: u64,
        /// Of each table, packets it was given and the clock it was told last.
        given: [(usize, Timestamp); TABLES],
    }

    impl Busy {
        fn new() -> Busy {
            let options = TableOptions { timeouts: seconds(60, 15, 1), max_flows: 8 };
            let (lanes, shards) = (0..TABLES)
                .map(|_| {
                    let meter = Meter::new(&options, &Arc::default()).unwrap();
                    let (mut lanes, from) = to_shard(2, &meter);
                    (lanes.pop().unwrap(), from)
                })
                .unzip();
            let hash = KeyHasher::with_seed(1).hash(&packet(0, IpVersion::V4, 1, 2));
            let given = [(0, Timestamp::EPOCH); TABLES];
            Busy { sharded: Sharded::new(lanes), shards, hash, nanos: 0, given }
        }

        fn now(&self) -> Moment {
            Moment { era: 0, clock: Timestamp::from_nanos(self.nanos) }
        }

        fn deal(&mut self, packets: usize) {
            let mut read = Observations::with_capacity(DEALT);
            for _ in 0..packets {
                self.nanos += 1;
                read.push(&packet(self.nanos, IpVersion::V4, 1, 2), self.now().clock, self.hash);
            }
            self.sharded.send(&mut read, self.now(), &MeteringStatistics::default());
            self.look(BatchEnd::More);
        }

        fn flush(&mut self, end: BatchEnd) {
            let (now, nothing) = (self.now(), &mut Observations::with_capacity(0));
            self.sharded.flush(nothing, now, end, &MeteringStatistics::default());
        }

        /// Takes the batches that there are; all are to end so.
        fn look(&mut self, end: BatchEnd) {
            for (from, (packets, clock)) in self.shards.iter_mut().zip(&mut self.given) {
                while let Ok(batch) = from.from.try_recv() {
                    assert_eq!(batch.end, end);
                    assert!(batch.observations.len() <= BATCH);
                    *packets += batch.observations.len();
                    // A nanosecond a packet: it has heard of those it was given and of no others of its Flow.
                    let table = self.hash.shard(TABLES);
                    assert!(batch.now.clock >= *clock);
                    assert!(
                        batch.observations.is_empty() || batch.now.clock.nanos() == *packets as u64,
                        "{table}"
                    );
                    *clock = batch.now.clock;
                    from.done(batch.observations);
                }
                from.give_back();
            }
        }
    }

    #[test]
    fn a_batch_dealt_out_is_sent_once_there_may_be_no_room_and_has_the_time_of_its_last_packet() {
        let mut busy = Busy::new();
        let table = busy.hash.shard(TABLES);
        for last in [1, DEALT - 1, DEALT] {
            let before = busy.given[table].0;
            let full = BATCH / DEALT - 1;
            (0..full).for_each(|_| busy.deal(DEALT));
            assert_eq!(busy.given[table].0, before, "it has room for as many again");
            busy.deal(last);
            assert_eq!(busy.given[table].0 - before, full * DEALT + last);
            busy.deal(1);
            assert_eq!(busy.given[table].0 - before, full * DEALT + last, "the next one has room");
            busy.flush(BatchEnd::Dry);
            busy.look(BatchEnd::Dry);
            assert_eq!(busy.given[table].0 as u64, busy.nanos);
            assert_eq!(busy.given.map(|(_, clock)| clock), [busy.now().clock; TABLES]);
        }
    }

    #[test]
    fn a_shard_that_waits_makes_ready_what_the_intake_reads_next() {
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        let records = 100 * BATCH;
        let mut header = vec![0xD4, 0xC3, 0xB2, 0xA1, 2, 0, 4, 0];
        header.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0]);
        let record: Vec<u8> =
            [0, 0, 80, 80].iter().flat_map(|&octet| [octet, 0, 0, 0]).chain([0; 80]).collect();
        file.write_all(&[header, record.repeat(records)].concat()).expect("room for it");
        let mut files = CaptureFiles::open(&[file.path().to_path_buf()], &FileOptions::default()).unwrap();
        let meter = Meter::new(&TableOptions { timeouts: seconds(60, 15, 1), max_flows: 8 }, &Arc::default());
        let (mut lanes, from) = to_shard(1, &meter.unwrap());
        let mut from = FromIntakes { upcoming: Some(files.upcoming()), ..from };
        let is_begun = |from: &FromIntakes| from.upcoming.as_ref().is_some_and(UpcomingWindows::is_begun);
        // Past what is read before the file is mapped; the rest is ahead.
        for _ in 0..records / 4 / 64 {
            assert!(files.next_run().is_some());
        }
        let (nothing, now) = (&mut Observations::with_capacity(0), Moment::default());
        lanes[0].send(nothing, now, BatchEnd::More, &MeteringStatistics::default());
        assert!(from.next().is_some());
        assert!(!is_begun(&from), "a batch was waiting");
        drop(lanes);
        assert!(from.next().is_none());
        #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
        assert_eq!(is_begun(&from), crate::capture::file::can_look_ahead());
    }

    #[test]
    fn every_table_is_told_that_a_ring_was_empty_before_any_of_them_is_waited_for() {
        let mut busy = Busy::new();
        // All batches that there may be are on their way, but for the one being filled.
        (0..WAITING_BATCHES).for_each(|_| busy.flush(BatchEnd::More));
        let shards = std::mem::take(&mut busy.shards);
        std::thread::scope(|scope| {
            let quiet = scope.spawn(|| busy.flush(BatchEnd::Dry));
            for from in &shards {
                let ends = std::iter::repeat_with(|| {
                    from.from.recv_timeout(Duration::from_secs(10)).map(|batch| batch.end)
                });
                assert_eq!(ends.take(WAITING_BATCHES + 1).last(), Some(Ok(BatchEnd::Dry)));
            }
            assert!(!quiet.is_finished(), "it waits for an empty batch");
            drop(shards); // or it would wait for ever
        });
    }

    #[test]
    fn a_table_whose_flows_are_quiet_hears_the_time_while_another_is_busy() {
        let mut busy = Busy::new();
        let most = (4 * TABLES as u64 + 2) * BATCH as u64;
        for _ in 0..20 * most / DEALT as u64 {
            busy.deal(DEALT);
            for (_, clock) in busy.given {
                assert!(busy.nanos - clock.nanos() <= most, "{clock:?} at {}", busy.nanos);
            }
        }
        assert!(busy.given.iter().filter(|(packets, _)| *packets == 0).count() == TABLES - 1);
    }
}
