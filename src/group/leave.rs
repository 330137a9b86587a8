//! LeaveGroup: members that go by their own wish, or static ones that an administrator takes out (KIP-345).
//!
//! Source: Kafka `GroupCoordinator.handleLeaveGroup`.

use super::classic::Group;
use super::context::Context;
use super::rebalance;
use super::reply::{LeaveGroupReply, LeftMember};
use super::request::{LeaveGroup, LeavingMember};
use crate::base::error::ErrorCode;

/// Takes the members out one by one. A group that does not exist knows none of them.
pub(super) fn leave(group: Option<(&mut Group, &mut Context)>, request: LeaveGroup) -> LeaveGroupReply {
    let mut members = Vec::with_capacity(request.members.len());
    match group {
        Some((group, cx)) => {
            for member in request.members {
                let error = leave_one(group, cx, &member).err().unwrap_or_default();
                members.push(left(member, error));
            }
        }
        None => members.extend(request.members.into_iter().map(|member| left(member, ErrorCode::UnknownMemberId))),
    }
    LeaveGroupReply { error: ErrorCode::None, members }
}

fn left(member: LeavingMember, error: ErrorCode) -> LeftMember {
    LeftMember { member_id: member.member_id, group_instance_id: member.group_instance_id, error }
}

fn leave_one(group: &mut Group, cx: &mut Context, member: &LeavingMember) -> Result<(), ErrorCode> {
    let instance_id = member.group_instance_id.as_deref();
    let member_id = if member.member_id.is_empty() {
        let current = instance_id.and_then(|instance_id| group.static_members.get(instance_id));
        current.ok_or(ErrorCode::UnknownMemberId)?.to_string()
    } else if group.pending_members.contains_key(member.member_id.as_str()) {
        group.remove_member(cx, &member.member_id);
        rebalance::try_complete_join(group, cx);
        return Ok(());
    } else {
        group.check_member(&member.member_id, instance_id)?;
        member.member_id.clone()
    };
    rebalance::remove_and_rebalance(group, cx, &member_id);
    Ok(())
}
