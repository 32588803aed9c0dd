//! What holds for any records: the framing by a plain walk over the octets, the values by a reader that shares no code.

use std::collections::BTreeMap;
use std::net::IpAddr;

use netflow_parser::{NetflowPacket, NetflowParser};
use proptest::prelude::*;
use serde_json::Value;

use crate::decode::IpVersion;
use crate::export::clock::ExportClock;
use crate::export::exporter::{Framing, TemplateExporter};
use crate::export::ipfix::Ipfix;
use crate::export::netflow9::NetFlow9;
use crate::export::testing::{kept, wall};
use crate::export::{Delivery, ExportOptions, Exporter, MeteringStatistics};
use crate::flow::{EndReason, FlowRecord};
use crate::time::Timestamp;

prop_compose! {
    /// Records within a minute or so, as a capture gives them, numbered by their packets.
    fn any_record()(
        source in any::<[u8; 16]>(),
        destination in any::<[u8; 16]>(),
        start in 0..60_000_u64,
        duration in 0..60_000_u64,
        octets in any::<u64>(),
        flag_counts in any::<[u32; 9]>(),
        interface in any::<u32>(),
        ports in any::<(u16, u16)>(),
        flags in (0..0x1000_u16, 0..0x1000_u16),
        vlan in prop_oneof![Just(0), 1..4095_u16],
        protocol in prop_oneof![Just(1), Just(6), Just(17), Just(58), any::<u8>()],
        (tos, is_ipv4, end_reason) in (any::<u8>(), any::<bool>(), 0..5_usize),
    ) -> FlowRecord {
        let reasons = [
            EndReason::Idle,
            EndReason::Active,
            EndReason::End,
            EndReason::Forced,
            EndReason::LackOfResources,
        ];
        // Only TCP has flags, and mostly those of the first octet.
        let mask = match (protocol, tos % 2) {
            (6, 0) => 0xFF,
            (6, _) => 0xFFF,
            _ => 0,
        };
        let nanos = |millis: u64| Timestamp::from_nanos((1_700_000_000_000 + millis) * 1_000_000 + 999_999);
        let address = |mut octets: [u8; 16]| {
            if is_ipv4 {
                octets[4..].fill(0);
            }
            octets
        };
        FlowRecord {
            source: address(source),
            destination: address(destination),
            start: nanos(start),
            end: nanos(start + duration),
            ended: nanos(start + duration + 15_000),
            packets: 0,
            octets,
            flag_counts,
            interface,
            source_port: ports.0,
            destination_port: ports.1,
            initial_flags: flags.0 & mask,
            later_flags: flags.1 & mask,
            vlan,
            protocol,
            tos,
            ip_version: if is_ipv4 { IpVersion::V4 } else { IpVersion::V6 },
            end_reason: reasons[end_reason],
            padding: [0; 2],
        }
    }
}

/// Records with the packets 1, 2, 3 … by which each is known again.
fn records() -> impl Strategy<Value = Vec<FlowRecord>> {
    prop::collection::vec(any_record(), 0..200).prop_map(|mut records| {
        for (number, record) in (1..).zip(&mut records) {
            record.packets = number;
        }
        records
    })
}

fn export<F: Framing>(
    framing: F,
    clock: ExportClock,
    limit: usize,
    batch: usize,
    records: &[FlowRecord],
) -> (Vec<Vec<u8>>, Delivery) {
    let (outlet, messages) = kept(limit);
    let options = ExportOptions { template_refresh_packets: 7, ..ExportOptions::default() };
    let mut exporter = TemplateExporter::new(framing, outlet, clock, &options);
    for records in records.chunks(batch) {
        exporter.export(records);
    }
    exporter.finish(wall(), &MeteringStatistics::default());
    let messages = messages.lock().expect("no panic").clone();
    (messages, exporter.delivery())
}

fn u16_at(octets: &[u8], at: usize) -> usize {
    usize::from(octets[at]) << 8 | usize::from(octets[at + 1])
}

fn u32_at(octets: &[u8], at: usize) -> u32 {
    (u16_at(octets, at) as u32) << 16 | u16_at(octets, at + 2) as u32
}

