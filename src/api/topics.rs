//! CreateTopics (key 19): v2–v7. DeleteTopics (key 20): v1–v6. CreatePartitions (key 37): v0–v3.
//! CreateTopics: v4 the broker's defaults (KIP-464) · v5 flexible, what was made is in the reply (KIP-525) · v7 topic ids (KIP-516)
//! DeleteTopics: v3 TOPIC_DELETION_DISABLED · v4 flexible · v5 messages · v6 topics by id (KIP-516)
//! CreatePartitions (KIP-195): v2 flexible
//!
//! `cluster::controller` decides; here requests and replies are translated. Each item has a result of its own.

use super::control::{self, wire_error, wire_outcome};
use super::dispatch::Context;
use super::reply::Reply;
use super::work::Start;
use crate::base::error::ErrorCode;
use crate::base::ids::{NodeId, TopicId};
use crate::cluster::configs::{BrokerConfigs, Described, describe_topic};
use crate::cluster::controller::{CreatedTopic, Refusal};
use crate::cluster::image::node_of;
use crate::ports::Disk;
use crate::protocol::messages::create_partitions::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreatePartitionsTopic, CreatePartitionsTopicResult,
};
use crate::protocol::messages::create_topics::{
    CreatableTopic, CreatableTopicConfigs, CreatableTopicResult, CreateTopicsRequest, CreateTopicsResponse,
};
use crate::protocol::messages::delete_topics::{DeletableTopicResult, DeleteTopicsRequest, DeleteTopicsResponse};
use crate::shard::control::{Control, Controlled, PartitionsWanted, TopicNamed, TopicWanted};
use std::borrow::Cow;
use std::collections::BTreeSet;

/// From this version on a reply to CreateTopics shows the topic's configuration.
const CONFIGS_SHOWN_FROM: i16 = 5;
/// From this version on a client knows TOPIC_DELETION_DISABLED.
const DELETION_DISABLED_FROM: i16 = 3;

/// CreateTopics.
pub fn create<D: Disk>(cx: &Context<'_, D>, request: &CreateTopicsRequest<'_>, version: i16) -> Start<D> {
    let topics: Vec<TopicWanted> = request.topics.iter().map(topic_wanted).collect();
    let names: BTreeSet<String> = topics.iter().map(|topic| topic.name.clone()).collect();
    let correlation_id = cx.correlation_id;
    let control = Control::CreateTopics { topics, validate_only: request.validate_only };
    control::ask(control, move |controlled, shard| {
        let results = match controlled {
            Controlled::Created(results) => results,
            Controlled::Failed(refusal) => names.into_iter().map(|name| (name, Err(refusal.clone()))).collect(),
            other => unreachable!("topics were to be created, not {other:?}"),
        };
        let broker = shard.broker_configs();
        let topics = results.iter().map(|(name, result)| created_result(name, result, broker, version)).collect();
        let response = CreateTopicsResponse { topics, ..Default::default() };
        Reply::encode(correlation_id, version, &response)
    })
}

/// The brokers behind the node ids that clients know.
fn nodes(ids: &[i32]) -> Vec<NodeId> {
    ids.iter().map(|&id| node_of(NodeId(id))).collect()
}

fn topic_wanted(topic: &CreatableTopic<'_>) -> TopicWanted {
    TopicWanted {
        name: topic.name.to_owned(),
        partition_count: topic.num_partitions,
        replication_factor: topic.replication_factor,
        assignments: topic.assignments.iter().map(|part| (part.partition_index, nodes(&part.broker_ids))).collect(),
        configs: topic.configs.iter().map(|config| (config.name.to_owned(), config.value.map(str::to_owned))).collect(),
    }
}

