//! Which partition to move when one core of a broker has much more work than another. Pure: told what the cores had to do, says one move.

use crate::base::ids::{CoreIndex, PartitionId};

/// A core with less work than this in a second has time for it, and for more: records appended and read, in bytes.
const BYTES_PER_SECOND_MIN: u64 = 4 << 20;
/// A move must take this share off the busiest core, in percent: a smaller one is not worth the clients' second try, and may be undone by
/// the next round.
const GAIN_PERCENT_MIN: u64 = 10;

/// What the partitions of one core were used for since it was last asked.
#[derive(Clone, Debug)]
pub struct CoreLoad {
    pub core: CoreIndex,
    /// It may be given partitions.
    pub is_open: bool,
    /// Of all its partitions.
    pub work: u64,
    /// Those that may move and had the most, with their part.
    pub heaviest: Vec<(PartitionId, u64)>,
}

/// The partition that leaves the busiest core for the idlest one, so that the busier of the two has the least then. `None` where no move
/// gains enough.
pub fn choose(loads: &[CoreLoad], seconds: u64) -> Option<(PartitionId, CoreIndex)> {
    let busiest = loads.iter().max_by_key(|load| load.work)?;
    let idlest = loads.iter().filter(|load| load.is_open).min_by_key(|load| load.work)?;
    if busiest.work < BYTES_PER_SECOND_MIN.saturating_mul(seconds) {
        return None;
    }
    let after = |work: u64| busiest.work.saturating_sub(work).max(idlest.work.saturating_add(work));
    let &(id, work) = busiest.heaviest.iter().min_by_key(|(_, work)| after(*work))?;
    let most = busiest.work - busiest.work / 100 * GAIN_PERCENT_MIN;
    (after(work) <= most).then_some((id, idlest.core))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::TopicId;
    use proptest::prelude::*;

    fn id(index: usize) -> PartitionId {
        PartitionId { topic: TopicId([1; 16]), index: index as i32 }
    }

    /// Cores with partitions of so many MiB of work; partitions are counted over all cores.
    fn loads(cores: &[&[u64]]) -> Vec<CoreLoad> {
        let mut next = 0;
        let mut load = |(core, works): (u16, &&[u64])| {
            let heaviest: Vec<_> = works.iter().map(|work| (next_id(&mut next), work << 20)).collect();
            let work = heaviest.iter().map(|(_, work)| work).sum();
            CoreLoad { core: CoreIndex(core), is_open: true, work, heaviest }
        };
        (0..).zip(cores).map(&mut load).collect()
    }

    fn next_id(next: &mut usize) -> PartitionId {
        *next += 1;
        id(*next - 1)
    }

    #[test]
    fn the_best_move_is_chosen_and_none_where_it_gains_little() {
        for (cores, expected) in [
            (&[&[50, 30, 20][..], &[]][..], Some((0, 1))),
            (&[&[50, 30, 20], &[10]], Some((0, 1))),
            (&[&[50, 30, 20], &[40]], Some((1, 1))),
            // The only one there is would make the other core as busy.
            (&[&[100], &[]], None),
            (&[&[100], &[40]], None),
            (&[&[50, 50], &[90]], None),
            (&[&[52, 50], &[95, 1]], None),
            (&[&[10], &[60, 60], &[30]], Some((1, 0))),
            // Nobody has much to do.
            (&[&[2, 1], &[]], None),
            (&[&[50, 30, 20]], None),
            (&[], None),
        ] {
            let chosen = choose(&loads(cores), 1).map(|(id, core)| (id.index, core.0));
            assert_eq!(chosen, expected, "{cores:?}");
        }
        assert_eq!(choose(&loads(&[&[50, 30, 20], &[]]), 60), None, "over a minute that is little");
        let mut spared = loads(&[&[50, 30, 20], &[], &[10]]);
        spared[1].is_open = false;
        assert_eq!(choose(&spared, 1), Some((id(0), CoreIndex(2))));
    }

    proptest! {
        /// Applied again and again to load that stays the same, moves come to an end, and each makes the busiest core less busy.
        #[test]
        fn moves_end(mut works in prop::collection::vec(prop::collection::vec(0..1000u64, 0..12), 1..6)) {
            let most = |works: &[Vec<u64>]| works.iter().map(|core| core.iter().sum::<u64>()).max();
            for _ in 0..200 {
                let cores: Vec<&[u64]> = works.iter().map(Vec::as_slice).collect();
                let Some((moved, to)) = choose(&loads(&cores), 1) else { return Ok(()) };
                let before = most(&works);
                let mut index = moved.index as usize;
                let from = works.iter().position(|core| match index.checked_sub(core.len()) {
                    Some(left) => { index = left; false }
                    None => true,
                }).expect("one of them");
                let work = works[from].remove(index);
                works[usize::from(to.0)].push(work);
                prop_assert!(most(&works) <= before, "{works:?}");
            }
            prop_assert!(false, "200 moves were not enough: {works:?}");
        }
    }
}
