//! A file read from front to back, for scans and recovery. Not for serving.
//!
//! Around the page cache: what recovery reads is seldom wanted again, and fresh pages of the cache cost more than the disk does.

use super::error::LogError;
use crate::base::limits::DISK_BLOCK_BYTES;
use crate::ports::{Disk, OpenMode};
use bytes::Bytes;
use std::path::{Path, PathBuf};

/// The first step: enough for the end of a segment, which is all that most partitions are asked for.
const STEP_BYTES_MIN: usize = 64 << 10;
/// Steps double up to this while a file is read on: the largest size that memory is recycled in.
const STEP_BYTES_MAX: usize = 1 << 20;

/// One file, read through a window.
pub(crate) struct Window<'a, D: Disk> {
    disk: &'a D,
    file: D::File,
    path: PathBuf,
    /// Size of the file when it was opened.
    pub bytes: u64,
    start: u64,
    window: Bytes,
    step_bytes: usize,
}

impl<'a, D: Disk> Window<'a, D> {
    pub async fn open(disk: &'a D, path: &Path) -> Result<Window<'a, D>, LogError> {
        let failed = |error| LogError::io("open", path)(error);
        let file = disk.open(path, OpenMode::Direct).await.map_err(failed)?;
        let bytes = disk.file_bytes(&file).await.map_err(failed)?;
        Ok(Window {
            disk,
            file,
            path: path.to_owned(),
            bytes,
            start: 0,
            window: Bytes::new(),
            step_bytes: STEP_BYTES_MIN,
        })
    }

    /// `bytes` from `position`; fewer only at the end of the file.
    pub async fn at(&mut self, position: u64, bytes: usize) -> Result<Bytes, LogError> {
        let end = position.saturating_add(bytes as u64).min(self.bytes);
        if position >= end {
            return Ok(Bytes::new());
        }
        if position < self.start || end > self.start + self.window.len() as u64 {
            let goes_on = (self.start..=self.start + self.window.len() as u64).contains(&position) && position > 0;
            self.step_bytes = if goes_on { (2 * self.step_bytes).min(STEP_BYTES_MAX) } else { STEP_BYTES_MIN };
            // From a block's start, so that the step is a size that memory is recycled in.
            let start = position / DISK_BLOCK_BYTES as u64 * DISK_BLOCK_BYTES as u64;
            let wanted = (end - start) as usize;
            let read = self.disk.read(&self.file, start, wanted.max(self.step_bytes)).await;
            self.window = read.map_err(LogError::io("read", &self.path))?;
            self.start = start;
        }
        let from = (position - self.start) as usize;
        let to = self.window.len().min(from + bytes);
        Ok(self.window.slice(from.min(to)..to))
    }
}
