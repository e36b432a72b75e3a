//! The way of a datagram in fragments: to one worker, to its flow's owner, and when all of it is there, on.
//!
//! To its connection it is one packet, as in IPVS: looked up, scheduled and counted once. What goes on are the
//! fragments as they came; into a tunnel, the outer packet cut anew. Which worker waits for what is told in
//! [`crate::fragments`]. Limits: an error about it quotes its first fragment, a TCP segment in fragments is not
//! answered with a reset, and a NIC that steers flows itself ([`crate::setup::DeviceSetup::rss`]) does not know of
//! fragments: there a flow's datagrams in fragments have the owner that software chooses, and a connection of theirs.

use std::net::IpAddr;

use arrayvec::ArrayVec;
use lb_config::OnServerDown;

use crate::classify::Lookup;
use crate::counters::WorkerCounters;
use crate::drop_reason::DropReason;
use crate::exception::Class;
use crate::flow::{Family, Hit, server_of};
use crate::fragments::{self, Datagrams, Limits, MAX_PARTS, Ready, Release, Resolved};
use crate::io::{Packet, PacketIo};
use crate::parse::{Flow, Fragment, Parsed, parse};
use crate::rewrite::{self, Address, Encap, Gather, Towards, Translation};
use crate::snapshot::{DestEntry, Way};
use crate::steer;
use crate::transmit::NextHop;
use crate::wire::ipv6;
use crate::worker::Worker;

/// Datagrams that one turn forgets at most.
const EXPIRED_PER_TURN: usize = 4;
/// Length of IPv6's fragment header (RFC 8200 section 4.5), which a whole datagram does not have, bytes.
const FRAGMENT6_LEN: u16 = 8;

/// One worker's fragments that wait.
#[derive(Debug)]
pub(crate) struct Pieces<P> {
    /// Those whose flow's owner is not known yet; only where there are several workers.
    resolve: Datagrams<P>,
    /// Those of this worker's own flows.
    whole: Datagrams<P>,
}

impl<P> Pieces<P> {
    /// None yet, at one of so many workers.
    pub fn new(workers: u16) -> Self {
        let alone = Limits { datagrams: 0, held: 0, release: Release::Early };
        let shared = Limits { release: Release::Early, ..Limits::default() };
        let resolve = Datagrams::new(if workers > 1 { shared } else { alone });
        Self { resolve, whole: Datagrams::new(Limits::default()) }
    }

    /// Frames that wait.
    pub fn held(&self) -> usize {
        self.resolve.held() + self.whole.held()
    }

    /// Gives up some of what has waited too long.
    pub fn expire(&mut self, now_ns: u64, counters: &WorkerCounters) {
        for datagrams in [&mut self.resolve, &mut self.whole] {
            datagrams.expire(now_ns, EXPIRED_PER_TURN, &mut |reason| counters.drop_packet(reason));
        }
    }
}

/// How each fragment of a datagram leaves: what it is, and whether it must be cut.
type Parts = ArrayVec<(Parsed, bool), MAX_PARTS>;

/// The datagram as a packet of its flow, and its first frame as it was parsed. `None`: not all of a datagram.
fn whole<K: Family, P: Packet>(frames: &[P], resolved: &Resolved) -> Option<(Parsed, Flow<K::Address>)> {
    let mut first: Option<(Parsed, Flow<K::Address>)> = None;
    for frame in frames {
        let parsed = parse(frame.bytes()).ok()?;
        let part = K::Address::fragment(&parsed.net)?;
        match &mut first {
            None => {
                let mut flow = part.flow(resolved.protocol, resolved.ports);
                if flow.src.into().is_ipv6() {
                    flow.ip_len = flow.ip_len.saturating_sub(FRAGMENT6_LEN).max(ipv6::HEADER_LEN as u16);
                }
                first = Some((parsed, flow));
            }
            // IPv6 counts up to 40 bytes more than fit the field: of no matter to a counter
            Some((_, flow)) => flow.ip_len = flow.ip_len.saturating_add(part.len),
        }
    }
    first
}

impl<I: PacketIo> Worker<I> {
    /// A fragment of a balanced protocol. `handed_over`: another worker has sent it here.
    #[cold]
    pub(crate) fn fragment<K: Family>(
        &mut self,
        mut frame: I::Packet,
        part: &Fragment<K::Address>,
        handed_over: bool,
    ) {
        let own = self.setup.devices[usize::from(frame.device().0)].mac;
        let is_resolved = handed_over && fragments::unmark(frame.bytes_mut(), own).is_some();
        // RFC 1812 section 5.3.4: a unicast packet does not come in a broadcast frame
        if !frame.bytes().starts_with(&own) {
            return self.unreadable(frame, DropReason::NotForUs);
        }
        if is_resolved || self.setup.workers == 1 {
            return self.gather::<K>(frame, part);
        }
        let owner = fragments::owner(part, self.setup.workers, &self.setup.steer_key);
        if owner != self.id {
            return self.hand_over(owner, frame);
        }
        self.resolve_flow::<K>(frame, part);
    }

