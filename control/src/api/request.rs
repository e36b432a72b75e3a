//! What a client may ask.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// A request, told apart by its key `request`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// First frame of a client.
    Hello(Hello),
    /// Makes the configuration in `toml` the running one; with `dry_run` only says what that would change.
    Apply {
        /// A whole configuration file.
        toml: String,
        /// Checks everything, changes nothing.
        #[serde(default)]
        dry_run: bool,
    },
    /// As [`Request::Apply`], but only while the configuration is the one that [`super::ConfigText`] numbered so: for
    /// who read it, changed it and would undo what somebody else changed meanwhile.
    Exchange {
        /// A whole configuration file.
        toml: String,
        /// [`super::ConfigText::generation`].
        generation: u64,
    },
    /// What [`Request::Apply`] would change, those changes included that need a restart.
    Diff {
        /// A whole configuration file.
        toml: String,
    },
    /// The running configuration as a file.
    Show,
    /// Every service with its counters.
    ServiceList,
    /// A new service without servers.
    ServiceAdd(ServiceSpec),
    /// Changes a service; its connections stay.
    ServiceEdit(ServiceEdit),
    /// Deletes a service and its servers.
    ServiceDelete {
        /// Name, or `VIP:PORT/PROTOCOL`.
        service: String,
    },
    /// The servers of every service, or of one, with their counters.
    ServerList {
        /// Name, or `VIP:PORT/PROTOCOL`.
        service: Option<String>,
    },
    /// A new server at the head of a service's list, where IPVS puts it.
    ServerAdd(ServerSpec),
    /// Changes a server's weight, forwarding or thresholds.
    ServerEdit(ServerSpec),
    /// Deletes a server; it gets no more packets of new connections.
    ServerDelete(ServerRef),
    /// Sets a server's weight to 0: its connections go on, until a deadline if one is given; it gets no new ones.
    ServerDrain(DrainSpec),
    /// What every service and server has counted since it was last set back, and the rates of it.
    Rates,
    /// Sets the counters of [`Request::Rates`] back, of all services or of one.
    Zero {
        /// Name, or `VIP:PORT/PROTOCOL`.
        service: Option<String>,
    },
    /// Tracked connections.
    Connections(ConnectionFilter),
    /// Forgets tracked connections at once: their next packets count as new. The filter has no limit.
    FlushConnections(ConnectionFilter),
    /// What would become of the first packet of a connection, and why.
    Explain(ExplainSpec),
    /// Packets and bytes of every device and of the whole director.
    Stats,
    /// Dropped packets by reason.
    Drops,
    /// Next hops and what is known of them.
    Neighbors,
    /// Rules of source NAT with their counters.
    Snat,
    /// Virtual routers and BFD sessions.
    Vrrp,
    /// Directors that connections are shared with.
    Sync,
    /// What each worker does.
    Workers,
    /// Time that packets spend in the director.
    Latency,
    /// Which servers are up, and why.
    Health {
        /// Name, or `VIP:PORT/PROTOCOL`; absent: all with checks.
        service: Option<String>,
    },
    /// What happened.
    Events {
        /// Only those after the one of this number.
        #[serde(default)]
        after: Option<u64>,
        /// Where there is none, wait for one, some seconds at most.
        #[serde(default)]
        wait: bool,
    },
    /// As [`Request::Show`], but with the servers and weights that health checks have left for now: not to be applied.
    ShowEffective,
    /// Who answers.
    Version,
}

impl Request {
    /// Whether it changes what runs, so that only root and the configured group may send it.
    pub fn changes(&self) -> bool {
        match self {
            // A dry run is a read: it tells no more than `Diff`.
            Self::Apply { dry_run, .. } => !dry_run,
            Self::Exchange { .. } | Self::Zero { .. } => true,
            Self::ServiceAdd(_) | Self::ServiceEdit(_) | Self::ServiceDelete { .. } => true,
            Self::FlushConnections(_) => true,
            Self::ServerAdd(_) | Self::ServerEdit(_) | Self::ServerDelete(_) | Self::ServerDrain(_) => true,
            Self::Hello(_) | Self::Diff { .. } | Self::Show | Self::ServiceList | Self::ServerList { .. } => {
                false
            }
            Self::Rates
            | Self::Connections(_)
            | Self::Stats
            | Self::Drops
            | Self::Neighbors
            | Self::Snat
            | Self::Vrrp
            | Self::Sync
            | Self::Workers => false,
            Self::Explain(_) | Self::Latency | Self::Version => false,
            Self::Health { .. } | Self::Events { .. } | Self::ShowEffective => false,
        }
    }
}

