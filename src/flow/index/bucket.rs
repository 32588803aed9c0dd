//! A bucket of the index, one cache line: a hash in, the cells with its tag out.

use bytemuck::{Pod, Zeroable};

use crate::flow::memory::which_equal;

/// Cells of a bucket.
pub(super) const CELLS: usize = 10;
/// In a bucket's state: what has its home here or before may stand in a later bucket.
pub(super) const GOES_ON: u32 = 1 << 31;

/// One cache line.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
pub(super) struct Bucket {
    pub(super) tags: [u16; CELLS],
    /// A bit for each cell that is not empty, from the lowest on, and [`GOES_ON`].
    pub(super) state: u32,
    pub(super) slots: [u32; CELLS],
}

impl Bucket {
    /// A bit for each cell with this hash's tag.
    #[inline(always)]
    pub(super) fn matches(&self, hash: u32) -> u32 {
        // With the tags there are the six that would follow them, for which the state has no bits.
        let [numbers, _]: &[[u16; 16]; 2] = bytemuck::cast_ref(self);
        which_equal(numbers, tag(hash)) & self.state
    }

    #[inline(always)]
    pub(super) fn is_used(&self, cell: usize) -> bool {
        self.state >> cell & 1 != 0
    }

    #[inline(always)]
    pub(super) fn slot(&self, cell: usize) -> u32 {
        self.slots[cell]
    }

    #[inline(always)]
    pub(super) fn goes_on(&self) -> bool {
        self.state & GOES_ON != 0
    }

    /// Puts a hash's tag and its slot into the first empty cell; false if there is none.
    #[inline(always)]
    pub(super) fn put(&mut self, hash: u32, slot: u32) -> bool {
        let cell = self.state.trailing_ones() as usize;
        if cell >= CELLS {
            return false;
        }
        self.tags[cell] = tag(hash);
        self.slots[cell] = slot;
        self.state |= self.state + 1; // the lowest bit that is not set
        true
    }

    /// Copies all that is here to two empty buckets: to the second the cells that have their bits in `seconds`.
    #[inline(always)]
    pub(super) fn split_into(&self, new: &mut [Bucket; 2], seconds: u32) {
        let sides = [self.state & !seconds, self.state & seconds];
        let mut filled = [0; 2];
        for cell in 0..CELLS {
            for side in [0, 1] {
                // What is not for this side is written, too, and then over it. No more are filled than were gone through.
                let at = filled[side];
                if let (Some(tag), Some(slot)) = (new[side].tags.get_mut(at), new[side].slots.get_mut(at)) {
                    (*tag, *slot) = (self.tags[cell], self.slots[cell]);
                }
                filled[side] += (sides[side] >> cell & 1) as usize;
            }
        }
        for (new, filled) in new.iter_mut().zip(filled) {
            new.state = (1 << filled) - 1;
        }
    }

    #[inline(always)]
    pub(super) fn empty(&mut self, cell: usize) {
        self.state &= !(1 << cell);
    }
}

/// What of a hash stands in a cell. The lowest bit tells the directions of a conversation apart.
#[inline(always)]
fn tag(hash: u32) -> u16 {
    hash as u16
}
