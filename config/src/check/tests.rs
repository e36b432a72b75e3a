//! Each rule with the exact message of its fault.

use std::fmt::Write;

use crate::tests::{SMALL, faults, faults_after, faults_with};

/// Faults of the small configuration with `key = value` lines at the end of the port's table (line 4).
fn port_with(lines: &str) -> String {
    faults_with("device = \"null\"\n", &format!("device = \"null\"\n{lines}\n"))
}

/// Faults of the small configuration with other addresses and no service.
fn addresses(list: &str) -> String {
    faults(&format!("[[ports]]\nname = \"lan\"\ndevice = \"null\"\naddresses = {list}\n"))
}

/// Faults of the small configuration with a second port on line 16.
fn second_port(lines: &str) -> String {
    faults_after(&format!("[[ports]]\n{lines}\n"))
}

/// Faults of the small configuration with one more server, on line 17.
fn server(address: &str) -> String {
    faults_after(&format!("[[services.servers]]\naddress = \"{address}\"\n"))
}

const WAN: &str = "name = \"wan\"\ndevice = \"null\"\n";

#[test]
fn names_have_an_alphabet_and_are_unique() {
    assert_eq!(
        faults_with("\"web\"", "\"web 1\""),
        "line 7: services[0].name: \"web 1\" is not a name: 1 to 64 of A-Z a-z 0-9 . _ -"
    );
    assert_eq!(
        faults_with("\"lan\"", "\"\""),
        "line 2: ports[0].name: \"\" is not a name: 1 to 64 of A-Z a-z 0-9 . _ -"
    );
    assert_eq!(faults_with("\"lan\"", &format!("\"{}\"", "n".repeat(64))), "no fault");
    assert!(faults_with("\"lan\"", &format!("\"{}\"", "n".repeat(65))).contains("is not a name"));
    assert_eq!(
        faults_after("[appliance]\nname = \"näme\"\n"),
        "line 17: appliance.name: \"näme\" is not a name: 1 to 32 of A-Z a-z 0-9 . _ -"
    );
    assert_eq!(
        second_port("name = \"lan\"\ndevice = \"null\"\naddresses = [\"10.0.0.1/24\"]"),
        "line 17: ports[1].name: \"lan\" is already the name of ports[0]"
    );
    assert_eq!(
        faults_after("[[services]]\nname = \"web\"\nvip = \"192.168.150.101\"\nport = 80\n"),
        "line 17: services[1].name: \"web\" is already the name of services[0]"
    );
}

#[test]
fn a_vip_port_and_protocol_is_one_service() {
    let twin = "[[services]]\nname = \"twin\"\nvip = \"192.168.150.100\"\nport = 80\n";
    assert_eq!(
        faults_after(twin),
        "line 18: services[1].vip: 192.168.150.100:80/tcp is already the service web"
    );
    assert_eq!(faults_after(&format!("{twin}protocol = \"udp\"\n")), "no fault");
    assert_eq!(faults_after(&twin.replace("80", "81")), "no fault");
    let unnamed = faults_with("\"web\"", "5").lines().count();
    assert_eq!(unnamed, 1, "a service without a readable name makes no other fault");
}

#[test]
fn a_vip_is_an_address_that_a_host_can_have() {
    let vip = |text: &str| faults_with("\"192.168.150.100\"", &format!("\"{text}\""));
    for (text, why) in [
        ("0.0.0.0", "the unspecified address"),
        ("127.0.0.1", "a loopback address"),
        ("224.0.0.18", "a multicast address"),
        ("255.255.255.255", "the broadcast address"),
        ("192.168.150.255", "the broadcast address of 192.168.150.0/24"),
        ("192.168.150.0", "the network address of 192.168.150.0/24"),
    ] {
        assert_eq!(vip(text), format!("line 8: services[0].vip: {text} is {why}"));
    }
    assert_eq!(vip("203.0.113.1"), "no fault", "a VIP need not be on a link");
    assert_eq!(vip("192.168.150.11"), "no fault", "a VIP may be the director's address, as in IPVS");
    assert_eq!(
        faults_with("\"null\"", "\"null\"\ngateway = \"192.168.150.100\""),
        "line 9: services[0].vip: 192.168.150.100 is the gateway of lan"
    );
}

#[test]
fn a_dr_server_is_a_neighbour_of_its_own_address() {
    let at = "line 17: services[0].servers[2].address:";
    let on = "192.168.150.0/24 on lan";
    assert_eq!(
        server("192.168.151.9"),
        format!(
            "{at} 192.168.151.9 is on no directly connected network ({on}): forwarding \"dr\" needs that"
        )
    );
    assert_eq!(
        server("192.168.150.12"),
        format!("{at} 192.168.150.12:80 is already servers[0] of this service")
    );
    assert_eq!(server("192.168.150.100"), format!("{at} 192.168.150.100 is the VIP of the service web"));
    assert_eq!(
        server("192.168.150.11"),
        format!(
            "{at} 192.168.150.11 is the director's own address on lan: a server on the director itself needs exception \
             = \"tap\" on that port"
        )
    );
    assert_eq!(
        server("192.168.150.255"),
        format!("{at} 192.168.150.255 is the broadcast address of {on}").replace(" on lan", "")
    );
    assert_eq!(server("127.0.0.1"), format!("{at} 127.0.0.1 is a loopback address"));
    assert_eq!(
        server("fd00::12"),
        format!(
            "{at} fd00::12 is not of the family of the VIP 192.168.150.100: forwarding \"dr\" needs that"
        )
    );
    let no_ipv6 = SMALL.replace(", \"fd00::11/64\"", "").replace("192.168.150.100", "2001:db8::1");
    let no_ipv6 =
        no_ipv6.replace("\"192.168.150.12\"", "\"fd00::12\"").replace("\"192.168.150.13\"", "\"fd00::13\"");
    let message =
        "is on no directly connected network (there is none for IPv6): forwarding \"dr\" needs that";
    assert_eq!(
        faults(&no_ipv6),
        format!(
            "line 12: services[0].servers[0].address: fd00::12 {message}\n\
             line 15: services[0].servers[1].address: fd00::13 {message}"
        )
    );
}

