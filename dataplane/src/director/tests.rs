//! A director that went from one configuration to the next knows what one does that began with the last.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use lb_config::{Forwarding, Model, Persistence, Scheduler, Server, Service, edit};
use proptest::prelude::*;

use super::Director;
use crate::setup::DeviceSetup;
use crate::snapshot::{DestEntry, Snapshot, Way};

const BASE: &str = r#"
[appliance]
workers = [0]
cluster_secret = "0123456789abcdef"
[limits]
max_connections = 1024
max_servers = 400
[[ports]]
name = "lan"
device = "null"
addresses = ["192.168.150.11/24", "192.168.151.11/24"]
gateway = "192.168.150.254"
[[ports]]
name = "wan"
device = "null"
vlan = 7
addresses = ["192.168.152.11/24"]
"#;

/// A service, as few numbers.
#[derive(Clone, Debug)]
struct Sketch {
    scheduler: &'static str,
    forwarding: &'static str,
    persistent: Option<u8>,
    timeout: bool,
    range: bool,
    local: u8,
    servers: Vec<(u8, u32)>,
}

fn sketch() -> impl Strategy<Value = Sketch> {
    let scheduler = prop::sample::select(vec!["rr", "wrr", "lblc", "sh", "mh", "wlc"]);
    let forwarding = prop::sample::select(vec!["dr", "nat", "tunnel", "tunnel:gre", "fullnat"]);
    let servers = prop::collection::btree_map(0..9u8, 0..3u32, 0..5);
    (scheduler, forwarding, prop::option::of(24..26u8), any::<bool>(), any::<bool>(), 0..3u8, servers)
        .prop_map(|(scheduler, forwarding, persistent, timeout, range, local, servers)| Sketch {
            scheduler,
            forwarding,
            persistent,
            timeout,
            range,
            local,
            servers: servers.into_iter().collect(),
        })
}

impl Sketch {
    fn service(&self, at: u8) -> Service {
        let address = match self.range {
            true => format!("10.9.{at}.0/28:80-{}/tcp", 90 + u16::from(self.local)),
            // two services of each VIP
            false => format!("192.168.15{}.{}:{}/tcp", at % 2, 100 + at / 4, 80 + at),
        };
        let forwarding: Forwarding = self.forwarding.parse().unwrap();
        let port = if self.range { 0 } else { 80 + u16::from(at) };
        let server = |(host, weight): &(u8, u32)| {
            // one in three is behind the gateway
            let address = match (host % 3, self.forwarding) {
                (0, _) | (_, "dr") => IpAddr::from([192, 168, 150 + host % 2, 20 + host]),
                (1, _) => IpAddr::from([192, 168, 152, 20 + host]),
                (_, _) => IpAddr::from([172, 16, 0, *host]),
            };
            Server { weight: *weight, ..Server::new(address, port, forwarding) }
        };
        let mut service = Service {
            scheduler: Scheduler::from_name(self.scheduler).unwrap(),
            forwarding,
            servers: self.servers.iter().map(server).collect(),
            ..Service::new(format!("s{at}"), address.parse().unwrap())
        };
        service.persistence =
            self.persistent.map(|prefix_len| Persistence { timeout: Duration::from_secs(60), prefix_len });
        service.timeouts.tcp_fin_wait = self.timeout.then_some(Duration::from_secs(5));
        if service.has_full_nat() {
            service.local_addresses = vec![IpAddr::from([192, 168, 151, 200 + self.local])];
        }
        service
    }
}

/// One step: services that become others (or none), and settings of the director.
type Step = (BTreeMap<u8, Option<Sketch>>, bool, bool);

fn step() -> impl Strategy<Value = Step> {
    let some = prop::collection::btree_map(0..8u8, prop::option::weighted(0.7, sketch()), 0..4);
    (some, prop::bool::weighted(0.2), prop::bool::weighted(0.2))
}

fn after(model: &Model, (services, df, udp): &Step) -> Model {
    let mut model = model.clone();
    for (at, sketch) in services {
        let name = format!("s{at}");
        let found = model.services.iter().position(|service| service.name == name);
        match (found, sketch) {
            (Some(found), Some(sketch)) => model.services[found] = sketch.service(*at),
            (Some(found), None) => drop(model.services.remove(found)),
            (None, Some(sketch)) => model.services.push(sketch.service(*at)),
            (None, None) => {}
        }
    }
    model.policy.pmtu_disc ^= *df;
    model.timeouts.udp += Duration::from_secs(u64::from(*udp));
    model
}

fn director(model: &Model) -> Director {
    let devices = vec![DeviceSetup { mac: [2; 6], rss: true }];
    Director::new(model, devices).expect("a director").0
}

/// The worker takes up what is published, and removed destinations go.
fn settle(director: &mut Director, now_ms: &mut u64) {
    for _ in 0..4 {
        director.counters[0].own.generation.set(director.generation());
        *now_ms += 1000;
        director.poll(*now_ms);
    }
}

