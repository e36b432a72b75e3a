//! The network of a test: a client, the director's node and real servers on one switch.
//!
//! | node | IPv4 | IPv6 |
//! |---|---|---|
//! | client | 192.168.150.1 | fd00:150::1 |
//! | director (DIP) | 192.168.150.11 | fd00:150::11 |
//! | VIP | 192.168.150.100 | fd00:150::100 |
//! | server 2, 3, ... | 192.168.150.12, .13, ... | fd00:150::12, ::13, ... |
//!
//! Servers behind the director are on a switch of their own, with 160 in the place of 150; the director has .11 and
//! ::11 there, on its eth1, and is their gateway.
//!
//! Invariant: the director's eth0 has no address of the kernel's, so whatever answers there is lbd.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::director::Director;
use crate::netns::Netns;
use crate::process::{self, Process};
use crate::wait::wait_until;

/// The client's address.
pub const CLIENT: &str = "192.168.150.1";
/// The virtual address.
pub const VIP: &str = "192.168.150.100";
/// The director's own address.
pub const DIP: &str = "192.168.150.11";
/// The virtual address in IPv6.
pub const VIP6: &str = "fd00:150::100";
/// The director's own address in IPv6.
pub const DIP6: &str = "fd00:150::11";

/// The kernel's address on the director's node, see [`Lab::management`].
pub const MANAGEMENT: &str = "192.168.150.10";
/// The director's address towards servers behind it.
pub const DIP_BEHIND: &str = "192.168.160.11";
/// The same in IPv6.
pub const DIP_BEHIND6: &str = "fd00:160::11";

/// Offloads that a wire does not have: frames with a checksum to be computed, frames above the MTU.
const OFFLOADS: &[&str] = &[
    "rx", "off", "tx", "off", "sg", "off", "tso", "off", "gso", "off", "gro", "off", "rxvlan", "off",
    "txvlan", "off",
];

/// What a lab looks like.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Real servers.
    pub servers: usize,
    /// 802.1Q tag of all traffic on the switch.
    pub vlan: Option<u16>,
    /// Where the servers are.
    pub place: Place,
    /// MTU of every interface, bytes.
    pub mtu: u16,
}

/// Where the real servers are and what they do with what comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// Beside the client and the director, with the VIP on `lo`: for direct routing.
    #[default]
    Beside,
    /// The same, and they unpack ipip, gre and gue over IPv4 (`docker/lib/decapsulate.py`): for tunnels.
    BesideWithTunnels,
    /// Behind the director, which is their gateway, without the VIP: for NAT.
    Behind,
}

impl Default for Shape {
    fn default() -> Self {
        Self { servers: 2, vlan: None, place: Place::Beside, mtu: 1500 }
    }
}

/// A lab that is up; dropped, it is taken away.
#[derive(Debug)]
pub struct Lab {
    /// Running director, once it was started. Before the namespaces: it ends first.
    pub director: Option<Director>,
    /// Where the client's commands run.
    pub client: Netns,
    /// Where lbd runs.
    pub node01: Netns,
    /// Real servers, from `.12` on.
    pub servers: Vec<RealServer>,
    /// The switch `br0`, whose interfaces are named after the nodes.
    pub switch: Netns,
    /// Interface of the client and the servers that has their addresses: `eth0` or its VLAN.
    pub interface: String,
    dir: PathBuf,
}

/// A node with a server's address and, beside the director, the VIP on `lo`.
#[derive(Debug)]
pub struct RealServer {
    /// What unpacks tunnels. Before the namespace: it ends first.
    pub tunnels: Option<Process>,
    /// Its namespace.
    pub netns: Netns,
    /// Its own address (RIP).
    pub address: String,
    /// Its own address in IPv6.
    pub address6: String,
    /// Address that clients' packets have for their destination when they come: the VIP or its own.
    pub serves: String,
}

