//! The frame is rewritten for whom it goes to: one engine for every forwarding kind, direction and family.
//!
//! Pure functions on the bytes of a frame, in the order of the path:
//! - [`pass`](pass()): TTL, MTU and DF, as a router treats them;
//! - [`translate`], [`translate_datagram`], [`translate_error`], [`translate_echo`]: NAT in either direction;
//! - [`Encap`]: a tunnel's outer headers, and [`tunnel`] what an ICMP error says about them;
//! - [`Fragments`]: a packet without DF that is too big for the link is cut;
//! - [`mss`]: the segment size that a SYN asks for is bounded;
//! - [`toa`], [`proxy`], [`seq`], [`alone`](alone()): a server behind full NAT is told who its client is.
//!
//! Which addresses a packet gets is the caller's choice and comes as data; what the bytes become follows IPVS of
//! Linux 6.1 (`tests/golden/wire.json`). Invariant: bytes that do not hold what the caller says give `false` or
//! `None` and no panic. Limits: no checksum of TCP is verified, a wrong one stays wrong; a wrong CRC of SCTP is made
//! right when a port changes, as IPVS does.

mod address;
mod alone;
mod cut;
mod datagram;
mod icmp;
mod insert;
mod nat;
mod options;
mod pass;

pub mod mss;
pub mod proxy;
pub mod seq;
pub mod toa;
pub mod tunnel;

#[cfg(test)]
mod samples;

pub use address::Address;
pub use alone::{Alone, Say, alone};
pub use cut::Fragments;
pub use datagram::translate_datagram;
pub use icmp::{ErrorTranslation, renumber_error, translate_echo, translate_error};
pub use nat::{Translation, translate, translate_first, translate_fragment};
pub use pass::{Towards, Verdict, pass};
pub use tunnel::{Encap, Gather, PlanError, TunnelChecksum, TunnelKind, TunnelPlan, encapsulate};
pub(crate) use tunnel::{wrap_grown, wrap_plain};
