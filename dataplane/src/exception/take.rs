//! From the kernel: its frames go out as they are, but for those that are for the director itself.

use std::net::IpAddr;

use super::{Class, director_mac};
use crate::conn::{Key4, Key6};
use crate::drop_reason::DropReason;
use crate::flow::Family;
use crate::io::{Packet, PacketIo};
use crate::neighbor::LinkId;
use crate::parse::{Arp, Flow, Nd, Net, Parsed, parse};
use crate::receive::Origin;
use crate::respond;
use crate::wire::vlan;
use crate::worker::Worker;

/// Frames that one turn takes: two bursts.
const MOST: usize = 64;

impl<I: PacketIo> Worker<I> {
    /// Takes what the kernel has sent. Returns how many frames that were.
    #[cold]
    pub(crate) fn take_from_kernel(&mut self) -> usize {
        for taken in 0..MOST {
            let Some(parcel) = self.mailbox.pipe.take() else { return taken };
            self.counters.own.from_kernel.add(1);
            match self.framed(parcel.link, &parcel.bytes) {
                Some(frame) => self.kernel_frame(frame, parcel.link),
                None => self.counters.drop_packet(DropReason::NoBuffer),
            }
            self.mailbox.pipe.emptied(parcel.bytes);
        }
        MOST
    }

    /// A frame of these bytes with the tag of its link, as if it had come from there.
    fn framed(&mut self, link: LinkId, bytes: &[u8]) -> Option<I::Packet> {
        let on = self.snapshot.links.get(usize::from(link.0))?;
        let (device, tag) = (on.device, on.vlan);
        let mut frame = self.io.alloc()?;
        frame.set_device(device);
        if !frame.set_len(bytes.len()) {
            return None;
        }
        frame.bytes_mut().copy_from_slice(bytes);
        vlan::set_vlan(&mut frame, tag).then_some(frame)
    }

    fn kernel_frame(&mut self, mut frame: I::Packet, link: LinkId) {
        let Some(on) = self.snapshot.links.get(usize::from(link.0)) else {
            return self.counters.drop_packet(DropReason::NotForUs);
        };
        let (own, device) = (on.mac, on.device);
        let for_director = frame.bytes().starts_with(&director_mac(own)) || frame.bytes().starts_with(&own);
        if for_director && let Some(to) = frame.bytes_mut().first_chunk_mut::<6>() {
            *to = own;
        }
        let parsed = parse(frame.bytes());
        if for_director {
            let probe = self.fetch_ahead(&parsed);
            return match &parsed {
                Ok(parsed) => self.dispatch(frame, parsed, probe, Origin::Device),
                Err(reason) => self.counters.drop_packet(*reason),
            };
        }
        match parsed {
            Ok(parsed) => match &parsed.net {
                Net::Arp(arp) if self.asks_director(arp, link) => self.answer_arp(frame, &parsed, link),
                Net::Nd(nd) if self.solicits_director(nd, link) => self.answer_nd(frame, &parsed, link),
                Net::Flow4(flow) => self.reply_from_kernel::<Key4>(frame, &parsed, flow),
                Net::Flow6(flow) => self.reply_from_kernel::<Key6>(frame, &parsed, flow),
                _ => self.send(device, frame),
            },
            // it is the kernel's business what it sends
            Err(_) => self.send(device, frame),
        }
    }

    /// Whether `address` is the director's and not also the kernel's.
    fn is_directors(&self, address: IpAddr, link: LinkId) -> bool {
        self.snapshot.answers_for(address, link) && !self.snapshot.is_host(address)
    }

    fn asks_director(&self, arp: &Arp, link: LinkId) -> bool {
        matches!(*arp, Arp::Request { sender_ip, target_ip, .. }
            if sender_ip != target_ip && self.is_directors(target_ip.into(), link))
    }

    fn solicits_director(&self, nd: &Nd, link: LinkId) -> bool {
        matches!(nd, Nd::Solicit(solicit) if self.is_directors(solicit.target.into(), link))
    }

    /// The kernel asks for a VIP: the director has it.
    fn answer_arp(&mut self, mut frame: I::Packet, parsed: &Parsed, link: LinkId) {
        let own = self.snapshot.links.get(usize::from(link.0)).map(|on| director_mac(on.mac));
        match own {
            Some(own) if respond::arp_reply(frame.bytes_mut(), parsed, own) => {
                self.give(frame, link, Class::Urgent);
            }
            _ => self.counters.drop_packet(DropReason::ArpMalformed),
        }
    }

    fn answer_nd(&mut self, mut frame: I::Packet, parsed: &Parsed, link: LinkId) {
        let own = self.snapshot.links.get(usize::from(link.0)).map(|on| director_mac(on.mac));
        match own {
            Some(own) if respond::nd_reply(&mut frame, parsed, own) => self.give(frame, link, Class::Urgent),
            _ => self.counters.drop_packet(DropReason::NoBuffer),
        }
    }

    /// A packet of the kernel's: of a server that a service has on the director itself, or its own.
    fn reply_from_kernel<K: Family>(&mut self, frame: I::Packet, parsed: &Parsed, flow: &Flow<K::Address>) {
        let src = (flow.src.into(), flow.src_port);
        if self.snapshot.is_reply(src, flow.dst.into(), flow.protocol as u8) {
            let tuple = K::new(flow.src, flow.src_port, flow.dst, flow.dst_port);
            if let Some(hit) = self.find_reply(tuple, flow.protocol as u8) {
                return self.reply_of_server(frame, parsed, flow, &hit);
            }
        }
        self.send(frame.device(), frame);
    }
}
