//! Several intakes over one set of shards: capture threads in, each with its own decoder and its own clock.
//!
//! ```text
//! intake 0 ─┬─lane─► shard 0      a packet carries the clock of its own intake;
//! intake 1 ─┴─lane─► shard 0      a shard sweeps by the least of the intakes' clocks
//! ```
//!
//! # Whose clock
//!
//! A packet is judged by the clock of the intake that read it: an intake that lags behind the others, because its
//! ring is fuller, ends no Flow too early and none too late. A sweep must not end a Flow for which a packet still
//! lies in some ring, so it goes by the least of what the intakes vouch for: a busy one for its clock; one that has
//! read its ring empty for its clock as well, or for a fifth of a second less than the furthest of the others if that
//! is later, since what it will read next was captured after it looked. An intake that has said nothing yet holds all
//! sweeps back, one on a dead interface reads nothing and so is empty. What an intake says travels in the same
//! channel as the packets: what a shard has heard of the others by then is no later than the moment it was said.
//!
//! # When time jumps back
//!
//! All intakes live through the same step of the same system clock, but each sees it with its own next packet. The
//! first to see it opens a new era and ends all Flows, as the only intake does. Each of the others follows as soon as
//! it sees the step itself or finds its ring empty, whichever is first: it forgets its clock and ends all Flows once
//! more, since those that its last packets before the step began lie in the future now. So one step is counted once
//! and ends what is open at most once an intake: more, shorter records around the step, and the same sums.
//!
//! # Fragments
//!
//! The first fragments of all intakes are remembered in one table behind a lock, which fragments alone take: two
//! fragments of a datagram may come in by two interfaces.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::exporters::{Destination, shown};
use super::meter::Meter;
use super::shards::{Lane, Threads};
use super::{BATCH, Batch, BatchEnd, Layout, Pipeline, PipelineError, PipelineOptions, count_drops};
use crate::capture::{CaptureDrops, Frame};
use crate::decode::{self, Fragment, FragmentTable};
use crate::export::MeteringStatistics;
use crate::flow::{ClockStep, KeyHasher, ObservationClock, Observations, TableOptions};
use crate::gauges::{Gauges, IntakeGauges};
use crate::stats::{FrameCounts, RunReport};
use crate::time::Timestamp;

/// A frame captured longer ago than this, by an interface whose ring was then read empty, has been read: the kernel
/// holds back an unfilled block for half of it.
const IN_FLIGHT: Duration = Duration::from_millis(200);

/// What a capture thread hands its frames to.
pub trait Intake: Send {
    /// Takes one frame.
    fn frame(&mut self, frame: &Frame<'_>);
    /// Hands on all that waits, after a read that found no more. `clock`: where the clock stands without a packet.
    fn quiet(&mut self, clock: Option<Timestamp>);
    /// The observation clock of this intake.
    fn clock(&self) -> Timestamp;
    /// What became of its frames so far.
    fn counts(&self) -> &FrameCounts;
    /// Tells what was dropped so far before this intake could read it.
    fn dropped(&mut self, drops: CaptureDrops);
    /// Whether a thread behind it has died.
    fn is_broken(&self) -> bool;
}

impl Intake for Pipeline {
    #[inline]
    fn frame(&mut self, frame: &Frame<'_>) {
        Pipeline::frame(self, frame);
    }

    fn quiet(&mut self, clock: Option<Timestamp>) {
        Pipeline::quiet(self, clock);
    }

    fn clock(&self) -> Timestamp {
        Pipeline::clock(self)
    }

    fn counts(&self) -> &FrameCounts {
        Pipeline::counts(self)
    }

    fn dropped(&mut self, drops: CaptureDrops) {
        Pipeline::dropped(self, drops);
    }

