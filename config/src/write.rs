//! A Model as TOML text: every value spelled out, in the order of the documented example.

use std::fmt::{Display, Write};

use toml::Value;

use crate::duration;
use crate::fields::{LIMITS, SERVICE_TIMEOUTS, TIMEOUTS};
use crate::model::{Appliance, Model, Port, Service};

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
    out.header("[timeouts]");
    for field in &TIMEOUTS {
        out.text(field.key, &duration::format((field.get)(&model.timeouts)));
    }
    for port in &model.ports {
        out.port(port);
    }
    for service in &model.services {
        out.service(service);
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
    }

    fn service(&mut self, service: &Service) {
        self.header("[[services]]");
        self.text("name", &service.name);
        self.text("vip", &service.vip.to_string());
        self.plain("port", service.port);
        self.text("protocol", service.protocol.as_str());
        self.text("scheduler", service.scheduler.name());
        if let Some(hash) = service.scheduler.maglev_hash() {
            self.text("maglev_hash", hash.as_str());
        }
        self.text("forwarding", service.forwarding.as_str());
        let own = SERVICE_TIMEOUTS.iter().filter_map(|f| Some((f.key, (f.get)(&service.timeouts)?)));
        for (index, (key, duration)) in own.enumerate() {
            if index == 0 {
                self.header("[services.timeouts]");
            }
            self.text(key, &duration::format(duration));
        }
        for server in &service.servers {
            self.header("[[services.servers]]");
            self.text("address", &server.address.to_string());
            self.plain("weight", server.weight);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{MaglevHash, Scheduler};
    use std::time::Duration;

    #[test]
    fn every_value_is_spelled_out_and_unset_ones_are_left_out() {
        let mut model = crate::tests::small();
        model.appliance.socket_group = Some("a\"b".to_owned());
        model.ports[0].gateways = vec!["192.168.150.1".parse().unwrap()];
        model.services[0].scheduler = Scheduler::Maglev(MaglevHash::Flow);
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

[timeouts]
tcp_established = "900s"
tcp_syn_recv = "60s"
tcp_fin_wait = "120s"
tcp_time_wait = "120s"
tcp_close = "10s"
udp = "300s"

[[ports]]
name = "lan"
device = "null"
mtu = 1500
addresses = ["192.168.150.11/24", "fd00::11/64"]
gateway = "192.168.150.1"

[[services]]
name = "web"
vip = "192.168.150.100"
port = 80
protocol = "tcp"
scheduler = "maglev"
maglev_hash = "flow"
forwarding = "dr"

[services.timeouts]
tcp_fin_wait = "1500ms"

[[services.servers]]
address = "192.168.150.12"
weight = 1
"#
        );
    }
}
