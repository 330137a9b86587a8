//! Starts the cores: one thread each, pinned, with a glommio executor that hosts its turn loop and background tasks.

use super::blocking::Helper;
use super::disk::CoreDisk;
use super::doorbell::Doorbell;
use super::memory::Pool;
use super::ring::Ring;
use super::tasks::{TURN_SHARES, Tasks};
use crate::base::ids::CoreIndex;
use glommio::{ExecutorJoinHandle, Latency, LocalExecutorBuilder, Placement, Shares};
use std::future::Future;
use std::io;
use std::time::Duration;

/// When it has expired, each yield makes glommio enter its rings; background work is sliced by its own awaits instead.
const PREEMPT_TIMER: Duration = Duration::from_millis(900);
/// glommio's own rings are not used for I/O: the smallest will do.
const EXECUTOR_RING_ENTRIES: usize = 4;
const EXECUTOR_IO_BYTES: usize = 64 << 10;

/// How one core runs.
#[derive(Clone, Debug)]
pub struct CoreOptions {
    pub index: CoreIndex,
    /// The CPU it is pinned to.
    pub cpu: usize,
    /// Kernel workers for file I/O that cannot be done in place (splice, buffered writes).
    pub io_workers: u32,
    /// Bytes of record memory kept for reuse when nobody needs them.
    pub pool_free_bytes_max: usize,
    /// What background work has of a busy core, against 1000 of the turn loop; at least 1.
    pub background_shares: usize,
}

/// What a core is given when it starts. Stays on its core.
pub struct CoreRuntime {
    pub index: CoreIndex,
    pub ring: Ring,
    pub tasks: Tasks,
    pub disk: CoreDisk,
    pub helper: Helper,
    pub doorbell: Doorbell,
}

/// A core that runs.
pub struct CoreHandle {
    handle: ExecutorJoinHandle<io::Result<()>>,
}

impl CoreHandle {
    /// Waits until the core has stopped.
    ///
    /// # Errors
    /// Why it stopped, where it was not asked to.
    pub fn join(self) -> Result<(), String> {
        match self.handle.join() {
            Ok(result) => result.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// Starts a core on a thread of its own; `body` runs there as the executor's one foreground task.
///
/// # Errors
/// Where the thread, its pinning or its rings cannot be had; the message says which.
pub fn start<F: Future<Output = io::Result<()>> + 'static>(
    options: CoreOptions,
    doorbell: Doorbell,
    body: impl FnOnce(CoreRuntime) -> F + Send + 'static,
) -> io::Result<CoreHandle> {
    let (index, cpu) = (options.index, options.cpu);
    LocalExecutorBuilder::new(Placement::Fixed(cpu))
        .name(&format!("core-{}", index.0))
        .preempt_timer(PREEMPT_TIMER)
        .ring_depth(EXECUTOR_RING_ENTRIES)
        .io_memory(EXECUTOR_IO_BYTES)
        .spawn(move || async move {
            let runtime = core_runtime(&options, doorbell)?;
            let queue =
                glommio::executor().create_task_queue(Shares::Static(TURN_SHARES), Latency::NotImportant, "turn");
            let task = glommio::spawn_local_into(body(runtime), queue);
            task.expect("the queue was just made").await
        })
        .map(|handle| CoreHandle { handle })
        .map_err(|error| io::Error::other(format!("core {} on CPU {cpu} cannot start: {error}", index.0)))
}

fn core_runtime(options: &CoreOptions, doorbell: Doorbell) -> io::Result<CoreRuntime> {
    let ring = Ring::new()?;
    ring.bind_workers(options.cpu, options.io_workers)?;
    ring.watch_doorbell(&doorbell);
    let tasks = Tasks::new(options.background_shares);
    let helper = Helper::start(&format!("files-{}", options.index.0), doorbell.clone())?;
    let disk = CoreDisk::new(ring.clone(), helper.clone(), Pool::new(options.pool_free_bytes_max), tasks.clone());
    Ok(CoreRuntime { index: options.index, ring, tasks, disk, helper, doorbell })
}
