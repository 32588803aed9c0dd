//! The pcap format, of libpcap's savefile(5): in, the octets after the 4 that named it; out, one [`Head`] a record.

use super::LONGEST_FRAME;
use super::buffer::{Buffer, four};
use super::error::{Damage, Stop};
use super::reader::Head;
use crate::capture::LinkType;
use crate::time::Timestamp;

/// Octets of the file header.
const FILE_HEADER: usize = 24;
/// Octets of a record's header.
const RECORD_HEADER: usize = 16;

/// The two byte orders a capture may be written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ByteOrder {
    Little,
    Big,
}

/// What the first four octets say of a pcap file.
pub(super) fn recognise(magic: [u8; 4]) -> Option<(ByteOrder, u32)> {
    match magic {
        [0xD4, 0xC3, 0xB2, 0xA1] => Some((ByteOrder::Little, 1_000)),
        [0xA1, 0xB2, 0xC3, 0xD4] => Some((ByteOrder::Big, 1_000)),
        [0x4D, 0x3C, 0xB2, 0xA1] => Some((ByteOrder::Little, 1)),
        [0xA1, 0xB2, 0x3C, 0x4D] => Some((ByteOrder::Big, 1)),
        _ => None,
    }
}

/// A pcap file past its header; `BIG` is its byte order, known when it is compiled since records are read by the million.
pub(super) struct Pcap<const BIG: bool> {
    fraction_nanos: u64,
    link_type: LinkType,
    interface: u32,
}

#[inline(always)]
pub(super) fn number<const BIG: bool>(octets: [u8; 4]) -> u32 {
    if BIG { u32::from_be_bytes(octets) } else { u32::from_le_bytes(octets) }
}

impl<const BIG: bool> Pcap<BIG> {
    /// Reads the file header. A unit of a record's fraction of a second is `fraction_nanos` ns.
    pub fn open(buffer: &mut Buffer, fraction_nanos: u32, interface: u32) -> Result<Self, Damage> {
        let offset = buffer.offset();
        buffer
            .require(FILE_HEADER, "pcap file header", FILE_HEADER as u64)
            .map_err(|stop| stop.in_record_at(offset, buffer))?;
        // The high half of the field holds the length of a frame check sequence, or should be zero and is not.
        let link_type = LinkType(number::<BIG>(four(buffer.unread(), 20)) as u16);
        buffer.consume(FILE_HEADER);
        Ok(Pcap { fraction_nanos: fraction_nanos.into(), link_type, interface })
    }

    /// The record that `unread` begins with, if it is sound and wholly there, and what follows it; `place` is where
    /// `unread` lies in the buffer.
    #[inline(always)]
    pub fn record_in<'a>(&self, unread: &'a [u8], place: usize) -> Option<(Head, &'a [u8])> {
        let (header, octets) = unread.split_first_chunk::<RECORD_HEADER>()?;
        let field = |at| number::<BIG>(four(header, at));
        let captured = field(8);
        if captured > LONGEST_FRAME {
            return None;
        }
        let rest = octets.get(captured as usize..)?;
        let nanos = u64::from(field(0)) * 1_000_000_000 + u64::from(field(4)) * self.fraction_nanos;
        let head = Head {
            // 2³² s and as many µs come to less than 2⁶³ ns.
            timestamp: Timestamp::again(nanos),
            wire_length: field(12),
            link_type: self.link_type,
            interface: self.interface,
            place: (place + RECORD_HEADER) as u32,
            captured,
        };
        Some((head, rest))
    }

    /// Whether `unread` begins with all of a record, or enough of one to say what is wrong with it.
    pub fn is_next_in(&self, unread: &[u8]) -> bool {
        let Some((header, octets)) = unread.split_first_chunk::<RECORD_HEADER>() else { return false };
        let captured = number::<BIG>(four(header, 8));
        captured > LONGEST_FRAME || octets.len() >= captured as usize
    }

    /// The next record, reading what is missing; none at the end of the file.
    pub fn next(&self, buffer: &mut Buffer) -> Result<Option<Head>, Damage> {
        let offset = buffer.offset();
        if !buffer.fill(1)? {
            return Ok(None);
        }
        self.record(buffer).map(Some).map_err(|stop| stop.in_record_at(offset, buffer))
    }

    fn record(&self, buffer: &mut Buffer) -> Result<Head, Stop> {
        const WHAT: &str = "packet record";
        buffer.require(RECORD_HEADER, WHAT, RECORD_HEADER as u64)?;
        let captured = number::<BIG>(four(buffer.unread(), 8));
        if captured > LONGEST_FRAME {
            return Err(super::error::Reason::CapturedLength(captured).into());
        }
        let whole = RECORD_HEADER + captured as usize;
        buffer.require(whole, WHAT, whole as u64)?;
        let record = self.record_in(buffer.unread(), buffer.place());
        let (head, _) = record.ok_or(Stop::CutOff { what: WHAT, needed: whole as u64 })?;
        buffer.consume(whole);
        Ok(head)
    }
}
