//! FindCoordinator (key 10): v0–v4.
//! v1 key types · v3 flexible · v4 several keys (KIP-699)
//! The first one for a group makes `__consumer_offsets`; the answer waits until it serves. There are no transactions.

use super::dispatch::Context;
use super::reply::Reply;
use super::work::{Start, Step, Work};
use crate::base::error::ErrorCode;
use crate::ports::Disk;
use crate::protocol::messages::find_coordinator::{Coordinator, FindCoordinatorRequest, FindCoordinatorResponse};
use crate::shard::Shard;
use crate::shard::commands::{Answer, Command};
use crate::shard::control::{CONTROLLER_CORE, Control, Controlled};
use std::borrow::Cow;

const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;

struct Finding {
    /// One before v4.
    keys: Vec<String>,
    key_type: i8,
    correlation_id: i32,
    version: i16,
}

pub fn start<D: Disk>(cx: &mut Context<'_, D>, request: &FindCoordinatorRequest<'_>, version: i16) -> Start<D> {
    let keys = if version < 4 { vec![request.key] } else { request.coordinator_keys.clone() };
    let keys: Vec<String> = keys.into_iter().map(str::to_owned).collect();
    let work = Finding { keys, key_type: request.key_type, correlation_id: cx.correlation_id, version };
    let is_there = work.keys.first().is_none_or(|key| cx.shard.group_partition(key).is_some());
    if request.key_type != GROUP || is_there {
        return Start::Reply(work.reply(cx.shard));
    }
    let control = Control::CreateTopics { topics: vec![cx.shard.offsets_topic()], validate_only: false };
    Start::Work { work: Box::new(work), commands: vec![(CONTROLLER_CORE, Command::Control(control))] }
}

impl<D: Disk> Work<D> for Finding {
    fn on_answer(&mut self, answer: Answer<D::File>, shard: &mut Shard<D>) -> Step<D::File> {
        let Answer::Control(controlled) = answer else { unreachable!("only the controller was asked") };
        let refusal = match controlled {
            Controlled::Created(topics) => topics.into_iter().find_map(|(_, result)| result.err()),
            Controlled::Failed(refusal) => Some(refusal),
            other => unreachable!("a topic was to be created, not {other:?}"),
        };
        // Where another client was faster the topic is there.
        if let Some(refusal) = refusal.filter(|refusal| refusal.code != ErrorCode::TopicAlreadyExists) {
            tracing::error!(?refusal, "groups cannot be coordinated: the topic for their offsets cannot be made");
        }
        Step::Done(self.reply(shard))
    }
}

impl Finding {
    fn reply<D: Disk>(&self, shard: &Shard<D>) -> Reply<D::File> {
        let mut coordinators: Vec<Coordinator<'_>> = self.keys.iter().map(|key| self.find(shard, key)).collect();
        let response = match (self.version, coordinators.pop()) {
            (..4, Some(only)) => FindCoordinatorResponse {
                error_code: only.error_code,
                error_message: only.error_message,
                node_id: only.node_id,
                host: only.host,
                port: only.port,
                ..Default::default()
            },
            (_, last) => {
                coordinators.extend(last);
                FindCoordinatorResponse { coordinators, ..Default::default() }
            }
        };
        Reply::encode(self.correlation_id, self.version, &response)
    }

    fn find<'a, D: Disk>(&'a self, shard: &'a Shard<D>, key: &'a str) -> Coordinator<'a> {
        match self.key_type {
            GROUP => {}
            // Clients ask again for ever where a coordinator is not available; with this they give up. Source: Kafka
            // `TransactionManager.FindCoordinatorHandler`, librdkafka `rd_kafka_txn_handle_FindCoordinator`.
            TRANSACTION => {
                let message = "This broker has no transactions: leave transactional.id unset.";
                return refused(key, ErrorCode::TransactionalIdAuthorizationFailed, message);
            }
            _ => return refused(key, ErrorCode::InvalidRequest, "This type of coordinator does not exist."),
        }
        let image = shard.image();
        let leader = shard.group_partition(key).map(|partition| image.advertised_leader(partition));
        match image.advertised_brokers().find(|(node, ..)| Some(*node) == leader) {
            Some((node, host, port)) => {
                Coordinator { key, node_id: node.0, host, port: i32::from(port), ..Default::default() }
            }
            None => refused(key, ErrorCode::CoordinatorNotAvailable, "The coordinator is not available."),
        }
    }
}

fn refused<'a>(key: &'a str, error: ErrorCode, message: &'static str) -> Coordinator<'a> {
    let error_message = Some(Cow::Borrowed(message));
    Coordinator { key, node_id: -1, port: -1, error_code: error.code(), error_message, ..Default::default() }
}
