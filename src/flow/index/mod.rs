//! The index of a Flow table: 32 bits of hash in, the slot of the Flow's entry out.
//!
//! Buckets of ten, each one cache line, whose tags are compared all at once: a look-up is one line and no loop that
//! the processor has to guess the length of. A tag is the lower half of a hash, a hash's home bucket is its upper bits; the
//! whole hash of each slot stands aside, for what is rarer than looking up. What does not fit goes to the next bucket with
//! room, and a look-up goes on only from a bucket that something had to go on from. So a cell can be moved
//! without touching the entry it names, and a bigger index keeps the order of the smaller one: it grows in place, from
//! the last bucket down, a few buckets at each insertion, and never stalls (see `growing`). Removal empties one cell of one
//! line; closing gaps from the buckets behind was a second line, waited for, in every fourth removal.

mod bucket;
mod growing;

use std::io;

use self::bucket::{Bucket, CELLS, GOES_ON};
use super::memory::{FRESH_AHEAD, Pages, Region};
use super::slot::{MOST_LINES, SECOND, line};
use crate::prefetch::{prefetch, prefetch_at, prefetch_behind_to_write};

/// The index grows when it holds this many for each home: then 4 % of the buckets overflow. With seven it were 10 %, and
/// moving on what overflows is what growing costs.
const MOST_PER_HOME: usize = 6;
/// Buckets behind the last home, so that nothing need wrap around.
const TAIL: usize = 64;
const SMALLEST: usize = 128;
const SMALLEST_SHIFT: u32 = 32 - SMALLEST.trailing_zeros();

/// Where the hash of a slot stands, there being so many lines.
#[inline(always)]
fn hash_at(slot: u32, lines: usize) -> usize {
    line(slot) + if slot & SECOND == 0 { 0 } else { lines }
}

/// Where the homes are, to ask for them while the index itself is in use. Nothing is read by it.
#[derive(Clone, Copy)]
pub(super) struct Homes {
    buckets: *const Bucket,
    shift: u32,
}

impl Homes {
    /// Asks for the cache line that a look-up of `hash` begins at.
    #[inline(always)]
    pub(super) fn prefetch(self, hash: u32) {
        prefetch_at(self.buckets.wrapping_add((hash >> self.shift) as usize));
    }
}

pub(super) struct Index {
    /// Reserved for as many buckets as there may ever be.
    region: Region<Bucket>,
    /// Of each slot: those of the first slots by line, then those of the second ones.
    hashes: Region<u32>,
    lines: usize,
    shift: u32,
    /// While the index grows: the homes of the index half as big that have not moved yet are those before this one.
    unmoved: usize,
    live: usize,
    /// The most slots that are in it at once.
    most: usize,
    /// While it holds from one slot to this many, one more is nothing special: the index does not grow, nor need it, and is not
    /// full.
    most_plain: usize,
}

impl Index {
    /// An index for as many as `most` live slots, at least 1, in so many lines.
    ///
    /// # Errors
    /// The kernel's word when it does not give the address space.
    pub(super) fn new(most: usize, lines: usize) -> io::Result<Index> {
        let (region, hashes) = (Index::buckets(most)?, Region::reserve(2 * lines)?);
        let mut index =
            Index { region, hashes, lines, shift: SMALLEST_SHIFT, unmoved: 0, live: 0, most, most_plain: 0 };
        index.has_grown();
        Ok(index)
    }

    fn buckets(most: usize) -> io::Result<Region<Bucket>> {
        // Sizes double; once more for hashes that crowd.
        let homes = (most.min(MOST_LINES) / MOST_PER_HOME + 1).next_power_of_two() * 2;
        let region = Region::reserve(homes.max(SMALLEST) + TAIL)?;
        region.use_huge_pages(0, true);
        Ok(region)
    }

    #[inline]
    fn homes(&self) -> usize {
        1 << (32 - self.shift)
    }

    /// The home bucket of a hash as things stand.
    #[inline(always)]
    fn home(&self, hash: u32) -> usize {
        // First whether it grows at all, which can be guessed.
        if self.unmoved == 0 { (hash >> self.shift) as usize } else { self.home_while_it_grows(hash) }
    }

    #[cold]
    #[inline(never)]
    fn home_while_it_grows(&self, hash: u32) -> usize {
        let home = (hash >> self.shift) as usize;
        if home / 2 < self.unmoved { home / 2 } else { home }
    }

