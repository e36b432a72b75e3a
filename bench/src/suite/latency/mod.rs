//! Suite `latency`: how long packets stay in a worker at half of what it can take, and what it costs to look.
//!
//! Open loop, as RFC 2544 section 26.2: packets arrive by a schedule that was made before, whether or not the worker is
//! ready, and a packet's time runs from when it was due, so that a pause counts for all packets that it delays (no
//! coordinated omission). The ports are in memory; their stamps are of the CPU's time-stamp counter.
//!
//! A generator on another CPU would be a disturbance of its own where there are two, so it works in the worker's thread,
//! and the clock stands still meanwhile: packets are due, and stamped, by the worker's own time, as if another machine
//! made them. So is the load of which half is offered.
//!
//! A virtual machine takes the CPU away some hundred times a second for 10 to 100 us and more: every packet of that time
//! is late, and at half load as many again until the queue is empty. So the clock goes no further than a limit between two
//! calls of the port: what is beyond it were others. The limit is measured: the same packets pass at full load several times, of
//! each stretch between two calls the least time is the worker's own, and the limit is several times the longest of these, 5 us
//! at the least. That what is left out is not the worker's is shown by the port alone, which the same limit is applied to.

mod paced;

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use lb_dataplane::io::{Burst, DeviceId, PacketIo as _};
use lb_dataplane::run::{Machine, run as run_worker};
use lb_dataplane::worker::Worker;
use lb_dpdk::Clock;

use crate::context::Context;
use crate::record::{Reached, Table};
use crate::rig::{Kind, Ports, Rig, cpus, pin};
use crate::stats::{Series, short};
use paced::Paced;

/// Passes of the same packets that show how long the worker itself takes between two calls of the port.
const PASSES: usize = 5;
/// So many times the longest of these is the limit, and at least so many us.
const MARGIN: u64 = 4;
const LEAST_LIMIT_US: f64 = 5.0;
/// Simulated time of a turn, ns: about what 32 packets take.
const TURN_NS: u64 = 1_000;

/// Percentiles that are reported, and their goals.
const PERCENTILES: [(f64, &str); 3] = [(0.5, "L1/p50"), (0.99, "L1/p99"), (0.999, "L1/p99.9")];

/// Measures latency.
pub fn run(context: &mut Context) -> anyhow::Result<()> {
    // a thread of its own, since it stays where it is pinned
    std::thread::scope(|scope| {
        let measured = scope.spawn(|| -> anyhow::Result<()> {
            if let Some(cpu) = cpus()?.last() {
                pin(*cpu)?;
            }
            first_come()?;
            let ticks_per_us = ticks_per_us();
            added(context, ticks_per_us)?;
            sampling(context)
        });
        measured.join().map_err(|_| anyhow::anyhow!("a worker panicked"))?
    })
}

/// Puts this thread before all ordinary ones, as `lbd` may be told to; where that is not allowed it stays as it is.
fn first_come() -> anyhow::Result<()> {
    let thread = nix::unistd::gettid().to_string();
    let _ = std::process::Command::new("chrt").args(["--fifo", "--pid", "10", &thread]).output();
    Ok(())
}

/// Rate of the time-stamp counter.
fn ticks_per_us() -> f64 {
    let (start, from) = (Instant::now(), Clock::ticks());
    std::thread::sleep(Duration::from_millis(50));
    (Clock::ticks() - from) as f64 / start.elapsed().as_nanos() as f64 * 1000.0
}