/// Faults of the small configuration with one more server of these lines from line 16 on, its address on 17.
fn server_of(address: &str, lines: &str) -> String {
    faults_after(&format!("[[services.servers]]\naddress = \"{address}\"\n{lines}\n"))
}

#[test]
fn only_nat_changes_the_port() {
    let error = |forwarding: &str| {
        format!(
            "line 18: services[0].servers[2].port: 8080 is not the service's port 80: forwarding \"{forwarding}\" keeps \
             the port, only \"nat\" and \"fullnat\" change it"
        )
    };
    let of = |forwarding: &str| {
        server_of("192.168.150.14", &format!("port = 8080\nforwarding = \"{forwarding}\""))
    };
    assert_eq!(of("dr"), error("dr"));
    assert_eq!(of("tunnel"), error("tunnel"));
    assert_eq!(of("nat"), "no fault");
    assert_eq!(
        server_of("192.168.150.12", "port = 8080\nforwarding = \"nat\""),
        "no fault",
        "one host, two servers"
    );
    assert_eq!(
        server_of("192.168.150.14", "port = 0\nforwarding = \"nat\""),
        "line 18: services[0].servers[2].port: 0 is below the limit 1"
    );
}

#[test]
fn nat_and_tunnels_reach_further_than_dr() {
    let at = "line 17: services[0].servers[2].address:";
    for forwarding in ["nat", "tunnel"] {
        let of = |address: &str| server_of(address, &format!("forwarding = \"{forwarding}\""));
        assert_eq!(
            of("10.9.9.9"),
            format!(
                "{at} 10.9.9.9 is on no directly connected network (192.168.150.0/24 on lan): forwarding \
                 \"{forwarding}\" needs that or a gateway of its family"
            )
        );
        for (address, why) in [
            (
                "192.168.150.11",
                match forwarding {
                    "nat" => {
                        "the director's own address on lan: a server on the director itself needs exception = \"tap\" on \
                         that port"
                    }
                    _ => {
                        "the director's own address on lan: forwarding \"tunnel\" does not lead to the director itself, \
                         \"dr\" and \"nat\" do"
                    }
                },
            ),
            ("192.168.150.100", "the VIP of the service web"),
            ("192.168.150.255", "the broadcast address of 192.168.150.0/24"),
            ("127.0.0.1", "a loopback address"),
        ] {
            assert_eq!(of(address), format!("{at} {address} is {why}"));
        }
        let text = SMALL.replace("\"null\"", "\"null\"\ngateway = \"192.168.150.1\"");
        let server = "[[services.servers]]\naddress = \"10.9.9.9\"\nforwarding = ";
        assert_eq!(faults(&format!("{text}{server}\"{forwarding}\"\n")), "no fault");
    }
    assert_eq!(server_of("fd00::12", "forwarding = \"tunnel\""), "no fault", "a tunnel may cross families");
    assert_eq!(
        server_of("fd00::12", "forwarding = \"nat\""),
        format!(
            "{at} fd00::12 is not of the family of the VIP 192.168.150.100: forwarding \"nat\" needs that"
        )
    );
}

#[test]
fn port_0_needs_persistence() {
    let of = |lines: &str| faults_with("port = 80", lines);
    assert_eq!(
        of("port = 0"),
        "line 9: services[0].port: 0 (every port without a service of its own) needs persistence, as in IPVS; without it \
         say ports = \"1-65535\""
    );
    assert_eq!(of("port = 0\npersistence = {}"), "no fault");
    assert_eq!(
        faults(
            &SMALL
                .replace("192.168.150.100", "192.168.150.96/28")
                .replace("port = 80", "port = 0\npersistence = {}")
        ),
        "line 9: services[0].port: 0 (every port) goes with one VIP only; with a network of them say ports = \"1-65535\""
    );
    assert_eq!(of("ports = \"1-65535\""), "no fault");
    assert_eq!(of("ports = \"0-65535\""), "line 9: services[0].ports: 0 is below the limit 1");
    let server = "[[services.servers]]\naddress = \"192.168.150.14\"\nport = 80\n";
    assert_eq!(
        faults(&format!("{}{server}", SMALL.replace("port = 80", "ports = \"80-81\""))),
        "line 18: services[0].servers[2].port: 80 is of no use in a service of several ports: forwarding \"dr\" keeps \
         the port, only \"nat\" and \"fullnat\" change it"
    );
    let nat = SMALL.replace("port = 80", "ports = \"80-81\"\nforwarding = \"nat\"");
    assert_eq!(faults(&format!("{nat}{server}")), "no fault");
}

