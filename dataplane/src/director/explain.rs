//! What would become of the first packet of a connection, and why: the packet path's own steps, without a trace.
//!
//! Limits: it goes by the newest snapshot, which a worker may not have picked up yet, and by what the connection's owner
//! said of floods at its latest turn; fragments, TTL and MTU are the packet's own matter, and whether a receive queue
//! is so full that first packets are shed (`overload`) is seen by the worker alone.

use std::net::IpAddr;

use lb_config::{OnServerDown, SynProxy};

use super::Director;
use crate::classify::{FTP_DATA, How, Lookup};
use crate::drop_reason::DropReason;
use crate::flood::stateless;
use crate::ids::{DestId, ServiceId};
use crate::io::{DeviceId, WorkerId};
use crate::mailbox::{ConnProtocol, ConnRow};
use crate::neighbor::{LinkId, NeighborRow};
use crate::parse::L4;
use crate::persist::Child;
use crate::policy::{self, Old, Refusal};
use crate::sched::{DrawSource, NewConnection, Question};
use crate::snapshot::{DestEntry, Route, ServiceEntry, Way};
use crate::steer;

/// What the director knows of a connection with the packet's addresses and ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// The connection.
    pub row: ConnRow,
    /// A first packet takes its place.
    pub anew: bool,
    /// Its server was removed, and this becomes of it.
    pub down: Option<OnServerDown>,
}

/// A candidate as the scheduler saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tried {
    /// Which.
    pub dest: DestId,
    /// Its weight.
    pub weight: u32,
    /// Connections in an active state.
    pub active: u64,
    /// The others.
    pub inactive: u64,
    /// It has reached its upper threshold.
    pub full: bool,
}

/// How the first packet of a new connection is let in, see [`crate::flood`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entrance {
    /// It begins an entry.
    Entry,
    /// Its service keeps no entries: every packet is scheduled anew.
    OnePacket,
    /// The SYN is answered with a cookie; when the client's ACK brings it back it begins an entry, and the server is
    /// called. Why the client has to prove itself: `Always`, or `Auto` while SYNs are a flood.
    Proof(SynProxy),
    /// SYNs are a flood: it goes on without an entry, which the client's ACK begins.
    Unconfirmed,
    /// The table is full: a dispensable connection makes room, and if there is none it goes without an entry to this
    /// destination, or nowhere.
    Full(Option<DestId>),
}

/// Where the packet goes, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// To the server of its connection.
    Known(DestId),
    /// To the server that its client had before.
    Persistent(DestId),
    /// To the scheduler's choice.
    Scheduled(DestId),
    /// To the choice of a hash of its client, as it begins no entry.
    Hashed(DestId),
    /// Into the world, by a rule of source NAT.
    Translated(DestId),
    /// Nowhere.
    Refused(Refusal),
}

impl Outcome {
    /// The destination, if there is one.
    pub fn dest(&self) -> Option<DestId> {
        match self {
            Self::Known(dest)
            | Self::Persistent(dest)
            | Self::Scheduled(dest)
            | Self::Hashed(dest)
            | Self::Translated(dest) => Some(*dest),
            Self::Refused(_) => None,
        }
    }
}

/// How it gets there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    /// What is known of the server or the gateway towards it; `None`: it was let go of.
    pub neighbor: Option<NeighborRow>,
    /// Port of the director towards it.
    pub link: Option<String>,
    /// The director's MAC address there.
    pub mac: [u8; 6],
    /// What is done to the packet.
    pub way: Way,
    /// Addresses that its source may become, with full NAT and source NAT.
    pub local: Vec<IpAddr>,
    /// How it is wrapped, with a tunnel.
    pub tunnel: Option<lb_config::Tunnel>,
    /// Largest packet that gets there, bytes.
    pub mtu: u16,
    /// Largest TCP segment that either side may ask for, bytes.
    pub mss: Option<u16>,
}

/// All of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// Who owns the connection, where workers hand frames over; a NIC that spreads flows chooses itself.
    pub worker: WorkerId,
    /// Firewall mark.
    pub mark: Option<u32>,
    /// Name of the service, and how it was found.
    pub service: Option<(String, How)>,
    /// A connection that there is already.
    pub known: Option<Known>,
    /// How it is let in, where its service takes it as a new connection.
    pub entrance: Option<Entrance>,
    /// The client's template: destination, established, ns left; and whether it still holds.
    pub template: Option<(DestId, bool, u64, bool)>,
    /// The scheduler's candidates, when it was asked.
    pub candidates: Vec<Tried>,
    /// Where the packet goes.
    pub outcome: Outcome,
    /// How it gets there.
    pub hop: Option<Hop>,
}

