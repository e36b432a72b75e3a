//! The same over IPv6.

use anyhow::{Result, ensure};
use lb_tests::case::Case;
use lb_tests::config::{Config, Service};
use lb_tests::lab::{DIP6, Lab, VIP6};

pub fn cases() -> Vec<Case> {
    vec![
        Case::new("ipv6_rr_alternates_strictly", |lab| alternates(lab, 1)),
        Case::new("ipv6_rr_alternates_strictly_with_two_workers", |lab| alternates(lab, 2)),
        Case::new("ipv6_vip_and_dip_answer_ping_and_nd", ping),
    ]
}

fn config() -> Config {
    Config::with(vec![Service::tcp("web6", 80, "rr", &["fd00:150::12", "fd00:150::13"]).v6()])
}

fn alternates(lab: &mut Lab, workers: usize) -> Result<()> {
    let _nginx = lab.start_nginx()?;
    lab.start_director(&Config { workers, ..config() })?;
    let answers = (0..10).map(|_| lab.curl(&format!("http://[{VIP6}]/"))).collect::<Result<Vec<_>>>()?;
    ensure!(answers.windows(2).all(|pair| pair[0] != pair[1]), "not in turn: {answers:?}");
    let client = lab.curl(&format!("http://[{VIP6}]/client"))?;
    ensure!(client == "fd00:150::1", "the server saw {client}");
    ensure!(lab.director()?.connections(&["--vip", VIP6])?.len() == 11, "11 connections are not listed");
    lab.director()?.wait_conserved()?;
    Ok(())
}

fn ping(lab: &mut Lab) -> Result<()> {
    lab.start_director(&config())?;
    let director = lab.node01.mac("eth0")?;
    for address in [VIP6, DIP6] {
        lab.client.run(&["ping", "-6", "-n", "-c", "3", "-i", "0.1", "-W", "2", address])?;
        let neighbor = lab.client.ip(&format!("-6 neigh show {address}"))?;
        ensure!(neighbor.contains(&director), "{address} was resolved to {neighbor}, not to {director}");
    }
    Ok(())
}
