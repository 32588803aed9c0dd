//! The read buffer: in, octets as a file, a pipe or a decompressor gives them; out, the stretch a parser asked for, in
//! one piece, borrowed in place.
//!
//! The buffer begins small and doubles with each read up to its full size: of a thousand rotated files each is first
//! opened only to learn when it begins, and reading 128 KiB of each for that would be most of a second run's work.

use super::error::{Damage, Stop};
use super::input::Input;
use super::lookahead;

/// Octets the first read asks for.
const FIRST_READ: usize = 16 * 1024;
/// Octets of a page of memory, and of the page cache.
const PAGE: usize = 4096;
/// Octets of the smallest buffer that is filled page by page.
const PAGES_FROM: usize = 16 * PAGE;
/// Octets that a buffer may be asked to have, so that every place in it, and in what it grows to for a record, fits 32 bits.
const LARGEST: usize = 1 << 30;
/// Octets of the header of a pcap record.
const SHORTEST_HEADER: usize = 16;

pub(super) struct Buffer {
    input: Input,
    /// Initialised throughout; what lies past `end` is left over from earlier reads.
    octets: Vec<u8>,
    start: usize,
    end: usize,
    /// Offset of `octets[0]` in the stream. It wraps: at the beginning of a file nothing need lie at `octets[0]`, and after
    /// octets are skipped behind ones that are kept, those before `start` are no longer where it says.
    base: u64,
    /// Size the buffer has reached on its way to `most`.
    size: usize,
    most: usize,
    ended: bool,
    /// The address of what will be read to where `octets[0]` is; that of `octets[0]` itself if it has none.
    ahead: usize,
}

/// What is in a buffer, until more is read into it.
#[derive(Clone, Copy)]
pub(super) struct Octets<'a> {
    octets: &'a [u8],
    ahead: usize,
}

impl<'a> Octets<'a> {
    /// `length` octets from `place` on.
    #[inline(always)]
    pub fn at(self, place: u32, length: u32) -> &'a [u8] {
        let (place, length) = (place as usize, length as usize);
        &self.octets[place..place + length]
    }

    /// Asks for as much of what is read next as the record, of `length` octets from `place` on, takes of what was read.
    #[inline(always)]
    pub fn look_ahead(self, place: u32, length: u32) {
        // A record's header is counted as the shortest there is: records a little apart still ask for every line.
        lookahead::ask_for(self.ahead.wrapping_add(place as usize), length as usize + SHORTEST_HEADER);
    }
}

impl Buffer {
    pub fn new(input: Input, most: usize) -> Buffer {
        let most = most.clamp(1, LARGEST);
        let size = most.min(FIRST_READ);
        Buffer { input, octets: Vec::new(), start: 0, end: 0, base: 0, size, most, ended: false, ahead: 0 }
    }

    pub fn input(&self) -> &Input {
        &self.input
    }

    pub fn input_mut(&mut self) -> &mut Input {
        &mut self.input
    }

    /// What is read and not consumed.
    #[inline(always)]
    pub fn unread(&self) -> &[u8] {
        &self.octets[self.start..self.end]
    }

    /// Where in the buffer the unread octets begin: the place of a frame that is handed out later.
    #[inline(always)]
    pub fn place(&self) -> usize {
        self.start
    }

