//! Goal: what the fuzzers have found stays mended: every input kept in `fuzz/corpus` goes through its target once more.

#[path = "../fuzz/src/lib.rs"]
mod targets;

use std::path::Path;
use std::{fs, panic};

#[test]
fn every_kept_input_passes_its_target() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let mut bytes = 0;
    for (name, target) in targets::TARGETS {
        let folder = corpus.join(name);
        let mut inputs = 0;
        for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.expect("an entry").path();
            let input = fs::read(&path).expect("an input");
            (inputs, bytes) = (inputs + 1, bytes + input.len());
            let outcome = panic::catch_unwind(|| target(&input));
            assert!(outcome.is_ok(), "cargo run --release --bin {name} -- {}", path.display());
        }
        assert!(inputs > 0, "{} is empty", folder.display());
    }
    assert!(bytes < 300_000, "the corpus in git is for findings and a few of each kind: {bytes} bytes");
}