    fn is_broken(&self) -> bool {
        Pipeline::is_broken(self)
    }
}

/// The shards and exporters behind several intakes.
pub struct Spread {
    threads: Threads,
    era: Arc<AtomicU64>,
    layout: String,
    gauges: Arc<Gauges>,
}

/// One of several intakes: the counterpart of [`Pipeline`] on one capture thread.
pub struct SpreadIntake {
    counts: FrameCounts,
    fragments: Arc<Mutex<FragmentTable>>,
    clock: ObservationClock,
    active_timeout: Duration,
    hasher: KeyHasher,
    /// What waits for each shard, and the ways there.
    waiting: Vec<(Observations, Lane)>,
    /// Batches sent since every shard last heard the clock.
    since_clock: usize,
    /// How often time has jumped back for all intakes.
    eras: Arc<AtomicU64>,
    /// The era that this one has come to.
    era: u64,
    dropped: u64,
    gauges: Arc<IntakeGauges>,
}

impl Spread {
    /// Makes the tables, starts the threads and gives the intakes. A layout without shard threads gets one.
    ///
    /// # Errors
    /// When the memory or the threads cannot be had.
    pub fn start(
        options: PipelineOptions,
        intakes: usize,
        destinations: Vec<Destination>,
    ) -> Result<(Spread, Vec<SpreadIntake>), PipelineError> {
        let layout = Layout::Shards(options.layout.tables());
        let share =
            TableOptions { max_flows: (options.table.max_flows / layout.tables()).max(1), ..options.table };
        let names = destinations.iter().map(|one| one.name.clone()).collect();
        let gauges = Arc::new(Gauges::new(intakes, layout.tables(), names, true));
        let destinations = shown(destinations, &gauges);
        let meters =
            gauges.shards.iter().map(|gauges| Meter::new(&share, gauges)).collect::<Result<Vec<_>, _>>()?;
        let (threads, lanes) = Threads::start(meters, destinations, &gauges, options.live)?;
        let (eras, hasher) = (Arc::new(AtomicU64::new(0)), KeyHasher::new());
        let fragments = Arc::new(Mutex::new(FragmentTable::new()));
        let active_timeout = options.table.timeouts.active;
        let intakes = lanes
            .into_iter()
            .zip(&gauges.intakes)
            .map(|(lanes, gauges)| SpreadIntake {
                counts: FrameCounts::default(),
                fragments: Arc::clone(&fragments),
                clock: ObservationClock::new(active_timeout),
                active_timeout,
                hasher: hasher.clone(),
                waiting: lanes.into_iter().map(|lane| (Observations::with_capacity(BATCH), lane)).collect(),
                since_clock: 0,
                eras: Arc::clone(&eras),
                era: 0,
                dropped: 0,
                gauges: Arc::clone(gauges),
            })
            .collect::<Vec<_>>();
        let layout = format!("{} capture threads, {}", intakes.len(), layout.describe());
        Ok((Spread { threads, era: eras, layout, gauges }, intakes))
    }

    /// What the threads show while they run.
    pub fn gauges(&self) -> &Arc<Gauges> {
        &self.gauges
    }

    /// Whether a thread has died, so that there is nothing left but to end.
    pub fn is_broken(&self) -> bool {
        self.threads.is_broken()
    }

    /// Ends all Flows, flushes and closes the destinations and says what happened. `ended`: what each intake counted.
    ///
    /// # Errors
    /// When a thread had died.
    pub fn finish(self, ended: &[FrameCounts]) -> Result<RunReport, PipelineError> {
        let (records, destinations) = self.threads.finish()?;
        let mut frames = FrameCounts::default();
        for counts in ended {
            frames.merge(counts);
        }
        Ok(RunReport {
            frames,
            records,
            clock_resets: self.era.load(Ordering::Relaxed),
            layout: self.layout,
            destinations,
            elapsed: self.gauges.began.elapsed(),
            ..RunReport::default()
        })
    }
}

impl SpreadIntake {
    /// Hands on all that waits and hangs up; gives what it counted.
    pub fn end(mut self) -> FrameCounts {
        self.flush(self.clock.now(), BatchEnd::Dry);
        self.counts
    }

    /// Hands all that waits to the shards, and the time with it.
    fn flush(&mut self, clock: Timestamp, end: BatchEnd) {
        self.since_clock = 0;
        for (waiting, lane) in &mut self.waiting {
            lane.send(waiting, clock, end, &self.counts.metering);
        }
    }

