//! From a frame to the API it asks for, and from the cores' answers to its reply.

use super::produce::Producing;
use super::reply::{Finished, Frames, Reply, Tag};
use super::work::{Start, Step, Work};
use super::{
    api_versions, cluster, configs, delete_records, fetch, find_coordinator, group_offsets, groups, list_offsets,
    log_dirs, membership, metadata, offset_for_leader_epoch, produce, producer_ids, topics,
};
use crate::base::error::ErrorCode;
use crate::base::ids::{CoreIndex, PartitionId};
use crate::base::time::Now;
use crate::cluster::image::Topic;
use crate::ports::Disk;
use crate::protocol::Message;
use crate::protocol::error::DecodeError;
use crate::protocol::frame::{read_request_header, write_api_versions_unsupported};
use crate::protocol::messages::ApiKey;
use crate::protocol::reader::Reader;
use crate::protocol::versions::{Admission, admit};
use crate::protocol::writer::Writer;
use crate::shard::Shard;
use crate::shard::commands::{Answer, Command, Origin, RequestId};
use crate::shard::slab::Slab;
use bytes::Bytes;
use std::net::SocketAddr;

/// What the APIs must know of the configuration.
#[derive(Clone, Debug)]
pub struct ApiSettings {
    /// Most bytes of records in one Fetch reply (`fetch.max.bytes`).
    pub fetch_bytes_max: u64,
    /// Topics are made when a client asks for them (`auto.create.topics.enable`).
    pub auto_create_topics: bool,
}

/// A request's bytes: borrowed from the core's receive buffer, or owned where the frame came in parts.
#[derive(Clone, Copy)]
pub struct Frame<'a> {
    pub bytes: &'a [u8],
    pub owner: Option<&'a Bytes>,
}

impl<'a> Frame<'a> {
    /// `part`, which lies within this frame, for longer than this call: without a copy where the frame is owned.
    pub fn share(&self, part: &[u8]) -> Bytes {
        match self.owner {
            Some(owner) if !part.is_empty() => owner.slice_ref(part),
            _ => Bytes::copy_from_slice(part),
        }
    }
}

/// Who sent a request.
#[derive(Clone, Copy, Debug)]
pub struct Client<'a> {
    pub id: Option<&'a str>,
    pub address: Option<SocketAddr>,
}

/// What a handler works with.
pub struct Context<'a, D: Disk> {
    pub shard: &'a mut Shard<D>,
    pub settings: &'a ApiSettings,
    pub frames: &'a mut Frames,
    pub core: CoreIndex,
    pub now: Now,
    pub frame: Frame<'a>,
    pub client: Client<'a>,
    pub correlation_id: i32,
}

impl<D: Disk> Context<'_, D> {
    /// Looks a topic up by name.
    pub fn topic<'s>(&'s self, name: &str) -> FoundTopic<'s> {
        let topic = self.shard.image().topic_by_name(name);
        FoundTopic { name: topic.map_or_else(|| name.into(), |topic| topic.name.clone()), topic }
    }
}

/// A topic that a request names, if there is one.
pub struct FoundTopic<'a> {
    pub name: std::sync::Arc<str>,
    topic: Option<&'a Topic>,
}

impl FoundTopic<'_> {
    /// The partition and the core that owns it.
    pub fn partition(&self, index: i32) -> Result<(PartitionId, CoreIndex), ErrorCode> {
        let topic = self.topic.ok_or(ErrorCode::UnknownTopicOrPartition)?;
        let partition = usize::try_from(index).ok().and_then(|index| topic.partitions.get(index));
        let partition = partition.ok_or(ErrorCode::UnknownTopicOrPartition)?;
        Ok((PartitionId { topic: topic.id, index }, partition.core))
    }
}

/// What becomes of a frame.
pub enum Verdict {
    /// It is being worked on; its `Finished` will come.
    Taken,
    /// It cannot be read: the connection is closed.
    Close(String),
}

struct Pending<D: Disk> {
    tag: Tag,
    stage: Stage<D>,
}

/// How far a request is.
enum Stage<D: Disk> {
    /// Its handler has not returned yet.
    Starting,
    Produce(Producing),
    Work(Box<dyn Work<D>>),
}

