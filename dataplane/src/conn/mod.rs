//! The connection table of one worker.
//!
//! Files in the order in which a lookup meets them: [`key`] (what is hashed and compared), [`table`] (lookup,
//! insertion), [`mod@line`] (how connections lie in cache lines), [`simd`] (how their keys are compared), [`memory`]
//! (where they lie), `repair` (of what an earlier process left), `room` (what gives way to a new connection), `walk` (the sweep, and who looks at all), [`entry`]
//! (what is kept of a connection), [`pair`] (how a reply finds it), [`stream`] (where a PROXY header stands in it),
//! [`splice`] (how its halves fit when the director did its handshake).

pub mod entry;
pub mod key;
pub mod line;
pub mod memory;
pub mod pair;
mod repair;
mod room;
pub mod simd;
pub mod splice;
pub mod stream;
pub mod table;
#[cfg(test)]
mod tests;
pub(crate) mod walk;

pub use entry::{Meta, Tick};
pub use key::{ConnKey, HashKey, Key4, Key6, TableKey};
pub use line::Line;
pub use pair::Pair;
pub use splice::Splice;
pub use stream::{Inbound, Stream};
pub use table::{Found, Full, NoMemory, Probe, Table};
pub(crate) use table::{Prober, View};
