//! The tables against themselves, and the way from what was set to what holds.

use super::*;
use crate::cluster::configs::key::nearest;

fn set(pairs: &[(&str, &str)]) -> Overrides {
    pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
}

static NOTHING: Overrides = Overrides::new();
const NO_BROKER: BrokerConfigs<'static> = BrokerConfigs { node: &NOTHING, cluster: &NOTHING, statics: &NOTHING };

#[test]
fn tables_are_sorted_and_their_defaults_are_values_they_take() {
    for keys in [TOPIC_KEYS, BROKER_KEYS] {
        assert!(keys.is_sorted_by(|a, b| a.name < b.name));
        for key in keys {
            assert!(key.default.is_none_or(|value| key.validate(value).is_ok()), "{}", key.name);
            assert!(key.documentation.ends_with('.'), "{}", key.name);
        }
    }
}

/// What a broker's configuration shows is in effect; what is only kept for a topic has no default that could be changed.
#[test]
fn only_topics_keep_what_changes_nothing() {
    assert!(BROKER_KEYS.iter().all(|key| key.served != Served::Stored));
    assert!(TOPIC_KEYS.iter().all(|key| key.served != Served::Stored || key.synonyms.is_empty()));
}

#[test]
fn a_topics_default_is_its_brokers_default() {
    let numbers: Vec<_> = TOPIC_KEYS.iter().filter(|key| !key.synonyms.is_empty()).collect();
    assert!(numbers.len() > 10);
    for key in numbers {
        let fallback = topic_settings(key, NO_BROKER, &NOTHING).next().expect("a default");
        assert_eq!(Some(fallback.shown().as_str()), key.default, "{}", key.name);
    }
}

#[test]
fn defaults_are_kafkas_but_for_durability() {
    let config = TopicConfig::resolve(NO_BROKER, &NOTHING);
    let expected = TopicConfig {
        cleanup_delete: true,
        cleanup_compact: false,
        retention_ms: Some(604_800_000),
        retention_bytes: None,
        segment_bytes: 1 << 30,
        segment_ms: 604_800_000,
        file_delete_delay_ms: 60_000,
        index_interval_bytes: 4096,
        max_message_bytes: 1_048_588,
        log_append_time: false,
        timestamp_before_max_ms: i64::MAX,
        timestamp_after_max_ms: 3_600_000,
        flush_messages: 1,
        flush_ms: i64::MAX,
        min_compaction_lag_ms: 0,
        max_compaction_lag_ms: i64::MAX,
    };
    assert_eq!(config, expected);
}

#[test]
fn the_nearest_level_holds_and_within_it_the_finest_unit() {
    let statics = set(&[("log.retention.hours", "2"), ("log.retention.minutes", "90")]);
    let cluster = set(&[("log.retention.ms", "4000")]);
    let node = set(&[("log.retention.ms", "5000")]);
    let own = set(&[("retention.ms", "6000")]);
    for (broker, overrides, expected) in [
        (BrokerConfigs { statics: &statics, ..NO_BROKER }, &NOTHING, 90 * 60_000),
        (BrokerConfigs { statics: &statics, cluster: &cluster, ..NO_BROKER }, &NOTHING, 4000),
        (BrokerConfigs { statics: &statics, cluster: &cluster, node: &node }, &NOTHING, 5000),
        (BrokerConfigs { statics: &statics, cluster: &cluster, node: &node }, &own, 6000),
    ] {
        assert_eq!(TopicConfig::resolve(broker, overrides).retention_ms, Some(expected));
    }
    let forever = set(&[("log.retention.hours", "-1")]);
    let broker = BrokerConfigs { statics: &forever, ..NO_BROKER };
    assert_eq!(TopicConfig::resolve(broker, &NOTHING).retention_ms, None);
}

#[test]
fn retention_never_touches_a_topic_that_is_only_compacted() {
    let limits = [("retention.ms", "1"), ("retention.bytes", "1")];
    for (policy, delete, compact) in [
        ("compact", false, true),
        ("delete", true, false),
        ("compact,delete", true, true),
        ("delete, compact", true, true),
        ("", false, false),
    ] {
        let overrides = set(&[&limits[..], &[("cleanup.policy", policy)]].concat());
        validate_topic(NO_BROKER, &overrides).expect(policy);
        let config = TopicConfig::resolve(NO_BROKER, &overrides);
        assert_eq!((config.cleanup_delete, config.cleanup_compact), (delete, compact), "{policy}");
        let bound = delete.then_some(1);
        assert_eq!((config.retention_ms, config.retention_bytes), (bound, bound), "{policy}");
    }
}

