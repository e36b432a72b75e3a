//! The control core over a real director; its worker takes its turns in the test, on a device without packets.

use std::net::IpAddr;
use std::sync::Arc;

use lb_dataplane::Worker;
use lb_dataplane::io::{Burst, DeviceId, Packet, PacketIo, WorkerId};
use lb_dataplane::setup::DeviceSetup;

use lb_config::{MaglevHash, MaglevSize, Scheduler, ServiceTimeouts};

use super::*;
use crate::api::{
    Changes, ConnectionFilter, DrainSpec, ExplainSpec, Flushed, Hello, ServerRef, ServerSpec, ServiceEdit,
    ServiceSpec, TimeoutSpec,
};

const FILE: &str = r#"
[appliance]
name = "test"
cluster_secret = "sixteen letters at least"
[limits]
max_connections = 1024
max_servers = 8
[[ports]]
name = "lan"
device = "null"
addresses = ["192.168.150.11/24"]
[[services]]
name = "web"
vip = "192.168.150.100"
port = 80
protocol = "tcp"
scheduler = "rr"
[[services.servers]]
address = "192.168.150.12"
[[services.servers]]
address = "192.168.150.13"
"#;

/// A device that never has a packet and swallows what is sent.
struct Silence;

struct NoPacket;

impl Packet for NoPacket {
    fn bytes(&self) -> &[u8] {
        &[]
    }
    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut []
    }
    fn grow_front(&mut self, _: usize) -> bool {
        false
    }
    fn shrink_front(&mut self, _: usize) -> bool {
        false
    }
    fn set_len(&mut self, _: usize) -> bool {
        false
    }
    fn device(&self) -> DeviceId {
        DeviceId(0)
    }
}

impl PacketIo for Silence {
    type Packet = NoPacket;
    fn rx(&mut self, _: DeviceId, _: &mut Burst<NoPacket>) {}
    fn tx(&mut self, _: DeviceId, from: &mut Burst<NoPacket>) {
        from.clear();
    }
    fn alloc(&mut self) -> Option<NoPacket> {
        None
    }
    fn hand_over(&mut self, _: WorkerId, _: &mut Burst<NoPacket>) {}
    fn take_over(&mut self, _: &mut Burst<NoPacket>) {}
}

struct Bench {
    core: Core,
    worker: Worker<Silence>,
    now_ms: u64,
}

impl Bench {
    fn new() -> Self {
        Self::with(FILE)
    }

    fn with(file: &str) -> Self {
        let model = lb_config::parse(file).unwrap();
        let devices = vec![DeviceSetup { mac: [2, 0, 0, 0, 0, 1], rss: false }];
        let (director, mut seeds) = Director::new(&model, devices).unwrap();
        let worker = Worker::new(seeds.remove(0), Silence).map_err(|_| "no memory").unwrap();
        let driver =
            DriverRow { mac: [2, 0, 0, 0, 0, 1], up: true, mtu: 1500, rx_missed: 7, ..DriverRow::default() };
        let drivers = Drivers { devices: vec![driver], buffers_free: 90, buffers: 100 };
        let process = Process {
            drivers: Box::new(move || drivers.clone()),
            tables: vec![TableRow { kind: "IPv4 connections".to_owned(), fits: 1024, ..TableRow::default() }],
        };
        let mut bench = Self { core: Core::new(director, process).unwrap(), worker, now_ms: 0 };
        bench.turn();
        bench
    }

    fn turn(&mut self) {
        self.now_ms += 1;
        self.worker.turn(self.now_ms * 1_000_000);
        self.core.tick(self.now_ms);
    }

    fn start(&mut self, work: Work, access: Access) -> oneshot::Receiver<Response> {
        let (reply, response) = oneshot::channel();
        self.core.handle(Call { work, access, reply }, self.now_ms);
        response
    }

    fn work(&mut self, work: Work) -> Response {
        let mut response = self.start(work, Access::Change);
        for _ in 0..100 {
            if let Ok(response) = response.try_recv() {
                return response;
            }
            self.turn();
        }
        panic!("no response");
    }

    fn ask(&mut self, request: Request) -> Response {
        self.work(Work::Plain(Box::new(request)))
    }

    fn refused(&mut self, request: Request) -> (ErrorKind, String) {
        match self.ask(request) {
            Response::Error(error) => (error.kind, error.message),
            other => panic!("not refused: {other:?}"),
        }
    }

    fn changed(&mut self, request: Request) -> Vec<String> {
        match self.ask(request) {
            Response::Changes(changes) => changes.changes.into_iter().map(|change| change.text).collect(),
            other => panic!("not changed: {other:?}"),
        }
    }
}

fn address(last: u8) -> IpAddr {
    [192, 168, 150, last].into()
}

fn server(last: u8, weight: u32) -> ServerSpec {
    ServerSpec { weight: Some(weight), ..ServerSpec::new("web", address(last)) }
}

