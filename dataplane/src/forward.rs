//! Sending on to the real server: direct routing.
//!
//! The packet keeps every byte from its IP header on but the TTL (recorded from Linux: `wire.json`, `dr-tcp`); the
//! MAC addresses become the director's and the server's.

use std::net::IpAddr;

use crate::drop_reason::DropReason;
use crate::io::{Packet, PacketIo};
use crate::neighbor::LinkId;
use crate::parse::{Flow, Net, Parsed};
use crate::respond::{self, ErrorFrom, IcmpError};
use crate::snapshot::DestEntry;
use crate::transmit::NextHop;
use crate::wire::{Mac, ethernet, ipv4, ipv6, vlan};
use crate::worker::Worker;

impl<I: PacketIo> Worker<I> {
    /// Sends a packet on to a destination.
    ///
    /// A TTL that would run out and a packet above the MTU towards the server are answered with ICMP errors, as a
    /// router does (RFC 1812 section 5.3.1; RFC 1191).
    pub(crate) fn forward<A: Copy + Into<IpAddr>>(
        &mut self,
        mut frame: I::Packet,
        parsed: &Parsed,
        flow: &Flow<A>,
        entry: &DestEntry,
    ) {
        if flow.ttl <= 1 {
            self.answer_with_error(&frame, parsed, IcmpError::TimeExceeded);
            return self.counters.drop_packet(DropReason::TtlExpired);
        }
        decrement_ttl(frame.bytes_mut(), parsed);
        // after the TTL: the packet is quoted as Linux quotes it (`wire.json`, `mtu-dr`)
        if flow.ip_len > entry.mtu {
            if flow.df {
                self.answer_with_error(&frame, parsed, IcmpError::TooBig { mtu: entry.mtu });
            }
            return self.counters.drop_packet(DropReason::MtuExceeded);
        }
        self.pass_on(frame, parsed, entry);
    }

    /// The link-layer part: VLAN, MAC addresses, sending.
    pub(crate) fn pass_on(&mut self, mut frame: I::Packet, parsed: &Parsed, entry: &DestEntry) {
        if (parsed.vlan != entry.vlan || entry.vlan == 0) && !vlan::set_vlan(&mut frame, entry.vlan) {
            return self.counters.drop_packet(DropReason::NoBuffer);
        }
        self.send_to(NextHop { neighbor: entry.neighbor, device: entry.device, mac: entry.mac }, frame);
    }

    /// Tells the sender of a packet why it was not sent on, as far as the budget for such messages goes.
    pub(crate) fn answer_with_error(&mut self, frame: &I::Packet, parsed: &Parsed, error: IcmpError) {
        let Some(link_id) = self.snapshot.link(frame.device(), parsed.vlan) else { return };
        let Some(packet) = frame.bytes().get(usize::from(parsed.l3)..) else { return };
        if !self.errors.take(self.now_ns) {
            return;
        }
        let Some(mut answer) = self.io.alloc() else {
            self.counters.own.originated.add(1);
            return self.counters.drop_packet(DropReason::NoBuffer);
        };
        let (station, link) = (Self::source(frame), self.snapshot.links[usize::from(link_id.0)].wire());
        self.error_id = self.error_id.wrapping_add(1);
        let id = self.error_id;
        let (len, to) = match &parsed.net {
            Net::Flow4(flow) if answer.set_len(respond::MAX_ERROR4_LEN) => {
                let from = ErrorFrom { link, to: station, src: flow.dst, id };
                (respond::icmp_error4(answer.bytes_mut(), packet, error, &from), IpAddr::from(flow.src))
            }
            Net::Flow6(flow) if answer.set_len(respond::MAX_ERROR6_LEN) => {
                let from = ErrorFrom { link, to: station, src: flow.dst, id };
                (respond::icmp_error6(answer.bytes_mut(), packet, error, &from), IpAddr::from(flow.src))
            }
            _ => return,
        };
        // no length: no error may be sent about this packet
        if len.is_some_and(|len| answer.set_len(len)) {
            self.counters.own.originated.add(1);
            self.reply(answer, link_id, to, station);
        }
    }

    /// Sends an answer back: to the station that asked, or over the gateway when the asker is on no network of the
    /// link.
    pub(crate) fn reply(&mut self, mut answer: I::Packet, link_id: LinkId, to: IpAddr, station: Mac) {
        let link = &self.snapshot.links[usize::from(link_id.0)];
        let (device, mac) = (link.device, link.mac);
        // behind a gateway on another link the question came from a router here, which routes the answer as well
        match self.snapshot.gateway_for(to, link_id).filter(|(of, _)| *of == link_id) {
            Some((_, neighbor)) => self.send_to(NextHop { neighbor, device, mac }, answer),
            None => {
                ethernet::rewrite_macs(answer.bytes_mut(), station, mac);
                self.send(device, answer);
            }
        }
    }
}

/// Takes one off the TTL or hop limit, which is above 1.
pub(crate) fn decrement_ttl(frame: &mut [u8], parsed: &Parsed) {
    let l3 = usize::from(parsed.l3);
    match &parsed.net {
        Net::Flow4(_) | Net::Icmp4(_) => ipv4::decrement_ttl4(frame, l3),
        _ => ipv6::decrement_hop_limit6(frame, l3),
    };
}
