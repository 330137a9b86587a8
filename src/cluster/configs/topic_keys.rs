//! The keys a topic's configuration may have: all of Kafka 4.3's, with what Ringlog does about each.
//!
//! Names, types, defaults and bounds are Kafka's (`TopicConfig`, `LogConfig`), but for `flush.messages`: there durability is
//! our default and Kafka's is not to flush.

use super::key::Check::{Any, AtLeast, OneOf, Ratio, Within};
use super::key::ConfigKey;
use super::key::ValueType::{Boolean, Double, Int, List, Long, String};

pub(super) const NEVER: &str = "9223372036854775807";
const HOUR_MS: i64 = 3_600_000;
const MINUTE_MS: i64 = 60_000;

/// Sorted by name.
pub static TOPIC_KEYS: &[ConfigKey] = &[
    ConfigKey::new(
        "cleanup.policy",
        List,
        "delete",
        OneOf(&["compact", "delete"]),
        "What becomes of old segments: delete removes them by age and size, compact keeps the last record of each key. \
         A topic that is only compacted keeps all its records until compaction runs; retention never removes them.",
    )
    .falls_back_to(&[("log.cleanup.policy", 1)]),
    ConfigKey::new(
        "compression.gzip.level",
        Int,
        "-1",
        Within(-1, 9),
        "Level for gzip where the broker compresses. Stored only: batches keep the producer's compression.",
    )
    .stored(),
    ConfigKey::new(
        "compression.lz4.level",
        Int,
        "9",
        Within(1, 17),
        "Level for lz4 where the broker compresses. Stored only: batches keep the producer's compression.",
    )
    .stored(),
    ConfigKey::new(
        "compression.type",
        String,
        "producer",
        OneOf(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]),
        "How records are compressed in the log. Stored only: every batch keeps the compression its producer chose.",
    )
    .stored(),
    ConfigKey::new(
        "compression.zstd.level",
        Int,
        "3",
        Within(-131_072, 22),
        "Level for zstd where the broker compresses. Stored only: batches keep the producer's compression.",
    )
    .stored(),
    ConfigKey::new(
        "delete.retention.ms",
        Long,
        "86400000",
        AtLeast(0),
        "How long a deletion mark stays in a compacted topic. Stored only: nothing is compacted.",
    )
    .stored(),
    ConfigKey::new(
        "file.delete.delay.ms",
        Long,
        "60000",
        AtLeast(0),
        "How long the files of a removed segment stay on disk, for readers that are still in them.",
    )
    .falls_back_to(&[("log.segment.delete.delay.ms", 1)]),
    ConfigKey::new(
        "flush.messages",
        Long,
        "1",
        AtLeast(1),
        "1, the default: a record is acknowledged and visible only when it would survive power loss. Above 1 it is \
         acknowledged and visible when appended, and the last ones can be lost in a crash. Kafka's own default is not to flush.",
    )
    .falls_back_to(&[("log.flush.interval.messages", 1)]),
    ConfigKey::new(
        "flush.ms",
        Long,
        NEVER,
        AtLeast(0),
        "Longest time until an appended record is on disk, where flush.messages is above 1. Commits come much sooner than any \
         value but 0, which asks for durability before acknowledgement like flush.messages=1.",
    )
    .falls_back_to(&[("log.flush.interval.ms", 1), ("log.flush.scheduler.interval.ms", 1)]),
    ConfigKey::new(
        "follower.replication.throttled.replicas",
        List,
        "",
        Any,
        "Replicas whose replication is throttled on the follower's side. Stored only.",
    )
    .stored(),
    ConfigKey::new(
        "index.interval.bytes",
        Int,
        "4096",
        AtLeast(0),
        "About how many bytes of records lie between two entries of a segment's index.",
    )
    .falls_back_to(&[("log.index.interval.bytes", 1)]),
    ConfigKey::new(
        "leader.replication.throttled.replicas",
        List,
        "",
        Any,
        "Replicas whose replication is throttled on the leader's side. Stored only.",
    )
    .stored(),
    ConfigKey::new(
        "local.retention.bytes",
        Long,
        "-2",
        AtLeast(-2),
        "Bytes kept locally where older segments are in remote storage. Stored only: there is no remote storage.",
    )
    .stored(),
    ConfigKey::new(
        "local.retention.ms",
        Long,
        "-2",
        AtLeast(-2),
        "Time kept locally where older segments are in remote storage. Stored only: there is no remote storage.",
    )
    .stored(),
    ConfigKey::new(
        "max.compaction.lag.ms",
        Long,
        NEVER,
        AtLeast(1),
        "Longest time a record of a compacted topic may escape compaction. Stored only: nothing is compacted.",
    )
    .stored(),
    ConfigKey::new(
        "max.message.bytes",
        Int,
        "1048588",
        AtLeast(0),
        "Largest batch taken from a producer, as it is sent: compressed, with its header.",
    )
    .falls_back_to(&[("message.max.bytes", 1)]),
    ConfigKey::new(
        "message.timestamp.after.max.ms",
        Long,
        "3600000",
        AtLeast(0),
        "How far in the future a record's timestamp may lie. Not asked where the broker stamps records.",
    )
    .falls_back_to(&[("log.message.timestamp.after.max.ms", 1)]),
    ConfigKey::new(
        "message.timestamp.before.max.ms",
        Long,
        NEVER,
        AtLeast(0),
        "How far in the past a record's timestamp may lie. Not asked where the broker stamps records.",
    )
    .falls_back_to(&[("log.message.timestamp.before.max.ms", 1)]),
    ConfigKey::new(
        "message.timestamp.type",
        String,
        "CreateTime",
        OneOf(&["CreateTime", "LogAppendTime"]),
        "Whose clock stamps records: the producer's (CreateTime) or the broker's (LogAppendTime).",
    )
    .falls_back_to(&[("log.message.timestamp.type", 1)]),
    ConfigKey::new(
        "min.cleanable.dirty.ratio",
        Double,
        "0.5",
        Ratio(0.0, 1.0),
        "Share of a compacted log that must be uncompacted before it is compacted again. Stored only: nothing is compacted.",
    )
    .stored(),
    ConfigKey::new(
        "min.compaction.lag.ms",
        Long,
        "0",
        AtLeast(0),
        "Shortest time a record of a compacted topic stays uncompacted. Stored only: nothing is compacted.",
    )
    .stored(),
    ConfigKey::new(
        "min.insync.replicas",
        Int,
        "1",
        AtLeast(1),
        "Replicas that must have a record on disk before acks=all is answered, but no more than there are. Stored only: there is one.",
    )
    .stored(),
    ConfigKey::new(
        "preallocate",
        Boolean,
        "false",
        Any,
        "Whether segment files get their space ahead of need. Stored only: they always do.",
    )
    .stored(),
    ConfigKey::new(
        "remote.log.copy.disable",
        Boolean,
        "false",
        Any,
        "Stops copying segments to remote storage.",
    )
    .only("false", "remote storage is not supported"),
    ConfigKey::new(
        "remote.log.delete.on.disable",
        Boolean,
        "false",
        Any,
        "Removes a topic's segments from remote storage when that is switched off for it.",
    )
    .only("false", "remote storage is not supported"),
    ConfigKey::new("remote.storage.enable", Boolean, "false", Any, "Moves old segments to remote storage.")
        .only("false", "remote storage is not supported"),
    ConfigKey::new(
        "retention.bytes",
        Long,
        "-1",
        Any,
        "Bytes that a partition keeps before its oldest segments go, where the policy is delete. Negative: no bound.",
    )
    .falls_back_to(&[("log.retention.bytes", 1)]),
    ConfigKey::new(
        "retention.ms",
        Long,
        "604800000",
        AtLeast(-1),
        "How long records are kept before their segment goes, where the policy is delete. -1: no bound.",
    )
    .falls_back_to(&[
        ("log.retention.ms", 1),
        ("log.retention.minutes", MINUTE_MS),
        ("log.retention.hours", HOUR_MS),
    ]),
    ConfigKey::new(
        "segment.bytes",
        Int,
        "1073741824",
        AtLeast(1 << 20),
        "Largest segment file. Retention removes whole segments.",
    )
    .falls_back_to(&[("log.segment.bytes", 1)]),
    ConfigKey::new(
        "segment.index.bytes",
        Int,
        "10485760",
        AtLeast(4),
        "Largest index file of a segment. Stored only: indexes grow as they need.",
    )
    .stored(),
    ConfigKey::new(
        "segment.jitter.ms",
        Long,
        "0",
        AtLeast(0),
        "Up to how much earlier than segment.ms a segment is closed, at random. Stored only: it is closed at segment.ms.",
    )
    .stored(),
    ConfigKey::new(
        "segment.ms",
        Long,
        "604800000",
        AtLeast(1),
        "Longest time records go to one segment before the next is begun, even if there is room.",
    )
    .falls_back_to(&[("log.roll.ms", 1), ("log.roll.hours", HOUR_MS)]),
    ConfigKey::new(
        "unclean.leader.election.enable",
        Boolean,
        "false",
        Any,
        "Whether a replica that lacks acknowledged records may lead.",
    )
    .only("false", "unclean leader election would lose acknowledged records and is not supported")
    .falls_back_to(&[("unclean.leader.election.enable", 1)]),
];
