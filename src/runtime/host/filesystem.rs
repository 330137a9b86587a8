//! What holds a data directory: its filesystem, and whether that can be written around the page cache.

use crate::base::limits::DISK_BLOCK_BYTES;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Written and removed by [`direct_io`].
pub const PROBE_FILE: &str = ".direct-io-probe";

/// A mounted filesystem.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Filesystem {
    /// As the kernel calls it: `ext4`, `xfs`, `tmpfs`.
    pub kind: String,
    pub mounted_at: PathBuf,
}

impl Filesystem {
    /// Whether its content is gone when the machine stops.
    pub fn is_memory(&self) -> bool {
        ["tmpfs", "ramfs"].contains(&self.kind.as_str())
    }
}

/// The filesystem that holds `path`, which exists. `None` where the kernel does not tell.
pub fn filesystem_of(path: &Path) -> Option<Filesystem> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    mount_of(&mounts, &path.canonicalize().ok()?)
}

/// The mount of `path` in the text of `/proc/self/mountinfo`: the deepest, and of two at one place the later, which hides the other.
fn mount_of(mounts: &str, path: &Path) -> Option<Filesystem> {
    let mut found: Option<Filesystem> = None;
    for line in mounts.lines() {
        let Some((mount, filesystem)) = line.split_once(" - ") else { continue };
        let (Some(at), Some(kind)) = (mount.split(' ').nth(4), filesystem.split(' ').next()) else { continue };
        let mounted_at = PathBuf::from(unescape(at));
        let deeper = found.as_ref().is_none_or(|found| mounted_at.starts_with(&found.mounted_at));
        if path.starts_with(&mounted_at) && deeper {
            found = Some(Filesystem { kind: kind.to_owned(), mounted_at });
        }
    }
    found
}

/// Spaces and the like stand as `\040` in the table of mounts.
fn unescape(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .into_iter()
        .fold(text.to_owned(), |text, (escape, plain)| text.replace(escape, plain))
}

/// Memory as O_DIRECT wants it.
#[repr(C, align(4096))]
struct Block([u8; DISK_BLOCK_BYTES]);

const _: () = assert!(align_of::<Block>() == DISK_BLOCK_BYTES);

/// Writes a block around the page cache in `dir`, syncs it, reads it back, and removes the file.
///
/// # Errors
/// What is wrong, as the end of a sentence that began with the directory.
pub fn direct_io(dir: &Path) -> Result<(), String> {
    let path = dir.join(PROBE_FILE);
    let result = write_and_read(&path);
    // Where it could not be made there is nothing to remove.
    let _ = std::fs::remove_file(&path);
    result.map_err(|error| explain(&error, filesystem_of(dir)))
}

fn write_and_read(path: &Path) -> io::Result<()> {
    let file: File = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .custom_flags(libc::O_DIRECT)
        .open(path)?;
    let written = Box::new(Block([0xa5; DISK_BLOCK_BYTES]));
    file.write_all_at(&written.0, 0)?;
    file.sync_data()?;
    let mut read = Box::new(Block([0; DISK_BLOCK_BYTES]));
    file.read_exact_at(&mut read.0, 0)?;
    match read.0 == written.0 {
        true => Ok(()),
        false => Err(io::Error::new(io::ErrorKind::InvalidData, "what was written reads back as something else")),
    }
}

fn explain(error: &io::Error, filesystem: Option<Filesystem>) -> String {
    let place = match &filesystem {
        Some(Filesystem { kind, mounted_at }) => format!("{kind}, mounted at {}", mounted_at.display()),
        None => "an unknown filesystem".to_owned(),
    };
    match error.raw_os_error() {
        Some(libc::EINVAL | libc::EOPNOTSUPP) => format!(
            "is on {place}, which cannot be written around the page cache (O_DIRECT, blocks of {DISK_BLOCK_BYTES} bytes): \
             choose one on ext4 or XFS with --data-dir"
        ),
        Some(libc::EROFS) => format!("is on {place}, which is mounted read-only: choose another with --data-dir"),
        Some(libc::ENOSPC | libc::EDQUOT) => {
            format!("is full ({place}): make space, or choose another with --data-dir")
        }
        Some(libc::EACCES | libc::EPERM) => {
            "may not be written by this user: change its owner, or choose another with --data-dir".to_owned()
        }
        _ => format!("cannot be used ({place}): {error}; choose another with --data-dir"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 22 0:5 / /data rw - xfs /dev/sdb rw
31 22 0:6 / /data/with\\040space rw shared:1 - btrfs /dev/sdc rw
32 22 0:7 / /over rw - ext4 /dev/sdd rw
33 32 0:8 / /over rw - tmpfs tmpfs rw
not a mount
";

    fn kind(path: &str) -> String {
        mount_of(MOUNTS, Path::new(path)).unwrap().kind
    }

    #[test]
    fn a_path_is_on_its_deepest_and_latest_mount() {
        assert_eq!(kind("/"), "ext4");
        assert_eq!(kind("/database"), "ext4");
        assert_eq!(kind("/data/ringlog"), "xfs");
        assert_eq!(kind("/data/with space/x"), "btrfs");
        assert_eq!(kind("/over/there"), "tmpfs");
    }

    #[test]
    fn a_filesystem_without_direct_io_is_named() {
        let error = io::Error::from_raw_os_error(libc::EINVAL);
        let filesystem = Filesystem { kind: "ramfs".to_owned(), mounted_at: PathBuf::from("/mnt") };
        let message = explain(&error, Some(filesystem));
        assert!(message.starts_with("is on ramfs, mounted at /mnt, which cannot be written around"), "{message}");
    }

    #[test]
    fn a_probe_leaves_nothing_behind() {
        // Beside the test binary: /tmp may be a tmpfs, which took O_DIRECT only with Linux 6.6.
        let dir = tempfile::tempdir_in(std::env::current_exe().unwrap().parent().unwrap()).unwrap();
        direct_io(dir.path()).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
