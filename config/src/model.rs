//! What the configuration means: a value that cannot be wrong.
//!
//! A [`Model`] is only made by [`crate::parse`] and by the checked edits of [`crate::edit`], so everything
//! downstream relies on its invariants: names are unique, every DR server is on a directly connected network and
//! every other one there or behind a gateway, a server keeps the service's port unless NAT maps it, weights,
//! thresholds and timeouts are in range.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::address::ServiceAddress;
use crate::exception::Exception;
use crate::forwarding::{ClientAddress, Forwarding};
use crate::health::{Notify, ServerHealth, ServiceHealth};
use crate::mark::MarkRule;
use crate::policy::{Policy, ServicePolicy};
pub use crate::scheduler::{MaglevHash, MaglevSize, Scheduler, SchedulerFlags};
use crate::services::Services;
use crate::snat::SnatRule;
use crate::vrrp::Ha;

/// A whole configuration of one director.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// Process-wide settings; changing them needs a restart.
    pub appliance: Appliance,
    /// Sizes fixed at start; changing them needs a restart.
    pub limits: Limits,
    /// Whether and where connection tables outlive the process; changing it needs a restart.
    pub tables: Tables,
    /// Timeouts of the whole director; a service may override them.
    pub timeouts: Timeouts,
    /// Policies of the whole director; a service may have its own.
    pub policy: Policy,
    /// Who is told of changes.
    pub notify: Notify,
    /// L3 interfaces in the order of the file.
    pub ports: Vec<Port>,
    /// What gives packets their marks; the first rule that matches holds.
    pub marks: Vec<MarkRule>,
    /// Services in the order of the file.
    pub services: Services,
    /// Private networks that reach the world through the director; the first rule that matches holds.
    pub snat: Vec<SnatRule>,
    /// Redundancy: VRRP, what it tracks, BFD.
    pub ha: Ha,
}

impl Model {
    /// A copy with everything but the services.
    pub fn without_services(&self) -> Self {
        Self {
            appliance: self.appliance.clone(),
            limits: self.limits.clone(),
            tables: self.tables.clone(),
            timeouts: self.timeouts,
            policy: self.policy,
            ports: self.ports.clone(),
            marks: self.marks.clone(),
            services: Services::default(),
            snat: self.snat.clone(),
            notify: self.notify.clone(),
            ha: self.ha.clone(),
        }
    }

    /// Whether `other` differs in its services at most.
    pub fn differs_in_services_alone(&self, other: &Self) -> bool {
        let Self { appliance, limits, tables, timeouts, policy, notify, ports, marks, services: _, snat, ha } =
            self;
        *appliance == other.appliance
            && *limits == other.limits
            && *tables == other.tables
            && *timeouts == other.timeouts
            && *policy == other.policy
            && *ports == other.ports
            && *marks == other.marks
            && *snat == other.snat
            && *notify == other.notify
            && *ha == other.ha
    }
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

/// Whether connections outlive the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tables {
    /// Connection tables are kept for the lbd that comes after this one, whether that is killed or upgraded.
    pub keep: bool,
    /// Folder, on a tmpfs, in which each director has one of its name for what it keeps.
    pub directory: PathBuf,
}

/// How long an idle connection is kept in each state.
///
/// Source of the defaults: IPVS, `ip_vs_proto_tcp.c`, `ip_vs_proto_udp.c`, `ip_vs_proto_sctp.c`. Its states LAST_ACK
/// and LISTEN have no timeout here: no packet leads to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Connection with data flowing. IPVS: 900 s.
    pub tcp_established: Duration,
    /// The server's SYN came before the client's; NAT alone sees it. IPVS: 120 s.
    pub tcp_syn_sent: Duration,
    /// Handshake not finished. IPVS: 60 s.
    pub tcp_syn_recv: Duration,
    /// The server closed; in one-directional flows, the client. IPVS: 120 s.
    pub tcp_fin_wait: Duration,
    /// Both closed. IPVS: 120 s.
    pub tcp_time_wait: Duration,
    /// Reset. IPVS: 10 s.
    pub tcp_close: Duration,
    /// The client closed first; NAT alone sees it. IPVS: 60 s.
    pub tcp_close_wait: Duration,
    /// Handshake not finished, under `secure_tcp`. IPVS: 120 s.
    pub tcp_synack: Duration,
    /// UDP flow. IPVS: 300 s.
    pub udp: Duration,
    /// One INIT was seen, and no answer. IPVS: 4 s.
    pub sctp_init: Duration,
    /// Handshake not finished. IPVS: 61 s.
    pub sctp_handshake: Duration,
    /// Association with data flowing. IPVS: 900 s.
    pub sctp_established: Duration,
    /// Shutdown not finished. IPVS: 61 s.
    pub sctp_shutdown: Duration,
    /// Aborted during the handshake. IPVS: 4 s.
    pub sctp_rejected: Duration,
    /// Association that is over. IPVS: 61 s.
    pub sctp_closed: Duration,
}

