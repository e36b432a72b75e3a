//! The harness of the end-to-end tests: real servers, a real client and lbd in network namespaces.
//!
//! A test is a [`case::Case`]: it gets a [`lab::Lab`] of its own (namespaces, switch, nodes), starts the director
//! that it wants ([`director`]) and servers ([`servers`]), and asserts. What it made is taken away when it ends,
//! by a panic too. Nothing sleeps to synchronise: [`wait::wait_until`] waits on a condition.
//!
//! Invariant: no interface or address is added to the namespace that the tests run in, and no process is ended
//! but by the id of one that was started here.

pub mod case;
pub mod config;
pub mod director;
pub mod frames;
// the tests of lb-dpdk need it too, and this crate is built on that one
#[path = "../../dataplane/dpdk/tests/support/huge_pages.rs"]
pub mod huge_pages;
pub mod lab;
pub mod netns;
pub mod peer;
pub mod process;
pub mod servers;
pub mod wait;
pub mod watch;
