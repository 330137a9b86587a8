//! Takes the data directories: makes them, locks them against other processes, and sees that they are ours and fit for use.

use super::HostError;
use super::filesystem::{PROBE_FILE, direct_io};
use super::identity::{IDENTITY_FILE, IDENTITY_FILE_NEW, Identity, IdentityWanted};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Locked (flock) as long as a process uses the directory; holds its pid.
const LOCK_FILE: &str = ".lock";
/// How long a lock is waited for: a process that was just killed holds it until the kernel has ended its threads and rings.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
/// Between two tries.
const LOCK_PAUSE: Duration = Duration::from_millis(20);
/// What may lie in a directory that is new to us: traces of a first start that was cut short, and what mkfs makes.
const HARMLESS: &[&str] = &[LOCK_FILE, PROBE_FILE, IDENTITY_FILE_NEW, "lost+found"];

/// A data directory is ours until this is dropped, or the process ends however it does.
#[derive(Debug)]
pub struct DataDirLock {
    _file: File,
}

/// Makes the directories where they are missing, locks them, and gives the new ones their identity.
///
/// # Errors
/// `HostError::DataDirInUse`; `HostError::DataDir` for one that cannot be used, is somebody else's, or differs from the others.
pub fn open_data_dirs(dirs: &[PathBuf], wanted: &IdentityWanted) -> Result<(Identity, Vec<DataDirLock>), HostError> {
    let mut locks = Vec::new();
    let mut found = Vec::new();
    for dir in dirs {
        create(dir).map_err(|reason| unusable(dir, reason))?;
        // Once before, so that no lock file is left in a directory that is not ours; and again when nobody else can
        // be about to make it theirs.
        inspect(dir)?;
        locks.push(lock(dir, true, LOCK_PATIENCE)?.expect("the lock file is made where it is missing"));
        found.push(inspect(dir)?);
        direct_io(dir).map_err(|reason| unusable(dir, reason))?;
    }
    let identity = agree(dirs, &found, wanted)?;
    for (dir, found) in dirs.iter().zip(&found) {
        if found.is_none() {
            let written = identity.write(dir);
            written.map_err(|error| unusable(dir, format!("cannot be given its {IDENTITY_FILE}: {error}")))?;
        }
    }
    Ok((identity, locks))
}

/// As `open_data_dirs`, but makes nothing that stays. For a missing directory the one that it would be made in is looked at.
pub fn check_data_dirs(dirs: &[PathBuf], wanted: &IdentityWanted) -> Result<Identity, HostError> {
    let mut locks = Vec::new();
    let mut found = Vec::new();
    for dir in dirs {
        let present = dir.ancestors().find(|path| path.exists()).filter(|path| !path.as_os_str().is_empty());
        let present = present.unwrap_or(Path::new("."));
        if !present.is_dir() {
            return Err(unusable(dir, not_a_directory(present)));
        }
        match present == dir {
            true => {
                found.push(inspect(dir)?);
                locks.push(lock(dir, false, Duration::ZERO)?);
            }
            false => found.push(None),
        }
        direct_io(present).map_err(|reason| unusable(dir, reason))?;
    }
    agree(dirs, &found, wanted)
}

fn unusable(dir: &Path, reason: impl Into<String>) -> HostError {
    HostError::DataDir { dir: dir.to_owned(), reason: reason.into() }
}

fn not_a_directory(path: &Path) -> String {
    format!("cannot be used: {} is not a directory; choose another with --data-dir", path.display())
}

/// Makes the directory and its parents, each durable in the one above.
fn create(dir: &Path) -> Result<(), String> {
    if dir.is_dir() {
        return Ok(());
    }
    if let Some(file) = dir.ancestors().find(|path| path.exists() && !path.is_dir()) {
        return Err(not_a_directory(file));
    }
    let missing: Vec<&Path> =
        dir.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.exists()).collect();
    let made = missing.iter().rev().try_for_each(|dir| {
        std::fs::create_dir(dir)?;
        let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
    });
    made.map_err(|error| format!("cannot be made: {error}; make it for this user, or choose another with --data-dir"))
}

