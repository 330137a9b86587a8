//! Bytes of a reply, named where they are: a reader of the log gives them, the net layer sends them, nobody copies them.

use bytes::Bytes;

/// Part of a reply.
#[derive(Clone, Debug)]
pub enum Piece<F> {
    /// In memory: an encoded header, or records of a partition's tail.
    Memory(Bytes),
    /// In a file, which stays readable as long as this is held, even if it is deleted meanwhile. As it is now it stays up to `settled`, so
    /// that what follows the piece may be read ahead so far.
    File { file: F, position: u64, bytes: u64, settled: u64 },
}

impl<F> Piece<F> {
    pub fn bytes(&self) -> u64 {
        match self {
            Piece::Memory(bytes) => bytes.len() as u64,
            Piece::File { bytes, .. } => *bytes,
        }
    }
}
