//! ICMP (RFC 792) and ICMPv6 (RFC 4443): echo and errors.
//!
//! The checksum is verified for messages that the director acts upon: echo requests and errors. Other messages come
//! back unverified, for the caller to count by their kind.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::udp::Ports;
use super::{Ip, L4, PROTOCOL_ICMP6, checksum, ipv4, ipv6};
use crate::DropReason;

/// Length of the header of every message that the director knows, bytes.
pub const HEADER_LEN: usize = 8;

/// RFC 792: echo reply.
pub const ECHO_REPLY4: u8 = 0;
/// RFC 792: destination unreachable.
pub const UNREACHABLE4: u8 = 3;
/// RFC 792: source quench; deprecated and ignored (RFC 6633).
pub const SOURCE_QUENCH4: u8 = 4;
/// RFC 792: redirect; of no meaning for a connection.
pub const REDIRECT4: u8 = 5;
/// RFC 792: echo request.
pub const ECHO_REQUEST4: u8 = 8;
/// RFC 792: time exceeded.
pub const TIME_EXCEEDED4: u8 = 11;
/// RFC 792: parameter problem.
pub const PARAMETER_PROBLEM4: u8 = 12;
/// RFC 792: port unreachable, a code of [`UNREACHABLE4`].
pub const PORT_UNREACHABLE4: u8 = 3;
/// RFC 1191: fragmentation needed and DF set, a code of [`UNREACHABLE4`].
pub const FRAGMENTATION_NEEDED4: u8 = 4;

/// RFC 4443: destination unreachable.
pub const UNREACHABLE6: u8 = 1;
/// RFC 4443: packet too big.
pub const PACKET_TOO_BIG6: u8 = 2;
/// RFC 4443: time exceeded.
pub const TIME_EXCEEDED6: u8 = 3;
/// RFC 4443: parameter problem.
pub const PARAMETER_PROBLEM6: u8 = 4;
/// RFC 4443: port unreachable, a code of [`UNREACHABLE6`].
pub const PORT_UNREACHABLE6: u8 = 4;
/// RFC 4443: echo request.
pub const ECHO_REQUEST6: u8 = 128;
/// RFC 4443: echo reply.
pub const ECHO_REPLY6: u8 = 129;
/// RFC 4861 section 4.5: redirect.
pub const REDIRECT6: u8 = 137;

/// The flow that an ICMP error is about, as the packet that it quotes was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inner<A> {
    /// Source of the quoted packet.
    pub src: A,
    /// Destination of the quoted packet.
    pub dst: A,
    /// Its source port, host order.
    pub src_port: u16,
    /// Its destination port, host order.
    pub dst_port: u16,
    /// Its protocol.
    pub protocol: L4,
}

/// An ICMP message of either family; neighbour discovery is in [`nd`](super::nd).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Icmp<A> {
    /// Source address.
    pub src: A,
    /// Destination address.
    pub dst: A,
    /// Offset of the ICMP header from the start of the frame, bytes.
    pub l4: u16,
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Whole IP packet, header included, bytes.
    pub ip_len: u16,
    /// Of an error about a connection (unreachable, too big, time exceeded, parameter problem): what it quotes.
    /// `None`: another message, or a quote without the ports of TCP, UDP or SCTP.
    pub inner: Option<Inner<A>>,
}

impl Icmp<Ipv4Addr> {
    /// Whether it asks for an echo.
    pub fn is_echo_request(&self) -> bool {
        self.kind == ECHO_REQUEST4
    }

    /// Whether it is an error about a packet, which may be of a connection.
    pub fn is_error(&self) -> bool {
        is_connection_error4(self.kind)
    }
}

impl Icmp<Ipv6Addr> {
    /// Whether it asks for an echo.
    pub fn is_echo_request(&self) -> bool {
        self.kind == ECHO_REQUEST6
    }

    /// Whether it is an error about a packet, which may be of a connection.
    pub fn is_error(&self) -> bool {
        is_connection_error6(self.kind)
    }
}

fn is_connection_error4(kind: u8) -> bool {
    matches!(kind, UNREACHABLE4 | TIME_EXCEEDED4 | PARAMETER_PROBLEM4)
}

fn is_connection_error6(kind: u8) -> bool {
    matches!(kind, UNREACHABLE6..=PARAMETER_PROBLEM6)
}

/// Whether a message of this type is an error, about which no error may be sent (RFC 1122 section 3.2.2).
pub fn is_any_error4(kind: u8) -> bool {
    is_connection_error4(kind) || matches!(kind, SOURCE_QUENCH4 | REDIRECT4)
}

