//! Flow Records in, Data Records out, and the Template Records that describe them (RFC 7011 §3.4.1, RFC 3954 §5.2).
//!
//! [`fields`] is the table: every element of a record with its value, in order. A Template is read off it by taking the
//! elements, a Data Record by taking the values, so the two cannot disagree. It is compiled once for each [`Kind`] and
//! [`Dialect`], so that each field's place in the record is a constant and [`write`] is stores one after the other.

mod kind;
mod value;
mod writing;

use self::kind::Form;
use self::value::{Value, Widened, Zero};
use crate::decode::tcp_flags;
use crate::export::element::{self, Element};
use crate::export::uptime::sys_up_time;
use crate::flow::FlowRecord;

pub use self::kind::Kind;
pub use self::writing::{ROOM, write};

/// The first Template ID (RFC 7011 §3.4.1, RFC 3954 §5.2); those below are Set IDs of other meaning.
const FIRST_TEMPLATE_ID: u16 = 256;

/// A field of a Template Record.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// What it is.
    pub element: &'static Element,
    /// Its length on the wire in octets: the element's own, or less (RFC 7011 §6.2).
    pub length: u16,
}

/// Takes the fields of a record one after the other.
trait Fields {
    /// Takes a field; its length is that of the value's type.
    fn put<V: Value>(&mut self, element: &'static Element, value: V);

    /// Takes several fields at once, each as long as its element, the first of which stands first in `octets`. What is left of
    /// those is of no meaning.
    fn put_all<const COUNT: usize>(&mut self, elements: [&'static Element; COUNT], octets: [u8; 4]);
}

/// Puts rows of an element and its value, or of several elements and the octets of all their values.
macro_rules! table {
    ($fields:ident {}) => {};
    ($fields:ident { $element:ident: $value:expr; $($rest:tt)* }) => {{
        $fields.put(&element::$element, $value);
        table!($fields { $($rest)* });
    }};
    ($fields:ident { $($element:ident)+: $octets:expr; $($rest:tt)* }) => {{
        $fields.put_all([$(&element::$element),+], $octets);
        table!($fields { $($rest)* });
    }};
}

/// The fields of a record of one kind, in order. `boot_millis` is as in [`sys_up_time`].
#[inline(always)] // compiled for each kind and dialect
fn fields(kind: Kind, dialect: Dialect, record: &FlowRecord, boot_millis: u64, out: &mut impl Fields) {
    let ipv4 = |address: &[u8; 16]| [address[0], address[1], address[2], address[3]];
    let packets_with = |flag: u16| Widened(record.flag_counts[flag.trailing_zeros() as usize]);
    let flags = record.both_flags();
    let all_flags = (flags | flags >> 16) as u16;

    if kind.is_ipv6() {
        table!(out {
            SOURCE_IPV6_ADDRESS: record.source;
            DESTINATION_IPV6_ADDRESS: record.destination;
        });
    } else {
        table!(out {
            SOURCE_IPV4_ADDRESS: ipv4(&record.source);
            DESTINATION_IPV4_ADDRESS: ipv4(&record.destination);
        });
    }
    table!(out {
        SOURCE_TRANSPORT_PORT DESTINATION_TRANSPORT_PORT: record.ports().to_be_bytes();
        PROTOCOL_IDENTIFIER IP_VERSION IP_CLASS_OF_SERVICE: record.protocol_version_tos();
        PACKET_DELTA_COUNT: record.packets;
        OCTET_DELTA_COUNT: record.octets;
    });
    match dialect {
        Dialect::Ipfix => table!(out {
            FLOW_START_MILLISECONDS: record.start.millis();
            FLOW_END_MILLISECONDS: record.end.millis();
            INITIAL_TCP_FLAGS UNION_TCP_FLAGS: flags.to_be_bytes();
        }),
        Dialect::NetFlow9 => table!(out {
            FLOW_START_SYS_UP_TIME: sys_up_time(record.start, boot_millis);
            FLOW_END_SYS_UP_TIME: sys_up_time(record.end, boot_millis);
        }),
    }
    // Neither the egress interface is known to a tap nor the direction, but that a tap sees what comes in (flowDirection 0):
    // written for collectors that read nothing into their absence.
    table!(out {
        TCP_SYN_TOTAL_COUNT: packets_with(tcp_flags::SYN);
        TCP_FIN_TOTAL_COUNT: packets_with(tcp_flags::FIN);
        TCP_RST_TOTAL_COUNT: packets_with(tcp_flags::RST);
        TCP_PSH_TOTAL_COUNT: packets_with(tcp_flags::PSH);
        TCP_ACK_TOTAL_COUNT: packets_with(tcp_flags::ACK);
        TCP_URG_TOTAL_COUNT: packets_with(tcp_flags::URG);
        FLOW_END_REASON: record.end_reason as u8;
        INGRESS_INTERFACE: record.interface;
        EGRESS_INTERFACE: Zero::<4>;
        FLOW_DIRECTION: Zero::<1>;
    });
    match kind.is_tagged() {
        true => table!(out { VLAN_ID: record.vlan; }),
        false => table!(out { VLAN_ID: Zero::<2>; }),
    }
    match kind.form() {
        Form::WideFlags => table!(out { TCP_CONTROL_BITS: all_flags; }),
        Form::Plain | Form::Icmp => table!(out { TCP_CONTROL_BITS: all_flags as u8; }),
    }
    if kind.form() == Form::Icmp {
        // RFC 3954 §8 knows one ICMP field (32) for both; nfcapd 1.7.1 looks for no other in v9, and shows type 0
        // without it. Newer collectors take either.
        if dialect == Dialect::NetFlow9 || !kind.is_ipv6() {
            table!(out { ICMP_TYPE_CODE_IPV4: record.destination_port; });
        }
        if kind.is_ipv6() {
            table!(out { ICMP_TYPE_CODE_IPV6: record.destination_port; });
        }
    }
    if kind.is_tagged() {
        table!(out { DOT1Q_VLAN_ID: record.vlan; });
    }
}

/// The first ID not taken by a Template, for Options Templates: they share one space (RFC 7011 §3.4.2.2).
pub const FIRST_OPTIONS_TEMPLATE_ID: u16 = FIRST_TEMPLATE_ID + Kind::COUNT as u16;

/// Which protocol the fields are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Absolute times, enterprise elements.
    Ipfix,
    /// Times on the sysUpTime clock, IANA elements only.
    NetFlow9,
}

/// Every element that is exported, in the order of the templates: with its NetFlow v9 type where it is sent there too, and
/// what it stands for here.
pub fn listed() -> Vec<(&'static Element, Option<u16>, &'static str)> {
    let mut listed: Vec<(&'static Element, Option<u16>, &'static str)> = Vec::new();
    for (dialect, is_netflow9) in [(Dialect::Ipfix, false), (Dialect::NetFlow9, true)] {
        for field in Kind::all().flat_map(|kind| Layout::new(kind, dialect).fields) {
            let at = listed.iter().position(|(element, ..)| *element == field.element);
            let at = at.unwrap_or_else(|| {
                listed.push((field.element, None, note(field.element)));
                listed.len() - 1
            });
            if is_netflow9 {
                listed[at].1 = Some(field.element.id);
            }
        }
    }
    listed
}

/// What an element stands for in a record of ours, where its name does not say all.
fn note(of: &'static Element) -> &'static str {
    let notes: [(&Element, &str); 19] = [
        (&element::SOURCE_IPV4_ADDRESS, "IPv4 flows"),
        (&element::DESTINATION_IPV4_ADDRESS, "IPv4 flows"),
        (&element::SOURCE_IPV6_ADDRESS, "IPv6 flows"),
        (&element::DESTINATION_IPV6_ADDRESS, "IPv6 flows"),
        (&element::DESTINATION_TRANSPORT_PORT, "ICMP: type × 256 + code"),
        (&element::IP_CLASS_OF_SERVICE, "of the first packet"),
        (&element::OCTET_DELTA_COUNT, "IP headers included"),
        (&element::FLOW_START_MILLISECONDS, "the earliest packet"),
        (&element::FLOW_END_MILLISECONDS, "the latest packet"),
        (&element::INITIAL_TCP_FLAGS, "enterprise 6871: flags of the first packet"),
        (&element::UNION_TCP_FLAGS, "enterprise 6871: OR of all later packets"),
        (&element::TCP_CONTROL_BITS, "OR of all packets; 1 octet, or 2 where a flag above CWR was seen"),
        (&element::FLOW_END_REASON, "1 idle, 2 active, 3 end, 4 forced, 5 lack of resources"),
        (&element::EGRESS_INTERFACE, "0: not known to a tap"),
        (&element::FLOW_DIRECTION, "0: ingress"),
        (&element::VLAN_ID, "outermost tag, 0 for none"),
        (&element::DOT1Q_VLAN_ID, "tagged flows"),
        (&element::ICMP_TYPE_CODE_IPV4, "ICMP flows over IPv4; in v9 ICMPv6 flows too"),
        (&element::ICMP_TYPE_CODE_IPV6, "ICMPv6 flows over IPv6"),
    ];
    notes.iter().find(|(element, _)| *element == of).map_or("", |(_, note)| note)
}

/// A Template: its ID and its fields.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The Template ID.
    pub id: u16,
    /// The fields in order.
    pub fields: Vec<Field>,
    /// The length of a Data Record in octets.
    pub length: usize,
}

impl Layout {
    /// The Template for one kind of record.
    pub fn new(kind: Kind, dialect: Dialect) -> Layout {
        let mut list = Vec::with_capacity(32);
        // The values are of no meaning.
        fields(kind, dialect, &FlowRecord::default(), 0, &mut list);
        let length = list.iter().map(|field: &Field| usize::from(field.length)).sum();
        Layout { id: kind.template_id(), fields: list, length }
    }
}

impl Fields for Vec<Field> {
    fn put<V: Value>(&mut self, element: &'static Element, value: V) {
        self.push(Field { element, length: value.octets().as_ref().len() as u16 });
    }

    fn put_all<const COUNT: usize>(&mut self, elements: [&'static Element; COUNT], _: [u8; 4]) {
        self.extend(elements.map(|element| Field { element, length: element.length }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_never_longer_than_its_element() {
        for dialect in [Dialect::Ipfix, Dialect::NetFlow9] {
            for field in Kind::all().flat_map(|kind| Layout::new(kind, dialect).fields) {
                assert!(field.length <= field.element.length, "{}", field.element.name);
                assert!(dialect == Dialect::Ipfix || field.element.enterprise == 0, "{}", field.element.name);
            }
        }
    }

    #[test]
    fn only_the_flags_are_shorter_than_their_element() {
        for dialect in [Dialect::Ipfix, Dialect::NetFlow9] {
            for kind in Kind::all() {
                for field in Layout::new(kind, dialect).fields {
                    let is_whole = field.length == field.element.length;
                    let is_flags = field.element == &element::TCP_CONTROL_BITS;
                    assert_eq!(is_whole, !is_flags || kind.form() == Form::WideFlags);
                }
            }
        }
    }
}
