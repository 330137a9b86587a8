//! DeleteRecords (key 21): v0–v2 (KIP-107).
//! v2 flexible
//! Answered when the new starts are durable. Internal topics are left alone, as in Kafka.

use super::dispatch::Context;
use super::layout::Layout;
use super::reply::Reply;
use super::work::{ByCore, Start, Step, Work};
use crate::base::error::ErrorCode;
use crate::cluster::names;
use crate::ports::Disk;
use crate::protocol::messages::delete_records::{
    DeleteRecordsPartitionResult, DeleteRecordsRequest, DeleteRecordsResponse, DeleteRecordsTopicResult,
};
use crate::shard::Shard;
use crate::shard::commands::{Answer, Command, DeleteRecords, DeletedRecords};

struct Deleting {
    layout: Layout<DeletedRecords>,
    correlation_id: i32,
    version: i16,
}

pub fn start<D: Disk>(cx: &Context<'_, D>, request: &DeleteRecordsRequest<'_>, version: i16) -> Start<D> {
    let mut layout = Layout::default();
    let mut parts: ByCore<DeleteRecords> = ByCore::default();
    for topic in &request.topics {
        let found = cx.topic(topic.name);
        layout.topic(found.name.clone());
        for part in &topic.partitions {
            let index = layout.partition(part.partition_index);
            let owned = match names::is_internal(topic.name) {
                true => Err(ErrorCode::InvalidTopic),
                false => found.partition(part.partition_index),
            };
            match owned {
                Err(code) => layout.set(index, DeletedRecords::refused(index, code)),
                Ok((partition, core)) => parts.push(core, DeleteRecords { index, partition, before: part.offset }),
            }
        }
    }
    let mut work = Deleting { layout, correlation_id: cx.correlation_id, version };
    if parts.is_empty() {
        return Start::Reply(work.reply());
    }
    Start::Work { work: Box::new(work), commands: parts.commands(Command::DeleteRecords) }
}

impl<D: Disk> Work<D> for Deleting {
    fn on_answer(&mut self, answer: Answer<D::File>, _: &mut Shard<D>) -> Step<D::File> {
        let Answer::DeletedRecords(deleted) = answer else { unreachable!("records were to be deleted") };
        self.layout.set(deleted.index, deleted);
        if self.layout.is_whole() { Step::Done(self.reply()) } else { Step::Wait }
    }
}

impl Deleting {
    fn reply<F>(&mut self) -> Reply<F> {
        let partition = |(partition_index, deleted): (i32, &mut DeletedRecords)| DeleteRecordsPartitionResult {
            partition_index,
            low_watermark: deleted.low_watermark,
            error_code: deleted.error.code(),
        };
        let topics = self.layout.topics().map(|(name, partitions)| DeleteRecordsTopicResult {
            name,
            partitions: partitions.map(partition).collect(),
        });
        let response = DeleteRecordsResponse { topics: topics.collect(), ..Default::default() };
        Reply::encode(self.correlation_id, self.version, &response)
    }
}
