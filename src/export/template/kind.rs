//! The kinds of records, one Template each: a record in, the one that it is of out.

use super::FIRST_TEMPLATE_ID;
use crate::decode::IpVersion;
use crate::flow::FlowRecord;

/// What of a record decides its template besides the IP version and the VLAN tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
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
pub struct Kind(pub(super) u8);

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
    pub(super) fn is_of(self, record: &FlowRecord) -> bool {
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
    pub(super) fn is_ipv6(self) -> bool {
        self.index() / 2 / FORMS.len() == 1
    }

    #[inline(always)]
    fn ip_version(self) -> IpVersion {
        if self.is_ipv6() { IpVersion::V6 } else { IpVersion::V4 }
    }

    #[inline(always)]
    pub(super) fn form(self) -> Form {
        FORMS[self.index() / 2 % FORMS.len()]
    }

    #[inline(always)]
    pub(super) fn is_tagged(self) -> bool {
        !self.index().is_multiple_of(2)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::export::testing::{record_v4, record_v6};

    /// A record of this kind.
    pub(crate) fn record_of(kind: Kind) -> FlowRecord {
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
}
