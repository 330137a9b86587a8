//! JoinGroup (key 11): v0–v9. SyncGroup (key 14): v0–v5. Heartbeat (key 12): v0–v4. LeaveGroup (key 13): v0–v5.
//! JoinGroup v1 rebalance timeout · v4 member id first (KIP-394) · v5 static members (KIP-345) · v6 flexible · v7 protocol type ·
//! v8 reason (KIP-800) · v9 skip assignment (KIP-814)
//! SyncGroup v3 static members · v4 flexible · v5 protocol type and name (KIP-559)
//! Heartbeat v3 static members · v4 flexible
//! LeaveGroup v3 several members (KIP-345) · v4 flexible · v5 reason (KIP-800)
//!
//! Who may join and when a generation begins is for `group` to say.

use super::coordinator::ask;
use super::dispatch::Context;
use super::reply::Reply;
use super::work::Start;
use crate::base::error::ErrorCode;
use crate::group::{self, LeavingMember, Protocol};
use crate::ports::Disk;
use crate::protocol::messages::heartbeat::{HeartbeatRequest, HeartbeatResponse};
use crate::protocol::messages::join_group::{JoinGroupRequest, JoinGroupResponse, JoinGroupResponseMember};
use crate::protocol::messages::leave_group::{LeaveGroupRequest, LeaveGroupResponse, MemberResponse};
use crate::protocol::messages::sync_group::{SyncGroupRequest, SyncGroupResponse};
use bytes::Bytes;
use std::net::{IpAddr, SocketAddr};

fn owned(text: Option<&str>) -> Option<String> {
    text.map(str::to_owned)
}

pub fn join<D: Disk>(cx: &mut Context<'_, D>, request: &JoinGroupRequest<'_>, version: i16) -> Start<D> {
    let protocols = request.protocols.iter().map(|protocol| Protocol {
        name: protocol.name.to_owned(),
        // Copied: a member outlives the frame that it came in.
        metadata: Bytes::copy_from_slice(protocol.metadata),
    });
    let join = group::JoinGroup {
        group: request.group_id.to_owned(),
        member_id: request.member_id.to_owned(),
        group_instance_id: owned(request.group_instance_id),
        client_id: cx.client.id.unwrap_or_default().to_owned(),
        client_host: cx.client.address.map(host_text).unwrap_or_default(),
        require_known_member_id: version >= 4,
        can_skip_assignment: version >= 9,
        member_uuid: cx.shard.random(),
        session_timeout_ms: request.session_timeout_ms,
        rebalance_timeout_ms: request.rebalance_timeout_ms,
        protocol_type: request.protocol_type.to_owned(),
        protocols: protocols.collect(),
        reason: owned(request.reason),
    };
    let correlation_id = cx.correlation_id;
    ask(cx, group::Request::JoinGroup(Box::new(join)), move |reply| {
        let group::Reply::JoinGroup(joined) = reply else { unreachable!("a join is answered as one") };
        Reply::encode(correlation_id, version, &join_response(&joined))
    })
}

fn join_response(joined: &group::JoinGroupReply) -> JoinGroupResponse<'_> {
    let members = joined.members.iter().map(|member| JoinGroupResponseMember {
        member_id: &member.member_id,
        group_instance_id: member.group_instance_id.as_deref(),
        metadata: &member.metadata,
    });
    JoinGroupResponse {
        error_code: joined.error.code(),
        generation_id: joined.generation,
        protocol_type: joined.protocol_type.as_deref(),
        protocol_name: joined.protocol_name.as_deref(),
        leader: &joined.leader,
        skip_assignment: joined.skip_assignment,
        member_id: &joined.member_id,
        members: members.collect(),
        ..Default::default()
    }
}

