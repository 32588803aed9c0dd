//! Which ports a later fragment has.
//!
//! In: fragments, in the order they were read. Out: the same, the later ones with the protocol and the ports of their
//! first one, if that was seen shortly before. Fragments belong together as RFC 791 §3.2 and RFC 8200 §4.5 say: by source,
//! destination and identification, over IPv4 by the protocol as well.
//!
//! What the network sends must not fill the memory: the table holds a fixed number of first fragments, the oldest
//! goes when one more comes, some 5 MB in all, and nothing is allocated before a first fragment is seen. The hash is seeded at
//! random, so that nobody can choose fragments that fall on one another.

use std::time::Duration;

use ahash::RandomState;

use super::{Fragment, IpVersion, Packet};
use crate::time::Timestamp;

/// First fragments that are remembered at most.
const MOST_REMEMBERED: usize = 65_536;
/// A first fragment of this age or more gives its ports to none.
const LIFE: Duration = Duration::from_secs(30);
/// Chains of one entry each, on average, when the table is full.
const BUCKETS: usize = MOST_REMEMBERED;
/// No entry: the end of the list or of a chain.
const NONE: u32 = u32::MAX;

/// What fragments of one packet share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    source: [u8; 16],
    destination: [u8; 16],
    identification: u32,
    ip_version: IpVersion,
    /// Over IPv6 always 0: each fragment names its own next header there (RFC 8200 §4.5).
    protocol: u8,
}

impl Key {
    fn of(packet: &Packet) -> Key {
        Key {
            source: packet.source,
            destination: packet.destination,
            identification: packet.fragment_id,
            ip_version: packet.ip_version,
            protocol: match packet.ip_version {
                IpVersion::V4 => packet.protocol,
                IpVersion::V6 => 0,
            },
        }
    }
}

/// A first fragment, its place in the list from the oldest to the newest, and in the chain of its bucket.
#[derive(Clone, Copy, Debug)]
struct First {
    key: Key,
    timestamp: Timestamp,
    source_port: u16,
    destination_port: u16,
    protocol: u8,
    older: u32,
    newer: u32,
    chained: u32,
}

/// The first fragments seen of late, for the later ones to take their ports from.
///
/// A hash table with chains, whose links are numbers of entries. `HashMap` was rejected: with one entry going for each
/// that comes it grows to four times the entries, and copies or rehashes all of them at once now and then.
#[derive(Clone, Debug)]
pub struct FragmentTable {
    hasher: RandomState,
    /// The first entry of each chain; empty until the first first fragment.
    buckets: Vec<u32>,
    /// Never shrinks: at its full length a new first fragment takes the place of the oldest.
    firsts: Vec<First>,
    oldest: u32,
    newest: u32,
}

impl Default for FragmentTable {
    fn default() -> FragmentTable {
        FragmentTable::new()
    }
}

impl FragmentTable {
    /// An empty table, which allocates nothing.
    pub fn new() -> FragmentTable {
        FragmentTable {
            hasher: RandomState::new(),
            buckets: Vec::new(),
            firsts: Vec::new(),
            oldest: NONE,
            newest: NONE,
        }
    }

    /// First fragments that are remembered.
    pub fn len(&self) -> usize {
        self.firsts.len()
    }

    /// Whether no first fragment is remembered.
    pub fn is_empty(&self) -> bool {
        self.firsts.is_empty()
    }

    /// Forgets every first fragment: time itself has jumped.
    pub fn clear(&mut self) {
        self.buckets.fill(NONE);
        self.firsts.clear();
        (self.oldest, self.newest) = (NONE, NONE);
    }

    /// Remembers a first fragment; gives a later one the protocol and the ports of its first one, if that was seen less
    /// than 30 s and not at all after it. A whole packet is left as it is.
    #[cold]
    pub fn resolve(&mut self, packet: &mut Packet) {
        match packet.fragment {
            Fragment::Whole => {}
            Fragment::First => self.remember(packet),
            Fragment::Later => {
                if let Some(first) = self.firsts.get(self.find(&Key::of(packet)) as usize)
                    && first.timestamp <= packet.timestamp
                    && packet.timestamp.since(first.timestamp) < LIFE
                {
                    packet.protocol = first.protocol;
                    packet.source_port = first.source_port;
                    packet.destination_port = first.destination_port;
                }
            }
        }
    }

