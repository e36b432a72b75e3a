//! The way of a TCP, UDP or SCTP packet: owner, connection, or else service, scheduler, new connection; then state.
//!
//! A packet is the client's when its tuple is the key of a connection or of a service; it is a server's reply when a
//! [`Pair`] leads from its tuple to a connection (IPVS: `ip_vs_in` and `ip_vs_out`).

use std::net::IpAddr;

use lb_config::OnServerDown;

use crate::answer::Speaker;
use crate::classify::Lookup;
use crate::conn::{ConnKey, Found, Key4, Key6, Meta, Pair, Probe, Table};
use crate::drop_reason::DropReason;
use crate::ending::Ending;
use crate::flood::evict::is_embryonic;
use crate::io::{Packet, PacketIo, WorkerId};
use crate::parse::{Flow, L4, Net, Parsed, TcpFlags, parse};
use crate::policy;
use crate::respond::{self, IcmpError};
use crate::rewrite;
use crate::snapshot::{DestEntry, Way};
use crate::state;
use crate::steer;
use crate::sync::Changes;
use crate::tables::Tables;
use crate::worker::Worker;

/// What the flow code needs to know of an address family.
pub(crate) trait Family: ConnKey<Address: rewrite::Address> + Changes {
    /// Its connection table and the pairs of its connections.
    fn tables(tables: &mut Tables) -> (&mut Table<Self>, &mut Table<Pair<Self>>);
    /// The same, to be read.
    fn tables_ref(tables: &Tables) -> (&Table<Self>, &Table<Pair<Self>>);
    /// `address` when it is of this family.
    fn address(address: IpAddr) -> Option<Self::Address>;
    /// The flow in what a frame carries.
    fn flow(net: &Net) -> Option<&Flow<Self::Address>>;
}

impl Family for Key4 {
    #[inline]
    fn tables(tables: &mut Tables) -> (&mut Table<Self>, &mut Table<Pair<Self>>) {
        (&mut tables.v4, &mut tables.pairs4)
    }

    #[inline(always)]
    fn tables_ref(tables: &Tables) -> (&Table<Self>, &Table<Pair<Self>>) {
        (&tables.v4, &tables.pairs4)
    }

    #[inline]
    fn address(address: IpAddr) -> Option<Self::Address> {
        match address {
            IpAddr::V4(v4) => Some(v4),
            IpAddr::V6(_) => None,
        }
    }

    fn flow(net: &Net) -> Option<&Flow<Self::Address>> {
        match net {
            Net::Flow4(flow) => Some(flow),
            _ => None,
        }
    }
}

impl Family for Key6 {
    #[inline]
    fn tables(tables: &mut Tables) -> (&mut Table<Self>, &mut Table<Pair<Self>>) {
        (&mut tables.v6, &mut tables.pairs6)
    }

    #[inline(always)]
    fn tables_ref(tables: &Tables) -> (&Table<Self>, &Table<Pair<Self>>) {
        (&tables.v6, &tables.pairs6)
    }

    #[inline]
    fn address(address: IpAddr) -> Option<Self::Address> {
        match address {
            IpAddr::V6(v6) => Some(v6),
            IpAddr::V4(_) => None,
        }
    }

    fn flow(net: &Net) -> Option<&Flow<Self::Address>> {
        match net {
            Net::Flow6(flow) => Some(flow),
            _ => None,
        }
    }
}

/// A server's end of a connection that was made to this port of the VIP.
pub(crate) fn server_of<K: Family>(entry: &DestEntry, vip_port: u16) -> Option<(K::Address, u16)> {
    let port = if entry.port == 0 { vip_port } else { entry.port };
    Some((K::address(entry.address)?, port))
}

/// The end that a connection's packets go to: the server, or with source NAT whom the private host asked for.
pub(crate) fn peer_of<K: Family>(key: &K, entry: &DestEntry) -> Option<(K::Address, u16)> {
    if let Way::Snat(_) = entry.way {
        return Some((key.vip(), key.vip_port()));
    }
    server_of::<K>(entry, key.vip_port())
}

/// The tuple that replies of a connection to a NATed destination carry.
pub(crate) fn reply_tuple<K: Family>(key: &K, entry: &DestEntry) -> Option<K> {
    let (address, port) = server_of::<K>(entry, key.vip_port())?;
    Some(K::new(address, port, key.client(), key.client_port()))
}

