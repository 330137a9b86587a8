//! Large batches are not written twice: they go to their segments first, and the journal learns of them when they are durable there.
//!
//! What is appended to a partition in this way until the end of a turn is a **stretch**. The writer has it written and synced like any other
//! bytes, only at once; then a checkpoint of the partition, as it was at the stretch's end, goes into the journal, and its commit makes the
//! stretch durable. So the journal never names bytes that a crash could have taken, and recovery knows nothing of stretches: what lies behind
//! the last checkpoint in a segment and is in no journal record was never acknowledged, and is cut off. While a partition has a stretch on its
//! way, whatever is appended to it goes the same way, since a record behind the stretch would stand in the journal before it; it gathers until
//! that one is durable, as commits of the journal do.

use super::LogIndex;
use super::core::{CoreLog, State};
use super::error::Refused;
use super::journal::commit::Commits;
use super::journal::format::{Checkpoint, EpochStart, Kind};
use super::partition::{Mark, PartitionLog, Place};
use super::settings::LogSettings;
use super::writer::Writer;
use crate::base::ids::Offset;
use crate::ports::Disk;
use std::collections::{BTreeSet, VecDeque};

/// A partition whose producers' state takes much room writes it with every stretch: one is begun only for a batch that is so many times larger.
const BATCH_PER_PRODUCERS: usize = 8;

/// What was appended to a partition, on its way to the segments.
struct Stretch {
    number: u64,
    end: Mark,
    bytes: u64,
    /// As they were at `end`.
    epochs: Vec<EpochStart>,
    producers: Vec<u8>,
}

/// A stretch that is still appended to.
#[derive(Clone, Copy)]
struct Open {
    number: u64,
    bytes: u64,
}

/// One partition's stretches.
#[derive(Default)]
pub(crate) struct Placing {
    open: Option<Open>,
    /// Oldest first.
    closed: VecDeque<Stretch>,
    /// End of the last one that the journal was told of.
    placed: Option<Mark>,
    /// Bytes of the producers' state when it was last written.
    producers_bytes: usize,
}

impl Placing {
    /// Something is on its way, and whatever is appended goes the same way.
    pub fn is_busy(&self) -> bool {
        self.open.is_some() || !self.closed.is_empty()
    }

    /// How far the segments are to be written, beyond what the journal knows.
    pub fn end(&self) -> Option<Place> {
        self.closed.back().map(|stretch| stretch.end.place)
    }

    /// How far they must be durable for the next checkpoint.
    pub fn next_end(&self) -> Option<Place> {
        self.closed.front().map(|stretch| stretch.end.place)
    }

    /// All before this is durable in the segments, and perhaps nowhere else: recovery must not begin to repair them before it.
    pub fn placed(&self) -> Option<Mark> {
        self.placed
    }

    /// The partition was cut at `end`.
    pub fn cut(&mut self, end: Mark) {
        self.placed = self.placed.map(|placed| if placed.offset > end.offset { end } else { placed });
    }

    /// How many stretches are durable in the segments.
    fn durable(&self, synced: Place) -> usize {
        self.closed.iter().take_while(|stretch| stretch.end.place <= synced).count()
    }

    /// The partition's state was written, and took so much.
    pub fn note_producers(&mut self, bytes: usize) {
        self.producers_bytes = bytes;
    }
}

/// All stretches of a core.
pub(crate) struct Placements {
    /// A batch of this size begins a stretch …
    batch_bytes_min: usize,
    /// … where so many bytes are on their way already.
    load_bytes_min: u64,
    /// Bytes that may be on their way before appends are refused.
    bytes_max: u64,
    bytes: u64,
    next_number: u64,
    /// Numbers of the stretches that no commit has yet.
    outstanding: BTreeSet<u64>,
    /// Partitions with an open stretch.
    open: Vec<LogIndex>,
    /// Partitions whose checkpoint found no room in the journal.
    stalled: Vec<LogIndex>,
}

impl Placements {
    pub fn new(settings: &LogSettings) -> Placements {
        Placements {
            batch_bytes_min: settings.large_batch_bytes,
            load_bytes_min: 2 * settings.large_batch_bytes as u64,
            bytes_max: settings.placing_bytes_max,
            bytes: 0,
            next_number: 0,
            outstanding: BTreeSet::new(),
            open: Vec::new(),
            stalled: Vec::new(),
        }
    }

    /// Whether a batch of this size is to go to the segments of `partition` first.
    pub fn takes<D: Disk>(
        &self,
        partition: &PartitionLog<D>,
        batch_bytes: usize,
        commits: &Commits<D>,
        writer: &Writer<D>,
    ) -> bool {
        if partition.placing.is_busy() {
            return true;
        }
        if batch_bytes < self.batch_bytes_min {
            return false;
        }
        // Who waits for one answer after the other has it sooner from the journal.
        let is_loaded = commits.waiting_bytes() as u64 + self.bytes >= self.load_bytes_min;
        // A crash must find the partition in the journal, or nobody would look at what is left of it in segments.
        let is_known = partition.checkpoint_file.is_some();
        let is_worth_it = batch_bytes >= partition.placing.producers_bytes.saturating_mul(BATCH_PER_PRODUCERS);
        // Hundreds of files are better synced together, for which nobody should wait; a full disk may still have room in the journal.
        is_loaded && is_known && is_worth_it && !writer.is_crowded() && !writer.disk_full
    }