    /// All that is in the buffer.
    pub fn octets(&self) -> Octets<'_> {
        Octets { octets: &self.octets, ahead: self.ahead }
    }

    /// Steps over `length` unread octets.
    #[inline(always)]
    pub fn consume(&mut self, length: usize) {
        debug_assert!(length <= self.end - self.start);
        self.start += length;
    }

    /// Offset in the stream of the next unread octet.
    #[inline]
    pub fn offset(&self) -> u64 {
        self.base.wrapping_add(self.start as u64)
    }

    /// Offset in the stream of the octet at `place`; of octets that were kept while others were skipped, one a little
    /// behind it.
    pub fn offset_of(&self, place: usize) -> u64 {
        self.base.wrapping_add(place as u64)
    }

    /// Offset in the stream up to which it has been read.
    pub fn end_offset(&self) -> u64 {
        self.base.wrapping_add(self.end as u64)
    }

    /// Whether `length` unread octets are there, reading what is missing; false if the stream ends before. Callers
    /// bound `length`: the buffer grows to it.
    #[cold]
    #[inline(never)]
    pub fn fill(&mut self, length: usize) -> Result<bool, Damage> {
        if self.end - self.start >= length {
            return Ok(true);
        }
        let left = self.end - self.start;
        let start = self.start_of(left);
        self.grow_to(start + left);
        self.octets.copy_within(self.start..self.end, start);
        self.base = self.offset().wrapping_sub(start as u64);
        (self.start, self.end) = (start, start + left);
        while self.end - self.start < length {
            let read = self.read_at(self.end, length - (self.end - self.start))?;
            if read == 0 {
                return Ok(false);
            }
            self.end += read;
        }
        Ok(true)
    }

    /// Where the `left` unread octets are to begin, so that those read behind them come to lie in memory as far from the
    /// beginning of a page as they do in the file: the kernel copies a whole page to a whole page a fourth faster.
    fn start_of(&self, left: usize) -> usize {
        if self.most < PAGES_FROM || self.octets.is_empty() {
            return 0;
        }
        let file = (self.end_offset() % PAGE as u64) as usize;
        let memory = (self.octets.as_ptr().addr() + left) % PAGE;
        (PAGE + file - memory) % PAGE
    }

    fn grow_to(&mut self, length: usize) {
        if self.octets.len() < length {
            // The full size at once, with room for what is left of the last read: it does not move then.
            let full =
                if self.size == self.most && self.most >= PAGES_FROM { self.most + 2 * PAGE } else { 0 };
            self.octets.reserve_exact(length.max(full) - self.octets.len());
            self.octets.resize(length, 0);
        }
    }

    /// [`Buffer::fill`] for a record that has begun: its end, `needed` octets from its beginning, must be there.
    pub fn require(&mut self, length: usize, what: &'static str, needed: u64) -> Result<(), Stop> {
        if self.fill(length)? { Ok(()) } else { Err(Stop::CutOff { what, needed }) }
    }

    /// Consumes the first `kept` unread octets, which must be there, the `skipped` ones behind them, and four more,
    /// which it returns with the place of the kept ones; none if the stream ends before. Skipping takes no memory.
    pub fn skip_behind(&mut self, kept: usize, skipped: u64) -> Result<Option<(usize, [u8; 4])>, Damage> {
        debug_assert!(kept <= self.end - self.start);
        let whole = skipped.saturating_add(kept as u64 + 4);
        // Not what the buffer has grown to: blocks each a little longer than the one before would make it grow on.
        if let Some(whole) = usize::try_from(whole).ok().filter(|&whole| whole <= self.most) {
            if !self.fill(whole)? {
                return Ok(None);
            }
            let place = self.start;
            self.start += whole;
            return Ok(Some((place, four(&self.octets, self.start - 4))));
        }

        self.octets.copy_within(self.start..self.start + kept, 0);
        // From here on the kept octets lie at 0 and the unread ones anywhere behind them.
        let mut left = skipped;
        let held = left.min((self.end - self.start - kept) as u64);
        self.start += kept + held as usize;
        left -= held;
        while left > 0 {
            if !self.read_behind(kept)? {
                return Ok(None);
            }
            let held = left.min((self.end - self.start) as u64);
            self.start += held as usize;
            left -= held;
        }
        let mut last = [0; 4];
        for octet in &mut last {
            if self.start == self.end && !self.read_behind(kept)? {
                return Ok(None);
            }
            *octet = self.octets[self.start];
            self.start += 1;
        }
        Ok(Some((0, last)))
    }

    /// Reads more, once all is consumed, without touching the first `kept` octets of the buffer.
    fn read_behind(&mut self, kept: usize) -> Result<bool, Damage> {
        debug_assert!(self.start == self.end && kept <= self.end);
        self.base = self.end_offset().wrapping_sub(kept as u64);
        (self.start, self.end) = (kept, kept);
        let read = self.read_at(kept, 1)?;
        self.end += read;
        Ok(read > 0)
    }

    /// One read to `place`, where at least `least` octets are wanted; 0 at the end of the stream.
    fn read_at(&mut self, place: usize, least: usize) -> Result<usize, Damage> {
        if self.ended {
            return Ok(0);
        }
        let position = self.base.wrapping_add(place as u64);
        // Reads of the full size end at a multiple of it, so that of the usual 128 KiB none reads a page or a window in part.
        let rest = self.most - (position % self.most as u64) as usize;
        let full = self.size == self.most && self.most >= PAGES_FROM;
        let stretch = if full && rest >= least { rest } else { self.size.saturating_sub(place).max(least) };
        self.grow_to(place + stretch);
        self.size = self.size.saturating_mul(2).min(self.most);
        match self.input.read(&mut self.octets[place..place + stretch]) {
            Ok(read) => {
                self.ended = read == 0;
                // A file that is only opened to learn when it begins is not mapped.
                let whole = read == stretch && read >= self.most / 2;
                self.ahead = whole
                    .then(|| self.input.look_ahead(self.most))
                    .flatten()
                    .map_or(self.octets.as_ptr().addr(), |address| address.wrapping_sub(place));
                Ok(read)
            }
            Err(reason) => {
                self.ended = true;
                Err(Damage { offset: self.base.wrapping_add(place as u64), reason })
            }
        }
    }

    /// Gives up the open file and all memory but the `length` octets at `place`, which are a frame not yet handed out
    /// and move to place 0. Reading goes on where it stood. False, and nothing is given up, if the input cannot do so.
    pub fn park(&mut self, place: usize, length: usize) -> bool {
        let Some(drops_unread) = self.input.park(self.offset()) else { return false };
        let mut rest = self.octets[place..place + length].to_vec();
        let (start, base) = (rest.len(), self.offset().wrapping_sub(rest.len() as u64));
        if !drops_unread {
            rest.extend_from_slice(&self.octets[self.start..self.end]);
        }
        (self.start, self.end, self.base) = (start, rest.len(), base);
        self.ahead = rest.as_ptr().addr();
        self.octets = rest;
        self.size = self.most.min(FIRST_READ);
        true
    }

    /// Gives up everything: nothing is read from here again.
    pub fn close(&mut self) {
        self.base = self.end_offset();
        (self.start, self.end, self.ended) = (0, 0, true);
        self.octets = Vec::new();
        self.input.close();
    }
}

