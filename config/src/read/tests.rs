//! Faults of syntax, keys, types and single values: the exact messages.

use crate::parse;
use crate::tests::{SMALL, faults, faults_after, faults_with, small};

#[test]
fn the_smallest_configuration_takes_the_defaults() {
    let model = small();
    assert_eq!(model.appliance, crate::Appliance::default());
    assert_eq!(model.limits, crate::Limits::default());
    assert_eq!(model.timeouts, crate::Timeouts::default());
    assert_eq!((model.ports[0].vlan, model.ports[0].mtu, model.ports[0].gateways.len()), (None, 1500, 0));
    let service = &model.services[0];
    assert_eq!((service.protocol(), service.scheduler), (Some(crate::Protocol::Tcp), crate::Scheduler::Rr));
    assert_eq!((service.policy, model.policy), (crate::ServicePolicy::default(), crate::Policy::default()));
    assert_eq!((service.persistence, service.one_packet), (None, false));
    assert_eq!(service.servers[0], crate::Server::new([192, 168, 150, 12].into(), 80, crate::Forwarding::Dr));
}

#[test]
fn faults_have_line_column_and_path() {
    let text = SMALL.replace("port = 80", "port = 80\nwieght = 1\n\tscheduler = \"rrr\"");
    let faults = parse(&text).unwrap_err();
    let places: Vec<_> = faults.iter().map(|f| (f.line, f.column, f.path.as_str())).collect();
    assert_eq!(places, [(10, 1, "services[0].wieght"), (11, 14, "services[0].scheduler")]);
}

