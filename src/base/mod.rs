//! Words that every layer shares: ids, offsets, time, settings, error and exit codes, the record batch, limits. No I/O, no clock, no state.

pub mod batch;
pub mod config;
pub mod error;
pub mod exit;
pub mod fields;
pub mod ids;
pub mod limits;
pub mod record;
pub mod time;
