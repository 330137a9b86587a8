//! Fetch on the core that owns the partitions: reads what is visible, or waits until there is enough.

use super::Shard;
use super::balance::OPERATION_BYTES;
use super::commands::{Answer, Fetch, FetchPart, Fetched, Origin};
use crate::base::error::ErrorCode;
use crate::base::ids::{Offset, PartitionId};
use crate::base::time::{Nanos, Now};
use crate::log::{LogError, LogIndex, ReadError, Refused};
use crate::partition::waiters::Ticket;
use crate::ports::{Disk, Piece};

/// A fetch that is not answered yet.
pub(super) struct WaitingFetch {
    origin: Origin,
    fetch: Fetch,
    /// Its place in the long poll; `None` while an index is being read for it.
    ticket: Option<Ticket>,
    /// Its time is up, or another core has answered: it takes what is there.
    hurried: bool,
    /// How often it had to wait for a segment to be opened.
    loads: usize,
    /// It waits for one now.
    loading: bool,
}

/// A segment whose index must be read before the offset can be.
struct NotLoaded {
    log: LogIndex,
    offset: Offset,
    limit: Offset,
}

/// What a look at all parts has shown.
enum Attempt<F> {
    /// Everything is known; so many bytes, and whether they go out however few they are: a part has an error to tell, or was left out.
    Whole { parts: Vec<Fetched<F>>, bytes: u64, at_once: bool },
    /// The index of this partition's segment must be read first.
    NotLoaded(NotLoaded),
}

impl<D: Disk> Shard<D> {
    /// Answers `fetch` at once if it can, else when enough has become visible or its deadline has come.
    pub fn fetch(&mut self, origin: Origin, fetch: Fetch, now: Now) {
        let id = self.waiting_fetches.insert(WaitingFetch {
            origin,
            fetch,
            ticket: None,
            hurried: false,
            loads: 0,
            loading: false,
        });
        self.fetch_origins.insert(origin, id);
        self.try_fetch(id, now);
    }

    /// Answers the fetch of `origin` with what is there now.
    pub fn finish_fetch(&mut self, origin: Origin, now: Now) {
        let Some(&id) = self.fetch_origins.get(&origin) else { return };
        let Some(waiting) = self.waiting_fetches.find(id) else { return };
        waiting.hurried = true;
        if let Some(ticket) = waiting.ticket.take() {
            self.fetch_waiters.cancel(ticket);
            self.try_fetch(id, now);
        }
    }

    /// Looks again at the fetches that were woken in this turn, and at those whose time is up.
    pub(super) fn resume_fetches(&mut self, now: Now) {
        let mut expired = Vec::new();
        self.fetch_waiters.expire(now.mono, &mut expired);
        for id in expired {
            self.hurry_fetch(id, now);
        }
        let mut ready = std::mem::take(&mut self.ready_fetches);
        for id in ready.drain(..) {
            if let Some(waiting) = self.waiting_fetches.find(id) {
                waiting.ticket = None;
                self.try_fetch(id, now);
            }
        }
        self.ready_fetches = ready;
    }

    /// Answers a fetch, which is not in long poll any more, with what is there now.
    pub(super) fn hurry_fetch(&mut self, id: u64, now: Now) {
        let Some(waiting) = self.waiting_fetches.find(id) else { return };
        waiting.hurried = true;
        waiting.ticket = None;
        self.try_fetch(id, now);
    }

    /// Has fetches looked at again that wait for their time to be up. Some may be answered already.
    pub(super) fn wake_fetches(&mut self, ids: Vec<u64>) {
        for id in ids {
            let ticket = self.waiting_fetches.find(id).and_then(|waiting| waiting.ticket.take());
            self.ready_fetches.extend(ticket.and_then(|ticket| self.fetch_waiters.cancel(ticket)));
        }
    }

    /// Has fetches wait no longer, once they are looked at again.
    pub(super) fn end_fetches(&mut self, ids: &[u64]) {
        for &id in ids {
            if let Some(waiting) = self.waiting_fetches.find(id) {
                waiting.fetch.deadline = Nanos(0);
            }
        }
    }

    pub(super) fn try_fetch(&mut self, id: u64, now: Now) {
        let Some(waiting) = self.waiting_fetches.find(id) else { return };
        // Moved out for the look and back for the wait: the parts are many, and the shard is needed whole meanwhile.
        let fetch = std::mem::replace(&mut waiting.fetch, Fetch::nothing());
        let (hurried, origin) = (waiting.hurried || now.mono >= fetch.deadline, waiting.origin);
        waiting.loading = false;
        // Once each part could have had its turn: thousands of readers may close each other's segments before one has all of its own.
        let takes_some = waiting.loads >= fetch.parts.len();
        match self.read_parts(&fetch, takes_some) {
            Attempt::NotLoaded(not_loaded) => {
                self.keep_fetch(id, fetch);
                let waiting = self.waiting_fetches.find(id).expect("kept above");
                (waiting.loads, waiting.loading) = (waiting.loads + 1, true);
                self.load_then_fetch(not_loaded, id);
            }
            Attempt::Whole { parts, bytes, at_once } => {
                if at_once && now.mono < fetch.deadline && self.hold_fetch(id, &fetch) {
                    return self.wait_fetch(id, fetch, &[], 1);
                }
                if at_once || hurried || bytes >= fetch.bytes_min {
                    self.waiting_fetches.remove(id);
                    self.fetch_origins.remove(&origin);
                    self.count_fetched(&parts);
                    return self.answer(origin, Answer::Fetch { core: self.core, parts });
                }
                let slots: Vec<u32> = fetch.parts.iter().filter_map(|part| self.slot(part.partition)).collect();
                let missing = fetch.bytes_min - bytes;
                self.wait_fetch(id, fetch, &slots, missing);
            }
        }
    }

