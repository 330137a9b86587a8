//! What those see and do who look after a broker: metrics, health and moves of partitions over HTTP, from a thread of its own beside the cores.
//!
//! It asks the cores only when it is asked itself, and knows nothing of how they answer (`Source`).

mod metrics;
mod server;

pub use server::{Server, bind};

use crate::base::error::ErrorCode;
use crate::base::ids::CoreIndex;
use crate::base::measures::Measures;

/// Who can be asked what the cores have counted.
pub trait Source: Send + Sync {
    /// Of each core, by its index; `None` for one that does not answer. With partitions and groups where `detailed`. May block for seconds.
    fn measures(&self, detailed: bool) -> Vec<Option<Measures>>;

    /// Whether the broker takes requests: not while it stops.
    fn is_serving(&self) -> bool;

    /// Moves a partition to another core, and returns when it is there. May block for seconds.
    ///
    /// # Errors
    /// Kafka's code, and a text for the one who asked. `RequestTimedOut`: not known how it ended.
    fn move_partition(&self, topic: String, partition: i32, core: CoreIndex) -> Result<(), (ErrorCode, String)>;
}
