//! Prints settings as TOML: all of them with their defaults (`ringlog.example.toml`), or those in effect (`serve --check`).

use super::keys::{self, Key};
use super::settings::{Origin, Settings};
use std::fmt::Write;

const HEAD: &str = "\
# Every setting of Ringlog with its default. None is needed: `ringlog` alone runs with these.
#
#   ringlog serve --config FILE
#
# Keys that Kafka has bear Kafka's names. A line beginning with `#` and a key is that key's default: take the `#` away
# to change it. The dots are TOML's own: `log.retention.ms = 1` is the same as `retention.ms = 1` below `[log]`.
# Sizes are bytes, or texts such as \"64MiB\". Flags override this file.
#
# This file is printed by `ringlog config`.
";

/// The text of `ringlog.example.toml`.
pub fn example() -> String {
    let mut text = HEAD.to_owned();
    for section in keys::SECTIONS {
        write!(text, "\n\n# ---- {} ----\n", section.title).expect("a String takes all");
        for key in section.keys {
            text.push('\n');
            for line in key.doc.lines() {
                writeln!(text, "# {line}").expect("a String takes all");
            }
            let default = key.default.map(|text| format!(" {text}")).unwrap_or_default();
            writeln!(text, "# ({})\n#{} ={default}", key.kind, spelling(key)).expect("a String takes all");
        }
    }
    text
}

/// Every key that has a value, as TOML, those that are not defaults with their origin.
pub fn effective(settings: &Settings) -> String {
    let mut text = String::new();
    for key in keys::all() {
        let Some((value, origin)) = settings.entry(key.name) else { continue };
        write!(text, "{} = {value}", spelling(key)).expect("a String takes all");
        match origin {
            Origin::Default => text.push('\n'),
            Origin::File(place) | Origin::Flag(place) => writeln!(text, "  # {place}").expect("a String takes all"),
        }
    }
    for (core, name, value, origin) in settings.entries_of_cores() {
        let (rest, Origin::File(place) | Origin::Flag(place)) = (name.trim_start_matches("core."), origin) else {
            unreachable!("no core has a default of its own")
        };
        writeln!(text, "core.{core}.{rest} = {value}  # {place}").expect("a String takes all");
    }
    text
}

/// The name as TOML takes it beside all others: in quotes if it is also the beginning of one, for a key cannot be a table.
fn spelling(key: &Key) -> String {
    let head = format!("{}.", key.name);
    match keys::all().any(|other| other.name.starts_with(&head)) {
        true => format!("\"{}\"", key.name),
        false => key.name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::file;
    use crate::cli::keys::find;
    use crate::cli::settings::default;

    /// `ringlog config > ringlog.example.toml` makes it equal again.
    #[test]
    fn the_example_file_is_what_the_table_says() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/ringlog.example.toml");
        assert!(std::fs::read_to_string(path).unwrap() == example(), "run: ringlog config > ringlog.example.toml");
    }

    #[test]
    fn the_example_with_its_lines_taken_in_is_toml_with_every_default() {
        let is_setting =
            |line: &str| line.starts_with('#') && !line.starts_with("# ") && !line.ends_with('=') && line != "#";
        let text: String =
            example().lines().filter(|line| is_setting(line)).map(|line| format!("{}\n", &line[1..])).collect();
        let entries = file::read(&text).unwrap();
        for entry in &entries {
            let key = find(&entry.name).unwrap();
            assert_eq!(key.kind.accept(entry.value.clone()).ok(), default(key), "{}", entry.name);
        }
        assert_eq!(entries.len(), keys::all().filter(|key| key.default.is_some()).count());
    }

    #[test]
    fn what_is_in_effect_reads_back_as_a_file() {
        let settings = Settings::load(None, None, &[]).unwrap();
        let entries = file::read(&effective(&settings)).unwrap();
        assert_eq!(entries.len(), keys::all().filter(|key| key.default.is_some()).count());
    }
}
