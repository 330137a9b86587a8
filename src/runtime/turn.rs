//! The turn loop of a core: one glommio task that sleeps in the core's own ring.
//!
//! Each turn: enter the ring, handle what has completed as plain calls, then end the turn once (commits, replies, messages).
//! glommio itself never parks, so its wake-ups cannot be lost.

use super::clock::{SystemClock, mono};
use super::meter::Meter;
use super::ring::{Completion, Ring};
use super::tasks::Tasks;
use crate::base::measures::TurnMeasures;
use crate::base::time::{Nanos, Now};
use crate::ports::Clock;
use std::time::Duration;

/// The longest sleep of a core at rest.
const SLEEP_MAX: Duration = Duration::from_secs(1);

/// What a core does between sleeps.
pub trait Turn {
    /// Something asked for has happened.
    fn on_completion(&mut self, completion: Completion, now: Now);

    /// All completions of this turn have been handed over. `so_far`: what the loop counted before this turn.
    fn end_of_turn(&mut self, now: Now, so_far: &TurnMeasures) -> Next;
}

/// When the next turn is wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// At once: there is work left over.
    Now,
    /// When something completes, or at this time.
    At(Nanos),
    /// When something completes.
    Idle,
    /// Never: the core is done.
    Stop,
}

/// Runs `core` until it answers `Next::Stop`. Must be called within a task of the executor that `tasks` belongs to.
/// Before it sleeps it looks for completions for up to `busy_poll`. Returns what the loop has counted.
pub async fn run(core: &mut impl Turn, ring: &Ring, tasks: &Tasks, busy_poll: Duration) -> TurnMeasures {
    let clock = SystemClock;
    let mut meter = Meter::new(clock.now().mono);
    let mut completions = Vec::new();
    let mut next = Next::Now;
    let mut polls = tasks.polls();
    loop {
        let entered = clock.now().mono;
        meter.enters(entered);
        // What a background task has done since the last turn may be waiting for this one.
        let news = tasks.runnable() > 0 || tasks.polls() != polls;
        let timeout = if news { None } else { sleep_time(next, entered) };
        polls = tasks.polls();
        let found = timeout.is_some_and(|timeout| poll_awake(ring, entered, busy_poll.min(timeout)));
        if !found {
            ring.enter(timeout);
        }
        let began = clock.now();
        meter.begins(timeout.is_none().then_some(entered), began.mono);
        let any = ring.reap(&mut completions);
        for completion in completions.drain(..) {
            core.on_completion(completion, began);
        }
        next = core.end_of_turn(began, meter.measures());
        meter.ends(clock.now().mono);
        if next == Next::Stop {
            return *meter.measures();
        }
        if tasks.runnable() > 0 {
            if any || next == Next::Now {
                glommio::executor().yield_task_queue_now().await;
            } else {
                tasks.one_poll().await;
            }
        }
    }
}

/// Looks for completions without sleeping, for up to `time` from `since`; true where there are some.
fn poll_awake(ring: &Ring, since: Nanos, time: Duration) -> bool {
    while mono().since(since) < time.as_nanos() as u64 {
        ring.enter(None);
        if ring.has_completions() {
            return true;
        }
        std::hint::spin_loop();
    }
    false
}