#[test]
fn servers_are_added_edited_drained_and_deleted() {
    let mut bench = Bench::new();
    assert_eq!(
        bench.changed(Request::ServerAdd(server(14, 2))),
        ["+ server 192.168.150.14:80 of web: weight 2"]
    );
    assert_eq!(
        bench.changed(Request::ServerEdit(server(14, 5))),
        ["~ server 192.168.150.14:80 of web: weight 2 -> 5"]
    );
    let service = "192.168.150.100:80/tcp".to_owned();
    let drain = ServerRef { service, address: address(14), port: None };
    assert_eq!(
        bench.changed(Request::ServerDrain(drain.clone().into())),
        ["~ server 192.168.150.14:80 of web: weight 5 -> 0"]
    );
    let Response::Servers(servers) = bench.ask(Request::ServerList { service: Some("web".into()) }) else {
        panic!()
    };
    let rows: Vec<_> = servers.services[0]
        .servers
        .iter()
        .map(|s| (s.address.to_string(), s.weight, s.state.as_str()))
        .collect();
    assert_eq!(
        rows,
        [
            ("192.168.150.14:80".to_owned(), 0, "draining"),
            ("192.168.150.12:80".to_owned(), 1, "unresolved"),
            ("192.168.150.13:80".to_owned(), 1, "unresolved")
        ]
    );
    assert_eq!(bench.changed(Request::ServerDelete(drain)), ["- server 192.168.150.14:80 of web"]);
    assert_eq!(*bench.core.model(), lb_config::parse(FILE).unwrap());
}

#[test]
fn a_drain_with_a_deadline_shows_its_time_and_its_end() {
    let mut bench = Bench::new();
    let drain = |deadline: Option<&str>| {
        let server = ServerRef { service: "web".into(), address: address(12), port: None };
        Request::ServerDrain(DrainSpec { deadline: deadline.map(Into::into), ..server.into() })
    };
    let (kind, message) = bench.refused(drain(Some("5m")));
    assert_eq!(kind, ErrorKind::Invalid);
    assert!(message.contains("nothing would happen at the deadline"), "{message}");
    let policy = [("on_server_down".to_owned(), "reset".to_owned())].into();
    bench.changed(Request::ServiceEdit(ServiceEdit {
        service: "web".into(),
        policy,
        ..ServiceEdit::default()
    }));
    assert_eq!(
        bench.changed(drain(Some("5m"))),
        ["~ server 192.168.150.12:80 of web: weight 1 -> 0, drain_deadline unset -> 300s"]
    );
    let shown = |bench: &mut Bench| {
        let Response::Servers(servers) = bench.ask(Request::ServerList { service: None }) else { panic!() };
        let rows = &servers.services[0].servers;
        let row = rows.iter().find(|row| row.address.ip() == address(12)).unwrap();
        (row.state.clone(), row.drain_left_ms)
    };
    let (state, left_ms) = shown(&mut bench);
    assert!(state == "draining" && (290_000..=300_000).contains(&left_ms.unwrap()), "{state} {left_ms:?}");
    bench.now_ms += 100_000;
    bench.core.tick(bench.now_ms);
    let (state, left_ms) = shown(&mut bench);
    assert!(state == "draining" && (190_000..=200_000).contains(&left_ms.unwrap()), "{state} {left_ms:?}");
    bench.now_ms += 200_000;
    bench.core.tick(bench.now_ms);
    assert_eq!(shown(&mut bench), ("drained".to_owned(), Some(0)));
    assert_eq!(
        bench.changed(Request::ServerEdit(server(12, 3))),
        ["~ server 192.168.150.12:80 of web: weight 0 -> 3, drain_deadline 300s -> unset"]
    );
    assert_eq!(shown(&mut bench), ("unresolved".to_owned(), None));
    bench.changed(drain(Some("5m")));
    assert_eq!(
        bench.changed(drain(None)),
        ["~ server 192.168.150.12:80 of web: drain_deadline 300s -> unset"]
    );
    assert_eq!(shown(&mut bench), ("draining".to_owned(), None));
    let (_, message) = bench.refused(drain(Some("soon")));
    assert!(message.starts_with("\"soon\" is not a duration"), "{message}");
}

#[test]
fn a_change_is_answered_when_the_worker_goes_by_it() {
    let mut bench = Bench::new();
    let mut response = bench.start(
        Work::Plain(Box::new(Request::ServerDelete(ServerRef {
            service: "web".into(),
            address: address(12),
            port: None,
        }))),
        Access::Change,
    );
    bench.core.tick(bench.now_ms);
    assert!(response.try_recv().is_err(), "the worker has not looked yet");
    assert_eq!(bench.core.pause_ms(1_000_000), 1);
    bench.turn();
    assert!(matches!(response.try_recv(), Ok(Response::Changes(_))));
    assert_eq!(bench.core.pause_ms(1_000_000), 50);
}

#[test]
fn a_worker_that_hangs_does_not_hold_the_answer_for_ever() {
    let mut bench = Bench::new();
    let mut response = bench.start(Work::Plain(Box::new(Request::ServerEdit(server(12, 9)))), Access::Change);
    bench.core.tick(bench.now_ms + 1999);
    assert!(response.try_recv().is_err());
    bench.core.tick(bench.now_ms + 2000);
    assert!(matches!(response.try_recv(), Ok(Response::Changes(_))));
    let all = Request::Connections(ConnectionFilter::default());
    let mut response = bench.start(Work::Plain(Box::new(all)), Access::Read);
    bench.core.tick(bench.now_ms + 40_000);
    let Ok(Response::Error(error)) = response.try_recv() else { panic!("no error") };
    assert_eq!(error.message, "the workers did not go through their connections within 30000 ms");
}

