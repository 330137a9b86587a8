//! Gets rid of files: renamed first, unlinked later and in small steps, because freeing gigabytes at once holds up commits.

use super::core::{CoreLog, State};
use super::error::LogError;
use super::journal::format::Kind;
use super::{LogIndex, dir};
use crate::base::ids::Offset;
use crate::base::time::Nanos;
use crate::ports::{Disk, OpenMode};
use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};

/// A file gives back this much at a time. On a filesystem that discards what is freed, commits wait for each step: 16 ms for 64 MiB, 2.6 for this.
const STEP_BYTES: u64 = 8 << 20;

/// What waits to be unlinked: files, or whole directories.
#[derive(Default)]
pub(crate) struct Deletions {
    waiting: VecDeque<(Nanos, PathBuf)>,
    running: bool,
}

impl Deletions {
    /// Keeps them in the order in which they are due: delays differ by topic.
    pub fn add(&mut self, due: Nanos, path: PathBuf) {
        let place = self.waiting.partition_point(|(other, _)| *other <= due);
        self.waiting.insert(place, (due, path));
    }
}

/// The files of one segment; the index goes first, so that a segment is never without its own.
pub(crate) fn segment_files(dir: &Path, base: Offset) -> [PathBuf; 2] {
    [dir::index_path(dir, base), dir::segment_path(dir, base)]
}

