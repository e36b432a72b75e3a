//! Raw bindings to the system's libdpdk (22.11 to 24.11): as much of it as lb-dpdk needs, and nothing safe.
//!
//! The build script runs bindgen over `src/shim.h` with an allow-list; `src/shim.c` gives a symbol to what DPDK has
//! only as inline functions. `struct rte_mbuf` is opaque here, because its fields moved into unions between 22.11
//! and 24.11: the constants `SLUICE_MBUF_*` are the offsets of its fields in the installed version.
//!
//! Limits: one call per burst goes through the shim (no LTO into C), so nothing here is meant to be called per
//! byte; the libraries are linked dynamically, drivers are loaded by DPDK itself from its own folder.

/// Declares types that are only ever handled through a pointer.
macro_rules! opaque {
    ($($(#[$doc:meta])+ $name:ident;)+) => {
        $($(#[$doc])+
        #[allow(non_camel_case_types)]
        #[repr(C)]
        pub struct $name {
            // Neither Send, Sync nor Unpin: nothing may be assumed of what C keeps there.
            _opaque: [u8; 0],
            _marker: std::marker::PhantomData<(*mut u8, std::marker::PhantomPinned)>,
        })+
    };
}

opaque! {
    /// A packet buffer: its header, headroom, frame and tailroom.
    rte_mbuf;
    /// A pool of packet buffers.
    rte_mempool;
    /// A ring of pointers.
    rte_ring;
    /// A hash table.
    rte_hash;
    /// A device on one of DPDK's buses.
    rte_device;
}

/// What bindgen made of `src/shim.h`.
#[allow(missing_docs, non_camel_case_types, non_snake_case, non_upper_case_globals)]
#[allow(clippy::all, clippy::undocumented_unsafe_blocks, rustdoc::all)]
mod bindings {
    include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
}

pub use bindings::*;
