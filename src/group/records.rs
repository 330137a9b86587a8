//! Records of `__consumer_offsets` in Kafka's own schemas: encoding and decoding. Decides nothing.
//!
//! Keys: version 0 and 1 (OffsetCommitKey: group, topic, partition), version 2 (GroupMetadataKey: group). Higher versions
//! belong to other kinds of groups and are passed over. A record without value is a tombstone.
//! Source: Kafka `OffsetCommitKey/Value.json`, `GroupMetadataKey/Value.json`.

use bytes::Bytes;

use super::fields::{Reader, Writer};
use crate::base::time::TimestampMs;

/// One record for a `__consumer_offsets` partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    pub key: Bytes,
    /// `None` is a tombstone: the key's earlier records no longer count.
    pub value: Option<Bytes>,
}

impl Record {
    /// Of key and value.
    pub fn bytes(&self) -> usize {
        self.key.len() + self.value.as_ref().map_or(0, Bytes::len)
    }
}

/// An offset as it was committed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CommittedOffset {
    pub offset: i64,
    /// Of the last record consumed; -1 where the client did not say.
    pub leader_epoch: i32,
    /// Opaque to the broker.
    pub metadata: String,
    pub commit_timestamp_ms: TimestampMs,
    /// Set only by old clients that name a retention of their own (OffsetCommit v2-v4).
    pub expire_timestamp_ms: Option<TimestampMs>,
}

/// What is kept of a group: its last stable generation, or that it is empty.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct GroupMetadata {
    pub protocol_type: String,
    pub generation: i32,
    pub protocol: Option<String>,
    pub leader: Option<String>,
    /// When the group came into its state; -1 in old records.
    pub state_timestamp_ms: TimestampMs,
    pub members: Vec<MemberMetadata>,
}

/// A member within [`GroupMetadata`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct MemberMetadata {
    pub member_id: String,
    pub group_instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub rebalance_timeout_ms: i32,
    pub session_timeout_ms: i32,
    /// Its metadata for the protocol that the group chose.
    pub subscription: Bytes,
    pub assignment: Bytes,
}

/// A record that is not what its version says. The log is damaged, or written by something newer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RecordError {
    /// The key ends early or holds text that is not UTF-8.
    Key,
    /// The value ends early, holds text that is not UTF-8, or has a version that is not known.
    Value,
}

/// A record read back. `value` is `None` for a tombstone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Decoded {
    Offset {
        group: String,
        topic: String,
        partition: i32,
        value: Option<CommittedOffset>,
    },
    Group {
        group: String,
        value: Option<GroupMetadata>,
    },
    /// Of a kind that classic groups do not have.
    Other,
}

const OFFSET_KEY_VERSION: i16 = 1;
const GROUP_KEY_VERSION: i16 = 2;
const GROUP_VALUE_VERSION: i16 = 3;
/// The only version with an expiry time.
const OFFSET_VALUE_VERSION_EXPIRING: i16 = 1;
const OFFSET_VALUE_VERSION: i16 = 3;
/// From this version on values are flexible (KIP-915).
const FLEXIBLE_VALUE_VERSION: i16 = 4;

pub(super) fn offset_key(group: &str, topic: &str, partition: i32) -> Bytes {
    let mut out = Writer::versioned(OFFSET_KEY_VERSION);
    out.string(group);
    out.string(topic);
    out.i32(partition);
    out.finish()
}

pub(super) fn group_key(group: &str) -> Bytes {
    let mut out = Writer::versioned(GROUP_KEY_VERSION);
    out.string(group);
    out.finish()
}

pub(super) fn offset_value(committed: &CommittedOffset) -> Bytes {
    match committed.expire_timestamp_ms {
        // Version 1 has no leader epoch: an old client that names a retention does not know of epochs either.
        Some(expire_timestamp_ms) => {
            let mut out = Writer::versioned(OFFSET_VALUE_VERSION_EXPIRING);
            out.i64(committed.offset);
            out.string(&committed.metadata);
            out.i64(committed.commit_timestamp_ms);
            out.i64(expire_timestamp_ms);
            out.finish()
        }
        None => {
            let mut out = Writer::versioned(OFFSET_VALUE_VERSION);
            out.i64(committed.offset);
            out.i32(committed.leader_epoch);
            out.string(&committed.metadata);
            out.i64(committed.commit_timestamp_ms);
            out.finish()
        }
    }
}

