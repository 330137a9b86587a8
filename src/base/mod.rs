//! Words that every layer shares: ids, offsets, time, settings, counters, error and exit codes, the record batch, limits. No I/O, no clock, no state.

pub mod batch;
pub mod config;
pub mod counters;
pub mod error;
pub mod exit;
pub mod fields;
pub mod histogram;
pub mod ids;
pub mod limits;
pub mod measures;
pub mod record;
pub mod time;
pub mod unpack;
