//! Redundant directors: VRRP instances, what they track, and BFD sessions.
//!
//! Keys are keepalived's where it has them, see `example.toml`. Every object gives its keys and values as TOML
//! ([`Vrrp::entries`] and its like), and the writer and the diff go over those, so that a key is stated once there.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use crate::ifaddr::parse_ip;
use crate::ipvs_sync::IpvsSync;
use crate::sync::PeerSync;
use crate::text::{ValueError, show};

mod entries;
mod lease;
mod track;

pub(crate) use entries::LEASE;
pub use lease::{Endpoint, Lease, WhenAway};
pub use track::{Bfd, Track, Tracked, VrrpFile, VrrpProcess, VrrpScript};

/// Everything about redundancy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ha {
    /// Virtual routers, `[[vrrp]]`.
    pub vrrp: Vec<Vrrp>,
    /// Instances that change state together, `[[vrrp_groups]]`.
    pub groups: Vec<VrrpGroup>,
    /// Scripts that instances track, `[[vrrp_scripts]]`.
    pub scripts: Vec<VrrpScript>,
    /// Processes that instances track, `[[vrrp_processes]]`.
    pub processes: Vec<VrrpProcess>,
    /// Files that instances track, `[[vrrp_files]]`.
    pub files: Vec<VrrpFile>,
    /// Sessions with neighbours, `[[bfd]]`.
    pub bfd: Vec<Bfd>,
    /// Directors that connections are shared with, `[[sync]]`.
    pub sync: Vec<PeerSync>,
    /// Leases that VIPs depend on, `[lease]`.
    pub lease: Option<Lease>,
    /// Connection sync as the kernel does it, `[[ipvs_sync]]`.
    pub ipvs_sync: Vec<IpvsSync>,
}

impl Ha {
    /// Whether it holds passwords or keys.
    pub fn has_secrets(&self) -> bool {
        !self.sync.is_empty()
            || self.vrrp.iter().any(|vrrp| vrrp.auth_password.is_some() || vrrp.hmac.is_some())
            || self.lease.as_ref().is_some_and(|lease| lease.password.is_some())
    }

    /// The same without passwords and keys.
    pub fn without_secrets(mut self) -> Self {
        for vrrp in &mut self.vrrp {
            (vrrp.auth_password, vrrp.hmac) = (None, None);
        }
        // without its key there is nothing to be said of it
        self.sync.clear();
        if let Some(lease) = &mut self.lease {
            (lease.user, lease.password) = (None, None);
        }
        self
    }
}

/// Version of the protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VrrpVersion {
    /// RFC 3768: IPv4, whole seconds.
    V2,
    /// RFC 9568: both families, centiseconds.
    #[default]
    V3,
}

impl VrrpVersion {
    /// 2 or 3.
    pub const fn number(self) -> u8 {
        match self {
            Self::V2 => 2,
            Self::V3 => 3,
        }
    }
}

/// What an instance takes itself for at its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VrrpStart {
    /// Waits for the whole time in which a master would have spoken.
    #[default]
    Backup,
    /// Waits for one interval and the skew only.
    Master,
}

impl VrrpStart {
    /// As in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Backup => "backup",
            Self::Master => "master",
        }
    }
}

impl FromStr for VrrpStart {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text {
            "backup" => Ok(Self::Backup),
            "master" => Ok(Self::Master),
            _ => Err(ValueError(format!("{} is not one of backup, master", show(text)))),
        }
    }
}

/// An address that the master has: `ADDRESS` or `ADDRESS@PORT`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct VirtualAddress {
    /// The address.
    pub address: IpAddr,
    /// Port of the director on which it is; `None`: the one whose network it is in, else the instance's.
    pub port: Option<String>,
}

impl fmt::Display for VirtualAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.address)?;
        self.port.as_ref().map_or(Ok(()), |port| write!(f, "@{port}"))
    }
}

impl FromStr for VirtualAddress {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let (address, port) =
            text.split_once('@').map_or((text, None), |(address, port)| (address, Some(port)));
        Ok(Self { address: parse_ip(address)?, port: port.map(str::to_owned) })
    }
}

/// Another director that adverts are sent to, instead of to a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VrrpPeer {
    /// Its address.
    pub address: IpAddr,
    /// Smallest TTL that its adverts may come with.
    pub min_ttl: u8,
    /// Largest.
    pub max_ttl: u8,
}

