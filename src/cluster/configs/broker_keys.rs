//! The keys a broker's configuration may have, by Kafka's names: defaults of topics first, then the broker's own.
//!
//! Each is in effect. Kafka has many more; a key that is not here is unknown and refused. Source: Kafka broker configs, `DynamicBrokerConfig`.

use super::key::Check::{Any, AtLeast, OneOf};
use super::key::ConfigKey;
use super::key::ValueType::{Boolean, Int, List, Long, String};
use super::topic_keys::NEVER;

/// Sorted by name.
pub static BROKER_KEYS: &[ConfigKey] = &[
    ConfigKey::new("advertised.listeners", List, "", Any, "Addresses told to clients.").unset().read_only(),
    ConfigKey::new(
        "auto.create.topics.enable",
        Boolean,
        "true",
        Any,
        "Whether a topic is created when a client asks for its metadata and allows it.",
    )
    .read_only(),
    ConfigKey::new(
        "connections.max.idle.ms",
        Long,
        "600000",
        Any,
        "A connection without requests for so long is closed. Negative: never.",
    )
    .read_only(),
    ConfigKey::new(
        "default.replication.factor",
        Int,
        "1",
        AtLeast(1),
        "Replicas of a topic whose creator leaves that to the broker.",
    )
    .read_only(),
    ConfigKey::new("delete.topic.enable", Boolean, "true", Any, "Whether topics can be deleted.").read_only(),
    ConfigKey::new("fetch.max.bytes", Int, "57671680", AtLeast(1024), "Most bytes of records in one fetch answer.")
        .read_only(),
    ConfigKey::new(
        "group.initial.rebalance.delay.ms",
        Int,
        "3000",
        AtLeast(0),
        "How long a new classic group waits for more members before its first assignment.",
    )
    .read_only(),
    ConfigKey::new(
        "group.max.session.timeout.ms",
        Int,
        "1800000",
        AtLeast(1),
        "Longest session timeout a member may ask for.",
    )
    .read_only(),
    ConfigKey::new("group.max.size", Int, "2147483647", AtLeast(1), "Most members of one classic group.").read_only(),
    ConfigKey::new(
        "group.min.session.timeout.ms",
        Int,
        "6000",
        AtLeast(1),
        "Shortest session timeout a member may ask for.",
    )
    .read_only(),
    ConfigKey::new(
        "inter.broker.protocol.version",
        String,
        "4.0-IV3",
        Any,
        "The Kafka version whose behaviour this broker shows, for tools that ask for it.",
    )
    .read_only(),
    ConfigKey::new("listeners", List, "", Any, "Addresses this broker listens on.").unset().read_only(),
    ConfigKey::new(
        "log.cleanup.policy",
        List,
        "delete",
        OneOf(&["compact", "delete"]),
        "Default of the topic key cleanup.policy.",
    ),
    ConfigKey::new("log.dirs", List, "", Any, "Directories for data.").unset().read_only(),
    ConfigKey::new(
        "log.flush.interval.messages",
        Long,
        "1",
        AtLeast(1),
        "Default of the topic key flush.messages. 1 here, so that what is acknowledged survives power loss; Kafka does not flush.",
    ),
    ConfigKey::new("log.flush.interval.ms", Long, "", AtLeast(0), "Default of the topic key flush.ms.").unset(),
    ConfigKey::new(
        "log.flush.scheduler.interval.ms",
        Long,
        NEVER,
        AtLeast(0),
        "Default of the topic key flush.ms where log.flush.interval.ms is not set.",
    )
    .read_only(),
    ConfigKey::new(
        "log.index.interval.bytes",
        Int,
        "4096",
        AtLeast(0),
        "Default of the topic key index.interval.bytes.",
    ),
    ConfigKey::new(
        "log.message.timestamp.after.max.ms",
        Long,
        "3600000",
        AtLeast(0),
        "Default of the topic key message.timestamp.after.max.ms.",
    ),
    ConfigKey::new(
        "log.message.timestamp.before.max.ms",
        Long,
        NEVER,
        AtLeast(0),
        "Default of the topic key message.timestamp.before.max.ms.",
    ),
    ConfigKey::new(
        "log.message.timestamp.type",
        String,
        "CreateTime",
        OneOf(&["CreateTime", "LogAppendTime"]),
        "Default of the topic key message.timestamp.type.",
    ),
    ConfigKey::new("log.retention.bytes", Long, "-1", Any, "Default of the topic key retention.bytes."),
    ConfigKey::new(
        "log.retention.check.interval.ms",
        Long,
        "300000",
        AtLeast(1),
        "How often partitions are searched for segments that retention removes.",
    )
    .read_only(),
    ConfigKey::new(
        "log.retention.hours",
        Int,
        "168",
        Any,
        "Default of the topic key retention.ms, in hours, where neither milliseconds nor minutes are set.",
    )
    .read_only(),
    ConfigKey::new(
        "log.retention.minutes",
        Int,
        "",
        Any,
        "Default of the topic key retention.ms, in minutes, where milliseconds are not set.",
    )
    .unset()
    .read_only(),
    ConfigKey::new("log.retention.ms", Long, "", AtLeast(-1), "Default of the topic key retention.ms.").unset(),
    ConfigKey::new(
        "log.roll.hours",
        Int,
        "168",
        AtLeast(1),
        "Default of the topic key segment.ms, in hours, where log.roll.ms is not set.",
    )
    .read_only(),
    ConfigKey::new("log.roll.ms", Long, "", AtLeast(1), "Default of the topic key segment.ms.").unset(),
    ConfigKey::new("log.segment.bytes", Int, "1073741824", AtLeast(1 << 20), "Default of the topic key segment.bytes."),
    ConfigKey::new(
        "log.segment.delete.delay.ms",
        Long,
        "60000",
        AtLeast(0),
        "Default of the topic key file.delete.delay.ms.",
    ),
    ConfigKey::new("max.connections", Int, "2147483647", AtLeast(0), "Most connections at one time.").read_only(),
    ConfigKey::new("message.max.bytes", Int, "1048588", AtLeast(0), "Default of the topic key max.message.bytes."),
    ConfigKey::new("node.id", Int, "", AtLeast(0), "This broker's number in the cluster.").unset().read_only(),
    ConfigKey::new(
        "num.partitions",
        Int,
        "1",
        AtLeast(1),
        "Partitions of a topic whose creator leaves that to the broker.",
    )
    .read_only(),
    ConfigKey::new(
        "offset.metadata.max.bytes",
        Int,
        "4096",
        AtLeast(0),
        "Most bytes of text beside a committed offset.",
    )
    .read_only(),
    ConfigKey::new(
        "offsets.retention.check.interval.ms",
        Long,
        "600000",
        AtLeast(1),
        "How often groups are searched for offsets that have expired.",
    )
    .read_only(),
    ConfigKey::new(
        "offsets.retention.minutes",
        Int,
        "10080",
        AtLeast(1),
        "How long committed offsets are kept once their group has no members.",
    )
    .read_only(),
    ConfigKey::new("offsets.topic.num.partitions", Int, "50", AtLeast(1), "Partitions of __consumer_offsets.")
        .read_only(),
    ConfigKey::new(
        "producer.id.expiration.ms",
        Int,
        "86400000",
        AtLeast(1),
        "A partition forgets an idempotent producer it has not heard of for so long.",
    ),
    ConfigKey::new(
        "socket.listen.backlog.size",
        Int,
        "4096",
        AtLeast(1),
        "Connections that may wait to be accepted, for each core.",
    )
    .read_only(),
    ConfigKey::new(
        "socket.receive.buffer.bytes",
        Int,
        "-1",
        AtLeast(-1),
        "SO_RCVBUF of a connection. -1: the kernel sizes it.",
    )
    .read_only(),
    ConfigKey::new(
        "socket.request.max.bytes",
        Int,
        "104857600",
        AtLeast(1),
        "Largest request; a larger one closes the connection.",
    )
    .read_only(),
    ConfigKey::new(
        "socket.send.buffer.bytes",
        Int,
        "-1",
        AtLeast(-1),
        "SO_SNDBUF of a connection. -1: the kernel sizes it.",
    )
    .read_only(),
    ConfigKey::new("unclean.leader.election.enable", Boolean, "false", Any, "Default of the topic key of this name.")
        .only("false", "unclean leader election would lose acknowledged records and is not supported"),
];
