//! What the configuration means: a value that cannot be wrong.
//!
//! A [`Model`] is only made by [`crate::parse`] and by the checked edits of [`crate::edit`], so everything
//! downstream relies on its invariants: names are unique, every service has a supported forwarding, every DR
//! server is on a directly connected network, weights and timeouts are in range.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// A whole configuration of one director.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// Process-wide settings; changing them needs a restart.
    pub appliance: Appliance,
    /// Sizes fixed at start; changing them needs a restart.
    pub limits: Limits,
    /// Timeouts of the whole director; a service may override them.
    pub timeouts: Timeouts,
    /// L3 interfaces in the order of the file.
    pub ports: Vec<Port>,
    /// Services in the order of the file.
    pub services: Vec<Service>,
}

/// Process-wide settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appliance {
    /// Name of the director, shown by `lbctl` and used to keep several instances on a machine apart.
    pub name: String,
    /// CPU of each worker, one worker per entry, no CPU twice, 1 to 64 entries.
    pub workers: Vec<u16>,
    /// CPU of the control core; `None` leaves it to the scheduler.
    pub control_cpu: Option<u16>,
    /// Size of the huge pages that packet memory lives in.
    pub huge_pages: HugePages,
    /// Packet and table memory given to DPDK, MiB.
    pub memory_mib: u32,
    /// What a worker without packets does.
    pub idle: Idle,
    /// Path of the Unix socket that `lbctl` talks to.
    pub socket: PathBuf,
    /// Group that may change the configuration beside root.
    pub socket_group: Option<String>,
    /// Whether users outside root and the group may read.
    pub socket_public_read: bool,
    /// Secret from which the keys of Maglev are derived, so that directors agree; `None`: random per start.
    pub cluster_secret: Option<String>,
}

/// Kind of memory that packet buffers live in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HugePages {
    /// Ordinary 4 KiB pages.
    None,
    /// 2 MiB huge pages.
    Size2M,
    /// 1 GiB huge pages.
    Size1G,
}

/// What a worker does when it finds no packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    /// Polls on: bare metal.
    Spin,
    /// Sleeps for growing, bounded times: software ports.
    Adaptive,
}

/// Sizes fixed at start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Tracked connections over all workers.
    pub max_connections: u32,
    /// Services.
    pub max_services: u32,
    /// Destinations over all services (a server counts once per service), those still draining included.
    pub max_servers: u32,
    /// Frames per worker that wait for a neighbour to be resolved.
    pub neighbor_queue: u16,
    /// Packet buffers over all ports and workers.
    pub mbufs: u32,
}

/// How long an idle connection is kept in each state. Source of the defaults: IPVS, `ip_vs_proto_tcp.c`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Connection with data flowing. IPVS: 900 s.
    pub tcp_established: Duration,
    /// Handshake not finished. IPVS: 60 s.
    pub tcp_syn_recv: Duration,
    /// One side closed. IPVS: 120 s.
    pub tcp_fin_wait: Duration,
    /// Both closed. IPVS: 120 s.
    pub tcp_time_wait: Duration,
    /// Reset. IPVS: 10 s.
    pub tcp_close: Duration,
    /// UDP flow. IPVS: 300 s.
    pub udp: Duration,
}

/// Timeouts that a service sets for itself; `None` takes the director's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServiceTimeouts {
    /// See [`Timeouts::tcp_established`].
    pub tcp_established: Option<Duration>,
    /// See [`Timeouts::tcp_syn_recv`].
    pub tcp_syn_recv: Option<Duration>,
    /// See [`Timeouts::tcp_fin_wait`].
    pub tcp_fin_wait: Option<Duration>,
    /// See [`Timeouts::udp`].
    pub udp: Option<Duration>,
}

/// An L3 interface of the director: a device, a VLAN on it, addresses.
///
/// Several may share a device when their VLANs differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Unique name.
    pub name: String,
    /// What carries the frames.
    pub device: Device,
    /// 802.1Q tag of its frames (1 to 4094); `None`: untagged.
    pub vlan: Option<u16>,
    /// Largest IP packet, bytes (576 to 9000; at least 1280 with an IPv6 address).
    pub mtu: u16,
    /// The director's own addresses (DIPs) with their prefix lengths.
    pub addresses: Vec<IfAddr>,
    /// Next hops for what is not directly connected: at most one per family over all ports, each inside a prefix of
    /// `addresses`.
    pub gateways: Vec<IpAddr>,
}

/// An address and the length of its network's prefix, bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IfAddr {
    /// The address itself, not the network's.
    pub addr: IpAddr,
    /// 0 to 32 or 0 to 128.
    pub prefix_len: u8,
}

/// What carries frames. The text form is `KIND:ARGUMENT` (see [`Device::from_str`](std::str::FromStr)).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Device {
    /// `pci:0000:3b:00.0`: a NIC bound to vfio-pci (or a bifurcated driver).
    Pci(String),
    /// `af_packet:eth0`: a kernel interface through a PACKET_MMAP socket.
    AfPacket(String),
    /// `af_xdp:eth0`: a kernel interface through an AF_XDP socket.
    AfXdp(String),
    /// `tap:lb0`: a new kernel TAP interface.
    Tap(String),
    /// `memif:/run/memif.sock`: shared memory packet interface, server side of the socket.
    Memif(PathBuf),
    /// `ring:NAME`: an in-process ring, what is sent comes back.
    Ring(String),
    /// `pcap:/tmp/in.pcap`: packets from a file, what is sent goes to `FILE.out`.
    Pcap(PathBuf),
    /// `null`: never a packet, swallows what is sent.
    Null,
}

/// L4 protocol of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// How the server of a new connection is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheduler {
    /// Round robin.
    Rr,
    /// Least connections.
    Lc,
    /// Consistent hashing after Maglev (Eisenbud et al., NSDI 2016, section 3.4).
    Maglev(MaglevHash),
}

/// What Maglev hashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaglevHash {
    /// Client address and port: connections of one client spread.
    Flow,
    /// Client address alone: a client stays with its server.
    Source,
}

/// How packets are sent on to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forwarding {
    /// Direct routing: only the MAC addresses (and the TTL) change.
    Dr,
}

/// A VIP, protocol and port with a scheduler and its servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Unique name.
    pub name: String,
    /// Virtual address that clients use.
    pub vip: IpAddr,
    /// Port that clients use, 1 to 65535.
    pub port: u16,
    /// L4 protocol.
    pub protocol: Protocol,
    /// Scheduler of new connections.
    pub scheduler: Scheduler,
    /// Forwarding of every server.
    pub forwarding: Forwarding,
    /// Timeouts that differ from the director's.
    pub timeouts: ServiceTimeouts,
    /// Servers in scheduling order; may be empty.
    pub servers: Vec<Server>,
}

/// One real server of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Real server's address (RIP), unique within the service.
    pub address: IpAddr,
    /// 0 to 65535; 0 drains: old connections go on, no new ones.
    pub weight: u32,
}
