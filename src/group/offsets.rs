//! The offsets of one group: what is committed and what is on its way to the log. Commit and fetch; expiry is `expiry`.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::RequestId;
use super::classic::{Group, GroupState};
use super::context::Context;
use super::persist::{Then, Write};
use super::records::CommittedOffset;
use super::reply::{FetchedOffsets, OffsetFetchReply, Reply};
use super::request::{CommitPartition, OffsetCommit, OffsetFetch, Request};
use crate::base::error::ErrorCode;
use crate::base::limits::{GROUP_STRING_BYTES_MAX, TOPIC_NAME_BYTES_MAX};

/// The place of one partition in [`OffsetTable`].
#[derive(Default, Debug)]
struct Slot {
    /// Durable, and so what is answered.
    committed: Option<CommittedOffset>,
    /// Appends on their way that set or remove it.
    in_flight: u32,
}

/// Offsets by topic and partition. Invariant: no slot is without both a committed offset and an append in flight.
#[derive(Default, Debug)]
pub(super) struct OffsetTable {
    topics: BTreeMap<String, BTreeMap<i32, Slot>>,
}

impl OffsetTable {
    pub fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    pub fn committed(&self, topic: &str, partition: i32) -> Option<&CommittedOffset> {
        self.topics.get(topic)?.get(&partition)?.committed.as_ref()
    }

    /// All committed offsets, in the order of topic and partition.
    pub fn iter(&self) -> impl Iterator<Item = (&str, i32, &CommittedOffset)> {
        self.topics.iter().flat_map(|(topic, slots)| {
            let committed = |(partition, slot): (&i32, _)| Some((topic.as_str(), *partition, Slot::committed(slot)?));
            slots.iter().filter_map(committed)
        })
    }

    /// Every slot from `from` on, in the same order, with what is committed there if no append is on its way.
    pub fn iter_settled(
        &self,
        from: Option<&(String, i32)>,
    ) -> impl Iterator<Item = (&str, i32, Option<&CommittedOffset>)> {
        let (first, within) = from.map_or(("", i32::MIN), |(topic, partition)| (topic.as_str(), *partition));
        let topics = self.topics.range::<str, _>((Bound::Included(first), Bound::Unbounded));
        topics.flat_map(move |(topic, slots)| {
            let from = if topic == first { within } else { i32::MIN };
            slots.range(from..).map(move |(partition, slot)| {
                (topic.as_str(), *partition, slot.committed.as_ref().filter(|_| slot.in_flight == 0))
            })
        })
    }

    /// Every partition that has an offset or will have one when its append is durable.
    pub fn partitions(&self) -> impl Iterator<Item = (&str, i32)> {
        self.topics.iter().flat_map(|(topic, slots)| slots.keys().map(move |partition| (topic.as_str(), *partition)))
    }

    pub fn has_in_flight(&self, topic: &str, partition: i32) -> bool {
        self.topics.get(topic).and_then(|slots| slots.get(&partition)).is_some_and(|slot| slot.in_flight > 0)
    }

    pub fn contains(&self, topic: &str, partition: i32) -> bool {
        self.topics.get(topic).is_some_and(|slots| slots.contains_key(&partition))
    }

    /// Notes that an append for the partition is on its way.
    pub fn begin(&mut self, topic: &str, partition: i32) {
        self.topics.entry(topic.to_owned()).or_default().entry(partition).or_default().in_flight += 1;
    }

    /// Notes that an append has come to its end. `outcome` is what it set (`Some(None)` removes), or `None` if it failed.
    pub fn end(&mut self, topic: &str, partition: i32, outcome: Option<Option<CommittedOffset>>) {
        let slots = self.topics.get_mut(topic).expect("the append in flight keeps its slot");
        let slot = slots.get_mut(&partition).expect("the append in flight keeps its slot");
        slot.in_flight -= 1;
        if let Some(value) = outcome {
            slot.committed = value;
        }
        if slot.committed.is_none() && slot.in_flight == 0 {
            slots.remove(&partition);
            if slots.is_empty() {
                self.topics.remove(topic);
            }
        }
    }
}

impl Slot {
    fn committed(slot: &Slot) -> Option<&CommittedOffset> {
        slot.committed.as_ref()
    }
}

