//! The netflow_parser crate, an independent reader of IPFIX, NetFlow v9 and v5, over messages that sockets of the test
//! received.

use netflow_parser::variable_versions::ipfix::FlowSetBody as IpfixBody;
use netflow_parser::variable_versions::v9::FlowSetBody as V9Body;
use netflow_parser::{FieldValue, IpfixField, NetflowPacket, NetflowParser, V9Field};

use crate::common::flowtap;
use crate::support::record::{Record, assert_same};
use crate::support::sink::{TcpSink, UdpSink};
use crate::support::wire::{frames, number};
use crate::{Case, public_captures, recordings};

/// The enterprise of the elements beside IANA's.
const CERT: u32 = 6871;

/// The fields of one record, each under the id that the reader took it for.
struct Fields<'a> {
    find: &'a dyn Fn(u32, u16) -> Option<&'a FieldValue>,
}

impl Fields<'_> {
    fn octets(&self, enterprise: u32, id: u16) -> Option<Vec<u8>> {
        let mut octets = Vec::new();
        (self.find)(enterprise, id)?.write_be_bytes(&mut octets).expect("a Vec takes all");
        Some(octets)
    }

    fn number(&self, enterprise: u32, id: u16) -> u64 {
        let octets = self.octets(enterprise, id).unwrap_or_else(|| panic!("no field {enterprise}/{id}"));
        number(&octets, 0, octets.len())
    }

    fn address(&self, ipv4: u16, ipv6: u16) -> std::net::IpAddr {
        let value = (self.find)(0, ipv4).or_else(|| (self.find)(0, ipv6)).expect("an address");
        value.try_into().unwrap_or_else(|error| panic!("{error} in {value:?}"))
    }

    /// The record; times are what `time` makes of the two fields.
    fn record(&self, time: impl Fn(&Self) -> (u64, u64)) -> Record {
        let iana = |id| self.number(0, id);
        let cert = |id| self.octets(CERT, id).map_or(0, |octets| number(&octets, 0, octets.len()));
        let (start_ms, end_ms) = time(self);
        Record {
            source: self.address(8, 27),
            destination: self.address(12, 28),
            protocol: iana(4) as u8,
            source_port: iana(7) as u16,
            destination_port: iana(11) as u16,
            packets: iana(2),
            octets: iana(1),
            start_ms,
            end_ms,
            flags: iana(6) as u16,
            initial_flags: cert(14) as u16,
            later_flags: cert(15) as u16,
            counts: [219, 218, 220, 221, 222, 223].map(iana),
            reason: iana(136) as u8,
            vlan: iana(58) as u16,
            tos: iana(5) as u8,
        }
    }
}

