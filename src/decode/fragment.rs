//! Which ports a later fragment has.
//!
//! In: fragments, in the order they were read. Out: the same, the later ones with the protocol and the ports of their
//! first one, if that was seen shortly before. Fragments belong together as RFC 791 §3.2 and RFC 8200 §4.5 say: by source,
//! destination and identification, over IPv4 by the protocol as well.
//!
//! What the network sends must not fill the memory: the table holds a fixed number of first fragments, the oldest
//! goes when one more comes, and nothing is allocated before a first fragment is seen. The hash is seeded at random, so
//! that nobody can choose fragments that fall on one another.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::Duration;

use ahash::RandomState;

use super::{Fragment, IpVersion, Packet};
use crate::time::Timestamp;

/// First fragments that are remembered at most.
const MOST_REMEMBERED: usize = 65_536;
/// A first fragment of this age or more gives its ports to none.
const LIFE: Duration = Duration::from_secs(30);
/// No entry: the end of the list.
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

/// A first fragment, and its place in the list from the oldest to the newest.
#[derive(Clone, Copy, Debug)]
struct First {
    key: Key,
    timestamp: Timestamp,
    source_port: u16,
    destination_port: u16,
    protocol: u8,
    older: u32,
    newer: u32,
}

/// The first fragments seen of late, for the later ones to take their ports from.
#[derive(Clone, Debug)]
pub struct FragmentTable {
    /// Where in `firsts` the first fragment of a key is.
    places: HashMap<Key, u32, RandomState>,
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
            places: HashMap::with_hasher(RandomState::new()),
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
        self.places.clear();
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
                let place = self.places.get(&Key::of(packet));
                if let Some(first) = place.and_then(|place| self.firsts.get(*place as usize))
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
        let full = self.firsts.len() >= MOST_REMEMBERED;
        let place = match self.places.entry(key) {
            Entry::Occupied(entry) => *entry.get(),
            Entry::Vacant(entry) => {
                // The length is at most MOST_REMEMBERED, so it fits.
                let place = if full { self.oldest } else { self.firsts.len() as u32 };
                entry.insert(place);
                place
            }
        };
        let first = First {
            key,
            timestamp: packet.timestamp,
            source_port: packet.source_port,
            destination_port: packet.destination_port,
            protocol: packet.protocol,
            older: NONE,
            newer: NONE,
        };
        match self.firsts.get_mut(place as usize) {
            None => self.firsts.push(first),
            Some(former) => {
                let former = std::mem::replace(former, first);
                self.unlink(former.older, former.newer);
                if former.key != key {
                    self.places.remove(&former.key);
                }
            }
        }
        self.link_newest(place);
    }

    /// Takes an entry out of the list: its neighbours become each other's.
    fn unlink(&mut self, older: u32, newer: u32) {
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
