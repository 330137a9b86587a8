//! The two requests that are sent and read all the time, Produce 7 and Fetch 11, written and walked by hand.
//!
//! Pure. Everything else goes through `kafka-protocol`, in `admin`. These versions are in every broker from Kafka 2.3 to 4.x
//! and in those that follow it.

/// Api key and version of the requests here.
pub const PRODUCE: (i16, i16) = (0, 7);
pub const FETCH: (i16, i16) = (1, 11);
const CLIENT_ID: &str = "ringlog-loadgen";

fn put_string(text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(&(text.len() as i16).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// A whole ApiVersions request of version 0, which has no body.
pub fn api_versions(correlation: i32, out: &mut Vec<u8>) {
    let start = begin_frame((18, 0), correlation, out);
    end_frame(start, 0, out);
}

/// Begins a frame at the end of `out`; `end_frame` gives it its length.
fn begin_frame((key, version): (i16, i16), correlation: i32, out: &mut Vec<u8>) -> usize {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&key.to_be_bytes());
    out.extend_from_slice(&version.to_be_bytes());
    out.extend_from_slice(&correlation.to_be_bytes());
    put_string(CLIENT_ID, out);
    start
}

/// `more`: bytes of the frame that follow outside of `out`.
fn end_frame(start: usize, more: usize, out: &mut [u8]) {
    let length = out.len() - start - 4 + more;
    out[start..start + 4].copy_from_slice(&(length as u32).to_be_bytes());
}

/// A Produce under way: `begin`, then `partition` for each batch, then `end`.
pub struct Produce {
    start: usize,
    /// Where the count of the current topic's partitions stands, and the count.
    partitions: (usize, i32),
    /// Where the count of topics stands, and the count.
    topics: (usize, i32),
}

impl Produce {
    pub fn begin(correlation: i32, acks: i16, timeout_ms: i32, out: &mut Vec<u8>) -> Produce {
        let start = begin_frame(PRODUCE, correlation, out);
        // No transaction.
        out.extend_from_slice(&(-1i16).to_be_bytes());
        out.extend_from_slice(&acks.to_be_bytes());
        out.extend_from_slice(&timeout_ms.to_be_bytes());
        let topics = (out.len(), 0);
        out.extend_from_slice(&[0; 4]);
        Produce { start, partitions: (0, 0), topics }
    }

    /// The partitions that follow are of this topic.
    pub fn topic(&mut self, name: &str, out: &mut Vec<u8>) {
        self.end_topic(out);
        put_string(name, out);
        self.topics.1 += 1;
        self.partitions = (out.len(), 0);
        out.extend_from_slice(&[0; 4]);
    }

    /// A partition whose records, `bytes` of them, the caller appends next (or sends behind `out`, if it is the last one).
    pub fn partition(&mut self, partition: i32, bytes: usize, out: &mut Vec<u8>) {
        self.partitions.1 += 1;
        out.extend_from_slice(&partition.to_be_bytes());
        out.extend_from_slice(&(bytes as i32).to_be_bytes());
    }

    fn end_topic(&self, out: &mut [u8]) {
        if self.topics.1 > 0 {
            let (at, count) = self.partitions;
            out[at..at + 4].copy_from_slice(&count.to_be_bytes());
        }
    }

    /// `more`: bytes of the last partition's records that follow outside of `out`.
    pub fn end(self, more: usize, out: &mut [u8]) {
        self.end_topic(out);
        let (at, count) = self.topics;
        out[at..at + 4].copy_from_slice(&count.to_be_bytes());
        end_frame(self.start, more, out);
    }
}

/// What a partition answered to a Produce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Produced<'a> {
    pub topic: &'a [u8],
    pub partition: i32,
    pub error: i16,
}

/// Hands the partitions of a Produce reply (without length and correlation) to `each`, in the order of the request.
///
/// # Errors
/// Where the bytes end early.
pub fn produced<'a>(reply: &'a [u8], mut each: impl FnMut(Produced<'a>)) -> Result<(), Short> {
    let mut rest = Reader(reply);
    for _ in 0..rest.i32()? {
        let topic = rest.string()?;
        for _ in 0..rest.i32()? {
            let (partition, error) = (rest.i32()?, rest.i16()?);
            // Base offset, append time, log start.
            rest.take(24)?;
            each(Produced { topic, partition, error });
        }
    }
    Ok(())
}

