//! The order of topics and partitions in a request, which its reply keeps, while cores answer in any order.

use std::sync::Arc;

/// A topic's name, its partitions' indexes and their results.
pub type TopicResults<T> = (Arc<str>, Vec<(i32, T)>);

/// Results of a request's partitions, by their place in the request.
pub struct Layout<T> {
    /// Each topic with its partition indexes.
    topics: Vec<(Arc<str>, Vec<i32>)>,
    results: Vec<Option<T>>,
    missing: usize,
}

impl<T> Default for Layout<T> {
    fn default() -> Layout<T> {
        Layout { topics: Vec::new(), results: Vec::new(), missing: 0 }
    }
}

impl<T> Layout<T> {
    /// Opens a topic; the partitions pushed next are its own.
    pub fn topic(&mut self, name: Arc<str>) {
        self.topics.push((name, Vec::new()));
    }

    /// Adds a partition that will have a result; returns its place.
    pub fn partition(&mut self, index: i32) -> u32 {
        self.topics.last_mut().expect("a topic is open").1.push(index);
        self.results.push(None);
        self.missing += 1;
        (self.results.len() - 1) as u32
    }

    /// Gives a place its result. A second one counts no more.
    pub fn set(&mut self, place: u32, result: T) {
        let slot = &mut self.results[place as usize];
        if slot.is_none() {
            *slot = Some(result);
            self.missing -= 1;
        }
    }

    pub fn is_whole(&self) -> bool {
        self.missing == 0
    }

    /// Topics in order, each with its partitions and their results. To be called when whole.
    pub fn take(&mut self) -> Vec<TopicResults<T>> {
        let mut results = std::mem::take(&mut self.results).into_iter();
        let topics = std::mem::take(&mut self.topics).into_iter();
        let result = |results: &mut std::vec::IntoIter<Option<T>>| results.next().flatten().expect("whole");
        topics
            .map(|(name, partitions)| {
                let partitions = partitions.into_iter().map(|index| (index, result(&mut results))).collect();
                (name, partitions)
            })
            .collect()
    }
}