#[test]
fn values_are_held_to_type_and_bounds() {
    for (name, value, fits) in [
        ("retention.ms", "-1", true),
        ("retention.ms", " 5 ", true),
        ("retention.ms", "-2", false),
        ("retention.ms", "1h", false),
        ("retention.ms", "9223372036854775808", false),
        ("retention.ms", "", false),
        ("segment.bytes", "1048576", true),
        ("segment.bytes", "1048575", false),
        ("segment.bytes", "2147483648", false),
        ("min.cleanable.dirty.ratio", "1", true),
        ("min.cleanable.dirty.ratio", "1.01", false),
        ("min.cleanable.dirty.ratio", "NaN", false),
        ("cleanup.policy", "compact,delete", true),
        ("cleanup.policy", "compact,keep", false),
        ("compression.type", "zstd", true),
        ("compression.type", "none", false),
        ("compression.zstd.level", "-5", true),
        ("preallocate", "TRUE", true),
        ("preallocate", "yes", false),
        ("message.timestamp.type", "LogAppendTime", true),
        ("message.timestamp.type", "logappendtime", false),
        ("flush.messages", "0", false),
        ("min.insync.replicas", "2", true),
        ("leader.replication.throttled.replicas", "*", true),
    ] {
        assert_eq!(validate_topic(NO_BROKER, &set(&[(name, value)])).is_ok(), fits, "{name}={value}");
    }
}

#[test]
fn what_would_promise_too_much_is_refused_and_says_so() {
    for (name, value) in [
        ("remote.storage.enable", "true"),
        ("remote.log.copy.disable", "true"),
        ("unclean.leader.election.enable", "true"),
    ] {
        let refusal = validate_topic(NO_BROKER, &set(&[(name, value)])).unwrap_err();
        assert!(refusal.contains("not supported") && refusal.contains(name), "{refusal}");
        validate_topic(NO_BROKER, &set(&[(name, "false")])).expect("the default may be named");
    }
}

#[test]
fn keys_are_checked_together() {
    let overrides = set(&[("min.compaction.lag.ms", "10"), ("max.compaction.lag.ms", "9")]);
    assert!(validate_topic(NO_BROKER, &overrides).is_err());
}

#[test]
fn an_unknown_key_is_answered_with_the_nearest() {
    for (mistyped, meant) in [
        ("retention.msec", "retention.ms"),
        ("cleanup.polcy", "cleanup.policy"),
        ("max.mesage.bytes", "max.message.bytes"),
        ("segments.bytes", "segment.bytes"),
    ] {
        assert_eq!(nearest(TOPIC_KEYS, mistyped), meant);
        let refusal = validate_topic(NO_BROKER, &set(&[(mistyped, "1")])).unwrap_err();
        assert!(refusal.contains(meant), "{refusal}");
    }
    let long = "x".repeat(1 << 20);
    assert!(known_topic_key(&long).unwrap_err().len() < 300);
}

#[test]
fn read_only_broker_keys_do_not_change_while_it_runs() {
    assert!(known_dynamic_broker_key("message.max.bytes").is_ok());
    assert!(known_dynamic_broker_key("num.partitions").unwrap_err().contains("read only"));
    assert!(known_dynamic_broker_key("num.partition").unwrap_err().contains("num.partitions"));
}

#[test]
fn broker_values_fall_back_to_defaults() {
    let statics = set(&[("num.partitions", "6"), ("auto.create.topics.enable", "False")]);
    let broker = BrokerConfigs { statics: &statics, ..NO_BROKER };
    assert_eq!((broker.number("num.partitions"), broker.number("fetch.max.bytes")), (6, 57_671_680));
    assert!(!broker.flag("auto.create.topics.enable") && broker.flag("delete.topic.enable"));
    assert_eq!((broker.value("log.roll.ms"), broker.value("log.roll.hours")), (None, Some("168")));
}

#[test]
fn descriptions_show_every_place_that_has_a_value() {
    let statics = set(&[("log.retention.hours", "2")]);
    let broker = BrokerConfigs { statics: &statics, ..NO_BROKER };
    let overrides = set(&[("retention.ms", "7")]);
    let described = describe_topic(broker, &overrides);
    assert_eq!(described.len(), TOPIC_KEYS.len());
    let of = |name: &str| described.iter().find(|entry| entry.name == name).expect("described");
    let places: Vec<_> = of("retention.ms")
        .synonyms
        .iter()
        .map(|place| (place.name.as_str(), place.value.as_str(), place.source))
        .collect();
    assert_eq!(
        places,
        [
            ("retention.ms", "7", ConfigSource::Topic),
            ("log.retention.hours", "2", ConfigSource::StaticBroker),
            ("log.retention.hours", "168", ConfigSource::Default),
        ]
    );
    assert_eq!((of("retention.ms").value.as_deref(), of("retention.ms").is_default()), (Some("7"), false));
    assert_eq!((of("segment.ms").value.as_deref(), of("segment.ms").is_default()), (Some("604800000"), true));

    let inherited = describe_topic(broker, &NOTHING);
    let retention = inherited.iter().find(|entry| entry.name == "retention.ms").expect("described");
    assert_eq!((retention.value.as_deref(), retention.source), (Some("7200000"), ConfigSource::StaticBroker));

    let of_broker = describe_broker(broker);
    let minutes = of_broker.iter().find(|entry| entry.name == "log.retention.minutes").expect("described");
    assert_eq!((minutes.value.as_deref(), minutes.read_only), (None, true));
}
