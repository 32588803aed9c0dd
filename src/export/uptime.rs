//! Flow Records in, times on a sysUpTime clock out: NetFlow v9's and v5's 32 bits of milliseconds since boot
//! (RFC 3954 §5.1).
//!
//! A collector takes the header's seconds × 1000 − sysUpTime for the boot and adds a record's first and last switched times
//! to it. So that this gives back every packet's time exact to the millisecond, the header's sysUpTime is the uptime
//! at the whole second that the header has, and the boot stays where it is. It lies a day before the first record,
//! so before every packet of records that come later but began earlier. The 32 bits hold 49.7 days; where a record
//! does not fit, the clock boots anew, as a device that restarts does: if they hold it together with all records that
//! were on the clock (captures jump by days), so that they do, with room for more on both sides; if not (captures
//! jump by years), a day before it.

use std::time::Duration;

use crate::flow::FlowRecord;
use crate::time::Timestamp;

/// A record's time on a clock whose uptime was 0 at `boot_millis`, in milliseconds since 1970. A time that the 32 bits do not
/// hold is held to the nearest that they do.
#[inline(always)] // for each record
pub fn sys_up_time(time: Timestamp, boot_millis: u64) -> u32 {
    u32::try_from(time.millis().saturating_sub(boot_millis)).unwrap_or(u32::MAX)
}

/// How far before the first record the boot is put, and how far apart the records of one packet may be.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

const DAY_MILLIS: u64 = DAY.as_millis() as u64;
const MILLISECOND_NANOS: u64 = 1_000_000;

/// A header's two times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderTime {
    /// Seconds since 1970.
    pub seconds: u32,
    /// The uptime at that second, in milliseconds.
    pub sys_up_time: u32,
}

/// The clock, the times of the records that were on it, and of those in the packet being filled.
#[derive(Debug, Default)]
pub struct Uptime {
    boot: Option<Boot>,
    before: Span,
    packet: Span,
}

/// Where the uptime is 0, and which times the clock holds with a day left for a header that is later. Kept in nanoseconds
/// too, so that a record is compared without a division.
#[derive(Clone, Copy, Debug)]
struct Boot {
    millis: u64,
    first: Timestamp,
    last: Timestamp,
}

impl Boot {
    fn new(millis: u64) -> Boot {
        let last_millis = millis.saturating_add(u64::from(u32::MAX) - DAY_MILLIS);
        Boot {
            millis,
            first: Timestamp::from_nanos(millis.saturating_mul(MILLISECOND_NANOS)),
            last: Timestamp::from_nanos(
                last_millis.saturating_mul(MILLISECOND_NANOS).saturating_add(MILLISECOND_NANOS - 1),
            ),
        }
    }
}

/// The times of some records.
#[derive(Clone, Copy, Debug)]
struct Span {
    oldest_due: Timestamp,
    newest_due: Timestamp,
    newest_end: Timestamp,
}

impl Default for Span {
    /// Of no records.
    fn default() -> Span {
        Span { oldest_due: Timestamp::MAX, newest_due: Timestamp::EPOCH, newest_end: Timestamp::EPOCH }
    }
}

impl Uptime {
    /// Where the uptime is 0, in milliseconds since 1970; before the first record, 1970.
    #[inline]
    pub fn boot_millis(&self) -> u64 {
        self.boot.map_or(0, |boot| boot.millis)
    }

    /// Whether `record` can go into the packet being filled: on the same clock, and due within a day of the others.
    #[inline]
    pub fn admits(&self, record: &FlowRecord) -> bool {
        let packet = &self.packet;
        record.ended.plus(DAY) >= packet.newest_due
            && record.ended <= packet.oldest_due.plus(DAY)
            && self.holds(record)
    }

    /// Whether the clock holds the record, and a day more for a header that is later.
    #[inline]
    fn holds(&self, record: &FlowRecord) -> bool {
        self.boot.is_some_and(|boot| record.start >= boot.first && record.ended.max(record.end) <= boot.last)
    }

    /// Begins a packet with `record`, on a clock that holds it.
    pub fn begin_packet(&mut self, record: &FlowRecord) {
        self.packet = Span::default();
        if !self.holds(record) {
            let boot = self.boot_with_those_before(record).unwrap_or_else(|| {
                self.before = Span::default();
                let latest = record.ended.max(record.end).millis() + DAY_MILLIS;
                let before = record.start.millis().saturating_sub(DAY_MILLIS);
                // A record longer than the 32 bits hold keeps its end; its start is held to the boot.
                before.max(latest.saturating_sub(u64::from(u32::MAX)))
            });
            self.boot = Some(Boot::new(boot));
        }
    }

    /// Where to put the boot so that the clock holds `record` and those that were on it, if there is room for two days more:
    /// with less it would soon have to be put elsewhere again.
    fn boot_with_those_before(&self, record: &FlowRecord) -> Option<u64> {
        let before = &self.before;
        if before.oldest_due > before.newest_due {
            return None;
        }
        let first = record.start.min(before.oldest_due).millis().saturating_sub(DAY_MILLIS);
        let last = record.ended.max(record.end).max(before.newest_due).millis() + DAY_MILLIS;
        let room = u64::from(u32::MAX).checked_sub(last - first)?;
        (room >= 2 * DAY_MILLIS).then(|| first.saturating_sub(room / 2))
    }

    /// Takes note of a record put into the packet.
    #[inline]
    pub fn add(&mut self, record: &FlowRecord) {
        let packet = &mut self.packet;
        packet.oldest_due = packet.oldest_due.min(record.ended);
        packet.newest_due = packet.newest_due.max(record.ended);
        packet.newest_end = packet.newest_end.max(record.end);
    }