/// L1: the time between arrival and sending.
fn added(context: &mut Context, ticks_per_us: f64) -> anyhow::Result<()> {
    let (flows, packets) = if context.quick() { (1_000, 50_000) } else { (1_000_000, 3_000_000) };
    let mut table = Table::new(
        "us from arrival to sending at half load, median of the rounds",
        &[
            "",
            "load, M packets/s",
            "p50",
            "p99",
            "p99.9",
            "longest",
            "lost",
            "others had the CPU, times a second",
            "share of the time",
        ],
    );
    for kind in [Kind::Dr, Kind::Nat] {
        let paced = |interval| {
            let ports = Ports::for_workers(kind, 1, flows).into_iter().next().context("no ports")?;
            anyhow::Ok(Paced::new(ports, interval))
        };
        let Rig { director, mut workers, mut now_ns } = Rig::new(kind, 1, flows)?;
        let worker = workers.pop().context("no worker")?;
        // at full load every packet is due at once
        let mut worker = worker.with_io(paced(0.0)?);
        worker.io_mut().stretches = Some(Vec::new());
        for _ in 0..PASSES {
            closed(&mut worker, &mut now_ns, packets);
        }
        let stretches = worker.io_mut().stretches.take().unwrap_or_default();
        let longest = stretches.iter().copied().max().map_or(0, u64::from);
        let limit = (MARGIN * longest).max((LEAST_LIMIT_US * ticks_per_us) as u64);
        worker.io_mut().limit = limit;
        let full = (0..3).map(|_| closed(&mut worker, &mut now_ns, packets)).min().unwrap_or(0);
        let full = full as f64 / packets as f64 / ticks_per_us * 1000.0;
        let interval = full * 2.0 * ticks_per_us / 1000.0;
        let setting = format!("{kind:?}, {} connections, half load", short(flows as f64));
        let mut worker = worker.with_io(paced(interval)?);
        let mut echo = paced(interval)?;
        (worker.io_mut().limit, echo.limit) = (limit, limit);
        let pairs = context.pairs();
        let [own, floor] = context.cell(&setting, |context| {
            let [mut own, mut floor] = [(); 2].map(|()| Figures::default());
            let mut progress = context.progress(&setting, pairs as u64);
            for round in 0..pairs {
                open(&mut worker, &mut now_ns, packets);
                own.take(worker.io_mut(), ticks_per_us);
                echoed(&mut echo, packets);
                floor.take(&mut echo, ticks_per_us);
                progress.step(1);
                context.glance(round as f64 / pairs as f64);
            }
            Ok([own, floor])
        })?;
        let drops: u64 = director.drops().iter().map(|(_, count)| count).sum();
        ensure!(drops == 0, "{drops} packets were dropped");
        for (figures, name) in [(&own, "Sluice"), (&floor, "port alone")] {
            for ((percentile, _), series) in PERCENTILES.iter().zip(&figures.percentiles) {
                context.record(&format!("{setting}, p{}", percentile * 100.0), name, "us", series.clone());
            }
            let shown = figures.percentiles.iter().map(|series| format!("{:.2}", series.median()));
            let load = format!("{:.2}", 1000.0 / (full * 2.0));
            let rest = [
                format!("{:.1}", figures.longest.median()),
                figures.lost.to_string(),
                format!("{:.0}", figures.gaps_a_second()),
                format!("{:.2} %", figures.others_share() * 100.0),
            ];
            table.row([format!("{kind:?}, {name}"), load].into_iter().chain(shown).chain(rest));
        }
        let limit_us = limit as f64 / ticks_per_us;
        context.note(format!(
            "{kind:?}: the longest stretch of the worker's between two calls of its port took {:.2} us, the least of {PASSES} passes \
             of each; what exceeded {limit_us:.2} us were others.",
            longest as f64 / ticks_per_us
        ));
        let note = format!(
            "{:.0} stretches a second exceeded {limit_us:.1} us and count as that, {:.2} % of the time left out; of the port alone {:.0}",
            own.gaps_a_second(),
            own.others_share() * 100.0,
            floor.gaps_a_second()
        );
        for ((_, goal), (own, floor)) in
            PERCENTILES.iter().zip(own.percentiles.iter().zip(&floor.percentiles))
        {
            let reached = Reached::new(goal, own.median()).case(format!("{kind:?}")).note(note.as_str());
            context.reached(reached.peer("port without a worker", floor.median()))?;
        }
    }
    context.table(table);
    context.note(
        "The port alone receives and sends at the same rate without a worker between: how often others had the CPU for longer \
         than the limit there (timer interrupts, the hypervisor, other processes) is how often they had it from the worker. \
         What the port does itself is in no figure.",
    );
    Ok(())
}

/// The worker's own time for so many packets at full load, ticks.
fn closed(worker: &mut Worker<Paced>, now_ns: &mut u64, packets: u64) -> u64 {
    open(worker, now_ns, packets);
    worker.io_mut().now() - worker.io_mut().start
}

/// A worker at the rate of its ports.
fn open(worker: &mut Worker<Paced>, now_ns: &mut u64, packets: u64) {
    worker.io_mut().begin(packets);
    while worker.io_mut().left > 0 || !worker.io_mut().due.is_empty() {
        *now_ns += TURN_NS;
        worker.turn(*now_ns);
    }
}

/// The port without a worker, at the same rate.
fn echoed(echo: &mut Paced, packets: u64) {
    echo.begin(packets);
    while echo.left > 0 || !echo.due.is_empty() {
        let mut burst = Burst::new();
        let side = DeviceId(echo.side);
        echo.rx(side, &mut burst);
        if !burst.is_empty() {
            echo.tx(DeviceId(0), &mut burst);
        }
    }
}

/// What rounds have shown.
#[derive(Default)]
struct Figures {
    percentiles: [Series; PERCENTILES.len()],
    longest: Series,
    lost: u64,
    /// How often others had the CPU, how long, and the worker's time, s.
    gaps: u64,
    others_s: f64,
    own_s: f64,
}

