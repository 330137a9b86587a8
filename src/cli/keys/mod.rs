//! The table of settings: name, kind, range, default and meaning of each key, stated once.
//!
//! The parser, the range check, `ringlog.example.toml` and the search for a mistyped key all read it. Keys that Kafka has bear
//! Kafka's names and defaults, so that a `server.properties` is found again line by line.

mod broker;
mod foreign;
mod machine;

pub use foreign::{advice, nearest};

use std::fmt;

/// One setting.
pub struct Key {
    /// Its path in the file; the dots are TOML's own, so `[log]` with `retention.ms` is the same key.
    pub name: &'static str,
    pub kind: Kind,
    /// As TOML text. `None`: there is none, and `doc` says what happens then.
    pub default: Option<&'static str>,
    /// Whole sentences, one line each in the file.
    pub doc: &'static str,
    /// May be set for single cores as well.
    pub per_core: bool,
}

impl Key {
    const fn per_core(mut self) -> Key {
        self.per_core = true;
        self
    }
}

/// What a key may hold.
#[derive(Clone, Copy)]
pub enum Kind {
    /// `min..=max`, and a multiple of `step`.
    Integer {
        unit: Unit,
        min: i64,
        max: i64,
        step: i64,
    },
    Flag,
    Choice(&'static [&'static str]),
    Text,
    /// An array of texts, or one text with commas.
    List,
}

/// What an integer counts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Also as text with a binary unit: `"64MiB"`.
    Bytes,
    Ms,
    Minutes,
    Hours,
    /// Things named by the key itself.
    Count,
}

/// A value of a kind.
#[derive(Clone, PartialEq, Debug)]
pub enum Value {
    Integer(i64),
    Flag(bool),
    Text(String),
    List(Vec<String>),
}

/// A heading of the file and the keys below it.
pub struct Section {
    pub title: &'static str,
    pub keys: &'static [Key],
}

/// All keys, in the order of the file.
pub const SECTIONS: &[Section] = &[
    machine::SERVER,
    machine::CORE,
    machine::JOURNAL,
    broker::NETWORK,
    broker::TOPIC,
    broker::RETENTION,
    broker::GROUP,
    broker::OFFSETS,
    broker::PRODUCERS,
];

/// All keys.
pub fn all() -> impl Iterator<Item = &'static Key> {
    SECTIONS.iter().flat_map(|section| section.keys)
}

/// The key of this exact name.
pub fn find(name: &str) -> Option<&'static Key> {
    all().find(|key| key.name == name)
}

/// The key that `core.N.REST` sets for core N alone: `core.REST`, or `REST` itself, of which each core has its own.
pub fn find_of_core(name: &str) -> Option<(u16, &'static Key)> {
    let (number, rest) = name.strip_prefix("core.")?.split_once('.')?;
    let core = number.parse().ok().filter(|_| number.bytes().all(|byte| byte.is_ascii_digit()))?;
    let named = |key: &&Key| key.name == rest || key.name.strip_prefix("core.") == Some(rest);
    Some((core, all().filter(|key| key.per_core).find(named)?))
}

const fn key(name: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Key {
    Key { name, kind, default: Some(default), doc, per_core: false }
}

const fn optional(name: &'static str, kind: Kind, doc: &'static str) -> Key {
    Key { name, kind, default: None, doc, per_core: false }
}

const fn bytes(min: i64, max: i64) -> Kind {
    Kind::Integer { unit: Unit::Bytes, min, max, step: 1 }
}

const fn ms(min: i64, max: i64) -> Kind {
    Kind::Integer { unit: Unit::Ms, min, max, step: 1 }
}

const fn count(min: i64, max: i64) -> Kind {
    Kind::Integer { unit: Unit::Count, min, max, step: 1 }
}

const INT_MAX: i64 = i32::MAX as i64;
/// About 146 million years: what still adds to a timestamp without overflow.
const LONG_MS_MAX: i64 = i64::MAX / 2;

impl Kind {
    /// The value as this kind holds it: sizes as numbers, lists split.
    ///
    /// # Errors
    /// What is wrong with it, as the end of a sentence that began with key and value.
    pub fn accept(self, value: Value) -> Result<Value, String> {
        match (self, value) {
            (Kind::Integer { min, max, step, .. }, Value::Integer(number)) => {
                if !(min..=max).contains(&number) {
                    return Err(format!("is out of range: {self}"));
                }
                match number % step == 0 {
                    true => Ok(Value::Integer(number)),
                    false => Err(format!("is not a multiple of {step}: {self}")),
                }
            }
            (Kind::Integer { unit: Unit::Bytes, .. }, Value::Text(text)) => match parse_bytes(&text) {
                Some(number) => self.accept(Value::Integer(number)),
                None => Err(format!("is not a size: write a number of bytes, or a text such as \"64MiB\"; {self}")),
            },
            (Kind::Flag, Value::Flag(flag)) => Ok(Value::Flag(flag)),
            (Kind::Choice(names), Value::Text(text)) => match names.contains(&text.as_str()) {
                true => Ok(Value::Text(text)),
                false => Err(format!("is not one of the choices: {self}")),
            },
            (Kind::Text, Value::Text(text)) => Ok(Value::Text(text)),
            (Kind::List, Value::Text(text)) => {
                self.accept(Value::List(text.split(',').map(|item| item.trim().to_owned()).collect()))
            }
            (Kind::List, Value::List(items)) => match items.is_empty() || items.iter().any(String::is_empty) {
                true => Err("has an empty entry, or none".to_owned()),
                false => Ok(Value::List(items)),
            },
            (_, _) => Err(format!("is of the wrong type: {self}")),
        }
    }
}

/// `"64MiB"`, `"64 MiB"` or `"4096"` as bytes; `None` for anything else, or more than an `i64` holds.
fn parse_bytes(text: &str) -> Option<i64> {
    let text = text.trim();
    let (number, shift) = match text.find(|c: char| !c.is_ascii_digit()) {
        None => (text, 0),
        Some(at) => match text[at..].trim() {
            "KiB" => (&text[..at], 10),
            "MiB" => (&text[..at], 20),
            "GiB" => (&text[..at], 30),
            "TiB" => (&text[..at], 40),
            _ => return None,
        },
    };
    number.parse::<i64>().ok()?.checked_mul(1 << shift)
}

/// A size as people write it, where it is a whole number of binary units.
fn human_bytes(bytes: i64) -> Option<String> {
    [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)].into_iter().find_map(|(unit, shift)| {
        (bytes >= 1 << shift && bytes % (1 << shift) == 0).then(|| format!("{} {unit}", bytes >> shift))
    })
}

