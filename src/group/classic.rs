//! One group of the classic protocol: its members and what can be said of them. Which step comes next is decided in
//! `join`, `rebalance`, `sync` and `leave`.
//!
//! Source: Kafka `GroupMetadata`, `MemberMetadata`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::RequestId;
use super::context::Context;
use super::offsets::OffsetTable;
use super::reply::{JoinGroupReply, JoinedMember, Reply, SyncGroupReply};
use super::request::Protocol;
use super::subscription;
use super::timers::{Deadline, Subject, TimerKey};
use crate::base::error::ErrorCode;
use crate::base::time::TimestampMs;

/// A group's name, shared by the timers and appends that speak of it.
pub(super) type GroupId = Arc<str>;
/// A member's id within its group.
pub(super) type MemberId = Arc<str>;

/// Where a group stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GroupState {
    /// No members; offsets may be there.
    Empty,
    /// Members are called together: those that do not come in time are out.
    PreparingRebalance,
    /// A new generation waits for its leader's assignment.
    CompletingRebalance,
    /// Everybody has an assignment.
    Stable,
    /// Does not exist (any more).
    Dead,
}

impl GroupState {
    /// Kafka's name.
    pub fn name(self) -> &'static str {
        match self {
            GroupState::Empty => "Empty",
            GroupState::PreparingRebalance => "PreparingRebalance",
            GroupState::CompletingRebalance => "CompletingRebalance",
            GroupState::Stable => "Stable",
            GroupState::Dead => "Dead",
        }
    }
}

impl fmt::Display for GroupState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A member of a group.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub id: MemberId,
    /// Set for static members (KIP-345).
    pub instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub rebalance_timeout_ms: u32,
    pub session_timeout_ms: u32,
    /// In the order of preference. Invariant: at least one, no name twice.
    pub protocols: Vec<Protocol>,
    pub assignment: Bytes,
    /// Its JoinGroup that waits for the generation to begin. Changed only by `Group`, which counts them.
    awaiting_join: Option<RequestId>,
    /// Its SyncGroup that waits for the leader's assignment.
    pub awaiting_sync: Option<RequestId>,
    /// Has not seen a generation yet, so it cannot send heartbeats.
    pub is_new: bool,
    pub session: Deadline,
}

/// What a member says of itself when it joins.
#[derive(Clone, Debug)]
pub(super) struct MemberTerms {
    pub client_id: String,
    pub client_host: String,
    pub rebalance_timeout_ms: u32,
    pub session_timeout_ms: u32,
    /// Invariant: at least one, no name twice.
    pub protocols: Vec<Protocol>,
}

impl Member {
    pub fn new(id: MemberId, instance_id: Option<String>, terms: MemberTerms) -> Member {
        Member {
            id,
            instance_id,
            client_id: terms.client_id,
            client_host: terms.client_host,
            rebalance_timeout_ms: terms.rebalance_timeout_ms,
            session_timeout_ms: terms.session_timeout_ms,
            protocols: terms.protocols,
            assignment: Bytes::new(),
            awaiting_join: None,
            awaiting_sync: None,
            is_new: false,
            session: Deadline::default(),
        }
    }

    pub fn awaiting_join(&self) -> Option<RequestId> {
        self.awaiting_join
    }

    pub fn is_static(&self) -> bool {
        self.instance_id.is_some()
    }

    /// What it tells the leader under the protocol `name`; empty where it does not offer it.
    pub fn metadata(&self, name: &str) -> Bytes {
        self.protocols.iter().find(|protocol| protocol.name == name).map(|p| p.metadata.clone()).unwrap_or_default()
    }

    /// While a request of its waits here, its silence is no sign of death. A newcomer's is: its first reply may have no reader.
    pub fn may_be_silent(&self) -> bool {
        !self.is_new && (self.awaiting_join.is_some() || self.awaiting_sync.is_some())
    }
}

