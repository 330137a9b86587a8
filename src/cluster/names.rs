//! Rules for names of topics. Source: Kafka `Topic.validate`, `Topic.hasCollision`.

use crate::base::limits::TOPIC_NAME_BYTES_MAX;

/// Where groups keep their offsets.
pub const CONSUMER_OFFSETS: &str = "__consumer_offsets";
/// Where transaction coordinators keep their state.
pub const TRANSACTION_STATE: &str = "__transaction_state";
/// The log of commands; no topic of the image.
pub const CLUSTER_METADATA: &str = "__cluster_metadata";

/// Whether the broker itself writes the topic; clients' tools hide such ones.
pub fn is_internal(name: &str) -> bool {
    matches!(name, CONSUMER_OFFSETS | TRANSACTION_STATE)
}

/// Says whether a topic may have this name.
///
/// # Errors
/// The reason, for the one who asked.
pub fn validate(name: &str) -> Result<(), String> {
    let invalid = |why: &str| Err(format!("Topic name is invalid: {why}"));
    if name.is_empty() {
        return invalid("it is empty");
    }
    if name == "." || name == ".." {
        return invalid("'.' and '..' are not allowed");
    }
    if name.len() > TOPIC_NAME_BYTES_MAX {
        return invalid(&format!("it is longer than {TOPIC_NAME_BYTES_MAX} characters"));
    }
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if !name.bytes().all(legal) {
        return invalid(&format!("'{name}' has characters other than ASCII letters, digits, '.', '_' and '-'"));
    }
    Ok(())
}

/// The name with '.' turned into '_': metrics of two topics with the same folded name could not be told apart.
/// `None` where the name has neither, and so collides with no other.
pub fn folded(name: &str) -> Option<String> {
    name.contains(['.', '_']).then(|| name.replace('.', "_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kafkas() {
        for name in ["a", "orders-2.v1_x", "__consumer_offsets", "...", "A", &"x".repeat(249)] {
            assert_eq!(validate(name), Ok(()), "{name}");
        }
        for name in ["", ".", "..", "a b", "a/b", "ű", "a\0", "a:b", &"x".repeat(250)] {
            assert!(validate(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn names_that_differ_in_dots_and_underscores_fold_to_one() {
        assert_eq!(folded("a.b_c"), folded("a_b.c"));
        assert_ne!(folded("a.b"), folded("a.c"));
        assert_eq!(folded("a-b"), None);
    }
}
