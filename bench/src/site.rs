//! A worker in memory with a service, sixteen servers whose MAC addresses it knows, and a generator for its port.

use std::sync::Arc;

use anyhow::{Context as _, ensure};
use lb_dataplane::conn::memory::Lender;
use lb_dataplane::director::Director;
use lb_dataplane::io::DeviceId;
use lb_dataplane::memory::{Frame, MemoryIo};
use lb_dataplane::setup::DeviceSetup;
use lb_dataplane::tables::{Kind, Tables};
use lb_dataplane::worker::Worker;
use lb_dpdk::TableMemory;

use crate::frames::{
    ACK, DIRECTOR, Family, GATEWAY, LOCALS, Leg, MAC, SERVERS, SYN, SYN_ACK, VIP, introduction,
};
use crate::generator::{Generator, HOT, Order, Step};
use crate::packet::Buf;

/// Servers of the service.
const COUNT: u16 = 16;
/// Ports of a local address that are counted on, of 64512, for connections to one server.
const PORTS: u64 = 45_000;
/// Flows that are established side by side: few enough that handshakes which are not finished are a small part.
const ESTABLISHING: u64 = 1000;
/// Simulated time of a turn, ns, unless a suite says better: about what 32 packets take.
const TURN_NS: u64 = 1_000;

/// How packets are forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forwarding {
    /// Direct routing.
    Dr,
    /// Tunnel, IP in IP.
    Ipip,
    /// Tunnel, GUE.
    Gue,
    /// NAT.
    Nat,
    /// Full NAT.
    FullNat,
}

impl Forwarding {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Dr, Self::Ipip, Self::Gue, Self::Nat, Self::FullNat];

    /// As people write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dr => "DR",
            Self::Ipip => "TUN IPIP",
            Self::Gue => "TUN GUE",
            Self::Nat => "NAT",
            Self::FullNat => "full NAT",
        }
    }

    /// The leg of replies, where they pass the director.
    pub fn reply(self) -> Option<Leg> {
        match self {
            Self::Dr | Self::Ipip | Self::Gue => None,
            Self::Nat => Some(Leg::OutToClient),
            Self::FullNat => Some(Leg::OutToLocal),
        }
    }

    /// The handshake of a connection.
    fn handshake(self) -> &'static [Step] {
        match self {
            Self::Dr | Self::Ipip | Self::Gue => &[(Leg::In, SYN), (Leg::In, ACK)],
            Self::Nat => &[(Leg::In, SYN), (Leg::OutToClient, SYN_ACK), (Leg::In, ACK)],
            Self::FullNat => &[(Leg::In, SYN), (Leg::OutToLocal, SYN_ACK), (Leg::In, ACK)],
        }
    }
}

/// What a site is to be.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How packets are forwarded.
    pub forwarding: Forwarding,
    /// Family of clients, VIP and servers.
    pub family: Family,
    /// Connections that there is room for.
    pub connections: u64,
    /// More of the configuration, after the tables that are there.
    pub more: String,
    /// From which share of half-open connections on SYNs are a flood, percent; 0: never.
    pub syn_flood: u8,
    /// Room for more connections than `connections`.
    pub spare: u64,
    /// When clients have to prove that they are there: "off", "auto" or "always".
    pub syn_proxy: &'static str,
    /// More of its `[limits]`.
    pub limits: String,
    /// The service's scheduler.
    pub scheduler: &'static str,
    /// Hosts from [`SERVERS`] on that tell their MAC addresses; those beyond the service's servers must be others'.
    pub hosts: u16,
}

impl Plan {
    /// A site with room for so many connections.
    pub fn new(forwarding: Forwarding, family: Family, connections: u64) -> Self {
        Self {
            forwarding,
            family,
            connections,
            more: String::new(),
            syn_flood: 0,
            spare: 0,
            syn_proxy: "off",
            limits: String::new(),
            scheduler: "rr",
            hosts: COUNT,
        }
    }

