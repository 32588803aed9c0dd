//! Flow Records in, Data Records out, and the Template Records that describe them (RFC 7011 §3.4.1, RFC 3954 §5.2).
//!
//! A record is first written as an [`Image`]: every field an exporter may send, big-endian, at a fixed offset. A
//! [`Layout`] is a list of fields of the image under one Template ID, compiled once to copy steps; fields that lie side
//! by side in the image and in the template are one step. Template and data are both read off the same list, so
//! they cannot disagree. Walking the list for each record instead costs ten times as much.

use bytemuck::{Pod, Zeroable};

use crate::decode::IpVersion;
use crate::export::element::{self, Element};
use crate::flow::FlowRecord;

/// The first Template ID (RFC 7011 §3.4.1, RFC 3954 §5.2); those below are Set IDs of other meaning.
const FIRST_TEMPLATE_ID: u16 = 256;

/// A field of the image: an element, and where it lies there.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// What it is.
    pub element: &'static Element,
    /// Its length on the wire in octets: the element's own, or less (RFC 7011 §6.2).
    pub length: u16,
    offset: usize,
}

/// Octets the image is padded by, and a step copies at a time: a copy of fixed length is two instructions, one of any
/// length a call. What a step writes too much, the next one or the next record writes over.
pub const CHUNK: usize = 32;

macro_rules! image {
    (@length $element:ident) => { element::$element.length as usize };
    (@length $element:ident $reduced:literal) => { $reduced };
    ($($member:ident: $element:ident $(reduced to $reduced:literal)?;)*) => {
        /// Every field of a record that an exporter may send, big-endian; members are octets, so there are no gaps.
        #[repr(C)]
        #[derive(Clone, Copy, Pod, Zeroable)]
        pub struct Image {
            $($member: [u8; image!(@length $element $($reduced)?)],)*
            slack: [u8; CHUNK],
        }

        /// The fields of the image by the name of their member.
        mod field {
            use super::{element, Field, Image};
            $(
                #[allow(non_upper_case_globals)] // named after the member
                pub const $member: Field = Field {
                    element: &element::$element,
                    length: image!(@length $element $($reduced)?) as u16,
                    offset: std::mem::offset_of!(Image, $member),
                };
            )*
        }
    };
}

// In the order of the commonest template, IPv4 over IPFIX, so that it is a single step.
image! {
    source_ipv6: SOURCE_IPV6_ADDRESS;
    destination_ipv6: DESTINATION_IPV6_ADDRESS;
    source_ipv4: SOURCE_IPV4_ADDRESS;
    destination_ipv4: DESTINATION_IPV4_ADDRESS;
    source_port: SOURCE_TRANSPORT_PORT;
    destination_port: DESTINATION_TRANSPORT_PORT;
    protocol: PROTOCOL_IDENTIFIER;
    ip_version: IP_VERSION;
    tos: IP_CLASS_OF_SERVICE;
    packets: PACKET_DELTA_COUNT;
    octets: OCTET_DELTA_COUNT;
    start_millis: FLOW_START_MILLISECONDS;
    end_millis: FLOW_END_MILLISECONDS;
    initial_flags: INITIAL_TCP_FLAGS;
    later_flags: UNION_TCP_FLAGS;
    syn_count: TCP_SYN_TOTAL_COUNT;
    fin_count: TCP_FIN_TOTAL_COUNT;
    rst_count: TCP_RST_TOTAL_COUNT;
    psh_count: TCP_PSH_TOTAL_COUNT;
    ack_count: TCP_ACK_TOTAL_COUNT;
    urg_count: TCP_URG_TOTAL_COUNT;
    end_reason: FLOW_END_REASON;
    ingress_interface: INGRESS_INTERFACE;
    egress_interface: EGRESS_INTERFACE;
    direction: FLOW_DIRECTION;
    vlan: VLAN_ID;
    tcp_flags_octet: TCP_CONTROL_BITS reduced to 1;
    dot1q_vlan: DOT1Q_VLAN_ID;
    tcp_flags: TCP_CONTROL_BITS;
    icmp_ipv4: ICMP_TYPE_CODE_IPV4;
    icmp_ipv6: ICMP_TYPE_CODE_IPV6;
    start_uptime: FLOW_START_SYS_UP_TIME;
    end_uptime: FLOW_END_SYS_UP_TIME;
}

/// Where a flag's count stands in [`FlowRecord::flag_counts`]: the number of its bit.
const fn bit(flag: u16) -> usize {
    flag.trailing_zeros() as usize
}

impl Image {
    /// An image to be written over by [`Image::write`].
    pub fn new() -> Image {
        Image::zeroed()
    }

