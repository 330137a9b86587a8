//! Which brokers hold a new partition, and which core of its leader owns it.
//!
//! Spread, not hashed: each topic is dealt out evenly over its leaders' cores, what is left over goes to the cores with the
//! fewest partitions. Moves nothing that already has a place.

use crate::base::ids::{CoreIndex, NodeId};
use crate::cluster::image::{Broker, Image, Partition};
use std::collections::BTreeMap;

/// Places partitions on top of an image, for commands that are not applied to it yet.
pub(super) struct Placement<'a> {
    image: &'a Image,
    /// Partitions led by each core, with those placed here; `None` for one that is spared. Filled for a broker when it is first needed.
    loads: BTreeMap<NodeId, Vec<Option<u32>>>,
    /// Partitions placed here and not in the image.
    placed: usize,
}

impl<'a> Placement<'a> {
    pub(super) fn new(image: &'a Image) -> Placement<'a> {
        Placement { image, loads: BTreeMap::new(), placed: 0 }
    }

    /// Partitions of the image and those placed here.
    pub(super) fn partition_count(&self) -> usize {
        self.image.partition_count() + self.placed
    }

    /// Brokers for `count` partitions with `replication_factor` replicas each, leaders taking turns.
    /// There must be as many brokers.
    pub(super) fn spread_replicas(&self, count: usize, replication_factor: usize) -> Vec<Box<[NodeId]>> {
        let brokers: Vec<NodeId> = self.image.brokers().map(|(node, _)| node).collect();
        assert!((1..=brokers.len()).contains(&replication_factor));
        let start = self.partition_count();
        (start..start + count)
            .map(|turn| (turn..turn + replication_factor).map(|at| brokers[at % brokers.len()]).collect())
            .collect()
    }

    /// Gives each of the partitions, named by their replicas, a core of its leader. `existing` are those the topic has already.
    pub(super) fn place(&mut self, existing: &[Partition], replicas: Vec<Box<[NodeId]>>) -> Vec<Partition> {
        let mut of_topic = TopicLoads::of(existing);
        replicas
            .into_iter()
            .map(|replicas| {
                let leader = replicas[0];
                let core = self.take_core(leader, &mut of_topic);
                self.placed += 1;
                Partition { leader, leader_epoch: 0, core, isr: replicas.clone(), replicas }
            })
            .collect()
    }

    /// The core of `leader` that gets the topic's next partition: the one with the fewest of this topic, among those the one
    /// with the fewest of all.
    pub(super) fn take_core(&mut self, leader: NodeId, of_topic: &mut TopicLoads) -> CoreIndex {
        let image = self.image;
        let loads = self.loads.entry(leader).or_insert_with(|| match image.broker(leader) {
            Some(broker) => loads_of(image, leader, broker),
            None => vec![Some(0)],
        });
        let of_topic = of_topic.loads.entry(leader).or_default();
        of_topic.resize(of_topic.len().max(loads.len()), 0);
        let open = loads.iter_mut().enumerate().filter_map(|(core, load)| Some((core, load.as_mut()?)));
        let (core, load) = open.min_by_key(|(core, load)| (of_topic[*core], **load)).expect("not all cores are spared");
        of_topic[core] += 1;
        *load += 1;
        CoreIndex(core as u16)
    }

    /// For a broker that is about to have other cores than the image says.
    pub(super) fn set_broker(&mut self, node: NodeId, broker: &Broker) {
        self.loads.insert(node, loads_of(self.image, node, broker));
    }
}

fn loads_of(image: &Image, node: NodeId, broker: &Broker) -> Vec<Option<u32>> {
    let load = |core| (!broker.spared_cores.contains(&core)).then(|| image.core_load(node, CoreIndex(core)));
    (0..broker.core_count).map(load).collect()
}

/// Partitions of one topic on each core.
#[derive(Default)]
pub(super) struct TopicLoads {
    loads: BTreeMap<NodeId, Vec<u32>>,
}

impl TopicLoads {
    pub(super) fn of(partitions: &[Partition]) -> TopicLoads {
        let mut loads: BTreeMap<NodeId, Vec<u32>> = BTreeMap::new();
        for partition in partitions {
            let cores = loads.entry(partition.leader).or_default();
            let core = usize::from(partition.core.0);
            cores.resize(cores.len().max(core + 1), 0);
            cores[core] += 1;
        }
        TopicLoads { loads }
    }
}
