//! `[[ipvs_sync]]`: the kernel's connection sync, so that a Linux with IPVS can be the neighbour.
//!
//! Names and defaults are those of `ipvsadm --start-daemon`, but for the last two, in whose place Linux has sysctls that count
//! packets.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;
use std::time::Duration;

use toml::Value;

use crate::duration;
use crate::text::{ValueError, show};

/// Group that Linux sends to. Source: Linux, `IP_VS_SYNC_GROUP`.
pub const IPVS_SYNC_GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 81);
/// Port that Linux sends to. Source: Linux, `IP_VS_SYNC_PORT`.
pub const IPVS_SYNC_PORT: u16 = 8848;

/// What a daemon does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IpvsSyncState {
    /// Tells others of this director's connections.
    Master,
    /// Takes over what others tell.
    Backup,
}

impl IpvsSyncState {
    /// Both, as listings have them.
    pub const ALL: [Self; 2] = [Self::Master, Self::Backup];

    /// As in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Master => "master",
            Self::Backup => "backup",
        }
    }
}

impl fmt::Display for IpvsSyncState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for IpvsSyncState {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let known = Self::ALL.into_iter().find(|state| state.as_str() == text);
        known.ok_or_else(|| ValueError(format!("{} is not one of master, backup", show(text))))
    }
}

/// A sync daemon; a director has one of each state at most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpvsSync {
    /// Master or backup.
    pub state: IpvsSyncState,
    /// Instance of `[[vrrp]]` that decides when it runs: a master while that is master, a backup while it is not. `None`: always.
    pub vrrp: Option<String>,
    /// Interface of the kernel's that multicast goes over.
    pub interface: String,
    /// Which directors sync with each other. A backup with 0 takes what comes with any.
    pub sync_id: u8,
    /// Longest message, bytes.
    pub max_length: u16,
    /// Multicast group.
    pub group: IpAddr,
    /// UDP port.
    pub port: u16,
    /// TTL of messages.
    pub ttl: u8,
    /// Master: how often a connection that lives on is told again.
    pub refresh: Duration,
    /// Master: how often all connections are told, for a backup that came late; 0: never.
    pub resync: Duration,
}

impl IpvsSync {
    /// With Linux's defaults.
    pub fn new(state: IpvsSyncState, interface: String) -> Self {
        let group = IPVS_SYNC_GROUP.into();
        Self {
            state,
            vrrp: None,
            interface,
            sync_id: 0,
            max_length: Self::default_length(group),
            group,
            port: IPVS_SYNC_PORT,
            ttl: 1,
            refresh: Duration::from_secs(10),
            resync: Duration::from_secs(300),
        }
    }

    /// Whether it runs; `master`: whether the instance that it follows is master.
    pub fn runs(&self, master: impl FnOnce(&str) -> bool) -> bool {
        self.vrrp.as_deref().is_none_or(|vrrp| master(vrrp) == (self.state == IpvsSyncState::Master))
    }

    /// Longest message to a group without other word: an Ethernet frame without IP and UDP headers.
    pub const fn default_length(group: IpAddr) -> u16 {
        match group {
            IpAddr::V4(_) => 1500 - 20 - 8,
            IpAddr::V6(_) => 1500 - 40 - 8,
        }
    }

    /// Longest message that UDP carries to a group.
    pub const fn longest(group: IpAddr) -> u16 {
        match group {
            IpAddr::V4(_) => u16::MAX - 20 - 8,
            IpAddr::V6(_) => u16::MAX - 40 - 8,
        }
    }

    /// Its keys and values, as TOML.
    pub(crate) fn entries(&self) -> Vec<(&'static str, String)> {
        let text = |text: String| Value::String(text).to_string();
        let mut entries = vec![("state", text(self.state.to_string()))];
        entries.extend(self.vrrp.clone().map(|vrrp| ("vrrp", text(vrrp))));
        entries.extend([
            ("interface", text(self.interface.clone())),
            ("sync_id", self.sync_id.to_string()),
            ("max_length", self.max_length.to_string()),
            ("group", text(self.group.to_string())),
            ("port", self.port.to_string()),
            ("ttl", self.ttl.to_string()),
        ]);
        if self.state == IpvsSyncState::Master {
            entries.push(("refresh", text(duration::format(self.refresh))));
            entries.push(("resync", text(duration::format(self.resync))));
        }
        entries
    }
}

impl Default for IpvsSync {
    /// One of which nothing is known.
    fn default() -> Self {
        Self::new(IpvsSyncState::Master, String::new())
    }
}
