//! What instances track: ports, scripts, processes, files, and BFD sessions.

use std::net::IpAddr;
use std::time::Duration;

/// What is tracked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Tracked {
    /// The link of a port.
    Port(String),
    /// One of `[[vrrp_scripts]]`.
    Script(String),
    /// One of `[[vrrp_processes]]`.
    Process(String),
    /// One of `[[vrrp_files]]`.
    File(String),
    /// One of `[[bfd]]`.
    Bfd(String),
}

impl Tracked {
    /// Key in the configuration.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Port(_) => "port",
            Self::Script(_) => "script",
            Self::Process(_) => "process",
            Self::File(_) => "file",
            Self::Bfd(_) => "bfd",
        }
    }

    /// Name of the object.
    pub fn name(&self) -> &str {
        match self {
            Self::Port(name)
            | Self::Script(name)
            | Self::Process(name)
            | Self::File(name)
            | Self::Bfd(name) => name,
        }
    }
}

/// Something that decides about an instance's priority or health.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Track {
    /// What.
    pub what: Tracked,
    /// Added to the priority while it is up when above 0, while it is down when below 0; 0: down is a fault. `None`:
    /// the object's own.
    pub weight: Option<i16>,
    /// Up and down change places.
    pub reverse: bool,
}

/// A script whose exit status counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VrrpScript {
    /// Unique name.
    pub name: String,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Time between starts.
    pub interval: Duration,
    /// Time after which it is killed and has failed.
    pub timeout: Duration,
    /// Successes in a row that make it up.
    pub rise: u8,
    /// Failures in a row that make it down.
    pub fall: u8,
    /// See [`Track::weight`].
    pub weight: i16,
    /// User that it runs as; `None`: lbd's.
    pub user: Option<String>,
    /// It is down before its first success.
    pub init_fail: bool,
}

impl Default for VrrpScript {
    fn default() -> Self {
        let second = Duration::from_secs(1);
        Self {
            name: String::new(),
            command: Vec::new(),
            interval: second,
            timeout: second,
            rise: 1,
            fall: 1,
            weight: 0,
            user: None,
            init_fail: false,
        }
    }
}

/// Processes that must run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VrrpProcess {
    /// Unique name.
    pub name: String,
    /// Name of the program's file, and arguments that it must have been started with.
    pub command: Vec<String>,
    /// Fewest that must run.
    pub quorum: u32,
    /// Most that may run; 0: any number.
    pub quorum_max: u32,
    /// How long a change must last before it counts.
    pub delay: Duration,
    /// See [`Track::weight`].
    pub weight: i16,
}

impl Default for VrrpProcess {
    fn default() -> Self {
        Self {
            name: String::new(),
            command: Vec::new(),
            quorum: 1,
            quorum_max: 0,
            delay: Duration::ZERO,
            weight: 0,
        }
    }
}

/// A file with a number, which is multiplied by the weight and added to the priority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VrrpFile {
    /// Unique name.
    pub name: String,
    /// The file.
    pub path: String,
    /// What its number is multiplied by; 0: a number other than 0 is a fault.
    pub weight: i16,
}

impl Default for VrrpFile {
    fn default() -> Self {
        Self { name: String::new(), path: String::new(), weight: 1 }
    }
}

/// A BFD session (RFC 5880) with a neighbour that is one hop away (RFC 5881).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bfd {
    /// Unique name.
    pub name: String,
    /// Port over which the neighbour is reached.
    pub port: String,
    /// The neighbour's address.
    pub neighbor: IpAddr,
    /// The director's; `None`: the port's in the network of `neighbor`.
    pub source: Option<IpAddr>,
    /// Time between packets that it would send.
    pub min_tx: Duration,
    /// Time between packets that it can take.
    pub min_rx: Duration,
    /// Time between packets while the session is not up.
    pub idle_tx: Duration,
    /// Packets that may be missed.
    pub multiplier: u8,
    /// It waits for the neighbour to begin.
    pub passive: bool,
    /// Fewest hops that a packet may have left of its 255: 255 takes those of direct neighbours alone (RFC 5881
    /// section 5).
    pub min_ttl: u8,
    /// See [`Track::weight`].
    pub weight: i16,
}

impl Default for Bfd {
    fn default() -> Self {
        Self {
            name: String::new(),
            port: String::new(),
            neighbor: IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
            source: None,
            min_tx: Duration::from_millis(10),
            min_rx: Duration::from_millis(10),
            idle_tx: Duration::from_secs(1),
            multiplier: 3,
            passive: false,
            min_ttl: 255,
            weight: 0,
        }
    }
}
