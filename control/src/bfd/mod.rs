//! Bidirectional forwarding detection (RFC 5880) over one hop (RFC 5881): asynchronous mode, no authentication, no echo.
//!
//! [`wire`] has the packets, [`session`] the state machine of one session, without I/O and clock. VRRP's thread
//! carries both ([`crate::vrrp`]): a backup that tracks the session with its master takes over when it ends.

pub mod session;
pub mod wire;

pub use session::{Session, SessionSettings};
pub use wire::{Diag, Packet, SessionState};
