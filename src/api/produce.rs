//! Produce (key 0): v3–v11; v0–v2 are advertised for clients that look for them (KAFKA-18659) and refused.
//! v3 record batch v2 · v5 log start offset · v7 zstd · v8 record errors (KIP-467) · v9 flexible · v10 current leader (KIP-951)
//! acks=0 sends no reply; an error closes the connection. One batch for each partition.

use super::dispatch::Context;
use super::layout::Layout;
use super::reply::{Frames, Reply};
use super::work::{ByCore, Start};
use crate::base::error::ErrorCode;
use crate::ports::Disk;
use crate::protocol::messages::produce::{
    PartitionProduceResponse, ProduceRequest, ProduceResponse, TopicProduceResponse,
};
use crate::shard::commands::{Command, Origin, ProducePart, ProduceResults, Produced};
use smallvec::SmallVec;
use std::borrow::Cow;

/// A Produce on its way.
pub struct Producing {
    layout: Layout<Produced>,
    /// acks=0: the client waits for no reply.
    silent: bool,
    correlation_id: i32,
    version: i16,
}

pub fn start<D: Disk>(cx: &mut Context<'_, D>, origin: Origin, request: ProduceRequest<'_>, version: i16) -> Start<D> {
    if !(-1..=1).contains(&request.acks) {
        return Start::Reply(refuse_all(cx.correlation_id, version, &request, ErrorCode::InvalidRequiredAcks));
    }
    if request.transactional_id.is_some() {
        let code = ErrorCode::TransactionalIdAuthorizationFailed;
        return Start::Reply(refuse_all(cx.correlation_id, version, &request, code));
    }
    let parts = request.topic_data.iter().map(|topic| topic.partition_data.len()).sum();
    let mut layout = Layout::with_room(request.topic_data.len(), parts);
    let mut own: SmallVec<[ProducePart<&[u8]>; 1]> = SmallVec::with_capacity(parts);
    let mut others: ByCore<ProducePart<bytes::Bytes>> = ByCore::default();
    for topic in &request.topic_data {
        let found = cx.topic(topic.name);
        layout.topic(found.name.clone());
        for part in &topic.partition_data {
            let index = layout.partition(part.index);
            match found.partition(part.index) {
                Err(code) => layout.set(index, Produced::refused(index, code, None)),
                Ok((partition, core)) if core == origin.core => {
                    own.push(ProducePart { index, partition, records: part.records.unwrap_or_default() });
                }
                Ok((partition, core)) => {
                    let records = cx.frame.share(part.records.unwrap_or_default());
                    others.push(core, ProducePart { index, partition, records });
                }
            }
        }
    }
    let mut producing = Producing { layout, silent: request.acks == 0, correlation_id: cx.correlation_id, version };
    let commands = others.commands(Command::Produce);
    if !own.is_empty() {
        let frame = cx.frame;
        cx.shard.produce(origin, own, |records| frame.share(records), cx.now);
    } else if commands.is_empty() {
        return Start::Reply(producing.reply(cx.frames));
    }
    Start::Produce { producing, commands }
}

impl Producing {
    /// Takes in what became of some parts; the reply, once all are there.
    pub fn on_results<F>(&mut self, results: ProduceResults, frames: &mut Frames) -> Option<Reply<F>> {
        for produced in results {
            self.layout.set(produced.index, produced);
        }
        self.layout.is_whole().then(|| self.reply(frames))
    }

    fn reply<F>(&mut self, frames: &mut Frames) -> Reply<F> {
        if self.silent {
            let failed = self.layout.topics().any(|(_, mut parts)| parts.any(|(_, part)| part.error.is_error()));
            return if failed { Reply::Close("a produce with acks=0 failed") } else { Reply::Nothing };
        }
        let partition = |(index, produced): (i32, &mut Produced)| PartitionProduceResponse {
            index,
            error_code: produced.error.code(),
            base_offset: produced.base_offset,
            log_append_time_ms: produced.log_append_time_ms,
            log_start_offset: produced.log_start_offset,
            error_message: produced.message.map(Cow::Borrowed),
            ..Default::default()
        };
        let responses = self.layout.topics().map(|(name, partitions)| TopicProduceResponse {
            name,
            partition_responses: partitions.map(partition).collect(),
            ..Default::default()
        });
        let response = ProduceResponse { responses: responses.collect(), ..Default::default() };
        frames.encode(self.correlation_id, self.version, &response)
    }
}

/// The same error for every partition.
pub fn refuse_all<F>(correlation_id: i32, version: i16, request: &ProduceRequest<'_>, code: ErrorCode) -> Reply<F> {
    if request.acks == 0 {
        return Reply::Close("a produce with acks=0 failed");
    }
    let responses = request.topic_data.iter().map(|topic| TopicProduceResponse {
        name: topic.name,
        partition_responses: topic
            .partition_data
            .iter()
            .map(|part| PartitionProduceResponse {
                index: part.index,
                error_code: code.code(),
                base_offset: -1,
                ..Default::default()
            })
            .collect(),
        ..Default::default()
    });
    let response = ProduceResponse { responses: responses.collect(), ..Default::default() };
    Reply::encode(correlation_id, version, &response)
}