impl Lab {
    /// Makes the namespaces, the switch and the addresses.
    pub fn new(shape: Shape) -> Result<Self> {
        // Unique over the tests of this process and over processes.
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let prefix = format!("lbt{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let dir = PathBuf::from(format!("/run/sluice-{prefix}"));
        std::fs::create_dir(&dir).with_context(|| format!("create {}", dir.display()))?;
        let switch = Netns::new(&format!("{prefix}-switch"))?;
        // The machine's netfilter, where it looks at bridged frames, would drop malformed ones.
        switch.run(&[
            "sh",
            "-c",
            "for f in /proc/sys/net/bridge/bridge-nf-call-*; do ! [ -e $f ] || echo 0 >$f; done",
        ])?;
        for bridge in ["br0", "br1"] {
            switch
                .ip(&format!("link add {bridge} type bridge stp_state 0 forward_delay 0 mcast_snooping 0"))?;
            switch.ip(&format!("link set {bridge} up"))?;
        }
        let client = Netns::new(&format!("{prefix}-client"))?;
        let node01 = Netns::new(&format!("{prefix}-node01"))?;
        node01.run(&["sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1"])?;
        let interface = shape.vlan.map_or_else(|| "eth0".to_owned(), |tag| format!("eth0.{tag}"));
        let mut lab = Self { director: None, client, node01, servers: Vec::new(), switch, interface, dir };
        lab.plug(&lab.node01, "node01", ("eth0", "br0"), shape.mtu)?;
        lab.plug(&lab.client, "client", ("eth0", "br0"), shape.mtu)?;
        if shape.place == Place::Behind {
            lab.plug(&lab.node01, "node01b", ("eth1", "br1"), shape.mtu)?;
        }
        lab.address(&lab.client, shape.vlan, CLIENT, "fd00:150::1")?;
        for number in 2..2 + shape.servers {
            let server = lab.server(&format!("{prefix}-node0{number}"), number, shape)?;
            lab.servers.push(server);
        }
        Ok(lab)
    }

    /// A folder for the test's files; removed with the lab.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Connects an interface of `node` to a bridge of the switch, where the other end is called `name`.
    fn plug(&self, node: &Netns, name: &str, (interface, bridge): (&str, &str), mtu: u16) -> Result<()> {
        let switch = self.switch.name();
        node.ip(&format!(
            "link add {interface} mtu {mtu} type veth peer name {name} mtu {mtu} netns {switch}"
        ))?;
        for (netns, interface) in [(node, interface), (&self.switch, name)] {
            let argv: Vec<&str> = ["ethtool", "-K", interface].iter().chain(OFFLOADS).copied().collect();
            netns.run(&argv)?;
        }
        self.switch.ip(&format!("link set {name} master {bridge} up"))?;
        node.ip(&format!("link set {interface} up"))?;
        let state = format!("/sys/class/net/{interface}/operstate");
        let carrier = || Ok(node.run(&["cat", &state])?.trim() == "up");
        wait_until(&format!("{name}'s {interface} is up"), Duration::from_secs(5), carrier)
    }

    /// Gives the director's node an interface of the kernel's own on the clients' switch, which health checks leave by.
    pub fn management(&self) -> Result<()> {
        self.plug(&self.node01, "node01m", ("mgmt0", "br0"), 1500)?;
        self.node01.ip(&format!("addr add {MANAGEMENT}/24 dev mgmt0")).map(drop)
    }

    /// Gives a node an interface of the kernel's own on the second switch, where nothing else is unless servers are behind
    /// the director. `name`: of the other end.
    pub fn wire(&self, node: &Netns, name: &str, interface: &str) -> Result<()> {
        self.plug(node, name, (interface, "br1"), 1500)
    }

    fn address(&self, node: &Netns, vlan: Option<u16>, v4: &str, v6: &str) -> Result<()> {
        if let Some(tag) = vlan {
            node.ip(&format!("link add link eth0 name {} type vlan id {tag}", self.interface))?;
            node.ip(&format!("link set {} up", self.interface))?;
        }
        node.ip(&format!("addr add {v4}/24 dev {}", self.interface))?;
        node.ip(&format!("addr add {v6}/64 dev {} nodad", self.interface))?;
        Ok(())
    }

    fn server(&self, name: &str, number: usize, shape: Shape) -> Result<RealServer> {
        let netns = Netns::new(name)?;
        let (net, bridge) = if shape.place == Place::Behind { (160, "br1") } else { (150, "br0") };
        let address = format!("192.168.{net}.1{number}");
        let address6 = format!("fd00:{net}::1{number}");
        self.plug(&netns, &format!("node0{number}"), ("eth0", bridge), shape.mtu)?;
        if shape.place == Place::Behind {
            self.address(&netns, shape.vlan, &address, &address6)?;
            netns.ip(&format!("route add default via {DIP_BEHIND}"))?;
            netns.ip(&format!("-6 route add default via {DIP_BEHIND6}"))?;
            return Ok(RealServer { netns, serves: address.clone(), address, address6, tunnels: None });
        }
        netns.run(&[
            "sysctl",
            "-qw",
            "net.ipv4.conf.all.arp_ignore=1",
            "net.ipv4.conf.all.arp_announce=2",
        ])?;
        self.address(&netns, shape.vlan, &address, &address6)?;
        netns.ip(&format!("addr add {VIP}/32 dev lo"))?;
        // In IPv6 the kernel never answers solicitations on one interface for an address of another.
        netns.ip(&format!("addr add {VIP6}/128 dev lo nodad"))?;
        let tunnels = match shape.place {
            Place::BesideWithTunnels => Some(self.unpack(&netns)?),
            Place::Beside | Place::Behind => None,
        };
        Ok(RealServer { netns, serves: VIP.to_owned(), address, address6, tunnels })
    }

    /// Starts what unpacks tunnels in a server's namespace.
    fn unpack(&self, netns: &Netns) -> Result<Process> {
        let program = concat!(env!("CARGO_MANIFEST_DIR"), "/../docker/lib/decapsulate.py");
        let log = self.dir.join(format!("{}-tunnels.log", netns.name()));
        let process = netns.start(&["python3", "-S", "-E", program, "tun0"], &log)?;
        wait_until("tun0 is up", Duration::from_secs(5), || Ok(netns.ip("link show tun0")?.contains("UP")))
            .with_context(|| process.log())?;
        Ok(process)
    }

    /// Runs `curl` on the client.
    pub fn curl(&self, url: &str) -> Result<String> {
        Ok(self.client.run(&["curl", "-sS", "--max-time", "5", url])?.trim().to_owned())
    }

    /// The director that was started.
    pub fn director(&self) -> Result<&Director> {
        self.director.as_ref().context("this test started no director")
    }

    /// What a failed test leaves to read.
    pub fn evidence(&self) -> String {
        self.director.as_ref().map(Director::evidence).unwrap_or_default()
    }
}

/// Removes what is left of labs whose test process was killed: namespaces and folders, both named after its pid.
/// Their processes got SIGTERM when it ended ([`process::Process::start`]).
pub fn remove_stale() {
    let stale = |name: &str| -> bool {
        let pid = name.strip_prefix("lbt").and_then(|rest| rest.split('-').next());
        pid.and_then(|pid| pid.parse::<u32>().ok())
            .is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
    };
    // Best effort: what cannot be removed disturbs nobody.
    let list = process::run(&["ip", "netns", "list"]).unwrap_or_default();
    for name in list.lines().filter_map(|line| line.split_whitespace().next()).filter(|name| stale(name)) {
        let _ = process::run(&["ip", "netns", "del", name]);
    }
    for entry in std::fs::read_dir("/run").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.strip_prefix("sluice-").is_some_and(stale) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.director = None;
        // Best effort: there is nobody to tell.
        let _ = process::run(&["rm", "-rf", &self.dir.to_string_lossy()]);
    }
}
