//! pcapng: its blocks, their lengths, and the time that an interface's options make of ticks.

use std::io;

use super::captures::{BIG, LITTLE, pcapng_of_everything};
use super::{Short, read_octets, read_stream};
use crate::capture::file::Reason;
use crate::capture::file::input::Input;
use crate::capture::file::pcapng::MOST_INTERFACES;
use crate::capture::file::reader::Reader;

#[test]
fn pcapng_sections_interfaces_and_every_kind_of_packet_block_are_read() {
    let (file, expected) = pcapng_of_everything();
    let (frames, failure) = read_octets(&file);
    assert!(failure.is_none(), "{failure:?}");
    assert_eq!(frames, expected);
}

#[test]
fn ticks_become_nanoseconds_at_any_resolution_and_offset() {
    const MOST: u64 = i64::MAX as u64;
    let cases: [(u8, i64, u64, u64); 25] = [
        (0, 0, 7, 7_000_000_000),
        (0, 0, u64::MAX, MOST),
        (3, 0, 1_500, 1_500_000_000),
        (6, 0, 1, 1_000),
        (6, 0, u64::MAX / 2, MOST),
        (6, 5, 1, 5_000_001_000),
        (6, -1, 1_000_001, 1_000),
        (6, -1, 999_999, 0),
        (6, i64::MIN, u64::MAX, 0),
        (6, i64::MAX, 0, MOST),
        (9, 0, u64::MAX, MOST),
        (9, 0, MOST, MOST),
        (9, 0, MOST - 1, MOST - 1),
        (10, 0, 19, 1),
        (12, 0, 1_999, 1),
        (28, 0, u64::MAX, 1),
        (28, 0, 9_999_999_999_999_999_999, 0),
        (29, 0, u64::MAX, 0),
        (127, 0, u64::MAX, 0),
        (127, 3, u64::MAX, 3_000_000_000),
        (0x80, 0, 2, 2_000_000_000),
        (0x8A, 0, 1_536, 1_500_000_000),
        (0x80 | 32, 0, 1 << 31, 500_000_000),
        (0x80 | 93, 0, u64::MAX, 1),
        (0xFF, 2, u64::MAX, 2_000_000_000),
    ];
    for (tsresol, tsoffset, ticks, nanos) in cases {
        for order in [LITTLE, BIG] {
            let tsoffset = if order.big { tsoffset.to_be_bytes() } else { tsoffset.to_le_bytes() };
            let options = [order.option(9, &[tsresol]), order.option(14, &tsoffset)].concat();
            let file = [order.section(), order.interface(1, 0, &options), order.enhanced(0, ticks, 0, &[])];
            let (frames, _) = read_octets(&file.concat());
            assert_eq!(frames[0].nanos, nanos, "{tsresol:#x} {ticks}");
        }
    }
}

#[test]
fn blocks_larger_than_the_buffer_are_stepped_over_without_being_held() {
    let long = vec![3; 3_000_000];
    let options = [LITTLE.option(2_988, &long[..65_000]).repeat(20), LITTLE.option(9, &[9])].concat();
    // An enhanced packet block whose options are longer than the buffer, too.
    let fixed = LITTLE.u32s(&[0, 0, 77, 3, 3]);
    let packet = [fixed, vec![1, 2, 3, 0], long.clone()].concat();
    let file = [
        LITTLE.section(),
        LITTLE.block(0x4000_0000, &long),
        LITTLE.interface(1, 0, &options),
        LITTLE.block(6, &packet),
        LITTLE.enhanced(0, 78, 3, &[4, 5, 6]),
        LITTLE.block(5, &long),
    ];
    for most in [1_000, 4_096, 1 << 20] {
        let mut reader = Reader::new(Input::stream(Short(io::Cursor::new(file.concat()), most)), None, 8_192);
        for (nanos, data) in [(77, [1, 2, 3]), (78, [4, 5, 6])] {
            let head = reader.advance().unwrap();
            let frame = head.frame(reader.octets());
            assert_eq!((frame.timestamp.nanos(), frame.data), (nanos, &data[..]));
        }
        assert!(reader.advance().is_none());
        assert!(reader.buffer_capacity() <= 66_000, "{}", reader.buffer_capacity());
        let failure = reader.finish();
        assert!(failure.is_none(), "{failure:?}");
    }
    // And their second length is still looked at.
    let mut wrong = file[..2].concat();
    let last = wrong.len() - 1;
    wrong[last] ^= 1;
    let (_, failure) = read_stream(io::Cursor::new(wrong), 8_192);
    assert!(matches!(failure.unwrap().reason, Reason::BlockLengths { .. }));
}

#[test]
fn a_length_field_alone_takes_no_memory() {
    let mut file = [LITTLE.section(), LITTLE.u32s(&[5, u32::MAX, 0, 0, 0])].concat();
    file.extend([0; 1_000]);
    let mut reader = Reader::new(Input::stream(io::Cursor::new(file)), None, 1 << 18);
    assert!(reader.advance().is_none());
    assert!(reader.buffer_capacity() <= 1 << 18);
    let told = "stream: offset 28: block cut off: 4294967295 octets needed, 1020 left";
    assert_eq!(reader.finish().unwrap().to_string(), told);
}

#[test]
fn a_section_describes_a_million_interfaces_and_no_more() {
    for order in [LITTLE, BIG] {
        let interface = order.interface(1, 0, &[]);
        let section = |interfaces: usize| {
            let last = order.enhanced(interfaces as u32 - 1, 7, 3, &[1, 2, 3]);
            [order.section(), interface.repeat(interfaces), last].concat()
        };
        // Each section counts anew.
        let sound = [section(2), section(MOST_INTERFACES), section(3)].concat();
        let (frames, failure) = read_octets(&sound);
        assert!(failure.is_none(), "{failure:?}");
        assert_eq!(frames.iter().map(|frame| frame.interface).collect::<Vec<_>>(), [1, 1_048_575, 2]);
        // What was read before one too many is given; nothing behind it is.
        let (frames, failure) = read_octets(&[&sound, &section(MOST_INTERFACES + 1)[..]].concat());
        assert_eq!(frames.len(), 3);
        let told = format!(
            "stream: offset {}: interface description block number 1048577 of its section, at most 1048576 are allowed",
            sound.len() + order.section().len() + MOST_INTERFACES * interface.len()
        );
        assert_eq!(failure.unwrap().to_string(), told);
    }
}
