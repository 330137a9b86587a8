//! Writes the wire's primitive types. Records of responses are not copied: the writer leaves holes for them.

use crate::base::ids::TopicId;
use crate::base::limits::STRING_BYTES_MAX;

/// The records of one partition in a Fetch response.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Records<'a> {
    /// Bytes that are copied into the output: for small answers, and what decoding gives.
    Inline(&'a [u8]),
    /// So many bytes will be spliced in here by whoever sends the output; the writer leaves a [`Hole`].
    Hole { bytes: usize },
}

impl Default for Records<'_> {
    /// No records. On the wire their length is 0, never null (KAFKA-18646).
    fn default() -> Self {
        Records::Inline(&[])
    }
}

impl Records<'_> {
    pub fn bytes(&self) -> usize {
        match self {
            Records::Inline(bytes) => bytes.len(),
            Records::Hole { bytes } => *bytes,
        }
    }
}

/// A place in the output where bytes from elsewhere belong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hole {
    /// Bytes of the output before it; holes are not counted.
    pub at: usize,
    /// Bytes that belong there; never 0.
    pub bytes: usize,
}

/// The start of a frame that is being written.
#[derive(Debug)]
#[must_use = "a frame must be ended"]
pub struct FrameStart {
    at: usize,
    hole_bytes: usize,
}

/// Output of the codec: encoded bytes, and the holes in them in ascending order. Holds any number of frames.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
    holes: Vec<Hole>,
    /// The sum over `holes`.
    hole_bytes: usize,
    /// Error codes that were written, other than "none".
    errors: Vec<i16>,
}

/// Room that a frame begins with: a reply to one produced batch fits, and does not grow step by step.
const FRAME_BYTES_EXPECTED: usize = 128;
/// Bytes of a frame's length prefix.
const FRAME_LENGTH_BYTES: usize = 4;

impl Writer {
    pub fn new() -> Writer {
        Writer::default()
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn holes(&self) -> &[Hole] {
        &self.holes
    }

    /// The error codes among what was written, "none" left out.
    pub fn take_errors(&mut self) -> Vec<i16> {
        std::mem::take(&mut self.errors)
    }

    pub fn into_parts(self) -> (Vec<u8>, Vec<Hole>) {
        (self.bytes, self.holes)
    }

    /// Forgets what was written and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.holes.clear();
        self.hole_bytes = 0;
        self.errors.clear();
    }

    /// Leaves room for a frame's length.
    pub fn begin_frame(&mut self) -> FrameStart {
        let start = FrameStart { at: self.bytes.len(), hole_bytes: self.hole_bytes };
        self.bytes.reserve(FRAME_BYTES_EXPECTED);
        self.bytes.extend_from_slice(&[0; FRAME_LENGTH_BYTES]);
        start
    }

    /// Writes the length of the frame, its holes included. Panics at 2 GiB: callers cap what one fetch returns far below.
    pub fn end_frame(&mut self, start: FrameStart) {
        let body_at = start.at + FRAME_LENGTH_BYTES;
        let bytes = self.bytes.len() - body_at + self.hole_bytes - start.hole_bytes;
        let bytes = i32::try_from(bytes).expect("answers are bounded far below 2 GiB");
        self.bytes[start.at..body_at].copy_from_slice(&bytes.to_be_bytes());
    }

    #[inline]
    pub fn bool(&mut self, value: bool) {
        self.bytes.push(value.into());
    }

    #[inline]
    pub fn i8(&mut self, value: i8) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    /// A field that is an error code of Kafka's.
    #[inline]
    pub fn error_code(&mut self, code: i16) {
        if code != 0 {
            self.errors.push(code);
        }
        self.i16(code);
    }

    #[inline]
    pub fn i16(&mut self, value: i16) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    #[inline]
    pub fn u16(&mut self, value: u16) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    #[inline]
    pub fn i32(&mut self, value: i32) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    #[inline]
    pub fn i64(&mut self, value: i64) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    #[inline]
    pub fn f64(&mut self, value: f64) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    #[inline]
    pub fn uuid(&mut self, value: TopicId) {
        self.bytes.extend_from_slice(&value.0);
    }

    #[inline]
    pub fn unsigned_varint(&mut self, value: u32) {
        let (bytes, count) = varint_bytes(value);
        self.bytes.extend_from_slice(&bytes[..count]);
    }

    /// The length or count of something: compact or not, `None` for null.
    #[inline]
    pub fn length(&mut self, length: Option<usize>, flexible: bool) {
        let length = length.map(|length| i32::try_from(length).expect("answers are bounded far below 2 GiB"));
        if flexible {
            // One more than the length, and 0 for null.
            self.unsigned_varint((length.unwrap_or(-1) + 1) as u32);
        } else {
            self.i32(length.unwrap_or(-1));
        }
    }

