//! Partitions of this core come into being: made for a new topic, or opened with what recovery found.

use super::partition::{Partition, append_rules, flush_policy, log_settings};
use super::{Shard, World};
use crate::base::ids::{Offset, PartitionId, TopicId};
use crate::base::limits::PRODUCERS_PER_PARTITION_MAX;
use crate::base::time::Now;
use crate::cluster::configs::{Overrides, TopicConfig};
use crate::cluster::image::Topic;
use crate::cluster::names::CLUSTER_METADATA;
use crate::log::{LogIndex, Opening, Recovered, partition_dir_name};
use crate::partition::append::AppendState;
use crate::partition::epochs::LeaderEpochs;
use crate::partition::producers::Producers;
use crate::partition::waiters::OffsetWaiters;
use crate::partition::watermark::Watermark;
use crate::ports::Disk;
use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;

/// What recovery found of a partition, and its producers. May travel to the core that owns it.
#[derive(Debug)]
pub struct RecoveredPartition {
    pub recovered: Recovered,
    pub producers: Producers,
}

impl<D: Disk> Shard<D> {
    /// Makes an empty partition that this core owns, unless it is open already.
    pub(super) async fn create_partition(shard: &Rc<RefCell<Shard<D>>>, id: PartitionId) {
        let (log, dir, config) = {
            let this = shard.borrow();
            let Some((name, config)) = this.name_and_config(id) else { return };
            if this.by_id.contains_key(&id) {
                return;
            }
            (this.log.clone(), this.partitions_dir().join(partition_dir_name(&name, id)), config)
        };
        let none = Producers::new(PRODUCERS_PER_PARTITION_MAX);
        match log.create(id, Opening { dir, settings: log_settings(&config) }, 0, &none.snapshot()).await {
            Ok(index) => {
                let mut this = shard.borrow_mut();
                // A topic can be deleted while its partitions are being made.
                if this.name_and_config(id).is_some() {
                    this.add_partition(id, index, 0, none, LeaderEpochs::default(), &config);
                }
            }
            Err(error) => tracing::error!(partition = %id, "a new partition could not be made: {error}"),
        }
    }

    /// Opens a partition as recovery left it.
    ///
    /// # Errors
    /// The log cannot be opened; the text says why.
    pub(super) async fn open_partition(
        shard: &Rc<RefCell<Shard<D>>>,
        id: PartitionId,
        found: RecoveredPartition,
    ) -> Result<(), String> {
        let RecoveredPartition { recovered, producers } = found;
        let (log, config) = {
            let this = shard.borrow();
            let Some((_, config)) = this.name_and_config(id) else { return Ok(()) };
            (this.log.clone(), config)
        };
        let mut epochs = LeaderEpochs::default();
        for start in &recovered.epochs {
            epochs.assign(start.epoch, start.start_offset);
        }
        let end = recovered.end_offset;
        let index = log
            .open_partition(recovered, log_settings(&config), &producers.snapshot())
            .await
            .map_err(|error| format!("partition {id} cannot be opened: {error}"))?;
        shard.borrow_mut().add_partition(id, index, end, producers, epochs, &config);
        Ok(())
    }

    fn add_partition(
        &mut self,
        id: PartitionId,
        log: LogIndex,
        end: Offset,
        producers: Producers,
        mut epochs: LeaderEpochs,
        config: &TopicConfig,
    ) {
        let leader_epoch = self.image.partition(id).map_or(0, |partition| partition.leader_epoch);
        epochs.assign(leader_epoch, end);
        let partition = Partition {
            log,
            state: AppendState::new(end, leader_epoch, producers),
            watermark: Watermark::new(end, flush_policy(config)),
            rules: append_rules(config),
            epochs,
            producing: OffsetWaiters::default(),
            work: 0,
            growth: None,
        };
        let slot = match self.vacant_slots.pop() {
            Some(slot) => {
                self.partitions[slot as usize] = partition;
                slot
            }
            None => {
                self.partitions.push(partition);
                (self.partitions.len() - 1) as u32
            }
        };
        self.by_id.insert(id, slot);
        let place = log.0 as usize;
        self.by_log.resize(self.by_log.len().max(place + 1), None);
        self.by_log[place] = Some(slot);
    }

