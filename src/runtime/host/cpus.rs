//! Which CPUs the cores run on: what the kernel allows, what a cgroup pays for, what the user asks for.
#![allow(unsafe_code)]

use super::HostError;
use std::io;

/// CPUs that a mask can name: twice what Linux can be built for (8192 bits).
const MASK_WORDS: usize = 256;

/// The CPUs that this process may run on, ascending: its affinity mask, within its cpuset.
///
/// # Errors
/// Those of `sched_getaffinity`.
pub fn cpus_allowed() -> io::Result<Vec<usize>> {
    let mut mask = [0u64; MASK_WORDS];
    // SAFETY: the kernel writes at most the size passed, into an array that lives through the call. `cpu_set_t` is
    // a plain array of words, shorter than ours; a pointer to it is all the prototype wants.
    let result = unsafe { libc::sched_getaffinity(0, size_of_val(&mask), mask.as_mut_ptr().cast()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok((0..MASK_WORDS * 64).filter(|&cpu| mask[cpu / 64] >> (cpu % 64) & 1 == 1).collect())
}

/// How many CPUs at once the cgroup's quota pays for, at least 1; no more than `cpus_allowed` has.
pub fn cpus_within_quota() -> usize {
    std::thread::available_parallelism().map_or(1, |count| count.get())
}

/// Reads a CPU list as in `0-3,6`, ascending or not.
///
/// # Errors
/// What is wrong with it, as the end of a sentence that began with the list.
pub fn parse_cpus(text: &str) -> Result<Vec<usize>, String> {
    let number = |text: &str| match text.trim().parse::<usize>() {
        Ok(cpu) if cpu < MASK_WORDS * 64 && !text.contains('+') => Ok(cpu),
        _ => Err("is not a list of CPUs, as in 0-3,6".to_owned()),
    };
    let mut cpus = Vec::new();
    for item in text.split(',') {
        let (first, last) = item.split_once('-').unwrap_or((item, item));
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return Err(format!("has a range that runs backwards: {first}-{last}"));
        }
        for cpu in first..=last {
            if cpus.contains(&cpu) {
                return Err(format!("names CPU {cpu} twice: each core has a CPU of its own"));
            }
            cpus.push(cpu);
        }
    }
    Ok(cpus)
}

/// Writes what `parse_cpus` reads, with ranges where numbers follow each other.
pub fn format_cpus(cpus: &[usize]) -> String {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for &cpu in cpus {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == cpu => *last = cpu,
            _ => ranges.push((cpu, cpu)),
        }
    }
    let texts = ranges.iter().map(|&(first, last)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    });
    texts.collect::<Vec<_>>().join(",")
}

/// The CPU of each core. `asked` CPUs or else the `allowed` ones; the first `count` of them, or else as many as the quota pays for
/// (all, if they were asked for by number).
///
/// # Errors
/// `HostError::Cpus`: one that is asked for is not allowed, or there are fewer than `count`.
pub fn choose_cpus(
    allowed: &[usize],
    quota: usize,
    asked: Option<&[usize]>,
    count: Option<usize>,
) -> Result<Vec<usize>, HostError> {
    if let Some(cpu) = asked.unwrap_or(&[]).iter().find(|cpu| !allowed.contains(cpu)) {
        return Err(HostError::Cpus(format!(
            "CPU {cpu} is not one this process may use, which are {}: change --cpus, or the affinity mask or cpuset \
             (taskset, systemd's CPUAffinity=, a container's --cpuset-cpus)",
            format_cpus(allowed),
        )));
    }
    let available = asked.unwrap_or(allowed);
    let count = match (count, asked) {
        (Some(count), _) => count,
        (None, Some(asked)) => asked.len(),
        (None, None) => quota.clamp(1, allowed.len()),
    };
    if count > available.len() {
        return Err(HostError::Cpus(format!(
            "{count} cores are asked for, and there are {} CPUs to run them on, {}: each core has a CPU of its own; \
             lower --cores",
            available.len(),
            format_cpus(available),
        )));
    }
    Ok(available[..count].to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_may_run_somewhere() {
        let cpus = cpus_allowed().unwrap();
        assert!(!cpus.is_empty());
        assert!(cpus_within_quota() <= cpus.len());
    }

    #[test]
    fn cpu_lists_read_as_taskset_writes_them() {
        assert_eq!(parse_cpus("0-3,6"), Ok(vec![0, 1, 2, 3, 6]));
        assert_eq!(parse_cpus("5, 1"), Ok(vec![5, 1]));
        for bad in ["", "a", "1-", "-1", "3-1", "1,1", "0-2,2", "0,,1", "99999999999", "16384", "+1"] {
            assert!(parse_cpus(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn cpu_lists_are_written_with_ranges() {
        assert_eq!(format_cpus(&[0, 1, 2, 6, 8, 9]), "0-2,6,8-9");
        assert_eq!(format_cpus(&[]), "");
    }

    #[test]
    fn without_wishes_there_is_a_core_for_each_cpu_that_is_paid_for() {
        assert_eq!(choose_cpus(&[2, 3, 5], 3, None, None).unwrap(), [2, 3, 5]);
        assert_eq!(choose_cpus(&[2, 3, 5], 2, None, None).unwrap(), [2, 3]);
    }

    #[test]
    fn wishes_go_before_the_quota() {
        assert_eq!(choose_cpus(&[2, 3, 5], 1, None, Some(2)).unwrap(), [2, 3]);
        assert_eq!(choose_cpus(&[2, 3, 5], 1, Some(&[5, 2]), None).unwrap(), [5, 2]);
        assert_eq!(choose_cpus(&[2, 3, 5], 1, Some(&[5, 2]), Some(1)).unwrap(), [5]);
    }

    #[test]
    fn cpus_that_are_not_there_are_refused() {
        let message = choose_cpus(&[0, 1], 2, Some(&[1, 7]), None).unwrap_err().to_string();
        assert!(message.starts_with("CPU 7 is not one this process may use, which are 0-1"), "{message}");
        assert!(choose_cpus(&[0, 1], 2, None, Some(3)).is_err());
        assert!(choose_cpus(&[0, 1, 2], 2, Some(&[1]), Some(2)).is_err());
    }
}