#[test]
fn a_range_of_vips_leaves_the_neighbours_theirs() {
    let all = |vip: &str| faults_with("\"192.168.150.100\"", &format!("\"{vip}\""));
    let of = |vip: &str| all(vip).lines().next().unwrap_or_default().to_owned();
    let at = "line 8: services[0].vip:";
    assert_eq!(
        (of("203.0.113.0/28"), of("192.168.150.96/28")),
        ("no fault".to_owned(), "no fault".to_owned())
    );
    assert_eq!(
        of("203.0.113.1/28"),
        format!("{at} \"203.0.113.1/28\" has bits beyond its prefix: its network is 203.0.113.0/28")
    );
    assert_eq!(of("0.0.0.0/0"), format!("{at} 0.0.0.0/0 has 0.0.0.0, which is the unspecified address"));
    assert_eq!(
        of("126.0.0.0/7"),
        format!("{at} 126.0.0.0/7 has 127.255.255.255, which is a loopback address")
    );
    assert_eq!(
        of("192.168.0.0/16"),
        format!(
            "{at} 192.168.0.0/16 covers 192.168.150.0/24 on lan: the director would answer for every host there"
        )
    );
    assert_eq!(
        faults(
            &SMALL
                .replace("\"null\"", "\"null\"\ngateway = \"192.168.150.101\"")
                .replace("192.168.150.100", "192.168.150.96/28")
        ),
        "line 9: services[0].vip: 192.168.150.96/28 has 192.168.150.101, which is the gateway of lan"
    );
    assert_eq!(
        all("192.168.150.0/28"),
        "line 12: services[0].servers[0].address: 192.168.150.12 is a VIP of the service web\n\
         line 15: services[0].servers[1].address: 192.168.150.13 is a VIP of the service web"
    );
}

#[test]
fn of_two_services_one_is_more_specific() {
    let with = |lines: &str| faults_after(&format!("[[services]]\nname = \"two\"\n{lines}\n"));
    assert_eq!(with("vip = \"192.168.150.100\"\nports = \"1-65535\""), "no fault");
    assert_eq!(with("vip = \"192.168.150.96/28\"\nport = 80"), "no fault");
    assert_eq!(with("vip = \"192.168.150.100\"\nport = 0\npersistence = {}"), "no fault");
    let three = |first: &str, second: &str| {
        with(&format!(
            "vip = \"203.0.113.1\"\nports = \"{first}\"\n[[services]]\nname = \"three\"\nvip = \"203.0.113.1\"\nports = \"{second}\""
        ))
    };
    assert_eq!(
        (three("80-90", "85-99"), three("80-90", "91-101")),
        ("no fault".to_owned(), "no fault".to_owned())
    );
    assert_eq!(
        three("80-90", "85-95"),
        "line 23: services[2].ports: 85-95 overlaps 80-90 of the service two, and neither is the narrower one"
    );
    assert_eq!(
        three("85-95", "80-90"),
        "line 23: services[2].ports: 80-90 overlaps 85-95 of the service two, and neither is the narrower one"
    );
    assert_eq!(
        three("80-90", "80-90"),
        "line 22: services[2].vip: 203.0.113.1:80-90/tcp is already the service two"
    );
}

#[test]
fn a_mark_takes_the_place_of_the_vip() {
    let with = |lines: &str| faults_after(&format!("[[services]]\nname = \"two\"\n{lines}\n"));
    assert_eq!(with("mark = 7\nfamily = \"ipv6\""), "no fault");
    assert_eq!(with("mark = 0"), "line 18: services[1].mark: 0 is below the limit 1");
    assert_eq!(
        with("mark = 7\nfamily = \"ipx\""),
        "line 19: services[1].family: \"ipx\" is not a family (known: ipv4, ipv6)"
    );
    let useless = "is of no use with mark: the rules in [[marks]] choose the packets";
    assert_eq!(
        with("mark = 7\nvip = \"10.0.0.1\"\nport = 80\nprotocol = \"tcp\""),
        format!(
            "line 19: services[1].vip: {useless}\nline 20: services[1].port: {useless}\nline 21: services[1].protocol: {useless}"
        )
    );
    assert_eq!(
        faults_with("port = 80", "port = 80\nfamily = \"ipv4\""),
        "line 10: services[0].family: is of use with mark only: the VIP tells the family"
    );
    assert_eq!(
        faults_with("port = 80", "port = 80\nports = \"80-81\""),
        "line 10: services[0].ports: is of no use beside port: a service has one of the two"
    );
    let again = "mark = 7\n[[services]]\nname = \"three\"\nmark = 7";
    assert_eq!(with(again), "line 21: services[2].mark: mark:7 is already the service two");
    assert_eq!(with(&format!("{again}\nfamily = \"ipv6\"")), "no fault");
    let server = "[[services.servers]]\naddress = \"fd00::12\"";
    assert_eq!(
        with(&format!("mark = 7\n{server}")),
        "line 20: services[1].servers[0].address: fd00::12 is not of the family of the service: forwarding \"dr\" needs that"
    );
    assert_eq!(with(&format!("mark = 7\nfamily = \"ipv6\"\n{server}")), "no fault");
}

