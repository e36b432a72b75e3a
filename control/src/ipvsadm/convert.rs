//! The table and the director's configuration: each as the other.
//!
//! A service keeps everything that the command line has no words for (its name, timeouts, policies): only what a
//! command changed is changed in the configuration. Services made by command are named after their address.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use lb_config as config;
use lb_config::{Model, Persistence, Protocol, Scheduler, ServiceAddress};

use super::HostError;
use super::table::{
    Address, Checksum, Forward, Netmask, SCTP, SchedulerFlags, Server, Service, TCP, Table, Timeouts, Tunnel,
    UDP,
};

impl Table {
    /// What ipvsadm sees of a configuration.
    pub fn of(model: &Model) -> Self {
        let config::Timeouts { tcp_established, tcp_fin_wait, udp, .. } = model.timeouts;
        let seconds = |time: Duration| u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
        Self {
            services: model.services.iter().map(service_of).collect(),
            timeouts: Timeouts {
                tcp: seconds(tcp_established),
                tcp_fin: seconds(tcp_fin_wait),
                udp: seconds(udp),
            },
            daemons: model.ha.ipvs_sync.clone(),
        }
    }

    /// `base` with this table's services and timeouts. The rules for files are not yet checked.
    ///
    /// Errors: the director cannot express a service or server; the message names it, the value and why.
    pub fn model(&self, base: &Model) -> Result<Model, HostError> {
        let services =
            self.services(&base.services).map_err(|faults| HostError::Refused(faults.join("\n")))?;
        let mut model = Model { services: services.into(), ..base.clone() };
        let (now, new) = (Self::of(base).timeouts, self.timeouts);
        for (field, now, new) in [
            (&mut model.timeouts.tcp_established, now.tcp, new.tcp),
            (&mut model.timeouts.tcp_fin_wait, now.tcp_fin, new.tcp_fin),
            (&mut model.timeouts.udp, now.udp, new.udp),
        ] {
            // Parts of seconds stay where nothing was set.
            if now != new {
                *field = Duration::from_secs(new.into());
            }
        }
        model.ha.ipvs_sync.clone_from(&self.daemons);
        Ok(model)
    }
}

impl Table {
    /// The services, those that are in `base` with what the command line has no words for.
    ///
    /// Errors: every service that the director cannot express, with the value and why.
    pub(super) fn services(&self, base: &config::Services) -> Result<Vec<config::Service>, Vec<String>> {
        let present: HashMap<Address, &config::Service> =
            base.iter().map(|service| (address_of(service), service)).collect();
        let mut names: HashSet<String> =
            self.services.iter().filter_map(|s| Some(present.get(&s.address)?.name.clone())).collect();
        let (mut services, mut faults) = (Vec::with_capacity(self.services.len()), Vec::new());
        for service in &self.services {
            match made_of(service, present.get(&service.address).copied(), &mut names) {
                Ok(made) => services.push(made),
                Err(why) => faults.push(format!("{}: {why}", text(&service.address))),
            }
        }
        if faults.is_empty() { Ok(services) } else { Err(faults) }
    }
}

/// What ipvsadm calls a service of the configuration.
pub fn address_of(service: &config::Service) -> Address {
    match service.address {
        ServiceAddress::Vip { vip, port, protocol } => {
            Address::Vip { protocol: number(protocol), address: vip, port }
        }
        ServiceAddress::Mark { mark, ipv6 } => Address::Mark { mark, ipv6 },
        range @ ServiceAddress::Range { protocol, .. } => {
            Address::Other { protocol: number(protocol), text: range.local(), ipv6: range.is_ipv6() }
        }
    }
}

