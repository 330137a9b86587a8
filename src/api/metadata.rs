//! Metadata (key 3): v0–v12.
//! v1 controller, internal topics · v4 auto creation can be declined · v7 leader epochs · v8 authorized operations (KIP-430; those of
//! the cluster up to v10) · v9 flexible · v10 topic ids (KIP-516) · v12 topics by id
//! Topics that are not there are made if the broker and the client allow it; the answer then shows them.

use super::dispatch::Context;
use super::operations;
use super::reply::Reply;
use super::work::{Start, Step, Work};
use crate::base::error::ErrorCode;
use crate::base::ids::{NodeId, TopicId};
use crate::cluster::image::{Image, Partition, Topic};
use crate::cluster::names;
use crate::ports::Disk;
use crate::protocol::messages::metadata::{
    MetadataRequest, MetadataResponse, MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use crate::shard::Shard;
use crate::shard::commands::{Answer, Command};
use crate::shard::control::{CONTROLLER_CORE, Control, Controlled, TopicWanted};
use std::collections::HashMap;

/// A topic as the request names it.
enum Asked {
    Name(String),
    Id(TopicId),
}

struct Describing {
    /// `None`: all topics.
    asked: Option<Vec<Asked>>,
    /// Topics that could not be made, and why.
    failed: HashMap<String, ErrorCode>,
    /// Whether to tell what may be done to topics, and to the cluster.
    topic_operations: bool,
    cluster_operations: bool,
    correlation_id: i32,
    version: i16,
}

pub fn start<D: Disk>(cx: &mut Context<'_, D>, request: &MetadataRequest<'_>, version: i16) -> Start<D> {
    let topics = request.topics.as_ref().filter(|topics| version > 0 || !topics.is_empty());
    let asked = topics.map(|topics| {
        let asked = topics.iter().map(|topic| match topic.name {
            Some(name) => Asked::Name(name.to_owned()),
            None => Asked::Id(topic.topic_id),
        });
        asked.collect::<Vec<_>>()
    });
    let may_create = cx.settings.auto_create_topics && (version < 4 || request.allow_auto_topic_creation);
    let missing: Vec<TopicWanted> = asked
        .iter()
        .flatten()
        .filter_map(|asked| match asked {
            Asked::Name(name) if may_create && cx.shard.image().topic_by_name(name).is_none() => Some(name),
            _ => None,
        })
        .filter(|name| names::validate(name).is_ok() && !names::is_internal(name))
        .map(|name| TopicWanted::by_default(name.clone()))
        .collect();
    let work = Describing {
        asked,
        failed: HashMap::new(),
        topic_operations: request.include_topic_authorized_operations,
        cluster_operations: request.include_cluster_authorized_operations,
        correlation_id: cx.correlation_id,
        version,
    };
    if missing.is_empty() {
        return Start::Reply(work.reply(cx.shard.image()));
    }
    let control = Control::CreateTopics { topics: missing, validate_only: false };
    Start::Work { work: Box::new(work), commands: vec![(CONTROLLER_CORE, Command::Control(control))] }
}

impl<D: Disk> Work<D> for Describing {
    fn on_answer(&mut self, answer: Answer<D::File>, shard: &mut Shard<D>) -> Step<D::File> {
        let Answer::Control(controlled) = answer else { unreachable!("only the controller was asked") };
        match controlled {
            Controlled::Created(topics) => {
                for (name, result) in topics {
                    match result {
                        // Another client was faster: the topic is there.
                        Err(refusal) if refusal.code != ErrorCode::TopicAlreadyExists => {
                            self.failed.insert(name, refusal.code);
                        }
                        _ => {}
                    }
                }
            }
            Controlled::Failed(refusal) => {
                for asked in self.asked.iter().flatten() {
                    if let Asked::Name(name) = asked {
                        self.failed.insert(name.clone(), refusal.code);
                    }
                }
            }
            other => unreachable!("topics were to be created, not {other:?}"),
        }
        Step::Done(self.reply(shard.image()))
    }
}

impl Describing {
    fn reply<F>(&self, image: &Image) -> Reply<F> {
        let topics = match &self.asked {
            None => image.topics().map(|topic| self.describe(image, topic)).collect(),
            Some(asked) => asked.iter().map(|asked| self.describe_asked(image, asked)).collect(),
        };
        let brokers = image.advertised_brokers().map(|(node, host, port)| MetadataResponseBroker {
            node_id: node.0,
            host,
            port: i32::from(port),
            rack: None,
        });
        let brokers: Vec<_> = brokers.collect();
        let mut response = MetadataResponse {
            controller_id: brokers.first().map_or(-1, |broker| broker.node_id),
            brokers,
            cluster_id: Some(image.cluster_id()),
            topics,
            ..Default::default()
        };
        if self.cluster_operations {
            response.cluster_authorized_operations = operations::CLUSTER;
        }
        Reply::encode(self.correlation_id, self.version, &response)
    }

    fn describe_asked<'a>(&'a self, image: &'a Image, asked: &'a Asked) -> MetadataResponseTopic<'a> {
        match asked {
            Asked::Name(name) => match image.topic_by_name(name) {
                Some(topic) => self.describe(image, topic),
                None => {
                    let known = self.failed.get(name).copied();
                    let code = match known {
                        Some(code) => code,
                        None if names::validate(name).is_err() => ErrorCode::InvalidTopic,
                        None => ErrorCode::UnknownTopicOrPartition,
                    };
                    MetadataResponseTopic { error_code: code.code(), name: Some(name), ..Default::default() }
                }
            },
            Asked::Id(id) => match image.topic(*id) {
                Some(topic) => self.describe(image, topic),
                None => {
                    let error_code = ErrorCode::UnknownTopicId.code();
                    // Only from v12 may a name be absent.
                    let name = (self.version < 12).then_some("");
                    MetadataResponseTopic { error_code, topic_id: *id, name, ..Default::default() }
                }
            },
        }
    }

    fn describe<'a>(&self, image: &Image, topic: &'a Topic) -> MetadataResponseTopic<'a> {
        let mut described = describe(image, topic);
        if self.topic_operations {
            described.topic_authorized_operations = operations::TOPIC;
        }
        described
    }
}

fn describe<'a>(image: &Image, topic: &'a Topic) -> MetadataResponseTopic<'a> {
    let told = |partition: &Partition, nodes: &[NodeId]| {
        nodes.iter().map(|&node| image.advertised_replica(partition, node).0).collect()
    };
    let partition = |(index, partition): (usize, &Partition)| MetadataResponsePartition {
        error_code: ErrorCode::None.code(),
        partition_index: index as i32,
        leader_id: image.advertised_leader(partition).0,
        leader_epoch: partition.leader_epoch,
        replica_nodes: told(partition, &partition.replicas),
        isr_nodes: told(partition, &partition.isr),
        offline_replicas: vec![],
    };
    MetadataResponseTopic {
        error_code: ErrorCode::None.code(),
        name: Some(&topic.name),
        topic_id: topic.id,
        is_internal: names::is_internal(&topic.name),
        partitions: topic.partitions.iter().enumerate().map(partition).collect(),
        ..Default::default()
    }
}