    /// Remembers a first fragment as the newest; one of the same key is forgotten.
    fn remember(&mut self, packet: &Packet) {
        let key = Key::of(packet);
        let mut first = First {
            key,
            timestamp: packet.timestamp,
            source_port: packet.source_port,
            destination_port: packet.destination_port,
            protocol: packet.protocol,
            older: NONE,
            newer: NONE,
            chained: NONE,
        };
        let found = self.find(&key);
        let place = if let Some(former) = self.firsts.get(found as usize).copied() {
            first.chained = former.chained;
            self.unlink(&former);
            found
        } else {
            let full = self.firsts.len() >= MOST_REMEMBERED;
            // The length is less than MOST_REMEMBERED where it is used, so it fits.
            let place = if full { self.oldest } else { self.firsts.len() as u32 };
            if let Some(former) = self.firsts.get(place as usize).copied() {
                self.unlink(&former);
                self.unchain(place, &former);
            }
            self.buckets.resize(BUCKETS, NONE);
            let bucket = self.bucket(&key);
            if let Some(head) = self.buckets.get_mut(bucket) {
                first.chained = std::mem::replace(head, place);
            }
            place
        };
        match self.firsts.get_mut(place as usize) {
            Some(entry) => *entry = first,
            None => self.firsts.push(first),
        }
        self.link_newest(place);
    }

    /// Which chain a key is in.
    fn bucket(&self, key: &Key) -> usize {
        (self.hasher.hash_one(key) % BUCKETS as u64) as usize
    }

    /// The entry of a key, or [`NONE`].
    fn find(&self, key: &Key) -> u32 {
        let mut place = self.buckets.get(self.bucket(key)).copied().unwrap_or(NONE);
        while let Some(first) = self.firsts.get(place as usize) {
            if first.key == *key {
                break;
            }
            place = first.chained;
        }
        place
    }

    /// Takes an entry out of its chain.
    fn unchain(&mut self, place: u32, former: &First) {
        let bucket = self.bucket(&former.key);
        let Some(head) = self.buckets.get_mut(bucket) else {
            return;
        };
        if *head == place {
            *head = former.chained;
            return;
        }
        let mut before = *head;
        while let Some(first) = self.firsts.get_mut(before as usize) {
            if first.chained == place {
                first.chained = former.chained;
                return;
            }
            before = first.chained;
        }
    }

    /// Takes an entry out of the list: its neighbours become each other's.
    fn unlink(&mut self, former: &First) {
        let First { older, newer, .. } = *former;
        match self.firsts.get_mut(older as usize) {
            Some(first) => first.newer = newer,
            None => self.oldest = newer,
        }
        match self.firsts.get_mut(newer as usize) {
            Some(first) => first.older = older,
            None => self.newest = older,
        }
    }

