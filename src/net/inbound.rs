//! What a connection has received: finds the frames in it, holds what is not yet whole.
//!
//! It never reads a socket itself and never looks into a request. Memory is taken as bytes arrive, whatever length a frame
//! announces.

use crate::base::limits::{OTHER_REQUEST_BYTES_MAX, REQUEST_BYTES_MIN};
use bytes::{Buf, Bytes};
use std::fmt;

/// Bytes of the length in front of a frame.
pub const LENGTH_BYTES: usize = 4;
/// The key of Produce, with which a frame begins.
const PRODUCE: [u8; 2] = [0, 0];
/// The first memory that a partial frame gets; after that it doubles until the frame fits.
pub const FIRST_BYTES: usize = 4 << 10;

/// Why a connection cannot be understood and is closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameError {
    TooShort(i32),
    TooLong { bytes: u32, bytes_max: usize },
    OtherTooLong { key: i16, bytes: u32 },
    Negative(i32),
    Tls,
    Http,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FrameError::TooShort(bytes) => write!(f, "a frame of {bytes} bytes is too short for a request"),
            FrameError::TooLong { bytes, bytes_max } => {
                write!(f, "a frame of {bytes} bytes is over socket.request.max.bytes={bytes_max}")
            }
            FrameError::OtherTooLong { key, bytes } => write!(
                f,
                "a frame of {bytes} bytes of API key {key} is over {OTHER_REQUEST_BYTES_MAX} bytes, which is the most for all but Produce"
            ),
            FrameError::Negative(bytes) => write!(f, "a frame of {bytes} bytes: this is not Kafka's protocol"),
            FrameError::Tls => write!(f, "a TLS hello on a plaintext listener; set security.protocol=PLAINTEXT"),
            FrameError::Http => write!(f, "an HTTP request on a Kafka listener"),
        }
    }
}

/// Whether a frame, without its length, is a Produce. Every frame holds at least a key.
pub fn is_produce(frame: &[u8]) -> bool {
    frame.starts_with(&PRODUCE)
}

/// Length of the frame at the front of `bytes`, without the four bytes of the length itself; `None` if not even those are there.
/// A frame that is too long is refused as soon as its length shows that, or its key.
pub fn frame_bytes(bytes: &[u8], bytes_max: usize) -> Result<Option<usize>, FrameError> {
    let Some((prefix, rest)) = bytes.split_first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
    let length = checked_length(*prefix, bytes_max)?;
    match rest.first_chunk() {
        Some(&key) if key != PRODUCE && length > OTHER_REQUEST_BYTES_MAX => {
            Err(FrameError::OtherTooLong { key: i16::from_be_bytes(key), bytes: length as u32 })
        }
        _ => Ok(Some(length)),
    }
}

fn checked_length(prefix: [u8; LENGTH_BYTES], bytes_max: usize) -> Result<usize, FrameError> {
    match &prefix {
        // A TLS record: handshake (22), version 3.x.
        [22, 3, 0..=4, _] => return Err(FrameError::Tls),
        b"GET " | b"POST" | b"PUT " | b"HEAD" | b"OPTI" | b"DELE" | b"CONN" | b"PATC" | b"PRI " => {
            return Err(FrameError::Http);
        }
        _ => {}
    }
    let length = i32::from_be_bytes(prefix);
    match usize::try_from(length) {
        Err(_) => Err(FrameError::Negative(length)),
        Ok(bytes) if bytes < REQUEST_BYTES_MIN => Err(FrameError::TooShort(length)),
        Ok(bytes) if bytes > bytes_max => Err(FrameError::TooLong { bytes: bytes as u32, bytes_max }),
        Ok(bytes) => Ok(bytes),
    }
}

/// Bytes of a connection that have arrived and wait: for the rest of their frame, or for their turn.
#[derive(Default)]
pub struct Inbound {
    buffer: Vec<u8>,
    /// The most that was held since `shrink` was last asked.
    peak: usize,
}

impl Inbound {
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    pub fn bytes(&self) -> &[u8] {
        &self.buffer
    }

    /// Memory in use, filled or not.
    pub fn capacity(&self) -> usize {
        self.buffer.capacity()
    }