#[test]
fn mark_rules_can_match() {
    let of = |lines: &str| faults_after(&format!("[[marks]]\nvalue = 7\n{lines}\n"));
    assert_eq!(of("port = \"lan\"\nvlan = 10\nsource = \"10.0.0.1\"\nports = \"0-1023\""), "no fault");
    assert_eq!(of("port = \"wan\""), "line 18: marks[0].port: there is no port \"wan\" (see [[ports]])");
    assert_eq!(of("vlan = 4095"), "line 18: marks[0].vlan: 4095 is above the limit 4094");
    assert_eq!(
        of("source = \"10.0.0.0/8\"\ndestination = \"fd00::/8\""),
        "line 19: marks[0].destination: fd00::/8 is not of the family of the source 10.0.0.0/8"
    );
    assert_eq!(
        of("[[marks]]\nvalue = 8"),
        "line 19: marks[1].value: never matches: marks[0] matches the same packets before it"
    );
    assert_eq!(of("ports = \"90-80\"").lines().count(), 1);
    assert_eq!(
        of("ports = \"http\""),
        "line 18: marks[0].ports: \"http\" is no range of ports: write FIRST-LAST, such as \"8000-8999\""
    );
    let rules: String = (1..=4097).map(|n| format!("[[marks]]\nvalue = 1\nports = \"{n}\"\n")).collect();
    assert_eq!(faults_after(&rules), "line 16: marks: 4097 rules are above the limit 4096");
}

#[test]
fn policies_have_ranges_and_protocols() {
    let of = |lines: &str| faults_after(&format!("[services.policy]\n{lines}\n"));
    let at = "line 17: services[0].policy";
    assert_eq!(of("mss = 535"), format!("{at}.mss: 535 is below the limit 536"));
    assert_eq!(
        of("max_connections = 200000001"),
        format!("{at}.max_connections: 200000001 is above the limit 200000000")
    );
    assert_eq!(
        of("dr_close_timeout = \"1ms\""),
        format!("{at}.dr_close_timeout: 1ms is below the limit 250ms")
    );
    assert_eq!(
        of("on_no_server = \"rst\""),
        format!("{at}.on_no_server: \"rst\" is not an answer (known: icmp, reset, drop)")
    );
    assert_eq!(of("on_no_server = \"reset\"\non_server_down = \"reset\"\nreuse = \"ipvs\""), "no fault");
    let udp = "[[services]]\nname = \"u\"\nvip = \"192.168.150.101\"\nport = 53\nprotocol = \"udp\"\n[services.policy]\n";
    let only = "is of use in tcp services only, not with udp";
    let no_resets = "\"reset\" is of no use in udp services, which have no resets";
    assert_eq!(
        faults_after(&format!(
            "{udp}on_no_server = \"reset\"\non_server_down = \"reset\"\nreuse = \"ipvs\"\nmss = 1400\ndr_close_timeout = \"1s\"\n"
        )),
        format!(
            "line 22: services[1].policy.on_no_server: {no_resets}\nline 23: services[1].policy.on_server_down: {no_resets}\n\
             line 24: services[1].policy.reuse: {only}\nline 25: services[1].policy.mss: {only}\n\
             line 26: services[1].policy.dr_close_timeout: {only}"
        )
    );
    let director = |line: &str| faults_after(&format!("[policy]\n{line}\n"));
    assert_eq!(director("secure_tcp = 4"), "line 17: policy.secure_tcp: 4 is above the limit 3");
    assert_eq!(director("conn_reuse_mode = -1"), "line 17: policy.conn_reuse_mode: -1 is below the limit 0");
    assert_eq!(
        director("compat = \"lvs\""),
        "line 17: policy.compat: \"lvs\" is not a compatibility (known: none, ipvs)"
    );
}

#[test]
fn a_syn_proxy_needs_tcp_whose_replies_pass() {
    let of = |lines: &str, server: &str| {
        faults_after(&format!(
            "[[services]]\nname = \"p\"\nvip = \"192.168.150.101\"\nport = 53\n{lines}\nservers = [{{ address = \"192.168.150.77\"{server} }}]\n"
        ))
    };
    let at = "line 21: services[1].policy.syn_proxy";
    let nat = "forwarding = \"nat\"\npolicy.syn_proxy";
    assert_eq!(of(&format!("{nat} = \"auto\""), ""), "no fault");
    assert_eq!(of(&format!("{nat} = \"always\""), ", forwarding = \"nat\""), "no fault");
    assert_eq!(of("policy.syn_proxy = \"off\"", ""), "no fault");
    let full = "local_addresses = [\"192.168.150.11\"]\nforwarding = \"fullnat\"\nclient_address";
    assert_eq!(of(&format!("{full} = \"toa\"\npolicy.syn_proxy = \"always\""), ""), "no fault");
    assert_eq!(
        of(&format!("{nat} = \"on\""), ""),
        format!("{at}: \"on\" is not a use of the SYN proxy (known: off, auto, always)")
    );
    let where_ = "needs the forwarding \"nat\" or \"fullnat\", where replies pass the director, not";
    assert_eq!(
        of("policy.syn_proxy = \"auto\"", ""),
        format!("line 20: services[1].policy.syn_proxy: {where_} \"dr\"")
    );
    assert_eq!(
        of(&format!("{nat} = \"auto\""), ", forwarding = \"tunnel\""),
        format!("{at}: {where_} \"tunnel\"")
    );
    assert_eq!(
        of(&format!("protocol = \"udp\"\n{nat} = \"auto\""), ""),
        "line 22: services[1].policy.syn_proxy: is of use in tcp services only, not with udp"
    );
    assert_eq!(
        of(&format!("{full} = \"proxy-v2\"\npolicy.syn_proxy = \"always\""), ""),
        "line 23: services[1].policy.syn_proxy: cannot be together with client_address \"proxy-v2\": both renumber the \
         stream"
    );
    assert_eq!(
        faults_after("[policy]\nsyn_flood = 101\n"),
        "line 17: policy.syn_flood: 101 is above the limit 100"
    );
}