/// How adverts are made known to be a director's own (this project's HMAC-SHA256 trailer).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VrrpHmac {
    /// Id of the key that adverts are sent with.
    pub active: u8,
    /// Whether adverts without a valid trailer are taken.
    pub mode: HmacMode,
    /// Largest difference of the clocks of two directors, and age of an advert.
    pub window: Duration,
    /// Keys that adverts may come with.
    pub keys: Vec<HmacKey>,
}

/// One key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HmacKey {
    /// Its number, the same on all directors.
    pub id: u8,
    /// As typed: text, or `hex:` and digits.
    pub key: String,
}

impl HmacKey {
    /// The key itself; `None`: `hex:` is not followed by whole bytes in hexadecimal digits.
    pub fn bytes(&self) -> Option<Vec<u8>> {
        let Some(digits) = self.key.strip_prefix("hex:") else { return Some(self.key.clone().into_bytes()) };
        if !digits.len().is_multiple_of(2) || !digits.is_ascii() {
            return None;
        }
        (0..digits.len() / 2).map(|at| u8::from_str_radix(digits.get(2 * at..2 * at + 2)?, 16).ok()).collect()
    }
}

/// What is done about adverts by their trailer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HmacMode {
    /// Adverts go out with a trailer; what comes without a valid one is dropped.
    #[default]
    Enforce,
    /// Adverts go out with a trailer; what comes without any is taken, with a wrong one dropped.
    Permissive,
    /// Adverts go out without a trailer; what comes is treated as in `permissive`.
    ReceiveOnly,
}

impl HmacMode {
    /// As in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Permissive => "permissive",
            Self::ReceiveOnly => "receive-only",
        }
    }
}

impl FromStr for HmacMode {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text {
            "enforce" => Ok(Self::Enforce),
            "permissive" => Ok(Self::Permissive),
            "receive-only" => Ok(Self::ReceiveOnly),
            _ => Err(ValueError(format!("{} is not one of enforce, permissive, receive-only", show(text)))),
        }
    }
}

/// Programs that are told of changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VrrpNotify {
    /// Run when it becomes master.
    pub master: Vec<String>,
    /// Run when it becomes backup.
    pub backup: Vec<String>,
    /// Run when it fails.
    pub fault: Vec<String>,
    /// Run when lbd ends.
    pub stop: Vec<String>,
    /// Run when it is taken out of the configuration.
    pub deleted: Vec<String>,
    /// Run at each of these, with `INSTANCE` or `GROUP`, the name, the state and the priority behind its arguments.
    pub any: Vec<String>,
    /// Run when the master hears an advert of lower priority.
    pub master_rx_lower_priority: Vec<String>,
    /// `any` is run when the priority changes too.
    pub priority_changes: bool,
    /// User that they run as; `None`: lbd's.
    pub user: Option<String>,
    /// Mails tell of changes too, as `[notify]` says how. keepalived: `smtp_alert`.
    pub mail: bool,
}

