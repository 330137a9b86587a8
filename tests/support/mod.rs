//! Starts a broker process for integration tests and ends it: cleanly, or as a crash would.
//!
//! Knows processes and directories only; talking Kafka to the broker is `clients`.
//! Ports are chosen by the broker and read from its first line, so tests run beside each other.
//! `RINGLOG_TEST_BROKER` names another executable that takes the same arguments (`loadgen/kafka.sh` runs
//! Apache Kafka that way): what fails against both is a mistake of the test.
#![allow(dead_code, reason = "every test binary compiles this module and uses its own part of it")]

pub mod clients;
pub mod counters;
pub mod http;
pub mod raw;
pub mod wire;

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use counters::Counters;

/// A broker that has not said `ready` by then never will. Apache Kafka takes 3 s on an idle host.
const READY_DEADLINE: Duration = Duration::from_secs(60);

/// A clean stop syncs and closes; more than this is a hang.
const END_DEADLINE: Duration = Duration::from_secs(30);

/// After SIGKILL the kernel may hold the port for a moment longer than the process lives.
const REBIND_DEADLINE: Duration = Duration::from_secs(20);

/// What a test may choose about its broker; `Options::default()` suits most.
#[derive(Clone, Debug)]
pub struct Options {
    /// Cores the broker runs on.
    pub cores: usize,
    /// Bytes of journal per core: small, so that tests make it wrap.
    pub journal_bytes: u64,
    /// Data directories; the cores are spread over them.
    pub data_dirs: usize,
    /// Further lines of the configuration file.
    pub settings: String,
}

impl Default for Options {
    fn default() -> Options {
        Options { cores: 2, journal_bytes: 256 << 20, data_dirs: 1, settings: String::new() }
    }
}

impl Options {
    /// The configuration file. The only place in the tests that knows the broker's names of settings.
    fn to_toml(&self) -> String {
        // Four files are the fewest that a ring may have, and one must hold the largest request.
        let file_bytes = self.journal_bytes / 4;
        let (cores, journal_bytes, request_bytes) = (self.cores, self.journal_bytes, file_bytes / 2);
        format!(
            "core.count = {cores}\njournal.bytes = {journal_bytes}\njournal.file.bytes = {file_bytes}\n\
             socket.request.max.bytes = {request_bytes}\n{}\n",
            self.settings
        )
    }
}

/// A broker process, its data directory and its address. Dropping it kills the process and removes the directory.
pub struct Broker {
    process: Option<Process>,
    address: String,
    /// Where metrics are served, where they are.
    admin: Option<String>,
    dir: TempDir,
    data_dirs: usize,
}

/// A started child whose first line of output is still to come or has been read.
struct Process {
    child: Child,
    /// Lines of standard output; closes when the process has ended.
    lines: mpsc::Receiver<String>,
}

impl Broker {
    /// Starts a broker on an empty directory and a port of its choice, and waits until it serves.
    pub fn start(options: Options) -> Broker {
        let dir = tempfile::Builder::new().prefix("ringlog-test-").tempdir().expect("a temporary directory");
        let mut broker =
            Broker { process: None, address: "127.0.0.1:0".into(), admin: None, dir, data_dirs: options.data_dirs };
        broker.configure(&options);
        broker.start_again();
        broker
    }

    /// Writes the configuration for the next start. The data directories stay as many as they are.
    pub fn configure(&self, options: &Options) {
        std::fs::write(self.dir.path().join("ringlog.toml"), options.to_toml()).expect("the configuration is written");
    }

    /// `HOST:PORT`, as a client's `bootstrap.servers` wants it.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// `HOST:PORT` of metrics and health, if they are served.
    pub fn admin(&self) -> Option<&str> {
        self.admin.as_deref()
    }

    /// The first one.
    pub fn data_dir(&self) -> PathBuf {
        self.data_dirs().next().expect("there is one")
    }

    pub fn data_dirs(&self) -> impl Iterator<Item = PathBuf> {
        (0..self.data_dirs)
            .map(|index| self.dir.path().join(if index == 0 { "data".into() } else { format!("data-{index}") }))
    }

