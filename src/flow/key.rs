//! The Flow Key (RFC 7011 §2): source and destination address, protocol, source and destination port.
//!
//! In: a packet. Out: its `FlowKey`, laid out to be compared in two words, and its [`KeyHash`], keyed by a random seed so
//! that nobody on the wire can choose colliding Flows. Both directions of a conversation share all but one bit of the hash:
//! they go to the same shard, and their index entries share a cache line.

use std::hash::{BuildHasher, Hasher};

use ahash::RandomState;
use bytemuck::{Pod, Zeroable};

use crate::decode::{IpVersion, Packet};

/// In [`FlowKey::state`]: it is that of a packet or of a live Flow.
pub(super) const LIVE: u8 = 0x80;
/// In [`FlowKey::state`]: it is that of IPv6, whose addresses stand beside.
pub(super) const IPV6: u8 = 0x40;
/// In [`FlowKey::state`]: it is that of a short entry, which a packet is not simply added to.
pub(super) const SHORT: u8 = 0x20;

/// A Flow Key as packets and the table's entries hold it, in the same octets, so that two are compared and one is copied in
/// two words. IPv6 addresses stand beside.
///
/// The order is chosen: what tells no Flows apart comes first, so that what is compared of the word is one run of bits; and see
/// [`Observation`](super::observation::Observation).
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C, align(16))]
pub(super) struct FlowKey {
    /// Of the packet, or of the Flow's first. No part of the key: it fills the word, and does not change while the Flow
    /// lives, so that the word seldom has to be waited for.
    pub(super) vlan: u16,
    /// [`LIVE`] and [`IPV6`], which tell Flows apart; the other bits are an entry's own, and [`SHORT`] is compared for it.
    pub(super) state: u8,
    pub(super) protocol: u8,
    pub(super) source_port: u16,
    pub(super) destination_port: u16,
    /// IPv4 source address in memory order, over IPv6 0; for a free slot of the table, the next free slot.
    pub(super) source: [u8; 4],
    /// IPv4 destination address in memory order; over IPv6 0.
    pub(super) destination: [u8; 4],
}

impl FlowKey {
    /// All bits that tell Flows apart, and [`SHORT`].
    const MASK: FlowKey = FlowKey {
        vlan: 0,
        state: LIVE | IPV6 | SHORT,
        protocol: u8::MAX,
        source_port: u16::MAX,
        destination_port: u16::MAX,
        source: [0xff; 4],
        destination: [0xff; 4],
    };

    /// The state of a live key of this version.
    #[inline(always)]
    pub(super) fn state(ip_version: IpVersion) -> u8 {
        match ip_version {
            IpVersion::V4 => LIVE,
            IpVersion::V6 => LIVE | IPV6,
        }
    }

    #[inline(always)]
    pub(super) fn is_live(&self) -> bool {
        self.state & LIVE != 0
    }

    #[inline(always)]
    pub(super) fn is_ipv6(&self) -> bool {
        self.state & IPV6 != 0
    }

    /// [`FlowKey::is_like`] for that of an entry, short or not, and that of a packet.
    #[inline(always)]
    pub(super) fn is_like_packet(&self, packet: &FlowKey) -> bool {
        self.is_like_in(packet, FlowKey { state: LIVE | IPV6, ..FlowKey::MASK })
    }

    /// Whether both are of one Flow, or of none, and both or none of a short entry, as far as is told without the IPv6
    /// addresses.
    #[inline(always)]
    pub(super) fn is_like(&self, other: &FlowKey) -> bool {
        self.is_like_in(other, FlowKey::MASK)
    }

    #[inline(always)]
    fn is_like_in(&self, other: &FlowKey, mask: FlowKey) -> bool {
        let [head, addresses]: &[u64; 2] = bytemuck::cast_ref(self);
        let [other_head, other_addresses]: &[u64; 2] = bytemuck::cast_ref(other);
        let [mask, _]: [u64; 2] = bytemuck::cast(mask);
        ((head ^ other_head) & mask) | (addresses ^ other_addresses) == 0
    }
}

/// The hash of a Flow Key: it chooses the shard, the same for both directions, and the place in the shard's index. The lowest
/// bit tells the directions apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyHash(u32);

impl KeyHash {
    #[inline(always)]
    fn new(hash: u64, forward: bool) -> KeyHash {
        KeyHash((hash >> 32) as u32 & !1 | u32::from(forward))
    }

    /// The hash that has this place in an index.
    #[inline(always)]
    pub(super) fn of_index(index: u32) -> KeyHash {
        KeyHash(index)
    }

    /// The shard, of `shards`, that this Flow and its opposite direction live in.
    ///
    /// It goes by all bits but the lowest. By some alone, which an index finds its buckets by or tells Flows apart by, parts of
    /// each shard's index would stay empty. As it is, the Flows of a shard have tags that much more alike: of those that begin
    /// in an index of 2^20 buckets, 3 in a thousand of two shards, and 11 of eight, find theirs taken and are looked at twice,
    /// where of one shard 1.5 do. 32 bits of their own would cost each packet a number more.
    #[inline(always)]
    pub fn shard(self, shards: usize) -> usize {
        // Fibonacci hashing: Knuth, The Art of Computer Programming, volume 3, section 6.4.
        let mixed = (self.0 >> 1).wrapping_mul(0x9e37_79b9);
        ((u64::from(mixed) * shards as u64) >> 32) as usize
    }

