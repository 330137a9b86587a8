//! Requests that the controller's core answers whole: the control goes there, one answer comes back, one reply is made of it.
//!
//! Their `timeout_ms` is not looked at: the controller's core decides in microseconds and answers once the change is durable
//! and applied on every core, so there is no moment at which REQUEST_TIMED_OUT would tell a client something it can use.

use super::reply::Reply;
use super::work::{Start, Step, Work};
use crate::cluster::controller::Refusal;
use crate::ports::Disk;
use crate::shard::Shard;
use crate::shard::commands::{Answer, Command};
use crate::shard::control::{CONTROLLER_CORE, Control, Controlled};
use std::borrow::Cow;

/// Holds `reply` until it is called, once.
struct Asking<F>(Option<F>);

/// Asks the controller; `reply` makes the reply of what it says, with the image that shows the change.
pub fn ask<D, F>(control: Control, reply: F) -> Start<D>
where
    D: Disk,
    F: FnOnce(Controlled, &Shard<D>) -> Reply<D::File> + 'static,
{
    let command = Command::Control(control);
    Start::Work { work: Box::new(Asking(Some(reply))), commands: vec![(CONTROLLER_CORE, command)] }
}

impl<D, F> Work<D> for Asking<F>
where
    D: Disk,
    F: FnOnce(Controlled, &Shard<D>) -> Reply<D::File>,
{
    fn on_answer(&mut self, answer: Answer<D::File>, shard: &mut Shard<D>) -> Step<D::File> {
        let Answer::Control(controlled) = answer else { unreachable!("only the controller was asked") };
        let reply = self.0.take().expect("the controller answers once");
        Step::Done(reply(controlled, shard))
    }
}

/// The outcomes of a request with `count` items, in its order, where each item is done or refused.
pub fn each(controlled: Controlled, count: usize) -> Vec<Result<(), Refusal>> {
    match controlled {
        Controlled::Done(outcomes) => {
            assert_eq!(outcomes.len(), count, "each item has an outcome");
            outcomes
        }
        Controlled::Failed(refusal) => vec![Err(refusal); count],
        other => unreachable!("items were to be changed, not {other:?}"),
    }
}

/// Code and message of a refusal, as a reply has them.
pub fn wire_error(refusal: &Refusal) -> (i16, Option<Cow<'_, str>>) {
    (refusal.code.code(), Some(Cow::Borrowed(&refusal.message)))
}

/// As `wire_error`, for an item that may have been done.
pub fn wire_outcome(outcome: &Result<(), Refusal>) -> (i16, Option<Cow<'_, str>>) {
    outcome.as_ref().err().map_or((0, None), wire_error)
}
