//! ARP for Ethernet and IPv4 (RFC 826; probes and announcements after RFC 5227).

use std::net::Ipv4Addr;

use super::ethernet::{Mac, is_station};
use crate::DropReason;

/// Length of an ARP packet for Ethernet and IPv4, bytes.
pub const LEN: usize = 28;

/// Hardware type Ethernet, protocol type IPv4, their address lengths.
const ETHERNET_IPV4: [u8; 6] = [0, 1, 8, 0, 6, 4];
/// RFC 826: ares_op$REQUEST.
const REQUEST: u16 = 1;
/// RFC 826: ares_op$REPLY.
const REPLY: u16 = 2;

/// An ARP packet; gratuitous when `sender_ip` equals `target_ip`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arp {
    /// Who has `target_ip`?
    Request {
        /// Station that asks.
        sender_mac: Mac,
        /// Its address; unspecified in a probe (RFC 5227 section 1.1).
        sender_ip: Ipv4Addr,
        /// Address that is asked for.
        target_ip: Ipv4Addr,
    },
    /// `sender_ip` is at `sender_mac`.
    Reply {
        /// Station that answers.
        sender_mac: Mac,
        /// Its address.
        sender_ip: Ipv4Addr,
        /// Station that had asked.
        target_mac: Mac,
        /// Its address.
        target_ip: Ipv4Addr,
    },
}

/// Whether a station can send from `ip`: not multicast, broadcast or loopback (RFC 1812 section 5.3.7).
fn is_sender(ip: Ipv4Addr) -> bool {
    !ip.is_multicast() && !ip.is_broadcast() && !ip.is_loopback()
}

/// Reads the ARP packet in `packet`, which may be longer (Ethernet pads it to 46 bytes).
///
/// Errors: [`DropReason::ArpTruncated`], [`DropReason::ArpMalformed`].
pub fn parse(packet: &[u8]) -> Result<Arp, DropReason> {
    let arp = packet.first_chunk::<LEN>().ok_or(DropReason::ArpTruncated)?;
    let ip = |at: usize| Ipv4Addr::new(arp[at], arp[at + 1], arp[at + 2], arp[at + 3]);
    let mac = |at: usize| [arp[at], arp[at + 1], arp[at + 2], arp[at + 3], arp[at + 4], arp[at + 5]];
    let (sender_mac, sender_ip, target_mac, target_ip) = (mac(8), ip(14), mac(18), ip(24));
    if arp[..6] != ETHERNET_IPV4 || !is_station(&sender_mac) || !is_sender(sender_ip) {
        return Err(DropReason::ArpMalformed);
    }
    match u16::from_be_bytes([arp[6], arp[7]]) {
        REQUEST => Ok(Arp::Request { sender_mac, sender_ip, target_ip }),
        REPLY if !sender_ip.is_unspecified() => {
            Ok(Arp::Reply { sender_mac, sender_ip, target_mac, target_ip })
        }
        _ => Err(DropReason::ArpMalformed),
    }
}

/// Writes an ARP packet to the front of `payload`; `None`: it does not fit. The target's address of a request is 0.
pub fn emit(payload: &mut [u8], arp: &Arp) -> Option<usize> {
    let (operation, sender_mac, sender_ip, target_mac, target_ip) = match *arp {
        Arp::Request { sender_mac, sender_ip, target_ip } => {
            (REQUEST, sender_mac, sender_ip, [0; 6], target_ip)
        }
        Arp::Reply { sender_mac, sender_ip, target_mac, target_ip } => {
            (REPLY, sender_mac, sender_ip, target_mac, target_ip)
        }
    };
    let packet = payload.first_chunk_mut::<LEN>()?;
    packet[..6].copy_from_slice(&ETHERNET_IPV4);
    packet[6..8].copy_from_slice(&operation.to_be_bytes());
    packet[8..14].copy_from_slice(&sender_mac);
    packet[14..18].copy_from_slice(&sender_ip.octets());
    packet[18..24].copy_from_slice(&target_mac);
    packet[24..].copy_from_slice(&target_ip.octets());
    Some(LEN)
}

