//! TAP interfaces of the kernel: how what is not load-balanced reaches it. No DPDK in them.

use std::ffi::c_char;
use std::fs::{File, OpenOptions};
use std::io;
use std::mem;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

use nix::libc;

/// The device that makes them.
const CLONE: &str = "/dev/net/tun";
/// Source: linux/if_tun.h.
const TUNSETIFF: libc::Ioctl = 0x4004_54ca;
const IFF_TAP: i16 = 0x0002;
const IFF_NO_PI: i16 = 0x1000;

/// Makes the TAP interface `name` of this network namespace; it goes with the file, however the process ends.
///
/// Each read gives a frame that the kernel sends by it, each write is one that it receives; neither waits. Frames are
/// from the Ethernet header on, without FCS, with checksums and no longer than the MTU allows. Needs CAP_NET_ADMIN.
///
/// Errors: there is no `/dev/net/tun`, a permission is missing, or an interface of that name is there already.
pub fn open_tap(name: &str) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(CLONE)
        .map_err(|error| io::Error::new(error.kind(), format!("{CLONE}: {error}")))?;
    // SAFETY: every member of ifreq may be all zero. No safe form: libc's types have no Default.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as c_char;
    }
    request.ifr_ifru.ifru_flags = IFF_TAP | IFF_NO_PI;
    // SAFETY: the command takes an ifreq, whose name ends with a zero byte. No safe form: an ioctl.
    let code = unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF, std::ptr::from_mut(&mut request)) };
    if code < 0 { Err(io::Error::last_os_error()) } else { Ok(file) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_no_interface_can_have_is_refused() {
        // without the device it is refused for that
        let error = open_tap("a-name-of-sixteen").unwrap_err();
        assert!(error.kind() == io::ErrorKind::InvalidInput || error.to_string().contains(CLONE), "{error}");
    }
}
