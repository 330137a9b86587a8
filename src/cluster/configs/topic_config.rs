//! A topic's configuration with all fallbacks taken: typed values for the log, the partition and the shard.

use super::key::elements;
use super::{BrokerConfigs, Overrides, Setting, topic_key, topic_settings};
use std::str::FromStr;

/// What holds for one topic. Resolved when its configuration or its broker's changes, then read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TopicConfig {
    /// Old segments are removed by age and size.
    pub cleanup_delete: bool,
    /// Segments are to be compacted. Alone it means that nothing is removed by age or size.
    pub cleanup_compact: bool,
    /// Age at which segments go; `None`: never, also where the policy does not delete.
    pub retention_ms: Option<u64>,
    /// Size from which the oldest segments go; `None`: none, also where the policy does not delete.
    pub retention_bytes: Option<u64>,
    pub segment_bytes: u32,
    pub segment_ms: u64,
    pub file_delete_delay_ms: u64,
    pub index_interval_bytes: u32,
    pub max_message_bytes: u32,
    /// The broker stamps records (`message.timestamp.type=LogAppendTime`).
    pub log_append_time: bool,
    pub timestamp_before_max_ms: i64,
    pub timestamp_after_max_ms: i64,
    /// At least 1; 1 asks for durability before acknowledgement.
    pub flush_messages: i64,
    /// At least 0; 0 asks for durability before acknowledgement.
    pub flush_ms: i64,
    /// At most `max_compaction_lag_ms`, which validation holds; nothing else asks for the two as long as nothing is compacted.
    pub min_compaction_lag_ms: i64,
    pub max_compaction_lag_ms: i64,
}

impl TopicConfig {
    /// What holds for a topic with these overrides on this broker.
    ///
    /// Values that do not parse, which validation does not let in, are passed over for the next fallback.
    pub fn resolve(broker: BrokerConfigs<'_>, overrides: &Overrides) -> TopicConfig {
        let values = Values { broker, overrides };
        let policy = values.text("cleanup.policy");
        let cleanup_delete = elements(policy).any(|element| element == "delete");
        let unless_negative = |name| u64::try_from(values.long(name)).ok().filter(|_| cleanup_delete);
        TopicConfig {
            cleanup_delete,
            cleanup_compact: elements(policy).any(|element| element == "compact"),
            retention_ms: unless_negative("retention.ms"),
            retention_bytes: unless_negative("retention.bytes"),
            segment_bytes: values.size("segment.bytes"),
            segment_ms: values.duration("segment.ms"),
            file_delete_delay_ms: values.duration("file.delete.delay.ms"),
            index_interval_bytes: values.size("index.interval.bytes"),
            max_message_bytes: values.size("max.message.bytes"),
            log_append_time: values.text("message.timestamp.type") == "LogAppendTime",
            timestamp_before_max_ms: values.long("message.timestamp.before.max.ms"),
            timestamp_after_max_ms: values.long("message.timestamp.after.max.ms"),
            flush_messages: values.long("flush.messages"),
            flush_ms: values.long("flush.ms"),
            min_compaction_lag_ms: values.long("min.compaction.lag.ms"),
            max_compaction_lag_ms: values.long("max.compaction.lag.ms"),
        }
    }
}

fn number<T: FromStr>(setting: &Setting<'_>) -> Option<T> {
    setting.value.trim().parse().ok()
}

impl Setting<'_> {
    /// The value in the unit of the key that was asked for. A negative one means "no bound" in every unit.
    pub(super) fn long(&self) -> Option<i64> {
        let value: i64 = number(self)?;
        match self.factor {
            1 => Some(value),
            _ if value < 0 => Some(-1),
            factor => Some(value.saturating_mul(factor)),
        }
    }

    /// The value as the key that was asked for would show it.
    pub(super) fn shown(&self) -> String {
        if self.factor == 1 { self.value.to_owned() } else { self.long().unwrap_or_default().to_string() }
    }
}

struct Values<'a> {
    broker: BrokerConfigs<'a>,
    overrides: &'a Overrides,
}

impl<'a> Values<'a> {
    fn first<T>(&self, name: &str, parse: impl FnMut(Setting<'a>) -> Option<T>) -> T {
        let key = topic_key(name).expect("callers ask for keys of the table");
        topic_settings(key, self.broker, self.overrides).find_map(parse).expect("every default parses")
    }

    fn long(&self, name: &str) -> i64 {
        self.first(name, |setting| setting.long())
    }

    fn size(&self, name: &str) -> u32 {
        self.first(name, |setting| u32::try_from(setting.long()?).ok())
    }

    fn duration(&self, name: &str) -> u64 {
        self.first(name, |setting| u64::try_from(setting.long()?).ok())
    }

    fn text(&self, name: &str) -> &'a str {
        self.first(name, |setting| Some(setting.value.trim()))
    }
}
