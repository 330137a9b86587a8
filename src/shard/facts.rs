//! What the core that received a request knows by itself: no command is needed to ask for it. Changes nothing.

use super::Shard;
use crate::base::ids::{CoreIndex, NodeId};
use crate::base::measures::Measures;
use crate::cluster::configs::{BrokerConfigs, Overrides};
use crate::ports::Disk;

impl<D: Disk> Shard<D> {
    /// Adds the shard's part, and its log's, to what the core has counted.
    pub fn count_into(&self, measures: &mut Measures) {
        measures.counters.fetches = self.fetch_counters;
        self.log.count_into(measures);
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
