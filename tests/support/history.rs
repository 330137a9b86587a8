//! What clients saw of a broker that crashed, and the judge of it.
//!
//! Pure: the clients in `load` write the history down, `check` holds it against what is there at the end.
//! Names of the contract (D1–D4) are those of ARCHITECTURE.md, section 7.

use std::collections::{BTreeMap, HashMap};

use crate::payload::{RecordId, decode};

/// Partition and offset.
pub type Place = (i32, i64);

/// A write the broker has acknowledged.
#[derive(Clone, Copy, Debug)]
pub struct Acked {
    pub id: RecordId,
    pub partition: i32,
    /// Nothing when the client learnt that it is written but not where (a repeat the broker knew).
    pub offset: Option<i64>,
}

/// A committed group offset, whether or not the broker confirmed it. Moments are ticks of one clock of the test.
#[derive(Clone, Copy, Debug)]
pub struct Commit {
    pub partition: i32,
    pub offset: i64,
    pub started: u64,
    /// When the client had its answer, be it good or bad.
    pub ended: u64,
    pub acked: bool,
}

/// Everything clients were told while the broker ran and crashed.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Whether a producer was idempotent; also the list of all producers there were.
    pub producers: HashMap<u32, bool>,
    pub acked: Vec<Acked>,
    /// What consumers read where. The first reader decides; who reads something else there is a fault.
    pub reads: HashMap<Place, RecordId>,
    pub commits: Vec<Commit>,
    /// Faults that showed while clients ran.
    pub faults: Vec<Fault>,
}

/// What is there at the end, read by a fresh client.
#[derive(Clone, Debug, Default)]
pub struct Final {
    pub log: BTreeMap<Place, Vec<u8>>,
    /// Committed offset per partition.
    pub committed: HashMap<i32, i64>,
}

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// D1: acknowledged, and nowhere to be found.
    Lost { id: RecordId, partition: i32 },
    /// D3: acknowledged at `at`, where something else lies now.
    Moved { id: RecordId, at: Place, found: Option<RecordId> },
    /// D3: the bytes are not those of any record.
    Changed { at: Place },
    /// D3: two readers, or a reader and the end, saw different records in one place.
    Differs { at: Place, first: RecordId, then: RecordId },
    /// D2: read by a consumer, gone later.
    Vanished { at: Place, id: RecordId },
    /// An idempotent producer's record lies there more than once.
    Duplicate { id: RecordId, partition: i32, count: usize },
    /// A later record of a producer lies before an earlier one.
    Reordered { partition: i32, before: RecordId, after: RecordId },
    /// D3: offsets are dense; this one is missing.
    Gap { at: Place },
    /// Nobody wrote it.
    Invented { at: Place, id: RecordId },
    /// D4: the group's offset is none it may have.
    Commit { partition: i32, acked: i64, found: Option<i64> },
    /// A client met what no crash of a broker excuses: its position is gone (D2), or it may not go on at all.
    Client { error: String },
}

impl History {
    /// Notes that a consumer read `bytes` at `at`.
    pub fn read(&mut self, at: Place, bytes: &[u8]) {
        let Some(id) = decode(bytes) else { return self.faults.push(Fault::Changed { at }) };
        let first = *self.reads.entry(at).or_insert(id);
        if first != id {
            self.faults.push(Fault::Differs { at, first, then: id });
        }
    }
}

/// Every promise of the history that `end` breaks, with those that broke on the way.
pub fn check(history: &History, end: &Final) -> Vec<Fault> {
    let mut faults = history.faults.clone();
    let mut log: BTreeMap<Place, RecordId> = BTreeMap::new();
    for (at, bytes) in &end.log {
        match decode(bytes) {
            None => faults.push(Fault::Changed { at: *at }),
            Some(id) if !history.producers.contains_key(&id.producer) => faults.push(Fault::Invented { at: *at, id }),
            Some(id) => drop(log.insert(*at, id)),
        }
    }
    check_dense(end, &mut faults);
    check_acked(history, &log, &mut faults);
    check_reads(history, &log, &mut faults);
    check_order(history, &log, &mut faults);
    check_commits(history, end, &mut faults);
    faults
}

fn check_dense(end: &Final, faults: &mut Vec<Fault>) {
    let mut next: HashMap<i32, i64> = HashMap::new();
    for (partition, offset) in end.log.keys() {
        let expected = next.insert(*partition, offset + 1).unwrap_or(0);
        if *offset != expected {
            faults.push(Fault::Gap { at: (*partition, expected) });
        }
    }
}

