//! The rebalance: calling the members together, waiting for them, and beginning the next generation.
//!
//! Source: Kafka `GroupCoordinator.prepareRebalance`, `onCompleteJoin`, `InitialDelayedJoin`, `DelayedSync`.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::classic::{Group, GroupState, MemberId};
use super::context::Context;
use super::persist::{Then, Write};
use super::reply::SyncGroupReply;
use crate::base::error::ErrorCode;

/// How long a group waits again at least when nobody joined in time. Static members may name a rebalance timeout of 0.
const REJOIN_WAIT_MS_MIN: u32 = 1_000;

/// Begins a rebalance unless one is preparing already.
pub(super) fn prepare_if_settled(group: &mut Group, cx: &mut Context) {
    if group.state != GroupState::PreparingRebalance {
        prepare(group, cx);
    }
}

/// Calls the members together. Those that wait for an assignment are sent to join again.
pub(super) fn prepare(group: &mut Group, cx: &mut Context) {
    assert_ne!(group.state, GroupState::PreparingRebalance);
    if group.state == GroupState::CompletingRebalance {
        drop_assignment(group, cx, ErrorCode::RebalanceInProgress);
    }
    group.pending_sync.clear();
    group.sync_deadline.clear();
    let was_empty = group.state == GroupState::Empty;
    group.set_state(cx, GroupState::PreparingRebalance);
    group.new_member_added = false;
    let rebalance_timeout_ms = group.rebalance_timeout_ms();
    if was_empty {
        // Members of a group that starts come one after the other: one rebalance for all instead of one for each.
        let delay_ms = cx.settings.initial_rebalance_delay_ms;
        group.initial_delay_left_ms = Some(rebalance_timeout_ms.saturating_sub(delay_ms));
        group.expect_joins_within(cx, delay_ms);
    } else {
        group.initial_delay_left_ms = None;
        group.expect_joins_within(cx, rebalance_timeout_ms);
        try_complete_join(group, cx);
    }
}

/// Takes every assignment back and tells `error` to those who wait for theirs.
pub(super) fn drop_assignment(group: &mut Group, cx: &mut Context, error: ErrorCode) {
    group.storing_assignment = None;
    let members: Vec<MemberId> = group.members.keys().cloned().collect();
    for member_id in members {
        group.members.get_mut(&member_id).expect("listed above").assignment = Bytes::new();
        if group.answer_sync(cx, &member_id, SyncGroupReply::refused(error)) {
            group.restart_session(cx, &member_id);
        }
    }
}

/// Begins the generation if all members have joined and nobody is known to be on the way.
pub(super) fn try_complete_join(group: &mut Group, cx: &mut Context) {
    if group.state == GroupState::PreparingRebalance
        && group.initial_delay_left_ms.is_none()
        && group.joined_count() == group.members.len()
        && group.pending_members.is_empty()
    {
        complete_join(group, cx);
    }
}

/// The time to join is over, or the initial delay is.
pub(super) fn on_join_deadline(group: &mut Group, cx: &mut Context) {
    if group.state != GroupState::PreparingRebalance {
        return;
    }
    let left_ms = group.initial_delay_left_ms.unwrap_or(0);
    if group.new_member_added && left_ms > 0 {
        group.new_member_added = false;
        let delay_ms = cx.settings.initial_rebalance_delay_ms.min(left_ms);
        group.initial_delay_left_ms = Some(left_ms - delay_ms);
        return group.expect_joins_within(cx, delay_ms);
    }
    complete_join(group, cx);
}

/// Begins the next generation with those who joined. Static members may be away for as long as their session lasts.
fn complete_join(group: &mut Group, cx: &mut Context) {
    let absent = group.members.values().filter(|member| member.awaiting_join().is_none() && !member.is_static());
    let absent: Vec<MemberId> = absent.map(|member| member.id.clone()).collect();
    for member_id in absent {
        group.remove_member(cx, &member_id);
    }
    if !group.elect_joined_leader() && !group.members.is_empty() {
        // Only static members, all away: their sessions will end, or they come back.
        let wait_ms = group.rebalance_timeout_ms().max(REJOIN_WAIT_MS_MIN);
        return group.expect_joins_within(cx, wait_ms);
    }
    group.join_deadline.clear();
    group.initial_delay_left_ms = None;
    group.generation = group.generation.checked_add(1).expect("two thousand million rebalances");
    group.pending_sync.clear();
    if group.members.is_empty() { become_empty(group, cx) } else { begin_generation(group, cx) }
}

fn become_empty(group: &mut Group, cx: &mut Context) {
    group.protocol_name = None;
    group.subscribed_topics = group.protocol_type.as_ref().and_then(|_| group.compute_subscribed_topics());
    group.set_state(cx, GroupState::Empty);
    let value = group.metadata_value(|member| member.assignment.clone());
    // If this write fails the log still has the last generation. After a restart its members will just time out.
    group.append(cx, vec![Write::Metadata(Some(value))], Then::Nothing);
}

fn begin_generation(group: &mut Group, cx: &mut Context) {
    group.protocol_name = Some(group.select_protocol());
    group.subscribed_topics = group.compute_subscribed_topics();
    group.set_state(cx, GroupState::CompletingRebalance);
    let members: BTreeSet<MemberId> = group.members.keys().cloned().collect();
    for member_id in &members {
        group.answer_join(cx, member_id, |group| group.join_reply(member_id));
        group.members.get_mut(member_id).expect("listed above").is_new = false;
        group.restart_session(cx, member_id);
    }
    group.pending_sync = members;
    let timeout_ms = group.rebalance_timeout_ms();
    group.expect_syncs_within(cx, timeout_ms);
}

/// Members that joined and then sent no SyncGroup within the rebalance timeout are out.
pub(super) fn on_sync_deadline(group: &mut Group, cx: &mut Context) {
    let settled = matches!(group.state, GroupState::CompletingRebalance | GroupState::Stable);
    if !settled || group.pending_sync.is_empty() {
        return;
    }
    for member_id in std::mem::take(&mut group.pending_sync) {
        group.remove_member(cx, &member_id);
    }
    prepare(group, cx);
}

/// A session is over: the member is out, unless a request of its waits here.
pub(super) fn on_session_end(group: &mut Group, cx: &mut Context, member_id: &MemberId) {
    if !group.members[member_id].may_be_silent() {
        remove_and_rebalance(group, cx, member_id);
    }
}

/// Takes a member out and lets the others share its work.
pub(super) fn remove_and_rebalance(group: &mut Group, cx: &mut Context, member_id: &str) {
    group.remove_member(cx, member_id);
    match group.state {
        GroupState::Stable | GroupState::CompletingRebalance => prepare(group, cx),
        GroupState::PreparingRebalance => try_complete_join(group, cx),
        GroupState::Empty | GroupState::Dead => {}
    }
}
