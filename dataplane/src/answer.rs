//! Answers of the director's own to packets that do not go on: ICMP errors, resets, echo replies.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lb_config::IfAddr;

use crate::drop_reason::DropReason;
use crate::exception::Class;
use crate::io::{DeviceId, Packet, PacketIo};
use crate::neighbor::LinkId;
use crate::parse::{Flow, Fragment, Net, Parsed};
use crate::policy::{Answer, Refusal};
use crate::respond::{self, ErrorFrom, IcmpError};
use crate::transmit::{Awaited, NextHop};
use crate::wire::{Mac, ethernet};
use crate::worker::Worker;

/// Who an error says that it is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speaker {
    /// The address that the packet was sent to, the VIP: to clients.
    Vip,
    /// The director's own address on the link: to servers, whose gateway it is.
    Own,
}

impl<I: PacketIo> Worker<I> {
    /// A client's packet that no service takes: the kernel's, or dropped, and the client is told.
    #[cold]
    pub(crate) fn turn_away(&mut self, frame: I::Packet, parsed: &Parsed, refusal: Refusal) {
        if matches!(refusal.reason, DropReason::NoService | DropReason::NotForUs)
            && let Some(link) = self.for_kernel(&frame, parsed)
        {
            return self.give(frame, link, Class::of(&parsed.net));
        }
        match refusal.answer {
            Answer::Nothing => {}
            Answer::Unreachable => {
                self.answer_with_error(&frame, parsed, IcmpError::PortUnreachable, Speaker::Vip);
            }
            Answer::Reset => self.reset(frame, parsed),
            Answer::Proof(mss) => return self.prove(frame, parsed, mss),
        }
        self.counters.drop_packet(refusal.reason);
    }

    /// Answers a packet that is still needed with a TCP reset or SCTP ABORT, as far as the budget goes.
    pub(crate) fn answer_with_reset(&mut self, frame: &I::Packet, parsed: &Parsed) {
        let Some(mut copy) = self.io.alloc() else {
            self.counters.own.originated.add(1);
            return self.counters.drop_packet(DropReason::NoBuffer);
        };
        if !copy.set_len(frame.bytes().len()) {
            self.counters.own.originated.add(1);
            return self.counters.drop_packet(DropReason::NoBuffer);
        }
        copy.bytes_mut().copy_from_slice(frame.bytes());
        self.reset_on(frame.device(), copy, parsed);
    }

    /// Answers a TCP segment with a reset or an SCTP packet with an ABORT, as far as the budget for such messages goes.
    fn reset(&mut self, frame: I::Packet, parsed: &Parsed) {
        self.reset_on(frame.device(), frame, parsed);
    }

    /// As [`Worker::reset`], of a frame that came from `device`.
    fn reset_on(&mut self, device: DeviceId, mut frame: I::Packet, parsed: &Parsed) {
        let Some(link) = self.snapshot.link(device, parsed.vlan) else { return };
        let client: IpAddr = match &parsed.net {
            Net::Flow4(flow) => flow.src.into(),
            Net::Flow6(flow) => flow.src.into(),
            _ => return,
        };
        let (station, own) = (Self::source(&frame), self.snapshot.links[usize::from(link.0)].mac);
        if self.errors.take(self.now_ns) && respond::reset(&mut frame, parsed, own) {
            self.counters.own.originated.add(1);
            self.reply(frame, link, client, station);
        }
    }

    /// Tells the sender of a packet why it was not sent on, as far as the budget for such messages goes.
    pub(crate) fn answer_with_error(
        &mut self,
        frame: &I::Packet,
        parsed: &Parsed,
        error: IcmpError,
        speaker: Speaker,
    ) {
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
            Net::Flow4(Flow { src: to, dst, .. }) | Net::Fragment4(Fragment { src: to, dst, .. })
                if answer.set_len(respond::MAX_ERROR4_LEN) =>
            {
                let own = own4(&self.snapshot.links[usize::from(link_id.0)].addresses, *to);
                let src = if speaker == Speaker::Own { own.unwrap_or(*dst) } else { *dst };
                let from = ErrorFrom { link, to: station, src, id };
                (respond::icmp_error4(answer.bytes_mut(), packet, error, &from), IpAddr::from(*to))
            }
            Net::Flow6(Flow { src: to, dst, .. }) | Net::Fragment6(Fragment { src: to, dst, .. })
                if answer.set_len(respond::MAX_ERROR6_LEN) =>
            {
                let own = own6(&self.snapshot.links[usize::from(link_id.0)].addresses, *to);
                let src = if speaker == Speaker::Own { own.unwrap_or(*dst) } else { *dst };
                let from = ErrorFrom { link, to: station, src, id };
                (respond::icmp_error6(answer.bytes_mut(), packet, error, &from), IpAddr::from(*to))
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
            Some((_, neighbor)) => {
                let hop = NextHop { to: Awaited::Neighbor(neighbor), device, vlan: link.vlan, mac };
                self.send_to(hop, answer);
            }
            None => {
                ethernet::rewrite_macs(answer.bytes_mut(), station, mac);
                self.send(device, answer);
            }
        }
    }
}

/// Of these addresses, the one in the network of `to`, else the first of its family.
fn own_address(addresses: &[IfAddr], to: IpAddr) -> Option<IpAddr> {
    let same_family = |address: &&IfAddr| address.addr.is_ipv4() == to.is_ipv4();
    let inside = addresses.iter().find(|network| network.contains(to));
    inside.or_else(|| addresses.iter().find(same_family)).map(|address| address.addr)
}

fn own4(addresses: &[IfAddr], to: Ipv4Addr) -> Option<Ipv4Addr> {
    match own_address(addresses, to.into()) {
        Some(IpAddr::V4(own)) => Some(own),
        _ => None,
    }
}

fn own6(addresses: &[IfAddr], to: Ipv6Addr) -> Option<Ipv6Addr> {
    match own_address(addresses, to.into()) {
        Some(IpAddr::V6(own)) => Some(own),
        _ => None,
    }
}
