//! JoinGroup: who may come in, under which id, and whether that takes a rebalance. The rebalance itself is `rebalance`.
//!
//! Source: Kafka `GroupCoordinator.handleJoinGroup`; KIP-345 (static members), KIP-394 (member id first), KIP-814.

use super::RequestId;
use super::classic::{Group, GroupState, Member, MemberId, MemberTerms};
use super::context::Context;
use super::persist::{StaticReturn, Then, Write};
use super::rebalance;
use super::reply::{JoinGroupReply, Reply};
use super::request::{JoinGroup, Protocol};
use super::timers::{Deadline, Subject, TimerKey};
use crate::base::error::ErrorCode;

/// How long a newcomer's JoinGroup may wait. It cannot send heartbeats yet, and if its connection is gone nobody tells us.
/// Source: Kafka `GroupCoordinator.NewMemberJoinTimeoutMs`.
const NEW_MEMBER_JOIN_TIMEOUT_MS: u32 = 5 * 60 * 1000;

/// Handles a JoinGroup whose session timeout is within bounds; answers it now, or when the generation begins.
pub(super) fn join(group: &mut Group, cx: &mut Context, id: RequestId, request: JoinGroup) {
    let Request { joiner, terms, protocol_type } = Request::split(id, request);
    if !has_room(group, cx, &joiner) {
        group.remove_member(cx, &joiner.member_id);
        joiner.refuse(cx, "", ErrorCode::GroupMaxSizeReached);
    } else if !group.supports_protocols(&protocol_type, &terms.protocols) {
        let member_id = joiner.member_id.clone();
        joiner.refuse(cx, &member_id, ErrorCode::InconsistentGroupProtocol);
    } else if joiner.member_id.is_empty() {
        join_without_id(group, cx, joiner, terms, &protocol_type);
    } else if joiner.instance_id.is_none() && group.pending_members.contains_key(joiner.member_id.as_str()) {
        let member_id = joiner.member_id.as_str().into();
        add_and_rebalance(group, cx, joiner.request, Member::new(member_id, None, terms), &protocol_type);
    } else {
        join_again(group, cx, joiner, terms);
    }
    rebalance::try_complete_join(group, cx);
}

/// Who asks, apart from what it says of itself as a member.
struct Joiner {
    request: RequestId,
    member_id: String,
    instance_id: Option<String>,
    require_known_member_id: bool,
    can_skip_assignment: bool,
    member_uuid: u128,
}

struct Request {
    joiner: Joiner,
    terms: MemberTerms,
    protocol_type: String,
}

impl Request {
    fn split(id: RequestId, request: JoinGroup) -> Request {
        let session_timeout_ms = request.session_timeout_ms.max(0) as u32;
        let terms = MemberTerms {
            client_id: request.client_id,
            client_host: request.client_host,
            rebalance_timeout_ms: u32::try_from(request.rebalance_timeout_ms).unwrap_or(session_timeout_ms),
            session_timeout_ms,
            protocols: without_repeats(request.protocols),
        };
        let joiner = Joiner {
            request: id,
            member_id: request.member_id,
            instance_id: request.group_instance_id,
            require_known_member_id: request.require_known_member_id,
            can_skip_assignment: request.can_skip_assignment,
            member_uuid: request.member_uuid,
        };
        Request { joiner, terms, protocol_type: request.protocol_type }
    }
}

impl Joiner {
    fn refuse(&self, cx: &mut Context, member_id: &str, error: ErrorCode) {
        cx.reply(self.request, Reply::JoinGroup(JoinGroupReply::refused(member_id, error)));
    }

    /// The id of a member that has none yet: who it is, and a UUID (version 4) that no other has.
    fn new_member_id(&self, client_id: &str) -> MemberId {
        let bits =
            self.member_uuid & !(0xf000_u128 << 64) & !(0xc000_u128 << 48) | 0x4000_u128 << 64 | 0x8000_u128 << 48;
        let name = self.instance_id.as_deref().unwrap_or(client_id);
        let (a, b, c) = ((bits >> 96) as u32, (bits >> 80) as u16, (bits >> 64) as u16);
        let (d, e) = ((bits >> 48) as u16, bits as u64 & 0xffff_ffff_ffff);
        format!("{name}-{a:08x}-{b:04x}-{c:04x}-{d:04x}-{e:012x}").into()
    }
}

