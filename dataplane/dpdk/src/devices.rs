//! Opens all devices of a director at once and shares their queues out among the workers.

use std::sync::Arc;

use lb_config::Device;
use lb_dataplane::io::{BURST, DeviceId};

use crate::clock::Clock;
use crate::eal::Eal;
use crate::io::{Guests, Queues, Tx, WorkerIo};
use crate::mempool::{MAX_ROOM, Pool, PoolError, cache_size};
use crate::netdev::Interface;
use crate::port::{self, DeviceStats, Port, PortError, Started, Wanted};
use crate::queue::RxQueue;
use crate::ring::{RingError, Sender, ring};
use crate::vdev::{self, AF_XDP_MAX_ROOM, FRAME_OVERHEAD, Plan};

/// A device to open.
#[derive(Clone, Debug)]
pub struct DeviceSpec {
    /// What carries the frames.
    pub device: Device,
    /// Largest IP packet of the ports on it, bytes.
    pub mtu: u16,
}

/// A device that was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Its index.
    pub id: DeviceId,
    /// As configured: `af_packet:eth0`.
    pub name: String,
    /// The address that the director has on it.
    pub mac: [u8; 6],
    /// Largest IP packet, bytes, as asked for.
    pub mtu: u16,
    /// Whether the NIC spreads flows over the workers itself; else frames may arrive at any worker.
    pub rss: bool,
    /// Receive queues.
    pub rx_queues: u16,
    /// Transmit queues.
    pub tx_queues: u16,
}

/// Why the devices did not open. Those that had are closed again.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A device did not start.
    #[error(transparent)]
    Port(#[from] PortError),
    /// No pool.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// No rings.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// The devices could hold the whole pool.
    #[error("limits.mbufs = {mbufs} is too small: {devices} devices and {workers} workers may hold {needed}")]
    MbufsTooFew {
        /// As configured.
        mbufs: u32,
        /// Devices.
        devices: usize,
        /// Workers.
        workers: u16,
        /// Fewest that work.
        needed: u64,
    },
    /// AF_XDP beside a device with large frames.
    #[error(
        "device {device} needs buffers of at most {limit} bytes, another device's MTU makes them {room}; lower that MTU"
    )]
    RoomForAfXdp {
        /// The AF_XDP device.
        device: String,
        /// Most bytes.
        limit: usize,
        /// Bytes that the other needs.
        room: usize,
    },
    /// More devices than can be numbered.
    #[error("{0} devices are configured, {limit} are possible", limit = MAX_DEVICES)]
    TooMany(usize),
}

/// Most devices: `RTE_MAX_ETHPORTS` is 32 in Debian's DPDK.
const MAX_DEVICES: usize = 32;

/// Of this many buffers one large one is made where frames may be in several: 1024 at the default of 16384. They are
/// held while a datagram is reassembled, else for one turn and what a transmit queue holds.
const LARGE_SHARE: u32 = 16;

/// Fewest large buffers: more than a thread keeps at hand, and two bursts.
const LARGE_FEWEST: u32 = 128;

/// The control core's view of the devices. They close when this and every [`WorkerIo`] are gone.
#[derive(Debug)]
pub struct Devices {
    infos: Vec<DeviceInfo>,
    ports: Vec<Arc<Port>>,
    pool: Arc<Pool>,
    large: Option<Arc<Pool>>,
}

/// What drivers are asked for beyond what each does best by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// For measurements: a pcap file is replayed from memory without end and what is sent is dropped; null makes frames
    /// of zeros up. The pool must hold the whole file.
    pub endless: bool,
}

impl Devices {
    /// Every device, by its index.
    pub fn infos(&self) -> &[DeviceInfo] {
        &self.infos
    }

    /// Whether the link is up, as far as the driver can tell. `false` for a device that does not exist.
    pub fn link_up(&self, device: DeviceId) -> bool {
        self.ports.get(usize::from(device.0)).is_some_and(|port| port.link_up())
    }

    /// Counters since the start; `None` for a device that does not exist.
    pub fn stats(&self, device: DeviceId) -> Option<DeviceStats> {
        self.ports.get(usize::from(device.0)).map(|port| port.stats())
    }

    /// Packet buffers that are free now, and all there are. Counted without stopping the workers.
    pub fn mbufs(&self) -> (u32, u32) {
        (self.pool.free(), self.pool.size())
    }

    /// Large buffers, in which frames of several buffers are gathered where that must be: free now, and all there are.
    /// None where every buffer holds a whole frame.
    pub fn large_mbufs(&self) -> (u32, u32) {
        self.large.as_ref().map_or((0, 0), |large| (large.free(), large.size()))
    }
}

