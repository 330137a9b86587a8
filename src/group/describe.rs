//! DescribeGroups and ListGroups: what administrators see. Changes nothing.
//!
//! Source: Kafka `GroupMetadata.summary`, `overview`; KIP-518, KIP-848.

use bytes::Bytes;

use super::classic::{Group, GroupState};
use super::reply::{GroupDescription, GroupListing, MemberDescription};
use super::request::ListGroups;
use crate::base::error::ErrorCode;

/// What ListGroups says of a group whose members assign among themselves.
const GROUP_TYPE: &str = "classic";

/// Describes a group; one that does not exist is "Dead", which is no error.
pub(super) fn describe(id: String, group: Option<&Group>) -> GroupDescription {
    let Some(group) = group else {
        return GroupDescription {
            error: ErrorCode::None,
            group: id,
            state: Some(GroupState::Dead),
            protocol_type: String::new(),
            protocol: String::new(),
            members: Vec::new(),
        };
    };
    // In other states the members' metadata and assignments are of different generations.
    let protocol = group.protocol_name.as_deref().filter(|_| group.state == GroupState::Stable);
    let member = |member: &super::classic::Member| MemberDescription {
        member_id: member.id.to_string(),
        group_instance_id: member.instance_id.clone(),
        client_id: member.client_id.clone(),
        client_host: member.client_host.clone(),
        metadata: protocol.map_or(Bytes::new(), |protocol| member.metadata(protocol)),
        assignment: protocol.map_or(Bytes::new(), |_| member.assignment.clone()),
    };
    GroupDescription {
        error: ErrorCode::None,
        group: id,
        state: Some(group.state),
        protocol_type: group.protocol_type.clone().unwrap_or_default(),
        protocol: protocol.unwrap_or_default().to_owned(),
        members: group.members.values().map(member).collect(),
    }
}

/// The group's line in the list, if the filters let it through.
pub(super) fn listing(group: &Group, filter: &ListGroups) -> Option<GroupListing> {
    let state = group.state.to_string();
    let passes = |wanted: &[String], is: &str| wanted.is_empty() || wanted.iter().any(|w| w.eq_ignore_ascii_case(is));
    let passes = passes(&filter.states, &state) && passes(&filter.types, GROUP_TYPE);
    passes.then(|| GroupListing {
        group: group.id.to_string(),
        protocol_type: group.protocol_type.clone().unwrap_or_default(),
        state: group.state,
        group_type: GROUP_TYPE,
    })
}