/// The requests of one core's connections that are being worked on.
pub struct Api<D: Disk> {
    core: CoreIndex,
    settings: ApiSettings,
    pending: Slab<Pending<D>>,
    finished: Vec<Finished<D::File>>,
    frames: Frames,
}

impl<D: Disk> Api<D> {
    pub fn new(core: CoreIndex, settings: ApiSettings) -> Api<D> {
        Api { core, settings, pending: Slab::default(), finished: Vec::new(), frames: Frames::default() }
    }

    /// Requests that wait for answers.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Whether `take_finished` has something to take.
    pub fn has_finished(&self) -> bool {
        !self.finished.is_empty()
    }

    /// Exchanges the list of requests that are done for an empty one.
    pub fn take_finished(&mut self, empty: &mut Vec<Finished<D::File>>) {
        std::mem::swap(empty, &mut self.finished);
    }

    /// Starts on a request frame (without its length).
    pub fn on_frame(
        &mut self,
        tag: Tag,
        frame: Frame<'_>,
        address: Option<SocketAddr>,
        shard: &mut Shard<D>,
        now: Now,
    ) -> Verdict {
        let (header, body) = match read_request_header(frame.bytes) {
            Ok(read) => read,
            Err(error) => return Verdict::Close(format!("a request header that cannot be read: {error}")),
        };
        let (key, version) = (header.request_api_key, header.request_api_version);
        let id = RequestId(self.pending.insert(Pending { tag, stage: Stage::Starting }));
        let origin = Origin { core: self.core, request: id };
        let mut cx = Context {
            shard,
            settings: &self.settings,
            frames: &mut self.frames,
            core: self.core,
            now,
            frame,
            client: Client { id: header.client_id, address },
            correlation_id: header.correlation_id,
        };
        let start = match admit(key, version) {
            Admission::Serve(api) => handle(&mut cx, origin, api, version, body),
            Admission::Refuse(api) => refuse_version(&cx, api, version, body),
            Admission::AnswerAsV0 => {
                let mut writer = Writer::new();
                write_api_versions_unsupported(&mut writer, header.correlation_id);
                Ok(Start::Reply(Reply::encoded(writer)))
            }
            Admission::Close => {
                self.pending.remove(id.0);
                return Verdict::Close(format!("API key {key} version {version}, which is not served"));
            }
        };
        match start {
            Ok(start) => {
                self.begin(id, start, shard, now);
                Verdict::Taken
            }
            Err(error) => {
                self.pending.remove(id.0);
                Verdict::Close(format!("a request of key {key} version {version} that cannot be read: {error}"))
            }
        }
    }

    fn begin(&mut self, id: RequestId, start: Start<D>, shard: &mut Shard<D>, now: Now) {
        match start {
            Start::Reply(reply) => self.finish(id, reply),
            Start::Work { work, commands } => self.go_on(id, Stage::Work(work), commands, shard, now),
            Start::Produce { producing, commands } => {
                self.go_on(id, Stage::Produce(producing), commands, shard, now);
            }
        }
    }

    fn go_on(
        &mut self,
        id: RequestId,
        stage: Stage<D>,
        commands: Vec<(CoreIndex, Command)>,
        shard: &mut Shard<D>,
        now: Now,
    ) {
        self.pending.find(id.0).expect("just reserved").stage = stage;
        self.send(id, commands, shard, now);
    }

    /// Takes in a core's answer to a request of this core.
    pub fn on_answer(&mut self, id: RequestId, answer: Answer<D::File>, shard: &mut Shard<D>, now: Now) {
        let Some(pending) = self.pending.find(id.0) else { return };
        let step = match (&mut pending.stage, answer) {
            (Stage::Produce(producing), Answer::Produce(results)) => {
                producing.on_results(results, &mut self.frames).map_or(Step::Wait, Step::Done)
            }
            (Stage::Work(work), answer) => work.on_answer(answer, shard),
            _ => unreachable!("a produce is answered with its results, and nobody before the work is there"),
        };
        match step {
            Step::Wait => {}
            Step::Send(commands) => self.send(id, commands, shard, now),
            Step::Done(reply) => self.finish(id, reply),
        }
    }

