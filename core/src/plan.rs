//! What was configured, as far as decisions need it.
//!
//! A plan is made from the checked configuration and frozen in a window's first record: editing the
//! configuration never changes a window that is already open. It holds names, limits and the order of things;
//! addresses, credentials and everything else that only an adapter needs stay in the shell. Nothing in a plan
//! is secret, so it may be journaled, reported and shown.

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

/// One application's plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The configuration's `name`: label `plan` in metrics, first part of every window id.
    pub name: String,
    /// The host that guards, for notices.
    pub host: String,
    /// SHA-256 of the configuration that this plan was made from, in hex.
    pub config_sha256: String,
    /// When windows open, how long they last.
    pub window: WindowPlan,
    /// The database, as far as decisions and explanations name it.
    pub database: DatabasePlan,
    /// How long every signal must have been healthy before the migration may start.
    pub healthy_for: SignedDuration,
    /// Names of preflight checks that were configured away.
    pub preflight_skipped: Vec<String>,
    /// The signals, in configured order.
    pub signals: Vec<SignalPlan>,
    /// The rules, in configured order.
    pub rules: Vec<Rule>,
    /// How rules become a verdict.
    pub decision: DecisionPlan,
    /// How to roll back.
    pub rollback: RollbackPlan,
    /// The checks that decide whether the application has recovered.
    pub checks: Vec<CheckPlan>,
    /// Who is told.
    pub contacts: Vec<Contact>,
    /// Links that notices carry.
    pub links: Links,
}

/// When windows open and how long they last.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WindowPlan {
    /// Cron expression of five or six fields; absent: opened by hand only.
    pub schedule: Option<String>,
    /// Name of the zone in which the schedule is read.
    pub timezone: String,
    /// From the opening to the hard end.
    pub duration: SignedDuration,
    /// How long the application must stay healthy after the migration.
    pub soak: SignedDuration,
    /// What to do with an opening that passed while nobody was looking.
    pub missed: Missed,
    /// The migration as shown to people (secrets masked); absent: somebody else runs it.
    pub command: Option<Vec<String>>,
    /// What a migration that exits non-zero leads to.
    pub on_command_failure: OnCommandFailure,
}

/// What to do with an opening that passed while nobody was looking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Missed {
    /// Leave it out and say so.
    Skip,
    /// Open as soon as possible.
    Run,
}

/// What a migration that exits non-zero leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnCommandFailure {
    /// It is a breach.
    Rollback,
    /// Leave it to the signals.
    Leave,
}

/// The database as far as decisions name it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabasePlan {
    /// The schema in which unqualified table names are looked up.
    pub schema: String,
    /// Tables that stood before the migration and must survive it.
    pub original_tables: Vec<String>,
    /// Schemas in which nothing is ever removed or changed.
    pub protected_schemas: Vec<String>,
}

/// A signal's name and pace.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SignalPlan {
    /// Its name, unique in the plan.
    pub name: String,
    /// The pause from one reading's start to the next.
    pub every: SignedDuration,
    /// How long one reading may take.
    pub timeout: SignedDuration,
    /// Tables to blame when it breaches.
    pub implicates: Vec<String>,
}

/// A condition on samples and what follows from it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    /// Its name, unique in the plan.
    pub name: String,
    /// The signals whose samples it pools, by name.
    pub signals: Vec<String>,
    /// When it holds.
    pub condition: Condition,
    /// What follows.
    pub then: Consequence,
}

