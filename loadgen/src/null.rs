//! A broker that keeps nothing: it acknowledges every Produce at once. What a load comes to against it is the ceiling of the sockets and of
//! this client; a real broker cannot be faster.
//!
//! One thread. Serves what a load asks for, in the versions that `wire` and `admin` send. Who wants to read is refused, unless it is to keep
//! what it is given: then by sendfile from files that were never synced, which is the ceiling for reading. It answers at once even where
//! there is nothing to read, so that only loads which catch up make sense.

use crate::connection::Connection;
use crate::kept::{Kept, Stretch};
use crate::poller::Poller;
use crate::wire::{self, Short};
use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::create_topics_response::CreatableTopicResult;
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{
    ApiVersionsResponse, BrokerId, CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest,
    DeleteTopicsResponse, InitProducerIdResponse, ListOffsetsRequest, ListOffsetsResponse, MetadataRequest,
    MetadataResponse, RequestHeader,
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

const LISTENER: u64 = 0;
/// Memory for reading that all connections share.
const READ_BYTES: usize = 1 << 20;
/// How long it waits before it looks again; events end it earlier.
const WAIT: Duration = Duration::from_secs(3600);
const OFFSET_OUT_OF_RANGE: i16 = 1;
const UNKNOWN_TOPIC: i16 = 3;
/// Times that stand for a place, in ListOffsets.
const LATEST: i64 = -1;

/// Keys and versions that are served; a fetch perhaps only by name, for the client looks for it before it starts.
const SERVED: [(i16, i16); 8] = [wire::PRODUCE, wire::FETCH, (2, 4), (3, 8), (18, 0), (19, 4), (20, 3), (22, 1)];

struct Null {
    address: SocketAddr,
    /// Partitions of each topic that was created.
    topics: HashMap<String, i32>,
    next_producer_id: i64,
    kept: Option<Kept>,
}

/// A part of a reply.
enum Piece {
    Bytes(Vec<u8>),
    File(Stretch),
}

/// Replies in order; bytes that follow each other are one piece.
#[derive(Default)]
struct Replies(VecDeque<Piece>);

struct Peer {
    connection: Connection,
    /// What the socket had no room for.
    unsent: Replies,
}

/// Serves at `listener` until the process ends. What is produced is kept on the disk of `keep`, if there is one.
///
/// # Errors
/// Where the ring or the listener fails.
pub fn serve(listener: &TcpListener, keep: Option<PathBuf>) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let mut null = Null { address, topics: HashMap::new(), next_producer_id: 0, kept: keep.map(Kept::new) };
    let mut poller = Poller::new()?;
    poller.watch(listener, LISTENER);
    let mut peers: Vec<Option<Peer>> = Vec::new();
    let (mut events, mut shared) = (Vec::new(), vec![0; READ_BYTES]);
    loop {
        poller.wait(Some(WAIT), &mut events)?;
        for event in events.drain(..) {
            if event.token == LISTENER {
                while let Ok((stream, _)) = listener.accept() {
                    let token = peers.len() as u64 + 1;
                    let connection = Connection::accepted(stream, &mut poller, token).ok();
                    peers.push(connection.map(|connection| Peer { connection, unsent: Replies::default() }));
                }
                continue;
            }
            let slot = &mut peers[event.token as usize - 1];
            let Some(Peer { connection, unsent }) = slot else { continue };
            let mut is_sound = true;
            let mut outcome = Ok(());
            if event.readable {
                outcome = connection.receive(&mut shared, |frame| is_sound &= null.answer(frame, unsent).is_ok());
            }
            if outcome.is_err() || !is_sound || unsent.send(connection).is_err() {
                *slot = None;
            }
        }
    }
}

impl Replies {
    /// The bytes at the end.
    fn last(&mut self) -> &mut Vec<u8> {
        if !matches!(self.0.back(), Some(Piece::Bytes(_))) {
            self.0.push_back(Piece::Bytes(Vec::new()));
        }
        match self.0.back_mut() {
            Some(Piece::Bytes(bytes)) => bytes,
            _ => unreachable!("it was pushed"),
        }
    }

