//! Fixed-width fields for our own encodings (snapshots, metadata commands): big-endian, checked on reading, never a panic.
//!
//! Not the Kafka wire: that is `protocol`. Not the record batch: that is `batch`.

/// Bytes that [`seal`] adds: a version in front, a CRC32C behind.
pub const SEAL_BYTES: usize = 5;

/// Why sealed bytes were not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FieldsError {
    /// The CRC does not match: the bytes were damaged.
    Crc,
    /// Written by a version of Ringlog that this one does not know.
    Version(u8),
    /// Undamaged, but the fields end early, run on, or say what cannot be.
    Malformed,
}

/// Frames `body` with a version in front and the CRC32C of both behind.
pub fn seal(version: u8, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len() + SEAL_BYTES);
    out.push(version);
    out.extend_from_slice(body);
    let crc = crc32c::crc32c(&out);
    out.extend_from_slice(&crc.to_be_bytes());
    out
}

/// Takes off what [`seal`] put on: the version and a reader over the body.
///
/// # Errors
/// `Crc` where the bytes are damaged or too few. Whether the version is known is for the caller to say.
pub fn open(bytes: &[u8]) -> Result<(u8, Fields<'_>), FieldsError> {
    let (sealed, crc) = bytes.split_last_chunk::<4>().ok_or(FieldsError::Crc)?;
    if crc32c::crc32c(sealed) != u32::from_be_bytes(*crc) {
        return Err(FieldsError::Crc);
    }
    let (&version, body) = sealed.split_first().ok_or(FieldsError::Crc)?;
    Ok((version, Fields { rest: body }))
}

/// Reads fields from the front of bytes; `Malformed` where they have run out.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub fn new(bytes: &'a [u8]) -> Fields<'a> {
        Fields { rest: bytes }
    }

    /// Bytes not read yet. A count read from the bytes must not make a caller reserve more than these can hold.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    fn chunk<const N: usize>(&mut self) -> Result<[u8; N], FieldsError> {
        let (chunk, rest) = self.rest.split_first_chunk::<N>().ok_or(FieldsError::Malformed)?;
        self.rest = rest;
        Ok(*chunk)
    }

    pub fn u8(&mut self) -> Result<u8, FieldsError> {
        Ok(self.chunk::<1>()?[0])
    }

    pub fn u16(&mut self) -> Result<u16, FieldsError> {
        Ok(u16::from_be_bytes(self.chunk()?))
    }

    pub fn u32(&mut self) -> Result<u32, FieldsError> {
        Ok(u32::from_be_bytes(self.chunk()?))
    }

    pub fn i16(&mut self) -> Result<i16, FieldsError> {
        Ok(i16::from_be_bytes(self.chunk()?))
    }

    pub fn i32(&mut self) -> Result<i32, FieldsError> {
        Ok(i32::from_be_bytes(self.chunk()?))
    }

    pub fn i64(&mut self) -> Result<i64, FieldsError> {
        Ok(i64::from_be_bytes(self.chunk()?))
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], FieldsError> {
        self.chunk()
    }

    /// Text behind its length in bytes (`u16`), as [`put_text`] writes it.
    pub fn text(&mut self) -> Result<&'a str, FieldsError> {
        let length = usize::from(self.u16()?);
        let (bytes, rest) = self.rest.split_at_checked(length).ok_or(FieldsError::Malformed)?;
        self.rest = rest;
        std::str::from_utf8(bytes).map_err(|_| FieldsError::Malformed)
    }

    /// Says that nothing may follow.
    pub fn end(&self) -> Result<(), FieldsError> {
        if self.rest.is_empty() { Ok(()) } else { Err(FieldsError::Malformed) }
    }
}

/// Appends `text` behind its length. At most 65 535 bytes: callers bound what they take from clients below that.
pub fn put_text(out: &mut Vec<u8>, text: &str) {
    let length = u16::try_from(text.len()).expect("text is bounded where it comes in");
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sealed_bytes_open_and_every_flipped_bit_is_found() {
        let sealed = seal(3, b"body");
        let (version, fields) = open(&sealed).expect("undamaged");
        assert_eq!((version, fields.remaining()), (3, 4));
        for bit in 0..sealed.len() * 8 {
            let mut damaged = sealed.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(open(&damaged), Err(FieldsError::Crc)), "bit {bit}");
        }
        for end in 0..sealed.len() {
            assert!(open(&sealed[..end]).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn fields_end_with_an_error_and_not_a_panic() {
        let mut bytes = 7u16.to_be_bytes().to_vec();
        put_text(&mut bytes, "név");
        let mut fields = Fields::new(&bytes);
        assert_eq!(fields.u16(), Ok(7));
        assert_eq!(fields.end(), Err(FieldsError::Malformed));
        assert_eq!(fields.text(), Ok("név"));
        assert_eq!(fields.end(), Ok(()));
        assert_eq!(fields.i64(), Err(FieldsError::Malformed));
        assert_eq!(Fields::new(&[0, 2, 0xc3, 0x28]).text(), Err(FieldsError::Malformed));
        assert_eq!(Fields::new(&[0, 9, b'a']).text(), Err(FieldsError::Malformed));
    }
}
