//! Changes while traffic runs: no request fails, held connections go on.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lb_tests::case::Case;
use lb_tests::config::{Config, Service};
use lb_tests::director::PATIENCE;
use lb_tests::lab::{Lab, Shape, VIP};
use lb_tests::process::Process;
use lb_tests::wait::{uninterrupted, wait_until};

/// How long wrk sends requests, seconds; all changes must fit in.
const LOAD: u32 = 12;

pub fn cases() -> Vec<Case> {
    let three = Shape { servers: 3, ..Shape::default() };
    vec![
        Case::new("changes_under_load_fail_no_request", |lab| under_load(lab, 1)).shape(three),
        Case::new("changes_under_load_fail_no_request_with_two_workers", |lab| under_load(lab, 2))
            .shape(three),
        Case::new("a_drained_server_keeps_its_connection_and_gets_no_new_one", drain),
        Case::new("apply_refuses_all_faults_at_once_and_changes_nothing", refused),
        Case::new("what_runs_can_be_shown_saved_and_applied_again", round_trip),
        Case::new("a_service_is_added_edited_and_deleted_while_running", service),
    ]
}

/// Starts wrk with a connection per request and waits until its requests arrive.
fn start_load(lab: &Lab) -> Result<Process> {
    let log = lab.dir().join("wrk.log");
    let (duration, url) = (format!("{LOAD}s"), format!("http://{VIP}/"));
    let argv = ["wrk", "-t", "1", "-c", "16", "-d", &duration, "--timeout", "5s", &url];
    let wrk = lab.client.start(&argv, &log)?;
    wait_until("requests arrive", PATIENCE, || {
        Ok(lab.director()?.servers("web")?.iter().map(|row| row.counters.connections).sum::<u64>() > 50)
    })?;
    Ok(wrk)
}

/// Waits until wrk ends and checks that every request got its answer.
fn finish_load(lab: &Lab, mut wrk: Process) -> Result<()> {
    let status = wrk.wait(Duration::from_secs(u64::from(LOAD)) + PATIENCE)?;
    let log = wrk.log();
    ensure!(status.success() && log.contains("requests in"), "{status}: {log}");
    ensure!(!log.contains("Socket errors") && !log.contains("Non-2xx"), "requests failed: {log}");
    lab.director()?.wait_conserved()?;
    Ok(())
}

fn under_load(lab: &mut Lab, workers: usize) -> Result<()> {
    let _nginx = lab.start_nginx()?;
    lab.start_director(&Config { workers, ..Config::default() })?;
    let mut wrk = start_load(lab)?;
    let director = lab.director()?;
    let connections =
        |address: &str| -> Result<u64> { Ok(director.server("web", address)?.counters.connections) };

    director.ask(&["server", "add", "web", "192.168.150.14", "--weight", "1"])?;
    wait_until("the new server gets connections", PATIENCE, || Ok(connections("192.168.150.14")? > 20))?;
    director.ask(&["server", "edit", "web", "192.168.150.14", "--weight", "5"])?;
    director.ask(&["service", "edit", "web", "--scheduler", "lc"])?;
    director.ask(&["service", "edit", "web", "--scheduler", "maglev"])?;
    director.ask(&["service", "edit", "web", "--scheduler", "rr"])?;

    director.ask(&["server", "drain", "web", "192.168.150.12"])?;
    let idle = || Ok(director.server("web", "192.168.150.12")?.counters.active == 0);
    wait_until("the drained server has no active connection", PATIENCE, idle)?;
    director.ask(&["server", "delete", "web", "192.168.150.12"])?;

    // A whole file: the drained server is back, another one is gone to weight 0.
    let mut config = Config { workers, ..Config::default() };
    config.services[0].servers = vec![
        ("192.168.150.12".to_owned(), 2),
        ("192.168.150.13".to_owned(), 0),
        ("192.168.150.14".to_owned(), 1),
    ];
    let file = lab.dir().join("changed.toml");
    std::fs::write(&file, config.to_toml(&director.socket().to_string_lossy()))?;
    director.ask(&["apply", &file.to_string_lossy()])?;
    let before = connections("192.168.150.12")?;
    wait_until("the server that is back gets connections", PATIENCE, || {
        Ok(connections("192.168.150.12")? > before + 20)
    })?;
    ensure!(wrk.runs()?, "wrk ended before the changes did: {}", wrk.log());
    finish_load(lab, wrk)
}

