//! Batches that the broker writes itself: metadata commands and group records. As durable as any record, acknowledged to nobody but us.

use super::Shard;
use crate::base::batch::BatchHeader;
use crate::base::error::ErrorCode;
use crate::base::ids::{Offset, PartitionId};
use crate::base::time::Now;
use crate::log::Refused;
use crate::ports::Disk;
use std::collections::VecDeque;

/// Whose batch it is, and so who is told when it is durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum OwnAppend {
    Metadata,
    Groups(crate::group::AppendToken),
}

/// The broker's own batches of one core.
#[derive(Default)]
pub(super) struct OwnAppends {
    /// Not yet taken by the log, oldest first.
    waiting: VecDeque<(PartitionId, Vec<u8>, OwnAppend)>,
    /// Appended and not yet durable: partition slot, end, whose.
    appended: VecDeque<(u32, Offset, OwnAppend)>,
    /// Durable, not yet told.
    durable: Vec<OwnAppend>,
}

impl OwnAppends {
    pub fn has_durable(&self) -> bool {
        !self.durable.is_empty()
    }

    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }
}

impl<D: Disk> Shard<D> {
    /// Appends `batch` to a partition of this core, after all earlier ones, and tells `whose` when it is durable.
    pub(super) fn append_own(&mut self, id: PartitionId, batch: Vec<u8>, whose: OwnAppend, now: Now) {
        self.own.waiting.push_back((id, batch, whose));
        self.resume_own(now);
    }

    /// Appends what waits, as far as the log takes it.
    pub(super) fn resume_own(&mut self, now: Now) {
        while let Some((id, batch, whose)) = self.own.waiting.pop_front() {
            let Some(slot) = self.slot(id) else {
                self.own_refused(whose, ErrorCode::NotCoordinator, now);
                continue;
            };
            let log = self.partitions[slot as usize].log;
            match self.log.admit(log, batch.len()) {
                Err(Refused::Backlog) => {
                    self.own.waiting.push_front((id, batch, whose));
                    return;
                }
                Err(refusal) => {
                    tracing::error!(partition = %id, ?refusal, "the broker's own records were refused by the log");
                    self.own_refused(whose, ErrorCode::KafkaStorageError, now);
                }
                Ok(()) => {
                    self.place_own(slot, &batch, Some(whose));
                }
            }
        }
    }

    /// Appends a batch of ours that the log has admitted; `whose` is told when it is durable.
    pub(super) fn place_own(&mut self, slot: u32, batch: &[u8], whose: Option<OwnAppend>) {
        let header = BatchHeader::read(batch).expect("we built it");
        let placement = self.partitions[slot as usize].state.place_own(header.record_count.unsigned_abs());
        let told = whose.map(|whose| (slot, placement.next_offset, whose));
        self.own.appended.extend(told);
        self.append(slot, &header, batch, placement.base_offset);
    }

    /// A partition's high watermark has moved: batches of ours below it are durable.
    pub(super) fn on_own_visible(&mut self, slot: u32, high_watermark: Offset) {
        if self.own.appended.is_empty() {
            return;
        }
        let OwnAppends { appended, durable, .. } = &mut self.own;
        appended.retain(|&(of, next_offset, whose)| {
            let done = of == slot && next_offset <= high_watermark;
            if done {
                durable.push(whose);
            }
            !done
        });
    }

    /// Tells those whose batches are durable.
    pub(super) fn tell_own(&mut self, now: Now) {
        for whose in std::mem::take(&mut self.own.durable) {
            match whose {
                OwnAppend::Metadata => self.on_metadata_durable(now),
                OwnAppend::Groups(token) => self.on_group_records_durable(token, now),
            }
        }
    }

    fn own_refused(&mut self, whose: OwnAppend, code: ErrorCode, now: Now) {
        match whose {
            OwnAppend::Metadata => self.on_metadata_refused(code, now),
            OwnAppend::Groups(token) => self.on_group_records_refused(token, code, now),
        }
    }
}
