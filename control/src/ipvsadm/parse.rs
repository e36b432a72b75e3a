//! A command line, read and checked: what is asked for, in [`Table`](super::Table)'s terms.
//!
//! Options take effect in the order in which they stand, as in ipvsadm: `-M` before the address is an IPv4 mask, a
//! port of `-r` that is missing is that of a service named before it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lb_config::{IPVS_SYNC_GROUP, IpvsSync, IpvsSyncState};

use super::errors::{FAILED, Usage};
use super::names::{Names, leading_number, number};
use super::options::{Command, Given, Opt, SPECS, Tag};
use super::popt::Popt;
use super::table::{
    Address, Checksum, Forward, Netmask, SchedulerFlags, Server, Service, TCP, Timeouts, Tunnel, UDP,
};

/// Longest time that a timeout may be set to, s: 31 days.
const MAX_TIMEOUT: i64 = 86_400 * 31;
/// `-p` without a value, s.
const DEFAULT_PERSISTENCE: u32 = 360;
/// `--mcast-interface` of who does not give it.
const DEFAULT_INTERFACE: &str = "eth0";
/// What a shorter `--sync-maxlen` of a backup becomes, bytes. Source: Linux, `start_sync_thread`.
const SHORTEST_BACKUP: u16 = 1024;
/// Longest name of a scheduler, engine or interface, bytes; the rest is cut off.
const NAME_LEN: usize = 15;
/// Largest weight and threshold.
const MAX_INT: i64 = i32::MAX as i64;

/// How a listing looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Format {
    pub numeric: bool,
    pub stats: bool,
    pub rate: bool,
    pub thresholds: bool,
    pub persistent_conn: bool,
    pub tun_info: bool,
    pub nosort: bool,
    pub exact: bool,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    Help,
    Version,
    AddService(Service),
    EditService(Service),
    DeleteService(Address),
    AddServer(Address, Server),
    EditServer(Address, Server),
    DeleteServer(Address, Server),
    Flush,
    SetTimeouts(Timeouts),
    Restore,
    Save(Format),
    Zero(Option<Address>),
    StartDaemon(IpvsSync),
    StopDaemon(IpvsSyncState),
    ListAll(Format),
    ListService(Address, Format),
    ListConnections(Format),
    ListTimeouts,
    ListDaemons,
}

/// What the options have said so far.
struct Reader<'n> {
    names: &'n Names,
    given: Given,
    /// `None` until an address or a mark is read.
    ipv6: Option<bool>,
    protocol: u8,
    address: IpAddr,
    port: u16,
    mark: u32,
    scheduler: String,
    scheduler_flags: String,
    persistent: Option<u32>,
    /// IPv4: the mask; IPv6: the prefix length.
    netmask: u32,
    engine: String,
    server: IpAddr,
    server_port: u16,
    forward: Opt3,
    tunnel: &'static str,
    tunnel_port: u16,
    weight: u32,
    upper: u32,
    lower: u32,
    /// Of `--start-daemon` and `--stop-daemon`.
    state: IpvsSyncState,
    daemon: DaemonOptions,
}

/// Options of `--start-daemon`; what is missing is the kernel's default.
#[derive(Default)]
struct DaemonOptions {
    interface: Option<String>,
    sync_id: u8,
    max_length: Option<u16>,
    group: Option<IpAddr>,
    port: Option<u16>,
    ttl: Option<u8>,
}

/// `-g`, `-m` or `-i`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Opt3 {
    Route,
    Masq,
    Tunnel,
}

