//! The broker's counters as it shows them on standard error, read back.

use std::collections::BTreeMap;

/// What the line begins with that ends a report.
pub const END: &str = "\ncounters shown cores=";

/// One report: the values of all cores by group and name.
#[derive(Clone, Debug)]
pub struct Counters {
    cores: Vec<BTreeMap<String, u64>>,
}

impl Counters {
    /// The last report in `log`, which has one.
    pub fn last_of(log: &str) -> Counters {
        let end = log.rfind(END).expect("a report was shown");
        let count = log[end + END.len()..].lines().next().and_then(|count| count.parse().ok()).expect("a number");
        let mut cores = vec![BTreeMap::new(); count];
        // Later lines of a core stand for earlier ones: reports are never mixed.
        for line in log[..end].lines() {
            let Some((core, rest)) = line.strip_prefix("counters core=").and_then(|rest| rest.split_once(' ')) else {
                continue;
            };
            let (group, values) = rest.split_once(": ").expect("a group before its values");
            let core: usize = core.parse().expect("a number");
            for value in values.split_whitespace() {
                let (name, value) = value.split_once('=').expect("NAME=VALUE");
                cores[core].insert(format!("{group}.{name}"), value.parse().expect("a number"));
            }
        }
        Counters { cores }
    }

    /// The value of `name`, as in `sent.splice_bytes`, of all cores together.
    pub fn sum(&self, name: &str) -> u64 {
        self.cores.iter().map(|core| core.get(name).unwrap_or_else(|| panic!("{name} is not counted"))).sum()
    }

    /// What each core has counted of `name`.
    pub fn each(&self, name: &str) -> Vec<u64> {
        self.cores.iter().map(|core| core[name]).collect()
    }

    /// How much `name` has grown since `earlier`.
    pub fn since(&self, earlier: &Counters, name: &str) -> u64 {
        self.sum(name) - earlier.sum(name)
    }
}
