//! One reading of a signal.
//!
//! A bad reading means that the application answered wrongly or not at all; an unreadable one means that we
//! could not find out. The two are never mixed: what we could not see is no reason to act. Samples come from
//! the signal adapters of the shell and go to the [judge](crate::judge).

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// One reading of one signal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// When the reading ended.
    pub at: Timestamp,
    /// How long it took.
    pub took: SignedDuration,
    /// What was read.
    pub reading: Reading,
}

/// What a signal said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Reading {
    /// Events that were seen: one for a probe, many for a log.
    Events {
        /// Events that were as they should be.
        good: u64,
        /// Events in which the application answered wrongly or not at all.
        bad: u64,
        /// A number that came with the reading (a query's result, a command's output).
        value: Option<f64>,
        /// Why the bad events are bad, for people; `None` when all were good.
        reason: Option<String>,
    },
    /// We could not find out.
    Unreadable {
        /// Why not, for people.
        reason: String,
    },
}

impl Reading {
    /// One good event.
    pub const fn good() -> Self {
        Self::Events { good: 1, bad: 0, value: None, reason: None }
    }

    /// One good event that carried a number.
    pub const fn good_with(value: f64) -> Self {
        Self::Events { good: 1, bad: 0, value: Some(value), reason: None }
    }

    /// One bad event and why.
    pub fn bad(reason: impl Into<String>) -> Self {
        Self::Events { good: 0, bad: 1, value: None, reason: Some(reason.into()) }
    }

    /// A reading that could not be made, and why.
    pub fn unreadable(reason: impl Into<String>) -> Self {
        Self::Unreadable { reason: reason.into() }
    }

    /// Whether no event of the reading was good and at least one was bad. Unreadable is not bad.
    pub const fn is_bad(&self) -> bool {
        matches!(self, Self::Events { good: 0, bad: 1.., .. })
    }

    /// Why the reading is not good, where a reason was given.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Events { reason, .. } => reason.as_deref(),
            Self::Unreadable { reason } => Some(reason),
        }
    }
}
