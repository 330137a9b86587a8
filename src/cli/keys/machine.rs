//! Keys for what is the machine's: addresses, directories, cores, journal. Most exist in Ringlog only.

use super::{Kind, Section, Unit, bytes, count, key, optional};
use crate::base::limits::COMMIT_BYTES_MAX;

/// Larger ids are those of single cores (`cluster::image`).
const NODE_ID_MAX: i64 = (1 << 30) - 1;
const MIB: i64 = 1 << 20;
const GIB: i64 = 1 << 30;
const TIB: i64 = 1 << 40;

pub const SERVER: Section = Section {
    title: "Server",
    keys: &[
        optional(
            "node.id",
            count(0, NODE_ID_MAX),
            "Id of this broker in its cluster.\nNone: what the data directory says; 1 where that is new.",
        ),
        optional(
            "cluster.id",
            Kind::Text,
            "Id of the cluster: up to 64 letters, digits, dots, dashes and underscores.\n\
             None: what the data directory says; a random one where that is new.",
        ),
        key(
            "listeners",
            Kind::Text,
            "\"127.0.0.1:9092\"",
            "HOST:PORT to listen on, one, with or without PLAINTEXT:// before it. Port 0 takes a free port.",
        ),
        optional(
            "advertised.listeners",
            Kind::Text,
            "HOST:PORT that clients are told to connect to. Needed where `listeners` is 0.0.0.0 or [::].\n\
             None: the address that is listened on.",
        ),
        key(
            "admin.listen",
            Kind::Text,
            "\"127.0.0.1:9644\"",
            "HOST:PORT for metrics and health over HTTP: /metrics, /healthz, /readyz. Port 0 takes a free port; \"none\" serves nothing.\n\
             Where nobody set it and the port is taken, a free one of the same host is used.",
        ),
        key(
            "log.dirs",
            Kind::List,
            "[\"ringlog-data\"]",
            "Data directories, made where they are missing. Give each disk one: the cores are spread over them.",
        ),
        key(
            "disk.reserve.bytes",
            bytes(16 * MIB, TIB),
            "1073741824",
            "With less than this free in a data directory, produce is refused there with a retriable error\n\
             until there is space again. Reads, deletes and offset commits go on.",
        ),
        key(
            "internal.log.growth.bytes",
            bytes(4 << 10, TIB),
            "16777216",
            "A partition of __consumer_offsets, and the metadata log, begins anew with a snapshot of its state once it has grown\n\
             by more than this and by more than four times that state. Bounds what a start has to read.",
        ),
    ],
};

pub const CORE: Section = Section {
    title: "Cores: one thread each, pinned to one CPU. Every figure is for each core; `core.3.tail.memory.bytes` sets it for core 3 alone",
    keys: &[
        optional(
            "core.count",
            count(1, 1024),
            "Number of cores.\nNone: one for each CPU this process may use, a cgroup's CPU quota counted.",
        ),
        optional(
            "core.cpus",
            Kind::Text,
            "CPUs to use, as in \"0-3,6\".\nNone: those that the process's affinity mask allows.",
        ),
        key(
            "core.request.memory.bytes",
            bytes(16 * MIB, TIB),
            "268435456",
            "Memory lent to requests in flight. When it is used up, the core reads no further requests until some is back.\n\
             Holds at least one request of socket.request.max.bytes.",
        )
        .per_core(),
        key(
            "core.tail.memory.bytes",
            bytes(8 * MIB, TIB),
            "268435456",
            "Memory for the last batches of the core's partitions, which are read from here and written to segments from here.",
        )
        .per_core(),
        key(
            "core.cold.read",
            Kind::Choice(&["splice", "direct"]),
            "\"splice\"",
            "How records that are not in memory reach a socket: inside the kernel through a pipe (splice), or read around\n\
             the page cache and sent (direct), which is faster where the page cache is slow, as in many virtual machines.",
        )
        .per_core(),
        key(
            "core.commit.window.us",
            count(0, 100_000),
            "0",
            "How long a commit waits for more records before it is written, microseconds, unless it is full: fewer and larger writes\n\
             where each sync is dear, and every acknowledgement comes later by as much. 0: it is written as soon as the disk is\n\
             free for it, and takes what has come meanwhile.",
        )
        .per_core(),
        key(
            "core.large.batch.bytes",
            bytes(1 << 10, TIB),
            "524288",
            "A batch of this size is written to its partition's segment at once, and not to the journal before, while twice as much\n\
             is on its way to the disk: once instead of twice. Its acknowledgement waits for a sync of that segment.",
        )
        .per_core(),
        key(
            "core.background.shares",
            count(1, 1000),
            "10",
            "What background work (making and syncing files, retention, indexes, recovery) has of a core that is busy, against 1000\n\
             shares of its clients. At a core with time to spare it has all it wants.",
        )
        .per_core(),
        key(
            "core.busy.poll.us",
            count(0, 1_000_000),
            "0",
            "How long a core that has nothing to do looks for work before it sleeps, microseconds. It saves the time to wake up,\n\
             and costs CPU while there is load and nothing at rest: measure it with `ringlog-loadgen`.",
        )
        .per_core(),
        optional(
            "core.listeners.port",
            count(0, 65_535),
            "First port of the core listeners: each core listens on a port of its own, this one and those that follow, and clients\n\
             are told of each core as of a broker of its own. They connect to the core that owns a partition, and no request\n\
             changes cores; each client has more connections. 0 takes free ports.\nNone: no core listeners.",
        ),
        optional(
            "core.balance.interval.ms",
            count(1000, 3_600_000),
            "How often the work of the cores is compared; where one has much more of it than another, a partition moves there, one at\n\
             a time. Its clients go on.\nNone: partitions move only when `ringlog move` says so.",
        ),
        key(
            "core.accept",
            Kind::Flag,
            "true",
            "Whether a core takes connections. One that does not has its CPU for its partitions; the others pass requests on to it.\n\
             Its own core listener, where there are such, is served all the same.",
        )
        .per_core(),
        key(
            "core.partitions",
            Kind::Flag,
            "true",
            "Whether a core is given new partitions. One that is not has its CPU for connections; what it has already stays.",
        )
        .per_core(),
        optional(
            "core.data.dir",
            Kind::Text,
            "The one of log.dirs that a core has its journal and its new partitions in.\n\
             None: the cores take turns with the directories.",
        )
        .per_core(),
        key(
            "core.io.workers",
            count(1, 256),
            "4",
            "Most kernel threads that may work for the core on operations that block (io-wq).",
        )
        .per_core(),
    ],
};

pub const JOURNAL: Section = Section {
    title: "Journal: one ring of files for each core; a write is acknowledged when it is on disk there. `core.3.journal.bytes` is core 3's",
    keys: &[
        key(
            "journal.bytes",
            bytes(32 * MIB, TIB),
            "536870912",
            "Disk space of the journal of each core. Bounds the time of recovery.\n\
             A multiple of journal.file.bytes, at least four files.",
        )
        .per_core(),
        key(
            "journal.file.bytes",
            Kind::Integer { unit: Unit::Bytes, min: 8 * MIB, max: 2 * GIB, step: COMMIT_BYTES_MAX as i64 },
            "134217728",
            "Size of one file of the journal. Holds at least one request of socket.request.max.bytes.",
        )
        .per_core(),
    ],
};