fn check_acked(history: &History, log: &BTreeMap<Place, RecordId>, faults: &mut Vec<Fault>) {
    let mut partitions: HashMap<RecordId, Vec<i32>> = HashMap::new();
    for ((partition, _), id) in log {
        partitions.entry(*id).or_default().push(*partition);
    }
    for acked in &history.acked {
        let there = partitions.get(&acked.id).is_some_and(|found| found.contains(&acked.partition));
        match acked.offset.map(|offset| (acked.partition, offset)) {
            _ if !there => faults.push(Fault::Lost { id: acked.id, partition: acked.partition }),
            Some(at) if log.get(&at) != Some(&acked.id) => {
                faults.push(Fault::Moved { id: acked.id, at, found: log.get(&at).copied() });
            }
            _ => {}
        }
    }
}

fn check_reads(history: &History, log: &BTreeMap<Place, RecordId>, faults: &mut Vec<Fault>) {
    for (at, id) in &history.reads {
        match log.get(at) {
            None => faults.push(Fault::Vanished { at: *at, id: *id }),
            Some(then) if then != id => faults.push(Fault::Differs { at: *at, first: *id, then: *then }),
            Some(_) => {}
        }
    }
}

/// Order and duplicates. A producer without idempotence may repeat records when it asks again after a crash, but with
/// one request in flight the first copy of each still comes in order.
fn check_order(history: &History, log: &BTreeMap<Place, RecordId>, faults: &mut Vec<Fault>) {
    let mut count: HashMap<(i32, RecordId), usize> = HashMap::new();
    let mut last: HashMap<(i32, u32), RecordId> = HashMap::new();
    for ((partition, _), id) in log {
        let copies = count.entry((*partition, *id)).or_insert(0);
        *copies += 1;
        if *copies > 1 {
            continue;
        }
        let before = last.insert((*partition, id.producer), *id);
        if let Some(before) = before.filter(|before| before.sequence > id.sequence) {
            faults.push(Fault::Reordered { partition: *partition, before, after: *id });
        }
    }
    for ((partition, id), count) in count {
        if count > 1 && history.producers[&id.producer] {
            faults.push(Fault::Duplicate { id, partition, count });
        }
    }
}

