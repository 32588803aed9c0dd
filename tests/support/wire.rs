//! Message headers and Sets, read by the letter of RFC 7011 §3 and RFC 3954 §5.

use std::collections::HashMap;

/// Big-endian number of `length` octets at `at`.
pub fn number(octets: &[u8], at: usize, length: usize) -> u64 {
    let octets =
        octets.get(at..at + length).unwrap_or_else(|| panic!("{length} octets at {at} of {}", octets.len()));
    octets.iter().fold(0, |value, octet| value << 8 | u64::from(*octet))
}

/// A message of IPFIX or NetFlow v9.
#[derive(Clone, Debug)]
pub struct Message {
    pub version: u16,
    /// IPFIX: Length. NetFlow v9: Count.
    pub length_or_count: u16,
    /// NetFlow v9 only.
    pub sys_up_time: u32,
    /// IPFIX: Export Time. NetFlow v9: UNIX Secs.
    pub seconds: u32,
    pub sequence: u32,
    /// IPFIX: Observation Domain. NetFlow v9: Source ID.
    pub domain: u32,
    /// ID and content without the header.
    pub sets: Vec<(u16, Vec<u8>)>,
    pub octets: usize,
}

impl Message {
    pub fn read(octets: &[u8]) -> Message {
        let field = |at, length| number(octets, at, length) as u32;
        let version = field(0, 2) as u16;
        let (sys_up_time, at) = match version {
            10 => (0, 4),
            9 => (field(4, 4), 8),
            other => panic!("version {other}"),
        };
        let mut sets = Vec::new();
        let mut rest = at + 12;
        while rest < octets.len() {
            let (id, length) = (number(octets, rest, 2) as u16, number(octets, rest + 2, 2) as usize);
            assert!(length > 4, "a Set {id} of {length} octets");
            assert!(rest + length <= octets.len(), "a Set {id} that ends beyond its message");
            sets.push((id, octets[rest + 4..rest + length].to_vec()));
            rest += length;
        }
        Message {
            version,
            length_or_count: field(2, 2) as u16,
            sys_up_time,
            seconds: field(at, 4),
            sequence: field(at + 4, 4),
            domain: field(at + 8, 4),
            sets,
            octets: octets.len(),
        }
    }

    /// Where sysUpTime is 0, in milliseconds since 1970.
    pub fn boot_millis(&self) -> i64 {
        i64::from(self.seconds) * 1000 - i64::from(self.sys_up_time)
    }

    pub fn has_data(&self) -> bool {
        self.sets.iter().any(|(id, _)| *id >= 256)
    }

    pub fn has_templates(&self) -> bool {
        self.sets.iter().any(|(id, _)| *id < 256)
    }
}

/// Cuts a stream into messages by their Length alone (RFC 7011 §10.4.3).
pub fn frames(mut stream: &[u8]) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    while !stream.is_empty() {
        assert_eq!(number(stream, 0, 2), 10, "a message begins after {} others", messages.len());
        let length = number(stream, 2, 2) as usize;
        assert!(
            (16..=stream.len()).contains(&length),
            "a Length of {length} with {} octets left",
            stream.len()
        );
        messages.push(stream[..length].to_vec());
        stream = &stream[length..];
    }
    messages
}

/// A field of a template: enterprise, id, length, whether it is a scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    pub enterprise: u32,
    pub id: u16,
    pub length: u16,
    pub scope: bool,
}

/// The templates of a session by domain and id, and the rules that hold for messages in order.
#[derive(Default)]
pub struct Session {
    templates: HashMap<(u32, u16), Vec<Field>>,
    /// What the next message of a domain must have as its sequence number.
    next: HashMap<u32, u32>,
    /// Data Records by domain.
    pub data_records: HashMap<u32, u32>,
}

/// A Data Record: its domain, template and the value of each field.
#[derive(Clone, Debug)]
pub struct DataRecord {
    pub domain: u32,
    pub template: u16,
    pub fields: Vec<(Field, Vec<u8>)>,
}

impl DataRecord {
    /// The octets of an element, if the record has it.
    pub fn get(&self, enterprise: u32, id: u16) -> Option<&[u8]> {
        let found = self.fields.iter().find(|(field, _)| (field.enterprise, field.id) == (enterprise, id))?;
        Some(&found.1)
    }

    /// The number that an IANA element holds.
    pub fn value(&self, id: u16) -> u64 {
        let octets =
            self.get(0, id).unwrap_or_else(|| panic!("no element {id} in template {}", self.template));
        number(octets, 0, octets.len())
    }
}