pub(super) fn group_value(group: &GroupMetadata) -> Bytes {
    let mut out = Writer::versioned(GROUP_VALUE_VERSION);
    out.string(&group.protocol_type);
    out.i32(group.generation);
    out.nullable_string(group.protocol.as_deref());
    out.nullable_string(group.leader.as_deref());
    out.i64(group.state_timestamp_ms);
    out.array_count(group.members.len());
    for member in &group.members {
        out.string(&member.member_id);
        out.nullable_string(member.group_instance_id.as_deref());
        out.string(&member.client_id);
        out.string(&member.client_host);
        out.i32(member.rebalance_timeout_ms);
        out.i32(member.session_timeout_ms);
        out.bytes(&member.subscription);
        out.bytes(&member.assignment);
    }
    out.finish()
}

/// Reads one record back.
///
/// # Errors
/// [`RecordError`]: bytes that no version of these records has.
pub(super) fn decode(key: &Bytes, value: Option<&Bytes>) -> Result<Decoded, RecordError> {
    let mut reader = Reader::new(key);
    match reader.i16().ok_or(RecordError::Key)? {
        0..=OFFSET_KEY_VERSION => {
            let (group, topic, partition) = decode_offset_key(&mut reader).ok_or(RecordError::Key)?;
            let value = value.map(|value| decode_offset_value(value).ok_or(RecordError::Value)).transpose()?;
            Ok(Decoded::Offset { group, topic, partition, value })
        }
        GROUP_KEY_VERSION => {
            let group = reader.string().ok_or(RecordError::Key)?;
            let value = value.map(|value| decode_group_value(value).ok_or(RecordError::Value)).transpose()?;
            Ok(Decoded::Group { group, value })
        }
        version if version > GROUP_KEY_VERSION => Ok(Decoded::Other),
        _ => Err(RecordError::Key),
    }
}

fn decode_offset_key(reader: &mut Reader) -> Option<(String, String, i32)> {
    Some((reader.string()?, reader.string()?, reader.i32()?))
}

/// The version of a value and a reader of what follows it.
fn decode_value_version(value: &Bytes) -> Option<(i16, Reader)> {
    let mut reader = Reader::new(value);
    let version = reader.i16().filter(|version| (0..=FLEXIBLE_VALUE_VERSION).contains(version))?;
    reader.flexible = version >= FLEXIBLE_VALUE_VERSION;
    Some((version, reader))
}

fn decode_offset_value(value: &Bytes) -> Option<CommittedOffset> {
    let (version, mut reader) = decode_value_version(value)?;
    let offset = reader.i64()?;
    let leader_epoch = if version >= 3 { reader.i32()? } else { -1 };
    let metadata = reader.string()?;
    let commit_timestamp_ms = reader.i64()?;
    let expire_timestamp_ms = if version == 1 { Some(reader.i64()?).filter(|&at| at != -1) } else { None };
    reader.skip_tagged_fields()?;
    Some(CommittedOffset { offset, leader_epoch, metadata, commit_timestamp_ms, expire_timestamp_ms })
}

pub(super) fn decode_group_value(value: &Bytes) -> Option<GroupMetadata> {
    let (version, mut reader) = decode_value_version(value)?;
    let protocol_type = reader.string()?;
    let generation = reader.i32()?;
    let protocol = reader.nullable_string()?;
    let leader = reader.nullable_string()?;
    let state_timestamp_ms = if version >= 2 { reader.i64()? } else { -1 };
    let mut members = Vec::new();
    for _ in 0..reader.array_count()? {
        members.push(decode_member(version, &mut reader)?);
    }
    reader.skip_tagged_fields()?;
    Some(GroupMetadata { protocol_type, generation, protocol, leader, state_timestamp_ms, members })
}

