//! What the core that received a request knows by itself: no command is needed to ask for it. Changes nothing.

use super::Shard;
use crate::base::ids::{CoreIndex, NodeId, PartitionId, TopicId};
use crate::base::measures::{Measures, PartitionMeasures};
use crate::cluster::configs::{BrokerConfigs, Overrides};
use crate::ports::Disk;
use std::sync::Arc;

/// Partitions of all cores that are looked at in one turn for a description.
const PARTITIONS_PER_SLICE: usize = 512;

/// Where a description goes on.
#[derive(Clone, Copy, Debug)]
pub enum Slice {
    /// With this partition, or the next one after it.
    Partitions(PartitionId),
    /// With the groups of this partition of the offsets topic, or of the next one.
    Groups(i32),
}

impl Slice {
    /// The first one.
    pub const FIRST: Slice = Slice::Partitions(PartitionId { topic: TopicId([0; 16]), index: 0 });
}

impl<D: Disk> Shard<D> {
    /// Adds the shard's part, and its log's, to what the core has counted.
    pub fn count_into(&self, measures: &mut Measures) {
        measures.counters.fetches = self.fetch_counters;
        self.log.count_into(measures);
    }

    /// Adds what there is one of for each partition and each group's offset: as much as belongs into one turn, from `slice` on. Returns where
    /// to go on; `None` when it is all there.
    pub fn describe_into(&self, measures: &mut Measures, slice: Slice) -> Option<Slice> {
        match slice {
            Slice::Partitions(first) => {
                let all = self.image.topics_from(first.topic).flat_map(|topic| {
                    let from = if topic.id == first.topic { first.index } else { 0 };
                    (from..topic.partitions.len() as i32).map(move |index| (topic, index))
                });
                let mut all = all.peekable();
                for (topic, index) in all.by_ref().take(PARTITIONS_PER_SLICE) {
                    let slot = self.slot(PartitionId { topic: topic.id, index });
                    measures.partitions.extend(slot.and_then(|slot| self.describe(slot, &topic.name, index)));
                }
                let next = all.peek().map(|(topic, index)| PartitionId { topic: topic.id, index: *index });
                Some(next.map_or(Slice::Groups(0), Slice::Partitions))
            }
            Slice::Groups(first) => {
                let (number, committed) = self.coordinating.groups.committed_from(first)?;
                measures.committed.extend(committed);
                Some(Slice::Groups(number + 1))
            }
        }
    }

    fn describe(&self, slot: u32, topic: &Arc<str>, index: i32) -> Option<PartitionMeasures> {
        let partition = &self.partitions[slot as usize];
        let (start, _) = self.log.offsets(partition.log)?;
        let (end, bytes) = (partition.watermark.high_watermark(), self.log.partition_bytes(partition.log));
        Some(PartitionMeasures { topic: topic.clone(), index, start, end, bytes })
    }

    /// The broker that this core belongs to.
    pub fn node(&self) -> NodeId {
        self.settings.node
    }

    /// All cores of this process.
    pub fn cores(&self) -> impl Iterator<Item = CoreIndex> {
        (0..self.settings.core_count).map(CoreIndex)
    }

    /// What the process was started with, under Kafka's names.
    pub fn statics(&self) -> &Overrides {
        &self.settings.statics
    }

    /// All levels of this broker's configuration.
    pub fn broker_configs(&self) -> BrokerConfigs<'_> {
        self.image.broker_configs(self.settings.node, &self.settings.statics)
    }
}
