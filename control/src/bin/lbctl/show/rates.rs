//! What services and servers count, and how fast: the numbers of `ipvsadm --stats` and `--rate` side by side.

use lb_control::api::{Rates, Traffic};

use crate::table::{Side, Table};

/// A line per service, under it a line per server.
pub fn rates(rates: &Rates) -> String {
    let right = |heading| (heading, Side::Right);
    let mut table = Table::new(&[
        ("Service", Side::Left),
        right("Conns"),
        right("InPkts"),
        right("OutPkts"),
        right("InBytes"),
        right("OutBytes"),
        right("CPS"),
        right("InPPS"),
        right("OutPPS"),
        right("InBPS"),
        right("OutBPS"),
    ]);
    for service in &rates.services {
        table.row(row(service.service.clone(), service.counted, service.per_second));
        for server in &service.servers {
            table.row(row(format!("  -> {}", server.address), server.counted, server.per_second));
        }
    }
    table.to_string()
}

fn row(name: String, counted: Traffic, per_second: Traffic) -> Vec<String> {
    let numbers = |t: Traffic| {
        [t.connections, t.in_packets, t.out_packets, t.in_bytes, t.out_bytes].map(|n| n.to_string())
    };
    [name].into_iter().chain(numbers(counted)).chain(numbers(per_second)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use lb_control::api::{RatedServer, RatedService};

    #[test]
    fn counts_and_rates_stand_side_by_side() {
        let traffic =
            |n| Traffic { connections: n, in_packets: n + 1, out_packets: 0, in_bytes: n * 40, out_bytes: 0 };
        let server = RatedServer {
            address: "10.0.0.11:80".parse().unwrap(),
            active: 1,
            inactive: 2,
            persistent: 3,
            counted: traffic(5),
            per_second: traffic(2),
        };
        let service = RatedService {
            service: "web".into(),
            counted: traffic(10),
            per_second: traffic(3),
            servers: vec![server],
        };
        assert_eq!(
            rates(&Rates { services: vec![service] }),
            "Service            Conns  InPkts  OutPkts  InBytes  OutBytes  CPS  InPPS  OutPPS  InBPS  OutBPS\n\
             web                   10      11        0      400         0    3      4       0    120       0\n\
             \x20 -> 10.0.0.11:80      5       6        0      200         0    2      3       0     80       0\n"
        );
    }
}
