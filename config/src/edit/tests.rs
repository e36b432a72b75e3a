use std::net::IpAddr;

use super::*;
use crate::address::{IpPrefix, PortRange, ServiceAddress};
use crate::forwarding::Forwarding;
use crate::model::{MaglevHash, MaglevSize, Protocol, SchedulerFlags, Server, Service};
use crate::tests::small;

fn web() -> ServiceRef {
    ServiceRef::Name("web".to_owned())
}
fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}
fn at(address: &str, port: u16) -> ServerRef {
    ServerRef { address: ip(address), port }
}
fn server(address: &str, weight: u32) -> Server {
    Server { weight, ..Server::new(ip(address), 80, Forwarding::Dr) }
}
fn service(name: &str, vip: &str, port: u16) -> Service {
    Service {
        scheduler: Scheduler::Lc,
        servers: vec![Server::new(ip("192.168.150.14"), port, Forwarding::Dr)],
        ..Service::new(name, ServiceAddress::Vip { vip: ip(vip), port, protocol: Protocol::Tcp })
    }
}

/// The message of a refused edit, which must have changed nothing.
fn refused<T: std::fmt::Debug>(edit: impl FnOnce(&mut Model) -> Result<T, EditError>) -> String {
    let mut model = small();
    let error = edit(&mut model).unwrap_err();
    assert_eq!(model, small());
    error.to_string()
}

#[test]
fn services_come_change_and_go() {
    let mut model = small();
    add_service(&mut model, service("tls", "192.168.150.100", 443)).unwrap();
    let by_key: ServiceRef = "192.168.150.100:443/tcp".parse().unwrap();
    let edit = ServiceEdit {
        scheduler: Some(Scheduler::Maglev(MaglevHash::Source, MaglevSize::Small)),
        scheduler_flags: Some(SchedulerFlags { flag_3: true, ..SchedulerFlags::default() }),
        timeouts: TimeoutsEdit {
            tcp_fin_wait: Some(Some(Duration::from_secs(5))),
            ..TimeoutsEdit::default()
        },
        ..ServiceEdit::default()
    };
    edit_service(&mut model, &by_key, &edit).unwrap();
    assert_eq!(model.services[1].scheduler, Scheduler::Maglev(MaglevHash::Source, MaglevSize::Small));
    assert!(model.services[1].scheduler_flags.flag_3);
    assert_eq!(model.services[1].timeouts.tcp_fin_wait, Some(Duration::from_secs(5)));
    let back = TimeoutsEdit { tcp_fin_wait: Some(None), ..TimeoutsEdit::default() };
    edit_service(&mut model, &by_key, &ServiceEdit { timeouts: back, ..ServiceEdit::default() }).unwrap();
    assert_eq!(model.services[1].timeouts, ServiceTimeouts::default());
    assert_eq!(
        model.services[1].scheduler,
        Scheduler::Maglev(MaglevHash::Source, MaglevSize::Small),
        "the scheduler was left alone"
    );
    assert_eq!(delete_service(&mut model, &by_key).unwrap().name, "tls");
    assert_eq!(model, small());
}

