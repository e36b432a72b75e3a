//! New connections of plain services, a run of them at a time: their servers first, then all that memory has to be
//! waited for.
//!
//! The first stage does everything by which one new connection can tell that another one came before it: schedules,
//! counts, puts the entry into the line that the search for it has fetched; and asks for what replies will be found by.
//! Between the stages what replies will be found by is looked at, all of a run at a time: whether a local end is free,
//! else the next one is tried; and the rest of what will be written is asked for. The second stage enters that, rewrites
//! the packet and sends it. Plain: no persistence, no limit, nothing to be proved, nothing asked of the segment size; the
//! table has room and there is no flood. Everything else goes by [`super::first`]. What it costs: `lb-bench instructions`.

use arrayvec::ArrayVec;
use lb_config::{ClientAddress, SynProxy};

use super::glance::{Packet, Row};
use super::onward::Progress;
use super::redirect::Redirect;
use crate::channel::BFD_PORT;
use crate::classify::{FTP_DATA, Lookup};
use crate::conn::{Meta, Pair, Probe, Tick};
use crate::drop_reason::DropReason;
use crate::flood::evict::is_embryonic;
use crate::flow::reply_tuple;
use crate::ids::DestId;
use crate::io::{BURST, Packet as _, PacketIo};
use crate::local_port::{self, Chooser, forward};
use crate::parse::L4;
use crate::policy::Refusal;
use crate::sched::NewConnection;
use crate::snapshot::{ServiceEntry, Way};
use crate::state::{self, Direction, State, TimeoutTable, tcp};
use crate::wire::PROTOCOL_TCP;
use crate::worker::Worker;

/// A new connection between the stages.
pub(super) struct Opening<K> {
    dest: DestId,
    meta: Meta,
    /// It has no server and no entry; its client is told so.
    refusal: Option<Refusal>,
    /// Where the search for a local end begins: turn and start.
    begin: (u64, u64),
    /// Among which it is searched, until one was found that is free.
    ends: Option<u16>,
    /// What its replies will carry, with a local end that may be in use; and where that is.
    tuple: K,
    probe: Probe,
}

/// Those of one run.
pub(super) type Openings<K> = ArrayVec<Opening<K>, BURST>;

/// Local ends that are tried for all of a run at a time: where half of them are in use, one connection in sixteen goes on
/// by itself.
const ENDS_TRIED: usize = 4;

/// The service of the latest new connections.
#[derive(Clone, Copy)]
struct Asked<'a, A> {
    vip: A,
    port: u16,
    number: u8,
    service: &'a ServiceEntry,
}

/// What first packets of one protocol make of connections, under one table of timeouts.
#[derive(Clone, Copy)]
struct Born {
    /// What it was made for.
    of: (u16, u8, bool),
    state: State,
    active: bool,
    deadline: Tick,
}

impl Born {
    fn new(of: (u16, u8, bool), times: &TimeoutTable, guarded: bool, now: Tick) -> Self {
        let (_, number, mut no_output) = of;
        let protocol = if number == PROTOCOL_TCP { L4::Tcp } else { L4::Udp };
        let direction = Direction::of(false, &mut no_output);
        let (first, initial) = (state::first(protocol), State::initial(protocol));
        let state = state::advance(protocol, initial, direction, first, guarded);
        let deadline = now.after(times.after(state, no_output));
        Self { of, state, active: times.is_active(state), deadline }
    }
}

/// Whether a packet begins a connection, for all that it says itself.
#[inline(always)]
fn begins<K: Redirect>(row: &Row<K>) -> bool {
    let facts = row.noted.facts();
    let opens =
        if facts.number == PROTOCOL_TCP { facts.event == tcp::SYN } else { row.key.vip_port() != BFD_PORT };
    // FTP's data port: a server's own connection
    opens && !facts.reply && !row.found.is_some() && row.key.client_port() != FTP_DATA && row.key.may_send()
}