#[test]
fn udp_activity_needs_connections_of_udp() {
    let udp = |lines: &str| {
        faults_after(&format!(
            "[[services]]\nname = \"u\"\nvip = \"192.168.150.101\"\nport = 53\nprotocol = \"udp\"\n{lines}\n"
        ))
    };
    assert_eq!(udp("policy.udp_activity = \"10s\""), "no fault");
    assert_eq!(
        udp("policy.udp_activity = \"1ms\""),
        "line 21: services[1].policy.udp_activity: 1ms is below the limit 250ms"
    );
    assert_eq!(
        udp("one_packet = true\npolicy.udp_activity = \"10s\""),
        "line 22: services[1].policy.udp_activity: is of no use with one_packet, which keeps no connections"
    );
    assert_eq!(
        faults_after("[services.policy]\nudp_activity = \"10s\"\n"),
        "line 17: services[0].policy.udp_activity: is of use in udp services only, not with tcp"
    );
}

#[test]
fn a_drain_deadline_has_a_range_and_an_effect() {
    let of = |lines: &str, rest: &str| {
        faults_after(&format!(
            "[[services.servers]]\naddress = \"192.168.150.14\"\n{lines}\n[services.policy]\n{rest}\n"
        ))
    };
    let at = "services[0].servers[2].drain_deadline";
    let drop = "on_server_down = \"drop\"";
    for fate in ["reset", "reschedule", "drop"] {
        let policy = format!("on_server_down = \"{fate}\"");
        assert_eq!(of("weight = 0\ndrain_deadline = \"5m\"", &policy), "no fault", "{fate}");
    }
    assert_eq!(
        of("weight = 0\ndrain_deadline = \"999ms\"", drop),
        format!("line 19: {at}: 999ms is below the limit 1s")
    );
    assert_eq!(
        of("weight = 0\ndrain_deadline = \"745h\"", drop),
        format!("line 19: {at}: 2682000s is above the limit 2678400s (31 days)")
    );
    let weight = |n: u32| format!("{at}: 300s is of use with weight 0 only, not with weight {n}");
    assert_eq!(of("drain_deadline = \"5m\"", drop), format!("line 18: {}", weight(1)));
    assert_eq!(of("weight = 7\ndrain_deadline = \"5m\"", drop), format!("line 19: {}", weight(7)));
    let nothing = "300s: nothing would happen at the deadline, as the service's on_server_down is \"keep\"; set that to \
                   \"reset\", \"reschedule\" or \"drop\"";
    let drains = "weight = 0\ndrain_deadline = \"5m\"";
    for keeps in ["", "on_server_down = \"keep\""] {
        assert_eq!(of(drains, keeps), format!("line 19: {at}: {nothing}"), "{keeps}");
    }
    // the director's policy counts where the service has none; a slip there is one fault, not two
    assert_eq!(of(drains, "[policy]\ncompat = \"ipvs\""), "no fault");
    assert_eq!(of(drains, "[policy]\nexpire_nodest_conn = true"), "no fault");
    assert!(!of(drains, "on_server_down = \"rst\"").contains('\n'));
    assert!(!of(drains, "[policy]\ncompat = \"lvs\"").contains('\n'));
}

#[test]
fn thresholds_have_a_range_and_an_order() {
    let of = |lines: &str| server_of("192.168.150.14", lines);
    let at = "line 18: services[0].servers[2]";
    assert_eq!(
        of("upper_threshold = 2147483648"),
        format!("{at}.upper_threshold: 2147483648 is above the limit 2147483647")
    );
    assert_eq!(of("lower_threshold = -1"), format!("{at}.lower_threshold: -1 is below the limit 0"));
    assert_eq!(
        of("lower_threshold = 5\nupper_threshold = 4"),
        format!("{at}.lower_threshold: 5 is above the server's upper_threshold 4")
    );
    assert_eq!(
        of("lower_threshold = 1"),
        format!("{at}.lower_threshold: 1 is above the server's upper_threshold 0")
    );
    assert_eq!(of("lower_threshold = 5\nupper_threshold = 5"), "no fault");
    assert_eq!(of("upper_threshold = 5"), "no fault");
}

#[test]
fn persistence_has_a_range_and_fits_the_family() {
    let of = |inner: &str| faults_with("port = 80", &format!("port = 80\npersistence = {{ {inner} }}"));
    let at = "line 10: services[0].persistence";
    assert_eq!(of("timeout = \"0s\""), format!("{at}.timeout: 0s is below the limit 1s"));
    assert_eq!(
        of("timeout = \"745h\""),
        format!("{at}.timeout: 2682000s is above the limit 2678400s (31 days)")
    );
    assert_eq!(of("timeout = \"1500ms\""), format!("{at}.timeout: 1.5s is not a whole number of seconds"));
    assert_eq!(of("prefix = 33"), format!("{at}.prefix: 33 is above the limit 32 of an IPv4 VIP"));
    assert_eq!(of("prefix = 129"), format!("{at}.prefix: 129 is above the limit 128"));
    assert_eq!(
        (of("timeout = \"744h\", prefix = 0"), of("")),
        ("no fault".to_owned(), "no fault".to_owned())
    );
    assert_eq!(
        faults_with("port = 80", "port = 80\none_packet = true"),
        "line 10: services[0].one_packet: is of use in udp services only, not with tcp"
    );
    assert_eq!(faults_with("port = 80", "port = 80\nprotocol = \"udp\"\none_packet = true"), "no fault");
}

