//! Merges defaults, file and flags into one value for each key, and remembers where it came from.
//!
//! Checks every value against the key table; what values mean to each other is `relations`.

use super::error::StartError;
use super::file;
use super::keys::{self, Key, Value};
use crate::base::exit::Exit;
use std::collections::BTreeMap;
use std::path::Path;

/// Where a value comes from. Later ones override earlier ones.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origin {
    Default,
    /// As it stands in an error: `ringlog.toml line 3`.
    File(String),
    /// As it was typed: `--listen`.
    Flag(String),
}

impl Origin {
    /// Whose fault a wrong value is.
    pub fn exit(&self) -> Exit {
        match self {
            Origin::Flag(_) => Exit::Usage,
            Origin::Default | Origin::File(_) => Exit::Config,
        }
    }

    fn of_core(self, core: u16) -> Origin {
        match self {
            Origin::Default => Origin::Default,
            Origin::File(place) => Origin::File(format!("{place}, for core {core}")),
            Origin::Flag(flag) => Origin::Flag(format!("{flag}, for core {core}")),
        }
    }

    fn text(&self) -> &str {
        match self {
            Origin::Default => "the default",
            Origin::File(place) => place,
            Origin::Flag(flag) => flag,
        }
    }
}

/// A key given on the command line.
#[derive(Clone, PartialEq, Debug)]
pub struct Override {
    /// As in errors.
    pub flag: String,
    pub name: String,
    pub value: Value,
}

/// The text of a profile.
///
/// # Errors
/// There is none of this name.
pub fn profile_text(name: &str) -> Result<&'static str, StartError> {
    ringlog_tuning::profile(name).ok_or_else(|| {
        let names: Vec<&str> = ringlog_tuning::PROFILES.iter().map(|(name, _)| *name).collect();
        StartError::new(Exit::Usage, format!("there is no profile `{name}`: choose {}", names.join(", ")))
    })
}

type Values = BTreeMap<&'static str, (Value, Origin)>;

/// The value of every key that has one.
pub struct Settings {
    values: Values,
    /// What is set for single cores.
    of_cores: BTreeMap<u16, Values>,
}

impl Settings {
    /// Defaults, then the profile and the file at `path` if they are given, then `overrides` in their order.
    ///
    /// # Errors
    /// No such profile, an unreadable file, an unknown key, a value outside its key's range: the first that is found.
    pub fn load(profile: Option<&str>, path: Option<&Path>, overrides: &[Override]) -> Result<Settings, StartError> {
        let mut settings = Settings::defaults();
        if let Some(name) = profile {
            settings.merge_file(&format!("profile {name}"), profile_text(name)?)?;
        }
        if let Some(path) = path {
            let text = std::fs::read_to_string(path).map_err(|error| {
                let advice = "give --config the path of a readable TOML file, or leave it out";
                StartError::new(Exit::Config, format!("cannot read {}: {error}; {advice}", path.display()))
            })?;
            settings.merge_file(&path.display().to_string(), &text)?;
        }
        for Override { flag, name, value } in overrides {
            settings.set(name, value.clone(), Origin::Flag(flag.clone()))?;
        }
        Ok(settings)
    }

    fn defaults() -> Settings {
        let values = keys::all().filter_map(|key| Some((key.name, (default(key)?, Origin::Default))));
        Settings { values: values.collect(), of_cores: BTreeMap::new() }
    }

    fn merge_file(&mut self, file: &str, text: &str) -> Result<(), StartError> {
        let entries = file::read(text)
            .map_err(|fault| StartError::new(Exit::Config, format!("{file} line {}: {}", fault.line, fault.message)))?;
        for entry in entries {
            self.set(&entry.name, entry.value, Origin::File(format!("{file} line {}", entry.line)))?;
        }
        Ok(())
    }

