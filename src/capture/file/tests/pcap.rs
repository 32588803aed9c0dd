//! pcap: both byte orders, both units, and what stands in its file header.

use super::captures::{BIG, LITTLE, pcap_of_both_lengths};
use super::{Owned, read_octets};

#[test]
fn pcap_is_read_in_both_byte_orders_and_both_units() {
    for (order, magic, fraction_nanos) in [
        (LITTLE, 0xA1B2_C3D4, 1_000),
        (BIG, 0xA1B2_C3D4, 1_000),
        (LITTLE, 0xA1B2_3C4D, 1),
        (BIG, 0xA1B2_3C4D, 1),
    ] {
        let file = [order.pcap_header(magic, 228), order.record(u32::MAX, 999_999, 70_000, b"abc")].concat();
        let (frames, failure) = read_octets(&file);
        let nanos = u64::from(u32::MAX) * 1_000_000_000 + 999_999 * fraction_nanos;
        let expected =
            Owned { nanos, wire_length: 70_000, link_type: 228, interface: 0, data: b"abc".to_vec() };
        assert_eq!(frames, [expected]);
        assert!(failure.is_none());
    }
}

#[test]
fn the_link_type_is_the_low_half_of_its_field_and_a_snaplen_shows_in_the_wire_length() {
    let (file, expected) = pcap_of_both_lengths();
    let (frames, failure) = read_octets(&file);
    assert_eq!(frames, expected);
    assert!(failure.is_none());
}

#[test]
fn a_pcap_file_of_a_header_alone_is_whole() {
    let (frames, failure) = read_octets(&LITTLE.pcap_header(0xA1B2_C3D4, 1));
    assert!(frames.is_empty() && failure.is_none());
}
