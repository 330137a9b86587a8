//! What the kernel says of itself in /proc and /sys, as text. Changes nothing.

use std::path::{Path, PathBuf};

/// A host, or a folder that looks like one.
#[derive(Clone, Debug)]
pub struct Host {
    root: PathBuf,
}

/// Where a directory is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    pub device: String,
    pub kind: String,
    pub options: Vec<String>,
}

/// An interrupt that has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interrupt {
    pub number: String,
    /// Where they go, or most of them came.
    pub cpu: usize,
}

impl Host {
    /// This machine.
    pub fn here() -> Host {
        Host::below("/")
    }

    /// The machine whose /proc and /sys are below `root`.
    pub fn below(root: impl Into<PathBuf>) -> Host {
        Host { root: root.into() }
    }

    /// `path` (absolute) on this host.
    pub fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// The text of a file, without the newline at its end; `None` where it cannot be read.
    pub fn read(&self, path: &str) -> Option<String> {
        Some(std::fs::read_to_string(self.path(path)).ok()?.trim_end().to_owned())
    }

    /// The names in a folder, sorted; none where there is no such folder.
    pub fn list(&self, path: &str) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.path(path)) else { return Vec::new() };
        let mut names: Vec<String> =
            entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        names
    }

    /// The word in brackets of a file that offers several: `always [madvise] never`.
    pub fn chosen(&self, path: &str) -> Option<String> {
        let text = self.read(path)?;
        let (_, after) = text.split_once('[')?;
        Some(after.split_once(']')?.0.to_owned())
    }

    /// The mount that `dir` (absolute, as the host has it) is on.
    pub fn mount_of(&self, dir: &Path) -> Option<Mount> {
        let mounts = self.read("/proc/self/mounts")?;
        let line = |line: &str| -> Option<(usize, Mount)> {
            let fields: Vec<&str> = line.split(' ').collect();
            let [device, place, kind, options, ..] = fields[..] else { return None };
            let options = options.split(',').map(str::to_owned).collect();
            let is_above = dir.starts_with(place);
            is_above.then(|| (place.len(), Mount { device: device.to_owned(), kind: kind.to_owned(), options }))
        };
        // The longest place, and of equal ones the last: it covers the others.
        mounts.lines().filter_map(line).max_by_key(|(length, _)| *length).map(|(_, mount)| mount)
    }

    /// The block device of a mount, as /sys/block names it: `/dev/nvme0n1p2` is on `nvme0n1`.
    pub fn block_device(&self, mount: &Mount) -> Option<String> {
        let name = mount.device.strip_prefix("/dev/")?;
        self.list("/sys/block").into_iter().filter(|disk| name.starts_with(disk.as_str())).max_by_key(String::len)
    }

    /// The interrupts of `device`'s requests that have come; none where /proc/interrupts names them otherwise.
    pub fn interrupts(&self, device: &str) -> Vec<Interrupt> {
        let Some(text) = self.read("/proc/interrupts") else { return Vec::new() };
        // nvme0n1 has the queues of its controller: nvme0q1 and so on. A virtio disk has those of its place on the bus.
        let prefix = match device.strip_prefix("nvme").and_then(|rest| rest.split_once('n')) {
            Some((controller, _)) => format!("nvme{controller}q"),
            None => {
                let places = self.list(&format!("/sys/block/{device}/device/driver"));
                let own = |place: &String| {
                    !self.list(&format!("/sys/block/{device}/device/driver/{place}/block/{device}")).is_empty()
                };
                let Some(place) = places.into_iter().find(own) else { return Vec::new() };
                format!("{place}-req")
            }
        };
        let interrupt = |line: &str| {
            let (number, rest) = line.split_once(':')?;
            let words = rest.split_whitespace();
            let is_its = words.clone().next_back().is_some_and(|name| name.starts_with(&prefix));
            let counts = words.map_while(|word| word.parse::<u64>().ok()).enumerate();
            let (cpu, count) = counts.filter(|_| is_its).max_by_key(|(_, count)| *count)?;
            let number = number.trim().to_owned();
            let now = self.read(&format!("/proc/irq/{number}/effective_affinity_list"));
            let cpu = now.and_then(|list| list.split([',', '-']).next()?.parse().ok()).unwrap_or(cpu);
            (count > 0).then_some(Interrupt { number, cpu })
        };
        text.lines().filter_map(interrupt).collect()
    }

    /// A limit of the calling process by its name in /proc/self/limits; `None` where there is none.
    pub fn limit(&self, name: &str) -> Option<u64> {
        let text = self.read("/proc/self/limits")?;
        let line = text.lines().find(|line| line.starts_with(name))?;
        line[name.len()..].split_whitespace().next()?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_of_a_directory_is_the_nearest_above_it() {
        let root = tempfile::tempdir().expect("a folder");
        std::fs::create_dir_all(root.path().join("proc/self")).expect("a folder");
        let mounts =
            "/dev/vda1 / ext4 rw,relatime 0 0\n/dev/nvme0n1p1 /data xfs rw,noatime 0 0\ntmpfs /data/tmp tmpfs rw 0 0\n";
        std::fs::write(root.path().join("proc/self/mounts"), mounts).expect("written");
        for disk in ["vda", "nvme0n1", "nvme0"] {
            std::fs::create_dir_all(root.path().join("sys/block").join(disk)).expect("a folder");
        }
        let host = Host::below(root.path());
        let mount = host.mount_of(Path::new("/data/ringlog")).expect("a mount");
        assert_eq!((mount.kind.as_str(), host.block_device(&mount).as_deref()), ("xfs", Some("nvme0n1")));
        assert_eq!(
            host.mount_of(Path::new("/database")).expect("a mount").kind,
            "ext4",
            "a name that only begins alike"
        );
        assert_eq!(host.block_device(&host.mount_of(Path::new("/data/tmp/x")).expect("a mount")), None);
    }
}
