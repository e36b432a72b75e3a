//! What the daemons of IPVS's connection sync do.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// A daemon of `[[ipvs_sync]]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpvsSyncRow {
    /// `master` or `backup`.
    pub state: String,
    /// Interface that multicast goes over.
    pub interface: String,
    /// Which directors sync with each other.
    pub sync_id: u8,
    /// Multicast group.
    pub group: IpAddr,
    /// UDP port.
    pub port: u16,
    /// Why it does not work now, if so.
    pub fault: Option<String>,
    /// Messages sent or taken.
    pub messages: u64,
    /// Connections and templates in them.
    pub entries: u64,
    /// Messages that could not be sent; those received that were none or for another sync id.
    pub refused: u64,
    /// Entries received that were none.
    pub malformed: u64,
    /// Entries received for which the workers had no room in time.
    pub late: u64,
    /// Connections that were not told or not taken over, by reason.
    pub left_out: BTreeMap<String, u64>,
}
