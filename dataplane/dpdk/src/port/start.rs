//! Brings a device up, step by step: create, configure, set up queues, start.

use std::ffi::{CStr, CString, c_int};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use dpdk_sys as sys;
use lb_config::Device;
use lb_dataplane::io::DeviceId;

use super::{Port, PortError};
use crate::backlog::{Backlog, mappings};
use crate::errno::Errno;
use crate::log;
use crate::mempool::Pool;
use crate::netdev::Interface;
use crate::queue::{RxQueue, TxQueue};
use crate::vdev::{self, FCS, FRAME_OVERHEAD, Plan, Queues};

/// Name of DPDK's bus of virtual devices.
const VDEV: &CStr = c"vdev";

/// What [`start`] starts.
pub(crate) struct Wanted<'a> {
    pub(crate) id: DeviceId,
    pub(crate) device: &'a Device,
    pub(crate) mtu: u16,
    pub(crate) workers: u16,
    /// Whether a packet may be in several buffers: see [`crate::devices`].
    pub(crate) chains: bool,
}

/// A started port and its queues, in the order of their numbers.
pub(crate) type Started = (Arc<Port>, Vec<RxQueue>, Vec<TxQueue>);

/// Creates and starts a device.
///
/// Errors: see [`PortError`].
pub(crate) fn start(
    pool: &Arc<Pool>,
    wanted: &Wanted<'_>,
    plan: Plan,
    interface: Option<Interface>,
) -> Result<Started, PortError> {
    let name = wanted.device.to_string();
    let (result, log) = log::capture(|| try_start(pool, wanted, plan, interface));
    result.map_err(|failure| match failure {
        Failure::NotFound => PortError::NotFound { device: name },
        Failure::Step(step, errno) => {
            PortError::Driver { device: name, step, needs: needs(wanted.device), errno, log }
        }
    })
}

fn try_start(
    pool: &Arc<Pool>,
    wanted: &Wanted<'_>,
    plan: Plan,
    interface: Option<Interface>,
) -> Result<Started, Failure> {
    let mapped = mappings();
    let (vdev, port_name) = match (&plan.create, wanted.device) {
        (Some((driver, args)), _) => (Some(Vdev::create(driver, args)?), driver.clone()),
        (None, Device::Pci(address)) => (None, address.clone()),
        (None, other) => (None, other.to_string()),
    };
    let id = port_id(&port_name)?;
    let info = device_info(id)?;
    let count = |most: u16| match plan.queues {
        Queues::One => 1,
        Queues::PerWorker => wanted.workers.min(most).max(1),
        Queues::Exactly(n) => n,
    };
    let (rx, tx) = (count(info.max_rx_queues), count(info.max_tx_queues));
    let is_nic = matches!(wanted.device, Device::Pci(_));
    let hashes = info.flow_type_rss_offloads & sys::SLUICE_RSS_IP_PORTS;
    let rss = is_nic && rx > 1 && hashes != 0;
    let offloads = Offloads::of(wanted, &info);
    configure(
        id,
        (rx, tx),
        &Mode { mtu: is_nic.then_some(wanted.mtu), hashes: rss.then_some(hashes), offloads },
    )?;
    let mut port = Port {
        id,
        device: wanted.id,
        name: wanted.device.to_string(),
        mac: [0; 6],
        rss,
        started: false,
        too_long: AtomicU64::new(0),
        not_sent: AtomicU64::new(0),
        longest_frame: usize::from(wanted.mtu) + FRAME_OVERHEAD - FCS,
        to_drain: if matches!(wanted.device, Device::Ring(_)) { rx } else { 0 },
        _vdev: vdev,
        _interface: interface,
        _pool: pool.clone(),
    };
    let mut backlogs = set_up_queues(id, (rx, tx), plan.slots, pool, &info, offloads)?;
    if matches!(wanted.device, Device::AfPacket(_)) {
        // its one socket was opened when the device was made
        backlogs = vec![Backlog::of_af_packet(&mapped, vdev::af_packet_slots(wanted.mtu))];
    }
    if matches!(wanted.device, Device::Tap(_)) {
        // SAFETY: the port exists. No safe form: an FFI call.
        step("setting the MTU", unsafe { sys::rte_eth_dev_set_mtu(id, wanted.mtu) })?;
    }
    // SAFETY: the port is configured and not started. No safe form: an FFI call.
    step("starting", unsafe { sys::rte_eth_dev_start(id) })?;
    port.started = true;
    port.mac = director_mac(id, wanted)?;
    if is_nic {
        accept_multicast(id)?;
    }
    let port = Arc::new(port);
    let takes_chains = offloads.tx & sys::SLUICE_TX_MULTI_SEGS != 0 || vdev::sends_chains(wanted.device);
    // SAFETY: the port is started with these queues, which are made here once, and there is a backlog for each. No safe
    // form: see `RxQueue::new`.
    let rx = (0..rx)
        .zip(backlogs)
        .map(|(queue, backlog)| unsafe { RxQueue::new(port.clone(), queue, backlog) })
        .collect();
    // SAFETY: as above.
    let tx = (0..tx).map(|queue| unsafe { TxQueue::new(port.clone(), queue, takes_chains) }).collect();
    Ok((port, rx, tx))
}

