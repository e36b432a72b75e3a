//! The packet path as a whole: frames in, frames or drop reasons out, over ports in memory.

#![allow(clippy::expect_used, reason = "helpers of tests")]

mod balance;
mod cases;
mod change;
mod conserve;
mod frames;
mod lab;
mod local;
mod nat;
mod schedulers;
mod sctp;
