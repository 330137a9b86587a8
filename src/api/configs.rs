//! DescribeConfigs (key 32): v1–v4. AlterConfigs (key 33): v0–v2. IncrementalAlterConfigs (key 44): v0–v1 (KIP-339).
//! DescribeConfigs: v1 synonyms (KIP-226) · v3 types and documentation (KIP-569) · v4 flexible
//! AlterConfigs: v2 flexible. IncrementalAlterConfigs: v1 flexible
//!
//! Topics and brokers have configurations; loggers, client metrics and groups (KIP-412, KIP-714, KIP-1043) have none here. A
//! broker answers for itself alone: its resource is its own node id, or "" for what holds for all brokers.

use super::control::{self, wire_error, wire_outcome};
use super::dispatch::Context;
use super::reply::Reply;
use super::work::Start;
use crate::base::error::ErrorCode;
use crate::base::ids::NodeId;
use crate::cluster::configs::{
    BrokerConfigs, ConfigSource, Described, DescribedSynonym, Overrides, describe_broker, describe_topic,
};
use crate::cluster::controller::{ConfigOp, Refusal};
use crate::cluster::image::{Image, node_of};
use crate::cluster::names;
use crate::ports::Disk;
use crate::protocol::messages::describe_configs::{
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResourceResult, DescribeConfigsResponse,
    DescribeConfigsResult, DescribeConfigsSynonym,
};
use crate::protocol::messages::{alter_configs, incremental_alter_configs};
use crate::shard::control::{Control, Resource};
use std::borrow::Cow;

const TOPIC: i8 = 2;
const BROKER: i8 = 4;

static NOTHING: Overrides = Overrides::new();

/// Where configurations are described from: this core's image and what its process was started with.
#[derive(Clone, Copy)]
struct View<'a> {
    image: &'a Image,
    node: NodeId,
    statics: &'a Overrides,
}

/// DescribeConfigs.
pub fn describe<D: Disk>(cx: &Context<'_, D>, request: &DescribeConfigsRequest<'_>, version: i16) -> Start<D> {
    let view = View { image: cx.shard.image(), node: cx.shard.node(), statics: cx.shard.statics() };
    let described: Vec<_> = request.resources.iter().map(|resource| view.describe(resource)).collect();
    let results = request.resources.iter().zip(&described).map(|(resource, described)| {
        let (resource_type, resource_name) = (resource.resource_type, resource.resource_name);
        let (error_code, error_message) = described.as_ref().err().map_or((0, None), wire_error);
        let configs = described.iter().flatten().map(|entry| shown(entry, request)).collect();
        DescribeConfigsResult { error_code, error_message, resource_type, resource_name, configs }
    });
    let response = DescribeConfigsResponse { results: results.collect(), ..Default::default() };
    Start::Reply(Reply::encode(cx.correlation_id, version, &response))
}

impl View<'_> {
    /// The keys that are asked for; all where none is named.
    fn describe(&self, resource: &DescribeConfigsResource<'_>) -> Result<Vec<Described>, Refusal> {
        let mut described = match (resource.resource_type, resource.resource_name) {
            (TOPIC, name) => self.topic(name)?,
            (BROKER, "") => self.all_brokers(),
            (BROKER, name) => {
                own_node(name, self.node)?;
                describe_broker(self.image.broker_configs(self.node, self.statics))
            }
            (other, _) => return Err(invalid_request(format!("Unsupported resource type: {}", type_name(other)))),
        };
        // An empty list asks for all, as null does (`ConfigHelperUtils.createResponseConfig`).
        if let Some(keys) = resource.configuration_keys.as_ref().filter(|keys| !keys.is_empty()) {
            described.retain(|entry| keys.contains(&entry.name));
        }
        Ok(described)
    }

    fn topic(&self, name: &str) -> Result<Vec<Described>, Refusal> {
        names::validate(name).map_err(|message| Refusal { code: ErrorCode::InvalidTopic, message })?;
        let topic = self.image.topic_by_name(name).ok_or_else(|| Refusal {
            code: ErrorCode::UnknownTopicOrPartition,
            message: "There is no topic of this name.".to_owned(),
        })?;
        Ok(describe_topic(self.image.broker_configs(self.node, self.statics), &topic.configs))
    }

    /// What was set for all brokers, and nothing else: neither defaults nor what a single broker was started with.
    fn all_brokers(&self) -> Vec<Described> {
        let cluster = self.image.broker_overrides(None);
        let mut described = describe_broker(BrokerConfigs { node: &NOTHING, cluster, statics: &NOTHING });
        described.retain(|entry| entry.source == ConfigSource::DynamicDefaultBroker);
        for entry in &mut described {
            entry.synonyms.retain(|synonym| synonym.source == ConfigSource::DynamicDefaultBroker);
        }
        described
    }
}

