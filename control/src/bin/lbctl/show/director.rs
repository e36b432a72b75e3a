//! Packets, drops, next hops, workers and latency.

use lb_control::api::{Drops, FloodRow, Latency, Neighbors, RestartRow, Stats, TableRow, Workers};

use crate::table::{Side, Table};

/// Where the packets went, then a line per device.
pub fn stats(stats: &Stats) -> String {
    let flow = &stats.conservation;
    let mut text = format!(
        "received {} + originated {} + from kernel {} = sent {} + delivered {} + to kernel {} + dropped {} + waiting {}\n\
         connections {} of at most {}\npacket buffers {} free of {}\n\n",
        flow.received,
        flow.originated,
        flow.from_kernel,
        flow.sent,
        flow.delivered,
        flow.to_kernel,
        flow.dropped,
        flow.waiting,
        stats.connections,
        stats.max_connections,
        stats.buffers_free,
        stats.buffers
    );
    let mut table = Table::new(&[
        ("Device", Side::Left),
        ("MAC", Side::Left),
        ("Link", Side::Left),
        ("MTU", Side::Right),
        ("RxPkts", Side::Right),
        ("RxBytes", Side::Right),
        ("TxPkts", Side::Right),
        ("TxBytes", Side::Right),
        ("RxMissed", Side::Right),
        ("RxErrors", Side::Right),
        ("RxNoBuffer", Side::Right),
        ("TxErrors", Side::Right),
    ]);
    for row in &stats.devices {
        let numbers = [
            u64::from(row.mtu),
            row.rx_packets,
            row.rx_bytes,
            row.tx_packets,
            row.tx_bytes,
            row.rx_missed,
            row.rx_errors,
            row.rx_no_buffer,
            row.tx_errors,
        ];
        let words = [row.device.clone(), row.mac.clone(), row.link.clone()];
        table.row(words.into_iter().chain(numbers.map(|n| n.to_string())));
    }
    text += &table.to_string();
    text
}

/// One line per reason; those without packets only with `all`.
pub fn drops(drops: &Drops, all: bool) -> String {
    let mut table =
        Table::new(&[("Reason", Side::Left), ("Packets", Side::Right), ("Description", Side::Left)]);
    let mut none = true;
    for row in drops.drops.iter().filter(|row| all || row.packets > 0) {
        none = false;
        table.row([row.reason.clone(), row.packets.to_string(), row.description.clone()]);
    }
    if none { "no packet was dropped\n".to_owned() } else { table.to_string() }
}

/// One line per next hop.
pub fn neighbors(neighbors: &Neighbors) -> String {
    let mut table = Table::new(&[
        ("Port", Side::Left),
        ("Address", Side::Left),
        ("MAC", Side::Left),
        ("State", Side::Left),
        ("Since", Side::Right),
        ("Probes", Side::Right),
    ]);
    for row in &neighbors.neighbors {
        table.row([
            row.port.clone(),
            row.address.to_string(),
            row.mac.clone().unwrap_or_else(|| "-".to_owned()),
            row.state.clone(),
            format!("{}.{} s", row.since_ms / 1000, row.since_ms / 100 % 10),
            row.probes.to_string(),
        ]);
    }
    table.to_string()
}

/// One line per worker, then one per kind of connection table.
pub fn workers(workers: &Workers) -> String {
    let mut table = Table::new(&[
        ("Worker", Side::Right),
        ("CPU", Side::Right),
        ("Connections", Side::Right),
        ("RxPkts", Side::Right),
        ("TxPkts", Side::Right),
        ("Dropped", Side::Right),
        ("HandedOver", Side::Right),
        ("TakenOver", Side::Right),
        ("Turns", Side::Right),
        ("BusyTurns", Side::Right),
    ]);
    for row in &workers.workers {
        let numbers = [
            u64::from(row.worker),
            u64::from(row.cpu),
            row.connections,
            row.received,
            row.sent,
            row.dropped,
            row.handed_over,
            row.taken_over,
            row.turns,
            row.busy_turns,
        ];
        table.row(numbers.map(|n| n.to_string()));
    }
    table.to_string() + &memory(&workers.tables) + &restart(&workers.restart) + &floods(workers)
}

