//! Data Records of any exporter as Flow Records: what the elements that mean the same thing amount to.
//!
//! Where an exporter gives a thing in several ways the most exact counts: nanoseconds before milliseconds, delta counts
//! before totals. Where it does not give it at all the field is 0; without an end reason it is [`EndReason::Forced`],
//! without a time the Export Time of the Message.

use std::time::Duration;

use super::ipfix::DataRecord;
use super::value::Value;
use crate::decode::IpVersion;
use crate::export::element::{self, CERT_PEN};
use crate::flow::{EndReason, FlowRecord};
use crate::time::Timestamp;

/// The element of YAF that says how much later than the first packet the first of the reverse direction came; the
/// only one read here that flowtap never writes.
const REVERSE_FLOW_DELTA_MILLISECONDS: u16 = 21;

macro_rules! ids {
    ($($element:ident)*) => { $(const $element: u16 = element::$element.id;)* };
}

ids! {
    OCTET_DELTA_COUNT PACKET_DELTA_COUNT OCTET_TOTAL_COUNT PACKET_TOTAL_COUNT POST_OCTET_DELTA_COUNT
    POST_PACKET_DELTA_COUNT PROTOCOL_IDENTIFIER IP_CLASS_OF_SERVICE IP_DIFF_SERV_CODE_POINT TCP_CONTROL_BITS
    SOURCE_TRANSPORT_PORT UDP_SOURCE_PORT TCP_SOURCE_PORT DESTINATION_TRANSPORT_PORT UDP_DESTINATION_PORT
    TCP_DESTINATION_PORT SOURCE_IPV4_ADDRESS DESTINATION_IPV4_ADDRESS SOURCE_IPV6_ADDRESS DESTINATION_IPV6_ADDRESS
    IP_VERSION INGRESS_INTERFACE VLAN_ID DOT1Q_VLAN_ID FLOW_END_REASON ICMP_TYPE_CODE_IPV4 ICMP_TYPE_CODE_IPV6
    ICMP_TYPE_IPV4 ICMP_CODE_IPV4 ICMP_TYPE_IPV6 ICMP_CODE_IPV6
    FLOW_START_SECONDS FLOW_END_SECONDS FLOW_START_MILLISECONDS FLOW_END_MILLISECONDS FLOW_START_MICROSECONDS
    FLOW_END_MICROSECONDS FLOW_START_NANOSECONDS FLOW_END_NANOSECONDS FLOW_START_DELTA_MICROSECONDS
    FLOW_END_DELTA_MICROSECONDS FLOW_START_SYS_UP_TIME FLOW_END_SYS_UP_TIME SYSTEM_INIT_TIME_MILLISECONDS
    FLOW_DURATION_MILLISECONDS FLOW_DURATION_MICROSECONDS
    TCP_SYN_TOTAL_COUNT TCP_FIN_TOTAL_COUNT TCP_RST_TOTAL_COUNT TCP_PSH_TOTAL_COUNT TCP_ACK_TOTAL_COUNT
    TCP_URG_TOTAL_COUNT INITIAL_TCP_FLAGS UNION_TCP_FLAGS
}

/// Appends what `record` says as Flow Records: one, two for a Biflow with packets in both directions (forward first), or
/// none for an options record or one without addresses. Returns how many.
pub fn to_flow_records(record: &DataRecord, flows: &mut Vec<FlowRecord>) -> usize {
    if record.is_options() {
        return 0;
    }
    let mut found = Found::default();
    for (field, value) in record.fields() {
        found.take(field.enterprise, field.id, field.reverse, value);
    }
    let before = flows.len();
    if let Some(forward) = found.forward(record.export_time) {
        flows.push(forward);
        flows.extend(found.reverse(&forward));
    }
    flows.len() - before
}

/// What was found of one direction.
#[derive(Default)]
struct Direction {
    /// By how well they tell: delta, total, post delta.
    packets: [Option<u64>; 3],
    octets: [Option<u64>; 3],
    /// By how exact they are: nanoseconds, microseconds, milliseconds, seconds.
    start: [Option<Timestamp>; 4],
    end: [Option<Timestamp>; 4],
    start_before_export_us: Option<u64>,
    end_before_export_us: Option<u64>,
    start_uptime_ms: Option<u64>,
    end_uptime_ms: Option<u64>,
    duration: Option<Duration>,
    flags: Option<u64>,
    initial_flags: Option<u64>,
    later_flags: Option<u64>,
    flag_counts: [Option<u64>; 6],
    tos: Option<u64>,
    vlan: Option<u64>,
    interface: Option<u64>,
    icmp_type: Option<u64>,
    icmp_code: Option<u64>,
    end_reason: Option<u64>,
}