#[cfg(test)]
mod tests {
    use super::super::samples::hex;
    use super::*;
    use proptest::prelude::*;

    const CIP: Ipv4Addr = Ipv4Addr::new(192, 168, 150, 1);
    const VIP: Ipv4Addr = Ipv4Addr::new(192, 168, 150, 100);
    const CLIENT: Mac = [2, 0, 0, 0, 0, 1];

    fn request() -> Vec<u8> {
        hex("0001 0800 06 04 0001 020000000001 c0a89601 000000000000 c0a89664")
    }

    #[test]
    fn a_request_and_a_reply_are_read_even_when_padded() {
        let asked = Arp::Request { sender_mac: CLIENT, sender_ip: CIP, target_ip: VIP };
        assert_eq!(parse(&request()), Ok(asked));
        assert_eq!(parse(&[&request()[..], &[0; 18]].concat()), Ok(asked));
        let reply = hex("0001 0800 06 04 0002 020000000001 c0a89601 0200000000fe c0a89664");
        let target_mac = [2, 0, 0, 0, 0, 0xfe];
        assert_eq!(
            parse(&reply),
            Ok(Arp::Reply { sender_mac: CLIENT, sender_ip: CIP, target_mac, target_ip: VIP })
        );
    }

    #[test]
    fn a_packet_cut_short_is_refused_at_every_length() {
        for len in 0..LEN {
            assert_eq!(parse(&request()[..len]), Err(DropReason::ArpTruncated));
        }
    }

    #[test]
    fn wrong_types_lengths_operations_and_impossible_senders_are_refused() {
        let cases: [(&str, usize, &[u8]); 12] = [
            ("hardware type", 1, &[6]),
            ("protocol type", 2, &[0x86, 0xdd]),
            ("hardware length", 4, &[8]),
            ("protocol length", 5, &[16]),
            ("operation 0", 7, &[0]),
            ("operation 3, RARP", 7, &[3]),
            ("group MAC", 8, &[3]),
            ("MAC of zeros", 8, &[0; 6]),
            ("multicast sender", 14, &[224]),
            ("broadcast sender", 14, &[255; 4]),
            ("loopback sender", 14, &[127]),
            ("reply from 0.0.0.0", 7, &[2, 2, 0, 0, 0, 0, 1, 0, 0, 0, 0]),
        ];
        for (what, at, bytes) in cases {
            let mut packet = request();
            packet[at..at + bytes.len()].copy_from_slice(bytes);
            assert_eq!(parse(&packet), Err(DropReason::ArpMalformed), "{what}");
        }
    }

    #[test]
    fn a_probe_from_the_unspecified_address_is_a_request() {
        let mut packet = request();
        packet[14..18].fill(0);
        let probe = Arp::Request { sender_mac: CLIENT, sender_ip: Ipv4Addr::UNSPECIFIED, target_ip: VIP };
        assert_eq!(parse(&packet), Ok(probe));
    }

    proptest! {
        #[test]
        fn what_is_emitted_parses_back(reply: bool, target: [u8; 6], tip: [u8; 4], low: [u8; 5], sip in 1u8..127) {
            let sender_mac = [2, low[0], low[1], low[2], low[3], low[4]];
            let (sender_ip, target_ip) = (Ipv4Addr::new(sip, 2, 3, 4), Ipv4Addr::from(tip));
            let arp = if reply {
                Arp::Reply { sender_mac, sender_ip, target_mac: target, target_ip }
            } else {
                Arp::Request { sender_mac, sender_ip, target_ip }
            };
            let mut bytes = [0xff; LEN];
            prop_assert_eq!(emit(&mut bytes, &arp), Some(LEN));
            prop_assert_eq!(parse(&bytes), Ok(arp));
        }
    }
}
