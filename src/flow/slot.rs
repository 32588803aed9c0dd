//! Slots: where a table's Flows are.
//!
//! A slot is the number of a line of the table's entries, and of what is kept by line beside them. In a flood a line has two
//! slots ([`crate::flow::entry`]): the first has the line's number, the second the same with [`SECOND`].

/// In a slot: it is the second one of its line.
pub(super) const SECOND: u32 = 1 << 31;

/// Lines are fewer than this; the last number is left for [`NO_SLOT`].
pub(super) const MOST_LINES: usize = SECOND as usize - 1;

/// No slot.
pub(super) const NO_SLOT: u32 = u32::MAX;

/// The line of a slot.
#[inline(always)]
pub(super) fn line(slot: u32) -> usize {
    (slot & !SECOND) as usize
}
