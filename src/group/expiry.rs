//! Offsets that go: by age, by OffsetDelete, with their topic, or with their group. All by tombstones.
//!
//! Source: Kafka `GroupMetadata.removeExpiredOffsets`, `GroupMetadataManager.cleanupGroupMetadata`; KIP-211.

use std::collections::BTreeSet;

use super::RequestId;
use super::classic::{Group, GroupState};
use super::context::Context;
use super::persist::{Then, Write};
use super::records::CommittedOffset;
use super::reply::Reply;
use super::request::OffsetDelete;
use super::subscription;
use crate::base::error::ErrorCode;
use crate::base::time::TimestampMs;

fn tombstone(topic: &str, partition: i32) -> Write {
    Write::Offset { topic: topic.to_owned(), partition, value: None }
}

/// From when on an offset's age counts, for this group.
enum AgeSince {
    /// The group became empty.
    Emptied(TimestampMs),
    /// It was committed; topics that members still read are spared.
    Committed { spared: BTreeSet<String> },
}

impl AgeSince {
    /// `None` where offsets do not age: the group is rebalancing, or nobody knows what it reads.
    fn of(group: &Group) -> Option<AgeSince> {
        let committed = |spared| Some(AgeSince::Committed { spared });
        match (group.protocol_type.as_deref(), group.state) {
            // Records of old brokers do not say since when.
            (Some(_), GroupState::Empty) => match group.state_timestamp_ms {
                Some(at) => Some(AgeSince::Emptied(at)),
                None => committed(BTreeSet::new()),
            },
            (Some(subscription::PROTOCOL_TYPE), GroupState::Stable) => {
                group.subscribed_topics.clone().and_then(committed)
            }
            (None, GroupState::Empty) => committed(BTreeSet::new()),
            _ => None,
        }
    }

    fn is_over(&self, cx: &Context, topic: &str, committed: &CommittedOffset) -> bool {
        let since = match self {
            AgeSince::Committed { spared } if spared.contains(topic) => return false,
            AgeSince::Committed { .. } => committed.commit_timestamp_ms,
            AgeSince::Emptied(at) => *at,
        };
        match committed.expire_timestamp_ms {
            // An old client said how long; the group's state does not matter then.
            Some(at) => cx.now.wall_ms >= at,
            None => cx.now.wall_ms.saturating_sub(since) >= cx.settings.offsets_retention_ms(),
        }
    }
}

/// Removes the offsets that are too old, and the group itself where nothing is left of it.
pub(super) fn remove_expired(group: &mut Group, cx: &mut Context) {
    let mut writes = Vec::new();
    if let Some(since) = AgeSince::of(group) {
        let old = group.offsets.iter().filter(|(topic, partition, committed)| {
            !group.offsets.has_in_flight(topic, *partition) && since.is_over(cx, topic, committed)
        });
        writes.extend(old.map(|(topic, partition, _)| tombstone(topic, partition)));
    }
    let all = writes.len() == group.offsets.partitions().count();
    if all && group.state == GroupState::Empty && group.pending_members.is_empty() {
        writes.extend(metadata_tombstone(group));
    }
    if !writes.is_empty() {
        group.append(cx, writes, Then::Nothing);
    }
}

/// The tombstone of the group's own record, if the log has one or will.
fn metadata_tombstone(group: &Group) -> Option<Write> {
    (group.stored.is_some() || group.metadata_in_flight > 0).then_some(Write::Metadata(None))
}

/// DeleteGroups: an empty group goes with all its offsets; the reply follows when that is durable.
pub(super) fn delete_group(group: &mut Group, cx: &mut Context, id: RequestId) {
    if group.state != GroupState::Empty {
        return cx.reply(id, Reply::DeleteGroup(ErrorCode::NonEmptyGroup));
    }
    let mut writes: Vec<Write> = group.offsets.partitions().map(|(topic, at)| tombstone(topic, at)).collect();
    writes.extend(metadata_tombstone(group));
    if writes.is_empty() {
        // Only ids handed out to newcomers: nothing that would have to be undone.
        group.pending_members.clear();
        return cx.reply(id, Reply::DeleteGroup(ErrorCode::None));
    }
    group.append(cx, writes, Then::DeleteGroup { request: id });
}

/// OffsetDelete: offsets of topics that no member reads; the reply follows when that is durable.
pub(super) fn delete_offsets(group: &mut Group, cx: &mut Context, id: RequestId, request: OffsetDelete) {
    let is_consumer = group.protocol_type.as_deref() == Some(subscription::PROTOCOL_TYPE);
    if group.state != GroupState::Empty && !is_consumer {
        return cx.reply(id, Reply::OffsetDelete { error: ErrorCode::NonEmptyGroup, topics: Vec::new() });
    }
    let mut writes = Vec::new();
    let mut results = Vec::new();
    for (topic, partitions) in request.topics {
        let error = if is_read(group, &topic) { ErrorCode::GroupSubscribedToTopic } else { ErrorCode::None };
        if !error.is_error() {
            let there = partitions.iter().filter(|&&partition| group.offsets.contains(&topic, partition));
            writes.extend(there.map(|&partition| tombstone(&topic, partition)));
        }
        results.push((topic, partitions.into_iter().map(|partition| (partition, error)).collect()));
    }
    if writes.is_empty() {
        return cx.reply(id, Reply::OffsetDelete { error: ErrorCode::None, topics: results });
    }
    group.append(cx, writes, Then::OffsetDelete { request: id, results });
}

/// Whether members read the topic, as far as can be known; where it cannot, they do.
fn is_read(group: &Group, topic: &str) -> bool {
    group.state != GroupState::Empty && group.subscribed_topics.as_ref().is_none_or(|topics| topics.contains(topic))
}

/// The topic is gone, and with it the meaning of its offsets.
pub(super) fn remove_topic(group: &mut Group, cx: &mut Context, topic: &str) {
    let of_topic = group.offsets.partitions().filter(|(name, _)| *name == topic);
    let writes: Vec<Write> = of_topic.map(|(topic, partition)| tombstone(topic, partition)).collect();
    if !writes.is_empty() {
        group.append(cx, writes, Then::Nothing);
    }
}
