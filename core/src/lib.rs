//! The pure core of rollbackd.
//!
//! Everything that is *decided* lives here; everything that is *done* lives in the shell around it.
//! Nothing in this crate reads a clock, touches a file, opens a socket or starts a task: time, samples and
//! the outcomes of effects come in as arguments, records and effects go out as values. That is what makes a
//! decision testable without a database and repeatable from a journal.
//!
//! Data flows through the modules in this order:
//!
//! 1. [`window`]: cron expression and zone → the instants at which windows open
//! 2. [`sample`]: one reading of a signal
//! 3. [`judge`]: samples → rules → verdict, with evidence
//! 4. [`baseline`], [`reversal`]: the facts from before the migration, their difference to now, and the way back
//! 5. [`plan`]: what was configured, frozen when a window opens
//! 6. [`run`]: the state machine: events → records → state → effects
//! 7. [`notice`]: records → who is owed which message
//! 8. [`report`]: records → what happened, for people

pub mod baseline;
pub mod judge;
pub mod notice;
pub mod plan;
pub mod replay;
pub mod report;
pub mod reversal;
pub mod run;
pub mod sample;
pub mod window;
pub mod words;
