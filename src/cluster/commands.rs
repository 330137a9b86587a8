//! Commands: the only way to change the image, and the records of the metadata log.
//!
//! A command says what has been decided, with all ids in it; it is valid or not by itself and by the image, never by a clock.
//! Encoding: version, kind, fields; damage is found by the batch that carries them.

use super::image::{Broker, Partition};
use crate::base::fields::{Fields, FieldsError, put_text};
use crate::base::ids::{CoreIndex, NodeId, TopicId};

const VERSION: u8 = 1;

/// One configuration key set, or taken back where the value is `None`.
pub type ConfigChange = (String, Option<String>);

/// One change of the cluster's metadata.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// The first command of a new cluster.
    InitCluster {
        cluster_id: String,
    },
    /// A broker is there, or has other addresses or another number of cores than before.
    RegisterBroker {
        node: NodeId,
        broker: Broker,
    },
    /// A topic with all its partitions, counted from 0.
    CreateTopic {
        id: TopicId,
        name: String,
        partitions: Vec<Partition>,
        configs: Vec<ConfigChange>,
    },
    DeleteTopic {
        id: TopicId,
    },
    /// Further partitions of a topic, counted from `first`, which is how many it has.
    AddPartitions {
        id: TopicId,
        first: i32,
        partitions: Vec<Partition>,
    },
    /// A partition is owned by another core of its leader from here on.
    MovePartition {
        id: TopicId,
        partition: i32,
        core: CoreIndex,
    },
    SetTopicConfigs {
        id: TopicId,
        changes: Vec<ConfigChange>,
    },
    /// Of one broker, or of all where `node` is `None`.
    SetBrokerConfigs {
        node: Option<NodeId>,
        changes: Vec<ConfigChange>,
    },
    /// Producer ids `first..first + count` are handed out by one coordinator; `first` is where the last block ended.
    AllocateProducerIds {
        first: i64,
        count: i64,
    },
}

const INIT_CLUSTER: u8 = 1;
const REGISTER_BROKER: u8 = 2;
const CREATE_TOPIC: u8 = 3;
const DELETE_TOPIC: u8 = 4;
const ADD_PARTITIONS: u8 = 5;
const MOVE_PARTITION: u8 = 6;
const SET_TOPIC_CONFIGS: u8 = 7;
const SET_BROKER_CONFIGS: u8 = 8;
const ALLOCATE_PRODUCER_IDS: u8 = 9;
/// As `REGISTER_BROKER`, with the port of each core behind it.
const REGISTER_BROKER_WITH_CORES: u8 = 10;
/// As `REGISTER_BROKER`, with the number of core ports, those, the number of spared cores and those behind it.
const REGISTER_BROKER_IN_FULL: u8 = 11;

/// A node id that means "all brokers"; real ones are at least 0.
const ALL_NODES: i32 = -1;