fn shown<'a>(entry: &'a Described, request: &DescribeConfigsRequest<'_>) -> DescribeConfigsResourceResult<'a> {
    let synonym = |synonym: &'a DescribedSynonym| DescribeConfigsSynonym {
        name: &synonym.name,
        value: Some(Cow::Borrowed(&synonym.value)),
        source: synonym.source as i8,
    };
    let synonyms = if request.include_synonyms { &entry.synonyms[..] } else { &[] };
    DescribeConfigsResourceResult {
        name: entry.name,
        value: entry.value.as_deref().map(Cow::Borrowed),
        read_only: entry.read_only,
        config_source: entry.source as i8,
        is_sensitive: entry.is_sensitive(),
        synonyms: synonyms.iter().map(synonym).collect(),
        config_type: entry.value_type as i8,
        documentation: request.include_documentation.then_some(Cow::Borrowed(entry.documentation)),
    }
}

/// AlterConfigs.
pub fn replace<D: Disk>(
    cx: &Context<'_, D>,
    request: &alter_configs::AlterConfigsRequest<'_>,
    version: i16,
) -> Start<D> {
    let node = cx.shard.node();
    let wanted = request.resources.iter().map(|resource| {
        let configs = resource.configs.iter().map(|config| (config.name.to_owned(), config.value.map(str::to_owned)));
        Item::new(resource.resource_type, resource.resource_name, node, configs.collect())
    });
    let (items, resources) = split(wanted);
    let correlation_id = cx.correlation_id;
    let control = Control::ReplaceConfigs { resources, validate_only: request.validate_only };
    control::ask(control, move |controlled, _| {
        let outcomes = merge(&items, |count| control::each(controlled, count));
        let responses = items.iter().zip(&outcomes).map(|(item, outcome)| {
            let (error_code, error_message) = wire_outcome(outcome);
            let (resource_type, resource_name) = (item.resource_type, &*item.name);
            alter_configs::AlterConfigsResourceResponse { error_code, error_message, resource_type, resource_name }
        });
        let response = alter_configs::AlterConfigsResponse { responses: responses.collect(), ..Default::default() };
        Reply::encode(correlation_id, version, &response)
    })
}

/// IncrementalAlterConfigs.
pub fn alter<D: Disk>(
    cx: &Context<'_, D>,
    request: &incremental_alter_configs::IncrementalAlterConfigsRequest<'_>,
    version: i16,
) -> Start<D> {
    let node = cx.shard.node();
    let wanted = request.resources.iter().map(|resource| {
        let mut unknown = None;
        let configs = resource.configs.iter().filter_map(|config| {
            let op = ConfigOp::from_wire(config.config_operation);
            if op.is_none() {
                unknown = Some(config.config_operation);
            }
            Some((config.name.to_owned(), op?, config.value.map(str::to_owned)))
        });
        let configs = configs.collect();
        let item = Item::new(resource.resource_type, resource.resource_name, node, configs);
        match unknown {
            Some(op) => item.refused(invalid_request(format!("Unknown operations type {op}"))),
            None => item,
        }
    });
    let (items, resources) = split(wanted);
    let correlation_id = cx.correlation_id;
    let control = Control::AlterConfigs { resources, validate_only: request.validate_only };
    control::ask(control, move |controlled, _| {
        use incremental_alter_configs::{AlterConfigsResourceResponse, IncrementalAlterConfigsResponse};
        let outcomes = merge(&items, |count| control::each(controlled, count));
        let responses = items.iter().zip(&outcomes).map(|(item, outcome)| {
            let (error_code, error_message) = wire_outcome(outcome);
            let (resource_type, resource_name) = (item.resource_type, &*item.name);
            AlterConfigsResourceResponse { error_code, error_message, resource_type, resource_name }
        });
        let response = IncrementalAlterConfigsResponse { responses: responses.collect(), ..Default::default() };
        Reply::encode(correlation_id, version, &response)
    })
}

