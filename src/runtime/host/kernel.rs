//! Whether this kernel offers the io_uring that the cores are built on, and lets this process use it.
#![allow(unsafe_code)]

use super::HostError;
use io_uring::{IoUring, Probe, opcode};
use std::io;

/// Operations that the cores submit. All are older than the ring's flags (6.1); a seccomp filter or a vendor's kernel may still lack one.
const OPERATIONS: &[(&str, u8)] = &[
    ("ACCEPT", opcode::Accept::CODE),
    ("ASYNC_CANCEL", opcode::AsyncCancel::CODE),
    ("CONNECT", opcode::Connect::CODE),
    ("FALLOCATE", opcode::Fallocate::CODE),
    ("FSYNC", opcode::Fsync::CODE),
    ("MSG_RING", opcode::MsgRingData::CODE),
    ("POLL_ADD", opcode::PollAdd::CODE),
    ("READ", opcode::Read::CODE),
    ("READ_FIXED", opcode::ReadFixed::CODE),
    ("RECV", opcode::Recv::CODE),
    ("SEND", opcode::Send::CODE),
    ("SENDMSG", opcode::SendMsg::CODE),
    ("SPLICE", opcode::Splice::CODE),
    ("TIMEOUT", opcode::Timeout::CODE),
    ("WRITE", opcode::Write::CODE),
    ("WRITE_FIXED", opcode::WriteFixed::CODE),
];

/// Makes a ring as a core does, looks for the operations it needs and runs one.
///
/// # Errors
/// `HostError::Kernel`: io_uring is missing, forbidden (sysctl, seccomp) or older than Linux 6.1.
pub fn check_kernel() -> Result<(), HostError> {
    let mut ring: IoUring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .build(8)
        .map_err(|error| refused("io_uring_setup", &error))?;
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe).map_err(|error| refused("io_uring_register", &error))?;
    let missing: Vec<&str> =
        OPERATIONS.iter().filter(|(_, code)| !probe.is_supported(*code)).map(|(name, _)| *name).collect();
    if !missing.is_empty() {
        return Err(HostError::Kernel(format!(
            "the io_uring of this kernel ({}) lacks {}: run Linux 6.1 or later",
            release(),
            missing.join(", "),
        )));
    }
    // SAFETY: a NOP refers to no memory.
    unsafe { ring.submission().push(&opcode::Nop::new().build()) }.expect("a new ring has room");
    ring.submit_and_wait(1).map_err(|error| refused("io_uring_enter", &error))?;
    Ok(())
}

fn refused(call: &str, error: &io::Error) -> HostError {
    let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    HostError::Kernel(explain(call, error, disabled.trim(), &release()))
}

/// What a failed call of io_uring means. `disabled` is the content of `kernel.io_uring_disabled`, empty where there is none.
fn explain(call: &str, error: &io::Error, disabled: &str, release: &str) -> String {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) if ["1", "2"].contains(&disabled) => format!(
            "io_uring is switched off on this machine (kernel.io_uring_disabled = {disabled}): \
             `sysctl kernel.io_uring_disabled=0` as root switches it on"
        ),
        Some(libc::EPERM | libc::EACCES) => format!(
            "this process may not use io_uring ({call}: {error}); a seccomp filter, as containers have by default, \
             forbids it: allow io_uring_setup, io_uring_enter and io_uring_register in the container's seccomp profile, \
             or run it with `--security-opt seccomp=unconfined`"
        ),
        Some(libc::ENOSYS) => format!(
            "there is no io_uring here ({call}: {error}): run Linux 6.1 or later, built with CONFIG_IO_URING, outside \
             of sandboxes that emulate the kernel; this is {release}"
        ),
        Some(libc::EINVAL) => format!(
            "the io_uring of this kernel is too old ({call} refuses SINGLE_ISSUER with DEFER_TASKRUN): run Linux 6.1 or \
             later; this is {release}"
        ),
        _ => format!("io_uring does not work here ({call}: {error}); the kernel is {release}"),
    }
}

fn release() -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    match release.trim() {
        "" => "unknown".to_owned(),
        release => release.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where the tests run, the broker runs.
    #[test]
    fn this_kernel_has_what_the_cores_need() {
        check_kernel().unwrap();
    }

    #[test]
    fn each_refusal_is_told_with_its_remedy() {
        let told = |errno, disabled| explain("io_uring_setup", &io::Error::from_raw_os_error(errno), disabled, "5.4.0");
        assert!(told(libc::EPERM, "2").contains("sysctl kernel.io_uring_disabled=0"));
        assert!(told(libc::EPERM, "0").contains("seccomp"));
        assert!(told(libc::EPERM, "").contains("seccomp"));
        assert!(told(libc::ENOSYS, "").contains("CONFIG_IO_URING"));
        assert!(told(libc::EINVAL, "").contains("6.1 or later; this is 5.4.0"));
        assert!(told(libc::ENOMEM, "").contains("io_uring does not work here"));
    }
}
