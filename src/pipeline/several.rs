//! Several intakes over one set of shards: what each says of its clock in, the time that a shard may sweep by out.
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
//! read its ring empty for its clock as well, or for a quarter of a second ([`IN_FLIGHT`]) less than the furthest of
//! the others if that is later, since what it will read next was captured after it looked, or little before. An intake
//! that has said nothing yet holds all sweeps back, one on a dead interface reads nothing and so is empty.
//!
//! The furthest of the others is what the shard had heard when the intake spoke last, not what it has heard by now: an
//! intake may be kept from its processor between its look and its word, for as long as it takes the others to go far
//! on. What an intake says travels in the same channel as the packets, so what was heard before a word was said before
//! it; and the ring was found empty after that word, since a look tells of what it read before it finds no more.
//!
//! # When time jumps back
//!
//! All intakes live through the same step of the same system clock, but each sees it with its own next packet. The
//! first to see it opens a new era and ends all Flows, as the only intake does. Each of the others follows as soon as
//! it sees the step itself, or finds its ring empty when it has known of the era for a quarter of a second
//! ([`IN_FLIGHT`]), whichever is first: it forgets its clock and ends all Flows once more, since those that its last
//! packets before the step began lie in the future now; one that has read nothing in its era ends none. Until then it
//! stays in its era, and its packets are judged by the clock they were stamped by; one that followed sooner would
//! read packets from before the step in the new era, sweep it by their time, and take its next packet for another
//! step. So one step is counted once and ends what is open at most once an intake: more, shorter records around the
//! step, and the same sums.
//!
//! What remains, since a packet does not tell which step it came after:
//!
//! - Where the processors of the machine put packets into a ring in another order than they stamped them, and one
//!   from before the step comes after one from behind it, its intake sees two steps, as an only intake does.
//! - After two steps that an intake with a full ring has not come to, it follows the first with its packets into the
//!   era of the second, and counts the second once more.
//! - A step of about the active timeout is one for the intake whose clock is furthest and none for the others: they
//!   follow when their rings are empty, and no Flow is swept until then.
//! - Between the first intake's step and the last one's, a Flow whose packets come in by both may have times from
//!   before and from behind the step in one record.
//!
//! # Fragments
//!
//! The first fragments of all intakes are remembered in one table behind a lock, which fragments alone take: two
//! fragments of a datagram may come in by two interfaces.

use super::{Batch, BatchEnd, Moment};
use crate::capture::live::IN_FLIGHT;
use crate::export::MeteringStatistics;
use crate::time::Timestamp;

/// What a shard has heard of its intakes.
pub(super) struct Heard {
    intakes: Vec<Voice>,
    /// The furthest that was swept by, and nothing yet in the newest era that an intake has spoken in.
    swept: Moment,
}

/// What one intake said last.
#[derive(Clone, Copy, Default)]
struct Voice {
    /// It has read everything that was captured before this.
    vouched: Moment,
    /// The furthest that any had vouched for before it spoke, so before it then found its ring empty.
    known: Moment,
    metering: MeteringStatistics,
}

/// The time to sweep by, and what all intakes together counted.
#[derive(Clone, Copy)]
pub(super) struct Sweep {
    pub(super) now: Moment,
    pub(super) metering: MeteringStatistics,
}

impl Heard {
    pub(super) fn new(intakes: usize) -> Heard {
        Heard { intakes: vec![Voice::default(); intakes], swept: Moment::default() }
    }

    /// Whether there are several intakes.
    pub(super) fn is_several(&self) -> bool {
        self.intakes.len() > 1
    }

    /// Takes note of what comes with a batch.
    #[inline]
    pub(super) fn hear(&mut self, batch: &Batch) -> Sweep {
        match self.is_several() {
            false => Sweep { now: batch.now, metering: batch.metering },
            true => self.hear_one_of_several(batch),
        }
    }

    fn hear_one_of_several(&mut self, batch: &Batch) -> Sweep {
        let latest = self.latest();
        let voice = &mut self.intakes[batch.intake];
        let mut vouched = batch.now;
        if batch.end == BatchEnd::Dry && voice.known.era == vouched.era {
            vouched.clock = vouched.clock.max(voice.known.clock.minus(IN_FLIGHT));
        }
        *voice = Voice { vouched, known: latest, metering: batch.metering };
        // One that has not spoken in the newest era holds all sweeps in it back.
        let least = self.intakes.iter().map(|voice| voice.vouched).min().unwrap_or_default();
        let unswept = Moment { era: batch.now.era, clock: Timestamp::EPOCH };
        self.swept = self.swept.max(unswept).max(least);
        // All Flows end by the clock of the intake that saw time jump back.
        let now = if batch.end == BatchEnd::Drain { batch.now } else { self.swept };
        Sweep { now, metering: self.metering() }
    }

