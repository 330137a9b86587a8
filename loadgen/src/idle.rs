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
    /// Bytes that the slow ones have sent, all together.
    sent: u64,
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

    /// When the next byte of a slow connection is due, ns on the clock of the run. They take turns, so that each sends one a second and no
    /// two at once: a thousand clients do not keep time with each other, and a burst of theirs would be measured as a stall.
    pub fn due(&self) -> Option<u64> {
        (self.slow > 0).then(|| (u128::from(self.sent) * 1_000_000_000 / self.slow as u128) as u64)
    }

    /// The slow ones send what is due at `now`.
    pub fn trickle(&mut self, now: u64) {
        while self.due().is_some_and(|due| due <= now) {
            let (round, index) = (self.sent / self.slow as u64, (self.sent % self.slow as u64) as usize);
            let byte = SLOW_FRAME_BYTES.to_be_bytes().get(round as usize).copied().unwrap_or(0);
            self.sent += 1;
            if let Some(socket) = &mut self.sockets[index] {
                // One that is gone is reported by the poller.
                let _ = socket.write(&[byte]);
            }
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::TcpListener;

    #[test]
    fn slow_connections_take_turns_within_each_second() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let broker = std::thread::spawn(move || {
            let accept = |_| {
                let (mut socket, _) = listener.accept().unwrap();
                let mut length = [0; 4];
                socket.read_exact(&mut length).unwrap();
                let hello = u64::from(u32::from_be_bytes(length));
                std::io::copy(&mut (&mut socket).take(hello), &mut std::io::sink()).unwrap();
                socket.write_all(&[0, 0, 0, 4, 0, 0, 0, 0]).unwrap();
                socket
            };
            (0..5).map(accept).collect::<Vec<_>>()
        });
        let mut poller = Poller::new().unwrap();
        let mut idle = Idle::open(address, 4, 1, &mut poller, 0).unwrap();
        let mut others = broker.join().unwrap();
        // Of the first second 0, 250 and 500 ms are over; then all of it and the first two of the next.
        idle.trickle(600_000_000);
        assert_eq!(idle.due(), Some(750_000_000));
        idle.trickle(1_250_000_000);
        drop(idle);
        let received: Vec<_> = others
            .iter_mut()
            .map(|other| {
                let mut bytes = Vec::new();
                other.read_to_end(&mut bytes).unwrap();
                bytes
            })
            .collect();
        let length = SLOW_FRAME_BYTES.to_be_bytes();
        let expected = [&length[..2], &length[..2], &length[..1], &length[..1], &[]];
        assert_eq!(received, expected);
    }
}
