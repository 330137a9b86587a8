//! `ringlog serve` up to where the cores start: settings are merged, the machine is checked, the data directories are taken.
//!
//! In the order of what a user would fix first: command line, file, relations, CPUs, limits, kernel, directories, port.

use super::args::ServeArgs;
use super::error::StartError;
use super::resolve::{self, Facts};
use super::settings::Settings;
use super::{example, relations};
use crate::base::config::{Config, HostPort};
use crate::base::exit::Exit;
use crate::cluster::image::NODE_WITH_CORES_MAX;
use crate::log::LogSettings;
use crate::runtime::host::{self, DataDirLock, Identity, IdentityWanted};
use std::time::Duration;

/// How long a port may be taken by a broker that was just killed.
const PORT_PATIENCE: Duration = Duration::from_secs(5);
/// Buffers that each core registers with its ring, beyond what its executor locks.
const REGISTERED_BYTES: u64 = 0;

/// All that the server is started with.
#[derive(Debug)]
pub struct Prepared {
    pub config: Config,
    /// Held until the server has ended.
    pub locks: Vec<DataDirLock>,
}

/// Makes ready to start: when this returns, nothing about settings or machine is left to go wrong but the disks themselves.
///
/// # Errors
/// The first thing that is wrong, with the exit code of its class.
pub fn prepare(args: &ServeArgs) -> Result<Prepared, StartError> {
    let (settings, cpus) = check_host(args)?;
    let (identity, locks) = host::open_data_dirs(&resolve::data_dirs(&settings), &identity_wanted(&settings))?;
    let config = config(&settings, cpus, identity)?;
    host::check_addresses(&addresses(&config), PORT_PATIENCE)?;
    warn_of_memory_filesystems(&config);
    Ok(Prepared { config, locks })
}

/// As `prepare`, but takes and makes nothing that stays. Returns the settings in effect, as TOML with a head of comments.
///
/// # Errors
/// As `prepare`.
pub fn check(args: &ServeArgs) -> Result<String, StartError> {
    let (settings, cpus) = check_host(args)?;
    let identity = host::check_data_dirs(&resolve::data_dirs(&settings), &identity_wanted(&settings))?;
    let config = config(&settings, cpus, identity)?;
    host::check_addresses(&addresses(&config), Duration::ZERO)?;
    Ok(format!(
        "# ready to start: node {}, {} cores on CPUs {}\n{}",
        config.server.node_id.0,
        config.cores.len(),
        host::format_cpus(&config.cpus()),
        example::effective(&settings),
    ))
}

/// Where clients come, each with the option that sets it.
fn addresses(config: &Config) -> Vec<(HostPort, &'static str)> {
    let listen = &config.server.listen;
    let of_core = |port| (HostPort { host: listen.host.clone(), port }, "core.listeners.port");
    let of_cores = config.core_ports().into_iter().map(of_core);
    std::iter::once((listen.clone(), "--listen HOST:PORT")).chain(of_cores).collect()
}

/// What can be found out without touching a data directory: the settings, and the CPU of each core.
fn check_host(args: &ServeArgs) -> Result<(Settings, Vec<usize>), StartError> {
    let (settings, cpus) = choose(args)?;
    host::check_memlock(cpus.len(), REGISTERED_BYTES)?;
    host::check_kernel()?;
    match host::raise_open_files() {
        Ok(limit) => tracing::debug!(limit, "open files"),
        // Not fatal: the broker runs with fewer connections and files.
        Err(error) => tracing::warn!(%error, "the limit of open files could not be raised"),
    }
    Ok((settings, cpus))
}

/// The settings, and the CPU of each core, whatever this host may lack besides.
///
/// # Errors
/// As `prepare`.
pub fn choose(args: &ServeArgs) -> Result<(Settings, Vec<usize>), StartError> {
    let settings = Settings::load(args.profile.as_deref(), args.config.as_deref(), &args.overrides())?;
    relations::check(&settings)?;
    let cpus = choose_cpus(&settings)?;
    relations::check_cores(&settings, cpus.len())?;
    Ok((settings, cpus))
}

/// The configuration in effect, once more checked by the log itself: the table's ranges and `relations` know less of it.
fn config(settings: &Settings, cpus: Vec<usize>, identity: Identity) -> Result<Config, StartError> {
    let Identity { node_id, cluster_id } = identity;
    let config = resolve::config(settings, Facts { cpus, node_id, cluster_id });
    if config.server.core_listeners.is_some() && node_id >= NODE_WITH_CORES_MAX {
        let cited = settings.cite("core.listeners.port");
        let reason = format!("{cited} needs a node.id below {NODE_WITH_CORES_MAX}, and this is node {node_id}");
        return Err(StartError::new(Exit::Config, reason));
    }
    match config.cores.iter().try_for_each(|core| LogSettings::of(core).check()) {
        Ok(()) => Ok(config),
        Err(reason) => Err(StartError::new(Exit::Config, format!("the log cannot work with these settings: {reason}"))),
    }
}

fn choose_cpus(settings: &Settings) -> Result<Vec<usize>, StartError> {
    let allowed = host::cpus_allowed()
        .map_err(|error| StartError::new(Exit::Kernel, format!("cannot read the CPU affinity mask: {error}")))?;
    let asked = settings.text("core.cpus").map(|text| host::parse_cpus(text).expect("the list has been checked"));
    let count = settings.integer("core.count").map(|count| count as usize);
    let quota = host::cpus_within_quota();
    let cpus = host::choose_cpus(&allowed, quota, asked.as_deref(), count)?;
    if cpus.len() > quota {
        tracing::warn!(
            cores = cpus.len(),
            quota,
            "more cores than this cgroup's CPU quota pays for: they will be throttled"
        );
    }
    Ok(cpus)
}

fn identity_wanted(settings: &Settings) -> IdentityWanted {
    IdentityWanted {
        node_id: settings.integer("node.id").map(|id| id as i32),
        cluster_id: settings.text("cluster.id").map(str::to_owned),
    }
}

fn warn_of_memory_filesystems(config: &Config) {
    for dir in &config.server.data_dirs {
        if let Some(filesystem) = host::filesystem_of(dir).filter(|filesystem| filesystem.is_memory()) {
            let dir = dir.display();
            tracing::warn!(%dir, filesystem = filesystem.kind, "this data directory is in memory: a reboot loses it all");
        }
    }
}