/// Whether new connections of a service are nothing but scheduled.
fn is_plain(service: &ServiceEntry) -> bool {
    let policy = &service.policy;
    service.rule.is_none()
        && !service.one_packet
        && policy.max_connections.is_none()
        && policy.mss.is_none()
        && policy.syn_proxy != SynProxy::Always
}

impl<I: PacketIo> Worker<I> {
    /// The first stage, of packets from the one at `from` on, at most `limit`, until one of them does not begin a
    /// plain connection: nothing was done about that one.
    #[inline(never)]
    pub(super) fn admit_run<K: Redirect>(
        &mut self,
        (from, limit): (usize, usize),
        progress: &mut Progress,
        opened: &mut Openings<K>,
    ) {
        opened.clear();
        let rows = K::batch(&self.board).rows_from(from);
        let rows = &rows[..limit.min(rows.len())];
        if !rows.first().is_some_and(begins) || !self.flood.is_quiet(self.now_ns) {
            return;
        }
        // other directors hear of each, where they want to
        if self.teller.feeds.as_ref().is_some_and(|feeds| feeds.handshakes) {
            return;
        }
        let mut room = self.tables.max.saturating_sub(self.tables.len());
        let Self { snapshot, counters, all_counters, tables, draws, setup, now, guarded, id, board, .. } =
            self;
        let (table, pairs) = K::tables(tables);
        let dests = snapshot.dests.view();
        let mut asked: Option<Asked<'_, K::Address>> = None;
        let mut known: Option<Born> = None;
        let mut more = false;
        if limit > 1 {
            let rows = K::batch(board).rows_from(from).iter().take(limit);
            rows.filter(|row| begins(row)).for_each(|row| table.prefetch_vacancy(row.probe));
            if K::APART {
                let rows = K::batch(board).rows_from(from).iter().take(limit);
                rows.filter(|row| begins(row)).for_each(|row| table.prefetch_moves_on(row.probe));
            }
        }
        for row in K::batch(board).rows_from(from).iter().take(limit) {
            let (key, number) = (&row.key, row.noted.number());
            if room == 0 || !begins(row) {
                break;
            }
            // one that began since it was looked up
            if (progress.grown & row.probe.bit() != 0 || !progress.fresh)
                && table.find(key, number, row.probe).is_some()
            {
                break;
            }
            let (vip, port) = (key.vip(), key.vip_port());
            let protocol = if number == PROTOCOL_TCP { L4::Tcp } else { L4::Udp };
            let service = match asked {
                Some(asked) if asked.vip == vip && asked.port == port && asked.number == number => {
                    asked.service
                }
                _ => match snapshot.services.exactly(protocol, vip.into(), port) {
                    Some(service) if is_plain(service) => {
                        let service: &ServiceEntry = service;
                        asked = Some(Asked { vip, port, number, service });
                        service
                    }
                    _ => break,
                },
            };
            let vacancy = match table.vacancy(row.probe) {
                Some(vacancy) => vacancy,
                None => {
                    *progress = Progress::UNSURE;
                    match table.make_vacancy(row.probe) {
                        Some(vacancy) => vacancy,
                        None => break,
                    }
                }
            };
            let new = NewConnection {
                client: key.client().into(),
                client_port: key.client_port(),
                target: vip.into(),
            };
            let chosen = snapshot.schedule(service, &new, all_counters, draws);
            let refused = |refusal| Opening {
                dest: DestId(0),
                meta: Meta::EMPTY,
                refusal: Some(refusal),
                begin: (0, 0),
                ends: None,
                tuple: K::default(),
                probe: Probe::default(),
            };
            let Some(dest) = chosen else {
                opened.push(refused(Refusal::of_service(DropReason::NoServer, &service.policy)));
                continue;
            };
            let at = dest.0 as usize;
            let (Some(Some(entry)), Some(counted)) = (dests.get(at), counters.dests.get(at)) else {
                opened.push(refused(Refusal::silent(DropReason::NoServer)));
                continue;
            };
            let of = (entry.timeouts, number, !entry.way.sees_replies());
            let born = match known {
                Some(born) if born.of == of => born,
                _ => Born::new(of, &snapshot.timeouts[usize::from(entry.timeouts)], *guarded, *now),
            };
            known = Some(born);
            let mut meta = Meta::new(number, dest, born.state, born.deadline).with_no_output(of.2);
            if let Way::FullNat(at) = entry.way
                && protocol == L4::Tcp
                && snapshot.local_ends.get(usize::from(at)).map(|ends| ends.client_address)
                    == Some(ClientAddress::ProxyV2)
            {
                meta = meta.with_proxied();
            }
            let meta = meta.after_packet(born.state, born.active, born.deadline);
            counted.conns.add(1);
            counted.total.up();
            if born.active {
                counted.active.up();
            }
            table.fill(vacancy, *key, row.probe, meta);
            if is_embryonic(meta) {
                counters.own.embryonic.up();
            }
            counters.own.inserted.add(1);
            snapshot.bound(dest, all_counters);
            room -= 1;
            progress.grown |= row.probe.bit();
            let (begin, ends, tuple) = match entry.way {
                Way::Nat => ((0, 0), None, reply_tuple(key, entry)),
                Way::FullNat(at) => {
                    let turn = local_port::turn(draws.seed(), dest, counted.conns.get());
                    let start = draws.next();
                    let (workers, steer_key) = (setup.workers, &setup.steer_key);
                    let chooser = Chooser { worker: *id, workers, steer_key, turn, start };
                    let ends = snapshot.local_ends.get(usize::from(at));
                    let end = ends.and_then(|ends| chooser.choose(&ends.addresses, None, |_, _| true));
                    ((turn, start), Some(at), end.and_then(|end| local_port::tuple(key, entry, end)))
                }
                Way::Dr | Way::Tunnel(_) | Way::Snat(_) => ((0, 0), None, None),
            };
            let mut probe = Probe::default();
            if let Some(tuple) = tuple {
                probe = pairs.probe(&Pair::wanted(tuple), number);
                pairs.prefetch_front(probe);
                more = true;
            }
            let tuple = tuple.unwrap_or_default();
            opened.push(Opening { dest, meta, refusal: None, begin, ends, tuple, probe });
        }
        if more {
            self.settle(from, opened);
        }
    }

