//! What a broker wants of its host, one finding for each: found, wanted, why, and the command that changes it.

use crate::disk::Latencies;
use crate::host::Host;
use std::fmt::Write as _;

/// What the broker is going to need; its own crate knows the numbers.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// CPUs of its cores.
    pub cpus: Vec<usize>,
    pub data_dir: std::path::PathBuf,
    /// Connections that may wait to be accepted.
    pub backlog: u64,
    /// Open files, and bytes of locked memory.
    pub files: u64,
    pub locked_bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Good,
    /// It works, and would work better.
    Better,
    /// Something is wrong: it is slow, or not safe.
    Bad,
    /// This host has no such thing, or does not say.
    Unknown,
}

/// A file of the kernel that takes another value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub path: String,
    pub value: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub what: &'static str,
    pub found: String,
    pub wanted: &'static str,
    pub verdict: Verdict,
    /// Why it matters to this broker.
    pub why: &'static str,
    /// What a person runs to change it; empty where nothing is to be changed.
    pub command: String,
    /// What `apply` may do by itself.
    pub changes: Vec<Change>,
}

impl Finding {
    fn new(what: &'static str, wanted: &'static str, why: &'static str) -> Finding {
        let found = "not said".to_owned();
        Finding { what, found, wanted, verdict: Verdict::Unknown, why, command: String::new(), changes: Vec::new() }
    }

    fn found(mut self, found: impl Into<String>, verdict: Verdict) -> Finding {
        self.found = found.into();
        self.verdict = verdict;
        self
    }

    /// A command for people alone, where something is to be changed.
    fn command(mut self, command: impl Into<String>) -> Finding {
        if matches!(self.verdict, Verdict::Better | Verdict::Bad) {
            self.command = command.into();
        }
        self
    }

    /// Files to write, where something is to be changed; the command is the same by hand.
    fn change(mut self, paths: impl IntoIterator<Item = String>, value: &str) -> Finding {
        if matches!(self.verdict, Verdict::Better | Verdict::Bad) {
            self.changes = paths.into_iter().map(|path| Change { path, value: value.to_owned() }).collect();
            let paths: Vec<&str> = self.changes.iter().map(|change| change.path.as_str()).collect();
            self.command = format!("echo {value} | sudo tee {}", paths.join(" "));
        }
        self
    }
}

fn good_if(good: bool, otherwise: Verdict) -> Verdict {
    if good { Verdict::Good } else { otherwise }
}

/// Looks at everything. `syncs`: measured times of 4 KiB durable writes, where they were.
pub fn check(host: &Host, wanted: &Wanted, syncs: Option<Latencies>) -> Vec<Finding> {
    let mut findings = vec![
        kernel(host),
        io_uring(host),
        governor(host),
        clock_source(host),
        numa(host, &wanted.cpus),
        huge_pages(host),
        swap(host),
        damon(host),
        congestion(host),
        backlog(host, wanted.backlog),
        files(host, wanted.files),
        locked_memory(host, wanted.locked_bytes),
    ];
    findings.extend(disk(host, wanted, syncs));
    findings
}

fn kernel(host: &Host) -> Finding {
    let finding = Finding::new("kernel", "6.1 or later", "the broker's rings use what came with it (DEFER_TASKRUN)");
    let Some(release) = host.read("/proc/sys/kernel/osrelease") else { return finding };
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    finding.found(release, good_if(version >= (6, 1), Verdict::Bad)).command("install a later kernel")
}

fn io_uring(host: &Host) -> Finding {
    let finding = Finding::new("io_uring", "allowed (0)", "everything the broker does goes through it");
    // Kernels before 6.6 have no such switch.
    let Some(disabled) = host.read("/proc/sys/kernel/io_uring_disabled") else {
        return finding.found("no switch", Verdict::Good);
    };
    let verdict = match disabled.as_str() {
        "0" => Verdict::Good,
        "1" => Verdict::Better,
        _ => Verdict::Bad,
    };
    finding.found(disabled, verdict).change(["/proc/sys/kernel/io_uring_disabled".to_owned()], "0")
}

