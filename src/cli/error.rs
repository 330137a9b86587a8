//! Why Ringlog did not start or had to end: one message for people, one exit code for supervisors.

use crate::base::exit::Exit;
use crate::runtime::host::HostError;
use std::fmt;

/// An error that ends the process. The message says what happened, to what, and what to do now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StartError {
    pub exit: Exit,
    pub message: String,
}

impl StartError {
    pub fn new(exit: Exit, message: impl Into<String>) -> StartError {
        StartError { exit, message: message.into() }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for StartError {}

impl From<HostError> for StartError {
    fn from(error: HostError) -> StartError {
        let exit = match error {
            HostError::Cpus(_) => Exit::Config,
            HostError::Memlock { .. } => Exit::Memlock,
            HostError::Kernel(_) => Exit::Kernel,
            HostError::DataDirInUse { .. } => Exit::DataDirInUse,
            HostError::DataDir { .. } => Exit::DataDir,
            HostError::Address { .. } => Exit::Address,
        };
        StartError::new(exit, error.to_string())
    }
}