#[test]
fn every_timeout_of_an_edit_reaches_its_own_field() {
    let mut timeouts = ServiceTimeouts::default();
    let seconds = |s| Some(Some(Duration::from_secs(s)));
    let edit = TimeoutsEdit {
        tcp_established: seconds(1),
        tcp_syn_sent: seconds(2),
        tcp_syn_recv: seconds(3),
        tcp_fin_wait: seconds(4),
        tcp_time_wait: seconds(5),
        tcp_close: seconds(6),
        tcp_close_wait: seconds(7),
        tcp_synack: seconds(8),
        udp: seconds(9),
        sctp_init: seconds(10),
        sctp_handshake: seconds(11),
        sctp_established: seconds(12),
        sctp_shutdown: seconds(13),
        sctp_rejected: seconds(14),
        sctp_closed: seconds(15),
    };
    edit.apply(&mut timeouts);
    let got = [
        timeouts.tcp_established,
        timeouts.tcp_syn_sent,
        timeouts.tcp_syn_recv,
        timeouts.tcp_fin_wait,
        timeouts.tcp_time_wait,
        timeouts.tcp_close,
        timeouts.tcp_close_wait,
        timeouts.tcp_synack,
        timeouts.udp,
        timeouts.sctp_init,
        timeouts.sctp_handshake,
        timeouts.sctp_established,
        timeouts.sctp_shutdown,
        timeouts.sctp_rejected,
        timeouts.sctp_closed,
    ];
    assert_eq!(got, std::array::from_fn(|n| Some(Duration::from_secs(n as u64 + 1))));
    let mut by_key = TimeoutsEdit::default();
    for (n, field) in SERVICE_TIMEOUTS.iter().enumerate() {
        by_key.set(field.key, Some(Duration::from_secs(n as u64 + 1))).unwrap();
    }
    assert_eq!(by_key, edit);
    let unknown = by_key.set("tcp_close_wat", None).map_err(|e| e.to_string()).unwrap_err();
    assert!(unknown.starts_with("\"tcp_close_wat\" is not a timeout (known: tcp_established, "), "{unknown}");
    assert!(unknown.ends_with("did you mean \"tcp_close_wait\"?"), "{unknown}");
    TimeoutsEdit { sctp_closed: Some(None), ..TimeoutsEdit::default() }.apply(&mut timeouts);
    assert_eq!((timeouts.sctp_closed, timeouts.sctp_rejected), (None, Some(Duration::from_secs(14))));
}

#[test]
fn servers_come_change_drain_and_go() {
    let mut model = small();
    add_server(&mut model, &web(), server("192.168.150.14", 3)).unwrap();
    assert_eq!(model.services[0].servers[0], server("192.168.150.14", 3), "as in IPVS it is the first now");
    let new = at("192.168.150.14", 80);
    edit_server(&mut model, &web(), new, &ServerEdit { weight: Some(65_535), ..ServerEdit::default() })
        .unwrap();
    assert_eq!(model.services[0].servers[0].weight, 65_535);
    edit_server(&mut model, &web(), new, &ServerEdit::default()).unwrap();
    assert_eq!(model.services[0].servers[0].weight, 65_535);
    drain_server(&mut model, &web(), new, None).unwrap();
    assert_eq!(model.services[0].servers[0].weight, 0);
    assert_eq!(delete_server(&mut model, &web(), new).unwrap(), server("192.168.150.14", 0));
    assert_eq!(model, small());
}

#[test]
fn a_drain_with_a_deadline_ends_with_the_drain() {
    let mut model = small();
    let server = at("192.168.150.12", 80);
    let minutes = |n: u64| Some(Duration::from_secs(60 * n));
    assert_eq!(
        refused(|m| drain_server(m, &web(), server, minutes(5))),
        "service web: server 192.168.150.12:80: drain_deadline: 300s: nothing would happen at the deadline, as the \
         service's on_server_down is \"keep\"; set that to \"reset\", \"reschedule\" or \"drop\""
    );
    model.services[0].policy.on_server_down = Some(crate::OnServerDown::Drop);
    let deadline = |model: &Model| model.services[0].servers[0].drain_deadline;
    drain_server(&mut model, &web(), server, minutes(5)).unwrap();
    assert_eq!((model.services[0].servers[0].weight, deadline(&model)), (0, minutes(5)));
    let weight = |weight| ServerEdit { weight: Some(weight), ..ServerEdit::default() };
    edit_server(&mut model, &web(), server, &weight(0)).unwrap();
    assert_eq!(deadline(&model), minutes(5), "it was 0 already");
    edit_server(&mut model, &web(), server, &weight(1)).unwrap();
    assert_eq!(deadline(&model), None, "it no longer drains");
    drain_server(&mut model, &web(), server, minutes(5)).unwrap();
    drain_server(&mut model, &web(), server, None).unwrap();
    assert_eq!(deadline(&model), None, "drained without one");
}

