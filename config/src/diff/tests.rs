use super::diff;
use crate::forwarding::Forwarding;
use crate::mark::MarkRule;
use crate::model::{MaglevHash, MaglevSize, Model, Persistence, Scheduler, Server};
use crate::tests::small;
use std::time::Duration;

/// The lines of a change made to the small configuration; a restart is marked by a `!`.
fn lines(change: impl FnOnce(&mut Model)) -> Vec<String> {
    let (old, mut new) = (small(), small());
    change(&mut new);
    let line = |c: &super::Change| format!("{c}{}", if c.needs_restart() { " !" } else { "" });
    diff(&old, &new).iter().map(line).collect()
}

fn server(address: &str) -> Server {
    Server { weight: 5, ..Server::new(address.parse().unwrap(), 80, Forwarding::Dr) }
}

#[test]
fn services_and_servers_change_at_run_time() {
    assert_eq!(lines(|_| ()), Vec::<String>::new());
    assert_eq!(
        lines(|m| m.services[0].servers[0].weight = 2),
        ["~ server 192.168.150.12:80 of web: weight 1 -> 2"]
    );
    assert_eq!(
        lines(|m| m.services[0].servers[0] = server("192.168.150.14")),
        ["- server 192.168.150.12:80 of web", "+ server 192.168.150.14:80 of web: weight 5"]
    );
    assert_eq!(
        lines(|m| m.services[0].servers.reverse()),
        ["~ server 192.168.150.13:80 of web: now in place 1"]
    );
    assert_eq!(lines(|m| m.services.clear()), ["- service web 192.168.150.100:80/tcp rr"]);
    assert_eq!(
        lines(|m| {
            let mut other = m.services[0].clone();
            (other.name, other.address) = ("alt".to_owned(), "192.168.150.100:8080/tcp".parse().unwrap());
            other.servers.truncate(1);
            other.servers[0].port = 8080;
            m.services.insert(0, other);
        }),
        ["+ service alt 192.168.150.100:8080/tcp rr", "+ server 192.168.150.12:8080 of alt: weight 1"]
    );
    assert_eq!(
        lines(|m| {
            m.services[0].scheduler = Scheduler::Maglev(MaglevHash::Source, MaglevSize::Small);
            m.services[0].address = "192.168.150.100:81/tcp".parse().unwrap();
            m.services[0].policy.set("on_no_server", Some("reset")).unwrap();
            m.services[0].timeouts.tcp_fin_wait = Some(Duration::from_millis(1500));
        }),
        [
            "~ service web: address 192.168.150.100:80/tcp -> 192.168.150.100:81/tcp, scheduler rr -> maglev:source, \
             tcp_fin_wait unset -> 1500ms, on_no_server unset -> reset"
        ]
    );
    assert_eq!(
        lines(|m| {
            let server = &mut m.services[0].servers[0];
            server.forwarding = "tunnel:gue:6080:full".parse().unwrap();
            (server.upper_threshold, server.lower_threshold) = (10, 5);
        }),
        [
            "~ server 192.168.150.12:80 of web: forwarding dr -> tunnel:gue:6080:full, upper_threshold 0 -> 10, \
             lower_threshold 0 -> 5"
        ]
    );
    assert_eq!(
        lines(|m| {
            let server = &mut m.services[0].servers[0];
            (server.weight, server.drain_deadline) = (0, Some(Duration::from_secs(300)));
            let added =
                Server { weight: 0, drain_deadline: server.drain_deadline, ..self::server("192.168.150.15") };
            m.services[0].servers.push(added);
        }),
        [
            "~ server 192.168.150.12:80 of web: weight 1 -> 0, drain_deadline unset -> 300s",
            "+ server 192.168.150.15:80 of web: weight 0, drain_deadline 300s"
        ]
    );
    assert_eq!(
        lines(|m| {
            let server = &mut m.services[0].servers[0];
            (server.port, server.forwarding, server.upper_threshold) = (8080, Forwarding::Nat, 9);
        }),
        [
            "- server 192.168.150.12:80 of web",
            "+ server 192.168.150.12:8080 of web: weight 1, forwarding nat, thresholds 9 0"
        ]
    );
    assert_eq!(
        lines(|m| {
            m.services[0].forwarding = Forwarding::Nat;
            m.services[0].persistence =
                Some(Persistence { timeout: Duration::from_secs(60), prefix_len: 24 });
            m.services[0].one_packet = true;
        }),
        ["~ service web: forwarding dr -> nat, persistence unset -> 60s/24, one_packet false -> true"]
    );
    assert_eq!(lines(|m| m.timeouts.udp = Duration::from_secs(10)), ["~ timeouts: udp 300s -> 10s"]);
}

