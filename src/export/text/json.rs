//! JSON lines: an object a record, every field of it, numbers as numbers and beside them what they mean.
//!
//! Names are those of the CSV columns, so that a script can change from one to the other.

use super::names::{self, FLAG_NAMES};
use super::output::Output;
use super::write::{UtcTimes, address, integer};
use crate::flow::FlowRecord;

#[derive(Default)]
pub(super) struct Rows {
    times: UtcTimes,
}

impl Rows {
    pub(super) fn write(&mut self, records: &[FlowRecord], output: &mut Output) {
        for record in records {
            output.record(record, |out| row(out, record, &mut self.times));
        }
    }
}

#[inline]
pub(super) fn row(out: &mut Vec<u8>, record: &FlowRecord, times: &mut UtcTimes) {
    out.reserve(2048);
    out.extend_from_slice(b"{\"src\":\"");
    address(out, record.ip_version, &record.source);
    out.extend_from_slice(b"\",\"dst\":\"");
    address(out, record.ip_version, &record.destination);
    out.push(b'"');
    number(out, b",\"ip_version\":", record.ip_version as u64);
    number(out, b",\"proto\":", record.protocol.into());
    if let Some(name) = names::protocol(record.protocol) {
        word(out, b",\"proto_name\":\"", name);
    }
    number(out, b",\"sport\":", record.source_port.into());
    number(out, b",\"dport\":", record.destination_port.into());
    if let Some((icmp_type, code)) = names::icmp(record) {
        number(out, b",\"icmp_type\":", icmp_type.into());
        number(out, b",\"icmp_code\":", code.into());
        if let Some(name) = names::icmp_type(record.ip_version, icmp_type) {
            word(out, b",\"icmp_name\":\"", name);
        }
    }
    number(out, b",\"packets\":", record.packets);
    number(out, b",\"octets\":", record.octets);
    out.extend_from_slice(b",\"start\":\"");
    times.rfc3339(out, record.start, 9);
    out.extend_from_slice(b"\",\"end\":\"");
    times.rfc3339(out, record.end, 9);
    out.push(b'"');
    number(out, b",\"start_ms\":", record.start.millis());
    number(out, b",\"end_ms\":", record.end.millis());
    number(out, b",\"start_ns\":", record.start.nanos());
    number(out, b",\"end_ns\":", record.end.nanos());
    number(out, b",\"duration_ns\":", record.end.nanos().saturating_sub(record.start.nanos()));
    number(out, b",\"ended_ns\":", record.ended.nanos());
    flags(out, b",\"tcp_flags\":", b",\"tcp_flags_text\":\"", record.tcp_flags());
    flags(out, b",\"initial_flags\":", b",\"initial_flags_text\":\"", record.initial_flags);
    flags(out, b",\"later_flags\":", b",\"later_flags_text\":\"", record.later_flags);
    for (name, count) in FLAG_NAMES.iter().zip(record.flag_counts) {
        out.extend_from_slice(b",\"");
        out.extend_from_slice(name.as_bytes());
        number(out, b"\":", count.into());
    }
    number(out, b",\"reason\":", record.end_reason as u64);
    word(out, b",\"reason_text\":\"", names::end_reason(record.end_reason));
    number(out, b",\"vlan\":", record.vlan.into());
    number(out, b",\"tos\":", record.tos.into());
    number(out, b",\"interface\":", record.interface.into());
    out.extend_from_slice(b"}\n");
}

#[inline]
fn number(out: &mut Vec<u8>, key: &[u8], value: u64) {
    out.extend_from_slice(key);
    integer(out, value);
}

/// `text` is one of our own words, with nothing in it to escape.
#[inline]
fn word(out: &mut Vec<u8>, key: &[u8], text: &str) {
    out.extend_from_slice(key);
    out.extend_from_slice(text.as_bytes());
    out.push(b'"');
}

#[inline]
fn flags(out: &mut Vec<u8>, key: &[u8], text_key: &[u8], flags: u16) {
    number(out, key, flags.into());
    out.extend_from_slice(text_key);
    names::flag_letters(out, flags);
    out.push(b'"');
}
