//! The configuration of VRRP and BFD, with everything that the director knows about it looked up.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use lb_config::{Bfd, Lease, Vrrp, VrrpFile, VrrpGroup, VrrpProcess, VrrpScript};
use lb_dataplane::director::{Director, bfd_source, link_local, link_of, virtual_mac};
use lb_dataplane::io::DeviceId;
use lb_dataplane::neighbor::{LinkId, NeighborCells, NeighborId};
use lb_dataplane::owner::{OwnerCells, OwnerId};
use lb_dataplane::snapshot;
use lb_dataplane::sync::Feeds;
use lb_dataplane::wire::Link;

use super::machine::Settings;

/// Where adverts go. Source: RFC 9568 section 5.1.1.2 and 5.1.2.2.
const GROUP4: IpAddr = IpAddr::V4(Ipv4Addr::new(224, 0, 0, 18));
const GROUP6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12));

/// A way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// The port.
    pub link: LinkId,
    /// Its device.
    pub device: DeviceId,
    /// What frames carry there.
    pub wire: Link,
}

impl Exit {
    fn new(links: &[snapshot::Link], id: LinkId) -> Option<Self> {
        let link = links.get(usize::from(id.0))?;
        Some(Self { link: id, device: link.device, wire: link.wire() })
    }
}

/// Another director.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its address.
    pub address: IpAddr,
    /// Its next hop, when it has one.
    pub neighbor: Option<NeighborId>,
}

/// The lease that an instance depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenure {
    /// Name of its group, or its own: all of a group have one lease.
    pub unit: String,
    /// As configured.
    pub lease: Arc<Lease>,
}

/// An instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstancePlan {
    /// As configured.
    pub vrrp: Vrrp,
    /// Its bit.
    pub owner: OwnerId,
    /// Where adverts go out; with the virtual MAC address where they come from that.
    pub exit: Exit,
    /// Where they come from.
    pub source: IpAddr,
    /// Where they go, unless to `targets`.
    pub group: IpAddr,
    /// Where they go instead.
    pub targets: Vec<Target>,
    /// Addresses with where, and from which MAC address, they are announced.
    pub addresses: Vec<(IpAddr, Exit)>,
    /// The lease that it depends on.
    pub tenure: Option<Tenure>,
}

impl InstancePlan {
    /// Those of its machine.
    pub fn settings(&self) -> Settings {
        Settings { leased: self.tenure.is_some(), ..Settings::new(&self.vrrp, self.source) }
    }
}

/// A BFD session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionPlan {
    /// As configured.
    pub bfd: Bfd,
    /// Where packets go out.
    pub exit: Exit,
    /// Where they come from.
    pub source: IpAddr,
    /// Where they go.
    pub target: Target,
}

/// Everything.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Instances.
    pub instances: Vec<InstancePlan>,
    /// Groups.
    pub groups: Vec<VrrpGroup>,
    /// Sessions.
    pub sessions: Vec<SessionPlan>,
    /// Scripts that are tracked.
    pub scripts: Vec<VrrpScript>,
    /// Processes that are tracked.
    pub processes: Vec<VrrpProcess>,
    /// Files that are tracked.
    pub files: Vec<VrrpFile>,
    /// Name of the director.
    pub name: String,
    /// Ports by name.
    pub ports: Vec<String>,
    /// Leases that instances depend on.
    pub lease: Option<Arc<Lease>>,
    /// Who is master.
    pub cells: Arc<OwnerCells>,
    /// MAC addresses of next hops; `None` in tests.
    pub neighbors: Option<Arc<NeighborCells>>,
    /// Whether other directors' connections are here; `None`: none are to come.
    pub feeds: Option<Arc<Feeds>>,
    /// How long they are waited for.
    pub hold: Duration,
}

