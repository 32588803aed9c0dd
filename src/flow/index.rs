//! The index of a Flow table: 32 bits of hash in, the slot of the Flow's entry out.
//!
//! Buckets of eight, each one cache line, whose hashes are compared all at once: a look-up is one line and no loop that
//! the processor has to guess the length of. A hash's home bucket is its upper bits; what does not fit goes to the next
//! bucket with room, and a look-up goes on only from a bucket that something had to go on from. So a cell can be moved
//! without touching the entry it names, and a bigger index keeps the order of the smaller one: it grows in place, from
//! the last bucket down, a few buckets at each insertion, and never stalls. Removal empties one cell of one line; closing
//! gaps from the buckets behind was a second line, waited for, in every fourth removal.

use std::io;

use bytemuck::{Pod, Zeroable};

use super::memory::{Pages, Region, prefetch, which_equal};
use super::upcoming::Growth;

/// Cells of a bucket.
const CELLS: usize = 8;
/// Buckets behind the last home, so that nothing need wrap around.
const TAIL: usize = 64;
/// Old buckets that move at each insertion while the index grows.
const MOVED_PER_INSERTION: usize = 4;
const SMALLEST: usize = 128;
/// Buckets in the smallest page there is.
const BUCKETS_PER_PAGE: usize = 4096 / size_of::<Bucket>();
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
    /// Reserved for as many buckets as there may ever be.
    region: Region<Bucket>,
    shift: u32,
    /// While the index grows: the homes of the index half as big that have not moved yet are those before this one.
    unmoved: usize,
    live: usize,
}

impl Index {
    /// An index for `most` slots.
    ///
    /// # Errors
    /// The kernel's word when it does not give the address space.
    pub(super) fn new(most: usize) -> io::Result<Index> {
        // Twice what is needed when it is never more than half full and sizes double; once more for hashes that crowd.
        let homes = (most.min(MOST_SLOTS) / CELLS + 1).next_power_of_two() * 4;
        let region = Region::reserve(homes.max(SMALLEST) + TAIL)?;
        Ok(Index { region, shift: 32 - SMALLEST.trailing_zeros(), unmoved: 0, live: 0 })
    }

    #[inline]
    fn homes(&self) -> usize {
        1 << (32 - self.shift)
    }

    /// The home bucket of a hash as things stand.
    #[inline(always)]
    fn home(&self, hash: u32) -> usize {
        let home = (hash >> self.shift) as usize;
        // First whether it grows at all, which can be guessed.
        if self.unmoved != 0 && home / 2 < self.unmoved { home / 2 } else { home }
    }

    /// Asks for the cache line that a look-up of `hash` begins at.
    #[inline(always)]
    pub(super) fn prefetch(&self, hash: u32) {
        prefetch(self.region.as_slice(), self.home(hash));
    }

