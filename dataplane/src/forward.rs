//! Sending on: to the real server, and back to the client.
//!
//! What becomes of the packet's bytes is [`crate::rewrite`]'s; here is which of it a destination asks for, and where
//! the frame goes then.

use std::net::IpAddr;

use crate::answer::Speaker;
use crate::drop_reason::DropReason;
use crate::flow::Family;
use crate::io::{Packet, PacketIo};
use crate::parse::{Flow, Net, Parsed};
use crate::respond::IcmpError;
use crate::rewrite::{self, Towards, Translation, Verdict};
use crate::snapshot::{DestEntry, Way};
use crate::steer;
use crate::transmit::{Awaited, NextHop};
use crate::worker::Worker;

impl<I: PacketIo> Worker<I> {
    /// Sends a client's packet on to its destination.
    ///
    /// A TTL that would run out and a packet above the MTU towards the server are answered with ICMP errors, as a
    /// router does (RFC 1812 section 5.3.1; RFC 1191).
    pub(crate) fn forward<K: Family>(
        &mut self,
        mut frame: I::Packet,
        parsed: &Parsed,
        flow: &Flow<K::Address>,
        entry: &DestEntry,
    ) {
        let Some(cut) = self.may_pass(&mut frame, parsed, entry.mtu, Towards::Server) else { return };
        let limit = match entry.way {
            Way::Dr => entry.mtu,
            Way::Nat => {
                let port = if entry.port == 0 { flow.dst_port } else { entry.port };
                let dst = K::address(entry.address).map(|address| (address, port));
                if !rewrite::translate(frame.bytes_mut(), parsed.l3, flow, &Translation { src: None, dst }) {
                    // parsing has seen the whole header
                    return self.counters.drop_packet(DropReason::TcpTruncated);
                }
                entry.mtu
            }
            Way::Tunnel(at) => {
                let Some(limit) = self.wrap(&mut frame, parsed, at) else { return };
                limit
            }
        };
        self.leave(frame, parsed, entry.hop(), cut.then_some(limit));
    }

    /// Sends a server's packet on to its client, from the address and port that the client knows.
    pub(crate) fn forward_reply<K: Family>(
        &mut self,
        mut frame: I::Packet,
        parsed: &Parsed,
        flow: &Flow<K::Address>,
        vip: (K::Address, u16),
    ) {
        let Some((hop, mtu)) = self.hop_towards(flow.dst.into()) else {
            return self.counters.drop_packet(DropReason::NoRoute);
        };
        let Some(cut) = self.may_pass(&mut frame, parsed, mtu, Towards::Client) else { return };
        let to = Translation { src: Some(vip), dst: None };
        if !rewrite::translate(frame.bytes_mut(), parsed.l3, flow, &to) {
            // parsing has seen the whole header
            return self.counters.drop_packet(DropReason::TcpTruncated);
        }
        self.leave(frame, parsed, hop, cut.then_some(mtu));
    }

    /// Takes one off the TTL of a packet that may go on; says whether it must be cut. `None`: it was answered with an
    /// error and dropped.
    pub(crate) fn may_pass(
        &mut self,
        frame: &mut I::Packet,
        parsed: &Parsed,
        mtu: u16,
        towards: Towards,
    ) -> Option<bool> {
        let speaker = if towards == Towards::Server { Speaker::Vip } else { Speaker::Own };
        let (error, reason) = match rewrite::pass(frame.bytes_mut(), parsed, mtu, towards) {
            Verdict::Whole => return Some(false),
            Verdict::Fragments => return Some(true),
            Verdict::TtlExpired => (IcmpError::TimeExceeded, DropReason::TtlExpired),
            Verdict::TooBig { mtu } => (IcmpError::TooBig { mtu }, DropReason::MtuExceeded),
        };
        self.answer_with_error(frame, parsed, error, speaker);
        self.counters.drop_packet(reason);
        None
    }

    /// Puts a packet into a tunnel; gives the MTU of the link behind it. `None`: no room, dropped.
    pub(crate) fn wrap(&mut self, frame: &mut I::Packet, parsed: &Parsed, tunnel: u16) -> Option<u16> {
        self.error_id = self.error_id.wrapping_add(1);
        let encap = &self.snapshot.tunnels[usize::from(tunnel)];
        if !rewrite::encapsulate(frame, parsed, encap, self.flow_hash(parsed), self.error_id) {
            self.counters.drop_packet(DropReason::NoBuffer);
            return None;
        }
        Some(encap.link_mtu())
    }

    /// A hash that all packets of a flow share: the source port of GUE, by which routers spread flows.
    fn flow_hash(&self, parsed: &Parsed) -> u32 {
        let of = |src: IpAddr, port| steer::hash(src, port, &self.setup.steer_key);
        match &parsed.net {
            Net::Flow4(flow) => of(flow.src.into(), flow.src_port),
            Net::Flow6(flow) => of(flow.src.into(), flow.src_port),
            Net::Icmp4(icmp) => of(icmp.src.into(), 0),
            Net::Icmp6(icmp) => of(icmp.src.into(), 0),
            _ => 0,
        }
    }

    /// The link-layer part: fragments where `cut` says what the link takes, VLAN, MAC addresses, sending.
    pub(crate) fn leave(&mut self, frame: I::Packet, parsed: &Parsed, hop: NextHop, cut: Option<u16>) {
        match cut {
            None => self.send_tagged(hop, parsed.vlan, frame),
            Some(mtu) => self.send_fragments(frame, parsed, hop, mtu),
        }
    }
}

impl DestEntry {
    /// Where its packets go on the wire.
    #[inline]
    pub(crate) fn hop(&self) -> NextHop {
        let Self { neighbor, device, vlan, mac, .. } = *self;
        NextHop { to: Awaited::Neighbor(neighbor), device, vlan, mac }
    }
}
