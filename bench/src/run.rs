//! Runs suites: one in this process, all in one process each, so that none finds another's memory or EAL.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, ensure};

use crate::calibrate::Calibration;
use crate::context::Context;
use crate::facts::Facts;
use crate::suite::{SUITES, Suite};
use crate::{plot, report};

/// Runs a suite between two calibrations and writes its results into `out`.
pub fn one(suite: &Suite, quick: bool, out: &Path) -> anyhow::Result<()> {
    println!("# {}: {}", suite.name, suite.doc);
    std::fs::create_dir_all(out).with_context(|| format!("making {}", out.display()))?;
    let mut context = Context::new(suite.name, quick, out);
    context.document.facts = Facts::gather();
    let calibration = Calibration::before();
    let start = Instant::now();
    (suite.run)(&mut context).with_context(|| format!("suite {}", suite.name))?;
    context.document.seconds = start.elapsed().as_secs_f64();
    let drift = calibration.after();
    println!("\n{}: {:.0} s. {}", suite.name, context.document.seconds, report::calibration(&drift));
    context.document.calibration = drift;
    for plot in &context.document.plots {
        let path = out.join(format!("{}-{}.svg", suite.name, plot.name));
        std::fs::write(&path, plot::svg(plot)).with_context(|| format!("writing {}", path.display()))?;
    }
    let path = out.join(format!("{}.json", suite.name));
    let text = serde_json::to_string_pretty(&context.document)?;
    std::fs::write(&path, text + "\n").with_context(|| format!("writing {}", path.display()))?;
    Ok(())
}

/// Runs every suite, a void one once more, then the report.
///
/// Errors: suites that failed, after all others have run.
pub fn all(quick: bool, out: &Path) -> anyhow::Result<()> {
    let mut failed = Vec::new();
    for suite in SUITES {
        let mut done = apart(suite, quick, out)?;
        if done && !quick && report::read(out, suite.name)?.calibration.is_void() {
            println!("{}: once more, as the machine was disturbed", suite.name);
            done = apart(suite, quick, out)?;
        }
        if !done {
            failed.push(suite.name);
        }
    }
    report::write(out)?;
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}

/// Runs a suite in a process of its own; `false`: it failed.
fn apart(suite: &Suite, quick: bool, out: &Path) -> anyhow::Result<bool> {
    let program = std::env::current_exe().context("finding this program")?;
    let mut command = Command::new(program);
    command.arg(suite.name).arg("--out").arg(out);
    if quick {
        command.arg("--quick");
    }
    Ok(command.status().with_context(|| format!("starting suite {}", suite.name))?.success())
}
