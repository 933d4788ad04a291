//! The checked configuration: every value valid, every path absolute, every secret read.
//!
//! It is made by [`load`](super::load) and read by the adapters. What decisions need of it is copied into a
//! [`Plan`](rollbackd_core::plan::Plan) by [`Config::plan`], which holds nothing secret. Here are the whole and its single
//! sections; what has many parts is in a module of its own.

mod contact;
mod rollback;
mod signal;
mod value;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rollbackd_core::baseline::TableName;
use rollbackd_core::plan::{Missed, OnCommandFailure};

pub use self::contact::{Channel, Contact, Heartbeat, SigningKey, Smtp, SmtpTls};
pub use self::rollback::{Check, CheckKind, Gate, GateKind, HttpCall, IntegrityPolicy, Method, Rollback, Rung};
pub use self::signal::{HttpProbe, JsonCondition, JsonTest, LogSource, PrometheusQuery, Rule, Signal, SignalSource};
pub use self::value::{Address, Command, Secret};
pub use super::promql::{Promql, Series};
pub use super::sql::{Script, Statement};
use super::veil::Veil;

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

/// `[http]`.
#[derive(Debug, Clone)]
pub struct Http {
    /// `listen`.
    pub listen: SocketAddr,
    /// `token`.
    pub token: Option<Secret>,
}
