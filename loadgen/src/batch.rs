//! Record batches of format 2: written for Produce, walked in what Fetch brings.
//!
//! Pure. Source: Kafka's documentation, "Record Batch"; KIP-98.

use crate::scenario::Compression;
use std::io::{Read, Write};

/// Bytes before the records.
pub const HEADER_BYTES: usize = 61;
/// What a batch must be long to be walked past: offset and length.
const PREFIX_BYTES: usize = 12;

/// Who numbers a batch; nobody by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbering {
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
}

impl Numbering {
    pub const NONE: Numbering = Numbering { producer_id: -1, producer_epoch: -1, base_sequence: -1 };
}

/// Makes batches one after the other in memory of its own.
pub struct Encoder {
    compression: Compression,
    records: Vec<u8>,
    packed: Vec<u8>,
    count: i32,
}

impl Encoder {
    pub fn new(compression: Compression) -> Encoder {
        Encoder { compression, records: Vec::new(), packed: Vec::new(), count: 0 }
    }

    /// Adds a record whose value `write` appends; it must append `value_bytes` bytes.
    pub fn record(&mut self, key: Option<&[u8]>, value_bytes: usize, write: impl FnOnce(&mut Vec<u8>)) {
        let offset_delta = i64::from(self.count);
        let key_bytes = key.map_or(-1, |key| key.len() as i64);
        let length = 1
            + varint_bytes(0)
            + varint_bytes(offset_delta)
            + varint_bytes(key_bytes)
            + key.map_or(0, <[u8]>::len)
            + varint_bytes(value_bytes as i64)
            + value_bytes
            + varint_bytes(0);
        let out = &mut self.records;
        put_varint(length as i64, out);
        // Attributes, then the time since the batch's first record: all have the same.
        out.push(0);
        put_varint(0, out);
        put_varint(offset_delta, out);
        put_varint(key_bytes, out);
        out.extend_from_slice(key.unwrap_or_default());
        put_varint(value_bytes as i64, out);
        let start = out.len();
        write(out);
        assert_eq!(out.len() - start, value_bytes, "a value is as long as was said");
        put_varint(0, out);
        self.count += 1;
    }

    /// Appends the batch of the records added since the last one to `out`. At least one was.
    pub fn finish(&mut self, timestamp_ms: i64, numbering: Numbering, out: &mut Vec<u8>) {
        assert!(self.count > 0, "a batch has records");
        let records = match self.compression {
            Compression::None => &self.records,
            codec => {
                self.packed.clear();
                pack(codec, &self.records, &mut self.packed);
                &self.packed
            }
        };
        let attributes: i16 = match self.compression {
            Compression::None => 0,
            Compression::Gzip => 1,
            Compression::Snappy => 2,
            Compression::Lz4 => 3,
            Compression::Zstd => 4,
        };
        let start = out.len();
        let length = HEADER_BYTES - PREFIX_BYTES + records.len();
        out.extend_from_slice(&0i64.to_be_bytes());
        out.extend_from_slice(&i32::try_from(length).expect("a batch below 2 GiB").to_be_bytes());
        // No leader epoch; format 2; the checksum comes last.
        out.extend_from_slice(&(-1i32).to_be_bytes());
        out.push(2);
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&attributes.to_be_bytes());
        out.extend_from_slice(&(self.count - 1).to_be_bytes());
        out.extend_from_slice(&timestamp_ms.to_be_bytes());
        out.extend_from_slice(&timestamp_ms.to_be_bytes());
        out.extend_from_slice(&numbering.producer_id.to_be_bytes());
        out.extend_from_slice(&numbering.producer_epoch.to_be_bytes());
        out.extend_from_slice(&numbering.base_sequence.to_be_bytes());
        out.extend_from_slice(&self.count.to_be_bytes());
        out.extend_from_slice(records);
        let sum = crc32c::crc32c(&out[start + 21..]);
        out[start + 17..start + 21].copy_from_slice(&sum.to_be_bytes());
        self.records.clear();
        self.count = 0;
    }
}