/// The flow records and the number of options records in messages of one session.
fn read(messages: &[Vec<u8>]) -> (Vec<Record>, usize) {
    let mut parser = NetflowParser::default();
    let (mut records, mut options) = (Vec::new(), 0);
    for message in messages {
        let result = parser.parse_bytes(message);
        assert!(result.error.is_none(), "{:?} in {message:02x?}", result.error);
        assert_eq!(result.packets.len(), 1, "one packet in {message:02x?}");
        match &result.packets[0] {
            NetflowPacket::IPFix(packet) => {
                assert_eq!(usize::from(packet.header.length), message.len());
                for set in &packet.flowsets {
                    match &set.body {
                        IpfixBody::Data(data) => {
                            assert!(data.padding.is_empty(), "padding in IPFIX");
                            records.extend(data.fields.iter().map(|fields| {
                                let find = |enterprise: u32, id: u16| {
                                    let wanted = IpfixField::new(id, (enterprise != 0).then_some(enterprise));
                                    fields.iter().find(|(field, _)| *field == wanted).map(|(_, value)| value)
                                };
                                Fields { find: &find }
                                    .record(|fields| (fields.number(0, 152), fields.number(0, 153)))
                            }));
                        }
                        IpfixBody::OptionsData(data) => options += data.fields.len(),
                        IpfixBody::NoTemplate(unknown) => panic!("no template for {unknown:?}"),
                        IpfixBody::Empty => panic!("an empty Set"),
                        _ => {}
                    }
                }
            }
            NetflowPacket::V9(packet) => {
                let boot = u64::from(packet.header.unix_secs) * 1000 - u64::from(packet.header.sys_up_time);
                for set in &packet.flowsets {
                    match &set.body {
                        V9Body::Data(data) => records.extend(data.fields.iter().map(|fields| {
                            let find = |enterprise: u32, id: u16| {
                                let wanted = V9Field::from(id);
                                let found = fields.iter().find(|(field, _)| *field == wanted);
                                found.filter(|_| enterprise == 0).map(|(_, value)| value)
                            };
                            Fields { find: &find }
                                .record(|fields| (boot + fields.number(0, 22), boot + fields.number(0, 21)))
                        })),
                        V9Body::OptionsData(data) => options += data.fields.len(),
                        V9Body::NoTemplate(unknown) => panic!("no template for {unknown:?}"),
                        V9Body::Empty => panic!("an empty FlowSet"),
                        _ => {}
                    }
                }
            }
            NetflowPacket::V5(packet) => {
                let header = packet.header;
                assert_eq!(header.flow_sequence as usize, records.len(), "flow_sequence");
                assert_eq!(usize::from(header.count), packet.flowsets.len(), "count");
                assert!(packet.flowsets.len() <= 30, "{} records in one packet", packet.flowsets.len());
                let boot = u64::from(header.unix_secs) * 1000 - u64::from(header.sys_up_time);
                records.extend(packet.flowsets.iter().map(|flow| Record {
                    source: flow.src_addr.into(),
                    destination: flow.dst_addr.into(),
                    protocol: flow.protocol_number,
                    source_port: flow.src_port,
                    destination_port: flow.dst_port,
                    packets: flow.d_pkts.into(),
                    octets: flow.d_octets.into(),
                    start_ms: boot + u64::from(flow.first),
                    end_ms: boot + u64::from(flow.last),
                    flags: flow.tcp_flags.into(),
                    tos: flow.tos,
                    ..Record::empty()
                }));
            }
            other => panic!("{other:?}"),
        }
    }
    (records, options)
}

/// It names nine flags in tcpControlBits and lets the three unassigned ones go.
fn as_read(record: &Record) -> Record {
    Record { flags: record.flags & 0x1FF, ..record.clone() }
}

fn over_udp(case: &Case, scheme: &str) -> Vec<Vec<u8>> {
    let sink = UdpSink::new("127.0.0.1");
    let (output, messages) = sink.run(
        flowtap()
            .args(["read", "--summary", "json", "--to", &format!("{scheme}://127.0.0.1:{}", sink.port())])
            .args(&case.captures),
    );
    let summary = case.assert_exported(&output);
    assert_eq!(summary["destinations"][0]["messages"], messages.len() as u64, "{} over {scheme}", case.name);
    messages
}

fn assert_all_read(case: &Case) {
    let expected: Vec<Record> = case.records.iter().map(as_read).collect();
    let (found, options) = read(&over_udp(case, "ipfix+udp"));
    assert_same(&format!("{} over IPFIX and UDP", case.name), &expected, &found);
    assert_eq!(options, 3, "{}: statistics over IPFIX", case.name);

    let sink = TcpSink::new();
    let to = format!("ipfix+tcp://127.0.0.1:{}", sink.port());
    let (output, stream) =
        sink.run(flowtap().args(["read", "--summary", "json", "--to", &to]).args(&case.captures), usize::MAX);
    case.assert_exported(&output);
    let (found, options) = read(&frames(&stream));
    assert_same(&format!("{} over IPFIX and TCP", case.name), &expected, &found);
    assert_eq!(options, 3, "{}: statistics over TCP", case.name);

    let expected: Vec<Record> = expected.iter().map(Record::without_initial_flags).collect();
    let (found, options) = read(&over_udp(case, "netflow9+udp"));
    assert_same(&format!("{} over NetFlow v9", case.name), &expected, &found);
    // Its clock is the packets', so a long capture brings them more than once.
    assert!(options >= 1, "{}: no statistics over NetFlow v9", case.name);

    let ipv4 = case.records.iter().filter(|record| record.is_ipv4());
    let expected: Vec<Record> = ipv4.map(Record::as_netflow5).collect();
    let (found, _) = read(&over_udp(case, "netflow5+udp"));
    assert_same(&format!("{} over NetFlow v5", case.name), &expected, &found);
}

#[test]
fn netflow_parser_reads_every_recording_over_each_protocol() {
    for case in recordings() {
        assert_all_read(&case);
    }
}

#[test]
fn netflow_parser_reads_the_public_captures_over_each_protocol() {
    if let Some(case) = public_captures() {
        assert_all_read(&case);
    }
}
