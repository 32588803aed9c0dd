//! The index of a Flow table: 32 bits of hash in, the slot of the Flow's entry out.
//!
//! Buckets of eight, each one cache line, whose hashes are compared all at once: a look-up is one line and no loop that
//! the processor has to guess the length of. A hash's home bucket is its upper bits; what does not fit goes to the next
//! bucket with room, and a look-up goes on only from a full bucket. So a cell can be moved without touching the entry it
//! names, and a bigger index keeps the order of the smaller one: growing moves a few buckets at each insertion and
//! never stalls. Removal closes the gap from the buckets behind, so there are no tombstones.

use std::io;

use bytemuck::{Pod, Zeroable};

use super::memory::{Region, prefetch, which_equal};

/// Cells of a bucket.
const CELLS: usize = 8;
/// Buckets behind the last home, so that nothing need wrap around.
const TAIL: usize = 64;
/// Old buckets that move at each insertion while the index grows.
const MOVED_PER_INSERTION: usize = 4;
const SMALLEST: usize = 128;

/// One cache line: cells are filled from the front.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Bucket {
    hashes: [u32; CELLS],
    /// Slot + 1; 0 in an empty cell.
    slots: [u32; CELLS],
}

impl Bucket {
    /// A bit for each cell with this hash; an empty cell may be among them, where the hash is 0.
    #[inline(always)]
    fn matches(&self, hash: u32) -> u32 {
        which_equal(&self.hashes, hash)
    }

    #[inline(always)]
    fn is_full(&self) -> bool {
        self.slots[CELLS - 1] != 0
    }

    #[inline]
    fn length(&self) -> usize {
        self.slots.iter().position(|slot| *slot == 0).unwrap_or(CELLS)
    }

    /// Takes a cell out; the last one takes its place.
    fn take(&mut self, cell: usize) -> (u32, u32) {
        let taken = (self.hashes[cell], self.slots[cell]);
        let last = self.length() - 1;
        (self.hashes[cell], self.slots[cell]) = (self.hashes[last], self.slots[last]);
        (self.hashes[last], self.slots[last]) = (0, 0);
        taken
    }
}

pub(super) struct Index {
    buckets: Buckets,
    /// The smaller index that is being moved out of, and how far that has come: what has its home in it before the
    /// boundary has moved.
    old: Option<(Buckets, usize)>,
    live: usize,
}

struct Buckets {
    region: Region<Bucket>,
    shift: u32,
}

impl Buckets {
    fn new(homes: usize) -> io::Result<Buckets> {
        debug_assert!(homes.is_power_of_two());
        Ok(Buckets { region: Region::reserve(homes + TAIL)?, shift: 32 - homes.trailing_zeros() })
    }

    #[inline]
    fn homes(&self) -> usize {
        1 << (32 - self.shift)
    }

    #[inline]
    fn home(&self, hash: u32) -> usize {
        (hash >> self.shift) as usize
    }

    /// The first slot with this hash that satisfies `is_it`.
    #[inline(always)]
    fn find(&self, hash: u32, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        for bucket in &self.region.as_slice()[self.home(hash)..] {
            let mut bits = bucket.matches(hash);
            while bits != 0 {
                let slot = bucket.slots[bits.trailing_zeros() as usize % CELLS];
                if slot != 0 && is_it(slot - 1) {
                    return Some(slot - 1);
                }
                bits &= bits - 1;
            }
            if !bucket.is_full() {
                return None;
            }
        }
        None
    }

    /// Puts a cell into the first bucket from its home on that has room; false when the tail is full.
    #[inline]
    fn put(&mut self, (hash, slot): (u32, u32)) -> bool {
        let home = self.home(hash);
        for bucket in &mut self.region.as_mut_slice()[home..] {
            if !bucket.is_full() {
                let cell = bucket.length();
                (bucket.hashes[cell], bucket.slots[cell]) = (hash, slot);
                return true;
            }
        }
        false
    }

    /// Removes the cell of this hash and slot.
    fn remove(&mut self, hash: u32, slot: u32) -> bool {
        let mut at = self.home(hash);
        while let Some(bucket) = self.region.as_slice().get(at) {
            let found =
                (0..CELLS).find(|&cell| bucket.slots[cell] == slot + 1 && bucket.hashes[cell] == hash);
            if let Some(cell) = found {
                self.take(at, cell);
                return true;
            }
            if !bucket.is_full() {
                return false;
            }
            at += 1;
        }
        false
    }

    /// Takes a cell out of a bucket. If that was full, what had to go on from it to a later bucket comes back, so that
    /// look-ups may end where there is room.
    fn take(&mut self, mut at: usize, mut cell: usize) -> (u32, u32) {
        let shift = self.shift;
        let buckets = self.region.as_mut_slice();
        let was_full = buckets[at].is_full();
        let taken = buckets[at].take(cell);
        if !was_full {
            return taken;
        }
        // The gap stands at the end of bucket `at`; the buckets behind it are looked through as long as they are full.
        let mut next = at + 1;
        while next < buckets.len() {
            let full = buckets[next].is_full();
            let fits = |bucket: &Bucket| {
                (0..CELLS).find(|&c| bucket.slots[c] != 0 && (bucket.hashes[c] >> shift) as usize <= at)
            };
            if let Some(found) = fits(&buckets[next]) {
                cell = found;
                let moved = buckets[next].take(cell);
                let last = buckets[at].length();
                (buckets[at].hashes[last], buckets[at].slots[last]) = moved;
                if !full {
                    break;
                }
                at = next;
            } else if !full {
                break;
            }
            next += 1;
        }
        taken
    }
}

