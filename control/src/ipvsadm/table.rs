//! The table that the command line edits: services and servers in IPVS's terms, and IPVS's rules for changing them.
//!
//! Invariant: everything here is what the kernel would do with the same request, in its order of checks; what this
//! director cannot do is refused later, by the host that the table is given to.
//! Source: ipvs.md sections 1.2 to 1.5 and the recordings of a Linux 6.1.

use std::net::{IpAddr, Ipv4Addr};

use lb_config::{IpvsSync, IpvsSyncState};

use super::errors::IpvsError;

/// Protocol numbers of IANA's registry that a service may have.
pub const TCP: u8 = 6;
/// See [`TCP`].
pub const UDP: u8 = 17;
/// See [`TCP`].
pub const SCTP: u8 = 132;

/// Everything that `ipvsadm -S` and `-R` are about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// In the order in which they were added.
    pub services: Vec<Service>,
    /// `--set`.
    pub timeouts: Timeouts,
    /// `--start-daemon`, one of each state at most.
    pub daemons: Vec<IpvsSync>,
}

/// `--set tcp tcpfin udp`, seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Established TCP connections.
    pub tcp: u32,
    /// TCP connections after a FIN.
    pub tcp_fin: u32,
    /// UDP flows.
    pub udp: u32,
}

impl Default for Timeouts {
    /// IPVS's own (ipvs.md section 1.4).
    fn default() -> Self {
        Self { tcp: 900, tcp_fin: 120, udp: 300 }
    }
}

/// What a service is known by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// `-t`, `-u`, `--sctp-service`.
    Vip {
        /// IANA protocol number.
        protocol: u8,
        /// Virtual address.
        address: IpAddr,
        /// Port; 0: every port.
        port: u16,
    },
    /// `-f MARK [-6]`.
    Mark {
        /// Firewall mark, not 0.
        mark: u32,
        /// Whether its clients speak IPv6.
        ipv6: bool,
    },
    /// A service that the configuration file can express and ipvsadm's command line cannot, by its text.
    Other {
        /// IANA protocol number; 0: any.
        protocol: u8,
        /// What stands in the listing's address column.
        text: String,
        /// Whether its virtual addresses are IPv6.
        ipv6: bool,
    },
}

impl Address {
    /// IANA protocol number; that of marks is TCP, as in the kernel's answers.
    pub fn protocol(&self) -> u8 {
        match self {
            Self::Vip { protocol, .. } | Self::Other { protocol, .. } => *protocol,
            Self::Mark { .. } => TCP,
        }
    }

    /// Whether its clients speak IPv6.
    pub fn is_ipv6(&self) -> bool {
        match self {
            Self::Vip { address, .. } => address.is_ipv6(),
            Self::Mark { ipv6, .. } | Self::Other { ipv6, .. } => *ipv6,
        }
    }
}

/// `-M`: how much of a client's address persistence looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Netmask {
    /// IPv4, any bits: `-M 24` is 0.0.0.24, as `inet_aton` has it.
    V4(Ipv4Addr),
    /// IPv6, prefix length 1 to 128.
    V6(u8),
}

impl Netmask {
    /// The whole address, of either family.
    pub fn whole(ipv6: bool) -> Self {
        if ipv6 { Self::V6(128) } else { Self::V4(Ipv4Addr::BROADCAST) }
    }

    /// Whether it is [`Netmask::whole`].
    pub fn is_whole(self) -> bool {
        matches!(self, Self::V4(Ipv4Addr::BROADCAST) | Self::V6(128))
    }
}

/// `-b`: three bits that mean what the scheduler makes of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SchedulerFlags {
    /// `flag-1`, `sh-fallback`, `mh-fallback`.
    pub flag_1: bool,
    /// `flag-2`, `sh-port`, `mh-port`.
    pub flag_2: bool,
    /// `flag-3`.
    pub flag_3: bool,
}

