//! Numbered places for what waits. A number is never used again while something could still name its former holder.

use std::ops::Range;

/// Holds values under ids. An id is its place and the place's generation, so a stale one finds nothing.
#[derive(Debug)]
pub struct Slab<T> {
    places: Vec<(u32, Option<T>)>,
    vacant: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Slab<T> {
        Slab { places: Vec::new(), vacant: Vec::new() }
    }
}

impl<T> Slab<T> {
    pub fn insert(&mut self, value: T) -> u64 {
        let place = self.vacant.pop().unwrap_or_else(|| {
            self.places.push((0, None));
            u32::try_from(self.places.len() - 1).expect("far fewer than 2^32 wait")
        });
        let (generation, slot) = &mut self.places[place as usize];
        *slot = Some(value);
        u64::from(*generation) << 32 | u64::from(place)
    }

    pub fn find(&mut self, id: u64) -> Option<&mut T> {
        let (generation, slot) = self.places.get_mut(id as u32 as usize)?;
        if u64::from(*generation) == id >> 32 { slot.as_mut() } else { None }
    }

    pub fn remove(&mut self, id: u64) -> Option<T> {
        self.find(id)?;
        let place = id as u32;
        let (generation, slot) = &mut self.places[place as usize];
        *generation = generation.wrapping_add(1);
        self.vacant.push(place);
        slot.take()
    }

    pub fn len(&self) -> usize {
        self.places.len() - self.vacant.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.places.iter().filter_map(|(_, slot)| slot.as_ref())
    }

    /// The ids in use.
    pub fn ids(&self) -> Vec<u64> {
        self.ids_in(0..self.places.len())
    }

    /// How many places there are, used or not.
    pub fn places(&self) -> usize {
        self.places.len()
    }

    /// The ids in use at some of the places.
    pub fn ids_in(&self, places: Range<usize>) -> Vec<u64> {
        let used = self.places[places.clone()].iter().zip(places).filter(|((_, slot), _)| slot.is_some());
        used.map(|((generation, _), place)| u64::from(*generation) << 32 | place as u64).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_id_finds_nothing() {
        let mut slab = Slab::default();
        let first = slab.insert('a');
        assert_eq!(slab.remove(first), Some('a'));
        let second = slab.insert('b');
        assert_ne!(first, second);
        assert_eq!(slab.find(first), None);
        assert_eq!(slab.remove(first), None);
        assert_eq!(slab.find(second), Some(&mut 'b'));
        let third = slab.insert('c');
        assert_eq!(slab.ids(), [second, third]);
        assert_eq!((slab.ids_in(0..1), slab.ids_in(1..2), slab.ids_in(2..2)), (vec![second], vec![third], vec![]));
    }
}
