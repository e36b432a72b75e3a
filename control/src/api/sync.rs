//! What `lbctl sync` shows.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::IpvsSyncRow;

/// Directors that connections are shared with, in the order of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncStatus {
    /// Other directors.
    pub peers: Vec<SyncRow>,
    /// Whether the connections of all of them are here.
    pub complete: bool,
    /// Records that became connections or templates here, or changed one.
    pub applied: u64,
    /// Records that did not, by reason.
    pub refused: BTreeMap<String, u64>,
    /// Changes that the workers could not tell; everything was told again for them.
    pub lost: u64,
    /// Daemons of IPVS's connection sync.
    #[serde(default)]
    pub ipvs: Vec<IpvsSyncRow>,
}

/// Another director.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncRow {
    /// Its name.
    pub name: String,
    /// Where this director listens.
    pub listen: SocketAddr,
    /// Where the other one does.
    pub peer: SocketAddr,
    /// `up` or `down`.
    pub state: String,
    /// How long it has been up, ms.
    pub since_ms: u64,
    /// Sessions so far.
    pub sessions: u64,
    /// Copy of its connections: `none`, `asked`, `under way` or `complete`.
    pub copy: String,
    /// How long that took, ms.
    pub copy_ms: u64,
    /// Records told.
    pub told: u64,
    /// Records heard.
    pub heard: u64,
    /// Datagrams of records that were sent, once each.
    pub datagrams_sent: u64,
    /// Times that one was sent again.
    pub datagrams_repeated: u64,
    /// Those that were not acknowledged yet.
    pub datagrams_waiting: u64,
    /// Datagrams of records that came, once each.
    pub datagrams_heard: u64,
    /// Those that came once more, or too early.
    pub datagrams_useless: u64,
    /// Those that one side will never get; everything was told again for them.
    pub datagrams_gone: u64,
    /// Datagrams of no session, such as recorded ones.
    pub datagrams_strange: u64,
    /// Datagrams that were not made with the key.
    pub datagrams_forged: u64,
    /// Time from a change to the other director's word that it knows, half of them, us.
    pub lag_p50_us: u64,
    /// The same, 99 of 100.
    pub lag_p99_us: u64,
    /// The same, all.
    pub lag_max_us: u64,
}
