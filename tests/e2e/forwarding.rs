//! Direct routing: what the client and the servers see.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Result, ensure};
use lb_tests::case::Case;
use lb_tests::config::{Config, Service};
use lb_tests::director::PATIENCE;
use lb_tests::lab::{CLIENT, Lab, Shape, VIP};
use lb_tests::servers::{Pattern, ThreadServer};
use lb_tests::wait::uninterrupted;

/// Bytes of the bit-for-bit transfer.
const TRANSFER: u64 = 100_000_000;

/// Both servers beside the director.
const BOTH: &[&str] = &["192.168.150.12", "192.168.150.13"];

pub fn cases() -> Vec<Case> {
    vec![
        Case::new("rr_alternates_strictly_with_one_worker", |lab| alternates(lab, Config::default())),
        Case::new("rr_alternates_strictly_with_two_workers", |lab| {
            alternates(lab, Config { workers: 2, ..Config::default() })
        }),
        Case::new("rr_alternates_strictly_over_af_xdp", |lab| {
            alternates(lab, Config { device: "af_xdp", ..Config::default() })
        }),
        Case::new("rr_alternates_strictly_in_a_vlan", |lab| {
            alternates(lab, Config { vlan: Some(150), ..Config::default() })
        })
        .shape(Shape { vlan: Some(150), ..Shape::default() }),
        Case::new("the_server_sees_the_client_and_the_director_has_no_socket", endpoints),
        Case::new("udp_is_spread_by_flow", |lab| {
            udp(lab, 5353, Config::with(vec![Service::udp("dns", 5353, "rr", BOTH)]))
        }),
        Case::new("100_mb_in_full_frames_arrive_bit_for_bit", |lab| {
            transfer(lab, 9000, Config::with(vec![Service::tcp("sink", 9000, "rr", &BOTH[..1])]))
        }),
        Case::new("100_mb_in_jumbo_frames_arrive_bit_for_bit", |lab| {
            let config = Config::with(vec![Service::tcp("sink", 9000, "rr", &BOTH[..1])]);
            transfer(lab, 9000, Config { mtu: Some(9000), ..config })
        })
        .shape(Shape { mtu: 9000, ..Shape::default() }),
        Case::new("two_directors_run_side_by_side", two_directors),
    ]
}

/// 20 connections one after the other go to the two servers in turn.
pub fn alternates(lab: &mut Lab, config: Config) -> Result<()> {
    let _nginx = lab.start_nginx()?;
    lab.start_director(&config)?;
    let answers = (0..20).map(|_| lab.curl(&format!("http://{VIP}/"))).collect::<Result<Vec<_>>>()?;
    for pair in answers.windows(2) {
        ensure!(pair[0] != pair[1], "not in turn: {answers:?}");
    }
    let known: Vec<String> = lab.servers.iter().map(|server| format!("from {}", server.address)).collect();
    ensure!(answers.iter().all(|answer| known.contains(answer)), "unknown server: {answers:?}");
    for row in lab.director()?.servers("web")? {
        ensure!(row.counters.connections == 10, "{row:?} does not count 10 connections");
    }
    lab.director()?.wait_conserved()?;
    Ok(())
}

fn endpoints(lab: &mut Lab) -> Result<()> {
    let _nginx = lab.start_nginx()?;
    lab.start_director(&Config::default())?;
    let mut held = lab.client.enter(|| Ok(TcpStream::connect((VIP, 80))?))?;
    let answer = lab.curl(&format!("http://{VIP}/client"))?;
    ensure!(answer == CLIENT, "the server saw {answer}, not the client");
    let sockets = lab.node01.run(&["ss", "-Htan"])?;
    ensure!(sockets.is_empty(), "the director has sockets: {sockets}");
    let mut seen = String::new();
    for server in &lab.servers {
        seen += &server.netns.run(&["ss", "-Htan"])?;
    }
    ensure!(seen.contains("ESTAB") && seen.contains("TIME-WAIT"), "the servers' sockets are {seen}");
    held.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    Ok(())
}