    fn set(&mut self, name: &str, value: Value, origin: Origin) -> Result<(), StartError> {
        let (core, key) = match (keys::find(name), keys::find_of_core(name)) {
            (Some(key), _) => (None, key),
            (None, Some((core, key))) => (Some(core), key),
            (None, None) => return Err(unknown(name, &origin)),
        };
        let shown = value.to_string();
        let value = key.kind.accept(value).map_err(|reason| {
            StartError::new(origin.exit(), format!("`{name}` = {shown} ({}) {reason}", origin.text()))
        })?;
        let (values, origin) = match core {
            None => (&mut self.values, origin),
            Some(core) => (self.of_cores.entry(core).or_default(), origin.of_core(core)),
        };
        values.insert(key.name, (value, origin));
        Ok(())
    }

    /// The settings as they are for one core.
    pub fn of_core(&self, core: u16) -> Settings {
        let mut values = self.values.clone();
        values.extend(self.of_cores.get(&core).cloned().unwrap_or_default());
        Settings { values, of_cores: BTreeMap::new() }
    }

    /// What is set for single cores: the core, the key, value and origin.
    pub fn entries_of_cores(&self) -> impl Iterator<Item = (u16, &'static str, &Value, &Origin)> {
        let cores = self.of_cores.iter();
        cores.flat_map(|(core, values)| values.iter().map(move |(name, (value, origin))| (*core, *name, value, origin)))
    }

    /// Value and origin of a key, `None` where it has no value.
    pub fn entry(&self, name: &'static str) -> Option<(&Value, &Origin)> {
        assert!(keys::find(name).is_some(), "{name} is not in the table");
        self.values.get(name).map(|(value, origin)| (value, origin))
    }

    /// "`key` = value (origin)", to begin an error with. The key has a value.
    pub fn cite(&self, name: &'static str) -> String {
        let (value, origin) = self.entry(name).expect("only keys with a value are cited");
        format!("`{name}` = {value} ({})", origin.text())
    }

    /// The exit code that a wrong value of this key leads to.
    pub fn exit_for(&self, name: &'static str) -> Exit {
        self.entry(name).map_or(Exit::Config, |(_, origin)| origin.exit())
    }

    pub fn integer(&self, name: &'static str) -> Option<i64> {
        self.entry(name).map(|(value, _)| match value {
            Value::Integer(number) => *number,
            other => unreachable!("{name} is not an integer: {other}"),
        })
    }

    pub fn flag(&self, name: &'static str) -> Option<bool> {
        self.entry(name).map(|(value, _)| match value {
            Value::Flag(flag) => *flag,
            other => unreachable!("{name} is not a flag: {other}"),
        })
    }

    pub fn text(&self, name: &'static str) -> Option<&str> {
        self.entry(name).map(|(value, _)| match value {
            Value::Text(text) => text.as_str(),
            other => unreachable!("{name} is not a text: {other}"),
        })
    }

    pub fn list(&self, name: &'static str) -> Option<&[String]> {
        self.entry(name).map(|(value, _)| match value {
            Value::List(items) => items.as_slice(),
            other => unreachable!("{name} is not a list: {other}"),
        })
    }
}

/// The default of a key as a value of its kind.
pub fn default(key: &Key) -> Option<Value> {
    let text = key.default?;
    let value = parse_value(text).expect("defaults in the table are TOML");
    Some(key.kind.accept(value).expect("defaults in the table are within their range"))
}

/// A value in TOML's spelling, `None` if it is not one.
pub fn parse_value(text: &str) -> Option<Value> {
    let mut entries = file::read(&format!("value = {text}")).ok()?;
    match (entries.pop(), entries.is_empty()) {
        (Some(entry), true) if entry.name == "value" => Some(entry.value),
        _ => None,
    }
}

