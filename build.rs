//! Turns the message definitions of `src/protocol/messages/` into Rust. The parts are in `build/`.

#[path = "build/codec.rs"]
mod codec;
#[path = "build/definition.rs"]
mod definition;
#[path = "build/oracle.rs"]
mod oracle;

use std::path::{Path, PathBuf};
use std::{env, fs};

const MESSAGES: &str = "src/protocol/messages";

fn main() {
    println!("cargo::rerun-if-changed={MESSAGES}");
    println!("cargo::rerun-if-changed=build");
    println!("cargo::rerun-if-changed=build.rs");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let definitions = read(Path::new(MESSAGES));
    write(&out.join("messages.rs"), codec::generate(&definitions));
    // Only `tests/oracle.rs` includes this one.
    write(&out.join("oracle.rs"), oracle::generate(&definitions));
}

/// All definitions, APIs by key and plain structs after them.
fn read(folder: &Path) -> Vec<definition::Definition> {
    let entries = fs::read_dir(folder).expect("the definitions are part of the source");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("readable").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "msg"));
    paths.sort();
    let mut definitions = Vec::new();
    for path in paths {
        let text = fs::read_to_string(&path).expect("readable");
        let definition = definition::parse(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let stem = path.file_stem().and_then(|stem| stem.to_str()).expect("named in ASCII");
        if let Some(key) = definition.key {
            let expected = format!("{key:03}_{}", codec::snake_case(&definition.name));
            assert_eq!(stem, expected, "{} defines another API", path.display());
        }
        definitions.push(definition);
    }
    definitions
}

fn write(path: &Path, text: String) {
    fs::write(path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}