#[derive(Default)]
struct Found {
    forward: Direction,
    reverse: Direction,
    reverse_delay_ms: Option<u64>,
    protocol: Option<u64>,
    source_port: Option<u64>,
    destination_port: Option<u64>,
    ipv4: [Option<[u8; 4]>; 2],
    ipv6: [Option<[u8; 16]>; 2],
    ip_version: Option<u64>,
    system_init: Option<Timestamp>,
}

/// The first of an element counts: where one stands twice, it is the outer header's (RFC 7011 §8).
fn keep<T>(place: &mut Option<T>, value: Option<T>) {
    if place.is_none() {
        *place = value;
    }
}

impl Found {
    fn take(&mut self, enterprise: u32, id: u16, reverse: bool, value: &Value) {
        let direction = if reverse { &mut self.reverse } else { &mut self.forward };
        let (number, time) = (value.unsigned(), value.time());
        if enterprise == CERT_PEN {
            match id {
                INITIAL_TCP_FLAGS => keep(&mut direction.initial_flags, number),
                UNION_TCP_FLAGS => keep(&mut direction.later_flags, number),
                REVERSE_FLOW_DELTA_MILLISECONDS => keep(&mut self.reverse_delay_ms, number),
                _ => {}
            }
        }
        if enterprise != 0 {
            return;
        }
        match id {
            PACKET_DELTA_COUNT => keep(&mut direction.packets[0], number),
            PACKET_TOTAL_COUNT => keep(&mut direction.packets[1], number),
            POST_PACKET_DELTA_COUNT => keep(&mut direction.packets[2], number),
            OCTET_DELTA_COUNT => keep(&mut direction.octets[0], number),
            OCTET_TOTAL_COUNT => keep(&mut direction.octets[1], number),
            POST_OCTET_DELTA_COUNT => keep(&mut direction.octets[2], number),
            FLOW_START_NANOSECONDS => keep(&mut direction.start[0], time),
            FLOW_START_MICROSECONDS => keep(&mut direction.start[1], time),
            FLOW_START_MILLISECONDS => keep(&mut direction.start[2], time),
            FLOW_START_SECONDS => keep(&mut direction.start[3], time),
            FLOW_END_NANOSECONDS => keep(&mut direction.end[0], time),
            FLOW_END_MICROSECONDS => keep(&mut direction.end[1], time),
            FLOW_END_MILLISECONDS => keep(&mut direction.end[2], time),
            FLOW_END_SECONDS => keep(&mut direction.end[3], time),
            FLOW_START_DELTA_MICROSECONDS => keep(&mut direction.start_before_export_us, number),
            FLOW_END_DELTA_MICROSECONDS => keep(&mut direction.end_before_export_us, number),
            FLOW_START_SYS_UP_TIME => keep(&mut direction.start_uptime_ms, number),
            FLOW_END_SYS_UP_TIME => keep(&mut direction.end_uptime_ms, number),
            FLOW_DURATION_MICROSECONDS => direction.duration = number.map(Duration::from_micros),
            FLOW_DURATION_MILLISECONDS => keep(&mut direction.duration, number.map(Duration::from_millis)),
            TCP_CONTROL_BITS => keep(&mut direction.flags, number),
            TCP_FIN_TOTAL_COUNT => keep(&mut direction.flag_counts[0], number),
            TCP_SYN_TOTAL_COUNT => keep(&mut direction.flag_counts[1], number),
            TCP_RST_TOTAL_COUNT => keep(&mut direction.flag_counts[2], number),
            TCP_PSH_TOTAL_COUNT => keep(&mut direction.flag_counts[3], number),
            TCP_ACK_TOTAL_COUNT => keep(&mut direction.flag_counts[4], number),
            TCP_URG_TOTAL_COUNT => keep(&mut direction.flag_counts[5], number),
            IP_CLASS_OF_SERVICE => keep(&mut direction.tos, number),
            IP_DIFF_SERV_CODE_POINT => keep(&mut direction.tos, number.map(|dscp| (dscp & 63) << 2)),
            VLAN_ID | DOT1Q_VLAN_ID => keep(&mut direction.vlan, number),
            INGRESS_INTERFACE => keep(&mut direction.interface, number),
            FLOW_END_REASON => keep(&mut direction.end_reason, number),
            ICMP_TYPE_CODE_IPV4 | ICMP_TYPE_CODE_IPV6 => {
                keep(&mut direction.icmp_type, number.map(|both| both >> 8));
                keep(&mut direction.icmp_code, number.map(|both| both & 255));
            }
            ICMP_TYPE_IPV4 | ICMP_TYPE_IPV6 => keep(&mut direction.icmp_type, number),
            ICMP_CODE_IPV4 | ICMP_CODE_IPV6 => keep(&mut direction.icmp_code, number),
            // What identifies a Flow has no reverse (RFC 5103 §6.1).
            _ if reverse => {}
            PROTOCOL_IDENTIFIER => keep(&mut self.protocol, number),
            SOURCE_TRANSPORT_PORT | UDP_SOURCE_PORT | TCP_SOURCE_PORT => keep(&mut self.source_port, number),
            DESTINATION_TRANSPORT_PORT | UDP_DESTINATION_PORT | TCP_DESTINATION_PORT => {
                keep(&mut self.destination_port, number);
            }
            SOURCE_IPV4_ADDRESS => keep(&mut self.ipv4[0], ipv4(value)),
            DESTINATION_IPV4_ADDRESS => keep(&mut self.ipv4[1], ipv4(value)),
            SOURCE_IPV6_ADDRESS => keep(&mut self.ipv6[0], ipv6(value)),
            DESTINATION_IPV6_ADDRESS => keep(&mut self.ipv6[1], ipv6(value)),
            IP_VERSION => keep(&mut self.ip_version, number),
            SYSTEM_INIT_TIME_MILLISECONDS => keep(&mut self.system_init, time),
            _ => {}
        }
    }