    /// Its configuration.
    pub fn config(&self) -> String {
        let host = |host: u16| format!("\"{}\"", self.family.host(host));
        let list = |first: u16, count: u16| (first..first + count).map(host).collect::<Vec<_>>().join(", ");
        let prefix = if self.family == Family::V4 { 16 } else { 64 };
        let forwarding = match self.forwarding {
            Forwarding::Dr => "forwarding = \"dr\"".to_owned(),
            Forwarding::Ipip => "forwarding = \"tunnel\"\ntunnel = { type = \"ipip\" }".to_owned(),
            Forwarding::Gue => "forwarding = \"tunnel\"\ntunnel = { type = \"gue\", port = 6080 }".to_owned(),
            Forwarding::Nat => "forwarding = \"nat\"".to_owned(),
            Forwarding::FullNat => {
                let locals = self.connections.div_ceil(u64::from(COUNT)).div_ceil(PORTS).clamp(1, 200) as u16;
                format!("forwarding = \"fullnat\"\nlocal_addresses = [{}]", list(LOCALS, locals))
            }
        };
        let servers = (SERVERS..SERVERS + COUNT).map(|server| format!("{{ address = {} }}", host(server)));
        format!(
            r#"
            [appliance]
            workers = [0]
            [limits]
            max_connections = {max}
            {limits}
            [policy]
            syn_flood = {syn_flood}
            [[ports]]
            name = "lan"
            device = "null"
            addresses = ["{director}/{prefix}"]
            gateway = {gateway}
            {more}
            [[services]]
            name = "web"
            vip = {vip}
            port = 80
            protocol = "tcp"
            scheduler = "{scheduler}"
            {forwarding}
            policy.syn_proxy = "{syn_proxy}"
            servers = [{servers}]
            "#,
            max = (self.connections + self.spare).max(1024),
            syn_flood = self.syn_flood,
            syn_proxy = self.syn_proxy,
            director = self.family.host(DIRECTOR),
            gateway = host(GATEWAY),
            vip = host(VIP),
            more = self.more,
            limits = self.limits,
            scheduler = self.scheduler,
            servers = servers.collect::<Vec<_>>().join(", ")
        )
    }
}

/// Simulated time at which sites begin, ns.
pub const BEGIN_NS: u64 = 2_000_000;

/// A director and its worker, whose neighbours have introduced themselves; it is to go on with other ports at
/// [`BEGIN_NS`].
pub fn introduced(plan: &Plan) -> anyhow::Result<(Director, Worker<MemoryIo>)> {
    let model = lb_config::parse(&plan.config()).context("the bench's configuration")?;
    let (mut director, mut seeds) = Director::new(&model, vec![DeviceSetup { mac: MAC, rss: true }])?;
    let seed = seeds.pop().context("a worker")?;
    // the neighbours are resolved in memory first
    let mut ports = MemoryIo::for_workers(1, 1);
    let lender: Arc<dyn Lender> = TableMemory::new();
    let used = |kind| match kind {
        Kind::V4 => plan.family == Family::V4,
        Kind::V6 => plan.family == Family::V6,
        Kind::Pairs4 => plan.family == Family::V4 && plan.forwarding.reply().is_some(),
        Kind::Pairs6 => plan.family == Family::V6 && plan.forwarding.reply().is_some(),
    };
    let tables = Tables::for_workers(1, seed.setup.connections_per_worker, used, &lender)?;
    let tables = tables.into_iter().next().context("a worker's tables")?;
    let mut worker = Worker::with_tables(seed, ports.remove(0), tables);
    for host in (SERVERS..SERVERS + plan.hosts).chain([GATEWAY]) {
        let frame = Frame::new(DeviceId(0), &introduction(plan.family, host));
        worker.io_mut().receive[0].push_back(frame);
    }
    director.poll(0);
    while !worker.io_mut().receive[0].is_empty() {
        worker.turn(1_000_000);
    }
    director.poll(1);
    Ok((director, worker))
}

/// A worker with its service.
pub struct Site {
    /// The control core's side.
    pub director: Director,
    /// The packet path's.
    pub worker: Worker<Generator>,
    plan: Plan,
    now_ns: u64,
    turn_ns: u64,
}

impl Site {
    /// A site without connections, with these buffers.
    pub fn empty(plan: Plan, buffers: Vec<Buf>) -> anyhow::Result<Self> {
        let (director, worker) = introduced(&plan)?;
        let worker = worker.with_io(Generator::new(plan.family, buffers));
        Ok(Self { director, worker, plan, now_ns: BEGIN_NS, turn_ns: TURN_NS })
    }

    /// A site that knows all its connections as established, in [`HOT`] of these buffers or more.
    pub fn established(plan: Plan, buffers: Vec<Buf>) -> anyhow::Result<Self> {
        ensure!(buffers.len() == HOT, "flows are established with {HOT} buffers");
        let flows = plan.connections;
        let steps = plan.forwarding.handshake();
        let mut site = Self::empty(plan, buffers)?;
        if site.plan.forwarding.reply().is_some() {
            site.io().learn_all(flows);
        }
        site.io().begin(Order::Lives { flows, block: ESTABLISHING, steps });
        site.pass(flows * steps.len() as u64);
        site.check(flows)?;
        Ok(site)
    }

