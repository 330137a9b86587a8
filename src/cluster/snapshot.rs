//! The image as commands again, slice by slice, and the way back: with a snapshot the metadata log can be begun anew.
//!
//! Commands are deltas, so replay must know where a snapshot begins and that it is whole: its records bear a key of one byte
//! ([`SnapshotKey`]), records of plain commands bear none. One that a crash has cut off counts for nothing.

use super::commands::Command;
use super::image::{Contradiction, Image, Topic};
use crate::base::ids::TopicId;

/// Partitions in one command; a topic with more takes several. 512 are about 12 KiB.
const PARTITIONS_PER_COMMAND_MAX: usize = 512;

/// Where the next slice of a snapshot begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SnapshotCursor(Place);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    /// The command of this number among those that are about no topic; they are few.
    Head(usize),
    /// Of the first topic with this id or a greater one, from this partition on.
    Topic(TopicId, usize),
}

/// One record of a snapshot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SnapshotRecord {
    pub key: [u8; 1],
    pub value: Vec<u8>,
}

/// Records that fit one turn, and where to go on. `None`: that was all.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SnapshotSlice {
    pub records: Vec<SnapshotRecord>,
    pub next: Option<SnapshotCursor>,
}

/// What the key of a snapshot's record says: whether the snapshot begins with it, and whether it ends with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct SnapshotKey {
    begins: bool,
    ends: bool,
}

impl SnapshotKey {
    fn encode(self) -> [u8; 1] {
        [u8::from(self.begins) | u8::from(self.ends) << 1]
    }

    fn decode(key: &[u8]) -> Result<SnapshotKey, Contradiction> {
        match key {
            [bits @ 0..=3] => Ok(SnapshotKey { begins: bits & 1 != 0, ends: bits & 2 != 0 }),
            _ => Err(Contradiction("a record with a key is part of a snapshot")),
        }
    }
}

impl Image {
    /// Commands that make this image from an empty one.
    pub fn snapshot(&self) -> Vec<Command> {
        self.commands_from(Place::Head(0)).map(|(_, command)| command).collect()
    }

    /// Those of the commands from `from` on, or from the first, that together take about `bytes_max`; at least one.
    ///
    /// The slices of one snapshot follow each other in the log with nothing between them, and must be of the same image.
    pub fn snapshot_slice(&self, from: Option<SnapshotCursor>, bytes_max: usize) -> SnapshotSlice {
        let begin = from.map_or(Place::Head(0), |SnapshotCursor(place)| place);
        let mut slice = SnapshotSlice { records: Vec::new(), next: None };
        let mut bytes = 0;
        for (place, command) in self.commands_from(begin) {
            if bytes >= bytes_max && !slice.records.is_empty() {
                slice.next = Some(SnapshotCursor(place));
                return slice;
            }
            let begins = from.is_none() && slice.records.is_empty();
            let value = command.encode();
            bytes += value.len();
            slice.records.push(SnapshotRecord { key: SnapshotKey { begins, ends: false }.encode(), value });
        }
        let begins = from.is_none() && slice.records.len() == 1;
        if let Some(last) = slice.records.last_mut() {
            last.key = SnapshotKey { begins, ends: true }.encode();
        }
        slice
    }

    /// The commands from a place on, each with its own.
    fn commands_from(&self, place: Place) -> impl Iterator<Item = (Place, Command)> {
        let (head, topic, partition) = match place {
            Place::Head(at) => (self.head_commands().split_off(at), TopicId([0; 16]), 0),
            Place::Topic(id, partition) => (Vec::new(), id, partition),
        };
        let first = match place {
            Place::Head(at) => at,
            Place::Topic(..) => 0,
        };
        let head = (first..).map(Place::Head).zip(head);
        let topics = self.topics_from(topic).flat_map(move |found| {
            let from = if found.id == topic { partition } else { 0 };
            (from..found.partitions.len())
                .step_by(PARTITIONS_PER_COMMAND_MAX)
                .map(move |from| (Place::Topic(found.id, from), topic_command(found, from)))
        });
        head.chain(topics)
    }

    fn head_commands(&self) -> Vec<Command> {
        let mut commands = Vec::new();
        if !self.cluster_id().is_empty() {
            commands.push(Command::InitCluster { cluster_id: self.cluster_id().to_owned() });
        }
        let brokers = self.brokers();
        commands.extend(brokers.map(|(node, broker)| Command::RegisterBroker { node, broker: broker.clone() }));
        commands.extend(
            self.all_broker_overrides()
                .map(|(node, overrides)| Command::SetBrokerConfigs { node, changes: as_changes(overrides) }),
        );
        if self.next_producer_id() > 0 {
            commands.push(Command::AllocateProducerIds { first: 0, count: self.next_producer_id() });
        }
        commands
    }
}

/// The command for the topic's partitions from `from` on.
fn topic_command(topic: &Topic, from: usize) -> Command {
    let to = topic.partitions.len().min(from + PARTITIONS_PER_COMMAND_MAX);
    let partitions = topic.partitions[from..to].to_vec();
    match from {
        0 => Command::CreateTopic {
            id: topic.id,
            name: topic.name.to_string(),
            partitions,
            configs: as_changes(&topic.configs),
        },
        _ => Command::AddPartitions { id: topic.id, first: from as i32, partitions },
    }
}

