//! What the workers know of the configuration: an immutable value, replaced as a whole.
//!
//! What is long in it is shared with the snapshots before and behind ([`crate::paged`], [`crate::shards`]), so that a new one costs
//! what changed.
//!
//! Built on the control core by [`crate::director`], read by every worker. Invariant: every index in it is within
//! the bounds of what it points to.

use std::net::IpAddr;
use std::sync::Arc;

use lb_config::{EffectivePolicy, IfAddr, OnServerDown, Policy};

use crate::classify::Classifier;
use crate::counters::WorkerCounters;
use crate::director::Pins;
use crate::express::ReplyEnds;
use crate::ids::{DestId, ServiceId};
use crate::io::DeviceId;
use crate::local_port::LocalEnds;
use crate::neighbor::{LinkId, NeighborCells, NeighborId};
use crate::networks::Networks;
use crate::owner::Shared;
use crate::paged::Paged;
use crate::persist::Rule;
use crate::rewrite::Encap;
use crate::sched::{Candidate, DrawSource, FlowHash, NewConnection, Overload, Question, Scheduler};
use crate::shards::Shards;
use crate::snat::SnatEntry;
use crate::state::TimeoutTable;
use crate::sync::{DestKey, Feeds};
use crate::transmit::{Awaited, NextHop};
use crate::wire::Mac;

/// An L3 interface: a device and a VLAN on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Name of the port in the configuration.
    pub name: String,
    /// Where its frames come and go.
    pub device: DeviceId,
    /// 802.1Q tag, 0: untagged.
    pub vlan: u16,
    /// The director's MAC address there.
    pub mac: [u8; 6],
    /// Largest IP packet, bytes.
    pub mtu: u16,
    /// The director's own addresses.
    pub addresses: Vec<IfAddr>,
    /// Packets a second that the kernel gets of it at most; `None`: it gets none.
    pub exception: Option<u32>,
}

impl Link {
    /// What a frame that leaves here carries.
    pub fn wire(&self) -> crate::wire::Link {
        crate::wire::Link { mac: self.mac, vlan: self.vlan }
    }
}

/// What a local address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalAddress {
    /// The link whose network it is in and on which the director answers for it; `None` (a VIP that is routed to
    /// the director): on every link.
    pub link: Option<LinkId>,
}

/// A service as the packet path needs it.
#[derive(Clone, Debug)]
pub struct ServiceEntry {
    /// Its index.
    pub id: ServiceId,
    /// How new connections are scheduled.
    pub scheduler: Scheduler,
    /// Servers in scheduling order, those with weight 0 included.
    pub candidates: Vec<Candidate>,
    /// Greatest weight of a candidate.
    pub heaviest: u32,
    /// Persistence.
    pub rule: Option<Rule>,
    /// Every packet is scheduled anew, no connection is kept.
    pub one_packet: bool,
    /// What it decides for itself.
    pub policy: EffectivePolicy,
}

/// What is done to a packet on its way to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Direct routing: the MAC addresses change.
    Dr,
    /// The destination becomes the server's address and port; replies come back through the director.
    Nat,
    /// Put into another packet: index in [`Snapshot::tunnels`].
    Tunnel(u16),
    /// As NAT, and the source becomes a local end: index in [`Snapshot::local_ends`].
    FullNat(u16),
    /// Source NAT: the source alone becomes a local end, likewise.
    Snat(u16),
}

impl Way {
    /// The index of the local ends that connections get one of.
    #[inline]
    pub fn local_ends(self) -> Option<u16> {
        match self {
            Way::FullNat(at) | Way::Snat(at) => Some(at),
            Way::Dr | Way::Nat | Way::Tunnel(_) => None,
        }
    }

    /// Whether replies come back through the director.
    #[inline]
    pub fn sees_replies(self) -> bool {
        matches!(self, Way::Nat | Way::FullNat(_) | Way::Snat(_))
    }
}

/// A destination as the packet path needs it; one cache line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(align(64))]
pub struct DestEntry {
    /// Next hop.
    pub neighbor: NeighborId,
    /// Where it stands among its service's candidates; of a removed one, where its predecessor stands;
    /// `u32::MAX`: before the first.
    pub position: u32,
    /// Service.
    pub service: ServiceId,
    /// Device towards it.
    pub device: DeviceId,
    /// 802.1Q tag towards it, 0: untagged.
    pub vlan: u16,
    /// Largest IP packet towards it, bytes.
    pub mtu: u16,
    /// Index in [`Snapshot::timeouts`].
    pub timeouts: u16,
    /// The director's MAC address towards it.
    pub mac: [u8; 6],
    /// Removed from its service, or its drain deadline has passed: it gets no new connections, and
    /// [`EffectivePolicy::on_server_down`] says what becomes of those that it has.
    pub removed: bool,
    /// Index in [`Snapshot::rules`] or [`DestEntry::NO_RULE`].
    pub rule: u16,
    /// Index in [`Snapshot::policies`].
    pub policy: u16,
    /// It has weight 0: it gets no new connections, or was removed.
    pub draining: bool,
    /// Forwarding.
    pub way: Way,
    /// Port of the server, host order; 0: the one that the client used.
    pub port: u16,
    /// Address of the server.
    pub address: IpAddr,
}

