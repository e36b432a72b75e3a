//! Addresses that one of several directors has at a time, and frames that decide which (VRRP, BFD).
//!
//! Who is master is one bit per virtual router in [`OwnerCells`]: the thread that speaks VRRP writes it, workers read
//! it, so a take-over waits for no snapshot. What the bit means for which address is [`Shared`], a part of the
//! snapshot. While a director is not master of an address it answers no ARP, ND or ping for it, and drops what
//! comes for it ([`DropReason::NotMaster`](crate::DropReason::NotMaster)); connections stay in the tables as they are.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::AcqRel, Ordering::Acquire};

use hashbrown::HashMap;

use crate::io::DeviceId;
use crate::neighbor::LinkId;
use crate::wire::Mac;

/// Number of virtual routers that may be known at once, those just removed included.
pub const MAX_OWNERS: usize = 1024;

const WORDS: usize = MAX_OWNERS / 64;

/// Index of a virtual router.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OwnerId(pub u16);

/// Of which virtual routers this director is master.
#[derive(Debug, Default)]
pub struct OwnerCells {
    /// VRRP's thread: wo, workers and control: ro.
    words: [AtomicU64; WORDS],
}

impl OwnerCells {
    /// Whether this director is master; never of an index past the end.
    #[inline]
    pub fn is_master(&self, id: OwnerId) -> bool {
        let word = self.words.get(usize::from(id.0) / 64);
        word.is_some_and(|word| word.load(Acquire) >> (id.0 % 64) & 1 == 1)
    }

    /// Says whether this director is master from now on.
    pub fn set(&self, id: OwnerId, master: bool) {
        let Some(word) = self.words.get(usize::from(id.0) / 64) else { return };
        let bit = 1 << (id.0 % 64);
        if master {
            word.fetch_or(bit, AcqRel);
        } else {
            word.fetch_and(!bit, AcqRel);
        }
    }
}

/// An address that depends on a virtual router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedAddress {
    /// The virtual router.
    pub owner: OwnerId,
    /// Where the address is.
    pub link: LinkId,
    /// The virtual router's MAC address; `None`: the port's.
    pub mac: Option<Mac>,
    /// Ping to it is answered.
    pub accept: bool,
}

/// A MAC address of a virtual router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VirtualMac {
    /// The virtual router.
    pub owner: OwnerId,
    /// Where it is.
    pub device: DeviceId,
    /// The address.
    pub mac: Mac,
}

/// Frames that go to the control core's fast queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listen {
    /// VRRP: link, whether it is IPv6, number of the virtual router.
    pub vrrp: Vec<(LinkId, bool, u8)>,
    /// BFD: neighbour and own address.
    pub bfd: Vec<(IpAddr, IpAddr)>,
}

/// What of a director's addresses is shared with others.
#[derive(Debug, Default)]
pub struct Shared {
    addresses: HashMap<IpAddr, SharedAddress>,
    macs: Vec<VirtualMac>,
    /// Frames for the control core.
    pub listen: Listen,
    cells: Arc<OwnerCells>,
    /// A bit per virtual router that some address depends on, up to the last word with one.
    used: Vec<u64>,
}

impl Shared {
    /// What virtual routers make of these addresses.
    pub fn new(
        addresses: impl IntoIterator<Item = (IpAddr, SharedAddress)>,
        macs: Vec<VirtualMac>,
        listen: Listen,
        cells: Arc<OwnerCells>,
    ) -> Self {
        let addresses: HashMap<_, _> = addresses.into_iter().collect();
        let mut used = vec![0; WORDS];
        for shared in addresses.values() {
            if let Some(word) = used.get_mut(usize::from(shared.owner.0) / 64) {
                *word |= 1u64 << (shared.owner.0 % 64);
            }
        }
        used.truncate(used.iter().rposition(|word| *word != 0).map_or(0, |last| last + 1));
        Self { addresses, macs, listen, cells, used }
    }

