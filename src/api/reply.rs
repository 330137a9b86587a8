//! From a response to the pieces that leave by a socket.

use crate::base::time::Nanos;
use crate::ports::Piece;
use crate::protocol::Response;
use crate::protocol::frame::write_response;
use crate::protocol::writer::Writer;
use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;

/// Names a request to the connection it came by.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Tag {
    pub connection: u64,
    /// Counted from 0 on its connection: replies leave in this order.
    pub sequence: u64,
    /// Bytes of the request that count as held until it is finished.
    pub bytes: usize,
    /// Its API, as the wire has it.
    pub key: i16,
    /// When it began, where it is timed.
    pub began: Option<Nanos>,
}

/// A request that is done.
pub struct Finished<F> {
    pub tag: Tag,
    pub reply: Reply<F>,
}

/// A reply's bytes. One without records is one piece.
pub type Pieces<F> = SmallVec<[Piece<F>; 1]>;

/// What the client gets.
pub enum Reply<F> {
    Frame {
        pieces: Pieces<F>,
        /// The error codes in it.
        errors: Vec<i16>,
    },
    /// Nothing: Produce with acks=0.
    Nothing,
    /// The connection is closed: what the client did cannot be told in a reply.
    Close(&'static str),
}

impl<F> Reply<F> {
    /// Encodes a response that has no records.
    pub fn encode<'a, R: Response<'a>>(correlation_id: i32, version: i16, response: &R) -> Reply<F> {
        let mut writer = Writer::new();
        write_response(&mut writer, correlation_id, version, response);
        Reply::encoded(writer)
    }

    /// Encodes a response; `records` are what belongs into its holes, in order.
    pub fn with_records<'a, R: Response<'a>>(
        correlation_id: i32,
        version: i16,
        response: &R,
        records: Vec<Vec<Piece<F>>>,
    ) -> Reply<F> {
        let mut writer = Writer::new();
        write_response(&mut writer, correlation_id, version, response);
        let errors = writer.take_errors();
        Reply::Frame { pieces: splice(writer, records), errors }
    }

    /// A frame that is encoded already.
    pub fn encoded(mut writer: Writer) -> Reply<F> {
        let errors = writer.take_errors();
        Reply::Frame { pieces: splice(writer, vec![]), errors }
    }
}

/// Memory that frames of small replies share.
const BLOCK_BYTES: usize = 4 << 10;
/// A longer frame has memory of its own.
const SHARED_FRAME_BYTES_MAX: usize = 512;

/// Makes frames of replies that are many and small. Each is cut from a block that others share: it takes no memory of its own, which among
/// a thousand requests that wait for the same commit nobody finds in a cache again. A reply that is not read keeps its block.
#[derive(Default)]
pub struct Frames {
    /// Of no meaning between calls; keeps its memory.
    writer: Writer,
    block: BytesMut,
}

impl Frames {
    /// Encodes a response that has no records.
    pub fn encode<'a, F, R: Response<'a>>(&mut self, correlation_id: i32, version: i16, response: &R) -> Reply<F> {
        self.writer.clear();
        write_response(&mut self.writer, correlation_id, version, response);
        let frame = self.writer.bytes();
        if frame.len() > SHARED_FRAME_BYTES_MAX {
            return Reply::encoded(std::mem::take(&mut self.writer));
        }
        if self.block.capacity() < frame.len() {
            self.block = BytesMut::with_capacity(BLOCK_BYTES);
        }
        self.block.extend_from_slice(frame);
        let piece = Piece::Memory(self.block.split().freeze());
        Reply::Frame { pieces: Pieces::from_buf([piece]), errors: self.writer.take_errors() }
    }
}

fn splice<F>(writer: Writer, records: Vec<Vec<Piece<F>>>) -> Pieces<F> {
    let (bytes, holes) = writer.into_parts();
    let bytes = Bytes::from(bytes);
    assert_eq!(holes.len(), records.len(), "each hole has its records");
    if holes.is_empty() {
        return Pieces::from_buf([Piece::Memory(bytes)]);
    }
    let mut pieces = Pieces::with_capacity(2 * holes.len() + 1);
    let mut from = 0;
    for (hole, records) in holes.iter().zip(records) {
        pieces.push(Piece::Memory(bytes.slice(from..hole.at)));
        assert_eq!(records.iter().map(Piece::bytes).sum::<u64>(), hole.bytes as u64);
        pieces.extend(records);
        from = hole.at;
    }
    pieces.push(Piece::Memory(bytes.slice(from..)));
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::messages::HeartbeatResponse;
    use crate::protocol::messages::produce::{ProduceResponse, TopicProduceResponse};

    fn memory(reply: Reply<()>) -> (Bytes, Vec<i16>) {
        let Reply::Frame { mut pieces, errors } = reply else { panic!("a frame") };
        let Some(Piece::Memory(bytes)) = pieces.pop() else { panic!("of memory") };
        assert!(pieces.is_empty());
        (bytes, errors)
    }

    #[test]
    fn frames_that_share_a_block_are_what_each_is_by_itself() {
        let mut frames = Frames::default();
        let long = "t".repeat(SHARED_FRAME_BYTES_MAX);
        let mut kept = Vec::new();
        for correlation_id in 0..300 {
            let response = HeartbeatResponse { error_code: (correlation_id % 3) as i16, ..Default::default() };
            let expected = memory(Reply::encode(correlation_id, 4, &response));
            kept.push((memory(frames.encode(correlation_id, 4, &response)), expected));
            if correlation_id % 50 == 0 {
                let topic = TopicProduceResponse { name: &long, ..Default::default() };
                let response = ProduceResponse { responses: vec![topic], ..Default::default() };
                let expected = memory(Reply::encode(correlation_id, 9, &response));
                kept.push((memory(frames.encode(correlation_id, 9, &response)), expected));
            }
        }
        for (shared, expected) in kept {
            assert_eq!(shared, expected);
        }
    }
}
