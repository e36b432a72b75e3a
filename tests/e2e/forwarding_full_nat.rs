//! Full NAT and source NAT: who talks to whom under whose address.

use anyhow::{Result, ensure};
use lb_tests::case::Case;
use lb_tests::config::{Config, Service};
use lb_tests::director::PATIENCE;
use lb_tests::lab::{CLIENT, Lab, Place, Shape, VIP, VIP6};
use lb_tests::wait::wait_until;

use crate::forwarding::{alternates, transfer};

/// Servers beside the director, which is not their gateway.
const BESIDE: &[&str] = &["192.168.150.12", "192.168.150.13"];
const BESIDE6: &[&str] = &["fd00:150::12", "fd00:150::13"];
/// Local addresses of the service.
const LOCAL: &str = "local_addresses = [\"192.168.150.20\", \"192.168.150.21\"]";

pub fn cases() -> Vec<Case> {
    let behind = Shape { place: Place::Behind, ..Shape::default() };
    vec![
        Case::new("full_nat_rr_alternates_strictly", |lab| alternates(lab, web(1, ""))),
        Case::new("full_nat_replies_reach_their_worker", local_ends),
        Case::new("full_nat_over_ipv6_with_two_workers", ipv6),
        Case::new("full_nat_100_mb_arrive_bit_for_bit_with_two_workers", |lab| {
            let local = "local_addresses = [\"192.168.160.20\"]";
            let service = full_nat(Service::tcp("sink", 9000, "rr", &["192.168.160.12"]), local, 9001);
            transfer(lab, 9001, Config { workers: 2, behind: true, ..Config::with(vec![service]) })
        })
        .shape(behind),
        Case::new("full_nat_tells_the_server_its_client_in_a_tcp_option", toa),
        Case::new("full_nat_tells_the_server_its_client_by_the_proxy_protocol", proxied),
        Case::new("source_nat_takes_private_servers_to_the_world", source_nat).shape(behind),
    ]
}

fn full_nat(service: Service, more: &str, port: u16) -> Service {
    Service { more: format!("forwarding = \"fullnat\"\n{more}"), server_port: Some(port), ..service }
}

fn web(workers: usize, more: &str) -> Config {
    let service = full_nat(Service::tcp("web", 80, "rr", BESIDE), &format!("{LOCAL}\n{more}"), 80);
    Config { workers, ..Config::with(vec![service]) }
}

fn local_ends(lab: &mut Lab) -> Result<()> {
    let _nginx = lab.start_nginx()?;
    lab.start_director(&web(2, ""))?;
    let mut seen = Vec::new();
    for _ in 0..20 {
        seen.push(lab.curl(&format!("http://{VIP}/client"))?);
    }
    let known = |address: &String| ["192.168.150.20", "192.168.150.21"].contains(&address.as_str());
    ensure!(seen.iter().all(known), "the servers saw {seen:?}, not the local addresses");
    let url = format!("http://{VIP}/");
    let report = lab.client.run(&["wrk", "-t", "1", "-c", "64", "-d", "3", "--timeout", "5", &url])?;
    ensure!(!report.contains("Socket errors") && !report.contains("Non-2xx"), "{report}");
    lab.director()?.wait_conserved()?;
    Ok(())
}

fn ipv6(lab: &mut Lab) -> Result<()> {
    let _nginx = lab.start_nginx()?;
    let local = "local_addresses = [\"fd00:150::20\"]";
    let service = full_nat(Service::tcp("web6", 80, "rr", BESIDE6).v6(), local, 80);
    lab.start_director(&Config { workers: 2, ..Config::with(vec![service]) })?;
    let seen = (0..6).map(|_| lab.curl(&format!("http://[{VIP6}]/client"))).collect::<Result<Vec<_>>>()?;
    ensure!(seen.iter().all(|address| address == "fd00:150::20"), "the servers saw {seen:?}");
    lab.director()?.wait_conserved()?;
    Ok(())
}

