//! Information Elements (RFC 7012, the IANA IPFIX registry and CERT's private enterprise): one row each.
//!
//! A row is the only place where an element's number, name, type, length and unit are written down; templates, data
//! records and the reader all take them from here. These are the elements that have a meaning for flowtap: it writes them, or
//! makes Flow Records of them when it reads. Those that it reads and can only name are in `collect/registry.rs`.

/// CERT's private enterprise number: initial and later TCP flags (YAF, SiLK).
pub const CERT_PEN: u32 = 6871;

/// The private enterprise number under which an IANA element means the reverse direction (RFC 5103 §6.1).
pub const REVERSE_PEN: u32 = 29305;

/// Abstract data types (RFC 7012 §3.1), as far as an element here has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the names are the RFC's
pub enum DataType {
    Unsigned8,
    Unsigned16,
    Unsigned32,
    Unsigned64,
    Ipv4Address,
    Ipv6Address,
    DateTimeSeconds,
    DateTimeMilliseconds,
    DateTimeMicroseconds,
    DateTimeNanoseconds,
}

/// One Information Element.
#[derive(Debug, PartialEq, Eq)]
pub struct Element {
    /// Its private enterprise number, 0 for IANA's.
    pub enterprise: u32,
    /// Its number within the enterprise.
    pub id: u16,
    /// IANA's (or the enterprise's) camelCase name.
    pub name: &'static str,
    /// Its abstract data type.
    pub data_type: DataType,
    /// Its natural length in octets.
    pub length: u16,
    /// Its unit, empty where it has none.
    pub unit: &'static str,
}

macro_rules! elements {
    ($($constant:ident $enterprise:literal $id:literal $name:literal $data_type:ident $length:tt $unit:literal;)*) => {
        $(
            #[doc = concat!("`", $name, "` (", stringify!($id), ")")]
            pub static $constant: Element = Element {
                enterprise: $enterprise,
                id: $id,
                name: $name,
                data_type: DataType::$data_type,
                length: $length,
                unit: $unit,
            };
        )*

        /// All elements, by enterprise and id.
        pub static ALL: &[&Element] = &[$(&$constant),*];
    };
}

/// The element with this enterprise number (0 for IANA) and id, if there is a row for it.
pub fn lookup(enterprise: u32, id: u16) -> Option<&'static Element> {
    ALL.binary_search_by_key(&(enterprise, id), |e| (e.enterprise, e.id)).ok().map(|at| ALL[at])
}