    /// Sends what there is room for.
    fn send(&mut self, connection: &mut Connection) -> io::Result<()> {
        connection.flush()?;
        while !connection.is_backed_up() {
            let is_last = self.0.len() == 1;
            match self.0.front_mut() {
                Some(Piece::Bytes(bytes)) => {
                    if !bytes.is_empty() {
                        connection.send(bytes, &[])?;
                        bytes.clear();
                    }
                    // Its memory is good for the next reply.
                    if is_last {
                        return Ok(());
                    }
                }
                Some(Piece::File(stretch)) => {
                    connection.send_file(stretch)?;
                    if stretch.bytes > 0 {
                        return Ok(());
                    }
                }
                None => return Ok(()),
            }
            self.0.pop_front();
        }
        Ok(())
    }
}

impl Null {
    /// Appends the reply to a frame (without its length) to `out`.
    fn answer(&mut self, frame: &[u8], out: &mut Replies) -> Result<(), Short> {
        let (key, version, correlation, body) = wire::request(frame)?;
        if (key, version) == wire::FETCH {
            return self.fetch(correlation, body, out);
        }
        let out = out.last();
        let start = out.len();
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&correlation.to_be_bytes());
        if (key, version) == wire::PRODUCE {
            if !self.produce(body, out)? {
                // Nobody waits for it.
                out.truncate(start);
                return Ok(());
            }
        } else {
            let mut frame = Bytes::copy_from_slice(frame);
            RequestHeader::decode(&mut frame, 1).map_err(|_| Short)?;
            self.answer_rare((key, version), frame, out)?;
        }
        let length = (out.len() - start - 4) as u32;
        out[start..start + 4].copy_from_slice(&length.to_be_bytes());
        Ok(())
    }

    fn produce(&mut self, body: &[u8], out: &mut Vec<u8>) -> Result<bool, Short> {
        let Some(kept) = &mut self.kept else { return wire::acknowledge(body, out, |_, _, _| 0) };
        let mut failed = None;
        let is_wanted = wire::acknowledge(body, out, |topic, partition, records| {
            kept.append(topic, partition, records).unwrap_or_else(|error| {
                failed = Some(error);
                -1
            })
        });
        match failed {
            None => is_wanted,
            Some(error) => {
                eprintln!("ringlog-loadgen null: a batch cannot be kept, the connection ends: {error}");
                Err(Short)
            }
        }
    }

    fn fetch(&self, correlation: i32, body: &[u8], out: &mut Replies) -> Result<(), Short> {
        let kept = self.kept.as_ref().ok_or(Short)?;
        let topics = wire::asked(body)?;
        let mut pieces = Replies::default();
        let head = pieces.last();
        head.extend_from_slice(&correlation.to_be_bytes());
        wire::begin_fetched(topics.len(), head);
        let mut file_bytes = 0;
        for partitions in &topics {
            let Some(first) = partitions.first() else { return Err(Short) };
            wire::fetched_topic(first.topic, partitions.len(), pieces.last());
            for asked in partitions {
                let end = kept.end_offset(asked.topic, asked.partition);
                let error = if asked.offset > end { OFFSET_OUT_OF_RANGE } else { 0 };
                let found = kept.read(asked.topic, asked.partition, asked.offset, asked.bytes_max.max(0) as u64);
                let bytes = found.as_ref().map_or(0, |stretch| stretch.bytes);
                wire::fetched_partition(asked.partition, error, end, bytes, pieces.last());
                file_bytes += bytes;
                pieces.0.extend(found.map(Piece::File));
            }
        }
        let own: u64 =
            pieces.0.iter().map(|piece| if let Piece::Bytes(bytes) = piece { bytes.len() as u64 } else { 0 }).sum();
        out.last().extend_from_slice(&((own + file_bytes) as u32).to_be_bytes());
        out.0.extend(pieces.0);
        Ok(())
    }

    fn answer_rare(&mut self, (key, version): (i16, i16), mut body: Bytes, out: &mut Vec<u8>) -> Result<(), Short> {
        let body = &mut body;
        match key {
            2 => put(&self.offsets(&read(body, version)?), version, out),
            3 => put(&self.metadata(read(body, version)?), version, out),
            18 => put(&versions(), 0, out),
            19 => put(&self.create(read(body, version)?), version, out),
            20 => put(&self.delete(read(body, version)?), version, out),
            22 => {
                self.next_producer_id += 1;
                put(&InitProducerIdResponse::default().with_producer_id(self.next_producer_id.into()), version, out)
            }
            _ => Err(Short),
        }
    }

    fn metadata(&self, asked: MetadataRequest) -> MetadataResponse {
        let broker = MetadataResponseBroker::default()
            .with_node_id(BrokerId(1))
            .with_host(StrBytes::from_string(self.address.ip().to_string()))
            .with_port(i32::from(self.address.port()));
        let topic = |topic: kafka_protocol::messages::metadata_request::MetadataRequestTopic| {
            let count = topic.name.as_ref().and_then(|name| self.topics.get(&***name)).copied();
            let partition = |index| {
                MetadataResponsePartition::default()
                    .with_partition_index(index)
                    .with_leader_id(BrokerId(1))
                    .with_replica_nodes(vec![BrokerId(1)])
                    .with_isr_nodes(vec![BrokerId(1)])
            };
            MetadataResponseTopic::default()
                .with_error_code(if count.is_some() { 0 } else { UNKNOWN_TOPIC })
                .with_name(topic.name)
                .with_partitions((0..count.unwrap_or(0)).map(partition).collect())
        };
        let topics = asked.topics.unwrap_or_default().into_iter().map(topic).collect();
        MetadataResponse::default().with_brokers(vec![broker]).with_controller_id(BrokerId(1)).with_topics(topics)
    }

    fn create(&mut self, asked: CreateTopicsRequest) -> CreateTopicsResponse {
        let created = asked.topics.into_iter().map(|topic| {
            self.topics.insert(topic.name.to_string(), topic.num_partitions.max(1));
            CreatableTopicResult::default().with_name(topic.name)
        });
        CreateTopicsResponse::default().with_topics(created.collect())
    }

    fn delete(&mut self, asked: DeleteTopicsRequest) -> DeleteTopicsResponse {
        let deleted = asked.topic_names.into_iter().map(|name| {
            let code = if self.topics.remove(&**name).is_some() { 0 } else { UNKNOWN_TOPIC };
            DeletableTopicResult::default().with_name(Some(name)).with_error_code(code)
        });
        DeleteTopicsResponse::default().with_responses(deleted.collect())
    }

    /// Every partition begins at 0, and ends there where nothing is kept.
    fn offsets(&self, asked: &ListOffsetsRequest) -> ListOffsetsResponse {
        let topics = asked.topics.iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|partition| {
                let index = partition.partition_index;
                let kept = self.kept.as_ref().filter(|_| partition.timestamp == LATEST);
                let offset = kept.map_or(0, |kept| kept.end_offset(topic.name.as_bytes(), index));
                ListOffsetsPartitionResponse::default().with_partition_index(index).with_offset(offset)
            });
            ListOffsetsTopicResponse::default().with_name(topic.name.clone()).with_partitions(partitions.collect())
        });
        ListOffsetsResponse::default().with_topics(topics.collect())
    }
}

fn versions() -> ApiVersionsResponse {
    let served = SERVED.into_iter().map(|(key, version)| {
        ApiVersion::default().with_api_key(key).with_min_version(version).with_max_version(version)
    });
    ApiVersionsResponse::default().with_api_keys(served.collect())
}

fn read<M: Decodable>(body: &mut Bytes, version: i16) -> Result<M, Short> {
    M::decode(body, version).map_err(|_| Short)
}

fn put<M: Encodable>(message: &M, version: i16, out: &mut Vec<u8>) -> Result<(), Short> {
    let mut bytes = BytesMut::new();
    message.encode(&mut bytes, version).map_err(|_| Short)?;
    out.extend_from_slice(&bytes);
    Ok(())
}
