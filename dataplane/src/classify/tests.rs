use super::*;
use proptest::prelude::*;

const CLIENT: &str = "198.51.100.7";

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn prefix(text: &str) -> IpPrefix {
    let (address, len) = text.split_once('/').expect("a prefix");
    IpPrefix::new(ip(address), len.parse().expect("a length"))
}

fn vip(vip: &str, port: u16, protocol: L4) -> Address {
    Address::Vip { vip: ip(vip), port, protocol }
}

fn range(vips: &str, first: u16, last: u16, protocol: L4) -> Address {
    Address::Range { vips: prefix(vips), ports: PortRange::new(first, last), protocol }
}

fn packet(dst: &str, dst_port: u16, protocol: L4) -> Lookup {
    Lookup {
        src: if dst.contains(':') { ip("2001:db8::7") } else { ip(CLIENT) },
        dst: ip(dst),
        src_port: 40000,
        dst_port,
        protocol,
        device: DeviceId(0),
        vlan: 0,
    }
}

type Case = (&'static str, Lookup, Option<(&'static str, How)>);

fn check(classifier: &Classifier<&'static str>, cases: &[Case]) {
    for (what, packet, wanted) in cases {
        let hit = classifier.explain(packet).map(|hit| (*hit.service, hit.how));
        assert_eq!(hit, *wanted, "{what}");
        assert_eq!(classifier.find(packet).copied(), wanted.map(|(service, _)| service), "{what}");
    }
}

#[test]
fn services_are_told_apart_by_protocol_address_and_port() {
    let services = [
        (vip("10.0.0.100", 80, L4::Tcp), false, "web"),
        (vip("10.0.0.100", 80, L4::Udp), false, "quic"),
        (vip("10.0.0.101", 80, L4::Tcp), false, "other"),
        (vip("2001:db8::100", 80, L4::Tcp), false, "web6"),
    ];
    check(
        &Classifier::new(Vec::new(), services),
        &[
            ("TCP", packet("10.0.0.100", 80, L4::Tcp), Some(("web", How::Exact))),
            ("UDP", packet("10.0.0.100", 80, L4::Udp), Some(("quic", How::Exact))),
            ("another VIP", packet("10.0.0.101", 80, L4::Tcp), Some(("other", How::Exact))),
            ("IPv6", packet("2001:db8::100", 80, L4::Tcp), Some(("web6", How::Exact))),
            ("a port without service", packet("10.0.0.100", 8080, L4::Tcp), None),
            ("a protocol without service", packet("10.0.0.101", 80, L4::Udp), None),
            ("an address without service", packet("10.0.0.102", 80, L4::Tcp), None),
        ],
    );
}

/// The order of `ip_vs_service_find`: mark, exact, FTP, port 0.
#[test]
fn a_mark_comes_before_the_address_and_the_catch_alls_behind_it() {
    let marked = MarkRule { ports: Some(PortRange::new(443, 443)), ..MarkRule::any(7) };
    let services = [
        (vip("10.0.0.100", 80, L4::Tcp), false, "web"),
        (vip("10.0.0.100", 443, L4::Tcp), false, "tls"),
        (vip("10.0.0.100", 21, L4::Tcp), true, "ftp"),
        (vip("10.0.0.100", 0, L4::Tcp), true, "rest"),
        (vip("10.0.0.100", 0, L4::Udp), true, "rest-udp"),
        (vip("10.0.0.101", 0, L4::Tcp), true, "rest-101"),
        (Address::Mark { mark: 7, ipv6: false }, false, "marked"),
    ];
    check(
        &Classifier::new(vec![marked], services),
        &[
            ("mark", packet("10.0.0.100", 443, L4::Tcp), Some(("marked", How::Mark(7)))),
            ("mark, any address", packet("192.0.2.1", 443, L4::Udp), Some(("marked", How::Mark(7)))),
            ("mark of the other family", packet("2001:db8::100", 443, L4::Tcp), None),
            ("exact", packet("10.0.0.100", 80, L4::Tcp), Some(("web", How::Exact))),
            ("FTP's control", packet("10.0.0.100", 21, L4::Tcp), Some(("ftp", How::Exact))),
            ("active FTP's data", packet("10.0.0.100", 20, L4::Tcp), Some(("ftp", How::FtpData))),
            ("passive FTP's data", packet("10.0.0.100", 1024, L4::Tcp), Some(("ftp", How::FtpData))),
            ("a privileged port", packet("10.0.0.100", 1023, L4::Tcp), Some(("rest", How::AnyPort))),
            ("no FTP over UDP", packet("10.0.0.100", 2000, L4::Udp), Some(("rest-udp", How::AnyPort))),
            ("no FTP on this VIP", packet("10.0.0.101", 2000, L4::Tcp), Some(("rest-101", How::AnyPort))),
            ("port 0 itself", packet("10.0.0.101", 0, L4::Tcp), Some(("rest-101", How::AnyPort))),
        ],
    );
}

