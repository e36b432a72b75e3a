//! First packets among those of known connections while frames pile up: who is dropped, and what becomes of the others.

use std::collections::{BTreeMap, BTreeSet};

use lb_dataplane::DropReason;
use proptest::prelude::*;

use crate::frames::{ACK, DIRECTOR, SYN, from_client, icmp6, server_mac, tcp, udp};
use crate::lab::{BASE, Lab};

/// Every way that a connection's packets go, both families; servers .12 to .20.
const SERVICES: &str = r#"
[[services]]
name = "dr"
vip = "192.168.150.100"
port = 80
forwarding = "dr"
servers = [{ address = "192.168.150.12" }, { address = "192.168.150.13" }]
[[services]]
name = "dns"
vip = "192.168.150.100"
port = 53
protocol = "udp"
forwarding = "dr"
servers = [{ address = "192.168.150.14" }, { address = "192.168.150.15" }]
[[services]]
name = "six"
vip = "fd00:150::100"
port = 80
forwarding = "dr"
servers = [{ address = "fd00:150::12" }]
[[services]]
name = "tunnel"
vip = "192.168.150.101"
port = 80
forwarding = "tunnel"
servers = [{ address = "192.168.150.16" }]
"#;

/// With servers whose replies pass the director.
const REPLIES: &str = r#"
[[services]]
name = "nat"
vip = "192.168.150.102"
port = 80
forwarding = "nat"
servers = [{ address = "192.168.150.17" }, { address = "192.168.150.18" }]
[[services]]
name = "full"
vip = "192.168.150.103"
port = 80
forwarding = "fullnat"
local_addresses = ["192.168.150.11"]
servers = [{ address = "192.168.150.19" }, { address = "192.168.150.20" }]
"#;

/// Established connections of each service.
const KNOWN: u32 = 40;
/// First client that has none.
const STRANGER: u32 = 100_000;

#[derive(Clone, Copy, Debug)]
enum Service {
    Dr,
    Dns,
    Six,
    Tunnel,
    Nat,
    Full,
}

/// Frames of clients, each of which tells its client and how many the client sent before, in its last eight bytes.
#[derive(Default)]
struct Clients(BTreeMap<u32, u32>);

impl Clients {
    fn frame(&mut self, service: Service, client: u32, flags: u8) -> Vec<u8> {
        let sent = self.0.entry(client).or_default();
        let port = 1024 + (client >> 14) as u16;
        let (from4, from6) = (
            format!("10.9.{}.{}", client >> 7 & 127, client & 127),
            format!("2001:db8::{:x}", client & 0x3fff),
        );
        let mut frame = match service {
            Service::Dns => from_client(&from4, "192.168.150.100", 17, &udp(port, 53, 20)),
            Service::Six => from_client(&from6, "fd00:150::100", 6, &tcp(port, 80, flags, 8)),
            Service::Dr | Service::Tunnel | Service::Nat | Service::Full => {
                let vip = match service {
                    Service::Dr => 100,
                    Service::Tunnel => 101,
                    Service::Nat => 102,
                    _ => 103,
                };
                from_client(&from4, &format!("192.168.150.{vip}"), 6, &tcp(port, 80, flags, 8))
            }
        };
        let tail = frame.len() - 8;
        frame[tail..tail + 4].copy_from_slice(&client.to_be_bytes());
        frame[tail + 4..].copy_from_slice(&sent.to_be_bytes());
        *sent += 1;
        frame
    }
}

/// Client and number of what was sent on.
fn told(frame: &[u8]) -> (u32, u32) {
    let word = |at: usize| u32::from_be_bytes(frame[at..at + 4].try_into().expect("four bytes"));
    (word(frame.len() - 8), word(frame.len() - 4))
}

