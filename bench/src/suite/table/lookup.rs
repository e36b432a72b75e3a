//! Lookups: hits and misses, of every kind of key, and against `rte_hash`.

use std::hint::black_box;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use lb_config::HugePages;
use lb_dataplane::conn::memory::{Lender, Request};
use lb_dataplane::conn::{Found, Key4, Key6, Pair, Probe, Table};
use lb_dpdk::hash::{BULK, Hash, KEY_LEN};
use lb_dpdk::{Eal, EalConfig};

use super::keys::{Made, Order, TCP, padded};
use super::{BURST, filled, sliced};
use crate::context::Context;
use crate::record::{Plot, Reached, Table as Rows};
use crate::rig::cpus;
use crate::stats::{Series, short};

/// Memory that `rte_hash` takes for a key, bytes, at most; and for itself.
const PEER_BYTES: usize = 96;
const PEER_BASE: usize = 32 << 20;

/// Measures.
pub fn run(context: &mut Context, memory: &Arc<dyn Lender>) -> anyhow::Result<()> {
    let cpu = *cpus()?.last().context("no CPU")?;
    let eal = Eal::init(&EalConfig {
        instance: "lb-bench".to_owned(),
        huge_pages: HugePages::None,
        memory_mib: 64,
        main_cpu: None,
        worker_cpus: vec![u16::try_from(cpu)?],
        pci: Vec::new(),
    })?;
    let sizes: &[u32] =
        if context.quick() { &[1_000, 100_000] } else { &[1_000, 100_000, 1_000_000, 10_000_000] };
    let lookups = if context.quick() { 200_000 } else { 4_000_000 };
    let columns =
        ["keys", "keys made", "rte_hash", "Sluice", "times rte_hash", "misses: rte_hash", "misses: Sluice"];
    let mut rows = Rows::new("IPv4 lookups, ns, minimum / median", &columns);
    let mut plot = Plot::new("hits", "Bulk lookup of a hit", "keys", "ns per key, less the floor");
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for &count in sizes {
        let table = filled::<Key4>(count, memory)?;
        let peer = peer(&eal, count, memory)?;
        check(&table, &peer, count)?;
        let mut orders = [Order::new(count); 5];
        let [a, b, c, d, e] = &mut orders;
        let mut floor = || Ok(sliced(lookups, |n| make(a, n)));
        let mut rte = || Ok(sliced(lookups, |n| bulk(&peer, c, n, 0)));
        let mut own = || Ok(sliced(lookups, |n| find(&table, b, n, 0)));
        let mut rte_miss = || Ok(sliced(lookups, |n| bulk(&peer, d, n, count)));
        let mut miss = || Ok(sliced(lookups, |n| find(&table, e, n, count)));
        let series = context.compare(
            &format!("IPv4 lookup, {} keys", short(f64::from(count))),
            "ns/key",
            &mut [
                ("keys made", &mut floor),
                ("rte_hash", &mut rte),
                ("Sluice", &mut own),
                ("rte_hash, miss", &mut rte_miss),
                ("Sluice, miss", &mut miss),
            ],
        )?;
        let ratio = series[1].above(&series[0]) / series[2].above(&series[0]);
        if let Some(goal) = [(1_000_000, "H1/1M"), (10_000_000, "H1/10M")].iter().find(|(at, _)| *at == count)
        {
            let note = format!(
                "{:.1} against {:.1} ns, less the {:.1} ns that making a key takes; {:.2} times with them; median of \
                 the ratios of {} pairs {:.2}",
                series[2].above(&series[0]),
                series[1].above(&series[0]),
                series[0].min(),
                series[1].min() / series[2].min(),
                series[1].samples().len(),
                series[1].ratio(&series[2]),
            );
            context.reached(Reached::new(goal.1, ratio).peer("rte_hash itself", 1.0).note(note))?;
        }
        ours.push((f64::from(count), series[2].above(&series[0])));
        theirs.push((f64::from(count), series[1].above(&series[0])));
        let shown: Vec<String> = series.iter().map(Series::shown).collect();
        rows.row([
            short(f64::from(count)),
            shown[0].clone(),
            shown[1].clone(),
            shown[2].clone(),
            format!("{ratio:.2}"),
            shown[3].clone(),
            shown[4].clone(),
        ]);
    }
    context.table(rows);
    plot.line("Sluice", ours);
    plot.line("rte_hash", theirs);
    kinds(context, memory, lookups, &mut plot)?;
    context.plot(plot);
    Ok(())
}

