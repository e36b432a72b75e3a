//! Much traffic through the director.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lb_tests::case::Case;
use lb_tests::config::{Config, Service};
use lb_tests::director::PATIENCE;
use lb_tests::lab::{Lab, VIP};
use lb_tests::wait::wait_until;

/// Connections that are open at once.
const PARALLEL: usize = 10_000;

/// Threads that open them.
const THREADS: usize = 4;

pub fn cases() -> Vec<Case> {
    vec![
        Case::new("ten_thousand_connections_at_once", |lab| parallel(lab, 1)),
        Case::new("ten_thousand_connections_at_once_with_two_workers", |lab| parallel(lab, 2)),
        Case::new("wrk_gets_an_answer_to_every_request", wrk),
        Case::new("iperf3_runs_through_the_director", iperf3),
    ]
}

fn parallel(lab: &mut Lab, workers: usize) -> Result<()> {
    let _nginx = lab.start_nginx()?;
    lab.start_director(&Config { workers, ..Config::default() })?;
    let lab = &*lab;
    let open = || {
        lab.client.enter(|| {
            let connect = |_| -> Result<TcpStream> {
                let stream = TcpStream::connect((VIP, 80))?;
                stream.set_read_timeout(Some(PATIENCE))?;
                Ok(stream)
            };
            (0..PARALLEL / THREADS).map(connect).collect::<Result<Vec<_>>>()
        })
    };
    let threads = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(open)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().ok().context("a thread panicked")?)
            .collect::<Result<Vec<_>>>()
    })?;
    let mut streams: Vec<TcpStream> = threads.into_iter().flatten().collect();
    ensure!(streams.len() == PARALLEL, "{} connections", streams.len());
    let director = lab.director()?;
    wait_until("all connections are tracked as active", PATIENCE, || {
        let active: u64 = director.servers("web")?.iter().map(|row| row.counters.active).sum();
        Ok(active == PARALLEL as u64 && director.stats()?.connections >= PARALLEL as u64)
    })?;
    let rows = director.servers("web")?;
    ensure!(rows.iter().all(|row| row.counters.active == PARALLEL as u64 / 2), "not half on each: {rows:?}");
    let listed = director.connections(&["--limit", "50000", "--state", "ESTABLISHED"])?.len();
    ensure!(listed == PARALLEL, "{listed} connections are listed as ESTABLISHED");
    // All of them work: requests first, then answers.
    for stream in &mut streams {
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    }
    for stream in &mut streams {
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        ensure!(answer.contains("from 192.168.150.1"), "an answer of {answer:?}");
    }
    drop(streams);
    director.wait_conserved()?;
    Ok(())
}

fn wrk(lab: &mut Lab) -> Result<()> {
    let _nginx = lab.start_nginx()?;
    lab.start_director(&Config::default())?;
    for path in ["", "keep"] {
        let url = format!("http://{VIP}/{path}");
        let output = lab.client.run(&["wrk", "-t", "2", "-c", "50", "-d", "4s", "--latency", &url])?;
        ensure!(
            !output.contains("Socket errors") && !output.contains("Non-2xx"),
            "requests failed: {output}"
        );
    }
    let samples: lb_control::api::Latency = lab.director()?.json(&["latency"])?;
    let merged = samples.latency.iter().find(|row| row.worker.is_none()).context("no merged row")?;
    ensure!(merged.samples > 100 && merged.p50_ns > 0 && merged.p50_ns <= merged.p99_ns, "{merged:?}");
    ensure!(merged.p999_ns <= merged.max_ns, "{merged:?}");
    lab.director()?.wait_conserved()?;
    Ok(())
}

fn iperf3(lab: &mut Lab) -> Result<()> {
    // Its control and its data connection must reach one server: by source address.
    let mut service = Service::tcp("iperf", 5201, "maglev", &["192.168.150.12", "192.168.150.13"]);
    service.more = "maglev_hash = \"source\"".to_owned();
    let mut servers = Vec::new();
    for server in &lab.servers {
        let log = lab.dir().join(format!("iperf3-{}", server.address));
        let process = server.netns.start(&["iperf3", "-s", "-B", VIP, "--forceflush"], &log)?;
        wait_until("iperf3 listens", PATIENCE, || Ok(process.log().contains("listening")))?;
        servers.push(process);
    }
    lab.start_director(&Config::with(vec![service]))?;
    let output = lab.client.run(&["iperf3", "-c", VIP, "-t", "4", "-J"])?;
    let report: serde_json::Value = serde_json::from_str(&output)?;
    let received = report["end"]["sum_received"]["bytes"].as_f64().context("no bytes in iperf3's report")?;
    ensure!(received > 10e6, "only {received} bytes in {:?}", Duration::from_secs(4));
    lab.director()?.wait_conserved()?;
    Ok(())
}