impl Director {
    /// Explains the first packet of a connection (a SYN, an INIT, a datagram); nothing changes.
    ///
    /// `known`: the connection with the same addresses and ports, from [`Director::list_connections`].
    pub fn explain(&self, packet: &Lookup, known: Option<&ConnRow>) -> Explanation {
        let running = &self.running;
        let is_reply = running.is_reply((packet.src, packet.src_port), packet.dst, packet.protocol as u8);
        let client = if is_reply { (packet.dst, packet.dst_port) } else { (packet.src, packet.src_port) };
        let found = running.services.explain(packet).filter(|_| packet.src_port != FTP_DATA);
        let mut explained = Explanation {
            worker: steer::owner(client.0, client.1, self.setup.workers, &self.setup.steer_key),
            mark: running.services.mark(packet),
            service: found.as_ref().map(|hit| (self.name_of(hit.service.id), hit.how)),
            known: known.and_then(|row| self.known(row)),
            entrance: None,
            template: None,
            candidates: Vec::new(),
            outcome: Outcome::Refused(Refusal::silent(DropReason::NotForUs)),
            hop: None,
        };
        explained.outcome = match (explained.known, found) {
            _ if running.shared.is_absent(packet.dst) => {
                Outcome::Refused(Refusal::silent(DropReason::NotMaster))
            }
            (Some(Known { row, anew: false, down: None | Some(OnServerDown::Keep) }), _) => {
                Outcome::Known(row.dest)
            }
            (Some(Known { anew: false, down: Some(OnServerDown::Drop | OnServerDown::Reset), .. }), _) => {
                Outcome::Refused(Refusal::silent(DropReason::ServerGone))
            }
            (_, Some(hit)) => self.schedule_dry(hit.service, packet, &mut explained),
            (_, None) => {
                let refused = |reason| Outcome::Refused(Refusal::of_host(reason, packet.protocol));
                let link = running.link(packet.device, packet.vlan);
                if running.is_ours(packet.dst) {
                    refused(DropReason::NoService)
                } else {
                    let dest = running.snat(packet.src, packet.dst, packet.protocol as u8, link);
                    dest.map_or_else(|| refused(DropReason::NotForUs), Outcome::Translated)
                }
            }
        };
        let entry = explained.outcome.dest().and_then(|dest| running.dest(dest));
        explained.hop = entry.map(|entry| self.hop_of(entry, packet.dst));
        explained
    }

    /// Where a packet of `client` comes in: by the port towards it. Device and VLAN.
    pub fn arrival(&self, client: IpAddr) -> (DeviceId, u16) {
        let link = match self.running.route(client) {
            Route::Via(link, _) | Route::Stranger(link) => link,
            Route::None => LinkId(0),
        };
        let at = self.running.links.get(usize::from(link.0));
        at.map_or((DeviceId(0), 0), |link| (link.device, link.vlan))
    }

    /// Device and VLAN of a port by its name.
    pub fn port(&self, name: &str) -> Option<(DeviceId, u16)> {
        let link = self.running.links.iter().find(|link| link.name == name)?;
        Some((link.device, link.vlan))
    }

    fn known(&self, row: &ConnRow) -> Option<Known> {
        let entry = self.running.dest(row.dest)?;
        let service = self.running.policies.get(usize::from(entry.policy))?;
        let old = Old { state: row.state, no_output: row.no_output, controlled: row.controlled };
        let is_udp = row.protocol == ConnProtocol::Flow(lb_config::Protocol::Udp);
        let down = entry.removed.then_some(service.on_server_down);
        let anew = !is_udp && policy::begins_anew(&self.running.policy, service, &old, entry)
            || down == Some(OnServerDown::Reschedule);
        Some(Known { row: *row, anew, down })
    }

