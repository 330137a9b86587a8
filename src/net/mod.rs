//! Sockets to requests and replies to sockets: listeners, frames, connections, the server of one core.

pub mod inbound;
pub mod outbound;
