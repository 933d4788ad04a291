//! The checked configuration: every value valid, every path absolute, every secret read.
//!
//! It is made by [`load`](super::load) and read by the adapters. What decisions need of it is copied into a
//! [`Plan`](rollbackd_core::plan::Plan) by [`Config::plan`], which holds nothing secret.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rollbackd_core::baseline::TableName;
use rollbackd_core::plan::{
    Condition, Consequence, Dispose, Missed, OnBlocked, OnCommandFailure, Reach, Severity, Stage, TableChoice,
};
use secrecy::{ExposeSecret, SecretString};
use url::Url;

pub use super::promql::{Promql, Series};
pub use super::sql::{Script, Statement};
use super::veil::Veil;

/// A value that is never shown. `Debug` prints `***`.
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// Takes a value out of sight.
    pub fn new(value: impl Into<String>) -> Self {
        Self(SecretString::from(value.into()))
    }

    /// The value, for the one place that needs it.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A URL whose user part and query are never shown. `Display` and `Debug` print the rest.
#[derive(Clone)]
pub struct Address(Url);

impl Address {
    /// Takes a parsed URL.
    pub const fn new(url: Url) -> Self {
        Self(url)
    }

    /// The whole URL, secrets included, for the one place that connects.
    pub const fn expose(&self) -> &Url {
        &self.0
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.0.scheme())?;
        if let Some(host) = self.0.host_str() {
            f.write_str(host)?;
        }
        if let Some(port) = self.0.port() {
            write!(f, ":{port}")?;
        }
        f.write_str(self.0.path())
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A command to run. Elements given by reference (`{ env = … }`) are masked when it is shown.
#[derive(Clone)]
pub struct Command {
    /// The program, looked up in `PATH` when it has no slash.
    pub program: String,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Program and arguments as they may be shown.
    pub shown: Vec<String>,
    /// The directory it runs in: the configuration file's.
    pub directory: PathBuf,
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Command").field(&self.shown).finish()
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown.join(" "))
    }
}

/// One application's configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where it was read from.
    pub path: PathBuf,
    /// The directory that relative paths start from.
    pub directory: PathBuf,
    /// The text that was read. It may hold secrets: it is only ever written to `state_dir`, mode 0600.
    pub source: Arc<Secret>,
    /// SHA-256 of the text, in hex.
    pub sha256: String,
    /// Covers every secret in it.
    pub veil: Veil,
    /// `name`.
    pub name: String,
    /// `state_dir`.
    pub state_dir: PathBuf,
    /// `[database]`.
    pub database: Database,
    /// `[window]`.
    pub window: Window,
    /// `[preflight]`.
    pub preflight: Preflight,
    /// `[backup]`.
    pub backup: Backup,
    /// `[decision]`.
    pub decision: Decision,
    /// `[[signal]]`.
    pub signals: Vec<Signal>,
    /// `[[rule]]`.
    pub rules: Vec<Rule>,
    /// `[rollback]`.
    pub rollback: Rollback,
    /// `[[verify]]`.
    pub checks: Vec<Check>,
    /// `[[contact]]`.
    pub contacts: Vec<Contact>,
    /// `[smtp]`.
    pub smtp: Option<Smtp>,
    /// `[http]`; absent: no TCP listener, the control socket only.
    pub http: Option<Http>,
    /// `[heartbeat]`.
    pub heartbeat: Option<Heartbeat>,
    /// `runbook`: link to the team's own runbook, shown in notices.
    pub runbook: Option<String>,
}

/// `[database]`.
#[derive(Debug, Clone)]
pub struct Database {
    /// Where and as whom to connect; holds the password.
    pub url: Address,
    /// `schema`.
    pub schema: String,
    /// `original_tables`, resolved against `schema`.
    pub original_tables: Vec<TableName>,
    /// `original_schema_file`.
    pub original_schema_file: Option<PathBuf>,
    /// `protected_schemas`.
    pub protected_schemas: Vec<String>,
    /// How the connection is secured.
    pub tls: Tls,
    /// `connect_timeout`.
    pub connect_timeout: Duration,
    /// `statement_timeout`.
    pub statement_timeout: Duration,
    /// `lock_timeout`.
    pub lock_timeout: Duration,
}

