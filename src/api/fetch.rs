//! Fetch (key 1): v4–v12.
//! v4 isolation level, record batch v2 · v5 log start offset · v7 sessions (KIP-227) · v9 leader epochs (KIP-320) · v11 rack ·
//! v12 flexible, last fetched epoch
//!
//! Answers carry session id 0: every request names all its partitions, which KIP-227 allows a broker to ask for.
//! Records are never copied: the reply names them where they are.

use super::dispatch::Context;
use super::layout::Layout;
use super::reply::Reply;
use super::work::{ByCore, Start, Step, Work};
use crate::base::error::ErrorCode;
use crate::base::ids::CoreIndex;
use crate::ports::{Disk, Piece};
use crate::protocol::messages::fetch::{FetchRequest, FetchResponse, FetchableTopicResponse, PartitionData};
use crate::protocol::writer::Records;
use crate::shard::Shard;
use crate::shard::commands::{Answer, Command, Fetch, FetchPart, Fetched};

/// The longest that a fetch may wait, whatever it asks for.
const WAIT_MS_MAX: i32 = 5 * 60 * 1000;

struct Fetching<F> {
    layout: Layout<Fetched<F>>,
    /// Cores that have not answered.
    waiting: Vec<CoreIndex>,
    /// They have been told to hurry.
    hurried: bool,
    bytes_max: u64,
    correlation_id: i32,
    version: i16,
}

pub fn start<D: Disk>(cx: &mut Context<'_, D>, request: FetchRequest<'_>, version: i16) -> Start<D> {
    let code = check_session(&request, version);
    if code.is_error() {
        let response = FetchResponse { error_code: code.code(), ..Default::default() };
        return Start::Reply(Reply::encode(cx.correlation_id, version, &response));
    }
    let mut layout = Layout::default();
    let mut parts: ByCore<FetchPart> = ByCore::default();
    let mut failed = false;
    for topic in &request.topics {
        let found = cx.topic(topic.topic);
        layout.topic(found.name.clone());
        for part in &topic.partitions {
            let index = layout.partition(part.partition);
            match found.partition(part.partition) {
                Err(code) => {
                    failed = true;
                    layout.set(index, Fetched::refused(index, code));
                }
                Ok((partition, core)) => {
                    let part = FetchPart {
                        index,
                        partition,
                        offset: part.fetch_offset,
                        bytes_max: part.partition_max_bytes.max(0) as u64,
                        current_leader_epoch: part.current_leader_epoch,
                    };
                    parts.push(core, part);
                }
            }
        }
    }
    let bytes_max = (request.max_bytes.max(0) as u64).min(cx.settings.fetch_bytes_max);
    let mut work =
        Fetching { layout, waiting: vec![], hurried: false, bytes_max, correlation_id: cx.correlation_id, version };
    // What is wrong is told at once, with what is there of the rest.
    let wait_ms = if failed { 0 } else { request.max_wait_ms.clamp(0, WAIT_MS_MAX) };
    let deadline = cx.now.mono.plus_ms(wait_ms as u64);
    let bytes_min = request.min_bytes.max(0) as u64;
    if parts.is_empty() && (failed || wait_ms == 0 || bytes_min == 0) {
        return Start::Reply(work.reply());
    }
    if parts.is_empty() {
        // A consumer without partitions waits out its time, as in Kafka: on this core, for nothing.
        parts.push_none(cx.core);
    }
    let commands = parts.commands(|parts| Command::Fetch(Fetch { parts, bytes_min, bytes_max, deadline }));
    work.waiting = commands.iter().map(|(core, _)| *core).collect();
    Start::Work { work: Box::new(work), commands }
}

/// A client may ask for a session (epoch 0), or for none (-1); it cannot go on with one, since none was given.
fn check_session(request: &FetchRequest<'_>, version: i16) -> ErrorCode {
    match (request.session_id, request.session_epoch) {
        _ if version < 7 => ErrorCode::None,
        (_, -1) | (0, 0) => ErrorCode::None,
        (0, _) => ErrorCode::InvalidFetchSessionEpoch,
        _ => ErrorCode::FetchSessionIdNotFound,
    }
}

impl<D: Disk> Work<D> for Fetching<D::File> {
    fn on_answer(&mut self, answer: Answer<D::File>, _: &mut Shard<D>) -> Step<D::File> {
        let Answer::Fetch { core, parts } = answer else { unreachable!("a fetch is answered as one") };
        self.waiting.retain(|waiting| *waiting != core);
        for fetched in parts {
            self.layout.set(fetched.index, fetched);
        }
        if self.waiting.is_empty() {
            return Step::Done(self.reply());
        }
        if self.hurried {
            return Step::Wait;
        }
        self.hurried = true;
        Step::Send(self.waiting.iter().map(|core| (*core, Command::FinishFetch)).collect())
    }
}

impl<F> Fetching<F> {
    fn reply(&mut self) -> Reply<F> {
        let mut left = self.bytes_max;
        let mut any = false;
        let mut records: Vec<Vec<Piece<F>>> = Vec::new();
        let topics = self.layout.topics();
        let mut responses = Vec::with_capacity(topics.len());
        for (name, partitions) in topics {
            let mut answers = Vec::with_capacity(partitions.len());
            for (index, fetched) in partitions {
                let mut bytes = fetched.bytes();
                // Each core kept to the limit; together they may be over it. The first with records is always whole.
                if any && bytes > left {
                    bytes = 0;
                }
                any |= bytes > 0;
                left = left.saturating_sub(bytes);
                if bytes > 0 {
                    records.push(std::mem::take(&mut fetched.pieces));
                }
                answers.push(PartitionData {
                    partition_index: index,
                    error_code: fetched.error.code(),
                    high_watermark: fetched.high_watermark,
                    last_stable_offset: fetched.high_watermark,
                    log_start_offset: fetched.log_start_offset,
                    aborted_transactions: None,
                    preferred_read_replica: -1,
                    records: Records::Hole { bytes: bytes as usize },
                    ..Default::default()
                });
            }
            responses.push(FetchableTopicResponse { topic: name, partitions: answers, ..Default::default() });
        }
        let response = FetchResponse { responses, ..Default::default() };
        Reply::with_records(self.correlation_id, self.version, &response, records)
    }
}