/// Why a step of [`try_start`] failed; [`start`] adds the device.
enum Failure {
    NotFound,
    Step(&'static str, Errno),
}

/// What a kind of device needs of the kernel. Found by taking each capability away in turn (Linux 6.18, libxdp 1.3).
fn needs(device: &Device) -> &'static str {
    match device {
        Device::AfPacket(_) => {
            "; it needs CAP_NET_RAW, CAP_NET_ADMIN and CAP_IPC_LOCK (or a memlock limit of 8 MiB per device)"
        }
        Device::AfXdp(_) => {
            "; it needs CAP_NET_RAW, CAP_NET_ADMIN, CAP_SYS_ADMIN and CAP_IPC_LOCK (or a memlock limit above the \
             packet memory), and an interface without another XDP program"
        }
        Device::Tap(_) => "; it needs CAP_NET_ADMIN and /dev/net/tun",
        _ => "",
    }
}

fn step(what: &'static str, code: c_int) -> Result<(), Failure> {
    if code < 0 { Err(Failure::Step(what, Errno::from_return(code))) } else { Ok(()) }
}

/// A virtual device on DPDK's bus. Dropping it removes it.
#[derive(Debug)]
pub(super) struct Vdev(CString);

impl Vdev {
    fn create(name: &str, args: &str) -> Result<Self, Failure> {
        let (Ok(name), Ok(args)) = (CString::new(name), CString::new(args)) else {
            return Err(Failure::NotFound);
        };
        // SAFETY: the strings are terminated and copied by DPDK. No safe form: an FFI call.
        let code = unsafe { sys::rte_eal_hotplug_add(VDEV.as_ptr(), name.as_ptr(), args.as_ptr()) };
        step("creating it", code).map(|()| Self(name))
    }
}

impl Drop for Vdev {
    fn drop(&mut self) {
        // SAFETY: its port is closed or was never made. No safe form: an FFI call.
        let code = unsafe { sys::rte_eal_hotplug_remove(VDEV.as_ptr(), self.0.as_ptr()) };
        if code < 0 {
            tracing::warn!("{} was not removed: {}", self.0.to_string_lossy(), Errno::from_return(code));
        }
    }
}

fn port_id(name: &str) -> Result<u16, Failure> {
    let name = CString::new(name).map_err(|_| Failure::NotFound)?;
    let mut id = 0;
    // SAFETY: a terminated string, and an integer of ours. No safe form: an FFI call.
    let code = unsafe { sys::rte_eth_dev_get_port_by_name(name.as_ptr(), &mut id) };
    if code < 0 { Err(Failure::NotFound) } else { Ok(id) }
}

fn device_info(id: u16) -> Result<sys::rte_eth_dev_info, Failure> {
    let mut info = sys::rte_eth_dev_info::default();
    // SAFETY: the port exists, `info` is ours. No safe form: an FFI call.
    step("asking what it can do", unsafe { sys::rte_eth_dev_info_get(id, &mut info) })?;
    Ok(info)
}

/// What a NIC is configured to, beside its queues.
struct Mode {
    /// `None`: software drivers take any frame that fits a buffer, and some refuse to be asked for more than 1500.
    mtu: Option<u16>,
    /// Fields that RSS hashes.
    hashes: Option<u64>,
    offloads: Offloads,
}

/// What the driver is asked to do, of what it can.
#[derive(Clone, Copy)]
struct Offloads {
    rx: u64,
    tx: u64,
}

impl Offloads {
    fn of(wanted: &Wanted<'_>, info: &sys::rte_eth_dev_info) -> Self {
        // Buffers of one pool in packets of one segment with one owner are what FAST_FREE asks for.
        let tx = if wanted.chains { sys::SLUICE_TX_MULTI_SEGS } else { sys::SLUICE_TX_FAST_FREE };
        let rx = if wanted.chains { sys::SLUICE_RX_SCATTER } else { 0 };
        Self { rx: rx & info.rx_offload_capa, tx: tx & info.tx_offload_capa }
    }
}

