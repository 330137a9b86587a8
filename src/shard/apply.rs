//! Commands of the metadata log take effect on this core: its copy of the image, its partitions, its groups.

use super::Shard;
use super::commands::Message;
use super::control::CONTROLLER_CORE;
use super::moves::FailedMove;
use super::partition::{append_rules, flush_policy, log_settings};
use crate::base::error::ErrorCode;
use crate::base::exit::Exit;
use crate::base::ids::{PartitionId, TopicId};
use crate::base::time::Now;
use crate::cluster::commands::Command;
use crate::cluster::configs::TopicConfig;
use crate::cluster::image::Topic;
use crate::cluster::names::CONSUMER_OFFSETS;
use crate::group::Input;
use crate::ports::Disk;
use std::sync::Arc;

impl<D: Disk> Shard<D> {
    /// Applies commands that are durable, then tells the controller's core.
    pub(super) fn apply(&mut self, commands: Arc<Vec<Command>>, now: Now) {
        let (mut added, mut leaving, mut failed) = (Vec::new(), Vec::new(), None);
        for command in commands.iter() {
            self.before(command, &mut leaving, now);
            if let Err(contradiction) = self.image.apply(command) {
                tracing::error!(
                    ?contradiction,
                    ?command,
                    "the metadata log does not follow on this image; stop, and keep the data"
                );
                std::process::exit(i32::from(Exit::Recovery.code()));
            }
            self.after(command, &mut added, now);
        }
        self.count_group_partitions();
        if added.is_empty() && leaving.is_empty() {
            return self.report_applied(failed, now);
        }
        let me = self.me.clone();
        self.disk.spawn(async move {
            for id in added {
                let Some(shard) = me.upgrade() else { return };
                Shard::create_partition(&shard, id).await;
                let is_offsets = {
                    let this = shard.borrow();
                    this.image.topic(id.topic).is_some_and(|topic| &*topic.name == CONSUMER_OFFSETS)
                };
                if is_offsets && let Err(error) = Shard::load_group_partition(&shard, id).await {
                    tracing::error!(partition = %id, ?error, "the groups of this partition cannot be coordinated");
                }
            }
            for id in leaving {
                let Some(shard) = me.upgrade() else { return };
                if let Err(error) = Shard::hand_over(&shard, id).await {
                    tracing::error!(partition = %id, "it could not be moved to another core, and stays: {}", error.why);
                    failed = Some(error);
                }
            }
            let Some(shard) = me.upgrade() else { return };
            let mut shard = shard.borrow_mut();
            let now = (shard.world.now)();
            shard.report_applied(failed, now);
        });
    }

    fn report_applied(&mut self, failed: Option<FailedMove>, now: Now) {
        if self.core == CONTROLLER_CORE {
            self.on_applied(failed, now);
        } else {
            self.outbox.messages.push((CONTROLLER_CORE, Message::Applied { failed }));
        }
    }

    /// What must happen while the image still shows the old state.
    fn before(&mut self, command: &Command, leaving: &mut Vec<PartitionId>, now: Now) {
        match command {
            Command::DeleteTopic { id } => {
                let Some(topic) = self.image.topic(*id) else { return };
                let (name, partitions) = (topic.name.to_string(), topic.partitions.len());
                for index in 0..partitions as i32 {
                    self.drop_partition(PartitionId { topic: *id, index });
                }
                if name == CONSUMER_OFFSETS {
                    self.unload_groups(partitions as i32, now);
                }
                self.group_step(Input::TopicDeleted(name), now);
            }
            Command::MovePartition { id, partition, core } => {
                let id = PartitionId { topic: *id, index: *partition };
                leaving.extend(self.on_move(id, *core).then_some(id));
            }
            _ => {}
        }
    }

    fn after(&mut self, command: &Command, added: &mut Vec<PartitionId>, now: Now) {
        match command {
            Command::CreateTopic { id, .. } => self.own_partitions(*id, 0, added),
            Command::AddPartitions { id, first, .. } => self.own_partitions(*id, *first, added),
            Command::SetTopicConfigs { id, .. } => self.reconfigure(*id, now),
            Command::SetBrokerConfigs { .. } => {
                let topics: Vec<TopicId> = self.image.topics().map(|topic| topic.id).collect();
                topics.into_iter().for_each(|id| self.reconfigure(id, now));
            }
            Command::InitCluster { .. }
            | Command::RegisterBroker { .. }
            | Command::DeleteTopic { .. }
            | Command::MovePartition { .. }
            | Command::AllocateProducerIds { .. } => {}
        }
    }

    /// The topic's partitions from `first` on that this core owns.
    fn own_partitions(&self, topic: TopicId, first: i32, added: &mut Vec<PartitionId>) {
        let partitions = self.image.topic(topic).map_or(&[][..], |topic| &topic.partitions);
        let owned = (0..).zip(partitions).filter(|(index, partition)| *index >= first && self.owns(partition));
        added.extend(owned.map(|(index, _)| PartitionId { topic, index }));
    }

    pub(super) fn owns(&self, partition: &crate::cluster::image::Partition) -> bool {
        partition.leader == self.settings.node && partition.core == self.core
    }

    pub(super) fn topic_config(&self, topic: &Topic) -> TopicConfig {
        let broker = self.image.broker_configs(self.settings.node, &self.settings.statics);
        TopicConfig::resolve(broker, &topic.configs)
    }

    /// Brings the partitions of a topic in line with its settings.
    fn reconfigure(&mut self, id: TopicId, _now: Now) {
        let Some(topic) = self.image.topic(id) else { return };
        let count = topic.partitions.len() as i32;
        let config = self.topic_config(topic);
        for index in 0..count {
            let Some(slot) = self.slot(PartitionId { topic: id, index }) else { continue };
            let partition = &mut self.partitions[slot as usize];
            partition.rules = append_rules(&config);
            self.log.set_settings(partition.log, log_settings(&config));
            if let Some(advance) = partition.watermark.set_policy(flush_policy(&config)) {
                self.on_visible(slot, advance);
            }
        }
    }

    /// A partition is gone: who waits for it is told, its files go in the background.
    fn drop_partition(&mut self, id: PartitionId) {
        let Some(slot) = self.by_id.remove(&id) else { return };
        let log = self.partitions[slot as usize].log;
        self.vacate(slot, log, ErrorCode::UnknownTopicOrPartition);
        let logs = self.log.clone();
        self.disk.spawn(async move {
            if let Err(error) = logs.drop_partition(log).await {
                tracing::error!(partition = %id, "a deleted partition's files are left behind: {error}");
            }
        });
    }
}

/// The metadata log belongs to no topic of the image.
pub(super) fn is_metadata(id: PartitionId) -> bool {
    id.topic == TopicId::METADATA
}
