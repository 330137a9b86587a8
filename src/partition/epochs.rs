//! Leader epochs of one partition: at which offset each leader began, for followers and consumers that look for a divergence.
//!
//! Refuses to know who leads; that is `cluster`. Source: KIP-101, KIP-279, KIP-320; Kafka `LeaderEpochFileCache`.

use crate::base::fields::{self, FieldsError};
use crate::base::ids::Offset;

/// "No such epoch" and "no such offset" on the wire.
pub const UNDEFINED: i32 = -1;
pub const UNDEFINED_OFFSET: Offset = -1;

const ENCODING_VERSION: u8 = 1;
const ENTRY_BYTES: usize = 4 + 8;

/// One leader epoch and the offset of its first record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EpochStart {
    pub epoch: i32,
    pub start_offset: Offset,
}

/// The epochs of which the log holds records, oldest first.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LeaderEpochs {
    /// Invariant: epochs and start offsets both strictly grow and are at least 0.
    entries: Vec<EpochStart>,
}

impl LeaderEpochs {
    pub fn entries(&self) -> &[EpochStart] {
        &self.entries
    }

    pub fn latest(&self) -> Option<EpochStart> {
        self.entries.last().copied()
    }

    /// Takes note that records from `start_offset` on are of `epoch`. True where that was news, and must be kept durably.
    ///
    /// Entries that contradict it (of an epoch as new, or starting as late) go: they told of records that never came to be.
    /// An epoch older than the latest is a leader that was replaced and is not taken.
    pub fn assign(&mut self, epoch: i32, start_offset: Offset) -> bool {
        assert!(epoch >= 0 && start_offset >= 0);
        if self.latest().is_some_and(|latest| latest.epoch >= epoch) {
            return false;
        }
        self.truncate_end(start_offset);
        self.entries.push(EpochStart { epoch, start_offset });
        true
    }

    /// Where `epoch` ends: the largest known epoch up to `requested`, and the start of the one after it (`log_end` for the latest).
    ///
    /// Answers OffsetForLeaderEpoch. `(UNDEFINED, UNDEFINED_OFFSET)` where `requested` is newer than all that is known. Where it
    /// is older than all that is left, the answer is the requested epoch and the first known start offset.
    pub fn end_offset(&self, requested: i32, log_end: Offset) -> (i32, Offset) {
        let after = self.entries.partition_point(|entry| entry.epoch <= requested);
        let floor = after.checked_sub(1).map(|index| self.entries[index]);
        match (floor, self.entries.get(after)) {
            _ if requested == UNDEFINED => (UNDEFINED, UNDEFINED_OFFSET),
            (Some(floor), None) if floor.epoch == requested => (requested, log_end),
            (_, None) => (UNDEFINED, UNDEFINED_OFFSET),
            (Some(floor), Some(next)) => (floor.epoch, next.start_offset),
            (None, Some(next)) => (requested, next.start_offset),
        }
    }

    /// The epoch of the record at `offset`; `None` before the first known one.
    pub fn epoch_of(&self, offset: Offset) -> Option<i32> {
        let after = self.entries.partition_point(|entry| entry.start_offset <= offset);
        Some(self.entries[after.checked_sub(1)?].epoch)
    }

    /// Forgets epochs that start at `log_end` or later: the log was cut there.
    pub fn truncate_end(&mut self, log_end: Offset) {
        self.entries.truncate(self.entries.partition_point(|entry| entry.start_offset < log_end));
    }

    /// Forgets epochs that end at or before `log_start`; the one that holds it starts there now.
    pub fn truncate_start(&mut self, log_start: Offset) {
        let after = self.entries.partition_point(|entry| entry.start_offset <= log_start);
        if let Some(holder) = after.checked_sub(1) {
            self.entries.drain(..holder);
            self.entries[0].start_offset = log_start;
        }
    }

