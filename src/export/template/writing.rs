//! How Data Records are written: Flow Records of one kind in, their octets out, one record after the other.

use super::value::Value;
use super::{Dialect, Fields, Kind, fields};
use crate::export::element::Element;
use crate::flow::FlowRecord;
use crate::prefetch::{CACHE_LINE, prefetch_behind_to_write};

/// Octets that [`write`] is given for a record: as many as the longest one has, and a word more.
pub const ROOM: usize = 160;

/// How far ahead of an IPFIX record two lines, its length, are asked for, about where the fifth after it will be: where messages change
/// places with those that wait for a file, the first cache has not seen that for long, and a store would have to wait for it.
const AHEAD: usize = 512;

/// Octets that are stored at once.
const WORD: usize = size_of::<u64>();

/// Writes Data Records of one kind after the other to `out`: of `records` from the first on as long as they are of `kind`,
/// there are [`ROOM`] octets left for the next one, and `admits`, which is asked of each last, says yes. Gives how many that
/// were. Up to seven octets behind the last one are of no meaning. `boot_millis` is as in [`fields`].
///
/// What a record is decides its code, so that records of a kind go through it without a jump that depends on them.
#[inline(always)] // so that `dialect` is a constant
pub fn write(
    kind: Kind,
    dialect: Dialect,
    records: &[FlowRecord],
    boot_millis: u64,
    out: &mut [u8],
    admits: impl FnMut(&FlowRecord) -> bool,
) -> usize {
    #[inline(always)]
    fn run(
        kind: u8,
        dialect: Dialect,
        records: &[FlowRecord],
        boot_millis: u64,
        mut out: &mut [u8],
        mut admits: impl FnMut(&FlowRecord) -> bool,
    ) -> usize {
        let kind = Kind(kind);
        let mut rest = records;
        while let [record, after @ ..] = rest {
            if !kind.is_of(record) {
                break;
            }
            let Some(room) = out.first_chunk_mut() else { break };
            if !admits(record) {
                break;
            }
            if dialect == Dialect::Ipfix {
                prefetch_behind_to_write::<_, AHEAD>(&mut room[0]);
                prefetch_behind_to_write::<_, { AHEAD + CACHE_LINE }>(&mut room[0]);
            }
            let mut octets = Octets { out: room, stored: 0, word: 0, gathered: 0 };
            fields(kind, dialect, record, boot_millis, &mut octets);
            octets.store_rest();
            let length = octets.stored;
            out = &mut out[length..];
            rest = after;
        }
        records.len() - rest.len()
    }
    match kind.0 {
        0 => run(0, dialect, records, boot_millis, out, admits),
        1 => run(1, dialect, records, boot_millis, out, admits),
        2 => run(2, dialect, records, boot_millis, out, admits),
        3 => run(3, dialect, records, boot_millis, out, admits),
        4 => run(4, dialect, records, boot_millis, out, admits),
        5 => run(5, dialect, records, boot_millis, out, admits),
        6 => run(6, dialect, records, boot_millis, out, admits),
        7 => run(7, dialect, records, boot_millis, out, admits),
        8 => run(8, dialect, records, boot_millis, out, admits),
        9 => run(9, dialect, records, boot_millis, out, admits),
        10 => run(10, dialect, records, boot_millis, out, admits),
        _ => run(11, dialect, records, boot_millis, out, admits),
    }
}

/// The octets that all these elements have.
#[inline(always)]
fn length_of(elements: &[&Element]) -> usize {
    elements.iter().map(|element| usize::from(element.length)).sum()
}

/// A Data Record being written. Fields shorter than half a word are gathered in a register until there is that much; zeros,
/// which cost nothing, until there is a whole one. What a store writes too much the next one writes over. All but the octets is
/// known when this is compiled.
struct Octets<'a> {
    out: &'a mut [u8; ROOM],
    /// How many octets are in `out`.
    stored: usize,
    /// The octets that come next, the first one lowest.
    word: u64,
    /// How many those are.
    gathered: usize,
}

