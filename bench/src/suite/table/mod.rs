//! Suite `table`: the connection table by itself, beside DPDK's `rte_hash` with the same keys in the same run.

mod capacity;
mod keys;
mod lookup;
mod upkeep;

use std::sync::Arc;
use std::time::Instant;

use anyhow::ensure;
use lb_dataplane::conn::memory::Lender;
use lb_dataplane::conn::{Key4, Meta, Probe, Table, TableKey, Tick};
use lb_dataplane::ids::DestId;
use lb_dataplane::state::State;
use lb_dpdk::TableMemory;

use crate::context::Context;
use crate::stats::Series;
use keys::{Made, SECRET, TCP};

/// Keys of a burst.
const BURST: usize = 32;

/// Measures lookups, changes, upkeep and memory.
pub fn run(context: &mut Context) -> anyhow::Result<()> {
    let memory: Arc<dyn Lender> = TableMemory::new();
    let pages = filled::<Key4>(100_000, &memory)?.pages();
    context.note(format!(
        "Tables filled to what they promise, bursts of {BURST}, keys in random order; memory: {pages}."
    ));
    lookup::run(context, &memory)?;
    upkeep::run(context, &memory)?;
    capacity::run(context, &memory)
}

/// An entry that lives until `deadline`.
fn meta(n: u32, deadline: Tick) -> Meta {
    Meta::new(TCP, DestId(n & 1023), State::Established, deadline)
}

/// What a table of this kind holds for key `n`: pairs have no time.
fn entry<K: Made>(n: u32, deadline: Tick) -> Meta {
    if K::NAME.ends_with("pair") { Meta::of_pair(TCP) } else { meta(n, deadline) }
}

/// An empty table for `count` connections.
fn empty<K: TableKey>(count: u32, memory: &Arc<dyn Lender>) -> anyhow::Result<Table<K>> {
    Ok(Table::in_memory(count, SECRET, "bench".to_owned(), true, memory)?)
}

/// A table of `count` connections, filled to its limit.
fn filled<K: Made>(count: u32, memory: &Arc<dyn Lender>) -> anyhow::Result<Table<K>> {
    let mut table = empty(count, memory)?;
    fill(&mut table, 0, count)?;
    Ok(table)
}

/// Adds the keys from `from` to `to`, which are new, in bursts.
fn fill<K: Made>(table: &mut Table<K>, from: u32, to: u32) -> anyhow::Result<()> {
    let deadline = Tick::from_ns(0).after(Tick::MAX_TIMEOUT);
    let mut probes = [Probe::default(); BURST];
    for start in (from..to).step_by(BURST) {
        let end = to.min(start + BURST as u32);
        for (n, probe) in (start..end).zip(&mut probes) {
            *probe = table.probe(&K::made(n), TCP);
            table.prefetch(*probe);
        }
        for (n, probe) in (start..end).zip(&probes) {
            let done = table.insert(K::made(n), *probe, entry::<K>(n, deadline));
            ensure!(done.is_ok(), "no room at {} of {to}", table.len());
        }
    }
    Ok(())
}

/// ns per unit of `n` units of work.
fn timed(n: u64, work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_nanos() as f64 / n as f64
}

/// ns per unit of `n` units of work in 64 slices: the middle one, so that what else the machine does in a few of them
/// does not count. `work` is told how many units to do.
fn sliced(n: u64, mut work: impl FnMut(u64)) -> f64 {
    let slice = n / 64;
    (0..64).map(|_| timed(slice, || work(slice))).collect::<Series>().median()
}
