//! Exit codes of the process: one for each class of reasons to end, so that a supervisor can tell them apart.

/// Why the process ends. The number is the exit code; once published it keeps its meaning.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Exit {
    Success = 0,
    Usage = 2,
    Config = 3,
    DataDirInUse = 4,
    Address = 5,
    Memlock = 6,
    Kernel = 7,
    DataDir = 8,
    Recovery = 9,
    DiskFailed = 10,
    Refused = 11,
}

impl Exit {
    /// Every code, in the order of the numbers.
    pub const ALL: [Exit; 11] = [
        Exit::Success,
        Exit::Usage,
        Exit::Config,
        Exit::DataDirInUse,
        Exit::Address,
        Exit::Memlock,
        Exit::Kernel,
        Exit::DataDir,
        Exit::Recovery,
        Exit::DiskFailed,
        Exit::Refused,
    ];

    /// One line for `--help` and the manual.
    pub const fn meaning(self) -> &'static str {
        match self {
            Exit::Success => "stopped as asked, or nothing was wrong",
            Exit::Usage => "the command line is wrong",
            Exit::Config => "the configuration file is wrong, or asks for what this machine does not have",
            Exit::DataDirInUse => "another process holds a data directory",
            Exit::Address => "the address is taken, or cannot be listened on",
            Exit::Memlock => "too little memory may be locked (RLIMIT_MEMLOCK)",
            Exit::Kernel => "the kernel lacks io_uring or forbids it",
            Exit::DataDir => "a data directory cannot be used, or belongs to another node or program",
            Exit::Recovery => "recovery found damaged data; nothing was changed",
            Exit::DiskFailed => "a disk failed while running; nothing was acknowledged after that",
            Exit::Refused => "the running broker did not do what it was asked, or cannot be reached",
        }
    }

    pub const fn code(self) -> u8 {
        self as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_and_in_order() {
        assert!(Exit::ALL.windows(2).all(|pair| pair[0].code() < pair[1].code()));
    }
}