#[test]
fn an_ftp_service_without_persistence_gets_no_data_connections_and_hides_port_0() {
    let services = [
        (vip("10.0.0.100", 21, L4::Tcp), false, "ftp"),
        (vip("10.0.0.100", 0, L4::Tcp), true, "rest"),
        (vip("10.0.0.100", 8080, L4::Tcp), false, "web"),
    ];
    check(
        &Classifier::new(Vec::new(), services),
        &[
            ("passive data", packet("10.0.0.100", 2000, L4::Tcp), None),
            ("a service of its own", packet("10.0.0.100", 8080, L4::Tcp), Some(("web", How::Exact))),
            ("a privileged port", packet("10.0.0.100", 79, L4::Tcp), Some(("rest", How::AnyPort))),
        ],
    );
}

#[test]
fn a_mark_without_a_service_goes_on_to_the_address() {
    let services = [
        (vip("10.0.0.100", 80, L4::Tcp), false, "web"),
        (Address::Mark { mark: 9, ipv6: true }, false, "nine"),
    ];
    check(
        &Classifier::new(vec![MarkRule::any(9)], services),
        &[
            ("IPv4 has no such service", packet("10.0.0.100", 80, L4::Tcp), Some(("web", How::Exact))),
            ("IPv6 has", packet("2001:db8::1", 80, L4::Tcp), Some(("nine", How::Mark(9)))),
        ],
    );
}

#[test]
fn the_first_rule_that_matches_gives_the_mark_and_mark_0_ends_the_search() {
    let rules = vec![
        MarkRule {
            source: Some(prefix("198.51.100.0/25")),
            ports: Some(PortRange::new(22, 22)),
            ..MarkRule::any(0)
        },
        MarkRule { source: Some(prefix("198.51.100.0/25")), ..MarkRule::any(1) },
        MarkRule { source: Some(prefix("198.51.100.0/24")), ..MarkRule::any(2) },
    ];
    let classifier = Classifier::<()>::new(rules, []);
    let from = |src: &str, port| Lookup { src: ip(src), ..packet("10.0.0.100", port, L4::Tcp) };
    assert_eq!(classifier.mark(&from("198.51.100.127", 80)), Some(1));
    assert_eq!(classifier.mark(&from("198.51.100.128", 80)), Some(2));
    assert_eq!(classifier.mark(&from("198.51.100.127", 22)), None);
    assert_eq!(classifier.mark(&from("198.51.101.1", 80)), None);
}

#[test]
fn a_rule_matches_only_what_has_all_that_it_names() {
    let packet = Lookup { device: DeviceId(3), vlan: 10, ..packet("10.0.0.100", 80, L4::Tcp) };
    let rule = MarkRule {
        value: 5,
        source: Some(prefix("198.51.100.0/24")),
        destination: Some(prefix("10.0.0.96/28")),
        protocol: Some(L4::Tcp),
        source_ports: Some(PortRange::new(1024, 65535)),
        ports: Some(PortRange::new(80, 90)),
        device: Some(DeviceId(3)),
        vlan: Some(10),
    };
    assert!(rule.matches(&packet));
    let others = [
        ("source", Lookup { src: ip("198.51.101.7"), ..packet }),
        ("source of the other family", Lookup { src: ip("2001:db8::7"), ..packet }),
        ("destination", Lookup { dst: ip("10.0.0.112"), ..packet }),
        ("protocol", Lookup { protocol: L4::Udp, ..packet }),
        ("source port", Lookup { src_port: 1023, ..packet }),
        ("port below", Lookup { dst_port: 79, ..packet }),
        ("port above", Lookup { dst_port: 91, ..packet }),
        ("device", Lookup { device: DeviceId(2), ..packet }),
        ("VLAN", Lookup { vlan: 0, ..packet }),
    ];
    for (what, other) in others {
        assert!(!rule.matches(&other), "{what}");
        assert!(MarkRule::any(5).matches(&other), "{what}");
    }
}

