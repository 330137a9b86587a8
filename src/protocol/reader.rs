//! Reads the wire's primitive types from a frame. Copies nothing, and allocates no more than the bytes at hand justify.

use super::error::DecodeError;
use super::writer::Records;
use crate::base::ids::TopicId;
use crate::base::limits::{DECODE_BYTES_BASE, DECODE_BYTES_MAX, DECODE_BYTES_PER_BYTE, STRING_BYTES_MAX};

type Result<T> = std::result::Result<T, DecodeError>;

/// A place in a frame, and the memory that decoding it may still take.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
    /// Bytes of `Vec` elements that may yet be allocated.
    budget_bytes: usize,
}

impl<'a> Reader<'a> {
    /// Reads `frame`, which stands without its length prefix.
    pub fn new(frame: &'a [u8]) -> Reader<'a> {
        let budget_bytes = frame.len().saturating_mul(DECODE_BYTES_PER_BYTE).saturating_add(DECODE_BYTES_BASE);
        Reader { rest: frame, budget_bytes: budget_bytes.min(DECODE_BYTES_MAX) }
    }

    /// What has not been read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    #[inline]
    fn take(&mut self, bytes: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(bytes).ok_or(DecodeError::End)?;
        self.rest = rest;
        Ok(taken)
    }

    #[inline]
    fn take_array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(DecodeError::End)?;
        self.rest = rest;
        Ok(*taken)
    }

    /// Any byte but 0 is true, as in Kafka.
    #[inline]
    pub fn bool(&mut self) -> Result<bool> {
        Ok(self.take_array::<1>()?[0] != 0)
    }

    #[inline]
    pub fn i8(&mut self) -> Result<i8> {
        Ok(i8::from_be_bytes(self.take_array()?))
    }

    #[inline]
    pub fn i16(&mut self) -> Result<i16> {
        Ok(i16::from_be_bytes(self.take_array()?))
    }

