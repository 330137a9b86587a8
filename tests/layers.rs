//! Holds the source against the table of layers in ARCHITECTURE.md: who imports whom, who is pure, where `unsafe` is.
//!
//! Reads text, not syntax: comments and texts are blanked out, then paths are looked for. Test modules follow the same table,
//! but may use the clock, files and threads; a table that tests may break is not one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

struct Layer {
    name: &'static str,
    pure: bool,
    imports: &'static [&'static str],
}

const fn layer(name: &'static str, imports: &'static [&'static str]) -> Layer {
    Layer { name, pure: false, imports }
}

const fn pure(name: &'static str, imports: &'static [&'static str]) -> Layer {
    Layer { name, pure: true, imports }
}

/// ARCHITECTURE.md §3, from the bottom to the top: a layer may import only layers above it in this list.
const LAYERS: &[Layer] = &[
    pure("base", &[]),
    pure("protocol", &["base"]),
    pure("partition", &["base"]),
    pure("group", &["base"]),
    pure("transaction", &["base"]),
    pure("cluster", &["base"]),
    pure("security", &["base"]),
    layer("ports", &["base"]),
    layer("log", &["base", "ports"]),
    layer("shard", &["base", "ports", "log", "partition", "group", "transaction", "cluster"]),
    layer("api", &["base", "ports", "protocol", "group", "security", "cluster", "shard"]),
    layer("runtime", &["base", "ports"]),
    layer("admin", &["base"]),
    layer("net", &["base", "ports", "security", "cluster", "protocol", "shard", "api", "runtime", "admin"]),
    layer(
        "cli",
        &[
            "base",
            "protocol",
            "partition",
            "group",
            "transaction",
            "cluster",
            "security",
            "ports",
            "log",
            "shard",
            "api",
            "runtime",
            "net",
            "admin",
        ],
    ),
];

/// What has no place in a pure layer: runtimes, files, sockets, clocks, threads.
const IMPURE: &[&str] = &[
    "glommio",
    "io_uring",
    "libc",
    "tokio",
    "std::fs",
    "std::net",
    "std::os",
    "std::process",
    "std::thread",
    "Instant",
    "SystemTime",
    "async",
];

/// What belongs to `runtime` alone, of all layers that run on a core: `log` and `shard` must run in the simulator too.
const RUNTIME_ONLY: &[&str] = &["glommio", "io_uring", "libc"];

/// What is wrong with the file at `path` (relative to `src`), each as one line.
fn faults(path: &str, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if !text.starts_with("//!") {
        faults.push(format!("{path}: does not open with `//!`, what it is and what it refuses to be"));
    }
    let code = blank_comments_and_texts(text);
    let head = path.split('/').next().expect("a path has a first part").trim_end_matches(".rs");
    if head == "lib" || head == "main" {
        // They name the layers and start the command line; no layer can import them.
        return faults;
    }
    let Some(layer) = LAYERS.iter().find(|layer| layer.name == head) else {
        faults.push(format!("{path}: `{head}` is not a layer of ARCHITECTURE.md"));
        return faults;
    };
    for import in crate_paths(&code) {
        if import != layer.name && !layer.imports.contains(&import.as_str()) {
            faults.push(format!("{path}: `{}` may not import `{import}`", layer.name));
        }
    }
    let outside_tests = without_test_modules(&code);
    let forbidden = match (layer.pure, layer.name) {
        (true, _) => IMPURE,
        (false, "runtime") => &[],
        (false, _) => RUNTIME_ONLY,
    };
    for word in forbidden.iter().filter(|word| mentions(&outside_tests, word)) {
        faults.push(format!("{path}: `{}` may not use `{word}`", layer.name));
    }
    if layer.name != "runtime" && mentions(&code, "unsafe") {
        faults.push(format!("{path}: `unsafe` outside `runtime`"));
    }
    faults
}

/// The layers that `code` names behind `crate::`, also in groups: `use crate::{base::ids, log}`. And behind `super::super::`,
/// which may lead to the same place.
fn crate_paths(code: &str) -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    for (at, climb) in code.match_indices("super::super::") {
        let name = first_word(&code[at + climb.len()..]);
        paths.extend(name.filter(|name| LAYERS.iter().any(|layer| layer.name == name)));
    }
    for (at, _) in code.match_indices("crate::") {
        // `$crate::` in a macro is this crate too; `my_crate::` is another name.
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = code[at + "crate::".len()..].trim_start();
        match rest.strip_prefix('{') {
            Some(group) => paths.extend(group_heads(group)),
            None => paths.extend(first_word(rest)),
        }
    }
    paths
}

/// First words of the entries of a `use` group whose `{` has been read.
fn group_heads(group: &str) -> Vec<String> {
    let mut heads = Vec::new();
    let (mut depth, mut entry_at) = (0, 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                heads.extend(first_word(&group[entry_at..at]));
                entry_at = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    heads
}

fn first_word(text: &str) -> Option<String> {
    let word: String = text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    (!word.is_empty()).then_some(word)
}

/// Whether `word` (perhaps a path) stands in `code` as a whole, not as a part of a longer name.
fn mentions(code: &str, word: &str) -> bool {
    let part_of_name = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word)
        .any(|(at, _)| !code[..at].ends_with(part_of_name) && !code[at + word.len()..].starts_with(part_of_name))
}

/// `code` without what stands in the braces after `#[cfg(test)]`.
fn without_test_modules(code: &str) -> String {
    let mut kept = String::new();
    let mut rest = code;
    while let Some(at) = rest.find("#[cfg(test)]") {
        kept.push_str(&rest[..at]);
        let item = &rest[at..];
        let end = match (item.find('{'), item.find(';')) {
            (Some(brace), semicolon) if semicolon.is_none_or(|semicolon| brace < semicolon) => {
                end_of_block(item, brace)
            }
            (_, Some(semicolon)) => semicolon + 1,
            (_, None) => item.len(),
        };
        rest = &item[end..];
    }
    kept + rest
}

/// Where the block that opens at `brace` is over.
fn end_of_block(code: &str, brace: usize) -> usize {
    let mut depth = 0;
    for (at, c) in code[brace..].char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 1 => return brace + at + 1,
            '}' => depth -= 1,
            _ => {}
        }
    }
    code.len()
}

