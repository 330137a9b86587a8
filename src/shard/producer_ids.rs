//! Producer ids on the core that a producer came to: handed out from the core's own blocks, and who waits for the next block.
//!
//! Asks nobody: whoever is told that a block is wanted (`Taken::ask`) asks the controller and brings what it says.

use super::Shard;
use super::commands::{Answer, Origin};
use crate::base::error::ErrorCode;
use crate::ports::Disk;
use crate::transaction::producer_ids::ProducerIds;
use std::collections::VecDeque;

/// The ids of this core and the requests that wait for one, the first first.
#[derive(Default)]
pub(super) struct HandingOut {
    ids: ProducerIds,
    waiting: VecDeque<Origin>,
}

/// What became of a request for a producer id.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Taken {
    /// `None`: there is none until a block comes.
    pub id: Option<i64>,
    /// The caller must ask the controller for a block, and bring its answer.
    pub ask: bool,
}

impl HandingOut {
    fn take(&mut self) -> Taken {
        let id = self.ids.take();
        Taken { id, ask: self.ids.ask() }
    }

    /// Gives ids to those who wait, as far as they reach. True where the caller must ask for another block.
    fn serve(&mut self, mut give: impl FnMut(Origin, i64)) -> bool {
        while let Some(&origin) = self.waiting.front() {
            match self.ids.take() {
                Some(id) => {
                    self.waiting.pop_front();
                    give(origin, id);
                }
                None => return self.ids.ask(),
            }
        }
        false
    }
}

impl<D: Disk> Shard<D> {
    /// A producer id, if this core has one. Where it has none and `ask` is false, a block is on its way already: the caller
    /// may wait for it (`wait_for_producer_id`).
    pub fn take_producer_id(&mut self) -> Taken {
        self.handing_out.take()
    }

    /// Puts a request of this core behind those that wait: it gets an `Answer::ProducerId`.
    pub fn wait_for_producer_id(&mut self, origin: Origin) {
        self.handing_out.waiting.push_back(origin);
    }

    /// The block that was asked for has come, with ids `first..first + count`: the first one is the caller's if it has
    /// none (`wants`), the next ones go to those who wait.
    pub fn on_producer_ids(&mut self, first: i64, count: i64, wants: bool) -> Taken {
        self.handing_out.ids.on_block(first, count);
        let id = if wants { self.handing_out.ids.take() } else { None };
        let mut given = Vec::new();
        let ask = self.handing_out.serve(|origin, id| given.push((origin, id)));
        for (origin, id) in given {
            self.answer(origin, Answer::ProducerId(Ok(id)));
        }
        Taken { id, ask }
    }

    /// The block that was asked for does not come: those who wait are told, and the next one who comes asks again.
    pub fn on_producer_ids_failed(&mut self, code: ErrorCode) {
        self.handing_out.ids.on_block_failed();
        for origin in std::mem::take(&mut self.handing_out.waiting) {
            self.answer(origin, Answer::ProducerId(Err(code)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::commands::RequestId;
    use super::*;
    use crate::base::ids::CoreIndex;

    fn origin(request: u64) -> Origin {
        Origin { core: CoreIndex(0), request: RequestId(request) }
    }

    #[test]
    fn one_asks_and_the_others_wait_in_order() {
        let mut handing_out = HandingOut::default();
        assert_eq!(handing_out.take(), Taken { id: None, ask: true });
        assert_eq!(handing_out.take(), Taken { id: None, ask: false });
        handing_out.waiting.extend([origin(1), origin(2), origin(3)]);
        handing_out.ids.on_block(50, 2);
        let mut given = Vec::new();
        assert!(handing_out.serve(|origin, id| given.push((origin, id))), "one still waits: another block is wanted");
        assert_eq!(given, [(origin(1), 50), (origin(2), 51)]);
        handing_out.ids.on_block(70, 1000);
        assert!(!handing_out.serve(|origin, id| given.push((origin, id))));
        assert_eq!(given[2], (origin(3), 70));
        assert_eq!(handing_out.take(), Taken { id: Some(71), ask: false });
    }
}
