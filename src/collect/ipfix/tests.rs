//! The reader against octets written by hand from RFC 7011 and RFC 5103, cut at every octet, and damaged.

use super::*;
use crate::collect::{json, to_flow_records};
use crate::decode::IpVersion;
use crate::export::text::write::UtcTimes;
use crate::flow::{EndReason, FlowRecord};

fn read(octets: &[u8]) -> (Vec<DataRecord>, Option<ReadError>, Counts) {
    let mut reader = MessageReader::new(octets, "test.ipfix");
    let (mut records, mut error) = (Vec::new(), None);
    for record in reader.by_ref() {
        match record {
            Ok(record) => records.push(record),
            Err(why) => error = Some(why),
        }
    }
    (records, error, reader.counts())
}

fn whole(octets: &[u8]) -> Vec<DataRecord> {
    let (records, error, _) = read(octets);
    assert!(error.is_none(), "{error:?}");
    records
}

fn refused(octets: &[u8]) -> String {
    read(octets).1.expect("an error").to_string()
}

fn json(record: &DataRecord) -> serde_json::Value {
    let mut out = Vec::new();
    json::line(record, &mut UtcTimes::default(), &mut out);
    assert_eq!(out.pop(), Some(b'\n'));
    serde_json::from_slice(&out).unwrap()
}

fn flows(record: &DataRecord) -> Vec<FlowRecord> {
    let mut flows = Vec::new();
    to_flow_records(record, &mut flows);
    flows
}

const EXPORT_SECONDS: u32 = 1_700_000_000;

fn message(domain: u32, sets: &[Vec<u8>]) -> Vec<u8> {
    let body = sets.concat();
    let mut octets = vec![0, 10];
    octets.extend((16 + body.len() as u16).to_be_bytes());
    octets.extend(EXPORT_SECONDS.to_be_bytes());
    octets.extend([0; 4]);
    octets.extend(domain.to_be_bytes());
    octets.extend(body);
    octets
}

fn set(id: u16, body: &[u8]) -> Vec<u8> {
    let mut octets = id.to_be_bytes().to_vec();
    octets.extend((4 + body.len() as u16).to_be_bytes());
    octets.extend(body);
    octets
}

fn be(numbers: &[u16]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_be_bytes()).collect()
}

/// A Template Set of one template: (enterprise, id, length) each.
fn template(id: u16, fields: &[(u32, u16, u16)]) -> Vec<u8> {
    let mut body = be(&[id, fields.len() as u16]);
    for (enterprise, id, length) in fields {
        if *enterprise == 0 {
            body.extend(be(&[*id, *length]));
        } else {
            body.extend(be(&[id | 0x8000, *length]));
            body.extend(enterprise.to_be_bytes());
        }
    }
    set(2, &body)
}

/// The Message of RFC 7011 Appendix A.1, A.2.1, A.3, A.4.1 and A.4.4.
const APPENDIX_A: [u8; 152] = [
    0, 10, 0, 152, 0x65, 0x53, 0xF1, 0x00, 0, 0, 0, 0, 0, 0, 0, 0, // A.1: header
    0, 2, 0, 28, 1, 0, 0, 5, 0, 8, 0, 4, 0, 12, 0, 4, 0, 15, 0, 4, 0, 2, 0, 4, 0, 1, 0,
    4, // A.2.1: Template Set
    1, 0, 0, 64, // A.3: Data Set
    192, 0, 2, 12, 192, 0, 2, 254, 192, 0, 2, 1, 0, 0, 0x13, 0x91, 0, 0x51, 0x8C, 0x81, // 5009, 5344385
    192, 0, 2, 27, 192, 0, 2, 23, 192, 0, 2, 2, 0, 0, 0x02, 0xEC, 0, 0x05, 0xEF, 0x46, // 748, 388934
    192, 0, 2, 56, 192, 0, 2, 65, 192, 0, 2, 3, 0, 0, 0, 5, 0, 0, 0x19, 0x86, // 5, 6534
    0, 3, 0, 24, 1, 2, 0, 3, 0, 1, 0, 141, 0, 4, 0, 41, 0, 2, 0, 42, 0, 2, 0,
    0, // A.4.1: Options Template Set
    1, 2, 0, 20, // A.4.4: its Data Set
    0, 0, 0, 1, 0x01, 0x59, 0x27, 0xD9, 0, 0, 0, 2, 0x02, 0xB2, 0x4F, 0xB2,
];

