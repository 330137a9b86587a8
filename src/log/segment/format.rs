//! The header block of a segment file. Everything after it are Kafka batches, byte for byte as consumers get them.

use crate::base::ids::{Offset, PartitionId, TopicId};
use crate::base::limits::DISK_BLOCK_BYTES;
use rkyv::rancor::Error;
use rkyv::util::Align;
use rkyv::{Archive, Deserialize, Serialize};

const SEGMENT_MAGIC: u64 = u64::from_le_bytes(*b"RLsegmnt");

/// Where the first batch of a segment stands.
pub const FIRST_BATCH_AT: u64 = DISK_BLOCK_BYTES as u64;

/// Whose bytes a segment holds, and from which offset.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentHeader {
    magic: u64,
    format_version: u32,
    index: i32,
    base_offset: i64,
    topic: [u8; 16],
}

const BYTES: usize = size_of::<ArchivedSegmentHeader>();

impl SegmentHeader {
    pub fn new(partition: PartitionId, base_offset: Offset) -> SegmentHeader {
        SegmentHeader {
            magic: SEGMENT_MAGIC,
            format_version: 1,
            index: partition.index,
            base_offset,
            topic: partition.topic.0,
        }
    }

    pub fn partition(&self) -> PartitionId {
        PartitionId { topic: TopicId(self.topic), index: self.index }
    }

    /// The whole block: the archive, its CRC, zeros.
    pub fn encode(&self) -> Vec<u8> {
        let mut block = rkyv::to_bytes::<Error>(self).expect("the header has a fixed size").to_vec();
        let crc = crc32c::crc32c(&block);
        block.extend_from_slice(&crc.to_le_bytes());
        block.resize(DISK_BLOCK_BYTES, 0);
        block
    }

    /// Reads the first block of a file; `None` where it is no segment's.
    pub fn decode(block: &[u8]) -> Option<SegmentHeader> {
        let aligned = Align(*block.first_chunk::<BYTES>()?);
        let crc = u32::from_le_bytes(block.get(BYTES..BYTES + 4)?.try_into().expect("four bytes"));
        if crc32c::crc32c(&aligned.0) != crc {
            return None;
        }
        let header = rkyv::from_bytes::<SegmentHeader, Error>(&aligned.0).ok()?;
        (header.magic == SEGMENT_MAGIC && header.format_version == 1).then_some(header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_reads_back_and_any_damage_makes_it_none() {
        let written = SegmentHeader::new(PartitionId { topic: TopicId([5; 16]), index: 2 }, 77);
        let block = written.encode();
        assert_eq!(block.len(), DISK_BLOCK_BYTES);
        assert_eq!(SegmentHeader::decode(&block), Some(written));
        for bit in 0..(BYTES + 4) * 8 {
            let mut damaged = block.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentHeader::decode(&damaged), None, "bit {bit}");
        }
        assert_eq!(SegmentHeader::decode(&[0; DISK_BLOCK_BYTES]), None);
    }
}