/// Timeouts that a service sets for itself; `None` takes the director's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServiceTimeouts {
    /// See [`Timeouts::tcp_established`].
    pub tcp_established: Option<Duration>,
    /// See [`Timeouts::tcp_syn_sent`].
    pub tcp_syn_sent: Option<Duration>,
    /// See [`Timeouts::tcp_syn_recv`].
    pub tcp_syn_recv: Option<Duration>,
    /// See [`Timeouts::tcp_fin_wait`].
    pub tcp_fin_wait: Option<Duration>,
    /// See [`Timeouts::tcp_time_wait`].
    pub tcp_time_wait: Option<Duration>,
    /// See [`Timeouts::tcp_close`].
    pub tcp_close: Option<Duration>,
    /// See [`Timeouts::tcp_close_wait`].
    pub tcp_close_wait: Option<Duration>,
    /// See [`Timeouts::tcp_synack`].
    pub tcp_synack: Option<Duration>,
    /// See [`Timeouts::udp`].
    pub udp: Option<Duration>,
    /// See [`Timeouts::sctp_init`].
    pub sctp_init: Option<Duration>,
    /// See [`Timeouts::sctp_handshake`].
    pub sctp_handshake: Option<Duration>,
    /// See [`Timeouts::sctp_established`].
    pub sctp_established: Option<Duration>,
    /// See [`Timeouts::sctp_shutdown`].
    pub sctp_shutdown: Option<Duration>,
    /// See [`Timeouts::sctp_rejected`].
    pub sctp_rejected: Option<Duration>,
    /// See [`Timeouts::sctp_closed`].
    pub sctp_closed: Option<Duration>,
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
    /// The kernel's side of it; `None`: the kernel gets nothing.
    pub exception: Option<Exception>,
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
    /// SCTP.
    Sctp,
}

/// What clients address, with a scheduler and servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Unique name.
    pub name: String,
    /// What clients address, unique. Where several services cover a packet, the most specific has it: a mark; one address
    /// and port; the narrowest range of ports of one address; port 0 of one address; the longest prefix, and of its
    /// ranges the narrowest.
    pub address: ServiceAddress,
    /// Scheduler of new connections.
    pub scheduler: Scheduler,
    /// Flags of the scheduler.
    pub scheduler_flags: SchedulerFlags,
    /// Forwarding of the servers that are not given one of their own; each [`Server`] holds what it got.
    pub forwarding: Forwarding,
    /// Timeouts that differ from the director's.
    pub timeouts: ServiceTimeouts,
    /// Whether a client stays with its server beyond one connection; `None`: it need not.
    pub persistence: Option<Persistence>,
    /// Every packet is scheduled anew and no connection is kept; UDP only.
    pub one_packet: bool,
    /// What it decides for itself, see [`Policy::of`].
    pub policy: ServicePolicy,
    /// Addresses of the director (LIPs) that packets to servers by full NAT come from: each on a connected network and
    /// of the VIP's family, at least one where a server needs it, else none.
    pub local_addresses: Vec<IpAddr>,
    /// How servers by full NAT are told who their client is.
    pub client_address: ClientAddress,
    /// How its servers are checked; `None`: only those with checks of their own are.
    pub health: Option<Arc<ServiceHealth>>,
    /// Servers in scheduling order, which is IPVS's list order; may be empty.
    pub servers: Vec<Server>,
}

impl Service {
    /// Whether it, or one of its servers, goes by full NAT.
    pub fn has_full_nat(&self) -> bool {
        self.forwarding == Forwarding::FullNat
            || self.servers.iter().any(|server| server.forwarding == Forwarding::FullNat)
    }

    /// A service by round robin and direct routing, without servers and with every option at its default.
    pub fn new(name: impl Into<String>, address: ServiceAddress) -> Self {
        Self {
            name: name.into(),
            address,
            scheduler: Scheduler::Rr,
            scheduler_flags: SchedulerFlags::default(),
            forwarding: Forwarding::Dr,
            timeouts: ServiceTimeouts::default(),
            persistence: None,
            one_packet: false,
            policy: ServicePolicy::default(),
            local_addresses: Vec::new(),
            client_address: ClientAddress::None,
            health: None,
            servers: Vec::new(),
        }
    }
}

/// How a client stays with its server. Source: ipvsadm(8), `--persistent` and `--netmask`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Persistence {
    /// How long after its last connection a client comes back to its server, whole seconds, 1 s to 31 days.
    pub timeout: Duration,
    /// Clients that share so many leading bits of their address are one client, 0 to 32 or 0 to 128.
    pub prefix_len: u8,
}

/// One real server of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Real server's address (RIP).
    pub address: IpAddr,
    /// Port of the server; the service's ([`ServiceAddress::port`]) unless NAT maps it. 0, where that is 0: the port that
    /// the client used. Address and port are unique within the service.
    pub port: u16,
    /// 0 to 65535; 0 drains: old connections go on, no new ones.
    pub weight: u32,
    /// How packets get to it.
    pub forwarding: Forwarding,
    /// Connections from which on it gets no new ones; 0: no such limit.
    pub upper_threshold: u32,
    /// Connections below which it gets new ones again, at most `upper_threshold`; 0: three quarters of that.
    pub lower_threshold: u32,
    /// With weight 0: how long after this takes effect its connections go on, 1 s to 31 days; what is left then is
    /// treated as those of a removed server ([`OnServerDown`](crate::OnServerDown), not `keep`). `None`: until they end.
    pub drain_deadline: Option<Duration>,
    /// How it is checked, where that differs from what its service says.
    pub health: Option<Arc<ServerHealth>>,
}

impl Server {
    /// A server of weight 1 without thresholds and without a deadline.
    pub fn new(address: IpAddr, port: u16, forwarding: Forwarding) -> Self {
        Self {
            address,
            port,
            weight: 1,
            forwarding,
            upper_threshold: 0,
            lower_threshold: 0,
            drain_deadline: None,
            health: None,
        }
    }

    /// Its address and port, which name it within its service.
    pub const fn key(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }
}
