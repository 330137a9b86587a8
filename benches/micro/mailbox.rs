//! Messages to another core and back: two threads, each with a ring of its own in which it sleeps.

use criterion::{Criterion, Throughput};
use ringlog::base::ids::CoreIndex;
use ringlog::runtime::mailbox::{Mailboxes, Postbox};
use ringlog::runtime::ring::{Completion, Ring};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

/// What a message between cores weighs in the broker: a boxed command and where it came from.
type Message = [u64; 4];

const STOP: Message = [u64::MAX; 4];

struct End {
    ring: Ring,
    boxes: Mailboxes<Message>,
    completions: Vec<Completion>,
}

impl End {
    fn new(core: u16, postbox: std::sync::Arc<Postbox<Message>>) -> End {
        let ring = Ring::new().expect("io_uring");
        let boxes = Mailboxes::new(CoreIndex(core), postbox, &ring);
        End { ring, boxes, completions: Vec::new() }
    }

    /// As at the end of a turn, and the beginning of the next: sends what there is, sleeps until something has come.
    fn turn(&mut self, into: &mut Vec<Message>) {
        assert!(self.boxes.flush(&self.ring), "no box is full");
        while into.is_empty() {
            self.ring.enter(Some(Duration::from_secs(1)));
            self.ring.reap(&mut self.completions);
            self.completions.clear();
            self.boxes.receive(into);
        }
    }
}

pub fn hop(criterion: &mut Criterion) {
    let postbox = Postbox::new(2);
    let other = postbox.clone();
    let (sender, ready) = channel();
    let echo = thread::spawn(move || {
        let mut end = End::new(1, other);
        sender.send(()).expect("the benchmark waits");
        let mut messages = Vec::new();
        loop {
            end.turn(&mut messages);
            for message in messages.drain(..) {
                if message == STOP {
                    return;
                }
                end.boxes.send(CoreIndex(0), message);
            }
        }
    });
    ready.recv().expect("the other thread has a ring");
    let mut end = End::new(0, postbox);
    let mut answers = Vec::new();
    let mut group = criterion.benchmark_group("mailbox");
    for count in [1, 64] {
        group.throughput(Throughput::Elements(count));
        group.bench_function(format!("there-and-back/{count}"), |bencher| {
            bencher.iter(|| {
                for message in 0..count {
                    end.boxes.send(CoreIndex(1), [message; 4]);
                }
                let mut back = 0;
                while back < count {
                    end.turn(&mut answers);
                    back += answers.drain(..).count() as u64;
                }
            });
        });
    }
    group.finish();
    end.boxes.send(CoreIndex(1), STOP);
    assert!(end.boxes.flush(&end.ring), "no box is full");
    end.ring.enter(None);
    echo.join().expect("it ends well");
}
