//! Octets of one message: numbers in network byte order in, a bounded buffer out, with Sets (RFC 7011 §3.3, FlowSets in
//! RFC 3954 §5) whose lengths are filled in from what was written. And the Data Records that wait for a message.

use byteorder::{BigEndian, ByteOrder, WriteBytesExt};

use crate::export::Tally;
use crate::export::template::{CHUNK, Image, Kind, Layout};
use crate::flow::FlowRecord;

/// Octets of a Set header: its ID and its length (RFC 7011 §3.3.2, RFC 3954 §5.2).
pub const SET_HEADER: usize = 4;

/// Why writing to a message cannot fail.
const GROWS: &str = "a Vec takes what is written to it";

/// A message being written.
#[derive(Debug, Default)]
pub struct Message {
    octets: Vec<u8>,
    /// Where the open Set's header stands.
    set: Option<usize>,
}

impl Message {
    /// Forgets what was written and leaves `header` octets to be filled in at the end.
    pub fn begin(&mut self, header: usize) {
        self.octets.clear();
        self.octets.resize(header, 0);
        self.set = None;
    }

    /// Octets so far.
    pub fn len(&self) -> usize {
        self.octets.len()
    }

    /// All octets so far.
    pub fn octets(&self) -> &[u8] {
        &self.octets
    }

    /// The header's octets, and whatever follows them.
    pub fn octets_mut(&mut self) -> &mut [u8] {
        &mut self.octets
    }

    /// Takes away what was written from `length` on, and with it a Set begun there.
    pub fn truncate(&mut self, length: usize) {
        self.octets.truncate(length);
        self.set = self.set.filter(|start| *start < length);
    }

    /// Adds an octet.
    pub fn put_u8(&mut self, value: u8) {
        self.octets.push(value);
    }

    /// Adds two octets.
    pub fn put_u16(&mut self, value: u16) {
        self.octets.write_u16::<BigEndian>(value).expect(GROWS);
    }

    /// Adds four octets.
    pub fn put_u32(&mut self, value: u32) {
        self.octets.write_u32::<BigEndian>(value).expect(GROWS);
    }

    /// Adds a number in `length` octets, the length of its element, in which it must fit (RFC 7011 §6.2).
    pub fn put_uint(&mut self, value: u64, length: u16) {
        self.octets.write_uint::<BigEndian>(value, usize::from(length)).expect(GROWS);
    }

    /// Adds octets as they are.
    pub fn put(&mut self, octets: &[u8]) {
        self.octets.extend_from_slice(octets);
    }

    /// Writes over two octets, for a length or a count that is known only afterwards.
    pub fn set_u16(&mut self, at: usize, value: usize) {
        let value =
            u16::try_from(value).expect("a message is shorter than 65,536 octets, and so is all in it");
        BigEndian::write_u16(&mut self.octets[at..], value);
    }

    /// Begins a Set.
    pub fn open_set(&mut self, id: u16) {
        debug_assert!(self.set.is_none(), "one Set at a time");
        self.set = Some(self.octets.len());
        self.put_u16(id);
        self.put_u16(0);
    }

    /// Ends the Set begun last: pads it with zeros to a multiple of `alignment` octets and fills in its length.
    pub fn close_set(&mut self, alignment: usize) {
        let Some(start) = self.set.take() else { return };
        let length = (self.octets.len() - start).next_multiple_of(alignment);
        debug_assert!(length > SET_HEADER, "no empty Set");
        self.octets.resize(start + length, 0);
        self.set_u16(start + size_of::<u16>(), length);
    }
}

/// Data Records that wait until they fill a message, one Set for each kind.
///
/// A message that held its records in the order they came would begin a new Set wherever the kind changes, which in
/// mixed traffic is every second record. Kept kind by kind a message has at most one Set of each, the order within a kind
/// stays, and what is in a message does not depend on how the records came in batches.
pub struct Pending {
    layouts: [Layout; Kind::COUNT],
    sets: [PendingSet; Kind::COUNT],
    image: Image,
    alignment: usize,
    /// What the Sets come to, their headers and padding included.
    length: usize,
    tally: Tally,
}

/// The Data Records of one kind.
#[derive(Clone, Default)]
struct PendingSet {
    /// Longer than what is written to it by [`CHUNK`]; grows to what one message holds and stays.
    octets: Vec<u8>,
    written: usize,
}

impl Pending {
    /// Nothing waiting. Sets will be padded to a multiple of `alignment` octets.
    pub fn new(layouts: [Layout; Kind::COUNT], alignment: usize) -> Pending {
        Pending {
            layouts,
            sets: std::array::from_fn(|_| PendingSet::default()),
            image: Image::new(),
            alignment,
            length: 0,
            tally: Tally::default(),
        }
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

    /// How long the Sets would be with a record of this kind more.
    #[inline]
    pub fn length_with(&self, kind: Kind) -> usize {
        let record = self.layouts[kind.index()].length;
        let header = if self.sets[kind.index()].written == 0 {
            // The padding is at most one short of the alignment: reserved once a Set instead of computed each time.
            SET_HEADER + self.alignment - 1
        } else {
            0
        };
        self.length + header + record
    }

    /// Adds a record; `kind` is its kind, `boot_millis` as in [`Image::write`].
    #[inline]
    pub fn push(&mut self, kind: Kind, record: &FlowRecord, boot_millis: u64) {
        self.length = self.length_with(kind);
        let layout = &self.layouts[kind.index()];
        let set = &mut self.sets[kind.index()];
        if set.octets.len() < set.written + layout.length + CHUNK {
            set.grow(layout.length);
        }
        self.image.write(record, boot_millis);
        layout.copy(&self.image, &mut set.octets[set.written..]);
        set.written += layout.length;
        self.tally.add(record);
    }

    /// Writes all that waits to `message`, a Set a kind.
    pub fn write(&self, message: &mut Message) {
        for (layout, set) in self.layouts.iter().zip(&self.sets) {
            if set.written > 0 {
                message.open_set(layout.id);
                message.put(&set.octets[..set.written]);
                message.close_set(self.alignment);
            }
        }
    }

    /// Forgets all that waits.
    pub fn clear(&mut self) {
        for set in &mut self.sets {
            set.written = 0;
        }
        self.length = 0;
        self.tally = Tally::default();
    }
}

impl PendingSet {
    #[cold]
    fn grow(&mut self, record: usize) {
        let length = (2 * self.octets.len()).max(self.written + record + CHUNK);
        self.octets.resize(length, 0);
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