#[test]
fn services_are_added_edited_and_deleted() {
    let mut bench = Bench::new();
    let timeouts = TimeoutSpec { udp: Some("30s".into()), ..TimeoutSpec::default() };
    let dns = ServiceSpec {
        scheduler: "maglev".into(),
        maglev_hash: Some("source".into()),
        timeouts,
        ..ServiceSpec::new("dns", "192.168.150.100:53/udp")
    };
    assert_eq!(
        bench.changed(Request::ServiceAdd(dns.clone())),
        ["+ service dns 192.168.150.100:53/udp maglev:source"]
    );
    let edit = |scheduler: Option<&str>, hash: Option<&str>, udp: Option<&str>| {
        Request::ServiceEdit(ServiceEdit {
            service: "dns".into(),
            scheduler: scheduler.map(Into::into),
            maglev_hash: hash.map(Into::into),
            timeouts: TimeoutSpec { udp: udp.map(Into::into), ..TimeoutSpec::default() },
            ..ServiceEdit::default()
        })
    };
    let text = bench.changed(edit(None, Some("flow"), Some("default")));
    assert_eq!(text.len(), 1, "{text:?}");
    let service = &bench.core.model().services[1];
    assert_eq!(service.scheduler, Scheduler::Maglev(MaglevHash::Flow, MaglevSize::Small));
    assert_eq!(service.timeouts, ServiceTimeouts::default());
    bench.changed(edit(Some("lc"), None, None));
    assert_eq!(bench.core.model().services[1].scheduler, Scheduler::Lc);
    let by_key = |key: &str, time: &str| {
        let timeouts = TimeoutSpec { by_key: [(key.into(), time.into())].into(), ..TimeoutSpec::default() };
        Request::ServiceEdit(ServiceEdit { service: "web".into(), timeouts, ..ServiceEdit::default() })
    };
    assert_eq!(
        bench.changed(by_key("tcp_close_wait", "45s")),
        ["~ service web: tcp_close_wait unset -> 45s"]
    );
    assert_eq!(
        bench.changed(by_key("tcp_close_wait", "default")),
        ["~ service web: tcp_close_wait 45s -> unset"]
    );
    let (kind, message) = bench.refused(by_key("tcp_clos", "5s"));
    assert_eq!(
        (kind, message.ends_with("did you mean \"tcp_close\"?")),
        (ErrorKind::Invalid, true),
        "{message}"
    );
    let (kind, message) = bench.refused(by_key("sctp_init", "5s"));
    assert_eq!((kind, message.contains("sctp services only")), (ErrorKind::Invalid, true), "{message}");
    let (kind, message) = bench.refused(edit(None, Some("flow"), None));
    assert_eq!((kind, message.contains("not with lc")), (ErrorKind::Invalid, true), "{message}");
    assert_eq!(
        bench.refused(Request::ServiceAdd(dns)),
        (ErrorKind::Invalid, "service dns exists already".into())
    );
    assert_eq!(
        bench.changed(Request::ServiceDelete { service: "dns".into() }),
        ["- service dns 192.168.150.100:53/udp lc"]
    );
}