/// A new service of this address, or why there can be none.
fn new_service(address: &Address, names: &mut HashSet<String>) -> Result<config::Service, String> {
    let (name, address) = match *address {
        Address::Vip { protocol, address: vip, port } => {
            let protocol = match protocol {
                UDP => Protocol::Udp,
                SCTP => Protocol::Sctp,
                _ => Protocol::Tcp,
            };
            // A colon has no place in a name.
            let name = format!("{protocol}-{}-{port}", vip.to_string().replace(':', "_"));
            (name, ServiceAddress::Vip { vip, port, protocol })
        }
        Address::Mark { mark, ipv6 } => {
            let name = format!("mark-{mark}{}", if ipv6 { "-ipv6" } else { "" });
            (name, ServiceAddress::Mark { mark, ipv6 })
        }
        Address::Other { .. } => return Err("only the configuration file makes such a service".to_owned()),
    };
    Ok(config::Service::new(unused(name, names), address))
}

/// A name that no service has: the one given, or that with a number behind it.
fn unused(name: String, names: &mut HashSet<String>) -> String {
    let numbered = (2_u64..).map(|n| format!("{name}-{n}"));
    let free = std::iter::once(name.clone()).chain(numbered).find(|name| !names.contains(name));
    let free = free.unwrap_or(name);
    names.insert(free.clone());
    free
}

fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => TCP,
        Protocol::Udp => UDP,
        Protocol::Sctp => SCTP,
    }
}

/// For messages.
fn text(address: &Address) -> String {
    match address {
        Address::Vip { protocol, address, port } => {
            let protocol = super::print::protocol_name(*protocol).to_lowercase();
            format!("service {}/{protocol}", std::net::SocketAddr::new(*address, *port))
        }
        Address::Mark { mark, .. } => format!("service of mark {mark}"),
        Address::Other { text, .. } => format!("service {text}"),
    }
}

fn service_of(service: &config::Service) -> Service {
    let address = address_of(service);
    let ipv6 = address.is_ipv6();
    let netmask = |persistence: Persistence| match ipv6 {
        true => Netmask::V6(persistence.prefix_len),
        false => Netmask::V4(mask(persistence.prefix_len).into()),
    };
    Service {
        address,
        scheduler: service.scheduler.name().to_owned(),
        flags: flags_of(service.scheduler_flags),
        persistent: service.persistence.map(|p| u32::try_from(p.timeout.as_secs()).unwrap_or(u32::MAX)),
        netmask: service.persistence.map_or(Netmask::whole(ipv6), netmask),
        pe: String::new(),
        one_packet: service.one_packet,
        servers: service.servers.iter().map(server_of).collect(),
    }
}

fn flags_of(config::SchedulerFlags { flag_1, flag_2, flag_3 }: config::SchedulerFlags) -> SchedulerFlags {
    SchedulerFlags { flag_1, flag_2, flag_3 }
}

/// The IPv4 mask of a prefix length.
fn mask(length: u8) -> u32 {
    u32::MAX.checked_shl(32_u32.saturating_sub(length.into())).unwrap_or(0)
}

fn server_of(server: &config::Server) -> Server {
    let checksum = |checksum| match checksum {
        config::TunnelChecksum::None => Checksum::None,
        config::TunnelChecksum::Full => Checksum::Full,
        config::TunnelChecksum::Remote => Checksum::Remote,
    };
    let forward = match server.forwarding {
        config::Forwarding::Dr => Forward::Route,
        config::Forwarding::Nat => Forward::Masq,
        config::Forwarding::FullNat => Forward::Other("FullNat"),
        config::Forwarding::Tunnel(config::Tunnel::Ipip) => Forward::Tunnel(Tunnel::Ipip),
        config::Forwarding::Tunnel(config::Tunnel::Gue { port, checksum: sum }) => {
            Forward::Tunnel(Tunnel::Gue { port, checksum: checksum(sum) })
        }
        config::Forwarding::Tunnel(config::Tunnel::Gre { checksum: sum }) => {
            Forward::Tunnel(Tunnel::Gre { checksum: if sum { Checksum::Full } else { Checksum::None } })
        }
    };
    Server {
        address: server.address,
        port: server.port,
        forward,
        weight: server.weight,
        upper: server.upper_threshold,
        lower: server.lower_threshold,
    }
}

