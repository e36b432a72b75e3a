//! The rewriting engine against recordings of IPVS of Linux 6.1: `tests/golden/wire.json`, packet for packet.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "helpers of tests")]

mod pieces;
mod recording;
mod replay;
mod wire;
