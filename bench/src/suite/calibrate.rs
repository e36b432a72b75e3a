//! Suite `calibrate`: what a random line of memory costs on this machine, over working sets and sizes of pages: the
//! floor below every figure about tables.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use lb_dataplane::conn::memory::{Lender, Pages, Region};
use lb_dataplane::prefetch;
use lb_dpdk::TableMemory;

use crate::calibrate::{Line, circle};
use crate::context::Context;
use crate::record::{Plot, Table as Rows};
use crate::stats::{Series, short};

/// Bytes of one.
const LINE: usize = 64;
/// Lines that are asked for before the first is read, as a worker does with a burst: one a packet, two a packet.
const AHEAD: [usize; 2] = [32, 64];
/// Share of the available memory that a working set may take.
const SHARE: u64 = 4;

/// Measures.
pub fn run(context: &mut Context) -> anyhow::Result<()> {
    let lender: Arc<dyn Lender> = TableMemory::new();
    let small: Arc<dyn Lender> = Arc::new(SmallPages(TableMemory::new()));
    let largest = if context.quick() { 64 << 20 } else { 4 << 30 };
    let mut plot = Plot::new("lines", "A random line of memory", "working set, bytes", "ns per line");
    let columns = ["working set", "pages", "one after the other", "32 at a time", "64 at a time"];
    let mut rows = Rows::new("ns per random line, minimum / median", &columns);
    for (name, lender) in [("huge pages", &lender), ("4 KiB pages", &small)] {
        let mut lines = [const { Vec::new() }; 3];
        let mut bytes = 16_usize << 10;
        while bytes <= largest {
            if bytes as u64 > context.memory() / SHARE {
                context.skip(format!("{} of {name}", size(bytes)), "more than a quarter of the free memory");
                break;
            }
            let (pages, series) = set(context, name, bytes, lender)?;
            for (line, series) in lines.iter_mut().zip(&series) {
                line.push((bytes as f64, series.min()));
            }
            let shown = series.iter().map(Series::shown);
            rows.row([size(bytes), pages.to_string()].into_iter().chain(shown));
            bytes *= 4;
        }
        for (way, line) in ["one after the other", "32 at a time", "64 at a time"].iter().zip(lines) {
            plot.line(&format!("{name}, {way}"), line);
        }
    }
    context.table(rows);
    context.plot(plot);
    Ok(())
}

fn size(bytes: usize) -> String {
    match bytes {
        0x4000_0000.. => format!("{} GiB", bytes >> 30),
        0x10_0000.. => format!("{} MiB", bytes >> 20),
        _ => format!("{} KiB", bytes >> 10),
    }
}

/// One working set.
fn set(
    context: &mut Context,
    name: &str,
    bytes: usize,
    lender: &Arc<dyn Lender>,
) -> anyhow::Result<(Pages, Vec<Series>)> {
    let region = Region::<Line>::lent(bytes / LINE, name.to_owned(), true, lender);
    let mut lines = region.context("no memory")?;
    let pages = lines.pages();
    circle(&mut lines);
    let steps = if context.quick() { 50_000 } else { 500_000 };
    let mut at = 0;
    let mut chase = || {
        let start = Instant::now();
        for _ in 0..steps {
            at = lines[at as usize][0];
        }
        black_box(at);
        Ok(start.elapsed().as_nanos() as f64 / f64::from(steps))
    };
    let mut seed = 1;
    let mut few = || ahead(&lines, &mut seed, AHEAD[0], steps);
    let mut other = 2;
    let mut many = || ahead(&lines, &mut other, AHEAD[1], steps);
    let setting = format!("random line, {name}, {} bytes", short(bytes as f64));
    let variants: &mut [crate::context::Variant] =
        &mut [("one after the other", &mut chase), ("32 at a time", &mut few), ("64 at a time", &mut many)];
    Ok((pages, context.compare(&setting, "ns/line", variants)?))
}

/// ns per line of `count` asked for together.
fn ahead(lines: &[Line], seed: &mut u64, count: usize, steps: u32) -> anyhow::Result<f64> {
    let mut chosen = [0; AHEAD[1]];
    let mut sum = 0_u32;
    let rounds = steps as usize / count;
    let start = Instant::now();
    for _ in 0..rounds {
        for at in &mut chosen[..count] {
            *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *at = (((*seed >> 32) * lines.len() as u64) >> 32) as usize;
            prefetch::line(&lines[*at]);
        }
        for &at in &chosen[..count] {
            sum = sum.wrapping_add(lines[at][0]);
        }
    }
    black_box(sum);
    let ns = start.elapsed().as_nanos() as f64;
    ensure!(rounds > 0, "no round of {count}");
    Ok(ns / (rounds * count) as f64)
}

/// Memory of small pages whatever the system does with the rest.
#[derive(Debug)]
struct SmallPages(Arc<TableMemory>);

impl Lender for SmallPages {
    fn lend(
        &self,
        request: &lb_dataplane::conn::memory::Request,
    ) -> Option<lb_dataplane::conn::memory::Loan> {
        self.0.lend_small(request)
    }

    fn take_back(&self, memory: &'static mut [u8]) {
        self.0.take_back(memory);
    }
}
