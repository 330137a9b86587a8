//! The codec against another implementation: every message, every version, both directions, and input that is wrong.
//!
//! The oracle is the crate `kafka-protocol`. It gets valid bytes only: hostile ones make it allocate without bound. Messages are
//! carried over to it field by field, by name, so that two fields of one type that stand in each other's place are found.

mod choices;

use choices::Choices;
use kafka_protocol::protocol::{Decodable, Encodable, Message as OracleMessage, StrBytes};
use proptest::prelude::*;
use ringlog::base::batch::HEADER_BYTES;
use ringlog::base::limits::{DECODE_BYTES_BASE, DECODE_BYTES_PER_BYTE};
use ringlog::base::record::BatchBuilder;
use ringlog::protocol::error::DecodeError;
use ringlog::protocol::messages::ApiKey;
use ringlog::protocol::reader::Reader;
use ringlog::protocol::versions::is_flexible;
use ringlog::protocol::writer::{Records, Writer};
use ringlog::protocol::{Message, messages};
use std::collections::BTreeMap;
use std::io::Write;
use std::ops::RangeInclusive;

/// Makes a message that has all fields of a version, out of choices; no other field differs from its default.
trait Generate {
    fn generate(choices: &mut Choices<'_>, version: i16) -> Self;
}

/// The same message as a struct of the oracle.
trait ToOracle {
    type Oracle;
    fn to_oracle(&self, version: i16, unknown_tags: bool) -> Self::Oracle;
}

fn oracle_string(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_string())
}

fn oracle_records(records: &Records<'_>) -> bytes::Bytes {
    match records {
        Records::Inline(bytes) => bytes::Bytes::copy_from_slice(bytes),
        Records::Hole { .. } => unreachable!("messages are made with inline records"),
    }
}

/// Tagged fields from a Kafka newer than we know.
fn unknown_tagged_fields() -> BTreeMap<i32, bytes::Bytes> {
    BTreeMap::from([(200, bytes::Bytes::from_static(b"new")), (100_000, bytes::Bytes::new())])
}

/// A message in one version, as each side writes it.
struct Sample {
    /// Its fields as text.
    text: String,
    ours: Vec<u8>,
    /// `None` where the oracle has no such version.
    oracle: Option<Vec<u8>>,
    /// The same with tagged fields that we do not know.
    oracle_with_unknown_tags: Option<Vec<u8>>,
}

/// What was read from bytes.
#[derive(PartialEq, Eq, Debug)]
struct Decoded {
    text: String,
    encoded: Vec<u8>,
    left_over: usize,
}

/// One message, with the types taken away.
struct Case {
    name: &'static str,
    versions: fn() -> RangeInclusive<i16>,
    oracle_versions: fn() -> RangeInclusive<i16>,
    sample: fn(&mut Choices<'_>, i16) -> Sample,
    decode: fn(&[u8], i16) -> Result<Decoded, DecodeError>,
    /// Reads only: what the hot path does, for measuring.
    read: fn(&[u8], i16) -> bool,
    /// Reads by the oracle, which must use all bytes, and writes again.
    oracle_recode: fn(&[u8], i16) -> Vec<u8>,
}

macro_rules! case {
    ($module:ident, $name:ident) => {
        Case {
            name: stringify!($name),
            versions: || messages::$name::VERSIONS,
            oracle_versions: || {
                let range = kafka_protocol::messages::$name::VERSIONS;
                range.min..=range.max
            },
            sample: |choices, version| {
                let message = messages::$name::generate(choices, version);
                let known = kafka_protocol::messages::$name::VERSIONS;
                let by_oracle = |unknown_tags| {
                    (known.min..=known.max).contains(&version).then(|| {
                        let mut bytes = bytes::BytesMut::new();
                        let message = message.to_oracle(version, unknown_tags);
                        message.encode(&mut bytes, version).expect("valid for the oracle");
                        bytes.to_vec()
                    })
                };
                Sample {
                    text: format!("{message:?}"),
                    ours: encoded(&message, version),
                    oracle: by_oracle(false),
                    oracle_with_unknown_tags: by_oracle(true),
                }
            },
            decode: |bytes, version| {
                let mut reader = Reader::new(bytes);
                let message = messages::$name::decode(&mut reader, version)?;
                let text = format!("{message:?}");
                Ok(Decoded { text, encoded: encoded(&message, version), left_over: reader.rest().len() })
            },
            read: |bytes, version| messages::$name::decode(&mut Reader::new(bytes), version).is_ok(),
            oracle_recode: |bytes, version| {
                let mut bytes = bytes::Bytes::copy_from_slice(bytes);
                let message =
                    kafka_protocol::messages::$name::decode(&mut bytes, version).expect("valid for the oracle");
                assert!(bytes.is_empty(), "the oracle leaves {} bytes", bytes.len());
                let mut again = bytes::BytesMut::new();
                message.encode(&mut again, version).expect("just read");
                again.to_vec()
            },
        }
    };
}

/// `Generate` and `ToOracle` for every struct, and `CASES`. Generated; one shape of code serves every type.
#[allow(clippy::all, unused_variables)]
mod generated {
    use super::*;
    include!(concat!(env!("OUT_DIR"), "/oracle.rs"));
}

use generated::{CASES, check_defaults};

fn encoded<'a>(message: &impl Message<'a>, version: i16) -> Vec<u8> {
    let mut writer = Writer::new();
    message.encode(&mut writer, version);
    let (bytes, holes) = writer.into_parts();
    assert!(holes.is_empty());
    bytes
}