/// The Sets behind the header: ID and content. Checks that their lengths add up.
fn sets(message: &[u8], header: usize) -> Vec<(usize, &[u8])> {
    let mut sets = Vec::new();
    let mut at = header;
    while at < message.len() {
        let (id, length) = (u16_at(message, at), u16_at(message, at + 2));
        assert!(length > 4, "an empty Set");
        sets.push((id, &message[at + 4..at + length]));
        at += length;
    }
    assert_eq!(at, message.len());
    sets
}

/// The record length of each template in a Template Set. Checks that nothing but padding follows.
fn learn(set: &[u8], lengths: &mut BTreeMap<usize, usize>) -> usize {
    let (mut at, mut count) = (0, 0);
    while set.len() - at >= 4 {
        let (id, fields) = (u16_at(set, at), u16_at(set, at + 2));
        at += 4;
        let mut length = 0;
        for _ in 0..fields {
            length += u16_at(set, at + 2);
            at += if set[at] & 0x80 == 0 { 4 } else { 8 };
        }
        assert!(lengths.insert(id, length).is_none_or(|before| before == length));
        count += 1;
    }
    assert!(set[at..].iter().all(|octet| *octet == 0));
    count
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn ipfix_messages_add_up_and_number_each_record(
        records in records(),
        limit in 484..2000_usize,
        batch in 1..50_usize,
    ) {
        let clock = || ExportClock::wall(wall);
        let (messages, delivery) = export(Ipfix::new(1), clock(), limit, batch, &records);
        let (mut flows, mut options, mut lengths) = (0, 0, BTreeMap::new());
        for message in &messages {
            prop_assert!(message.len() <= limit);
            prop_assert_eq!(u16_at(message, 0), 10);
            prop_assert_eq!(u16_at(message, 2), message.len());
            let is_flows = u32_at(message, 12) == 1;
            prop_assert_eq!(u32_at(message, 8), if is_flows { flows } else { options });
            let sets = sets(message, 16);
            let mut ids: Vec<_> = sets.iter().map(|(id, _)| *id).collect();
            ids.retain(|id| *id != 3);
            let besides = ids.len();
            ids.dedup();
            prop_assert_eq!(ids.len(), besides, "one Set of each kind");
            for (id, set) in sets {
                match id {
                    2 => prop_assert!(is_flows && learn(set, &mut lengths) > 0),
                    3 => prop_assert!(!is_flows),
                    268.. => options += 1,
                    _ => {
                        prop_assert_eq!(set.len() % lengths[&id], 0);
                        flows += (set.len() / lengths[&id]) as u32;
                    }
                }
            }
        }
        prop_assert_eq!(flows as usize, records.len());
        prop_assert_eq!(options, 3);
        prop_assert_eq!(delivery.sent.records as usize, records.len());
        prop_assert_eq!(delivery.messages as usize, messages.len());
        prop_assert_eq!(delivery.message_octets as usize, messages.iter().map(Vec::len).sum::<usize>());
        // Batches do not show.
        prop_assert_eq!(messages, export(Ipfix::new(1), clock(), limit, 200, &records).0);
    }

    #[test]
    fn netflow9_packets_add_up_and_count_each_record(records in records(), limit in 484..2000_usize) {
        let clock = ExportClock::packets_of_message();
        let (messages, delivery) = export(NetFlow9::new(1), clock, limit, 64, &records);
        let (mut sequences, mut lengths, mut flows) = ([0_u32; 2], BTreeMap::new(), 0);
        let mut boots = Vec::new();
        for message in &messages {
            prop_assert!(message.len() <= limit);
            prop_assert_eq!(u16_at(message, 0), 9);
            prop_assert_eq!(message.len() % 4, 0);
            boots.push(u64::from(u32_at(message, 8)) * 1000 - u64::from(u32_at(message, 4)));
            let source = u32_at(message, 16) as usize;
            prop_assert_eq!(u32_at(message, 12), sequences[source]);
            sequences[source] += 1;
            let mut count = 0;
            for (id, set) in sets(message, 20) {
                count += match id {
                    0 => learn(set, &mut lengths),
                    1 | 268.. => 1,
                    _ => {
                        let padding = set.len() % lengths[&id];
                        prop_assert!(padding < 4);
                        prop_assert!(set[set.len() - padding..].iter().all(|octet| *octet == 0));
                        flows += set.len() / lengths[&id];
                        set.len() / lengths[&id]
                    }
                }
            }
            prop_assert_eq!(u16_at(message, 2), count);
        }
        boots.dedup();
        prop_assert_eq!(boots.len(), 1, "one boot");
        prop_assert_eq!(flows, records.len());
        prop_assert_eq!(delivery.sent.records as usize, records.len());
    }

    #[test]
    fn another_reader_finds_the_same_values_in_ipfix(records in records()) {
        let (messages, _) = export(Ipfix::new(1), ExportClock::wall(wall), 1472, 64, &records);
        let found = read(&messages);
        prop_assert_eq!(found.len(), records.len());
        for record in &records {
            let found = &found[&record.packets];
            let is = |name: &str, value: u64| found.is(name, value);
            found.is_text("SourceIpv4address", "SourceIpv6address", record.source_address());
            found.is_text("DestinationIpv4address", "DestinationIpv6address", record.destination_address());
            is("SourceTransportPort", record.source_port.into());
            is("DestinationTransportPort", record.destination_port.into());
            is("ProtocolIdentifier", record.protocol.into());
            is("IpVersion", record.ip_version as u64);
            is("IpClassOfService", record.tos.into());
            is("OctetDeltaCount", record.octets);
            is("FlowStartMilliseconds", record.start.millis());
            is("FlowEndMilliseconds", record.end.millis());
            is("InitialTCPFlags", record.initial_flags.into());
            is("UnionTCPFlags", record.later_flags.into());
            // The reader knows nine flags of the twelve bits.
            is("TcpControlBits", u64::from(record.tcp_flags() & 0x1FF));
            is("TcpFinTotalCount", record.flag_counts[0].into());
            is("TcpSynTotalCount", record.flag_counts[1].into());
            is("TcpRstTotalCount", record.flag_counts[2].into());
            is("TcpPshTotalCount", record.flag_counts[3].into());
            is("TcpAckTotalCount", record.flag_counts[4].into());
            is("TcpUrgTotalCount", record.flag_counts[5].into());
            is("FlowEndReason", record.end_reason as u64);
            is("IngressInterface", record.interface.into());
            is("VlanId", record.vlan.into());
            found.is_only_if("Dot1qVlanId", record.vlan != 0, record.vlan.into());
            let icmp = |version, protocol| (record.ip_version, record.protocol) == (version, protocol);
            found.is_only_if("IcmpTypeCodeIpv4", icmp(IpVersion::V4, 1), record.destination_port.into());
            found.is_only_if("IcmpTypeCodeIpv6", icmp(IpVersion::V6, 58), record.destination_port.into());
        }
    }

    #[test]
    fn another_reader_finds_the_same_values_in_netflow9(records in records()) {
        let clock = ExportClock::packets_of_message();
        let (messages, _) = export(NetFlow9::new(1), clock, 1472, 64, &records);
        let found = read(&messages);
        prop_assert_eq!(found.len(), records.len());
        for record in &records {
            let found = &found[&record.packets];
            let is = |name: &str, value: u64| found.is(name, value);
            found.is_text("Ipv4SrcAddr", "Ipv6SrcAddr", record.source_address());
            found.is_text("Ipv4DstAddr", "Ipv6DstAddr", record.destination_address());
            is("L4SrcPort", record.source_port.into());
            is("L4DstPort", record.destination_port.into());
            is("Protocol", record.protocol.into());
            is("IpProtocolVersion", record.ip_version as u64);
            is("SrcTos", record.tos.into());
            is("InBytes", record.octets);
            is("FirstSwitched", record.start.millis() - found.boot_millis);
            is("LastSwitched", record.end.millis() - found.boot_millis);
            is("TcpFlags", u64::from(record.tcp_flags() & 0x1FF));
            is("219", record.flag_counts[0].into());
            is("218", record.flag_counts[1].into());
            is("220", record.flag_counts[2].into());
            is("221", record.flag_counts[3].into());
            is("222", record.flag_counts[4].into());
            is("223", record.flag_counts[5].into());
            is("FlowEndReason", record.end_reason as u64);
            is("InputSnmp", record.interface.into());
            is("SrcVlan", record.vlan.into());
            found.is_only_if("243", record.vlan != 0, record.vlan.into());
        }
    }
}