/// Reads a command line without its program's name. Errors: wrong usage.
pub(super) fn parse(words: &[String], names: &Names) -> Result<Ask, Usage> {
    // Without a word the table is listed.
    if words.is_empty() {
        return Ok(Ask::ListAll(Format::default()));
    }
    let mut popt = Popt::new(SPECS, words);
    let mut state = IpvsSyncState::Master;
    let command = match popt.next() {
        Some(Ok((Tag::Command(command), argument))) => {
            let daemon = |word| {
                let known = argument.and_then(|text| text.parse().ok());
                known.ok_or_else(|| Usage::wrong(format!("illegal {word} specified")))
            };
            match command {
                Command::StartDaemon => state = daemon("start-daemon parameter")?,
                Command::StopDaemon => state = daemon("start_daemon")?,
                _ => {}
            }
            command
        }
        Some(Ok((Tag::Help, _))) => return Ok(Ask::Help),
        Some(Ok((Tag::Version, _))) => return Ok(Ask::Version),
        _ => return Err(Usage::try_help()),
    };
    let mut reader = Reader { state, ..Reader::new(names) };
    while let Some(option) = popt.next() {
        match option {
            Ok((tag, argument)) => reader.option(tag, argument, popt.word())?,
            Err(error) => {
                return Err(Usage { code: FAILED, message: format!("{}: {error}", popt.word()) });
            }
        }
    }
    let flags = reader.flags()?;
    let mut rest = popt.into_words().into_iter();
    let timeouts = match command {
        Command::SetTimeouts => timeouts(&mut rest)?,
        _ => Timeouts::default(),
    };
    if let Some(word) = rest.next() {
        return Err(Usage::wrong(format!("unexpected argument {word}")));
    }
    reader.given.check(command)?;
    reader.ask(command, flags, timeouts)
}

fn timeouts<'a>(words: &mut impl Iterator<Item = &'a str>) -> Result<Timeouts, Usage> {
    let (Some(tcp), Some(tcp_fin), Some(udp)) = (words.next(), words.next(), words.next()) else {
        return Err(Usage::wrong("--set option requires 3 timeout values"));
    };
    Ok(Timeouts { tcp: timeout(tcp, 0)?, tcp_fin: timeout(tcp_fin, 0)?, udp: timeout(udp, 0)? })
}

fn timeout(text: &str, min: i64) -> Result<u32, Usage> {
    let wrong = || Usage::wrong(format!("invalid timeout value `{text}' specified"));
    within(text, min, MAX_TIMEOUT).ok_or_else(wrong)
}

fn within<T: TryFrom<i64>>(text: &str, min: i64, max: i64) -> Option<T> {
    T::try_from(number(text, min, max)?).ok()
}

/// A name, cut to what the kernel takes.
fn name(text: &str) -> String {
    text.char_indices().take_while(|(at, c)| at + c.len_utf8() <= NAME_LEN).map(|(_, c)| c).collect()
}

impl<'n> Reader<'n> {
    fn new(names: &'n Names) -> Self {
        Self {
            names,
            given: Given::default(),
            ipv6: None,
            protocol: 0,
            address: Ipv4Addr::UNSPECIFIED.into(),
            port: 0,
            mark: 0,
            scheduler: String::new(),
            scheduler_flags: String::new(),
            persistent: None,
            netmask: u32::MAX,
            engine: String::new(),
            server: Ipv4Addr::UNSPECIFIED.into(),
            server_port: 0,
            forward: Opt3::Route,
            tunnel: "ipip",
            tunnel_port: 0,
            weight: 1,
            upper: 0,
            lower: 0,
            state: IpvsSyncState::Master,
            daemon: DaemonOptions::default(),
        }
    }

