//! From the first octet of a frame to its IP header.
//!
//! In: a link type and the octets of a frame. Out: where the IP header begins, which version the link layer says it is, and
//! the outermost VLAN identifier; or the reason why there is none. Walked are IEEE 802.3 and 802.1Q framing, VN-Tags, LLC/SNAP
//! (RFC 1042), PPPoE sessions (RFC 2516), MPLS (RFC 3032, RFC 5332), Linux cooked captures, BSD loopback and raw IP.

use etherparse::{EtherType, Ethernet2Header, Ethernet2HeaderSlice, SingleVlanHeader, SingleVlanHeaderSlice};

use super::{Ignored, IpVersion};
use crate::capture::LinkType;

/// The largest value of the Ethernet type field that is a length: maxBasicDataSize, IEEE 802.3 §3.2.7.
const LARGEST_LENGTH: u16 = 1500;
/// Tags that hold a VLAN identifier: 802.1Q, 802.1ad, and what preceded 802.1ad.
const VLAN_TAGS: [EtherType; 3] =
    [EtherType::VLAN_TAGGED_FRAME, EtherType::PROVIDER_BRIDGING, EtherType::VLAN_DOUBLE_TAGGED_FRAME];
/// The VLAN identifier is the lower twelve bits of the tag; 0 says that there is only a priority, IEEE 802.1Q §9.6.
pub(super) const NO_VLAN: u16 = 0;
/// VN-Tag: four octets of interface identifiers, then the next type.
const VN_TAG: u16 = 0x8926;
/// PPPoE session stage, RFC 2516 §4.
const PPPOE_SESSION: u16 = 0x8864;
/// MPLS, the top label downstream-assigned (once: unicast), RFC 5332 §3.
const MPLS: u16 = 0x8847;
/// MPLS, the top label upstream-assigned (once: multicast), RFC 5332 §3.
const MPLS_UPSTREAM: u16 = 0x8848;

/// LLC with DSAP and SSAP of SNAP and unnumbered information, then OUI 0: a type field follows, RFC 1042.
const SNAP: [u8; 6] = [0xAA, 0xAA, 0x03, 0, 0, 0];
/// Least bit of the third octet of an MPLS label stack entry: the last entry, RFC 3032 §2.1.
const BOTTOM_OF_STACK: u8 = 1;
/// IPv4 in the PPP protocol field, RFC 1332 §2.
const PPP_IPV4: u16 = 0x0021;
/// IPv6 in the PPP protocol field, RFC 5072 §3.
const PPP_IPV6: u16 = 0x0057;
/// A PPP protocol number's last octet is odd and the one before it even, so that it may be left out, RFC 1661 §2.
const PPP_LAST_OCTET: u8 = 1;

/// Octets of the Linux cooked header, version 1; the protocol type is the last two.
const SLL_LENGTH: usize = 16;
/// Octets of the Linux cooked header, version 2; the protocol type is the first two.
const SLL2_LENGTH: usize = 20;
/// AF_INET, the same everywhere.
const FAMILY_IPV4: u32 = 2;
/// AF_INET6 of Linux, of NetBSD and OpenBSD, of FreeBSD, of macOS.
const FAMILIES_IPV6: [u32; 4] = [10, 24, 28, 30];

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Carried {
    /// Octets that precede the IP header.
    pub(super) at: usize,
    /// The outermost VLAN identifier other than 0; 0 for none.
    pub(super) vlan: u16,
    /// The IP version that the link layer names.
    pub(super) version: IpVersion,
}

/// The VLAN identifier of the 802.1Q tag that follows the addresses of an Ethernet frame, if one does, and the frame from the
/// tag's length on, where all that follows the tag lies as if there were none.
#[inline(always)]
pub(super) fn one_tag(data: &[u8]) -> Option<(u16, &[u8])> {
    let ethernet = Ethernet2HeaderSlice::from_slice(data).ok()?;
    if ethernet.ether_type() != EtherType::VLAN_TAGGED_FRAME {
        return None;
    }
    let tag = SingleVlanHeaderSlice::from_slice(data.get(Ethernet2Header::LEN..)?).ok()?;
    Some((tag.vlan_identifier().value(), data.get(SingleVlanHeader::LEN..)?))
}