/// A virtual service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// What it is known by.
    pub address: Address,
    /// `-s`, a name that [`known_scheduler`] knows.
    pub scheduler: String,
    /// `-b`.
    pub flags: SchedulerFlags,
    /// `-p`, seconds; `None`: not persistent.
    pub persistent: Option<u32>,
    /// `-M`; only of use with `-p`.
    pub netmask: Netmask,
    /// `--pe`; empty: none.
    pub pe: String,
    /// `-o`.
    pub one_packet: bool,
    /// In the kernel's order: the one that was added last comes first.
    pub servers: Vec<Server>,
}

/// How packets reach a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forward {
    /// `-g`.
    Route,
    /// `-m`.
    Masq,
    /// `-i`.
    Tunnel(Tunnel),
    /// A kind that ipvsadm does not know, by the name that listings show.
    Other(&'static str),
}

/// `--tun-type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tunnel {
    /// `ipip`.
    Ipip,
    /// `gue`.
    Gue {
        /// `--tun-port`, not 0.
        port: u16,
        /// Checksum option.
        checksum: Checksum,
    },
    /// `gre`.
    Gre {
        /// Checksum option, never [`Checksum::Remote`].
        checksum: Checksum,
    },
}

/// `--tun-nocsum`, `--tun-csum`, `--tun-remcsum`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checksum {
    /// No checksum.
    #[default]
    None,
    /// Checksum.
    Full,
    /// Remote checksum offload.
    Remote,
}

/// A real server of a service, known within it by address and port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Server {
    /// Real server's address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// How packets reach it.
    pub forward: Forward,
    /// `-w`.
    pub weight: u32,
    /// `-x`; 0: none.
    pub upper: u32,
    /// `-y`; 0: three quarters of the upper one.
    pub lower: u32,
}

