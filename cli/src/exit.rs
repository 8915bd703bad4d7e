//! What the exit code tells a script.

use std::process::ExitCode;

/// How a command ended. The numbers are an interface: they do not change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// The operation failed, was cancelled or went back to ready, or findings stand in its way.
    Failed = 1,
    /// The command line, or what it asks for, is malformed.
    Usage = 2,
    /// The coordinator, or an agent it needs for the answer, cannot be reached.
    Unreachable = 3,
    /// Refused, because of how things stand now.
    Refused = 4,
    /// There is no such operation, instance or database.
    NotFound = 5,
    /// The caller may not do that.
    Denied = 6,
    /// Ended by Ctrl-C; what runs at the coordinator goes on.
    Interrupted = 130,
}

/// The table for `--help`.
pub const HELP: &str = "\
Exit codes:
  0    done
  1    the operation failed, was cancelled or went back to ready; or findings stand in its way
  2    the command line or a value in it is malformed
  3    the coordinator, or an agent needed for the answer, cannot be reached
  4    refused as things stand now, such as completing too early
  5    there is no such operation, instance or database
  6    permission denied
  130  ended by Ctrl-C; the operation goes on at the coordinator

Errors go to standard error with the reason code and the remedy; with -o json or yaml they are in that form too.";

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
