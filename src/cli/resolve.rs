//! Turns checked settings and the facts of this machine into the `Config` that the server is started with.
//!
//! Cannot fail: ranges are held by `settings`, relations by `relations`, the machine by `runtime::host`.

use super::keys::{self, Value};
use super::relations::address;
use super::settings::{Origin, Settings};
use crate::base::config::*;
use crate::base::ids::NodeId;
use crate::cluster::configs::broker_key;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What the machine and its data directories decide.
pub struct Facts {
    /// One for each core.
    pub cpus: Vec<usize>,
    pub node_id: i32,
    pub cluster_id: String,
}

/// The configuration in effect.
pub fn config(settings: &Settings, facts: Facts) -> Config {
    let values = Values(settings);
    Config {
        statics: statics(settings),
        server: ServerConfig {
            node_id: NodeId(facts.node_id),
            cluster_id: facts.cluster_id,
            listen: address(settings, "listeners").expect("it has a default"),
            advertise: address(settings, "advertised.listeners"),
            data_dirs: data_dirs(settings),
            disk_reserve_bytes: values.u64("disk.reserve.bytes"),
        },
        core: core(&values, facts.cpus),
        journal: JournalConfig { bytes: values.u64("journal.bytes"), file_bytes: values.u64("journal.file.bytes") },
        network: network(&values),
        topic: topic(&values),
        cleaner: cleaner(&values),
        group: group(&values),
        offsets: OffsetsConfig {
            partitions: values.i32("offsets.topic.num.partitions"),
            replication_factor: values.i16("offsets.topic.replication.factor"),
            retention_ms: values.u64("offsets.retention.minutes") * MINUTE_MS,
            retention_check_ms: values.u64("offsets.retention.check.interval.ms"),
            metadata_bytes_max: values.u64("offset.metadata.max.bytes") as usize,
        },
        transaction: TransactionConfig {
            partitions: values.i32("transaction.state.log.num.partitions"),
            replication_factor: values.i16("transaction.state.log.replication.factor"),
            timeout_ms_max: values.u64("transaction.max.timeout.ms"),
            id_expiration_ms: values.u64("transactional.id.expiration.ms"),
            timeout_check_ms: values.u64("transaction.abort.timed.out.transaction.cleanup.interval.ms"),
            producer_expiration_ms: values.u64("producer.id.expiration.ms"),
        },
    }
}

/// The keys that a Kafka user knows and that were set here, by file or flag.
fn statics(settings: &Settings) -> BTreeMap<String, String> {
    let known = keys::all().filter(|key| broker_key(key.name).is_some());
    let set = known.filter_map(|key| settings.entry(key.name).map(|entry| (key.name, entry)));
    set.filter(|(_, (_, origin))| **origin != Origin::Default)
        .map(|(name, (value, _))| (name.to_owned(), plain(value)))
        .collect()
}

fn plain(value: &Value) -> String {
    match value {
        Value::Integer(number) => number.to_string(),
        Value::Ratio(number) => number.to_string(),
        Value::Flag(flag) => flag.to_string(),
        Value::Text(text) => text.clone(),
        Value::List(items) => items.join(","),
    }
}

/// The directories of `log.dirs`.
pub fn data_dirs(settings: &Settings) -> Vec<PathBuf> {
    settings.list("log.dirs").expect("it has a default").iter().map(PathBuf::from).collect()
}

const MINUTE_MS: u64 = 60_000;
const HOUR_MS: u64 = 60 * MINUTE_MS;

fn core(values: &Values, cpus: Vec<usize>) -> CoreConfig {
    CoreConfig {
        cpus,
        request_memory_bytes: values.u64("core.request.memory.bytes"),
        tail_memory_bytes: values.u64("core.tail.memory.bytes"),
        commit_bytes_max: values.u64("core.commit.bytes") as usize,
        cold_read: match values.text("core.cold.read") {
            "splice" => ColdRead::Splice,
            "direct" => ColdRead::Direct,
            other => unreachable!("not a choice of core.cold.read: {other}"),
        },
        io_workers_max: values.u32("core.io.workers"),
    }
}

fn network(values: &Values) -> NetworkConfig {
    NetworkConfig {
        request_bytes_max: values.u64("socket.request.max.bytes") as usize,
        idle_ms_max: values.limit("connections.max.idle.ms"),
        connections_max: values.limit_u32("max.connections"),
        connections_per_ip_max: values.limit_u32("max.connections.per.ip"),
        send_buffer_bytes: values.unless_negative("socket.send.buffer.bytes"),
        receive_buffer_bytes: values.unless_negative("socket.receive.buffer.bytes"),
        backlog: values.u32("socket.listen.backlog.size"),
        fetch_bytes_max: values.u64("fetch.max.bytes"),
        fetch_sessions_max: values.u32("max.incremental.fetch.session.cache.slots"),
    }
}

