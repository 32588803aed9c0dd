//! Text seen from outside: rows against the octets they must be, tables as a stranger would look at them.

use std::io::{self, ErrorKind, Write};
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use super::output::Output;
use super::*;
use crate::decode::IpVersion;
use crate::flow::EndReason;
use crate::needs::{installed, skip};

/// Keeps what was written to an [`Output`].
#[derive(Clone, Default)]
pub(super) struct Written(Arc<Mutex<Vec<u8>>>);

impl Written {
    pub(super) fn output() -> (Output, Written) {
        let written = Written::default();
        (Output::to("test", Box::new(written.clone())), written)
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Written {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(octets)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A destination that fails in one way.
struct Failing(ErrorKind);

impl Write for Failing {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(self.0.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn ipv4(text: &str) -> [u8; 16] {
    let mut octets = [0; 16];
    octets[..4].copy_from_slice(&text.parse::<std::net::Ipv4Addr>().unwrap().octets());
    octets
}

fn ipv6(text: &str) -> [u8; 16] {
    text.parse::<std::net::Ipv6Addr>().unwrap().octets()
}

pub(super) fn ipv4_record() -> FlowRecord {
    FlowRecord {
        source: ipv4("192.0.2.1"),
        destination: ipv4("198.51.100.20"),
        start: Timestamp::from_nanos(1_700_000_000_123_456_789),
        end: Timestamp::from_nanos(1_700_000_001_999_999_999),
        ended: Timestamp::from_nanos(1_700_000_002_999_999_999),
        packets: 12,
        octets: 3456,
        flag_counts: [1, 2, 0, 3, 11, 0, 0, 0, 0],
        interface: 3,
        source_port: 54321,
        destination_port: 443,
        initial_flags: 0x002,
        later_flags: 0x019,
        vlan: 100,
        protocol: 6,
        tos: 184,
        ip_version: IpVersion::V4,
        end_reason: EndReason::End,
        padding: [0; 2],
    }
}

fn ipv6_record() -> FlowRecord {
    FlowRecord {
        source: ipv6("2001:db8:85a3:8d3:1319:8a2e:370:7348"),
        destination: ipv6("2001:db8:1234:5678:9abc:def0:1234:5678"),
        ip_version: IpVersion::V6,
        octets: 1_234_567_890,
        ..ipv4_record()
    }
}

fn ping_record() -> FlowRecord {
    FlowRecord {
        source_port: 0,
        destination_port: 8 << 8,
        protocol: 1,
        initial_flags: 0,
        later_flags: 0,
        flag_counts: [0; 9],
        end_reason: EndReason::Idle,
        ..ipv4_record()
    }
}

fn text(format: TextFormat, options: &TextOptions, records: &[FlowRecord]) -> String {
    let (output, written) = Written::output();
    let mut exporter = TextExporter::new(format, output, options);
    exporter.export(records);
    exporter.finish(Timestamp::EPOCH, &MeteringStatistics::default());
    let delivery = exporter.delivery();
    assert_eq!(delivery.sent.records, records.len() as u64);
    assert_eq!(delivery.sent.octets, records.iter().map(|record| record.octets).sum::<u64>());
    assert_eq!(delivery.message_octets, written.text().len() as u64);
    written.text()
}

fn at(millis: u64) -> Timestamp {
    Timestamp::from_nanos(millis * 1_000_000)
}

fn utc(width: impl Into<Option<u16>>) -> TextOptions {
    TextOptions { utc: true, terminal_width: width.into(), ..TextOptions::default() }
}

#[test]
fn a_csv_row_is_what_the_reference_writes_and_then_the_columns_of_our_own() {
    let text = text(TextFormat::Csv, &utc(None), &[ipv4_record()]);
    let (header, row) = text.split_once('\n').unwrap();
    assert!(header.starts_with(
        "src,dst,proto,sport,dport,packets,octets,start_ms,end_ms,tcp_flags,initial_flags,later_flags,\
         fin,syn,rst,psh,ack,urg,ece,cwr,ae,reason,vlan,tos,"
    ));
    assert_eq!(
        row,
        "192.0.2.1,198.51.100.20,6,54321,443,12,3456,1700000000123,1700000001999,0x01b,0x002,0x019,\
         1,2,0,3,11,0,0,0,0,3,100,184,1700000000123456789,1700000001999999999,3,4\n"
    );
    assert_eq!(header.split(',').count(), row.split(',').count());
}

#[test]
fn csv_has_its_header_even_without_a_record() {
    assert_eq!(text(TextFormat::Csv, &utc(None), &[]), format!("{}\n", csv::COLUMNS));
}

#[test]
fn a_json_line_parses_and_says_numbers_and_what_they_mean() {
    let text = text(TextFormat::Json, &utc(None), &[ipv4_record(), ipv6_record(), ping_record()]);
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let tcp = &lines[0];
    assert_eq!(tcp["src"], "192.0.2.1");
    assert_eq!(tcp["proto_name"], "tcp");
    assert_eq!(tcp["start"], "2023-11-14T22:13:20.123456789Z");
    assert_eq!(tcp["start_ns"], 1_700_000_000_123_456_789u64);
    assert_eq!(tcp["tcp_flags"], 0x1b);
    assert_eq!(tcp["tcp_flags_text"], "...AP.SF");
    assert_eq!(tcp["initial_flags_text"], "......S.");
    assert_eq!(tcp["later_flags_text"], "...AP..F");
    assert_eq!(tcp["ack"], 11);
    assert_eq!(tcp["reason"], 3);
    assert_eq!(tcp["reason_text"], "end");
    assert_eq!(lines[1]["dst"], "2001:db8:1234:5678:9abc:def0:1234:5678");
    assert_eq!(lines[1]["ip_version"], 6);
    assert_eq!(lines[2]["icmp_type"], 8);
    assert_eq!(lines[2]["icmp_name"], "echo request");
    assert!(tcp.get("icmp_type").is_none());
}

#[test]
fn ae_and_the_unassigned_bits_stand_before_the_eight_usual_letters() {
    let letters = |flags| {
        let mut out = Vec::new();
        names::flag_letters(&mut out, flags);
        String::from_utf8(out).unwrap()
    };
    assert_eq!(letters(0), "........");
    assert_eq!(letters(0x0ff), "CEUAPRSF");
    assert_eq!(letters(0x110), "e...A....");
    assert_eq!(letters(0xfff), "321eCEUAPRSF");
    assert_eq!(letters(0x800), "3...........");
}

#[test]
fn times_are_those_of_the_calendar_library() {
    let mut times = write::UtcTimes::default();
    let (mut out, mut random) = (Vec::new(), 1u64);
    for _ in 0..2000 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let time = Timestamp::from_nanos(random >> 1);
        out.clear();
        times.rfc3339(&mut out, time, 9);
        let theirs = jiff::Timestamp::from_nanosecond(i128::from(time.nanos())).unwrap();
        assert_eq!(String::from_utf8_lossy(&out), format!("{theirs:.9}"));
    }
}

fn sparse_addresses() -> Vec<[u8; 16]> {
    let mut random = 7u64;
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    let mut addresses: Vec<[u8; 16]> = [
        "::",
        "::1",
        "1::",
        "::ffff:0:0",
        "::ffff:1.2.3.4",
        "::1.2.3.4",
        "::ffff:0:1.2.3.4",
        "64:ff9b::1.2.3.4",
        "1:0:2:0:3:0:4:0",
        "1:0:0:2:0:0:0:3",
        "1:0:0:2:3:0:0:4",
        "0:1:1:1:1:1:1:1",
        "1:1:1:1:1:1:1:0",
        "0:0:1:1:1:1:1:1",
        "1:1:1:1:1:1:0:0",
        "fe80::1:0:0:1",
        "::fffe:1.2.3.4",
        "2001:db8::",
    ]
    .map(ipv6)
    .to_vec();
    for _ in 0..4000 {
        let (kept, bits) = (next(), next() % 17);
        addresses.push(std::array::from_fn(|at| {
            if kept >> at & 1 == 1 { (next() >> 8) as u8 & (0xff >> (bits % 8)) } else { 0 }
        }));
        let groups = next();
        addresses.push(std::array::from_fn(|at| if groups >> (at / 2) & 1 == 1 { next() as u8 } else { 0 }));
    }
    addresses
}

#[test]
fn an_ipv6_address_is_written_as_the_standard_library_writes_it() {
    for octets in sparse_addresses() {
        let mut out = Vec::new();
        write::ipv6(&mut out, &octets);
        assert_eq!(String::from_utf8_lossy(&out), std::net::Ipv6Addr::from(octets).to_string());
    }
}

#[test]
fn an_ipv6_address_is_written_as_python_writes_it() {
    const SCRIPT: &str = "import sys, ipaddress\n\
        for line in sys.stdin:\n\
        \x20   b = bytes.fromhex(line)\n\
        \x20   if b[:12] == b'\\0' * 10 + b'\\xff\\xff': print('::ffff:' + str(ipaddress.ip_address(b[12:])))\n\
        \x20   else: print(ipaddress.ip_address(b))\n";
    if !installed("python3") {
        return skip("python3 is not installed");
    }
    let python =
        Command::new("python3").args(["-c", SCRIPT]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut python = python.expect("python3 starts");
    let (mut hex, mut ours) = (Vec::new(), Vec::new());
    for octets in sparse_addresses() {
        write::hex(&mut hex, &octets);
        hex.push(b'\n');
        write::ipv6(&mut ours, &octets);
        ours.push(b'\n');
    }
    let mut input = python.stdin.take().unwrap();
    let writer = std::thread::spawn(move || input.write_all(&hex));
    let theirs = python.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(theirs.status.success());
    assert_eq!(String::from_utf8(ours).unwrap(), String::from_utf8(theirs.stdout).unwrap());
}

#[test]
fn a_wide_table_has_dates_and_exact_counts_and_is_sorted_by_start() {
    let mut early = ping_record();
    early.start = Timestamp::from_nanos(1_600_000_000_000_000_000);
    let text = text(TextFormat::Table, &utc(None), &[ipv4_record(), early]);
    let expected = "\
Flows by start, times in UTC
Start                    Duration  Proto  Source           Destination        Packets  Octets  Flags         End
2020-09-13 12:26:40.000  1157d09h  icmp   192.0.2.1        198.51.100.20           12    3456  echo request  idle
2023-11-14 22:13:20.123    1.876s  tcp    192.0.2.1:54321  198.51.100.20:443       12    3456  ...AP.SF      end
";
    assert_eq!(text, expected);
}

#[test]
fn a_table_of_any_records_fits_a_terminal_of_80_columns_and_keeps_all_of_their_addresses() {
    let mut widest = ipv6_record();
    widest.source = ipv6("2001:db8:8888:8888:8888:8888:8888:8888");
    widest.destination = ipv6("2001:db8:9999:9999:9999:9999:9999:9999");
    (widest.source_port, widest.destination_port) = (60_000, 60_001);
    (widest.packets, widest.octets) = (u64::MAX / 2, u64::MAX / 2);
    let mut long = ipv4_record();
    (long.source, long.destination) = (ipv4("192.168.100.200"), ipv4("192.168.100.201"));
    (long.source_port, long.destination_port) = (65_535, 65_534);
    // The longest names, flags and times there are: protocol 143 is `ethernet`.
    let mut named = widest;
    (named.protocol, named.packets, named.octets) = (143, u64::MAX / 4, u64::MAX / 4);
    named.end_reason = EndReason::LackOfResources;
    let mut flagged = long;
    (flagged.initial_flags, flagged.end_reason) = (0xfff, EndReason::LackOfResources);
    flagged.start = Timestamp::EPOCH;
    let mut solicit = ping_record();
    (solicit.destination_port, solicit.end_reason) = (10 << 8 | 255, EndReason::LackOfResources);
    let all = [ipv4_record(), long, ping_record(), widest, named, flagged, solicit];
    let sets: [&[FlowRecord]; 7] =
        [&[ipv4_record()], &[widest], &[long, ping_record()], &all[..4], &[named], &[flagged], &all];
    for (width, sort_limit) in
        [80, 81, 90, 100, 120, 200].into_iter().flat_map(|width| [(width, 0), (width, 9)])
    {
        for records in sets {
            let text = text(TextFormat::Table, &TextOptions { sort_limit, ..utc(width) }, records);
            for line in text.lines() {
                assert!(line.len() <= usize::from(width), "{width}: {line}\n{text}");
                assert_eq!(line, line.trim_end());
            }
            for record in records {
                assert!(text.contains(&record.source_address().to_string()), "{text}");
                assert!(text.contains(&record.destination_address().to_string()), "{text}");
            }
        }
    }
}

#[test]
fn a_narrow_table_folds_rows_too_long_for_a_line_and_keeps_its_columns() {
    let text = text(TextFormat::Table, &utc(100), &[ipv4_record(), ping_record(), ipv6_record()]);
    let expected = "\
Flows by start, times in UTC
Start            Dur  Proto  Source           Destination        Pkts  Octets  Flags     End
2023-11-14
22:13:20.123  1.876s  tcp    192.0.2.1:54321  198.51.100.20:443    12    3456  ...AP.SF  end
22:13:20.123  1.876s  icmp   192.0.2.1        198.51.100.20        12    3456  8/0       idle
22:13:20.123  1.876s  tcp    [2001:db8:85a3:8d3:1319:8a2e:370:7348]:54321
                             -> [2001:db8:1234:5678:9abc:def0:1234:5678]:443
";
    assert!(text.starts_with(expected), "{text}");
}

#[test]
fn a_table_with_more_records_than_it_may_hold_is_in_order_of_arrival_and_says_so() {
    let (mut first, mut last) = (ipv4_record(), ipv4_record());
    first.start = Timestamp::from_nanos(1_600_000_009_000_000_000);
    last.start = Timestamp::from_nanos(1_600_000_001_000_000_000);
    let options = TextOptions { sort_limit: 1, ..utc(None) };
    let text = text(TextFormat::Table, &options, &[first, last]);
    assert!(text.starts_with("More than 1 flows, so in order of arrival, times in UTC\n"), "{text}");
    assert!(text.find("12:26:49").unwrap() < text.find("12:26:41").unwrap(), "{text}");
}

#[test]
fn a_local_time_is_that_of_the_zone_and_the_table_names_it() {
    let zone = jiff::tz::TimeZone::get("Asia/Kolkata").unwrap();
    let options = TextOptions { utc: false, ..utc(None) };
    let (mut output, written) = Written::output();
    let mut table = table::Table::in_zone(zone, &options);
    table.take(&[ipv4_record()], &mut output);
    table.finish(&mut output);
    output.close();
    let text = written.text();
    assert!(text.starts_with("Flows by start, times in local time (Asia/Kolkata)\n"), "{text}");
    assert!(text.contains("\n2023-11-15 03:43:20.123 "), "{text}");
}

#[test]
fn the_heaviest_talkers_are_ranked_by_what_was_asked_for() {
    let (mut small, mut other) = (ipv4_record(), ipv4_record());
    small.octets = 1;
    other.source = ipv4("192.0.2.9");
    other.octets = 3000;
    let records = [small, small, other];
    let top = |by| TextOptions { top: Some((1, by)), ..utc(None) };
    let by_octets = text(TextFormat::Csv, &top(TopBy::Octets), &records);
    assert_eq!(by_octets, "src,flows,packets,octets\n192.0.2.9,1,12,3000\n");
    let by_flows = text(TextFormat::Json, &top(TopBy::Flows), &records);
    assert_eq!(by_flows, "{\"src\":\"192.0.2.1\",\"flows\":2,\"packets\":24,\"octets\":2}\n");
    let table = text(TextFormat::Table, &top(TopBy::Packets), &records);
    assert!(table.starts_with("Top 1 of 2 source addresses by packets sent\n"), "{table}");
    assert!(table.contains("192.0.2.1      2       24       2   66.7%\n"), "{table}");
}

#[test]
fn records_of_more_than_one_piece_are_all_written_and_counted() {
    let records = vec![ipv4_record(); 5000];
    assert_eq!(text(TextFormat::Json, &utc(None), &records).lines().count(), 5000);
    assert_eq!(text(TextFormat::Csv, &utc(None), &records).lines().count(), 5001);
}

#[test]
fn a_table_of_no_records_says_so() {
    assert_eq!(text(TextFormat::Table, &utc(None), &[]), "No flows\n");
}

#[test]
fn a_slow_stream_is_written_when_a_second_has_passed() {
    let (output, written) = Written::output();
    let options = TextOptions { sort_limit: 0, ..utc(80) };
    let mut exporter = TextExporter::new(TextFormat::Table, output, &options);
    exporter.export(&[ipv4_record()]);
    exporter.tick(at(0), &MeteringStatistics::default());
    assert_eq!(written.text(), "");
    exporter.tick(at(1_000), &MeteringStatistics::default());
    assert!(written.text().starts_with("Flows in order of arrival, times in UTC\n"), "{}", written.text());
    assert_eq!(exporter.delivery().sent.records, 1);
}

#[test]
fn a_clock_that_steps_back_keeps_no_record_waiting_for_longer_than_a_second() {
    const HOUR_MILLIS: u64 = 3_600_000;
    let (output, written) = Written::output();
    let mut exporter = TextExporter::new(TextFormat::Csv, output, &utc(None));
    let mut lines_at = |millis| {
        exporter.tick(at(millis), &MeteringStatistics::default());
        let lines = written.text().lines().count();
        exporter.export(&[ipv4_record()]);
        lines
    };
    assert_eq!(lines_at(2 * HOUR_MILLIS), 0);
    assert_eq!(lines_at(2 * HOUR_MILLIS + 1_000), 2, "the header and a record");
    assert_eq!(lines_at(HOUR_MILLIS), 2, "the second begins where the clock stands now");
    assert_eq!(lines_at(HOUR_MILLIS + 999), 2);
    assert_eq!(lines_at(HOUR_MILLIS + 1_000), 5);
}

#[test]
fn a_closed_pipe_is_no_failure_and_what_follows_counts_as_lost() {
    let output = Output::to("standard output", Box::new(Failing(ErrorKind::BrokenPipe)));
    let mut exporter = TextExporter::new(TextFormat::Csv, output, &utc(None));
    let closed = exporter.pipe_closed();
    exporter.export(&[ipv4_record()]);
    exporter.finish(Timestamp::EPOCH, &MeteringStatistics::default());
    assert!(closed.load(Ordering::Relaxed));
    assert_eq!(exporter.failure(), None);
    assert_eq!((exporter.delivery().sent.records, exporter.delivery().lost.records), (0, 1));
}

#[test]
fn any_other_error_of_writing_is_a_failure_that_names_the_destination() {
    let output = Output::to("/some/where.csv", Box::new(Failing(ErrorKind::StorageFull)));
    let mut exporter = TextExporter::new(TextFormat::Csv, output, &utc(None));
    exporter.export(&[ipv4_record()]);
    exporter.tick(Timestamp::MAX, &MeteringStatistics::default());
    exporter.export(&[ipv4_record()]);
    exporter.finish(Timestamp::EPOCH, &MeteringStatistics::default());
    let failure = exporter.failure().unwrap();
    assert!(failure.starts_with("cannot write /some/where.csv: "), "{failure}");
    assert_eq!(exporter.delivery().lost.records, 2);
}

#[test]
fn a_file_that_cannot_be_created_is_named() {
    let path = Path::new("/nowhere/at/all.csv");
    let error = open(TextFormat::Csv, path, &utc(None)).err().unwrap();
    assert_eq!(error.to_string(), "cannot create /nowhere/at/all.csv");
}