/// How a PostgreSQL connection is secured.
#[derive(Debug, Clone)]
pub struct Tls {
    /// `sslmode` of the URL.
    pub mode: TlsMode,
    /// `tls_root_cert`: trusted instead of the system's certificates.
    pub root_cert: Option<PathBuf>,
}

/// `sslmode`, with libpq's meanings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsMode {
    /// Plaintext.
    Disable,
    /// TLS when the server offers it.
    Prefer,
    /// TLS, certificate not verified (verified when `root_cert` is set, as libpq does).
    Require,
    /// TLS, certificate chain verified.
    VerifyCa,
    /// TLS, certificate chain and host name verified.
    VerifyFull,
}

/// `[window]`.
#[derive(Debug, Clone)]
pub struct Window {
    /// `schedule`, as written.
    pub schedule: Option<String>,
    /// `timezone`.
    pub timezone: jiff::tz::TimeZone,
    /// `timezone`, as written.
    pub timezone_name: String,
    /// `duration`.
    pub duration: Duration,
    /// `soak`.
    pub soak: Duration,
    /// `missed`.
    pub missed: Missed,
    /// `command`.
    pub command: Option<Command>,
    /// `on_command_failure`.
    pub on_command_failure: OnCommandFailure,
}

/// `[preflight]`.
#[derive(Debug, Clone)]
pub struct Preflight {
    /// `healthy_for`.
    pub healthy_for: Duration,
    /// `skip`: names out of [`crate::config::PREFLIGHT_CHECKS`].
    pub skip: Vec<String>,
}

/// `[backup]`.
#[derive(Debug, Clone)]
pub struct Backup {
    /// `directory`, absolute.
    pub directory: PathBuf,
    /// `schemas`.
    pub schemas: Vec<String>,
    /// `jobs`.
    pub jobs: u32,
    /// `keep`: how many backups to keep; older ones are removed after a new one was read back.
    pub keep: u32,
}

/// `[decision]`.
#[derive(Debug, Clone)]
pub struct Decision {
    /// `confirm`.
    pub confirm: Duration,
    /// `at_least`.
    pub at_least: u32,
    /// `blind_after`.
    pub blind_after: Duration,
    /// `witness`: `tcp://host:port` or `http(s)://…`.
    pub witnesses: Vec<Address>,
}

/// `[[signal]]`.
#[derive(Debug, Clone)]
pub struct Signal {
    /// `name`.
    pub name: String,
    /// `every`.
    pub every: Duration,
    /// `timeout`.
    pub timeout: Duration,
    /// `implicates`.
    pub implicates: Vec<String>,
    /// What is read.
    pub source: SignalSource,
}

/// What a signal reads.
#[derive(Debug, Clone)]
pub enum SignalSource {
    /// `[signal.http]`.
    Http(HttpProbe),
    /// `[signal.tcp]`: `host:port`.
    Tcp {
        /// `address`.
        address: String,
    },
    /// `[signal.postgres]`.
    Postgres {
        /// `url`, when it is not the database's.
        url: Option<(Address, TlsMode)>,
        /// `query`.
        query: String,
    },
    /// `[signal.command]`.
    Command {
        /// `run`.
        run: Command,
    },
    /// `[signal.prometheus]`.
    Prometheus(PrometheusQuery),
    /// `[signal.log]`.
    Log(LogSource),
}

impl SignalSource {
    /// The kind as configured.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Http(_) => "http",
            Self::Tcp { .. } => "tcp",
            Self::Postgres { .. } => "postgres",
            Self::Command { .. } => "command",
            Self::Prometheus(_) => "prometheus",
            Self::Log(_) => "log",
        }
    }
}

/// What a Prometheus is asked.
#[derive(Debug, Clone)]
pub struct PrometheusQuery {
    /// `url`: where it is; the API's path is added.
    pub url: Address,
    /// `headers`.
    pub headers: BTreeMap<String, Secret>,
    /// `query`.
    pub query: Promql,
    /// `samples`: how many events stand behind the value.
    pub samples: Option<Promql>,
    /// `max_age`: how old the data behind a value may be.
    pub max_age: Duration,
}

