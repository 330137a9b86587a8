//! Work is spread over the cores, where that is asked for (`core.balance.interval.ms`): each core tells the controller's what its partitions were
//! used for, and that one moves a partition when it gains enough (`cluster::balance`). At most one at a time.

use super::Shard;
use super::apply::is_metadata;
use super::commands::Message;
use super::control::{Asker, CONTROLLER_CORE, Control};
use crate::base::ids::PartitionId;
use crate::base::time::{Nanos, Now};
use crate::cluster::balance::{CoreLoad, choose};
use crate::cluster::names::is_internal;
use crate::ports::Disk;

/// Partitions of a core that are told by name.
const HEAVIEST_MAX: usize = 32;
/// What one append or read counts, besides its bytes: a small one costs about as much.
pub(super) const OPERATION_BYTES: u64 = 4 << 10;

/// What is known of the cores' work.
#[derive(Default)]
pub(super) struct Balancing {
    next: Nanos,
    /// Of this round, on the controller's core.
    loads: Vec<CoreLoad>,
    /// A partition moved during this round: no core had it all the time.
    is_blurred: bool,
}

impl<D: Disk> Shard<D> {
    /// Tells the controller's core what this one had to do, once an interval.
    pub(super) fn report_load(&mut self, now: Now) {
        let Some(interval_ms) = self.settings.balance_interval_ms else { return };
        if now.mono < self.balancing.next {
            return;
        }
        self.balancing.next = now.mono.plus_ms(interval_ms);
        let (mut heaviest, mut work) = (Vec::new(), 0);
        for (&id, &slot) in &self.by_id {
            let part = std::mem::take(&mut self.partitions[slot as usize].work);
            work += part;
            heaviest.extend((part > 0 && may_move(self, id)).then_some((id, part)));
        }
        // By id among equals: the map has no order that means anything.
        heaviest.sort_unstable_by_key(|(id, part)| (std::cmp::Reverse(*part), *id));
        heaviest.truncate(HEAVIEST_MAX);
        let is_open = !self.settings.spared_cores.contains(&self.core.0);
        let load = CoreLoad { core: self.core, is_open, work, heaviest };
        if self.core == CONTROLLER_CORE {
            self.on_load(load, now);
        } else {
            self.outbox.messages.push((CONTROLLER_CORE, Message::Load(load)));
        }
    }

    /// Takes note of what a core had to do; once all have told, decides.
    pub(super) fn on_load(&mut self, load: CoreLoad, now: Now) {
        let loads = &mut self.balancing.loads;
        loads.retain(|other| other.core != load.core);
        loads.push(load);
        if loads.len() < usize::from(self.settings.core_count) {
            return;
        }
        let loads = std::mem::take(loads);
        if std::mem::take(&mut self.balancing.is_blurred) {
            return;
        }
        let seconds = self.settings.balance_interval_ms.unwrap_or_default() / 1000;
        // What is being changed already changes the loads.
        let Some((id, core)) = choose(&loads, seconds).filter(|_| self.controlling.is_idle()) else { return };
        let Some(topic) = self.image.topic(id.topic) else { return };
        let topic = topic.name.to_string();
        let work: Vec<u64> = loads.iter().map(|load| load.work).collect();
        tracing::info!(topic, partition = id.index, to = core.0, ?work, "a busy core gives a partition to another one");
        self.balancing.is_blurred = true;
        self.control(Asker::Nobody, Control::MovePartition { topic, partition: id.index, core }, now);
    }
}

fn may_move<D: Disk>(shard: &Shard<D>, id: PartitionId) -> bool {
    !is_metadata(id) && shard.image.topic(id.topic).is_some_and(|topic| !is_internal(&topic.name))
}