fn created_result<'a>(
    name: &'a str,
    result: &'a Result<CreatedTopic, Refusal>,
    broker: BrokerConfigs<'_>,
    version: i16,
) -> CreatableTopicResult<'a> {
    match result {
        Err(refusal) => {
            let (error_code, error_message) = wire_error(refusal);
            CreatableTopicResult { name, error_code, error_message, configs: Some(vec![]), ..Default::default() }
        }
        Ok(created) => {
            let described = match version {
                CONFIGS_SHOWN_FROM.. => describe_topic(broker, &created.configs),
                _ => vec![],
            };
            CreatableTopicResult {
                name,
                topic_id: created.id,
                num_partitions: created.partition_count,
                replication_factor: created.replication_factor,
                configs: Some(described.into_iter().map(shown_config).collect()),
                ..Default::default()
            }
        }
    }
}

fn shown_config(described: Described) -> CreatableTopicConfigs<'static> {
    CreatableTopicConfigs {
        name: described.name,
        read_only: described.read_only,
        config_source: described.source as i8,
        is_sensitive: described.is_sensitive(),
        value: described.value.map(Cow::Owned),
    }
}

/// A topic that DeleteTopics names; later what became of it.
struct Doomed {
    name: Option<String>,
    id: TopicId,
    refusal: Option<Refusal>,
}

impl Doomed {
    fn new(name: Option<&str>, id: TopicId) -> Doomed {
        let refusal = |message: &str| Some(Refusal { code: ErrorCode::InvalidRequest, message: message.to_owned() });
        let refusal = match (name, id) {
            (None, TopicId::ZERO) => refusal("A topic is named neither by name nor by id."),
            (Some(_), id) if id != TopicId::ZERO => {
                refusal("A topic is named by name and by id: one of them is enough.")
            }
            _ => None,
        };
        Doomed { name: name.map(str::to_owned), id, refusal }
    }

    /// What the controller is asked for.
    fn named(&self) -> TopicNamed {
        match &self.name {
            Some(name) => TopicNamed::Name(name.clone()),
            None => TopicNamed::Id(self.id),
        }
    }

    fn take(&mut self, outcome: Result<(String, TopicId), Refusal>) {
        match outcome {
            Ok((name, id)) => (self.name, self.id) = (Some(name), id),
            Err(refusal) => self.refusal = Some(refusal),
        }
    }

    fn result(&self, version: i16) -> DeletableTopicResult<'_> {
        let (error_code, error_message) = match &self.refusal {
            Some(refusal) if refusal.code == ErrorCode::TopicDeletionDisabled && version < DELETION_DISABLED_FROM => {
                (ErrorCode::InvalidRequest.code(), None)
            }
            Some(refusal) => wire_error(refusal),
            None => (ErrorCode::None.code(), None),
        };
        DeletableTopicResult { name: self.name.as_deref(), topic_id: self.id, error_code, error_message }
    }
}

/// DeleteTopics.
pub fn delete<D: Disk>(cx: &Context<'_, D>, request: &DeleteTopicsRequest<'_>, version: i16) -> Start<D> {
    let by_name = request.topic_names.iter().map(|name| Doomed::new(Some(name), TopicId::ZERO));
    let by_either = request.topics.iter().map(|topic| Doomed::new(topic.name, topic.topic_id));
    let mut doomed: Vec<Doomed> = by_name.chain(by_either).collect();
    let named: Vec<TopicNamed> = doomed.iter().filter(|topic| topic.refusal.is_none()).map(Doomed::named).collect();
    let correlation_id = cx.correlation_id;
    control::ask(Control::DeleteTopics(named), move |controlled, _| {
        let asked = doomed.iter_mut().filter(|topic| topic.refusal.is_none());
        match controlled {
            Controlled::Deleted(outcomes) => asked.zip(outcomes).for_each(|(topic, outcome)| topic.take(outcome)),
            Controlled::Failed(refusal) => asked.for_each(|topic| topic.take(Err(refusal.clone()))),
            other => unreachable!("topics were to be deleted, not {other:?}"),
        }
        let responses = doomed.iter().map(|topic| topic.result(version)).collect();
        let response = DeleteTopicsResponse { responses, ..Default::default() };
        Reply::encode(correlation_id, version, &response)
    })
}

