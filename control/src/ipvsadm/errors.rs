//! What goes wrong, and what ipvsadm says then.

use thiserror::Error;

/// Why the table cannot be changed as asked. The texts are those of ipvsadm 1.31.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum IpvsError {
    /// `-A` of a service that is there.
    #[error("Service already exists")]
    ServiceExists,
    /// `-A`, `-E` with `-s` or `--pe` of no known name.
    #[error("Scheduler or persistence engine not found")]
    NoSuchScheduler,
    /// `-E`, `-D`, `-Z`, `-L` of a service that is not there.
    #[error("No such service")]
    NoSuchService,
    /// `-a`, `-e`, `-d` in a service that is not there.
    #[error("Service not defined")]
    ServiceNotDefined,
    /// `-a` of a server that is there.
    #[error("Destination already exists")]
    DestinationExists,
    /// `-e`, `-d` of a server that is not there.
    #[error("No such destination")]
    NoSuchDestination,
    /// `-y` above `-x`.
    #[error("Numerical result out of range")]
    OutOfRange,
    /// An address that no server can have.
    #[error("Invalid operation.  Possibly wrong module version, address not unicast, ...")]
    Invalid,
    /// `--start-daemon` while one runs.
    #[error("Daemon has already run")]
    DaemonRuns,
    /// `--stop-daemon` while none runs.
    #[error("No daemon is running")]
    NoDaemon,
}

/// Why the director did not do what the table allows.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum HostError {
    /// It cannot be reached; nothing is known of its table.
    #[error("{0}")]
    Unreachable(String),
    /// It refuses, for this reason; nothing was changed.
    #[error("{0}")]
    Refused(String),
    /// Somebody else changed its table since it was read; nothing was changed.
    #[error("the director's configuration was changed by somebody else at the same time")]
    Conflict,
}

/// Wrong usage: what goes to stderr and the exit code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Usage {
    /// Exit code.
    pub code: u8,
    /// Without the line's end.
    pub message: String,
}

impl Usage {
    /// The usual exit code of wrong usage.
    pub fn wrong(message: impl Into<String>) -> Self {
        Self { code: 2, message: message.into() }
    }

    /// What is said to a command line without a command.
    pub fn try_help() -> Self {
        let message = format!("Try `{p} -h' or '{p} --help' for more information.", p = super::PROGRAM);
        Self { code: FAILED, message }
    }
}

/// Exit code of what ipvsadm returns as -1.
pub(super) const FAILED: u8 = 255;
