//! The control core of a director: the API on the Unix socket and what stands behind it.
//!
//! ```text
//! lbctl -> api::Client -> socket -> server::Session -> Call -> core: edits the Model -> Director -> workers
//!                                                           <- Response, built from what the Director counts
//! ```
//!
//! * [`api`]: the messages and their frames; all that `lbctl` needs.
//! * [`server`]: the socket, who may do what, one bounded session per connection.
//! * [`core`]: the control core: what a request does to the director and what it shows.
//! * [`exception`]: the kernel's side of the ports: what is not load-balanced, on a thread of its own.
//! * [`health`]: checks of servers, quorums, events.
//! * [`ipvsadm`]: ipvsadm's command line over all of that.
//! * [`keep`]: what outlives lbd, so that the next one goes on with its connections.
//! * [`source`], [`keepalived`]: the files that lbd is configured by.
//! * [`sync`]: what other directors are told of connections, on threads of its own.
//! * [`vrrp`], [`bfd`]: which of several directors has the VIPs, on a thread of their own; [`lease`]: who may, by etcd.
//!
//! Invariant: a session never touches the director. It passes a [`server::Call`] on and waits, so a hostile or slow
//! client holds up itself alone.
#![forbid(unsafe_code)]

pub mod api;
pub mod bfd;
pub mod core;
pub mod exception;
mod follower;
pub mod health;
pub mod ipvsadm;
pub mod keep;
pub mod keepalived;
pub mod lease;
pub mod server;
pub mod source;
pub mod sync;
pub mod vrrp;
