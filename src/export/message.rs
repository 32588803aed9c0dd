//! Octets of one message: numbers in network byte order in, a bounded buffer out, with Sets (RFC 7011 §3.3, FlowSets in
//! RFC 3954 §5) whose lengths are filled in from what was written. And the Data Records that wait for a message.

use byteorder::{BigEndian, ByteOrder};

use crate::export::Tally;
use crate::export::template::{Kind, Layout, ROOM};

/// Octets of a Set header: its ID and its length (RFC 7011 §3.3.2, RFC 3954 §5.2).
pub const SET_HEADER: usize = 4;

/// A message being written.
#[derive(Clone, Debug, Default)]
pub struct Message {
    /// What was written, and behind it what is free to write to: it grows to what one message needs and stays.
    octets: Vec<u8>,
    length: usize,
    /// Where the open Set's header stands.
    set: Option<usize>,
}

impl Message {
    /// Forgets what was written and leaves `header` octets to be filled in at the end.
    pub fn begin(&mut self, header: usize) {
        self.length = 0;
        self.set = None;
        self.put_zeros(header);
    }

    /// Octets so far.
    pub fn len(&self) -> usize {
        self.length
    }

    /// All octets so far.
    pub fn octets(&self) -> &[u8] {
        &self.octets[..self.length]
    }

    /// The header's octets, and whatever follows them.
    pub fn octets_mut(&mut self) -> &mut [u8] {
        &mut self.octets[..self.length]
    }

    /// Takes away what was written from `length` on, and with it a Set begun there.
    pub fn truncate(&mut self, length: usize) {
        self.length = self.length.min(length);
        self.set = self.set.filter(|start| *start < length);
    }

    /// Adds two octets.
    pub fn put_u16(&mut self, value: u16) {
        self.put(&value.to_be_bytes());
    }

    /// Adds four octets.
    pub fn put_u32(&mut self, value: u32) {
        self.put(&value.to_be_bytes());
    }

    /// Adds a number in `length` octets, the length of its element, in which it must fit (RFC 7011 §6.2).
    pub fn put_uint(&mut self, value: u64, length: u16) {
        BigEndian::write_uint(self.add(length.into()), value, length.into());
    }

    /// Adds octets as they are.
    #[inline]
    pub fn put(&mut self, octets: &[u8]) {
        self.add(octets.len()).copy_from_slice(octets);
    }

    fn put_zeros(&mut self, count: usize) {
        self.add(count).fill(0);
    }

    /// Adds `count` octets, to be written over.
    #[inline]
    fn add(&mut self, count: usize) -> &mut [u8] {
        let start = self.length;
        self.room(count, 0);
        self.extend(count);
        &mut self.octets[start..start + count]
    }

    /// `count` octets behind what was written, to be written to and then added by [`Message::extend`]. Where they are not there
    /// yet, the message is made as long as `in_all`.
    #[inline]
    fn room(&mut self, count: usize, in_all: usize) -> &mut [u8] {
        let end = self.length + count;
        if end > self.octets.len() {
            self.grow(end.max(in_all));
        }
        &mut self.octets[self.length..end]
    }

    /// Adds the first `count` octets of the room that was taken.
    #[inline]
    fn extend(&mut self, count: usize) {
        self.length += count;
    }

    #[cold]
    fn grow(&mut self, least: usize) {
        self.octets.resize(least.max(2 * self.octets.len()), 0);
    }

    /// Writes over two octets, for a length or a count that is known only afterwards.
    pub fn set_u16(&mut self, at: usize, value: usize) {
        let value =
            u16::try_from(value).expect("a message is shorter than 65,536 octets, and so is all in it");
        BigEndian::write_u16(&mut self.octets_mut()[at..], value);
    }

    /// Begins a Set.
    pub fn open_set(&mut self, id: u16) {
        debug_assert!(self.set.is_none(), "one Set at a time");
        self.set = Some(self.length);
        self.put_u16(id);
        self.put_u16(0);
    }

    /// Begins a message with `header` octets, whatever they are, and a Set.
    fn begin_with_set(&mut self, header: usize, id: u16) {
        self.length = header;
        self.set = None;
        self.open_set(id);
    }

    /// Ends the Set begun last: pads it with zeros to a multiple of `alignment` octets and fills in its length.
    pub fn close_set(&mut self, alignment: usize) {
        let Some(start) = self.set.take() else { return };
        let length = (self.length - start).next_multiple_of(alignment);
        debug_assert!(length > SET_HEADER, "no empty Set");
        self.put_zeros(start + length - self.length);
        self.set_u16(start + size_of::<u16>(), length);
    }
}

