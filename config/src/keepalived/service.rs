//! `virtual_server` and its `real_server`s.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::group::Target;
use super::lex::Entry;
use super::values::name_of;
use super::{FromService, Import, has_server};
use crate::bounds;
use crate::forwarding::{Forwarding, Tunnel, TunnelChecksum};
use crate::health::{Assume, Check, OnFailure, Pace, ServerHealth, ServiceHealth, SorryServer};
use crate::ifaddr::special;
use crate::model::{Persistence, Protocol, Scheduler, Server, Service};

/// What a `virtual_server` says, whatever it is addressed by.
#[derive(Default)]
struct Wide<'e> {
    name: Option<String>,
    scheduler: Option<Scheduler>,
    flags: Vec<&'e Entry>,
    forwarding: Option<Forwarding>,
    protocol: Option<Protocol>,
    ipv6: Option<bool>,
    persistence: Option<u32>,
    granularity: Option<&'e Entry>,
    one_packet: Option<&'e Entry>,
    weight: Option<u32>,
    sorry: Option<&'e Entry>,
    sorry_forwarding: Option<Forwarding>,
    sorry_drain: bool,
    health: ServiceHealth,
    servers: Vec<&'e Entry>,
}

/// What of a server does not depend on what its service is addressed by.
struct Real {
    address: IpAddr,
    port: Option<u16>,
    weight: u32,
    forwarding: Forwarding,
    upper: u32,
    lower: u32,
    health: ServerHealth,
    checks: Vec<Check>,
}

impl Import {
    /// Reads all services.
    pub(super) fn services(&mut self, tree: &[Entry]) {
        for entry in tree.iter().filter(|entry| entry.key() == "virtual_server") {
            let targets = self.targets(entry, tree);
            let wide = self.wide(entry);
            let reals: Vec<(&Entry, Real)> =
                wide.servers.iter().filter_map(|line| Some((*line, self.real(line, &wide)?))).collect();
            for (index, target) in targets.into_iter().enumerate() {
                self.service(entry, &wide, &reals, target, index);
            }
        }
        for entry in tree.iter().filter(|entry| entry.key() == "virtual_server_group") {
            let named = |e: &Entry| {
                e.key() == "virtual_server" && e.arg(1) == Some("group") && e.arg(2) == entry.arg(1)
            };
            if !tree.iter().any(named) {
                self.note(entry, "is used by no virtual_server");
            }
        }
    }

