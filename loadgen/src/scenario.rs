//! What load to make: one flat set of keys, from a TOML file, with `key=value` on the command line over it.
//!
//! Pure; it knows neither brokers nor sockets.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The scenarios that are built in, by name; the files themselves are in `loadgen/scenarios`.
pub const BUILT_IN: &[(&str, &str)] = &[
    ("produce", include_str!("../scenarios/produce.toml")),
    ("produce-large", include_str!("../scenarios/produce-large.toml")),
    ("single", include_str!("../scenarios/single.toml")),
    ("request-rate", include_str!("../scenarios/request-rate.toml")),
    ("pipelined", include_str!("../scenarios/pipelined.toml")),
    ("many-partitions", include_str!("../scenarios/many-partitions.toml")),
    ("catch-up", include_str!("../scenarios/catch-up.toml")),
    ("tail", include_str!("../scenarios/tail.toml")),
    ("end-to-end", include_str!("../scenarios/end-to-end.toml")),
    ("mixed", include_str!("../scenarios/mixed.toml")),
    ("fan-out", include_str!("../scenarios/fan-out.toml")),
    ("connections", include_str!("../scenarios/connections.toml")),
    ("verify", include_str!("../scenarios/verify.toml")),
];

/// A load. Every key has a default, so that a file says only what is special about it.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Scenario {
    /// What the load shows, in a sentence.
    pub shows: String,

    /// Topics; their names are `topic` with a number behind it where there are several.
    pub topics: u32,
    /// Name of the topic. Empty: a new one, deleted afterwards.
    pub topic: String,
    /// Partitions of each topic.
    pub partitions: u32,
    /// Replicas of each partition.
    pub replication: i16,
    /// Configuration of the topics that are made, by Kafka's keys.
    pub topic_config: BTreeMap<String, String>,

    /// Producers, each with connections of its own.
    pub producers: u32,
    /// Produce requests that a connection may have unanswered.
    pub in_flight: usize,
    /// Records a second, all producers together; 0: as fast as answers come (a closed loop).
    pub rate: f64,
    /// How the records of an open loop arrive: `poisson` or `constant`.
    pub arrivals: Arrivals,
    /// Bytes of a record's value: `1024`, `100-2000` (evenly between) or `~500` (exponential with this mean, at most ten times it).
    pub record_bytes: Size,
    /// Records of a batch, at most.
    pub batch_records: usize,
    /// Batches, each of another partition, of one request, at most.
    pub request_partitions: usize,
    /// How long a record of an open loop may wait for others, ms.
    pub linger_ms: f64,
    /// Who must have a batch before it counts: `all`, `leader` or `none`.
    pub acks: Acks,
    pub compression: Compression,
    /// Different keys; the partition follows from the key as Kafka's producers choose it. 0: no keys, partitions in turn.
    pub keys: u64,
    /// How uneven keys are: the exponent of a Zipf distribution; 0: all alike. At 1.0 the first of 1 000 keys
    /// gets 13 % of the records.
    pub key_skew: f64,
    /// Producers have ids and number their batches, so that a retry never doubles one (KIP-98).
    pub idempotent: bool,

    /// Consumers of each group.
    pub consumers: u32,
    /// Groups; each reads everything. Their members share the partitions by a fixed plan, without the group protocol.
    pub groups: u32,
    /// Where consumers begin: `latest` or `earliest`.
    pub start: Start,
    /// At the end of what there was at the start consumers begin anew, instead of waiting for more.
    pub repeat: bool,
    /// Records that are there before consumers start, MB of values, all partitions together.
    pub prefill_mb: f64,
    /// Bytes of a partition that one Fetch may bring, at most.
    pub fetch_bytes: i32,
    /// Bytes that a Fetch waits for, and for how long.
    pub fetch_min_bytes: i32,
    pub fetch_wait_ms: i32,

    /// Connections that do nothing.
    pub idle_connections: u32,
    /// Connections that send one byte a second of a request that never ends.
    pub slow_connections: u32,

    /// How long is measured, after `warmup_seconds` that are not.
    pub seconds: f64,
    pub warmup_seconds: f64,
    /// Records carry producer, number and checksum, and consumers look for what is lost, doubled, out of order or changed.
    pub verify: bool,
    /// How long answers are waited for at the end, and how long the broker may be away before a verified run gives up on it.
    pub patience_seconds: f64,
    /// Threads, each on a CPU of its own.
    pub threads: usize,
}

