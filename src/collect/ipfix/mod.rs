//! IPFIX Messages (RFC 7011 §3) from a file (RFC 5655) or any other stream: Data Records out.
//!
//! Templates are kept per Observation Domain, and a later definition of an id replaces the earlier one: a file may be
//! several Transport Sessions one after the other. Elements of enterprises are named by the type information records of
//! RFC 5610 where the file has them (`naming`).
//!
//! A Message that breaks the rules ends the stream with an error; all records before it have been given by then. A Set
//! whose template is not known is skipped and counted: that is what RFC 7011 §9 has a collector do.

mod naming;
mod templates;

use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::naming::{Learned, number_names};
use self::templates::Templates;
use super::value::{Kind, Value};
use crate::export::text::write::hex;
use crate::time::Timestamp;

/// Version of a Message (RFC 7011 §3.1).
pub(super) const VERSION: u16 = 10;
/// Octets of a Message header (§3.1) and of a Set header (§3.3.2).
const MESSAGE_HEADER: usize = 16;
const SET_HEADER: usize = 4;
/// Length of a field whose length stands in the record (§7).
pub const VARIABLE: u16 = 65535;
/// Set ids (§3.3.2).
const TEMPLATE_SET: u16 = 2;
const OPTIONS_TEMPLATE_SET: u16 = 3;
const FIRST_DATA_SET: u16 = 256;
/// The bit of an element id that says that an enterprise number follows (§3.2).
const ENTERPRISE_BIT: u16 = 0x8000;
/// Fields that the templates of one stream may have at one time: far more than any exporter has, and memory for about
/// 100 MB, or 230 MB where each template has but one.
const MOST_FIELDS: usize = 1_000_000;
/// Fields that are gone through for names that come after their templates, in one stream. Exporters name their elements all at
/// once, so that it takes one pass over their templates; a stream that names one element at a time and uses wide templates
/// in between would keep its reader busy for hours.
const MOST_RENAMED: usize = 4 * MOST_FIELDS;

/// Whether these octets could begin a text: UTF-8, which may be cut at their end, without control characters.
fn is_text(octets: &[u8]) -> bool {
    let text = match std::str::from_utf8(octets) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(&octets[..error.valid_up_to()]).unwrap_or_default()
        }
        Err(_) => return false,
    };
    !text.chars().any(|character| character.is_control() && !character.is_ascii_whitespace())
}

/// What errors call standard input.
const STANDARD_INPUT: &str = "standard input";

/// Why a stream cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file cannot be opened.
    #[error("cannot open {}", path.display())]
    Open {
        /// The path as given.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The system failed to read.
    #[error("cannot read {name} at octet {offset}")]
    Read {
        /// The file.
        name: String,
        /// Octets of the file before it.
        offset: u64,
        /// What the system said.
        source: io::Error,
    },
    /// A file of another kind.
    #[error("{name} is no IPFIX file but {found}{hint}")]
    NotIpfix {
        /// The file.
        name: String,
        /// What it is, as far as its first octets tell.
        found: String,
        /// What to do with it, if there is something.
        hint: String,
    },
    /// The file ends inside a Message.
    #[error("{name}: octet {offset}: {what} cut off: {needed} octets needed, {found} left")]
    CutOff {
        /// The file.
        name: String,
        /// Octets of the file before the Message.
        offset: u64,
        /// What of it was being read.
        what: &'static str,
        /// Its length in octets.
        needed: usize,
        /// How many octets the file still had.
        found: usize,
    },
    /// The octets are not what RFC 7011 allows.
    #[error("{name}: octet {offset}: {what}: found {found}, allowed {allowed}")]
    Malformed {
        /// The file.
        name: String,
        /// Octets of the file before the fault.
        offset: u64,
        /// Which part of the Message is at fault.
        what: &'static str,
        /// What stands there.
        found: String,
        /// What might.
        allowed: String,
    },
}

/// One field of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// The element's enterprise number, 0 for IANA's. For an element of the reverse direction, that of its forward one.
    pub enterprise: u32,
    /// The element's number; for the reverse direction, that of its forward one.
    pub id: u16,
    /// It describes the reverse direction of a Biflow (RFC 5103).
    pub reverse: bool,
    /// Its name: IANA's or the enterprise's, `reverseXxx` for the reverse direction, `id42` or `enterprise99id42` where
    /// no one has named it.
    pub name: Arc<str>,
    /// How its octets are read.
    kind: Kind,
    /// Its octets in a record, or [`VARIABLE`].
    length: u16,
    /// 1 for the first field of this name in its template, 2 for the second …
    pub(super) occurrence: u16,
}