impl Plan {
    /// That of what a director runs.
    pub fn of(director: &Director) -> Self {
        let ha = &director.model().ha;
        let links = director.links();
        let lease = ha.lease.clone().map(Arc::new);
        Self {
            instances: ha.vrrp.iter().filter_map(|vrrp| instance(director, vrrp, lease.as_ref())).collect(),
            groups: ha.groups.clone(),
            sessions: ha.bfd.iter().filter_map(|bfd| session(director, bfd)).collect(),
            scripts: ha.scripts.clone(),
            processes: ha.processes.clone(),
            files: ha.files.clone(),
            name: director.model().appliance.name.clone(),
            ports: links.iter().map(|link| link.name.clone()).collect(),
            lease,
            cells: director.owner_cells(),
            neighbors: Some(director.neighbor_cells()),
            feeds: director.feeds().filter(|_| !ha.sync.is_empty()),
            hold: ha.sync.iter().map(|peer| peer.hold).max().unwrap_or_default(),
        }
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.instances.is_empty() && self.sessions.is_empty()
    }
}

fn named(links: &[snapshot::Link], name: &str) -> Option<LinkId> {
    links.iter().position(|link| link.name == name).map(|at| LinkId(at as u16))
}

/// What an instance of this name depends on.
pub fn tenure(groups: &[VrrpGroup], name: &str, lease: &Arc<Lease>) -> Tenure {
    let group = groups.iter().find(|group| group.instances.iter().any(|own| own == name));
    // a group and an instance may have one name
    let unit = group.map_or_else(|| format!("instance/{name}"), |group| format!("group/{}", group.name));
    Tenure { unit, lease: lease.clone() }
}

/// The checks of the configuration make sure that every part is there.
fn instance(director: &Director, vrrp: &Vrrp, lease: Option<&Arc<Lease>>) -> Option<InstancePlan> {
    let links = director.links();
    let id = named(links, &vrrp.port)?;
    let link = links.get(usize::from(id.0))?;
    let mut exit = Exit::new(links, id)?;
    let first = |v6: bool| {
        let own = link.addresses.iter().map(|own| own.addr).filter(move |own| own.is_ipv6() == v6);
        let is_local = |ip: &IpAddr| matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local());
        match v6 {
            false => own.clone().next(),
            // RFC 9568 section 5.1.2.1
            true => Some(own.clone().find(is_local).unwrap_or(link_local(link.mac).into())),
        }
    };
    let v6 = vrrp.is_ipv6();
    let global = || link.addresses.iter().map(|own| own.addr).find(|own| own.is_ipv6() == v6);
    let source = match (&vrrp.source, vrrp.peers.is_empty()) {
        (Some(source), _) => *source,
        (None, true) => first(v6)?,
        // other directors may be in another network
        (None, false) => global().or_else(|| first(v6))?,
    };
    if vrrp.vmac && !vrrp.vmac_xmit_base {
        exit.wire.mac = virtual_mac(vrrp.vrid, v6);
    }
    let place = |vip: &lb_config::VirtualAddress| {
        let mut exit = Exit::new(links, link_of(links, vrrp, vip)?)?;
        if vrrp.vmac {
            exit.wire.mac = virtual_mac(vrrp.vrid, vip.address.is_ipv6());
        }
        Some((vip.address, exit))
    };
    let target = |peer: &lb_config::VrrpPeer| Target {
        address: peer.address,
        neighbor: director.next_hop(peer.address).map(|(_, neighbor)| neighbor),
    };
    Some(InstancePlan {
        vrrp: vrrp.clone(),
        owner: director.owner_of(&vrrp.name)?,
        exit,
        source,
        group: vrrp.multicast_address.unwrap_or(if v6 { GROUP6 } else { GROUP4 }),
        targets: vrrp.peers.iter().map(target).collect(),
        addresses: vrrp.addresses().filter_map(place).collect(),
        tenure: lease.map(|lease| tenure(&director.model().ha.groups, &vrrp.name, lease)),
    })
}

fn session(director: &Director, bfd: &Bfd) -> Option<SessionPlan> {
    let links = director.links();
    let exit = Exit::new(links, named(links, &bfd.port)?)?;
    let neighbor = director.next_hop(bfd.neighbor).map(|(_, neighbor)| neighbor);
    Some(SessionPlan {
        bfd: bfd.clone(),
        exit,
        source: bfd_source(links, bfd)?,
        target: Target { address: bfd.neighbor, neighbor },
    })
}
