//! Packets on their way to their shard: what the table needs of each, and nothing else.
//!
//! In: a packet, decoded where it stays, the observation clock, the hash of its Flow Key, there and then or for a whole
//! batch later. Out: a batch that crosses to another core at 48 octets a packet; it is the crossing that costs. IPv6 addresses
//! stand beside, in an array that stays untouched where there is no IPv6, as they do in the table.

use std::slice;

use bytemuck::Zeroable;

use crate::decode::{Fields, Fragment, IpVersion, Packet, Place, widened};
use crate::flow::entry::AddressPair;
use crate::flow::key::FlowKey;
use crate::flow::{KeyHash, KeyHasher};
use crate::prefetch::{prefetch, prefetch_behind_to_write};
use crate::time::Timestamp;

/// Packets between asking for a place and writing to it.
const AHEAD: usize = 32;

/// Packets that are dealt out together: they, and where they go, stay in the first cache.
pub const DEALT: usize = 256;

/// Packets that a table takes through one step together.
pub(super) const GROUP: usize = 16;

/// A packet as its table sees it.
///
/// The order is chosen: a field that is stored in one piece must not be read in a wider one, which waits for the store, and
/// compilers do read a protocol that lies at a multiple of four together with what follows it. The key is read whole, but in
/// the table, when all of it has long come to rest.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(super) struct Observation {
    pub(super) timestamp: Timestamp,
    /// The observation clock as it stood when the packet was read, the packet itself included.
    pub(super) clock: Timestamp,
    pub(super) key: FlowKey,
    pub(super) octets: u32,
    pub(super) interface: u32,
    /// What places the Flow in the shard's index; of a fragment, its identification until it is hashed.
    pub(super) hash: u32,
    pub(super) tcp_flags: u16,
    pub(super) tos: u8,
    pub(super) fragment: Fragment,
}

impl Observation {
    #[inline(always)]
    pub(super) fn is_ipv6(&self) -> bool {
        self.key.is_ipv6()
    }

    #[inline(always)]
    pub(super) fn ip_version(&self) -> IpVersion {
        if self.is_ipv6() { IpVersion::V6 } else { IpVersion::V4 }
    }
}

/// A batch of packets, in the order they were read.
#[derive(Clone, Debug)]
pub struct Observations {
    /// As many as fill groups of [`GROUP`].
    packets: Vec<Observation>,
    pairs: Vec<AddressPair>,
    /// How many of them are filled, from the front.
    filled: usize,
    /// The packets are still to be hashed.
    is_unhashed: bool,
}

impl Observations {
    /// An empty batch with room for so many packets; it grows where more come.
    pub fn with_capacity(packets: usize) -> Observations {
        let packets = packets.next_multiple_of(GROUP);
        Observations {
            packets: vec![Observation::default(); packets],
            // Zeroed by the allocator, which need not touch what is fresh.
            pairs: bytemuck::zeroed_vec(packets),
            filled: 0,
            is_unhashed: false,
        }
    }

    /// Packets in it.
    #[inline]
    pub fn len(&self) -> usize {
        self.filled
    }

    /// Whether there is none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// The observation clock as it stood with the last packet.
    pub fn clock(&self) -> Option<Timestamp> {
        self.packets().last().map(|packet| packet.clock)
    }

    /// The places that are free until there are `most` packets, which are put there with the hash of their Flow Key, unless
    /// they are hashed later. They are in the batch once it is told how many ([`Observations::keep`]).
    #[inline]
    pub fn room<'a>(&'a mut self, most: usize, hasher: &'a KeyHasher) -> Room<'a> {
        if most > self.packets.len() {
            self.grow(most);
        }
        let packets = &mut self.packets[..most][self.filled..];
        let pairs = &mut self.pairs[..most][self.filled..];
        let hasher = (!self.is_unhashed).then_some(hasher);
        Room { packets: packets.iter_mut(), pairs: pairs.iter_mut(), hasher }
    }

    /// Adds the packets that were put into the first places of the batch's [`Room`], so many.
    #[inline]
    pub fn keep(&mut self, packets: usize) {
        debug_assert!(self.filled + packets <= self.packets.len());
        self.filled += packets;
    }

    /// Has the packets of a batch that is still empty hashed later, all at once: by whoever has the time.
    pub fn leave_unhashed(&mut self) {
        debug_assert!(self.is_empty());
        self.is_unhashed = true;
    }

    /// Whether the packets are hashed later.
    #[inline(always)]
    pub fn is_unhashed(&self) -> bool {
        self.is_unhashed
    }