/// A group and everything the coordinator knows of it.
pub(super) struct Group {
    pub id: GroupId,
    /// Of `__consumer_offsets`.
    pub partition: i32,
    pub state: GroupState,
    /// Wall clock of the last change of state; `None` for groups loaded from records that do not tell.
    pub state_timestamp_ms: Option<TimestampMs>,
    /// Counts rebalances, never goes back. 0 = none yet.
    pub generation: i32,
    /// Set by the first member, kept when the last one leaves. `None`: only ever used to keep offsets.
    pub protocol_type: Option<String>,
    /// Of the current generation; `None` where it has no members.
    pub protocol_name: Option<String>,
    /// Invariant: a member, where there are any.
    pub leader: Option<MemberId>,
    pub members: BTreeMap<MemberId, Member>,
    /// Instance id → member id. Invariant: exactly the static members.
    pub static_members: BTreeMap<String, MemberId>,
    /// Ids handed out to newcomers that have not joined with them yet (KIP-394).
    pub pending_members: BTreeMap<MemberId, Deadline>,
    /// Members of this generation that have not sent SyncGroup yet.
    pub pending_sync: BTreeSet<MemberId>,
    /// How many members each protocol name is offered by. Invariant: no zeros.
    protocol_support: BTreeMap<String, usize>,
    /// Invariant: how many members have `awaiting_join` set.
    joined_count: usize,
    pub join_deadline: Deadline,
    pub sync_deadline: Deadline,
    /// In the first delay of a group that was empty: milliseconds by which it may still be prolonged.
    pub initial_delay_left_ms: Option<u32>,
    /// Somebody came during the initial delay, so that it is worth prolonging.
    pub new_member_added: bool,
    /// The append that carries this generation's assignment, while it is in flight.
    pub storing_assignment: Option<u64>,
    /// Topics that the members subscribe to; `None` where that is not known, as with opaque protocols.
    pub subscribed_topics: Option<BTreeSet<String>>,
    pub offsets: OffsetTable,
    /// The value of the group's own record that is durable in the log.
    pub stored: Option<Bytes>,
    /// Appends in flight that write or delete the group's own record.
    pub metadata_in_flight: u32,
}

impl Group {
    pub fn new(id: GroupId, partition: i32) -> Group {
        Group {
            id,
            partition,
            state: GroupState::Empty,
            state_timestamp_ms: None,
            generation: 0,
            protocol_type: None,
            protocol_name: None,
            leader: None,
            members: BTreeMap::new(),
            static_members: BTreeMap::new(),
            pending_members: BTreeMap::new(),
            pending_sync: BTreeSet::new(),
            protocol_support: BTreeMap::new(),
            joined_count: 0,
            join_deadline: Deadline::default(),
            sync_deadline: Deadline::default(),
            initial_delay_left_ms: None,
            new_member_added: false,
            storing_assignment: None,
            subscribed_topics: None,
            offsets: OffsetTable::default(),
            stored: None,
            metadata_in_flight: 0,
        }
    }

    /// Nobody would miss it: no members, offsets or records, here or on their way.
    pub fn is_disposable(&self) -> bool {
        self.state == GroupState::Empty
            && self.pending_members.is_empty()
            && self.offsets.is_empty()
            && self.stored.is_none()
            && self.metadata_in_flight == 0
    }

    pub fn set_state(&mut self, cx: &Context, state: GroupState) {
        self.state = state;
        self.state_timestamp_ms = Some(cx.now.wall_ms);
    }

    pub fn is_leader(&self, member_id: &str) -> bool {
        self.leader.as_deref() == Some(member_id)
    }

    pub fn joined_count(&self) -> usize {
        self.joined_count
    }

    /// The longest any member wants to be waited for; 0 without members.
    pub fn rebalance_timeout_ms(&self) -> u32 {
        self.members.values().map(|member| member.rebalance_timeout_ms).max().unwrap_or(0)
    }

    /// Checks that a request speaks for a member of this group.
    ///
    /// # Errors
    /// `FencedInstanceId`: another process has taken the instance id over; this one must stop. `UnknownMemberId`: never
    /// was a member, or is out; it must join anew.
    ///
    /// Source: Kafka `GroupCoordinator.validateCurrentMember`.
    pub fn check_member(&self, member_id: &str, instance_id: Option<&str>) -> Result<(), ErrorCode> {
        if let Some(instance_id) = instance_id {
            match self.static_members.get(instance_id) {
                None => return Err(ErrorCode::UnknownMemberId),
                Some(current) if &**current != member_id => return Err(ErrorCode::FencedInstanceId),
                Some(_) => {}
            }
        }
        if self.members.contains_key(member_id) { Ok(()) } else { Err(ErrorCode::UnknownMemberId) }
    }

    /// Whether one who offers these protocols can be in the group: they share one with all who are here.
    pub fn supports_protocols(&self, protocol_type: &str, protocols: &[Protocol]) -> bool {
        if self.members.is_empty() {
            return !protocol_type.is_empty() && !protocols.is_empty();
        }
        self.protocol_type.as_deref() == Some(protocol_type)
            && protocols.iter().any(|protocol| self.protocol_support.get(&protocol.name) == Some(&self.members.len()))
    }