    /// Finds out the flow of a fragment, or lets it wait for the one that tells.
    fn resolve_flow<K: Family>(&mut self, frame: I::Packet, part: &Fragment<K::Address>) {
        let mut ready = Ready::new();
        let counters = &self.counters;
        let mut lost = |reason| counters.drop_packet(reason);
        let resolved = self.pieces.resolve.admit(self.now_ns, part, frame, &mut ready, &mut lost);
        let Some(resolved) = resolved else { return };
        let owner = self.owner_of(&part.flow(resolved.protocol, resolved.ports));
        for mut frame in ready {
            if owner != self.id {
                // every frame that was parsed has room for the mark
                fragments::mark(frame.bytes_mut(), &resolved);
                self.hand_over(owner, frame);
                continue;
            }
            let parsed = parse(frame.bytes());
            match parsed.as_ref().ok().and_then(|parsed| K::Address::fragment(&parsed.net)) {
                Some(part) => self.gather::<K>(frame, part),
                // it was one when it came
                None => self.counters.drop_packet(DropReason::FragmentMalformed),
            }
        }
    }

    /// A fragment of this worker's own flow waits for the others, or is the last one.
    fn gather<K: Family>(&mut self, frame: I::Packet, part: &Fragment<K::Address>) {
        let mut ready = Ready::new();
        let counters = &self.counters;
        let mut lost = |reason| counters.drop_packet(reason);
        if let Some(resolved) = self.pieces.whole.admit(self.now_ns, part, frame, &mut ready, &mut lost) {
            self.datagram::<K>(ready, &resolved);
        }
    }

    /// All fragments of a datagram, in order: its connection, as for a packet ([`Worker::flow`]).
    fn datagram<K: Family>(&mut self, mut frames: Ready<I::Packet>, resolved: &Resolved) {
        let Some((parsed, flow)) = whole::<K, _>(&frames, resolved) else {
            return self.drop_all(&frames, DropReason::FragmentMalformed);
        };
        let Some(device) = frames.first().map(Packet::device) else { return };
        let key = K::new(flow.src, flow.src_port, flow.dst, flow.dst_port);
        let protocol = flow.protocol as u8;
        if self.snapshot.is_reply((flow.src.into(), flow.src_port), flow.dst.into(), protocol)
            && let Some(hit) = self.find_reply(key, protocol)
        {
            return self.datagram_to_client(frames, resolved, &flow, &hit);
        }
        let table = K::tables(&mut self.tables).0;
        let probe = table.probe(&key, protocol);
        let found = table.find(&key, protocol, probe);
        let hit = found.and_then(|found| self.still_good(found, key, &flow));
        let (dest, entry) = match hit {
            Some(hit) if self.is_cut_off(&hit) => return self.datagram_cut_off(&frames, &hit),
            Some(hit) => {
                if hit.found.meta.is_spliced()
                    && let Some(first) = frames.first_mut()
                    && !self.spliced_fragment(first, &flow, key, false)
                {
                    return self.drop_all(&frames, DropReason::NoConnection);
                }
                self.advance(&hit, &flow, false);
                (hit.found.meta.dest(), hit.entry)
            }
            None => {
                let from_server = self.snapshot.is_nat_server(flow.src.into(), flow.src_port, protocol);
                let lookup = Lookup {
                    src: flow.src.into(),
                    dst: flow.dst.into(),
                    src_port: flow.src_port,
                    dst_port: flow.dst_port,
                    protocol: flow.protocol,
                    device,
                    vlan: parsed.vlan,
                };
                match self.admit(key, &lookup, Some(&flow), probe) {
                    Ok(admitted) => admitted,
                    Err(refusal) => {
                        let reason = refusal.reason;
                        if !from_server
                            && matches!(reason, DropReason::NotForUs | DropReason::NoService)
                            && let Some(link) =
                                frames.first().and_then(|first| self.for_kernel(first, &parsed))
                        {
                            let class = Class::of(&parsed.net);
                            return frames.into_iter().for_each(|frame| self.give(frame, link, class));
                        }
                        let mut frames = frames.into_iter();
                        match frames.next() {
                            Some(first) if from_server && reason == DropReason::NotForUs => {
                                self.stray_reply(first, &parsed, &flow);
                            }
                            Some(first) => self.turn_away(first, &parsed, refusal),
                            None => {}
                        }
                        return self.drop_all(frames.as_slice(), reason);
                    }
                }
            }
        };
        self.counters.inbound(dest, flow.ip_len);
        self.datagram_to_server::<K>(frames, resolved, &flow, &entry);
    }

