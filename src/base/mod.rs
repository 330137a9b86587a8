//! Words that every layer shares: ids, offsets, time, error codes, the record batch, limits. No I/O, no clock, no state.

pub mod batch;
pub mod error;
pub mod fields;
pub mod ids;
pub mod limits;
pub mod record;
pub mod time;