    /// All epochs as bytes for [`LeaderEpochs::decode`]; versioned, with a CRC.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(self.entries.len() * ENTRY_BYTES);
        for entry in &self.entries {
            body.extend_from_slice(&entry.epoch.to_be_bytes());
            body.extend_from_slice(&entry.start_offset.to_be_bytes());
        }
        fields::seal(ENCODING_VERSION, &body)
    }

    /// Reads what [`LeaderEpochs::encode`] wrote.
    ///
    /// # Errors
    /// Damaged bytes, an unknown version, or epochs that do not grow.
    pub fn decode(bytes: &[u8]) -> Result<LeaderEpochs, FieldsError> {
        let (version, mut body) = fields::open(bytes)?;
        if version != ENCODING_VERSION {
            return Err(FieldsError::Version(version));
        }
        let mut entries: Vec<EpochStart> = Vec::with_capacity(body.remaining() / ENTRY_BYTES);
        while body.remaining() > 0 {
            let entry = EpochStart { epoch: body.i32()?, start_offset: body.i64()? };
            let before = entries.last().map_or((-1, -1), |last| (last.epoch, last.start_offset));
            if entry.epoch <= before.0 || entry.start_offset <= before.1 {
                return Err(FieldsError::Malformed);
            }
            entries.push(entry);
        }
        Ok(LeaderEpochs { entries })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn epochs(entries: &[(i32, Offset)]) -> LeaderEpochs {
        let mut epochs = LeaderEpochs::default();
        for &(epoch, start_offset) in entries {
            assert!(epochs.assign(epoch, start_offset));
        }
        epochs
    }

    fn pairs(epochs: &LeaderEpochs) -> Vec<(i32, Offset)> {
        epochs.entries().iter().map(|entry| (entry.epoch, entry.start_offset)).collect()
    }

    #[test]
    fn end_offsets_are_kafkas() {
        let known = epochs(&[(2, 10), (3, 20), (6, 50)]);
        let log_end = 90;
        for (requested, expected) in [
            (UNDEFINED, (-1, -1)),
            (0, (0, 10)),
            (1, (1, 10)),
            (2, (2, 20)),
            (3, (3, 50)),
            (4, (3, 50)),
            (5, (3, 50)),
            (6, (6, 90)),
            (7, (-1, -1)),
        ] {
            assert_eq!(known.end_offset(requested, log_end), expected, "epoch {requested}");
        }
        assert_eq!(LeaderEpochs::default().end_offset(0, 0), (-1, -1));
    }

    #[test]
    fn the_same_or_an_older_epoch_is_no_news() {
        let mut known = epochs(&[(2, 10)]);
        assert!(!known.assign(2, 15));
        assert!(!known.assign(1, 15));
        assert_eq!(pairs(&known), [(2, 10)]);
    }

    #[test]
    fn an_epoch_that_wrote_nothing_is_replaced_by_the_next() {
        let mut known = epochs(&[(2, 10), (3, 20)]);
        assert!(known.assign(4, 20));
        assert_eq!(pairs(&known), [(2, 10), (4, 20)]);
    }

    #[test]
    fn truncation_keeps_what_the_log_still_holds() {
        let mut known = epochs(&[(2, 10), (3, 20), (6, 50)]);
        known.truncate_end(50);
        assert_eq!(pairs(&known), [(2, 10), (3, 20)]);
        known.truncate_end(21);
        assert_eq!(pairs(&known), [(2, 10), (3, 20)]);
        known.truncate_start(9);
        assert_eq!(pairs(&known), [(2, 10), (3, 20)]);
        known.truncate_start(15);
        assert_eq!(pairs(&known), [(2, 15), (3, 20)]);
        known.truncate_start(20);
        assert_eq!(pairs(&known), [(3, 20)]);
        assert_eq!((known.epoch_of(19), known.epoch_of(20), known.epoch_of(1000)), (None, Some(3), Some(3)));
    }

    #[test]
    fn epochs_that_do_not_grow_are_not_decoded() {
        for entries in [&[(3, 10), (3, 20)][..], &[(3, 10), (4, 10)], &[(-1, 0)], &[(0, -1)]] {
            let mut body = Vec::new();
            for &(epoch, start) in entries {
                body.extend_from_slice(&i32::to_be_bytes(epoch));
                body.extend_from_slice(&i64::to_be_bytes(start));
            }
            let decoded = LeaderEpochs::decode(&fields::seal(ENCODING_VERSION, &body));
            assert_eq!(decoded, Err(FieldsError::Malformed), "{entries:?}");
        }
    }

    proptest! {
        #[test]
        fn any_history_keeps_the_order_and_reads_back(steps in prop::collection::vec((0..4u8, 0..40i32, 0..40i64), 0..40)) {
            let mut known = LeaderEpochs::default();
            for (step, epoch, offset) in steps {
                match step {
                    0 => known.truncate_end(offset),
                    1 => known.truncate_start(offset),
                    _ => { known.assign(epoch, offset); }
                }
                prop_assert!(known.entries().is_sorted_by(|a, b| a.epoch < b.epoch && a.start_offset < b.start_offset));
                let decoded = LeaderEpochs::decode(&known.encode());
                prop_assert_eq!(decoded.as_ref(), Ok(&known));
            }
        }
    }
}
