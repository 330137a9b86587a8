//! Which bytes of a file will be asked for next: each reader that reads it cold and in order has a stream, which is read ahead of it.
//!
//! The kernel's own readahead would run within sendfile, on the core; so it is off for segments, and this takes its place, in a worker.
//! Touches no file: it only says what to read.

use std::ops::Range;

/// How far ahead of a reader bytes are asked of the disk: some milliseconds of a fast one, so that it never waits for a client.
const AHEAD_BYTES_MAX: u64 = 4 << 20;
/// Bytes asked for at once. The interrupt that ends a read looks at each of its pages, on a core perhaps: 4 MiB took it up to 4 ms.
const STEP_BYTES: u64 = 1 << 20;
/// A reader may go back so far and still be the same: what it was sent may have ended in the middle of what was read for it.
const BACK_BYTES_MAX: u64 = 1 << 20;
/// Readers of one file that are told apart. Of more, those that read last are known.
const STREAMS_MAX: usize = 8;

/// One reader's way through a file.
#[derive(Clone, Copy, Debug)]
struct Stream {
    /// Where it is expected next.
    next: u64,
    /// What has been asked of the disk for it ends here.
    until: u64,
    /// How far ahead it is read: twice as far after each step, so that a short read costs little.
    window: u64,
}

/// The readers of one file, the latest last.
#[derive(Debug, Default)]
pub struct Streams {
    streams: Vec<Stream>,
}

impl Streams {
    /// Somebody reads `range`. Returns what should be read besides, none of it beyond `limit`.
    ///
    /// `is_cold`: the disk has to be asked for `range` itself. A reader becomes a stream with such a read and is read ahead from its next one on.
    pub fn read(&mut self, range: Range<u64>, is_cold: bool, limit: u64) -> Option<Range<u64>> {
        let known = self.streams.iter().rposition(|stream| {
            range.start <= stream.next && stream.next - range.start <= BACK_BYTES_MAX && range.end > stream.next
        });
        let Some(known) = known else {
            if is_cold {
                if self.streams.len() == STREAMS_MAX {
                    self.streams.remove(0);
                }
                self.streams.push(Stream { next: range.end, until: range.end, window: STEP_BYTES });
            }
            return None;
        };
        let mut stream = self.streams.remove(known);
        stream.next = range.end;
        stream.until = stream.until.max(range.end);
        let (from, to) = (stream.until, limit.min(stream.until + STEP_BYTES));
        let is_wanted = from < to && from + STEP_BYTES <= range.end + stream.window;
        if is_wanted {
            stream.until = to;
            stream.window = (2 * stream.window).min(AHEAD_BYTES_MAX);
        }
        self.streams.push(stream);
        is_wanted.then_some(from..to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_reader_in_order_is_read_ahead_with_a_growing_window() {
        let mut streams = Streams::default();
        let slice = MIB / 4;
        assert_eq!(streams.read(0..slice, true, 100 * MIB), None, "it may be a single read");
        let mut until = 2 * slice;
        for at in 1..300 {
            let end = (at + 1) * slice;
            if let Some(ahead) = streams.read(at * slice..end, at < 4, 100 * MIB) {
                assert_eq!(ahead, until..until + STEP_BYTES, "nothing is asked for twice, nothing is left out");
                until = ahead.end;
            }
            let left = until - end;
            assert!(left <= AHEAD_BYTES_MAX, "{left} at {at}");
            assert!(at < 8 || left > AHEAD_BYTES_MAX - STEP_BYTES, "{left} at {at}");
        }
    }

    #[test]
    fn nothing_is_read_beyond_the_limit() {
        let mut streams = Streams::default();
        streams.read(0..MIB, true, 3 * MIB);
        assert_eq!(streams.read(MIB..2 * MIB, true, 5 * MIB / 2), Some(2 * MIB..5 * MIB / 2));
        assert_eq!(streams.read(2 * MIB..5 * MIB / 2, false, 5 * MIB / 2), None);
        // The limit has moved on: a segment that grows.
        assert_eq!(streams.read(5 * MIB / 2..3 * MIB, true, 7 * MIB / 2), Some(3 * MIB..7 * MIB / 2));
    }

    #[test]
    fn reads_here_and_there_and_hot_ones_are_not_followed() {
        let mut streams = Streams::default();
        for at in [7, 3, 11, 5] {
            assert_eq!(streams.read(at * MIB..at * MIB + 1, true, 100 * MIB), None);
        }
        let mut streams = Streams::default();
        for at in 0..10 {
            assert_eq!(streams.read(at * MIB..(at + 1) * MIB, false, 100 * MIB), None);
        }
        assert!(streams.streams.is_empty());
    }

    #[test]
    fn readers_at_several_places_do_not_disturb_each_other() {
        let mut streams = Streams::default();
        let readers = STREAMS_MAX as u64;
        for reader in 0..readers {
            assert_eq!(streams.read(reader * 50 * MIB..(reader * 50 + 1) * MIB, true, 1000 * MIB), None);
        }
        for reader in 0..readers {
            let at = reader * 50 + 1;
            assert!(streams.read(at * MIB..(at + 1) * MIB, true, 1000 * MIB).is_some());
        }
        // One more, and the one that has not read for longest is forgotten.
        streams.read(900 * MIB..901 * MIB, true, 1000 * MIB);
        assert_eq!(streams.streams.len(), STREAMS_MAX);
        assert_eq!(streams.read(2 * MIB..3 * MIB, false, 1000 * MIB), None);
    }

    #[test]
    fn a_reader_that_got_less_than_was_read_for_it_is_still_the_same() {
        let mut streams = Streams::default();
        streams.read(0..MIB, true, 100 * MIB);
        assert_eq!(streams.read(MIB / 2..3 * MIB / 2, true, 100 * MIB), Some(3 * MIB / 2..5 * MIB / 2));
    }
}
