//! Reads: whole batches as views of memory or as ranges of files, found through the sparse index. Copies nothing, waits for nothing.

use super::LogIndex;
use super::core::{CoreLog, State};
use super::error::ReadError;
use super::partition::{Mark, PartitionLog, Place};
use super::segment::Segment;
use super::segment::format::FIRST_BATCH_AT;
use crate::base::batch::{BatchHeader, HEADER_BYTES};
use crate::base::ids::Offset;
use crate::base::limits::DISK_BLOCK_BYTES;
use crate::ports::{Disk, Piece};

/// Whole batches, in order. The first may begin before the offset asked for; clients skip what they did not ask for.
#[derive(Clone, Debug)]
pub struct Read<F> {
    pub pieces: Vec<Piece<F>>,
    /// Sum over the pieces.
    pub bytes: u64,
}

impl<F> Read<F> {
    fn empty() -> Read<F> {
        Read { pieces: Vec::new(), bytes: 0 }
    }
}

/// A range of one segment, at batch boundaries.
#[derive(Clone, Copy)]
struct Range {
    from: u64,
    to: u64,
}

impl<D: Disk> CoreLog<D> {
    /// Batches from `offset` on, at most `max_bytes` of them and none that reaches beyond `limit_offset`.
    ///
    /// `at_least_one`: the first batch comes whole even if it is larger than `max_bytes`. Never crosses a segment; an empty answer
    /// means there is nothing yet, or nothing that fits. What is not in memory is taken in steps of the index, so it may begin up to
    /// `index.interval.bytes` early and end as much before `max_bytes`.
    ///
    /// # Errors
    /// `OutOfRange`; `NotLoaded` where `load` has to be awaited first.
    pub fn read(
        &self,
        log: LogIndex,
        offset: Offset,
        max_bytes: usize,
        limit_offset: Offset,
        at_least_one: bool,
    ) -> Result<Read<D::File>, ReadError> {
        let mut state = self.0.state.borrow_mut();
        let State { slots, counters, now, .. } = &mut *state;
        let partition = slots.get_mut(log.0 as usize).and_then(Option::as_mut).ok_or(ReadError::Unavailable)?;
        let (start, end) = (partition.start_offset, partition.end_offset);
        if offset < start || offset > end {
            return Err(ReadError::OutOfRange { start, end });
        }
        let limit = limit_offset.min(end);
        if offset >= limit {
            return Ok(Read::empty());
        }
        let at = partition.segment_of(offset);
        partition.segments[at].last_read = now.mono.0;
        let Some(range) = find_range(partition, at, offset, max_bytes as u64, limit, at_least_one)? else {
            return Ok(Read::empty());
        };
        let segment = &partition.segments[at];
        let read = pieces(segment, range)?;
        match read.pieces[0] {
            Piece::Memory(_) => counters.segments.reads_memory += 1,
            Piece::File { .. } => counters.segments.reads_file += 1,
        }
        Ok(read)
    }
}

/// The bytes of the segment that answer a read; `None` where no whole batch fits.
fn find_range<D: Disk>(
    partition: &mut PartitionLog<D>,
    at: usize,
    offset: Offset,
    max_bytes: u64,
    limit: Offset,
    at_least_one: bool,
) -> Result<Option<Range>, ReadError> {
    let segment = &partition.segments[at];
    let from = start_of(partition, segment, offset)?;
    let (limit_offset, limit_at, is_exact) = limit_of(partition, segment, limit)?;
    // Without its index a segment's size is only what its file says, which may be too short.
    if limit_at <= from && (!is_exact || segment.index.is_none()) {
        return Err(ReadError::NotLoaded);
    }
    let target = from.saturating_add(max_bytes);
    let mut end = Mark { offset: limit_offset, place: Place { segment: segment.base_offset, position: limit_at } };
    if target < limit_at {
        end = end_before(segment, from, target)?;
        if end.place.position <= from {
            if !at_least_one {
                return Ok(None);
            }
            end = first_end(segment, from, end)?;
        }
    }
    let to = end.place.position.min(limit_at);
    if to <= from {
        return Ok(None);
    }
    if to == end.place.position && end.offset >= 0 {
        partition.remember(end);
    }
    Ok(Some(Range { from, to }))
}

/// Where the batch that holds `offset` begins, or an indexed one shortly before it.
fn start_of<D: Disk>(partition: &PartitionLog<D>, segment: &Segment<D>, offset: Offset) -> Result<u64, ReadError> {
    if let Some(place) = partition.known_place(offset)
        && place.segment == segment.base_offset
        && place.position >= FIRST_BATCH_AT
    {
        return Ok(place.position);
    }
    if offset <= segment.base_offset {
        return Ok(FIRST_BATCH_AT);
    }
    let index = segment.index.as_ref().ok_or(ReadError::NotLoaded)?;
    let entry = index.at_or_before_offset((offset - segment.base_offset) as u32).ok_or(ReadError::NotLoaded)?;
    let position = u64::from(entry.position);
    if position < segment.memory_start() {
        return Ok(position);
    }
    Ok(walk(segment, position, |header, _| header.next_offset() <= offset).place.position)
}