fn governor(host: &Host) -> Finding {
    let finding = Finding::new(
        "CPU governor",
        "performance",
        "a core that sleeps between turns is clocked down, and each turn begins slowly",
    );
    let path = |cpu: &str| format!("/sys/devices/system/cpu/{cpu}/cpufreq/scaling_governor");
    let mut others = Vec::new();
    let mut seen = Vec::new();
    for cpu in host.list("/sys/devices/system/cpu") {
        let Some(governor) = host.read(&path(&cpu)) else { continue };
        if governor != "performance" {
            others.push(path(&cpu));
        }
        if !seen.contains(&governor) {
            seen.push(governor);
        }
    }
    if seen.is_empty() {
        return finding.found("the host decides (a virtual machine?)", Verdict::Unknown);
    }
    finding.found(seen.join(", "), good_if(others.is_empty(), Verdict::Better)).change(others, "performance")
}

fn clock_source(host: &Host) -> Finding {
    const PATH: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    let finding = Finding::new(
        "clock source",
        "tsc or kvm-clock",
        "others ask the kernel or a slow device each time, several times a request",
    );
    let Some(source) = host.read(PATH) else { return finding };
    let is_fast = ["tsc", "kvm-clock", "hyperv_clocksource_tsc_page", "arch_sys_counter"].contains(&source.as_str());
    finding.found(source, good_if(is_fast, Verdict::Bad)).change([PATH.to_owned()], "tsc")
}

fn numa(host: &Host, cpus: &[usize]) -> Finding {
    let finding = Finding::new("NUMA nodes", "the broker's cores on one", "memory of another node is slower to reach");
    let nodes: Vec<String> =
        host.list("/sys/devices/system/node").into_iter().filter(|name| name.starts_with("node")).collect();
    if nodes.is_empty() {
        return finding;
    }
    let holds = |node: &&String| {
        let list = host.read(&format!("/sys/devices/system/node/{node}/cpulist")).unwrap_or_default();
        let of_node = parse_cpus(&list);
        cpus.iter().any(|cpu| of_node.contains(cpu))
    };
    let used = nodes.iter().filter(holds).count();
    finding
        .found(format!("{} in all, {used} used", nodes.len()), good_if(used <= 1, Verdict::Better))
        .command("run one broker for each node, with --cpus of that node, or leave it so for more cores")
}

/// `0-3,6` as numbers.
fn parse_cpus(list: &str) -> Vec<usize> {
    let range = |part: &str| -> Option<std::ops::RangeInclusive<usize>> {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        Some(from.trim().parse().ok()?..=to.trim().parse().ok()?)
    };
    list.split(',').filter_map(range).flatten().collect()
}

fn huge_pages(host: &Host) -> Finding {
    const PATH: &str = "/sys/kernel/mm/transparent_hugepage/enabled";
    let finding = Finding::new(
        "transparent huge pages",
        "madvise",
        "records lie in them, so that a write is few pieces to the disk; always lets the kernel stop a core to gather pages elsewhere",
    );
    let Some(chosen) = host.chosen(PATH) else { return finding };
    let verdict = good_if(chosen == "madvise", Verdict::Better);
    finding.found(chosen, verdict).change([PATH.to_owned()], "madvise")
}

fn swap(host: &Host) -> Finding {
    const PATH: &str = "/proc/sys/vm/swappiness";
    let finding = Finding::new(
        "swap",
        "none, or swappiness 1",
        "a core whose memory is swapped out stands still with all its partitions",
    );
    let (Some(swaps), Some(swappiness)) = (host.read("/proc/swaps"), host.read(PATH)) else { return finding };
    let areas = swaps.lines().skip(1).count();
    if areas == 0 {
        return finding.found("none", Verdict::Good);
    }
    let is_low = swappiness.parse().is_ok_and(|value: u32| value <= 1);
    finding
        .found(format!("{areas} areas, swappiness {swappiness}"), good_if(is_low, Verdict::Better))
        .change([PATH.to_owned()], "1")
}