/// A Template or Options Template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// Its id, 256 or more.
    pub id: u16,
    /// Fields that are scope: 0 in a Template, at least 1 in an Options Template.
    pub scope_fields: usize,
    /// Its fields in their order. Fields of no octets are left out: there is nothing in them.
    pub fields: Vec<Field>,
    /// Octets of its shortest record.
    shortest: usize,
    /// How many elements the stream had named when the fields were.
    learned: usize,
}

/// A Data Record: the values of a template's fields.
#[derive(Clone, Debug)]
pub struct DataRecord {
    /// Observation Domain of the Message.
    pub observation_domain: u32,
    /// Export Time of the Message, whole seconds.
    pub export_time: Timestamp,
    /// What the values are.
    pub template: Arc<Template>,
    /// One value for each of the template's fields.
    pub values: Vec<Value>,
}

impl DataRecord {
    /// A record without values, for [`MessageReader::read`] to fill.
    pub fn empty() -> DataRecord {
        let template = Template { id: 0, scope_fields: 0, fields: Vec::new(), shortest: 0, learned: 0 };
        DataRecord {
            observation_domain: 0,
            export_time: Timestamp::EPOCH,
            template: Arc::new(template),
            values: Vec::new(),
        }
    }

    /// True for a record of an Options Template.
    pub fn is_options(&self) -> bool {
        self.template.scope_fields > 0
    }

    /// Each field with its value, in the template's order.
    pub fn fields(&self) -> impl Iterator<Item = (&Field, &Value)> {
        self.template.fields.iter().zip(&self.values)
    }

    /// The first value of the IANA element of this name.
    pub fn value(&self, name: &str) -> Option<&Value> {
        let named = |field: &Field| field.enterprise == 0 && *field.name == *name;
        self.fields().find(|(field, _)| named(field)).map(|(_, value)| value)
    }
}

/// What a stream held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages read whole.
    pub messages: u64,
    /// Records of Templates.
    pub data_records: u64,
    /// Records of Options Templates.
    pub options_records: u64,
    /// Data Sets that were skipped because their template is not known, and Sets of a reserved id.
    pub skipped_sets: u64,
}

/// Reads the Data Records of a stream of Messages.
pub struct MessageReader<R> {
    input: R,
    name: String,
    /// Octets of the stream before the Message.
    message_offset: u64,
    message: Vec<u8>,
    /// How far the Message has been read.
    at: usize,
    set_end: usize,
    /// The template of the Data Set at hand.
    template: Option<Arc<Template>>,
    observation_domain: u32,
    export_time: Timestamp,
    templates: Templates,
    learned: Learned,
    /// Fields that were gone through for names that came late.
    renamed: usize,
    counts: Counts,
    ended: bool,
}

impl MessageReader<Box<dyn Read>> {
    /// Opens a file; `-` is standard input.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn open(path: &Path) -> Result<MessageReader<Box<dyn Read>>, ReadError> {
        if path == Path::new("-") {
            return Ok(MessageReader::new(Box::new(io::stdin().lock()), STANDARD_INPUT));
        }
        let file = File::open(path).map_err(|source| ReadError::Open { path: path.to_owned(), source })?;
        Ok(MessageReader::new(Box::new(BufReader::with_capacity(1 << 18, file)), path.display().to_string()))
    }
}

impl<R: Read> MessageReader<R> {
    /// Reads Messages from `input`, which errors call `name`.
    pub fn new(input: R, name: impl Into<String>) -> MessageReader<R> {
        MessageReader {
            input,
            name: name.into(),
            message_offset: 0,
            message: Vec::new(),
            at: 0,
            set_end: 0,
            template: None,
            observation_domain: 0,
            export_time: Timestamp::EPOCH,
            templates: Templates::default(),
            learned: Learned::default(),
            renamed: 0,
            counts: Counts::default(),
            ended: false,
        }
    }

    /// What was read so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Puts the next Data Record in `record`, whose memory is used again; false at the end of the stream.
    ///
    /// # Errors
    /// The stream cannot be read, is cut, or breaks a rule of RFC 7011. It is at its end then.
    pub fn read(&mut self, record: &mut DataRecord) -> Result<bool, ReadError> {
        if self.ended {
            return Ok(false);
        }
        let read = self.next_record(record);
        if !matches!(read, Ok(true)) {
            self.ended = true;
        }
        read
    }

