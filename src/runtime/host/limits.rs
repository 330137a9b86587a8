//! Resource limits of the process: locked memory is checked, open files are raised.
#![allow(unsafe_code)]

use super::HostError;
use std::io;

/// What an executor asks for: glommio refuses to start below this limit.
const EXECUTOR_MEMLOCK_BYTES: u64 = 512 << 10;
/// Bit of CAP_IPC_LOCK in a capability mask (capabilities(7)).
const CAP_IPC_LOCK: u32 = 14;

/// Locked memory that `cores` executors need, with `registered_bytes` of buffers that each registers with its ring.
///
/// `exempt`: the process has CAP_IPC_LOCK, and the kernel counts nothing against it; the executor looks at the limit all the same.
pub fn memlock_bytes_required(cores: usize, registered_bytes: u64, exempt: bool) -> u64 {
    match exempt {
        true => EXECUTOR_MEMLOCK_BYTES,
        false => (EXECUTOR_MEMLOCK_BYTES.saturating_add(registered_bytes)).saturating_mul(cores as u64),
    }
}

/// Checks that `cores` executors can lock the memory they need; see [`memlock_bytes_required`].
///
/// # Errors
/// `HostError::Memlock`.
pub fn check_memlock(cores: usize, registered_bytes: u64) -> Result<(), HostError> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let required = memlock_bytes_required(cores, registered_bytes, may_lock_all(&status));
    let limit = limit(libc::RLIMIT_MEMLOCK).map_err(|error| HostError::Kernel(format!("getrlimit failed: {error}")))?;
    match limit.rlim_cur >= required {
        true => Ok(()),
        false => Err(HostError::Memlock { limit: limit.rlim_cur, required }),
    }
}

/// Whether the effective capabilities in `/proc/self/status` include CAP_IPC_LOCK.
fn may_lock_all(status: &str) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask >> CAP_IPC_LOCK & 1 == 1)
}

/// Raises the limit of open files as far as this process may, and returns it: to the most that the kernel allows (`fs.nr_open`) where it is
/// privileged, otherwise to the hard limit. A partition takes two, a connection one.
///
/// # Errors
/// Those of `getrlimit` and `setrlimit`.
pub fn raise_open_files() -> io::Result<u64> {
    let now = limit(libc::RLIMIT_NOFILE)?;
    let most = std::fs::read_to_string("/proc/sys/fs/nr_open").ok().and_then(|text| text.trim().parse().ok());
    let most = now.rlim_max.max(most.unwrap_or(0));
    for (rlim_cur, rlim_max) in [(most, most), (now.rlim_max, now.rlim_max)] {
        let raised = libc::rlimit { rlim_cur, rlim_max };
        // SAFETY: the kernel only reads the struct, which lives through the call.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raised) } == 0 {
            return Ok(rlim_cur);
        }
    }
    Err(io::Error::last_os_error())
}

fn limit(resource: libc::__rlimit_resource_t) -> io::Result<libc::rlimit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes one `rlimit` into the struct, which lives through the call.
    match unsafe { libc::getrlimit(resource, &mut limit) } {
        0 => Ok(limit),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_core_needs_its_executors_memory_and_its_buffers() {
        assert_eq!(memlock_bytes_required(4, 0, false), 2 << 20);
        assert_eq!(memlock_bytes_required(4, 1 << 20, false), 6 << 20);
        assert_eq!(memlock_bytes_required(4, 1 << 20, true), 512 << 10);
        assert_eq!(memlock_bytes_required(4, u64::MAX, false), u64::MAX);
    }

    #[test]
    fn the_capability_is_bit_14_of_the_effective_mask() {
        assert!(may_lock_all("CapPrm:\t0\nCapEff:\t0000000000004000\n"));
        assert!(may_lock_all("CapEff:\t000001ffffffffff\n"));
        assert!(!may_lock_all("CapEff:\t0000000000003fff\n"));
        assert!(!may_lock_all(""));
    }

    #[test]
    fn open_files_go_up_to_the_hard_limit() {
        let raised = raise_open_files().unwrap();
        let limit = limit(libc::RLIMIT_NOFILE).unwrap();
        assert_eq!((raised, limit.rlim_cur), (limit.rlim_max, limit.rlim_max));
    }

    #[test]
    fn more_memory_than_any_limit_but_infinity_is_refused_with_ways_to_raise_it() {
        let message = HostError::Memlock { limit: 64 << 10, required: 1 << 20 }.to_string();
        for way in ["may lock 64 KiB", "needs 1024 KiB", "ulimit -l 1024", "LimitMEMLOCK=1048576", "prlimit"] {
            assert!(message.contains(way), "{way}: {message}");
        }
    }
}
