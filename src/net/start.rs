//! One process: its listeners, its cores, its signals.
//!
//! What the machine must be was checked before; here it is used. Returns when the broker has stopped in order.

use super::outbound::{ColdRead, Sender};
use super::report::{Desk, Reporter};
use super::server::{Parts, Server, ServerSettings};
use crate::admin;
use crate::api::Api;
use crate::api::dispatch::ApiSettings;
use crate::base::config::{self, AdminListen, Config, HostPort};
use crate::base::exit::Exit;
use crate::base::ids::CoreIndex;
use crate::base::measures::TurnMeasures;
use crate::base::time::Now;
use crate::ports::Clock;
use crate::runtime::blocking::Helper;
use crate::runtime::clock::SystemClock;
use crate::runtime::disk::{CoreDisk, File};
use crate::runtime::doorbell::Doorbell;
use crate::runtime::entropy;
use crate::runtime::executor::{self, CoreHandle, CoreOptions, CoreRuntime};
use crate::runtime::mailbox::{Mailboxes, Postbox};
use crate::runtime::ring::Completion;
use crate::runtime::signals::{Asked, Signals};
use crate::runtime::socket::{self, ListenOptions};
use crate::runtime::turn::{self, Next, Turn};
use crate::shard::commands::Message;
use crate::shard::startup::{self, Place, StartBoard, StartFailure, Started};
use crate::shard::{GroupSettings, LogSettings, Shard, ShardSettings, World};
use std::cell::RefCell;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::{Receiver, Sender as ChannelSender, channel};
use std::time::{Duration, Instant};

/// How long the cores may take to stop; then the process ends without them, and the next start replays the journal.
const STOP_PATIENCE: Duration = Duration::from_millis(4500);
/// How long a port may stay taken by a process that is just ending.
const PORT_PATIENCE: Duration = Duration::from_secs(5);

/// Why the process ends, other than as asked.
#[derive(Debug)]
pub struct Failure {
    pub exit: Exit,
    pub message: String,
}

fn failure(exit: Exit, message: impl Into<String>) -> Failure {
    Failure { exit, message: message.into() }
}

/// What all cores of the process share, once.
struct Common {
    config: Config,
    board: Arc<StartBoard>,
    postbox: Arc<Postbox<Message<File>>>,
    /// How many cores are short of memory for records.
    short_cores: Arc<AtomicUsize>,
    advertised: HostPort,
    core_ports: Vec<u16>,
    started: ChannelSender<(CoreIndex, Result<Started, Failure>)>,
}

/// Runs the broker until SIGTERM or SIGINT. SIGUSR1 shows the counters meanwhile.
///
/// # Errors
/// With the exit code of the class of what went wrong.
pub fn run(mut config: Config) -> Result<(), Failure> {
    let began = Instant::now();
    end_with_any_panic();
    let signals =
        Signals::block().map_err(|error| failure(Exit::Kernel, format!("signals cannot be blocked: {error}")))?;
    let count = config.cores.len() as u16;
    let (listeners, address) = listen_all(&config)?;
    let core_listeners = listen_cores(&config, address)?;
    let core_ports = ports(&core_listeners)?;
    let admin = config.server.admin.as_ref().map(listen_admin).transpose()?;
    let advertised = advertised(&config, address);
    config.statics.extend(place(&config, address, &advertised));
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        cores = count,
        cpus = ?config.cpus(),
        data = ?config.server.data_dirs,
        node = config.server.node_id.0,
        cluster = config.server.cluster_id,
        listen = %address,
        advertise = %advertised,
        ?core_ports,
        "ringlog starts"
    );
    let (sender, receiver) = channel();
    let common = Arc::new(Common {
        board: StartBoard::new(count),
        postbox: Postbox::new(usize::from(count)),
        short_cores: Arc::default(),
        advertised,
        core_ports,
        started: sender,
        config,
    });
    let mut desk = Desk::new();
    let mut cores = Vec::new();
    let mut own = core_listeners.into_iter();
    for (index, listener) in (0..count).map(CoreIndex).zip(listeners) {
        let listeners: Vec<TcpListener> = listener.into_iter().chain(own.next()).collect();
        let doorbell = Doorbell::new().map_err(|error| failure(Exit::Kernel, format!("no eventfd: {error}")))?;
        let reporter = desk.reporter(doorbell.clone());
        let (common, options) = (common.clone(), core_options(&common.config, index));
        let core = executor::start(options, doorbell, move |runtime| run_core(runtime, listeners, reporter, common));
        cores.push(core.map_err(|error| failure(Exit::Kernel, error.to_string()))?);
    }
    wait_until_started(&receiver, count, began)?;
    let desk = Arc::new(desk);
    let admin = admin.map(|listener| admin::Server::start(listener, desk.clone())).transpose();
    let admin = admin.map_err(|error| failure(Exit::Kernel, format!("no thread for metrics: {error}")))?;
    ready(address, admin.map(|server| server.address()));

    let signal = loop {
        match signals.wait() {
            Asked::Counters => desk.show(),
            Asked::Stop(signal) => break signal,
        }
    };
    tracing::info!(signal, "ringlog stops");
    let stopping = Instant::now();
    desk.stop();
    let ended = join(cores, stopping);
    // Unasked, so only where the log is wanted.
    if tracing::enabled!(tracing::Level::INFO) {
        desk.show_last();
    }
    ended
}