    fn next_record(&mut self, record: &mut DataRecord) -> Result<bool, ReadError> {
        loop {
            if let Some(template) = self.template.take() {
                // What is shorter than any record is padding (§3.3.1).
                if self.set_end - self.at < template.shortest {
                    self.at = self.set_end;
                } else if self.values(&template, record)? {
                    self.template = Some(template);
                    return Ok(true);
                }
            } else if self.at < self.message.len() {
                self.next_set()?;
            } else if !self.next_message()? {
                return Ok(false);
            }
        }
    }

    fn next_message(&mut self) -> Result<bool, ReadError> {
        self.message_offset += self.message.len() as u64;
        self.message.clear();
        self.at = 0;
        let filled = self.fill(MESSAGE_HEADER)?;
        if filled == 0 {
            return Ok(false);
        }
        if self.message_offset == 0 && !self.message.starts_with(&VERSION.to_be_bytes()) {
            return Err(self.not_ipfix());
        }
        if filled < MESSAGE_HEADER {
            return self.cut_off("message header", MESSAGE_HEADER);
        }
        let version = self.u16(0);
        if version != VERSION {
            return self.malformed(0, "version of a message", version, VERSION);
        }
        let length = usize::from(self.u16(2));
        if length < MESSAGE_HEADER {
            return self.malformed(2, "length of a message", length, "16 to 65535");
        }
        if self.fill(length)? < length {
            return self.cut_off("message", length);
        }
        self.export_time = Timestamp::from_nanos(u64::from(self.u32(4)) * 1_000_000_000);
        self.observation_domain = self.u32(12);
        self.at = MESSAGE_HEADER;
        self.counts.messages += 1;
        Ok(true)
    }

    /// Why a file is refused that does not begin with a Message: by its first octets.
    #[cold]
    fn not_ipfix(&self) -> ReadError {
        let name = &self.name;
        // Standard input has no name to give to a command.
        let file = if self.is_standard_input() { "-" } else { name };
        let read = format!("; `flowtap read {file}` meters captures");
        let unpack = |with: &str| {
            format!(
                "; `{with} {file} | flowtap print -` shows an IPFIX file, `flowtap read {file}` meters a capture"
            )
        };
        let (found, hint) = match *self.message.as_slice() {
            [0xD4 | 0x4D, 0xC3 | 0x3C, 0xB2, 0xA1, ..] | [0xA1, 0xB2, 0xC3 | 0x3C, 0xD4 | 0x4D, ..] => {
                ("a pcap capture".to_string(), read)
            }
            [0x0A, 0x0D, 0x0D, 0x0A, ..] => ("a pcapng capture".to_string(), read),
            [0x1F, 0x8B, ..] => ("compressed with gzip".to_string(), unpack("zcat")),
            [0x28, 0xB5, 0x2F, 0xFD, ..] => ("compressed with zstd".to_string(), unpack("zstdcat")),
            [0x04, 0x22, 0x4D, 0x18, ..] => ("compressed with lz4".to_string(), unpack("lz4cat")),
            [0x0C, 0xA5, ..] => ("a file of nfdump".to_string(), format!("; `nfdump -r {file}` shows it")),
            ref first if is_text(first) => ("text".to_string(), String::new()),
            ref first => {
                let mut digits = Vec::new();
                hex(&mut digits, &first[..first.len().min(4)]);
                let digits = String::from_utf8_lossy(&digits).into_owned();
                (format!("begins with the octets {digits}, not with version 10 (000a)"), String::new())
            }
        };
        ReadError::NotIpfix { name: name.clone(), found, hint }
    }

    fn is_standard_input(&self) -> bool {
        self.name == STANDARD_INPUT
    }

    /// Reads until the Message has `length` octets or the input ends; returns how many it has.
    fn fill(&mut self, length: usize) -> Result<usize, ReadError> {
        let mut have = self.message.len();
        self.message.resize(length, 0);
        while have < length {
            match self.input.read(&mut self.message[have..]) {
                Ok(0) => break,
                Ok(octets) => have += octets,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(source) => {
                    let offset = self.message_offset + have as u64;
                    return Err(ReadError::Read { name: self.name.clone(), offset, source });
                }
            }
        }
        self.message.truncate(have);
        Ok(have)
    }

