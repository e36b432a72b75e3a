//! The first pass over plain packets of a family that are not all calm: handshakes and ends among others.

use std::marker::PhantomData;

use super::ends::Ends;
use super::glance::place;
use super::see::{Gate, IPV4, IPV6, TRAFFIC_CLASS};
use super::{Burden, Kind, Seen};
use crate::conn::simd::Level;
use crate::io::{Burst, Packet, PacketIo};
use crate::wide::Work;
use crate::worker::Worker;

/// So many calm packets in a row are a run, which is seen for less alone.
const RUN: u32 = 4;

/// Plain packets of a burst from place `from` on, as far as they are of a family and of the gate's device. `MORE`: the
/// burst has a burden.
struct Note<'a, I: PacketIo, K, const MORE: bool> {
    worker: &'a mut Worker<I>,
    burst: &'a Burst<I::Packet>,
    burden: &'a Burden,
    gate: &'a Gate,
    from: usize,
    family: PhantomData<K>,
}

impl<I: PacketIo, K: Ends, const MORE: bool> Work for Note<'_, I, K, MORE> {
    /// Where they end, and their bytes.
    type Out = (usize, u64);

    #[inline(always)]
    fn run<L: Level>(self, _: L) -> (usize, u64) {
        let Self { worker, burst, burden, gate, from, .. } = self;
        let (table, _) = K::tables_ref(&worker.tables);
        let prober = table.prober();
        let (_, batch) = K::batch_mut(&mut worker.board);
        let frames = burst.get(from..).unwrap_or_default();
        let (mut count, mut bytes, mut in_a_row) = (0, 0, 0);
        for (frame, row) in frames.iter().zip(&mut batch.rows[place(from)..]) {
            if MORE && burden.mixed && frame.device() != gate.device {
                break;
            }
            let head = frame.bytes();
            let is_kind = match (K::KIND, gate.kind(head)) {
                (Kind::V4, found) => found == IPV4,
                (_, found) => found & !TRAFFIC_CLASS == IPV6,
            };
            if !is_kind {
                break;
            }
            let Some((key, noted)) = K::glance(head) else { break };
            bytes += frame.frame_len() as u64;
            let probe = prober.probe(&key, noted.number());
            if !MORE {
                prober.prefetch(probe);
            }
            (row.key, row.noted, row.probe) = (key, noted, probe);
            count += 1;
            in_a_row = if noted.is_calm() { in_a_row + 1 } else { 0 };
            if in_a_row == RUN {
                break;
            }
        }
        (from + count, bytes)
    }
}

impl<I: PacketIo> Worker<I> {
    /// Plain frames of a family from `from` on, calm or not, to the end of a [`RUN`] of calm ones: their flows, whose
    /// connections are asked for, or their owners. Returns where they end; they are of the gate's device.
    #[inline(always)]
    pub(super) fn note_run<K: Ends>(
        &mut self,
        burst: &Burst<I::Packet>,
        burden: &Burden,
        gate: &Gate,
        seen: &mut Seen,
        from: usize,
    ) -> usize {
        let (wide, more) = (self.wide, burden.is_any());
        let (worker, family) = (self, PhantomData);
        let (to, bytes) = if more {
            wide.run(Note::<I, K, true> { worker: &mut *worker, burst, burden, gate, from, family })
        } else {
            wide.run(Note::<I, K, false> { worker: &mut *worker, burst, burden, gate, from, family })
        };
        seen.bytes += bytes;
        let (kinds, _) = K::batch_mut(&mut worker.board);
        kinds.get_mut(from..to).unwrap_or_default().fill(K::KIND);
        worker.note_burden::<K>(burst, burden, seen, (from, to));
        to
    }
}