pub fn sync<D: Disk>(cx: &mut Context<'_, D>, request: &SyncGroupRequest<'_>, version: i16) -> Start<D> {
    if version >= 5 && (request.protocol_type.is_none() || request.protocol_name.is_none()) {
        let error_code = ErrorCode::InconsistentGroupProtocol.code();
        let response = SyncGroupResponse { error_code, ..Default::default() };
        return Start::Reply(Reply::encode(cx.correlation_id, version, &response));
    }
    let assigned = request.assignments.iter();
    let sync = group::SyncGroup {
        group: request.group_id.to_owned(),
        generation: request.generation_id,
        member_id: request.member_id.to_owned(),
        group_instance_id: owned(request.group_instance_id),
        protocol_type: owned(request.protocol_type),
        protocol_name: owned(request.protocol_name),
        assignments: assigned.map(|of| (of.member_id.to_owned(), Bytes::copy_from_slice(of.assignment))).collect(),
    };
    let correlation_id = cx.correlation_id;
    ask(cx, group::Request::SyncGroup(sync), move |reply| {
        let group::Reply::SyncGroup(synced) = reply else { unreachable!("a sync is answered as one") };
        let response = SyncGroupResponse {
            error_code: synced.error.code(),
            protocol_type: synced.protocol_type.as_deref(),
            protocol_name: synced.protocol_name.as_deref(),
            assignment: &synced.assignment,
            ..Default::default()
        };
        Reply::encode(correlation_id, version, &response)
    })
}

pub fn heartbeat<D: Disk>(cx: &mut Context<'_, D>, request: &HeartbeatRequest<'_>, version: i16) -> Start<D> {
    let heartbeat = group::Heartbeat {
        group: request.group_id.to_owned(),
        generation: request.generation_id,
        member_id: request.member_id.to_owned(),
        group_instance_id: owned(request.group_instance_id),
    };
    let correlation_id = cx.correlation_id;
    ask(cx, group::Request::Heartbeat(heartbeat), move |reply| {
        let group::Reply::Heartbeat(error) = reply else { unreachable!("a heartbeat is answered as one") };
        let response = HeartbeatResponse { error_code: error.code(), ..Default::default() };
        Reply::encode(correlation_id, version, &response)
    })
}

pub fn leave<D: Disk>(cx: &mut Context<'_, D>, request: &LeaveGroupRequest<'_>, version: i16) -> Start<D> {
    let members = if version < 3 {
        vec![LeavingMember { member_id: request.member_id.to_owned(), group_instance_id: None, reason: None }]
    } else {
        let leaving = request.members.iter().map(|member| LeavingMember {
            member_id: member.member_id.to_owned(),
            group_instance_id: owned(member.group_instance_id),
            reason: owned(member.reason),
        });
        leaving.collect()
    };
    let leave = group::LeaveGroup { group: request.group_id.to_owned(), members };
    let correlation_id = cx.correlation_id;
    ask(cx, group::Request::LeaveGroup(leave), move |reply| {
        let group::Reply::LeaveGroup(left) = reply else { unreachable!("a leave is answered as one") };
        Reply::encode(correlation_id, version, &leave_response(&left, version))
    })
}

fn leave_response(left: &group::LeaveGroupReply, version: i16) -> LeaveGroupResponse<'_> {
    // Before v3 there was one member, whose result is the whole reply.
    let only = left.members.first().filter(|_| version < 3 && !left.error.is_error());
    let members = left.members.iter().map(|member| MemberResponse {
        member_id: &member.member_id,
        group_instance_id: member.group_instance_id.as_deref(),
        error_code: member.error.code(),
    });
    LeaveGroupResponse {
        error_code: only.map_or(left.error, |member| member.error).code(),
        members: members.collect(),
        ..Default::default()
    }
}

/// Where a client connects from, as Kafka prints it: a slash and the address. IPv6 has all eight groups then, as in Java.
fn host_text(address: SocketAddr) -> String {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => format!("/{ip}"),
        IpAddr::V6(ip) => format!("/{}", ip.segments().map(|group| format!("{group:x}")).join(":")),
    }
}

#[cfg(test)]
mod tests {
    use super::host_text;

    #[test]
    fn hosts_are_as_kafka_prints_them() {
        let text = |address: &str| host_text(address.parse().expect("an address"));
        assert_eq!(text("127.0.0.1:50000"), "/127.0.0.1");
        assert_eq!(text("[::1]:50000"), "/0:0:0:0:0:0:0:1");
        assert_eq!(text("[::ffff:10.0.0.7]:1"), "/10.0.0.7", "an IPv4 client of a dual-stack socket");
    }
}