const _: () = assert!(size_of::<DestEntry>() == 64);

impl DestEntry {
    /// Its service has no persistence.
    pub const NO_RULE: u16 = u16::MAX;

    /// Whether packets get to it by other MAC addresses alone.
    #[inline(always)]
    pub(crate) fn is_direct(&self) -> bool {
        self.way == Way::Dr && !self.removed && self.vlan == 0
    }
}

/// Where the next hop of an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Over this next hop of this link.
    Via(LinkId, NeighborId),
    /// It is on this link itself, and nobody has asked for its MAC address yet.
    Stranger(LinkId),
    /// In no connected network, and there is no gateway.
    None,
}

/// The whole.
#[derive(Debug)]
pub struct Snapshot {
    /// Counts publications.
    pub generation: u64,
    /// By [`LinkId`].
    pub links: Vec<Link>,
    /// The networks of these.
    pub networks: Networks,
    /// VIPs and DIPs.
    pub local: Shards<IpAddr, LocalAddress>,
    /// Services by what clients address.
    pub services: Classifier<Arc<ServiceEntry>>,
    /// By [`DestId`]; `None`: unused.
    pub dests: Paged<Option<DestEntry>>,
    /// Servers whose replies pass the director: address, port (0: any), protocol. Says which end of a packet is the
    /// client before its connection is looked up. With the number of destinations that it is.
    pub nat_servers: Shards<(IpAddr, u16, u8), u32>,
    /// Where packets of full NAT and source NAT come from.
    pub local_ends: Arc<Vec<LocalEnds>>,
    /// All addresses in `local_ends`: what comes to one of them is a reply.
    pub translated: Shards<IpAddr, ()>,
    /// A hint of these two, for every packet.
    pub reply_ends: ReplyEnds,
    /// Source NAT, in the order in which rules are tried.
    pub snat: Vec<SnatEntry>,
    /// What goes around packets into tunnels.
    pub tunnels: Arc<Vec<Encap>>,
    /// Persistence that destinations are subject to.
    pub rules: Arc<Vec<Rule>>,
    /// What the director decides for all services.
    pub policy: Policy,
    /// What services decide for their destinations.
    pub policies: Arc<Vec<EffectivePolicy>>,
    /// Timeouts that destinations use.
    pub timeouts: Arc<Vec<TimeoutTable>>,
    /// Next hops by link and address.
    pub neighbors: Shards<(LinkId, IpAddr), NeighborId>,
    /// Next hop for what is not directly connected: IPv4, IPv6.
    pub gateways: [Option<(LinkId, NeighborId)>; 2],
    /// MAC addresses of next hops.
    pub cells: Arc<NeighborCells>,
    /// Keyed hash of clients.
    pub flow_hash: FlowHash,
    /// Which destinations have reached their upper thresholds.
    pub overload: Arc<Overload>,
    /// Addresses that another director may have.
    pub shared: Arc<Shared>,
    /// Where other directors' speakers are told of connections; `None`: there are none.
    pub sync: Option<Arc<Feeds>>,
    /// What other directors know a destination by.
    pub names: Paged<Option<DestKey>>,
    /// Destinations by that.
    pub by_name: Shards<DestKey, DestId>,
    /// Clients' ends whose server is known.
    pub pins: Arc<Pins>,
}

impl Snapshot {
    /// The link of a device and VLAN.
    #[inline]
    pub fn link(&self, device: DeviceId, vlan: u16) -> Option<LinkId> {
        // a director has a handful of links: a scan beats a map
        self.links
            .iter()
            .position(|link| link.device == device && link.vlan == vlan)
            .map(|at| LinkId(at as u16))
    }

    /// A destination.
    #[inline]
    pub fn dest(&self, dest: DestId) -> Option<&DestEntry> {
        self.dests.get(dest.0 as usize)?.as_ref()
    }

    /// Whether the director answers for `address` on `link`. One of a service's prefix counts where its network is,
    /// or everywhere when it is on no link.
    pub fn answers_for(&self, address: IpAddr, link: LinkId) -> bool {
        match self.local.get(&address) {
            Some(_) if self.shared.is_absent(address) => false,
            Some(local) => local.link.is_none_or(|own| own == link),
            None => self.services.is_vip(address) && self.own_network(address).is_none_or(|own| own == link),
        }
    }

    /// Whether `address` is the director's: its own or a VIP.
    pub fn is_ours(&self, address: IpAddr) -> bool {
        (self.local.contains_key(&address) || self.services.is_vip(address))
            && !self.shared.is_absent(address)
    }

