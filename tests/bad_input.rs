//! What a broker does with input that no client should send: the rows of the design's table "Bad input", and how requests that
//! are good may arrive.
//!
//! Many clients at once are `tests/many_clients.rs`.

#[path = "sim/rng.rs"]
#[allow(dead_code, reason = "shared with the simulator, which uses all of it")]
mod rng;
mod support;

use ringlog::base::batch;
use ringlog::base::error::ErrorCode;
use ringlog::protocol::frame::read_response;
use ringlog::protocol::messages::api_versions::{ApiVersionsRequest, ApiVersionsResponse};
use ringlog::protocol::messages::fetch::{FetchPartition, FetchRequest, FetchResponse, FetchTopic};
use ringlog::protocol::messages::list_offsets::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};
use ringlog::protocol::messages::metadata::{MetadataRequest, MetadataRequestTopic};
use ringlog::protocol::messages::produce::{ProduceRequest, ProduceResponse};
use rng::Rng;
use std::net::Shutdown;
use std::time::{SystemTime, UNIX_EPOCH};
use support::clients::{create_topic, until};
use support::raw::{Raw, api_versions, frame, produce};
use support::{Broker, Options};

const VERSION: i16 = 9;

/// Random numbers from `SEED`, or from a new seed; a test that fails shows which.
fn seeded() -> Rng {
    let seed = std::env::var("SEED").ok().and_then(|text| text.parse().ok());
    let seed =
        seed.unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos() as u64);
    eprintln!("SEED={seed}");
    Rng(seed)
}

fn start() -> Broker {
    Broker::start(Options::default())
}

/// The broker still answers somebody else.
fn serves(broker: &Broker) {
    let mut other = Raw::connect(broker.address());
    other.send(&api_versions(77));
    assert_eq!(other.reply_id(), 77);
}

/// Sends `bytes` on a connection of their own, which must be closed with a line in the log that names the peer and holds `says`.
/// At most ten times on one broker: a core writes no more such lines in a second.
fn closes(broker: &Broker, bytes: &[u8], says: &str) {
    let mut raw = Raw::connect(broker.address());
    let peer = raw.stream().local_addr().expect("connected").to_string();
    raw.send(bytes);
    raw.closed(says);
    until(&format!("a line about {peer} that says `{says}`"), || {
        let log = broker.log();
        log.lines().any(|line| line.contains(&peer) && line.contains(says)).then_some(())
    });
}

/// A frame of `body` behind a header of this key and version with an empty client id.
fn request(key: i16, version: i16, body: &[u8]) -> Vec<u8> {
    let mut bytes = [&key.to_be_bytes()[..], &version.to_be_bytes(), &[0, 0, 0, 5, 0, 0], body].concat();
    let length = (bytes.len() as i32).to_be_bytes();
    bytes.splice(..0, length);
    bytes
}

#[test]
fn frames_of_impossible_length_close_the_connection() {
    let broker = start();
    for (length, says) in [
        (7, "a frame of 7 bytes is too short"),
        (0, "a frame of 0 bytes is too short"),
        (-1, "a frame of -1 bytes"),
        (i32::MIN, "this is not Kafka's protocol"),
    ] {
        closes(&broker, &i32::to_be_bytes(length), says);
    }
    serves(&broker);
    closes(&broker, &i32::to_be_bytes(i32::MAX), "is over socket.request.max.bytes");
    serves(&broker);
}

#[test]
fn large_frames_of_anything_but_produce_close_the_connection_when_their_key_has_come() {
    let broker = start();
    let announce = |bytes: i32, key: i16| [&bytes.to_be_bytes()[..], &key.to_be_bytes()].concat();
    closes(&broker, &announce((8 << 20) + 1, 3), "of API key 3 is over 8388608 bytes");
    closes(&broker, &announce(30 << 20, -7), "of API key -7 is over 8388608 bytes");
    // One that is as large as may be and holds as many empty names as there is room for: more than may be decoded.
    let names = ((8 << 20) - 10 - 4) / 2;
    let body = [&i32::to_be_bytes(names)[..], &vec![0; 2 * names as usize]].concat();
    closes(&broker, &request(3, 1, &body), "cannot be read");
    serves(&broker);
}

#[test]
fn a_flood_of_bad_frames_is_cut_in_the_log() {
    let broker = start();
    for _ in 0..500 {
        let mut raw = Raw::connect(broker.address());
        raw.send(&[0xff; 8]);
        raw.closed("a negative length");
    }
    // Five lines a second and core; 500 connections take far less than the 50 s at which that would be all of them.
    let lines = broker.log().lines().filter(|line| line.contains("connection closed")).count();
    assert!((1..500).contains(&lines), "{lines} lines");
    serves(&broker);
}

