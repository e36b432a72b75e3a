//! New connections: their service, their server, their place in the tables; and what each packet makes of an entry.

use lb_config::{ClientAddress, SynProxy};

use crate::classify::{FTP_DATA, Lookup};
use crate::conn::{Meta, Pair, Probe, Splice, Table, Tick};
use crate::drop_reason::DropReason;
use crate::ending::Ending;
use crate::flood::{evict, handshake, stateless};
use crate::flow::{Family, reply_tuple};
use crate::ids::DestId;
use crate::io::PacketIo;
use crate::local_port::{self, Chooser};
use crate::parse::{Flow, L4};
use crate::persist::{Child, Refused};
use crate::policy::{self, Refusal};
use crate::sched::NewConnection;
use crate::snapshot::{DestEntry, ServiceEntry, Way};
use crate::state::{self, Direction, Event, State};
use crate::tables::Tables;
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
    keep: Keep,
}

/// What is kept of a new connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keep {
    /// An entry.
    Entry,
    /// Nothing: every packet is scheduled anew.
    OnePacket,
    /// Nothing until its client's ACK: SYNs are a flood.
    Unconfirmed,
    /// An entry, as of a handshake under way: it had none until now.
    Confirmed,
    /// Nothing: a packet of a connection without an entry that does not confirm it.
    Stray,
}

impl<I: PacketIo> Worker<I> {
    /// The entry after a packet; moves the destination's active count along.
    #[inline]
    pub(crate) fn next_meta<K: Family>(
        &self,
        key: &K,
        mut meta: Meta,
        entry: &DestEntry,
        (protocol, event): (L4, Event),
        outbound: bool,
    ) -> Meta {
        let mut no_output = meta.no_output();
        let direction = Direction::of(outbound, &mut no_output);
        let state = state::advance(protocol, meta.state(), direction, event, self.guarded);
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
        let chosen =
            if opens { self.choose(lookup, flow.is_some())? } else { self.choose_stray(lookup, flow)? };
        let entry = *self.snapshot.dest(chosen.dest).ok_or(Refusal::silent(DropReason::NoServer))?;
        match chosen.keep {
            Keep::Unconfirmed => {
                self.flood.unconfirmed(self.now_ns);
                self.counters.own.unconfirmed.add(1);
                Ok((chosen.dest, entry))
            }
            Keep::Stray => {
                self.counters.own.stateless.add(1);
                Ok((chosen.dest, entry))
            }
            Keep::Confirmed => {
                // as its first packet would have entered it
                let first = flow.map(|flow| Flow { event: state::first(flow.protocol), ..*flow });
                self.bind(key, lookup, first.as_ref(), probe, (chosen, entry), None)
            }
            Keep::Entry | Keep::OnePacket => self.bind(key, lookup, flow, probe, (chosen, entry), None),
        }
    }

    /// [`Worker::admit`] of a client that has proved that it is there; `call`: the SYN that its server will get.
    pub(crate) fn admit_proved<K: Family>(
        &mut self,
        key: K,
        lookup: &Lookup,
        call: &Flow<K::Address>,
        probe: Probe,
        splice: Splice,
    ) -> Result<(DestId, DestEntry), Refusal> {
        let chosen = self.choose(lookup, false)?;
        let entry = *self.snapshot.dest(chosen.dest).ok_or(Refusal::silent(DropReason::NoServer))?;
        if !matches!(entry.way, Way::Nat | Way::FullNat(_)) {
            return Err(Refusal::silent(DropReason::NoServer));
        }
        self.bind(key, lookup, Some(call), probe, (chosen, entry), Some(splice))
    }

