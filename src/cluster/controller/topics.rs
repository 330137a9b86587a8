//! Creating and deleting topics, and giving them more partitions.
//!
//! Source: Kafka `ReplicationControlManager`; KIP-195 (partitions), KIP-464 (defaults), KIP-516 (topic ids).

use super::placement::Placement;
use super::{Controller, Decision, Refusal};
use crate::base::error::ErrorCode;
use crate::base::ids::{NodeId, TopicId};
use crate::base::limits::PARTITIONS_PER_BROKER_MAX;
use crate::cluster::commands::Command;
use crate::cluster::configs::{self, Overrides};
use crate::cluster::image::Topic;
use crate::cluster::names;
use std::collections::{BTreeMap, BTreeSet};

/// A topic that a client asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewTopic<'a> {
    pub name: &'a str,
    /// -1: the broker's `num.partitions`, or as many as there are assignments.
    pub partition_count: i32,
    /// -1: the broker's `default.replication.factor`, or as the assignments say.
    pub replication_factor: i16,
    /// Partition and its replicas, the preferred leader first. Empty: the broker chooses.
    pub assignments: Vec<(i32, Vec<NodeId>)>,
    pub configs: Vec<(&'a str, Option<&'a str>)>,
}

/// A topic that is created, or would be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CreatedTopic {
    /// `ZERO` where the request was only to be validated.
    pub id: TopicId,
    pub partition_count: i32,
    pub replication_factor: i16,
    /// What was set for it; `configs::describe_topic` shows the rest.
    pub configs: Overrides,
}

/// A topic as DeleteTopics names it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum TopicRef<'a> {
    Name(&'a str),
    Id(TopicId),
}

/// More partitions for a topic.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewPartitions<'a> {
    pub name: &'a str,
    /// How many it shall have in all.
    pub partition_count: i32,
    /// Replicas of each new one. `None`: the broker chooses.
    pub assignments: Option<Vec<Vec<NodeId>>>,
}

/// A topic of the request that is decided, before anything is applied.
struct Draft<'a> {
    placement: Placement<'a>,
    ids: BTreeSet<TopicId>,
    folded_names: BTreeMap<String, &'a str>,
}