    /// A datagram of a connection whose server was removed: dropped. A reset would have to be made of a whole segment.
    fn datagram_cut_off<K: Family>(&mut self, frames: &[I::Packet], hit: &Hit<K>) {
        if self.on_server_down(&hit.entry) == Some(OnServerDown::Reset) {
            self.forget(hit.found, hit.key);
        }
        self.drop_all(frames, DropReason::ServerGone);
    }

    fn datagram_to_server<K: Family>(
        &mut self,
        mut frames: Ready<I::Packet>,
        resolved: &Resolved,
        flow: &Flow<K::Address>,
        entry: &DestEntry,
    ) {
        if let Way::Snat(_) = entry.way {
            return self.datagram_out::<K>(frames, resolved, flow, entry);
        }
        let reach =
            |worker: &mut Self, frame: &mut I::Packet, parsed: &Parsed| worker.reaches(frame, parsed, entry);
        let Some(parts) = self.all_pass(&mut frames, reach) else { return };
        if let Some(first) = frames.first_mut() {
            self.clamp(first, flow, entry);
        }
        match entry.way {
            // source NAT went its way above
            Way::Dr | Way::Snat(_) => {}
            Way::FullNat(_) => {
                let key = K::new(flow.src, flow.src_port, flow.dst, flow.dst_port);
                let Some((pair, to)) = self.onward(key, flow.protocol as u8, entry) else {
                    return self.drop_all(&frames, DropReason::NoConnection);
                };
                if !rewrite::translate_datagram(&mut frames, resolved, &to) {
                    // all of it is here
                    return self.drop_all(&frames, DropReason::FragmentMalformed);
                }
                if pair.meta.is_pair_proxied()
                    && let (Some(first), Some((parsed, _))) = (frames.first_mut(), parts.first())
                    && let Err(reason) = self.stream_to_server::<K>(first, parsed, flow, entry, (pair, false))
                {
                    return self.drop_all(&frames, reason);
                }
            }
            Way::Nat => {
                let dst = server_of::<K>(entry, flow.dst_port);
                let to = Translation { src: None, dst };
                if !rewrite::translate_datagram(&mut frames, resolved, &to) {
                    // all of it is here
                    return self.drop_all(&frames, DropReason::FragmentMalformed);
                }
            }
            Way::Tunnel(at) => return self.datagram_into_tunnel(frames, &parts, flow, (at, entry.hop())),
        }
        self.all_leave(frames, &parts, entry.hop(), entry.mtu);
    }

    /// A private host's datagram on its way into the world.
    fn datagram_out<K: Family>(
        &mut self,
        mut frames: Ready<I::Packet>,
        resolved: &Resolved,
        flow: &Flow<K::Address>,
        entry: &DestEntry,
    ) {
        let Some((hop, mtu)) = self.hop_towards(flow.dst.into()) else {
            return self.drop_all(&frames, DropReason::NoRoute);
        };
        let pass = |worker: &mut Self, frame: &mut I::Packet, parsed: &Parsed| {
            worker.passes(frame, parsed, mtu, Towards::Client)
        };
        let Some(parts) = self.all_pass(&mut frames, pass) else { return };
        let key = K::new(flow.src, flow.src_port, flow.dst, flow.dst_port);
        let Some((_, to)) = self.onward(key, flow.protocol as u8, entry) else {
            return self.drop_all(&frames, DropReason::NoConnection);
        };
        if !rewrite::translate_datagram(&mut frames, resolved, &to) {
            // all of it is here
            return self.drop_all(&frames, DropReason::FragmentMalformed);
        }
        self.all_leave(frames, &parts, hop, mtu);
    }

