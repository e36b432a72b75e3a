//! What a worker has worked out for the packets of one destination by direct routing or tunnel, kept where it counts
//! them.
//!
//! Such a packet then reads one cache line of its destination's: MAC addresses that are ready to be written, and a stamp
//! that stands for all that destinations share, a [`Class`]. A stamp is given once: when the snapshot or a next hop
//! changes, all that were given before are of the past, and what they stand beside is worked out anew where a packet
//! next needs it. Invariant: a stamp that is valid stands beside what the snapshot and the next hops say now.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use arrayvec::ArrayVec;
use zerocopy::FromZeros;

use super::ends::raw_mac;
use super::step::Settled;
use crate::conn::{Meta, Tick};
use crate::counters::WorkerCounters;
use crate::ids::DestId;
use crate::io::DeviceId;
use crate::snapshot::{Snapshot, Way};

/// Both MAC addresses as they lie in a frame, and behind them the stamp. Worker: rw, nobody else.
#[derive(Default, FromZeros)]
#[repr(C)]
pub struct Shortcut {
    first: AtomicU64,
    second: AtomicU32,
    stamp: AtomicU32,
}

impl std::fmt::Debug for Shortcut {
    /// Nothing that differs: it is no count.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shortcut")
    }
}

impl Shortcut {
    /// Bytes 0 to 7 of a frame and bytes 8 to 11.
    #[inline(always)]
    pub(super) fn macs(&self) -> (u64, u32) {
        (self.first.load(Relaxed), self.second.load(Relaxed))
    }

    /// What it is worth: see [`Shortcuts::class`].
    #[inline(always)]
    pub(super) fn stamp(&self) -> u32 {
        self.stamp.load(Relaxed)
    }

    /// Only the owning worker may call it.
    fn set(&self, (first, second): (u64, u32), stamp: u32) {
        self.first.store(first, Relaxed);
        self.second.store(second, Relaxed);
        self.stamp.store(stamp, Relaxed);
    }
}

/// What destinations have in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Class {
    pub stamp: u32,
    /// Where their frames leave.
    pub device: DeviceId,
    /// Largest IP packet, bytes; 0: they are not reached by other MAC addresses alone, or not now.
    pub mtu: u32,
    /// Largest IP packet that fits into their tunnels, which carry no checksums over it; 0: they are not reached by
    /// such, or not now.
    pub inner_mtu: u32,
    /// Index of their timeouts.
    timeouts: u16,
    /// What the word of a settled connection is after a packet of TCP, of UDP.
    pub tcp: Meta,
    pub udp: Meta,
}

impl Class {
    /// Of no destination: a stamp that is never given, nor 0, which is where none was.
    pub const NONE: Self = Self {
        stamp: u32::MAX,
        device: DeviceId(u16::MAX),
        mtu: 0,
        inner_mtu: 0,
        timeouts: 0,
        tcp: Meta::EMPTY,
        udp: Meta::EMPTY,
    };
}

/// Classes that a worker tells apart; destinations of further ones go the other way.
const CLASSES: usize = 64;

/// The stamps that are valid.
#[derive(Debug)]
pub(crate) struct Shortcuts {
    /// Generation of the snapshot and version of the next hops that they stand for.
    seen: (u64, u64),
    /// Stamp of the first class; the others follow.
    base: u32,
    /// The first one is that of all destinations that are reached otherwise.
    classes: ArrayVec<Class, CLASSES>,
    now: Tick,
}

/// The first stamp that no worker of some counters has given yet; there may be more than one, one after the other.
/// Worker: rw, nobody else.
#[derive(Debug, Default)]
pub struct NextStamp(AtomicU32);

impl Shortcuts {
    /// None.
    pub fn new() -> Self {
        Self { seen: (u64::MAX, u64::MAX), base: 0, classes: ArrayVec::new(), now: Tick::from_ns(0) }
    }

    /// To be called at the beginning of every burst.
    #[inline(always)]
    pub fn refresh(&mut self, snapshot: &Snapshot, counters: &WorkerCounters, now: Tick) {
        // the version before the cells, so that a change in between is seen the next time
        if self.seen != (snapshot.generation, snapshot.cells.version()) {
            self.begin(snapshot, counters);
        }
        if self.now != now {
            self.now = now;
            self.classes.iter_mut().for_each(|class| class.settle(snapshot, now));
        }
    }

    /// All stamps are of the past.
    #[cold]
    #[inline(never)]
    fn begin(&mut self, snapshot: &Snapshot, counters: &WorkerCounters) {
        self.seen = (snapshot.generation, snapshot.cells.version());
        self.classes.clear();
        let mut next = counters.next_stamp.0.load(Relaxed);
        if next > u32::MAX - 2 * CLASSES as u32 {
            // every 2^32 stamps: whatever carries one is made to forget it
            counters.dests.iter().for_each(|dest| dest.shortcut.set((0, 0), 0));
            next = 0;
        }
        // 0 is never given
        self.base = next.max(1);
        counters.next_stamp.0.store(self.base + CLASSES as u32, Relaxed);
        self.classes.push(Class { stamp: self.base, ..Class::NONE });
    }

