//! What a consumer subscribes to, read from the metadata it joins with. The only opaque bytes the broker ever looks into.

use bytes::Bytes;

use super::fields::Reader;

/// The protocol type of groups whose members speak Kafka's consumer protocol.
pub(super) const PROTOCOL_TYPE: &str = "consumer";

/// The topics in a member's metadata. Every version begins as version 0 does: version, then topics.
///
/// `None` where the bytes are not that; nothing is known then. Source: Kafka `ConsumerProtocolSubscription.json`.
pub(super) fn topics(metadata: &Bytes) -> Option<Vec<String>> {
    let mut reader = Reader::new(metadata);
    let version = reader.i16()?;
    if version < 0 {
        return None;
    }
    let count = reader.array_count()?;
    let mut topics = Vec::new();
    for _ in 0..count {
        topics.push(reader.string()?);
    }
    Some(topics)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_read_whatever_follows() {
        let metadata = Bytes::from_static(b"\0\x03\0\0\0\x02\0\x01a\0\x02bbmore of later versions");
        assert_eq!(topics(&metadata), Some(vec!["a".to_owned(), "bb".to_owned()]));
    }

    #[test]
    fn other_bytes_tell_nothing() {
        for bytes in [&b""[..], b"\0\0", b"\0\0\x7f\xff\xff\xff", b"\xff\xff\0\0\0\0", b"\0\0\0\0\0\x01\0\x05ab"] {
            assert_eq!(topics(&Bytes::from_static(bytes)), None, "{bytes:?}");
        }
    }
}
