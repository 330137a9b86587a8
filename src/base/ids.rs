//! Ids as types of their own, so that a core is never taken for a partition or a node.

use std::fmt;

/// Position of a record in its partition: dense, from 0, never reused for other bytes.
pub type Offset = i64;

/// A broker of the cluster, as clients see it (`node.id`). At least 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct NodeId(pub i32);

/// A core of this process, counted from 0 in the order of the CPUs it runs on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct CoreIndex(pub u16);

/// A topic for as long as it lives; a topic made again under the same name has another (KIP-516).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct TopicId(pub [u8; 16]);

impl TopicId {
    /// "No topic": what the wire sends where an id is absent.
    pub const ZERO: TopicId = TopicId([0; 16]);
    /// The cluster's own metadata log; Kafka's id for `__cluster_metadata`.
    pub const METADATA: TopicId = TopicId([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);

    /// Reads the text form that `Display` writes: 22 characters of unpadded base64url.
    pub fn parse(text: &str) -> Option<TopicId> {
        let text = text.as_bytes();
        if text.len() != 22 {
            return None;
        }
        let mut bits: u128 = 0;
        for (index, &byte) in text.iter().enumerate() {
            let value = BASE64URL.iter().position(|&c| c == byte)? as u128;
            // 21 characters of 6 bits are 126; the last one holds the remaining 2 bits and four zeros.
            match index {
                21 if value & 0b1111 != 0 => return None,
                21 => bits = bits << 2 | value >> 4,
                _ => bits = bits << 6 | value,
            }
        }
        Some(TopicId(bits.to_be_bytes()))
    }
}

const BASE64URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

impl fmt::Display for TopicId {
    /// Kafka's text form of a UUID: base64url without padding, 22 characters.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = u128::from_be_bytes(self.0);
        for index in 0..21 {
            let value = (bits >> (122 - 6 * index)) & 63;
            write!(f, "{}", BASE64URL[value as usize] as char)?;
        }
        write!(f, "{}", BASE64URL[((bits & 3) << 4) as usize] as char)
    }
}

impl fmt::Debug for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One partition of one topic, for as long as that topic lives.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct PartitionId {
    pub topic: TopicId,
    /// Counted from 0 within the topic.
    pub index: i32,
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_id_reads_what_it_writes() {
        for bytes in [[0; 16], [0xff; 16], *b"0123456789abcdef", TopicId::METADATA.0] {
            let id = TopicId(bytes);
            assert_eq!(TopicId::parse(&id.to_string()), Some(id));
        }
    }

    #[test]
    fn topic_id_has_kafkas_text_form() {
        // Kafka's Uuid.METADATA_TOPIC_ID prints as this.
        assert_eq!(TopicId::METADATA.to_string(), "AAAAAAAAAAAAAAAAAAAAAQ");
    }

    #[test]
    fn topic_id_of_wrong_length_or_alphabet_is_refused() {
        for text in [
            "",
            "A",
            "AAAAAAAAAAAAAAAAAAAAA",
            "AAAAAAAAAAAAAAAAAAAAAAA",
            "AAAAAAAAAAAAAAAAAAAA+A",
            "AAAAAAAAAAAAAAAAAAAAAB",
        ] {
            assert_eq!(TopicId::parse(text), None, "{text}");
        }
    }
}
