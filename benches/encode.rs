//! Encoding: records in, messages out to where nothing keeps them.
//!
//! An iteration is 1,000 records in the batches of the pipeline: a time of 1 µs is 1 ns a record. `ipfix_alone` and
//! `netflow9_alone` are the encoding alone: their messages, of a file's length and of a datagram's, go nowhere. `ipfix`
//! goes to `/dev/null` as a file does. Over UDP messages go to a socket on this machine that nobody reads, which costs far
//! more than to encode; `socket_alone` sends about as many octets in such pieces, to be taken off.

mod common;

use std::net::UdpSocket;
use std::path::Path;

use common::records::{records, times};
use common::{Mix, check};
use divan::{AllocProfiler, Bencher, counter::ItemsCount};
use flowtap::collect::{DataRecord, MessageReader, to_flow_records};
use flowtap::export::{
    self, Destination, Endpoint, ExportOptions, Exporter, MeteringStatistics, Tally, discard,
};
use flowtap::time::Timestamp;

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

fn main() {
    divan::main();
}

/// Different records; an iteration takes the next [`ROUND`] of them. They fit a second-level cache, as the few batches do
/// that go round between a shard and an exporter.
const RECORDS: usize = 4_000;
const ROUND: usize = 1_000;
const BATCH: usize = 250;
const MIXES: [Mix; 3] = [Mix::V4, Mix::V6, Mix::Both];

fn options() -> ExportOptions {
    ExportOptions { packet_clock: true, rate: None, ..ExportOptions::default() }
}

/// Exports rounds of records and checks what became of them.
fn export_rounds(bencher: Bencher<'_, '_>, mix: Mix, mut exporter: Box<dyn Exporter>) {
    let (records, _) = records(mix, RECORDS);
    let mut rounds = records.chunks(ROUND).cycle();
    let mut given = Tally::default();
    bencher.counter(ItemsCount::new(ROUND)).bench_local(|| {
        let round = rounds.next().expect("a cycle has no end");
        for batch in round.chunks(BATCH) {
            exporter.export(batch);
        }
        given.records += ROUND as u64;
    });
    let (turns, rest) = (given.records as usize / RECORDS, given.records as usize % RECORDS);
    let mut expected = times(sum(&records), turns as u64);
    expected += sum(&records[..rest]);
    exporter.finish(Timestamp::EPOCH, &MeteringStatistics::default());
    check("failure", exporter.failure(), None);
    check("records sent", exporter.delivery().sent, expected);
}

fn sum(records: &[flowtap::flow::FlowRecord]) -> Tally {
    let mut tally = Tally::default();
    records.iter().for_each(|record| tally.add(record));
    tally
}

fn ipfix_file(path: &Path) -> Box<dyn Exporter> {
    export::open(&Destination::IpfixFile(path.to_path_buf()), &options()).expect("a file to write to")
}

/// What is written is read back by code that shares nothing with what wrote it.
fn check_ipfix(mix: Mix) {
    let (records, expected) = records(mix, RECORDS);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("records.ipfix");
    let mut exporter = ipfix_file(&path);
    exporter.export(&records);
    exporter.finish(Timestamp::EPOCH, &MeteringStatistics::default());
    drop(exporter);
    let mut reader = MessageReader::<Box<dyn std::io::Read>>::open(&path).expect("the file just written");
    let (mut record, mut flows) = (DataRecord::empty(), Vec::new());
    while reader.read(&mut record).expect("whole messages") {
        to_flow_records(&record, &mut flows);
    }
    check("records read back", sum(&flows), expected);
}

/// The longest message in a file and over UDP on an Ethernet.
const LIMITS: [usize; 2] = [16_384, 1_472];

/// Every mix at both lengths of a message.
fn alone() -> impl Iterator<Item = (Mix, usize)> {
    LIMITS.into_iter().flat_map(|limit| MIXES.map(|mix| (mix, limit)))
}

#[divan::bench(args = alone(), min_time = 1)]
fn ipfix_alone(bencher: Bencher<'_, '_>, (mix, limit): (Mix, usize)) {
    export_rounds(bencher, mix, discard::ipfix(limit, &options()));
}

#[divan::bench(args = alone(), min_time = 1)]
fn netflow9_alone(bencher: Bencher<'_, '_>, (mix, limit): (Mix, usize)) {
    export_rounds(bencher, mix, discard::netflow9(limit, &options()));
}

#[divan::bench(args = MIXES, min_time = 1)]
fn ipfix(bencher: Bencher<'_, '_>, mix: Mix) {
    check_ipfix(mix);
    export_rounds(bencher, mix, ipfix_file(Path::new("/dev/null")));
}

/// A socket that takes what fits and drops the rest.
fn sink() -> (UdpSocket, Endpoint) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket on this machine");
    let address = socket.local_addr().expect("it is bound");
    (socket, Endpoint { host: address.ip().to_string(), port: address.port() })
}

#[divan::bench(args = MIXES, min_time = 1)]
fn netflow9_udp(bencher: Bencher<'_, '_>, mix: Mix) {
    let (_socket, endpoint) = sink();
    let destination = Destination::NetFlow9Udp(endpoint);
    export_rounds(bencher, mix, export::open(&destination, &options()).expect("UDP needs no file"));
}

#[divan::bench(min_time = 1)]
fn ipfix_udp(bencher: Bencher<'_, '_>) {
    let (_socket, endpoint) = sink();
    let destination = Destination::IpfixUdp(endpoint);
    export_rounds(bencher, Mix::V4, export::open(&destination, &options()).expect("UDP needs no file"));
}

#[divan::bench(min_time = 1)]
fn netflow5_udp(bencher: Bencher<'_, '_>) {
    let (_socket, endpoint) = sink();
    let destination = Destination::NetFlow5Udp(endpoint);
    export_rounds(bencher, Mix::V4, export::open(&destination, &options()).expect("UDP needs no file"));
}

/// The system calls of 1,000 records alone: `(octets of a datagram, octets in all)`. The first is v5, the others about
/// what v9 and IPFIX send for IPv4 and for IPv6.
#[divan::bench(args = [(1_464, 48_800), (1_450, 91_000), (1_450, 115_000)], min_time = 1)]
fn socket_alone(bencher: Bencher<'_, '_>, (datagram, octets): (usize, usize)) {
    let (_socket, endpoint) = sink();
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket on this machine");
    socket.connect((endpoint.host.as_str(), endpoint.port)).expect("a UDP socket connects at once");
    let message = vec![0; datagram];
    // Whole datagrams only, an odd one every few rounds: over many rounds the octets are right.
    let mut owed = 0;
    bencher.counter(ItemsCount::new(ROUND)).bench_local(|| {
        owed += octets;
        while owed >= datagram {
            check("octets sent", socket.send(&message).ok(), Some(datagram));
            owed -= datagram;
        }
    });
}