/// Data Records that wait until they fill a message, one Set for each kind.
///
/// A message that held its records in the order they came would begin a new Set wherever the kind changes, which in
/// mixed traffic is every second record. Kept kind by kind a message has at most one Set of each, the order within a kind
/// stays, and what is in a message does not depend on how the records came in batches.
///
/// Each Set is written as the first of a message of its own. When they leave, those of the other kinds are copied behind that
/// of the first kind; where all records are of one kind, as in a flood, nothing is copied.
pub struct Pending {
    layouts: [Layout; Kind::COUNT],
    sets: [PendingSet; Kind::COUNT],
    /// Octets of a message header.
    header: usize,
    alignment: usize,
    /// What the message comes to, headers and padding included.
    length: usize,
    tally: Tally,
}

/// The Data Records of one kind.
struct PendingSet {
    /// A message header, a Set header and the records.
    message: Message,
    /// The Template ID, which is the Set's.
    id: u16,
    /// The length of a record in octets.
    record: usize,
    /// By how much the first record makes the message longer: by a Set header and padding too.
    first: usize,
    /// By how much the next one does.
    next: usize,
}

impl Pending {
    /// Nothing waiting. Messages will have `header` octets before the first Set, Sets be padded to a multiple of
    /// `alignment` octets.
    pub fn new(layouts: [Layout; Kind::COUNT], header: usize, alignment: usize) -> Pending {
        // The padding is at most one short of the alignment: reserved once a Set instead of computed each time.
        let set_header = SET_HEADER + alignment - 1;
        let sets = std::array::from_fn(|kind| {
            let layout: &Layout = &layouts[kind];
            let first = set_header + layout.length;
            let mut message = Message::default();
            message.begin_with_set(header, layout.id);
            PendingSet { message, id: layout.id, record: layout.length, first, next: first }
        });
        Pending { layouts, sets, header, alignment, length: header, tally: Tally::default() }
    }

    /// The Template of each kind.
    pub fn layouts(&self) -> &[Layout] {
        &self.layouts
    }

    /// What waits.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.tally.records == 0
    }

    /// Room for `wanted` records of this kind in its Set, or for as many as fit: another one does as long as what is left is
    /// at least [`ROOM`]. None fits if the message would be longer than `limit` with it and there are others in it. Those
    /// written there are to be given to [`Pending::add`].
    #[inline]
    pub fn room(&mut self, kind: Kind, limit: usize, wanted: usize) -> &mut [u8] {
        let set = &mut self.sets[kind.index()];
        let with_first = self.length + set.next;
        let fit = if with_first <= limit {
            limit - with_first + set.record
        } else if self.length == self.header {
            set.record
        } else {
            0
        };
        // At once as long as it may become: messages change places with others, and each would grow for long.
        set.message.room(fit.min(wanted * set.record) + ROOM - set.record, limit + ROOM)
    }

    /// Adds the `written` records, at least one, that were written to the room of this kind.
    #[inline]
    pub fn add(&mut self, kind: Kind, written: usize) {
        let set = &mut self.sets[kind.index()];
        let octets = written * set.record;
        self.length += set.next + octets - set.record;
        set.next = set.record;
        set.message.extend(octets);
    }

    /// Counts records that were added.
    pub fn count(&mut self, tally: Tally) {
        self.tally += tally;
    }

    /// Takes all that waits as a message, a Set a kind; its header is to be filled in. [`Pending::clear`] must follow.
    pub fn take(&mut self) -> Message {
        let mut filled = self.sets.iter_mut().filter(|set| set.is_filled());
        let mut message = filled.next().map(|first| std::mem::take(&mut first.message)).unwrap_or_default();
        message.close_set(self.alignment);
        for other in filled {
            other.message.close_set(self.alignment);
            message.put(&other.message.octets()[self.header..]);
        }
        message
    }

    /// Forgets all that waits. `taken` is what [`Pending::take`] gave, if it was called, or another message, which is written
    /// over: it goes to where that was from.
    pub fn clear(&mut self, mut taken: Option<Message>) {
        for set in self.sets.iter_mut().filter(|set| set.is_filled()) {
            if let Some(message) = taken.take() {
                set.message = message;
            }
            set.message.begin_with_set(self.header, set.id);
            set.next = set.first;
        }
        self.length = self.header;
        self.tally = Tally::default();
    }
}

impl PendingSet {
    fn is_filled(&self) -> bool {
        self.next != self.first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_takes_its_length_from_what_was_written_and_is_padded_with_zeros() {
        let mut message = Message::default();
        message.begin(2);
        message.open_set(256);
        message.put(&[1, 2, 3, 4, 5]);
        message.close_set(4);
        message.open_set(257);
        message.put_u16(0x0607);
        message.close_set(1);
        assert_eq!(message.octets(), [0, 0, 1, 0, 0, 12, 1, 2, 3, 4, 5, 0, 0, 0, 1, 1, 0, 6, 6, 7]);
    }

    #[test]
    fn a_message_begun_again_holds_nothing_of_the_last_one() {
        let mut message = Message::default();
        message.begin(2);
        message.octets_mut().fill(0xFF);
        message.open_set(256);
        message.begin(4);
        assert_eq!(message.octets(), [0; 4]);
    }
}
