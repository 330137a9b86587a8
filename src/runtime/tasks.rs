//! Background tasks of a core: glommio's queue with few shares, and the exact count of those that can run.
//!
//! The turn loop sleeps only while that count is zero, so a wake-up can never be lost, and hands over after each poll, so that
//! a task that wakes itself neither starves the loop nor is starved by it.

use glommio::{Latency, Shares, TaskQueueHandle};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

/// Shares of the turn loop, against those that background work is given.
pub(super) const TURN_SHARES: usize = 1000;

/// Figures shared by the tasks of one core. Atomics because a `Waker` must be `Send`; all run on one thread.
#[derive(Default)]
struct Counts {
    /// Tasks that have been woken and not yet polled.
    runnable: AtomicU64,
    /// Polls of background tasks since the start.
    polls: AtomicU64,
    /// The turn loop, where it waits for one poll to have run.
    turn: Mutex<Option<Waker>>,
}

/// Spawns background tasks of one core and knows whether any can run.
#[derive(Clone)]
pub struct Tasks {
    queue: TaskQueueHandle,
    counts: Arc<Counts>,
}

impl Tasks {
    /// With so many `shares` of a busy core, against `TURN_SHARES`. To be called on an executor's thread.
    pub fn new(shares: usize) -> Tasks {
        let queue = glommio::executor().create_task_queue(Shares::Static(shares), Latency::NotImportant, "background");
        Tasks { queue, counts: Arc::default() }
    }

    /// Runs `future` in the background of this core.
    pub fn spawn(&self, future: impl Future<Output = ()> + 'static) {
        let state =
            Arc::new(TaskState { queued: AtomicBool::new(true), counts: self.counts.clone(), inner: Mutex::new(None) });
        self.counts.runnable.fetch_add(1, Ordering::Relaxed);
        let task = Counted { future: Box::pin(future), state };
        glommio::spawn_local_into(task, self.queue).expect("the queue lives as long as its executor").detach();
    }

    /// Tasks that could run now.
    pub fn runnable(&self) -> u64 {
        self.counts.runnable.load(Ordering::Relaxed)
    }

    /// Polls of background tasks since the start.
    pub fn polls(&self) -> u64 {
        self.counts.polls.load(Ordering::Relaxed)
    }

    /// Waits, without being runnable itself, until one background poll has run.
    pub async fn one_poll(&self) {
        let before = self.polls();
        std::future::poll_fn(|context| {
            if self.polls() != before || self.runnable() == 0 {
                return Poll::Ready(());
            }
            *self.counts.turn.lock().expect("never poisoned") = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

struct TaskState {
    /// Counted in `runnable`.
    queued: AtomicBool,
    counts: Arc<Counts>,
    inner: Mutex<Option<Waker>>,
}

impl TaskState {
    fn taken(&self) {
        if self.queued.swap(false, Ordering::Relaxed) {
            self.counts.runnable.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Wake for TaskState {
    fn wake(self: Arc<Self>) {
        if !self.queued.swap(true, Ordering::Relaxed) {
            self.counts.runnable.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(waker) = &*self.inner.lock().expect("never poisoned") {
            waker.wake_by_ref();
        }
    }
}

struct Counted<F> {
    future: Pin<Box<F>>,
    state: Arc<TaskState>,
}

impl<F: Future<Output = ()>> Future for Counted<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        *self.state.inner.lock().expect("never poisoned") = Some(context.waker().clone());
        self.state.taken();
        let waker = Waker::from(self.state.clone());
        let polled = self.future.as_mut().poll(&mut Context::from_waker(&waker));
        self.state.counts.polls.fetch_add(1, Ordering::Relaxed);
        if let Some(turn) = self.state.counts.turn.lock().expect("never poisoned").take() {
            turn.wake();
        }
        // glommio lets a queue run on while it has ready tasks; this marks it as having had its turn. The future it returns
        // would only wait for the next one, so it is polled once and dropped.
        let mut over = std::pin::pin!(async { glommio::executor().yield_task_queue_now().await });
        let _ = over.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        polled
    }
}

impl<F> Drop for Counted<F> {
    fn drop(&mut self) {
        self.state.taken();
        *self.state.inner.lock().expect("never poisoned") = None;
    }
}