/// The configuration's form of a service: `base` where nothing differs.
fn made_of(
    service: &Service,
    base: Option<&config::Service>,
    names: &mut HashSet<String>,
) -> Result<config::Service, String> {
    let now = base.map(service_of);
    if let (Some(base), Some(now)) = (base, &now)
        && now == service
    {
        return Ok(base.clone());
    }
    let mut made = match base {
        Some(base) => base.clone(),
        None => new_service(&service.address, names)?,
    };
    // The same name keeps what the configuration adds to it (what Maglev hashes, say).
    if now.as_ref().is_none_or(|now| now.scheduler != service.scheduler) {
        made.scheduler = Scheduler::from_name(&service.scheduler).map_err(|error| error.to_string())?;
    }
    let SchedulerFlags { flag_1, flag_2, flag_3 } = service.flags;
    made.scheduler_flags = config::SchedulerFlags { flag_1, flag_2, flag_3 };
    if !service.pe.is_empty() {
        return Err(format!("the persistence engine {} is not offered", service.pe));
    }
    made.one_packet = service.one_packet;
    made.persistence = match service.persistent {
        Some(seconds) => {
            let prefix_len = prefix_length(service.netmask)?;
            Some(Persistence { timeout: Duration::from_secs(seconds.into()), prefix_len })
        }
        None => None,
    };
    let present: HashMap<(IpAddr, u16), &config::Server> =
        base.into_iter().flat_map(|base| &base.servers).map(|s| ((s.address, s.port), s)).collect();
    made.servers = service
        .servers
        .iter()
        .map(|server| made_server(server, present.get(&(server.address, server.port)).copied()))
        .collect();
    Ok(made)
}

/// Errors: the mask is no prefix, which persistence by this director needs.
fn prefix_length(netmask: Netmask) -> Result<u8, String> {
    match netmask {
        Netmask::V6(length) => Ok(length),
        Netmask::V4(bits) => {
            let length = u32::from(bits).leading_ones();
            let length = u8::try_from(length).unwrap_or(32);
            if mask(length) == u32::from(bits) {
                Ok(length)
            } else {
                // `-M 24` is 0.0.0.24 to ipvsadm, and a length to who typed it.
                let meant = u8::try_from(u32::from(bits)).ok().filter(|length| *length < 32);
                let hint = meant.map_or(String::new(), |length| {
                    format!("; for {length} bits write {}", Ipv4Addr::from(mask(length)))
                });
                Err(format!("the netmask {bits} is not that of a prefix{hint}"))
            }
        }
    }
}