/// A log and what its lines mean.
#[derive(Debug, Clone)]
pub struct LogSource {
    /// `path`, absolute.
    pub path: PathBuf,
    /// `error`: which lines are bad.
    pub error: regex::bytes::Regex,
    /// `line`: which lines count; `None`: all that are not empty.
    pub line: Option<regex::bytes::Regex>,
}

/// An HTTP request and what its answer must be; also `[[verify]] kind = "http"`.
#[derive(Debug, Clone)]
pub struct HttpProbe {
    /// `url`.
    pub url: Address,
    /// `method`.
    pub method: String,
    /// `headers`.
    pub headers: BTreeMap<String, Secret>,
    /// `body` to send.
    pub body: Option<Secret>,
    /// `status`: accepted codes; empty: 200 to 299.
    pub status: Vec<u16>,
    /// `json`: conditions on the answer.
    pub json: Vec<JsonCondition>,
    /// `body_contains`.
    pub body_contains: Option<String>,
    /// `redirects`: how many are followed.
    pub redirects: u8,
}

/// A condition on one place of a JSON answer.
#[derive(Debug, Clone)]
pub struct JsonCondition {
    /// RFC 6901 pointer.
    pub pointer: String,
    /// What must hold there.
    pub test: JsonTest,
}

/// What must hold at a place of a JSON answer.
#[derive(Debug, Clone)]
pub enum JsonTest {
    /// It is there (or not).
    Exists(bool),
    /// It equals this.
    Equals(serde_json::Value),
    /// It is a number and at least this.
    AtLeast(f64),
    /// It is a number and at most this.
    AtMost(f64),
}

/// `[[rule]]`.
#[derive(Debug, Clone)]
pub struct Rule {
    /// `name`.
    pub name: String,
    /// `signal` or `signals`.
    pub signals: Vec<String>,
    /// The condition.
    pub condition: Condition,
    /// `then`.
    pub then: Consequence,
}

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

/// `[[contact]]`.
#[derive(Debug, Clone)]
pub struct Contact {
    /// `role`.
    pub role: String,
    /// `name`; defaults to the role.
    pub name: String,
    /// `severity`.
    pub severity: Severity,
    /// `after`.
    pub after: Duration,
    /// `email` and `webhook`, labelled `email 1`, `email 2`, `webhook 1`, …
    pub channels: Vec<(String, Channel)>,
}

/// One way to reach a contact.
#[derive(Debug, Clone)]
pub enum Channel {
    /// A mail address.
    Email(lettre::message::Mailbox),
    /// A webhook of format `standard`.
    Webhook {
        /// `url`.
        url: Address,
        /// `secret`: the key of the signature, decoded from `whsec_…`.
        key: Option<Arc<SigningKey>>,
    },
}

/// A webhook's signing key. `Debug` prints `***`.
#[derive(Clone)]
pub struct SigningKey(secrecy::SecretBox<[u8]>);

impl SigningKey {
    /// Takes the bytes.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(secrecy::SecretBox::new(bytes.into_boxed_slice()))
    }

    /// The bytes, for signing.
    pub fn expose(&self) -> &[u8] {
        self.0.expose_secret()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// `[smtp]`.
#[derive(Debug, Clone)]
pub struct Smtp {
    /// `host`.
    pub host: String,
    /// `port`.
    pub port: u16,
    /// `tls`.
    pub tls: SmtpTls,
    /// `username` and `password`.
    pub credentials: Option<(Secret, Secret)>,
    /// `from`.
    pub from: lettre::message::Mailbox,
    /// `timeout` of one command.
    pub timeout: Duration,
}

/// `smtp.tls`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SmtpTls {
    /// TLS from the first byte.
    Implicit,
    /// `STARTTLS`, required.
    StartTls,
    /// Plaintext.
    None,
}

/// `[heartbeat]`: the dead-man's switch. `Debug` does not show where it is.
#[derive(Clone)]
pub struct Heartbeat {
    /// `url`; its path is its secret.
    pub url: Address,
    /// `every`.
    pub every: Duration,
}

impl fmt::Debug for Heartbeat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Heartbeat").field("every", &self.every).finish_non_exhaustive()
    }
}

/// `[http]`.
#[derive(Debug, Clone)]
pub struct Http {
    /// `listen`.
    pub listen: SocketAddr,
    /// `token`.
    pub token: Option<Secret>,
}
