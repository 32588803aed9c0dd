//! One capture file: in, its path; out, the [`Head`] of a frame at a time, whose octets stay in the buffer until the
//! next one is asked for.

use super::buffer::{Buffer, Octets, four};
use super::error::{Damage, FileError, Reason};
use super::input::Input;
use super::lookahead::bring_near;
use super::pcap::{self, ByteOrder, Pcap};
use super::pcapng::{self, Pcapng};
use crate::capture::{Frame, LinkType};
use crate::time::Timestamp;

/// A frame but for its octets, which are `captured` from `place` on in the buffer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    pub timestamp: Timestamp,
    pub wire_length: u32,
    pub link_type: LinkType,
    pub interface: u32,
    pub place: u32,
    pub captured: u32,
}

impl Head {
    /// What a run holds where no frame has been gathered yet.
    pub const NONE: Head = Head {
        timestamp: Timestamp::EPOCH,
        wire_length: 0,
        link_type: LinkType::NULL,
        interface: 0,
        place: 0,
        captured: 0,
    };

    /// The frame whose head this is; its octets are among `octets`.
    #[inline(always)]
    pub fn frame<'a>(&self, octets: Octets<'a>) -> Frame<'a> {
        Frame {
            timestamp: self.timestamp,
            wire_length: self.wire_length,
            link_type: self.link_type,
            interface: self.interface,
            data: octets.at(self.place, self.captured),
        }
    }
}

enum Format {
    /// Nothing has been read.
    Unread,
    PcapLittle(Pcap<false>),
    PcapBig(Pcap<true>),
    Pcapng(Pcapng),
    /// All is read, or what follows is damaged.
    Ended,
}

/// One capture file being read.
pub(super) struct Reader {
    buffer: Buffer,
    format: Format,
    /// Overrides the interface of every frame.
    interface: Option<u32>,
    /// The next frame, while it waits for frames of other files.
    head: Option<Head>,
    parked: bool,
    failure: Option<FileError>,
}

impl Reader {
    pub fn new(input: Input, interface: Option<u32>, buffer_octets: usize) -> Reader {
        Reader {
            buffer: Buffer::new(input, buffer_octets),
            format: Format::Unread,
            interface,
            head: None,
            parked: false,
            failure: None,
        }
    }

    /// Adds the frames that are wholly in the buffer to `run`, which has `end` already, until it is full or one's time
    /// is not below `bound` ns; the new end, and that one.
    pub fn gather(&mut self, bound: u64, run: &mut [Head], end: usize) -> (usize, Option<Head>) {
        let buffer = &mut self.buffer;
        match &mut self.format {
            Format::PcapLittle(file) => {
                gather(buffer, bound, run, end, |unread, place| file.record_in(unread, place))
            }
            Format::PcapBig(file) => {
                gather(buffer, bound, run, end, |unread, place| file.record_in(unread, place))
            }
            // A block that begins another section, of another byte order perhaps, ends what is gathered at once.
            Format::Pcapng(file) if file.is_big() => {
                gather(buffer, bound, run, end, |unread, place| file.record_in::<true>(unread, place))
            }
            Format::Pcapng(file) => {
                gather(buffer, bound, run, end, |unread, place| file.record_in::<false>(unread, place))
            }
            Format::Unread | Format::Ended => (end, None),
        }
    }

    /// The next frame, reading what is missing; none at the end of the file, sound or not: see [`Reader::finish`].
    pub fn advance(&mut self) -> Option<Head> {
        if matches!(self.format, Format::Unread) {
            match self.recognise() {
                Ok(format) => self.format = format,
                Err(damage) => self.fail(damage),
            }
        }
        let next = match &mut self.format {
            Format::PcapLittle(file) => file.next(&mut self.buffer),
            Format::PcapBig(file) => file.next(&mut self.buffer),
            Format::Pcapng(file) => file.next(&mut self.buffer),
            Format::Unread | Format::Ended => Ok(None),
        };
        match next {
            Ok(Some(head)) => return Some(head),
            Ok(None) => self.format = Format::Ended,
            Err(damage) => self.fail(damage),
        }
        None
    }

    fn recognise(&mut self) -> Result<Format, Damage> {
        let buffer = &mut self.buffer;
        if !buffer.fill(4)? {
            let found = buffer.unread().to_vec();
            let reason = if found.is_empty() { Reason::Empty } else { Reason::NotACapture(found) };
            return Err(Damage { offset: 0, reason });
        }
        let magic = four(buffer.unread(), 0);
        let interface = self.interface.unwrap_or(0);
        match pcap::recognise(magic) {
            Some((ByteOrder::Little, nanos)) => Ok(Format::PcapLittle(Pcap::open(buffer, nanos, interface)?)),
            Some((ByteOrder::Big, nanos)) => Ok(Format::PcapBig(Pcap::open(buffer, nanos, interface)?)),
            None if magic == pcapng::SECTION_HEADER => Ok(Format::Pcapng(Pcapng::new(self.interface))),
            None => Err(Damage { offset: 0, reason: Reason::NotACapture(magic.to_vec()) }),
        }
    }

