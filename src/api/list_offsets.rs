//! ListOffsets (key 2): v1–v7.
//! v2 isolation level · v4 leader epochs (KIP-320) · v6 flexible · v7 the record with the largest timestamp (KIP-734)

use super::dispatch::Context;
use super::layout::Layout;
use super::reply::Reply;
use super::work::{ByCore, Start, Step, Work};
use crate::base::error::ErrorCode;
use crate::ports::Disk;
use crate::protocol::messages::list_offsets::{
    ListOffsetsPartitionResponse, ListOffsetsRequest, ListOffsetsResponse, ListOffsetsTopicResponse,
};
use crate::shard::Shard;
use crate::shard::commands::{Answer, Command, ListOffset, ListedOffset, OffsetSpec};

const EARLIEST: i64 = -2;
const LATEST: i64 = -1;
const MAX_TIMESTAMP: i64 = -3;

struct Listing {
    layout: Layout<ListedOffset>,
    correlation_id: i32,
    version: i16,
}

pub fn start<D: Disk>(cx: &mut Context<'_, D>, request: ListOffsetsRequest<'_>, version: i16) -> Start<D> {
    let mut layout = Layout::default();
    let mut parts: ByCore<ListOffset> = ByCore::default();
    for topic in &request.topics {
        let found = cx.topic(topic.name);
        layout.topic(found.name.clone());
        for part in &topic.partitions {
            let index = layout.partition(part.partition_index);
            let asked =
                spec(part.timestamp, version).and_then(|spec| Ok((spec, found.partition(part.partition_index)?)));
            match asked {
                Err(code) => layout.set(index, refused(index, code)),
                Ok((spec, (partition, core))) => {
                    let current_leader_epoch = part.current_leader_epoch;
                    parts.push(core, ListOffset { index, partition, spec, current_leader_epoch });
                }
            }
        }
    }
    let mut work = Listing { layout, correlation_id: cx.correlation_id, version };
    if parts.is_empty() {
        return Start::Reply(work.reply());
    }
    Start::Work { work: Box::new(work), commands: parts.commands(Command::ListOffsets) }
}

fn spec(timestamp: i64, version: i16) -> Result<OffsetSpec, ErrorCode> {
    match timestamp {
        EARLIEST => Ok(OffsetSpec::Earliest),
        LATEST => Ok(OffsetSpec::Latest),
        MAX_TIMESTAMP if version >= 7 => Ok(OffsetSpec::MaxTimestamp),
        0.. => Ok(OffsetSpec::At(timestamp)),
        _ => Err(ErrorCode::UnsupportedVersion),
    }
}

pub fn refused(index: u32, error: ErrorCode) -> ListedOffset {
    ListedOffset { index, error, offset: -1, timestamp: -1, leader_epoch: -1 }
}

impl<D: Disk> Work<D> for Listing {
    fn on_answer(&mut self, answer: Answer<D::File>, _: &mut Shard<D>) -> Step<D::File> {
        let Answer::ListOffsets(results) = answer else { unreachable!("a listing is answered as one") };
        for listed in results {
            self.layout.set(listed.index, listed);
        }
        if self.layout.is_whole() { Step::Done(self.reply()) } else { Step::Wait }
    }
}

impl Listing {
    fn reply<F>(&mut self) -> Reply<F> {
        let partition = |(partition_index, listed): (i32, &mut ListedOffset)| ListOffsetsPartitionResponse {
            partition_index,
            error_code: listed.error.code(),
            timestamp: listed.timestamp,
            offset: listed.offset,
            leader_epoch: listed.leader_epoch,
        };
        let topics = self.layout.topics().map(|(name, partitions)| ListOffsetsTopicResponse {
            name,
            partitions: partitions.map(partition).collect(),
        });
        let response = ListOffsetsResponse { topics: topics.collect(), ..Default::default() };
        Reply::encode(self.correlation_id, self.version, &response)
    }
}
