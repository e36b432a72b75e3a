//! What workers see of next hops: one word each, shared with the control core.

use std::sync::atomic::{AtomicU64, Ordering};

use super::NeighborId;
use crate::wire::Mac;

/// Where frames for a next hop go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// To this station.
    Resolved(Mac),
    /// Not known yet: they wait.
    Pending,
    /// Nowhere: it does not answer.
    Failed,
}

/// Above the 48 bits of the address: 0 pending, 1 resolved, 2 failed.
const RESOLVED: u64 = 1 << 48;
const FAILED: u64 = 2 << 48;

impl Resolution {
    fn to_bits(self) -> u64 {
        match self {
            Resolution::Pending => 0,
            Resolution::Failed => FAILED,
            Resolution::Resolved([a, b, c, d, e, f]) => {
                RESOLVED | u64::from_be_bytes([0, 0, a, b, c, d, e, f])
            }
        }
    }

    #[inline]
    fn from_bits(bits: u64) -> Self {
        let [_, tag, a, b, c, d, e, f] = bits.to_be_bytes();
        match tag {
            1 => Resolution::Resolved([a, b, c, d, e, f]),
            2 => Resolution::Failed,
            _ => Resolution::Pending,
        }
    }
}

/// The outcome of resolution by [`NeighborId`]. Control: wo, workers: ro.
#[derive(Debug)]
pub struct NeighborCells {
    cells: Box<[AtomicU64]>,
    /// Number of changes so far.
    version: AtomicU64,
}

impl NeighborCells {
    /// `capacity` cells, all pending.
    pub(super) fn new(capacity: usize) -> Self {
        Self { cells: crate::counters::zeroed(capacity), version: AtomicU64::new(0) }
    }

    /// Number of cells.
    pub fn capacity(&self) -> usize {
        self.cells.len()
    }

    /// Where frames for `id` go; [`Resolution::Failed`] for an index that the book cannot have given out.
    #[inline]
    pub fn mac(&self, id: NeighborId) -> Resolution {
        match self.cells.get(id.0 as usize) {
            Some(cell) => Resolution::from_bits(cell.load(Ordering::Relaxed)),
            None => Resolution::Failed,
        }
    }

    /// The MAC address of `id` as its six bytes lie in memory, if it is known.
    #[inline(always)]
    pub(crate) fn known(&self, id: NeighborId) -> Option<u64> {
        self.view().known(id)
    }

    /// The same to be read many times.
    #[inline(always)]
    pub(crate) fn view(&self) -> View<'_> {
        View(&self.cells)
    }

    /// Changes whenever a cell does: a worker with waiting frames looks at them again only then.
    ///
    /// Who reads it before the cells sees at least the cells of that version.
    #[inline]
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Changes a cell; `true`: its value is another than before.
    pub(super) fn set(&self, id: NeighborId, resolution: Resolution) -> bool {
        let Some(cell) = self.cells.get(id.0 as usize) else { return false };
        let bits = resolution.to_bits();
        // the only writer, so load and store need not be one step
        if cell.load(Ordering::Relaxed) == bits {
            return false;
        }
        cell.store(bits, Ordering::Relaxed);
        self.version.fetch_add(1, Ordering::Release);
        true
    }
}

/// The cells, which need not be looked for.
#[derive(Clone, Copy)]
pub(crate) struct View<'a>(&'a [AtomicU64]);

impl View<'_> {
    /// As [`NeighborCells::known`].
    #[inline(always)]
    pub fn known(&self, id: NeighborId) -> Option<u64> {
        let bits = self.0.get(id.0 as usize)?.load(Ordering::Relaxed);
        (bits >> 48 == RESOLVED >> 48).then(|| bits.swap_bytes() >> 16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_resolution_survives_its_cell() {
        let cells = NeighborCells::new(2);
        let id = NeighborId(1);
        assert_eq!(cells.mac(id), Resolution::Pending);
        for mac in [[0; 6], [0xff; 6], [2, 0, 0, 0, 1, 0x0b]] {
            assert!(cells.set(id, Resolution::Resolved(mac)));
            assert_eq!(cells.mac(id), Resolution::Resolved(mac));
        }
        assert!(cells.set(id, Resolution::Failed));
        assert_eq!(cells.mac(id), Resolution::Failed);
        assert_eq!(cells.mac(NeighborId(0)), Resolution::Pending, "another cell");
    }

    #[test]
    fn the_version_counts_changes_and_nothing_else() {
        let cells = NeighborCells::new(1);
        let before = cells.version();
        assert!(!cells.set(NeighborId(0), Resolution::Pending));
        assert_eq!(cells.version(), before);
        assert!(cells.set(NeighborId(0), Resolution::Failed));
        assert_ne!(cells.version(), before);
    }

    #[test]
    fn an_index_that_was_never_given_out_has_failed() {
        let cells = NeighborCells::new(1);
        assert!(!cells.set(NeighborId(1), Resolution::Pending));
        assert_eq!(cells.mac(NeighborId(1)), Resolution::Failed);
    }
}
