//! The image: the cluster's metadata as of some command. Every core holds its own copy and applies the same commands in order.
//!
//! Decides nothing: whether a command should be is for `controller`. Node ids as clients see them are minted here alone.

use super::commands::{Command, ConfigChange};
use super::configs::{BrokerConfigs, Overrides};
use super::names;
use crate::base::ids::{CoreIndex, NodeId, PartitionId, TopicId};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A broker that is part of the cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Broker {
    /// Address told to clients.
    pub host: String,
    pub port: u16,
    /// Cores that own partitions there; at least 1.
    pub core_count: u16,
    /// The port on which each core listens by itself. Empty without core listeners; else as many as cores.
    pub core_ports: Vec<u16>,
    /// Cores that are given no new partitions, in their order; never all.
    pub spared_cores: Vec<u16>,
}

/// Node ids from here on are those of single cores: two to the thirtieth, then the broker's id, then ten bits of core.
const CORE_IDS_FROM: i32 = 1 << 30;
const CORE_BITS: u32 = 10;
/// A broker with core listeners has a smaller node id than this.
pub const NODE_WITH_CORES_MAX: i32 = 1 << (30 - CORE_BITS);

/// The broker behind a node id that clients were told.
pub fn node_of(advertised: NodeId) -> NodeId {
    match advertised.0 {
        id if id >= CORE_IDS_FROM => NodeId((id - CORE_IDS_FROM) >> CORE_BITS),
        _ => advertised,
    }
}

fn core_id(node: NodeId, core: usize) -> NodeId {
    NodeId(CORE_IDS_FROM | (node.0 << CORE_BITS) | core as i32)
}

/// One partition of a topic.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Partition {
    pub leader: NodeId,
    /// Grows each time a leader begins; at least 0.
    pub leader_epoch: i32,
    /// The core of the leader that owns it.
    pub core: CoreIndex,
    /// Brokers that hold it, the preferred leader first; at least one, each once.
    pub replicas: Box<[NodeId]>,
    /// Replicas that have all that is committed.
    pub isr: Box<[NodeId]>,
}

/// One topic.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Topic {
    pub id: TopicId,
    pub name: Arc<str>,
    /// By index; at least one.
    pub partitions: Vec<Partition>,
    /// What was set for this topic.
    pub configs: Overrides,
}

/// A command that cannot follow on this image: the metadata log is not the one this image came from, or was not checked when
/// the command was made. Whoever applies it must stop; the image is as it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Contradiction(pub &'static str);

/// See the head of this file.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Image {
    version: u64,
    cluster_id: String,
    brokers: BTreeMap<NodeId, Broker>,
    topics: BTreeMap<TopicId, Topic>,
    /// Invariant: exactly the names of `topics`.
    by_name: BTreeMap<String, TopicId>,
    /// Names with '.' or '_', folded to one of the two. Invariant: exactly those of `topics` that have such a character.
    by_folded_name: BTreeMap<String, TopicId>,
    /// Nobody's where the key is `None`: they hold for all brokers.
    broker_configs: BTreeMap<Option<NodeId>, Overrides>,
    /// The first producer id that no block has.
    next_producer_id: i64,
    /// Partitions led by each core that leads any. Invariant: the sum is `partition_count`.
    core_loads: BTreeMap<(NodeId, CoreIndex), u32>,
    partition_count: usize,
}

static NO_OVERRIDES: Overrides = Overrides::new();

impl Image {
    /// Commands applied since the cluster began.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Empty before `InitCluster`.
    pub fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    pub fn broker(&self, node: NodeId) -> Option<&Broker> {
        self.brokers.get(&node)
    }

    /// Brokers by node id.
    pub fn brokers(&self) -> impl ExactSizeIterator<Item = (NodeId, &Broker)> {
        self.brokers.iter().map(|(&node, broker)| (node, broker))
    }

    /// The node ids and addresses that clients are told: one for each broker, or for each core of one that has core listeners.
    pub fn advertised_brokers(&self) -> impl Iterator<Item = (NodeId, &str, u16)> {
        self.brokers.iter().flat_map(|(&node, broker)| {
            let whole = broker.core_ports.is_empty().then_some((node, broker.port));
            let ports = broker.core_ports.iter().enumerate();
            let told = whole.into_iter().chain(ports.map(move |(core, &port)| (core_id(node, core), port)));
            told.map(|(id, port)| (id, broker.host.as_str(), port))
        })
    }

    /// The node id that clients are told to ask for this partition; one of `advertised_brokers`.
    pub fn advertised_leader(&self, partition: &Partition) -> NodeId {
        self.advertised_replica(partition, partition.leader)
    }

