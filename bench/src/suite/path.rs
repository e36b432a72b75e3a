//! Suite `path`: what direct routing costs per packet, in memory.

use anyhow::{Context as _, ensure};
use lb_dataplane::director::Director;
use lb_dataplane::io::DeviceId;
use lb_dataplane::memory::{Frame, MemoryIo};
use lb_dataplane::setup::DeviceSetup;
use lb_dataplane::worker::Worker;

use std::time::Instant;

use crate::context::Context;
use crate::generator::{ACK, Generator, MAC, SYN};
use crate::peer::{TextbookBalancer, mac_rewrite};
use crate::record::{Plot, Reached, Table};
use crate::stats::short;

/// Measures direct routing.
pub fn run(context: &mut Context) -> anyhow::Result<()> {
    let packets = if context.quick() { 200_000 } else { 5_000_000 };
    let columns = [
        "flows",
        "frames made and MACs rewritten",
        "HashMap balancer",
        "Sluice DR",
        "less the floor",
        "first packets",
    ];
    let mut table = Table::new("Direct routing, ns per packet, minimum / median", &columns);
    let mut plot =
        Plot::new("dr", "Direct routing in memory", "connections", "ns per packet, less the floor");
    let (mut own, mut peer) = (Vec::new(), Vec::new());
    for (flows, goal) in [(1_000, "P1"), (1_000_000, "P2")] {
        let mut bench = Bench::new(flows)?;
        let mut textbook = TextbookBalancer::default();
        let (mut floor_io, mut textbook_io) = (Generator::new(flows), Generator::new(flows));
        textbook_io.offer(flows, ACK);
        textbook.run(&mut textbook_io);
        let known = textbook.len() as u64;
        ensure!(known == flows, "the textbook balancer knows {known} of {flows} connections");
        let mut floor = || {
            floor_io.offer(packets, ACK);
            timed(packets, || mac_rewrite(&mut floor_io))
        };
        let mut peer_work = || {
            textbook_io.offer(packets, ACK);
            timed(packets, || textbook.run(&mut textbook_io))
        };
        let mut hits = || {
            bench.worker.io_mut().offer(packets, ACK);
            timed(packets, || bench.drain())
        };
        let mut first = || {
            let mut fresh = Bench::empty(flows)?;
            fresh.worker.io_mut().offer(flows, SYN);
            let ns = timed(flows, || fresh.drain());
            fresh.check(flows)?;
            ns
        };
        let series = context.compare(
            &format!("DR IPv4, {} connections", short(flows as f64)),
            "ns/packet",
            &mut [
                ("floor", &mut floor),
                ("HashMap", &mut peer_work),
                ("Sluice", &mut hits),
                ("Sluice, first", &mut first),
            ],
        )?;
        bench.check(flows)?;
        let (reached, hash_map) = (series[2].above(&series[0]), series[1].above(&series[0]));
        context.reached(Reached::new(goal, reached).peer("HashMap balancer", hash_map))?;
        own.push((flows as f64, reached));
        peer.push((flows as f64, hash_map));
        table.row([
            short(flows as f64),
            series[0].shown(),
            series[1].shown(),
            series[2].shown(),
            format!("{reached:.1}"),
            series[3].shown(),
        ]);
    }
    context.table(table);
    plot.line("Sluice DR", own);
    plot.line("HashMap balancer", peer);
    context.plot(plot);
    Ok(())
}

/// ns per unit of `n` units of work.
fn timed(n: u64, work: impl FnOnce()) -> anyhow::Result<f64> {
    let start = Instant::now();
    work();
    Ok(start.elapsed().as_nanos() as f64 / n as f64)
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
