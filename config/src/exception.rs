//! What of a port is the kernel's: everything that is not load-balanced, by a TAP interface.

use crate::bounds::EXCEPTION_RATE;
use crate::model::Device;
use crate::text::words;

/// The kernel's side of a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exception {
    /// Name of the TAP interface, which has the port's addresses.
    pub interface: String,
    /// Packets a second that the kernel gets of the port at most.
    pub rate: u32,
}

/// `exception_rate` where none is given: 240 Mbit/s of full packets, and well below a hundredth of what a worker does.
pub const DEFAULT_EXCEPTION_RATE: u32 = 20_000;
const _: () =
    assert!(EXCEPTION_RATE.min <= DEFAULT_EXCEPTION_RATE && DEFAULT_EXCEPTION_RATE <= EXCEPTION_RATE.max);

/// Words of `exception`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExceptionKind {
    /// A TAP interface.
    Tap,
    /// The kernel gets nothing.
    Off,
}

words!(ExceptionKind, "a way to the kernel", [
    "tap" => Self::Tap => Self::Tap,
    "off" => Self::Off => Self::Off,
]);

impl ExceptionKind {
    /// What holds where nothing is said: a NIC that DPDK holds is lost to the kernel, so it gets its part back; a kernel
    /// interface keeps its own addresses if it has any, and other software ports are no way to the machine.
    pub fn default_for(device: Option<&Device>) -> Self {
        match device {
            Some(Device::Pci(_)) => Self::Tap,
            _ => Self::Off,
        }
    }
}

/// The interface's name where none is given.
pub(crate) fn default_interface(port: &str) -> String {
    format!("lb-{port}")
}