/// The source with spaces where comments, strings and characters were. Lines stay lines.
fn blank_comments_and_texts(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = match end_of_noncode(&chars, at) {
            Some(end) => end,
            None => {
                code.push(chars[at]);
                at += 1;
                continue;
            }
        };
        code.extend(chars[at..end].iter().map(|&c| if c == '\n' { '\n' } else { ' ' }));
        at = end;
    }
    code
}

/// If a comment, string or character begins at `at`: where it is over.
fn end_of_noncode(chars: &[char], at: usize) -> Option<usize> {
    let starts = |text: &str| chars[at..].iter().copied().take(text.len()).eq(text.chars());
    let after_name = at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_');
    if starts("//") {
        return Some(chars[at..].iter().position(|&c| c == '\n').map_or(chars.len(), |length| at + length));
    }
    if starts("/*") {
        return Some(end_of_block_comment(chars, at));
    }
    let raw_at = match () {
        _ if after_name => None,
        _ if starts("r\"") || starts("r#") => Some(at + 1),
        _ if starts("br\"") || starts("br#") => Some(at + 2),
        _ => None,
    };
    if let Some(end) = raw_at.and_then(|hashes_at| end_of_raw_string(chars, hashes_at)) {
        return Some(end);
    }
    match chars[at] {
        '"' => Some(end_of_quoted(chars, at + 1, '"')),
        // A lifetime has no second quote: 'a, 'static; a character has one after it or after its escape.
        '\'' if chars.get(at + 1) == Some(&'\\') => Some(end_of_quoted(chars, at + 1, '\'')),
        '\'' if chars.get(at + 2) == Some(&'\'') => Some(at + 3),
        _ => None,
    }
}