/// IPv4 with an option that does nothing: a frame that is not plain.
fn with_option(frame: &[u8]) -> Vec<u8> {
    let mut frame = [&frame[..34], &[1, 1, 1, 1], &frame[34..]].concat();
    frame[14] = 0x46;
    let len = u16::from_be_bytes([frame[16], frame[17]]) + 4;
    frame[16..18].copy_from_slice(&len.to_be_bytes());
    frame[24..26].fill(0);
    let sum = crate::frames::checksum(&frame[14..38]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame
}

fn lab(replies: bool, workers: u16) -> Lab {
    let more = if replies { REPLIES } else { "" };
    let mut lab = Lab::warm_of(&format!("{BASE}{SERVICES}{more}\n[policy]\nsyn_flood = 0\n"), workers);
    let (server, own) =
        ("fd00:150::12".parse().expect("an address"), "fd00:150::11".parse().expect("an address"));
    let mut advert = vec![136, 0, 0, 0, 0x60, 0, 0, 0];
    advert.extend(std::net::Ipv6Addr::octets(&server));
    advert.extend([2, 1]);
    advert.extend(server_mac(12));
    let packet = crate::frames::ipv6(server, own, 58, 255, &icmp6(server, own, advert));
    lab.pass(&crate::frames::ethernet(DIRECTOR, server_mac(12), 0x86dd, &packet));
    lab
}

/// What one burst after the other consists of.
#[derive(Clone, Debug)]
struct Mix {
    /// Of 16 frames so many are of known connections.
    known: u32,
    replies: bool,
    workers: u16,
    seed: u64,
}

fn mixes() -> impl Strategy<Value = Mix> {
    (1..16u32, any::<bool>(), 1..3u16, any::<u64>()).prop_map(|(known, replies, workers, seed)| Mix {
        known,
        replies,
        workers,
        seed,
    })
}

/// Puts `count` frames into the queue; gives those that are of known connections.
fn fill(lab: &mut Lab, clients: &mut Clients, mix: &Mix, count: u32) -> BTreeSet<(u32, u32)> {
    let services = [Service::Dr, Service::Dns, Service::Six, Service::Tunnel, Service::Nat, Service::Full];
    let services = &services[..if mix.replies { 6 } else { 4 }];
    let mut state = mix.seed | 1;
    let mut draw = |below: u32| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) % u64::from(below)) as u32
    };
    let mut known = BTreeSet::new();
    let mut new = STRANGER;
    for _ in 0..count {
        let at = draw(services.len() as u32);
        let service = services[at as usize];
        let frame = if draw(16) < mix.known {
            let frame = clients.frame(service, at * KNOWN + draw(KNOWN), ACK);
            known.insert(told(&frame));
            if draw(32) == 0 && frame[14] == 0x45 { with_option(&frame) } else { frame }
        } else {
            // now and then one that came before, soon after or later
            let back = if draw(4) == 0 { 1 + draw(40) } else { 0 };
            let client = if back > 0 { new.saturating_sub(back).max(STRANGER) } else { new };
            new += u32::from(back == 0);
            let service = services[(client % services.len() as u32) as usize];
            // a second SYN is a first packet again
            clients.frame(service, client, if back > 0 || draw(8) == 0 { ACK } else { SYN })
        };
        lab.put(&frame);
    }
    known
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn no_packet_of_a_connection_is_shed_and_each_connections_come_in_order(mix in mixes()) {
        let mut lab = lab(mix.replies, mix.workers);
        let mut clients = Clients::default();
        let services = [Service::Dr, Service::Dns, Service::Six, Service::Tunnel, Service::Nat, Service::Full];
        for (at, service) in services.into_iter().enumerate().take(if mix.replies { 6 } else { 4 }) {
            for client in 0..KNOWN {
                for flags in [SYN, ACK] {
                    lab.put(&clients.frame(service, at as u32 * KNOWN + client, flags));
                }
            }
            (0..20).for_each(|_| lab.turn());
        }
        lab.clear();
        let before_drops: u64 = lab.drops().iter().map(|(_, n)| n).sum();
        let before = lab.connections().len();

        lab.workers.iter_mut().for_each(|worker| worker.io_mut().tells_backlog = true);
        let count = 4000;
        let known = fill(&mut lab, &mut clients, &mix, count);
        (0..count / 16).for_each(|_| lab.turn());
        // a stranger's ACK may be answered, by way of the gateway
        let mut sent = lab.sent();
        sent.retain(|frame| frame[5] <= 20);
        let sent: Vec<_> = sent.iter().map(|frame| told(frame)).collect();
        let shed = lab.dropped(DropReason::Overload);
        let dropped = lab.drops().iter().map(|(_, n)| n).sum::<u64>() - before_drops;
        prop_assert_eq!(sent.len() as u64 + dropped, u64::from(count), "{:?}", lab.drops());
        prop_assert!(mix.known > 12 || shed > 100, "{} of {}", shed, count);

        // each connection's come in order, and once a flow has one all of it come
        let mut last: BTreeMap<u32, u32> = BTreeMap::new();
        for (client, n) in &sent {
            if let Some(last) = last.insert(*client, *n) {
                prop_assert_eq!(*n, last + 1, "client {} lost some or got them late", client);
            }
        }
        for (client, last) in &last {
            prop_assert_eq!(last + 1, clients.0[client], "of client {}", client);
        }
        let sent: BTreeSet<_> = sent.into_iter().collect();
        prop_assert!(known.is_subset(&sent), "{:?}", known.difference(&sent).take(5).collect::<Vec<_>>());
        prop_assert!(lab.connections().len() >= before);
        let totals = lab.director.totals();
        prop_assert_eq!(totals.rx + totals.originated, totals.tx + totals.delivered + totals.dropped + totals.held);
    }
}

#[test]
fn what_the_kernel_must_get_is_never_shed() {
    let text = format!(
        "{BASE}exception = \"tap\"\nexception_rate = 1000000\n\n{SERVICES}\n[policy]\nsyn_flood = 0\n"
    );
    let mut lab = Lab::warm_of(&text, 1);
    lab.workers[0].io_mut().tells_backlog = true;
    let mut clients = Clients::default();
    let bgp = 400;
    for n in 0..bgp {
        (0..10).for_each(|k| lab.put(&clients.frame(Service::Dr, STRANGER + 10 * n + k, SYN)));
        lab.put(&from_client("192.168.150.1", "192.168.150.11", 6, &tcp(2000 + n as u16, 179, SYN, 0)));
    }
    (0..11 * bgp / 32 + 40).for_each(|_| lab.turn());
    let sent = lab.sent().len() as u64;
    let shed = lab.dropped(DropReason::Overload);
    assert!(shed > 2000, "{shed}");
    assert_eq!(sent + shed, u64::from(10 * bgp), "no SYN to the kernel is among those: {:?}", lab.drops());
}
