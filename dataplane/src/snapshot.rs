//! What the workers know of the configuration: an immutable value, replaced as a whole.
//!
//! Built on the control core by [`crate::director`], read by every worker. Invariant: every index in it is within
//! the bounds of what it points to.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use lb_config::IfAddr;

use crate::counters::WorkerCounters;
use crate::ids::{DestId, ServiceId};
use crate::io::DeviceId;
use crate::neighbor::{LinkId, NeighborCells, NeighborId};
use crate::sched::{Candidate, FlowHash, Question, Scheduler};
use crate::state::TimeoutTable;

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

/// Virtual address, port and protocol (its IANA number's place in [`crate::parse::L4`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ServiceKey {
    /// VIP.
    pub vip: IpAddr,
    /// Port, host order.
    pub port: u16,
    /// Protocol.
    pub protocol: u8,
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
}

/// A destination as the packet path needs it; half a cache line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(align(32))]
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
    /// Removed from its service: it keeps the connections that it has and gets no others.
    pub removed: bool,
}

const _: () = assert!(size_of::<DestEntry>() == 32);

/// The whole.
#[derive(Debug)]
pub struct Snapshot {
    /// Counts publications.
    pub generation: u64,
    /// By [`LinkId`].
    pub links: Vec<Link>,
    /// VIPs and DIPs.
    pub local: HashMap<IpAddr, LocalAddress>,
    /// Services by what clients address.
    pub services: HashMap<ServiceKey, Arc<ServiceEntry>>,
    /// By [`DestId`]; `None`: unused.
    pub dests: Vec<Option<DestEntry>>,
    /// Address of every destination's server, for listings.
    pub servers: Vec<Option<IpAddr>>,
    /// Timeouts that destinations use.
    pub timeouts: Vec<TimeoutTable>,
    /// Next hops by link and address.
    pub neighbors: HashMap<(LinkId, IpAddr), NeighborId>,
    /// Next hop for what is not directly connected: IPv4, IPv6.
    pub gateways: [Option<(LinkId, NeighborId)>; 2],
    /// MAC addresses of next hops.
    pub cells: Arc<NeighborCells>,
    /// Keyed hash of clients.
    pub flow_hash: FlowHash,
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

    /// Whether the director answers for `address` on `link`.
    pub fn answers_for(&self, address: IpAddr, link: LinkId) -> bool {
        self.local.get(&address).is_some_and(|local| local.link.is_none_or(|own| own == link))
    }

    /// The gateway for `address`, when it is in none of the networks of `link`.
    pub fn gateway_for(&self, address: IpAddr, link: LinkId) -> Option<(LinkId, NeighborId)> {
        let networks = &self.links[usize::from(link.0)].addresses;
        if networks.iter().any(|network| network.contains(address)) {
            return None;
        }
        self.gateways[usize::from(address.is_ipv6())]
    }

    /// The destination of a new connection of `service`.
    pub fn schedule(
        &self,
        service: &ServiceEntry,
        workers: &[Arc<WorkerCounters>],
        client: IpAddr,
        client_port: u16,
    ) -> Option<DestId> {
        let position =
            |dest| self.dest(dest).filter(|entry| entry.position != u32::MAX).map(|entry| entry.position);
        let question = Question {
            candidates: &service.candidates,
            position: &position,
            workers,
            client,
            client_port,
            flow_hash: &self.flow_hash,
        };
        service.scheduler.pick(&question)
    }
}
