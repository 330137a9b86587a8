//! Wakes background tasks of this core when the log's state has moved. Tells nobody why: they look for themselves.

use std::cell::RefCell;
use std::future::poll_fn;
use std::task::{Poll, Waker};

/// Wakers of the tasks that wait for a change.
#[derive(Default)]
pub(crate) struct Signal {
    waiting: RefCell<Vec<Waker>>,
}

impl Signal {
    /// Waits until `ready` is true; asks again after each `notify`.
    pub(crate) async fn until(&self, mut ready: impl FnMut() -> bool) {
        poll_fn(|context| {
            if ready() {
                return Poll::Ready(());
            }
            self.waiting.borrow_mut().push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    pub(crate) fn notify(&self) {
        // Taken out first: a waker may run code that waits again.
        let woken = std::mem::take(&mut *self.waiting.borrow_mut());
        for waker in woken {
            waker.wake();
        }
    }
}
