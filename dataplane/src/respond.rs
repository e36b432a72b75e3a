//! Frames of the director's own: replies made in place, questions and announcements, ICMP errors.
//!
//! Replies rewrite the frame that they answer; what is built from nothing is written into a buffer, and the length
//! comes back. No frame is padded: drivers extend frames below Ethernet's 60 bytes. Invariant: whatever is written
//! here passes [`parse`](crate::parse::parse).

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::io::Packet;
use crate::parse::{Advert, Arp, Icmp, Nd, Net, Parsed, Solicit};
use crate::wire::ethernet::{self, Mac, rewrite_macs};
use crate::wire::{DEFAULT_TTL, arp, checksum, icmp, ipv4, ipv6, nd};

mod icmp_error;
mod originate;
mod reset;

pub use icmp_error::{ErrorFrom, IcmpError, MAX_ERROR4_LEN, MAX_ERROR6_LEN, icmp_error4, icmp_error6};
pub use originate::{
    MAX_PROBE_LEN, arp_request, gratuitous_arp, neighbor_advertisement, neighbor_solicitation,
};
pub use reset::{cut_short, reset};

/// Exchanges the `N` bytes of an address with the `N` bytes behind it. `false`: past the end, unchanged.
fn swap<const N: usize>(frame: &mut [u8], at: usize) -> bool {
    let Some((first, rest)) = frame.get_mut(at..).and_then(|tail| tail.split_first_chunk_mut::<N>()) else {
        return false;
    };
    let Some(second) = rest.first_chunk_mut::<N>() else { return false };
    std::mem::swap(first, second);
    true
}

/// Turns the ICMP message at `at` into one of type `kind`, code unchanged. `false`: past the end, unchanged.
fn set_icmp_kind(frame: &mut [u8], at: usize, kind: u8) -> bool {
    let Some(header) = frame.get_mut(at..).and_then(|tail| tail.first_chunk_mut::<4>()) else { return false };
    let [old_kind, code, sum_high, sum_low] = *header;
    let sum = u16::from_be_bytes([sum_high, sum_low]);
    let sum = checksum::update(sum, u16::from_be_bytes([old_kind, code]), u16::from_be_bytes([kind, code]));
    let [sum_high, sum_low] = sum.to_be_bytes();
    *header = [kind, code, sum_high, sum_low];
    true
}

fn echo_reply4(frame: &mut [u8], l3: usize, echo: &Icmp<Ipv4Addr>) -> bool {
    let Some(header) =
        frame.get_mut(l3..).and_then(|packet| packet.first_chunk_mut::<{ ipv4::HEADER_LEN }>())
    else {
        return false;
    };
    ipv4::set_ttl(header, DEFAULT_TTL);
    swap::<4>(frame, l3 + 12) && set_icmp_kind(frame, usize::from(echo.l4), icmp::ECHO_REPLY4)
}

fn echo_reply6(frame: &mut [u8], l3: usize, echo: &Icmp<Ipv6Addr>) -> bool {
    let Some(hop_limit) = frame.get_mut(l3 + 7) else { return false };
    *hop_limit = DEFAULT_TTL;
    swap::<16>(frame, l3 + 8) && set_icmp_kind(frame, usize::from(echo.l4), icmp::ECHO_REPLY6)
}

/// Turns an echo request of either family into its reply, from `our_mac` to the station that sent the frame.
///
/// The reply keeps tag, type of service, identification, DF and options of the request (RFC 1122 section 3.2.2.6);
/// its TTL is 64, and checksums are updated. `false`: `parsed` is no echo request, unchanged.
pub fn echo_reply(frame: &mut [u8], parsed: &Parsed, our_mac: Mac) -> bool {
    let l3 = usize::from(parsed.l3);
    let replied = match &parsed.net {
        Net::Icmp4(echo) if echo.is_echo_request() => echo_reply4(frame, l3, echo),
        Net::Icmp6(echo) if echo.is_echo_request() => echo_reply6(frame, l3, echo),
        _ => false,
    };
    replied && ethernet::source(frame).is_some_and(|sender| rewrite_macs(frame, sender, our_mac))
}

/// Turns an ARP request into the reply that its target is at `our_mac`, sent to who asked.
///
/// Whether the target is the director's is the caller's question. `false`: `parsed` is no ARP request, unchanged.
pub fn arp_reply(frame: &mut [u8], parsed: &Parsed, our_mac: Mac) -> bool {
    let Net::Arp(Arp::Request { sender_mac, sender_ip, target_ip }) = parsed.net else { return false };
    let reply = Arp::Reply {
        sender_mac: our_mac,
        sender_ip: target_ip,
        target_mac: sender_mac,
        target_ip: sender_ip,
    };
    let Some(packet) = frame.get_mut(usize::from(parsed.l3)..) else { return false };
    arp::emit(packet, &reply).is_some() && rewrite_macs(frame, sender_mac, our_mac)
}

/// What answers a solicitation, and the station to send it to: who asked, or all nodes when it has no address yet
/// (RFC 4861 section 7.2.4). `sender` is the station that sent the frame.
fn advert_for(solicit: &Solicit, sender: Mac, our_mac: Mac) -> (Advert, Mac) {
    let solicited = !solicit.src.is_unspecified();
    let (dst, station) = if solicited {
        (solicit.src, solicit.source_lla.unwrap_or(sender))
    } else {
        (ipv6::ALL_NODES, ipv6::multicast_mac(ipv6::ALL_NODES))
    };
    let (src, target, target_lla) = (solicit.target, solicit.target, Some(our_mac));
    (Advert { src, dst, target, target_lla, router: false, solicited, overrides: true }, station)
}

/// Turns a neighbour solicitation into the advertisement that its target is at `our_mac`.
///
/// Whether the target is the director's is the caller's question. `false`: `parsed` is no solicitation, or the
/// packet has no room for 8 bytes more; unchanged.
pub fn nd_reply<P: Packet>(packet: &mut P, parsed: &Parsed, our_mac: Mac) -> bool {
    let Net::Nd(Nd::Solicit(solicit)) = &parsed.net else { return false };
    let Some(sender) = ethernet::source(packet.bytes()) else { return false };
    let (advert, station) = advert_for(solicit, sender, our_mac);
    let l3 = usize::from(parsed.l3);
    if !packet.set_len(l3 + ipv6::HEADER_LEN + nd::LEN) {
        return false;
    }
    let frame = packet.bytes_mut();
    let Some(ip) = frame.get_mut(l3..) else { return false };
    originate::nd_packet(ip, &Nd::Advert(advert)).is_some() && rewrite_macs(frame, station, our_mac)
}

#[cfg(test)]
mod tests;
