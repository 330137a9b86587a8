//! One partition's log as this core holds it: offsets, segments, leader epochs, and which journal files still owe it. Submits nothing itself.

use super::journal::format::{Checkpoint, EpochStart};
use super::placing::Placing;
use super::segment::tail::ChunkSizes;
use super::segment::{Segment, SegmentFile};
use super::settings::PartitionSettings;
use crate::base::batch::BatchHeader;
use crate::base::ids::{Offset, PartitionId};
use crate::base::time::Nanos;
use crate::ports::Disk;
use std::collections::VecDeque;
use std::path::PathBuf;

/// A byte position in a partition: segments follow each other by base offset.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(crate) struct Place {
    pub segment: Offset,
    pub position: u64,
}

/// An offset together with where it begins, or would begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Mark {
    pub offset: Offset,
    pub place: Place,
}

/// What the partition may be used for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    Open,
    /// Appends wait and nothing is written: records are cut off, or all of it is deleted.
    Closed,
}

/// Recent ends of reads, where the next read of the same consumer starts.
const HINTS: usize = 4;

/// See the module. Invariant: `start_offset <= durable.offset <= end_offset`; the last segment is the active one.
pub(crate) struct PartitionLog<D: Disk> {
    pub id: PartitionId,
    /// Tells this partition from an earlier one in the same slot.
    pub serial: u64,
    pub generation: u32,
    pub dir: PathBuf,
    /// The directory exists.
    pub dir_made: bool,
    pub settings: PartitionSettings,
    pub mode: Mode,
    pub start_offset: Offset,
    pub end_offset: Offset,
    /// End of what the journal holds durably.
    pub durable: Mark,
    /// End of what it has been given.
    pub promised: Mark,
    pub placing: Placing,
    /// Oldest first; never empty.
    pub segments: VecDeque<Segment<D>>,
    /// All segments with a smaller base offset are durable …
    pub clean_before: Offset,
    /// … and closed.
    closed_before: Offset,
    pub epochs: Vec<EpochStart>,
    /// Journal files with bytes that are not durable in a segment: file sequence, end of those bytes.
    pub unflushed: VecDeque<(u32, Place)>,
    /// Journal file of the latest durable checkpoint.
    pub checkpoint_file: Option<u32>,
    /// Checkpoints on their way to the journal.
    pub checkpoints_pending: u32,
    /// The shard is asked for one.
    pub checkpoint_due: bool,
    /// Last commit that has an entry of this partition, and which entry.
    pub commit_id: u64,
    pub commit_entry: u32,
    pub chunks: ChunkSizes,
    /// Tasks that move the start, or delete segments before it.
    pub trimming: u32,
    /// In the writer's queue.
    pub queued: bool,
    /// Write everything up to here, however little.
    pub flush_to: Option<Place>,
    /// When bytes began to wait for a segment; `None` while none do, or were told to hurry.
    pub dirty_since: Option<Nanos>,
    pub hints: [Option<Mark>; HINTS],
    pub next_hint: usize,
}

impl<D: Disk> PartitionLog<D> {
    pub fn new(id: PartitionId, generation: u32, dir: PathBuf, settings: PartitionSettings, start: Offset) -> Self {
        let place = Place { segment: start, position: 0 };
        PartitionLog {
            id,
            serial: 0,
            generation,
            dir,
            dir_made: false,
            settings,
            mode: Mode::Open,
            start_offset: start,
            end_offset: start,
            durable: Mark { offset: start, place },
            promised: Mark { offset: start, place },
            placing: Placing::default(),
            segments: VecDeque::from([Segment::new(start)]),
            clean_before: start,
            closed_before: start,
            epochs: Vec::new(),
            unflushed: VecDeque::new(),
            checkpoint_file: None,
            checkpoints_pending: 0,
            checkpoint_due: false,
            commit_id: u64::MAX,
            commit_entry: 0,
            chunks: ChunkSizes::default(),
            trimming: 0,
            queued: false,
            flush_to: None,
            dirty_since: None,
            hints: [None; HINTS],
            next_hint: 0,
        }
    }

    /// Puts what a directory holds in place of the first, empty segment. All of it is durable.
    pub fn adopt_segments(&mut self, segments: VecDeque<Segment<D>>) {
        self.segments = segments;
        let (base, end) = (self.active().base_offset, self.end_place());
        (self.clean_before, self.closed_before) = (base, base);
        self.durable = Mark { offset: self.end_offset, place: end };
        self.promised = self.durable;
    }