#[test]
fn a_server_has_a_port_a_forwarding_and_thresholds() {
    let mut bench = Bench::new();
    let nat = ServerSpec {
        port: Some(8080),
        forwarding: Some("nat".into()),
        upper_threshold: Some(100),
        ..ServerSpec::new("web", address(12))
    };
    let Response::Changes(changes) = bench.ask(Request::ServerAdd(nat.clone())) else { panic!() };
    assert_eq!(
        changes.changes[0].text,
        "+ server 192.168.150.12:8080 of web: weight 1, forwarding nat, thresholds 100 0"
    );
    let [warning] = changes.warnings.as_slice() else { panic!("{changes:?}") };
    assert!(
        warning.starts_with("service web: server 192.168.150.12:8080: address: 192.168.150.12 is in"),
        "{warning}"
    );
    let heavier = ServerSpec { port: Some(8080), weight: Some(2), ..ServerSpec::new("web", address(12)) };
    let Response::Changes(changes) = bench.ask(Request::ServerEdit(heavier)) else { panic!() };
    assert_eq!((changes.changes.len(), changes.warnings.len()), (1, 0), "it was told when it was new");
    let tunnel = ServerSpec {
        port: None,
        forwarding: Some("tunnel:gue:6080:full".into()),
        upper_threshold: None,
        lower_threshold: None,
        ..nat.clone()
    };
    // Without a port it is the one with the service's.
    assert_eq!(
        bench.changed(Request::ServerEdit(tunnel)),
        ["~ server 192.168.150.12:80 of web: forwarding dr -> tunnel:gue:6080:full"]
    );
    let Response::Servers(servers) = bench.ask(Request::ServerList { service: Some("web".into()) }) else {
        panic!()
    };
    let rows: Vec<_> = servers.services[0]
        .servers
        .iter()
        // What it was under its old forwarding is listed until no connection and no scheduler knows it any more.
        .filter(|s| s.state != "deleted")
        .map(|s| (s.address.to_string(), s.forwarding.as_str(), s.tunnel.as_deref(), s.upper_threshold))
        .collect();
    assert_eq!(
        rows,
        [
            ("192.168.150.12:8080".to_owned(), "nat", None, 100),
            ("192.168.150.12:80".to_owned(), "tunnel", Some("gue:6080:full"), 0),
            ("192.168.150.13:80".to_owned(), "dr", None, 0)
        ]
    );
    let named = |port| ServerRef { service: "web".into(), address: address(12), port };
    assert_eq!(bench.changed(Request::ServerDelete(named(None))), ["- server 192.168.150.12:80 of web"]);
    bench.changed(Request::ServerAdd(ServerSpec { port: Some(8081), ..nat.clone() }));
    let (kind, message) = bench.refused(Request::ServerDrain(named(None).into()));
    assert_eq!(
        (kind, message.as_str()),
        (ErrorKind::Invalid, "service web has 2 servers 192.168.150.12: say which port (8081, 8080)")
    );
    bench.changed(Request::ServerDelete(named(Some(8081))));
    assert_eq!(
        bench.changed(Request::ServerDrain(named(None).into())),
        ["~ server 192.168.150.12:8080 of web: weight 2 -> 0"],
        "the only one with this address"
    );
    let (_, message) =
        bench.refused(Request::ServerAdd(ServerSpec { forwarding: Some("gre".into()), ..nat }));
    assert_eq!(message, "\"gre\" is not a forwarding (known: dr, nat, tunnel, fullnat)");
}

#[test]
fn ranges_marks_persistence_and_policies_come_by_command() {
    let mut bench = Bench::new();
    let range = ServiceSpec {
        persistence: Some("60/24".into()),
        policy: [("on_no_server".to_owned(), "drop".to_owned())].into(),
        ..ServiceSpec::new("range", "192.0.2.0/28:8000-8999/tcp")
    };
    assert_eq!(bench.changed(Request::ServiceAdd(range)), ["+ service range 192.0.2.0/28:8000-8999/tcp rr"]);
    let Response::Changes(changes) = bench.ask(Request::ServiceAdd(ServiceSpec::new("marked", "mark:7")))
    else {
        panic!()
    };
    assert_eq!(
        changes.warnings,
        ["service marked: mark: no rule in [[marks]] gives the mark 7: no packet comes to this service"]
    );
    let Response::Services(services) = bench.ask(Request::ServiceList) else { panic!() };
    let rows: Vec<_> = services
        .services
        .iter()
        .map(|s| (s.vip.as_str(), s.protocol.as_str(), s.persistence.as_deref()))
        .collect();
    assert_eq!(
        rows,
        [
            ("192.168.150.100:80", "tcp", None),
            ("192.0.2.0/28:8000-8999", "tcp", Some("60s/24")),
            ("mark:7", "fwm", None)
        ]
    );
    let edit = ServiceEdit {
        service: "range".into(),
        persistence: Some("none".into()),
        policy: [("on_no_server".to_owned(), "default".to_owned()), ("mss".to_owned(), "1400".to_owned())]
            .into(),
        ..ServiceEdit::default()
    };
    assert_eq!(
        bench.changed(Request::ServiceEdit(edit)),
        ["~ service range: persistence 60s/24 -> unset, on_no_server drop -> unset, mss unset -> 1400"]
    );
    let policy = [("mss".to_owned(), "5".to_owned())].into();
    let wrong = ServiceEdit { service: "range".into(), policy, ..ServiceEdit::default() };
    assert_eq!(bench.refused(Request::ServiceEdit(wrong)).1, "mss: 5 is below the limit 536");
    let filter = ConnectionFilter { service: Some("marked".into()), ..ConnectionFilter::default() };
    assert_eq!(
        bench.refused(Request::Connections(filter)).1,
        "service marked is not one VIP and port: filter by --vip or --server"
    );
}

#[test]
fn flags_of_the_scheduler_come_by_command() {
    let mut bench = Bench::new();
    let spec = ServiceSpec {
        scheduler: "sh".into(),
        scheduler_flags: Some("sh-port,sh-fallback".into()),
        ..ServiceSpec::new("sticky", "192.168.150.100:81/tcp")
    };
    bench.changed(Request::ServiceAdd(spec.clone()));
    let flags = |bench: &Bench| {
        let service = &bench.core.model().services[1];
        service.scheduler_flags.text(service.scheduler)
    };
    assert_eq!(flags(&bench), "sh-fallback,sh-port");
    let edit = |scheduler: Option<&str>, flags: Option<&str>| {
        let (scheduler, scheduler_flags) = (scheduler.map(Into::into), flags.map(Into::into));
        let service = "sticky".into();
        Request::ServiceEdit(ServiceEdit { service, scheduler, scheduler_flags, ..ServiceEdit::default() })
    };
    bench.changed(edit(None, Some("sh-port")));
    assert_eq!(flags(&bench), "sh-port", "those that are named, no others");
    bench.changed(edit(Some("mh"), Some("mh-fallback")));
    assert_eq!(flags(&bench), "mh-fallback", "by the words of the new scheduler");
    bench.changed(edit(None, Some("none")));
    assert_eq!(flags(&bench), "");
    let wrong = ServiceSpec { name: "other".into(), scheduler_flags: Some("mh-port".into()), ..spec };
    assert_eq!(
        bench.refused(Request::ServiceAdd(wrong)).1,
        "\"mh-port\" is not a flag of the scheduler sh (known: sh-fallback, sh-port, flag-3)"
    );
}