    /// The slot with this hash that satisfies `is_it`.
    #[inline(always)]
    pub(super) fn find(&self, hash: u32, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
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

    /// Puts a cell into the first bucket from its home on that has room; false when the tail is full: that of the index half
    /// as big for what has its home there still, so that what moves on always finds room in the bigger one.
    #[inline]
    fn put(&mut self, hash: u32, slot: u32) -> bool {
        let home = self.home(hash);
        let homes = if home < self.unmoved { self.homes() / 2 } else { self.homes() };
        let end = homes + TAIL;
        for bucket in &mut self.region.as_mut_slice()[home..end] {
            if bucket.put(hash, slot) {
                return true;
            }
            bucket.slots[CELLS - 1] |= GOES_ON;
        }
        false
    }

    /// Adds a slot, which must not be in the index.
    ///
    /// # Errors
    /// When the index has to grow and cannot: too many hashes crowd in one place.
    #[inline]
    pub(super) fn insert(&mut self, hash: u32, slot: u32) -> io::Result<()> {
        if self.unmoved != 0 {
            self.move_on(MOVED_PER_INSERTION);
        } else if self.live * 2 >= self.homes() * CELLS {
            self.grow()?;
        }
        while !self.put(hash, slot + 1) {
            match self.unmoved {
                0 => self.grow()?,
                _ => self.move_on(usize::MAX),
            }
        }
        self.live += 1;
        Ok(())
    }

    /// Takes a slot out.
    #[inline]
    pub(super) fn remove(&mut self, hash: u32, slot: u32) {
        let was_there = self.take_out(hash, slot + 1);
        debug_assert!(was_there);
        self.live -= usize::from(was_there);
    }

    /// Removes the cell of this hash and slot + 1.
    #[inline]
    fn take_out(&mut self, hash: u32, slot: u32) -> bool {
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

    /// Cells whose home is bucket `home` were removed from bucket `from`, behind it, or from there and between. Look-ups need no
    /// longer go on from the buckets between that nothing else had to go on from.
    #[cold]
    fn came_back(&mut self, home: usize, from: usize) {
        for at in (home..from).rev() {
            let went_on = |bucket: &Bucket| {
                (0..CELLS).any(|cell| bucket.slot(cell) != 0 && self.home(bucket.hashes[cell]) <= at)
            };
            let mut is_led_past = true;
            for next in &self.region.as_slice()[at + 1..] {
                if went_on(next) {
                    // And so it did from the buckets before, if its home lies there; else they are found out one by one.
                    break;
                }
                if !next.goes_on() {
                    is_led_past = false;
                    break;
                }
            }
            if !is_led_past {
                self.region.as_mut_slice()[at].slots[CELLS - 1] &= !GOES_ON;
            }
        }
    }

    /// Empties the index; its size goes back to the smallest.
    pub(super) fn clear(&mut self) {
        self.region.clear(self.homes() + TAIL);
        self.shift = 32 - SMALLEST.trailing_zeros();
        self.unmoved = 0;
        self.live = 0;
    }

    /// While it grows: the octets that it grows into, from the last down to the first, and how many have still to be reached.
    pub(super) fn growth(&self) -> Option<Growth> {
        let octets = |buckets: usize| buckets * size_of::<Bucket>();
        (self.unmoved > 0)
            .then(|| Growth { from: octets(self.homes() / 2 + TAIL), to: octets(2 * self.unmoved) })
    }

    /// The pages it is in.
    pub(super) fn pages(&self) -> Pages {
        self.region.pages()
    }

    /// Octets of buckets, resident or about to be.
    pub(super) fn octets(&self) -> usize {
        (self.homes() + TAIL) * size_of::<Bucket>()
    }

    #[cold]
    fn grow(&mut self) -> io::Result<()> {
        if self.homes() * 2 + TAIL > self.region.as_slice().len() {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        self.unmoved = self.homes();
        self.shift -= 1;
        Ok(())
    }

    /// Moves all that has its home in the last `count` buckets that have not moved.
    #[inline(never)]
    fn move_on(&mut self, count: usize) {
        for _ in 0..count.min(self.unmoved) {
            self.unmoved -= 1;
            self.touch_new_homes();
            if !self.move_into_empty(self.unmoved) {
                self.move_any(self.unmoved);
            }
        }
    }

    /// Writes to fresh memory before it is read, where the next bucket to move has its new homes: a page that is read first is
    /// mapped twice, and the second time all threads wait until each has forgotten the first.
    #[inline(always)]
    fn touch_new_homes(&mut self) {
        let last = 2 * self.unmoved + 1;
        if (last + 1).is_multiple_of(BUCKETS_PER_PAGE) && last >= self.homes() / 2 + TAIL {
            self.region.as_mut_slice()[last] = Bucket::zeroed();
        }
    }

    /// Moves what has its home in the old bucket `home` into the two buckets that are its new homes; does nothing and says so if
    /// those are not empty or something else had to go on from here or to here.
    ///
    /// What nearly every bucket is, and cells put one by one would each wait for the one before: the search for an empty
    /// cell is a wide load over a narrow store.
    #[inline(always)]
    fn move_into_empty(&mut self, home: usize) -> bool {
        let shift = self.shift;
        let Some((old, new)) = self.region.as_mut_slice().split_at_mut_checked(home + 1) else {
            return false;
        };
        // The new homes are 2 * home and the one after it.
        let (Some(old), Some(new)) = (old.last_mut(), new.get_mut(home.wrapping_sub(1)..home + 1)) else {
            return false;
        };
        let foreign = |cell: usize| old.slots[cell] != 0 && (old.hashes[cell] >> 1 >> shift) as usize != home;
        let simple = !old.goes_on() & !(0..CELLS).fold(false, |any, cell| any | foreign(cell));
        if !simple || new.iter().any(|bucket| bucket.slots != [0; CELLS]) {
            return false;
        }
        let mut filled = [0; 2];
        for cell in 0..CELLS {
            let (hash, slot) = (old.hashes[cell], old.slots[cell]);
            let side = (hash >> shift) as usize & 1;
            // An empty cell is written, too, and then over it.
            let at = filled[side] % CELLS;
            (new[side].hashes[at], new[side].slots[at]) = (hash, slot);
            filled[side] += usize::from(slot != 0);
        }
        old.slots = [0; CELLS];
        true
    }

    /// Moves what has its home in the old bucket `home`, wherever that is.
    fn move_any(&mut self, home: usize) {
        // It is in this bucket, and behind it as far as look-ups go on.
        let mut at = home;
        loop {
            let bucket = self.region.as_slice()[at];
            for cell in 0..CELLS {
                let (hash, slot) = (bucket.hashes[cell], bucket.slot(cell));
                // What was put behind on this way comes by once more, and is put where it is or nearer its home.
                if slot != 0 && (hash >> 1 >> self.shift) as usize == home {
                    self.region.as_mut_slice()[at].empty(cell);
                    // What found room from here to the old tail finds it among twice the homes and as long a tail.
                    let has_room = self.put(hash, slot);
                    debug_assert!(has_room);
                }
            }
            if !bucket.goes_on() {
                break;
            }
            at += 1;
        }
        if at > home {
            self.came_back(home, at);
        }
    }

    /// The slot with this hash that satisfies `is_it`; if there is none, adds `slot`, which is then in the index as after
    /// [`Index::insert`]. One walk, where a look-up and an insertion are two, save where something had to go on from the home
    /// bucket or has to move.
    ///
    /// # Errors
    /// As [`Index::insert`].
    #[inline(always)]
    pub(super) fn find_or_insert(
        &mut self,
        hash: u32,
        slot: u32,
        mut is_it: impl FnMut(u32) -> bool,
    ) -> io::Result<Option<u32>> {
        if self.unmoved == 0 && self.live * 2 < self.homes() * CELLS {
            let home = (hash >> self.shift) as usize;
            let bucket = &mut self.region.as_mut_slice()[home];
            let mut bits = bucket.matches(hash);
            while bits != 0 {
                let found = bucket.slot(bits.trailing_zeros() as usize);
                if found != 0 && is_it(found - 1) {
                    return Ok(Some(found - 1));
                }
                bits &= bits - 1;
            }
            let empty = which_equal(&bucket.slots, 0);
            if empty != 0 && !bucket.goes_on() {
                let cell = empty.trailing_zeros() as usize % CELLS;
                bucket.hashes[cell] = hash;
                bucket.slots[cell] = slot + 1;
                self.live += 1;
                return Ok(None);
            }
        }
        let found = self.find(hash, is_it);
        if found.is_none() {
            self.insert_apart(hash, slot)?;
        }
        Ok(found)
    }

    /// [`Index::insert`], out of the way.
    #[inline(never)]
    fn insert_apart(&mut self, hash: u32, slot: u32) -> io::Result<()> {
        self.insert(hash, slot)
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
            let mut index = Index::new(10_000).unwrap();
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
                    if state >> 63 == 0 {
                        index.insert(hash, slot).unwrap();
                    } else {
                        let found = index.find_or_insert(hash, slot, |s| s == slot);
                        prop_assert_eq!(found.unwrap(), None);
                    }
                    let found = index.find_or_insert(hash, slot, |s| s == slot);
                    prop_assert_eq!(found.unwrap(), Some(slot));
                    twin.insert(slot, hash);
                }
                prop_assert_eq!(index.live, twin.len());
            }
            for (&slot, &hash) in &twin {
                prop_assert_eq!(index.find(hash, |s| s == slot), Some(slot));
                prop_assert_eq!(index.find(hash ^ 1, |s| s == slot), None);
            }
            // And loses all, perhaps in the midst of growing.
            for (&slot, &hash) in &twin {
                index.remove(hash, slot);
                prop_assert_eq!(index.find(hash, |s| s == slot), None);
            }
            prop_assert_eq!(index.live, 0);
            let left = index.region.as_slice().iter().filter(|bucket| (0..CELLS).any(|cell| bucket.slot(cell) != 0));
            prop_assert_eq!(left.count(), 0);
        }
    }