fn as_changes(overrides: &super::configs::Overrides) -> Vec<super::commands::ConfigChange> {
    overrides.iter().map(|(name, value)| (name.clone(), Some(value.clone()))).collect()
}

/// The metadata log while it is read from its start.
#[derive(Debug, Default)]
pub struct Replay {
    image: Image,
    /// Of the snapshot that is being read.
    unfinished: Option<Image>,
}

impl Replay {
    /// Takes in the next record.
    ///
    /// # Errors
    /// It cannot follow on what was read before: the log is damaged.
    pub fn take(&mut self, key: Option<&[u8]>, command: &Command) -> Result<(), Contradiction> {
        let Some(key) = key else {
            // Whoever wrote this had not ended its snapshot, so it was a later process, and this follows on the image.
            self.unfinished = None;
            return self.image.apply(command);
        };
        let key = SnapshotKey::decode(key)?;
        if key.begins {
            self.unfinished = Some(Image::default());
        }
        let image = self.unfinished.as_mut().ok_or(Contradiction("a snapshot begins with its first record"))?;
        image.apply(command)?;
        if key.ends {
            self.image = self.unfinished.take().expect("looked at above");
        }
        Ok(())
    }

    /// The image as of the last record.
    pub fn finish(self) -> Image {
        self.image
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::{CoreIndex, NodeId};
    use crate::cluster::image::{Broker, Partition};

    fn partitions(count: usize) -> Vec<Partition> {
        let replicas: Box<[NodeId]> = [NodeId(1)].into();
        let partition =
            Partition { leader: NodeId(1), leader_epoch: 0, core: CoreIndex(0), isr: replicas.clone(), replicas };
        vec![partition; count]
    }

    fn image() -> Image {
        let changes = vec![("message.max.bytes".to_owned(), Some("5".to_owned()))];
        let mut commands = vec![
            Command::InitCluster { cluster_id: "c".to_owned() },
            Command::RegisterBroker {
                node: NodeId(1),
                broker: Broker {
                    host: "h".to_owned(),
                    port: 1,
                    core_count: 2,
                    core_ports: vec![5, 6],
                    spared_cores: vec![1],
                },
            },
            Command::SetBrokerConfigs { node: None, changes: changes.clone() },
            Command::AllocateProducerIds { first: 0, count: 1000 },
        ];
        for (number, count) in
            [1, PARTITIONS_PER_COMMAND_MAX, 3 * PARTITIONS_PER_COMMAND_MAX + 1].into_iter().enumerate()
        {
            let (id, name) = (TopicId([number as u8; 16]), format!("topic-{number}"));
            let configs = changes.clone();
            commands.push(Command::CreateTopic { id, name, partitions: partitions(count), configs });
        }
        Image::from_snapshot(&commands, 0).expect("commands follow each other")
    }

    fn records(image: &Image, bytes_max: usize) -> Vec<SnapshotRecord> {
        let mut records = Vec::new();
        let mut cursor = None;
        loop {
            let slice = image.snapshot_slice(cursor, bytes_max);
            assert!(!slice.records.is_empty());
            records.extend(slice.records);
            cursor = slice.next;
            if cursor.is_none() {
                return records;
            }
        }
    }

    fn take(replay: &mut Replay, record: &SnapshotRecord) -> Result<(), Contradiction> {
        replay.take(Some(&record.key), &Command::decode(&record.value).expect("encoded"))
    }

    fn same(left: &Image, right: &Image) {
        assert_eq!(Image::from_snapshot(&left.snapshot(), 0), Image::from_snapshot(&right.snapshot(), 0));
    }

    #[test]
    fn slices_of_any_size_rebuild_the_image() {
        let image = image();
        for bytes_max in [0, 1, 100, 20_000, usize::MAX] {
            let mut replay = Replay::default();
            for record in records(&image, bytes_max) {
                take(&mut replay, &record).expect("follows");
            }
            same(&replay.finish(), &image);
        }
    }

    #[test]
    fn a_snapshot_that_was_cut_off_counts_for_nothing() {
        let image = image();
        let records = records(&image, 0);
        let more = Command::AllocateProducerIds { first: 1000, count: 1000 };
        for cut in 0..records.len() {
            let mut replay = Replay { image: image.clone(), unfinished: None };
            records[..cut].iter().for_each(|record| take(&mut replay, record).expect("follows"));
            replay.take(None, &more).expect("follows on the image before the snapshot");
            records[..cut].iter().for_each(|record| take(&mut replay, record).expect("follows"));
            let mut expected = image.clone();
            expected.apply(&more).expect("follows");
            same(&replay.finish(), &expected);
        }
    }

    #[test]
    fn a_snapshot_without_its_beginning_is_damage() {
        let records = records(&image(), 0);
        for record in &records[1..] {
            assert!(take(&mut Replay::default(), record).is_err());
        }
        let command = Command::decode(&records[0].value).expect("encoded");
        for key in [&[][..], &[4], &[0xff], &[1, 1]] {
            assert!(Replay::default().take(Some(key), &command).is_err(), "{key:?}");
        }
    }

    #[test]
    fn an_image_of_one_command_is_a_snapshot() {
        let only = Command::InitCluster { cluster_id: "c".to_owned() };
        let image = Image::from_snapshot(&[only], 0).expect("follows");
        let mut replay = Replay::default();
        for record in records(&image, 0) {
            take(&mut replay, &record).expect("follows");
        }
        same(&replay.finish(), &image);
    }
}