    /// Sets the hashes that were left out.
    pub fn hash(&mut self, hasher: &KeyHasher) {
        if !std::mem::take(&mut self.is_unhashed) {
            return;
        }
        for at in 0..self.filled {
            prefetch(&self.packets[..self.filled], at + AHEAD);
            self.packets[at].hash(&self.pairs[at], hasher);
        }
    }

    /// Adds its packets to the batches of several tables, each to that of its Flow, which there must be room in for all, and is
    /// empty then.
    ///
    /// Not each as it is decoded: its table is a branch that is guessed wrong every other time, and what was just put together
    /// field by field is waited for when it is copied.
    #[inline(never)]
    pub fn deal(&mut self, to: &mut [Observations]) {
        debug_assert!(!self.is_unhashed);
        let tables = to.len();
        for (chunk, packets) in self.packets[..self.filled].chunks(DEALT).enumerate() {
            // The place of each IPv6 packet, here and where it went.
            let (mut ipv6, mut found) = ([(0_u16, 0_u32); DEALT], 0);
            for (at, packet) in packets.iter().enumerate() {
                let table = KeyHash::of_index(packet.hash).shard(tables);
                let other = &mut to[table];
                let place = &mut other.packets[other.filled..][..1];
                prefetch_behind_to_write::<_, AHEAD>(&mut place[0]);
                // In wide pieces; as a value it would be taken to its fields and put together again.
                place.copy_from_slice(slice::from_ref(packet));
                // Over that of the packet before, unless that was an IPv6 one.
                ipv6[found] = (at as u16, other.filled as u32);
                found += usize::from(packet.is_ipv6());
                other.filled += 1;
            }
            for &(at, place) in &ipv6[..found] {
                let table = KeyHash::of_index(packets[usize::from(at)].hash).shard(tables);
                to[table].pairs[place as usize] = self.pairs[chunk * DEALT + usize::from(at)];
            }
        }
        self.clear();
    }

    /// The packet that was put into the next place and is not in the batch.
    pub fn unkept(&self) -> Packet {
        self.packets[self.filled].packet(&self.pairs[self.filled])
    }

    /// Adds a packet; `clock` is the observation clock as it stands with the packet.
    #[inline]
    pub fn push(&mut self, packet: &Packet, clock: Timestamp, hash: KeyHash) {
        let at = self.next_place();
        let place = &mut self.packets[at];
        packet.put_into(Next { packet: place, pair: &mut self.pairs[at], hasher: None });
        place.clock = clock;
        place.hash = hash.index();
        self.filled += 1;
    }

    /// Where the next packet goes.
    #[inline(always)]
    fn next_place(&mut self) -> usize {
        if self.filled == self.packets.len() {
            self.grow(2 * self.filled);
        }
        prefetch_behind_to_write::<_, AHEAD>(&mut self.packets[self.filled]);
        self.filled
    }

    #[cold]
    #[inline(never)]
    fn grow(&mut self, length: usize) {
        let length = length.next_multiple_of(GROUP).max(GROUP);
        self.packets.resize(length, Observation::default());
        self.pairs.resize(length, AddressPair::zeroed());
    }

    /// Forgets all packets; the memory stays.
    #[inline]
    pub fn clear(&mut self) {
        self.filled = 0;
        self.is_unhashed = false;
    }

    /// The packets, as [`Seen`] by a table.
    #[inline]
    pub(super) fn packets(&self) -> &[Observation] {
        &self.packets[..self.filled]
    }

    /// The packets in groups, the last one filled up with others that are not of the batch.
    #[inline]
    pub(super) fn groups(&self) -> &[[Observation; GROUP]] {
        let (groups, _) = self.packets.as_chunks();
        &groups[..self.filled.div_ceil(GROUP)]
    }

    /// The addresses beside each packet; they mean something over IPv6 alone.
    #[inline]
    pub(super) fn pairs(&self) -> &[AddressPair] {
        &self.pairs
    }
}

impl Observation {
    /// Sets the hash of the packet's Flow Key.
    #[inline(always)]
    fn hash(&mut self, pair: &AddressPair, hasher: &KeyHasher) {
        let key = &self.key;
        let ports = (key.source_port, key.destination_port);
        let hash = if key.is_ipv6() {
            hasher.ipv6(pair.source, pair.destination, ports, key.protocol)
        } else {
            hasher.ipv4(key.source, key.destination, ports, key.protocol)
        };
        self.hash = hash.index();
    }

