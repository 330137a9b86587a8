//! Connections that are there to be there: some do nothing, some send a byte a second of a request that never ends.

use crate::connection::dial;
use crate::poller::Poller;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};

/// What a slow connection says its request is long: more than it sends in any run, and within what brokers take.
const SLOW_FRAME_BYTES: u32 = 100_000;

pub struct Idle {
    /// Those that are gone are `None`.
    sockets: Vec<Option<TcpStream>>,
    slow: usize,
    /// Bytes that each slow one has sent.
    sent: usize,
}

impl Idle {
    /// Opens `slow` + `idle` connections to `address`; `poller` reports under `token` + their index.
    ///
    /// # Errors
    /// Says how many there were when one failed.
    pub fn open(
        address: SocketAddr,
        slow: usize,
        idle: usize,
        poller: &mut Poller,
        token: u64,
    ) -> Result<Idle, String> {
        let mut sockets = Vec::with_capacity(slow + idle);
        for index in 0..slow + idle {
            let socket = dial(address)
                .map_err(|error| format!("idle connection {index}: {error}; see ulimit -n here and at the broker"))?;
            poller.watch(&socket, token + index as u64);
            sockets.push(Some(socket));
        }
        Ok(Idle { sockets, slow, sent: 0 })
    }

    /// The slow ones send their next byte.
    pub fn trickle(&mut self) {
        let byte = SLOW_FRAME_BYTES.to_be_bytes().get(self.sent).copied().unwrap_or(0);
        self.sent += 1;
        for socket in self.sockets[..self.slow].iter_mut().flatten() {
            // One that is gone is reported by the poller.
            let _ = socket.write(&[byte]);
        }
    }

    /// Something happened on the connection with this index: nobody sends to it, so it is gone. True the first time.
    pub fn on_readable(&mut self, index: usize) -> bool {
        let Some(socket) = self.sockets[index].take() else { return false };
        // Ends its watch; that it is closed already is no news.
        let _ = socket.shutdown(std::net::Shutdown::Both);
        true
    }
}