impl Command {
    /// The bytes of this command, as a record's value.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION, self.kind()];
        match self {
            Command::InitCluster { cluster_id } => put_text(&mut out, cluster_id),
            Command::RegisterBroker { node, broker } => {
                out.extend_from_slice(&node.0.to_be_bytes());
                put_text(&mut out, &broker.host);
                let (ports, spared) = (&broker.core_ports, &broker.spared_cores);
                let counts = match spared.is_empty() {
                    true => [None, None],
                    false => [Some(ports.len() as u16), Some(spared.len() as u16)],
                };
                let head = [broker.port, broker.core_count].into_iter().chain(counts[0]).chain(ports.iter().copied());
                for number in head.chain(counts[1]).chain(spared.iter().copied()) {
                    out.extend_from_slice(&number.to_be_bytes());
                }
            }
            Command::CreateTopic { id, name, partitions, configs } => {
                out.extend_from_slice(&id.0);
                put_text(&mut out, name);
                put_partitions(&mut out, partitions);
                put_changes(&mut out, configs);
            }
            Command::DeleteTopic { id } => out.extend_from_slice(&id.0),
            Command::AddPartitions { id, first, partitions } => {
                out.extend_from_slice(&id.0);
                out.extend_from_slice(&first.to_be_bytes());
                put_partitions(&mut out, partitions);
            }
            Command::MovePartition { id, partition, core } => {
                out.extend_from_slice(&id.0);
                out.extend_from_slice(&partition.to_be_bytes());
                out.extend_from_slice(&core.0.to_be_bytes());
            }
            Command::SetTopicConfigs { id, changes } => {
                out.extend_from_slice(&id.0);
                put_changes(&mut out, changes);
            }
            Command::SetBrokerConfigs { node, changes } => {
                out.extend_from_slice(&node.map_or(ALL_NODES, |node| node.0).to_be_bytes());
                put_changes(&mut out, changes);
            }
            Command::AllocateProducerIds { first, count } => {
                out.extend_from_slice(&first.to_be_bytes());
                out.extend_from_slice(&count.to_be_bytes());
            }
        }
        out
    }

    fn kind(&self) -> u8 {
        match self {
            Command::InitCluster { .. } => INIT_CLUSTER,
            Command::RegisterBroker { broker, .. } if !broker.spared_cores.is_empty() => REGISTER_BROKER_IN_FULL,
            Command::RegisterBroker { broker, .. } if broker.core_ports.is_empty() => REGISTER_BROKER,
            Command::RegisterBroker { .. } => REGISTER_BROKER_WITH_CORES,
            Command::CreateTopic { .. } => CREATE_TOPIC,
            Command::DeleteTopic { .. } => DELETE_TOPIC,
            Command::AddPartitions { .. } => ADD_PARTITIONS,
            Command::MovePartition { .. } => MOVE_PARTITION,
            Command::SetTopicConfigs { .. } => SET_TOPIC_CONFIGS,
            Command::SetBrokerConfigs { .. } => SET_BROKER_CONFIGS,
            Command::AllocateProducerIds { .. } => ALLOCATE_PRODUCER_IDS,
        }
    }

    /// Reads what [`Command::encode`] wrote. Takes no more memory than the bytes justify.
    ///
    /// # Errors
    /// `Version` for a version of this encoding that is not known; `Malformed` for all else, also an unknown kind.
    pub fn decode(bytes: &[u8]) -> Result<Command, FieldsError> {
        let mut from = Fields::new(bytes);
        let version = from.u8()?;
        if version != VERSION {
            return Err(FieldsError::Version(version));
        }
        let command = match from.u8()? {
            INIT_CLUSTER => Command::InitCluster { cluster_id: from.text()?.to_owned() },
            kind @ (REGISTER_BROKER | REGISTER_BROKER_WITH_CORES | REGISTER_BROKER_IN_FULL) => {
                register(&mut from, kind)?
            }
            CREATE_TOPIC => Command::CreateTopic {
                id: TopicId(from.array()?),
                name: from.text()?.to_owned(),
                partitions: partitions(&mut from)?,
                configs: changes(&mut from)?,
            },
            DELETE_TOPIC => Command::DeleteTopic { id: TopicId(from.array()?) },
            ADD_PARTITIONS => Command::AddPartitions {
                id: TopicId(from.array()?),
                first: from.i32()?,
                partitions: partitions(&mut from)?,
            },
            MOVE_PARTITION => Command::MovePartition {
                id: TopicId(from.array()?),
                partition: from.i32()?,
                core: CoreIndex(from.u16()?),
            },
            SET_TOPIC_CONFIGS => Command::SetTopicConfigs { id: TopicId(from.array()?), changes: changes(&mut from)? },
            SET_BROKER_CONFIGS => Command::SetBrokerConfigs {
                node: match from.i32()? {
                    ALL_NODES => None,
                    id if id >= 0 => Some(NodeId(id)),
                    _ => return Err(FieldsError::Malformed),
                },
                changes: changes(&mut from)?,
            },
            ALLOCATE_PRODUCER_IDS => Command::AllocateProducerIds { first: from.i64()?, count: from.i64()? },
            _ => return Err(FieldsError::Malformed),
        };
        from.end()?;
        Ok(command)
    }
}

