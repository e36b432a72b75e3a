//! Changes and upkeep: insertion, removal, expiry and its pauses, the census, and hits while flows come.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use lb_dataplane::conn::memory::Lender;
use lb_dataplane::conn::{Key4, Key6, Meta, Pair, Probe, Table, Tick};

use super::keys::{Made, Order, TCP};
use super::{BURST, empty, fill, filled, meta, timed};
use crate::context::Context;
use crate::record::{Reached, Table as Rows};
use crate::stats::{Series, short};

/// What a worker's sweep does in a turn with packets.
const SWEEP_LINES: u32 = lb_dataplane::worker::SWEEP_BUSY;
const SWEEP_ENDS: u32 = lb_dataplane::worker::ENDS_BUSY;
/// Packets of a turn, for the share of the sweep that each bears.
const PACKETS: f64 = BURST as f64;
/// Rounds of the sweep that ends connections: enough that a step is undisturbed in one of them.
const ROUNDS: usize = 5;
/// Flows a second that come while hits are measured.
const COMING: u64 = 1_000_000;

/// Measures.
pub fn run(context: &mut Context, memory: &Arc<dyn Lender>) -> anyhow::Result<()> {
    changes(context, memory)?;
    expiry(context, memory)?;
    hits_while_flows_come(context, memory)
}

/// Insertion into an empty table until it is full, removal of all, and the walk over all.
fn changes(context: &mut Context, memory: &Arc<dyn Lender>) -> anyhow::Result<()> {
    let columns = ["kind", "connections", "insert", "remove", "census"];
    let mut rows = Rows::new("Changes, ns per connection, minimum / median", &columns);
    let count = if context.quick() { 100_000 } else { 1_000_000 };
    changes_of::<Key4>(context, memory, count, &mut rows)?;
    changes_of::<Key6>(context, memory, count, &mut rows)?;
    changes_of::<Pair<Key4>>(context, memory, count, &mut rows)?;
    changes_of::<Pair<Key6>>(context, memory, count, &mut rows)?;
    context.table(rows);
    Ok(())
}

fn changes_of<K: Made>(
    context: &mut Context,
    memory: &Arc<dyn Lender>,
    count: u32,
    rows: &mut Rows,
) -> anyhow::Result<()> {
    let table = std::cell::RefCell::new(filled::<K>(count, memory)?);
    let ns = |start: Instant| start.elapsed().as_nanos() as f64 / f64::from(count);
    let mut census = || {
        let start = Instant::now();
        let mut seen = 0_u32;
        let table = table.borrow();
        table.walk(0, table.lines(), |key, meta| {
            black_box((key, meta));
            seen += 1;
        });
        ensure!(seen == count, "{seen} of {count} connections seen");
        Ok(ns(start))
    };
    let mut remove = || {
        let mut table = table.borrow_mut();
        let mut order = Order::new(count);
        let start = Instant::now();
        for _ in 0..count {
            let key = K::made(order.next());
            let probe = table.probe(&key, TCP);
            if let Some(found) = table.find(&key, TCP, probe) {
                table.remove(found);
            }
        }
        ensure!(table.is_empty(), "{} connections are left", table.len());
        Ok(ns(start))
    };
    let mut insert = || {
        let start = Instant::now();
        fill(&mut table.borrow_mut(), 0, count)?;
        Ok(ns(start))
    };
    let setting = format!("{} changes, {} connections", K::NAME, short(f64::from(count)));
    let mut variants: [crate::context::Variant; 3] =
        [("census", &mut census), ("remove", &mut remove), ("insert", &mut insert)];
    let series = context.compare(&setting, "ns/connection", &mut variants)?;
    rows.row([
        K::NAME.to_owned(),
        short(f64::from(count)),
        series[2].shown(),
        series[1].shown(),
        series[0].shown(),
    ]);
    Ok(())
}

/// The sweep over a table whose connections live, and over one where all have ended.
fn expiry(context: &mut Context, memory: &Arc<dyn Lender>) -> anyhow::Result<()> {
    let columns = ["kind", "connections", "living, ns/line", "ended, ns/connection", "longest pause, us"];
    let mut rows = Rows::new("Expiry, minimum / median", &columns);
    let counts: &[u32] = if context.quick() { &[100_000] } else { &[1_000_000, 10_000_000] };
    for &count in counts {
        let (mean, pause) = expiry_of::<Key4>(context, memory, count, &mut rows)?;
        expiry_of::<Key6>(context, memory, count, &mut rows)?;
        if count == counts[counts.len() - 1] {
            let note = format!(
                "{SWEEP_LINES} lines a turn of {BURST} packets at {} connections, the most that the worker does, at \
                 any rate; the counters of a connection that ends are not in it",
                short(f64::from(count))
            );
            let cell = expiry_setting::<Key4>(count);
            context.reached(Reached::new("E1/mean", mean).note(note).of(&[cell.as_str()]))?;
            let note = format!(
                "the longest of all steps where every connection has ended, {SWEEP_ENDS} of them a step; the same steps are done \
                 {ROUNDS} times, and of each the least counts, so that what interrupted one of them does not"
            );
            let cell = format!("{cell}, all ended");
            context.reached(Reached::new("E1/pause", pause).note(note).of(&[cell.as_str()]))?;
        }
    }
    context.table(rows);
    Ok(())
}

