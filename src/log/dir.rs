//! Names of directories and files. Touches no disk.

use crate::base::ids::{Offset, PartitionId, TopicId};
use std::path::{Path, PathBuf};

/// Bytes of a topic's name that its directories bear. File systems allow 255 for a name; index and id need 34.
const TOPIC_BYTES_MAX: usize = 200;
const TOPIC_ID_BYTES: usize = 22;

/// Name of a partition's directory: `<topic>-<index>-<topic id>`. The id alone decides; the rest is for people.
pub fn partition_dir_name(topic: &str, id: PartitionId) -> String {
    let mut cut = topic.len().min(TOPIC_BYTES_MAX);
    while !topic.is_char_boundary(cut) {
        cut -= 1;
    }
    format!("{}-{}-{}", &topic[..cut], id.index, id.topic)
}

/// Reads a partition's directory name: the topic's name (perhaps cut) and the partition.
pub fn parse_partition_dir_name(name: &str) -> Option<(&str, PartitionId)> {
    // The id's own alphabet has a '-', so it is taken by length.
    let split = name.len().checked_sub(TOPIC_ID_BYTES)?;
    let topic_id = TopicId::parse(name.get(split..)?)?;
    let (topic, index) = name[..split].strip_suffix('-')?.rsplit_once('-')?;
    let index: i32 = index.parse().ok().filter(|index| *index >= 0)?;
    (!topic.is_empty()).then_some((topic, PartitionId { topic: topic_id, index }))
}

/// Whether `name` is a name that this partition's directory can have, and not a path to somewhere else.
pub(crate) fn is_partition_dir(name: &str, id: PartitionId) -> bool {
    !name.contains('/') && parse_partition_dir_name(name).is_some_and(|(_, named)| named == id)
}

pub const SEGMENT_SUFFIX: &str = ".log";
pub const INDEX_SUFFIX: &str = ".index";
/// Ends the name of a file or directory that is only waiting to be unlinked.
const DELETED_SUFFIX: &str = ".deleted";

pub(crate) fn deleted_path(path: &Path, mark: u64) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{mark}{DELETED_SUFFIX}"));
    PathBuf::from(name)
}

pub(crate) fn is_deleted_name(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.ends_with(DELETED_SUFFIX))
}

pub(crate) fn segment_path(dir: &Path, base_offset: Offset) -> PathBuf {
    dir.join(format!("{base_offset:020}{SEGMENT_SUFFIX}"))
}

pub(crate) fn index_path(dir: &Path, base_offset: Offset) -> PathBuf {
    dir.join(format!("{base_offset:020}{INDEX_SUFFIX}"))
}

/// The base offset in a segment's file name.
pub(crate) fn parse_segment_name(path: &Path) -> Option<Offset> {
    let digits = path.file_name()?.to_str()?.strip_suffix(SEGMENT_SUFFIX)?;
    if digits.len() != 20 {
        return None;
    }
    digits.parse().ok().filter(|offset| *offset >= 0)
}

pub(crate) fn journal_path(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("journal-{number}"))
}

pub(crate) fn parse_journal_name(path: &Path) -> Option<u32> {
    // Behind the last number there is none for a next file.
    path.file_name()?.to_str()?.strip_prefix("journal-")?.parse().ok().filter(|number| *number < u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> PartitionId {
        PartitionId { topic: TopicId([0xfb; 16]), index: 12 }
    }

    #[test]
    fn a_directory_name_reads_back() {
        for topic in ["orders", "a-b-3", "x", "..dots.and_underscores-"] {
            let name = partition_dir_name(topic, id());
            assert_eq!(parse_partition_dir_name(&name), Some((topic, id())), "{name}");
        }
    }

    #[test]
    fn a_partition_has_its_own_directory() {
        let other = PartitionId { index: 13, ..id() };
        let name = partition_dir_name("orders", id());
        assert!(is_partition_dir(&name, id()));
        assert!(!is_partition_dir(&name, other));
        assert!(!is_partition_dir(&format!("../{name}"), id()));
        assert!(!is_partition_dir(&format!("/{name}"), id()));
        assert!(!is_partition_dir("", id()));
    }

    #[test]
    fn a_long_topic_is_cut_to_what_a_file_system_takes() {
        let topic = "t".repeat(249);
        let name = partition_dir_name(&topic, PartitionId { topic: TopicId::METADATA, index: i32::MAX });
        assert!(name.len() <= 255);
        assert_eq!(parse_partition_dir_name(&name).map(|(topic, _)| topic.len()), Some(TOPIC_BYTES_MAX));
    }

    #[test]
    fn other_names_are_none() {
        for name in ["", "orders", "orders-0", "-0-AAAAAAAAAAAAAAAAAAAAAQ", "o-x-AAAAAAAAAAAAAAAAAAAAAQ", "lost+found"]
        {
            assert_eq!(parse_partition_dir_name(name), None, "{name}");
        }
        let deleted = format!("{}.deleted", partition_dir_name("orders", id()));
        assert_eq!(parse_partition_dir_name(&deleted), None);
    }

    #[test]
    fn segment_and_journal_names_read_back() {
        let dir = Path::new("/d");
        assert_eq!(parse_segment_name(&segment_path(dir, 42)), Some(42));
        assert_eq!(parse_segment_name(&deleted_path(&segment_path(dir, 42), 1)), None);
        assert!(is_deleted_name(&deleted_path(&index_path(dir, 1), 2)));
        assert_eq!(parse_segment_name(Path::new("/d/42.log")), None);
        assert_eq!(parse_journal_name(&journal_path(dir, 7)), Some(7));
    }
}