/// A connection as a packet found it.
#[derive(Clone, Copy)]
pub(crate) struct Hit<K> {
    pub found: Found,
    pub key: K,
    pub entry: DestEntry,
}

impl<K: Family> Hit<K> {
    /// What the ends of its replies become.
    pub(crate) fn back(&self) -> rewrite::Translation<K::Address> {
        let has_local = self.entry.way.local_ends().is_some();
        rewrite::Translation {
            src: Some((self.key.vip(), self.key.vip_port())),
            dst: has_local.then(|| (self.key.client(), self.key.client_port())),
        }
    }
}

impl<I: PacketIo> Worker<I> {
    /// A TCP, UDP or SCTP packet that was sent to this station.
    pub(crate) fn flow<K: Family>(
        &mut self,
        frame: I::Packet,
        parsed: &Parsed,
        flow: &Flow<K::Address>,
        probe: Probe,
        steered: bool,
    ) {
        if !steered {
            let owner = self.owner_of(flow);
            if owner != self.id {
                return self.hand_over(owner, frame);
            }
        }
        let key = K::new(flow.src, flow.src_port, flow.dst, flow.dst_port);
        // before the connections, as in IPVS, whose hook for replies comes first
        let src = (flow.src.into(), flow.src_port);
        if self.snapshot.is_reply(src, flow.dst.into(), flow.protocol as u8)
            && let Some(hit) = self.find_reply(key, flow.protocol as u8)
        {
            return self.reply_of_server(frame, parsed, flow, &hit);
        }
        let found = K::tables(&mut self.tables).0.find(&key, flow.protocol as u8, probe);
        let hit = found.and_then(|found| self.still_good(found, key, flow));
        let (dest, entry) = match hit {
            Some(hit) if self.is_cut_off(&hit) => return self.cut_off(frame, parsed, flow, &hit, false),
            Some(hit) if hit.found.meta.is_spliced() => return self.spliced_in(frame, parsed, flow, &hit),
            Some(hit) => {
                self.advance(&hit, flow, false);
                (hit.found.meta.dest(), hit.entry)
            }
            None if self.is_bfd(flow) => {
                let Some(link) = self.snapshot.link(frame.device(), parsed.vlan) else { return };
                return self.pass_on(frame, parsed, link);
            }
            None => {
                let is_syn = flow.is_syn();
                let control = self.is_control(flow);
                if is_syn && !control && !self.flood.shedding.admits(true) {
                    return self.counters.drop_packet(DropReason::Overload);
                }
                let from_server =
                    self.snapshot.is_nat_server(flow.src.into(), flow.src_port, flow.protocol as u8);
                if !is_syn && !control && !self.flood.shedding.admits(false) {
                    return self.counters.drop_packet(DropReason::Overload);
                }
                let lookup = Lookup::of(flow, frame.device(), parsed.vlan);
                match self.admit(key, &lookup, Some(flow), probe) {
                    Ok(admitted) => admitted,
                    Err(refusal) if from_server && refusal.reason == DropReason::NotForUs => {
                        return self.stray_reply(frame, parsed, flow);
                    }
                    Err(refusal) => return self.turn_away(frame, parsed, refusal),
                }
            }
        };
        self.counters.inbound(dest, flow.ip_len);
        self.forward::<K>(frame, parsed, flow, &entry);
    }

    /// The worker that owns a flow: it follows from the client's end, which is the destination of a reply.
    #[inline]
    pub(crate) fn owner_of<A: Copy + Into<IpAddr>>(&self, flow: &Flow<A>) -> WorkerId {
        let src = (flow.src.into(), flow.src_port);
        let is_reply = self.snapshot.is_reply(src, flow.dst.into(), flow.protocol as u8);
        let client = if is_reply { (flow.dst, flow.dst_port) } else { (flow.src, flow.src_port) };
        steer::owner(client.0.into(), client.1, self.setup.workers, &self.setup.steer_key)
    }

