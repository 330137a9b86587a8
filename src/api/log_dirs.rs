//! DescribeLogDirs (key 35): v1–v4 (KIP-113).
//! v2 flexible · v3 an error for the whole · v4 total and usable bytes (KIP-827)
//!
//! Every core tells the sizes of its partitions; this core asks the disks what is free. Total bytes are told as unknown (-1).
//! Topics and partitions that are not there are left out, as in Kafka.

use super::dispatch::Context;
use super::reply::Reply;
use super::work::{ByCore, Start, Step, Work};
use crate::base::ids::PartitionId;
use crate::cluster::image::Image;
use crate::ports::Disk;
use crate::protocol::messages::describe_log_dirs::{
    DescribableLogDirTopic, DescribeLogDirsPartition, DescribeLogDirsRequest, DescribeLogDirsResponse,
    DescribeLogDirsResult, DescribeLogDirsTopic,
};
use crate::shard::Shard;
use crate::shard::commands::{Answer, Command, PartitionSize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

struct Describing {
    sizes: Vec<PartitionSize>,
    space: Vec<(PathBuf, Option<u64>)>,
    /// Answers that are still to come.
    missing: usize,
    correlation_id: i32,
    version: i16,
}

pub fn start<D: Disk>(cx: &Context<'_, D>, request: &DescribeLogDirsRequest<'_>, version: i16) -> Start<D> {
    let mut commands = match &request.topics {
        None => cx.shard.cores().map(|core| (core, Command::PartitionSizes(None))).collect(),
        Some(topics) => asked(cx, topics).commands(|partitions| Command::PartitionSizes(Some(partitions))),
    };
    commands.push((cx.core, Command::DiskSpace));
    let missing = commands.len();
    let correlation_id = cx.correlation_id;
    let work = Describing { sizes: vec![], space: vec![], missing, correlation_id, version };
    Start::Work { work: Box::new(work), commands }
}

/// The partitions that the request names, each once, by core.
fn asked<D: Disk>(cx: &Context<'_, D>, topics: &[DescribableLogDirTopic<'_>]) -> ByCore<PartitionId> {
    let mut partitions = BTreeSet::new();
    for topic in topics {
        let found = cx.topic(topic.topic);
        partitions.extend(topic.partitions.iter().filter_map(|index| found.partition(*index).ok()));
    }
    let mut by_core = ByCore::default();
    partitions.into_iter().for_each(|(partition, core)| by_core.push(core, partition));
    by_core
}

impl<D: Disk> Work<D> for Describing {
    fn on_answer(&mut self, answer: Answer<D::File>, shard: &mut Shard<D>) -> Step<D::File> {
        match answer {
            Answer::PartitionSizes(sizes) => self.sizes.extend(sizes),
            Answer::DiskSpace(space) => self.space = space,
            _ => unreachable!("cores were asked for sizes and for space"),
        }
        self.missing -= 1;
        if self.missing > 0 { Step::Wait } else { Step::Done(self.reply(shard.image())) }
    }
}

impl Describing {
    fn reply<F>(&self, image: &Image) -> Reply<F> {
        let dirs: Vec<_> = self.space.iter().map(|(dir, _)| dir.to_string_lossy()).collect();
        let results = self.space.iter().zip(&dirs).enumerate().map(|(index, ((_, usable), dir))| {
            let sizes = self.sizes.iter().filter(|size| size.data_dir == index);
            DescribeLogDirsResult {
                log_dir: dir,
                topics: topics(sizes, image),
                usable_bytes: usable.map_or(-1, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX)),
                ..Default::default()
            }
        });
        let response = DescribeLogDirsResponse { results: results.collect(), ..Default::default() };
        Reply::encode(self.correlation_id, self.version, &response)
    }
}

/// By name and index. Topics that have been deleted meanwhile are left out.
fn topics<'a>(sizes: impl Iterator<Item = &'a PartitionSize>, image: &'a Image) -> Vec<DescribeLogDirsTopic<'a>> {
    let mut topics: BTreeMap<&str, BTreeMap<i32, u64>> = BTreeMap::new();
    for size in sizes {
        if let Some(topic) = image.topic(size.partition.topic) {
            topics.entry(&topic.name).or_default().insert(size.partition.index, size.bytes);
        }
    }
    let partition = |(partition_index, bytes): (i32, u64)| DescribeLogDirsPartition {
        partition_index,
        partition_size: i64::try_from(bytes).unwrap_or(i64::MAX),
        ..Default::default()
    };
    topics
        .into_iter()
        .map(|(name, partitions)| DescribeLogDirsTopic {
            name,
            partitions: partitions.into_iter().map(partition).collect(),
        })
        .collect()
}