    fn option(&mut self, tag: Tag, argument: Option<&str>, word: &str) -> Result<(), Usage> {
        let text = argument.unwrap_or("");
        match tag {
            Tag::Command(_) | Tag::Help | Tag::Version => {
                return Err(Usage::wrong(format!("invalid option `{word}'")));
            }
            Tag::Flag(opt) => self.given.add(opt)?,
            // Sorting is what listings do anyway.
            Tag::Sort => {}
            Tag::Service(protocol) => {
                self.given.add(Opt::Service)?;
                self.protocol = protocol;
                let wrong = || Usage::wrong("illegal virtual server address[:port] specified");
                let found = self.names.endpoint(text, protocol).ok_or_else(wrong)?;
                self.address = found.address;
                self.port = found.port.unwrap_or(self.port);
                self.ipv6 = Some(found.address.is_ipv6());
                if found.address.is_ipv6() {
                    self.netmask = 128;
                }
            }
            Tag::Mark => {
                self.given.add(Opt::Service)?;
                (self.ipv6, self.protocol) = (Some(false), TCP);
                let wrong = || Usage::wrong(format!("invalid fwmark value `{text}' specified"));
                self.mark = within(text, 1, i64::from(u32::MAX)).ok_or_else(wrong)?;
            }
            Tag::Ipv6 => {
                if self.mark == 0 {
                    return Err(Usage::wrong("-6 used before -f\n"));
                }
                (self.ipv6, self.netmask) = (Some(true), 128);
            }
            Tag::Masq => self.forward(Opt3::Masq)?,
            Tag::Tunnel => self.forward(Opt3::Tunnel)?,
            Tag::Route => self.forward(Opt3::Route)?,
            Tag::Value(opt) => {
                self.given.add(opt)?;
                self.value(opt, argument)?;
            }
        }
        Ok(())
    }

    fn forward(&mut self, forward: Opt3) -> Result<(), Usage> {
        self.given.add(Opt::Forward)?;
        self.forward = forward;
        Ok(())
    }

    fn value(&mut self, opt: Opt, argument: Option<&str>) -> Result<(), Usage> {
        let text = argument.unwrap_or("");
        let illegal = |what: &str| Usage::wrong(format!("illegal {what} specified"));
        match opt {
            Opt::Scheduler => self.scheduler = name(text),
            Opt::Engine => self.engine = name(text),
            Opt::SchedulerFlags => text.clone_into(&mut self.scheduler_flags),
            Opt::Persistent => {
                let seconds = argument.map_or(Ok(DEFAULT_PERSISTENCE), |text| timeout(text, 1))?;
                self.persistent = Some(seconds);
            }
            Opt::Netmask if self.ipv6 == Some(true) => {
                let length = u8::try_from(leading_number(text)).ok().filter(|n| (1..=128).contains(n));
                self.netmask = u32::from(length.ok_or_else(|| illegal("ipv6 netmask"))?);
            }
            Opt::Netmask => {
                let mask = self.names.netmask(text);
                self.netmask = mask.ok_or_else(|| illegal("virtual server persistent mask"))?.into();
            }
            Opt::Server => {
                let found = self.names.endpoint(text, self.protocol);
                let found = found.ok_or_else(|| illegal("real server address[:port]"))?;
                (self.server, self.server_port) = (found.address, found.port.unwrap_or(self.port));
            }
            Opt::Weight => self.weight = within(text, 0, MAX_INT).ok_or_else(|| illegal("weight"))?,
            Opt::Upper => self.upper = within(text, 0, MAX_INT).ok_or_else(|| illegal("u_threshold"))?,
            Opt::Lower => self.lower = within(text, 0, MAX_INT).ok_or_else(|| illegal("l_threshold"))?,
            Opt::TunType => {
                let known = ["ipip", "gue", "gre"].into_iter().find(|known| *known == text);
                self.tunnel = known.ok_or_else(|| illegal("tunnel type"))?;
            }
            Opt::TunPort => {
                self.tunnel_port = within(text, 1, 65_535).ok_or_else(|| illegal("tunnel port"))?;
            }
            Opt::McastInterface => self.daemon.interface = Some(name(text)),
            Opt::SyncId => self.daemon.sync_id = within(text, 0, 255).ok_or_else(|| illegal("syncid"))?,
            Opt::McastPort => {
                self.daemon.port = Some(within(text, 1, 65_535).ok_or_else(|| illegal("mcast-port"))?);
            }
            Opt::McastTtl => {
                self.daemon.ttl = Some(within(text, 1, 255).ok_or_else(|| illegal("mcast-ttl"))?);
            }
            Opt::SyncMaxLen => {
                let longest = IpvsSync::longest(IPVS_SYNC_GROUP.into()).into();
                let length = within(text, 1, longest).ok_or_else(|| illegal("sync-maxlen"))?;
                self.daemon.max_length = Some(length);
            }
            Opt::McastGroup => {
                let (group, family) = if text.contains(':') {
                    (text.parse().ok().map(|group: Ipv6Addr| IpAddr::V6(group)), "IPv6")
                } else {
                    (text.parse().ok().map(|group: Ipv4Addr| IpAddr::V4(group)), "IPv4")
                };
                let group = group.filter(IpAddr::is_multicast);
                let wrong = || Usage::wrong(format!("invalid {family} mcast-group `{text}'"));
                self.daemon.group = Some(group.ok_or_else(wrong)?);
            }
            _ => {}
        }
        Ok(())
    }