fn unknown(name: &str, origin: &Origin) -> StartError {
    let place = match origin {
        Origin::Default => unreachable!("defaults come from the table"),
        Origin::File(place) | Origin::Flag(place) => place,
    };
    let of_core = name.strip_prefix("core.").and_then(|rest| rest.split_once('.'));
    if of_core.is_some_and(|(number, _)| number.parse::<u16>().is_ok()) {
        let names: Vec<&str> =
            keys::all().filter(|key| key.per_core).map(|key| key.name.trim_start_matches("core.")).collect();
        let message = format!("`{name}` in {place}: what can be set for one core is {}", names.join(", "));
        return StartError::new(origin.exit(), message);
    }
    let message = match (keys::advice(name), keys::nearest(name)) {
        (Some(advice), _) => format!("`{name}` in {place} is a setting of Kafka that Ringlog does not have: {advice}"),
        (None, Some(nearest)) => format!("unknown key `{name}` in {place}: did you mean `{nearest}`?"),
        (None, None) => format!("unknown key `{name}` in {place}: `ringlog config` prints all keys"),
    };
    StartError::new(origin.exit(), message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(text: &str) -> Result<Settings, String> {
        let mut settings = Settings::defaults();
        settings.merge_file("f.toml", text).map_err(|error| error.message)?;
        Ok(settings)
    }

    #[test]
    fn a_flag_overrides_the_file_and_the_file_the_default() {
        let name = "num.partitions";
        assert_eq!(merged("").unwrap().integer(name), Some(1));
        let mut settings = merged("[num]\npartitions = 7").unwrap();
        assert_eq!(settings.cite(name), "`num.partitions` = 7 (f.toml line 2)");
        settings.set(name, Value::Integer(9), Origin::Flag("--set".to_owned())).unwrap();
        assert_eq!(settings.cite(name), "`num.partitions` = 9 (--set)");
    }

    #[test]
    fn a_core_can_have_its_own() {
        let settings = merged("core.busy.poll.us = 5\n[core.3]\nbusy.poll.us = 7\njournal.bytes = \"1GiB\"").unwrap();
        let polls = |core| settings.of_core(core).integer("core.busy.poll.us");
        assert_eq!((polls(0), polls(3)), (Some(5), Some(7)));
        assert_eq!(settings.of_core(3).integer("journal.bytes"), Some(1 << 30));
        assert_eq!(
            settings.of_core(3).cite("core.busy.poll.us"),
            "`core.busy.poll.us` = 7 (f.toml line 3, for core 3)"
        );
        assert_eq!(settings.entries_of_cores().count(), 2);
        let refused = merged("core.3.count = 1").err().unwrap();
        assert!(
            refused
                .starts_with("`core.3.count` in f.toml line 1: what can be set for one core is request.memory.bytes,"),
            "{refused}"
        );
        assert!(merged("core.3.busy.poll.us = -1").err().unwrap().contains("out of range"));
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line_and_the_nearest() {
        assert_eq!(
            merged("\nlog.retentoin.ms = 1").err().unwrap(),
            "unknown key `log.retentoin.ms` in f.toml line 2: did you mean `log.retention.ms`?"
        );
        assert_eq!(
            merged("no.such.thing.here = 1").err().unwrap(),
            "unknown key `no.such.thing.here` in f.toml line 1: `ringlog config` prints all keys"
        );
        assert!(merged("num.io.threads = 8").err().unwrap().contains("`core.count` is their number"));
    }

    #[test]
    fn a_value_out_of_range_is_named_with_key_place_and_range() {
        assert_eq!(
            merged("journal.file.bytes = 4096").err().unwrap(),
            "`journal.file.bytes` = 4096 (f.toml line 1) is out of range: bytes, 8 MiB to 2 GiB, in steps of 1 MiB"
        );
        assert_eq!(
            merged("core.cold.read = \"mmap\"").err().unwrap(),
            "`core.cold.read` = \"mmap\" (f.toml line 1) is not one of the choices: splice | direct"
        );
    }

    #[test]
    fn the_fault_of_a_flag_is_usage_and_of_a_file_is_config() {
        let mut settings = Settings::defaults();
        let error = settings.set("num.partitions", Value::Integer(0), Origin::Flag("--set".to_owned())).unwrap_err();
        assert_eq!(error.exit, Exit::Usage);
        assert_eq!(settings.merge_file("f.toml", "num.partitions = 0").unwrap_err().exit, Exit::Config);
    }
}