    /// Between the stages, of a run that began at place `from`.
    #[inline(never)]
    fn settle<K: Redirect>(&self, from: usize, opened: &mut Openings<K>) {
        let (_, pairs) = K::tables_ref(&self.tables);
        let rows = K::batch(&self.board).rows_from(from);
        let mut two_pairs = 0_u32;
        for (at, (row, opening)) in rows.iter().zip(opened.iter()).enumerate() {
            match opening.ends {
                Some(_) => {
                    pairs.prefetch_vacancy(pairs.probe_like(row.probe));
                    two_pairs |= 1 << (at & 31);
                }
                None if opening.tuple != K::default() => pairs.prefetch_vacancy(opening.probe),
                None => {}
            }
        }
        for tried in 1..=ENDS_TRIED {
            let mut more = false;
            if K::APART {
                // what looks like an end that is in use has to be compared
                for (row, opening) in
                    rows.iter().zip(opened.iter()).filter(|(_, opening)| opening.ends.is_some())
                {
                    pairs.prefetch_key(&Pair::wanted(opening.tuple), row.noted.number(), opening.probe);
                }
            }
            for (row, opening) in rows.iter().zip(opened.iter_mut()) {
                let Some(at) = opening.ends.filter(|_| opening.tuple != K::default()) else { continue };
                let number = row.noted.number();
                if pairs.find(&Pair::wanted(opening.tuple), number, opening.probe).is_none() {
                    opening.ends = None;
                    pairs.prefetch_vacancy(opening.probe);
                } else if let Some(tuple) = self.local_tuple(row, opening, at, tried) {
                    (opening.tuple, opening.probe) = (tuple, pairs.probe(&Pair::wanted(tuple), number));
                    pairs.prefetch_front(opening.probe);
                    more = true;
                }
            }
            if !more {
                break;
            }
        }
        if K::APART {
            // where no line has room the keys are there now by which others may move
            for (at, (row, opening)) in rows.iter().zip(opened.iter()).enumerate() {
                if two_pairs >> (at & 31) & 1 != 0 {
                    pairs.prefetch_moves_on(pairs.probe_like(row.probe));
                }
                if opening.tuple != K::default() {
                    pairs.prefetch_moves_on(opening.probe);
                }
            }
        }
    }