    /// `-b`, which names other flags with another scheduler.
    fn flags(&self) -> Result<SchedulerFlags, Usage> {
        let mut flags = SchedulerFlags::default();
        for flag in self.scheduler_flags.split(',').filter(|flag| !flag.is_empty()) {
            let (bit, only) = match flag {
                "flag-1" => (&mut flags.flag_1, None),
                "flag-2" => (&mut flags.flag_2, None),
                "flag-3" => (&mut flags.flag_3, None),
                "sh-fallback" => (&mut flags.flag_1, Some("sh")),
                "sh-port" => (&mut flags.flag_2, Some("sh")),
                "mh-fallback" => (&mut flags.flag_1, Some("mh")),
                "mh-port" => (&mut flags.flag_2, Some("mh")),
                _ => return Err(Usage::wrong(format!("invalid scheduler flag `{flag}'"))),
            };
            if only.is_some_and(|scheduler| scheduler != self.scheduler) {
                return Err(Usage::wrong(format!("incompatible scheduler flag `{flag}'")));
            }
            *bit = true;
        }
        Ok(flags)
    }

    fn ask(mut self, command: Command, flags: SchedulerFlags, timeouts: Timeouts) -> Result<Ask, Usage> {
        match command {
            Command::AddService => Ok(Ask::AddService(self.service(flags)?)),
            Command::EditService => Ok(Ask::EditService(self.service(flags)?)),
            Command::DeleteService => Ok(Ask::DeleteService(self.service_address())),
            Command::AddServer => Ok(Ask::AddServer(self.service_address(), self.checked_server()?)),
            Command::EditServer => Ok(Ask::EditServer(self.service_address(), self.checked_server()?)),
            Command::DeleteServer => Ok(Ask::DeleteServer(self.service_address(), self.server())),
            Command::Flush => Ok(Ask::Flush),
            Command::SetTimeouts => Ok(Ask::SetTimeouts(timeouts)),
            Command::StartDaemon => Ok(Ask::StartDaemon(self.daemon())),
            Command::StopDaemon => Ok(Ask::StopDaemon(self.state)),
            Command::Restore => Ok(Ask::Restore),
            Command::Save => Ok(Ask::Save(self.format())),
            Command::Zero if self.given.has(Opt::Service) => Ok(Ask::Zero(Some(self.service_address()))),
            Command::Zero => Ok(Ask::Zero(None)),
            Command::List => self.list(),
        }
    }

    /// What `--start-daemon` starts.
    fn daemon(self) -> IpvsSync {
        let DaemonOptions { interface, sync_id, max_length, group, port, ttl } = self.daemon;
        let default = IpvsSync::new(self.state, interface.unwrap_or_else(|| DEFAULT_INTERFACE.to_owned()));
        let group = group.unwrap_or(default.group);
        let shortest = if self.state == IpvsSyncState::Backup { SHORTEST_BACKUP } else { 1 };
        let max_length = max_length.unwrap_or(IpvsSync::default_length(group));
        IpvsSync {
            sync_id,
            max_length: max_length.clamp(shortest, IpvsSync::longest(group)),
            group,
            port: port.unwrap_or(default.port),
            ttl: ttl.unwrap_or(default.ttl),
            ..default
        }
    }

