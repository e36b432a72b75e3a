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
                exception: (gateways > 1).then(|| crate::Exception {
                    interface: format!("lb-{index}"),
                    rate: 100 + u32::from(mtu),
                }),
            }
        },
    )
}

fn forwarding() -> impl Strategy<Value = Forwarding> {
    let texts = vec![
        "dr",
        "nat",
        "tunnel",
        "tunnel:gre",
        "tunnel:gre:full",
        "tunnel:gue:1",
        "tunnel:gue:65535:full",
        "tunnel:gue:6080:remote",
    ];
    sample::select(texts).prop_map(|text| text.parse().unwrap())
}

/// The longest prefix is one of an IPv4 VIP.
fn persistence() -> impl Strategy<Value = Persistence> {
    let seconds = prop_oneof![1..=2_678_400_u64, Just(1), Just(2_678_400)];
    (seconds, 0..=32_u8)
        .prop_map(|(s, prefix_len)| Persistence { timeout: Duration::from_secs(s), prefix_len })
}

fn policy() -> impl Strategy<Value = Policy> {
    (any::<[bool; 8]>(), 0..=3_u8, 0..=3_u8, 0..=100_u8).prop_map(
        |(flags, conn_reuse_mode, secure_tcp, syn_flood)| {
            let [ipvs, sloppy_tcp, sloppy_sctp, nodest, quiescent, schedule_icmp, pmtu_disc, nat_icmp_send] =
                flags;
            Policy {
                compat: if ipvs { Compat::Ipvs } else { Compat::None },
                sloppy_tcp,
                sloppy_sctp,
                conn_reuse_mode,
                expire_nodest_conn: nodest,
                expire_quiescent_template: quiescent,
                secure_tcp,
                schedule_icmp,
                pmtu_disc,
                nat_icmp_send,
                syn_flood,
            }
        },
    )
}

/// What a service of every protocol may decide; one of a single protocol gets the part that is of use to it.
fn service_policy() -> impl Strategy<Value = ServicePolicy> {
    let answers = sample::select(vec![OnNoServer::Icmp, OnNoServer::Reset, OnNoServer::Drop]);
    let fates = vec![OnServerDown::Keep, OnServerDown::Reset, OnServerDown::Reschedule, OnServerDown::Drop];
    (
        option::of(answers),
        option::of(sample::select(fates)),
        option::of(sample::select(vec![Reuse::Closing, Reuse::Ipvs])),
        option::of(within(bounds::MSS)),
        option::of(timeout()),
        option::of(within(bounds::SERVICE_CONNECTIONS)),
        option::of(timeout()),
    )
        .prop_map(
            |(on_no_server, on_server_down, reuse, mss, dr_close_timeout, max_connections, udp_activity)| {
                ServicePolicy {
                    on_no_server,
                    on_server_down,
                    reuse,
                    mss: mss.map(|mss| u16::try_from(mss).unwrap()),
                    dr_close_timeout,
                    max_connections,
                    udp_activity,
                    // of use with some forwardings only: see its own test
                    syn_proxy: None,
                }
            },
        )
}

fn port_range() -> impl Strategy<Value = PortRange> {
    (1..=u16::MAX, 1..=u16::MAX).prop_map(|(a, b)| PortRange::new(a.min(b), a.max(b)).unwrap())
}

/// What service `index` is addressed by; no two indices have anything in common.
fn address(index: u16) -> impl Strategy<Value = ServiceAddress> {
    let protocols = vec![Protocol::Tcp, Protocol::Udp];
    (any::<bool>(), sample::select(protocols), within(bounds::L4_PORT), port_range(), 0..4_u8).prop_map(
        move |(ipv6, protocol, port, ports, kind)| {
            let vip6 = Ipv6Addr::new(0x2001, 0xdb8, 0, index + 1, 0, 0, 0, 0);
            let vip4 = Ipv4Addr::new(192, 0, 2, u8::try_from(index).unwrap() * 16);
            let first: IpAddr = if ipv6 { vip6.into() } else { vip4.into() };
            let several = IpPrefix::new(first, if ipv6 { 64 } else { 28 }).unwrap();
            let vip = match first {
                IpAddr::V4(v4) => IpAddr::V4((v4.to_bits() + 1).into()),
                IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() + 1).into()),
            };
            let port = PortRange::one(u16::try_from(port).unwrap());
            match kind {
                0 => ServiceAddress::of(several, ports, protocol),
                1 => ServiceAddress::of(several, port, protocol),
                2 => ServiceAddress::of(IpPrefix::host(vip), ports, protocol),
                _ if ports.first() % 5 == 0 => ServiceAddress::Mark { mark: u32::from(index) + 1, ipv6 },
                _ => ServiceAddress::of(IpPrefix::host(vip), port, protocol),
            }
        },
    )
}