fn end_of_block_comment(chars: &[char], start: usize) -> usize {
    let (mut depth, mut at) = (0, start);
    while at < chars.len() {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => (depth, at) = (depth + 1, at + 2),
            ('*', Some('/')) if depth == 1 => return at + 2,
            ('*', Some('/')) => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
    }
    chars.len()
}

/// `None` where it is a raw name (`r#type`) and no string.
fn end_of_raw_string(chars: &[char], hashes_at: usize) -> Option<usize> {
    let hashes = chars[hashes_at..].iter().take_while(|&&c| c == '#').count();
    if chars.get(hashes_at + hashes) != Some(&'"') {
        return None;
    }
    let mut at = hashes_at + hashes + 1;
    while at < chars.len() {
        let closes = chars[at] == '"' && chars[at + 1..].iter().take(hashes).filter(|&&c| c == '#').count() == hashes;
        if closes {
            return Some(at + 1 + hashes);
        }
        at += 1;
    }
    Some(chars.len())
}

fn end_of_quoted(chars: &[char], start: usize, quote: char) -> usize {
    let mut at = start;
    while at < chars.len() {
        match chars[at] {
            '\\' => at += 2,
            c if c == quote => return at + 1,
            _ => at += 1,
        }
    }
    chars.len()
}

/// Every `.rs` file below `dir`.
fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(sources(&path)),
            false if path.extension().is_some_and(|extension| extension == "rs") => found.push(path),
            false => {}
        }
    }
    found
}

/// Layers that can be reached from themselves, or stand before what they import.
fn cycles(layers: &[Layer]) -> Vec<String> {
    let mut rank = BTreeMap::new();
    let mut faults = Vec::new();
    for (index, layer) in layers.iter().enumerate() {
        for import in layer.imports.iter().filter(|import| !rank.contains_key(*import)) {
            faults.push(format!("`{}` imports `{import}`, which does not stand before it", layer.name));
        }
        rank.insert(layer.name, index);
    }
    faults
}

#[test]
fn every_source_file_keeps_to_its_layer() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = sources(&src);
    assert!(files.len() > 10, "only {} files below {}", files.len(), src.display());
    let mut all = Vec::new();
    for file in files {
        let path = file.strip_prefix(&src).unwrap().to_str().unwrap();
        all.extend(faults(path, &fs::read_to_string(&file).unwrap()));
    }
    assert!(all.is_empty(), "\n{}", all.join("\n"));
}

#[test]
fn the_table_has_no_cycle() {
    assert_eq!(cycles(LAYERS), Vec::<String>::new());
}

/// Only where the page lies in the repository; the table there is for people, this one is held.
#[test]
fn the_table_is_the_one_in_architecture_md() {
    let Ok(page) = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("ARCHITECTURE.md")) else { return };
    assert_eq!(table_faults(&page), Vec::<String>::new());
}

/// Rows of the page's table that differ from `LAYERS`.
fn table_faults(page: &str) -> Vec<String> {
    let mut faults = Vec::new();
    for layer in LAYERS {
        let row = page.lines().find(|line| line.starts_with(&format!("| `{}` |", layer.name)));
        let Some(imports) = row.and_then(|row| row.trim_end().trim_end_matches('|').rsplit('|').next()) else {
            faults.push(format!("no row for `{}`", layer.name));
            continue;
        };
        let named: BTreeSet<&str> = imports.split(',').map(str::trim).filter(|name| *name != "–").collect();
        let held: BTreeSet<&str> = layer.imports.iter().copied().collect();
        if named != held && !(named.contains("all") && layer.name == "cli") {
            faults.push(format!("`{}` imports {named:?} on the page and {held:?} in the test", layer.name));
        }
    }
    faults
}

