//! Frames that must not wait: VRRP and BFD between a worker and the thread that speaks them.
//!
//! A pair of queues of their own per worker, so that neither mail, events nor packets hold them up: what is to be
//! sent leaves at the start of a turn, before the turn's packets, and displaces one of those where the device has
//! no room; what is received is passed on when it is met. Both are bounded; what finds a queue full is counted as
//! [`DropReason::ControlQueueFull`] or returned to the sender.

use std::net::IpAddr;
use std::sync::Arc;

use arrayvec::ArrayVec;

use crate::drop_reason::DropReason;
use crate::exception::Class;
use crate::io::{DeviceId, Packet, PacketIo};
use crate::mailbox::{Mailbox, QueueFull};
use crate::neighbor::LinkId;
use crate::parse::{Flow, L4, Parsed};
use crate::wire::{ipv4, ipv6};
use crate::worker::Worker;

/// IP protocol of VRRP. Source: RFC 9568 section 5.1.1.3.
pub const PROTOCOL_VRRP: u8 = 112;
/// UDP port of single-hop BFD. Source: RFC 5881 section 4.
pub const BFD_PORT: u16 = 3784;
/// Longest frame, bytes: an Ethernet frame with a tag, without FCS.
pub const MAX_CONTROL: usize = 1518;
/// Frames that may wait in each direction: several turns' worth.
pub(crate) const CONTROL_QUEUE: usize = 64;

/// A frame on its way.
#[derive(Clone, Debug)]
pub struct ControlFrame {
    /// Where it came in; of what is sent, unused.
    pub link: LinkId,
    /// Where it goes out or came in.
    pub device: DeviceId,
    /// Offset of the IP header, bytes.
    pub l3: u16,
    /// Ethernet header to the end, without FCS.
    pub frame: ArrayVec<u8, MAX_CONTROL>,
}

/// The speaking thread's end of the queues of all workers.
#[derive(Clone, Debug)]
pub struct Channel {
    mailboxes: Vec<Arc<Mailbox>>,
}

impl Channel {
    pub(crate) fn new(mailboxes: Vec<Arc<Mailbox>>) -> Self {
        Self { mailboxes }
    }

    /// Sends a frame through the first worker, before its packets.
    ///
    /// Errors: the queue is full, or the frame longer than [`MAX_CONTROL`]; it is lost.
    pub fn send(&self, device: DeviceId, frame: &[u8]) -> Result<(), QueueFull> {
        let mut copy = ArrayVec::new();
        copy.try_extend_from_slice(frame).map_err(|_| QueueFull)?;
        let frame = ControlFrame { link: LinkId(0), device, l3: 0, frame: copy };
        self.mailboxes.first().ok_or(QueueFull)?.send_control(frame)
    }

    /// The next frame that a worker passed on.
    pub fn receive(&self) -> Option<ControlFrame> {
        self.mailboxes.iter().find_map(|mailbox| mailbox.heard_control())
    }

    /// Whether the first worker has taken everything that was sent.
    pub fn is_drained(&self) -> bool {
        self.mailboxes.first().is_none_or(|mailbox| mailbox.is_control_drained())
    }
}

impl<I: PacketIo> Worker<I> {
    /// Sends what the control core's fast queue holds.
    #[cold]
    pub(crate) fn send_control(&mut self) {
        while let Some(control) = self.mailbox.next_control() {
            self.counters.own.originated.add(1);
            let Some(mut frame) = self.io.alloc() else {
                self.counters.drop_packet(DropReason::NoBuffer);
                continue;
            };
            if !frame.set_len(control.frame.len()) {
                self.counters.drop_packet(DropReason::NoBuffer);
                continue;
            }
            frame.bytes_mut().copy_from_slice(&control.frame);
            self.send_first(control.device, frame);
        }
    }

    /// A packet of VRRP.
    #[cold]
    pub(crate) fn vrrp(&mut self, frame: I::Packet, parsed: &Parsed, link: LinkId, ipv6: bool) {
        let packet = frame.bytes().get(usize::from(parsed.l3)..).unwrap_or_default();
        let header_len = match ipv6 {
            false => ipv4::parse(packet).map(|ip| ip.header_len),
            true => ipv6::parse(packet).map(|ip| ip.header_len),
        };
        let vrid = header_len.ok().and_then(|len| packet.get(usize::from(len) + 1));
        if vrid.is_some_and(|vrid| self.snapshot.shared.hears_vrrp(link, ipv6, *vrid)) {
            return self.pass_on(frame, parsed, link);
        }
        match self.for_kernel(&frame, parsed) {
            // of a keepalived's, beside lbd
            Some(link) => self.give(frame, link, Class::Urgent),
            None => self.counters.drop_packet(DropReason::ControlNotForUs),
        }
    }

    /// Whether a packet is of one of the director's BFD sessions.
    #[inline]
    pub(crate) fn is_bfd<A: Copy + Into<IpAddr>>(&self, flow: &Flow<A>) -> bool {
        flow.protocol == L4::Udp
            && flow.dst_port == BFD_PORT
            && self.snapshot.shared.hears_bfd(flow.src.into(), flow.dst.into())
    }

    /// Gives a frame to the thread that speaks its protocol.
    #[cold]
    pub(crate) fn pass_on(&mut self, frame: I::Packet, parsed: &Parsed, link: LinkId) {
        let mut copy = ArrayVec::new();
        if copy.try_extend_from_slice(frame.bytes()).is_err() {
            return self.counters.drop_packet(DropReason::ControlNotForUs);
        }
        let control = ControlFrame { link, device: frame.device(), l3: parsed.l3, frame: copy };
        match self.mailbox.tell_control(control) {
            Ok(()) => self.counters.own.delivered.add(1),
            Err(QueueFull) => self.counters.drop_packet(DropReason::ControlQueueFull),
        }
    }
}