/// What a table's expiry is called.
fn expiry_setting<K: Made>(count: u32) -> String {
    format!("{} expiry, {} connections", K::NAME, short(f64::from(count)))
}

/// ns per packet and longest step in us.
fn expiry_of<K: Made>(
    context: &mut Context,
    memory: &Arc<dyn Lender>,
    count: u32,
    rows: &mut Rows,
) -> anyhow::Result<(f64, f64)> {
    let mut table = filled::<K>(count, memory)?;
    let steps = table.lines() / SWEEP_LINES;
    let mut gone = 0;
    let mut living = || {
        let work = || (0..steps).for_each(|_| step(&mut table, Tick::from_ns(0), &mut gone));
        Ok(timed(u64::from(steps * SWEEP_LINES), work))
    };
    let setting = expiry_setting::<K>(count);
    let living = context.compare(&setting, "ns/line", &mut [("all live", &mut living)])?;
    ensure!(gone == 0, "{gone} connections ended before their time");
    drop(table);
    let steps = format!("{setting}, all ended");
    let (mut least, means, longest) = context.cell(&steps, |context| ended::<K>(context, memory, count))?;
    context.record(&steps, "all of it", "ns/connection", means.clone());
    context.record(&steps, "longest step of a round", "us", longest.clone());
    least.sort_unstable_by(f32::total_cmp);
    let at = |q: f64| f64::from(least[((least.len() - 1) as f64 * q) as usize]);
    for (name, q) in
        [("longest step, least of the rounds", 1.0), ("1 in 1000 is longer", 0.999), ("median", 0.5)]
    {
        context.record(&steps, name, "us", [at(q)].into_iter().collect());
    }
    rows.row([
        K::NAME.to_owned(),
        short(f64::from(count)),
        living[0].shown(),
        means.shown(),
        format!("{:.2} (median step {:.2}, 99.9 % {:.2})", at(1.0), at(0.5), at(0.999)),
    ]);
    Ok((living[0].min() * f64::from(SWEEP_LINES) / PACKETS, at(1.0)))
}

/// One step of a worker's sweep.
fn step<K: Made>(table: &mut Table<K>, now: Tick, gone: &mut u32) {
    table.sweep_some(
        SWEEP_LINES,
        SWEEP_ENDS,
        now,
        |meta: Meta, left| (left == 0).then_some(meta),
        |key, meta| {
            black_box((key, meta));
            *gone += 1;
        },
    );
}

/// Sweeps a table of which every connection has ended until it is empty, several times. The steps are the same each time:
/// the same keys in the same lines, the same hand, as many connections ended by each, which is checked. So of each step the
/// least time of the rounds is what it takes, and what it took longer in others was interruptions. Returns that of every
/// step, us; ns per connection of each round; and the longest step of each, us.
fn ended<K: Made>(
    context: &mut Context,
    memory: &Arc<dyn Lender>,
    count: u32,
) -> anyhow::Result<(Vec<f32>, Series, Series)> {
    let later = Tick::from_ns(0).after(Tick::MAX_TIMEOUT);
    // what each step took, and how many connections it ended
    let mut least: Vec<(f32, u8)> = Vec::new();
    let (mut means, mut longest) = (Series::default(), Series::default());
    for round in 0..ROUNDS {
        let mut table = filled::<K>(count, memory)?;
        let (mut at, mut most) = (0, 0.0_f32);
        let begun = Instant::now();
        while !table.is_empty() {
            let mut gone = 0;
            let start = Instant::now();
            step(&mut table, later, &mut gone);
            let us = start.elapsed().as_nanos() as f32 / 1000.0;
            most = most.max(us);
            if round == 0 {
                least.push((us, gone as u8));
            } else {
                let (known, ended) = least.get_mut(at).context("a round has more steps than the first")?;
                ensure!(
                    *ended == gone as u8,
                    "step {at} ended {gone} connections, {ended} in the first round"
                );
                *known = known.min(us);
            }
            at += 1;
        }
        ensure!(at == least.len(), "{at} steps, {} in the first round", least.len());
        means.push(begun.elapsed().as_nanos() as f64 / f64::from(count));
        longest.push(most.into());
        context.glance(round as f64 / ROUNDS as f64);
    }
    Ok((least.into_iter().map(|(us, _)| us).collect(), means, longest))
}