/// Calls `check` for every message in every version.
fn every_version(mut check: impl FnMut(&Case, i16)) {
    for case in CASES {
        (case.versions)().for_each(|version| check(case, version));
    }
}

fn check_against_oracle(case: &Case, version: i16, choices: &[u8]) {
    let sample = (case.sample)(&mut Choices::new(choices), version);
    let context = format!("{} v{version}: {}", case.name, sample.text);
    let expected = Decoded { text: sample.text, encoded: sample.ours.clone(), left_over: 0 };
    assert_eq!((case.decode)(&sample.ours, version).as_ref(), Ok(&expected), "we read what we wrote: {context}");
    let Some(by_oracle) = sample.oracle else { return };
    assert_eq!(sample.ours, by_oracle, "both write the same: {context}");
    assert_eq!((case.oracle_recode)(&sample.ours, version), sample.ours, "the oracle reads ours: {context}");
    let tagged = sample.oracle_with_unknown_tags.expect("in every version that the oracle has");
    assert_eq!((case.decode)(&tagged, version), Ok(expected), "unknown tagged fields are passed over: {context}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_message_is_what_the_oracle_makes_of_it(choices in prop::collection::vec(any::<u8>(), 0..800)) {
        every_version(|case, version| check_against_oracle(case, version, &choices));
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        every_version(|case, version| {
            let _ = (case.decode)(&bytes, version);
        });
    }

    #[test]
    fn damaged_messages_never_panic_and_take_little_memory(
        choices in prop::collection::vec(any::<u8>(), 0..400),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
    ) {
        every_version(|case, version| {
            let mut bytes = (case.sample)(&mut Choices::new(&choices), version).ours;
            if bytes.is_empty() {
                return;
            }
            for (at, value) in &damage {
                let at = at.index(bytes.len());
                bytes[at] = *value;
            }
            assert_memory_is_bounded(case, version, &bytes);
        });
    }
}

fn assert_memory_is_bounded(case: &Case, version: i16, bytes: &[u8]) {
    let memory = allocation_counter::measure(|| {
        (case.read)(bytes, version);
    });
    let bound = DECODE_BYTES_BASE + DECODE_BYTES_PER_BYTE * bytes.len();
    assert!(memory.bytes_max <= bound as u64, "{} v{version}: {} for {bytes:?}", case.name, memory.bytes_max);
}

#[test]
fn the_oracle_has_every_version_but_these() {
    let mut missing = Vec::new();
    every_version(|case, version| {
        if !(case.oracle_versions)().contains(&version) {
            missing.push((case.name, version));
        }
    });
    // Kafka dropped these; `frame` and `produce_v0_to_v2_are_read_so_that_they_can_be_refused` have them.
    let produce = |name| (0..3).map(move |version| (name, version));
    let expected: Vec<_> = produce("ProduceRequest").chain(produce("ProduceResponse")).collect();
    assert_eq!(missing, expected);
}

