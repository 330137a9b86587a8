//! What each fuzz target does with its bytes. A target must not panic, and what it reads must stand up to being written again.
//!
//! `tests/fuzz_corpus.rs` has this file too, and gives the targets what is kept in `corpus/`.

mod damage;
mod journal;
mod segments;
#[path = "../../tests/sim/mod.rs"]
mod sim;
mod stored;

pub use journal::journal;
pub use segments::segments;

use ringlog::base::batch::{self, BatchError, HEADER_BYTES, LOG_OVERHEAD_BYTES};
use ringlog::base::record;
use ringlog::base::unpack::{STEP_BYTES, Step, UNPACKED_BYTES_MAX, Unpacking};
use ringlog::protocol::Message;
use ringlog::protocol::error::DecodeError;
use ringlog::protocol::frame::read_request_header;
use ringlog::protocol::messages::{self, ApiKey};
use ringlog::protocol::reader::Reader;
use ringlog::protocol::versions::{admit, request_header_version};
use ringlog::protocol::writer::Writer;

/// Takes the bytes of one input.
pub type Target = fn(&[u8]);

/// Every target by the name of its binary and its folder.
pub const TARGETS: [(&str, Target); 5] = [
    ("request_header", request_header),
    ("request_body", request_body),
    ("record_batch", record_batch),
    ("journal", journal),
    ("segments", segments),
];

/// `frame` is what a client sends, without the length in front.
pub fn request_header(frame: &[u8]) {
    let Ok((header, reader)) = read_request_header(frame) else { return };
    assert!(reader.rest().len() < frame.len());
    admit(header.request_api_key, header.request_api_version);
    let version = ApiKey::from_key(header.request_api_key)
        .map_or(1, |api| request_header_version(api, header.request_api_version));
    let mut writer = Writer::new();
    header.encode(&mut writer, version);
    let (again, rest) = read_request_header(writer.bytes()).expect("just written");
    assert_eq!(again, header);
    assert!(rest.rest().is_empty());
}

/// Reads a body; if that goes well, writes it and reads it again, which must give the same.
macro_rules! check_body {
    ($message:ty, $body:expr, $version:expr) => {{
        let Ok(message) = <$message>::decode(&mut Reader::new($body), $version) else { return };
        let mut writer = Writer::new();
        message.encode(&mut writer, $version);
        let mut reader = Reader::new(writer.bytes());
        match <$message>::decode(&mut reader, $version) {
            Ok(again) => assert_eq!((again, reader.rest()), (message, &[][..])),
            // Without the tagged fields that we do not know it is smaller, and may take less memory.
            Err(error) => assert_eq!(error, DecodeError::Budget),
        }
    }};
}