    /// The topic's name and settings; `None` where there is no such topic (any more).
    fn name_and_config(&self, id: PartitionId) -> Option<(String, TopicConfig)> {
        if id.topic == TopicId::METADATA {
            let none = Overrides::new();
            let broker = self.image.broker_configs(self.settings.node, &self.settings.statics);
            let forever =
                TopicConfig { retention_ms: None, retention_bytes: None, ..TopicConfig::resolve(broker, &none) };
            return Some((CLUSTER_METADATA.to_owned(), forever));
        }
        let topic: &Topic = self.image.topic(id.topic)?;
        Some((topic.name.to_string(), self.topic_config(topic)))
    }

    /// The name of the partition's directory; it must be in the image, or be the metadata log.
    pub(super) fn partition_dir_name(&self, id: PartitionId) -> String {
        let (name, _) = self.name_and_config(id).expect("only partitions of the image are looked for");
        partition_dir_name(&name, id)
    }

    /// Where this core keeps its partitions.
    pub(super) fn partitions_dir(&self) -> PathBuf {
        self.settings.data_dir.join("partitions")
    }

    /// Writes a checkpoint of one partition, with its producers as they are now.
    pub(super) fn checkpoint(&mut self, log: LogIndex) {
        let Some(slot) = self.slot_of(log) else { return };
        let producers = self.partitions[slot as usize].state.producers().snapshot();
        if let Err(refused) = self.log.checkpoint(log, &producers) {
            tracing::debug!(?refused, "a checkpoint waits for the journal");
        }
    }

    /// What only time changes.
    pub(super) fn tick(&mut self, now: Now) {
        let broker = self.image.broker_configs(self.settings.node, &self.settings.statics);
        let expiration_ms = broker.number("producer.id.expiration.ms");
        for &slot in self.by_id.values() {
            self.partitions[slot as usize].state.producers_mut().expire(now.wall_ms, expiration_ms);
        }
        self.watch_disk();
        self.report_load(now);
        if now.mono >= self.next_retention && !self.retaining {
            self.next_retention = now.mono.plus_ms(self.settings.retention_check_ms);
            self.apply_retention(now);
        }
    }

    /// Deletes the segments that their topics no longer keep, one partition after the other, in the background.
    fn apply_retention(&mut self, now: Now) {
        self.retaining = true;
        let ids: Vec<PartitionId> = self.by_id.keys().copied().collect();
        let (me, log) = (self.me.clone(), self.log.clone());
        self.disk.spawn(async move {
            for id in ids {
                let Some(shard) = me.upgrade() else { return };
                let found = shard.borrow().slot(id).map(|slot| {
                    let shard = shard.borrow();
                    let partition = &shard.partitions[slot as usize];
                    (partition.log, partition.watermark.high_watermark())
                });
                drop(shard);
                let Some((index, limit)) = found else { continue };
                match log.apply_retention(index, now.wall_ms, limit).await {
                    Ok(0) => {}
                    Ok(segments) => tracing::info!(partition = %id, segments, "retention has deleted old segments"),
                    Err(error) => tracing::error!(partition = %id, "retention failed: {error}"),
                }
            }
            if let Some(shard) = me.upgrade() {
                shard.borrow_mut().retaining = false;
            }
        });
    }

    /// Looks how much space is left, in the background (durability contract, D6).
    fn watch_disk(&self) {
        let (me, disk) = (self.me.clone(), self.disk.clone());
        let (dir, reserve) = (self.settings.data_dir.clone(), self.settings.disk_reserve_bytes);
        self.disk.spawn(async move {
            let free = disk.free_bytes(&dir).await;
            let Some(shard) = me.upgrade() else { return };
            let mut shard = shard.borrow_mut();
            match free {
                Ok(free) => {
                    let full = free < reserve;
                    if full != shard.disk_full {
                        let dir = dir.display();
                        match full {
                            true => tracing::error!(%dir, free, reserve, "the disk is full: produce is refused until space is freed"),
                            false => tracing::info!(%dir, free, "the disk has space again: produce goes on"),
                        }
                    }
                    shard.disk_full = full;
                }
                Err(error) => tracing::warn!("free space cannot be read: {error}"),
            }
        });
    }
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("World")
    }
}
