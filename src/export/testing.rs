//! Records and a transport for the tests beside the code.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use crate::decode::IpVersion;
use crate::export::message::Message;
use crate::export::outlet::Outlet;
use crate::export::transport::{Failure, Lost, NoSession, Session, Transport};
use crate::export::{Delivery, Exporter, MeteringStatistics};
use crate::flow::{EndReason, FlowRecord};
use crate::time::Timestamp;

/// An exporter that hands all records to a function, and what it is told with a tick to another.
pub struct HandsTo<F, G> {
    pub take: F,
    pub tick: G,
    pub is_light: bool,
}

impl<F: FnMut(&[FlowRecord]) + Send, G: FnMut(Timestamp, &MeteringStatistics) + Send> Exporter
    for HandsTo<F, G>
{
    fn export(&mut self, records: &[FlowRecord]) {
        (self.take)(records);
    }
    fn tick(&mut self, now: Timestamp, metering: &MeteringStatistics) {
        (self.tick)(now, metering);
    }
    fn send_waiting(&mut self, _: Timestamp) {}
    fn is_light(&self) -> bool {
        self.is_light
    }
    fn finish(&mut self, _: Timestamp, _: &MeteringStatistics) {}
    fn delivery(&self) -> Delivery {
        Delivery::default()
    }
    fn failure(&self) -> Option<&str> {
        None
    }
}

/// 2023-11-14 22:13:20.123456789 UTC and so many milliseconds.
pub fn after(millis: u64) -> Timestamp {
    Timestamp::from_nanos(1_700_000_000_123_456_789 + millis * 1_000_000)
}

/// The time on the system clock of the tests: 2023-11-14 22:13:23.5 UTC.
pub fn wall() -> Timestamp {
    Timestamp::from_nanos(1_700_000_003_500_000_000)
}

/// Octets written as hexadecimal digits; what stands behind `|` is for the reader.
pub fn octets(lines: &[&str]) -> Vec<u8> {
    let digits: Vec<u8> = lines
        .iter()
        .flat_map(|line| line.split('|').next())
        .flat_map(str::chars)
        .filter(|c| !c.is_whitespace())
        .map(|c| c.to_digit(16).expect("a hexadecimal digit") as u8)
        .collect();
    assert!(digits.len().is_multiple_of(2));
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// A TCP record over IPv4, each field with a value of its own.
pub fn record_v4() -> FlowRecord {
    let mut source = [0; 16];
    source[..4].copy_from_slice(&[192, 0, 2, 1]);
    let mut destination = [0; 16];
    destination[..4].copy_from_slice(&[198, 51, 100, 2]);
    FlowRecord {
        source,
        destination,
        start: after(0),
        end: after(1_877),
        ended: after(2_877),
        packets: 0x0102,
        octets: 0x0A0B0C,
        flag_counts: [1, 2, 3, 4, 5, 6, 7, 8, 9],
        interface: 0x0000_0007,
        source_port: 0xC001,
        destination_port: 443,
        initial_flags: 0x002,
        later_flags: 0x019,
        vlan: 0,
        protocol: 6,
        tos: 0x28,
        ip_version: IpVersion::V4,
        end_reason: EndReason::End,
        padding: [0; 2],
    }
}

/// An ICMPv6 record with a VLAN tag: echo request.
pub fn record_v6() -> FlowRecord {
    let mut source = [0; 16];
    source[..4].copy_from_slice(&[0x20, 0x01, 0x0D, 0xB8]);
    source[15] = 1;
    let mut destination = source;
    destination[15] = 2;
    FlowRecord {
        source,
        destination,
        flag_counts: [0; 9],
        source_port: 0,
        destination_port: 128 << 8,
        initial_flags: 0,
        later_flags: 0,
        vlan: 0x0064,
        protocol: 58,
        ip_version: IpVersion::V6,
        end_reason: EndReason::Idle,
        ..record_v4()
    }
}

/// A message of these octets.
pub fn message(octets: &[u8]) -> Message {
    let mut message = Message::default();
    message.put(octets);
    message
}

/// The messages a collector was given.
pub type Messages = Arc<Mutex<Vec<Vec<u8>>>>;

/// A collector that keeps messages of up to `limit` octets, as one over UDP does.
pub fn kept(limit: usize) -> (Outlet, Messages) {
    let (outlet, collector) = collector(limit, true);
    (outlet, collector.messages)
}

/// The collector's side of an [`Outlet`].
#[derive(Clone, Default)]
pub struct Collector {
    /// What it was given.
    pub messages: Messages,
    /// Whether it is gone: a message fails and ends the session, and no new one begins.
    pub gone: Arc<AtomicBool>,
    /// So many messages it refuses: each ends its session, and the next one may begin at once.
    pub refusals: Arc<AtomicU32>,
}

/// A collector, over UDP if it `forgets_templates`, else over TCP.
pub fn collector(limit: usize, forgets_templates: bool) -> (Outlet, Collector) {
    let collector = Collector::default();
    let transport = Kept { collector: collector.clone(), limit, connected: false, forgets_templates };
    (Outlet::new("test".to_owned(), Box::new(transport)), collector)
}

struct Kept {
    collector: Collector,
    limit: usize,
    connected: bool,
    forgets_templates: bool,
}

impl Transport for Kept {
    fn session(&mut self) -> Result<Session, NoSession> {
        if self.connected {
            return Ok(Session::Same);
        }
        self.connected = !self.collector.gone.load(Ordering::Relaxed);
        Ok(if self.connected { Session::New } else { Session::Down })
    }

    fn limit(&self) -> usize {
        self.limit
    }

    fn forgets_templates(&self) -> bool {
        self.forgets_templates
    }

    fn send(&mut self, message: &mut Message) -> Result<bool, Failure> {
        assert!(message.len() <= self.limit, "{} octets where {} fit", message.len(), self.limit);
        if !self.connected {
            return Err(Failure { error: io::ErrorKind::NotConnected.into(), lost: Lost::This });
        }
        let refusals = &self.collector.refusals;
        let refuses = |left: u32| left.checked_sub(1);
        let is_refused = refusals.fetch_update(Ordering::Relaxed, Ordering::Relaxed, refuses).is_ok();
        if is_refused || self.collector.gone.load(Ordering::Relaxed) {
            self.connected = false;
            return Err(Failure { error: io::ErrorKind::ConnectionReset.into(), lost: Lost::This });
        }
        self.collector.messages.lock().expect("no test panicked with it").push(message.octets().to_vec());
        Ok(true)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn close(&mut self) -> io::Result<()> {
        Ok(())
    }
}
