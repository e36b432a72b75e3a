//! `lbd`: the director's daemon.
//!
//! In this order: configuration, API socket, DPDK, devices, director, workers, control loop. It ends in the opposite
//! order; whatever of it fails ends what was begun, and the exit code is 1.
#![forbid(unsafe_code)]

mod keep;
mod machine;
mod memory;
mod notify;
mod signals;
mod start;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgGroup, Parser};
use lb_control::source::Source;
use tracing::{error, info};
use tracing_subscriber::EnvFilter;

/// The director's daemon: balances TCP, UDP and SCTP to real servers, on DPDK.
///
/// Logs to standard error; SLUICE_LOG sets how much, as in `info` (the default), `debug` or `warn,lb_control=debug`.
/// SIGINT and SIGTERM end it, SIGHUP makes it apply its configuration file (and its
/// keepalived.conf) again.
#[derive(Debug, Parser)]
#[command(name = "lbd", version, max_term_width = 100, group = ArgGroup::new("what").required(true))]
struct Args {
    /// Run with this configuration file.
    #[arg(long, value_name = "FILE", group = "what")]
    config: Option<PathBuf>,

    /// Check this configuration file, print all its faults or that it is ok, and start nothing.
    #[arg(long, value_name = "FILE", group = "what")]
    check: Option<PathBuf>,

    /// Take services, checks and virtual routers from this keepalived.conf. The configuration file then says what that
    /// does not know: ports and their devices, workers, marks. What cannot be carried over is logged, with its line.
    #[arg(long, value_name = "FILE")]
    keepalived_conf: Option<PathBuf>,

    /// Configuration id: lines of the keepalived.conf that begin with `@ID` hold (keepalived's -i).
    #[arg(long, value_name = "ID", requires = "keepalived_conf")]
    keepalived_id: Option<String>,

    /// Begin without the connections that an earlier lbd has kept.
    #[arg(long, requires = "config")]
    fresh: bool,
}

fn main() -> ExitCode {
    // Exits with 2 on wrong usage.
    let args = Args::parse();
    let source =
        |file: PathBuf| Source { config: file, keepalived: args.keepalived_conf, id: args.keepalived_id };
    let done = match (args.config, args.check) {
        (_, Some(file)) => check(&source(file)),
        (Some(file), None) => run(&source(file), args.fresh),
        (None, None) => unreachable!("the group `what` requires one of the two"),
    };
    if done { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn check(source: &Source) -> bool {
    match source.load() {
        Ok(loaded) => {
            loaded.notes.iter().for_each(|note| eprintln!("not carried over: {note}"));
            loaded.warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
            println!("{}: ok", source.name());
            true
        }
        Err(error) => {
            eprintln!("{error}");
            false
        }
    }
}

fn run(source: &Source, fresh: bool) -> bool {
    let filter = EnvFilter::builder()
        .with_default_directive(tracing::Level::INFO.into())
        .with_env_var("SLUICE_LOG")
        .from_env_lossy();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    match start::run(source, fresh) {
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