/// Keeps the first of protocols with the same name: a name counts once for each member.
fn without_repeats(protocols: Vec<Protocol>) -> Vec<Protocol> {
    let mut kept: Vec<Protocol> = Vec::with_capacity(protocols.len());
    let mut names = std::collections::BTreeSet::new();
    for protocol in protocols {
        if names.insert(protocol.name.clone()) {
            kept.push(protocol);
        }
    }
    kept
}

/// Whether `group.max.size` leaves room for who asks. During a rebalance those who come back first have the places, and
/// static members keep theirs.
///
/// Differs from Kafka's `acceptJoiningMember` in favour of static members: one that restarts has its place even in a
/// full group, and newcomers cannot take the place of one that is away, so that the bound really holds.
fn has_room(group: &Group, cx: &Context, joiner: &Joiner) -> bool {
    let known_instance = joiner.instance_id.as_ref().is_some_and(|id| group.static_members.contains_key(id));
    let member = group.members.get(joiner.member_id.as_str());
    match group.state {
        GroupState::Empty | GroupState::Dead => cx.settings.group_members_max > 0,
        GroupState::PreparingRebalance => {
            let has_place = known_instance || member.is_some_and(|m| m.awaiting_join().is_some() || m.is_static());
            let is_absent = |id: &MemberId| group.members[id].awaiting_join().is_none();
            let reserved = group.static_members.values().filter(|id| is_absent(id)).count();
            has_place || group.joined_count() + reserved < cx.settings.group_members_max
        }
        GroupState::CompletingRebalance | GroupState::Stable => {
            known_instance || member.is_some() || group.members.len() < cx.settings.group_members_max
        }
    }
}

fn join_without_id(group: &mut Group, cx: &mut Context, joiner: Joiner, terms: MemberTerms, protocol_type: &str) {
    let new_id = joiner.new_member_id(&terms.client_id);
    let known = joiner.instance_id.as_ref().and_then(|instance| group.static_members.get(instance)).cloned();
    match known {
        Some(old_id) => replace_static_member(group, cx, &joiner, terms, &old_id, &new_id),
        None if joiner.instance_id.is_none() && joiner.require_known_member_id => {
            hand_out_member_id(group, cx, &new_id, terms.session_timeout_ms);
            joiner.refuse(cx, &new_id, ErrorCode::MemberIdRequired);
        }
        None => {
            let member = Member::new(new_id, joiner.instance_id, terms);
            add_and_rebalance(group, cx, joiner.request, member, protocol_type);
        }
    }
}

/// Expects a newcomer to come again under its new id within its session timeout.
fn hand_out_member_id(group: &mut Group, cx: &mut Context, member_id: &MemberId, session_timeout_ms: u32) {
    let subject = Subject::PendingMember(group.id.clone(), member_id.clone());
    let key = TimerKey { partition: group.partition, subject };
    let mut deadline = Deadline::default();
    cx.set_deadline(&mut deadline, session_timeout_ms, || key);
    group.pending_members.insert(member_id.clone(), deadline);
}

fn add_and_rebalance(group: &mut Group, cx: &mut Context, id: RequestId, mut member: Member, protocol_type: &str) {
    let member_id = member.id.clone();
    member.is_new = true;
    if group.state == GroupState::PreparingRebalance && group.generation == 0 {
        group.new_member_added = true;
    }
    group.add_member(protocol_type, member);
    group.park_join(cx, &member_id, id);
    group.expect_within(cx, &member_id, NEW_MEMBER_JOIN_TIMEOUT_MS);
    rebalance::prepare_if_settled(group, cx);
}

/// A member that is known joins again: because it was called to, because something changed for it, or because it did not
/// get our reply.
fn join_again(group: &mut Group, cx: &mut Context, joiner: Joiner, terms: MemberTerms) {
    let member_id = joiner.member_id.clone();
    if let Err(error) = group.check_member(&member_id, joiner.instance_id.as_deref()) {
        return joiner.refuse(cx, &member_id, error);
    }
    let unchanged = group.members[member_id.as_str()].protocols == terms.protocols;
    let answer_at_once = match group.state {
        GroupState::PreparingRebalance => false,
        // It may not have received the reply: the same again.
        GroupState::CompletingRebalance => unchanged,
        // The leader joins again because it saw something that asks for another assignment, such as new partitions.
        GroupState::Stable => unchanged && !group.is_leader(&member_id),
        GroupState::Empty | GroupState::Dead => unreachable!("a group with members is neither empty nor dead"),
    };
    if answer_at_once {
        let reply = group.join_reply(&member_id);
        return cx.reply(joiner.request, Reply::JoinGroup(reply));
    }
    group.update_member(&member_id, terms);
    group.park_join(cx, &member_id, joiner.request);
    rebalance::prepare_if_settled(group, cx);
}

