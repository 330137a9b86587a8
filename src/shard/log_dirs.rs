//! What partitions take of the disks, and what is free there.

use super::Shard;
use super::apply::is_metadata;
use super::commands::{Answer, Origin, PartitionSize};
use crate::base::ids::PartitionId;
use crate::ports::Disk;
use std::path::Path;

impl<D: Disk> Shard<D> {
    /// The sizes of these partitions, or of all that this core owns. Those that are not here are left out.
    pub(super) fn partition_sizes(&mut self, origin: Origin, wanted: Option<Vec<PartitionId>>) {
        let wanted = wanted.unwrap_or_else(|| self.by_id.keys().copied().filter(|id| !is_metadata(*id)).collect());
        let sizes = wanted.into_iter().filter_map(|id| self.partition_size(id)).collect();
        self.answer(origin, Answer::PartitionSizes(sizes));
    }

    fn partition_size(&self, partition: PartitionId) -> Option<PartitionSize> {
        let log = self.partitions[self.slot(partition)? as usize].log;
        let dir = self.log.partition_dir(log)?;
        let data_dir = data_dir_of(&dir, &self.settings.data_dirs)?;
        Some(PartitionSize { partition, data_dir, bytes: self.log.partition_bytes(log) })
    }

    /// The data directories with the bytes that are free there, read in the background.
    pub(super) fn disk_space(&self, origin: Origin) {
        let (me, disk, dirs) = (self.me.clone(), self.disk.clone(), self.settings.data_dirs.clone());
        self.disk.spawn(async move {
            let mut space = Vec::with_capacity(dirs.len());
            for dir in dirs {
                let free = disk.free_bytes(&dir).await;
                if let Err(error) = &free {
                    tracing::warn!(dir = %dir.display(), "free space cannot be read: {error}");
                }
                space.push((dir, free.ok()));
            }
            if let Some(shard) = me.upgrade() {
                shard.borrow_mut().answer(origin, Answer::DiskSpace(space));
            }
        });
    }
}

/// Which of the data directories `dir` lies in; where one lies in another, the inner one.
fn data_dir_of(dir: &Path, data_dirs: &[impl AsRef<Path>]) -> Option<usize> {
    let around = data_dirs.iter().enumerate().filter(|(_, data_dir)| dir.starts_with(data_dir));
    around.max_by_key(|(_, data_dir)| data_dir.as_ref().components().count()).map(|(index, _)| index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_lies_in_the_innermost_data_dir() {
        let dirs = ["/data", "/data/fast", "/data-2"];
        for (dir, expected) in [
            ("/data/partitions/t-0", Some(0)),
            ("/data/fast/partitions/t-0", Some(1)),
            ("/data-2/partitions/t-0", Some(2)),
            ("/elsewhere", None),
        ] {
            assert_eq!(data_dir_of(Path::new(dir), &dirs), expected, "{dir}");
        }
    }
}