/// First frame of each side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hello {
    /// [`super::PROTOCOL`] of the sender.
    pub protocol: u32,
    /// The sender's version, for the logs.
    pub version: String,
}

impl Default for Hello {
    fn default() -> Self {
        Self { protocol: super::PROTOCOL, version: env!("CARGO_PKG_VERSION").to_owned() }
    }
}

/// A new service. Words are those of the configuration file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceSpec {
    /// Unique name.
    pub name: String,
    /// What clients address: `192.168.150.100:80/tcp`, `10.0.0.0/28:8000-8999/udp`, `mark:7` ...
    pub address: String,
    /// `rr`, `lc` or `maglev`.
    pub scheduler: String,
    /// Flags of the scheduler as ipvsadm writes them, with commas between them: `sh-fallback,sh-port`; absent: none.
    #[serde(default)]
    pub scheduler_flags: Option<String>,
    /// `flow` or `source`; only with the scheduler `maglev`.
    pub maglev_hash: Option<String>,
    /// Forwarding of its servers: `dr`, `nat`, `fullnat`, `tunnel`, `tunnel:gue:6080:full` ...; absent:
    /// `dr`.
    pub forwarding: Option<String>,
    /// Addresses that packets to servers by `fullnat` come from; absent: none.
    #[serde(default)]
    pub local_addresses: Option<Vec<IpAddr>>,
    /// How these servers are told who their client is: `none`, `toa` or `proxy-v2`; absent: `none`.
    #[serde(default)]
    pub client_address: Option<String>,
    /// Time and prefix length, `300s/24`; absent: none.
    pub persistence: Option<String>,
    /// Whether every packet is scheduled anew; UDP only.
    #[serde(default)]
    pub one_packet: bool,
    /// What it decides for itself: key and value as in `[services.policy]`, without quotes.
    #[serde(default)]
    pub policy: BTreeMap<String, String>,
    /// Timeouts that differ from the director's.
    #[serde(default)]
    pub timeouts: TimeoutSpec,
}

impl ServiceSpec {
    /// A service by round robin with every option at its default.
    pub fn new(name: impl Into<String>, address: impl ToString) -> Self {
        Self {
            name: name.into(),
            address: address.to_string(),
            scheduler: "rr".to_owned(),
            scheduler_flags: None,
            maglev_hash: None,
            forwarding: None,
            local_addresses: None,
            client_address: None,
            persistence: None,
            one_packet: false,
            policy: BTreeMap::new(),
            timeouts: TimeoutSpec::default(),
        }
    }
}

/// Changes to a service; what is absent stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceEdit {
    /// Name, or `VIP:PORT/PROTOCOL`.
    pub service: String,
    /// `rr`, `lc` or `maglev`.
    pub scheduler: Option<String>,
    /// As in [`ServiceSpec::scheduler_flags`], in place of those that it has; or `none`.
    #[serde(default)]
    pub scheduler_flags: Option<String>,
    /// `flow` or `source`; only when the scheduler is `maglev`.
    pub maglev_hash: Option<String>,
    /// As in [`ServiceSpec::forwarding`]; servers that had the old one get it too.
    pub forwarding: Option<String>,
    /// As in [`ServiceSpec::local_addresses`]: all of them.
    #[serde(default)]
    pub local_addresses: Option<Vec<IpAddr>>,
    /// As in [`ServiceSpec::client_address`].
    #[serde(default)]
    pub client_address: Option<String>,
    /// As in [`ServiceSpec::persistence`], or `none`.
    pub persistence: Option<String>,
    /// Whether every packet is scheduled anew; UDP only.
    pub one_packet: Option<bool>,
    /// Policies as in [`ServiceSpec::policy`]; `default` takes the director's again.
    #[serde(default)]
    pub policy: BTreeMap<String, String>,
    /// Timeouts; `default` takes the director's again.
    #[serde(default)]
    pub timeouts: TimeoutSpec,
}

