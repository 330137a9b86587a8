//! Where the time of requests goes: waiting for the core, its own work, waiting for the answer, leaving by the socket.
//!
//! Asking for the time costs some 25 ns; so of Produce and Fetch, which come by the hundred thousand, every eighth is timed.

use crate::api::Timed;
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

impl Spans {
    pub fn new() -> Spans {
        let keys = ApiKey::ALL.iter().map(|api| *api as usize + 1).max().expect("there are some");
        Spans { apis: vec![None; keys], hot: 0, send: Histogram::default() }
    }

    /// The core begins with `frame`, of which it knows since `known`. `None` where it is not timed.
    pub fn begin(&mut self, frame: &[u8], known: Nanos) -> Option<Timed> {
        let key = i16::from_be_bytes(*frame.first_chunk::<2>()?);
        let api = ApiKey::from_key(key)?;
        let measures = self.apis[api as usize].get_or_insert_default();
        measures.requests += 1;
        if matches!(api, ApiKey::Produce | ApiKey::Fetch) {
            self.hot = self.hot.wrapping_add(1);
            if self.hot % TIMED_ONE_OF != 1 {
                return None;
            }
        }
        let began = mono();
        measures.queue.record(began.since(known));
        Some(Timed { key, began })
    }

    fn of(&mut self, timed: Timed) -> &mut ApiMeasures {
        self.apis[timed.key as usize].as_mut().expect("it has begun")
    }

    /// The core has done what it could do at once.
    pub fn worked(&mut self, timed: Timed) {
        let ns = mono().since(timed.began);
        self.of(timed).local.record(ns);
    }

    /// Its answer is there.
    pub fn answered(&mut self, timed: Timed) {
        let ns = mono().since(timed.began);
        self.of(timed).answer.record(ns);
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
        let mut spans = Spans::new();
        let frame = |key: i16| [&key.to_be_bytes()[..], b"\0\0rest"].concat();
        for _ in 0..80 {
            for key in [0, 3] {
                if let Some(timed) = spans.begin(&frame(key), Nanos(0)) {
                    spans.worked(timed);
                    spans.answered(timed);
                }
            }
        }
        assert_eq!(spans.begin(&frame(999), Nanos(0)), None, "no API of ours");
        assert_eq!(spans.begin(b"\0", Nanos(0)), None, "no key at all");
        let apis = spans.apis();
        let counts: Vec<_> =
            apis.iter().map(|(name, of)| (*name, of.requests, of.local.count(), of.answer.count())).collect();
        assert_eq!(counts, [("Produce", 80, 10, 10), ("Metadata", 80, 80, 80)]);
    }
}
