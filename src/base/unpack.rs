//! Where the records of a compressed batch stand in time, found without holding what it unpacks to.
//!
//! Only for searches by time: on its way in and out a batch stays as its producer packed it. Works in steps, so that a caller who shares its
//! thread can do something else in between. Source: Kafka protocol guide, "Record Batch"; snappy-java's framing, "SnappyInputStream".

use super::batch::{BatchHeader, Compression, HEADER_BYTES};
use std::io::{self, BufRead, BufReader, Read};

/// Bytes unpacked in one step, at most.
pub const STEP_BYTES: usize = 64 << 10;
/// Bytes that a batch may unpack to; of more it is not known what it holds. No batch of a client that means well comes near it.
pub const UNPACKED_BYTES_MAX: u64 = 256 << 20;
/// A block of snappy is unpacked whole; it may come to this.
const SNAPPY_BLOCK_BYTES_MAX: usize = 8 << 20;
/// A window that a frame of zstd may ask memory for: 8 MiB, which every decoder should allow (RFC 8878, 3.1.1.1.2).
const ZSTD_WINDOW_LOG_MAX: u32 = 23;
/// What snappy-java writes before its blocks: this, then a version and the oldest compatible one, four bytes each.
const SNAPPY_JAVA_MAGIC: &[u8] = b"\x82SNAPPY\x00";
const SNAPPY_JAVA_HEADER_BYTES: usize = 16;

/// What a step has come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// In the middle of a record.
    Within,
    Record {
        timestamp_delta: i64,
        offset_delta: i32,
    },
    End,
}

/// A compressed batch on its way through its records.
pub struct Unpacking<'a> {
    reader: BufReader<Box<dyn Read + 'a>>,
    records_left: i32,
    /// Bytes of the last record that were not looked at.
    skip: u64,
    taken: u64,
}

impl<'a> Unpacking<'a> {
    /// Begins with a batch, header included. `None` where it is not compressed, or in a way that is not known.
    ///
    /// # Errors
    /// The decoder's, where it looks at the bytes at once.
    pub fn new(header: &BatchHeader, batch: &'a [u8]) -> io::Result<Option<Unpacking<'a>>> {
        let packed = batch.get(HEADER_BYTES..).unwrap_or_default();
        let reader: Box<dyn Read + 'a> = match header.compression() {
            None | Some(Compression::None) => return Ok(None),
            Some(Compression::Gzip) => Box::new(flate2::read::GzDecoder::new(packed)),
            Some(Compression::Snappy) => Box::new(Snappy::new(packed)),
            Some(Compression::Lz4) => Box::new(lz4_flex::frame::FrameDecoder::new(packed)),
            Some(Compression::Zstd) => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(packed)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
                Box::new(decoder)
            }
        };
        let reader = BufReader::with_capacity(STEP_BYTES, reader);
        Ok(Some(Unpacking { reader, records_left: header.record_count, skip: 0, taken: 0 }))
    }

    /// Bytes that were unpacked and looked at or passed over.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// Goes on to the next record, or part of the way.
    ///
    /// # Errors
    /// What is unpacked is damaged, is not records, or is more than [`UNPACKED_BYTES_MAX`].
    pub fn step(&mut self) -> io::Result<Step> {
        if self.skip > 0 {
            let ready = self.reader.fill_buf()?.len();
            if ready == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let skipped = (ready as u64).min(self.skip);
            self.reader.consume(skipped as usize);
            self.skip -= skipped;
            self.count(skipped)?;
            return Ok(Step::Within);
        }
        if self.records_left <= 0 {
            return Ok(Step::End);
        }
        self.records_left -= 1;
        let bytes = u64::try_from(self.varint()?).map_err(|_| io::ErrorKind::InvalidData)?;
        let before = self.taken;
        self.byte()?;
        let timestamp_delta = self.varint()?;
        let offset_delta = i32::try_from(self.varint()?).map_err(|_| io::ErrorKind::InvalidData)?;
        self.skip = bytes.checked_sub(self.taken - before).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Step::Record { timestamp_delta, offset_delta })
    }

    fn count(&mut self, bytes: u64) -> io::Result<()> {
        self.taken += bytes;
        if self.taken > UNPACKED_BYTES_MAX { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(()) }
    }

    fn byte(&mut self) -> io::Result<u8> {
        let mut byte = [0];
        self.reader.read_exact(&mut byte)?;
        self.count(1)?;
        Ok(byte[0])
    }

    /// A zigzag varint.
    fn varint(&mut self) -> io::Result<i64> {
        let mut raw: u64 = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            raw |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok((raw >> 1) as i64 ^ -((raw & 1) as i64));
            }
        }
        Err(io::ErrorKind::InvalidData.into())
    }
}

/// Snappy as Kafka's clients write it: blocks with their lengths, as snappy-java does, or one bare block.
struct Snappy<'a> {
    rest: &'a [u8],
    is_framed: bool,
    block: io::Cursor<Vec<u8>>,
}

