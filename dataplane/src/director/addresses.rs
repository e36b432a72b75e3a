//! The director's addresses: VIPs, local ends of full NAT and source NAT, and those of its links.

use std::net::IpAddr;

use hashbrown::HashMap;

use super::context::link_to;
use crate::express::ReplyEnds;
use crate::neighbor::LinkId;
use crate::shards::Shards;
use crate::snapshot::{Link, LocalAddress};

/// All of them, kept as services come and go.
#[derive(Debug, Default)]
pub struct Addresses {
    /// Services of each VIP, local ends of each local address.
    uses: HashMap<IpAddr, [u32; 2]>,
    /// Those that other directors may have, and where they are.
    shared: HashMap<IpAddr, LinkId>,
    /// What snapshots hold.
    pub local: Shards<IpAddr, LocalAddress>,
    /// Likewise: those of local ends.
    pub translated: Shards<IpAddr, ()>,
    /// Likewise: a hint of these.
    pub targets: ReplyEnds,
    /// Those that came, or have another link, since somebody looked.
    pub came: Vec<IpAddr>,
}

/// What an address is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    Vip,
    LocalEnd,
}

impl Addresses {
    /// An address has one more user, or one less.
    pub fn count(&mut self, address: IpAddr, what: Use, more: bool, links: &[Link]) {
        let uses = self.uses.entry(address).or_default();
        let count = &mut uses[what as usize];
        *count = if more { *count + 1 } else { count.saturating_sub(1) };
        match (what, *count, more) {
            (Use::LocalEnd, 1, true) => {
                self.translated.insert(address, ());
                self.targets.add_target(address, self.translated.iter().map(|(address, ())| *address));
            }
            (Use::LocalEnd, 0, false) => {
                self.translated.remove(&address);
            }
            _ => {}
        }
        if *uses == [0; 2] {
            self.uses.remove(&address);
        }
        self.settle(address, links);
    }

    /// The links changed from `old` to `new`.
    pub fn relink(&mut self, old: &[Link], new: &[Link]) {
        let own = old.iter().chain(new).flat_map(|link| link.addresses.iter().map(|own| own.addr));
        let all: Vec<IpAddr> = self.uses.keys().chain(self.shared.keys()).copied().chain(own).collect();
        all.into_iter().for_each(|address| self.settle(address, new));
    }

    /// These are the addresses that other directors may have.
    pub fn share(&mut self, new: impl Iterator<Item = (IpAddr, LinkId)>, links: &[Link]) {
        let old = std::mem::replace(&mut self.shared, new.collect());
        let touched: Vec<IpAddr> = old.keys().chain(self.shared.keys()).copied().collect();
        touched.into_iter().for_each(|address| self.settle(address, links));
        // one that is this director's alone from now on is announced
        self.came.extend(old.into_keys().filter(|address| !self.shared.contains_key(address)));
    }

    fn settle(&mut self, address: IpAddr, links: &[Link]) {
        let own = links.iter().rposition(|link| link.addresses.iter().any(|own| own.addr == address));
        let now = match own {
            _ if self.shared.contains_key(&address) => {
                Some(LocalAddress { link: self.shared.get(&address).copied() })
            }
            Some(at) => Some(LocalAddress { link: Some(LinkId(at as u16)) }),
            None if self.uses.contains_key(&address) => {
                Some(LocalAddress { link: link_to(links, address).map(|(id, _)| id) })
            }
            None => None,
        };
        if self.local.get(&address) == now.as_ref() {
            return;
        }
        match now {
            Some(now) => {
                self.local.insert(address, now);
                self.came.push(address);
            }
            None => {
                self.local.remove(&address);
            }
        }
    }
}
