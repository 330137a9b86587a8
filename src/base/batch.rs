//! The record batch v2: its header over bytes, and the checks a broker makes before it takes one.
//!
//! Pure views: nothing is copied or decompressed here. Source: Kafka protocol guide, "Record Batch"; KIP-98.
//!
//! The CRC32C covers everything from the attributes to the end, so that base offset and leader epoch can be written by the
//! broker without touching it.

use super::error::ErrorCode;
use super::ids::Offset;
use super::record;
use super::time::TimestampMs;

/// Bytes of a batch before its first record.
pub const HEADER_BYTES: usize = 61;
/// Base offset and length: what stands before the part that `batch_length` counts.
pub const LOG_OVERHEAD_BYTES: usize = 12;
/// The part of the header that a broker rewrites: base offset, length, leader epoch.
pub const REWRITTEN_BYTES: usize = 16;
const CRC_AT: usize = 17;
/// Where the CRC's coverage begins.
const ATTRIBUTES_AT: usize = 21;

pub const ATTRIBUTE_COMPRESSION_MASK: i16 = 0b111;
pub const ATTRIBUTE_LOG_APPEND_TIME: i16 = 1 << 3;
pub const ATTRIBUTE_TRANSACTIONAL: i16 = 1 << 4;
pub const ATTRIBUTE_CONTROL: i16 = 1 << 5;

pub const NO_PRODUCER_ID: i64 = -1;
pub const NO_SEQUENCE: i32 = -1;

/// How the records of a batch are packed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Compression {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

/// The fields of a batch header, in their order on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BatchHeader {
    pub base_offset: Offset,
    /// Bytes that follow this field: the whole batch less [`LOG_OVERHEAD_BYTES`].
    pub batch_length: i32,
    pub partition_leader_epoch: i32,
    pub magic: i8,
    pub crc: u32,
    pub attributes: i16,
    pub last_offset_delta: i32,
    pub base_timestamp: TimestampMs,
    pub max_timestamp: TimestampMs,
    /// [`NO_PRODUCER_ID`] where the producer is not idempotent.
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    pub record_count: i32,
}

/// Why bytes are not a batch that a broker may take. Each has a Kafka code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BatchError {
    /// Fewer bytes than the header, or than the length it states.
    Short,
    /// Bytes after the batch: Produce carries exactly one batch for each partition.
    Trailing,
    Magic(i8),
    /// The length field is smaller than the header.
    Length(i32),
    Crc {
        stated: u32,
        computed: u32,
    },
    /// Count, last offset delta and the records themselves do not agree.
    Count,
    /// A codec number that Kafka does not define.
    Compression(i16),
    /// Control batches are written by brokers only.
    Control,
    /// An uncompressed record that does not parse.
    Record,
    /// Producer id, epoch and sequence must be all set or all absent.
    Producer,
}

impl BatchError {
    /// The same in words, for the producer's log.
    pub fn message(self) -> &'static str {
        match self {
            BatchError::Short => "The batch ends before the length it states.",
            BatchError::Trailing => "Produce carries exactly one batch for each partition.",
            BatchError::Magic(_) => "Only record batches of format 2 are taken.",
            BatchError::Length(_) => "The batch states a length that cannot be.",
            BatchError::Crc { .. } => "The batch's CRC does not match its bytes.",
            BatchError::Count => "The batch's count, offsets and records do not agree.",
            BatchError::Compression(_) => "The batch's compression type is not known.",
            BatchError::Control => "Control batches are written by brokers only.",
            BatchError::Record => "A record of the batch cannot be read.",
            BatchError::Producer => "Producer id, epoch and sequence must be all set, or none.",
        }
    }

    /// What the producer is told, as Kafka's `LogValidator` does.
    pub fn code(self) -> ErrorCode {
        match self {
            BatchError::Short | BatchError::Length(_) | BatchError::Crc { .. } | BatchError::Magic(_) => {
                ErrorCode::CorruptMessage
            }
            BatchError::Compression(_) => ErrorCode::UnsupportedCompressionType,
            BatchError::Trailing
            | BatchError::Count
            | BatchError::Control
            | BatchError::Record
            | BatchError::Producer => ErrorCode::InvalidRecord,
        }
    }
}

fn i16_at(bytes: &[u8], at: usize) -> i16 {
    i16::from_be_bytes(bytes[at..at + 2].try_into().expect("two bytes"))
}
fn i32_at(bytes: &[u8], at: usize) -> i32 {
    i32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}
