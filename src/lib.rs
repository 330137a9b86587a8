//! Ringlog: a Kafka-compatible broker, one pinned thread per core, io_uring, nothing shared.
//!
//! ARCHITECTURE.md draws the layers; `tests/layers.rs` keeps their imports. `unsafe` lives in `runtime` alone.
#![deny(unsafe_code)]

pub mod admin;
pub mod api;
pub mod base;
pub mod cli;
pub mod cluster;
pub mod group;
pub mod log;
pub mod net;
pub mod partition;
pub mod ports;
pub mod protocol;
#[allow(unsafe_code)]
pub mod runtime;
pub mod shard;
pub mod transaction;
