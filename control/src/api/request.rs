//! What a client may ask.

use std::net::IpAddr;

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
    /// A new server at the end of a service's list.
    ServerAdd(ServerSpec),
    /// Changes a server's weight.
    ServerEdit(ServerSpec),
    /// Deletes a server; it gets no more packets of new connections.
    ServerDelete(ServerRef),
    /// Sets a server's weight to 0: its connections go on, it gets no new ones.
    ServerDrain(ServerRef),
    /// Tracked connections.
    Connections(ConnectionFilter),
    /// Packets and bytes of every device and of the whole director.
    Stats,
    /// Dropped packets by reason.
    Drops,
    /// Next hops and what is known of them.
    Neighbors,
    /// What each worker does.
    Workers,
    /// Time that packets spend in the director.
    Latency,
    /// Who answers.
    Version,
}

impl Request {
    /// Whether it changes what runs, so that only root and the configured group may send it.
    pub fn changes(&self) -> bool {
        match self {
            // A dry run is a read: it tells no more than `Diff`.
            Self::Apply { dry_run, .. } => !dry_run,
            Self::ServiceAdd(_) | Self::ServiceEdit(_) | Self::ServiceDelete { .. } => true,
            Self::ServerAdd(_) | Self::ServerEdit(_) | Self::ServerDelete(_) | Self::ServerDrain(_) => true,
            Self::Hello(_) | Self::Diff { .. } | Self::Show | Self::ServiceList | Self::ServerList { .. } => {
                false
            }
            Self::Connections(_) | Self::Stats | Self::Drops | Self::Neighbors | Self::Workers => false,
            Self::Latency | Self::Version => false,
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
    /// Virtual address.
    pub vip: IpAddr,
    /// Port, 1 to 65535.
    pub port: u16,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// `rr`, `lc` or `maglev`.
    pub scheduler: String,
    /// `flow` or `source`; only with the scheduler `maglev`.
    pub maglev_hash: Option<String>,
    /// Timeouts that differ from the director's.
    #[serde(default)]
    pub timeouts: TimeoutSpec,
}

/// Changes to a service; what is absent stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceEdit {
    /// Name, or `VIP:PORT/PROTOCOL`.
    pub service: String,
    /// `rr`, `lc` or `maglev`.
    pub scheduler: Option<String>,
    /// `flow` or `source`; only when the scheduler is `maglev`.
    pub maglev_hash: Option<String>,
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
}

/// A server of a service with a weight.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerSpec {
    /// Name of the service, or `VIP:PORT/PROTOCOL`.
    pub service: String,
    /// Real server's address.
    pub address: IpAddr,
    /// 0 to 65535.
    pub weight: u32,
}

/// A server of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerRef {
    /// Name of the service, or `VIP:PORT/PROTOCOL`.
    pub service: String,
    /// Real server's address.
    pub address: IpAddr,
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
    /// `tcp` or `udp`.
    pub protocol: Option<String>,
    /// State as `lbctl connections` prints it, in any case: `established`, `syn_recv` ...
    pub state: Option<String>,
    /// Most rows, 1 to [`super::MAX_CONNECTION_ROWS`]; absent: 1000.
    pub limit: Option<u32>,
}
