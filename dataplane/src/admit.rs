//! New connections: their service, their server, their place in the tables; and what each packet makes of an entry.

use lb_config::ClientAddress;

use crate::classify::{FTP_DATA, Lookup};
use crate::conn::{Meta, Pair, Probe, Table, Tick};
use crate::drop_reason::DropReason;
use crate::ending::Ending;
use crate::flow::{Family, peer_of, reply_tuple};
use crate::ids::DestId;
use crate::io::PacketIo;
use crate::local_port::{self, Chooser};
use crate::parse::{Flow, L4};
use crate::persist::{Child, Refused};
use crate::policy::{self, Refusal};
use crate::sched::NewConnection;
use crate::snapshot::{DestEntry, ServiceEntry, Way};
use crate::state::{self, Direction, State};
use crate::worker::Worker;

/// How long a connection that an ICMP error began waits for its first packet, ticks: 3 s (IPVS, `ip_vs_conn_new`).
const UNHEARD: u32 = 3 * Tick::PER_SECOND as u32;

/// Whether a connection's template may rely on it (IPVS: `ip_vs_control_assure_ct`).
fn is_assured(state: State, outbound: bool) -> bool {
    matches!(state, State::Established | State::SctpEstablished) || state == State::Udp && outbound
}

/// Where a new connection goes.
struct Chosen {
    dest: DestId,
    /// Its client's template says so.
    controlled: bool,
    one_packet: bool,
}

impl<I: PacketIo> Worker<I> {
    /// The entry after a packet; moves the destination's active count along.
    #[inline]
    pub(crate) fn next_meta<K: Family>(
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
        if let Way::FullNat(at) = entry.way
            && self.tells(at, protocol) == ClientAddress::ProxyV2
        {
            born = born.with_proxied();
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
            Some(reply) => local_port::enter(pairs, key, reply, protocol, meta.is_proxied()),
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
        pairs.insert(pair, at, Meta::of_pair(meta.protocol())).is_ok()
    }
}
