//! Suite `flood`: what is left of established traffic while first packets come at twice the capacity.
//!
//! The capacity for each kind of packet is measured first, with frames always there. Then established packets come at
//! 30 % of what the worker could forward of them alone, and first packets at twice what it could take in of them alone:
//! 2.3 times what it can do in all.

mod nic;

use std::time::Duration;

use anyhow::ensure;
use lb_dataplane::director::{Director, WorkerRow};
use lb_dataplane::worker::Worker;

use crate::context::Context;
use crate::frames::Family;
use crate::generator::HOT;
use crate::packet::Buf;
use crate::record::{Reached, Table};
use crate::site::{Forwarding, Plan, Site};
use crate::stats::{Series, short};
use nic::{Flood, Nic};

/// Established packets come at this share of what could be forwarded of them.
const SHARE: f64 = 0.3;
/// First packets come at so many times what could be taken in of them.
const TIMES: f64 = 2.0;
/// A UDP service beside the site's own.
const DNS: &str = r#"
    [[services]]
    name = "dns"
    vip = "192.168.150.100"
    port = 53
    protocol = "udp"
    scheduler = "rr"
    forwarding = "dr"
    servers = [{ address = "192.168.160.1" }, { address = "192.168.160.2" }]
"#;

/// One case.
struct Case {
    name: &'static str,
    forwarding: Forwarding,
    flood: Flood,
    syn_proxy: &'static str,
    syn_flood: u8,
    /// The worker knows how many frames wait.
    sheds: bool,
}

const CASES: [Case; 8] = [
    Case {
        name: "DR",
        forwarding: Forwarding::Dr,
        flood: Flood::Syn,
        syn_proxy: "off",
        syn_flood: 10,
        sheds: true,
    },
    Case {
        name: "TUN IPIP",
        forwarding: Forwarding::Ipip,
        flood: Flood::Syn,
        syn_proxy: "off",
        syn_flood: 10,
        sheds: true,
    },
    Case {
        name: "NAT",
        forwarding: Forwarding::Nat,
        flood: Flood::Syn,
        syn_proxy: "off",
        syn_flood: 10,
        sheds: true,
    },
    Case {
        name: "NAT, SYN proxy",
        forwarding: Forwarding::Nat,
        flood: Flood::Syn,
        syn_proxy: "auto",
        syn_flood: 10,
        sheds: true,
    },
    Case {
        name: "full NAT, SYN proxy",
        forwarding: Forwarding::FullNat,
        flood: Flood::Syn,
        syn_proxy: "auto",
        syn_flood: 10,
        sheds: true,
    },
    Case {
        name: "DR, ACK flood",
        forwarding: Forwarding::Dr,
        flood: Flood::Ack,
        syn_proxy: "off",
        syn_flood: 10,
        sheds: true,
    },
    Case {
        name: "DR, UDP flood",
        forwarding: Forwarding::Dr,
        flood: Flood::Udp,
        syn_proxy: "off",
        syn_flood: 10,
        sheds: true,
    },
    Case {
        name: "DR, without shedding",
        forwarding: Forwarding::Dr,
        flood: Flood::Syn,
        syn_proxy: "off",
        syn_flood: 0,
        sheds: false,
    },
];

/// A worker at its port.
struct Bench {
    director: Director,
    worker: Worker<Nic>,
    now_ns: u64,
}

impl Bench {
    fn turn(&mut self) {
        let worked = self.worker.io_mut().worked().as_nanos() as u64;
        self.worker.turn(self.now_ns + worked);
    }

    fn pass(&mut self, time: Duration) {
        while self.worker.io_mut().worked() < time {
            self.turn();
        }
        self.now_ns += self.worker.io_mut().worked().as_nanos() as u64;
        self.director.poll(self.now_ns / 1_000_000);
    }

    /// Packets a second when there are always more of this kind; `share` of 256 are established.
    fn capacity(&mut self, share: u8, time: Duration) -> f64 {
        let io = self.worker.io_mut();
        (io.endless, io.tells) = (Some(share), false);
        io.begin(0.0, 0.0);
        self.pass(time);
        let io = self.worker.io_mut();
        io.endless = None;
        let came: u64 = io.streams.iter().map(|stream| stream.came).sum();
        came as f64 / io.worked().as_secs_f64()
    }

    fn row(&self) -> WorkerRow {
        self.director.workers().remove(0)
    }

    /// Frames dropped so far, and of these those that were shed.
    fn drops(&self) -> u64 {
        self.director.drops().iter().map(|(_, count)| count).sum()
    }

    fn shed(&self) -> u64 {
        let shed = |(reason, _): &&(_, u64)| *reason == lb_dataplane::DropReason::Overload;
        self.director.drops().iter().find(shed).map_or(0, |(_, count)| *count)
    }

    /// Capacities, and the flood for so long.
    fn flooded(&mut self, case: &Case, probe: Duration, time: Duration) -> Flooded {
        // with the table as full as the flood will make it, and whatever mode that brings
        let first = self.capacity(0, probe).min(self.capacity(0, probe));
        let established = self.capacity(255, probe);
        let (before, dropped, shed) = (self.row(), self.drops(), self.shed());
        let io = self.worker.io_mut();
        io.tells = case.sheds;
        io.begin(SHARE * established, TIMES * first);
        self.pass(time);
        let (after, dropped, shed) = (self.row(), self.drops() - dropped, self.shed() - shed);
        let io = self.worker.io_mut();
        let (mut streams, worked, stolen) = (io.streams, io.worked(), io.stolen);
        streams[0].came -= io.waiting();
        Flooded { capacity: [established, first], before, after, streams, worked, stolen, dropped, shed }
    }
}

