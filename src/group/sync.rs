//! SyncGroup and Heartbeat: handing the leader's assignment to the members, and hearing that they live.
//!
//! Source: Kafka `GroupCoordinator.doSyncGroup`, `handleHeartbeat`; KIP-559.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::RequestId;
use super::classic::{Group, GroupState, MemberId};
use super::context::Context;
use super::persist::{Then, Write};
use super::rebalance;
use super::reply::{Reply, SyncGroupReply};
use super::request::{Heartbeat, SyncGroup};
use crate::base::error::ErrorCode;

/// Handles a SyncGroup: waits for the leader's assignment, or is the leader's, or comes when it is all done.
pub(super) fn sync(group: &mut Group, cx: &mut Context, id: RequestId, request: SyncGroup) {
    if let Err(error) = check(group, &request) {
        return cx.reply(id, Reply::SyncGroup(SyncGroupReply::refused(error)));
    }
    let member_id = request.member_id.as_str();
    match group.state {
        GroupState::CompletingRebalance => {
            group.park_sync(cx, member_id, id);
            note_sync(group, member_id);
            // A second one of the leader, sent because the reply was long in coming, changes nothing.
            if group.is_leader(member_id) && group.storing_assignment.is_none() {
                store_assignment(group, cx, request.assignments);
            }
        }
        GroupState::Stable => {
            note_sync(group, member_id);
            let reply = assignment_reply(group, member_id);
            cx.reply(id, Reply::SyncGroup(reply));
            group.restart_session(cx, member_id);
        }
        GroupState::PreparingRebalance | GroupState::Empty | GroupState::Dead => {
            cx.reply(id, Reply::SyncGroup(SyncGroupReply::refused(ErrorCode::RebalanceInProgress)));
        }
    }
}

fn check(group: &Group, request: &SyncGroup) -> Result<(), ErrorCode> {
    group.check_member(&request.member_id, request.group_instance_id.as_deref())?;
    let agrees = |stated: &Option<String>, current: &Option<String>| stated.is_none() || stated == current;
    if request.generation != group.generation {
        Err(ErrorCode::IllegalGeneration)
    } else if !agrees(&request.protocol_type, &group.protocol_type)
        || !agrees(&request.protocol_name, &group.protocol_name)
    {
        Err(ErrorCode::InconsistentGroupProtocol)
    } else {
        Ok(())
    }
}

/// The member has sent its SyncGroup; once all have, nobody is waited for.
fn note_sync(group: &mut Group, member_id: &str) {
    group.pending_sync.remove(member_id);
    if group.pending_sync.is_empty() {
        group.sync_deadline.clear();
    }
}

/// Writes the generation with what the leader assigned; a member it left out is assigned nothing.
fn store_assignment(group: &mut Group, cx: &mut Context, assignments: Vec<(String, Bytes)>) {
    let assigned: BTreeMap<MemberId, Bytes> =
        assignments.into_iter().map(|(member_id, assignment)| (member_id.into(), assignment)).collect();
    let value = group.metadata_value(|member| assigned.get(&member.id).cloned().unwrap_or_default());
    let then = Then::Assignment { assignments: assigned };
    let sequence = group.append(cx, vec![Write::Metadata(Some(value))], then);
    group.storing_assignment = Some(sequence);
}

/// The generation is durable, so it is stable. Unless another rebalance began in the meantime.
pub(super) fn on_assignment_stored(
    group: &mut Group,
    cx: &mut Context,
    sequence: u64,
    mut assignments: BTreeMap<MemberId, Bytes>,
) {
    if group.storing_assignment != Some(sequence) {
        return;
    }
    assert_eq!(group.state, GroupState::CompletingRebalance);
    group.storing_assignment = None;
    group.set_state(cx, GroupState::Stable);
    for member in group.members.values_mut() {
        member.assignment = assignments.remove(&member.id).unwrap_or_default();
    }
    let members: Vec<MemberId> = group.members.keys().cloned().collect();
    for member_id in members {
        let reply = assignment_reply(group, &member_id);
        // Its session did not run while it waited.
        if group.answer_sync(cx, &member_id, reply) {
            group.restart_session(cx, &member_id);
        }
    }
}

/// The generation could not be written: nobody gets an assignment, all join again.
pub(super) fn on_assignment_failed(group: &mut Group, cx: &mut Context, sequence: u64, error: ErrorCode) {
    if group.storing_assignment == Some(sequence) {
        rebalance::drop_assignment(group, cx, error);
        rebalance::prepare(group, cx);
    }
}

fn assignment_reply(group: &Group, member_id: &str) -> SyncGroupReply {
    SyncGroupReply {
        error: ErrorCode::None,
        protocol_type: group.protocol_type.clone(),
        protocol_name: group.protocol_name.clone(),
        assignment: group.members[member_id].assignment.clone(),
    }
}

/// Handles a Heartbeat: the member lives, and learns whether it has to join again.
pub(super) fn heartbeat(group: &mut Group, cx: &mut Context, request: &Heartbeat) -> ErrorCode {
    if let Err(error) = group.check_member(&request.member_id, request.group_instance_id.as_deref()) {
        return error;
    }
    if request.generation != group.generation {
        return ErrorCode::IllegalGeneration;
    }
    group.restart_session(cx, &request.member_id);
    match group.state {
        GroupState::PreparingRebalance => ErrorCode::RebalanceInProgress,
        _ => ErrorCode::None,
    }
}
