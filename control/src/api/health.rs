//! What lbd answers about health.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// To `Health`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthTable {
    /// Services with checks, in the order of the configuration.
    #[serde(default)]
    pub services: Vec<HealthRow>,
    /// How late checks start; absent: there is none.
    pub lateness: Option<Lateness>,
}

/// How late checks start, since the first one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lateness {
    /// Different checks; what several servers or services ask alike is asked once.
    pub probes: u64,
    /// Checks that were begun.
    pub checks: u64,
    /// What half of them were below, us.
    pub p50_us: u64,
    /// What 99 % of them were below, us.
    pub p99_us: u64,
    /// The latest, us.
    pub max_us: u64,
}

/// A service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthRow {
    /// Its name.
    pub service: String,
    /// Weight that must be up.
    pub quorum: u32,
    /// Weight that is up.
    pub live: u64,
    /// Whether it has its quorum.
    pub quorum_up: bool,
    /// Whether its sorry server serves.
    pub sorry: bool,
    /// Time since the quorum came or went, ms; absent: since the service is there.
    pub since_ms: Option<u64>,
    /// Servers with checks.
    #[serde(default)]
    pub servers: Vec<HealthServer>,
}

/// A server of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthServer {
    /// Address and port.
    pub address: SocketAddr,
    /// `up`, `down` or `unknown`: not checked yet, which is without traffic.
    pub state: String,
    /// Weight that it has while up.
    pub weight: u32,
    /// Why it is so.
    pub why: String,
    /// Time since it came up or went down, ms; absent: since the server is there.
    pub since_ms: Option<u64>,
    /// All must pass.
    #[serde(default)]
    pub checks: Vec<CheckRow>,
}

/// A check of a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckRow {
    /// What is asked, in words.
    pub check: String,
    /// What counts, after retries: `up`, `down` or `unknown`.
    pub state: String,
    /// Whether the last one passed; absent: there was none.
    pub passed: Option<bool>,
    /// What the last one found.
    pub result: String,
    /// Time since the last one, ms.
    pub ago_ms: Option<u64>,
    /// How long it took, us.
    pub took_us: Option<u64>,
    /// Failures in a row.
    pub failures: u32,
    /// Time until the next one, ms; absent: one runs.
    pub next_ms: Option<u64>,
}

/// To `Events`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventList {
    /// Oldest first.
    #[serde(default)]
    pub events: Vec<EventRow>,
    /// Number of the newest event that there is.
    pub last: u64,
}

/// An event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventRow {
    /// Counts from 1 since lbd's start.
    pub number: u64,
    /// When, ms since 1970.
    pub time_ms: u64,
    /// `up`, `down`, `weight`, `quorum_up`, `quorum_down`, `config`, `vrrp` or `lease`.
    pub event: String,
    /// Name of the service.
    pub service: Option<String>,
    /// Address and port of the server.
    pub server: Option<String>,
    /// Why.
    pub reason: String,
}
