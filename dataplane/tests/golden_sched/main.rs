//! Every scheduler chooses what Linux's IPVS chose: replays `tests/golden/sched-*.json` (or those of `GOLDEN_DIR`).
//!
//! The commands of a recording become a Model that a real `Director` applies; its snapshots schedule. Connections are
//! kept here, with the few rules of IPVS that the recordings need, so that what is tested is the scheduling alone.

#![allow(clippy::expect_used, reason = "helpers of tests")]

mod commands;
mod replay;
mod vectors;

use std::path::{Path, PathBuf};

/// Replays every recording in a directory; panics with all that differs.
fn replay_all(dir: &Path) {
    let mut files: Vec<PathBuf> = std::fs::read_dir(dir)
        .unwrap_or_else(|error| panic!("{}: {error}", dir.display()))
        .map(|entry| entry.expect("a directory entry").path())
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("sched-") && name.ends_with(".json")
        })
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no recordings in {}", dir.display());
    let (mut scenarios, mut events, mut faults) = (0, 0, Vec::new());
    for path in &files {
        let text = std::fs::read_to_string(path).expect("a readable file");
        let file: vectors::File =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        for scenario in &file.scenarios {
            scenarios += 1;
            events += scenario.events.len();
            let name = format!("{} {}", file.scheduler, scenario.name);
            if let Err(fault) = replay::replay(scenario, file.deterministic) {
                faults.push(format!("{name}: {fault}"));
            }
        }
    }
    assert!(faults.is_empty(), "{} of {scenarios} scenarios:\n{}", faults.len(), faults.join("\n"));
    println!("{} files, {scenarios} scenarios, {events} events", files.len());
}

#[test]
fn every_recorded_choice_is_made() {
    let own = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden"));
    replay_all(&std::env::var_os("GOLDEN_DIR").map_or(own, PathBuf::from));
}

/// Recorded like the others, with what they have little of: servers added, edited, deleted and added again, services
/// edited and given another scheduler and back, all between connections that come and go, with thresholds.
#[test]
fn every_choice_between_edits_is_made() {
    replay_all(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden_sched/edits")));
}
