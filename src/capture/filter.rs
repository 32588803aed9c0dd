//! Filters in libpcap's language (pcap-filter(7)): in, an expression and frames; out, whether it matches.
//!
//! libpcap compiles the expression, anew for each link type that is met, since where an IP header lies depends on it.
//! The compiled program runs here: `pcap::BpfProgram::filter` would pass the captured length for the wire length, and
//! then `greater 100` asks about the snaplen. The machine is that of McCanne and Jacobson, "The BSD Packet Filter"
//! (1993), section 3, with what libpcap added: `mod`, `xor`, and backward jumps for `protochain`.

use std::fmt;

use pcap::{Capture, Linktype};
use thiserror::Error;

use crate::capture::LinkType;

/// A filter expression that libpcap does not compile.
#[derive(Clone, Debug, Error)]
#[error("--filter `{expression}`: {refusal}")]
pub struct FilterError {
    /// The expression.
    pub expression: String,
    /// What libpcap said.
    pub refusal: Refusal,
}

/// Why a filter cannot be asked about frames of one link type, in libpcap's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal(pub String);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A filter expression, compiled for the link types met so far.
#[derive(Debug)]
pub struct Filter {
    expression: String,
    /// Few, the ones met first in front.
    programs: Vec<(LinkType, Result<Program, Refusal>)>,
}

impl Filter {
    /// A filter that matches what `expression` says.
    ///
    /// # Errors
    ///
    /// An expression that libpcap compiles for none of the link types that are decoded; its reason is the one it gives
    /// for Ethernet.
    pub fn new(expression: &str) -> Result<Filter, FilterError> {
        let refusal = match Program::compile(expression, LinkType::ETHERNET) {
            Ok(_) => None,
            // `inbound`, for one, exists only where the link layer says which way a frame went.
            Err(refusal) => {
                let others = [LinkType::LINUX_SLL, LinkType::LINUX_SLL2, LinkType::RAW, LinkType::NULL];
                others.iter().all(|&other| Program::compile(expression, other).is_err()).then_some(refusal)
            }
        };
        match refusal {
            None => Ok(Filter { expression: expression.to_string(), programs: Vec::new() }),
            Some(refusal) => Err(FilterError { expression: expression.to_string(), refusal }),
        }
    }

    /// Whether a frame of `link_type`, `wire_length` octets long on the wire and `data` of it captured, matches.
    ///
    /// # Errors
    ///
    /// The expression cannot be compiled for `link_type`.
    pub fn passes(&mut self, link_type: LinkType, wire_length: u32, data: &[u8]) -> Result<bool, Refusal> {
        let place = match self.programs.iter().position(|(met, _)| *met == link_type) {
            Some(place) => place,
            None => {
                self.programs.push((link_type, Program::compile(&self.expression, link_type)));
                self.programs.len() - 1
            }
        };
        match &self.programs[place].1 {
            Ok(program) => Ok(program.matches(wire_length, data)),
            Err(refusal) => Err(refusal.clone()),
        }
    }
}

/// libpcap's own number for a link type (DLT_, pcap/dlt.h, as on Linux): it differs from the one in files (LINKTYPE_)
/// for the few that systems had numbered differently before files had numbers of their own.
fn dlt(link_type: LinkType) -> i32 {
    const DLT_RAW: i32 = 12;
    match link_type {
        LinkType(100) => 11, // ATM, RFC 1483
        LinkType::RAW | LinkType::RAW_OPENBSD => DLT_RAW,
        LinkType(102) => 15, // SLIP, BSD/OS
        LinkType(103) => 16, // PPP, BSD/OS
        LinkType(106) => 19, // Linux Classical IP
        LinkType(number) => number.into(),
    }
}

/// One instruction: code, jump offsets, operand.
#[derive(Clone, Copy, Debug)]
struct Instruction {
    code: u16,
    if_true: u8,
    if_false: u8,
    k: u32,
}

/// A compiled filter.
#[derive(Debug)]
struct Program {
    instructions: Vec<Instruction>,
}

// Instruction classes, sizes, modes, sources and operations, from section 3.3 of the paper (net/bpf.h).
const LD: u16 = 0x00;
const LDX: u16 = 0x01;
const ST: u16 = 0x02;
const STX: u16 = 0x03;
const ALU: u16 = 0x04;
const JMP: u16 = 0x05;
const RET: u16 = 0x06;
const MISC: u16 = 0x07;

const H: u16 = 0x08;
const B: u16 = 0x10;

const IMM: u16 = 0x00;
const ABS: u16 = 0x20;
const IND: u16 = 0x40;
const MEM: u16 = 0x60;
const LEN: u16 = 0x80;
const MSH: u16 = 0xA0;

/// Whether an operand is X, not the constant.
const X: u16 = 0x08;
const OPERATION: u16 = 0xF0;

