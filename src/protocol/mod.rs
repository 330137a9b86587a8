//! The Kafka wire: message definitions, the codecs made from them, the versions we serve. No decision and no I/O.
//!
//! `messages/*.msg` define the messages; `build.rs` turns them into [`messages`]. [`reader`] and [`writer`] are the primitives
//! that the generated code calls, [`frame`] puts headers and lengths around bodies, [`versions`] says what we serve.

pub mod error;
pub mod frame;
pub mod reader;
pub mod versions;
pub mod writer;

/// The messages, one module per API, and [`ApiKey`](messages::ApiKey). Generated from `messages/*.msg`.
pub mod messages {
    include!(concat!(env!("OUT_DIR"), "/messages.rs"));
}

/// What the generated code names.
mod prelude {
    pub use super::error::DecodeError;
    pub use super::messages::ApiKey;
    pub use super::reader::Reader;
    pub use super::writer::{Records, Writer};
    pub use super::{Message, Request, Response};
    pub use crate::base::ids::TopicId;
    pub use std::borrow::Cow;
    pub use std::ops::RangeInclusive;
}

use error::DecodeError;
use messages::ApiKey;
use reader::Reader;
use std::ops::RangeInclusive;
use writer::Writer;

/// What can be read from and written to the wire in a version.
pub trait Message<'a>: Sized {
    /// The versions that are defined; what is served is in [`versions`].
    const VERSIONS: RangeInclusive<i16>;
    /// First version with compact lengths and tagged fields; `None` if there is no such version.
    const FLEXIBLE_FROM: Option<i16>;

    /// Reads the fields of `version`; the others get their defaults. Bytes after the message are left in `reader`.
    ///
    /// # Errors
    /// See [`DecodeError`]: the bytes are not this message.
    fn decode(reader: &mut Reader<'a>, version: i16) -> Result<Self, DecodeError>;

    /// Writes the fields that `version` has and ignores the others. Panics if `version` is not defined.
    fn encode(&self, writer: &mut Writer, version: i16);
}

/// The body of a request.
pub trait Request<'a>: Message<'a> {
    const API: ApiKey;
    type Response: Response<'a>;
}

/// The body of a response.
pub trait Response<'a>: Message<'a> {
    const API: ApiKey;
}
