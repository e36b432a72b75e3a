//! End-to-end tests: lbd between a real client and real servers, in network namespaces.
//!
//! One file per topic. `tests/run` builds lbd in release mode and runs this with `SLUICE_BIN` set.

mod api;
mod exception;
mod failover;
mod failover_streams;
mod flood;
mod forwarding;
mod forwarding_full_nat;
mod forwarding_nat;
mod forwarding_tunnel;
mod health;
mod huge_pages;
mod ipv6;
mod keepalived_conf;
mod lease;
mod load;
mod malformed;
mod process;
mod reconfigure;
mod restart;
mod schedulers;
mod vrrp;
mod wire;

use std::process::ExitCode;

use lb_tests::{case, lab};
use libtest_mimic::Arguments;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // One at a time: the machine's cores are the labs', and some tests measure.
    arguments.test_threads = Some(1);
    let missing = case::missing();
    if missing.is_none() {
        lab::remove_stale();
    }
    let topics = [
        forwarding::cases(),
        forwarding_full_nat::cases(),
        forwarding_nat::cases(),
        forwarding_tunnel::cases(),
        schedulers::cases(),
        wire::cases(),
        ipv6::cases(),
        malformed::cases(),
        reconfigure::cases(),
        restart::cases(),
        health::cases(),
        load::cases(),
        flood::cases(),
        api::cases(),
        process::cases(),
        huge_pages::cases(),
        vrrp::cases(),
        exception::cases(),
        keepalived_conf::cases(),
        lease::cases(),
        failover::cases(),
        failover_streams::cases(),
    ];
    let trials = topics.into_iter().flatten().map(|case| case.trial(missing.clone())).collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}
