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
