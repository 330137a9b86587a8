//! The command line: what may be typed, and which setting each flag overrides.

use super::keys::Value;
use super::settings::{Override, parse_value};
use crate::base::exit::Exit;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// A Kafka-compatible broker for Linux bare metal: one pinned thread per core, io_uring, nothing shared.
///
/// `ringlog` alone is `ringlog serve`: it listens on 127.0.0.1:9092, keeps its data in ./ringlog-data and runs on every CPU it may use.
/// It acknowledges only what is on disk.
#[derive(Parser, Debug)]
#[command(name = "ringlog", version, args_conflicts_with_subcommands = true, after_long_help = exit_codes())]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub serve: ServeArgs,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run the broker (the default command)
    #[command(after_long_help = exit_codes())]
    Serve(Box<ServeArgs>),
    /// Print a configuration file with every setting, its meaning and its default
    Config,
    /// Move a partition of a running broker to another of its cores; its clients go on
    Move {
        topic: String,
        partition: i32,
        /// The core that shall own it, counted from 0
        core: u16,
        /// The broker's admin address
        #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9644")]
        admin: String,
    },
    /// Look at this host with the broker's eyes, and change what it may
    #[command(subcommand)]
    Tune(Tune),
}

#[derive(Subcommand, Debug)]
pub enum Tune {
    /// Say for each thing what is found, what is wanted, why, and the command that changes it. Writes to the disk for a second
    Check {
        #[command(flatten)]
        serve: Box<ServeArgs>,
    },
    /// Make those changes that are a write to /proc or /sys; they last until the next start of the machine
    Apply {
        /// Really write; otherwise only say what would be written
        #[arg(long)]
        yes: bool,
        /// Where the old values are kept
        #[arg(long, value_name = "FILE", default_value = "ringlog-tune-undo.toml")]
        undo: PathBuf,
        #[command(flatten)]
        serve: Box<ServeArgs>,
    },
    /// Put back what `apply` has changed
    Undo {
        #[arg(value_name = "FILE", default_value = "ringlog-tune-undo.toml")]
        file: PathBuf,
    },
    /// Measure durable writes on the disk of the data directory, and propose a profile
    Probe {
        #[command(flatten)]
        serve: Box<ServeArgs>,
    },
    /// Print a profile, or the names of all
    Profile { name: Option<String> },
}

/// Flags of `serve`. Each overrides the configuration file.
#[derive(Args, Clone, Debug)]
pub struct ServeArgs {
    /// Configuration file (TOML); `ringlog config` prints one with every setting
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Settings that go together, under those of the configuration file: laptop, dense, latency or throughput
    #[arg(long, value_name = "NAME")]
    pub profile: Option<String>,

    /// Address to listen on; port 0 takes a free one [default: 127.0.0.1:9092]
    #[arg(long, value_name = "HOST:PORT")]
    pub listen: Option<String>,

    /// Address that clients are told to connect to [default: the one listened on]
    #[arg(long, value_name = "HOST:PORT")]
    pub advertise: Option<String>,

    /// Address for metrics and health over HTTP, or none [default: 127.0.0.1:9644]
    #[arg(long, value_name = "HOST:PORT")]
    pub admin: Option<String>,

    /// Data directory, made if missing; repeat it for each disk [default: ./ringlog-data]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Vec<String>,

    /// Number of cores, one pinned thread each [default: one for each CPU this process may use]
    #[arg(long, value_name = "N")]
    pub cores: Option<i64>,

    /// CPUs to run on, as in 0-3,6 [default: those of the affinity mask]
    #[arg(long, value_name = "LIST")]
    pub cpus: Option<String>,

    /// Id of this broker in its cluster [default: what the data directory says, or 1]
    #[arg(long, value_name = "N")]
    pub node_id: Option<i64>,

    /// Id of the cluster [default: what the data directory says, or a random one]
    #[arg(long, value_name = "ID")]
    pub cluster_id: Option<String>,

    /// Any setting of the configuration file, as in num.partitions=8; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_pair)]
    pub set: Vec<(String, String)>,

