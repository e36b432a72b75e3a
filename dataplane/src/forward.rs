//! Sending on: to the real server, and back to the client.
//!
//! What becomes of the packet's bytes is [`crate::rewrite`]'s; here is which of it a destination asks for, and where
//! the frame goes then.

use std::net::IpAddr;

use crate::answer::Speaker;
use crate::conn::Found;
use crate::drop_reason::DropReason;
use crate::flow::{Family, Hit, peer_of, server_of};
use crate::io::{Packet, PacketIo};
use crate::local_port;
use crate::neighbor::NeighborId;
use crate::parse::{Flow, L4, Net, Parsed, TcpFlags};
use crate::respond::IcmpError;
use crate::rewrite::{self, Towards, Translation, Verdict, mss, toa};
use crate::snapshot::{DestEntry, Way};
use crate::steer;
use crate::transmit::{Awaited, NextHop};
use crate::worker::Worker;
use lb_config::ClientAddress;

/// Next hop of a reply, and the MTU that it must be cut to, if so.
pub(crate) type Back = (NextHop, Option<u16>);

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
        if let Way::Snat(_) = entry.way {
            return self.forward_out::<K>(frame, parsed, flow, entry);
        }
        if entry.neighbor == NeighborId::KERNEL {
            return self.forward_here::<K>(frame, parsed, flow, entry);
        }
        let Some(cut) = self.may_reach(&mut frame, parsed, entry) else { return };
        self.clamp(&mut frame, flow, entry);
        let limit = match entry.way {
            Way::Dr => entry.mtu,
            Way::Nat => {
                let dst = server_of::<K>(entry, flow.dst_port);
                if !rewrite::translate(frame.bytes_mut(), parsed.l3, flow, &Translation { src: None, dst }) {
                    // parsing has seen the whole header
                    return self.counters.drop_packet(DropReason::TcpTruncated);
                }
                entry.mtu
            }
            Way::FullNat(at) => {
                if !self.full_nat::<K>(&mut frame, parsed, flow, entry, at) {
                    return;
                }
                entry.mtu
            }
            // went its way above
            Way::Snat(_) => return,
            Way::Tunnel(at) => {
                let Some(limit) = self.wrap(&mut frame, parsed, at) else { return };
                limit
            }
        };
        self.leave(frame, parsed, entry.hop(), cut.then_some(limit));
    }

    /// The way of a server's packet to its client; takes one off its TTL. `None`: it may not go, and was answered and
    /// dropped.
    pub(crate) fn way_back(
        &mut self,
        frame: &mut I::Packet,
        parsed: &Parsed,
        client: IpAddr,
    ) -> Option<Back> {
        let Some((hop, mtu)) = self.hop_towards(client) else {
            self.counters.drop_packet(DropReason::NoRoute);
            return None;
        };
        let cut = self.may_pass(frame, parsed, mtu, Towards::Client)?;
        Some((hop, cut.then_some(mtu)))
    }

    /// Sends a server's packet on to its client, from the address and port that the client knows.
    pub(crate) fn forward_reply<K: Family>(
        &mut self,
        mut frame: I::Packet,
        parsed: &Parsed,
        flow: &Flow<K::Address>,
        hit: &Hit<K>,
        (hop, cut): Back,
    ) {
        self.clamp(&mut frame, flow, &hit.entry);
        if let Some(at) = hit.entry.way.local_ends() {
            self.mind_reply(&mut frame, flow, hit, at);
        }
        let to = hit.back();
        if !rewrite::translate(frame.bytes_mut(), parsed.l3, flow, &to) {
            // parsing has seen the whole header
            return self.counters.drop_packet(DropReason::TcpTruncated);
        }
        self.leave(frame, parsed, hop, cut);
    }

    /// What the ends of a client's packet become where its connection has a local end, and the pair that says so.
    pub(crate) fn onward<K: Family>(
        &mut self,
        key: K,
        protocol: u8,
        entry: &DestEntry,
    ) -> Option<(Found, Translation<K::Address>)> {
        let (pair, reply) = self.local_of(key, protocol)?;
        let dst = if let Way::Snat(_) = entry.way { None } else { peer_of(&key, entry) };
        Some((pair, Translation { src: Some((reply.vip(), reply.vip_port())), dst }))
    }

    /// Full NAT inbound: both ends, and the client's address for the server. `false`: dropped.
    fn full_nat<K: Family>(
        &mut self,
        frame: &mut I::Packet,
        parsed: &Parsed,
        flow: &Flow<K::Address>,
        entry: &DestEntry,
        at: u16,
    ) -> bool {
        let key = K::new(flow.src, flow.src_port, flow.dst, flow.dst_port);
        let Some((pair, to)) = self.onward(key, flow.protocol as u8, entry) else {
            self.counters.drop_packet(DropReason::NoConnection);
            return false;
        };
        // a connection stays what it was when it began, whatever its service says now
        let proxied = pair.meta.is_pair_proxied();
        let toa = !proxied && self.tells(at, flow.protocol) == ClientAddress::Toa && !pair.meta.answered();
        if toa {
            toa::strip(frame.bytes_mut(), flow);
        }
        if !rewrite::translate(frame.bytes_mut(), parsed.l3, flow, &to) {
            // parsing has seen the whole header
            self.counters.drop_packet(DropReason::TcpTruncated);
            return false;
        }
        if proxied && let Err(reason) = self.stream_to_server::<K>(frame, parsed, flow, entry, (pair, true)) {
            self.counters.drop_packet(reason);
            return false;
        }
        if toa {
            // without room for it the segment goes as it is; the server's SYN asked for smaller ones
            let client = (flow.src.into(), flow.src_port);
            toa::insert_option(frame, parsed.l3, flow, client, entry.mtu);
        }
        true
    }

    /// How servers are told who their client is.
    pub(crate) fn tells(&self, at: u16, protocol: L4) -> ClientAddress {
        let ends = self.snapshot.local_ends.get(usize::from(at)).filter(|_| protocol == L4::Tcp);
        ends.map_or(ClientAddress::None, |ends| ends.client_address)
    }

    /// The pair of a connection that has a local end, and what its replies carry.
    pub(crate) fn local_of<K: Family>(&mut self, key: K, protocol: u8) -> Option<(Found, K)> {
        local_port::reply_of(K::tables(&mut self.tables).1, key, protocol)
    }

    /// A reply of a server that is told who its client is: by its SYN the client is asked for segments with room for
    /// that; with anything else it shows that it has taken the client's last segment of the handshake.
    fn mind_reply<K: Family>(
        &mut self,
        frame: &mut I::Packet,
        flow: &Flow<K::Address>,
        hit: &Hit<K>,
        at: u16,
    ) {
        if hit.found.meta.is_proxied() {
            return self.stream_to_client(frame, flow, hit);
        }
        if self.tells(at, flow.protocol) != ClientAddress::Toa {
            return;
        }
        if flow.tcp_flags.any(TcpFlags::SYN) {
            let client: IpAddr = hit.key.client().into();
            // IP and TCP headers, RFC 9293 section 3.7.1, and the option
            let headers = if client.is_ipv6() { 40 + 20 + 20 } else { 20 + 20 + 8 };
            mss::clamp(frame.bytes_mut(), flow, hit.entry.mtu.saturating_sub(headers));
        } else if let Some((pair, _)) = self.local_of(hit.key, L4::Tcp as u8) {
            K::tables(&mut self.tables).1.update(pair, pair.meta.with_answered());
        }
    }

    /// Sends a private host's packet out into the world, from a local end.
    fn forward_out<K: Family>(
        &mut self,
        mut frame: I::Packet,
        parsed: &Parsed,
        flow: &Flow<K::Address>,
        entry: &DestEntry,
    ) {
        let Some((hop, cut)) = self.way_back(&mut frame, parsed, flow.dst.into()) else { return };
        let key = K::new(flow.src, flow.src_port, flow.dst, flow.dst_port);
        let Some((_, to)) = self.onward(key, flow.protocol as u8, entry) else {
            return self.counters.drop_packet(DropReason::NoConnection);
        };
        if !rewrite::translate(frame.bytes_mut(), parsed.l3, flow, &to) {
            // parsing has seen the whole header
            return self.counters.drop_packet(DropReason::TcpTruncated);
        }
        self.leave(frame, parsed, hop, cut);
    }

    /// [`Worker::may_pass`] of a packet on its way to `entry`.
    ///
    /// Without `pmtu_disc` nothing is too big for a tunnel: DF does not count, the outer packet has none and is cut
    /// (IPVS: `ensure_mtu_is_adequate`). An IPv6 packet is refused all the same, as routers may not cut it.
    pub(crate) fn may_reach(
        &mut self,
        frame: &mut I::Packet,
        parsed: &Parsed,
        entry: &DestEntry,
    ) -> Option<bool> {
        match self.reaches(frame, parsed, entry) {
            Ok(cut) => Some(cut),
            Err(reason) => {
                self.counters.drop_packet(reason);
                None
            }
        }
    }

    /// [`Worker::may_reach`] without counting. Errors: why it must be dropped; it was answered.
    pub(crate) fn reaches(
        &mut self,
        frame: &mut I::Packet,
        parsed: &Parsed,
        entry: &DestEntry,
    ) -> Result<bool, DropReason> {
        if self.snapshot.policy.pmtu_disc || !matches!(entry.way, Way::Tunnel(_)) {
            return self.passes(frame, parsed, entry.mtu, Towards::Server);
        }
        let ip_len = match &parsed.net {
            Net::Flow4(flow) => flow.ip_len,
            Net::Icmp4(icmp) => icmp.ip_len,
            Net::Fragment4(part) => part.ip_len,
            _ => return self.passes(frame, parsed, entry.mtu, Towards::Server),
        };
        self.passes(frame, parsed, u16::MAX, Towards::Server)?;
        Ok(ip_len > entry.mtu)
    }

    /// Bounds the segment size that a SYN of either side asks for, if the service wants it.
    #[inline]
    pub(crate) fn clamp<A>(&self, frame: &mut I::Packet, flow: &Flow<A>, entry: &DestEntry) {
        if flow.tcp_flags.any(TcpFlags::SYN)
            && let Some(service) = self.snapshot.policies.get(usize::from(entry.policy))
            && let Some(mss) = service.mss
        {
            rewrite::mss::clamp(frame.bytes_mut(), flow, mss);
        }
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
        match self.passes(frame, parsed, mtu, towards) {
            Ok(cut) => Some(cut),
            Err(reason) => {
                self.counters.drop_packet(reason);
                None
            }
        }
    }

    /// [`Worker::may_pass`] without counting. Errors: why it must be dropped; it was answered.
    pub(crate) fn passes(
        &mut self,
        frame: &mut I::Packet,
        parsed: &Parsed,
        mtu: u16,
        towards: Towards,
    ) -> Result<bool, DropReason> {
        let speaker = if towards == Towards::Server { Speaker::Vip } else { Speaker::Own };
        let (error, reason) = match rewrite::pass(frame.bytes_mut(), parsed, mtu, towards) {
            Verdict::Whole => return Ok(false),
            Verdict::Fragments => return Ok(true),
            Verdict::TtlExpired => (IcmpError::TimeExceeded, DropReason::TtlExpired),
            Verdict::TooBig { mtu } => (IcmpError::TooBig { mtu }, DropReason::MtuExceeded),
        };
        self.answer_with_error(frame, parsed, error, speaker);
        Err(reason)
    }

    /// Puts a packet into a tunnel; gives the MTU of the link behind it. `None`: no room, dropped.
    pub(crate) fn wrap(&mut self, frame: &mut I::Packet, parsed: &Parsed, tunnel: u16) -> Option<u16> {
        self.error_id = self.error_id.wrapping_add(1);
        if !frame.is_whole() && self.snapshot.tunnels[usize::from(tunnel)].sums() && !self.io.gather(frame) {
            self.counters.drop_packet(DropReason::NoBuffer);
            return None;
        }
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
            // later ones do not know the port, and all should go one way
            Net::Fragment4(part) => of(part.src.into(), 0),
            Net::Fragment6(part) => of(part.src.into(), 0),
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