/// Words of scratch memory.
const MEMORY: usize = 16;

/// Instructions a run may take. Only `protochain` jumps backward, a header of 8 octets or more at a time.
const MOST_STEPS: u32 = 1 << 20;

impl Program {
    fn compile(expression: &str, link_type: LinkType) -> Result<Program, Refusal> {
        let refused = |error: pcap::Error| match error {
            pcap::Error::PcapError(reason) => Refusal(reason),
            other => Refusal(other.to_string()),
        };
        if expression.contains('\0') {
            return Err(Refusal("a NUL octet in the expression".to_string()));
        }
        let handle = Capture::dead(Linktype(dlt(link_type))).map_err(refused)?;
        let compiled = handle.compile(expression, true).map_err(refused)?;
        // Its fields are private; how it displays itself is its public form.
        let instructions =
            compiled.get_instructions().iter().map(|instruction| parse(&instruction.to_string()));
        match instructions.collect::<Option<Vec<_>>>() {
            Some(instructions) => Ok(Program { instructions }),
            None => Err(Refusal("an instruction that is not four numbers".to_string())),
        }
    }

    /// Runs the program. What libpcap answers with 0 does not match: a load past the captured octets, a division by
    /// zero.
    fn matches(&self, wire_length: u32, data: &[u8]) -> bool {
        self.run(wire_length, data).is_some_and(|taken| taken != 0)
    }

    fn run(&self, wire_length: u32, data: &[u8]) -> Option<u32> {
        let (mut a, mut x, mut memory) = (0_u32, 0_u32, [0_u32; MEMORY]);
        let mut at = 0_usize;
        for _ in 0..MOST_STEPS {
            let Instruction { code, if_true, if_false, k } = *self.instructions.get(at)?;
            at += 1;
            let operand = if code & X == 0 { k } else { x };
            match code & 0x07 {
                LD | LDX => {
                    let (size, mode) = (code & 0x18, code & 0xE0);
                    let value = match mode {
                        IMM => k,
                        ABS => load(data, size, k)?,
                        IND => load(data, size, x.checked_add(k)?)?,
                        MEM => *memory.get(k as usize)?,
                        LEN => wire_length,
                        MSH => (load(data, B, k)? & 0x0F) << 2,
                        _ => return None,
                    };
                    if code & 0x07 == LD { a = value } else { x = value }
                }
                ST => *memory.get_mut(k as usize)? = a,
                STX => *memory.get_mut(k as usize)? = x,
                ALU => {
                    a = match code & OPERATION {
                        0x00 => a.wrapping_add(operand),
                        0x10 => a.wrapping_sub(operand),
                        0x20 => a.wrapping_mul(operand),
                        0x30 => a.checked_div(operand)?,
                        0x40 => a | operand,
                        0x50 => a & operand,
                        0x60 => a.checked_shl(operand).unwrap_or(0),
                        0x70 => a.checked_shr(operand).unwrap_or(0),
                        0x80 => a.wrapping_neg(),
                        0x90 => a.checked_rem(operand)?,
                        0xA0 => a ^ operand,
                        _ => return None,
                    }
                }
                JMP => {
                    let holds = match code & OPERATION {
                        // libpcap's one backward jump: the offset is signed.
                        0x00 => {
                            at = at.checked_add_signed(k as i32 as isize)?;
                            continue;
                        }
                        0x10 => a == operand,
                        0x20 => a > operand,
                        0x30 => a >= operand,
                        0x40 => a & operand != 0,
                        _ => return None,
                    };
                    at += usize::from(if holds { if_true } else { if_false });
                }
                RET => return Some(if code & 0x18 == 0x10 { a } else { k }),
                MISC if code & 0xF8 == 0x00 => x = a,
                MISC if code & 0xF8 == 0x80 => a = x,
                _ => return None,
            }
        }
        None
    }
}

fn parse(displayed: &str) -> Option<Instruction> {
    let mut numbers = displayed.split(' ');
    let instruction = Instruction {
        code: numbers.next()?.parse().ok()?,
        if_true: numbers.next()?.parse().ok()?,
        if_false: numbers.next()?.parse().ok()?,
        k: numbers.next()?.parse().ok()?,
    };
    numbers.next().is_none().then_some(instruction)
}