impl<'a> Snappy<'a> {
    fn new(packed: &'a [u8]) -> Snappy<'a> {
        let is_framed = packed.starts_with(SNAPPY_JAVA_MAGIC) && packed.len() >= SNAPPY_JAVA_HEADER_BYTES;
        let rest = if is_framed { &packed[SNAPPY_JAVA_HEADER_BYTES..] } else { packed };
        Snappy { rest, is_framed, block: io::Cursor::default() }
    }

    fn next_block(&mut self) -> io::Result<()> {
        let mut packed = std::mem::take(&mut self.rest);
        if self.is_framed {
            let (length, behind) = packed.split_first_chunk().ok_or(io::ErrorKind::UnexpectedEof)?;
            let bytes = u32::from_be_bytes(*length) as usize;
            (packed, self.rest) = behind.split_at_checked(bytes).ok_or(io::ErrorKind::UnexpectedEof)?;
        }
        // What a block says that it comes to is believed only within the limit.
        if snap::raw::decompress_len(packed)? > SNAPPY_BLOCK_BYTES_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.block = io::Cursor::new(snap::raw::Decoder::new().decompress_vec(packed)?);
        Ok(())
    }
}

impl Read for Snappy<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.block.read(buffer)?;
            if read > 0 || self.rest.is_empty() || buffer.is_empty() {
                return Ok(read);
            }
            self.next_block()?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::batch;
    use crate::base::record::BatchBuilder;
    use proptest::prelude::*;
    use std::io::Write;

    const CODECS: [i16; 4] = [1, 2, 3, 4];

    /// A batch of records a second apart, of so many bytes each, packed by `codec`.
    fn packed(codec: i16, count: usize, bytes: usize, framed: bool) -> Vec<u8> {
        let mut builder = BatchBuilder::new(1_000);
        for n in 0..count {
            builder.push(1_000 + 1_000 * n as i64, None, Some(&vec![n as u8; bytes]));
        }
        let plain = builder.finish();
        let (head, records) = plain.split_at(HEADER_BYTES);
        let body = match codec {
            1 => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(records).unwrap();
                encoder.finish().unwrap()
            }
            2 if framed => {
                let mut out = [SNAPPY_JAVA_MAGIC, &1u32.to_be_bytes(), &1u32.to_be_bytes()].concat();
                for part in records.chunks(32 << 10) {
                    let block = snap::raw::Encoder::new().compress_vec(part).unwrap();
                    out.extend_from_slice(&(block.len() as u32).to_be_bytes());
                    out.extend_from_slice(&block);
                }
                out
            }
            2 => snap::raw::Encoder::new().compress_vec(records).unwrap(),
            3 => {
                let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
                encoder.write_all(records).unwrap();
                encoder.finish().unwrap()
            }
            _ => zstd::bulk::compress(records, 3).unwrap(),
        };
        sealed(head, codec, &body)
    }

    fn sealed(head: &[u8], codec: i16, body: &[u8]) -> Vec<u8> {
        let mut whole = [head, body].concat();
        let length = whole.len() as i32 - 12;
        whole[8..12].copy_from_slice(&length.to_be_bytes());
        whole[21..23].copy_from_slice(&codec.to_be_bytes());
        batch::seal(&mut whole);
        whole
    }

    fn unpack(batch: &[u8]) -> io::Result<Vec<(i64, i32)>> {
        let header = BatchHeader::read(batch).expect("a header");
        let mut unpacking = Unpacking::new(&header, batch)?.expect("compressed");
        let mut found = Vec::new();
        loop {
            match unpacking.step()? {
                Step::Within => {}
                Step::Record { timestamp_delta, offset_delta } => found.push((timestamp_delta, offset_delta)),
                Step::End => return Ok(found),
            }
        }
    }

    #[test]
    fn every_codec_shows_when_its_records_were() {
        for codec in CODECS {
            for (count, bytes) in [(1, 0), (100, 10), (7, 200 << 10)] {
                for framed in [false, true] {
                    let expected: Vec<_> = (0..count).map(|n| (1_000 * n as i64, n as i32)).collect();
                    let found = unpack(&packed(codec, count, bytes, framed)).expect("whole");
                    assert_eq!(found, expected, "{codec} {bytes} {framed}");
                }
            }
        }
    }

    #[test]
    fn what_is_not_compressed_needs_no_unpacking() {
        let mut builder = BatchBuilder::new(0);
        builder.push(0, None, None);
        let plain = builder.finish();
        let header = BatchHeader::read(&plain).expect("a header");
        assert!(Unpacking::new(&header, &plain).expect("nothing to fail").is_none());
    }

    #[test]
    fn a_batch_that_unpacks_to_too_much_is_given_up() {
        let head = &packed(1, 1, 0, false)[..HEADER_BYTES];
        // One record that says it has 1 GiB, most of it zeros.
        let mut record = Vec::new();
        crate::base::record::write_varint(&mut record, 1 << 30);
        record.resize(300 << 20, 0);
        let bomb = zstd::bulk::compress(&record, 1).unwrap();
        assert!(bomb.len() < 1 << 20);
        assert_eq!(unpack(&sealed(head, 4, &bomb)).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        // A block of snappy that claims 4 GiB.
        let claim = [&[0xff, 0xff, 0xff, 0xff, 0x0f][..], &[0; 20]].concat();
        assert!(unpack(&sealed(head, 2, &claim)).is_err());
    }

    proptest! {
        #[test]
        fn damaged_bytes_end_in_an_error_or_in_records(codec in 1i16..=4, framed: bool, at: usize, mask in 1u8.., cut: bool) {
            let mut batch = packed(codec, 20, 300, framed);
            let at = HEADER_BYTES + at % (batch.len() - HEADER_BYTES);
            if cut { batch.truncate(at) } else { batch[at] ^= mask }
            let _ = unpack(&batch);
        }
    }
}
