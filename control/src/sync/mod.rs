//! Connections that several directors know.

pub mod kernel;