pub(crate) async fn remove_if_there<D: Disk>(disk: &D, path: &Path) -> Result<(), LogError> {
    match disk.remove_file(path).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(LogError::io("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Renames `path` to its name among the deleted; `None` where it does not exist. `mark` tells it from others that had the same name.
pub(crate) async fn rename_deleted<D: Disk>(disk: &D, path: &Path, mark: u64) -> Result<Option<PathBuf>, LogError> {
    let deleted = dir::deleted_path(path, mark);
    match disk.rename(path, &deleted).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        renamed => renamed.map(|()| Some(deleted)).map_err(LogError::io("rename", path)),
    }
}

impl<D: Disk> CoreLog<D> {
    /// Deletes a partition: durably forgotten when this returns, its files unlinked later. Appends are refused meanwhile; reads that were
    /// begun go on.
    ///
    /// # Errors
    /// The core has failed; the disk does not answer.
    pub async fn drop_partition(&self, log: LogIndex) -> Result<(), LogError> {
        let serial = self.quiesce(log).await?;
        self.when_possible(|state| state.append_control(log, Kind::Drop, 0, &[])).await?;
        self.until_durable().await?;
        let (path, dir_made, delay_ms) = {
            let mut state = self.0.state.borrow_mut();
            let Some(partition) = state.log_of(log, serial) else { return Ok(()) };
            let found = (partition.dir.clone(), partition.dir_made, partition.settings.delete_delay_ms);
            state.remove(log);
            found
        };
        if dir_made {
            let deleted = rename_deleted(&self.0.disk, &path, serial).await?;
            if let Some(parent) = path.parent() {
                self.0.disk.sync_dir(parent).await.map_err(LogError::io("sync", parent))?;
            }
            deleted.into_iter().for_each(|path| self.delete_later(path, delay_ms));
        }
        Ok(())
    }

    /// Unlinks a file or directory after `delay_ms`.
    pub(crate) fn delete_later(&self, path: PathBuf, delay_ms: u64) {
        let mut state = self.0.state.borrow_mut();
        let due = state.now.mono.plus_ms(delay_ms);
        state.deletions.add(due, path);
    }

    /// Starts unlinking what is due, one after the other.
    pub(crate) fn unlink_due(&self, state: &mut State<D>) {
        let now = state.now.mono;
        let Deletions { waiting, running } = &mut state.deletions;
        if *running || waiting.front().is_none_or(|(due, _)| *due > now) {
            return;
        }
        let Some((_, path)) = waiting.pop_front() else { return };
        *running = true;
        let log = self.clone();
        state.disk.spawn(async move {
            // What cannot be unlinked now is found by `remove_leftovers` at the next start.
            let _ = unlink(&log.0.disk, &path).await;
            log.0.state.borrow_mut().deletions.running = false;
            log.0.signal.notify();
        });
    }
}

impl<D: Disk> State<D> {
    /// Forgets a partition, and what the journal's files keep for it.
    pub fn remove(&mut self, log: LogIndex) {
        let State { slots, ring, writer, by_id, free_slots, dropped, commits, counters, .. } = self;
        let Some(partition) = slots[log.0 as usize].take() else { return };
        for (sequence, _) in &partition.unflushed {
            if let Some(file) = ring.live_mut(*sequence) {
                file.unflushed -= 1;
            }
        }
        if let Some(file) = partition.checkpoint_file.and_then(|sequence| ring.live_mut(sequence)) {
            file.checkpoints -= 1;
        }
        for segment in &partition.segments {
            writer.forget(segment);
        }
        by_id.remove(&partition.id);
        dropped.insert(partition.id, partition.generation);
        free_slots.push(log.0);
        ring.free_oldest(commits.oldest_pending_file(), &mut counters.journal);
    }
}

/// Unlinks a file, or a directory with the files in it. Somebody else may do the same.
async fn unlink<D: Disk>(disk: &D, path: &Path) -> io::Result<()> {
    // A directory cannot be opened for writing.
    if unlink_file(disk, path).await.is_ok() {
        return Ok(());
    }
    for name in disk.list(path).await? {
        let file = path.join(name.file_name().unwrap_or_default());
        if_there(unlink_file(disk, &file).await)?;
    }
    if_there(disk.remove_dir(path).await)
}

fn if_there(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

async fn unlink_file<D: Disk>(disk: &D, path: &Path) -> io::Result<()> {
    let file = disk.open(path, OpenMode::Direct).await?;
    let mut bytes = disk.file_bytes(&file).await?;
    while bytes > STEP_BYTES {
        bytes -= STEP_BYTES;
        disk.set_file_bytes(&file, bytes).await?;
        // The sync lets go of the blocks now, and everyone else in between.
        disk.sync(&file).await?;
    }
    disk.remove_file(path).await
}

/// Gets rid of a directory with the files in it: of one that is only partly unlinked nothing is found again by its name.
///
/// # Errors
/// The disk does not answer.
pub async fn discard<D: Disk>(disk: &D, path: &Path) -> Result<(), LogError> {
    // Serials of this process begin at 1.
    let Some(deleted) = rename_deleted(disk, path, 0).await? else { return Ok(()) };
    if let Some(parent) = path.parent() {
        disk.sync_dir(parent).await.map_err(LogError::io("sync", parent))?;
    }
    unlink(disk, &deleted).await.map_err(LogError::io("remove", &deleted))
}

/// Unlinks what earlier processes had renamed and not unlinked: directories in `data_dir`, and files in those of partitions.
///
/// # Errors
/// The disk does not answer.
pub async fn remove_leftovers<D: Disk>(disk: &D, data_dir: &Path) -> Result<(), LogError> {
    for name in disk.list(data_dir).await.map_err(LogError::io("list", data_dir))? {
        let path = data_dir.join(name.file_name().unwrap_or_default());
        if dir::is_deleted_name(&path) {
            unlink(disk, &path).await.map_err(LogError::io("remove", &path))?;
            continue;
        }
        for inner in disk.list(&path).await.unwrap_or_default() {
            let inner = path.join(inner.file_name().unwrap_or_default());
            if dir::is_deleted_name(&inner) {
                if_there(unlink_file(disk, &inner).await).map_err(LogError::io("remove", &inner))?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_first_goes_first_and_equals_in_their_order() {
        let mut deletions = Deletions::default();
        for (due, name) in [(60, "a"), (5, "b"), (60, "c"), (7, "d")] {
            deletions.add(Nanos(due), PathBuf::from(name));
        }
        let order: Vec<&str> = deletions.waiting.iter().map(|(_, path)| path.to_str().unwrap()).collect();
        assert_eq!(order, ["b", "d", "a", "c"]);
    }
}
