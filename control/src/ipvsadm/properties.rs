//! What holds for every table and every command line.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lb_config::{IpvsSync, IpvsSyncState};
use proptest::prelude::*;

use super::table::{
    Checksum, Forward, Netmask, SCHEDULERS, SCTP, SchedulerFlags, Server, Service, TCP, Timeouts, Tunnel, UDP,
};
use super::*;

fn run_on(host: &mut MemoryHost, args: &[&str], stdin: &str) -> Output {
    let args: Vec<String> = args.iter().map(|word| (*word).to_owned()).collect();
    run_with(&args, &mut stdin.as_bytes(), host, &Names::default())
}

fn ip(ipv6: bool) -> BoxedStrategy<IpAddr> {
    if ipv6 {
        any::<u64>().prop_map(|low| Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(low)).into()).boxed()
    } else {
        // Unicast: 1.0.0.0 to 223.255.255.255.
        (1_u8..224, any::<[u8; 3]>()).prop_map(|(a, [b, c, d])| Ipv4Addr::new(a, b, c, d).into()).boxed()
    }
}

fn address() -> impl Strategy<Value = Address> {
    let vip = any::<bool>().prop_flat_map(|ipv6| {
        (prop::sample::select(vec![TCP, UDP, SCTP]), ip(ipv6), any::<u16>())
            .prop_map(|(protocol, address, port)| Address::Vip { protocol, address, port })
    });
    let mark = (1..=u32::MAX, any::<bool>()).prop_map(|(mark, ipv6)| Address::Mark { mark, ipv6 });
    prop_oneof![4 => vip, 1 => mark]
}

fn checksum() -> impl Strategy<Value = Checksum> {
    prop::sample::select(vec![Checksum::None, Checksum::Full, Checksum::Remote])
}

/// A server that the command line can make in a service of this address.
fn server(service: Address) -> impl Strategy<Value = Server> {
    let tunnel = prop_oneof![
        Just(Tunnel::Ipip),
        (1..=u16::MAX, checksum()).prop_map(|(port, checksum)| Tunnel::Gue { port, checksum }),
        prop::sample::select(vec![Checksum::None, Checksum::Full])
            .prop_map(|checksum| Tunnel::Gre { checksum }),
    ];
    let forward = prop_oneof![Just(Forward::Route), Just(Forward::Masq), tunnel.prop_map(Forward::Tunnel)];
    let most = i32::MAX.cast_unsigned();
    (forward, any::<bool>(), any::<u16>(), 0..=most, 0..=most, 0..=most).prop_flat_map(
        move |(forward, other_family, port, weight, a, b)| {
            let crosses = other_family && matches!(forward, Forward::Tunnel(_));
            let port = match service {
                Address::Vip { port, .. } if forward != Forward::Masq => port,
                _ => port,
            };
            let (lower, upper) = (a.min(b), a.max(b));
            ip(service.is_ipv6() != crosses).prop_map(move |address| Server {
                address,
                port,
                forward,
                weight,
                upper,
                lower,
            })
        },
    )
}

fn service() -> impl Strategy<Value = Service> {
    let options = (
        prop::sample::select(SCHEDULERS.to_vec()),
        any::<[bool; 3]>(),
        prop::option::of(1..=2_678_400_u32),
        any::<u32>(),
        1..=128_u8,
        any::<[bool; 2]>(),
    );
    (address(), options).prop_flat_map(|(address, options)| {
        let servers = prop::collection::vec(server(address.clone()), 0..4);
        servers.prop_map(move |mut servers| {
            let (scheduler, [flag_1, flag_2, flag_3], persistent, mask, length, [sip, one_packet]) = options;
            let every_port = matches!(address, Address::Vip { port: 0, .. });
            let persistent = persistent.or(every_port.then_some(7));
            let ipv6 = address.is_ipv6();
            let netmask = match (persistent, ipv6) {
                (None, _) => Netmask::whole(ipv6),
                (Some(_), true) => Netmask::V6(length),
                (Some(_), false) => Netmask::V4(mask.into()),
            };
            let any_packet = matches!(address, Address::Vip { protocol: UDP, .. } | Address::Mark { .. });
            let mut seen = std::collections::HashSet::new();
            servers.retain(|server| seen.insert((server.address, server.port)));
            Service {
                address: address.clone(),
                scheduler: scheduler.to_owned(),
                flags: SchedulerFlags { flag_1, flag_2, flag_3 },
                persistent,
                netmask,
                pe: if sip { "sip".to_owned() } else { String::new() },
                one_packet: one_packet && any_packet,
                servers,
            }
        })
    })
}