    fn list(&self) -> Result<Ask, Usage> {
        let given = self.given;
        let apart = [Opt::Connection, Opt::Timeout, Opt::Daemon];
        if given.any(&apart) && given.any(&[Opt::Stats, Opt::Rate, Opt::Thresholds])
            || given.any(&[Opt::Timeout, Opt::Daemon]) && given.has(Opt::PersistentConn)
        {
            return Err(Usage::wrong("options conflicts in the list command"));
        }
        Ok(if given.has(Opt::Connection) {
            Ask::ListConnections(self.format())
        } else if given.has(Opt::Service) {
            Ask::ListService(self.service_address(), self.format())
        } else if given.has(Opt::Timeout) {
            Ask::ListTimeouts
        } else if given.has(Opt::Daemon) {
            Ask::ListDaemons
        } else {
            Ask::ListAll(self.format())
        })
    }

    fn format(&self) -> Format {
        let has = |opt| self.given.has(opt);
        Format {
            numeric: has(Opt::Numeric),
            stats: has(Opt::Stats),
            rate: has(Opt::Rate),
            thresholds: has(Opt::Thresholds),
            persistent_conn: has(Opt::PersistentConn),
            tun_info: has(Opt::TunInfo),
            nosort: has(Opt::NoSort),
            exact: has(Opt::Exact),
        }
    }

    fn service_address(&self) -> Address {
        match self.mark {
            0 => Address::Vip { protocol: self.protocol, address: self.address, port: self.port },
            mark => Address::Mark { mark, ipv6: self.ipv6 == Some(true) },
        }
    }

    fn service(self, flags: SchedulerFlags) -> Result<Service, Usage> {
        if self.mark == 0 && self.port == 0 && self.persistent.is_none() {
            return Err(Usage::wrong("Zero port specified for non-persistent service"));
        }
        let one_packet = self.given.has(Opt::OnePacket);
        if one_packet && self.mark == 0 && self.protocol != UDP {
            return Err(Usage::wrong("One-Packet Scheduling is only for UDP virtual services"));
        }
        let netmask = match self.ipv6 {
            Some(true) => Netmask::V6(u8::try_from(self.netmask).unwrap_or(128)),
            _ => Netmask::V4(self.netmask.into()),
        };
        Ok(Service {
            address: self.service_address(),
            scheduler: if self.scheduler.is_empty() { "wlc".to_owned() } else { self.scheduler },
            flags,
            persistent: self.persistent,
            netmask,
            pe: self.engine,
            one_packet,
            servers: Vec::new(),
        })
    }

    fn server(&self) -> Server {
        let checksum = match (self.given.has(Opt::TunCsum), self.given.has(Opt::TunRemCsum)) {
            (_, true) => Checksum::Remote,
            (true, false) => Checksum::Full,
            (false, false) => Checksum::None,
        };
        let forward = match (self.forward, self.tunnel) {
            (Opt3::Route, _) => Forward::Route,
            (Opt3::Masq, _) => Forward::Masq,
            (Opt3::Tunnel, "gue") => Forward::Tunnel(Tunnel::Gue { port: self.tunnel_port, checksum }),
            (Opt3::Tunnel, "gre") => Forward::Tunnel(Tunnel::Gre { checksum }),
            (Opt3::Tunnel, _) => Forward::Tunnel(Tunnel::Ipip),
        };
        let (address, port) = (self.server, self.server_port);
        Server { address, port, forward, weight: self.weight, upper: self.upper, lower: self.lower }
    }

    fn checked_server(&mut self) -> Result<Server, Usage> {
        // Only NAT changes the port, and marks have none.
        if self.mark == 0 && self.forward != Opt3::Masq {
            self.server_port = self.port;
        }
        if self.ipv6 != Some(self.server.is_ipv6()) && self.forward != Opt3::Tunnel {
            return Err(Usage::wrong("Different address family is allowed only for tunneling servers"));
        }
        let of_tunnels = [Opt::TunType, Opt::TunPort, Opt::TunNoCsum, Opt::TunCsum, Opt::TunRemCsum];
        if self.given.any(&of_tunnels) && self.forward != Opt3::Tunnel {
            return Err(Usage::wrong("Tunnel options conflict with forward method"));
        }
        self.given.check_tunnel(self.tunnel)?;
        Ok(self.server())
    }
}
