use super::*;
use crate::model::{Forwarding, MaglevHash, Protocol};
use crate::tests::small;

fn web() -> ServiceRef {
    ServiceRef::Name("web".to_owned())
}
fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}
fn server(address: &str, weight: u32) -> Server {
    Server { address: ip(address), weight }
}
fn service(name: &str, vip: &str, port: u16) -> Service {
    Service {
        name: name.to_owned(),
        vip: ip(vip),
        port,
        protocol: Protocol::Tcp,
        scheduler: Scheduler::Lc,
        forwarding: Forwarding::Dr,
        timeouts: ServiceTimeouts::default(),
        servers: vec![server("192.168.150.14", 1)],
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
        scheduler: Some(Scheduler::Maglev(MaglevHash::Source)),
        timeouts: TimeoutsEdit {
            tcp_fin_wait: Some(Some(Duration::from_secs(5))),
            ..TimeoutsEdit::default()
        },
    };
    edit_service(&mut model, &by_key, &edit).unwrap();
    assert_eq!(model.services[1].scheduler, Scheduler::Maglev(MaglevHash::Source));
    assert_eq!(model.services[1].timeouts.tcp_fin_wait, Some(Duration::from_secs(5)));
    let back = TimeoutsEdit { tcp_fin_wait: Some(None), ..TimeoutsEdit::default() };
    edit_service(&mut model, &by_key, &ServiceEdit { timeouts: back, ..ServiceEdit::default() }).unwrap();
    assert_eq!(model.services[1].timeouts, ServiceTimeouts::default());
    assert_eq!(
        model.services[1].scheduler,
        Scheduler::Maglev(MaglevHash::Source),
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
        tcp_syn_recv: seconds(2),
        tcp_fin_wait: seconds(3),
        udp: seconds(4),
    };
    edit.apply(&mut timeouts);
    let got = [timeouts.tcp_established, timeouts.tcp_syn_recv, timeouts.tcp_fin_wait, timeouts.udp];
    assert_eq!(got, [1, 2, 3, 4].map(|s| Some(Duration::from_secs(s))));
}

#[test]
fn servers_come_change_drain_and_go() {
    let mut model = small();
    add_server(&mut model, &web(), server("192.168.150.14", 3)).unwrap();
    assert_eq!(model.services[0].servers[2], server("192.168.150.14", 3));
    let address = ip("192.168.150.14");
    edit_server(&mut model, &web(), address, &ServerEdit { weight: Some(65_535) }).unwrap();
    assert_eq!(model.services[0].servers[2].weight, 65_535);
    edit_server(&mut model, &web(), address, &ServerEdit::default()).unwrap();
    assert_eq!(model.services[0].servers[2].weight, 65_535);
    drain_server(&mut model, &web(), address).unwrap();
    assert_eq!(model.services[0].servers[2].weight, 0);
    assert_eq!(delete_server(&mut model, &web(), address).unwrap(), server("192.168.150.14", 0));
    assert_eq!(model, small());
}

#[test]
fn what_is_not_there_is_named() {
    let nobody: ServiceRef = "10.0.0.1:80/tcp".parse().unwrap();
    let other = ip("192.168.150.99");
    assert_eq!(refused(|m| delete_service(m, &nobody)), "there is no service 10.0.0.1:80/tcp");
    assert_eq!(
        refused(|m| edit_service(m, &nobody, &ServiceEdit::default())),
        "there is no service 10.0.0.1:80/tcp"
    );
    assert_eq!(
        refused(|m| add_server(m, &nobody, server("192.168.150.9", 1))),
        "there is no service 10.0.0.1:80/tcp"
    );
    assert_eq!(refused(|m| delete_server(m, &web(), other)), "service web has no server 192.168.150.99");
    assert_eq!(refused(|m| drain_server(m, &web(), other)), "service web has no server 192.168.150.99");
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
        "service web has the server 192.168.150.12 already"
    );
}

#[test]
fn an_edit_obeys_the_rules_of_a_file_and_names_the_object() {
    assert_eq!(
        refused(|m| edit_server(m, &web(), ip("192.168.150.12"), &ServerEdit { weight: Some(70_000) })),
        "service web: server 192.168.150.12: weight: 70000 is above the limit 65535"
    );
    assert_eq!(
        refused(|m| add_server(m, &web(), server("10.0.0.1", 1))),
        "service web: server 10.0.0.1: address: 10.0.0.1 is on no directly connected network (192.168.150.0/24 on \
         lan): forwarding \"dr\" needs that"
    );
    assert_eq!(
        refused(|m| add_service(m, service("a b", "224.0.0.1", 0))),
        "service a b: name: \"a b\" is not a name: 1 to 64 of A-Z a-z 0-9 . _ -; \
         service a b: vip: 224.0.0.1 is a multicast address; service a b: port: 0 is below the limit 1"
    );
    assert_eq!(
        refused(|m| add_service(m, service("new", "192.168.150.13", 80))),
        "service web: server 192.168.150.13: address: 192.168.150.13 is the VIP of the service new"
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
    assert_eq!(
        validate(&model).unwrap_err().to_string(),
        "appliance.workers[0]: 2000 is above the limit 1023; limits.mbufs: 1 is below the limit 1024; \
         timeouts.udp: 0s is below the limit 250ms; port lan: device: Tap(\"a,b\") is not a device; \
         port lan: vlan: 4095 is above the limit 4094; port lan: mtu: 100 is below the limit 576; \
         port lan: addresses[1]: \"fd00::11/129\": the prefix length is not 0 to 128"
    );
}