    /// Where to ask for the homes of some hashes, one by one. While the index grows this asks for all of them itself, and where it
    /// points to is of no use and does no harm: to tell the homes apart each time would cost every packet.
    #[inline(always)]
    pub(super) fn homes_of(&self, hashes: impl Iterator<Item = u32>) -> Homes {
        let buckets = self.region.as_slice().as_ptr();
        if self.unmoved == 0 {
            return Homes { buckets, shift: self.shift };
        }
        hashes.for_each(|hash| prefetch(self.region.as_slice(), self.home_while_it_grows(hash)));
        // Nothing but the first two buckets.
        Homes { buckets, shift: u32::BITS - 1 }
    }

    /// Asks for the hash of `slot`.
    #[inline(always)]
    pub(super) fn prefetch_hash(&self, slot: u32) {
        prefetch(self.hashes.as_slice(), self.hash_at(slot));
    }

    /// Asks for the bucket that `slot` is probably in; waits for its hash.
    #[inline(always)]
    pub(super) fn prefetch_bucket(&self, slot: u32) {
        prefetch(self.region.as_slice(), self.home(self.hash(slot)));
    }

    #[inline(always)]
    fn hash(&self, slot: u32) -> u32 {
        self.hashes.as_slice()[self.hash_at(slot)]
    }

    #[inline(always)]
    fn set_hash(&mut self, slot: u32, hash: u32) {
        let at = self.hash_at(slot);
        self.hashes.as_mut_slice()[at] = hash;
    }

    /// Where the hash of a slot stands.
    #[inline(always)]
    fn hash_at(&self, slot: u32) -> usize {
        hash_at(slot, self.lines)
    }

    /// A slot with this hash or, seldom, one like it.
    #[inline(always)]
    pub(super) fn candidate(&self, hash: u32) -> Option<u32> {
        let home = self.home(hash);
        let bucket = self.region.as_slice().get(home)?;
        let bits = bucket.matches(hash);
        if bits != 0 {
            return Some(bucket.slot(bits.trailing_zeros() as usize));
        }
        if bucket.goes_on() { self.find_from(home + 1, hash, |_| true) } else { None }
    }

    /// A slot with this hash or, seldom, one like it that satisfies `is_it`.
    #[inline(always)]
    pub(super) fn find(&self, hash: u32, is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        self.find_from(self.home(hash), hash, is_it)
    }

