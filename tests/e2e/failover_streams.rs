//! A director is killed whose connections are not what the client and the server see: the SYN proxy has shifted their
//! sequence numbers, a PROXY header goes ahead of the client's bytes. And connections that were flushed stay so.

use std::io::{Read, Write};
use std::net::TcpStream;

use anyhow::{Context, Result, ensure};
use lb_control::api;
use lb_tests::case::Case;
use lb_tests::config::{Config, Service};
use lb_tests::director::PATIENCE;
use lb_tests::lab::{CLIENT, Lab, RealServer, Shape, VIP};
use lb_tests::process::Process;
use lb_tests::servers::ThreadServer;
use lb_tests::wait::wait_until;
use nix::sys::signal::Signal;

use crate::failover::{Kept, LIP, One, check, config_of, prepare};

pub fn cases() -> Vec<Case> {
    let shape = Shape { servers: 3, ..Shape::default() };
    [
        Case::new(
            "a_killed_director_breaks_no_connection_of_the_syn_proxy_and_none_with_proxy_headers",
            streams,
        ),
        Case::new("a_killed_director_breaks_no_transfer_of_the_syn_proxy", transfer),
        Case::new("what_was_flushed_does_not_come_back_with_another_director", flushed),
    ]
    .map(|case| case.shape(shape))
    .into()
}

/// Connections of each kind that are held, and that have not said anything yet.
const HELD: usize = 30;
const SILENT: usize = 10;

/// Ports of the VIP: through the SYN proxy, with a PROXY header.
const SPLICED: u16 = 80;
const HEADED: u16 = 81;

fn services(lab: &Lab) -> Vec<Service> {
    let servers: Vec<&str> = lab.servers[1..].iter().map(|server| server.address.as_str()).collect();
    let service = |name, port, server_port, more: &str| Service {
        more: format!("forwarding = \"fullnat\"\nlocal_addresses = [\"{LIP}\"]\n{more}"),
        server_port: Some(server_port),
        ..Service::tcp(name, port, "rr", &servers)
    };
    let (proxy, header) = ("policy.syn_proxy = \"always\"\n", "client_address = \"proxy-v2\"\n");
    vec![
        service("spliced", SPLICED, 80, proxy),
        service("headed", HEADED, 8088, header),
        service("sink", 9000, 9000, proxy),
    ]
}

/// Two directors, the first of which is master.
fn pair(lab: &Lab) -> Result<(One, One)> {
    let master = One::start(lab, 0, &config(lab, 0))?;
    master.wait_for("master", false)?;
    let backup = One::start(lab, 1, &config(lab, 1))?;
    backup.wait_for("backup", true)?;
    master.wait_ready(lab, 0)?;
    backup.wait_ready(lab, 0)?;
    Ok((master, backup))
}

fn config(lab: &Lab, at: usize) -> Config {
    config_of(services(lab), at, [150, 100][at], "preempt = false")
}

fn nginx(lab: &Lab) -> Result<Vec<Process>> {
    lab.servers[1..].iter().map(|server| lab.nginx(server)).collect()
}

/// Kills the master and has it come back as the backup, which knows `connections` then.
fn swap(lab: &Lab, (master, backup): (One, One), at: usize, connections: usize) -> Result<(One, One)> {
    backup.wait_ready(lab, connections)?;
    master.process.signal(Signal::SIGKILL)?;
    backup.wait_for("master", false)?;
    drop(master);
    let master = One::start(lab, at, &config(lab, at))?;
    master.wait_for("backup", true)?;
    Ok((backup, master))
}

/// A connection that has said nothing so far, asked for whom the server takes for its client.
fn speak(mut stream: TcpStream) -> Result<()> {
    let port = stream.local_addr()?.port();
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /proxied HTTP/1.1\r\nHost: vip\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let wanted = format!("\r\n\r\n{CLIENT} {port}\n");
    ensure!(
        answer.ends_with(&wanted),
        "the server was told of another client than {CLIENT} {port}: {answer:?}"
    );
    Ok(())
}