/// A resource whose configuration is to change: asked of the controller, or refused here.
struct Item<C> {
    resource_type: i8,
    name: String,
    wanted: Result<(Resource, Vec<C>), Refusal>,
}

impl<C> Item<C> {
    fn new(resource_type: i8, name: &str, node: NodeId, configs: Vec<C>) -> Item<C> {
        let wanted = resource(resource_type, name, node).map(|resource| (resource, configs));
        Item { resource_type, name: name.to_owned(), wanted }
    }

    fn refused(self, refusal: Refusal) -> Item<C> {
        Item { wanted: self.wanted.and(Err(refusal)), ..self }
    }
}

/// A resource as the reply names it.
struct Named {
    resource_type: i8,
    name: String,
    refusal: Option<Refusal>,
}

/// What the reply is to name, and of it what the controller is asked for.
fn split<C>(items: impl Iterator<Item = Item<C>>) -> (Vec<Named>, Vec<(Resource, Vec<C>)>) {
    let mut asked = Vec::new();
    let named = items.map(|Item { resource_type, name, wanted }| {
        let refusal = wanted.map(|wanted| asked.push(wanted)).err();
        Named { resource_type, name, refusal }
    });
    (named.collect(), asked)
}

/// One outcome for each resource; `outcomes` gives those of the ones that the controller was asked for, in order.
fn merge(named: &[Named], outcomes: impl FnOnce(usize) -> Vec<Result<(), Refusal>>) -> Vec<Result<(), Refusal>> {
    let asked = named.iter().filter(|item| item.refusal.is_none()).count();
    let mut outcomes = outcomes(asked).into_iter();
    let outcome = |item: &Named| match &item.refusal {
        Some(refusal) => Err(refusal.clone()),
        None => outcomes.next().expect("each has an outcome"),
    };
    named.iter().map(outcome).collect()
}

fn resource(resource_type: i8, name: &str, node: NodeId) -> Result<Resource, Refusal> {
    match (resource_type, name) {
        (TOPIC, "") => Err(invalid_request("There is no resource for the defaults of topics: set them on brokers.")),
        (TOPIC, name) => Ok(Resource::Topic(name.to_owned())),
        (BROKER, "") => Ok(Resource::Broker(None)),
        (BROKER, name) => own_node(name, node).map(|node| Resource::Broker(Some(node))),
        (other, _) => Err(invalid_request(format!("Unsupported resource type: {}", type_name(other)))),
    }
}

/// The name of a resource as this broker's node id.
fn own_node(name: &str, node: NodeId) -> Result<NodeId, Refusal> {
    let id: i32 =
        name.parse().map_err(|_| invalid_request(format!("Node id must be an integer, but it is: {name}")))?;
    if node_of(NodeId(id)) != node {
        let expected = node.0;
        let message = format!("Unexpected broker id, expected {expected} or empty string, but received {name}");
        return Err(invalid_request(message));
    }
    Ok(node)
}

/// Kafka's name of a resource type (`ConfigResource.Type`).
fn type_name(resource_type: i8) -> String {
    match resource_type {
        8 => "BROKER_LOGGER".to_owned(),
        16 => "CLIENT_METRICS".to_owned(),
        32 => "GROUP".to_owned(),
        other => other.to_string(),
    }
}

