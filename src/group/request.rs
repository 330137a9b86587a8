//! What comes into the coordinator: requests and events, free of wire formats and owning their data. Decides nothing.

use bytes::Bytes;

use super::RequestId;
use super::persist::AppendToken;
use crate::base::error::ErrorCode;
use crate::base::ids::Offset;

/// Everything that can happen to the groups of a core.
#[derive(Clone, Debug)]
pub enum Input {
    /// A client asks; exactly one [`super::Action::Reply`] with this id follows, now or later.
    Request(RequestId, Request),
    /// Time passed: whatever is due is done. Every other input does the same at its end.
    Tick,
    /// The records of this append are on disk.
    Durable(AppendToken),
    /// The records of this append are not in the log and never will be, for the reason named.
    AppendFailed(AppendToken, ErrorCode),
    /// This core is to coordinate the groups of an offsets partition; its records follow through
    /// [`super::Groups::replay`]. Until `LoadFinished` requests get `CoordinatorLoadInProgress`.
    LoadStarted(i32),
    /// All records of the partition have been replayed: its groups are served from here on.
    LoadFinished(i32),
    /// Another core or broker coordinates the groups of this offsets partition now.
    Unload(i32),
    /// A topic is gone: nobody's offsets for it count any more.
    TopicDeleted(String),
}

/// A request about one group, or the list of all.
#[derive(Clone, Debug)]
pub enum Request {
    JoinGroup(Box<JoinGroup>),
    SyncGroup(SyncGroup),
    Heartbeat(Heartbeat),
    LeaveGroup(LeaveGroup),
    OffsetCommit(OffsetCommit),
    OffsetFetch(OffsetFetch),
    OffsetDelete(OffsetDelete),
    /// DescribeGroups, one group at a time.
    DescribeGroup(String),
    ListGroups(ListGroups),
    /// DeleteGroups, one group at a time.
    DeleteGroup(String),
}

/// JoinGroup v0-v9.
#[derive(Clone, Debug)]
pub struct JoinGroup {
    pub group: String,
    /// Empty where the client has none yet.
    pub member_id: String,
    /// Static membership (KIP-345).
    pub group_instance_id: Option<String>,
    pub client_id: String,
    /// As Kafka prints it: a slash and the address.
    pub client_host: String,
    /// True for v4 and later: a newcomer is given its member id first and must come again with it (KIP-394).
    pub require_known_member_id: bool,
    /// True for v9 and later: a static leader that restarts can be told to skip the assignment (KIP-814).
    pub can_skip_assignment: bool,
    /// The member id to be, where one is needed. The caller draws it at random.
    pub member_uuid: u128,
    pub session_timeout_ms: i32,
    /// Negative in v0, which has none: the session timeout counts.
    pub rebalance_timeout_ms: i32,
    /// Opaque: "consumer", "connect", …
    pub protocol_type: String,
    /// In the order of the member's preference.
    pub protocols: Vec<Protocol>,
    /// Why the client joins, in its own words, for the log (KIP-800).
    pub reason: Option<String>,
}

/// A way to assign that a member offers, and what it tells the leader for it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Protocol {
    pub name: String,
    pub metadata: Bytes,
}

/// SyncGroup v0-v5.
#[derive(Clone, Debug)]
pub struct SyncGroup {
    pub group: String,
    pub generation: i32,
    pub member_id: String,
    pub group_instance_id: Option<String>,
    /// `None` before v5 (KIP-559).
    pub protocol_type: Option<String>,
    /// `None` before v5 (KIP-559).
    pub protocol_name: Option<String>,
    /// Member id and what it is assigned; only the leader's counts.
    pub assignments: Vec<(String, Bytes)>,
}

/// Heartbeat v0-v4.
#[derive(Clone, Debug)]
pub struct Heartbeat {
    pub group: String,
    pub generation: i32,
    pub member_id: String,
    pub group_instance_id: Option<String>,
}

/// LeaveGroup v0-v5. Before v3 there is exactly one member and its result is the whole reply.
#[derive(Clone, Debug)]
pub struct LeaveGroup {
    pub group: String,
    pub members: Vec<LeavingMember>,
}

/// One that leaves, by its own wish or an administrator's.
#[derive(Clone, Debug)]
pub struct LeavingMember {
    /// Empty where an administrator names the instance alone.
    pub member_id: String,
    pub group_instance_id: Option<String>,
    /// For the log (KIP-800).
    pub reason: Option<String>,
}

/// OffsetCommit v2-v9. That the topics exist has been checked before.
#[derive(Clone, Debug)]
pub struct OffsetCommit {
    pub group: String,
    /// Empty where the client manages its partitions itself.
    pub member_id: String,
    pub group_instance_id: Option<String>,
    /// -1 where the client manages its partitions itself.
    pub generation: i32,
    /// v2-v4: how long these offsets are to be kept; `None` where the broker's retention counts (-1 on the wire).
    pub retention_time_ms: Option<i64>,
    pub topics: Vec<CommitTopic>,
}

/// A topic within [`OffsetCommit`].
#[derive(Clone, Debug)]
pub struct CommitTopic {
    pub topic: String,
    pub partitions: Vec<CommitPartition>,
}

/// A partition within [`OffsetCommit`].
#[derive(Clone, Debug)]
pub struct CommitPartition {
    pub partition: i32,
    pub offset: Offset,
    /// -1 where unknown.
    pub leader_epoch: i32,
    pub metadata: Option<String>,
}

/// OffsetFetch v1-v8, one group at a time.
#[derive(Clone, Debug)]
pub struct OffsetFetch {
    pub group: String,
    /// Topics and their partitions; `None` asks for all there are.
    pub topics: Option<Vec<(String, Vec<i32>)>>,
    /// v7 and later (KIP-447): offsets of open transactions must not be passed over. There are none here yet, so every
    /// answer is stable.
    pub require_stable: bool,
}

/// OffsetDelete v0.
#[derive(Clone, Debug)]
pub struct OffsetDelete {
    pub group: String,
    pub topics: Vec<(String, Vec<i32>)>,
}

/// ListGroups v0-v5.
#[derive(Clone, Default, Debug)]
pub struct ListGroups {
    /// v4 and later (KIP-518); upper and lower case are the same. Empty = all.
    pub states: Vec<String>,
    /// v5 and later (KIP-848); upper and lower case are the same. Empty = all.
    pub types: Vec<String>,
}

impl Request {
    /// The group that it is about; `None` for the list of all.
    pub fn group(&self) -> Option<&str> {
        Some(match self {
            Request::JoinGroup(request) => &request.group,
            Request::SyncGroup(request) => &request.group,
            Request::Heartbeat(request) => &request.group,
            Request::LeaveGroup(request) => &request.group,
            Request::OffsetCommit(request) => &request.group,
            Request::OffsetFetch(request) => &request.group,
            Request::OffsetDelete(request) => &request.group,
            Request::DescribeGroup(group) | Request::DeleteGroup(group) => group,
            Request::ListGroups(_) => return None,
        })
    }

    /// Whether the empty group id is one. Old simple consumers commit under it, so it can be looked at and deleted too.
    /// Source: Kafka `GroupCoordinator.isValidGroupId`.
    pub(super) fn allows_empty_group(&self) -> bool {
        matches!(
            self,
            Request::OffsetCommit(_) | Request::OffsetFetch(_) | Request::DescribeGroup(_) | Request::DeleteGroup(_)
        )
    }
}
