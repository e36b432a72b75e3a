//! Configuration of a director: TOML to a checked [`Model`].
//!
//! ```text
//! text -> read -> Draft -> check -> Model -> to_toml -> text
//!                   ^-------- edit ---'--- diff -> Changes
//! ```
//!
//! - [`parse`] and [`load`]: text to Model, or all [`Faults`] at once, each with line, column and TOML path
//! - [`to_toml`]: Model to text; what was written reads back as an equal Model
//! - [`warnings`]: what is allowed and yet unlikely to be meant
//! - [`edit`]: the changes an operator makes by command, each checked as a file is
//! - [`diff`](fn@diff): what changed between two Models, and whether that needs a restart
//! - [`keepalived`]: keepalived.conf as TOML
//! - [`bounds`]: every numeric limit
//!
//! What clients address is [`ServiceAddress`], how packets get to servers [`Forwarding`], what else is decided for the
//! director and per service [`Policy`] and [`ServicePolicy`], how servers are checked [`health`].
//!
//! A new key goes into [`model`], the reader's list of keys and sections (`read`), the writer (`write`), the diff,
//! and `example.toml`; tests fail when one of them is forgotten. A rule goes into `check`.
//!
//! Invariant: nothing outside this crate makes a Model from text, so a Model that came from here is valid.
//! Limits: pure data; only [`load`] touches the outside, and it reads one file.
#![forbid(unsafe_code)]

mod address;
pub mod bounds;
mod check;
mod device;
mod diff;
mod draft;
pub mod duration;
pub mod edit;
mod exception;
mod fault;
mod fields;
mod forwarding;
pub mod health;
mod ifaddr;
mod ipvs_sync;
pub mod keepalived;
mod load;
mod mark;
pub mod model;
mod path;
mod persistence;
mod policy;
mod read;
mod scheduler;
mod services;
mod snat;
mod sync;
mod text;
mod vrrp;
mod warning;
mod write;

pub use address::{IpPrefix, PortRange, ServiceAddress};
pub use diff::{Change, FieldChange, diff};
pub use edit::{ServerRef, ServiceRef};
pub use exception::{DEFAULT_EXCEPTION_RATE, Exception};
pub use fault::{Fault, Faults, LoadError};
pub use forwarding::*;
pub use ipvs_sync::{IPVS_SYNC_GROUP, IPVS_SYNC_PORT, IpvsSync, IpvsSyncState};
pub use load::{load, load_with_warnings, parse, parse_with_warnings};
pub use mark::MarkRule;
pub use model::*;
pub use policy::{Compat, EffectivePolicy, OnNoServer, OnServerDown, Policy, Reuse, ServicePolicy, SynProxy};
pub use services::Services;
pub use snat::{SnatProtocol, SnatRule};
pub use sync::PeerSync;
pub use text::ValueError;
pub use vrrp::{
    Bfd, Endpoint, Ha, HmacKey, HmacMode, Lease, Track, Tracked, VirtualAddress, Vrrp, VrrpFile, VrrpGroup,
    VrrpHmac, VrrpNotify, VrrpPeer, VrrpProcess, VrrpScript, VrrpStart, VrrpVersion, WhenAway,
};
pub use warning::{Warning, new_warnings, warnings};
pub use write::{ipvs_sync_to_toml, services_to_toml, to_toml};

#[cfg(test)]
mod tests;
