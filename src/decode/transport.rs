//! Ports, TCP flags, ICMP type and code.
//!
//! In: the octets after the IP header, of which as many as there are may be read. Out: what the Flow Key and the flags
//! take from them. Nothing is refused: what was cut off is 0. The transport header's own lengths (TCP's data offset,
//! UDP's length) are not believed, since none of the fields read here lies behind them.

use etherparse::IpNumber;

/// TCP, RFC 9293.
pub(super) const TCP: u8 = IpNumber::TCP.0;
/// UDP, RFC 768.
pub(super) const UDP: u8 = IpNumber::UDP.0;
/// DCCP, RFC 4340 §5.1.
const DCCP: u8 = IpNumber::DCCP.0;
/// SCTP, RFC 9260 §3.1.
const SCTP: u8 = IpNumber::SCTP.0;
/// UDP-Lite, RFC 3828 §3.
const UDP_LITE: u8 = IpNumber::UDP_LITE.0;
/// ICMP over IPv4, RFC 792.
pub(super) const ICMP: u8 = IpNumber::ICMP.0;
/// ICMPv6 over IPv6, RFC 4443.
pub(super) const ICMPV6: u8 = IpNumber::IPV6_ICMP.0;

/// The flags are the lower twelve bits of TCP's thirteenth and fourteenth octet; above them is the data offset
/// (RFC 9293 §3.1).
const TCP_FLAGS: u16 = 0x0FFF;

/// What a packet's transport header tells; all 0 where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Transport {
    /// Source port.
    pub(super) source_port: u16,
    /// Destination port, or ICMP type × 256 + code.
    pub(super) destination_port: u16,
    /// The twelve TCP flag bits.
    pub(super) tcp_flags: u16,
}

/// Reads the header of `protocol` at the start of `octets`; `icmp` is the ICMP that belongs to the IP version.
#[inline(always)]
pub(super) fn read(protocol: u8, icmp: u8, octets: &[u8]) -> Transport {
    let mut transport = Transport::default();
    if protocol == TCP
        && let Some(&[.., high, low]) = octets.first_chunk::<14>()
    {
        transport.tcp_flags = u16::from_be_bytes([high, low]) & TCP_FLAGS;
    }
    if matches!(protocol, TCP | UDP | UDP_LITE | SCTP | DCCP) {
        if let Some(&[s, o, d, e]) = octets.first_chunk::<4>() {
            transport.source_port = u16::from_be_bytes([s, o]);
            transport.destination_port = u16::from_be_bytes([d, e]);
        }
    } else if protocol == icmp
        && let Some(&[kind, code]) = octets.first_chunk::<2>()
    {
        transport.destination_port = u16::from_be_bytes([kind, code]);
    }
    transport
}