    /// Whether more may be on its way.
    pub fn admit<D: Disk>(&self, writer: &Writer<D>) -> Result<(), Refused> {
        if self.bytes < self.bytes_max {
            return Ok(());
        }
        Err(if writer.disk_full { Refused::DiskFull } else { Refused::Backlog })
    }

    /// A batch was appended to the tail of `partition`, and not to the journal.
    pub fn add<D: Disk>(&mut self, log: LogIndex, partition: &mut PartitionLog<D>, bytes: u64) {
        self.bytes += bytes;
        let open = partition.placing.open.get_or_insert_with(|| {
            self.open.push(log);
            self.outstanding.insert(self.next_number);
            self.next_number += 1;
            Open { number: self.next_number - 1, bytes: 0 }
        });
        open.bytes += bytes;
    }

    /// The next stretch's number.
    pub fn next_number(&self) -> u64 {
        self.next_number
    }

    /// Whether commits have all stretches before this number.
    pub fn are_committed(&self, before: u64) -> bool {
        self.outstanding.first().is_none_or(|first| *first >= before)
    }
}

impl<D: Disk> State<D> {
    /// Ends the stretches of this turn. `producers` is the shard's state of a partition as it is now, and ends at the offset given.
    pub fn close_stretches(&mut self, mut producers: impl FnMut(LogIndex, Offset) -> Vec<u8>) {
        for log in std::mem::take(&mut self.placements.open) {
            // Behind one that is on its way they gather: fewer and longer ones take fewer syncs.
            if self.log(log).is_some_and(|partition| !partition.placing.closed.is_empty()) {
                self.placements.open.push(log);
                continue;
            }
            self.close_stretch(log, |end_offset| producers(log, end_offset));
        }
    }

    fn close_stretch(&mut self, log: LogIndex, producers: impl FnOnce(Offset) -> Vec<u8>) {
        let State { slots, writer, .. } = self;
        let Some(partition) = slots.get_mut(log.0 as usize).and_then(Option::as_mut) else { return };
        let Some(Open { number, bytes }) = partition.placing.open.take() else { return };
        let end = Mark { offset: partition.end_offset, place: partition.end_place() };
        let (epochs, producers) = (partition.epochs.clone(), producers(end.offset));
        partition.placing.note_producers(producers.len());
        partition.placing.closed.push_back(Stretch { number, end, bytes, epochs, producers });
        writer.enqueue(log, partition);
    }

    /// Tries those once more for whose checkpoint there was no room.
    pub fn retry_stalled(&mut self) {
        for log in std::mem::take(&mut self.placements.stalled) {
            self.commit_stretches(log);
        }
    }

    /// Puts a checkpoint of the partition into the open commit where stretches of it are durable in the segments.
    pub fn commit_stretches(&mut self, log: LogIndex) {
        let partition = self.log_mut(log).filter(|partition| partition.placing.is_busy());
        let Some(partition) = partition else { return };
        let synced = partition.synced();
        let count = partition.placing.durable(synced);
        let Some(last) = count.checked_sub(1).map(|last| &partition.placing.closed[last]) else { return };
        let end = last.end;
        let checkpoint = Checkpoint {
            dir: partition.dir_name(),
            start_offset: partition.start_offset,
            end_offset: end.offset,
            segment_end_offset: end.offset,
            segment_base: end.place.segment,
            segment_position: end.place.position,
            epochs: last.epochs.clone(),
            producers: last.producers.clone(),
        };
        let bytes = partition.placing.closed.iter().take(count).map(|stretch| stretch.bytes).sum();
        if self.push_control(log, Kind::Checkpoint, end.offset, &checkpoint.encode(), Some((end, bytes))).is_err() {
            if !self.placements.stalled.contains(&log) {
                self.placements.stalled.push(log);
            }
            return;
        }
        let State { placements, slots, .. } = self;
        let partition = slots[log.0 as usize].as_mut().expect("it was just found");
        partition.placing.placed = Some(end);
        for stretch in partition.placing.closed.drain(..count) {
            placements.outstanding.remove(&stretch.number);
        }
        placements.bytes -= bytes;
    }
}

impl<D: Disk> CoreLog<D> {
    /// Ends what this turn appended of large batches, for a partition whose state the shard is about to forget. `producers` is that state, and is
    /// asked for where there are any.
    pub fn close_stretch(&self, log: LogIndex, producers: impl FnOnce(Offset) -> Vec<u8>) {
        self.0.state.borrow_mut().close_stretch(log, producers);
    }
}
