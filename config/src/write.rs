//! A Model as TOML text: every value spelled out but what a server takes from its service, in the order of the
//! documented example.

use std::fmt::{Display, Write};

use toml::Value;

use crate::address::ServiceAddress;
use crate::duration;
use crate::exception::ExceptionKind;
use crate::fields::{LIMITS, SERVICE_TIMEOUTS, TIMEOUTS};
use crate::forwarding::{ClientAddress, Forwarding, Tunnel};
use crate::health::{Check, Entries, Notify};
use crate::ipvs_sync::IpvsSync;
use crate::mark::MarkRule;
use crate::model::{Appliance, Model, Port, Server, Service};
use crate::snat::SnatRule;

/// Writes `model` as a text that [`crate::parse`] reads back as an equal Model.
///
/// The text holds `cluster_secret`, if there is one.
pub fn to_toml(model: &Model) -> String {
    let mut out = Writer(String::new());
    out.appliance(&model.appliance);
    out.header("[limits]");
    for field in &LIMITS {
        out.plain(field.key, (field.get)(&model.limits));
    }
    out.header("[tables]");
    out.plain("keep", model.tables.keep);
    out.text("directory", &model.tables.directory.to_string_lossy());
    out.header("[timeouts]");
    for field in &TIMEOUTS {
        out.text(field.key, &duration::format((field.get)(&model.timeouts)));
    }
    out.header("[policy]");
    for (key, value) in model.policy.entries() {
        out.plain(key, value);
    }
    if model.notify != Notify::default() {
        out.header("[notify]");
        out.entries(&model.notify.entries());
    }
    for port in &model.ports {
        out.port(port);
    }
    for rule in &model.marks {
        out.mark(rule);
    }
    for service in &model.services {
        out.service(service);
    }
    for rule in &model.snat {
        out.snat(rule);
    }
    for (header, entries) in model.ha.sections() {
        match header {
            crate::vrrp::LEASE => out.header(&format!("[{header}]")),
            _ => out.header(&format!("[[{header}]]")),
        }
        entries.iter().for_each(|(key, value)| out.plain(key, value));
    }
    out.0
}

/// Writes services alone, as they stand in a configuration file.
pub fn services_to_toml<'a>(services: impl IntoIterator<Item = &'a Service>) -> String {
    let mut out = Writer(String::new());
    for service in services {
        out.service(service);
    }
    out.0
}

/// Writes daemons of the kernel's connection sync alone, as they stand in a configuration file.
pub fn ipvs_sync_to_toml(daemons: &[IpvsSync]) -> String {
    let mut out = Writer(String::new());
    for daemon in daemons {
        // what is before it is somebody else's
        out.line(if out.0.is_empty() { "\n[[ipvs_sync]]" } else { "[[ipvs_sync]]" });
        daemon.entries().iter().for_each(|(key, value)| out.plain(key, value));
    }
    out.0
}

struct Writer(String);

