//! How an index grows: one that is as full as it may be in, one of twice the homes out, a few buckets at each insertion.
//!
//! A home is the upper bits of a hash, so what has its home in one old bucket has it in one of two new ones, at twice its
//! number and next to that. The last bucket moves first: so the new homes of each are nearly always empty when its turn comes.

use std::io;

use bytemuck::Zeroable;

use super::bucket::{Bucket, CELLS, GOES_ON};
use super::{Index, MOST_PER_HOME, TAIL, hash_at};
use crate::flow::memory::HUGE_PAGE;
use crate::flow::upcoming::Growth;
use crate::prefetch::prefetch;

/// Old buckets that move at each insertion while the index grows. Fewer would leave the others to fill up, and what overflows
/// is dear to move.
const MOVED_PER_INSERTION: usize = 4;
/// Old buckets between asking for one, and for its new homes, and moving it.
const MOVED_AHEAD: usize = 16;
/// Buckets in the smallest page there is.
const BUCKETS_PER_PAGE: usize = 4096 / size_of::<Bucket>();

impl Index {
    /// Where it grows to, as far as that has still to be reached; before it grows, when it will soon, the last part of it.
    pub(in crate::flow) fn growth(&self) -> Option<Growth> {
        let octets = |buckets: usize| buckets * size_of::<Bucket>();
        if self.unmoved > 0 {
            return Some(Growth { from: octets(self.homes() / 2 + TAIL), to: octets(2 * self.unmoved) });
        }
        let to = octets(2 * self.homes());
        let is_soon =
            self.live >= self.homes() * MOST_PER_HOME / 16 * 15 && to <= self.region.pages().octets();
        is_soon.then(|| Growth { from: octets(self.homes() + TAIL).max(to.saturating_sub(HUGE_PAGE)), to })
    }

    #[cold]
    pub(super) fn grow(&mut self) -> io::Result<()> {
        if self.homes() * 2 + TAIL > self.region.as_slice().len() {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        self.unmoved = self.homes();
        self.shift -= 1;
        self.most_plain = 0;
        Ok(())
    }

    /// It has the size that it is to have for now.
    pub(super) fn has_grown(&mut self) {
        self.most_plain = (self.homes() * MOST_PER_HOME).min(self.most) - 1;
    }

    /// Moves some buckets if it is growing.
    #[inline(always)]
    pub(super) fn go_on_growing(&mut self) {
        if self.unmoved != 0 {
            self.move_on(MOVED_PER_INSERTION);
        }
    }

    /// Moves all that has its home in the last `count` buckets that have not moved.
    #[inline(never)]
    pub(super) fn move_on(&mut self, count: usize) {
        for _ in 0..count.min(self.unmoved) {
            self.unmoved -= 1;
            self.touch_new_homes();
            self.ask_for_buckets();
            self.ask_for_hashes();
            if !self.move_into_empty(self.unmoved) {
                self.move_any(self.unmoved);
            }
        }
        if self.unmoved == 0 {
            self.has_grown();
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

    /// Asks for a bucket that moves some buckets later, and for its new homes.
    #[inline(always)]
    fn ask_for_buckets(&self) {
        let ahead = self.unmoved.saturating_sub(MOVED_AHEAD);
        for bucket in [ahead, 2 * ahead, 2 * ahead + 1] {
            prefetch(self.region.as_slice(), bucket);
        }
    }

    /// Asks for the hashes that it will take to move what overflows some buckets on: they are all over memory.
    #[inline(always)]
    fn ask_for_hashes(&self) {
        let from = self.unmoved.saturating_sub(2 * MOVED_PER_INSERTION);
        let Some([bucket, next]) = self.region.as_slice()[from..].first_chunk() else { return };
        if bucket.goes_on() {
            for &slot in bucket.slots.iter().chain(&next.slots) {
                self.prefetch_hash(slot);
            }
        }
    }

    /// Moves what has its home in the old bucket `home` into the two buckets that are its new homes; does nothing and says so if
    /// those are not empty or something else had to go on from here or to here.
    ///
    /// What nearly every bucket is, and cells put one by one would each wait for the one before.
    #[inline(always)]
    fn move_into_empty(&mut self, home: usize) -> bool {
        let (shift, hashes, lines) = (self.shift, self.hashes.as_slice(), self.lines);
        let Some((old, new)) = self.region.as_mut_slice().split_at_mut_checked(home + 1) else {
            return false;
        };
        // The new homes are 2 * home and the one after it.
        let (Some([before, old]), Some(new)) =
            (old.last_chunk_mut(), new.get_mut(home.wrapping_sub(1)..).and_then(<[_]>::first_chunk_mut))
        else {
            return false;
        };
        if (before.state | old.state) & GOES_ON != 0 || new[0].state | new[1].state != 0 {
            return false;
        }
        // Of a big index a tag still has the bit that says which half; asking for it where the hash is would be one more
        // line from memory a cell.
        let mut seconds = 0;
        for cell in (0..CELLS).rev() {
            // Of an empty cell, too, which has the slot it had before, or 0.
            let bits = if shift < u16::BITS {
                old.tags[cell].into()
            } else {
                hashes[hash_at(old.slots[cell], lines)]
            };
            seconds = seconds << 1 | bits >> shift & 1;
        }
        old.split_into(new, seconds);
        old.state = 0;
        true
    }

    /// Moves what has its home in the old bucket `home`, wherever that is.
    fn move_any(&mut self, home: usize) {
        // It is in this bucket, and behind it as far as look-ups go on.
        let mut at = home;
        loop {
            let bucket = self.region.as_slice()[at];
            for cell in (0..CELLS).filter(|&cell| bucket.is_used(cell)) {
                let slot = bucket.slots[cell];
                let hash = self.hash(slot);
                // What was put behind on this way comes by once more, and is put where it is or nearer its home.
                if (hash >> 1 >> self.shift) as usize == home {
                    self.region.as_mut_slice()[at].empty(cell);
                    // What found room from here to the old tail finds it among twice the homes and as long a tail.
                    let has_room = self.put(hash, slot);
                    debug_assert!(has_room);
                }
            }
            if !bucket.goes_on() || at + 1 == self.region.as_slice().len() {
                break;
            }
            at += 1;
        }
        if at > home {
            self.came_back(home, at);
        }
    }
}
