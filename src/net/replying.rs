//! From answers to replies, and from replies to sockets.
//!
//! When a connection is looked at is the server's decision; this is one look.

use super::connection::Connection;
use super::outbound::Progress;
use super::server::{Closing, Server};
use crate::api::reply::{Pieces, Reply};
use crate::api::{Finished, Tag};
use crate::base::time::Now;
use crate::runtime::disk::File;
use std::io::ErrorKind;

/// How often finished requests may make room for others within one turn.
const ROUNDS_MAX: usize = 16;

impl Server {
    /// Sends what a connection has to send.
    pub(super) fn pump(&mut self, id: u64, now: Now) {
        let Some(connection) = self.connections.find(id) else { return };
        let Connection { outbound, socket, .. } = connection;
        let (before, was_full) = (self.sender.sent.bytes(), outbound.is_full());
        let progress = outbound.pump(socket, id, &mut self.sender);
        let sent = self.sender.sent.bytes() - before;
        if sent > 0 {
            connection.active = now.mono;
            connection.sending.advance(sent as usize);
        }
        if connection.outbound.is_empty()
            && let Some(since) = connection.unsent_since.take()
        {
            self.spans.sent(since);
        }
        // The peer has read: requests that waited for that go on, though nothing more may come from its socket.
        let goes_on = was_full && !connection.outbound.is_full() && connection.has_input();
        match progress {
            Ok(Progress::Done) if connection.closing && connection.is_quiet() => self.close(id, Closing::Bad),
            Ok(Progress::Yield) => self.list(id),
            Ok(_) if goes_on => self.list(id),
            Ok(Progress::Done | Progress::Blocked | Progress::Reading) => {}
            Err(error) => {
                if error.kind() == ErrorKind::UnexpectedEof {
                    tracing::error!("a reply could not be sent: {error}");
                }
                let is_peer = matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset);
                self.close(id, if is_peer { Closing::ByPeer } else { Closing::Failed });
            }
        }
    }

    /// Handles answers and messages until nothing more comes of them. Adds the connections that got replies to `replied`.
    pub(super) fn settle(&mut self, replied: &mut Vec<u64>, now: Now) {
        for _ in 0..ROUNDS_MAX {
            {
                let mut shard = self.shard.borrow_mut();
                shard.resume(now);
                while !shard.outbox.answers.is_empty() {
                    std::mem::swap(&mut shard.outbox.answers, &mut self.answers);
                    for (request, answer) in self.answers.drain(..) {
                        self.api.on_answer(request, answer, &mut shard, now);
                    }
                }
            }
            if !self.api.has_finished() {
                break;
            }
            // By round: a connection may go on several times in one turn, each time as far as it has replies.
            let round = replied.len();
            let mut finished = std::mem::take(&mut self.finished);
            self.api.take_finished(&mut finished);
            for finished in finished.drain(..) {
                if let Some(id) = self.finish(finished)
                    && replied[round..].last() != Some(&id)
                {
                    replied.push(id);
                }
            }
            self.finished = finished;
            for &id in &replied[round..] {
                let goes_on = self.connections.find(id).is_some_and(|connection| connection.has_input());
                if goes_on {
                    self.receive(id, now);
                }
            }
        }
    }

    /// Gives a request that is done to its connection; returns that, if it is still there.
    fn finish(&mut self, finished: Finished<File>) -> Option<u64> {
        let Tag { connection: id, sequence, bytes, key, began } = finished.tag;
        let answered = began.map(|began| self.spans.answered(key, began));
        // It was held whether or not its connection is still there.
        self.budget.end_work(bytes);
        let connection = self.connections.find(id)?;
        connection.unsent_since = connection.unsent_since.or(answered);
        match finished.reply {
            Reply::Frame { pieces, errors } => {
                self.spans.failed(key, &errors);
                connection.finish(sequence, pieces);
            }
            Reply::Nothing => connection.finish(sequence, Pieces::new()),
            Reply::Close(_) => {
                self.close(id, Closing::Unanswerable);
                return None;
            }
        }
        Some(id)
    }
}
