//! Decoded packets for the flow table, without frames.

use flowtap::decode::{IpVersion, Packet, tcp_flags};
use flowtap::flow::{KeyHash, KeyHasher, Observations};
use flowtap::time::Timestamp;

use super::frames::{TCP, ends};
use super::{Keys, Mix, Random};

/// Where the time of a workload begins, ns since 1970.
pub const BEGIN: u64 = 1_700_000_000_000_000_000;

/// A packet of the flow numbered `flow`.
#[inline]
pub fn packet(mix: Mix, flow: u32, nanos: u64) -> Packet {
    let ip_version = match mix {
        Mix::V4 => IpVersion::V4,
        Mix::V6 => IpVersion::V6,
        Mix::Both if flow.is_multiple_of(5) => IpVersion::V6,
        Mix::Both => IpVersion::V4,
    };
    let [source, destination] = ends(ip_version, flow);
    Packet {
        timestamp: Timestamp::from_nanos(nanos),
        source: source.0,
        destination: destination.0,
        octets: 40 + (flow & 0x3FF),
        source_port: source.1,
        destination_port: destination.1,
        tcp_flags: tcp_flags::ACK,
        protocol: TCP,
        ip_version,
        ..Packet::default()
    }
}

/// A sequence of flows, drawn ahead with their hashes so that neither is made while the table is measured.
pub struct Draws {
    mix: Mix,
    draws: Vec<(u32, KeyHash)>,
    at: usize,
}

impl Draws {
    /// `count` draws from `flows` flows.
    pub fn new(mix: Mix, keys: Keys, flows: u32, count: usize) -> Draws {
        let mut random = Random::new(11);
        let hasher = KeyHasher::with_seed(5);
        let draws = (0..count)
            .map(|_| {
                // The heaviest flow must not be the first one in memory: spread ranks over the numbers.
                let rank = random.draw(keys, u64::from(flows));
                let flow = (rank * 2_654_435_761 % u64::from(flows)) as u32;
                (flow, hasher.hash(&packet(mix, flow, 0)))
            })
            .collect();
        Draws { mix, draws, at: 0 }
    }

    /// Every flow of `flows` once, in order of number.
    pub fn each(mix: Mix, flows: u32) -> Draws {
        let hasher = KeyHasher::with_seed(5);
        let draws = (0..flows).map(|flow| (flow, hasher.hash(&packet(mix, flow, 0)))).collect();
        Draws { mix, draws, at: 0 }
    }

    /// Puts the next `count` observations into `batch`, one a `step` ns after `clock`, which it moves on; gives the
    /// sum of their octets.
    #[inline]
    pub fn fill(&mut self, batch: &mut Observations, count: usize, clock: &mut u64, step: u64) -> u64 {
        if self.at + count > self.draws.len() {
            self.at = 0;
        }
        let mut octets = 0;
        batch.clear();
        for &(flow, hash) in &self.draws[self.at..self.at + count] {
            *clock += step;
            let packet = packet(self.mix, flow, *clock);
            octets += u64::from(packet.octets);
            batch.push(&packet, packet.timestamp, hash);
        }
        self.at += count;
        octets
    }
}