    fn next_set(&mut self) -> Result<(), ReadError> {
        let (begin, left) = (self.at, self.message.len() - self.at);
        if left < SET_HEADER {
            return self.malformed(begin, "set header", format!("{left} octets"), "4 octets");
        }
        let (id, length) = (self.u16(begin), usize::from(self.u16(begin + 2)));
        if length < SET_HEADER || length > left {
            return self.malformed(begin + 2, "length of a set", length, format!("4 to {left}"));
        }
        self.at = begin + SET_HEADER;
        self.set_end = begin + length;
        match id {
            TEMPLATE_SET | OPTIONS_TEMPLATE_SET => {
                // Zeros up to the end of the Set are padding, whose beginning is looked for once and not at each record.
                let body = &self.message[self.at..self.set_end];
                let records = body.iter().rposition(|octet| *octet != 0).map_or(0, |last| last + 1);
                let records_end = self.at + records;
                while self.at < records_end {
                    self.template_record(id)?;
                }
                self.at = self.set_end;
            }
            FIRST_DATA_SET.. => self.data_set(id),
            _ => self.skip_set(id, "which is reserved (RFC 7011 §3.3.2)"),
        }
        Ok(())
    }

    fn skip_set(&mut self, id: u16, why: &str) {
        if self.counts.skipped_sets == 0 {
            log::warn!(
                "{}: octet {}: skipping a set of id {id}, {why}; others are skipped silently",
                self.name,
                self.message_offset + self.at as u64 - SET_HEADER as u64,
            );
        }
        self.counts.skipped_sets += 1;
        self.at = self.set_end;
    }

    fn data_set(&mut self, id: u16) {
        let Some(template) = self.templates.get_mut(self.observation_domain, id) else {
            return self.skip_set(id, "whose template is not known");
        };
        if template.learned < self.learned.len() && self.renamed < MOST_RENAMED {
            self.renamed += template.fields.len();
            if self.renamed >= MOST_RENAMED {
                log::warn!(
                    "{}: elements are named again and again after their templates; the templates there are keep the \
                     names they have",
                    self.name
                );
            }
            let mut named = Template::clone(template);
            for field in &mut named.fields {
                self.learned.name(field);
            }
            number_names(&mut named.fields);
            named.learned = self.learned.len();
            *template = Arc::new(named);
        }
        self.template = Some(template.clone());
    }

    /// A Template Record, an Options Template Record (§3.4) or the withdrawal of either (§8.1).
    fn template_record(&mut self, set_id: u16) -> Result<(), ReadError> {
        let begin = self.at;
        if self.set_end - begin < 4 {
            self.at = self.set_end; // padding
            return Ok(());
        }
        let (id, count) = (self.u16(begin), usize::from(self.u16(begin + 2)));
        self.at += 4;
        if count == 0 {
            if id == set_id {
                self.templates.withdraw_all(self.observation_domain, set_id == OPTIONS_TEMPLATE_SET);
            } else {
                self.templates.withdraw(self.observation_domain, id);
            }
            return Ok(());
        }
        if id < FIRST_DATA_SET {
            return self.malformed(begin, "template id", id, "256 to 65535");
        }
        let mut scope_fields = 0;
        if set_id == OPTIONS_TEMPLATE_SET {
            self.needs(2, "options template")?;
            scope_fields = usize::from(self.u16(self.at));
            if scope_fields == 0 || scope_fields > count {
                return self.malformed(self.at, "scope field count", scope_fields, format!("1 to {count}"));
            }
            self.at += 2;
        }
        let mut fields = Vec::with_capacity(count.min((self.set_end - self.at) / 4));
        let (mut shortest, mut empty_scope_fields) = (0, 0);
        for number in 0..count {
            let field = self.field()?;
            match field.length {
                0 => empty_scope_fields += usize::from(number < scope_fields),
                VARIABLE => shortest += 1,
                length => shortest += usize::from(length),
            }
            if field.length > 0 {
                fields.push(field);
            }
        }
        if shortest == 0 {
            // A Set of such records would never end.
            return self.malformed(
                begin,
                "template",
                "fields of no octets alone",
                "a field of at least one octet",
            );
        }
        // Room for fields of no octets is not counted, so it is not kept.
        fields.shrink_to_fit();
        number_names(&mut fields);
        // A scope of no octets is still a scope.
        let scope_fields = if scope_fields > 0 { (scope_fields - empty_scope_fields).max(1) } else { 0 };
        let template = Template { id, scope_fields, fields, shortest, learned: self.learned.len() };
        self.templates.insert(self.observation_domain, template);
        if self.templates.fields() > MOST_FIELDS {
            return self.malformed(
                begin,
                "fields of all templates",
                self.templates.fields(),
                format!("up to {MOST_FIELDS}"),
            );
        }
        Ok(())
    }