#[test]
fn the_networks_there_are_are_named_up_to_eight() {
    let mut more = String::new();
    for index in 0..9 {
        let _ = write!(
            more,
            "[[ports]]\nname = \"p{index}\"\ndevice = \"null\"\naddresses = [\"10.{index}.0.1/16\"]\n"
        );
    }
    let text = format!("{SMALL}{more}").replace("192.168.150.13", "172.16.0.1");
    let message = faults(&text);
    assert!(message.contains("(192.168.150.0/24 on lan, 10.0.0.0/16 on p0, "), "{message}");
    assert!(message.contains("10.6.0.0/16 on p6, 2 more): forwarding"), "{message}");
}

#[test]
fn timeouts_have_a_range_and_a_protocol() {
    let of = |text: &str| faults_after(&format!("[timeouts]\nudp = \"{text}\"\n"));
    assert_eq!(of("249ms"), "line 17: timeouts.udp: 249ms is below the limit 250ms");
    assert_eq!(of("64801s"), "line 17: timeouts.udp: 64801s is above the limit 64800s (18h)");
    assert_eq!((of("250ms"), of("18h")), ("no fault".to_owned(), "no fault".to_owned()));
    assert_eq!(
        faults_after("[services.timeouts]\ntcp_fin_wait = \"19h\"\nudp = \"1s\"\n"),
        "line 17: services[0].timeouts.tcp_fin_wait: 68400s is above the limit 64800s (18h)\n\
         line 18: services[0].timeouts.udp: is of use in udp services only, not with tcp"
    );
    assert_eq!(
        faults_after(
            "[[services]]\nname='d'\nvip='192.168.150.100'\nport=53\nprotocol='udp'\ntimeouts.tcp_syn_recv='1s'\n"
        ),
        "line 21: services[1].timeouts.tcp_syn_recv: is of use in tcp services only, not with udp"
    );
    assert_eq!(
        faults_after(
            "[[services]]\nname='s'\nvip='192.168.150.100'\nport=36412\nprotocol='sctp'\ntimeouts.sctp_init='9s'\n\
             timeouts.sctp_closed='100ms'\ntimeouts.udp='1s'\n"
        ),
        "line 22: services[1].timeouts.sctp_closed: 100ms is below the limit 250ms\n\
         line 23: services[1].timeouts.udp: is of use in udp services only, not with sctp"
    );
}

#[test]
fn ports_do_not_share_a_vlan_of_a_device() {
    let two = |first: &str, second: &str| {
        let text = SMALL.replace("device = \"null\"", &format!("device = \"tap:lb0\"\n{first}"));
        faults(&format!(
            "{text}[[ports]]\nname=\"b\"\ndevice=\"tap:lb0\"\naddresses=[\"10.0.0.1/24\"]\n{second}\n"
        ))
    };
    let at = "line 19: ports[1].device: tap:lb0";
    assert_eq!(two("", ""), format!("{at} untagged is already the device of lan"));
    assert_eq!(two("vlan = 7", "vlan = 7"), format!("{at} with VLAN 7 is already the device of lan"));
    assert_eq!(two("vlan = 7", "vlan = 8"), "no fault");
    assert_eq!(two("mtu = 9000", "vlan = 8"), "no fault");
}

#[test]
fn vlan_and_mtu_have_ranges() {
    assert_eq!(port_with("vlan = 0"), "line 4: ports[0].vlan: 0 is below the limit 1");
    assert_eq!(port_with("vlan = 4095"), "line 4: ports[0].vlan: 4095 is above the limit 4094");
    assert_eq!(port_with("mtu = 9001"), "line 4: ports[0].mtu: 9001 is above the limit 9000");
    assert_eq!(port_with("mtu = 575"), "line 4: ports[0].mtu: 575 is below the limit 576");
    assert_eq!(
        port_with("mtu = 1279"),
        "line 4: ports[0].mtu: 1279 is below the limit 1280 of a port with an IPv6 address"
    );
    assert_eq!(addresses("[\"10.0.0.1/24\"]\nmtu = 576"), "no fault");
}

