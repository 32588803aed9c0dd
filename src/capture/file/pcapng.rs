//! The pcapng format (draft-ietf-opsawg-pcapng): in, blocks; out, one [`Head`] a packet block.
//!
//! Sections in either byte order, any number of interfaces each. Enhanced packet blocks that lie wholly in the buffer
//! take the short way; everything else, and every block at fault, the long one, which says what is wrong.

use super::LONGEST_FRAME;
use super::buffer::{Buffer, four};
use super::error::{Damage, Reason, Stop};
use super::pcap::number;
use super::reader::Head;
use crate::capture::LinkType;
use crate::time::Timestamp;

/// The first four octets of a section header block: the same in both byte orders.
pub(super) const SECTION_HEADER: [u8; 4] = [0x0A, 0x0D, 0x0D, 0x0A];

const INTERFACE_DESCRIPTION: u32 = 1;
/// Obsolete, and still found.
const PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;

/// Interfaces that a section may describe, in 64 MiB of memory: far more than any machine has. A block that describes one has
/// 20 octets, and compressed hardly any, so that without a limit a small file would fill any memory.
pub(super) const MOST_INTERFACES: usize = 1 << 20;

/// Octets that frame every block: type and length before its body, the length again behind it.
const BLOCK: u32 = 12;
/// Octets of a block before its body.
const LEADING: usize = 8;
/// Octets of an enhanced or obsolete packet block before the captured ones.
const PACKET_HEADER: usize = LEADING + 20;
/// Octets of a simple packet block before the captured ones.
const SIMPLE_HEADER: usize = LEADING + 4;

const OPTION_END: u16 = 0;
const OPTION_TSRESOL: u16 = 9;
const OPTION_TSOFFSET: u16 = 14;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// How an interface's ticks become nanoseconds.
#[derive(Clone, Copy, Debug)]
enum Resolution {
    /// A tick is so many ns.
    Multiply(u64),
    /// A nanosecond is so many ticks.
    Divide(u64),
    /// A second is two to that power of ticks.
    Power(u32),
}

/// Whether a section with this byte-order magic is big-endian; none if it is none.
fn byte_order(magic: [u8; 4]) -> Option<bool> {
    match magic {
        [0x4D, 0x3C, 0x2B, 0x1A] => Some(false),
        [0x1A, 0x2B, 0x3C, 0x4D] => Some(true),
        _ => None,
    }
}

/// An interface's clock.
#[derive(Clone, Copy, Debug)]
struct Clock {
    resolution: Resolution,
    offset_nanos: i128,
    /// ns a tick, when that is all there is to it; else 0.
    plain: u64,
}

impl Clock {
    fn new(tsresol: u8, offset_seconds: i64) -> Clock {
        let exponent = u32::from(tsresol & 0x7F);
        let resolution = match exponent {
            _ if tsresol & 0x80 != 0 => Resolution::Power(exponent),
            0..=9 => Resolution::Multiply(10_u64.pow(9 - exponent)),
            10..=28 => Resolution::Divide(10_u64.pow(exponent - 9)),
            // 64 bits of ticks stay below a nanosecond, as they do below 2⁻¹²⁷ s.
            _ => Resolution::Power(127),
        };
        let plain = match resolution {
            Resolution::Multiply(nanos) if offset_seconds == 0 => nanos,
            _ => 0,
        };
        Clock { resolution, offset_nanos: i128::from(offset_seconds) * i128::from(NANOS_PER_SECOND), plain }
    }

    /// The time of `ticks`, rounded down to a nanosecond and held to what a [`Timestamp`] holds.
    #[inline(always)]
    fn timestamp(&self, ticks: u64) -> Timestamp {
        if self.plain != 0 {
            return Timestamp::from_nanos(ticks.saturating_mul(self.plain));
        }
        self.timestamp_of_any(ticks)
    }