/// A record as the other reader has it.
#[derive(Debug)]
struct Found {
    /// The header's seconds × 1000 − sysUpTime, in NetFlow v9.
    boot_millis: u64,
    fields: BTreeMap<String, Value>,
}

impl Found {
    #[track_caller]
    fn is(&self, name: &str, expected: u64) {
        let found = self.fields.get(name).unwrap_or_else(|| panic!("no {name} in {self:?}"));
        assert_eq!(number(found).unwrap_or(expected), expected, "{name} in {self:?}");
    }

    #[track_caller]
    fn is_only_if(&self, name: &str, there: bool, expected: u64) {
        assert_eq!(self.fields.contains_key(name), there, "{name} in {self:?}");
        if there {
            self.is(name, expected);
        }
    }

    #[track_caller]
    fn is_text(&self, ipv4_name: &str, ipv6_name: &str, expected: IpAddr) {
        let name = if expected.is_ipv4() { ipv4_name } else { ipv6_name };
        let found = self.fields[name].as_object().and_then(|o| o.values().next()).and_then(Value::as_str);
        assert_eq!(found.map(|text| text.parse()), Some(Ok(expected)), "{name} in {self:?}");
    }
}

/// A value of the other reader as a number; none for those it names by a word we do not know (protocols).
fn number(value: &Value) -> Option<u64> {
    const FLAGS: [&str; 9] = ["fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr", "ns"];
    let (kind, value) = value.as_object()?.iter().next()?;
    match kind.as_str() {
        "DataNumber" => value.as_object()?.values().next()?.as_u64(),
        "Duration" => Some(value["secs"].as_u64()? * 1000 + value["nanos"].as_u64()? / 1_000_000),
        "Vec" => Some(value.as_array()?.iter().fold(0, |sum, octet| sum << 8 | octet.as_u64().unwrap_or(0))),
        "TcpControlBits" => {
            let bits = FLAGS.iter().zip(0..).map(|(flag, bit)| u64::from(value[flag] == true) << bit);
            Some(bits.sum())
        }
        "FlowEndReason" => {
            const REASONS: [&str; 5] =
                ["IdleTimeout", "ActiveTimeout", "EndOfFlow", "ForcedEnd", "LackOfResources"];
            let reason = REASONS.iter().position(|reason| value == reason);
            Some(reason.unwrap_or_else(|| panic!("{value}")) as u64 + 1)
        }
        "ProtocolType" => match value.as_str()? {
            "Icmp" => Some(1),
            "Tcp" => Some(6),
            "Udp" => Some(17),
            _ => None,
        },
        _ => None,
    }
}

