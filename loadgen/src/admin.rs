//! What is asked once or rarely: who leads what, topics made and deleted, offsets, producer ids. Blocking, by `kafka-protocol`.

use crate::scenario::{Scenario, Start};
use crate::wire::{self, error_name, is_retriable};
use bytes::{Buf, BufMut, BytesMut};
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    ApiVersionsRequest, CreateTopicsRequest, DeleteTopicsRequest, InitProducerIdRequest, ListOffsetsRequest,
    MetadataRequest, MetadataResponse, RequestHeader, ResponseHeader, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

/// How long a broker may take for one answer, and for the topics of a run.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
const TOPICS_TIMEOUT: Duration = Duration::from_secs(60);
/// An answer longer than this is taken for garbage, bytes.
const ANSWER_BYTES_MAX: usize = 256 << 20;

// Versions without tagged fields, which every broker from Kafka 2.3 to 4.x has.
const API_VERSIONS: i16 = 0;
const METADATA: i16 = 8;
const CREATE_TOPICS: i16 = 4;
const DELETE_TOPICS: i16 = 3;
const LIST_OFFSETS: i16 = 4;
const INIT_PRODUCER_ID: i16 = 1;

/// Who leads which partition. Partitions are counted over all topics: those of topic `t` begin at `t` × partitions of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    pub brokers: Vec<SocketAddr>,
    pub topics: Vec<String>,
    pub partitions_per_topic: u32,
    /// The leader of each partition, as an index of `brokers`.
    pub leaders: Vec<usize>,
}

impl Cluster {
    /// Topic (counted from 0) and number within it.
    pub fn topic_of(&self, partition: u32) -> (u32, i32) {
        (partition / self.partitions_per_topic, (partition % self.partitions_per_topic) as i32)
    }

    pub fn partitions(&self) -> u32 {
        self.leaders.len() as u32
    }
}

/// One blocking connection, and the brokers to find it at again.
pub struct Admin {
    seeds: Vec<SocketAddr>,
    stream: TcpStream,
    correlation: i32,
}

fn failed(what: &str, error: i16) -> String {
    format!("{what}: the broker answers {}", error_name(error))
}

fn name(topic: &str) -> TopicName {
    StrBytes::from_string(topic.to_owned()).into()
}

impl Admin {
    /// Connects to the first of `brokers` (HOST:PORT, commas between) that answers, and checks that it has what is needed.
    ///
    /// # Errors
    /// Says which broker failed how, or which request it does not know.
    pub fn connect(brokers: &str) -> Result<Admin, String> {
        let mut seeds = Vec::new();
        for broker in brokers.split(',') {
            let found = broker.trim().to_socket_addrs();
            seeds.extend(found.map_err(|error| format!("{broker}: {error}; a broker is HOST:PORT"))?);
        }
        let mut admin = Admin::open(seeds)?;
        let answer = admin.call(&ApiVersionsRequest::default(), API_VERSIONS)?;
        let needed = [
            wire::PRODUCE,
            wire::FETCH,
            (MetadataRequest::KEY, METADATA),
            (CreateTopicsRequest::KEY, CREATE_TOPICS),
            (ListOffsetsRequest::KEY, LIST_OFFSETS),
        ];
        for (key, version) in needed {
            let served = answer.api_keys.iter().find(|api| api.api_key == key);
            if !served.is_some_and(|api| (api.min_version..=api.max_version).contains(&version)) {
                return Err(format!(
                    "{brokers}: the broker does not serve version {version} of API {key}; Kafka 2.3 and later do"
                ));
            }
        }
        Ok(admin)
    }

    fn open(seeds: Vec<SocketAddr>) -> Result<Admin, String> {
        let mut last = "no broker was named".to_owned();
        for &seed in &seeds {
            match TcpStream::connect_timeout(&seed, Duration::from_secs(2)) {
                Ok(stream) => {
                    let ready = stream
                        .set_nodelay(true)
                        .and_then(|()| stream.set_read_timeout(Some(ANSWER_TIMEOUT)))
                        .and_then(|()| stream.set_write_timeout(Some(ANSWER_TIMEOUT)));
                    ready.map_err(|error| format!("{seed}: {error}"))?;
                    return Ok(Admin { seeds, stream, correlation: 0 });
                }
                Err(error) => last = format!("{seed}: {error}; is the broker running?"),
            }
        }
        Err(last)
    }

    /// Connects anew, after the broker was away.
    ///
    /// # Errors
    /// As `connect`.
    pub fn reconnect(&mut self) -> Result<(), String> {
        *self = Admin::open(std::mem::take(&mut self.seeds).clone())?;
        Ok(())
    }