    /// Looks for segments that are not durable, or not closed, from the first one again.
    pub fn reset_clean(&mut self) {
        let first = self.segments[0].base_offset;
        (self.clean_before, self.closed_before) = (first, first);
    }

    /// Forgets leader epochs that ended before `start`; the one in force there then begins there.
    pub fn epochs_after(&mut self, start: Offset) {
        let after = self.epochs.partition_point(|epoch| epoch.start_offset <= start);
        self.epochs.drain(..after.saturating_sub(1));
        if let Some(first) = self.epochs.first_mut() {
            first.start_offset = first.start_offset.max(start);
        }
    }

    pub fn active(&self) -> &Segment<D> {
        self.segments.back().expect("a partition has a segment")
    }

    pub fn active_mut(&mut self) -> &mut Segment<D> {
        self.segments.back_mut().expect("a partition has a segment")
    }

    /// The segment with this base offset.
    pub fn segment_mut(&mut self, base_offset: Offset) -> Option<&mut Segment<D>> {
        let at = self.segments.binary_search_by_key(&base_offset, |segment| segment.base_offset).ok()?;
        self.segments.get_mut(at)
    }

    /// Index of the segment that holds `offset`, or the next record beyond a gap.
    pub fn segment_of(&self, offset: Offset) -> usize {
        let after = self.segments.partition_point(|segment| segment.base_offset <= offset);
        let at = after.saturating_sub(1);
        if offset >= self.segments[at].end_offset && after < self.segments.len() { after } else { at }
    }

    pub fn end_place(&self) -> Place {
        let active = self.active();
        Place { segment: active.base_offset, position: active.bytes }
    }

    /// Takes a batch into the tail; rolls to a new segment first where the active one is full. Returns the memory it took.
    pub fn append(
        &mut self,
        disk: &D,
        batch: (&BatchHeader, &[u8], &[u8]),
        base_offset: Offset,
        leader_epoch: i32,
        now_ms: i64,
    ) -> usize {
        if self.active().is_full(batch.0, base_offset, &self.settings, now_ms) {
            self.roll(base_offset);
        } else if self.active().bytes == 0 && self.active().base_offset != base_offset {
            // Nothing was ever written under the old name.
            self.segments.pop_back();
            self.segments.push_back(Segment::new(base_offset));
        }
        let active = self.segments.back_mut().expect("a partition has a segment");
        active.first_append_ms.get_or_insert(now_ms);
        let taken = active.append(disk, self.id, batch, base_offset, &self.settings, &mut self.chunks);
        self.end_offset = active.end_offset;
        if self.epochs.last().is_none_or(|last| leader_epoch > last.epoch) {
            self.epochs.push(EpochStart { epoch: leader_epoch, start_offset: base_offset });
        }
        taken
    }

    /// Closes the active segment and begins the next one at `base_offset`.
    pub fn roll(&mut self, base_offset: Offset) {
        let active = self.active_mut();
        assert!(base_offset > active.base_offset, "segments have different names");
        active.sealed = true;
        self.segments.push_back(Segment::new(base_offset));
    }

    /// How far the partition is durable in segments, without a gap.
    pub fn synced(&mut self) -> Place {
        let clean = self.clean_before;
        let mut at = self.segments.partition_point(|segment| segment.base_offset < clean);
        while let Some(segment) = self.segments.get(at) {
            if !segment.sealed || segment.synced < segment.bytes {
                return Place { segment: segment.base_offset, position: segment.synced };
            }
            at += 1;
            self.clean_before = self.segments.get(at).map_or(segment.end_offset, |next| next.base_offset);
        }
        self.end_place()
    }

    /// All segments with a smaller base offset are durable and closed for writing.
    pub fn closed_before(&mut self) -> Offset {
        let closed = self.closed_before;
        let from = self.segments.partition_point(|segment| segment.base_offset < closed);
        let open = self.segments.range(from..).find(|segment| !matches!(segment.file, SegmentFile::Closed));
        self.closed_before = open.map_or(closed, |segment| segment.base_offset);
        self.closed_before
    }

    /// A batch boundary at or before `synced`, with its offset; not before what is only in the segments.
    pub fn synced_mark(&mut self) -> Mark {
        let mark = self.indexed_mark();
        self.placing.placed().filter(|placed| placed.offset > mark.offset).unwrap_or(mark)
    }