    fn forward(&self, export_time: Timestamp) -> Option<FlowRecord> {
        let (ip_version, source, destination) = self.addresses()?;
        let protocol = self.protocol.map_or(0, narrow);
        let (start, end) = self.forward.times(export_time, self.system_init);
        let mut record = FlowRecord {
            source,
            destination,
            start,
            end,
            ended: end,
            packets: 0,
            octets: 0,
            flag_counts: [0; 9],
            interface: 0,
            source_port: self.source_port.map_or(0, narrow),
            destination_port: self.destination_port.map_or(0, narrow),
            initial_flags: 0,
            later_flags: 0,
            vlan: 0,
            protocol,
            tos: 0,
            ip_version,
            end_reason: EndReason::Forced,
            padding: [0; 2],
        };
        self.forward.fill(&mut record);
        Some(record)
    }

    /// The record of the reverse direction, if there was one.
    fn reverse(&self, forward: &FlowRecord) -> Option<FlowRecord> {
        let counted =
            self.reverse.packets.iter().chain(&self.reverse.octets).flatten().any(|count| *count > 0);
        if !counted {
            return None;
        }
        let mut record = FlowRecord {
            source: forward.destination,
            destination: forward.source,
            source_port: forward.destination_port,
            destination_port: forward.source_port,
            packets: 0,
            octets: 0,
            flag_counts: [0; 9],
            initial_flags: 0,
            later_flags: 0,
            ..*forward
        };
        if is_icmp(forward) {
            (record.source_port, record.destination_port) = (0, forward.destination_port);
        }
        let delay = Duration::from_millis(self.reverse_delay_ms.unwrap_or(0));
        let exact_start = self.reverse.start.iter().flatten().next();
        record.start = exact_start.copied().unwrap_or_else(|| forward.start.plus(delay).min(forward.end));
        record.end =
            self.reverse.end.iter().flatten().next().copied().unwrap_or(forward.end).max(record.start);
        record.ended = record.end;
        self.reverse.fill(&mut record);
        Some(record)
    }

