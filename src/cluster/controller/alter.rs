//! Changing configurations of topics and brokers while they run.
//!
//! Source: KIP-339 (incremental), Kafka `ConfigurationControlManager`.

use super::{Controller, Decision, Refusal};
use crate::base::error::ErrorCode;
use crate::base::ids::NodeId;
use crate::cluster::commands::{Command, ConfigChange};
use crate::cluster::configs::{self, BrokerConfigs, ConfigKey, Overrides, ValueType, describe_topic, elements};
use std::collections::{BTreeMap, BTreeSet};

/// What has a configuration.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum ConfigResource<'a> {
    Topic(&'a str),
    /// One broker, or all where it is `None`.
    Broker(Option<NodeId>),
}

/// What IncrementalAlterConfigs does with a key (`AlterConfigOp.OpType`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConfigOp {
    Set,
    /// Back to what it falls back to.
    Delete,
    /// Adds elements to a list that it lacks.
    Append,
    /// Takes elements from a list.
    Subtract,
}

impl ConfigOp {
    /// The operation of this number on the wire.
    pub fn from_wire(number: i8) -> Option<ConfigOp> {
        match number {
            0 => Some(ConfigOp::Set),
            1 => Some(ConfigOp::Delete),
            2 => Some(ConfigOp::Append),
            3 => Some(ConfigOp::Subtract),
            _ => None,
        }
    }
}

/// Changes to one resource: key, operation, value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AlterConfigs<'a> {
    pub resource: ConfigResource<'a>,
    pub changes: Vec<(&'a str, ConfigOp, Option<&'a str>)>,
}

/// All that shall be set for one resource: keys and values.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReplaceConfigs<'a> {
    pub resource: ConfigResource<'a>,
    pub configs: Vec<(&'a str, Option<&'a str>)>,
}

