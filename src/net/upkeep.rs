//! What a core looks at once a second: connections that are idle, that hold memory unused, that do not read their replies. Thousands are
//! looked at in parts, so that no turn of the loop is taken up by that.
//!
//! Which of them must go is decided elsewhere (`hoarding`, `connection`); here they are asked and closed.

use super::hoarding::{self, Fault, Holder};
use super::server::{Closing, Server};
use crate::base::time::Now;
use std::sync::atomic::Ordering;

/// How often a core looks at its idle connections and the like.
const TICK_MS: u64 = 1000;
/// Memory for records that is in use, in units of what tails may take, from which on replies that nobody reads must go. Commits and
/// replies that are read take some, too.
const RECORD_MEMORY_FACTOR: usize = 2;

/// Connections looked at in one turn.
const LOOK_CONNECTIONS_MAX: usize = 512;

/// A look at all connections, as far as it has come.
#[derive(Default)]
pub(super) struct Round {
    /// The first place that it has not come to.
    place: usize,
    holders: Vec<Holder>,
    unread: Vec<u64>,
}

impl Server {
    /// What is looked at once a second: idle connections, the list of complaints, whether to stop.
    pub(super) fn tick(&mut self, now: Now) {
        if now.mono < self.next_tick {
            return;
        }
        if self.round.place == 0 {
            for listener in std::mem::take(&mut self.resting) {
                self.accept_again(listener);
            }
        }
        let places = self.connections.places();
        let looks = places.div_ceil(LOOK_CONNECTIONS_MAX).max(1);
        self.next_tick = now.mono.plus_ms(TICK_MS.div_ceil(looks as u64));
        let begin = self.round.place;
        let end = places.min(begin + LOOK_CONNECTIONS_MAX);
        for id in self.connections.ids_in(begin..end) {
            self.look_at(id, now);
        }
        self.round.place = end;
        if end == places {
            let Round { mut holders, mut unread, .. } = std::mem::take(&mut self.round);
            // Those that were looked at first have had time since.
            holders.retain(|holder| {
                let connection = self.connections.find(holder.connection);
                connection.is_some_and(|connection| connection.pace.is_still(&holder.pace))
            });
            unread.retain(|&id| self.connections.find(id).is_some_and(|connection| connection.outbound.keeps_memory()));
            self.close_hoarders(&holders);
            self.close_unread(&unread);
        }
    }

    fn look_at(&mut self, id: u64, now: Now) {
        let connection = self.connections.find(id).expect("just listed");
        let quiet_ms = now.mono.since(connection.active) / 1_000_000;
        connection.inbound.shrink();
        if connection.look_at_sending(now.mono) {
            self.round.unread.push(id);
        }
        // One that waits in a long poll is not idle; one that does not read its replies is.
        let waits = !connection.is_quiet() && connection.outbound.is_empty();
        if !waits && self.settings.idle_ms_max.is_some_and(|most| quiet_ms > most) {
            return self.close(id, Closing::Idle);
        }
        self.lend(id);
        let connection = self.connections.find(id).expect("not closed");
        let holder = connection.look_at_pace(id, self.settings.request_bytes_max, now.mono);
        self.round.holders.extend(holder);
    }

    /// Closes those whose replies nobody reads, if any core has more records in memory than it should.
    fn close_unread(&mut self, unread: &[u64]) {
        let bytes = self.sender.pool.used_bytes();
        let is_short = bytes > RECORD_MEMORY_FACTOR * self.settings.tail_memory_bytes;
        match (self.is_short, is_short) {
            (false, true) => drop(self.short_cores.fetch_add(1, Ordering::Relaxed)),
            (true, false) => drop(self.short_cores.fetch_sub(1, Ordering::Relaxed)),
            _ => {}
        }
        self.is_short = is_short;
        if unread.is_empty() || self.short_cores.load(Ordering::Relaxed) == 0 {
            return;
        }
        let closed = unread.len();
        tracing::warn!(closed, bytes, "memory for records is short: connections closed that do not read their replies");
        for &id in unread {
            self.close(id, Closing::Unread);
        }
    }

    /// Closes those that keep memory from others. One line for all: they come by the thousand.
    fn close_hoarders(&mut self, holders: &[Holder]) {
        let closed = hoarding::to_close(holders);
        if closed.is_empty() {
            return;
        }
        let bytes: usize = closed.iter().map(|(holder, _)| holder.bytes).sum();
        let slow = closed.iter().filter(|(_, fault)| *fault == Fault::Slow).count();
        let held_up = closed.len() - slow;
        let waiting = holders.iter().filter(|holder| holder.waits).count();
        tracing::warn!(
            slow,
            held_up,
            bytes,
            waiting,
            "request memory is short: connections closed that hold it unused"
        );
        self.counters.closed_hoarding += closed.len() as u64;
        for (holder, _) in closed {
            self.close_in_order(holder.connection);
        }
    }
}