#[test]
fn absent_fields_read_as_the_same_in_both() {
    check_defaults();
}

#[test]
fn every_prefix_of_a_message_is_an_error() {
    for round in 0..20u8 {
        let choices: Vec<u8> = (0..120u8).map(|index| index.wrapping_mul(round).wrapping_add(round ^ 0x5b)).collect();
        every_version(|case, version| {
            let bytes = (case.sample)(&mut Choices::new(&choices), version).ours;
            for end in 0..bytes.len() {
                assert!(!(case.read)(&bytes[..end], version), "{} v{version} cut at {end} of {bytes:?}", case.name);
            }
        });
    }
}

#[test]
fn counts_that_no_bytes_justify_are_errors_and_take_no_memory() {
    // Wherever a message of all zeros (or all ones) has a count, this one has two billion, in either form of a count.
    let plain = i32::MAX.to_be_bytes();
    let compact = [0xff, 0xff, 0xff, 0xff, 0x07];
    every_version(|case, version| {
        for filler in [0u8, 1] {
            for at in 0..40 {
                for count in [&plain[..], &compact[..]] {
                    let mut bytes = vec![filler; at];
                    bytes.extend_from_slice(count);
                    bytes.resize(bytes.len() + 3, filler);
                    assert_memory_is_bounded(case, version, &bytes);
                }
            }
        }
    });
    // The seven bytes that make the oracle ask for 154 GB: a count, and hardly anything after it.
    let hostile = [0x7f, 0xff, 0xff, 0xff, 0, 0, 0];
    let memory = allocation_counter::measure(|| {
        let read = messages::MetadataRequest::decode(&mut Reader::new(&hostile), 1);
        assert_eq!(read, Err(DecodeError::Count));
    });
    assert_eq!(memory.bytes_total, 0);
}

#[test]
fn a_request_of_many_short_names_is_within_the_budget() {
    let names = vec!["t"; 100_000];
    let coordinators = messages::FindCoordinatorRequest { coordinator_keys: names.clone(), ..Default::default() };
    let bytes = encoded(&coordinators, 4);
    assert!(messages::FindCoordinatorRequest::decode(&mut Reader::new(&bytes), 4).is_ok());
    let topic = |topic| messages::fetch::ForgottenTopic { topic, partitions: vec![0], ..Default::default() };
    let topics = names.iter().map(|name| topic(*name)).collect();
    let fetch = messages::FetchRequest { forgotten_topics_data: topics, ..Default::default() };
    for version in [7, 12] {
        let bytes = encoded(&fetch, version);
        assert!(messages::FetchRequest::decode(&mut Reader::new(&bytes), version).is_ok(), "v{version}");
    }
}

#[test]
fn versions_without_definition_are_errors() {
    for case in CASES {
        let versions = (case.versions)();
        for version in [i16::MIN, versions.start() - 1, versions.end() + 1, i16::MAX] {
            assert_eq!((case.decode)(&[0; 100], version), Err(DecodeError::Version), "{} v{version}", case.name);
        }
    }
}

#[test]
fn produce_v0_to_v2_are_read_so_that_they_can_be_refused() {
    // acks 1, timeout 1000, one topic "t", one partition 5, three bytes of an old message set.
    let body = b"\x00\x01\x00\x00\x03\xe8\x00\x00\x00\x01\x00\x01t\x00\x00\x00\x01\x00\x00\x00\x05\x00\x00\x00\x03abc";
    for version in 0..3 {
        let request = messages::ProduceRequest::decode(&mut Reader::new(body), version).expect("valid");
        assert_eq!((request.acks, request.timeout_ms, request.topic_data[0].name), (1, 1000, "t"));
        assert_eq!(request.topic_data[0].partition_data[0].index, 5);
        assert_eq!(request.topic_data[0].partition_data[0].records, Some(&b"abc"[..]));
    }
    let partition =
        messages::produce::PartitionProduceResponse { index: 5, error_code: 35, base_offset: -1, ..Default::default() };
    let topic = messages::produce::TopicProduceResponse {
        name: "t",
        partition_responses: vec![partition],
        ..Default::default()
    };
    let response = messages::ProduceResponse { responses: vec![topic], ..Default::default() };
    let partition =
        b"\x00\x00\x00\x01\x00\x01t\x00\x00\x00\x01\x00\x00\x00\x05\x00\x23\xff\xff\xff\xff\xff\xff\xff\xff";
    // v1 adds the throttle time at the end, v2 the append time of each partition.
    assert_eq!(encoded(&response, 0), partition);
    assert_eq!(encoded(&response, 1), [&partition[..], &[0; 4]].concat());
    assert_eq!(encoded(&response, 2), [&partition[..], &[0xff; 8], &[0; 4]].concat());
}

