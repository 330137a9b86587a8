//! OffsetForLeaderEpoch (key 23): v2–v4.
//! v2 current leader epoch · v3 replica id · v4 flexible (KIP-320)

use super::dispatch::Context;
use super::layout::Layout;
use super::reply::Reply;
use super::work::{ByCore, Start, Step, Work};
use crate::base::error::ErrorCode;
use crate::ports::Disk;
use crate::protocol::messages::offset_for_leader_epoch::{
    EpochEndOffset, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse, OffsetForLeaderTopicResult,
};
use crate::shard::Shard;
use crate::shard::commands::{Answer, Command, EndedEpoch, EpochEnd};

struct Asking {
    layout: Layout<EndedEpoch>,
    correlation_id: i32,
    version: i16,
}

pub fn start<D: Disk>(cx: &mut Context<'_, D>, request: &OffsetForLeaderEpochRequest<'_>, version: i16) -> Start<D> {
    let mut layout = Layout::default();
    let mut parts: ByCore<EpochEnd> = ByCore::default();
    for topic in &request.topics {
        let found = cx.topic(topic.topic);
        layout.topic(found.name.clone());
        for part in &topic.partitions {
            let index = layout.partition(part.partition);
            match found.partition(part.partition) {
                Err(code) => layout.set(index, refused(index, code)),
                Ok((partition, core)) => parts.push(
                    core,
                    EpochEnd {
                        index,
                        partition,
                        current_leader_epoch: part.current_leader_epoch,
                        leader_epoch: part.leader_epoch,
                    },
                ),
            }
        }
    }
    let mut work = Asking { layout, correlation_id: cx.correlation_id, version };
    if parts.is_empty() {
        return Start::Reply(work.reply());
    }
    Start::Work { work: Box::new(work), commands: parts.commands(Command::EpochEnds) }
}

fn refused(index: u32, error: ErrorCode) -> EndedEpoch {
    EndedEpoch { index, error, leader_epoch: -1, end_offset: -1 }
}

impl<D: Disk> Work<D> for Asking {
    fn on_answer(&mut self, answer: Answer<D::File>, _: &mut Shard<D>) -> Step<D::File> {
        let Answer::EpochEnds(results) = answer else { unreachable!("epoch ends are answered as one") };
        for ended in results {
            self.layout.set(ended.index, ended);
        }
        if self.layout.is_whole() { Step::Done(self.reply()) } else { Step::Wait }
    }
}

impl Asking {
    fn reply<F>(&mut self) -> Reply<F> {
        let partition = |(index, ended): (i32, &mut EndedEpoch)| EpochEndOffset {
            error_code: ended.error.code(),
            partition: index,
            leader_epoch: ended.leader_epoch,
            end_offset: ended.end_offset,
        };
        let topics = self.layout.topics().map(|(name, partitions)| OffsetForLeaderTopicResult {
            topic: name,
            partitions: partitions.map(partition).collect(),
        });
        let response = OffsetForLeaderEpochResponse { topics: topics.collect(), ..Default::default() };
        Reply::encode(self.correlation_id, self.version, &response)
    }
}
