use super::*;
use lb_dataplane::sync::Streams;
use proptest::prelude::*;

pub(crate) fn address(ipv6: bool) -> BoxedStrategy<IpAddr> {
    match ipv6 {
        true => any::<[u8; 16]>().prop_map(IpAddr::from).boxed(),
        false => any::<[u8; 4]>().prop_map(IpAddr::from).boxed(),
    }
}

fn anywhere() -> impl Strategy<Value = IpAddr> {
    any::<bool>().prop_flat_map(address)
}

fn protocol() -> impl Strategy<Value = Protocol> {
    prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp), Just(Protocol::Sctp)]
}

fn prefix() -> impl Strategy<Value = IpPrefix> {
    (anywhere(), 0u8..=128).prop_map(|(address, len)| {
        IpPrefix::new(address, if address.is_ipv6() { len } else { len % 33 }).unwrap()
    })
}

fn forwarding() -> impl Strategy<Value = Forwarding> {
    prop_oneof![
        Just(Forwarding::Dr),
        Just(Forwarding::Nat),
        Just(Forwarding::FullNat),
        Just(Forwarding::Tunnel(Tunnel::Ipip)),
        any::<bool>().prop_map(|checksum| Forwarding::Tunnel(Tunnel::Gre { checksum })),
        (any::<u16>(), 0usize..3).prop_map(|(port, at)| {
            let checksum = [TunnelChecksum::None, TunnelChecksum::Full, TunnelChecksum::Remote][at];
            Forwarding::Tunnel(Tunnel::Gue { port, checksum })
        }),
    ]
}

fn owner() -> impl Strategy<Value = Owner> {
    prop_oneof![
        (anywhere(), any::<u16>(), protocol())
            .prop_map(|(vip, port, protocol)| Owner::Service(ServiceAddress::Vip { vip, port, protocol })),
        (prefix(), any::<(u16, u16)>(), protocol()).prop_map(|(vips, (a, b), protocol)| {
            let ports = PortRange::new(a.min(b), a.max(b)).unwrap();
            Owner::Service(ServiceAddress::Range { vips, ports, protocol })
        }),
        any::<(u32, bool)>().prop_map(|(mark, ipv6)| Owner::Service(ServiceAddress::Mark { mark, ipv6 })),
        (prefix(), any::<u8>(), any::<Option<u16>>()).prop_map(|(sources, protocols, link)| Owner::Snat {
            sources,
            protocols,
            link: link.map(LinkId)
        }),
    ]
}

fn key(ipv6: bool) -> impl Strategy<Value = TemplateKey> {
    (address(ipv6), address(ipv6), any::<(u16, u8, bool)>()).prop_map(
        |(client, vip, (port, protocol, range))| {
            TemplateKey::of_parts(client, vip, port, protocol, range).unwrap()
        },
    )
}

fn streams() -> impl Strategy<Value = Streams> {
    prop_oneof![
        Just(Streams::Alike),
        any::<(Option<u32>, bool, bool)>().prop_map(|parts| Streams::Headed(Stream::of_parts(parts))),
        any::<(u32, u16)>().prop_map(|(cookie, window)| Streams::Spliced(Splice::Opening { cookie, window })),
        (any::<u32>(), 0u8..15, -14i8..15).prop_map(|(delta, to_server, to_client)| {
            Streams::Spliced(Splice::Open { delta, to_server, to_client })
        }),
    ]
}

fn connection() -> impl Strategy<Value = Connection> {
    any::<bool>().prop_flat_map(|ipv6| {
        let ends = (address(ipv6), any::<u16>(), address(ipv6), any::<u16>(), protocol(), 0u8..16);
        let dest = (owner(), anywhere(), any::<u16>(), forwarding(), any::<bool>());
        let rest = (
            prop::option::of((address(ipv6), any::<u16>())),
            any::<[bool; 5]>(),
            any::<u32>(),
            streams(),
            prop::option::of(key(ipv6)),
        );
        (ends, dest, rest).prop_map(
            |(
                (client, client_port, vip, vip_port, protocol, state),
                (owner, address, port, forwarding, exact),
                (local, flags, left, streams, template),
            )| {
                let number = number_of(protocol);
                let own = Owner::Service(ServiceAddress::Vip { vip, port: vip_port, protocol });
                let [no_output, controlled, assured, proxied, answered] = flags;
                Connection {
                    protocol: number,
                    client: (client, client_port),
                    vip: (vip, vip_port),
                    dest: DestKey { owner: if exact { own } else { owner }, address, port, forwarding },
                    local,
                    state: State::of(number, state),
                    flags: Flags { no_output, controlled, assured, proxied, answered },
                    left,
                    streams,
                    template,
                    told_ns: 0,
                }
            },
        )
    })
}