    /// The IP version and both addresses. Some exporters fill the fields of the other version with zeros.
    fn addresses(&self) -> Option<(IpVersion, [u8; 16], [u8; 16])> {
        let has_ipv4 = self.ipv4.iter().any(Option::is_some);
        let has_ipv6 = self.ipv6.iter().any(Option::is_some);
        let ipv6_is_meant = match self.ip_version {
            Some(4) if has_ipv4 => false,
            Some(6) if has_ipv6 => true,
            _ => has_ipv6 && self.ipv4.iter().flatten().all(|address| *address == [0; 4]),
        };
        if ipv6_is_meant {
            return Some((IpVersion::V6, self.ipv6[0].unwrap_or_default(), self.ipv6[1].unwrap_or_default()));
        }
        let wide = |address: Option<[u8; 4]>| {
            let mut octets = [0; 16];
            octets[..4].copy_from_slice(&address.unwrap_or_default());
            octets
        };
        has_ipv4.then(|| (IpVersion::V4, wide(self.ipv4[0]), wide(self.ipv4[1])))
    }
}

impl Direction {
    /// Start and end: what is given, else what follows from the other and the duration.
    fn times(&self, export_time: Timestamp, system_init: Option<Timestamp>) -> (Timestamp, Timestamp) {
        let told = |exact: &[Option<Timestamp>; 4], before_export_us: Option<u64>, uptime_ms: Option<u64>| {
            let exact = exact.iter().flatten().next().copied();
            let before_export =
                before_export_us.map(|micros| export_time.minus(Duration::from_micros(micros)));
            let uptime =
                system_init.zip(uptime_ms).map(|(init, millis)| init.plus(Duration::from_millis(millis)));
            exact.or(before_export).or(uptime)
        };
        let start = told(&self.start, self.start_before_export_us, self.start_uptime_ms);
        let end = told(&self.end, self.end_before_export_us, self.end_uptime_ms);
        let lasted = self.duration.unwrap_or_default();
        match (start, end) {
            (Some(start), Some(end)) => (start, end),
            (Some(start), None) => (start, start.plus(lasted)),
            (None, Some(end)) => (end.minus(lasted), end),
            (None, None) => (export_time.minus(lasted), export_time),
        }
    }

    /// Fills what each direction has of its own.
    fn fill(&self, record: &mut FlowRecord) {
        let first = |counts: &[Option<u64>; 3]| counts.iter().flatten().next().copied().unwrap_or(0);
        record.packets = first(&self.packets);
        record.octets = first(&self.octets);
        for (count, found) in record.flag_counts.iter_mut().zip(self.flag_counts) {
            *count = found.map_or(0, |count| u32::try_from(count).unwrap_or(u32::MAX));
        }
        record.initial_flags = self.initial_flags.map_or(0, narrow);
        record.later_flags = self.later_flags.map_or(0, narrow);
        if let Some(flags) = self.flags {
            // Flags beyond what the two others have (YAF sends those in one octet each) are somewhere among the later.
            record.later_flags |= narrow::<u16>(flags) & !record.initial_flags;
        }
        if is_icmp(record) && self.icmp_type.is_some() {
            let (icmp_type, code) = (self.icmp_type.unwrap_or(0) & 255, self.icmp_code.unwrap_or(0) & 255);
            (record.source_port, record.destination_port) = (0, narrow(icmp_type << 8 | code));
        }
        record.tos = self.tos.map_or(record.tos, narrow);
        record.vlan = self.vlan.map_or(record.vlan, narrow);
        record.interface = self.interface.map_or(record.interface, narrow);
        // The upper bits are flags that some exporters add.
        record.end_reason = match self.end_reason.map(|reason| reason & 7) {
            Some(1) => EndReason::Idle,
            Some(2) => EndReason::Active,
            Some(3) => EndReason::End,
            Some(5) => EndReason::LackOfResources,
            _ => record.end_reason,
        };
    }
}

fn is_icmp(record: &FlowRecord) -> bool {
    record.protocol == record.ip_version.icmp()
}

/// A number in fewer octets; what does not fit was sent in more octets than the element has, and counts as 0.
fn narrow<T: TryFrom<u64> + Default>(number: u64) -> T {
    T::try_from(number).unwrap_or_default()
}

fn ipv4(value: &Value) -> Option<[u8; 4]> {
    match value {
        Value::Ipv4(octets) => Some(*octets),
        _ => None,
    }
}

fn ipv6(value: &Value) -> Option<[u8; 16]> {
    match value {
        Value::Ipv6(octets) => Some(*octets),
        _ => None,
    }
}
