//! The configuration of VRRP and BFD, with everything that the director knows about it looked up.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use lb_config::{Bfd, Vrrp, VrrpFile, VrrpGroup, VrrpProcess, VrrpScript};
use lb_dataplane::director::{Director, bfd_source, link_local, link_of, virtual_mac};
use lb_dataplane::io::DeviceId;
use lb_dataplane::neighbor::{LinkId, NeighborCells, NeighborId};
use lb_dataplane::owner::{OwnerCells, OwnerId};
use lb_dataplane::snapshot;
use lb_dataplane::sync::Feeds;
use lb_dataplane::wire::Link;

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
    /// Ports by name.
    pub ports: Vec<String>,
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
        Self {
            instances: ha.vrrp.iter().filter_map(|vrrp| instance(director, vrrp)).collect(),
            groups: ha.groups.clone(),
            sessions: ha.bfd.iter().filter_map(|bfd| session(director, bfd)).collect(),
            scripts: ha.scripts.clone(),
            processes: ha.processes.clone(),
            files: ha.files.clone(),
            ports: links.iter().map(|link| link.name.clone()).collect(),
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

/// The checks of the configuration make sure that every part is there.
fn instance(director: &Director, vrrp: &Vrrp) -> Option<InstancePlan> {
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