    /// The node id under which clients know a replica of this partition.
    pub fn advertised_replica(&self, partition: &Partition, replica: NodeId) -> NodeId {
        match self.broker(replica).map_or(0, |broker| broker.core_ports.len()) {
            0 => replica,
            // Only the leader's core is known; any core of the others will do.
            cores => core_id(replica, usize::from(partition.core.0) % cores),
        }
    }

    pub fn topic(&self, id: TopicId) -> Option<&Topic> {
        self.topics.get(&id)
    }

    pub fn topic_by_name(&self, name: &str) -> Option<&Topic> {
        self.topics.get(self.by_name.get(name)?)
    }

    /// Topics by name.
    pub fn topics(&self) -> impl ExactSizeIterator<Item = &Topic> {
        self.by_name.values().map(|id| &self.topics[id])
    }

    /// Topics by id, from `first` on.
    pub fn topics_from(&self, first: TopicId) -> impl Iterator<Item = &Topic> {
        self.topics.range(first..).map(|(_, topic)| topic)
    }

    pub fn partition(&self, id: PartitionId) -> Option<&Partition> {
        self.topic(id.topic)?.partitions.get(usize::try_from(id.index).ok()?)
    }

    /// The topic whose name differs from `name` in '.' and '_' only, or not at all.
    pub fn colliding_topic(&self, name: &str) -> Option<&Topic> {
        self.topics.get(self.by_folded_name.get(&names::folded(name)?)?)
    }

    /// Partitions of all topics.
    pub fn partition_count(&self) -> usize {
        self.partition_count
    }

    /// Partitions led by this core.
    pub fn core_load(&self, node: NodeId, core: CoreIndex) -> u32 {
        self.core_loads.get(&(node, core)).copied().unwrap_or(0)
    }

    pub fn next_producer_id(&self) -> i64 {
        self.next_producer_id
    }

    /// What was set for one broker while it ran, or for all (`None`).
    pub fn broker_overrides(&self, node: Option<NodeId>) -> &Overrides {
        self.broker_configs.get(&node).unwrap_or(&NO_OVERRIDES)
    }

    /// All that was set so; nobody's is the one for all brokers.
    pub(super) fn all_broker_overrides(&self) -> impl Iterator<Item = (Option<NodeId>, &Overrides)> {
        self.broker_configs.iter().map(|(&node, overrides)| (node, overrides))
    }

    /// All levels of one broker's configuration; `statics` is what its process was started with.
    pub fn broker_configs<'a>(&'a self, node: NodeId, statics: &'a Overrides) -> BrokerConfigs<'a> {
        BrokerConfigs { node: self.broker_overrides(Some(node)), cluster: self.broker_overrides(None), statics }
    }

    /// Changes the image. Costs what the command names, however large the image is.
    ///
    /// # Errors
    /// The command contradicts the image, which then stays as it was.
    pub fn apply(&mut self, command: &Command) -> Result<(), Contradiction> {
        match command {
            Command::InitCluster { cluster_id } => self.init(cluster_id)?,
            Command::RegisterBroker { node, broker } => {
                let Broker { core_count, core_ports, spared_cores, .. } = broker;
                let in_order = spared_cores.windows(2).all(|pair| pair[0] < pair[1]);
                let within = spared_cores.last().is_none_or(|last| last < core_count);
                let some = spared_cores.len() < usize::from(*core_count);
                check(in_order && within && some, "spared cores are some of a broker's")?;
                check(*core_count >= 1, "a broker has at least one core")?;
                let all = core_ports.is_empty() || core_ports.len() == usize::from(*core_count);
                check(all && (core_ports.is_empty() || node.0 < NODE_WITH_CORES_MAX), "all cores listen, or none")?;
                self.brokers.insert(*node, broker.clone());
            }
            Command::CreateTopic { id, name, partitions, configs } => self.create(*id, name, partitions, configs)?,
            Command::DeleteTopic { id } => self.delete(*id)?,
            Command::AddPartitions { id, first, partitions } => self.add_partitions(*id, *first, partitions)?,
            Command::MovePartition { id, partition, core } => self.move_partition(*id, *partition, *core)?,
            Command::SetTopicConfigs { id, changes } => change(&mut self.topic_mut(*id)?.configs, changes),
            Command::SetBrokerConfigs { node, changes } => {
                let known = node.is_none_or(|node| self.brokers.contains_key(&node));
                check(known, "configuration of an unknown broker")?;
                let overrides = self.broker_configs.entry(*node).or_default();
                change(overrides, changes);
                if overrides.is_empty() {
                    self.broker_configs.remove(node);
                }
            }
            Command::AllocateProducerIds { first, count } => {
                check(*first == self.next_producer_id, "producer ids follow each other")?;
                check(*count >= 1, "a block holds at least one producer id")?;
                let next = first.checked_add(*count).ok_or(Contradiction("producer ids have run out"))?;
                self.next_producer_id = next;
            }
        }
        self.version += 1;
        Ok(())
    }

