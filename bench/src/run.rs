//! Runs suites: one in this process, all in one process each, so that none finds another's memory or EAL.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};

use crate::context::Context;
use crate::facts::Facts;
use crate::report;
use crate::rig::{cpus, on_cpu};
use crate::suite::{SUITES, Suite};

/// Runs a suite and writes its results into `out`, as they come. A suite that fails leaves what it had measured.
pub fn one(suite: &Suite, quick: bool, out: &Path) -> anyhow::Result<()> {
    println!("# {}: {}", suite.name, suite.doc);
    std::fs::create_dir_all(out).with_context(|| format!("making {}", out.display()))?;
    let mut context = Context::new(suite.name, quick, out);
    // of the machine, not of the CPU that the suite stays on
    context.document.facts = Facts::gather();
    match cpus()?.last() {
        // the first has the interrupts
        Some(last) if suite.pinned => on_cpu(*last, || measure(suite, context)),
        _ => measure(suite, context),
    }
}

fn measure(suite: &Suite, mut context: Context) -> anyhow::Result<()> {
    context.save_as_it_goes();
    let watch = context.watching()?;
    let done = (suite.run)(&mut context).with_context(|| format!("suite {}", suite.name));
    context.document.calibration = context.watched(watch)?;
    if let Err(error) = &done {
        context.note(format!("Ended early: {error:#}"));
    }
    context.document.complete = done.is_ok();
    context.save()?;
    println!("\n{}", report::steadiness(&context.document));
    done
}

/// Runs every suite, and writes the report after each.
///
/// Errors: suites that failed, after all others have run.
pub fn all(quick: bool, out: &Path) -> anyhow::Result<()> {
    let mut failed = Vec::new();
    for suite in SUITES {
        if !apart(suite, quick, out)? {
            failed.push(suite.name);
        }
        report::write(out)?;
    }
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
