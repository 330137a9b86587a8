//! Records inside an uncompressed batch: reading them, and building the batches that the broker itself writes.
//!
//! Compressed batches are looked into by `unpack`. Source: Kafka protocol guide, "Record".

use super::batch::{self, BatchError, HEADER_BYTES, LOG_OVERHEAD_BYTES};
use super::time::TimestampMs;

/// One record, borrowed from its batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record<'a> {
    pub timestamp_delta: i64,
    pub offset_delta: i32,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
}

/// Reads one zigzag varint; `None` where the bytes end or run over 64 bits.
pub fn read_varint(bytes: &mut &[u8]) -> Option<i64> {
    let mut raw: u64 = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        raw |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((raw >> 1) as i64 ^ -((raw & 1) as i64));
        }
    }
    None
}

/// Appends `value` as a zigzag varint.
pub fn write_varint(out: &mut Vec<u8>, value: i64) {
    let mut raw = ((value << 1) ^ (value >> 63)) as u64;
    while raw >= 0x80 {
        out.push(raw as u8 | 0x80);
        raw >>= 7;
    }
    out.push(raw as u8);
}

fn read_bytes<'a>(bytes: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let length = read_varint(bytes)?;
    if length == -1 {
        return Some(None);
    }
    let (taken, rest) = bytes.split_at_checked(usize::try_from(length).ok()?)?;
    *bytes = rest;
    Some(Some(taken))
}

fn read_record<'a>(bytes: &mut &'a [u8]) -> Option<Record<'a>> {
    let mut body = read_bytes(bytes)??;
    let (_attributes, rest) = body.split_first()?;
    body = rest;
    let timestamp_delta = read_varint(&mut body)?;
    let offset_delta = i32::try_from(read_varint(&mut body)?).ok()?;
    let key = read_bytes(&mut body)?;
    let value = read_bytes(&mut body)?;
    let headers = read_varint(&mut body)?;
    if headers < 0 {
        return None;
    }
    for _ in 0..headers {
        read_bytes(&mut body)??;
        read_bytes(&mut body)?;
    }
    body.is_empty().then_some(Record { timestamp_delta, offset_delta, key, value })
}

/// Walks the records of an uncompressed batch: their number, offset deltas and lengths must be what the header states.
///
/// # Errors
/// `Record` where one does not parse, `Count` where there are more or fewer, or the offsets have gaps.
pub fn check(mut bytes: &[u8], record_count: i32) -> Result<(), BatchError> {
    for expected in 0..record_count {
        if bytes.is_empty() {
            return Err(BatchError::Count);
        }
        let record = read_record(&mut bytes).ok_or(BatchError::Record)?;
        if record.offset_delta != expected {
            return Err(BatchError::Count);
        }
    }
    if bytes.is_empty() { Ok(()) } else { Err(BatchError::Count) }
}

/// The records of an uncompressed batch (header included in `batch`); ends at the first one that does not parse.
pub fn records(batch: &[u8]) -> impl Iterator<Item = Record<'_>> {
    let mut rest = batch.get(HEADER_BYTES..).unwrap_or_default();
    std::iter::from_fn(move || if rest.is_empty() { None } else { read_record(&mut rest) })
}

/// Builds an uncompressed batch, for records that the broker writes on its own behalf.
pub struct BatchBuilder {
    bytes: Vec<u8>,
    base_timestamp: TimestampMs,
    max_timestamp: TimestampMs,
    record_count: i32,
}

impl BatchBuilder {
    pub fn new(base_timestamp: TimestampMs) -> BatchBuilder {
        BatchBuilder { bytes: vec![0; HEADER_BYTES], base_timestamp, max_timestamp: base_timestamp, record_count: 0 }
    }

    pub fn push(&mut self, timestamp: TimestampMs, key: Option<&[u8]>, value: Option<&[u8]>) {
        let mut body = vec![0];
        write_varint(&mut body, timestamp - self.base_timestamp);
        write_varint(&mut body, i64::from(self.record_count));
        for part in [key, value] {
            write_varint(&mut body, part.map_or(-1, |bytes| bytes.len() as i64));
            body.extend_from_slice(part.unwrap_or_default());
        }
        write_varint(&mut body, 0);
        write_varint(&mut self.bytes, body.len() as i64);
        self.bytes.extend_from_slice(&body);
        self.record_count += 1;
        self.max_timestamp = self.max_timestamp.max(timestamp);
    }

    pub fn is_empty(&self) -> bool {
        self.record_count == 0
    }

    /// Bytes of the batch so far, header included.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The whole batch, with base offset 0 and a valid CRC. At least one record must have been pushed.
    pub fn finish(mut self) -> Vec<u8> {
        assert!(self.record_count > 0);
        let length = (self.bytes.len() - LOG_OVERHEAD_BYTES) as i32;
        let out = &mut self.bytes;
        out[8..12].copy_from_slice(&length.to_be_bytes());
        out[12..16].copy_from_slice(&(-1i32).to_be_bytes());
        out[16] = 2;
        out[23..27].copy_from_slice(&(self.record_count - 1).to_be_bytes());
        out[27..35].copy_from_slice(&self.base_timestamp.to_be_bytes());
        out[35..43].copy_from_slice(&self.max_timestamp.to_be_bytes());
        out[43..51].copy_from_slice(&batch::NO_PRODUCER_ID.to_be_bytes());
        out[51..53].copy_from_slice(&(-1i16).to_be_bytes());
        out[53..57].copy_from_slice(&batch::NO_SEQUENCE.to_be_bytes());
        out[57..61].copy_from_slice(&self.record_count.to_be_bytes());
        batch::seal(out);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_read_back() {
        for value in [0, 1, -1, 63, 64, -64, -65, i64::from(i32::MAX), i64::MAX, i64::MIN] {
            let mut out = Vec::new();
            write_varint(&mut out, value);
            let mut rest = &out[..];
            assert_eq!(read_varint(&mut rest), Some(value));
            assert!(rest.is_empty());
        }
    }

    #[test]
    fn a_varint_without_end_is_none() {
        assert_eq!(read_varint(&mut &[0xff; 11][..]), None);
        assert_eq!(read_varint(&mut &[0x80][..]), None);
    }

    #[test]
    fn records_read_back_with_nulls_and_empties() {
        let mut builder = BatchBuilder::new(10);
        builder.push(10, None, None);
        builder.push(12, Some(b""), Some(b""));
        builder.push(11, Some(b"k"), Some(b"v"));
        let batch = builder.finish();
        let read: Vec<_> = records(&batch).map(|r| (r.timestamp_delta, r.key, r.value)).collect();
        assert_eq!(read, [(0, None, None), (2, Some(&b""[..]), Some(&b""[..])), (1, Some(&b"k"[..]), Some(&b"v"[..]))]);
        assert_eq!(batch::BatchHeader::read(&batch).expect("header").max_timestamp, 12);
    }
}
