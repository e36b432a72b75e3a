//! Questions and announcements: ARP requests, gratuitous ARP, solicitations, advertisements.
//!
//! Every function writes a whole frame to the front of `frame` and gives its length; `None`: no room for
//! [`MAX_PROBE_LEN`] bytes.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::parse::{Advert, Arp, Nd, Solicit};
use crate::wire::ethernet::{self, BROADCAST, HEADER_LEN, Link, Mac, header_len};
use crate::wire::{PROTOCOL_ICMP6, arp, ipv6, nd, vlan};

/// Length of the longest frame that is built here, a tagged advertisement, bytes.
pub const MAX_PROBE_LEN: usize = HEADER_LEN + vlan::TAG_LEN + ipv6::HEADER_LEN + nd::LEN;

fn arp_frame(frame: &mut [u8], link: &Link, to: Mac, packet: &Arp) -> Option<usize> {
    let payload = ethernet::emit(frame, link, to, ethernet::ETHERTYPE_ARP)?;
    Some(header_len(link.vlan) + arp::emit(payload, packet)?)
}

/// Who has `target_ip`? Asked of `station`, or of everyone.
///
/// Source: RFC 826; unicast polls after RFC 1122 section 2.3.2.1.
pub fn arp_request(
    frame: &mut [u8],
    link: &Link,
    (src_ip, target_ip): (Ipv4Addr, Ipv4Addr),
    station: Option<Mac>,
) -> Option<usize> {
    let request = Arp::Request { sender_mac: link.mac, sender_ip: src_ip, target_ip };
    arp_frame(frame, link, station.unwrap_or(BROADCAST), &request)
}

/// Tells everyone that `ip` is here now (RFC 5227 section 3: an announcement is a request).
pub fn gratuitous_arp(frame: &mut [u8], link: &Link, ip: Ipv4Addr) -> Option<usize> {
    arp_request(frame, link, (ip, ip), None)
}

/// Writes the IPv6 header and the message; the packet's length.
pub(super) fn nd_packet(packet: &mut [u8], message: &Nd) -> Option<usize> {
    let (src, dst) = match message {
        Nd::Solicit(s) => (s.src, s.dst),
        Nd::Advert(a) => (a.src, a.dst),
    };
    let len = nd::emit(packet.get_mut(ipv6::HEADER_LEN..)?, message)?;
    let (protocol, hop_limit, payload_len) = (PROTOCOL_ICMP6, nd::HOP_LIMIT, len as u16);
    Some(ipv6::emit(packet, &ipv6::Emit { src, dst, protocol, hop_limit, payload_len })? + len)
}

fn nd_frame(frame: &mut [u8], link: &Link, to: Mac, message: &Nd) -> Option<usize> {
    let payload = ethernet::emit(frame, link, to, ethernet::ETHERTYPE_IPV6)?;
    Some(header_len(link.vlan) + nd_packet(payload, message)?)
}

/// Who has `target`? Asked of `station`, or of the target's solicited-node group (RFC 4861 section 7.2.2).
pub fn neighbor_solicitation(
    frame: &mut [u8],
    link: &Link,
    (src, target): (Ipv6Addr, Ipv6Addr),
    station: Option<Mac>,
) -> Option<usize> {
    let group = ipv6::solicited_node(target);
    let (dst, to) = match station {
        Some(station) => (target, station),
        None => (group, ipv6::multicast_mac(group)),
    };
    nd_frame(frame, link, to, &Nd::Solicit(Solicit { src, dst, target, source_lla: Some(link.mac) }))
}

/// Tells all nodes that `target` is here now (RFC 4861 section 7.2.6: unsolicited, may override).
pub fn neighbor_advertisement(frame: &mut [u8], link: &Link, target: Ipv6Addr) -> Option<usize> {
    let dst = ipv6::ALL_NODES;
    let (router, solicited, overrides) = (false, false, true);
    let advert =
        Advert { src: target, dst, target, target_lla: Some(link.mac), router, solicited, overrides };
    nd_frame(frame, link, ipv6::multicast_mac(dst), &Nd::Advert(advert))
}