/// The identity of a directory that is ours, `None` where it is new.
fn inspect(dir: &Path) -> Result<Option<Identity>, HostError> {
    if let Some(identity) = Identity::read(dir).map_err(|reason| unusable(dir, reason))? {
        return Ok(Some(identity));
    }
    let read_error =
        |error: io::Error| unusable(dir, format!("cannot be read: {error}; choose another with --data-dir"));
    for entry in std::fs::read_dir(dir).map_err(read_error)? {
        let name = entry.map_err(read_error)?.file_name();
        let name = name.to_string_lossy();
        if name == "meta.properties" {
            let reason = "belongs to Kafka, whose files are not read here: choose another with --data-dir";
            return Err(unusable(dir, reason));
        }
        if !HARMLESS.contains(&name.as_ref()) {
            let reason = format!(
                "is not Ringlog's: it holds `{name}` and no {IDENTITY_FILE}; choose an empty one with --data-dir, or \
                 restore that file"
            );
            return Err(unusable(dir, reason));
        }
    }
    Ok(None)
}

/// Locks the directory, trying again for `patience` while another process holds it. `None` where there is no lock file and none is
/// to be made, so nobody holds it.
fn lock(dir: &Path, create: bool, patience: Duration) -> Result<Option<DataDirLock>, HostError> {
    let cannot =
        |error: io::Error| unusable(dir, format!("cannot be locked: {LOCK_FILE}: {error}; may this user write it?"));
    let opened = OpenOptions::new().read(true).write(true).create(create).truncate(false).open(dir.join(LOCK_FILE));
    let mut file = match opened {
        Err(error) if !create && error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(cannot)?,
    };
    let deadline = Instant::now() + patience;
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) => match in_use(dir, &mut file) {
                HostError::DataDirInUse { .. } if Instant::now() < deadline => std::thread::sleep(LOCK_PAUSE),
                error => return Err(error),
            },
            Err(TryLockError::Error(error)) => return Err(cannot(error)),
        }
    }
    if create {
        let mut note_pid = || {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "{}", std::process::id())
        };
        note_pid().map_err(cannot)?;
    }
    Ok(Some(DataDirLock { _file: file }))
}

fn in_use(dir: &Path, file: &mut File) -> HostError {
    let mut text = String::new();
    // The holder may be between locking and writing, and its pid is only for the message.
    let _ = file.rewind().and_then(|()| file.take(32).read_to_string(&mut text));
    match text.trim().parse() {
        Ok(pid) if pid == std::process::id() => unusable(dir, "is given twice: name each data directory once"),
        pid => HostError::DataDirInUse { dir: dir.to_owned(), pid: pid.ok() },
    }
}