fn invalid_request(message: impl Into<String>) -> Refusal {
    Refusal { code: ErrorCode::InvalidRequest, message: message.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::commands::Command;

    const NODE: NodeId = NodeId(3);

    fn image(commands: &[Command]) -> Image {
        let mut image = Image::default();
        for command in commands {
            image.apply(command).expect("it follows");
        }
        image
    }

    fn changes(pairs: &[(&str, &str)]) -> Vec<(String, Option<String>)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), Some((*value).to_owned()))).collect()
    }

    fn asked<'a>(resource_type: i8, resource_name: &'a str, keys: &[&'a str]) -> DescribeConfigsResource<'a> {
        let configuration_keys = Some(keys.to_vec());
        DescribeConfigsResource { resource_type, resource_name, configuration_keys }
    }

    #[test]
    fn resources_are_topics_and_this_broker() {
        for (resource_type, name, valid) in [
            (2, "t", true),
            (2, "", false),
            (4, "3", true),
            (4, "", true),
            (4, "1", false),
            (4, "three", false),
            (8, "3", false),
            (16, "m", false),
            (32, "g", false),
            (0, "x", false),
            (-1, "x", false),
        ] {
            let found = resource(resource_type, name, NODE);
            assert_eq!(found.is_ok(), valid, "{resource_type} {name}");
            assert!(found.err().is_none_or(|refusal| refusal.code == ErrorCode::InvalidRequest));
        }
    }

    #[test]
    fn refusals_keep_their_places_between_outcomes() {
        let item = |name: &str| Item::new(TOPIC, name, NODE, vec![()]);
        let (named, asked) = split([item("a"), item(""), item("b")].into_iter());
        assert_eq!(asked.len(), 2);
        let second = Err(invalid_request("second"));
        let outcomes = merge(&named, |count| {
            assert_eq!(count, 2);
            vec![Ok(()), second.clone()]
        });
        assert_eq!((&outcomes[0], &outcomes[2]), (&Ok(()), &second));
        assert!(outcomes[1].is_err());
    }

    #[test]
    fn only_the_keys_named_are_described_and_none_named_means_all() {
        let (image, statics) = (image(&[]), Overrides::new());
        let view = View { image: &image, node: NODE, statics: &statics };
        let named = view.describe(&asked(BROKER, "3", &["num.partitions", "no.such.key"])).expect("its own");
        assert_eq!(named.iter().map(|entry| entry.name).collect::<Vec<_>>(), ["num.partitions"]);
        let all = view.describe(&DescribeConfigsResource { configuration_keys: None, ..asked(BROKER, "3", &[]) });
        assert_eq!(all, view.describe(&asked(BROKER, "3", &[])));
        assert!(all.is_ok_and(|all| all.len() > 10));
    }

    #[test]
    fn all_brokers_show_only_what_was_set_for_all() {
        let set = Command::SetBrokerConfigs { node: None, changes: changes(&[("log.retention.ms", "7")]) };
        let (image, statics) = (image(&[set]), [("num.partitions".to_owned(), "6".to_owned())].into());
        let view = View { image: &image, node: NODE, statics: &statics };
        let described = view.describe(&asked(BROKER, "", &[])).expect("all brokers");
        let [entry] = &described[..] else { panic!("one key was set") };
        assert_eq!((entry.name, entry.value.as_deref()), ("log.retention.ms", Some("7")));
        assert_eq!(entry.synonyms.len(), 1);
    }

    #[test]
    fn what_was_not_asked_for_is_not_shown() {
        let (image, statics) = (image(&[]), Overrides::new());
        let view = View { image: &image, node: NODE, statics: &statics };
        let entry = &view.describe(&asked(BROKER, "3", &["num.partitions"])).expect("its own")[0];
        for include in [false, true] {
            let request = DescribeConfigsRequest {
                include_synonyms: include,
                include_documentation: include,
                ..Default::default()
            };
            let shown = shown(entry, &request);
            assert_eq!((shown.documentation.is_some(), shown.synonyms.is_empty()), (include, !include));
        }
    }
}