#[test]
fn a_forbidden_import_is_found_in_every_spelling() {
    for line in [
        "use crate::runtime::host;",
        "use crate::{base::ids, runtime::host};",
        "use crate::{\n    base::{error, ids},\n    runtime,\n};",
        "fn f() { crate::runtime::host::check_kernel(); }",
        "pub(in crate::runtime) fn f() {}",
        "use super::super::runtime::host;",
        "#[cfg(test)]\nmod tests { use crate::runtime::host; }",
    ] {
        let found = faults("log/journal.rs", &format!("//! Head.\n{line}\n"));
        assert_eq!(found, ["log/journal.rs: `log` may not import `runtime`"], "{line}");
    }
}

#[test]
fn allowed_imports_comments_and_texts_are_no_faults() {
    for line in [
        "use crate::base::ids;",
        "use crate::log::tail;",
        "use crate::{base::{ids, time}, ports};",
        "// use crate::runtime::host;",
        "/* unsafe /* crate::net */ glommio */",
        "const A: &str = \"crate::net \\\" unsafe\";",
        "const A: &str = r#\"crate::net \" unsafe\"#;",
        "const A: (char, char) = ('\"', '\\''); use crate::base::ids; const B: char = '\"';",
        "fn f<'a>(x: &'a str) -> &'a str { my_crate::runtime(x) }",
    ] {
        assert_eq!(faults("log/journal.rs", &format!("//! Head.\n{line}\n")), Vec::<String>::new(), "{line}");
    }
}

#[test]
fn a_pure_layer_may_not_ask_the_clock_but_its_tests_may() {
    let code = "//! Head.\nfn f() { std::time::Instant::now(); }\n";
    assert_eq!(faults("group/classic.rs", code), ["group/classic.rs: `group` may not use `Instant`"]);
    let tests = "//! Head.\n#[cfg(test)]\nmod tests { fn f() { if true { std::fs::read(\"x\"); } } }\n";
    assert_eq!(faults("group/classic.rs", tests), Vec::<String>::new());
    let after = format!("{tests}async fn g() {{}}\n");
    assert_eq!(faults("group/classic.rs", &after), ["group/classic.rs: `group` may not use `async`"]);
}

#[test]
fn io_uring_and_unsafe_belong_to_runtime() {
    let code = "//! Head.\nfn f() { unsafe { libc::getpid(); } }\n";
    assert_eq!(faults("runtime/disk.rs", code), Vec::<String>::new());
    let expected = ["shard/turn.rs: `shard` may not use `libc`", "shard/turn.rs: `unsafe` outside `runtime`"];
    assert_eq!(faults("shard/turn.rs", code), expected);
    // The lint's name is not the word.
    assert_eq!(faults("shard/turn.rs", "//! Head.\n#![deny(unsafe_code)]\n"), Vec::<String>::new());
}

#[test]
fn a_file_without_a_head_or_a_layer_is_found() {
    assert_eq!(faults("base/ids.rs", "use std::fmt;\n").len(), 1);
    assert_eq!(faults("utils/mod.rs", "//! Head.\n"), ["utils/mod.rs: `utils` is not a layer of ARCHITECTURE.md"]);
}

#[test]
fn a_cycle_in_the_table_is_found() {
    assert_eq!(cycles(&[layer("a", &["b"]), layer("b", &["a"])]).len(), 1);
    assert_eq!(cycles(&[layer("a", &["a"])]).len(), 1);
}

#[test]
fn a_row_of_the_page_that_differs_is_found() {
    let row = |layer: &Layer| format!("| `{}` | x | {} |\n", layer.name, layer.imports.join(", "));
    let page = LAYERS.iter().map(row).collect::<String>().replace("x |  |", "x | – |");
    assert_eq!(table_faults(&page), Vec::<String>::new());
    assert_eq!(table_faults(&page.replace("| `log` | x | base, ports |", "| `log` | x | base |")).len(), 1);
    assert_eq!(table_faults(&page.replace("| `log` |", "| `logs` |")), ["no row for `log`"]);
}