#[test]
fn the_message_of_rfc_7011_appendix_a_gives_its_records() {
    let (records, error, counts) = read(&APPENDIX_A);
    assert!(error.is_none(), "{error:?}");
    assert_eq!(counts, Counts { messages: 1, data_records: 3, options_records: 2, skipped_sets: 0 });
    let first = json(&records[0]);
    assert_eq!(
        first.to_string(),
        r#"{"exportTime":"2023-11-14T22:13:20Z","observationDomain":0,"template":256,"fields":{"sourceIPv4Address":"192.0.2.12","destinationIPv4Address":"192.0.2.254","ipNextHopIPv4Address":"192.0.2.1","packetDeltaCount":5009,"octetDeltaCount":5344385}}"#
            .parse::<serde_json::Value>()
            .unwrap()
            .to_string()
    );
    let flow = flows(&records[1])[0];
    assert_eq!((flow.packets, flow.octets), (748, 388_934));
    assert_eq!(flow.source_address().to_string(), "192.0.2.27");
    assert_eq!(flow.destination_address().to_string(), "192.0.2.23");
    let options = &records[4];
    assert!(options.is_options());
    assert_eq!(options.template.scope_fields, 1);
    assert_eq!(flows(options), []);
    let fields = &json(options)["fields"];
    assert_eq!(fields["lineCardId"], 2);
    assert_eq!(fields["exportedMessageTotalCount"], 690);
    assert_eq!(fields["exportedFlowRecordTotalCount"], 20402);
}

#[test]
fn enterprise_elements_and_those_of_no_name_keep_their_numbers() {
    // RFC 7011 A.2.2: element 15 of an enterprise between IANA's.
    let sets = [
        template(257, &[(0, 8, 4), (32473, 15, 4), (0, 1, 4), (0, 32000, 2)]),
        set(257, &[192, 0, 2, 1, 1, 2, 3, 4, 0, 0, 0, 9, 0xab, 0xcd]),
    ];
    let fields = &json(&whole(&message(1, &sets))[0])["fields"];
    assert_eq!(fields["enterprise32473id15"], "01020304");
    assert_eq!(fields["octetDeltaCount"], 9);
    assert_eq!(fields["id32000"], "abcd");
}

#[test]
fn both_forms_of_variable_length_are_read_and_padding_is_not_a_record() {
    // RFC 7011 §7 and A.5: a length of one octet, or 255 and two.
    let mut body = vec![5];
    body.extend(b"HELLO");
    body.extend([255, 0x03, 0xE8]);
    body.extend([b'a'; 1000]);
    body.extend([0]); // of length 0
    let shortest = [template(300, &[(0, 82, VARIABLE), (0, 4, 1)]), set(300, &[1, b'x', 6, 0])];
    let records = whole(&message(1, &[template(256, &[(0, 82, VARIABLE)]), set(256, &body)]));
    let texts: Vec<_> = records.iter().map(|record| record.values[0].clone()).collect();
    assert_eq!(
        texts,
        [Value::Text("HELLO".into()), Value::Text("a".repeat(1000)), Value::Text(String::new())]
    );
    assert_eq!(whole(&message(1, &shortest)).len(), 1);
}

#[test]
fn a_set_whose_template_is_not_known_is_skipped_and_counted() {
    let sets = [set(256, &[1, 2, 3, 4]), set(9, &[1]), template(256, &[(0, 1, 4)]), set(256, &[0, 0, 0, 7])];
    let (records, error, counts) = read(&message(1, &sets));
    assert!(error.is_none());
    assert_eq!(records.len(), 1);
    assert_eq!(counts.skipped_sets, 2);
}

#[test]
fn templates_belong_to_their_observation_domain() {
    let octets = [
        message(1, &[template(256, &[(0, 1, 4)])]),
        message(2, &[template(256, &[(0, 2, 2)])]),
        message(1, &[set(256, &[0, 0, 0, 7])]),
        message(2, &[set(256, &[0, 7])]),
    ]
    .concat();
    let records = whole(&octets);
    assert_eq!(json(&records[0])["fields"]["octetDeltaCount"], 7);
    assert_eq!(records[0].observation_domain, 1);
    assert_eq!(json(&records[1])["fields"]["packetDeltaCount"], 7);
}

