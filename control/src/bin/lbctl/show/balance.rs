//! Services, servers and connections, in the words and the order that ipvsadm uses.

use lb_control::api::{Connections, Counters, Explanation, Flushed, ServerRow, Servers, Services, Snat};

use crate::table::{Side, Table};

/// As ipvsadm says it, `Route` for our `dr`; with the tunnel where there is one.
fn forward(forwarding: &str, tunnel: Option<&str>) -> String {
    let word = match forwarding {
        "dr" => "Route",
        "nat" => "Masq",
        "tunnel" => "Tunnel",
        "fullnat" => "FullNat",
        other => other,
    };
    match tunnel {
        Some(tunnel) => format!("{word} {tunnel}"),
        None => word.to_owned(),
    }
}

/// ` persistent 300s/24 ops`, what of it there is.
fn flags(persistence: Option<&str>, one_packet: bool) -> String {
    let mut text = persistence.map_or_else(String::new, |text| format!(" persistent {text}"));
    if one_packet {
        text += " ops";
    }
    text
}

/// `100/75`, or `-` where there are none.
fn thresholds(server: &ServerRow) -> String {
    match (server.upper_threshold, server.lower_threshold) {
        (0, 0) => "-".to_owned(),
        (upper, lower) => format!("{upper}/{lower}"),
    }
}

/// `draining 299s`: whole seconds left, begun ones included.
fn state(server: &ServerRow) -> String {
    match server.drain_left_ms {
        Some(left_ms) if left_ms > 0 => format!("{} {}s", server.state, left_ms.div_ceil(1000)),
        _ => server.state.clone(),
    }
}

fn counters(c: Counters) -> [String; 5] {
    [c.active, c.inactive, c.connections, c.in_packets, c.in_bytes].map(|n| n.to_string())
}

const COUNTERS: [(&str, Side); 5] = [
    ("ActiveConn", Side::Right),
    ("InActConn", Side::Right),
    ("Conns", Side::Right),
    ("InPkts", Side::Right),
    ("InBytes", Side::Right),
];

/// One line per service.
pub fn services(services: &Services) -> String {
    let mut columns = vec![
        ("Name", Side::Left),
        ("Prot", Side::Left),
        ("LocalAddress:Port", Side::Left),
        ("Scheduler", Side::Left),
        ("Forward", Side::Left),
        ("Servers", Side::Right),
    ];
    columns.extend(COUNTERS);
    let mut table = Table::new(&columns);
    for service in &services.services {
        let hash = service.maglev_hash.as_ref().map_or_else(String::new, |hash| format!(" ({hash})"));
        let mut row = vec![
            service.name.clone(),
            service.protocol.to_uppercase(),
            service.vip.clone(),
            service.scheduler.clone() + &hash + &flags(service.persistence.as_deref(), service.one_packet),
            forward(&service.forwarding, service.tunnel.as_deref()),
            format!("{}/{}", service.servers_in_use, service.servers),
        ];
        row.extend(counters(service.counters));
        table.row(row);
    }
    table.to_string()
}

/// A line per service, under it a line per server.
pub fn servers(servers: &Servers) -> String {
    let mut columns = vec![
        ("  -> RemoteAddress:Port", Side::Left),
        ("Forward", Side::Left),
        ("Weight", Side::Right),
        ("Thresholds", Side::Right),
        ("State", Side::Left),
    ];
    columns.extend(COUNTERS);
    // One table over all services, so that their columns line up.
    let mut table = Table::new(&columns);
    for server in servers.services.iter().flat_map(|service| &service.servers) {
        let mut row = vec![
            format!("  -> {}", server.address),
            forward(&server.forwarding, server.tunnel.as_deref()),
            server.weight.to_string(),
            thresholds(server),
            state(server),
        ];
        row.extend(counters(server.counters));
        table.row(row);
    }
    let mut lines = table.lines();
    let mut text = "Prot LocalAddress:Port Scheduler Name\n".to_owned();
    let mut put = |line: &str| {
        text.push_str(line);
        text.push('\n');
    };
    put(&lines.next().unwrap_or_default());
    for service in &servers.services {
        let protocol = service.protocol.to_uppercase();
        let flags = flags(service.persistence.as_deref(), service.one_packet);
        put(&format!("{protocol:<4} {} {} {}{flags}", service.vip, service.scheduler, service.service));
        lines.by_ref().take(service.servers.len()).for_each(|line| put(&line));
    }
    text
}