/// A request frame (without its length) as a broker reads it: key, version, correlation, body.
///
/// # Errors
/// Where the bytes end early.
pub fn request(frame: &[u8]) -> Result<(i16, i16, i32, &[u8]), Short> {
    let mut rest = Reader(frame);
    let (key, version, correlation) = (rest.i16()?, rest.i16()?, rest.i32()?);
    let client_id = rest.i16()?;
    rest.take(usize::try_from(client_id).unwrap_or(0))?;
    Ok((key, version, correlation, rest.0))
}

/// Appends the reply to the body of a Produce 7 that has taken every batch; false where no reply is wanted. `keep` gets topic, partition
/// and records of each, and says which offset they have.
///
/// # Errors
/// Where the bytes end early.
pub fn acknowledge(
    body: &[u8],
    out: &mut Vec<u8>,
    mut keep: impl FnMut(&[u8], i32, &[u8]) -> i64,
) -> Result<bool, Short> {
    let mut rest = Reader(body);
    let transactional_id = rest.i16()?;
    rest.take(usize::try_from(transactional_id).unwrap_or(0))?;
    let acks = rest.i16()?;
    rest.i32()?;
    let topics = rest.i32()?;
    out.extend_from_slice(&topics.to_be_bytes());
    for _ in 0..topics {
        let name = rest.string()?;
        out.extend_from_slice(&(name.len() as i16).to_be_bytes());
        out.extend_from_slice(name);
        let partitions = rest.i32()?;
        out.extend_from_slice(&partitions.to_be_bytes());
        for _ in 0..partitions {
            let (partition, bytes) = (rest.i32()?, rest.i32()?);
            let records = rest.take(usize::try_from(bytes).map_err(|_| Short)?)?;
            out.extend_from_slice(&partition.to_be_bytes());
            out.extend_from_slice(&[0; 2]);
            out.extend_from_slice(&keep(name, partition, records).to_be_bytes());
            // Append time and log start, which nobody looks at.
            out.extend_from_slice(&[0; 16]);
        }
    }
    // Not throttled.
    out.extend_from_slice(&[0; 4]);
    Ok(acks != 0)
}

/// A partition that a Fetch asks for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Counts the scenario's topics from 0.
    pub topic: u32,
    pub partition: i32,
    pub offset: i64,
}

/// How much a Fetch may bring, and how long it may wait.
#[derive(Clone, Copy, Debug)]
pub struct FetchBounds {
    pub wait_ms: i32,
    pub min_bytes: i32,
    pub partition_bytes: i32,
    pub total_bytes: i32,
}

/// Appends a Fetch for `wanted`, which is in order of topics.
pub fn fetch(correlation: i32, bounds: FetchBounds, topics: &[String], wanted: &[Wanted], out: &mut Vec<u8>) {
    let start = begin_frame(FETCH, correlation, out);
    // A consumer, not a replica.
    out.extend_from_slice(&(-1i32).to_be_bytes());
    out.extend_from_slice(&bounds.wait_ms.to_be_bytes());
    out.extend_from_slice(&bounds.min_bytes.to_be_bytes());
    out.extend_from_slice(&bounds.total_bytes.to_be_bytes());
    // Read uncommitted; no session.
    out.push(0);
    out.extend_from_slice(&0i32.to_be_bytes());
    out.extend_from_slice(&(-1i32).to_be_bytes());
    let groups = wanted.chunk_by(|one, next| one.topic == next.topic);
    out.extend_from_slice(&(groups.clone().count() as i32).to_be_bytes());
    for group in groups {
        put_string(&topics[group[0].topic as usize], out);
        out.extend_from_slice(&(group.len() as i32).to_be_bytes());
        for wanted in group {
            out.extend_from_slice(&wanted.partition.to_be_bytes());
            // The leader's epoch is not known.
            out.extend_from_slice(&(-1i32).to_be_bytes());
            out.extend_from_slice(&wanted.offset.to_be_bytes());
            out.extend_from_slice(&(-1i64).to_be_bytes());
            out.extend_from_slice(&bounds.partition_bytes.to_be_bytes());
        }
    }
    // Nothing forgotten; no rack.
    out.extend_from_slice(&0i32.to_be_bytes());
    put_string("", out);
    end_frame(start, 0, out);
}

/// What a Fetch asks of a partition, as a broker reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked<'a> {
    pub topic: &'a [u8],
    pub partition: i32,
    pub offset: i64,
    pub bytes_max: i32,
}

