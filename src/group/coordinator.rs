//! All groups of a core: finds the group that an input is about, lets it take its step, and lets time pass.
//!
//! Pure: the shard performs the actions, tells of their outcomes, and calls again when the time has come.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;

use super::classic::{Group, GroupId};
use super::context::Context;
use super::persist::{AppendToken, InFlight, Write};
use super::records::{self, Decoded, RecordError};
use super::reply::{Action, JoinGroupReply, Reply, SyncGroupReply};
use super::request::{Input, JoinGroup, ListGroups, Request};
use super::settings::GroupSettings;
use super::snapshot::{Filling, SliceLimit, SnapshotCursor, SnapshotSlice};
use super::timers::{Deadline, Subject, TimerKey, Timers};
use super::{RequestId, describe, expiry, join, leave, offsets, rebalance, sync};
use crate::base::error::ErrorCode;
use crate::base::limits::GROUP_STRING_BYTES_MAX;
use crate::base::measures::Committed;
use crate::base::time::{Nanos, Now};

/// The group coordinator of one core: the groups of those `__consumer_offsets` partitions that the core leads.
pub struct Groups {
    settings: GroupSettings,
    timers: Timers,
    partitions: BTreeMap<i32, Partition>,
    /// Of the next append; see [`AppendToken`].
    next_sequence: u64,
}

/// One partition of `__consumer_offsets` and the groups that are kept in it.
struct Partition {
    /// Its records are still being replayed.
    is_loading: bool,
    groups: BTreeMap<GroupId, Group>,
    in_flight: BTreeMap<u64, InFlight>,
    /// When its offsets are to be looked through for old ones.
    expire: Deadline,
}

impl Default for Partition {
    fn default() -> Partition {
        Partition { is_loading: true, groups: BTreeMap::new(), in_flight: BTreeMap::new(), expire: Deadline::default() }
    }
}

