//! Bytes of a journal file: its header block, record headers, and the payload of checkpoints. Refuses to do I/O.
//!
//! A file is one header block, then commits, each from a block boundary, padded with zeros. A commit is records, each from an
//! 8-byte boundary: a [`RecordHeader`], then the payload. Layouts are rkyv archives (little-endian, aligned), read with checked access.
//!
//! A record's CRC covers its header and, for an append, only the first 21 bytes of the batch: they hold the batch's own CRC, which was
//! checked when the batch came in and covers the rest. So no byte is summed twice on the way to the disk.

use crate::base::batch::{self, REWRITTEN_BYTES};
use crate::base::ids::{Offset, PartitionId, TopicId};
use crate::base::limits::DISK_BLOCK_BYTES;
use rkyv::rancor::{Error, Failure};
use rkyv::util::{Align, AlignedVec};
use rkyv::{Archive, Deserialize, Serialize};

pub const FORMAT_VERSION: u32 = 1;
pub const RECORD_HEADER_BYTES: usize = 64;
pub const RECORD_ALIGN_BYTES: usize = 8;
/// Bytes of a batch that the record's CRC covers: the rewritten part, the magic and the batch's own CRC.
pub const BATCH_PREFIX_BYTES: usize = REWRITTEN_BYTES + 5;

const RECORD_MAGIC: u32 = u32::from_le_bytes(*b"RLr1");
const FILE_MAGIC: u64 = u64::from_le_bytes(*b"RLjournl");
/// Where the CRC's coverage of a record header begins: behind magic and CRC.
const CRC_COVERS_FROM: usize = 8;

/// What a record says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Kind {
    /// The payload is a batch, as it stands in the segment.
    Append = 1,
    /// The payload is a [`Checkpoint`].
    Checkpoint = 2,
    /// A checkpoint after records were cut off: what was appended at or beyond its end is no longer part of the partition.
    Truncate = 3,
    /// `offset` is the new log start offset. No payload.
    StartOffset = 4,
    /// The partition is deleted. No payload.
    Drop = 5,
    /// The journal was closed in order; nothing follows. No payload, no partition.
    Closed = 6,
    /// The partition is another core's, whose journal has it: this one knows nothing of it any more. No payload.
    Left = 7,
}

impl Kind {
    fn from_number(number: u8) -> Option<Kind> {
        Some(match number {
            1 => Kind::Append,
            2 => Kind::Checkpoint,
            3 => Kind::Truncate,
            4 => Kind::StartOffset,
            5 => Kind::Drop,
            6 => Kind::Closed,
            7 => Kind::Left,
            _ => return None,
        })
    }
}

#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
struct RawRecordHeader {
    magic: u32,
    crc: u32,
    sequence: u64,
    topic: [u8; 16],
    offset: i64,
    index: i32,
    payload_bytes: u32,
    file_sequence: u32,
    generation: u32,
    undurable: u32,
    kind: u8,
    reserved: [u8; 3],
}

const _: () = assert!(size_of::<ArchivedRawRecordHeader>() == RECORD_HEADER_BYTES);

/// One record's header. The leader epoch of an append stands in its batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecordHeader {
    /// Counts the records of a journal session, without gaps.
    pub sequence: u64,
    pub partition: PartitionId,
    /// Append: the batch's offset, which is where the log ended before; so a missing record shows. Otherwise the end or the start it sets.
    pub offset: Offset,
    pub payload_bytes: u32,
    /// Sequence of the file it was written to: stale records of a recycled file bear an older one.
    pub file_sequence: u32,
    /// Counts the times the partition was opened: of two journals that name it, the higher one is right.
    pub generation: u32,
    /// How many records up to and including this one were not known durable when it was made. So it proves that those before were.
    pub undurable: u32,
    pub kind: Kind,
}

impl RecordHeader {
    /// The header as written, its CRC included. `prefix` is what the CRC covers of the payload.
    pub fn encode(&self, salt: u32, prefix: &[u8]) -> [u8; RECORD_HEADER_BYTES] {
        let raw = RawRecordHeader {
            magic: RECORD_MAGIC,
            crc: 0,
            sequence: self.sequence,
            topic: self.partition.topic.0,
            offset: self.offset,
            index: self.partition.index,
            payload_bytes: self.payload_bytes,
            file_sequence: self.file_sequence,
            generation: self.generation,
            undurable: self.undurable,
            kind: self.kind as u8,
            reserved: [0; 3],
        };
        let mut out = Align([0; RECORD_HEADER_BYTES]);
        let mut serializer = rkyv::ser::Serializer::new(rkyv::ser::writer::Buffer::from(&mut out.0), (), ());
        rkyv::api::serialize_using::<_, Failure>(&raw, &mut serializer).expect("the header has a fixed size");
        let crc = record_crc(salt, &out.0, prefix);
        out.0[4..CRC_COVERS_FROM].copy_from_slice(&crc.to_le_bytes());
        out.0
    }