/// When a rule holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Condition {
    /// So many bad samples in a row, unreadable ones left out.
    Consecutive {
        /// How many.
        count: u32,
    },
    /// More than this share of the events in each of the windows was bad.
    ErrorRatioAbove {
        /// The share, 0 to 1.
        ratio: f64,
        /// The windows that end now; all must exceed.
        over: Vec<SignedDuration>,
        /// With fewer events in a window the rule says nothing.
        min_samples: u64,
        /// The share of the newest events must exceed too: of those back to so many good ones.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        last: Option<u64>,
    },
    /// This share of the readings took no longer than the quantile says, and the quantile is too long.
    LatencyAbove {
        /// The longest that the quantile may be.
        limit: SignedDuration,
        /// Which quantile, above 0 to 1: 0.99 is the time that 99 of 100 readings do not exceed.
        quantile: f64,
        /// The windows that end now; all must exceed.
        over: Vec<SignedDuration>,
        /// With fewer readings in a window the rule says nothing.
        min_samples: u64,
    },
    /// The value has been above the limit at every reading for so long.
    ValueAbove {
        /// The highest value that is allowed.
        limit: f64,
        /// For how long; zero: one reading is enough.
        hold: SignedDuration,
    },
    /// The value has been below the limit at every reading for so long.
    ValueBelow {
        /// The lowest value that is allowed.
        limit: f64,
        /// For how long; zero: one reading is enough.
        hold: SignedDuration,
    },
    /// The error budget that an objective leaves is used up too fast in each of the windows.
    BurnRateAbove {
        /// The objective: the share of events that must be good, below 1.
        slo: f64,
        /// How many times faster than allowed by the objective bad events may come.
        rate: f64,
        /// The windows that end now; all must exceed.
        over: Vec<SignedDuration>,
        /// With fewer events in a window the rule says nothing.
        min_samples: u64,
    },
    /// The share of bad events in each window is so many times that of the warm-up, and not by chance.
    TimesBaseline {
        /// How many times.
        times: f64,
        /// The windows that end now; all must exceed.
        over: Vec<SignedDuration>,
        /// With fewer events in a window the rule says nothing.
        min_samples: u64,
    },
}

impl Condition {
    /// The windows that it looks at, where it looks at windows.
    pub fn windows(&self) -> &[SignedDuration] {
        match self {
            Self::Consecutive { .. } | Self::ValueAbove { .. } | Self::ValueBelow { .. } => &[],
            Self::ErrorRatioAbove { over, .. }
            | Self::LatencyAbove { over, .. }
            | Self::BurnRateAbove { over, .. }
            | Self::TimesBaseline { over, .. } => over,
        }
    }

    /// What may not be exceeded, as a number: a count, a share, seconds, a value, a multiple.
    pub fn threshold(&self) -> f64 {
        match self {
            Self::Consecutive { count } => f64::from(*count),
            Self::ErrorRatioAbove { ratio, .. } => *ratio,
            Self::LatencyAbove { limit, .. } => limit.as_secs_f64(),
            Self::ValueAbove { limit, .. } | Self::ValueBelow { limit, .. } => *limit,
            Self::BurnRateAbove { rate, .. } => *rate,
            Self::TimesBaseline { times, .. } => *times,
        }
    }
}

/// What follows from a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Consequence {
    /// It counts towards a rollback.
    Rollback,
    /// People are told.
    Page,
    /// Decisions are held until an operator resumes them.
    Freeze,
}

/// How rules become a verdict.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DecisionPlan {
    /// How long a rule must hold before it is breached.
    pub confirm: SignedDuration,
    /// How many rollback rules must be breached at the same time.
    pub at_least: u32,
    /// How long a signal of a rollback rule may be unreadable before we are blind.
    pub blind_after: SignedDuration,
}

/// How to roll back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RollbackPlan {
    /// Time for the whole ladder; waiting for an approval does not count.
    pub budget: SignedDuration,
    /// Whether every rung waits for an approval.
    pub approve_always: bool,
    /// How often people are paged again while an operator or an approval is needed.
    pub repeat_page: SignedDuration,
    /// How long a process that is asked to end may take before it is killed.
    pub grace: SignedDuration,
    /// The ways to stop traffic, in order.
    pub gates: Vec<GatePlan>,
    /// The ladder, in order.
    pub rungs: Vec<Rung>,
}

/// One way to stop and resume traffic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatePlan {
    /// Its name, unique in the plan.
    pub name: String,
    /// Whether a rollback may not go on when it cannot be closed.
    pub required: bool,
    /// What a person does to close it.
    pub manual_stop: String,
    /// What a person does to open it.
    pub manual_start: String,
}

/// One method of rolling back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rung {
    /// How long acting may take.
    pub timeout: SignedDuration,
    /// Whether it waits for an approval.
    pub needs_approval: bool,
    /// What it does.
    pub method: Method,
}

