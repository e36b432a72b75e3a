//! From a file to a running director, and back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;

use anyhow::Context;
use lb_config::{Device, Model};
use lb_control::core::{Core, DriverRow, Drivers, Process, reload};
use lb_control::server::{Policy, Socket, SocketSettings, Times, serve};
use lb_control::source::{Loaded, Source};
use lb_dataplane::director::{ApplyError, Director, devices};
use lb_dataplane::io::{DeviceId, WorkerId};
use lb_dataplane::setup::{DeviceSetup, WorkerSeed};
use lb_dataplane::{Worker, run as run_worker};
use lb_dpdk::{Clock, DeviceSpec, Devices, Eal, EalConfig, WorkerIo, WorkerThread};
use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::keep::Keep;
use crate::machine::Lcore;
use crate::memory;
use crate::notify::notify;
use crate::signals::Signals;

/// Calls that wait for the control core; a session has one at a time.
const CALLS: usize = 64;

/// Threads for what may block: look-ups of users, reading and writing of large messages.
const BLOCKING_THREADS: usize = 16;

/// The director, with what an earlier lbd has left; without it where `limits.max_servers` has no room for both.
fn heir(
    model: &Model,
    devices: Vec<DeviceSetup>,
    keep: &mut Keep,
) -> Result<(Director, Vec<WorkerSeed>), ApplyError> {
    match Director::heir(model, devices.clone(), keep.estate(model)) {
        Err(error @ ApplyError::TooManyServers { .. }) if keep.has_left() => {
            keep.begin_anew(model, &error.to_string());
            Director::heir(model, devices, keep.estate(model))
        }
        result => result,
    }
}

/// Runs lbd until a signal ends it. `fresh`: without what an earlier one has left.
pub fn run(source: &Source, fresh: bool) -> anyhow::Result<()> {
    let start = Instant::now();
    let Loaded { model, warnings, notes } = source.load()?;
    notes.iter().for_each(|note| warn!(%note, "not carried over"));
    warnings.iter().for_each(|warning| warn!(%warning, "configuration"));
    // Before any thread is made: SIGHUP is blocked in all of them and waited for in one.
    let mut signals = Signals::install().context("cannot install signal handlers")?;
    // First of what is shared with other processes: a second lbd with this configuration ends here, before it
    // touches a device. Clients that connect from now on wait until the control loop runs.
    let socket = Socket::bind(&SocketSettings {
        path: model.appliance.socket.clone(),
        group: model.appliance.socket_group.clone(),
        public_read: model.appliance.socket_public_read,
    })?;
    let eal = Eal::init(&eal_config(&model))?;
    let (devices, ios) = open(&eal, &model)?;
    let facts = devices.infos().iter().map(|info| DeviceSetup { mac: info.mac, rss: info.rss }).collect();
    let clock = Clock::new(&eal);
    let mut keep = Keep::open(&model, fresh, &clock);
    let (mut director, seeds) = heir(&model, facts, &mut keep)?;
    let mut workers = Vec::new();
    let limit = memory::per_worker(&model);
    let no_memory = || format!("no memory for the {limit} connections of a worker");
    let (tables, table_rows) = keep.tables(&model, &seeds).with_context(no_memory)?;
    let (offset_ns, former) = (keep.offset_ns, std::mem::take(&mut keep.standing));
    let (restart, heart) = keep.finish(&mut director, &model);
    for ((seed, io), tables) in seeds.into_iter().zip(ios).zip(tables) {
        workers.push((seed.id, Worker::with_tables(seed, io, tables)));
    }
    // Dropped last to first: workers end and give their queues back, then the devices close, then DPDK ends.
    let devices = Arc::new(devices);
    let look = devices.clone();
    let process = Process { drivers: Box::new(move || drivers(&devices)), tables: table_rows };
    let mut core = Core::heir(director, process, former)?;
    core.set_keep(restart, heart);
    let machine = Lcore { clock, offset_ns, idle: model.appliance.idle };
    let running = Running::launch(&eal, workers, machine)?;
    // before VRRP, which may wait for what other directors tell
    core.set_sync(lb_control::sync::start(core.sync_plan()).context("cannot start connection sync")?);
    let (plan, kernel) = core.exception_plan();
    if !plan.taps.is_empty() {
        let files = taps(&plan)?;
        let started = lb_control::exception::start(plan, kernel, files);
        core.set_exception(started.context("cannot start the exception path")?);
    }
    let (plan, channel, wake) = core.vrrp_plan();
    let started = lb_control::vrrp::start(plan, channel, links(&model, look), wake);
    core.set_vrrp(started.context("cannot start VRRP")?);
    core.start_ipvs_sync();

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .build()
        .context("cannot start the control loop")?;
    let policy = Policy::new(socket.group(), model.appliance.socket_public_read);
    let listener = socket.listener().context("cannot share the API socket")?;
    runtime.block_on(async {
        let (sender, mut calls) = mpsc::channel(CALLS);
        let server = tokio::spawn(serve(listener, policy, sender.clone(), Times::default()));
        let files = source.clone();
        let mut hangups = signals.hangups();
        tokio::spawn(async move {
            while hangups.recv().await.is_some() {
                reload(&files, &sender).await;
            }
        });
        let (name, socket) = (&model.appliance.name, model.appliance.socket.display());
        info!(director = %name, workers = model.appliance.workers.len(), %socket, "lbd is ready");
        notify("READY=1");
        tokio::select! {
            () = lb_control::core::run(&mut core, start, &mut calls, signals.stop()) => Ok(()),
            ended = server => match ended {
                Ok(Err(error)) => Err(anyhow::Error::new(error).context("cannot serve the API socket")),
                Ok(Ok(())) => Err(anyhow::anyhow!("the API server ended")),
                Err(failed) => Err(anyhow::Error::new(failed).context("the API server ended")),
            },
        }
    })?;
    info!("lbd stops");
    notify("STOPPING=1");
    // Clients are let go and the socket removed before the workers: who finds no socket finds no director.
    runtime.shutdown_background();
    drop(socket);
    // While workers still send: other directors take over at once.
    core.end_vrrp();
    drop(running);
    drop(core);
    drop(eal);
    Ok(())
}