    /// Counts and enters a connection whose destination was chosen.
    fn bind<K: Family>(
        &mut self,
        key: K,
        lookup: &Lookup,
        flow: Option<&Flow<K::Address>>,
        probe: Probe,
        (Chosen { dest, controlled, keep }, entry): (Chosen, DestEntry),
        splice: Option<Splice>,
    ) -> Result<(DestId, DestEntry), Refusal> {
        self.counters.dests[dest.0 as usize].conns.add(1);
        if keep == Keep::OnePacket {
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
        if splice.is_some() {
            born = born.with_spliced();
        }
        self.counters.dests[dest.0 as usize].total.up();
        let meta =
            flow.map_or(born, |flow| self.next_meta(&key, born, &entry, (flow.protocol, flow.event), false));
        if let Err(reason) = self.enter(key, probe, meta, &entry, splice) {
            let counters = &self.counters.dests[dest.0 as usize];
            counters.total.down();
            counters.conns.add(u64::MAX);
            if meta.active() {
                counters.active.down();
            }
            self.ending().of_child(&key, meta, false);
            let stateless = reason == DropReason::TableFull && flow.is_some();
            let without = if stateless { self.without_entry(lookup) } else { None };
            return without.ok_or(Refusal::silent(reason));
        }
        if evict::is_embryonic(meta) {
            self.counters.own.embryonic.up();
        }
        self.counters.own.inserted.add(1);
        self.note_change(key, meta);
        self.snapshot.bound(dest, &self.all_counters);
        Ok((dest, entry))
    }

    /// The destination of a new connection: its client's, if that has one already, else the scheduler's.
    ///
    /// `unproved`: it begins with a packet, whose sender may have to prove that it is there.
    fn choose(&self, lookup: &Lookup, unproved: bool) -> Result<Chosen, Refusal> {
        let snapshot = &self.snapshot;
        // IPVS: what comes from FTP's data port is a server's own connection, not a client's
        let service = snapshot.services.find(lookup).filter(|_| lookup.src_port != FTP_DATA);
        let Some(service) = service else {
            return self.choose_rule(lookup, true);
        };
        let refused = |reason| Refusal::of_service(reason, &service.policy);
        if !snapshot.pins.is_empty()
            && let Some(dest) = snapshot.pins.get(&(lookup.src, lookup.src_port, service.id))
        {
            // a health check, which means this server
            let one_packet = service.one_packet && lookup.protocol == L4::Udp;
            let keep = if one_packet { Keep::OnePacket } else { Keep::Entry };
            return Ok(Chosen { dest: *dest, controlled: false, keep });
        }
        if self.is_full(service) {
            return Err(refused(DropReason::ServiceFull));
        }
        if unproved && lookup.protocol == L4::Tcp {
            if self.wants_proof(service) {
                let able = service.candidates.iter().any(|candidate| candidate.weight > 0);
                let refusal = || Refusal::until_proved(&service.policy);
                return Err(if able { refusal() } else { refused(DropReason::NoServer) });
            }
            if self.flood.active
                && let Some((dest, _)) = self.by_hash(service, lookup)
            {
                return Ok(Chosen { dest, controlled: false, keep: Keep::Unconfirmed });
            }
        }
        let new = NewConnection { client: lookup.src, client_port: lookup.src_port, target: lookup.dst };
        let schedule = || snapshot.schedule(service, &new, &self.all_counters, &self.draws);
        let one_packet = service.one_packet && lookup.protocol == L4::Udp;
        let keep = if one_packet { Keep::OnePacket } else { Keep::Entry };
        let Some(rule) = &service.rule else {
            // its earlier packets may have gone by hash: UDP does not tell which is the first
            let stray = lookup.protocol == L4::Udp && !one_packet && self.flood.has_strays(self.now_ns);
            let by_hash = if stray { self.by_hash(service, lookup).map(|(dest, _)| dest) } else { None };
            let dest = by_hash.or_else(schedule).ok_or_else(|| refused(DropReason::NoServer))?;
            return Ok(Chosen { dest, controlled: false, keep });
        };
        let child =
            Child { client: lookup.src, vip: lookup.dst, vport: lookup.dst_port, protocol: lookup.protocol };
        let valid = |dest| snapshot.dest(dest).is_some_and(|entry| policy::holds(&snapshot.policy, entry));
        match self.setup.templates.choose(rule, &child, self.now_ns, valid, schedule) {
            Ok(chosen) => {
                if one_packet {
                    self.setup.templates.child_ended(rule, &child, chosen.dest, self.now_ns, false);
                }
                Ok(Chosen { dest: chosen.dest, controlled: !one_packet, keep })
            }
            Err(Refused::NoServer) => Err(refused(DropReason::NoServer)),
            Err(Refused::Full) => Err(Refusal::silent(DropReason::TableFull)),
        }
    }

    /// Whether clients of a service have to prove that they are there.
    fn wants_proof(&self, service: &ServiceEntry) -> bool {
        match service.policy.syn_proxy {
            SynProxy::Off => false,
            SynProxy::Auto => self.flood.active,
            SynProxy::Always => true,
        }
    }

    /// The destination of a packet that begins no connection and has none: that of a flow without an entry, see
    /// [`stateless`].
    fn choose_stray<A>(&self, lookup: &Lookup, flow: Option<&Flow<A>>) -> Result<Chosen, Refusal> {
        let service = self.snapshot.services.find(lookup).filter(|_| lookup.src_port != FTP_DATA);
        let Some(service) = service else {
            return self.choose_rule(lookup, false);
        };
        let may_prove = match service.policy.syn_proxy {
            SynProxy::Off => false,
            SynProxy::Auto | SynProxy::Always => self.flood.has_cookies(self.now_ns),
        };
        if may_prove && lookup.protocol == L4::Tcp {
            return Err(Refusal::until_proved(&service.policy));
        }
        if self.flood.has_strays(self.now_ns)
            && let Some((dest, _)) = self.by_hash(service, lookup)
        {
            let confirms = flow.is_some_and(|flow| state::confirms(flow.protocol, flow.event));
            let keep = if confirms { Keep::Confirmed } else { Keep::Stray };
            return Ok(Chosen { dest, controlled: false, keep });
        }
        Err(Refusal::of_host(DropReason::NoConnection, lookup.protocol))
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
        Ok(Chosen { dest, controlled: false, keep: Keep::Entry })
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

    /// Puts a connection, and what its replies need, into the tables; a dispensable one may make room for it, see
    /// [`evict`]. Errors: no room, or no local port; the connection is not in.
    pub(crate) fn enter<K: Family>(
        &mut self,
        key: K,
        probe: Probe,
        meta: Meta,
        entry: &DestEntry,
        splice: Option<Splice>,
    ) -> Result<(), DropReason> {
        let protocol = meta.protocol();
        let full = self.tables.len() >= self.tables.max;
        if full && (self.flood.full || !self.make_way::<K>()) {
            self.flood.full = true;
            return Err(DropReason::TableFull);
        }
        let local = match entry.way.local_ends() {
            Some(at) => {
                let number = self.counters.dests[meta.dest().0 as usize].conns.get();
                let turn = local_port::turn(self.draws.seed(), meta.dest(), number);
                let local = self.choose_local(&key, protocol, (entry, at), (turn, self.draws.next()));
                Some(local.ok_or(DropReason::PortsExhausted)?)
            }
            None => None,
        };
        let ending = Ending {
            snapshot: &self.snapshot,
            counters: &self.counters,
            workers: &self.all_counters,
            templates: &self.setup.templates,
            now_ns: self.now_ns,
        };
        let (table, pairs) = K::tables(&mut self.tables);
        let gone = |key: &K, meta| {
            stateless::count(ending.counters, evict::class(meta));
            ending.of(key, meta, pairs, true);
        };
        let ranking = evict::ranking(self.now);
        table.insert_evicting(key, probe, meta, ranking, gone).map_err(|_| DropReason::TableFull)?;
        let reply = if splice.is_some() && entry.way == Way::Nat { reply_tuple(&key, entry) } else { local };
        let entered = match (reply, splice) {
            (Some(reply), Some(splice)) => handshake::enter(pairs, key, reply, protocol, splice),
            (Some(reply), None) => {
                let on = Meta::of_pair(local_port::forward(protocol));
                let on = if meta.is_proxied() { on.with_pair_proxied() } else { on };
                local_port::enter(pairs, key, reply, protocol, on)
            }
            (None, _) => Self::enter_reply(pairs, key, meta, entry),
        };
        if !entered {
            if let Some(found) = table.find(&key, protocol, probe) {
                table.remove(found);
            }
            return Err(DropReason::TableFull);
        }
        Ok(())
    }

    /// At the limit, which the tables of both families share: one connection of either goes, if any may.
    #[cold]
    fn make_way<K: Family>(&mut self) -> bool {
        let ending = Ending {
            snapshot: &self.snapshot,
            counters: &self.counters,
            workers: &self.all_counters,
            templates: &self.setup.templates,
            now_ns: self.now_ns,
        };
        let counters = ending.counters;
        let Tables { v4, v6, pairs4, pairs6, .. } = &mut self.tables;
        v4.make_way(evict::ranking(self.now), |key, meta| {
            stateless::count(counters, evict::class(meta));
            ending.of(key, meta, pairs4, true);
        }) || v6.make_way(evict::ranking(self.now), |key, meta| {
            stateless::count(counters, evict::class(meta));
            ending.of(key, meta, pairs6, true);
        })
    }

    /// The tuple that replies of a new connection shall carry: to a local end that is free. `None`: none is. `turn` and
    /// `start`: see [`Chooser`].
    pub(crate) fn choose_local<K: Family>(
        &self,
        key: &K,
        protocol: u8,
        (entry, at): (&DestEntry, u16),
        (turn, start): (u64, u64),
    ) -> Option<K> {
        let (_, pairs) = K::tables_ref(&self.tables);
        let (workers, steer_key) = (self.setup.workers, &self.setup.steer_key);
        let chooser = Chooser { worker: self.id, workers, steer_key, turn, start };
        let keep = matches!(entry.way, Way::Snat(_)).then(|| key.client_port());
        let ends = &self.snapshot.local_ends.get(usize::from(at))?.addresses;
        let end = chooser.choose(ends, keep, |address, port| {
            let wanted = local_port::tuple(key, entry, (address, port)).map(Pair::wanted);
            wanted
                .is_some_and(|wanted| pairs.find(&wanted, protocol, pairs.probe(&wanted, protocol)).is_none())
        })?;
        local_port::tuple(key, entry, end)
    }

    /// The pair by which replies of a connection by NAT find it. `false`: no room.
    pub(crate) fn enter_reply<K: Family>(
        pairs: &mut Table<Pair<K>>,
        key: K,
        meta: Meta,
        entry: &DestEntry,
    ) -> bool {
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