/// The partitions that the body of a Fetch 11 asks for, by topics.
///
/// # Errors
/// Where the bytes end early.
pub fn asked(body: &[u8]) -> Result<Vec<Vec<Asked<'_>>>, Short> {
    let mut rest = Reader(body);
    // Replica, wait, bytes; isolation; session.
    rest.take(16 + 1 + 8)?;
    let mut topics = Vec::new();
    for _ in 0..rest.i32()? {
        let topic = rest.string()?;
        let mut partitions = Vec::new();
        for _ in 0..rest.i32()? {
            let partition = rest.i32()?;
            // The leader's epoch.
            rest.take(4)?;
            let offset = i64::from_be_bytes(rest.array()?);
            // Where the log starts, of a follower.
            rest.take(8)?;
            partitions.push(Asked { topic, partition, offset, bytes_max: rest.i32()? });
        }
        topics.push(partitions);
    }
    Ok(topics)
}

/// Appends the start of a Fetch reply: how many topics follow.
pub fn begin_fetched(topics: usize, out: &mut Vec<u8>) {
    // Not throttled, no error, no session.
    out.extend_from_slice(&[0; 4 + 2 + 4]);
    out.extend_from_slice(&(topics as i32).to_be_bytes());
}

/// Appends a topic of a Fetch reply: how many partitions follow.
pub fn fetched_topic(name: &[u8], partitions: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(&(name.len() as i16).to_be_bytes());
    out.extend_from_slice(name);
    out.extend_from_slice(&(partitions as i32).to_be_bytes());
}

/// Appends a partition of a Fetch reply up to its records, `bytes` of which follow.
pub fn fetched_partition(partition: i32, error: i16, end_offset: i64, bytes: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(&partition.to_be_bytes());
    out.extend_from_slice(&error.to_be_bytes());
    for offset in [end_offset, end_offset, 0] {
        out.extend_from_slice(&offset.to_be_bytes());
    }
    // Nothing was aborted; no replica is preferred.
    out.extend_from_slice(&0i32.to_be_bytes());
    out.extend_from_slice(&(-1i32).to_be_bytes());
    out.extend_from_slice(&(bytes as i32).to_be_bytes());
}

/// What a partition answered to a Fetch.
pub struct Fetched<'a> {
    pub topic: &'a [u8],
    pub partition: i32,
    pub error: i16,
    pub records: &'a [u8],
}

/// Hands the partitions of a Fetch reply (without length and correlation) to `each`; returns the error of the whole.
///
/// # Errors
/// Where the bytes end early.
pub fn fetched<'a>(reply: &'a [u8], mut each: impl FnMut(Fetched<'a>)) -> Result<i16, Short> {
    let mut rest = Reader(reply);
    // Throttle time.
    rest.take(4)?;
    let error = rest.i16()?;
    // Session.
    rest.take(4)?;
    for _ in 0..rest.i32()? {
        let topic = rest.string()?;
        for _ in 0..rest.i32()? {
            let (partition, error) = (rest.i32()?, rest.i16()?);
            // High watermark, last stable offset, log start.
            rest.take(24)?;
            for _ in 0..rest.i32()? {
                rest.take(16)?;
            }
            // Preferred replica.
            rest.take(4)?;
            let bytes = rest.i32()?.max(0) as usize;
            each(Fetched { topic, partition, error, records: rest.take(bytes)? });
        }
    }
    Ok(error)
}

/// A reply is not as its version says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Short;

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, bytes: usize) -> Result<&'a [u8], Short> {
        let (taken, rest) = self.0.split_at_checked(bytes).ok_or(Short)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Short> {
        Ok(self.take(N)?.try_into().expect("as many as taken"))
    }

    fn i16(&mut self) -> Result<i16, Short> {
        self.array().map(i16::from_be_bytes)
    }

    fn i32(&mut self) -> Result<i32, Short> {
        self.array().map(i32::from_be_bytes)
    }

    fn string(&mut self) -> Result<&'a [u8], Short> {
        let length = self.i16()?;
        self.take(usize::try_from(length).map_err(|_| Short)?)
    }
}

/// What an error code of Kafka's is called; the number where it is none that this client meets.
pub fn error_name(code: i16) -> String {
    match kafka_protocol::ResponseError::try_from_code(code) {
        Some(error) => format!("{error:?}"),
        None => format!("error {code}"),
    }
}

