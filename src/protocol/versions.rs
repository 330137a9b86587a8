//! What we serve: the one table behind ApiVersions and behind dispatch. Definitions may reach further.

use super::messages::ApiKey;
use super::messages::ApiKey::*;
use super::messages::api_versions::ApiVersion;

/// An API that this broker serves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Served {
    pub api: ApiKey,
    /// What ApiVersions tells: at most `min`.
    pub advertised_min: i16,
    /// First version that is served; those from `advertised_min` to here are refused with UNSUPPORTED_VERSION.
    pub min: i16,
    pub max: i16,
}

const fn serve(api: ApiKey, min: i16, max: i16) -> Served {
    Served { api, advertised_min: min, min, max }
}

/// Every API we serve, by key.
pub const SERVED: &[Served] = &[
    // Without 0 in the range older librdkafka turns gzip, snappy and lz4 off (KAFKA-18659).
    Served { api: Produce, advertised_min: 0, min: 3, max: 11 },
    // Topic ids begin with v13.
    serve(Fetch, 4, 12),
    serve(ListOffsets, 1, 7),
    serve(Metadata, 0, 12),
    serve(OffsetCommit, 2, 8),
    serve(OffsetFetch, 1, 8),
    serve(FindCoordinator, 0, 4),
    // Without 0 older librdkafka concludes that there is no Kerberos (KAFKA-19444).
    serve(JoinGroup, 0, 9),
    serve(Heartbeat, 0, 4),
    serve(LeaveGroup, 0, 5),
    serve(SyncGroup, 0, 5),
    serve(DescribeGroups, 0, 5),
    serve(ListGroups, 0, 5),
    serve(ApiVersions, 0, 4),
    serve(CreateTopics, 2, 7),
    serve(DeleteTopics, 1, 6),
    serve(DeleteRecords, 0, 2),
    serve(InitProducerId, 0, 4),
    serve(OffsetForLeaderEpoch, 2, 4),
    serve(DescribeConfigs, 1, 4),
    serve(AlterConfigs, 0, 2),
    serve(DescribeLogDirs, 1, 4),
    serve(CreatePartitions, 0, 3),
    serve(DeleteGroups, 0, 2),
    serve(IncrementalAlterConfigs, 0, 1),
    serve(OffsetDelete, 0, 0),
    serve(DescribeCluster, 0, 1),
];

const _: () = {
    let mut index = 0;
    while index < SERVED.len() {
        let served = SERVED[index];
        let (first, last) = served.api.defined_versions();
        assert!(first <= served.advertised_min && served.max <= last, "served, but not defined");
        assert!(served.advertised_min <= served.min && served.min <= served.max);
        assert!(index == 0 || (SERVED[index - 1].api as i16) < served.api as i16, "out of order, or twice");
        index += 1;
    }
};

/// What to do with a request, by its key and version.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Admission {
    Serve(ApiKey),
    /// Advertised for clients that look for it, but not served: answer UNSUPPORTED_VERSION in the form of that version.
    Refuse(ApiKey),
    /// ApiVersions of a version beyond ours: `frame::write_api_versions_unsupported`.
    AnswerAsV0,
    /// Unknown: close the connection, as Kafka does.
    Close,
}

/// Decides what becomes of a request. Its header has been read, its body has not.
pub fn admit(key: i16, version: i16) -> Admission {
    let Some(served) = ApiKey::from_key(key).and_then(served) else { return Admission::Close };
    if (served.min..=served.max).contains(&version) {
        Admission::Serve(served.api)
    } else if (served.advertised_min..served.min).contains(&version) {
        Admission::Refuse(served.api)
    } else if served.api == ApiVersions {
        Admission::AnswerAsV0
    } else {
        Admission::Close
    }
}

/// The row of `api`, if it is served.
pub fn served(api: ApiKey) -> Option<Served> {
    SERVED.iter().copied().find(|served| served.api == api)
}

/// The table in the form that an ApiVersions response has.
pub fn advertised() -> Vec<ApiVersion> {
    let entry = |served: &Served| ApiVersion {
        api_key: served.api as i16,
        min_version: served.advertised_min,
        max_version: served.max,
    };
    SERVED.iter().map(entry).collect()
}

pub fn is_flexible(api: ApiKey, version: i16) -> bool {
    api.flexible_from().is_some_and(|from| version >= from)
}

/// Which header stands before the request: 2 has tagged fields, 1 has none.
pub fn request_header_version(api: ApiKey, version: i16) -> i16 {
    if is_flexible(api, version) { 2 } else { 1 }
}

/// Which header stands before the response: 1 has tagged fields, 0 has none, and ApiVersions never has any.
pub fn response_header_version(api: ApiKey, version: i16) -> i16 {
    if api != ApiVersions && is_flexible(api, version) { 1 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_in_the_table_is_served() {
        assert_eq!(admit(0, 3), Admission::Serve(Produce));
        assert_eq!(admit(0, 11), Admission::Serve(Produce));
        assert_eq!(admit(0, 12), Admission::Close);
        assert_eq!(admit(0, 2), Admission::Refuse(Produce));
        assert_eq!(admit(0, -1), Admission::Close);
        assert_eq!(admit(18, 4), Admission::Serve(ApiVersions));
        assert_eq!(admit(18, 5), Admission::AnswerAsV0);
        assert_eq!(admit(18, i16::MAX), Admission::AnswerAsV0);
        assert_eq!(admit(4, 0), Admission::Close);
        assert_eq!(admit(-1, 0), Admission::Close);
    }

    #[test]
    fn single_versions_that_librdkafka_2_0_looks_for_are_advertised() {
        // By its sources (rdkafka_feature.c): each feature is inferred from single versions. SASL has its own part.
        let wanted =
            [(0, 3), (0, 7), (1, 4), (1, 10), (2, 1), (10, 0), (11, 0), (14, 0), (12, 0), (13, 0), (8, 2), (9, 1)];
        for (key, version) in wanted.into_iter().chain([(22, 0), (0, 0)]) {
            let found = advertised().into_iter().find(|entry| entry.api_key == key).expect("advertised");
            assert!((found.min_version..=found.max_version).contains(&version), "key {key} v{version}");
        }
    }

    #[test]
    fn api_versions_never_has_a_flexible_response_header() {
        for version in 0..=4 {
            assert_eq!(response_header_version(ApiVersions, version), 0);
        }
        assert_eq!(request_header_version(ApiVersions, 3), 2);
        assert_eq!(response_header_version(Metadata, 9), 1);
        assert_eq!(response_header_version(Metadata, 8), 0);
        assert_eq!(request_header_version(OffsetDelete, 0), 1);
    }
}
