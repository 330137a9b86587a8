//! A load generator for brokers that speak Kafka's protocol.
//!
//! It never imports the broker of this repository. `unsafe` lives in `poller` and `host` alone.
#![deny(unsafe_code)]

mod admin;
mod arrivals;
mod batch;
mod connection;
#[allow(unsafe_code)]
mod host;
mod idle;
mod kept;
mod keys;
mod link;
mod mark;
pub mod null;
pub mod page;
mod plan;
#[allow(unsafe_code)]
mod poller;
mod producer;
mod reader;
pub mod report;
pub mod run;
pub mod scenario;
mod stats;
pub mod sweep;
mod verify;
mod wire;
mod worker;