#[test]
fn an_own_address_is_one_that_a_host_can_have_and_is_given_once() {
    let at = "line 4: ports[0].addresses[0]:";
    assert_eq!(
        addresses("[\"10.0.0.0/24\"]"),
        format!("{at} 10.0.0.0 is the network address of 10.0.0.0/24")
    );
    assert_eq!(
        addresses("[\"10.0.0.255/24\"]"),
        format!("{at} 10.0.0.255 is the broadcast address of 10.0.0.0/24")
    );
    assert_eq!(
        addresses("[\"fd00::/64\"]"),
        format!("{at} fd00:: is the subnet-router anycast address of fd00::/64")
    );
    assert_eq!(addresses("[\"127.0.0.1/8\"]"), format!("{at} 127.0.0.1 is a loopback address"));
    assert_eq!(
        addresses("[\"::ffff:10.0.0.1/128\"]"),
        format!("{at} ::ffff:10.0.0.1 is an IPv4-mapped address")
    );
    assert_eq!(addresses("[]"), "line 4: ports[0].addresses: is empty: a port has at least one address");
    assert_eq!(
        addresses("[\"10.0.0.1/24\", \"10.0.0.1/16\"]"),
        "line 4: ports[0].addresses[1]: 10.0.0.1 is already an address of lan"
    );
    assert_eq!(addresses("[\"10.0.0.1/24\", \"10.0.0.2/24\", \"10.0.0.0/31\"]"), "no fault");
    assert_eq!(
        second_port(&format!("{WAN}addresses = [\"192.168.150.11/24\"]")),
        "line 19: ports[1].addresses[0]: 192.168.150.11 is already an address of lan"
    );
}

#[test]
fn networks_of_two_ports_do_not_overlap() {
    let of = |address: &str| second_port(&format!("{WAN}addresses = [\"{address}\"]"));
    assert_eq!(
        of("192.168.150.20/28"),
        "line 19: ports[1].addresses[0]: 192.168.150.16/28 overlaps 192.168.150.0/24 on lan"
    );
    assert_eq!(
        of("192.168.150.20/24"),
        "line 19: ports[1].addresses[0]: 192.168.150.0/24 overlaps 192.168.150.0/24 on lan"
    );
    assert_eq!(
        of("192.168.0.1/16"),
        "line 4: ports[0].addresses[0]: 192.168.150.0/24 overlaps 192.168.0.0/16 on wan",
        "it is the longer one that is told"
    );
    assert_eq!(of("fd00::1:0:0:1/48"), "line 4: ports[0].addresses[1]: fd00::/64 overlaps fd00::/48 on wan");
    assert_eq!(of("192.168.151.1/24"), "no fault");
}

#[test]
fn a_gateway_is_a_neighbour_and_one_per_family() {
    let at = "line 4: ports[0].gateway:";
    let port = |gateway: &str| port_with(&format!("gateway = {gateway}"));
    let nets = "(192.168.150.11/24, fd00::11/64)";
    assert_eq!(port("\"192.168.151.1\""), format!("{at} 192.168.151.1 is in no network of the port {nets}"));
    assert_eq!(
        port("\"192.168.150.11\""),
        format!("{at} 192.168.150.11 is the director's own address on lan")
    );
    assert_eq!(
        port("\"192.168.150.255\""),
        format!("{at} 192.168.150.255 is the broadcast address of 192.168.150.0/24")
    );
    assert_eq!(port("\"gw\""), format!("{at} \"gw\" is not an IPv4 or IPv6 address"));
    assert_eq!(
        port("[\"192.168.150.1\", \"fd01::1\"]"),
        format!("line 4: ports[0].gateway[1]: fd01::1 is in no network of the port {nets}")
    );
    assert_eq!(
        port("[\"192.168.150.1\", \"192.168.150.2\"]"),
        "line 4: ports[0].gateway[1]: 192.168.150.2: lan already has the one IPv4 gateway"
    );
    assert_eq!(port("[\"192.168.150.1\", \"fd00::1\"]"), "no fault");
    let text = SMALL.replace("\"null\"", "\"null\"\ngateway = \"fd00::1\"");
    let more = "[[ports]]\nname = \"wan\"\ndevice = \"null\"\naddresses = [\"fd01::11/64\"]\ngateway = \"fd01::1\"\n";
    assert_eq!(
        faults(&format!("{text}{more}")),
        "line 21: ports[1].gateway: fd01::1: lan already has the one IPv6 gateway"
    );
}

#[test]
fn workers_are_one_to_64_distinct_cpus() {
    let workers = |list: &str| faults_after(&format!("[appliance]\nworkers = {list}\n"));
    assert_eq!(workers("[]"), "line 17: appliance.workers: number of workers: 0 is below the limit 1");
    assert_eq!(workers("[1, 2, 1]"), "line 17: appliance.workers[2]: CPU 1 is already that of worker 0");
    assert_eq!(workers("[1024]"), "line 17: appliance.workers[0]: 1024 is above the limit 1023");
    assert_eq!(
        workers("[\"x\", 2, 2]"),
        "line 17: appliance.workers[0]: expected a whole number, found the text \"x\"\n\
         line 17: appliance.workers[2]: CPU 2 is already that of worker 1"
    );
    let many: Vec<String> = (0..65).map(|cpu| cpu.to_string()).collect();
    assert_eq!(
        workers(&format!("[{}]", many.join(","))),
        "line 17: appliance.workers: number of workers: 65 is above the limit 64"
    );
    assert_eq!(workers(&format!("[{}]", many[..64].join(","))), "no fault");
}

