//! What a group needs from its surroundings for one step: settings, time, timers, the log of its partition, and where
//! actions go. Decides nothing.

use std::collections::BTreeMap;

use super::RequestId;
use super::persist::InFlight;
use super::reply::{Action, Reply};
use super::settings::GroupSettings;
use super::timers::{Deadline, TimerKey, Timers};
use crate::base::time::Now;

pub(super) struct Context<'a> {
    pub settings: &'a GroupSettings,
    pub timers: &'a mut Timers,
    /// Appends of the partition whose outcome is not known, by their sequence.
    pub in_flight: &'a mut BTreeMap<u64, InFlight>,
    pub next_sequence: &'a mut u64,
    pub actions: &'a mut Vec<Action>,
    pub now: Now,
}

impl Context<'_> {
    pub fn reply(&mut self, request: RequestId, reply: Reply) {
        self.actions.push(Action::Reply(request, reply));
    }

    /// Sets `deadline` to `timeout_ms` from now.
    pub fn set_deadline(&mut self, deadline: &mut Deadline, timeout_ms: u32, key: impl FnOnce() -> TimerKey) {
        self.timers.set(deadline, self.now.mono.plus_ms(u64::from(timeout_ms)), key);
    }
}
