//! The machine: the only home of glommio, io_uring, libc, the clocks and `unsafe`. Implements `ports`.

pub mod blocking;
pub mod clock;
mod copy;
pub mod disk;
pub mod doorbell;
pub mod entropy;
pub mod executor;
pub mod host;
pub mod mailbox;
pub mod memory;
pub mod meter;
mod read_ahead;
pub mod ring;
pub mod signals;
pub mod socket;
pub mod tasks;
pub mod transfer;
pub mod turn;