#[test]
fn all_faults_come_at_once_in_their_order() {
    let text = "\
[appliance]
idle = \"lazy\"
[[ports]]
name = \"lan\"
device = \"null\"
addresses = [\"10.0.0.1/24\", \"10.0.1.1\", 5]
[[services]]
name = \"web\"
vip = \"10.0.0.300\"
port = 65536
[[services.servers]]
address = \"10.0.0.2\"
weight = 70000
[limits]
mbufs = 1
";
    assert_eq!(
        faults(text),
        "\
line 2: appliance.idle: \"lazy\" is not an idle policy (known: adaptive, spin)
line 6: ports[0].addresses[1]: \"10.0.1.1\" has no prefix length: write ADDRESS/LENGTH, such as \"192.168.150.11/24\"
line 6: ports[0].addresses[2]: expected text in quotes, found the number 5
line 9: services[0].vip: \"10.0.0.300\" is not an IPv4 or IPv6 address
line 10: services[0].port: 65536 is above the limit 65535
line 13: services[0].servers[0].weight: 70000 is above the limit 65535
line 15: limits.mbufs: 1 is below the limit 1024"
    );
}

#[test]
fn a_fault_makes_no_others() {
    // The address that could not be read may be the one that puts the servers on a link.
    assert_eq!(
        faults_with("192.168.150.11/24", "192.168.150.11/33"),
        "line 4: ports[0].addresses[0]: \"192.168.150.11/33\": the prefix length is not 0 to 32"
    );
    assert_eq!(
        faults_with("[[ports]]", "[ports]"),
        "line 1: ports: expected an array of tables ([[ports]]), found a table"
    );
    assert_eq!(
        faults_with("addresses = [\"192.168.150.11/24\", \"fd00::11/64\"]", ""),
        "line 1: ports[0].addresses: is missing"
    );
    assert_eq!(
        faults_with("port = 80", "port = 80\ntimeouts = 5"),
        "line 10: services[0].timeouts: expected a table, found the number 5"
    );
    // Limits that could not be read limit nothing.
    assert_eq!(
        faults_after("[limits]\nmax_services = \"few\"\nmax_servers = 0\n"),
        "line 17: limits.max_services: expected a whole number, found the text \"few\"\n\
         line 18: limits.max_servers: 0 is below the limit 1"
    );
}

#[test]
fn missing_keys_are_told_at_their_table() {
    assert_eq!(
        faults_after("[[services]]\n[[services.servers]]\n[[ports]]\n"),
        "\
line 16: services[1].name: is missing
line 16: services[1].vip: is missing
line 16: services[1].port: is missing
line 17: services[1].servers[0].address: is missing
line 18: ports[1].name: is missing
line 18: ports[1].device: is missing
line 18: ports[1].addresses: is missing"
    );
    assert_eq!(faults(""), "line 1: ports: is missing: a director has at least one port ([[ports]])");
    assert_eq!(faults("ports = []"), "line 1: ports: is empty: a director has at least one port");
}

#[test]
fn unknown_keys_are_told_with_the_known_ones() {
    assert_eq!(
        faults_after("weigth = 2\n"),
        "line 16: services[0].servers[1].weigth: unknown key, did you mean \"weight\"? (known here: address, port, \
         weight, forwarding, tunnel, upper_threshold, lower_threshold, drain_deadline, health)"
    );
    assert_eq!(
        faults_after("\"a b\" = 2\n"),
        "line 16: services[0].servers[1].\"a b\": unknown key (known here: address, port, \
         weight, forwarding, tunnel, upper_threshold, lower_threshold, drain_deadline, health)"
    );
    assert_eq!(
        faults_after("[servcies]\n"),
        "line 16: servcies: unknown key, did you mean \"services\"? \
         (known here: appliance, limits, tables, timeouts, policy, notify, ports, marks, services, snat, vrrp, vrrp_groups, vrrp_scripts, vrrp_processes, vrrp_files, bfd)"
    );
    assert_eq!(
        faults_after("[timeouts]\ntcp = \"5s\"\n"),
        "line 17: timeouts.tcp: unknown key (known here: tcp_established, tcp_syn_sent, tcp_syn_recv, \
         tcp_fin_wait, tcp_time_wait, tcp_close, tcp_close_wait, tcp_synack, udp, sctp_init, sctp_handshake, \
         sctp_established, sctp_shutdown, sctp_rejected, sctp_closed)"
    );
    let long = "k".repeat(1000);
    assert!(faults_after(&format!("{long} = 1")).len() < 300, "a long key is cut");
}

#[test]
fn wrong_types_name_what_was_found() {
    let weight = |value: &str| faults_after(&format!("weight = {value}\n"));
    let at = "line 16: services[0].servers[1].weight: ";
    assert_eq!(weight("\"2\""), format!("{at}expected a whole number, found the text \"2\""));
    assert_eq!(weight("1.5"), format!("{at}expected a whole number, found the number 1.5"));
    assert_eq!(weight("true"), format!("{at}expected a whole number, found true"));
    assert_eq!(weight("[1]"), format!("{at}expected a whole number, found an array"));
    assert_eq!(weight("{}"), format!("{at}expected a whole number, found a table"));
    assert_eq!(weight("07:32:00"), format!("{at}expected a whole number, found a date or time"));
    assert_eq!(
        faults_with("\"web\"", "5"),
        "line 7: services[0].name: expected text in quotes, found the number 5"
    );
    assert_eq!(
        faults_after("[appliance]\nsocket_public_read = \"yes\"\nworkers = 2\n"),
        "line 17: appliance.socket_public_read: expected true or false, found the text \"yes\"\n\
         line 18: appliance.workers: expected an array, found the number 2"
    );
    assert_eq!(
        faults_after("[timeouts]\nudp = 300\n"),
        "line 17: timeouts.udp: expected a duration in quotes, such as \"900s\", found the number 300"
    );
    assert_eq!(
        faults_with("\"null\"", "\"null\"\ngateway = 1"),
        "line 4: ports[0].gateway: expected an address or an array of addresses, found the number 1"
    );
    assert_eq!(
        faults_after("[[services.servers.deep]]\n"),
        "line 16: services[0].servers[1].deep: unknown key (known here: address, port, \
         weight, forwarding, tunnel, upper_threshold, lower_threshold, drain_deadline, health)"
    );
    assert_eq!(faults("ports = [1]"), "line 1: ports[0]: expected a table, found the number 1");
    assert_eq!(
        faults_with(
            "[[services.servers]]\naddress = \"192.168.150.12\"\n\n[[services.servers]]",
            "[services.servers]"
        ),
        "line 11: services[0].servers: expected an array of tables ([[services.servers]]), found a table"
    );
}

#[test]
fn numbers_of_any_size_are_told_with_the_limit() {
    let weight = |value: &str| faults_after(&format!("weight = {value}\n"));
    let at = "line 16: services[0].servers[1].weight: ";
    assert_eq!(weight("70000"), format!("{at}70000 is above the limit 65535"));
    assert_eq!(weight("-1"), format!("{at}-1 is below the limit 0"));
    assert_eq!(weight("0x10000"), format!("{at}65536 is above the limit 65535"));
    assert_eq!(weight("99999999999999999999"), format!("{at}99999999999999999999 is above the limit 65535"));
    let (huge, cut) = ("9".repeat(500), "9".repeat(40));
    assert_eq!(weight(&huge), format!("{at}{cut}… is above the limit 65535"));
    assert_eq!(weight(&format!("-{huge}")), format!("{at}-{}… is below the limit 0", "9".repeat(39)));
    assert_eq!(weight("0xffff"), "no fault");
}

#[test]
fn single_values_are_told() {
    assert_eq!(
        faults_with("\"null\"", "\"eth0\""),
        "line 3: ports[0].device: \"eth0\" is not a device (KIND:ARGUMENT with a kind of pci, af_packet, af_xdp, tap, \
         memif, ring, pcap, null)"
    );
    assert_eq!(
        faults_with("port = 80", "port = 80\nprotocol = \"dccp\"\nforwarding = \"masq\""),
        "line 10: services[0].protocol: \"dccp\" is not a protocol (known: tcp, udp, sctp)\n\
         line 11: services[0].forwarding: \"masq\" is not a forwarding (known: dr, nat, tunnel, fullnat)"
    );
    assert_eq!(
        faults_after("[timeouts]\ntcp_close = \"10\"\n"),
        "line 17: timeouts.tcp_close: \"10\" is not a duration: use a whole number and ms, s, m or h, such as \"900s\""
    );
    assert_eq!(
        faults_after("[appliance]\nhuge_pages = \"4M\"\n"),
        "line 17: appliance.huge_pages: \"4M\" is not a huge page size (known: none, 2M, 1G)"
    );
}

#[test]
fn maglev_hash_goes_with_maglev_only() {
    let with = |text: &str| faults_with("port = 80", &format!("port = 80\n{text}"));
    assert_eq!(with("scheduler = \"maglev\"\nmaglev_size = 655373"), "no fault");
    assert_eq!(
        with("scheduler = \"maglev\"\nmaglev_size = 1024"),
        "line 11: services[0].maglev_size: 1024 is not a size of Maglev's table (known: 65537, 655373)"
    );
    assert_eq!(
        with("maglev_size = 65537\nscheduler = \"mh\""),
        "line 10: services[0].maglev_size: \"65537\" is of use with the scheduler maglev only, not with mh"
    );
    assert_eq!(with("scheduler = \"sh\"\nscheduler_flags = [\"sh-port\", \"flag-3\"]"), "no fault");
    assert_eq!(
        with("scheduler = \"dh\"\nscheduler_flags = [\"flag-1\", \"sh-port\"]"),
        "line 11: services[0].scheduler_flags[1]: \"sh-port\" is not a flag of the scheduler dh (known: flag-1, \
         flag-2, flag-3)"
    );
    assert_eq!(with("scheduler = \"maglev\"\nmaglev_hash = \"source\""), "no fault");
    let message = "\"flow\" is of use with the scheduler maglev only, not with";
    assert_eq!(with("maglev_hash = \"flow\""), format!("line 10: services[0].maglev_hash: {message} rr"));
    assert_eq!(
        with("maglev_hash = \"flow\"\nscheduler = \"lc\""),
        format!("line 10: services[0].maglev_hash: {message} lc")
    );
    assert_eq!(
        with("maglev_hash = \"port\"\nscheduler = \"magelv\""),
        "line 10: services[0].maglev_hash: \"port\" is not a Maglev hash (known: flow, source)\n\
         line 11: services[0].scheduler: \"magelv\" is not a scheduler (known: rr, wrr, lc, wlc, sed, nq, lblc, lblcr, dh, sh, \
         fo, ovf, twos, mh, maglev); did you mean \"maglev\"?"
    );
    // One form only: the parameter has a key of its own.
    assert_eq!(
        with("scheduler = \"maglev:source\""),
        "line 10: services[0].scheduler: \"maglev:source\" is not a scheduler (known: rr, wrr, lc, wlc, sed, nq, lblc, lblcr, dh, sh, \
         fo, ovf, twos, mh, maglev)"
    );
}

#[test]
fn a_server_takes_port_forwarding_and_tunnel_from_its_service() {
    let forwardings = |service: &str, server: &str| -> Vec<String> {
        let text = SMALL.replace("port = 80\n", &format!("port = 80\n{service}\n"));
        let model = parse(&format!("{text}{server}\n")).unwrap();
        model.services[0].servers.iter().map(|s| format!("{} {}", s.port, s.forwarding)).collect()
    };
    let gue = "forwarding = \"tunnel\"\ntunnel = { type = \"gue\", port = 6080 }";
    assert_eq!(forwardings("", ""), ["80 dr", "80 dr"]);
    assert_eq!(forwardings("forwarding = \"tunnel\"", ""), ["80 tunnel:ipip", "80 tunnel:ipip"]);
    assert_eq!(forwardings(gue, ""), ["80 tunnel:gue:6080", "80 tunnel:gue:6080"]);
    assert_eq!(forwardings(gue, "forwarding = \"tunnel\"")[1], "80 tunnel:gue:6080");
    assert_eq!(forwardings(gue, "tunnel = { type = \"gre\", checksum = \"full\" }")[1], "80 tunnel:gre:full");
    assert_eq!(forwardings(gue, "forwarding = \"nat\"\nport = 8080")[1], "8080 nat");
    assert_eq!(forwardings("", "forwarding = \"tunnel\"")[1], "80 tunnel:ipip");
    assert_eq!(forwardings("forwarding = \"nat\"", "port = 8080"), ["80 nat", "8080 nat"]);
}

#[test]
fn persistence_defaults_to_whole_addresses_for_300_s() {
    let of = |vip: &str, inner: &str| {
        let text = SMALL.replace("port = 80\n", &format!("port = 80\npersistence = {{ {inner} }}\n"));
        let servers = text.find("[[services.servers]]").unwrap();
        let model = parse(&text[..servers].replace("192.168.150.100", vip)).unwrap();
        model.services[0].persistence.map(|p| p.to_string())
    };
    assert_eq!(of("10.0.0.1", ""), Some("300s/32".to_owned()));
    assert_eq!(of("fd00::1", ""), Some("300s/128".to_owned()));
    assert_eq!(of("fd00::1", "timeout = \"1h\", prefix = 64"), Some("3600s/64".to_owned()));
    assert_eq!(
        faults_with("port = 80", "port = 80\npersistence = 300"),
        "line 10: services[0].persistence: expected a table, found the number 300"
    );
}

#[test]
fn a_tunnel_is_told_what_it_lacks() {
    let of = |inner: &str| faults_after(&format!("forwarding = \"tunnel\"\ntunnel = {{ {inner} }}\n"));
    let at = "line 17: services[0].servers[1].tunnel";
    assert_eq!(of(""), format!("{at}.type: is missing"));
    assert_eq!(of("type = \"gue\""), format!("{at}.port: is missing: a gue tunnel has a UDP port"));
    assert_eq!(of("type = \"gue\", port = 0"), format!("{at}.port: 0 is below the limit 1"));
    assert_eq!(
        of("type = \"gre\", port = 5"),
        format!("{at}.port: is of use with the tunnel gue only, not with gre")
    );
    assert_eq!(
        of("type = \"ipip\", checksum = \"none\""),
        format!("{at}.checksum: is of use with the tunnels gue and gre only, not with ipip")
    );
    assert_eq!(
        of("type = \"gr\""),
        format!("{at}.type: \"gr\" is not a tunnel (known: ipip, gue, gre); did you mean \"gre\"?")
    );
    assert_eq!(
        faults_after("tunnel = { type = \"gre\" }\n"),
        "line 16: services[0].servers[1].tunnel: a tunnel is of use with the forwarding tunnel only, not with dr"
    );
}

#[test]
fn faults_of_syntax_have_lines_and_come_alone() {
    let text = "[[ports]]\nname = lan\ndevice = 5\nmtu = = 3\nvlan = 1\nvlan = 2\n";
    let faults = parse(text).unwrap_err();
    assert_eq!(faults.iter().map(|f| f.line).collect::<Vec<_>>(), [2, 4, 6]);
    assert!(faults.iter().all(|f| f.path.is_empty() && !f.message.is_empty()));
    assert_eq!(faults.iter().last().map(|f| f.to_string()), Some("line 6: duplicate key".to_owned()));
}

#[test]
fn a_long_text_is_told_its_first_fault_of_syntax_only() {
    let text = format!("{}\n{}", "=\n".repeat(3), "#".repeat(300_000));
    assert_eq!(parse(&text).unwrap_err().count(), 1);
    assert_eq!(parse(&text[..100]).unwrap_err().count(), 3);
    let faults = parse(&"=\n".repeat(1500)).unwrap_err();
    assert_eq!((faults.iter().count(), faults.count()), (1000, 1500));
}

#[test]
fn inline_tables_and_windows_line_ends_are_the_same_configuration() {
    assert_eq!(parse(&SMALL.replace('\n', "\r\n")), parse(SMALL));
    let inline = "\
ports = [{ name = 'lan', device = 'null', addresses = ['192.168.150.11/24', 'fd00::11/64'] }]
services = [{ name = 'web', vip = '192.168.150.100', port = 80, servers = [
  { address = '192.168.150.12' }, { address = '192.168.150.13' } ] }]
";
    assert_eq!(parse(inline), parse(SMALL));
}

#[test]
fn a_deep_nesting_is_a_fault() {
    let deep = format!("a = {}1{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(parse(&deep).is_err());
    let dotted = format!("{}b = 1", "a.".repeat(100_000));
    assert!(parse(&dotted).is_err());
}
