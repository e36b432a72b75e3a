//! Kernel interfaces that a driver reads frames from: the kernel sees those frames too, and has the port's addresses,
//! on the TAP interface. Unless it is kept from that it answers everything twice.
//!
//! IPv4 that comes in there is refused by its source, the way to which leads over the TAP interface (`rp_filter`); IPv6 is
//! switched off; ARP is not answered. What was set before is set again at the end.

use std::fs;
use std::path::{Path, PathBuf};

use tracing::warn;

/// Folder of the settings.
const ROOT: &str = "/proc/sys/net";

/// Settings that were changed, with what they were.
#[derive(Debug, Default)]
pub struct Quiet {
    changed: Vec<(PathBuf, String)>,
}

impl Quiet {
    /// Keeps the kernel from answering on this interface. What cannot be set is logged.
    pub fn add(&mut self, interface: &str) {
        self.add_below(Path::new(ROOT), interface);
    }

    fn add_below(&mut self, root: &Path, interface: &str) {
        let settings =
            [("ipv4", "arp_ignore", "8"), ("ipv4", "rp_filter", "1"), ("ipv6", "disable_ipv6", "1")];
        for (family, key, value) in settings {
            let file = root.join(family).join("conf").join(interface).join(key);
            // a kernel without IPv6 has nothing to be switched off
            let Ok(before) = fs::read_to_string(&file) else { continue };
            if before.trim() == value {
                continue;
            }
            match fs::write(&file, value) {
                Ok(()) => self.changed.push((file, before)),
                Err(error) => {
                    warn!(file = %file.display(), %error, "the kernel may answer on {interface} too");
                }
            }
        }
        // the greater of the two holds, and 2 takes packets that come by any way
        let all = root.join("ipv4/conf/all/rp_filter");
        if fs::read_to_string(&all).is_ok_and(|value| value.trim() == "2") {
            warn!(
                "net.ipv4.conf.all.rp_filter is 2, so the kernel answers on {interface} as well as by the exception \
                 path: set it to 0 or 1"
            );
        }
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        for (file, before) in self.changed.drain(..).rev() {
            // The interface may be gone.
            let _ = fs::write(file, before);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_set_is_set_again() {
        let root = std::env::temp_dir().join(format!("sluice-quiet-{}", std::process::id()));
        let of = |key: &str| root.join("ipv4/conf/eth0").join(key);
        fs::create_dir_all(root.join("ipv4/conf/eth0")).unwrap();
        fs::write(of("arp_ignore"), "0\n").unwrap();
        fs::write(of("rp_filter"), "1\n").unwrap();
        let mut quiet = Quiet::default();
        quiet.add_below(&root, "eth0");
        assert_eq!(fs::read_to_string(of("arp_ignore")).unwrap(), "8");
        assert_eq!(quiet.changed.len(), 1, "what was right already is left alone");
        drop(quiet);
        assert_eq!(fs::read_to_string(of("arp_ignore")).unwrap(), "0\n");
        fs::remove_dir_all(root).unwrap();
    }
}