    /// Hands a full batch to its shard.
    #[inline(never)]
    fn send(&mut self, shard: usize) {
        let clock = self.clock.now();
        let (waiting, lane) = &mut self.waiting[shard];
        lane.send(waiting, clock, BatchEnd::More, &self.counts.metering);
        self.since_clock += 1;
        if self.since_clock >= 4 * self.waiting.len() && self.waiting.len() > 1 {
            // A shard whose Flows are quiet must still hear that time goes on.
            self.flush(clock, BatchEnd::More);
        }
    }

    /// Time has jumped back for this intake: into the era that another one has opened, or into a new one.
    #[cold]
    fn jump(&mut self, before: Timestamp) {
        let next = self.era + 1;
        self.era = match self.eras.compare_exchange(self.era, next, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => next,
            Err(opened) => opened,
        };
        self.first_fragments().clear();
        for (_, lane) in &mut self.waiting {
            lane.era = self.era;
        }
        self.flush(before, BatchEnd::Drain);
    }

    fn first_fragments(&self) -> MutexGuard<'_, FragmentTable> {
        // Nothing in there panics, and if it did: the table is sound after every step.
        self.fragments.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Intake for SpreadIntake {
    #[inline]
    fn frame(&mut self, frame: &Frame<'_>) {
        self.counts.frames += 1;
        self.counts.wire_octets += u64::from(frame.wire_length);
        let mut packet = match decode::decode(frame) {
            Ok(packet) => packet,
            Err(reason) => return self.counts.ignore(reason, frame.timestamp, frame.wire_length),
        };
        let clock = match self.clock.observe(packet.timestamp) {
            ClockStep::At(clock) => clock,
            ClockStep::Jumped { before, now } => {
                self.jump(before);
                now
            }
        };
        if packet.fragment != Fragment::Whole {
            self.first_fragments().resolve(&mut packet);
        }
        let hash = self.hasher.hash(&packet);
        let shard = hash.shard(self.waiting.len());
        let waiting = &mut self.waiting[shard].0;
        waiting.push(&packet, clock, hash);
        if waiting.len() == BATCH {
            self.send(shard);
        }
    }

    fn quiet(&mut self, clock: Option<Timestamp>) {
        let before = self.clock.now();
        if self.eras.load(Ordering::Acquire) != self.era {
            self.jump(before);
            self.clock = ObservationClock::new(self.active_timeout);
        } else if let Some(clock) = clock {
            self.clock.advance(clock);
        }
        self.flush(self.clock.now(), BatchEnd::Dry);
        self.gauges.set(&self.counts);
    }

    fn clock(&self) -> Timestamp {
        self.clock.now()
    }

    fn counts(&self) -> &FrameCounts {
        &self.counts
    }

    fn dropped(&mut self, drops: CaptureDrops) {
        count_drops(&mut self.counts, &mut self.dropped, drops, &self.gauges);
    }

    fn is_broken(&self) -> bool {
        false // its supervisor asks `Spread`, which has the threads
    }
}

/// What a shard has heard of its intakes.
pub(super) struct Heard {
    intakes: Vec<Voice>,
    /// The newest era that an intake has come to. What is said in an older one is of another time.
    era: u64,
    /// The furthest that was swept by in this era.
    swept: Timestamp,
}

/// What one intake said last.
#[derive(Clone, Copy, Default)]
struct Voice {
    /// It has read everything that was captured before this; nothing known before its first word in an era.
    vouched: Option<Timestamp>,
    /// The era it said so in.
    era: u64,
    metering: MeteringStatistics,
}

/// The time to sweep by, and what all intakes together counted.
#[derive(Clone, Copy)]
pub(super) struct Sweep {
    pub(super) clock: Timestamp,
    pub(super) metering: MeteringStatistics,
}

impl Heard {
    pub(super) fn new(intakes: usize) -> Heard {
        Heard { intakes: vec![Voice::default(); intakes], era: 0, swept: Timestamp::EPOCH }
    }

    /// Whether there are several intakes.
    pub(super) fn is_several(&self) -> bool {
        self.intakes.len() > 1
    }

    /// Takes note of what comes with a batch.
    #[inline]
    pub(super) fn hear(&mut self, batch: &Batch) -> Sweep {
        match self.is_several() {
            false => Sweep { clock: batch.clock, metering: batch.metering },
            true => self.hear_one_of_several(batch),
        }
    }

