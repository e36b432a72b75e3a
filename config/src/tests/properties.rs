//! Properties: writing and reading is the identity, no text makes the parser panic, the diff sees every change.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;
use proptest::{option, sample};

use crate::edit::validate;
use crate::*;

const EXAMPLE: &str = include_str!("../../example.toml");

fn name(max: usize) -> impl Strategy<Value = String> {
    proptest::string::string_regex(&format!("[A-Za-z0-9._-]{{1,{max}}}")).unwrap()
}

fn timeout() -> impl Strategy<Value = Duration> {
    let ms = bounds::MIN_TIMEOUT.as_millis() as u64..=bounds::MAX_TIMEOUT.as_millis() as u64;
    prop_oneof![ms.prop_map(Duration::from_millis), (1..=64_800_u64).prop_map(Duration::from_secs)]
}

fn within(bounds: bounds::Bounds) -> impl Strategy<Value = u32> {
    prop_oneof![bounds.min..=bounds.max, Just(bounds.min), Just(bounds.max)]
}

fn appliance() -> impl Strategy<Value = Appliance> {
    let text = || "[^\\u{0}]{16,40}";
    (
        (name(32), btree_set(0..1024_u16, 1..8), option::of(0..1024_u16), any::<bool>(), any::<bool>()),
        (within(bounds::MEMORY_MIB), "/[a-z \"\\\\é]{1,30}", option::of("[a-z]{1,32}"), option::of(text())),
        sample::select(vec![HugePages::None, HugePages::Size2M, HugePages::Size1G]),
    )
        .prop_map(
            |(
                (name, workers, control_cpu, spin, public),
                (memory_mib, socket, group, secret),
                huge_pages,
            )| {
                Appliance {
                    name,
                    workers: workers.into_iter().rev().collect(),
                    control_cpu,
                    huge_pages,
                    memory_mib,
                    idle: if spin { Idle::Spin } else { Idle::Adaptive },
                    socket: PathBuf::from(socket),
                    socket_group: group,
                    socket_public_read: public,
                    cluster_secret: secret,
                }
            },
        )
}

fn limits() -> impl Strategy<Value = Limits> {
    (
        within(bounds::MAX_CONNECTIONS),
        16..=65_536_u32,
        256..=1_048_576_u32,
        1..=4096_u16,
        within(bounds::MBUFS),
    )
        .prop_map(|(max_connections, max_services, max_servers, neighbor_queue, mbufs)| Limits {
            max_connections,
            max_services,
            max_servers,
            neighbor_queue,
            mbufs,
        })
}

fn timeouts() -> impl Strategy<Value = Timeouts> {
    vec(timeout(), fields::TIMEOUTS.len()).prop_map(|values| {
        let mut timeouts = Timeouts::default();
        for (field, value) in fields::TIMEOUTS.iter().zip(values) {
            (field.set)(&mut timeouts, value);
        }
        timeouts
    })
}

/// Port `index` has the networks 10.INDEX.0.0/16 and fd00:INDEX::/64; the first may have gateways.
fn port(index: u16) -> impl Strategy<Value = Port> {
    let devices = vec![
        Device::Null,
        Device::Pci(format!("0000:3b:{index:02x}.0")),
        Device::AfPacket("eth0".to_owned()),
        Device::AfXdp("eth1".to_owned()),
        Device::Tap("lb0".to_owned()),
        Device::Ring("loop".to_owned()),
        Device::Memif(PathBuf::from("/run/memif.sock")),
        Device::Pcap(PathBuf::from("/tmp/é\".pcap")),
    ];
    (name(60), sample::select(devices), 1280..=9000_u16, any::<bool>(), 0..4_u8).prop_map(
        move |(name, device, mtu, tagged, gateways)| {
            let net = u8::try_from(index).unwrap();
            let v6 = |host| IpAddr::V6(Ipv6Addr::new(0xfd00, index, 0, 0, 0, 0, 0, host));
            let v4 = |host| IpAddr::V4(Ipv4Addr::new(10, net, 0, host));
            let mut next = vec![v6(254), v4(254)];
            next.truncate(usize::from(gateways.min(2)));
            Port {
                name: format!("{name}{index}"),
                device,
                // A VLAN of its own: several ports may have drawn the same device.
                vlan: (tagged || index > 0).then_some(index + 1),
                mtu,
                addresses: vec![
                    IfAddr { addr: v4(1), prefix_len: 16 },
                    IfAddr { addr: v6(1), prefix_len: 64 },
                    IfAddr { addr: v4(2), prefix_len: 32 },
                ],
                gateways: if index == 0 { next } else { Vec::new() },
            }
        },
    )
}