    /// The packet, before it is hashed if it is a fragment: the place of its hash is that of the identification, which in a whole
    /// packet means nothing.
    fn packet(&self, pair: &AddressPair) -> Packet {
        let (key, ip_version) = (&self.key, self.ip_version());
        let (source, destination) = match ip_version {
            IpVersion::V4 => (widened(key.source), widened(key.destination)),
            IpVersion::V6 => (pair.source, pair.destination),
        };
        Packet {
            timestamp: self.timestamp,
            source,
            destination,
            octets: self.octets,
            interface: self.interface,
            fragment_id: self.hash,
            source_port: key.source_port,
            destination_port: key.destination_port,
            tcp_flags: self.tcp_flags,
            vlan: key.vlan,
            protocol: key.protocol,
            tos: self.tos,
            ip_version,
            fragment: self.fragment,
        }
    }
}

/// The free places of a batch, in order.
pub struct Room<'a> {
    packets: slice::IterMut<'a, Observation>,
    // Not zipped, which would go by number: both places would be worked out anew for each packet.
    pairs: slice::IterMut<'a, AddressPair>,
    /// None if the packets are hashed later.
    hasher: Option<&'a KeyHasher>,
}

impl<'a> Iterator for Room<'a> {
    type Item = Next<'a>;

    #[inline(always)]
    fn next(&mut self) -> Option<Next<'a>> {
        let (packet, pair) = (self.packets.next()?, self.pairs.next()?);
        // The batch was read on another core, and the processor does not look so far ahead by itself.
        prefetch_behind_to_write::<_, AHEAD>(packet);
        Some(Next { packet, pair, hasher: self.hasher })
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        self.packets.size_hint()
    }
}

impl ExactSizeIterator for Room<'_> {}

/// The place of a packet that is decoded where it stays. What is put there has its hash, unless its batch is hashed later or it
/// is a fragment, whose ports may not be known yet.
pub struct Next<'a> {
    packet: &'a mut Observation,
    pair: &'a mut AddressPair,
    hasher: Option<&'a KeyHasher>,
}

impl Next<'_> {
    /// The same place, to be used up.
    #[inline(always)]
    pub fn again(&mut self) -> Next<'_> {
        Next { packet: self.packet, pair: self.pair, hasher: self.hasher }
    }

    /// Sets the observation clock as it stands with the packet that was put here.
    #[inline(always)]
    pub fn set_clock(&mut self, clock: Timestamp) {
        self.packet.clock = clock;
    }

    /// Gives the fragment that was put here its ports, by `resolve`, and then its hash.
    #[cold]
    #[inline(never)]
    pub fn resolve(mut self, resolve: impl FnOnce(&mut Packet)) {
        let mut packet = self.packet.packet(self.pair);
        resolve(&mut packet);
        packet.put_into(self.again());
        if let Some(hasher) = self.hasher {
            self.packet.hash(self.pair, hasher);
        }
    }

    #[inline(always)]
    fn put(
        self,
        ip_version: IpVersion,
        source: [u8; 4],
        destination: [u8; 4],
        fields: Fields,
        hash: impl FnOnce(&KeyHasher) -> KeyHash,
    ) -> Fragment {
        let Next { packet, hasher, .. } = self;
        // Field by field: a packet put together elsewhere and copied here is waited for when it is hashed.
        packet.timestamp = fields.timestamp;
        packet.key.source = source;
        packet.key.destination = destination;
        packet.octets = fields.octets;
        packet.interface = fields.interface;
        packet.key.source_port = fields.source_port;
        packet.key.destination_port = fields.destination_port;
        packet.tcp_flags = fields.tcp_flags;
        packet.key.vlan = fields.vlan;
        packet.key.protocol = fields.protocol;
        packet.tos = fields.tos;
        packet.key.state = FlowKey::state(ip_version);
        packet.fragment = fields.fragment;
        if fields.fragment != Fragment::Whole {
            packet.hash = fields.fragment_id;
            return fields.fragment;
        }
        // Of what is in registers still.
        packet.hash = hasher.map_or(KeyHash::default(), hash).index();
        Fragment::Whole
    }
}