    fn hear_one_of_several(&mut self, batch: &Batch) -> Sweep {
        if batch.era > self.era {
            self.era = batch.era;
            self.swept = Timestamp::EPOCH;
        }
        let latest = self.latest();
        let voice = &mut self.intakes[batch.intake];
        voice.metering = batch.metering;
        voice.era = batch.era;
        if batch.end == BatchEnd::Drain {
            // The clock that it ends all Flows by is of the era that is over.
            voice.vouched = None;
            return Sweep { clock: batch.clock, metering: self.metering() };
        }
        let dry = batch.end == BatchEnd::Dry;
        let vouched = if dry { batch.clock.max(latest.minus(IN_FLIGHT)) } else { batch.clock };
        voice.vouched = (dry || batch.clock > Timestamp::EPOCH).then_some(vouched);
        // One that has not come to this era, or has said nothing in it, holds all sweeps back.
        if let Some(least) = self.intakes.iter().map(|voice| self.vouched(voice)).min().flatten() {
            self.swept = self.swept.max(least);
        }
        Sweep { clock: self.swept, metering: self.metering() }
    }

    fn vouched(&self, voice: &Voice) -> Option<Timestamp> {
        voice.vouched.filter(|_| voice.era == self.era)
    }

    /// When all intakes have ended: no packet can be overtaken any more.
    pub(super) fn last(&self) -> Sweep {
        Sweep { clock: self.latest(), metering: self.metering() }
    }

    fn latest(&self) -> Timestamp {
        self.intakes.iter().filter_map(|voice| self.vouched(voice)).max().unwrap_or_default()
    }

