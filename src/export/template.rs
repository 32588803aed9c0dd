//! Flow Records in, Data Records out, and the Template Records that describe them (RFC 7011 §3.4.1, RFC 3954 §5.2).
//!
//! [`fields`] is the table: every element of a record with its value, in order. A Template is read off it by taking the
//! elements, a Data Record by taking the values, so the two cannot disagree. It is compiled once for each [`Kind`] and
//! [`Dialect`], so that each field's place in the record is a constant and [`write`] is stores one after the other.

use crate::decode::{IpVersion, tcp_flags};
use crate::export::element::{self, Element};
use crate::export::uptime::sys_up_time;
use crate::flow::FlowRecord;
use crate::prefetch::{CACHE_LINE, prefetch_behind_to_write};

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

/// The octets that all these elements have.
#[inline(always)]
fn length_of(elements: &[&Element]) -> usize {
    elements.iter().map(|element| usize::from(element.length)).sum()
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

/// What of a record decides its template besides the IP version and the VLAN tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// tcpControlBits in one octet: the only form every collector reads.
    Plain,
    /// tcpControlBits in two octets, for records that have a flag above 0x80 (RFC 9565).
    WideFlags,
    /// ICMP: type and code in an element of their own besides the destination port. Other records do not have the
    /// element: nfcapd takes it for the destination port whatever the protocol, and a 0 would wipe that out.
    Icmp,
}

const FORMS: [Form; 3] = [Form::Plain, Form::WideFlags, Form::Icmp];

/// The kind of a record: one Template each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind(u8);

impl Kind {
    /// How many kinds there are.
    pub const COUNT: usize = 2 * FORMS.len() * 2;

    /// Every kind.
    pub fn all() -> impl Iterator<Item = Kind> {
        (0..Kind::COUNT as u8).map(Kind)
    }

    /// The kind of this record.
    #[inline]
    pub fn of(record: &FlowRecord) -> Kind {
        let version = u8::from(record.ip_version == IpVersion::V6);
        let form = if record.protocol == record.ip_version.icmp() {
            Form::Icmp
        } else if record.tcp_flags() > u16::from(u8::MAX) {
            Form::WideFlags
        } else {
            Form::Plain
        };
        Kind((version * FORMS.len() as u8 + form as u8) * 2 + u8::from(record.vlan != 0))
    }

    /// Whether `record` is of this kind, as [`Kind::of`] has it: where the kind is a constant, a few tests of two numbers.
    #[inline(always)]
    fn is_of(self, record: &FlowRecord) -> bool {
        let is_icmp = record.protocol == self.ip_version().icmp();
        let has_wide_flags = record.both_flags() & 0xff00_ff00 != 0;
        let is_of_form = match self.form() {
            Form::Plain => !has_wide_flags && !is_icmp,
            Form::WideFlags => has_wide_flags && !is_icmp,
            Form::Icmp => is_icmp,
        };
        // The version, and no VLAN, at once.
        let is_of_version = match self.is_tagged() {
            true => record.vlan != 0 && record.ip_version == self.ip_version(),
            false => record.vlan_protocol_version() & 0xff00_ffff == (self.ip_version() as u32) << 24,
        };
        is_of_version && is_of_form
    }

    /// A number below [`Kind::COUNT`].
    #[inline]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }

    /// The Template ID of this kind.
    pub fn template_id(self) -> u16 {
        FIRST_TEMPLATE_ID + u16::from(self.0)
    }

    #[inline(always)]
    fn is_ipv6(self) -> bool {
        self.index() / 2 / FORMS.len() == 1
    }

    #[inline(always)]
    fn ip_version(self) -> IpVersion {
        if self.is_ipv6() { IpVersion::V6 } else { IpVersion::V4 }
    }

    #[inline(always)]
    fn form(self) -> Form {
        FORMS[self.index() / 2 % FORMS.len()]
    }

