//! Turns checked settings and the facts of this machine into the `Config` that the server is started with.
//!
//! Cannot fail: ranges are held by `settings`, relations by `relations`, the machine by `runtime::host`.

use super::keys::{self, Value};
use super::relations::address;
use super::settings::{Origin, Settings};
use crate::base::config::*;
use crate::base::ids::NodeId;
use crate::cluster::configs::broker_key;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What the machine and its data directories decide.
pub struct Facts {
    /// One for each core.
    pub cpus: Vec<usize>,
    pub node_id: i32,
    pub cluster_id: String,
}

/// The configuration in effect.
pub fn config(settings: &Settings, facts: Facts) -> Config {
    let values = Values(settings);
    Config {
        statics: statics(settings),
        server: ServerConfig {
            node_id: NodeId(facts.node_id),
            cluster_id: facts.cluster_id,
            listen: address(settings, "listeners").expect("it has a default"),
            advertise: address(settings, "advertised.listeners"),
            core_listeners: settings.integer("core.listeners.port").map(|port| port as u16),
            balance_interval_ms: settings.integer("core.balance.interval.ms").map(|interval| interval as u64),
            admin: admin(settings),
            data_dirs: data_dirs(settings),
            disk_reserve_bytes: values.u64("disk.reserve.bytes"),
            internal_log_growth_bytes: values.u64("internal.log.growth.bytes"),
        },
        cores: facts.cpus.into_iter().zip(0..).map(|(cpu, index)| core(&settings.of_core(index), cpu, index)).collect(),
        network: network(&values),
        topic: topic(&values),
        group: group(&values),
        offsets: OffsetsConfig {
            partitions: values.i32("offsets.topic.num.partitions"),
            retention_ms: values.u64("offsets.retention.minutes") * MINUTE_MS,
            retention_check_ms: values.u64("offsets.retention.check.interval.ms"),
            metadata_bytes_max: values.u64("offset.metadata.max.bytes") as usize,
        },
    }
}

/// The keys that a Kafka user knows and that were set here, by file or flag.
fn statics(settings: &Settings) -> BTreeMap<String, String> {
    let known = keys::all().filter(|key| broker_key(key.name).is_some());
    let set = known.filter_map(|key| settings.entry(key.name).map(|entry| (key.name, entry)));
    set.filter(|(_, (_, origin))| **origin != Origin::Default)
        .map(|(name, (value, _))| (name.to_owned(), plain(value)))
        .collect()
}

fn plain(value: &Value) -> String {
    match value {
        Value::Integer(number) => number.to_string(),
        Value::Flag(flag) => flag.to_string(),
        Value::Text(text) => text.clone(),
        Value::List(items) => items.join(","),
    }
}

/// Where metrics are served; the text has been checked.
fn admin(settings: &Settings) -> Option<AdminListen> {
    let (_, origin) = settings.entry("admin.listen").expect("it has a default");
    let address = HostPort::parse(settings.text("admin.listen").filter(|text| *text != "none")?);
    Some(AdminListen { address: address.expect("it is checked before"), is_default: *origin == Origin::Default })
}

/// The directories of `log.dirs`.
pub fn data_dirs(settings: &Settings) -> Vec<PathBuf> {
    settings.list("log.dirs").expect("it has a default").iter().map(PathBuf::from).collect()
}

const MINUTE_MS: u64 = 60_000;

/// `settings` are those of this core.
fn core(settings: &Settings, cpu: usize, index: u16) -> CoreConfig {
    let values = Values(settings);
    let dirs = data_dirs(settings);
    CoreConfig {
        cpu,
        accepts: values.flag("core.accept"),
        takes_partitions: values.flag("core.partitions"),
        data_dir: match settings.text("core.data.dir") {
            Some(dir) => PathBuf::from(dir),
            None => dirs[usize::from(index) % dirs.len()].clone(),
        },
        journal: JournalConfig { bytes: values.u64("journal.bytes"), file_bytes: values.u64("journal.file.bytes") },
        request_memory_bytes: values.u64("core.request.memory.bytes"),
        tail_memory_bytes: values.u64("core.tail.memory.bytes"),
        cold_read: match values.text("core.cold.read") {
            "splice" => ColdRead::Splice,
            "direct" => ColdRead::Direct,
            other => unreachable!("not a choice of core.cold.read: {other}"),
        },
        commit_window_us: values.u64("core.commit.window.us"),
        large_batch_bytes: values.u64("core.large.batch.bytes"),
        busy_poll_us: values.u64("core.busy.poll.us"),
        background_shares: values.u32("core.background.shares"),
        io_workers_max: values.u32("core.io.workers"),
    }
}

fn network(values: &Values) -> NetworkConfig {
    NetworkConfig {
        request_bytes_max: values.u64("socket.request.max.bytes") as usize,
        idle_ms_max: values.limit("connections.max.idle.ms"),
        connections_max: values.limit_u32("max.connections"),
        send_buffer_bytes: values.unless_negative("socket.send.buffer.bytes"),
        receive_buffer_bytes: values.unless_negative("socket.receive.buffer.bytes"),
        backlog: values.u32("socket.listen.backlog.size"),
        fetch_bytes_max: values.u64("fetch.max.bytes"),
    }
}

fn topic(values: &Values) -> TopicConfig {
    TopicConfig {
        auto_create: values.flag("auto.create.topics.enable"),
        retention_check_ms: values.u64("log.retention.check.interval.ms"),
    }
}