    fn goes_on(index: &Index) -> usize {
        index.region.as_slice().iter().filter(|bucket| bucket.goes_on()).count()
    }

    #[test]
    fn growing_leaves_no_bucket_that_goes_on_for_nothing() {
        let hash =
            |slot: u32| slot.wrapping_mul(0x9e37_79b9) ^ slot.wrapping_mul(0x85eb_ca6b).rotate_left(13);
        let mut index = Index::new(200_000).unwrap();
        let mut most_at_growth = 0;
        for slot in 0..150_000 {
            let homes = index.homes();
            index.insert(hash(slot), slot).unwrap();
            if index.homes() > homes {
                most_at_growth = most_at_growth.max(goes_on(&index));
            }
        }
        assert_eq!(index.unmoved, 0, "the last growth has ended");
        let after = goes_on(&index);
        assert!(most_at_growth > 100 && after < most_at_growth / 4, "{after} of {most_at_growth}");
        for slot in 0..150_000 {
            assert_eq!(index.find(hash(slot), |s| s == slot), Some(slot));
            index.remove(hash(slot), slot);
        }
        assert_eq!((index.live, goes_on(&index)), (0, 0));
        assert!(index.region.as_slice().iter().all(|bucket| bucket.slots == [0; CELLS]));
    }

    #[test]
    fn what_crowds_at_the_last_homes_is_not_lost_when_the_index_grows() {
        for (most, hash) in [(1000, u32::MAX), (1000, u32::MAX >> 1), (5000, u32::MAX - 1)] {
            let mut index = Index::new(most).unwrap();
            let fitted = (0..600).take_while(|&slot| index.insert(hash, slot).is_ok()).count() as u32;
            assert!(fitted >= 520, "{fitted}");
            for slot in 0..fitted {
                assert_eq!(index.find(hash, |s| s == slot), Some(slot), "{slot} of {fitted}");
            }
            // Others make it grow on, past those that crowd.
            let others: Vec<u32> =
                (0..most as u32).map(|number| number.wrapping_mul(0x9E37_79B9) >> 1).collect();
            for (&other, slot) in others.iter().zip(fitted..) {
                index.insert(other, slot).unwrap();
            }
            for slot in 0..fitted {
                assert_eq!(index.find(hash, |s| s == slot), Some(slot), "{slot} of {fitted}, among others");
                index.remove(hash, slot);
            }
            for (&other, slot) in others.iter().zip(fitted..) {
                assert_eq!(index.find(other, |s| s == slot), Some(slot));
            }
            assert_eq!(index.live, others.len());
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_and_what_is_there_stays() {
        let mut index = Index::new(100).unwrap();
        let fitted = (0..2000).take_while(|&slot| index.insert(7, slot).is_ok()).count() as u32;
        assert!((500..2000).contains(&fitted), "{fitted}");
        for slot in 0..fitted {
            assert_eq!(index.find(7, |s| s == slot), Some(slot));
            index.remove(7, slot);
        }
        assert_eq!((index.live, index.find(7, |_| true)), (0, None));
    }
}