/// A virtual router: addresses that one of several directors has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vrrp {
    /// Unique name.
    pub name: String,
    /// Port that adverts go over.
    pub port: String,
    /// Number of the virtual router, 1 to 255, unique per port and family.
    pub vrid: u8,
    /// Version of the protocol.
    pub version: VrrpVersion,
    /// 1 to 255; 255: the addresses are the director's own.
    pub priority: u8,
    /// Behaviour at the start.
    pub state: VrrpStart,
    /// Time between adverts.
    pub advert_interval: Duration,
    /// Addresses in adverts, all of one family, which is the instance's.
    pub virtual_addresses: Vec<VirtualAddress>,
    /// Further addresses of either family.
    pub excluded_addresses: Vec<VirtualAddress>,
    /// Where adverts come from; `None`: the port's first address, with IPv6 its link-local one.
    pub source: Option<IpAddr>,
    /// Where they go to; `None`: 224.0.0.18 or ff02::12.
    pub multicast_address: Option<IpAddr>,
    /// Where they go to instead.
    pub peers: Vec<VrrpPeer>,
    /// Adverts of others than `peers` are dropped.
    pub check_unicast_source: bool,
    /// TTL of adverts to `peers`.
    pub unicast_ttl: u8,
    /// The addresses are at 00:00:5e:00:01:VRID.
    pub vmac: bool,
    /// Adverts come from the port's MAC address all the same.
    pub vmac_xmit_base: bool,
    /// The master takes packets to the addresses that are for no service (ping).
    pub accept: bool,
    /// A backup of higher priority takes over.
    pub preempt: bool,
    /// How long after the start it waits with that.
    pub preempt_delay: Duration,
    /// How long it waits, with its advert sent, for a master that is alive to let go of the addresses.
    pub handover_wait: Duration,
    /// Adverts with other addresses are dropped.
    pub check_addresses: bool,
    /// Nothing that the RFC does not have.
    pub strict: bool,
    /// Intervals without an advert after which the master counts as gone.
    pub down_timer_adverts: u8,
    /// A master that was held up for so long that others have taken over yields.
    pub timer_expired_backup: bool,
    /// A master does not answer adverts of lower priority.
    pub lower_prio_no_advert: bool,
    /// A master that yields answers once more.
    pub higher_prio_send_advert: bool,
    /// With priority 255 adverts of others are ignored.
    pub owner_ignore_adverts: bool,
    /// IPv4 adverts of version 3 have a checksum without pseudo header.
    pub v3_checksum_as_v2: bool,
    /// Time from the first announcements of addresses to the second; 0: no second.
    pub garp_master_delay: Duration,
    /// How many at a time.
    pub garp_master_repeat: u8,
    /// Time between announcements while it is master; 0: none.
    pub garp_master_refresh: Duration,
    /// How many at a time.
    pub garp_master_refresh_repeat: u8,
    /// As `garp_master_delay`, after an advert of lower priority.
    pub garp_lower_prio_delay: Duration,
    /// How many at a time; 0: none.
    pub garp_lower_prio_repeat: u8,
    /// Password in adverts of version 2.
    pub auth_password: Option<String>,
    /// Authentication.
    pub hmac: Option<VrrpHmac>,
    /// The instance fails with the link of its port.
    pub track_port: bool,
    /// What else it tracks.
    pub track: Vec<Track>,
    /// BFD sessions with other directors: a backup takes over at once when that of the master ends.
    pub takeover_bfd: Vec<String>,
    /// Programs.
    pub notify: VrrpNotify,
}

impl Default for Vrrp {
    /// Source of the defaults: keepalived.conf(5); where they differ `example.toml` says so.
    fn default() -> Self {
        Self {
            name: String::new(),
            port: String::new(),
            vrid: 0,
            version: VrrpVersion::V3,
            priority: 100,
            state: VrrpStart::Backup,
            advert_interval: Duration::from_secs(1),
            virtual_addresses: Vec::new(),
            excluded_addresses: Vec::new(),
            source: None,
            multicast_address: None,
            peers: Vec::new(),
            check_unicast_source: true,
            unicast_ttl: 255,
            vmac: false,
            vmac_xmit_base: false,
            accept: true,
            preempt: true,
            preempt_delay: Duration::ZERO,
            handover_wait: Duration::from_millis(100),
            check_addresses: true,
            strict: false,
            down_timer_adverts: 3,
            timer_expired_backup: true,
            lower_prio_no_advert: false,
            higher_prio_send_advert: false,
            owner_ignore_adverts: false,
            v3_checksum_as_v2: false,
            garp_master_delay: Duration::from_secs(5),
            garp_master_repeat: 5,
            garp_master_refresh: Duration::ZERO,
            garp_master_refresh_repeat: 1,
            garp_lower_prio_delay: Duration::from_secs(5),
            garp_lower_prio_repeat: 5,
            auth_password: None,
            hmac: None,
            track_port: true,
            track: Vec::new(),
            takeover_bfd: Vec::new(),
            notify: VrrpNotify::default(),
        }
    }
}

impl Vrrp {
    /// Whether its adverts are IPv6: by its addresses, else by where adverts come from.
    pub fn is_ipv6(&self) -> bool {
        let first = self.virtual_addresses.first().map(|vip| vip.address);
        first.or(self.source).or(self.peers.first().map(|peer| peer.address)).is_some_and(|ip| ip.is_ipv6())
    }

    /// Every address that the master has.
    pub fn addresses(&self) -> impl Iterator<Item = &VirtualAddress> {
        self.virtual_addresses.iter().chain(&self.excluded_addresses)
    }
}

/// Instances that change state together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VrrpGroup {
    /// Unique name.
    pub name: String,
    /// Names of the instances.
    pub instances: Vec<String>,
    /// What all of them track.
    pub track: Vec<Track>,
    /// Weights of one member's own tracked objects count for it although it is in a group.
    pub tracking_weight: bool,
    /// Programs.
    pub notify: VrrpNotify,
}
