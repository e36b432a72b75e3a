//! Why a packet was not sent on: every refusal has a name.
//!
//! One variant is one counter, one line of `lbctl drops` and at least one packet case in the tests.

/// Declares [`DropReason`] once: the variant, its name in `lbctl drops` and, from the doc comment, its text.
macro_rules! drop_reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident => $name:literal,)+) => {
        /// Why a packet was dropped.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum DropReason {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl DropReason {
            /// Every reason, in the order of the packet path.
            pub const ALL: &'static [DropReason] = &[$(DropReason::$variant,)+];

            /// Name in `lbctl drops` and in metrics: lower case, words joined by `_`.
            pub const fn name(self) -> &'static str {
                match self { $(DropReason::$variant => $name,)+ }
            }

            /// One sentence for the operator: what was wrong, and by which source.
            pub const fn describe(self) -> &'static str {
                match self { $(DropReason::$variant => concat!($($doc),+).trim_ascii(),)+ }
            }
        }
    };
}

drop_reasons! {
    /// IEEE 802.3: frame shorter than an Ethernet header.
    EthernetTruncated => "ethernet_truncated",
    /// IEEE 802.3: unicast frame for another station, seen because the port is promiscuous.
    NotOurMac => "not_our_mac",
    /// IEEE 802.1Q: tag cut short.
    VlanTruncated => "vlan_truncated",
    /// IEEE 802.1Q: no port is configured for this VLAN on this device.
    VlanUnknown => "vlan_unknown",
    /// The EtherType is neither ARP, IPv4, IPv6 nor one 802.1Q tag before these.
    EtherTypeUnsupported => "ethertype_unsupported",
    /// RFC 826: ARP packet cut short.
    ArpTruncated => "arp_truncated",
    /// RFC 826: not Ethernet and IPv4, an unknown operation, or a sender that cannot be a station.
    ArpMalformed => "arp_malformed",
    /// RFC 826: an ARP packet about an address that is not the director's, or an unasked reply.
    ArpNotForUs => "arp_not_for_us",
    /// RFC 791: shorter than an IPv4 header.
    Ipv4Truncated => "ipv4_truncated",
    /// RFC 1812 section 5.2.2 (3): version is not 4.
    Ipv4Version => "ipv4_version",
    /// RFC 1812 section 5.2.2 (4): header length below 20 bytes or past the end of the packet.
    Ipv4HeaderLength => "ipv4_header_length",
    /// RFC 1812 section 5.2.2 (5): total length below the header's or past the end of the frame.
    Ipv4TotalLength => "ipv4_total_length",
    /// RFC 1812 section 5.2.2 (2): header checksum wrong.
    Ipv4Checksum => "ipv4_checksum",
    /// RFC 1812 section 5.3.7: source is a multicast, broadcast, loopback or unspecified address.
    Ipv4Source => "ipv4_source",
    /// RFC 791: a fragment of a protocol that is not balanced.
    Ipv4Fragment => "ipv4_fragment",
    /// RFC 8200: shorter than an IPv6 header.
    Ipv6Truncated => "ipv6_truncated",
    /// RFC 8200: version is not 6.
    Ipv6Version => "ipv6_version",
    /// RFC 8200: payload length past the end of the frame.
    Ipv6PayloadLength => "ipv6_payload_length",
    /// RFC 4291 section 2.7: source is a multicast or loopback address, or unspecified outside ND.
    Ipv6Source => "ipv6_source",
    /// RFC 8200 section 4: extension headers cut short, out of order, more than 8, or routing on.
    Ipv6ExtensionHeader => "ipv6_extension_header",
    /// RFC 8200 section 4.5: a fragment of a protocol that is not balanced.
    Ipv6Fragment => "ipv6_fragment",
    /// RFC 791 section 3.2 or RFC 8200 section 4.5: a fragment that is empty, not cut at a multiple of 8, or past 65,535 bytes.
    FragmentMalformed => "fragment_malformed",
    /// RFC 1858 section 3: a first fragment without its whole transport header, or a later one that reaches into it.
    FragmentTiny => "fragment_tiny",
    /// The same fragment came twice.
    FragmentDuplicate => "fragment_duplicate",
    /// RFC 5722 section 3: fragments that overlap or contradict each other; the rest of their datagram is refused too.
    FragmentOverlap => "fragment_overlap",
    /// A datagram in more fragments than are followed, or of more that wait than one may hold.
    FragmentTooMany => "fragment_too_many",
    /// Fragments that waited for the others of their datagram gave way to newer ones.
    FragmentQueueFull => "fragment_queue_full",
    /// RFC 8200 section 4.5: not all fragments of a datagram came in time.
    FragmentExpired => "fragment_expired",
    /// RFC 9293: shorter than a TCP header.
    TcpTruncated => "tcp_truncated",
    /// RFC 9293 section 3.1: data offset below 5 words or past the end of the packet.
    TcpDataOffset => "tcp_data_offset",
    /// RFC 768: shorter than a UDP header.
    UdpTruncated => "udp_truncated",
    /// RFC 768: length below 8 or past the end of the packet.
    UdpLength => "udp_length",
    /// RFC 9260: shorter than an SCTP header with the header of one chunk.
    SctpTruncated => "sctp_truncated",
    /// RFC 9260 section 3.2: a first chunk shorter than its header.
    SctpChunkLength => "sctp_chunk_length",
    /// RFC 792 or RFC 4443: ICMP message cut short.
    IcmpTruncated => "icmp_truncated",
    /// RFC 792 or RFC 4443: ICMP checksum wrong.
    IcmpChecksum => "icmp_checksum",
    /// An ICMP message that the director does not act on.
    IcmpUnsupported => "icmp_unsupported",
    /// RFC 1122 section 3.2.2.6: an echo request that was sent to a broadcast or multicast address.
    IcmpEchoBroadcast => "icmp_echo_broadcast",
    /// An ICMP error whose inner packet belongs to no connection.
    IcmpErrorUnmatched => "icmp_error_unmatched",
    /// RFC 4861 section 7.1: a neighbour discovery message that fails its validity checks.
    NdMalformed => "nd_malformed",
    /// RFC 4861: a solicitation for an address that is not the director's, or an unasked advertisement.
    NdNotForUs => "nd_not_for_us",
    /// An IP protocol that is not balanced.
    ProtocolUnsupported => "protocol_unsupported",
    /// The destination is neither a VIP nor a DIP.
    NotForUs => "not_for_us",
    /// The destination is a VIP of which another director is master at present (VRRP).
    NotMaster => "not_master",
    /// RFC 9568 section 6.1: a packet for a VIP itself whose VRRP instance has `accept = false`.
    NotAccepted => "not_accepted",
    /// A VRRP packet for no instance of the director, or one longer than Ethernet's 1500 bytes.
    ControlNotForUs => "control_not_for_us",
    /// The queue of VRRP and BFD packets to the control core is full.
    ControlQueueFull => "control_queue_full",
    /// For the kernel, beyond the port's `exception_rate`.
    ExceptionRate => "exception_rate",
    /// For the kernel, which is behind, or longer than the port's MTU.
    ExceptionQueueFull => "exception_queue_full",
    /// The destination is the director's, no service has this protocol and port.
    NoService => "no_service",
    /// A TCP packet without SYN (or with RST), or an SCTP packet without INIT, and without a connection.
    NoConnection => "no_connection",
    /// No server of the service may take a new connection.
    NoServer => "no_server",
    /// No local port is free for a new connection of full NAT or source NAT.
    PortsExhausted => "ports_exhausted",
    /// The service has as many connections as its `max_connections` allows.
    ServiceFull => "service_full",
    /// The connection's server was removed, and its service says `on_server_down = "drop"` or `"reset"`.
    ServerGone => "server_gone",
    /// The connection table has no room for a new connection.
    TableFull => "table_full",
    /// A SYN, or a packet without a connection, beyond what the worker takes on while frames pile up in its receive queue.
    Overload => "overload",
    /// RFC 1812 section 5.3.1: the TTL or hop limit ran out.
    TtlExpired => "ttl_expired",
    /// RFC 1191 and RFC 8201: larger than the MTU towards the server.
    MtuExceeded => "mtu_exceeded",
    /// RFC 1812 section 5.2.4.3: no connected network and no gateway leads to the packet's destination.
    NoRoute => "no_route",
    /// The next hop does not answer ARP or neighbour solicitations.
    NeighborUnreachable => "neighbor_unreachable",
    /// Too many frames wait for next hops to be resolved.
    NeighborQueueFull => "neighbor_queue_full",
    /// The ring to the worker that owns the connection is full.
    HandoverFull => "handover_full",
    /// The device's transmit queue took no more.
    TxFull => "tx_full",
    /// No packet buffer, or not enough room in it, for a frame of the director's own.
    NoBuffer => "no_buffer",
}

impl DropReason {
    /// Number of reasons.
    pub const COUNT: usize = Self::ALL.len();
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_are_unique_and_in_index_order() {
        let names: HashSet<_> = DropReason::ALL.iter().map(|r| r.name()).collect();
        assert_eq!(names.len(), DropReason::COUNT);
        for (index, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index);
            assert!(reason.describe().ends_with('.'), "{}", reason.describe());
        }
    }
}