/// Rule `index` matches what no other does: its VLAN is its own.
fn mark(index: u16) -> impl Strategy<Value = MarkRule> {
    let prefix = |network: &'static str| {
        option::of((8..=32_u8).prop_map(move |len| IpPrefix::new(network.parse().unwrap(), len).unwrap()))
    };
    let ports = || option::of(prop_oneof![Just(PortRange::ALL), port_range()]);
    (1..=u32::MAX, prefix("10.1.2.3"), prefix("192.0.2.7"), ports(), ports(), any::<[bool; 2]>()).prop_map(
        move |(value, source, destination, source_ports, ports, [tcp, udp])| MarkRule {
            value,
            source,
            destination,
            protocol: match (tcp, udp) {
                (true, _) => Some(Protocol::Tcp),
                (false, true) => Some(Protocol::Udp),
                (false, false) => None,
            },
            source_ports,
            ports,
            port: None,
            vlan: Some(index + 1),
        },
    )
}

/// What of a server does not depend on its service; the port is used with NAT only.
fn server() -> impl Strategy<Value = Server> {
    let deadline = (bounds::MIN_DRAIN.as_millis() as u64..=bounds::MAX_DRAIN.as_millis() as u64)
        .prop_map(Duration::from_millis);
    (
        within(bounds::WEIGHT),
        forwarding(),
        within(bounds::L4_PORT),
        within(bounds::THRESHOLD),
        any::<u32>(),
        option::of(deadline),
    )
        .prop_map(|(weight, forwarding, port, upper, lower, drain_deadline)| Server {
            drain_deadline,
            weight,
            upper_threshold: upper,
            lower_threshold: lower.checked_rem(upper + 1).unwrap_or(0),
            ..Server::new(Ipv4Addr::LOCALHOST.into(), u16::try_from(port).unwrap(), forwarding)
        })
}

/// Service `index` has an address of its own; its servers are on port 0's networks.
fn service(index: u16) -> impl Strategy<Value = Service> {
    let maglev = [MaglevHash::Flow, MaglevHash::Source]
        .into_iter()
        .flat_map(|hash| [MaglevSize::Small, MaglevSize::Large].map(|size| Scheduler::Maglev(hash, size)));
    let schedulers: Vec<_> = Scheduler::ALL.into_iter().chain(maglev).collect();
    (
        name(60),
        address(index),
        service_policy(),
        (sample::select(schedulers), any::<[bool; 3]>()),
        vec(option::of(timeout()), fields::SERVICE_TIMEOUTS.len()),
        btree_map(10..250_u8, server(), 0..8),
        (forwarding(), option::of(persistence()), any::<[bool; 2]>()),
    )
        .prop_map(
            move |(
                name,
                address,
                policy,
                (scheduler, [flag_1, flag_2, flag_3]),
                values,
                servers,
                (forwarding, persistence, flags),
            )| {
                let [one_packet, any_port] = flags;
                let address = match address {
                    ServiceAddress::Vip { vip, protocol, .. } if any_port && persistence.is_some() => {
                        ServiceAddress::Vip { vip, port: 0, protocol }
                    }
                    other => other,
                };
                let protocol = address.protocol();
                let mut timeouts = ServiceTimeouts::default();
                for (field, value) in fields::SERVICE_TIMEOUTS.iter().zip(values) {
                    (field.set)(
                        &mut timeouts,
                        value.filter(|_| protocol.is_none_or(|p| field.protocol == p)),
                    );
                }
                let one_packet = one_packet && protocol.is_none_or(|protocol| protocol == Protocol::Udp);
                let udp_activity = policy.udp_activity.filter(|_| !one_packet);
                let policy = match protocol {
                    None => ServicePolicy { udp_activity, ..policy },
                    Some(Protocol::Tcp) => ServicePolicy { udp_activity: None, ..policy },
                    Some(_) => ServicePolicy {
                        on_server_down: policy.on_server_down.filter(|fate| *fate != OnServerDown::Reset),
                        max_connections: policy.max_connections,
                        udp_activity,
                        ..ServicePolicy::default()
                    },
                };
                let drains =
                    !one_packet && policy.on_server_down.is_some_and(|fate| fate != OnServerDown::Keep);
                let server = |host: u8| match address.is_ipv6() {
                    true => IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 1, host.into())),
                    false => IpAddr::V4(Ipv4Addr::new(10, 0, 1, host)),
                };
                Service {
                    scheduler,
                    scheduler_flags: SchedulerFlags { flag_1, flag_2, flag_3 },
                    forwarding,
                    timeouts,
                    persistence,
                    one_packet,
                    policy,
                    servers: servers
                        .into_iter()
                        .rev()
                        .map(|(host, drawn)| Server {
                            address: server(host),
                            port: match drawn.forwarding {
                                Forwarding::Nat => drawn.port,
                                _ => address.port(),
                            },
                            weight: if drains && drawn.drain_deadline.is_some() { 0 } else { drawn.weight },
                            drain_deadline: drawn.drain_deadline.filter(|_| drains),
                            ..drawn
                        })
                        .collect(),
                    ..Service::new(format!("{name}{index}"), address)
                }
            },
        )
}

