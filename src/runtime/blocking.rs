//! The helper thread of a core, for file calls that block and have no good io_uring form: open, rename, unlink, list, allocate.
//!
//! Nothing on the path of a request runs here. One thread, so calls of one core keep their order. While a core starts, it makes
//! the calls itself: nobody waits for its turns then, and opening thousands of files costs more in handing over than in doing.

use super::doorbell::Doorbell;
use crate::base::counters::HelperCounters;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

/// Niceness of the thread: beside a core that has work it gets about a tenth of the CPU. Making thousands of files may cost a second of it.
const NICE: libc::c_int = 10;

type Job = Box<dyn FnOnce() + Send>;

/// Sends work to the core's helper thread. Stays on its core.
#[derive(Clone)]
pub struct Helper {
    inner: Rc<HelperInner>,
}

struct HelperInner {
    jobs: Sender<Job>,
    /// Ids of finished calls, filled by the thread, emptied by the core when its doorbell rings.
    finished: Arc<Mutex<Vec<u64>>>,
    doorbell: Doorbell,
    waiting: RefCell<Waiting>,
    at_once: Cell<bool>,
}

#[derive(Default)]
struct Waiting {
    /// Id of the last call, and how many there were.
    last: u64,
    pending_max: u64,
    wakers: std::collections::HashMap<u64, Option<Waker>>,
}

impl Helper {
    /// Starts the thread; it ends when the last handle is dropped. It runs on the CPUs of the calling thread.
    pub fn start(name: &str, doorbell: Doorbell) -> std::io::Result<Helper> {
        let (jobs, queue) = channel::<Job>();
        std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            yield_to_the_core();
            queue.into_iter().for_each(|job| job());
        })?;
        let inner = HelperInner {
            jobs,
            finished: Arc::default(),
            doorbell,
            waiting: RefCell::default(),
            at_once: Cell::new(false),
        };
        Ok(Helper { inner: Rc::new(inner) })
    }

    /// Whether calls are made by the caller itself from now on. Only without calls under way, whose order would be lost.
    pub fn run_at_once(&self, at_once: bool) {
        assert!(self.inner.waiting.borrow().wakers.is_empty(), "calls are under way");
        self.inner.at_once.set(at_once);
    }

    /// Runs `call` on the helper thread, or at once where `run_at_once` says so.
    pub fn run<T, F>(&self, call: F) -> impl Future<Output = T> + use<T, F>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let result: Arc<Mutex<Option<T>>> = Arc::default();
        if self.inner.at_once.get() {
            *result.lock().expect("never poisoned") = Some(call());
            return Call { result, id: 0, inner: self.inner.clone() };
        }
        let id = {
            let mut waiting = self.inner.waiting.borrow_mut();
            waiting.last += 1;
            let id = waiting.last;
            waiting.wakers.insert(id, None);
            waiting.pending_max = waiting.pending_max.max(waiting.wakers.len() as u64);
            id
        };
        let (target, finished, doorbell) = (result.clone(), self.inner.finished.clone(), self.inner.doorbell.clone());
        let job = Box::new(move || {
            let value = call();
            *target.lock().expect("never poisoned") = Some(value);
            finished.lock().expect("never poisoned").push(id);
            doorbell.ring();
        });
        assert!(self.inner.jobs.send(job).is_ok(), "the helper thread lives as long as this handle");
        Call { result, id, inner: self.inner.clone() }
    }

    /// What the thread was given so far.
    pub fn counters(&self) -> HelperCounters {
        let waiting = self.inner.waiting.borrow();
        HelperCounters {
            calls: waiting.last,
            pending_now: waiting.wakers.len() as u64,
            pending_max: waiting.pending_max,
        }
    }

    /// Wakes the futures whose calls have finished. To be called when the doorbell rang.
    pub fn reap(&self) {
        let finished = std::mem::take(&mut *self.inner.finished.lock().expect("never poisoned"));
        for id in finished {
            let waker = self.inner.waiting.borrow_mut().wakers.remove(&id).flatten();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}

fn yield_to_the_core() {
    // SAFETY: takes no pointers; 0 is the calling thread. Where it is refused the thread only takes more of the CPU.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) };
}

struct Call<T> {
    result: Arc<Mutex<Option<T>>>,
    id: u64,
    inner: Rc<HelperInner>,
}

impl<T> Future for Call<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        // Only when the core has seen the doorbell is the entry gone; registering first would lose nothing, since both run here.
        if let Some(value) = self.result.lock().expect("never poisoned").take() {
            return Poll::Ready(value);
        }
        if let Some(waker) = self.inner.waiting.borrow_mut().wakers.get_mut(&self.id) {
            *waker = Some(context.waker().clone());
        }
        Poll::Pending
    }
}