#[test]
fn a_withdrawn_template_is_not_known_any_more_and_a_new_definition_takes_its_place() {
    let data = || set(256, &[0, 0, 0, 7]);
    let one = [template(256, &[(0, 1, 4)]), set(2, &be(&[256, 0])), data()];
    assert_eq!(read(&message(1, &one)).2.skipped_sets, 1);
    // All templates of the domain (RFC 7011 §8.1), which leaves options templates alone.
    let options = set(3, &be(&[257, 1, 1, 149, 4]));
    let all = [template(256, &[(0, 1, 4)]), options, set(2, &be(&[2, 0])), data(), set(257, &[0, 0, 0, 9])];
    let (records, error, counts) = read(&message(1, &all));
    assert!(error.is_none());
    assert_eq!((records.len(), counts.skipped_sets), (1, 1));
    let redefined = [template(256, &[(0, 1, 4)]), template(256, &[(0, 2, 4)]), data()];
    assert_eq!(json(&whole(&message(1, &redefined))[0])["fields"]["packetDeltaCount"], 7);
}

#[test]
fn a_withdrawal_of_all_is_of_one_kind_and_one_domain_and_an_id_is_of_the_kind_it_was_defined_as_last() {
    let plain = || template(256, &[(0, 1, 4)]);
    let options = || set(3, &be(&[256, 1, 1, 149, 4]));
    let data = || set(256, &[0, 0, 0, 7]);
    let (all_plain, all_options) = (|| set(2, &be(&[2, 0])), || set(3, &be(&[3, 0])));
    for (sets, found) in [
        // What is told is whether the record that follows is of an Options Template, and nothing where none is known.
        ([plain(), options(), all_plain()], Some(true)),
        ([plain(), options(), all_options()], None),
        ([options(), plain(), all_plain()], None),
        ([options(), plain(), all_options()], Some(false)),
    ] {
        for neighbour in [0, 2] {
            let neighbours = message(neighbour, &[plain()]);
            let domain = message(1, &[&sets[..], &[data()]].concat());
            let octets = [neighbours, domain, message(neighbour, &[data()])].concat();
            let told: Vec<_> =
                whole(&octets).iter().map(|one| (one.observation_domain, one.is_options())).collect();
            let expected: Vec<_> = found.map(|is_options| (1, is_options)).into_iter().collect();
            assert_eq!(told, [expected, vec![(neighbour, false)]].concat());
        }
    }
}

