//! NetFlow version 9 framing (RFC 3954 §5): FlowSets in, Export Packets out.
//!
//! Count is of all records in the packet, templates included; the sequence number counts the packets sent before it
//! from its Source ID (§5.1). Times are on the [`Uptime`] clock.

use byteorder::{BigEndian, ByteOrder};

use crate::export::exporter::{Contents, Framing, Part};
use crate::export::message::Message;
use crate::export::statistics::{OptionsRecord, Row, Statistics};
use crate::export::template::{Dialect, FIRST_OPTIONS_TEMPLATE_ID, Layout};
use crate::export::uptime::Uptime;
use crate::flow::FlowRecord;
use crate::time::Timestamp;

/// The version number (RFC 3954 §5.1).
const VERSION: u16 = 9;

/// Where the fields of the Packet Header stand (RFC 3954 §5.1).
mod header {
    pub const VERSION: usize = 0;
    pub const COUNT: usize = 2;
    pub const SYS_UP_TIME: usize = 4;
    pub const SECONDS: usize = 8;
    pub const SEQUENCE: usize = 12;
    pub const SOURCE_ID: usize = 16;
    /// Octets in all.
    pub const END: usize = 20;
}

/// The scope of what is reported: the whole exporter (RFC 3954 §6.1).
const SCOPE_SYSTEM: u16 = 1;

/// The Packet Header of one exporter.
#[derive(Debug)]
pub struct NetFlow9 {
    source_id: u32,
    /// Packets so far, of each [`Part`].
    sequences: [u32; Part::COUNT],
    uptime: Uptime,
}

impl NetFlow9 {
    /// Flows will be from Source ID `source_id`, what the exporter says of itself from 0.
    pub fn new(source_id: u32) -> NetFlow9 {
        NetFlow9 { source_id, sequences: [0; Part::COUNT], uptime: Uptime::default() }
    }
}

impl Framing for NetFlow9 {
    const DIALECT: Dialect = Dialect::NetFlow9;
    const HEADER: usize = header::END;
    const TEMPLATE_SET: u16 = 0;
    const OPTIONS_TEMPLATE_SET: u16 = 1;
    /// Every FlowSet should begin on a 32-bit boundary (RFC 3954 §5.2 to §6.2).
    const ALIGNMENT: usize = 4;

    fn begin_session(&mut self) {
        self.sequences = [0; Part::COUNT];
    }

    fn admits(&self, record: &FlowRecord) -> bool {
        self.uptime.admits(record)
    }

    fn begin_message(&mut self, record: &FlowRecord) {
        self.uptime.begin_packet(record);
    }

    fn add(&mut self, record: &FlowRecord) {
        self.uptime.add(record);
    }

    fn end_message(&mut self) {
        self.uptime.end_packet();
    }

    fn boot_millis(&self) -> u64 {
        self.uptime.boot_millis()
    }

    fn template(&self, message: &mut Message, layout: &Layout) {
        message.put_u16(layout.id);
        let count = message.len();
        message.put_u16(0);
        for field in &layout.fields {
            message.put_u16(field.element.id);
            message.put_u16(field.length);
        }
        message.set_u16(count, layout.fields.len());
    }

    fn options_template(&self, message: &mut Message, record: &OptionsRecord) {
        message.put_u16(self.options_template_id(record));
        let lengths = message.len();
        message.put_u16(0);
        message.put_u16(0);
        let scope = message.len();
        for Row { element, .. } in &record.scope {
            message.put_u16(SCOPE_SYSTEM);
            message.put_u16(element.length);
        }
        let options = message.len();
        for Row { element, .. } in &record.values {
            message.put_u16(element.id);
            message.put_u16(element.length);
        }
        // Here lengths in octets stand where IPFIX has counts (RFC 3954 §6.1).
        message.set_u16(lengths, options - scope);
        message.set_u16(lengths + size_of::<u16>(), message.len() - options);
    }

    fn options_template_id(&self, record: &OptionsRecord) -> u16 {
        FIRST_OPTIONS_TEMPLATE_ID + record.number
    }

    fn options(&self, mut statistics: Statistics) -> Vec<OptionsRecord> {
        statistics.observation_domain = self.source_id;
        statistics.netflow9().to_vec()
    }

