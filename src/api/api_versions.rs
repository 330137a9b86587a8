//! ApiVersions (key 18): v0–v4.
//! v3 client name and version, flexible (KIP-511) · v4 finalized features with minimum 0 (KAFKA-17011)
//! A version beyond ours is answered in the form of v0 with UNSUPPORTED_VERSION.

use super::reply::Reply;
use crate::base::error::ErrorCode;
use crate::protocol::messages::api_versions::{ApiVersionsRequest, ApiVersionsResponse};
use crate::protocol::versions::advertised;

/// Tells what is served. A name or version of a client that Kafka would not take is refused likewise.
pub fn handle<F>(request: &ApiVersionsRequest<'_>, correlation_id: i32, version: i16) -> Reply<F> {
    let valid = version < 3
        || [request.client_software_name, request.client_software_version].iter().all(|text| is_software_text(text));
    let mut response = ApiVersionsResponse::default();
    if valid {
        response.api_keys = advertised();
    } else {
        response.error_code = ErrorCode::InvalidRequest.code();
    }
    Reply::encode(correlation_id, version, &response)
}

/// Kafka's pattern: letters, digits, dots and dashes, no dot or dash at the ends.
fn is_software_text(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-';
    let ends = [text.chars().next(), text.chars().last()];
    text.chars().all(inner) && ends.iter().all(|end| end.is_some_and(|c| c.is_ascii_alphanumeric()))
}

#[cfg(test)]
mod tests {
    use super::is_software_text;

    #[test]
    fn software_names_are_as_kafka_takes_them() {
        for good in ["librdkafka", "apache-kafka-java", "4.3.1", "a", "kafkajs-2.2"] {
            assert!(is_software_text(good), "{good}");
        }
        for bad in ["", "-a", "a-", ".a", "a b", "ä"] {
            assert!(!is_software_text(bad), "{bad}");
        }
    }
}