    /// The connection that a packet with this tuple is a reply of.
    pub(crate) fn find_reply<K: Family>(&mut self, tuple: K, protocol: u8) -> Option<Hit<K>> {
        let (table, pairs) = K::tables(&mut self.tables);
        let wanted = Pair::wanted(tuple);
        let pair = pairs.find(&wanted, protocol, pairs.probe(&wanted, protocol))?;
        let key = pairs.key(pair).other;
        let found = table.find(&key, protocol, table.probe(&key, protocol))?;
        found.meta.deadline().left(self.now)?;
        let entry = *self.snapshot.dest(found.meta.dest())?;
        Some(Hit { found, key, entry })
    }

    /// A packet from a server to a client: the server's address and port become the VIP's again.
    pub(crate) fn reply_of_server<K: Family>(
        &mut self,
        mut frame: I::Packet,
        parsed: &Parsed,
        flow: &Flow<K::Address>,
        hit: &Hit<K>,
    ) {
        // IPVS drops no reply of a removed server; a connection that is to be reset is, whoever speaks first
        if self.is_cut_off(hit) && self.on_server_down(&hit.entry) == Some(OnServerDown::Reset) {
            return self.cut_off(frame, parsed, flow, hit, true);
        }
        // as in Linux, where routing comes first: what does not go on says nothing about the connection
        let Some(back) = self.way_back(&mut frame, parsed, hit.key.client().into()) else { return };
        self.advance(hit, flow, true);
        self.counters.outbound(hit.found.meta.dest(), flow.ip_len);
        if hit.found.meta.is_spliced() {
            return self.spliced_out::<K>(frame, parsed, flow, hit, back);
        }
        self.forward_reply::<K>(frame, parsed, flow, hit, back);
    }

    /// The connection and its destination, unless its time is over or a new one takes its place; then it is removed.
    ///
    /// A first packet may be of a new connection from a reused port, see [`policy::begins_anew`]; a connection whose
    /// server was removed may be one to schedule anew.
    #[inline]
    pub(crate) fn still_good<K: Family>(
        &mut self,
        found: Found,
        key: K,
        flow: &Flow<K::Address>,
    ) -> Option<Hit<K>> {
        let entry = self.snapshot.dest(found.meta.dest()).copied();
        if let Some(entry) = entry
            && found.meta.deadline().left(self.now).is_some()
        {
            let is_old = (flow.event.is_new() || entry.removed)
                && self.is_superseded(found.meta, &entry, flow.event.is_new());
            if !is_old {
                return Some(Hit { found, key, entry });
            }
        }
        self.forget(found, key);
        None
    }

    /// Whether a packet, the first of a connection or of one whose server was removed, is scheduled anew.
    #[cold]
    fn is_superseded(&self, meta: Meta, entry: &DestEntry, is_new: bool) -> bool {
        let Some(service) = self.snapshot.policies.get(usize::from(entry.policy)) else { return false };
        is_new && policy::begins_anew(&self.snapshot.policy, service, &meta.into(), entry)
            || entry.removed && service.on_server_down == OnServerDown::Reschedule
    }

    /// What becomes of the connections of `entry`, if it was removed.
    pub(crate) fn on_server_down(&self, entry: &DestEntry) -> Option<OnServerDown> {
        let service = self.snapshot.policies.get(usize::from(entry.policy)).filter(|_| entry.removed)?;
        Some(service.on_server_down)
    }

    /// Whether the server of a known connection was removed and its packets are not sent on.
    #[inline]
    pub(crate) fn is_cut_off<K>(&self, hit: &Hit<K>) -> bool {
        hit.entry.removed
            && matches!(self.on_server_down(&hit.entry), Some(OnServerDown::Reset | OnServerDown::Drop))
    }

    /// A packet of a connection whose server was removed under `on_server_down = "drop"` or `"reset"`.
    ///
    /// A reset is made of the packet itself, because only it tells the sequence numbers that both ends believe: its
    /// receiver gets it cut short, its sender an answer. `outbound`: the server sent it.
    #[cold]
    fn cut_off<K: Family>(
        &mut self,
        frame: I::Packet,
        parsed: &Parsed,
        flow: &Flow<K::Address>,
        hit: &Hit<K>,
        outbound: bool,
    ) {
        if self.on_server_down(&hit.entry) != Some(OnServerDown::Reset) {
            return self.counters.drop_packet(DropReason::ServerGone);
        }
        self.answer_with_reset(&frame, parsed);
        self.pass_reset_on(frame, parsed, flow, hit, outbound);
        // last: the way to the other end is found by what is forgotten with the connection
        self.forget(hit.found, hit.key);
    }

