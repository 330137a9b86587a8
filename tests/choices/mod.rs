//! Random values out of a string of bytes: the same bytes give the same values, fewer bytes give smaller ones.
//!
//! So proptest can shrink a message by shrinking bytes, and needs to know nothing about messages.

use ringlog::base::ids::TopicId;
use std::sync::LazyLock;

/// Strings whose lengths lie at both sides of every step that a length on the wire can take.
static STRINGS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let mut strings: Vec<String> = ["", "a", "topic-1", "ünïcödé ☃ 𝄞", "__consumer_offsets"].map(String::from).into();
    strings.extend([126, 127, 128, 300].map(|length| "x".repeat(length)));
    strings
});

/// Bytes that have not been used for a choice yet. Once they run out, every choice is the smallest.
pub struct Choices<'c> {
    rest: &'c [u8],
}

impl<'c> Choices<'c> {
    pub fn new(bytes: &'c [u8]) -> Choices<'c> {
        Choices { rest: bytes }
    }

    fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.rest.split_first() else { return 0 };
        self.rest = rest;
        first
    }

    pub fn bool(&mut self) -> bool {
        self.byte() % 2 == 1
    }

    /// One time in four, and whenever the bytes have run out.
    pub fn null(&mut self) -> bool {
        self.byte().is_multiple_of(4)
    }

    /// Ends of ranges as often as anything else; callers cut it to their type.
    pub fn number(&mut self) -> i64 {
        match self.byte() % 8 {
            0 => 0,
            1 => -1,
            2 => 1,
            3 => i64::MAX,
            4 => i64::MIN,
            5 => i64::from(i32::MIN),
            6 => i64::from(i16::MAX),
            _ => i64::from_be_bytes([0; 8].map(|_: u8| self.byte())),
        }
    }

    pub fn uuid(&mut self) -> TopicId {
        TopicId([0; 16].map(|_: u8| self.byte()))
    }

    pub fn string(&mut self) -> &'static str {
        let index = usize::from(self.byte()) % STRINGS.len();
        &STRINGS[index]
    }

    pub fn bytes(&mut self) -> &'static [u8] {
        self.string().as_bytes()
    }

    /// Up to three elements.
    pub fn array<T>(&mut self, mut element: impl FnMut(&mut Choices<'c>) -> T) -> Vec<T> {
        let count = self.byte() % 4;
        (0..count).map(|_| element(self)).collect()
    }
}