    /// A Field Specifier (§3.2).
    fn field(&mut self) -> Result<Field, ReadError> {
        self.needs(4, "field specifier")?;
        let (mut id, length) = (self.u16(self.at), self.u16(self.at + 2));
        self.at += 4;
        let mut enterprise = 0;
        if id & ENTERPRISE_BIT != 0 {
            self.needs(4, "enterprise number")?;
            enterprise = self.u32(self.at);
            self.at += 4;
            id &= !ENTERPRISE_BIT;
        }
        Ok(self.learned.field(enterprise, id, length))
    }

    /// Reads the values of a record; false where what looked like one was padding.
    fn values(&mut self, template: &Arc<Template>, record: &mut DataRecord) -> Result<bool, ReadError> {
        record.values.clear();
        let begin = self.at;
        for field in &template.fields {
            let mut length = usize::from(field.length);
            if field.length == VARIABLE {
                match self.variable_length() {
                    Some(stands) => length = stands,
                    None => return self.padding_or_cut(begin, field),
                }
            }
            let Some(octets) = self.message[..self.set_end].get(self.at..self.at + length) else {
                return self.padding_or_cut(begin, field);
            };
            record.values.push(Value::read(field.kind, octets));
            self.at += length;
        }
        record.observation_domain = self.observation_domain;
        record.export_time = self.export_time;
        if !Arc::ptr_eq(&record.template, template) {
            record.template = template.clone();
        }
        if record.is_options() {
            self.counts.options_records += 1;
            self.learned.learn(record);
        } else {
            self.counts.data_records += 1;
        }
        Ok(true)
    }

    /// The length that stands before a field of variable length (§7): one octet, or 255 and two.
    fn variable_length(&mut self) -> Option<usize> {
        let left = &self.message[self.at..self.set_end];
        let (length, octets) = match left {
            [255, high, low, ..] => (usize::from(u16::from_be_bytes([*high, *low])), 3),
            [255, ..] | [] => return None,
            [length, ..] => (usize::from(*length), 1),
        };
        self.at += octets;
        Some(length)
    }

    /// The Set ends inside a record: zeros are padding, though longer than §3.3.1 allows; anything else is at fault.
    fn padding_or_cut(&mut self, begin: usize, field: &Field) -> Result<bool, ReadError> {
        let left = &self.message[begin..self.set_end];
        if left.iter().all(|octet| *octet == 0) {
            self.at = self.set_end;
            return Ok(false);
        }
        let found = format!("the end of the set inside {}", field.name);
        self.malformed(begin, "data record", found, "whole records")
    }

    fn u16(&self, at: usize) -> u16 {
        u16::from_be_bytes([self.message[at], self.message[at + 1]])
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from(self.u16(at)) << 16 | u32::from(self.u16(at + 2))
    }

    /// Refuses a Set that ends before `octets` more.
    fn needs(&self, octets: usize, what: &'static str) -> Result<(), ReadError> {
        let left = self.set_end - self.at;
        if left < octets {
            return self.malformed(
                self.at,
                what,
                format!("{left} octets and the end of the set"),
                format!("{octets} octets"),
            );
        }
        Ok(())
    }

    fn cut_off<T>(&self, what: &'static str, needed: usize) -> Result<T, ReadError> {
        let (offset, found) = (self.message_offset, self.message.len());
        Err(ReadError::CutOff { name: self.name.clone(), offset, what, needed, found })
    }

    fn malformed<T>(
        &self,
        at: usize,
        what: &'static str,
        found: impl ToString,
        allowed: impl ToString,
    ) -> Result<T, ReadError> {
        Err(ReadError::Malformed {
            name: self.name.clone(),
            offset: self.message_offset + at as u64,
            what,
            found: found.to_string(),
            allowed: allowed.to_string(),
        })
    }
}

impl<R: Read> Iterator for MessageReader<R> {
    type Item = Result<DataRecord, ReadError>;

    /// The next record in memory of its own; [`MessageReader::read`] uses memory again.
    fn next(&mut self) -> Option<Self::Item> {
        let mut record = DataRecord::empty();
        match self.read(&mut record) {
            Ok(true) => Some(Ok(record)),
            Ok(false) => None,
            Err(error) => Some(Err(error)),
        }
    }
}

#[cfg(test)]
mod tests;