impl Default for Scenario {
    fn default() -> Scenario {
        Scenario {
            shows: String::new(),
            topics: 1,
            topic: String::new(),
            partitions: 4,
            replication: 1,
            topic_config: BTreeMap::new(),
            producers: 0,
            in_flight: 5,
            rate: 0.0,
            arrivals: Arrivals::Poisson,
            record_bytes: Size::Fixed(1024),
            batch_records: 64,
            request_partitions: 1,
            linger_ms: 0.0,
            acks: Acks::All,
            compression: Compression::None,
            keys: 0,
            key_skew: 0.0,
            idempotent: false,
            consumers: 0,
            groups: 1,
            start: Start::Latest,
            repeat: false,
            prefill_mb: 0.0,
            fetch_bytes: 1 << 20,
            fetch_min_bytes: 1,
            fetch_wait_ms: 500,
            idle_connections: 0,
            slow_connections: 0,
            seconds: 10.0,
            warmup_seconds: 3.0,
            verify: false,
            patience_seconds: 30.0,
            threads: 1,
        }
    }
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Arrivals {
    Poisson,
    Constant,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Start {
    Earliest,
    Latest,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Acks {
    All,
    Leader,
    None,
}

impl Acks {
    /// As Produce has it.
    pub fn wire(self) -> i16 {
        match self {
            Acks::All => -1,
            Acks::Leader => 1,
            Acks::None => 0,
        }
    }
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

/// Bytes of a value, fixed or drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "SizeText", into = "String")]
pub enum Size {
    Fixed(usize),
    /// Evenly between, both included.
    Between(usize, usize),
    /// Exponential with this mean, at most ten times it.
    Around(usize),
}

/// As it stands in a file: a number or a text.
#[derive(Deserialize)]
#[serde(untagged)]
enum SizeText {
    Number(usize),
    Text(String),
}

impl TryFrom<SizeText> for Size {
    type Error = String;

    fn try_from(text: SizeText) -> Result<Size, String> {
        let text = match text {
            SizeText::Number(bytes) => return Ok(Size::Fixed(bytes)),
            SizeText::Text(text) => text,
        };
        let number = |text: &str| {
            text.parse().map_err(|_| format!("{text:?} is no number of bytes; write 1024, \"100-2000\" or \"~500\""))
        };
        if let Some(mean) = text.strip_prefix('~') {
            return Ok(Size::Around(number(mean)?));
        }
        match text.split_once('-') {
            None => Ok(Size::Fixed(number(&text)?)),
            Some((least, most)) => {
                let (least, most) = (number(least)?, number(most)?);
                if least <= most { Ok(Size::Between(least, most)) } else { Err(format!("{least} is above {most}")) }
            }
        }
    }
}

impl From<Size> for String {
    fn from(size: Size) -> String {
        match size {
            Size::Fixed(bytes) => bytes.to_string(),
            Size::Between(least, most) => format!("{least}-{most}"),
            Size::Around(mean) => format!("~{mean}"),
        }
    }
}

impl Size {
    pub fn draw(self, random: &mut fastrand::Rng) -> usize {
        match self {
            Size::Fixed(bytes) => bytes,
            Size::Between(least, most) => random.usize(least..=most),
            Size::Around(mean) => {
                let drawn = -(1.0 - random.f64()).ln() * mean as f64;
                (drawn as usize).min(10 * mean)
            }
        }
    }

    pub fn least(self) -> usize {
        match self {
            Size::Fixed(bytes) | Size::Between(bytes, _) => bytes,
            Size::Around(_) => 0,
        }
    }

    /// On average.
    pub fn mean(self) -> f64 {
        match self {
            Size::Fixed(bytes) | Size::Around(bytes) => bytes as f64,
            Size::Between(least, most) => (least + most) as f64 / 2.0,
        }
    }
}

impl Scenario {
    /// The scenario of this name or in this file, with `overrides` (`key=value`) over it, and its name.
    ///
    /// # Errors
    /// Says what is wrong with which key, or which scenarios there are.
    pub fn load(name_or_file: &str, overrides: &[String]) -> Result<(String, Scenario), String> {
        let built_in = BUILT_IN.iter().find(|(name, _)| *name == name_or_file);
        let (name, text) = match built_in {
            Some((name, text)) => ((*name).to_owned(), (*text).to_owned()),
            None if name_or_file.ends_with(".toml") => {
                let text = std::fs::read_to_string(name_or_file)
                    .map_err(|error| format!("{name_or_file}: {error}; give a scenario's name or a TOML file"))?;
                let stem =
                    std::path::Path::new(name_or_file).file_stem().map(|stem| stem.to_string_lossy().into_owned());
                (stem.unwrap_or_else(|| "scenario".to_owned()), text)
            }
            None => {
                let names: Vec<&str> = BUILT_IN.iter().map(|(name, _)| *name).collect();
                return Err(format!(
                    "no scenario {name_or_file:?}: there are {}; or name a file that ends in .toml",
                    names.join(", ")
                ));
            }
        };
        let mut table: toml::Table = text.parse().map_err(|error| format!("{name}: {error}"))?;
        for text in overrides {
            let (key, value) = text
                .split_once('=')
                .ok_or_else(|| format!("{text:?} is no key=value; e.g. rate=1000, record_bytes=100-2000"))?;
            let value = match format!("v = {value}").parse::<toml::Table>() {
                Ok(mut parsed) => parsed.remove("v").expect("just parsed"),
                Err(_) => toml::Value::String(value.to_owned()),
            };
            match key.strip_prefix("topic_config.") {
                Some(key) => {
                    let configs = table.entry("topic_config").or_insert_with(|| toml::Value::Table(toml::Table::new()));
                    let value = match value {
                        toml::Value::String(text) => text,
                        _ => text.split_once('=').expect("it has one").1.to_owned(),
                    };
                    configs
                        .as_table_mut()
                        .ok_or("topic_config is no table")?
                        .insert(key.to_owned(), toml::Value::String(value));
                }
                None => {
                    table.insert(key.to_owned(), value);
                }
            }
        }
        // A number with or without a point is the same to a reader.
        for key in ["rate", "linger_ms", "key_skew", "prefill_mb", "seconds", "warmup_seconds", "patience_seconds"] {
            if let Some(value) = table.get_mut(key)
                && let Some(whole) = value.as_integer()
            {
                *value = toml::Value::Float(whole as f64);
            }
        }
        let scenario: Scenario = table.try_into().map_err(|error| format!("{name}: {error}"))?;
        scenario.check().map_err(|error| format!("{name}: {error}"))?;
        Ok((name, scenario))
    }

    /// Whether what the keys say goes together.
    fn check(&self) -> Result<(), String> {
        let wanted = |holds: bool, what: &str| if holds { Ok(()) } else { Err(what.to_owned()) };
        wanted(self.producers + self.consumers > 0, "nothing to do: producers and consumers are both 0")?;
        wanted((1..=10_000).contains(&self.topics), "topics is 1 to 10000")?;
        wanted((1..=1_000_000).contains(&self.partitions), "partitions is 1 to 1000000")?;
        wanted((1..=1024).contains(&self.threads), "threads is 1 to 1024")?;
        wanted(self.in_flight >= 1, "in_flight is 1 or more")?;
        wanted((1..=100_000).contains(&self.batch_records), "batch_records is 1 to 100000")?;
        wanted(self.request_partitions >= 1, "request_partitions is 1 or more")?;
        wanted(self.groups >= 1, "groups is 1 or more")?;
        wanted(self.rate >= 0.0 && self.rate.is_finite(), "rate is 0 or more")?;
        wanted(self.key_skew >= 0.0 && self.key_skew <= 10.0, "key_skew is 0 to 10")?;
        wanted(self.seconds > 0.0 && self.warmup_seconds >= 0.0, "seconds is above 0, warmup_seconds 0 or more")?;
        wanted(self.fetch_bytes >= 1, "fetch_bytes is 1 or more")?;
        wanted(!self.idempotent || self.acks == Acks::All, "idempotent needs acks = \"all\"")?;
        wanted(
            !self.idempotent || self.in_flight <= 5,
            "idempotent allows in_flight up to 5: brokers remember five batches",
        )?;
        let marked = crate::mark::MARK_BYTES;
        wanted(
            !self.is_marked() || self.record_bytes.least() >= marked,
            &format!(
                "record_bytes must be {marked} or more: with verify, or with producers beside consumers, each record carries who sent it and when"
            ),
        )?;
        wanted(!self.verify || (self.producers > 0 && self.consumers > 0), "verify needs producers and consumers")?;
        wanted(
            !self.verify || self.acks != Acks::None,
            "verify needs acks: nobody knows which records of acks=none arrived",
        )?;
        wanted(!self.verify || !self.repeat, "verify and repeat exclude each other")
    }

    /// Whether records carry who sent them, and when: what verification and end-to-end latency need.
    pub fn is_marked(&self) -> bool {
        self.verify || (self.producers > 0 && self.consumers > 0 && self.start == Start::Latest)
    }

    /// Whether producers keep a rate of their own, whatever the broker answers.
    pub fn is_open_loop(&self) -> bool {
        self.rate > 0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_scenario_loads_and_says_what_it_shows() {
        for (name, _) in BUILT_IN {
            let (_, scenario) = Scenario::load(name, &[]).expect(name);
            assert!(!scenario.shows.is_empty(), "{name}");
        }
    }

    #[test]
    fn built_in_scenarios_are_the_files_of_the_folder() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
        let mut files: Vec<String> = std::fs::read_dir(folder)
            .expect("the folder")
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"))
            .collect();
        let mut names: Vec<String> = BUILT_IN.iter().map(|(name, _)| format!("{name}.toml")).collect();
        files.sort();
        names.sort();
        assert_eq!(files, names);
    }

    fn with(overrides: &[&str]) -> Result<Scenario, String> {
        let overrides: Vec<String> = overrides.iter().map(|&text| text.to_owned()).collect();
        Scenario::load("produce", &overrides).map(|(_, scenario)| scenario)
    }

    #[test]
    fn a_key_on_the_command_line_overrides_the_file() {
        let scenario = with(&["rate=1000", "record_bytes=100-200", "acks=leader", "topic_config.retention.ms=60000"])
            .expect("all known");
        assert_eq!(scenario.rate, 1000.0);
        assert_eq!(scenario.record_bytes, Size::Between(100, 200));
        assert_eq!(scenario.acks, Acks::Leader);
        assert_eq!(scenario.topic_config["retention.ms"], "60000");
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, named) in [
            ("rat=1", "unknown field `rat`"),
            ("rate", "no key=value"),
            ("record_bytes=x", "no number of bytes"),
            ("record_bytes=9-1", "9 is above 1"),
            ("acks=some", "unknown variant `some`"),
            ("in_flight=0", "in_flight is 1 or more"),
            ("producers=0", "nothing to do"),
        ] {
            let error = with(&[text]).expect_err(text);
            assert!(error.contains(named), "{text}: {error}");
        }
        assert!(with(&["idempotent=true", "in_flight=6"]).expect_err("too many").contains("up to 5"));
        assert!(Scenario::load("nothing", &[]).expect_err("none").contains("end-to-end"));
        assert!(
            with(&["verify=true", "consumers=1", "record_bytes=10"])
                .expect_err("short")
                .contains("record_bytes must be")
        );
    }

    #[test]
    fn drawn_sizes_stay_in_their_bounds_and_near_their_mean() {
        let mut random = fastrand::Rng::with_seed(7);
        for size in [Size::Fixed(100), Size::Between(50, 150), Size::Around(100)] {
            let drawn: Vec<usize> = (0..20_000).map(|_| size.draw(&mut random)).collect();
            let mean = drawn.iter().sum::<usize>() as f64 / drawn.len() as f64;
            assert!((mean - size.mean()).abs() < 5.0, "{size:?}: {mean}");
            assert!(drawn.iter().all(|&bytes| bytes >= size.least() && bytes <= 1000));
        }
    }
}