#[test]
fn a_flush_says_how_many_there_were_and_has_no_limit() {
    let mut bench = Bench::new();
    let filter = ConnectionFilter { service: Some("web".into()), ..ConnectionFilter::default() };
    assert_eq!(
        bench.ask(Request::FlushConnections(filter.clone())),
        Response::Flushed(Flushed { connections: 0 })
    );
    let limited = Request::FlushConnections(ConnectionFilter { limit: Some(5), ..filter });
    assert_eq!(
        bench.refused(limited),
        (ErrorKind::Invalid, "limit 5: connections are flushed without a limit".into())
    );
}

#[test]
fn a_packet_is_explained_from_its_arrival_to_its_next_hop() {
    let mut bench = Bench::new();
    bench.changed(Request::ServerDrain(
        ServerRef { service: "web".into(), address: address(13), port: None }.into(),
    ));
    let spec = |vip: &str| ExplainSpec {
        protocol: "tcp".into(),
        client: "192.168.150.1:40000".parse().unwrap(),
        vip: vip.parse().unwrap(),
        port: None,
    };
    let Response::Explanation(told) = bench.ask(Request::Explain(spec("192.168.150.100:80"))) else {
        panic!()
    };
    let steps: Vec<_> = told.steps.iter().map(|row| (row.step.as_str(), row.text.as_str())).collect();
    assert_eq!(
        steps[..4],
        [
            ("arrival", "tcp SYN 192.168.150.1:40000 -> 192.168.150.100:80 on port lan, owned by worker 0"),
            ("service", "web, by VIP and port"),
            ("scheduler", "rr chooses 192.168.150.12:80"),
            ("rewrite", "dr: MAC addresses alone change; packets of at most 1500 bytes"),
        ]
    );
    assert!(steps[4].1.starts_with("192.168.150.12, no MAC address yet ("), "{steps:?}");
    assert_eq!(told.verdict, "sent to 192.168.150.12:80");
    let standing: Vec<_> = told.candidates.iter().map(|row| row.standing.as_str()).collect();
    assert_eq!(standing, ["chosen", "weight 0"]);

    let Response::Explanation(told) = bench.ask(Request::Explain(spec("192.168.150.100:81"))) else {
        panic!()
    };
    assert_eq!(told.dropped.as_deref(), Some("no_service"));
    assert!(told.verdict.ends_with("192.168.150.1 gets a TCP reset"), "{}", told.verdict);
    let wrong = ExplainSpec { port: Some("wan".into()), ..spec("192.168.150.100:80") };
    assert_eq!(
        bench.refused(Request::Explain(wrong)),
        (ErrorKind::NotFound, "there is no port \"wan\"".into())
    );
    assert_eq!(
        bench.refused(Request::Explain(spec("[fd00::1]:80"))).1,
        "client 192.168.150.1:40000 and VIP [fd00::1]:80 are of different families"
    );
}

#[test]
fn what_floods_and_the_syn_proxy_make_of_a_packet_is_explained() {
    let nat = |mode: &str| {
        let policy = format!("forwarding = \"nat\"\npolicy.syn_proxy = \"{mode}\"\n[[services.servers]]");
        Bench::with(&FILE.replacen("[[services.servers]]", &policy, 1))
    };
    let told = |mut bench: Bench| {
        let spec = ExplainSpec {
            protocol: "tcp".into(),
            client: "192.168.150.1:40000".parse().unwrap(),
            vip: "192.168.150.100:80".parse().unwrap(),
            port: None,
        };
        let Response::Explanation(told) = bench.ask(Request::Explain(spec)) else { panic!() };
        let text = told.steps.into_iter().find(|row| row.step == "flood").map(|row| row.text);
        (text.unwrap_or_default(), told.verdict)
    };
    let (text, verdict) = told(nat("always"));
    let cookie = "its client gets a SYN cookie, and what follows is for the ACK that brings it back";
    assert_eq!(text, format!("syn_proxy = \"always\": {cookie}"));
    let then = "answered with a SYN cookie; when 192.168.150.1 brings it back, sent to 192.168.150.12:80";
    assert_eq!(verdict, then);
    let (text, verdict) = told(nat("auto"));
    assert_eq!(text, "syn_proxy = \"auto\", and SYNs are no flood on worker 0: no cookie");
    assert_eq!(verdict, "sent to 192.168.150.12:80");
    assert_eq!(told(nat("off")).0, "");
}

