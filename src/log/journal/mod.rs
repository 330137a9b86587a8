//! The core's journal: one sequential stream of durable commits for all partitions of a core.
//!
//! `format` is its bytes, `commit` fills and submits commits, `ring` provides the files they go to, `scan` reads them back.

pub(crate) mod commit;
pub mod format;
pub(crate) mod ring;
pub(crate) mod scan;