/// A static member comes back without its member id, after a restart. In a stable group that changes nothing for the
/// others, unless it changes the protocol.
fn replace_static_member(
    group: &mut Group,
    cx: &mut Context,
    joiner: &Joiner,
    terms: MemberTerms,
    old_id: &MemberId,
    new_id: &MemberId,
) {
    let old_leader = group.leader.clone();
    group.replace_static_member(cx, old_id, new_id);
    let mut before = group.members[new_id].clone();
    before.id = old_id.clone();
    group.update_member(new_id, terms);
    group.park_join(cx, new_id, joiner.request);
    group.restart_session(cx, new_id);
    match group.state {
        GroupState::PreparingRebalance => {}
        GroupState::Stable if group.protocol_name.as_deref() == Some(group.select_protocol().as_str()) => {
            let reply = static_reply(group, joiner, new_id, old_leader);
            let back = StaticReturn { request: joiner.request, member_id: new_id.clone(), reply, before };
            let value = group.metadata_value(|member| member.assignment.clone());
            group.append(cx, vec![Write::Metadata(Some(value))], Then::StaticMember(Box::new(back)));
        }
        // While an assignment is awaited the leader may have been told the old id already.
        GroupState::Stable | GroupState::CompletingRebalance => rebalance::prepare(group, cx),
        GroupState::Empty | GroupState::Dead => unreachable!("a group with members is neither empty nor dead"),
    }
}

fn static_reply(group: &Group, joiner: &Joiner, new_id: &MemberId, old_leader: Option<MemberId>) -> JoinGroupReply {
    let mut reply = group.join_reply(new_id);
    if joiner.can_skip_assignment {
        reply.skip_assignment = group.is_leader(new_id);
    } else {
        // A leader that cannot be told to skip the assignment is not told that it leads: the group is stable, and
        // what it would assign would be ignored.
        reply.leader = old_leader.as_deref().unwrap_or_default().to_owned();
        reply.members.clear();
    }
    reply
}

/// The record with the new member id is durable: the member may be told. Unless a rebalance began, which will tell it.
pub(super) fn on_static_member_stored(group: &mut Group, cx: &mut Context, back: StaticReturn) {
    if still_waits(group, &back) {
        group.answer_join(cx, &back.member_id, |_| back.reply);
        group.restart_session(cx, &back.member_id);
    }
}

/// The record was not written: the member is what it was before and may try again.
pub(super) fn on_static_member_failed(group: &mut Group, cx: &mut Context, back: StaticReturn, error: ErrorCode) {
    if !still_waits(group, &back) {
        return;
    }
    let refusal = JoinGroupReply::refused("", error);
    group.answer_join(cx, &back.member_id, |_| refusal);
    let old_id = back.before.id.clone();
    group.replace_static_member(cx, &back.member_id, &old_id);
    let Member { client_id, client_host, rebalance_timeout_ms, session_timeout_ms, protocols, .. } = back.before;
    let terms = MemberTerms { client_id, client_host, rebalance_timeout_ms, session_timeout_ms, protocols };
    group.update_member(&old_id, terms);
    group.restart_session(cx, &old_id);
}

fn still_waits(group: &Group, back: &StaticReturn) -> bool {
    let member = group.members.get(&back.member_id);
    group.state == GroupState::Stable && member.is_some_and(|member| member.awaiting_join() == Some(back.request))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn member_ids_are_the_client_and_a_version_4_uuid() {
        let joiner = |instance_id: Option<&str>, member_uuid| Joiner {
            request: RequestId(0),
            member_id: String::new(),
            instance_id: instance_id.map(str::to_owned),
            require_known_member_id: false,
            can_skip_assignment: false,
            member_uuid,
        };
        assert_eq!(&*joiner(None, 0).new_member_id("client"), "client-00000000-0000-4000-8000-000000000000");
        assert_eq!(&*joiner(Some("pod"), u128::MAX).new_member_id("c"), "pod-ffffffff-ffff-4fff-bfff-ffffffffffff");
    }
}
