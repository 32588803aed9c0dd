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
