//! The packet path as a whole: frames in, frames or drop reasons out, over ports in memory.

#![allow(clippy::expect_used, reason = "helpers of tests")]

mod arms;
mod balance;
mod cases;
mod change;
mod conserve;
mod drain;
mod exception;
mod flood;
mod fragments;
mod frames;
mod full_nat;
mod lab;
mod local;
mod nat;
mod operate;
mod pieces;
mod policy;
mod proxy;
mod recorded;
mod restart;
mod schedulers;
mod sctp;
mod shared;
mod shed;
mod snat;
mod stream;
mod syn_proxy;
mod sync;
mod tunnel_errors;
mod turns;
mod udp;