/// Where reads limited by `limit` end: offset and position, at a batch boundary; and whether more before `limit` is known not to exist.
fn limit_of<D: Disk>(
    partition: &PartitionLog<D>,
    segment: &Segment<D>,
    limit: Offset,
) -> Result<(Offset, u64, bool), ReadError> {
    if limit >= segment.end_offset {
        return Ok((segment.end_offset, segment.bytes, true));
    }
    if let Some(place) = partition.known_place(limit)
        && place.segment == segment.base_offset
    {
        return Ok((limit, place.position, true));
    }
    let index = segment.index.as_ref().ok_or(ReadError::NotLoaded)?;
    let relative = (limit - segment.base_offset) as u32;
    let entry = index.at_or_before_offset(relative).ok_or(ReadError::NotLoaded)?;
    let position = u64::from(entry.position);
    if position < segment.memory_start() {
        // Up to the indexed batch is safe, and all there is until someone looks into the file.
        let before = segment.base_offset + Offset::from(entry.relative_offset);
        return Ok((before, position, entry.relative_offset == relative));
    }
    let end = walk(segment, position, |header, _| header.next_offset() <= limit);
    Ok((end.offset, end.place.position, true))
}

/// The last known batch boundary at or before `target`; not beyond `from` where none is known between.
fn end_before<D: Disk>(segment: &Segment<D>, from: u64, target: u64) -> Result<Mark, ReadError> {
    let index = segment.index.as_ref().ok_or(ReadError::NotLoaded)?;
    let entry = index.at_or_before_position(target).ok_or(ReadError::NotLoaded)?;
    let position = u64::from(entry.position).max(from);
    if position >= segment.memory_start() {
        return Ok(walk(segment, position, |_, end| end <= target));
    }
    let offset = if position > from { segment.base_offset + Offset::from(entry.relative_offset) } else { -1 };
    Ok(Mark { offset, place: Place { segment: segment.base_offset, position } })
}

/// The end of the batch at `from`, or of the indexed stretch that it begins.
fn first_end<D: Disk>(segment: &Segment<D>, from: u64, near: Mark) -> Result<Mark, ReadError> {
    if from >= segment.memory_start() {
        let mut count = 0;
        return Ok(walk(segment, from, |_, _| {
            count += 1;
            count == 1
        }));
    }
    let index = segment.index.as_ref().ok_or(ReadError::NotLoaded)?;
    let (offset, position) = match index.after_position(from) {
        Some(entry) => (segment.base_offset + Offset::from(entry.relative_offset), u64::from(entry.position)),
        None => (segment.end_offset, segment.bytes),
    };
    Ok(Mark { offset, place: Place { position, ..near.place } })
}

/// Goes over batches in memory from the one at `position` while `take` says so, given the header and where the batch ends.
/// Returns the boundary it stopped at; its offset is -1 if that was the first.
fn walk<D: Disk>(segment: &Segment<D>, mut position: u64, mut take: impl FnMut(&BatchHeader, u64) -> bool) -> Mark {
    let mut offset = -1;
    let mut head = [0; HEADER_BYTES];
    while position < segment.bytes {
        assert!(segment.tail.copy(position, &mut head), "whole batches are in memory");
        let header = BatchHeader::read(&head).expect("a whole header");
        let end = position + header.batch_bytes() as u64;
        if !take(&header, end) {
            break;
        }
        position = end;
        offset = header.next_offset();
    }
    Mark { offset, place: Place { segment: segment.base_offset, position } }
}

/// The range as it lies: what is before memory from the file, the rest as views.
fn pieces<D: Disk>(segment: &Segment<D>, range: Range) -> Result<Read<D::File>, ReadError> {
    let mut pieces = Vec::with_capacity(2);
    let memory_start = segment.memory_start();
    if range.from < memory_start {
        let file = segment.reader.clone().ok_or(ReadError::NotLoaded)?;
        let bytes = range.to.min(memory_start) - range.from;
        // The last block may be written again, with more in it.
        let settled = memory_start - memory_start % DISK_BLOCK_BYTES as u64;
        pieces.push(Piece::File { file, position: range.from, bytes, settled });
    }
    segment.tail.views(range.from.max(memory_start), range.to, &mut |view| pieces.push(Piece::Memory(view)));
    Ok(Read { pieces, bytes: range.to - range.from })
}
