//! DescribeGroups (key 15): v0–v5. ListGroups (key 16): v0–v5. DeleteGroups (key 42): v0–v2.
//! DescribeGroups v3 authorized operations (KIP-430) · v4 static members (KIP-345) · v5 flexible
//! ListGroups v3 flexible · v4 states (KIP-518) · v5 types (KIP-848)
//! DeleteGroups v2 flexible
//!
//! Groups of one request may be coordinated by several cores; the list of all asks every core.

use super::coordinator::ask_each;
use super::dispatch::Context;
use super::operations;
use super::reply::Reply;
use super::work::Start;
use crate::base::error::ErrorCode;
use crate::group::{self, GroupState};
use crate::ports::Disk;
use crate::protocol::messages::delete_groups::{DeletableGroupResult, DeleteGroupsRequest, DeleteGroupsResponse};
use crate::protocol::messages::describe_groups::{
    DescribeGroupsRequest, DescribeGroupsResponse, DescribedGroup, DescribedGroupMember,
};
use crate::protocol::messages::list_groups::{ListGroupsRequest, ListGroupsResponse, ListedGroup};
use std::borrow::Cow;
use std::collections::BTreeSet;

pub fn describe<D: Disk>(cx: &mut Context<'_, D>, request: &DescribeGroupsRequest<'_>, version: i16) -> Start<D> {
    let asked = request.groups.iter();
    let asked = asked.map(|name| (cx.coordinator_of(name), group::Request::DescribeGroup((*name).to_owned())));
    let correlation_id = cx.correlation_id;
    let operations = request.include_authorized_operations;
    ask_each(asked.collect(), move |answers| {
        let groups = answers.iter().map(|answer| match answer {
            group::Reply::DescribeGroup(description) => described(description, operations),
            other => unreachable!("a group is to be described, not {other:?}"),
        });
        let response = DescribeGroupsResponse { groups: groups.collect(), ..Default::default() };
        Reply::encode(correlation_id, version, &response)
    })
}

fn described(group: &group::GroupDescription, operations: bool) -> DescribedGroup<'_> {
    let members = group.members.iter().map(|member| DescribedGroupMember {
        member_id: &member.member_id,
        group_instance_id: member.group_instance_id.as_deref(),
        client_id: &member.client_id,
        client_host: Cow::Borrowed(&member.client_host),
        member_metadata: &member.metadata,
        member_assignment: &member.assignment,
    });
    let mut described = DescribedGroup {
        error_code: group.error.code(),
        group_id: &group.group,
        group_state: group.state.map_or("", GroupState::name),
        protocol_type: &group.protocol_type,
        protocol_data: &group.protocol,
        members: members.collect(),
        ..Default::default()
    };
    if operations && !group.error.is_error() {
        described.authorized_operations = operations::GROUP;
    }
    described
}

pub fn list<D: Disk>(cx: &mut Context<'_, D>, request: &ListGroupsRequest<'_>, version: i16) -> Start<D> {
    let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    let filter = group::ListGroups { states: owned(&request.states_filter), types: owned(&request.types_filter) };
    let asked = cx.shard.cores().map(|core| (core, group::Request::ListGroups(filter.clone())));
    let correlation_id = cx.correlation_id;
    ask_each(asked.collect(), move |answers| {
        let mut code = ErrorCode::None;
        let mut groups = Vec::new();
        for answer in &answers {
            let group::Reply::ListGroups { error, groups: of_core } = answer else {
                unreachable!("groups are to be listed, not {answer:?}")
            };
            // What could be listed is told beside the error.
            code = if code.is_error() { code } else { *error };
            groups.extend(of_core.iter().map(listed));
        }
        let response = ListGroupsResponse { error_code: code.code(), groups, ..Default::default() };
        Reply::encode(correlation_id, version, &response)
    })
}

fn listed(group: &group::GroupListing) -> ListedGroup<'_> {
    ListedGroup {
        group_id: &group.group,
        protocol_type: &group.protocol_type,
        group_state: group.state.name(),
        group_type: group.group_type,
    }
}

pub fn delete<D: Disk>(cx: &mut Context<'_, D>, request: &DeleteGroupsRequest<'_>, version: i16) -> Start<D> {
    // A group named twice is deleted once.
    let mut seen = BTreeSet::new();
    let names: Vec<String> =
        request.groups_names.iter().filter(|name| seen.insert(**name)).map(|name| (*name).to_owned()).collect();
    let asked = names.iter().map(|name| (cx.coordinator_of(name), group::Request::DeleteGroup(name.clone())));
    let correlation_id = cx.correlation_id;
    ask_each(asked.collect(), move |answers| {
        let results = names.iter().zip(&answers).map(|(name, answer)| match answer {
            group::Reply::DeleteGroup(error) => DeletableGroupResult { group_id: name, error_code: error.code() },
            other => unreachable!("a group is to be deleted, not {other:?}"),
        });
        let response = DeleteGroupsResponse { results: results.collect(), ..Default::default() };
        Reply::encode(correlation_id, version, &response)
    })
}
