//! What goes out of the coordinator: actions, replies, and the reply that a request gets when it is refused as a whole.

use bytes::Bytes;

use super::RequestId;
use super::classic::GroupState;
use super::persist::AppendToken;
use super::records::{CommittedOffset, Record};
use super::request::Request;
use crate::base::error::ErrorCode;

/// What the shard has to do, in the order given.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Answers a request.
    Reply(RequestId, Reply),
    /// Appends `records` to a partition of `__consumer_offsets`, after those of earlier appends to it, and reports the
    /// outcome: `Durable` in the order of the appends, `AppendFailed` at any time.
    Append { partition: i32, group: String, records: Vec<Record>, token: AppendToken },
}

/// The answer to the [`Request`] of the same name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reply {
    JoinGroup(JoinGroupReply),
    SyncGroup(SyncGroupReply),
    Heartbeat(ErrorCode),
    LeaveGroup(LeaveGroupReply),
    OffsetCommit(PartitionErrors),
    OffsetFetch(OffsetFetchReply),
    OffsetDelete { error: ErrorCode, topics: PartitionErrors },
    DescribeGroup(GroupDescription),
    ListGroups { error: ErrorCode, groups: Vec<GroupListing> },
    DeleteGroup(ErrorCode),
}

/// Topics and their partitions in the order of the request, each with its result.
pub type PartitionErrors = Vec<(String, Vec<(i32, ErrorCode)>)>;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JoinGroupReply {
    pub error: ErrorCode,
    /// The id to use from now on, with `MemberIdRequired` as well.
    pub member_id: String,
    /// -1 with an error.
    pub generation: i32,
    pub protocol_type: Option<String>,
    pub protocol_name: Option<String>,
    /// Empty with an error.
    pub leader: String,
    /// The leader need not assign: the group goes on with the assignment it has (KIP-814).
    pub skip_assignment: bool,
    /// All members, for the leader alone.
    pub members: Vec<JoinedMember>,
}

impl JoinGroupReply {
    pub(super) fn refused(member_id: &str, error: ErrorCode) -> JoinGroupReply {
        JoinGroupReply {
            error,
            member_id: member_id.into(),
            generation: -1,
            protocol_type: None,
            protocol_name: None,
            leader: String::new(),
            skip_assignment: false,
            members: Vec::new(),
        }
    }
}

/// A member as the leader is told of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JoinedMember {
    pub member_id: String,
    pub group_instance_id: Option<String>,
    /// For the protocol that the group chose.
    pub metadata: Bytes,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SyncGroupReply {
    pub error: ErrorCode,
    pub protocol_type: Option<String>,
    pub protocol_name: Option<String>,
    pub assignment: Bytes,
}

impl SyncGroupReply {
    pub(super) fn refused(error: ErrorCode) -> SyncGroupReply {
        SyncGroupReply { error, protocol_type: None, protocol_name: None, assignment: Bytes::new() }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LeaveGroupReply {
    pub error: ErrorCode,
    /// In the order of the request; empty with an error of the whole.
    pub members: Vec<LeftMember>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LeftMember {
    pub member_id: String,
    pub group_instance_id: Option<String>,
    pub error: ErrorCode,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OffsetFetchReply {
    pub error: ErrorCode,
    /// `None` for partitions with nothing committed: -1 and empty metadata on the wire.
    pub topics: FetchedOffsets,
}

/// Topics and their partitions, each with what is committed for it.
pub type FetchedOffsets = Vec<(String, Vec<(i32, Option<CommittedOffset>)>)>;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupDescription {
    pub error: ErrorCode,
    pub group: String,
    /// `None` with an error (an empty string on the wire).
    pub state: Option<GroupState>,
    pub protocol_type: String,
    /// Empty unless the group is stable.
    pub protocol: String,
    pub members: Vec<MemberDescription>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemberDescription {
    pub member_id: String,
    pub group_instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    /// Empty unless the group is stable.
    pub metadata: Bytes,
    /// Empty unless the group is stable.
    pub assignment: Bytes,
}

/// A line of ListGroups.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupListing {
    pub group: String,
    pub protocol_type: String,
    pub state: GroupState,
    /// "classic" (KIP-848).
    pub group_type: &'static str,
}

impl Request {
    /// The reply when the request is refused as a whole, in the form that its API has for it.
    pub(super) fn refused(&self, error: ErrorCode) -> Reply {
        match self {
            Request::JoinGroup(request) => Reply::JoinGroup(JoinGroupReply::refused(&request.member_id, error)),
            // Old clients know no load in progress here. The rebalance that was going on is lost, so joining again is right.
            Request::SyncGroup(_) if error == ErrorCode::CoordinatorLoadInProgress => {
                Reply::SyncGroup(SyncGroupReply::refused(ErrorCode::RebalanceInProgress))
            }
            Request::SyncGroup(_) => Reply::SyncGroup(SyncGroupReply::refused(error)),
            // Nobody's session ends while a partition loads: a heartbeat is as good as taken.
            Request::Heartbeat(_) if error == ErrorCode::CoordinatorLoadInProgress => Reply::Heartbeat(ErrorCode::None),
            Request::Heartbeat(_) => Reply::Heartbeat(error),
            Request::LeaveGroup(_) => Reply::LeaveGroup(LeaveGroupReply { error, members: Vec::new() }),
            Request::OffsetCommit(request) => Reply::OffsetCommit(
                request
                    .topics
                    .iter()
                    .map(|topic| (topic.topic.clone(), topic.partitions.iter().map(|p| (p.partition, error)).collect()))
                    .collect(),
            ),
            Request::OffsetFetch(_) => Reply::OffsetFetch(OffsetFetchReply { error, topics: Vec::new() }),
            Request::OffsetDelete(_) => Reply::OffsetDelete { error, topics: Vec::new() },
            Request::DescribeGroup(group) => Reply::DescribeGroup(GroupDescription {
                error,
                group: group.clone(),
                state: None,
                protocol_type: String::new(),
                protocol: String::new(),
                members: Vec::new(),
            }),
            Request::ListGroups(_) => Reply::ListGroups { error, groups: Vec::new() },
            Request::DeleteGroup(_) => Reply::DeleteGroup(error),
        }
    }
}