impl fmt::Display for Kind {
    /// What is allowed, as it stands in the file and in errors.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Kind::Integer { unit, min, max, step } => {
                let bound = |number: i64| match (unit, human_bytes(number)) {
                    (Unit::Bytes, Some(human)) => human,
                    _ if number == i64::MAX => "2^63-1".to_owned(),
                    _ if number == LONG_MS_MAX => "2^62-1".to_owned(),
                    _ => number.to_string(),
                };
                write!(f, "{}{} to {}", unit.prefix(), bound(min), bound(max))?;
                if step != 1 {
                    write!(f, ", in steps of {}", bound(step))?;
                }
                Ok(())
            }
            Kind::Flag => write!(f, "true or false"),
            Kind::Choice(names) => write!(f, "{}", names.join(" | ")),
            Kind::Text => write!(f, "a text"),
            Kind::List => write!(f, "an array of texts, or one text with commas"),
        }
    }
}

impl Unit {
    fn prefix(self) -> &'static str {
        match self {
            Unit::Bytes => "bytes, ",
            Unit::Ms => "ms, ",
            Unit::Minutes => "minutes, ",
            Unit::Hours => "hours, ",
            Unit::Count => "",
        }
    }
}

/// A basic string of TOML.
fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04X}", c as u32)),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

impl fmt::Display for Value {
    /// As TOML text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Integer(number) => write!(f, "{number}"),
            Value::Flag(flag) => write!(f, "{flag}"),
            Value::Text(text) => write!(f, "{}", quoted(text)),
            Value::List(items) => {
                write!(f, "[{}]", items.iter().map(|item| quoted(item)).collect::<Vec<_>>().join(", "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_stands_twice_in_the_table() {
        let mut names: Vec<_> = all().map(|key| key.name).collect();
        names.sort_unstable();
        assert_eq!(names.windows(2).find(|pair| pair[0] == pair[1]), None);
    }

    #[test]
    fn sizes_are_numbers_or_texts_with_a_binary_unit() {
        assert_eq!(parse_bytes("4096"), Some(4096));
        assert_eq!(parse_bytes("64MiB"), Some(64 << 20));
        assert_eq!(parse_bytes(" 1 GiB "), Some(1 << 30));
        for text in ["", "MiB", "-1", "1MB", "1.5GiB", "1 G", "8388608TiB", "é"] {
            assert_eq!(parse_bytes(text), None, "{text}");
        }
    }

    #[test]
    fn values_at_the_bounds_are_taken_and_beyond_them_refused() {
        let kind = Kind::Integer { unit: Unit::Bytes, min: 4, max: 12, step: 4 };
        for (number, taken) in [(3, false), (4, true), (6, false), (12, true), (13, false), (16, false)] {
            assert_eq!(kind.accept(Value::Integer(number)).is_ok(), taken, "{number}");
        }
    }

    #[test]
    fn a_value_of_another_type_is_refused() {
        assert!(Kind::Flag.accept(Value::Integer(1)).is_err());
        assert!(Kind::Text.accept(Value::Flag(true)).is_err());
        assert!(count(0, 9).accept(Value::Text("3".to_owned())).is_err());
        assert!(Kind::List.accept(Value::Text("a,,b".to_owned())).is_err());
    }

    #[test]
    fn texts_are_quoted_as_toml_reads_them() {
        assert_eq!(Value::Text("a\"b\\c\td é".to_owned()).to_string(), r#""a\"b\\c\u0009d é""#);
    }

    #[test]
    fn a_list_may_be_one_text_with_commas() {
        let list = Kind::List.accept(Value::Text("/a, /b".to_owned()));
        assert_eq!(list, Ok(Value::List(vec!["/a".to_owned(), "/b".to_owned()])));
    }
}