    /// Check configuration and machine, print the settings in effect and end; leaves nothing behind
    #[arg(long)]
    pub check: bool,

    /// What to log to stderr
    #[arg(long, value_name = "LEVEL", env = "RINGLOG_LOG", default_value = "info")]
    pub log: LogLevel,
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogLevel {
    Off,
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl ServeArgs {
    /// The settings that were typed. `--set` comes first, so that the flags made for a setting win over it.
    pub fn overrides(&self) -> Vec<Override> {
        let mut overrides: Vec<Override> = self
            .set
            .iter()
            .map(|(name, text)| Override {
                flag: "--set".to_owned(),
                name: name.clone(),
                // A word that is not TOML is a text, so that nobody has to quote for the shell and for TOML.
                value: parse_value(text).unwrap_or_else(|| Value::Text(text.clone())),
            })
            .collect();
        let mut flag = |flag: &str, name: &str, value: Option<Value>| {
            let named = value.map(|value| Override { flag: flag.to_owned(), name: name.to_owned(), value });
            overrides.extend(named);
        };
        flag("--listen", "listeners", self.listen.clone().map(Value::Text));
        flag("--advertise", "advertised.listeners", self.advertise.clone().map(Value::Text));
        flag("--admin", "admin.listen", self.admin.clone().map(Value::Text));
        flag("--data-dir", "log.dirs", (!self.data_dir.is_empty()).then(|| Value::List(self.data_dir.clone())));
        flag("--cores", "core.count", self.cores.map(Value::Integer));
        flag("--cpus", "core.cpus", self.cpus.clone().map(Value::Text));
        flag("--node-id", "node.id", self.node_id.map(Value::Integer));
        flag("--cluster-id", "cluster.id", self.cluster_id.clone().map(Value::Text));
        overrides
    }
}

fn parse_pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("give KEY=VALUE, as in num.partitions=8")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

fn exit_codes() -> String {
    let mut text = String::from("Exit codes:");
    for exit in Exit::ALL {
        text.push_str(&format!("\n  {:>3}  {}", exit.code(), exit.meaning()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn overrides(args: &[&str]) -> Vec<(String, Value)> {
        let cli = Cli::try_parse_from(["ringlog"].iter().chain(args)).unwrap();
        let serve = match cli.command {
            Some(Command::Serve(args)) => *args,
            _ => cli.serve,
        };
        serve.overrides().into_iter().map(|given| (given.name, given.value)).collect()
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn bare_ringlog_takes_the_flags_of_serve() {
        let flags =
            ["--listen", "a:1", "--data-dir", "x", "--data-dir", "y", "--cores", "2", "--set", "num.partitions=3"];
        let bare = overrides(&flags);
        assert_eq!(bare.len(), 4);
        assert_eq!(bare, overrides(&["serve"].iter().chain(&flags).copied().collect::<Vec<_>>()));
    }

    #[test]
    fn set_takes_toml_and_bare_words() {
        let pairs = ["a=1", "b=\"2\"", "c=LogAppendTime", "d=true", "e=64MiB", "f=1.5"];
        let args: Vec<&str> = pairs.iter().flat_map(|pair| ["--set", *pair]).collect();
        let values: Vec<Value> = overrides(&args).into_iter().map(|(_, value)| value).collect();
        let text = |text: &str| Value::Text(text.to_owned());
        let expected =
            [Value::Integer(1), text("2"), text("LogAppendTime"), Value::Flag(true), text("64MiB"), text("1.5")];
        assert_eq!(values, expected);
    }

    #[test]
    fn a_flag_made_for_a_setting_wins_over_set() {
        let given = overrides(&["--listen", "a:1", "--set", "listeners=b:2"]);
        assert_eq!(given.last().unwrap().1, Value::Text("a:1".to_owned()));
    }

    #[test]
    fn every_exit_code_is_in_the_help() {
        let help = Cli::command().render_long_help().to_string();
        for exit in Exit::ALL {
            assert!(help.contains(&format!("{:>3}  {}", exit.code(), exit.meaning())), "{exit:?}");
        }
    }
}