    /// When all intakes have ended: no packet can be overtaken any more.
    pub(super) fn last(&self) -> Sweep {
        Sweep { now: self.latest(), metering: self.metering() }
    }

    fn latest(&self) -> Moment {
        self.intakes.iter().map(|voice| voice.vouched).max().unwrap_or_default()
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
    use crate::capture::Frame;
    use crate::decode::Fragment;
    use crate::flow::{Observations, TableOptions};
    use crate::pipeline::{Backend, Intake, Layout, PipelineOptions};
    use std::time::{Duration, Instant};

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
                now: Moment { era, clock: at(millis) },
                end,
                metering,
            })
            .now
            .clock
    }

    #[test]
    fn sweeps_go_by_the_least_of_the_clocks() {
        let mut heard = Heard::new(2);
        assert_eq!(says(&mut heard, 0, 5_000, More), at(0), "the other has said nothing yet");
        assert_eq!(says(&mut heard, 1, 3_000, More), at(3_000));
        assert_eq!(says(&mut heard, 0, 9_000, More), at(3_000));
        assert_eq!(says(&mut heard, 1, 10_000, More), at(9_000));
        assert_eq!(heard.last().now.clock, at(10_000));
        assert_eq!(heard.last().metering.ignored_packets, 19_000, "the last words of both, added up");
    }

    #[test]
    fn an_intake_that_has_nothing_to_read_holds_back_by_what_may_be_on_its_way() {
        let mut heard = Heard::new(2);
        says(&mut heard, 0, 5_000, More);
        assert_eq!(says(&mut heard, 1, 0, Dry), at(0), "it never had a packet, and may have looked before");
        assert_eq!(says(&mut heard, 1, 0, Dry), at(4_750));
        assert_eq!(says(&mut heard, 0, 9_000, More), at(4_750), "it vouched for no more than it saw");
        assert_eq!(says(&mut heard, 1, 0, Dry), at(4_750));
        assert_eq!(says(&mut heard, 1, 0, Dry), at(8_750));
        assert_eq!(says(&mut heard, 1, 8_800, More), at(8_800), "what it then reads is not overtaken");
    }

    #[test]
    fn what_the_others_said_while_an_intake_was_held_up_is_not_vouched_for() {
        let mut heard = Heard::new(2);
        says(&mut heard, 0, 5_000, More);
        says(&mut heard, 1, 0, Dry);
        // It finds its ring empty at 5 s, and does not run for the minute before it can say so.
        assert_eq!(says(&mut heard, 0, 65_000, More), at(0));
        assert_eq!(says(&mut heard, 1, 0, Dry), at(4_750));
        // It reads what came in the meantime.
        assert_eq!(says(&mut heard, 1, 5_200, More), at(5_200));
        assert_eq!(says(&mut heard, 1, 64_900, Dry), at(64_900));
    }

    #[test]
    fn after_a_jump_back_a_sweep_waits_for_every_intake_to_have_arrived() {
        let mut heard = Heard::new(2);
        says(&mut heard, 0, 100_000, More);
        assert_eq!(says(&mut heard, 1, 100_000, More), at(100_000));
        assert_eq!(
            says_in(&mut heard, 0, 0, 100_000, Drain),
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
        assert_eq!(says_in(&mut heard, 1, 0, 100_100, Drain), at(100_100), "it has seen the step as well");
        assert_eq!(says_in(&mut heard, 0, 1, 2_000, More), at(0), "and has not spoken since");
        assert_eq!(says_in(&mut heard, 1, 1, 1_900, More), at(1_900));
        assert_eq!(says_in(&mut heard, 1, 1, 0, Dry), at(1_900));
        assert_eq!(heard.last().now.clock, at(2_000));
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

    fn give(intake: &mut Intake, millis: u64, fragment: Fragment) {
        let data = udp(fragment);
        intake.frame(&Frame {
            timestamp: at(millis),
            wire_length: data.len() as u32,
            link_type: crate::capture::LinkType::ETHERNET,
            interface: 0,
            data: &data,
        });
    }

    fn two(shards: usize) -> (Backend, Intake, Intake) {
        let table = TableOptions { timeouts: crate::flow::Timeouts::default(), max_flows: 1000 };
        let options = PipelineOptions { layout: Layout::Shards(shards), table, live: true };
        let (backend, mut intakes) = Backend::start(options, 2, Vec::new(), None).unwrap();
        let second = intakes.pop().unwrap();
        (backend, intakes.pop().unwrap(), second)
    }

    #[test]
    fn a_later_fragment_finds_its_first_one_that_came_in_elsewhere() {
        let (backend, mut one, mut two) = two(2);
        give(&mut one, 1_000, Fragment::First);
        give(&mut two, 1_001, Fragment::Later);
        let report = backend.finish(vec![one, two]).unwrap();
        assert_eq!((report.records.records, report.records.packets), (1, 2), "one Flow, with ports");
    }

    /// Has an intake find its ring empty until it follows the others into a new era.
    fn follow(intake: &mut Intake, millis: u64) {
        let looked = Instant::now();
        for later in [0, 1, 250] {
            intake.quiet(Some(at(millis)), looked + Duration::from_millis(later));
            assert_eq!(intake.clock(), at(millis), "packets from before the step may be on their way");
        }
        intake.quiet(Some(at(millis)), looked + Duration::from_millis(251));
        assert_eq!(intake.clock(), Timestamp::EPOCH, "it has followed into the new era");
    }

    #[test]
    fn packets_that_were_on_their_way_at_a_step_back_of_the_clock_do_not_make_it_two() {
        let (backend, mut one, mut two) = two(1);
        let looked = Instant::now();
        give(&mut one, 1_000_000, Fragment::Whole);
        give(&mut two, 1_000_000, Fragment::Whole);
        give(&mut one, 5_000, Fragment::Whole);
        two.quiet(None, looked);
        two.quiet(None, looked + Duration::from_millis(100));
        give(&mut two, 1_000_001, Fragment::Whole); // captured before the step
        give(&mut two, 5_001, Fragment::Whole);
        give(&mut one, 5_002, Fragment::Whole);
        one.quiet(None, looked + Duration::from_millis(500));
        let report = backend.finish(vec![one, two]).unwrap();
        assert_eq!((report.clock_resets, report.records.packets), (1, 6));
    }

    #[test]
    fn an_intake_that_never_had_a_packet_ends_no_flow_when_it_follows() {
        let (backend, mut one, mut two) = two(1);
        let looked = Instant::now();
        give(&mut one, 1_000_000, Fragment::Whole);
        give(&mut one, 5_000, Fragment::Whole);
        one.quiet(None, looked);
        for later in [0, 1, 251] {
            two.quiet(None, looked + Duration::from_millis(later));
        }
        give(&mut one, 5_001, Fragment::Whole);
        let report = backend.finish(vec![one, two]).unwrap();
        assert_eq!((report.clock_resets, report.records.records), (1, 2), "before the step, and behind it");
    }

    #[test]
    fn an_era_that_is_opened_while_another_is_followed_is_waited_for_anew() {
        let (backend, mut one, mut two) = two(1);
        let looked = Instant::now();
        give(&mut two, 3_000_000, Fragment::Whole);
        give(&mut one, 3_000_000, Fragment::Whole);
        give(&mut one, 2_000_000, Fragment::Whole);
        two.quiet(None, looked);
        two.quiet(None, looked);
        give(&mut one, 1_000_000, Fragment::Whole);
        two.quiet(None, looked + IN_FLIGHT);
        two.quiet(None, looked + IN_FLIGHT);
        assert_eq!(two.clock(), at(3_000_000), "packets from between the steps may be on their way");
        give(&mut two, 1_000_001, Fragment::Whole);
        let report = backend.finish(vec![one, two]).unwrap();
        assert_eq!((report.clock_resets, report.records.packets), (2, 5));
    }

    #[test]
    fn a_step_back_of_the_clock_is_counted_once_and_no_packet_is_lost_by_it() {
        for shards in [1, 3] {
            let (backend, mut one, mut two) = two(shards);
            for millis in 0..50 {
                give(&mut one, 1_000_000 + millis, Fragment::Whole);
                give(&mut two, 1_000_000 + millis, Fragment::Whole);
            }
            give(&mut one, 5_000, Fragment::Whole); // the first to see it
            give(&mut two, 1_000_100, Fragment::Whole); // read before the step
            follow(&mut two, 1_000_200);
            give(&mut two, 5_010, Fragment::Whole);
            give(&mut one, 5_020, Fragment::Whole);
            let report = backend.finish(vec![one, two]).unwrap();
            assert_eq!(report.clock_resets, 1);
            assert_eq!((report.frames.metered(), report.records.packets), (104, 104));
            assert_eq!(report.records.records, 3, "before, what was in the ring yet, and after");
        }
    }
}