#[test]
fn a_server_is_its_address_and_port() {
    let mut model = small();
    let nat = |port| Server::new(ip("192.168.150.12"), port, Forwarding::Nat);
    add_server(&mut model, &web(), nat(8080)).unwrap();
    assert_eq!(
        add_server(&mut model, &web(), nat(8080)).unwrap_err().to_string(),
        "service web has the server 192.168.150.12:8080 already"
    );
    let thresholds =
        ServerEdit { upper_threshold: Some(9), lower_threshold: Some(9), ..ServerEdit::default() };
    edit_server(&mut model, &web(), at("192.168.150.12", 8080), &thresholds).unwrap();
    let [first, second, _] = model.services[0].servers.as_slice() else { panic!("three servers") };
    assert_eq!((first.port, first.upper_threshold, first.lower_threshold), (8080, 9, 9));
    assert_eq!((second.port, second.upper_threshold), (80, 0));
    delete_server(&mut model, &web(), at("192.168.150.12", 8080)).unwrap();
    assert_eq!(model, small());
}

#[test]
fn servers_follow_the_forwarding_that_they_took_from_their_service() {
    let mut model = small();
    let own = ServerEdit { forwarding: Some(Forwarding::Nat), ..ServerEdit::default() };
    edit_server(&mut model, &web(), at("192.168.150.13", 80), &own).unwrap();
    let gre: Forwarding = "tunnel:gre".parse().unwrap();
    let edit = ServiceEdit { forwarding: Some(gre), ..ServiceEdit::default() };
    edit_service(&mut model, &web(), &edit).unwrap();
    let service = &model.services[0];
    assert_eq!(service.forwarding, gre);
    assert_eq!((service.servers[0].forwarding, service.servers[1].forwarding), (gre, Forwarding::Nat));
}

#[test]
fn persistence_and_one_packet_are_set_and_taken_back() {
    let mut model = small();
    let persistence = Persistence { timeout: Duration::from_secs(60), prefix_len: 24 };
    let mut edit = ServiceEdit { persistence: Some(Some(persistence)), ..ServiceEdit::default() };
    edit_service(&mut model, &web(), &edit).unwrap();
    assert_eq!(model.services[0].persistence, Some(persistence));
    edit.persistence = Some(None);
    edit_service(&mut model, &web(), &edit).unwrap();
    assert_eq!(model, small());
    assert_eq!(
        refused(|m| edit_service(
            m,
            &web(),
            &ServiceEdit { one_packet: Some(true), ..ServiceEdit::default() }
        )),
        "service web: one_packet: is of use in udp services only, not with tcp"
    );
}

#[test]
fn ranges_and_marks_are_services_too() {
    let mut model = small();
    let vips: IpPrefix = "192.0.2.0/28".parse().unwrap();
    let range = ServiceAddress::of(vips, PortRange::new(8000, 8999).unwrap(), Protocol::Tcp);
    add_service(&mut model, Service::new("range", range)).unwrap();
    add_service(&mut model, Service::new("marked", "mark:7".parse().unwrap())).unwrap();
    let by_address = |text: &str| text.parse::<ServiceRef>().unwrap();
    let nat = Server::new(ip("192.168.150.14"), 0, Forwarding::Nat);
    add_server(&mut model, &by_address("192.0.2.0/28:8000-8999/tcp"), nat).unwrap();
    add_server(&mut model, &by_address("mark:7"), Server::new(ip("192.168.150.14"), 0, Forwarding::Dr))
        .unwrap();
    assert_eq!((model.services[1].servers.len(), model.services[2].servers.len()), (1, 1));
    assert_eq!(
        add_service(&mut model, Service::new("again", "mark:7".parse().unwrap())).unwrap_err().to_string(),
        "service mark:7 exists already"
    );
    let written = ServiceAddress::Range {
        vips: IpPrefix::host(ip("192.0.2.99")),
        ports: PortRange::one(80),
        protocol: Protocol::Tcp,
    };
    add_service(&mut model, Service::new("exact", written)).unwrap();
    assert_eq!(model.services[3].address, "192.0.2.99:80/tcp".parse().unwrap(), "one form for one thing");
    model.services[3].address = written;
    assert_eq!(
        validate(&model).unwrap_err().to_string(),
        "service exact: vip: 192.0.2.99:80/tcp is one address and port, not a range"
    );
}