/// Hits and misses of the other kinds.
fn kinds(
    context: &mut Context,
    memory: &Arc<dyn Lender>,
    lookups: u64,
    plot: &mut Plot,
) -> anyhow::Result<()> {
    let mut rows =
        Rows::new("Lookups by kind of key, ns, minimum / median", &["kind", "keys", "hit", "miss"]);
    let sizes: &[u32] = if context.quick() { &[100_000] } else { &[1_000, 1_000_000, 10_000_000] };
    let mut lines = [const { Vec::new() }; 4];
    for &count in sizes {
        let series = [
            kind::<Key4>(context, memory, count, lookups, &mut rows)?,
            kind::<Key6>(context, memory, count, lookups, &mut rows)?,
            kind::<Pair<Key4>>(context, memory, count, lookups, &mut rows)?,
            kind::<Pair<Key6>>(context, memory, count, lookups, &mut rows)?,
        ];
        for (line, series) in lines.iter_mut().zip(series) {
            line.push((f64::from(count), series.min()));
        }
    }
    context.table(rows);
    let [_, v6, pair4, pair6] = lines;
    plot.line("Sluice, IPv6", v6);
    plot.line("Sluice, IPv4 pair", pair4);
    plot.line("Sluice, IPv6 pair", pair6);
    Ok(())
}

fn kind<K: Made>(
    context: &mut Context,
    memory: &Arc<dyn Lender>,
    count: u32,
    lookups: u64,
    rows: &mut Rows,
) -> anyhow::Result<Series> {
    let table = filled::<K>(count, memory)?;
    let (mut hits, mut misses) = (Order::new(count), Order::new(count));
    let mut hit = || Ok(sliced(lookups, |n| find(&table, &mut hits, n, 0)));
    let mut miss = || Ok(sliced(lookups, |n| find(&table, &mut misses, n, count)));
    let setting = format!("{} lookup, {} keys", K::NAME, short(f64::from(count)));
    let series = context.compare(&setting, "ns/key", &mut [("hit", &mut hit), ("miss", &mut miss)])?;
    rows.row([K::NAME.to_owned(), short(f64::from(count)), series[0].shown(), series[1].shown()]);
    series.into_iter().next().context("a series")
}

/// DPDK's table with the same keys, in the same kind of memory.
fn peer(eal: &Eal, count: u32, memory: &Arc<dyn Lender>) -> anyhow::Result<Hash> {
    let bytes = (PEER_BASE + PEER_BYTES * count.next_power_of_two() as usize).next_multiple_of(2 << 20);
    let request = Request { name: "rte_hash".to_owned(), bytes, used: true };
    let loan = memory.lend(&request).context("no memory for rte_hash")?;
    let mut peer = Hash::new(eal, count, loan.memory)?;
    for n in 0..count {
        peer.insert(&padded(n), n as usize).with_context(|| format!("key {n} of {count}"))?;
    }
    Ok(peer)
}

/// The census: both know every key, and none that they were not given.
fn check(table: &Table<Key4>, peer: &Hash, count: u32) -> anyhow::Result<()> {
    ensure!(table.len() == count, "{} of {count} keys are in the table", table.len());
    let mut words = [0; BULK];
    for n in 0..count {
        let key = Key4::made(n);
        ensure!(table.find(&key, TCP, table.probe(&key, TCP)).is_some(), "key {n} is missing");
        ensure!(
            peer.lookup(&[&padded(n)], &mut words) == 1 && words[0] == n as usize,
            "rte_hash misses key {n}"
        );
    }
    Ok(())
}

/// The floor: keys in the same order, and nothing done with them.
fn make(order: &mut Order, lookups: u64) {
    let mut keys = [Key4::made(0); BURST];
    for _ in 0..lookups / BURST as u64 {
        for key in &mut keys {
            *key = Key4::made(order.next());
        }
        black_box(&keys);
    }
}

/// Keys from `base` on, a burst in three passes: lines are asked for, then keys, then all is compared.
fn find<K: Made>(table: &Table<K>, order: &mut Order, lookups: u64, base: u32) {
    let mut keys = [K::made(0); BURST];
    let mut probes = [Probe::default(); BURST];
    let mut found = [Found::NOTHING; BURST];
    let mut hits = 0;
    for _ in 0..lookups / BURST as u64 {
        for (key, probe) in keys.iter_mut().zip(&mut probes) {
            *key = K::made(base + order.next());
            *probe = table.probe(key, TCP);
            table.prefetch(*probe);
        }
        for (key, probe) in keys.iter().zip(&probes) {
            table.prefetch_key(key, TCP, *probe);
        }
        for ((key, probe), found) in keys.iter().zip(&probes).zip(&mut found) {
            table.find_into(key, TCP, *probe, found);
            hits += u64::from(found.is_some());
        }
        black_box(&found);
    }
    let wanted = if base == 0 { lookups / BURST as u64 * BURST as u64 } else { 0 };
    assert_eq!(hits, wanted, "a lookup went wrong");
}

/// Keys from `base` on, by DPDK's table.
fn bulk(peer: &Hash, order: &mut Order, lookups: u64, base: u32) {
    let mut keys = [[0; KEY_LEN]; BURST];
    let mut words = [0; BULK];
    let mut hits = 0;
    for _ in 0..lookups / BURST as u64 {
        for key in &mut keys {
            *key = padded(base + order.next());
        }
        hits += u64::from(peer.lookup(&keys.each_ref(), &mut words).count_ones());
        black_box(&words);
    }
    let wanted = if base == 0 { lookups / BURST as u64 * BURST as u64 } else { 0 };
    assert_eq!(hits, wanted, "a lookup went wrong");
}