/// Reads messages with the other reader: the flow records by their number of packets.
fn read(messages: &[Vec<u8>]) -> BTreeMap<u64, Found> {
    let mut parser = NetflowParser::default();
    let mut records = BTreeMap::new();
    for message in messages {
        let result = parser.parse_bytes(message);
        assert!(result.error.is_none(), "{:?}", result.error);
        for packet in result.packets {
            assert!(matches!(packet, NetflowPacket::IPFix(_) | NetflowPacket::V9(_)));
            let packet = serde_json::to_value(&packet).expect("the reader's own JSON");
            let packet = packet.as_object().and_then(|o| o.values().next()).expect("a version and a packet");
            let header = |name: &str| packet["header"][name].as_u64();
            let boot_millis = match (header("unix_secs"), header("sys_up_time")) {
                (Some(seconds), Some(uptime)) => seconds * 1000 - uptime,
                _ => 0,
            };
            for set in packet["flowsets"].as_array().expect("a list") {
                for record in set["body"]["Data"]["fields"].as_array().into_iter().flatten() {
                    let fields: BTreeMap<String, Value> =
                        record.as_array().expect("a list").iter().map(named).collect();
                    let found = Found { boot_millis, fields };
                    let packets = found.fields.get("PacketDeltaCount").or(found.fields.get("InPkts"));
                    let packets = packets.and_then(number).expect("packets");
                    assert!(records.insert(packets, found).is_none(), "every record once");
                }
            }
        }
    }
    records
}

/// A field is a pair: its name, or an object of the registry and the name; and its value.
fn named(field: &Value) -> (String, Value) {
    let name = match &field[0] {
        Value::Object(object) => object.values().next().expect("a name").clone(),
        name => name.clone(),
    };
    let name = name.as_str().map_or_else(|| name.to_string(), str::to_owned);
    (name, field[1].clone())
}
