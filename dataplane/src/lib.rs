//! What happens to a packet.
//!
//! The path, one step after the other; the files follow this order:
//! - [`io`]: a burst comes from a queue ([`receive`]);
//! - [`express`]: plain packets of known connections, a burst at a time; all others go on here;
//! - [`parse`]: what the frames are; headers in [`wire`];
//! - [`pieces`]: frames that came in several buffers;
//! - [`steer`]: which worker owns a flow; [`fragments`]: the flow that a fragment is of;
//! - [`conn`]: the connection, [`state`]: what its packets make of it ([`flow`]);
//! - [`classify`]: the service of a new one, [`persist`]: whether its client has a server already
//!   ([`admit`], [`ending`]);
//! - [`flood`]: what new ones may cost, and who makes room for them;
//! - [`sched`]: who gets it; [`policy`]: what the operator decided for where there is a choice;
//! - [`forward`]: the frame is rewritten ([`mod@rewrite`]) for its server or client; [`proxy`]: who that is, in the stream;
//! - [`datagram`]: the same for datagrams in fragments, gathered by [`fragments`];
//! - [`icmp`]: errors about balanced packets, which go the same ways; [`tunnel_error`]: about tunnels;
//! - [`sync`]: what other directors are told of connections, and what they tell;
//! - [`owner`]: addresses that another director may have; [`channel`]: frames that decide it;
//! - [`local`]: what is for the director itself; [`answer`]: what it says of its own, built by [`respond`];
//! - [`keep`]: connections of an earlier process, which this one goes on with;
//! - [`exception`]: what no service takes, to the kernel and back;
//! - [`transmit`]: bursts leave, frames without a next hop's MAC address wait.
//!
//! A [`Worker`] does all this for one core, a turn at a time ([`worker`]); [`run()`] is its loop. What it knows of
//! the configuration is a [`snapshot`], made by the control core's [`Director`] and passed through a [`mailbox`];
//! what it counts is in [`counters`]; next hops are resolved in [`neighbor`]. Any step may end in a
//! [`DropReason`], counted: frames received and originated are sent, delivered to the director, given to the
//! kernel, held or dropped.
//!
//! No DPDK, no clock, no allocation per packet; intrinsics in [`prefetch`] and [`conn::simd`] alone, and what is compiled
//! for newer processors too runs by way of `wide`.

pub mod admit;
pub mod answer;
pub mod channel;
pub mod classify;
pub mod conn;
pub mod counters;
pub mod datagram;
pub mod director;
pub mod drop_reason;
pub mod ending;
pub mod exception;
pub mod express;
pub mod flood;
pub mod flow;
pub mod forward;
pub mod fragments;
pub mod icmp;
pub mod ids;
pub mod io;
pub mod keep;
pub mod latency;
pub mod local;
pub mod local_port;
pub mod mailbox;
pub mod memory;
pub mod neighbor;
pub mod networks;
pub mod owner;
pub mod paged;
pub mod parse;
pub mod persist;
pub mod pieces;
pub mod policy;
pub mod post;
pub mod prefetch;
pub mod proxy;
pub mod receive;
pub mod respond;
pub mod rewrite;
pub mod run;
pub mod sched;
pub mod setup;
pub mod shards;
pub mod snapshot;
pub mod snat;
pub mod state;
pub mod steer;
pub mod sync;
pub mod tables;
pub mod transmit;
pub mod tunnel_error;
pub(crate) mod wide;
pub mod wire;
pub mod worker;

pub use director::Director;
pub use drop_reason::DropReason;
pub use run::run;
pub use worker::Worker;
