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
mod generator;
mod goals;
mod peer;
mod plot;
mod progress;
mod record;
mod report;
mod rig;
mod run;
mod stats;
mod suite;

use std::path::PathBuf;

use clap::Parser;

/// Measures Sluice.
#[derive(Parser)]
#[command(version, about, after_help = suite::help())]
struct Args {
    /// Suites; or `all`, `report` (README.md of what is in DIR), `check` (whether DIR is complete).
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
            name => run::one(suite::named(name)?, quick, &out)?,
        }
    }
    Ok(())
}