/// The partition of `__consumer_offsets`, of `partition_count`, that a group belongs to: every broker and tool agrees.
///
/// Source: Kafka `GroupCoordinatorService.partitionFor`: `Utils.abs(groupId.hashCode()) % numPartitions`, where the
/// hash is Java's, over UTF-16, and `abs` of the smallest number is 0.
pub fn partition_for(group: &str, partition_count: i32) -> i32 {
    let hash = group.encode_utf16().fold(0i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    hash.checked_abs().unwrap_or(0) % partition_count
}

impl Groups {
    /// What the groups of one partition of the offsets topic have committed and what is durable: of the first one from `first` on that is
    /// coordinated here, and which it is.
    pub fn committed_from(&self, first: i32) -> Option<(i32, impl Iterator<Item = Committed>)> {
        let (&number, partition) = self.partitions.range(first..).next()?;
        let committed = partition.groups.iter().flat_map(|(id, group)| {
            let committed = group.offsets.iter();
            committed.map(move |(topic, index, committed)| Committed {
                group: id.to_string(),
                topic: topic.to_owned(),
                index,
                offset: committed.offset,
            })
        });
        Some((number, committed))
    }

    /// A coordinator without partitions: everything gets `NotCoordinator` until one is loaded.
    pub fn new(settings: GroupSettings) -> Groups {
        assert!(settings.offsets_partition_count >= 1);
        Groups { settings, timers: Timers::default(), partitions: BTreeMap::new(), next_sequence: 0 }
    }

    /// How many partitions `__consumer_offsets` has. The topic's own number counts once there is one: the setting is for
    /// making it, and may have been changed since.
    pub fn set_partition_count(&mut self, count: i32) {
        assert!(count >= 1);
        self.settings.offsets_partition_count = count;
    }

    /// Takes in what happened, and does whatever is due at `now`. The actions are to be performed in their order.
    pub fn step(&mut self, input: Input, now: Now) -> Vec<Action> {
        let mut actions = Vec::new();
        match input {
            Input::Request(id, Request::ListGroups(filter)) => actions.push(Action::Reply(id, self.list(&filter))),
            Input::Request(id, request) => match self.admit(&request) {
                Ok(partition) => self.on_request(partition, id, request, now, &mut actions),
                Err(error) => actions.push(Action::Reply(id, request.refused(error))),
            },
            Input::Tick => {}
            Input::Durable(token) => self.on_outcome(token, Ok(()), now, &mut actions),
            Input::AppendFailed(token, error) => self.on_outcome(token, Err(error), now, &mut actions),
            Input::LoadStarted(partition) => self.on_load_started(partition, now, &mut actions),
            Input::LoadFinished(partition) => self.on_load_finished(partition, now, &mut actions),
            Input::Unload(partition) => self.unload(partition, now, &mut actions),
            Input::TopicDeleted(topic) => self.on_topic_deleted(&topic, now, &mut actions),
        }
        self.fire_due(now, &mut actions);
        actions
    }

    /// When to call [`Groups::step`] next, if nothing else happens; `None`: there is nothing to wait for.
    pub fn next_deadline(&self) -> Option<Nanos> {
        self.timers.next()
    }

    /// Takes in one record of a partition between `LoadStarted` and `LoadFinished`, in the order of the log.
    ///
    /// # Errors
    /// A record that cannot be understood; it has no effect. Whether to go on without it is for the caller to say.
    pub fn replay(&mut self, partition: i32, key: &Bytes, value: Option<&Bytes>) -> Result<(), RecordError> {
        let loading = self.partitions.get_mut(&partition).expect("LoadStarted comes first");
        assert!(loading.is_loading);
        let (group, write) = match records::decode(key, value)? {
            Decoded::Offset { group, topic, partition, value } => (group, Write::Offset { topic, partition, value }),
            // The last such record is read when the load is finished; here it only had to be readable.
            Decoded::Group { group, .. } => (group, Write::Metadata(value.cloned())),
            Decoded::Other => return Ok(()),
        };
        let group_id: GroupId = group.into();
        let group = loading.groups.entry(group_id.clone()).or_insert_with(|| Group::new(group_id.clone(), partition));
        group.replay(write);
        if group.is_disposable() {
            loading.groups.remove(&group_id);
        }
        Ok(())
    }

    /// A slice of all that a partition's log must hold, beginning at `from`, or at the start where that is `None`. `None` for a
    /// partition that is not loaded.
    ///
    /// A key that has an append on its way is passed over: every append made since before the first slice must be behind
    /// the place where the log shall start.
    pub fn snapshot(&self, partition: i32, from: Option<&SnapshotCursor>, limit: SliceLimit) -> Option<SnapshotSlice> {
        let loaded = self.partitions.get(&partition).filter(|partition| !partition.is_loading)?;
        let mut slice = Filling::new(limit);
        let first = from.map_or(Bound::Unbounded, |from| Bound::Included(&from.group));
        for (id, group) in loaded.groups.range::<GroupId, _>((first, Bound::Unbounded)) {
            let within = from.filter(|from| from.group == *id).and_then(|from| from.offset.as_ref());
            if let Some(next) = slice.take(group, within) {
                return Some(slice.end(Some(next)));
            }
        }
        Some(slice.end(None))
    }

    /// The partition that serves the request.
    ///
    /// # Errors
    /// `InvalidGroupId`, `InvalidRequest` (text that no record can hold), `CoordinatorLoadInProgress`, `NotCoordinator`,
    /// `InvalidSessionTimeout`.
    fn admit(&self, request: &Request) -> Result<i32, ErrorCode> {
        let group = request.group().expect("the list of all groups has been answered");
        if group.len() > GROUP_STRING_BYTES_MAX || group.is_empty() && !request.allows_empty_group() {
            return Err(ErrorCode::InvalidGroupId);
        }
        let index = partition_for(group, self.settings.offsets_partition_count);
        match self.partitions.get(&index) {
            None => return Err(ErrorCode::NotCoordinator),
            Some(partition) if partition.is_loading => return Err(ErrorCode::CoordinatorLoadInProgress),
            Some(_) => {}
        }
        if let Request::JoinGroup(join) = request {
            let bounds = self.settings.session_timeout_ms_min..=self.settings.session_timeout_ms_max;
            if !bounds.contains(&join.session_timeout_ms) {
                return Err(ErrorCode::InvalidSessionTimeout);
            }
            if !texts_fit(join) {
                return Err(ErrorCode::InvalidRequest);
            }
        }
        Ok(index)
    }

    fn on_request(&mut self, index: i32, id: RequestId, request: Request, now: Now, actions: &mut Vec<Action>) {
        let group_id: GroupId = request.group().expect("the list of all groups has been answered").into();
        if creates_group(&request) {
            let groups = &mut self.partitions.get_mut(&index).expect("admitted").groups;
            groups.entry(group_id.clone()).or_insert_with(|| Group::new(group_id.clone(), index));
        }
        self.visit(index, &group_id, now, actions, |group, cx| match group {
            Some(group) => with_group(group, cx, id, request),
            None => cx.reply(id, without_group(request)),
        });
    }

    /// Lets `act` work on a group of a partition that is here, and lets go of the group if nothing is left of it.
    fn visit(
        &mut self,
        index: i32,
        group_id: &GroupId,
        now: Now,
        actions: &mut Vec<Action>,
        act: impl FnOnce(Option<&mut Group>, &mut Context),
    ) {
        let partition = self.partitions.get_mut(&index).expect("the caller has looked for the partition");
        let mut cx = Context {
            settings: &self.settings,
            timers: &mut self.timers,
            in_flight: &mut partition.in_flight,
            next_sequence: &mut self.next_sequence,
            actions,
            now,
        };
        let mut group = partition.groups.get_mut(group_id);
        act(group.as_deref_mut(), &mut cx);
        if group.is_some_and(|group| group.is_disposable()) {
            partition.groups.remove(group_id);
        }
    }

    /// Lets `act` work on every group of a partition, in the order of their names.
    fn visit_all(&mut self, index: i32, now: Now, actions: &mut Vec<Action>, act: impl Fn(&mut Group, &mut Context)) {
        let partition = self.partitions.get(&index).expect("the caller has looked for the partition");
        let groups: Vec<GroupId> = partition.groups.keys().cloned().collect();
        for group_id in groups {
            self.visit(index, &group_id, now, actions, |group, cx| act(group.expect("listed above"), cx));
        }
    }

    /// Outcomes of appends made before an unload are of no interest any more: they have been answered.
    fn on_outcome(&mut self, token: AppendToken, outcome: Result<(), ErrorCode>, now: Now, actions: &mut Vec<Action>) {
        let Some(partition) = self.partitions.get_mut(&token.partition) else { return };
        // Whatever became durable out of order would be overtaken by what was appended before it.
        let is_first = partition.in_flight.keys().next() == Some(&token.sequence);
        let Some(append) = partition.in_flight.remove(&token.sequence) else { return };
        assert!(is_first || outcome.is_err(), "appends to a partition become durable in their order");
        let group_id = append.group.clone();
        self.visit(token.partition, &group_id, now, actions, |group, cx| {
            let group = group.expect("an append in flight keeps its group");
            match outcome {
                Ok(()) => group.on_durable(cx, token.sequence, append),
                Err(error) => group.on_append_failed(cx, token.sequence, append, error),
            }
        });
    }

    fn on_load_started(&mut self, index: i32, now: Now, actions: &mut Vec<Action>) {
        assert!((0..self.settings.offsets_partition_count).contains(&index));
        self.unload(index, now, actions);
        self.partitions.insert(index, Partition::default());
    }

    /// Lets the groups of a partition go on where the log has them: members have their session timeout anew.
    fn on_load_finished(&mut self, index: i32, now: Now, actions: &mut Vec<Action>) {
        let partition = self.partitions.get_mut(&index).expect("LoadStarted comes first");
        assert!(std::mem::take(&mut partition.is_loading));
        // Spread over the interval, so that the partitions of a core are not looked through all at once.
        let count = self.settings.offsets_partition_count as u64;
        let interval_ms = u64::from(self.settings.offsets_retention_check_interval_ms);
        let first = now.mono.plus_ms(interval_ms * (index as u64 + 1) / count);
        let key = || TimerKey { partition: index, subject: Subject::Expire };
        self.timers.set(&mut partition.expire, first, key);
        self.visit_all(index, now, actions, |group, cx| {
            let Some(stored) = &group.stored else { return };
            let metadata = records::decode_group_value(stored).expect("was readable when it was replayed");
            group.restore(metadata);
            if group.members.len() > cx.settings.group_members_max {
                rebalance::prepare(group, cx);
            }
            let members: Vec<_> = group.members.keys().cloned().collect();
            for member_id in members {
                group.restart_session(cx, &member_id);
            }
        });
    }

    /// Forgets a partition. Whoever waits for something in it is sent to look for its new coordinator.
    fn unload(&mut self, index: i32, now: Now, actions: &mut Vec<Action>) {
        if !self.partitions.contains_key(&index) {
            return;
        }
        self.visit_all(index, now, actions, |group, cx| {
            let members: Vec<_> = group.members.keys().cloned().collect();
            for member_id in members {
                let refusal = JoinGroupReply::refused(&member_id, ErrorCode::NotCoordinator);
                group.answer_join(cx, &member_id, |_| refusal);
                group.answer_sync(cx, &member_id, SyncGroupReply::refused(ErrorCode::NotCoordinator));
            }
        });
        let partition = self.partitions.remove(&index).expect("looked for above");
        for append in partition.in_flight.into_values() {
            actions.extend(append.refuse(ErrorCode::NotCoordinator));
        }
    }

    fn on_topic_deleted(&mut self, topic: &str, now: Now, actions: &mut Vec<Action>) {
        let loaded = self.partitions.iter().filter(|(_, partition)| !partition.is_loading);
        let loaded: Vec<i32> = loaded.map(|(index, _)| *index).collect();
        for index in loaded {
            self.visit_all(index, now, actions, |group, cx| expiry::remove_topic(group, cx, topic));
        }
    }

    fn list(&self, filter: &ListGroups) -> Reply {
        let is_loading = self.partitions.values().any(|partition| partition.is_loading);
        let error = if is_loading { ErrorCode::CoordinatorLoadInProgress } else { ErrorCode::None };
        let loaded = self.partitions.values().filter(|partition| !partition.is_loading);
        let groups = loaded.flat_map(|partition| partition.groups.values());
        Reply::ListGroups { error, groups: groups.filter_map(|group| describe::listing(group, filter)).collect() }
    }

    /// Does everything whose time has come.
    fn fire_due(&mut self, now: Now, actions: &mut Vec<Action>) {
        while let Some((queued, key)) = self.timers.pop(now.mono) {
            let index = key.partition;
            let Some(partition) = self.partitions.get_mut(&index) else { continue };
            match &key.subject {
                Subject::Expire => {
                    if self.timers.is_due(&mut partition.expire, queued, now.mono, &key) {
                        self.expire(index, now, actions);
                    }
                }
                Subject::Session(group, _)
                | Subject::PendingMember(group, _)
                | Subject::Join(group)
                | Subject::Sync(group) => self.visit(index, group, now, actions, |group, cx| {
                    if let Some(group) = group {
                        fire(group, cx, queued, &key);
                    }
                }),
            }
        }
    }

    fn expire(&mut self, index: i32, now: Now, actions: &mut Vec<Action>) {
        self.visit_all(index, now, actions, expiry::remove_expired);
        let partition = self.partitions.get_mut(&index).expect("the timer was of this partition");
        let next = now.mono.plus_ms(u64::from(self.settings.offsets_retention_check_interval_ms.max(1)));
        self.timers.set(&mut partition.expire, next, || TimerKey { partition: index, subject: Subject::Expire });
    }
}

/// One deadline of a group may be over.
fn fire(group: &mut Group, cx: &mut Context, queued: Nanos, key: &TimerKey) {
    let now = cx.now.mono;
    match &key.subject {
        Subject::Session(_, member_id) => {
            let Some(member) = group.members.get_mut(member_id) else { return };
            if cx.timers.is_due(&mut member.session, queued, now, key) {
                rebalance::on_session_end(group, cx, member_id);
            }
        }
        Subject::PendingMember(_, member_id) => {
            let Some(deadline) = group.pending_members.get_mut(member_id) else { return };
            if cx.timers.is_due(deadline, queued, now, key) {
                group.remove_member(cx, member_id);
                rebalance::try_complete_join(group, cx);
            }
        }
        Subject::Join(_) => {
            if cx.timers.is_due(&mut group.join_deadline, queued, now, key) {
                rebalance::on_join_deadline(group, cx);
            }
        }
        Subject::Sync(_) => {
            if cx.timers.is_due(&mut group.sync_deadline, queued, now, key) {
                rebalance::on_sync_deadline(group, cx);
            }
        }
        Subject::Expire => unreachable!("is of the partition"),
    }
}

/// Newcomers make a group, and so do those who only keep their offsets in it.
fn creates_group(request: &Request) -> bool {
    match request {
        Request::JoinGroup(request) => request.member_id.is_empty(),
        Request::OffsetCommit(request) => request.generation < 0,
        _ => false,
    }
}

/// Whether all texts of a join fit into the group's record.
fn texts_fit(request: &JoinGroup) -> bool {
    let texts = [&request.client_id, &request.client_host, &request.protocol_type];
    let texts = texts.into_iter().chain(&request.group_instance_id);
    texts.chain(request.protocols.iter().map(|p| &p.name)).all(|text| text.len() <= GROUP_STRING_BYTES_MAX)
}

fn with_group(group: &mut Group, cx: &mut Context, id: RequestId, request: Request) {
    match request {
        Request::JoinGroup(request) => join::join(group, cx, id, *request),
        Request::SyncGroup(request) => sync::sync(group, cx, id, request),
        Request::Heartbeat(request) => {
            let error = sync::heartbeat(group, cx, &request);
            cx.reply(id, Reply::Heartbeat(error));
        }
        Request::LeaveGroup(request) => {
            let reply = leave::leave(Some((group, cx)), request);
            cx.reply(id, Reply::LeaveGroup(reply));
        }
        Request::OffsetCommit(request) => offsets::commit(group, cx, id, request),
        Request::OffsetFetch(request) => cx.reply(id, offsets::fetch(Some(group), &request)),
        Request::OffsetDelete(request) => expiry::delete_offsets(group, cx, id, request),
        Request::DescribeGroup(name) => cx.reply(id, Reply::DescribeGroup(describe::describe(name, Some(group)))),
        Request::DeleteGroup(_) => expiry::delete_group(group, cx, id),
        Request::ListGroups(_) => unreachable!("is about no group"),
    }
}

/// The answer where there is no such group.
fn without_group(request: Request) -> Reply {
    match request {
        Request::JoinGroup(_) | Request::SyncGroup(_) | Request::Heartbeat(_) => {
            request.refused(ErrorCode::UnknownMemberId)
        }
        Request::LeaveGroup(request) => Reply::LeaveGroup(leave::leave(None, request)),
        // A member of a generation that nobody knows of any more.
        Request::OffsetCommit(_) => request.refused(ErrorCode::IllegalGeneration),
        Request::OffsetFetch(request) => offsets::fetch(None, &request),
        Request::DescribeGroup(name) => Reply::DescribeGroup(describe::describe(name, None)),
        Request::OffsetDelete(_) | Request::DeleteGroup(_) => request.refused(ErrorCode::GroupIdNotFound),
        Request::ListGroups(_) => unreachable!("is about no group"),
    }
}

#[cfg(test)]
mod tests {
    use super::partition_for;

    #[test]
    fn groups_have_the_partition_that_java_gives_them() {
        // Java: "abc".hashCode() == 96354.
        assert_eq!(partition_for("abc", 50), 4);
        assert_eq!(partition_for("", 50), 0);
        // "my-group".hashCode() == -1 074 527 303 by the sum below: Kafka takes the magnitude, not the low 31 bits.
        let hash = "my-group".bytes().fold(0i32, |h, b| h.wrapping_mul(31).wrapping_add(i32::from(b)));
        assert_eq!(partition_for("my-group", 50), (i64::from(hash).abs() % 50) as i32);
        // "polygenelubricants" is known for the hash i32::MIN, whose magnitude no i32 holds.
        assert_eq!(partition_for("polygenelubricants", 50), 0);
        // Outside the BMP Java hashes both surrogates: 0xd83d * 31 + 0xde00 = 1 772 899.
        assert_eq!(partition_for("\u{1f600}", 50), 49);
    }
}
