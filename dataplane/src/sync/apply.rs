//! What another director told becomes an entry.

use std::sync::atomic::Ordering::Relaxed;

use super::{Connection, Feeds, Gone, Record, Streams};
use crate::conn::{Found, Key4, Key6, Meta, Pair};
use crate::flood::{evict, handshake};
use crate::flow::{Family, Hit, peer_of, reply_tuple};
use crate::ids::DestId;
use crate::io::PacketIo;
use crate::local_port;
use crate::parse::L4;
use crate::persist::Child;
use crate::snapshot::{DestEntry, Way};
use crate::state::State;
use crate::steer;
use crate::worker::Worker;

/// Records that a turn takes in: each costs a connection's insertion.
const A_TURN: usize = 64;

/// Why a record did not become an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such server here.
    NoServer = 0,
    /// The connection is this director's own, and goes to another server.
    Ours = 1,
    /// The table is full, or the template's bucket.
    Full = 2,
    /// A connection of this director has its local end.
    LocalTaken = 3,
    /// Its local end is steered to another worker: directors differ in `[appliance] workers` or the key of `[sync]`.
    LocalElsewhere = 4,
    /// What it says does not fit together.
    Odd = 5,
}

impl Refusal {
    /// All, by number.
    pub const ALL: [Self; 6] =
        [Self::NoServer, Self::Ours, Self::Full, Self::LocalTaken, Self::LocalElsewhere, Self::Odd];

    /// Name in `lbctl sync`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoServer => "no_server",
            Self::Ours => "ours",
            Self::Full => "table_full",
            Self::LocalTaken => "local_end_taken",
            Self::LocalElsewhere => "local_end_elsewhere",
            Self::Odd => "odd",
        }
    }
}

impl<I: PacketIo> Worker<I> {
    /// Takes in what other directors told.
    pub(super) fn take_in(&mut self, feeds: &Feeds) {
        let Some(inbox) = feeds.inboxes.get(usize::from(self.id.0)) else { return };
        inbox.now_ns.store(self.now_ns, Relaxed);
        for _ in 0..A_TURN {
            let Some(record) = inbox.records.pop() else { return };
            let result = match &record {
                Record::Template(template) => self.apply_template(template),
                Record::Connection(connection) if connection.client.0.is_ipv4() => {
                    self.apply::<Key4>(connection)
                }
                Record::Connection(connection) => self.apply::<Key6>(connection),
                Record::Gone(gone) if gone.client.0.is_ipv4() => self.let_go::<Key4>(gone),
                Record::Gone(gone) => self.let_go::<Key6>(gone),
            };
            let counter = match result {
                Ok(()) => Some(&inbox.applied),
                Err(refusal) => inbox.refused.get(refusal as usize),
            };
            if let Some(counter) = counter {
                counter.store(counter.load(Relaxed) + 1, Relaxed);
            }
        }
    }

    /// Takes a connection in: a new entry, or what it changes of one that is known.
    pub(crate) fn apply<K: Family>(&mut self, told: &Connection) -> Result<(), Refusal> {
        let protocol = L4::of(told.protocol).ok_or(Refusal::Odd)?;
        let (client, vip) = (K::address(told.client.0), K::address(told.vip.0));
        let (client, vip) = client.zip(vip).ok_or(Refusal::Odd)?;
        if State::of(told.protocol, told.state.bits()) != told.state || told.left == 0 {
            return Err(Refusal::Odd);
        }
        let dest = *self.snapshot.by_name.get(&told.dest).ok_or(Refusal::NoServer)?;
        let entry = *self.snapshot.dest(dest).ok_or(Refusal::NoServer)?;
        let key = K::new(client, told.client.1, vip, told.vip.1);
        let reply = self.reply_told(&key, told, &entry)?;
        let (table, _) = K::tables_ref(&self.tables);
        let probe = table.probe(&key, protocol as u8);
        if let Some(found) = table.find(&key, protocol as u8, probe) {
            let here = !found.meta.is_foreign() && !self.snapshot.shared.is_absent(told.vip.0);
            let same = found.meta.dest() == dest && self.has_local(&key, &found, reply);
            match (here && found.meta.deadline().left(self.now).is_some(), same) {
                (true, true) => return Ok(()),
                (true, false) => return Err(Refusal::Ours),
                (false, true) => {
                    self.change(Hit { found, key, entry }, told);
                    return Ok(());
                }
                (false, false) => self.forget(found, key),
            }
        }
        self.insert_told(key, told, (dest, entry), reply)
    }