    /// The generator.
    pub fn io(&mut self) -> &mut Generator {
        self.worker.io_mut()
    }

    /// Lets a turn take so much simulated time, ns. Time is simulated, as a worker that is interrupted would else find
    /// connections timed out between two of their packets.
    pub fn pace(&mut self, turn_ns: u64) {
        self.turn_ns = turn_ns;
    }

    /// Simulated time, ns.
    pub fn now_ns(&self) -> u64 {
        self.now_ns
    }

    /// Works until the generator has no more of the next `packets` frames, or no more buffers because frames were kept or
    /// dropped, which the census will find.
    pub fn pass(&mut self, packets: u64) {
        self.io().offer(packets);
        while self.worker.io_mut().left() > 0 {
            self.now_ns += self.turn_ns;
            if self.worker.turn(self.now_ns) == 0 {
                return;
            }
        }
    }

    /// Lets all connections time out.
    ///
    /// Errors: some do not.
    pub fn idle_until_empty(&mut self) -> anyhow::Result<()> {
        // up to 5000 s in small steps: a worker that sleeps through 12 minutes takes what ended for what has just begun
        for _ in 0..100_000 {
            self.now_ns += 50_000_000;
            self.worker.turn(self.now_ns);
            if self.director.workers()[0].connections == 0 {
                return Ok(());
            }
        }
        anyhow::bail!("{} connections do not time out", self.director.workers()[0].connections)
    }

    /// The census: there are that many connections, and every frame was sent on.
    pub fn check(&mut self, connections: u64) -> anyhow::Result<()> {
        self.check_passed()?;
        let known = self.director.workers()[0].connections;
        ensure!(known == connections, "{known} connections instead of {connections}");
        Ok(())
    }

    /// Every frame was sent on.
    pub fn check_passed(&mut self) -> anyhow::Result<()> {
        let dropped: Vec<_> = self.director.drops().into_iter().filter(|(_, count)| *count > 0).collect();
        ensure!(dropped.is_empty(), "packets were dropped: {dropped:?}");
        let (totals, sent) = (self.director.totals(), self.io().sent());
        ensure!(totals.held == 0, "{} frames were kept", totals.held);
        // what introduced the neighbours was received, and not sent on
        let received = totals.rx - totals.delivered;
        ensure!(received == sent, "{received} frames received and {sent} sent");
        Ok(())
    }

    /// Takes the site down; its buffers are of use for another.
    pub fn into_buffers(mut self) -> Vec<Buf> {
        self.io().swap_buffers(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_forwarding_passes_all_packets_both_ways() {
        let mut buffers = Buf::pool(HOT);
        for family in [Family::V4, Family::V6] {
            for forwarding in Forwarding::ALL {
                let what = format!("{} {}", forwarding.name(), family.name());
                let mut site = Site::established(Plan::new(forwarding, family, 3000), buffers).expect(&what);
                for leg in [Some(Leg::In), forwarding.reply()].into_iter().flatten() {
                    site.io().begin(Order::Round { flows: 3000, step: (leg, ACK) });
                    site.pass(10_000);
                    site.check(3000).expect(&what);
                }
                site.idle_until_empty().expect(&what);
                buffers = site.into_buffers();
                assert_eq!(buffers.len(), HOT, "{what}");
            }
        }
    }

    #[test]
    fn dropped_frames_end_the_work_and_the_census_finds_them() {
        let mut site =
            Site::empty(Plan::new(Forwarding::Dr, Family::V4, 1024), Buf::pool(HOT)).expect("a site");
        // an ACK of a connection that nobody knows
        site.io().begin(Order::Round { flows: 1024, step: (Leg::In, ACK) });
        site.pass(10_000);
        let error = site.check(0).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains("dropped") && error.contains("NoConnection"), "{error}");
    }

    #[test]
    fn tables_that_a_site_does_not_use_take_no_memory() {
        let pages = || {
            let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
            text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0)
        };
        let before = pages();
        let plan = Plan::new(Forwarding::Dr, Family::V4, 10_000_000);
        let site = Site::empty(plan, Buf::pool(HOT)).expect("a site");
        // its own table takes 280 MiB, all of them 4 GiB; other tests take some MiB meanwhile
        let grown = pages().saturating_sub(before) * 4096;
        assert!(grown < 1 << 30, "{} MiB for {} workers", grown >> 20, site.director.workers().len());
    }
}