/// A core that has lost an invariant must not leave the others serving: whatever the build, a panic ends the process.
fn end_with_any_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        report(info);
        std::process::abort();
    }));
}

fn join(cores: Vec<CoreHandle>, stopping: Instant) -> Result<(), Failure> {
    let (sender, receiver) = channel();
    let count = cores.len();
    for core in cores {
        let sender = sender.clone();
        std::thread::spawn(move || sender.send(core.join()));
    }
    for _ in 0..count {
        let left = STOP_PATIENCE.saturating_sub(stopping.elapsed());
        match receiver.recv_timeout(left) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(failure(Exit::DiskFailed, error)),
            Err(_) => {
                tracing::warn!(
                    "not all cores stopped in time; nothing acknowledged is lost, the next start replays the journal"
                );
                return Ok(());
            }
        }
    }
    tracing::info!(ms = stopping.elapsed().as_millis() as u64, "ringlog has stopped in order");
    Ok(())
}

/// The last line of the start, on stdout, for whoever waits for it.
fn ready(address: SocketAddr, admin: Option<SocketAddr>) {
    let mut stdout = std::io::stdout().lock();
    let admin = admin.map_or(String::new(), |admin| format!(" admin={admin}"));
    // Nobody may be reading; the broker serves all the same.
    let _ = writeln!(stdout, "ready listen={address}{admin}");
    let _ = stdout.flush();
}

/// A listener for each core that accepts, all at one address.
fn listen_all(config: &Config) -> Result<(Vec<Option<TcpListener>>, SocketAddr), Failure> {
    let wanted = &config.server.listen;
    let resolved = (wanted.host.as_str(), wanted.port).to_socket_addrs();
    let mut address = resolved
        .ok()
        .and_then(|mut addresses| addresses.next())
        .ok_or_else(|| failure(Exit::Address, format!("`{wanted}` is no address that can be listened on")))?;
    let mut listeners = Vec::with_capacity(config.cores.len());
    for core in &config.cores {
        if !core.accepts {
            listeners.push(None);
            continue;
        }
        let listener = listen(config, address, true, "--listen")?;
        address = listener.local_addr().map_err(|error| failure(Exit::Address, error.to_string()))?;
        listeners.push(Some(listener));
    }
    Ok((listeners, address))
}

/// A listener of its own for each core, where they are asked for, on the host of `address`.
fn listen_cores(config: &Config, mut address: SocketAddr) -> Result<Vec<TcpListener>, Failure> {
    let listen_at = |port| {
        address.set_port(port);
        listen(config, address, false, "core.listeners.port")
    };
    config.core_ports().into_iter().map(listen_at).collect()
}

fn ports(listeners: &[TcpListener]) -> Result<Vec<u16>, Failure> {
    let ports = listeners.iter().map(|listener| listener.local_addr().map(|address| address.port()));
    ports.collect::<Result<_, _>>().map_err(|error| failure(Exit::Address, error.to_string()))
}

fn listen(config: &Config, address: SocketAddr, shared: bool, key: &str) -> Result<TcpListener, Failure> {
    let options = ListenOptions {
        backlog: config.network.backlog,
        send_buffer_bytes: config.network.send_buffer_bytes,
        receive_buffer_bytes: config.network.receive_buffer_bytes,
    };
    let began = Instant::now();
    loop {
        match socket::listen(address, options, shared) {
            // A process that was just killed holds its port for a moment.
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse && began.elapsed() < PORT_PATIENCE => {
                std::thread::sleep(Duration::from_millis(20));
            }
            outcome => {
                let message = |error| format!("cannot listen on {address}: {error}; choose another {key}");
                return outcome.map_err(|error| failure(Exit::Address, message(error)));
            }
        }
    }
}

