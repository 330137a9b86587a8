//! The end of a segment in memory: chunks that mirror its file from a block boundary on. What is not yet on disk is here, and what
//! was read last is here; decides nothing about when to write.

use crate::base::limits::{DISK_BLOCK_BYTES, SEGMENT_PIECE_BYTES};
use crate::ports::{Buffer, Disk};
use bytes::Bytes;
use std::collections::VecDeque;

/// A partition's first chunk; each full one is followed by one four times as large.
pub const CHUNK_BYTES_MIN: usize = DISK_BLOCK_BYTES;
const CHUNK_GROWTH: usize = 4;

/// The sizes of a partition's chunks to come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ChunkSizes {
    next: usize,
    /// None is larger.
    pub max: usize,
}

impl Default for ChunkSizes {
    fn default() -> ChunkSizes {
        ChunkSizes { next: CHUNK_BYTES_MIN, max: SEGMENT_PIECE_BYTES }
    }
}

impl ChunkSizes {
    /// One chunk for so many.
    pub fn for_bytes(bytes: usize) -> ChunkSizes {
        let bytes = bytes.next_multiple_of(DISK_BLOCK_BYTES).max(CHUNK_BYTES_MIN);
        ChunkSizes { next: bytes, max: bytes.max(SEGMENT_PIECE_BYTES) }
    }

    fn take(&mut self) -> usize {
        let bytes = self.next.min(self.max);
        self.next = bytes * CHUNK_GROWTH;
        bytes
    }
}

/// Part of a segment file in memory. `start` is a multiple of a disk block.
pub(crate) struct Chunk<B> {
    pub start: u64,
    pub buffer: B,
}

impl<B: Buffer> Chunk<B> {
    pub fn end(&self) -> u64 {
        self.start + self.buffer.len() as u64
    }

    pub fn is_full(&self) -> bool {
        self.buffer.len() == self.buffer.capacity()
    }
}

/// Chunks of one segment, adjoining each other; the last one reaches the segment's end.
pub(crate) struct Tail<B> {
    chunks: VecDeque<Chunk<B>>,
}

impl<B: Buffer> Tail<B> {
    pub fn new() -> Tail<B> {
        Tail { chunks: VecDeque::new() }
    }

    /// Where memory begins; `None` where nothing is in memory.
    pub fn start(&self) -> Option<u64> {
        self.chunks.front().map(|chunk| chunk.start)
    }

    pub fn memory_bytes(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.buffer.capacity()).sum()
    }

    pub fn first(&self) -> Option<&Chunk<B>> {
        self.chunks.front()
    }

    /// Copies `bytes` to the end, which is at `end` of the segment. Returns the capacity it took from the pool.
    pub fn append<D: Disk<Buffer = B>>(
        &mut self,
        disk: &D,
        mut end: u64,
        mut bytes: &[u8],
        sizes: &mut ChunkSizes,
    ) -> usize {
        let mut taken = 0;
        while !bytes.is_empty() {
            let room = self.chunks.back().map_or(0, |chunk| chunk.buffer.capacity() - chunk.buffer.len());
            if room == 0 {
                assert!(end.is_multiple_of(DISK_BLOCK_BYTES as u64), "chunks are whole blocks");
                let buffer = disk.buffer(sizes.take());
                taken += buffer.capacity();
                self.chunks.push_back(Chunk { start: end, buffer });
                continue;
            }
            let (now, rest) = bytes.split_at(room.min(bytes.len()));
            let chunk = self.chunks.back().expect("a chunk with room");
            debug_assert_eq!(chunk.end(), end);
            chunk.buffer.append(now);
            end += now.len() as u64;
            bytes = rest;
        }
        taken
    }

    /// The chunk that holds `position`.
    pub fn at(&self, position: u64) -> Option<&Chunk<B>> {
        let after = self.chunks.partition_point(|chunk| chunk.start <= position);
        let chunk = self.chunks.get(after.checked_sub(1)?)?;
        (position < chunk.end()).then_some(chunk)
    }

    /// The bytes `[from, to)`, as one view for each chunk. All must be in memory.
    pub fn views(&self, mut from: u64, to: u64, out: &mut impl FnMut(Bytes)) {
        while from < to {
            let chunk = self.at(from).expect("the range is in memory");
            let end = chunk.end().min(to);
            out(chunk.buffer.view((from - chunk.start) as usize..(end - chunk.start) as usize));
            from = end;
        }
    }

    /// Fills `out` from `position`; false where not all of it is in memory.
    pub fn copy(&self, mut position: u64, mut out: &mut [u8]) -> bool {
        while !out.is_empty() {
            let Some(chunk) = self.at(position) else { return false };
            let bytes = ((chunk.end() - position) as usize).min(out.len());
            let at = (position - chunk.start) as usize;
            let (now, rest) = out.split_at_mut(bytes);
            now.copy_from_slice(&chunk.buffer.view(at..at + bytes));
            position += bytes as u64;
            out = rest;
        }
        true
    }

    /// Tells the end of each full chunk that ends in `(from, to]`.
    pub fn full_chunks_ending(&self, from: u64, to: u64, out: &mut impl FnMut(u64)) {
        let first = self.chunks.partition_point(|chunk| chunk.end() <= from);
        for chunk in self.chunks.range(first..).take_while(|chunk| chunk.end() <= to) {
            if chunk.is_full() {
                out(chunk.end());
            }
        }
    }

    /// Gives up the first chunk. Returns the capacity it gave back.
    pub fn evict_first(&mut self) -> usize {
        self.chunks.pop_front().map_or(0, |chunk| chunk.buffer.capacity())
    }

    /// Gives up everything; the caller keeps or restores the last partial block.
    pub fn clear(&mut self) -> usize {
        let bytes = self.memory_bytes();
        self.chunks.clear();
        bytes
    }
}