impl Session {
    /// Takes the next message and gives its Data Records. Fails where a message is not what its header says, where its
    /// sequence number is not continuous, and where data comes before its template.
    pub fn take(&mut self, message: &Message) -> Vec<DataRecord> {
        let domain = message.domain;
        let expected = *self.next.entry(domain).or_default();
        assert_eq!(message.sequence, expected, "the sequence number in domain {domain}");
        let (mut templates, mut records) = (0, Vec::new());
        for (id, content) in &message.sets {
            match (message.version, id) {
                (10, 2) | (9, 0) => templates += self.learn(message, content, false),
                (10, 3) | (9, 1) => templates += self.learn(message, content, true),
                (_, 256..) => self.data(domain, *id, content, &mut records),
                _ => panic!("a Set {id} in version {}", message.version),
            }
        }
        let data_records = records.len() as u32;
        *self.data_records.entry(domain).or_default() += data_records;
        if message.version == 10 {
            assert_eq!(usize::from(message.length_or_count), message.octets, "Length");
            self.next.insert(domain, expected.wrapping_add(data_records));
        } else {
            assert_eq!(u32::from(message.length_or_count), templates + data_records, "Count");
            assert!(message.octets.is_multiple_of(4), "{} octets are no multiple of 4", message.octets);
            self.next.insert(domain, expected.wrapping_add(1));
        }
        records
    }

    fn learn(&mut self, message: &Message, content: &[u8], options: bool) -> u32 {
        let (mut at, mut templates) = (0, 0);
        while at + 4 < content.len() {
            let id = number(content, at, 2) as u16;
            assert!(id >= 256, "a Template ID of {id}");
            let (fields, scopes) = match (options, message.version) {
                (false, _) => (number(content, at + 2, 2), 0),
                (true, 10) => (number(content, at + 2, 2), number(content, at + 4, 2)),
                (true, _) => {
                    let (scope, option) = (number(content, at + 2, 2), number(content, at + 4, 2));
                    assert!(scope % 4 == 0 && option % 4 == 0, "lengths of {scope} and {option} octets");
                    ((scope + option) / 4, scope / 4)
                }
            };
            assert!(fields > 0, "a withdrawal of {id}");
            assert!(!options || scopes > 0, "no scope in {id}");
            at += if options { 6 } else { 4 };
            let mut list = Vec::new();
            for position in 0..fields {
                let (mut element, length) =
                    (number(content, at, 2) as u16, number(content, at + 2, 2) as u16);
                at += 4;
                let mut enterprise = 0;
                if element & 0x8000 != 0 {
                    assert_eq!(message.version, 10, "an enterprise element in NetFlow v9");
                    element &= 0x7FFF;
                    enterprise = number(content, at, 4) as u32;
                    at += 4;
                }
                list.push(Field { enterprise, id: element, length, scope: position < scopes });
            }
            let known = self.templates.insert((message.domain, id), list.clone());
            assert!(known.is_none_or(|known| known == list), "template {id} has changed");
            templates += 1;
        }
        assert!(content[at..].iter().all(|octet| *octet == 0), "padding that is not zero");
        templates
    }

    fn data(&self, domain: u32, id: u16, content: &[u8], records: &mut Vec<DataRecord>) {
        let template = self
            .templates
            .get(&(domain, id))
            .unwrap_or_else(|| panic!("data before template {id} of domain {domain}"));
        let length: usize = template.iter().map(|field| usize::from(field.length)).sum();
        let mut rest = content;
        while rest.len() >= length {
            let mut at = 0;
            let fields = template.iter().map(|field| {
                let octets = rest[at..at + usize::from(field.length)].to_vec();
                at += octets.len();
                (*field, octets)
            });
            records.push(DataRecord { domain, template: id, fields: fields.collect() });
            rest = &rest[length..];
        }
        assert!(rest.len() < 4 && rest.iter().all(|octet| *octet == 0), "padding of {rest:?}");
    }

    /// The flow templates learnt in a domain.
    pub fn templates(&self, domain: u32) -> Vec<&Vec<Field>> {
        self.templates.iter().filter(|((of, _), _)| *of == domain).map(|(_, fields)| fields).collect()
    }
}

/// Reads messages of one session in order; gives their Data Records and the session.
pub fn read_session(messages: &[Vec<u8>]) -> (Vec<DataRecord>, Session) {
    let mut session = Session::default();
    let mut records = Vec::new();
    for octets in messages {
        records.extend(session.take(&Message::read(octets)));
    }
    (records, session)
}