/// One line per connection, as `ipvsadm -Lnc`, then its service.
pub fn connections(connections: &Connections) -> String {
    let mut columns = vec![
        ("pro", Side::Left),
        ("expire", Side::Right),
        ("state", Side::Left),
        ("source", Side::Left),
        ("virtual", Side::Left),
        ("destination", Side::Left),
        ("service", Side::Left),
    ];
    let has_local = connections.connections.iter().any(|row| row.local.is_some());
    columns.extend(has_local.then_some(("local", Side::Left)));
    let mut table = Table::new(&columns);
    for row in &connections.connections {
        let seconds = row.expires_ms.div_ceil(1000);
        let mut line = vec![
            row.protocol.to_uppercase(),
            format!("{:02}:{:02}", seconds / 60, seconds % 60),
            row.state.clone(),
            row.client.to_string(),
            row.vip.to_string(),
            row.server.to_string(),
            row.service.clone().unwrap_or_else(|| "-".to_owned()),
        ];
        let local = || row.local.map_or_else(|| "-".to_owned(), |local| local.to_string());
        line.extend(has_local.then(local));
        table.row(line);
    }
    let mut text = table.to_string();
    if connections.truncated {
        let shown = connections.connections.len();
        text += &format!("there are more; the list is cut at {shown}: raise --limit or filter\n");
    }
    text
}

/// One line per rule of source NAT.
pub fn snat(snat: &Snat) -> String {
    let mut columns =
        vec![("Name", Side::Left), ("Sources", Side::Left), ("Address", Side::Left), ("Prot", Side::Left)];
    columns.push(("Port", Side::Left));
    columns.extend(COUNTERS);
    columns.extend([("OutPkts", Side::Right), ("OutBytes", Side::Right)]);
    let mut table = Table::new(&columns);
    for rule in &snat.rules {
        let addresses: Vec<String> = rule.addresses.iter().map(ToString::to_string).collect();
        let port = rule.port.clone().unwrap_or_else(|| "-".to_owned());
        let mut row = vec![rule.name.clone(), rule.sources.clone(), addresses.join(",")];
        row.extend([rule.protocols.join(","), port]);
        row.extend(counters(rule.counters));
        row.extend([rule.out_packets, rule.out_bytes].map(|n| n.to_string()));
        table.row(row);
    }
    table.to_string()
}

/// The steps, the scheduler's candidates, the verdict.
pub fn explanation(explanation: &Explanation) -> String {
    let mut steps = Table::new(&[("Step", Side::Left), ("What", Side::Left)]);
    for step in &explanation.steps {
        steps.row([step.step.clone(), step.text.clone()]);
    }
    let mut text = steps.to_string();
    if !explanation.candidates.is_empty() {
        let mut table = Table::new(&[
            ("  Candidate", Side::Left),
            ("Weight", Side::Right),
            ("ActiveConn", Side::Right),
            ("InActConn", Side::Right),
            ("Standing", Side::Left),
        ]);
        for row in &explanation.candidates {
            table.row([
                format!("  {}", row.server),
                row.weight.to_string(),
                row.active.to_string(),
                row.inactive.to_string(),
                row.standing.clone(),
            ]);
        }
        text += &table.to_string();
    }
    text + &format!("{}\n", explanation.verdict)
}

