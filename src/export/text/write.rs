//! The smallest parts of a row: numbers, addresses and times appended to a buffer.

use crate::decode::IpVersion;
use crate::time::Timestamp;

/// A decimal integer.
#[inline]
pub(crate) fn integer(out: &mut Vec<u8>, value: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// `digits` decimal digits of `value`, zeros in front.
#[inline]
pub(crate) fn digits(out: &mut Vec<u8>, value: u64, digits: usize) {
    let (mut text, mut rest) = ([b'0'; 20], value);
    for place in text[20 - digits..].iter_mut().rev() {
        *place = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    out.extend_from_slice(&text[20 - digits..]);
}

const HEX: &[u8; 16] = b"0123456789abcdef";

/// `0x` and at least three hexadecimal digits: the twelve flag bits of a TCP header.
#[inline]
pub(crate) fn flags_hex(out: &mut Vec<u8>, flags: u16) {
    let digit = |shift: u16| HEX[usize::from(flags >> shift & 15)];
    out.extend_from_slice(b"0x");
    if flags > 0xfff {
        out.push(digit(12));
    }
    out.extend_from_slice(&[digit(8), digit(4), digit(0)]);
}

/// Octets as hexadecimal digits with nothing between them.
pub(crate) fn hex(out: &mut Vec<u8>, octets: &[u8]) {
    for octet in octets {
        out.extend_from_slice(&[HEX[usize::from(octet >> 4)], HEX[usize::from(octet & 15)]]);
    }
}

/// An address as [`FlowRecord`](crate::flow::FlowRecord) holds it.
#[inline]
pub(crate) fn address(out: &mut Vec<u8>, version: IpVersion, octets: &[u8; 16]) {
    match version {
        IpVersion::V4 => ipv4(out, &octets[..4]),
        IpVersion::V6 => ipv6(out, octets),
    }
}

/// Dotted decimals.
#[inline]
pub(crate) fn ipv4(out: &mut Vec<u8>, octets: &[u8]) {
    for (at, octet) in octets.iter().enumerate() {
        if at > 0 {
            out.push(b'.');
        }
        integer(out, *octet);
    }
}

/// The canonical text of RFC 5952: lower case, no leading zeros, the first longest run of at least two zero groups as
/// `::`, and an IPv4-mapped address (and no other) with its last 32 bits as dotted decimals.
#[inline]
pub(crate) fn ipv6(out: &mut Vec<u8>, octets: &[u8; 16]) {
    if octets[..10] == [0; 10] && octets[10..12] == [0xff, 0xff] {
        out.extend_from_slice(b"::ffff:");
        return ipv4(out, &octets[12..]);
    }
    let mut groups = [0u16; 8];
    for (group, pair) in groups.iter_mut().zip(octets.chunks_exact(2)) {
        *group = u16::from_be_bytes([pair[0], pair[1]]);
    }
    let (mut run, mut longest) = (0..0, 0..0);
    for (at, group) in groups.iter().enumerate() {
        if *group != 0 {
            run = at + 1..at + 1;
        } else {
            run.end = at + 1;
            if run.len() > longest.len() {
                longest = run.clone();
            }
        }
    }
    if longest.len() < 2 {
        return groups_between_colons(out, &groups);
    }
    groups_between_colons(out, &groups[..longest.start]);
    out.extend_from_slice(b"::");
    groups_between_colons(out, &groups[longest.end..]);
}

#[inline]
fn groups_between_colons(out: &mut Vec<u8>, groups: &[u16]) {
    for (at, group) in groups.iter().enumerate() {
        if at > 0 {
            out.push(b':');
        }
        // Digits from the first that is not zero; of a zero group, one.
        let digits = (16 - group.leading_zeros()).div_ceil(4).max(1);
        for place in (0..digits).rev() {
            out.push(HEX[usize::from(group >> (place * 4) & 15)]);
        }
    }
}

/// Writes dates and times of day; the calendar is asked only when the day is not that of the time before.
#[derive(Clone, Debug)]
pub(crate) struct UtcTimes {
    day: u64,
    date: [u8; 10],
}

impl Default for UtcTimes {
    fn default() -> UtcTimes {
        UtcTimes { day: 0, date: *b"1970-01-01" }
    }
}

impl UtcTimes {
    /// RFC 3339 in UTC with `places` (0 to 9) decimal places of the second, the rest cut off.
    #[inline]
    pub(crate) fn rfc3339(&mut self, out: &mut Vec<u8>, time: Timestamp, places: usize) {
        let seconds = time.seconds();
        let (day, second) = (seconds / 86_400, seconds % 86_400);
        if day != self.day {
            self.turn_to(day);
        }
        out.extend_from_slice(&self.date);
        let two = |value: u64| [b'0' + (value / 10) as u8, b'0' + (value % 10) as u8];
        let ([h0, h1], [m0, m1], [s0, s1]) = (two(second / 3600), two(second / 60 % 60), two(second % 60));
        out.extend_from_slice(&[b'T', h0, h1, b':', m0, m1, b':', s0, s1]);
        if places > 0 {
            out.push(b'.');
            let places = places.min(9);
            digits(out, time.nanos() % 1_000_000_000 / 10u64.pow(9 - places as u32), places);
        }
        out.push(b'Z');
    }

    #[cold]
    fn turn_to(&mut self, day: u64) {
        // A Timestamp ends in the year 2262, so the calendar always has the day.
        let second = i64::try_from(day * 86_400).unwrap_or(0);
        let date = jiff::Timestamp::from_second(second).unwrap_or_default().to_zoned(jiff::tz::TimeZone::UTC);
        let year = date.year().unsigned_abs();
        let two = |number: u16| [b'0' + (number / 10) as u8, b'0' + (number % 10) as u8];
        let ([y0, y1], [y2, y3]) = (two(year / 100), two(year % 100));
        let [m0, m1] = two(date.month().unsigned_abs().into());
        let [d0, d1] = two(date.day().unsigned_abs().into());
        self.date = [y0, y1, y2, y3, b'-', m0, m1, b'-', d0, d1];
        self.day = day;
    }
}
