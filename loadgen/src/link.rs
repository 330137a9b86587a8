//! A connection of a producer or consumer to one broker, which may be lost and opened again.

use crate::connection::Connection;
use crate::poller::Poller;
use std::net::SocketAddr;

/// How long after a failure the next try is made, ns.
const RETRY_NS: u64 = 100_000_000;

pub struct Link {
    connection: Option<Connection>,
    /// What events of the present connection carry; those of an earlier one are stale.
    token: u64,
    /// Not before this time is it opened again.
    retry_at: u64,
    correlation: i32,
}

/// Gives each connection that is opened a number, and remembers whose it is.
#[derive(Default)]
pub struct Tokens<O> {
    owners: Vec<O>,
}

impl<O: Copy> Tokens<O> {
    fn issue(&mut self, owner: O) -> u64 {
        self.owners.push(owner);
        self.owners.len() as u64 - 1
    }

    pub fn owner(&self, token: u64) -> O {
        self.owners[token as usize]
    }

    pub fn new() -> Tokens<O> {
        Tokens { owners: Vec::new() }
    }
}

impl Link {
    pub fn new() -> Link {
        Link { connection: None, token: u64::MAX, retry_at: 0, correlation: 0 }
    }

    /// Opens the connection if it is not open and may be tried; true where it is open now and was not.
    pub fn open<O: Copy>(
        &mut self,
        address: SocketAddr,
        now: u64,
        poller: &mut Poller,
        tokens: &mut Tokens<O>,
        owner: O,
    ) -> bool {
        if self.connection.is_some() || now < self.retry_at {
            return false;
        }
        let token = tokens.issue(owner);
        match Connection::open(address, poller, token) {
            Ok(connection) => {
                self.connection = Some(connection);
                self.token = token;
                true
            }
            Err(_) => {
                self.retry_at = now + RETRY_NS;
                false
            }
        }
    }

    /// Lends the connection, where it is the one that `token` was given to; `put_back` follows, or `close`.
    pub fn take(&mut self, token: u64) -> Option<Connection> {
        if token == self.token { self.connection.take() } else { None }
    }

    pub fn put_back(&mut self, connection: Connection) {
        self.connection = Some(connection);
    }

    /// The connection, where it is open and has room.
    pub fn ready(&mut self) -> Option<&mut Connection> {
        self.connection.as_mut().filter(|connection| !connection.is_backed_up())
    }

    pub fn is_open(&self) -> bool {
        self.connection.is_some()
    }

    pub fn close(&mut self, now: u64) {
        self.connection = None;
        self.retry_at = now + RETRY_NS;
    }

    pub fn next_correlation(&mut self) -> i32 {
        self.correlation = self.correlation.wrapping_add(1);
        self.correlation
    }
}