fn streams(lab: &mut Lab) -> Result<()> {
    prepare(lab)?;
    let _nginx = nginx(lab)?;
    let (mut master, mut backup) = pair(lab)?;
    let open = |port| Kept::open_at(lab, port, HELD);
    let mut held = [open(SPLICED)?, open(HEADED)?];
    let mut known = 2 * HELD;
    for (round, at) in [0, 1, 0].into_iter().enumerate() {
        let silent: Vec<TcpStream> =
            lab.client.enter(|| (0..SILENT).map(|_| Ok(TcpStream::connect((VIP, HEADED))?)).collect())?;
        (master, backup) = swap(lab, (master, backup), at, known + SILENT)?;
        let evidence = || format!("round {round}\n{}", master.evidence());
        for (kind, held) in ["spliced", "headed"].iter().zip(&mut held) {
            check(held).with_context(|| format!("{kind}, {}", evidence()))?;
        }
        for stream in silent {
            speak(stream).with_context(evidence)?;
        }
        // those that were answered and closed may be there still
        known = 2 * HELD;
        backup.wait_ready(lab, known)?;
        master.wait_for("master", true)?;
    }
    Ok(())
}

fn transfer(lab: &mut Lab) -> Result<()> {
    const BYTES: usize = 100_000_000;
    prepare(lab)?;
    let _nginx = nginx(lab)?;
    let sink = |server: &RealServer| ThreadServer::tcp_sink_at(server, &server.address, 9000);
    let sinks: Vec<ThreadServer> = lab.servers[1..].iter().map(sink).collect::<Result<_>>()?;
    let (master, backup) = pair(lab)?;
    let mut stream = lab.client.enter(|| Ok(TcpStream::connect((VIP, 9000))?))?;
    stream.set_read_timeout(Some(4 * PATIENCE))?;
    stream.set_write_timeout(Some(4 * PATIENCE))?;
    let mut pattern = lb_tests::servers::Pattern::default();
    let mut buffer = vec![0; 1 << 16];
    let mut sent = 0;
    let mut killed = false;
    while sent < BYTES {
        let len = buffer.len().min(BYTES - sent);
        pattern.fill(&mut buffer[..len]);
        stream
            .write_all(&buffer[..len])
            .with_context(|| format!("after {sent} bytes\n{}", backup.evidence()))?;
        sent += len;
        if sent > BYTES / 2 && !killed {
            backup.wait_ready(lab, 1)?;
            master.process.signal(Signal::SIGKILL)?;
            killed = true;
        }
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).with_context(|| backup.evidence())?;
    ensure!(answer.trim() == BYTES.to_string(), "{answer:?} of {BYTES} bytes arrived");
    ensure!(
        sinks.iter().all(|sink| !sink.wrong.load(std::sync::atomic::Ordering::Relaxed)),
        "bytes were wrong"
    );
    backup.wait_for("master", false)
}

fn flushed(lab: &mut Lab) -> Result<()> {
    prepare(lab)?;
    let _nginx = nginx(lab)?;
    let (master, backup) = pair(lab)?;
    let count = |one: &One| Ok::<_, anyhow::Error>(one.ask::<api::Stats>(&["stats"])?.connections);
    let mut held = Kept::open_at(lab, SPLICED, HELD)?;
    let mut others = Kept::open_at(lab, HEADED, HELD)?;
    backup.wait_ready(lab, 2 * HELD)?;
    let gone: api::Flushed = master.ask(&["connections", "--flush", "--service", "spliced"])?;
    ensure!(gone.connections == HELD as u64, "{gone:?}");
    wait_until("the other director has forgotten them", PATIENCE, || Ok(count(&backup)? == HELD as u64))
        .with_context(|| backup.evidence())?;
    let (master, _backup) = swap(lab, (master, backup), 0, HELD)?;
    check(&mut others).with_context(|| master.evidence())?;
    ensure!(check(&mut held[..1]).is_err(), "a connection that was flushed goes on");
    Ok(())
}