/// The listener for metrics. A port that nobody chose may be another broker's: then any free one will do, and the line `ready` names it.
fn listen_admin(wanted: &AdminListen) -> Result<TcpListener, Failure> {
    let HostPort { host, port } = &wanted.address;
    let bound = admin::bind(host, *port).or_else(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse if wanted.is_default => admin::bind(host, 0),
        _ => Err(error),
    });
    bound.map_err(|error| {
        let advice = "choose another --admin HOST:PORT, or --admin none";
        failure(Exit::Address, format!("cannot serve metrics on {}: {error}; {advice}", wanted.address))
    })
}

/// What clients are told to connect to. A wildcard is no place to connect to, so it becomes this host itself.
fn advertised(config: &Config, address: SocketAddr) -> HostPort {
    match &config.server.advertise {
        Some(advertise) => {
            let port = if advertise.port == 0 { address.port() } else { advertise.port };
            HostPort { host: advertise.host.clone(), port }
        }
        None => {
            let host = if address.ip().is_unspecified() { "127.0.0.1".to_owned() } else { address.ip().to_string() };
            HostPort { host, port: address.port() }
        }
    }
}

/// Where this broker is found and who it is, which DescribeConfigs shows as Kafka does: as set, whether or not somebody did.
fn place(config: &Config, address: SocketAddr, advertised: &HostPort) -> [(String, String); 4] {
    let dirs: Vec<String> = config.server.data_dirs.iter().map(|dir| dir.display().to_string()).collect();
    [
        ("advertised.listeners", format!("PLAINTEXT://{advertised}")),
        ("listeners", format!("PLAINTEXT://{address}")),
        ("log.dirs", dirs.join(",")),
        ("node.id", config.server.node_id.0.to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
}

fn core_options(config: &Config, index: CoreIndex) -> CoreOptions {
    let core = &config.cores[usize::from(index.0)];
    CoreOptions {
        index,
        cpu: core.cpu,
        io_workers: core.io_workers_max,
        pool_free_bytes_max: (core.tail_memory_bytes / 4) as usize,
        background_shares: core.background_shares as usize,
    }
}

fn wait_until_started(
    receiver: &Receiver<(CoreIndex, Result<Started, Failure>)>,
    count: u16,
    began: Instant,
) -> Result<(), Failure> {
    let mut sum = Started::default();
    for _ in 0..count {
        let (_, started) = receiver.recv().map_err(|_| failure(Exit::Kernel, "a core ended before it was ready"))?;
        let started = started?;
        sum.partitions += started.partitions;
        sum.recovered += started.recovered;
        sum.replayed_batches += started.replayed_batches;
        sum.torn_journals += started.torn_journals;
        sum.damaged = started.damaged;
    }
    tracing::info!(
        partitions = sum.partitions,
        recovered = sum.recovered,
        replayed_batches = sum.replayed_batches,
        torn_journals = sum.torn_journals,
        ms = began.elapsed().as_millis() as u64,
        "recovery is done"
    );
    for damage in &sum.damaged {
        tracing::error!("not served, because it is damaged: {damage}; restore it from a replica or a backup");
    }
    Ok(())
}

/// The body of one core: starts its shard, then serves until told to stop.
async fn run_core(
    runtime: CoreRuntime,
    listeners: Vec<TcpListener>,
    reporter: Reporter,
    common: Arc<Common>,
) -> std::io::Result<()> {
    let index = runtime.index;
    let mailboxes = Mailboxes::new(index, common.postbox.clone(), &runtime.ring);
    let shard = match start_shard(&runtime, &common).await {
        Ok((shard, started)) => {
            let _ = common.started.send((index, Ok(started)));
            shard
        }
        Err(failed) => {
            let failed = match failed {
                StartFailure::Io(what) => failure(Exit::DataDir, what),
                StartFailure::Damaged(what) => failure(Exit::Recovery, what),
            };
            let _ = common.started.send((index, Err(failed)));
            return Ok(());
        }
    };
    let config = &common.config;
    let core = &config.cores[usize::from(index.0)];
    let cold_read = match core.cold_read {
        config::ColdRead::Splice => ColdRead::Splice,
        config::ColdRead::Direct => ColdRead::Direct,
    };
    let has_own = config.server.core_listeners.is_some();
    let accepting = config.cores.iter().filter(|core| core.accepts || has_own).count();
    let settings = ServerSettings {
        request_bytes_max: config.network.request_bytes_max,
        request_memory_bytes: core.request_memory_bytes as usize,
        tail_memory_bytes: core.tail_memory_bytes as usize,
        idle_ms_max: config.network.idle_ms_max,
        connections_max: config.network.connections_max.map_or(usize::MAX, |most| (most as usize).div_ceil(accepting)),
    };
    let api =
        ApiSettings { fetch_bytes_max: config.network.fetch_bytes_max, auto_create_topics: config.topic.auto_create };
    let mut server = Server::new(Parts {
        ring: runtime.ring.clone(),
        helper: runtime.helper.clone(),
        mailboxes,
        shard,
        api: Api::new(index, api),
        sender: Sender::new(runtime.ring.clone(), runtime.disk.pool().clone(), cold_read),
        settings,
        reporter,
        short_cores: common.short_cores.clone(),
    });
    listeners.into_iter().for_each(|listener| server.serve(listener));
    let turns = turn::run(&mut server, &runtime.ring, &runtime.tasks, Duration::from_micros(core.busy_poll_us)).await;
    server.end(&turns);
    Ok(())
}

async fn start_shard(
    runtime: &CoreRuntime,
    common: &Common,
) -> Result<(Rc<RefCell<Shard<CoreDisk>>>, Started), StartFailure> {
    let place: Place<CoreDisk> = Rc::default();
    let outcome: Rc<RefCell<Option<Result<Started, StartFailure>>>> = Rc::default();
    let (disk, settings, board) = (runtime.disk.clone(), shard_settings(common, runtime.index), common.board.clone());
    let (target, result) = (place.clone(), outcome.clone());
    runtime.tasks.spawn(async move {
        let started = startup::start(disk, settings, world(), board, target).await;
        *result.borrow_mut() = Some(started);
    });
    let mut starting = Starting { place: place.clone(), outcome: outcome.clone(), helper: runtime.helper.clone() };
    runtime.helper.run_at_once(true);
    turn::run(&mut starting, &runtime.ring, &runtime.tasks, Duration::ZERO).await;
    runtime.helper.run_at_once(false);
    let started = outcome.borrow_mut().take().expect("the loop ended with it")?;
    let shard = place.borrow_mut().take().expect("a shard that has started");
    Ok((shard, started))
}

fn world() -> World {
    World { now: Rc::new(|| SystemClock.now()), random: Rc::new(entropy::random_u128) }
}

fn shard_settings(common: &Common, core: CoreIndex) -> ShardSettings {
    let config = &common.config;
    let own = &config.cores[usize::from(core.0)];
    ShardSettings {
        core,
        core_count: config.cores.len() as u16,
        spared_cores: (0..)
            .zip(&config.cores)
            .filter(|(_, core)| !core.takes_partitions)
            .map(|(core, _)| core)
            .collect(),
        node: config.server.node_id,
        cluster_id: config.server.cluster_id.clone(),
        host: common.advertised.host.clone(),
        port: common.advertised.port,
        core_ports: common.core_ports.clone(),
        data_dir: own.data_dir.clone(),
        data_dirs: config.server.data_dirs.clone(),
        log: LogSettings::of(own),
        groups: GroupSettings {
            session_timeout_ms_min: config.group.session_timeout_ms_min as i32,
            session_timeout_ms_max: config.group.session_timeout_ms_max as i32,
            initial_rebalance_delay_ms: config.group.initial_rebalance_delay_ms as u32,
            group_members_max: config.group.members_max.map_or(usize::MAX, |most| most as usize),
            offset_metadata_bytes_max: config.offsets.metadata_bytes_max,
            offsets_retention_minutes: (config.offsets.retention_ms / 60_000) as u32,
            offsets_retention_check_interval_ms: config.offsets.retention_check_ms as u32,
            offsets_partition_count: config.offsets.partitions,
        },
        statics: config.statics.clone(),
        retention_check_ms: config.topic.retention_check_ms,
        disk_reserve_bytes: config.server.disk_reserve_bytes,
        balance_interval_ms: config.server.balance_interval_ms,
        own_log_growth_bytes: config.server.internal_log_growth_bytes,
    }
}

/// A core whose shard is being started: its turns serve the disk alone.
struct Starting {
    place: Place<CoreDisk>,
    outcome: Rc<RefCell<Option<Result<Started, StartFailure>>>>,
    helper: Helper,
}

impl Turn for Starting {
    fn on_completion(&mut self, completion: Completion, now: Now) {
        match completion {
            Completion::Disk(completion) => {
                if let Some(shard) = &*self.place.borrow() {
                    shard.borrow_mut().on_disk(completion, now);
                }
            }
            Completion::Doorbell => self.helper.reap(),
            _ => {}
        }
    }

    fn end_of_turn(&mut self, now: Now, _: &TurnMeasures) -> Next {
        if self.outcome.borrow().is_some() {
            return Next::Stop;
        }
        match &*self.place.borrow() {
            None => Next::Idle,
            Some(shard) => {
                let mut shard = shard.borrow_mut();
                shard.resume(now);
                shard.end_of_turn(now);
                shard.next_deadline().map_or(Next::Idle, Next::At)
            }
        }
    }
}