    /// What replies carry that come to the local end which is tried after `before` others.
    fn local_tuple<K: Redirect>(
        &self,
        row: &Row<K>,
        opening: &Opening<K>,
        at: u16,
        before: usize,
    ) -> Option<K> {
        let entry = self.snapshot.dest(opening.dest)?;
        let ends = self.snapshot.local_ends.get(usize::from(at))?;
        let (workers, steer_key, (turn, start)) = (self.setup.workers, &self.setup.steer_key, opening.begin);
        let chooser = Chooser { worker: self.id, workers, steer_key, turn, start };
        let mut left = before;
        let end = chooser.choose(&ends.addresses, None, |_, _| {
            let is_it = left == 0;
            left = left.saturating_sub(1);
            is_it
        })?;
        local_port::tuple(&row.key, entry, end)
    }

    /// The second stage of a packet.
    #[inline(never)]
    pub(super) fn admitted<K: Redirect>(
        &mut self,
        mut frame: I::Packet,
        row: &Row<K>,
        opening: &Opening<K>,
        progress: &mut Progress,
    ) {
        let packet = Packet { row, key: &row.key, fresh: false };
        let number = row.noted.number();
        let entry = self.snapshot.dest(opening.dest).filter(|_| opening.refusal.is_none());
        let Some(entry) = entry else {
            let refusal = opening.refusal.unwrap_or(Refusal::silent(DropReason::NoServer));
            let flow = packet.flow(frame.bytes());
            return self.turn_away(frame, &packet.parsed(flow), refusal);
        };
        let (way, mtu, exit) = (entry.way, entry.mtu, self.exit(entry));
        let entered = match way {
            Way::Nat => self.enter_nat(row, opening, progress),
            Way::FullNat(at) => self.enter_full_nat(row, opening, at, progress),
            Way::Dr | Way::Tunnel(_) | Way::Snat(_) => Ok(None),
        };
        let tuple = match entered {
            Ok(tuple) => tuple,
            Err(reason) => return self.unadmitted(frame, &packet, opening, reason, progress),
        };
        let ip_len = packet.facts().ip_len;
        self.counters.inbound(opening.dest, ip_len);
        let bytes = frame.bytes_mut();
        let told = match way {
            Way::FullNat(at) => number == PROTOCOL_TCP && self.tells(at, L4::Tcp) != ClientAddress::None,
            _ => false,
        };
        let usual = !told
            && ip_len <= mtu
            && K::ttl_and_df(bytes).0 > 1
            && (tuple.is_none() || K::is_summed(bytes, number));
        let Some(exit) = exit.filter(|_| usual) else {
            return self.forward_first(frame, &packet, opening.dest);
        };
        match tuple {
            Some(tuple) => K::redirect(bytes, number, &tuple),
            None => K::step(bytes),
        }
        #[cfg(test)]
        super::tests::taken(3);
        if let Way::Tunnel(at) = way
            && !self.wrap_plain(&mut frame, &packet, at)
        {
            return self.counters.drop_packet(DropReason::NoBuffer);
        }
        self.go(exit, frame);
    }

    /// A first packet with which more is to be done.
    #[cold]
    fn forward_first<K: Redirect>(&mut self, frame: I::Packet, packet: &Packet<'_, K>, dest: DestId) {
        let flow = packet.flow(frame.bytes());
        match self.snapshot.dest(dest).copied() {
            Some(entry) => self.forward::<K>(frame, &packet.parsed(flow), &flow, &entry),
            None => self.counters.drop_packet(DropReason::NoServer),
        }
    }

