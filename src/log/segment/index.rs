//! The sparse index of one segment: where batches begin, and how late the records before them are. In memory and as bytes; no I/O.

use super::format::FIRST_BATCH_AT;
use crate::base::ids::Offset;
use crate::base::time::TimestampMs;
use rkyv::rancor::Error;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Serialize};
use std::ops::Range;

const INDEX_MAGIC: u64 = u64::from_le_bytes(*b"RLindex1");
pub const INDEX_HEADER_BYTES: usize = 32;
/// One entry in the file: its fields, then their CRC, so that an index which is not sealed yet can be believed as far as it is whole.
pub const ENTRY_BYTES: usize = ENTRY_FIELDS_BYTES + 4;
const ENTRY_FIELDS_BYTES: usize = 16;
const FORMAT_VERSION: u32 = 2;

/// Stands for "no record yet".
pub const NO_TIMESTAMP: TimestampMs = -1;

/// The batch at `position` has the base offset `relative_offset` beyond the segment's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    pub relative_offset: u32,
    pub position: u32,
    /// The latest timestamp of all records before this batch in the segment; [`NO_TIMESTAMP`] at the first batch.
    pub max_timestamp_before: TimestampMs,
}

#[derive(Archive, Serialize, Deserialize, Clone, Copy)]
struct IndexHeader {
    magic: u64,
    format_version: u32,
    /// Number of entries and their CRC once the segment is sealed; 0 before.
    entries: u32,
    base_offset: i64,
    crc: u32,
    reserved: u32,
}

const _: () = assert!(size_of::<ArchivedIndexHeader>() == INDEX_HEADER_BYTES);

/// Entries in the order of the segment. Invariant: offsets and positions strictly rise, timestamps never fall.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Index {
    entries: Vec<Entry>,
}

impl Index {
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub fn memory_bytes(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>()
    }

    /// Adds the batch at `position` if the last entry is at least `interval_bytes` before it, or none exists.
    pub fn add(&mut self, entry: Entry, interval_bytes: u32) {
        if let Some(last) = self.entries.last() {
            assert!(entry.position > last.position && entry.relative_offset > last.relative_offset);
            if entry.position - last.position < interval_bytes.max(1) {
                return;
            }
        }
        self.entries.push(entry);
    }

    /// The last entry at or before `relative_offset`.
    pub fn at_or_before_offset(&self, relative_offset: u32) -> Option<Entry> {
        let after = self.entries.partition_point(|entry| entry.relative_offset <= relative_offset);
        self.entries[..after].last().copied()
    }

    /// The last entry at or before `position`.
    pub fn at_or_before_position(&self, position: u64) -> Option<Entry> {
        let after = self.entries.partition_point(|entry| u64::from(entry.position) <= position);
        self.entries[..after].last().copied()
    }

    /// The first entry beyond `position`.
    pub fn after_position(&self, position: u64) -> Option<Entry> {
        let after = self.entries.partition_point(|entry| u64::from(entry.position) <= position);
        self.entries.get(after).copied()
    }

    /// The entry from which to look for the first batch that reaches `timestamp`.
    pub fn before_timestamp(&self, timestamp: TimestampMs) -> Option<Entry> {
        let after = self.entries.partition_point(|entry| entry.max_timestamp_before < timestamp);
        self.entries[..after].last().copied()
    }

    /// Forgets entries at or beyond `position`.
    pub fn truncate(&mut self, position: u64) {
        let keep = self.entries.partition_point(|entry| u64::from(entry.position) < position);
        self.entries.truncate(keep);
    }

    /// The head of an index file; `sealed` are all its entries if no more follow.
    pub fn encode_header(base_offset: Offset, sealed: Option<&[Entry]>) -> Vec<u8> {
        let entries = sealed.unwrap_or_default();
        let header = IndexHeader {
            magic: INDEX_MAGIC,
            format_version: FORMAT_VERSION,
            entries: entries.len() as u32,
            base_offset,
            crc: sealed.map_or(0, |entries| crc32c::crc32c(&encode_entries(entries))),
            reserved: 0,
        };
        rkyv::to_bytes::<Error>(&header).expect("the header has a fixed size").to_vec()
    }

    /// Some entries, as an index file bears them.
    pub fn encode_entries(&self, range: Range<usize>) -> Vec<u8> {
        encode_entries(&self.entries[range])
    }

    /// Reads an index file. `None` where it is not that of this segment, or not what was sealed.
    ///
    /// The flag says that the index is sealed: complete and whole. Otherwise entries end at the first that cannot be right, or
    /// does not lie within `segment_bytes`; index files are written without syncs, and what they miss is found by scanning.
    pub fn decode(bytes: &[u8], base_offset: Offset, segment_bytes: u64) -> Option<(Index, bool)> {
        let (header, entries) = bytes.split_at_checked(INDEX_HEADER_BYTES)?;
        let mut aligned = AlignedVec::<16>::with_capacity(INDEX_HEADER_BYTES);
        aligned.extend_from_slice(header);
        let header = rkyv::access::<ArchivedIndexHeader, Error>(&aligned).ok()?;
        if header.magic != INDEX_MAGIC || header.format_version != FORMAT_VERSION || header.base_offset != base_offset {
            return None;
        }
        let is_sealed = header.entries != 0;
        if is_sealed {
            let sealed = entries.get(..header.entries.to_native() as usize * ENTRY_BYTES)?;
            if sealed.len() != entries.len() || crc32c::crc32c(sealed) != header.crc {
                return None;
            }
        }
        let mut index = Index { entries: Vec::with_capacity(entries.len() / ENTRY_BYTES) };
        for bytes in entries.chunks_exact(ENTRY_BYTES) {
            let Some(entry) = Entry::decode(bytes) else { return (!is_sealed).then_some((index, false)) };
            let follows = match index.entries.last() {
                None => u64::from(entry.position) == FIRST_BATCH_AT,
                Some(last) => {
                    entry.position > last.position
                        && entry.relative_offset > last.relative_offset
                        && entry.max_timestamp_before >= last.max_timestamp_before
                }
            };
            if !follows || u64::from(entry.position) >= segment_bytes {
                return (!is_sealed).then_some((index, false));
            }
            index.entries.push(entry);
        }
        Some((index, is_sealed))
    }
}