fn made_server(server: &Server, base: Option<&config::Server>) -> config::Server {
    let checksum = |checksum| match checksum {
        Checksum::None => config::TunnelChecksum::None,
        Checksum::Full => config::TunnelChecksum::Full,
        Checksum::Remote => config::TunnelChecksum::Remote,
    };
    let forwarding = match server.forward {
        Forward::Route => config::Forwarding::Dr,
        Forward::Masq => config::Forwarding::Nat,
        Forward::Tunnel(Tunnel::Ipip) => config::Forwarding::Tunnel(config::Tunnel::Ipip),
        Forward::Tunnel(Tunnel::Gue { port, checksum: sum }) => {
            config::Forwarding::Tunnel(config::Tunnel::Gue { port, checksum: checksum(sum) })
        }
        Forward::Tunnel(Tunnel::Gre { checksum: sum }) => {
            config::Forwarding::Tunnel(config::Tunnel::Gre { checksum: sum != Checksum::None })
        }
        // No command makes one of these: it is the server that was there.
        Forward::Other(_) => base.map_or(config::Forwarding::Dr, |base| base.forwarding),
    };
    let new = || config::Server::new(server.address, server.port, forwarding);
    config::Server {
        forwarding,
        weight: server.weight,
        upper_threshold: server.upper,
        lower_threshold: server.lower,
        // ipvsadm has no word for a deadline, which ends with the drain
        drain_deadline: base.and_then(|base| base.drain_deadline).filter(|_| server.weight == 0),
        ..base.cloned().unwrap_or_else(new)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{MemoryHost, Names, run_with};
    use super::*;

    const BASE: &str = r#"
[timeouts]
udp = "1500ms"
[[ports]]
name = "lan"
device = "null"
addresses = ["10.0.0.1/24", "fd00:a::1/64"]
gateway = ["10.0.0.254", "fd00:a::fe"]
[[services]]
name = "web"
vip = "10.0.0.100"
port = 80
scheduler = "maglev"
maglev_hash = "source"
[services.timeouts]
tcp_fin_wait = "7s"
[[services.servers]]
address = "10.0.0.11"
"#;

    fn base() -> Model {
        config::parse(BASE).unwrap()
    }

    /// The configuration after these commands on `model`.
    fn after(model: &Model, lines: &[&str]) -> Result<Model, HostError> {
        let mut host = MemoryHost { table: Table::of(model) };
        for line in lines {
            let args: Vec<String> = line.split(' ').map(str::to_owned).collect();
            let output = run_with(&args, &mut std::io::empty(), &mut host, &Names::default());
            assert_eq!(output.code, 0, "{line}: {output:?}");
        }
        let made = host.table.model(model)?;
        config::edit::validate(&made).unwrap();
        // The table of what was made is the table that it was made of.
        assert_eq!(Table::of(&made), host.table);
        Ok(made)
    }

    #[test]
    fn what_no_command_touches_stays() {
        assert_eq!(after(&base(), &[]), Ok(base()));
        let edited = after(&base(), &["-e -t 10.0.0.100:80 -r 10.0.0.11 -w 7 -x 9", "--set 0 5 0"]).unwrap();
        let mut want = base();
        want.services[0].servers[0].weight = 7;
        want.services[0].servers[0].upper_threshold = 9;
        want.timeouts.tcp_fin_wait = Duration::from_secs(5);
        assert_eq!(edited, want);
        assert_eq!(edited.services[0].scheduler.name(), "maglev");
    }

    #[test]
    fn services_by_command_are_named_and_complete() {
        let made = after(
            &base(),
            &[
                "-A -u 10.0.0.101:53 -s rr -o",
                "-A -t [fd00:a::100]:443 -p 60 -M 64 -s lc",
                "-a -t [fd00:a::100]:443 -r [fd00:b::11]:8443 -m -w 2",
                "-a -t [fd00:a::100]:443 -r [fd00:a::12]:443 -i --tun-type gue --tun-port 6080 --tun-remcsum",
                "-a -t [fd00:a::100]:443 -r 10.0.0.13:443 -i --tun-type gre --tun-csum",
                "-A -t 10.0.0.101:0 -p 60 -s rr",
                "-a -t 10.0.0.101:0 -r 10.0.0.12 -g",
                "-A -f 7 -s wrr -p 60",
                "-a -f 7 -r 10.0.0.12 -g",
                "-a -f 7 -r 10.0.1.12:8080 -m",
                "-A -f 7 -6 -s rr",
                "-A --sctp-service 10.0.0.101:9899 -s mh -b mh-port,flag-3 -p 5 -M 255.255.254.0",
            ],
        )
        .unwrap();
        let names: Vec<&str> = made.services.iter().map(|s| s.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "web",
                "udp-10.0.0.101-53",
                "tcp-fd00_a__100-443",
                "tcp-10.0.0.101-0",
                "mark-7",
                "mark-7-ipv6",
                "sctp-10.0.0.101-9899"
            ]
        );
        let v6 = &made.services[2];
        assert_eq!(v6.persistence, Some(Persistence { timeout: Duration::from_secs(60), prefix_len: 64 }));
        // The last one added comes first.
        let servers: Vec<String> =
            v6.servers.iter().map(|s| format!("{} {} {}", s.key(), s.forwarding, s.weight)).collect();
        assert_eq!(
            servers,
            [
                "10.0.0.13:443 tunnel:gre:full 1",
                "[fd00:a::12]:443 tunnel:gue:6080:remote 1",
                "[fd00:b::11]:8443 nat 2"
            ]
        );
        assert!(made.services[1].one_packet);
        assert_eq!(made.services[6].scheduler_flags.text(made.services[6].scheduler), "mh-port,flag-3");
        assert_eq!(made.services[6].persistence.map(|p| p.prefix_len), Some(23));
        assert_eq!(config::parse(&config::to_toml(&made)).as_ref(), Ok(&made));
    }

    #[test]
    fn a_range_is_listed_and_kept() {
        let text = format!(
            "{BASE}\n[[services]]\nname = \"all\"\nvip = \"10.0.0.128/28\"\nports = \"8000-8999\"\n\
             [[services.servers]]\naddress = \"10.0.0.11\"\n"
        );
        let model = config::parse(&text).unwrap();
        let table = Table::of(&model);
        let mut host = MemoryHost { table };
        let mut typed = |line: &str| {
            let args: Vec<String> = line.split(' ').map(str::to_owned).collect();
            run_with(&args, &mut std::io::empty(), &mut host, &Names::default()).stdout
        };
        let listed = typed("-Ln");
        assert!(listed.contains("\nTCP  10.0.0.128/28:8000-8999 rr\n  -> 10.0.0.11:0 "), "{listed}");
        let saved = typed("-Sn");
        assert!(
            saved.contains("\n# left out, ipvsadm has no words for it: service 10.0.0.128/28:8000-8999\n"),
            "{saved}"
        );
        assert!(!saved.contains("10.0.0.11:0"), "{saved}");
        let mut rest = model.services.clone();
        rest.remove(0);
        assert_eq!(after(&model, &["-D -t 10.0.0.100:80"]).unwrap().services, rest);
    }

    #[test]
    fn names_that_are_taken_get_a_number() {
        let mut model = base();
        model.services[0].name = "udp-10.0.0.101-53".to_owned();
        let made = after(&model, &["-A -u 10.0.0.101:53 -s rr", "-A -u 10.0.0.102:53 -s rr"]).unwrap();
        let names: Vec<&str> = made.services.iter().map(|s| s.name.as_str()).collect();
        assert_eq!(names, ["udp-10.0.0.101-53", "udp-10.0.0.101-53-2", "udp-10.0.0.102-53"]);
    }

    #[test]
    fn what_the_director_cannot_do_is_refused_with_the_reason() {
        let refused = |line: &str| after(&base(), &[line]).map_err(|e| e.to_string());
        assert_eq!(
            refused("-A -t 10.0.0.101:80 -s rr -p 5 -M 24"),
            Err("service 10.0.0.101:80/tcp: the netmask 0.0.0.24 is not that of a prefix; for 24 bits write 255.255.255.0"
                .into())
        );
        assert_eq!(
            refused("-A -u 10.0.0.101:80 -s rr -p 5 --pe sip"),
            Err("service 10.0.0.101:80/udp: the persistence engine sip is not offered".into())
        );
    }

    #[test]
    fn every_scheduler_that_ipvsadm_takes_is_one_of_the_director() {
        for name in super::super::table::SCHEDULERS {
            assert_eq!(Scheduler::from_name(name).map(Scheduler::name), Ok(name));
        }
    }

    #[test]
    fn masks_and_prefix_lengths_are_each_other() {
        for length in 0..=32 {
            assert_eq!(prefix_length(Netmask::V4(mask(length).into())), Ok(length));
        }
        assert!(prefix_length(Netmask::V4([255, 0, 255, 0].into())).is_err());
    }
}