    /// Enters what replies by NAT carry; gives it.
    #[inline(always)]
    fn enter_nat<K: Redirect>(
        &mut self,
        row: &Row<K>,
        opening: &Opening<K>,
        progress: &mut Progress,
    ) -> Result<Option<K>, DropReason> {
        let (_, pairs) = K::tables(&mut self.tables);
        let moved = pairs.moved();
        let (number, pair) = (row.noted.number(), Pair { tuple: opening.tuple, other: row.key });
        // one client port that reaches one server over two VIPs: replies belong to the younger connection
        let elder = pairs.find(&pair, number, opening.probe);
        if let Some(elder) = elder {
            pairs.remove(elder);
        }
        let entered = pairs.insert(pair, opening.probe, Meta::of_pair(number));
        if elder.is_some() || pairs.moved() != moved {
            *progress = Progress::UNSURE;
        }
        entered.map(|()| Some(opening.tuple)).map_err(|_| DropReason::TableFull)
    }

    /// Enters both ways of a connection by full NAT; gives what its replies carry.
    #[inline(always)]
    fn enter_full_nat<K: Redirect>(
        &mut self,
        row: &Row<K>,
        opening: &Opening<K>,
        at: u16,
        progress: &mut Progress,
    ) -> Result<Option<K>, DropReason> {
        let number = row.noted.number();
        let (_, pairs) = K::tables_ref(&self.tables);
        let wanted = Pair::wanted(opening.tuple);
        let is_free = opening.tuple != K::default() && pairs.find(&wanted, number, opening.probe).is_none();
        let (tuple, probe) = if is_free {
            (opening.tuple, opening.probe)
        } else {
            let entry = self.snapshot.dest(opening.dest);
            let local =
                entry.and_then(|entry| self.choose_local(&row.key, number, (entry, at), opening.begin));
            let tuple = local.ok_or(DropReason::PortsExhausted)?;
            (tuple, pairs.probe(&Pair::wanted(tuple), number))
        };
        let on = Meta::of_pair(forward(number));
        let on = if opening.meta.is_proxied() { on.with_pair_proxied() } else { on };
        let (_, pairs) = K::tables(&mut self.tables);
        let moved = pairs.moved();
        let probes = (pairs.probe_like(row.probe), probe);
        let entered = local_port::enter_at(pairs, (row.key, tuple), number, on, probes);
        if !entered || pairs.moved() != moved {
            *progress = Progress::UNSURE;
        }
        if entered { Ok(Some(tuple)) } else { Err(DropReason::TableFull) }
    }

    /// A connection that the second stage has no room for: it never was, as in [`Worker::admit`].
    #[cold]
    fn unadmitted<K: Redirect>(
        &mut self,
        frame: I::Packet,
        packet: &Packet<'_, K>,
        opening: &Opening<K>,
        reason: DropReason,
        progress: &mut Progress,
    ) {
        *progress = Progress::UNSURE;
        let (table, _) = K::tables(&mut self.tables);
        if let Some(found) = table.find(packet.key, packet.facts().number, packet.probe()) {
            table.remove(found);
        }
        let (own, dest) = (&self.counters.own, &self.counters.dests[opening.dest.0 as usize]);
        dest.total.down();
        dest.conns.add(u64::MAX);
        if opening.meta.active() {
            dest.active.down();
        }
        if is_embryonic(opening.meta) {
            own.embryonic.down();
        }
        own.inserted.add(u64::MAX);
        self.snapshot.unbound(opening.dest, &self.all_counters);
        let flow = packet.flow(frame.bytes());
        let parsed = packet.parsed(flow);
        let lookup = Lookup::of(&flow, frame.device(), 0);
        let without = if reason == DropReason::TableFull { self.without_entry(&lookup) } else { None };
        match without {
            Some((dest, entry)) => {
                self.counters.inbound(dest, flow.ip_len);
                self.forward::<K>(frame, &parsed, &flow, &entry);
            }
            None => self.turn_away(frame, &parsed, Refusal::silent(reason)),
        }
    }
}
