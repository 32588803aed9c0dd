//! Values of fields: octets in, a value out, by the encodings of RFC 7011 §6.

use crate::export::element::DataType;
use crate::time::Timestamp;

/// How the octets of an element are read: its abstract data type (RFC 7012 §3.1) without its size, which the template
/// gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the names are the RFC's
pub enum Kind {
    Unsigned,
    Signed,
    Float,
    Boolean,
    /// Octet arrays, and the structured data of RFC 6313, which is not taken apart.
    Octets,
    Text,
    Ipv4,
    Ipv6,
    Mac,
    Seconds,
    Milliseconds,
    Microseconds,
    Nanoseconds,
}

impl From<DataType> for Kind {
    fn from(data_type: DataType) -> Kind {
        match data_type {
            DataType::Unsigned8 | DataType::Unsigned16 | DataType::Unsigned32 | DataType::Unsigned64 => {
                Kind::Unsigned
            }
            DataType::Ipv4Address => Kind::Ipv4,
            DataType::Ipv6Address => Kind::Ipv6,
            DataType::DateTimeSeconds => Kind::Seconds,
            DataType::DateTimeMilliseconds => Kind::Milliseconds,
            DataType::DateTimeMicroseconds => Kind::Microseconds,
            DataType::DateTimeNanoseconds => Kind::Nanoseconds,
        }
    }
}

impl Kind {
    /// The kind of an informationElementDataType (RFC 5610 §3.1).
    pub(super) fn of_data_type(number: u64) -> Kind {
        match number {
            1..=4 => Kind::Unsigned,
            5..=8 => Kind::Signed,
            9 | 10 => Kind::Float,
            11 => Kind::Boolean,
            12 => Kind::Mac,
            13 => Kind::Text,
            14 => Kind::Seconds,
            15 => Kind::Milliseconds,
            16 => Kind::Microseconds,
            17 => Kind::Nanoseconds,
            18 => Kind::Ipv4,
            19 => Kind::Ipv6,
            _ => Kind::Octets,
        }
    }
}

/// The value of a field.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// An unsigned integer of any size.
    Unsigned(u64),
    /// A signed integer of any size.
    Signed(i64),
    /// A float32 or float64.
    Float(f64),
    /// A boolean.
    Boolean(bool),
    /// An IPv4 address.
    Ipv4([u8; 4]),
    /// An IPv6 address.
    Ipv6([u8; 16]),
    /// A MAC address.
    Mac([u8; 6]),
    /// A time, and how many decimal places of its second the element holds.
    Time(Timestamp, u8),
    /// A string; octets that are not UTF-8 are replaced, zeros that fill a fixed length left out.
    Text(String),
    /// Octets whose meaning is not known here, or whose length does not suit their element.
    Octets(Vec<u8>),
}

impl Value {
    /// Reads the octets of one field. Octets whose length does not suit `kind` are kept as they are.
    pub fn read(kind: Kind, octets: &[u8]) -> Value {
        suitable(kind, octets).unwrap_or_else(|| Value::Octets(octets.to_vec()))
    }

    /// The number, if it is an unsigned one.
    pub fn unsigned(&self) -> Option<u64> {
        match self {
            Value::Unsigned(number) => Some(*number),
            _ => None,
        }
    }

    /// The time, if it is one.
    pub fn time(&self) -> Option<Timestamp> {
        match self {
            Value::Time(time, _) => Some(*time),
            _ => None,
        }
    }
}

fn suitable(kind: Kind, octets: &[u8]) -> Option<Value> {
    Some(match kind {
        Kind::Unsigned => Value::Unsigned(unsigned(octets)?),
        Kind::Signed => {
            let unused_bits = 64 - 8 * octets.len().min(8) as u32;
            let number = unsigned(octets)?;
            // The sign stands in the first bit sent: it is moved to the top and drawn down again.
            Value::Signed(number.checked_shl(unused_bits).unwrap_or(0).cast_signed() >> unused_bits.min(63))
        }
        Kind::Float => match octets.len() {
            4 => Value::Float(f32::from_be_bytes(octets.try_into().ok()?).into()),
            _ => Value::Float(f64::from_be_bytes(octets.try_into().ok()?)),
        },
        Kind::Boolean => match octets {
            [1] => Value::Boolean(true),
            [2] => Value::Boolean(false),
            _ => return None,
        },
        Kind::Octets => return None,
        Kind::Text => {
            let text =
                octets.iter().rposition(|octet| *octet != 0).map_or(&octets[..0], |last| &octets[..=last]);
            Value::Text(String::from_utf8_lossy(text).into_owned())
        }
        Kind::Ipv4 => Value::Ipv4(octets.try_into().ok()?),
        Kind::Ipv6 => Value::Ipv6(octets.try_into().ok()?),
        Kind::Mac => Value::Mac(octets.try_into().ok()?),
        Kind::Seconds => {
            let seconds = u32::from_be_bytes(octets.try_into().ok()?);
            Value::Time(Timestamp::from_nanos(u64::from(seconds) * 1_000_000_000), 0)
        }
        Kind::Milliseconds => {
            let millis = u64::from_be_bytes(octets.try_into().ok()?);
            Value::Time(Timestamp::from_nanos(millis.saturating_mul(1_000_000)), 3)
        }
        Kind::Microseconds => Value::Time(ntp(octets.try_into().ok()?, 1_000_000), 6),
        Kind::Nanoseconds => Value::Time(ntp(octets.try_into().ok()?, 1_000_000_000), 9),
    })
}