    /// Takes out what is held, and the memory with it. `recycle` gives it back when it has been used.
    pub fn take(&mut self) -> Bytes {
        self.peak = self.peak.max(self.buffer.len());
        Bytes::from(std::mem::take(&mut self.buffer))
    }

    /// Takes memory back that `take` gave, if nobody keeps a part of it and no other is in use; all but the first `used` bytes of it are
    /// held on. Without `keep`, only what those need is held.
    pub fn recycle(&mut self, mut taken: Bytes, used: usize, keep: bool) {
        taken.advance(used);
        if keep && self.buffer.capacity() == 0 && taken.is_unique() {
            // The only owner gets the memory itself; what is left of its content moves to the front.
            self.buffer = Vec::from(taken);
        } else if !taken.is_empty() {
            self.hold(&taken);
        }
    }

    /// Gives memory back of which not even a quarter was used since the last time.
    pub fn shrink(&mut self) {
        let used = std::mem::take(&mut self.peak).max(self.buffer.len());
        if used < self.buffer.capacity() / 4 || used == 0 {
            let held = std::mem::take(&mut self.buffer);
            if !held.is_empty() {
                self.hold(&held);
            }
        }
    }

    /// Holds `bytes` after what is already held.
    pub fn hold(&mut self, bytes: &[u8]) {
        let end = self.buffer.len() + bytes.len();
        if end > self.buffer.capacity() {
            self.grow(end.max(FIRST_BYTES) - self.buffer.capacity());
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// Takes so much more memory.
    pub fn grow(&mut self, bytes: usize) {
        self.buffer.reserve_exact(self.buffer.capacity() + bytes - self.buffer.len());
    }

    /// Bytes that are still missing from the first frame held, 0 if it is whole. The length itself counts, too.
    pub fn missing(&self, bytes_max: usize) -> Result<usize, FrameError> {
        let Some(frame) = frame_bytes(self.bytes(), bytes_max)? else {
            return Ok(LENGTH_BYTES - self.buffer.len());
        };
        Ok((LENGTH_BYTES + frame).saturating_sub(self.buffer.len()))
    }

    /// How much larger the memory must become before some of `missing` bytes can be received; 0: there is room. What is held and as much
    /// again, or all of a frame that is as long as its peer's last one, of `last_bytes`: one of 90 MiB that is only announced holds 4 KiB.
    pub fn growth(&self, missing: usize, last_bytes: usize) -> usize {
        let held = self.buffer.len();
        if held < self.buffer.capacity() {
            return 0;
        }
        held.max(last_bytes.saturating_sub(held)).max(FIRST_BYTES).min(missing)
    }

    /// Where `missing` bytes are to be received: the memory, and how many of them it has room for.
    pub fn room(&mut self, missing: usize) -> (&mut Vec<u8>, usize) {
        let room = (self.buffer.capacity() - self.buffer.len()).min(missing);
        (&mut self.buffer, room)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_out_of_bounds_are_refused() {
        let max = 100;
        assert_eq!(frame_bytes(&8i32.to_be_bytes(), max), Ok(Some(8)));
        assert_eq!(frame_bytes(&8i32.to_be_bytes()[..3], max), Ok(None));
        assert_eq!(frame_bytes(&7i32.to_be_bytes(), max), Err(FrameError::TooShort(7)));
        assert_eq!(frame_bytes(&100i32.to_be_bytes(), max), Ok(Some(100)));
        assert_eq!(frame_bytes(&101i32.to_be_bytes(), max), Err(FrameError::TooLong { bytes: 101, bytes_max: 100 }));
        assert_eq!(frame_bytes(&(-1i32).to_be_bytes(), max), Err(FrameError::Negative(-1)));
    }

    #[test]
    fn frames_other_than_produce_have_a_smaller_bound() {
        let begin = |length: usize, key: i16| [&(length as u32).to_be_bytes()[..], &key.to_be_bytes()].concat();
        let (most, max) = (OTHER_REQUEST_BYTES_MAX, 100 << 20);
        let refused = |key| Err(FrameError::OtherTooLong { key, bytes: most as u32 + 1 });
        assert_eq!(frame_bytes(&begin(most + 1, 0), max), Ok(Some(most + 1)), "a Produce");
        for key in [1, 3, 256, -1, i16::MAX] {
            assert_eq!(frame_bytes(&begin(most, key), max), Ok(Some(most)));
            assert_eq!(frame_bytes(&begin(most + 1, key), max), refused(key));
        }
        assert_eq!(frame_bytes(&begin(most + 1, 3)[..5], max), Ok(Some(most + 1)), "its key has not come");
    }

    #[test]
    fn other_protocols_are_named() {
        assert_eq!(frame_bytes(&[22, 3, 1, 2], 100), Err(FrameError::Tls));
        assert_eq!(frame_bytes(b"GET ", 100), Err(FrameError::Http));
        assert_eq!(frame_bytes(b"PRI ", 100), Err(FrameError::Http), "HTTP/2");
    }

    #[test]
    fn a_frame_grows_with_its_bytes_and_not_with_its_announcement() {
        for last in [0, 1000, 50_000] {
            let mut inbound = Inbound::default();
            let announced = 90i32 << 20;
            inbound.hold(&announced.to_be_bytes());
            let mut arrived = LENGTH_BYTES;
            while arrived < 1 << 20 {
                let missing = inbound.missing(100 << 20).expect("valid");
                inbound.grow(inbound.growth(missing, last));
                let (memory, room) = inbound.room(missing);
                let used = room.min(1000);
                memory.resize(memory.len() + used, 0);
                arrived += used;
                assert!(inbound.capacity() <= (2 * arrived).max(2 * FIRST_BYTES).max(last), "{arrived}");
            }
            assert_eq!(inbound.take().len(), arrived);
        }
    }

    #[test]
    fn a_frame_is_filled_to_its_end_and_no_further() {
        let mut inbound = Inbound::default();
        inbound.hold(&[0, 0]);
        assert_eq!(inbound.missing(100), Ok(2));
        inbound.hold(&[0, 10, 1]);
        assert_eq!(inbound.missing(100), Ok(9));
        assert_eq!(inbound.growth(9, 100), 0);
        assert_eq!(inbound.room(9).1, 9);
        inbound.hold(&[0; 9]);
        assert_eq!(inbound.missing(100), Ok(0));
        assert_eq!(inbound.take().len(), 14);
    }

    #[test]
    fn a_frame_like_the_last_one_has_its_memory_at_once() {
        let mut inbound = Inbound::default();
        inbound.hold(&[0; FIRST_BYTES]);
        assert_eq!(inbound.growth(1 << 20, 700_000), 700_000 - FIRST_BYTES);
        assert_eq!(inbound.growth(1 << 20, 2 << 20), 1 << 20, "the frame's end");
        assert_eq!(inbound.growth(1 << 20, 0), FIRST_BYTES);
        assert_eq!(inbound.growth(10, 0), 10);
    }

    #[test]
    fn memory_comes_back_unless_somebody_keeps_a_part() {
        let mut inbound = Inbound::default();
        inbound.hold(b"first and rest");
        let capacity = inbound.capacity();
        let taken = inbound.take();
        let memory = taken.as_ptr();
        let used = taken.len() - 4;
        inbound.recycle(taken, used, true);
        assert_eq!((inbound.bytes(), inbound.bytes().as_ptr()), (&b"rest"[..], memory));
        assert_eq!(inbound.capacity(), capacity);

        let taken = inbound.take();
        let kept = taken.slice(..2);
        inbound.recycle(taken, 2, true);
        assert_eq!((inbound.bytes(), &kept[..]), (&b"st"[..], &b"re"[..]));
        assert_ne!(inbound.bytes().as_ptr(), memory);
    }

    #[test]
    fn memory_that_is_not_used_any_more_goes_though_a_little_is_held() {
        let mut inbound = Inbound::default();
        inbound.hold(&vec![7; 1 << 20]);
        let taken = inbound.take();
        inbound.recycle(taken, (1 << 20) - 3, true);
        inbound.shrink();
        assert_eq!(inbound.capacity(), 1 << 20, "it was used a moment ago");
        inbound.shrink();
        assert_eq!((inbound.capacity(), inbound.bytes()), (FIRST_BYTES, &[7; 3][..]));
        let taken = inbound.take();
        inbound.recycle(taken, 3, false);
        assert_eq!(inbound.capacity(), 0);
    }
}
