//! What a record carries in its value so that a consumer can tell who sent it, when, and whether it is whole.
//!
//! Pure. Big-endian: magic (4), run (4), producer (4), CRC-32C of the rest of the value (4), number (8), due (8), then filling.

/// Bytes of a mark: the least a marked value has.
pub const MARK_BYTES: usize = 32;
const MAGIC: [u8; 4] = *b"RLLG";

/// Who sent a record, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The run that made it: records of earlier runs on the same topic are none of this one's business.
    pub run: u32,
    /// Counts producers from 0.
    pub producer: u32,
    /// Counts the producer's records in this partition from 0.
    pub number: u64,
    /// When it should have been sent, ns on the run's clock.
    pub due: u64,
}

/// What a value turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    Whole(Mark),
    /// It begins as a marked value and is not as it was sent.
    Damaged,
    /// Somebody else's record.
    Foreign,
}

impl Mark {
    /// Appends a value of `bytes` bytes, at least `MARK_BYTES`, to `out`; `filling` is what the rest repeats.
    pub fn append(&self, bytes: usize, filling: &[u8], out: &mut Vec<u8>) {
        assert!(bytes >= MARK_BYTES, "a mark needs {MARK_BYTES} bytes");
        let start = out.len();
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&self.run.to_be_bytes());
        out.extend_from_slice(&self.producer.to_be_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.number.to_be_bytes());
        out.extend_from_slice(&self.due.to_be_bytes());
        fill(bytes - MARK_BYTES, filling, out);
        let sum = checksum(&out[start..]);
        out[start + 12..start + 16].copy_from_slice(&sum.to_be_bytes());
    }
}

/// Appends `bytes` bytes of `filling`, over and over.
pub fn fill(bytes: usize, filling: &[u8], out: &mut Vec<u8>) {
    let mut left = bytes;
    while left > 0 {
        let piece = left.min(filling.len());
        out.extend_from_slice(&filling[..piece]);
        left -= piece;
    }
}

fn checksum(value: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&value[..12]), &value[16..])
}

fn field<const N: usize>(value: &[u8], at: usize) -> [u8; N] {
    value[at..at + N].try_into().expect("within a mark")
}

/// Reads the mark of `value`. `with_checksum`: looks at every byte; otherwise at the mark's own alone.
pub fn read(value: &[u8], with_checksum: bool) -> Read {
    if value.len() < MARK_BYTES || value[..4] != MAGIC {
        return Read::Foreign;
    }
    if with_checksum && checksum(value) != u32::from_be_bytes(field(value, 12)) {
        return Read::Damaged;
    }
    Read::Whole(Mark {
        run: u32::from_be_bytes(field(value, 4)),
        producer: u32::from_be_bytes(field(value, 8)),
        number: u64::from_be_bytes(field(value, 16)),
        due: u64::from_be_bytes(field(value, 24)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARK: Mark = Mark { run: 9, producer: 3, number: 1 << 40, due: 77 };

    #[test]
    fn a_mark_reads_as_it_was_written() {
        for bytes in [MARK_BYTES, MARK_BYTES + 1, 500] {
            let mut value = Vec::new();
            MARK.append(bytes, b"abc", &mut value);
            assert_eq!(value.len(), bytes);
            assert_eq!(read(&value, true), Read::Whole(MARK));
        }
    }

    #[test]
    fn any_changed_byte_is_noticed() {
        let mut value = Vec::new();
        MARK.append(60, b"abc", &mut value);
        for at in 0..value.len() {
            value[at] ^= 0x10;
            let expected = if at < 4 { Read::Foreign } else { Read::Damaged };
            assert_eq!(read(&value, true), expected, "byte {at}");
            value[at] ^= 0x10;
        }
    }

    #[test]
    fn short_values_are_foreign() {
        assert_eq!(read(b"RLLG", true), Read::Foreign);
        assert_eq!(read(b"", true), Read::Foreign);
    }
}
