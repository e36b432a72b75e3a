//! The kernel's side of the ports: TAP interfaces by which it gets what is not load-balanced, and sends.
//!
//! * [`plan`]: which interfaces there are, with which addresses and routes
//! * `netlink`: the kernel is told of these
//! * `quiet`: it is kept from answering on the interfaces that a driver reads
//! * `share`: by which port a frame goes where several have one interface
//! * `thread`: frames move
//!
//! What workers do with frames for the kernel is in [`lb_dataplane::exception`]. Invariant: whatever fails here is
//! logged and costs packets for the kernel at most, never balanced ones.

mod netlink;
pub mod plan;
mod quiet;
mod share;
mod thread;

pub use plan::{Plan, TapPlan, TapPort};
pub use thread::{Handle, start};
