//! Configurations for a test's director.

use std::fmt::Write;
use std::path::Path;

use crate::lab::{DIP, DIP_BEHIND, DIP_BEHIND6, DIP6, VIP, VIP6};

/// A configuration as text; the fields are what tests vary.
#[derive(Clone, Debug)]
pub struct Config {
    /// Workers, on CPU 0 and up.
    pub workers: usize,
    /// `af_packet` or `af_xdp`.
    pub device: &'static str,
    /// 802.1Q tag of the port.
    pub vlan: Option<u16>,
    /// MTU of the ports, bytes; the default's if there is none.
    pub mtu: Option<u16>,
    /// Whether there is a second port, eth1, to servers behind the director.
    pub behind: bool,
    /// What idle workers do: `adaptive` or `spin`.
    pub idle: &'static str,
    /// Lines of `[appliance]` about DPDK's memory.
    pub memory: &'static str,
    /// Connections of all workers together.
    pub max_connections: u32,
    /// More lines for the first port.
    pub port: String,
    /// More lines for the second port.
    pub behind_port: String,
    /// Whether connections outlive lbd; what is kept lies beside its socket.
    pub keep: bool,
    /// More lines for `[appliance]`.
    pub appliance: String,
    /// Lines of `[timeouts]`.
    pub timeouts: String,
    /// Services in order.
    pub services: Vec<Service>,
    /// More tables, at the end.
    pub more: String,
}

/// One service.
#[derive(Clone, Debug)]
pub struct Service {
    /// Name.
    pub name: &'static str,
    /// Virtual address.
    pub vip: &'static str,
    /// Port.
    pub port: u16,
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    /// `rr`, `lc` or `maglev`.
    pub scheduler: &'static str,
    /// More lines for the service.
    pub more: String,
    /// Address and weight of each server.
    pub servers: Vec<(String, u32)>,
    /// Port of the servers; the service's if there is none.
    pub server_port: Option<u16>,
}

impl Service {
    /// A TCP service at the VIP over `servers`, each of weight 1.
    pub fn tcp(name: &'static str, port: u16, scheduler: &'static str, servers: &[&str]) -> Self {
        let servers = servers.iter().map(|address| ((*address).to_owned(), 1)).collect();
        Self {
            name,
            vip: VIP,
            port,
            protocol: "tcp",
            scheduler,
            more: String::new(),
            servers,
            server_port: None,
        }
    }

    /// The same over UDP.
    pub fn udp(name: &'static str, port: u16, scheduler: &'static str, servers: &[&str]) -> Self {
        Self { protocol: "udp", ..Self::tcp(name, port, scheduler, servers) }
    }

    /// The same with NAT to `port` of the servers.
    pub fn nat(self, port: u16) -> Self {
        Self { more: "forwarding = \"nat\"".to_owned(), server_port: Some(port), ..self }
    }

    /// The same through a tunnel, such as `{ type = "ipip" }`.
    pub fn tunnel(self, tunnel: &str) -> Self {
        Self { more: format!("forwarding = \"tunnel\"\ntunnel = {tunnel}"), ..self }
    }

    /// The same at the IPv6 VIP.
    pub fn v6(self) -> Self {
        Self { vip: VIP6, ..self }
    }
}

impl Default for Config {
    /// One worker, af_packet, adaptive, a web service with round robin over `.12` and `.13`.
    fn default() -> Self {
        Self {
            workers: 1,
            device: "af_packet",
            vlan: None,
            mtu: None,
            behind: false,
            idle: "adaptive",
            memory: "huge_pages = \"none\"\nmemory_mib = 256",
            max_connections: 65536,
            port: String::new(),
            behind_port: String::new(),
            keep: false,
            appliance: String::new(),
            timeouts: String::new(),
            services: vec![Service::tcp("web", 80, "rr", &["192.168.150.12", "192.168.150.13"])],
            more: String::new(),
        }
    }
}

impl Config {
    /// The default with these services instead.
    pub fn with(services: Vec<Service>) -> Self {
        Self { services, ..Self::default() }
    }

    /// The TOML text; lbd's socket is at `socket`.
    pub fn to_toml(&self, socket: &str) -> String {
        let cpus: Vec<String> = (0..self.workers).map(|cpu| cpu.to_string()).collect();
        let mut text = format!(
            "[appliance]\nname = \"e2e\"\nworkers = [{}]\n{}\nidle = \"{}\"\n\
             socket = \"{socket}\"\n{}\n[limits]\nmax_connections = {}\nmbufs = 16384\n\n\
             [tables]\nkeep = {}\ndirectory = \"{}\"\n\n[timeouts]\n{}\n\
             [[ports]]\nname = \"lan\"\ndevice = \"{}:eth0\"\naddresses = [\"{DIP}/24\", \"{DIP6}/64\"]\n",
            cpus.join(", "),
            self.memory,
            self.idle,
            self.appliance,
            self.max_connections,
            self.keep,
            Path::new(socket).parent().unwrap_or(Path::new("/run")).display(),
            self.timeouts,
            self.device
        );
        if let Some(tag) = self.vlan {
            // Writing to a String does not fail.
            let _ = writeln!(text, "vlan = {tag}");
        }
        let mtu = self.mtu.map(|mtu| format!("mtu = {mtu}\n")).unwrap_or_default();
        text.push_str(&mtu);
        text.push_str(&self.port);
        if self.behind {
            let _ = write!(
                text,
                "\n[[ports]]\nname = \"servers\"\ndevice = \"{}:eth1\"\n\
                 addresses = [\"{DIP_BEHIND}/24\", \"{DIP_BEHIND6}/64\"]\n{mtu}{}",
                self.device, self.behind_port
            );
        }
        for service in &self.services {
            let _ = write!(
                text,
                "\n[[services]]\nname = \"{}\"\nvip = \"{}\"\nport = {}\nprotocol = \"{}\"\nscheduler = \"{}\"\n{}\n",
                service.name, service.vip, service.port, service.protocol, service.scheduler, service.more
            );
            for (address, weight) in &service.servers {
                let _ = writeln!(text, "[[services.servers]]\naddress = \"{address}\"\nweight = {weight}");
                if let Some(port) = service.server_port {
                    let _ = writeln!(text, "port = {port}");
                }
            }
        }
        text.push_str(&self.more);
        text
    }
}