#[test]
fn other_protocols_are_named() {
    let broker = start();
    closes(&broker, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "a TLS hello");
    closes(&broker, b"GET / HTTP/1.1\r\nHost: broker\r\n\r\n", "an HTTP request");
    closes(&broker, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "an HTTP request");
    closes(&broker, b"\x9e\x31\x07\xfa\x55\xc0\xff\xee", "this is not Kafka's protocol");
    serves(&broker);
}

#[test]
fn bodies_that_promise_more_than_they_hold_close_the_connection() {
    let broker = start();
    // Metadata v1: an array of topics that counts more than there is, and one that ends within a name.
    closes(&broker, &request(3, 1, &i32::MAX.to_be_bytes()), "cannot be read");
    closes(&broker, &request(3, 1, &[0, 0, 0, 1, 0, 9, b'a']), "cannot be read");
    closes(&broker, &request(3, 1, &[0, 0]), "cannot be read");
    // A Produce whose records end early.
    let whole = frame(1, VERSION, &produce("t", -1, &[(0, b"not a batch, but bytes")]));
    let mut cut = whole[..whole.len() - 10].to_vec();
    let length = (cut.len() as i32 - 4).to_be_bytes();
    cut[..4].copy_from_slice(&length);
    closes(&broker, &cut, "cannot be read");
    serves(&broker);
}

#[test]
fn bytes_after_a_body_are_ignored() {
    let broker = start();
    let mut raw = Raw::connect(broker.address());
    for extra in [1, 100, 10_000] {
        let mut bytes = frame(3, 1, &MetadataRequest { topics: Some(vec![]), ..Default::default() });
        bytes.resize(bytes.len() + extra, 0xee);
        let length = (bytes.len() as i32 - 4).to_be_bytes();
        bytes[..4].copy_from_slice(&length);
        raw.send(&bytes);
        assert_eq!(raw.reply_id(), 3);
    }
}

#[test]
fn keys_and_versions_that_are_not_served_close_the_connection_but_api_versions_is_told() {
    let broker = start();
    for (key, version) in [(4, 0), (999, 0), (-1, 0), (0, 99), (1, 3), (3, -1)] {
        closes(&broker, &request(key, version, &[0; 40]), &format!("API key {key} version {version}"));
    }
    let mut raw = Raw::connect(broker.address());
    raw.send(&frame(6, 4, &ApiVersionsRequest::default()));
    assert_eq!(raw.reply_id(), 6);
    raw.send(&request(18, 9, b"\x00what comes after version 4"));
    let bytes = raw.reply();
    let (id, response): (i32, ApiVersionsResponse<'_>) = read_response(&bytes, 0).expect("in the form of v0");
    assert_eq!((id, response.error_code), (5, ErrorCode::UnsupportedVersion.code()));
    assert_eq!(response.api_keys.iter().map(|entry| entry.api_key).collect::<Vec<_>>(), [18]);
    raw.send(&api_versions(7));
    assert_eq!(raw.reply_id(), 7, "the connection goes on");
}

fn produced(raw: &mut Raw, request: &ProduceRequest<'_>) -> Vec<(i32, i16)> {
    raw.send(&frame(1, VERSION, request));
    let bytes = raw.reply();
    let (_, response): (i32, ProduceResponse<'_>) = read_response(&bytes, VERSION).expect("a reply");
    let parts = response.responses.iter().flat_map(|topic| &topic.partition_responses);
    parts.map(|part| (part.index, part.error_code)).collect()
}

#[test]
fn a_bad_batch_is_refused_and_the_partitions_beside_it_are_served() {
    let broker = start();
    create_topic(broker.address(), "parts", 12, &[]);
    let good = support::raw::batch(b"value");
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        bytes
    };
    let sealed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = with(change);
        batch::seal(&mut bytes);
        bytes
    };
    let (corrupt, invalid) = (ErrorCode::CorruptMessage, ErrorCode::InvalidRecord);
    let cases = [
        ("crc", with(&|bytes| bytes[17] ^= 1), corrupt),
        ("payload", with(&|bytes| *bytes.last_mut().expect("not empty") ^= 1), corrupt),
        ("magic 1", with(&|bytes| bytes[16] = 1), corrupt),
        ("magic 3", with(&|bytes| bytes[16] = 3), corrupt),
        ("negative length", with(&|bytes| bytes[8..12].copy_from_slice(&(-5i32).to_be_bytes())), corrupt),
        ("length too large", with(&|bytes| bytes[8..12].copy_from_slice(&i32::MAX.to_be_bytes())), corrupt),
        ("cut", with(&|bytes| bytes.truncate(bytes.len() - 1)), corrupt),
        ("empty", vec![], corrupt),
        ("count", sealed(&|bytes| bytes[57..61].copy_from_slice(&2i32.to_be_bytes())), invalid),
        ("negative count", sealed(&|bytes| bytes[57..61].copy_from_slice(&(-1i32).to_be_bytes())), invalid),
        ("two batches", [&good[..], &good].concat(), invalid),
        ("control", sealed(&|bytes| bytes[22] |= 1 << 5), invalid),
    ];
    let mut raw = Raw::connect(broker.address());
    for (what, bad, code) in &cases {
        // The bad one between good ones, which lie on both cores.
        let parts: Vec<(i32, &[u8])> =
            (0..12).map(|index| (index, if index == 5 { &bad[..] } else { &good })).collect();
        let expected: Vec<(i32, i16)> =
            (0..12).map(|index| (index, if index == 5 { code.code() } else { 0 })).collect();
        assert_eq!(produced(&mut raw, &produce("parts", -1, &parts)), expected, "{what}");
    }
    assert_eq!(produced(&mut raw, &produce("parts", -1, &[(5, &good)])), [(5, 0)], "nothing is left behind");
    let ends = end_offsets(&mut raw, "parts", 12);
    let rounds = cases.len() as i64;
    let expected: Vec<i64> = (0..12).map(|index| if index == 5 { 1 } else { rounds }).collect();
    assert_eq!(ends, expected, "what was refused was not written");
}