fn register(from: &mut Fields<'_>, kind: u8) -> Result<Command, FieldsError> {
    let (node, host, port, core_count) = (node(from)?, from.text()?.to_owned(), from.u16()?, from.u16()?);
    let core_ports = match kind {
        REGISTER_BROKER => vec![],
        REGISTER_BROKER_WITH_CORES => numbers(from, core_count)?,
        _ => {
            let count = from.u16()?;
            numbers(from, count)?
        }
    };
    let spared_cores = match kind {
        REGISTER_BROKER_IN_FULL => {
            let count = from.u16()?;
            numbers(from, count)?
        }
        _ => vec![],
    };
    Ok(Command::RegisterBroker { node, broker: Broker { host, port, core_count, core_ports, spared_cores } })
}

fn numbers(from: &mut Fields<'_>, count: u16) -> Result<Vec<u16>, FieldsError> {
    if usize::from(count) > from.remaining() / 2 {
        return Err(FieldsError::Malformed);
    }
    (0..count).map(|_| from.u16()).collect()
}

/// Bytes of a partition with one replica that is in sync: leader, epoch, core, two counts, two node ids.
const PARTITION_BYTES_MIN: usize = 4 + 4 + 2 + 1 + 1 + 4 + 4;
/// Bytes of a configuration change with an empty name and no value.
const CHANGE_BYTES_MIN: usize = 2 + 1;

fn put_partitions(out: &mut Vec<u8>, partitions: &[Partition]) {
    out.extend_from_slice(&(partitions.len() as u32).to_be_bytes());
    for partition in partitions {
        out.extend_from_slice(&partition.leader.0.to_be_bytes());
        out.extend_from_slice(&partition.leader_epoch.to_be_bytes());
        out.extend_from_slice(&partition.core.0.to_be_bytes());
        for nodes in [&partition.replicas, &partition.isr] {
            out.push(u8::try_from(nodes.len()).expect("a partition has at most 255 replicas"));
            out.extend(nodes.iter().flat_map(|node| node.0.to_be_bytes()));
        }
    }
}

fn partitions(from: &mut Fields<'_>) -> Result<Vec<Partition>, FieldsError> {
    let count = from.u32()? as usize;
    if count > from.remaining() / PARTITION_BYTES_MIN {
        return Err(FieldsError::Malformed);
    }
    (0..count)
        .map(|_| {
            Ok(Partition {
                leader: node(from)?,
                leader_epoch: not_negative(from.i32()?)?,
                core: CoreIndex(from.u16()?),
                replicas: nodes(from)?,
                isr: nodes(from)?,
            })
        })
        .collect()
}

fn node(from: &mut Fields<'_>) -> Result<NodeId, FieldsError> {
    Ok(NodeId(not_negative(from.i32()?)?))
}

fn not_negative(number: i32) -> Result<i32, FieldsError> {
    if number >= 0 { Ok(number) } else { Err(FieldsError::Malformed) }
}

fn nodes(from: &mut Fields<'_>) -> Result<Box<[NodeId]>, FieldsError> {
    let count = from.u8()?;
    if count == 0 {
        return Err(FieldsError::Malformed);
    }
    (0..count).map(|_| node(from)).collect()
}

fn put_changes(out: &mut Vec<u8>, changes: &[ConfigChange]) {
    out.extend_from_slice(&(changes.len() as u32).to_be_bytes());
    for (name, value) in changes {
        put_text(out, name);
        out.push(u8::from(value.is_some()));
        if let Some(value) = value {
            put_text(out, value);
        }
    }
}