#[test]
fn the_more_specific_range_wins() {
    let services = [
        (range("10.0.0.0/24", 0, 65535, L4::Tcp), false, "/24"),
        (range("10.0.0.96/28", 80, 89, L4::Tcp), false, "/28 80-89"),
        (range("10.0.0.96/28", 80, 99, L4::Tcp), false, "/28 80-99"),
        (range("10.0.0.100/32", 8000, 8999, L4::Tcp), false, "8000-8999"),
        (vip("10.0.0.100", 8080, L4::Tcp), false, "8080"),
        (vip("10.0.0.100", 0, L4::Tcp), true, "rest"),
        (vip("10.0.0.101", 21, L4::Tcp), true, "ftp"),
        (range("10.0.0.101/32", 5000, 5001, L4::Tcp), false, "5000-5001"),
        (range("2001:db8::/64", 53, 53, L4::Udp), false, "dns6"),
    ];
    check(
        &Classifier::new(Vec::new(), services),
        &[
            ("exact", packet("10.0.0.100", 8080, L4::Tcp), Some(("8080", How::Exact))),
            ("range before port 0", packet("10.0.0.100", 8081, L4::Tcp), Some(("8000-8999", How::PortRange))),
            ("port 0 before prefixes", packet("10.0.0.100", 85, L4::Tcp), Some(("rest", How::AnyPort))),
            (
                "range before FTP's data",
                packet("10.0.0.101", 5001, L4::Tcp),
                Some(("5000-5001", How::PortRange)),
            ),
            ("FTP's data before prefixes", packet("10.0.0.101", 5002, L4::Tcp), Some(("ftp", How::FtpData))),
            ("narrowest", packet("10.0.0.102", 85, L4::Tcp), Some(("/28 80-89", How::Prefix))),
            ("wider", packet("10.0.0.102", 95, L4::Tcp), Some(("/28 80-99", How::Prefix))),
            ("shorter prefix", packet("10.0.0.102", 443, L4::Tcp), Some(("/24", How::Prefix))),
            ("outside the /28", packet("10.0.0.112", 85, L4::Tcp), Some(("/24", How::Prefix))),
            ("outside the /24", packet("10.0.1.0", 85, L4::Tcp), None),
            ("another protocol", packet("10.0.0.102", 85, L4::Udp), None),
            ("IPv6", packet("2001:db8::ffff", 53, L4::Udp), Some(("dns6", How::Prefix))),
            ("outside the /64", packet("2001:db8:0:1::", 53, L4::Udp), None),
        ],
    );
}

#[test]
fn a_prefix_of_no_bits_holds_its_whole_family_and_no_other() {
    let all = prefix("0.0.0.0/0");
    assert!(all.is_empty() && all.contains(ip("255.255.255.255")) && !all.contains(ip("::")));
    let classifier = Classifier::new(Vec::new(), [(range("::/0", 0, 65535, L4::Tcp), false, "all6")]);
    check(
        &classifier,
        &[
            ("IPv6", packet("ffff::1", 1, L4::Tcp), Some(("all6", How::Prefix))),
            ("IPv4", packet("10.0.0.1", 1, L4::Tcp), None),
        ],
    );
    assert!(classifier.is_vip(ip("::1")) && !classifier.is_vip(ip("127.0.0.1")));
}

#[test]
fn virtual_addresses_are_those_of_services_and_prefixes_but_not_of_marks() {
    let services = [
        (vip("10.0.0.100", 80, L4::Tcp), false, ()),
        (range("10.1.0.16/28", 80, 80, L4::Udp), false, ()),
        (range("10.2.0.1/32", 80, 81, L4::Udp), false, ()),
        (Address::Mark { mark: 1, ipv6: false }, false, ()),
    ];
    let rule = MarkRule { destination: Some(prefix("10.3.0.0/16")), ..MarkRule::any(1) };
    let classifier = Classifier::new(vec![rule], services);
    let ours: Vec<bool> = [
        "10.0.0.100",
        "10.0.0.101",
        "10.1.0.16",
        "10.1.0.31",
        "10.1.0.32",
        "10.2.0.1",
        "10.2.0.0",
        "10.3.0.1",
    ]
    .map(|address| classifier.is_vip(ip(address)))
    .into();
    assert_eq!(ours, [true, false, true, true, false, true, false, false]);
}

/// One of a few addresses that share prefixes.
fn any_address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        (0u32..64).prop_map(|low| IpAddr::from((0x0a00_0000 + low).to_be_bytes())),
        (0u128..64).prop_map(|low| IpAddr::from(((0xfd00u128 << 112) + low).to_be_bytes())),
    ]
}

fn any_service() -> impl Strategy<Value = (Address, bool)> {
    let l4 = || prop_oneof![Just(L4::Tcp), Just(L4::Udp)];
    let port = || prop_oneof![Just(0u16), Just(20), Just(21), 78u16..84, 1022u16..1026];
    let address = prop_oneof![
        (any_address(), port(), l4()).prop_map(|(vip, port, protocol)| Address::Vip { vip, port, protocol }),
        (any_address(), 0u8..8, port(), port(), l4()).prop_map(|(address, short, first, last, protocol)| {
            let len = if address.is_ipv6() { 128 } else { 32 } - short;
            let (vips, ports) = (IpPrefix::new(address, len), PortRange::new(first, last));
            Address::Range { vips, ports, protocol }
        }),
        (0u32..3, any::<bool>()).prop_map(|(mark, ipv6)| Address::Mark { mark: mark + 1, ipv6 }),
    ];
    (address, any::<bool>())
}

