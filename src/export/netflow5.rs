//! Flow Records in, NetFlow version 5 export packets out: a header of 24 octets and up to 30 records of 48, as Cisco
//! documents them.
//!
//! There are no templates. What the format has no room for is accounted for: an IPv6 record is counted as
//! unsupported; a record whose packets or octets exceed 32 bits goes out as several that add up to it; TCP
//! flags above CWR, interface numbers above 65,535 and VLANs are left out.

use byteorder::{BigEndian, ByteOrder};

use crate::decode::IpVersion;
use crate::export::clock::{ExportClock, last_done};
use crate::export::message::Message;
use crate::export::outlet::{Outlet, Ready};
use crate::export::uptime::{Uptime, sys_up_time};
use crate::export::{Delivery, ExportOptions, Exporter, MeteringStatistics, Tally};
use crate::flow::FlowRecord;
use crate::time::Timestamp;

/// The version number.
const VERSION: u16 = 5;

/// The most records of one packet.
const MOST_RECORDS: usize = 30;

/// Octets of a record.
const RECORD: usize = 48;

/// The most records that one Flow Record is split into; one that needs more (4 TiB) is counted as unsupported.
const MOST_PARTS: u64 = 1024;

/// Where the fields of the header stand.
mod header {
    pub const VERSION: usize = 0;
    pub const COUNT: usize = 2;
    pub const SYS_UP_TIME: usize = 4;
    pub const SECONDS: usize = 8;
    pub const SEQUENCE: usize = 16;
    pub const ENGINE_ID: usize = 21;
    /// Octets in all.
    pub const END: usize = 24;
}

/// Where the fields of a record stand. What is not written is 0: the next hop (8), the output interface (14), the AS
/// numbers (40, 42) and the prefix lengths (44, 45) are not known to a tap, the rest (36, 46) is padding.
mod field {
    pub const SOURCE: usize = 0;
    pub const DESTINATION: usize = 4;
    pub const INPUT: usize = 12;
    pub const PACKETS: usize = 16;
    pub const OCTETS: usize = 20;
    pub const FIRST: usize = 24;
    pub const LAST: usize = 28;
    pub const SOURCE_PORT: usize = 32;
    pub const DESTINATION_PORT: usize = 34;
    pub const TCP_FLAGS: usize = 37;
    pub const PROTOCOL: usize = 38;
    pub const TOS: usize = 39;
}

/// An exporter of NetFlow v5.
pub struct NetFlow5 {
    outlet: Outlet,
    message: Message,
    clock: ExportClock,
    uptime: Uptime,
    engine_id: u8,
    /// Records (v5's) sent before.
    sequence: u32,
    /// Records (v5's) in the packet.
    count: usize,
    /// Flow Records whose last part is in the packet.
    tally: Tally,
    message_delay: std::time::Duration,
    waiting_since: Option<Timestamp>,
}

impl NetFlow5 {
    /// An exporter that stamps packets by `clock` and gives them to `outlet`.
    pub fn new(mut outlet: Outlet, clock: ExportClock, options: &ExportOptions) -> NetFlow5 {
        let mut message = Message::default();
        message.begin(header::END);
        // At once: the first packet can only be filled when the path's limit is known.
        outlet.ready(Timestamp::EPOCH);
        NetFlow5 {
            outlet,
            message,
            clock,
            uptime: Uptime::default(),
            engine_id: options.observation_domain as u8,
            sequence: 0,
            count: 0,
            tally: Tally::default(),
            message_delay: options.message_delay,
            waiting_since: None,
        }
    }

    fn flush(&mut self) {
        if self.count > 0 {
            let now = self.clock.stamp();
            let time = self.uptime.header(now);
            match self.outlet.ready(now) {
                Ready::Down => self.outlet.lose(self.tally, now),
                ready => {
                    if ready == Ready::New {
                        self.sequence = 0;
                    }
                    self.message.set_u16(header::COUNT, self.count);
                    let octets = self.message.octets_mut();
                    BigEndian::write_u16(&mut octets[header::VERSION..], VERSION);
                    BigEndian::write_u32(&mut octets[header::SYS_UP_TIME..], time.sys_up_time);
                    BigEndian::write_u32(&mut octets[header::SECONDS..], time.seconds);
                    BigEndian::write_u32(&mut octets[header::SEQUENCE..], self.sequence);
                    octets[header::ENGINE_ID] = self.engine_id;
                    self.outlet.send(&mut self.message, self.tally, now);
                    self.sequence = self.sequence.wrapping_add(self.count as u32);
                }
            }
        }
        self.message.begin(header::END);
        self.count = 0;
        self.tally = Tally::default();
        self.waiting_since = None;
        self.uptime.end_packet();
        self.clock.end_message();
    }

    fn put(&mut self, record: &FlowRecord, packets: u32, octets: u32) {
        let boot = self.uptime.boot_millis();
        let [_, flags] = record.tcp_flags().to_be_bytes();
        let mut out = [0; RECORD];
        out[field::SOURCE..][..4].copy_from_slice(&record.source[..4]);
        out[field::DESTINATION..][..4].copy_from_slice(&record.destination[..4]);
        let input = u16::try_from(record.interface).unwrap_or_default();
        BigEndian::write_u16(&mut out[field::INPUT..], input);
        BigEndian::write_u32(&mut out[field::PACKETS..], packets);
        BigEndian::write_u32(&mut out[field::OCTETS..], octets);
        BigEndian::write_u32(&mut out[field::FIRST..], sys_up_time(record.start, boot));
        BigEndian::write_u32(&mut out[field::LAST..], sys_up_time(record.end, boot));
        BigEndian::write_u16(&mut out[field::SOURCE_PORT..], record.source_port);
        BigEndian::write_u16(&mut out[field::DESTINATION_PORT..], record.destination_port);
        out[field::TCP_FLAGS] = flags;
        out[field::PROTOCOL] = record.protocol;
        out[field::TOS] = record.tos;
        self.message.put(&out);
        self.count += 1;
    }
}

