//! NAT between two networks: the servers are behind the director, which is their gateway.
//!
//! The replies' addresses say nothing about the worker that has the connection: with two workers they get there.

use anyhow::{Result, ensure};
use lb_tests::case::Case;
use lb_tests::config::{Config, Service};
use lb_tests::lab::{CLIENT, Lab, Place, Shape, VIP, VIP6};

use crate::forwarding::{alternates, transfer, udp};

/// Both servers behind the director.
const BEHIND: &[&str] = &["192.168.160.12", "192.168.160.13"];
/// The same in IPv6.
const BEHIND6: &[&str] = &["fd00:160::12", "fd00:160::13"];

pub fn cases() -> Vec<Case> {
    let cases = vec![
        Case::new("nat_rr_alternates_strictly_with_one_worker", |lab| alternates(lab, web(1, "af_packet"))),
        Case::new("nat_rr_alternates_strictly_with_two_workers", |lab| alternates(lab, web(2, "af_packet"))),
        Case::new("nat_rr_alternates_strictly_over_af_xdp", |lab| alternates(lab, web(1, "af_xdp"))),
        Case::new("nat_over_ipv6_with_two_workers", ipv6),
        Case::new("nat_udp_is_spread_by_flow_with_two_workers", |lab| {
            udp(lab, 53, behind(2, Service::udp("dns", 5353, "rr", BEHIND).nat(53)))
        }),
        Case::new("nat_100_mb_arrive_bit_for_bit_with_two_workers", |lab| {
            transfer(lab, 9001, behind(2, Service::tcp("sink", 9000, "rr", &BEHIND[..1]).nat(9001)))
        }),
        Case::new("nat_many_connections_at_once_with_two_workers", many),
    ];
    let shape = Shape { place: Place::Behind, ..Shape::default() };
    let mut cases: Vec<_> = cases.into_iter().map(|case| case.shape(shape)).collect();
    let jumbo = Case::new("nat_100_mb_in_jumbo_frames_arrive_bit_for_bit_with_two_workers", |lab| {
        let service = Service::tcp("sink", 9000, "rr", &BEHIND[..1]).nat(9001);
        transfer(lab, 9001, Config { mtu: Some(9000), ..behind(2, service) })
    });
    cases.push(jumbo.shape(Shape { mtu: 9000, ..shape }));
    cases
}

/// One service to servers behind the director.
fn behind(workers: usize, service: Service) -> Config {
    Config { workers, behind: true, ..Config::with(vec![service]) }
}

/// The web service, ports mapped.
fn web(workers: usize, device: &'static str) -> Config {
    Config { device, ..behind(workers, Service::tcp("web", 80, "rr", BEHIND).nat(8080)) }
}

fn ipv6(lab: &mut Lab) -> Result<()> {
    let _nginx = lab.start_nginx()?;
    lab.start_director(&behind(2, Service::tcp("web6", 80, "rr", BEHIND6).v6().nat(8080)))?;
    let answers = (0..10).map(|_| lab.curl(&format!("http://[{VIP6}]/"))).collect::<Result<Vec<_>>>()?;
    ensure!(answers.windows(2).all(|pair| pair[0] != pair[1]), "not in turn: {answers:?}");
    let client = lab.curl(&format!("http://[{VIP6}]/client"))?;
    ensure!(client == "fd00:150::1", "the server saw {client}, not the client");
    lab.director()?.wait_conserved()?;
    Ok(())
}

/// wrk's connections are of both workers: each has the replies of its own.
fn many(lab: &mut Lab) -> Result<()> {
    let _nginx = lab.start_nginx()?;
    lab.start_director(&web(2, "af_packet"))?;
    let client = lab.curl(&format!("http://{VIP}/client"))?;
    ensure!(client == CLIENT, "the server saw {client}, not the client");
    let url = format!("http://{VIP}/");
    let report = lab.client.run(&["wrk", "-t", "1", "-c", "64", "-d", "3", "--timeout", "5", &url])?;
    ensure!(!report.contains("Socket errors") && !report.contains("Non-2xx"), "{report}");
    let rows = lab.director()?.servers("web")?;
    ensure!(rows.iter().all(|row| row.counters.connections > 50), "both servers get connections: {rows:?}");
    lab.director()?.wait_conserved()?;
    Ok(())
}
