//! A Data Record as a line of JSON: every field by its name.

use super::ipfix::DataRecord;
use super::value::Value;
use crate::export::text::write::{UtcTimes, hex, integer, ipv4, ipv6};

/// Appends `record` as one line: when and where it was exported, its template, then its fields in their order, each by
/// its name. A name that comes again has `_2`, `_3` … added, since a JSON object holds a name once.
///
/// Integers are numbers, addresses and times text (RFC 3339, UTC), octets hexadecimal digits.
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
    let begin = out.len();
    // A Vec takes all that is written to it, and any text has a form in JSON, so neither step can fail.
    let _ = serde_json::to_writer(&mut *out, text);
    // JSON asks for escapes below U+0020 alone (RFC 8259 §7); a terminal obeys U+007F to U+009F too.
    if text.contains(|character: char| ('\u{7f}'..='\u{9f}').contains(&character)) {
        let written = String::from_utf8_lossy(&out[begin..]).into_owned();
        out.truncate(begin);
        for character in written.chars() {
            match character {
                '\u{7f}'..='\u{9f}' => {
                    out.extend_from_slice(b"\\u00");
                    hex(out, &[character as u8]);
                }
                _ => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_from_outside_moves_no_cursor_and_is_read_back_as_it_was() {
        let mut out = Vec::new();
        let text = "eth0\x1b[2J \"ü\" \u{9b}31m\x7f\n";
        string(&mut out, text);
        assert_eq!(out, br#""eth0\u001b[2J \""#.iter().chain("ü".as_bytes()).chain(br#"\" \u009b31m\u007f\n""#).copied().collect::<Vec<u8>>());
        assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
    }
}
