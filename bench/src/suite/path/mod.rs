//! Suite `path`: what a packet costs in the packet path, in memory, by forwarding, family and connections.
//!
//! The cost of making frames (the floor) is measured in the same rounds and subtracted; both are shown.

use std::time::Instant;

use crate::context::Context;
use crate::stats::Series;

mod first;
mod goals;
mod hits;
mod lives;

/// ns per packet that others published or that were measured before, see the notes of the report.
mod published {
    /// Katran's XDP program on a machine of this kind, established flows: connections and ns per packet.
    pub const KATRAN: [(f64, f64); 5] = [(1.0, 73.0), (1e3, 92.0), (1e5, 351.0), (1e6, 431.0), (8e6, 700.0)];
    /// Its first packets, ns.
    pub const KATRAN_FIRST: f64 = 485.0;
    /// Linux IPVS, direct routing, over plain forwarding of the same kernel.
    pub const IPVS: [(f64, f64); 3] = [(1.0, 226.0), (1e3, 326.0), (6.4e4, 670.0)];
    /// DPVS, full NAT: TCP connections a second of one worker, millions.
    pub const DPVS_LIVES: f64 = 0.2;
    /// DPVS, full NAT: UDP packets of one worker, ns, receiving and sending included.
    pub const DPVS_FULL_NAT: f64 = 345.0;
    /// Concury's algorithm alone, 66 Mpps on one thread; it stores no keys.
    pub const CONCURY: [(f64, f64); 2] = [(1e6, 15.2), (1.6e7, 15.2)];
}

/// Runs the suite.
pub fn run(context: &mut Context) -> anyhow::Result<()> {
    context.note(
        "TCP segments without payload (60 bytes over IPv4, 74 over IPv6), bursts of 32, unique flows of random addresses and \
         ports, 16 servers, census before timing. Hot: 512 buffers; cold: 100 k. Zipf: flows come by Zipf's law, s = 1.1. \
         A repetition is the median of slices of 51 k packets; ns per packet are minimum / median of the repetitions; \"net\" is the minimum less the floor, which is making the frames and is measured \
         in the same rounds. Cold figures are less the floor of hot buffers, so that all that cold buffers cost counts.",
    );
    context.note(
        "(p): Katran's XDP program with its own LRU, template cost subtracted, and Linux IPVS 6.1 over plain forwarding, both \
         measured before on machines of this kind; Concury's algorithm alone as in its paper (SoCC 2020).",
    );
    let lines = hits::run(context)?;
    goals::reached(context, &lines)?;
    goals::plots(context, &lines);
    first::run(context)?;
    lives::run(context)
}

/// Packets of a slice: some ms, so that most slices are free of interruptions; whole bursts.
const SLICE: u64 = 51_200;

/// ns per packet of `slices` slices of work, the median: one that was interrupted does not count.
fn sliced(slices: u64, mut work: impl FnMut(u64)) -> f64 {
    (0..slices).map(|_| timed(SLICE, || work(SLICE))).collect::<Series>().median()
}

/// ns per unit of `n` units of work.
fn timed(n: u64, work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_nanos() as f64 / n as f64
}
