//! What `lbctl vrrp` shows.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Virtual routers, groups and BFD sessions, in the order of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vrrp {
    /// Instances.
    pub instances: Vec<VrrpRow>,
    /// Groups.
    pub groups: Vec<VrrpGroupRow>,
    /// Sessions.
    pub bfd: Vec<BfdRow>,
}

/// An instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VrrpRow {
    /// Its name.
    pub name: String,
    /// Its port.
    pub port: String,
    /// Number of the virtual router.
    pub vrid: u8,
    /// Version of the protocol.
    pub version: u8,
    /// `init`, `backup`, `taking`, `master` or `fault`.
    pub state: String,
    /// Time in this state, ms.
    pub since_ms: u64,
    /// Why, in words.
    #[serde(default)]
    pub why: String,
    /// Priority now, with what is tracked.
    pub priority: u8,
    /// Configured priority.
    pub base_priority: u8,
    /// The master's address, its own when it is that; none while nobody is heard.
    pub master: Option<IpAddr>,
    /// Priority of that.
    pub master_priority: Option<u8>,
    /// Time between its adverts, ms.
    pub advert_interval_ms: u64,
    /// Addresses.
    pub addresses: Vec<IpAddr>,
    /// Times that it became master.
    pub became_master: u64,
    /// Adverts sent.
    pub adverts_sent: u64,
    /// Adverts heard that passed all checks.
    pub adverts_heard: u64,
    /// Adverts that did not, and those that could not be sent, by reason.
    pub refused: BTreeMap<String, u64>,
    /// What it tracks, its port first.
    pub tracked: Vec<TrackRow>,
    /// The lease that it depends on.
    #[serde(default)]
    pub lease: Option<LeaseRow>,
}

/// A lease in etcd.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRow {
    /// Its key there.
    pub key: String,
    /// `unknown`, `away` (etcd does not answer), `free`, `other` or `held`.
    pub state: String,
    /// Time in this state, ms.
    pub since_ms: u64,
    /// The director wants it.
    pub wanted: bool,
    /// Who holds it, when that is another director.
    pub holder: Option<String>,
    /// Time that the director relies on it, unless it renews it, ms.
    pub left_ms: Option<u64>,
}

/// What an instance tracks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrackRow {
    /// `port`, `script`, `process`, `file` or `bfd`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// It is up.
    pub up: bool,
    /// It keeps the instance in fault.
    pub fault: bool,
    /// What it adds to the priority.
    pub weight: i32,
}

/// A group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VrrpGroupRow {
    /// Its name.
    pub name: String,
    /// State of all its instances; `changing` while they differ.
    pub state: String,
    /// Instances.
    pub instances: Vec<String>,
}

/// A BFD session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BfdRow {
    /// Its name.
    pub name: String,
    /// The neighbour.
    pub neighbor: IpAddr,
    /// `down`, `init`, `up` or `admin-down`.
    pub state: String,
    /// Time in this state, ms.
    pub since_ms: u64,
    /// Why it went down last.
    pub diagnostic: String,
    /// Time without packets after which it is down, µs; 0: not agreed on yet.
    pub detection_us: u64,
    /// Times that it went down.
    pub downs: u64,
}