fn group(values: &Values) -> GroupConfig {
    GroupConfig {
        initial_rebalance_delay_ms: values.u64("group.initial.rebalance.delay.ms"),
        session_timeout_ms_min: values.u64("group.min.session.timeout.ms"),
        session_timeout_ms_max: values.u64("group.max.session.timeout.ms"),
        members_max: values.limit_u32("group.max.size"),
    }
}

/// Settings read as the types of the fields. The ranges of the key table make the conversions safe; each is asserted.
struct Values<'a>(&'a Settings);

impl Values<'_> {
    fn number<T: TryFrom<i64>>(&self, name: &'static str) -> T {
        let number = self.0.integer(name).unwrap_or_else(|| panic!("{name} has a default"));
        T::try_from(number).unwrap_or_else(|_| panic!("the range of {name} fits its field"))
    }

    fn u64(&self, name: &'static str) -> u64 {
        self.number(name)
    }

    fn u32(&self, name: &'static str) -> u32 {
        self.number(name)
    }

    fn i32(&self, name: &'static str) -> i32 {
        self.number(name)
    }

    /// `None` where there is no value, or it is Kafka's "no limit": -1 or the largest `long`.
    fn limit(&self, name: &'static str) -> Option<u64> {
        let number = self.0.integer(name).filter(|&number| number != i64::MAX)?;
        u64::try_from(number).ok()
    }

    /// As `limit`, where Kafka's "no limit" is the largest `int`.
    fn limit_u32(&self, name: &'static str) -> Option<u32> {
        self.unless_negative(name).filter(|&number| number != i32::MAX as u32)
    }

    /// `None` for -1, where Kafka says "the system decides".
    fn unless_negative(&self, name: &'static str) -> Option<u32> {
        let number: i32 = self.number(name);
        u32::try_from(number).ok()
    }

    fn flag(&self, name: &'static str) -> bool {
        self.0.flag(name).expect("flags have defaults")
    }

    fn text(&self, name: &'static str) -> &str {
        self.0.text(name).expect("choices have defaults")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::keys::{self, Kind, Value};
    use crate::cli::settings::{Override, default};
    use crate::log::LogSettings;

    fn resolved(pairs: &[(&str, Value)]) -> Config {
        let overrides: Vec<Override> = pairs
            .iter()
            .map(|(name, value)| Override { flag: "--set".to_owned(), name: (*name).to_owned(), value: value.clone() })
            .collect();
        let settings = Settings::load(None, None, &overrides).unwrap();
        config(&settings, Facts { cpus: vec![0], node_id: 1, cluster_id: "c".to_owned() })
    }

    /// Another value than the default, for a key of each kind.
    fn another(key: &keys::Key) -> Vec<Value> {
        match key.kind {
            Kind::Integer { min, max, step, .. } => [min, min + step, max].map(Value::Integer).to_vec(),
            Kind::Flag => vec![Value::Flag(true), Value::Flag(false)],
            Kind::Choice(names) => names.iter().map(|&name| Value::Text(name.to_owned())).collect(),
            Kind::Text => vec![Value::Text("example:1".to_owned())],
            Kind::List => vec![Value::List(vec!["/other".to_owned()])],
        }
    }

    /// A key nobody reads would be a promise broken silently; a bound that does not fit its field would panic here.
    #[test]
    fn every_key_of_the_table_changes_the_config_at_any_of_its_bounds() {
        // These arrive through `Facts`.
        let elsewhere = ["node.id", "cluster.id", "core.count", "core.cpus"];
        let default = resolved(&[]);
        for key in keys::all().filter(|key| !elsewhere.contains(&key.name)) {
            let changed = another(key).into_iter().any(|value| resolved(&[(key.name, value)]) != default);
            assert!(changed, "{} reaches no field of Config", key.name);
        }
    }

    /// What DescribeConfigs shows of a key that was not set is what is in effect, and whatever the file may say is shown as valid.
    #[test]
    fn the_two_tables_agree_on_defaults_and_bounds() {
        // Where a broker listens and stores is its own affair, and always shown as it is.
        let shown_as_set = ["advertised.listeners", "listeners", "log.dirs", "node.id"];
        let both = keys::all().filter_map(|key| Some((key, broker_key(key.name)?)));
        for (key, shown) in both.filter(|(key, _)| !shown_as_set.contains(&key.name)) {
            assert_eq!(default(key).as_ref().map(plain).as_deref(), shown.default, "{}", key.name);
            for value in another(key) {
                assert_eq!(shown.validate(&plain(&value)), Ok(()), "{}", key.name);
            }
        }
    }

    #[test]
    fn the_log_can_work_with_the_least_that_the_table_allows() {
        let least = ["journal.file.bytes", "core.tail.memory.bytes"].map(|name| match keys::find(name).unwrap().kind {
            Kind::Integer { min, .. } => (name, Value::Integer(min)),
            _ => unreachable!("{name} is a size"),
        });
        let (_, Value::Integer(file_bytes)) = least[0] else { unreachable!("a size") };
        let journal = ("journal.bytes", Value::Integer(4 * file_bytes));
        let settings = LogSettings::of(&resolved(&[least[0].clone(), least[1].clone(), journal]).cores[0]);
        assert_eq!(settings.check(), Ok(()));
    }

    #[test]
    fn minus_one_and_kafkas_largest_numbers_mean_no_limit() {
        let config = resolved(&[("connections.max.idle.ms", Value::Integer(-1))]);
        assert_eq!(config.network.idle_ms_max, None);
        assert_eq!(config.network.connections_max, None);
    }
}
