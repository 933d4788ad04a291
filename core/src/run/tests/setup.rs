//! How a world is made: its plan, what works in it and what does not, what people do, where it crashes.

use jiff::{SignedDuration, Timestamp};

use crate::plan::{
    CheckPlan, Consequence, Contact, DatabasePlan, DecisionPlan, Dispose, GatePlan, Links, Method, Missed, OnBlocked,
    OnCommandFailure, Plan, Reach, Removal, RollbackPlan, Rung, Severity, SignalPlan, Stage, TableChoice, WindowPlan,
};
use crate::run::event::Ask;
use crate::run::state::StateName;

pub(super) const ORIGINALS: [&str; 2] = ["posts", "profiles"];
pub(super) const ADDED: [&str; 4] = ["content_blocks", "media \"files\"", "pages", "user_sessions"];

pub(super) const fn secs(seconds: i64) -> SignedDuration {
    SignedDuration::from_secs(seconds)
}

/// So many seconds after the opening.
pub(super) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_795_312_800 + seconds).expect("in range")
}

/// The runbook's plan: a script, then the tables.
pub(super) fn plan() -> Plan {
    let check =
        |name: &str, stage| CheckPlan { name: name.to_owned(), kind: "sql".to_owned(), stage, within: secs(20) };
    Plan {
        name: "shop".to_owned(),
        host: "db1".to_owned(),
        config_sha256: "9f2c".to_owned(),
        window: WindowPlan {
            schedule: Some("0 2 * * SUN".to_owned()),
            timezone: "UTC".to_owned(),
            duration: secs(3600),
            soak: secs(600),
            missed: Missed::Skip,
            command: Some(vec!["supabase".to_owned(), "db".to_owned(), "push".to_owned()]),
            on_command_failure: OnCommandFailure::Rollback,
        },
        database: DatabasePlan {
            schema: "public".to_owned(),
            original_tables: ORIGINALS.map(str::to_owned).to_vec(),
            protected_schemas: vec!["auth".to_owned()],
        },
        healthy_for: secs(30),
        preflight_skipped: vec![],
        signals: vec![SignalPlan { name: "api".to_owned(), every: secs(5), timeout: secs(2), implicates: vec![] }],
        rules: vec![],
        decision: DecisionPlan { confirm: SignedDuration::ZERO, at_least: 1, blind_after: secs(60) },
        rollback: RollbackPlan {
            budget: secs(900),
            approve_always: false,
            repeat_page: secs(900),
            grace: secs(5),
            gates: vec![gate("edge")],
            rungs: vec![script_rung(), tables_rung()],
        },
        checks: vec![check("tables", Stage::Closed), check("sign in", Stage::Open)],
        contacts: vec![contact("Operations")],
        links: Links::default(),
    }
}

pub(super) fn gate(name: &str) -> GatePlan {
    GatePlan {
        name: name.to_owned(),
        required: false,
        manual_stop: format!("touch /run/{name}/stop"),
        manual_start: format!("rm /run/{name}/stop"),
    }
}

pub(super) fn script_rung() -> Rung {
    let command = vec!["node".to_owned(), "scripts/rollback-emergency.js".to_owned()];
    Rung { timeout: secs(120), needs_approval: false, method: Method::Script { command, idempotent: false } }
}

pub(super) fn tables_rung() -> Rung {
    let removal = Removal {
        tables: TableChoice::Added,
        dispose: Dispose::Quarantine,
        on_blocked: OnBlocked::Wait,
        reach: Reach::Attached,
    };
    Rung { timeout: secs(120), needs_approval: false, method: Method::Tables(removal) }
}

/// `partial`: only the tables that are to blame.
pub(super) fn partial_rung() -> Rung {
    let removal = Removal {
        tables: TableChoice::Implicated,
        dispose: Dispose::Quarantine,
        on_blocked: OnBlocked::Wait,
        reach: Reach::Related,
    };
    Rung { timeout: secs(120), needs_approval: false, method: Method::Tables(removal) }
}

