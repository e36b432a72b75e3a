//! How many frames wait in a receive queue whose driver does not say.
//!
//! DPDK's drivers for AF_PACKET and AF_XDP have no `rx_queue_count`, but receive from rings that the kernel fills in
//! memory which the process has mapped. What is new in `/proc/self/maps` once the driver has opened its socket is that
//! memory: no private structure of a driver is looked into, and looking at the ring later takes no system call.
//!
//! - AF_PACKET (`PACKET_RX_RING`, TPACKET_V2): each slot begins with a word whose lowest bit says that its frame is the
//!   program's. [`SAMPLES`] slots are looked at, as slots that wait lie one behind the other.
//! - AF_XDP: what the kernel has produced less what the driver has consumed.
//!
//! Where the memory is not found (another kernel, another driver) nothing waits, as before, and the log says so.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

/// Slots of AF_PACKET's ring that are looked at.
const SAMPLES: usize = 16;
/// As many frames are said to wait when all slots of AF_PACKET's ring do, so that a shorter ring, as of a large MTU,
/// is as full as a long one: the slots at MTU 1500.
const FULL: usize = 2048;
/// The frame is the program's. Source: linux/if_packet.h, `TP_STATUS_USER`.
const TP_STATUS_USER: u32 = 1;

/// Shared memory of a socket that is mapped in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mapping {
    start: usize,
    len: usize,
    /// Which part of the socket's memory it is.
    offset: u64,
    /// Which socket.
    inode: u64,
}

/// A line of `/proc/self/maps`, if it is of a socket. Source: proc(5): `start-end perms offset dev inode path`.
fn mapping(line: &str) -> Option<Mapping> {
    let mut words = line.split_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let (_perms, offset, _device) = (words.next()?, words.next()?, words.next()?);
    let inode = words.next()?.parse().ok()?;
    words.next()?.starts_with("socket:").then_some(())?;
    let start = usize::from_str_radix(start, 16).ok()?;
    let len = usize::from_str_radix(end, 16).ok()?.checked_sub(start)?;
    Some(Mapping { start, len, offset: u64::from_str_radix(offset, 16).ok()?, inode })
}

/// Sockets' memory that is mapped now.
pub(crate) fn mappings() -> Vec<Mapping> {
    let text = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    text.lines().filter_map(mapping).collect()
}

/// The one mapping that is new since `before` and looks like this.
fn new_one(before: &[Mapping], like: impl Fn(&Mapping) -> bool) -> Option<Mapping> {
    let mut new = mappings().into_iter().filter(|mapping| !before.contains(mapping) && like(mapping));
    new.next().filter(|_| new.next().is_none())
}

/// Where to look.
#[derive(Debug)]
pub(crate) enum Backlog {
    /// The driver says.
    Driver,
    /// AF_PACKET's ring.
    Slots {
        /// The first slot.
        ring: NonNull<u8>,
        /// Bytes from one to the next.
        size: usize,
        /// How many.
        count: usize,
    },
    /// AF_XDP's ring.
    Indices {
        /// What the kernel has filled so far, modulo 2^32.
        produced: NonNull<u32>,
        /// What the driver has taken.
        consumed: NonNull<u32>,
    },
}

// SAFETY: what it points to is shared with the kernel, is only read, by atomic loads, and is mapped as long as the port
// that the queue holds. No safe form: raw pointers are in it.
unsafe impl Send for Backlog {}

impl Backlog {
    /// Of AF_PACKET's ring of `count` slots of `size` bytes that was mapped since `before`: behind it, in the same
    /// mapping, is as long a ring to send from.
    pub(crate) fn of_af_packet(before: &[Mapping], (size, count): (usize, usize)) -> Self {
        let ring = new_one(before, |mapping| mapping.offset == 0 && mapping.len >= 2 * size * count);
        match ring.and_then(|ring| NonNull::new(ring.start as *mut u8)) {
            Some(ring) if size.is_multiple_of(4) => Self::Slots { ring, size, count },
            _ => Self::not_found("AF_PACKET"),
        }
    }

