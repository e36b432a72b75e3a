//! As much of a director as persistence needs: services, round robin, connections without states.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

use lb_dataplane::classify::{Address, Classifier, Lookup, MarkRule};
use lb_dataplane::conn::HashKey;
use lb_dataplane::ids::DestId;
use lb_dataplane::io::DeviceId;
use lb_dataplane::parse::L4;
use lb_dataplane::persist::{Child, ListedPort, Rule, Scope, Templates};

const SECOND: u64 = 1_000_000_000;

/// A real server: address and port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Server(pub IpAddr, pub u16);

impl Server {
    /// The server `rsN` of the recordings, in the family of `like`.
    pub fn of_number(number: u8, like: IpAddr) -> Self {
        let text = if like.is_ipv6() { format!("fd00:b::1{number}") } else { format!("10.1.0.1{number}") };
        Self(text.parse().expect("an address"), if like.is_ipv6() { 8080 } else { 0 })
    }
}

type To = (IpAddr, u16, L4);
type Client = (IpAddr, u16);

struct Dest {
    service: Address,
    server: Server,
    weight: u32,
    removed: bool,
}

struct Service {
    address: Address,
    rule: Option<Rule>,
    /// In IPVS's order: the one added last comes first.
    dests: Vec<DestId>,
    last: usize,
}

pub struct Director {
    pub expire_quiescent_template: bool,
    pub expire_nodest_conn: bool,
    now_ns: u64,
    templates: Templates,
    services: Vec<Service>,
    dests: Vec<Dest>,
    /// Connections under a template: their destination and its rule.
    children: HashMap<(Client, To), (DestId, Rule)>,
}

/// A row of a listing with single spaces.
pub fn row(protocol: &str, seconds: u64, state: &str, client: &str, vip: &str, server: &str) -> String {
    format!("{protocol} {seconds} {state} {client} {vip} {server}")
}

fn with_port(address: IpAddr, port: u16) -> String {
    std::net::SocketAddr::new(address, port).to_string()
}

/// `1.2.3.4:80`, `[::1]:80`, with or without the port.
pub fn socket(text: &str) -> (IpAddr, Option<u16>) {
    if let Some((address, rest)) = text.strip_prefix('[').and_then(|text| text.split_once(']')) {
        let port = rest.strip_prefix(':').map(|port| port.parse().expect("a port"));
        return (address.parse().expect("an address"), port);
    }
    let (address, port) = text.split_once(':').map_or((text, None), |(address, port)| (address, Some(port)));
    (address.parse().expect("an address"), port.map(|port| port.parse().expect("a port")))
}

impl Director {
    pub fn new() -> Self {
        Self {
            expire_quiescent_template: false,
            expire_nodest_conn: false,
            now_ns: 5 * SECOND,
            templates: Templates::new(1000, 64, HashKey::random()),
            services: Vec::new(),
            dests: Vec::new(),
            children: HashMap::new(),
        }
    }

    /// Time goes on; what the kernel does by itself in the meantime is done.
    pub fn later(&mut self, ms: u64) {
        self.now_ns += ms * 1_000_000;
        if self.expire_nodest_conn {
            let (dests, templates, now) = (&self.dests, &self.templates, self.now_ns);
            self.children.retain(|&(client, to), (dest, rule)| {
                let removed = dests[dest.0 as usize].removed;
                if removed {
                    templates.child_ended(rule, &child(client, to), *dest, now, true);
                }
                !removed
            });
            templates.drop_unused(now, |listed| dests[listed.dest.0 as usize].removed);
        }
        self.templates.sweep(self.now_ns, self.templates.buckets(), |_| true);
    }

    pub fn ipvsadm(&mut self, command: &str) {
        let words: Vec<&str> = command.split_whitespace().collect();
        let option = |name: &str| {
            words.iter().position(|word| *word == name).and_then(|at| words.get(at + 1)).copied()
        };
        let address = || match (option("-t"), option("-u"), option("-f")) {
            (Some(text), _, _) => vip(text, L4::Tcp),
            (_, Some(text), _) => vip(text, L4::Udp),
            (_, _, Some(mark)) => Address::Mark { mark: mark.parse().expect("a mark"), ipv6: false },
            _ => panic!("no service in {command}"),
        };
        let server = || {
            let (ip, port) = socket(option("-r").expect("a server"));
            let own = if let Address::Vip { port, .. } = address() { port } else { 0 };
            // direct routing keeps the port
            let port = if words.contains(&"-g") { own } else { port.unwrap_or(own) };
            Server(ip, port)
        };
        let weight = option("-w").map_or(1, |weight| weight.parse().expect("a weight"));
        match words.get(1) {
            Some(&"-C") => {
                self.services.clear();
                self.dests.iter_mut().for_each(|dest| dest.removed = true);
            }
            Some(&"-A") => {
                let rule = option("-p").map(|timeout| {
                    let timeout = timeout.parse::<u64>().expect("seconds") * SECOND;
                    rule(address(), option("-M"), timeout)
                });
                self.services.push(Service { address: address(), rule, dests: Vec::new(), last: usize::MAX });
            }
            Some(&"-a") => {
                let (address, server) = (address(), server());
                let old = self.dests.iter().position(|dest| (dest.service, dest.server) == (address, server));
                let new = Dest { service: address, server, weight, removed: false };
                let at = old.unwrap_or(self.dests.len());
                if at < self.dests.len() {
                    self.dests[at] = new
                } else {
                    self.dests.push(new)
                }
                self.service(address).dests.insert(0, DestId(at as u32));
            }
            Some(&verb @ ("-e" | "-d")) => {
                let (address, server) = (address(), server());
                let at = self.dests.iter().position(|dest| (dest.service, dest.server) == (address, server));
                let at = at.expect("a known server");
                if verb == "-e" {
                    self.dests[at].weight = weight;
                } else {
                    self.dests[at].removed = true;
                    self.service(address).dests.retain(|dest| dest.0 as usize != at);
                    self.service(address).last = usize::MAX;
                }
            }
            _ => panic!("unknown: {command}"),
        }
    }

