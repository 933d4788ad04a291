//! What is written down. The journal holds nothing else, and the state is made of nothing else.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::condense::Carried;
use super::step::{Outcome, Step};
use crate::baseline::Class;
use crate::judge::{Evidence, Level, Verdict};
use crate::notice::Notice;
use crate::plan::Plan;

/// One record in its place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Its place in the journal, from 1, without gaps.
    pub seq: u64,
    /// When it was decided.
    pub at: Timestamp,
    /// The window it belongs to, if it belongs to one.
    pub window: Option<String>,
    /// What happened.
    pub record: Record,
}

/// Something that happened or was decided.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum Record {
    /// The records before this one are gone: their windows were settled long ago.
    Condensed {
        /// What is still known of them.
        carried: Box<Carried>,
    },
    /// The program started and read the journal.
    Started {
        /// Its version.
        version: String,
    },
    /// A scheduled opening passed without a window.
    OpeningMissed {
        /// When it was due.
        opening: Timestamp,
        /// Why it was left out.
        reason: String,
    },
    /// A window opened, with the plan that holds until it is settled.
    WindowOpened {
        /// Its id.
        id: String,
        /// Who or what opened it.
        origin: Origin,
        /// The scheduled instant, for a scheduled window.
        opening: Option<Timestamp>,
        /// Its hard end.
        ends_at: Timestamp,
        /// Everything that was configured then.
        plan: Arc<Plan>,
    },
    /// The wall clock was set, or nothing was looked at for a while: what waits for a moment waits for another one.
    ClockMoved {
        /// By how much the clock was set, backwards when it is negative.
        by: SignedDuration,
        /// For how long nothing was looked at: the machine slept, or the program did not run.
        unseen: SignedDuration,
    },
    /// A step is about to act.
    StepStarted {
        /// Its number in the window, from 1.
        number: u64,
        /// What it does.
        step: Step,
        /// When it must have ended.
        deadline: Timestamp,
    },
    /// A step started a process; known so that a later life can find it.
    ProcessStarted {
        /// The step's number.
        step: u64,
        /// The process.
        process: Process,
    },
    /// A step ended.
    StepEnded {
        /// Its number.
        number: u64,
        /// How.
        outcome: Outcome,
    },
    /// Every signal has been healthy for long enough.
    WarmedUp {
        /// Since when they have been healthy.
        healthy_since: Timestamp,
        /// What each signal's events were like, for rules that compare with it; empty when none does.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        levels: Vec<Level>,
    },
    /// The migration is over; the soak begins.
    MigrationFinished {
        /// How we know.
        how: MigrationEnd,
        /// The same in a sentence.
        detail: String,
    },
    /// The rules say something else than before.
    VerdictChanged {
        /// What they said.
        from: Verdict,
        /// What they say now.
        to: Verdict,
        /// Why.
        detail: String,
    },
    /// A rule with `then = "page"` or `"freeze"` is breached.
    RulePaged {
        /// Why.
        evidence: Evidence,
    },
    /// A rule with `then = "page"` or `"freeze"` no longer holds.
    RuleQuieted {
        /// The rule.
        rule: String,
    },
    /// Decisions are held.
    HoldStarted {
        /// Who held them.
        who: String,
        /// Why.
        reason: String,
    },
    /// Decisions go on.
    HoldEnded {
        /// Who ended the hold.
        who: String,
        /// Why.
        reason: String,
    },
    /// A rollback is due, and starts.
    BreachDetected {
        /// Why.
        trigger: Trigger,
    },
    /// What taking the migration back costs, as the first look at the catalog shows it.
    Classified {
        /// The class; absent when the catalog could not be read.
        class: Option<Class>,
        /// What makes it so, in words.
        reasons: Vec<String>,
    },
    /// A rung is tried.
    RungStarted {
        /// Its place in the plan.
        rung: usize,
    },
    /// A rung waits for an operator's word.
    ApprovalRequested {
        /// Its place in the plan.
        rung: usize,
    },
    /// An operator said yes.
    ApprovalGiven {
        /// The rung's place in the plan.
        rung: usize,
        /// Who.
        who: String,
        /// Why.
        reason: String,
    },
    /// A rung did not bring the application back.
    RungFailed {
        /// Its place in the plan.
        rung: usize,
        /// Why.
        reason: String,
    },
    /// Automation has come to its end.
    OperatorNeeded {
        /// Why.
        reason: String,
        /// What a person does now: comments start with `--`, the rest are the commands.
        manual: Vec<String>,
    },
    /// An operator says that the incident is dealt with.
    ResolutionStarted {
        /// Who.
        who: String,
        /// Why.
        reason: String,
        /// Whether to settle without verification.
        force: bool,
    },
    /// The verification that followed did not pass; an operator is still needed.
    ResolutionFailed {
        /// Why not.
        reason: String,
    },
    /// Somebody has taken charge; repeated pages and escalation end.
    Acknowledged {
        /// Who.
        who: String,
        /// What they said.
        reason: String,
    },
    /// People were paged again.
    PageRepeated,
    /// The window is over.
    WindowSettled {
        /// How it ended.
        outcome: WindowOutcome,
        /// Why.
        detail: String,
    },
    /// A message is owed.
    NoticeOwed {
        /// The message.
        notice: Notice,
    },
    /// A receiving server has acknowledged it.
    NoticeDelivered {
        /// The message's id.
        notice: String,
        /// The contact's channel.
        channel: String,
    },
    /// It cannot be delivered this way.
    NoticeDead {
        /// The message's id.
        notice: String,
        /// The contact's channel.
        channel: String,
        /// Why not.
        reason: String,
    },
    /// It was held back, and is not needed any more.
    NoticeCancelled {
        /// The message's id.
        notice: String,
    },
}

