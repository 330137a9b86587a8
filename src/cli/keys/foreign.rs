//! Names that are not keys: what Kafka has and Ringlog does not need, and which key a mistyped name meant.

use super::all;

/// Settings of Kafka without a counterpart of the same name, and what to do about each. A name with a dot at its end stands for
/// all that begin with it.
const KAFKA_ONLY: &[(&str, &str)] = &[
    ("background.threads", "background work runs on the cores; remove it"),
    ("broker.id", "the key is `node.id`"),
    ("compression.", "batches stay as their producers packed them; remove it"),
    ("controller.quorum.", "Ringlog has no controller process; remove it"),
    ("group.consumer.", "the consumer protocol of KIP-848 is not served; remove it"),
    ("inter.broker.listener.name", "there is one listener; remove it"),
    ("listener.security.protocol.map", "there is one listener; remove it"),
    ("log.cleaner.", "nothing is compacted; remove it"),
    ("log.dir", "the key is `log.dirs`"),
    ("log.index.size.max.bytes", "indexes grow as their segments need; remove it"),
    ("max.connections.per.ip", "connections are bounded all together: `max.connections`"),
    ("max.incremental.fetch.session.cache.slots", "there are no fetch sessions; remove it"),
    ("min.insync.replicas", "a partition has one replica; remove it"),
    ("num.io.threads", "the cores do all I/O: `core.count` is their number"),
    ("num.network.threads", "the cores serve the connections: `core.count` is their number"),
    ("num.recovery.threads.per.data.dir", "each core recovers its own partitions; remove it"),
    ("offsets.topic.replication.factor", "a partition has one replica; remove it"),
    ("process.roles", "there is one kind of process; remove it"),
    ("queued.max.requests", "requests are bounded by memory: `core.request.memory.bytes`"),
    ("replica.", "a partition has one replica; remove it"),
    ("transaction.", "transactions are not served; remove it"),
    ("transactional.id.", "transactions are not served; remove it"),
    ("zookeeper.", "there is no ZooKeeper; remove it"),
];

/// What to do about a name that Kafka knows and Ringlog does not, if it is one.
pub fn advice(name: &str) -> Option<&'static str> {
    let stands_for = |entry: &str| entry == name || entry.ends_with('.') && name.starts_with(entry);
    KAFKA_ONLY.iter().find(|(entry, _)| stands_for(entry)).map(|(_, advice)| *advice)
}

/// The key that `name` was probably meant to be: the same words under another head, or few letters away.
pub fn nearest(name: &str) -> Option<&'static str> {
    // Kafka's topic configs lack the `log.` that the broker's have: `retention.ms` is `log.retention.ms`.
    let under_log = format!("log.{name}");
    if let Some(key) = all().find(|key| key.name == under_log) {
        return Some(key.name);
    }
    // A quarter of the letters, at least two: more would suggest keys that have nothing to do with it.
    let edits_max = (name.chars().count() / 4).max(2);
    all()
        .map(|key| (edits(name, key.name), key.name))
        .filter(|&(edits, _)| edits <= edits_max)
        .min_by_key(|&(edits, _)| edits)
        .map(|(_, name)| name)
}

/// Insertions, deletions, replacements and swaps of neighbours that turn `from` into `to` (optimal string alignment).
fn edits(from: &str, to: &str) -> usize {
    let (from, to): (Vec<char>, Vec<char>) = (from.chars().collect(), to.chars().collect());
    // Rows of the usual table; the one before the last is needed for swaps only.
    let mut before_last = vec![0; to.len() + 1];
    let mut last: Vec<usize> = (0..=to.len()).collect();
    for i in 1..=from.len() {
        let mut row = vec![i; to.len() + 1];
        for j in 1..=to.len() {
            let replaced = last[j - 1] + usize::from(from[i - 1] != to[j - 1]);
            row[j] = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1] {
                row[j] = row[j].min(before_last[j - 2] + 1);
            }
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_count_swaps_as_one() {
        for (from, to, expected) in
            [("", "", 0), ("", "ab", 2), ("ab", "ba", 1), ("kitten", "sitting", 3), ("a", "a", 0)]
        {
            assert_eq!(edits(from, to), expected, "{from} {to}");
        }
    }

    #[test]
    fn mistyped_names_find_their_key() {
        for (typed, key) in [
            ("log.retentoin.ms", "log.retention.ms"),
            ("retention.ms", "log.retention.ms"),
            ("num.partition", "num.partitions"),
            ("journal.size.bytes", "journal.file.bytes"),
            ("listener", "listeners"),
        ] {
            assert_eq!(nearest(typed), Some(key), "{typed}");
        }
        assert_eq!(nearest("colour.of.the.sky"), None);
    }

    #[test]
    fn names_of_kafka_alone_are_no_keys_of_ours() {
        for key in all() {
            assert_eq!(advice(key.name), None, "{}", key.name);
        }
    }

    #[test]
    fn a_family_of_names_has_one_advice() {
        for name in ["log.cleaner.threads", "log.cleaner.min.cleanable.ratio"] {
            assert_eq!(advice(name), Some("nothing is compacted; remove it"), "{name}");
        }
        assert_eq!(advice("log.dir"), Some("the key is `log.dirs`"));
        assert_eq!(advice("log.directory"), None);
    }
}
