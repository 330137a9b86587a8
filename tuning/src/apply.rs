//! Writes what `check` would have changed, and keeps what was there, so that it can be taken back.
//!
//! Nothing lasts over a reboot: what is to stay belongs into sysctl.d and udev rules, which `check` leaves to people.

use crate::check::{Change, Finding};
use crate::host::Host;
use serde::{Deserialize, Serialize};

/// What was there before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undo {
    pub values: Vec<Old>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Old {
    pub path: String,
    pub value: String,
}

/// Makes the changes of `findings`. Each is tried; those that failed come back as texts.
pub fn apply(host: &Host, findings: &[Finding]) -> (Undo, Vec<String>) {
    let (mut undo, mut failures) = (Undo::default(), Vec::new());
    for Change { path, value } in findings.iter().flat_map(|finding| &finding.changes) {
        let before = host.chosen(path).or_else(|| host.read(path));
        match (before, std::fs::write(host.path(path), value)) {
            (Some(before), Ok(())) => undo.values.push(Old { path: path.clone(), value: before }),
            (None, Ok(())) => failures.push(format!("{path}: it was written, and what was there before is not known")),
            (_, Err(error)) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                failures.push(format!("{path}: {error}; run it as root"));
            }
            (_, Err(error)) => failures.push(format!("{path}: {error}; this kernel keeps it as it is")),
        }
    }
    (undo, failures)
}

/// Puts back what was there, the last change first. Those that failed come back as texts.
pub fn undo(host: &Host, undo: &Undo) -> Vec<String> {
    let back = |old: &Old| {
        std::fs::write(host.path(&old.path), &old.value).err().map(|error| format!("{}: {error}", old.path))
    };
    undo.values.iter().rev().filter_map(back).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{Wanted, check};

    #[test]
    fn what_is_applied_can_be_taken_back() {
        let root = tempfile::tempdir().expect("a folder");
        for (path, text) in [
            ("proc/sys/net/core/somaxconn", "128"),
            ("sys/kernel/mm/transparent_hugepage/enabled", "[always] madvise never"),
        ] {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().expect("below")).expect("a folder");
            std::fs::write(path, text).expect("written");
        }
        let host = Host::below(root.path());
        let wanted = Wanted { cpus: vec![0], data_dir: "/data".into(), backlog: 500, files: 1, locked_bytes: 0 };
        let (kept, failures) = apply(&host, &check(&host, &wanted, None));
        assert_eq!((kept.values.len(), failures), (2, vec![]));
        assert_eq!(host.read("/proc/sys/net/core/somaxconn").as_deref(), Some("500"));
        let text = toml::to_string(&kept).expect("plain data");
        assert_eq!(undo(&host, &toml::from_str(&text).expect("as it was written")), Vec::<String>::new());
        assert_eq!(host.read("/proc/sys/net/core/somaxconn").as_deref(), Some("128"));
        assert_eq!(host.read("/sys/kernel/mm/transparent_hugepage/enabled").as_deref(), Some("always"));
    }
}