    /// Reads a header, checking magic and kind but not yet the CRC, which needs the payload. `bytes` are at least a header's.
    pub fn decode(bytes: &[u8]) -> Option<RecordHeader> {
        let aligned = Align(*bytes.first_chunk::<RECORD_HEADER_BYTES>()?);
        let raw = rkyv::access::<ArchivedRawRecordHeader, Error>(&aligned.0).ok()?;
        if raw.magic.to_native() != RECORD_MAGIC {
            return None;
        }
        Some(RecordHeader {
            sequence: raw.sequence.to_native(),
            partition: PartitionId { topic: TopicId(raw.topic), index: raw.index.to_native() },
            offset: raw.offset.to_native(),
            payload_bytes: raw.payload_bytes.to_native(),
            file_sequence: raw.file_sequence.to_native(),
            generation: raw.generation.to_native(),
            undurable: raw.undurable.to_native(),
            kind: Kind::from_number(raw.kind)?,
        })
    }

    /// Bytes of the payload that the record's CRC covers.
    pub fn prefix_bytes(&self) -> usize {
        let payload_bytes = self.payload_bytes as usize;
        if self.kind == Kind::Append { payload_bytes.min(BATCH_PREFIX_BYTES) } else { payload_bytes }
    }

    /// Bytes of the record with its padding.
    pub fn record_bytes(&self) -> usize {
        record_bytes(self.payload_bytes as usize)
    }

    /// Every record before this sequence was durable when this one was made.
    pub fn durable_before(&self) -> u64 {
        (self.sequence + 1).saturating_sub(u64::from(self.undurable))
    }
}

/// Bytes of a record with `payload_bytes`, header and padding included.
pub fn record_bytes(payload_bytes: usize) -> usize {
    (RECORD_HEADER_BYTES + payload_bytes).next_multiple_of(RECORD_ALIGN_BYTES)
}

/// The CRC of a record: salted per session, so that a client's bytes can never pass for a record.
fn record_crc(salt: u32, header: &[u8], prefix: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(salt, &header[CRC_COVERS_FROM..RECORD_HEADER_BYTES]), prefix)
}

/// Why a record that has a header is not to be believed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RecordError {
    /// Its header, or the part of the payload that belongs to it, is not what was written.
    Crc,
    /// The header is right and the batch is not.
    Batch,
}

/// Checks a whole record: its own CRC, then an append's batch.
pub fn check_record(header: &RecordHeader, salt: u32, bytes: &[u8]) -> Result<(), RecordError> {
    let payload = &bytes[RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + header.payload_bytes as usize];
    let stated = u32::from_le_bytes(bytes[4..8].try_into().expect("four bytes"));
    if record_crc(salt, bytes, &payload[..header.prefix_bytes()]) != stated {
        return Err(RecordError::Crc);
    }
    if header.kind == Kind::Append {
        let stored = batch::check_stored(payload).map_err(|_| RecordError::Batch)?;
        if stored.batch_bytes() != payload.len() || stored.base_offset != header.offset {
            return Err(RecordError::Batch);
        }
    }
    Ok(())
}

/// What the first block of a journal file says.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
pub struct FileHeader {
    magic: u64,
    pub format_version: u32,
    /// Order of the files of a journal; 0 marks a file without content.
    pub file_sequence: u32,
    /// `file_sequence` of the first file since the journal was opened: record sequences run on within a session only.
    pub session: u32,
    /// Start value of the CRC of every record in the session.
    pub salt: u32,
    /// `file_sequence` of the session's oldest file that was not free when this one was prepared: recovery needs none before it.
    pub first_live: u32,
    pub core: u16,
}

impl FileHeader {
    pub fn new(core: u16, file_sequence: u32, session: u32, salt: u32, first_live: u32) -> FileHeader {
        FileHeader { magic: FILE_MAGIC, format_version: FORMAT_VERSION, file_sequence, session, salt, first_live, core }
    }

    /// The header as its file bears it: the archive, then its CRC. Shorter than a block; the rest are zeros.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = rkyv::to_bytes::<Error>(self).expect("the header has a fixed size").to_vec();
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads the first block of a file. `None` where it is not a header: the file was never used, or its first write was torn.
    pub fn decode(block: &[u8]) -> Option<FileHeader> {
        const BYTES: usize = size_of::<ArchivedFileHeader>();
        let aligned = Align(*block.first_chunk::<BYTES>()?);
        let crc = u32::from_le_bytes(block.get(BYTES..BYTES + 4)?.try_into().expect("four bytes"));
        if crc32c::crc32c(&aligned.0) != crc {
            return None;
        }
        let header = rkyv::from_bytes::<FileHeader, Error>(&aligned.0).ok()?;
        (header.magic == FILE_MAGIC).then_some(header)
    }
}

/// Where a leader epoch began (KIP-101).
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
pub struct EpochStart {
    pub epoch: i32,
    pub start_offset: i64,
}