#[test]
fn what_is_refused_changes_nothing() {
    let mut bench = Bench::new();
    let before = bench.core.model().clone();
    let gone = Request::ServiceDelete { service: "mail".into() };
    assert_eq!(bench.refused(gone), (ErrorKind::NotFound, "there is no service mail".into()));
    let (kind, message) =
        bench.refused(Request::ServerAdd(ServerSpec { address: [10, 0, 0, 1].into(), ..server(0, 1) }));
    assert_eq!(kind, ErrorKind::Invalid);
    assert!(message.contains("10.0.0.1"), "{message}");
    let (kind, _) = bench.refused(Request::ServerEdit(server(99, 1)));
    assert_eq!(kind, ErrorKind::NotFound);
    assert_eq!(*bench.core.model(), before);
}

#[test]
fn a_file_that_needs_a_restart_is_refused_with_the_reasons() {
    let mut bench = Bench::new();
    let text = FILE.replace("max_servers = 8", "max_servers = 9").replace("13\"", "14\"");
    let model = || Box::new(lb_config::parse(&text).unwrap());
    let Response::Changes(changes) = bench.work(Work::Compare(model())) else { panic!("no diff") };
    let flags: Vec<bool> = changes.changes.iter().map(|change| change.needs_restart).collect();
    assert_eq!(flags, [true, false, false], "{changes:?}");
    for work in [Work::Replace(model()), Work::Rehearse(model())] {
        let Response::Error(error) = bench.work(work) else { panic!("not refused") };
        assert_eq!(error.kind, ErrorKind::NeedsRestart);
        assert_eq!(
            error.message,
            "nothing was changed, this needs a restart of lbd:\n~ limits: max_servers 8 -> 9"
        );
    }
    assert_eq!(*bench.core.model(), lb_config::parse(FILE).unwrap());
}

#[test]
fn a_rehearsal_changes_nothing_and_the_same_file_neither() {
    let mut bench = Bench::new();
    let other = Box::new(lb_config::parse(&FILE.replace("13\"", "14\"")).unwrap());
    let Response::Changes(changes) = bench.work(Work::Rehearse(other.clone())) else { panic!("refused") };
    assert_eq!(changes.changes.len(), 2);
    assert_eq!(*bench.core.model(), lb_config::parse(FILE).unwrap());
    let Response::Changes(made) = bench.work(Work::Replace(other.clone())) else { panic!("refused") };
    assert_eq!(made, changes);
    assert_eq!(*bench.core.model(), *other);
    assert_eq!(bench.work(Work::Replace(other)), Response::Changes(Changes::default()));
}

#[test]
fn the_running_configuration_reads_back_but_its_secret_is_for_those_who_may_change() {
    let mut bench = Bench::new();
    let Response::Config(config) = bench.ask(Request::Show) else { panic!("no configuration") };
    assert_eq!(lb_config::parse(&config.toml), lb_config::parse(FILE));
    let mut response = bench.start(Work::Plain(Box::new(Request::Show)), Access::Read);
    let Ok(Response::Config(config)) = response.try_recv() else { panic!("no configuration") };
    assert!(!config.toml.contains("sixteen letters"));
    assert!(config.toml.starts_with("# appliance.cluster_secret is set"));
    assert_eq!(lb_config::parse(&config.toml).unwrap().appliance.cluster_secret, None);
}

#[test]
fn passwords_of_vrrp_are_for_those_who_may_change() {
    let mut bench = Bench::new();
    let vrrp = "[[vrrp]]\nname = \"v\"\nport = \"lan\"\nvrid = 1\nversion = 2\nauth_password = \"hush\"\n\
                virtual_addresses = [\"192.168.150.100\"]\n";
    let model = lb_config::parse(&format!("{FILE}{vrrp}")).unwrap();
    bench.work(Work::Replace(Box::new(model)));
    let Response::Config(config) = bench.ask(Request::Show) else { panic!("no configuration") };
    assert!(config.toml.contains("hush"));
    let mut response = bench.start(Work::Plain(Box::new(Request::Show)), Access::Read);
    let Ok(Response::Config(config)) = response.try_recv() else { panic!("no configuration") };
    assert!(!config.toml.contains("hush") && config.toml.contains("# passwords and keys of vrrp are set"));
    assert!(lb_config::parse(&config.toml).is_ok());
}

#[test]
fn reads_describe_the_director() {
    let mut bench = Bench::new();
    let Response::Services(services) = bench.ask(Request::ServiceList) else { panic!() };
    let row = &services.services[0];
    assert_eq!((row.name.as_str(), row.servers, row.servers_in_use), ("web", 2, 2));
    let Response::Stats(stats) = bench.ask(Request::Stats) else { panic!() };
    assert_eq!(
        (stats.max_connections, stats.buffers_free, stats.buffers, stats.devices.len()),
        (1024, 90, 100, 1)
    );
    let device = &stats.devices[0];
    assert_eq!(
        (device.device.as_str(), device.mac.as_str(), device.rx_missed),
        ("null", "02:00:00:00:00:01", 7)
    );
    let Response::Drops(drops) = bench.ask(Request::Drops) else { panic!() };
    assert_eq!(drops.drops.len(), lb_dataplane::DropReason::COUNT);
    let Response::Neighbors(neighbors) = bench.ask(Request::Neighbors) else { panic!() };
    let mut known: Vec<_> =
        neighbors.neighbors.iter().map(|n| (n.port.as_str(), n.address, n.state.as_str())).collect();
    known.sort();
    assert_eq!(known, [("lan", address(12), "incomplete"), ("lan", address(13), "incomplete")]);
    let Response::Workers(workers) = bench.ask(Request::Workers) else { panic!() };
    assert!(workers.workers[0].turns > 0 && workers.workers[0].max_connections == 1024);
    assert_eq!((workers.tables[0].kind.as_str(), workers.tables[0].fits), ("IPv4 connections", 1024));
    let Response::Version(version) = bench.ask(Request::Version) else { panic!() };
    assert_eq!((version.name.as_str(), version.pid), ("test", std::process::id()));
    let hello = bench.refused(Request::Hello(Hello::default()));
    assert_eq!(hello.0, ErrorKind::Failed);
}

