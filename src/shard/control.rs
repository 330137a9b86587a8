//! Changes of the cluster's metadata: decided on one core, logged, then applied by every core before anybody is told.
//!
//! The metadata log is a partition like any other, owned by the controller's core. One request is decided at a time: the next
//! must see the image with the commands of the last one applied.

use super::Shard;
use super::commands::{Answer, Message, Origin};
use super::moves::FailedMove;
use super::own::OwnAppend;
use crate::base::error::ErrorCode;
use crate::base::ids::{CoreIndex, NodeId, TopicId};
use crate::base::record::BatchBuilder;
use crate::base::time::Now;
use crate::cluster::commands::Command;
use crate::cluster::controller::{
    AlterConfigs, ConfigOp, ConfigResource, Controller, CreatedTopic, Decision, NewPartitions, NewTopic, Refusal,
    ReplaceConfigs, TopicRef,
};
use crate::ports::Disk;
use std::collections::VecDeque;
use std::sync::Arc;

/// The core that decides about metadata.
pub const CONTROLLER_CORE: CoreIndex = CoreIndex(0);

/// What to do with a key.
pub type ConfigChange = (String, ConfigOp, Option<String>);
/// A key and the value it shall have.
pub type ConfigValue = (String, Option<String>);

/// A request to change metadata. Owns its data: it crosses cores.
#[derive(Clone, Debug)]
pub enum Control {
    CreateTopics {
        topics: Vec<TopicWanted>,
        validate_only: bool,
    },
    DeleteTopics(Vec<TopicNamed>),
    CreatePartitions {
        topics: Vec<PartitionsWanted>,
        validate_only: bool,
    },
    /// IncrementalAlterConfigs.
    AlterConfigs {
        resources: Vec<(Resource, Vec<ConfigChange>)>,
        validate_only: bool,
    },
    /// AlterConfigs: what is not given is taken back.
    ReplaceConfigs {
        resources: Vec<(Resource, Vec<ConfigValue>)>,
        validate_only: bool,
    },
    AllocateProducerIds,
    /// To another core of the broker that leads it.
    MovePartition {
        topic: String,
        partition: i32,
        core: CoreIndex,
    },
    /// A move has failed: the metadata follows where the partition is.
    UndoMove(Command),
}

/// Who wants a change of the metadata, and so who is told what became of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Asker {
    /// The broker itself.
    Nobody,
    /// A move that has failed is taken back: that is not taken back in its turn.
    Undo,
    Client(Origin),
    /// Somebody at the admin address, by the number of what was asked. On the controller's core.
    Operator(u64),
}

#[derive(Clone, Debug)]
pub struct TopicWanted {
    pub name: String,
    /// -1: the default.
    pub partition_count: i32,
    /// -1: the default.
    pub replication_factor: i16,
    pub assignments: Vec<(i32, Vec<NodeId>)>,
    pub configs: Vec<(String, Option<String>)>,
}

#[derive(Clone, Debug)]
pub enum TopicNamed {
    Name(String),
    Id(TopicId),
}

#[derive(Clone, Debug)]
pub struct PartitionsWanted {
    pub name: String,
    pub partition_count: i32,
    pub assignments: Option<Vec<Vec<NodeId>>>,
}

#[derive(Clone, Debug)]
pub enum Resource {
    Topic(String),
    /// `None`: all brokers.
    Broker(Option<NodeId>),
}

impl Resource {
    fn as_ref(&self) -> ConfigResource<'_> {
        match self {
            Resource::Topic(name) => ConfigResource::Topic(name),
            Resource::Broker(node) => ConfigResource::Broker(*node),
        }
    }
}

/// What became of a [`Control`].
#[derive(Clone, Debug)]
pub enum Controlled {
    /// By name, each once.
    Created(Vec<(String, Result<CreatedTopic, Refusal>)>),
    /// In the order of the request: the topic that is gone.
    Deleted(Vec<Result<(String, TopicId), Refusal>>),
    /// CreatePartitions, the config changes and moves, in the order of the request.
    Done(Vec<Result<(), Refusal>>),
    ProducerIds {
        first: i64,
        count: i64,
    },
    /// The request as a whole has failed.
    Failed(Refusal),
}

/// The controller's work in progress; exists on its core only.
#[derive(Default)]
pub(super) struct Controlling {
    waiting: VecDeque<(Asker, Control)>,
    current: Option<Current>,
    /// Nothing is decided: a snapshot is being written, which must be of one image.
    held: bool,
}