    /// The id of the running process.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("the broker runs").child.id()
    }

    /// Memory of the process that is not on disk, in bytes.
    pub fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("the broker runs");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("every process has it");
        let kib: u64 = line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number of kB");
        kib << 10
    }

    /// What the broker's cores have counted so far. Asks by SIGUSR1 and waits for the answer.
    pub fn counters(&self) -> Counters {
        let shown = |log: &str| log.matches(counters::END).count();
        let before = shown(&self.log());
        let pid = Pid::from_child(&self.process.as_ref().expect("the broker runs").child);
        kill_process(pid, Signal::USR1).expect("a child that was not waited for can be signalled");
        let mut log = String::new();
        clients::until("the counters are shown", || {
            log = self.log();
            (shown(&log) > before).then_some(())
        });
        Counters::last_of(&log)
    }

    /// Everything the broker wrote to standard error so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Ends the process as a crash does (SIGKILL) and waits for its end. Does nothing when it is down.
    pub fn kill9(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.child.kill().expect("a child that was not waited for can be signalled");
            process.child.wait().expect("a killed child ends");
        }
    }

    /// Asks the process to stop (SIGTERM) and returns how it ended.
    ///
    /// Panics when it is down already, or has not ended after 30 s.
    pub fn terminate(&mut self) -> ExitStatus {
        let process = self.process.as_ref().expect("the broker runs");
        let pid = Pid::from_child(&process.child);
        kill_process(pid, Signal::TERM).expect("a child that was not waited for can be signalled");
        self.ended()
    }

    /// Waits until the process has ended, for whatever reason, and returns how.
    ///
    /// Panics when it is down already, or has not ended after 30 s.
    pub fn ended(&mut self) -> ExitStatus {
        let mut process = self.process.take().expect("the broker runs");
        // Standard output closes with the process: wait for that instead of asking again and again.
        let deadline = Instant::now() + END_DEADLINE;
        while let Ok(_line) = process.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {}
        if Instant::now() >= deadline {
            process.child.kill().expect("a child that was not waited for can be signalled");
            process.child.wait().expect("a killed child ends");
            panic!("the broker did not end within {END_DEADLINE:?}\n{}", self.log_tail());
        }
        process.child.wait().expect("a child can be waited for")
    }

    /// Starts on the same data what is to end before it is ready, and returns how it ended.
    pub fn start_in_vain(&mut self) -> ExitStatus {
        assert!(self.process.is_none(), "the broker still runs");
        let mut process = self.spawn();
        assert_eq!(process.ready(), None, "the broker started");
        self.process = Some(process);
        self.ended()
    }

    /// Starts again on the same data and the same port, so that clients that live on find the broker.
    pub fn restart(&mut self) {
        assert!(self.process.is_none(), "the broker still runs");
        self.start_again();
    }

    /// Starts again on the same data and a port of the broker's choice.
    pub fn restart_elsewhere(&mut self) {
        self.address = "127.0.0.1:0".into();
        self.restart();
    }

    /// Starts, and kills it `after` that long, whether it serves by then or not: a crash during recovery.
    pub fn start_and_kill(&mut self, after: Duration) {
        assert!(self.process.is_none(), "the broker still runs");
        self.process = Some(self.spawn());
        thread::sleep(after);
        self.kill9();
    }

    /// Everything the broker wrote to standard error so far, cut to its last 50 lines.
    pub fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(self.log_path()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(50)..].join("\n")
    }

    /// Spawns until a process serves. One that ends at once is tried again: its port may be held by a dying one.
    fn start_again(&mut self) {
        let deadline = Instant::now() + REBIND_DEADLINE;
        loop {
            let mut process = self.spawn();
            if let Some(Ready { address, admin }) = process.ready() {
                (self.address, self.admin) = (address, admin);
                self.process = Some(process);
                return;
            }
            let status = process.child.wait().expect("a child can be waited for");
            let fixed_port = !self.address.ends_with(":0");
            let again = fixed_port && Instant::now() < deadline;
            assert!(again, "the broker ended before it was ready: {status}\n{}", self.log_tail());
            thread::sleep(Duration::from_millis(100));
        }
    }

    fn spawn(&self) -> Process {
        let program = std::env::var_os("RINGLOG_TEST_BROKER").unwrap_or(env!("CARGO_BIN_EXE_ringlog").into());
        let log = File::options().create(true).append(true).open(self.log_path()).expect("the log opens");
        let mut child = Command::new(program)
            .arg("serve")
            .args(["--listen", &self.address])
            .args(self.data_dirs().flat_map(|dir| ["--data-dir".into(), dir]))
            .arg("--config")
            .arg(self.dir.path().join("ringlog.toml"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("the broker's executable starts");
        let stdout = BufReader::new(child.stdout.take().expect("standard output is a pipe"));
        let (sender, lines) = mpsc::channel();
        // Reads on for as long as the process lives, so that it never blocks on a full pipe.
        thread::spawn(move || stdout.lines().map_while(Result::ok).for_each(|line| drop(sender.send(line))));
        Process { child, lines }
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("broker.log")
    }
}

/// What the `ready` line says.
#[derive(Debug, PartialEq)]
struct Ready {
    address: String,
    admin: Option<String>,
}

impl Process {
    /// The `ready` line, or nothing when the process ended without one.
    fn ready(&mut self) -> Option<Ready> {
        let deadline = Instant::now() + READY_DEADLINE;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    let Some(rest) = line.strip_prefix("ready ") else { continue };
                    let word = |name: &str| rest.split(' ').find_map(|word| word.strip_prefix(name)).map(str::to_owned);
                    return Some(Ready { address: word("listen=").expect("it is always said"), admin: word("admin=") });
                }
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => {
                    self.child.kill().expect("a child that was not waited for can be signalled");
                    return None;
                }
            }
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill9();
        if thread::panicking() {
            eprintln!("---- the broker's log ----\n{}", self.log_tail());
        }
    }
}

/// Whether `path` holds any file: a broker that keeps its data elsewhere would pass tests of restarts by luck.
pub fn has_files(path: &Path) -> bool {
    std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some())
}