/// What a destination is, whatever its indices.
fn described(snapshot: &Snapshot, entry: &DestEntry) -> String {
    let hop = snapshot.neighbors.iter().find(|(_, id)| **id == entry.neighbor).map(|(at, _)| *at);
    let way = match entry.way {
        Way::Tunnel(at) => format!("{:?}", snapshot.tunnels[usize::from(at)]),
        Way::FullNat(at) => format!("{:?}", snapshot.local_ends[usize::from(at)]),
        way => format!("{way:?}"),
    };
    let DestEntry { position, device, vlan, mtu, mac, removed, draining, port, address, .. } = *entry;
    let rule = snapshot.rules.get(usize::from(entry.rule)).map(|rule| rule.scope);
    let timeouts = &snapshot.timeouts[usize::from(entry.timeouts)];
    let policy = &snapshot.policies[usize::from(entry.policy)];
    format!(
        "{address}:{port} {position} {device:?} {vlan} {mtu} {mac:?} {removed} {draining} {hop:?} {way} {rule:?} \
         {timeouts:?} {policy:?}"
    )
}

/// All that workers are told, whatever the indices, in an order of its own.
fn told(director: &Director) -> Vec<String> {
    let snapshot = &director.running;
    let mut all = Vec::new();
    for service in &director.model.services {
        let record = &director.registry.services[&service.address];
        let entry = &record.entry;
        let candidates = entry.candidates.iter().map(|candidate| {
            let entry = snapshot.dest(candidate.dest).expect("the entry of a candidate");
            assert_eq!(entry.service, record.id);
            format!("{} {}", candidate.weight, described(snapshot, entry))
        });
        all.push(format!("{} {:?} {:?}", service.name, entry.policy, candidates.collect::<Vec<_>>()));
        let (vip, port) = match service.address {
            lb_config::ServiceAddress::Vip { vip, port, .. } => (vip, port),
            lb_config::ServiceAddress::Range { vips, ports, .. } => (vips.network(), ports.last()),
            lb_config::ServiceAddress::Mark { .. } => unreachable!(),
        };
        let packet = crate::classify::Lookup {
            src: IpAddr::from([8, 8, 8, 8]),
            dst: vip,
            src_port: 1,
            dst_port: port,
            protocol: crate::parse::L4::Tcp,
            device: crate::io::DeviceId(0),
            vlan: 0,
        };
        assert!(std::sync::Arc::ptr_eq(snapshot.services.find(&packet).expect("a service"), entry));
        assert!(snapshot.is_ours(vip));
    }
    let entries = snapshot.dests.iter().flatten().map(|entry| described(snapshot, entry));
    all.extend(entries.map(|entry| format!("dest {entry}")));
    all.extend(snapshot.nat_servers.iter().map(|server| format!("nat {server:?}")));
    all.extend(snapshot.neighbors.iter().map(|(at, _)| format!("hop {at:?}")));
    all.extend(snapshot.local.iter().map(|local| format!("local {local:?}")));
    all.extend(snapshot.translated.iter().map(|(address, _)| format!("translated {address}")));
    all.extend(director.book.rows(0).iter().map(|row| format!("book {:?} {}", row.link, row.ip)));
    all.extend(director.tables.census().map(|(what, count)| format!("{count} {what}")));
    all.sort();
    all
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    #[cfg_attr(miri, ignore = "too much")]
    fn changes_lead_to_what_a_start_leads_to(steps in prop::collection::vec(step(), 1..12)) {
        let mut model = lb_config::parse(BASE).expect("the base");
        let (mut changed, mut now_ms) = (director(&model), 0);
        let mut applied = 0;
        for step in &steps {
            let next = after(&model, step);
            let valid = edit::validate(&next);
            prop_assert_eq!(edit::validate_change(&model, &next), valid.clone());
            if valid.is_err() {
                continue;
            }
            changed.apply(&next).expect("a valid model");
            applied += 1;
            model = next;
            // not always: what is removed may come back before it is gone
            if applied % 3 == 0 {
                settle(&mut changed, &mut now_ms);
            }
        }
        settle(&mut changed, &mut now_ms);
        let mut fresh = director(&model);
        settle(&mut fresh, &mut 0);
        prop_assert_eq!(told(&changed), told(&fresh));
    }
}