    fn metering(&self) -> MeteringStatistics {
        let mut sum = MeteringStatistics::default();
        for voice in &self.intakes {
            sum.merge(&voice.metering);
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::BatchEnd::{Drain, Dry, More};
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::EPOCH.plus(Duration::from_millis(millis))
    }

    fn says(heard: &mut Heard, intake: usize, millis: u64, end: BatchEnd) -> Timestamp {
        says_in(heard, intake, 0, millis, end)
    }

    fn says_in(heard: &mut Heard, intake: usize, era: u64, millis: u64, end: BatchEnd) -> Timestamp {
        let metering = MeteringStatistics { ignored_packets: millis, ..MeteringStatistics::default() };
        heard
            .hear(&Batch {
                observations: Observations::with_capacity(0),
                intake,
                era,
                clock: at(millis),
                end,
                metering,
            })
            .clock
    }

    #[test]
    fn sweeps_go_by_the_least_of_the_clocks() {
        let mut heard = Heard::new(2);
        assert_eq!(says(&mut heard, 0, 5_000, More), at(0), "the other has said nothing yet");
        assert_eq!(says(&mut heard, 1, 3_000, More), at(3_000));
        assert_eq!(says(&mut heard, 0, 9_000, More), at(3_000));
        assert_eq!(says(&mut heard, 1, 10_000, More), at(9_000));
        assert_eq!(heard.last().clock, at(10_000));
        assert_eq!(heard.last().metering.ignored_packets, 19_000, "the last words of both, added up");
    }

    #[test]
    fn an_intake_that_has_nothing_to_read_holds_back_by_what_may_be_on_its_way() {
        let mut heard = Heard::new(2);
        says(&mut heard, 0, 5_000, More);
        assert_eq!(says(&mut heard, 1, 0, Dry), at(4_800), "it never had a packet");
        assert_eq!(says(&mut heard, 0, 9_000, More), at(4_800), "it vouched for no more than it saw");
        assert_eq!(says(&mut heard, 1, 0, Dry), at(8_800));
        assert_eq!(says(&mut heard, 1, 8_850, More), at(8_850), "what it then reads is not overtaken");
    }

    #[test]
    fn after_a_jump_back_a_sweep_waits_for_every_intake_to_have_arrived() {
        let mut heard = Heard::new(2);
        says(&mut heard, 0, 100_000, More);
        assert_eq!(says(&mut heard, 1, 100_000, More), at(100_000));
        assert_eq!(
            says_in(&mut heard, 0, 1, 100_000, Drain),
            at(100_000),
            "all Flows end by the clock before"
        );
        assert_eq!(says_in(&mut heard, 0, 1, 1_000, More), at(0), "the other is still in the old era");
        assert_eq!(
            says_in(&mut heard, 0, 1, 1_000, Dry),
            at(0),
            "and what it said there is no time of this one"
        );
        assert_eq!(says_in(&mut heard, 1, 0, 100_050, More), at(0), "nor what it says");
        assert_eq!(says_in(&mut heard, 1, 1, 100_100, Drain), at(100_100), "it has seen the step as well");
        assert_eq!(says_in(&mut heard, 0, 1, 2_000, More), at(0), "and has not spoken since");
        assert_eq!(says_in(&mut heard, 1, 1, 1_900, More), at(1_900));
        assert_eq!(says_in(&mut heard, 1, 1, 0, Dry), at(1_900));
        assert_eq!(heard.last().clock, at(2_000));
    }

    #[test]
    fn a_single_intake_is_its_own_clock() {
        let mut heard = Heard::new(1);
        assert_eq!(says(&mut heard, 0, 7_000, More), at(7_000));
        assert_eq!(says(&mut heard, 0, 6_000, Dry), at(6_000));
    }

    /// A UDP packet over IPv4 from one host of two to the other: whole, or the first or the second half of a datagram.
    fn udp(fragment: Fragment) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
        frame.extend([0x45, 0, 0, 36, 0, 7]);
        frame.extend(match fragment {
            Fragment::Whole => [0, 0],
            Fragment::First => [0x20, 0],
            Fragment::Later => [0, 2],
        });
        frame.extend([64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]);
        frame.extend([4, 0, 0, 53, 0, 16, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
        frame
    }

    fn give(intake: &mut SpreadIntake, millis: u64, fragment: Fragment) {
        let data = udp(fragment);
        intake.frame(&Frame {
            timestamp: at(millis),
            wire_length: data.len() as u32,
            link_type: crate::capture::LinkType::ETHERNET,
            interface: 0,
            data: &data,
        });
    }

    fn two(shards: usize) -> (Spread, SpreadIntake, SpreadIntake) {
        let table = TableOptions { timeouts: crate::flow::Timeouts::default(), max_flows: 1000 };
        let options = PipelineOptions { layout: Layout::Shards(shards), table, live: true };
        let (spread, mut intakes) = Spread::start(options, 2, Vec::new()).unwrap();
        let second = intakes.pop().unwrap();
        (spread, intakes.pop().unwrap(), second)
    }

    #[test]
    fn a_later_fragment_finds_its_first_one_that_came_in_elsewhere() {
        let (spread, mut one, mut two) = two(2);
        give(&mut one, 1_000, Fragment::First);
        give(&mut two, 1_001, Fragment::Later);
        let report = spread.finish(&[one.end(), two.end()]).unwrap();
        assert_eq!((report.records.records, report.records.packets), (1, 2), "one Flow, with ports");
    }

    #[test]
    fn a_step_back_of_the_clock_is_counted_once_and_no_packet_is_lost_by_it() {
        for shards in [1, 3] {
            let (spread, mut one, mut two) = two(shards);
            for millis in 0..50 {
                give(&mut one, 1_000_000 + millis, Fragment::Whole);
                give(&mut two, 1_000_000 + millis, Fragment::Whole);
            }
            give(&mut one, 5_000, Fragment::Whole); // the first to see it
            give(&mut two, 1_000_100, Fragment::Whole); // read before the step
            two.quiet(Some(at(1_000_200)));
            assert_eq!(two.clock(), Timestamp::EPOCH, "it has followed into the new era");
            give(&mut two, 5_010, Fragment::Whole);
            give(&mut one, 5_020, Fragment::Whole);
            let report = spread.finish(&[one.end(), two.end()]).unwrap();
            assert_eq!(report.clock_resets, 1);
            assert_eq!((report.frames.metered(), report.records.packets), (104, 104));
            assert_eq!(report.records.records, 3, "before, what was in the ring yet, and after");
        }
    }
}
