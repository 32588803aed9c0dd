//! Ports, TCP flags, ICMP type and code.
//!
//! In: the octets after the IP header, of which as many as there are may be read. Out: what the Flow Key and the flags
//! take from them. Nothing is refused: what was cut off is 0. The transport header's own lengths (TCP's data offset,
//! UDP's length) are not believed, since none of the fields read here lies behind them.

use etherparse::IpNumber;

/// TCP, RFC 9293.
pub(crate) const TCP: u8 = IpNumber::TCP.0;
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

/// Octets in which all lies that is read of any transport header.
pub(super) const READ: usize = 14;

/// Which bits of the last two of [`READ`] octets are flags, by protocol; [`NO_PORTS`] where the first four are no ports.
/// Looked up rather than compared: whether TCP or UDP comes next nothing foretells.
static FLAG_BITS: [u16; 256] = {
    let mut bits = [NO_PORTS; 256];
    bits[TCP as usize] = TCP_FLAGS;
    bits[UDP as usize] = 0;
    bits[UDP_LITE as usize] = 0;
    bits[SCTP as usize] = 0;
    bits[DCCP as usize] = 0;
    bits
};
const NO_PORTS: u16 = u16::MAX;

/// Whether ports are read of packets of `protocol`.
pub(crate) fn has_ports(protocol: u8) -> bool {
    FLAG_BITS[usize::from(protocol)] != NO_PORTS
}

/// Reads the header of a `protocol` that has ports at the start of `octets`; none of another one.
#[inline(always)]
pub(super) fn with_ports(protocol: u8, octets: &[u8; READ]) -> Option<Transport> {
    let bits = FLAG_BITS[usize::from(protocol)];
    if bits == NO_PORTS {
        return None;
    }
    let &[s, o, d, e, .., high, low] = octets;
    Some(Transport {
        source_port: u16::from_be_bytes([s, o]),
        destination_port: u16::from_be_bytes([d, e]),
        tcp_flags: u16::from_be_bytes([high, low]) & bits,
    })
}

/// Reads the header of a `protocol` that has no ports at the start of `octets`; `icmp` is the ICMP that belongs to the IP
/// version.
#[inline(always)]
pub(super) fn without_ports(protocol: u8, icmp: u8, &[kind, code, ..]: &[u8; READ]) -> Transport {
    let destination_port = if protocol == icmp { u16::from_be_bytes([kind, code]) } else { 0 };
    Transport { source_port: 0, destination_port, tcp_flags: 0 }
}

/// Reads the header of `protocol` at the start of `octets`; `icmp` is the ICMP that belongs to the IP version.
#[inline(always)]
pub(super) fn read(protocol: u8, icmp: u8, octets: &[u8]) -> Transport {
    match octets.first_chunk().and_then(|octets| with_ports(protocol, octets)) {
        Some(transport) => transport,
        None => any(protocol, icmp, octets),
    }
}

/// [`read`], for any protocol and any number of octets.
#[inline(never)]
fn any(protocol: u8, icmp: u8, octets: &[u8]) -> Transport {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Ports 0x1234 and 0x0050; data offset 5, all three unassigned bits, SYN and ACK.
    const SYN_ACK: [u8; 14] = [0x12, 0x34, 0x00, 0x50, 0, 0, 0, 1, 0, 0, 0, 2, 0x5E, 0x12];

    fn ports(source_port: u16, destination_port: u16) -> Transport {
        Transport { source_port, destination_port, tcp_flags: 0 }
    }

    #[test]
    fn five_protocols_have_ports_as_soon_as_four_octets_are_there() {
        for protocol in [6, 17, 33, 132, 136] {
            assert_eq!(read(protocol, ICMP, &SYN_ACK[..4]), ports(0x1234, 0x50), "protocol {protocol}");
            assert_eq!(read(protocol, ICMP, &SYN_ACK[..3]), Transport::default(), "protocol {protocol}");
        }
    }

    #[test]
    fn only_tcp_has_flags_and_only_when_fourteen_octets_are_there() {
        assert_eq!(read(TCP, ICMP, &SYN_ACK).tcp_flags, 0xE12);
        assert_eq!(read(TCP, ICMP, &SYN_ACK[..13]), ports(0x1234, 0x50));
        for protocol in [17, 33, 132, 136] {
            assert_eq!(read(protocol, ICMP, &SYN_ACK), ports(0x1234, 0x50), "protocol {protocol}");
        }
    }

    #[test]
    fn tcp_flags_are_read_whatever_the_data_offset_says() {
        let mut octets = SYN_ACK;
        for offset in [0x00, 0x40, 0xF0] {
            octets[12] = offset | 0x01;
            assert_eq!(read(TCP, ICMP, &octets).tcp_flags, 0x112);
        }
    }

    #[test]
    fn icmp_has_type_and_code_for_a_destination_port_over_its_own_ip_version_only() {
        assert_eq!(read(1, ICMP, &[8, 7]), ports(0, 0x0807));
        assert_eq!(read(58, ICMPV6, &[135, 1]), ports(0, 0x8701));
        assert_eq!(read(1, ICMP, &[8]), Transport::default());
        assert_eq!(read(58, ICMP, &[8, 0]), Transport::default());
        assert_eq!(read(1, ICMPV6, &[8, 0]), Transport::default());
    }

    #[test]
    fn other_protocols_have_ports_0() {
        for protocol in (0..=255).filter(|protocol| ![1, 6, 17, 33, 132, 136].contains(protocol)) {
            assert_eq!(read(protocol, ICMP, &[0xFF; 20]), Transport::default(), "protocol {protocol}");
        }
    }
}
