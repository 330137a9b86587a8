//! Configurations of topics and brokers: which keys there are, which value holds, and where it comes from.
//!
//! Stores nothing: overrides are in `cluster::image`, the process's own settings come from `cli`.

mod broker_keys;
mod describe;
mod key;
mod topic_config;
mod topic_keys;

pub use broker_keys::BROKER_KEYS;
pub use describe::{Described, DescribedSynonym, describe_broker, describe_topic};
pub use key::{Check, ConfigKey, Served, Synonym, Update, ValueType, elements, parse_bool};
pub use topic_config::TopicConfig;
pub use topic_keys::TOPIC_KEYS;

use std::collections::BTreeMap;

/// Values that were set, by key.
pub type Overrides = BTreeMap<String, String>;

/// Where a value comes from, with Kafka's number for DescribeConfigs (`DescribeConfigsResponse.ConfigSource`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(i8)]
pub enum ConfigSource {
    Topic = 1,
    /// Set for this broker while it runs.
    DynamicBroker = 2,
    /// Set for all brokers while they run.
    DynamicDefaultBroker = 3,
    /// Given to the process at its start.
    StaticBroker = 4,
    Default = 5,
}

/// All that was set for one broker, the nearest first.
#[derive(Clone, Copy, Debug)]
pub struct BrokerConfigs<'a> {
    pub node: &'a Overrides,
    pub cluster: &'a Overrides,
    pub statics: &'a Overrides,
}

/// One place where a key has a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Setting<'a> {
    /// The key under which it is set: for a topic's key perhaps a broker's.
    name: &'a str,
    value: &'a str,
    source: ConfigSource,
    /// From the unit of `name` to that of the key asked for.
    factor: i64,
}

impl<'a> BrokerConfigs<'a> {
    fn levels(&self) -> [(&'a Overrides, ConfigSource); 3] {
        [
            (self.node, ConfigSource::DynamicBroker),
            (self.cluster, ConfigSource::DynamicDefaultBroker),
            (self.statics, ConfigSource::StaticBroker),
        ]
    }

    /// Where any of `names` has a value: the nearest level first, within a level in the order of `names`, the default last.
    fn settings(self, names: &'static [Synonym]) -> impl Iterator<Item = Setting<'a>> {
        let set = self.levels().into_iter().flat_map(move |(level, source)| {
            names.iter().filter_map(move |&(name, factor)| {
                level.get(name).map(|value| Setting { name, value: value.as_str(), source, factor })
            })
        });
        let defaults = names.iter().filter_map(|&(name, factor)| {
            let value = broker_key(name).expect("synonyms are broker keys").default?;
            Some(Setting { name, value, source: ConfigSource::Default, factor })
        });
        set.chain(defaults)
    }

    /// The value of a broker's key that holds here; `None` where it is not set and has no default. The key must exist.
    pub fn value(&self, name: &str) -> Option<&'a str> {
        let key = broker_key(name).expect("callers ask for keys of the table");
        self.levels().into_iter().find_map(|(level, _)| level.get(name).map(String::as_str)).or(key.default)
    }

    /// As `value`, for a key of a number type with a default. A value that is no number, which validation does not let in,
    /// counts as the default.
    pub fn number(&self, name: &str) -> i64 {
        let default = broker_key(name).and_then(|key| key.default).expect("the key has a default");
        let parsed = self.value(name).and_then(|value| value.trim().parse().ok());
        parsed.or_else(|| default.parse().ok()).expect("the key is a number")
    }

    /// As `number`, for a key that is true or false.
    pub fn flag(&self, name: &str) -> bool {
        let default = broker_key(name).and_then(|key| key.default).expect("the key has a default");
        self.value(name).and_then(parse_bool).or_else(|| parse_bool(default)).expect("the key is true or false")
    }
}

/// Where a topic's key has a value: set for the topic, then what its broker has for it, its default last.
fn topic_settings<'a>(
    key: &'static ConfigKey,
    broker: BrokerConfigs<'a>,
    overrides: &'a Overrides,
) -> impl Iterator<Item = Setting<'a>> {
    let own =
        overrides.get(key.name).map(|value| Setting { name: key.name, value, source: ConfigSource::Topic, factor: 1 });
    let default = key.default.filter(|_| key.synonyms.is_empty()).map(|value| Setting {
        name: key.name,
        value,
        source: ConfigSource::Default,
        factor: 1,
    });
    own.into_iter().chain(broker.settings(key.synonyms)).chain(default)
}

/// The topic key of this name.
pub fn topic_key(name: &str) -> Option<&'static ConfigKey> {
    find(TOPIC_KEYS, name)
}

/// The broker key of this name.
pub fn broker_key(name: &str) -> Option<&'static ConfigKey> {
    find(BROKER_KEYS, name)
}

fn find(keys: &'static [ConfigKey], name: &str) -> Option<&'static ConfigKey> {
    keys.binary_search_by_key(&name, |key| key.name).ok().map(|index| &keys[index])
}

fn known(keys: &'static [ConfigKey], of: &str, name: &str) -> Result<&'static ConfigKey, String> {
    find(keys, name).ok_or_else(|| {
        let shown: String = name.chars().take(100).collect();
        format!("Unknown {of} config name: {shown}. The nearest known name is {}.", key::nearest(keys, name))
    })
}

/// Checks all that a topic would have set, each key and how they go together.
///
/// # Errors
/// The first thing wrong, in words for the one who asked.
pub fn validate_topic(broker: BrokerConfigs<'_>, overrides: &Overrides) -> Result<(), String> {
    for (name, value) in overrides {
        known(TOPIC_KEYS, "topic", name)?.validate(value)?;
    }
    let config = TopicConfig::resolve(broker, overrides);
    if config.min_compaction_lag_ms > config.max_compaction_lag_ms {
        return Err(format!(
            "min.compaction.lag.ms ({}) is larger than max.compaction.lag.ms ({}).",
            config.min_compaction_lag_ms, config.max_compaction_lag_ms
        ));
    }
    Ok(())
}

/// Checks a value for a topic's key that somebody names.
///
/// # Errors
/// Unknown key (with the nearest known one) or a value it does not take.
pub fn known_topic_key(name: &str) -> Result<&'static ConfigKey, String> {
    known(TOPIC_KEYS, "topic", name)
}

/// The broker key of this name, which may change while the broker runs.
///
/// # Errors
/// Unknown key (with the nearest known one), or one that is read only.
pub fn known_dynamic_broker_key(name: &str) -> Result<&'static ConfigKey, String> {
    let key = known(BROKER_KEYS, "broker", name)?;
    match key.update {
        Update::Dynamic => Ok(key),
        Update::ReadOnly => Err(format!("{name} is read only: it is set where the broker is started.")),
    }
}

#[cfg(test)]
mod tests;
