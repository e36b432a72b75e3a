//! Measurements of the packet path, each beside a peer in the same run.
//!
//! `cargo run --release -p lb-bench -- path` measures ns per packet of direct routing in memory. Numbers are
//! pipeline costs without port I/O; compare ratios of one run, not numbers of two machines.

mod calibrate;
mod generator;
mod path;
mod peer;
mod stats;

use clap::{Parser, Subcommand};

/// Measures Sluice.
#[derive(Parser)]
#[command(version, about)]
struct Args {
    #[command(subcommand)]
    suite: Suite,
}

#[derive(Subcommand)]
enum Suite {
    /// ns per packet of direct routing in memory, at 1 k and 1 M connections.
    Path {
        /// Seconds instead of minutes: shows that it runs, not how fast.
        #[arg(long)]
        quick: bool,
    },
}

fn main() -> anyhow::Result<()> {
    match Args::parse().suite {
        Suite::Path { quick } => path::run(quick),
    }
}
