//! What the kernel's interfaces are to be, from the configuration.

use std::net::IpAddr;

use lb_config::{Device, Forwarding, IfAddr, IpPrefix, Model};
use lb_dataplane::neighbor::LinkId;
use lb_dataplane::snapshot::Link;

/// A port that an interface is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TapPort {
    /// The port.
    pub link: LinkId,
    /// Its MAC address.
    pub mac: [u8; 6],
    /// Its addresses with their networks.
    pub networks: Vec<IfAddr>,
}

/// The interface of one port, or of several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TapPlan {
    /// The ports, one at least.
    pub ports: Vec<TapPort>,
    /// Name of the interface.
    pub name: String,
    /// Its MAC address: the first port's.
    pub mac: [u8; 6],
    /// Largest IP packet, bytes: of the port with the smallest.
    pub mtu: u16,
    /// Its addresses with their networks.
    pub addresses: Vec<IfAddr>,
    /// Next hops for all other networks, one per family at most.
    pub gateways: Vec<IpAddr>,
    /// VIPs of services that have this director for a server: the kernel takes what comes for them.
    pub vips: Vec<IpPrefix>,
    /// VIPs on no port's network that health checks ask by this interface.
    pub asked: Vec<IpPrefix>,
    /// The kernel interfaces that the ports' drivers read frames from.
    pub devices: Vec<String>,
}

/// All of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In the order of the ports, those without an exception path left out.
    pub taps: Vec<TapPlan>,
}

impl TapPlan {
    /// Adds another port's.
    fn join(&mut self, other: Self) {
        self.ports.extend(other.ports);
        self.mtu = self.mtu.min(other.mtu);
        self.addresses.extend(other.addresses);
        self.gateways.extend(other.gateways);
        self.vips.extend(other.vips.into_iter().filter(|vip| !self.vips.contains(vip)).collect::<Vec<_>>());
        self.asked.extend(other.asked);
        self.devices.extend(other.devices);
    }
}

impl Plan {
    /// What `model` asks for; `links`: its ports as the packet path has them.
    pub fn of(model: &Model, links: &[Link]) -> Self {
        let first = model.ports.iter().position(|port| port.exception.is_some());
        let mut taps: Vec<TapPlan> = Vec::new();
        for (at, (port, link)) in model.ports.iter().zip(links).enumerate() {
            let (Some(exception), Ok(id)) = (&port.exception, u16::try_from(at)) else { continue };
            let tap = TapPlan {
                ports: vec![TapPort { link: LinkId(id), mac: link.mac, networks: port.addresses.clone() }],
                name: exception.interface.clone(),
                mac: link.mac,
                mtu: port.mtu,
                addresses: port.addresses.clone(),
                gateways: port.gateways.clone(),
                vips: vips(model, &port.addresses),
                asked: if first == Some(at) { asked(model) } else { Vec::new() },
                devices: match &port.device {
                    Device::AfPacket(name) | Device::AfXdp(name) => vec![name.clone()],
                    _ => Vec::new(),
                },
            };
            match taps.iter_mut().find(|other| other.name == tap.name) {
                Some(shared) => shared.join(tap),
                None => taps.push(tap),
            }
        }
        Self { taps }
    }

    /// Longest frame, bytes.
    pub fn longest(&self) -> usize {
        const ETHERNET: usize = 14;
        // a tag of another kind than 802.1Q's is the kernel's business
        const MORE_TAGS: usize = 8;
        self.taps.iter().map(|tap| usize::from(tap.mtu)).max().unwrap_or(0) + ETHERNET + MORE_TAGS
    }
}

/// The VIPs of services one of whose servers, sorry servers too, has one of these addresses and gets packets as they are.
fn vips(model: &Model, own: &[IfAddr]) -> Vec<IpPrefix> {
    let is_own = |address: IpAddr| own.iter().any(|own| own.addr == address);
    let mut vips: Vec<IpPrefix> = Vec::new();
    for service in &model.services {
        let sorry = service.health.as_ref().and_then(|health| health.sorry_server);
        let sorry = sorry.map(|sorry| (sorry.forwarding, sorry.address));
        let mut servers =
            service.servers.iter().map(|server| (server.forwarding, server.address)).chain(sorry);
        let here = servers.any(|(forwarding, address)| forwarding == Forwarding::Dr && is_own(address));
        // one that is an address of some port already is the kernel's, or another port's
        let of_port = |vip: IpAddr| {
            model.ports.iter().flat_map(|port| &port.addresses).any(|address| address.addr == vip)
        };
        let vip = service.vips().filter(|vip| here && !vip.single().is_some_and(of_port));
        vips.extend(vip.filter(|vip| !vips.contains(vip)));
    }
    vips
}

