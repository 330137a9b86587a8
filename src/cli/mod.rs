//! The command line: flags and file become one `Config`, the machine is checked, the server is started.
//!
//! Every way to end has its exit code (`base::exit`) and one message on stderr that says what to do.

mod args;
mod error;
mod example;
mod file;
mod keys;
mod moves;
mod relations;
mod resolve;
mod serve;
mod settings;
mod tune;

pub use args::{Cli, ServeArgs};
pub use error::StartError;
pub use serve::{Prepared, check, prepare};

use crate::base::exit::Exit;
use crate::net;
use args::{Command, LogLevel};
use clap::Parser;
use std::ffi::OsString;
use std::io::Write;
use tracing::level_filters::LevelFilter;

/// Runs the command line `args`, whose first is the program's name, and returns the process's exit code.
pub fn run(args: impl IntoIterator<Item = OsString>) -> Exit {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // clap knows which of stdout and stderr it is; nobody is left to tell where that one is closed.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Success };
        }
    };
    let result = match &cli.command {
        None => serve(&cli.serve),
        Some(Command::Serve(args)) => serve(args),
        Some(Command::Config) => {
            print(&example::example());
            Ok(())
        }
        Some(Command::Move { topic, partition, core, admin }) => {
            moves::run(admin, topic, *partition, *core).map(|text| print(&text))
        }
        Some(Command::Tune(command)) => tune::run(command).map(|text| print(&text)),
    };
    match result {
        Ok(()) => Exit::Success,
        Err(error) => {
            // As above.
            let _ = writeln!(std::io::stderr(), "ringlog: {error}");
            error.exit
        }
    }
}

fn serve(args: &ServeArgs) -> Result<(), StartError> {
    log_to_stderr(args.log);
    if args.check {
        print(&check(args)?);
        return Ok(());
    }
    let Prepared { config, locks } = prepare(args)?;
    let result = net::start::run(config);
    drop(locks);
    result.map_err(|failure| StartError::new(failure.exit, failure.message))
}

fn print(text: &str) {
    // `ringlog config | head` closes the pipe: what was wanted has been read.
    let _ = std::io::stdout().write_all(text.as_bytes());
}

fn log_to_stderr(level: LogLevel) {
    let level = match level {
        LogLevel::Off => LevelFilter::OFF,
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let subscriber = tracing_subscriber::fmt().compact().with_ansi(false).with_writer(std::io::stderr);
    // Fails where a test has installed one already, which then serves as well.
    let _ = subscriber.with_max_level(level).try_init();
}