    fn call<R: Request>(&mut self, request: &R, version: i16) -> Result<R::Response, String> {
        let text = |error: io::Error| format!("{}: {error}", self.seeds[0]);
        self.correlation += 1;
        let mut frame = BytesMut::new();
        frame.put_i32(0);
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(self.correlation)
            .with_client_id(Some(StrBytes::from_static_str("ringlog-loadgen")));
        header.encode(&mut frame, R::header_version(version)).map_err(|error| error.to_string())?;
        request.encode(&mut frame, version).map_err(|error| error.to_string())?;
        let length = (frame.len() - 4) as u32;
        frame[..4].copy_from_slice(&length.to_be_bytes());
        self.stream.write_all(&frame).map_err(text)?;
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).map_err(text)?;
        let length = u32::from_be_bytes(length) as usize;
        if length > ANSWER_BYTES_MAX {
            return Err(format!("{}: it does not speak Kafka's protocol", self.seeds[0]));
        }
        let mut answer = vec![0; length];
        self.stream.read_exact(&mut answer).map_err(text)?;
        let mut answer = bytes::Bytes::from(answer);
        ResponseHeader::decode(&mut answer, R::Response::header_version(version)).map_err(|error| error.to_string())?;
        let response = R::Response::decode(&mut answer, version).map_err(|error| error.to_string())?;
        if answer.has_remaining() { Err(format!("API {}: bytes behind the answer", R::KEY)) } else { Ok(response) }
    }

    /// Makes the topics of `scenario` where they are not there yet, waits until each partition has a leader that serves it, and says who it is.
    ///
    /// # Errors
    /// Says which topic failed how.
    pub fn prepare(&mut self, topics: Vec<String>, scenario: &Scenario) -> Result<Cluster, String> {
        let configs = scenario
            .topic_config
            .iter()
            .map(|(key, value)| {
                CreatableTopicConfig::default()
                    .with_name(StrBytes::from_string(key.clone()))
                    .with_value(Some(StrBytes::from_string(value.clone())))
            })
            .collect::<Vec<_>>();
        // Some at a time: brokers bound the partitions of one request (Kafka 10 000).
        for some in topics.chunks((9_000 / scenario.partitions as usize).max(1)) {
            let new = some.iter().map(|topic| {
                CreatableTopic::default()
                    .with_name(name(topic))
                    .with_num_partitions(scenario.partitions as i32)
                    .with_replication_factor(scenario.replication)
                    .with_configs(configs.clone())
            });
            let request = CreateTopicsRequest::default().with_topics(new.collect()).with_timeout_ms(30_000);
            for topic in self.call(&request, CREATE_TOPICS)?.topics {
                const EXISTS: i16 = 36;
                if topic.error_code != 0 && topic.error_code != EXISTS {
                    let message = topic.error_message.map_or_else(String::new, |text| format!(" ({})", &*text));
                    return Err(failed(&format!("creating topic {}", &**topic.name), topic.error_code) + &message);
                }
            }
        }
        let deadline = Instant::now() + TOPICS_TIMEOUT;
        loop {
            let cluster = self.cluster(&topics, scenario.partitions);
            // Metadata names a leader before it has heard of it itself: Kafka's takes seconds on a busy machine. One that knows its offsets leads.
            match cluster.and_then(|cluster| offsets(&cluster, Start::Latest).map(|_| cluster)) {
                Ok(cluster) => return Ok(cluster),
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    /// Who leads what now.
    ///
    /// # Errors
    /// Where a topic is not there, has another number of partitions, or a partition has no leader.
    pub fn cluster(&mut self, topics: &[String], partitions: u32) -> Result<Cluster, String> {
        let asked = topics.iter().map(|topic| MetadataRequestTopic::default().with_name(Some(name(topic))));
        let request =
            MetadataRequest::default().with_topics(Some(asked.collect())).with_allow_auto_topic_creation(false);
        let answer = self.call(&request, METADATA)?;
        let (brokers, index_of) = brokers(&answer)?;
        let mut leaders = vec![usize::MAX; topics.len() * partitions as usize];
        for topic in &answer.topics {
            let topic_name = topic.name.as_ref().map_or("", |name| name);
            if topic.error_code != 0 {
                return Err(failed(&format!("topic {topic_name}"), topic.error_code));
            }
            if topic.partitions.len() != partitions as usize {
                let found = topic.partitions.len();
                return Err(format!(
                    "topic {topic_name} has {found} partitions, the scenario {partitions}: name another"
                ));
            }
            let Some(place) = topics.iter().position(|asked| asked == topic_name) else { continue };
            for partition in &topic.partitions {
                let index = partition.partition_index;
                let leader = index_of.get(&partition.leader_id.0);
                let leader = leader
                    .ok_or_else(|| failed(&format!("{topic_name}-{index} has no leader"), partition.error_code))?;
                leaders[place * partitions as usize + index as usize] = *leader;
            }
        }
        if leaders.contains(&usize::MAX) {
            return Err("the broker's metadata leaves partitions out".to_owned());
        }
        Ok(Cluster { brokers, topics: topics.to_vec(), partitions_per_topic: partitions, leaders })
    }

    /// # Errors
    /// Says which topic failed how.
    pub fn delete(&mut self, topics: &[String]) -> Result<(), String> {
        let names = topics.iter().map(|topic| name(topic)).collect();
        let request = DeleteTopicsRequest::default().with_topic_names(names).with_timeout_ms(30_000);
        for topic in self.call(&request, DELETE_TOPICS)?.responses {
            if topic.error_code != 0 {
                let name = topic.name.as_ref().map_or("", |name| name);
                return Err(failed(&format!("deleting topic {name}"), topic.error_code));
            }
        }
        Ok(())
    }
}

type Brokers = (Vec<SocketAddr>, BTreeMap<i32, usize>);

fn brokers(answer: &MetadataResponse) -> Result<Brokers, String> {
    let mut addresses = Vec::new();
    let mut index_of = BTreeMap::new();
    for broker in &answer.brokers {
        let address = (&*broker.host, broker.port as u16);
        let found = address.to_socket_addrs().map_err(|error| {
            format!("the broker advertises {}:{}, which is no address here: {error}", &*broker.host, broker.port)
        })?;
        index_of.insert(broker.node_id.0, addresses.len());
        addresses.push(found.into_iter().next().ok_or_else(|| format!("{} has no address", &*broker.host))?);
    }
    Ok((addresses, index_of))
}

/// The first or the end offset of each partition of `cluster`, asked at the leaders.
///
/// # Errors
/// Says which broker or partition failed how.
pub fn offsets(cluster: &Cluster, which: Start) -> Result<Vec<i64>, String> {
    let mut offsets = vec![0; cluster.leaders.len()];
    let timestamp = match which {
        Start::Earliest => -2,
        Start::Latest => -1,
    };
    for (broker, &address) in cluster.brokers.iter().enumerate() {
        let topics: Vec<ListOffsetsTopic> = (0..cluster.topics.len() as u32)
            .filter_map(|topic| {
                let first = topic * cluster.partitions_per_topic;
                let led = (first..first + cluster.partitions_per_topic)
                    .filter(|&partition| cluster.leaders[partition as usize] == broker)
                    .map(|partition| {
                        ListOffsetsPartition::default()
                            .with_partition_index((partition - first) as i32)
                            .with_current_leader_epoch(-1)
                            .with_timestamp(timestamp)
                    })
                    .collect::<Vec<_>>();
                let asked = || {
                    ListOffsetsTopic::default()
                        .with_name(name(&cluster.topics[topic as usize]))
                        .with_partitions(led.clone())
                };
                (!led.is_empty()).then(asked)
            })
            .collect();
        if topics.is_empty() {
            continue;
        }
        let request = ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(topics);
        for topic in Admin::open(vec![address])?.call(&request, LIST_OFFSETS)?.topics {
            let Some(place) = cluster.topics.iter().position(|name| **name == **topic.name) else { continue };
            for partition in topic.partitions {
                let index = partition.partition_index;
                if partition.error_code != 0 {
                    return Err(failed(&format!("offsets of {}-{index}", &**topic.name), partition.error_code));
                }
                offsets[place * cluster.partitions_per_topic as usize + index as usize] = partition.offset;
            }
        }
    }
    Ok(offsets)
}

/// An id and an epoch for each of `count` producers. Waits for a coordinator that is just starting.
///
/// # Errors
/// Says how the broker refused.
pub fn producer_ids(cluster: &Cluster, count: usize) -> Result<Vec<(i64, i16)>, String> {
    let mut admin = Admin::open(cluster.brokers.clone())?;
    let deadline = Instant::now() + TOPICS_TIMEOUT;
    let mut ids = Vec::with_capacity(count);
    while ids.len() < count {
        let request = InitProducerIdRequest::default().with_transactional_id(None).with_transaction_timeout_ms(60_000);
        let answer = admin.call(&request, INIT_PRODUCER_ID)?;
        match answer.error_code {
            0 => ids.push((answer.producer_id.0, answer.producer_epoch)),
            error if is_retriable(error) && Instant::now() < deadline => std::thread::sleep(Duration::from_millis(50)),
            error => return Err(failed("an id for an idempotent producer", error)),
        }
    }
    Ok(ids)
}
