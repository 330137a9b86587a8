//! The settings of a broker after all sources are merged: plain values with units in their names.
//!
//! Nothing is parsed here and no default is stated here: `cli::keys` is the one table of names, ranges and defaults. The
//! comment at a field names its key. `None` stands where Kafka writes -1 or the largest number for "no limit".

use super::ids::NodeId;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// Everything the server needs to know to start.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// What was set of the keys that have Kafka's names, as text: DescribeConfigs shows it as static, and it is what topics fall
    /// back to (`cluster::configs`).
    pub statics: BTreeMap<String, String>,
    pub server: ServerConfig,
    /// In the order of `CoreIndex`; at least one.
    pub cores: Vec<CoreConfig>,
    pub network: NetworkConfig,
    pub topic: TopicConfig,
    pub group: GroupConfig,
    pub offsets: OffsetsConfig,
}

impl Config {
    /// The CPU of each core.
    pub fn cpus(&self) -> Vec<usize> {
        self.cores.iter().map(|core| core.cpu).collect()
    }

    /// The port that each core's own listener is to have, 0 for a free one; none without core listeners. The settings were checked for as many.
    pub fn core_ports(&self) -> Vec<u16> {
        let of_core = |first: u16, core: u16| if first == 0 { 0 } else { first + core };
        let first = self.server.core_listeners.into_iter();
        first.flat_map(|first| (0..self.cores.len() as u16).map(move |core| of_core(first, core))).collect()
    }
}

/// A host (name or address) with a port, as in `localhost:9092` or `[::1]:9092`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostPort {
    /// Without the brackets of an IPv6 address.
    pub host: String,
    /// 0 means "any free port" where one listens.
    pub port: u16,
}

impl HostPort {
    /// Reads what `Display` writes. `None` where host or port is missing or the port is not a number below 65 536.
    pub fn parse(text: &str) -> Option<HostPort> {
        let (host, port) = text.rsplit_once(':')?;
        let host = match host.strip_prefix('[') {
            Some(bracketed) => bracketed.strip_suffix(']').filter(|host| host.contains(':'))?,
            None if host.contains(':') => return None,
            None => host,
        };
        let plain = !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || c == '/' || c == '[' || c == ']');
        // `u16::from_str` takes a leading plus sign; an address does not.
        let digits = port.bytes().all(|byte| byte.is_ascii_digit());
        let port = port.parse().ok().filter(|_| digits)?;
        plain.then(|| HostPort { host: host.to_owned(), port })
    }

    /// Whether this means "every address of the machine", which a client cannot connect to.
    pub fn is_wildcard(&self) -> bool {
        self.host.parse::<core::net::IpAddr>().is_ok_and(|address| address.is_unspecified())
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// Where metrics and health are served.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AdminListen {
    pub address: HostPort,
    /// Nobody chose it: where it is taken, a second broker on the machine takes a free port of the same host.
    pub is_default: bool,
}

/// Who this broker is and where it is found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServerConfig {
    /// `node.id`
    pub node_id: NodeId,
    /// `cluster.id`
    pub cluster_id: String,
    /// `listeners`
    pub listen: HostPort,
    /// `advertised.listeners`; `None`: clients are told the address that was bound.
    pub advertise: Option<HostPort>,
    /// `core.listeners.port`: the first core's, 0 for free ones; `None`: no core has a listener of its own.
    pub core_listeners: Option<u16>,
    /// `core.balance.interval.ms`; `None`: partitions move only when somebody asks for it.
    pub balance_interval_ms: Option<u64>,
    /// `admin.listen`; `None`: nothing is served there.
    pub admin: Option<AdminListen>,
    /// `log.dirs`; at least one, each locked by this process.
    pub data_dirs: Vec<PathBuf>,
    /// `disk.reserve.bytes`: below this much free space in a data directory, produce is refused there.
    pub disk_reserve_bytes: u64,
    /// `internal.log.growth.bytes`: growth of the broker's own logs, after which they begin anew.
    pub internal_log_growth_bytes: u64,
}

/// How bytes that are neither in the tail nor in the page cache reach a socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ColdRead {
    /// File → pipe → socket inside the kernel.
    Splice,
    /// Around the page cache into recycled buffers, then sent.
    Direct,
}