fn damon(host: &Host) -> Finding {
    const KDAMONDS: &str = "/sys/kernel/mm/damon/admin/kdamonds";
    const RECLAIM: &str = "/sys/module/damon_reclaim/parameters/enabled";
    let finding = Finding::new(
        "DAMON",
        "off",
        "its kernel thread samples memory for milliseconds at a time, and a core on that CPU waits; memory it gives away has to be found anew",
    );
    let states = host.list(KDAMONDS).into_iter().map(|entry| format!("{KDAMONDS}/{entry}/state"));
    let mut running: Vec<String> = states.filter(|state| host.read(state).is_some_and(|text| text == "on")).collect();
    let reclaims = host.read(RECLAIM).is_some_and(|text| text == "Y");
    running.extend(reclaims.then(|| RECLAIM.to_owned()));
    if running.is_empty() {
        return finding.found("off", Verdict::Good);
    }
    // Whoever runs the host may have reasons: this is for a person to decide, not for `apply`.
    let value = |path: &String| if path == RECLAIM { "N" } else { "off" };
    let commands: Vec<String> = running.iter().map(|path| format!("echo {} | sudo tee {path}", value(path))).collect();
    finding.found(format!("on ({})", running.len()), Verdict::Better).command(commands.join("; "))
}

fn congestion(host: &Host) -> Finding {
    const PATH: &str = "/proc/sys/net/ipv4/tcp_congestion_control";
    let finding = Finding::new(
        "congestion control",
        "cubic within a data centre",
        "bbr paces by timers, which cost half the throughput on a fast short path",
    );
    let Some(found) = host.read(PATH) else { return finding };
    let verdict = good_if(!found.starts_with("bbr"), Verdict::Better);
    finding.found(found, verdict).change([PATH.to_owned()], "cubic")
}

fn backlog(host: &Host, wanted: u64) -> Finding {
    const PATH: &str = "/proc/sys/net/core/somaxconn";
    let finding = Finding::new(
        "net.core.somaxconn",
        "socket.listen.backlog.size or more",
        "clients that all connect at once are refused beyond it",
    );
    let Some(found) = host.read(PATH) else { return finding };
    let verdict = good_if(found.parse().is_ok_and(|value: u64| value >= wanted), Verdict::Better);
    finding.found(found, verdict).change([PATH.to_owned()], &wanted.to_string())
}

fn files(host: &Host, wanted: u64) -> Finding {
    let finding = Finding::new(
        "open files",
        "one a connection, one a partition written to, 2048 a core",
        "without one a connection is refused, a partition cannot be read",
    );
    let Some(found) = host.limit("Max open files") else { return finding };
    finding
        .found(found.to_string(), good_if(found >= wanted, Verdict::Better))
        .command(format!("LimitNOFILE={} in its unit, or ulimit -n", wanted.max(1 << 20)))
}

fn locked_memory(host: &Host, wanted: u64) -> Finding {
    let finding = Finding::new(
        "locked memory",
        "512 KiB a core",
        "each core's executor locks its rings; without it a core does not start",
    );
    let found = host.limit("Max locked memory");
    let text = found.map_or("unlimited".to_owned(), |bytes| format!("{} KiB", bytes / 1024));
    let verdict = good_if(found.is_none_or(|bytes| bytes >= wanted), Verdict::Bad);
    finding.found(text, verdict).command("LimitMEMLOCK=infinity in its unit, or ulimit -l unlimited")
}

/// Everything about the disk below the data directory.
fn disk(host: &Host, wanted: &Wanted, syncs: Option<Latencies>) -> Vec<Finding> {
    let Some(mount) = host.mount_of(&wanted.data_dir) else { return Vec::new() };
    let known = ["ext4", "xfs"].contains(&mount.kind.as_str());
    let mut findings = vec![
        Finding::new("filesystem", "xfs or ext4", "others have no O_DIRECT, or were never measured")
            .found(mount.kind.clone(), good_if(known, Verdict::Bad))
            .command("put the data directory on a disk with xfs or ext4"),
        mount_options(&mount.options),
    ];
    if let Some(device) = host.block_device(&mount) {
        findings.push(scheduler(host, &device));
        findings.push(interrupts(host, &device, &wanted.cpus));
        findings.push(disk_node(host, &device, &wanted.cpus));
        findings.push(write_cache(host, &device));
    }
    if let Some(syncs) = syncs {
        findings.push(sync_latency(syncs));
    }
    findings
}

fn mount_options(options: &[String]) -> Finding {
    let has = |name: &str| options.iter().any(|option| option == name);
    let finding = Finding::new(
        "mount options",
        "barriers on, no discard",
        "nobarrier loses acknowledged records when power fails; with discard, deleting gigabytes holds commits up for up to half a second",
    );
    if has("nobarrier") || has("barrier=0") {
        return finding.found("barriers are off", Verdict::Bad).command("mount without nobarrier");
    }
    let verdict = good_if(!has("discard"), Verdict::Better);
    finding
        .found(if has("discard") { "discard" } else { "barriers on" }, verdict)
        .command("mount with nodiscard, and run fstrim.timer instead")
}