/// Addresses that no port, VIP or server has.
fn snat(index: u16) -> impl Strategy<Value = SnatRule> {
    let protocols = sample::subsequence(SnatProtocol::ALL.to_vec(), 1..=4);
    (1..4_u8, protocols.prop_shuffle(), 8..=32_u8).prop_map(move |(count, protocols, len)| SnatRule {
        name: format!("out{index}"),
        sources: IpPrefix::new(IpAddr::V4(Ipv4Addr::new(10, 200, 1, 7)), len).unwrap(),
        addresses: (1..=count).map(|host| IpAddr::V4(Ipv4Addr::new(203, 0, 113, host))).collect(),
        protocols,
        port: None,
    })
}

fn model() -> impl Strategy<Value = Model> {
    let ports = (1..4_u16).prop_flat_map(|n| (0..n).map(port).collect::<Vec<_>>());
    let services = (0..6_u16).prop_flat_map(|n| (0..n).map(service).collect::<Vec<_>>());
    let marks = (0..4_u16).prop_flat_map(|n| (0..n).map(mark).collect::<Vec<_>>());
    let snat = (0..3_u16).prop_flat_map(|n| (0..n).map(snat).collect::<Vec<_>>());
    let ha = vec((any::<u8>(), any::<u32>(), 1..=255_u8), 0..4);
    let tables = (any::<bool>(), "/[a-z \"\\\\é]{1,30}");
    (appliance(), limits(), tables, timeouts(), policy(), ports, marks, services, snat, ha).prop_map(
        |(appliance, limits, (keep, directory), timeouts, policy, ports, marks, services, snat, seeds)| {
            Model {
                tables: crate::Tables { keep, directory: PathBuf::from(directory) },
                ha: super::ha::of(&ports, &seeds),
                appliance,
                limits,
                timeouts,
                policy,
                notify: Default::default(),
                ports,
                marks,
                services: services.into(),
                snat,
            }
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
        other.marks.reverse();
        for service in other.services.iter_mut() {
            service.servers.reverse();
        }
        let changes = diff(&model, &other);
        prop_assert_eq!(changes.is_empty(), model == other);
        let only_moves = changes.iter().all(|c| matches!(c, Change::ServerMoved { .. } | Change::ServiceMoved { .. } | Change::MarkMoved { .. }));
        prop_assert!(only_moves, "{:?}", changes);
    }

    #[test]
    fn what_an_operator_types_reads_back(address in address(3), forwarding in forwarding(), p in persistence()) {
        prop_assert_eq!(address.to_string().parse(), Ok(address));
        prop_assert_eq!(address.to_string().parse(), Ok(ServiceRef::Address(address)));
        prop_assert_eq!(forwarding.to_string().parse(), Ok(forwarding));
        prop_assert_eq!(Persistence::parse(&p.to_string(), false), Ok(p));
    }

    #[test]
    fn nothing_typed_panics(text in "[0-9a-fx.:/\\[\\]%-]{0,24}|mark:[0-9/ipv]{0,12}|(gue|gre|tunnel):[0-9a-z:]{0,12}", other in any::<String>()) {
        for text in [text, other] {
            if let Ok(address) = text.parse::<ServiceAddress>() {
                prop_assert_eq!(address.to_string().parse(), Ok(address));
            }
            if let Ok(forwarding) = text.parse::<Forwarding>() {
                prop_assert_eq!(forwarding.to_string().parse(), Ok(forwarding));
            }
            let _ = (text.parse::<IpPrefix>(), text.parse::<PortRange>(), text.parse::<Tunnel>());
            let _ = (Persistence::parse(&text, true), ServicePolicy::default().set(&text, Some(&text)));
            let _ = ServicePolicy::default().set("mss", Some(&text));
        }
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
            "true", "1979-05-27", "forwarding", "tunnel", "persistence", "\"gue\"", "type", "marks", "value", "mark", "policy", "ports", "\"8000-8999\"", "family", "0x", "\r\n", "\u{feff}", "addresses", "\"192.168.150.11/24\"", "gateway",
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