fn unsigned(octets: &[u8]) -> Option<u64> {
    let mut wide = [0; 8];
    if octets.is_empty() || octets.len() > wide.len() {
        return None;
    }
    wide[8 - octets.len()..].copy_from_slice(octets);
    Some(u64::from_be_bytes(wide))
}

/// Seconds from 1900 (the NTP epoch) to 1970.
const NTP_TO_UNIX_SECONDS: u64 = 2_208_988_800;

/// An NTP timestamp (RFC 7011 §6.1.9, §6.1.10): seconds since 1900 and 2⁻³² of a second. Seconds before 1970 are
/// those of the era that begins in 2036 (§5.2).
///
/// The fraction is rounded to the next of `units_per_second`: exporters round it up or down, and rounding here gives
/// back what either began with.
fn ntp(octets: [u8; 8], units_per_second: u64) -> Timestamp {
    let both = u64::from_be_bytes(octets);
    let (seconds, fraction) = (both >> 32, both & u64::from(u32::MAX));
    let era = if seconds < NTP_TO_UNIX_SECONDS { 1 << 32 } else { 0 };
    let units = (fraction * units_per_second + (1 << 31)) >> 32;
    let seconds = seconds + era - NTP_TO_UNIX_SECONDS;
    Timestamp::from_nanos(seconds * 1_000_000_000 + units * (1_000_000_000 / units_per_second))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ntp_times_are_those_of_the_vectors_of_rfc_7011_readers() {
        let read = |kind, octets: u64| Value::read(kind, &octets.to_be_bytes()).time().unwrap().nanos();
        assert_eq!(read(Kind::Nanoseconds, 0xE93C_7F00_8000_0000), 1_704_067_200_500_000_000);
        assert_eq!(read(Kind::Microseconds, 0xE8FE_6F80_0000_0000), 1_700_000_000_000_000_000);
        // The era after 2036-02-07 06:28:16.
        assert_eq!(read(Kind::Nanoseconds, 0), 2_085_978_496_000_000_000);
    }

    #[test]
    fn a_fraction_that_was_rounded_up_or_down_gives_back_the_nanosecond_or_microsecond() {
        let mut nanos = 0u64;
        while nanos < 1_000_000_000 {
            let (down, up) = ((nanos << 32) / 1_000_000_000, (nanos << 32).div_ceil(1_000_000_000));
            for fraction in [down, up] {
                let octets = (NTP_TO_UNIX_SECONDS << 32 | fraction).to_be_bytes();
                assert_eq!(ntp(octets, 1_000_000_000).nanos(), nanos);
            }
            let micros = nanos / 1000;
            // The lower 11 bits of microseconds are to be zero.
            let (down, up) = (
                ((micros << 32) / 1_000_000) & !2047,
                (micros << 32).div_ceil(1_000_000).div_ceil(2048) * 2048,
            );
            for fraction in [down, up] {
                let octets = ((NTP_TO_UNIX_SECONDS << 32) + fraction).to_be_bytes();
                assert_eq!(ntp(octets, 1_000_000).nanos(), micros * 1000);
            }
            nanos += 99_991;
        }
    }

    #[test]
    fn integers_of_any_size_are_read_and_others_kept_as_octets() {
        assert_eq!(Value::read(Kind::Unsigned, &[1, 2, 3]), Value::Unsigned(0x010203));
        assert_eq!(Value::read(Kind::Unsigned, &[255; 8]), Value::Unsigned(u64::MAX));
        assert_eq!(Value::read(Kind::Unsigned, &[1; 9]), Value::Octets(vec![1; 9]));
        assert_eq!(Value::read(Kind::Unsigned, &[]), Value::Octets(vec![]));
        assert_eq!(Value::read(Kind::Signed, &[0xff, 0xfe]), Value::Signed(-2));
        assert_eq!(Value::read(Kind::Signed, &[0x7f]), Value::Signed(127));
        assert_eq!(Value::read(Kind::Signed, &[0x80, 0, 0, 0, 0, 0, 0, 0]), Value::Signed(i64::MIN));
        assert_eq!(Value::read(Kind::Ipv4, &[1, 2, 3]), Value::Octets(vec![1, 2, 3]));
        assert_eq!(Value::read(Kind::Float, &1.5f32.to_be_bytes()), Value::Float(1.5));
        assert_eq!(Value::read(Kind::Boolean, &[2]), Value::Boolean(false));
        assert_eq!(Value::read(Kind::Text, b"eth0\0\0"), Value::Text("eth0".to_owned()));
        assert_eq!(Value::read(Kind::Milliseconds, &[255; 8]), Value::Time(Timestamp::MAX, 3));
    }
}
