//! The way of a TCP, UDP or SCTP packet: owner, connection, or else service, scheduler, new connection; then state.
//!
//! A packet is the client's when its tuple is the key of a connection or of a service; it is a server's reply when a
//! [`Pair`] leads from its tuple to a connection (IPVS: `ip_vs_in` and `ip_vs_out`).

use std::net::IpAddr;
use std::sync::Arc;

use crate::classify::{FTP_DATA, Lookup};
use crate::conn::{ConnKey, Found, Key4, Key6, Meta, Pair, Probe, Table};
use crate::counters::WorkerCounters;
use crate::drop_reason::DropReason;
use crate::ids::DestId;
use crate::io::{Packet, PacketIo, WorkerId};
use crate::parse::{Flow, L4, Parsed};
use crate::persist::{Child, Refused, Rule, Templates};
use crate::rewrite;
use crate::sched::NewConnection;
use crate::snapshot::{DestEntry, Snapshot, Way};
use crate::state::{self, Direction, State};
use crate::steer;
use crate::worker::{Tables, Worker};

/// IPVS's `conn_reuse_mode`, its default.
const REUSE_MODE: u8 = 1;

/// What the flow code needs to know of an address family.
pub(crate) trait Family: ConnKey<Address: rewrite::Address> {
    /// Its connection table and the pairs of its connections.
    fn tables(tables: &mut Tables) -> (&mut Table<Self>, &mut Table<Pair<Self>>);
    /// `address` when it is of this family.
    fn address(address: IpAddr) -> Option<Self::Address>;
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
            Some(hit) => {
                self.advance(&hit, flow, false);
                (hit.found.meta.dest(), hit.entry)
            }
            None => {
                if self.snapshot.is_nat_server(flow.src.into(), flow.src_port, flow.protocol as u8)
                    && let Some(hit) = self.find_reply(key, flow.protocol as u8)
                {
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
                match self.admit(key, &lookup, flow, probe) {
                    Ok(admitted) => admitted,
                    Err(reason) => return self.turn_away(frame, parsed, flow.protocol, reason),
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
    fn owner_of<A: Copy + Into<IpAddr>>(&self, flow: &Flow<A>) -> WorkerId {
        let is_reply = self.snapshot.is_nat_server(flow.src.into(), flow.src_port, flow.protocol as u8);
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
        frame: I::Packet,
        parsed: &Parsed,
        flow: &Flow<K::Address>,
        hit: &Hit<K>,
    ) {
        self.advance(hit, flow, true);
        let counters = &self.counters.dests[hit.found.meta.dest().0 as usize];
        counters.out_packets.add(1);
        counters.out_bytes.add(u64::from(flow.ip_len));
        self.forward_reply::<K>(frame, parsed, flow, (hit.key.vip(), hit.key.vip_port()));
    }

    /// The connection and its destination, unless its time is over or a new one takes its place; then it is removed.
    ///
    /// A SYN on a connection in TIME_WAIT or CLOSE is a new connection from a reused port (IPVS `conn_reuse_mode`
    /// 1), and so is a SYN to a server that was removed: nobody new is sent to a server that is going.
    #[inline]
    fn still_good<K: Family>(&mut self, found: Found, key: K, flow: &Flow<K::Address>) -> Option<Hit<K>> {
        let entry = self.snapshot.dest(found.meta.dest()).copied();
        if let Some(entry) = entry
            && found.meta.deadline().left(self.now).is_some()
        {
            let reuses = flow.event.is_new()
                && (found.meta.state().is_over(found.meta.no_output(), REUSE_MODE)
                    && !found.meta.controlled()
                    || entry.removed);
            if !reuses {
                return Some(Hit { found, key, entry });
            }
        }
        self.forget(found, key);
        None
    }

    /// Removes a connection before its time.
    fn forget<K: Family>(&mut self, found: Found, key: K) {
        let (table, pairs) = K::tables(&mut self.tables);
        table.remove(found);
        let ending = Ending {
            snapshot: &self.snapshot,
            counters: &self.counters,
            workers: &self.all_counters,
            templates: &self.setup.templates,
            now_ns: self.now_ns,
        };
        ending.of(&key, found.meta, pairs);
    }

    /// State, activity and deadline after a packet of a known connection.
    #[inline]
    fn advance<K: Family>(&mut self, hit: &Hit<K>, flow: &Flow<K::Address>, outbound: bool) {
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
        let state = state::advance(flow.protocol, meta.state(), direction, flow.event, false);
        let active = state.is_active();
        if active != meta.active() {
            let counters = &self.counters.dests[meta.dest().0 as usize];
            if active { counters.active.up() } else { counters.active.down() }
        }
        if meta.controlled() && !meta.assured() && is_assured(state, outbound) {
            meta = meta.with_assured();
            self.ending().assure(key, meta);
        }
        let timeout = self.snapshot.timeouts[usize::from(entry.timeouts)].of(state);
        meta.with_no_output(no_output).after_packet(state, active, self.now.after(timeout))
    }

    /// A packet without a connection: finds its service, schedules, inserts.
    #[cold]
    fn admit<K: Family>(
        &mut self,
        key: K,
        lookup: &Lookup,
        flow: &Flow<K::Address>,
        probe: Probe,
    ) -> Result<(DestId, DestEntry), DropReason> {
        let Chosen { dest, controlled, one_packet } = self.choose(lookup, flow)?;
        let entry = *self.snapshot.dest(dest).ok_or(DropReason::NoServer)?;
        self.counters.dests[dest.0 as usize].conns.add(1);
        if one_packet {
            return Ok((dest, entry));
        }
        let mut born = Meta::new(flow.protocol as u8, dest, State::initial(flow.protocol), self.now)
            .with_no_output(entry.way != Way::Nat);
        if controlled {
            born = born.with_controlled();
        }
        self.counters.dests[dest.0 as usize].total.up();
        let meta = self.next_meta(&key, born, &entry, flow, false);
        if !self.enter(key, probe, meta, &entry) {
            let counters = &self.counters.dests[dest.0 as usize];
            counters.total.down();
            counters.conns.add(u64::MAX);
            if meta.active() {
                counters.active.down();
            }
            self.ending().of_child(&key, meta, false);
            return Err(DropReason::TableFull);
        }
        self.counters.own.inserted.add(1);
        self.snapshot.bound(dest, &self.all_counters);
        Ok((dest, entry))
    }

    /// The destination of a packet without a connection: its client's, if that has one already, else the scheduler's.
    fn choose<A>(&self, lookup: &Lookup, flow: &Flow<A>) -> Result<Chosen, DropReason> {
        let snapshot = &self.snapshot;
        // IPVS: what comes from FTP's data port is a server's own connection, not a client's
        let service = snapshot.services.find(lookup).filter(|_| lookup.src_port != FTP_DATA);
        let Some(service) = service else {
            let ours = snapshot.is_ours(lookup.dst);
            return Err(if ours { DropReason::NoService } else { DropReason::NotForUs });
        };
        if !state::opens(flow.protocol, flow.event, false) {
            return Err(DropReason::NoConnection);
        }
        if self.tables.len() >= self.tables.max && !service.one_packet {
            return Err(DropReason::TableFull);
        }
        let new = NewConnection { client: lookup.src, client_port: lookup.src_port, target: lookup.dst };
        let schedule = || snapshot.schedule(service, &new, &self.all_counters, &self.draws);
        let one_packet = service.one_packet && flow.protocol == L4::Udp;
        let Some(rule) = &service.rule else {
            let dest = schedule().ok_or(DropReason::NoServer)?;
            return Ok(Chosen { dest, controlled: false, one_packet });
        };
        let child =
            Child { client: lookup.src, vip: lookup.dst, vport: lookup.dst_port, protocol: lookup.protocol };
        let valid = |dest| snapshot.dest(dest).is_some_and(|entry| !entry.removed);
        match self.setup.templates.choose(rule, &child, self.now_ns, valid, schedule) {
            Ok(chosen) => {
                if one_packet {
                    self.setup.templates.child_ended(rule, &child, chosen.dest, self.now_ns, false);
                }
                Ok(Chosen { dest: chosen.dest, controlled: !one_packet, one_packet })
            }
            Err(Refused::NoServer) => Err(DropReason::NoServer),
            Err(Refused::Full) => Err(DropReason::TableFull),
        }
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

    /// Puts a connection, and what its replies need, into the tables; `false`: no room, nothing changed.
    fn enter<K: Family>(&mut self, key: K, probe: Probe, meta: Meta, entry: &DestEntry) -> bool {
        let (table, pairs) = K::tables(&mut self.tables);
        if table.insert(key, probe, meta).is_err() {
            return false;
        }
        let tuple = if entry.way == Way::Nat { reply_tuple(&key, entry) } else { None };
        let Some(tuple) = tuple else { return true };
        let pair = Pair { tuple, other: key };
        let at = pairs.probe(&pair, meta.protocol());
        // one client port that reaches one server over two VIPs: replies belong to the younger connection
        if let Some(elder) = pairs.find(&pair, meta.protocol(), at) {
            pairs.remove(elder);
        }
        if pairs.insert(pair, at, meta).is_ok() {
            return true;
        }
        if let Some(found) = table.find(&key, meta.protocol(), probe) {
            table.remove(found);
        }
        false
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
    /// `key` and `meta` have just left their table.
    pub fn of<K: Family>(&self, key: &K, meta: Meta, pairs: &mut Table<Pair<K>>) {
        let dest = &self.counters.dests[meta.dest().0 as usize];
        dest.total.down();
        if meta.active() {
            dest.active.down();
        }
        self.counters.own.expired.add(1);
        self.snapshot.unbound(meta.dest(), self.workers);
        self.of_child(key, meta, false);
        let Some(entry) = self.snapshot.dest(meta.dest()) else { return };
        let tuple = if entry.way == Way::Nat { reply_tuple(key, entry) } else { None };
        let Some(wanted) = tuple.map(Pair::wanted) else { return };
        if let Some(found) = pairs.find(&wanted, meta.protocol(), pairs.probe(&wanted, meta.protocol()))
            && pairs.key(found).other == *key
        {
            pairs.remove(found);
        }
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
