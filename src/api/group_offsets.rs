//! OffsetCommit (key 8): v2–v8. OffsetFetch (key 9): v1–v8. OffsetDelete (key 47): v0.
//! OffsetCommit v2–v4 retention time · v6 leader epochs (KIP-320) · v7 static members (KIP-345) · v8 flexible
//! OffsetFetch v2 all partitions, error of the group · v5 leader epochs · v6 flexible · v7 stable offsets (KIP-447) ·
//! v8 several groups (KIP-709)
//!
//! Commits and deletions are for partitions that exist; what is fetched is what was committed, whatever exists.

use super::coordinator::{ask, ask_each};
use super::dispatch::Context;
use super::reply::Reply;
use super::work::Start;
use crate::base::error::ErrorCode;
use crate::group::{self, CommitPartition, CommitTopic, CommittedOffset, PartitionErrors};
use crate::ports::Disk;
use crate::protocol::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitResponse, OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use crate::protocol::messages::offset_delete::{
    OffsetDeleteRequest, OffsetDeleteResponse, OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use crate::protocol::messages::offset_fetch::{
    OffsetFetchRequest, OffsetFetchResponse, OffsetFetchResponseGroup, OffsetFetchResponsePartition,
    OffsetFetchResponsePartitions, OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};

/// Partitions of a request in its order, each with its error, or `None` where the coordinator is asked.
type Checked = Vec<(String, Vec<(i32, Option<ErrorCode>)>)>;

/// Puts the coordinator's results, which are in the order of the request, where there is none yet.
fn merge(checked: Checked, asked: PartitionErrors) -> PartitionErrors {
    let mut asked = asked.into_iter().flat_map(|(_, partitions)| partitions);
    let mut result = |(index, known): (i32, Option<ErrorCode>)| match known {
        Some(error) => (index, error),
        None => {
            let (answered, error) = asked.next().expect("each partition asked about has a result");
            assert_eq!(answered, index, "results are in the order of the request");
            (index, error)
        }
    };
    checked.into_iter().map(|(topic, of_topic)| (topic, of_topic.into_iter().map(&mut result).collect())).collect()
}

pub fn commit<D: Disk>(cx: &mut Context<'_, D>, request: &OffsetCommitRequest<'_>, version: i16) -> Start<D> {
    let mut checked: Checked = Vec::with_capacity(request.topics.len());
    let mut topics = Vec::new();
    for topic in &request.topics {
        let found = cx.topic(topic.name);
        let mut results = Vec::with_capacity(topic.partitions.len());
        let mut partitions = Vec::new();
        for part in &topic.partitions {
            let error = found.partition(part.partition_index).err();
            results.push((part.partition_index, error));
            if error.is_none() {
                partitions.push(CommitPartition {
                    partition: part.partition_index,
                    offset: part.committed_offset,
                    leader_epoch: part.committed_leader_epoch,
                    metadata: part.committed_metadata.map(str::to_owned),
                });
            }
        }
        checked.push((topic.name.to_owned(), results));
        if !partitions.is_empty() {
            topics.push(CommitTopic { topic: topic.name.to_owned(), partitions });
        }
    }
    let correlation_id = cx.correlation_id;
    let encode = move |asked| commit_response(&merge(checked, asked), correlation_id, version);
    if topics.is_empty() {
        return Start::Reply(encode(Vec::new()));
    }
    let commit = group::OffsetCommit {
        group: request.group_id.to_owned(),
        member_id: request.member_id.to_owned(),
        group_instance_id: request.group_instance_id.map(str::to_owned),
        generation: request.generation_id_or_member_epoch,
        retention_time_ms: Some(request.retention_time_ms).filter(|ms| *ms != -1),
        topics,
    };
    ask(cx, group::Request::OffsetCommit(commit), move |reply| {
        let group::Reply::OffsetCommit(asked) = reply else { unreachable!("a commit is answered as one") };
        encode(asked)
    })
}

fn commit_response<F>(results: &PartitionErrors, correlation_id: i32, version: i16) -> Reply<F> {
    let topics = results.iter().map(|(name, partitions)| {
        let partition = |(partition_index, error): &(i32, ErrorCode)| OffsetCommitResponsePartition {
            partition_index: *partition_index,
            error_code: error.code(),
        };
        OffsetCommitResponseTopic { name, partitions: partitions.iter().map(partition).collect() }
    });
    let response = OffsetCommitResponse { topics: topics.collect(), ..Default::default() };
    Reply::encode(correlation_id, version, &response)
}

pub fn delete<D: Disk>(cx: &mut Context<'_, D>, request: &OffsetDeleteRequest<'_>, version: i16) -> Start<D> {
    let mut checked: Checked = Vec::with_capacity(request.topics.len());
    let mut topics = Vec::new();
    for topic in &request.topics {
        let found = cx.topic(topic.name);
        let indexes = topic.partitions.iter().map(|part| part.partition_index);
        let results: Vec<_> = indexes.map(|index| (index, found.partition(index).err())).collect();
        let there = results.iter().filter(|(_, error)| error.is_none()).map(|(index, _)| *index);
        topics.push((topic.name.to_owned(), there.collect()));
        checked.push((topic.name.to_owned(), results));
    }
    let delete = group::OffsetDelete { group: request.group_id.to_owned(), topics };
    let correlation_id = cx.correlation_id;
    // Asked even where no partition is left: that there is no such group matters more.
    ask(cx, group::Request::OffsetDelete(delete), move |reply| {
        let group::Reply::OffsetDelete { error, topics } = reply else { unreachable!("is answered as a deletion") };
        let results = if error.is_error() { Vec::new() } else { merge(checked, topics) };
        let topics = results.iter().map(|(name, partitions)| {
            let partition = |(partition_index, error): &(i32, ErrorCode)| OffsetDeleteResponsePartition {
                partition_index: *partition_index,
                error_code: error.code(),
            };
            OffsetDeleteResponseTopic { name, partitions: partitions.iter().map(partition).collect() }
        });
        let response =
            OffsetDeleteResponse { error_code: error.code(), topics: topics.collect(), ..Default::default() };
        Reply::encode(correlation_id, version, &response)
    })
}

pub fn fetch<D: Disk>(cx: &mut Context<'_, D>, request: &OffsetFetchRequest<'_>, version: i16) -> Start<D> {
    let asked = asked(request, version);
    let names: Vec<String> = asked.iter().map(|fetch| fetch.group.clone()).collect();
    // v1 has no place for an error but at the partitions that were asked for.
    let wanted = asked.first().and_then(|fetch| fetch.topics.clone()).filter(|_| version < 2).unwrap_or_default();
    let requests = asked.into_iter().map(|fetch| (cx.coordinator_of(&fetch.group), group::Request::OffsetFetch(fetch)));
    let correlation_id = cx.correlation_id;
    ask_each(requests.collect(), move |answers| {
        let fetched = |reply: group::Reply| match reply {
            group::Reply::OffsetFetch(fetched) => fetched,
            other => unreachable!("offsets were to be fetched, not {other:?}"),
        };
        let mut answers: Vec<_> = answers.into_iter().map(fetched).collect();
        if version < 2 && answers[0].error.is_error() {
            let none =
                |(topic, parts): (String, Vec<i32>)| (topic, parts.into_iter().map(|index| (index, None)).collect());
            answers[0].topics = wanted.into_iter().map(none).collect();
        }
        let response = match version {
            ..8 => OffsetFetchResponse {
                topics: topics_of_one(&answers[0]),
                error_code: answers[0].error.code(),
                ..Default::default()
            },
            _ => OffsetFetchResponse {
                groups: names.iter().zip(&answers).map(|(name, answer)| group_of_many(name, answer)).collect(),
                ..Default::default()
            },
        };
        Reply::encode(correlation_id, version, &response)
    })
}

/// What is asked of each group: one group before v8.
fn asked(request: &OffsetFetchRequest<'_>, version: i16) -> Vec<group::OffsetFetch> {
    let require_stable = request.require_stable;
    if version >= 8 {
        let groups = request.groups.iter().map(|of| {
            let topics =
                of.topics.iter().flatten().map(|topic| (topic.name.to_owned(), topic.partition_indexes.clone()));
            let topics = of.topics.is_some().then(|| topics.collect());
            group::OffsetFetch { group: of.group_id.to_owned(), topics, require_stable }
        });
        return groups.collect();
    }
    let topics = request.topics.iter().flatten();
    let topics = topics.map(|topic| (topic.name.to_owned(), topic.partition_indexes.clone()));
    let topics = request.topics.is_some().then(|| topics.collect());
    vec![group::OffsetFetch { group: request.group_id.to_owned(), topics, require_stable }]
}

/// An offset as it is told: offset, leader epoch, metadata.
fn told(committed: &Option<CommittedOffset>) -> (i64, i32, Option<&str>) {
    committed.as_ref().map_or((-1, -1, Some("")), |found| (found.offset, found.leader_epoch, Some(&found.metadata)))
}

/// Up to v7.
fn topics_of_one(answer: &group::OffsetFetchReply) -> Vec<OffsetFetchResponseTopic<'_>> {
    let topics = answer.topics.iter().map(|(name, partitions)| {
        let partitions = partitions.iter().map(|(partition_index, found)| {
            let (committed_offset, committed_leader_epoch, metadata) = told(found);
            OffsetFetchResponsePartition {
                partition_index: *partition_index,
                committed_offset,
                committed_leader_epoch,
                metadata,
                error_code: answer.error.code(),
            }
        });
        OffsetFetchResponseTopic { name, partitions: partitions.collect() }
    });
    topics.collect()
}

/// From v8 on.
fn group_of_many<'a>(group_id: &'a str, answer: &'a group::OffsetFetchReply) -> OffsetFetchResponseGroup<'a> {
    let topics = answer.topics.iter().map(|(name, partitions)| {
        let partitions = partitions.iter().map(|(partition_index, found)| {
            let (committed_offset, committed_leader_epoch, metadata) = told(found);
            OffsetFetchResponsePartitions {
                partition_index: *partition_index,
                committed_offset,
                committed_leader_epoch,
                metadata,
                error_code: ErrorCode::None.code(),
            }
        });
        OffsetFetchResponseTopics { name, partitions: partitions.collect() }
    });
    OffsetFetchResponseGroup { group_id, topics: topics.collect(), error_code: answer.error.code() }
}
