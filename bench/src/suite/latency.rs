//! Suite `latency`: how long packets stay in a worker at half of what it can take, and what it costs to look.
//!
//! Open loop, as RFC 2544 section 26.2: packets arrive by a schedule that was made before, whether or not the worker is
//! ready, and a packet's time runs from when it was due, so that a pause counts for all packets that it delays (no
//! coordinated omission). The ports are in memory; their stamps are of the CPU's time-stamp counter.
//!
//! A generator on another CPU would be a disturbance of its own where there are two, so it works in the worker's thread,
//! and the clock stands still meanwhile: packets are due, and stamped, by the worker's own time, as if another machine
//! made them. So is the load of which half is offered.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use lb_dataplane::io::{Burst, DeviceId, PacketIo, WorkerId};
use lb_dataplane::memory::Frame;
use lb_dataplane::run::{Machine, run as run_worker};
use lb_dataplane::worker::Worker;
use lb_dpdk::Clock;

use crate::context::Context;
use crate::record::{Reached, Table};
use crate::rig::{Kind, Ports, Rig, cpus, pin};
use crate::stats::{Series, short};

/// Packets that may be late before they are lost: a NIC's queue.
const QUEUE: u64 = 4096;

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
            let ticks_per_us = ticks_per_us();
            added(context, ticks_per_us)?;
            sampling(context)
        });
        measured.join().map_err(|_| anyhow::anyhow!("a worker panicked"))?
    })
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
        &["", "load, M packets/s", "p50", "p99", "p99.9", "longest", "lost"],
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
        let full = (0..3).map(|_| closed(&mut worker, &mut now_ns, packets)).min().unwrap_or(0);
        let full = full as f64 / packets as f64 / ticks_per_us * 1000.0;
        let interval = full * 2.0 * ticks_per_us / 1000.0;
        let setting = format!("{kind:?}, {} connections, half load", short(flows as f64));
        let [mut own, mut floor] = [(); 2].map(|()| Figures::default());
        let mut worker = worker.with_io(paced(interval)?);
        let mut echo = paced(interval)?;
        let mut progress = context.progress(&setting, context.pairs() as u64);
        for _ in 0..context.pairs() {
            open(&mut worker, &mut now_ns, packets);
            own.take(worker.io_mut(), ticks_per_us);
            echo.begin(packets);
            while echo.left > 0 || !echo.due.is_empty() {
                let mut burst = Burst::new();
                let side = DeviceId(echo.side);
                echo.rx(side, &mut burst);
                if !burst.is_empty() {
                    echo.tx(DeviceId(0), &mut burst);
                }
            }
            floor.take(&mut echo, ticks_per_us);
            progress.step(1);
        }
        drop(progress);
        let drops: u64 = director.drops().iter().map(|(_, count)| count).sum();
        ensure!(drops == 0, "{drops} packets were dropped");
        for (figures, name) in [(&own, "Sluice"), (&floor, "port alone")] {
            for ((percentile, _), series) in PERCENTILES.iter().zip(&figures.percentiles) {
                context.record(&format!("{setting}, p{}", percentile * 100.0), name, "us", series.clone());
            }
            let shown = figures.percentiles.iter().map(|series| format!("{:.2}", series.median()));
            let load = format!("{:.2}", 1000.0 / (full * 2.0));
            let rest = [format!("{:.0}", figures.longest.median()), figures.lost.to_string()];
            table.row([format!("{kind:?}, {name}"), load].into_iter().chain(shown).chain(rest));
        }
        for ((_, goal), (own, floor)) in
            PERCENTILES.iter().zip(own.percentiles.iter().zip(&floor.percentiles))
        {
            let reached = Reached::new(goal, own.median()).case(format!("{kind:?}"));
            context.reached(reached.peer("port without a worker", floor.median()))?;
        }
    }
    context.table(table);
    context.note(
        "The port alone receives and sends at the same rate without a worker between: what it shows beyond a fraction of \
         a microsecond is the machine's (timer interrupts, the hypervisor, other processes), and a worker cannot be better. \
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
        *now_ns += 100;
        worker.turn(*now_ns);
    }
}

/// What rounds have shown.
#[derive(Default)]
struct Figures {
    percentiles: [Series; PERCENTILES.len()],
    longest: Series,
    lost: u64,
}

impl Figures {
    fn take(&mut self, io: &mut Paced, ticks_per_us: f64) {
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

/// Ports at which packets arrive by a schedule.
struct Paced {
    ports: Ports,
    /// Ticks between two packets, with 16 bits of fraction; 0: all are there at once, and none is lost.
    interval: u64,
    start: u64,
    /// Ticks that these ports took, which the clock leaves out.
    own: u64,
    /// Packets that have arrived or were lost.
    arrived: u64,
    left: u64,
    lost: u64,
    /// When each packet that the worker has was due. Packets of one worker leave in the order in which they came.
    due: VecDeque<u64>,
    /// Ticks that each packet took.
    taken: Vec<u32>,
    /// The client's side and the server's take turns, so that a turn sends on one device and keeps the order.
    side: u16,
}

impl Paced {
    fn new(ports: Ports, interval: f64) -> Self {
        let interval = (interval * 65536.0) as u64;
        Self {
            ports,
            interval,
            start: 0,
            own: 0,
            arrived: 0,
            left: 0,
            lost: 0,
            due: VecDeque::with_capacity(QUEUE as usize),
            taken: Vec::new(),
            side: 0,
        }
    }

    /// So many packets from now on.
    fn begin(&mut self, packets: u64) {
        self.taken.clear();
        self.taken.reserve(packets as usize);
        (self.arrived, self.left, self.lost) = (0, packets, 0);
        self.start = self.now();
    }

    /// The worker's time, ticks.
    #[inline]
    fn now(&self) -> u64 {
        Clock::ticks() - self.own
    }

    fn due(&self, packet: u64) -> u64 {
        self.start + ((u128::from(packet) * u128::from(self.interval)) >> 16) as u64
    }
}

impl PacketIo for Paced {
    type Packet = Frame;

    fn rx(&mut self, device: DeviceId, into: &mut Burst<Frame>) {
        if device.0 != self.side {
            return;
        }
        let now = self.now();
        while self.interval > 0 && self.left > 0 && self.due(self.arrived + QUEUE) < now {
            (self.arrived, self.left, self.lost) = (self.arrived + 1, self.left - 1, self.lost + 1);
        }
        while self.left > 0 && !into.is_full() && self.due(self.arrived) <= now {
            let Some(frame) = self.ports.make(device) else { break };
            into.push(frame);
            self.due.push_back(self.due(self.arrived));
            (self.arrived, self.left) = (self.arrived + 1, self.left - 1);
        }
        // from here on the worker's time goes on where it stood
        self.own = Clock::ticks() - now;
    }

    fn tx(&mut self, _device: DeviceId, from: &mut Burst<Frame>) {
        let now = self.now();
        for _ in 0..from.len() {
            let due = self.due.pop_front().unwrap_or(now);
            self.taken.push(u32::try_from(now.saturating_sub(due)).unwrap_or(u32::MAX));
        }
        if self.ports.kind() == Kind::Nat {
            self.side ^= 1;
        }
        self.ports.recycle(from);
        self.own = Clock::ticks() - now;
    }

    fn alloc(&mut self) -> Option<Frame> {
        None
    }

    fn hand_over(&mut self, _to: WorkerId, _from: &mut Burst<Frame>) {}

    fn take_over(&mut self, _into: &mut Burst<Frame>) {}
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