    #[inline(never)]
    fn timestamp_of_any(&self, ticks: u64) -> Timestamp {
        let nanos = match self.resolution {
            Resolution::Multiply(nanos) => u128::from(ticks) * u128::from(nanos),
            Resolution::Divide(ticks_per_nano) => u128::from(ticks / ticks_per_nano),
            Resolution::Power(exponent) => (u128::from(ticks) * u128::from(NANOS_PER_SECOND)) >> exponent,
        };
        // Neither term reaches 2⁹⁵, so neither the cast nor the sum can overflow.
        let nanos = (nanos as i128 + self.offset_nanos).clamp(0, i128::from(i64::MAX));
        Timestamp::from_nanos(nanos as u64)
    }
}

#[derive(Debug)]
struct Interface {
    link_type: LinkType,
    snaplen: u32,
    clock: Clock,
}

/// A pcapng file being read: what the blocks so far say of those to come.
pub(super) struct Pcapng {
    big: bool,
    interfaces: Vec<Interface>,
    /// The time of the last packet: a simple packet block has none of its own.
    last: Timestamp,
    /// Overrides the interface number of every frame.
    interface: Option<u32>,
}

impl Pcapng {
    pub fn new(interface: Option<u32>) -> Pcapng {
        Pcapng { big: false, interfaces: Vec::new(), last: Timestamp::EPOCH, interface }
    }