    /// Throws out a connection that another director has thrown out, unless it is this one's own or goes to another server
    /// by now.
    fn let_go<K: Family>(&mut self, told: &Gone) -> Result<(), Refusal> {
        let protocol = L4::of(told.protocol).ok_or(Refusal::Odd)?;
        let (client, vip) = (K::address(told.client.0), K::address(told.vip.0));
        let (client, vip) = client.zip(vip).ok_or(Refusal::Odd)?;
        let key = K::new(client, told.client.1, vip, told.vip.1);
        let (table, _) = K::tables_ref(&self.tables);
        let probe = table.probe(&key, protocol as u8);
        let Some(found) = table.find(&key, protocol as u8, probe) else { return Ok(()) };
        // of a removed server, too
        let name = self.snapshot.names.get(found.meta.dest().0 as usize).copied().flatten();
        if name != Some(told.dest) {
            return Ok(());
        }
        if !found.meta.is_foreign() && !self.snapshot.shared.is_absent(told.vip.0) {
            return Err(Refusal::Ours);
        }
        self.throw_out(found, key);
        Ok(())
    }

    /// The tuple that replies of a connection carry, where that is to be kept.
    fn reply_told<K: Family>(
        &self,
        key: &K,
        told: &Connection,
        entry: &DestEntry,
    ) -> Result<Option<K>, Refusal> {
        let spliced = matches!(told.streams, Streams::Spliced(_));
        if entry.way.local_ends().is_none() {
            if spliced && entry.way != Way::Nat {
                return Err(Refusal::Odd);
            }
            return Ok(if spliced { reply_tuple(key, entry) } else { None });
        }
        let (address, port) = told.local.ok_or(Refusal::Odd)?;
        let owner = steer::owner(address, port, self.setup.workers, &self.setup.steer_key);
        if owner != self.id {
            return Err(Refusal::LocalElsewhere);
        }
        let local = K::address(address).ok_or(Refusal::Odd)?;
        let peer = peer_of(key, entry).ok_or(Refusal::Odd)?;
        Ok(Some(K::new(peer.0, peer.1, local, port)))
    }

    /// Whether a known connection's replies carry this tuple.
    fn has_local<K: Family>(&self, key: &K, found: &Found, reply: Option<K>) -> bool {
        let Some(reply) = reply else { return !found.meta.is_spliced() };
        let (_, pairs) = K::tables_ref(&self.tables);
        local_port::reply_of(pairs, *key, found.meta.protocol()).is_some_and(|(_, own)| own == reply)
    }

    /// Changes a known connection.
    fn change<K: Family>(&mut self, hit: Hit<K>, told: &Connection) {
        let Hit { found, key, entry } = hit;
        let meta = self.meta_told(found.meta, told, &entry).with_foreign();
        let counters = &self.counters.dests[meta.dest().0 as usize];
        match (found.meta.active(), meta.active()) {
            (false, true) => counters.active.up(),
            (true, false) => counters.active.down(),
            _ => {}
        }
        match (evict::is_embryonic(found.meta), evict::is_embryonic(meta)) {
            (true, false) => self.counters.own.embryonic.down(),
            (false, true) => self.counters.own.embryonic.up(),
            _ => {}
        }
        let (table, pairs) = K::tables(&mut self.tables);
        table.update(found, meta);
        if let Some((pair, _)) = local_port::reply_of(pairs, key, told.protocol) {
            pairs.update(pair, pair_told(pair.meta, told));
        }
    }

    /// What a connection's entry is after what was told of it.
    fn meta_told(&self, meta: Meta, told: &Connection, entry: &DestEntry) -> Meta {
        let active = (self.snapshot.timeouts.get(usize::from(entry.timeouts)))
            .is_some_and(|timeouts| timeouts.is_active(told.state));
        let deadline = self.now.after(told.left);
        meta.with_no_output(told.flags.no_output).after_packet(told.state, active, deadline)
    }