#[test]
fn the_rest_of_the_appliance_is_checked() {
    let appliance = |line: &str| faults_after(&format!("[appliance]\n{line}\n"));
    assert_eq!(
        appliance("control_cpu = 1024"),
        "line 17: appliance.control_cpu: 1024 is above the limit 1023"
    );
    assert_eq!(appliance("memory_mib = 63"), "line 17: appliance.memory_mib: 63 is below the limit 64");
    assert_eq!(
        appliance("socket = \"lbd.sock\""),
        "line 17: appliance.socket: \"lbd.sock\" is not an absolute path without control characters"
    );
    assert_eq!(
        appliance(&format!("socket = \"/{}\"", "s".repeat(107))),
        "line 17: appliance.socket: 108 bytes of path are above the limit 107"
    );
    assert_eq!(
        appliance("socket_group = \"a:b\""),
        "line 17: appliance.socket_group: \"a:b\" is not the name of a group"
    );
    assert_eq!(
        appliance("cluster_secret = \"short\""),
        "line 17: appliance.cluster_secret: 5 bytes of secret are below the limit 16"
    );
    assert_eq!(
        appliance(&format!("cluster_secret = \"{}\"", "s".repeat(257))),
        "line 17: appliance.cluster_secret: 257 bytes of secret are above the limit 256"
    );
}

#[test]
fn limits_have_ranges_and_hold_for_the_file_itself() {
    let limits = |lines: &str| faults_after(&format!("[limits]\n{lines}\n"));
    for (key, below, min, above, max) in [
        ("max_connections", 1023, 1024, 200_000_001_u64, 200_000_000),
        ("max_services", 0, 1, 262_145, 262_144),
        ("max_servers", 0, 1, 4_194_305, 4_194_304),
        ("neighbor_queue", 0, 1, 4097, 4096),
        ("mbufs", 1023, 1024, 4_194_305, 4_194_304),
    ] {
        let at = format!("line 17: limits.{key}:");
        assert_eq!(limits(&format!("{key} = {below}")), format!("{at} {below} is below the limit {min}"));
        assert_eq!(limits(&format!("{key} = {above}")), format!("{at} {above} is above the limit {max}"));
    }
    let second = "[[services]]\nname = \"two\"\nvip = \"192.168.150.101\"\nport = 80\n";
    assert_eq!(
        limits(&format!("max_services = 1\nmax_servers = 1\n{second}")),
        "line 6: services: 2 services are above the limit 1 (limits.max_services)\n\
         line 6: services: 2 servers over all services are above the limit 1 (limits.max_servers)"
    );
    assert_eq!(limits(&format!("max_services = 2\nmax_servers = 2\n{second}")), "no fault");
}

#[test]
fn a_server_on_the_director_needs_an_exception_path_of_its_port() {
    let with_tap = |forwarding: &str| {
        let text = SMALL.replace("\"null\"", "\"null\"\nexception = \"tap\"");
        let server = "[[services.servers]]\naddress = \"192.168.150.11\"\nforwarding = ";
        faults(&format!("{text}{server}\"{forwarding}\"\n"))
    };
    assert_eq!((with_tap("dr"), with_tap("nat")), ("no fault".to_owned(), "no fault".to_owned()));
    assert!(with_tap("tunnel").contains("does not lead to the director itself"));
}

#[test]
fn the_kernels_interface_has_a_name_of_its_own() {
    let with = |lines: &str| faults_with("\"null\"", &format!("\"null\"\n{lines}"));
    assert_eq!(
        with("exception = \"tap\"\nexception_interface = \"kernel0\"\nexception_rate = 100"),
        "no fault"
    );
    let interface = |name: &str| with(&format!("exception = \"tap\"\nexception_interface = {name:?}"));
    assert!(
        interface("a/b").contains("exception_interface: \"a/b\" is not an interface name"),
        "{}",
        interface("a/b")
    );
    let off = with("exception = \"off\"\nexception_rate = 100\nexception_interface = \"x\"");
    assert_eq!(off.matches("is of use with exception = \"tap\" only").count(), 2, "{off}");
    assert!(with("exception = \"tap\"\nexception_rate = 99").contains("99 is below the limit 100"));
    let long =
        SMALL.replace("\"lan\"", "\"a-very-long-name\"").replace("\"null\"", "\"null\"\nexception = \"tap\"");
    assert!(faults(&long).contains("made from the port's name"), "{}", faults(&long));
    let same =
        SMALL.replace("\"null\"", "\"af_packet:eth0\"\nexception = \"tap\"\nexception_interface = \"eth0\"");
    assert!(faults(&same).contains("\"eth0\" is the interface of af_packet:eth0"), "{}", faults(&same));
    let port = |name: &str, net: u8| {
        format!(
            "[[ports]]\nname = \"{name}\"\ndevice = \"null\"\nexception = \"tap\"\nexception_interface = \"both\"\n\
             addresses = [\"10.0.{net}.1/24\"]\n"
        )
    };
    let shared = crate::parse(&(port("a", 1) + &port("b", 2))).unwrap();
    assert!(
        shared.ports.iter().all(|port| port.exception.as_ref().is_some_and(|own| own.interface == "both"))
    );
}

#[test]
fn ports_of_nics_have_an_exception_path_unless_they_say_otherwise() {
    let interface = |text: &str| {
        let model = crate::parse(text).unwrap();
        model.ports[0].exception.as_ref().map(|own| (own.interface.clone(), own.rate))
    };
    assert_eq!(interface(SMALL), None);
    let pci = SMALL.replace("\"null\"", "\"pci:0000:3b:00.0\"");
    assert_eq!(interface(&pci), Some(("lb-lan".to_owned(), 20_000)));
    assert_eq!(interface(&pci.replace("00.0\"", "00.0\"\nexception = \"off\"")), None);
}