fn pack(codec: Compression, records: &[u8], out: &mut Vec<u8>) {
    const MEMORY: &str = "writing to memory does not fail";
    match codec {
        Compression::None => out.extend_from_slice(records),
        Compression::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(out, flate2::Compression::default());
            encoder.write_all(records).and_then(|()| encoder.finish()).expect(MEMORY);
        }
        // One raw block, as librdkafka sends it; Kafka's readers take it beside xerial's framing.
        Compression::Snappy => {
            out.extend_from_slice(&snap::raw::Encoder::new().compress_vec(records).expect("below 4 GiB"));
        }
        Compression::Lz4 => {
            let mut encoder = lz4_flex::frame::FrameEncoder::new(out);
            encoder.write_all(records).expect(MEMORY);
            encoder.finish().expect(MEMORY);
        }
        Compression::Zstd => {
            out.extend_from_slice(&zstd::bulk::compress(records, 0).expect(MEMORY));
        }
    }
}

/// A batch as Fetch brought it.
pub struct Batch<'a> {
    pub base_offset: i64,
    pub last_offset: i64,
    pub records: i32,
    /// The whole of it, header and all.
    bytes: &'a [u8],
}

/// The whole batches of `bytes`; what is cut off at the end is left out, as it is fetched again.
pub fn batches(bytes: &[u8]) -> impl Iterator<Item = Batch<'_>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.len() < HEADER_BYTES {
            return None;
        }
        let length = i32::from_be_bytes(rest[8..12].try_into().expect("four"));
        let total = PREFIX_BYTES + usize::try_from(length).ok()?;
        if total < HEADER_BYTES || rest.len() < total {
            return None;
        }
        let (bytes, after) = rest.split_at(total);
        rest = after;
        let base_offset = i64::from_be_bytes(bytes[..8].try_into().expect("eight"));
        let last_delta = i32::from_be_bytes(bytes[23..27].try_into().expect("four"));
        Some(Batch {
            base_offset,
            last_offset: base_offset + i64::from(last_delta),
            records: i32::from_be_bytes(bytes[57..61].try_into().expect("four")),
            bytes,
        })
    })
}

impl Batch<'_> {
    /// Its size, header included.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Whether the bytes are those that the checksum was made of.
    pub fn is_whole(&self) -> bool {
        self.bytes[17..21] == crc32c::crc32c(&self.bytes[21..]).to_be_bytes()
    }

    /// Hands each record's offset and value to `each`; `scratch` is for unpacking.
    ///
    /// # Errors
    /// Where the records do not follow the format, or do not unpack.
    pub fn values(&self, scratch: &mut Vec<u8>, mut each: impl FnMut(i64, &[u8])) -> Result<(), &'static str> {
        let packed = &self.bytes[HEADER_BYTES..];
        let records = match self.bytes[22] & 7 {
            0 => packed,
            codec => {
                scratch.clear();
                unpack(codec, packed, scratch).ok_or("a batch does not unpack")?;
                &scratch[..]
            }
        };
        let mut rest = records;
        for _ in 0..self.records {
            let (offset, value) = take_record(&mut rest).ok_or("a record is malformed")?;
            each(self.base_offset + offset, value);
        }
        if rest.is_empty() { Ok(()) } else { Err("bytes behind the last record") }
    }
}

fn unpack(codec: u8, packed: &[u8], out: &mut Vec<u8>) -> Option<()> {
    match codec {
        1 => flate2::read::GzDecoder::new(packed).read_to_end(out).ok().map(drop),
        2 => {
            *out = snap::raw::Decoder::new().decompress_vec(packed).ok()?;
            Some(())
        }
        3 => lz4_flex::frame::FrameDecoder::new(packed).read_to_end(out).ok().map(drop),
        4 => zstd::stream::copy_decode(packed, out).ok(),
        _ => None,
    }
}

/// The next record: its offset within the batch and its value (empty where null).
fn take_record<'a>(rest: &mut &'a [u8]) -> Option<(i64, &'a [u8])> {
    let length = usize::try_from(take_varint(rest)?).ok()?;
    let mut record = take(rest, length)?;
    take(&mut record, 1)?;
    take_varint(&mut record)?;
    let offset = take_varint(&mut record)?;
    let key = take_varint(&mut record)?;
    take(&mut record, usize::try_from(key.max(0)).ok()?)?;
    let value = take_varint(&mut record)?;
    let value = take(&mut record, usize::try_from(value.max(0)).ok()?)?;
    Some((offset, value))
}

