//! Files that a start finds and nobody needs: of deleted topics, and journals of cores that are no more. Looks where partitions lie, and
//! decides what goes; what is damaged, or may be what is left of somebody's data, stays.

use super::Shard;
use super::ShardSettings;
use super::apply::is_metadata;
use super::startup::{StartFailure, io};
use crate::base::ids::PartitionId;
use crate::cluster::image::Image;
use crate::log::{discard, parse_partition_dir_name, remove_leftovers};
use crate::ports::Disk;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// The directories of partitions, as they were before anything was recovered.
#[derive(Debug, Default)]
pub(super) struct PartitionDirs(HashMap<PartitionId, Vec<PathBuf>>);

impl PartitionDirs {
    pub fn add(&mut self, found: Vec<(PartitionId, PathBuf)>) {
        for (id, dir) in found {
            self.0.entry(id).or_default().push(dir);
        }
    }

    /// The folder of partitions that holds this one's directory, `near` where there are several, or none yet.
    pub fn home(&self, id: PartitionId, near: &Path) -> PathBuf {
        let dirs = self.0.get(&id).map_or(&[][..], Vec::as_slice);
        let mut homes = dirs.iter().filter_map(|dir| dir.parent());
        let first = homes.next();
        let is_near = first == Some(near) || homes.any(|home| home == near);
        first.filter(|_| !is_near).unwrap_or(near).to_owned()
    }

    /// Directories of partitions that the image does not know and `is_live` neither.
    pub fn orphans(&self, image: &Image, is_live: impl Fn(PartitionId) -> bool) -> Vec<PathBuf> {
        let orphans =
            self.0.iter().filter(|(id, _)| !is_metadata(**id) && image.partition(**id).is_none() && !is_live(**id));
        orphans.flat_map(|(_, dirs)| dirs.iter().cloned()).collect()
    }
}

/// Data directories whose files this core looks after: the cores share them, and there may be more directories than cores.
pub(super) fn own_data_dirs(settings: &ShardSettings) -> impl Iterator<Item = &PathBuf> {
    let (core, cores) = (usize::from(settings.core.0), usize::from(settings.core_count));
    settings.data_dirs.iter().enumerate().filter(move |(index, _)| index % cores == core).map(|(_, dir)| dir)
}

/// The directories of partitions in this core's share of the data directories.
pub(super) async fn list_partition_dirs<D: Disk>(
    disk: &D,
    settings: &ShardSettings,
) -> Result<Vec<(PartitionId, PathBuf)>, StartFailure> {
    let mut found = Vec::new();
    for data_dir in own_data_dirs(settings) {
        let partitions = data_dir.join("partitions");
        for name in disk.list(&partitions).await.map_err(io)? {
            let Some(name) = name.file_name().and_then(|name| name.to_str()) else { continue };
            if let Some((_, id)) = parse_partition_dir_name(name) {
                found.push((id, partitions.join(name)));
            }
        }
    }
    Ok(found)
}

impl<D: Disk> Shard<D> {
    /// Unlinks in the background what an earlier process had deleted and not yet unlinked, and then `discarded`: directories that
    /// nobody needs any more.
    pub(super) fn remove_leftovers(&self, discarded: Vec<PathBuf>) {
        let disk = self.disk.clone();
        let own = own_data_dirs(&self.settings);
        let dirs: Vec<PathBuf> = own.flat_map(|dir| [dir.join("partitions"), dir.join("journal")]).collect();
        self.disk.spawn(async move {
            for dir in dirs {
                if let Err(error) = remove_leftovers(&disk, &dir).await {
                    tracing::warn!("deleted files are left behind: {error}");
                }
            }
            for dir in discarded {
                match discard(&disk, &dir).await {
                    Ok(()) => tracing::info!(dir = %dir.display(), "removed: it belongs to nobody any more"),
                    Err(error) => tracing::warn!("a directory that belongs to nobody is left behind: {error}"),
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::TopicId;

    #[test]
    fn a_partition_is_at_home_where_its_directory_is() {
        let id = |index| PartitionId { topic: TopicId([7; 16]), index };
        let mut dirs = PartitionDirs::default();
        let dir = |disk: &str, index: i32| (id(index), PathBuf::from(format!("/{disk}/partitions/t-{index}")));
        dirs.add(vec![dir("a", 0), dir("b", 1), dir("a", 2)]);
        dirs.add(vec![dir("b", 2)]);
        for (index, near, expected) in
            [(0, "a", "a"), (0, "b", "a"), (1, "a", "b"), (2, "a", "a"), (2, "b", "b"), (3, "b", "b")]
        {
            let near = PathBuf::from(format!("/{near}/partitions"));
            assert_eq!(dirs.home(id(index), &near), PathBuf::from(format!("/{expected}/partitions")), "{index}");
        }
    }
}