    fn datagram_to_client<K: Family>(
        &mut self,
        mut frames: Ready<I::Packet>,
        resolved: &Resolved,
        flow: &Flow<K::Address>,
        hit: &Hit<K>,
    ) {
        if self.is_cut_off(hit) && self.on_server_down(&hit.entry) == Some(OnServerDown::Reset) {
            return self.datagram_cut_off(&frames, hit);
        }
        let Some((hop, mtu)) = self.hop_towards(hit.key.client().into()) else {
            return self.drop_all(&frames, DropReason::NoRoute);
        };
        let pass = |worker: &mut Self, frame: &mut I::Packet, parsed: &Parsed| {
            worker.passes(frame, parsed, mtu, Towards::Client)
        };
        let Some(parts) = self.all_pass(&mut frames, pass) else { return };
        self.advance(hit, flow, true);
        self.counters.outbound(hit.found.meta.dest(), flow.ip_len);
        if let Some(first) = frames.first_mut() {
            self.clamp(first, flow, &hit.entry);
            if hit.found.meta.is_proxied() {
                self.stream_to_client(first, flow, hit);
            }
            if hit.found.meta.is_spliced() && !self.spliced_fragment(first, flow, hit.key, true) {
                return self.drop_all(&frames, DropReason::NoConnection);
            }
        }
        let to = hit.back();
        if !rewrite::translate_datagram(&mut frames, resolved, &to) {
            // all of it is here
            return self.drop_all(&frames, DropReason::FragmentMalformed);
        }
        self.all_leave(frames, &parts, hop, mtu);
    }

    /// The datagram in an outer packet, cut for the link.
    ///
    /// Its fragments end here and count as delivered; what carries them on is the director's own and counts as
    /// originated.
    fn datagram_into_tunnel<A: Copy + Into<IpAddr>>(
        &mut self,
        frames: Ready<I::Packet>,
        parts: &Parts,
        flow: &Flow<A>,
        (tunnel, hop): (u16, NextHop),
    ) {
        let encap = self.snapshot.tunnels[usize::from(tunnel)];
        let hash = steer::hash(flow.src.into(), flow.src_port, &self.setup.steer_key);
        self.error_id = self.error_id.wrapping_add(1);
        let plan = Gather::plan(&frames, &encap, hash, self.error_id.into());
        let (Some(plan), Some((first, _))) = (plan, parts.first()) else {
            return self.each_into_tunnel(frames, parts, (tunnel, hop));
        };
        // all or nothing: a datagram without one of its pieces is of no use
        let mut outer = ArrayVec::<I::Packet, { rewrite::Fragments::MAX }>::new();
        for n in 0..plan.count() {
            let Some(piece) = self.outer_piece(&plan, n, usize::from(first.l3), &encap) else {
                return self.drop_all(&frames, DropReason::NoBuffer);
            };
            outer.push(piece);
        }
        self.counters.own.delivered.add(frames.len() as u64);
        self.counters.own.originated.add(outer.len() as u64);
        for piece in outer {
            self.send_tagged(hop, first.vlan, piece);
        }
    }

    /// Frame `n` of a datagram in a tunnel.
    fn outer_piece(
        &mut self,
        plan: &Gather<'_, I::Packet>,
        n: usize,
        l3: usize,
        encap: &Encap,
    ) -> Option<I::Packet> {
        let mut piece = self.io.alloc()?;
        piece.set_len(l3 + usize::from(encap.link_mtu())).then_some(())?;
        let len = plan.write(n, piece.bytes_mut())?;
        piece.set_len(len).then_some(piece)
    }

    /// What cannot be wrapped as a whole, because of extension headers or its length: a packet each.
    fn each_into_tunnel(&mut self, frames: Ready<I::Packet>, parts: &Parts, (tunnel, hop): (u16, NextHop)) {
        for (mut frame, (parsed, cut)) in frames.into_iter().zip(parts) {
            if let Some(limit) = self.wrap(&mut frame, parsed, tunnel) {
                self.leave(frame, parsed, hop, cut.then_some(limit));
            }
        }
    }

    /// [`Worker::passes`] or [`Worker::reaches`] of every fragment. `None`: one may not, so all were dropped.
    fn all_pass(
        &mut self,
        frames: &mut Ready<I::Packet>,
        pass: impl Fn(&mut Self, &mut I::Packet, &Parsed) -> Result<bool, DropReason>,
    ) -> Option<Parts> {
        let mut parts = Parts::new();
        for frame in frames.iter_mut() {
            let part = match parse(frame.bytes()) {
                Ok(parsed) => pass(self, frame, &parsed).map(|cut| (parsed, cut)),
                Err(reason) => Err(reason),
            };
            match part {
                Ok(part) => parts.push(part),
                Err(reason) => {
                    self.drop_all(frames, reason);
                    return None;
                }
            }
        }
        Some(parts)
    }

    fn all_leave(&mut self, frames: Ready<I::Packet>, parts: &Parts, hop: NextHop, mtu: u16) {
        for (frame, (parsed, cut)) in frames.into_iter().zip(parts) {
            self.leave(frame, parsed, hop, cut.then_some(mtu));
        }
    }

    /// Counts frames that go no further.
    fn drop_all(&self, frames: &[I::Packet], reason: DropReason) {
        frames.iter().for_each(|_| self.counters.drop_packet(reason));
    }
}