impl Writer {
    fn line(&mut self, line: impl Display) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "{line}");
    }

    /// A table's header, set off from what is before it.
    fn header(&mut self, header: &str) {
        if !self.0.is_empty() {
            self.0.push('\n');
        }
        self.line(header);
    }

    fn plain(&mut self, key: &str, value: impl Display) {
        self.line(format_args!("{key} = {value}"));
    }

    fn text(&mut self, key: &str, value: &str) {
        self.plain(key, Value::String(value.to_owned()));
    }

    fn list<T: Display>(&mut self, key: &str, values: &[T]) {
        let texts: Vec<String> = values.iter().map(|v| Value::String(v.to_string()).to_string()).collect();
        self.plain(key, format_args!("[{}]", texts.join(", ")));
    }

    fn appliance(&mut self, appliance: &Appliance) {
        self.header("[appliance]");
        self.text("name", &appliance.name);
        let workers: Vec<String> = appliance.workers.iter().map(ToString::to_string).collect();
        self.plain("workers", format_args!("[{}]", workers.join(", ")));
        if let Some(cpu) = appliance.control_cpu {
            self.plain("control_cpu", cpu);
        }
        self.text("huge_pages", appliance.huge_pages.as_str());
        self.plain("memory_mib", appliance.memory_mib);
        self.text("idle", appliance.idle.as_str());
        self.text("socket", &appliance.socket.to_string_lossy());
        if let Some(group) = &appliance.socket_group {
            self.text("socket_group", group);
        }
        self.plain("socket_public_read", appliance.socket_public_read);
        if let Some(secret) = &appliance.cluster_secret {
            self.text("cluster_secret", secret);
        }
    }

    fn port(&mut self, port: &Port) {
        self.header("[[ports]]");
        self.text("name", &port.name);
        self.text("device", &port.device.to_string());
        if let Some(vlan) = port.vlan {
            self.plain("vlan", vlan);
        }
        self.plain("mtu", port.mtu);
        self.list("addresses", &port.addresses);
        match port.gateways.as_slice() {
            [] => {}
            [gateway] => self.text("gateway", &gateway.to_string()),
            gateways => self.list("gateway", gateways),
        }
        match &port.exception {
            None => self.text("exception", ExceptionKind::Off.as_str()),
            Some(exception) => {
                self.text("exception", ExceptionKind::Tap.as_str());
                self.text("exception_interface", &exception.interface);
                self.plain("exception_rate", exception.rate);
            }
        }
    }

    fn service(&mut self, service: &Service) {
        self.header("[[services]]");
        self.text("name", &service.name);
        self.address(&service.address);
        self.text("scheduler", service.scheduler.name());
        if let Some(hash) = service.scheduler.maglev_hash() {
            self.text("maglev_hash", hash.as_str());
        }
        if let Some(size) = service.scheduler.maglev_size() {
            self.plain("maglev_size", size);
        }
        if !service.scheduler_flags.is_empty() {
            self.list("scheduler_flags", &service.scheduler_flags.words(service.scheduler));
        }
        self.forwarding(service.forwarding);
        if !service.local_addresses.is_empty() {
            self.list("local_addresses", &service.local_addresses);
        }
        if service.client_address != ClientAddress::None {
            self.text("client_address", service.client_address.as_str());
        }
        if let Some(persistence) = service.persistence {
            let timeout = Value::String(duration::format(persistence.timeout));
            let prefix = persistence.prefix_len;
            self.plain("persistence", format_args!("{{ timeout = {timeout}, prefix = {prefix} }}"));
        }
        self.plain("one_packet", service.one_packet);
        let own = SERVICE_TIMEOUTS.iter().filter_map(|f| Some((f.key, (f.get)(&service.timeouts)?)));
        for (index, (key, duration)) in own.enumerate() {
            if index == 0 {
                self.header("[services.timeouts]");
            }
            self.text(key, &duration::format(duration));
        }
        let policy = service.policy.entries().into_iter().filter_map(|(key, value)| Some((key, value?)));
        for (index, (key, value)) in policy.enumerate() {
            if index == 0 {
                self.header("[services.policy]");
            }
            self.plain(key, value);
        }
        if let Some(health) = &service.health {
            self.header("[services.health]");
            self.entries(&health.entries());
            self.checks("[[services.health.checks]]", &health.checks);
        }
        for server in &service.servers {
            self.server(service, server);
        }
    }

    fn snat(&mut self, rule: &SnatRule) {
        self.header("[[snat]]");
        self.text("name", &rule.name);
        self.text("sources", &rule.sources.to_string());
        match rule.addresses.as_slice() {
            [address] => self.text("address", &address.to_string()),
            addresses => self.list("address", addresses),
        }
        self.list("protocols", &rule.protocols);
        if let Some(port) = &rule.port {
            self.text("port", port);
        }
    }

    fn address(&mut self, address: &ServiceAddress) {
        match *address {
            ServiceAddress::Vip { vip, port, protocol } => {
                self.text("vip", &vip.to_string());
                self.plain("port", port);
                self.text("protocol", protocol.as_str());
            }
            ServiceAddress::Range { vips, ports, protocol } => {
                let vip = vips.single().map_or_else(|| vips.to_string(), |vip| vip.to_string());
                self.text("vip", &vip);
                match ports.single() {
                    Some(port) => self.plain("port", port),
                    None => self.text("ports", &ports.to_string()),
                }
                self.text("protocol", protocol.as_str());
            }
            ServiceAddress::Mark { mark, ipv6 } => {
                self.plain("mark", mark);
                self.text("family", if ipv6 { "ipv6" } else { "ipv4" });
            }
        }
    }

    fn mark(&mut self, rule: &MarkRule) {
        self.header("[[marks]]");
        self.plain("value", rule.value);
        let text = |value: &dyn Display| Value::String(value.to_string()).to_string();
        let values = [
            ("source", rule.source.map(|prefix| text(&prefix))),
            ("destination", rule.destination.map(|prefix| text(&prefix))),
            ("protocol", rule.protocol.map(|protocol| text(&protocol))),
            ("source_ports", rule.source_ports.map(|ports| text(&ports))),
            ("ports", rule.ports.map(|ports| text(&ports))),
            ("port", rule.port.as_ref().map(|port| text(port))),
            ("vlan", rule.vlan.map(|vlan| vlan.to_string())),
        ];
        for (key, value) in values {
            if let Some(value) = value {
                self.plain(key, value);
            }
        }
    }

    fn server(&mut self, service: &Service, server: &Server) {
        self.header("[[services.servers]]");
        self.text("address", &server.address.to_string());
        if server.port != service.port() {
            self.plain("port", server.port);
        }
        self.plain("weight", server.weight);
        if server.forwarding != service.forwarding {
            self.forwarding(server.forwarding);
        }
        for (key, threshold) in
            [("upper_threshold", server.upper_threshold), ("lower_threshold", server.lower_threshold)]
        {
            if threshold > 0 {
                self.plain(key, threshold);
            }
        }
        if let Some(deadline) = server.drain_deadline {
            self.text("drain_deadline", &duration::format(deadline));
        }
        if let Some(health) = &server.health {
            self.header("[services.servers.health]");
            self.entries(&health.entries());
            self.checks("[[services.servers.health.checks]]", health.checks.as_deref().unwrap_or_default());
        }
    }

    fn entries(&mut self, entries: &Entries) {
        for (key, value) in &entries.0 {
            self.plain(key, value);
        }
    }

    fn checks(&mut self, header: &str, checks: &[Check]) {
        for check in checks {
            self.header(header);
            self.entries(&check.entries());
        }
    }

    fn forwarding(&mut self, forwarding: Forwarding) {
        self.text("forwarding", forwarding.name());
        if let Some(tunnel) = forwarding.tunnel() {
            self.plain("tunnel", inline(tunnel));
        }
    }
}