fn end_offsets(raw: &mut Raw, topic: &str, partitions: i32) -> Vec<i64> {
    use ringlog::protocol::messages::list_offsets::ListOffsetsResponse;
    raw.send(&frame(1, 5, &list_ends(topic, partitions)));
    let bytes = raw.reply();
    let (_, response): (i32, ListOffsetsResponse<'_>) = read_response(&bytes, 5).expect("a reply");
    response.topics[0].partitions.iter().map(|part| part.offset).collect()
}

fn list_ends(topic: &str, partitions: i32) -> ListOffsetsRequest<'_> {
    let part = |partition_index| ListOffsetsPartition { partition_index, current_leader_epoch: -1, timestamp: -1 };
    let topic = ListOffsetsTopic { name: topic, partitions: (0..partitions).map(part).collect() };
    ListOffsetsRequest { replica_id: -1, topics: vec![topic], ..Default::default() }
}

#[test]
fn a_batch_over_the_topics_limit_is_too_large_and_one_at_it_is_not() {
    let broker = start();
    let at = support::raw::batch(&[b'v'; 5000]);
    create_topic(broker.address(), "small", 2, &[("max.message.bytes", &at.len().to_string())]);
    let over = support::raw::batch(&[b'v'; 5001]);
    let mut raw = Raw::connect(broker.address());
    let results = produced(&mut raw, &produce("small", -1, &[(0, &over), (1, &at)]));
    assert_eq!(results, [(0, ErrorCode::MessageTooLarge.code()), (1, 0)]);
}

#[test]
fn with_acks_0_an_error_closes_the_connection_and_success_says_nothing() {
    let broker = start();
    create_topic(broker.address(), "quiet", 1, &[]);
    let good = support::raw::batch(b"value");
    let mut raw = Raw::connect(broker.address());
    raw.send(&frame(1, VERSION, &produce("quiet", 0, &[(0, &good)])));
    raw.send(&api_versions(2));
    assert_eq!(raw.reply_id(), 2, "the produce has no reply");
    let mut bad = good.clone();
    bad[17] ^= 1;
    for (topic, records) in [("quiet", &bad), ("nowhere", &good)] {
        let mut raw = Raw::connect(broker.address());
        raw.send(&frame(1, VERSION, &produce(topic, 0, &[(0, records)])));
        raw.closed("an error with acks=0");
    }
    serves(&broker);
}

#[test]
fn what_came_before_a_bad_request_is_answered() {
    let broker = start();
    create_topic(broker.address(), "before", 1, &[]);
    let good = support::raw::batch(b"value");
    let mut bytes: Vec<u8> = (0..20).flat_map(|id| frame(id, VERSION, &produce("before", -1, &[(0, &good)]))).collect();
    bytes.extend_from_slice(&request(0, 9, &[0xff; 9]));
    bytes.extend_from_slice(&api_versions(99));
    let mut raw = Raw::connect(broker.address());
    raw.send(&bytes);
    for id in 0..20 {
        assert_eq!(raw.reply_id(), id);
    }
    raw.closed("a request that cannot be read");
}

fn fetch(topic: &str, wait_ms: i32) -> FetchRequest<'_> {
    let partition = FetchPartition { partition_max_bytes: 1 << 20, ..Default::default() };
    let topic = FetchTopic { topic, partitions: vec![partition], ..Default::default() };
    FetchRequest {
        replica_id: -1,
        max_wait_ms: wait_ms,
        min_bytes: 1,
        max_bytes: 1 << 20,
        session_epoch: -1,
        topics: vec![topic],
        ..Default::default()
    }
}