fn take<'a>(rest: &mut &'a [u8], bytes: usize) -> Option<&'a [u8]> {
    let (taken, after) = rest.split_at_checked(bytes)?;
    *rest = after;
    Some(taken)
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

fn varint_bytes(value: i64) -> usize {
    let bits = 64 - (zigzag(value) | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

fn put_varint(value: i64, out: &mut Vec<u8>) {
    let mut left = zigzag(value);
    while left >= 0x80 {
        out.push(left as u8 | 0x80);
        left >>= 7;
    }
    out.push(left as u8);
}

fn take_varint(rest: &mut &[u8]) -> Option<i64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = take(rest, 1)?[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::records::RecordBatchDecoder;

    const ALL: [Compression; 5] =
        [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

    fn encoded(compression: Compression, values: &[&[u8]]) -> Vec<u8> {
        let mut encoder = Encoder::new(compression);
        let mut out = Vec::new();
        for value in values {
            encoder.record(Some(b"key"), value.len(), |out| out.extend_from_slice(value));
        }
        encoder.finish(1234, Numbering { producer_id: 5, producer_epoch: 1, base_sequence: 9 }, &mut out);
        out
    }

    #[test]
    fn batches_read_as_they_were_written() {
        let long = vec![7; 3000];
        let values: [&[u8]; 4] = [b"one", b"", &long, b"four"];
        for compression in ALL {
            let mut bytes = encoded(compression, &values);
            let one = bytes.len();
            bytes.extend(encoded(compression, &values));
            // The start of a third, as a Fetch cuts it off.
            bytes.extend_from_within(..one - 1);
            let found: Vec<Batch> = batches(&bytes).collect();
            assert_eq!(found.len(), 2, "{compression:?}");
            for batch in &found {
                assert!(batch.is_whole());
                assert_eq!((batch.base_offset, batch.last_offset, batch.records), (0, 3, 4));
                let mut read = Vec::new();
                batch
                    .values(&mut Vec::new(), |offset, value| read.push((offset, value.to_vec())))
                    .expect("well formed");
                let expected: Vec<(i64, Vec<u8>)> = (0..).zip(values.iter().map(|value| value.to_vec())).collect();
                assert_eq!(read, expected, "{compression:?}");
            }
        }
    }

    /// kafka-protocol reads what we write, without compression (which it would take more crates for).
    #[test]
    fn another_reader_agrees() {
        let mut bytes = bytes::Bytes::from(encoded(Compression::None, &[b"one", b"two"]));
        let set = RecordBatchDecoder::decode(&mut bytes).expect("a batch");
        let values: Vec<&[u8]> = set.records.iter().map(|record| record.value.as_deref().expect("a value")).collect();
        assert_eq!(values, [b"one", b"two"]);
        let first = &set.records[0];
        assert_eq!((first.producer_id, first.producer_epoch, first.sequence), (5, 1, 9));
        assert_eq!((first.timestamp, first.key.as_deref()), (1234, Some(&b"key"[..])));
    }

    #[test]
    fn a_changed_byte_breaks_the_checksum() {
        let mut bytes = encoded(Compression::None, &[b"one"]);
        let last = bytes.len() - 2;
        bytes[last] ^= 1;
        assert!(!batches(&bytes).next().expect("a batch").is_whole());
    }

    #[test]
    fn no_bytes_break_the_walk() {
        let mut random = fastrand::Rng::with_seed(3);
        for round in 0..20_000 {
            let mut bytes = encoded(ALL[round % 5], &[b"one", b"two"]);
            for _ in 0..4 {
                let at = random.usize(..bytes.len());
                bytes[at] = random.u8(..);
            }
            for batch in batches(&bytes) {
                // A forged count of records is only walked as far as there are bytes.
                let _ = batch.values(&mut Vec::new(), |_, _| ());
            }
        }
    }
}