    /// The protocol that most members like best among those that all offer; of equals the first by name.
    pub fn select_protocol(&self) -> String {
        let everybody = self.members.len();
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for member in self.members.values() {
            let vote = member.protocols.iter().find(|p| self.protocol_support.get(&p.name) == Some(&everybody));
            *votes.entry(&vote.expect("joining requires a protocol in common").name).or_default() += 1;
        }
        let (name, _) = votes.iter().rev().max_by_key(|(_, count)| **count).expect("asked of groups with members only");
        (*name).to_owned()
    }

    fn count_protocols(&mut self, protocols: &[Protocol]) {
        for protocol in protocols {
            *self.protocol_support.entry(protocol.name.clone()).or_default() += 1;
        }
    }

    fn uncount_protocols(&mut self, protocols: &[Protocol]) {
        for protocol in protocols {
            let count = self.protocol_support.get_mut(&protocol.name).expect("was counted when the member came");
            *count -= 1;
            if *count == 0 {
                self.protocol_support.remove(&protocol.name);
            }
        }
    }

    /// Takes in a member whose protocols have been found to be supported.
    pub fn add_member(&mut self, protocol_type: &str, member: Member) {
        if self.members.is_empty() {
            self.protocol_type = Some(protocol_type.to_owned());
        }
        assert_eq!(self.protocol_type.as_deref(), Some(protocol_type));
        assert!(member.awaiting_join.is_none() && !member.protocols.is_empty());
        if let Some(instance_id) = &member.instance_id {
            let earlier = self.static_members.insert(instance_id.clone(), member.id.clone());
            assert!(earlier.is_none(), "a known instance id replaces its member");
        }
        self.leader.get_or_insert_with(|| member.id.clone());
        self.pending_members.remove(&member.id);
        self.count_protocols(&member.protocols);
        let earlier = self.members.insert(member.id.clone(), member);
        assert!(earlier.is_none(), "member ids are unique");
    }

    /// Takes a member, or a pending one, out. What it still waits for is answered with `UnknownMemberId`.
    pub fn remove_member(&mut self, cx: &mut Context, member_id: &str) {
        let refusal = JoinGroupReply::refused("", ErrorCode::UnknownMemberId);
        self.answer_join(cx, member_id, |_| refusal);
        self.answer_sync(cx, member_id, SyncGroupReply::refused(ErrorCode::UnknownMemberId));
        if let Some(member) = self.members.remove(member_id) {
            self.uncount_protocols(&member.protocols);
            if let Some(instance_id) = &member.instance_id {
                self.static_members.remove(instance_id);
            }
        }
        if self.is_leader(member_id) {
            self.leader = self.members.keys().next().cloned();
        }
        self.pending_members.remove(member_id);
        self.pending_sync.remove(member_id);
    }

    /// Gives the place of a static member to the process that came under its instance id. Whoever waits under the old
    /// member id is fenced at once.
    pub fn replace_static_member(&mut self, cx: &mut Context, old_id: &MemberId, new_id: &MemberId) {
        let fenced = JoinGroupReply::refused(old_id, ErrorCode::FencedInstanceId);
        self.answer_join(cx, old_id, |_| fenced);
        self.answer_sync(cx, old_id, SyncGroupReply::refused(ErrorCode::FencedInstanceId));
        let mut member = self.members.remove(old_id).expect("the instance id names a member");
        member.id = new_id.clone();
        // The old entry in the queue goes by the old member id and will find nobody.
        member.session = Deadline::default();
        let instance_id = member.instance_id.clone().expect("only static members are replaced");
        self.static_members.insert(instance_id, new_id.clone());
        if self.is_leader(old_id) {
            self.leader = Some(new_id.clone());
        }
        if self.pending_sync.remove(old_id) {
            self.pending_sync.insert(new_id.clone());
        }
        self.members.insert(new_id.clone(), member);
    }

    /// Sets what a member says of itself anew.
    pub fn update_member(&mut self, member_id: &str, terms: MemberTerms) {
        self.count_protocols(&terms.protocols);
        let member = self.members.get_mut(member_id).expect("checked before");
        member.client_id = terms.client_id;
        member.client_host = terms.client_host;
        member.rebalance_timeout_ms = terms.rebalance_timeout_ms;
        member.session_timeout_ms = terms.session_timeout_ms;
        let old_protocols = std::mem::replace(&mut member.protocols, terms.protocols);
        self.uncount_protocols(&old_protocols);
    }

    /// Lets a member's JoinGroup wait. An earlier one of the same member, whose connection is surely gone, is answered.
    pub fn park_join(&mut self, cx: &mut Context, member_id: &str, request: RequestId) {
        let superseded = JoinGroupReply::refused(member_id, ErrorCode::RebalanceInProgress);
        self.answer_join(cx, member_id, |_| superseded);
        self.members.get_mut(member_id).expect("checked before").awaiting_join = Some(request);
        self.joined_count += 1;
    }