    /// Writes each field of `record`. `boot_millis` is where sysUpTime is 0 (RFC 3954 §5.1), in milliseconds since
    /// 1970; times before it are held to it.
    #[inline]
    pub fn write(&mut self, record: &FlowRecord, boot_millis: u64) {
        use crate::decode::tcp_flags as flags;
        let count = |flag| u64::from(record.flag_counts[bit(flag)]).to_be_bytes();
        let (start, end) = (record.start.millis(), record.end.millis());
        let uptime = |millis: u64| u32::try_from(millis.saturating_sub(boot_millis)).unwrap_or(u32::MAX);
        let all_flags = record.tcp_flags();
        // Both address forms at once: cheaper than a branch that random traffic makes unpredictable.
        self.source_ipv6 = record.source;
        self.destination_ipv6 = record.destination;
        self.source_ipv4.copy_from_slice(&record.source[..4]);
        self.destination_ipv4.copy_from_slice(&record.destination[..4]);
        self.source_port = record.source_port.to_be_bytes();
        self.destination_port = record.destination_port.to_be_bytes();
        self.protocol = [record.protocol];
        self.ip_version = [record.ip_version as u8];
        self.tos = [record.tos];
        self.packets = record.packets.to_be_bytes();
        self.octets = record.octets.to_be_bytes();
        self.start_millis = start.to_be_bytes();
        self.end_millis = end.to_be_bytes();
        self.initial_flags = record.initial_flags.to_be_bytes();
        self.later_flags = record.later_flags.to_be_bytes();
        self.syn_count = count(flags::SYN);
        self.fin_count = count(flags::FIN);
        self.rst_count = count(flags::RST);
        self.psh_count = count(flags::PSH);
        self.ack_count = count(flags::ACK);
        self.urg_count = count(flags::URG);
        self.end_reason = [record.end_reason as u8];
        self.ingress_interface = record.interface.to_be_bytes();
        // Not known to a tap, and a tap sees what comes in (flowDirection 0): written for collectors that read
        // nothing into their absence.
        self.egress_interface = [0; 4];
        self.direction = [0];
        self.vlan = record.vlan.to_be_bytes();
        // Only records whose flags fit are sent with this field, see `Form`.
        self.tcp_flags_octet = [all_flags.to_be_bytes()[1]];
        self.dot1q_vlan = self.vlan;
        self.tcp_flags = all_flags.to_be_bytes();
        self.icmp_ipv4 = self.destination_port;
        self.icmp_ipv6 = self.destination_port;
        self.start_uptime = uptime(start).to_be_bytes();
        self.end_uptime = uptime(end).to_be_bytes();
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
        const ICMP: u8 = 1;
        const ICMP_IPV6: u8 = 58;
        let (version, icmp) = match record.ip_version {
            IpVersion::V4 => (0, ICMP),
            IpVersion::V6 => (1, ICMP_IPV6),
        };
        let form = if record.protocol == icmp {
            Form::Icmp
        } else if record.tcp_flags() > u16::from(u8::MAX) {
            Form::WideFlags
        } else {
            Form::Plain
        };
        Kind((version * FORMS.len() as u8 + form as u8) * 2 + u8::from(record.vlan != 0))
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

    fn is_ipv6(self) -> bool {
        self.index() / 2 / FORMS.len() == 1
    }

    fn form(self) -> Form {
        FORMS[self.index() / 2 % FORMS.len()]
    }

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

/// The fields of one kind of record, in order.
fn fields(kind: Kind, dialect: Dialect) -> Vec<Field> {
    let mut fields = Vec::with_capacity(32);
    if kind.is_ipv6() {
        fields.extend([field::source_ipv6, field::destination_ipv6]);
    } else {
        fields.extend([field::source_ipv4, field::destination_ipv4]);
    }
    fields.extend([
        field::source_port,
        field::destination_port,
        field::protocol,
        field::ip_version,
        field::tos,
        field::packets,
        field::octets,
    ]);
    match dialect {
        Dialect::Ipfix => {
            fields.extend([field::start_millis, field::end_millis, field::initial_flags, field::later_flags])
        }
        Dialect::NetFlow9 => fields.extend([field::start_uptime, field::end_uptime]),
    }
    fields.extend([
        field::syn_count,
        field::fin_count,
        field::rst_count,
        field::psh_count,
        field::ack_count,
        field::urg_count,
        field::end_reason,
        field::ingress_interface,
        field::egress_interface,
        field::direction,
        field::vlan,
    ]);
    match kind.form() {
        Form::Plain => fields.push(field::tcp_flags_octet),
        Form::WideFlags => fields.push(field::tcp_flags),
        Form::Icmp => {
            fields.push(field::tcp_flags_octet);
            // RFC 3954 §8 knows one ICMP field (32) for both; nfcapd 1.7.1 looks for no other in v9, and shows type 0
            // without it. Newer collectors take either.
            if dialect == Dialect::NetFlow9 || !kind.is_ipv6() {
                fields.push(field::icmp_ipv4);
            }
            if kind.is_ipv6() {
                fields.push(field::icmp_ipv6);
            }
        }
    }
    if kind.is_tagged() {
        fields.push(field::dot1q_vlan);
    }
    fields
}

/// Every element that is exported, in the order of the templates: with its NetFlow v9 type where it is sent there too, and
/// what it stands for here.
pub fn listed() -> Vec<(&'static Element, Option<u16>, &'static str)> {
    let mut listed: Vec<(&'static Element, Option<u16>, &'static str)> = Vec::new();
    for (dialect, is_netflow9) in [(Dialect::Ipfix, false), (Dialect::NetFlow9, true)] {
        for field in Kind::all().flat_map(|kind| fields(kind, dialect)) {
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
        (&element::ICMP_TYPE_CODE_IPV4, "ICMP flows over IPv4"),
        (&element::ICMP_TYPE_CODE_IPV6, "ICMPv6 flows over IPv6"),
    ];
    notes.iter().find(|(element, _)| *element == of).map_or("", |(_, note)| note)
}

/// A copy out of the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Step {
    offset: usize,
    length: usize,
}

/// A Template: its ID, its fields, and how to make a Data Record of an image.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The Template ID.
    pub id: u16,
    /// The fields in order.
    pub fields: Vec<Field>,
    /// The length of a Data Record in octets.
    pub length: usize,
    steps: Vec<Step>,
}

impl Layout {
    /// The Template for one kind of record.
    pub fn new(kind: Kind, dialect: Dialect) -> Layout {
        Layout::compile(kind.template_id(), fields(kind, dialect))
    }