/// Where the connection tables lie, if it is known.
fn memory(rows: &[TableRow]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&[
        ("Table", Side::Left),
        ("Used", Side::Left),
        ("Fits", Side::Right),
        ("Bytes", Side::Right),
        ("Reserved", Side::Right),
        ("Kept", Side::Right),
        ("Pages", Side::Left),
    ]);
    for row in rows {
        table.row([
            row.kind.clone(),
            if row.used { "yes" } else { "no" }.to_owned(),
            row.fits.to_string(),
            row.bytes.to_string(),
            row.reserved_bytes.to_string(),
            row.kept_bytes.to_string(),
            row.pages.join(", "),
        ]);
    }
    format!("\n{table}")
}

/// Whether connections are kept, and what became of an earlier lbd's, if it is known.
fn restart(row: &RestartRow) -> String {
    if *row == RestartRow::default() {
        return String::new();
    }
    let why = row.reason.as_deref().unwrap_or("nobody says why");
    let kept = match &row.folder {
        Some(folder) => format!("Connections are kept in {folder}.\n"),
        None => format!("Connections will not survive a restart: {why}.\n"),
    };
    let began = match (row.began.as_str(), &row.folder) {
        ("fresh", None) => String::new(),
        ("fresh", Some(_)) => format!("Began fresh: {why}.\n"),
        (began, _) => {
            let dropped: Vec<String> =
                row.dropped.iter().map(|(reason, count)| format!(", {count} dropped: {reason}")).collect();
            let (taken, ms) = (row.taken_over, row.took_us as f64 / 1000.0);
            format!(
                "Began with {taken} connections of an earlier lbd ({began}, {ms:.1} ms){}.\n",
                dropped.concat()
            )
        }
    };
    format!("\n{kept}{began}")
}

/// What workers do about floods, if any of them did.
fn floods(workers: &Workers) -> String {
    let quiet = |row: &FloodRow| FloodRow { embryonic: 0, ..row.clone() } == FloodRow::default();
    if workers.workers.iter().all(|row| quiet(&row.flood)) {
        return String::new();
    }
    let mut table = Table::new(&[
        ("Worker", Side::Right),
        ("Flood", Side::Left),
        ("Embryonic", Side::Right),
        ("Evicted", Side::Right),
        ("Unconfirmed", Side::Right),
        ("Stateless", Side::Right),
        ("CookiesSent", Side::Right),
        ("Accepted", Side::Right),
        ("Refused", Side::Right),
        ("CalledAgain", Side::Right),
        ("GivenUp", Side::Right),
    ]);
    for row in &workers.workers {
        let flood = &row.flood;
        let evicted =
            [flood.evicted_closed, flood.evicted_embryonic, flood.evicted_one_way, flood.evicted_closing];
        let numbers = [
            flood.embryonic,
            evicted.iter().sum(),
            flood.unconfirmed,
            flood.stateless,
            flood.cookies_sent,
            flood.cookies_accepted,
            flood.cookies_refused,
            flood.calls_repeated,
            flood.calls_given_up,
        ];
        let head = [row.worker.to_string(), if flood.active { "yes" } else { "no" }.to_owned()];
        table.row(head.into_iter().chain(numbers.map(|n| n.to_string())));
    }
    format!("\n{table}")
}

/// One line per worker and one for all, in microseconds.
pub fn latency(latency: &Latency) -> String {
    let mut table = Table::new(&[
        ("Worker", Side::Right),
        ("Samples", Side::Right),
        ("p50 us", Side::Right),
        ("p90 us", Side::Right),
        ("p99 us", Side::Right),
        ("p99.9 us", Side::Right),
        ("max us", Side::Right),
    ]);
    for row in &latency.latency {
        let times = [row.p50_ns, row.p90_ns, row.p99_ns, row.p999_ns, row.max_ns];
        let name = row.worker.map_or_else(|| "all".to_owned(), |worker| worker.to_string());
        table.row([name, row.samples.to_string()].into_iter().chain(times.map(microseconds)));
    }
    table.to_string()
}

