//! One partition's decisions: what may be appended, at which offset, what is visible, who is told and when.
//!
//! Pure: no bytes are stored here (`log` does), nothing is sent (`shard` does), time comes in as an argument.

pub mod append;
pub mod epochs;
pub mod producers;
pub mod waiters;
pub mod watermark;
