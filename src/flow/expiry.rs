//! When a Flow ends, and why (RFC 5470 §5.1.1; flowEndReason, IANA Information Element 136).
//!
//! A Flow has two deadlines. *Quiet* is its last packet plus the idle timeout, or plus the linger once it has seen a
//! FIN or a RST (it is *closing*). *Old* is its first packet plus the active timeout. It ends at the earlier of the
//! two, a tie going to quiet; a packet that comes when the clock has reached it belongs to a new Flow.

use std::time::Duration;

use bytemuck::NoUninit;

use crate::time::Timestamp;

/// flowEndReason (IANA Information Element 136).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, NoUninit)]
#[repr(u8)]
pub enum EndReason {
    /// The idle timeout passed without a packet.
    #[default]
    Idle = 1,
    /// The active timeout passed since the first packet.
    Active = 2,
    /// The Flow was seen to end: FIN or RST.
    End = 3,
    /// Ended by the meter itself: end of input, shutdown, clock jump.
    Forced = 4,
    /// Ended to make room in the Flow table, or because a counter was full.
    LackOfResources = 5,
}

/// The longest timeout that is accepted: 100 days. Sums of a timestamp and a timeout then never overflow.
pub const LONGEST_TIMEOUT: Duration = Duration::from_secs(100 * 86_400);

/// The three timeouts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// A Flow is reported at the latest this long after its first packet. More than 0.
    pub active: Duration,
    /// A Flow without a packet for this long has ended; 0 gives each packet a record of its own.
    pub idle: Duration,
    /// A Flow that saw a FIN or a RST waits this long for stragglers; never longer than `idle`. 0 ends it at once.
    pub linger: Duration,
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts {
            active: Duration::from_secs(60),
            idle: Duration::from_secs(15),
            linger: Duration::from_secs(1),
        }
    }
}

/// [`Timeouts`] in nanoseconds, and the arithmetic of deadlines.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadlines {
    active: u64,
    /// Quiet time allowed, indexed by whether the Flow is closing.
    quiet: [u64; 2],
    /// The same of a Flow of one packet, which has both deadlines.
    one_packet: [u64; 2],
}

impl Deadlines {
    pub(super) fn new(timeouts: &Timeouts) -> Deadlines {
        let nanos = |timeout: Duration| timeout.min(LONGEST_TIMEOUT).as_nanos() as u64;
        let idle = nanos(timeouts.idle);
        let active = nanos(timeouts.active);
        let quiet = [idle, nanos(timeouts.linger).min(idle)];
        Deadlines { active, quiet, one_packet: quiet.map(|quiet| quiet.min(active)) }
    }

    /// Whether a FIN or RST ends a Flow at once.
    #[inline]
    pub(super) fn ends_at_once(&self) -> bool {
        self.quiet[1] == 0
    }

    /// The shorter of idle and active timeout, in nanoseconds: no deadline of a Flow lies further ahead of its packets.
    pub(super) fn nearest_nanos(&self) -> u64 {
        self.quiet[0].min(self.active)
    }

    /// The deadline, in nanoseconds since the epoch, of a Flow whose packets lie between `first` and `last`.
    #[inline]
    pub(super) fn deadline(&self, first: u64, last: u64, closing: bool) -> u64 {
        (last + self.quiet[usize::from(closing)]).min(first + self.active)
    }

    /// Whether no deadline has come by `clock`, which is not before `last`; false also if it is before, where
    /// [`Deadlines::deadline`] tells.
    #[inline(always)]
    pub(super) fn are_ahead(&self, first: u64, last: u64, closing: bool, clock: u64) -> bool {
        clock.wrapping_sub(last) < self.quiet[usize::from(closing)] && clock.wrapping_sub(first) < self.active
    }

    /// How long after its one packet a Flow ends, in nanoseconds.
    #[inline]
    pub(super) fn of_one_packet(&self, closing: bool) -> u64 {
        self.one_packet[usize::from(closing)]
    }

    /// Which of the deadlines it is.
    #[inline]
    pub(super) fn reason(&self, first: u64, last: u64, closing: bool) -> EndReason {
        let quiet = last + self.quiet[usize::from(closing)];
        match (quiet <= first + self.active, closing) {
            (false, _) => EndReason::Active,
            (true, false) => EndReason::Idle,
            (true, true) => EndReason::End,
        }
    }

    /// [`Deadlines::deadline`] as a timestamp.
    #[inline]
    pub(super) fn deadline_timestamp(&self, first: u64, last: u64, closing: bool) -> Timestamp {
        Timestamp::from_nanos(self.deadline(first, last, closing))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    fn deadlines(active: u64, idle: u64, linger: u64) -> Deadlines {
        Deadlines::new(&Timeouts {
            active: Duration::from_secs(active),
            idle: Duration::from_secs(idle),
            linger: Duration::from_secs(linger),
        })
    }

    #[test]
    fn the_earlier_deadline_wins_and_a_tie_goes_to_quiet() {
        let d = deadlines(60, 15, 1);
        assert_eq!((d.deadline(0, 10 * S, false), d.reason(0, 10 * S, false)), (25 * S, EndReason::Idle));
        assert_eq!((d.deadline(0, 50 * S, false), d.reason(0, 50 * S, false)), (60 * S, EndReason::Active));
        assert_eq!((d.deadline(0, 45 * S, false), d.reason(0, 45 * S, false)), (60 * S, EndReason::Idle));
        assert_eq!((d.deadline(0, 10 * S, true), d.reason(0, 10 * S, true)), (11 * S, EndReason::End));
    }

    #[test]
    fn linger_is_never_more_than_the_idle_timeout() {
        assert_eq!(deadlines(60, 2, 5).deadline(0, 0, true), 2 * S);
        assert!(deadlines(60, 0, 5).ends_at_once());
    }

    #[test]
    fn deadlines_are_ahead_until_the_clock_has_reached_one() {
        let d = deadlines(60, 15, 1);
        for (last, closing) in [(10 * S, false), (50 * S, false), (45 * S, false), (10 * S, true)] {
            let deadline = d.deadline(0, last, closing);
            assert!(d.are_ahead(0, last, closing, last) && d.are_ahead(0, last, closing, deadline - 1));
            assert!(!d.are_ahead(0, last, closing, deadline) && !d.are_ahead(0, last, closing, u64::MAX));
            assert!(!d.are_ahead(0, last, closing, last - 1), "not told");
        }
    }

    #[test]
    fn the_longest_timeout_at_the_latest_timestamp_does_not_overflow() {
        let d =
            Deadlines::new(&Timeouts { active: Duration::MAX, idle: Duration::MAX, linger: Duration::MAX });
        let latest = Timestamp::MAX.nanos();
        assert!(d.deadline(latest, latest, false) > latest);
        assert_eq!(d.deadline_timestamp(latest, latest, false), Timestamp::MAX);
    }
}