/// One core's share of the machine, and of the work. `core.N.` before the rest of a key sets it for core N alone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CoreConfig {
    /// From `core.count` and `core.cpus`.
    pub cpu: usize,
    /// `core.accept`: takes connections.
    pub accepts: bool,
    /// `core.partitions`: is given new partitions.
    pub takes_partitions: bool,
    /// `core.data.dir`, or its turn: one of `log.dirs`.
    pub data_dir: PathBuf,
    pub journal: JournalConfig,
    /// `core.request.memory.bytes`
    pub request_memory_bytes: u64,
    /// `core.tail.memory.bytes`
    pub tail_memory_bytes: u64,
    /// `core.cold.read`
    pub cold_read: ColdRead,
    /// `core.commit.window.us`
    pub commit_window_us: u64,
    /// `core.large.batch.bytes`
    pub large_batch_bytes: u64,
    /// `core.busy.poll.us`
    pub busy_poll_us: u64,
    /// `core.background.shares`
    pub background_shares: u32,
    /// `core.io.workers`
    pub io_workers_max: u32,
}

/// The journal of each core.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JournalConfig {
    /// `journal.bytes`; a multiple of `file_bytes`.
    pub bytes: u64,
    /// `journal.file.bytes`; holds the largest request and its overhead.
    pub file_bytes: u64,
}

/// Sockets and what may come through them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NetworkConfig {
    /// `socket.request.max.bytes`
    pub request_bytes_max: usize,
    /// `connections.max.idle.ms`
    pub idle_ms_max: Option<u64>,
    /// `max.connections`
    pub connections_max: Option<u32>,
    /// `socket.send.buffer.bytes`; `None`: the kernel decides.
    pub send_buffer_bytes: Option<u32>,
    /// `socket.receive.buffer.bytes`; `None`: the kernel decides.
    pub receive_buffer_bytes: Option<u32>,
    /// `socket.listen.backlog.size`
    pub backlog: u32,
    /// `fetch.max.bytes`
    pub fetch_bytes_max: u64,
}

/// What is the broker's about topics. What a topic has where it does not say otherwise is in `Config::statics`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopicConfig {
    /// `auto.create.topics.enable`
    pub auto_create: bool,
    /// `log.retention.check.interval.ms`
    pub retention_check_ms: u64,
}

/// Consumer groups.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupConfig {
    /// `group.initial.rebalance.delay.ms`
    pub initial_rebalance_delay_ms: u64,
    /// `group.min.session.timeout.ms`
    pub session_timeout_ms_min: u64,
    /// `group.max.session.timeout.ms`
    pub session_timeout_ms_max: u64,
    /// `group.max.size`
    pub members_max: Option<u32>,
}

/// Committed offsets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OffsetsConfig {
    /// `offsets.topic.num.partitions`
    pub partitions: i32,
    /// `offsets.retention.minutes`, in milliseconds.
    pub retention_ms: u64,
    /// `offsets.retention.check.interval.ms`
    pub retention_check_ms: u64,
    /// `offset.metadata.max.bytes`
    pub metadata_bytes_max: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_port_reads_what_it_writes() {
        for text in ["localhost:9092", "127.0.0.1:0", "[::1]:65535", "broker-1.example:1"] {
            assert_eq!(HostPort::parse(text).expect(text).to_string(), text);
        }
    }

    #[test]
    fn host_port_without_a_host_or_a_port_is_refused() {
        for text in
            ["", ":9092", "localhost", "localhost:", "a:65536", "a:-1", "a:+1", "::1:9092", "[::1]", "a b:1", "[a]:1"]
        {
            assert_eq!(HostPort::parse(text), None, "{text}");
        }
    }

    #[test]
    fn wildcards_of_both_families_are_told_apart_from_addresses() {
        assert!(HostPort::parse("0.0.0.0:1").unwrap().is_wildcard());
        assert!(HostPort::parse("[::]:1").unwrap().is_wildcard());
        assert!(!HostPort::parse("127.0.0.1:1").unwrap().is_wildcard());
        assert!(!HostPort::parse("localhost:1").unwrap().is_wildcard());
    }
}