fn daemons() -> impl Strategy<Value = Vec<IpvsSync>> {
    let daemon = |state: IpvsSyncState| {
        let groups = prop_oneof![Just("224.0.0.81"), Just("239.1.2.3"), Just("ff02::81")];
        let numbers = (any::<u8>(), 1024..=65_487u16, 1..=u16::MAX, 1..=u8::MAX);
        let some = (groups, numbers).prop_map(move |(group, (sync_id, max_length, port, ttl))| IpvsSync {
            sync_id,
            max_length,
            group: group.parse().unwrap(),
            port,
            ttl,
            ..IpvsSync::new(state, "eth7".to_owned())
        });
        prop::option::of(some)
    };
    (daemon(IpvsSyncState::Master), daemon(IpvsSyncState::Backup))
        .prop_map(|(master, backup)| master.into_iter().chain(backup).collect())
}

fn table() -> impl Strategy<Value = Table> {
    let times = 1..=2_678_400_u32;
    (prop::collection::vec(service(), 0..5), times.clone(), times.clone(), times, daemons()).prop_map(
        |(mut services, tcp, tcp_fin, udp, daemons)| {
            let mut seen = std::collections::HashSet::new();
            services.retain(|service| seen.insert(service.address.clone()));
            Table { services, timeouts: Timeouts { tcp, tcp_fin, udp }, daemons }
        },
    )
}

/// The same table whatever the order of its lists.
fn unordered(mut table: Table) -> Table {
    for service in &mut table.services {
        service.servers.sort_by_key(|server| (server.address, server.port));
    }
    table.services.sort_by_key(|service| format!("{:?}", service.address));
    table
}

proptest! {
    #[test]
    fn what_is_saved_is_restored(table in table()) {
        let mut host = MemoryHost { table };
        let saved = run_on(&mut host, &["-S", "-n"], "").stdout;
        let mut other = MemoryHost::default();
        prop_assert_eq!(run_on(&mut other, &["-R"], &saved), Output::default(), "{}", saved);
        prop_assert_eq!(unordered(other.table), unordered(host.table), "{}", saved);
    }

    #[test]
    fn every_table_has_every_listing(table in table(), exact in any::<bool>()) {
        let mut host = MemoryHost { table };
        let services = host.table.services.len();
        let servers: usize = host.table.services.iter().map(|service| service.servers.len()).sum();
        for kind in ["--stats", "--rate", "--thresholds", "--persistent-conn", "--tun-info", "--nosort"] {
            let more: &[&str] = if exact { &["--exact"] } else { &[] };
            let listed = run_on(&mut host, &[&["-L", kind], more].concat(), "");
            prop_assert_eq!(listed.code, 0);
            prop_assert_eq!(listed.stdout.lines().count(), 3 + services + servers);
        }
    }

    #[test]
    fn no_command_line_and_no_rule_file_panics(
        command in "-[AEDCLlSZaedhv]",
        words in prop::collection::vec("-[a-zA-Z6]{1,3}|--[a-z-]{1,16}|[0-9a-f.:\\[\\]/-]{0,24}|[a-z]{1,6}", 0..8),
        text in "(-[A-Za-z]|[ \\t\\n\"'#\\\\]|[a-z0-9.:]{1,6}){0,40}",
    ) {
        let mut host = MemoryHost::default();
        let words: Vec<&str> = std::iter::once(command.as_str()).chain(words.iter().map(String::as_str)).collect();
        let _ = run_on(&mut host, &words, "");
        let _ = run_on(&mut host, &["-R"], &text);
        let _ = import(&text, &Names::default());
    }
}