    fn seal(&mut self, message: &mut Message, part: Part, contents: Contents, time: Timestamp) {
        let sequence = &mut self.sequences[part as usize];
        let source_id = match part {
            Part::Flows => self.source_id,
            Part::Statistics => 0,
        };
        let time = self.uptime.header(time);
        message.set_u16(header::COUNT, (contents.templates + contents.data_records) as usize);
        let octets = message.octets_mut();
        BigEndian::write_u16(&mut octets[header::VERSION..], VERSION);
        BigEndian::write_u32(&mut octets[header::SYS_UP_TIME..], time.sys_up_time);
        BigEndian::write_u32(&mut octets[header::SECONDS..], time.seconds);
        BigEndian::write_u32(&mut octets[header::SEQUENCE..], *sequence);
        BigEndian::write_u32(&mut octets[header::SOURCE_ID..], source_id);
        *sequence = sequence.wrapping_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::clock::ExportClock;
    use crate::export::exporter::TemplateExporter;
    use crate::export::testing::{kept, octets, record_v4, record_v6, wall};
    use crate::export::{ExportOptions, Exporter, MeteringStatistics};

    /// The messages of a run that exports these records, on the packet clock.
    fn messages(records: &[FlowRecord]) -> Vec<Vec<u8>> {
        let (outlet, messages) = kept(1472);
        let clock = ExportClock::packets_of_message();
        let mut exporter = TemplateExporter::new(NetFlow9::new(1), outlet, clock, &ExportOptions::default());
        exporter.tick(wall(), &MeteringStatistics::default());
        exporter.export(records);
        exporter.finish(wall(), &MeteringStatistics::default());
        let messages = messages.lock().expect("no panic");
        messages.clone()
    }

    // The record is due at 1,700,000,003.000 s. The boot is a day before it begins, at 1,699,913,600.123 s, so the
    // header's sysUpTime is 86,402,877 ms, the record's times 86,400,000 and 86,401,877 ms.
    const HEADER_TIME: &str = "0526673d 6553f103 | sysUpTime, seconds";

    #[test]
    fn the_first_packet_has_the_templates_and_counts_each() {
        let message = &messages(&[record_v4()])[0];
        let expected = octets(&[
            "0009 000c          | version, 12 records",
            HEADER_TIME,
            "00000000 00000001  | sequence, Source ID",
            "0000               | Template FlowSet",
        ]);
        assert_eq!(message[..expected.len()], expected);
        let expected = octets(&[
            "0100 0017          | template 256, 23 fields",
            "0008 0004 000c 0004 0007 0002 000b 0002 0004 0001 003c 0001 0005 0001",
            "0002 0008 0001 0008 0016 0004 0015 0004",
            "00da 0008 00db 0008 00dc 0008 00dd 0008 00de 0008 00df 0008",
            "0088 0001 000a 0004 000e 0004 003d 0001 003a 0002 0006 0001",
            "0101 0018          | template 257",
        ]);
        assert_eq!(message[24..24 + expected.len()], expected);
        assert_eq!(usize::from(BigEndian::read_u16(&message[22..])), message.len() - 20);
    }

    #[test]
    fn the_second_packet_has_the_options_template_with_lengths_in_octets() {
        let message = &messages(&[record_v4()])[1];
        let expected = octets(&[
            "0009 0001",
            HEADER_TIME,
            "00000000 00000000  | Source ID 0 has a sequence of its own",
            "0001 0030          | Options Template FlowSet",
            "010c 0004 0020     | 268, 4 octets of scopes, 32 of options",
            "0001 0004          | System",
            "0029 0008 002a 0008 0028 0008 00a4 0008 00a5 0008 00a6 0008 00a7 0008 00a8 0008",
            "0000               | padding",
        ]);
        assert_eq!(message[..], expected);
    }

    #[test]
    fn a_data_flowset_of_ipv4() {
        let message = &messages(&[record_v4()])[2];
        let expected = octets(&[
            "0009 0001",
            HEADER_TIME,
            "00000001 00000001  | the second packet of Source ID 1",
            "0100 0068",
            "c0000201 c6336402 c001 01bb 06 04 28",
            "0000000000000102 00000000000a0b0c",
            "05265c00 05266355  | first and last switched",
            "0000000000000002 0000000000000001 0000000000000003",
            "0000000000000004 0000000000000005 0000000000000006",
            "03 00000007 00000000 00 0000 1b",
        ]);
        assert_eq!(message[..], expected);
    }

    #[test]
    fn a_data_flowset_of_ipv6_icmp_with_a_tag() {
        let message = &messages(&[record_v6()])[2];
        let expected = octets(&[
            "0009 0001",
            HEADER_TIME,
            "00000001 00000001",
            "010b 0088",
            "20010db8000000000000000000000001",
            "20010db8000000000000000000000002",
            "0000 8000 3a 06 28",
            "0000000000000102 00000000000a0b0c",
            "05265c00 05266355",
            "0000000000000000 0000000000000000 0000000000000000",
            "0000000000000000 0000000000000000 0000000000000000",
            "01 00000007 00000000 00 0064 00",
            "8000 8000 0064     | ICMP in both fields, the tag",
            "0000               | padding",
        ]);
        assert_eq!(message[..], expected);
    }

    #[test]
    fn the_statistics_are_options_data() {
        let message = &messages(&[record_v4()])[3];
        let expected = octets(&[
            "0009 0001",
            HEADER_TIME,
            "00000001 00000000",
            "010c 0048",
            "00000001           | the Source ID of the flows",
            "0000000000000003 0000000000000001",
        ]);
        assert_eq!(message[..expected.len()], expected);
        assert_eq!(message.len(), 20 + 0x48);
    }
}
