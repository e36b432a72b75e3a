//! Suite `path`: what direct routing costs per packet, in memory.

use anyhow::{Context, ensure};
use lb_dataplane::director::Director;
use lb_dataplane::io::DeviceId;
use lb_dataplane::memory::{Frame, MemoryIo};
use lb_dataplane::setup::DeviceSetup;
use lb_dataplane::worker::Worker;

use std::time::Instant;

use crate::calibrate;
use crate::generator::{ACK, Generator, MAC, SYN};
use crate::peer::{TextbookBalancer, mac_rewrite};
use crate::stats::Series;

/// One row of the result.
struct Row {
    flows: u64,
    floor: Series,
    textbook: Series,
    sluice: Series,
    first: Series,
}

/// Measures and prints a Markdown table.
pub fn run(quick: bool) -> anyhow::Result<()> {
    let (pairs, packets) = if quick { (2, 200_000) } else { (10, 5_000_000) };
    println!(
        "Direct routing in memory: 60-byte TCP segments, bursts of 32, flows in random order, hot buffers."
    );
    let before = calibrate::lines();
    let rows: Vec<Row> = [1_000, 1_000_000]
        .into_iter()
        .map(|flows| measure(flows, pairs, packets))
        .collect::<Result<_, _>>()?;
    let after = calibrate::lines();
    println!();
    println!(
        "| flows | frames made and MACs rewritten | HashMap balancer | Sluice DR | Sluice less the floor | first packets (SYN) |"
    );
    println!("|---|---|---|---|---|---|");
    for row in &rows {
        let net = row.sluice.min() - row.floor.min();
        println!(
            "| {} | {} | {} | {} | {net:.1} | {} |",
            row.flows,
            shown(&row.floor),
            shown(&row.textbook),
            shown(&row.sluice),
            shown(&row.first)
        );
    }
    println!();
    println!("ns per packet, minimum / median of {pairs} alternating repetitions of {packets} packets.");
    let drift = calibrate::drift(&before, &after);
    println!("Random line, ns: {before:.1?} before, {after:.1?} after (16 KiB, 1 MiB, 64 MiB).");
    if drift > 0.05 {
        println!("VOID: the machine's memory speed moved by {:.0} % during the run.", drift * 100.0);
    }
    Ok(())
}

fn shown(series: &Series) -> String {
    format!("{:.1} / {:.1}", series.min(), series.median())
}

fn measure(flows: u64, pairs: usize, packets: u64) -> anyhow::Result<Row> {
    let mut bench = Bench::new(flows)?;
    let mut textbook = TextbookBalancer::default();
    let (mut floor_io, mut textbook_io) = (Generator::new(flows), Generator::new(flows));
    textbook_io.offer(flows, ACK);
    textbook.run(&mut textbook_io);
    ensure!(
        textbook.len() as u64 == flows,
        "the textbook balancer knows {} of {flows} connections",
        textbook.len()
    );
    let mut row = Row {
        flows,
        floor: Series::default(),
        textbook: Series::default(),
        sluice: Series::default(),
        first: Series::default(),
    };
    for pair in 0..pairs {
        eprint!("\r{flows} flows: {} of {pairs} ", pair + 1);
        let timed = |n: u64, work: &mut dyn FnMut()| {
            let start = Instant::now();
            work();
            start.elapsed().as_nanos() as f64 / n as f64
        };
        floor_io.offer(packets, ACK);
        row.floor.push(timed(packets, &mut || mac_rewrite(&mut floor_io)));
        textbook_io.offer(packets, ACK);
        row.textbook.push(timed(packets, &mut || textbook.run(&mut textbook_io)));
        bench.worker.io_mut().offer(packets, ACK);
        row.sluice.push(timed(packets, &mut || bench.drain()));
        let mut fresh = Bench::empty(flows)?;
        fresh.worker.io_mut().offer(flows, SYN);
        row.first.push(timed(flows, &mut || fresh.drain()));
        fresh.check(flows)?;
    }
    eprintln!();
    bench.check(flows)?;
    Ok(row)
}

/// A worker with its connections.
struct Bench {
    director: Director,
    worker: Worker<Generator>,
    now_ns: u64,
}

impl Bench {
    /// A worker that knows all flows as established.
    fn new(flows: u64) -> anyhow::Result<Self> {
        let mut bench = Self::empty(flows)?;
        for flags in [SYN, ACK] {
            bench.worker.io_mut().offer(flows, flags);
            bench.drain();
        }
        bench.check(flows)?;
        Ok(bench)
    }

    /// A worker that knows its servers' MAC addresses and no connection.
    fn empty(flows: u64) -> anyhow::Result<Self> {
        let max = flows.max(1024);
        let text = format!(
            r#"
            [appliance]
            workers = [0]
            [limits]
            max_connections = {max}
            [[ports]]
            name = "lan"
            device = "null"
            addresses = ["192.168.150.11/24"]
            [[services]]
            name = "web"
            vip = "192.168.150.100"
            port = 80
            protocol = "tcp"
            scheduler = "rr"
            forwarding = "dr"
            servers = [
                {{ address = "192.168.150.12" }},
                {{ address = "192.168.150.13" }},
                {{ address = "192.168.150.14" }},
                {{ address = "192.168.150.15" }},
            ]
            "#
        );
        let model = lb_config::parse(&text).context("the bench's configuration")?;
        let (mut director, mut seeds) = Director::new(&model, vec![DeviceSetup { mac: MAC, rss: true }])?;
        let seed = seeds.pop().context("a worker")?;
        // the neighbours are resolved in memory first, then the worker goes on with the generator
        let mut ports = MemoryIo::for_workers(1, 1);
        let mut teacher = Worker::new(seed, ports.remove(0))?;
        for server in 12..16 {
            teacher.io_mut().receive[0].push_back(Frame::new(DeviceId(0), &arp_reply(server)));
        }
        director.poll(0);
        teacher.turn(1_000_000);
        director.poll(1);
        let worker = teacher.with_io(Generator::new(flows));
        Ok(Self { director, worker, now_ns: 2_000_000 })
    }

    /// Works until the generator has no more frames. Time goes on by a microsecond a turn.
    fn drain(&mut self) {
        while self.worker.io_mut().left() > 0 {
            self.now_ns += 1_000;
            self.worker.turn(self.now_ns);
        }
    }

    /// The census: every flow is one connection, nothing was dropped.
    fn check(&self, flows: u64) -> anyhow::Result<()> {
        let dropped: Vec<_> = self.director.drops().into_iter().filter(|(_, count)| *count > 0).collect();
        ensure!(dropped.is_empty(), "packets were dropped: {dropped:?}");
        let connections = self.director.workers()[0].connections;
        ensure!(connections == flows, "{connections} connections instead of {flows}");
        Ok(())
    }
}

/// 192.168.150.`server` answers the director.
fn arp_reply(server: u8) -> [u8; 60] {
    let mut frame = [0; 60];
    frame[..6].copy_from_slice(&MAC);
    frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, server]);
    frame[12..22].copy_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, 2]);
    frame[22..28].copy_from_slice(&[2, 0, 0, 0, 0, server]);
    frame[28..32].copy_from_slice(&[192, 168, 150, server]);
    frame[32..38].copy_from_slice(&MAC);
    frame[38..42].copy_from_slice(&[192, 168, 150, 11]);
    frame
}
