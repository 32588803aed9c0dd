//! What holds of a capture in either format: its first octets, any buffer, its longest frame, and how it ends.

use std::io::{self, Read};

use super::captures::{BIG, LITTLE, pcap_of_both_lengths, pcapng_of_everything};
use super::{Owned, Short, read_octets, read_stream};
use crate::capture::file::{LONGEST_FRAME, Reason};

#[test]
fn the_first_octets_on_disk_are_those_of_the_format() {
    // Written out, so that the captures by hand are not only right with each other.
    let file = [
        0xD4, 0xC3, 0xB2, 0xA1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0, 0, 1, 0, 0,
        0, // file header
        1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 60, 0, 0, 0, 7, 8, 9, // one record
    ];
    let expected =
        Owned { nanos: 1_000_002_000, wire_length: 60, link_type: 1, interface: 0, data: vec![7, 8, 9] };
    assert_eq!(read_octets(&file).0, [expected]);

    let file = [
        0x0A, 0x0D, 0x0D, 0x0A, 0, 0, 0, 28, 0x1A, 0x2B, 0x3C, 0x4D, 0, 1, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF,
        0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 28, // section header
        0, 0, 0, 1, 0, 0, 0, 32, 0, 101, 0, 0, 0, 0, 0, 0, 0, 9, 0, 1, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32,
        0, 0, 0, 6, 0, 0, 0, 36, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 9, 0x45, 0, 0, 0,
        0, 0, 0, 36, // a packet of one octet
    ];
    let nanos = ((1 << 32) + 2) * 1_000_000;
    let expected = Owned { nanos, wire_length: 9, link_type: 101, interface: 0, data: vec![0x45] };
    let (frames, failure) = read_octets(&file);
    assert!(failure.is_none(), "{failure:?}");
    assert_eq!(frames, [expected]);
}

#[test]
fn any_size_of_read_and_of_buffer_gives_the_same_frames() {
    for (file, expected) in [pcapng_of_everything(), pcap_of_both_lengths()] {
        for most in [1, 2, 3, 5, 7, 64, 4_096] {
            for buffer_octets in [0, 1, 17, 100, 1 << 18] {
                let (frames, failure) =
                    read_stream(Short(io::Cursor::new(file.clone()), most), buffer_octets);
                assert!(failure.is_none(), "{failure:?}");
                assert_eq!(frames, expected);
            }
        }
    }
}

#[test]
fn a_file_cut_at_any_octet_gives_what_was_whole_and_names_the_record_that_is_not() {
    for (file, expected) in [pcapng_of_everything(), pcap_of_both_lengths()] {
        // A record ends where one frame more, or none, is read without an error.
        let mut last_end = 0;
        for cut in 1..=file.len() {
            let (frames, failure) = read_octets(&file[..cut]);
            assert_eq!(frames, expected[..frames.len()]);
            match failure {
                None => last_end = cut as u64,
                Some(failure) => {
                    assert_eq!(failure.offset, Some(last_end), "cut at {cut}: {failure}");
                    assert!(matches!(failure.reason, Reason::CutOff { .. } | Reason::NotACapture(_)));
                }
            }
        }
        assert_eq!(last_end, file.len() as u64);
    }
}

#[test]
fn the_longest_frame_is_read_through_any_buffer_and_a_longer_one_is_damage() {
    let longest = vec![0xAB; LONGEST_FRAME as usize];
    let pcap = |data: &[u8]| [LITTLE.pcap_header(0xA1B2_C3D4, 1), LITTLE.record(0, 0, 0, data)].concat();
    let pcapng =
        |data: &[u8]| [BIG.section(), BIG.interface(1, 0, &[]), BIG.enhanced(0, 0, 0, data)].concat();
    for (whole, record) in [(pcap(&longest), 24), (pcapng(&longest), 28 + 20)] {
        for buffer_octets in [1, 1 << 18] {
            let (frames, failure) = read_stream(io::Cursor::new(whole.clone()), buffer_octets);
            assert!(failure.is_none(), "{failure:?}");
            assert!(frames.len() == 1 && frames[0].data == longest);
        }
        let more = [&longest[..], &[1]].concat();
        let longer = if record == 24 { pcap(&more) } else { pcapng(&more) };
        let (frames, failure) = read_octets(&longer);
        assert!(frames.is_empty());
        let told = format!("stream: offset {record}: captured length 262145, at most 262144");
        assert_eq!(failure.unwrap().to_string(), told);
    }
}

#[test]
fn each_kind_of_damage_names_offset_found_and_allowed() {
    let section = LITTLE.section();
    let interface = LITTLE.interface(1, 0, &[]);
    let with = |block: Vec<u8>| [section.clone(), interface.clone(), block].concat();
    let mut magic = section.clone();
    magic[8] = 0;
    for (file, told) in [
        (vec![], "offset 0: empty, not a capture"),
        (b"PK\x03\x04zip".to_vec(), "offset 0: no capture: begins with 50 4b 03 04, neither pcap nor pcapng"),
        (b"\n\r".to_vec(), "offset 0: no capture: begins with 0a 0d, neither pcap nor pcapng"),
        (
            LITTLE.pcap_header(0xA1B2_C3D4, 1)[..23].to_vec(),
            "offset 0: pcap file header cut off: 24 octets needed, 23 left",
        ),
        (magic, "offset 0: section of unknown byte order: magic 00 3c 2b 1a"),
        (with(LITTLE.u32s(&[9, 11, 11])), "offset 48: block length 11, at least 12"),
        (with(LITTLE.u32s(&[9, 16, 0, 20])), "offset 48: block length 16 at its beginning, 20 at its end"),
        (with(LITTLE.enhanced(1, 0, 0, &[])), "offset 48: interface 1, its section has described 1"),
        (
            with(LITTLE.block(6, &LITTLE.u32s(&[0, 0, 0, 5, 5, 0]))),
            "offset 48: packet block of 36 octets, 37 needed for its fields",
        ),
        (with(LITTLE.block(6, &[0; 16])), "offset 48: packet block of 28 octets, 32 needed for its fields"),
        (
            with(LITTLE.simple(9, &[0; 8])),
            "offset 48: simple packet block of 24 octets, 25 needed for its fields",
        ),
        (
            with(LITTLE.block(1, &[0; 4])),
            "offset 48: interface description block of 16 octets, 20 needed for its fields",
        ),
        (
            [section.clone(), LITTLE.simple(1, &[0])].concat(),
            "offset 28: interface 0, its section has described 0",
        ),
    ] {
        let (frames, failure) = read_octets(&file);
        assert!(frames.is_empty());
        assert_eq!(failure.unwrap().to_string(), format!("stream: {told}"));
    }
}

#[test]
fn a_read_that_fails_ends_the_file_where_it_failed() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("the disk is gone"))
        }
    }
    let (file, expected) = pcap_of_both_lengths();
    let length = file.len();
    let (frames, failure) = read_stream(io::Cursor::new(file).chain(Broken), 1 << 18);
    assert_eq!(frames, expected);
    assert_eq!(
        failure.unwrap().to_string(),
        format!("stream: offset {length}: reading failed: the disk is gone")
    );
}