/// All that recovery needs to know of a partition but the batches that came after.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug, Default)]
pub struct Checkpoint {
    /// Name of the partition's directory in the data directory.
    pub dir: String,
    pub start_offset: i64,
    /// Offset after the last batch appended before this record.
    pub end_offset: i64,
    /// Everything before this offset is durable in segments …
    pub segment_end_offset: i64,
    /// … the last of which has this base offset …
    pub segment_base: i64,
    /// … and ends, as far as that offset, at this byte. 0: no segment exists.
    pub segment_position: u64,
    pub epochs: Vec<EpochStart>,
    /// What the shard wants back; opaque here.
    pub producers: Vec<u8>,
}

impl Checkpoint {
    pub fn encode(&self) -> AlignedVec {
        rkyv::to_bytes::<Error>(self).expect("memory for a checkpoint")
    }

    pub fn decode(bytes: &[u8]) -> Option<Checkpoint> {
        let mut aligned = AlignedVec::<16>::with_capacity(bytes.len());
        aligned.extend_from_slice(bytes);
        rkyv::from_bytes::<Checkpoint, Error>(&aligned).ok()
    }
}

/// Where the first commit of a file begins.
pub const FIRST_COMMIT_AT: u64 = DISK_BLOCK_BYTES as u64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::record::BatchBuilder;

    fn header(kind: Kind, payload: &[u8]) -> RecordHeader {
        RecordHeader {
            sequence: 77,
            partition: PartitionId { topic: TopicId([7; 16]), index: 3 },
            offset: 0,
            payload_bytes: payload.len() as u32,
            file_sequence: 4,
            generation: 2,
            undurable: 5,
            kind,
        }
    }

    fn record(kind: Kind, payload: &[u8], salt: u32) -> Vec<u8> {
        let header = header(kind, payload);
        let mut out = header.encode(salt, &payload[..header.prefix_bytes()]).to_vec();
        out.extend_from_slice(payload);
        out
    }

    fn is_whole(bytes: &[u8], expected: RecordHeader, salt: u32) -> bool {
        RecordHeader::decode(bytes) == Some(expected) && check_record(&expected, salt, bytes).is_ok()
    }

    #[test]
    fn every_flipped_bit_of_a_record_is_found() {
        let mut builder = BatchBuilder::new(1);
        builder.push(1, None, Some(b"value"));
        let batch = builder.finish();
        for (kind, payload) in [(Kind::Append, &batch[..]), (Kind::Checkpoint, b"opaque"), (Kind::Drop, b"")] {
            let whole = record(kind, payload, 9);
            let expected = header(kind, payload);
            assert!(is_whole(&whole, expected, 9));
            for bit in 0..whole.len() * 8 {
                let mut damaged = whole.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                assert!(!is_whole(&damaged, expected, 9), "{kind:?}: bit {bit}");
            }
        }
    }

    #[test]
    fn a_record_of_another_session_is_not_believed() {
        let bytes = record(Kind::Drop, b"", 1);
        assert_eq!(check_record(&header(Kind::Drop, b""), 2, &bytes), Err(RecordError::Crc));
    }

    #[test]
    fn a_header_with_an_unknown_kind_or_too_few_bytes_is_none() {
        let mut bytes = record(Kind::Drop, b"", 1);
        assert!(RecordHeader::decode(&bytes[..63]).is_none());
        bytes[60] = 99;
        assert!(RecordHeader::decode(&bytes).is_none());
        assert!(RecordHeader::decode(&[0; 64]).is_none());
    }

    #[test]
    fn a_file_header_reads_back_and_damage_makes_it_none() {
        let written = FileHeader::new(3, 8, 5, 0xabcd, 6);
        let mut block = written.encode();
        block.resize(DISK_BLOCK_BYTES, 0);
        assert_eq!(FileHeader::decode(&block), Some(written));
        block[9] ^= 1;
        assert_eq!(FileHeader::decode(&block), None);
        assert_eq!(FileHeader::decode(&[0; DISK_BLOCK_BYTES]), None);
        assert_eq!(FileHeader::decode(&[]), None);
    }

    #[test]
    fn a_checkpoint_reads_back_and_a_cut_one_is_none() {
        let written = Checkpoint {
            dir: "orders-0-AAAAAAAAAAAAAAAAAAAAAQ".into(),
            start_offset: 4,
            end_offset: 90,
            segment_end_offset: 80,
            segment_base: 50,
            segment_position: 9000,
            epochs: vec![EpochStart { epoch: 1, start_offset: 4 }],
            producers: vec![1, 2, 3],
        };
        let bytes = written.encode();
        assert_eq!(Checkpoint::decode(&bytes), Some(written));
        assert_eq!(Checkpoint::decode(&bytes[..10]), None);
    }

    #[test]
    fn a_record_proves_what_was_durable_before_it() {
        assert_eq!(header(Kind::Drop, b"").durable_before(), 73);
    }
}