/// 10 UDP flows of 3 datagrams each to port 5353 are spread evenly over the two servers, which listen on `port`.
pub fn udp(lab: &mut Lab, port: u16, config: Config) -> Result<()> {
    let servers = lab.servers.iter().map(|s| ThreadServer::udp(s, port)).collect::<Result<Vec<_>>>()?;
    lab.start_director(&config)?;
    let mut answers = HashMap::<String, usize>::new();
    for _ in 0..10 {
        // Each socket is a flow: all its datagrams get to one server.
        let socket = lab.client.enter(|| Ok(UdpSocket::bind("0.0.0.0:0")?))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.connect((VIP, 5353))?;
        let mut flow = Vec::new();
        for _ in 0..3 {
            socket.send(b"question")?;
            let mut buffer = [0; 64];
            let length = uninterrupted(|| socket.recv(&mut buffer))?;
            flow.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
        }
        ensure!(flow.iter().all(|answer| *answer == flow[0]), "one flow, several servers: {flow:?}");
        *answers.entry(flow[0].clone()).or_default() += 1;
    }
    ensure!(answers.values().all(|n| *n == 5) && answers.len() == 2, "not 5 flows each: {answers:?}");
    drop(servers);
    let rows = lab.director()?.connections(&["--protocol", "udp"])?;
    ensure!(rows.len() == 10 && rows.iter().all(|row| row.state == "UDP"), "{rows:?}");
    Ok(())
}

/// [`TRANSFER`] bytes to port 9000 arrive at the first server, which listens on `port`, as they were sent.
pub fn transfer(lab: &mut Lab, port: u16, config: Config) -> Result<()> {
    let sink = ThreadServer::tcp_sink(&lab.servers[0], port)?;
    lab.start_director(&config)?;
    let mut stream = lab.client.enter(|| Ok(TcpStream::connect((VIP, 9000))?))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut pattern = Pattern::default();
    let mut chunk = vec![0; 100_000];
    for _ in 0..TRANSFER / chunk.len() as u64 {
        pattern.fill(&mut chunk);
        stream.write_all(&chunk)?;
    }
    stream.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(answer.trim() == TRANSFER.to_string(), "the server got {answer:?} bytes, {TRANSFER} were sent");
    ensure!(!sink.wrong.load(std::sync::atomic::Ordering::Relaxed), "the server saw other bytes");
    let counters = lab.director()?.server("sink", &lab.servers[0].address)?.counters;
    ensure!(counters.in_bytes > TRANSFER, "{counters:?} has not counted the transfer");
    let mean = counters.in_bytes / counters.in_packets;
    let wanted = u64::from(config.mtu.unwrap_or(1500)) * 7 / 8;
    ensure!(mean > wanted, "{mean} bytes a packet: not frames of the MTU's size");
    lab.director()?.wait_conserved()?;
    Ok(())
}

fn two_directors(lab: &mut Lab) -> Result<()> {
    let mut other = Lab::new(Shape::default())?;
    let _nginx = (lab.start_nginx()?, other.start_nginx()?);
    lab.start_director(&Config::default())?;
    other.start_director(&Config::default())?;
    for _ in 0..4 {
        lab.curl(&format!("http://{VIP}/"))?;
        other.curl(&format!("http://{VIP}/"))?;
    }
    // The end of one is nothing to the other.
    other.director.take();
    lab.curl(&format!("http://{VIP}/"))?;
    let rows = lab.director()?.servers("web")?;
    let connections: u64 = rows.iter().map(|row| row.counters.connections).sum();
    ensure!(connections == 5, "5 connections, not {connections}");
    let gone = other.client.output(&["curl", "-s", "--max-time", "1", &format!("http://{VIP}/")])?;
    ensure!(!gone.status.success(), "{:?} after its director ended", Duration::from_secs(1));
    Ok(())
}
