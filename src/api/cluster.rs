//! DescribeCluster (key 60): v0–v1 (KIP-700).
//! v0 flexible · v1 endpoint type (KIP-919)

use super::dispatch::Context;
use super::operations;
use super::reply::Reply;
use super::work::Start;
use crate::base::error::ErrorCode;
use crate::ports::Disk;
use crate::protocol::messages::describe_cluster::{
    DescribeClusterBroker, DescribeClusterRequest, DescribeClusterResponse,
};
use std::borrow::Cow;

/// Endpoints of brokers (KIP-919).
const BROKERS: i8 = 1;
/// Endpoints of controllers, which listen apart in Kafka; a broker is none.
const CONTROLLERS: i8 = 2;

pub fn describe<D: Disk>(cx: &Context<'_, D>, request: &DescribeClusterRequest, version: i16) -> Start<D> {
    // v0 has no such field: it reads as its default.
    if let Err((code, message)) = check_endpoint(request.endpoint_type) {
        let response = DescribeClusterResponse {
            error_code: code.code(),
            error_message: Some(Cow::Owned(message)),
            endpoint_type: request.endpoint_type,
            ..Default::default()
        };
        return Start::Reply(Reply::encode(cx.correlation_id, version, &response));
    }
    let image = cx.shard.image();
    let brokers: Vec<DescribeClusterBroker<'_>> = image
        .advertised_brokers()
        .map(|(node, host, port)| DescribeClusterBroker {
            broker_id: node.0,
            host,
            port: i32::from(port),
            ..Default::default()
        })
        .collect();
    let mut response = DescribeClusterResponse {
        endpoint_type: BROKERS,
        cluster_id: image.cluster_id(),
        // Whom to ask for changes: any broker will do.
        controller_id: brokers.first().map_or(-1, |broker| broker.broker_id),
        brokers,
        ..Default::default()
    };
    if request.include_cluster_authorized_operations {
        response.cluster_authorized_operations = operations::CLUSTER;
    }
    Start::Reply(Reply::encode(cx.correlation_id, version, &response))
}

fn check_endpoint(endpoint_type: i8) -> Result<(), (ErrorCode, String)> {
    match endpoint_type {
        BROKERS => Ok(()),
        CONTROLLERS => {
            let message = "The request was sent to a broker, and asks for controllers.".to_owned();
            Err((ErrorCode::MismatchedEndpointType, message))
        }
        other => Err((ErrorCode::UnsupportedEndpointType, format!("Unsupported endpoint type {other}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_brokers_can_be_asked_for() {
        for (endpoint_type, code) in [
            (1, None),
            (2, Some(ErrorCode::MismatchedEndpointType)),
            (0, Some(ErrorCode::UnsupportedEndpointType)),
            (3, Some(ErrorCode::UnsupportedEndpointType)),
        ] {
            assert_eq!(check_endpoint(endpoint_type).err().map(|(code, _)| code), code, "{endpoint_type}");
        }
    }
}
