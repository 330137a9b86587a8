//! Configurations as DescribeConfigs shows them: every key, the value that holds, and all places that have one.
//!
//! No key of Ringlog's holds a secret; passwords have an API of their own (SCRAM) and never come here.

use super::{
    BROKER_KEYS, BrokerConfigs, ConfigKey, ConfigSource, Overrides, Setting, TOPIC_KEYS, Update, ValueType,
    topic_settings,
};

/// One key as shown to a client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Described {
    pub name: &'static str,
    /// `None` where it is not set and has no default.
    pub value: Option<String>,
    pub source: ConfigSource,
    pub read_only: bool,
    pub value_type: ValueType,
    pub documentation: &'static str,
    /// All places that have a value for it; the first one holds.
    pub synonyms: Vec<DescribedSynonym>,
}

impl Described {
    pub fn is_default(&self) -> bool {
        self.source == ConfigSource::Default
    }

    pub fn is_sensitive(&self) -> bool {
        false
    }
}

/// One place that has a value for a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DescribedSynonym {
    /// The key under which it is set there, in that key's unit.
    pub name: String,
    pub value: String,
    pub source: ConfigSource,
}

/// All keys of a topic with these overrides, by name.
pub fn describe_topic(broker: BrokerConfigs<'_>, overrides: &Overrides) -> Vec<Described> {
    TOPIC_KEYS.iter().map(|key| describe(key, topic_settings(key, broker, overrides))).collect()
}

/// All keys of a broker, by name.
pub fn describe_broker(broker: BrokerConfigs<'_>) -> Vec<Described> {
    let settings = |key: &'static ConfigKey| {
        let set = broker.levels().into_iter().filter_map(|(level, source)| {
            let value = level.get(key.name)?;
            Some(Setting { name: key.name, value, source, factor: 1 })
        });
        let default =
            key.default.map(|value| Setting { name: key.name, value, source: ConfigSource::Default, factor: 1 });
        set.chain(default)
    };
    BROKER_KEYS.iter().map(|key| describe(key, settings(key))).collect()
}

fn describe<'a>(key: &'static ConfigKey, settings: impl Iterator<Item = Setting<'a>>) -> Described {
    let settings: Vec<Setting<'_>> = settings.collect();
    let holds = settings.first();
    Described {
        name: key.name,
        value: holds.map(Setting::shown),
        source: holds.map_or(ConfigSource::Default, |setting| setting.source),
        read_only: key.update == Update::ReadOnly,
        value_type: key.value_type,
        documentation: key.documentation,
        synonyms: settings
            .iter()
            .map(|setting| DescribedSynonym {
                name: setting.name.to_owned(),
                value: setting.value.to_owned(),
                source: setting.source,
            })
            .collect(),
    }
}