/// The group's offset must be that of the last acknowledged commit, or of one that was not over before that began.
fn check_commits(history: &History, end: &Final, faults: &mut Vec<Fault>) {
    let mut last: BTreeMap<i32, Commit> = BTreeMap::new();
    for commit in history.commits.iter().filter(|c| c.acked) {
        let latest = last.entry(commit.partition).or_insert(*commit);
        if commit.started > latest.started {
            *latest = *commit;
        }
    }
    for (partition, acked) in last {
        let found = end.committed.get(&partition).copied();
        let allowed = history
            .commits
            .iter()
            .any(|c| c.partition == partition && c.ended >= acked.started && Some(c.offset) == found);
        if !allowed || found.is_some_and(|found| found < acked.offset) {
            faults.push(Fault::Commit { partition, acked: acked.offset, found });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::encode;

    const PLAIN: u32 = 1;
    const IDEMPOTENT: u32 = 2;

    fn id(producer: u32, sequence: u64) -> RecordId {
        RecordId { producer, sequence }
    }

    /// A history without fault: both producers wrote 0, 1, 2 side by side, all was read, offset 4 was committed.
    fn flawless() -> (History, Final) {
        let mut history = History { producers: [(PLAIN, false), (IDEMPOTENT, true)].into(), ..History::default() };
        let mut end = Final { committed: [(0, 4)].into(), ..Final::default() };
        for (offset, (producer, sequence)) in (0..).zip([(1, 0), (2, 0), (1, 1), (2, 1), (1, 2), (2, 2)]) {
            let id = id(producer, sequence);
            history.acked.push(Acked { id, partition: 0, offset: Some(offset) });
            history.read((0, offset), &encode(id));
            end.log.insert((0, offset), encode(id));
        }
        history.commits = vec![
            Commit { partition: 0, offset: 2, started: 1, ended: 2, acked: true },
            Commit { partition: 0, offset: 4, started: 3, ended: 4, acked: true },
            Commit { partition: 0, offset: 6, started: 5, ended: 9, acked: false },
        ];
        (history, end)
    }

    #[test]
    fn a_flawless_history_has_no_fault() {
        let (history, end) = flawless();
        assert_eq!(check(&history, &end), []);
    }

    #[test]
    fn a_lost_record_shows() {
        let (mut history, mut end) = flawless();
        history.reads.clear();
        end.log.remove(&(0, 5));
        assert_eq!(check(&history, &end), [Fault::Lost { id: id(2, 2), partition: 0 }]);
        history.acked.pop();
        assert_eq!(check(&history, &end), [], "a record that was never acknowledged may be missing");
    }

    #[test]
    fn a_record_lost_from_the_middle_shows_as_a_gap_too() {
        let (mut history, mut end) = flawless();
        history.reads.clear();
        end.log.remove(&(0, 2));
        assert_eq!(check(&history, &end), [Fault::Gap { at: (0, 2) }, Fault::Lost { id: id(1, 1), partition: 0 }]);
    }

    #[test]
    fn a_record_acknowledged_without_a_place_may_lie_anywhere_in_its_partition() {
        let (mut history, mut end) = flawless();
        history.acked[5].offset = None;
        assert_eq!(check(&history, &end), []);
        history.reads.clear();
        end.log.remove(&(0, 5));
        assert_eq!(check(&history, &end), [Fault::Lost { id: id(2, 2), partition: 0 }]);
    }

    #[test]
    fn a_moved_record_shows() {
        let (mut history, mut end) = flawless();
        history.reads.clear();
        end.log.insert((0, 4), encode(id(2, 2)));
        end.log.insert((0, 5), encode(id(1, 2)));
        assert_eq!(
            check(&history, &end),
            [
                Fault::Moved { id: id(1, 2), at: (0, 4), found: Some(id(2, 2)) },
                Fault::Moved { id: id(2, 2), at: (0, 5), found: Some(id(1, 2)) }
            ]
        );
    }

    #[test]
    fn a_changed_record_shows() {
        let (mut history, mut end) = flawless();
        history.reads.clear();
        let bytes = end.log.get_mut(&(0, 3)).expect("it was put there");
        *bytes.last_mut().expect("it has bytes") ^= 0x10;
        assert_eq!(check(&history, &end), [Fault::Changed { at: (0, 3) }, Fault::Lost { id: id(2, 1), partition: 0 }]);
    }

    #[test]
    fn a_vanished_read_shows_even_if_it_was_never_acknowledged() {
        let (mut history, mut end) = flawless();
        history.acked.pop();
        end.log.remove(&(0, 5));
        assert_eq!(check(&history, &end), [Fault::Vanished { at: (0, 5), id: id(2, 2) }]);
    }

    #[test]
    fn a_place_that_showed_two_records_is_a_fault_even_if_the_end_is_right() {
        let (mut history, end) = flawless();
        history.read((0, 1), &encode(id(1, 9)));
        assert_eq!(check(&history, &end), [Fault::Differs { at: (0, 1), first: id(2, 0), then: id(1, 9) }]);
        let (mut history, end) = flawless();
        history.reads.insert((0, 1), id(1, 9));
        assert_eq!(check(&history, &end), [Fault::Differs { at: (0, 1), first: id(1, 9), then: id(2, 0) }]);
    }

    #[test]
    fn a_duplicate_is_a_fault_of_idempotent_producers_only() {
        let (history, mut end) = flawless();
        end.log.insert((0, 6), encode(id(PLAIN, 1)));
        assert_eq!(check(&history, &end), []);
        end.log.insert((0, 7), encode(id(IDEMPOTENT, 1)));
        assert_eq!(check(&history, &end), [Fault::Duplicate { id: id(2, 1), partition: 0, count: 2 }]);
    }

    #[test]
    fn a_reordered_record_shows() {
        let (history, mut end) = flawless();
        for (offset, sequence) in [(6, 4), (7, 3)] {
            end.log.insert((0, offset), encode(id(PLAIN, sequence)));
        }
        assert_eq!(check(&history, &end), [Fault::Reordered { partition: 0, before: id(1, 4), after: id(1, 3) }]);
    }

    #[test]
    fn a_record_of_nobody_shows() {
        let (history, mut end) = flawless();
        end.log.insert((0, 6), encode(id(77, 0)));
        assert_eq!(check(&history, &end), [Fault::Invented { at: (0, 6), id: id(77, 0) }]);
    }

    #[test]
    fn a_commit_may_be_the_last_acknowledged_or_a_later_one_and_no_other() {
        let (history, mut end) = flawless();
        end.committed = [(0, 6)].into();
        assert_eq!(check(&history, &end), [], "a commit without an answer may have been taken");
        for found in [Some(2), Some(5), Some(7), None] {
            end.committed = found.map(|offset| (0, offset)).into_iter().collect();
            assert_eq!(check(&history, &end), [Fault::Commit { partition: 0, acked: 4, found }]);
        }
    }
}