/// Who or what opened a window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "by")]
pub enum Origin {
    /// The schedule.
    Schedule,
    /// An operator.
    Operator {
        /// Who.
        who: String,
        /// Why.
        reason: String,
    },
    /// `rollbackd guard`.
    Guard {
        /// Who.
        who: String,
    },
}

/// A process as a later life can recognise it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its id, which is its process group's too.
    pub pid: i32,
    /// Its start time in clock ticks since boot, as `/proc` says.
    pub start_ticks: u64,
    /// The boot it belongs to, as `/proc` says.
    pub boot_id: String,
}

/// How we know that the migration is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MigrationEnd {
    /// Its command exited with 0.
    Succeeded,
    /// Its command failed, and the plan leaves that to the signals.
    FailedAndLeft,
    /// Somebody reported it.
    Reported,
    /// The hard end came, and somebody else runs it.
    HardEnd,
    /// It ran on while we were down, and its exit code is lost.
    ExitUnknown,
}

/// Why a rollback starts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "by")]
pub enum Trigger {
    /// Rules.
    Rules {
        /// Each breached rollback rule.
        evidence: Vec<Evidence>,
    },
    /// The migration failed.
    Migration {
        /// How.
        detail: String,
    },
    /// The migration still ran at the window's hard end.
    HardEnd,
    /// An operator.
    Operator {
        /// Who.
        who: String,
        /// Why.
        reason: String,
    },
}

impl Trigger {
    /// A stable name for metrics and reports.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Rules { .. } => "rule",
            Self::Migration { .. } => "migration",
            Self::HardEnd => "hard_end",
            Self::Operator { .. } => "operator",
        }
    }

    /// Every name that [`name`](Self::name) can return.
    pub const NAMES: [&'static str; 4] = ["rule", "migration", "hard_end", "operator"];

    /// What each breached rule rests on, where rules are the reason.
    pub fn evidence(&self) -> &[Evidence] {
        match self {
            Self::Rules { evidence } => evidence,
            Self::Migration { .. } | Self::HardEnd | Self::Operator { .. } => &[],
        }
    }

    /// The tables to blame, each once, when every breached rule blames some.
    pub fn implicated(&self) -> Option<Vec<String>> {
        let Self::Rules { evidence } = self else { return None };
        let mut tables: Vec<String> = Vec::new();
        for one in evidence {
            if one.implicates.is_empty() {
                return None;
            }
            tables.extend(one.implicates.iter().cloned());
        }
        tables.sort();
        tables.dedup();
        (!tables.is_empty()).then_some(tables)
    }

    /// The trigger in a sentence.
    pub fn sentence(&self) -> String {
        match self {
            Self::Rules { evidence } => evidence.iter().map(|one| one.sentence.as_str()).collect::<Vec<_>>().join("; "),
            Self::Migration { detail } => detail.clone(),
            Self::HardEnd => "the migration still ran at the window's hard end".to_owned(),
            Self::Operator { who, reason } => format!("{who} asked for it: {reason}"),
        }
    }
}

/// How a window ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WindowOutcome {
    /// The application stayed healthy.
    Passed,
    /// A preflight check failed; nothing was changed.
    Refused,
    /// An operator cancelled it.
    Cancelled,
    /// It was rolled back, and the application has recovered.
    Recovered,
    /// An operator settled it without a verification that passed.
    Abandoned,
}
