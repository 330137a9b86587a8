//! InitProducerId (key 22): v0–v4.
//! v2 flexible · v3 the producer's id and epoch for an epoch bump (KIP-360) · v4 PRODUCER_FENCED may be told
//!
//! Idempotent producers only, each gets an id that nobody had and epoch 0: without a transactional id Kafka gives a new id also
//! to one that names what it had (`TransactionCoordinator.handleInitProducerId`), since no coordinator could fence the others.
//! A transactional id is refused with TRANSACTIONAL_ID_AUTHORIZATION_FAILED until there is a transaction coordinator: clients
//! take it as final and show it to their user, while COORDINATOR_NOT_AVAILABLE would be tried again for ever.

use super::dispatch::Context;
use super::reply::Reply;
use super::work::{Start, Step, Work};
use crate::base::error::ErrorCode;
use crate::ports::Disk;
use crate::protocol::messages::init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};
use crate::shard::Shard;
use crate::shard::commands::{Answer, Command, Origin};
use crate::shard::control::{CONTROLLER_CORE, Control, Controlled};

const NO_ID: i64 = -1;
const NO_EPOCH: i16 = -1;

struct Waiting {
    /// What the reply will say, if that is known already.
    id: Option<i64>,
    correlation_id: i32,
    version: i16,
}

pub fn start<D: Disk>(
    cx: &mut Context<'_, D>,
    origin: Origin,
    request: &InitProducerIdRequest<'_>,
    version: i16,
) -> Start<D> {
    if let Some(code) = check(request) {
        return Start::Reply(reply(cx.correlation_id, version, Err(code)));
    }
    let taken = cx.shard.take_producer_id();
    let work = Box::new(Waiting { id: taken.id, correlation_id: cx.correlation_id, version });
    match (taken.ask, taken.id) {
        (true, _) => {
            Start::Work { work, commands: vec![(CONTROLLER_CORE, Command::Control(Control::AllocateProducerIds))] }
        }
        (false, Some(id)) => Start::Reply(reply(cx.correlation_id, version, Ok(id))),
        (false, None) => {
            cx.shard.wait_for_producer_id(origin);
            Start::Work { work, commands: vec![] }
        }
    }
}

/// Why the request is refused, if it is.
fn check(request: &InitProducerIdRequest<'_>) -> Option<ErrorCode> {
    match (request.transactional_id, request.producer_id, request.producer_epoch) {
        (Some(""), ..) => Some(ErrorCode::InvalidRequest),
        (Some(_), ..) => Some(ErrorCode::TransactionalIdAuthorizationFailed),
        (None, NO_ID, NO_EPOCH) => None,
        (None, NO_ID, _) | (None, _, NO_EPOCH) => Some(ErrorCode::InvalidRequest),
        (None, ..) => None,
    }
}

impl<D: Disk> Work<D> for Waiting {
    fn on_answer(&mut self, answer: Answer<D::File>, shard: &mut Shard<D>) -> Step<D::File> {
        match answer {
            Answer::ProducerId(outcome) => self.done(outcome),
            Answer::Control(Controlled::ProducerIds { first, count }) => {
                let taken = shard.on_producer_ids(first, count, self.id.is_none());
                self.id = self.id.or(taken.id);
                if taken.ask {
                    return Step::Send(vec![(CONTROLLER_CORE, Command::Control(Control::AllocateProducerIds))]);
                }
                self.done(Ok(self.id.expect("the first id of a block is the asker's")))
            }
            Answer::Control(Controlled::Failed(refusal)) => {
                tracing::error!("no block of producer ids: {}", refusal.message);
                // As Kafka's `RPCProducerIdManager`: the client tries again.
                let code = ErrorCode::CoordinatorLoadInProgress;
                shard.on_producer_ids_failed(code);
                self.done(self.id.ok_or(code))
            }
            _ => unreachable!("only the controller and the keeper of ids were asked"),
        }
    }
}

impl Waiting {
    fn done<F>(&self, outcome: Result<i64, ErrorCode>) -> Step<F> {
        Step::Done(reply(self.correlation_id, self.version, outcome))
    }
}

fn reply<F>(correlation_id: i32, version: i16, outcome: Result<i64, ErrorCode>) -> Reply<F> {
    let response = match outcome {
        Ok(producer_id) => InitProducerIdResponse { producer_id, producer_epoch: 0, ..Default::default() },
        Err(code) => InitProducerIdResponse {
            error_code: code.code(),
            producer_id: NO_ID,
            producer_epoch: NO_EPOCH,
            ..Default::default()
        },
    };
    Reply::encode(correlation_id, version, &response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_refused_as_they_deserve() {
        for (transactional_id, producer_id, producer_epoch, code) in [
            (None, -1, -1, None),
            (None, 5, 3, None),
            (None, 5, -1, Some(ErrorCode::InvalidRequest)),
            (None, -1, 3, Some(ErrorCode::InvalidRequest)),
            (Some(""), -1, -1, Some(ErrorCode::InvalidRequest)),
            (Some("t"), -1, -1, Some(ErrorCode::TransactionalIdAuthorizationFailed)),
        ] {
            let request = InitProducerIdRequest { transactional_id, producer_id, producer_epoch, ..Default::default() };
            assert_eq!(check(&request), code, "{transactional_id:?} {producer_id} {producer_epoch}");
        }
    }
}
