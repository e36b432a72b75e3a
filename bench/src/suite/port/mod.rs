//! Suite `port`: whole programs on ports of DPDK and interfaces of the kernel, each beside those that do the same.

mod forward;
mod netns;
mod testpmd;
mod veth;

pub use forward::child;

use crate::context::Context;

/// Measures both.
pub fn run(context: &mut Context) -> anyhow::Result<()> {
    forward::run(context)?;
    veth::run(context)
}