#[test]
fn policies_of_a_service_are_replaced() {
    let mut model = small();
    let mut policy = ServicePolicy::default();
    policy.set("mss", Some("1400")).unwrap();
    edit_service(&mut model, &web(), &ServiceEdit { policy: Some(policy), ..ServiceEdit::default() })
        .unwrap();
    assert_eq!(model.services[0].policy.mss, Some(1400));
    policy.mss = Some(1);
    assert_eq!(
        refused(|m| edit_service(m, &web(), &ServiceEdit { policy: Some(policy), ..ServiceEdit::default() })),
        "service web: policy.mss: 1 is below the limit 536"
    );
}

#[test]
fn many_edits_are_made_together_or_not_at_all() {
    let mut model = small();
    let tls: ServiceRef = "192.168.150.13:443/tcp".parse().unwrap();
    let edits = vec![
        // 192.168.150.13 is a server of web until the third edit: only the outcome counts.
        Edit::AddService(Box::new(Service { servers: vec![], ..service("tls", "192.168.150.13", 443) })),
        Edit::AddServer(tls.clone(), Server::new(ip("192.168.150.15"), 443, Forwarding::Dr)),
        Edit::DeleteServer(web(), at("192.168.150.13", 80)),
        Edit::EditServer(
            web(),
            at("192.168.150.12", 80),
            ServerEdit { weight: Some(7), ..ServerEdit::default() },
        ),
        Edit::EditService(
            web(),
            Box::new(ServiceEdit { scheduler: Some(Scheduler::Lc), ..ServiceEdit::default() }),
        ),
        Edit::Timeouts(crate::Timeouts { udp: Duration::from_secs(9), ..model.timeouts }),
    ];
    apply(&mut model, &edits).unwrap();
    assert_eq!((model.services.len(), model.services[0].servers[0].weight), (2, 7));
    assert_eq!((model.services[0].scheduler, model.timeouts.udp), (Scheduler::Lc, Duration::from_secs(9)));
    assert_eq!(model.services[1].servers.len(), 1);
    let mut again = edits.clone();
    again.insert(0, Edit::Clear);
    assert_eq!(
        refused(|m| apply(m, &again)),
        "there is no service web",
        "the services went, the rest is not made"
    );
    apply(&mut model, &[Edit::DeleteService(tls), Edit::Clear]).unwrap();
    assert_eq!(model.services, []);
}

#[test]
fn what_is_not_there_is_named() {
    let nobody: ServiceRef = "10.0.0.1:80/tcp".parse().unwrap();
    let other = at("192.168.150.99", 80);
    assert_eq!(refused(|m| delete_service(m, &nobody)), "there is no service 10.0.0.1:80/tcp");
    assert_eq!(
        refused(|m| edit_service(m, &nobody, &ServiceEdit::default())),
        "there is no service 10.0.0.1:80/tcp"
    );
    assert_eq!(
        refused(|m| add_server(m, &nobody, server("192.168.150.9", 1))),
        "there is no service 10.0.0.1:80/tcp"
    );
    assert_eq!(refused(|m| delete_server(m, &web(), other)), "service web has no server 192.168.150.99:80");
    assert_eq!(
        refused(|m| drain_server(m, &web(), other, None)),
        "service web has no server 192.168.150.99:80"
    );
}

#[test]
fn what_is_there_already_is_named() {
    assert_eq!(
        refused(|m| add_service(m, service("web", "192.168.150.101", 80))),
        "service web exists already"
    );
    assert_eq!(
        refused(|m| add_service(m, service("web2", "192.168.150.100", 80))),
        "service 192.168.150.100:80/tcp exists already"
    );
    assert_eq!(
        refused(|m| add_server(m, &web(), server("192.168.150.12", 1))),
        "service web has the server 192.168.150.12:80 already"
    );
}