    /// The frame of the enhanced packet block that `unread` begins with, if it is sound and wholly there, and what follows
    /// it; `place` is where `unread` lies in the buffer.
    #[inline(always)]
    pub fn record_in<'a, const BIG: bool>(
        &mut self,
        unread: &'a [u8],
        place: usize,
    ) -> Option<(Head, &'a [u8])> {
        let header = unread.first_chunk::<PACKET_HEADER>()?;
        let field = |at| number::<BIG>(four(header, at));
        let length = field(4) as usize;
        if field(0) != ENHANCED_PACKET || length < PACKET_HEADER + 4 {
            return None;
        }
        let (block, rest) = unread.split_at_checked(length)?;
        let captured = field(20);
        if captured > LONGEST_FRAME || captured as usize > length - PACKET_HEADER - 4 {
            return None;
        }
        if number::<BIG>(*block.last_chunk()?) != length as u32 {
            return None;
        }
        let number = field(8);
        let interface = self.interfaces.get(number as usize)?;
        let timestamp = interface.clock.timestamp(u64::from(field(12)) << 32 | u64::from(field(16)));
        self.last = timestamp;
        let head = Head {
            timestamp,
            wire_length: field(24),
            link_type: interface.link_type,
            interface: self.interface.unwrap_or(number),
            place: (place + PACKET_HEADER) as u32,
            captured,
        };
        Some((head, rest))
    }

    /// Whether `unread` has all of a packet block, behind whatever else, or enough of a block to say what is wrong with it.
    pub fn is_next_in(&self, mut unread: &[u8]) -> bool {
        let mut big = self.big;
        while let Some(leading) = unread.first_chunk::<{ BLOCK as usize }>() {
            if four(leading, 0) == SECTION_HEADER {
                match byte_order(four(leading, 8)) {
                    Some(its) => big = its,
                    None => return true,
                }
            }
            let field =
                |at| if big { number::<true>(four(leading, at)) } else { number::<false>(four(leading, at)) };
            let (kind, length) = (field(0), field(4));
            if length < BLOCK {
                return true;
            }
            let Some(rest) = unread.get(length as usize..) else { return false };
            if matches!(kind, ENHANCED_PACKET | PACKET | SIMPLE_PACKET) {
                return true;
            }
            unread = rest;
        }
        false
    }

    /// The next frame, reading what is missing and stepping over blocks that are no packets; none at the end of the
    /// file.
    pub fn next(&mut self, buffer: &mut Buffer) -> Result<Option<Head>, Damage> {
        loop {
            let offset = buffer.offset();
            if !buffer.fill(1)? {
                return Ok(None);
            }
            match self.block(buffer) {
                Ok(Some(head)) => return Ok(Some(head)),
                Ok(None) => {}
                Err(stop) => return Err(stop.in_record_at(offset, buffer)),
            }
        }
    }

    /// Whether this section's fields are big-endian.
    pub fn is_big(&self) -> bool {
        self.big
    }

    fn u32(&self, octets: &[u8], at: usize) -> u32 {
        let octets = four(octets, at);
        if self.big { u32::from_be_bytes(octets) } else { u32::from_le_bytes(octets) }
    }

    /// The 16-bit field in the first half of the four octets at `at`, and the one in the second.
    fn u16s(&self, octets: &[u8], at: usize) -> (u16, u16) {
        let [a, b, c, d] = four(octets, at);
        if self.big {
            (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]))
        } else {
            (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]))
        }
    }

    fn block(&mut self, buffer: &mut Buffer) -> Result<Option<Head>, Stop> {
        buffer.require(BLOCK as usize, "block", BLOCK.into())?;
        let leading = buffer.unread();
        if four(leading, 0) == SECTION_HEADER {
            let magic = four(leading, 8);
            self.big = byte_order(magic).ok_or(Reason::ByteOrder(magic))?;
            self.interfaces.clear();
        }
        let (kind, length) = (self.u32(leading, 0), self.u32(leading, 4));
        if length < BLOCK {
            return Err(Reason::BlockLength(length).into());
        }
        match kind {
            INTERFACE_DESCRIPTION => {
                if self.interfaces.len() >= MOST_INTERFACES {
                    return Err(Reason::TooManyInterfaces(self.interfaces.len() + 1).into());
                }
                let interface = self.interface_description(buffer, length)?;
                self.interfaces.push(interface);
                Ok(None)
            }
            ENHANCED_PACKET | PACKET => self.packet(buffer, kind, length).map(Some),
            SIMPLE_PACKET => self.simple_packet(buffer, length).map(Some),
            _ => {
                let body = u64::from(length - BLOCK);
                self.end_block(buffer, "block", length, LEADING, body)?;
                Ok(None)
            }
        }
    }

    /// Consumes a block of which `kept` octets are in the buffer and `skipped` lie between them and its second
    /// length; the place of the kept ones.
    fn end_block(
        &self,
        buffer: &mut Buffer,
        what: &'static str,
        length: u32,
        kept: usize,
        skipped: u64,
    ) -> Result<usize, Stop> {
        let Some((place, last)) = buffer.skip_behind(kept, skipped)? else {
            return Err(Stop::CutOff { what, needed: length.into() });
        };
        let trailing = self.u32(&last, 0);
        if trailing != length {
            return Err(Reason::BlockLengths { leading: length, trailing }.into());
        }
        Ok(place)
    }

    fn interface_description(&self, buffer: &mut Buffer, length: u32) -> Result<Interface, Stop> {
        const WHAT: &str = "interface description block";
        const FIXED: u32 = 8;
        if length < BLOCK + FIXED {
            return Err(Reason::Fields { what: WHAT, length, needed: (BLOCK + FIXED).into() }.into());
        }
        let cut_off = u64::from(length);
        let fixed = LEADING + FIXED as usize;
        buffer.require(fixed, WHAT, cut_off)?;
        let octets = buffer.unread();
        let (link_type, _) = self.u16s(octets, LEADING);
        let snaplen = self.u32(octets, LEADING + 4);
        buffer.consume(fixed);

        // The options are read one at a time: a block of them may be longer than any buffer.
        let (mut tsresol, mut offset_seconds) = (6, 0);
        let mut left = length - BLOCK - FIXED;
        while left >= 4 {
            buffer.require(4, WHAT, cut_off)?;
            let (code, value_length) = self.u16s(buffer.unread(), 0);
            if code == OPTION_END {
                break;
            }
            let padded = 4 + u32::from(value_length).next_multiple_of(4);
            if 4 + u32::from(value_length) <= left {
                match (code, value_length) {
                    (OPTION_TSRESOL, 1) => {
                        buffer.require(5, WHAT, cut_off)?;
                        tsresol = buffer.unread()[4];
                    }
                    (OPTION_TSOFFSET, 8) => {
                        buffer.require(12, WHAT, cut_off)?;
                        let (first, second) = (self.u32(buffer.unread(), 4), self.u32(buffer.unread(), 8));
                        let (high, low) = if self.big { (first, second) } else { (second, first) };
                        offset_seconds = (u64::from(high) << 32 | u64::from(low)) as i64;
                    }
                    _ => {}
                }
            }
            if padded > left {
                break;
            }
            buffer.require(padded as usize, WHAT, cut_off)?;
            buffer.consume(padded as usize);
            left -= padded;
        }
        self.end_block(buffer, WHAT, length, 0, left.into())?;
        Ok(Interface { link_type: LinkType(link_type), snaplen, clock: Clock::new(tsresol, offset_seconds) })
    }

    fn packet(&mut self, buffer: &mut Buffer, kind: u32, length: u32) -> Result<Head, Stop> {
        const WHAT: &str = "packet block";
        let least = PACKET_HEADER + 4;
        if (length as usize) < least {
            return Err(Reason::Fields { what: WHAT, length, needed: least as u64 }.into());
        }
        buffer.require(PACKET_HEADER, WHAT, length.into())?;
        let header = buffer.unread();
        let number = match kind {
            // The second half counts drops.
            PACKET => self.u16s(header, 8).0.into(),
            _ => self.u32(header, 8),
        };
        let ticks = u64::from(self.u32(header, 12)) << 32 | u64::from(self.u32(header, 16));
        let (captured, wire_length) = (self.u32(header, 20), self.u32(header, 24));
        let Some(interface) = self.interfaces.get(number as usize) else {
            return Err(Reason::Interface { found: number, described: self.interfaces.len() }.into());
        };
        let (link_type, timestamp) = (interface.link_type, interface.clock.timestamp(ticks));
        let place = self.captured(buffer, WHAT, length, PACKET_HEADER, captured)?;
        self.last = timestamp;
        Ok(Head {
            timestamp,
            wire_length,
            link_type,
            interface: self.interface.unwrap_or(number),
            place: place as u32,
            captured,
        })
    }

    fn simple_packet(&mut self, buffer: &mut Buffer, length: u32) -> Result<Head, Stop> {
        const WHAT: &str = "simple packet block";
        let least = SIMPLE_HEADER + 4;
        if (length as usize) < least {
            return Err(Reason::Fields { what: WHAT, length, needed: least as u64 }.into());
        }
        let Some(interface) = self.interfaces.first() else {
            return Err(Reason::Interface { found: 0, described: 0 }.into());
        };
        let (link_type, snaplen) = (interface.link_type, interface.snaplen);
        buffer.require(SIMPLE_HEADER, WHAT, length.into())?;
        let wire_length = self.u32(buffer.unread(), 8);
        let captured = if snaplen == 0 { wire_length } else { wire_length.min(snaplen) };
        let place = self.captured(buffer, WHAT, length, SIMPLE_HEADER, captured)?;
        Ok(Head {
            timestamp: self.last,
            wire_length,
            link_type,
            interface: self.interface.unwrap_or(0),
            place: place as u32,
            captured,
        })
    }

    /// Consumes a packet block with a header of `header` octets; the place of the `captured` ones behind it.
    fn captured(
        &self,
        buffer: &mut Buffer,
        what: &'static str,
        length: u32,
        header: usize,
        captured: u32,
    ) -> Result<usize, Stop> {
        if captured > LONGEST_FRAME {
            return Err(Reason::CapturedLength(captured).into());
        }
        let kept = header + captured as usize;
        if (length as usize) < kept + 4 {
            return Err(Reason::Fields { what, length, needed: kept as u64 + 4 }.into());
        }
        buffer.require(kept, what, length.into())?;
        let place = self.end_block(buffer, what, length, kept, length as u64 - kept as u64 - 4)?;
        Ok(place + header)
    }
}
