//! One connection to a broker that speaks the broker's own codec: for what librdkafka has no call for, and for single versions.
//!
//! Knows frames, not what they are about. Knows no retries: a request is sent once and answered once.

use ringlog::protocol::frame::{read_response, write_request};
use ringlog::protocol::writer::Writer;
use ringlog::protocol::{Request, Response};
use std::io::{Read, Write};
use std::net::TcpStream;

use super::clients::STEP;

pub struct Wire {
    stream: TcpStream,
    client_id: &'static str,
    sent: i32,
    received: i32,
}

impl Wire {
    pub fn connect(address: &str, client_id: &'static str) -> Wire {
        let stream = TcpStream::connect(address).expect("the broker listens");
        stream.set_nodelay(true).expect("a socket option");
        stream.set_read_timeout(Some(STEP)).expect("a socket option");
        Wire { stream, client_id, sent: 0, received: 0 }
    }

    pub fn send<'a, Q: Request<'a>>(&mut self, version: i16, request: &Q) {
        let mut writer = Writer::new();
        write_request(&mut writer, self.sent, Some(self.client_id), version, request);
        self.sent += 1;
        self.stream.write_all(writer.bytes()).expect("the broker reads");
    }

    /// The next reply, which must be to a request of this kind and version.
    pub fn receive<'a, R: Response<'a>>(&mut self, version: i16) -> R {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).expect("a reply comes");
        let mut frame = vec![0; u32::from_be_bytes(length) as usize];
        self.stream.read_exact(&mut frame).expect("the reply is whole");
        // Replies borrow from their frame; a test's few frames may live as long as its process.
        let (correlation_id, response) = read_response(frame.leak(), version).expect("a reply of this version");
        assert_eq!(correlation_id, self.received, "replies are in the order of their requests");
        self.received += 1;
        response
    }

    pub fn ask<'a, Q: Request<'a>>(&mut self, version: i16, request: &Q) -> Q::Response {
        self.send(version, request);
        self.receive(version)
    }
}
