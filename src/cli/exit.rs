//! What the shell is told.

use std::process::ExitCode;

/// The exit codes of the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done, passed or healthy.
    Done = 0,
    /// Failed for a reason that has no code of its own.
    Failed = 1,
    /// Rolled back, and the application has recovered.
    Recovered = 20,
    /// An operator is needed.
    NeedsOperator = 21,
    /// Refused at preflight; nothing was changed.
    Refused = 22,
    /// Cancelled by an operator.
    Cancelled = 23,
    /// Wrong usage.
    Usage = 64,
    /// Something that is needed is not available.
    Unavailable = 69,
    /// The configuration is wrong.
    Configuration = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An end with a code of its own: what anything that fails returns to leave with that code.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Stop {
    /// The code.
    pub exit: Exit,
    /// What is wrong and the way out.
    pub message: String,
}

impl Stop {
    /// Leaves with this code and message.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into() }
    }
}