    /// The stamp of what goes otherwise.
    #[inline(always)]
    pub fn otherwise(&self) -> u32 {
        self.base
    }

    /// The class of a stamp that is valid.
    #[inline(always)]
    pub fn class(&self, stamp: u32) -> Option<&Class> {
        self.classes.get(stamp.wrapping_sub(self.base) as usize)
    }

    /// The class of a destination that has this stamp; it has a valid one afterwards.
    #[inline(never)]
    pub fn class_of(
        &mut self,
        stamp: u32,
        snapshot: &Snapshot,
        counters: &WorkerCounters,
        dest: DestId,
    ) -> Option<Class> {
        self.class(stamp).copied().or_else(|| self.work_out(snapshot, counters, dest))
    }

    fn work_out(&mut self, snapshot: &Snapshot, counters: &WorkerCounters, dest: DestId) -> Option<Class> {
        let counted = counters.dests.get(dest.0 as usize)?;
        let entry = snapshot.dest(dest).filter(|entry| !entry.removed && entry.vlan == 0);
        let ready = entry.and_then(|entry| Some((entry, snapshot.cells.known(entry.neighbor)?)));
        let class = ready.and_then(|(entry, dst)| {
            let (mtu, inner_mtu) = match entry.way {
                Way::Dr => (u32::from(entry.mtu), 0),
                Way::Tunnel(at) if !snapshot.tunnels.get(usize::from(at))?.sums() => {
                    (0, u32::from(entry.mtu))
                }
                Way::Nat | Way::Tunnel(_) | Way::FullNat(_) | Way::Snat(_) => return None,
            };
            let (device, timeouts) = (entry.device, entry.timeouts);
            let class = self.common(snapshot, Class { device, mtu, inner_mtu, timeouts, ..Class::NONE })?;
            let src = raw_mac(entry.mac);
            counted.shortcut.set((dst | src << 48, (src >> 16) as u32), class.stamp);
            Some(class)
        });
        class.or_else(|| {
            counted.shortcut.set((0, 0), self.base);
            self.classes.first().copied()
        })
    }

    /// The class that is like this one but for its stamp; `None`: there is no room for another.
    fn common(&mut self, snapshot: &Snapshot, new: Class) -> Option<Class> {
        let of = |class: &Class| (class.device, class.mtu, class.inner_mtu, class.timeouts);
        if let Some(class) = self.classes.iter().skip(1).find(|class| of(class) == of(&new)) {
            return Some(*class);
        }
        let mut class = Class { stamp: self.base + self.classes.len() as u32, ..new };
        class.settle(snapshot, self.now);
        self.classes.try_push(class).ok()?;
        Some(class)
    }
}

impl Class {
    /// Works out the words.
    fn settle(&mut self, snapshot: &Snapshot, now: Tick) {
        let Some(timeouts) = snapshot.timeouts.get(usize::from(self.timeouts)) else { return };
        let Settled { tcp, udp, .. } = Settled::new(self.timeouts, timeouts, now);
        (self.tcp, self.udp) = (tcp, udp);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::director::Director;
    use crate::setup::DeviceSetup;

    #[test]
    fn no_stamp_of_the_past_is_valid_nor_another_workers() {
        let text = "[appliance]\nworkers = [0]\n[[ports]]\nname = \"lan\"\ndevice = \"null\"\naddresses = [\"10.0.0.1/24\"]\n";
        let model = lb_config::parse(text).unwrap();
        let setup = vec![DeviceSetup { mac: [2; 6], rss: true }];
        let (_director, seeds) = Director::new(&model, setup).unwrap();
        let (snapshot, counters) = (&seeds[0].snapshot, &seeds[0].counters[0]);
        let mut first = Shortcuts::new();
        first.refresh(snapshot, counters, Tick::from_ns(0));
        let dest = DestId(3);
        let class = first.class_of(0, snapshot, counters, dest).unwrap();
        assert_eq!((class.stamp, class.mtu, class.inner_mtu), (first.otherwise(), 0, 0), "it does not exist");
        assert_eq!(counters.dests[3].shortcut.stamp(), first.otherwise());
        // a worker that takes over the counters
        let mut second = Shortcuts::new();
        second.refresh(snapshot, counters, Tick::from_ns(0));
        assert!(second.class(first.otherwise()).is_none() && first.class(second.otherwise()).is_none());
        assert!(second.class(0).is_none() && second.class(Class::NONE.stamp).is_none());
        // when all stamps have been given they begin anew, and nothing carries one
        counters.dests[3].shortcut.set((7, 8), 1);
        counters.next_stamp.0.store(u32::MAX - CLASSES as u32, Relaxed);
        let mut third = Shortcuts::new();
        third.refresh(snapshot, counters, Tick::from_ns(0));
        assert_eq!((third.otherwise(), counters.dests[3].shortcut.stamp()), (1, 0));
    }
}