fn topic(values: &Values) -> TopicConfig {
    TopicConfig {
        auto_create: values.flag("auto.create.topics.enable"),
        delete_enable: values.flag("delete.topic.enable"),
        partitions: values.i32("num.partitions"),
        replication_factor: values.i16("default.replication.factor"),
        insync_replicas_min: values.i32("min.insync.replicas"),
        replica_lag_ms_max: values.u64("replica.lag.time.max.ms"),
        message_bytes_max: values.u64("message.max.bytes") as usize,
        compression: match values.text("compression.type") {
            "producer" => CompressionType::Producer,
            "uncompressed" => CompressionType::Uncompressed,
            "gzip" => CompressionType::Gzip,
            "snappy" => CompressionType::Snappy,
            "lz4" => CompressionType::Lz4,
            "zstd" => CompressionType::Zstd,
            other => unreachable!("not a choice of compression.type: {other}"),
        },
        timestamp_type: match values.text("log.message.timestamp.type") {
            "CreateTime" => TimestampType::CreateTime,
            "LogAppendTime" => TimestampType::LogAppendTime,
            other => unreachable!("not a choice of log.message.timestamp.type: {other}"),
        },
        timestamp_before_ms_max: values.limit("log.message.timestamp.before.max.ms"),
        timestamp_after_ms_max: values.limit("log.message.timestamp.after.max.ms"),
        flush_messages: values.u64("log.flush.interval.messages"),
        flush_ms: values.limit("log.flush.interval.ms"),
        segment_bytes: values.u64("log.segment.bytes"),
        segment_ms: values.limit("log.roll.ms").unwrap_or(values.u64("log.roll.hours") * HOUR_MS),
        index_interval_bytes: values.u32("log.index.interval.bytes"),
        index_bytes_max: values.u32("log.index.size.max.bytes"),
        delete_delay_ms: values.u64("log.segment.delete.delay.ms"),
        cleanup: CleanupPolicy {
            delete: values.text("log.cleanup.policy").contains("delete"),
            compact: values.text("log.cleanup.policy").contains("compact"),
        },
        retention_ms: retention_ms(values),
        retention_bytes: values.limit("log.retention.bytes"),
        retention_check_ms: values.u64("log.retention.check.interval.ms"),
    }
}

/// The finest of the three keys that is given decides, even where it says "for ever". Source: `KafkaConfig.logRetentionTimeMillis`.
fn retention_ms(values: &Values) -> Option<u64> {
    let keys = [("log.retention.ms", 1), ("log.retention.minutes", MINUTE_MS), ("log.retention.hours", HOUR_MS)];
    let (name, unit_ms) =
        keys.into_iter().find(|(name, _)| values.0.entry(name).is_some()).expect("the hours have a default");
    values.limit(name).map(|number| number * unit_ms)
}

fn cleaner(values: &Values) -> CleanerConfig {
    CleanerConfig {
        cleanable_ratio_min: values.0.ratio("log.cleaner.min.cleanable.ratio").expect("it has a default"),
        tombstone_retention_ms: values.u64("log.cleaner.delete.retention.ms"),
        lag_ms_min: values.u64("log.cleaner.min.compaction.lag.ms"),
        lag_ms_max: values.limit("log.cleaner.max.compaction.lag.ms"),
        backoff_ms: values.u64("log.cleaner.backoff.ms"),
        key_memory_bytes: values.u64("log.cleaner.dedupe.buffer.size"),
    }
}

fn group(values: &Values) -> GroupConfig {
    GroupConfig {
        initial_rebalance_delay_ms: values.u64("group.initial.rebalance.delay.ms"),
        session_timeout_ms_min: values.u64("group.min.session.timeout.ms"),
        session_timeout_ms_max: values.u64("group.max.session.timeout.ms"),
        members_max: values.limit_u32("group.max.size"),
        consumer_session_timeout_ms: values.u64("group.consumer.session.timeout.ms"),
        consumer_heartbeat_interval_ms: values.u64("group.consumer.heartbeat.interval.ms"),
        consumer_members_max: values.limit_u32("group.consumer.max.size"),
    }
}

/// Settings read as the types of the fields. The ranges of the key table make the conversions safe; each is asserted.
struct Values<'a>(&'a Settings);