    #[inline]
    pub fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_be_bytes(self.take_array()?))
    }

    #[inline]
    pub fn i32(&mut self) -> Result<i32> {
        Ok(i32::from_be_bytes(self.take_array()?))
    }

    #[inline]
    pub fn i64(&mut self) -> Result<i64> {
        Ok(i64::from_be_bytes(self.take_array()?))
    }

    #[inline]
    pub fn f64(&mut self) -> Result<f64> {
        Ok(f64::from_be_bytes(self.take_array()?))
    }

    #[inline]
    pub fn uuid(&mut self) -> Result<TopicId> {
        Ok(TopicId(self.take_array()?))
    }

    /// Seven bits a byte, lowest first; at most 32 bits in at most 5 bytes.
    #[inline]
    pub fn unsigned_varint(&mut self) -> Result<u32> {
        let mut value: u64 = 0;
        for shift in [0, 7, 14, 21, 28] {
            let byte = self.take_array::<1>()?[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return u32::try_from(value).map_err(|_| DecodeError::Varint);
            }
        }
        Err(DecodeError::Varint)
    }

    /// The length of something compact: one is added on the wire, so that 0 is null.
    #[inline]
    fn compact_length(&mut self) -> Result<Option<usize>> {
        Ok(self.unsigned_varint()?.checked_sub(1).map(|length| length as usize))
    }

    /// The length of something that is not compact: -1 is null.
    #[inline]
    fn plain_length(length: i32) -> Result<Option<usize>> {
        match length {
            -1 => Ok(None),
            length => usize::try_from(length).map(Some).map_err(|_| DecodeError::Length),
        }
    }

    #[inline]
    fn length(&mut self, flexible: bool) -> Result<Option<usize>> {
        if flexible { self.compact_length() } else { Reader::plain_length(self.i32()?) }
    }

    /// A string whose length may be compact.
    #[inline]
    pub fn nullable_string(&mut self, flexible: bool) -> Result<Option<&'a str>> {
        let length = if flexible { self.compact_length()? } else { Reader::plain_length(self.i16()?.into())? };
        let Some(bytes) = length else { return Ok(None) };
        if bytes > STRING_BYTES_MAX {
            return Err(DecodeError::Length);
        }
        let text = std::str::from_utf8(self.take(bytes)?).map_err(|_| DecodeError::Utf8)?;
        Ok(Some(text))
    }

    #[inline]
    pub fn string(&mut self, flexible: bool) -> Result<&'a str> {
        self.nullable_string(flexible)?.ok_or(DecodeError::Null)
    }

    #[inline]
    pub fn nullable_bytes(&mut self, flexible: bool) -> Result<Option<&'a [u8]>> {
        match self.length(flexible)? {
            Some(bytes) => self.take(bytes).map(Some),
            None => Ok(None),
        }
    }

    #[inline]
    pub fn bytes(&mut self, flexible: bool) -> Result<&'a [u8]> {
        self.nullable_bytes(flexible)?.ok_or(DecodeError::Null)
    }

    /// Records of a response; null reads as none.
    #[inline]
    pub fn records(&mut self, flexible: bool) -> Result<Records<'a>> {
        Ok(Records::Inline(self.nullable_bytes(flexible)?.unwrap_or_default()))
    }

    /// An array of elements that take at least `element_bytes_min` on the wire, each read by `element`.
    #[inline]
    pub fn nullable_array<T>(
        &mut self,
        flexible: bool,
        element_bytes_min: usize,
        mut element: impl FnMut(&mut Reader<'a>) -> Result<T>,
    ) -> Result<Option<Vec<T>>> {
        let Some(count) = self.length(flexible)? else { return Ok(None) };
        self.charge(count, element_bytes_min, size_of::<T>())?;
        let mut elements = Vec::with_capacity(count);
        for _ in 0..count {
            elements.push(element(self)?);
        }
        Ok(Some(elements))
    }

    #[inline]
    pub fn array<T>(
        &mut self,
        flexible: bool,
        element_bytes_min: usize,
        element: impl FnMut(&mut Reader<'a>) -> Result<T>,
    ) -> Result<Vec<T>> {
        self.nullable_array(flexible, element_bytes_min, element)?.ok_or(DecodeError::Null)
    }

    /// Takes the memory of `count` elements from the budget, if the bytes left can hold that many at all.
    fn charge(&mut self, count: usize, wire_bytes_min: usize, memory_bytes: usize) -> Result<()> {
        if count.checked_mul(wire_bytes_min).is_none_or(|bytes| bytes > self.rest.len()) {
            return Err(DecodeError::Count);
        }
        let memory_bytes = count.checked_mul(memory_bytes).ok_or(DecodeError::Budget)?;
        self.budget_bytes = self.budget_bytes.checked_sub(memory_bytes).ok_or(DecodeError::Budget)?;
        Ok(())
    }

    /// The tagged fields at the end of a struct. `known` reads the value of a tag it knows and returns whether it did.
    ///
    /// # Errors
    /// `Tag` where a known field does not fill exactly the size it states.
    #[inline]
    pub fn tagged_fields(&mut self, mut known: impl FnMut(&mut Reader<'a>, u32) -> Result<bool>) -> Result<()> {
        // Each field takes two bytes at least, so that a large count runs out of bytes, not of time.
        for _ in 0..self.unsigned_varint()? {
            let tag = self.unsigned_varint()?;
            let bytes = self.unsigned_varint()? as usize;
            let mut value = Reader { rest: self.take(bytes)?, budget_bytes: self.budget_bytes };
            if known(&mut value, tag)? && !value.rest.is_empty() {
                return Err(DecodeError::Tag);
            }
            self.budget_bytes = value.budget_bytes;
        }
        Ok(())
    }

    /// Passes over tagged fields, none of which this struct knows.
    #[inline]
    pub fn skip_tagged_fields(&mut self) -> Result<()> {
        self.tagged_fields(|_, _| Ok(false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_end_within_32_bits() {
        let cases: [(&[u8], Result<u32>); 6] = [
            (&[0], Ok(0)),
            (&[0x80, 0x01], Ok(128)),
            (&[0xff, 0xff, 0xff, 0xff, 0x0f], Ok(u32::MAX)),
            (&[0xff, 0xff, 0xff, 0xff, 0x1f], Err(DecodeError::Varint)),
            (&[0x80, 0x80, 0x80, 0x80, 0x80, 0x00], Err(DecodeError::Varint)),
            (&[0x80], Err(DecodeError::End)),
        ];
        for (bytes, expected) in cases {
            assert_eq!(Reader::new(bytes).unsigned_varint(), expected, "{bytes:?}");
        }
    }

    #[test]
    fn strings_have_a_length_that_kafka_allows() {
        assert_eq!(Reader::new(b"\x00\x02ab").string(false), Ok("ab"));
        assert_eq!(Reader::new(b"\x03ab").string(true), Ok("ab"));
        assert_eq!(Reader::new(b"\xff\xff").nullable_string(false), Ok(None));
        assert_eq!(Reader::new(b"\xff\xff").string(false), Err(DecodeError::Null));
        assert_eq!(Reader::new(b"\xff\xfe").string(false), Err(DecodeError::Length));
        assert_eq!(Reader::new(b"\x00").nullable_string(true), Ok(None));
        assert_eq!(Reader::new(b"\x00\x02\xc3\x28").string(false), Err(DecodeError::Utf8));
        let mut long = vec![0x81, 0x80, 0x02];
        long.resize(3 + 32768, b'x');
        assert_eq!(Reader::new(&long).string(true), Err(DecodeError::Length));
        long[..3].copy_from_slice(&[0x80, 0x80, 0x02]);
        assert_eq!(Reader::new(&long).string(true).map(str::len), Ok(32767));
    }

    #[test]
    fn an_array_must_fit_the_bytes_after_it() {
        let three = [0, 0, 0, 3, 0, 1, 0, 2, 0, 3];
        assert_eq!(Reader::new(&three).array(false, 2, |r| r.i16()), Ok(vec![1, 2, 3]));
        assert_eq!(Reader::new(&three[..9]).array(false, 2, |r| r.i16()), Err(DecodeError::Count));
        assert_eq!(Reader::new(&[0xff; 4]).nullable_array(false, 2, |r| r.i16()), Ok(None));
        assert_eq!(Reader::new(&[0x80, 0, 0, 0]).array(false, 2, |r| r.i16()), Err(DecodeError::Length));
    }

    #[test]
    fn memory_is_bounded_by_the_bytes_of_the_frame() {
        // Elements of one byte on the wire and 64 in memory, four times as many as the budget allows.
        let count = 64 << 10;
        let mut frame = u32::to_be_bytes(count).to_vec();
        frame.resize(4 + count as usize, 0);
        let decoded = Reader::new(&frame).array(false, 1, |r| Ok([u64::from(r.bool()?); 8]));
        assert_eq!(decoded, Err(DecodeError::Budget));
    }

    #[test]
    fn memory_is_bounded_whatever_the_bytes_of_the_frame() {
        let decode = |count: usize| {
            let frame = [&u32::to_be_bytes(count as u32)[..], &vec![0; 2 * count]].concat();
            Reader::new(&frame).array(false, 2, |r| r.string(false)).map(|strings| strings.len())
        };
        let most = DECODE_BYTES_MAX / size_of::<&str>();
        assert_eq!(decode(most), Ok(most));
        assert_eq!(decode(most + 1), Err(DecodeError::Budget));
    }

    #[test]
    fn the_budget_is_shared_with_tagged_fields() {
        let reader = Reader::new(&[1, 0, 3, 2, 7, 7]);
        let before = reader.budget_bytes;
        let mut reader = reader;
        let read = reader.tagged_fields(|r, _| r.array(true, 1, |r| r.i8()).map(|_| true));
        assert_eq!(read, Err(DecodeError::Tag), "the array holds one of the two bytes");
        let mut reader = Reader::new(&[1, 0, 3, 3, 7, 7]);
        assert_eq!(reader.tagged_fields(|r, _| r.array(true, 1, |r| r.i8()).map(|_| true)), Ok(()));
        assert_eq!(reader.budget_bytes, before - 2);
    }

    #[test]
    fn unknown_tagged_fields_are_passed_over() {
        let mut reader = Reader::new(&[2, 5, 1, 0xaa, 9, 0, 0x42]);
        assert_eq!(reader.skip_tagged_fields(), Ok(()));
        assert_eq!(reader.rest(), [0x42]);
        assert_eq!(Reader::new(&[1, 5, 2, 0xaa]).skip_tagged_fields(), Err(DecodeError::End));
    }
}