/// `input` is key and version, two bytes each, and the body.
pub fn request_body(input: &[u8]) {
    let mut reader = Reader::new(input);
    let (Ok(key), Ok(version)) = (reader.i16(), reader.i16()) else { return };
    let Some(api) = ApiKey::from_key(key) else { return };
    let body = reader.rest();
    match api {
        ApiKey::Produce => check_body!(messages::ProduceRequest, body, version),
        ApiKey::Fetch => check_body!(messages::FetchRequest, body, version),
        ApiKey::ListOffsets => check_body!(messages::ListOffsetsRequest, body, version),
        ApiKey::Metadata => check_body!(messages::MetadataRequest, body, version),
        ApiKey::OffsetCommit => check_body!(messages::OffsetCommitRequest, body, version),
        ApiKey::OffsetFetch => check_body!(messages::OffsetFetchRequest, body, version),
        ApiKey::FindCoordinator => check_body!(messages::FindCoordinatorRequest, body, version),
        ApiKey::JoinGroup => check_body!(messages::JoinGroupRequest, body, version),
        ApiKey::Heartbeat => check_body!(messages::HeartbeatRequest, body, version),
        ApiKey::LeaveGroup => check_body!(messages::LeaveGroupRequest, body, version),
        ApiKey::SyncGroup => check_body!(messages::SyncGroupRequest, body, version),
        ApiKey::DescribeGroups => check_body!(messages::DescribeGroupsRequest, body, version),
        ApiKey::ListGroups => check_body!(messages::ListGroupsRequest, body, version),
        ApiKey::ApiVersions => check_body!(messages::ApiVersionsRequest, body, version),
        ApiKey::CreateTopics => check_body!(messages::CreateTopicsRequest, body, version),
        ApiKey::DeleteTopics => check_body!(messages::DeleteTopicsRequest, body, version),
        ApiKey::DeleteRecords => check_body!(messages::DeleteRecordsRequest, body, version),
        ApiKey::InitProducerId => check_body!(messages::InitProducerIdRequest, body, version),
        ApiKey::OffsetForLeaderEpoch => check_body!(messages::OffsetForLeaderEpochRequest, body, version),
        ApiKey::DescribeConfigs => check_body!(messages::DescribeConfigsRequest, body, version),
        ApiKey::AlterConfigs => check_body!(messages::AlterConfigsRequest, body, version),
        ApiKey::DescribeLogDirs => check_body!(messages::DescribeLogDirsRequest, body, version),
        ApiKey::CreatePartitions => check_body!(messages::CreatePartitionsRequest, body, version),
        ApiKey::DeleteGroups => check_body!(messages::DeleteGroupsRequest, body, version),
        ApiKey::IncrementalAlterConfigs => check_body!(messages::IncrementalAlterConfigsRequest, body, version),
        ApiKey::OffsetDelete => check_body!(messages::OffsetDeleteRequest, body, version),
        ApiKey::DescribeCluster => check_body!(messages::DescribeClusterRequest, body, version),
    }
}

/// `batch` as it is, and once more with length, magic and CRC put right, since no fuzzer finds a CRC by trying.
pub fn record_batch(batch: &[u8]) {
    check_batch(batch);
    if batch.len() < HEADER_BYTES {
        return;
    }
    let mut sealed = batch.to_vec();
    let length = (batch.len() - LOG_OVERHEAD_BYTES) as i32;
    sealed[8..12].copy_from_slice(&length.to_be_bytes());
    sealed[16] = 2;
    batch::seal(&mut sealed);
    assert!(!matches!(
        batch::check_stored(&sealed),
        Err(BatchError::Short | BatchError::Magic(_) | BatchError::Length(_) | BatchError::Crc { .. })
    ));
    check_batch(&sealed);
}

fn check_batch(bytes: &[u8]) {
    for (header, whole) in batch::batches(bytes) {
        assert_eq!(header.batch_bytes(), whole.len());
        record::records(whole).for_each(drop);
    }
    let Ok(header) = batch::check_produced(bytes) else { return };
    assert_eq!(batch::check_stored(bytes), Ok(header));
    assert_eq!(header.batch_bytes(), bytes.len());
    header.last_sequence();
    if header.compression() == Some(batch::Compression::None) {
        assert_eq!(record::records(bytes).count(), header.record_count as usize);
    }
    if let Ok(Some(mut unpacking)) = Unpacking::new(&header, bytes) {
        while !matches!(unpacking.step(), Ok(Step::End) | Err(_)) {}
        assert!(unpacking.taken() <= UNPACKED_BYTES_MAX + STEP_BYTES as u64);
    }
    let mut stamped = bytes.to_vec();
    batch::set_log_append_time(&mut stamped, 1);
    batch::check_produced(&stamped).expect("still valid");
    // What the broker does next: its own offset and epoch, in front of an unchanged CRC.
    stamped[..batch::REWRITTEN_BYTES].copy_from_slice(&header.rewritten(7, 3));
    assert_eq!(batch::check_produced(&stamped).expect("still valid").next_offset(), 7 + i64::from(header.record_count));
}
