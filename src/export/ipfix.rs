//! IPFIX framing (RFC 7011 §3): Sets in, Messages out.
//!
//! The sequence number counts the Data Records sent before a Message, those described by Options Templates included, in
//! each Observation Domain apart (§3.1). Records of a Message that could not be sent stay in the count: the
//! collector sees the gap.

use byteorder::{BigEndian, ByteOrder};

use crate::export::exporter::{Contents, Framing, Part};
use crate::export::message::Message;
use crate::export::statistics::{OptionsRecord, Row, Statistics};
use crate::export::template::{Dialect, FIRST_OPTIONS_TEMPLATE_ID, Layout};
use crate::time::Timestamp;

/// The version number of IPFIX (RFC 7011 §3.1).
const VERSION: u16 = 10;

/// Where the fields of the Message Header stand (RFC 7011 §3.1).
mod header {
    pub const VERSION: usize = 0;
    pub const LENGTH: usize = 2;
    pub const EXPORT_TIME: usize = 4;
    pub const SEQUENCE: usize = 8;
    pub const OBSERVATION_DOMAIN: usize = 12;
    /// Octets in all.
    pub const END: usize = 16;
}

/// The bit of a field specifier that says an enterprise number follows (RFC 7011 §3.2).
const ENTERPRISE_BIT: u16 = 0x8000;

/// The Message Header of one Transport Session.
#[derive(Debug)]
pub struct Ipfix {
    observation_domain: u32,
    /// Data Records so far, of each [`Part`].
    sequences: [u32; Part::COUNT],
}

impl Ipfix {
    /// Flows will be in `observation_domain`, what the exporter says of itself in domain 0 (RFC 7011 §3.1).
    pub fn new(observation_domain: u32) -> Ipfix {
        Ipfix { observation_domain, sequences: [0; Part::COUNT] }
    }
}

fn field_specifier(message: &mut Message, enterprise: u32, id: u16, length: u16) {
    if enterprise == 0 {
        message.put_u16(id);
        message.put_u16(length);
    } else {
        message.put_u16(id | ENTERPRISE_BIT);
        message.put_u16(length);
        message.put_u32(enterprise);
    }
}

impl Framing for Ipfix {
    const DIALECT: Dialect = Dialect::Ipfix;
    const HEADER: usize = header::END;
    const TEMPLATE_SET: u16 = 2;
    const OPTIONS_TEMPLATE_SET: u16 = 3;
    /// Padding is for the exporter to choose (RFC 7011 §3.3.1); nothing reads a Set better for it.
    const ALIGNMENT: usize = 1;

    fn begin_session(&mut self) {
        self.sequences = [0; Part::COUNT];
    }

    fn template(&self, message: &mut Message, layout: &Layout) {
        message.put_u16(layout.id);
        let count = message.len();
        message.put_u16(0);
        for field in &layout.fields {
            field_specifier(message, field.element.enterprise, field.element.id, field.length);
        }
        message.set_u16(count, layout.fields.len());
    }

    fn options_template(&self, message: &mut Message, record: &OptionsRecord) {
        message.put_u16(self.options_template_id(record));
        let counts = message.len();
        message.put_u16(0);
        message.put_u16(0);
        for Row { element, .. } in record.scope.iter().chain(&record.values) {
            field_specifier(message, element.enterprise, element.id, element.length);
        }
        // Field Count counts the scope fields too (RFC 7011 §3.4.2.2).
        message.set_u16(counts, record.scope.len() + record.values.len());
        message.set_u16(counts + size_of::<u16>(), record.scope.len());
    }

    fn options_template_id(&self, record: &OptionsRecord) -> u16 {
        FIRST_OPTIONS_TEMPLATE_ID + record.number
    }

    fn options(&self, mut statistics: Statistics) -> Vec<OptionsRecord> {
        statistics.observation_domain = self.observation_domain;
        statistics.ipfix().to_vec()
    }

