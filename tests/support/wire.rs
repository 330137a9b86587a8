//! A client of one connection that speaks the broker's own codec: for what librdkafka has no call for, and for single versions.
//!
//! Knows no retries: a request is sent once and answered once.

use ringlog::protocol::frame::{read_response, write_request};
use ringlog::protocol::messages::ApiKey;
use ringlog::protocol::writer::Writer;
use ringlog::protocol::{Request, Response};
use std::io::{Read, Write};
use std::net::TcpStream;

use super::clients::STEP;

/// One connection to the broker.
pub struct Wire {
    stream: TcpStream,
    correlation_id: i32,
}

/// The frame that answered a request; what is read from it borrows it.
pub struct Answered {
    bytes: Vec<u8>,
    api: ApiKey,
    version: i16,
    correlation_id: i32,
}

impl Wire {
    pub fn connect(address: &str) -> Wire {
        let stream = TcpStream::connect(address).expect("the broker listens");
        stream.set_read_timeout(Some(STEP)).expect("a socket takes a timeout");
        stream.set_nodelay(true).expect("a socket takes the option");
        Wire { stream, correlation_id: 0 }
    }

    /// Sends a request and waits for its answer.
    pub fn call<'a, R: Request<'a>>(&mut self, version: i16, request: &R) -> Answered {
        let mut writer = Writer::new();
        self.correlation_id += 1;
        write_request(&mut writer, self.correlation_id, Some("tests"), version, request);
        self.stream.write_all(writer.bytes()).expect("the broker takes the request");
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).expect("the broker answers");
        let mut bytes = vec![0; u32::from_be_bytes(length) as usize];
        self.stream.read_exact(&mut bytes).expect("the broker answers whole");
        Answered { bytes, api: R::API, version, correlation_id: self.correlation_id }
    }
}

impl Answered {
    pub fn read<'a, R: Response<'a>>(&'a self) -> R {
        assert_eq!(R::API, self.api, "the answer to another request");
        let (correlation_id, response) = read_response(&self.bytes, self.version).expect("the answer can be read");
        assert_eq!(correlation_id, self.correlation_id, "the answer to another request");
        response
    }
}
