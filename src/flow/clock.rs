//! The observation clock: the largest timestamp so far of the metered packets.
//!
//! In: the timestamp of each metered packet, in the order they are read. Out: the clock, or the news that time itself
//! has jumped back. Ignored and filtered frames do not move it.

use std::time::Duration;

use crate::time::Timestamp;

/// What one packet's timestamp did to the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockStep {
    /// The clock now stands here.
    At(Timestamp),
    /// The timestamp lies more than the active timeout behind the clock: every open Flow ends as of `before`, and
    /// the clock restarts at `now`.
    Jumped {
        /// Where the clock stood.
        before: Timestamp,
        /// Where it stands now: the packet's timestamp.
        now: Timestamp,
    },
}

/// The clock that all deadlines are measured by.
#[derive(Clone, Debug)]
pub struct ObservationClock {
    /// The epoch until it starts; a first packet of that very nanosecond does not start it.
    now: Timestamp,
    tolerance: Duration,
}

impl ObservationClock {
    /// A clock that has not started; a packet more than `active_timeout` behind it makes it jump.
    pub fn new(active_timeout: Duration) -> ObservationClock {
        ObservationClock { now: Timestamp::EPOCH, tolerance: active_timeout }
    }

    /// Takes the timestamp of a metered packet.
    #[inline]
    pub fn observe(&mut self, timestamp: Timestamp) -> ClockStep {
        if timestamp < self.now {
            return self.observe_late(timestamp);
        }
        self.now = timestamp;
        ClockStep::At(timestamp)
    }

    #[cold]
    #[inline(never)]
    fn observe_late(&mut self, timestamp: Timestamp) -> ClockStep {
        let before = self.now;
        if before.since(timestamp) <= self.tolerance {
            return ClockStep::At(before);
        }
        self.now = timestamp;
        ClockStep::Jumped { before, now: timestamp }
    }

    /// Moves a clock that has started on to `to`, without a packet; never back. For a quiet live interface.
    pub fn advance(&mut self, to: Timestamp) {
        if self.now > Timestamp::EPOCH {
            self.now = self.now.max(to);
        }
    }

    /// Makes this a clock that has not started again.
    pub fn restart(&mut self) {
        self.now = Timestamp::EPOCH;
    }

    /// Where the clock stands; the epoch before the first packet.
    pub fn now(&self) -> Timestamp {
        self.now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::EPOCH.plus(Duration::from_secs(seconds))
    }

    #[test]
    fn a_late_packet_sees_the_clock_as_it_stands() {
        let mut clock = ObservationClock::new(Duration::from_secs(60));
        assert_eq!(clock.observe(at(100)), ClockStep::At(at(100)));
        assert_eq!(
            clock.observe(at(40)),
            ClockStep::At(at(100)),
            "exactly the active timeout behind is late only"
        );
        assert_eq!(clock.observe(at(101)), ClockStep::At(at(101)));
    }

    #[test]
    fn more_than_the_active_timeout_behind_is_a_jump() {
        let mut clock = ObservationClock::new(Duration::from_secs(60));
        clock.observe(at(100));
        let step = clock.observe(Timestamp::from_nanos(at(40).nanos() - 1));
        assert_eq!(
            step,
            ClockStep::Jumped { before: at(100), now: Timestamp::from_nanos(at(40).nanos() - 1) }
        );
        clock.restart();
        assert_eq!(clock.observe(at(1)), ClockStep::At(at(1)));
    }

    #[test]
    fn a_clock_that_has_not_started_does_not_advance() {
        let mut clock = ObservationClock::new(Duration::from_secs(60));
        clock.advance(at(9));
        assert_eq!(clock.now(), Timestamp::EPOCH);
        clock.observe(at(5));
        clock.advance(at(9));
        clock.advance(at(7));
        assert_eq!(clock.now(), at(9));
    }
}