/// Whether a message of this type is an error, about which no error may be sent (RFC 4443 section 2.4 (e)).
pub fn is_any_error6(kind: u8) -> bool {
    kind < 128 || kind == REDIRECT6
}

/// The flow of a quoted packet. Four bytes behind its IP header are enough, RFC 792 promises eight.
fn inner<A>((ip, rest): (Ip<A>, &[u8])) -> Option<Inner<A>> {
    let protocol = L4::of(ip.protocol)?;
    let ports = Ports::of(*rest.first_chunk::<4>()?);
    Some(Inner { src: ip.src, dst: ip.dst, src_port: ports.src, dst_port: ports.dst, protocol })
}

/// What `header` says; `l3` is the offset of the IP header in the frame.
fn message<A: Copy>(ip: &Ip<A>, l3: u16, header: &[u8; HEADER_LEN]) -> Icmp<A> {
    let (l4, kind, code) = (l3 + ip.header_len, header[0], header[1]);
    Icmp { src: ip.src, dst: ip.dst, l4, kind, code, ttl: ip.ttl, ip_len: ip.ip_len, inner: None }
}

/// Reads the ICMP message that fills `payload`; `l3` is the offset of the IP header in the frame.
///
/// Errors: [`DropReason::IcmpTruncated`], [`DropReason::IcmpChecksum`].
pub fn parse4(ip: &Ip<Ipv4Addr>, l3: u16, payload: &[u8]) -> Result<Icmp<Ipv4Addr>, DropReason> {
    let (header, quote) = payload.split_first_chunk::<HEADER_LEN>().ok_or(DropReason::IcmpTruncated)?;
    let mut icmp = message(ip, l3, header);
    if !icmp.is_echo_request() && !icmp.is_error() {
        return Ok(icmp);
    }
    if !checksum::is_valid(checksum::add(0, payload)) {
        return Err(DropReason::IcmpChecksum);
    }
    if icmp.is_error() {
        icmp.inner = ipv4::parse_quoted(quote).and_then(inner);
    }
    Ok(icmp)
}

/// Whether the checksum of an ICMPv6 message that fills `payload` is right (RFC 4443 section 2.3).
pub(crate) fn is_sum_valid6(ip: &Ip<Ipv6Addr>, payload: &[u8]) -> bool {
    let pseudo = checksum::pseudo_header(&ip.src.octets(), &ip.dst.octets(), PROTOCOL_ICMP6, payload.len());
    checksum::is_valid(checksum::add(pseudo, payload))
}

/// Reads the ICMPv6 message that fills `payload`; `l3` is the offset of the IP header in the frame.
///
/// Errors: [`DropReason::IcmpTruncated`], [`DropReason::IcmpChecksum`].
pub fn parse6(ip: &Ip<Ipv6Addr>, l3: u16, payload: &[u8]) -> Result<Icmp<Ipv6Addr>, DropReason> {
    let (header, quote) = payload.split_first_chunk::<HEADER_LEN>().ok_or(DropReason::IcmpTruncated)?;
    let mut icmp = message(ip, l3, header);
    if !icmp.is_echo_request() && !icmp.is_error() {
        return Ok(icmp);
    }
    if !is_sum_valid6(ip, payload) {
        return Err(DropReason::IcmpChecksum);
    }
    if icmp.is_error() {
        icmp.inner = ipv6::parse_quoted(quote).and_then(inner);
    }
    Ok(icmp)
}

/// Stores the checksum of an ICMP message that fills `payload`, over a pseudo header that adds up to `pseudo`
/// (0 for IPv4). `false`: no room for one.
pub(crate) fn seal(payload: &mut [u8], pseudo: u64) -> bool {
    let Some(field) = payload.get_mut(2..4) else { return false };
    field.fill(0);
    let sum = checksum::finish(checksum::add(pseudo, payload)).to_be_bytes();
    payload.get_mut(2..4).map(|field| field.copy_from_slice(&sum)).is_some()
}

#[cfg(test)]
mod tests {
    use super::super::samples::hex;
    use super::*;
    use proptest::prelude::*;

    fn ip4() -> Ip<Ipv4Addr> {
        let (src, dst) = (Ipv4Addr::new(192, 168, 9, 9), Ipv4Addr::new(10, 0, 0, 100));
        Ip { src, dst, protocol: 1, ttl: 64, ip_len: 56, header_len: 20, df: true }
    }

    /// Fragmentation needed, MTU 1400, quoting 8 bytes of TCP 10.0.0.100:80 > 192.168.1.2:40000.
    fn frag_needed() -> Vec<u8> {
        let mut message =
            hex("0304 0000 0000 0578 45000028 00014000 4006 6ec1 0a000064 c0a80102 0050 9c40 00001389");
        assert!(seal(&mut message, 0));
        message
    }

