//! The consumer groups of this core: brings requests to the coordinator and performs what it decides.

use super::Shard;
use super::commands::{Answer, Origin};
use super::own::OwnAppend;
use super::slab::Slab;
use crate::base::error::ErrorCode;
use crate::base::ids::PartitionId;
use crate::base::record::BatchBuilder;
use crate::base::time::Now;
use crate::cluster::names::CONSUMER_OFFSETS;
use crate::group::{Action, AppendToken, Groups, Input, Reply, Request, RequestId};
use crate::ports::Disk;

/// The coordinator of this core and who waits for it.
pub(super) struct Coordinating {
    pub groups: Groups,
    waiting: Slab<Origin>,
}

impl Coordinating {
    pub fn new(groups: Groups) -> Coordinating {
        Coordinating { groups, waiting: Slab::default() }
    }
}

impl<D: Disk> Shard<D> {
    /// A request to the groups of this core.
    pub(super) fn group_request(&mut self, origin: Origin, request: Request, now: Now) {
        let id = RequestId(self.coordinating.waiting.insert(origin));
        self.group_step(Input::Request(id, request), now);
    }

    pub(super) fn group_step(&mut self, input: Input, now: Now) {
        for action in self.coordinating.groups.step(input, now) {
            match action {
                Action::Reply(id, reply) => self.group_reply(id, reply),
                Action::Append { partition, records, token, .. } => {
                    let mut builder = BatchBuilder::new(now.wall_ms);
                    for record in &records {
                        builder.push(now.wall_ms, Some(&record.key), record.value.as_deref());
                    }
                    let topic = self.image.topic_by_name(CONSUMER_OFFSETS).map(|topic| topic.id);
                    match topic {
                        Some(topic) => {
                            let id = PartitionId { topic, index: partition };
                            self.append_own(id, builder.finish(), OwnAppend::Groups(token), now);
                        }
                        None => self.on_group_records_refused(token, ErrorCode::NotCoordinator, now),
                    }
                }
            }
        }
    }

    fn group_reply(&mut self, id: RequestId, reply: Reply) {
        let origin = self.coordinating.waiting.remove(id.0).expect("a request is answered once");
        self.answer(origin, Answer::Group(reply));
    }

    pub(super) fn on_group_records_durable(&mut self, token: AppendToken, now: Now) {
        self.group_step(Input::Durable(token), now);
    }

    pub(super) fn on_group_records_refused(&mut self, token: AppendToken, code: ErrorCode, now: Now) {
        self.group_step(Input::AppendFailed(token, code), now);
    }
}