/// Opens `devices` with a common pool of `mbufs` buffers. Returns the control core's view and each worker's queues.
///
/// Queue `q` of a device belongs to worker `q` modulo the workers; a worker without a transmit queue has a ring to
/// the one that owns it.
///
/// Buffers are as long as the devices need that do not scatter frames (AF_PACKET and AF_XDP at their MTU), at least
/// 2048 bytes; on others a longer frame is in several buffers, and some large ones are there to gather such in.
///
/// Errors: see [`OpenError`].
pub fn open(eal: &Eal, devices: &[DeviceSpec], mbufs: u32) -> Result<(Devices, Vec<WorkerIo>), OpenError> {
    open_with(eal, devices, mbufs, Options::default())
}

/// [`open`] with options.
///
/// Errors: see [`OpenError`].
pub fn open_with(
    eal: &Eal,
    devices: &[DeviceSpec],
    mbufs: u32,
    options: Options,
) -> Result<(Devices, Vec<WorkerIo>), OpenError> {
    if devices.len() > MAX_DEVICES {
        return Err(OpenError::TooMany(devices.len()));
    }
    let workers = eal.workers();
    let mut planned = devices.iter().enumerate().map(plan).collect::<Result<Vec<_>, _>>()?;
    if options.endless {
        for (spec, (plan, _)) in devices.iter().zip(&mut planned) {
            vdev::make_endless(plan, &spec.device);
        }
    }
    let room = room(devices)?;
    check_mbufs(mbufs, workers, room, devices, &planned)?;
    let pool = Pool::new(eal.handle(), mbufs, room)?;
    let longest = devices.iter().map(|spec| vdev::whole(spec.mtu)).max().unwrap_or(0).min(MAX_ROOM);
    let large = (longest > room)
        .then(|| Pool::new(eal.handle(), (mbufs / LARGE_SHARE).max(LARGE_FEWEST), longest))
        .transpose()?;

    let mut infos = Vec::new();
    let mut ports = Vec::new();
    let mut queues: Vec<Vec<Queues>> = (0..workers).map(|_| Vec::new()).collect();
    for (index, (spec, (plan, interface))) in devices.iter().zip(planned).enumerate() {
        let id = DeviceId(index as u16);
        let wanted = Wanted { id, device: &spec.device, mtu: spec.mtu, workers, chains: large.is_some() };
        let (port, rx, tx) = port::start(&pool, &wanted, plan, interface)?;
        let info = DeviceInfo {
            id,
            name: port.name().to_owned(),
            mac: port.mac(),
            mtu: spec.mtu,
            rss: port.rss(),
            rx_queues: rx.len() as u16,
            tx_queues: tx.len() as u16,
        };
        tracing::info!(device = info.name, mac = ?info.mac, rx_queues = info.rx_queues, rss = info.rss, "device started");
        let shares = share_out((port.clone(), rx, tx), &pool, usize::from(workers))?;
        queues.iter_mut().zip(shares).for_each(|(of_worker, share)| of_worker.push(share));
        infos.push(info);
        ports.push(port);
    }
    let ios = connect(queues, &pool, large.as_ref(), Clock::new(eal))?;
    Ok((Devices { infos, ports, pool, large }, ios))
}

/// Plans a device and readies its kernel interface, if it has one.
fn plan((index, spec): (usize, &DeviceSpec)) -> Result<(Plan, Option<Interface>), PortError> {
    let name = spec.device.to_string();
    let plan = |queues| {
        vdev::plan(&spec.device, index, spec.mtu, queues)
            .map_err(|error| PortError::from((name.clone(), error)))
    };
    let (Device::AfPacket(interface) | Device::AfXdp(interface)) = &spec.device else {
        return Ok((plan(1)?, None));
    };
    // Checks the name before it is used and the MTU before anything is touched.
    plan(1)?;
    let failed = |error| PortError::Interface { device: name.clone(), interface: interface.clone(), error };
    let opened = Interface::open(interface).map_err(failed)?;
    let interface_mtu = opened.mtu().map_err(failed)?;
    if interface_mtu < usize::from(spec.mtu) {
        return Err(PortError::Mtu { device: name.clone(), mtu: spec.mtu, interface_mtu });
    }
    Ok((plan(opened.queues())?, Some(opened)))
}

/// Room for a frame that suits all devices, bytes.
fn room(devices: &[DeviceSpec]) -> Result<usize, OpenError> {
    let room_of = |spec: &DeviceSpec| {
        let nic_scatters = matches!(&spec.device, Device::Pci(address) if port::scatters(address));
        vdev::room(&spec.device, spec.mtu, nic_scatters)
    };
    let room = devices.iter().map(room_of).max().unwrap_or(0).min(MAX_ROOM);
    match devices.iter().find(|spec| matches!(spec.device, Device::AfXdp(_))) {
        Some(spec) if room > AF_XDP_MAX_ROOM => {
            Err(OpenError::RoomForAfXdp { device: spec.device.to_string(), limit: AF_XDP_MAX_ROOM, room })
        }
        _ => Ok(room),
    }
}