    fn service(&mut self, address: Address) -> &mut Service {
        self.services.iter_mut().find(|service| service.address == address).expect("a known service")
    }

    /// A new connection: the server that it gets.
    pub fn connects(&mut self, client: Client, to: To) -> Option<Server> {
        let known = self.services.iter().enumerate();
        let known = known.map(|(at, service)| (service.address, service.rule.is_some(), at));
        // the recording marks whatever comes from the client
        let classifier = Classifier::new(vec![MarkRule::any(7)], known);
        let lookup = Lookup {
            src: client.0,
            dst: to.0,
            src_port: client.1,
            dst_port: to.1,
            protocol: to.2,
            device: DeviceId(0),
            vlan: 0,
        };
        let at = *classifier.find(&lookup)?;
        let service = &mut self.services[at];
        let dests = &self.dests;
        let quiescent = self.expire_quiescent_template;
        let valid = |dest: DestId| {
            let dest = &dests[dest.0 as usize];
            !dest.removed && (!quiescent || dest.weight > 0)
        };
        let (list, last) = (&service.dests, &mut service.last);
        let mut schedule = || {
            let next = (1..=list.len()).map(|step| last.wrapping_add(step) % list.len());
            *last = next.into_iter().find(|&at| dests[list[at].0 as usize].weight > 0)?;
            Some(list[*last])
        };
        let dest = match &service.rule {
            None => schedule()?,
            Some(rule) => {
                let chosen = self.templates.choose(rule, &child(client, to), self.now_ns, valid, schedule);
                let dest = chosen.ok()?.dest;
                let former = self.children.insert((client, to), (dest, rule.clone()));
                assert_eq!(former, None, "the recordings do not use a port twice");
                dest
            }
        };
        let server = self.dests[dest.0 as usize].server;
        Some(Server(server.0, if server.0.is_ipv6() { server.1 } else { 0 }))
    }

    /// A connection was established, or its server's answer was seen.
    pub fn answered(&mut self, client: Client, to: To) {
        if let Some((dest, rule)) = self.children.get(&(client, to)) {
            self.templates.assure(rule, &child(client, to), *dest);
        }
    }

    /// All templates, as rows, sorted.
    pub fn listing(&self) -> Vec<String> {
        let mut rows = Vec::new();
        self.templates.list(self.now_ns, |listed| {
            let server = self.dests[listed.dest.0 as usize].server;
            let port = match listed.port {
                ListedPort::Server => server.1,
                ListedPort::Any => 0,
                ListedPort::Replaced => u16::MAX,
            };
            rows.push(row(
                match listed.key.protocol() {
                    0 => "IP",
                    6 => "TCP",
                    17 => "UDP",
                    other => panic!("protocol {other}"),
                },
                listed.left_ns / SECOND,
                if listed.assured { "ASSURED" } else { "NONE" },
                &with_port(listed.key.client(), 0),
                &with_port(listed.key.vip(), listed.vport()),
                &with_port(server.0, port),
            ));
        });
        rows.sort();
        rows
    }

    /// Templates and connections of a configured server.
    pub fn counts(&self, server: &str) -> [u32; 2] {
        let (address, port) = socket(server);
        let wanted = Server(address, port.expect("a port"));
        let at = self.dests.iter().position(|dest| !dest.removed && dest.server == wanted);
        let dest = DestId(at.expect("a configured server") as u32);
        let children = self.children.values().filter(|(of, _)| *of == dest).count() as u32;
        [self.templates.count(dest), children]
    }
}

fn child(client: Client, to: To) -> Child {
    Child { client: client.0, vip: to.0, vport: to.1, protocol: to.2 }
}

fn vip(text: &str, protocol: L4) -> Address {
    let (vip, port) = socket(text);
    Address::Vip { vip, port: port.expect("a port"), protocol }
}

fn rule(address: Address, mask: Option<&str>, timeout_ns: u64) -> Rule {
    let (scope, ipv6) = match address {
        Address::Vip { vip, port, .. } => (Scope::Port(port), vip.is_ipv6()),
        Address::Mark { mark, ipv6 } => (Scope::Mark(mark), ipv6),
        Address::Range { .. } => panic!("not of ipvsadm"),
    };
    let prefix_len = match mask {
        None => {
            if ipv6 {
                128
            } else {
                32
            }
        }
        Some(text) => text
            .parse::<Ipv4Addr>()
            .map_or_else(|_| text.parse().expect("a length"), |mask| mask.to_bits().leading_ones() as u8),
    };
    Rule::new(scope, prefix_len, timeout_ns)
}