/// Hits a second, alone and while flows come and go at 1 M/s.
fn hits_while_flows_come(context: &mut Context, memory: &Arc<dyn Lender>) -> anyhow::Result<()> {
    let (count, millis) = if context.quick() { (100_000, 20) } else { (1_000_000, 300) };
    let deadline = Tick::from_ns(0).after(Tick::MAX_TIMEOUT);
    // half of the table are the flows that are hit, half those that come and go
    let table = std::cell::RefCell::new(filled::<Key4>(count / 2, memory)?);
    *table.borrow_mut() = empty(count, memory)?;
    fill(&mut table.borrow_mut(), 0, count / 2)?;
    let mut order = Order::new(count / 2);
    // the first of the flows that came and are there still, and the next that comes
    let comers = std::cell::RefCell::new((count / 2, count / 2));
    let mut run = |coming: u64| -> anyhow::Result<f64> {
        let mut table = table.borrow_mut();
        let (first, next) = &mut *comers.borrow_mut();
        let mut probes = [Probe::default(); BURST];
        let mut keys = [Key4::made(0); BURST];
        let mut changes: Vec<(Key4, Probe)> = Vec::new();
        let (mut hits, mut came) = (0_u64, 0_u64);
        let start = Instant::now();
        let mut elapsed = 0;
        while elapsed < millis * 1_000_000 {
            for (key, probe) in keys.iter_mut().zip(&mut probes) {
                *key = Key4::made(order.next());
                *probe = table.probe(key, TCP);
                table.prefetch(*probe);
            }
            // in the same burst the flows that are due since the last one, and as many old ones that end; after the
            // machine was elsewhere there may be many
            let due = elapsed * coming / 1_000_000_000 - came;
            came += due;
            let (old, new) = (*first, *next);
            *next += due as u32;
            *first = next.saturating_sub(count / 4).max(*first);
            changes.clear();
            for n in (new..*next).chain(old..*first) {
                let key = Key4::made(n);
                let probe = table.probe(&key, TCP);
                table.prefetch(probe);
                changes.push((key, probe));
            }
            for (key, probe) in keys.iter().zip(&probes) {
                hits += u64::from(black_box(table.find(key, TCP, *probe)).is_some());
            }
            let (comers, goers) = changes.split_at(due as usize);
            for (key, probe) in comers {
                ensure!(black_box(table.find(key, TCP, *probe)).is_none(), "a flow that comes is there");
                let done = table.insert(*key, *probe, meta(came as u32, deadline));
                ensure!(done.is_ok(), "no room at {} of {count}", table.len());
            }
            for (key, probe) in goers {
                let found = table.find(key, TCP, *probe).context("a flow that ends is not there")?;
                table.remove(found);
            }
            elapsed = start.elapsed().as_nanos() as u64;
        }
        Ok(elapsed as f64 / hits as f64)
    };
    let run = std::cell::RefCell::new(&mut run);
    let mut alone = || (run.borrow_mut())(0);
    let mut beside = || (run.borrow_mut())(COMING);
    let setting = format!("IPv4 hits, {} connections", short(f64::from(count)));
    let variants: &mut [crate::context::Variant] =
        &mut [("alone", &mut alone), ("while 1 M flows/s come and go", &mut beside)];
    let series = context.compare(&setting, "ns/hit", variants)?;
    let slower = (1.0 - series[0].min() / series[1].min()) * 100.0;
    let mut rows =
        Rows::new("Hits while flows come and go, ns per hit", &["alone", "1 M flows/s", "fewer hits"]);
    rows.row([series[0].shown(), series[1].shown(), format!("{slower:.1} %")]);
    context.table(rows);
    let note = "hits a second that the same core does less, insertions and removals included; flows that come and go stand \
                in the bursts of those that are hit, as in a worker";
    context.reached(Reached::new("C4", slower.max(0.0)).note(note))
}

#[cfg(test)]
mod tests {
    use super::*;
    use lb_dpdk::TableMemory;

    #[test]
    fn the_steps_that_end_connections_are_the_same_every_time() {
        let mut context = Context::new("table", true, std::path::Path::new("/nonexistent"));
        let memory: Arc<dyn Lender> = TableMemory::new();
        // it fails where a round differs from the first
        let (least, means, longest) = ended::<Key4>(&mut context, &memory, 20_000).expect("the same steps");
        assert!(least.len() >= 20_000 / (SWEEP_ENDS as usize + 4), "{}", least.len());
        assert_eq!((means.samples().len(), longest.samples().len()), (ROUNDS, ROUNDS));
        let most = least.iter().copied().fold(0.0, f32::max);
        assert!(f64::from(most) <= longest.min(), "{most} {longest:?}");
    }
}