pub(crate) fn item() -> impl Strategy<Value = Item> {
    prop_oneof![
        // one of seven was thrown out
        7 => (connection(), 0..7).prop_map(|(connection, kind)| {
            let Connection { protocol, client, vip, dest, .. } = connection;
            Item::Record(match kind {
                0 => Record::Gone(Gone { protocol, client, vip, dest }),
                _ => Record::Connection(connection),
            })
        }),
        2 => (any::<bool>().prop_flat_map(key), owner(), anywhere(), any::<u16>(), forwarding(), any::<(u32, u32, bool)>())
            .prop_map(|(key, owner, address, port, forwarding, (timeout, left, assured))| {
                let dest = DestKey { owner, address, port, forwarding };
                let ns = |ms: u32| u64::from(ms) * 1_000_000;
                let (timeout_ns, left_ns) = (ns(timeout), ns(left));
                Item::Record(Record::Template(Template { key, dest, timeout_ns, left_ns, assured }))
            }),
        1 => any::<u32>().prop_map(Item::Begin),
        1 => any::<u32>().prop_map(Item::End),
    ]
}

proptest! {
    #[test]
    fn what_was_put_is_taken(items in prop::collection::vec(item(), 0..20)) {
        let mut bytes = Vec::new();
        for item in &items {
            let before = bytes.len();
            put(item, &mut bytes);
            // its length is a byte
            prop_assert!(bytes.len() - before < 200);
        }
        let mut rest = bytes.as_slice();
        let taken: Vec<Item> = std::iter::from_fn(|| take(&mut rest)).collect();
        prop_assert_eq!(taken, items);
        prop_assert!(rest.is_empty());
    }

    #[test]
    fn what_was_cut_or_changed_is_no_panic(item in item(), cut in 0usize..200, at in 0usize..200, to: u8) {
        let mut bytes = Vec::new();
        put(&item, &mut bytes);
        let whole = bytes.clone();
        let mut rest = whole.get(..cut.min(whole.len())).unwrap_or_default();
        if cut < whole.len() {
            prop_assert_eq!(take(&mut rest), None);
        }
        let at = at % bytes.len();
        bytes[at] = to;
        let mut rest = bytes.as_slice();
        while take(&mut rest).is_some() {}
    }

    #[test]
    fn no_bytes_harm(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut rest = bytes.as_slice();
        while take(&mut rest).is_some() {}
    }
}

#[test]
fn items_of_the_future_are_passed_over() {
    let mut bytes = vec![77, 3, 1, 2, 3];
    put(&Item::End(7), &mut bytes);
    let mut rest = bytes.as_slice();
    assert_eq!(take(&mut rest), Some(Item::End(7)));
    assert_eq!(take(&mut rest), None);
}

/// The first connections of every kind of service and their sizes: what goes over the wire is to change on purpose only.
#[test]
fn a_connection_by_direct_routing_is_these_bytes() {
    let vip: IpAddr = "192.168.150.100".parse().unwrap();
    let owner = Owner::Service(ServiceAddress::Vip { vip, port: 80, protocol: Protocol::Tcp });
    let connection = Connection {
        protocol: 6,
        client: ("192.168.150.1".parse().unwrap(), 40_000),
        vip: (vip, 80),
        dest: DestKey {
            owner,
            address: "192.168.150.12".parse().unwrap(),
            port: 80,
            forwarding: Forwarding::Dr,
        },
        local: None,
        state: State::Established,
        flags: Flags { no_output: true, ..Flags::default() },
        left: 14_400,
        streams: Streams::Alike,
        template: None,
        told_ns: 9,
    };
    let mut bytes = Vec::new();
    put(&Item::Record(Record::Connection(connection)), &mut bytes);
    let wanted = [
        &[1u8, 27, EXACT, NO_OUTPUT, 6, 1, 0, 0, 0x38, 0x40][..],
        &[192, 168, 150, 1, 0x9c, 0x40, 192, 168, 150, 100, 0, 80],
        &[192, 168, 150, 12, 0, 80, 0],
    ]
    .concat();
    assert_eq!(bytes, wanted);
}