fn drain(lab: &mut Lab) -> Result<()> {
    let _nginx = lab.start_nginx()?;
    lab.start_director(&Config::default())?;
    let mut held = lab.client.enter(|| Ok(TcpStream::connect((VIP, 80))?))?;
    held.set_read_timeout(Some(PATIENCE))?;
    let request = |stream: &mut TcpStream| -> Result<String> {
        stream.write_all(b"GET /keep HTTP/1.1\r\nHost: vip\r\n\r\n")?;
        let mut answer = String::new();
        let mut buffer = [0; 512];
        while !(answer.contains("from ") && answer.ends_with('\n')) {
            let length = uninterrupted(|| stream.read(&mut buffer))?;
            ensure!(length > 0, "the server closed the connection");
            answer += &String::from_utf8_lossy(&buffer[..length]);
        }
        Ok(answer.lines().last().context("an answer has lines")?.to_owned())
    };
    let server = request(&mut held)?;
    let address = server.strip_prefix("from ").context("no server's name")?;
    let director = lab.director()?;
    director.ask(&["server", "drain", "web", address])?;
    ensure!(director.server("web", address)?.weight == 0, "its weight is not 0");
    for _ in 0..6 {
        let answer = lab.curl(&format!("http://{VIP}/"))?;
        ensure!(answer != server, "a new connection went to the drained server");
    }
    ensure!(request(&mut held)? == server, "the held connection moved");
    ensure!(director.server("web", address)?.counters.active == 1, "the held connection is not counted");
    drop(held);
    wait_until("the drained server has no active connection", PATIENCE, || {
        Ok(director.server("web", address)?.counters.active == 0)
    })
}

fn refused(lab: &mut Lab) -> Result<()> {
    lab.start_director(&Config::default())?;
    let director = lab.director()?;
    let before = director.ask(&["show"])?;
    let mut config = Config::default();
    config.services[0].servers = vec![("192.168.150.12".to_owned(), 70_000), ("10.0.0.1".to_owned(), 1)];
    config.services.push(Service::tcp("again", 80, "rr", &[]));
    config.services[0].more = "colour = \"red\"".to_owned();
    let file = lab.dir().join("faulty.toml");
    std::fs::write(&file, config.to_toml(&director.socket().to_string_lossy()))?;
    let output = director.lbctl(&["apply", &file.to_string_lossy()])?;
    let message = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(1), "{}: {message}", output.status);
    for part in [
        "services[0].servers[0].weight",
        "services[0].servers[1].address",
        "services[0].colour",
        "services[1]",
    ] {
        ensure!(message.contains(part), "{part} is not named in: {message}");
    }
    ensure!(director.ask(&["show"])? == before, "a refused file changed the configuration");
    Ok(())
}

fn round_trip(lab: &mut Lab) -> Result<()> {
    let _nginx = lab.start_nginx()?;
    lab.start_director(&Config::default())?;
    let director = lab.director()?;
    director.ask(&["server", "edit", "web", "192.168.150.13", "--weight", "3"])?;
    let shown = director.ask(&["show"])?;
    let file = lab.dir().join("saved.toml");
    std::fs::write(&file, &shown)?;
    let path = file.to_string_lossy().into_owned();
    // Changed, then back to what was saved.
    director.ask(&["server", "delete", "web", "192.168.150.13"])?;
    ensure!(director.ask(&["diff", &path])?.contains("192.168.150.13"), "the diff does not name the server");
    director.ask(&["apply", &path])?;
    ensure!(director.ask(&["show"])? == shown, "what was saved is not what runs");
    ensure!(director.server("web", "192.168.150.13")?.weight == 3, "the weight was lost");
    // The first file differs again, and what needs a restart is refused by name.
    let config = Config { workers: 2, ..Config::default() };
    std::fs::write(&file, config.to_toml(&director.socket().to_string_lossy()))?;
    let output = director.lbctl(&["apply", &path])?;
    let message = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(1) && message.contains("restart"), "{}: {message}", output.status);
    ensure!(director.ask(&["show"])? == shown, "a refused file changed the configuration");
    lab.curl(&format!("http://{VIP}/"))?;
    Ok(())
}

fn service(lab: &mut Lab) -> Result<()> {
    let _nginx = lab.start_nginx()?;
    lab.start_director(&Config::with(vec![]))?;
    let director = lab.director()?;
    director.ask(&["service", "add", "web", "--vip", &format!("{VIP}:80"), "--scheduler", "rr"])?;
    let nobody = lab.client.output(&["curl", "-s", "--max-time", "1", &format!("http://{VIP}/")])?;
    ensure!(!nobody.status.success(), "a service without servers answered");
    ensure!(director.dropped("no_server")? > 0, "the drop is not counted");
    director.ask(&["server", "add", "web", "192.168.150.12"])?;
    wait_until("the new server is resolved", PATIENCE, || director.resolved(&["192.168.150.12"]))?;
    ensure!(lab.curl(&format!("http://{VIP}/"))? == "from 192.168.150.12", "the new server did not answer");
    director.ask(&["service", "delete", "web"])?;
    let gone = lab.client.output(&["ping", "-n", "-c", "1", "-W", "1", VIP])?;
    ensure!(!gone.status.success(), "the VIP of a deleted service answers ping");
    let output = director.lbctl(&["service", "delete", "web"])?;
    ensure!(output.status.code() == Some(1), "deleting it twice: {}", output.status);
    ensure!(String::from_utf8_lossy(&output.stderr).contains("web"), "the error does not name the service");
    Ok(())
}