#[test]
fn a_change_leaves_the_pages_and_services_of_others_alone() {
    let mut model = lb_config::parse(BASE).expect("the base");
    let sketch = Sketch {
        scheduler: "rr",
        forwarding: "dr",
        persistent: None,
        timeout: false,
        range: false,
        local: 0,
        servers: vec![(0, 1), (3, 1), (6, 1)],
    };
    (0..8).for_each(|at| model.services.push(sketch.service(at)));
    let mut director = director(&model);
    let before = director.running.clone();
    model.services[3].servers[1].weight = 2;
    director.apply(&model).expect("a valid model");
    let find = |snapshot: &Snapshot, name: usize| {
        let address = &model.services[name].address;
        director.registry.services[address].id
            == snapshot
                .dest(director.registry.services[address].entry.candidates[0].dest)
                .expect("a destination")
                .service
    };
    assert!((0..8).all(|at| find(&before, at) && find(&director.running, at)));
    let entries = |snapshot: &Snapshot| snapshot.dests.iter().flatten().copied().collect::<Vec<_>>();
    assert_eq!(
        entries(&before),
        entries(&director.running),
        "a weight is the scheduler's, not the destination's"
    );
    assert!(std::sync::Arc::ptr_eq(&before.timeouts, &director.running.timeouts));
}

/// A director that had so many servers, of which all are removed; the worker has seen that.
fn emptied(servers: u32) -> Director {
    let base = BASE.replace("max_servers = 400", "max_servers = 8000");
    let model = lb_config::parse(&base).expect("the base");
    let mut full = model.clone();
    for at in 0..servers.div_ceil(100) {
        let name = format!("s{at}");
        let mut service = Service::new(name, format!("10.9.{at}.1:80/tcp").parse().expect("an address"));
        service.forwarding = Forwarding::Nat;
        let server = |n: u32| Server::new(IpAddr::from([10, 10, at as u8, n as u8]), 80, Forwarding::Nat);
        service.servers = (0..100).map(server).collect();
        full.services.push(service);
    }
    let mut director = director(&full);
    director.apply(&model).expect("a valid model");
    director.counters[0].own.generation.set(director.generation());
    director
}

#[test]
fn a_poll_lets_go_of_so_many_removed_servers_and_not_more() {
    let mut director = emptied(3000);
    let before = director.generation();
    let mut left = vec![director.registry.removed.len()];
    for poll in 0..4 {
        director.poll(1000 + poll * 100);
        left.push(director.registry.removed.len());
    }
    assert_eq!(left, [3000, 1976, 952, 0, 0]);
    assert_eq!(director.generation(), before + 1, "one snapshot shows all of it");
    assert_eq!(director.running.dests.iter().flatten().count(), 0);
    assert!(director.running.nat_servers.is_empty());
}

#[test]
fn those_with_connections_stay_until_the_round_after_their_last() {
    let mut director = emptied(3000);
    let busy = [0usize, 1500, 2999];
    busy.iter().for_each(|dest| director.counters[0].dests[*dest].total.up());
    (0..4).for_each(|poll| drop(director.poll(1000 + poll * 100)));
    let left: Vec<usize> = director.registry.removed.iter().map(|dest| dest.0 as usize).collect();
    assert_eq!(left, busy);
    busy.iter().for_each(|dest| director.counters[0].dests[*dest].total.down());
    director.poll(1500);
    assert_eq!(director.registry.removed.len(), 3, "the next round begins a second after this one");
    director.poll(2000);
    assert_eq!(director.registry.removed.len(), 0);
    // the indices are free when the worker has seen it
    director.counters[0].own.generation.set(director.generation());
    director.poll(2100);
    let mut model = director.model().clone();
    let mut service = Service::new("new".to_owned(), "10.9.0.1:80/tcp".parse().expect("an address"));
    service.forwarding = Forwarding::Nat;
    service.servers = vec![Server::new(IpAddr::from([10, 10, 0, 1]), 80, Forwarding::Nat)];
    model.services.push(service);
    director.apply(&model).expect("a valid model");
    let dests: Vec<_> =
        director.running.dests.iter().enumerate().filter(|(_, entry)| entry.is_some()).collect();
    assert!(dests.len() == 1 && dests[0].0 < 3000, "an index that was used before");
}

#[test]
fn announcements_wait_for_room_and_new_addresses_come_before_repetitions() {
    let mut director = director(&lb_config::parse(BASE).expect("the base"));
    let sent = |director: &Director| std::iter::from_fn(|| director.mailboxes[0].next_mail()).count();
    (0..60).for_each(|poll| {
        director.poll(poll * 100);
        sent(&director);
    });
    let mut model = director.model().clone();
    for at in 0..700u32 {
        let address = format!("10.9.{}.{}:80/tcp", at / 250, at % 250 + 1);
        model.services.push(Service::new(format!("s{at}"), address.parse().expect("an address")));
    }
    director.apply(&model).expect("a valid model");
    // twice each: such a VIP is on both links
    let counts: Vec<usize> = (0..60)
        .map(|poll| {
            director.poll(10_000 + poll * 100);
            sent(&director)
        })
        .collect();
    // a probe may be among them
    for (count, expected) in counts.iter().zip([512, 512, 376, 0]) {
        assert!((expected..=expected + 8).contains(count), "{counts:?}");
    }
    assert!(counts.iter().all(|count| *count <= 512 + 8));
    let probes = counts.iter().sum::<usize>() - 3 * 1400;
    assert!(probes < 60, "each of them three times, and a probe of the gateway now and then: {counts:?}");
}
