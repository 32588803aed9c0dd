//! Time: the [`Timestamp`] every packet carries, and the one place that reads the system clock.
//!
//! A timestamp is nanoseconds since 1970-01-01 00:00:00 UTC, from 0 to 2⁶³−1 (the year 2262). Packets carry time; no
//! stage asks the clock. Only the Exporting Process needs wall-clock time (RFC 7011 §3.1, Export Time), and it
//! gets it from [`Timestamp::now`].

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytemuck::NoUninit;

/// Nanoseconds since 1970-01-01 00:00:00 UTC, 0 to 2⁶³−1.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, NoUninit)]
#[repr(transparent)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The earliest timestamp: 1970-01-01 00:00:00 UTC.
    pub const EPOCH: Timestamp = Timestamp(0);
    /// The latest timestamp: 2⁶³−1 ns after the epoch.
    pub const MAX: Timestamp = Timestamp(i64::MAX as u64);

    /// A timestamp `nanos` nanoseconds after the epoch; what lies past [`Timestamp::MAX`] is held to it.
    #[inline]
    pub const fn from_nanos(nanos: u64) -> Timestamp {
        if nanos > i64::MAX as u64 { Timestamp::MAX } else { Timestamp(nanos) }
    }

    /// The timestamp that had these [`Timestamp::nanos`].
    #[inline]
    pub(crate) const fn again(nanos: u64) -> Timestamp {
        debug_assert!(nanos <= Timestamp::MAX.0);
        Timestamp(nanos)
    }

    /// Nanoseconds since the epoch.
    #[inline]
    pub const fn nanos(self) -> u64 {
        self.0
    }

    /// Milliseconds since the epoch, rounded down (dateTimeMilliseconds, RFC 7011 §6.1.8).
    #[inline]
    pub const fn millis(self) -> u64 {
        self.0 / 1_000_000
    }

    /// Seconds since the epoch, rounded down (dateTimeSeconds, RFC 7011 §6.1.7).
    #[inline]
    pub const fn seconds(self) -> u64 {
        self.0 / 1_000_000_000
    }

    /// How long after `earlier` this is; zero if it is not after it.
    #[inline]
    pub const fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// This timestamp and `later` more, held to [`Timestamp::MAX`].
    #[inline]
    pub fn plus(self, later: Duration) -> Timestamp {
        let nanos = u64::try_from(later.as_nanos()).unwrap_or(u64::MAX);
        Timestamp::from_nanos(self.0.saturating_add(nanos))
    }

    /// This timestamp and `earlier` less, held to [`Timestamp::EPOCH`].
    #[inline]
    pub fn minus(self, earlier: Duration) -> Timestamp {
        let nanos = u64::try_from(earlier.as_nanos()).unwrap_or(u64::MAX);
        Timestamp(self.0.saturating_sub(nanos))
    }

    /// The system clock.
    pub fn now() -> Timestamp {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::EPOCH.plus(since_epoch)
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09}s", self.0 / 1_000_000_000, self.0 % 1_000_000_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_held_to_what_63_bits_hold() {
        assert_eq!(Timestamp::from_nanos(u64::MAX), Timestamp::MAX);
        assert_eq!(Timestamp::MAX.plus(Duration::from_secs(1)), Timestamp::MAX);
        assert_eq!(Timestamp::EPOCH.plus(Duration::MAX), Timestamp::MAX);
    }

    #[test]
    fn since_is_zero_when_time_went_back() {
        let (early, late) = (Timestamp::from_nanos(5), Timestamp::from_nanos(7));
        assert_eq!(late.since(early), Duration::from_nanos(2));
        assert_eq!(early.since(late), Duration::ZERO);
    }
}
