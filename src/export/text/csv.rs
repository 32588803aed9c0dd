//! CSV: a header and a line a record.
//!
//! No field ever holds a comma, a quote or a line end, so nothing is quoted. Flags are hexadecimal (`0x01b`), all other
//! numbers decimal, times whole milliseconds (rounded down) or nanoseconds since 1970 UTC.

use super::output::Output;
use super::write::{address, flags_hex, integer};
use crate::flow::FlowRecord;

/// The columns, in their order. The first 24 are what scripts rely on; more may follow them.
pub(crate) const COLUMNS: &str = "src,dst,proto,sport,dport,packets,octets,start_ms,end_ms,\
    tcp_flags,initial_flags,later_flags,fin,syn,rst,psh,ack,urg,ece,cwr,ae,reason,vlan,tos,\
    start_ns,end_ns,interface,ip_version";

/// CSV has no state beyond its header.
pub(super) struct Rows;

impl Rows {
    pub(super) fn begin(output: &mut Output) -> Rows {
        output.buffer().extend_from_slice(COLUMNS.as_bytes());
        output.buffer().push(b'\n');
        Rows
    }

    pub(super) fn write(&mut self, records: &[FlowRecord], output: &mut Output) {
        for record in records {
            output.record(record, |out| row(out, record));
        }
    }
}

#[inline]
pub(super) fn row(out: &mut Vec<u8>, record: &FlowRecord) {
    // A row is at most 2 × 39 octets of addresses, 22 numbers and their commas: room for all of it at once.
    out.reserve(512);
    address(out, record.ip_version, &record.source);
    out.push(b',');
    address(out, record.ip_version, &record.destination);
    let mut number = |value: u64| {
        out.push(b',');
        integer(out, value);
    };
    number(record.protocol.into());
    number(record.source_port.into());
    number(record.destination_port.into());
    number(record.packets);
    number(record.octets);
    number(record.start.millis());
    number(record.end.millis());
    for flags in [record.tcp_flags(), record.initial_flags, record.later_flags] {
        out.push(b',');
        flags_hex(out, flags);
    }
    let mut number = |value: u64| {
        out.push(b',');
        integer(out, value);
    };
    for count in record.flag_counts {
        number(count.into());
    }
    number(record.end_reason as u64);
    number(record.vlan.into());
    number(record.tos.into());
    number(record.start.nanos());
    number(record.end.nanos());
    number(record.interface.into());
    number(record.ip_version as u64);
    out.push(b'\n');
}
