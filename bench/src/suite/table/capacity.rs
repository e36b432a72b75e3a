//! Memory per connection, and how full a table gets before an insertion fails.

use std::sync::Arc;

use anyhow::ensure;
use lb_dataplane::conn::memory::Lender;
use lb_dataplane::conn::{Key4, Key6, Pair, Table, Tick};

use super::keys::{Made, Order, SECRET, TCP};
use super::{entry, fill, filled};
use crate::context::Context;
use crate::record::{Reached, Table as Rows};
use crate::stats::{Series, short};

/// Bytes of a connection elsewhere, of whatever family and forwarding, computed from their sources; VPP keeps a digest
/// of the key only, rte_hash's is without what it leads to.
const PEERS: [(&str, f64); 5] =
    [("IPVS", 320.0), ("DPVS", 704.0), ("Katran", 104.0), ("VPP lb", 16.0), ("rte_hash", 44.0)];

/// Measures.
pub fn run(context: &mut Context, memory: &Arc<dyn Lender>) -> anyhow::Result<()> {
    let count = if context.quick() { 100_000 } else { 10_000_000 };
    let columns =
        ["kind", "connections", "bytes each, all included", "slots filled", "filled at the first failure"];
    let mut rows = Rows::new("Memory", &columns);
    let v4 = memory_of::<Key4>(context, memory, count, &mut rows)?;
    let v6 = memory_of::<Key6>(context, memory, count, &mut rows)?;
    let pair4 = memory_of::<Pair<Key4>>(context, memory, count, &mut rows)?;
    memory_of::<Pair<Key6>>(context, memory, count, &mut rows)?;
    context.table(rows);
    let size = short(f64::from(count));
    let note = format!(
        "table bytes over {size} connections that are in it; a worker's other memory is not per connection"
    );
    let beside = |reached: Reached| PEERS.iter().fold(reached, |r, (name, bytes)| r.published(name, *bytes));
    context.reached(beside(Reached::new("M1", v4).counted().note(&note)))?;
    context.reached(beside(Reached::new("M2/v6", v6).counted().note(note)))?;
    context.reached(beside(Reached::new("M2/pair", v4 + 2.0 * pair4).counted().note(
        "one connection and two pairs: to where the client's packets go, and to where the server's do",
    )))
}

/// Bytes per connection of a table filled to what it promises, after as many replacements as it holds.
fn memory_of<K: Made>(
    context: &mut Context,
    memory: &Arc<dyn Lender>,
    count: u32,
    rows: &mut Rows,
) -> anyhow::Result<f64> {
    let mut table = filled::<K>(count, memory)?;
    churn(&mut table, count)?;
    let bytes = table.bytes() as f64 / f64::from(table.len());
    let load = f64::from(table.len()) / table.slots() as f64;
    drop(table);
    let setting = format!("{} memory, {} connections", K::NAME, short(f64::from(count)));
    let mut highest = Series::default();
    for round in 0..3 {
        highest.push(first_failure::<K>(count / 10, round)?);
    }
    context.record(&setting, "bytes", "bytes/connection", [bytes].into_iter().collect());
    context.record(&setting, "load at the first failure", "%", highest.clone());
    rows.row([
        K::NAME.to_owned(),
        short(f64::from(count)),
        format!("{bytes:.1}"),
        format!("{:.1} %", load * 100.0),
        format!("{:.1} %", highest.min()),
    ]);
    Ok(bytes)
}

/// Replaces every connection by another, in random order, at the limit.
fn churn<K: Made>(table: &mut Table<K>, count: u32) -> anyhow::Result<()> {
    let deadline = Tick::from_ns(0).after(Tick::MAX_TIMEOUT);
    let mut order = Order::new(count);
    for new in count..2 * count {
        let old = K::made(order.next());
        let Some(found) = table.find(&old, TCP, table.probe(&old, TCP)) else { continue };
        table.remove(found);
        let key = K::made(new);
        let probe = table.probe(&key, TCP);
        ensure!(table.insert(key, probe, entry::<K>(new, deadline)).is_ok(), "no room at {}", table.len());
    }
    ensure!(table.len() == count, "{} of {count} connections", table.len());
    Ok(())
}

/// Percent of the slots that are filled when an insertion fails for the first time.
fn first_failure<K: Made>(slots: u32, round: u32) -> anyhow::Result<f64> {
    let per_line = (Table::<K>::with_lines(2, 1, SECRET)?.slots() / 2) as u32;
    let mut table = Table::<K>::with_lines((slots / per_line) as usize, u32::MAX, SECRET)?;
    // other keys each round
    let start = round * 2 * slots;
    let _ = fill(&mut table, start, start + 2 * slots);
    Ok(f64::from(table.len()) / table.slots() as f64 * 100.0)
}