#[test]
fn null_where_a_version_has_none_is_written_as_empty() {
    let all_topics = messages::MetadataRequest { topics: None, ..Default::default() };
    assert_eq!(encoded(&all_topics, 0), [0; 4]);
    assert_eq!(encoded(&all_topics, 1), [0xff; 4]);
    let refused = messages::JoinGroupResponse { error_code: 25, protocol_name: None, ..Default::default() };
    let read = |version| {
        let bytes = encoded(&refused, version);
        messages::JoinGroupResponse::decode(&mut Reader::new(&bytes), version)
            .expect("valid")
            .protocol_name
            .map(str::len)
    };
    assert_eq!((read(6), read(7)), (Some(0), None));
}

/// Writes the seeds that the targets in `fuzz/` start from; see its README.
#[test]
#[ignore = "writes files for the fuzzer"]
fn write_fuzz_seeds() {
    let work = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/work");
    let write = |target: &str, name: String, bytes: &[u8]| {
        std::fs::create_dir_all(work.join(target)).expect("a folder for seeds");
        std::fs::write(work.join(target).join(name), bytes).expect("a seed");
    };
    for api in ApiKey::ALL {
        let request = format!("{}Request", api.name());
        let case = CASES.iter().find(|case| case.name == request).expect("every API has a request");
        for version in (case.versions)() {
            let key = [(*api as i16).to_be_bytes(), version.to_be_bytes()].concat();
            for round in 0..3u8 {
                let choices: Vec<u8> = (0..200u8).map(|index| index.wrapping_mul(31).wrapping_add(round)).collect();
                let body = (case.sample)(&mut Choices::new(&choices[..usize::from(round) * 100]), version).ours;
                write("request_body", format!("{request}-v{version}-{round}"), &[&key, &body[..]].concat());
            }
            let tags: &[u8] = if is_flexible(*api, version) { &[1, 9, 2, 7, 7] } else { &[] };
            let header = [&key, &[0, 0, 0, 42][..], b"\x00\x06client", tags].concat();
            write("request_header", format!("{request}-v{version}"), &header);
        }
    }
    for (index, value) in [None, Some(&b""[..]), Some(&[b'v'; 200][..])].into_iter().enumerate() {
        let mut builder = BatchBuilder::new(1_700_000_000_000);
        for record in 0..=index {
            builder.push(1_700_000_000_000 + record as i64, Some(b"key"), value);
        }
        let batch = builder.finish();
        write("record_batch", format!("plain-{index}"), &batch);
        // Attributes and producer at their places in the header: compressed, and from an idempotent producer.
        let (head, records) = batch.split_at(HEADER_BYTES);
        for (codec, packed) in packed(records) {
            let mut other = [head, &packed].concat();
            other[22] = codec;
            write("record_batch", format!("compressed-{codec}-{index}"), &other);
        }
        let mut other = batch;
        other[43..57].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 9, 0, 1, 0, 0, 0, 5]);
        write("record_batch", format!("idempotent-{index}"), &other);
    }
}

/// `records` by each codec, under its number in the attributes.
fn packed(records: &[u8]) -> [(u8, Vec<u8>); 4] {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(records).expect("memory");
    let mut lz4 = lz4_flex::frame::FrameEncoder::new(Vec::new());
    lz4.write_all(records).expect("memory");
    [
        (1, gzip.finish().expect("memory")),
        (2, snap::raw::Encoder::new().compress_vec(records).expect("memory")),
        (3, lz4.finish().expect("memory")),
        (4, zstd::bulk::compress(records, 3).expect("memory")),
    ]
}
