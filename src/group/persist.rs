//! What a group writes to its `__consumer_offsets` partition, and what happens once that is durable, or is not.
//!
//! A write changes the group's durable state (offsets, stored record) only when it is durable, by the same `apply` that
//! replays the log after a restart. So what clients see is what a crash would leave.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::RequestId;
use super::classic::{Group, GroupId, GroupState, Member, MemberId, MemberTerms};
use super::context::Context;
use super::records::{self, CommittedOffset, GroupMetadata, MemberMetadata, Record};
use super::reply::{Action, JoinGroupReply, PartitionErrors, Reply};
use super::request::Protocol;
use super::{join, sync};
use crate::base::error::ErrorCode;

/// Names an append from the moment the shard is told of it until its outcome is known.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct AppendToken {
    /// Of `__consumer_offsets`.
    pub partition: i32,
    /// Rises with every append of this core; never used twice.
    pub sequence: u64,
}

/// One change of a group's durable state; one record. `None` removes: a tombstone.
#[derive(Clone, Debug)]
pub(super) enum Write {
    Offset { topic: String, partition: i32, value: Option<CommittedOffset> },
    Metadata(Option<Bytes>),
}

impl Write {
    pub fn record(&self, group: &str) -> Record {
        match self {
            Write::Offset { topic, partition, value } => Record {
                key: records::offset_key(group, topic, *partition),
                value: value.as_ref().map(records::offset_value),
            },
            Write::Metadata(value) => Record { key: records::group_key(group), value: value.clone() },
        }
    }
}

/// What follows when an append's outcome is known.
#[derive(Debug)]
pub(super) enum Then {
    Nothing,
    Commit {
        request: RequestId,
        results: PartitionErrors,
    },
    OffsetDelete {
        request: RequestId,
        results: PartitionErrors,
    },
    DeleteGroup {
        request: RequestId,
    },
    /// The leader's assignment: the generation becomes stable.
    Assignment {
        assignments: BTreeMap<MemberId, Bytes>,
    },
    /// A static member took its place again without a rebalance.
    StaticMember(Box<StaticReturn>),
}

/// What is to be said to a static member that came back, and how it was before.
#[derive(Debug)]
pub(super) struct StaticReturn {
    pub request: RequestId,
    pub member_id: MemberId,
    pub reply: JoinGroupReply,
    pub before: Member,
}

/// An append whose outcome is not known yet.
#[derive(Debug)]
pub(super) struct InFlight {
    pub group: GroupId,
    writes: Vec<Write>,
    then: Then,
}

impl InFlight {
    /// The reply to a client whose request cannot be completed, because the partition moves away.
    pub fn refuse(self, error: ErrorCode) -> Option<Action> {
        self.then.refuse(error)
    }
}

impl Then {
    fn refuse(self, error: ErrorCode) -> Option<Action> {
        match self {
            Then::Commit { request, results } => {
                Some(Action::Reply(request, Reply::OffsetCommit(with_error(results, error))))
            }
            Then::OffsetDelete { request, .. } => {
                Some(Action::Reply(request, Reply::OffsetDelete { error, topics: Vec::new() }))
            }
            Then::DeleteGroup { request } => Some(Action::Reply(request, Reply::DeleteGroup(error))),
            // Those who wait for these wait as members and are answered as such.
            Then::Nothing | Then::Assignment { .. } | Then::StaticMember(_) => None,
        }
    }
}

/// Turns every success into `error`; what was refused before stays so.
fn with_error(mut results: PartitionErrors, error: ErrorCode) -> PartitionErrors {
    for (_, result) in results.iter_mut().flat_map(|(_, partitions)| partitions) {
        if !result.is_error() {
            *result = error;
        }
    }
    results
}

impl Group {
    /// Sends `writes` to the log; `then` follows when their outcome is known.
    pub fn append(&mut self, cx: &mut Context, writes: Vec<Write>, then: Then) -> u64 {
        assert!(!writes.is_empty());
        for write in &writes {
            match write {
                Write::Offset { topic, partition, .. } => self.offsets.begin(topic, *partition),
                Write::Metadata(_) => self.metadata_in_flight += 1,
            }
        }
        let sequence = *cx.next_sequence;
        *cx.next_sequence += 1;
        let records = writes.iter().map(|write| write.record(&self.id)).collect();
        let token = AppendToken { partition: self.partition, sequence };
        cx.actions.push(Action::Append { partition: self.partition, group: self.id.to_string(), records, token });
        let in_flight = InFlight { group: self.id.clone(), writes, then };
        let earlier = cx.in_flight.insert(sequence, in_flight);
        assert!(earlier.is_none(), "sequences are never used twice");
        sequence
    }

    /// Takes in one write that the log holds already.
    pub fn replay(&mut self, write: Write) {
        match write {
            Write::Offset { topic, partition, value } => {
                self.offsets.begin(&topic, partition);
                self.offsets.end(&topic, partition, Some(value));
            }
            Write::Metadata(value) => self.stored = value,
        }
    }