#[test]
fn latency_is_per_worker_and_merged() {
    let mut bench = Bench::new();
    let samples = Arc::clone(bench.worker.mailbox());
    (1..=1000).for_each(|us| samples.samples.push(us * 1000));
    let Response::Latency(latency) = bench.ask(Request::Latency) else { panic!() };
    let [one, all] = latency.latency.as_slice() else { panic!("{latency:?}") };
    assert_eq!((one.worker, one.samples, all.worker, all.samples), (Some(0), 1000, None, 1000));
    for (value, want) in [
        (one.p50_ns, 500_000),
        (one.p90_ns, 900_000),
        (all.p99_ns, 990_000),
        (all.p999_ns, 999_000),
        (all.max_ns, 1_000_000),
    ] {
        assert!(value.abs_diff(want) * 1000 <= want, "{value} is not within 0.1 % of {want}");
    }
}

#[test]
fn connections_are_asked_from_the_workers() {
    let mut bench = Bench::new();
    let filter = |change: fn(&mut ConnectionFilter)| {
        let mut filter = ConnectionFilter::default();
        change(&mut filter);
        Request::Connections(filter)
    };
    for none in
        [filter(|_| {}), filter(|f| f.server = Some(address(12))), filter(|f| f.service = Some("web".into()))]
    {
        let Response::Connections(connections) = bench.ask(none) else { panic!() };
        assert!(connections.connections.is_empty() && !connections.truncated);
    }
    let refused = |bench: &mut Bench, request| bench.refused(request).1;
    assert_eq!(refused(&mut bench, filter(|f| f.service = Some("mail".into()))), "there is no service mail");
    assert_eq!(
        refused(&mut bench, filter(|f| (f.service, f.protocol) = (Some("web".into()), Some("udp".into())))),
        "service web has another VIP or protocol than the filter"
    );
    assert_eq!(refused(&mut bench, filter(|f| f.limit = Some(0))), "limit 0 is not in 1 to 50000");
    assert!(
        refused(&mut bench, filter(|f| f.state = Some("open".into()))).starts_with("\"open\" is not a state")
    );
}

#[test]
fn a_configuration_is_exchanged_only_for_the_one_that_was_read() {
    let mut bench = Bench::new();
    let Response::Config(read) = bench.ask(Request::Show) else { panic!() };
    let mut model = lb_config::parse(&read.toml).unwrap();
    model.services[0].servers[0].weight = 9;
    assert_eq!(bench.changed(Request::ServerAdd(server(14, 2))).len(), 1);
    let refused = bench.work(Work::Exchange(Box::new(model.clone()), read.generation));
    assert!(matches!(&refused, Response::Error(e) if e.kind == ErrorKind::Conflict), "{refused:?}");

    let Response::Config(read) = bench.ask(Request::Show) else { panic!() };
    assert_eq!(lb_config::parse(&read.toml).unwrap().services[0].servers.len(), 3);
    let done = bench.work(Work::Exchange(Box::new(model.clone()), read.generation));
    assert!(matches!(&done, Response::Changes(changes) if changes.changes.len() == 2), "{done:?}");
    assert_eq!(*bench.core.model(), model);
}

#[test]
fn rates_name_every_server_and_only_known_services_are_set_back() {
    let mut bench = Bench::new();
    let Response::Rates(rates) = bench.ask(Request::Rates) else { panic!() };
    let rows: Vec<String> = rates.services[0].servers.iter().map(|row| row.address.to_string()).collect();
    assert_eq!((rates.services[0].service.as_str(), rates.services.len()), ("web", 1));
    assert_eq!(rows, ["192.168.150.12:80", "192.168.150.13:80"]);
    for service in [None, Some("web".to_owned()), Some("192.168.150.100:80/tcp".to_owned())] {
        assert_eq!(bench.changed(Request::Zero { service }), [""; 0]);
    }
    let (kind, message) = bench.refused(Request::Zero { service: Some("mail".into()) });
    assert_eq!((kind, message.as_str()), (ErrorKind::NotFound, "there is no service mail"));
}

