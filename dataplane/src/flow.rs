//! The way of a TCP, UDP or SCTP packet: owner, connection, or else service, scheduler, new connection; then state.
//!
//! A packet is the client's when its tuple is the key of a connection or of a service; it is a server's reply when a
//! [`Pair`] leads from its tuple to a connection (IPVS: `ip_vs_in` and `ip_vs_out`).

use std::net::IpAddr;
use std::sync::Arc;

use lb_config::OnServerDown;

use crate::answer::Speaker;
use crate::classify::{FTP_DATA, Lookup};
use crate::conn::{ConnKey, Found, Key4, Key6, Meta, Pair, Probe, Table, Tick};
use crate::counters::WorkerCounters;
use crate::drop_reason::DropReason;
use crate::ids::DestId;
use crate::io::{Packet, PacketIo, WorkerId};
use crate::local_port::{self, Chooser};
use crate::parse::{Flow, L4, Net, Parsed, TcpFlags, parse};
use crate::persist::{Child, Refused, Rule, Templates};
use crate::policy::{self, Refusal};
use crate::respond::{self, IcmpError};
use crate::rewrite;
use crate::sched::NewConnection;
use crate::snapshot::{DestEntry, ServiceEntry, Snapshot, Way};
use crate::state::{self, Direction, State};
use crate::steer;
use crate::worker::{Tables, Worker};

/// How long a connection that an ICMP error began waits for its first packet, ticks: 3 s (IPVS, `ip_vs_conn_new`).
const UNHEARD: u32 = 3 * Tick::PER_SECOND as u32;