    fn init(&mut self, cluster_id: &str) -> Result<(), Contradiction> {
        check(self.cluster_id.is_empty() && !cluster_id.is_empty(), "a cluster gets its id once")?;
        cluster_id.clone_into(&mut self.cluster_id);
        Ok(())
    }

    fn create(
        &mut self,
        id: TopicId,
        name: &str,
        partitions: &[Partition],
        configs: &[ConfigChange],
    ) -> Result<(), Contradiction> {
        check(!self.topics.contains_key(&id), "a topic id is given once")?;
        check(!self.by_name.contains_key(name), "a topic's name is its own")?;
        check(self.colliding_topic(name).is_none(), "a topic's name collides with no other")?;
        check(!partitions.is_empty(), "a topic has at least one partition")?;
        self.check_partitions(partitions)?;
        let mut topic = Topic { id, name: name.into(), partitions: partitions.to_vec(), configs: Overrides::new() };
        change(&mut topic.configs, configs);
        self.by_name.insert(name.to_owned(), id);
        if let Some(folded) = names::folded(name) {
            self.by_folded_name.insert(folded, id);
        }
        self.count_in(partitions);
        self.topics.insert(id, topic);
        Ok(())
    }

    fn delete(&mut self, id: TopicId) -> Result<(), Contradiction> {
        let topic = self.topics.remove(&id).ok_or(UNKNOWN_TOPIC)?;
        self.by_name.remove(&*topic.name);
        if let Some(folded) = names::folded(&topic.name) {
            self.by_folded_name.remove(&folded);
        }
        self.partition_count -= topic.partitions.len();
        for partition in &topic.partitions {
            self.unload((partition.leader, partition.core));
        }
        Ok(())
    }

    fn add_partitions(&mut self, id: TopicId, first: i32, partitions: &[Partition]) -> Result<(), Contradiction> {
        self.check_partitions(partitions)?;
        let topic = self.topic_mut(id)?;
        check(usize::try_from(first) == Ok(topic.partitions.len()), "partitions follow each other")?;
        topic.partitions.extend_from_slice(partitions);
        self.count_in(partitions);
        Ok(())
    }

    fn move_partition(&mut self, id: TopicId, index: i32, core: CoreIndex) -> Result<(), Contradiction> {
        let topic = self.topic_mut(id)?;
        let partition = usize::try_from(index).ok().and_then(|index| topic.partitions.get_mut(index));
        let partition = partition.ok_or(Contradiction("an unknown partition cannot move"))?;
        let before = (partition.leader, std::mem::replace(&mut partition.core, core));
        self.unload(before);
        *self.core_loads.entry((before.0, core)).or_default() += 1;
        Ok(())
    }

    fn topic_mut(&mut self, id: TopicId) -> Result<&mut Topic, Contradiction> {
        self.topics.get_mut(&id).ok_or(UNKNOWN_TOPIC)
    }

    fn check_partitions(&self, partitions: &[Partition]) -> Result<(), Contradiction> {
        for partition in partitions {
            let known = partition.replicas.iter().all(|node| self.brokers.contains_key(node));
            check(known, "replicas are on known brokers")?;
            let within = partition.isr.iter().all(|node| partition.replicas.contains(node));
            check(within && partition.isr.contains(&partition.leader), "the leader is in sync, and replicas are")?;
        }
        Ok(())
    }

    fn count_in(&mut self, partitions: &[Partition]) {
        self.partition_count += partitions.len();
        for partition in partitions {
            *self.core_loads.entry((partition.leader, partition.core)).or_default() += 1;
        }
    }

    fn unload(&mut self, owner: (NodeId, CoreIndex)) {
        let load = self.core_loads.get_mut(&owner).expect("the owner of a partition has a load");
        *load -= 1;
        if *load == 0 {
            self.core_loads.remove(&owner);
        }
    }

    /// The image that `snapshot` was taken of, when that was at `version`.
    ///
    /// # Errors
    /// The commands contradict each other, so they are no snapshot.
    pub fn from_snapshot(commands: &[Command], version: u64) -> Result<Image, Contradiction> {
        let mut image = Image::default();
        for command in commands {
            image.apply(command)?;
        }
        image.version = version;
        Ok(image)
    }
}

const UNKNOWN_TOPIC: Contradiction = Contradiction("a command names an unknown topic");

fn check(holds: bool, otherwise: &'static str) -> Result<(), Contradiction> {
    if holds { Ok(()) } else { Err(Contradiction(otherwise)) }
}

fn change(overrides: &mut Overrides, changes: &[ConfigChange]) {
    for (name, value) in changes {
        match value {
            Some(value) => overrides.insert(name.clone(), value.clone()),
            None => overrides.remove(name),
        };
    }
}

#[cfg(test)]
#[path = "image_tests.rs"]
mod tests;
