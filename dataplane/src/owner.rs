//! Addresses that one of several directors has at a time, and frames that decide which (VRRP, BFD).
//!
//! Who is master is one bit per virtual router in [`OwnerCells`]: the thread that speaks VRRP writes it, workers read
//! it, so a take-over waits for no snapshot. What the bit means for which address is [`Shared`], a part of the
//! snapshot. While a director is not master of an address it answers no ARP, ND or ping for it, and drops what
//! comes for it ([`DropReason::NotMaster`](crate::DropReason::NotMaster)); connections stay in the tables as they are.
//!
//! The bits of a process that was stopped, or of a frozen machine, are old: another director may be master by now. A
//! worker that finds that it was held up takes no frames before the thread has looked at its clock ([`HELD_UP_NS`]).

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::AcqRel, Ordering::Acquire, Ordering::Release};

use hashbrown::HashMap;

use crate::io::DeviceId;
use crate::neighbor::LinkId;
use crate::wire::Mac;

/// Number of virtual routers that may be known at once, those just removed included.
pub const MAX_OWNERS: usize = 1024;

/// A worker whose turns are so far apart was held up, ns: less than the shortest time in which another director takes
/// over (BFD with 3 x 10 ms, the last packet sent up to 10 ms before), far more than a worker's rest.
pub const HELD_UP_NS: u64 = 15_000_000;

const WORDS: usize = MAX_OWNERS / 64;

/// Index of a virtual router.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OwnerId(pub u16);

/// Of which virtual routers this director is master.
#[derive(Debug, Default)]
pub struct OwnerCells {
    /// VRRP's thread: wo, workers and control: ro.
    words: [AtomicU64; WORDS],
    /// Times that a worker was held up. Workers: rw, VRRP's thread: ro.
    doubts: AtomicU64,
    /// How many of them the thread knew when it looked at its clock last. VRRP's thread: wo, workers: ro.
    settled: AtomicU64,
    /// The thread runs. VRRP's thread: wo, workers: ro.
    attended: AtomicBool,
}

impl OwnerCells {
    /// Times that a worker was held up: to be asked for before the clock is looked at.
    pub fn doubts(&self) -> u64 {
        self.doubts.load(Acquire)
    }

    /// The bits are right again, as of when there were `doubts`; from now on workers wait for that.
    pub fn settle(&self, doubts: u64) {
        self.settled.store(doubts, Release);
        self.attended.store(true, Release);
    }

    /// Nobody looks after the bits any more: workers wait for nobody.
    pub fn leave(&self) {
        self.attended.store(false, Release);
    }

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

    /// Whether any address is shared.
    #[inline]
    pub fn is_used(&self) -> bool {
        !self.used.is_empty()
    }

    /// A worker was held up: what the bits say is doubtful until VRRP's thread has looked.
    #[cold]
    pub fn doubt(&self) {
        if !self.used.is_empty() && self.cells.attended.load(Acquire) {
            self.cells.doubts.fetch_add(1, AcqRel);
        }
    }

    /// Whether frames have to wait, as the bits may be old.
    ///
    /// Cost: two loads of a line that is written once in a millisecond, and only where virtual routers are.
    #[inline]
    pub fn is_doubtful(&self) -> bool {
        !self.used.is_empty()
            && self.cells.doubts.load(Acquire) != self.cells.settled.load(Acquire)
            && self.cells.attended.load(Acquire)
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
    fn bits_are_doubtful_until_the_thread_has_looked_again() {
        let cells = Arc::new(OwnerCells::default());
        let all = Shared::new(
            [("10.0.0.1".parse().unwrap(), shared(3))],
            Vec::new(),
            Listen::default(),
            cells.clone(),
        );
        // nobody looks after them
        all.doubt();
        assert!(!all.is_doubtful());
        cells.settle(cells.doubts());
        assert!(!all.is_doubtful());
        // the thread had begun to look before it was stopped
        let early = cells.doubts();
        all.doubt();
        cells.settle(early);
        assert!(all.is_doubtful());
        cells.settle(cells.doubts());
        assert!(!all.is_doubtful());
        all.doubt();
        cells.leave();
        assert!(!all.is_doubtful());
        // without shared addresses there is no doubt
        let none = Shared::new([], Vec::new(), Listen::default(), cells.clone());
        cells.settle(cells.doubts());
        none.doubt();
        assert!(!none.is_doubtful());
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