/// Whether a commit may be taken from whom it comes.
///
/// # Errors
/// `UnknownMemberId`, `FencedInstanceId`, `IllegalGeneration`, or `RebalanceInProgress` while the generation has no
/// assignment yet.
///
/// Source: Kafka `GroupCoordinator.validateOffsetCommit`, `doCommitOffsets`.
fn check_commit(group: &Group, request: &OffsetCommit) -> Result<(), ErrorCode> {
    // Who manages partitions without the group's help, or an administrator: fine as long as no member could be misled.
    if request.generation < 0 && group.state == GroupState::Empty {
        return Ok(());
    }
    let says_member = request.generation >= 0 || !request.member_id.is_empty() || request.group_instance_id.is_some();
    if !says_member {
        return Err(ErrorCode::UnknownMemberId);
    }
    group.check_member(&request.member_id, request.group_instance_id.as_deref())?;
    if request.generation != group.generation {
        return Err(ErrorCode::IllegalGeneration);
    }
    if group.state == GroupState::CompletingRebalance {
        return Err(ErrorCode::RebalanceInProgress);
    }
    Ok(())
}

/// OffsetCommit: appends what is allowed; the reply follows when it is durable.
pub(super) fn commit(group: &mut Group, cx: &mut Context, id: RequestId, request: OffsetCommit) {
    if let Err(error) = check_commit(group, &request) {
        let reply = Request::OffsetCommit(request).refused(error);
        return cx.reply(id, reply);
    }
    // During a rebalance too: the heartbeat's reply tells the member about that.
    group.restart_session(cx, &request.member_id);
    let expire_timestamp_ms = request.retention_time_ms.map(|ms| cx.now.wall_ms.saturating_add(ms));
    let mut writes = Vec::new();
    let mut results = Vec::new();
    for topic in request.topics {
        let mut errors = Vec::new();
        for partition in topic.partitions {
            let index = partition.partition;
            let error = match check_partition(cx, &topic.topic, &partition) {
                Ok(()) => {
                    let value = CommittedOffset {
                        offset: partition.offset,
                        leader_epoch: partition.leader_epoch,
                        metadata: partition.metadata.unwrap_or_default(),
                        commit_timestamp_ms: cx.now.wall_ms,
                        expire_timestamp_ms,
                    };
                    writes.push(Write::Offset { topic: topic.topic.clone(), partition: index, value: Some(value) });
                    ErrorCode::None
                }
                Err(error) => error,
            };
            errors.push((index, error));
        }
        results.push((topic.topic, errors));
    }
    if writes.is_empty() {
        return cx.reply(id, Reply::OffsetCommit(results));
    }
    group.append(cx, writes, Then::Commit { request: id, results });
}

fn check_partition(cx: &Context, topic: &str, partition: &CommitPartition) -> Result<(), ErrorCode> {
    if topic.len() > TOPIC_NAME_BYTES_MAX {
        return Err(ErrorCode::UnknownTopicOrPartition);
    }
    let metadata_bytes = partition.metadata.as_ref().map_or(0, String::len);
    if metadata_bytes > cx.settings.offset_metadata_bytes_max.min(GROUP_STRING_BYTES_MAX) {
        return Err(ErrorCode::OffsetMetadataTooLarge);
    }
    Ok(())
}

/// OffsetFetch: what is durable, whatever state the group is in. A group that does not exist has no offsets.
pub(super) fn fetch(group: Option<&Group>, request: &OffsetFetch) -> Reply {
    let topics = match &request.topics {
        Some(topics) => {
            let find =
                |topic: &str, partition| group.and_then(|group| group.offsets.committed(topic, partition)).cloned();
            let answer = |(topic, partitions): &(String, Vec<i32>)| {
                (topic.clone(), partitions.iter().map(|&partition| (partition, find(topic, partition))).collect())
            };
            topics.iter().map(answer).collect()
        }
        None => group.map_or(Vec::new(), all_committed),
    };
    Reply::OffsetFetch(OffsetFetchReply { error: ErrorCode::None, topics })
}

fn all_committed(group: &Group) -> FetchedOffsets {
    let mut topics: FetchedOffsets = Vec::new();
    for (topic, partition, committed) in group.offsets.iter() {
        let answer = (partition, Some(committed.clone()));
        match topics.last_mut().filter(|(last, _)| last == topic) {
            Some((_, partitions)) => partitions.push(answer),
            None => topics.push((topic.to_owned(), vec![answer])),
        }
    }
    topics
}