/// tcpdump takes option 254 for an experiment, named by its first two bytes (RFC 6994): the client's port.
fn toa(lab: &mut Lab) -> Result<()> {
    let _nginx = lab.start_nginx()?;
    lab.start_director(&web(1, "client_address = \"toa\""))?;
    let log = lab.dir().join("tcpdump-toa");
    let argv = ["tcpdump", "-l", "-n", "-v", "-i", "eth0", "tcp[tcpflags] & tcp-syn != 0 and dst port 80"];
    let tcpdump = lab.servers[0].netns.start(&argv, &log)?;
    wait_until("tcpdump listens", PATIENCE, || Ok(tcpdump.log().contains("listening on")))?;
    for port in [40001, 40002] {
        let url = format!("http://{VIP}/");
        let local = port.to_string();
        lab.client.run(&["curl", "-sS", "--max-time", "5", "--local-port", &local, &url])?;
    }
    // 40001 and 40002; one of them is scheduled to this server
    let told = || Ok(["exp-9c41", "exp-9c42"].iter().any(|option| tcpdump.log().contains(option)));
    wait_until("a server is told of its client", PATIENCE, told).map_err(|e| e.context(tcpdump.log()))?;
    Ok(())
}

/// nginx itself reads the header, and refuses a connection without one.
fn proxied(lab: &mut Lab) -> Result<()> {
    let _nginx = lab.start_nginx()?;
    let more = format!("{LOCAL}\nclient_address = \"proxy-v2\"");
    let more6 = "local_addresses = [\"fd00:150::20\"]\nclient_address = \"proxy-v2\"";
    let web = full_nat(Service::tcp("web", 80, "rr", BESIDE), &more, 8088);
    let web6 = full_nat(Service::tcp("web6", 80, "rr", BESIDE6).v6(), more6, 8088);
    lab.start_director(&Config { workers: 2, ..Config::with(vec![web, web6]) })?;
    // each port once: who closed first has the socket in TIME_WAIT, in both families
    for (host, client, first) in
        [(VIP.to_owned(), CLIENT, 41001), (format!("[{VIP6}]"), "fd00:150::1", 42001)]
    {
        for port in first..first + 10 {
            let (url, local) = (format!("http://{host}/proxied"), port.to_string());
            let argv = ["curl", "-sS", "--max-time", "5", "--local-port", &local, &url];
            let told = lab.client.run(&argv)?;
            ensure!(told.trim() == format!("{client} {port}"), "{url}: nginx was told {told:?}");
        }
    }
    // many at once, and bodies that take more than one segment
    let url = format!("http://{VIP}/");
    let report = lab.client.run(&["wrk", "-t", "1", "-c", "64", "-d", "3", "--timeout", "5", &url])?;
    ensure!(!report.contains("Socket errors") && !report.contains("Non-2xx"), "{report}");
    let large = lab.dir().join("large");
    std::fs::write(&large, vec![b'x'; 300_000])?;
    let (post, url) = (format!("@{}", large.to_string_lossy()), format!("http://{VIP}/"));
    let answer = lab.client.run(&["curl", "-sS", "--max-time", "10", "--data-binary", &post, &url])?;
    ensure!(answer.contains("from 192.168.150.1") || answer.contains("405"), "{answer}");
    lab.director()?.wait_conserved()?;
    Ok(())
}

/// The home router of the classic notes: who is behind the director reaches the world from the director's address.
fn source_nat(lab: &mut Lab) -> Result<()> {
    let rule = "[[snat]]\nname = \"servers\"\nsources = \"192.168.160.0/24\"\naddress = \"192.168.150.11\"\n";
    lab.start_director_unresolved(&Config {
        workers: 2,
        behind: true,
        timeouts: format!("\n{rule}"),
        ..Config::with(Vec::new())
    })?;
    let server = &lab.servers[0].netns;
    let pings = server.run(&["ping", "-c", "3", "-i", "0.2", "-W", "3", CLIENT])?;
    ensure!(pings.contains(" 0% packet loss"), "{pings}");
    let log = lab.dir().join("iperf3");
    let world = lab.client.start(&["iperf3", "-s", "-1", "--forceflush"], &log)?;
    wait_until("iperf3 listens", PATIENCE, || Ok(world.log().contains("listening")))?;
    let report = server.run(&["iperf3", "-c", CLIENT, "-n", "20M", "-P", "4"])?;
    ensure!(report.contains("sender"), "{report}");
    ensure!(world.log().contains("from 192.168.150.11"), "the world saw another address: {}", world.log());
    lab.director()?.wait_conserved()?;
    Ok(())
}
