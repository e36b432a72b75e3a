//! A running lbd, and lbctl to ask it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lb_control::api;
use serde::de::DeserializeOwned;

use crate::config::Config;
use crate::lab::Lab;
use crate::process::{self, Process};
use crate::wait::wait_until;

/// Time that lbd may take to start, to settle, to stop.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// Folder of the lbd and lbctl under test: `SLUICE_BIN`.
///
/// Errors: the variable is not set, or the programs are not there.
pub fn bin() -> Result<PathBuf> {
    let dir =
        std::env::var_os("SLUICE_BIN").context("SLUICE_BIN, the folder of lbd and lbctl, is not set")?;
    let dir = PathBuf::from(dir);
    for name in ["lbd", "lbctl"] {
        ensure!(dir.join(name).is_file(), "there is no {name} in SLUICE_BIN={}", dir.display());
    }
    Ok(dir)
}

/// A running lbd; dropped, it is killed.
#[derive(Debug)]
pub struct Director {
    /// The process.
    pub process: Process,
    socket: PathBuf,
    config: PathBuf,
    bin: PathBuf,
}

impl Lab {
    /// Starts lbd on node01 and waits until it answers and has resolved every server that exists.
    pub fn start_director(&mut self, config: &Config) -> Result<()> {
        self.start_director_unresolved(config)?;
        let director = self.director()?;
        let wanted: Vec<&str> =
            config.services.iter().flat_map(|s| &s.servers).map(|s| s.0.as_str()).collect();
        wait_until("every server is resolved", PATIENCE, || director.resolved(&wanted))
            .with_context(|| director.evidence())
    }

    /// Starts lbd on node01 and waits until it answers.
    pub fn start_director_unresolved(&mut self, config: &Config) -> Result<()> {
        let bin = bin()?;
        let socket = self.dir().join("lbd.sock");
        let file = self.dir().join("lbd.toml");
        let log = self.dir().join("lbd.log");
        std::fs::write(&file, config.to_toml(&socket.to_string_lossy()))?;
        let lbd = bin.join("lbd");
        let argv = [&*lbd.to_string_lossy(), "--config", &*file.to_string_lossy()];
        let process = self.node01.start(&argv, &log)?;
        self.director = Some(Director { process, socket, config: file, bin });
        let director = self.director.as_mut().context("just set")?;
        wait_until("lbd answers lbctl", PATIENCE, || {
            if !director.process.runs()? {
                return Ok(true);
            }
            Ok(director.lbctl(&["version"])?.status.success())
        })?;
        ensure!(director.process.runs()?, "lbd ended:\n{}", director.process.log());
        Ok(())
    }
}

impl Director {
    /// Path of the Unix socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Path of the configuration file that it was started with.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// Command line of an lbctl that asks this lbd.
    pub fn lbctl_argv(&self, arguments: &[&str]) -> Vec<String> {
        let lbctl = self.bin.join("lbctl").to_string_lossy().into_owned();
        let socket = self.socket.to_string_lossy().into_owned();
        [lbctl, "--socket".to_owned(), socket]
            .into_iter()
            .chain(arguments.iter().map(|a| (*a).to_owned()))
            .collect()
    }

    /// Runs lbctl, whatever its status.
    pub fn lbctl(&self, arguments: &[&str]) -> Result<Output> {
        let argv = self.lbctl_argv(arguments);
        process::output(&argv.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Runs lbctl and gives its output; a status other than 0 is an error.
    pub fn ask(&self, arguments: &[&str]) -> Result<String> {
        let argv = self.lbctl_argv(arguments);
        process::run(&argv.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Runs lbctl with `--json` and reads its answer.
    pub fn json<T: DeserializeOwned>(&self, arguments: &[&str]) -> Result<T> {
        let text = self.ask(&[arguments, &["--json"]].concat())?;
        serde_json::from_str(&text).with_context(|| format!("lbctl {} --json: {text}", arguments.join(" ")))
    }

    /// Rows of `lbctl server list SERVICE`.
    pub fn servers(&self, service: &str) -> Result<Vec<api::ServerRow>> {
        let list: api::Servers = self.json(&["server", "list", service])?;
        Ok(list.services.into_iter().flat_map(|s| s.servers).collect())
    }

    /// The row of one server.
    pub fn server(&self, service: &str, address: &str) -> Result<api::ServerRow> {
        let rows = self.servers(service)?;
        let row = rows.into_iter().find(|row| row.address.ip().to_string() == address);
        row.with_context(|| format!("no server {address} in {service}"))
    }

    /// Rows of `lbctl connections` with filters.
    pub fn connections(&self, filters: &[&str]) -> Result<Vec<api::ConnectionRow>> {
        Ok(self.json::<api::Connections>(&[&["connections"], filters].concat())?.connections)
    }

    /// `lbctl stats`.
    pub fn stats(&self) -> Result<api::Stats> {
        self.json(&["stats"])
    }

    /// Packets dropped for each reason.
    pub fn drops(&self) -> Result<HashMap<String, u64>> {
        let drops: api::Drops = self.json(&["drops", "--all"])?;
        Ok(drops.drops.into_iter().map(|row| (row.reason, row.packets)).collect())
    }

    /// Packets dropped for one reason.
    pub fn dropped(&self, reason: &str) -> Result<u64> {
        self.drops()?.get(reason).copied().with_context(|| format!("lbctl drops knows no {reason}"))
    }

    /// Whether each of the addresses is a next hop with a MAC address.
    pub fn resolved(&self, addresses: &[&str]) -> Result<bool> {
        let rows = self.json::<api::Neighbors>(&["neighbors"])?.neighbors;
        let known =
            |address: &&str| rows.iter().any(|r| r.mac.is_some() && r.address.to_string() == **address);
        Ok(addresses.iter().all(known))
    }

    /// Waits until the counters stand still and checks that received + originated + from the kernel = sent +
    /// delivered + to the kernel + dropped + waiting.
    pub fn wait_conserved(&self) -> Result<api::Conservation> {
        let mut before = api::Conservation::default();
        wait_until("packets are conserved", PATIENCE, || {
            let now = self.stats()?.conservation;
            let settled = now == before;
            before = now;
            let came = now.received + now.originated + now.from_kernel;
            let balanced = came == now.sent + now.delivered + now.to_kernel + now.dropped + now.waiting;
            if settled && !balanced {
                bail!("packets are not conserved: {now:?}");
            }
            Ok(settled)
        })?;
        Ok(before)
    }

    /// Log and tables, for the report of a failed test.
    pub fn evidence(&self) -> String {
        let mut text = format!("lbd's log:\n{}", self.process.log());
        for command in ["stats", "drops", "neighbors", "server list", "connections --limit 20"] {
            let arguments: Vec<&str> = command.split(' ').collect();
            let answer = self.ask(&arguments).unwrap_or_else(|error| error.to_string());
            text.push_str(&format!("\nlbctl {command}\n{answer}"));
        }
        text
    }
}