    fn compile(id: u16, fields: Vec<Field>) -> Layout {
        let mut steps: Vec<Step> = Vec::new();
        for field in &fields {
            let length = usize::from(field.length);
            match steps.last_mut() {
                Some(step) if step.offset + step.length == field.offset => step.length += length,
                _ => steps.push(Step { offset: field.offset, length }),
            }
        }
        let length = steps.iter().map(|step| step.length).sum();
        Layout { id, fields, length, steps }
    }

    /// Copies a record of this layout to the start of `out`, and up to [`CHUNK`] octets of no meaning behind it.
    ///
    /// # Panics
    ///
    /// If `out` is shorter than the record and [`CHUNK`].
    #[inline]
    pub fn copy(&self, image: &Image, out: &mut [u8]) {
        let image = bytemuck::bytes_of(image);
        let mut to = 0;
        for step in &self.steps {
            let mut done = 0;
            while done < step.length {
                out[to + done..][..CHUNK].copy_from_slice(&image[step.offset + done..][..CHUNK]);
                done += CHUNK;
            }
            to += step.length;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::testing::{record_v4, record_v6};

    #[test]
    fn each_kind_has_a_template_id_of_its_own_and_one_record_of_each_is_of_it() {
        for kind in Kind::all() {
            let mut record = if kind.is_ipv6() { record_v6() } else { record_v4() };
            record.vlan = if kind.is_tagged() { 7 } else { 0 };
            match kind.form() {
                Form::Plain => (record.protocol, record.later_flags) = (6, 0xFF),
                Form::WideFlags => (record.protocol, record.later_flags) = (6, 0x100),
                Form::Icmp => record.protocol = if kind.is_ipv6() { 58 } else { 1 },
            }
            assert_eq!(Kind::of(&record), kind);
            assert_eq!(kind.template_id(), 256 + u16::from(kind.0));
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
            for field in Kind::all().flat_map(|kind| fields(kind, dialect)) {
                assert!(field.length <= field.element.length, "{}", field.element.name);
                assert!(dialect == Dialect::Ipfix || field.element.enterprise == 0, "{}", field.element.name);
            }
        }
    }

    #[test]
    fn the_commonest_template_is_one_step_and_none_has_more_than_six() {
        for dialect in [Dialect::Ipfix, Dialect::NetFlow9] {
            for kind in Kind::all() {
                assert!(Layout::new(kind, dialect).steps.len() <= 6);
            }
        }
        assert_eq!(Layout::new(Kind(0), Dialect::Ipfix).steps.len(), 1);
    }

    /// The plain twin of [`Layout::copy`]: field by field.
    fn copy_plainly(layout: &Layout, image: &Image) -> Vec<u8> {
        let image = bytemuck::bytes_of(image);
        layout
            .fields
            .iter()
            .flat_map(|f| &image[f.offset..f.offset + usize::from(f.length)])
            .copied()
            .collect()
    }

    #[test]
    fn merged_steps_copy_what_its_fields_name() {
        let mut image = Image::new();
        for (at, octet) in bytemuck::bytes_of_mut(&mut image).iter_mut().enumerate() {
            *octet = at as u8;
        }
        for dialect in [Dialect::Ipfix, Dialect::NetFlow9] {
            for kind in Kind::all() {
                let layout = Layout::new(kind, dialect);
                let mut out = vec![0xEE; layout.length + CHUNK];
                layout.copy(&image, &mut out);
                assert_eq!(out[..layout.length], copy_plainly(&layout, &image));
            }
        }
    }
}
