//! What comes in.

use jiff::{SignedDuration, Timestamp};

use super::record::Process;
use super::step::Outcome;
use crate::judge::Assessment;

/// Something that the shell tells the state machine.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The program has started and the journal was read. What was under way is not any more.
    Restarted {
        /// The program's version.
        version: String,
    },
    /// Look at the time.
    Pulse {
        /// The scheduled openings that are due: see [`window::Schedule::due`](crate::window::Schedule::due).
        due: Vec<DueOpening>,
    },
    /// The wall clock was set, or nothing was looked at for a while.
    ClockMoved {
        /// By how much it was set.
        by: SignedDuration,
        /// For how long nothing was looked at.
        unseen: SignedDuration,
    },
    /// The judge says something.
    Assessed(Assessment),
    /// A step started a process.
    ProcessStarted {
        /// The step's number.
        step: u64,
        /// The process.
        process: Process,
    },
    /// A step ended.
    StepEnded {
        /// The step's number.
        step: u64,
        /// How.
        outcome: Box<Outcome>,
    },
    /// A receiving server has acknowledged a notice, or never will.
    NoticeSettled {
        /// The notice's id.
        notice: String,
        /// The contact's channel.
        channel: String,
        /// `Err` with the reason when it can never be delivered this way.
        result: Result<(), String>,
    },
    /// Somebody asks for something.
    Requested(Request),
}

/// A scheduled opening whose time has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DueOpening {
    /// When it was due.
    pub at: Timestamp,
    /// Whether it is too old to count as being on time.
    pub missed: bool,
}

/// What somebody asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// Who asks.
    pub who: String,
    /// Why.
    pub reason: String,
    /// What.
    pub ask: Ask,
}

/// What can be asked for.
#[derive(Debug, Clone, PartialEq)]
pub enum Ask {
    /// Open a window now.
    Open {
        /// Whether it is `rollbackd guard` that asks.
        guard: bool,
    },
    /// The migration is done: soak.
    Finished,
    /// Hold decisions.
    Hold,
    /// End the hold.
    Resume,
    /// Give the window up.
    Cancel {
        /// Even in the middle of a rollback, which leads to needs operator.
        abandon: bool,
    },
    /// An operator has ended what automation could not.
    Resolved {
        /// Settle without verification.
        force: bool,
    },
    /// Roll back now.
    Rollback,
    /// Yes to the rung that waits.
    Approve,
    /// No to the rung that waits.
    Decline,
    /// Somebody has taken charge.
    Acknowledge,
}

/// Why a request is not carried out. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// What stands against it and what to do instead.
    pub message: String,
}
