//! The consumer groups of this core: brings requests to the coordinator and performs what it decides.

use super::Shard;
use super::commands::{Answer, Origin};
use super::control::TopicWanted;
use super::own::OwnAppend;
use super::slab::Slab;
use crate::base::error::ErrorCode;
use crate::base::ids::PartitionId;
use crate::base::record::BatchBuilder;
use crate::base::time::Now;
use crate::cluster::image::Partition as ImagePartition;
use crate::cluster::names::CONSUMER_OFFSETS;
use crate::group::{Action, AppendToken, Groups, Input, Reply, Request, RequestId, partition_for};
use crate::ports::Disk;

/// Kafka's `offsets.topic.segment.bytes`: small, because all of it is read when a broker starts.
const OFFSETS_SEGMENT_BYTES: u64 = 100 << 20;

/// The coordinator of this core and who waits for it.
pub(super) struct Coordinating {
    pub groups: Groups,
    /// Who asked, and the place of the answer in its request.
    waiting: Slab<(Origin, u32)>,
}

impl Coordinating {
    pub fn new(groups: Groups) -> Coordinating {
        Coordinating { groups, waiting: Slab::default() }
    }
}

impl<D: Disk> Shard<D> {
    /// The partition of `__consumer_offsets` that keeps a group. `None` while there is no such topic.
    pub fn group_partition(&self, group: &str) -> Option<&ImagePartition> {
        let topic = self.image.topic_by_name(CONSUMER_OFFSETS)?;
        topic.partitions.get(partition_for(group, topic.partitions.len() as i32) as usize)
    }

    /// `__consumer_offsets` as it is to be made.
    ///
    /// Source: Kafka `GroupCoordinator.groupMetadataTopicConfigs`.
    pub fn offsets_topic(&self) -> TopicWanted {
        let config = |name: &str, value: &str| (name.to_owned(), Some(value.to_owned()));
        TopicWanted {
            partition_count: self.settings.groups.offsets_partition_count,
            configs: vec![
                config("cleanup.policy", "compact"),
                config("compression.type", "producer"),
                config("segment.bytes", &OFFSETS_SEGMENT_BYTES.to_string()),
            ],
            ..TopicWanted::by_default(CONSUMER_OFFSETS.to_owned())
        }
    }

    /// Tells the coordinator how many partitions its topic has, where that can have changed.
    pub(super) fn count_group_partitions(&mut self) {
        if let Some(topic) = self.image.topic_by_name(CONSUMER_OFFSETS) {
            self.coordinating.groups.set_partition_count(topic.partitions.len() as i32);
        }
    }

    /// The topic of the groups is about to go, and they with it.
    pub(super) fn unload_groups(&mut self, partition_count: i32, now: Now) {
        for partition in 0..partition_count {
            self.group_step(Input::Unload(partition), now);
        }
    }

    /// A request to the groups of this core.
    pub(super) fn group_request(&mut self, origin: Origin, place: u32, request: Request, now: Now) {
        let id = RequestId(self.coordinating.waiting.insert((origin, place)));
        self.group_step(Input::Request(id, request), now);
    }

    pub(super) fn group_step(&mut self, input: Input, now: Now) {
        for action in self.coordinating.groups.step(input, now) {
            match action {
                Action::Reply(id, reply) => self.group_reply(id, reply),
                Action::Append { partition, records, token, .. } => {
                    let mut builder = BatchBuilder::new(now.wall_ms);
                    for record in &records {
                        builder.push(now.wall_ms, Some(&record.key), record.value.as_deref());
                    }
                    let topic = self.image.topic_by_name(CONSUMER_OFFSETS).map(|topic| topic.id);
                    match topic {
                        Some(topic) => {
                            let id = PartitionId { topic, index: partition };
                            self.append_own(id, builder.finish(), OwnAppend::Groups(token), now);
                        }
                        None => self.on_group_records_refused(token, ErrorCode::NotCoordinator, now),
                    }
                }
            }
        }
    }

    fn group_reply(&mut self, id: RequestId, reply: Reply) {
        let (origin, place) = self.coordinating.waiting.remove(id.0).expect("a request is answered once");
        self.answer(origin, Answer::Group { place, reply });
    }

    pub(super) fn on_group_records_durable(&mut self, token: AppendToken, now: Now) {
        self.group_step(Input::Durable(token), now);
    }

    pub(super) fn on_group_records_refused(&mut self, token: AppendToken, code: ErrorCode, now: Now) {
        self.group_step(Input::AppendFailed(token, code), now);
    }
}
