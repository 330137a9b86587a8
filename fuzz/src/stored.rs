//! A log that is read through to its end, and what must be true of it. For the targets that begin with damaged files.

use super::sim::bench::Bench;
use ringlog::base::batch::{self, REWRITTEN_BYTES};
use ringlog::base::ids::{Offset, PartitionId};
use ringlog::log::{LogError, LogIndex, ReadError, Recovered};
use std::collections::HashMap;

/// Times that a read may ask for `load` before it counts as hung.
const LOADS_MAX: usize = 4;

/// Every batch that was ever appended, by partition and base offset; several where records were cut off and others came.
pub type History = HashMap<(PartitionId, Offset), Vec<Vec<u8>>>;

/// Adds the batches at the front of `bytes`.
pub fn remember(history: &mut History, id: PartitionId, bytes: &[u8]) {
    for (header, whole) in batch::batches(bytes) {
        if batch::check_stored(whole).is_err() {
            break;
        }
        let known = history.entry((id, header.base_offset)).or_default();
        if !known.iter().any(|batch| batch == whole) {
            known.push(whole.to_vec());
        }
    }
}

/// A batch is whole, stands where `next` says or behind a gap, and, if a history is given, is what was once appended there. Returns
/// the offset behind it.
pub fn check_batch(id: PartitionId, whole: &[u8], next: Option<Offset>, history: Option<&History>) -> Offset {
    let header = batch::check_stored(whole).expect("a batch that is served is whole");
    assert_eq!(header.batch_bytes(), whole.len());
    if let Some(next) = next {
        assert!(header.base_offset >= next, "{id}: offset {} behind {next}", header.base_offset);
    }
    if let Some(history) = history {
        assert!(
            next.is_none_or(|next| header.base_offset == next),
            "{id}: a gap at {next:?}, then {}",
            header.base_offset
        );
        let known = history.get(&(id, header.base_offset)).map_or(&[][..], Vec::as_slice);
        let is_known = known.iter().any(|batch| batch[REWRITTEN_BYTES..] == whole[REWRITTEN_BYTES..]);
        assert!(is_known, "{id}: offset {} names other bytes", header.base_offset);
    }
    header.next_offset()
}

/// Opens what was recovered; `None` where it is found damaged.
pub fn open(bench: &mut Bench, recovered: Recovered) -> Option<LogIndex> {
    let (log, settings) = (bench.log(), bench.partition);
    match bench.world.run(log.open_partition(recovered, settings, b"")) {
        Err(LogError::Damaged(_)) => None,
        opened => Some(opened.expect("the disk answers")),
    }
}

/// Reads from the start to the end, in steps of `step_bytes`; `None` where something on the way is damaged. `is_whole`: `verify` said
/// that nothing is, and nobody has forged an index, which it does not look at.
pub fn read_through(bench: &mut Bench, index: LogIndex, step_bytes: usize, is_whole: bool) -> Option<Vec<Vec<u8>>> {
    let log = bench.log();
    let (mut offset, end) = log.offsets(index).expect("open");
    let mut batches = Vec::new();
    let mut loads = 0;
    while offset < end {
        match bench.read(index, offset, step_bytes) {
            Ok(bytes) => {
                let mut parsed = 0;
                let from = offset;
                for (header, whole) in batch::batches(&bytes) {
                    parsed += whole.len();
                    if header.next_offset() > offset {
                        offset = header.next_offset();
                        batches.push(whole.to_vec());
                    }
                }
                if parsed < bytes.len() || offset <= from {
                    assert!(!is_whole, "batches are served whole, from {from} on: {parsed} of {} bytes", bytes.len());
                    return None;
                }
                loads = 0;
            }
            Err(ReadError::NotLoaded) => {
                loads += 1;
                assert!(loads < LOADS_MAX, "a read at {offset} is never ready");
                match bench.world.run(log.load(index, offset, Offset::MAX)) {
                    Err(LogError::Damaged(_)) => return None,
                    loaded => loaded.expect("the disk answers"),
                }
            }
            Err(error) => panic!("{error:?} at {offset}"),
        }
    }
    Some(batches)
}

/// Whether the scrub finds nothing.
pub fn is_whole(bench: &mut Bench, index: LogIndex) -> bool {
    let log = bench.log();
    match bench.world.run(log.verify(index)) {
        Err(LogError::Damaged(_)) => false,
        verified => {
            verified.expect("the disk answers");
            true
        }
    }
}