impl Place for Next<'_> {
    type Put = Fragment;

    #[inline(always)]
    fn put_ipv4(self, source: [u8; 4], destination: [u8; 4], fields: Fields) -> Fragment {
        let ports = (fields.source_port, fields.destination_port);
        self.put(IpVersion::V4, source, destination, fields, |hasher| {
            hasher.ipv4(source, destination, ports, fields.protocol)
        })
    }

    #[inline(always)]
    fn put_ipv6(self, source: [u8; 16], destination: [u8; 16], fields: Fields) -> Fragment {
        let ports = (fields.source_port, fields.destination_port);
        *self.pair = AddressPair { source, destination };
        // With their first four octets here, too, the addresses would be stored in pieces that the hash has to wait for.
        self.put(IpVersion::V6, [0; 4], [0; 4], fields, |hasher| {
            hasher.ipv6(source, destination, ports, fields.protocol)
        })
    }
}

/// A packet with the place of its addresses. They are looked up only over IPv6: a reference to them would be read ahead for
/// every packet, from a cache line that nobody has asked for.
#[derive(Clone, Copy)]
pub(super) struct Seen<'a> {
    pub(super) packet: &'a Observation,
    pub(super) pairs: &'a [AddressPair],
    pub(super) at: usize,
}

impl<'a> Seen<'a> {
    /// The packet at a place of a batch.
    #[inline(always)]
    pub(super) fn of(batch: &'a Observations, at: usize) -> Seen<'a> {
        Seen { packet: &batch.packets[at], pairs: batch.pairs(), at }
    }

    /// The addresses of an IPv6 packet.
    #[inline(always)]
    pub(super) fn pair(&self) -> AddressPair {
        self.pairs[self.at]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::table::tests::packet;

    #[test]
    fn packets_that_are_dealt_out_come_to_the_table_of_their_hash_in_order_and_with_their_addresses() {
        let hasher = KeyHasher::with_seed(3);
        for tables in [2, 3, 7] {
            let mut dealt = vec![Observations::with_capacity(3 * DEALT); tables];
            let mut expected = vec![Vec::new(); tables];
            for count in [1, DEALT - 1, DEALT, DEALT + 1] {
                let mut read = Observations::with_capacity(count);
                for number in 0..count {
                    let version = if number % 3 == 0 { IpVersion::V6 } else { IpVersion::V4 };
                    let packet = packet(number as u64, version, number as u8, (count % 251) as u8);
                    let hash = hasher.hash(&packet);
                    read.push(&packet, packet.timestamp, hash);
                    expected[hash.shard(tables)].push((packet, hash.index()));
                }
                read.deal(&mut dealt);
                assert!(read.is_empty());
            }
            for (dealt, expected) in dealt.iter().zip(expected) {
                assert!(!expected.is_empty());
                let hashes: Vec<_> = dealt.packets().iter().map(|packet| packet.hash).collect();
                assert_eq!(hashes, expected.iter().map(|(_, hash)| *hash).collect::<Vec<_>>());
                for (at, (packet, hash)) in expected.into_iter().enumerate() {
                    let seen = dealt.packets()[at].packet(&dealt.pairs()[at]);
                    assert_eq!(seen, Packet { fragment_id: hash, ..packet });
                }
            }
        }
    }

    #[test]
    fn packets_that_are_hashed_later_have_the_same_hashes() {
        let hasher = KeyHasher::with_seed(3);
        let (mut hashed, mut unhashed) = (Observations::with_capacity(4), Observations::with_capacity(4));
        unhashed.leave_unhashed();
        for number in 0..100u8 {
            let version = if number % 3 == 0 { IpVersion::V6 } else { IpVersion::V4 };
            let packet = packet(u64::from(number), version, number, 2);
            for batch in [&mut hashed, &mut unhashed] {
                let mut room = batch.room(usize::from(number) + 1, &hasher);
                let mut place = room.next().expect("there is room");
                packet.put_into(place.again());
                place.set_clock(packet.timestamp);
                assert_eq!(room.len(), 0);
                batch.keep(1);
            }
        }
        let hashes = |batch: &Observations| batch.packets().iter().map(|one| one.hash).collect::<Vec<_>>();
        assert_ne!(hashes(&unhashed), hashes(&hashed), "not yet");
        unhashed.hash(&hasher);
        assert_eq!(hashes(&unhashed), hashes(&hashed));
        assert_eq!(
            hashed.groups().as_flattened()[..100].iter().map(|one| one.hash).collect::<Vec<_>>(),
            hashes(&hashed)
        );
        unhashed.hash(&KeyHasher::with_seed(4));
        assert_eq!(hashes(&unhashed), hashes(&hashed), "once is enough");
        unhashed.clear();
        assert!(!unhashed.is_unhashed());
    }

    #[test]
    fn a_packet_crosses_in_48_octets() {
        assert_eq!(size_of::<Observation>(), 48);
    }
}