    /// The append `sequence` is durable: its writes count, and whoever waited for it is answered.
    pub fn on_durable(&mut self, cx: &mut Context, sequence: u64, append: InFlight) {
        for write in append.writes {
            match write {
                Write::Offset { topic, partition, value } => self.offsets.end(&topic, partition, Some(value)),
                Write::Metadata(value) => {
                    self.metadata_in_flight -= 1;
                    self.stored = value;
                }
            }
        }
        match append.then {
            Then::Nothing => {}
            Then::Commit { request, results } => cx.reply(request, Reply::OffsetCommit(results)),
            Then::OffsetDelete { request, results } => {
                cx.reply(request, Reply::OffsetDelete { error: ErrorCode::None, topics: results });
            }
            Then::DeleteGroup { request } => cx.reply(request, Reply::DeleteGroup(ErrorCode::None)),
            Then::Assignment { assignments } => sync::on_assignment_stored(self, cx, sequence, assignments),
            Then::StaticMember(back) => join::on_static_member_stored(self, cx, *back),
        }
    }

    /// The append `sequence` will never be in the log: nothing of it counts.
    pub fn on_append_failed(&mut self, cx: &mut Context, sequence: u64, append: InFlight, error: ErrorCode) {
        for write in &append.writes {
            match write {
                Write::Offset { topic, partition, .. } => self.offsets.end(topic, *partition, None),
                Write::Metadata(_) => self.metadata_in_flight -= 1,
            }
        }
        match append.then {
            Then::Assignment { .. } => sync::on_assignment_failed(self, cx, sequence, group_error(error)),
            Then::StaticMember(back) => join::on_static_member_failed(self, cx, *back, group_error(error)),
            then => cx.actions.extend(then.refuse(offset_error(error))),
        }
    }

    /// The value of the group's own record as it is now, with each member's assignment from `assignment`.
    pub fn metadata_value(&self, assignment: impl Fn(&Member) -> Bytes) -> Bytes {
        let protocol = self.protocol_name.as_deref().unwrap_or_default();
        let member = |member: &Member| MemberMetadata {
            member_id: member.id.to_string(),
            group_instance_id: member.instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            rebalance_timeout_ms: member.rebalance_timeout_ms as i32,
            session_timeout_ms: member.session_timeout_ms as i32,
            subscription: member.metadata(protocol),
            assignment: assignment(member),
        };
        records::group_value(&GroupMetadata {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            generation: self.generation,
            protocol: self.protocol_name.clone(),
            leader: self.leader.as_deref().map(str::to_owned),
            state_timestamp_ms: self.state_timestamp_ms.unwrap_or(-1),
            members: self.members.values().map(member).collect(),
        })
    }

    /// Takes over what the log says of the group, once all of it has been replayed. The last stable generation goes on.
    pub fn restore(&mut self, metadata: GroupMetadata) {
        self.generation = metadata.generation;
        self.protocol_type = Some(metadata.protocol_type).filter(|protocol_type| !protocol_type.is_empty());
        self.state_timestamp_ms = Some(metadata.state_timestamp_ms).filter(|&at| at != -1);
        if !metadata.members.is_empty() {
            self.state = GroupState::Stable;
            self.protocol_name = Some(metadata.protocol.unwrap_or_default());
        }
        for member in metadata.members {
            self.restore_member(member);
        }
        if let Some(leader) = metadata.leader.filter(|leader| self.members.contains_key(leader.as_str())) {
            self.leader = Some(leader.into());
        }
        self.subscribed_topics = self.compute_subscribed_topics();
    }

    fn restore_member(&mut self, metadata: MemberMetadata) {
        let instance_taken = |id: &String| self.static_members.contains_key(id);
        // A record that names somebody twice is not one of ours; the first is as good as the second.
        if self.members.contains_key(metadata.member_id.as_str())
            || metadata.group_instance_id.as_ref().is_some_and(instance_taken)
        {
            return;
        }
        let protocol =
            Protocol { name: self.protocol_name.clone().unwrap_or_default(), metadata: metadata.subscription };
        let terms = MemberTerms {
            client_id: metadata.client_id,
            client_host: metadata.client_host,
            rebalance_timeout_ms: metadata.rebalance_timeout_ms.max(0) as u32,
            session_timeout_ms: metadata.session_timeout_ms.max(0) as u32,
            protocols: vec![protocol],
        };
        let mut member = Member::new(metadata.member_id.into(), metadata.group_instance_id, terms);
        member.assignment = metadata.assignment;
        let protocol_type = self.protocol_type.clone().unwrap_or_default();
        self.add_member(&protocol_type, member);
    }
}

/// What clients are told when offsets could not be written. Source: Kafka `maybeConvertOffsetCommitError`.
fn offset_error(error: ErrorCode) -> ErrorCode {
    match error {
        ErrorCode::UnknownTopicOrPartition
        | ErrorCode::NotEnoughReplicas
        | ErrorCode::NotEnoughReplicasAfterAppend
        | ErrorCode::RequestTimedOut => ErrorCode::CoordinatorNotAvailable,
        ErrorCode::NotLeaderOrFollower | ErrorCode::KafkaStorageError => ErrorCode::NotCoordinator,
        ErrorCode::MessageTooLarge | ErrorCode::RecordListTooLarge | ErrorCode::InvalidFetchSize => {
            ErrorCode::InvalidCommitOffsetSize
        }
        other => other,
    }
}

/// What members are told when their group could not be written. Source: Kafka `GroupMetadataManager.storeGroup`.
fn group_error(error: ErrorCode) -> ErrorCode {
    match error {
        ErrorCode::MessageTooLarge | ErrorCode::RecordListTooLarge | ErrorCode::InvalidFetchSize => {
            ErrorCode::UnknownServerError
        }
        other => offset_error(other),
    }
}
