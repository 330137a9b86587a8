//! A broker that keeps nothing: it acknowledges every Produce at once. What a load comes to against it is the ceiling of the sockets and of
//! this client; a real broker cannot be faster.
//!
//! One thread. Serves what a producing load asks for, in the versions that `wire` and `admin` send; who wants to read is refused.

use crate::connection::Connection;
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
use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

const LISTENER: u64 = 0;
/// Memory for reading that all connections share.
const READ_BYTES: usize = 1 << 20;
/// How long it waits before it looks again; events end it earlier.
const WAIT: Duration = Duration::from_secs(3600);
const UNKNOWN_TOPIC: i16 = 3;

/// Keys and versions that are served; a fetch only by name, for the client looks for it before it starts.
const SERVED: [(i16, i16); 8] = [wire::PRODUCE, wire::FETCH, (2, 4), (3, 8), (18, 0), (19, 4), (20, 3), (22, 1)];

struct Null {
    address: SocketAddr,
    /// Partitions of each topic that was created.
    topics: HashMap<String, i32>,
    next_producer_id: i64,
}

/// Serves at `listener` until the process ends.
///
/// # Errors
/// Where the ring or the listener fails.
pub fn serve(listener: &TcpListener) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let mut null = Null { address: listener.local_addr()?, topics: HashMap::new(), next_producer_id: 0 };
    let mut poller = Poller::new()?;
    poller.watch(listener, LISTENER);
    let mut connections: Vec<Option<Connection>> = Vec::new();
    let (mut events, mut shared, mut replies) = (Vec::new(), vec![0; READ_BYTES], Vec::new());
    loop {
        poller.wait(Some(WAIT), &mut events)?;
        for event in events.drain(..) {
            if event.token == LISTENER {
                while let Ok((stream, _)) = listener.accept() {
                    let token = connections.len() as u64 + 1;
                    connections.push(Connection::accepted(stream, &mut poller, token).ok());
                }
                continue;
            }
            let slot = &mut connections[event.token as usize - 1];
            let Some(connection) = slot else { continue };
            let mut is_sound = true;
            replies.clear();
            let mut outcome = if event.writable { connection.flush() } else { Ok(()) };
            if event.readable && outcome.is_ok() {
                outcome = connection.receive(&mut shared, |frame| is_sound &= null.answer(frame, &mut replies).is_ok());
            }
            if !replies.is_empty() && outcome.is_ok() {
                outcome = connection.send(&replies, &[]);
            }
            if outcome.is_err() || !is_sound {
                *slot = None;
            }
        }
    }
}

impl Null {
    /// Appends the reply to a frame (without its length) to `out`.
    fn answer(&mut self, frame: &[u8], out: &mut Vec<u8>) -> Result<(), Short> {
        let (key, version, correlation, body) = wire::request(frame)?;
        let start = out.len();
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&correlation.to_be_bytes());
        if (key, version) == wire::PRODUCE {
            if !wire::acknowledge(body, out)? {
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

    /// Every partition is empty.
    fn offsets(&self, asked: &ListOffsetsRequest) -> ListOffsetsResponse {
        let topics = asked.topics.iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|partition| {
                ListOffsetsPartitionResponse::default().with_partition_index(partition.partition_index).with_offset(0)
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
