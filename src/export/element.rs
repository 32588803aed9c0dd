//! Information Elements (RFC 7012, the IANA IPFIX registry and CERT's private enterprise): one row each.
//!
//! A row is the only place where an element's number, name, type, length and unit are written down; templates, data
//! records and the reader all take them from here.

/// CERT's private enterprise number: initial and later TCP flags (YAF, SiLK).
pub const CERT_PEN: u32 = 6871;

/// The private enterprise number under which an IANA element means the reverse direction (RFC 5103 §6.1).
pub const REVERSE_PEN: u32 = 29305;

/// Length of a field whose length stands in the record (RFC 7011 §7).
pub const VARIABLE: u16 = 65535;

/// Abstract data types (RFC 7012 §3.1), as far as an element here has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the names are the RFC's
pub enum DataType {
    Unsigned8,
    Unsigned16,
    Unsigned32,
    Unsigned64,
    Float64,
    OctetArray,
    String,
    Ipv4Address,
    Ipv6Address,
    MacAddress,
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
    /// Its natural length in octets; [`VARIABLE`] for a length that stands in the record.
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
    MINIMUM_IP_TOTAL_LENGTH 0 25 "minimumIpTotalLength" Unsigned64 8 "octets";
    MAXIMUM_IP_TOTAL_LENGTH 0 26 "maximumIpTotalLength" Unsigned64 8 "octets";
    SOURCE_IPV6_ADDRESS 0 27 "sourceIPv6Address" Ipv6Address 16 "";
    DESTINATION_IPV6_ADDRESS 0 28 "destinationIPv6Address" Ipv6Address 16 "";
    FLOW_LABEL_IPV6 0 31 "flowLabelIPv6" Unsigned32 4 "";
    ICMP_TYPE_CODE_IPV4 0 32 "icmpTypeCodeIPv4" Unsigned16 2 "";
    IGMP_TYPE 0 33 "igmpType" Unsigned8 1 "";
    SAMPLING_INTERVAL 0 34 "samplingInterval" Unsigned32 4 "packets";
    SAMPLING_ALGORITHM 0 35 "samplingAlgorithm" Unsigned8 1 "";
    FLOW_ACTIVE_TIMEOUT 0 36 "flowActiveTimeout" Unsigned16 2 "seconds";
    FLOW_IDLE_TIMEOUT 0 37 "flowIdleTimeout" Unsigned16 2 "seconds";
    EXPORTED_OCTET_TOTAL_COUNT 0 40 "exportedOctetTotalCount" Unsigned64 8 "octets";
    EXPORTED_MESSAGE_TOTAL_COUNT 0 41 "exportedMessageTotalCount" Unsigned64 8 "messages";
    EXPORTED_FLOW_RECORD_TOTAL_COUNT 0 42 "exportedFlowRecordTotalCount" Unsigned64 8 "flows";
    MPLS_TOP_LABEL_TYPE 0 46 "mplsTopLabelType" Unsigned8 1 "";
    SAMPLER_ID 0 48 "samplerId" Unsigned8 1 "";
    SAMPLER_MODE 0 49 "samplerMode" Unsigned8 1 "";
    SAMPLER_RANDOM_INTERVAL 0 50 "samplerRandomInterval" Unsigned32 4 "";
    MINIMUM_TTL 0 52 "minimumTTL" Unsigned8 1 "hops";
    MAXIMUM_TTL 0 53 "maximumTTL" Unsigned8 1 "hops";
    FRAGMENT_IDENTIFICATION 0 54 "fragmentIdentification" Unsigned32 4 "";
    SOURCE_MAC_ADDRESS 0 56 "sourceMacAddress" MacAddress 6 "";
    POST_DESTINATION_MAC_ADDRESS 0 57 "postDestinationMacAddress" MacAddress 6 "";
    VLAN_ID 0 58 "vlanId" Unsigned16 2 "";
    POST_VLAN_ID 0 59 "postVlanId" Unsigned16 2 "";
    IP_VERSION 0 60 "ipVersion" Unsigned8 1 "";
    FLOW_DIRECTION 0 61 "flowDirection" Unsigned8 1 "";
    IPV6_EXTENSION_HEADERS 0 64 "ipv6ExtensionHeaders" Unsigned32 4 "";
    MPLS_TOP_LABEL_STACK_SECTION 0 70 "mplsTopLabelStackSection" OctetArray 3 "";
    MPLS_LABEL_STACK_SECTION2 0 71 "mplsLabelStackSection2" OctetArray 3 "";
    MPLS_LABEL_STACK_SECTION3 0 72 "mplsLabelStackSection3" OctetArray 3 "";
    MPLS_LABEL_STACK_SECTION4 0 73 "mplsLabelStackSection4" OctetArray 3 "";
    MPLS_LABEL_STACK_SECTION5 0 74 "mplsLabelStackSection5" OctetArray 3 "";
    MPLS_LABEL_STACK_SECTION6 0 75 "mplsLabelStackSection6" OctetArray 3 "";
    MPLS_LABEL_STACK_SECTION7 0 76 "mplsLabelStackSection7" OctetArray 3 "";
    MPLS_LABEL_STACK_SECTION8 0 77 "mplsLabelStackSection8" OctetArray 3 "";
    MPLS_LABEL_STACK_SECTION9 0 78 "mplsLabelStackSection9" OctetArray 3 "";
    MPLS_LABEL_STACK_SECTION10 0 79 "mplsLabelStackSection10" OctetArray 3 "";
    DESTINATION_MAC_ADDRESS 0 80 "destinationMacAddress" MacAddress 6 "";
    POST_SOURCE_MAC_ADDRESS 0 81 "postSourceMacAddress" MacAddress 6 "";
    INTERFACE_NAME 0 82 "interfaceName" String VARIABLE "";
    INTERFACE_DESCRIPTION 0 83 "interfaceDescription" String VARIABLE "";
    OCTET_TOTAL_COUNT 0 85 "octetTotalCount" Unsigned64 8 "octets";
    PACKET_TOTAL_COUNT 0 86 "packetTotalCount" Unsigned64 8 "packets";
    FRAGMENT_OFFSET 0 88 "fragmentOffset" Unsigned16 2 "";
    EXPORTER_IPV4_ADDRESS 0 130 "exporterIPv4Address" Ipv4Address 4 "";
    EXPORTER_IPV6_ADDRESS 0 131 "exporterIPv6Address" Ipv6Address 16 "";
    DROPPED_OCTET_DELTA_COUNT 0 132 "droppedOctetDeltaCount" Unsigned64 8 "octets";
    DROPPED_PACKET_DELTA_COUNT 0 133 "droppedPacketDeltaCount" Unsigned64 8 "packets";
    DROPPED_OCTET_TOTAL_COUNT 0 134 "droppedOctetTotalCount" Unsigned64 8 "octets";
    DROPPED_PACKET_TOTAL_COUNT 0 135 "droppedPacketTotalCount" Unsigned64 8 "packets";
    FLOW_END_REASON 0 136 "flowEndReason" Unsigned8 1 "";
    OBSERVATION_POINT_ID 0 138 "observationPointId" Unsigned64 8 "";
    ICMP_TYPE_CODE_IPV6 0 139 "icmpTypeCodeIPv6" Unsigned16 2 "";
    METERING_PROCESS_ID 0 143 "meteringProcessId" Unsigned32 4 "";
    EXPORTING_PROCESS_ID 0 144 "exportingProcessId" Unsigned32 4 "";
    TEMPLATE_ID 0 145 "templateId" Unsigned16 2 "";
    FLOW_ID 0 148 "flowId" Unsigned64 8 "";
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
    OBSERVED_FLOW_TOTAL_COUNT 0 163 "observedFlowTotalCount" Unsigned64 8 "flows";
    IGNORED_PACKET_TOTAL_COUNT 0 164 "ignoredPacketTotalCount" Unsigned64 8 "packets";
    IGNORED_OCTET_TOTAL_COUNT 0 165 "ignoredOctetTotalCount" Unsigned64 8 "octets";
    NOT_SENT_FLOW_TOTAL_COUNT 0 166 "notSentFlowTotalCount" Unsigned64 8 "flows";
    NOT_SENT_PACKET_TOTAL_COUNT 0 167 "notSentPacketTotalCount" Unsigned64 8 "packets";
    NOT_SENT_OCTET_TOTAL_COUNT 0 168 "notSentOctetTotalCount" Unsigned64 8 "octets";
    FLOW_KEY_INDICATOR 0 173 "flowKeyIndicator" Unsigned64 8 "";
    ICMP_TYPE_IPV4 0 176 "icmpTypeIPv4" Unsigned8 1 "";
    ICMP_CODE_IPV4 0 177 "icmpCodeIPv4" Unsigned8 1 "";
    ICMP_TYPE_IPV6 0 178 "icmpTypeIPv6" Unsigned8 1 "";
    ICMP_CODE_IPV6 0 179 "icmpCodeIPv6" Unsigned8 1 "";
    UDP_SOURCE_PORT 0 180 "udpSourcePort" Unsigned16 2 "";
    UDP_DESTINATION_PORT 0 181 "udpDestinationPort" Unsigned16 2 "";
    TCP_SOURCE_PORT 0 182 "tcpSourcePort" Unsigned16 2 "";
    TCP_DESTINATION_PORT 0 183 "tcpDestinationPort" Unsigned16 2 "";
    TCP_SEQUENCE_NUMBER 0 184 "tcpSequenceNumber" Unsigned32 4 "";
    TCP_ACKNOWLEDGEMENT_NUMBER 0 185 "tcpAcknowledgementNumber" Unsigned32 4 "";
    TCP_WINDOW_SIZE 0 186 "tcpWindowSize" Unsigned16 2 "";
    TCP_URGENT_POINTER 0 187 "tcpUrgentPointer" Unsigned16 2 "";
    TCP_HEADER_LENGTH 0 188 "tcpHeaderLength" Unsigned8 1 "octets";
    IP_HEADER_LENGTH 0 189 "ipHeaderLength" Unsigned8 1 "octets";
    TOTAL_LENGTH_IPV4 0 190 "totalLengthIPv4" Unsigned16 2 "octets";
    PAYLOAD_LENGTH_IPV6 0 191 "payloadLengthIPv6" Unsigned16 2 "octets";
    IP_TTL 0 192 "ipTTL" Unsigned8 1 "hops";
    NEXT_HEADER_IPV6 0 193 "nextHeaderIPv6" Unsigned8 1 "";
    IP_DIFF_SERV_CODE_POINT 0 195 "ipDiffServCodePoint" Unsigned8 1 "";
    FRAGMENT_FLAGS 0 197 "fragmentFlags" Unsigned8 1 "";
    MPLS_TOP_LABEL_TTL 0 200 "mplsTopLabelTTL" Unsigned8 1 "hops";
    MPLS_LABEL_STACK_LENGTH 0 201 "mplsLabelStackLength" Unsigned32 4 "octets";
    MPLS_LABEL_STACK_DEPTH 0 202 "mplsLabelStackDepth" Unsigned32 4 "entries";
    MPLS_TOP_LABEL_EXP 0 203 "mplsTopLabelExp" Unsigned8 1 "";
    IP_PAYLOAD_LENGTH 0 204 "ipPayloadLength" Unsigned32 4 "octets";
    UDP_MESSAGE_LENGTH 0 205 "udpMessageLength" Unsigned16 2 "octets";
    IS_MULTICAST 0 206 "isMulticast" Unsigned8 1 "";
    IPV4_OPTIONS 0 208 "ipv4Options" Unsigned32 4 "";
    TCP_OPTIONS 0 209 "tcpOptions" Unsigned64 8 "";
    PADDING_OCTETS 0 210 "paddingOctets" OctetArray VARIABLE "";
    COLLECTOR_IPV4_ADDRESS 0 211 "collectorIPv4Address" Ipv4Address 4 "";
    EXPORT_PROTOCOL_VERSION 0 214 "exportProtocolVersion" Unsigned8 1 "";
    EXPORT_TRANSPORT_PROTOCOL 0 215 "exportTransportProtocol" Unsigned8 1 "";
    COLLECTOR_TRANSPORT_PORT 0 216 "collectorTransportPort" Unsigned16 2 "";
    EXPORTER_TRANSPORT_PORT 0 217 "exporterTransportPort" Unsigned16 2 "";
    TCP_SYN_TOTAL_COUNT 0 218 "tcpSynTotalCount" Unsigned64 8 "packets";
    TCP_FIN_TOTAL_COUNT 0 219 "tcpFinTotalCount" Unsigned64 8 "packets";
    TCP_RST_TOTAL_COUNT 0 220 "tcpRstTotalCount" Unsigned64 8 "packets";
    TCP_PSH_TOTAL_COUNT 0 221 "tcpPshTotalCount" Unsigned64 8 "packets";
    TCP_ACK_TOTAL_COUNT 0 222 "tcpAckTotalCount" Unsigned64 8 "packets";
    TCP_URG_TOTAL_COUNT 0 223 "tcpUrgTotalCount" Unsigned64 8 "packets";
    IP_TOTAL_LENGTH 0 224 "ipTotalLength" Unsigned64 8 "octets";
    BIFLOW_DIRECTION 0 239 "biflowDirection" Unsigned8 1 "";
    DOT1Q_VLAN_ID 0 243 "dot1qVlanId" Unsigned16 2 "";
    DOT1Q_PRIORITY 0 244 "dot1qPriority" Unsigned8 1 "";
    DOT1Q_CUSTOMER_VLAN_ID 0 245 "dot1qCustomerVlanId" Unsigned16 2 "";
    DOT1Q_CUSTOMER_PRIORITY 0 246 "dot1qCustomerPriority" Unsigned8 1 "";
    INGRESS_PHYSICAL_INTERFACE 0 252 "ingressPhysicalInterface" Unsigned32 4 "";
    EGRESS_PHYSICAL_INTERFACE 0 253 "egressPhysicalInterface" Unsigned32 4 "";
    POST_DOT1Q_VLAN_ID 0 254 "postDot1qVlanId" Unsigned16 2 "";
    POST_DOT1Q_CUSTOMER_VLAN_ID 0 255 "postDot1qCustomerVlanId" Unsigned16 2 "";
    ETHERNET_TYPE 0 256 "ethernetType" Unsigned16 2 "";
    COLLECTION_TIME_MILLISECONDS 0 258 "collectionTimeMilliseconds" DateTimeMilliseconds 8 "milliseconds";
    MAX_EXPORT_SECONDS 0 260 "maxExportSeconds" DateTimeSeconds 4 "seconds";
    MAX_FLOW_END_SECONDS 0 261 "maxFlowEndSeconds" DateTimeSeconds 4 "seconds";
    MESSAGE_MD5_CHECKSUM 0 262 "messageMD5Checksum" OctetArray VARIABLE "";
    MESSAGE_SCOPE 0 263 "messageScope" Unsigned8 1 "";
    MIN_EXPORT_SECONDS 0 264 "minExportSeconds" DateTimeSeconds 4 "seconds";
    MIN_FLOW_START_SECONDS 0 265 "minFlowStartSeconds" DateTimeSeconds 4 "seconds";
    OPAQUE_OCTETS 0 266 "opaqueOctets" OctetArray VARIABLE "";
    SESSION_SCOPE 0 267 "sessionScope" Unsigned8 1 "";
    MAX_FLOW_END_MICROSECONDS 0 268 "maxFlowEndMicroseconds" DateTimeMicroseconds 8 "microseconds";
    MAX_FLOW_END_MILLISECONDS 0 269 "maxFlowEndMilliseconds" DateTimeMilliseconds 8 "milliseconds";
    MAX_FLOW_END_NANOSECONDS 0 270 "maxFlowEndNanoseconds" DateTimeNanoseconds 8 "nanoseconds";
    MIN_FLOW_START_MICROSECONDS 0 271 "minFlowStartMicroseconds" DateTimeMicroseconds 8 "microseconds";
    MIN_FLOW_START_MILLISECONDS 0 272 "minFlowStartMilliseconds" DateTimeMilliseconds 8 "milliseconds";
    MIN_FLOW_START_NANOSECONDS 0 273 "minFlowStartNanoseconds" DateTimeNanoseconds 8 "nanoseconds";
    OBSERVATION_DOMAIN_NAME 0 300 "observationDomainName" String VARIABLE "";
    SELECTOR_ID 0 302 "selectorId" Unsigned64 8 "";
    INFORMATION_ELEMENT_ID 0 303 "informationElementId" Unsigned16 2 "";
    SELECTOR_ALGORITHM 0 304 "selectorAlgorithm" Unsigned16 2 "";
    SAMPLING_PACKET_INTERVAL 0 305 "samplingPacketInterval" Unsigned32 4 "packets";
    SAMPLING_PACKET_SPACE 0 306 "samplingPacketSpace" Unsigned32 4 "packets";
    SAMPLING_SIZE 0 309 "samplingSize" Unsigned32 4 "packets";
    SAMPLING_POPULATION 0 310 "samplingPopulation" Unsigned32 4 "packets";
    SAMPLING_PROBABILITY 0 311 "samplingProbability" Float64 8 "";
    DATA_LINK_FRAME_SIZE 0 312 "dataLinkFrameSize" Unsigned16 2 "";
    DATA_LINK_FRAME_SECTION 0 315 "dataLinkFrameSection" OctetArray VARIABLE "";
    SELECTOR_ID_TOTAL_PKTS_OBSERVED 0 318 "selectorIdTotalPktsObserved" Unsigned64 8 "packets";
    SELECTOR_ID_TOTAL_PKTS_SELECTED 0 319 "selectorIdTotalPktsSelected" Unsigned64 8 "packets";
    OBSERVATION_TIME_SECONDS 0 322 "observationTimeSeconds" DateTimeSeconds 4 "seconds";
    OBSERVATION_TIME_MILLISECONDS 0 323 "observationTimeMilliseconds" DateTimeMilliseconds 8 "milliseconds";
    OBSERVATION_TIME_MICROSECONDS 0 324 "observationTimeMicroseconds" DateTimeMicroseconds 8 "microseconds";
    OBSERVATION_TIME_NANOSECONDS 0 325 "observationTimeNanoseconds" DateTimeNanoseconds 8 "nanoseconds";
    PRIVATE_ENTERPRISE_NUMBER 0 346 "privateEnterpriseNumber" Unsigned32 4 "";
    LAYER2_SEGMENT_ID 0 351 "layer2SegmentId" Unsigned64 8 "";
    LAYER2_OCTET_DELTA_COUNT 0 352 "layer2OctetDeltaCount" Unsigned64 8 "octets";
    LAYER2_OCTET_TOTAL_COUNT 0 353 "layer2OctetTotalCount" Unsigned64 8 "octets";
    DATA_LINK_FRAME_TYPE 0 408 "dataLinkFrameType" Unsigned16 2 "";
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