    /// Puts a fetch into long poll until so many bytes more are there, or its time is up.
    fn wait_fetch(&mut self, id: u64, fetch: Fetch, slots: &[u32], missing: u64) {
        let ticket = self.fetch_waiters.register(id, slots, missing, fetch.deadline);
        self.keep_fetch(id, fetch);
        self.waiting_fetches.find(id).expect("kept above").ticket = Some(ticket);
    }

    fn count_fetched(&mut self, parts: &[Fetched<D::File>]) {
        let counters = &mut self.fetch_counters;
        counters.answers += 1;
        for piece in parts.iter().flat_map(|part| &part.pieces) {
            let (pieces, bytes) = match piece {
                Piece::Memory(_) => (&mut counters.tail_pieces, &mut counters.tail_bytes),
                Piece::File { .. } => (&mut counters.file_pieces, &mut counters.file_bytes),
            };
            *pieces += 1;
            *bytes += piece.bytes();
        }
    }

    fn keep_fetch(&mut self, id: u64, fetch: Fetch) {
        self.waiting_fetches.find(id).expect("removed only with its answer").fetch = fetch;
    }

    /// `takes_some`: parts whose segments are not open are left out, if others have something.
    fn read_parts(&mut self, fetch: &Fetch, takes_some: bool) -> Attempt<D::File> {
        let mut parts = Vec::with_capacity(fetch.parts.len());
        let mut missing = None;
        let mut left = fetch.bytes_max;
        let (mut bytes, mut failed) = (0, false);
        for part in &fetch.parts {
            let (fetched, not_loaded) = self.read_part(part, left, bytes == 0);
            let got = fetched.bytes();
            bytes += got;
            left = left.saturating_sub(got);
            failed |= fetched.error.is_error();
            parts.push(fetched);
            missing = missing.or(not_loaded);
            if missing.is_some() && !takes_some {
                break;
            }
        }
        match missing {
            Some(not_loaded) if !takes_some || bytes == 0 => Attempt::NotLoaded(not_loaded),
            left_out => Attempt::Whole { parts, bytes, at_once: failed || left_out.is_some() },
        }
    }

    /// Reads one part; says what must be loaded before its bytes can be given.
    fn read_part(&mut self, part: &FetchPart, left: u64, first: bool) -> (Fetched<D::File>, Option<NotLoaded>) {
        let refused = |code| (Fetched::refused(part.index, code), None);
        let Some(slot) = self.slot(part.partition) else { return refused(ErrorCode::NotLeaderOrFollower) };
        let partition = &self.partitions[slot as usize];
        if let Some(code) = partition.check_epoch(part.current_leader_epoch) {
            return refused(code);
        }
        let high_watermark = partition.watermark.high_watermark();
        let mut fetched = Fetched {
            index: part.index,
            error: ErrorCode::None,
            high_watermark,
            log_start_offset: self.log.start_offset(partition.log),
            pieces: vec![],
        };
        let in_log = (fetched.log_start_offset..=partition.watermark.log_end()).contains(&part.offset);
        if !in_log {
            fetched.error = ErrorCode::OffsetOutOfRange;
            return (fetched, None);
        }
        let bytes_max = part.bytes_max.min(left);
        if part.offset >= high_watermark || bytes_max == 0 && !first {
            return (fetched, None);
        }
        match self.log.read(partition.log, part.offset, bytes_max as usize, high_watermark, first) {
            Ok(read) => {
                fetched.pieces = read.pieces;
                self.partitions[slot as usize].work += read.bytes + OPERATION_BYTES;
            }
            Err(ReadError::NotLoaded) => {
                return (fetched, Some(NotLoaded { log: partition.log, offset: part.offset, limit: high_watermark }));
            }
            Err(ReadError::OutOfRange { .. }) => fetched.error = ErrorCode::OffsetOutOfRange,
            Err(ReadError::Unavailable) => fetched.error = ErrorCode::KafkaStorageError,
        }
        (fetched, None)
    }

    /// Reads an index in the background, then looks at the fetch again.
    fn load_then_fetch(&mut self, NotLoaded { log: index, offset, limit }: NotLoaded, id: u64) {
        let log = self.log.clone();
        let (shard, now) = (self.me.clone(), self.world.now.clone());
        self.disk.spawn(async move {
            let loaded = log.load(index, offset, limit).await;
            let Some(shard) = shard.upgrade() else { return };
            let mut shard = shard.borrow_mut();
            match loaded {
                // Gone meanwhile, with the partition itself: the next look tells so.
                Ok(()) | Err(LogError::Refused(Refused::Busy)) => shard.try_fetch(id, now()),
                Err(error) => shard.fail_fetch(id, &error.to_string()),
            }
            // A partition that is to leave waits for it.
            shard.log.notify();
        });
    }

    /// Whether a fetch of this partition waits for a segment to be opened.
    pub(super) fn is_loading(&self, partition: PartitionId) -> bool {
        let is_part = |waiting: &WaitingFetch| waiting.fetch.parts.iter().any(|part| part.partition == partition);
        self.waiting_fetches.iter().any(|waiting| waiting.loading && is_part(waiting))
    }

    /// Answers a fetch whose bytes cannot be had: an error for all its parts, the reason in the log.
    fn fail_fetch(&mut self, id: u64, why: &str) {
        let Some(waiting) = self.waiting_fetches.remove(id) else { return };
        tracing::error!("a fetch cannot be answered: {why}");
        self.fetch_origins.remove(&waiting.origin);
        let parts = waiting.fetch.parts.iter();
        let parts = parts.map(|part| Fetched::refused(part.index, ErrorCode::KafkaStorageError)).collect();
        self.answer(waiting.origin, Answer::Fetch { core: self.core, parts });
    }
}
