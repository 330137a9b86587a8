//! The real binary, from outside: what it says and which code it ends with, class by class.
//!
//! Recovery (9) and a failing disk (10) are `failures`; a kernel without io_uring (7) cannot be had by a switch for one process,
//! its messages are tested at `runtime::host::kernel`.

use std::fs::{self, File};
use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const RINGLOG: &str = env!("CARGO_BIN_EXE_ringlog");

/// On the filesystem of the build: /tmp may be a tmpfs, which took O_DIRECT only with Linux 6.6.
fn workdir() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn ringlog(dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(RINGLOG);
    command.args(args).current_dir(dir).env_remove("RINGLOG_LOG").output().unwrap()
}

/// Runs `args`, expects exit code `code` and one message on stderr, and returns that.
fn refused(dir: &Path, args: &[&str], code: i32) -> String {
    expect_refusal(ringlog(dir, args), code)
}

fn expect_refusal(output: Output, code: i32) -> String {
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert!(output.stdout.is_empty());
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    stderr.strip_prefix("ringlog: ").expect("messages begin with the program's name").trim_end().to_owned()
}

/// Starts a broker on a free port until its data directory has an identity, then ends it.
fn first_start(dir: &Path, args: &[&str]) {
    let mut command = Command::new(RINGLOG);
    command.args(["serve", "--listen", "127.0.0.1:0", "--cores", "1", "--log", "off"]).args(args).current_dir(dir);
    let mut broker = command.spawn().unwrap();
    let identity = dir.join("ringlog-data/ringlog.properties");
    let deadline = Instant::now() + Duration::from_secs(30);
    while !identity.exists() {
        assert!(Instant::now() < deadline, "no {}", identity.display());
        std::thread::sleep(Duration::from_millis(10));
    }
    // It may have ended by itself.
    let _ = broker.kill();
    broker.wait().unwrap();
}

#[test]
fn help_and_version_are_answers_and_not_errors() {
    let dir = workdir();
    for args in [["--help"], ["-h"], ["--version"]] {
        let output = ringlog(dir.path(), &args);
        assert_eq!(output.status.code(), Some(0));
        assert!(!output.stdout.is_empty() && output.stderr.is_empty(), "{args:?}");
    }
    let version = String::from_utf8(ringlog(dir.path(), &["--version"]).stdout).unwrap();
    assert_eq!(version.trim(), concat!("ringlog ", env!("CARGO_PKG_VERSION")));
}