/// How many were forgotten.
pub fn flushed(flushed: &Flushed) -> String {
    match flushed.connections {
        1 => "1 connection forgotten\n".to_owned(),
        n => format!("{n} connections forgotten\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lb_control::api::{CandidateRow, ConnectionRow, ExplainedStep, ServiceRow, ServiceServers, SnatRow};

    fn counted(active: u64, inactive: u64, connections: u64) -> Counters {
        Counters { active, inactive, connections, in_packets: connections * 5, in_bytes: connections * 300 }
    }

    fn server(address: &str, weight: u32, state: &str, counters: Counters) -> ServerRow {
        let address = address.parse().unwrap();
        ServerRow {
            address,
            forwarding: "dr".into(),
            tunnel: None,
            upper_threshold: 0,
            lower_threshold: 0,
            weight,
            state: state.into(),
            drain_left_ms: None,
            counters,
        }
    }

    #[test]
    fn services_fill_one_line_each() {
        let row = |name: &str, vip: &str, scheduler: &str| ServiceRow {
            name: name.into(),
            protocol: "tcp".into(),
            vip: vip.into(),
            scheduler: scheduler.into(),
            maglev_hash: (scheduler == "maglev").then(|| "source".into()),
            forwarding: "dr".into(),
            tunnel: None,
            persistence: None,
            one_packet: false,
            servers: 2,
            servers_in_use: 1,
            counters: counted(1, 10, 1234),
        };
        let services = super::services(&Services {
            services: vec![row("web", "192.168.150.100:80", "rr"), row("v6", "[fd00::100]:443", "maglev")],
        });
        let want = "\
Name  Prot  LocalAddress:Port   Scheduler        Forward  Servers  ActiveConn  InActConn  Conns  InPkts  InBytes
web   TCP   192.168.150.100:80  rr               Route        1/2           1         10   1234    6170   370200
v6    TCP   [fd00::100]:443     maglev (source)  Route        1/2           1         10   1234    6170   370200
";
        assert_eq!(services, want);
    }

    #[test]
    fn servers_stand_under_their_service() {
        let service = |name: &str, protocol: &str, vip: &str, servers| ServiceServers {
            service: name.into(),
            protocol: protocol.into(),
            vip: vip.into(),
            scheduler: "rr".into(),
            persistence: (name == "web").then(|| "300s/24".into()),
            one_packet: name == "none",
            servers,
        };
        let mut rows = vec![
            server("192.168.150.12:80", 1, "up", counted(2, 0, 7)),
            server("192.168.150.13:8080", 0, "draining", counted(0, 1, 6)),
            server("192.168.150.14:80", 0, "draining", counted(0, 1, 6)),
            server("192.168.150.15:80", 0, "drained", counted(0, 1, 6)),
        ];
        (rows[2].drain_left_ms, rows[3].drain_left_ms) = (Some(298_001), Some(0));
        rows[1].forwarding = "nat".into();
        (rows[0].forwarding, rows[0].tunnel) = ("tunnel".into(), Some("gue:6080:full".into()));
        (rows[0].upper_threshold, rows[0].lower_threshold) = (100, 75);
        let text = super::servers(&Servers {
            services: vec![
                service("web", "tcp", "192.168.150.100:80", rows),
                service("none", "udp", "192.168.150.100:53", vec![]),
                service(
                    "dns",
                    "udp",
                    "[fd00::100]:53",
                    vec![server("[fd00::12]:53", 65535, "up", counted(0, 0, 0))],
                ),
            ],
        });
        let want = "\
Prot LocalAddress:Port Scheduler Name
  -> RemoteAddress:Port   Forward               Weight  Thresholds  State          ActiveConn  InActConn  Conns  InPkts  InBytes
TCP  192.168.150.100:80 rr web persistent 300s/24
  -> 192.168.150.12:80    Tunnel gue:6080:full       1      100/75  up                      2          0      7      35     2100
  -> 192.168.150.13:8080  Masq                       0           -  draining                0          1      6      30     1800
  -> 192.168.150.14:80    Route                      0           -  draining 299s           0          1      6      30     1800
  -> 192.168.150.15:80    Route                      0           -  drained                 0          1      6      30     1800
UDP  192.168.150.100:53 rr none ops
UDP  [fd00::100]:53 rr dns
  -> [fd00::12]:53        Route                  65535           -  up                      0          0      0       0        0
";
        assert_eq!(text, want);
    }

    #[test]
    fn an_explanation_ends_with_its_verdict() {
        let step = |step: &str, text: &str| ExplainedStep { step: step.into(), text: text.into() };
        let candidate = |server: &str, weight, standing: &str| CandidateRow {
            server: server.parse().unwrap(),
            weight,
            active: 1,
            inactive: 20,
            standing: standing.into(),
        };
        let text = super::explanation(&Explanation {
            verdict: "sent to 192.168.150.12:80".into(),
            server: None,
            dropped: None,
            steps: vec![step("service", "web"), step("next hop", "192.168.150.12")],
            candidates: vec![
                candidate("192.168.150.12:80", 1, "chosen"),
                candidate("192.168.150.13:80", 0, "weight 0"),
            ],
        });
        let want = "\
Step      What
service   web
next hop  192.168.150.12
  Candidate          Weight  ActiveConn  InActConn  Standing
  192.168.150.12:80       1           1         20  chosen
  192.168.150.13:80       0           1         20  weight 0
sent to 192.168.150.12:80
";
        assert_eq!(text, want);
    }

    #[test]
    fn connections_look_like_ipvsadm_lnc() {
        let row = |protocol: &str, state: &str, expires_ms, service: Option<&str>| ConnectionRow {
            protocol: protocol.into(),
            state: state.into(),
            expires_ms,
            client: "192.168.150.1:40001".parse().unwrap(),
            vip: "192.168.150.100:80".parse().unwrap(),
            server: "192.168.150.12:80".parse().unwrap(),
            local: None,
            snat: false,
            service: service.map(Into::into),
            template: false,
        };
        let text = super::connections(&Connections {
            truncated: true,
            connections: vec![
                row("tcp", "ESTABLISHED", 899_001, Some("web")),
                row("udp", "UDP", 6_000_000, None),
            ],
        });
        let want = "\
pro  expire  state        source               virtual             destination        service
TCP   15:00  ESTABLISHED  192.168.150.1:40001  192.168.150.100:80  192.168.150.12:80  web
UDP  100:00  UDP          192.168.150.1:40001  192.168.150.100:80  192.168.150.12:80  -
there are more; the list is cut at 2: raise --limit or filter
";
        assert_eq!(text, want);
        let by_full_nat =
            ConnectionRow { local: Some("10.1.0.2:5000".parse().unwrap()), ..row("tcp", "NONE", 1, None) };
        let listed =
            Connections { truncated: false, connections: vec![by_full_nat, row("udp", "UDP", 1, None)] };
        let text = super::connections(&listed);
        let ends: Vec<_> =
            text.lines().map(|line| line.split_whitespace().last().unwrap_or_default()).collect();
        assert_eq!(ends, ["local", "10.1.0.2:5000", "-"]);
    }

    #[test]
    fn rules_of_source_nat_have_a_line_each() {
        let rule = SnatRow {
            name: "office".into(),
            sources: "10.1.0.0/24".into(),
            addresses: vec!["192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap()],
            protocols: vec!["tcp".into(), "icmp".into()],
            port: None,
            counters: Counters { active: 1, inactive: 2, connections: 3, in_packets: 4, in_bytes: 5 },
            out_packets: 6,
            out_bytes: 7,
        };
        let want = "\
Name    Sources      Address              Prot      Port  ActiveConn  InActConn  Conns  InPkts  InBytes  OutPkts  OutBytes
office  10.1.0.0/24  192.0.2.1,192.0.2.2  tcp,icmp  -              1          2      3       4        5        6         7
";
        assert_eq!(super::snat(&Snat { rules: vec![rule] }), want);
    }
}