/// Whether a later try may succeed without anything being changed.
pub fn is_retriable(code: i16) -> bool {
    kafka_protocol::ResponseError::try_from_code(code).is_some_and(|error| error.is_retriable())
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::messages::{FetchRequest, FetchResponse, ProduceRequest, ProduceResponse, RequestHeader};
    use kafka_protocol::messages::{fetch_response, produce_response};
    use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};

    /// The body of a frame, after its header.
    fn body(frame: &[u8], correlation: i32) -> bytes::Bytes {
        let length = u32::from_be_bytes(frame[..4].try_into().expect("four")) as usize;
        assert_eq!(length, frame.len() - 4);
        let mut rest = bytes::Bytes::copy_from_slice(&frame[4..]);
        let header = RequestHeader::decode(&mut rest, 1).expect("a header");
        assert_eq!(header.correlation_id, correlation);
        rest
    }

    #[test]
    fn another_reader_takes_our_produce() {
        let mut out = Vec::new();
        let mut produce = Produce::begin(7, -1, 3000, &mut out);
        for (topic, partitions) in [("one", vec![1, 2]), ("two", vec![0])] {
            produce.topic(topic, &mut out);
            for partition in partitions {
                produce.partition(partition, 3, &mut out);
                out.extend_from_slice(b"abc");
            }
        }
        produce.end(0, &mut out);
        let mut rest = body(&out, 7);
        let request = ProduceRequest::decode(&mut rest, PRODUCE.1).expect("a request");
        assert!(rest.is_empty());
        assert_eq!((request.acks, request.timeout_ms), (-1, 3000));
        let read: Vec<(String, Vec<i32>)> = request
            .topic_data
            .iter()
            .map(|topic| (topic.name.to_string(), topic.partition_data.iter().map(|data| data.index).collect()))
            .collect();
        assert_eq!(read, [("one".to_owned(), vec![1, 2]), ("two".to_owned(), vec![0])]);
        assert_eq!(request.topic_data[1].partition_data[0].records.as_deref(), Some(&b"abc"[..]));
    }

    #[test]
    fn another_reader_takes_our_fetch() {
        let mut out = Vec::new();
        let bounds = FetchBounds { wait_ms: 5, min_bytes: 1, partition_bytes: 10, total_bytes: 100 };
        let wanted =
            [(0, 1, 11), (0, 2, 12), (1, 0, 13)].map(|(topic, partition, offset)| Wanted { topic, partition, offset });
        fetch(9, bounds, &["one".to_owned(), "two".to_owned()], &wanted, &mut out);
        let mut rest = body(&out, 9);
        let request = FetchRequest::decode(&mut rest, FETCH.1).expect("a request");
        assert!(rest.is_empty());
        assert_eq!((request.max_wait_ms, request.min_bytes, request.max_bytes), (5, 1, 100));
        let read: Vec<(String, i32, i64)> = request
            .topics
            .iter()
            .flat_map(|topic| {
                topic.partitions.iter().map(|asked| (topic.topic.to_string(), asked.partition, asked.fetch_offset))
            })
            .collect();
        assert_eq!(read, [("one".to_owned(), 1, 11), ("one".to_owned(), 2, 12), ("two".to_owned(), 0, 13)]);
    }

    fn produce_reply() -> Vec<u8> {
        let partition = |index, error, offset| {
            produce_response::PartitionProduceResponse::default()
                .with_index(index)
                .with_error_code(error)
                .with_base_offset(offset)
        };
        let topic = produce_response::TopicProduceResponse::default()
            .with_name(StrBytes::from_static_str("one").into())
            .with_partition_responses(vec![partition(1, 0, 50), partition(2, 6, -1)]);
        let mut out = bytes::BytesMut::new();
        ProduceResponse::default().with_responses(vec![topic]).encode(&mut out, PRODUCE.1).expect("a reply");
        out.to_vec()
    }

    fn fetch_reply() -> Vec<u8> {
        let partition = fetch_response::PartitionData::default()
            .with_partition_index(4)
            .with_aborted_transactions(Some(vec![fetch_response::AbortedTransaction::default()]))
            .with_records(Some(bytes::Bytes::from_static(b"records")));
        let empty = fetch_response::PartitionData::default().with_partition_index(5).with_error_code(1);
        let topic = fetch_response::FetchableTopicResponse::default()
            .with_topic(StrBytes::from_static_str("one").into())
            .with_partitions(vec![partition, empty]);
        let mut out = bytes::BytesMut::new();
        FetchResponse::default().with_responses(vec![topic]).encode(&mut out, FETCH.1).expect("a reply");
        out.to_vec()
    }

    #[test]
    fn we_read_what_another_writer_writes() {
        let mut seen = Vec::new();
        let reply = produce_reply();
        produced(&reply, |answer| seen.push(answer)).expect("whole");
        let topic = &b"one"[..];
        assert_eq!(seen, [(1, 0), (2, 6)].map(|(partition, error)| Produced { topic, partition, error }));
        let mut seen = Vec::new();
        let reply = fetch_reply();
        let error = fetched(&reply, |part| seen.push((part.topic, part.partition, part.error, part.records)));
        assert_eq!(error, Ok(0));
        assert_eq!(seen, [(&b"one"[..], 4, 0, &b"records"[..]), (&b"one"[..], 5, 1, &b""[..])]);
    }

    #[test]
    fn what_is_acknowledged_is_what_was_sent() {
        let mut frame = Vec::new();
        let mut produce = Produce::begin(77, -1, 1000, &mut frame);
        for (topic, partitions) in [("one", &[3, 4][..]), ("two", &[0])] {
            produce.topic(topic, &mut frame);
            for &partition in partitions {
                produce.partition(partition, 5, &mut frame);
                frame.extend_from_slice(b"batch");
            }
        }
        produce.end(0, &mut frame);
        let (key, version, correlation, body) = request(&frame[4..]).expect("whole");
        assert_eq!(((key, version), correlation), (PRODUCE, 77));
        let (mut reply, mut kept) = (Vec::new(), Vec::new());
        let keep = |topic: &[u8], partition, records: &[u8]| {
            kept.push((topic.to_vec(), partition, records.to_vec()));
            40
        };
        assert_eq!(acknowledge(body, &mut reply, keep), Ok(true));
        let expected =
            [("one", 3), ("one", 4), ("two", 0)].map(|(topic, partition)| (topic.into(), partition, b"batch".to_vec()));
        assert_eq!(kept, expected);
        let mut seen = Vec::new();
        produced(&reply, |answer| seen.push((answer.topic.to_vec(), answer.partition, answer.error))).expect("whole");
        assert_eq!(seen, [(b"one".to_vec(), 3, 0), (b"one".to_vec(), 4, 0), (b"two".to_vec(), 0, 0)]);
        for bytes in 0..body.len() {
            assert_eq!(acknowledge(&body[..bytes], &mut Vec::new(), |_, _, _| 0), Err(Short), "{bytes}");
        }
    }

    #[test]
    fn what_is_asked_for_is_what_comes() {
        let bounds = FetchBounds { wait_ms: 5, min_bytes: 1, partition_bytes: 10, total_bytes: 100 };
        let wanted =
            [(0, 1, 11), (0, 2, 12), (1, 0, 13)].map(|(topic, partition, offset)| Wanted { topic, partition, offset });
        let mut frame = Vec::new();
        fetch(9, bounds, &["one".to_owned(), "two".to_owned()], &wanted, &mut frame);
        let (key, version, correlation, body) = request(&frame[4..]).expect("whole");
        assert_eq!(((key, version), correlation), (FETCH, 9));
        let topics = asked(body).expect("whole");
        let read: Vec<_> = topics.concat().iter().map(|asked| (asked.topic, asked.partition, asked.offset)).collect();
        assert_eq!(read, [(&b"one"[..], 1, 11), (b"one", 2, 12), (b"two", 0, 13)]);
        let mut reply = Vec::new();
        begin_fetched(topics.len(), &mut reply);
        for partitions in &topics {
            fetched_topic(partitions[0].topic, partitions.len(), &mut reply);
            for asked in partitions {
                fetched_partition(asked.partition, 0, 20, 3, &mut reply);
                reply.extend_from_slice(b"abc");
            }
        }
        let mut seen = Vec::new();
        let error = fetched(&reply, |part| seen.push((part.topic.to_vec(), part.partition, part.records.to_vec())));
        assert_eq!(error, Ok(0));
        let expected =
            [("one", 1), ("one", 2), ("two", 0)].map(|(topic, partition)| (topic.into(), partition, b"abc".to_vec()));
        assert_eq!(seen, expected);
        // Behind the topics stands what is not read.
        for bytes in 0..body.len() - 6 {
            assert_eq!(asked(&body[..bytes]), Err(Short), "{bytes}");
        }
    }

    #[test]
    fn replies_that_end_early_or_lie_are_refused() {
        let (produce, fetch) = (produce_reply(), fetch_reply());
        for bytes in 0..produce.len() - 4 {
            assert_eq!(produced(&produce[..bytes], |_| ()), Err(Short), "{bytes}");
        }
        for bytes in 0..fetch.len() {
            assert!(fetched(&fetch[..bytes], |_| ()).is_err(), "{bytes}");
        }
        let mut random = fastrand::Rng::with_seed(5);
        for _ in 0..50_000 {
            let mut forged = fetch.clone();
            let at = random.usize(..forged.len());
            forged[at] = random.u8(..);
            let _ = fetched(&forged, |_| ());
            let _ = produced(&forged, |_| ());
        }
    }
}
