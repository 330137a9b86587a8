//! Looks at a host with a broker's eyes: what is found, what is wanted, why, and the command that changes it.
//!
//! Knows nothing of the broker but the numbers in `Wanted`. Reads files below a root, so that tests look at hosts that do not exist.
#![forbid(unsafe_code)]

mod apply;
mod check;
mod disk;
mod host;
mod probe;
mod profile;

pub use apply::{Undo, apply, undo};
pub use check::{Change, Finding, Verdict, Wanted, check, table};
pub use disk::{Latencies, measure_syncs};
pub use host::Host;
pub use probe::{Probe, probe};
pub use profile::{PROFILES, profile};
