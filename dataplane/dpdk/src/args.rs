//! The arguments that DPDK's EAL is started with: all made here, none copied from the user as they are.

use lb_config::HugePages;

use crate::eal::{EalConfig, EalError};

/// Lcore number of the thread that starts the EAL; worker `i` is lcore `i + 1`.
pub(crate) const MAIN_LCORE: u32 = 0;

/// Most workers: `RTE_MAX_LCORE` is 128 in Debian's DPDK, the configuration's limit is 64.
const MAX_WORKERS: usize = 64;

/// Longest part of the director's name in the name of DPDK's runtime folder, bytes.
const PREFIX_LEN: usize = 32;

/// Builds the arguments; `allowed` are the CPUs that this process may run on.
///
/// Errors: a CPU outside `allowed`, a CPU given to two workers, no worker or more than 64, a PCI address that is not
/// one.
pub(crate) fn build(config: &EalConfig, allowed: &[u16]) -> Result<Vec<String>, EalError> {
    let mut args = vec!["lbd".to_owned(), "--no-telemetry".to_owned()];
    args.push(format!("--lcores={}", lcores(config, allowed)?));
    args.push(format!("--main-lcore={MAIN_LCORE}"));
    args.push(format!("--file-prefix={}", file_prefix(&config.instance)));
    // A short option: DPDK would read "-m=256" as the number "=256", which is 0.
    args.extend(["-m".to_owned(), config.memory_mib.to_string()]);
    match config.huge_pages {
        // Ordinary pages count as "legacy memory", which --in-memory refuses; --no-shconf is the part of it that
        // keeps processes apart and leaves no file behind.
        HugePages::None => args.extend(["--no-huge".to_owned(), "--no-shconf".to_owned()]),
        // Pages come from memfd_create: no hugetlbfs mount is needed, and the kernel frees them however we end.
        HugePages::Size2M | HugePages::Size1G => args.push("--in-memory".to_owned()),
    }
    if config.pci.is_empty() {
        // Virtual addresses need no read of /proc/self/pagemap, so no CAP_SYS_ADMIN.
        args.extend(["--no-pci".to_owned(), "--iova-mode=va".to_owned()]);
    }
    for address in &config.pci {
        if address.is_empty() || !address.bytes().all(|b| b.is_ascii_hexdigit() || matches!(b, b':' | b'.')) {
            return Err(EalError::PciAddress { address: address.clone() });
        }
        args.push(format!("--allow={address}"));
    }
    Ok(args)
}

/// The map of lcores to CPUs in EAL's syntax: `0@(0,1),1@0,2@1`.
fn lcores(config: &EalConfig, allowed: &[u16]) -> Result<String, EalError> {
    let workers = &config.worker_cpus;
    if workers.is_empty() || workers.len() > MAX_WORKERS {
        return Err(EalError::Workers { workers: workers.len(), limit: MAX_WORKERS });
    }
    let check = |cpu: u16| {
        let ok = allowed.contains(&cpu);
        if ok { Ok(cpu) } else { Err(EalError::Cpu { cpu, allowed: cpu_list(allowed) }) }
    };
    let main = match config.main_cpu {
        Some(cpu) => check(cpu)?.to_string(),
        None => format!("({})", cpu_list(allowed)),
    };
    let mut map = format!("{MAIN_LCORE}@{main}");
    for (index, cpu) in workers.iter().enumerate() {
        if workers[..index].contains(cpu) {
            return Err(EalError::CpuTwice { cpu: *cpu });
        }
        map.push_str(&format!(",{}@{}", index + 1, check(*cpu)?));
    }
    Ok(map)
}

fn cpu_list(cpus: &[u16]) -> String {
    cpus.iter().map(u16::to_string).collect::<Vec<_>>().join(",")
}

/// A name for DPDK's runtime folder: of the director's name only what is harmless in a path.
///
/// Nothing is shared through that folder (`--no-shconf`, `--in-memory`), so directors of one name may share it.
fn file_prefix(instance: &str) -> String {
    let harmless = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    format!("sluice-{}", instance.chars().take(PREFIX_LEN).map(harmless).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> EalConfig {
        EalConfig {
            instance: "node01".to_owned(),
            huge_pages: HugePages::None,
            memory_mib: 256,
            main_cpu: None,
            worker_cpus: vec![1, 0],
            pci: Vec::new(),
        }
    }

    #[test]
    fn workers_are_lcores_from_one_on() {
        let args = build(&config(), &[0, 1]).unwrap();
        assert!(args.contains(&"--lcores=0@(0,1),1@1,2@0".to_owned()), "{args:?}");
        let pinned = EalConfig { main_cpu: Some(1), worker_cpus: vec![0], ..config() };
        assert!(build(&pinned, &[0, 1]).unwrap().contains(&"--lcores=0@1,1@0".to_owned()));
    }

    #[test]
    fn a_cpu_that_is_not_ours_is_refused_by_name() {
        let error = build(&config(), &[0, 2]).unwrap_err();
        assert_eq!(error.to_string(), "CPU 1 is not open to this process (open: 0,2)");
        let twice = EalConfig { worker_cpus: vec![0, 0], ..config() };
        assert!(matches!(build(&twice, &[0]), Err(EalError::CpuTwice { cpu: 0 })));
        let none = EalConfig { worker_cpus: vec![], ..config() };
        assert!(matches!(build(&none, &[0]), Err(EalError::Workers { workers: 0, .. })));
    }

    #[test]
    fn pci_is_scanned_only_for_configured_addresses() {
        let without = build(&config(), &[0, 1]).unwrap();
        assert!(without.contains(&"--no-pci".to_owned()));
        let with = EalConfig { pci: vec!["0000:3b:00.0".to_owned()], ..config() };
        let with = build(&with, &[0, 1]).unwrap();
        assert!(with.contains(&"--allow=0000:3b:00.0".to_owned()) && !with.contains(&"--no-pci".to_owned()));
        let injected = EalConfig { pci: vec!["0000:3b:00.0,x=1".to_owned()], ..config() };
        assert!(matches!(build(&injected, &[0, 1]), Err(EalError::PciAddress { .. })));
    }

    #[test]
    fn the_instance_cannot_leave_the_runtime_folder() {
        assert_eq!(file_prefix("../a b"), "sluice----a-b");
    }
}
