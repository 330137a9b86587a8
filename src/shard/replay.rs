//! Reads the logs that the broker writes itself from their start: the metadata log and `__consumer_offsets`. Decides nothing.

use super::Shard;
use super::snapshots::group_state_bytes;
use super::startup::{StartFailure, io};
use crate::base::ids::{Offset, PartitionId};
use crate::base::record::records;
use crate::cluster::commands::Command;
use crate::cluster::image::Image;
use crate::cluster::snapshot;
use crate::group::Input;
use crate::log::{CoreLog, LogIndex};
use crate::ports::{Disk, Piece};
use bytes::{Bytes, BytesMut};
use std::cell::RefCell;
use std::rc::Rc;

/// Bytes of a log read at once when the broker replays its own records.
const REPLAY_BYTES: usize = 1 << 20;

impl<D: Disk> Shard<D> {
    /// Replays one partition of `__consumer_offsets` into the coordinator.
    pub(super) async fn load_group_partition(
        shard: &Rc<RefCell<Shard<D>>>,
        id: PartitionId,
    ) -> Result<(), StartFailure> {
        let now = (shard.borrow().world.now)();
        shard.borrow_mut().group_step(Input::LoadStarted(id.index), now);
        let target = shard.clone();
        let log_bytes = for_each_record(shard, id, |key, value| {
            let Some(key) = key else { return };
            let (key, value) = (Bytes::copy_from_slice(key), value.map(Bytes::copy_from_slice));
            let replayed = target.borrow_mut().coordinating.groups.replay(id.index, &key, value.as_ref());
            if let Err(error) = replayed {
                tracing::warn!(partition = id.index, ?error, "a record of __consumer_offsets is passed over");
            }
        })
        .await?;
        let now = (shard.borrow().world.now)();
        let mut this = shard.borrow_mut();
        this.group_step(Input::LoadFinished(id.index), now);
        let state_bytes = group_state_bytes(&this.coordinating.groups, id.index);
        this.watch_growth(id, log_bytes, state_bytes);
        Ok(())
    }
}

/// Reads the metadata log. Returns the image, and the bytes that were read.
pub(super) async fn read_image<D: Disk>(
    shard: &Rc<RefCell<Shard<D>>>,
    id: PartitionId,
) -> Result<(Image, u64), StartFailure> {
    let mut replay = snapshot::Replay::default();
    let mut bad = None;
    let bytes = for_each_record(shard, id, |key, value| {
        let taken = match Command::decode(value.unwrap_or_default()) {
            Ok(command) => replay.take(key, &command).map_err(|wrong| format!("{wrong:?}")),
            Err(error) => Err(format!("a command cannot be read: {error:?}")),
        };
        if let Err(what) = taken {
            bad.get_or_insert(what);
        }
    })
    .await?;
    match bad {
        Some(what) => Err(StartFailure::Damaged(format!("metadata log: {what}"))),
        None => Ok((replay.finish(), bytes)),
    }
}

/// Reads all records of a partition that the broker writes itself. Returns the bytes of their batches.
async fn for_each_record<D: Disk>(
    shard: &Rc<RefCell<Shard<D>>>,
    id: PartitionId,
    mut each: impl FnMut(Option<&[u8]>, Option<&[u8]>),
) -> Result<u64, StartFailure> {
    let (log, disk, index, end) = {
        let this = shard.borrow();
        let Some(slot) = this.slot(id) else { return Ok(0) };
        let partition = &this.partitions[slot as usize];
        (this.log.clone(), this.disk.clone(), partition.log, partition.watermark.high_watermark())
    };
    let mut bytes = 0;
    let read = replay_log(&log, &disk, index, end, |batch| {
        bytes += batch.len() as u64;
        records(batch).for_each(|record| each(record.key, record.value));
    });
    read.await.map_err(|error| io(format!("partition {id}: {error}")))?;
    Ok(bytes)
}

/// Gives `each` every batch of a partition from its start to `end`, in order.
///
/// # Errors
/// A read that fails, in words.
async fn replay_log<D: Disk>(
    log: &CoreLog<D>,
    disk: &D,
    index: LogIndex,
    end: Offset,
    mut each: impl FnMut(&Bytes),
) -> Result<(), String> {
    let mut offset = log.start_offset(index);
    while offset < end {
        let read = match log.read(index, offset, REPLAY_BYTES, end, true) {
            Ok(read) => read,
            Err(crate::log::ReadError::NotLoaded) => {
                log.load(index, offset, end).await.map_err(|error| error.to_string())?;
                continue;
            }
            Err(error) => return Err(format!("offset {offset} cannot be read: {error:?}")),
        };
        let before = offset;
        // Together: a batch may begin in the file and end in memory, or lie across two chunks of the tail.
        let mut bytes = BytesMut::with_capacity(read.bytes as usize);
        for piece in read.pieces {
            match piece {
                Piece::Memory(memory) => bytes.extend_from_slice(&memory),
                Piece::File { file, position, bytes: wanted, .. } => {
                    let from_file = disk.read(&file, position, wanted as usize).await;
                    bytes.extend_from_slice(&from_file.map_err(|error| error.to_string())?);
                }
            }
        }
        let bytes = bytes.freeze();
        for (header, batch) in crate::base::batch::batches(&bytes) {
            if header.base_offset >= before {
                each(&bytes.slice_ref(batch));
                offset = header.next_offset();
            }
        }
        if offset == before {
            return Err(format!("nothing could be read at offset {offset}"));
        }
    }
    Ok(())
}