#[test]
fn an_edit_obeys_the_rules_of_a_file_and_names_the_object() {
    let heavy = ServerEdit { weight: Some(70_000), ..ServerEdit::default() };
    assert_eq!(
        refused(|m| edit_server(m, &web(), at("192.168.150.12", 80), &heavy)),
        "service web: server 192.168.150.12:80: weight: 70000 is above the limit 65535"
    );
    assert_eq!(
        refused(|m| add_server(m, &web(), server("10.0.0.1", 1))),
        "service web: server 10.0.0.1:80: address: 10.0.0.1 is on no directly connected network (192.168.150.0/24 on \
         lan): forwarding \"dr\" needs that"
    );
    assert_eq!(
        refused(|m| add_service(m, service("a b", "224.0.0.1", 0))),
        "service a b: name: \"a b\" is not a name: 1 to 64 of A-Z a-z 0-9 . _ -; \
         service a b: vip: 224.0.0.1 is a multicast address; service a b: port: 0 (every port without a service of its own) \
         needs persistence, as in IPVS; without it say ports = \"1-65535\""
    );
    assert_eq!(
        refused(|m| add_service(m, service("new", "192.168.150.13", 80))),
        "service web: server 192.168.150.13:80: address: 192.168.150.13 is the VIP of the service new"
    );
    let udp = TimeoutsEdit { udp: Some(Some(Duration::from_secs(9))), ..TimeoutsEdit::default() };
    assert_eq!(
        refused(|m| edit_service(m, &web(), &ServiceEdit { timeouts: udp, ..ServiceEdit::default() })),
        "service web: timeouts.udp: is of use in udp services only, not with tcp"
    );
    let odd = TimeoutsEdit {
        tcp_fin_wait: Some(Some(Duration::from_micros(1_000_001))),
        ..TimeoutsEdit::default()
    };
    assert_eq!(
        refused(|m| edit_service(m, &web(), &ServiceEdit { timeouts: odd, ..ServiceEdit::default() })),
        "service web: timeouts.tcp_fin_wait: 1.000001s is not a whole number of milliseconds"
    );
}

#[test]
fn the_limits_of_the_appliance_hold_for_edits() {
    let mut model = small();
    model.limits.max_services = 1;
    model.limits.max_servers = 2;
    assert_eq!(
        add_service(&mut model, service("tls", "192.168.150.100", 443)).unwrap_err().to_string(),
        "services: 2 services are above the limit 1 (limits.max_services); \
         services: 3 servers over all services are above the limit 2 (limits.max_servers)"
    );
}

#[test]
fn a_hand_made_model_is_checked_in_full() {
    let mut model = small();
    model.ports[0].vlan = Some(4095);
    model.ports[0].mtu = 100;
    model.ports[0].device = crate::Device::Tap("a,b".to_owned());
    model.ports[0].addresses[1].prefix_len = 129;
    model.appliance.workers = vec![2000];
    model.limits.mbufs = 1;
    model.timeouts.udp = Duration::from_secs(0);
    model.policy.secure_tcp = 4;
    model.marks = vec![crate::MarkRule::default()];
    assert_eq!(
        validate(&model).unwrap_err().to_string(),
        "appliance.workers[0]: 2000 is above the limit 1023; limits.mbufs: 1 is below the limit 1024; \
         policy.secure_tcp: 4 is above the limit 3; timeouts.udp: 0s is below the limit 250ms; port lan: device: Tap(\"a,b\") is not a device; \
         port lan: vlan: 4095 is above the limit 4094; port lan: mtu: 100 is below the limit 576; \
         port lan: addresses[1]: \"fd00::11/129\": the prefix length is not 0 to 128; \
         mark rule 1: value: 0 is below the limit 1"
    );
}