pub(super) fn contact(name: &str) -> Contact {
    Contact {
        role: "system administrator".to_owned(),
        name: name.to_owned(),
        severity: Severity::Info,
        after: SignedDuration::ZERO,
        channels: vec!["email 1".to_owned()],
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Migration {
    Passes,
    /// Adds its tables, then exits with 1.
    Fails,
    Hangs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Script {
    Heals,
    /// Exits with 0 and changes nothing.
    Lies,
    Fails,
    /// Exits with 1 when everything is done.
    FailsButHeals,
    TimesOut,
    /// Exits with 0 when half is done.
    Half,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tables {
    Works,
    Locked,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verification {
    /// Passes when nothing added is left.
    WhenClean,
    Never,
    /// The open stage fails so often before it passes.
    OpenFails(u32),
    /// Does not pass before somebody has put something right, at this second.
    From(i64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Door {
    Works,
    Unreadable,
    /// Cannot be closed.
    Jammed,
    /// Closes, and fails to open so often.
    Sticks(u32),
    /// Closes once, and opens, and cannot be closed again.
    ClosesOnce,
}

/// When somebody asks for something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    At(i64),
    State(StateName),
    /// While a step of this name is under way.
    Step(&'static str),
    /// While a rung waits for an approval.
    Waiting,
}

/// Where the program ends without a warning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Crash {
    BeforeAppend(usize),
    AfterAppend(usize),
    /// While an effect is under way: nothing done yet, processes live on.
    BeforeEffect(usize),
    /// Half done, where that is possible; processes die too.
    HalfEffect(usize),
    /// Done, and nobody has heard of it.
    AfterEffect(usize),
}

#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "independent switches, each named where it is set")]
pub(super) struct Setup {
    pub(super) plan: Plan,
    pub(super) preflight: bool,
    pub(super) backup: bool,
    /// How long the backup takes.
    pub(super) backup_takes: i64,
    /// Whether the signals are bad before the migration.
    pub(super) sick: bool,
    /// When the signals turn bad by themselves.
    pub(super) sick_at: Option<i64>,
    pub(super) migration: Migration,
    /// How long the migration takes.
    pub(super) migration_takes: i64,
    /// What the rules say while the migration's tables are there.
    pub(super) breaks: Option<Consequence>,
    /// The tables that the breached rule's signal blames.
    pub(super) blames: Vec<String>,
    /// Whether the migration drops an original table.
    pub(super) destroys: bool,
    /// From when to when nothing can be read.
    pub(super) blind: Option<(i64, i64)>,
    /// From when to when the latest reading could not be read, not yet for long enough to be blind.
    pub(super) unseen: Option<(i64, i64)>,
    pub(super) script: Script,
    pub(super) tables: Tables,
    pub(super) verification: Verification,
    pub(super) doors: Vec<Door>,
    /// Channels that never deliver, as `contact/channel`.
    pub(super) dead: Vec<&'static str>,
    /// Whether a process that outlived a crash cannot be ended.
    pub(super) unkillable: bool,
    pub(super) deeds: Vec<(When, Ask)>,
    pub(super) crashes: Vec<Crash>,
    /// How long a crash keeps the program down.
    pub(super) down: i64,
    /// When the world ends.
    pub(super) limit: i64,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            plan: plan(),
            preflight: true,
            backup: true,
            backup_takes: 5,
            sick: false,
            sick_at: None,
            migration: Migration::Passes,
            migration_takes: 60,
            breaks: None,
            blames: vec![],
            destroys: false,
            blind: None,
            unseen: None,
            script: Script::Heals,
            tables: Tables::Works,
            verification: Verification::WhenClean,
            doors: vec![Door::Works],
            dead: vec![],
            unkillable: false,
            deeds: vec![],
            crashes: vec![],
            down: 3,
            limit: 3 * 3600,
        }
    }
}