#[test]
fn templates_that_are_gone_do_not_count_towards_the_most_fields_of_a_stream() {
    const FIELDS: usize = 10_000;
    let fields = [(0, 1, 4); FIELDS];
    let options = |id| {
        let specifiers = (0..FIELDS).flat_map(|_| [149, 4]);
        set(3, &be(&[id, FIELDS as u16, 1].into_iter().chain(specifiers).collect::<Vec<_>>()))
    };
    let data = message(1, &[template(300, &[(0, 1, 4)]), set(300, &[0, 0, 0, 7])]);
    // Each round has a template of its own and is rid of it: half as many again as may be kept.
    let rounds = MOST_FIELDS / FIELDS * 3 / 2;
    type Round<'a> = &'a dyn Fn(u16) -> Vec<Vec<u8>>;
    let one_of_each: [(&str, Round<'_>); 5] = [
        ("withdrawn", &|id| vec![template(id, &fields), set(2, &be(&[id, 0]))]),
        ("an options template withdrawn", &|id| vec![options(id), set(3, &be(&[id, 0]))]),
        ("all withdrawn", &|id| vec![template(id, &fields), set(2, &be(&[2, 0]))]),
        ("all options templates withdrawn", &|id| vec![options(id), set(3, &be(&[3, 0]))]),
        ("replaced", &|id| {
            vec![template(999, &fields), template(999, &[(0, 1, 4)]), template(id, &[(0, 2, 4)])]
        }),
    ];
    for (how, round) in one_of_each {
        let mut octets: Vec<u8> = (0..rounds).flat_map(|n| message(1, &round(1_000 + n as u16))).collect();
        octets.extend(&data);
        let (records, error, _) = read(&octets);
        assert!(error.is_none(), "{how}: {error:?}");
        assert_eq!(records.len(), 1, "{how}");
    }
    // As many as may be kept are, whichever domain they are of, and not one field more.
    let mut octets = data.clone();
    octets.extend((0..MOST_FIELDS / FIELDS).flat_map(|n| message(2, &[template(1_000 + n as u16, &fields)])));
    let (records, error, _) = read(&octets);
    assert_eq!(records.len(), 1);
    let error = error.expect("an error").to_string();
    assert!(error.ends_with(": fields of all templates: found 1000001, allowed up to 1000000"), "{error}");
    assert!(read(&octets[data.len()..]).1.is_none());
}

#[test]
fn zeros_before_a_template_are_no_padding_and_are_gone_through_once() {
    // 16,000 withdrawals of an id that no template has, each of which looked for the end of the zeros.
    let mut body = vec![0; 64_000];
    body.extend(be(&[256, 1, 4, 1]));
    let octets = message(1, &[set(2, &body)]).repeat(500);
    let data = message(1, &[set(256, &[17, 6])]);
    assert_eq!(whole(&[octets, data].concat()).len(), 2);
}

#[test]
fn fields_of_no_octets_take_no_memory() {
    let mut fields = vec![(0, 1, 0); 10_000];
    fields.push((0, 1, 4));
    let record = &whole(&message(1, &[template(256, &fields), set(256, &[0, 0, 0, 7])]))[0];
    assert!(record.template.fields.capacity() < 10, "{}", record.template.fields.capacity());
}

#[test]
fn a_type_information_record_names_the_elements_of_an_enterprise() {
    // RFC 5610: informationElementDataType 339, Id 303, privateEnterpriseNumber 346, Name 341.
    let types = set(3, &be(&[400, 4, 2, 346, 4, 303, 2, 339, 1, 341, VARIABLE]));
    let mut record = 32473u32.to_be_bytes().to_vec();
    record.extend([0x80 | 1, 0x23, 2, 6]); // element 0x123, unsigned16
    record.extend(b"crates");
    // The name comes after the template and counts all the same.
    let sets = [template(256, &[(32473, 0x123, 2)]), types, set(400, &record), set(256, &[1, 0])];
    let records = whole(&message(1, &sets));
    assert_eq!(json(&records[1])["fields"]["crates"], 256);
}

#[test]
fn names_that_come_one_by_one_after_their_templates_are_looked_for_no_more_at_some_time() {
    const ENTERPRISE: u32 = 32473;
    let types = set(3, &be(&[400, 3, 2, 346, 4, 303, 2, 341, VARIABLE]));
    let names = |id: u16| {
        let name = format!("name{id}");
        let record = [&ENTERPRISE.to_be_bytes()[..], &id.to_be_bytes(), &[name.len() as u8], name.as_bytes()];
        set(400, &record.concat())
    };
    // Eight templates that are used after each name; it would take two billion looks at a field.
    let fields: Vec<_> = (0..8_000).map(|id| (ENTERPRISE, id, 1)).collect();
    let wide = 300..308;
    let mut octets: Vec<u8> = wide.clone().flat_map(|id| message(1, &[template(id, &fields)])).collect();
    let uses: Vec<_> = wide.map(|id| set(id, &[])).collect();
    octets.extend(message(1, &[types]));
    let rounds: Vec<Vec<u8>> =
        (0..32_000).map(|id| [vec![names(id)], uses.clone()].concat().concat()).collect();
    octets.extend(rounds.chunks(1_000).flat_map(|rounds| message(1, rounds)));
    octets.extend(message(
        1,
        &[set(300, &[7; 8_000]), template(256, &[(ENTERPRISE, 31_999, 1)]), set(256, &[7])],
    ));
    let mut records = whole(&octets);
    assert_eq!(records.len(), 32_000 + 2);
    let [late, early] = [(); 2].map(|()| json(&records.pop().unwrap()));
    assert_eq!(late["fields"]["name31999"], "07", "what is defined later has its names");
    assert_eq!(early["fields"]["name0"], "07");
    assert_eq!(early["fields"]["enterprise32473id7999"], "07");
}

#[test]
fn a_name_that_comes_again_is_numbered() {
    let sets = [template(256, &[(0, 8, 4), (0, 8, 4)]), set(256, &[192, 0, 2, 1, 10, 0, 0, 1])];
    let record = &whole(&message(1, &sets))[0];
    let fields = &json(record)["fields"];
    assert_eq!(fields["sourceIPv4Address"], "192.0.2.1");
    assert_eq!(fields["sourceIPv4Address_2"], "10.0.0.1");
    // The outer header counts (RFC 7011 §8).
    assert_eq!(flows(record)[0].source_address().to_string(), "192.0.2.1");
}

/// A Biflow as YAF sends it: reverse elements under 29305, CERT's own by bit 0x4000, flags in one octet.
fn biflow() -> Vec<u8> {
    let fields = [
        (0, 8, 4),
        (0, 12, 4),
        (0, 7, 2),
        (0, 11, 2),
        (0, 4, 1),
        (0, 152, 8),
        (0, 153, 8),
        (0, 2, 4),
        (29305, 2, 4),
        (0, 1, 4),
        (29305, 1, 4),
        (6871, 14, 1),
        (6871, 15, 1),
        (6871, 14 | 0x4000, 1),
        (6871, 15 | 0x4000, 1),
        (6871, 21, 4),
        (0, 136, 1),
        (0, 58, 2),
    ];
    let mut record = vec![192, 0, 2, 1, 198, 51, 100, 2];
    record.extend(be(&[50_000, 443]));
    record.push(6);
    record.extend(1_700_000_000_123u64.to_be_bytes());
    record.extend(1_700_000_001_456u64.to_be_bytes());
    for count in [10u32, 8, 1000, 80_000] {
        record.extend(count.to_be_bytes());
    }
    record.extend([0x02, 0x19, 0x12, 0x1b]);
    record.extend(20u32.to_be_bytes());
    record.push(3);
    record.extend(be(&[7]));
    message(5, &[template(256, &fields), set(256, &record)])
}

#[test]
fn a_biflow_gives_a_record_for_each_direction() {
    let records = whole(&biflow());
    let fields = &json(&records[0])["fields"];
    assert_eq!(fields["reversePacketDeltaCount"], 8);
    assert_eq!(fields["reverseInitialTCPFlags"], 0x12);
    assert_eq!(fields["flowStartMilliseconds"], "2023-11-14T22:13:20.123Z");
    let flows = flows(&records[0]);
    let [forward, reverse] = flows[..] else { panic!("{flows:?}") };
    assert_eq!((forward.packets, forward.octets), (10, 1000));
    assert_eq!((forward.initial_flags, forward.later_flags), (0x02, 0x19));
    assert_eq!(forward.start.millis(), 1_700_000_000_123);
    assert_eq!((forward.end_reason, forward.vlan), (EndReason::End, 7));
    assert_eq!((reverse.packets, reverse.octets), (8, 80_000));
    assert_eq!((reverse.initial_flags, reverse.later_flags), (0x12, 0x1b));
    assert_eq!(reverse.start.millis(), 1_700_000_000_143);
    assert_eq!(reverse.end, forward.end);
    assert_eq!((reverse.source_port, reverse.destination_port), (443, 50_000));
    assert_eq!(reverse.source_address(), forward.destination_address());
    assert_eq!(reverse.end_reason, EndReason::End);
}

#[test]
fn the_usual_ways_to_say_a_thing_are_all_understood() {
    // Totals, uptimes and their base, one octet of flags, ICMP type and code, IPv6 beside zeros of IPv4.
    let fields = [
        (0, 8, 4),
        (0, 12, 4),
        (0, 27, 16),
        (0, 28, 16),
        (0, 4, 1),
        (0, 86, 4),
        (0, 85, 4),
        (0, 22, 4),
        (0, 21, 4),
        (0, 160, 8),
        (0, 139, 2),
        (0, 243, 2),
        (0, 10, 4),
    ];
    let mut record = vec![0; 8];
    record.extend([0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    record.extend([0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    record.push(58);
    for number in [3u32, 312, 1000, 2500] {
        record.extend(number.to_be_bytes());
    }
    record.extend(1_700_000_000_000u64.to_be_bytes());
    record.extend(be(&[128 << 8, 100]));
    record.extend(9u32.to_be_bytes());
    let flow = flows(&whole(&message(1, &[template(256, &fields), set(256, &record)]))[0])[0];
    assert_eq!(flow.ip_version, IpVersion::V6);
    assert_eq!((flow.packets, flow.octets), (3, 312));
    assert_eq!((flow.start.millis(), flow.end.millis()), (1_700_000_001_000, 1_700_000_002_500));
    assert_eq!((flow.source_port, flow.destination_port), (0, 128 << 8));
    assert_eq!((flow.vlan, flow.interface), (100, 9));
    // A start and a duration; offsets before the Export Time.
    let with = |fields: &[(u32, u16, u16)], body: &[u8]| {
        let fields = [&[(0, 8, 4)], fields].concat();
        let body = [&[192, 0, 2, 1], body].concat();
        flows(&whole(&message(1, &[template(256, &fields), set(256, &body)]))[0])[0]
    };
    let lasted = with(&[(0, 150, 4), (0, 161, 4)], &[0x65, 0x53, 0xF1, 0, 0, 0, 0x03, 0xE8]);
    assert_eq!((lasted.start.millis(), lasted.end.millis()), (1_700_000_000_000, 1_700_000_001_000));
    let before = with(&[(0, 158, 4), (0, 159, 4)], &[0, 0x0F, 0x42, 0x40, 0, 0, 0, 0]);
    assert_eq!((before.start.millis(), before.end.millis()), (1_699_999_999_000, 1_700_000_000_000));
    let flags = with(&[(0, 6, 1)], &[0x1b]);
    assert_eq!(flags.tcp_flags(), 0x1b);
}

#[test]
fn what_breaks_a_rule_is_an_error_that_names_file_offset_found_and_allowed() {
    let mut short = message(1, &[]);
    short[3] = 15;
    assert_eq!(refused(&short), "test.ipfix: octet 2: length of a message: found 15, allowed 16 to 65535");
    let mut long_set = message(1, &[template(256, &[(0, 1, 4)])]);
    long_set[19] = 13;
    assert_eq!(refused(&long_set), "test.ipfix: octet 18: length of a set: found 13, allowed 4 to 12");
    let low_id = message(1, &[template(255, &[(0, 1, 4)])]);
    assert_eq!(refused(&low_id), "test.ipfix: octet 20: template id: found 255, allowed 256 to 65535");
    let no_octets = message(1, &[template(256, &[(0, 1, 0)])]);
    assert!(refused(&no_octets).contains("fields of no octets alone"));
    let no_scope = message(1, &[set(3, &be(&[256, 1, 0, 1, 4]))]);
    assert_eq!(refused(&no_scope), "test.ipfix: octet 24: scope field count: found 0, allowed 1 to 1");
    let cut_field = message(1, &[set(2, &be(&[256, 2, 1, 4]))]);
    assert!(refused(&cut_field).contains("field specifier: found 0 octets and the end of the set"));
    let overlong = message(1, &[template(256, &[(0, 82, VARIABLE)]), set(256, &[9, b'x'])]);
    assert!(refused(&overlong).contains("found the end of the set inside interfaceName"));
}

#[test]
fn what_was_read_before_a_fault_is_given() {
    let octets = [APPENDIX_A.as_slice(), &[0, 9, 0, 16], &[0; 12]].concat();
    let (records, error, _) = read(&octets);
    assert_eq!(records.len(), 5);
    assert_eq!(
        error.unwrap().to_string(),
        "test.ipfix: octet 152: version of a message: found 9, allowed 10"
    );
}

#[test]
fn a_file_cut_at_any_octet_gives_the_records_of_its_whole_messages() {
    let biflow = biflow();
    let octets = [APPENDIX_A.as_slice(), &biflow].concat();
    for length in 0..=octets.len() {
        let (records, error, _) = read(&octets[..length]);
        let expected = match length {
            0..152 => 0,
            length if length < octets.len() => 5,
            _ => 6,
        };
        assert_eq!(records.len(), expected, "cut at {length}");
        let between_messages = [0, 152, octets.len()].contains(&length);
        assert_eq!(error.is_none(), between_messages, "cut at {length}: {error:?}");
    }
}

#[test]
fn damaged_messages_never_panic_nor_hang_and_all_they_give_can_be_shown() {
    let types = set(3, &be(&[400, 4, 2, 346, 4, 303, 2, 339, 1, 341, VARIABLE]));
    let named = set(400, &[0, 0, 0x7e, 0xd9, 0, 9, 2, 3, b'a', b'"', b'c']);
    let strings =
        [template(300, &[(0, 82, VARIABLE), (32473, 9, 2)]), types, named, set(300, &[2, 0xff, b'x', 1, 2])];
    let whole = [APPENDIX_A.as_slice(), &biflow(), &message(9, &strings)].concat();
    let mut random = 42u64;
    let mut next = |below: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random >> 11) as usize % below
    };
    for _ in 0..20_000 {
        let mut octets = whole.clone();
        for _ in 0..1 + next(6) {
            let at = next(octets.len());
            match next(5) {
                0 => octets[at] = next(256) as u8,
                1 => octets[at] ^= 1 << next(8),
                2 => octets[at] = [0, 1, 255, 128, 2, 3][next(6)],
                3 => drop(octets.remove(at)),
                _ => octets.insert(at, next(256) as u8),
            }
        }
        let mut reader = MessageReader::new(octets.as_slice(), "mutant");
        let (mut record, mut given) = (DataRecord::empty(), 0);
        while let Ok(true) = reader.read(&mut record) {
            // Each record takes at least an octet of the file, so there is an end to them.
            given += 1;
            assert!(given <= octets.len());
            assert_eq!(record.values.len(), record.template.fields.len());
            let held: usize = record
                .values
                .iter()
                .map(|value| match value {
                    Value::Octets(octets) => octets.len(),
                    Value::Text(text) => text.len() / 3,
                    _ => 0,
                })
                .sum();
            assert!(held <= octets.len());
            json(&record);
            flows(&record);
        }
        assert!(matches!(reader.read(&mut record), Ok(false)), "an ended stream stays ended");
    }
}

#[test]
fn what_is_no_ipfix_file_is_told_by_its_first_octets_and_with_what_to_do() {
    let refusal = |octets: &[u8]| {
        let mut reader = MessageReader::new(octets, "a.bin");
        reader.read(&mut DataRecord::empty()).unwrap_err().to_string()
    };
    for (octets, expected) in [
        (&[0xD4, 0xC3, 0xB2, 0xA1, 2, 0, 4, 0][..], "a pcap capture; `flowtap read a.bin` meters captures"),
        (&[0xA1, 0xB2, 0x3C, 0x4D, 0, 2, 0, 4], "a pcap capture; `flowtap read a.bin` meters captures"),
        (&[0x0A, 0x0D, 0x0D, 0x0A], "a pcapng capture; `flowtap read a.bin` meters captures"),
        (&[0x1F, 0x8B, 8], "compressed with gzip; `zcat a.bin | flowtap print -` shows an IPFIX file"),
        (&[0x28, 0xB5, 0x2F, 0xFD], "compressed with zstd; `zstdcat a.bin | flowtap print -`"),
        (&[0x0C, 0xA5, 2, 0], "a file of nfdump; `nfdump -r a.bin` shows it"),
        ("src,dst,Größe,…".as_bytes(), "text"),
        (b"\n", "text"),
        (&[0, 9, 0, 1, 0, 0], "begins with the octets 00090001, not with version 10 (000a)"),
        (&[0], "begins with the octets 00, not with version 10 (000a)"),
    ] {
        let said = refusal(octets);
        assert!(said.starts_with(&format!("a.bin is no IPFIX file but {expected}")), "{said}");
    }
    // Cut after the version it is one all the same.
    assert!(refusal(&[0, 10, 0]).contains("message header cut off: 16 octets needed, 3 left"));
    // Text behind a whole Message is a fault at its place, not a file of another kind.
    let whole = [0, 10, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let said = refusal(&[&whole[..], b"and then words, words"].concat());
    assert!(said.starts_with("a.bin: octet 16: version of a message"), "{said}");
}