fn changes(from: &mut Fields<'_>) -> Result<Vec<ConfigChange>, FieldsError> {
    let count = from.u32()? as usize;
    if count > from.remaining() / CHANGE_BYTES_MIN {
        return Err(FieldsError::Malformed);
    }
    (0..count)
        .map(|_| {
            let name = from.text()?.to_owned();
            let value = match from.u8()? {
                0 => None,
                1 => Some(from.text()?.to_owned()),
                _ => return Err(FieldsError::Malformed),
            };
            Ok((name, value))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text() -> impl Strategy<Value = String> {
        "[a-z.ű]{0,12}"
    }

    fn partition() -> impl Strategy<Value = Partition> {
        let nodes = || prop::collection::vec((0..9i32).prop_map(NodeId), 1..4).prop_map(Vec::into_boxed_slice);
        (0..9i32, 0..9i32, 0..9u16, nodes(), nodes()).prop_map(|(leader, leader_epoch, core, replicas, isr)| {
            Partition { leader: NodeId(leader), leader_epoch, core: CoreIndex(core), replicas, isr }
        })
    }

    fn any_command() -> impl Strategy<Value = Command> {
        let id = || any::<[u8; 16]>().prop_map(TopicId);
        let changes = || prop::collection::vec((text(), prop::option::of(text())), 0..4);
        let partitions = || prop::collection::vec(partition(), 0..4);
        prop_oneof![
            text().prop_map(|cluster_id| Command::InitCluster { cluster_id }),
            (0..i32::MAX, text(), any::<u16>(), any::<u16>(), any::<bool>()).prop_map(
                |(node, host, port, core_count, with_cores)| {
                    let spared_cores = (0..port % 3).collect();
                    let core_count = if with_cores { 1 + core_count % 4 } else { core_count };
                    let core_ports = (0..core_count).filter(|_| with_cores).map(|core| port ^ core).collect();
                    Command::RegisterBroker {
                        node: NodeId(node),
                        broker: Broker { host, port, core_count, core_ports, spared_cores },
                    }
                }
            ),
            (id(), text(), partitions(), changes()).prop_map(|(id, name, partitions, configs)| Command::CreateTopic {
                id,
                name,
                partitions,
                configs
            }),
            id().prop_map(|id| Command::DeleteTopic { id }),
            (id(), any::<i32>(), partitions()).prop_map(|(id, first, partitions)| Command::AddPartitions {
                id,
                first,
                partitions
            }),
            (id(), any::<i32>(), any::<u16>()).prop_map(|(id, partition, core)| Command::MovePartition {
                id,
                partition,
                core: CoreIndex(core)
            }),
            (id(), changes()).prop_map(|(id, changes)| Command::SetTopicConfigs { id, changes }),
            (prop::option::of(0..9i32), changes())
                .prop_map(|(node, changes)| Command::SetBrokerConfigs { node: node.map(NodeId), changes }),
            (any::<i64>(), any::<i64>()).prop_map(|(first, count)| Command::AllocateProducerIds { first, count }),
        ]
    }

    proptest! {
        #[test]
        fn commands_read_back_and_every_cut_is_found(command in any_command()) {
            let bytes = command.encode();
            prop_assert_eq!(Command::decode(&bytes), Ok(command));
            for end in 0..bytes.len() {
                prop_assert!(Command::decode(&bytes[..end]).is_err());
            }
            let mut longer = bytes;
            longer.push(0);
            prop_assert!(Command::decode(&longer).is_err());
        }

        #[test]
        fn damaged_commands_end_in_a_value_or_an_error(command in any_command(), at in any::<prop::sample::Index>(), to in any::<u8>()) {
            let mut bytes = command.encode();
            let at = at.index(bytes.len());
            bytes[at] = to;
            let _ = Command::decode(&bytes);
        }

        #[test]
        fn random_bytes_end_in_a_value_or_an_error(kind in 0..12u8, body in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = Command::decode(&[&[VERSION, kind], &body[..]].concat());
            let _ = Command::decode(&body);
        }
    }

    #[test]
    fn a_count_without_bytes_behind_it_takes_no_memory() {
        for kind in [SET_TOPIC_CONFIGS, CREATE_TOPIC, ADD_PARTITIONS] {
            let bytes = [&[VERSION, kind], &[0; 16][..], &[0xff; 20]].concat();
            assert_eq!(Command::decode(&bytes), Err(FieldsError::Malformed));
        }
        assert_eq!(Command::decode(&[9, 1]), Err(FieldsError::Version(9)));
    }
}