/// Schedulers that `-s` takes: those of IPVS, and `maglev`.
///
/// Source: the modules of Linux 6.1; `maglev` is ours.
pub const SCHEDULERS: [&str; 15] =
    ["rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "sed", "nq", "fo", "ovf", "mh", "twos", "maglev"];

/// Whether a kernel would find a scheduler of this name. `none` is one in the kernel: a service without a scheduler.
pub fn known_scheduler(name: &str) -> bool {
    name == "none" || SCHEDULERS.contains(&name)
}

/// Persistence engines that `--pe` takes.
fn known_engine(name: &str) -> bool {
    matches!(name, "" | "sip")
}

impl Table {
    /// The service of this address.
    pub fn find(&self, address: &Address) -> Option<&Service> {
        self.services.iter().rev().find(|service| service.address == *address)
    }

    /// From the end: rule files name servers right after their service.
    fn find_mut(&mut self, address: &Address) -> Option<&mut Service> {
        self.services.iter_mut().rev().find(|service| service.address == *address)
    }

    /// `-A`.
    pub fn add_service(&mut self, service: Service) -> Result<(), IpvsError> {
        if self.find(&service.address).is_some() {
            return Err(IpvsError::ServiceExists);
        }
        service.check()?;
        self.services.push(service);
        Ok(())
    }

    /// `-E`: everything but the servers becomes what the command says; what it does not say becomes the default.
    pub fn edit_service(&mut self, service: Service) -> Result<(), IpvsError> {
        let present = self.find_mut(&service.address).ok_or(IpvsError::NoSuchService)?;
        service.check()?;
        let servers = std::mem::take(&mut present.servers);
        *present = Service { servers, ..service };
        Ok(())
    }

    /// `-D`.
    pub fn delete_service(&mut self, address: &Address) -> Result<(), IpvsError> {
        let at = self.services.iter().position(|service| service.address == *address);
        self.services.remove(at.ok_or(IpvsError::NoSuchService)?);
        Ok(())
    }

    /// `-a`: the new server becomes the first of the list.
    pub fn add_server(&mut self, address: &Address, server: Server) -> Result<(), IpvsError> {
        let service = self.find_mut(address).ok_or(IpvsError::ServiceNotDefined)?;
        server.check_thresholds()?;
        if service.servers.iter().any(|present| present.same(&server)) {
            return Err(IpvsError::DestinationExists);
        }
        server.check_address()?;
        service.servers.insert(0, server);
        Ok(())
    }

    /// `-e`: everything becomes what the command says; what it does not say becomes the default.
    pub fn edit_server(&mut self, address: &Address, server: Server) -> Result<(), IpvsError> {
        let service = self.find_mut(address).ok_or(IpvsError::ServiceNotDefined)?;
        server.check_thresholds()?;
        let present = service.servers.iter_mut().find(|present| present.same(&server));
        *present.ok_or(IpvsError::NoSuchDestination)? = server;
        Ok(())
    }

    /// `-d`.
    pub fn delete_server(&mut self, address: &Address, server: &Server) -> Result<(), IpvsError> {
        let service = self.find_mut(address).ok_or(IpvsError::ServiceNotDefined)?;
        let at = service.servers.iter().position(|present| present.same(server));
        service.servers.remove(at.ok_or(IpvsError::NoSuchDestination)?);
        Ok(())
    }

    /// `--start-daemon`.
    pub fn start_daemon(&mut self, daemon: IpvsSync) -> Result<(), IpvsError> {
        if self.daemon(daemon.state).is_some() {
            return Err(IpvsError::DaemonRuns);
        }
        self.daemons.push(daemon);
        Ok(())
    }

    /// One that was saved, in place of the one that runs, if one does; what commands have no words for stays.
    pub fn replace_daemon(&mut self, saved: IpvsSync) {
        match self.daemons.iter_mut().find(|running| running.state == saved.state) {
            Some(running) => {
                let IpvsSync { refresh, resync, .. } = *running;
                let vrrp = running.vrrp.take();
                *running = IpvsSync { refresh, resync, vrrp, ..saved };
            }
            None => self.daemons.push(saved),
        }
    }

    /// `--stop-daemon`.
    pub fn stop_daemon(&mut self, state: IpvsSyncState) -> Result<(), IpvsError> {
        let at = self.daemons.iter().position(|daemon| daemon.state == state);
        self.daemons.remove(at.ok_or(IpvsError::NoDaemon)?);
        Ok(())
    }

    /// The daemon of this state.
    pub fn daemon(&self, state: IpvsSyncState) -> Option<&IpvsSync> {
        self.daemons.iter().find(|daemon| daemon.state == state)
    }

    /// `--set`: 0 keeps what there is.
    pub fn set_timeouts(&mut self, new: Timeouts) {
        let or = |new: u32, old: u32| if new == 0 { old } else { new };
        let Timeouts { tcp, tcp_fin, udp } = self.timeouts;
        self.timeouts =
            Timeouts { tcp: or(new.tcp, tcp), tcp_fin: or(new.tcp_fin, tcp_fin), udp: or(new.udp, udp) };
    }
}

impl Service {
    fn check(&self) -> Result<(), IpvsError> {
        if known_scheduler(&self.scheduler) && known_engine(&self.pe) {
            Ok(())
        } else {
            Err(IpvsError::NoSuchScheduler)
        }
    }
}

impl Server {
    /// Whether both are the same server of a service.
    pub fn same(&self, other: &Self) -> bool {
        (self.address, self.port) == (other.address, other.port)
    }

    fn check_thresholds(&self) -> Result<(), IpvsError> {
        if self.lower > self.upper { Err(IpvsError::OutOfRange) } else { Ok(()) }
    }

    /// A server's address is one host's. What only the director's routes know (broadcast addresses of its networks)
    /// is left to the host that the table is given to.
    fn check_address(&self) -> Result<(), IpvsError> {
        let one_host = match self.address {
            IpAddr::V4(v4) => v4.octets()[0] != 0 && !v4.is_multicast() && !v4.is_broadcast(),
            IpAddr::V6(v6) => !v6.is_unspecified() && !v6.is_multicast() && !v6.is_unicast_link_local(),
        };
        if one_host { Ok(()) } else { Err(IpvsError::Invalid) }
    }
}