impl<'a> Controller<'a> {
    /// CreateTopics. Answers are by name, one for each name of the request.
    ///
    /// `new_id` gives random ids. A topic that is refused does not keep the others from being created.
    pub fn create_topics<'r: 'a>(
        &'a self,
        requests: &'r [NewTopic<'r>],
        validate_only: bool,
        mut new_id: impl FnMut() -> TopicId,
    ) -> Decision<(&'r str, Result<CreatedTopic, Refusal>)> {
        let mut by_name: BTreeMap<&str, Vec<&NewTopic<'_>>> = BTreeMap::new();
        for request in requests {
            by_name.entry(request.name).or_default().push(request);
        }
        let mut draft =
            Draft { placement: Placement::new(self.image), ids: BTreeSet::new(), folded_names: BTreeMap::new() };
        let mut commands = Vec::new();
        let mut answers = Vec::with_capacity(by_name.len());
        for (name, requests) in by_name {
            let created = match requests[..] {
                [request] => self.create_topic(request, &mut draft, &mut new_id),
                _ => Err(Refusal::new(ErrorCode::InvalidRequest, "Duplicate topic name.")),
            };
            answers.push((
                name,
                created.map(|(command, mut topic)| {
                    if validate_only {
                        topic.id = TopicId::ZERO;
                    } else {
                        commands.push(command);
                    }
                    topic
                }),
            ));
        }
        Decision { commands, answers }
    }

    fn create_topic(
        &self,
        request: &NewTopic<'a>,
        draft: &mut Draft<'a>,
        new_id: &mut impl FnMut() -> TopicId,
    ) -> Result<(Command, CreatedTopic), Refusal> {
        self.check_name(request.name, draft)?;
        let configs = self.new_configs(request)?;
        let replicas = if request.assignments.is_empty() {
            self.chosen_replicas(request, &draft.placement)?
        } else {
            self.assigned_replicas(request, &draft.placement)?
        };
        let id = loop {
            let id = self.fresh_id(new_id);
            if draft.ids.insert(id) {
                break id;
            }
        };
        if let Some(folded) = names::folded(request.name) {
            draft.folded_names.insert(folded, request.name);
        }
        let created = CreatedTopic {
            id,
            partition_count: i32::try_from(replicas.len()).expect("bounded by the limit of partitions"),
            replication_factor: i16::try_from(replicas[0].len()).expect("at most 255 replicas"),
            configs,
        };
        let command = Command::CreateTopic {
            id,
            name: request.name.to_owned(),
            partitions: draft.placement.place(&[], replicas),
            configs: created.configs.iter().map(|(name, value)| (name.clone(), Some(value.clone()))).collect(),
        };
        Ok((command, created))
    }

    fn check_name(&self, name: &str, draft: &Draft<'_>) -> Result<(), Refusal> {
        names::validate(name).map_err(|message| Refusal::new(ErrorCode::InvalidTopic, message))?;
        if name == names::CLUSTER_METADATA {
            return Err(Refusal::new(
                ErrorCode::InvalidRequest,
                format!("{name} is the cluster's own and is not created."),
            ));
        }
        if self.image.topic_by_name(name).is_some() {
            return Err(Refusal::new(ErrorCode::TopicAlreadyExists, format!("Topic '{name}' already exists.")));
        }
        let drafted = names::folded(name).and_then(|folded| draft.folded_names.get(&folded).copied());
        let collides = self.image.colliding_topic(name).map(|topic| &*topic.name).or(drafted);
        match collides {
            Some(other) => Err(Refusal::new(
                ErrorCode::InvalidTopic,
                format!("Topic '{name}' collides with '{other}': they differ only in '.' and '_'."),
            )),
            None => Ok(()),
        }
    }

    fn new_configs(&self, request: &NewTopic<'_>) -> Result<Overrides, Refusal> {
        let invalid = |message| Refusal::new(ErrorCode::InvalidConfig, message);
        let mut overrides = Overrides::new();
        for &(name, value) in &request.configs {
            let key = configs::known_topic_key(name).map_err(invalid)?;
            let value = value.ok_or_else(|| invalid(format!("{name} has no value.")))?;
            if overrides.insert(key.name.to_owned(), value.to_owned()).is_some() {
                return Err(invalid(format!("{name} is set twice.")));
            }
        }
        configs::validate_topic(self.broker, &overrides).map_err(invalid)?;
        Ok(overrides)
    }

    fn chosen_replicas(
        &self,
        request: &NewTopic<'_>,
        placement: &Placement<'_>,
    ) -> Result<Vec<Box<[NodeId]>>, Refusal> {
        let replication_factor = match request.replication_factor {
            -1 => self.broker.number("default.replication.factor"),
            factor => i64::from(factor),
        };
        let partition_count = match request.partition_count {
            -1 => self.broker.number("num.partitions"),
            count => i64::from(count),
        };
        if replication_factor < 1 {
            return Err(Refusal::new(
                ErrorCode::InvalidReplicationFactor,
                "Replication factor must be larger than 0, or -1 to use the default value.",
            ));
        }
        if partition_count < 1 {
            return Err(Refusal::new(
                ErrorCode::InvalidPartitions,
                "Number of partitions must be larger than 0, or -1 to use the default value.",
            ));
        }
        let replication_factor = self.check_brokers(replication_factor)?;
        let partition_count = self.check_room(partition_count, placement)?;
        Ok(placement.spread_replicas(partition_count, replication_factor))
    }

    /// Whether there are brokers for so many replicas.
    fn check_brokers(&self, replication_factor: i64) -> Result<usize, Refusal> {
        let brokers = self.image.brokers().len();
        usize::try_from(replication_factor).ok().filter(|factor| (1..=brokers.min(255)).contains(factor)).ok_or_else(
            || {
                Refusal::new(
                    ErrorCode::InvalidReplicationFactor,
                    format!(
                        "Unable to replicate the partition {replication_factor} time(s): \
                     only {brokers} broker(s) are registered."
                    ),
                )
            },
        )
    }

    /// Whether there is room for so many partitions more.
    fn check_room(&self, more: i64, placement: &Placement<'_>) -> Result<usize, Refusal> {
        let most = PARTITIONS_PER_BROKER_MAX * self.image.brokers().len().max(1);
        let room = most.saturating_sub(placement.partition_count());
        usize::try_from(more).ok().filter(|&more| more <= room).ok_or_else(|| {
            Refusal::new(
                ErrorCode::PolicyViolation,
                format!(
                    "{more} more partitions are too many: there is room for {room} \
                     at {PARTITIONS_PER_BROKER_MAX} for each broker."
                ),
            )
        })
    }

    fn assigned_replicas(
        &self,
        request: &NewTopic<'_>,
        placement: &Placement<'_>,
    ) -> Result<Vec<Box<[NodeId]>>, Refusal> {
        if request.partition_count != -1 || request.replication_factor != -1 {
            return Err(Refusal::new(
                ErrorCode::InvalidRequest,
                "With a manual assignment, number of partitions and replication factor must be -1.",
            ));
        }
        self.check_room(request.assignments.len() as i64, placement)?;
        let by_index: BTreeMap<i32, &Vec<NodeId>> =
            request.assignments.iter().map(|(index, nodes)| (*index, nodes)).collect();
        let dense = by_index.len() == request.assignments.len() && (0..).zip(by_index.keys()).all(|(a, &b)| a == b);
        if !dense {
            return Err(assignment_refusal("Partitions must be numbered from 0 without gaps, each once."));
        }
        let factor = request.assignments[0].1.len();
        by_index.into_values().map(|nodes| self.check_assignment(nodes, factor)).collect()
    }

    fn check_assignment(&self, nodes: &[NodeId], factor: usize) -> Result<Box<[NodeId]>, Refusal> {
        if nodes.is_empty() || nodes.len() != factor || nodes.len() > 255 {
            return Err(assignment_refusal("Every partition must have the same number of replicas, at least one."));
        }
        if let Some(stranger) = nodes.iter().find(|&&node| self.image.broker(node).is_none()) {
            return Err(assignment_refusal(&format!("Broker {} is not registered.", stranger.0)));
        }
        if nodes.iter().collect::<BTreeSet<_>>().len() != nodes.len() {
            return Err(assignment_refusal("A partition's replicas must be on different brokers."));
        }
        Ok(nodes.into())
    }

    /// DeleteTopics, by name or by id. Answers are in the order of the request; each names the topic it deletes.
    ///
    /// Internal topics may be deleted, as in Kafka.
    pub fn delete_topics(&self, requests: &[TopicRef<'_>]) -> Decision<Result<&'a Topic, Refusal>> {
        let mut times: BTreeMap<TopicId, u32> = BTreeMap::new();
        let found: Vec<Result<&Topic, Refusal>> = requests.iter().map(|&request| self.find(request)).collect();
        for topic in found.iter().flatten() {
            *times.entry(topic.id).or_default() += 1;
        }
        let enabled = self.broker.flag("delete.topic.enable");
        let mut commands = Vec::new();
        let answers = found
            .into_iter()
            .map(|found| {
                if !enabled {
                    let message = "Topics are not deleted here (delete.topic.enable=false).";
                    return Err(Refusal::new(ErrorCode::TopicDeletionDisabled, message));
                }
                let topic = found?;
                if times[&topic.id] > 1 {
                    return Err(Refusal::new(ErrorCode::InvalidRequest, "The topic is named more than once."));
                }
                commands.push(Command::DeleteTopic { id: topic.id });
                Ok(topic)
            })
            .collect();
        Decision { commands, answers }
    }

    fn find(&self, request: TopicRef<'_>) -> Result<&'a Topic, Refusal> {
        match request {
            TopicRef::Name(name) => self.image.topic_by_name(name).ok_or_else(unknown_topic),
            TopicRef::Id(id) => self
                .image
                .topic(id)
                .ok_or_else(|| Refusal::new(ErrorCode::UnknownTopicId, "There is no topic with this id.")),
        }
    }

    /// CreatePartitions. Answers are in the order of the request. Internal topics do not grow.
    pub fn create_partitions(
        &self,
        requests: &[NewPartitions<'_>],
        validate_only: bool,
    ) -> Decision<Result<(), Refusal>> {
        let mut times: BTreeMap<&str, u32> = BTreeMap::new();
        for request in requests {
            *times.entry(request.name).or_default() += 1;
        }
        let mut placement = Placement::new(self.image);
        let mut commands = Vec::new();
        let answers = requests
            .iter()
            .map(|request| {
                if times[request.name] > 1 {
                    return Err(Refusal::new(ErrorCode::InvalidRequest, "The topic is named more than once."));
                }
                let command = self.more_partitions(request, &mut placement)?;
                commands.extend((!validate_only).then_some(command));
                Ok(())
            })
            .collect();
        Decision { commands, answers }
    }

    fn more_partitions(&self, request: &NewPartitions<'_>, placement: &mut Placement<'_>) -> Result<Command, Refusal> {
        let topic = self.image.topic_by_name(request.name).ok_or_else(unknown_topic)?;
        if names::is_internal(request.name) {
            // Kafka does it, and its coordinators lose sight of what was committed: keys are placed by the number of partitions.
            let message =
                "The number of partitions of an internal topic is fixed: it says where each group's offsets are.";
            return Err(Refusal::new(ErrorCode::InvalidTopic, message));
        }
        let first = i32::try_from(topic.partitions.len()).expect("bounded by the limit of partitions");
        let more = i64::from(request.partition_count) - i64::from(first);
        if more < 1 {
            return Err(Refusal::new(
                ErrorCode::InvalidPartitions,
                format!("The topic has {first} partition(s); {} would not be more.", request.partition_count),
            ));
        }
        let count = self.check_room(more, placement)?;
        let factor = topic.partitions[0].replicas.len();
        let replicas = match &request.assignments {
            None => placement.spread_replicas(count, self.check_brokers(factor as i64)?),
            Some(assignments) if assignments.len() != count => {
                return Err(assignment_refusal(&format!(
                    "{count} partition(s) are added and {} assignment(s) are given.",
                    assignments.len()
                )));
            }
            Some(assignments) => {
                assignments.iter().map(|nodes| self.check_assignment(nodes, factor)).collect::<Result<_, _>>()?
            }
        };
        Ok(Command::AddPartitions { id: topic.id, first, partitions: placement.place(&topic.partitions, replicas) })
    }
}

fn unknown_topic() -> Refusal {
    Refusal::new(ErrorCode::UnknownTopicOrPartition, "There is no topic of this name.")
}

fn assignment_refusal(message: &str) -> Refusal {
    Refusal::new(ErrorCode::InvalidReplicaAssignment, message)
}