elements! {
    OCTET_DELTA_COUNT 0 1 "octetDeltaCount" Unsigned64 8 "octets";
    PACKET_DELTA_COUNT 0 2 "packetDeltaCount" Unsigned64 8 "packets";
    PROTOCOL_IDENTIFIER 0 4 "protocolIdentifier" Unsigned8 1 "";
    IP_CLASS_OF_SERVICE 0 5 "ipClassOfService" Unsigned8 1 "";
    TCP_CONTROL_BITS 0 6 "tcpControlBits" Unsigned16 2 "";
    SOURCE_TRANSPORT_PORT 0 7 "sourceTransportPort" Unsigned16 2 "";
    SOURCE_IPV4_ADDRESS 0 8 "sourceIPv4Address" Ipv4Address 4 "";
    INGRESS_INTERFACE 0 10 "ingressInterface" Unsigned32 4 "";
    DESTINATION_TRANSPORT_PORT 0 11 "destinationTransportPort" Unsigned16 2 "";
    DESTINATION_IPV4_ADDRESS 0 12 "destinationIPv4Address" Ipv4Address 4 "";
    EGRESS_INTERFACE 0 14 "egressInterface" Unsigned32 4 "";
    FLOW_END_SYS_UP_TIME 0 21 "flowEndSysUpTime" Unsigned32 4 "milliseconds";
    FLOW_START_SYS_UP_TIME 0 22 "flowStartSysUpTime" Unsigned32 4 "milliseconds";
    POST_OCTET_DELTA_COUNT 0 23 "postOctetDeltaCount" Unsigned64 8 "octets";
    POST_PACKET_DELTA_COUNT 0 24 "postPacketDeltaCount" Unsigned64 8 "packets";
    SOURCE_IPV6_ADDRESS 0 27 "sourceIPv6Address" Ipv6Address 16 "";
    DESTINATION_IPV6_ADDRESS 0 28 "destinationIPv6Address" Ipv6Address 16 "";
    ICMP_TYPE_CODE_IPV4 0 32 "icmpTypeCodeIPv4" Unsigned16 2 "";
    EXPORTED_OCTET_TOTAL_COUNT 0 40 "exportedOctetTotalCount" Unsigned64 8 "octets";
    EXPORTED_MESSAGE_TOTAL_COUNT 0 41 "exportedMessageTotalCount" Unsigned64 8 "messages";
    EXPORTED_FLOW_RECORD_TOTAL_COUNT 0 42 "exportedFlowRecordTotalCount" Unsigned64 8 "flows";
    VLAN_ID 0 58 "vlanId" Unsigned16 2 "";
    IP_VERSION 0 60 "ipVersion" Unsigned8 1 "";
    FLOW_DIRECTION 0 61 "flowDirection" Unsigned8 1 "";
    OCTET_TOTAL_COUNT 0 85 "octetTotalCount" Unsigned64 8 "octets";
    PACKET_TOTAL_COUNT 0 86 "packetTotalCount" Unsigned64 8 "packets";
    FLOW_END_REASON 0 136 "flowEndReason" Unsigned8 1 "";
    ICMP_TYPE_CODE_IPV6 0 139 "icmpTypeCodeIPv6" Unsigned16 2 "";
    EXPORTING_PROCESS_ID 0 144 "exportingProcessId" Unsigned32 4 "";
    OBSERVATION_DOMAIN_ID 0 149 "observationDomainId" Unsigned32 4 "";
    FLOW_START_SECONDS 0 150 "flowStartSeconds" DateTimeSeconds 4 "seconds";
    FLOW_END_SECONDS 0 151 "flowEndSeconds" DateTimeSeconds 4 "seconds";
    FLOW_START_MILLISECONDS 0 152 "flowStartMilliseconds" DateTimeMilliseconds 8 "milliseconds";
    FLOW_END_MILLISECONDS 0 153 "flowEndMilliseconds" DateTimeMilliseconds 8 "milliseconds";
    FLOW_START_MICROSECONDS 0 154 "flowStartMicroseconds" DateTimeMicroseconds 8 "microseconds";
    FLOW_END_MICROSECONDS 0 155 "flowEndMicroseconds" DateTimeMicroseconds 8 "microseconds";
    FLOW_START_NANOSECONDS 0 156 "flowStartNanoseconds" DateTimeNanoseconds 8 "nanoseconds";
    FLOW_END_NANOSECONDS 0 157 "flowEndNanoseconds" DateTimeNanoseconds 8 "nanoseconds";
    FLOW_START_DELTA_MICROSECONDS 0 158 "flowStartDeltaMicroseconds" Unsigned32 4 "microseconds";
    FLOW_END_DELTA_MICROSECONDS 0 159 "flowEndDeltaMicroseconds" Unsigned32 4 "microseconds";
    SYSTEM_INIT_TIME_MILLISECONDS 0 160 "systemInitTimeMilliseconds" DateTimeMilliseconds 8 "milliseconds";
    FLOW_DURATION_MILLISECONDS 0 161 "flowDurationMilliseconds" Unsigned32 4 "milliseconds";
    FLOW_DURATION_MICROSECONDS 0 162 "flowDurationMicroseconds" Unsigned32 4 "microseconds";
    IGNORED_PACKET_TOTAL_COUNT 0 164 "ignoredPacketTotalCount" Unsigned64 8 "packets";
    IGNORED_OCTET_TOTAL_COUNT 0 165 "ignoredOctetTotalCount" Unsigned64 8 "octets";
    NOT_SENT_FLOW_TOTAL_COUNT 0 166 "notSentFlowTotalCount" Unsigned64 8 "flows";
    NOT_SENT_PACKET_TOTAL_COUNT 0 167 "notSentPacketTotalCount" Unsigned64 8 "packets";
    NOT_SENT_OCTET_TOTAL_COUNT 0 168 "notSentOctetTotalCount" Unsigned64 8 "octets";
    ICMP_TYPE_IPV4 0 176 "icmpTypeIPv4" Unsigned8 1 "";
    ICMP_CODE_IPV4 0 177 "icmpCodeIPv4" Unsigned8 1 "";
    ICMP_TYPE_IPV6 0 178 "icmpTypeIPv6" Unsigned8 1 "";
    ICMP_CODE_IPV6 0 179 "icmpCodeIPv6" Unsigned8 1 "";
    UDP_SOURCE_PORT 0 180 "udpSourcePort" Unsigned16 2 "";
    UDP_DESTINATION_PORT 0 181 "udpDestinationPort" Unsigned16 2 "";
    TCP_SOURCE_PORT 0 182 "tcpSourcePort" Unsigned16 2 "";
    TCP_DESTINATION_PORT 0 183 "tcpDestinationPort" Unsigned16 2 "";
    IP_DIFF_SERV_CODE_POINT 0 195 "ipDiffServCodePoint" Unsigned8 1 "";
    TCP_SYN_TOTAL_COUNT 0 218 "tcpSynTotalCount" Unsigned64 8 "packets";
    TCP_FIN_TOTAL_COUNT 0 219 "tcpFinTotalCount" Unsigned64 8 "packets";
    TCP_RST_TOTAL_COUNT 0 220 "tcpRstTotalCount" Unsigned64 8 "packets";
    TCP_PSH_TOTAL_COUNT 0 221 "tcpPshTotalCount" Unsigned64 8 "packets";
    TCP_ACK_TOTAL_COUNT 0 222 "tcpAckTotalCount" Unsigned64 8 "packets";
    TCP_URG_TOTAL_COUNT 0 223 "tcpUrgTotalCount" Unsigned64 8 "packets";
    DOT1Q_VLAN_ID 0 243 "dot1qVlanId" Unsigned16 2 "";
    OBSERVATION_TIME_MILLISECONDS 0 323 "observationTimeMilliseconds" DateTimeMilliseconds 8 "milliseconds";
    INITIAL_TCP_FLAGS 6871 14 "initialTCPFlags" Unsigned16 2 "";
    UNION_TCP_FLAGS 6871 15 "unionTCPFlags" Unsigned16 2 "";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_sorted_so_that_lookup_finds_each() {
        for element in ALL {
            assert_eq!(lookup(element.enterprise, element.id), Some(*element), "{}", element.name);
        }
        assert_eq!(lookup(0, 0), None);
        assert_eq!(lookup(CERT_PEN, 14).map(|e| e.name), Some("initialTCPFlags"));
    }
}
