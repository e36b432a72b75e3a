//! To the kernel: packets that no service takes, and those of services whose server is the director itself.

use std::net::IpAddr;

use super::bucket::Bucket;
use super::pipe::append;
use super::{Class, PROTOCOL_OSPF, is_urgent};
use crate::drop_reason::DropReason;
use crate::flow::{Family, server_of};
use crate::io::{Packet, PacketIo};
use crate::neighbor::{LinkId, NeighborId};
use crate::parse::{Flow, Net, Parsed};
use crate::rewrite::{self, Translation};
use crate::snapshot::{DestEntry, Snapshot, Way};
use crate::transmit::NextHop;
use crate::wire::{ethernet, ipv4, ipv6};
use crate::worker::Worker;

/// What is left of a port's rates.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Allowance {
    /// Of packets that no service takes.
    own: Bucket,
    /// Of those of services.
    local: Bucket,
}

impl Snapshot {
    /// Whether the kernel has `address`: it is an own one of a port with an exception path.
    pub fn is_host(&self, address: IpAddr) -> bool {
        let has = |link: &crate::snapshot::Link| {
            link.exception.is_some() && link.addresses.iter().any(|own| own.addr == address)
        };
        self.links.iter().any(has)
    }

    /// Whether packets of this link that no service takes are the kernel's, by where they go. `None`: ARP or ND.
    fn is_kernels(&self, link: LinkId, to: Option<IpAddr>) -> bool {
        let has_path = self.links.get(usize::from(link.0)).is_some_and(|link| link.exception.is_some());
        has_path && to.is_none_or(|to| self.is_host(to) || !self.is_ours(to))
    }
}

impl<I: PacketIo> Worker<I> {
    /// Whether a packet without a connection may not be dropped for lack of time: it is the kernel's, and of a control
    /// protocol or no SYN. The latter answers what the kernel asked, a health check above all: a flood to a VIP takes no
    /// server out of use. The rate of the exception path bounds what that lets through.
    #[inline]
    pub(crate) fn is_control<A: Copy + Into<IpAddr>>(&self, flow: &Flow<A>) -> bool {
        (is_urgent(flow) || !flow.is_syn()) && self.snapshot.is_host(flow.dst.into())
    }

    /// Whether a packet that no service takes is the kernel's.
    #[cold]
    pub(crate) fn for_kernel(&self, frame: &I::Packet, parsed: &Parsed) -> Option<LinkId> {
        let link = self.snapshot.link(frame.device(), parsed.vlan)?;
        self.snapshot.is_kernels(link, parsed.net.destination()).then_some(link)
    }

    /// Gives a packet that no service takes to the kernel. Where it is not the kernel's, drops it: for `reason` when it
    /// was for the director, else because it was not.
    pub(crate) fn exceptional(&mut self, frame: I::Packet, parsed: &Parsed, reason: DropReason) {
        match self.for_kernel(&frame, parsed) {
            Some(link) => self.give(frame, link, Class::of(&parsed.net)),
            None => {
                let ours = parsed.net.destination().is_none_or(|to| self.snapshot.is_ours(to));
                self.counters.drop_packet(if ours { reason } else { DropReason::NotForUs });
            }
        }
    }

    /// A frame that the parser refused, or that is none of a station's: some of them are of protocols that the kernel
    /// knows.
    #[cold]
    #[inline(never)]
    pub(crate) fn unreadable(&mut self, frame: I::Packet, reason: DropReason) {
        match self.unreadable_for(&frame, reason) {
            Some((link, class)) => self.give(frame, link, class),
            None => self.counters.drop_packet(reason),
        }
    }

    fn unreadable_for(&self, frame: &I::Packet, reason: DropReason) -> Option<(LinkId, Class)> {
        let bytes = frame.bytes();
        let header = ethernet::parse(bytes).ok()?;
        let own = self.setup.devices.get(usize::from(frame.device().0))?.mac;
        if !bytes.starts_with(&own) && bytes.first()? & 1 == 0 {
            return None;
        }
        let link = self.snapshot.link(frame.device(), header.vlan)?;
        let packet = bytes.get(usize::from(header.l3)..)?;
        let to = match header.ethertype {
            ethernet::ETHERTYPE_IPV4 => Some(IpAddr::from(*packet.get(16..)?.first_chunk::<4>()?)),
            ethernet::ETHERTYPE_IPV6 => Some(IpAddr::from(*packet.get(24..)?.first_chunk::<16>()?)),
            _ => None,
        };
        let known = match reason {
            // LLDP, IS-IS, PPPoE and the like
            DropReason::EtherTypeUnsupported => true,
            DropReason::Ipv4Fragment => ipv4::parse_fragment(packet).is_ok(),
            DropReason::Ipv6Fragment => ipv6::parse_fragment(packet).is_ok(),
            DropReason::IcmpEchoBroadcast | DropReason::NotForUs => true,
            // who has no address yet asks for one (DHCP, IGMP)
            DropReason::Ipv4Source => packet.get(12..16)? == [0; 4],
            _ => false,
        };
        let urgent = reason == DropReason::Ipv4Fragment && *packet.get(9)? == PROTOCOL_OSPF;
        let class = if urgent { Class::Urgent } else { Class::Plain };
        (known && self.snapshot.is_kernels(link, to)).then_some((link, class))
    }

