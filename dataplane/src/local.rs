//! Packets for the director itself: ARP, neighbour discovery, ping, ICMP errors about its connections.

use std::net::IpAddr;

use crate::channel::PROTOCOL_VRRP;
use crate::conn::{Key4, Key6};
use crate::drop_reason::DropReason;
use crate::exception::Class;
use crate::io::{Packet, PacketIo};
use crate::mailbox::Event;
use crate::neighbor::{LinkId, Sighting};
use crate::parse::{Arp, Nd, Net, Parsed};
use crate::respond;
use crate::snapshot::Route;
use crate::worker::Worker;

impl<I: PacketIo> Worker<I> {
    /// Everything that is not a flow to this station.
    #[cold]
    pub(crate) fn local(&mut self, frame: I::Packet, parsed: &Parsed, link: LinkId, steered: bool) {
        match &parsed.net {
            Net::Arp(arp) => self.arp(frame, parsed, arp, link),
            Net::Nd(nd) => self.nd(frame, parsed, nd, link),
            Net::Icmp4(icmp) if self.is_snat_echo(&frame, icmp) => {
                self.snat_echo::<Key4>(frame, parsed, icmp, steered)
            }
            Net::Icmp6(icmp) if self.is_snat_echo(&frame, icmp) => {
                self.snat_echo::<Key6>(frame, parsed, icmp, steered)
            }
            Net::Icmp4(icmp) if icmp.is_echo_request() => {
                self.echo(frame, parsed, icmp.src.into(), icmp.dst.into(), link)
            }
            Net::Icmp6(icmp) if icmp.is_echo_request() => {
                self.echo(frame, parsed, icmp.src.into(), icmp.dst.into(), link)
            }
            Net::Icmp4(icmp) if icmp.is_error() => self.icmp_error::<Key4>(frame, parsed, icmp, steered),
            Net::Icmp6(icmp) if icmp.is_error() => self.icmp_error::<Key6>(frame, parsed, icmp, steered),
            Net::Icmp4(_) | Net::Icmp6(_) => self.exceptional(frame, parsed, DropReason::IcmpUnsupported),
            Net::Other4 { protocol: PROTOCOL_VRRP, .. } => self.vrrp(frame, parsed, link, false),
            Net::Other6 { protocol: PROTOCOL_VRRP, .. } => self.vrrp(frame, parsed, link, true),
            Net::Other4 { .. } | Net::Other6 { .. } => {
                self.exceptional(frame, parsed, DropReason::ProtocolUnsupported);
            }
            // a flow in a frame to a group of stations; fragments have a way of their own
            Net::Flow4(_) | Net::Flow6(_) | Net::Fragment4(_) | Net::Fragment6(_) => {
                match self.for_kernel(&frame, parsed) {
                    Some(link) => self.give(frame, link, Class::of(&parsed.net)),
                    None => self.counters.drop_packet(DropReason::NotForUs),
                }
            }
        }
    }

    fn arp(&mut self, mut frame: I::Packet, parsed: &Parsed, arp: &Arp, link: LinkId) {
        let known = self.hear(Sighting::of_arp(link, arp));
        match *arp {
            // RFC 5227 section 2.4: a request from the address that it asks for is an announcement, not a question
            Arp::Request { sender_ip, target_ip, .. }
                if sender_ip != target_ip && self.snapshot.answers_for(target_ip.into(), link) =>
            {
                self.expect(sender_ip.into(), link);
                let own = self.snapshot.mac_of(target_ip.into(), link);
                if respond::arp_reply(frame.bytes_mut(), parsed, own) {
                    self.send(frame.device(), frame);
                } else {
                    self.counters.drop_packet(DropReason::ArpMalformed);
                }
            }
            _ => self.overheard(frame, &parsed.net, link, known, DropReason::ArpNotForUs),
        }
    }

    fn nd(&mut self, mut frame: I::Packet, parsed: &Parsed, nd: &Nd, link: LinkId) {
        let known = self.hear(Sighting::of_nd(link, nd));
        match nd {
            Nd::Solicit(solicit) if self.snapshot.answers_for(solicit.target.into(), link) => {
                self.expect(solicit.src.into(), link);
                let own = self.snapshot.mac_of(solicit.target.into(), link);
                if respond::nd_reply(&mut frame, parsed, own) {
                    self.send(frame.device(), frame);
                } else {
                    self.counters.drop_packet(DropReason::NoBuffer);
                }
            }
            _ => self.overheard(frame, &parsed.net, link, known, DropReason::NdNotForUs),
        }
    }

    /// A station asks for the director's MAC address: a client is about to send. Where replies come back through the
    /// director, its own MAC address will be needed; asking now saves the first reply the wait.
    fn expect(&mut self, station: IpAddr, link: LinkId) {
        if self.snapshot.has_replies() && self.snapshot.route(station) == Route::Stranger(link) {
            self.meet(link, station);
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
        if !self.snapshot.is_ours(to) {
            return self.exceptional(frame, parsed, DropReason::NotForUs);
        }
        if self.snapshot.shared.is_mute(to) {
            return self.counters.drop_packet(DropReason::NotAccepted);
        }
        let station = Self::source(&frame);
        let own = self.snapshot.links[usize::from(link.0)].mac;
        if respond::echo_reply(frame.bytes_mut(), parsed, own) {
            self.reply(frame, link, from, station);
        } else {
            self.counters.drop_packet(DropReason::IcmpTruncated);
        }
    }
}