impl Controller<'_> {
    /// IncrementalAlterConfigs. Answers are in the order of the request. A resource is changed as a whole or not at all.
    pub fn alter_configs(&self, requests: &[AlterConfigs<'_>], validate_only: bool) -> Decision<Result<(), Refusal>> {
        let mut times: BTreeMap<ConfigResource<'_>, u32> = BTreeMap::new();
        for request in requests {
            *times.entry(request.resource).or_default() += 1;
        }
        let mut commands = Vec::new();
        let answers = requests
            .iter()
            .map(|request| {
                if times[&request.resource] > 1 {
                    return Err(invalid_request("A resource may appear only once."));
                }
                let command = self.alter_one(request)?;
                commands.extend(command.filter(|_| !validate_only));
                Ok(())
            })
            .collect();
        Decision { commands, answers }
    }

    /// The older AlterConfigs: the keys given are all that shall be set, any others are taken back.
    pub fn replace_configs(
        &self,
        requests: &[ReplaceConfigs<'_>],
        validate_only: bool,
    ) -> Decision<Result<(), Refusal>> {
        let incremental: Vec<AlterConfigs<'_>> = requests.iter().map(|request| self.as_changes(request)).collect();
        self.alter_configs(&incremental, validate_only)
    }

    fn as_changes<'r>(&'r self, request: &ReplaceConfigs<'r>) -> AlterConfigs<'r> {
        let named: BTreeSet<&str> = request.configs.iter().map(|&(name, _)| name).collect();
        let set = request.configs.iter().map(|&(name, value)| (name, ConfigOp::Set, value));
        let current = self.overrides(request.resource).into_iter().flat_map(|overrides| overrides.keys());
        let taken_back =
            current.map(String::as_str).filter(|name| !named.contains(name)).map(|name| (name, ConfigOp::Delete, None));
        AlterConfigs { resource: request.resource, changes: set.chain(taken_back).collect() }
    }

    fn overrides(&self, resource: ConfigResource<'_>) -> Option<&Overrides> {
        match resource {
            ConfigResource::Topic(name) => self.image.topic_by_name(name).map(|topic| &topic.configs),
            ConfigResource::Broker(node) => Some(self.image.broker_overrides(node)),
        }
    }

    /// `None` where all is as it was.
    fn alter_one(&self, request: &AlterConfigs<'_>) -> Result<Option<Command>, Refusal> {
        self.check_resource(request.resource)?;
        let current = self.overrides(request.resource).expect("the resource was found");
        let mut named = BTreeSet::new();
        let mut changes: Vec<ConfigChange> = Vec::new();
        for &(name, op, value) in &request.changes {
            if !named.insert(name) {
                return Err(invalid_request(&format!("{name} is changed twice.")));
            }
            let key = match request.resource {
                ConfigResource::Topic(_) => configs::known_topic_key(name),
                ConfigResource::Broker(_) => configs::known_dynamic_broker_key(name),
            };
            let key = key.map_err(invalid_config)?;
            let changed = self.changed_value(request.resource, key, op, value)?;
            if let Some(value) = &changed {
                key.validate(value).map_err(invalid_config)?;
            }
            if changed.as_ref() != current.get(name) {
                changes.push((key.name.to_owned(), changed));
            }
        }
        if changes.is_empty() {
            return Ok(None);
        }
        match request.resource {
            ConfigResource::Topic(name) => self.change_topic(name, current, changes).map(Some),
            ConfigResource::Broker(node) => Ok(Some(Command::SetBrokerConfigs { node, changes })),
        }
    }

    fn check_resource(&self, resource: ConfigResource<'_>) -> Result<(), Refusal> {
        match resource {
            ConfigResource::Topic(name) if self.image.topic_by_name(name).is_none() => {
                Err(Refusal::new(ErrorCode::UnknownTopicOrPartition, "There is no topic of this name."))
            }
            ConfigResource::Broker(Some(node)) if self.image.broker(node).is_none() => {
                Err(Refusal::new(ErrorCode::BrokerIdNotRegistered, format!("Broker {} is not registered.", node.0)))
            }
            _ => Ok(()),
        }
    }

    /// What a key shall be set to; `None`: not at all.
    fn changed_value(
        &self,
        resource: ConfigResource<'_>,
        key: &'static ConfigKey,
        op: ConfigOp,
        value: Option<&str>,
    ) -> Result<Option<String>, Refusal> {
        if op == ConfigOp::Delete {
            return Ok(None);
        }
        let value = value.ok_or_else(|| invalid_request(&format!("{} has no value.", key.name)))?;
        if op == ConfigOp::Set {
            return Ok(Some(value.to_owned()));
        }
        if key.value_type != ValueType::List {
            return Err(invalid_config(format!(
                "{} is no list, so nothing is added to it or taken from it.",
                key.name
            )));
        }
        let holds = self.value_that_holds(resource, key);
        let mut list: Vec<&str> = elements(&holds).collect();
        for element in elements(value) {
            list.retain(|other| op == ConfigOp::Append || *other != element);
            if op == ConfigOp::Append && !list.contains(&element) {
                list.push(element);
            }
        }
        Ok(Some(list.join(",")))
    }

    fn value_that_holds(&self, resource: ConfigResource<'_>, key: &'static ConfigKey) -> String {
        match resource {
            ConfigResource::Topic(name) => {
                let topic = self.image.topic_by_name(name).expect("the resource was found");
                let described = describe_topic(self.broker, &topic.configs);
                described.into_iter().find(|entry| entry.name == key.name).and_then(|entry| entry.value)
            }
            ConfigResource::Broker(node) => {
                let [node, cluster] = [node, None].map(|node| self.image.broker_overrides(node));
                let levels = BrokerConfigs { node, cluster, statics: self.broker.statics };
                levels.value(key.name).map(str::to_owned)
            }
        }
        .unwrap_or_default()
    }

    fn change_topic(&self, name: &str, current: &Overrides, changes: Vec<ConfigChange>) -> Result<Command, Refusal> {
        let mut after = current.clone();
        for (name, value) in &changes {
            match value {
                Some(value) => after.insert(name.clone(), value.clone()),
                None => after.remove(name),
            };
        }
        configs::validate_topic(self.broker, &after).map_err(invalid_config)?;
        let id = self.image.topic_by_name(name).expect("the resource was found").id;
        Ok(Command::SetTopicConfigs { id, changes })
    }
}

fn invalid_request(message: &str) -> Refusal {
    Refusal::new(ErrorCode::InvalidRequest, message)
}

fn invalid_config(message: impl Into<String>) -> Refusal {
    Refusal::new(ErrorCode::InvalidConfig, message)
}