/// What a rung does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Method {
    /// Runs the project's own script.
    Script {
        /// The command as shown to people (secrets masked).
        command: Vec<String>,
        /// Whether it may be run again after it was interrupted.
        idempotent: bool,
    },
    /// Removes tables that the migration added, and puts back what it redefined.
    Tables(Removal),
    /// Brings missing or damaged original tables back from the backup.
    Restore,
    /// Runs a SQL file in one transaction. What it holds is kept with the configuration, not here: it may be secret.
    Sql {
        /// The file as it was named.
        file: String,
    },
}

/// Which tables to remove, how, and what is put back with them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removal {
    /// Which.
    pub tables: TableChoice,
    /// How.
    pub dispose: Dispose,
    /// What to do with sessions that hold locks on them.
    pub on_blocked: OnBlocked,
    /// What else of the migration is taken back.
    #[serde(default)]
    pub reach: Reach,
}

/// What else of the migration is taken back, besides tables and what stands on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    /// What has to do with the tables: the rung `partial`.
    Related,
    /// That, and triggers, policies and rules on tables that stay: the rung `tables`.
    #[default]
    Attached,
    /// All that differs from the baseline: the rung `reverse`.
    Everything,
}

impl Removal {
    /// The rung's kind as configured.
    pub const fn kind(&self) -> &'static str {
        match self.reach {
            Reach::Related => "partial",
            Reach::Attached => "tables",
            Reach::Everything => "reverse",
        }
    }
}

/// Which tables a removal takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TableChoice {
    /// These, where they exist; unqualified names are looked up in the database's schema.
    Named(Vec<String>),
    /// Everything that is not in the baseline.
    Added,
    /// Those that the breached rules' signals blame.
    Implicated,
}

/// Where removed tables go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "how")]
pub enum Dispose {
    /// Into a schema of their own.
    Quarantine,
    /// Away.
    Drop {
        /// Whether their rows are archived first.
        archive: bool,
    },
}

/// What to do with sessions that hold locks on tables to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnBlocked {
    /// Retry with growing pauses inside the rung's time.
    Wait,
    /// End them after one lock timeout.
    Terminate,
}

/// A verification check's name, kind and stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckPlan {
    /// Its name, unique in the plan.
    pub name: String,
    /// Its kind as configured (`tables`, `integrity`, `catalog`, `auth`, `http`, `sql`, `command`).
    pub kind: String,
    /// When it runs.
    pub stage: Stage,
    /// The longest it can take with all its retries.
    pub within: SignedDuration,
}

/// When a check runs: before or after traffic is resumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// While traffic is stopped.
    Closed,
    /// After traffic was resumed.
    Open,
}

/// A person or channel from the runbook's list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contact {
    /// The runbook's role, such as `system administrator`.
    pub role: String,
    /// The name shown to people; unique in the plan.
    pub name: String,
    /// The least severity that reaches this contact.
    pub severity: Severity,
    /// How long a critical notice is held back for it; an acknowledgement meanwhile cancels it.
    pub after: SignedDuration,
    /// Labels of the channels (`email 1`, `webhook 1`), unique in the contact.
    pub channels: Vec<String>,
}

/// How urgent a notice is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// For the record.
    Info,
    /// Somebody should look.
    Warning,
    /// Somebody must act.
    Critical,
}

impl Severity {
    /// The word used in configuration, metrics and messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// Addresses that notices link to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Links {
    /// Base of the HTTP interface, such as `http://127.0.0.1:9187`; absent when it is switched off.
    pub base: Option<String>,
    /// The team's own runbook.
    pub runbook: Option<String>,
}

impl Plan {
    /// The signal with this name.
    pub fn signal(&self, name: &str) -> Option<&SignalPlan> {
        self.signals.iter().find(|signal| signal.name == name)
    }
}

impl Method {
    /// The rung's kind as configured.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Script { .. } => "script",
            Self::Tables(removal) => removal.kind(),
            Self::Restore => "restore",
            Self::Sql { .. } => "sql",
        }
    }
}