/// Finds the IP header of a frame of any link type; that of untagged Ethernet in a few steps.
#[inline(always)]
pub(super) fn find(link_type: LinkType, data: &[u8]) -> Result<Carried, Ignored> {
    if link_type == LinkType::ETHERNET
        && let Ok(ethernet) = Ethernet2HeaderSlice::from_slice(data)
    {
        let behind = |version| Carried { at: Ethernet2Header::LEN, vlan: NO_VLAN, version };
        match ethernet.ether_type() {
            EtherType::IPV4 => return Ok(behind(IpVersion::V4)),
            EtherType::IPV6 => return Ok(behind(IpVersion::V6)),
            _ => {}
        }
    }
    walk(link_type, data)
}

/// Finds the IP header of a frame of any link type.
#[inline(never)]
pub(super) fn walk(link_type: LinkType, data: &[u8]) -> Result<Carried, Ignored> {
    match link_type {
        LinkType::ETHERNET => match data.split_first_chunk::<{ Ethernet2Header::LEN }>() {
            Some((&[.., high, low], rest)) => walk_types(data, [high, low], rest),
            None => Err(Ignored::Truncated),
        },
        LinkType::LINUX_SLL => match data.split_first_chunk::<SLL_LENGTH>() {
            Some((&[.., high, low], rest)) => walk_types(data, [high, low], rest),
            None => Err(Ignored::Truncated),
        },
        LinkType::LINUX_SLL2 => match data.split_first_chunk::<SLL2_LENGTH>() {
            Some((&[high, low, ..], rest)) => walk_types(data, [high, low], rest),
            None => Err(Ignored::Truncated),
        },
        LinkType::RAW | LinkType::RAW_BSD | LinkType::RAW_OPENBSD => match data.first() {
            Some(first) => match nibble_version(*first) {
                Some(version) => Ok(Carried { at: 0, vlan: NO_VLAN, version }),
                None => Err(Ignored::Malformed),
            },
            None => Err(Ignored::Truncated),
        },
        LinkType::IPV4 => Ok(Carried { at: 0, vlan: NO_VLAN, version: IpVersion::V4 }),
        LinkType::IPV6 => Ok(Carried { at: 0, vlan: NO_VLAN, version: IpVersion::V6 }),
        LinkType::NULL | LinkType::LOOP => match data.first_chunk::<4>() {
            Some(&family) => match family_version(family) {
                Some(version) => Ok(Carried { at: family.len(), vlan: NO_VLAN, version }),
                None => Err(Ignored::NonIp),
            },
            None => Err(Ignored::Truncated),
        },
        _ => Err(Ignored::LinkType),
    }
}

/// The version that the first octet of an IP header tells, RFC 791 §3.1, RFC 8200 §3.
fn nibble_version(first: u8) -> Option<IpVersion> {
    match first >> 4 {
        4 => Some(IpVersion::V4),
        6 => Some(IpVersion::V6),
        _ => None,
    }
}

/// The version that an address family of either byte order names: all families are small numbers, so the order that
/// makes it one is the order it was written in.
fn family_version(octets: [u8; 4]) -> Option<IpVersion> {
    let little = u32::from_le_bytes(octets);
    let family = if little > u32::from(u16::MAX) { u32::from_be_bytes(octets) } else { little };
    match family {
        FAMILY_IPV4 => Some(IpVersion::V4),
        _ if FAMILIES_IPV6.contains(&family) => Some(IpVersion::V6),
        _ => None,
    }
}

/// Takes the first `N` octets off `rest`.
fn take<'a, const N: usize>(rest: &mut &'a [u8]) -> Result<&'a [u8; N], Ignored> {
    let (taken, left) = rest.split_first_chunk::<N>().ok_or(Ignored::Truncated)?;
    *rest = left;
    Ok(taken)
}

