//! Kernel interfaces that a driver reads frames from (AF_PACKET, AF_XDP): brings them into a state in which whole,
//! unmerged frames of every group arrive, and back.

use std::ffi::c_char;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::libc;

/// Commands of SIOCETHTOOL. Source: linux/ethtool.h.
const ETHTOOL_GET_FLAGS: u32 = 0x25;
const ETHTOOL_SET_FLAGS: u32 = 0x26;
const ETHTOOL_GET_GRO: u32 = 0x2b;
const ETHTOOL_SET_GRO: u32 = 0x2c;
const ETHTOOL_GET_CHANNELS: u32 = 0x3c;
/// Bit of large receive offload. Source: linux/ethtool.h, `ETH_FLAG_LRO`.
const FLAG_LRO: u32 = 1 << 15;

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// `struct ethtool_channels`: maxima, then what is set; rx, tx, other, combined.
#[repr(C)]
#[derive(Default)]
struct Channels {
    command: u32,
    max: [u32; 4],
    set: [u32; 4],
}

/// An interface of this network namespace, held in the state that a driver needs.
#[derive(Debug)]
pub(crate) struct Interface {
    name: String,
    socket: OwnedFd,
    /// Keeps the membership in all multicast groups: the kernel ends it with the socket, however the process ends.
    _groups: OwnedFd,
    restore_gro: bool,
    restore_lro: bool,
}

impl Interface {
    /// Finds `name`, sets it up, has it receive every multicast group (ND needs them) and stops the kernel from
    /// merging frames, which would exceed the MTU. Needs CAP_NET_ADMIN and CAP_NET_RAW.
    ///
    /// Errors: no such interface, or a permission is missing. Merging that cannot be switched off is a warning.
    pub(crate) fn open(name: &str) -> io::Result<Self> {
        let index = nix::net::if_::if_nametoindex(name)?;
        let socket = socket(libc::AF_INET, libc::SOCK_DGRAM)?;
        let groups = all_multicast(index)?;
        let mut this =
            Self { name: name.to_owned(), socket, _groups: groups, restore_gro: false, restore_lro: false };
        this.set_up()?;
        this.restore_gro = this.switch_off(ETHTOOL_GET_GRO, ETHTOOL_SET_GRO, u32::MAX, "GRO");
        this.restore_lro = this.switch_off(ETHTOOL_GET_FLAGS, ETHTOOL_SET_FLAGS, FLAG_LRO, "LRO");
        Ok(this)
    }

    /// Largest IP packet, bytes.
    ///
    /// Errors: the interface is gone.
    pub(crate) fn mtu(&self) -> io::Result<usize> {
        let mut request = self.request();
        self.ioctl(libc::SIOCGIFMTU, &mut request)?;
        // SAFETY: the call above has filled this member of the union. No safe form: a C union.
        let mtu = unsafe { request.ifr_ifru.ifru_mtu };
        Ok(usize::try_from(mtu).unwrap_or(0))
    }

    /// Receive queues as AF_XDP counts them: the combined channels, or 1 where the driver has none.
    pub(crate) fn queues(&self) -> u16 {
        let mut channels = Channels { command: ETHTOOL_GET_CHANNELS, ..Channels::default() };
        let asked = self.ethtool(&mut channels);
        let [.., max_combined] = channels.max;
        let [.., combined] = channels.set;
        if asked.is_err() || max_combined == 0 {
            1
        } else {
            u16::try_from(combined.max(1)).unwrap_or(u16::MAX)
        }
    }

    fn set_up(&self) -> io::Result<()> {
        let mut request = self.request();
        self.ioctl(libc::SIOCGIFFLAGS, &mut request)?;
        // SAFETY: the call above has filled this member of the union. No safe form: a C union.
        let flags = unsafe { request.ifr_ifru.ifru_flags };
        if i32::from(flags) & libc::IFF_UP != 0 {
            return Ok(());
        }
        request.ifr_ifru.ifru_flags = flags | libc::IFF_UP as i16;
        self.ioctl(libc::SIOCSIFFLAGS, &mut request)
    }

    /// Switches the bits of `mask` off. Returns whether they were on and now are not.
    fn switch_off(&self, get: u32, set: u32, mask: u32, what: &str) -> bool {
        let mut value = Value { command: get, data: 0 };
        if self.ethtool(&mut value).is_err() || value.data & mask == 0 {
            return false;
        }
        let mut off = Value { command: set, data: value.data & !mask };
        match self.ethtool(&mut off) {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(
                    "{} of {} stays on, merged frames will be lost: {error}; try: ethtool -K {} gro off lro off",
                    what,
                    self.name,
                    self.name
                );
                false
            }
        }
    }

    fn ethtool<T>(&self, command: &mut T) -> io::Result<()> {
        let mut request = self.request();
        request.ifr_ifru.ifru_data = std::ptr::from_mut(command).cast::<c_char>();
        self.ioctl(libc::SIOCETHTOOL, &mut request)
    }

    /// A request that names this interface.
    fn request(&self) -> libc::ifreq {
        // SAFETY: every member of ifreq may be all zero. No safe form: libc's types have no Default.
        let mut request: libc::ifreq = unsafe { mem::zeroed() };
        // The kernel knows the name, so it is shorter than the array and the last byte stays 0.
        for (to, from) in request.ifr_name.iter_mut().zip(self.name.bytes()) {
            *to = from as c_char;
        }
        request
    }

    fn ioctl(&self, command: libc::Ioctl, request: &mut libc::ifreq) -> io::Result<()> {
        // SAFETY: all commands used here take an ifreq, and SIOCETHTOOL in it a structure whose size goes with its
        // command. No safe form: an ioctl.
        let code = unsafe { libc::ioctl(self.socket.as_raw_fd(), command, std::ptr::from_mut(request)) };
        if code < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl Drop for Interface {
    fn drop(&mut self) {
        // What fails here concerns an interface that is gone.
        if self.restore_gro {
            let _ = self.ethtool(&mut Value { command: ETHTOOL_SET_GRO, data: 1 });
        }
        let mut flags = Value { command: ETHTOOL_GET_FLAGS, data: 0 };
        if self.restore_lro && self.ethtool(&mut flags).is_ok() {
            let _ = self.ethtool(&mut Value { command: ETHTOOL_SET_FLAGS, data: flags.data | FLAG_LRO });
        }
    }
}

fn socket(family: i32, kind: i32) -> io::Result<OwnedFd> {
    // SAFETY: takes no pointer. No safe form: nix has none for packet sockets without a protocol.
    let fd = unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor that was just made and is nobody else's. No safe form: see above.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A socket whose life is the interface's membership in every multicast group. Source: packet(7).
fn all_multicast(index: u32) -> io::Result<OwnedFd> {
    let socket = socket(libc::AF_PACKET, libc::SOCK_RAW)?;
    let request = libc::packet_mreq {
        mr_ifindex: i32::try_from(index).unwrap_or(0),
        mr_type: libc::PACKET_MR_ALLMULTI as u16,
        mr_alen: 0,
        mr_address: [0; 8],
    };
    let (value, size) = (std::ptr::from_ref(&request).cast(), mem::size_of_val(&request) as libc::socklen_t);
    let (fd, level) = (socket.as_raw_fd(), libc::SOL_PACKET);
    // SAFETY: `value` points to `size` bytes of what the option takes. No safe form: nix has not this option.
    let code = unsafe { libc::setsockopt(fd, level, libc::PACKET_ADD_MEMBERSHIP, value, size) };
    if code < 0 { Err(io::Error::last_os_error()) } else { Ok(socket) }
}
