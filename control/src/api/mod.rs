//! The API of lbd: frames on a Unix socket that carry TOML.
//!
//! Each side's first frame is a hello with the protocol's version. Then the client sends one [`Request`] per frame
//! and gets one [`Response`] for each, in order. An error that leaves the stream readable is a
//! [`Response::Error`] and the connection goes on; after a broken frame it is closed.

mod client;
mod error;
pub mod frame;
mod health;
mod ipvs_sync;
mod message;
mod request;
mod response;
mod sync;
mod vrrp;

pub use client::{Client, ClientError};
pub use error::{ApiError, ErrorKind, FaultRow};
pub use health::{CheckRow, EventList, EventRow, HealthRow, HealthServer, HealthTable, Lateness};
pub use ipvs_sync::IpvsSyncRow;
pub use message::{MessageError, decode, encode};
pub use request::{
    ConnectionFilter, DrainSpec, ExplainSpec, Hello, Request, ServerRef, ServerSpec, ServiceEdit,
    ServiceSpec, TimeoutSpec,
};
pub use response::{
    CandidateRow, ChangeRow, Changes, ConfigText, ConnectionRow, Connections, Conservation, Counters,
    DeviceRow, DropRow, Drops, ExplainedStep, Explanation, FloodRow, Flushed, Latency, LatencyRow,
    NeighborRow, Neighbors, RatedServer, RatedService, Rates, Response, ServerRow, Servers, ServiceRow,
    ServiceServers, Services, Snat, SnatRow, Stats, TableRow, Traffic, Version, WorkerRow, Workers,
};

pub use sync::{SyncRow, SyncStatus};
pub use vrrp::{BfdRow, TrackRow, Vrrp, VrrpGroupRow, VrrpRow};

/// Version of the protocol; both hellos must carry the same.
pub const PROTOCOL: u32 = 1;

/// Word in a [`TimeoutSpec`] for the director's own timeout.
pub const DEFAULT_TIMEOUT: &str = "default";

/// Word in a [`ServiceEdit::persistence`] that ends it.
pub const NO_PERSISTENCE: &str = "none";

/// No flags of a scheduler.
pub const NO_FLAGS: &str = "none";

/// Rows in a [`Connections`] reply when the request names no limit.
pub const DEFAULT_CONNECTION_ROWS: u32 = 1000;

/// Most rows in a [`Connections`] reply: at about 250 bytes a row it stays inside [`frame::MAX_FRAME`].
pub const MAX_CONNECTION_ROWS: u32 = 50_000;
