//! Decides about requests to change the metadata: each is refused with Kafka's code, or becomes commands.
//!
//! Pure, and changes nothing: commands take effect when they are applied to the image. One request is decided as a whole, so
//! that its items see each other; the next one must see the image with these commands applied.

mod alter;
mod moves;
mod placement;
mod topics;

pub use alter::{AlterConfigs, ConfigOp, ConfigResource, ReplaceConfigs};
pub use topics::{CreatedTopic, NewPartitions, NewTopic, TopicRef};

use super::commands::Command;
use super::configs::BrokerConfigs;
use super::image::{Broker, Image};
use crate::base::error::ErrorCode;
use crate::base::ids::{NodeId, TopicId};
use placement::{Placement, TopicLoads};

/// Producer ids in one block, as in Kafka (`ProducerIdsBlock.PRODUCER_ID_BLOCK_SIZE`).
pub const PRODUCER_IDS_PER_BLOCK: i64 = 1000;

/// Longest host name that DNS knows, with room for an IPv6 address and its zone.
const HOST_BYTES_MAX: usize = 255;

/// Why something was not done, for the one who asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    pub code: ErrorCode,
    pub message: String,
}

impl Refusal {
    fn new(code: ErrorCode, message: impl Into<String>) -> Refusal {
        Refusal { code, message: message.into() }
    }
}

/// What becomes of a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decision<T> {
    /// To be applied in this order, all of them. None where the request was only to be validated.
    pub commands: Vec<Command>,
    /// One for each item; the order is said where the request is.
    pub answers: Vec<T>,
}

/// The image at one moment, and the settings that hold on the broker which decides.
#[derive(Clone, Copy)]
pub struct Controller<'a> {
    pub image: &'a Image,
    pub broker: BrokerConfigs<'a>,
}

impl Controller<'_> {
    /// A broker starts: the commands that make it known as it is now. Empty where nothing has changed.
    ///
    /// With fewer cores than before, partitions whose core is gone get another one. With more, only new partitions use them.
    ///
    /// # Errors
    /// `InvalidRegistration` for an address or a number of cores that cannot be.
    pub fn register_broker(&self, node: NodeId, broker: Broker) -> Result<Vec<Command>, Refusal> {
        let Broker { host, core_count, spared_cores, .. } = &broker;
        let core_count = *core_count;
        let has_home = spared_cores.len() < usize::from(core_count);
        if host.is_empty() || host.len() > HOST_BYTES_MAX || !has_home || node.0 < 0 {
            let message =
                "A broker needs a node id from 0, a host of at most 255 bytes and at least one core for partitions.";
            return Err(Refusal::new(ErrorCode::InvalidRegistration, message));
        }
        if self.image.broker(node) == Some(&broker) {
            return Ok(Vec::new());
        }
        let mut placement = Placement::new(self.image);
        placement.set_broker(node, &broker);
        let mut commands = vec![Command::RegisterBroker { node, broker }];
        for topic in self.image.topics() {
            let homeless = (0..)
                .zip(&topic.partitions)
                .filter(|(_, partition)| partition.leader == node && partition.core.0 >= core_count);
            let mut loads = None;
            for (index, _) in homeless {
                let loads = loads.get_or_insert_with(|| TopicLoads::of(&topic.partitions));
                let core = placement.take_core(node, loads);
                commands.push(Command::MovePartition { id: topic.id, partition: index, core });
            }
        }
        Ok(commands)
    }

    /// The next block of producer ids, for the coordinator that asks.
    ///
    /// # Errors
    /// `UnknownServerError` once all 2^63 are given away.
    pub fn allocate_producer_ids(&self) -> Result<Command, Refusal> {
        let first = self.image.next_producer_id();
        match first.checked_add(PRODUCER_IDS_PER_BLOCK) {
            Some(_) => Ok(Command::AllocateProducerIds { first, count: PRODUCER_IDS_PER_BLOCK }),
            None => Err(Refusal::new(ErrorCode::UnknownServerError, "All producer ids are given away.")),
        }
    }

    fn fresh_id(&self, new_id: &mut impl FnMut() -> TopicId) -> TopicId {
        loop {
            let id = new_id();
            let reserved = id == TopicId::ZERO || id == TopicId::METADATA;
            if !reserved && self.image.topic(id).is_none() {
                return id;
            }
        }
    }
}

#[cfg(test)]
mod tests;
