//! Where the time of requests goes: waiting for the core, its own work, waiting for the answer, leaving by the socket.
//!
//! Asking for the time costs some 25 ns; so of Produce and Fetch, which come by the hundred thousand, every eighth is timed.

use crate::base::histogram::Histogram;
use crate::base::measures::ApiMeasures;
use crate::base::time::Nanos;
use crate::protocol::messages::ApiKey;
use crate::runtime::clock::mono;

/// One of so many Produce and Fetch requests is timed.
const TIMED_ONE_OF: u32 = 8;

pub struct Spans {
    /// By API key.
    apis: Vec<Option<Box<ApiMeasures>>>,
    /// Counts Produce and Fetch requests.
    hot: u32,
    send: Histogram,
}

impl Default for Spans {
    fn default() -> Spans {
        let keys = ApiKey::ALL.iter().map(|api| *api as usize + 1).max().expect("there are some");
        Spans { apis: vec![None; keys], hot: 0, send: Histogram::default() }
    }
}

impl Spans {
    /// The core begins with a request of API `key`, of which it knows since `known`. `None` where it is not timed.
    pub fn begin(&mut self, key: i16, known: Nanos) -> Option<Nanos> {
        let measures = self.apis[ApiKey::from_key(key)? as usize].get_or_insert_default();
        measures.requests += 1;
        if [ApiKey::Produce, ApiKey::Fetch].map(|api| api as i16).contains(&key) {
            self.hot = self.hot.wrapping_add(1);
            if self.hot % TIMED_ONE_OF != 1 {
                return None;
            }
        }
        let began = mono();
        measures.queue.record(began.since(known));
        Some(began)
    }

    fn of(&mut self, key: i16) -> Option<&mut ApiMeasures> {
        self.apis.get_mut(usize::try_from(key).ok()?)?.as_deref_mut()
    }

    /// The core has done what it could do at once.
    pub fn worked(&mut self, key: i16, began: Nanos) {
        let ns = mono().since(began);
        self.of(key).expect("it has begun").local.record(ns);
    }

    /// Its answer is there. Returns the time.
    pub fn answered(&mut self, key: i16, began: Nanos) -> Nanos {
        let now = mono();
        self.of(key).expect("it has begun").answer.record(now.since(began));
        now
    }

    /// Its reply holds these errors.
    pub fn failed(&mut self, key: i16, errors: &[i16]) {
        if let Some(measures) = self.of(key) {
            errors.iter().for_each(|&code| *measures.errors.entry(code).or_default() += 1);
        }
    }

    /// A socket has taken all that was to be sent since `since`.
    pub fn sent(&mut self, since: Nanos) {
        self.send.record(mono().since(since));
    }

    pub fn send(&self) -> Histogram {
        self.send
    }

    pub fn apis(&self) -> Vec<(&'static str, ApiMeasures)> {
        ApiKey::ALL
            .iter()
            .filter_map(|&api| Some((api.name(), (**self.apis[api as usize].as_ref()?).clone())))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_counted_and_of_the_hot_ones_every_eighth_is_timed() {
        let mut spans = Spans::default();
        for _ in 0..80 {
            for key in [0, 3] {
                if let Some(began) = spans.begin(key, Nanos(0)) {
                    spans.worked(key, began);
                    spans.answered(key, began);
                }
            }
        }
        spans.failed(3, &[3, 3, 17]);
        assert_eq!(spans.begin(999, Nanos(0)), None, "no API of ours");
        spans.failed(999, &[35]);
        spans.failed(-1, &[35]);
        let apis = spans.apis();
        let counts: Vec<_> =
            apis.iter().map(|(name, of)| (*name, of.requests, of.local.count(), of.answer.count())).collect();
        assert_eq!(counts, [("Produce", 80, 10, 10), ("Metadata", 80, 80, 80)]);
        assert_eq!(apis[1].1.errors, [(3, 2), (17, 1)].into());
    }
}
