//! A connection as bytes: for input that no client would send. Knows where frames begin and end, and when the broker has closed.

use ringlog::base::record::BatchBuilder;
use ringlog::protocol::Request;
use ringlog::protocol::frame::write_request;
use ringlog::protocol::messages::api_versions::ApiVersionsRequest;
use ringlog::protocol::messages::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use ringlog::protocol::writer::Writer;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{SystemTime, UNIX_EPOCH};

use super::clients::STEP;

/// A frame with its length in front.
pub fn frame<'a, R: Request<'a>>(correlation_id: i32, version: i16, request: &R) -> Vec<u8> {
    let mut writer = Writer::new();
    write_request(&mut writer, correlation_id, Some("tests"), version, request);
    writer.into_parts().0
}

/// The smallest request there is.
pub fn api_versions(correlation_id: i32) -> Vec<u8> {
    frame(correlation_id, 0, &ApiVersionsRequest::default())
}

/// A batch of one record.
pub fn batch(value: &[u8]) -> Vec<u8> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as i64;
    let mut builder = BatchBuilder::new(now);
    builder.push(now, None, Some(value));
    builder.finish()
}

/// A Produce of one batch for each of these partitions of a topic.
pub fn produce<'a>(topic: &'a str, acks: i16, parts: &[(i32, &'a [u8])]) -> ProduceRequest<'a> {
    let part = |&(index, records): &(i32, &'a [u8])| PartitionProduceData { index, records: Some(records) };
    let topic = TopicProduceData {
        name: topic,
        partition_data: parts.iter().map(part).collect(),
        ..TopicProduceData::default()
    };
    ProduceRequest { acks, timeout_ms: 30_000, topic_data: vec![topic], ..ProduceRequest::default() }
}

pub struct Raw {
    stream: TcpStream,
}

impl Raw {
    pub fn connect(address: &str) -> Raw {
        let stream = TcpStream::connect(address).expect("the broker listens");
        stream.set_read_timeout(Some(STEP)).expect("a socket takes a timeout");
        stream.set_write_timeout(Some(STEP)).expect("a socket takes a timeout");
        stream.set_nodelay(true).expect("a socket takes the option");
        Raw { stream }
    }

    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the broker takes the bytes");
    }

    /// The next frame from the broker, without its length.
    pub fn reply(&mut self) -> Vec<u8> {
        self.try_reply().expect("the broker answers whole")
    }

    pub fn try_reply(&mut self) -> io::Result<Vec<u8>> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let mut bytes = vec![0; u32::from_be_bytes(length) as usize];
        self.stream.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// Sends a request and returns its reply; fails where the broker may close the connection instead.
    pub fn try_ask(&mut self, request: &[u8]) -> io::Result<Vec<u8>> {
        self.try_send(request)?;
        self.try_reply()
    }

    pub fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// The correlation id of the next frame.
    pub fn reply_id(&mut self) -> i32 {
        i32::from_be_bytes(self.reply()[..4].try_into().expect("every reply has one"))
    }

    /// Waits until the broker closes; it must not send anything before that.
    pub fn closed(&mut self, why: &str) {
        match self.stream.read(&mut [0]) {
            Ok(0) => {}
            Ok(_) => panic!("{why}: the broker answered"),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            Err(error) => panic!("{why}: the broker did not close: {error}"),
        }
    }
}
