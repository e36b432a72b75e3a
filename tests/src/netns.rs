//! Network namespaces.

use std::fs::File;
use std::path::Path;
use std::thread;

use anyhow::{Context, Result, anyhow};
use nix::sched::{CloneFlags, setns};

use crate::process::{self, Process};

/// Settings that a namespace would take over from the host, stated.
const SYSCTLS: &[&str] = &[
    "net.ipv4.ip_forward=0",
    "net.ipv4.conf.all.rp_filter=0",
    "net.ipv4.conf.default.rp_filter=0",
    "net.ipv4.conf.all.arp_ignore=0",
    "net.ipv4.conf.all.arp_announce=0",
    // An address can be used at once: nobody else has it.
    "net.ipv6.conf.all.accept_dad=0",
    "net.ipv6.conf.default.accept_dad=0",
    "net.ipv6.conf.all.accept_ra=0",
    "net.ipv6.conf.default.accept_ra=0",
];

/// A named network namespace; dropped, it is removed with every process that is left in it.
#[derive(Debug)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// Makes a namespace whose `lo` is up.
    pub fn new(name: &str) -> Result<Self> {
        process::run(&["ip", "netns", "add", name])?;
        let netns = Self { name: name.to_owned() };
        netns.ip("link set lo up")?;
        let sysctl: Vec<&str> = ["sysctl", "-qw"].iter().chain(SYSCTLS).copied().collect();
        netns.run(&sysctl)?;
        Ok(netns)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `ip -n NAME` with `arguments`, which are split at blanks.
    pub fn ip(&self, arguments: &str) -> Result<String> {
        let argv: Vec<&str> =
            ["ip", "-n", &self.name].into_iter().chain(arguments.split_whitespace()).collect();
        process::run(&argv)
    }

    /// Runs a command in it and gives its standard output; see [`process::run`].
    pub fn run(&self, argv: &[&str]) -> Result<String> {
        process::run(&self.inside(argv))
    }

    /// Runs a command in it, whatever its status.
    pub fn output(&self, argv: &[&str]) -> Result<std::process::Output> {
        process::output(&self.inside(argv))
    }

    /// Starts a command in it; see [`Process::start`].
    pub fn start(&self, argv: &[&str], log: &Path) -> Result<Process> {
        Process::start(&self.inside(argv), log)
    }

    fn inside<'a>(&'a self, argv: &[&'a str]) -> Vec<&'a str> {
        ["ip", "netns", "exec", &self.name].into_iter().chain(argv.iter().copied()).collect()
    }

    /// Runs `f` on a thread in the namespace: a socket that it opens belongs there, wherever it is used later.
    pub fn enter<R: Send>(&self, f: impl FnOnce() -> Result<R> + Send) -> Result<R> {
        let path = format!("/run/netns/{}", self.name);
        let file = File::open(&path).with_context(|| format!("open {path}"))?;
        let inside = || {
            setns(&file, CloneFlags::CLONE_NEWNET).with_context(|| format!("enter {path}"))?;
            f()
        };
        thread::scope(|scope| scope.spawn(inside).join())
            .map_err(|_| anyhow!("a thread in {path} panicked"))?
    }

    /// MAC address of an interface, as `ip` prints it.
    pub fn mac(&self, interface: &str) -> Result<String> {
        Ok(self.run(&["cat", &format!("/sys/class/net/{interface}/address")])?.trim().to_owned())
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        // Best effort: there is nobody to tell.
        for pid in process::run(&["ip", "netns", "pids", &self.name]).unwrap_or_default().split_whitespace() {
            let _ = process::run(&["kill", "-KILL", pid]);
        }
        let _ = process::run(&["ip", "netns", "del", &self.name]);
    }
}