#[test]
fn check_needs_no_configuration_and_leaves_nothing_behind() {
    let dir = workdir();
    let output = ringlog(dir.path(), &["--check", "--listen", "127.0.0.1:0"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("# ready to start: node 1, "), "{text}");
    assert!(text.contains("\nlog.dirs = [\"ringlog-data\"]\n"), "{text}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn the_settings_that_check_prints_are_a_configuration_with_the_same_settings() {
    let dir = workdir();
    let settings = ["--set", "log.retention.ms=5", "--set", "journal.bytes=2GiB", "--set", "core.0.journal.bytes=1GiB"];
    let flags = [&["--check", "--listen", "127.0.0.1:0", "--cores", "1"][..], &settings].concat();
    let first = ringlog(dir.path(), &flags).stdout;
    fs::write(dir.path().join("ringlog.toml"), &first).unwrap();
    let second = ringlog(dir.path(), &["--check", "--config", "ringlog.toml"]).stdout;
    let without_comments = |text: Vec<u8>| -> Vec<String> {
        let text = String::from_utf8(text).unwrap();
        text.lines().map(|line| line.split('#').next().unwrap().trim().to_owned()).collect()
    };
    let (first, second) = (without_comments(first), without_comments(second));
    for line in ["log.retention.ms = 5", "journal.bytes = 2147483648", "core.0.journal.bytes = 1073741824"] {
        assert!(first.iter().any(|printed| printed == line), "{line}");
    }
    assert_eq!(first, second);
}

#[test]
fn the_printed_example_is_taken_as_a_configuration() {
    let dir = workdir();
    let example = ringlog(dir.path(), &["config"]);
    assert_eq!(example.status.code(), Some(0));
    fs::write(dir.path().join("ringlog.toml"), example.stdout).unwrap();
    let output = ringlog(dir.path(), &["--check", "--config", "ringlog.toml", "--listen", "127.0.0.1:0"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_wrong_command_line_ends_with_2() {
    let dir = workdir();
    let output = ringlog(dir.path(), &["serve", "--colour"]);
    assert_eq!(output.status.code(), Some(2));
    let message = refused(dir.path(), &["--cores", "0"], 2);
    assert_eq!(message, "`core.count` = 0 (--cores) is out of range: 1 to 1024");
    let message = refused(dir.path(), &["--listen", "9092"], 2);
    assert!(message.contains("is not HOST:PORT"), "{message}");
    let message = refused(dir.path(), &["--listen", "0.0.0.0:9092"], 2);
    assert!(message.contains("--advertise"), "{message}");
    let message = refused(dir.path(), &["--set", "num.partition=2"], 2);
    assert_eq!(message, "unknown key `num.partition` in --set: did you mean `num.partitions`?");
}

#[test]
fn a_wrong_file_ends_with_3_and_names_its_line() {
    let dir = workdir();
    let cases = [
        ("log.retentoin.ms = 1", "unknown key `log.retentoin.ms` in r.toml line 1: did you mean `log.retention.ms`?"),
        ("\n[journal]\nbytes = 5", "`journal.bytes` = 5 (r.toml line 3) is out of range: bytes, 32 MiB to 1 TiB"),
        (
            "log.cleaner.threads = 2",
            "`log.cleaner.threads` in r.toml line 1 is a setting of Kafka that Ringlog does not have: nothing is compacted; \
             remove it",
        ),
        ("num.partitions = \"3\"", "`num.partitions` = \"3\" (r.toml line 1) is of the wrong type: 1 to 100000"),
    ];
    for (text, expected) in cases {
        fs::write(dir.path().join("r.toml"), text).unwrap();
        assert_eq!(refused(dir.path(), &["--config", "r.toml"], 3), expected);
    }
    fs::write(dir.path().join("r.toml"), "a = = 1").unwrap();
    assert!(refused(dir.path(), &["--config", "r.toml"], 3).starts_with("r.toml line 1: "));
    fs::write(dir.path().join("r.toml"), "journal.file.bytes = \"8MiB\"").unwrap();
    let message = refused(dir.path(), &["--config", "r.toml"], 3);
    assert!(message.contains("set socket.request.max.bytes to 8372224 or less"), "{message}");
    assert!(refused(dir.path(), &["--config", "none.toml"], 3).starts_with("cannot read none.toml"));
}

#[test]
fn cpus_that_the_machine_lacks_end_with_3() {
    let dir = workdir();
    let message = refused(dir.path(), &["--cpus", "16000"], 3);
    assert!(message.starts_with("CPU 16000 is not one this process may use"), "{message}");
    let message = refused(dir.path(), &["--cores", "1024"], 3);
    assert!(message.starts_with("1024 cores are asked for") && message.contains("lower --cores"), "{message}");
}

#[test]
fn a_data_directory_in_use_ends_with_4_and_names_the_holder() {
    let dir = workdir();
    first_start(dir.path(), &[]);
    let mut lock = File::options().write(true).truncate(true).open(dir.path().join("ringlog-data/.lock")).unwrap();
    lock.lock().unwrap();
    writeln!(lock, "{}", std::process::id()).unwrap();
    let expected = format!(
        "data directory ringlog-data is in use by pid {}: stop that process, or choose another directory with --data-dir",
        std::process::id()
    );
    assert_eq!(refused(dir.path(), &["--listen", "127.0.0.1:0"], 4), expected);
    assert_eq!(refused(dir.path(), &["--listen", "127.0.0.1:0", "--check"], 4), expected);
    lock.unlock().unwrap();
    assert_eq!(ringlog(dir.path(), &["--listen", "127.0.0.1:0", "--check"]).status.code(), Some(0));
}

#[test]
fn a_port_that_is_taken_ends_with_5() {
    let dir = workdir();
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = holder.local_addr().unwrap().to_string();
    for args in [&["--listen", &address, "--check"][..], &["--listen", &address]] {
        let message = refused(dir.path(), args, 5);
        let expected = format!("cannot listen on {address}: the port is taken by another process");
        assert!(message.starts_with(&expected), "{message}");
    }
}

#[test]
fn the_ports_of_core_listeners_are_checked_with_the_others() {
    let dir = workdir();
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = holder.local_addr().unwrap().port();
    let refused = |listen: &str, first: u16, code: i32| {
        let setting = format!("core.listeners.port={first}");
        refused(dir.path(), &["--check", "--cores", "1", "--listen", listen, "--set", &setting], code)
    };
    let taken = refused("127.0.0.1:0", port, 5);
    let expected = "the port is taken by another process: stop that, or choose another with core.listeners.port";
    assert_eq!(taken, format!("cannot listen on 127.0.0.1:{port}: {expected}"));
    drop(holder);
    let twice = refused(&format!("127.0.0.1:{port}"), port, 5);
    let expected = "another listener of this broker has it: choose another with core.listeners.port";
    assert_eq!(twice, format!("cannot listen on 127.0.0.1:{port}: {expected}"));
}

#[test]
fn too_little_lockable_memory_ends_with_6_and_says_how_to_raise_it() {
    let dir = workdir();
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -l 64 && exec \"$0\" --check --listen 127.0.0.1:0", RINGLOG]);
    let message = expect_refusal(command.current_dir(dir.path()).output().unwrap(), 6);
    assert!(message.starts_with("this process may lock 64 KiB of memory (RLIMIT_MEMLOCK), and needs "), "{message}");
    assert!(message.contains("ulimit -l ") && message.contains("LimitMEMLOCK="), "{message}");
}

#[test]
fn somebody_elses_data_directory_ends_with_8_and_is_left_alone() {
    let dir = workdir();
    fs::write(dir.path().join("meta.properties"), "version=1\n").unwrap();
    let message = refused(dir.path(), &["--data-dir", ".", "--listen", "127.0.0.1:0"], 8);
    assert!(message.starts_with("data directory . belongs to Kafka"), "{message}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);

    let message = refused(dir.path(), &["--data-dir", "meta.properties/x", "--listen", "127.0.0.1:0"], 8);
    assert!(message.contains("is not a directory"), "{message}");
    let message = refused(dir.path(), &["--data-dir", "/proc/ringlog", "--listen", "127.0.0.1:0"], 8);
    assert!(message.starts_with("data directory /proc/ringlog cannot be made"), "{message}");
}

#[test]
fn a_node_keeps_its_identity_and_another_is_refused_with_8() {
    let dir = workdir();
    first_start(dir.path(), &["--node-id", "7", "--cluster-id", "MkU3OEVBNTcwNTJENTM2Qk"]);
    let identity = dir.path().join("ringlog-data/ringlog.properties");
    let text = fs::read_to_string(&identity).unwrap();
    assert!(text.contains("\nnode.id=7\n") && text.contains("\ncluster.id=MkU3OEVBNTcwNTJENTM2Qk\n"), "{text}");

    first_start(dir.path(), &[]);
    assert_eq!(fs::read_to_string(&identity).unwrap(), text);
    let message = refused(dir.path(), &["--check", "--listen", "127.0.0.1:0", "--node-id", "8"], 8);
    assert!(message.contains("belongs to node 7, and this is to be node 8: give --node-id 7"), "{message}");
    let message = refused(dir.path(), &["--check", "--listen", "127.0.0.1:0", "--cluster-id", "other"], 8);
    assert!(message.contains("belongs to cluster MkU3OEVBNTcwNTJENTM2Qk"), "{message}");

    fs::write(&identity, "version=1\n").unwrap();
    let message = refused(dir.path(), &["--check", "--listen", "127.0.0.1:0"], 8);
    assert!(message.contains("has a damaged ringlog.properties (no valid `node.id`)"), "{message}");
}

#[test]
fn tune_looks_and_changes_nothing_unless_told_to() {
    let dir = workdir();
    let text = |args: &[&str]| {
        let output = ringlog(dir.path(), args);
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let checked = text(&["tune", "check"]);
    for what in ["kernel", "io_uring", "filesystem", "durable write of 4 KiB"] {
        assert!(checked.lines().any(|line| line.contains(what)), "{what}: {checked}");
    }
    text(&["tune", "apply"]);
    assert!(text(&["tune", "probe"]).contains("proposed: --profile "));
    assert!(text(&["tune", "profile"]).contains("latency"));
    assert!(text(&["tune", "profile", "latency"]).contains("core.busy.poll.us"));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left behind, not even a data directory");
    assert!(refused(dir.path(), &["tune", "profile", "quick"], 2).contains("throughput"));
    assert!(refused(dir.path(), &["tune", "undo"], 2).contains("tune apply"));
    assert!(refused(dir.path(), &["serve", "--profile", "quick"], 2).contains("choose laptop"));
    assert!(
        text(&["serve", "--check", "--listen", "127.0.0.1:0", "--profile", "laptop"])
            .contains("journal.bytes = 134217728")
    );
}
