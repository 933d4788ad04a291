//! Traffic, the ladder, and what proves a recovery.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use rollbackd_core::baseline::TableName;
use rollbackd_core::plan::{Dispose, OnBlocked, Reach, Stage, TableChoice};

use super::{Address, Command, HttpProbe, LogSource, Script, Secret, TlsMode};

/// `[rollback]`.
#[derive(Debug, Clone)]
pub struct Rollback {
    /// `budget`.
    pub budget: Duration,
    /// `approval = "always"`.
    pub approve_always: bool,
    /// `repeat_page`.
    pub repeat_page: Duration,
    /// `grace`: between TERM and KILL.
    pub grace: Duration,
    /// `[[rollback.gate]]`.
    pub gates: Vec<Gate>,
    /// `[[rollback.rung]]`.
    pub rungs: Vec<Rung>,
}

/// `[[rollback.gate]]`.
#[derive(Debug, Clone)]
pub struct Gate {
    /// `name`.
    pub name: String,
    /// `required`.
    pub required: bool,
    /// `canary`: refused when stopped, answered when resumed.
    pub canary: Option<Address>,
    /// `timeout`: for the gate's own work and, again, for the canary to agree.
    pub timeout: Duration,
    /// How.
    pub kind: GateKind,
}

/// How a gate stops traffic.
#[derive(Debug, Clone)]
pub enum GateKind {
    /// A file that is there while traffic is stopped.
    File {
        /// `path`.
        path: PathBuf,
    },
    /// Two commands.
    Command {
        /// `stop`.
        stop: Command,
        /// `start`.
        start: Command,
    },
    /// Two HTTP requests.
    Http {
        /// `stop`.
        stop: HttpCall,
        /// `start`.
        start: HttpCall,
    },
    /// The roles with which the application connects may not log in.
    PostgresSessions {
        /// `roles`.
        roles: Vec<String>,
    },
    /// A pooler turns a database's clients away.
    Pgbouncer {
        /// `url`: the admin console.
        url: Address,
        /// `sslmode` of the URL.
        tls_mode: TlsMode,
        /// `database`: its name in the pooler.
        database: String,
    },
    /// PostgREST refuses every request.
    Postgrest {
        /// `role`: the one with which it connects.
        role: String,
    },
}

/// A request that changes something.
#[derive(Debug, Clone)]
pub struct HttpCall {
    /// `url`.
    pub url: Address,
    /// `method`.
    pub method: String,
    /// `headers`.
    pub headers: BTreeMap<String, Secret>,
    /// `body` to send.
    pub body: Option<Secret>,
}

/// `[[rollback.rung]]`.
#[derive(Debug, Clone)]
pub struct Rung {
    /// `timeout`.
    pub timeout: Duration,
    /// `approval = "required"`.
    pub needs_approval: bool,
    /// What it does.
    pub method: Method,
}

/// What a rung does.
#[derive(Debug, Clone)]
pub enum Method {
    /// `kind = "script"`.
    Script {
        /// `command`.
        command: Command,
        /// `idempotent`.
        idempotent: bool,
    },
    /// `kind = "sql"`.
    Sql {
        /// `file`, as written.
        file: String,
        /// What it held when the configuration was read.
        script: Script,
    },
    /// `kind = "tables"`.
    Tables {
        /// `tables`.
        tables: TableChoice,
        /// `dispose` and `archive`.
        dispose: Dispose,
        /// `on_blocked`.
        on_blocked: OnBlocked,
        /// `kind = "partial"`, `"tables"` or `"reverse"`.
        reach: Reach,
    },
    /// `kind = "restore"`.
    Restore,
}

/// `[[verify]]`.
#[derive(Debug, Clone)]
pub struct Check {
    /// `name`; defaults to the kind, numbered when it is taken.
    pub name: String,
    /// `stage`.
    pub stage: Stage,
    /// `timeout` of one try.
    pub timeout: Duration,
    /// `retries` after the first try.
    pub retries: u32,
    /// `every`: pause between tries.
    pub every: Duration,
    /// What it checks.
    pub kind: CheckKind,
}

/// What a check checks.
#[derive(Debug, Clone)]
pub enum CheckKind {
    /// Every original table exists with its baseline columns.
    Tables,
    /// Rows against the baseline's: their number, sampled keys or the whole contents.
    Integrity {
        /// `default`.
        default: IntegrityPolicy,
        /// `tables`.
        tables: BTreeMap<TableName, IntegrityPolicy>,
    },
    /// Sign in with a test account.
    Auth {
        /// `url`: base of the auth service, such as `https://ref.supabase.co/auth/v1`.
        url: Address,
        /// `apikey`.
        apikey: Option<Secret>,
        /// `email`.
        email: Secret,
        /// `password`.
        password: Secret,
    },
    /// A request and its answer.
    Http(HttpProbe),
    /// The catalog is the baseline's, but for what was added beside it.
    Catalog,
    /// A query that must return true.
    Sql {
        /// `query`.
        query: String,
    },
    /// A command that must exit with 0.
    Command {
        /// `run`.
        run: Command,
    },
    /// Lines that come in while traffic flows again.
    ErrorLog {
        /// The log of `signal`.
        source: LogSource,
        /// `ratio_below`: the share of bad lines must be smaller.
        ratio_below: f64,
        /// `for`: how long lines are counted.
        within: Duration,
    },
}

impl CheckKind {
    /// The kind as configured.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Tables => "tables",
            Self::Integrity { .. } => "integrity",
            Self::Catalog => "catalog",
            Self::Auth { .. } => "auth",
            Self::Http(_) => "http",
            Self::Sql { .. } => "sql",
            Self::ErrorLog { .. } => "error_log",
            Self::Command { .. } => "command",
        }
    }
}

/// What a table's rows must be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum IntegrityPolicy {
    /// At least as many as the baseline's, and the sampled keys are all there.
    GrowOnly,
    /// The baseline's: number and fingerprint.
    Exact,
    /// As many as the baseline's, give or take this share of them.
    Tolerance(f64),
    /// Not looked at.
    Ignore,
}
