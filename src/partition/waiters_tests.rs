//! Waiters against transcripts and, for fetches, against a model that looks at everyone each time.

use super::*;
use proptest::prelude::*;

#[test]
fn produces_are_woken_in_the_order_of_their_offsets() {
    let mut waiters = OffsetWaiters::default();
    for (offset, key) in [(3, "a"), (5, "b"), (9, "c"), (5, "repeat of b"), (3, "repeat of a"), (9, "repeat of c")] {
        waiters.wait(offset, key);
    }
    let mut woken = Vec::new();
    waiters.wake(2, &mut woken);
    assert!(woken.is_empty());
    waiters.wake(5, &mut woken);
    assert_eq!(woken, ["a", "repeat of a", "b", "repeat of b"]);
    assert_eq!(waiters.drain().collect::<Vec<_>>(), ["c", "repeat of c"]);
    assert!(waiters.is_empty());
}

const FAR: Nanos = Nanos(1_000_000);

fn woken(act: impl FnOnce(&mut Vec<&'static str>)) -> Vec<&'static str> {
    let mut keys = Vec::new();
    act(&mut keys);
    keys
}

#[test]
fn a_fetch_is_woken_when_its_partitions_together_have_enough() {
    let mut waiters = FetchWaiters::default();
    waiters.register("both", &[1, 2], 100, FAR);
    waiters.register("two", &[2], 50, FAR);
    assert!(woken(|keys| waiters.on_visible(1, 60, keys)).is_empty());
    assert!(woken(|keys| waiters.on_visible(3, 1000, keys)).is_empty(), "nobody waits on 3");
    assert_eq!(woken(|keys| waiters.on_visible(2, 40, keys)), ["both"]);
    assert_eq!(woken(|keys| waiters.on_visible(2, 10, keys)), ["two"]);
    assert!(waiters.is_empty() && waiters.lists.is_empty());
}

#[test]
fn deadlines_wake_in_their_order() {
    let mut waiters = FetchWaiters::default();
    waiters.register("late", &[1], 1, Nanos(30));
    waiters.register("early", &[1], 1, Nanos(10));
    waiters.register("nothing to wait for", &[], 1, Nanos(20));
    assert_eq!(waiters.next_deadline(), Some(Nanos(10)));
    assert!(woken(|keys| waiters.expire(Nanos(9), keys)).is_empty());
    assert_eq!(woken(|keys| waiters.expire(Nanos(20), keys)), ["early", "nothing to wait for"]);
    assert_eq!(waiters.next_deadline(), Some(Nanos(30)));
}

#[test]
fn a_cancelled_fetch_is_gone_and_its_ticket_says_nothing_about_its_successor() {
    let mut waiters = FetchWaiters::default();
    let first = waiters.register("first", &[1, 2], 1, FAR);
    assert_eq!(waiters.cancel(first), Some("first"));
    let second = waiters.register("second", &[2, 3], 1, FAR);
    assert_eq!(waiters.cancel(first), None);
    assert!(woken(|keys| waiters.on_visible(1, 1, keys)).is_empty());
    assert_eq!(woken(|keys| waiters.on_visible(3, 1, keys)), ["second"]);
    assert_eq!(waiters.cancel(second), None);
}

#[test]
fn a_changed_partition_wakes_whoever_waits_on_it() {
    let mut waiters = FetchWaiters::default();
    waiters.register("a", &[1, 2], 1000, FAR);
    waiters.register("b", &[2, 3], 1000, FAR);
    waiters.register("c", &[3], 1000, FAR);
    assert_eq!(woken(|keys| waiters.on_changed(2, keys)), ["a", "b"]);
    assert_eq!(waiters.len(), 1);
}

#[test]
fn a_partition_named_twice_by_one_fetch_is_taken_out_twice() {
    let mut waiters = FetchWaiters::default();
    waiters.register("twice", &[1, 1, 1], 10, FAR);
    waiters.register("once", &[1], 10, FAR);
    assert_eq!(woken(|keys| waiters.on_visible(1, 4, keys)), ["twice"]);
    assert_eq!(woken(|keys| waiters.on_visible(1, 6, keys)), ["once"]);
    assert!(waiters.lists.is_empty());
}

#[derive(Clone, Debug)]
enum Step {
    Register { partitions: Vec<u8>, missing_bytes: u64, deadline: u64 },
    Cancel(usize),
    Visible { partition: u8, bytes: u64 },
    Changed(u8),
    Expire(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (prop::collection::vec(0..6u8, 0..6), 1..60u64, 0..100u64)
            .prop_map(|(partitions, missing_bytes, deadline)| Step::Register { partitions, missing_bytes, deadline }),
        1 => (0..40usize).prop_map(Step::Cancel),
        4 => (0..6u8, 1..40u64).prop_map(|(partition, bytes)| Step::Visible { partition, bytes }),
        1 => (0..6u8).prop_map(Step::Changed),
        1 => (0..100u64).prop_map(Step::Expire),
    ];
    prop::collection::vec(step, 0..80)
}

/// Key, partitions, bytes missing, deadline, ticket.
type Waiting = (usize, Vec<u8>, u64, u64, Ticket);

proptest! {
    #[test]
    fn fetches_agree_with_a_model_that_looks_at_everyone(steps in steps()) {
        let mut waiters = FetchWaiters::default();
        let mut model: Vec<Waiting> = Vec::new();
        let mut tickets = Vec::new();
        for step in steps {
            let mut woken = Vec::new();
            let mut expected = Vec::new();
            let mut wake_where = |model: &mut Vec<Waiting>, ready: &dyn Fn(&Waiting) -> bool| {
                model.retain(|waiting| {
                    if ready(waiting) {
                        expected.push(waiting.0);
                    }
                    !ready(waiting)
                });
            };
            match step {
                Step::Register { partitions, missing_bytes, deadline } => {
                    let key = tickets.len();
                    let ticket = waiters.register(key, &partitions, missing_bytes, Nanos(deadline));
                    tickets.push(ticket);
                    model.push((key, partitions, missing_bytes, deadline, ticket));
                }
                Step::Cancel(at) => {
                    if let Some(&ticket) = tickets.get(at) {
                        woken.extend(waiters.cancel(ticket));
                        wake_where(&mut model, &|waiting| waiting.4 == ticket);
                    }
                }
                Step::Visible { partition, bytes } => {
                    waiters.on_visible(partition, bytes, &mut woken);
                    for waiting in &mut model {
                        let times = waiting.1.iter().filter(|&&other| other == partition).count() as u64;
                        waiting.2 = waiting.2.saturating_sub(bytes * times);
                    }
                    wake_where(&mut model, &|waiting| waiting.2 == 0);
                }
                Step::Changed(partition) => {
                    waiters.on_changed(partition, &mut woken);
                    wake_where(&mut model, &|waiting| waiting.1.contains(&partition));
                }
                Step::Expire(now) => {
                    waiters.expire(Nanos(now), &mut woken);
                    wake_where(&mut model, &|waiting| waiting.3 <= now);
                }
            }
            woken.sort_unstable();
            expected.sort_unstable();
            prop_assert_eq!(woken, expected);
            prop_assert_eq!(waiters.len(), model.len());
            prop_assert_eq!(waiters.next_deadline(), model.iter().map(|waiting| Nanos(waiting.3)).min());
        }
    }
}