fn i64_at(bytes: &[u8], at: usize) -> i64 {
    i64::from_be_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

impl BatchHeader {
    /// Reads the header at the front of `bytes`. Only the length of `bytes` is checked, not what the fields say.
    pub fn read(bytes: &[u8]) -> Option<BatchHeader> {
        let bytes = bytes.get(..HEADER_BYTES)?;
        Some(BatchHeader {
            base_offset: i64_at(bytes, 0),
            batch_length: i32_at(bytes, 8),
            partition_leader_epoch: i32_at(bytes, 12),
            magic: bytes[16] as i8,
            crc: i32_at(bytes, CRC_AT) as u32,
            attributes: i16_at(bytes, ATTRIBUTES_AT),
            last_offset_delta: i32_at(bytes, 23),
            base_timestamp: i64_at(bytes, 27),
            max_timestamp: i64_at(bytes, 35),
            producer_id: i64_at(bytes, 43),
            producer_epoch: i16_at(bytes, 51),
            base_sequence: i32_at(bytes, 53),
            record_count: i32_at(bytes, 57),
        })
    }

    /// Bytes of the whole batch. 0 where the length field is negative beyond sense.
    pub fn batch_bytes(&self) -> usize {
        (i64::from(self.batch_length) + LOG_OVERHEAD_BYTES as i64).max(0) as usize
    }

    /// Of a header that was not checked it may be anything; sums end at the largest number.
    pub fn last_offset(&self) -> Offset {
        self.base_offset.saturating_add(Offset::from(self.last_offset_delta))
    }

    /// The offset that follows the batch.
    pub fn next_offset(&self) -> Offset {
        self.last_offset().saturating_add(1)
    }

    pub fn is_idempotent(&self) -> bool {
        self.producer_id != NO_PRODUCER_ID
    }

    pub fn is_transactional(&self) -> bool {
        self.attributes & ATTRIBUTE_TRANSACTIONAL != 0
    }

    pub fn is_control(&self) -> bool {
        self.attributes & ATTRIBUTE_CONTROL != 0
    }

    pub fn compression(&self) -> Option<Compression> {
        match self.attributes & ATTRIBUTE_COMPRESSION_MASK {
            0 => Some(Compression::None),
            1 => Some(Compression::Gzip),
            2 => Some(Compression::Snappy),
            3 => Some(Compression::Lz4),
            4 => Some(Compression::Zstd),
            _ => None,
        }
    }

    /// Sequence number of the last record; wraps at `i32::MAX` to 0 (Kafka `DefaultRecordBatch.incrementSequence`).
    pub fn last_sequence(&self) -> i32 {
        if self.base_sequence == NO_SEQUENCE {
            return NO_SEQUENCE;
        }
        let last = i64::from(self.base_sequence) + i64::from(self.last_offset_delta);
        (last % (i64::from(i32::MAX) + 1)) as i32
    }

    /// The first 16 bytes as the broker stores them: with its offset and leader epoch.
    pub fn rewritten(&self, base_offset: Offset, leader_epoch: i32) -> [u8; REWRITTEN_BYTES] {
        let mut out = [0; REWRITTEN_BYTES];
        out[..8].copy_from_slice(&base_offset.to_be_bytes());
        out[8..12].copy_from_slice(&self.batch_length.to_be_bytes());
        out[12..].copy_from_slice(&leader_epoch.to_be_bytes());
        out
    }
}

/// Checks that `bytes` begin with a whole, undamaged batch, as recovery and replication need; says nothing about its producer.
///
/// # Errors
/// `Short`, `Length`, `Magic`, `Crc` or `Count` (offsets that do not agree).
pub fn check_stored(bytes: &[u8]) -> Result<BatchHeader, BatchError> {
    let header = BatchHeader::read(bytes).ok_or(BatchError::Short)?;
    if header.magic != 2 {
        return Err(BatchError::Magic(header.magic));
    }
    let total = header.batch_bytes();
    if total < HEADER_BYTES {
        return Err(BatchError::Length(header.batch_length));
    }
    let body = bytes.get(ATTRIBUTES_AT..total).ok_or(BatchError::Short)?;
    let computed = crc32c::crc32c(body);
    if computed != header.crc {
        return Err(BatchError::Crc { stated: header.crc, computed });
    }
    if header.last_offset_delta < 0 || header.record_count < 0 {
        return Err(BatchError::Count);
    }
    Ok(header)
}

/// Checks what a producer sent for one partition: exactly one batch that a broker may append unchanged.
///
/// Uncompressed records are walked, so that count and lengths are known to be true; compressed ones are taken as they are.
///
/// # Errors
/// Every [`BatchError`]; its `code` is the answer to the producer.
pub fn check_produced(bytes: &[u8]) -> Result<BatchHeader, BatchError> {
    let header = check_stored(bytes)?;
    if bytes.len() > header.batch_bytes() {
        return Err(BatchError::Trailing);
    }
    let Some(compression) = header.compression() else {
        return Err(BatchError::Compression(header.attributes & ATTRIBUTE_COMPRESSION_MASK));
    };
    if header.is_control() {
        return Err(BatchError::Control);
    }
    if header.record_count < 1 || header.last_offset_delta != header.record_count - 1 {
        return Err(BatchError::Count);
    }
    let idempotent = header.producer_id >= 0 && header.producer_epoch >= 0 && header.base_sequence >= 0;
    let plain = header.producer_id == NO_PRODUCER_ID && !header.is_transactional();
    if !idempotent && !plain {
        return Err(BatchError::Producer);
    }
    if compression == Compression::None {
        record::check(&bytes[HEADER_BYTES..], header.record_count)?;
    }
    Ok(header)
}

/// Writes the CRC32C of a whole batch into its header.
pub fn seal(batch: &mut [u8]) {
    let crc = crc32c::crc32c(&batch[ATTRIBUTES_AT..]);
    batch[CRC_AT..ATTRIBUTES_AT].copy_from_slice(&crc.to_be_bytes());
}

/// Turns `batch` into one stamped by the broker (`message.timestamp.type=LogAppendTime`) and renews its CRC.
pub fn set_log_append_time(batch: &mut [u8], now_ms: TimestampMs) {
    let attributes = i16_at(batch, ATTRIBUTES_AT) | ATTRIBUTE_LOG_APPEND_TIME;
    batch[ATTRIBUTES_AT..ATTRIBUTES_AT + 2].copy_from_slice(&attributes.to_be_bytes());
    batch[35..43].copy_from_slice(&now_ms.to_be_bytes());
    seal(batch);
}

/// The whole batches at the front of `bytes`, by their length fields; stops where no further whole batch begins. Checks no CRC.
pub fn batches(mut bytes: &[u8]) -> impl Iterator<Item = (BatchHeader, &[u8])> {
    std::iter::from_fn(move || {
        let header = BatchHeader::read(bytes)?;
        let total = header.batch_bytes();
        if total < HEADER_BYTES || total > bytes.len() {
            return None;
        }
        let (batch, rest) = bytes.split_at(total);
        bytes = rest;
        Some((header, batch))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::record::BatchBuilder;

    fn batch_of(values: &[&[u8]]) -> Vec<u8> {
        let mut builder = BatchBuilder::new(1000);
        for value in values {
            builder.push(1000, Some(b"key"), Some(value));
        }
        builder.finish()
    }

    #[test]
    fn a_built_batch_is_accepted() {
        let batch = batch_of(&[b"one", b"two"]);
        let header = check_produced(&batch).expect("valid");
        assert_eq!(header.record_count, 2);
        assert_eq!(header.batch_bytes(), batch.len());
    }

    #[test]
    fn every_flipped_bit_after_the_rewritten_part_is_found() {
        let batch = batch_of(&[b"one"]);
        for byte in REWRITTEN_BYTES..batch.len() {
            for bit in 0..8 {
                let mut damaged = batch.clone();
                damaged[byte] ^= 1 << bit;
                assert!(check_produced(&damaged).is_err(), "byte {byte} bit {bit}");
            }
        }
    }

    #[test]
    fn every_cut_is_found() {
        let batch = batch_of(&[b"one", b"two"]);
        for end in 0..batch.len() {
            assert_eq!(check_produced(&batch[..end]), Err(BatchError::Short), "cut at {end}");
        }
    }

    #[test]
    fn bytes_after_the_batch_are_refused_from_producers_and_allowed_in_a_log() {
        let mut batch = batch_of(&[b"one"]);
        batch.push(0);
        assert_eq!(check_produced(&batch), Err(BatchError::Trailing));
        assert!(check_stored(&batch).is_ok());
    }

    #[test]
    fn offset_and_epoch_can_be_rewritten_without_a_new_crc() {
        let mut batch = batch_of(&[b"one"]);
        let header = BatchHeader::read(&batch).expect("header");
        batch[..REWRITTEN_BYTES].copy_from_slice(&header.rewritten(77, 5));
        let header = check_produced(&batch).expect("valid");
        assert_eq!((header.base_offset, header.partition_leader_epoch), (77, 5));
    }

    #[test]
    fn a_count_that_disagrees_with_the_records_is_refused() {
        let mut batch = batch_of(&[b"one", b"two"]);
        batch[57..61].copy_from_slice(&3i32.to_be_bytes());
        batch[23..27].copy_from_slice(&2i32.to_be_bytes());
        seal(&mut batch);
        assert_eq!(check_produced(&batch), Err(BatchError::Count));
    }

    #[test]
    fn log_append_time_keeps_the_batch_valid() {
        let mut batch = batch_of(&[b"one"]);
        set_log_append_time(&mut batch, 5000);
        let header = check_produced(&batch).expect("valid");
        assert_eq!(header.max_timestamp, 5000);
        assert_ne!(header.attributes & ATTRIBUTE_LOG_APPEND_TIME, 0);
    }

    #[test]
    fn sequences_wrap_to_zero() {
        let mut header = BatchHeader::read(&batch_of(&[b"a", b"b"])).expect("header");
        header.base_sequence = i32::MAX;
        assert_eq!(header.last_sequence(), 0);
    }
}