/// Whether the driver of a PCI device can receive into several buffers and send from them; `false` where none has it.
pub(crate) fn scatters(address: &str) -> bool {
    port_id(address).and_then(device_info).is_ok_and(|info| {
        info.rx_offload_capa & sys::SLUICE_RX_SCATTER != 0
            && info.tx_offload_capa & sys::SLUICE_TX_MULTI_SEGS != 0
    })
}

fn configure(id: u16, (rx, tx): (u16, u16), mode: &Mode) -> Result<(), Failure> {
    let mut conf = sys::rte_eth_conf::default();
    conf.rxmode.mtu = mode.mtu.map_or(0, u32::from);
    if let Some(hashes) = mode.hashes {
        conf.rxmode.mq_mode = sys::RTE_ETH_MQ_RX_RSS;
        conf.rx_adv_conf.rss_conf.rss_hf = hashes;
    }
    conf.rxmode.offloads = mode.offloads.rx;
    conf.txmode.offloads = mode.offloads.tx;
    // SAFETY: the port exists and is stopped; DPDK copies `conf`. No safe form: an FFI call.
    step("configuring its queues", unsafe { sys::rte_eth_dev_configure(id, rx, tx, &conf) })
}

/// Sets all queues up; gives for each receive queue where its frames wait, as far as a socket was opened for it.
fn set_up_queues(
    id: u16,
    (rx, tx): (u16, u16),
    slots: u16,
    pool: &Pool,
    info: &sys::rte_eth_dev_info,
    offloads: Offloads,
) -> Result<Vec<Backlog>, Failure> {
    let (mut rx_slots, mut tx_slots) = (slots, slots);
    // SAFETY: the port is configured, the integers are ours. No safe form: an FFI call.
    let code = unsafe { sys::rte_eth_dev_adjust_nb_rx_tx_desc(id, &mut rx_slots, &mut tx_slots) };
    step("sizing its queues", code)?;
    let (mut rx_conf, mut tx_conf) = (info.default_rxconf, info.default_txconf);
    (rx_conf.offloads, tx_conf.offloads) = (offloads.rx, offloads.tx);
    // SAFETY: takes an integer. No safe form: an FFI call.
    let node = unsafe { sys::rte_eth_dev_socket_id(id) }.cast_unsigned();
    let mut backlogs = Vec::new();
    for queue in 0..rx {
        let mapped = mappings();
        // SAFETY: the port is configured for this queue; its pool outlives it, the port holds both. No safe form: an
        // FFI call.
        let code = unsafe { sys::rte_eth_rx_queue_setup(id, queue, rx_slots, node, &rx_conf, pool.as_ptr()) };
        step("setting a receive queue up", code)?;
        let is_socket = mappings().len() > mapped.len();
        backlogs.push(if is_socket { Backlog::of_af_xdp(&mapped) } else { Backlog::Driver });
    }
    for queue in 0..tx {
        // SAFETY: as above. No safe form: an FFI call.
        let code = unsafe { sys::rte_eth_tx_queue_setup(id, queue, tx_slots, node, &tx_conf) };
        step("setting a transmit queue up", code)?;
    }
    Ok(backlogs)
}

/// The MAC address that the director uses on this port.
fn director_mac(id: u16, wanted: &Wanted<'_>) -> Result<[u8; 6], Failure> {
    let mut mac = sys::rte_ether_addr::default();
    // SAFETY: the port exists, `mac` is ours. No safe form: an FFI call.
    step("reading its MAC address", unsafe { sys::rte_eth_macaddr_get(id, &mut mac) })?;
    let mut mac = mac.addr_bytes;
    if matches!(wanted.device, Device::Tap(_)) {
        // A TAP is a cable: the kernel's end has the driver's address, the director's end needs another.
        mac[5] ^= 1;
    }
    if mac == [0; 6] {
        // Rings have none. 02: locally administered.
        let [high, low] = wanted.id.0.to_be_bytes();
        mac = [0x02, 0, 0, 0, high, low];
    }
    Ok(mac)
}

/// Lets multicast in, which ND needs. Interfaces of the kernel have `netdev` for it, other software drivers filter
/// nothing.
fn accept_multicast(id: u16) -> Result<(), Failure> {
    // SAFETY: the port is started. No safe form: an FFI call.
    if unsafe { sys::rte_eth_allmulticast_enable(id) } == 0 {
        return Ok(());
    }
    // SAFETY: as above. No safe form: an FFI call.
    step("receiving multicast", unsafe { sys::rte_eth_promiscuous_enable(id) })
}