/// `{ type = "gue", port = 6080, checksum = "full" }`
pub(crate) fn inline(tunnel: Tunnel) -> String {
    let mut text = format!("{{ type = \"{}\"", tunnel.name());
    if let Some(port) = tunnel.port() {
        text.push_str(&format!(", port = {port}"));
    }
    if let Some(checksum) = tunnel.checksum() {
        text.push_str(&format!(", checksum = \"{checksum}\""));
    }
    text + " }"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{MaglevHash, MaglevSize, Scheduler};
    use std::time::Duration;

    #[test]
    fn services_alone_are_the_end_of_the_whole() {
        let model = crate::tests::small();
        let services = services_to_toml(&model.services);
        assert!(services.starts_with("[[services]]\n"), "{services}");
        assert!(to_toml(&model).ends_with(&format!("\n\n{services}")));
    }

    #[test]
    fn every_value_is_spelled_out_and_unset_ones_are_left_out() {
        let mut model = crate::tests::small();
        model.appliance.socket_group = Some("a\"b".to_owned());
        model.ports[0].gateways = vec!["192.168.150.1".parse().unwrap()];
        model.services[0].scheduler = Scheduler::Maglev(MaglevHash::Flow, MaglevSize::Small);
        model.services[0].timeouts.tcp_fin_wait = Some(Duration::from_millis(1500));
        model.services[0].servers.truncate(1);
        assert_eq!(
            to_toml(&model),
            r#"[appliance]
name = "director"
workers = [0]
huge_pages = "none"
memory_mib = 512
idle = "adaptive"
socket = "/run/sluice/lbd.sock"
socket_group = 'a"b'
socket_public_read = false

[limits]
max_connections = 1048576
max_services = 1024
max_servers = 16384
neighbor_queue = 256
mbufs = 32768

[tables]
keep = true
directory = "/dev/shm"

[timeouts]
tcp_established = "900s"
tcp_syn_sent = "120s"
tcp_syn_recv = "60s"
tcp_fin_wait = "120s"
tcp_time_wait = "120s"
tcp_close = "10s"
tcp_close_wait = "60s"
tcp_synack = "120s"
udp = "300s"
sctp_init = "4s"
sctp_handshake = "61s"
sctp_established = "900s"
sctp_shutdown = "61s"
sctp_rejected = "4s"
sctp_closed = "61s"

[policy]
compat = "none"
sloppy_tcp = false
sloppy_sctp = false
conn_reuse_mode = 1
expire_nodest_conn = false
expire_quiescent_template = false
secure_tcp = 0
schedule_icmp = false
pmtu_disc = true
nat_icmp_send = false
syn_flood = 10

[[ports]]
name = "lan"
device = "null"
mtu = 1500
addresses = ["192.168.150.11/24", "fd00::11/64"]
gateway = "192.168.150.1"
exception = "off"

[[services]]
name = "web"
vip = "192.168.150.100"
port = 80
protocol = "tcp"
scheduler = "maglev"
maglev_hash = "flow"
maglev_size = 65537
forwarding = "dr"
one_packet = false

[services.timeouts]
tcp_fin_wait = "1500ms"

[[services.servers]]
address = "192.168.150.12"
weight = 1
"#
        );
    }
}