    /// Of AF_XDP's ring of a queue that was mapped since `before`. Source: linux/if_xdp.h, `XDP_PGOFF_RX_RING` is 0,
    /// which no other ring of a socket has.
    pub(crate) fn of_af_xdp(before: &[Mapping]) -> Self {
        new_one(before, |mapping| mapping.offset == 0)
            .and_then(|ring| {
                let (mut producer, mut consumer) = (0, 0);
                let socket = descriptor(ring.inode)?;
                // SAFETY: a descriptor of ours, and two integers. No safe form: an FFI call.
                let code = unsafe { dpdk_sys::sluice_xdp_rx_ring(socket, &mut producer, &mut consumer) };
                let index = |at: u64| {
                    let at =
                        usize::try_from(at).ok().filter(|at| at.is_multiple_of(4) && at + 4 <= ring.len)?;
                    NonNull::new((ring.start + at) as *mut u32)
                };
                (code == 0).then_some(())?;
                Some(Self::Indices { produced: index(producer)?, consumed: index(consumer)? })
            })
            .unwrap_or_else(|| Self::not_found("AF_XDP"))
    }

    fn not_found(what: &str) -> Self {
        tracing::debug!("{what}'s receive ring was not found: how full it is will not be seen");
        Self::Driver
    }

    /// Frames that wait, about; of AF_PACKET as if its ring had [`FULL`] slots. `None`: the driver says.
    #[inline]
    pub(crate) fn waiting(&self) -> Option<usize> {
        match *self {
            Self::Driver => None,
            Self::Slots { ring, size, count } => {
                let waits = |sample: &usize| {
                    // SAFETY: `sample` is below SAMPLES, so the slot is one of the ring's, which is mapped and aligned
                    // to pages; slots begin with a word at a multiple of 4. No safe form: memory of a C library.
                    let status = unsafe {
                        ring.byte_add(sample * count / SAMPLES * size).cast::<AtomicU32>().as_ref()
                    };
                    status.load(Ordering::Relaxed) & TP_STATUS_USER != 0
                };
                Some((0..SAMPLES).filter(waits).count() * (FULL / SAMPLES))
            }
            Self::Indices { produced, consumed } => {
                // SAFETY: both are words of a ring that is mapped. No safe form: memory of a C library.
                let [produced, consumed] =
                    [produced, consumed].map(|index| unsafe { index.cast::<AtomicU32>().as_ref() });
                let waiting = produced.load(Ordering::Relaxed).wrapping_sub(consumed.load(Ordering::Relaxed));
                Some(waiting as usize)
            }
        }
    }
}

/// This process's descriptor of a socket.
fn descriptor(inode: u64) -> Option<i32> {
    let wanted = format!("socket:[{inode}]");
    let mut all = std::fs::read_dir("/proc/self/fd").ok()?.flatten();
    let found = all.find(|entry| {
        std::fs::read_link(entry.path()).is_ok_and(|link| link.as_os_str().to_str() == Some(&wanted))
    })?;
    found.file_name().to_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_of_sockets_are_read_and_no_others() {
        let of = |offset, inode| Some(Mapping { start: 0x7f00_0000_1000, len: 0x80_0000, offset, inode });
        let cases = [
            ("7f0000001000-7f0000801000 rw-s 00000000 00:08 4711    socket:[4711]", of(0, 4711)),
            ("7f0000001000-7f0000801000 rw-s 80000000 00:08 9 socket:[9]", of(0x8000_0000, 9)),
            ("7f0000001000-7f0000801000 rw-s 00000000 00:08 4711    /tmp/socket:", None),
            ("7f0000001000-7f0000801000 rw-p 00000000 00:00 0", None),
            ("7f0000001000 rw-s 00000000 00:08 1 socket:[1]", None),
            ("", None),
        ];
        for (line, want) in cases {
            assert_eq!(mapping(line), want, "{line}");
        }
    }

    #[test]
    fn slots_that_wait_are_counted_in_proportion() {
        for (size, count) in [(2048, 2048), (10_240, 408)] {
            let mut ring = vec![0_u32; size * count / 4];
            for (waiting, want) in [(0, 0), (count / 4, FULL / 4), (count / 2, FULL / 2), (count, FULL)] {
                for slot in 0..count {
                    // as the kernel writes it, with other bits beside
                    ring[slot * size / 4] = if slot < waiting { TP_STATUS_USER | 0x10 } else { 0x10 };
                }
                let backlog = Backlog::Slots { ring: NonNull::from(&mut ring[0]).cast(), size, count };
                assert_eq!(backlog.waiting(), Some(want), "{waiting} of {count}");
            }
        }
    }

    #[test]
    fn indices_may_wrap() {
        let (mut produced, mut consumed) = (5_u32, u32::MAX - 4);
        let backlog = Backlog::Indices {
            produced: NonNull::from(&mut produced),
            consumed: NonNull::from(&mut consumed),
        };
        assert_eq!(backlog.waiting(), Some(10));
    }
}