#[test]
fn a_thousand_pipelined_requests_of_all_kinds_are_answered_in_order() {
    let broker = start();
    create_topic(broker.address(), "pipe", 4, &[]);
    let records = support::raw::batch(b"value");
    let mut bytes = Vec::new();
    for id in 0..1000 {
        let next = match id % 7 {
            0..=2 => frame(id, VERSION, &produce("pipe", -1, &[(id % 4, &records)])),
            3 => frame(id, 11, &fetch("pipe", 5)),
            4 => frame(id, 5, &list_ends("pipe", 4)),
            5 => frame(id, 9, &MetadataRequest::default()),
            _ => api_versions(id),
        };
        bytes.extend_from_slice(&next);
    }
    let mut raw = Raw::connect(broker.address());
    let mut writing = raw.stream().try_clone().expect("a second handle");
    let writer = std::thread::spawn(move || std::io::Write::write_all(&mut writing, &bytes));
    for id in 0..1000 {
        assert_eq!(raw.reply_id(), id);
    }
    writer.join().expect("no panic").expect("the broker has read all");
}

#[test]
fn parts_of_one_request_come_back_in_its_order_whatever_core_they_are_on() {
    let broker = start();
    create_topic(broker.address(), "many", 64, &[]);
    let records = support::raw::batch(b"value");
    let mut rng = seeded();
    let mut raw = Raw::connect(broker.address());
    for _ in 0..20 {
        let mut order: Vec<i32> = (0..64).collect();
        for at in (1..order.len()).rev() {
            order.swap(at, rng.below(at + 1));
        }
        let parts: Vec<(i32, &[u8])> = order.iter().map(|&index| (index, &records[..])).collect();
        let expected: Vec<(i32, i16)> = order.iter().map(|&index| (index, 0)).collect();
        assert_eq!(produced(&mut raw, &produce("many", -1, &parts)), expected);
    }
}

/// Requests whose replies are the same however often they are asked.
fn questions(topic: &str) -> Vec<u8> {
    let named = MetadataRequestTopic { name: Some(topic), ..Default::default() };
    let metadata = MetadataRequest { topics: Some(vec![named]), ..Default::default() };
    let bad = support::raw::batch(b"value")[1..].to_vec();
    [
        api_versions(1),
        frame(2, 9, &metadata),
        frame(3, 11, &fetch(topic, 1)),
        frame(4, VERSION, &produce(topic, -1, &[(0, &bad)])),
        frame(5, 5, &list_ends(topic, 1)),
    ]
    .concat()
}

fn answers(raw: &mut Raw) -> Vec<Vec<u8>> {
    (0..5).map(|_| raw.reply()).collect()
}

#[test]
fn requests_may_be_split_anywhere() {
    let broker = start();
    create_topic(broker.address(), "split", 1, &[]);
    let mut raw = Raw::connect(broker.address());
    let good = support::raw::batch(&[b'v'; 300]);
    assert_eq!(produced(&mut raw, &produce("split", -1, &[(0, &good)])), [(0, 0)]);
    let bytes = questions("split");
    raw.send(&bytes);
    let whole = answers(&mut raw);
    let (_, fetched): (i32, FetchResponse<'_>) = read_response(&whole[2], 11).expect("a reply");
    assert_eq!(fetched.responses[0].partitions[0].high_watermark, 1);
    // At every byte, in two parts; the broker may or may not see them apart.
    for at in 1..bytes.len() {
        raw.send(&bytes[..at]);
        raw.send(&bytes[at..]);
        assert_eq!(answers(&mut raw), whole, "split at {at}");
    }
    // Byte by byte.
    bytes.iter().for_each(|byte| raw.send(&[*byte]));
    assert_eq!(answers(&mut raw), whole);
    // At many places at once, several rounds pipelined.
    let mut rng = seeded();
    let rounds = bytes.repeat(4);
    for _ in 0..50 {
        let mut rest = &rounds[..];
        while !rest.is_empty() {
            let part = rest.len().min(1 + rng.below(200));
            raw.send(&rest[..part]);
            rest = &rest[part..];
        }
        for _ in 0..4 {
            assert_eq!(answers(&mut raw), whole);
        }
    }
}

#[test]
fn a_peer_that_leaves_in_the_middle_of_anything_disturbs_nobody() {
    let broker = start();
    create_topic(broker.address(), "left", 1, &[]);
    let bytes = questions("left");
    for at in (0..bytes.len()).step_by(7) {
        let mut raw = Raw::connect(broker.address());
        raw.send(&bytes[..at]);
        match at % 3 {
            0 => drop(raw),
            1 => raw.stream().shutdown(Shutdown::Write).expect("connected"),
            _ => raw.stream().shutdown(Shutdown::Both).expect("connected"),
        }
    }
    serves(&broker);
}