/// Service `index` has a VIP of its own; its servers are on port 0's networks.
fn service(index: u16) -> impl Strategy<Value = Service> {
    let schedulers = vec![
        Scheduler::Rr,
        Scheduler::Lc,
        Scheduler::Maglev(MaglevHash::Flow),
        Scheduler::Maglev(MaglevHash::Source),
    ];
    (
        name(60),
        any::<[bool; 2]>(),
        within(bounds::L4_PORT),
        sample::select(schedulers),
        vec(option::of(timeout()), 4),
        btree_map(10..250_u8, within(bounds::WEIGHT), 0..8),
    )
        .prop_map(move |(name, [ipv6, udp], port, scheduler, values, servers)| {
            let protocol = if udp { Protocol::Udp } else { Protocol::Tcp };
            let mut timeouts = ServiceTimeouts::default();
            for (field, value) in fields::SERVICE_TIMEOUTS.iter().zip(values) {
                (field.set)(&mut timeouts, value.filter(|_| field.protocol == protocol));
            }
            let vip6 = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, index + 1);
            let vip4 = Ipv4Addr::new(192, 0, 2, u8::try_from(index).unwrap() + 1);
            let server = |host: u8| match ipv6 {
                true => IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 1, host.into())),
                false => IpAddr::V4(Ipv4Addr::new(10, 0, 1, host)),
            };
            Service {
                name: format!("{name}{index}"),
                vip: if ipv6 { vip6.into() } else { vip4.into() },
                port: u16::try_from(port).unwrap(),
                protocol,
                scheduler,
                forwarding: Forwarding::Dr,
                timeouts,
                servers: servers
                    .into_iter()
                    .rev()
                    .map(|(host, weight)| Server { address: server(host), weight })
                    .collect(),
            }
        })
}

fn model() -> impl Strategy<Value = Model> {
    let ports = (1..4_u16).prop_flat_map(|n| (0..n).map(port).collect::<Vec<_>>());
    let services = (0..6_u16).prop_flat_map(|n| (0..n).map(service).collect::<Vec<_>>());
    (appliance(), limits(), timeouts(), ports, services).prop_map(
        |(appliance, limits, timeouts, ports, services)| Model {
            appliance,
            limits,
            timeouts,
            ports,
            services,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_reads_back_equal(model in model()) {
        prop_assert_eq!(validate(&model), Ok(()));
        let text = to_toml(&model);
        let back = parse(&text).map_err(|faults| TestCaseError::fail(format!("{faults}\n{text}")))?;
        prop_assert_eq!(&back, &model);
        prop_assert_eq!(to_toml(&back), text);
    }

    #[test]
    fn the_diff_is_empty_exactly_for_equal_models(a in model(), b in model()) {
        prop_assert_eq!(diff(&a, &a), vec![]);
        prop_assert_eq!(diff(&a, &b).is_empty(), a == b);
    }

    #[test]
    fn reordering_is_a_change_of_its_own(model in model()) {
        let mut other = model.clone();
        other.services.reverse();
        for service in &mut other.services {
            service.servers.reverse();
        }
        let changes = diff(&model, &other);
        prop_assert_eq!(changes.is_empty(), model == other);
        let only_moves = changes.iter().all(|c| matches!(c, Change::ServerMoved { .. } | Change::ServiceMoved { .. }));
        prop_assert!(only_moves, "{:?}", changes);
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in any::<String>()) {
        let _ = parse(&text);
    }

    #[test]
    fn no_toml_like_text_makes_the_parser_panic(
        parts in vec(sample::select(vec![
            "[", "]", "[[", "]]", "ports", "services", "servers", ".", "=", "\n", "\"", "'", "\"\"\"", "1", "-9e9",
            "weight", "name", "vip", "timeouts", "appliance", "workers", "limits", "{", "}", ",", " ", "#", "\\", "é",
            "true", "1979-05-27", "0x", "\r\n", "\u{feff}", "addresses", "\"192.168.150.11/24\"", "gateway",
        ]), 0..60)
    ) {
        let _ = parse(&parts.concat());
    }

    #[test]
    fn a_mutated_example_gives_a_model_or_faults_in_order(
        edits in vec((0..EXAMPLE.len(), 0..12_usize, "[ -~\\n]{0,6}"), 1..4)
    ) {
        let mut bytes = EXAMPLE.as_bytes().to_vec();
        for (at, remove, insert) in edits {
            let at = at.min(bytes.len());
            let end = (at + remove).min(bytes.len());
            bytes.splice(at..end, insert.into_bytes());
        }
        let text = String::from_utf8_lossy(&bytes);
        match parse(&text) {
            Ok(model) => prop_assert_eq!(validate(&model), Ok(())),
            Err(faults) => {
                let places: Vec<_> = faults.iter().map(|f| (f.line, f.column)).collect();
                prop_assert!(!places.is_empty() && places.is_sorted());
                prop_assert!(places.iter().all(|(line, _)| (1..=text.lines().count() + 1).contains(line)));
            }
        }
    }
}
