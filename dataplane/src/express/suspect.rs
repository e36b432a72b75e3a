//! Between the first pass and direct routing without a second one: where keys lie beside the line that says which of
//! them it may be, the key of each packet's connection is asked for, and its place remembered.
//!
//! DR over IPv6, 1,000,000 flows: 38 ns instead of 69; 1000 flows: half a nanosecond more.

use super::ends::Ends;
use super::glance::Row;
use crate::conn::Prober;
use crate::conn::simd::Level;
use crate::io::PacketIo;
use crate::wide::Work;
use crate::worker::Worker;

/// Rows of packets whose lines have had time to come.
struct Suspects<'a, K: Ends> {
    prober: Prober<'a, K>,
    rows: &'a mut [Row<K>],
}

impl<K: Ends> Work for Suspects<'_, K> {
    type Out = ();

    #[inline(always)]
    fn run<L: Level>(self, level: L) {
        for row in self.rows {
            let Some(place) = self.prober.suspect(level, &row.key, row.noted.number(), row.probe) else {
                break;
            };
            row.found.set_place(place);
        }
    }
}

impl<I: PacketIo> Worker<I> {
    /// Asks for the keys of the first packets of a burst, which are compared next.
    #[inline(never)]
    pub(super) fn suspect<K: Ends>(&mut self, frames: usize) {
        let Self { tables, board, wide, .. } = self;
        let (table, _) = K::tables_ref(tables);
        let (_, batch) = K::batch_mut(board);
        wide.run(Suspects { prober: table.prober(), rows: batch.rows.get_mut(..frames).unwrap_or_default() });
    }
}
