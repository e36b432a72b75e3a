//! Changes and upkeep: insertion, removal, expiry and its pauses, the census, and hits while flows come.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use anyhow::ensure;
use lb_dataplane::conn::memory::Lender;
use lb_dataplane::conn::{Key4, Key6, Meta, Pair, Probe, Table, Tick};

use super::keys::{Made, Order, TCP};
use super::{BURST, empty, fill, filled, timed};
use crate::context::Context;
use crate::record::{Reached, Table as Rows};
use crate::stats::{Series, short};

/// What a worker's sweep does in a turn with packets.
const SWEEP_LINES: u32 = lb_dataplane::worker::SWEEP_BUSY;
const SWEEP_ENDS: u32 = lb_dataplane::worker::ENDS_BUSY;
/// Packets of a turn, for the share of the sweep that each bears.
const PACKETS: f64 = BURST as f64;
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
            context.reached(Reached::new("E1/mean", mean).note(note))?;
            let note = format!(
                "the longest of all steps where every connection has ended, {SWEEP_ENDS} of them a step; interrupts of \
                 the machine are in it: the step that 1 in 1000 exceeds is in the raw data"
            );
            context.reached(Reached::new("E1/pause", pause).note(note))?;
        }
    }
    context.table(rows);
    Ok(())
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
    // other work between the steps, as a turn has it: the lines that were asked for ahead have time to come
    let step = |table: &mut Table<K>, now: Tick, gone: &mut u32| {
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
    };
    let mut gone = 0;
    let mut living = || {
        let work = || (0..steps).for_each(|_| step(&mut table, Tick::from_ns(0), &mut gone));
        Ok(timed(u64::from(steps * SWEEP_LINES), work))
    };
    let setting = format!("{} expiry, {} connections", K::NAME, short(f64::from(count)));
    let living = context.compare(&setting, "ns/line", &mut [("all live", &mut living)])?;
    ensure!(gone == 0, "{gone} connections ended before their time");
    let later = Tick::from_ns(0).after(Tick::MAX_TIMEOUT);
    let (mut pauses, mut means) = (Vec::new(), Series::default());
    for _ in 0..3 {
        let start = Instant::now();
        let mut pause = Series::default();
        while !table.is_empty() {
            let start = Instant::now();
            step(&mut table, later, &mut gone);
            pause.push(start.elapsed().as_nanos() as f64 / 1000.0);
        }
        means.push(start.elapsed().as_nanos() as f64 / f64::from(count));
        pauses.push((pause.max(), pause.quantile(0.999), pause.median()));
        fill(&mut table, 0, count)?;
    }
    context.record(&setting, "all ended", "ns/connection", means.clone());
    let of = |which: fn(&(f64, f64, f64)) -> f64| pauses.iter().map(which).collect::<Series>();
    context.record(&setting, "step, longest", "us", of(|pause| pause.0));
    context.record(&setting, "step, 1 in 1000 is longer", "us", of(|pause| pause.1));
    context.record(&setting, "step, median", "us", of(|pause| pause.2));
    let longest = of(|pause| pause.0).min();
    rows.row([
        K::NAME.to_owned(),
        short(f64::from(count)),
        living[0].shown(),
        means.shown(),
        format!("{longest:.2} (median step {:.2}, 99.9 % {:.2})", of(|p| p.2).min(), of(|p| p.1).min()),
    ]);
    Ok((living[0].min() * f64::from(SWEEP_LINES) / PACKETS, longest))
}

/// Hits a second, alone and while flows come and go at 1 M/s.
fn hits_while_flows_come(context: &mut Context, memory: &Arc<dyn Lender>) -> anyhow::Result<()> {
    let (count, millis) = if context.quick() { (100_000, 20) } else { (1_000_000, 300) };
    // half of the table are the flows that are hit, half those that come and go
    let table = std::cell::RefCell::new(filled::<Key4>(count / 2, memory)?);
    *table.borrow_mut() = empty(count, memory)?;
    fill(&mut table.borrow_mut(), 0, count / 2)?;
    let mut order = Order::new(count / 2);
    let comers = std::cell::RefCell::new((count / 2, count / 2));
    let mut run = |coming: u64| -> anyhow::Result<f64> {
        let mut table = table.borrow_mut();
        let (first, next) = &mut *comers.borrow_mut();
        let mut probes = [Probe::default(); BURST];
        let mut keys = [Key4::made(0); BURST];
        let (mut hits, mut came) = (0_u64, 0_u64);
        let start = Instant::now();
        let mut elapsed = 0;
        while elapsed < millis * 1_000_000 {
            for (key, probe) in keys.iter_mut().zip(&mut probes) {
                *key = Key4::made(order.next());
                *probe = table.probe(key, TCP);
                table.prefetch(*probe);
            }
            for (key, probe) in keys.iter().zip(&probes) {
                hits += u64::from(black_box(table.find(key, TCP, *probe)).is_some());
            }
            elapsed = start.elapsed().as_nanos() as u64;
            // the flows that are due since the last burst, and as many old ones end
            let due = elapsed * coming / 1_000_000_000 - came;
            came += due;
            // after the machine was elsewhere there may be many
            let end = *next + due as u32;
            fill(&mut table, *next, end)?;
            *next = end;
            for n in *first..(*next).saturating_sub(count / 4).max(*first) {
                let key = Key4::made(n);
                if let Some(found) = table.find(&key, TCP, table.probe(&key, TCP)) {
                    table.remove(found);
                }
                *first = n + 1;
            }
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
    let note = "hits a second that the same core does less, insertions and removals included";
    context.reached(Reached::new("C4", slower.max(0.0)).note(note))
}
