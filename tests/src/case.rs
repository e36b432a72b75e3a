//! Tests as values: a name, a lab, a function.

use std::panic::{AssertUnwindSafe, catch_unwind};

use anyhow::{Result, anyhow};
use libtest_mimic::{Completion, Failed, Trial};

use crate::director;
use crate::lab::{Lab, Shape};
use crate::process;

/// Programs without which no end-to-end test runs.
const PROGRAMS: &[&str] = &[
    "ip", "ethtool", "sysctl", "nginx", "curl", "ping", "arping", "tcpdump", "wrk", "iperf3", "ss",
    "setpriv", "python3",
];

/// One end-to-end test.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// What it shows, as a sentence in snake case.
    pub name: &'static str,
    /// The lab that it gets.
    pub shape: Shape,
    /// Why it cannot run here, beside what every case needs; asked before the first case runs.
    pub missing: fn() -> Option<String>,
    /// The test. An error or a panic fails it.
    pub run: fn(&mut Lab) -> Result<()>,
}

impl Case {
    /// A case in a lab with two servers.
    pub fn new(name: &'static str, run: fn(&mut Lab) -> Result<()>) -> Self {
        Self { name, shape: Shape::default(), missing: || None, run }
    }

    /// The same in another lab.
    pub fn shape(self, shape: Shape) -> Self {
        Self { shape, ..self }
    }

    /// The same, skipped where `missing` says why.
    pub fn needs(self, missing: fn() -> Option<String>) -> Self {
        Self { missing, ..self }
    }

    /// The case for the test runner; skipped with `missing` as the reason if there is one.
    pub fn trial(self, missing: Option<String>) -> Trial {
        let missing =
            missing.or_else(|| (self.missing)()).or_else(|| self.shape.vlan.and_then(|_| no_vlan()));
        Trial::ignorable_test(self.name, move || match missing {
            Some(reason) => Ok(Completion::ignored_with(reason)),
            None => self.execute().map(|()| Completion::Completed),
        })
    }

    fn execute(self) -> Result<(), Failed> {
        let mut lab = Lab::new(self.shape).map_err(|error| format!("no lab: {error:#}"))?;
        let outcome = catch_unwind(AssertUnwindSafe(|| (self.run)(&mut lab)));
        let outcome = outcome.unwrap_or_else(|_| Err(anyhow!("it panicked")));
        outcome.map_err(|error| format!("{error:#}\n{}", lab.evidence()).into())
    }
}

/// Why no kernel interface can have an 802.1Q tag, if so.
fn no_vlan() -> Option<String> {
    let script = "ip link add v0 type veth peer name v1 && ip link add link v0 name v0.1 type vlan id 1";
    let tried = process::run(&["unshare", "--net", "sh", "-c", script]);
    tried.err().map(|_| "this kernel has no 802.1Q interfaces".to_owned())
}

/// Why end-to-end tests cannot run here, if so.
pub fn missing() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("wants root, for network namespaces".to_owned());
    }
    if process::run(&["unshare", "--net", "true"]).is_err() {
        return Some("this machine makes no network namespaces".to_owned());
    }
    for program in PROGRAMS {
        if process::run(&["sh", "-c", "command -v \"$0\"", program]).is_err() {
            return Some(format!("{program} is not installed"));
        }
    }
    director::bin().err().map(|error| error.to_string())
}