    fn wide<'e>(&mut self, entry: &'e Entry) -> Wide<'e> {
        let mut wide = Wide::default();
        wide.health.notify.mail = self.global.mail;
        for line in entry.inner() {
            match line.key() {
                "real_server" => wide.servers.push(line),
                "lb_algo" | "lvs_sched" => {
                    let name = self.word(line).unwrap_or("wlc");
                    match Scheduler::from_name(name) {
                        Ok(scheduler) => wide.scheduler = Some(scheduler),
                        Err(error) => self.note(line, error.to_string()),
                    }
                }
                "lb_kind" | "lvs_method" => wide.forwarding = self.method(line).or(wide.forwarding),
                "protocol" => match self.word(line).unwrap_or_default().to_ascii_lowercase().parse() {
                    Ok(protocol) => wide.protocol = Some(protocol),
                    Err(_) => self.note(line, "is none of TCP, UDP, SCTP"),
                },
                "ip_family" => wide.ipv6 = Some(line.arg(1) == Some("inet6")),
                // Without a number keepalived takes 6 minutes.
                "persistence_timeout" if line.arg(1).is_none() => wide.persistence = Some(360),
                "persistence_timeout" => {
                    let most = bounds::MAX_PERSISTENCE.as_secs() as i64;
                    wide.persistence = self.number(line, 0, most).filter(|seconds| *seconds > 0);
                }
                "persistence_granularity" => wide.granularity = Some(line),
                // The kernel sets it by itself.
                "hashed" => {}
                "ops" => wide.one_packet = Some(line),
                "flag-1" | "flag-2" | "flag-3" | "sh-port" | "sh-fallback" | "mh-port" | "mh-fallback" => {
                    wide.flags.push(line);
                }
                "weight" => wide.weight = self.number(line, 0, bounds::WEIGHT.max.into()),
                "quorum" => wide.health.quorum = self.number(line, 1, bounds::QUORUM.max.into()).unwrap_or(1),
                "hysteresis" => {
                    wide.health.hysteresis = self.number(line, 0, bounds::QUORUM.max.into()).unwrap_or(0)
                }
                "quorum_up" => wide.health.notify.quorum_up = self.told_as(line),
                "quorum_down" => wide.health.notify.quorum_down = self.told_as(line),
                "omega" => wide.health.down_at_stop = true,
                "inhibit_on_failure" => wide.health.on_failure = OnFailure::Drain,
                "virtualhost" => wide.health.host = self.word(line).map(str::to_owned),
                "smtp_alert" => wide.health.notify.mail = Some(self.flag(line)),
                "snmp_name" => wide.name = self.word(line).map(str::to_owned),
                "sorry_server" => wide.sorry = Some(line),
                "sorry_server_inhibit" => wide.sorry_drain = true,
                "sorry_server_lvs_method" => wide.sorry_forwarding = self.method(line),
                _ if self.pace(line, &mut wide.health.pace) => {}
                _ => self.skip(line),
            }
        }
        // keepalived's defaults, where they are not the director's.
        let pace = &mut wide.health.pace;
        pace.interval = pace.interval.or(Some(Duration::from_secs(60)));
        pace.timeout = pace.timeout.or(Some(Duration::from_secs(5)));
        pace.assume = pace.assume.or(Some(Assume::Up));
        wide
    }

    /// A notify command of a service or a server. It runs as the director's user for all of them.
    pub(super) fn told_as(&mut self, line: &Entry) -> Vec<String> {
        let (command, user) = self.program(line);
        if user.is_some() && user != self.notify.user {
            match &self.notify.user {
                None => self.notify.user = user,
                Some(other) => {
                    let why =
                        format!("runs as {}: all commands of checks have one user", crate::text::show(other));
                    self.note(line, why);
                }
            }
        }
        command
    }

    /// `NAT | DR | TUN [type ipip | type gue port N [CHECKSUM] | type gre [CHECKSUM]]`
    fn method(&mut self, line: &Entry) -> Option<Forwarding> {
        match self.word(line)?.to_ascii_uppercase().as_str() {
            "NAT" => return Some(Forwarding::Nat),
            "DR" => return Some(Forwarding::Dr),
            "TUN" => {}
            _ => {
                self.note(line, "is none of NAT, DR, TUN");
                return None;
            }
        }
        let (mut name, mut port, mut checksum) = ("ipip", None, None);
        let mut words = line.words.iter().enumerate().skip(2);
        while let Some((at, word)) = words.next() {
            match word.as_str() {
                "type" => name = words.next().map_or("ipip", |(_, word)| word.as_str()),
                "port" => {
                    port = self.number_at(line, at + 1, 1, 65_535);
                    words.next();
                }
                "nocsum" => checksum = Some(TunnelChecksum::None),
                "csum" => checksum = Some(TunnelChecksum::Full),
                "remcsum" => checksum = Some(TunnelChecksum::Remote),
                other => self.note(line, format!("{} is unknown", crate::text::show(other))),
            }
        }
        match Tunnel::from_parts(name, port, checksum) {
            Ok(tunnel) => Some(Forwarding::Tunnel(tunnel)),
            Err((key, error)) => {
                self.note(line, format!("{key}: {error}; the tunnel is taken for ipip"));
                Some(Forwarding::Tunnel(Tunnel::Ipip))
            }
        }
    }

    /// When checks run. False: the key is none of these.
    pub(super) fn pace(&mut self, line: &Entry, pace: &mut Pace) -> bool {
        match line.key() {
            "delay_loop" => pace.interval = self.check_time(line).or(pace.interval),
            "connect_timeout" => pace.timeout = self.check_time(line).or(pace.timeout),
            "retry" | "nb_get_retry" => {
                pace.retries = self.number(line, 0, bounds::RETRIES.max.into()).or(pace.retries);
            }
            "delay_before_retry" => pace.retry_delay = self.check_time(line).or(pace.retry_delay),
            "warmup" => {
                pace.warmup = self.timer(line, Duration::ZERO, bounds::MAX_CHECK_TIME).or(pace.warmup);
            }
            "alpha" => pace.assume = Some(if self.flag(line) { Assume::Down } else { Assume::Up }),
            "fast_recovery" => pace.fast_recovery = Some(self.flag(line)),
            _ => return false,
        }
        true
    }

    fn real(&mut self, entry: &Entry, wide: &Wide<'_>) -> Option<Real> {
        let address = self.ip_at(entry, 1)?;
        if let Some(what) = special(address).filter(|_| !address.is_loopback()) {
            self.note(entry, format!("{address} is {what}: no server can have it"));
            return None;
        }
        let port = entry.arg(2).and_then(|_| self.number_at(entry, 2, 0, 65_535)).filter(|port| *port > 0);
        let mut real = Real {
            address,
            port,
            weight: wide.weight.unwrap_or(1),
            forwarding: wide.forwarding.unwrap_or(Forwarding::Nat),
            upper: 0,
            lower: 0,
            health: ServerHealth::default(),
            checks: Vec::new(),
        };
        // What they are asked depends on how often, which may stand behind them.
        let mut checkers = Vec::new();
        let most = i64::from(bounds::THRESHOLD.max);
        for line in entry.inner() {
            match line.key() {
                "weight" => {
                    real.weight = self.number(line, 0, bounds::WEIGHT.max.into()).unwrap_or(real.weight)
                }
                "lvs_method" => real.forwarding = self.method(line).unwrap_or(real.forwarding),
                "uthreshold" => real.upper = self.number(line, 0, most).unwrap_or(0),
                "lthreshold" => real.lower = self.number(line, 0, most).unwrap_or(0),
                "inhibit_on_failure" => real.health.on_failure = Some(OnFailure::Drain),
                "notify_up" => real.health.notify.up = self.told_as(line),
                "notify_down" => real.health.notify.down = self.told_as(line),
                "virtualhost" => real.health.host = self.word(line).map(str::to_owned),
                "smtp_alert" => {
                    if Some(self.flag(line)) != wide.health.notify.mail {
                        self.note(line, "is decided for a whole service (smtp_alert of the virtual_server)");
                    }
                }
                "snmp_name" => self.note(line, "is not offered: servers go by their addresses"),
                _ if self.pace(line, &mut real.health.pace) => {}
                key if super::checkers::is_checker(key) => checkers.push(line),
                _ => self.skip(line),
            }
        }
        if real.lower > real.upper {
            self.note(
                entry,
                format!("lthreshold {} is above uthreshold {}: left out", real.lower, real.upper),
            );
            real.lower = 0;
        }
        let pace = real.health.pace.or(&wide.health.pace);
        for line in checkers {
            let checks = self.checker(line, &pace);
            real.checks.extend(checks);
        }
        if real.checks.len() > bounds::CHECKS {
            self.note(entry, format!("has more than {} checks; the first are taken", bounds::CHECKS));
            real.checks.truncate(bounds::CHECKS);
        }
        Some(real)
    }

    fn service(
        &mut self,
        entry: &Entry,
        wide: &Wide<'_>,
        reals: &[(&Entry, Real)],
        target: Target,
        index: usize,
    ) {
        let first6 = reals.first().is_some_and(|(_, real)| real.address.is_ipv6());
        let protocol = wide.protocol.unwrap_or_else(|| {
            if matches!(target, Target::Packets(..)) {
                self.note(entry, "says no protocol; UDP is taken, as by keepalived");
            }
            Protocol::Udp
        });
        let address = target.address(protocol, wide.ipv6.unwrap_or(first6)).canonical();
        if self.services.iter().any(|other| other.service.address == address) {
            return self.note(entry, format!("{address} is there already"));
        }
        let name = match (&wide.name, entry.arg(1)) {
            (Some(name), _) => name_of(name),
            (None, Some("group")) => name_of(&format!("{}-{address}", entry.arg(2).unwrap_or_default())),
            _ => name_of(&address.to_string()),
        };
        let name = self.named("services", &name);
        let mut service = Service::new(name, address);
        service.scheduler = wide.scheduler.unwrap_or(Scheduler::Wlc);
        for line in &wide.flags {
            match service.scheduler_flags.with_word(service.scheduler, line.key()) {
                Ok(flags) => service.scheduler_flags = flags,
                Err(error) => self.note(line, error.to_string()),
            }
        }
        service.forwarding = wide.forwarding.unwrap_or(Forwarding::Nat);
        service.persistence = wide.persistence.map(|seconds| Persistence {
            timeout: Duration::from_secs(seconds.into()),
            prefix_len: self.granularity(wide.granularity, address.is_ipv6()),
        });
        if let Some(line) = wide.one_packet {
            match protocol {
                Protocol::Udp => service.one_packet = true,
                _ => self.note(line, "is of use with UDP only"),
            }
        }
        let mut places = Vec::new();
        for (line, real) in reals {
            if let Some(server) = self.server(line, real, &service) {
                service.servers.push(server);
                places.push(line.at);
            }
        }
        if places.is_empty() && wide.sorry.is_none() {
            self.note(entry, format!("{address} has no server that was carried over"));
        }
        self.health(entry, wide, &mut service, index);
        self.services.push(FromService { at: entry.at, service, servers: places });
    }

    /// Netmask or length of a prefix.
    fn granularity(&mut self, line: Option<&Entry>, ipv6: bool) -> u8 {
        let all = Persistence::default_for(ipv6).prefix_len;
        let Some(line) = line else { return all };
        let text = line.arg(1).unwrap_or_default();
        let len = match text.parse::<std::net::Ipv4Addr>() {
            Ok(mask) if u32::from(mask).leading_ones() == u32::from(mask).count_ones() => {
                Some(u32::from(mask).leading_ones() as u8)
            }
            Ok(_) => None,
            Err(_) => text.parse().ok(),
        };
        match len.filter(|len| *len <= all) {
            Some(len) => len,
            None => {
                self.note(line, format!("{} is no netmask", crate::text::show(text)));
                all
            }
        }
    }

    fn server(&mut self, line: &Entry, real: &Real, service: &Service) -> Option<Server> {
        let (address, forwarding) = self.or_own(line, real.address, real.forwarding, service)?;
        let mut server = Server::new(address, service.port(), forwarding);
        server.weight = real.weight;
        (server.upper_threshold, server.lower_threshold) = (real.upper, real.lower);
        let mut health = real.health.clone();
        let mut checks = real.checks.clone();
        if address != real.address {
            // The kernel's own, which checks reach as keepalived's do.
            let open = |check: &&mut Check| check.target.address.is_none() && check.kind.has_port();
            checks.iter_mut().filter(open).for_each(|check| check.target.address = Some(real.address));
        }
        match (real.port, forwarding.keeps_port()) {
            (Some(port), false) => server.port = port,
            // The kernel does not look at the port then; keepalived's checks do.
            (Some(port), true) if port != service.port() => {
                let open = |check: &&mut Check| check.target.port.is_none() && check.kind.has_port();
                checks.iter_mut().filter(open).for_each(|check| check.target.port = Some(port));
            }
            _ => {}
        }
        if has_server(&service.servers, &server) {
            self.note(line, format!("{} is a server of {} already", server.key(), service.address));
            return None;
        }
        if real.address.is_ipv6() != service.address.is_ipv6()
            && !matches!(real.forwarding, Forwarding::Tunnel(_))
        {
            self.note(line, format!("{} is of another family than {}", real.address, service.address));
            return None;
        }
        health.checks = Some(checks);
        server.health = Some(Arc::new(health));
        Some(server)
    }

    /// What all servers share moves to the service; what nothing is said of goes.
    fn health(&mut self, entry: &Entry, wide: &Wide<'_>, service: &mut Service, index: usize) {
        let mut health = wide.health.clone();
        let weight: u32 = service.servers.iter().map(|server| server.weight).fold(0, u32::saturating_add);
        if health.quorum > weight.max(1) {
            self.note(
                entry,
                format!(
                    "quorum {} is above all weights; {} is taken, as by keepalived",
                    health.quorum,
                    weight.max(1)
                ),
            );
            health.quorum = weight.max(1);
        }
        if health.hysteresis >= health.quorum {
            let most = health.quorum - 1;
            self.note(
                entry,
                format!(
                    "hysteresis {} is not below the quorum; {most} is taken, as by keepalived",
                    health.hysteresis
                ),
            );
            health.hysteresis = most;
        }
        // One virtual_server tells of itself once, however many addresses its group has.
        if index > 0 {
            health.notify.quorum_up.clear();
            health.notify.quorum_down.clear();
        }
        let lists: Vec<Vec<Check>> = service
            .servers
            .iter()
            .map(|server| server.health.as_ref().and_then(|own| own.checks.clone()).unwrap_or_default())
            .collect();
        let same = lists.first().filter(|first| lists.iter().all(|list| list == *first)).cloned();
        health.checks = same.clone().unwrap_or_default();
        for server in &mut service.servers {
            let Some(own) = &mut server.health else { continue };
            let own = Arc::make_mut(own);
            if same.is_some() {
                own.checks = None;
            }
            if index > 0 {
                own.notify = Default::default();
            }
            if *own == ServerHealth::default() {
                server.health = None;
            }
        }
        health.sorry_server = wide.sorry.and_then(|line| self.sorry(line, wide, service));
        let checked = lists.iter().any(|list| !list.is_empty());
        let told = !health.notify.quorum_up.is_empty() || !health.notify.quorum_down.is_empty();
        if checked || told || health.sorry_server.is_some() {
            service.health = Some(Arc::new(health));
        } else {
            service.servers.iter_mut().for_each(|server| server.health = None);
        }
    }

    /// A server at a loopback address is the director itself, as Linux has it: the kernel behind a TAP serves the VIP. A
    /// tunnel to itself has no use, and Linux makes none.
    fn or_own(
        &mut self,
        line: &Entry,
        address: IpAddr,
        forwarding: Forwarding,
        service: &Service,
    ) -> Option<(IpAddr, Forwarding)> {
        if !address.is_loopback() {
            return Some((address, forwarding));
        }
        let vip = service.address.vips().and_then(|vips| vips.single());
        let Some(own) = self.base.own_address(vip, address.is_ipv6()) else {
            let family = if address.is_ipv6() { "IPv6" } else { "IPv4" };
            let why = format!(
                "{address} is a loopback address, that is the director itself: left out, as its kernel gets packets by a \
                 port with exception = \"tap\" and an {family} address (--base)"
            );
            self.note(line, why);
            return None;
        };
        let forwarding = match forwarding {
            Forwarding::Tunnel(_) => Forwarding::Dr,
            other => other,
        };
        Some((own, forwarding))
    }

    fn sorry(&mut self, line: &Entry, wide: &Wide<'_>, service: &Service) -> Option<SorryServer> {
        let address = self.ip_at(line, 1)?;
        if let Some(what) = special(address).filter(|_| !address.is_loopback()) {
            self.note(line, format!("{address} is {what}: no server can have it"));
            return None;
        }
        let forwarding = wide.sorry_forwarding.unwrap_or(service.forwarding);
        let (address, forwarding) = self.or_own(line, address, forwarding, service)?;
        if address.is_ipv6() != service.address.is_ipv6() && !matches!(forwarding, Forwarding::Tunnel(_)) {
            self.note(line, format!("{address} is of another family than {}", service.address));
            return None;
        }
        let port = match (line.arg(2), forwarding.keeps_port()) {
            (Some(_), false) => self.number_at(line, 2, 1, 65_535).unwrap_or(service.port()),
            _ => service.port(),
        };
        Some(SorryServer { address, port, weight: 1, forwarding, drain: wide.sorry_drain })
    }
}