/// The VIPs of services with checks by `via = "path"` that no connected network leads to.
fn asked(model: &Model) -> Vec<IpPrefix> {
    let mut vips: Vec<IpPrefix> = Vec::new();
    for service in model.services.iter().filter(|service| service.is_checked()) {
        let by_path = |server| service.checks_of(server).iter().any(|check| check.target.path.is_some());
        let vip = service.vips().filter(|_| service.servers.iter().any(by_path));
        let connected = |vip: &IpPrefix| {
            model.ports.iter().flat_map(|port| &port.addresses).any(|own| own.contains(vip.network()))
        };
        vips.extend(vip.filter(|vip| !connected(vip) && !vips.contains(vip)));
    }
    vips
}

#[cfg(test)]
mod tests {
    use super::*;
    use lb_dataplane::io::DeviceId;

    const TEXT: &str = r#"
[[ports]]
name = "lan"
device = "af_packet:eth0"
exception = "tap"
addresses = ["192.168.150.11/24"]
gateway = "192.168.150.1"
[[ports]]
name = "wan"
device = "null"
addresses = ["10.0.0.1/24"]
[[services]]
name = "here"
vip = "192.168.150.100"
port = 80
servers = [{ address = "192.168.150.11" }, { address = "192.168.150.12" }]
[[services]]
name = "there"
vip = "192.168.150.101"
port = 80
servers = [{ address = "192.168.150.12" }]
[[services]]
name = "sorry"
vip = "192.168.150.103"
port = 80
servers = [{ address = "192.168.150.12" }]
health.sorry_server = { address = "192.168.150.11" }
[[services]]
name = "translated"
vip = "192.168.150.102"
port = 80
forwarding = "nat"
servers = [{ address = "192.168.150.11", port = 8080 }]
"#;

    #[test]
    fn a_port_with_an_exception_path_gets_an_interface_and_the_vips_served_here() {
        let model = lb_config::parse(TEXT).unwrap();
        let link = |port: &lb_config::Port| Link {
            name: port.name.clone(),
            device: DeviceId(0),
            vlan: 0,
            mac: [2; 6],
            mtu: port.mtu,
            addresses: port.addresses.clone(),
            exception: None,
        };
        let links: Vec<Link> = model.ports.iter().map(link).collect();
        let plan = Plan::of(&model, &links);
        let [tap] = &plan.taps[..] else { panic!("{plan:?}") };
        assert_eq!((tap.ports.len(), tap.ports[0].link), (1, LinkId(0)));
        assert_eq!((&*tap.name, tap.mac, tap.mtu), ("lb-lan", [2; 6], 1500));
        assert_eq!(tap.vips, ["192.168.150.100", "192.168.150.103"].map(|vip| vip.parse().unwrap()));
        assert_eq!(tap.devices, ["eth0"]);
        assert_eq!(plan.longest(), 1522);
        // the other port joins
        let more = "device = \"null\"\nmtu = 1400\nexception = \"tap\"\nexception_interface = \"lb-lan\"";
        let model = lb_config::parse(&TEXT.replace("device = \"null\"", more)).unwrap();
        let links: Vec<Link> = model.ports.iter().map(link).collect();
        let plan = Plan::of(&model, &links);
        let [tap] = &plan.taps[..] else { panic!("{plan:?}") };
        let ports: Vec<_> = tap.ports.iter().map(|port| (port.link, port.networks.clone())).collect();
        let net = |text: &str| vec![text.parse::<IfAddr>().unwrap()];
        assert_eq!(ports, [(LinkId(0), net("192.168.150.11/24")), (LinkId(1), net("10.0.0.1/24"))]);
        assert_eq!((tap.mtu, tap.addresses.len(), tap.gateways.len(), tap.vips.len()), (1400, 2, 1, 2));
        assert_eq!(tap.devices, ["eth0"]);
    }
}
