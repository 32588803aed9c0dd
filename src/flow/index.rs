//! The index of a Flow table: 32 bits of hash in, the slot of the Flow's entry out.
//!
//! Buckets of eight, each one cache line, whose hashes are compared all at once: a look-up is one line and no loop that
//! the processor has to guess the length of. A hash's home bucket is its upper bits; what does not fit goes to the next
//! bucket with room, and a look-up goes on only from a bucket that something had to go on from. So a cell can be moved
//! without touching the entry it names, and a bigger index keeps the order of the smaller one: growing moves a few buckets at
//! each insertion and never stalls. Removal empties one cell of one line; closing gaps from the buckets behind was a
//! second line, waited for, in every fourth removal.

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
/// In a bucket's last cell: what has its home here or before may stand in a later bucket.
const GOES_ON: u32 = 1 << 31;
/// Slots are lower than this, so that [`GOES_ON`] has a bit of its own.
pub(super) const MOST_SLOTS: usize = GOES_ON as usize - 1;

/// One cache line.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Bucket {
    hashes: [u32; CELLS],
    /// Slot + 1; 0 in an empty cell. The last one has [`GOES_ON`] besides.
    slots: [u32; CELLS],
}

impl Bucket {
    /// A bit for each cell with this hash; an empty cell may be among them.
    #[inline(always)]
    fn matches(&self, hash: u32) -> u32 {
        which_equal(&self.hashes, hash)
    }

    /// Slot + 1 of a cell; 0 if it is empty.
    #[inline(always)]
    fn slot(&self, cell: usize) -> u32 {
        self.slots[cell % CELLS] & !GOES_ON
    }

    #[inline(always)]
    fn goes_on(&self) -> bool {
        self.slots[CELLS - 1] & GOES_ON != 0
    }

    /// Puts a hash and slot + 1 into the first empty cell; false if there is none.
    #[inline(always)]
    fn put(&mut self, hash: u32, slot: u32) -> bool {
        let last_is_empty = u32::from(self.slots[CELLS - 1] == GOES_ON) << (CELLS - 1);
        let empty = which_equal(&self.slots, 0) | last_is_empty;
        if empty == 0 {
            return false;
        }
        let cell = empty.trailing_zeros() as usize % CELLS;
        self.hashes[cell] = hash;
        self.slots[cell] |= slot;
        true
    }

    #[inline(always)]
    fn empty(&mut self, cell: usize) {
        self.slots[cell % CELLS] &= GOES_ON;
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
                let slot = bucket.slot(bits.trailing_zeros() as usize);
                if slot != 0 && is_it(slot - 1) {
                    return Some(slot - 1);
                }
                bits &= bits - 1;
            }
            if !bucket.goes_on() {
                return None;
            }
        }
        None
    }

    /// Puts a cell into the first bucket from its home on that has room; false when the tail is full.
    #[inline]
    fn put(&mut self, hash: u32, slot: u32) -> bool {
        let home = self.home(hash);
        for bucket in &mut self.region.as_mut_slice()[home..] {
            if bucket.put(hash, slot) {
                return true;
            }
            bucket.slots[CELLS - 1] |= GOES_ON;
        }
        false
    }

    /// Removes the cell of this hash and slot + 1.
    #[inline]
    fn remove(&mut self, hash: u32, slot: u32) -> bool {
        let home = self.home(hash);
        for (beyond, bucket) in self.region.as_mut_slice()[home..].iter_mut().enumerate() {
            let mut bits = bucket.matches(hash);
            while bits != 0 {
                let cell = bits.trailing_zeros() as usize;
                if bucket.slot(cell) == slot {
                    bucket.empty(cell);
                    if beyond > 0 {
                        self.came_back(home, home + beyond);
                    }
                    return true;
                }
                bits &= bits - 1;
            }
            if !bucket.goes_on() {
                return false;
            }
        }
        false
    }

    /// A cell whose home is bucket `home` was removed from bucket `from`, behind it. Look-ups need no longer go on from the
    /// buckets between that nothing else had to go on from.
    #[cold]
    fn came_back(&mut self, home: usize, from: usize) {
        for at in (home..from).rev() {
            let shift = self.shift;
            let buckets = self.region.as_mut_slice();
            let went_on = |bucket: &Bucket| {
                (0..CELLS).any(|cell| bucket.slot(cell) != 0 && (bucket.hashes[cell] >> shift) as usize <= at)
            };
            for next in at + 1..buckets.len() {
                if went_on(&buckets[next]) {
                    // And so it did from the buckets before, if its home lies there; else they are found out one by one.
                    break;
                }
                if !buckets[next].goes_on() {
                    buckets[at].slots[CELLS - 1] &= !GOES_ON;
                    break;
                }
            }
        }
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

    #[inline(always)]
    fn buckets_of_mut(&mut self, hash: u32) -> &mut Buckets {
        match &mut self.old {
            Some((old, boundary)) if old.home(hash) >= *boundary => old,
            _ => &mut self.buckets,
        }
    }

    /// Asks for the cache line that a look-up of `hash` begins at.
    #[inline(always)]
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
        } else if self.live * 2 >= self.buckets.homes() * CELLS {
            self.grow()?;
        }
        while !self.buckets_of_mut(hash).put(hash, slot + 1) {
            match self.old {
                Some(_) => self.move_on(usize::MAX),
                None => self.grow()?,
            }
        }
        self.live += 1;
        Ok(())
    }

    /// Takes a slot out.
    #[inline]
    pub(super) fn remove(&mut self, hash: u32, slot: u32) {
        let was_there = self.buckets_of_mut(hash).remove(hash, slot + 1);
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
    #[inline(never)]
    fn move_on(&mut self, count: usize) {
        let Some((old, boundary)) = &mut self.old else { return };
        let enough = boundary.saturating_add(count).min(old.homes());
        let shift = old.shift;
        for home in *boundary..enough {
            // What has its home here is in this bucket, and behind it as far as look-ups go on. What moves is not taken out: no
            // look-up comes here for it any more, but those that go on from bucket to bucket must still be led past.
            for bucket in &old.region.as_slice()[home..] {
                for cell in 0..CELLS {
                    let (hash, slot) = (bucket.hashes[cell], bucket.slot(cell));
                    if slot != 0 && (hash >> shift) as usize == home {
                        // The bigger index keeps the order and is at most half as full: its tail has room.
                        let has_room = self.buckets.put(hash, slot);
                        debug_assert!(has_room);
                    }
                }
                if !bucket.goes_on() {
                    break;
                }
            }
        }
        *boundary = enough;
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
