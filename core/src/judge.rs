//! Samples → rules → verdict, with evidence.
//!
//! The judge holds sliding windows of samples in memory; it never acts. Its assessments go to the state
//! machine in [`run`](crate::run) as events.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::plan::Consequence;

/// What the rules say now, over all signals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// No rule holds and everything needed was read.
    Healthy,
    /// A rule has begun to hold but is not confirmed yet.
    Suspect,
    /// We could not find out. Never healthy and never a reason to roll back.
    Blind,
    /// Enough rollback rules are breached.
    Breached,
}

/// What one rule says now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuleState {
    /// It does not hold.
    Quiet,
    /// It holds, not yet for as long as `confirm` asks.
    Suspect,
    /// It holds and is confirmed.
    Breached,
    /// A signal that it needs could not be read for too long.
    Blind,
}

/// Why a rule holds: the same numbers in journal, notice, report and page.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// The rule's name.
    pub rule: String,
    /// The signal (or signals, joined by `, `) that it looked at.
    pub signal: String,
    /// What the rule says follows.
    pub then: Consequence,
    /// What was observed: a ratio, or a number of bad samples.
    pub observed: f64,
    /// What the rule allows.
    pub threshold: f64,
    /// The window that was looked at, where the condition has one.
    pub window: Option<SignedDuration>,
    /// How many events stand behind the observation.
    pub samples: u64,
    /// The reason that the latest bad sample gave.
    pub last_reason: Option<String>,
    /// When the rule began to hold.
    pub since: Timestamp,
    /// When it was evaluated.
    pub at: Timestamp,
    /// Tables that its signals implicate.
    pub implicates: Vec<String>,
    /// One sentence with all of this, for people.
    pub sentence: String,
}

/// One signal, as shown to people and metrics.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SignalView {
    /// Its name.
    pub name: String,
    /// Healthy: the last reading was good. Suspect: it was bad. Breached: a breached rule rests on it. Blind: it was unreadable, or nothing was read.
    pub verdict: Verdict,
    /// When it was last read.
    pub last_sample_at: Option<Timestamp>,
    /// Share of bad events among those remembered.
    pub error_ratio: Option<f64>,
    /// Bad samples in a row up to now.
    pub consecutive_bad: u32,
    /// Since when every reading was good; `None` when the last one was not.
    pub good_since: Option<Timestamp>,
    /// What the last reading gave as its reason.
    pub reason: Option<String>,
}

/// One rule, as shown to people and metrics.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RuleView {
    /// Its name.
    pub name: String,
    /// What it says now.
    pub state: RuleState,
    /// What follows when it is breached.
    pub then: Consequence,
}

/// Everything the judge says at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Assessment {
    /// When.
    pub at: Timestamp,
    /// Over all.
    pub verdict: Verdict,
    /// Every rule that is breached now, in configured order, whatever follows from it.
    pub breached: Vec<Evidence>,
    /// Why the verdict is blind: one sentence a signal.
    pub blind: Vec<String>,
    /// Since when every signal has been good without a break; `None` when one is not.
    pub healthy_since: Option<Timestamp>,
    /// Why `healthy_since` is `None`: one sentence a signal that is not good.
    pub unhealthy: Vec<String>,
}
