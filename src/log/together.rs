//! Several waits on the disk at once, in one task. For recovery, where hundreds of small writes and syncs would else queue up.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

/// Futures polled at once: what a disk can use, and few enough that polling them all for one wake-up costs little.
const AT_ONCE: usize = 32;

/// Awaits all `futures`, in any order, and returns their results in the order given.
///
/// # Errors
/// The first error; the other futures are dropped where they are.
pub(crate) async fn together<T, E, F: Future<Output = Result<T, E>>>(
    futures: impl IntoIterator<Item = F>,
) -> Result<Vec<T>, E> {
    let mut waiting = futures.into_iter().enumerate();
    let mut running: Vec<(usize, Pin<Box<F>>)> = Vec::new();
    let mut done: Vec<(usize, T)> = Vec::new();
    poll_fn(|context| {
        loop {
            let mut at = 0;
            while at < running.len() {
                match running[at].1.as_mut().poll(context) {
                    Poll::Pending => at += 1,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Ready(Ok(value)) => done.push((running.swap_remove(at).0, value)),
                }
            }
            let before = running.len();
            running.extend(waiting.by_ref().take(AT_ONCE - before).map(|(place, future)| (place, Box::pin(future))));
            if running.is_empty() {
                return Poll::Ready(Ok(()));
            }
            // New ones must be polled once, or nobody wakes this task for them.
            if running.len() == before {
                return Poll::Pending;
            }
        }
    })
    .await?;
    done.sort_by_key(|(place, _)| *place);
    Ok(done.into_iter().map(|(_, value)| value).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::pin::pin;
    use std::task::{Context, Waker};

    /// Is ready at its `polls`th poll.
    fn slow(value: usize, polls: usize, running: &Cell<usize>) -> impl Future<Output = Result<usize, ()>> {
        let mut seen = 0;
        poll_fn(move |_| {
            if seen == 0 {
                running.set(running.get() + 1);
                assert!(running.get() <= AT_ONCE);
            }
            seen += 1;
            if seen < polls {
                return Poll::Pending;
            }
            running.set(running.get() - 1);
            Poll::Ready(Ok(value))
        })
    }

    #[test]
    fn all_end_in_order_and_not_too_many_run_at_once() {
        let running = Cell::new(0);
        let futures = (0..100).map(|n| slow(n, 1 + n * 7 % 5, &running));
        let mut all = pin!(together(futures));
        let mut context = Context::from_waker(Waker::noop());
        let result = loop {
            if let Poll::Ready(result) = all.as_mut().poll(&mut context) {
                break result;
            }
        };
        assert_eq!(result, Ok((0..100).collect()));
    }

    #[test]
    fn the_first_error_ends_it() {
        let futures = (0..10).map(|n| std::future::ready(if n == 3 { Err(n) } else { Ok(n) }));
        let polled = pin!(together(futures)).poll(&mut Context::from_waker(Waker::noop()));
        assert_eq!(polled, Poll::Ready(Err(3)));
    }
}
