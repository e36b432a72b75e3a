//! The way of a TCP or UDP packet: owner, connection, or else service, scheduler, new connection; then state.

use std::net::IpAddr;

use crate::conn::{ConnKey, Found, Key4, Key6, Meta, Probe, Table};
use crate::drop_reason::DropReason;
use crate::ids::DestId;
use crate::io::PacketIo;
use crate::parse::{Flow, L4, Parsed};
use crate::snapshot::{DestEntry, ServiceKey};
use crate::state::{self, State};
use crate::steer;
use crate::worker::{Tables, Worker};

/// What the flow code needs to know of an address family.
pub(crate) trait Family: ConnKey<Address: Into<IpAddr>> {
    /// Its connection table.
    fn table(tables: &mut Tables) -> &mut Table<Self>;
}

impl Family for Key4 {
    #[inline]
    fn table(tables: &mut Tables) -> &mut Table<Key4> {
        &mut tables.v4
    }
}

impl Family for Key6 {
    #[inline]
    fn table(tables: &mut Tables) -> &mut Table<Key6> {
        &mut tables.v6
    }
}

impl<I: PacketIo> Worker<I> {
    /// A TCP or UDP packet that was sent to this station.
    pub(crate) fn flow<K: Family>(
        &mut self,
        frame: I::Packet,
        parsed: &Parsed,
        flow: &Flow<K::Address>,
        probe: Probe,
        steered: bool,
    ) {
        if !steered {
            let owner =
                steer::owner(flow.src.into(), flow.src_port, self.setup.workers, &self.setup.steer_key);
            if owner != self.id {
                return self.hand_over(owner, frame);
            }
        }
        let key = K::new(flow.src, flow.src_port, flow.dst, flow.dst_port);
        let found = K::table(&mut self.tables).find(&key, flow.protocol as u8, probe);
        let hit = found.and_then(|found| self.still_good::<K>(found, flow));
        let (dest, entry) = match hit {
            Some((found, entry)) => {
                self.advance::<K>(found, &entry, flow);
                (found.meta.dest(), entry)
            }
            None => match self.admit(key, flow, probe) {
                Ok(admitted) => admitted,
                Err(reason) => return self.counters.drop_packet(reason),
            },
        };
        let counters = &self.counters.dests[dest.0 as usize];
        counters.in_packets.add(1);
        counters.in_bytes.add(u64::from(flow.ip_len));
        self.forward(frame, parsed, flow, &entry);
    }

    /// The connection and its destination, unless its time is over or a new one takes its place; then it is removed.
    ///
    /// A SYN on a connection in TIME_WAIT or CLOSE is a new connection from a reused port (IPVS `conn_reuse_mode`
    /// 1), and so is a SYN to a server that was removed: nobody new is sent to a server that is going.
    #[inline]
    fn still_good<K: Family>(&mut self, found: Found, flow: &Flow<K::Address>) -> Option<(Found, DestEntry)> {
        let entry = self.snapshot.dest(found.meta.dest()).copied();
        if let Some(entry) = entry
            && found.meta.deadline().left(self.now).is_some()
        {
            let reuses = flow.protocol == L4::Tcp
                && state::opens_tcp(flow.tcp_flags.0)
                && (matches!(found.meta.state(), State::TimeWait | State::Close) || entry.removed);
            if !reuses {
                return Some((found, entry));
            }
        }
        self.forget::<K>(found);
        None
    }

    /// Removes a connection before its time.
    fn forget<K: Family>(&mut self, found: Found) {
        K::table(&mut self.tables).remove(found);
        let dest = &self.counters.dests[found.meta.dest().0 as usize];
        dest.total.down();
        if found.meta.active() {
            dest.active.down();
        }
        self.counters.own.expired.add(1);
    }

    /// State, activity and deadline after a packet of a known connection.
    #[inline]
    fn advance<K: Family>(&mut self, found: Found, entry: &DestEntry, flow: &Flow<K::Address>) {
        let meta = self.next_meta(found.meta, entry, flow.protocol, flow.tcp_flags.0);
        K::table(&mut self.tables).update(found, meta);
    }

    /// The entry after a packet; moves the destination's active count along.
    #[inline]
    fn next_meta(&self, meta: Meta, entry: &DestEntry, protocol: L4, flags: u8) -> Meta {
        let state = match protocol {
            L4::Tcp => state::tcp_input_only(meta.state(), flags),
            L4::Udp => State::Udp,
        };
        let active = state.is_active();
        if active != meta.active() {
            let counters = &self.counters.dests[meta.dest().0 as usize];
            if active { counters.active.up() } else { counters.active.down() }
        }
        let timeout = self.snapshot.timeouts[usize::from(entry.timeouts)].of(state);
        meta.after_packet(state, active, self.now.after(timeout))
    }

    /// A packet without a connection: finds its service, schedules, inserts.
    #[cold]
    fn admit<K: Family>(
        &mut self,
        key: K,
        flow: &Flow<K::Address>,
        probe: Probe,
    ) -> Result<(DestId, DestEntry), DropReason> {
        let (client, vip): (IpAddr, IpAddr) = (flow.src.into(), flow.dst.into());
        let wanted = ServiceKey { vip, port: flow.dst_port, protocol: flow.protocol as u8 };
        let snapshot = &self.snapshot;
        let Some(service) = snapshot.services.get(&wanted) else {
            return Err(if snapshot.local.contains_key(&vip) {
                DropReason::NoService
            } else {
                DropReason::NotForUs
            });
        };
        if flow.protocol == L4::Tcp && !state::opens_tcp(flow.tcp_flags.0) {
            return Err(DropReason::NoConnection);
        }
        if self.tables.len() >= self.tables.max {
            return Err(DropReason::TableFull);
        }
        let dest = snapshot
            .schedule(service, &self.all_counters, client, flow.src_port)
            .ok_or(DropReason::NoServer)?;
        let entry = *snapshot.dest(dest).ok_or(DropReason::NoServer)?;
        let born = Meta::new(flow.protocol as u8, dest, State::None, self.now);
        let counters = &self.counters.dests[dest.0 as usize];
        counters.total.up();
        let meta = self.next_meta(born, &entry, flow.protocol, flow.tcp_flags.0);
        if K::table(&mut self.tables).insert(key, probe, meta).is_err() {
            counters.total.down();
            if meta.active() {
                counters.active.down();
            }
            return Err(DropReason::TableFull);
        }
        counters.conns.add(1);
        self.counters.own.inserted.add(1);
        Ok((dest, entry))
    }
}