/// Nanoseconds as microseconds with two decimals, rounded up: a shown bound holds.
fn microseconds(ns: u64) -> String {
    let hundredths = ns.div_ceil(10);
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lb_control::api::{Conservation, DeviceRow, DropRow, LatencyRow, NeighborRow, WorkerRow};

    #[test]
    fn stats_show_where_packets_went() {
        let text = super::stats(&Stats {
            conservation: Conservation {
                received: 100,
                originated: 3,
                sent: 94,
                delivered: 2,
                to_kernel: 4,
                from_kernel: 5,
                dropped: 7,
                waiting: 1,
            },
            connections: 2,
            max_connections: 1_000_000,
            buffers_free: 8000,
            buffers: 8192,
            devices: vec![DeviceRow {
                device: "af_packet:eth0".into(),
                mac: "02:00:00:00:00:01".into(),
                link: "up".into(),
                mtu: 1500,
                rx_packets: 100,
                rx_bytes: 6400,
                tx_packets: 95,
                tx_bytes: 6000,
                rx_missed: 1,
                rx_errors: 2,
                rx_no_buffer: 3,
                tx_errors: 4,
            }],
        });
        let want = "\
received 100 + originated 3 + from kernel 5 = sent 94 + delivered 2 + to kernel 4 + dropped 7 + waiting 1
connections 2 of at most 1000000
packet buffers 8000 free of 8192

Device          MAC                Link   MTU  RxPkts  RxBytes  TxPkts  TxBytes  RxMissed  RxErrors  RxNoBuffer  TxErrors
af_packet:eth0  02:00:00:00:00:01  up    1500     100     6400      95     6000         1         2           3         4
";
        assert_eq!(text, want);
    }

    #[test]
    fn drops_without_packets_are_left_out() {
        let row = |reason: &str, packets| DropRow {
            reason: reason.into(),
            packets,
            description: format!("About {reason}."),
        };
        let list = Drops { drops: vec![row("no_service", 12), row("not_for_us", 0)] };
        let some = "Reason      Packets  Description\nno_service       12  About no_service.\n";
        assert_eq!(drops(&list, false), some);
        assert_eq!(drops(&list, true), format!("{some}not_for_us        0  About not_for_us.\n"));
        assert_eq!(drops(&Drops { drops: vec![row("not_for_us", 0)] }, false), "no packet was dropped\n");
    }

    #[test]
    fn an_unresolved_neighbour_has_no_mac() {
        let row = |address: &str, mac: Option<&str>, state: &str, since_ms| NeighborRow {
            port: "lan".into(),
            address: address.parse().unwrap(),
            mac: mac.map(Into::into),
            state: state.into(),
            since_ms,
            probes: 1,
        };
        let text = super::neighbors(&Neighbors {
            neighbors: vec![
                row("192.168.150.12", Some("02:00:00:00:00:12"), "reachable", 12_345),
                row("fd00::13", None, "incomplete", 90),
            ],
        });
        let want = "\
Port  Address         MAC                State        Since  Probes
lan   192.168.150.12  02:00:00:00:00:12  reachable   12.3 s       1
lan   fd00::13        -                  incomplete   0.0 s       1
";
        assert_eq!(text, want);
    }

    #[test]
    fn workers_fill_one_line_each() {
        let row = WorkerRow {
            worker: 0,
            cpu: 3,
            connections: 5,
            max_connections: 1024,
            inserted: 6,
            expired: 1,
            received: 10,
            sent: 9,
            dropped: 1,
            handed_over: 2,
            taken_over: 4,
            turns: 1000,
            busy_turns: 990,
            generation: 1,
            events_lost: 0,
            flood: FloodRow { embryonic: 2, ..FloodRow::default() },
        };
        let want = "\
Worker  CPU  Connections  RxPkts  TxPkts  Dropped  HandedOver  TakenOver  Turns  BusyTurns
     0    3            5      10       9        1           2          4   1000        990
";
        assert_eq!(
            super::workers(&Workers {
                workers: vec![row.clone()],
                tables: vec![],
                restart: RestartRow::default()
            }),
            want
        );
        let flood = FloodRow {
            active: true,
            embryonic: 700,
            evicted_closed: 1,
            evicted_embryonic: 2,
            evicted_one_way: 3,
            evicted_closing: 4,
            unconfirmed: 50,
            stateless: 60,
            cookies_sent: 70,
            cookies_accepted: 8,
            cookies_refused: 9,
            calls_repeated: 12,
            calls_given_up: 3,
        };
        let busy = "
Worker  Flood  Embryonic  Evicted  Unconfirmed  Stateless  CookiesSent  Accepted  Refused  CalledAgain  GivenUp
     0  yes          700       10           50         60           70         8        9           12        3
";
        let rows = Workers {
            workers: vec![WorkerRow { flood, ..row }],
            tables: vec![],
            restart: RestartRow::default(),
        };
        assert_eq!(super::workers(&rows), format!("{want}{busy}"));
    }

    #[test]
    fn tables_tell_where_they_lie() {
        let reserved = TableRow {
            kind: "IPv4 connections".to_owned(),
            fits: 1_048_576,
            bytes: 24_889_728,
            reserved_bytes: 12_444_864,
            kept_bytes: 24_889_728,
            pages: vec!["reserved huge pages".to_owned(), "transparent huge pages".to_owned()],
            used: true,
        };
        let rows = [reserved, TableRow { kind: "IPv6 connections".to_owned(), ..TableRow::default() }];
        let want = "
Table             Used     Fits     Bytes  Reserved      Kept  Pages
IPv4 connections  yes   1048576  24889728  12444864  24889728  reserved huge pages, transparent huge pages
IPv6 connections  no          0         0         0         0
";
        let text = super::memory(&rows);
        assert_eq!(text.lines().map(str::trim_end).collect::<Vec<_>>(), want.lines().collect::<Vec<_>>());
        assert_eq!(super::memory(&[]), "");
    }

    #[test]
    fn what_became_of_earlier_connections_is_told() {
        assert_eq!(super::restart(&RestartRow::default()), "");
        let row = RestartRow {
            folder: Some("/dev/shm/sluice-node01".to_owned()),
            began: "attached".to_owned(),
            reason: None,
            taken_over: 12_345,
            dropped: vec![("server removed".to_owned(), 3), ("no room".to_owned(), 1)],
            took_us: 15_640,
        };
        let want = "
Connections are kept in /dev/shm/sluice-node01.
Began with 12345 connections of an earlier lbd (attached, 15.6 ms), 3 dropped: server removed, 1 dropped: no room.
";
        assert_eq!(super::restart(&row), want);
        let fresh = RestartRow {
            began: "fresh".to_owned(),
            reason: Some("the machine was started since".to_owned()),
            dropped: vec![],
            ..row
        };
        let want = "
Connections are kept in /dev/shm/sluice-node01.
Began fresh: the machine was started since.
";
        assert_eq!(super::restart(&fresh), want);
        let off = RestartRow { folder: None, reason: Some("tables.keep is false".to_owned()), ..fresh };
        assert_eq!(super::restart(&off), "\nConnections will not survive a restart: tables.keep is false.\n");
    }

    #[test]
    fn latency_is_in_microseconds() {
        let row = |worker, max_ns| LatencyRow {
            worker,
            samples: 1000,
            p50_ns: 450,
            p90_ns: 1001,
            p99_ns: 20_000,
            p999_ns: 99_999,
            max_ns,
        };
        let want = "\
Worker  Samples  p50 us  p90 us  p99 us  p99.9 us   max us
     0     1000    0.45    1.01   20.00    100.00  1234.50
   all     1000    0.45    1.01   20.00    100.00     0.00
";
        assert_eq!(super::latency(&Latency { latency: vec![row(Some(0), 1_234_500), row(None, 0)] }), want);
    }
}
