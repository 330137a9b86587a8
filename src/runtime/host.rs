//! What this machine must offer before a core starts: CPUs, limits, kernel, data directories, the port.
//!
//! Every check says what is missing and how to get it. Nothing here runs once the cores do.

mod address;
mod cpus;
mod data_dir;
mod filesystem;
mod identity;
mod kernel;
mod limits;

pub use address::check_addresses;
pub use cpus::{choose_cpus, cpus_allowed, cpus_within_quota, format_cpus, parse_cpus};
pub use data_dir::{DataDirLock, check_data_dirs, open_data_dirs};
pub use filesystem::{Filesystem, filesystem_of};
pub use identity::{Identity, IdentityWanted};
pub use kernel::check_kernel;
pub use limits::{check_memlock, memlock_bytes_required, raise_open_files};

use std::fmt;
use std::path::PathBuf;

/// Why this machine cannot run the broker as asked.
#[derive(Debug)]
pub enum HostError {
    /// The CPUs asked for are not there.
    Cpus(String),
    /// Both in bytes.
    Memlock {
        limit: u64,
        required: u64,
    },
    /// io_uring is missing, forbidden or too old.
    Kernel(String),
    DataDirInUse {
        dir: PathBuf,
        /// Of the holder, where it has written it down.
        pid: Option<u32>,
    },
    /// Unreadable, on an unfit filesystem, or somebody else's.
    DataDir {
        dir: PathBuf,
        reason: String,
    },
    Address {
        address: String,
        reason: String,
    },
}

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostError::Cpus(reason) | HostError::Kernel(reason) => f.write_str(reason),
            HostError::Memlock { limit, required } => write!(
                f,
                "this process may lock {} KiB of memory (RLIMIT_MEMLOCK), and needs {} KiB: raise it with \
                 `ulimit -l {}` in the shell, `LimitMEMLOCK={required}` in a systemd unit, \
                 `--ulimit memlock={required}` for a container, or `prlimit --memlock={required} COMMAND` as root",
                limit >> 10,
                required.div_ceil(1024),
                required.div_ceil(1024),
            ),
            HostError::DataDirInUse { dir, pid } => {
                match pid {
                    Some(pid) => write!(f, "data directory {} is in use by pid {pid}", dir.display())?,
                    None => write!(f, "data directory {} is in use by another process", dir.display())?,
                }
                write!(f, ": stop that process, or choose another directory with --data-dir")
            }
            HostError::DataDir { dir, reason } => write!(f, "data directory {} {reason}", dir.display()),
            HostError::Address { address, reason } => write!(f, "cannot listen on {address}: {reason}"),
        }
    }
}

impl std::error::Error for HostError {}
