//! What a core needs from the world, as traits: disk, memory for records, clock, other cores.
//!
//! `runtime` implements them on io_uring; the simulator in `tests/sim` implements them on a seed. `log` and `shard` know only these.

mod disk;
mod piece;

pub use disk::{Buffer, Disk, DiskCompletion, OpenMode, WriteToken};
pub use piece::Piece;

use crate::base::time::Now;

/// Both clocks of this machine.
pub trait Clock: Clone + 'static {
    fn now(&self) -> Now;
}