    fn send(&mut self, id: RequestId, commands: Vec<(CoreIndex, Command)>, shard: &mut Shard<D>, now: Now) {
        let origin = Origin { core: self.core, request: id };
        for (core, command) in commands {
            shard.dispatch(core, origin, command, now);
        }
    }

    fn finish(&mut self, id: RequestId, reply: Reply<D::File>) {
        let pending = self.pending.remove(id.0).expect("a request is finished once");
        self.finished.push(Finished { tag: pending.tag, reply });
    }
}

fn read<'a, M: Message<'a>>(mut body: Reader<'a>, version: i16) -> Result<M, DecodeError> {
    M::decode(&mut body, version)
}

fn handle<D: Disk>(
    cx: &mut Context<'_, D>,
    origin: Origin,
    api: ApiKey,
    version: i16,
    body: Reader<'_>,
) -> Result<Start<D>, DecodeError> {
    Ok(match api {
        ApiKey::Produce => produce::start(cx, origin, read(body, version)?, version),
        ApiKey::Fetch => fetch::start(cx, read(body, version)?, version),
        ApiKey::ListOffsets => list_offsets::start(cx, read(body, version)?, version),
        ApiKey::Metadata => metadata::start(cx, &read(body, version)?, version),
        ApiKey::OffsetCommit => group_offsets::commit(cx, &read(body, version)?, version),
        ApiKey::OffsetFetch => group_offsets::fetch(cx, &read(body, version)?, version),
        ApiKey::FindCoordinator => find_coordinator::start(cx, &read(body, version)?, version),
        ApiKey::JoinGroup => membership::join(cx, &read(body, version)?, version),
        ApiKey::Heartbeat => membership::heartbeat(cx, &read(body, version)?, version),
        ApiKey::LeaveGroup => membership::leave(cx, &read(body, version)?, version),
        ApiKey::SyncGroup => membership::sync(cx, &read(body, version)?, version),
        ApiKey::DescribeGroups => groups::describe(cx, &read(body, version)?, version),
        ApiKey::ListGroups => groups::list(cx, &read(body, version)?, version),
        ApiKey::DeleteGroups => groups::delete(cx, &read(body, version)?, version),
        ApiKey::OffsetDelete => group_offsets::delete(cx, &read(body, version)?, version),
        ApiKey::OffsetForLeaderEpoch => offset_for_leader_epoch::start(cx, &read(body, version)?, version),
        ApiKey::ApiVersions => Start::Reply(api_versions::handle(&read(body, version)?, cx.correlation_id, version)),
        ApiKey::CreateTopics => topics::create(cx, &read(body, version)?, version),
        ApiKey::DeleteTopics => topics::delete(cx, &read(body, version)?, version),
        ApiKey::CreatePartitions => topics::create_partitions(cx, &read(body, version)?, version),
        ApiKey::DeleteRecords => delete_records::start(cx, &read(body, version)?, version),
        ApiKey::InitProducerId => producer_ids::start(cx, origin, &read(body, version)?, version),
        ApiKey::DescribeConfigs => configs::describe(cx, &read(body, version)?, version),
        ApiKey::AlterConfigs => configs::replace(cx, &read(body, version)?, version),
        ApiKey::IncrementalAlterConfigs => configs::alter(cx, &read(body, version)?, version),
        ApiKey::DescribeLogDirs => log_dirs::start(cx, &read(body, version)?, version),
        ApiKey::DescribeCluster => cluster::describe(cx, &read(body, version)?, version),
    })
}

/// Versions that are advertised for old clients and not served.
fn refuse_version<D: Disk>(
    cx: &Context<'_, D>,
    api: ApiKey,
    version: i16,
    body: Reader<'_>,
) -> Result<Start<D>, DecodeError> {
    assert_eq!(api, ApiKey::Produce, "the only API with such versions");
    let request = read(body, version)?;
    Ok(Start::Reply(produce::refuse_all(cx.correlation_id, version, &request, ErrorCode::UnsupportedVersion)))
}