/// A request whose commands are on their way.
struct Current {
    asker: Asker,
    commands: Arc<Vec<Command>>,
    answer: Controlled,
    /// Cores that have not applied them yet; counted once they are durable.
    missing: usize,
    failed: Option<FailedMove>,
}

impl Controlling {
    pub fn is_idle(&self) -> bool {
        self.current.is_none() && self.waiting.is_empty()
    }

    /// Nothing is decided until `release_control`, once what is in progress has come to its end.
    pub fn hold(&mut self) {
        self.held = true;
    }

    /// No commands are on their way to the log or to a core.
    pub fn is_quiet(&self) -> bool {
        self.current.is_none()
    }
}

impl<D: Disk> Shard<D> {
    /// Decides about a request, or queues it behind the one in progress. To be called on the controller's core.
    pub fn control(&mut self, asker: Asker, control: Control, now: Now) {
        assert_eq!(self.core, CONTROLLER_CORE);
        self.controlling.waiting.push_back((asker, control));
        self.next_control(now);
    }

    fn next_control(&mut self, now: Now) {
        while !self.controlling.held
            && self.controlling.current.is_none()
            && let Some((asker, control)) = self.controlling.waiting.pop_front()
        {
            let (commands, answer) = self.decide(&control);
            if commands.is_empty() {
                self.answer_control(asker, answer);
            } else {
                self.begin_commands(asker, commands, answer, now);
            }
        }
    }

    /// Decides again, beginning with what has waited.
    pub(super) fn release_control(&mut self, now: Now) {
        self.controlling.held = false;
        self.next_control(now);
    }

    pub(super) fn begin_commands(&mut self, asker: Asker, commands: Vec<Command>, answer: Controlled, now: Now) {
        let mut builder = BatchBuilder::new(now.wall_ms);
        for command in &commands {
            builder.push(now.wall_ms, None, Some(&command.encode()));
        }
        self.controlling.current =
            Some(Current { asker, commands: Arc::new(commands), answer, missing: 0, failed: None });
        let id = crate::base::ids::PartitionId { topic: TopicId::METADATA, index: 0 };
        self.append_own(id, builder.finish(), OwnAppend::Metadata, now);
    }

    fn answer_control(&mut self, asker: Asker, answer: Controlled) {
        match asker {
            Asker::Nobody | Asker::Undo => {}
            Asker::Client(origin) => self.answer(origin, Answer::Control(answer)),
            Asker::Operator(number) => self.outbox.told.push((number, answer)),
        }
    }

    /// The commands in progress are durable: every core applies them.
    pub(super) fn on_metadata_durable(&mut self, now: Now) {
        let current = self.controlling.current.as_mut().expect("only a request in progress logs commands");
        let commands = current.commands.clone();
        if self.starting {
            current.missing = 1;
            return self.apply(commands, now);
        }
        current.missing = usize::from(self.settings.core_count);
        for core in (0..self.settings.core_count).map(CoreIndex).filter(|core| *core != self.core) {
            self.outbox.messages.push((core, Message::Apply(commands.clone())));
        }
        self.apply(commands, now);
    }

    /// The log did not take the commands: nothing has changed.
    pub(super) fn on_metadata_refused(&mut self, code: ErrorCode, now: Now) {
        let current = self.controlling.current.take().expect("only a request in progress logs commands");
        let message = "The metadata log cannot be written: see the broker's log.".to_owned();
        self.answer_control(current.asker, Controlled::Failed(Refusal { code, message }));
        self.next_control(now);
    }

    /// One core has applied the commands in progress, but for a move that has failed.
    pub(super) fn on_applied(&mut self, failed: Option<FailedMove>, now: Now) {
        let current = self.controlling.current.as_mut().expect("only a request in progress is applied");
        current.missing -= 1;
        current.failed = failed.or(current.failed.take());
        if current.missing > 0 {
            return;
        }
        let mut done = self.controlling.current.take().expect("looked at above");
        if let Some(FailedMove { undo, why }) = done.failed.filter(|_| done.asker != Asker::Undo) {
            let message = format!("The partition stays where it was: {why}");
            done.answer = Controlled::Failed(Refusal { code: ErrorCode::KafkaStorageError, message });
            self.controlling.waiting.push_front((Asker::Undo, Control::UndoMove(undo)));
        }
        self.answer_control(done.asker, done.answer);
        self.next_control(now);
    }

