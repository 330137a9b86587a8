//! What the null broker keeps if it is to be read from: batches in files as they come, one file for each partition, never synced, without
//! names. Knows nothing of connections.

use crate::batch;
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Write};
use std::path::PathBuf;
use std::rc::Rc;

/// A batch begins with the offset that its broker gives it.
const BASE_OFFSET_BYTES: usize = 8;

/// Part of a file that is to be sent.
#[derive(Debug)]
pub struct Stretch {
    pub file: Rc<File>,
    pub from: u64,
    pub bytes: u64,
}

struct Log {
    file: Rc<File>,
    bytes: u64,
    end_offset: i64,
    /// Offset and position of each batch.
    batches: Vec<(i64, u64)>,
}

pub struct Kept {
    dir: PathBuf,
    logs: HashMap<(Vec<u8>, i32), Log>,
}

impl Kept {
    /// In files on the disk that `dir` is on; they end with the process.
    pub fn new(dir: PathBuf) -> Kept {
        Kept { dir, logs: HashMap::new() }
    }

    /// Keeps one batch; returns its offset.
    ///
    /// # Errors
    /// Where it is not one whole batch, and as open(2) and write(2).
    pub fn append(&mut self, topic: &[u8], partition: i32, records: &[u8]) -> io::Result<i64> {
        let batch = batch::batches(records).next().filter(|batch| batch.bytes() == records.len());
        let batch = batch.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not one whole batch"))?;
        let log = match self.logs.entry((topic.to_vec(), partition)) {
            std::collections::hash_map::Entry::Occupied(found) => found.into_mut(),
            std::collections::hash_map::Entry::Vacant(place) => {
                let file = Rc::new(nameless(&self.dir)?);
                place.insert(Log { file, bytes: 0, end_offset: 0, batches: Vec::new() })
            }
        };
        let base_offset = log.end_offset;
        if let Err(error) = write_batch(&log.file, base_offset, records) {
            // Part of it may be there, and the next one is to follow the last whole one.
            log.file.set_len(log.bytes)?;
            return Err(error);
        }
        log.batches.push((base_offset, log.bytes));
        log.bytes += records.len() as u64;
        log.end_offset += batch.last_offset - batch.base_offset + 1;
        Ok(base_offset)
    }

    /// The offset behind the last record.
    pub fn end_offset(&self, topic: &[u8], partition: i32) -> i64 {
        self.logs.get(&(topic.to_vec(), partition)).map_or(0, |log| log.end_offset)
    }

    /// Whole batches from the one that holds `offset`, up to `bytes_max` or one; `None` at the end and beyond it.
    pub fn read(&self, topic: &[u8], partition: i32, offset: i64, bytes_max: u64) -> Option<Stretch> {
        let log = self.logs.get(&(topic.to_vec(), partition)).filter(|log| (0..log.end_offset).contains(&offset))?;
        let first = log.batches.partition_point(|(base, _)| *base <= offset) - 1;
        let from = log.batches[first].1;
        let starts = log.batches[first..].iter().map(|(_, at)| *at).skip(1).chain([log.bytes]);
        let fitting = starts.clone().take_while(|end| end - from <= bytes_max).last();
        let end = fitting.or_else(|| starts.clone().next())?;
        Some(Stretch { file: log.file.clone(), from, bytes: end - from })
    }
}

fn write_batch(mut file: &File, base_offset: i64, records: &[u8]) -> io::Result<()> {
    let (head, rest) = (base_offset.to_be_bytes(), &records[BASE_OFFSET_BYTES..]);
    let written = file.write_vectored(&[IoSlice::new(&head), IoSlice::new(rest)])?;
    file.write_all(&head[written.min(head.len())..])?;
    file.write_all(&rest[written.saturating_sub(head.len())..])
}

fn nameless(dir: &std::path::Path) -> io::Result<File> {
    let path = dir.join(format!("ringlog-loadgen-{}-{:08x}", std::process::id(), fastrand::u32(..)));
    let file = OpenOptions::new().read(true).append(true).create_new(true).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    /// A batch of `records` records by its header, the only thing that is looked at, and `body` bytes.
    fn batch(records: i32, body: usize) -> Vec<u8> {
        let mut bytes = vec![7; 61 + body];
        bytes[8..12].copy_from_slice(&(61 + body as i32 - 12).to_be_bytes());
        bytes[23..27].copy_from_slice(&(records - 1).to_be_bytes());
        bytes[57..61].copy_from_slice(&records.to_be_bytes());
        bytes
    }

    #[test]
    fn whole_batches_are_read_from_any_offset() {
        let mut kept = Kept::new(std::env::temp_dir());
        let sizes: [(i32, usize); 3] = [(5, 39), (1, 139), (10, 239)];
        let offsets = sizes.map(|(records, body)| kept.append(b"t", 3, &batch(records, body)).expect("a disk"));
        assert_eq!((offsets, kept.end_offset(b"t", 3)), ([0, 5, 6], 16));
        for (offset, bytes_max, expected) in [
            (0, 1, (0, 100)),
            (4, 299, (0, 100)),
            (4, 300, (0, 300)),
            (5, 10_000, (100, 500)),
            (6, 300, (300, 300)),
            (15, 1, (300, 300)),
        ] {
            let found = kept.read(b"t", 3, offset, bytes_max).expect("it is there");
            assert_eq!((found.from, found.bytes), expected, "{offset} {bytes_max}");
            let mut head = [0; 8];
            found.file.read_exact_at(&mut head, found.from).expect("it was written");
            assert!(offsets.contains(&i64::from_be_bytes(head)));
        }
        assert!(kept.read(b"t", 3, 16, 100).is_none() && kept.read(b"t", 2, 0, 100).is_none());
    }

    #[test]
    fn what_is_not_one_batch_is_refused() {
        let mut kept = Kept::new(std::env::temp_dir());
        let whole = batch(2, 20);
        for bad in [&whole[..80], &whole[..10], &[], &[&whole[..], &whole[..]].concat()] {
            assert!(kept.append(b"t", 0, bad).is_err());
        }
        assert_eq!(kept.end_offset(b"t", 0), 0);
    }
}
