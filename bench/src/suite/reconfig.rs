//! Suite `reconfig`: changes of the configuration while a worker runs flat out beside the control core.
//!
//! The worker forwards packets of established connections by direct routing without a pause, in a thread of its own; the
//! control thread makes one change after the other, as `lbd` makes them: edit (a copy and its checks), diff, apply, and
//! polls until the worker has taken it up and what was there before is freed. Counted are packets received, sent and
//! dropped; times of the control thread are those that it worked; the longest turn of the worker is beside that of a time without changes, as other programs interrupt it too.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use lb_config::edit::{self, ServerEdit, ServiceEdit};
use lb_config::{
    Forwarding, Model, Protocol, Scheduler, Server, ServerRef, Service, ServiceAddress, ServiceRef,
};
use lb_dataplane::director::Director;
use lb_dataplane::worker::Worker;

use crate::context::Context;
use crate::frames::{ACK, Family, Leg};
use crate::generator::{Generator, HOT, Order};
use crate::packet::Buf;
use crate::record::{Reached, Table};
use crate::rig::{cpus, on_cpu, pin, worked_ns};
use crate::site::{Forwarding as Way, Plan, Site};

/// Connections under load.
const FLOWS: u64 = 100_000;

/// Services beside the one that is under load, and servers of each.
#[derive(Clone, Copy)]
struct Shape {
    services: u32,
    servers: u32,
}

impl Shape {
    fn name(self) -> String {
        format!("{} services x {} servers", self.services, self.servers)
    }

    /// NAT to servers behind the gateway, each another address.
    fn service(self, n: u32) -> Service {
        let vip = IpAddr::from((0xc800_0000 + n).to_be_bytes());
        let server = |m: u32| {
            let address = IpAddr::from((0x2000_0000 + n * self.servers + m).to_be_bytes());
            Server::new(address, 80, Forwarding::Nat)
        };
        Service {
            scheduler: Scheduler::Wrr,
            forwarding: Forwarding::Nat,
            servers: (0..self.servers).map(server).collect(),
            ..Service::new(format!("s{n}"), ServiceAddress::Vip { vip, port: 80, protocol: Protocol::Tcp })
        }
    }

    fn fill(self, model: &Model) -> Model {
        let mut model = model.clone();
        (0..self.services).for_each(|n| model.services.push(self.service(n)));
        model
    }
}

/// What one change cost.
#[derive(Default)]
struct Cost {
    edit_ms: f64,
    diff_ms: f64,
    apply_ms: f64,
    poll_ms: f64,
}

/// Does it, and says how long this thread worked on it, ms: what other programs take of the core does not count.
fn ms<T>(work: impl FnOnce() -> T) -> (T, f64) {
    let (start, before) = (Instant::now(), worked_ns());
    let done = work();
    let wall = start.elapsed().as_secs_f64() * 1e3;
    // a kernel without the figure: the time on the wall
    let ms = before.zip(worked_ns()).map_or(wall, |(before, after)| (after - before) as f64 / 1e6);
    (done, ms)
}

/// From the model that runs to the next one.
type Change = Box<dyn Fn(&Model) -> anyhow::Result<Model>>;

/// Makes a change and waits until it is everywhere. `turn`: lets workers without a thread of their own work.
fn make(
    director: &mut Director,
    change: &Change,
    mut turn: impl FnMut(),
    now_ms: &mut u64,
) -> anyhow::Result<Cost> {
    let mut cost = Cost::default();
    let (model, edit_ms) = ms(|| change(director.model()));
    let model = model?;
    let ((), diff_ms) = ms(|| drop(lb_config::diff(director.model(), &model)));
    let (applied, apply_ms) = ms(|| director.apply(&model));
    applied?;
    (cost.edit_ms, cost.diff_ms, cost.apply_ms) = (edit_ms, diff_ms, apply_ms);
    let patience = Instant::now();
    let mut after = 0;
    while after < 25 {
        // a worker that has taken it up may still have to give back what it had
        after += u32::from(director.generation_seen() == director.generation());
        ensure!(patience.elapsed() < Duration::from_secs(60), "the worker does not take the change up");
        turn();
        *now_ms += 50;
        cost.poll_ms = cost.poll_ms.max(ms(|| director.poll(*now_ms)).1);
    }
    Ok(cost)
}