/// The one identity of all directories.
fn agree(dirs: &[PathBuf], found: &[Option<Identity>], wanted: &IdentityWanted) -> Result<Identity, HostError> {
    let mut known: Option<(&PathBuf, &Identity)> = None;
    for (dir, identity) in dirs.iter().zip(found) {
        let Some(identity) = identity else { continue };
        identity.check(wanted).map_err(|reason| unusable(dir, reason))?;
        match known {
            Some((other, first)) if first != identity => {
                let reason = format!(
                    "belongs to node {} of cluster {}, and {} to node {} of cluster {}: name the directories of one node only",
                    identity.node_id,
                    identity.cluster_id,
                    other.display(),
                    first.node_id,
                    first.cluster_id,
                );
                return Err(unusable(dir, reason));
            }
            Some(_) => {}
            None => known = Some((dir, identity)),
        }
    }
    match known {
        Some((_, identity)) => Ok(identity.clone()),
        None => Identity::first(wanted)
            .map_err(|error| unusable(&dirs[0], format!("cannot be given a cluster id: /dev/urandom: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    /// Beside the test binary: /tmp may be a tmpfs, which took O_DIRECT only with Linux 6.6.
    fn root() -> TempDir {
        tempfile::tempdir_in(std::env::current_exe().unwrap().parent().unwrap()).unwrap()
    }

    fn any() -> IdentityWanted {
        IdentityWanted::default()
    }

    #[test]
    fn a_new_directory_gets_an_identity_and_keeps_it() {
        let root = root();
        let dirs = [root.path().join("a/b"), root.path().join("c")];
        let (first, locks) = open_data_dirs(&dirs, &any()).unwrap();
        assert_eq!((first.node_id, first.cluster_id.len()), (1, 22));
        drop(locks);
        let (second, _locks) = open_data_dirs(&dirs, &any()).unwrap();
        assert_eq!(first, second);
    }

    #[test]
    fn a_directory_added_later_joins_the_others() {
        let root = root();
        let dirs = [root.path().join("a"), root.path().join("b")];
        let (first, locks) = open_data_dirs(&dirs[..1], &any()).unwrap();
        drop(locks);
        let (both, locks) = open_data_dirs(&dirs, &any()).unwrap();
        drop(locks);
        let (second, _locks) = open_data_dirs(&dirs[1..], &any()).unwrap();
        assert_eq!((&first, &first), (&both, &second));
    }

    #[test]
    fn directories_of_two_nodes_are_refused_together() {
        let root = root();
        let dirs = [root.path().join("a"), root.path().join("b")];
        drop(open_data_dirs(&dirs[..1], &any()).unwrap());
        drop(open_data_dirs(&dirs[1..], &any()).unwrap());
        let message = open_data_dirs(&dirs, &any()).unwrap_err().to_string();
        assert!(message.contains("name the directories of one node only"), "{message}");
    }

    #[test]
    fn a_directory_named_twice_is_told_from_one_in_use() {
        let root = root();
        let dirs = [root.path().join("a"), root.path().join("a")];
        let message = open_data_dirs(&dirs, &any()).unwrap_err().to_string();
        assert!(message.contains("is given twice"), "{message}");
    }

    /// Its end comes while the directory is waited for, or before: either way there is no error.
    #[test]
    fn patience_outlasts_a_holder_that_goes_away() {
        let root = root();
        let holder = File::create(root.path().join(LOCK_FILE)).unwrap();
        holder.lock().unwrap();
        let leaver = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            drop(holder);
        });
        open_data_dirs(&[root.path().to_owned()], &any()).unwrap();
        leaver.join().unwrap();
    }

    #[test]
    fn a_directory_of_somebody_else_is_refused_and_left_as_it_was() {
        for name in ["meta.properties", "letter.txt"] {
            let root = root();
            std::fs::write(root.path().join(name), "").unwrap();
            let error = open_data_dirs(&[root.path().to_owned()], &any()).unwrap_err();
            assert!(matches!(error, HostError::DataDir { .. }), "{error}");
            assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 1, "{name}");
        }
    }

    #[test]
    fn a_first_start_cut_short_can_be_repeated() {
        let root = root();
        for name in HARMLESS {
            std::fs::write(root.path().join(name), "").unwrap();
        }
        open_data_dirs(&[root.path().to_owned()], &any()).unwrap();
    }

    #[test]
    fn a_check_makes_nothing_that_stays() {
        let root = root();
        let wanted = IdentityWanted { node_id: Some(4), cluster_id: None };
        let dirs = [root.path().to_owned(), root.path().join("not/there")];
        assert_eq!(check_data_dirs(&dirs, &wanted).unwrap().node_id, 4);
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_in_the_way_is_refused() {
        let root = root();
        let file = root.path().join("file");
        std::fs::write(&file, "").unwrap();
        for dir in [file.clone(), file.join("below")] {
            let dirs = [dir];
            assert!(open_data_dirs(&dirs, &any()).unwrap_err().to_string().contains("is not a directory"));
            assert!(check_data_dirs(&dirs, &any()).unwrap_err().to_string().contains("is not a directory"));
        }
    }
}