impl Values<'_> {
    fn number<T: TryFrom<i64>>(&self, name: &'static str) -> T {
        let number = self.0.integer(name).unwrap_or_else(|| panic!("{name} has a default"));
        T::try_from(number).unwrap_or_else(|_| panic!("the range of {name} fits its field"))
    }

    fn u64(&self, name: &'static str) -> u64 {
        self.number(name)
    }

    fn u32(&self, name: &'static str) -> u32 {
        self.number(name)
    }

    fn i32(&self, name: &'static str) -> i32 {
        self.number(name)
    }

    fn i16(&self, name: &'static str) -> i16 {
        self.number(name)
    }

    /// `None` where there is no value, or it is Kafka's "no limit": -1 or the largest `long`.
    fn limit(&self, name: &'static str) -> Option<u64> {
        let number = self.0.integer(name).filter(|&number| number != i64::MAX)?;
        u64::try_from(number).ok()
    }

    /// As `limit`, where Kafka's "no limit" is the largest `int`.
    fn limit_u32(&self, name: &'static str) -> Option<u32> {
        self.unless_negative(name).filter(|&number| number != i32::MAX as u32)
    }

    /// `None` for -1, where Kafka says "the system decides".
    fn unless_negative(&self, name: &'static str) -> Option<u32> {
        let number: i32 = self.number(name);
        u32::try_from(number).ok()
    }

    fn flag(&self, name: &'static str) -> bool {
        self.0.flag(name).expect("flags have defaults")
    }

    fn text(&self, name: &'static str) -> &str {
        self.0.text(name).expect("choices have defaults")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::keys::{self, Kind, Value};
    use crate::cli::settings::Override;

    fn resolved(pairs: &[(&str, Value)]) -> Config {
        let overrides: Vec<Override> = pairs
            .iter()
            .map(|(name, value)| Override { flag: "--set".to_owned(), name: (*name).to_owned(), value: value.clone() })
            .collect();
        let settings = Settings::load(None, &overrides).unwrap();
        config(&settings, Facts { cpus: vec![0], node_id: 1, cluster_id: "c".to_owned() })
    }

    /// Another value than the default, for a key of each kind.
    fn another(key: &keys::Key) -> Vec<Value> {
        match key.kind {
            Kind::Integer { min, max, step, .. } => [min, min + step, max].map(Value::Integer).to_vec(),
            Kind::Ratio { min, max } => vec![Value::Ratio(min), Value::Ratio(max)],
            Kind::Flag => vec![Value::Flag(true), Value::Flag(false)],
            Kind::Choice(names) => names.iter().map(|&name| Value::Text(name.to_owned())).collect(),
            Kind::Text => vec![Value::Text("example:1".to_owned())],
            Kind::List => vec![Value::List(vec!["/other".to_owned()])],
        }
    }

    /// A key nobody reads would be a promise broken silently; a bound that does not fit its field would panic here.
    #[test]
    fn every_key_of_the_table_changes_the_config_at_any_of_its_bounds() {
        // These arrive through `Facts`.
        let elsewhere = ["node.id", "cluster.id", "core.count", "core.cpus"];
        let default = resolved(&[]);
        for key in keys::all().filter(|key| !elsewhere.contains(&key.name)) {
            let changed = another(key).into_iter().any(|value| resolved(&[(key.name, value)]) != default);
            assert!(changed, "{} reaches no field of Config", key.name);
        }
    }

    #[test]
    fn minus_one_and_kafkas_largest_numbers_mean_no_limit() {
        let config = resolved(&[("connections.max.idle.ms", Value::Integer(-1))]);
        assert_eq!(config.network.idle_ms_max, None);
        assert_eq!(config.network.connections_max, None);
        assert_eq!(config.topic.timestamp_before_ms_max, None);
        assert_eq!(config.topic.retention_bytes, None);
    }

    #[test]
    fn the_finest_unit_of_retention_decides() {
        let hours = ("log.retention.hours", Value::Integer(2));
        let minutes = ("log.retention.minutes", Value::Integer(3));
        let ms = ("log.retention.ms", Value::Integer(-1));
        assert_eq!(resolved(&[]).topic.retention_ms, Some(168 * 3_600_000));
        assert_eq!(resolved(std::slice::from_ref(&hours)).topic.retention_ms, Some(7_200_000));
        assert_eq!(resolved(&[hours.clone(), minutes.clone()]).topic.retention_ms, Some(180_000));
        assert_eq!(resolved(&[hours, minutes, ms]).topic.retention_ms, None);
    }
}