    #[inline(always)]
    fn is_tagged(self) -> bool {
        !self.index().is_multiple_of(2)
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

/// The value of a field as it stands on the wire: a number in network byte order, an address as it is.
trait Value {
    /// Its octets on the wire, as many as it has.
    type Octets: AsRef<[u8]> + Copy;

    /// How many octets it begins with are 0 whatever the value.
    const ZEROS: usize = 0;

    /// The octets.
    fn octets(&self) -> Self::Octets;
}

macro_rules! numbers {
    ($($number:ident)*) => {$(
        impl Value for $number {
            type Octets = [u8; size_of::<$number>()];

            #[inline(always)]
            fn octets(&self) -> Self::Octets {
                self.to_be_bytes()
            }
        }
    )*};
}

numbers! { u8 u16 u32 u64 }

impl<const LENGTH: usize> Value for [u8; LENGTH] {
    type Octets = [u8; LENGTH];

    #[inline(always)]
    fn octets(&self) -> [u8; LENGTH] {
        *self
    }
}

/// A number of 32 bits in a field of 64.
struct Widened(u32);

impl Value for Widened {
    type Octets = [u8; 8];

    const ZEROS: usize = 4;

    #[inline(always)]
    fn octets(&self) -> [u8; 8] {
        u64::from(self.0).to_be_bytes()
    }
}

/// A field of so many octets that is always 0.
struct Zero<const LENGTH: usize>;

impl<const LENGTH: usize> Value for Zero<LENGTH> {
    type Octets = [u8; LENGTH];

    const ZEROS: usize = LENGTH;

    #[inline(always)]
    fn octets(&self) -> [u8; LENGTH] {
        [0; LENGTH]
    }
}

/// Octets that [`write`] is given for a record: as many as the longest one has, and a word more.
pub const ROOM: usize = 160;

/// How far ahead of an IPFIX record two lines, its length, are asked for, about where the fifth after it will be: where messages change
/// places with those that wait for a file, the first cache has not seen that for long, and a store would have to wait for it.
const AHEAD: usize = 512;

/// Octets that are stored at once.
const WORD: usize = size_of::<u64>();

/// Writes Data Records of one kind after the other to `out`: of `records` from the first on as long as they are of `kind`,
/// there are [`ROOM`] octets left for the next one, and `admits`, which is asked of each last, says yes. Gives how many that
/// were. Up to seven octets behind the last one are of no meaning. `boot_millis` is as in [`sys_up_time`].
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
    use crate::export::testing::{record_v4, record_v6};

    /// A record of this kind.
    fn record_of(kind: Kind) -> FlowRecord {
        let mut record = if kind.is_ipv6() { record_v6() } else { record_v4() };
        record.vlan = if kind.is_tagged() { 0x0123 } else { 0 };
        match kind.form() {
            Form::Plain => (record.protocol, record.later_flags) = (6, 0xFF),
            Form::WideFlags => (record.protocol, record.later_flags) = (6, 0x100),
            Form::Icmp => record.protocol = if kind.is_ipv6() { 58 } else { 1 },
        }
        record
    }

    #[test]
    fn each_kind_has_a_template_id_of_its_own_and_one_record_of_each_is_of_it() {
        for kind in Kind::all() {
            let record = record_of(kind);
            assert_eq!(Kind::of(&record), kind);
            assert_eq!(kind.template_id(), 256 + u16::from(kind.0));
            for other in Kind::all() {
                assert_eq!(other.is_of(&record), other == kind);
            }
        }
    }

    #[test]
    fn what_decides_a_kind_decides_alike_one_record_after_another() {
        for protocol in [1, 6, 17, 58] {
            for (initial_flags, later_flags) in [0, 0x02, 0x100]
                .into_iter()
                .flat_map(|first| [0, 0x02, 0xFF, 0x100, 0x1FF].map(|later| (first, later)))
            {
                for (record, vlan) in [(record_v4(), 0), (record_v4(), 7), (record_v6(), 0), (record_v6(), 7)]
                {
                    let record = FlowRecord { protocol, initial_flags, later_flags, vlan, ..record };
                    for kind in Kind::all() {
                        assert_eq!(kind.is_of(&record), kind == Kind::of(&record), "{record:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn icmp_of_the_other_ip_version_is_plain() {
        let mut record = record_v6();
        record.protocol = 1;
        assert_eq!(Kind::of(&record).form(), Form::Plain);
        let mut record = record_v4();
        record.protocol = 58;
        assert_eq!(Kind::of(&record).form(), Form::Plain);
    }

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
