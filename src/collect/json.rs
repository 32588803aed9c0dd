//! A Data Record as a line of JSON: every field by its name.

use super::ipfix::DataRecord;
use super::value::Value;
use crate::export::text::write::{UtcTimes, hex, integer, ipv4, ipv6};

/// Appends `record` as one line: when and where it was exported, its template, then its fields in their order, each by
/// its name. A name that comes again has `_2`, `_3` … added, since a JSON object holds a name once.
///
/// Integers are numbers, addresses and times text (RFC 3339, UTC), octets hexadecimal digits.
pub fn json_line(record: &DataRecord, out: &mut Vec<u8>) {
    let mut times = UtcTimes::default();
    line(record, &mut times, out);
}

pub(super) fn line(record: &DataRecord, times: &mut UtcTimes, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"exportTime\":\"");
    times.rfc3339(out, record.export_time, 0);
    out.extend_from_slice(b"\",\"observationDomain\":");
    integer(out, record.observation_domain);
    out.extend_from_slice(b",\"template\":");
    integer(out, record.template.id);
    if record.is_options() {
        out.extend_from_slice(b",\"scopeFields\":");
        integer(out, record.template.scope_fields);
    }
    out.extend_from_slice(b",\"fields\":{");
    for (at, (field, value)) in record.fields().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        // Names are an element's or one printable word; the latter may still hold a quote.
        string(out, &field.name);
        if field.occurrence > 1 {
            out.pop();
            out.push(b'_');
            integer(out, field.occurrence);
            out.push(b'"');
        }
        out.push(b':');
        write_value(out, value, times);
    }
    out.extend_from_slice(b"}}\n");
}

fn write_value(out: &mut Vec<u8>, value: &Value, times: &mut UtcTimes) {
    match value {
        Value::Unsigned(number) => integer(out, *number),
        Value::Signed(number) => integer(out, *number),
        // Infinity and what is no number at all have no form in JSON but null.
        Value::Float(number) if number.is_finite() => out.extend_from_slice(number.to_string().as_bytes()),
        Value::Float(_) => out.extend_from_slice(b"null"),
        Value::Boolean(true) => out.extend_from_slice(b"true"),
        Value::Boolean(false) => out.extend_from_slice(b"false"),
        Value::Ipv4(octets) => quoted(out, |out| ipv4(out, octets)),
        Value::Ipv6(octets) => quoted(out, |out| ipv6(out, octets)),
        Value::Mac(octets) => quoted(out, |out| {
            for (at, octet) in octets.iter().enumerate() {
                if at > 0 {
                    out.push(b':');
                }
                hex(out, &[*octet]);
            }
        }),
        Value::Time(time, places) => quoted(out, |out| times.rfc3339(out, *time, usize::from(*places))),
        Value::Text(text) => string(out, text),
        Value::Octets(octets) => quoted(out, |out| hex(out, octets)),
    }
}

fn quoted(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    out.push(b'"');
    write(out);
    out.push(b'"');
}

fn string(out: &mut Vec<u8>, text: &str) {
    // A Vec takes all that is written to it, and any text has a form in JSON, so neither step can fail.
    let _ = serde_json::to_writer(out, text);
}
