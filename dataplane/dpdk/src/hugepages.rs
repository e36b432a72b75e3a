//! Whether the kernel has the huge pages that the configuration asks for.
//!
//! DPDK's own message for too few is a count without a cause, so this is checked before DPDK starts.

use std::fs;
use std::path::{Path, PathBuf};

use lb_config::HugePages;

/// Where the kernel keeps a folder per size of huge page. Source: Linux, `Documentation/admin-guide/mm/hugetlbpage.rst`.
const FOLDER: &str = "/sys/kernel/mm/hugepages";

/// Why the huge pages asked for cannot be had.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum HugePageError {
    /// `{huge_pages}` names a size that this kernel or CPU has not.
    #[error("appliance.huge_pages = \"{huge_pages}\": this kernel has no such pages ({path} is missing)")]
    Unsupported {
        /// As configured.
        huge_pages: &'static str,
        /// What is missing.
        path: PathBuf,
    },
    /// Too few pages are free.
    #[error(
        "appliance.huge_pages = \"{huge_pages}\": memory_mib = {memory_mib} needs {needed} free pages of {page_mib} \
         MiB, {free} are free; reserve more: echo N > {path}"
    )]
    TooFew {
        /// As configured.
        huge_pages: &'static str,
        /// As configured, MiB.
        memory_mib: u32,
        /// Size of one page, MiB.
        page_mib: u32,
        /// Pages needed.
        needed: u32,
        /// Pages free.
        free: u32,
        /// File that reserves pages.
        path: PathBuf,
    },
}

/// Checks that `memory_mib` MiB of `kind` are free.
///
/// Errors: see [`HugePageError`]. The count may change between this check and DPDK's start.
pub(crate) fn check(kind: HugePages, memory_mib: u32) -> Result<(), HugePageError> {
    check_in(Path::new(FOLDER), kind, memory_mib)
}

fn check_in(folder: &Path, kind: HugePages, memory_mib: u32) -> Result<(), HugePageError> {
    let (huge_pages, page_mib, name) = match kind {
        HugePages::None => return Ok(()),
        HugePages::Size2M => ("2M", 2, "hugepages-2048kB"),
        HugePages::Size1G => ("1G", 1024, "hugepages-1048576kB"),
    };
    let folder = folder.join(name);
    let free = fs::read_to_string(folder.join("free_hugepages")).ok().and_then(|t| t.trim().parse().ok());
    let Some(free) = free else {
        return Err(HugePageError::Unsupported { huge_pages, path: folder });
    };
    let needed = memory_mib.div_ceil(page_mib);
    if free < needed {
        let path = folder.join("nr_hugepages");
        return Err(HugePageError::TooFew { huge_pages, memory_mib, page_mib, needed, free, path });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_counted_in_their_own_size() {
        let folder = std::env::temp_dir().join(format!("sluice-hugepages-{}", std::process::id()));
        let pages = folder.join("hugepages-2048kB");
        fs::create_dir_all(&pages).unwrap();
        fs::write(pages.join("free_hugepages"), "10\n").unwrap();

        assert_eq!(check_in(&folder, HugePages::None, 4096), Ok(()));
        assert_eq!(check_in(&folder, HugePages::Size2M, 20), Ok(()));
        let few = check_in(&folder, HugePages::Size2M, 21).unwrap_err();
        assert!(matches!(few, HugePageError::TooFew { needed: 11, free: 10, .. }), "{few}");
        assert!(few.to_string().contains("needs 11 free pages of 2 MiB, 10 are free"), "{few}");
        let none = check_in(&folder, HugePages::Size1G, 1).unwrap_err();
        assert!(matches!(none, HugePageError::Unsupported { huge_pages: "1G", .. }), "{none}");

        fs::remove_dir_all(&folder).unwrap();
    }
}
