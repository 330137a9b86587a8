//! Whole frames: headers around bodies, and the length in front. What a body says is the `api` layer's business.

use super::error::DecodeError;
use super::messages::{ApiKey, RequestHeader, ResponseHeader};
use super::reader::Reader;
use super::versions::{request_header_version, response_header_version};
use super::writer::Writer;
use super::{Message, Request, Response};
use crate::base::error::ErrorCode;

/// Reads the header of a request; the reader that comes with it stands before the body.
///
/// `frame` is without its length prefix. An unknown key gets the header that all keys had at first, so that it can be named in
/// a log line; its body cannot be read.
///
/// # Errors
/// As for any message: the connection is closed.
pub fn read_request_header(frame: &[u8]) -> Result<(RequestHeader<'_>, Reader<'_>), DecodeError> {
    let mut reader = Reader::new(frame);
    let mut ahead = reader.clone();
    let (key, version) = (ahead.i16()?, ahead.i16()?);
    let header_version = ApiKey::from_key(key).map_or(1, |api| request_header_version(api, version));
    let header = RequestHeader::decode(&mut reader, header_version)?;
    Ok((header, reader))
}

/// Appends the frame of a response to `writer`.
pub fn write_response<'a, R: Response<'a>>(writer: &mut Writer, correlation_id: i32, version: i16, response: &R) {
    let start = writer.begin_frame();
    ResponseHeader { correlation_id }.encode(writer, response_header_version(R::API, version));
    response.encode(writer, version);
    writer.end_frame(start);
}

/// Appends the answer to an ApiVersions request of a version beyond ours: a body in the form of v0, which names the error and
/// the versions of ApiVersions itself, so that the client asks again with one of them.
///
/// Nothing follows the body: a client that tries a newer form first would take it for one. Java 4.3, which tries v4 first, read a
/// throttle time of 20 minutes out of a mixed form.
/// Source: KIP-511.
pub fn write_api_versions_unsupported(writer: &mut Writer, correlation_id: i32) {
    use super::messages::api_versions::{ApiVersion, ApiVersionsResponse};
    let served = super::versions::served(ApiKey::ApiVersions).expect("every broker serves it");
    let own = ApiVersion { api_key: ApiKey::ApiVersions as i16, min_version: served.min, max_version: served.max };
    let response = ApiVersionsResponse {
        error_code: ErrorCode::UnsupportedVersion.code(),
        api_keys: vec![own],
        ..ApiVersionsResponse::default()
    };
    write_response(writer, correlation_id, 0, &response);
}

/// Appends the frame of a request to `writer`: for clients and tests.
pub fn write_request<'a, R: Request<'a>>(
    writer: &mut Writer,
    correlation_id: i32,
    client_id: Option<&str>,
    version: i16,
    request: &R,
) {
    let start = writer.begin_frame();
    let header =
        RequestHeader { request_api_key: R::API as i16, request_api_version: version, correlation_id, client_id };
    header.encode(writer, request_header_version(R::API, version));
    request.encode(writer, version);
    writer.end_frame(start);
}

