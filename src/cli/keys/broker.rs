//! Keys that Kafka's brokers have, with Kafka's names and, unless their text says otherwise, Kafka's defaults.
//!
//! Source: Kafka 4.x documentation, "Broker Configs".

use super::{INT_MAX, Kind, LONG_MS_MAX, Section, Unit, bytes, count, key, ms, optional};

const MINUTES_MAX: i64 = INT_MAX;

pub const NETWORK: Section = Section {
    title: "Network",
    keys: &[
        key(
            "socket.request.max.bytes",
            bytes(1 << 10, 1 << 30),
            "104857600",
            "Largest request. A connection that announces a larger one is closed.",
        ),
        key("fetch.max.bytes", bytes(1024, INT_MAX), "57671680", "Most bytes in the answer to one fetch."),
        key(
            "connections.max.idle.ms",
            ms(-1, LONG_MS_MAX),
            "600000",
            "A connection that was silent for so long is closed. -1: never.",
        ),
        key("max.connections", count(0, INT_MAX), "2147483647", "Most connections of the whole broker at once."),
        key(
            "socket.send.buffer.bytes",
            bytes(-1, INT_MAX),
            "-1",
            "SO_SNDBUF of a connection, at most net.core.wmem_max. -1, other than Kafka's default: the kernel sizes it.",
        ),
        key(
            "socket.receive.buffer.bytes",
            bytes(-1, INT_MAX),
            "-1",
            "SO_RCVBUF of a connection, at most net.core.rmem_max. -1, other than Kafka's default: the kernel sizes it.",
        ),
        key(
            "socket.listen.backlog.size",
            count(1, INT_MAX),
            "4096",
            "Connections that may wait to be accepted, for each core. Kafka's default is 50 for the broker.\n\
             The kernel lowers it to net.core.somaxconn.",
        ),
    ],
};

pub const TOPIC: Section = Section {
    title: "Topics: what one has that does not say otherwise",
    keys: &[
        key(
            "auto.create.topics.enable",
            Kind::Flag,
            "true",
            "Whether a topic is made when a client asks for one that is not there.",
        ),
        key("delete.topic.enable", Kind::Flag, "true", "Whether topics may be deleted."),
        key("num.partitions", count(1, 100_000), "1", "Partitions."),
        key("default.replication.factor", count(1, 32_767), "1", "Replicas of each partition."),
        key(
            "message.max.bytes",
            bytes(0, INT_MAX),
            "1048588",
            "Largest record batch, as compressed by the producer. At most socket.request.max.bytes.",
        ),
        key(
            "log.message.timestamp.type",
            Kind::Choice(&["CreateTime", "LogAppendTime"]),
            "\"CreateTime\"",
            "Whether a record has the time its producer gave it or the time it was appended.",
        ),
        key(
            "log.message.timestamp.before.max.ms",
            ms(0, i64::MAX),
            "9223372036854775807",
            "A record with a CreateTime older than this is refused.",
        ),
        key(
            "log.message.timestamp.after.max.ms",
            ms(0, i64::MAX),
            "3600000",
            "A record with a CreateTime further in the future than this is refused.",
        ),
        key(
            "log.flush.interval.messages",
            count(1, i64::MAX),
            "1",
            "Records of a partition after which it is synced. 1, other than Kafka's default: every reply waits for the disk.",
        ),
        optional(
            "log.flush.interval.ms",
            ms(0, LONG_MS_MAX),
            "Longest time a record may be unsynced. None: only log.flush.interval.messages counts.",
        ),
        key(
            "log.segment.bytes",
            bytes(1 << 20, INT_MAX),
            "1073741824",
            "Size at which a partition begins a new segment file.",
        ),
        optional("log.roll.ms", ms(1, LONG_MS_MAX), "Age at which it does. None: log.roll.hours."),
        key(
            "log.roll.hours",
            Kind::Integer { unit: Unit::Hours, min: 1, max: INT_MAX, step: 1 },
            "168",
            "Age at which it does, if log.roll.ms is not given.",
        ),
        key("log.index.interval.bytes", bytes(0, INT_MAX), "4096", "Bytes of a segment for each entry in its index."),
        key(
            "log.segment.delete.delay.ms",
            ms(0, LONG_MS_MAX),
            "60000",
            "Time from when a segment is dropped until its file is deleted.",
        ),
    ],
};

pub const RETENTION: Section = Section {
    title: "Retention",
    keys: &[
        key(
            "log.cleanup.policy",
            Kind::Choice(&["delete", "compact", "compact,delete", "delete,compact"]),
            "\"delete\"",
            "What happens to old records.",
        ),
        optional(
            "log.retention.ms",
            ms(-1, LONG_MS_MAX),
            "How long records are kept. -1: for ever. None: log.retention.minutes.",
        ),
        optional(
            "log.retention.minutes",
            Kind::Integer { unit: Unit::Minutes, min: -1, max: MINUTES_MAX, step: 1 },
            "How long records are kept, if log.retention.ms is not given. None: log.retention.hours.",
        ),
        key(
            "log.retention.hours",
            Kind::Integer { unit: Unit::Hours, min: -1, max: INT_MAX, step: 1 },
            "168",
            "How long records are kept, if neither of the above is given. -1: for ever.",
        ),
        key(
            "log.retention.bytes",
            bytes(-1, i64::MAX),
            "-1",
            "Size of a partition above which its oldest segments go. -1: no limit.",
        ),
        key(
            "log.retention.check.interval.ms",
            ms(1, LONG_MS_MAX),
            "300000",
            "Time between two looks for segments to delete.",
        ),
    ],
};

pub const GROUP: Section = Section {
    title: "Consumer groups",
    keys: &[
        key(
            "group.initial.rebalance.delay.ms",
            ms(0, INT_MAX),
            "3000",
            "How long an empty group waits for further members before its first rebalance.",
        ),
        key("group.min.session.timeout.ms", ms(1, INT_MAX), "6000", "Shortest session timeout a member may ask for."),
        key("group.max.session.timeout.ms", ms(1, INT_MAX), "1800000", "Longest session timeout a member may ask for."),
        key("group.max.size", count(1, INT_MAX), "2147483647", "Most members of a group."),
    ],
};

pub const OFFSETS: Section = Section {
    title: "Committed offsets",
    keys: &[
        key(
            "offsets.topic.num.partitions",
            count(1, 100_000),
            "50",
            "Partitions of __consumer_offsets. Fixed once the topic exists.",
        ),
        key(
            "offsets.retention.minutes",
            Kind::Integer { unit: Unit::Minutes, min: 1, max: MINUTES_MAX, step: 1 },
            "10080",
            "How long offsets are kept after their group is empty.",
        ),
        key(
            "offsets.retention.check.interval.ms",
            ms(1, LONG_MS_MAX),
            "600000",
            "Time between two looks for offsets to forget.",
        ),
        key("offset.metadata.max.bytes", bytes(0, INT_MAX), "4096", "Longest text a client may commit with an offset."),
    ],
};

pub const PRODUCERS: Section = Section {
    title: "Idempotent producers",
    keys: &[key(
        "producer.id.expiration.ms",
        ms(1, INT_MAX),
        "86400000",
        "How long a partition remembers the sequence of a producer that is silent.",
    )],
};
