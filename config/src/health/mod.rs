//! Health checks of servers: what is asked of them and how often, and what follows from the answers.
//!
//! A [`ServiceHealth`] holds for every server of its service; a [`ServerHealth`] for one. What neither of them nor the
//! [`Check`] says has the default of [`Check::pace`]. The words of keepalived are named where they differ.

mod check;
mod entries;
mod notify;
mod rules;
mod values;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::address::ServiceAddress;
use crate::forwarding::Forwarding;
use crate::model::{Server, Service};
use crate::text::words;

pub(crate) use check::KINDS;
pub use check::*;
pub(crate) use entries::{Entries, inline};
pub use notify::{Mail, Notify, ServerNotify, ServiceNotify};
pub(crate) use rules::{mail as check_mail, notify as check_notify, service as check_service};
pub use values::{Digest, Pattern, StatusRange};

/// `interval` where none is given. keepalived: 60 s.
pub const DEFAULT_INTERVAL: Duration = Duration::from_secs(5);
/// Longest `timeout` where none is given; it is never above the interval. keepalived: 5 s.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest `retry_delay` where none is given; it is never above the interval. keepalived: 1 s.
pub const DEFAULT_RETRY_DELAY: Duration = Duration::from_secs(1);
/// `retries` where none is given. keepalived: 1.
pub const DEFAULT_RETRIES: u32 = 1;

/// What is taken for true of a server until its checks have answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Assume {
    /// It gets no traffic before its first success. keepalived: `alpha`.
    #[default]
    Down,
    /// It gets traffic until a check has failed.
    Up,
}

words!(Assume, "an assumption", [
    "down" => Self::Down => Self::Down,
    "up" => Self::Up => Self::Up,
]);

/// What becomes of a server that is down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnFailure {
    /// It leaves the rotation; its connections go the way of the service's `on_server_down`.
    #[default]
    Remove,
    /// Its weight is 0: its connections go on. keepalived: `inhibit_on_failure`.
    Drain,
}

words!(OnFailure, "a way to treat a failed server", [
    "remove" => Self::Remove => Self::Remove,
    "drain" => Self::Drain => Self::Drain,
]);

/// When checks run and when they count; `None`: as the next wider scope says, at last the default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Pace {
    /// From the start of a check to the start of the next. keepalived: `delay_loop`.
    pub interval: Option<Duration>,
    /// Longest a check may take, all of it. keepalived: `connect_timeout`, `misc_timeout`.
    pub timeout: Option<Duration>,
    /// Failures in a row that are forgiven.
    pub retries: Option<u32>,
    /// From a forgiven failure to the next check. keepalived: `delay_before_retry`.
    pub retry_delay: Option<Duration>,
    /// The first check comes after a random part of this.
    pub warmup: Option<Duration>,
    /// A server that is down is checked every `retry_delay`.
    pub fast_recovery: Option<bool>,
    /// What holds before the first answer.
    pub assume: Option<Assume>,
}

impl Pace {
    /// What is set here, else what `wider` says.
    pub fn or(&self, wider: &Self) -> Self {
        Self {
            interval: self.interval.or(wider.interval),
            timeout: self.timeout.or(wider.timeout),
            retries: self.retries.or(wider.retries),
            retry_delay: self.retry_delay.or(wider.retry_delay),
            warmup: self.warmup.or(wider.warmup),
            fast_recovery: self.fast_recovery.or(wider.fast_recovery),
            assume: self.assume.or(wider.assume),
        }
    }
}

/// A [`Pace`] with all defaults filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rhythm {
    /// See [`Pace::interval`].
    pub interval: Duration,
    /// See [`Pace::timeout`].
    pub timeout: Duration,
    /// See [`Pace::retries`].
    pub retries: u32,
    /// See [`Pace::retry_delay`].
    pub retry_delay: Duration,
    /// See [`Pace::warmup`].
    pub warmup: Duration,
    /// See [`Pace::fast_recovery`].
    pub fast_recovery: bool,
}

/// Health checks of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceHealth {
    /// When checks run.
    pub pace: Pace,
    /// What becomes of a server that is down.
    pub on_failure: OnFailure,
    /// Weight of live servers from which on (with `hysteresis` added) the service has its quorum.
    pub quorum: u32,
    /// See `quorum`; it is lost below the quorum less this.
    pub hysteresis: u32,
    /// Who serves while there is no quorum.
    pub sorry_server: Option<SorryServer>,
    /// Virtual host of HTTP checks that name none. keepalived: `virtualhost`.
    pub host: Option<String>,
    /// The commands for "down" and "quorum lost" run when lbd stops. keepalived: `omega`.
    pub down_at_stop: bool,
    /// Who is told.
    pub notify: ServiceNotify,
    /// What each server is asked; all must pass. None: only servers with checks of their own are checked.
    pub checks: Vec<Check>,
}