fn scheduler(host: &Host, device: &str) -> Finding {
    let path = format!("/sys/block/{device}/queue/scheduler");
    let finding = Finding::new(
        "I/O scheduler",
        "none (mq-deadline for spinning disks)",
        "the broker orders its writes itself; a scheduler adds a queue and its lock",
    );
    let Some(chosen) = host.chosen(&path).or_else(|| host.read(&path).filter(|text| text == "none")) else {
        return finding;
    };
    let spins = host.read(&format!("/sys/block/{device}/queue/rotational")).is_some_and(|text| text == "1");
    let fits = chosen == "none" || (spins && chosen == "mq-deadline");
    finding.found(format!("{chosen} ({device})"), good_if(fits, Verdict::Better)).change([path], "none")
}

fn interrupts(host: &Host, device: &str, cpus: &[usize]) -> Finding {
    let finding = Finding::new(
        "disk interrupts",
        "on the broker's cores",
        "a synced write ends in a kernel worker on the CPU of the interrupt; a busy client there holds every commit up",
    );
    let found = host.interrupts(device);
    if found.is_empty() {
        return finding;
    }
    let mut list: Vec<usize> = found.iter().map(|interrupt| interrupt.cpu).collect();
    list.sort_unstable();
    list.dedup();
    let list: Vec<String> = list.iter().map(usize::to_string).collect();
    // A disk with a queue for each CPU interrupts whoever asked: then those of other programs are elsewhere.
    let is_near = found.iter().any(|interrupt| cpus.contains(&interrupt.cpu));
    let paths = found.iter().map(|interrupt| format!("/proc/irq/{}/smp_affinity_list", interrupt.number));
    let own: Vec<String> = cpus.iter().map(usize::to_string).collect();
    finding.found(format!("CPU {}", list.join(", ")), good_if(is_near, Verdict::Better)).change(paths, &own.join(","))
}

/// Where the disk's controller is plugged in.
fn disk_node(host: &Host, device: &str, cpus: &[usize]) -> Finding {
    let finding = Finding::new(
        "NUMA node of the disk",
        "that of the broker's cores",
        "what is read and written crosses from one processor to the other",
    );
    let node = ["device/numa_node", "device/device/numa_node"]
        .iter()
        .find_map(|path| host.read(&format!("/sys/block/{device}/{path}"))?.parse::<u32>().ok());
    // -1, which is no number of a node: there is only one, or nobody knows.
    let Some(node) = node else { return finding.found("none", Verdict::Good) };
    let list = host.read(&format!("/sys/devices/system/node/node{node}/cpulist")).unwrap_or_default();
    let of_node = parse_cpus(&list);
    let near = cpus.iter().filter(|cpu| of_node.contains(cpu)).count();
    finding
        .found(format!("{node}, with {near} of {} cores", cpus.len()), good_if(near == cpus.len(), Verdict::Better))
        .command(format!("run the broker with --cpus {list}"))
}

fn write_cache(host: &Host, device: &str) -> Finding {
    let finding = Finding::new(
        "disk write cache",
        "write through, or protected against loss of power",
        "a disk that answers before it has written makes each sync wait for a flush",
    );
    let Some(cache) = host.read(&format!("/sys/block/{device}/queue/write_cache")) else { return finding };
    // Both are safe: with write back the kernel flushes for every durable write.
    finding.found(cache, Verdict::Good)
}

fn sync_latency(syncs: Latencies) -> Finding {
    let Latencies { p50, p99, longest } = syncs;
    let verdict = match p50 {
        p50 if p50 <= 500.0 => Verdict::Good,
        p50 if p50 <= 5000.0 => Verdict::Better,
        _ => Verdict::Bad,
    };
    Finding::new(
        "durable write of 4 KiB",
        "below 500 µs at the median",
        "every acknowledgement waits for one; the journal has one or two under way at a time",
    )
    .found(format!("{p50:.0} µs at the median, p99 {p99:.0}, longest {longest:.0}"), verdict)
    .command("use a disk with power-loss protection; spread --data-dir over several")
}