    #[inline]
    pub fn string(&mut self, text: &str, flexible: bool) {
        // Strings that came over the wire fit. A message that quotes some of them may not, and is cut.
        let text = cut(text);
        if flexible {
            self.unsigned_varint(text.len() as u32 + 1);
        } else {
            self.i16(text.len() as i16);
        }
        self.bytes.extend_from_slice(text.as_bytes());
    }

    #[inline]
    pub fn nullable_string(&mut self, text: Option<&str>, flexible: bool) {
        match text {
            Some(text) => self.string(text, flexible),
            None if flexible => self.unsigned_varint(0),
            None => self.i16(-1),
        }
    }

    #[inline]
    pub fn bytes_field(&mut self, bytes: &[u8], flexible: bool) {
        self.nullable_bytes(Some(bytes), flexible);
    }

    #[inline]
    pub fn nullable_bytes(&mut self, bytes: Option<&[u8]>, flexible: bool) {
        self.length(bytes.map(<[u8]>::len), flexible);
        self.bytes.extend_from_slice(bytes.unwrap_or_default());
    }

    /// The length of `records`, and the records themselves or a hole for them.
    #[inline]
    pub fn records(&mut self, records: &Records<'_>, flexible: bool) {
        self.length(Some(records.bytes()), flexible);
        match *records {
            Records::Inline(bytes) => self.bytes.extend_from_slice(bytes),
            Records::Hole { bytes: 0 } => {}
            Records::Hole { bytes } => {
                self.holes.push(Hole { at: self.bytes.len(), bytes });
                self.hole_bytes += bytes;
            }
        }
    }

    /// One tagged field; `value` writes what it holds.
    pub fn tagged_field(&mut self, tag: u32, value: impl FnOnce(&mut Writer)) {
        self.unsigned_varint(tag);
        let at = self.bytes.len();
        let hole_bytes = self.hole_bytes;
        value(self);
        assert_eq!(hole_bytes, self.hole_bytes, "no tagged field holds records");
        // The size stands before the value and has as many bytes as it needs. Values are small: moving them is the simple way.
        let (size, count) = varint_bytes((self.bytes.len() - at) as u32);
        self.bytes.splice(at..at, size[..count].iter().copied());
    }
}

/// The front of `text` that a string on the wire can hold.
#[inline]
fn cut(text: &str) -> &str {
    let mut end = text.len().min(STRING_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// A varint and how many of the bytes it takes.
#[inline]
fn varint_bytes(mut value: u32) -> ([u8; 5], usize) {
    let mut bytes = [0; 5];
    let mut count = 0;
    while value >= 0x80 {
        bytes[count] = value as u8 | 0x80;
        value >>= 7;
        count += 1;
    }
    bytes[count] = value as u8;
    (bytes, count + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::reader::Reader;

    #[test]
    fn varints_read_back() {
        for value in [0, 1, 127, 128, 16383, 16384, 1 << 21, 1 << 28, u32::MAX] {
            let mut writer = Writer::new();
            writer.unsigned_varint(value);
            assert_eq!(Reader::new(writer.bytes()).unsigned_varint(), Ok(value));
        }
    }

    #[test]
    fn a_frame_counts_its_holes_and_no_other() {
        let mut writer = Writer::new();
        let start = writer.begin_frame();
        writer.records(&Records::Hole { bytes: 1000 }, false);
        writer.end_frame(start);
        let start = writer.begin_frame();
        writer.records(&Records::Inline(b"abc"), false);
        writer.records(&Records::Hole { bytes: 0 }, false);
        writer.records(&Records::Hole { bytes: 7 }, true);
        writer.end_frame(start);
        let expected = b"\x00\x00\x03\xec\x00\x00\x03\xe8\x00\x00\x00\x13\x00\x00\x00\x03abc\x00\x00\x00\x00\x08";
        assert_eq!(writer.bytes(), expected);
        assert_eq!(writer.holes(), [Hole { at: 8, bytes: 1000 }, Hole { at: 24, bytes: 7 }]);
    }

    #[test]
    fn a_string_too_long_for_the_wire_is_cut_between_characters() {
        let text = "ä".repeat(STRING_BYTES_MAX);
        for flexible in [false, true] {
            let mut writer = Writer::new();
            writer.string(&text, flexible);
            let read = Reader::new(writer.bytes()).string(flexible).expect("valid");
            assert_eq!(read, "ä".repeat(STRING_BYTES_MAX / 2));
        }
    }

    #[test]
    fn a_tagged_field_of_more_than_127_bytes_has_a_longer_size() {
        let mut writer = Writer::new();
        writer.tagged_field(3, |w| w.nullable_bytes(Some(&[9; 200]), true));
        assert_eq!(writer.bytes()[..5], [3, 0xca, 0x01, 0xc9, 0x01]);
        assert_eq!(writer.bytes().len(), 1 + 2 + 2 + 200);
    }
}
