//! Transactions: who may write under which producer id and epoch, and how a transaction ends.
//!
//! Pure: the coordinator's log is kept by `shard`, time comes in as an argument.

pub mod producer_ids;