/// Every kind of change, the large ones first and last.
fn changes(shape: Shape) -> Vec<(&'static str, Change)> {
    let web = || ServiceRef::Name("web".to_owned());
    let some = move || ServiceRef::Name(format!("s{}", shape.services / 2));
    let first = |model: &Model| ServerRef::of(&model.services[0].servers[0]);
    let edited = |model: &Model, edit: &dyn Fn(&mut Model) -> anyhow::Result<()>| {
        let mut model = model.clone();
        edit(&mut model)?;
        Ok(model)
    };
    let weight = |weight| ServerEdit { weight: Some(weight), ..ServerEdit::default() };
    let scheduler = |scheduler| ServiceEdit { scheduler: Some(scheduler), ..ServiceEdit::default() };
    vec![
        ("nothing", Box::new(move |model: &Model| Ok(model.clone()))),
        ("all of them", Box::new(move |model: &Model| Ok(shape.fill(model)))),
        (
            "weight of a server under load",
            Box::new(move |model: &Model| {
                edited(model, &|m| Ok(edit::edit_server(m, &web(), first(model), &weight(3))?))
            }),
        ),
        (
            "weight of another server",
            Box::new(move |model: &Model| {
                let server = ServerRef::of(&shape.service(shape.services / 2).servers[0]);
                edited(model, &|m| Ok(edit::edit_server(m, &some(), server, &weight(3))?))
            }),
        ),
        (
            "server removed under load",
            Box::new(move |model: &Model| {
                edited(model, &|m| Ok(edit::delete_server(m, &web(), first(model)).map(drop)?))
            }),
        ),
        (
            "server added",
            Box::new(move |model: &Model| {
                let server = Server::new(IpAddr::from([31, 0, 0, 1]), 80, Forwarding::Nat);
                edited(model, &|m| Ok(edit::add_server(m, &some(), server.clone())?))
            }),
        ),
        (
            "service added",
            Box::new(move |model: &Model| {
                edited(model, &|m| Ok(edit::add_service(m, shape.service(shape.services))?))
            }),
        ),
        (
            "service removed",
            Box::new(move |model: &Model| {
                edited(model, &|m| Ok(edit::delete_service(m, &some()).map(drop)?))
            }),
        ),
        (
            "scheduler under load: maglev",
            Box::new(move |model: &Model| {
                let maglev = Scheduler::from_name("maglev")?;
                edited(model, &|m| Ok(edit::edit_service(m, &web(), &scheduler(maglev))?))
            }),
        ),
        (
            "forwarding under load: NAT",
            Box::new(move |model: &Model| {
                let edit = ServiceEdit { forwarding: Some(Forwarding::Nat), ..ServiceEdit::default() };
                edited(model, &|m| Ok(edit::edit_service(m, &web(), &edit)?))
            }),
        ),
        (
            "timeouts of the director",
            Box::new(move |model: &Model| {
                let mut model = model.clone();
                model.timeouts.udp += Duration::from_secs(1);
                edit::validate(&model)?;
                Ok(model)
            }),
        ),
        (
            "all of them gone",
            Box::new(move |model: &Model| {
                let mut model = model.clone();
                model.services.truncate(1);
                Ok(model)
            }),
        ),
    ]
}

/// What the worker's thread and the control thread tell each other.
#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    longest_ns: AtomicU64,
    /// Of each turn, so many thousandths are waited after it.
    idle: AtomicU64,
}

/// The worker's thread: packets without end.
fn labour(mut worker: Worker<Generator>, shared: &Shared, cpu: Option<usize>) -> Worker<Generator> {
    // where it may not choose, it runs where it is put
    let _ = cpu.map(pin);
    let start = Instant::now();
    let from = 10_000_000_000;
    let mut last = start;
    while !shared.stop.load(Relaxed) {
        if worker.io_mut().left() == 0 {
            worker.io_mut().offer(1 << 20);
        }
        worker.turn(from + (last - start).as_nanos() as u64);
        let now = Instant::now();
        let took = (now - last).as_nanos() as u64;
        shared.longest_ns.fetch_max(took, Relaxed);
        last = now;
        let until = took * shared.idle.load(Relaxed) / 1000;
        while until > 0 && (last - now).as_nanos() < u128::from(until) {
            last = Instant::now();
        }
    }
    worker
}

/// Measures.
pub fn run(context: &mut Context) -> anyhow::Result<()> {
    let quick = context.quick();
    let shape =
        if quick { Shape { services: 200, servers: 20 } } else { Shape { services: 10_000, servers: 100 } };
    for (goal, load, idle) in [("R4/full", "full load", 0), ("R4/90", "90 % load", 111)] {
        let lost = under_load(context, shape, load, idle)?;
        if !quick {
            context.reached(Reached::new(goal, lost as f64).counted())?;
        }
    }
    let large =
        if quick { Shape { services: 1000, servers: 16 } } else { Shape { services: 65_000, servers: 16 } };
    alone(context, large)
}