    /// Ends the packet.
    pub fn end_packet(&mut self) {
        let (before, packet) = (&mut self.before, std::mem::take(&mut self.packet));
        before.oldest_due = before.oldest_due.min(packet.oldest_due);
        before.newest_due = before.newest_due.max(packet.newest_due);
    }

    /// The header's times for a packet that leaves at `now`: its whole second, or the one after the newest end where that
    /// is later; a record that ended after the export would be taken for one from before a wrap.
    pub fn header(&mut self, now: Timestamp) -> HeaderTime {
        let seconds = now.seconds().max(self.packet.newest_end.millis().div_ceil(1000));
        let millis = seconds * 1000;
        let boot = self.boot.get_or_insert_with(|| Boot::new(millis.saturating_sub(DAY_MILLIS))).millis;
        // Both wrap as RFC 3954 §5.1 has it: seconds in 2106, uptime only in a run that saw no record for 48 days.
        HeaderTime { seconds: seconds as u32, sys_up_time: millis.wrapping_sub(boot) as u32 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::testing::record_v4;

    fn at(seconds: u64, millis: u64) -> Timestamp {
        Timestamp::from_nanos((seconds * 1000 + millis) * 1_000_000)
    }

    fn record(start: Timestamp, end: Timestamp, ended: Timestamp) -> FlowRecord {
        FlowRecord { start, end, ended, ..record_v4() }
    }

    fn boot(header: HeaderTime) -> u64 {
        u64::from(header.seconds) * 1000 - u64::from(header.sys_up_time)
    }

    #[test]
    fn the_header_gives_one_boot_exact_to_the_millisecond() {
        let mut clock = Uptime::default();
        let first = record(at(1_700_000_000, 123), at(1_700_000_001, 7), at(1_700_000_016, 7));
        assert!(!clock.admits(&first));
        clock.begin_packet(&first);
        clock.add(&first);
        assert_eq!(clock.boot_millis(), (1_700_000_000 - 86_400) * 1000 + 123);
        for now in [at(1_700_000_016, 7), at(1_700_000_016, 999), at(1_700_900_000, 500)] {
            assert_eq!(boot(clock.header(now)), clock.boot_millis());
        }
        assert_eq!(clock.header(at(1_700_000_016, 999)).seconds, 1_700_000_016);
    }

    #[test]
    fn no_record_ends_after_its_header() {
        let mut clock = Uptime::default();
        let first = record(at(10, 1), at(10, 1), at(10, 1));
        clock.begin_packet(&first);
        clock.add(&first);
        assert_eq!(clock.header(at(10, 1)).seconds, 11);
    }

    #[test]
    fn records_a_day_and_a_bit_apart_are_not_of_one_packet() {
        let mut clock = Uptime::default();
        let first = record(at(10, 0), at(10, 0), at(25, 0));
        clock.begin_packet(&first);
        clock.add(&first);
        assert!(clock.admits(&record(at(10, 0), at(10, 0), at(25 + 86_400, 0))));
        assert!(!clock.admits(&record(at(10, 0), at(10, 0), at(25 + 86_400, 1))));
    }

    #[test]
    fn the_clock_boots_anew_where_32_bits_do_not_hold_a_record() {
        let mut clock = Uptime::default();
        let late = record(at(1_700_000_000, 0), at(1_700_000_001, 0), at(1_700_000_016, 0));
        clock.begin_packet(&late);
        clock.end_packet();
        for other in [900_000_000, 1_700_000_000 + 49 * 86_400] {
            let record = record(at(other, 0), at(other, 0), at(other + 15, 0));
            assert!(!clock.admits(&record));
            clock.begin_packet(&record);
            assert!(clock.admits(&record));
            assert_eq!(clock.boot_millis(), (other - 86_400) * 1000);
        }
    }

    /// The boots of a run whose packets have a record each, `days` after 1970.
    fn boots(days: impl IntoIterator<Item = u64>) -> Vec<u64> {
        let mut clock = Uptime::default();
        let mut boots = Vec::new();
        for day in days {
            let record = record(at(day * 86_400, 0), at(day * 86_400, 0), at(day * 86_400 + 15, 0));
            if !clock.admits(&record) {
                clock.begin_packet(&record);
            }
            assert!(clock.admits(&record));
            clock.add(&record);
            assert_eq!(boot(clock.header(record.ended)), clock.boot_millis());
            clock.end_packet();
            boots.push(clock.boot_millis() / DAY_MILLIS);
        }
        boots.dedup();
        boots
    }

    #[test]
    fn a_capture_that_jumps_about_within_a_month_boots_twice() {
        assert_eq!(boots([100, 98, 120, 96, 100, 110, 90, 120]).len(), 2);
        assert_eq!(boots([100, 97, 94, 91, 88, 85, 82, 79]).len(), 2);
    }

    #[test]
    fn the_clock_boots_as_seldom_as_the_records_allow() {
        assert_eq!(boots(100..200), [99, 147, 195], "forward, each holds 48 days");
        let back = boots((100..=1_000).rev()).len();
        assert!(back <= 100, "{back} boots on 900 days back, of 49 each");
        assert_eq!(boots([100, 500, 100, 500]), [99, 499, 99, 499], "years apart");
    }

    #[test]
    fn a_record_longer_than_the_clock_keeps_its_end() {
        let mut clock = Uptime::default();
        let long = record(at(0, 0), at(1_700_000_000, 0), at(1_700_000_000, 0));
        clock.begin_packet(&long);
        clock.add(&long);
        assert_eq!(boot(clock.header(at(1_700_000_000, 0))), clock.boot_millis());
        let longest = record(Timestamp::EPOCH, Timestamp::MAX, Timestamp::MAX);
        clock.begin_packet(&longest);
        clock.add(&longest);
        clock.header(Timestamp::MAX);
    }
}