fn decode_member(version: i16, reader: &mut Reader) -> Option<MemberMetadata> {
    let member_id = reader.string()?;
    let group_instance_id = if version >= 3 { reader.nullable_string()? } else { None };
    let client_id = reader.string()?;
    let client_host = reader.string()?;
    let rebalance_timeout_ms = if version >= 1 { Some(reader.i32()?) } else { None };
    let session_timeout_ms = reader.i32()?;
    let subscription = reader.bytes()?;
    let assignment = reader.bytes()?;
    reader.skip_tagged_fields()?;
    Some(MemberMetadata {
        member_id,
        group_instance_id,
        client_id,
        client_host,
        rebalance_timeout_ms: rebalance_timeout_ms.unwrap_or(session_timeout_ms),
        session_timeout_ms,
        subscription,
        assignment,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group() -> GroupMetadata {
        GroupMetadata {
            protocol_type: "consumer".into(),
            generation: 7,
            protocol: Some("range".into()),
            leader: Some("a-1".into()),
            state_timestamp_ms: 1_000,
            members: vec![MemberMetadata {
                member_id: "a-1".into(),
                group_instance_id: Some("a".into()),
                client_id: "client".into(),
                client_host: "/10.0.0.1".into(),
                rebalance_timeout_ms: 300_000,
                session_timeout_ms: 45_000,
                subscription: Bytes::from_static(b"sub"),
                assignment: Bytes::from_static(b"assigned"),
            }],
        }
    }

    fn committed(expire_timestamp_ms: Option<TimestampMs>) -> CommittedOffset {
        CommittedOffset {
            offset: 42,
            leader_epoch: if expire_timestamp_ms.is_some() { -1 } else { 5 },
            metadata: "note".into(),
            commit_timestamp_ms: 1_000,
            expire_timestamp_ms,
        }
    }

    #[test]
    fn group_metadata_reads_back() {
        let (key, value) = (group_key("g"), group_value(&group()));
        assert_eq!(decode(&key, Some(&value)), Ok(Decoded::Group { group: "g".into(), value: Some(group()) }));
        assert_eq!(decode(&key, None), Ok(Decoded::Group { group: "g".into(), value: None }));
    }

    #[test]
    fn offsets_read_back_with_and_without_expiry() {
        for committed in [committed(None), committed(Some(9_000))] {
            let (key, value) = (offset_key("g", "t", 3), offset_value(&committed));
            let expected =
                Decoded::Offset { group: "g".into(), topic: "t".into(), partition: 3, value: Some(committed) };
            assert_eq!(decode(&key, Some(&value)), Ok(expected));
        }
    }

    #[test]
    fn an_offset_has_the_bytes_that_kafka_writes() {
        assert_eq!(&offset_key("g", "t", 3)[..], b"\0\x01\0\x01g\0\x01t\0\0\0\x03");
        assert_eq!(
            &offset_value(&committed(None))[..],
            b"\0\x03\0\0\0\0\0\0\0\x2a\0\0\0\x05\0\x04note\0\0\0\0\0\0\x03\xe8"
        );
    }

    #[test]
    fn flexible_values_of_newer_brokers_are_read() {
        let value = Bytes::from_static(b"\0\x04\0\0\0\0\0\0\0\x2a\0\0\0\x05\x05note\0\0\0\0\0\0\x03\xe8\x01\x00\x02id");
        assert_eq!(decode_offset_value(&value), Some(committed(None)));
    }

    #[test]
    fn every_cut_is_an_error_and_none_panics() {
        let (group_key, group_value) = (group_key("g"), group_value(&group()));
        for end in 0..group_value.len() {
            assert_eq!(decode(&group_key, Some(&group_value.slice(..end))), Err(RecordError::Value), "cut at {end}");
        }
        let (key, value) = (offset_key("g", "t", 3), offset_value(&committed(None)));
        for end in 0..value.len() {
            assert_eq!(decode(&key, Some(&value.slice(..end))), Err(RecordError::Value), "cut at {end}");
        }
        for end in 0..key.len() {
            assert_eq!(decode(&key.slice(..end), None), Err(RecordError::Key), "cut at {end}");
        }
    }

    #[test]
    fn keys_of_other_kinds_of_groups_are_passed_over() {
        assert_eq!(decode(&Bytes::from_static(b"\0\x03\0\x01g"), None), Ok(Decoded::Other));
        assert_eq!(decode(&Bytes::from_static(b"\xff\xff"), None), Err(RecordError::Key));
    }
}
