//! Services, servers and connections, in the words and the order that ipvsadm uses.

use lb_control::api::{Connections, Counters, ServerRow, Servers, Services};

use crate::table::{Side, Table};

/// As ipvsadm says it, `Route` for our `dr`; with the tunnel where there is one.
fn forward(forwarding: &str, tunnel: Option<&str>) -> String {
    let word = match forwarding {
        "dr" => "Route",
        "nat" => "Masq",
        "tunnel" => "Tunnel",
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
            server.state.clone(),
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
    let mut table = Table::new(&[
        ("pro", Side::Left),
        ("expire", Side::Right),
        ("state", Side::Left),
        ("source", Side::Left),
        ("virtual", Side::Left),
        ("destination", Side::Left),
        ("service", Side::Left),
    ]);
    for row in &connections.connections {
        let seconds = row.expires_ms.div_ceil(1000);
        table.row([
            row.protocol.to_uppercase(),
            format!("{:02}:{:02}", seconds / 60, seconds % 60),
            row.state.clone(),
            row.client.to_string(),
            row.vip.to_string(),
            row.server.to_string(),
            row.service.clone().unwrap_or_else(|| "-".to_owned()),
        ]);
    }
    let mut text = table.to_string();
    if connections.truncated {
        let shown = connections.connections.len();
        text += &format!("there are more; the list is cut at {shown}: raise --limit or filter\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use lb_control::api::{ConnectionRow, ServiceRow, ServiceServers};

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
        ];
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
  -> RemoteAddress:Port   Forward               Weight  Thresholds  State     ActiveConn  InActConn  Conns  InPkts  InBytes
TCP  192.168.150.100:80 rr web persistent 300s/24
  -> 192.168.150.12:80    Tunnel gue:6080:full       1      100/75  up                 2          0      7      35     2100
  -> 192.168.150.13:8080  Masq                       0           -  draining           0          1      6      30     1800
UDP  192.168.150.100:53 rr none ops
UDP  [fd00::100]:53 rr dns
  -> [fd00::12]:53        Route                  65535           -  up                 0          0      0       0        0
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
    }
}
