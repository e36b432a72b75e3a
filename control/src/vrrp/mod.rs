//! VRRP: which of several directors has the VIPs.
//!
//! ```text
//! worker -> Channel -> thread -> Engine -> Machine      worker <- Channel <- frames      programs <- notify
//!                        ^ links, scripts, files (track), configuration (Handle)
//! ```
//! * [`wire`], [`hmac`], [`frame`]: bytes
//! * [`machine`]: one virtual router, without I/O and clock
//! * [`plan`]: the configuration in these terms; [`instance`]: a machine with its checks, counters and announcements
//! * [`engine`]: all instances, groups, what they track, leases, BFD sessions; still without I/O
//! * [`thread`](mod@thread): a thread of its own, so that no API call, health check or large change holds a timer up
//! * [`track`]: scripts, processes and files; [`notify`]: programs that are told; both on threads of their own
//!
//! Invariant: an address is answered for, and its packets are balanced, exactly while its machine is in
//! [`machine::State::Master`]: the engine writes the bit that workers read before it lets an advert go. Of two directors
//! that hear each other, or that depend on a lease ([`crate::lease`]), at most one is in that state at a time.

pub mod engine;
pub mod frame;
pub mod hmac;
pub mod instance;
pub mod machine;
pub mod notify;
pub mod plan;
pub mod thread;
pub mod track;
pub mod wire;

pub use plan::Plan;
pub use thread::{Handle, Links, start};
