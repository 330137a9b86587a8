//! Requests that wait for answers of cores.

use super::produce::Producing;
use super::reply::Reply;
use crate::base::ids::CoreIndex;
use crate::ports::Disk;
use crate::shard::Shard;
use crate::shard::commands::{Answer, Command};

/// A request on its way: knows which answers it waits for and how to make one reply of them.
pub trait Work<D: Disk> {
    /// Takes in one answer. `shard` is the core that received the request.
    fn on_answer(&mut self, answer: Answer<D::File>, shard: &mut Shard<D>) -> Step<D::File>;
}

/// How a request goes on.
pub enum Step<F> {
    /// More answers are to come.
    Wait,
    /// Tell these cores something; more answers are to come.
    Send(Vec<(CoreIndex, Command)>),
    Done(Reply<F>),
}

/// The reply to a request that asked nobody, or the commands that it asks with.
pub enum Start<D: Disk> {
    Reply(Reply<D::File>),
    Work {
        work: Box<dyn Work<D>>,
        commands: Vec<(CoreIndex, Command)>,
    },
    /// The most frequent kind of work, which therefore has no memory of its own.
    Produce {
        producing: Producing,
        commands: Vec<(CoreIndex, Command)>,
    },
}

/// Items that belong to cores, collected by core in the order they came.
pub struct ByCore<T> {
    cores: Vec<(CoreIndex, Vec<T>)>,
}

impl<T> Default for ByCore<T> {
    fn default() -> ByCore<T> {
        ByCore { cores: Vec::new() }
    }
}

impl<T> ByCore<T> {
    pub fn push(&mut self, core: CoreIndex, item: T) {
        match self.cores.iter_mut().find(|(index, _)| *index == core) {
            Some((_, items)) => items.push(item),
            None => self.cores.push((core, vec![item])),
        }
    }

    pub fn len(&self) -> usize {
        self.cores.len()
    }

    pub fn is_empty(&self) -> bool {
        self.cores.is_empty()
    }

    /// Asks a core for nothing, so that a request without items still has somebody to wait for.
    pub fn push_none(&mut self, core: CoreIndex) {
        self.cores.push((core, Vec::new()));
    }

    /// One command for each core.
    pub fn commands(self, mut command: impl FnMut(Vec<T>) -> Command) -> Vec<(CoreIndex, Command)> {
        self.cores.into_iter().map(|(core, items)| (core, command(items))).collect()
    }
}