fn encode_entries(entries: &[Entry]) -> Vec<u8> {
    entries.iter().flat_map(Entry::encode).collect()
}

impl Entry {
    fn encode(&self) -> [u8; ENTRY_BYTES] {
        let mut out = [0; ENTRY_BYTES];
        out[..4].copy_from_slice(&self.relative_offset.to_le_bytes());
        out[4..8].copy_from_slice(&self.position.to_le_bytes());
        out[8..16].copy_from_slice(&self.max_timestamp_before.to_le_bytes());
        let crc = crc32c::crc32c(&out[..ENTRY_FIELDS_BYTES]);
        out[ENTRY_FIELDS_BYTES..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// `None` where the CRC is wrong. `bytes` are one entry's.
    fn decode(bytes: &[u8]) -> Option<Entry> {
        let (fields, crc) = bytes.split_at(ENTRY_FIELDS_BYTES);
        if crc != crc32c::crc32c(fields).to_le_bytes() {
            return None;
        }
        Some(Entry {
            relative_offset: u32::from_le_bytes(fields[..4].try_into().expect("four bytes")),
            position: u32::from_le_bytes(fields[4..8].try_into().expect("four bytes")),
            max_timestamp_before: i64::from_le_bytes(fields[8..].try_into().expect("eight bytes")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(relative_offset: u32, position: u32, max_timestamp_before: i64) -> Entry {
        Entry { relative_offset, position, max_timestamp_before }
    }

    fn index() -> Index {
        let mut index = Index::default();
        for n in 0..10 {
            index.add(entry(n * 10, 4096 + n * 1000, i64::from(n) - 1), 2000);
        }
        index
    }

    fn file(index: &Index, sealed: bool) -> Vec<u8> {
        let mut bytes = Index::encode_header(100, sealed.then_some(index.entries()));
        bytes.extend_from_slice(&index.encode_entries(0..index.entries().len()));
        bytes
    }

    #[test]
    fn entries_stand_at_least_an_interval_apart() {
        let positions: Vec<u32> = index().entries().iter().map(|entry| entry.position).collect();
        assert_eq!(positions, [4096, 6096, 8096, 10096, 12096]);
    }

    #[test]
    fn lookups_find_the_entry_at_or_before() {
        let index = index();
        assert_eq!(index.at_or_before_offset(39).map(|e| e.relative_offset), Some(20));
        assert_eq!(index.at_or_before_offset(40).map(|e| e.relative_offset), Some(40));
        assert_eq!(index.at_or_before_position(4095), None);
        assert_eq!(index.at_or_before_position(7000).map(|e| e.position), Some(6096));
        assert_eq!(index.after_position(6096).map(|e| e.position), Some(8096));
        assert_eq!(index.after_position(12096), None);
        assert_eq!(index.before_timestamp(4).map(|e| e.relative_offset), Some(40));
    }

    #[test]
    fn a_growing_file_reads_back_up_to_what_is_whole() {
        let index = index();
        let mut bytes = file(&index, false);
        let (read, sealed) = Index::decode(&bytes, 100, 1 << 20).expect("valid");
        assert_eq!((read.entries(), sealed), (index.entries(), false));
        bytes.truncate(bytes.len() - 3);
        assert_eq!(Index::decode(&bytes, 100, 1 << 20).expect("valid").0.entries(), &index.entries()[..4]);
        // Blocks that never reached the disk read as zeros.
        bytes[INDEX_HEADER_BYTES + 2 * ENTRY_BYTES..].fill(0);
        assert_eq!(Index::decode(&bytes, 100, 1 << 20).expect("valid").0.entries(), &index.entries()[..2]);
        assert_eq!(Index::decode(&bytes, 100, 5000).expect("valid").0.entries(), &index.entries()[..1]);
    }

    #[test]
    fn a_growing_file_is_believed_up_to_the_first_flipped_bit() {
        let index = index();
        let whole = file(&index, false);
        for bit in INDEX_HEADER_BYTES * 8..whole.len() * 8 {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let kept = (bit / 8 - INDEX_HEADER_BYTES) / ENTRY_BYTES;
            let (read, sealed) = Index::decode(&damaged, 100, 1 << 20).expect("valid");
            assert_eq!((read.entries(), sealed), (&index.entries()[..kept], false), "bit {bit}");
        }
    }

    #[test]
    fn a_sealed_file_is_believed_only_whole() {
        let bytes = file(&index(), true);
        assert!(Index::decode(&bytes, 100, 1 << 20).expect("valid").1);
        for byte in INDEX_HEADER_BYTES..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[byte] ^= 1;
            assert!(Index::decode(&damaged, 100, 1 << 20).is_none(), "byte {byte}");
            assert!(Index::decode(&bytes[..byte], 100, 1 << 20).is_none(), "cut at {byte}");
        }
    }

    #[test]
    fn a_file_of_another_segment_is_refused() {
        let bytes = file(&index(), false);
        assert!(Index::decode(&bytes, 101, 1 << 20).is_none());
        assert!(Index::decode(&bytes[..20], 100, 1 << 20).is_none());
    }
}