fn sleep_time(next: Next, now: Nanos) -> Option<Duration> {
    match next {
        Next::Now | Next::Stop => None,
        Next::Idle => Some(SLEEP_MAX),
        Next::At(time) if time <= now => None,
        Next::At(time) => Some(Duration::from_nanos(time.since(now)).min(SLEEP_MAX)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::CoreIndex;
    use crate::runtime::doorbell::Doorbell;
    use crate::runtime::executor::{CoreOptions, CoreRuntime, start};
    use std::cell::{Cell, RefCell};
    use std::future::poll_fn;
    use std::io;
    use std::rc::Rc;
    use std::sync::mpsc::{Receiver, channel};
    use std::task::Poll;

    /// Runs `body` on a core of its own and returns what it sends.
    fn on_a_core<T, F>(body: impl FnOnce(CoreRuntime) -> F + Send + 'static) -> T
    where
        T: Send + 'static,
        F: Future<Output = T> + 'static,
    {
        with_shares(10, body)
    }

    /// … with so many shares for background work.
    fn with_shares<T, F>(background_shares: usize, body: impl FnOnce(CoreRuntime) -> F + Send + 'static) -> T
    where
        T: Send + 'static,
        F: Future<Output = T> + 'static,
    {
        let allowed = crate::runtime::host::cpus_allowed().expect("the affinity mask");
        let options = CoreOptions {
            index: CoreIndex(0),
            cpu: allowed[0],
            io_workers: 1,
            pool_free_bytes_max: 1 << 20,
            background_shares,
        };
        let (sender, receiver) = channel();
        let doorbell = Doorbell::new().expect("eventfd");
        let core = start(options, doorbell, move |runtime| async move {
            let result = body(runtime).await;
            sender.send(result).map_err(|_| io::Error::other("nobody waits"))
        });
        let result = receiver.recv().expect("the body ends");
        core.expect("a core").join().expect("it ends well");
        result
    }

    /// Yields to itself for ever, as a background task that never waits would.
    fn hog(polls: Rc<Cell<u64>>) -> impl Future<Output = ()> {
        poll_fn(move |context| {
            polls.set(polls.get() + 1);
            context.waker().wake_by_ref();
            Poll::Pending
        })
    }

    /// Rings its own doorbell in each turn, so that every turn has a completion, until it has had `turns` of them.
    struct Busy {
        doorbell: Doorbell,
        turns: u64,
    }

    impl Turn for Busy {
        fn on_completion(&mut self, _: Completion, _: Now) {}

        fn end_of_turn(&mut self, _: Now, _: &TurnMeasures) -> Next {
            self.turns -= 1;
            self.doorbell.ring();
            if self.turns == 0 { Next::Stop } else { Next::Idle }
        }
    }

    /// How often a hog runs beside 20 000 turns of a busy loop, which must come to their end.
    fn polls_beside_a_busy_loop(background_shares: usize) -> u64 {
        with_shares(background_shares, |runtime: CoreRuntime| async move {
            let polls = Rc::new(Cell::new(0));
            runtime.tasks.spawn(hog(polls.clone()));
            let mut busy = Busy { doorbell: runtime.doorbell.clone(), turns: 20_000 };
            run(&mut busy, &runtime.ring, &runtime.tasks, Duration::ZERO).await;
            polls.get()
        })
    }

    #[test]
    fn a_hog_neither_starves_a_busy_loop_nor_is_starved() {
        let (few, many) = (polls_beside_a_busy_loop(10), polls_beside_a_busy_loop(1000));
        // 10 shares against 1000: far fewer polls than turns, but not none.
        assert!((1..20_000).contains(&few), "{few}");
        assert!(many > few, "{many} with a hundred times the shares, {few} without");
    }

    /// Does nothing until told to stop.
    struct Idle {
        turns: Rc<Cell<u64>>,
        stop: Rc<Cell<bool>>,
    }

    impl Turn for Idle {
        fn on_completion(&mut self, _: Completion, _: Now) {}

        fn end_of_turn(&mut self, _: Now, _: &TurnMeasures) -> Next {
            self.turns.set(self.turns.get() + 1);
            if self.stop.get() { Next::Stop } else { Next::Idle }
        }
    }

    #[test]
    fn a_core_that_polls_sees_what_comes_and_sleeps_when_nothing_does() {
        let waits = on_a_core(|runtime: CoreRuntime| async move {
            let mut busy = Busy { doorbell: runtime.doorbell.clone(), turns: 200 };
            run(&mut busy, &runtime.ring, &runtime.tasks, Duration::from_secs(1)).await;
            let polled = runtime.ring.counters().waits;
            // Nothing comes: it polls for its while, then sleeps until the hundredth of a second is over.
            let (turns, stop) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(false)));
            let (helper, end) = (runtime.helper.clone(), stop.clone());
            runtime.tasks.spawn(async move {
                helper.run(|| std::thread::sleep(Duration::from_millis(10))).await;
                end.set(true);
            });
            let mut core = WithHelper { inner: Idle { turns, stop }, helper: runtime.helper.clone() };
            run(&mut core, &runtime.ring, &runtime.tasks, Duration::from_micros(50)).await;
            (polled, runtime.ring.counters().waits)
        });
        assert_eq!(waits.0, 0, "it was never idle for a second");
        assert!(waits.1 >= 1, "it never slept");
    }

    #[test]
    fn a_hog_has_an_idle_core_for_itself() {
        let (polled, turns) = on_a_core(|runtime: CoreRuntime| async move {
            let (polls, turns, stop) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)), Rc::new(Cell::new(false)));
            runtime.tasks.spawn(hog(polls.clone()));
            let (seen, end) = (polls.clone(), stop.clone());
            runtime.tasks.spawn(poll_fn(move |context| {
                if seen.get() >= 10_000 {
                    end.set(true);
                    return Poll::Ready(());
                }
                context.waker().wake_by_ref();
                Poll::Pending
            }));
            let mut idle = Idle { turns: turns.clone(), stop };
            run(&mut idle, &runtime.ring, &runtime.tasks, Duration::ZERO).await;
            (polls.get(), turns.get())
        });
        assert!(polled >= 10_000);
        assert!(turns <= 3 * polled, "{turns} turns for {polled} polls");
    }

    #[test]
    fn a_core_at_rest_sleeps_and_wakes_for_each_ring() {
        let (waits, turns) = on_a_core(|runtime: CoreRuntime| async move {
            let (turns, stop) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(false)));
            let (helper, end) = (runtime.helper.clone(), stop.clone());
            runtime.tasks.spawn(async move {
                for _ in 0..10 {
                    helper.run(|| std::thread::sleep(Duration::from_millis(5))).await;
                }
                end.set(true);
            });
            let idle = Idle { turns: turns.clone(), stop };
            let mut core = WithHelper { inner: idle, helper: runtime.helper.clone() };
            run(&mut core, &runtime.ring, &runtime.tasks, Duration::ZERO).await;
            (runtime.ring.counters().waits, turns.get())
        });
        // Each call wakes the core once; a turn or two go with it, and no turn goes by while it sleeps.
        assert!(waits >= 10, "{waits}");
        assert!(turns <= 60, "{turns}");
    }

    struct WithHelper {
        inner: Idle,
        helper: crate::runtime::blocking::Helper,
    }

    impl Turn for WithHelper {
        fn on_completion(&mut self, completion: Completion, _: Now) {
            if matches!(completion, Completion::Doorbell) {
                self.helper.reap();
            }
        }

        fn end_of_turn(&mut self, now: Now, so_far: &TurnMeasures) -> Next {
            self.inner.end_of_turn(now, so_far)
        }
    }

    #[test]
    fn many_awaited_reads_and_writes_come_back_right() {
        let directory = tempfile::tempdir_in(std::env::current_dir().expect("a directory")).expect("a directory");
        let path = directory.path().join("file");
        let (sum, errors): (u64, Receiver<String>) = on_a_core(move |runtime: CoreRuntime| async move {
            use crate::ports::{Buffer, Disk, OpenMode};
            let (sender, errors) = channel();
            let (stop, turns) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(0)));
            let (disk, end) = (runtime.disk.clone(), stop.clone());
            let sum = Rc::new(RefCell::new(0u64));
            let total = sum.clone();
            runtime.tasks.spawn(async move {
                let work = async {
                    let file = disk.open(&path, OpenMode::CreateDirect).await?;
                    for block in 0..64u64 {
                        let buffer = disk.buffer(4096);
                        buffer.append(&block.to_be_bytes());
                        disk.write(&file, block * 4096, &buffer, 0..4096, block % 2 == 0).await?;
                    }
                    for block in 0..64u64 {
                        let read = disk.read(&file, block * 4096 + 4, 4).await?;
                        *total.borrow_mut() += u64::from(u32::from_be_bytes(read[..].try_into().expect("four")));
                    }
                    assert_eq!(disk.read(&file, 64 * 4096 - 2, 100).await?.len(), 2);
                    assert_eq!(disk.file_bytes(&file).await?, 64 * 4096);
                    io::Result::Ok(())
                };
                if let Err(error) = work.await {
                    sender.send(error.to_string()).expect("the test waits");
                }
                end.set(true);
            });
            let idle = Idle { turns, stop };
            let mut core = WithHelper { inner: idle, helper: runtime.helper.clone() };
            run(&mut core, &runtime.ring, &runtime.tasks, Duration::ZERO).await;
            let sum = *sum.borrow();
            (sum, errors)
        });
        assert_eq!(errors.try_recv().ok(), None);
        assert_eq!(sum, (0..64).sum::<u64>());
    }
}
