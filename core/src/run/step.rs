//! The smallest units of work in a window, and how they end.

use std::sync::Arc;

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use crate::baseline::{Baseline, Difference, RowCount, TableName};
use crate::plan::Stage;

/// A unit of work: journaled as started before it acts, and as ended after.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "do")]
pub enum Step {
    /// Check that the rollback would work: database and rights, script, disk, contacts' servers.
    Preflight,
    /// Take the backup and, under the same snapshot, the baseline.
    Backup,
    /// Run the migration.
    Migrate,
    /// End a process that must not run any longer: the migration at a breach, or one that outlived a crash.
    EndProcess {
        /// The number of the step that started it.
        of: u64,
    },
    /// Wait for a process that outlived a crash.
    AwaitProcess {
        /// The number of the step that started it.
        of: u64,
    },
    /// Read what a gate is set to, before it is changed.
    ReadGate {
        /// Its place in the plan.
        gate: usize,
    },
    /// Stop traffic, and prove it.
    CloseGate {
        /// Its place in the plan.
        gate: usize,
    },
    /// Put back what was read, and prove it.
    OpenGate {
        /// Its place in the plan.
        gate: usize,
    },
    /// Read the catalog and compare it with the baseline.
    Inspect {
        /// The rung's place in the plan.
        rung: usize,
        /// Before or after it acted.
        moment: Moment,
    },
    /// Let a rung do its work.
    Act {
        /// The rung's place in the plan.
        rung: usize,
    },
    /// Run the checks of a stage.
    Verify {
        /// Which checks.
        stage: Stage,
    },
}

/// Before or after a rung acted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Moment {
    /// Before.
    Before,
    /// After.
    After,
}

/// What to do with a step that started, and of which nobody knows how it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplayPolicy {
    /// Doing it again does no harm.
    Idempotent,
    /// Look first, then do it again or take it as done.
    Inspect,
    /// Never again: if looking cannot show that it finished, it has failed.
    NeverTwice,
}

impl Step {
    /// A stable name for metrics, logs and reports.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Preflight => "preflight",
            Self::Backup => "backup",
            Self::Migrate => "migrate",
            Self::EndProcess { .. } => "end_process",
            Self::AwaitProcess { .. } => "await_process",
            Self::ReadGate { .. } => "read_gate",
            Self::CloseGate { .. } => "close_gate",
            Self::OpenGate { .. } => "open_gate",
            Self::Inspect { .. } => "inspect",
            Self::Act { .. } => "act",
            Self::Verify { stage: Stage::Closed } => "verify_closed",
            Self::Verify { stage: Stage::Open } => "verify_open",
        }
    }

    /// Whether the step may start a process of the project's own that outlives us.
    pub const fn starts_process(&self) -> bool {
        match self {
            Self::Migrate | Self::Act { .. } => true,
            Self::Preflight
            | Self::Backup
            | Self::EndProcess { .. }
            | Self::AwaitProcess { .. }
            | Self::ReadGate { .. }
            | Self::CloseGate { .. }
            | Self::OpenGate { .. }
            | Self::Inspect { .. }
            | Self::Verify { .. } => false,
        }
    }

    /// Every name that [`name`](Self::name) can return.
    pub const NAMES: [&'static str; 12] = [
        "preflight",
        "backup",
        "migrate",
        "end_process",
        "await_process",
        "read_gate",
        "close_gate",
        "open_gate",
        "inspect",
        "act",
        "verify_closed",
        "verify_open",
    ];
}

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Whether it did what it was asked to.
    pub result: StepResult,
    /// What it found or did, in one sentence.
    pub detail: String,
    /// What the state machine needs to know of it.
    pub finding: Finding,
}

/// Whether a step did what it was asked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepResult {
    /// It did.
    Succeeded,
    /// It did not, and it is known that it did not.
    Failed,
    /// It was ended because its time was up.
    TimedOut,
    /// Nobody knows: we were interrupted.
    Unknown,
}

/// What a step found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "found")]
pub enum Finding {
    /// Nothing that is needed later.
    Nothing,
    /// The checks of a preflight or a verification.
    Checks {
        /// One result a check.
        checks: Vec<CheckResult>,
    },
    /// A backup and the baseline of the same snapshot.
    Backup {
        /// The backup's directory.
        directory: String,
        /// Its size in bytes.
        bytes: u64,
        /// The facts.
        baseline: Arc<Baseline>,
    },
    /// What a gate was set to before it was changed, in the gate's own words.
    Gate {
        /// The prior value.
        prior: String,
    },
    /// The catalog compared with the baseline.
    Difference {
        /// What differs.
        difference: Difference,
        /// The rows of the added tables, where they were counted.
        #[serde(default)]
        rows: Vec<RowCount>,
        /// The statements that would put everything back, in order.
        #[serde(default)]
        way_back: Vec<String>,
        /// What a restore would bring back and what would be lost, in sentences; none where no restore is ahead.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        restore: Vec<String>,
    },
    /// A process ended.
    Process {
        /// Its exit code; absent when a signal ended it or nobody knows.
        exit_code: Option<i32>,
        /// The end of what it printed, capped.
        output: String,
        /// Where all that was kept of what it printed is.
        output_file: Option<String>,
    },
    /// Tables were removed.
    Removal(RemovalFinding),
}