/// Walks tags, SNAP, PPPoE and labels: `kind` is the type field before `rest`, and `rest` the end of `data`.
fn walk_types(data: &[u8], kind: [u8; 2], mut rest: &[u8]) -> Result<Carried, Ignored> {
    let mut kind = u16::from_be_bytes(kind);
    let mut vlan = NO_VLAN;
    loop {
        if kind <= LARGEST_LENGTH {
            // What contradicts SNAP is something else even where the frame was cut before SNAP could be complete.
            if rest.iter().zip(&SNAP).any(|(seen, snap)| seen != snap) {
                return Err(Ignored::NonIp);
            }
            let &[_, _, _, _, _, _, high, low] = take::<8>(&mut rest)?;
            kind = u16::from_be_bytes([high, low]);
            if kind <= LARGEST_LENGTH {
                return Err(Ignored::NonIp);
            }
        } else if VLAN_TAGS.contains(&EtherType(kind)) {
            let tag = SingleVlanHeaderSlice::from_slice(rest).map_err(|_| Ignored::Truncated)?;
            if vlan == NO_VLAN {
                vlan = tag.vlan_identifier().value();
            }
            kind = tag.ether_type().0;
            take::<4>(&mut rest)?;
        } else if kind == VN_TAG {
            let &[_, _, _, _, high, low] = take::<6>(&mut rest)?;
            kind = u16::from_be_bytes([high, low]);
        } else {
            break;
        }
    }
    let version = match kind {
        PPPOE_SESSION => pppoe(&mut rest)?,
        MPLS | MPLS_UPSTREAM => labels(&mut rest)?,
        _ => match EtherType(kind) {
            EtherType::IPV4 => Some(IpVersion::V4),
            EtherType::IPV6 => Some(IpVersion::V6),
            _ => None,
        },
    };
    match version {
        Some(version) => Ok(Carried { at: data.len() - rest.len(), vlan, version }),
        None => Err(Ignored::NonIp),
    }
}

/// PPPoE session: six octets, then PPP's protocol field of two octets or, compressed, one (RFC 2516 §4, RFC 1661 §6.5).
fn pppoe(rest: &mut &[u8]) -> Result<Option<IpVersion>, Ignored> {
    // Eight octets are asked for even where seven would do: a packet never ends here, so a frame that does was cut.
    let &[_, _, _, _, _, _, first, second] = rest.first_chunk::<8>().ok_or(Ignored::Truncated)?;
    take::<6>(rest)?;
    let protocol = if first & PPP_LAST_OCTET != 0 {
        take::<1>(rest)?;
        u16::from(first)
    } else {
        take::<2>(rest)?;
        u16::from_be_bytes([first, second])
    };
    Ok(match protocol {
        PPP_IPV4 => Some(IpVersion::V4),
        PPP_IPV6 => Some(IpVersion::V6),
        _ => None,
    })
}

