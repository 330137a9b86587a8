//! Sockets to requests and replies to sockets: listeners, frames, connections, the server of one core.

mod budget;
mod connection;
mod hoarding;
mod inbound;
pub mod outbound;
mod quiet;
mod receiving;
mod replying;
mod report;
pub mod server;
pub mod spans;
pub mod start;
mod upkeep;
