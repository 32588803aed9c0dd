//! The Flow Key (RFC 7011 §2): source and destination address, protocol, source and destination port.
//!
//! In: a packet. Out: its [`KeyHash`], keyed by a random seed so that nobody on the wire can choose colliding
//! Flows. Both directions of a conversation share all but one bit of the hash: they go to the same shard, and their
//! index entries share a cache line.

use std::hash::{BuildHasher, Hasher};

use ahash::RandomState;

use crate::decode::{IpVersion, Packet};

/// The hash of a Flow Key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyHash {
    /// Chooses the shard: the same for both directions.
    route: u32,
    /// Chooses the place in the shard's index; the lowest bit tells the directions apart.
    index: u32,
}

impl KeyHash {
    /// The shard, of `shards`, that this Flow and its opposite direction live in.
    #[inline]
    pub fn shard(self, shards: usize) -> usize {
        ((u64::from(self.route) * shards as u64) >> 32) as usize
    }

    /// The 32 bits that place the Flow in its shard's index.
    #[inline]
    pub(super) fn index(self) -> u32 {
        self.index
    }
}

/// Hashes Flow Keys with one secret seed.
#[derive(Clone)]
pub struct KeyHasher {
    state: RandomState,
}

impl KeyHasher {
    /// A hasher with a random seed.
    pub fn new() -> KeyHasher {
        KeyHasher { state: RandomState::new() }
    }

    /// A hasher with a known seed, so that a test or a benchmark repeats.
    pub fn with_seed(seed: u64) -> KeyHasher {
        KeyHasher { state: RandomState::with_seeds(seed, !seed, seed.rotate_left(32), 0x5eed) }
    }

    /// The hash of a packet's Flow Key.
    #[inline(always)] // called once a packet, from one place
    pub fn hash(&self, packet: &Packet) -> KeyHash {
        let mut hasher = self.state.build_hasher();
        let ports = (packet.source_port, packet.destination_port);
        let kind = u64::from(packet.protocol) << 8 | packet.ip_version as u64;
        // The two ends in one order whatever the direction; which came first is the direction bit.
        let forward = match packet.ip_version {
            IpVersion::V4 => {
                // Any order of the octets will do, as long as it is one.
                let end = |address: &[u8; 16], port: u16| {
                    u64::from(u32::from_ne_bytes([address[0], address[1], address[2], address[3]])) << 16
                        | u64::from(port)
                };
                let source = end(&packet.source, ports.0);
                let destination = end(&packet.destination, ports.1);
                hasher.write_u64(source.min(destination) | kind << 48);
                hasher.write_u64(source.max(destination));
                source < destination
            }
            IpVersion::V6 => {
                let source = (u128::from_ne_bytes(packet.source), ports.0);
                let destination = (u128::from_ne_bytes(packet.destination), ports.1);
                let forward = source < destination;
                let (low, high) = if forward { (source, destination) } else { (destination, source) };
                hasher.write_u128(low.0);
                hasher.write_u128(high.0);
                hasher.write_u64(kind << 32 | u64::from(low.1) << 16 | u64::from(high.1));
                forward
            }
        };
        let hash = hasher.finish();
        KeyHash { route: hash as u32, index: (hash >> 32) as u32 & !1 | u32::from(forward) }
    }
}

impl Default for KeyHasher {
    fn default() -> KeyHasher {
        KeyHasher::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::table::tests::packet;

    #[test]
    fn both_directions_go_to_the_same_shard_but_are_told_apart() {
        let hasher = KeyHasher::with_seed(1);
        for version in [IpVersion::V4, IpVersion::V6] {
            let mut there = packet(0, version, 1, 2);
            (there.source_port, there.destination_port) = (1000, 80);
            let mut back = there;
            (back.source, back.destination) = (there.destination, there.source);
            (back.source_port, back.destination_port) = (80, 1000);
            let (there, back) = (hasher.hash(&there), hasher.hash(&back));
            assert_eq!(there.route, back.route);
            assert_eq!(there.index ^ back.index, 1);
            for shards in 1..9 {
                assert_eq!(there.shard(shards), back.shard(shards));
                assert!(there.shard(shards) < shards);
            }
        }
    }

    #[test]
    fn seeds_differ_from_run_to_run() {
        let one = packet(0, IpVersion::V4, 1, 2);
        assert_ne!(KeyHasher::new().hash(&one), KeyHasher::new().hash(&one));
    }
}
