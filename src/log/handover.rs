//! Gives a partition to another core's log without a copy of its records.
//!
//! The log that gives it has everything written to the segments, and keeps what its journal knows of it; the one that takes it opens the
//! segments under a higher generation (`open_partition`). Recovery believes the highest generation, so that a crash finds the partition
//! with one of the two, whole. The giver forgets its part when the taker's checkpoint is durable, and not before.

use super::LogIndex;
use super::core::CoreLog;
use super::error::{LogError, Refused};
use super::journal::format::Kind;
use super::recovery::Recovered;
use crate::ports::Disk;

impl<D: Disk> CoreLog<D> {
    /// Writes all of a partition to its segments and closes it to appends, which must have ended. What this returns is for `open_partition`
    /// of the other log; then comes `forget`, or `take_back`. Reads go on meanwhile.
    ///
    /// # Errors
    /// `DiskFull`, or `Busy` where the partition is being cut or dropped: it is open as before. The core has failed.
    pub async fn release(&self, log: LogIndex) -> Result<Recovered, LogError> {
        self.until_durable().await?;
        self.until_flushed(log).await?;
        let serial = self.quiesce(log).await?;
        let base = self.0.state.borrow().log(log).map(|partition| partition.active().base_offset);
        if let Some(base) = base {
            // Or the other core reads what lies behind the last saved entry once more.
            self.save_index(log, serial, base).await;
        }
        let mut state = self.0.state.borrow_mut();
        let partition = state.log_of(log, serial).ok_or(LogError::Refused(Refused::Busy))?;
        Ok(Recovered {
            id: partition.id,
            dir: partition.dir.clone(),
            generation: partition.generation,
            start_offset: partition.start_offset,
            end_offset: partition.end_offset,
            epochs: partition.epochs.clone(),
            producers: Vec::new(),
            active: None,
        })
    }

    /// The other log has the partition durably: this one lets go of it, and says so in its journal, or recovery would look for the partition
    /// once it is deleted there. Its files stay.
    ///
    /// # Errors
    /// The core has failed.
    pub async fn forget(&self, log: LogIndex) -> Result<(), LogError> {
        self.when_possible(|state| match state.append_control(log, Kind::Left, 0, &[]) {
            // A full disk is no reason to keep others waiting: recovery has a needless look at worst.
            Err(Refused::DiskFull) => Ok(()),
            outcome => outcome,
        })
        .await?;
        self.until_durable().await?;
        self.0.state.borrow_mut().remove(log);
        Ok(())
    }

    /// The other log could not open the partition: it takes appends here again.
    pub fn take_back(&self, log: LogIndex) {
        let serial = self.0.state.borrow().log(log).map(|partition| partition.serial);
        serial.into_iter().for_each(|serial| self.reopen(log, serial));
    }

    /// Has everything of one partition written and synced.
    async fn until_flushed(&self, log: LogIndex) -> Result<(), LogError> {
        self.0.state.borrow_mut().flush(log);
        self.0
            .signal
            .until(|| {
                let mut state = self.0.state.borrow_mut();
                state.failed.is_some() || state.writer.disk_full || state.log_mut(log).is_none_or(|log| log.is_clean())
            })
            .await;
        let mut state = self.0.state.borrow_mut();
        if let Some(fatal) = &state.failed {
            return Err(LogError::Fatal(fatal.clone()));
        }
        let is_clean = state.log_mut(log).is_some_and(|partition| partition.is_clean());
        if is_clean { Ok(()) } else { Err(LogError::Refused(Refused::DiskFull)) }
    }
}