    /// Gives a frame to the kernel as far as rate and queue allow; else it is dropped.
    #[cold]
    pub(crate) fn give(&mut self, frame: I::Packet, link: LinkId, class: Class) {
        match self.try_give(frame, link, class) {
            Ok(()) => self.counters.own.to_kernel.add(1),
            Err(reason) => self.counters.drop_packet(reason),
        }
    }

    /// [`Worker::give`] without counting. Errors: why it must be dropped.
    pub(crate) fn try_give(
        &mut self,
        mut frame: I::Packet,
        link: LinkId,
        class: Class,
    ) -> Result<(), DropReason> {
        let Some(on) = self.snapshot.links.get(usize::from(link.0)) else {
            return Err(DropReason::NotForUs);
        };
        let (Some(rate), own) = (on.exception, on.mac) else { return Err(DropReason::NotForUs) };
        let Some(allowance) = self.allowances.get_mut(usize::from(link.0)) else {
            return Err(DropReason::ExceptionRate);
        };
        let (bucket, urgent) = match class {
            Class::Urgent => (&mut allowance.own, true),
            Class::Plain => (&mut allowance.own, false),
            Class::Local => (&mut allowance.local, true),
        };
        if !bucket.take(self.now_ns, rate, self.setup.workers, urgent) {
            return Err(DropReason::ExceptionRate);
        }
        if !self.io.gather(&mut frame) {
            return Err(DropReason::NoBuffer);
        }
        let bytes = frame.bytes();
        let given = self.mailbox.pipe.give(link, class == Class::Urgent, |buffer| {
            let header = ethernet::parse(bytes).ok()?;
            let addresses = bytes.first_chunk::<12>()?;
            // the interface takes what is for its own address: that of a virtual router, say, is not
            let to = if addresses[0] & 1 == 0 { &own } else { addresses.first_chunk::<6>()? };
            append(buffer, to)?;
            append(buffer, &addresses[6..])?;
            append(buffer, bytes.get(usize::from(header.l3) - 2..)?)
        });
        if given { Ok(()) } else { Err(DropReason::ExceptionQueueFull) }
    }

    /// Gives the kernel a frame whose next hop it is.
    #[cold]
    pub(crate) fn give_balanced(&mut self, frame: I::Packet, hop: &NextHop) {
        match self.snapshot.link(hop.device, hop.vlan) {
            Some(link) => self.give(frame, link, Class::Local),
            None => self.counters.drop_packet(DropReason::NeighborUnreachable),
        }
    }

    /// The way to an address that the kernel has.
    pub(crate) fn hop_to_kernel(&self, address: IpAddr) -> Option<NextHop> {
        let has = |link: &&crate::snapshot::Link| {
            link.exception.is_some() && link.addresses.iter().any(|own| own.addr == address)
        };
        let link = self.snapshot.links.iter().find(has)?;
        Some(NextHop {
            to: crate::transmit::Awaited::Neighbor(NeighborId::KERNEL),
            device: link.device,
            vlan: link.vlan,
            mac: link.mac,
        })
    }

    /// Sends a client's packet to a server on the director itself: no router is between, so the TTL stays (IPVS's
    /// forwarding Local).
    #[cold]
    pub(crate) fn forward_here<K: Family>(
        &mut self,
        mut frame: I::Packet,
        parsed: &Parsed,
        flow: &Flow<K::Address>,
        entry: &DestEntry,
    ) {
        self.clamp(&mut frame, flow, entry);
        if entry.way == Way::Nat {
            let to = Translation { src: None, dst: server_of::<K>(entry, flow.dst_port) };
            if !rewrite::translate(frame.bytes_mut(), parsed.l3, flow, &to) {
                // parsing has seen the whole header
                return self.counters.drop_packet(DropReason::TcpTruncated);
            }
        }
        self.give_balanced(frame, &entry.hop());
    }

    /// ARP or ND that the director has no answer to, but may have learned from (`known`): the kernel hears it too.
    pub(crate) fn overheard(
        &mut self,
        frame: I::Packet,
        net: &Net,
        link: LinkId,
        known: bool,
        reason: DropReason,
    ) {
        let given = match self.snapshot.is_kernels(link, None) {
            true => self.try_give(frame, link, Class::of(net)),
            false => Err(reason),
        };
        match given {
            Ok(()) => self.counters.own.to_kernel.add(1),
            Err(_) if known => self.counters.own.delivered.add(1),
            Err(reason) => self.counters.drop_packet(reason),
        }
    }
}
