//! Why bytes are not the message they should be.

use std::fmt;

/// A frame that cannot be read. The client erred; its connection is closed, as Kafka does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DecodeError {
    /// The bytes end before the message does.
    End,
    /// A length below zero, or a string longer than Kafka allows.
    Length,
    /// Null where the version has no null.
    Null,
    /// A varint of more than 32 bits.
    Varint,
    /// A string that is not UTF-8.
    Utf8,
    /// An array that counts more elements than the bytes after it can hold.
    Count,
    /// The decoded message would take more memory than its bytes justify.
    Budget,
    /// A tagged field that does not fill the size it states.
    Tag,
    /// A version without a definition.
    Version,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DecodeError::End => "message ends early",
            DecodeError::Length => "length out of range",
            DecodeError::Null => "null where none is allowed",
            DecodeError::Varint => "varint of more than 32 bits",
            DecodeError::Utf8 => "string is not UTF-8",
            DecodeError::Count => "more elements counted than bytes sent",
            DecodeError::Budget => "message needs too much memory for its size",
            DecodeError::Tag => "tagged field of another size than stated",
            DecodeError::Version => "unknown version",
        })
    }
}

impl std::error::Error for DecodeError {}
