//! What is looked at, and what follows from it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use rollbackd_core::plan::{Condition, Consequence};

use super::{Address, Command, Promql, Secret, TlsMode};

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
