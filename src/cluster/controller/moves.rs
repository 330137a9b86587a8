//! Moving a partition to another core of the broker that leads it.

use super::{Controller, Refusal};
use crate::base::error::ErrorCode;
use crate::base::ids::CoreIndex;
use crate::cluster::commands::Command;
use crate::cluster::names::is_internal;

impl Controller<'_> {
    /// What moves a partition to `core`; `None` where it is there already. The partitions of internal topics stay: the groups that a core
    /// coordinates follow from them.
    ///
    /// # Errors
    /// `UnknownTopicOrPartition`; `InvalidReplicaAssignment` for a core that the broker does not have; `InvalidRequest` for an internal topic.
    pub fn move_partition(&self, name: &str, index: i32, core: CoreIndex) -> Result<Option<Command>, Refusal> {
        let unknown = |what: String| Refusal::new(ErrorCode::UnknownTopicOrPartition, what);
        let topic = self.image.topic_by_name(name).ok_or_else(|| unknown(format!("There is no topic {name}.")))?;
        let partition = usize::try_from(index).ok().and_then(|index| topic.partitions.get(index));
        let partition = partition.ok_or_else(|| {
            unknown(format!("Topic {name} has no partition {index}; it has 0 to {}.", topic.partitions.len() - 1))
        })?;
        if is_internal(name) {
            let message = format!("The partitions of {name} stay where they are: groups are coordinated there.");
            return Err(Refusal::new(ErrorCode::InvalidRequest, message));
        }
        let core_count = self.image.broker(partition.leader).map_or(0, |broker| broker.core_count);
        if core.0 >= core_count {
            let last = core_count.saturating_sub(1);
            let message = format!("Broker {} has no core {}; it has 0 to {last}.", partition.leader.0, core.0);
            return Err(Refusal::new(ErrorCode::InvalidReplicaAssignment, message));
        }
        Ok((partition.core != core).then_some(Command::MovePartition { id: topic.id, partition: index, core }))
    }
}
