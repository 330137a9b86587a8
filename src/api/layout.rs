//! The order of topics and partitions in a request, which its reply keeps, while cores answer in any order.

use smallvec::SmallVec;
use std::sync::Arc;

/// Results of a request's partitions, by their place in the request. One topic with one partition takes no memory of its own.
pub struct Layout<T> {
    /// Each topic with the place behind its last partition.
    topics: SmallVec<[(Arc<str>, usize); 1]>,
    /// Each partition's index and its result.
    partitions: SmallVec<[(i32, Option<T>); 1]>,
    missing: usize,
}

impl<T> Default for Layout<T> {
    fn default() -> Layout<T> {
        Layout { topics: SmallVec::new(), partitions: SmallVec::new(), missing: 0 }
    }
}

impl<T> Layout<T> {
    /// With room for so many topics and partitions.
    pub fn with_room(topics: usize, partitions: usize) -> Layout<T> {
        Layout { topics: SmallVec::with_capacity(topics), partitions: SmallVec::with_capacity(partitions), missing: 0 }
    }

    /// Opens a topic; the partitions pushed next are its own.
    pub fn topic(&mut self, name: Arc<str>) {
        self.topics.push((name, self.partitions.len()));
    }

    /// Adds a partition that will have a result; returns its place.
    pub fn partition(&mut self, index: i32) -> u32 {
        let place = self.partitions.len();
        self.partitions.push((index, None));
        self.topics.last_mut().expect("a topic is open").1 = place + 1;
        self.missing += 1;
        place as u32
    }

    /// Gives a place its result. A second one counts no more.
    pub fn set(&mut self, place: u32, result: T) {
        let slot = &mut self.partitions[place as usize].1;
        if slot.is_none() {
            *slot = Some(result);
            self.missing -= 1;
        }
    }

    pub fn is_whole(&self) -> bool {
        self.missing == 0
    }

    /// Topics in order, each with its partitions and their results. To be called when whole.
    pub fn topics(&mut self) -> impl ExactSizeIterator<Item = (&str, impl ExactSizeIterator<Item = (i32, &mut T)>)> {
        let (mut rest, mut from) = (&mut self.partitions[..], 0);
        self.topics.iter().map(move |(name, end)| {
            let (own, behind) = std::mem::take(&mut rest).split_at_mut(end - from);
            (rest, from) = (behind, *end);
            (&**name, own.iter_mut().map(|(index, result)| (*index, result.as_mut().expect("whole"))))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_the_order_of_the_request() {
        let mut layout = Layout::default();
        let mut places = Vec::new();
        for (name, indexes) in [("b", &[2, 0][..]), ("empty", &[]), ("a", &[1])] {
            layout.topic(name.into());
            places.extend(indexes.iter().map(|index| layout.partition(*index)));
        }
        for place in places.into_iter().rev() {
            assert!(!layout.is_whole());
            layout.set(place, place * 10);
            layout.set(place, 77);
        }
        assert!(layout.is_whole());
        let topics: Vec<_> = layout
            .topics()
            .map(|(name, parts)| (name, parts.map(|(index, result)| (index, *result)).collect()))
            .collect();
        let expected: [(&str, Vec<(i32, u32)>); 3] =
            [("b", vec![(2, 0), (0, 10)]), ("empty", vec![]), ("a", vec![(1, 20)])];
        assert_eq!(topics, expected);
    }
}
