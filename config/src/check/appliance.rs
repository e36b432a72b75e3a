//! Checks of `[appliance]`, `[limits]`, `[tables]`, `[timeouts]` and `[policy]`.

use std::os::unix::ffi::OsStrExt;

use super::{Firsts, name, timeout};
use crate::bounds::{self, APPLIANCE_NAME_LEN, DIRECTORY_LEN, SECRET_LEN, SOCKET_PATH_LEN};
use crate::draft::Draft;
use crate::fault::Problems;
use crate::fields::{LIMITS, TIMEOUTS};
use crate::model::{Appliance, Tables};
use crate::path::toml_path;
use crate::text::show;

pub(super) fn check(draft: &Draft, problems: &mut Problems) {
    let mut add = |key: &'static str, result: Result<(), String>| {
        if let Err(message) = result {
            problems.add(toml_path!("appliance", key), message);
        }
    };
    let appliance = &draft.appliance;
    add("name", name(&appliance.name, APPLIANCE_NAME_LEN));
    add("socket", socket(appliance));
    add("socket_group", group(appliance));
    add("cluster_secret", secret(appliance));
    add("memory_mib", bounds::MEMORY_MIB.check(appliance.memory_mib.into()).map(drop));
    let cpu = appliance.control_cpu.map_or(Ok(0), |cpu| bounds::CPU.check(cpu.into()));
    add("control_cpu", cpu.map(drop));
    if let Err(message) = directory(&draft.tables) {
        problems.add(toml_path!("tables", "directory"), message);
    }
    workers(draft, problems);
    for field in &LIMITS {
        if let Err(message) = field.bounds.check((field.get)(&draft.limits).into()) {
            problems.add(toml_path!("limits", field.key), message);
        }
    }
    let policy = &draft.policy;
    for (key, value, bounds) in [
        ("conn_reuse_mode", policy.conn_reuse_mode, bounds::CONN_REUSE_MODE),
        ("secure_tcp", policy.secure_tcp, bounds::SECURE_TCP),
    ] {
        if let Err(message) = bounds.check(value.into()) {
            problems.add(toml_path!("policy", key), message);
        }
    }
    for field in &TIMEOUTS {
        timeout((field.get)(&draft.timeouts), || toml_path!("timeouts", field.key), problems);
    }
}

fn workers(draft: &Draft, problems: &mut Problems) {
    let Some(workers) = &draft.workers else { return };
    let count = i128::try_from(workers.len()).unwrap_or(i128::MAX);
    if let Err(message) = bounds::WORKERS.check(count) {
        problems.add(toml_path!("appliance", "workers"), format!("number of workers: {message}"));
    }
    let mut firsts = Firsts::default();
    for (index, cpu) in workers.iter().enumerate() {
        let Some(cpu) = *cpu else { continue };
        if let Err(message) = bounds::CPU.check(cpu.into()) {
            problems.add(toml_path!("appliance", "workers", index), message);
        }
        if let Some(first) = firsts.repeats(cpu, index) {
            let message = format!("CPU {cpu} is already that of worker {first}");
            problems.add(toml_path!("appliance", "workers", index), message);
        }
    }
}

fn socket(appliance: &Appliance) -> Result<(), String> {
    let socket = &appliance.socket;
    let text = show(&socket.to_string_lossy());
    // What is not UTF-8 could not be written to a TOML file.
    let Some(utf8) = socket.to_str() else { return Err(format!("{text} is not UTF-8")) };
    if !socket.is_absolute() || utf8.contains(|c: char| c.is_control()) {
        return Err(format!("{text} is not an absolute path without control characters"));
    }
    match socket.as_os_str().as_bytes().len() {
        0..=SOCKET_PATH_LEN => Ok(()),
        len => Err(format!("{len} bytes of path are above the limit {SOCKET_PATH_LEN}")),
    }
}

fn directory(tables: &Tables) -> Result<(), String> {
    let text = show(&tables.directory.to_string_lossy());
    // What is not UTF-8 could not be written to a TOML file.
    let Some(utf8) = tables.directory.to_str() else { return Err(format!("{text} is not UTF-8")) };
    if !tables.directory.is_absolute() || utf8.contains(|c: char| c.is_control()) {
        return Err(format!("{text} is not an absolute path without control characters"));
    }
    match utf8.len() {
        0..=DIRECTORY_LEN => Ok(()),
        len => Err(format!("{len} bytes of path are above the limit {DIRECTORY_LEN}")),
    }
}

/// Source: useradd(8), names of at most 32 characters; what they are made of is left to the system.
fn group(appliance: &Appliance) -> Result<(), String> {
    let bad = |c: char| c.is_whitespace() || c.is_control() || matches!(c, ':' | ',' | '/');
    match &appliance.socket_group {
        Some(group) if group.is_empty() || group.len() > 32 || group.contains(bad) => {
            Err(format!("{} is not the name of a group", show(group)))
        }
        _ => Ok(()),
    }
}

fn secret(appliance: &Appliance) -> Result<(), String> {
    let (min, max) = (SECRET_LEN.start(), SECRET_LEN.end());
    match appliance.cluster_secret.as_ref().map(String::len) {
        Some(len) if len < *min => Err(format!("{len} bytes of secret are below the limit {min}")),
        Some(len) if len > *max => Err(format!("{len} bytes of secret are above the limit {max}")),
        _ => Ok(()),
    }
}