/// What a flood did.
struct Flooded {
    /// Packets a second: established, first.
    capacity: [f64; 2],
    before: WorkerRow,
    after: WorkerRow,
    /// Established ones that still wait are not counted as come.
    streams: [nic::Stream; 2],
    worked: Duration,
    stolen: Duration,
    dropped: u64,
    shed: u64,
}

/// Runs the suite.
pub fn run(context: &mut Context) -> anyhow::Result<()> {
    context.note(format!(
        "60-byte frames over IPv4, one worker, a receive queue of {} frames that loses what it has no room for. Established \
         packets come at {:.0} % of what the worker forwards of them alone, first packets (each of its own client) at {TIMES} \
         times what it takes in of them alone, both measured right before in the same table. Time is the worker's: what the \
         port in memory does is not counted, nor is time in which the system ran others.",
        nic::QUEUE,
        SHARE * 100.0
    ));
    context.note(
        "Evicted: closed, embryonic, one-way, closing. ACKs of no connection are no first packets: nothing of theirs is left \
         to shed, so twice what the worker can drop is more than it can drop.",
    );
    let mut table = Table::new(
        "Established traffic while first packets come at twice the capacity",
        &[
            "flood",
            "capacity, established / first, M/s",
            "came, M/s",
            "established forwarded",
            "lost: queue / worker",
            "first packets sent on",
            "shed",
            "evicted",
            "established left",
        ],
    );
    for case in &CASES {
        measure(context, &mut table, case)?;
    }
    context.table(table);
    Ok(())
}

fn site(context: &Context, case: &Case) -> anyhow::Result<(Bench, u64)> {
    let flows = if context.quick() { 50_000 } else { 1_000_000 };
    let mut plan = Plan::new(case.forwarding, Family::V4, flows);
    (plan.spare, plan.syn_flood, plan.syn_proxy) = (flows / 4, case.syn_flood, case.syn_proxy);
    if case.flood == Flood::Udp {
        plan.more = DNS.to_owned();
    }
    let Site { director, worker, .. } = Site::established(plan, Buf::pool(HOT))?;
    let worker = worker.with_io(Nic::new(flows, case.flood));
    Ok((Bench { director, worker, now_ns: 1_000_000_000 }, flows))
}

fn measure(context: &mut Context, table: &mut Table, case: &Case) -> anyhow::Result<()> {
    let quick = context.quick();
    let (probe, time) = if quick { (20, 100) } else { (300, 3000) };
    let (probe, time) = (Duration::from_millis(probe), Duration::from_millis(time));
    let mut progress = context.progress(case.name, 4);
    let (mut bench, flows) = site(context, case)?;
    progress.step(1);
    let setting = format!("flood, {}", case.name);
    let Flooded {
        capacity: [established, first],
        before,
        after,
        streams: [est, new],
        worked,
        stolen,
        dropped,
        shed,
    } = context.cell(&setting, |_| Ok(bench.flooded(case, probe, time)))?;
    progress.step(2);
    let came = est.came;
    let failed = came - est.overflowed - est.sent;
    let io = bench.worker.io_mut();
    // the census: each established flow still has its connection
    io.begin(1e6, 0.0);
    let refused = (bench.row().stateless, bench.drops());
    bench.pass(Duration::from_secs_f64(flows as f64 * 1.05 / 1e6));
    let census = bench.row();
    let lost = census.stateless - refused.0 + bench.drops() - refused.1;
    progress.step(1);
    let forwarded = 100.0 * est.sent as f64 / came.max(1) as f64;
    let rate = |count: u64| count as f64 / worked.as_secs_f64() / 1e6;
    let evicted: Vec<_> =
        after.evicted.iter().zip(before.evicted).map(|(a, b)| short((a - b) as f64)).collect();
    table.row([
        case.name.to_owned(),
        format!("{:.1} / {:.1}", established / 1e6, first / 1e6),
        format!("{:.1} + {:.1}", rate(est.came), rate(new.came)),
        format!("{forwarded:.3} %"),
        format!("{} / {}", short(est.overflowed as f64), short(failed as f64)),
        format!("{:.2} M/s", rate(new.sent)),
        short(shed as f64),
        evicted.join(" / "),
        if lost == 0 { "all".to_owned() } else { format!("{lost} of {} lost", short(flows as f64)) },
    ]);
    let mut series = Series::default();
    series.push(forwarded);
    context.record(&setting, "established forwarded", "%", series);
    ensure!(dropped + new.overflowed > 0 || !case.sheds || quick, "{}: the flood was none", case.name);
    if case.sheds && case.flood != Flood::Ack {
        let note = format!(
            "{:.0} ms of others' time left out of {:.1} s",
            stolen.as_secs_f64() * 1e3,
            worked.as_secs_f64()
        );
        context.reached(Reached::new("S2/forwarded", forwarded).case(case.name).note(note))?;
        context.reached(Reached::new("S2/evicted", lost as f64).case(case.name).counted())?;
    }
    Ok(())
}
