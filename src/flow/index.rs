//! The index of a Flow table: 32 bits of hash in, the slot of the Flow's entry out.
//!
//! Open addressing with linear probing over 8-octet cells (hash in the upper half, slot + 1 in the lower; 0 is an
//! empty cell). A cell's home is the upper bits of its hash, so a cell can be moved without touching the entry it
//! names, and a bigger index keeps the order of the smaller one: growing moves a few runs at each insertion
//! and never stalls. Removal shifts the run back, so there are no tombstones.

use std::io;

use super::memory::{Region, prefetch};

/// Cells behind the last home, so that runs need not wrap around.
const TAIL: usize = 1024;
/// Old cells that move at each insertion while the index grows.
const MOVED_PER_INSERTION: usize = 32;
const SMALLEST: usize = 1024;

pub(super) struct Index {
    cells: Cells,
    /// The smaller index that is being moved out of, and how far that has come: Flows whose home in it lies before
    /// the boundary have moved.
    old: Option<(Cells, usize)>,
    live: usize,
}

struct Cells {
    region: Region<u64>,
    shift: u32,
}

#[inline]
fn hash_of(cell: u64) -> u32 {
    (cell >> 32) as u32
}

#[inline]
fn slot_of(cell: u64) -> u32 {
    (cell as u32).wrapping_sub(1)
}

#[inline]
fn cell(hash: u32, slot: u32) -> u64 {
    u64::from(hash) << 32 | u64::from(slot + 1)
}

impl Cells {
    fn new(homes: usize) -> io::Result<Cells> {
        debug_assert!(homes.is_power_of_two());
        Ok(Cells { region: Region::reserve(homes + TAIL)?, shift: 32 - homes.trailing_zeros() })
    }

    #[inline]
    fn homes(&self) -> usize {
        1 << (32 - self.shift)
    }

    #[inline]
    fn home(&self, hash: u32) -> usize {
        (hash >> self.shift) as usize
    }

    /// The first slot in the run of `hash` that has this hash and satisfies `is_it`.
    #[inline]
    fn find(&self, hash: u32, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        for &found in &self.region.as_slice()[self.home(hash)..] {
            if found == 0 {
                return None;
            }
            if hash_of(found) == hash && is_it(slot_of(found)) {
                return Some(slot_of(found));
            }
        }
        None
    }

    /// Puts a cell into its run; false when the tail is full.
    #[inline]
    fn put(&mut self, new: u64) -> bool {
        let home = self.home(hash_of(new));
        match self.region.as_mut_slice()[home..].iter_mut().find(|at| **at == 0) {
            Some(at) => {
                *at = new;
                true
            }
            None => false,
        }
    }

    /// Removes the cell of this hash and slot, and closes the gap.
    fn remove(&mut self, hash: u32, slot: u32) -> bool {
        let home = self.home(hash);
        let shift = self.shift;
        let cells = self.region.as_mut_slice();
        let gone = cell(hash, slot);
        let mut gap = home;
        loop {
            match cells.get(gap) {
                Some(&found) if found == gone => break,
                Some(&found) if found != 0 => gap += 1,
                _ => return false,
            }
        }
        let mut next = gap + 1;
        while let Some(&found) = cells.get(next) {
            if found == 0 {
                break;
            }
            if (hash_of(found) >> shift) as usize <= gap {
                cells[gap] = found;
                gap = next;
            }
            next += 1;
        }
        cells[gap] = 0;
        true
    }
}

impl Index {
    pub(super) fn new() -> io::Result<Index> {
        Ok(Index { cells: Cells::new(SMALLEST)?, old: None, live: 0 })
    }

    /// Which cells hold `hash`: the old ones as long as its home there has not moved.
    #[inline]
    fn cells_of(&self, hash: u32) -> &Cells {
        match &self.old {
            Some((old, boundary)) if old.home(hash) >= *boundary => old,
            _ => &self.cells,
        }
    }

    #[inline]
    fn cells_of_mut(&mut self, hash: u32) -> &mut Cells {
        match &mut self.old {
            Some((old, boundary)) if old.home(hash) >= *boundary => old,
            _ => &mut self.cells,
        }
    }

    /// Asks for the cache line that a look-up of `hash` begins at.
    #[inline]
    pub(super) fn prefetch(&self, hash: u32) {
        let cells = self.cells_of(hash);
        prefetch(cells.region.as_slice(), cells.home(hash));
    }

    /// The slot with this hash that satisfies `is_it`.
    #[inline]
    pub(super) fn find(&self, hash: u32, is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        self.cells_of(hash).find(hash, is_it)
    }

    /// Adds a slot, which must not be in the index.
    ///
    /// # Errors
    /// The kernel's word when the index has to grow and cannot.
    #[inline]
    pub(super) fn insert(&mut self, hash: u32, slot: u32) -> io::Result<()> {
        if self.old.is_some() {
            self.move_on(MOVED_PER_INSERTION);
        } else if self.live * 4 >= self.cells.homes() * 3 {
            self.grow()?;
        }
        while !self.cells_of_mut(hash).put(cell(hash, slot)) {
            self.move_on(usize::MAX);
            self.grow()?;
        }
        self.live += 1;
        Ok(())
    }

    /// Takes a slot out.
    #[inline]
    pub(super) fn remove(&mut self, hash: u32, slot: u32) {
        let was_there = self.cells_of_mut(hash).remove(hash, slot);
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
                self.cells.region.as_mut_slice().fill(0);
            }
        }
    }

    /// Octets of cells, resident or about to be.
    pub(super) fn octets(&self) -> usize {
        let cells = |c: &Cells| (c.homes() + TAIL) * size_of::<u64>();
        cells(&self.cells) + self.old.as_ref().map_or(0, |(old, _)| cells(old))
    }

    #[cold]
    fn grow(&mut self) -> io::Result<()> {
        if self.cells.shift == 1 {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        let bigger = Cells::new(self.cells.homes() * 2)?;
        self.old = Some((std::mem::replace(&mut self.cells, bigger), 0));
        Ok(())
    }

    /// Moves at least `count` old cells, to the end of a run.
    fn move_on(&mut self, count: usize) {
        let Some((old, boundary)) = &mut self.old else { return };
        let cells = old.region.as_slice();
        let mut at = *boundary;
        let enough = at.saturating_add(count);
        while at < cells.len() && (at < enough || cells[at] != 0) {
            if cells[at] != 0 {
                // The bigger index keeps the order and is at most half as full: its tail always has room.
                let moved = self.cells.put(cells[at]);
                debug_assert!(moved);
            }
            at += 1;
        }
        *boundary = at;
        if at >= cells.len() {
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
