//! Suite `workers`: what a second worker brings, and whether two of them get in each other's way.
//!
//! Workers run on threads pinned to CPUs of their own, the last first, as the first CPU has the interrupts; each makes its
//! own frames, on ports in memory. Time is that which a worker's thread had its CPU, so that what else runs on a machine
//! of two CPUs takes none of it. The peer of two workers of one director is two
//! directors with a worker each, which share nothing at all: whatever two workers lose against those is the price of
//! what they share. With NAT every second packet, of either direction, arrives at the worker that does not own it.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::ensure;

use crate::context::Context;
use crate::record::Table;
use crate::rig::{Kind, Ports, Rig, cpus, pin, worked_ns};
use crate::stats::{Series, short};

/// Measures one and two workers.
pub fn run(context: &mut Context) -> anyhow::Result<()> {
    let cpus: Vec<usize> = cpus()?.into_iter().rev().collect();
    let (flows, time) = if context.quick() {
        (1_000, Duration::from_millis(20))
    } else {
        (1_000_000, Duration::from_millis(400))
    };
    let columns = [
        "forwarding",
        "one worker",
        "two workers",
        "two directors",
        "times faster than one",
        "share lost to the other",
    ];
    let mut table = Table::new("ns per packet of all workers together, minimum / median", &columns);
    for kind in [Kind::Dr, Kind::Nat] {
        let rig = |workers, flows| -> anyhow::Result<_> {
            Ok(Rig::new(kind, workers, flows)?.with_ios(Ports::for_workers(kind, workers, flows)))
        };
        let (mut one, mut two) = ([rig(1, flows)?], [rig(2, flows)?]);
        let mut apart = [rig(1, flows / 2)?, rig(1, flows / 2)?];
        let setting = format!("{}, {} connections", name(kind), short(flows as f64));
        let mut single = || timed(&mut one, &cpus, time);
        if cpus.len() < 2 {
            context.compare(&setting, "ns/packet", &mut [("one worker", &mut single)])?;
            context.skip(format!("{setting}, two workers"), "one CPU is open to this process");
            continue;
        }
        let mut double = || timed(&mut two, &cpus, time);
        let mut independent = || timed(&mut apart, &cpus, time);
        let series = context.compare(
            &setting,
            "ns/packet",
            &mut [
                ("one worker", &mut single),
                ("two workers", &mut double),
                ("two directors", &mut independent),
            ],
        )?;
        one[0].census(flows)?;
        two[0].census(flows)?;
        let handed: u64 = two[0].director.workers().iter().map(|worker| worker.handed_over).sum();
        let total: u64 = two[0].workers.iter_mut().map(|worker| worker.io_mut().sent).sum();
        context.note(format!(
            "{}: {:.1} % of the packets of two workers were handed over.",
            name(kind),
            handed as f64 / total.max(1) as f64 * 100.0
        ));
        table.row(row(kind, &series));
    }
    if cpus.len() >= 2 {
        context.table(table);
    }
    context.note(
        "No cache line is written by two workers while packets pass, but for the rings by which they hand packets over \
         (`counters::tests::no_cache_line_is_written_by_two_workers`): with direct routing what two workers lose against two \
         directors that share nothing is noise, with NAT it is the way through the rings. Everything else on this machine \
         runs on the same two CPUs.",
    );
    Ok(())
}

fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Dr => "DR",
        Kind::Nat => "NAT, both directions",
    }
}

fn row(kind: Kind, series: &[Series]) -> Vec<String> {
    let (one, two, apart) = (&series[0], &series[1], &series[2]);
    vec![
        name(kind).to_owned(),
        one.shown(),
        two.shown(),
        apart.shown(),
        format!("{:.2}", one.ratio(two)),
        format!("{:.1} %", (two.ratio(apart) - 1.0) * 100.0),
    ]
}

/// Runs every worker of these rigs at once for so long; ns per packet that was sent, of all workers together.
fn timed(rigs: &mut [Rig<Ports>], cpus: &[usize], time: Duration) -> anyhow::Result<f64> {
    let stop = AtomicBool::new(false);
    let count = rigs.iter().map(|rig| rig.workers.len()).sum::<usize>();
    let barrier = Barrier::new(count + 1);
    let rate = std::thread::scope(|scope| -> anyhow::Result<_> {
        let mut threads = Vec::new();
        let mut cpus = cpus.iter();
        for rig in rigs.iter_mut() {
            let start_ns = rig.now_ns;
            // bounds how far their clock can get: a turn takes longer than 10 ns
            rig.now_ns += time.as_nanos() as u64 / 10 * 1_000;
            for worker in &mut rig.workers {
                let cpu = cpus.next().copied();
                let (stop, barrier) = (&stop, &barrier);
                threads.push(scope.spawn(move || -> anyhow::Result<f64> {
                    let pinned = cpu.map_or(Ok(()), pin);
                    let before = worker.io_mut().sent;
                    worker.io_mut().left = u64::MAX;
                    barrier.wait();
                    let (from, start) = (worked_ns(), Instant::now());
                    let mut now_ns = start_ns;
                    while !stop.load(Relaxed) {
                        now_ns += 1_000;
                        worker.turn(now_ns);
                    }
                    let wall = start.elapsed().as_nanos() as u64;
                    let worked = from.zip(worked_ns()).map_or(wall, |(from, until)| until - from);
                    worker.io_mut().left = 0;
                    let sent = worker.io_mut().sent - before;
                    pinned.map(|()| sent as f64 / worked.max(1) as f64)
                }));
            }
        }
        barrier.wait();
        std::thread::sleep(time);
        stop.store(true, Relaxed);
        let mut rate = 0.0;
        for thread in threads {
            rate += thread.join().map_err(|_| anyhow::anyhow!("a worker panicked"))??;
        }
        Ok(rate)
    })?;
    ensure!(rate > 0.0, "no packet was sent");
    Ok(1.0 / rate)
}