/// The octet, or the two or four in network byte order, at `at`.
#[inline]
fn load(data: &[u8], size: u16, at: u32) -> Option<u32> {
    let from = data.get(at as usize..)?;
    match size {
        B => from.first().map(|&octet| octet.into()),
        H => from.first_chunk().map(|&octets| u16::from_be_bytes(octets).into()),
        _ => from.first_chunk().map(|&octets| u32::from_be_bytes(octets)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPRESSIONS: &[&str] = &[
        "",
        "ip",
        "tcp port 80 or udp port 53",
        "tcp[tcpflags] & (tcp-syn|tcp-fin) != 0",
        "ip6 and not icmp6",
        "vlan and tcp",
        "net 10.0.0.0/8 and portrange 1-1023",
        "ip[0] & 0xf != 5",
        "len > 60",
        "greater 100",
        "less 64",
        "ip6 protochain 6",
        "ip[2:2] / 3 + ip[4:2] * 2 - 1 > ip[6:2] % 7",
        "ip[2:2] << 3 >> 1 ^ ip[4:2] | 5 < 90000",
        "ip[2:2] / (ip[8] - ip[9]) > 2",
        "ip[ip[9]:4] = 0",
        "mpls and ip",
    ];

    /// Frames that look like IPv4 and IPv6 over Ethernet now and then.
    fn frames() -> Vec<Vec<u8>> {
        let mut state = 0x5EED_u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize
        };
        let ethertypes = [[0x08, 0x00], [0x86, 0xDD], [0x81, 0x00], [0x88, 0x47], [0x12, 0x34]];
        (0..4_000)
            .map(|_| {
                let mut frame: Vec<u8> = (0..next() % 160).map(|_| (next() % 9) as u8).collect();
                if frame.len() > 24 {
                    frame[12..14].copy_from_slice(&ethertypes[next() % 5]);
                    frame[14] = [0x45, 0x46, 0x60][next() % 3];
                    frame[23] = [6, 17, 1, 0][next() % 4];
                    frame[20] = [6, 17, 0, 51][next() % 4];
                }
                frame
            })
            .collect()
    }

    #[test]
    fn programs_answer_as_libpcap_does() {
        let mut matched = 0;
        for expression in EXPRESSIONS {
            for link_type in [LinkType::ETHERNET, LinkType::RAW, LinkType::LINUX_SLL2, LinkType::NULL] {
                let Ok(program) = Program::compile(expression, link_type) else { continue };
                let handle = Capture::dead(Linktype(dlt(link_type))).unwrap();
                let theirs = handle.compile(expression, true).unwrap();
                for frame in frames() {
                    let ours = program.matches(frame.len() as u32, &frame);
                    assert_eq!(ours, theirs.filter(&frame), "{expression} {link_type:?} {frame:02x?}");
                    matched += usize::from(ours);
                }
            }
        }
        assert!(matched > 10_000, "{matched}");
    }

    #[test]
    fn the_wire_length_is_the_one_that_a_filter_compares() {
        let mut filter = Filter::new("greater 100").unwrap();
        assert_eq!(filter.passes(LinkType::ETHERNET, 100, &[0; 10]), Ok(true));
        assert_eq!(filter.passes(LinkType::ETHERNET, 99, &[0; 200]), Ok(false));
    }

    #[test]
    fn link_types_that_libpcap_numbers_otherwise_are_translated() {
        let mut ipv4 = [0; 20];
        ipv4[0] = 0x45;
        for link_type in [LinkType::RAW, LinkType::RAW_BSD, LinkType::RAW_OPENBSD, LinkType::IPV4] {
            assert_eq!(Filter::new("ip").unwrap().passes(link_type, 20, &ipv4), Ok(true), "{link_type:?}");
        }
        let looped = [&[0, 0, 0, 2][..], &ipv4].concat();
        assert_eq!(Filter::new("ip").unwrap().passes(LinkType::LOOP, 24, &looped), Ok(true));
    }

    #[test]
    fn a_program_that_jumps_back_for_ever_does_not_match() {
        let instructions = vec![Instruction { code: JMP, if_true: 0, if_false: 0, k: -1_i32 as u32 }];
        assert!(!Program { instructions }.matches(0, &[]));
    }

    #[test]
    fn any_instructions_end_without_a_panic() {
        let mut state = 7_u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state >> 33
        };
        for _ in 0..2_000 {
            let instructions = (0..20)
                .map(|_| Instruction {
                    code: (next() % 256) as u16,
                    if_true: (next() % 20) as u8,
                    if_false: (next() % 20) as u8,
                    k: [0, 1, 15, 16, 31, 32, 0x7FFF_FFFF, u32::MAX][(next() % 8) as usize],
                })
                // Never back: a loop would only take its time.
                .map(|i| Instruction { k: if i.code & 0xF7 == JMP { 1 } else { i.k }, ..i })
                .collect();
            Program { instructions }.matches(3, &[1, 2, 3, 4, 5, 6, 7, 8]);
        }
    }

    #[test]
    fn what_no_decoded_link_type_compiles_is_refused_with_libpcaps_reason() {
        for expression in ["tcp prot 80", "ip[", "host 300.1.1.1", "\0"] {
            let refused = Filter::new(expression).unwrap_err();
            assert_eq!(refused.expression, expression);
            assert!(!refused.refusal.0.is_empty());
        }
    }
}