/// Reads the frame of a response, without its length prefix: its correlation id and its body.
///
/// # Errors
/// See [`DecodeError`].
pub fn read_response<'a, R: Response<'a>>(frame: &'a [u8], version: i16) -> Result<(i32, R), DecodeError> {
    let mut reader = Reader::new(frame);
    let header = ResponseHeader::decode(&mut reader, response_header_version(R::API, version))?;
    Ok((header.correlation_id, R::decode(&mut reader, version)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::messages::fetch::{FetchResponse, FetchableTopicResponse, PartitionData};
    use crate::protocol::messages::{HeartbeatRequest, ProduceRequest};
    use crate::protocol::writer::{Hole, Records};
    use bytes::Bytes;

    #[test]
    fn the_answer_to_a_newer_api_versions_is_exactly_this() {
        let mut writer = Writer::new();
        write_api_versions_unsupported(&mut writer, 7);
        #[rustfmt::skip]
        let expected = [
            0, 0, 0, 16, // length
            0, 0, 0, 7, // correlation id; no tagged fields
            0, 35, // UNSUPPORTED_VERSION
            0, 0, 0, 1, // one entry, counted as in v0
            0, 18, 0, 0, 0, 4, // ApiVersions 0-4
        ];
        assert_eq!(writer.bytes(), expected);
    }

    #[test]
    fn the_header_of_an_api_versions_request_from_the_future_is_read() {
        let frame = b"\x00\x12\x00\x63\x00\x00\x00\x05\x00\x02me\x00whatever";
        let (header, reader) = read_request_header(frame).expect("valid");
        assert_eq!((header.request_api_version, header.correlation_id), (99, 5));
        assert_eq!(header.client_id, Some("me"));
        assert_eq!(reader.rest(), b"whatever");
    }

    #[test]
    fn a_request_reads_back_and_trailing_bytes_are_ignored() {
        for version in 0..=4 {
            let request = HeartbeatRequest { group_id: "group", generation_id: 3, ..Default::default() };
            let mut writer = Writer::new();
            write_request(&mut writer, 9, Some("client"), version, &request);
            let (mut bytes, _) = writer.into_parts();
            let length = i32::from_be_bytes(bytes[..4].try_into().expect("four"));
            assert_eq!(length as usize, bytes.len() - 4);
            bytes.extend_from_slice(b"more");
            let (header, mut reader) = read_request_header(&bytes[4..]).expect("header");
            assert_eq!((header.request_api_key, header.request_api_version), (12, version));
            assert_eq!((header.correlation_id, header.client_id), (9, Some("client")));
            assert_eq!(HeartbeatRequest::decode(&mut reader, version), Ok(request));
            assert_eq!(reader.rest(), b"more");
        }
    }

    #[test]
    fn an_unknown_key_still_has_a_header() {
        let (header, _) = read_request_header(b"\x7f\xff\x00\x09\x00\x00\x00\x05\xff\xff").expect("valid");
        assert_eq!((header.request_api_key, header.client_id), (i16::MAX, None));
    }

    #[test]
    fn a_fetch_response_leaves_holes_for_records() {
        for version in [4, 11, 12] {
            let with = |records| {
                let partition = |index| PartitionData { partition_index: index, records, ..Default::default() };
                let partitions = vec![partition(0), partition(1), PartitionData::default()];
                let topic = FetchableTopicResponse { topic: "t", partitions, ..Default::default() };
                let response = FetchResponse { responses: vec![topic], ..Default::default() };
                let mut writer = Writer::new();
                write_response(&mut writer, 1, version, &response);
                writer.into_parts()
            };
            let (bytes, holes) = with(Records::Hole { bytes: 5 });
            let (inline, none) = with(Records::Inline(b"12345"));
            assert_eq!((holes.len(), none.len()), (2, 0));
            assert_eq!(filled(&bytes, &holes, b"12345"), inline, "v{version}");
            let (_, read): (i32, FetchResponse<'_>) = read_response(&inline[4..], version).expect("valid");
            let records: Vec<_> = read.responses[0].partitions.iter().map(|p| p.records).collect();
            assert_eq!(records, [Records::Inline(b"12345"), Records::Inline(b"12345"), Records::Inline(b"")]);
        }
    }

    /// `bytes` with `piece` spliced into each of its holes.
    fn filled(bytes: &[u8], holes: &[Hole], piece: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut at = 0;
        for hole in holes {
            assert_eq!(hole.bytes, piece.len());
            out.extend_from_slice(&bytes[at..hole.at]);
            out.extend_from_slice(piece);
            at = hole.at;
        }
        out.extend_from_slice(&bytes[at..]);
        out
    }

    #[test]
    fn records_of_a_produce_request_are_slices_of_the_frame() {
        // v3: transactional id, acks, timeout, one topic "t", partition 0, three bytes.
        let body =
            b"\xff\xff\x00\x01\x00\x00\x03\xe8\x00\x00\x00\x01\x00\x01t\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x03abc";
        let frame = Bytes::copy_from_slice(body);
        let request = ProduceRequest::decode(&mut Reader::new(&frame), 3).expect("valid");
        let records = request.topic_data[0].partition_data[0].records.expect("not null");
        let kept = frame.slice_ref(records);
        assert_eq!(kept, "abc");
        assert_eq!(kept.as_ptr(), records.as_ptr());
    }
}
