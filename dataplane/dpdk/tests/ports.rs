//! Frames through real drivers of DPDK, without huge pages.
//!
//! DPDK starts once per process, so every case runs in a process of its own: this binary, called again with the name
//! of the case. Cases with kernel interfaces make them in a network namespace that has no name and goes with the
//! process; they need root. The others need nothing but libdpdk.

// The lint's exception for tests covers only functions marked #[test].
#![allow(clippy::unwrap_used)]

mod cases;
mod support;

use std::process::{Command, ExitCode};
use std::time::Duration;

use libtest_mimic::{Arguments, Failed, Trial};

use cases::{CASES, Case, Needs, huge_pages};
use support::huge_pages::Reserved;

/// Names the case to a process that runs one.
const CASE: &str = "SLUICE_DPDK_CASE";

/// Longest that a case may take.
const TIMEOUT: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    if let Ok(name) = std::env::var(CASE) {
        return match CASES.iter().find(|case| case.name == name) {
            Some(case) => {
                (case.run)();
                ExitCode::SUCCESS
            }
            None => ExitCode::FAILURE,
        };
    }
    let trials = CASES.iter().map(|case| {
        let missing = missing(case);
        if let Some(missing) = missing {
            eprintln!("skipped: {} (needs {missing})", case.name);
        }
        Trial::test(case.name, move || run(case)).with_ignored_flag(missing.is_some())
    });
    // Cases compete for CPUs, and some watch the clock: one after the other.
    let arguments = Arguments { test_threads: Some(1), ..Arguments::from_args() };
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

/// What this machine lacks for the case.
fn missing(case: &Case) -> Option<&'static str> {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    match case.needs {
        Needs::HugePages if Reserved::exactly(huge_pages::MOST).is_none() => {
            Some("a vm.nr_hugepages that can be written")
        }
        Needs::Root if !nix::unistd::geteuid().is_root() => Some("root"),
        _ if cpus < 2 => Some("two CPUs"),
        _ => None,
    }
}

/// Runs one case in a process. Its output is the test's output.
fn run(case: &Case) -> Result<(), Failed> {
    let mut child = Command::new(std::env::current_exe()?)
        .env(CASE, case.name)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()?;
    let (mut stdout, mut stderr) = (child.stdout.take(), child.stderr.take());
    let reader = std::thread::spawn(move || {
        let mut text = support::read_all(&mut stdout);
        text.push_str(&support::read_all(&mut stderr));
        text
    });
    let start = std::time::Instant::now();
    let status = loop {
        match child.try_wait()? {
            Some(status) => break status,
            None if start.elapsed() > TIMEOUT => {
                child.kill()?;
                child.wait()?;
                return Err(format!("{}: not done after {TIMEOUT:?}", case.name).into());
            }
            None => std::thread::sleep(Duration::from_millis(10)),
        }
    };
    let output = reader.join().unwrap_or_default();
    (case.judge)(status, &output).map_err(|why| format!("{why}\n{output}").into())
}
