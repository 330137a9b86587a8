//! What the core that received a request knows by itself: no command is needed to ask for it. Changes nothing.

use super::Shard;
use super::apply::is_metadata;
use crate::base::ids::{CoreIndex, NodeId};
use crate::base::measures::{Committed, Measures, PartitionMeasures};
use crate::cluster::configs::{BrokerConfigs, Overrides};
use crate::ports::Disk;

impl<D: Disk> Shard<D> {
    /// Adds the shard's part, and its log's, to what the core has counted.
    pub fn count_into(&self, measures: &mut Measures) {
        measures.counters.fetches = self.fetch_counters;
        self.log.count_into(measures);
    }

    /// Adds what there is one of for each partition and each group's offset. All in one turn: 10 000 partitions take it above 2 ms.
    pub fn describe_into(&self, measures: &mut Measures) {
        let owned = self.by_id.iter().filter(|(id, _)| !is_metadata(**id));
        measures.partitions.extend(owned.filter_map(|(id, &slot)| {
            let partition = &self.partitions[slot as usize];
            let (start, _) = self.log.offsets(partition.log)?;
            Some(PartitionMeasures {
                topic: self.image.topic(id.topic)?.name.clone(),
                index: id.index,
                start,
                end: partition.watermark.high_watermark(),
                bytes: self.log.partition_bytes(partition.log),
            })
        }));
        measures.committed.extend(self.coordinating.groups.committed().map(|(group, topic, index, offset)| {
            Committed { group: group.to_owned(), topic: topic.to_owned(), index, offset }
        }));
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
