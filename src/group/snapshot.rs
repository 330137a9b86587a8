//! The durable state of a partition's groups as records again, slice by slice: with them its log can be begun anew.
//!
//! Whoever asks appends each slice before anything else happens to the groups. Replay goes by keys and the last record of a key
//! wins, so records that others append between two slices do no harm. Reads the groups only.

use std::sync::Arc;

use super::classic::Group;
use super::records::{self, Record};

/// Where the next slice of a snapshot begins.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SnapshotCursor {
    pub(super) group: Arc<str>,
    /// `None`: with the group's own record, which comes before its offsets.
    pub(super) offset: Option<(String, i32)>,
}

/// Records that fit one turn, and where to go on. `None`: that was all.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SnapshotSlice {
    pub records: Vec<Record>,
    pub next: Option<SnapshotCursor>,
}

/// What one slice may take.
#[derive(Clone, Copy, Debug)]
pub struct SliceLimit {
    /// Of keys and values; a single record may be larger.
    pub bytes: usize,
    /// Keys looked at, whether they have a record or not; at least 1.
    pub keys: usize,
}

/// A slice while it fills.
pub(super) struct Filling {
    records: Vec<Record>,
    left: SliceLimit,
}

impl Filling {
    pub fn new(limit: SliceLimit) -> Filling {
        assert!(limit.keys > 0);
        Filling { records: Vec::new(), left: limit }
    }

    pub fn end(self, next: Option<SnapshotCursor>) -> SnapshotSlice {
        SnapshotSlice { records: self.records, next }
    }

    /// Takes in the group's records from `from` on. Returns where it stopped if they are too many.
    pub fn take(&mut self, group: &Group, from: Option<&(String, i32)>) -> Option<SnapshotCursor> {
        let stopped = |offset| Some(SnapshotCursor { group: group.id.clone(), offset });
        if from.is_none() && !self.add(group.durable_metadata()) {
            return stopped(None);
        }
        for (topic, partition, committed) in group.offsets.iter_settled(from) {
            let record = committed.map(|committed| Record {
                key: records::offset_key(&group.id, topic, partition),
                value: Some(records::offset_value(committed)),
            });
            if !self.add(record) {
                return stopped(Some((topic.to_owned(), partition)));
            }
        }
        None
    }

    /// False: no room.
    fn add(&mut self, record: Option<Record>) -> bool {
        let bytes = record.as_ref().map_or(0, Record::bytes);
        if self.left.keys == 0 || bytes > self.left.bytes && !self.records.is_empty() {
            return false;
        }
        self.left.keys -= 1;
        self.left.bytes = self.left.bytes.saturating_sub(bytes);
        self.records.extend(record);
        true
    }
}

impl Group {
    /// The group's own record; `None` where it has none, or a newer one is on its way to the log.
    fn durable_metadata(&self) -> Option<Record> {
        let value = self.stored.as_ref().filter(|_| self.metadata_in_flight == 0)?;
        Some(Record { key: records::group_key(&self.id), value: Some(value.clone()) })
    }
}