    /// A random UUID (version 4).
    fn random_topic_id(&self) -> TopicId {
        let mut bytes = (self.world.random)().to_be_bytes();
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        TopicId(bytes)
    }

    fn decide(&self, control: &Control) -> (Vec<Command>, Controlled) {
        let broker = self.image.broker_configs(self.settings.node, &self.settings.statics);
        let controller = Controller { image: &self.image, broker };
        match control {
            Control::CreateTopics { topics, validate_only } => {
                let wanted: Vec<NewTopic<'_>> = topics.iter().map(TopicWanted::as_ref).collect();
                let Decision { commands, answers } =
                    controller.create_topics(&wanted, *validate_only, || self.random_topic_id());
                let answers = answers.into_iter().map(|(name, answer)| (name.to_owned(), answer)).collect();
                (commands, Controlled::Created(answers))
            }
            Control::DeleteTopics(topics) => {
                let named: Vec<TopicRef<'_>> = topics.iter().map(TopicNamed::as_ref).collect();
                let Decision { commands, answers } = controller.delete_topics(&named);
                let gone = |topic: &crate::cluster::image::Topic| (topic.name.to_string(), topic.id);
                (commands, Controlled::Deleted(answers.into_iter().map(|answer| answer.map(gone)).collect()))
            }
            Control::CreatePartitions { topics, validate_only } => {
                let wanted: Vec<NewPartitions<'_>> = topics.iter().map(PartitionsWanted::as_ref).collect();
                done(controller.create_partitions(&wanted, *validate_only))
            }
            Control::AlterConfigs { resources, validate_only } => {
                let changes: Vec<AlterConfigs<'_>> = resources
                    .iter()
                    .map(|(resource, changes)| AlterConfigs {
                        resource: resource.as_ref(),
                        changes: changes.iter().map(|(name, op, value)| (&**name, *op, value.as_deref())).collect(),
                    })
                    .collect();
                done(controller.alter_configs(&changes, *validate_only))
            }
            Control::ReplaceConfigs { resources, validate_only } => {
                let given: Vec<ReplaceConfigs<'_>> = resources
                    .iter()
                    .map(|(resource, given)| ReplaceConfigs {
                        resource: resource.as_ref(),
                        configs: given.iter().map(|(name, value)| (&**name, value.as_deref())).collect(),
                    })
                    .collect();
                done(controller.replace_configs(&given, *validate_only))
            }
            Control::AllocateProducerIds => match controller.allocate_producer_ids() {
                Ok(Command::AllocateProducerIds { first, count }) => {
                    let command = Command::AllocateProducerIds { first, count };
                    (vec![command], Controlled::ProducerIds { first, count })
                }
                Ok(_) => unreachable!("it allocates producer ids"),
                Err(refusal) => (vec![], Controlled::Failed(refusal)),
            },
            Control::MovePartition { topic, partition, core } => {
                match controller.move_partition(topic, *partition, *core) {
                    Ok(command) => (command.into_iter().collect(), Controlled::Done(vec![Ok(())])),
                    Err(refusal) => (vec![], Controlled::Failed(refusal)),
                }
            }
            Control::UndoMove(command) => (vec![command.clone()], Controlled::Done(vec![])),
        }
    }
}

fn done(decision: Decision<Result<(), Refusal>>) -> (Vec<Command>, Controlled) {
    (decision.commands, Controlled::Done(decision.answers))
}

impl TopicWanted {
    /// A topic with the broker's defaults.
    pub fn by_default(name: String) -> TopicWanted {
        TopicWanted { name, partition_count: -1, replication_factor: -1, assignments: vec![], configs: vec![] }
    }

    fn as_ref(&self) -> NewTopic<'_> {
        NewTopic {
            name: &self.name,
            partition_count: self.partition_count,
            replication_factor: self.replication_factor,
            assignments: self.assignments.clone(),
            configs: self.configs.iter().map(|(name, value)| (&**name, value.as_deref())).collect(),
        }
    }
}

impl TopicNamed {
    fn as_ref(&self) -> TopicRef<'_> {
        match self {
            TopicNamed::Name(name) => TopicRef::Name(name),
            TopicNamed::Id(id) => TopicRef::Id(*id),
        }
    }
}

impl PartitionsWanted {
    fn as_ref(&self) -> NewPartitions<'_> {
        NewPartitions { name: &self.name, partition_count: self.partition_count, assignments: self.assignments.clone() }
    }
}