    fn seal(&mut self, message: &mut Message, part: Part, contents: Contents, time: Timestamp) {
        let sequence = &mut self.sequences[part as usize];
        let domain = match part {
            Part::Flows => self.observation_domain,
            Part::Statistics => 0,
        };
        message.set_u16(header::LENGTH, message.len());
        let octets = message.octets_mut();
        BigEndian::write_u16(&mut octets[header::VERSION..], VERSION);
        // Modulo 2^32 (RFC 7011 §5.2).
        BigEndian::write_u32(&mut octets[header::EXPORT_TIME..], time.seconds() as u32);
        BigEndian::write_u32(&mut octets[header::SEQUENCE..], *sequence);
        BigEndian::write_u32(&mut octets[header::OBSERVATION_DOMAIN..], domain);
        *sequence = sequence.wrapping_add(contents.data_records);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::clock::ExportClock;
    use crate::export::exporter::TemplateExporter;
    use crate::export::testing::{after, kept, octets, record_v4, record_v6, wall};
    use crate::export::{ExportOptions, Exporter, MeteringStatistics};
    use crate::flow::FlowRecord;

    /// The messages of a run that exports these records at [`wall`].
    fn messages(records: &[FlowRecord]) -> Vec<Vec<u8>> {
        let (outlet, messages) = kept(1472);
        let options = ExportOptions::default();
        let mut exporter = TemplateExporter::new(Ipfix::new(1), outlet, ExportClock::wall(wall), &options);
        exporter.export(records);
        let metering = MeteringStatistics {
            ignored_packets: 3,
            ignored_octets: 180,
            first_ignored: Some(after(0)),
            last_ignored: Some(after(1_877)),
        };
        exporter.finish(wall(), &metering);
        let messages = messages.lock().expect("no panic");
        messages.clone()
    }

    const FLAG_COUNT_SPECIFIERS: &str = "00da 0008 00db 0008 00dc 0008 00dd 0008 00de 0008 00df 0008";

    #[test]
    fn the_first_message_has_the_templates() {
        let message = &messages(&[record_v4()])[0];
        let expected = octets(&[
            "000a               | version",
            "057c               | length",
            "6553f103           | export time",
            "00000000           | sequence",
            "00000001           | observation domain",
            "0002 056c          | Template Set, its length",
            "0100 0019          | template 256, 25 fields: IPv4, plain",
            "0008 0004 000c 0004 0007 0002 000b 0002 0004 0001 003c 0001 0005 0001",
            "0002 0008 0001 0008 0098 0008 0099 0008",
            "800e 0002 00001ad7 800f 0002 00001ad7",
            FLAG_COUNT_SPECIFIERS,
            "0088 0001 000a 0004 000e 0004 003d 0001 003a 0002 0006 0001",
            "0101 001a          | template 257, one field more: the tag",
        ]);
        assert_eq!(message[..expected.len()], expected);
        assert_eq!(message.len(), 0x057c);
        // The last one: IPv6, ICMP, tagged.
        let expected = octets(&[
            "010b 001b",
            "001b 0010 001c 0010 0007 0002 000b 0002 0004 0001 003c 0001 0005 0001",
            "0002 0008 0001 0008 0098 0008 0099 0008",
            "800e 0002 00001ad7 800f 0002 00001ad7",
            FLAG_COUNT_SPECIFIERS,
            "0088 0001 000a 0004 000e 0004 003d 0001 003a 0002 0006 0001",
            "008b 0002 00f3 0002",
        ]);
        assert_eq!(message[message.len() - expected.len()..], expected);
        // IPv4, flags in two octets.
        let expected = octets(&["003a 0002 0006 0002", "0103 001a"]);
        assert!(message.windows(expected.len()).any(|octets| octets == expected));
    }

    #[test]
    fn the_second_message_has_the_options_templates_in_domain_0() {
        let message = &messages(&[record_v4()])[1];
        let expected = octets(&[
            "000a 006a 6553f103 00000000 00000000",
            "0003 001a          | Options Template Set",
            "010c 0004 0001     | 268: Metering Process Statistics, 4 fields, 1 of scope",
            "0095 0004 0029 0008 002a 0008 0028 0008",
            "0003 001e",
            "010d 0005 0001     | 269: Metering Process Reliability Statistics",
            "0095 0004 00a4 0008 00a5 0008 0143 0008 0143 0008",
            "0003 0022",
            "010e 0006 0001     | 270: Exporting Process Reliability Statistics",
            "0090 0004 00a6 0008 00a7 0008 00a8 0008 0143 0008 0143 0008",
        ]);
        assert_eq!(message[..], expected);
    }

    #[test]
    fn a_data_set_of_ipv4() {
        let message = &messages(&[record_v4()])[2];
        let expected = octets(&[
            "000a 0084 6553f103 00000000 00000001",
            "0100 0074          | template 256",
            "c0000201 c6336402  | 192.0.2.1, 198.51.100.2",
            "c001 01bb 06 04 28 | ports 49153 and 443, TCP, IPv4, type of service",
            "0000000000000102   | packets",
            "00000000000a0b0c   | octets",
            "0000018bcfe5687b   | start 1,700,000,000,123 ms",
            "0000018bcfe56fd0   | end 1,700,000,002,000 ms",
            "0002 0019          | initial and later flags",
            "0000000000000002 0000000000000001 0000000000000003 | SYN FIN RST",
            "0000000000000004 0000000000000005 0000000000000006 | PSH ACK URG",
            "03 00000007 00000000 00 0000 | end of flow, interfaces, ingress, no VLAN",
            "1b                 | FIN SYN PSH ACK",
        ]);
        assert_eq!(message[..], expected);
    }

    #[test]
    fn a_data_set_of_ipv6_icmp_with_a_tag() {
        let message = &messages(&[record_v6()])[2];
        let expected = octets(&[
            "000a 00a0 6553f103 00000000 00000001",
            "010b 0090          | template 267",
            "20010db8000000000000000000000001",
            "20010db8000000000000000000000002",
            "0000 8000 3a 06 28",
            "0000000000000102 00000000000a0b0c 0000018bcfe5687b 0000018bcfe56fd0",
            "0000 0000",
            "0000000000000000 0000000000000000 0000000000000000",
            "0000000000000000 0000000000000000 0000000000000000",
            "01 00000007 00000000 00 0064",
            "00                 | no TCP flags",
            "8000               | type 128, code 0",
            "0064               | the tag's VLAN",
        ]);
        assert_eq!(message[..], expected);
    }

    #[test]
    fn flags_above_one_octet_go_out_under_the_sibling_template() {
        let wide = FlowRecord { initial_flags: 0xE02, later_flags: 0x119, ..record_v4() };
        let message = &messages(&[wide])[2];
        assert_eq!(message[16..20], octets(&["0102 0075"]));
        assert_eq!(message[message.len() - 4..], octets(&["0000 0f1b"]));
    }

    #[test]
    fn the_statistics_close_the_run_in_domain_0() {
        let all = messages(&[record_v4(), record_v6()]);
        let expected = octets(&[
            "000a 0088 6553f103 00000000 00000000",
            "010c 0020          | Metering Process Statistics of domain 1:",
            "00000001 0000000000000003 0000000000000002 00000000000006fa | messages, records, octets before this one",
            "010d 0028          | Metering Process Reliability Statistics of domain 1:",
            "00000001 0000000000000003 00000000000000b4 | packets, octets",
            "0000018bcfe5687b 0000018bcfe56fd0          | the first, the last",
            "010e 0030          | Exporting Process Reliability Statistics of process 1:",
            "00000001 0000000000000000 0000000000000000 0000000000000000",
            "0000000000000000 0000000000000000",
        ]);
        assert_eq!(all.len(), 4);
        assert_eq!(all[..3].iter().map(Vec::len).sum::<usize>(), 0x6fa);
        assert_eq!(all[3], expected);
    }
}