/// The site: a service with connections, and room for the others.
fn site(shape: Shape, flows: u64) -> anyhow::Result<Site> {
    let mut plan = Plan::new(Way::Dr, Family::V4, flows);
    // each server may be there twice while those that are gone are let go
    let room = 2 * (shape.services + 2) * shape.servers + 100;
    plan.limits = format!("max_services = {}\nmax_servers = {}", shape.services + 100, room);
    Site::established(plan, Buf::pool(HOT))
}

fn under_load(context: &mut Context, shape: Shape, load: &str, idle: u64) -> anyhow::Result<u64> {
    let Site { mut director, mut worker, .. } = site(shape, FLOWS)?;
    worker.io_mut().begin(Order::Round { flows: FLOWS, step: (Leg::In, ACK) });
    let shared = Shared { idle: idle.into(), ..Shared::default() };
    let mut table = Table::new(
        &format!("{} under {load}", shape.name()),
        &[
            "change",
            "edit ms",
            "diff ms",
            "apply ms",
            "longest poll ms",
            "offered",
            "forwarded",
            "dropped",
            "longest turn us",
        ],
    );
    let mut lost = 0;
    // the control thread keeps off the worker's CPU, as lbd's does
    let cpus = cpus()?;
    let last = if cpus.len() < 2 { None } else { cpus.last().copied() };
    let first = last.and(cpus.first().copied());
    let settle = Duration::from_millis(if context.quick() { 20 } else { 200 });
    std::thread::scope(|scope| -> anyhow::Result<()> {
        let thread = scope.spawn(|| labour(worker, &shared, last));
        let mut control = || -> anyhow::Result<()> {
            let mut now_ms = 10;
            for (name, change) in changes(shape) {
                let before = director.totals();
                shared.longest_ns.store(0, Relaxed);
                let cost = make(&mut director, &change, || std::thread::sleep(settle / 25), &mut now_ms)?;
                let (after, longest) = (director.totals(), shared.longest_ns.load(Relaxed));
                // the generator has no buffers for what the director says of its own: all of that is dropped
                let own = after.originated - before.originated;
                let dropped = (after.dropped - before.dropped).saturating_sub(own);
                lost += dropped;
                table.row([
                    name.to_owned(),
                    format!("{:.2}", cost.edit_ms),
                    format!("{:.2}", cost.diff_ms),
                    format!("{:.2}", cost.apply_ms),
                    format!("{:.2}", cost.poll_ms),
                    (after.rx - before.rx).to_string(),
                    (after.tx - before.tx).to_string(),
                    dropped.to_string(),
                    format!("{:.1}", longest as f64 / 1e3),
                ]);
            }
            Ok(())
        };
        let done = match first {
            Some(cpu) => on_cpu(cpu, control),
            None => control(),
        };
        shared.stop.store(true, Relaxed);
        let worker = thread.join();
        done?;
        ensure!(worker.is_ok(), "the worker's thread ended early");
        Ok(())
    })?;
    let totals = director.totals();
    ensure!(
        totals.rx + totals.originated == totals.tx + totals.delivered + totals.dropped + totals.held,
        "frames are missing: {totals:?}"
    );
    context.table(table);
    Ok(lost)
}

/// What changes cost the control core where there is no load.
fn alone(context: &mut Context, shape: Shape) -> anyhow::Result<()> {
    let mut site = site(shape, 1024)?;
    let mut table = Table::new(
        &format!("{}: the control core", shape.name()),
        &["change", "edit ms", "diff ms", "apply ms", "longest poll ms"],
    );
    let mut now_ms = 10;
    for (name, change) in changes(shape) {
        let Site { director, worker, .. } = &mut site;
        let mut now_ns = 10_000_000_000 + now_ms * 1_000_000;
        let turn = || {
            now_ns += 1_000_000;
            worker.turn(now_ns);
        };
        let cost = make(director, &change, turn, &mut now_ms)?;
        table.row([
            name.to_owned(),
            format!("{:.2}", cost.edit_ms),
            format!("{:.2}", cost.diff_ms),
            format!("{:.2}", cost.apply_ms),
            format!("{:.2}", cost.poll_ms),
        ]);
    }
    context.table(table);
    let model = shape.fill(site.director.model());
    let (text, write_ms) = ms(|| lb_config::to_toml(&model));
    let (parsed, parse_ms) = ms(|| lb_config::parse(&text));
    let mut parsed = parsed.context("what was written reads back")?;
    ensure!(parsed == model, "what was written reads back as something else");
    let ((), share_ms) = ms(|| parsed.services.share_with(&model.services));
    let ((), free_ms) = ms(|| drop(model));
    context.note(format!(
        "{}: a file of {:.1} MB, written in {write_ms:.0} ms, read and checked in {parse_ms:.0} ms, compared with what runs in \
         {share_ms:.0} ms, freed in {free_ms:.0} ms.",
        shape.name(),
        text.len() as f64 / 1e6
    ));
    Ok(())
}
