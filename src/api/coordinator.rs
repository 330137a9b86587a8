//! Asking the coordinators of groups: which core, and from their answers to one reply. What is asked is each API's business.

use super::dispatch::Context;
use super::reply::Reply;
use super::work::{Start, Step, Work};
use crate::base::ids::CoreIndex;
use crate::group;
use crate::ports::Disk;
use crate::shard::Shard;
use crate::shard::commands::{Answer, Command};

impl<D: Disk> Context<'_, D> {
    /// The core that coordinates a group.
    ///
    /// Before the first lookup there is no `__consumer_offsets`, and so no coordinator: this core is asked then, which refuses
    /// the group as none of its own, in the form that the API has for it. Clients look the coordinator up, which makes the
    /// topic. Kafka does the same.
    pub fn coordinator_of(&self, group: &str) -> CoreIndex {
        self.shard.group_partition(group).map_or(self.core, |partition| partition.core)
    }
}

/// Asks the coordinator of one group; `encode` makes the reply of its answer.
pub fn ask<D: Disk>(
    cx: &Context<'_, D>,
    request: group::Request,
    encode: impl FnOnce(group::Reply) -> Reply<D::File> + 'static,
) -> Start<D> {
    let core = cx.coordinator_of(request.group().expect("it is about one group"));
    ask_each(vec![(core, request)], |answers| encode(answers.into_iter().next().expect("one was asked")))
}

/// Asks several cores; `encode` makes the reply of their answers, which are in the order of `requests`.
pub fn ask_each<D: Disk>(
    requests: Vec<(CoreIndex, group::Request)>,
    encode: impl FnOnce(Vec<group::Reply>) -> Reply<D::File> + 'static,
) -> Start<D> {
    if requests.is_empty() {
        return Start::Reply(encode(Vec::new()));
    }
    let answers = requests.iter().map(|_| None).collect();
    let missing = requests.len();
    let commands = (0..).zip(requests).map(|(place, (core, request))| (core, Command::Group { place, request }));
    Start::Work { work: Box::new(Asking { answers, missing, encode: Some(encode) }), commands: commands.collect() }
}

struct Asking<E> {
    answers: Vec<Option<group::Reply>>,
    missing: usize,
    /// Taken with the last answer.
    encode: Option<E>,
}

impl<D: Disk, E: FnOnce(Vec<group::Reply>) -> Reply<D::File>> Work<D> for Asking<E> {
    fn on_answer(&mut self, answer: Answer<D::File>, _: &mut Shard<D>) -> Step<D::File> {
        let Answer::Group { place, reply } = answer else { unreachable!("a coordinator is asked about groups") };
        let before = self.answers[place as usize].replace(reply);
        assert!(before.is_none(), "a coordinator answers once");
        self.missing -= 1;
        if self.missing > 0 {
            return Step::Wait;
        }
        let encode = self.encode.take().expect("the last answer comes once");
        Step::Done(encode(self.answers.drain(..).map(|answer| answer.expect("none is missing")).collect()))
    }
}
