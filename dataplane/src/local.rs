//! Packets for the director itself: ARP, neighbour discovery, ping, ICMP errors about its connections.

use std::net::IpAddr;

use crate::conn::{Key4, Key6};
use crate::drop_reason::DropReason;
use crate::flow::Family;
use crate::forward::decrement_ttl;
use crate::io::{Packet, PacketIo};
use crate::mailbox::Event;
use crate::neighbor::{LinkId, Sighting};
use crate::parse::{Arp, Icmp, Inner, Nd, Net, Parsed};
use crate::respond;
use crate::steer;
use crate::worker::Worker;

impl<I: PacketIo> Worker<I> {
    /// Everything that is not a flow to this station.
    #[cold]
    pub(crate) fn local(&mut self, frame: I::Packet, parsed: &Parsed, link: LinkId, steered: bool) {
        match &parsed.net {
            Net::Arp(arp) => self.arp(frame, parsed, arp, link),
            Net::Nd(nd) => self.nd(frame, parsed, nd, link),
            Net::Icmp4(icmp) if icmp.is_echo_request() => {
                self.echo(frame, parsed, icmp.src.into(), icmp.dst.into(), link)
            }
            Net::Icmp6(icmp) if icmp.is_echo_request() => {
                self.echo(frame, parsed, icmp.src.into(), icmp.dst.into(), link)
            }
            Net::Icmp4(icmp) if icmp.is_error() => self.icmp_error::<Key4>(frame, parsed, icmp, steered),
            Net::Icmp6(icmp) if icmp.is_error() => self.icmp_error::<Key6>(frame, parsed, icmp, steered),
            Net::Icmp4(icmp) => self.refuse(icmp.dst.into(), DropReason::IcmpUnsupported),
            Net::Icmp6(icmp) => self.refuse(icmp.dst.into(), DropReason::IcmpUnsupported),
            Net::Other4 { dst, .. } => self.refuse((*dst).into(), DropReason::ProtocolUnsupported),
            Net::Other6 { dst, .. } => self.refuse((*dst).into(), DropReason::ProtocolUnsupported),
            // a flow in a frame to a group of stations
            Net::Flow4(_) | Net::Flow6(_) => self.counters.drop_packet(DropReason::NotForUs),
        }
    }

    /// Drops a packet: for `reason` when it was for the director, else because it was not.
    fn refuse(&self, to: IpAddr, reason: DropReason) {
        let ours = self.snapshot.local.contains_key(&to);
        self.counters.drop_packet(if ours { reason } else { DropReason::NotForUs });
    }

    fn arp(&mut self, mut frame: I::Packet, parsed: &Parsed, arp: &Arp, link: LinkId) {
        let known = self.hear(Sighting::of_arp(link, arp));
        match *arp {
            // RFC 5227 section 2.4: a request from the address that it asks for is an announcement, not a question
            Arp::Request { sender_ip, target_ip, .. }
                if sender_ip != target_ip && self.snapshot.answers_for(target_ip.into(), link) =>
            {
                let own = self.snapshot.links[usize::from(link.0)].mac;
                if respond::arp_reply(frame.bytes_mut(), parsed, own) {
                    self.send(frame.device(), frame);
                } else {
                    self.counters.drop_packet(DropReason::ArpMalformed);
                }
            }
            _ if known => self.counters.own.delivered.add(1),
            _ => self.counters.drop_packet(DropReason::ArpNotForUs),
        }
    }

    fn nd(&mut self, mut frame: I::Packet, parsed: &Parsed, nd: &Nd, link: LinkId) {
        let known = self.hear(Sighting::of_nd(link, nd));
        match nd {
            Nd::Solicit(solicit) if self.snapshot.answers_for(solicit.target.into(), link) => {
                let own = self.snapshot.links[usize::from(link.0)].mac;
                if respond::nd_reply(&mut frame, parsed, own) {
                    self.send(frame.device(), frame);
                } else {
                    self.counters.drop_packet(DropReason::NoBuffer);
                }
            }
            _ if known => self.counters.own.delivered.add(1),
            _ => self.counters.drop_packet(DropReason::NdNotForUs),
        }
    }

    /// Tells the control core who spoke, when that is a next hop or uses one of the director's addresses.
    fn hear(&mut self, sighting: Option<Sighting>) -> bool {
        let Some(sighting) = sighting else { return false };
        let link = &self.snapshot.links[usize::from(sighting.link.0)];
        let event = match sighting.mac {
            _ if self.snapshot.neighbors.contains_key(&(sighting.link, sighting.ip)) => {
                Event::NeighborHeard(sighting)
            }
            Some(mac) if mac != link.mac && self.snapshot.answers_for(sighting.ip, sighting.link) => {
                Event::AddressConflict { address: sighting.ip, mac }
            }
            _ => return false,
        };
        if self.mailbox.tell(event).is_err() {
            self.counters.own.events_lost.add(1);
        }
        true
    }

    fn echo(&mut self, mut frame: I::Packet, parsed: &Parsed, from: IpAddr, to: IpAddr, link: LinkId) {
        if !self.snapshot.local.contains_key(&to) {
            return self.counters.drop_packet(DropReason::NotForUs);
        }
        let station = Self::source(&frame);
        let own = self.snapshot.links[usize::from(link.0)].mac;
        if respond::echo_reply(frame.bytes_mut(), parsed, own) {
            self.reply(frame, link, from, station);
        } else {
            self.counters.drop_packet(DropReason::IcmpTruncated);
        }
    }

    /// An ICMP error about a packet that a server sent to a client belongs to that server (IPVS: `ip_vs_in_icmp`):
    /// it may be the path's MTU. The inner packet goes from VIP to client, the connection is kept the other way.
    fn icmp_error<K: Family>(
        &mut self,
        mut frame: I::Packet,
        parsed: &Parsed,
        icmp: &Icmp<K::Address>,
        steered: bool,
    ) {
        let Some(inner) = &icmp.inner else {
            return self.refuse(icmp.dst.into(), DropReason::IcmpErrorUnmatched);
        };
        let Inner { src: vip, dst: client, src_port: vip_port, dst_port: client_port, protocol } = *inner;
        if !steered {
            let owner = steer::owner(client.into(), client_port, self.setup.workers, &self.setup.steer_key);
            if owner != self.id {
                return self.hand_over(owner, frame);
            }
        }
        let key = K::new(client, client_port, vip, vip_port);
        let table = K::table(&mut self.tables);
        let found = table.find(&key, protocol as u8, table.probe(&key, protocol as u8));
        let alive = found.filter(|found| found.meta.deadline().left(self.now).is_some());
        let Some(entry) = alive.and_then(|found| self.snapshot.dest(found.meta.dest()).copied()) else {
            return self.refuse(icmp.dst.into(), DropReason::IcmpErrorUnmatched);
        };
        if icmp.ttl <= 1 {
            return self.counters.drop_packet(DropReason::TtlExpired);
        }
        if icmp.ip_len > entry.mtu {
            return self.counters.drop_packet(DropReason::MtuExceeded);
        }
        decrement_ttl(frame.bytes_mut(), parsed);
        self.pass_on(frame, parsed, &entry);
    }
}