    /// Enters a new connection.
    fn insert_told<K: Family>(
        &mut self,
        key: K,
        told: &Connection,
        (dest, entry): (DestId, DestEntry),
        reply: Option<K>,
    ) -> Result<(), Refusal> {
        if self.tables.len() >= self.tables.max {
            return Err(Refusal::Full);
        }
        let protocol = told.protocol;
        if let Some(reply) = reply
            && told.local.is_some()
        {
            self.free_local(&key, protocol, reply)?;
        }
        let mut meta = Meta::new(protocol, dest, told.state, self.now.after(told.left)).with_foreign();
        meta = self.meta_told(meta, told, &entry);
        if told.flags.proxied && entry.way.local_ends().is_some() {
            meta = meta.with_proxied();
        }
        if let Streams::Spliced(_) = told.streams {
            meta = meta.with_spliced();
        }
        if told.flags.controlled && self.adopt(&key, told, (dest, &entry)) {
            meta = meta.with_controlled();
            if told.flags.assured {
                meta = meta.with_assured();
            }
        }
        let (table, pairs) = K::tables(&mut self.tables);
        let entered = match reply {
            Some(reply) => enter_told(pairs, key, reply, told),
            None => Ok(()),
        };
        let probe = table.probe(&key, protocol);
        let entered = entered.and_then(|()| table.insert(key, probe, meta).map_err(|_| Refusal::Full));
        let paired = entered.is_ok() && (reply.is_some() || Self::enter_reply(pairs, key, meta, &entry));
        if !paired {
            if entered != Err(Refusal::LocalTaken) && reply.is_some() {
                local_port::leave(pairs, key, protocol);
            }
            if let Some(found) = table.find(&key, protocol, probe) {
                table.remove(found);
            }
            self.ending().of_child(&key, meta, false);
            return Err(entered.err().unwrap_or(Refusal::Full));
        }
        let counters = &self.counters.dests[dest.0 as usize];
        counters.total.up();
        if meta.active() {
            counters.active.up();
        }
        if evict::is_embryonic(meta) {
            self.counters.own.embryonic.up();
        }
        self.counters.own.inserted.add(1);
        self.snapshot.bound(dest, &self.all_counters);
        Ok(())
    }

    /// Sees to it that no other connection has a local end. Who tells of a connection has given it that end, so what it has
    /// told before of another one that has it is over there: here it may stand for a second more, until the sweep comes.
    fn free_local<K: Family>(&mut self, key: &K, protocol: u8, reply: K) -> Result<(), Refusal> {
        let (table, pairs) = K::tables_ref(&self.tables);
        let wanted = Pair::wanted(reply);
        let Some(pair) = pairs.find(&wanted, protocol, pairs.probe(&wanted, protocol)) else { return Ok(()) };
        let holder = pairs.key(pair).other;
        if holder == *key {
            return Ok(());
        }
        let Some(found) = table.find(&holder, protocol, table.probe(&holder, protocol)) else {
            let (_, pairs) = K::tables(&mut self.tables);
            pairs.remove(pair);
            return Ok(());
        };
        let here = !found.meta.is_foreign() && !self.snapshot.shared.is_absent(holder.vip().into());
        if here && found.meta.deadline().left(self.now).is_some() {
            return Err(Refusal::LocalTaken);
        }
        self.forget(found, holder);
        Ok(())
    }

    /// Makes a connection the child of its template, which is made where there is none.
    fn adopt<K: Family>(&self, key: &K, told: &Connection, (dest, entry): (DestId, &DestEntry)) -> bool {
        let Some(protocol) = L4::of(told.protocol) else { return false };
        let Some(rule) = self.snapshot.rules.get(usize::from(entry.rule)) else { return false };
        let child =
            Child { client: key.client().into(), vip: key.vip().into(), vport: key.vip_port(), protocol };
        let chosen = self.setup.templates.choose(rule, &child, self.now_ns, |own| own == dest, || Some(dest));
        if chosen.is_ok() && told.flags.assured {
            self.setup.templates.assure(rule, &child, dest);
        }
        chosen.is_ok()
    }
}

/// What the pair that leads on knows of a connection.
fn pair_told(mut pair: Meta, told: &Connection) -> Meta {
    if told.flags.answered {
        pair = pair.with_answered();
    }
    match told.streams {
        Streams::Alike => pair,
        Streams::Headed(stream) => pair.with_stream(stream),
        Streams::Spliced(splice) => pair.with_splice(splice),
    }
}

/// Enters both pairs of a connection that has them.
fn enter_told<K: Family>(
    pairs: &mut crate::conn::Table<Pair<K>>,
    key: K,
    reply: K,
    told: &Connection,
) -> Result<(), Refusal> {
    let protocol = told.protocol;
    let wanted = Pair::wanted(reply);
    if told.local.is_some()
        && let Some(found) = pairs.find(&wanted, protocol, pairs.probe(&wanted, protocol))
        && pairs.key(found).other != key
    {
        return Err(Refusal::LocalTaken);
    }
    // of a former life of the same connection
    local_port::leave(pairs, key, protocol);
    let entered = match told.streams {
        Streams::Spliced(splice) => handshake::enter(pairs, key, reply, protocol, splice),
        Streams::Alike | Streams::Headed(_) => {
            let on = Meta::of_pair(local_port::forward(protocol));
            let on = if told.flags.proxied { on.with_pair_proxied() } else { on };
            local_port::enter(pairs, key, reply, protocol, on)
        }
    };
    if !entered {
        return Err(Refusal::Full);
    }
    if let Some((pair, _)) = local_port::reply_of(pairs, key, protocol) {
        pairs.update(pair, pair_told(pair.meta, told));
    }
    Ok(())
}