    /// Lets a member's SyncGroup wait, as [`Group::park_join`] does.
    pub fn park_sync(&mut self, cx: &mut Context, member_id: &str, request: RequestId) {
        self.answer_sync(cx, member_id, SyncGroupReply::refused(ErrorCode::RebalanceInProgress));
        self.members.get_mut(member_id).expect("checked before").awaiting_sync = Some(request);
    }

    /// Answers the JoinGroup that a member waits for, if it does.
    pub fn answer_join(
        &mut self,
        cx: &mut Context,
        member_id: &str,
        reply: impl FnOnce(&Group) -> JoinGroupReply,
    ) -> bool {
        let waiting = self.members.get_mut(member_id).and_then(|member| member.awaiting_join.take());
        let Some(request) = waiting else { return false };
        self.joined_count -= 1;
        cx.reply(request, Reply::JoinGroup(reply(self)));
        true
    }

    /// Answers the SyncGroup that a member waits for, if it does.
    pub fn answer_sync(&mut self, cx: &mut Context, member_id: &str, reply: SyncGroupReply) -> bool {
        let waiting = self.members.get_mut(member_id).and_then(|member| member.awaiting_sync.take());
        let Some(request) = waiting else { return false };
        cx.reply(request, Reply::SyncGroup(reply));
        true
    }

    /// The answer to a JoinGroup in the current generation.
    pub fn join_reply(&self, member_id: &str) -> JoinGroupReply {
        let is_leader = self.is_leader(member_id);
        JoinGroupReply {
            error: ErrorCode::None,
            member_id: member_id.to_owned(),
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol_name: self.protocol_name.clone(),
            leader: self.leader.as_deref().unwrap_or_default().to_owned(),
            skip_assignment: false,
            members: if is_leader { self.joined_members() } else { Vec::new() },
        }
    }

    fn joined_members(&self) -> Vec<JoinedMember> {
        let protocol = self.protocol_name.as_deref().unwrap_or_default();
        let joined = |member: &Member| JoinedMember {
            member_id: member.id.to_string(),
            group_instance_id: member.instance_id.clone(),
            metadata: member.metadata(protocol),
        };
        self.members.values().map(joined).collect()
    }

    /// Makes sure that the leader is one who has joined. False where nobody has.
    pub fn elect_joined_leader(&mut self) -> bool {
        let has_joined = |id: &MemberId| self.members[id].awaiting_join.is_some();
        if self.leader.as_ref().is_some_and(has_joined) {
            return true;
        }
        match self.members.values().find(|member| member.awaiting_join.is_some()) {
            Some(member) => self.leader = Some(member.id.clone()),
            None => return false,
        }
        true
    }

    /// What the members subscribe to, as far as their protocol lets the broker know.
    pub fn compute_subscribed_topics(&self) -> Option<BTreeSet<String>> {
        if self.protocol_type.as_deref() != Some(subscription::PROTOCOL_TYPE) {
            return None;
        }
        let protocol = self.protocol_name.as_deref().unwrap_or_default();
        let mut topics = BTreeSet::new();
        for member in self.members.values() {
            topics.extend(subscription::topics(&member.metadata(protocol))?);
        }
        Some(topics)
    }

    pub fn timer_key(&self, subject: Subject) -> TimerKey {
        TimerKey { partition: self.partition, subject }
    }

    /// Gives a member its session timeout from now on: it has shown that it lives.
    pub fn restart_session(&mut self, cx: &mut Context, member_id: &str) {
        if let Some(member) = self.members.get(member_id) {
            let timeout_ms = member.session_timeout_ms;
            self.expect_within(cx, member_id, timeout_ms);
        }
    }

    /// Gives a member `timeout_ms` from now to show that it lives.
    pub fn expect_within(&mut self, cx: &mut Context, member_id: &str, timeout_ms: u32) {
        let Some(member) = self.members.get_mut(member_id) else { return };
        let (partition, group, id) = (self.partition, &self.id, &member.id);
        cx.set_deadline(&mut member.session, timeout_ms, || TimerKey {
            partition,
            subject: Subject::Session(group.clone(), id.clone()),
        });
    }

    pub fn expect_joins_within(&mut self, cx: &mut Context, timeout_ms: u32) {
        let key = self.timer_key(Subject::Join(self.id.clone()));
        cx.set_deadline(&mut self.join_deadline, timeout_ms, || key);
    }

    pub fn expect_syncs_within(&mut self, cx: &mut Context, timeout_ms: u32) {
        let key = self.timer_key(Subject::Sync(self.id.clone()));
        cx.set_deadline(&mut self.sync_deadline, timeout_ms, || key);
    }
}