/// Timeouts as in the file: a number with its unit, as in `900s` or `15m`; or `default`: the director's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimeoutSpec {
    /// TCP connection with data flowing.
    pub tcp_established: Option<String>,
    /// TCP handshake not finished.
    pub tcp_syn_recv: Option<String>,
    /// TCP connection that one side closed.
    pub tcp_fin_wait: Option<String>,
    /// UDP flow.
    pub udp: Option<String>,
    /// Any timeout by its key in the file, as in `tcp_close_wait`.
    #[serde(default)]
    pub by_key: BTreeMap<String, String>,
}

/// A server of a service and what it shall be; what is absent stays, or in a new server takes its default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerSpec {
    /// Name of the service, or `VIP:PORT/PROTOCOL`.
    pub service: String,
    /// Real server's address.
    pub address: IpAddr,
    /// Its port; absent as in [`ServerRef::port`].
    pub port: Option<u16>,
    /// 0 to 65535. Default 1.
    pub weight: Option<u32>,
    /// `dr`, `nat`, `tunnel`, `tunnel:gue:6080:full` ... Default: the service's.
    pub forwarding: Option<String>,
    /// Connections from which on it gets no new ones; 0, the default: no such limit.
    pub upper_threshold: Option<u32>,
    /// Connections below which it gets new ones again; 0, the default: three quarters of the upper one.
    pub lower_threshold: Option<u32>,
}

impl ServerSpec {
    /// A server of which nothing but its name is given.
    pub fn new(service: impl Into<String>, address: IpAddr) -> Self {
        Self {
            service: service.into(),
            address,
            port: None,
            weight: None,
            forwarding: None,
            upper_threshold: None,
            lower_threshold: None,
        }
    }
}

/// A server of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerRef {
    /// Name of the service, or `VIP:PORT/PROTOCOL`.
    pub service: String,
    /// Real server's address.
    pub address: IpAddr,
    /// Its port. Absent: that of the service, or of the only server with this address.
    pub port: Option<u16>,
}

/// A server of a service that shall drain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrainSpec {
    /// As in [`ServerRef::service`].
    pub service: String,
    /// As in [`ServerRef::address`].
    pub address: IpAddr,
    /// As in [`ServerRef::port`].
    pub port: Option<u16>,
    /// How long its connections may go on, as in `5m`; what is left then is treated as the service's `on_server_down`
    /// says. Absent: until they end; a deadline that it had is taken away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<String>,
}

impl From<ServerRef> for DrainSpec {
    fn from(ServerRef { service, address, port }: ServerRef) -> Self {
        Self { service, address, port, deadline: None }
    }
}

/// Which connections to list; an absent field admits all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConnectionFilter {
    /// Client's address.
    pub client: Option<IpAddr>,
    /// Virtual address.
    pub vip: Option<IpAddr>,
    /// Real server's address.
    pub server: Option<IpAddr>,
    /// Name of the service, or `VIP:PORT/PROTOCOL`.
    pub service: Option<String>,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: Option<String>,
    /// State as `lbctl connections` prints it, in any case: `established`, `syn_recv` ...
    pub state: Option<String>,
    /// Most rows, 1 to [`super::MAX_CONNECTION_ROWS`]; absent: 1000.
    pub limit: Option<u32>,
}

/// The first packet of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExplainSpec {
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
    /// Address and port that it comes from.
    pub client: SocketAddr,
    /// Address and port that it goes to.
    pub vip: SocketAddr,
    /// Name of the director's port that it comes in by, which rules for marks may ask for. Absent: the one towards the
    /// client.
    pub port: Option<String>,
}