/// Checks that buffers remain when every queue holds all it can. Rings between workers may take the rest: then
/// packets are dropped and counted, but the devices go on.
fn check_mbufs(
    mbufs: u32,
    workers: u16,
    room: usize,
    devices: &[DeviceSpec],
    planned: &[(Plan, Option<Interface>)],
) -> Result<(), OpenError> {
    let pairs = |plan: &Plan| match plan.queues {
        vdev::Queues::One => 1,
        vdev::Queues::PerWorker => u64::from(workers),
        vdev::Queues::Exactly(n) => u64::from(n),
    };
    // A NIC's slots are buffers, those of a software driver are frames.
    let segments = |spec: &DeviceSpec| match spec.device {
        Device::Pci(_) => 1,
        _ => (usize::from(spec.mtu) + FRAME_OVERHEAD).div_ceil(room.max(1)) as u64,
    };
    let held = devices
        .iter()
        .zip(planned)
        .map(|(spec, (plan, _))| pairs(plan) * u64::from(plan.held) * segments(spec));
    let held: u64 = held.sum();
    // A burst in hand, a burst of their own frames, and a thread's cache, of which DPDK lets 1.5 times fill.
    let kept = 2 * BURST as u64 + u64::from(cache_size(mbufs, workers)) * 3 / 2;
    let needed = held + kept * (u64::from(workers) + 1);
    if u64::from(mbufs) < needed {
        return Err(OpenError::MbufsTooFew { mbufs, devices: planned.len(), workers, needed });
    }
    Ok(())
}

/// One device's queues, by worker.
fn share_out((_, rx, tx): Started, pool: &Arc<Pool>, workers: usize) -> Result<Vec<Queues>, RingError> {
    let mut rx_of: Vec<Vec<RxQueue>> = (0..workers).map(|_| Vec::new()).collect();
    for (index, queue) in rx.into_iter().enumerate() {
        rx_of[index % workers].push(queue);
    }
    // Queues beyond the workers stay unused; the driver has them because it makes pairs.
    let owners = tx.len().min(workers);
    let mut senders: Vec<Vec<_>> = Vec::new();
    let mut tx_of: Vec<Tx> = Vec::new();
    for (owner, queue) in tx.into_iter().take(owners).enumerate() {
        let (of_guests, guests) = guests(owner, owners, workers, pool)?;
        senders.push(of_guests);
        tx_of.push(Tx::Own { queue, guests });
    }
    for guest in owners..workers {
        tx_of.extend(senders[guest % owners].pop().map(Tx::Guest));
    }
    Ok(rx_of.into_iter().zip(tx_of).map(|(rx, tx)| Queues { rx, next_rx: 0, tx }).collect())
}

/// Ring and sending ends for the workers `owners..workers` whose frames the queue of worker `owner` sends.
fn guests(
    owner: usize,
    owners: usize,
    workers: usize,
    pool: &Pool,
) -> Result<(Vec<Sender>, Option<Box<Guests>>), RingError> {
    let count = (owners..workers).filter(|guest| guest % owners == owner).count();
    if count == 0 {
        return Ok((Vec::new(), None));
    }
    let (senders, receiver) = ring(pool.eal(), count)?;
    Ok((senders, Some(Box::new(Guests::new(receiver)))))
}

/// Adds to every worker's queues its rings to and from each other worker.
fn connect(
    queues: Vec<Vec<Queues>>,
    pool: &Arc<Pool>,
    large: Option<&Arc<Pool>>,
    clock: Clock,
) -> Result<Vec<WorkerIo>, RingError> {
    let workers = queues.len();
    let mut to: Vec<Vec<Option<Sender>>> = (0..workers).map(|_| Vec::new()).collect();
    let mut from: Vec<Vec<_>> = (0..workers).map(|_| Vec::new()).collect();
    for (sender, to) in to.iter_mut().enumerate() {
        for (receiver, from) in from.iter_mut().enumerate() {
            if sender == receiver {
                to.push(None);
                continue;
            }
            let (mut senders, end) = ring(pool.eal(), 1)?;
            to.push(senders.pop());
            from.push(end);
        }
    }
    let ends = to.into_iter().zip(from);
    Ok(queues
        .into_iter()
        .zip(ends)
        .map(|(q, (to, from))| WorkerIo::new(q, (to, from), pool.clone(), large.cloned(), clock))
        .collect())
}
