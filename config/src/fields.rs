//! Keys that come in tables of like kind: limits and timeouts, with their defaults.
//!
//! Reader, checks, writer and diff go over these tables, so that a key is stated once.

use std::path::PathBuf;
use std::time::Duration;

use crate::bounds::{self, Bounds};
use crate::edit::TimeoutsEdit;
use crate::model::{Appliance, HugePages, Idle, Limits, Protocol, ServiceTimeouts, Tables, Timeouts};

/// A number of [`Limits`].
pub(crate) struct LimitField {
    pub key: &'static str,
    pub bounds: Bounds,
    pub get: fn(&Limits) -> u32,
    /// The value is inside `bounds`.
    pub set: fn(&mut Limits, u32),
}

pub(crate) const LIMITS: [LimitField; 5] = [
    LimitField {
        key: "max_connections",
        bounds: bounds::MAX_CONNECTIONS,
        get: |l| l.max_connections,
        set: |l, v| l.max_connections = v,
    },
    LimitField {
        key: "max_services",
        bounds: bounds::MAX_SERVICES,
        get: |l| l.max_services,
        set: |l, v| l.max_services = v,
    },
    LimitField {
        key: "max_servers",
        bounds: bounds::MAX_SERVERS,
        get: |l| l.max_servers,
        set: |l, v| l.max_servers = v,
    },
    LimitField {
        key: "neighbor_queue",
        bounds: bounds::NEIGHBOR_QUEUE,
        get: |l| l.neighbor_queue.into(),
        set: |l, v| l.neighbor_queue = u16::try_from(v).unwrap_or(u16::MAX),
    },
    LimitField { key: "mbufs", bounds: bounds::MBUFS, get: |l| l.mbufs, set: |l, v| l.mbufs = v },
];

/// A duration of [`Timeouts`].
pub(crate) struct TimeoutField {
    pub key: &'static str,
    pub get: fn(&Timeouts) -> Duration,
    pub set: fn(&mut Timeouts, Duration),
}

macro_rules! timeout {
    ($field:ident) => {
        TimeoutField { key: stringify!($field), get: |t| t.$field, set: |t, v| t.$field = v }
    };
}

pub(crate) const TIMEOUTS: [TimeoutField; 15] = [
    timeout!(tcp_established),
    timeout!(tcp_syn_sent),
    timeout!(tcp_syn_recv),
    timeout!(tcp_fin_wait),
    timeout!(tcp_time_wait),
    timeout!(tcp_close),
    timeout!(tcp_close_wait),
    timeout!(tcp_synack),
    timeout!(udp),
    timeout!(sctp_init),
    timeout!(sctp_handshake),
    timeout!(sctp_established),
    timeout!(sctp_shutdown),
    timeout!(sctp_rejected),
    timeout!(sctp_closed),
];

/// A duration of [`ServiceTimeouts`].
pub(crate) struct ServiceTimeoutField {
    pub key: &'static str,
    /// Services of another protocol must not set it: it would do nothing.
    pub protocol: Protocol,
    pub get: fn(&ServiceTimeouts) -> Option<Duration>,
    pub set: fn(&mut ServiceTimeouts, Option<Duration>),
    pub edit: fn(&TimeoutsEdit) -> Option<Option<Duration>>,
    pub put: fn(&mut TimeoutsEdit, Option<Option<Duration>>),
}

macro_rules! service_timeout {
    ($field:ident, $protocol:ident) => {
        ServiceTimeoutField {
            key: stringify!($field),
            protocol: Protocol::$protocol,
            get: |t| t.$field,
            set: |t, v| t.$field = v,
            edit: |t| t.$field,
            put: |t, v| t.$field = v,
        }
    };
}

pub(crate) const SERVICE_TIMEOUTS: [ServiceTimeoutField; 15] = [
    service_timeout!(tcp_established, Tcp),
    service_timeout!(tcp_syn_sent, Tcp),
    service_timeout!(tcp_syn_recv, Tcp),
    service_timeout!(tcp_fin_wait, Tcp),
    service_timeout!(tcp_time_wait, Tcp),
    service_timeout!(tcp_close, Tcp),
    service_timeout!(tcp_close_wait, Tcp),
    service_timeout!(tcp_synack, Tcp),
    service_timeout!(udp, Udp),
    service_timeout!(sctp_init, Sctp),
    service_timeout!(sctp_handshake, Sctp),
    service_timeout!(sctp_established, Sctp),
    service_timeout!(sctp_shutdown, Sctp),
    service_timeout!(sctp_rejected, Sctp),
    service_timeout!(sctp_closed, Sctp),
];

/// Port's default `mtu`, bytes. Source: RFC 894.
pub(crate) const DEFAULT_MTU: u16 = 1500;
/// Service's default `persistence.timeout`. Source: ipvsadm(8), `--persistent`.
pub(crate) const DEFAULT_PERSISTENCE: Duration = Duration::from_secs(300);
/// Server's default `weight`. Source: ipvsadm(8).
pub(crate) const DEFAULT_WEIGHT: u32 = 1;

impl Default for Appliance {
    fn default() -> Self {
        Self {
            name: "director".to_owned(),
            workers: vec![0],
            control_cpu: None,
            huge_pages: HugePages::None,
            // 32 Ki packet buffers of about 2.4 KiB are 77 MiB; the rest is for rings and tables.
            memory_mib: 512,
            idle: Idle::Adaptive,
            socket: PathBuf::from("/run/sluice/lbd.sock"),
            socket_group: None,
            socket_public_read: false,
            cluster_secret: None,
        }
    }
}

impl Default for Tables {
    fn default() -> Self {
        Self { keep: true, directory: PathBuf::from("/dev/shm") }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 1 << 20,
            max_services: 1024,
            max_servers: 16_384,
            // Linux keeps 101 frames for one neighbour (`unres_qlen` 101); ours is for all of a worker's.
            neighbor_queue: 256,
            mbufs: 32_768,
        }
    }
}

/// IPVS's defaults. Source: `tcp_timeouts`, `udp_timeouts` and `sctp_timeouts`.
impl Default for Timeouts {
    fn default() -> Self {
        Self {
            tcp_established: Duration::from_secs(900),
            tcp_syn_sent: Duration::from_secs(120),
            tcp_syn_recv: Duration::from_secs(60),
            tcp_fin_wait: Duration::from_secs(120),
            tcp_time_wait: Duration::from_secs(120),
            tcp_close: Duration::from_secs(10),
            tcp_close_wait: Duration::from_secs(60),
            tcp_synack: Duration::from_secs(120),
            udp: Duration::from_secs(300),
            sctp_init: Duration::from_secs(4),
            sctp_handshake: Duration::from_secs(61),
            sctp_established: Duration::from_secs(900),
            sctp_shutdown: Duration::from_secs(61),
            sctp_rejected: Duration::from_secs(4),
            sctp_closed: Duration::from_secs(61),
        }
    }
}
