//! What a configuration key is: its name, type, default, the values it takes, and whether Ringlog acts on it.
//!
//! The tables of keys are `topic_keys` and `broker_keys`.

use crate::base::limits::CONFIG_VALUE_BYTES_MAX;

/// Type of a value, with Kafka's number for DescribeConfigs (`DescribeConfigsResponse.ConfigType`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(i8)]
pub enum ValueType {
    Boolean = 1,
    String = 2,
    Int = 3,
    Short = 4,
    Long = 5,
    Double = 6,
    List = 7,
}

/// Which values of a key's type it takes.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Check {
    Any,
    AtLeast(i64),
    /// Both ends included.
    Within(i64, i64),
    /// Both ends included.
    Ratio(f64, f64),
    /// One of these, or for a list: each element one of these.
    OneOf(&'static [&'static str]),
}

/// What Ringlog does with a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Served {
    /// Acts on it.
    Yes,
    /// Topic keys: keeps it and shows it; it changes nothing today, and nothing is lost or hidden by that.
    Stored,
    /// Takes this value alone: any other would promise what is not there.
    Only(&'static str, &'static str),
}

/// When a broker's key may change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Update {
    /// Only in the configuration the process starts with.
    ReadOnly,
    /// While the broker runs, for one broker or for all.
    Dynamic,
}

/// A broker's key that a topic's key falls back to, and the factor from the one's unit to the other's.
pub type Synonym = (&'static str, i64);

/// One row of a table of keys.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct ConfigKey {
    /// Kafka's name; a suffix says the unit (`.ms`, `.bytes`, `.hours`).
    pub name: &'static str,
    pub value_type: ValueType,
    /// `None`: not set unless somebody sets it.
    pub default: Option<&'static str>,
    pub check: Check,
    pub served: Served,
    pub update: Update,
    /// Topic keys: where the default comes from, the first that is set. Empty for broker keys.
    pub synonyms: &'static [Synonym],
    pub documentation: &'static str,
}

impl ConfigKey {
    pub(super) const fn new(
        name: &'static str,
        value_type: ValueType,
        default: &'static str,
        check: Check,
        documentation: &'static str,
    ) -> ConfigKey {
        ConfigKey {
            name,
            value_type,
            default: Some(default),
            check,
            served: Served::Yes,
            update: Update::Dynamic,
            synonyms: &[],
            documentation,
        }
    }

    pub(super) const fn unset(mut self) -> ConfigKey {
        self.default = None;
        self
    }

    pub(super) const fn stored(mut self) -> ConfigKey {
        self.served = Served::Stored;
        self
    }

    pub(super) const fn only(mut self, value: &'static str, why: &'static str) -> ConfigKey {
        self.served = Served::Only(value, why);
        self
    }

    pub(super) const fn read_only(mut self) -> ConfigKey {
        self.update = Update::ReadOnly;
        self
    }

    pub(super) const fn falls_back_to(mut self, synonyms: &'static [Synonym]) -> ConfigKey {
        self.synonyms = synonyms;
        self
    }

    /// Says whether `value` may be set, in words for the one who tried.
    ///
    /// # Errors
    /// The reason, naming key and value.
    pub fn validate(&self, value: &str) -> Result<(), String> {
        if value.len() > CONFIG_VALUE_BYTES_MAX {
            return Err(format!("The value of {} is longer than {CONFIG_VALUE_BYTES_MAX} bytes.", self.name));
        }
        let value = value.trim();
        let invalid = |why: &str| Err(format!("Invalid value {value} for configuration {}: {why}", self.name));
        let in_type = match self.value_type {
            ValueType::Boolean => parse_bool(value).is_some(),
            ValueType::Int => value.parse::<i32>().is_ok(),
            ValueType::Short => value.parse::<i16>().is_ok(),
            ValueType::Long => value.parse::<i64>().is_ok(),
            ValueType::Double => value.parse::<f64>().is_ok_and(f64::is_finite),
            ValueType::String | ValueType::List => true,
        };
        if !in_type {
            return invalid(&format!("not a {:?}", self.value_type).to_lowercase());
        }
        match self.check {
            Check::AtLeast(least) if value.parse::<i64>().is_ok_and(|number| number < least) => {
                return invalid(&format!("must be at least {least}"));
            }
            Check::Within(least, most) if value.parse::<i64>().is_ok_and(|n| n < least || n > most) => {
                return invalid(&format!("must be between {least} and {most}"));
            }
            Check::Ratio(least, most) if value.parse::<f64>().is_ok_and(|n| n < least || n > most) => {
                return invalid(&format!("must be between {least} and {most}"));
            }
            Check::OneOf(known) if !self.is_one_of(value, known) => {
                return invalid(&format!("must be one of {}", known.join(", ")));
            }
            _ => {}
        }
        match self.served {
            Served::Only(only, why) if !value.eq_ignore_ascii_case(only) => invalid(why),
            _ => Ok(()),
        }
    }

    fn is_one_of(&self, value: &str, known: &[&str]) -> bool {
        match self.value_type {
            ValueType::List => elements(value).all(|element| known.contains(&element)),
            _ => known.contains(&value),
        }
    }
}

/// Kafka's booleans: `true` and `false` in any case.
pub fn parse_bool(value: &str) -> Option<bool> {
    let value = value.trim();
    if value.eq_ignore_ascii_case("true") {
        Some(true)
    } else if value.eq_ignore_ascii_case("false") {
        Some(false)
    } else {
        None
    }
}

/// The elements of a list: separated by commas, blanks around them dropped, empty ones too.
pub fn elements(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim).filter(|element| !element.is_empty())
}

/// The name of `keys` that is most like `name`, for the one who mistyped it.
pub fn nearest(keys: &'static [ConfigKey], name: &str) -> &'static str {
    // A name from outside may be long; what lies beyond any key's length decides nothing.
    let name: Vec<u8> = name.bytes().take(64).collect();
    keys.iter().map(|key| key.name).min_by_key(|known| distance(known.as_bytes(), &name)).expect("tables are not empty")
}

/// Levenshtein distance: letters to insert, delete or exchange.
fn distance(left: &[u8], right: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (index, a) in left.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = index + 1;
        for (column, b) in right.iter().enumerate() {
            let exchanged = diagonal + usize::from(a != b);
            diagonal = row[column + 1];
            row[column + 1] = exchanged.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_the_fewest_edits() {
        for (left, right, expected) in [
            ("", "", 0),
            ("abc", "abc", 0),
            ("abc", "abd", 1),
            ("abc", "", 3),
            ("kitten", "sitting", 3),
            ("ab", "ba", 2),
        ] {
            assert_eq!(distance(left.as_bytes(), right.as_bytes()), expected, "{left} {right}");
        }
    }

    #[test]
    fn lists_drop_blanks_and_empty_elements() {
        assert_eq!(elements(" a, b,,c ").collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!(elements("").count(), 0);
    }
}