    #[inline(always)]
    fn find_from(&self, bucket: usize, hash: u32, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        for bucket in &self.region.as_slice()[bucket..] {
            let mut bits = bucket.matches(hash);
            while bits != 0 {
                let slot = bucket.slot(bits.trailing_zeros() as usize);
                if is_it(slot) {
                    return Some(slot);
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
            bucket.state |= GOES_ON;
        }
        false
    }

    /// Adds a slot, which must not be in the index.
    ///
    /// # Errors
    /// When the index has to grow and cannot: too many hashes crowd in one place.
    #[inline]
    pub(super) fn insert(&mut self, hash: u32, slot: u32) -> io::Result<()> {
        self.set_hash(slot, hash);
        if self.unmoved == 0 && self.live >= self.homes() * MOST_PER_HOME {
            self.grow()?;
        }
        self.go_on_growing();
        while !self.put(hash, slot) {
            if self.unmoved != 0 {
                self.move_on(usize::MAX);
            } else if let Err(refused) = self.grow() {
                self.came_back(self.home(hash), self.homes() + TAIL);
                return Err(refused);
            }
        }
        self.live += 1;
        Ok(())
    }

    /// [`Index::insert`]s a slot if it is not the first, the index is neither full nor growing nor about to, and there is no
    /// more to it than to fill a cell of the home bucket, where no other has this hash's tag; else does nothing and says so.
    #[inline(always)]
    pub(super) fn insert_plainly(&mut self, hash: u32, slot: u32) -> bool {
        if self.live.wrapping_sub(1) >= self.most_plain {
            return false;
        }
        let home = (hash >> self.shift) as usize;
        let Some(bucket) = self.region.as_mut_slice().get_mut(home) else { return false };
        if bucket.matches(hash) != 0 || bucket.goes_on() || !bucket.put(hash, slot) {
            return false;
        }
        self.set_hash(slot, hash);
        self.live += 1;
        true
    }

    /// The slot with this hash that satisfies `is_it`; if there is none, adds `slot`, which is then in the index as after
    /// [`Index::insert`]. One walk, where a look-up and an insertion are two, save where something had to go on from the home
    /// bucket or the index begins to grow.
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
        if self.live < self.homes() * MOST_PER_HOME {
            self.go_on_growing();
            let home = self.home(hash);
            let bucket = &mut self.region.as_mut_slice()[home];
            let mut bits = bucket.matches(hash);
            while bits != 0 {
                let found = bucket.slot(bits.trailing_zeros() as usize);
                if is_it(found) {
                    return Ok(Some(found));
                }
                bits &= bits - 1;
            }
            if !bucket.goes_on() && bucket.put(hash, slot) {
                self.set_hash(slot, hash);
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

    /// Asks for the place of the hash of a slot that will be used for the first time some slots after this one.
    #[inline(always)]
    pub(super) fn ask_for_fresh(&mut self, slot: u32) {
        let at = self.hash_at(slot);
        prefetch_behind_to_write::<_, FRESH_AHEAD>(&mut self.hashes.as_mut_slice()[at]);
    }

    /// Slots in it.
    #[inline]
    pub(super) fn live(&self) -> usize {
        self.live
    }

    /// Takes a slot out.
    #[inline]
    pub(super) fn remove(&mut self, slot: u32) {
        let was_there = self.take_out(self.hash(slot), slot);
        debug_assert!(was_there);
        self.live -= usize::from(was_there);
    }

    /// Puts `new` in the place of `slot`, which is in the index.
    pub(super) fn replace(&mut self, slot: u32, new: u32) {
        let hash = self.hash(slot);
        let Some((_, bucket, cell)) = self.cell_of(self.home(hash), hash, slot) else {
            debug_assert!(false, "slot {slot} is not in the index");
            return;
        };
        bucket.slots[cell] = new;
        self.set_hash(new, hash);
    }

    /// The cell of this hash and slot: how far its bucket is behind `home`, the hash's, the bucket, and the cell in it.
    #[inline(always)]
    fn cell_of(&mut self, home: usize, hash: u32, slot: u32) -> Option<(usize, &mut Bucket, usize)> {
        for (beyond, bucket) in self.region.as_mut_slice()[home..].iter_mut().enumerate() {
            let mut bits = bucket.matches(hash);
            while bits != 0 {
                let cell = bits.trailing_zeros() as usize;
                if bucket.slot(cell) == slot {
                    return Some((beyond, bucket, cell));
                }
                bits &= bits - 1;
            }
            if !bucket.goes_on() {
                break;
            }
        }
        None
    }

    /// Removes the cell of this hash and slot.
    #[inline]
    fn take_out(&mut self, hash: u32, slot: u32) -> bool {
        let home = self.home(hash);
        let Some((beyond, bucket, cell)) = self.cell_of(home, hash, slot) else { return false };
        bucket.empty(cell);
        if beyond > 0 {
            self.came_back(home, home + beyond);
        }
        true
    }

    /// Cells whose home is bucket `home` were removed from bucket `from`, behind it, or from there and between. Look-ups need no
    /// longer go on from the buckets between that nothing else had to go on from.
    #[cold]
    fn came_back(&mut self, home: usize, from: usize) {
        for at in (home..from).rev() {
            let went_on = |bucket: &Bucket| {
                (0..CELLS).any(|cell| bucket.is_used(cell) && self.home(self.hash(bucket.slots[cell])) <= at)
            };
            let mut is_led_past = false;
            for next in &self.region.as_slice()[at + 1..] {
                if went_on(next) {
                    is_led_past = true;
                    // And so it did from the buckets before, if its home lies there; else they are found out one by one.
                    break;
                }
                if !next.goes_on() {
                    break;
                }
            }
            if !is_led_past {
                self.region.as_mut_slice()[at].state &= !GOES_ON;
            }
        }
    }

    /// Empties the index; its size goes back to the smallest.
    pub(super) fn clear(&mut self) {
        self.region.clear(self.homes() + TAIL);
        self.shift = SMALLEST_SHIFT;
        self.unmoved = 0;
        self.live = 0;
        self.has_grown();
    }

    /// The pages it is in.
    pub(super) fn pages(&self) -> Pages {
        self.region.pages()
    }

    /// The hash of each slot: of the first ones by line, then of the second ones.
    pub(super) fn hashes(&self) -> &Region<u32> {
        &self.hashes
    }

    /// Octets of buckets, resident or about to be.
    pub(super) fn octets(&self) -> usize {
        (self.homes() + TAIL) * size_of::<Bucket>()
    }
}

#[cfg(test)]
mod tests;