impl Default for ServiceHealth {
    fn default() -> Self {
        Self {
            pace: Pace::default(),
            on_failure: OnFailure::Remove,
            quorum: 1,
            hysteresis: 0,
            sorry_server: None,
            host: None,
            down_at_stop: false,
            notify: ServiceNotify::default(),
            checks: Vec::new(),
        }
    }
}

/// What one server has of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerHealth {
    /// When checks run; what is absent is the service's.
    pub pace: Pace,
    /// What becomes of it when it is down; `None`: as the service says.
    pub on_failure: Option<OnFailure>,
    /// Virtual host of HTTP checks that name none.
    pub host: Option<String>,
    /// Who is told, beside those of the service.
    pub notify: ServerNotify,
    /// What it is asked in place of what the service says; an empty list: nothing, it is always up.
    pub checks: Option<Vec<Check>>,
}

/// Who serves while a service has no quorum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SorryServer {
    /// Its address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// Its weight, at least 1.
    pub weight: u32,
    /// How packets get to it.
    pub forwarding: Forwarding,
    /// While it is not needed it is there with weight 0 rather than not at all. keepalived: `sorry_server_inhibit`.
    pub drain: bool,
}

impl SorryServer {
    /// Its address and port.
    pub const fn key(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }

    /// The server that it is, with this weight.
    pub fn server(&self, weight: u32) -> Server {
        Server { weight, ..Server::new(self.address, self.port, self.forwarding) }
    }
}

/// One check of one server with everything that was left open filled in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FullCheck {
    /// What is asked.
    pub kind: CheckKind,
    /// Whom, and from where.
    pub target: FullTarget,
    /// When.
    pub rhythm: Rhythm,
    /// What holds before the first answer.
    pub assume: Assume,
}

/// Where a check goes and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FullTarget {
    /// Address and port that are asked.
    pub to: SocketAddr,
    /// Address that the check comes from; `None`: as the routing table says.
    pub bind: Option<IpAddr>,
    /// Port that the check comes from; 0: any.
    pub bind_port: u16,
    /// Interface that the check goes out by; `None`: as the routing table says.
    pub device: Option<String>,
    /// Firewall mark (`SO_MARK`) of its packets; 0: none.
    pub mark: u32,
    /// The server that it is about, where it takes the clients' way to it and `to` is the VIP.
    pub path: Option<SocketAddr>,
}

/// Ports that checks by `via = "path"` come from, one each for every server of a service: behind those that Linux gives
/// to sockets without one (`net.ipv4.ip_local_port_range`).
pub const PATH_PORTS: std::ops::RangeInclusive<u16> = 61_001..=65_535;

impl Service {
    /// The checks of `server`, which is one of this service's, in their order.
    pub fn checks_of(&self, server: &Server) -> Vec<FullCheck> {
        let own = server.health.as_deref();
        let wide = self.health.as_deref();
        let checks = own.and_then(|own| own.checks.as_deref()).or(wide.map(|wide| wide.checks.as_slice()));
        let mut pace = wide.map_or(Pace::default(), |wide| wide.pace);
        if let Some(own) = own {
            pace = own.pace.or(&pace);
        }
        let host = own.and_then(|own| own.host.as_ref()).or(wide.and_then(|wide| wide.host.as_ref()));
        // A service of several ports is asked at its first one unless a check says otherwise.
        let port = match server.port {
            0 => match self.address {
                ServiceAddress::Range { ports, .. } => ports.first(),
                _ => 0,
            },
            port => port,
        };
        let at = SocketAddr::new(server.address, port);
        let by_path = |check: &Check, mut full: FullCheck| {
            if let (Via::Path, ServiceAddress::Vip { vip, port, .. }) = (check.target.via, self.address) {
                (full.target.to, full.target.path) = (SocketAddr::new(vip, port), Some(server.key()));
            }
            full
        };
        let all = checks.unwrap_or_default().iter();
        all.map(|check| by_path(check, check.full(at, &pace, host))).collect()
    }

    /// What becomes of `server` when it is down.
    pub fn on_failure(&self, server: &Server) -> OnFailure {
        let own = server.health.as_ref().and_then(|own| own.on_failure);
        own.or(self.health.as_ref().map(|wide| wide.on_failure)).unwrap_or_default()
    }

    /// Whether anything about its servers depends on checks.
    pub fn is_checked(&self) -> bool {
        self.health.is_some() || self.servers.iter().any(|server| server.health.is_some())
    }
}

#[cfg(test)]
mod tests;