/// The servers of the first service that `listed` has: last byte of the address, weight, state.
fn rows(listed: Response) -> Vec<(String, u32, String)> {
    let Response::Servers(listed) = listed else { panic!("{listed:?}") };
    let row = |row: &crate::api::ServerRow| (row.address.ip().to_string(), row.weight, row.state.clone());
    listed.services[0].servers.iter().map(row).collect()
}

#[test]
fn what_checks_find_is_in_force_and_not_in_the_configuration() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let check = format!(
        "[services.health]\ninterval = \"50ms\"\nwarmup = \"0s\"\n\
         checks = [{{ type = \"tcp\", address = \"127.0.0.1\", port = {port} }}]\n\
         [[services.servers]]\naddress = \"192.168.150.12\"\n[services.servers.health]\nchecks = []\n"
    );
    let plain = "[[services.servers]]\naddress = \"192.168.150.12\"\n";
    let mut bench = Bench::with(&FILE.replacen(plain, &check, 1));
    let list = || Request::ServerList { service: Some("web".into()) };
    let states = |bench: &mut Bench| -> Vec<_> {
        rows(bench.ask(list()))
            .into_iter()
            .map(|(address, weight, state)| {
                // Nobody answers ARP here.
                let state = if state.starts_with("unre") { "in use" } else { state.as_str() };
                format!("{address} {weight} {state}")
            })
            .collect()
    };
    assert_eq!(
        states(&mut bench),
        ["192.168.150.12 1 in use", "192.168.150.13 0 unknown"],
        "a server that is not checked is up, one that is has to show it first"
    );
    let Response::Services(services) = bench.ask(Request::ServiceList) else { panic!() };
    let row = &services.services[0];
    assert_eq!((row.servers, row.servers_in_use), (2, 1), "who is down is configured all the same");
    let Response::Config(before) = bench.ask(Request::Show) else { panic!() };
    // Somebody waits for what happens.
    let wait = Work::Plain(Box::new(Request::Events { after: Some(0), wait: true }));
    let mut events = bench.start(wait, Access::Read);
    let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
    let found = loop {
        if let Ok(Response::Events(found)) = events.try_recv() {
            break found;
        }
        assert!(std::time::Instant::now() < until);
        std::thread::sleep(std::time::Duration::from_millis(2));
        bench.turn();
    };
    let row = &found.events[0];
    assert_eq!((row.event.as_str(), row.server.as_deref()), ("up", Some("192.168.150.13:80")));
    // The rest of the gap until it is put in force.
    (0..2_000).for_each(|_| bench.turn());
    assert_eq!(states(&mut bench), ["192.168.150.12 1 in use", "192.168.150.13 1 in use"]);
    let Response::Config(after) = bench.ask(Request::Show) else { panic!() };
    assert_eq!(before, after, "neither the configuration nor its number has changed");
    let Response::Config(effective) = bench.ask(Request::ShowEffective) else { panic!() };
    assert!(
        effective.toml.contains("192.168.150.13") && !effective.toml.contains("health"),
        "{}",
        effective.toml
    );

    drop(listener);
    let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while states(&mut bench) != ["192.168.150.12 1 in use", "192.168.150.13 0 down"] {
        assert!(std::time::Instant::now() < until, "{:?}", states(&mut bench));
        std::thread::sleep(std::time::Duration::from_millis(2));
        (0..100).for_each(|_| bench.turn());
    }
    let Response::Config(effective) = bench.ask(Request::ShowEffective) else { panic!() };
    assert!(!effective.toml.contains("192.168.150.13"), "{}", effective.toml);
    let Response::Health(table) = bench.ask(Request::Health { service: Some("web".into()) }) else {
        panic!()
    };
    let server = &table.services[0].servers[0];
    assert_eq!((server.state.as_str(), server.why.as_str()), ("down", "tcp: connection refused"));
    assert_eq!(table.services[0].live, 1, "the one without checks");
    let missing = bench.refused(Request::Health { service: Some("nope".into()) });
    assert_eq!(missing.0, ErrorKind::NotFound);

    // An edit is one of the configuration: the server that is down stays in it, and down.
    let changed = bench.changed(Request::ServerEdit(server_with("192.168.150.13", 5)));
    assert_eq!(changed, ["~ server 192.168.150.13:80 of web: weight 1 -> 5"]);
    assert_eq!(states(&mut bench), ["192.168.150.12 1 in use", "192.168.150.13 0 down"]);
    let Response::Events(all) = bench.ask(Request::Events { after: None, wait: true }) else { panic!() };
    let kinds: Vec<&str> = all.events.iter().map(|event| event.event.as_str()).collect();
    assert_eq!(kinds, ["up", "down", "config"]);
    // Nothing happens: whoever waits is told so after a while.
    let wait = Work::Plain(Box::new(Request::Events { after: Some(all.last), wait: true }));
    let mut events = bench.start(wait, Access::Read);
    bench.turn();
    assert!(events.try_recv().is_err());
    bench.now_ms += 20_000;
    bench.turn();
    assert!(matches!(events.try_recv(), Ok(Response::Events(none)) if none.events.is_empty()));
}

fn server_with(address: &str, weight: u32) -> ServerSpec {
    ServerSpec { weight: Some(weight), ..ServerSpec::new("web", address.parse().unwrap()) }
}
