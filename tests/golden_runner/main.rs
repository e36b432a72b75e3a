//! Replays the recordings of Linux's IPVS against this director, in memory.
//!
//! ```text
//! GOLDEN_DIR=DIR cargo test -p lb-tests --test golden -- [PART OF A FILE'S NAME]...
//! ```
//! Every `*.json` of the directory (default: `tests/golden`) is replayed by its format: commands through the ipvsadm of
//! lb-control, packets through a worker, time by a clock turned by hand. What is not understood fails; what differs is
//! named with what was expected; differences that are meant stand in `tests/golden/DIFFERENCES.toml`.
#![allow(clippy::indexing_slicing, reason = "a test")]

mod control;
mod hosts;
mod lab;
mod load;
mod packet;
mod programs;
mod proof;
mod rate;
mod refusals;
mod report;
mod sched;
mod shell;
mod states;
mod transcript;
mod wire;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use load::Vectors;
use report::{Findings, Meant, Report};

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("golden: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<bool> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    // cargo runs this in the package's folder; what was typed counts from where it was typed
    let typed_in = std::env::var_os("PWD").map(PathBuf::from).unwrap_or_default();
    let given = std::env::var_os("GOLDEN_DIR").map(|dir| typed_in.join(dir));
    let dir = given.as_deref().unwrap_or(&own);
    // options of the ordinary test harness (cargo passes some through) mean nothing here
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let mut files: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.ends_with(".json")
            && (wanted.is_empty() || wanted.iter().any(|part| name.contains(part.as_str())))
        {
            files.push(path);
        }
    }
    files.sort();
    if files.is_empty() {
        bail!("no *.json in {}", dir.display());
    }
    let mut report = Report::new(Meant::read(&own.join("DIFFERENCES.toml"))?);
    for path in &files {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut findings = Findings::default();
        match load::load(path) {
            Ok(vectors) => replay(&vectors, &mut findings),
            Err(error) => {
                findings.begin("file");
                findings.fault("load", "format", &format!("{error:#}"));
            }
        }
        report.file(&name, &findings);
    }
    let wrong = proof::run(&own, &report.meant, replay).context("wrong recordings are not found out")?;
    println!("{wrong} wrong recordings were found out");
    Ok(report.finish(given.is_none() && wanted.is_empty()))
}

fn replay(vectors: &Vectors, findings: &mut Findings) {
    match vectors {
        Vectors::Sched(vectors) => sched::replay(vectors, findings),
        Vectors::States(vectors) => states::replay(vectors, findings),
        Vectors::Wire(vectors) => wire::replay(vectors, findings),
        Vectors::Transcript(vectors) => transcript::replay(vectors, findings),
        Vectors::Rate(vectors) => rate::replay(vectors, findings),
    }
}