    /// Puts an entry that is in no list at the list's newest end.
    fn link_newest(&mut self, place: u32) {
        let older = self.newest;
        match self.firsts.get_mut(older as usize) {
            Some(first) => first.newer = place,
            None => self.oldest = place,
        }
        if let Some(first) = self.firsts.get_mut(place as usize) {
            first.older = older;
        }
        self.newest = place;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A fragment of UDP from port 1000 + `id` to port 53, captured `seconds` after the epoch.
    fn fragment(fragment: Fragment, id: u32, seconds: u64) -> Packet {
        let (source_port, destination_port) = match fragment {
            Fragment::Later => (0, 0),
            _ => ((1_000 + id) as u16, 53),
        };
        Packet {
            timestamp: Timestamp::from_nanos(seconds * 1_000_000_000),
            source: [1; 16],
            destination: [2; 16],
            fragment_id: id,
            protocol: 17,
            source_port,
            destination_port,
            fragment,
            ..Packet::default()
        }
    }

    /// The ports that a later fragment is given.
    fn ports(table: &mut FragmentTable, mut later: Packet) -> (u16, u16) {
        table.resolve(&mut later);
        (later.source_port, later.destination_port)
    }

    /// Entries in a bucket's chain.
    fn chain(table: &FragmentTable, bucket: usize) -> usize {
        let follow = |place: u32| table.firsts.get(place as usize).map(|first| first.chained);
        std::iter::successors(Some(table.buckets[bucket]), |place| follow(*place)).count() - 1
    }

    #[test]
    fn a_later_fragment_takes_the_ports_of_its_first_one() {
        let mut table = FragmentTable::new();
        let first = fragment(Fragment::First, 7, 100);
        let mut same = first;
        table.resolve(&mut same);
        assert_eq!(same, first);
        assert_eq!(ports(&mut table, fragment(Fragment::Later, 7, 100)), (1_007, 53));
        assert_eq!(ports(&mut table, fragment(Fragment::Later, 7, 101)), (1_007, 53));
        assert_eq!(ports(&mut table, fragment(Fragment::Later, 8, 101)), (0, 0));
    }

    #[test]
    fn a_whole_packet_is_neither_changed_nor_remembered() {
        let mut table = FragmentTable::new();
        table.resolve(&mut fragment(Fragment::Whole, 7, 100));
        assert!(table.is_empty());
    }

    #[test]
    fn a_first_fragment_is_of_use_for_less_than_thirty_seconds_and_not_before_itself() {
        let mut table = FragmentTable::new();
        table.resolve(&mut fragment(Fragment::First, 7, 100));
        let mut late = fragment(Fragment::Later, 7, 130);
        assert_eq!(ports(&mut table, late), (0, 0));
        late.timestamp = Timestamp::from_nanos(129_999_999_999);
        assert_eq!(ports(&mut table, late), (1_007, 53));
        late.timestamp = Timestamp::from_nanos(99_999_999_999);
        assert_eq!(ports(&mut table, late), (0, 0));
    }

    #[test]
    fn addresses_identification_and_over_ipv4_the_protocol_tell_packets_apart() {
        let mut table = FragmentTable::new();
        table.resolve(&mut fragment(Fragment::First, 7, 100));
        let later = fragment(Fragment::Later, 7, 100);
        assert_eq!(ports(&mut table, Packet { source: [3; 16], ..later }), (0, 0));
        assert_eq!(ports(&mut table, Packet { destination: [3; 16], ..later }), (0, 0));
        assert_eq!(ports(&mut table, Packet { protocol: 6, ..later }), (0, 0));
        assert_eq!(ports(&mut table, Packet { ip_version: IpVersion::V6, ..later }), (0, 0));
        assert_eq!(ports(&mut table, later), (1_007, 53));
    }

    #[test]
    fn over_ipv6_a_later_fragment_takes_the_protocol_too() {
        let mut table = FragmentTable::new();
        table.resolve(&mut Packet { ip_version: IpVersion::V6, ..fragment(Fragment::First, 7, 100) });
        let mut later =
            Packet { ip_version: IpVersion::V6, protocol: 60, ..fragment(Fragment::Later, 7, 100) };
        table.resolve(&mut later);
        assert_eq!((later.protocol, later.source_port, later.destination_port), (17, 1_007, 53));
    }

    #[test]
    fn a_first_fragment_that_comes_again_replaces_the_former() {
        let mut table = FragmentTable::new();
        table.resolve(&mut fragment(Fragment::First, 7, 100));
        table.resolve(&mut Packet { source_port: 9, ..fragment(Fragment::First, 7, 120) });
        assert_eq!(table.len(), 1);
        assert_eq!(ports(&mut table, fragment(Fragment::Later, 7, 140)), (9, 53));
    }

    #[test]
    fn at_most_65_536_are_remembered_and_the_oldest_goes() {
        let mut table = FragmentTable::new();
        for id in 0..65_536 {
            table.resolve(&mut fragment(Fragment::First, id, 100));
        }
        assert_eq!(table.len(), 65_536);
        assert_eq!(ports(&mut table, fragment(Fragment::Later, 0, 100)), (1_000, 53));
        // The oldest comes again and so is the newest; the next one to go is that after it.
        table.resolve(&mut fragment(Fragment::First, 0, 101));
        table.resolve(&mut fragment(Fragment::First, 65_536, 101));
        assert_eq!(table.len(), 65_536);
        assert_eq!(ports(&mut table, fragment(Fragment::Later, 0, 101)), (1_000, 53));
        assert_eq!(ports(&mut table, fragment(Fragment::Later, 1, 101)), (0, 0));
        assert_eq!(ports(&mut table, fragment(Fragment::Later, 2, 101)), (1_002, 53));
    }

    #[test]
    fn a_flood_of_first_fragments_does_not_grow_the_table_beyond_its_bound() {
        let mut table = FragmentTable::new();
        for id in 0..1_000_000 {
            table.resolve(&mut fragment(Fragment::First, id, 100));
        }
        assert_eq!((table.len(), table.buckets.len()), (65_536, 65_536));
        assert!(table.firsts.capacity() <= 65_536);
        let longest = (0..BUCKETS).map(|bucket| chain(&table, bucket)).max();
        assert!(longest < Some(20), "chains are short: {longest:?}");
        assert_eq!((0..BUCKETS).map(|bucket| chain(&table, bucket)).sum::<usize>(), 65_536);
        for id in 1_000_000 - 65_536..1_000_000 {
            assert!(ports(&mut table, fragment(Fragment::Later, id, 100)).1 == 53);
        }
    }

    #[test]
    fn a_new_table_allocates_nothing() {
        let table = FragmentTable::new();
        assert_eq!((table.buckets.capacity(), table.firsts.capacity()), (0, 0));
    }

    #[test]
    fn a_cleared_table_has_forgotten_all_and_can_be_used_again() {
        let mut table = FragmentTable::new();
        for id in 0..3 {
            table.resolve(&mut fragment(Fragment::First, id, 100));
        }
        table.clear();
        assert!(table.is_empty());
        assert_eq!(ports(&mut table, fragment(Fragment::Later, 1, 100)), (0, 0));
        table.resolve(&mut fragment(Fragment::First, 1, 100));
        assert_eq!(ports(&mut table, fragment(Fragment::Later, 1, 100)), (1_001, 53));
    }
}