impl Index {
    pub(super) fn new() -> io::Result<Index> {
        Ok(Index { buckets: Buckets::new(SMALLEST)?, old: None, live: 0 })
    }

    /// Which buckets hold `hash`: the old ones as long as its home there has not moved.
    #[inline(always)]
    fn buckets_of(&self, hash: u32) -> &Buckets {
        match &self.old {
            Some((old, boundary)) if old.home(hash) >= *boundary => old,
            _ => &self.buckets,
        }
    }

    #[inline]
    fn buckets_of_mut(&mut self, hash: u32) -> &mut Buckets {
        match &mut self.old {
            Some((old, boundary)) if old.home(hash) >= *boundary => old,
            _ => &mut self.buckets,
        }
    }

    /// Asks for the cache line that a look-up of `hash` begins at.
    #[inline]
    pub(super) fn prefetch(&self, hash: u32) {
        let buckets = self.buckets_of(hash);
        prefetch(buckets.region.as_slice(), buckets.home(hash));
    }

    /// The slot with this hash that satisfies `is_it`.
    #[inline(always)]
    pub(super) fn find(&self, hash: u32, is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        self.buckets_of(hash).find(hash, is_it)
    }

    /// Adds a slot, which must not be in the index.
    ///
    /// # Errors
    /// The kernel's word when the index has to grow and cannot.
    #[inline]
    pub(super) fn insert(&mut self, hash: u32, slot: u32) -> io::Result<()> {
        if self.old.is_some() {
            self.move_on(MOVED_PER_INSERTION);
        } else if self.live * 4 >= self.buckets.homes() * CELLS * 3 {
            self.grow()?;
        }
        while !self.buckets_of_mut(hash).put((hash, slot + 1)) {
            self.move_on(usize::MAX);
            self.grow()?;
        }
        self.live += 1;
        Ok(())
    }

    /// Takes a slot out.
    #[inline]
    pub(super) fn remove(&mut self, hash: u32, slot: u32) {
        let was_there = self.buckets_of_mut(hash).remove(hash, slot);
        debug_assert!(was_there);
        self.live -= usize::from(was_there);
    }

    /// Empties the index; its size goes back to the smallest.
    pub(super) fn clear(&mut self) {
        match Index::new() {
            Ok(empty) => *self = empty,
            // Not even memory for the smallest one: the one there is serves, emptied in place.
            Err(_) => {
                self.old = None;
                self.live = 0;
                self.buckets.region.as_mut_slice().fill(Bucket::zeroed());
            }
        }
    }

    /// Octets of buckets, resident or about to be.
    pub(super) fn octets(&self) -> usize {
        let octets = |buckets: &Buckets| (buckets.homes() + TAIL) * size_of::<Bucket>();
        octets(&self.buckets) + self.old.as_ref().map_or(0, |(old, _)| octets(old))
    }

    #[cold]
    fn grow(&mut self) -> io::Result<()> {
        if self.buckets.shift == 1 {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        let bigger = Buckets::new(self.buckets.homes() * 2)?;
        self.old = Some((std::mem::replace(&mut self.buckets, bigger), 0));
        Ok(())
    }

    /// Moves all that has its home in the next `count` old buckets.
    #[cold]
    fn move_on(&mut self, count: usize) {
        let Some((old, boundary)) = &mut self.old else { return };
        let enough = boundary.saturating_add(count).min(old.homes());
        while *boundary < enough {
            let home = *boundary;
            let mut at = home;
            // What has its home here is in this bucket, and behind it as long as buckets are full.
            loop {
                let bucket = &old.region.as_slice()[at];
                let length = bucket.length();
                let last = (0..length).rev().find(|&cell| old.home(bucket.hashes[cell]) == home);
                match last {
                    Some(cell) => {
                        let moved = old.take(at, cell);
                        // The bigger index keeps the order and is at most half as full: its tail has room.
                        let has_room = self.buckets.put(moved);
                        debug_assert!(has_room);
                    }
                    None if length == CELLS && at + 1 < old.region.as_slice().len() => at += 1,
                    None => break,
                }
            }
            *boundary += 1;
        }
        if *boundary >= old.homes() {
            self.old = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    proptest! {
        #[test]
        fn it_holds_what_a_hash_map_holds(seed: u64, operations in 1..6000usize, spread in 8..32u32) {
            let mut index = Index::new().unwrap();
            let mut twin: HashMap<u32, u32> = HashMap::new();
            let mut free: Vec<u32> = Vec::new();
            let mut state = seed | 1;
            for _ in 0..operations {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                // Few hash bits make long runs of equal homes and equal hashes.
                let hash = ((state >> 33) as u32) << (32 - spread);
                if state >> 62 == 0 && !twin.is_empty() {
                    let slot = *twin.keys().nth(state as usize % twin.len()).unwrap();
                    index.remove(twin.remove(&slot).unwrap(), slot);
                    free.push(slot);
                } else {
                    let slot = free.pop().unwrap_or(twin.len() as u32);
                    index.insert(hash, slot).unwrap();
                    twin.insert(slot, hash);
                }
                prop_assert_eq!(index.live, twin.len());
            }
            for (&slot, &hash) in &twin {
                prop_assert_eq!(index.find(hash, |s| s == slot), Some(slot));
                prop_assert_eq!(index.find(hash ^ 1, |s| s == slot), None);
            }
        }
    }
}