/// What the flow code needs to know of an address family.
pub(crate) trait Family: ConnKey<Address: rewrite::Address> {
    /// Its connection table and the pairs of its connections.
    fn tables(tables: &mut Tables) -> (&mut Table<Self>, &mut Table<Pair<Self>>);
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

/// The end that a connection's packets go to: the server, or with source NAT whom the private host asked for.
pub(crate) fn peer_of<K: Family>(key: &K, entry: &DestEntry) -> Option<(K::Address, u16)> {
    if let Way::Snat(_) = entry.way {
        return Some((key.vip(), key.vip_port()));
    }
    let port = if entry.port == 0 { key.vip_port() } else { entry.port };
    Some((K::address(entry.address)?, port))
}

/// The tuple that replies of a connection to a NATed destination carry.
pub(crate) fn reply_tuple<K: Family>(key: &K, entry: &DestEntry) -> Option<K> {
    let port = if entry.port == 0 { key.vip_port() } else { entry.port };
    Some(K::new(K::address(entry.address)?, port, key.client(), key.client_port()))
}

/// Whether a connection's template may rely on it (IPVS: `ip_vs_control_assure_ct`).
fn is_assured(state: State, outbound: bool) -> bool {
    matches!(state, State::Established | State::SctpEstablished) || state == State::Udp && outbound
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
        let found = K::tables(&mut self.tables).0.find(&key, flow.protocol as u8, probe);
        let hit = found.and_then(|found| self.still_good(found, key, flow));
        let (dest, entry) = match hit {
            Some(hit) if self.is_cut_off(&hit) => return self.cut_off(frame, parsed, flow, &hit, false),
            Some(hit) => {
                self.advance(&hit, flow, false);
                (hit.found.meta.dest(), hit.entry)
            }
            None => {
                let from_server =
                    self.snapshot.is_nat_server(flow.src.into(), flow.src_port, flow.protocol as u8);
                let is_reply = from_server || self.snapshot.is_translated(flow.dst.into());
                if is_reply && let Some(hit) = self.find_reply(key, flow.protocol as u8) {
                    return self.reply_of_server(frame, parsed, flow, &hit);
                }
                let lookup = Lookup {
                    src: flow.src.into(),
                    dst: flow.dst.into(),
                    src_port: flow.src_port,
                    dst_port: flow.dst_port,
                    protocol: flow.protocol,
                    device: frame.device(),
                    vlan: parsed.vlan,
                };
                match self.admit(key, &lookup, Some(flow), probe) {
                    Ok(admitted) => admitted,
                    Err(refusal) if from_server && refusal.reason == DropReason::NotForUs => {
                        return self.stray_reply(frame, parsed, flow);
                    }
                    Err(refusal) => return self.turn_away(frame, parsed, refusal),
                }
            }
        };
        let counters = &self.counters.dests[dest.0 as usize];
        counters.in_packets.add(1);
        counters.in_bytes.add(u64::from(flow.ip_len));
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
    fn reply_of_server<K: Family>(
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
        let counters = &self.counters.dests[hit.found.meta.dest().0 as usize];
        counters.out_packets.add(1);
        counters.out_bytes.add(u64::from(flow.ip_len));
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
        mut frame: I::Packet,
        parsed: &Parsed,
        flow: &Flow<K::Address>,
        hit: &Hit<K>,
        outbound: bool,
    ) {
        if self.on_server_down(&hit.entry) != Some(OnServerDown::Reset) {
            return self.counters.drop_packet(DropReason::ServerGone);
        }
        self.forget(hit.found, hit.key);
        self.answer_with_reset(&frame, parsed);
        let ends_it = flow.protocol == L4::Tcp && flow.tcp_flags.any(TcpFlags::RST);
        if !ends_it && !respond::cut_short(&mut frame, parsed) {
            return self.counters.drop_packet(DropReason::ServerGone);
        }
        match parse(frame.bytes()) {
            Ok(parsed) => match K::flow(&parsed.net) {
                Some(flow) if outbound => {
                    let client = hit.key.client().into();
                    let Some(back) = self.way_back(&mut frame, &parsed, client) else { return };
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

    /// Removes a connection before its time.
    pub(crate) fn forget<K: Family>(&mut self, found: Found, key: K) {
        let (table, pairs) = K::tables(&mut self.tables);
        table.remove(found);
        let ending = Ending {
            snapshot: &self.snapshot,
            counters: &self.counters,
            workers: &self.all_counters,
            templates: &self.setup.templates,
            now_ns: self.now_ns,
        };
        ending.of(&key, found.meta, pairs, false);
    }

    /// State, activity and deadline after a packet of a known connection.
    #[inline]
    pub(crate) fn advance<K: Family>(&mut self, hit: &Hit<K>, flow: &Flow<K::Address>, outbound: bool) {
        let meta = self.next_meta(&hit.key, hit.found.meta, &hit.entry, flow, outbound);
        K::tables(&mut self.tables).0.update(hit.found, meta);
    }
}

impl<I: PacketIo> Worker<I> {
    /// The entry after a packet; moves the destination's active count along.
    #[inline]
    fn next_meta<K: Family>(
        &self,
        key: &K,
        mut meta: Meta,
        entry: &DestEntry,
        flow: &Flow<K::Address>,
        outbound: bool,
    ) -> Meta {
        let mut no_output = meta.no_output();
        let direction = Direction::of(outbound, &mut no_output);
        let state = state::advance(flow.protocol, meta.state(), direction, flow.event, self.guarded);
        let timeouts = &self.snapshot.timeouts[usize::from(entry.timeouts)];
        let active = timeouts.is_active(state);
        if active != meta.active() {
            let counters = &self.counters.dests[meta.dest().0 as usize];
            if active { counters.active.up() } else { counters.active.down() }
        }
        if meta.controlled() && !meta.assured() && is_assured(state, outbound) {
            meta = meta.with_assured();
            self.ending().assure(key, meta);
        }
        let timeout = timeouts.after(state, no_output);
        meta.with_no_output(no_output).after_packet(state, active, self.now.after(timeout))
    }

    /// A packet without a connection: finds its service, schedules, inserts.
    ///
    /// `flow`: the packet; `None`: it is an ICMP error about one of this connection, which changes no state.
    #[cold]
    pub(crate) fn admit<K: Family>(
        &mut self,
        key: K,
        lookup: &Lookup,
        flow: Option<&Flow<K::Address>>,
        probe: Probe,
    ) -> Result<(DestId, DestEntry), Refusal> {
        let sloppy = policy::is_sloppy(&self.snapshot.policy, lookup.protocol);
        let opens = flow.is_none_or(|flow| state::opens(flow.protocol, flow.event, sloppy));
        let Chosen { dest, controlled, one_packet } = self.choose(lookup, opens)?;
        let entry = *self.snapshot.dest(dest).ok_or(Refusal::silent(DropReason::NoServer))?;
        self.counters.dests[dest.0 as usize].conns.add(1);
        if one_packet {
            return Ok((dest, entry));
        }
        let (protocol, unheard) = (lookup.protocol, self.now.after(UNHEARD));
        let mut born = Meta::new(protocol as u8, dest, State::initial(protocol), unheard)
            .with_no_output(!entry.way.sees_replies());
        if controlled {
            born = born.with_controlled();
        }
        self.counters.dests[dest.0 as usize].total.up();
        let meta = flow.map_or(born, |flow| self.next_meta(&key, born, &entry, flow, false));
        if let Err(reason) = self.enter(key, probe, meta, &entry) {
            let counters = &self.counters.dests[dest.0 as usize];
            counters.total.down();
            counters.conns.add(u64::MAX);
            if meta.active() {
                counters.active.down();
            }
            self.ending().of_child(&key, meta, false);
            return Err(Refusal::silent(reason));
        }
        self.counters.own.inserted.add(1);
        self.snapshot.bound(dest, &self.all_counters);
        Ok((dest, entry))
    }

    /// The destination of a packet without a connection: its client's, if that has one already, else the scheduler's.
    ///
    /// `opens`: the packet may begin a connection.
    fn choose(&self, lookup: &Lookup, opens: bool) -> Result<Chosen, Refusal> {
        let snapshot = &self.snapshot;
        // IPVS: what comes from FTP's data port is a server's own connection, not a client's
        let service = snapshot.services.find(lookup).filter(|_| lookup.src_port != FTP_DATA);
        let Some(service) = service else {
            return self.choose_rule(lookup, opens);
        };
        if !opens {
            return Err(Refusal::of_host(DropReason::NoConnection, lookup.protocol));
        }
        if self.tables.len() >= self.tables.max && !service.one_packet {
            return Err(Refusal::silent(DropReason::TableFull));
        }
        let refused = |reason| Refusal::of_service(reason, &service.policy);
        if self.is_full(service) {
            return Err(refused(DropReason::ServiceFull));
        }
        let new = NewConnection { client: lookup.src, client_port: lookup.src_port, target: lookup.dst };
        let schedule = || snapshot.schedule(service, &new, &self.all_counters, &self.draws);
        let one_packet = service.one_packet && lookup.protocol == L4::Udp;
        let Some(rule) = &service.rule else {
            let dest = schedule().ok_or_else(|| refused(DropReason::NoServer))?;
            return Ok(Chosen { dest, controlled: false, one_packet });
        };
        let child =
            Child { client: lookup.src, vip: lookup.dst, vport: lookup.dst_port, protocol: lookup.protocol };
        let valid = |dest| snapshot.dest(dest).is_some_and(|entry| policy::holds(&snapshot.policy, entry));
        match self.setup.templates.choose(rule, &child, self.now_ns, valid, schedule) {
            Ok(chosen) => {
                if one_packet {
                    self.setup.templates.child_ended(rule, &child, chosen.dest, self.now_ns, false);
                }
                Ok(Chosen { dest: chosen.dest, controlled: !one_packet, one_packet })
            }
            Err(Refused::NoServer) => Err(refused(DropReason::NoServer)),
            Err(Refused::Full) => Err(Refusal::silent(DropReason::TableFull)),
        }
    }

    /// The rule of source NAT that lets a private host's packet out.
    fn choose_rule(&self, lookup: &Lookup, opens: bool) -> Result<Chosen, Refusal> {
        let snapshot = &self.snapshot;
        let refused = |reason| Refusal::of_host(reason, lookup.protocol);
        if snapshot.is_ours(lookup.dst) {
            return Err(refused(DropReason::NoService));
        }
        let link = snapshot.link(lookup.device, lookup.vlan);
        let dest = snapshot.snat(lookup.src, lookup.dst, lookup.protocol as u8, link);
        let dest = dest.ok_or_else(|| refused(DropReason::NotForUs))?;
        if !opens {
            return Err(refused(DropReason::NoConnection));
        }
        if self.tables.len() >= self.tables.max {
            return Err(Refusal::silent(DropReason::TableFull));
        }
        Ok(Chosen { dest, controlled: false, one_packet: false })
    }

    /// Whether a service has as many connections as it may have.
    fn is_full(&self, service: &ServiceEntry) -> bool {
        service.policy.max_connections.is_some_and(|limit| {
            policy::connections(&service.candidates, &self.all_counters) >= u64::from(limit)
        })
    }

    /// What ends connections of this worker.
    pub(crate) fn ending(&self) -> Ending<'_> {
        Ending {
            snapshot: &self.snapshot,
            counters: &self.counters,
            workers: &self.all_counters,
            templates: &self.setup.templates,
            now_ns: self.now_ns,
        }
    }

    /// Puts a connection, and what its replies need, into the tables. Errors: no room, nothing changed.
    pub(crate) fn enter<K: Family>(
        &mut self,
        key: K,
        probe: Probe,
        meta: Meta,
        entry: &DestEntry,
    ) -> Result<(), DropReason> {
        let protocol = meta.protocol();
        let local = match entry.way.local_ends() {
            Some(at) => Some(self.choose_local(&key, protocol, entry, at).ok_or(DropReason::PortsExhausted)?),
            None => None,
        };
        let (table, pairs) = K::tables(&mut self.tables);
        table.insert(key, probe, meta).map_err(|_| DropReason::TableFull)?;
        let entered = match local {
            Some(reply) => local_port::enter(pairs, key, reply, protocol),
            None => Self::enter_reply(pairs, key, meta, entry),
        };
        if !entered {
            if let Some(found) = table.find(&key, protocol, probe) {
                table.remove(found);
            }
            return Err(DropReason::TableFull);
        }
        Ok(())
    }

    /// The tuple that replies of a new connection shall carry: to a local end that is free. `None`: none is.
    fn choose_local<K: Family>(&mut self, key: &K, protocol: u8, entry: &DestEntry, at: u16) -> Option<K> {
        let start = self.draws.next();
        let pairs = &*K::tables(&mut self.tables).1;
        let peer = peer_of(key, entry)?;
        let chooser =
            Chooser { worker: self.id, workers: self.setup.workers, steer_key: &self.setup.steer_key, start };
        let keep = matches!(entry.way, Way::Snat(_)).then(|| key.client_port());
        let ends = &self.snapshot.local_ends.get(usize::from(at))?.addresses;
        let (address, port) = chooser.choose(ends, keep, |address, port| {
            let tuple = K::address(address).map(|address| K::new(peer.0, peer.1, address, port));
            let wanted = tuple.map(Pair::wanted);
            wanted
                .is_some_and(|wanted| pairs.find(&wanted, protocol, pairs.probe(&wanted, protocol)).is_none())
        })?;
        Some(K::new(peer.0, peer.1, K::address(address)?, port))
    }

    /// The pair by which replies of a connection by NAT find it. `false`: no room.
    fn enter_reply<K: Family>(pairs: &mut Table<Pair<K>>, key: K, meta: Meta, entry: &DestEntry) -> bool {
        let tuple = if entry.way == Way::Nat { reply_tuple(&key, entry) } else { None };
        let Some(tuple) = tuple else { return true };
        let pair = Pair { tuple, other: key };
        let at = pairs.probe(&pair, meta.protocol());
        // one client port that reaches one server over two VIPs: replies belong to the younger connection
        if let Some(elder) = pairs.find(&pair, meta.protocol(), at) {
            pairs.remove(elder);
        }
        pairs.insert(pair, at, meta).is_ok()
    }
}

/// Where a new connection goes.
struct Chosen {
    dest: DestId,
    /// Its client's template says so.
    controlled: bool,
    one_packet: bool,
}

/// What happens when a connection ends, by its timeout or before.
pub(crate) struct Ending<'a> {
    pub snapshot: &'a Snapshot,
    pub counters: &'a WorkerCounters,
    pub workers: &'a [Arc<WorkerCounters>],
    pub templates: &'a Templates,
    pub now_ns: u64,
}

impl Ending<'_> {
    /// `key` and `meta` have just left their table. `forced`: see [`Ending::of_child`].
    pub fn of<K: Family>(&self, key: &K, meta: Meta, pairs: &mut Table<Pair<K>>, forced: bool) {
        let dest = &self.counters.dests[meta.dest().0 as usize];
        dest.total.down();
        if meta.active() {
            dest.active.down();
        }
        self.counters.own.expired.add(1);
        self.snapshot.unbound(meta.dest(), self.workers);
        self.of_child(key, meta, forced);
        let Some(entry) = self.snapshot.dest(meta.dest()) else { return };
        if entry.way.local_ends().is_some() {
            return local_port::leave(pairs, *key, meta.protocol());
        }
        let tuple = if entry.way == Way::Nat { reply_tuple(key, entry) } else { None };
        let Some(wanted) = tuple.map(Pair::wanted) else { return };
        if let Some(found) = pairs.find(&wanted, meta.protocol(), pairs.probe(&wanted, meta.protocol()))
            && pairs.key(found).other == *key
        {
            pairs.remove(found);
        }
    }

    /// The entry of a connection that has `left` ticks, when it counts as active and no longer should: one of UDP
    /// that no packet came for, see `udp_activity`. Moves the destination's active count along.
    #[inline]
    pub fn rest(&self, meta: Meta, left: u32) -> Option<Meta> {
        if !meta.active() || meta.state() != State::Udp {
            return None;
        }
        let entry = self.snapshot.dest(meta.dest())?;
        if !self.snapshot.timeouts[usize::from(entry.timeouts)].is_idle(left) {
            return None;
        }
        self.counters.dests[meta.dest().0 as usize].active.down();
        Some(meta.after_packet(State::Udp, false, meta.deadline()))
    }

    /// Tells the template, if the connection has one.
    ///
    /// `forced`: the connection was thrown out rather than timed out or replaced.
    pub fn of_child<K: Family>(&self, key: &K, meta: Meta, forced: bool) {
        if let Some((rule, child)) = self.template(key, meta) {
            self.templates.child_ended(rule, &child, meta.dest(), self.now_ns, forced);
        }
    }

    /// The connection is established: its template may rely on it.
    fn assure<K: Family>(&self, key: &K, meta: Meta) {
        if let Some((rule, child)) = self.template(key, meta) {
            self.templates.assure(rule, &child, meta.dest());
        }
    }

    fn template<K: Family>(&self, key: &K, meta: Meta) -> Option<(&Rule, Child)> {
        let entry = self.snapshot.dest(meta.dest()).filter(|_| meta.controlled())?;
        let rule = self.snapshot.rules.get(usize::from(entry.rule))?;
        let protocol = L4::of(meta.protocol())?;
        Some((
            rule,
            Child { client: key.client().into(), vip: key.vip().into(), vport: key.vip_port(), protocol },
        ))
    }
}
