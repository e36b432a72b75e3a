//! The network of a test: a client, the director's node and real servers on one switch.
//!
//! | node | IPv4 | IPv6 |
//! |---|---|---|
//! | client | 192.168.150.1 | fd00:150::1 |
//! | director (DIP) | 192.168.150.11 | fd00:150::11 |
//! | VIP | 192.168.150.100 | fd00:150::100 |
//! | server 2, 3, ... | 192.168.150.12, .13, ... | fd00:150::12, ::13, ... |
//!
//! Invariant: the director's eth0 has no address of the kernel's, so whatever answers there is lbd.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::director::Director;
use crate::netns::Netns;
use crate::process;
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
}

impl Default for Shape {
    fn default() -> Self {
        Self { servers: 2, vlan: None }
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

/// A node with a server's address and, on `lo`, the VIP.
#[derive(Debug)]
pub struct RealServer {
    /// Its namespace.
    pub netns: Netns,
    /// Its own address (RIP).
    pub address: String,
    /// Its own address in IPv6.
    pub address6: String,
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
        switch.ip("link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0")?;
        switch.ip("link set br0 up")?;
        let client = Netns::new(&format!("{prefix}-client"))?;
        let node01 = Netns::new(&format!("{prefix}-node01"))?;
        node01.run(&["sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1"])?;
        let interface = shape.vlan.map_or_else(|| "eth0".to_owned(), |tag| format!("eth0.{tag}"));
        let mut lab = Self { director: None, client, node01, servers: Vec::new(), switch, interface, dir };
        lab.plug(&lab.node01, "node01")?;
        lab.plug(&lab.client, "client")?;
        lab.address(&lab.client, shape.vlan, CLIENT, "fd00:150::1")?;
        for number in 2..2 + shape.servers {
            let server = lab.server(&format!("{prefix}-node0{number}"), number, shape.vlan)?;
            lab.servers.push(server);
        }
        Ok(lab)
    }

    /// A folder for the test's files; removed with the lab.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Connects `node`'s eth0 to the switch, where the other end is called `name`.
    fn plug(&self, node: &Netns, name: &str) -> Result<()> {
        node.ip(&format!("link add eth0 type veth peer name {name} netns {}", self.switch.name()))?;
        for (netns, interface) in [(node, "eth0"), (&self.switch, name)] {
            let argv: Vec<&str> = ["ethtool", "-K", interface].iter().chain(OFFLOADS).copied().collect();
            netns.run(&argv)?;
        }
        self.switch.ip(&format!("link set {name} master br0 up"))?;
        node.ip("link set eth0 up")?;
        let carrier = || Ok(node.run(&["cat", "/sys/class/net/eth0/operstate"])?.trim() == "up");
        wait_until(&format!("{name}'s eth0 is up"), Duration::from_secs(5), carrier)
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

    fn server(&self, name: &str, number: usize, vlan: Option<u16>) -> Result<RealServer> {
        let netns = Netns::new(name)?;
        netns.run(&[
            "sysctl",
            "-qw",
            "net.ipv4.conf.all.arp_ignore=1",
            "net.ipv4.conf.all.arp_announce=2",
        ])?;
        let address = format!("192.168.150.1{number}");
        let address6 = format!("fd00:150::1{number}");
        self.plug(&netns, &format!("node0{number}"))?;
        self.address(&netns, vlan, &address, &address6)?;
        netns.ip(&format!("addr add {VIP}/32 dev lo"))?;
        // In IPv6 the kernel never answers solicitations on one interface for an address of another.
        netns.ip(&format!("addr add {VIP6}/128 dev lo nodad"))?;
        Ok(RealServer { netns, address, address6 })
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