#[test]
fn appliance_and_limits_need_a_restart() {
    assert_eq!(
        lines(|m| {
            m.appliance.workers = vec![1, 2];
            m.appliance.control_cpu = Some(0);
            m.limits.mbufs = 65_536;
            m.tables = crate::Tables { keep: false, directory: "/run/tables".into() };
        }),
        [
            "~ appliance: workers [0] -> [1 2], control_cpu unset -> 0 !",
            "~ limits: mbufs 32768 -> 65536 !",
            "~ tables: keep true -> false, directory /dev/shm -> /run/tables !"
        ]
    );
}

#[test]
fn policies_and_marks_change_at_run_time() {
    assert_eq!(
        lines(|m| (m.policy.compat, m.policy.secure_tcp) = (crate::Compat::Ipvs, 3)),
        ["~ policy: compat none -> ipvs, secure_tcp 0 -> 3"]
    );
    let rule = |value, vlan| MarkRule { value, vlan: Some(vlan), ..MarkRule::default() };
    assert_eq!(
        lines(|m| m.marks = vec![rule(7, 1), rule(8, 2)]),
        ["+ mark 7 vlan 1: in place 1", "+ mark 8 vlan 2: in place 2"]
    );
    let mut old = small();
    old.marks = vec![rule(7, 1), rule(8, 2), rule(9, 3)];
    let mut new = old.clone();
    new.marks = vec![rule(9, 3), rule(7, 1)];
    let text: Vec<String> = diff(&old, &new).iter().map(ToString::to_string).collect();
    assert_eq!(text, ["- mark 8 vlan 2", "~ mark 9 vlan 3: now in place 1"]);
}

#[test]
fn a_secret_is_not_shown() {
    let text = lines(|m| m.appliance.cluster_secret = Some("0123456789abcdef".to_owned()));
    assert_eq!(text, ["~ appliance: cluster_secret unset -> (new secret) !"]);
}

#[test]
fn of_a_port_only_addresses_and_gateways_change_at_run_time() {
    assert_eq!(
        lines(|m| {
            m.ports[0].addresses.truncate(1);
            m.ports[0].gateways = vec!["192.168.150.1".parse().unwrap()];
        }),
        [
            "~ port lan: addresses [192.168.150.11/24 fd00::11/64] -> [192.168.150.11/24], gateway [] -> [192.168.150.1]"
        ]
    );
    let tap = |rate| Some(crate::Exception { interface: "lb-lan".to_owned(), rate });
    assert_eq!(
        lines(|m| m.ports[0].exception = tap(500)),
        ["~ port lan: exception off -> tap lb-lan, exception_rate none -> 500 !"]
    );
    let mut old = small();
    old.ports[0].exception = tap(500);
    let mut new = old.clone();
    new.ports[0].exception = tap(600);
    let rate = diff(&old, &new);
    assert_eq!(rate.iter().map(|change| change.needs_restart()).collect::<Vec<_>>(), [false]);
    assert_eq!(lines(|m| m.ports[0].mtu = 9000), ["~ port lan: mtu 1500 -> 9000 !"]);
    assert_eq!(lines(|m| m.ports[0].vlan = Some(5)), ["~ port lan: vlan unset -> 5 !"]);
    assert_eq!(
        lines(|m| {
            m.ports[0].device = crate::Device::Tap("lb0".to_owned());
            m.ports[0].addresses.pop();
        }),
        [
            "~ port lan: device null -> tap:lb0, addresses [192.168.150.11/24 fd00::11/64] -> [192.168.150.11/24] !"
        ]
    );
    assert_eq!(
        lines(|m| {
            let mut wan = m.ports[0].clone();
            wan.name = "wan".to_owned();
            m.ports = vec![wan];
        }),
        ["- port lan null !", "+ port wan null !"]
    );
}

#[test]
fn places_among_ports_and_services_are_seen() {
    let (mut old, mut new) = (small(), small());
    for (model, names) in [(&mut old, ["a", "b"]), (&mut new, ["b", "a"])] {
        let (port, service) = (model.ports.remove(0), model.services.remove(0));
        for name in names {
            model.ports.push(crate::Port { name: name.to_owned(), ..port.clone() });
            model.services.push(crate::Service { name: name.to_owned(), ..service.clone() });
        }
    }
    let changes = diff(&old, &new);
    let text: Vec<String> = changes.iter().map(ToString::to_string).collect();
    assert_eq!(text, ["~ port b: now in place 1", "~ service b: now in place 1"]);
    assert_eq!(changes.iter().map(super::Change::needs_restart).collect::<Vec<_>>(), [true, false]);
}