    /// The MAC address that `address`, which is the director's, is at.
    pub(crate) fn mac_of(&self, address: IpAddr, link: LinkId) -> Mac {
        self.shared.mac(address).unwrap_or(self.links[usize::from(link.0)].mac)
    }

    /// The link in whose networks `address` is.
    #[inline(always)]
    pub(crate) fn own_network(&self, address: IpAddr) -> Option<LinkId> {
        self.networks.link_of(address)
    }

    /// The way to any address: a connected network comes before the gateway.
    #[inline(always)]
    pub fn route(&self, address: IpAddr) -> Route {
        match self.own_network(address) {
            Some(link) => match self.neighbors.get(&(link, address)) {
                Some(neighbor) => Route::Via(link, *neighbor),
                None => Route::Stranger(link),
            },
            None => match self.gateways[usize::from(address.is_ipv6())] {
                Some((link, neighbor)) => Route::Via(link, neighbor),
                None => Route::None,
            },
        }
    }

    /// The next hop on a link.
    #[inline(always)]
    pub(crate) fn hop(&self, link: LinkId, neighbor: NeighborId) -> NextHop {
        let link = &self.links[usize::from(link.0)];
        NextHop { to: Awaited::Neighbor(neighbor), device: link.device, vlan: link.vlan, mac: link.mac }
    }

    /// Whether packets from `address` and `port` are replies of a NATed connection.
    #[inline]
    pub fn is_nat_server(&self, address: IpAddr, port: u16, protocol: u8) -> bool {
        !self.nat_servers.is_empty()
            && (self.nat_servers.contains_key(&(address, port, protocol))
                || self.nat_servers.contains_key(&(address, 0, protocol)))
    }

    /// Whether packets from `src` to `dst` belong to a connection by their destination: replies that are to be
    /// translated back.
    #[inline]
    pub fn is_reply(&self, src: (IpAddr, u16), dst: IpAddr, protocol: u8) -> bool {
        self.reply_ends.may_be_to(dst) && self.is_translated(dst)
            || self.reply_ends.may_be_from(src.0) && self.is_nat_server(src.0, src.1, protocol)
    }

    /// Whether [`Snapshot::is_reply`] may say so; never no of a packet whose tuple is in a table of pairs, as the ends of
    /// its destination stay known while there are connections.
    #[inline(always)]
    pub fn may_be_reply(&self, src: IpAddr, dst: IpAddr) -> bool {
        self.reply_ends.may_be_to(dst) || self.reply_ends.may_be_from(src)
    }

    /// Whether what comes to `address` is a reply of a connection by full NAT or source NAT.
    #[inline]
    pub fn is_translated(&self, address: IpAddr) -> bool {
        !self.translated.is_empty() && self.translated.contains_key(&address)
    }

    /// Whether any replies pass the director: then a NIC's own choice of a worker, which is another one for each
    /// direction, does not count.
    #[inline]
    pub fn has_replies(&self) -> bool {
        !self.nat_servers.is_empty() || !self.translated.is_empty()
    }

    /// The gateway for `address`, when it is in none of the networks of `link`.
    pub fn gateway_for(&self, address: IpAddr, link: LinkId) -> Option<(LinkId, NeighborId)> {
        let networks = &self.links[usize::from(link.0)].addresses;
        if networks.iter().any(|network| network.contains(address)) {
            return None;
        }
        self.gateways[usize::from(address.is_ipv6())]
    }

    /// Whether connections of a destination are scheduled anew, because it was removed and its service says so.
    pub fn reschedules(&self, entry: &DestEntry) -> bool {
        let service = self.policies.get(usize::from(entry.policy)).filter(|_| entry.removed);
        service.is_some_and(|service| service.on_server_down == OnServerDown::Reschedule)
    }

    /// The destination of a new connection of `service`; `None`: no server may take it.
    ///
    /// Once the connection is counted, say so with [`Snapshot::bound`]. Cost: see [`Scheduler::pick`].
    pub fn schedule(
        &self,
        service: &ServiceEntry,
        new: &NewConnection,
        workers: &[Arc<WorkerCounters>],
        draws: &DrawSource,
    ) -> Option<DestId> {
        service.scheduler.pick(&Question {
            candidates: &service.candidates,
            dests: &self.dests,
            workers,
            overload: &self.overload,
            new,
            flow_hash: &self.flow_hash,
            draws,
        })
    }

    /// A destination got one more connection, already counted in the worker's `total`: it may be full now.
    ///
    /// Cost: one load for a destination without an upper threshold, else O(workers).
    #[inline]
    pub fn bound(&self, dest: DestId, workers: &[Arc<WorkerCounters>]) {
        self.overload.bound(dest, workers);
    }

    /// A destination has one connection less, already taken off the worker's `total`: it may have room again.
    ///
    /// Cost: one load for a destination that is not full, else O(workers).
    #[inline]
    pub fn unbound(&self, dest: DestId, workers: &[Arc<WorkerCounters>]) {
        self.overload.unbound(dest, workers);
    }
}
