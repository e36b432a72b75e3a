//! A further lbd, on any node of a lab.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use lb_control::api;

use crate::config::Config;
use crate::director::{PATIENCE, bin};
use crate::lab::{Lab, RealServer};
use crate::netns::Netns;
use crate::process::{self, Process};
use crate::wait::wait_until;

/// Address of a second director.
pub const SECOND: &str = "192.168.150.21";

/// Takes everything from a server that makes it one: its node is a director's then.
pub fn clear(server: &RealServer) -> Result<()> {
    let node = &server.netns;
    node.ip("addr flush dev lo")?;
    node.ip("addr flush dev eth0")?;
    node.run(&["sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1"]).map(drop)
}

/// A configuration as text, for a second director, whose addresses and name are others.
pub fn second_toml(config: &Config, socket: &Path) -> String {
    let text = config.to_toml(&socket.to_string_lossy()).replace("\"e2e\"", "\"e2e-second\"");
    // not those of services, servers or peers
    let own = text.find("[[services]]").or(text.find("[[vrrp]]")).unwrap_or(text.len());
    let (head, tail) = text.split_at(own);
    head.replace("192.168.150.11/24", &format!("{SECOND}/24")).replace("150::11/", "150::21/") + tail
}

/// An lbd; dropped, it is killed.
#[derive(Debug)]
pub struct Peer {
    /// The process.
    pub process: Process,
    /// Its Unix socket.
    pub socket: PathBuf,
}

impl Peer {
    /// Starts `lbd ARGUMENTS` in `node` and waits until it is ready. `socket`: the one that its configuration names; the
    /// log is beside it.
    pub fn start(node: &Netns, socket: &Path, arguments: &[&str]) -> Result<Self> {
        let lbd = bin()?.join("lbd");
        let lbd = lbd.to_string_lossy();
        let argv: Vec<&str> = [&*lbd].into_iter().chain(arguments.iter().copied()).collect();
        let mut process = node.start(&argv, &socket.with_extension("log"))?;
        wait_until("an lbd is ready", PATIENCE, || {
            ensure!(process.runs()?, "it ended");
            Ok(process.log().contains("lbd is ready"))
        })
        .with_context(|| process.log())?;
        Ok(Self { process, socket: socket.to_owned() })
    }

    /// Starts a second director with `config` on a node that [`clear`] has made one.
    pub fn second(lab: &Lab, node: &Netns, config: &Config) -> Result<Self> {
        let (socket, file) = (lab.dir().join("second.sock"), lab.dir().join("second.toml"));
        std::fs::write(&file, second_toml(config, &socket))?;
        Self::start(node, &socket, &["--config", &file.to_string_lossy()])
    }

    /// Runs lbctl and gives its output; a status other than 0 is an error.
    pub fn ask(&self, arguments: &[&str]) -> Result<String> {
        let lbctl = bin()?.join("lbctl");
        let (lbctl, socket) = (lbctl.to_string_lossy(), self.socket.to_string_lossy());
        let argv: Vec<&str> =
            [&*lbctl, "--socket", &*socket].into_iter().chain(arguments.iter().copied()).collect();
        process::run(&argv)
    }

    /// `lbctl vrrp`.
    pub fn vrrp(&self) -> Result<api::Vrrp> {
        let text = self.ask(&["vrrp", "--json"])?;
        serde_json::from_str(&text).with_context(|| format!("lbctl vrrp --json: {text}"))
    }

    /// Waits until every instance is in this state.
    pub fn wait_for(&self, state: &str) -> Result<()> {
        wait_until(&format!("an lbd is {state}"), PATIENCE, || {
            Ok(self.vrrp()?.instances.iter().all(|row| row.state == state))
        })
        .with_context(|| format!("{:?}\n{}", self.vrrp(), self.process.log()))
    }
}
