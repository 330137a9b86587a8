//! Reads TOML into a flat list of dotted names, each with its value and line. Knows nothing of which names exist.

use super::keys::Value;
use toml::de::{DeTable, DeValue};

/// One name of the file.
#[derive(Debug, PartialEq)]
pub struct Entry {
    /// Tables and dotted keys joined: `[log]` with `retention.ms` is `log.retention.ms`.
    pub name: String,
    pub value: Value,
    /// Counted from 1.
    pub line: usize,
}

/// What is wrong with the text, and where.
#[derive(Debug, PartialEq)]
pub struct Fault {
    /// Counted from 1.
    pub line: usize,
    pub message: String,
}

/// The entries of `text`, in its order.
///
/// # Errors
/// The first place that is not TOML, or holds a value no setting can have, or names a key a second time.
pub fn read(text: &str) -> Result<Vec<Entry>, Fault> {
    let line_at = |offset: usize| text[..offset.min(text.len())].matches('\n').count() + 1;
    let table = DeTable::parse(text).map_err(|error| Fault {
        line: error.span().map_or(1, |span| line_at(span.start)),
        message: error.message().to_owned(),
    })?;
    let mut leaves = Vec::new();
    flatten("", table.get_ref(), &mut leaves);
    // In the order of the file, so that of several faults the first is reported.
    leaves.sort_by_key(|&(_, offset, _)| offset);
    let mut entries: Vec<Entry> = Vec::with_capacity(leaves.len());
    for (name, offset, value) in leaves {
        let line = line_at(offset);
        let value = value.map_err(|message| Fault { line, message: format!("`{name}` {message}") })?;
        // TOML refuses `a.b` twice, but "a.b" in quotes is another key to it and the same to us.
        if let Some(first) = entries.iter().find(|entry| entry.name == name) {
            return Err(Fault { line, message: format!("`{name}` stands in line {} already", first.line) });
        }
        entries.push(Entry { name, value, line });
    }
    Ok(entries)
}

type Leaf = (String, usize, Result<Value, String>);

fn flatten(prefix: &str, table: &DeTable<'_>, leaves: &mut Vec<Leaf>) {
    for (key, value) in table {
        let name = match prefix {
            "" => key.get_ref().to_string(),
            prefix => format!("{prefix}.{}", key.get_ref()),
        };
        match value.get_ref() {
            DeValue::Table(table) => flatten(&name, table, leaves),
            value => leaves.push((name, key.span().start, leaf(value))),
        }
    }
}

fn leaf(value: &DeValue<'_>) -> Result<Value, String> {
    match value {
        DeValue::String(text) => Ok(Value::Text(text.to_string())),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map(Value::Integer)
            .map_err(|_| format!("= {} does not fit into 64 bits", number.as_str())),
        DeValue::Float(_) => Err("is a number with a fraction, which no setting takes".to_owned()),
        DeValue::Boolean(flag) => Ok(Value::Flag(*flag)),
        DeValue::Array(items) => {
            let texts = items.iter().map(|item| item.get_ref().as_str().map(str::to_owned));
            texts.collect::<Option<_>>().map(Value::List).ok_or("holds something other than texts".to_owned())
        }
        DeValue::Datetime(_) => Err("is a date, which no setting takes".to_owned()),
        DeValue::Table(_) => unreachable!("tables are flattened"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, value: Value, line: usize) -> Entry {
        Entry { name: name.to_owned(), value, line }
    }

    #[test]
    fn tables_dots_and_quotes_name_the_same_keys() {
        let expected = |line| vec![entry("log.retention.ms", Value::Integer(5), line)];
        assert_eq!(read("log.retention.ms = 5"), Ok(expected(1)));
        assert_eq!(read("\"log.retention.ms\" = 5"), Ok(expected(1)));
        assert_eq!(read("# head\n[log]\nretention.ms = 5"), Ok(expected(3)));
        assert_eq!(read("[log.retention]\n\n'ms' = 5"), Ok(expected(3)));
    }

    #[test]
    fn entries_have_their_line_and_stand_in_the_files_order() {
        let text = "b = true\na = [\"x\", \"y\"]\n\n[c]\nd = 0x10\n";
        let list = Value::List(vec!["x".to_owned(), "y".to_owned()]);
        let expected = [entry("b", Value::Flag(true), 1), entry("a", list, 2), entry("c.d", Value::Integer(16), 5)];
        assert_eq!(read(text).unwrap(), expected);
    }

    #[test]
    fn a_key_given_twice_in_two_spellings_is_refused() {
        let fault = read("a.b = 1\n\"a.b\" = 2\n").unwrap_err();
        assert_eq!(fault, Fault { line: 2, message: "`a.b` stands in line 1 already".to_owned() });
    }

    #[test]
    fn faults_name_their_line() {
        assert_eq!(read("a = 1\nb = = 2\n").unwrap_err().line, 2);
        assert_eq!(read("a = 1\n\nb = 2020-01-01\n").unwrap_err().line, 3);
        assert_eq!(read("a = 99999999999999999999\n").unwrap_err().line, 1);
        assert_eq!(read("a = [1]\n").unwrap_err().line, 1);
        assert_eq!(read("a = 1\nb = 0.5\n").unwrap_err().line, 2);
    }
}