/// The `part`th of `parts` shares of `total`: they differ by one at most and add up to it.
fn share(total: u64, parts: u64, part: u64) -> u32 {
    u32::try_from(total / parts + u64::from(part < total % parts)).unwrap_or(u32::MAX)
}

impl Exporter for NetFlow5 {
    fn export(&mut self, records: &[FlowRecord]) {
        for record in records {
            let most = u64::from(u32::MAX);
            let parts = record.packets.max(record.octets).div_ceil(most).max(1);
            if record.ip_version != IpVersion::V4 || parts > MOST_PARTS {
                self.outlet.unsupported(record);
                continue;
            }
            for part in 0..parts {
                let full = self.count == MOST_RECORDS || self.message.len() + RECORD > self.outlet.limit();
                if full || !self.uptime.admits(record) {
                    self.flush();
                    self.uptime.begin_packet(record);
                }
                self.uptime.add(record);
                self.clock.see(record.ended);
                self.put(record, share(record.packets, parts, part), share(record.octets, parts, part));
            }
            self.tally.add(record);
        }
    }

    fn tick(&mut self, now: Timestamp, _metering: &MeteringStatistics) {
        self.clock.tick(now);
        if self.count > 0 {
            let since = last_done(&mut self.waiting_since, now);
            if now.since(since) >= self.message_delay {
                self.flush();
            }
        }
    }

    fn send_waiting(&mut self, _now: Timestamp) {
        self.flush();
    }

    fn finish(&mut self, now: Timestamp, _metering: &MeteringStatistics) {
        self.clock.tick(now);
        self.flush();
        self.outlet.close(now);
    }

    fn delivery(&self) -> Delivery {
        self.outlet.delivery()
    }

    fn failure(&self) -> Option<&str> {
        self.outlet.failure()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::testing::{after, kept, octets, record_v4, record_v6, wall};

    fn run(records: &[FlowRecord]) -> (Vec<Vec<u8>>, Delivery) {
        let (outlet, messages) = kept(1472);
        let clock = ExportClock::packets_of_message();
        let mut exporter = NetFlow5::new(outlet, clock, &ExportOptions::default());
        exporter.export(records);
        exporter.finish(wall(), &MeteringStatistics::default());
        let messages = messages.lock().expect("no panic");
        (messages.clone(), exporter.delivery())
    }

    #[test]
    fn a_packet_with_one_record() {
        let (messages, _) = run(&[record_v4()]);
        let expected = octets(&[
            "0005 0001          | version, count",
            "0526673d 6553f103 00000000 | sysUpTime, seconds, nanoseconds",
            "00000000           | flow sequence",
            "00 01 0000         | engine, no sampling",
            "c0000201 c6336402 00000000 | source, destination, no next hop",
            "0007 0000          | interfaces",
            "00000102 000a0b0c  | packets, octets",
            "05265c00 05266355  | first, last",
            "c001 01bb          | ports",
            "00 1b 06 28        | flags, protocol, type of service",
            "0000 0000 00 00 0000",
        ]);
        assert_eq!(messages, [expected]);
    }

    #[test]
    fn thirty_records_fill_a_packet_and_the_sequence_counts_them() {
        let (messages, delivery) = run(&[record_v4(); 61]);
        let headers: Vec<_> = messages
            .iter()
            .map(|m| (BigEndian::read_u16(&m[2..]), BigEndian::read_u32(&m[16..]), m.len()))
            .collect();
        assert_eq!(headers, [(30, 0, 1464), (30, 30, 1464), (1, 60, 72)]);
        assert_eq!(delivery.sent.records, 61);
    }

    #[test]
    fn ipv6_is_counted_as_unsupported() {
        let (messages, delivery) = run(&[record_v6()]);
        assert!(messages.is_empty());
        assert_eq!(delivery.unsupported.records, 1);
        assert_eq!(delivery.unsupported.octets, record_v6().octets);
    }

    #[test]
    fn a_record_beyond_32_bits_goes_out_as_several_that_add_up_to_it() {
        let octets = 3 * u64::from(u32::MAX) + 7;
        let (messages, delivery) = run(&[FlowRecord { packets: 10, octets, ..record_v4() }]);
        let parts: Vec<_> = messages[0][header::END..]
            .chunks(RECORD)
            .map(|record| {
                (u64::from(BigEndian::read_u32(&record[16..])), u64::from(BigEndian::read_u32(&record[20..])))
            })
            .collect();
        assert_eq!(parts.len(), 4);
        assert_eq!(parts.iter().map(|part| part.0).sum::<u64>(), 10);
        assert_eq!(parts.iter().map(|part| part.1).sum::<u64>(), octets);
        assert_eq!(delivery.sent.records, 1);
        let too_much = FlowRecord { packets: u64::MAX, octets: u64::MAX, ended: after(0), ..record_v4() };
        assert_eq!(run(&[too_much]).1.unsupported.records, 1);
    }
}
