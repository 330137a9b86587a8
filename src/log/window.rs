//! A file read from front to back, for scans and recovery. Not for serving.
//!
//! Around the page cache: what recovery reads is seldom wanted again, and fresh pages of the cache cost more than the disk does. Once a
//! reader goes on and on, several reads are under way ahead of it, since one at a time leaves the disk idle while its bytes are looked at.

use super::error::LogError;
use crate::base::limits::DISK_BLOCK_BYTES;
use crate::ports::{Disk, OpenMode};
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};

/// The first step: enough for the end of a segment, which is all that most partitions are asked for.
const STEP_BYTES_MIN: usize = 64 << 10;
/// Steps double up to this while a file is read on: the largest size that memory is recycled in.
const STEP_BYTES_MAX: usize = 1 << 20;
/// Steps of the largest size that are under way at once.
const STEPS_AHEAD: usize = 6;

/// A stretch of the file, in memory.
struct Chunk {
    start: u64,
    bytes: Bytes,
}

impl Chunk {
    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }
}

/// A chunk on its way.
struct Reading {
    start: u64,
    bytes: usize,
    future: Pin<Box<dyn Future<Output = io::Result<Bytes>>>>,
    /// What came, until its turn is there.
    outcome: Option<io::Result<Bytes>>,
}

impl Reading {
    /// Begins the read, or notes its end.
    fn poll(&mut self, context: &mut Context<'_>) {
        if self.outcome.is_none()
            && let Poll::Ready(outcome) = self.future.as_mut().poll(context)
        {
            self.outcome = Some(outcome);
        }
    }
}

/// One file, read through a window.
pub(crate) struct Window<'a, D: Disk> {
    disk: &'a D,
    file: D::File,
    path: PathBuf,
    /// Size of the file when it was opened.
    pub bytes: u64,
    /// One after the other, without a gap; those before the last position asked for are let go.
    chunks: VecDeque<Chunk>,
    /// What follows them.
    ahead: VecDeque<Reading>,
    step_bytes: usize,
}

impl<'a, D: Disk> Window<'a, D> {
    pub async fn open(disk: &'a D, path: &Path) -> Result<Window<'a, D>, LogError> {
        let failed = |error| LogError::io("open", path)(error);
        let file = disk.open(path, OpenMode::Direct).await.map_err(failed)?;
        let bytes = disk.file_bytes(&file).await.map_err(failed)?;
        let path = path.to_owned();
        let (chunks, ahead) = (VecDeque::new(), VecDeque::new());
        Ok(Window { disk, file, path, bytes, chunks, ahead, step_bytes: STEP_BYTES_MIN })
    }

    /// `bytes` from `position`; fewer only at the end of the file.
    pub async fn at(&mut self, position: u64, bytes: usize) -> Result<Bytes, LogError> {
        let end = position.saturating_add(bytes as u64).min(self.bytes);
        if position >= end {
            return Ok(Bytes::new());
        }
        loop {
            while self.chunks.len() > 1 && self.chunks[0].end() <= position {
                self.chunks.pop_front();
            }
            let (Some(first), Some(last)) = (self.chunks.front(), self.chunks.back()) else {
                self.restart(position, end).await?;
                continue;
            };
            let (start, held_to) = (first.start, last.end());
            if position < start || position > held_to {
                self.chunks.clear();
                continue;
            }
            // A file that has become shorter ends before it should.
            let is_at_end = last.bytes.is_empty() || !(last.bytes.len() as u64).is_multiple_of(DISK_BLOCK_BYTES as u64);
            if end <= held_to || is_at_end {
                return Ok(self.held(position, end.min(held_to)));
            }
            self.go_on(held_to).await?;
        }
    }

    /// The bytes of a range that is held. Copied only where it lies across two chunks.
    fn held(&self, position: u64, end: u64) -> Bytes {
        let within = |chunk: &Chunk| {
            let from = position.max(chunk.start) - chunk.start;
            let to = end.min(chunk.end()).saturating_sub(chunk.start);
            chunk.bytes.slice(from.min(to) as usize..to as usize)
        };
        if let Some(chunk) = self.chunks.iter().find(|chunk| chunk.start <= position && end <= chunk.end()) {
            return within(chunk);
        }
        let mut joined = BytesMut::with_capacity(end.saturating_sub(position) as usize);
        for chunk in self.chunks.iter().filter(|chunk| chunk.end() > position && chunk.start < end) {
            joined.extend_from_slice(&within(chunk));
        }
        joined.freeze()
    }

    /// Reads somewhere else than before, from a block's start. A header block is looked at alone: what is wanted next is seldom behind it.
    async fn restart(&mut self, position: u64, end: u64) -> Result<(), LogError> {
        self.ahead.clear();
        self.step_bytes = STEP_BYTES_MIN;
        let start = position - position % DISK_BLOCK_BYTES as u64;
        let least = if start == 0 { DISK_BLOCK_BYTES } else { STEP_BYTES_MIN };
        let wanted = ((end - start) as usize).next_multiple_of(DISK_BLOCK_BYTES).max(least);
        let read = self.disk.read(&self.file, start, wanted).await;
        let bytes = read.map_err(LogError::io("read", &self.path))?;
        self.chunks.push_back(Chunk { start, bytes });
        Ok(())
    }

    /// Takes the next chunk, and keeps reads under way behind it.
    async fn go_on(&mut self, from: u64) -> Result<(), LogError> {
        self.step_bytes = (2 * self.step_bytes).min(STEP_BYTES_MAX);
        let steps = if self.step_bytes == STEP_BYTES_MAX { STEPS_AHEAD } else { 1 };
        while self.ahead.len() < steps {
            let start = self.ahead.back().map_or(from, |last| last.start + last.bytes as u64);
            if start >= self.bytes && !self.ahead.is_empty() {
                break;
            }
            let (disk, file, bytes) = (self.disk.clone(), self.file.clone(), self.step_bytes);
            let future = Box::pin(async move { disk.read(&file, start, bytes).await });
            self.ahead.push_back(Reading { start, bytes, future, outcome: None });
        }
        let ahead = &mut self.ahead;
        let outcome = poll_fn(|context| {
            ahead.iter_mut().for_each(|reading| reading.poll(context));
            ahead[0].outcome.take().map_or(Poll::Pending, Poll::Ready)
        });
        let bytes = outcome.await.map_err(LogError::io("read", &self.path))?;
        let start = self.ahead.pop_front().expect("the one that came").start;
        self.chunks.push_back(Chunk { start, bytes });
        Ok(())
    }
}