impl Figures {
    fn gaps_a_second(&self) -> f64 {
        self.gaps as f64 / (self.own_s + self.others_s)
    }

    fn others_share(&self) -> f64 {
        self.others_s / (self.own_s + self.others_s)
    }

    fn take(&mut self, io: &mut Paced, ticks_per_us: f64) {
        self.gaps += io.gaps;
        self.others_s += io.others as f64 / ticks_per_us / 1e6;
        self.own_s += (io.now() - io.start) as f64 / ticks_per_us / 1e6;
        let taken = &mut io.taken;
        // the first tenth warms caches
        taken.drain(..taken.len() / 10);
        taken.sort_unstable();
        let at = |q: f64| taken.get((taken.len() as f64 * q) as usize).copied().unwrap_or_default();
        for ((percentile, _), series) in PERCENTILES.iter().zip(&mut self.percentiles) {
            series.push(f64::from(at(*percentile)) / ticks_per_us);
        }
        self.longest.push(f64::from(taken.last().copied().unwrap_or_default()) / ticks_per_us);
        self.lost += io.lost;
    }
}

/// The loop's machine: a clock, samples of every `EVERY`th turn, and an end when there are no more packets.
struct Loop<'a, const EVERY: u32> {
    start_ns: u64,
    start: u64,
    ticks_per_ns: f64,
    stop: &'a AtomicBool,
    last: Cell<u64>,
}

impl<const EVERY: u32> Machine for Loop<'_, EVERY> {
    const SAMPLE_EVERY: u32 = EVERY;

    #[inline]
    fn now_ns(&self) -> u64 {
        let now = self.start_ns + ((Clock::ticks() - self.start) as f64 / self.ticks_per_ns) as u64;
        self.last.set(now);
        now
    }

    fn idle(&self, _turns: u32) {
        self.stop.store(true, Relaxed);
    }
}

/// ns per packet of lbd's own loop.
fn looped<const EVERY: u32>(rig: &mut Rig<Ports>, packets: u64, ticks_per_ns: f64) -> anyhow::Result<f64> {
    let stop = AtomicBool::new(false);
    let start = Clock::ticks();
    let (start_ns, last) = (rig.now_ns, Cell::new(rig.now_ns));
    let machine = Loop::<EVERY> { start_ns, start, ticks_per_ns, stop: &stop, last };
    let before = Instant::now();
    for worker in &mut rig.workers {
        worker.io_mut().left = packets;
        run_worker(worker, &machine, &stop);
    }
    let elapsed = before.elapsed();
    rig.now_ns = machine.last.get();
    Ok(elapsed.as_nanos() as f64 / packets as f64)
}

/// L2: the same loop with samples and without.
fn sampling(context: &mut Context) -> anyhow::Result<()> {
    // few flows: the cheapest packets, on which the samples weigh most
    const FLOWS: u64 = 1_000;
    let (rounds, packets) = if context.quick() { (4, 50_000) } else { (200, 400_000) };
    let ticks_per_ns = ticks_per_us() / 1000.0;
    let rig = || -> anyhow::Result<_> {
        Ok(Rig::new(Kind::Dr, 1, FLOWS)?.with_ios(Ports::for_workers(Kind::Dr, 1, FLOWS)))
    };
    // one rig for both, so that both have the same memory
    let rig = std::cell::RefCell::new(rig()?);
    let mut sampled = || looped::<16>(&mut rig.borrow_mut(), packets, ticks_per_ns);
    let mut bare = || looped::<0>(&mut rig.borrow_mut(), packets, ticks_per_ns);
    let series = context.compare_rounds(
        rounds,
        "DR, 1 k connections, lbd's loop",
        "ns/packet",
        &mut [("with samples", &mut sampled), ("without", &mut bare)],
    )?;
    rig.borrow().census(FLOWS)?;
    let pairs = series[0].samples().iter().zip(series[1].samples());
    let mut differences = Series::default();
    pairs.for_each(|(with, without)| differences.push(with - without));
    let fewest = series[0].min() - series[1].min();
    context.note(format!(
        "Samples are always taken, of every 16th turn; a timed turn ends where the next begins, whose time is read anyhow. \
         With samples {} ns/packet, without {}; median of the differences of neighbouring runs {:.3}, difference of the \
         minima {fewest:.3} ns/packet.",
        series[0].shown(),
        series[1].shown(),
        differences.median(),
    ));
    context.reached(
        Reached::new("L2", differences.median().max(0.0))
            .note(format!("median of {rounds} pairs; a difference below 0 counts as 0")),
    )
}
