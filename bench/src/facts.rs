//! What machine this is.

use std::fs::read_to_string;
use std::process::Command;

use serde::{Deserialize, Serialize};

/// Facts that figures depend on; empty where unknown.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Facts {
    /// Model of the CPU.
    pub cpu: String,
    /// Cores that the system has.
    pub cores: usize,
    /// Sizes of the caches, by level, as "L1d 48K, L2 2048K, L3 32768K".
    pub caches: String,
    /// Kernel.
    pub kernel: String,
    /// Memory, bytes.
    pub memory: u64,
    /// 2 MiB pages set aside, and whether there are transparent ones.
    pub huge_pages: String,
    /// Hypervisor, or "none".
    pub hypervisor: String,
    /// When, UTC.
    pub date: String,
    /// Revision of the sources, `-dirty` with changes.
    pub revision: String,
    /// Compiler.
    pub rustc: String,
    /// DPDK.
    pub dpdk: String,
    /// Load of the system over the last minute, before the run.
    pub load: String,
}

impl Facts {
    /// Looks.
    pub fn gather() -> Self {
        let cpuinfo = read_to_string("/proc/cpuinfo").unwrap_or_default();
        let meminfo = read_to_string("/proc/meminfo").unwrap_or_default();
        Self {
            cpu: colon_value(&cpuinfo, "model name").unwrap_or("unknown").to_owned(),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            caches: caches(),
            kernel: read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
            memory: kib(&meminfo, "MemTotal"),
            huge_pages: huge_pages(&meminfo),
            hypervisor: hypervisor(&cpuinfo),
            date: said("date", &["-u", "+%Y-%m-%dT%H:%M:%SZ"]),
            revision: said("git", &["describe", "--always", "--dirty"]),
            rustc: said("rustc", &["--version"]),
            dpdk: said("pkg-config", &["--modversion", "libdpdk"]),
            load: read_to_string("/proc/loadavg")
                .unwrap_or_default()
                .split(' ')
                .next()
                .unwrap_or("")
                .to_owned(),
        }
    }

    /// Names and values, for a table.
    pub fn listed(&self) -> Vec<(&'static str, String)> {
        vec![
            ("CPU", format!("{}, {} cores, {}", self.cpu, self.cores, self.caches)),
            ("memory", format!("{:.1} GiB; {}", self.memory as f64 / f64::from(1 << 30), self.huge_pages)),
            ("kernel", self.kernel.clone()),
            ("hypervisor", self.hypervisor.clone()),
            ("revision", self.revision.clone()),
            ("compiler", self.rustc.clone()),
            ("DPDK", self.dpdk.clone()),
        ]
    }
}

/// Memory that is free or can be made so, bytes.
pub fn memory_available() -> u64 {
    kib(&read_to_string("/proc/meminfo").unwrap_or_default(), "MemAvailable")
}

/// The value after a name and a colon.
fn colon_value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':')).map(str::trim)
}

/// A value of /proc/meminfo, bytes.
fn kib(meminfo: &str, name: &str) -> u64 {
    let value = colon_value(meminfo, name).and_then(|value| value.split(' ').next()?.parse::<u64>().ok());
    value.unwrap_or(0) * 1024
}

fn huge_pages(meminfo: &str) -> String {
    let transparent = read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_default();
    let chosen = transparent.split(['[', ']']).nth(1).unwrap_or("none");
    format!(
        "{} huge pages set aside, transparent ones: {chosen}",
        colon_value(meminfo, "HugePages_Total").unwrap_or("0")
    )
}

fn hypervisor(cpuinfo: &str) -> String {
    let flag =
        colon_value(cpuinfo, "flags").is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor"));
    if !flag {
        return "none".to_owned();
    }
    let lscpu = said("lscpu", &[]);
    colon_value(&lscpu, "Hypervisor vendor").unwrap_or("yes, unknown").to_owned()
}

fn caches() -> String {
    let read = |index: usize, file: &str| {
        let path = format!("/sys/devices/system/cpu/cpu0/cache/index{index}/{file}");
        read_to_string(path).map(|text| text.trim().to_owned())
    };
    let one = |index| {
        let kind = read(index, "type").ok().filter(|kind| kind != "Instruction")?;
        let suffix = if kind == "Data" { "d" } else { "" };
        Some(format!("L{}{suffix} {}", read(index, "level").ok()?, read(index, "size").ok()?))
    };
    (0..4).filter_map(one).collect::<Vec<_>>().join(", ")
}

/// What a command prints, or "unknown".
fn said(command: &str, arguments: &[&str]) -> String {
    let output = Command::new(command).args(arguments).output().ok().filter(|output| output.status.success());
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    text.filter(|text| !text.is_empty()).unwrap_or_else(|| "unknown".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_by_their_whole_name() {
        let text = "MemTotalX:  1 kB\nMemTotal:       24 kB\n";
        assert_eq!(kib(text, "MemTotal"), 24 * 1024);
        assert_eq!(kib(text, "Other"), 0);
    }

    #[test]
    fn this_machine_has_a_name_and_memory() {
        let facts = Facts::gather();
        assert!(
            !facts.cpu.is_empty() && facts.cores > 0 && facts.memory > 0 && !facts.date.is_empty(),
            "{facts:?}"
        );
    }
}
