//! The cluster's metadata: what topics and brokers there are, who owns what, how all is configured.
//!
//! Pure: commands change the image and nothing else does; where commands are kept and agreed on is for `shard`.

pub mod balance;
pub mod commands;
pub mod configs;
pub mod controller;
pub mod image;
pub mod names;
pub mod snapshot;
