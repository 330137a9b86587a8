//! The primitive fields that Kafka's records about groups are made of: reading and writing them. Knows no record.

use bytes::Bytes;

/// Reads fields from the front of `bytes`; every read is `None` once they run out or make no sense.
pub(super) struct Reader {
    bytes: Bytes,
    /// Lengths as unsigned varints plus one, and tagged fields (KIP-482).
    pub flexible: bool,
}

impl Reader {
    pub fn new(bytes: &Bytes) -> Reader {
        Reader { bytes: bytes.clone(), flexible: false }
    }

    fn take(&mut self, count: usize) -> Option<Bytes> {
        (count <= self.bytes.len()).then(|| self.bytes.split_to(count))
    }

    pub fn i16(&mut self) -> Option<i16> {
        Some(i16::from_be_bytes(self.take(2)?.as_ref().try_into().ok()?))
    }

    pub fn i32(&mut self) -> Option<i32> {
        Some(i32::from_be_bytes(self.take(4)?.as_ref().try_into().ok()?))
    }

    pub fn i64(&mut self) -> Option<i64> {
        Some(i64::from_be_bytes(self.take(8)?.as_ref().try_into().ok()?))
    }

    fn unsigned_varint(&mut self) -> Option<u32> {
        let mut value: u64 = 0;
        for shift in (0..35).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return u32::try_from(value).ok();
            }
        }
        None
    }

    /// A length: `None` within where the field is null. `wide` is how it is written outside flexible versions: i32, else i16.
    fn length(&mut self, wide: bool) -> Option<Option<usize>> {
        let length = match (self.flexible, wide) {
            (true, _) => i64::from(self.unsigned_varint()?) - 1,
            (false, true) => i64::from(self.i32()?),
            (false, false) => i64::from(self.i16()?),
        };
        match length {
            -1 => Some(None),
            _ => Some(Some(usize::try_from(length).ok()?)),
        }
    }

    pub fn nullable_string(&mut self) -> Option<Option<String>> {
        let Some(length) = self.length(false)? else { return Some(None) };
        String::from_utf8(self.take(length)?.to_vec()).ok().map(Some)
    }

    pub fn string(&mut self) -> Option<String> {
        self.nullable_string()?
    }

    pub fn bytes(&mut self) -> Option<Bytes> {
        let length = self.length(true)??;
        self.take(length)
    }

    /// The count of an array whose elements take a byte or more each; more than there are bytes is refused.
    pub fn array_count(&mut self) -> Option<usize> {
        self.length(true)?.filter(|&count| count <= self.bytes.len())
    }

    /// Skips the tagged fields that end a struct; there are none outside flexible versions.
    pub fn skip_tagged_fields(&mut self) -> Option<()> {
        if !self.flexible {
            return Some(());
        }
        for _ in 0..self.unsigned_varint()? {
            let _tag = self.unsigned_varint()?;
            let length = self.unsigned_varint()?;
            self.take(length as usize)?;
        }
        Some(())
    }
}

/// Writes fields as versions before the flexible ones have them.
#[derive(Default)]
pub(super) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// A writer that begins with the record's version.
    pub fn versioned(version: i16) -> Writer {
        let mut writer = Writer::default();
        writer.i16(version);
        writer
    }

    pub fn i16(&mut self, value: i16) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    pub fn i32(&mut self, value: i32) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    pub fn i64(&mut self, value: i64) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    pub fn string(&mut self, value: &str) {
        self.i16(
            i16::try_from(value.len()).expect("strings are checked against GROUP_STRING_BYTES_MAX when they come in"),
        );
        self.bytes.extend_from_slice(value.as_bytes());
    }

    pub fn nullable_string(&mut self, value: Option<&str>) {
        match value {
            Some(value) => self.string(value),
            None => self.i16(-1),
        }
    }

    pub fn bytes(&mut self, value: &[u8]) {
        self.array_count(value.len());
        self.bytes.extend_from_slice(value);
    }

    pub fn array_count(&mut self, count: usize) {
        self.i32(i32::try_from(count).expect("a request is smaller than 2 GiB"));
    }

    pub fn finish(self) -> Bytes {
        Bytes::from(self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_read_back_until_they_run_out() {
        let mut writer = Writer::versioned(3);
        writer.string("name");
        writer.nullable_string(None);
        writer.bytes(b"opaque");
        writer.i64(-5);
        let mut reader = Reader::new(&writer.finish());
        assert_eq!(reader.i16(), Some(3));
        assert_eq!(reader.string().as_deref(), Some("name"));
        assert_eq!(reader.nullable_string(), Some(None));
        assert_eq!(reader.bytes().as_deref(), Some(&b"opaque"[..]));
        assert_eq!(reader.i64(), Some(-5));
        assert_eq!(reader.i16(), None);
    }

    #[test]
    fn an_array_count_beyond_the_bytes_is_refused() {
        let mut reader = Reader::new(&Bytes::from_static(&[0x7f, 0xff, 0xff, 0xff, 0]));
        assert_eq!(reader.array_count(), None);
    }

    #[test]
    fn flexible_lengths_are_varints_plus_one() {
        let mut reader = Reader::new(&Bytes::from_static(b"\x03ab\x00\x01\x00\x02xy"));
        reader.flexible = true;
        assert_eq!(reader.string().as_deref(), Some("ab"));
        assert_eq!(reader.nullable_string(), Some(None));
        assert_eq!(reader.skip_tagged_fields(), Some(()));
        assert_eq!(reader.i16(), None, "the tagged field took all there was");
    }
}