fn eal_config(model: &Model) -> EalConfig {
    let address = |port: &lb_config::Port| match &port.device {
        Device::Pci(address) => Some(address.clone()),
        _ => None,
    };
    EalConfig {
        instance: model.appliance.name.clone(),
        huge_pages: model.appliance.huge_pages,
        memory_mib: model.appliance.memory_mib,
        main_cpu: model.appliance.control_cpu,
        worker_cpus: model.appliance.workers.clone(),
        pci: model.ports.iter().filter_map(address).collect(),
    }
}

fn open(eal: &Eal, model: &Model) -> anyhow::Result<(Devices, Vec<WorkerIo>)> {
    let spec = |(device, mtu)| DeviceSpec { device, mtu };
    let specs: Vec<DeviceSpec> = devices(model).into_iter().map(spec).collect();
    Ok(lb_dpdk::open(eal, &specs, model.limits.mbufs)?)
}

/// The kernel's interfaces.
fn taps(plan: &lb_control::exception::Plan) -> anyhow::Result<Vec<std::fs::File>> {
    let open = |tap: &lb_control::exception::TapPlan| {
        lb_dpdk::open_tap(&tap.name).with_context(|| format!("cannot make the interface {}", tap.name))
    };
    plan.taps.iter().map(open).collect()
}

/// Tells whether the link of each port is up: by the kernel where a port is an interface of its, else by the driver.
fn links(model: &Model, known: Arc<Devices>) -> lb_control::vrrp::Links {
    let order = devices(model);
    let device = |port: &lb_config::Port| {
        let at = order.iter().position(|(device, _)| *device == port.device).unwrap_or_default();
        let carrier = match &port.device {
            Device::AfPacket(name) | Device::AfXdp(name) => Some(format!("/sys/class/net/{name}/carrier")),
            _ => None,
        };
        (DeviceId(at as u16), carrier)
    };
    let ports: Vec<_> = model.ports.iter().map(device).collect();
    let up = move |(id, carrier): &(DeviceId, Option<String>)| match carrier {
        // Of an interface that is switched off the kernel tells nothing: reading fails.
        Some(file) => std::fs::read(file).is_ok_and(|text| text.starts_with(b"1")),
        None => known.link_up(*id),
    };
    Box::new(move || ports.iter().map(&up).collect())
}

/// What the drivers know, for `lbctl stats`.
fn drivers(devices: &Devices) -> Drivers {
    let row = |info: &lb_dpdk::DeviceInfo| {
        let stats = devices.stats(info.id).unwrap_or_default();
        DriverRow {
            mac: info.mac,
            up: devices.link_up(info.id),
            mtu: info.mtu,
            rx_missed: stats.rx_missed,
            rx_errors: stats.rx_errors + stats.rx_too_long,
            rx_no_buffer: stats.rx_no_mbuf,
            tx_errors: stats.tx_errors,
        }
    };
    let (buffers_free, buffers) = devices.mbufs();
    Drivers { devices: devices.infos().iter().map(row).collect(), buffers_free, buffers }
}

/// Workers that run. Dropping it ends them and waits for that.
struct Running {
    stop: Arc<AtomicBool>,
    threads: Vec<WorkerThread>,
}

impl Running {
    fn launch(eal: &Eal, workers: Vec<(WorkerId, Worker<WorkerIo>)>, machine: Lcore) -> anyhow::Result<Self> {
        let mut running = Self { stop: Arc::default(), threads: Vec::new() };
        for (id, mut worker) in workers {
            let stop = running.stop.clone();
            let thread = eal.launch(id, move || run_worker(&mut worker, &machine, &stop))?;
            running.threads.push(thread);
        }
        Ok(running)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        // Each waits for its worker.
        self.threads.clear();
    }
}