/// CreatePartitions.
pub fn create_partitions<D: Disk>(
    cx: &Context<'_, D>,
    request: &CreatePartitionsRequest<'_>,
    version: i16,
) -> Start<D> {
    let names: Vec<String> = request.topics.iter().map(|topic| topic.name.to_owned()).collect();
    let topics = request.topics.iter().map(partitions_wanted).collect();
    let correlation_id = cx.correlation_id;
    let control = Control::CreatePartitions { topics, validate_only: request.validate_only };
    control::ask(control, move |controlled, _| {
        let outcomes = control::each(controlled, names.len());
        let results = names.iter().zip(&outcomes).map(|(name, outcome)| {
            let (error_code, error_message) = wire_outcome(outcome);
            CreatePartitionsTopicResult { name, error_code, error_message }
        });
        let response = CreatePartitionsResponse { results: results.collect(), ..Default::default() };
        Reply::encode(correlation_id, version, &response)
    })
}

fn partitions_wanted(topic: &CreatePartitionsTopic<'_>) -> PartitionsWanted {
    let assignments = topic.assignments.as_ref();
    PartitionsWanted {
        name: topic.name.to_owned(),
        partition_count: topic.count,
        assignments: assignments.map(|parts| parts.iter().map(|part| nodes(&part.broker_ids)).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: TopicId = TopicId([7; 16]);

    #[test]
    fn a_doomed_topic_is_named_in_one_way() {
        for (name, id, valid) in
            [(Some("t"), TopicId::ZERO, true), (None, ID, true), (Some("t"), ID, false), (None, TopicId::ZERO, false)]
        {
            let doomed = Doomed::new(name, id);
            assert_eq!(doomed.refusal.is_none(), valid, "{name:?} {id}");
            let code = doomed.result(6).error_code;
            assert_eq!(code == ErrorCode::InvalidRequest.code(), !valid, "{name:?} {id}");
        }
    }

    #[test]
    fn a_topic_deleted_by_id_is_told_with_its_name() {
        let mut doomed = Doomed::new(None, ID);
        doomed.take(Ok(("t".to_owned(), ID)));
        let result = doomed.result(6);
        assert_eq!((result.name, result.topic_id, result.error_code), (Some("t"), ID, 0));
    }

    #[test]
    fn old_clients_get_a_code_they_know_where_deletion_is_disabled() {
        let mut doomed = Doomed::new(Some("t"), TopicId::ZERO);
        doomed.take(Err(Refusal { code: ErrorCode::TopicDeletionDisabled, message: "no".to_owned() }));
        for (version, code) in [(1, ErrorCode::InvalidRequest), (3, ErrorCode::TopicDeletionDisabled)] {
            assert_eq!(doomed.result(version).error_code, code.code(), "v{version}");
        }
    }

    #[test]
    fn what_was_made_is_shown_with_its_whole_configuration() {
        let none = crate::cluster::configs::Overrides::new();
        let broker = BrokerConfigs { node: &none, cluster: &none, statics: &none };
        let configs = [("retention.ms".to_owned(), "5".to_owned())].into();
        let made = Ok(CreatedTopic { id: ID, partition_count: 3, replication_factor: 1, configs });
        let result = created_result("t", &made, broker, 7);
        assert_eq!((result.topic_id, result.num_partitions, result.replication_factor), (ID, 3, 1));
        let shown = result.configs.expect("shown from v5");
        let retention = shown.iter().find(|config| config.name == "retention.ms").expect("a key of topics");
        assert_eq!((retention.value.as_deref(), retention.config_source), (Some("5"), 1));
        assert!(shown.iter().any(|config| config.name == "segment.ms" && config.config_source == 5));
        assert!(created_result("t", &made, broker, 4).configs.is_some_and(|configs| configs.is_empty()));
    }
}
