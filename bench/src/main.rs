//! Measurements of Sluice, each beside a peer in the same run.
//!
//! `cargo run --release -p lb-bench -- SUITE` runs one suite, `-- all` every suite and then the report. A suite leaves
//! `SUITE.json` (machine, calibration, every sample) and its plots in the folder given by `--out`; `-- report` makes
//! `README.md` of what is there: every goal with bar, moon, what was reached and the peers. Numbers are costs of the
//! pipeline, not of a line; compare ratios of one run, not numbers of two machines.
//!
//! A new suite is a file in [`suite`] and a line in its table.

#![allow(dead_code)] // what suites may use; each is used by one

mod calibrate;
mod check;
mod context;
mod facts;
mod frames;
mod generator;
mod goals;
mod packet;
mod peer;
mod plot;
mod progress;
mod record;
mod report;
mod run;
mod site;
mod stats;
mod suite;
mod zipf;

use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use clap::Parser;

/// Measures Sluice.
#[derive(Parser)]
#[command(version, about, after_help = suite::help())]
struct Args {
    /// Suites; or `all`, `report` (README.md of what is in DIR), `check` (whether DIR is complete), `list` (their names).
    #[arg(required = true, value_name = "SUITE")]
    what: Vec<String>,
    /// Seconds instead of minutes: shows that it runs, not how fast.
    #[arg(long)]
    quick: bool,
    /// Folder of the results [default: bench/results, with --quick target/bench-quick].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

fn main() -> anyhow::Result<()> {
    huge_pages();
    let Args { what, quick, out } = Args::parse();
    let out =
        out.unwrap_or_else(|| PathBuf::from(if quick { "target/bench-quick" } else { "bench/results" }));
    if let Some(child) = suite::child(&what[0]) {
        return child(&what[1..]);
    }
    for name in &what {
        match name.as_str() {
            "all" => run::all(quick, &out)?,
            "report" => report::write(&out)?,
            "check" => check::folder(&out)?,
            "list" => suite::SUITES.iter().for_each(|suite| println!("{}", suite.name)),
            name => run::one(suite::named(name)?, quick, &out)?,
        }
    }
    Ok(())
}

/// Starts this program anew with an allocator that asks for 2 MiB pages (glibc 2.35 or newer; others ignore it), so that
/// peers and buffers have them as tables do. Who sets GLIBC_TUNABLES decides.
fn huge_pages() {
    const TUNABLES: &str = "GLIBC_TUNABLES";
    if std::env::var_os(TUNABLES).is_none()
        && let Ok(program) = std::env::current_exe()
    {
        let mut again = Command::new(program);
        // it returns only if it fails; then pages stay small
        let _ = again.args(std::env::args_os().skip(1)).env(TUNABLES, "glibc.malloc.hugetlb=1").exec();
    }
}