/// As `tune check` prints it.
pub fn table(findings: &[Finding]) -> String {
    let mut out = String::new();
    for finding in findings {
        let sign = match finding.verdict {
            Verdict::Good => "ok    ",
            Verdict::Better => "better",
            Verdict::Bad => "BAD   ",
            Verdict::Unknown => "?     ",
        };
        writeln!(out, "{sign}  {:<24}{}", finding.what, finding.found).expect("a string takes all");
        if matches!(finding.verdict, Verdict::Better | Verdict::Bad) {
            let (wanted, why, command) = (finding.wanted, finding.why, &finding.command);
            writeln!(out, "        wanted: {wanted}\n        why:    {why}\n        change: {command}")
                .expect("a string takes all");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A host of files.
    fn host(files: &[(&str, &str)]) -> (tempfile::TempDir, Host) {
        let root = tempfile::tempdir().expect("a folder");
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().expect("below the root")).expect("a folder");
            std::fs::write(path, text).expect("written");
        }
        let host = Host::below(root.path());
        (root, host)
    }

    fn wanted() -> Wanted {
        Wanted { cpus: vec![0, 1], data_dir: "/data".into(), backlog: 1000, files: 10_000, locked_bytes: 1 << 20 }
    }

    fn finding(files: &[(&str, &str)], what: &str) -> Finding {
        let (_root, host) = host(files);
        let findings = check(&host, &wanted(), None);
        findings.into_iter().find(|finding| finding.what == what).expect(what)
    }

    /// What is looked at, files of the host, and what is to be said.
    type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], Verdict);

    #[test]
    fn each_thing_is_judged_by_what_it_is() {
        let governor = "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor";
        let clock = "sys/devices/system/clocksource/clocksource0/current_clocksource";
        let cases: &[Case] = &[
            ("kernel", &[("proc/sys/kernel/osrelease", "6.12.3-1\n")], Verdict::Good),
            ("kernel", &[("proc/sys/kernel/osrelease", "5.15.0")], Verdict::Bad),
            ("io_uring", &[], Verdict::Good),
            ("io_uring", &[("proc/sys/kernel/io_uring_disabled", "2")], Verdict::Bad),
            ("CPU governor", &[(governor, "powersave")], Verdict::Better),
            ("CPU governor", &[(governor, "performance")], Verdict::Good),
            ("CPU governor", &[], Verdict::Unknown),
            ("clock source", &[(clock, "hpet")], Verdict::Bad),
            ("clock source", &[(clock, "tsc")], Verdict::Good),
            (
                "transparent huge pages",
                &[("sys/kernel/mm/transparent_hugepage/enabled", "[always] madvise never")],
                Verdict::Better,
            ),
            (
                "transparent huge pages",
                &[("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never")],
                Verdict::Good,
            ),
            (
                "transparent huge pages",
                &[("sys/kernel/mm/transparent_hugepage/enabled", "always madvise [never]")],
                Verdict::Better,
            ),
            ("swap", &[("proc/swaps", "Filename\n/swapfile file"), ("proc/sys/vm/swappiness", "60")], Verdict::Better),
            ("swap", &[("proc/swaps", "Filename"), ("proc/sys/vm/swappiness", "60")], Verdict::Good),
            ("DAMON", &[], Verdict::Good),
            ("DAMON", &[("sys/kernel/mm/damon/admin/kdamonds/nr_kdamonds", "1")], Verdict::Good),
            ("DAMON", &[("sys/kernel/mm/damon/admin/kdamonds/0/state", "off")], Verdict::Good),
            ("DAMON", &[("sys/kernel/mm/damon/admin/kdamonds/0/state", "on")], Verdict::Better),
            ("DAMON", &[("sys/module/damon_reclaim/parameters/enabled", "Y")], Verdict::Better),
            ("net.core.somaxconn", &[("proc/sys/net/core/somaxconn", "128")], Verdict::Better),
            ("net.core.somaxconn", &[("proc/sys/net/core/somaxconn", "4096")], Verdict::Good),
            (
                "open files",
                &[("proc/self/limits", "Limit  Soft\nMax open files            1024    4096  files")],
                Verdict::Better,
            ),
            ("locked memory", &[("proc/self/limits", "Max locked memory         65536   65536 bytes")], Verdict::Bad),
            (
                "locked memory",
                &[("proc/self/limits", "Max locked memory         unlimited unlimited bytes")],
                Verdict::Good,
            ),
            (
                "NUMA nodes",
                &[("sys/devices/system/node/node0/cpulist", "0"), ("sys/devices/system/node/node1/cpulist", "1-3")],
                Verdict::Better,
            ),
            (
                "NUMA nodes",
                &[("sys/devices/system/node/node0/cpulist", "0-3"), ("sys/devices/system/node/node1/cpulist", "4-7")],
                Verdict::Good,
            ),
        ];
        for (what, files, verdict) in cases {
            let found = finding(files, what);
            assert_eq!(found.verdict, *verdict, "{what}: {found:?}");
            assert_eq!(found.command.is_empty(), !matches!(verdict, Verdict::Better | Verdict::Bad), "{found:?}");
        }
    }

    #[test]
    fn the_disk_below_the_data_directory_is_looked_at() {
        let files = [
            ("proc/self/mounts", "/dev/vda1 / ext4 rw 0 0\n/dev/nvme0n1 /data ext4 rw,discard 0 0"),
            ("sys/block/nvme0n1/queue/scheduler", "none [bfq]"),
            ("sys/block/nvme0n1/queue/rotational", "0"),
            ("sys/block/nvme0n1/queue/write_cache", "write back"),
            ("sys/block/vda/queue/scheduler", "[none]"),
        ];
        assert_eq!(finding(&files, "mount options").verdict, Verdict::Better);
        let scheduler = finding(&files, "I/O scheduler");
        assert_eq!(scheduler.verdict, Verdict::Better);
        assert_eq!(
            scheduler.changes,
            [Change { path: "/sys/block/nvme0n1/queue/scheduler".into(), value: "none".into() }]
        );
        assert_eq!(scheduler.command, "echo none | sudo tee /sys/block/nvme0n1/queue/scheduler");
    }

    #[test]
    fn interrupts_are_found_by_the_name_of_the_disk() {
        let mut files = vec![
            ("proc/self/mounts", "/dev/nvme0n1 /data ext4 rw 0 0"),
            ("sys/block/nvme0n1/queue/scheduler", "[none]"),
            (
                "proc/interrupts",
                "      CPU0 CPU1 CPU2\n 30:  0 5 900 PCI-MSI 1-edge nvme0q1\n 31: 7 7 7 PCI-MSI 2-edge eth0",
            ),
        ];
        let found = finding(&files, "disk interrupts");
        assert_eq!((found.found.as_str(), found.verdict), ("CPU 2", Verdict::Better));
        assert_eq!(found.changes, [Change { path: "/proc/irq/30/smp_affinity_list".into(), value: "0,1".into() }]);
        // Where they go now counts, wherever they came before.
        files.push(("proc/irq/30/effective_affinity_list", "1\n"));
        let found = finding(&files, "disk interrupts");
        assert_eq!((found.found.as_str(), found.verdict), ("CPU 1", Verdict::Good));
    }

    #[test]
    fn the_disk_is_best_at_the_node_of_the_cores() {
        let of_node = |node: &'static str, cpus: &'static str| {
            let files = [
                ("proc/self/mounts", "/dev/nvme0n1 /data ext4 rw 0 0"),
                ("sys/block/nvme0n1/device/numa_node", node),
                ("sys/devices/system/node/node1/cpulist", cpus),
            ];
            finding(&files, "NUMA node of the disk")
        };
        assert_eq!(of_node("-1", "").verdict, Verdict::Good);
        assert_eq!(of_node("1", "0-7").verdict, Verdict::Good);
        let far = of_node("1", "1-7");
        assert_eq!((far.found.as_str(), far.verdict), ("1, with 1 of 2 cores", Verdict::Better));
        assert_eq!(far.command, "run the broker with --cpus 1-7");
    }

    #[test]
    fn a_table_has_a_line_for_each_and_what_to_do_where_something_is_to_be_done() {
        let (_root, host) = host(&[("proc/sys/net/core/somaxconn", "128"), ("proc/sys/kernel/osrelease", "6.12.0")]);
        let text = table(&check(&host, &wanted(), None));
        assert!(text.contains("ok      kernel"), "{text}");
        assert!(text.contains("change: echo 1000 | sudo tee /proc/sys/net/core/somaxconn"), "{text}");
    }
}
