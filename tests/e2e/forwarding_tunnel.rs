//! Tunnels over IPv4, which the servers unpack in user space. What Linux itself unpacks is in `tests/peer`.

use anyhow::{Result, ensure};
use lb_tests::case::Case;
use lb_tests::config::{Config, Service};
use lb_tests::lab::{CLIENT, Lab, Place, Shape, VIP};

use crate::forwarding::{alternates, transfer, udp};

/// Both servers.
const BOTH: &[&str] = &["192.168.150.12", "192.168.150.13"];
const IPIP: &str = r#"{ type = "ipip" }"#;
const GRE: &str = r#"{ type = "gre", checksum = "full" }"#;
const GUE: &str = r#"{ type = "gue", port = 6080, checksum = "full" }"#;

pub fn cases() -> Vec<Case> {
    let cases = vec![
        Case::new("tunnel_ipip_alternates_with_two_workers", |lab| web(lab, IPIP, 2)),
        Case::new("tunnel_gre_alternates", |lab| web(lab, GRE, 1)),
        Case::new("tunnel_gue_alternates", |lab| web(lab, GUE, 1)),
        Case::new("tunnel_udp_is_spread_by_flow", |lab| {
            udp(lab, 5353, Config::with(vec![Service::udp("dns", 5353, "rr", BOTH).tunnel(IPIP)]))
        }),
        // A segment of the client's with the MTU's size does not fit into the tunnel: it has to learn that.
        Case::new("tunnel_100_mb_arrive_bit_for_bit", |lab| {
            transfer(lab, 9000, Config::with(vec![Service::tcp("sink", 9000, "rr", &BOTH[..1]).tunnel(IPIP)]))
        }),
    ];
    let shape = Shape { place: Place::BesideWithTunnels, ..Shape::default() };
    cases.into_iter().map(|case| case.shape(shape)).collect()
}

fn web(lab: &mut Lab, tunnel: &str, workers: usize) -> Result<()> {
    let service = Service::tcp("web", 80, "rr", BOTH).tunnel(tunnel);
    alternates(lab, Config { workers, ..Config::with(vec![service]) })?;
    for server in &lab.servers {
        let packets = server.netns.run(&["cat", "/sys/class/net/tun0/statistics/rx_packets"])?;
        ensure!(packets.trim() != "0", "nothing came out of {}'s tunnel", server.address);
    }
    let sockets = lab.servers[0].netns.run(&["ss", "-Htan"])?;
    ensure!(sockets.contains(CLIENT) && sockets.contains(VIP), "the server's sockets are {sockets}");
    Ok(())
}