/// The module's six steps, each a scan over all services.
fn slow(services: &[(Address, bool)], mark: Option<u32>, packet: &Lookup) -> Option<usize> {
    let exact = |wanted: u16| {
        services.iter().position(|(address, _)| {
            matches!(*address, Address::Vip { vip, port, protocol }
                if vip == packet.dst && port == wanted && protocol == packet.protocol)
        })
    };
    let best = |wanted: &dyn Fn(&IpPrefix, &PortRange) -> bool| {
        let fit = services.iter().enumerate().filter_map(|(at, (address, _))| match address {
            Address::Range { vips, ports, protocol } => (*protocol == packet.protocol
                && vips.contains(packet.dst)
                && ports.contains(packet.dst_port)
                && wanted(vips, ports))
            .then_some((u8::MAX - vips.len(), ports.last() - ports.first(), at)),
            _ => None,
        });
        fit.min().map(|(_, _, at)| at)
    };
    let by_mark = mark.and_then(|wanted| {
        services.iter().position(|(address, _)| {
            matches!(*address, Address::Mark { mark, ipv6 } if mark == wanted && ipv6 == packet.dst.is_ipv6())
        })
    });
    let data = packet.protocol == L4::Tcp && (packet.dst_port == 20 || packet.dst_port >= 1024);
    by_mark
        .or_else(|| exact(packet.dst_port))
        .or_else(|| best(&|vips, ports| vips.is_host() && !ports.is_all()))
        .map(Some)
        .or_else(|| exact(21).filter(|_| data).map(|ftp| services[ftp].1.then_some(ftp)))
        .unwrap_or_else(|| exact(0).or_else(|| best(&|_, _| true)))
}

proptest! {
    #[test]
    fn the_fast_way_finds_what_the_slow_way_finds(
        services in proptest::collection::vec(any_service(), 0..24),
        rules in proptest::collection::vec((0u32..4, any_address(), 0u8..8), 0..4),
        packets in proptest::collection::vec((any_address(), prop_oneof![78u16..84, 18u16..23, 1022u16..1026], any::<bool>()), 1..32),
    ) {
        let rules: Vec<MarkRule> = rules
            .into_iter()
            .map(|(value, address, short)| {
                let len = if address.is_ipv6() { 128 } else { 32 } - short;
                MarkRule { destination: Some(IpPrefix::new(address, len)), ..MarkRule::any(value) }
            })
            .collect();
        let all = services.iter().enumerate().map(|(at, &(address, persistent))| (address, persistent, at));
        let classifier = Classifier::new(rules.clone(), all);
        for (dst, dst_port, tcp) in packets {
            let packet = Lookup {
                dst,
                dst_port,
                protocol: if tcp { L4::Tcp } else { L4::Udp },
                ..packet("10.0.0.1", 0, L4::Tcp)
            };
            let mark = rules.iter().find(|rule| rule.matches(&packet)).map(|rule| rule.value).filter(|&mark| mark != 0);
            prop_assert_eq!(classifier.find(&packet).copied(), slow(&services, mark, &packet), "{:?}", packet);
        }
    }
}

#[test]
fn without_marks_an_exact_service_is_found_without_a_search() {
    let services = || {
        [
            (vip("10.0.0.100", 80, L4::Tcp), false, "web"),
            (vip("10.0.0.100", 0, L4::Tcp), true, "rest"),
            (vip("2001:db8::100", 80, L4::Udp), false, "quic6"),
        ]
    };
    let classifier = Classifier::new(Vec::new(), services());
    let exactly = |vip, port, protocol| classifier.exactly(protocol, ip(vip), port).copied();
    assert_eq!(exactly("10.0.0.100", 80, L4::Tcp), Some("web"));
    assert_eq!(exactly("2001:db8::100", 80, L4::Udp), Some("quic6"));
    assert_eq!(exactly("10.0.0.100", 81, L4::Tcp), None, "the search may find another");
    assert_eq!(exactly("10.0.0.100", 80, L4::Udp), None);
    let marked = Classifier::new(vec![MarkRule::any(7)], services());
    assert_eq!(marked.exactly(L4::Tcp, ip("10.0.0.100"), 80), None, "a mark may come before it");
}
