//! Floods of SYNs, and the SYN proxy, with real peers.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use lb_control::api;
use lb_tests::case::Case;
use lb_tests::config::{Config, Service};
use lb_tests::frames::{self, IPV4, SYN, Wire};
use lb_tests::lab::{Lab, Place, Shape, VIP, VIP6};

use crate::forwarding::transfer;

const BEHIND: &[&str] = &["192.168.160.12", "192.168.160.13"];
const BEHIND6: &[&str] = &["fd00:160::12", "fd00:160::13"];
const BESIDE: &[&str] = &["192.168.150.12", "192.168.150.13"];

pub fn cases() -> Vec<Case> {
    let behind = Shape { place: Place::Behind, ..Shape::default() };
    vec![
        Case::new("syn_proxy_with_nat", |lab| answers(lab, nat(1, "always"), VIP)).shape(behind),
        Case::new("syn_proxy_with_nat_and_two_workers", |lab| answers(lab, nat(2, "always"), VIP))
            .shape(behind),
        Case::new("syn_proxy_with_nat_over_ipv6", |lab| {
            let service = proxied(Service::tcp("web6", 80, "rr", BEHIND6).v6().nat(8080), "always");
            answers(lab, Config { behind: true, ..Config::with(vec![service]) }, &format!("[{VIP6}]"))
        })
        .shape(behind),
        Case::new("syn_proxy_with_full_nat", |lab| answers(lab, full_nat("always"), VIP)),
        Case::new("syn_proxy_100_mb_arrive_bit_for_bit", |lab| {
            let service = proxied(Service::tcp("sink", 9000, "rr", &BEHIND[..1]).nat(9001), "always");
            transfer(lab, 9001, Config { behind: true, ..Config::with(vec![service]) })
        })
        .shape(behind),
        Case::new("syn_proxy_during_a_flood", |lab| during_a_flood(lab, nat(1, "auto"), true)).shape(behind),
        Case::new("direct_routing_during_a_flood", |lab| during_a_flood(lab, Config::default(), false)),
    ]
}

fn proxied(service: Service, when: &str) -> Service {
    Service { more: format!("{}\npolicy.syn_proxy = \"{when}\"", service.more), ..service }
}

fn nat(workers: usize, when: &str) -> Config {
    let service = proxied(Service::tcp("web", 80, "rr", BEHIND).nat(8080), when);
    Config { workers, behind: true, ..Config::with(vec![service]) }
}

fn full_nat(when: &str) -> Config {
    let service = Service::tcp("web", 80, "rr", BESIDE);
    let more = "forwarding = \"fullnat\"\nlocal_addresses = [\"192.168.150.20\"]".to_owned();
    Config::with(vec![proxied(Service { more, server_port: Some(80), ..service }, when)])
}

fn floods(lab: &Lab) -> Result<Vec<api::FloodRow>> {
    let workers: api::Workers = lab.director()?.json(&["workers"])?;
    Ok(workers.workers.into_iter().map(|row| row.flood).collect())
}

/// Connections one after the other and many at once; every one proved itself.
fn answers(lab: &mut Lab, config: Config, host: &str) -> Result<()> {
    let _nginx = lab.start_nginx()?;
    lab.start_director(&config)?;
    let url = format!("http://{host}/");
    for _ in 0..100 {
        lab.curl(&url)?;
    }
    let accepted: u64 = floods(lab)?.iter().map(|row| row.cookies_accepted).sum();
    ensure!(accepted >= 100, "{accepted} of 100 connections by cookies");
    let report = lab.client.run(&["wrk", "-t", "1", "-c", "64", "-d", "3", "--timeout", "5", &url])?;
    ensure!(!report.contains("Socket errors") && !report.contains("Non-2xx"), "{report}");
    lab.director()?.wait_conserved()?;
    Ok(())
}

/// SYNs of clients that are not there, as fast as one thread sends them, while others go on.
fn during_a_flood(lab: &mut Lab, config: Config, cookies: bool) -> Result<()> {
    let _nginx = lab.start_nginx()?;
    lab.start_director(&config)?;
    let url = format!("http://{VIP}/");
    lab.curl(&url)?;
    let wire = Wire::open(&lab.client, "eth0")?;
    let (to, from) = (frames::mac(&lab.node01.mac("eth0")?)?, frames::mac(&lab.client.mac("eth0")?)?);
    let vip: Ipv4Addr = VIP.parse()?;
    let over = AtomicBool::new(false);
    let lab = &*lab;
    let (sent, report) = std::thread::scope(|scope| {
        let flood = scope.spawn(|| {
            let mut sent = 0_u32;
            while !over.load(Ordering::Relaxed) {
                let client = Ipv4Addr::from(0x0a63_0000 + (sent & 0xffff));
                let port = 1024 + (sent >> 16) as u16;
                let syn = frames::tcp_checked(client, vip, port, 80, SYN);
                // a full queue of the sender's is no matter
                let _ = wire.send(&frames::ethernet(to, from, IPV4, &frames::ipv4(client, vip, 6, &syn)));
                sent += 1;
            }
            sent
        });
        let argv = ["wrk", "-t", "1", "-c", "16", "-d", "5", "--timeout", "5", &url];
        let report = lab.client.run(&argv);
        let new: Result<Vec<String>> = (0..20).map(|_| lab.curl(&url)).collect();
        over.store(true, Ordering::Relaxed);
        let sent = flood.join().ok().context("the flood panicked")?;
        new?;
        anyhow::Ok((sent, report?))
    })?;
    ensure!(sent > 20_000, "{sent} SYNs are no flood");
    ensure!(!report.contains("Socket errors") && !report.contains("Non-2xx"), "{report}");
    let rows = floods(lab)?;
    ensure!(rows.iter().any(|row| row.active), "{rows:?}");
    let of = |row: &api::FloodRow| if cookies { row.cookies_sent } else { row.unconfirmed };
    ensure!(rows.iter().map(of).sum::<u64>() > 1000, "{rows:?}");
    lab.director()?.wait_conserved()?;
    Ok(())
}