    fn indexed_mark(&mut self) -> Mark {
        let place = self.synced();
        let at = self.segments.partition_point(|segment| segment.base_offset <= place.segment).saturating_sub(1);
        let segment = &self.segments[at];
        if place.position >= segment.bytes {
            return Mark { offset: segment.end_offset, place };
        }
        let entry = segment.index.as_ref().and_then(|index| index.at_or_before_position(place.position));
        match entry {
            Some(entry) => Mark {
                offset: segment.base_offset + Offset::from(entry.relative_offset),
                place: Place { position: u64::from(entry.position), ..place },
            },
            None => Mark { offset: segment.base_offset, place: Place { position: 0, ..place } },
        }
    }

    /// The name of the partition's directory.
    pub fn dir_name(&self) -> String {
        self.dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// The partition as recovery would need it if nothing more were written.
    pub fn checkpoint(&mut self, producers: &[u8]) -> Checkpoint {
        let mark = self.synced_mark();
        Checkpoint {
            dir: self.dir_name(),
            start_offset: self.start_offset,
            end_offset: self.end_offset,
            segment_end_offset: mark.offset,
            segment_base: mark.place.segment,
            segment_position: mark.place.position,
            epochs: self.epochs.clone(),
            producers: producers.to_vec(),
        }
    }

    /// Remembers where `offset` begins.
    pub fn remember(&mut self, mark: Mark) {
        if !self.hints.contains(&Some(mark)) {
            self.hints[self.next_hint] = Some(mark);
            self.next_hint = (self.next_hint + 1) % HINTS;
        }
    }

    /// Forgets what `remember` was told: offsets may come to mean other bytes.
    pub fn forget_hints(&mut self) {
        self.hints = [None; HINTS];
    }

    /// The place of `offset` if it is the end of the log, of its durable part, or of a recent read.
    pub fn known_place(&self, offset: Offset) -> Option<Place> {
        if offset == self.durable.offset {
            return Some(self.durable.place);
        }
        if offset == self.end_offset {
            return Some(self.end_place());
        }
        self.hints.iter().flatten().find(|mark| mark.offset == offset).map(|mark| mark.place)
    }

    /// How far the segments must be durable soon, however little that is to write.
    pub fn target(&self, retire_through: Option<u32>) -> Option<Place> {
        let owed = self.unflushed.front().filter(|(sequence, _)| Some(*sequence) <= retire_through);
        self.flush_to.max(owed.map(|(_, end)| *end)).max(self.placing.end())
    }

    /// Something before the target is not on its way to its segment.
    pub fn is_forced(&self, retire_through: Option<u32>) -> bool {
        self.target(retire_through).is_some_and(|target| self.first_lacking(|segment| segment.submitted) < target)
    }

    /// How far the segments' files are written without a gap.
    pub fn written(&self) -> Place {
        self.first_lacking(|segment| segment.written)
    }

    fn first_lacking(&self, position: impl Fn(&Segment<D>) -> u64) -> Place {
        let lacking = self.unfinished().find(|segment| !segment.sealed || position(segment) < segment.bytes);
        let segment = lacking.unwrap_or_else(|| self.active());
        Place { segment: segment.base_offset, position: position(segment) }
    }

    fn unfinished(&self) -> impl Iterator<Item = &Segment<D>> {
        let from = self.segments.partition_point(|segment| segment.base_offset < self.clean_before);
        self.segments.range(from..)
    }

    /// How far the segments may be written: what the journal holds durably, and what goes to them first.
    pub fn writable(&self) -> Place {
        self.placing.end().map_or(self.durable.place, |end| end.max(self.durable.place))
    }

    /// How far `segment` may be written.
    fn writable_in(&self, segment: &Segment<D>) -> u64 {
        let writable = self.writable();
        match segment.base_offset.cmp(&writable.segment) {
            std::cmp::Ordering::Less => segment.bytes,
            std::cmp::Ordering::Equal => writable.position,
            std::cmp::Ordering::Greater => 0,
        }
    }

    /// All that may be written is on its way to the segments.
    pub fn is_submitted(&self) -> bool {
        self.unfinished().all(|segment| segment.submitted >= self.writable_in(segment))
    }

    /// … is in the segments' files.
    pub fn is_written(&self) -> bool {
        self.unfinished().all(|segment| segment.written >= self.writable_in(segment))
    }

    /// All that was to be flushed is durable in the segments.
    pub fn is_clean(&mut self) -> bool {
        self.is_written() && self.synced() >= self.flush_to.unwrap_or_default()
    }

    /// Nothing of the partition is on its way to the disk, all of it is durable in the journal, and nobody moves its start.
    pub fn is_quiet(&self) -> bool {
        self.durable.offset == self.end_offset
            && self.checkpoints_pending == 0
            && self.trimming == 0
            && self.segments.iter().all(Segment::is_quiet)
    }
}