    /// The 32 bits that place the Flow in its shard's index.
    #[inline]
    pub(super) fn index(self) -> u32 {
        self.0
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
    pub fn hash(&self, packet: &Packet) -> KeyHash {
        let ports = (packet.source_port, packet.destination_port);
        match packet.ip_version {
            IpVersion::V4 => {
                let head = |address: &[u8; 16]| [address[0], address[1], address[2], address[3]];
                self.ipv4(head(&packet.source), head(&packet.destination), ports, packet.protocol)
            }
            IpVersion::V6 => self.ipv6(packet.source, packet.destination, ports, packet.protocol),
        }
    }

    /// The hash of an IPv4 Flow's key, its addresses and ports with the source's first. It is of fewer words than over IPv6,
    /// so that the version need not be one of them.
    #[inline(always)]
    pub(super) fn ipv4(
        &self,
        source: [u8; 4],
        destination: [u8; 4],
        ports: (u16, u16),
        protocol: u8,
    ) -> KeyHash {
        // Any order of the octets will do, as long as it is one.
        let end = |address, port| u64::from(u32::from_ne_bytes(address)) << 16 | u64::from(port);
        let (source, destination) = (end(source, ports.0), end(destination, ports.1));
        let mut hasher = self.state.build_hasher();
        // The two ends in one order whatever the direction; which came first is the direction bit.
        let forward = source < destination;
        let (low, high) = if forward { (source, destination) } else { (destination, source) };
        hasher.write_u64(low | u64::from(protocol) << 48);
        hasher.write_u64(high);
        KeyHash::new(hasher.finish(), forward)
    }

    /// The hash of an IPv6 Flow's key.
    #[inline(always)]
    pub(super) fn ipv6(
        &self,
        source: [u8; 16],
        destination: [u8; 16],
        ports: (u16, u16),
        protocol: u8,
    ) -> KeyHash {
        let source = (u128::from_ne_bytes(source), ports.0);
        let destination = (u128::from_ne_bytes(destination), ports.1);
        let forward = source < destination;
        let (low, high) = if forward { (source, destination) } else { (destination, source) };
        let mut hasher = self.state.build_hasher();
        hasher.write_u128(low.0);
        hasher.write_u128(high.0);
        hasher.write_u64(u64::from(protocol) << 32 | u64::from(low.1) << 16 | u64::from(high.1));
        KeyHash::new(hasher.finish(), forward)
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
            assert_eq!(there.0 ^ back.0, 1);
            for shards in 1..9 {
                assert_eq!(there.shard(shards), back.shard(shards));
                assert!(there.shard(shards) < shards);
            }
        }
    }

    #[test]
    fn shards_have_about_as_many_flows_each_and_those_of_each_are_all_over_its_index() {
        for shards in [2, 3, 8, 255] {
            // Of each shard, how many Flows come to each eighth of the home buckets, and of the tags.
            let mut flows = vec![[[0_u32; 8]; 2]; shards];
            let count = 4096 * shards as u32;
            let hasher = KeyHasher::with_seed(7);
            for number in 0..count {
                let mut one = packet(0, IpVersion::V4, 1, 2);
                one.source[..4].copy_from_slice(&number.to_be_bytes());
                let hash = hasher.hash(&one);
                let of_shard = &mut flows[hash.shard(shards)];
                of_shard[0][(hash.index() >> 29) as usize] += 1;
                of_shard[1][(hash.index() >> 1 & 7) as usize] += 1;
            }
            for eighth in flows.into_iter().flatten().flatten() {
                assert!((350..700).contains(&eighth), "{eighth} of {shards} shards, 512 expected");
            }
        }
    }

    #[test]
    fn keys_differ_by_each_octet_of_theirs_and_by_no_other() {
        let key = FlowKey {
            vlan: 7,
            state: LIVE,
            protocol: 6,
            source_port: 1000,
            destination_port: 80,
            source: [192, 0, 2, 1],
            destination: [192, 0, 2, 2],
        };
        assert!(key.is_like(&key) && key.is_live() && !key.is_ipv6());
        for at in 0..size_of::<FlowKey>() {
            for bit in 0..8 {
                let mut other = key;
                bytemuck::bytes_of_mut(&mut other)[at] ^= 1 << bit;
                // Neither the VLAN nor what an entry keeps beside LIVE, IPV6 and SHORT.
                let is_like = matches!((at, bit), (0 | 1, _) | (2, ..5));
                assert_eq!((key.is_like(&other), other.is_like(&key)), (is_like, is_like), "{at} {bit}");
                let is_like = is_like || (at, 1 << bit) == (2, SHORT);
                assert_eq!(other.is_like_packet(&key), is_like, "{at} {bit}");
            }
        }
        assert_eq!([IpVersion::V4, IpVersion::V6].map(FlowKey::state), [LIVE, LIVE | IPV6]);
    }

    #[test]
    fn seeds_differ_from_run_to_run() {
        let one = packet(0, IpVersion::V4, 1, 2);
        assert_ne!(KeyHasher::new().hash(&one), KeyHasher::new().hash(&one));
    }
}