/// What a removal took, or would have taken.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RemovalFinding {
    /// The tables, with the rows they held.
    pub tables: Vec<RemovedTable>,
    /// Objects of the migration that went along, in words.
    pub collateral: Vec<String>,
    /// Objects from the baseline that stand in the way; not empty means that nothing was changed.
    pub survivors: Vec<String>,
    /// The schema they were moved to.
    pub quarantine: Option<String>,
    /// Where their rows were archived.
    pub archive: Option<String>,
    /// Who held locks on the tables before the first try, in words.
    #[serde(default)]
    pub holders: Vec<String>,
    /// Sessions that held locks, in words.
    pub blockers: Vec<String>,
    /// How often it was tried.
    pub attempts: u32,
    /// The statements of the transaction.
    pub sql: Vec<String>,
    /// What was put back, taken away or made again besides, in words.
    #[serde(default)]
    pub put_back: Vec<String>,
    /// What stays and does no harm, in words.
    #[serde(default)]
    pub left: Vec<String>,
    /// Where the values of columns are kept that were added to tables that stay.
    #[serde(default)]
    pub columns: Vec<KeptColumns>,
    /// Statements with which a person puts back rows that are kept and were not brought back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub by_hand: Vec<String>,
    /// Whether this was one group of several: the next is another step.
    #[serde(default)]
    pub more: bool,
}

impl RemovalFinding {
    /// Takes in what the next group's step found.
    pub fn join(&mut self, next: &Self) {
        self.tables.extend(next.tables.iter().cloned());
        self.collateral.extend(next.collateral.iter().cloned());
        self.survivors.clone_from(&next.survivors);
        self.quarantine = next.quarantine.clone().or_else(|| self.quarantine.take());
        self.archive = next.archive.clone().or_else(|| self.archive.take());
        self.blockers.extend(next.blockers.iter().cloned());
        self.holders.extend(next.holders.iter().cloned());
        self.attempts += next.attempts;
        self.sql.extend(next.sql.iter().cloned());
        self.put_back.extend(next.put_back.iter().cloned());
        self.left.clone_from(&next.left);
        self.columns.extend(next.columns.iter().cloned());
        self.by_hand.extend(next.by_hand.iter().cloned());
        self.more = next.more;
    }
}

/// Columns that were added to a table that stays, and where their values are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptColumns {
    /// The table that they were columns of.
    pub table: TableName,
    /// The columns by which a row is known again; none: whole rows are kept, and nobody can tell.
    pub keys: Vec<String>,
    /// The columns.
    pub columns: Vec<String>,
    /// The table that keeps them.
    pub place: TableName,
}

/// One removed table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemovedTable {
    /// Which.
    pub table: TableName,
    /// Its rows when it was removed, where they were counted.
    pub rows: Option<u64>,
}

/// One check of a preflight or a verification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckResult {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// Whether it held.
    pub passed: bool,
    /// What was found.
    pub detail: String,
    /// How long it took.
    pub took: SignedDuration,
}

impl Outcome {
    /// It did what it was asked to.
    pub fn succeeded(detail: impl Into<String>, finding: Finding) -> Self {
        Self { result: StepResult::Succeeded, detail: detail.into(), finding }
    }

    /// It did not.
    pub fn failed(detail: impl Into<String>) -> Self {
        Self { result: StepResult::Failed, detail: detail.into(), finding: Finding::Nothing }
    }

    /// Its time was up.
    pub fn timed_out(detail: impl Into<String>) -> Self {
        Self { result: StepResult::TimedOut, detail: detail.into(), finding: Finding::Nothing }
    }

    /// Nobody knows.
    pub fn unknown(detail: impl Into<String>) -> Self {
        Self { result: StepResult::Unknown, detail: detail.into(), finding: Finding::Nothing }
    }

    /// The same outcome with something found.
    #[must_use]
    pub fn with(self, finding: Finding) -> Self {
        Self { finding, ..self }
    }

    /// Whether it succeeded.
    pub const fn is_success(&self) -> bool {
        matches!(self.result, StepResult::Succeeded)
    }

    /// The checks, where it found some.
    pub fn checks(&self) -> &[CheckResult] {
        match &self.finding {
            Finding::Checks { checks } => checks,
            Finding::Nothing
            | Finding::Backup { .. }
            | Finding::Gate { .. }
            | Finding::Difference { .. }
            | Finding::Process { .. }
            | Finding::Removal(_) => &[],
        }
    }
}