/// The four octets at `at`.
#[inline(always)]
pub(super) fn four(octets: &[u8], at: usize) -> [u8; 4] {
    let mut four = [0; 4];
    four.copy_from_slice(&octets[at..at + 4]);
    four
}

#[cfg(test)]
impl Buffer {
    pub fn capacity(&self) -> usize {
        self.octets.capacity()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::sync::Arc;

    use super::super::source::Progress;
    use super::*;

    const MOST: usize = 128 * 1024;

    #[test]
    fn octets_lie_in_memory_as_far_from_the_beginning_of_a_page_as_in_the_file() {
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        let octets: Vec<u8> = (0..1_500_000u32).map(|at| (at % 251) as u8).collect();
        file.write_all(&octets).expect("room for it");
        let progress = Progress::new(Arc::default(), Arc::default());
        let mut buffer =
            Buffer::new(Input::new(file.path().to_path_buf(), octets.len() as u64, progress), MOST);
        let (mut offset, mut reads) = (0, 0);
        // Records of 119 octets, so that each read begins with the rest of another one.
        while buffer.fill(119).expect("it can be read") {
            assert_eq!(buffer.unread()[..119], octets[offset..offset + 119]);
            if buffer.unread().len() > MOST / 2 {
                let place = buffer.unread().as_ptr().addr();
                // The first time the buffer has just moved.
                assert!(reads == 0 || place % PAGE == offset % PAGE, "offset {offset}");
                assert_eq!(buffer.offset(), offset as u64);
                let end = buffer.end_offset();
                assert!(end.is_multiple_of(MOST as u64) || end == octets.len() as u64, "{end}");
                reads += 1;
            }
            let records = buffer.unread().len() / 119;
            buffer.consume(119 * records);
            offset += 119 * records;
        }
        assert!(reads > 8, "{reads}");
    }

    #[test]
    fn what_is_skipped_takes_no_memory_however_its_length_grows() {
        let input = Input::stream(std::io::repeat(7).take(60 << 20));
        let mut buffer = Buffer::new(input, MOST);
        let mut skipped = MOST as u64 - 200;
        loop {
            if !buffer.fill(8).expect("it can be read") {
                break;
            }
            match buffer.skip_behind(8, skipped).expect("it can be read") {
                Some((_, last)) => assert_eq!(last, [7; 4]),
                None => break,
            }
            // Far less than the page that a read may begin in: what the buffer has become would always do.
            skipped += 64;
            assert!(buffer.capacity() <= MOST + 3 * PAGE, "{}", buffer.capacity());
        }
        assert!(skipped > (MOST + 4 * PAGE) as u64, "{skipped}");
    }
}
