//! What a core counts, as plain numbers with names. Knows neither how they come about nor how they are shown.
//!
//! A name ending in `_now` is what holds at the moment, one ending in `_max` the largest since the core began to serve, `limit` a
//! setting; all others only grow. Units stand in the names; without one it is a number of events. docs/counters.md explains each.

/// Defines the groups, the sum of them, and their names as texts.
macro_rules! counters {
    ($($(#[$about:meta])* $group:ident: $type:ident { $($(#[$meaning:meta])* $name:ident,)* })*) => {
        $(
            $(#[$about])*
            #[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
            pub struct $type { $($(#[$meaning])* pub $name: u64,)* }
        )*

        /// All that one core has counted, taken at the end of one of its turns.
        #[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
        pub struct CoreCounters { $($(#[$about])* pub $group: $type,)* }

        impl CoreCounters {
            /// Every group with its name, and in it every counter with its name, in a fixed order.
            pub fn groups(&self) -> Vec<(&'static str, Vec<(&'static str, u64)>)> {
                vec![$((stringify!($group), vec![$((stringify!($name), self.$group.$name)),*])),*]
            }
        }
    };
}

counters! {
    /// The turn loop. "Over 2 ms" is what a client could notice as a stall.
    turns: TurnCounters {
        turns,
        /// Time in turns, without sleeping, entering the ring and background tasks.
        busy_ns,
        turn_us_max,
        over_2ms,
        /// Of these, turns in which the thread itself computed for more than 2 ms ...
        over_2ms_busy,
        /// ... or a call made it sleep ...
        over_2ms_blocked,
        /// ... or neither: the machine gave its CPU to others.
        over_2ms_preempted,
        /// Longest call of io_uring_enter that was not allowed to sleep: what submitting cost.
        enter_us_max,
        /// Longest time that background tasks took between two turns.
        background_us_max,
        /// How often they took more than 2 ms ...
        background_over_2ms,
        /// ... because they computed or slept that long: not where the machine gave the CPU to others.
        background_over_2ms_own,
    }

    /// The core's io_uring, since the thread began.
    ring: RingCounters {
        submissions,
        completions,
        /// Calls of io_uring_enter.
        enters,
        /// Of these, the ones that were allowed to sleep.
        waits,
        wakes_sent,
        wakes_received,
        /// Hot writes: commits of the journal and pieces of segments.
        writes,
        /// Cold reads around the page cache.
        direct_reads,
        /// Cold reads through the page cache. A kernel worker (io-wq) runs each.
        splices,
        /// Reads ahead of such readers, a worker each.
        read_aheads,
        read_ahead_bytes,
        /// fdatasync. A kernel worker runs each.
        syncs,
    }

    /// The core's helper thread, for file calls that block.
    helper: HelperCounters {
        calls,
        /// Calls that are waiting or being run.
        pending_now,
        pending_max,
    }

    /// Messages between cores.
    mailbox: MailboxCounters {
        sent,
        received,
        /// Batches moved: the ratio to `sent` is what batching saves.
        batches,
        /// Flushes that found a box full.
        full,
        /// The most messages that one look found waiting.
        depth_max,
    }

    /// Connections and requests.
    connections: ConnectionCounters {
        open_now,
        accepted,
        /// Not taken: too many, or out of descriptors.
        refused,
        /// The peer closed, or its network did.
        closed_by_peer,
        /// It could not be understood.
        closed_bad,
        /// Of these, it held memory that others waited for.
        closed_hoarding,
        closed_idle,
        /// It did not read its replies, and memory for records was short.
        closed_unread,
        /// A request without a reply (acks=0) failed.
        closed_unanswerable,
        /// Sending or reading for it failed.
        closed_failed,
        /// The broker stopped.
        closed_at_stop,
        requests,
        received_bytes,
    }

    /// Memory that is lent, against its limits.
    memory: MemoryCounters {
        /// Held by requests that are arriving.
        request_lent_bytes_now,
        /// Held by produces until they are durable.
        request_working_bytes_now,
        request_limit_bytes,
        /// Times a connection had to wait for request memory.
        refusals,
        tail_bytes_now,
        tail_limit_bytes,
        /// Batches in memory that are in no segment's file yet.
        unwritten_bytes_now,
        /// Memory for records lent out by the core's pool, tails included.
        pool_bytes_now,
    }

    /// The journal.
    journal: JournalCounters {
        /// Batches produced.
        appends,
        append_bytes,
        /// Journal writes that became durable, their bytes on disk, and the time from submission to completion.
        commits,
        commit_bytes,
        commit_ns,
        commit_us_max,
        /// Appends refused because the disk was behind ...
        refused_backlog,
        /// ... or full.
        refused_disk_full,
        files_created,
        files_recycled,
        checkpoints,
        /// Batches that went to their segments first, and are not in the journal.
        placed,
        placed_bytes,
    }

    /// Segments and their indexes.
    segments: SegmentCounters {
        writes,
        write_bytes,
        /// Segments synced alone, and syncs of a whole filesystem for many of them.
        syncs,
        syncs_together,
        /// Reads answered from tails and from files. A fetch that waits for more reads again.
        reads_memory,
        reads_file,
        rolled,
        deleted,
        indexes_loaded,
        indexes_rebuilt,
        /// Tail chunks given up to keep within the budget.
        chunks_evicted,
    }

    /// Fetches that were answered by this core, by where their batches were.
    fetches: FetchCounters {
        answers,
        /// In tails, as views of memory.
        tail_pieces,
        tail_bytes,
        /// In segments, as ranges of files.
        file_pieces,
        file_bytes,
    }

    /// Bytes that sockets took, and the calls that moved them. No path copies in user space.
    sent: SentCounters {
        /// Memory: tails, and the replies themselves.
        memory_bytes,
        memory_sends,
        /// File pages that were in the page cache.
        sendfile_bytes,
        sendfiles,
        /// File pages read by a splice into a pipe, and spliced on from there.
        splice_bytes,
        splices,
        /// File bytes read around the page cache.
        direct_bytes,
        direct_sends,
    }
}

impl SentCounters {
    /// Bytes by all paths.
    pub fn bytes(&self) -> u64 {
        self.memory_bytes + self.sendfile_bytes + self.splice_bytes + self.direct_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// docs/counters.md has a row `| group | name | unit | meaning |` for each counter, and for nothing else.
    #[test]
    fn every_counter_is_documented() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/counters.md");
        // Crates that are packed without their documents have nothing to compare.
        let Ok(page) = std::fs::read_to_string(path) else { return };
        let cells = |line: &str| -> Vec<String> { line.split('|').map(|cell| cell.trim().replace('`', "")).collect() };
        let rows = page.lines().filter(|line| line.starts_with("| `")).map(cells);
        let documented: BTreeSet<(String, String)> = rows.map(|row| (row[1].clone(), row[2].clone())).collect();
        let counted: BTreeSet<(String, String)> = CoreCounters::default()
            .groups()
            .into_iter()
            .flat_map(|(group, values)| values.into_iter().map(|(name, _)| (group.to_owned(), name.to_owned())))
            .collect();
        assert_eq!(documented, counted);
    }
}
