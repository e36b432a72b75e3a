//! `lbd`: the director's daemon.
//!
//! In this order: configuration, API socket, DPDK, devices, director, workers, control loop. It ends in the opposite
//! order; whatever of it fails ends what was begun, and the exit code is 1.
#![forbid(unsafe_code)]

mod machine;
mod memory;
mod notify;
mod signals;
mod start;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{ArgGroup, Parser};
use tracing::{error, info};
use tracing_subscriber::EnvFilter;

/// The director's daemon: balances TCP, UDP and SCTP to real servers, on DPDK.
///
/// Logs to standard error; SLUICE_LOG sets how much, as in `info` (the default), `debug` or `warn,lb_control=debug`.
/// SIGINT and SIGTERM end it, SIGHUP makes it apply its configuration file again.
#[derive(Debug, Parser)]
#[command(name = "lbd", version, max_term_width = 100, group = ArgGroup::new("what").required(true))]
struct Args {
    /// Run with this configuration file.
    #[arg(long, value_name = "FILE", group = "what")]
    config: Option<PathBuf>,

    /// Check this configuration file, print all its faults or that it is ok, and start nothing.
    #[arg(long, value_name = "FILE", group = "what")]
    check: Option<PathBuf>,
}

fn main() -> ExitCode {
    // Exits with 2 on wrong usage.
    let args = Args::parse();
    let done = match (&args.config, &args.check) {
        (_, Some(file)) => check(file),
        (Some(file), None) => run(file),
        (None, None) => unreachable!("the group `what` requires one of the two"),
    };
    if done { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn check(file: &Path) -> bool {
    match lb_config::load_with_warnings(file) {
        Ok((_, warnings)) => {
            warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
            println!("{}: ok", file.display());
            true
        }
        Err(error) => {
            eprintln!("{error}");
            false
        }
    }
}

fn run(file: &Path) -> bool {
    let filter = EnvFilter::builder()
        .with_default_directive(tracing::Level::INFO.into())
        .with_env_var("SLUICE_LOG")
        .from_env_lossy();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    match start::run(file) {
        Ok(()) => {
            info!("lbd has ended");
            true
        }
        Err(reason) => {
            error!("lbd ends: {reason:#}");
            false
        }
    }
}