/// An MPLS label stack, RFC 3032 §2.1. Nothing names what follows it; its first nibble tells, RFC 4928 §2.
fn labels(rest: &mut &[u8]) -> Result<Option<IpVersion>, Ignored> {
    loop {
        let &[_, _, bottom, _] = take::<4>(rest)?;
        if bottom & BOTTOM_OF_STACK != 0 {
            break;
        }
    }
    let first = rest.first().ok_or(Ignored::Truncated)?;
    Ok(nibble_version(*first))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Twelve octets of MAC addresses, then `rest`.
    fn ethernet(rest: &[u8]) -> Vec<u8> {
        [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2], rest].concat()
    }

    fn walk_ethernet(rest: &[u8]) -> Result<Carried, Ignored> {
        walk(LinkType::ETHERNET, &ethernet(rest))
    }

    fn carried(at: usize, vlan: u16, version: IpVersion) -> Result<Carried, Ignored> {
        Ok(Carried { at, vlan, version })
    }

    /// Every truncation of these octets, short of all of them, is of the reason `truncated`.
    fn assert_cuts_are_truncated(link_type: LinkType, octets: &[u8]) {
        for length in 0..octets.len() {
            assert_eq!(walk(link_type, &octets[..length]), Err(Ignored::Truncated), "{length} octets");
        }
    }

    #[test]
    fn a_link_type_that_is_not_decoded_is_ignored_even_without_octets() {
        // 105 is IEEE 802.11.
        assert_eq!(walk(LinkType(105), &[]), Err(Ignored::LinkType));
        assert_eq!(walk(LinkType(105), &[0x45; 60]), Err(Ignored::LinkType));
    }

    #[test]
    fn ethernet_names_the_version_in_its_type() {
        assert_eq!(walk_ethernet(&[0x08, 0x00]), carried(14, 0, IpVersion::V4));
        assert_eq!(walk_ethernet(&[0x86, 0xDD]), carried(14, 0, IpVersion::V6));
        assert_cuts_are_truncated(LinkType::ETHERNET, &ethernet(&[0x08, 0x00]));
    }

    #[test]
    fn arp_lldp_and_types_between_length_and_type_are_not_ip() {
        for kind in [[0x08, 0x06], [0x88, 0xCC], [0x05, 0xDD], [0x05, 0xFF]] {
            assert_eq!(walk_ethernet(&kind), Err(Ignored::NonIp), "{kind:02x?}");
        }
    }

    #[test]
    fn any_number_of_tags_of_three_kinds_is_walked_and_the_outermost_vlan_kept() {
        assert_eq!(walk_ethernet(&[0x81, 0x00, 0x60, 0x64, 0x08, 0x00]), carried(18, 100, IpVersion::V4));
        let three = [0x88, 0xA8, 0x00, 0x07, 0x91, 0x00, 0x00, 0x08, 0x81, 0x00, 0x00, 0x09, 0x86, 0xDD];
        assert_eq!(walk_ethernet(&three), carried(26, 7, IpVersion::V6));
        assert_cuts_are_truncated(LinkType::ETHERNET, &ethernet(&three));
        let mut many = [0x81, 0x00, 0x0F, 0xFF].repeat(5_000);
        many.extend([0x08, 0x00]);
        assert_eq!(walk_ethernet(&many), carried(14 + 4 * 5_000, 4095, IpVersion::V4));
    }

    #[test]
    fn a_priority_tag_has_no_vlan_so_the_next_one_is_the_outermost() {
        let octets = [0x81, 0x00, 0xE0, 0x00, 0x81, 0x00, 0x20, 0x05, 0x08, 0x00];
        assert_eq!(walk_ethernet(&octets), carried(22, 5, IpVersion::V4));
    }

    #[test]
    fn a_vn_tag_is_walked_and_has_no_vlan() {
        let octets = [0x89, 0x26, 0x80, 0x01, 0x00, 0x02, 0x81, 0x00, 0x00, 0x03, 0x08, 0x00];
        assert_eq!(walk_ethernet(&octets), carried(24, 3, IpVersion::V4));
        assert_cuts_are_truncated(LinkType::ETHERNET, &ethernet(&octets));
    }

    #[test]
    fn snap_with_oui_0_names_a_type_and_other_llc_is_not_ip() {
        let octets = [0x00, 0x40, 0xAA, 0xAA, 0x03, 0, 0, 0, 0x81, 0x00, 0x00, 0x09, 0x08, 0x00];
        assert_eq!(walk_ethernet(&octets), carried(26, 9, IpVersion::V4));
        assert_cuts_are_truncated(LinkType::ETHERNET, &ethernet(&octets));
        // Spanning tree; SNAP with Cisco's OUI; a length where the type should be.
        assert_eq!(walk_ethernet(&[0x00, 0x26, 0x42, 0x42, 0x03]), Err(Ignored::NonIp));
        let cisco = [0x00, 0x40, 0xAA, 0xAA, 0x03, 0, 0, 0x0C, 0x20, 0x00];
        assert_eq!(walk_ethernet(&cisco), Err(Ignored::NonIp));
        let length = [0x00, 0x40, 0xAA, 0xAA, 0x03, 0, 0, 0, 0x05, 0xDC, 0x08, 0x00];
        assert_eq!(walk_ethernet(&length), Err(Ignored::NonIp));
    }

    #[test]
    fn llc_that_was_cut_is_not_ip_once_it_differs_from_snap() {
        assert_eq!(walk_ethernet(&[0x00, 0x40]), Err(Ignored::Truncated));
        assert_eq!(walk_ethernet(&[0x00, 0x40, 0xAA, 0xAA]), Err(Ignored::Truncated));
        assert_eq!(walk_ethernet(&[0x00, 0x40, 0xAA, 0x42]), Err(Ignored::NonIp));
    }

    #[test]
    fn the_largest_length_is_1500() {
        assert_eq!(walk_ethernet(&[0x05, 0xDC]), Err(Ignored::Truncated));
        assert_eq!(walk_ethernet(&[0x05, 0xDD]), Err(Ignored::NonIp));
    }

    #[test]
    fn a_pppoe_session_has_a_protocol_field_of_two_octets_or_one() {
        let two = [0x88, 0x64, 0x11, 0x00, 0x00, 0x01, 0x00, 0x40, 0x00, 0x21];
        assert_eq!(walk_ethernet(&two), carried(22, 0, IpVersion::V4));
        assert_cuts_are_truncated(LinkType::ETHERNET, &ethernet(&two));
        let one = [0x88, 0x64, 0x11, 0x00, 0x00, 0x01, 0x00, 0x40, 0x57, 0x60];
        assert_eq!(walk_ethernet(&one), carried(21, 0, IpVersion::V6));
        assert_cuts_are_truncated(LinkType::ETHERNET, &ethernet(&one));
        // LCP, and PPPoE's discovery stage.
        let lcp = [0x88, 0x64, 0x11, 0x00, 0x00, 0x01, 0x00, 0x40, 0xC0, 0x21];
        assert_eq!(walk_ethernet(&lcp), Err(Ignored::NonIp));
        assert_eq!(walk_ethernet(&[0x88, 0x63]), Err(Ignored::NonIp));
    }

    #[test]
    fn an_mpls_stack_is_walked_to_its_bottom_and_the_nibble_tells_the_version() {
        for kind in [0x47, 0x48] {
            let v4 = [0x88, kind, 0x00, 0x01, 0x00, 0x40, 0x00, 0x02, 0x01, 0x40, 0x45];
            assert_eq!(walk_ethernet(&v4), carried(22, 0, IpVersion::V4));
            assert_cuts_are_truncated(LinkType::ETHERNET, &ethernet(&v4));
            let v6 = [0x88, kind, 0x00, 0x02, 0x01, 0x40, 0x60];
            assert_eq!(walk_ethernet(&v6), carried(18, 0, IpVersion::V6));
            // A pseudowire control word begins with the nibble 0.
            let pseudowire = [0x88, kind, 0x00, 0x02, 0x01, 0x40, 0x00];
            assert_eq!(walk_ethernet(&pseudowire), Err(Ignored::NonIp));
        }
    }

    #[test]
    fn linux_cooked_captures_hold_the_type_last_in_version_1_and_first_in_version_2() {
        let mut sll = [0; 16];
        sll[14..].copy_from_slice(&[0x08, 0x00]);
        assert_eq!(walk(LinkType::LINUX_SLL, &sll), carried(16, 0, IpVersion::V4));
        assert_cuts_are_truncated(LinkType::LINUX_SLL, &sll);
        let mut sll2 = [0; 20];
        sll2[..2].copy_from_slice(&[0x86, 0xDD]);
        assert_eq!(walk(LinkType::LINUX_SLL2, &sll2), carried(20, 0, IpVersion::V6));
        assert_cuts_are_truncated(LinkType::LINUX_SLL2, &sll2);
        sll2[..2].copy_from_slice(&[0x81, 0x00]);
        let tagged = [&sll2[..], &[0x00, 0x05, 0x08, 0x00]].concat();
        assert_eq!(walk(LinkType::LINUX_SLL2, &tagged), carried(24, 5, IpVersion::V4));
    }

    #[test]
    fn raw_ip_of_three_numbers_is_told_by_its_nibble() {
        for link_type in [LinkType::RAW, LinkType::RAW_BSD, LinkType::RAW_OPENBSD] {
            assert_eq!(walk(link_type, &[0x45]), carried(0, 0, IpVersion::V4));
            assert_eq!(walk(link_type, &[0x60]), carried(0, 0, IpVersion::V6));
            assert_eq!(walk(link_type, &[0x50]), Err(Ignored::Malformed));
            assert_eq!(walk(link_type, &[]), Err(Ignored::Truncated));
        }
    }

    #[test]
    fn raw_ip_of_one_version_names_it() {
        assert_eq!(walk(LinkType::IPV4, &[0x60]), carried(0, 0, IpVersion::V4));
        assert_eq!(walk(LinkType::IPV6, &[0x45]), carried(0, 0, IpVersion::V6));
    }

    #[test]
    fn bsd_loopback_names_the_family_in_either_byte_order() {
        for link_type in [LinkType::NULL, LinkType::LOOP] {
            for (family, version) in [
                (2, IpVersion::V4),
                (10, IpVersion::V6),
                (24, IpVersion::V6),
                (28, IpVersion::V6),
                (30, IpVersion::V6),
            ] {
                assert_eq!(walk(link_type, &[family, 0, 0, 0]), carried(4, 0, version));
                assert_eq!(walk(link_type, &[0, 0, 0, family]), carried(4, 0, version));
            }
            for other in [[0, 0, 0, 0], [7, 0, 0, 0], [0, 0, 0, 23], [2, 0, 0, 2]] {
                assert_eq!(walk(link_type, &other), Err(Ignored::NonIp));
            }
            assert_cuts_are_truncated(link_type, &[2, 0, 0, 0]);
        }
    }
}
