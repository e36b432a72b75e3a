//! Connection sync with other directors of this kind.
//!
//! Two directors have a session over UDP. Each numbers its datagrams, keeps them until the other has acknowledged them,
//! and sends again what the other misses; the other hands the records in them to its workers in order. A session begins
//! with a copy of everything, and so does what was lost for good. Files, from the wire up:
//! - `record`: records as bytes; `wire`: datagrams; `seal`: their authentication
//! - `session`: who is there, and that nobody replays what was said before
//! - `outgoing`: numbers, acknowledgements, repetitions, the time until records have arrived
//! - `incoming`: order, gaps
//! - `link`: the two of them and the copy, no I/O and no clock
//! - `thread`: sockets, the workers' queues, time
//! - [`kernel`]: connection sync with Linux directors, which is another protocol
//!
//! [`kernel`] is about other directors of another kind: Linux with IPVS, by its own protocol.
//!
//! # Datagrams
//! ```text
//! offset  bytes
//!  0      4      "SLS1"
//!  4      1      kind: 1 hello, 2 records, 3 acknowledgement, 4 gone
//!  5      3      0
//!  8      8      number of the sender's session
//!  16     8      number of the receiver's session as the sender knows it, 0: not at all
//!  24     8      records: number of the datagram, from 0 on; acknowledgement: the next that is expected; gone: the first
//!                that can still be sent
//!  32            body
//!  -16    16     first half of the HMAC-SHA256 over all before
//! ```
//! Numbers are big-endian. Body of a hello: how often records are told again, ms (4 bytes), and which copy of everything
//! is asked for (4 bytes, 0: none). Of records: items, each a tag, the length of the rest (1 byte), the rest. Of an
//! acknowledgement: how many ranges are missing (1 byte), each the first number (8 bytes) and how many (4 bytes).
//!
//! # Trust
//! Who does not know the key can neither make a datagram nor use an old one: every session of a director has a number by
//! chance, a datagram counts only when it names both sessions as they are, and within a session each number counts once.
//! Nothing is encrypted: who can listen on the network between directors sees who talks to whom, as everywhere else there.

mod incoming;
pub mod kernel;
mod link;
mod outgoing;
mod record;
mod seal;
mod session;
mod thread;
mod wire;

pub use thread::{Handle, SyncPlan, start};

/// Largest datagram, bytes: fits an Ethernet frame over IPv6 (1500 - 40 - 8) with room for a tunnel.
pub const MAX_DATAGRAM: usize = 1400;