impl Octets<'_> {
    #[inline(always)]
    fn store(&mut self) {
        self.out[self.stored..self.stored + WORD].copy_from_slice(&self.word.to_le_bytes());
        self.stored += self.gathered;
        (self.word, self.gathered) = (0, 0);
    }

    /// Stores what was gathered if there is any.
    #[inline(always)]
    fn store_rest(&mut self) {
        if self.gathered > 0 {
            self.store();
        }
    }

    /// Gathers the first `count` of these octets.
    #[inline(always)]
    fn gather(&mut self, octets: &[u8], count: usize) {
        if self.gathered >= WORD / 2 || count >= WORD / 2 {
            self.store_rest();
        }
        let mut word = [0; WORD];
        word[..octets.len()].copy_from_slice(octets);
        self.word |= u64::from_le_bytes(word) << (8 * self.gathered);
        self.gathered += count;
    }

    /// Gathers zeros.
    #[inline(always)]
    fn put_zeros(&mut self, count: usize) {
        let fit = count.min(WORD - self.gathered);
        self.gathered += fit;
        if fit < count {
            self.store();
            self.gathered = count - fit;
        }
    }
}

impl Fields for Octets<'_> {
    #[inline(always)]
    fn put<V: Value>(&mut self, _: &'static Element, value: V) {
        self.put_zeros(V::ZEROS);
        let octets = value.octets();
        let octets = &octets.as_ref()[V::ZEROS..];
        if octets.len() > WORD {
            self.store_rest();
            self.out[self.stored..self.stored + octets.len()].copy_from_slice(octets);
            self.stored += octets.len();
        } else if !octets.is_empty() {
            self.gather(octets, octets.len());
        }
    }

    #[inline(always)]
    fn put_all<const COUNT: usize>(&mut self, elements: [&'static Element; COUNT], octets: [u8; 4]) {
        self.store_rest();
        self.gather(&octets, length_of(&elements));
        // Nothing may be gathered behind what is of no meaning, which the next store writes over.
        if length_of(&elements) < octets.len() {
            self.store();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::template::Layout;
    use crate::export::template::kind::tests::record_of;

    /// The plain twin of [`Octets`]: octet by octet.
    impl Fields for Vec<u8> {
        fn put<V: Value>(&mut self, _: &'static Element, value: V) {
            self.extend(value.octets().as_ref());
        }

        fn put_all<const COUNT: usize>(&mut self, elements: [&'static Element; COUNT], octets: [u8; 4]) {
            self.extend(&octets[..length_of(&elements)]);
        }
    }

    #[test]
    fn fields_stored_together_are_the_fields_one_after_the_other() {
        for dialect in [Dialect::Ipfix, Dialect::NetFlow9] {
            for kind in Kind::all() {
                let mut record = FlowRecord { tos: 0xAB, interface: 0x0102_0304, ..record_of(kind) };
                for (at, octet) in record.source.iter_mut().chain(&mut record.destination).enumerate() {
                    *octet = at as u8 + 1;
                }
                let second = FlowRecord { source_port: 0x0506, ..record };
                let mut plainly: Vec<u8> = Vec::new();
                for record in [&record, &second] {
                    fields(kind, dialect, record, 1_699_999_999_999, &mut plainly);
                }
                let mut out = [0xEE; 2 * ROOM];
                let written = write(kind, dialect, &[record, second], 1_699_999_999_999, &mut out, |_| true);
                assert_eq!(written, 2);
                assert_eq!(plainly.len(), 2 * Layout::new(kind, dialect).length);
                assert_eq!(out[..plainly.len()], plainly);
                assert!(plainly.len() / 2 + WORD <= ROOM);
                assert!(out[plainly.len() + WORD..].iter().all(|octet| *octet == 0xEE));
            }
        }
    }

    #[test]
    fn a_run_of_records_ends_with_its_kind_with_its_room_and_where_the_next_is_not_admitted() {
        for kind in Kind::all() {
            let record = record_of(kind);
            let length = Layout::new(kind, Dialect::Ipfix).length;
            let run = |records: &[FlowRecord], room: usize, most: usize| {
                let mut asked = 0;
                let written = write(kind, Dialect::Ipfix, records, 0, &mut vec![0; room], |_| {
                    asked += 1;
                    asked <= most
                });
                assert!(asked == written || asked == most + 1, "asked of what is written alone");
                written
            };
            assert_eq!(run(&[record; 3], 4 * ROOM, 9), 3);
            assert_eq!(run(&[record; 3], 4 * ROOM, 1), 1);
            assert_eq!(run(&[record; 3], ROOM - 1, 9), 0);
            assert_eq!(run(&[record; 3], ROOM + length - 1, 9), 1);
            assert_eq!(run(&[record; 3], ROOM + length, 9), 2);
            for other in Kind::all().filter(|other| *other != kind) {
                assert_eq!(run(&[record, record_of(other), record], 4 * ROOM, 9), 1);
            }
        }
    }
}
