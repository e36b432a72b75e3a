//! Addresses that other directors may have: virtual routers of the configuration in the packet path's terms.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use lb_config::{Bfd, Model, Vrrp};

use super::Director;
use crate::channel::Channel;
use crate::exception::Kernel;
use crate::neighbor::{LinkId, NeighborBook, NeighborCells, NeighborId};
use crate::owner::{Listen, MAX_OWNERS, OwnerCells, OwnerId, Shared, SharedAddress, VirtualMac};
use crate::snapshot::{Link, Route};
use crate::wire::Mac;

/// Indices of virtual routers, stable while they are configured under their names.
#[derive(Debug, Default)]
pub(super) struct Owners {
    ids: HashMap<String, OwnerId>,
    next: u16,
    pub cells: Arc<OwnerCells>,
}

impl Owners {
    /// Takes the names of `model` over. An index of one that is gone is not used again soon: its thread may still
    /// write to its cell.
    fn follow(&mut self, model: &Model) {
        let instances = &model.ha.vrrp;
        self.ids.retain(|name, _| instances.iter().any(|vrrp| vrrp.name == *name));
        for vrrp in instances {
            if self.ids.contains_key(&vrrp.name) {
                continue;
            }
            // there are fewer instances than indices, so one is free
            while self.ids.values().any(|id| id.0 == self.next) {
                self.next = (self.next + 1) % MAX_OWNERS as u16;
            }
            self.ids.insert(vrrp.name.clone(), OwnerId(self.next));
            self.next = (self.next + 1) % MAX_OWNERS as u16;
        }
    }
}

/// The MAC address of a virtual router. Source: RFC 9568 section 7.3.
pub fn virtual_mac(vrid: u8, ipv6: bool) -> Mac {
    [0, 0, 0x5e, 0, if ipv6 { 2 } else { 1 }, vrid]
}

/// The link-local address made from a MAC address. Source: RFC 4291 appendix A.
pub fn link_local([a, b, c, d, e, f]: Mac) -> Ipv6Addr {
    let word = |high: u8, low: u8| u16::from_be_bytes([high, low]);
    Ipv6Addr::new(0xfe80, 0, 0, 0, word(a ^ 2, b), word(c, 0xff), word(0xfe, d), word(e, f))
}

fn link_named(links: &[Link], name: &str) -> Option<LinkId> {
    links.iter().position(|link| link.name == name).map(|at| LinkId(at as u16))
}

/// Where an address of an instance is: as it says, else in whose network it is, else with the instance.
pub fn link_of(links: &[Link], vrrp: &Vrrp, vip: &lb_config::VirtualAddress) -> Option<LinkId> {
    if let Some(port) = &vip.port {
        return link_named(links, port);
    }
    let own = link_named(links, &vrrp.port);
    let contains = |link: &Link| link.addresses.iter().any(|network| network.contains(vip.address));
    let at_own = own.and_then(|id| links.get(usize::from(id.0))).is_some_and(contains);
    let network = links.iter().position(contains).map(|at| LinkId(at as u16));
    if at_own { own } else { network.or(own) }
}

/// The director's address towards a BFD neighbour.
pub fn bfd_source(links: &[Link], bfd: &Bfd) -> Option<IpAddr> {
    let link = link_named(links, &bfd.port).and_then(|id| links.get(usize::from(id.0)))?;
    bfd.source.or_else(|| {
        link.addresses.iter().find(|network| network.contains(bfd.neighbor)).map(|network| network.addr)
    })
}

/// What is shared by `model` over `links`.
pub(super) fn shared(model: &Model, links: &[Link], owners: &mut Owners) -> Shared {
    owners.follow(model);
    let (mut addresses, mut macs, mut listen) = (Vec::new(), Vec::new(), Listen::default());
    for vrrp in &model.ha.vrrp {
        let Some(owner) = owners.ids.get(&vrrp.name).copied() else { continue };
        let Some(own) = link_named(links, &vrrp.port) else { continue };
        listen.vrrp.push((own, vrrp.is_ipv6(), vrrp.vrid));
        for vip in vrrp.addresses() {
            let Some(link) = link_of(links, vrrp, vip) else { continue };
            let mac = vrrp.vmac.then(|| virtual_mac(vrrp.vrid, vip.address.is_ipv6()));
            addresses.push((vip.address, SharedAddress { owner, link, mac, accept: vrrp.accept }));
            let device = links.get(usize::from(link.0)).map(|link| link.device);
            if let (Some(mac), Some(device)) = (mac, device) {
                let mac = VirtualMac { owner, device, mac };
                if !macs.contains(&mac) {
                    macs.push(mac);
                }
            }
        }
    }
    for bfd in &model.ha.bfd {
        listen.bfd.extend(bfd_source(links, bfd).map(|own| (bfd.neighbor, own)));
    }
    Shared::new(addresses, macs, listen, owners.cells.clone())
}

/// Other directors on connected networks: their MAC addresses are asked for. Where the neighbour table has no room for
/// one, its frames wait until it speaks first.
pub(super) fn friends(model: &Model, links: &[Link], book: &mut NeighborBook) -> HashSet<NeighborId> {
    let peers =
        model.ha.vrrp.iter().flat_map(|vrrp| vrrp.peers.iter().map(|peer| (&vrrp.port, peer.address)));
    let sessions = model.ha.bfd.iter().map(|bfd| (&bfd.port, bfd.neighbor));
    let mut friends = HashSet::new();
    for (port, address) in peers.chain(sessions) {
        let Some(id) = link_named(links, port) else { continue };
        let connected = |link: &Link| link.addresses.iter().any(|network| network.contains(address));
        if links.get(usize::from(id.0)).is_some_and(connected) {
            friends.extend(book.intern(id, address).ok());
        }
    }
    friends
}

impl Director {
    /// The next hop of another director, and the cells that hold its MAC address.
    pub fn next_hop(&self, address: IpAddr) -> Option<(LinkId, NeighborId)> {
        match self.running.route(address) {
            Route::Via(link, neighbor) => Some((link, neighbor)),
            Route::Stranger(_) | Route::None => None,
        }
    }

    /// MAC addresses of next hops.
    pub fn neighbor_cells(&self) -> Arc<NeighborCells> {
        self.running.cells.clone()
    }

    /// The bits that say of which virtual routers this director is master.
    pub fn owner_cells(&self) -> Arc<OwnerCells> {
        self.owners.cells.clone()
    }

    /// The index of a virtual router.
    pub fn owner_of(&self, instance: &str) -> Option<OwnerId> {
        self.owners.ids.get(instance).copied()
    }

    /// The queues of frames that must not wait.
    pub fn channel(&self) -> Channel {
        Channel::new(self.mailboxes.clone())
    }

    /// The queues of frames to and from the kernel.
    pub fn kernel(&self) -> Kernel {
        Kernel::new(self.mailboxes.clone(), self.setup.clone())
    }

    /// The ports as the packet path has them.
    pub fn links(&self) -> &[Link] {
        &self.running.links
    }
}