    /// Sends the reset that a packet becomes on to where the packet was going.
    #[cold]
    fn pass_reset_on<K: Family>(
        &mut self,
        mut frame: I::Packet,
        parsed: &Parsed,
        flow: &Flow<K::Address>,
        hit: &Hit<K>,
        outbound: bool,
    ) {
        let ends_it = flow.protocol == L4::Tcp && flow.tcp_flags.any(TcpFlags::RST);
        if !ends_it && !respond::cut_short(&mut frame, parsed) {
            return self.counters.drop_packet(DropReason::ServerGone);
        }
        match parse(frame.bytes()) {
            Ok(parsed) => match K::flow(&parsed.net) {
                Some(flow) if outbound => {
                    let client = hit.key.client().into();
                    let Some(back) = self.way_back(&mut frame, &parsed, client) else { return };
                    if let Some(delta) = self.spliced_delta(hit.found.meta, hit.key) {
                        rewrite::seq::shift(frame.bytes_mut(), flow, delta);
                    }
                    self.forward_reply::<K>(frame, &parsed, flow, hit, back);
                }
                Some(flow) => self.forward::<K>(frame, &parsed, flow, &hit.entry),
                None => self.counters.drop_packet(DropReason::ServerGone),
            },
            Err(reason) => self.counters.drop_packet(reason),
        }
    }

    /// A packet of a NATed server to somebody else than the director, of no connection: the server may be told so.
    #[cold]
    pub(crate) fn stray_reply<A>(&mut self, frame: I::Packet, parsed: &Parsed, flow: &Flow<A>) {
        let ends_it = match flow.protocol {
            L4::Tcp => flow.tcp_flags.any(TcpFlags::RST),
            L4::Udp => false,
            L4::Sctp => flow.event == state::sctp::ABORT,
        };
        if self.snapshot.policy.nat_icmp_send && !ends_it {
            self.answer_with_error(&frame, parsed, IcmpError::PortUnreachable, Speaker::Own);
        }
        self.counters.drop_packet(DropReason::NotForUs);
    }

    /// Removes a connection before its time, as another one takes its place.
    pub(crate) fn forget<K: Family>(&mut self, found: Found, key: K) {
        self.remove(found, key, false);
    }

    /// Removes a connection before its time, as somebody wants it gone.
    pub(crate) fn throw_out<K: Family>(&mut self, found: Found, key: K) {
        self.remove(found, key, true);
    }

    fn remove<K: Family>(&mut self, found: Found, key: K, forced: bool) {
        let (table, pairs) = K::tables(&mut self.tables);
        table.remove(found);
        let ending = Ending {
            snapshot: &self.snapshot,
            counters: &self.counters,
            workers: &self.all_counters,
            templates: &self.setup.templates,
            now_ns: self.now_ns,
        };
        ending.of(&key, found.meta, pairs, forced);
    }

    /// Keeps the number of handshakes under way, and what is to be told to other directors.
    #[cold]
    fn state_changed<K: Family>(&mut self, before: Meta, key: &K, after: Meta) {
        self.note_change(*key, after);
        match (is_embryonic(before), is_embryonic(after)) {
            (true, false) => self.counters.own.embryonic.down(),
            (false, true) => self.counters.own.embryonic.up(),
            _ => {}
        }
    }

    /// State, activity and deadline after a packet of a known connection.
    #[inline]
    pub(crate) fn advance<K: Family>(&mut self, hit: &Hit<K>, flow: &Flow<K::Address>, outbound: bool) {
        let meta = self
            .next_meta(&hit.key, hit.found.meta, &hit.entry, (flow.protocol, flow.event), outbound)
            .with_heard();
        self.keep::<K>(hit.found, &hit.key, meta);
    }

    /// Replaces the entry of a connection.
    #[inline(always)]
    pub(crate) fn keep<K: Family>(&mut self, found: Found, key: &K, meta: Meta) {
        if !meta.is_as(found.meta) {
            self.state_changed(found.meta, key, meta);
        }
        K::tables(&mut self.tables).0.update(found, meta);
    }
}
