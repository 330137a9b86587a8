//! A file read from front to back in large steps, for scans and recovery. Not for serving.

use super::error::LogError;
use crate::ports::{Disk, OpenMode};
use bytes::Bytes;
use std::path::{Path, PathBuf};

const WINDOW_BYTES: usize = 1 << 20;

/// One file, read through a window.
pub(crate) struct Window<'a, D: Disk> {
    disk: &'a D,
    file: D::File,
    path: PathBuf,
    /// Size of the file when it was opened.
    pub bytes: u64,
    start: u64,
    window: Bytes,
}

impl<'a, D: Disk> Window<'a, D> {
    pub async fn open(disk: &'a D, path: &Path) -> Result<Window<'a, D>, LogError> {
        let failed = |error| LogError::io("open", path)(error);
        let file = disk.open(path, OpenMode::ReadBuffered).await.map_err(failed)?;
        let bytes = disk.file_bytes(&file).await.map_err(failed)?;
        Ok(Window { disk, file, path: path.to_owned(), bytes, start: 0, window: Bytes::new() })
    }

    /// `bytes` from `position`; fewer only at the end of the file.
    pub async fn at(&mut self, position: u64, bytes: usize) -> Result<Bytes, LogError> {
        let end = position.saturating_add(bytes as u64).min(self.bytes);
        if position >= end {
            return Ok(Bytes::new());
        }
        if position < self.start || end > self.start + self.window.len() as u64 {
            let read = self.disk.read(&self.file, position, bytes.max(WINDOW_BYTES)).await;
            self.window = read.map_err(LogError::io("read", &self.path))?;
            self.start = position;
        }
        let from = (position - self.start) as usize;
        let to = self.window.len().min(from + bytes);
        Ok(self.window.slice(from.min(to)..to))
    }
}