    /// Every shared address.
    pub fn iter(&self) -> impl Iterator<Item = (IpAddr, SharedAddress)> + '_ {
        self.addresses.iter().map(|(address, shared)| (*address, *shared))
    }

    /// What is shared of an address.
    pub fn get(&self, address: IpAddr) -> Option<&SharedAddress> {
        if self.used.is_empty() { None } else { self.addresses.get(&address) }
    }

    /// Whether some address is another director's at present: then packets are looked at for that.
    ///
    /// Cost: a load per 64 virtual routers.
    #[inline]
    pub fn any_absent(&self) -> bool {
        self.used.iter().zip(&self.cells.words).any(|(used, cells)| used & !cells.load(Acquire) != 0)
    }

    /// Whether `address` is another director's at present.
    #[inline]
    pub fn is_absent(&self, address: IpAddr) -> bool {
        self.get(address).is_some_and(|shared| !self.cells.is_master(shared.owner))
    }

    /// Whether ping to `address` is not answered although it is here.
    pub fn is_mute(&self, address: IpAddr) -> bool {
        self.get(address).is_some_and(|shared| !shared.accept)
    }

    /// The MAC address that `address` is at, unless it is the port's.
    pub fn mac(&self, address: IpAddr) -> Option<Mac> {
        self.get(address)?.mac
    }

    /// Whether a frame is to the MAC address of a virtual router of which this director is master.
    #[inline]
    pub fn takes(&self, device: DeviceId, frame: &[u8]) -> bool {
        self.macs
            .iter()
            .any(|own| own.device == device && frame.starts_with(&own.mac) && self.cells.is_master(own.owner))
    }

    /// Whether some virtual router here is interested in adverts with this number.
    pub fn hears_vrrp(&self, link: LinkId, ipv6: bool, vrid: u8) -> bool {
        self.listen.vrrp.contains(&(link, ipv6, vrid))
    }

    /// Whether there is a BFD session between these two.
    pub fn hears_bfd(&self, neighbor: IpAddr, own: IpAddr) -> bool {
        !self.listen.bfd.is_empty() && self.listen.bfd.contains(&(neighbor, own))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared(owner: u16) -> SharedAddress {
        SharedAddress { owner: OwnerId(owner), link: LinkId(0), mac: None, accept: true }
    }

    #[test]
    fn an_address_is_here_while_its_owner_is_master() {
        let cells = Arc::new(OwnerCells::default());
        let (a, b, other): (IpAddr, IpAddr, IpAddr) =
            ("10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let all =
            Shared::new([(a, shared(3)), (b, shared(700))], Vec::new(), Listen::default(), cells.clone());
        assert!(all.any_absent() && all.is_absent(a) && all.is_absent(b) && !all.is_absent(other));
        cells.set(OwnerId(3), true);
        assert!(all.any_absent() && !all.is_absent(a) && all.is_absent(b));
        cells.set(OwnerId(700), true);
        assert!(!all.any_absent() && !all.is_absent(b));
        cells.set(OwnerId(3), false);
        assert!(all.any_absent() && all.is_absent(a));
        cells.set(OwnerId(u16::MAX), true);
        assert!(!cells.is_master(OwnerId(u16::MAX)));
    }

    #[test]
    fn a_virtual_mac_is_taken_by_the_master_alone() {
        let cells = Arc::new(OwnerCells::default());
        let mac = [0, 0, 0x5e, 0, 1, 7];
        let own = VirtualMac { owner: OwnerId(0), device: DeviceId(1), mac };
        let all = Shared::new([], vec![own], Listen::default(), cells.clone());
        assert!(!all.takes(DeviceId(1), &mac));
        cells.set(OwnerId(0), true);
        assert!(
            all.takes(DeviceId(1), &mac) && !all.takes(DeviceId(0), &mac) && !all.takes(DeviceId(1), &[0; 6])
        );
    }
}