    /// As a worker schedules, on copies.
    fn schedule_dry(&self, service: &ServiceEntry, packet: &Lookup, explained: &mut Explanation) -> Outcome {
        let running = &self.running;
        let refused = |reason| Outcome::Refused(Refusal::of_service(reason, &service.policy));
        let limit = service.policy.max_connections;
        if limit
            .is_some_and(|limit| policy::connections(&service.candidates, &self.counters) >= u64::from(limit))
        {
            return refused(DropReason::ServiceFull);
        }
        let new = NewConnection { client: packet.src, client_port: packet.src_port, target: packet.dst };
        let question = Question {
            candidates: &service.candidates,
            dests: &running.dests,
            workers: &self.counters,
            overload: &running.overload,
            new: &new,
            flow_hash: &running.flow_hash,
            draws: &DrawSource::random(),
        };
        let by_hash = || {
            let schedule = || service.scheduler.look(&question);
            stateless::of_client(running, service, &new, schedule).map(|(dest, _)| dest)
        };
        let entrance = self.entrance(service, packet, explained.worker, by_hash);
        explained.entrance = Some(entrance);
        if let (Entrance::Unconfirmed, Some(dest)) = (entrance, by_hash()) {
            return Outcome::Hashed(dest);
        }
        if let Some(rule) = &service.rule {
            let child = Child {
                client: packet.src,
                vip: packet.dst,
                vport: packet.dst_port,
                protocol: packet.protocol,
            };
            let template = self.setup.templates.find(rule, &child, self.workers_now_ns());
            explained.template = template.map(|(dest, assured, left_ns)| {
                let holds = running.dest(dest).is_some_and(|entry| policy::holds(&running.policy, entry));
                (dest, assured, left_ns, holds)
            });
            if let Some((dest, _, _, true)) = explained.template {
                return Outcome::Persistent(dest);
            }
        }
        let tried = |candidate| {
            let load = question.load(candidate);
            Tried {
                dest: candidate.dest,
                weight: candidate.weight,
                active: load.active,
                inactive: load.inactive,
                full: question.overloaded(candidate),
            }
        };
        explained.candidates = service.candidates.iter().map(tried).collect();
        service.scheduler.look(&question).map_or_else(|| refused(DropReason::NoServer), Outcome::Scheduled)
    }

    /// How `worker` lets a new connection of `service` in.
    fn entrance(
        &self,
        service: &ServiceEntry,
        packet: &Lookup,
        worker: WorkerId,
        by_hash: impl Fn() -> Option<DestId>,
    ) -> Entrance {
        let own = self.counters.get(usize::from(worker.0)).map(|worker| &worker.own);
        let is_flood = own.is_some_and(|own| own.flood.get() != 0);
        if packet.protocol == L4::Tcp {
            match service.policy.syn_proxy {
                SynProxy::Auto if is_flood => return Entrance::Proof(SynProxy::Auto),
                SynProxy::Always => return Entrance::Proof(SynProxy::Always),
                SynProxy::Auto | SynProxy::Off => {}
            }
            if is_flood && by_hash().is_some() {
                return Entrance::Unconfirmed;
            }
        }
        if service.one_packet && packet.protocol == L4::Udp {
            return Entrance::OnePacket;
        }
        let most = u64::from(self.setup.connections_per_worker);
        if own.is_some_and(|own| own.connections.get() >= most) {
            return Entrance::Full(by_hash());
        }
        Entrance::Entry
    }

    fn name_of(&self, id: ServiceId) -> String {
        let of = |service: &&lb_config::Service| {
            self.registry.services.get(&service.address).is_some_and(|record| record.id == id)
        };
        self.model.services.iter().find(of).map(|service| service.name.clone()).unwrap_or_default()
    }

    /// `dst`: where the packet goes, which with source NAT is all that there is.
    fn hop_of(&self, entry: &DestEntry, dst: IpAddr) -> Hop {
        let rows = self.book.rows(self.polled_ms);
        let mut entry = *entry;
        let mut link = self.running.link(entry.device, entry.vlan);
        let mut known = true;
        if let Way::Snat(_) = entry.way {
            (link, known) = match self.running.route(dst) {
                Route::Via(link, neighbor) => {
                    entry.neighbor = neighbor;
                    (Some(link), true)
                }
                Route::Stranger(link) => (Some(link), false),
                Route::None => (None, false),
            };
            if let Some(link) = link.and_then(|link| self.running.links.get(usize::from(link.0))) {
                (entry.mac, entry.mtu) = (link.mac, link.mtu);
            }
        }
        let ends = entry.way.local_ends().and_then(|at| self.running.local_ends.get(usize::from(at)));
        let tunnel = match entry.way {
            Way::Tunnel(at) => self.running.tunnels.get(usize::from(at)).map(|encap| encap.kind()),
            Way::Dr | Way::Nat | Way::FullNat(_) | Way::Snat(_) => None,
        };
        let policy = self.running.policies.get(usize::from(entry.policy));
        Hop {
            neighbor: rows.into_iter().find(|row| known && row.id == entry.neighbor),
            local: ends.map(|ends| ends.addresses.clone()).unwrap_or_default(),
            link: link.and_then(|link| Some(self.running.links.get(usize::from(link.0))?.name.clone())),
            mac: entry.mac,
            way: entry.way,
            tunnel,
            mtu: entry.mtu,
            mss: policy.and_then(|policy| policy.mss),
        }
    }
}