    fn fail(&mut self, damage: Damage) {
        self.format = Format::Ended;
        let input = self.buffer.input();
        if input.is_stopped() {
            return;
        }
        self.failure = Some(FileError {
            path: input.path().to_path_buf(),
            offset: (!matches!(damage.reason, Reason::Open(_))).then_some(damage.offset),
            decompressed: input.is_compressed(),
            reason: damage.reason,
        });
    }

    /// What is wrong with the frame of this head.
    pub fn failure_at(&self, head: &Head, reason: Reason) -> FileError {
        let input = self.buffer.input();
        FileError {
            path: input.path().to_path_buf(),
            offset: Some(self.buffer.offset_of(head.place as usize)),
            decompressed: input.is_compressed(),
            reason,
        }
    }

    /// The octets of the frames read since the last call of [`Reader::advance`].
    pub fn octets(&self) -> Octets<'_> {
        self.buffer.octets()
    }

    /// Keeps the frame just given out until its turn comes.
    pub fn hold(&mut self, head: Head) {
        self.head = Some(head);
    }

    /// The frame that was kept.
    pub fn release(&mut self) -> Option<Head> {
        self.parked = false;
        self.head.take()
    }

    /// The timestamp of the frame that is kept.
    pub fn waits_for(&self) -> Option<Timestamp> {
        self.head.map(|head| head.timestamp)
    }

    /// Gives up the open file and all memory but that of the frame that is kept; it is opened again when it is read
    /// on. What cannot be read twice stays as it is.
    pub fn park(&mut self) {
        let Some(head) = &mut self.head else { return };
        if !self.parked && self.buffer.park(head.place as usize, head.captured as usize) {
            head.place = 0;
            self.parked = true;
        }
    }

    /// Whether it holds no open file.
    pub fn is_parked(&self) -> bool {
        self.parked
    }

    /// Whether the input is a pipe that had nothing to read for a tenth of a second.
    pub fn is_dry(&self) -> bool {
        self.buffer.input().is_dry()
    }

    /// Whether the next frame, or what is wrong with it, may have to be waited for: the input is a pipe, and the buffer has it
    /// not, or not all of it.
    pub fn may_wait(&self) -> bool {
        let unread = self.buffer.unread();
        self.buffer.input().is_stream()
            && match &self.format {
                Format::Unread => true,
                Format::PcapLittle(file) => !file.is_next_in(unread),
                Format::PcapBig(file) => !file.is_next_in(unread),
                Format::Pcapng(file) => !file.is_next_in(unread),
                Format::Ended => false,
            }
    }

    /// The input below the buffer.
    pub fn input_mut(&mut self) -> &mut Input {
        self.buffer.input_mut()
    }

    /// Gives up everything, once the file has ended; what was wrong with it, if anything.
    pub fn finish(&mut self) -> Option<FileError> {
        self.format = Format::Ended;
        self.head = None;
        self.buffer.close();
        self.failure.take()
    }
}

/// `next` makes a head of the record that the octets which it is given begin with, the place of which in the buffer it is told,
/// and gives what follows it. The buffer hears of all records at once, so that what is left of it can stay in registers.
// Out of line: compilers make one loop of parts of several that stand in one function.
#[inline(never)]
fn gather(
    buffer: &mut Buffer,
    bound: u64,
    run: &mut [Head],
    end: usize,
    mut next: impl for<'a> FnMut(&'a [u8], usize) -> Option<(Head, &'a [u8])>,
) -> (usize, Option<Head>) {
    let (mut unread, mut beyond) = (buffer.unread(), None);
    let (length, most) = (unread.len(), run.len());
    let behind = buffer.place() + length;
    let mut slots = run.get_mut(end..).unwrap_or_default().iter_mut();
    while slots.len() > 0 {
        bring_near(unread);
        let Some((head, rest)) = next(unread, behind - unread.len()) else { break };
        unread = rest;
        if head.timestamp.nanos() >= bound {
            beyond = Some(head);
            break;
        }
        if let Some(slot) = slots.next() {
            *slot = head;
        }
    }
    let (end, gathered) = (most - slots.len(), length - unread.len());
    buffer.consume(gathered);
    (end, beyond)
}

#[cfg(test)]
impl Reader {
    /// Octets of memory that the buffer takes.
    pub fn buffer_capacity(&self) -> usize {
        self.buffer.capacity()
    }
}