    #[test]
    fn an_error_gives_the_flow_that_it_quotes() {
        let icmp = parse4(&ip4(), 14, &frag_needed()).unwrap();
        assert_eq!((icmp.kind, icmp.code, icmp.l4), (UNREACHABLE4, FRAGMENTATION_NEEDED4, 34));
        let inner = Inner {
            src: Ipv4Addr::new(10, 0, 0, 100),
            dst: Ipv4Addr::new(192, 168, 1, 2),
            src_port: 80,
            dst_port: 40000,
            protocol: L4::Tcp,
        };
        assert_eq!(icmp.inner, Some(inner));
        for kind in [TIME_EXCEEDED4, PARAMETER_PROBLEM4] {
            let mut message = frag_needed();
            message[0] = kind;
            assert!(seal(&mut message, 0));
            assert_eq!(parse4(&ip4(), 14, &message).unwrap().inner, Some(inner));
        }
    }

    #[test]
    fn a_quote_without_ports_gives_no_flow() {
        let cases: [(&str, usize, u8); 5] = [
            ("version 6", 8, 0x65),
            ("header of 16 bytes", 8, 0x44),
            ("header past the end", 8, 0x4f),
            ("second fragment", 15, 1),
            ("ESP", 17, 50),
        ];
        for (what, at, byte) in cases {
            let mut message = frag_needed();
            message[at] = byte;
            assert!(seal(&mut message, 0));
            assert_eq!(parse4(&ip4(), 14, &message).unwrap().inner, None, "{what}");
        }
        for len in 8..32 {
            let mut message = frag_needed()[..len].to_vec();
            assert!(seal(&mut message, 0));
            assert_eq!(parse4(&ip4(), 14, &message).unwrap().inner, None, "{len} bytes");
        }
    }

    #[test]
    fn a_message_cut_short_or_with_a_wrong_checksum_is_refused() {
        for len in 0..8 {
            assert_eq!(parse4(&ip4(), 14, &frag_needed()[..len]), Err(DropReason::IcmpTruncated));
        }
        let mut message = frag_needed();
        message[7] ^= 1;
        assert_eq!(parse4(&ip4(), 14, &message), Err(DropReason::IcmpChecksum));
        message[0] = ECHO_REQUEST4;
        assert_eq!(parse4(&ip4(), 14, &message), Err(DropReason::IcmpChecksum));
        message[0] = ECHO_REPLY4;
        assert_eq!(parse4(&ip4(), 14, &message).map(|icmp| icmp.kind), Ok(ECHO_REPLY4), "not acted upon");
    }

    #[test]
    fn an_icmp6_error_gives_the_flow_behind_extension_headers() {
        let (src, dst): (Ipv6Addr, Ipv6Addr) =
            ("fd00:c::99".parse().unwrap(), "fd00:a::100".parse().unwrap());
        let mut message = hex(
            "0200 0000 00000578 60000000 0018 3c 40 fd00000a000000000000000000000100 fd00000c000000000000000000000002
             1100000000000000 0035 9c40",
        );
        let ip = Ip {
            src,
            dst,
            protocol: 58,
            ttl: 64,
            ip_len: 40 + message.len() as u16,
            header_len: 40,
            df: true,
        };
        let pseudo = checksum::pseudo_header(&src.octets(), &dst.octets(), PROTOCOL_ICMP6, message.len());
        assert!(seal(&mut message, pseudo));
        let got = parse6(&ip, 18, &message).unwrap();
        let inner = got.inner.unwrap();
        assert_eq!((inner.src_port, inner.dst_port, inner.protocol, got.l4), (53, 40000, L4::Udp, 58));
        assert_eq!(inner.src, dst);
        message[4] ^= 0x80;
        assert_eq!(parse6(&ip, 18, &message), Err(DropReason::IcmpChecksum));
        assert_eq!(parse6(&ip, 18, &message[..7]), Err(DropReason::IcmpTruncated));
    }

    proptest! {
        #[test]
        fn arbitrary_messages_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let mut message = bytes.clone();
            let _ = seal(&mut message, 0);
            let _ = parse4(&ip4(), 14, &message);
            let src = Ipv6Addr::LOCALHOST;
            let ip = Ip { src, dst: src, protocol: 58, ttl: 64, ip_len: 40, header_len: 40, df: true };
            let pseudo = checksum::pseudo_header(&src.octets(), &src.octets(), PROTOCOL_ICMP6, message.len());
            let _ = seal(&mut message, pseudo);
            let _ = parse6(&ip, 14, &message);
        }
    }
}
